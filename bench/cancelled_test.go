package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/queue/queuetest"
)

// TestAHundredThousandAreCancelledWhileMailGoesOut cancels what a filter selects of mail that goes out. The request is cut in the middle, and
// repeated as it was.
func TestAHundredThousandAreCancelledWhileMailGoesOut(t *testing.T) {
	t.Parallel()
	const batches = 10
	n, takes := size(10_000, 100), size(0, 10) // of each batch; ms for each mail, that some are left to be cancelled
	server := listen(t, func(s *step) string {
		if s.at == "body" {
			pass(t.Context(), time.Duration(takes)*time.Millisecond)
		}
		return ""
	})
	i := install(t, server.provider(10))
	i.serve("--held")
	i.serve()
	var news, reports, ids, kept []string
	for b := range batches {
		batch := newsletter(n)
		batch.Message.Kind = mail.Subscription
		id, its := i.accept(batch)
		news, ids = append(news, id), append(ids, its...)
		if b%5 == 0 {
			batch.Message.Kind = mail.Report
			id, its = i.accept(batch)
			reports, kept = append(reports, id), append(kept, its...)
		}
	}
	open := func() int {
		left, err := i.redis.Client.HGet(t.Context(), i.key("counts"), "open:s").Int()
		if err != nil {
			t.Error(err)
		}
		return left
	}
	if _, err := i.api.ResumeAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, time.Minute, "mail to go out", func() bool { return server.came.entered() > 20 })
	begun, idle := time.Now(), i.front.peak()

	const path, body = "/v1/messages/cancel", `{"filter": {"kind": "subscription"}}`
	cut, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for cut.Err() == nil && open() > len(ids)-len(ids)/3 {
			pass(cut, time.Millisecond)
		}
	}()
	before, err := i.told(cut, path, body)
	cancel()
	if !errors.Is(err, context.Canceled) && (err != nil || *full) { // the short form can be faster
		t.Fatalf("the request was to be cut: %+v, %v", before, err)
	}
	between := open()
	lines, err := i.told(t.Context(), path, body)
	took := time.Since(begun)
	if err != nil {
		t.Fatal(err)
	}
	last := lines[len(lines)-1]
	if *full && (between == 0 || last.Done == 0 || len(lines) < 2) {
		t.Errorf("%d were left in the middle, then %+v in %d lines: this proves nothing", between, last, len(lines))
	}
	for k := range lines[1:] {
		if lines[k+1].Done < lines[k].Done || lines[k].Next == "" {
			t.Errorf("line %d: %+v, then %+v", k, lines[k], lines[k+1])
		}
	}
	await(t, 20*time.Minute, "everything to be over", func() bool { return i.front.metric("postroom_messages") == 0 })

	// Each is delivered or cancelled, and none is both.
	came, states := server.came.read(), map[queue.State]int{}
	for _, id := range slices.Concat(news, reports) {
		sums := map[queue.State]int{}
		for _, m := range i.listed(admin.MessageFilter{BatchID: id, States: queue.States()}) {
			sums[m.State]++
			if want := map[queue.State]int{queue.Delivered: 1}[m.State]; came[m.ID] != want || m.State != queue.Delivered && m.State != queue.Cancelled {
				t.Errorf("%s is %s, and was taken %d times", m.ID, m.State, came[m.ID])
			}
		}
		if c := i.counts(id); c == nil || c.Delivered != sums[queue.Delivered] || c.Cancelled != sums[queue.Cancelled] || c.Delivered+c.Cancelled != n {
			t.Errorf("batch %s: %+v, and its messages %v", id, c, sums)
		}
		for s, k := range sums {
			states[s] += k
		}
	}
	cancelled := int(i.front.metric(`postroom_messages_finished_total{kind="subscription",result="cancelled"}`))
	if states[queue.Cancelled] != cancelled || states[queue.Delivered] != len(came) || len(came)+cancelled != len(ids)+len(kept) || cancelled == 0 || len(came) == len(kept) {
		t.Errorf("%v; cancelled by the server: %d; taken: %d of %d and %d", states, cancelled, len(came), len(ids), len(kept))
	}
	told := last.Done
	if len(before) > 0 {
		told += before[len(before)-1].Done
	}
	if told > cancelled {
		t.Errorf("%d are told as cancelled of %d", told, cancelled)
	}
	for _, id := range kept {
		if came[id] != 1 {
			t.Fatalf("%s, which was not meant, was taken %d times", id, came[id])
		}
	}
	if again, err := i.told(t.Context(), path, body); err != nil || again[len(again)-1].Done != 0 {
		t.Errorf("once more: %+v, %v", again, err)
	}
	const mega = 1_000_000
	t.Logf("of %d and %d others, %d were cancelled and %d delivered; cut after %d lines with %d open, repeated: %d more, %d too late, in %v in all, told in %d lines; the server's peak %d MB, before %d MB",
		len(ids), len(kept), cancelled, len(came), len(before), between, last.Done, last.TooLate, took.Round(10*time.Millisecond), len(lines), i.front.peak()/mega, idle/mega)
}

// listed gives all messages that a filter finds.
func (i *installation) listed(f admin.MessageFilter) (all []admin.ListedMessage) {
	i.t.Helper()
	for cursor := ""; ; {
		page, err := i.api.Messages(i.t.Context(), f, cursor, 1000)
		if err != nil {
			i.t.Fatal(err)
		}
		all = append(all, page.Messages...)
		if cursor = page.Next; cursor == "" {
			return all
		}
	}
}

// TestListsOfALargeBacklog measures what it takes to list and to cancel with 10,000 messages that wait; with -full 100,000 and 1,000,000.
func TestListsOfALargeBacklog(t *testing.T) {
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
			var last queue.BatchReceipt
			for i := range n / inBatch {
				b := newsletter(inBatch)
				b.Message.From = mail.Address{Address: fmt.Sprintf("%d@example.com", i%7)}
				if last, err = q.EnqueueBatch(t.Context(), b); err != nil {
					t.Fatal(err)
				}
			}
			measure := func(what string, do func() int, want int) {
				t.Helper()
				r.Client.ConfigSet(t.Context(), "slowlog-log-slower-than", "500")
				r.Client.Do(t.Context(), "SLOWLOG", "RESET")
				_, redis := cpu(t, r)
				began := time.Now()
				found := do()
				took := time.Since(began)
				_, redisAfter := cpu(t, r)
				longest := time.Duration(0)
				for _, s := range r.Client.SlowLogGet(t.Context(), -1).Val() {
					longest = max(longest, s.Duration)
				}
				if found != want {
					t.Errorf("%s: %d, want %d", what, found, want)
				}
				t.Logf("%s: %d in %v, %v of it Redis's processor; the longest command took %v", what, found, took.Round(time.Millisecond), redisAfter-redis, longest)
			}
			list := func(f queue.MessageFilter) func() int {
				return func() int {
					found := 0
					for cursor := ""; ; {
						page, err := q.Messages(t.Context(), f, cursor, 1000)
						if err != nil {
							t.Fatal(err)
						}
						found += len(page.Messages)
						if cursor = page.Next; cursor == "" {
							return found
						}
					}
				}
			}
			cancel := func(f queue.MessageFilter, dry bool) func() int {
				return func() int {
					done := 0
					for o := (queue.SelectionOptions{DryRun: dry}); ; {
						step, err := q.CancelMessages(t.Context(), f, o)
						if err != nil {
							t.Fatal(err)
						}
						done += step.Done
						if o.Cursor = step.Next; o.Cursor == "" {
							return done
						}
					}
				}
			}
			measure("a list of all", list(queue.MessageFilter{}), n)
			measure("a list of another kind", list(queue.MessageFilter{Kind: mail.Alert}), 0)
			measure("a list of a batch", list(queue.MessageFilter{BatchID: last.ID}), inBatch)
			measure("a list of batches", func() int {
				page, err := q.Batches(t.Context(), queue.BatchFilter{}, "", 1000)
				found := len(page.Batches)
				for err == nil && page.Next != "" {
					page, err = q.Batches(t.Context(), queue.BatchFilter{}, page.Next, 1000)
					found += len(page.Batches)
				}
				if err != nil {
					t.Fatal(err)
				}
				return found
			}, n/inBatch)
			measure("a dry run of a cancel", cancel(queue.MessageFilter{}, true), n)
			measure("a cancel of all", cancel(queue.MessageFilter{}, false), n)
		})
	}
}
