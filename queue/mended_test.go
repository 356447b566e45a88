package queue

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue/queuetest"
)

func TestMailWhoseContentCouldNotBeReadNowIsSentLater(t *testing.T) {
	q, c := onClock(t)
	var down atomic.Bool
	client := redis.NewClient(&redis.Options{Addr: c.Addr(), MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	client.AddHook(&wire{refuse: func(cmd redis.Cmder) bool {
		return cmd.Name() == "get" && down.Swap(false)
	}})
	b := enqueueBatch(t, q, batch(mail.Report, 1))
	d := sitDown(t, open(t, client), activate(t, q, 1), nil)
	down.Store(true)
	a := d.turn().Next(nil)
	if a == nil {
		s, err := q.Batch(t.Context(), b.ID)
		t.Fatalf("the message was not offered again; its batch: %+v, %v", s, err)
	}
}

func TestMailWhoseContentIsGoneIsNotTakenForDelivered(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	id := enqueue(t, q, to(mail.Report, "ada@example.net", "bob@example.net", "eve@example.net"))
	turn := d.turn()
	a := turn.Next(nil)
	s := outcomes(a, Again, "dtt")
	s.Delay = 0
	q.redis.Del(t.Context(), q.key("c:", id, ":0"))
	if a := turn.Next(s); a != nil {
		t.Fatal("an attempt began without content")
	}
	if s := status(t, q, id); s.State != Failed || len(s.Recipients) != 3 {
		t.Errorf("state %s, recipients %s; want failed and dxx or dpp", s.State, states(s))
	}
}

// A late outcome delivers what a newer attempt had under way, whose worker dies too: there is nobody left to offer to.
func TestMessageThatIsWhollyDeliveredByALateOutcomeIsOver(t *testing.T) {
	for _, policy := range []UnknownPolicy{Resend, Hold} {
		q, _ := onClock(t)
		version := activate(t, q, 1)
		first := sitDown(t, q, version, nil)
		id := enqueue(t, q, message(mail.Report, "ada@example.net"))
		one := first.turn()
		a1 := one.Next(nil)
		first.dies()
		second := sitDown(t, q, version, nil)
		second.sweepAll()
		if second.turn().Next(nil) == nil {
			t.Fatal("no second attempt")
		}
		one.Next(delivered(a1))
		second.dies()
		third := sitDown(t, q, version, func(o *ConsumerOptions) { o.OnUnknown = map[mail.Kind]UnknownPolicy{mail.Report: policy} })
		third.sweepAll()
		if s := status(t, q, id); s.State != Delivered {
			t.Errorf("%s: state %s, recipients %s; want delivered", policy, s.State, states(s))
		}
		for _, turn := range third.turns() {
			if a := turn.Next(nil); a != nil {
				t.Errorf("%s: an attempt is offered to %d recipients", policy, len(a.Offered))
			}
		}
	}
}

func TestMessageWithNobodyPendingIsNotOffered(t *testing.T) {
	q, _ := onClock(t)
	version := activate(t, q, 1)
	first := sitDown(t, q, version, nil)
	id := enqueue(t, q, to(mail.Report, "ada@example.net", "bob@example.net"))
	one := first.turn()
	a1 := one.Next(nil)
	first.dies()
	second := sitDown(t, q, version, nil)
	second.sweepAll()
	turn := second.turn()
	a2 := turn.Next(nil)
	one.Next(outcomes(a1, GiveUp, "xd"))
	if a := turn.Next(outcomes(a2, Again, "xt")); a != nil {
		t.Errorf("an attempt is offered to %d recipients", len(a.Offered))
	}
	if s := status(t, q, id); s.State != Failed || states(s) != "xd" {
		t.Errorf("state %s, recipients %s; want failed, xd", s.State, states(s))
	}
}

func TestFenceHoldsPastTheDeadlineOfTheAttempt(t *testing.T) {
	q := open(t, queuetest.Start(t).Client)
	d := sitDown(t, q, activate(t, q, 1), func(o *ConsumerOptions) { o.AttemptTimeout = 20 * time.Millisecond })
	id := enqueue(t, q, message(mail.Report, "ada@example.net"))
	a := d.turn().Next(nil)
	eventually(t, "the sweep has ended the attempt", func() bool {
		d.sweepAll()
		return status(t, q, id).State == Queued
	})
	if err := a.Fence(); err == nil {
		t.Error("an attempt that others have ended may pass its point of no return")
	}
}

func TestSweepLeavesNewerRecordsToNewerWorkers(t *testing.T) {
	q, _ := onClock(t)
	version := activate(t, q, 1)
	d := sitDown(t, q, version, nil)
	id := enqueue(t, q, message(mail.Report, "ada@example.net"))
	d.turn().Next(nil)
	rewrite := func(from, to string) {
		raw := q.redis.Get(t.Context(), q.key("m:", id)).Val()
		q.redis.Set(t.Context(), q.key("m:", id), to+strings.TrimPrefix(raw, from), 0)
	}
	rewrite("1", "2")
	d.dies()
	other := sitDown(t, q, version, nil)
	other.sweepAll()
	rewrite("2", "1")
	other.sweepAll()
	if s := status(t, q, id); s.State != Queued {
		t.Errorf("state %s, want queued: nobody will ever end this attempt", s.State)
	}
}

func TestCancelBatchKeepsNewerRecords(t *testing.T) {
	q, c := onClock(t)
	b := enqueueBatch(t, q, batch(mail.Report, 1))
	raw := q.redis.Get(t.Context(), q.key("m:", b.IDs[0])).Val()
	q.redis.Set(t.Context(), q.key("m:", b.IDs[0]), "2"+raw[1:], 0)
	if err := q.CancelBatch(t.Context(), b.ID); err != nil {
		t.Fatal(err)
	}
	q.redis.Set(t.Context(), q.key("m:", b.IDs[0]), raw, 0)
	c.advance(2 * time.Minute)
	d := sitDown(t, q, activate(t, q, 1), nil)
	for _, turn := range d.turns() {
		turn.Next(nil)
	}
	if s := status(t, q, b.IDs[0]); s.State != Cancelled {
		t.Errorf("state %s, want cancelled: its entry is gone", s.State)
	}
}

func TestForgetLeavesNewerRecords(t *testing.T) {
	q, _ := onClock(t)
	id := enqueue(t, q, message(mail.Report, "ada@example.net"))
	if err := q.CancelMessage(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	raw := q.redis.Get(t.Context(), q.key("m:", id)).Val()
	q.redis.Set(t.Context(), q.key("m:", id), "2"+raw[1:], 0)
	if err := q.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if q.redis.Exists(t.Context(), q.key("m:", id)).Val() == 0 {
		t.Error("a record of a newer format was dropped at once instead of after 24 h")
	}
}

func TestBatchCountsWhenFailedMailIsForgotten(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	b := enqueueBatch(t, q, batch(mail.Report, 3))
	turn := d.turn()
	turn.Next(delivered(turn.Next(outcomes(turn.Next(nil), GiveUp, "x"))))
	c.advance(31 * 24 * time.Hour)
	if err := q.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := q.Batch(t.Context(), b.ID)
	if err != nil || s.Open != 1 || s.Delivered != 1 || s.Failed != 1 {
		t.Errorf("%+v, %v; want one open, one delivered, one failed", s, err)
	}
}

func TestARepeatedDispatchGivesEachTurnItsOwnID(t *testing.T) {
	q, _ := onClock(t)
	activate(t, q, 3)
	enqueue(t, q, message(mail.Report, "ada@example.net"))
	stem := token(10)
	if err := q.run(t.Context(), "dispatch", stem, "").Err(); err != nil {
		t.Fatal(err)
	}
	// The answer is lost; before go-redis repeats the call, there is more to do.
	enqueue(t, q, message(mail.Report, "bob@example.net"))
	values, err := q.run(t.Context(), "dispatch", stem, "").Slice()
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for i := 2; i+3 < len(values); i += 4 {
		ids = append(ids, text(values[i]))
	}
	if len(ids) != 2 || ids[0] == ids[1] {
		t.Errorf("turns %v, want the one whose answer was lost and another", ids)
	}
}

func TestRetryThatDidNotCountComesBeforeNewMailOfItsBatch(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	b := enqueueBatch(t, q, batch(mail.Report, 3))
	turn := d.turn()
	s := outcomes(turn.Next(nil), Again, "c")
	s.Counted, s.Delay = false, time.Minute
	a := turn.Next(s)
	c.advance(time.Minute)
	d.turns()
	if a = turn.Next(delivered(a)); a == nil || a.MessageID != b.IDs[0] {
		t.Errorf("next is %v, want %s, which is due again", a, b.IDs[0])
	}
}

func TestLoweredConcurrencyBindsWhatBegins(t *testing.T) {
	q, _ := onClock(t)
	old := sitDown(t, q, activate(t, q, 5), nil)
	enqueueBatch(t, q, batch(mail.Report, 20))
	turns := old.turns()
	var open []*Attempt
	for _, turn := range turns {
		open = append(open, turn.Next(nil))
	}
	version, err := declare(t, q, ActiveProvider{Kind: "smtp", Keying: ByAccount, Account: account, Concurrency: 2}, "salt", "lowered")
	if err != nil {
		t.Fatal(err)
	}
	turns[0].Next(delivered(open[0])) // four are still under way
	d := sitDown(t, q, version, nil)
	for _, turn := range d.turns() {
		if turn.Next(nil) != nil {
			t.Error("a fifth attempt began, although the concurrency is 2 and four are under way")
		}
	}
}

func TestScheduledMessageSaysWhenItIsDue(t *testing.T) {
	q, _ := onClock(t)
	m := message(mail.Report, "ada@example.net")
	m.SendAt = time.Now().Add(time.Hour).Truncate(time.Millisecond)
	if s := status(t, q, enqueue(t, q, m)); !s.Due.Equal(m.SendAt) {
		t.Errorf("due %v, want %v", s.Due, m.SendAt)
	}
}

func TestRepeatedBatchIsTheSameRequest(t *testing.T) {
	q, _ := onClock(t)
	b := batch(mail.Report, 1)
	b.Recipients[0].To[0].Address = "Ada@EXAMPLE.net"
	first, err := q.EnqueueBatch(t.Context(), b, Idempotency("", "k"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := q.EnqueueBatch(t.Context(), b, Idempotency("", "k"))
	if err != nil || again.ID != first.ID {
		t.Errorf("repeated: %+v, %v; want a replay of %s", again, err, first.ID)
	}
}

func TestCancelledBatchThatIsForgottenDoesNotStopTheSweep(t *testing.T) {
	q, _ := onClock(t)
	q.redis.SAdd(t.Context(), q.key("cancelling"), "01GONE")
	if err := q.tidy(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestMailOfATurnThatPanicsIsNotStuck(t *testing.T) {
	r := queuetest.Start(t)
	q := open(t, r.Client)
	var once sync.Once
	sent := make(chan string, 1)
	join(t, r, func(turn *Turn) {
		a := turn.Next(nil)
		if a == nil {
			return
		}
		once.Do(func() { panic("a fault") })
		sent <- a.MessageID
		turn.Next(delivered(a))
	}, nil)
	enqueue(t, q, message(mail.Report, "ada@example.net"))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	select {
	case <-sent:
	case <-ctx.Done():
		t.Errorf("units out: %v", q.redis.HGetAll(t.Context(), q.key("u:", account)).Val())
	}
}

// A newer format may have more fields than ours: the pattern that takes a record apart must not try them in every way.
func TestRecordsThatDoNotFitThePatternCostNothing(t *testing.T) {
	r := queuetest.Start(t)
	q := open(t, r.Client)
	id := enqueue(t, q, message(mail.Report, "ada@example.net"))
	raw := q.redis.Get(t.Context(), q.key("m:", id)).Val()
	head, rest, _ := strings.Cut(raw, "\n")
	for name, other := range map[string]string{
		"newer":     "2" + head[1:] + strings.Repeat("\t", 20) + "new\n" + rest,
		"truncated": "1\ts\tr\t01M80QB\tgenera\t12\t1795320833412\txzrxls7d7t7b",
	} {
		q.redis.Set(t.Context(), q.key("m:", id), other, 0)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		o := *r.Client.Options()
		o.ContextTimeoutEnabled, o.MaxRetries = true, -1
		client := redis.NewClient(&o)
		err := open(t, client).run(ctx, "cancel", 10, "mark", id).Err()
		_ = client.Close()
		cancel()
		if err != nil {
			t.Fatalf("%s: Redis was busy with one record: %v", name, err)
		}
	}
}

// A fault while an attempt is settled, or opened, must not leave its record without a unit: no sweep would ever find it.
func TestMailOfATurnThatPanicsInNextIsNotStuck(t *testing.T) {
	r := queuetest.Start(t)
	q := open(t, r.Client)
	var once sync.Once
	sent := make(chan string, 1)
	join(t, r, func(turn *Turn) {
		for a := turn.Next(nil); a != nil; a = turn.Next(delivered(a)) {
			once.Do(func() {
				s := delivered(a)
				s.Outcomes = append(s.Outcomes, s.Outcomes[0]) // one too many: Next panics
				turn.Next(s)
			})
			sent <- a.MessageID
		}
	}, nil)
	id := enqueue(t, q, message(mail.Report, "ada@example.net"))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	select {
	case <-sent:
	case <-ctx.Done():
		t.Errorf("the message is %s, units out: %v", status(t, q, id).State, q.redis.HGetAll(t.Context(), q.key("u:", account)).Val())
	}
}

// With -race: turns that are fetched while Run waits for the last of them, and while other settings are loaded.
func TestStoppingDoesNotRaceWithTurnsThatBegin(t *testing.T) {
	q := open(t, queuetest.Start(t).Client)
	activate(t, q, 3)
	for i := range 8 {
		began := make(chan struct{}, 1000)
		c := q.NewConsumer(ConsumerOptions{CheckInterval: time.Millisecond, Grace: 5 * time.Second,
			Handle: func(_ context.Context, turn *Turn) {
				for a := turn.Next(nil); a != nil; a = turn.Next(delivered(a)) {
					began <- struct{}{}
				}
			}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		enqueueBatch(t, q, batch(mail.Report, 30))
		<-began
		if _, err := declare(t, q, ActiveProvider{Keying: ByAccount, Account: account, Concurrency: 3}, "s", string(rune('a'+i))); err != nil {
			t.Fatal(err)
		}
		<-began
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// A fault before it is known who is pending must count and wait as any other: else the message stops its lane for good.
func TestMessageThatAlwaysFaultsWhileItIsOpenedComesBackLater(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	id := enqueue(t, q, message(mail.Report, "ada@example.net"))
	turn := d.turn()
	if turn.Next(nil) == nil {
		t.Fatal("nothing to do")
	}
	turn.open.marks, turn.open.Offered = "", nil // as far as prepare has come when it meets the fault
	turn.end()
	if s := status(t, q, id); s.State != Queued || s.Attempts != 1 || s.Due.IsZero() {
		t.Errorf("%s after %d counted attempts, due %v; want queued, 1, later", s.State, s.Attempts, s.Due)
	}
}
