package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue/queuetest"
	"github.com/postroom/postroom/throttle"
)

// failMany has every message of a batch fail at once, as its provider has a limit that it could never keep, and gives the version
// of one without.
func failMany(t *testing.T, q *Queue, n int) (b BatchReceipt, version string) {
	t.Helper()
	p := ActiveProvider{Kind: "smtp", Keying: ByAccount, Account: account, Concurrency: 1}
	b = enqueueBatch(t, q, batch(mail.Report, n))
	p.Limits = []throttle.Limit{{Name: throttle.UploadBytes, Max: 1, Window: time.Minute}}
	version, err := declare(t, q, p, "salt", "fingerprint")
	if err != nil {
		t.Fatal(err)
	}
	for _, turn := range sitDown(t, q, version, nil).turns() {
		turn.Next(nil)
	}
	if got := failedCount(t, q); got != n {
		t.Fatalf("%d failed, want %d", got, n)
	}
	p.Limits = nil
	if _, err = declare(t, q, p, "salt", "fingerprint"); err != nil {
		t.Fatal(err)
	}
	return b, version
}

func TestALargeFailedStoreIsWorkedOffInSteps(t *testing.T) {
	r := queuetest.Start(t)
	q := open(t, r.Client)
	many := pageScan + 100
	b, _ := failMany(t, q, many)

	page, err := q.Failed(t.Context(), FailedFilter{Reply: "not there"}, "", 10)
	if err != nil || len(page.Messages) != 0 || page.Scanned != pageScan || page.Next == "" || page.Left < 100 {
		t.Fatalf("the first page of a search in vain: %+v, %v", page, err)
	}
	page, err = q.Failed(t.Context(), FailedFilter{Reply: "not there"}, page.Next, 10)
	if err != nil || len(page.Messages) != 0 || page.Scanned != 100 || page.Next != "" || page.Left != 0 {
		t.Fatalf("the second: %+v, %v", page, err)
	}
	if page, err = q.Failed(t.Context(), FailedFilter{}, "", 1_000_000); err != nil || len(page.Messages) != maxPage || page.Scanned != maxPage {
		t.Errorf("a page has %d messages of %d, want %d, %v", len(page.Messages), page.Scanned, maxPage, err)
	}
	for name, do := range map[string]func(context.Context, FailedFilter, SelectionOptions) (SelectionStep, error){"requeue": q.Requeue, "delete": q.DeleteFailed} {
		step, err := do(t.Context(), FailedFilter{}, SelectionOptions{DryRun: true})
		if err != nil || step.Done != stepScan || step.Scanned != stepScan || step.Left < many-stepScan || step.Next == "" {
			t.Errorf("%s: first step %+v, %v", name, step, err)
		}
		if sum := runAll(t, do, FailedFilter{}, SelectionOptions{DryRun: true}); sum.Done != many || sum.Scanned != many {
			t.Errorf("%s: a dry run counts %+v, want %d", name, sum, many)
		}
	}

	// Killed again and again, before a command or before its answer, and begun anew.
	done, kills := 0, 0
	for ; ; kills++ {
		l := &line{lost: kills%2 == 0}
		dying := through(t, r, l)
		l.left.Store(int64(4 + 9*kills))
		l.dies.Store(true)
		step, err := dying.Requeue(t.Context(), FailedFilter{}, SelectionOptions{})
		done += step.Done
		if err == nil && step.Next == "" {
			break
		}
	}
	if left := failedCount(t, q); left != 0 || done > many || done < many-kills*scanPiece || kills < 3 {
		t.Errorf("after %d kills %d are told as requeued, and %d are left of %d", kills, done, left, many)
	}
	entries := map[string]int{}
	for _, e := range waiting(t, q) {
		id, generation, _ := strings.Cut(e, ":")
		if entries[id]++; generation == "" {
			t.Fatalf("%s has no new generation", id)
		}
	}
	for _, id := range b.IDs {
		if entries[id] != 1 || len(entries) != many {
			t.Fatalf("%s waits %d times, among %d", id, entries[id], len(entries))
		}
	}
	if s, err := q.Batch(t.Context(), b.ID); err != nil || s.Open != many || s.Failed != 0 {
		t.Errorf("batch: %+v, %v", s, err)
	}
}

func TestRequeuedMailIsDeliveredOnceEach(t *testing.T) {
	r := queuetest.Start(t)
	q := through(t, r, &line{twice: true}) // each script arrives twice
	b, version := failMany(t, q, scanPiece+50)
	single := enqueue(t, q, message(mail.Alert, "ada@example.net"))
	failing(t, sitDown(t, q, version, nil), nil, nil)
	before := failedCount(t, q)

	var mu sync.Mutex
	sent := map[string]int{}
	consume(t, q, version, func(a *Attempt) *Settlement {
		mu.Lock()
		defer mu.Unlock()
		sent[a.MessageID]++
		return delivered(a)
	})
	if step, err := q.Requeue(t.Context(), FailedFilter{}, SelectionOptions{}); err != nil || step.Done != before || step.Scanned != before || step.Left != 0 || step.Next != "" {
		t.Fatalf("%+v, %v; want %d", step, err, before)
	}
	eventually(t, "all is delivered", func() bool {
		s, err := q.Batch(t.Context(), b.ID)
		return err == nil && s.Delivered == len(b.IDs) && status(t, q, single).State == Delivered
	})
	mu.Lock()
	defer mu.Unlock()
	for _, id := range append(slices.Clone(b.IDs), single) {
		if sent[id] != 1 {
			t.Errorf("%s was sent %d times", id, sent[id])
		}
	}
	noContentIsLeft(t, q)
}

func TestRequeueOffersThoseWhoDoNotHaveItAndStartsCountingAnew(t *testing.T) {
	onEachRedis(t, func(t *testing.T, q *Queue) {
		d := sitDown(t, q, activate(t, q, 1), nil)
		id := enqueue(t, q, to(mail.Report, "ada@example.net", "bob@example.net", "eve@example.net"))
		failing(t, d, map[string]string{id: "dxt"}, nil)
		if s := status(t, q, id); s.State != Failed || states(s) != "dxp" || s.Attempts != 1 {
			t.Fatalf("%+v", s)
		}
		if step, err := q.Requeue(t.Context(), FailedFilter{IDs: []string{id}}, SelectionOptions{}); err != nil || step.Done != 1 {
			t.Fatalf("%+v, %v", step, err)
		}
		if s := status(t, q, id); s.State != Queued || states(s) != "dpp" || s.Attempts != 0 || len(s.History) != 1 {
			t.Errorf("requeued: %+v", s)
		}
		turn := d.turn()
		a := turn.Next(nil)
		if a == nil || !slices.Equal(a.Offered, []int{1, 2}) || a.Counted != 0 || !a.First.IsZero() || a.Refused() || a.Since.Before(acceptedAt(id)) {
			t.Fatalf("offered: %+v", a)
		}
		end(turn, outcomes(a, GiveUp, "dx"))
		if s := status(t, q, id); s.State != Failed || states(s) != "ddx" || s.Attempts != 1 || len(s.History) != 2 {
			t.Errorf("failed again: %+v", s)
		}
		if got := search(t, q, FailedFilter{Reply: "999 permanent", Recipient: "eve@example.net"}); !slices.Equal(got, []string{id}) {
			t.Errorf("not found by its reply: %v", got)
		}
		if page, err := q.Failed(t.Context(), FailedFilter{}, "", 0); err != nil || !page.Messages[0].Requeued.Equal(a.Since) {
			t.Errorf("%+v, %v", page, err)
		}
	})
}

func TestWhatWasSaidBeforeARequeueIsNotWhyAMessageFailed(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	id := enqueue(t, q, message(mail.Report, "ada@example.net"))
	failing(t, d, map[string]string{id: "t"}, nil)
	c.advance(time.Second)
	runAll(t, q.Requeue, FailedFilter{}, SelectionOptions{})
	failing(t, d, nil, nil)
	if got := search(t, q, FailedFilter{Reply: "999 temporary"}); got != nil {
		t.Errorf("found by an old reply: %v", got)
	}
	if got := search(t, q, FailedFilter{Reply: "999 permanent"}); len(got) != 1 {
		t.Errorf("not found by its reply: %v", got)
	}
	if s := status(t, q, id); len(s.History) != 2 {
		t.Errorf("its history has %d attempts", len(s.History))
	}
}

func TestARunDoesNotRequeueWhatFailsAgainMeanwhile(t *testing.T) {
	c := queuetest.Start(t)
	w := &wire{}
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: c.Client.Options().Addr, MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	q := open(t, client)
	_, version := failMany(t, q, scanPiece+100)
	client.AddHook(w)
	scripts := 0
	w.refuse = func(cmd redis.Cmder) bool {
		if cmd.Name() == "evalsha" {
			scripts++
		}
		return cmd.Name() == "evalsha" && scripts == 3 // after the time, and the first piece
	}
	step, err := q.Requeue(t.Context(), FailedFilter{}, SelectionOptions{})
	if err == nil || step.Done != scanPiece || step.Next == "" {
		t.Fatalf("the first step, cut: %+v, %v", step, err)
	}
	w.refuse = nil
	failing(t, sitDown(t, q, version, nil), nil, nil)
	if step, err = q.Requeue(t.Context(), FailedFilter{}, SelectionOptions{Cursor: step.Next}); err != nil || step.Done != 100 || step.Next != "" {
		t.Errorf("the rest: %+v, %v; want the 100 that had not been reached", step, err)
	}
	if n := failedCount(t, q); n != scanPiece {
		t.Errorf("%d are in the failed store, want the %d that failed again", n, scanPiece)
	}
	if step, err = q.Requeue(t.Context(), FailedFilter{}, SelectionOptions{}); err != nil || step.Done != scanPiece {
		t.Errorf("another run: %+v, %v", step, err)
	}
}

func TestARequeueCutShortByItsCallerCanBeRepeated(t *testing.T) {
	q := open(t, queuetest.Start(t).Client)
	failMany(t, q, scanPiece+1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if step, err := q.Requeue(ctx, FailedFilter{}, SelectionOptions{}); !errors.Is(err, context.Canceled) || step.Done != 0 {
		t.Fatalf("%+v, %v", step, err)
	}
	if sum := runAll(t, q.Requeue, FailedFilter{}, SelectionOptions{}); sum.Done != scanPiece+1 {
		t.Errorf("%+v", sum)
	}
}

func TestAnExpiryThatHasPassedNoLongerCountsOnceRequeued(t *testing.T) {
	for _, kind := range []string{"single", "batch"} {
		q, c := onClock(t)
		d := sitDown(t, q, activate(t, q, 1), nil)
		expires := c.now.Add(time.Hour)
		var id string
		if kind == "single" {
			m := message(mail.Report, "ada@example.net")
			m.ExpiresAt = expires
			id = enqueue(t, q, m)
		} else {
			b := batch(mail.Report, 1)
			b.Message.ExpiresAt = expires
			id = enqueueBatch(t, q, b).IDs[0]
		}
		failing(t, d, nil, nil)
		if sum := runAll(t, q.Requeue, FailedFilter{}, SelectionOptions{}); sum.Done != 1 {
			t.Fatalf("%+v", sum)
		}
		failing(t, d, nil, nil)
		c.advance(time.Hour)
		if sum := runAll(t, q.Requeue, FailedFilter{}, SelectionOptions{}); sum.Done != 1 {
			t.Fatalf("%+v", sum)
		}
		a := d.turn().Next(nil)
		if a == nil || a.MessageID != id {
			t.Errorf("%s: requeued after its expiry it is %s, want offered", kind, status(t, q, id).State)
		}
	}
}

func TestAnExpiryToComeBindsRequeuedMail(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	m := message(mail.Report, "ada@example.net")
	m.ExpiresAt = c.now.Add(time.Hour)
	id := enqueue(t, q, m)
	failing(t, d, nil, nil)
	if sum := runAll(t, q.Requeue, FailedFilter{}, SelectionOptions{}); sum.Done != 1 {
		t.Fatalf("%+v", sum)
	}
	c.advance(time.Hour)
	d.turn().Next(nil)
	if s := status(t, q, id); s.State != Expired {
		t.Errorf("%s, want expired", s.State)
	}
	booksAreClean(t, q)
}

// The worker of the first attempt was taken for dead, and tells what became of it when the message has been requeued.
func TestRequeueCantBeUndoneByAFormerAttempt(t *testing.T) {
	for _, test := range []struct {
		late    string
		verdict Verdict
		state   State
		states  string
	}{
		{"xx", GiveUp, Queued, "pp"},
		{"tt", Again, Queued, "pp"},
		{"dx", GiveUp, Queued, "dp"},
		{"dd", Done, Delivered, "dd"},
	} {
		for _, begun := range []bool{false, true} {
			q, _ := onClock(t)
			version := activate(t, q, 1)
			first := sitDown(t, q, version, nil)
			id := enqueue(t, q, to(mail.Report, "ada@example.net", "bob@example.net"))
			former := first.turn()
			a := former.Next(nil)
			first.dies()
			d := sitDown(t, q, version, func(o *ConsumerOptions) { o.OnUnknown = map[mail.Kind]UnknownPolicy{mail.Report: Hold} })
			d.sweepAll()
			if s := status(t, q, id); s.State != Failed {
				t.Fatalf("the sweep left it %s", s.State)
			}
			if sum := runAll(t, q.Requeue, FailedFilter{}, SelectionOptions{}); sum.Done != 1 {
				t.Fatalf("%+v", sum)
			}
			name := fmt.Sprintf("late %s, begun again %v", test.late, begun)
			if begun {
				turn := d.turn()
				newer := turn.Next(nil)
				former.Next(outcomes(a, test.verdict, test.late))
				if s := status(t, q, id); s.State != Sending || states(s) != test.states {
					t.Errorf("%s: %s, %s; want sending, %s", name, s.State, states(s), test.states)
				}
				end(turn, outcomes(newer, Done, "dd"))
				if s := status(t, q, id); s.State != Delivered {
					t.Errorf("%s: at last %s", name, s.State)
				}
			} else {
				former.Next(outcomes(a, test.verdict, test.late))
				if s := status(t, q, id); s.State != test.state || states(s) != test.states || s.State == Queued && s.Attempts != 0 {
					t.Errorf("%s: %s, %s; want %s, %s", name, s.State, states(s), test.state, test.states)
				}
				drain(d)
				if s := status(t, q, id); s.State != Delivered {
					t.Errorf("%s: at last %s", name, s.State)
				}
			}
			noContentIsLeft(t, q)
			booksAreClean(t, q)
		}
	}
}

func TestMailOfACancelledBatchIsNotRequeued(t *testing.T) {
	onEachRedis(t, func(t *testing.T, q *Queue) {
		d := sitDown(t, q, activate(t, q, 1), nil)
		b := enqueueBatch(t, q, batch(mail.Report, 3))
		failing(t, d, nil, nil)
		if step, err := q.Requeue(t.Context(), FailedFilter{IDs: b.IDs[:1]}, SelectionOptions{}); err != nil || step.Done != 1 {
			t.Fatalf("%+v, %v", step, err)
		}
		if err := q.CancelBatch(t.Context(), b.ID); err != nil {
			t.Fatal(err)
		}
		for _, dry := range []bool{true, false} {
			if step, err := q.Requeue(t.Context(), FailedFilter{}, SelectionOptions{DryRun: dry}); err != nil || step.Done != 0 || step.Cancelled != 2 {
				t.Errorf("dry run %v: %+v, %v", dry, step, err)
			}
		}
		// Also if it was cancelled after they were selected.
		at := q.redis.ZScore(t.Context(), q.key("failed"), b.IDs[1]).Val()
		if counts, err := countsOf(q.run(t.Context(), "requeue", "generation", b.IDs[1], int64(at))); err != nil || !slices.Equal(counts, []int64{0, 1, 0}) {
			t.Errorf("requeue: %v, %v", counts, err)
		}
		if s, err := q.Batch(t.Context(), b.ID); err != nil || s.Cancelled != 1 || s.Failed != 2 || s.Open != 0 {
			t.Errorf("batch: %+v, %v", s, err)
		}
		booksAreClean(t, q)
	})
}

func TestRequeueRacingCancelLosesNothing(t *testing.T) {
	q := open(t, queuetest.Start(t).Client)
	b, version := failMany(t, q, 3*scanPiece)
	cancelled := make(chan error, 1)
	go func() { cancelled <- q.CancelBatch(context.WithoutCancel(t.Context()), b.ID) }()
	sum := runAll(t, q.Requeue, FailedFilter{}, SelectionOptions{})
	if err := <-cancelled; err != nil {
		t.Fatal(err)
	}
	if sum.Done+sum.Cancelled != 3*scanPiece {
		t.Errorf("%+v", sum)
	}
	if n := drain(sitDown(t, q, version, nil)); n != 0 {
		t.Errorf("%d went out of a cancelled batch", n)
	}
	if err := q.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := q.Batch(t.Context(), b.ID)
	if err != nil || s.Cancelled != sum.Done || s.Failed != sum.Cancelled || s.Open != 0 || failedCount(t, q) != s.Failed {
		t.Errorf("batch: %+v, %v, after %+v", s, err, sum)
	}
	booksAreClean(t, q)
}

func TestFailedMailOfANewerFormatIsLeftAlone(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	id, other := enqueue(t, q, message(mail.Report, "ada@example.net")), enqueue(t, q, message(mail.Report, "bob@example.net"))
	failing(t, d, nil, nil)
	raw := q.redis.Get(t.Context(), q.key("m:", id)).Val()
	newer := "2" + raw[1:]
	q.redis.Set(t.Context(), q.key("m:", id), newer, 0)
	page, err := q.Failed(t.Context(), FailedFilter{}, "", 10)
	if err != nil || len(page.Messages) != 1 || page.Messages[0].ID != other || page.Unreadable != 1 {
		t.Errorf("page: %+v, %v", page, err)
	}
	if step, err := q.Requeue(t.Context(), FailedFilter{}, SelectionOptions{}); err != nil || step.Done != 1 || step.Unreadable != 1 {
		t.Errorf("requeue: %+v, %v", step, err)
	}
	if step, err := q.DeleteFailed(t.Context(), FailedFilter{}, SelectionOptions{}); err != nil || step.Done != 0 || step.Unreadable != 1 {
		t.Errorf("delete: %+v, %v", step, err)
	}
	// Also if it became one after it was selected.
	at := q.redis.ZScore(t.Context(), q.key("failed"), id).Val()
	for script, first := range map[string]any{"requeue": "generation", "delete": 10} {
		counts, err := countsOf(q.run(t.Context(), script, first, id, int64(at)))
		if err != nil || counts[0] != 0 || counts[len(counts)-1] != 1 {
			t.Errorf("%s: %v, %v", script, counts, err)
		}
	}
	if got := q.redis.Get(t.Context(), q.key("m:", id)).Val(); got != newer || q.redis.ZCard(t.Context(), q.key("failed")).Val() != 1 {
		t.Error("the newer record was changed")
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	enqueueBatch(t, q, batch(mail.Report, 3))
	enqueue(t, q, message(mail.Alert, "ada@example.net"))
	failing(t, d, nil, nil)
	before := c.Dump()
	for _, do := range []func(context.Context, FailedFilter, SelectionOptions) (SelectionStep, error){q.Requeue, q.DeleteFailed} {
		if sum := runAll(t, do, FailedFilter{Kind: mail.Report}, SelectionOptions{DryRun: true}); sum.Done != 3 || sum.Scanned != 4 {
			t.Errorf("%+v", sum)
		}
	}
	if c.Dump() != before {
		t.Error("a dry run changed something")
	}
}

func TestDeletedMailLeavesNothing(t *testing.T) {
	onEachRedis(t, func(t *testing.T, plain *Queue) {
		client, ok := plain.redis.(*redis.Client)
		if !ok {
			t.Fatal("no client to put a hook on")
		}
		client.AddHook(&line{twice: true})
		q := plain
		d := sitDown(t, q, activate(t, q, 1), nil)
		b := enqueueBatch(t, q, batch(mail.Report, 3))
		single := enqueue(t, q, message(mail.Alert, "ada@example.net"))
		failing(t, d, map[string]string{b.IDs[1]: "d"}, nil)
		gone := func(f FailedFilter, want int) {
			t.Helper()
			if step, err := q.DeleteFailed(t.Context(), f, SelectionOptions{}); err != nil || step.Done != want {
				t.Errorf("%+v, %v; want %d", step, err, want)
			}
		}
		gone(FailedFilter{IDs: b.IDs[:1]}, 1)
		if !exists(q, "c:", b.ID, ":0") || exists(q, "m:", b.IDs[0]) {
			t.Error("the content of a batch went with the first share, or the record stayed")
		}
		gone(FailedFilter{}, 2)
		gone(FailedFilter{}, 0)
		for _, id := range []string{b.IDs[0], b.IDs[2], single} {
			for _, key := range keysOf(t, q) {
				if strings.Contains(key, id) {
					t.Errorf("left: %s", key)
				}
			}
			if _, err := q.Message(t.Context(), id); !errors.Is(err, ErrNotFound) {
				t.Errorf("the message: %v", err)
			}
		}
		if n := failedCount(t, q); n != 0 {
			t.Errorf("%d are left", n)
		}
		if s, err := q.Batch(t.Context(), b.ID); err != nil || s.Failed != 2 || s.Delivered != 1 || s.Open != 0 {
			t.Errorf("batch: %+v, %v", s, err)
		}
		if q.redis.HGet(t.Context(), q.key("b:", b.ID), "finished").Val() == "" {
			t.Error("the batch's record will never be forgotten")
		}
		noContentIsLeft(t, q)
		booksAreClean(t, q)
	})
}

func TestWhatHasFailedAgainSinceItWasSelectedIsNotMeant(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	id := enqueue(t, q, message(mail.Report, "ada@example.net"))
	failing(t, d, nil, nil)
	selected := int64(q.redis.ZScore(t.Context(), q.key("failed"), id).Val())
	c.advance(time.Second)
	runAll(t, q.Requeue, FailedFilter{}, SelectionOptions{})
	failing(t, d, nil, nil)
	for script, first := range map[string]any{"requeue": "generation", "delete": 10} {
		counts, err := countsOf(q.run(t.Context(), script, first, id, selected))
		if err != nil || slices.Max(counts) != 0 || failedCount(t, q) != 1 {
			t.Errorf("%s: %v, %v", script, counts, err)
		}
	}
}

func TestRequeuedMailTakesTurnsWithNewMail(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	var old []string
	for range 3 {
		old = append(old, enqueue(t, q, message(mail.Alert, "ada@example.net")))
	}
	failing(t, d, nil, nil)
	c.advance(time.Second)
	runAll(t, q.Requeue, FailedFilter{}, SelectionOptions{})
	fresh := enqueue(t, q, message(mail.Alert, "bob@example.net"))
	var order []string
	turn := d.turn()
	for a := turn.Next(nil); a != nil; a = turn.Next(delivered(a)) {
		order = append(order, a.MessageID)
	}
	if at := slices.Index(order, fresh); len(order) != 4 || at > 1 {
		t.Errorf("a new alert went as number %d of %d, after %d that were requeued", at+1, len(order), len(old))
	}
	booksAreClean(t, q)
}

func TestRequeuedMailOfABatchGoesBeforeItsNewMail(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	b := enqueueBatch(t, q, batch(mail.Report, 4))
	turn := d.turn()
	a := turn.Next(outcomes(turn.Next(nil), GiveUp, "x"))
	runAll(t, q.Requeue, FailedFilter{BatchID: b.ID}, SelectionOptions{})
	var order []string
	for ; a != nil; a = turn.Next(delivered(a)) {
		order = append(order, a.MessageID)
	}
	if want := []string{b.IDs[1], b.IDs[0], b.IDs[2], b.IDs[3]}; !slices.Equal(order, want) {
		t.Errorf("%v, want %v", order, want)
	}
	booksAreClean(t, q)
}

func TestRequeuedMailObeysAHold(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	id, other := enqueue(t, q, message(mail.Report, "ada@example.net")), enqueue(t, q, message(mail.Report, "bob@example.net"))
	turn := d.turn()
	held := outcomes(turn.Next(outcomes(turn.Next(nil), GiveUp, "x")), Back, "h")
	held.Hold, held.Reason = time.Minute, "throttled"
	turn.Next(held)
	runAll(t, q.Requeue, FailedFilter{}, SelectionOptions{})
	if n := drain(d); n != 0 {
		t.Fatalf("%d went while the mailbox was held", n)
	}
	c.advance(time.Minute)
	if n := drain(d); n != 2 || status(t, q, id).State != Delivered || status(t, q, other).State != Delivered {
		t.Errorf("%d went after the hold", n)
	}
}

// countsOf gives the numbers of what requeue or delete answers, without the ids behind them.
func countsOf(answer *redis.Cmd) ([]int64, error) {
	values, err := answer.Slice()
	var counts []int64
	for _, v := range values {
		if n, ok := v.(int64); ok {
			counts = append(counts, n)
		}
	}
	return counts, err
}
