package queue

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue/queuetest"
)

// TestASettlementThatAFailOverLostIsMadeAgain has Redis run back to before an attempt was settled, as a replica does that had not heard
// of it.
func TestASettlementThatAFailOverLostIsMadeAgain(t *testing.T) {
	for name, v := range map[string]struct{ forgotten, lapsed bool }{
		"which the worker remembers":                                    {},
		"which the worker remembers, whose lease has run out meanwhile": {lapsed: true},
		"which it has forgotten":                                        {forgotten: true},
	} {
		forgotten := v.forgotten
		t.Run(name, func(t *testing.T) {
			r := queuetest.Start(t)
			client := r.Client
			q := open(t, client)
			version := activate(t, q, 2)
			sent, goOn := make(chan string, 10), make(chan struct{})
			c := q.NewConsumer(ConsumerOptions{Load: loads(version), CheckInterval: 5 * time.Millisecond, SweepInterval: 60 * time.Millisecond,
				Handle: func(_ context.Context, turn *Turn) {
					var last *Settlement
					for a := turn.Next(nil); a != nil; a = turn.Next(last) {
						sent <- a.MessageID
						<-goOn
						last = delivered(a)
					}
				}})
			if v.lapsed {
				c.leaseTime = 400 * time.Millisecond
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- c.Run(ctx) }()
			defer func() {
				cancel()
				<-ended
			}()
			receipt, err := q.Enqueue(t.Context(), message(mail.Report, "ada@example.net"))
			if err != nil {
				t.Fatal(err)
			}
			<-sent
			// Whoever is there, and with which settings, is not what was lost.
			ours := func(k kept) bool {
				return slices.Contains([]string{q.key("workers"), q.key("sends"), q.key("provider"), q.key("declared"), q.key("sweep")}, k.Key)
			}
			before := slices.DeleteFunc(keep(t, client), ours)
			close(goOn)
			state := func() State { return status(t, q, receipt.ID).State }
			eventually(t, "it is delivered", func() bool { return state() == Delivered })

			if v.lapsed {
				old := c.lease.Load().worker
				client.HDel(t.Context(), q.key("workers"), old)
				eventually(t, "the worker has another lease", func() bool { return c.lease.Load().worker != old })
			}
			for _, k := range slices.DeleteFunc(keep(t, client), ours) {
				client.Del(t.Context(), k.Key)
			}
			if forgotten {
				c.underway.mu.Lock()
				c.underway.recent = nil
				c.underway.mu.Unlock()
			}
			restore(t, client, before)
			eventually(t, "the repair is counted", func() bool { return metric(t, q, "postroom_repairs_total", "settlement") == 1 })
			eventually(t, "its unit is free", func() bool {
				if forgotten { // the sweep of a process that has had Redis for a whole lease does it
					if err := c.sweepTurns(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				return state() == Delivered && !exists(q, "keys")
			})
			again := 0
			if forgotten {
				again = 1 // as unknown, with the same Message-ID
			}
			if len(sent) != again {
				t.Errorf("it was sent %d more times, want %d", len(sent), again)
			}
			noContentIsLeft(t, q)
		})
	}
}

// TestAFailOverThatLostABeginTakesItsOutcomeAllTheSame has Redis run back to before an attempt began that has passed its fence. As long as nobody
// else has begun the message what is known of it counts.
func TestAFailOverThatLostABeginTakesItsOutcomeAllTheSame(t *testing.T) {
	for name, v := range map[string]struct {
		letter   string
		verdict  Verdict
		another  bool // begins it first
		state    State
		attempts int
	}{
		"delivered":                     {"d", Done, false, Delivered, 1},
		"unknown, and held":             {"u", GiveUp, false, Failed, 1},
		"put off":                       {"t", Again, false, Queued, 1},
		"handed back":                   {"t", Back, false, Queued, 0},
		"unknown, and begun by another": {"u", GiveUp, true, Sending, 0},
	} {
		t.Run(name, func(t *testing.T) {
			q, d, before := beforeAFailOver(t)
			id := enqueue(t, q, message(mail.Report, "ada@example.net"))
			lost := before()
			turn := d.turn()
			a := turn.Next(nil)
			if err := a.Fence(); err != nil {
				t.Fatal(err)
			}
			lost()
			if v.another {
				d.turn().Next(nil)
			}
			came := outcomes(a, v.verdict, v.letter)
			came.Delay = time.Hour
			for range 2 { // a repetition changes nothing
				turn.settleOnly(came)
				if s := status(t, q, id); s.State != v.state || s.Attempts != v.attempts || !v.another && len(s.History) != 1 {
					t.Errorf("%+v", s)
				}
			}
			if v.state == Delivered {
				noContentIsLeft(t, q)
			}
		})
	}
}

// TestAFailOverThatLostAMarkDoesNotHaveHeldMailSentAgain has Redis run back to before the second mark of an attempt whose message then went
// out: that its record is not marked tells nothing as long as its process lives.
func TestAFailOverThatLostAMarkDoesNotHaveHeldMailSentAgain(t *testing.T) {
	for name, open := range map[string]bool{"which is still under way": true, "which the process has forgotten": false} {
		t.Run(name, func(t *testing.T) {
			q, d, before := beforeAFailOver(t)
			id := enqueue(t, q, message(mail.Report, "ada@example.net"))
			turn := d.turn()
			a := turn.Next(nil)
			lost := before()
			if err := a.Fence(); err != nil {
				t.Fatal(err)
			}
			if !open {
				end(turn, delivered(a))
				d.underway.recent = nil
			}
			lost()
			if err := d.settleLostOnce(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			if open {
				d.dies()
				d.renew()
			}
			d.sweepAll()
			if s := status(t, q, id); s.State != Failed || s.History[0].Outcomes[0].Class != "unknown" {
				t.Errorf("%+v", s)
			}
		})
	}
}

// beforeAFailOver gives a queue of which reports are held. before remembers what Redis has, and lost has it run back to that.
func beforeAFailOver(t *testing.T) (q *Queue, d *desk, before func() (lost func())) {
	t.Helper()
	client := queuetest.Start(t).Client
	q = open(t, client)
	d = sitDown(t, q, activate(t, q, 2), func(o *ConsumerOptions) { o.OnUnknown = map[mail.Kind]UnknownPolicy{mail.Report: Hold} })
	return q, d, func() func() {
		kept := keep(t, client)
		return func() {
			for _, k := range keep(t, client) {
				client.Del(t.Context(), k.Key)
			}
			restore(t, client, kept)
		}
	}
}

// TestWhatIsRememberedIsBounded settles more than a process remembers, by number and by bytes.
func TestWhatIsRememberedIsBounded(t *testing.T) {
	for name, v := range map[string]struct {
		n, kept int
		line    string
	}{
		"many":  {remembered + 5, remembered, "x"},
		"large": {20, 16, strings.Repeat("x", 1<<20)},
	} {
		var w underway
		for i := range v.n {
			w.begin(strconv.Itoa(i))
			w.settled(settledOnce{attempt: strconv.Itoa(i), args: []any{1, v.line}})
		}
		for i := range v.n {
			if open, _, s := w.find(strconv.Itoa(i)); open || (s != nil) != (i >= v.n-v.kept) {
				t.Errorf("%s: %d is open: %v, remembered: %v", name, i, open, s != nil)
			}
		}
		if len(w.recent) != v.kept || len(w.order) != v.kept {
			t.Errorf("%s: %d and %d are remembered, want %d", name, len(w.recent), len(w.order), v.kept)
		}
	}
}
