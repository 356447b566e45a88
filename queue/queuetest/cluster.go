package queuetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// slots is how many a Cluster has.
const slots = 16384

// Cluster is a Redis Cluster of masters that share the slots evenly.
type Cluster struct {
	// URL names all nodes, with the parameter cluster=true.
	URL string
	// Nodes are its masters.
	Nodes []*Node

	t   testing.TB
	ids []string
}

// StartCluster starts a Cluster of so many masters; they end with the test.
func StartCluster(t testing.TB, masters int) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	var addresses []string
	for i := range masters {
		host, bus, _ := net.SplitHostPort(freeAddress(t))
		n := startNode(t, "--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction", "--cluster-enabled", "yes",
			"--cluster-config-file", filepath.Join(t.TempDir(), "nodes.conf"), "--cluster-port", bus, "--cluster-node-timeout", "5000",
			"--cluster-announce-ip", host, "--cluster-require-full-coverage", "no")
		n.do(t, "CLUSTER", "SET-CONFIG-EPOCH", i+1)
		n.do(t, "CLUSTER", "ADDSLOTSRANGE", i*slots/masters, (i+1)*slots/masters-1)
		host, port, _ := net.SplitHostPort(n.Address)
		for _, other := range c.Nodes {
			other.do(t, "CLUSTER", "MEET", host, port, bus)
		}
		id, err := n.Client.Do(context.Background(), "CLUSTER", "MYID").Text()
		if err != nil {
			t.Fatal(err)
		}
		c.Nodes, c.ids, addresses = append(c.Nodes, n), append(c.ids, id), append(addresses, n.Address)
	}
	c.URL = "redis://" + addresses[0] + "?cluster=true"
	for _, other := range addresses[1:] {
		c.URL += "&addr=" + other
	}
	until(t, "the nodes to know each other", func() error {
		for _, n := range c.Nodes {
			info, err := n.Client.ClusterInfo(context.Background()).Result()
			if err != nil {
				return err
			}
			for _, want := range []string{"cluster_state:ok", fmt.Sprint("cluster_slots_ok:", slots), fmt.Sprint("cluster_known_nodes:", masters)} {
				if !strings.Contains(info, want) {
					return errors.New(info)
				}
			}
		}
		return nil
	})
	return c
}

// Slot gives the slot of a key.
func (c *Cluster) Slot(key string) int {
	c.t.Helper()
	slot, err := c.Nodes[0].Client.ClusterKeySlot(context.Background(), key).Result()
	if err != nil {
		c.t.Fatal(err)
	}
	return int(slot)
}

// Owner gives the node that had a slot at the start.
func (c *Cluster) Owner(slot int) *Node {
	i := 0
	for slot >= (i+1)*slots/len(c.Nodes) {
		i++
	}
	return c.Nodes[i]
}

// Move brings a slot with all its keys from one node to another, as redis-cli --cluster reshard does. meanwhile is called while some
// keys are at the one and some at the other.
func (c *Cluster) Move(slot int, from, to *Node, meanwhile func()) {
	c.t.Helper()
	id := func(n *Node) string {
		for i := range c.Nodes {
			if c.Nodes[i] == n {
				return c.ids[i]
			}
		}
		return ""
	}
	host, port, _ := net.SplitHostPort(to.Address)
	to.do(c.t, "CLUSTER", "SETSLOT", slot, "IMPORTING", id(from))
	from.do(c.t, "CLUSTER", "SETSLOT", slot, "MIGRATING", id(to))
	for half := true; ; half = false {
		keys, err := from.Client.ClusterGetKeysInSlot(context.Background(), slot, 20).Result()
		if err != nil {
			c.t.Fatal(err)
		}
		if len(keys) == 0 {
			break
		}
		migrate := []any{"MIGRATE", host, port, "", 0, 10_000, "KEYS"}
		for _, k := range keys {
			migrate = append(migrate, k)
		}
		from.do(c.t, migrate...)
		if half && meanwhile != nil {
			meanwhile()
		}
	}
	for _, n := range []*Node{to, from} {
		n.do(c.t, "CLUSTER", "SETSLOT", slot, "NODE", id(to))
	}
	for _, n := range c.Nodes {
		if n != to && n != from {
			n.do(c.t, "CLUSTER", "SETSLOT", slot, "NODE", id(to))
		}
	}
}
