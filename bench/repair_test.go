package bench

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/queue/queuetest"
)

// TestRepairOfALargeBacklog measures what it takes to compare all indexes and counters with the records, and to make those again that
// were lost, with 10,000 messages that wait; with -full 100,000 and 1,000,000.
func TestRepairOfALargeBacklog(t *testing.T) {
	sizes := []int{10_000}
	if *full {
		sizes = []int{100_000, 1_000_000}
	}
	for _, n := range sizes {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			r := queuetest.Start(t)
			q, err := queue.Open(t.Context(), queue.Options{Client: r.Client})
			if err != nil {
				t.Fatal(err)
			}
			const inBatch = 10_000
			for i := range n / inBatch {
				b := mail.Batch{Message: mail.Message{Kind: mail.Subscription, From: mail.Address{Address: fmt.Sprintf("%d@example.com", i%7)}, Text: "x"}}
				for j := range inBatch {
					b.Recipients = append(b.Recipients, mail.Recipient{To: []mail.Address{{Address: fmt.Sprintf("%d@example.net", j)}}})
				}
				if _, err := q.EnqueueBatch(t.Context(), b); err != nil {
					t.Fatal(err)
				}
			}
			repair := func(what string, entries int) {
				t.Helper()
				runtime.GC()
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				_, redis := cpu(t, r)
				began := time.Now()
				done, err := q.Repair(t.Context(), queue.RepairOptions{})
				took := time.Since(began)
				_, redisAfter := cpu(t, r)
				runtime.ReadMemStats(&after)
				if err != nil || done.Entries != entries || entries == 0 && done.Total() > 0 || done.Uncounted != "" {
					t.Errorf("%s: %+v, %v; want %d entries", what, done, err, entries)
				}
				runtime.GC()
				var kept runtime.MemStats
				runtime.ReadMemStats(&kept)
				t.Logf("%s: %v, %v of it Redis's processor; heap %d MB before, %d MB at its end, %d MB afterwards", what, took.Round(time.Millisecond),
					redisAfter-redis, before.HeapAlloc>>20, after.HeapAlloc>>20, kept.HeapAlloc>>20)
			}
			repair("nothing is wrong", 0)
			lost := r.Client.Keys(t.Context(), "{postroom}:[lrs]:*").Val()
			if err := r.Client.Unlink(t.Context(), append(lost, "{postroom}:counts", "{postroom}:backlog")...).Err(); err != nil {
				t.Fatal(err)
			}
			repair("all lanes and rings are lost", n)
			repair("nothing is wrong any more", 0)
		})
	}
}
