package queue

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue/queuetest"
)

// clustered opens a queue on a Cluster.
func clustered(t *testing.T, c *queuetest.Cluster) *Queue {
	t.Helper()
	var addresses []string
	for _, n := range c.Nodes {
		addresses = append(addresses, n.Address)
	}
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addresses, Protocol: 2, PoolSize: 100})
	t.Cleanup(func() { _ = client.Close() })
	return open(t, client)
}

func TestAClusterIsAskedWhereOurKeysAre(t *testing.T) {
	t.Parallel()
	c := queuetest.StartCluster(t, 3)
	q := clustered(t, c)
	if _, err := q.EnqueueBatch(t.Context(), batch(mail.Report, 3)); err != nil {
		t.Fatal(err)
	}
	ours := c.Owner(c.Slot(q.prefix))
	for _, n := range c.Nodes {
		if n != ours {
			n.Kill()
		}
	}
	// Redis's time decides what limits let go, and other shards have other clocks: these do not answer at all.
	for range 10 {
		if err := q.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		if now, err := q.now(t.Context()); err != nil || time.Since(now).Abs() > time.Hour {
			t.Fatalf("time: %v, %v", now, err)
		}
		if _, err := q.PauseOfEverything(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := q.tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := listAll(t, q, MessageFilter{}, 2); len(got) != 3 {
			t.Fatalf("%d messages are listed, want 3", len(got))
		}
		if page, err := q.Batches(t.Context(), BatchFilter{}, "", 0); err != nil || len(page.Batches) != 1 {
			t.Fatalf("%+v, %v", page, err)
		}
	}
	if got := cancelAll(t, q, MessageFilter{}, SelectionOptions{}); got.Done != 3 {
		t.Errorf("%+v", got)
	}
}

func TestASlotThatMovesLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	c := queuetest.StartCluster(t, 2)
	q := clustered(t, c)
	const n = 200
	sent := make(chan string, 10*n)
	version := activate(t, q, 4)
	consume(t, q, version, func(a *Attempt) *Settlement {
		sent <- a.MessageID
		return delivered(a)
	})
	var ids []string
	accept := func() {
		r, err := q.EnqueueBatch(t.Context(), batch(mail.Report, n))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, r.IDs...)
	}
	accept()
	eventually(t, "the first are sent", func() bool { return len(sent) >= n/10 })
	slot := c.Slot(q.prefix)
	from := c.Owner(slot)
	to := c.Nodes[0]
	if to == from {
		to = c.Nodes[1]
	}
	c.Move(slot, from, to, func() {
		if _, err := q.Enqueue(t.Context(), message(mail.Alert, "ada@example.net")); !redis.IsTryAgainError(err) {
			t.Errorf("accepting while the slot moves: %v, want TRYAGAIN", err)
		}
		if len(sent) == n {
			t.Error("everything had gone before: this proves nothing")
		}
	})
	accept()
	times := map[string]int{}
	deadline := time.After(30 * time.Second)
	for range ids {
		select {
		case id := <-sent:
			times[id]++
		case <-deadline:
			t.Fatalf("%d of %d were sent", len(times), len(ids))
		}
	}
	for _, id := range ids {
		if times[id] != 1 {
			t.Errorf("message %s was sent %d times", id, times[id])
		}
		eventually(t, "its record says so", func() bool {
			s, err := q.Message(t.Context(), id)
			return err == nil && s.State == Delivered
		})
	}
}
