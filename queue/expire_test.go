package queue

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
)

// tidyNow does what needs no worker.
func tidyNow(t *testing.T, q *Queue) {
	t.Helper()
	if err := q.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// batchNow gives what is known of a batch.
func batchNow(t *testing.T, q *Queue, id string) *BatchStatus {
	t.Helper()
	s, err := q.Batch(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMailExpiresWhateverItWaitsFor(t *testing.T) {
	hour := func(a *Attempt) *Settlement {
		again := outcomes(a, Again, "t")
		again.Delay = time.Hour
		return again
	}
	for name, stop := range map[string]func(t *testing.T, q *Queue, d *desk){
		"nothing, without a turn": func(*testing.T, *Queue, *desk) {},
		"no worker":               func(_ *testing.T, _ *Queue, d *desk) { d.dies() },
		"a pause": func(t *testing.T, q *Queue, _ *desk) {
			if _, err := q.Pause(t.Context(), Everything, 24*time.Hour, "a test", Author{}); err != nil {
				t.Fatal(err)
			}
		},
		"a hold": func(t *testing.T, q *Queue, d *desk) {
			enqueue(t, q, message(mail.Alert, "refused@example.net"))
			turn := d.turn()
			h := holding(turn.Next(nil), "c", mail.ScopeProvider)
			h.Hold, h.HoldMax = time.Hour, time.Hour
			end(turn, h)
		},
		"no provider": func(t *testing.T, q *Queue, _ *desk) {
			if err := clearProvider(t, q); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			q, c := onClock(t)
			d := sitDown(t, q, activate(t, q, 1), nil)
			soon := func(m mail.Message) mail.Message {
				m.ExpiresAt = c.now.Add(time.Minute)
				return m
			}
			tried := enqueue(t, q, soon(message(mail.Report, "tried@example.net")))
			turn := d.turn()
			end(turn, hour(turn.Next(nil)))
			b := batch(mail.Subscription, 450) // more than one step takes
			b.Message = soon(b.Message)
			many := enqueueBatch(t, q, b)
			turn = d.turn()
			end(turn, delivered(turn.Next(hour(turn.Next(nil)))))
			b.Message.SendAt = c.now.Add(30 * time.Second)
			later := enqueueBatch(t, q, b)
			one := enqueue(t, q, soon(message(mail.Report, "one@example.net")))
			stays := enqueue(t, q, message(mail.Report, "stays@example.net"))
			stop(t, q, d)
			open := openCount(t, q)

			tidyNow(t, q)
			if n := openCount(t, q); n != open {
				t.Errorf("before its time %d ended", open-n)
			}
			c.advance(time.Minute)
			tidyNow(t, q)
			for id, want := range map[string]State{tried: Expired, one: Expired, stays: Queued, many.IDs[0]: Expired, many.IDs[1]: Delivered, many.IDs[449]: Expired, later.IDs[0]: Expired} {
				if s := status(t, q, id); s.State != want {
					t.Errorf("%s is %s, want %s", id, s.State, want)
				}
			}
			if s := batchNow(t, q, many.ID); s.Expired != 449 || s.Delivered != 1 || s.Open != 0 {
				t.Errorf("the batch: %+v", s)
			}
			if s := batchNow(t, q, later.ID); s.Expired != 450 || s.Open != 0 {
				t.Errorf("the scheduled batch: %+v", s)
			}
			if n := openCount(t, q); open-n != 901 { // 450, 449, one, tried
				t.Errorf("%d ended, want 901", open-n)
			}
			if got := metric(t, q, "postroom_messages_finished_total", "subscription", "expired"); got != 899 {
				t.Errorf("%v subscriptions are counted as expired, want 899", got)
			}
			// Nothing of it is left: what waits is what counts as waiting.
			if got := q.redis.HGetAll(t.Context(), q.key("backlog")).Val(); got["s:reports@example.com"] != "" || got["r:reports@example.com"] != "1" {
				t.Errorf("the backlog is %v", got)
			}
			for _, key := range []string{"expires", "due"} {
				if left := q.redis.ZRange(t.Context(), q.key(key), 0, -1).Val(); len(left) > 0 {
					t.Errorf("%s has %q left", key, left)
				}
			}
			if left := q.redis.Keys(t.Context(), q.key("l:s:*")).Val(); len(left) > 0 {
				t.Errorf("lanes are left: %q", left)
			}
			if got := metric(t, q, "postroom_stale_entries_total"); got != 0 {
				t.Errorf("%v entries were stale", got)
			}
			repaired(t, q, false)
		})
	}
}

// openCount is how many messages have not ended.
func openCount(t *testing.T, q *Queue) int {
	t.Helper()
	counts, err := q.Counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return counts.Open[mail.Alert] + counts.Open[mail.Report] + counts.Open[mail.Subscription]
}

func TestWhatHasEndedNoLongerExpires(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	single := message(mail.Report, "single@example.net")
	single.ExpiresAt = c.now.Add(time.Minute)
	b := batch(mail.Report, 3)
	b.Message.ExpiresAt = single.ExpiresAt
	enqueueBatch(t, q, b)
	enqueue(t, q, single)
	if n := d.sendAll(); n != 4 {
		t.Fatalf("%d went, want 4", n)
	}
	if left := q.redis.ZRange(t.Context(), q.key("expires"), 0, -1).Val(); len(left) > 0 {
		t.Errorf("%q is still to expire", left)
	}
	// A batch of which something has failed is left, and is not looked at again.
	enqueueBatch(t, q, b)
	turn := d.turn()
	end(turn, refuses(turn.Next(nil)))
	c.advance(time.Minute)
	tidyNow(t, q)
	repaired(t, q, false)
	if left := q.redis.ZRange(t.Context(), q.key("expires"), 0, -1).Val(); len(left) > 0 {
		t.Errorf("%q is still to expire", left)
	}
}

func TestOfThoseWhoMayHaveItSomebodyHearsWhenItExpires(t *testing.T) {
	q, c := onClock(t)
	m := to(mail.Report, "ada@example.net", "bob@example.net")
	m.ExpiresAt = c.now.Add(time.Minute)
	id := enqueue(t, q, m)
	raw := q.redis.Get(t.Context(), q.key("m:", id)).Val()
	q.redis.Set(t.Context(), q.key("m:", id), strings.Replace(raw, "\tpp\t", "\tup\t", 1), 0) // nobody knows whether Ada has it
	c.advance(time.Minute)
	tidyNow(t, q)
	if s := status(t, q, id); s.State != Failed || len(s.History) != 1 || s.History[0].Outcomes[0].Step != "expired" {
		t.Errorf("%+v", s)
	}
	repaired(t, q, false)
}

func TestWhatIsBeingSentExpiresOnlyWhenItComesBack(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, activate(t, q, 2), nil)
	single := message(mail.Report, "single@example.net")
	single.ExpiresAt = c.now.Add(time.Minute)
	b := batch(mail.Report, 2)
	b.Message.ExpiresAt = single.ExpiresAt
	ids := append(enqueueBatch(t, q, b).IDs, enqueue(t, q, single))
	open := begun(d.turns())
	c.advance(time.Minute)
	tidyNow(t, q)
	sending := 0
	for turn, a := range open {
		if s := status(t, q, a.MessageID); s.State != Sending {
			t.Errorf("what is being sent is %s", s.State)
		}
		end(turn, outcomes(a, Back, "t"))
		if s := status(t, q, a.MessageID); s.State != Queued {
			t.Errorf("it came back as %s", s.State)
		}
		sending++
	}
	if sending != 2 {
		t.Fatalf("%d were being sent, want 2", sending)
	}
	tidyNow(t, q)
	for _, id := range ids {
		if s := status(t, q, id); s.State != Expired {
			t.Errorf("%s, want expired", s.State)
		}
	}
	repaired(t, q, false)
	booksAreClean(t, q)
}

func TestWhatIsRequeuedExpiresIfItsTimeIsYetToCome(t *testing.T) {
	for name, after := range map[string]time.Duration{"requeued before": 0, "requeued after": 2 * time.Minute} {
		q, c := onClock(t)
		d := sitDown(t, q, activate(t, q, 2), nil)
		single := message(mail.Report, "single@example.net")
		single.ExpiresAt = c.now.Add(time.Minute)
		b := batch(mail.Report, 1)
		b.Message.ExpiresAt = single.ExpiresAt
		ids := append(enqueueBatch(t, q, b).IDs, enqueue(t, q, single))
		for turn, a := range begun(d.turns()) {
			end(turn, refuses(a))
		}
		if n := q.redis.ZCard(t.Context(), q.key("expires")).Val(); n > 1 { // the batch's may stay
			t.Errorf("%s: %d are to expire, and have failed", name, n)
		}
		c.advance(after)
		tidyNow(t, q)
		runAll(t, q.Requeue, FailedFilter{}, SelectionOptions{})
		c.advance(time.Minute)
		tidyNow(t, q)
		want := map[bool]State{true: Expired, false: Queued}[after == 0]
		for _, id := range ids {
			if s := status(t, q, id); s.State != want {
				t.Errorf("%s: %s, want %s", name, s.State, want)
			}
		}
	}
}

func TestMailExpiresWithoutAnyWorker(t *testing.T) {
	q, c := onClock(t)
	m := message(mail.Alert, "ada@example.net")
	m.ExpiresAt = c.now.Add(time.Minute)
	id := enqueue(t, q, m)
	c.advance(time.Minute)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		q.Tend(ctx)
	}()
	eventually(t, "it has expired", func() bool { return status(t, q, id).State == Expired })
	stop()
	<-ended
}
