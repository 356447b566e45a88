package queue

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue/queuetest"
	"github.com/postroom/postroom/throttle"
)

// metric gives the value of a counter of q with these label values, in the order of the labels' names.
func metric(t *testing.T, q *Queue, name string, values ...string) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	m := q.metrics
	registry.MustRegister(m.accepted, m.finished, m.repairs, m.stale, m.turns, m.scripts)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, one := range f.GetMetric() {
			var got []string
			for _, l := range one.GetLabel() {
				got = append(got, l.GetValue())
			}
			if slices.Equal(got, values) {
				return one.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no metric %s with %v", name, values)
	return 0
}

func TestWhatIsDueAgainComesBeforeNewMailOfItsBatch(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	b := enqueueBatch(t, q, batch(mail.Report, 5))
	turn := d.turn()
	again := outcomes(turn.Next(nil), Again, "t")
	again.Delay = time.Minute
	a := turn.Next(again)
	if a == nil || a.MessageID != b.IDs[1] {
		t.Fatalf("second: %+v", a)
	}
	if s := status(t, q, b.IDs[0]); !s.Due.Equal(c.now.Add(time.Minute).Truncate(time.Millisecond)) || s.Attempts != 1 {
		t.Errorf("waiting for its retry: %+v", s)
	}
	c.advance(time.Minute - time.Millisecond)
	d.turns()
	if a = turn.Next(delivered(a)); a.MessageID != b.IDs[2] {
		t.Fatalf("before the retry is due: %s, want %s", a.MessageID, b.IDs[2])
	}
	c.advance(time.Millisecond)
	d.turns()
	back := outcomes(a, Back, "h") // handed back: even before what is due again
	if a = turn.Next(back); a.MessageID != b.IDs[2] {
		t.Fatalf("handed back: %s, want %s", a.MessageID, b.IDs[2])
	}
	var order []string
	for a = turn.Next(delivered(a)); a != nil; a = turn.Next(delivered(a)) {
		order = append(order, a.MessageID)
		if a.MessageID == b.IDs[0] && (a.Counted != 1 || a.First.IsZero()) {
			t.Errorf("the second attempt knows of %d before it, the first at %v", a.Counted, a.First)
		}
	}
	if want := []string{b.IDs[0], b.IDs[3], b.IDs[4]}; !slices.Equal(order, want) {
		t.Errorf("then %v, want %v", order, want)
	}
	booksAreClean(t, q)
}

func TestEachAttemptOffersOnlyWhoIsPending(t *testing.T) {
	for _, test := range []struct {
		name, second string
		verdict      Verdict
		state        State
		states       string
		failed       int
	}{
		{"the last is delivered", "d", GiveUp, Failed, "dxd", 1},
		{"the last is refused", "x", GiveUp, Failed, "dxx", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			q, c := onClock(t)
			d := sitDown(t, q, activate(t, q, 1), nil)
			m := message(mail.Report, "ada@example.net")
			m.Cc = []mail.Address{{Address: "bob@example.net"}}
			m.Bcc = []mail.Address{{Address: "eve@example.net"}}
			id := enqueue(t, q, m)
			turn := d.turn()
			a := turn.Next(nil)
			if !slices.Equal(a.Offered, []int{0, 1, 2}) || a.Refused() {
				t.Fatalf("first: %v", a.Offered)
			}
			again := outcomes(a, Again, "dxt")
			again.Delay = time.Minute
			turn.Next(again)
			if s := status(t, q, id); states(s) != "dxp" || s.State != Queued {
				t.Errorf("between: %s, %s", s.State, states(s))
			}
			c.advance(time.Minute)
			turn = d.turn()
			a = turn.Next(nil)
			if !slices.Equal(a.Offered, []int{2}) || !a.Refused() || a.Message.Recipients()[2].Address != "eve@example.net" {
				t.Fatalf("second: %v", a.Offered)
			}
			turn.Next(outcomes(a, test.verdict, test.second))
			s := status(t, q, id)
			if s.State != test.state || states(s) != test.states || s.Attempts != 2 || len(s.History) != 2 {
				t.Errorf("end: %+v", s)
			}
			if h := s.History[0].Outcomes; len(h) != 3 || !slices.Equal(h[1].Recipients, []int{1}) || h[1].Class != "permanent" {
				t.Errorf("history: %+v", s.History)
			}
			counts, err := q.Counts(t.Context())
			if err != nil || counts.Failed[mail.Report] != test.failed || counts.Open[mail.Report] != 0 || counts.ContentBytes == 0 {
				t.Errorf("counts: %+v, %v", counts, err)
			}
			booksAreClean(t, q)
		})
	}
	t.Run("all in the end", func(t *testing.T) {
		q, _ := onClock(t)
		d := sitDown(t, q, activate(t, q, 1), nil)
		id := enqueue(t, q, to(mail.Report, "ada@example.net", "bob@example.net", "eve@example.net"))
		turn := d.turn()
		turn.Next(delivered(turn.Next(outcomes(turn.Next(outcomes(turn.Next(nil), Back, "tdt")), Back, "dt"))))
		if s := status(t, q, id); s.State != Delivered || states(s) != "ddd" {
			t.Errorf("end: %s, %s", s.State, states(s))
		}
		noContentIsLeft(t, q)
	})
}

// TestWhoIsHeldIsPendingInTheFailedStore has an attempt of which nobody knows who of the first two has the message, while the others were not
// offered it; then these come to different ends.
func TestWhoIsHeldIsPendingInTheFailedStore(t *testing.T) {
	for name, v := range map[string]struct {
		then   func(*Queue, *clock, *desk)
		states string
		note   string // of the last attempt
	}{
		"the others get it": {func(_ *Queue, _ *clock, d *desk) {
			turn := d.turn()
			a := turn.Next(nil)
			if !slices.Equal(a.Offered, []int{2, 3}) || !a.Held() || a.Doubtful {
				d.t.Errorf("offered to %v, held: %v, doubtful: %v", a.Offered, a.Held(), a.Doubtful)
			}
			if err := a.Keep("a draft for two"); err != nil {
				d.t.Error(err)
			}
			turn.Next(delivered(a))
		}, "ppdd", "delivered"},
		"one is refused": {func(_ *Queue, _ *clock, d *desk) {
			turn := d.turn()
			turn.Next(outcomes(turn.Next(nil), Done, "dx"))
		}, "ppdx", "permanent"},
		"their worker dies": {func(_ *Queue, _ *clock, d *desk) {
			if err := d.turn().Next(nil).Fence(); err != nil {
				d.t.Error(err)
			}
			d.dies()
			d.renew()
			d.sweepAll()
		}, "pppp", "unknown"},
		"their time is over": {func(_ *Queue, c *clock, d *desk) {
			c.advance(time.Hour)
			d.turn().Next(nil)
		}, "pppp", "temporary"},
		"it takes more of a limit than that allows": {func(q *Queue, _ *clock, d *desk) {
			d.assume(choose(d.t, q, ActiveProvider{Concurrency: 1, Limits: limit(throttle.Recipients, 1)}))
			d.turn().Next(nil)
		}, "pppp", "permanent"},
	} {
		t.Run(name, func(t *testing.T) {
			q, c := onClock(t)
			d := sitDown(t, q, activate(t, q, 1), func(o *ConsumerOptions) { o.OnUnknown = map[mail.Kind]UnknownPolicy{mail.Report: Hold} })
			many := batch(mail.Report, 1)
			many.Message.ExpiresAt = c.now.Add(time.Hour)
			many.Recipients[0].To = to(mail.Report, "ada@example.net", "bob@example.net", "cy@example.net", "dan@example.net").To
			b := enqueueBatch(t, q, many)
			id := b.IDs[0]
			turn := d.turn()
			a := turn.Next(nil)
			if err := a.Fence(); err != nil {
				t.Fatal(err)
			}
			s := outcomes(a, Back, "uutt")
			s.Held, s.Class, s.Counted = true, mail.Unknown, true
			end(turn, s)
			if s := status(t, q, id); s.State != Queued || states(s) != "pppp" || s.Attempts != 1 {
				t.Fatalf("between: %s, %s", s.State, states(s))
			}
			v.then(q, c, d)
			last := status(t, q, id)
			if h := last.History[len(last.History)-1].Outcomes; last.State != Failed || states(last) != v.states || h[len(h)-1].Class != v.note {
				t.Errorf("end: %s, %s, %+v", last.State, states(last), last.History)
			}
			counts, err := q.Counts(t.Context())
			if err != nil || counts.FailedByClass[mail.Unknown] != 1 || counts.Failed[mail.Report] != 1 || counts.Open[mail.Report] != 0 {
				t.Errorf("%+v, %v", counts, err)
			}
			if s, err := q.Batch(t.Context(), b.ID); err != nil || s.Failed != 1 || s.Open != 0 || s.Delivered != 0 {
				t.Errorf("%+v, %v", s, err)
			}
			booksAreClean(t, q)
			c.advance(time.Second)
			if sum := runAll(t, q.Requeue, FailedFilter{Classes: []mail.Class{mail.Unknown}}, SelectionOptions{}); sum.Done != 1 {
				t.Fatalf("%+v", sum)
			}
			d.assume(activate(t, q, 1))
			a = d.turn().Next(nil)
			var pending []int
			for i := range v.states {
				if v.states[i] != 'd' {
					pending = append(pending, i)
				}
			}
			if a == nil || !slices.Equal(a.Offered, pending) || a.Held() || !a.Doubtful || !a.Released || a.Kept != "" {
				t.Errorf("requeued: %+v", a)
			}
		})
	}
}

// TestWhatMayHaveBeenSentFailsAsUnknownForALimit has a limit shrink below what a message takes that was tried once.
func TestWhatMayHaveBeenSentFailsAsUnknownForALimit(t *testing.T) {
	for letter, want := range map[string]mail.Class{"u": mail.Unknown, "t": mail.Permanent} {
		q, _ := onClock(t)
		d := sitDown(t, q, activate(t, q, 1), nil)
		id := enqueue(t, q, to(mail.Report, "ada@example.net", "bob@example.net"))
		turn := d.turn()
		end(turn, outcomes(turn.Next(nil), Again, letter+letter))
		d.assume(choose(t, q, ActiveProvider{Concurrency: 1, Limits: limit(throttle.Recipients, 1)}))
		if a := d.turn().Next(nil); a != nil {
			t.Errorf("%s: it was offered to %v", letter, a.Offered)
		}
		counts, err := q.Counts(t.Context())
		if s := status(t, q, id); err != nil || s.State != Failed || states(s) != "pp" || counts.FailedByClass[want] != 1 {
			t.Errorf("%s: %+v, %+v, %v", letter, s, counts, err)
		}
	}
}

func TestLateOutcomeOfAnOlderAttemptAddsWhatItDelivered(t *testing.T) {
	q, _ := onClock(t)
	version := activate(t, q, 1)
	first := sitDown(t, q, version, nil)
	id := enqueue(t, q, to(mail.Report, "ada@example.net", "bob@example.net", "eve@example.net"))
	one := first.turn()
	a1 := one.Next(nil)
	first.dies()
	second := sitDown(t, q, version, nil)
	second.sweepAll()
	if s := status(t, q, id); s.State != Queued || s.Attempts != 1 {
		t.Fatalf("after the sweep: %+v", s)
	}
	turn := second.turn()
	a2 := turn.Next(nil)
	if a2 == nil || len(a2.Offered) != 3 {
		t.Fatalf("second attempt: %+v", a2)
	}
	if a := one.Next(outcomes(a1, Again, "dtt")); a != nil {
		t.Error("a turn that is over began something")
	}
	if s := status(t, q, id); s.State != Sending || states(s) != "dpp" {
		t.Errorf("after the late outcome: %s, %s", s.State, states(s))
	}
	back := outcomes(a2, Back, "tdt")
	if a2 = turn.Next(back); !slices.Equal(a2.Offered, []int{2}) {
		t.Errorf("third attempt is offered to %v, want only the one who is pending", a2.Offered)
	}
	turn.Next(delivered(a2))
	if s := status(t, q, id); s.State != Delivered || states(s) != "ddd" {
		t.Errorf("end: %s, %s", s.State, states(s))
	}
	noContentIsLeft(t, q)
	booksAreClean(t, q)
}

func TestHoldSilencesTheKeyForEveryConsumer(t *testing.T) {
	for _, class := range []string{"h", "c"} {
		q, c := onClock(t)
		version := activate(t, q, 4)
		d, other := sitDown(t, q, version, nil), sitDown(t, q, version, nil)
		enqueueBatch(t, q, batch(mail.Report, 20))
		turns := d.turns()
		for i := 2; i < 4; i++ {
			turns[i] = other.run(turns[i])
		}
		var open []*Attempt
		for _, turn := range turns {
			open = append(open, turn.Next(nil))
		}
		held := func(want time.Duration) {
			t.Helper()
			at := unixMilli(q.redis.HGet(t.Context(), q.key("k:", account), "until").Val())
			if got := at.Sub(c.now.Truncate(time.Millisecond)); got != want {
				t.Fatalf("held for %v, want %v", got, want)
			}
		}
		refused := func(turn *Turn, a *Attempt) {
			t.Helper()
			s := outcomes(a, Back, class)
			s.Hold, s.HoldMax, s.Reason, s.Scope = 10*time.Second, time.Minute, s.Class.String(), mail.ScopeProvider
			if turn.Next(s) != nil {
				t.Fatal("an attempt began although the key is held")
			}
		}
		refused(turns[0], open[0])
		held(10 * time.Second)
		// What was under way neither ends the hold nor makes it longer.
		if turns[1].Next(delivered(open[1])) != nil || turns[2].Next(delivered(open[2])) != nil {
			t.Fatal("an attempt began although the key is held")
		}
		refused(turns[3], open[3])
		held(10 * time.Second)
		if turns := other.turns(); len(turns) > 0 {
			t.Fatal("turns are handed out although the key is held")
		}

		before := 10 * time.Second
		for _, want := range []time.Duration{20 * time.Second, 40 * time.Second, time.Minute, time.Minute} {
			c.advance(before - time.Millisecond)
			if len(other.turns()) != 0 {
				t.Fatalf("the hold of %v ended early", before)
			}
			c.advance(time.Millisecond)
			turn := other.turns()[0]
			refused(turn, turn.Next(nil))
			held(want)
			before = want
		}

		c.advance(time.Minute)
		turn := other.turns()[0]
		if a := turn.Next(delivered(turn.Next(nil))); a == nil {
			t.Fatal("a success did not end the row of refusals")
		} else {
			refused(turn, a)
			held(10 * time.Second)
		}
	}
}

func TestTheProvidersOwnTimeLengthensAHold(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, activate(t, q, 3), nil)
	enqueueBatch(t, q, batch(mail.Report, 5))
	turns := d.turns()
	var open []*Attempt
	for _, turn := range turns {
		open = append(open, turn.Next(nil))
	}
	for i, hold := range []time.Duration{time.Minute, 5 * time.Minute, 2 * time.Minute} {
		s := outcomes(open[i], Back, "h")
		s.Hold, s.Reason = hold, "throttled"
		turns[i].Next(s)
	}
	c.advance(5*time.Minute - time.Millisecond)
	if len(d.turns()) != 0 {
		t.Error("the longest time asked for was cut")
	}
	c.advance(time.Millisecond)
	if len(d.turns()) == 0 {
		t.Error("the hold did not end")
	}
}

func TestHeldMailboxLeavesOthersAlone(t *testing.T) {
	q, _ := onClock(t)
	version, err := declare(t, q, ActiveProvider{Kind: "microsoft365", Keying: ByMailbox, Sender: "own@example.com", Concurrency: 1}, "salt", "mailboxes")
	if err != nil {
		t.Fatal(err)
	}
	d := sitDown(t, q, version, nil)
	for _, from := range []string{"One@example.com", "two@example.com", ""} {
		m := message(mail.Report, "ada@example.net")
		m.From.Address = from
		enqueue(t, q, m)
		enqueue(t, q, m)
	}
	turns := d.turns()
	byKey := map[string]*Turn{}
	for _, turn := range turns {
		byKey[turn.key] = turn
	}
	if len(turns) != 3 || byKey["one@example.com"] == nil || byKey["two@example.com"] == nil || byKey["own@example.com"] == nil {
		t.Fatalf("turns for %v", byKey)
	}
	s := outcomes(byKey["one@example.com"].Next(nil), Back, "h")
	s.Hold, s.Reason = time.Minute, "throttled"
	byKey["one@example.com"].Next(s)
	for _, key := range []string{"two@example.com", "own@example.com"} {
		turn, n := byKey[key], 0
		for a := turn.Next(nil); a != nil; a = turn.Next(delivered(a)) {
			n++
		}
		if n != 2 {
			t.Errorf("%s sent %d, want 2", key, n)
		}
	}
}

func TestNoAttemptBeginsUnderOldSettings(t *testing.T) {
	q := open(t, queuetest.Start(t).Client)
	version := activate(t, q, 1)
	began, goOn := make(chan *Attempt, 10), make(chan struct{})
	c := q.NewConsumer(ConsumerOptions{CheckInterval: 5 * time.Millisecond, Grace: 5 * time.Second,
		Handle: func(_ context.Context, turn *Turn) {
			for a := turn.Next(nil); a != nil; a = turn.Next(delivered(a)) {
				began <- a
				<-goOn
			}
		}})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	b := enqueueBatch(t, q, batch(mail.Report, 3))
	if a := <-began; a.Version != version {
		t.Errorf("the attempt began for %q, want %q", a.Version, version)
	}
	if err := clearProvider(t, q); err != nil {
		t.Fatal(err)
	}
	if n, err := q.run(t.Context(), "older").Int(); err != nil || n != 1 {
		t.Errorf("%d attempts are left of the former settings, %v; want 1", n, err)
	}
	goOn <- struct{}{}
	if n, err := q.Underway(t.Context()); err != nil || n != 0 {
		t.Errorf("%d attempts are left, %v", n, err)
	}
	if len(began) != 0 {
		t.Error("an attempt began under old settings")
	}
	s, err := q.Batch(t.Context(), b.ID)
	if err != nil || s.Delivered != 1 || s.Open != 2 {
		t.Errorf("batch: %+v, %v; what was under way is settled, the rest waits", s, err)
	}
	// A switch of provider moves no message: the process goes on with the next.
	settings := ActiveProvider{Kind: "smtp", Keying: ByAccount, Account: "other.example.com:25", Concurrency: 1}
	other, err := declare(t, q, settings, "salt", "other")
	if err != nil || other == version {
		t.Fatalf("version %q, %v", other, err)
	}
	if same, err := declare(t, q, settings, "salt", "other"); err != nil || same != other {
		t.Errorf("the same settings again: version %q, %v; want %q", same, err, other)
	}
	for range 2 {
		if a := <-began; a.Version != other {
			t.Errorf("the attempt began for %q, want %q", a.Version, other)
		}
		goOn <- struct{}{}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWithoutProviderMailWaits(t *testing.T) {
	q, _ := onClock(t)
	version := activate(t, q, 2)
	d := sitDown(t, q, version, nil)
	enqueueBatch(t, q, batch(mail.Report, 2))
	turns := d.turns()
	if err := clearProvider(t, q); err != nil {
		t.Fatal(err)
	}
	if turns[0].Next(nil) != nil {
		t.Error("an attempt began without a provider")
	}
	if len(d.turns()) != 0 {
		t.Error("turns are handed out without a provider")
	}
	if n := len(waiting(t, q)); n != 2 {
		t.Errorf("%d wait, want 2", n)
	}
}
