package queuetest

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Replicated is a master and its replicas.
type Replicated struct {
	// URL leads to the master; with Sentinel to whichever is.
	URL string
	// Nodes are all servers; the first is the master at the start.
	Nodes []*Node

	t         testing.TB
	sentinels []*Node
}

// StartReplicated starts a master and as many replicas; they end with the test.
func StartReplicated(t testing.TB, replicas int) *Replicated {
	t.Helper()
	arguments := []string{"--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction", "--repl-diskless-sync", "yes",
		"--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"}
	master := startNode(t, arguments...)
	r := &Replicated{t: t, URL: "redis://" + master.Address + "/0", Nodes: []*Node{master}}
	for range replicas {
		host, port, _ := net.SplitHostPort(master.Address)
		r.Nodes = append(r.Nodes, startNode(t, append([]string{"--replicaof", host + " " + port}, arguments...)...))
	}
	until(t, "the replicas to follow", func() error { return r.followed(master) })
	return r
}

// followed reports whether all other nodes are replicas of this one, in step with it.
func (r *Replicated) followed(master *Node) error {
	ctx := context.Background()
	info, err := master.Client.Info(ctx, "replication").Result()
	if err == nil && strings.Count(info, "state=online") < len(r.Nodes)-1 {
		err = fmt.Errorf("%s", info)
	}
	for _, node := range r.Nodes {
		if node == master || err != nil {
			continue
		}
		if info, err = node.Client.Info(ctx, "replication").Result(); err == nil && !strings.Contains(info, "master_link_status:up") {
			err = fmt.Errorf("%s has no link to its master", node.Address)
		}
	}
	return err
}

// masterName is what Sentinel calls the master.
const masterName = "mail"

// StartSentinel starts a master, two replicas and three sentinels, which take a server for dead that has not answered for as long
// as down.
func StartSentinel(t testing.TB, down time.Duration) *Replicated {
	t.Helper()
	r := StartReplicated(t, 2)
	host, port, _ := net.SplitHostPort(r.Nodes[0].Address)
	var addresses []string
	for range 3 {
		s := startNode(t, "--sentinel")
		r.sentinels = append(r.sentinels, s)
		addresses = append(addresses, s.Address)
		s.do(t, "SENTINEL", "MONITOR", masterName, host, port, 2)
		for option, value := range map[string]any{"down-after-milliseconds": down.Milliseconds(), "failover-timeout": 10_000, "parallel-syncs": 2} {
			s.do(t, "SENTINEL", "SET", masterName, option, value)
		}
	}
	r.URL = "redis://" + addresses[0] + "/0?master_name=" + masterName + "&addr=" + strings.Join(addresses[1:], "&addr=")
	r.AwaitWatched()
	return r
}

// do sends one command, which must succeed.
func (n *Node) do(t testing.TB, arguments ...any) {
	t.Helper()
	if err := n.Client.Do(context.Background(), arguments...).Err(); err != nil {
		t.Fatalf("%v: %v", arguments, err)
	}
}

// Master gives the server that Sentinel takes for the master; nil if it does not know one of ours.
func (r *Replicated) Master() *Node {
	address, err := redis.NewSentinelClient(r.sentinels[0].Client.Options()).GetMasterAddrByName(context.Background(), masterName).Result()
	for _, n := range r.Nodes {
		if err == nil && n.Address == net.JoinHostPort(address[0], address[1]) {
			return n
		}
	}
	return nil
}

// Failovers gives how often another server has become the master.
func (r *Replicated) Failovers() int {
	r.t.Helper()
	state, err := redis.NewSentinelClient(r.sentinels[0].Client.Options()).Master(context.Background(), masterName).Result()
	if err != nil {
		r.t.Fatal(err)
	}
	n, err := strconv.Atoi(state["config-epoch"])
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// AwaitWatched waits until every sentinel knows the others and all servers, and the master is followed by the others: from then on
// it can die.
func (r *Replicated) AwaitWatched() {
	r.t.Helper()
	until(r.t, "the sentinels to know all", func() error {
		master := r.Master()
		if master == nil {
			return fmt.Errorf("no master")
		}
		for _, s := range r.sentinels {
			state, err := s.Client.Do(context.Background(), "SENTINEL", "MASTER", masterName).Slice()
			if err != nil {
				return err
			}
			for i := 0; i+1 < len(state); i += 2 {
				want := map[any]string{"num-slaves": fmt.Sprint(len(r.Nodes) - 1), "num-other-sentinels": fmt.Sprint(len(r.sentinels) - 1), "flags": "master",
					"port": master.Client.Options().Addr[strings.LastIndex(master.Client.Options().Addr, ":")+1:]}
				if w, ok := want[state[i]]; ok && state[i+1] != w {
					return fmt.Errorf("%v is %v", state[i], state[i+1])
				}
			}
		}
		return r.followed(master)
	})
}

// AwaitMaster waits until another server than this one is the master, and returns it.
func (r *Replicated) AwaitMaster(than *Node) *Node {
	r.t.Helper()
	var master *Node
	until(r.t, "another master", func() error {
		if master = r.Master(); master == nil || master == than {
			return fmt.Errorf("%s is still taken for it", than.Address)
		}
		return master.Client.Set(context.Background(), "queuetest", "a master takes this", 0).Err()
	})
	return master
}

// Rejoin starts a server that was killed again, as a replica of the master.
func (r *Replicated) Rejoin(n *Node) {
	r.t.Helper()
	host, port, _ := net.SplitHostPort(r.Master().Address)
	n.Start("--replicaof", host+" "+port)
	r.AwaitWatched()
}

// Sync waits until both replicas have all that the master has.
func (r *Replicated) Sync() {
	r.t.Helper()
	until(r.t, "the replicas to have all", func() error {
		return r.Master().Client.Watch(context.Background(), func(tx *redis.Tx) error { // both go by one connection
			if err := tx.Set(context.Background(), "queuetest", "a replica has this", 0).Err(); err != nil {
				return err
			}
			n, err := tx.Wait(context.Background(), len(r.Nodes)-1, time.Second).Result()
			if err == nil && int(n) < len(r.Nodes)-1 {
				err = fmt.Errorf("%d of them", n)
			}
			return err
		})
	})
}

// Cut parts the master from its replicas: what it writes from now on dies with it. Join has them listen again.
func (r *Replicated) Cut() {
	r.t.Helper()
	master := r.Master()
	for _, n := range r.Nodes {
		if n != master {
			n.Freeze()
		}
	}
	// What was on its way by then they still have.
	if err := master.Client.ClientKillByFilter(context.Background(), "TYPE", "replica").Err(); err != nil {
		r.t.Fatal(err)
	}
}

// Join ends Cut, when the master is dead.
func (r *Replicated) Join() {
	for _, n := range r.Nodes {
		n.Thaw()
	}
}
