package queue

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue/queuetest"
)

// cancelAll cancels what a filter selects, step by step, and gives the sum.
func cancelAll(t *testing.T, q *Queue, f MessageFilter, o SelectionOptions) SelectionStep {
	t.Helper()
	var sum SelectionStep
	for {
		step, err := q.CancelMessages(t.Context(), f, o)
		if err != nil {
			t.Fatal(err)
		}
		sum.Done += step.Done
		sum.TooLate += step.TooLate
		sum.Cancelled += step.Cancelled
		if o.Cursor = step.Next; o.Cursor == "" {
			return sum
		}
	}
}

func TestWhatAFilterSelectsIsCancelledAndNothingElse(t *testing.T) {
	onEachRedis(t, func(t *testing.T, q *Queue) {
		d := sitDown(t, q, activate(t, q, 5), nil)
		ended := enqueue(t, q, message(mail.Report, "ada@example.net"))
		failing(t, d, map[string]string{ended: "d"}, nil)
		fire := enqueue(t, q, message(mail.Alert, "ada@example.net"))
		a := d.turns()[0].Next(nil)
		if a == nil || a.MessageID != fire {
			t.Fatalf("%+v begins", a)
		}
		b := enqueueBatch(t, q, batch(mail.Subscription, 300))
		other := enqueueBatch(t, q, batch(mail.Report, 20))
		gone := other.IDs[2]
		if err := q.CancelMessage(t.Context(), gone); err != nil {
			t.Fatal(err)
		}
		for name, test := range map[string]struct {
			filter MessageFilter
			want   SelectionStep
		}{
			"all":      {MessageFilter{}, SelectionStep{Done: 319, TooLate: 1}},
			"queued":   {MessageFilter{States: []State{Queued}}, SelectionStep{Done: 319}},
			"a kind":   {MessageFilter{Kind: mail.Subscription}, SelectionStep{Done: 300}},
			"a batch":  {MessageFilter{BatchID: other.ID}, SelectionStep{Done: 19}},
			"some ids": {MessageFilter{IDs: []string{fire, ended, gone, other.IDs[3], "01JZ3Q8Y6M2V7T4K9RBC5XWDHE"}}, SelectionStep{Done: 1, TooLate: 2, Cancelled: 1}},
		} {
			if got := cancelAll(t, q, test.filter, SelectionOptions{DryRun: true}); got != test.want {
				t.Errorf("%s, dry: %+v, want %+v", name, got, test.want)
			}
		}
		if got := cancelAll(t, q, MessageFilter{IDs: []string{fire, ended, gone, other.IDs[3], "01JZ3Q8Y6M2V7T4K9RBC5XWDHE"}}, SelectionOptions{}); got != (SelectionStep{Done: 1, TooLate: 2, Cancelled: 1}) {
			t.Errorf("by ids: %+v", got)
		}
		if got := cancelAll(t, q, MessageFilter{Kind: mail.Subscription}, SelectionOptions{}); got != (SelectionStep{Done: 300}) {
			t.Errorf("by kind: %+v", got)
		}
		if got := cancelAll(t, q, MessageFilter{Kind: mail.Subscription}, SelectionOptions{}); got != (SelectionStep{}) {
			t.Errorf("by kind, again: %+v", got)
		}
		for _, id := range b.IDs {
			if s := status(t, q, id); s.State != Cancelled {
				t.Fatalf("%s is %s", id, s.State)
			}
		}
		if s, err := q.Batch(t.Context(), b.ID); err != nil || s.Cancelled != 300 || s.Open != 0 || s.Cancel {
			t.Errorf("%+v, %v", s, err)
		}
		if s, err := q.Batch(t.Context(), other.ID); err != nil || s.Cancelled != 2 || s.Open != 18 {
			t.Errorf("%+v, %v", s, err)
		}

		// What is accepted while a run is under way is not meant.
		step, err := q.CancelMessages(t.Context(), MessageFilter{IDs: []string{other.IDs[4]}}, SelectionOptions{DryRun: true})
		if err != nil || step.Before.IsZero() || !step.Before.After(acceptedAt(other.ID)) {
			t.Fatalf("%+v, %v", step, err)
		}
		if got := cancelAll(t, q, MessageFilter{AcceptedBefore: acceptedAt(other.ID)}, SelectionOptions{DryRun: true}); got.Done != 0 {
			t.Errorf("before it was accepted: %+v", got)
		}
		early := milli(acceptedAt(other.ID)) + "-n0" // the cursor of a run that began then
		if got := cancelAll(t, q, MessageFilter{BatchID: other.ID}, SelectionOptions{Cursor: early}); got.Done != 0 {
			t.Errorf("by a run that began before: %+v", got)
		}
	})
}

func TestASelectionThatIsCutAndRepeatedCancelsEachOnce(t *testing.T) {
	r := queuetest.Start(t)
	for name, twice := range map[string]bool{"cut": false, "each script twice": true} {
		r.Client.FlushAll(t.Context())
		q := open(t, r.Client)
		const n = 3 * stepScan / 2
		b := enqueueBatch(t, q, batch(mail.Report, n))
		done, kills := 0, 0
		for ; ; kills++ {
			l := &line{lost: kills%2 == 0, twice: twice}
			dying := through(t, r, l)
			l.left.Store(int64(5 + 4*kills))
			l.dies.Store(!twice)
			f := MessageFilter{Mailbox: "reports@example.com", AcceptedBefore: acceptedAt(b.ID).Add(1e9)}
			o := SelectionOptions{}
			var err error
			for {
				var step SelectionStep
				if step, err = dying.CancelMessages(t.Context(), f, o); err != nil {
					done += step.Done
					break
				}
				done += step.Done
				if o.Cursor = step.Next; o.Cursor == "" {
					break
				}
			}
			if err == nil {
				break
			}
		}
		s, err := q.Batch(t.Context(), b.ID)
		if err != nil || s.Cancelled != n || s.Open != 0 {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
		// A step whose last answer is lost may lack what that did.
		if done > n || twice && done != n || !twice && (kills < 3 || done < n-(kills+1)/2*scanPiece) {
			t.Errorf("%s: after %d kills %d are told as cancelled of %d", name, kills, done, n)
		}
		if counts, err := q.Counts(t.Context()); err != nil || !maps.Equal(counts.Open, map[mail.Kind]int{mail.Alert: 0, mail.Report: 0, mail.Subscription: 0}) {
			t.Errorf("%s: %+v, %v", name, counts, err)
		}
		noContentIsLeft(t, q)
	}
}

// What was cancelled is counted as waiting no more, also while nothing goes out, and the rest keeps its order.
func TestCancelledMessagesLeaveTheirLanes(t *testing.T) {
	onEachRedis(t, func(t *testing.T, q *Queue) {
		version := activate(t, q, 1)
		const n = 900
		b := enqueueBatch(t, q, batch(mail.Report, n))
		news := batch(mail.Subscription, 30)
		enqueueBatch(t, q, news)
		later := message(mail.Report, "ada@example.net")
		later.SendAt = time.Now().Add(time.Hour)
		enqueue(t, q, later)
		var kept []string
		f := MessageFilter{Kind: mail.Report, IDs: nil}
		for i, id := range b.IDs {
			if i%7 == 0 {
				kept = append(kept, id)
			} else {
				f.IDs = append(f.IDs, id)
			}
		}
		// Who repairs meanwhile reads lanes from their tails, and must not miss what is turned.
		q.redis.Set(t.Context(), q.key("repair"), "somebody", 0)
		if got := cancelAll(t, q, f, SelectionOptions{}); got.Done != n-len(kept) {
			t.Fatalf("%+v", got)
		}
		if got := waiting(t, q); len(got) != n+30 {
			t.Errorf("%d wait, want %d and 30", len(got), n)
		}
		q.redis.Del(t.Context(), q.key("repair"))
		if err := q.tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
		backlog := func() map[string]string { return q.redis.HGetAll(t.Context(), q.key("backlog")).Val() }
		if got := waiting(t, q); !slices.Equal(got[:len(kept)], kept) || len(got) != len(kept)+30 {
			t.Errorf("%d wait, want %d and 30", len(got), len(kept))
		}
		if got, want := backlog(), map[string]string{"r:reports@example.com": fmt.Sprint(len(kept)), "s:reports@example.com": "30"}; !maps.Equal(got, want) {
			t.Errorf("the backlog is counted as %v, want %v", got, want)
		}
		// One by itself leaves at once.
		if err := q.CancelMessage(t.Context(), kept[0]); err != nil {
			t.Fatal(err)
		}
		if got := waiting(t, q); len(got) != len(kept)-1+30 {
			t.Errorf("%d wait, want %d and 30", len(got), len(kept)-1)
		}
		if got := cancelAll(t, q, MessageFilter{}, SelectionOptions{}); got.Done != len(kept)-1+30+1 {
			t.Errorf("%+v", got)
		}
		for _, key := range []string{"thinned", "backlog", "due", "s:r", "s:s", "r:r:reports@example.com"} {
			if q.redis.Exists(t.Context(), q.key(key)).Val() != 0 {
				t.Errorf("%s is left", key)
			}
		}
		single := enqueue(t, q, message(mail.Report, "ada@example.net"))
		if a := sitDown(t, q, version, nil).turns()[0].Next(nil); a == nil || a.MessageID != single {
			t.Errorf("what comes then is %+v", a)
		}
	})
}

// However often it is broken off, and by whomever it is carried on, a lane is turned once.
func TestALaneIsTurnedOnceInAsManyStepsAsItTakes(t *testing.T) {
	q, _ := onClock(t)
	activate(t, q, 1)
	const n = 1000
	b := enqueueBatch(t, q, batch(mail.Report, n))
	var kept []string
	f := []any{q.options.DeliveredMax, "mark", ""}
	for i, id := range b.IDs {
		if i%5 == 0 {
			f = append(f, id)
		} else {
			kept = append(kept, id)
		}
	}
	if err := q.run(t.Context(), "cancel", f...).Err(); err != nil {
		t.Fatal(err)
	}
	steps := 0
	for more := true; more && steps < n; steps++ {
		answer, err := q.run(t.Context(), "prune").Int()
		if err != nil {
			t.Fatal(err)
		}
		more = answer == 1
	}
	if most := n/200 + 2; steps > most {
		t.Errorf("it took %d steps, want %d at most", steps, most)
	}
	if got := waiting(t, q); !slices.Equal(got, kept) {
		t.Errorf("%d wait, or in another order than they stood in", len(got))
	}
	if q.redis.Exists(t.Context(), q.key("thinned"), q.key("turning")).Val() != 0 {
		t.Error("something of it is left")
	}
}
