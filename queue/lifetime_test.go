package queue

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue/queuetest"
)

// booksAreClean checks that nothing waits anywhere, and nothing is out.
func booksAreClean(t *testing.T, q *Queue) {
	t.Helper()
	for _, pattern := range []string{"l:*", "r:*", "s:*", "u:*", "due", "staged", "cancelling", "keys"} {
		keys, err := q.redis.Keys(context.Background(), q.key(pattern)).Result()
		if err != nil || len(keys) > 0 {
			t.Errorf("left over: %v, %v", keys, err)
		}
	}
	counts, err := q.Counts(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for kind, n := range counts.Open {
		if n != 0 {
			t.Errorf("%d messages of kind %s are counted as open", n, kind)
		}
	}
}

func TestScheduledMailIsNewMailWhenItsTimeComesAndNotBefore(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	later := message(mail.Report, "ada@example.net")
	later.SendAt = c.now.Add(time.Hour)
	single := enqueue(t, q, later)
	many := batch(mail.Report, 2)
	many.Message.SendAt = c.now.Add(2 * time.Hour)
	b := enqueueBatch(t, q, many)
	if s := status(t, q, b.IDs[0]); s.State != Queued || !s.Due.Equal(many.Message.SendAt.Truncate(time.Millisecond)) {
		t.Errorf("a scheduled message of a batch: %+v", s)
	}

	c.advance(time.Hour - time.Millisecond)
	if turns := d.turns(); len(turns) != 0 {
		t.Fatal("work is handed out before its time")
	}
	c.advance(time.Millisecond)
	turn := d.turn()
	a := turn.Next(nil)
	if a == nil || a.MessageID != single || a.Counted != 0 || !a.Since.Equal(later.SendAt.Truncate(time.Millisecond)) && !a.Since.Equal(later.SendAt.UTC()) {
		t.Fatalf("at its time: %+v", a)
	}
	if turn.Next(delivered(a)) != nil {
		t.Fatal("the batch began an hour early")
	}
	c.advance(time.Hour)
	// What was waiting before goes first: scheduled mail is new mail, not mail that is due again.
	waits := enqueueBatch(t, q, batch(mail.Report, 1))
	turn = d.turn()
	var order []string
	for a := turn.Next(nil); a != nil; a = turn.Next(delivered(a)) {
		order = append(order, a.MessageID)
	}
	slices.Sort(order)
	want := slices.Sorted(slices.Values(append(slices.Clone(b.IDs), waits.IDs...)))
	if !slices.Equal(order, want) {
		t.Errorf("sent %v, want %v", order, want)
	}
	booksAreClean(t, q)
	noContentIsLeft(t, q)
}

func TestDispatcherWakesForScheduledMail(t *testing.T) {
	q := open(t, queuetest.Start(t).Client)
	now, err := q.redis.Time(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	later := message(mail.Report, "ada@example.net")
	later.SendAt = now.Add(200 * time.Millisecond).Truncate(time.Millisecond)
	many := batch(mail.Subscription, 3)
	many.Message.SendAt = later.SendAt
	began := make(chan *Attempt, 10)
	consume(t, q, activate(t, q, 3), func(a *Attempt) *Settlement {
		began <- a
		return delivered(a)
	})
	enqueue(t, q, later)
	enqueueBatch(t, q, many)
	for range 4 {
		if a := <-began; a.Now.Before(later.SendAt) {
			t.Errorf("an attempt began %v early", later.SendAt.Sub(a.Now))
		}
	}
}

func TestExpiredMailIsNeverHandedOver(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	single := message(mail.Report, "ada@example.net")
	single.ExpiresAt = c.now.Add(time.Minute)
	one := enqueue(t, q, single)
	many := batch(mail.Subscription, 3)
	many.Message.ExpiresAt = c.now.Add(time.Hour)
	b := enqueueBatch(t, q, many)
	stays := enqueue(t, q, message(mail.Subscription, "eve@example.net"))

	c.advance(time.Minute)
	turn := d.turn()
	a := turn.Next(nil)
	if a == nil || a.MessageID == one {
		t.Fatalf("began %+v; want another than the one that has expired", a)
	}
	if s := status(t, q, one); s.State != Expired || s.Finished.IsZero() || s.Attempts != 0 {
		t.Errorf("expired: %+v", s)
	}
	// One that was tried once expires all the same.
	again := outcomes(a, Again, "t")
	again.Delay = 10 * time.Minute
	end(turn, again)
	c.advance(time.Hour)
	for _, turn := range d.turns() {
		for a := turn.Next(nil); a != nil; a = turn.Next(delivered(a)) {
			if slices.Contains(b.IDs, a.MessageID) {
				t.Errorf("%s was offered after it expired", a.MessageID)
			}
		}
	}
	s, err := q.Batch(t.Context(), b.ID)
	if err != nil || s.Open != 0 || s.Expired == 0 || s.Expired+s.Delivered != 3 {
		t.Errorf("batch: %+v, %v", s, err)
	}
	if s := status(t, q, stays); s.State != Delivered {
		t.Errorf("what never expires is %s", s.State)
	}
	booksAreClean(t, q)
	noContentIsLeft(t, q)
	if got := metric(t, q, "postroom_messages_finished_total", "report", "expired"); got != 1 {
		t.Errorf("%v reports are counted as expired, want 1", got)
	}
	if got := metric(t, q, "postroom_messages_finished_total", "subscription", "expired"); got != float64(s.Expired) {
		t.Errorf("%v subscriptions are counted as expired, want %d", got, s.Expired)
	}
}

func TestCancelMessage(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	cancel := func(id string, want error) {
		t.Helper()
		if err := q.CancelMessage(t.Context(), id); !errors.Is(err, want) {
			t.Errorf("cancel: %v, want %v", err, want)
		}
	}
	cancel("01ARZ3NDEKTSV4RRFFQ69G5FAV", ErrNotFound)

	before := enqueue(t, q, message(mail.Report, "ada@example.net"))
	cancel(before, nil)
	cancel(before, nil) // it is what was asked for
	if s := status(t, q, before); s.State != Cancelled || s.Finished.IsZero() {
		t.Errorf("cancelled before: %+v", s)
	}
	scheduled := message(mail.Report, "ada@example.net")
	scheduled.SendAt = c.now.Add(time.Hour)
	later := enqueue(t, q, scheduled)
	cancel(later, nil)

	during := enqueue(t, q, message(mail.Report, "ada@example.net"))
	turn := d.turn()
	a := turn.Next(nil)
	if a == nil || a.MessageID != during {
		t.Fatalf("began %+v, want %s", a, during)
	}
	cancel(during, ErrTooLate)
	turn.Next(delivered(a))
	cancel(during, ErrTooLate)

	failed := enqueue(t, q, message(mail.Report, "ada@example.net"))
	turn = d.turn()
	turn.Next(outcomes(turn.Next(nil), GiveUp, "x"))
	cancel(failed, ErrTooLate)

	retried := enqueue(t, q, message(mail.Report, "ada@example.net"))
	turn = d.turn()
	again := outcomes(turn.Next(nil), Again, "t")
	again.Delay = time.Minute
	turn.Next(again)
	cancel(retried, nil)

	c.advance(2 * time.Hour)
	for _, turn := range d.turns() {
		if a := turn.Next(nil); a != nil {
			t.Errorf("%s began after it was cancelled", a.MessageID)
		}
	}
	booksAreClean(t, q)
	counts, err := q.Counts(t.Context())
	if err != nil || counts.Failed[mail.Report] != 1 {
		t.Errorf("counts: %+v, %v", counts, err)
	}
	if got := metric(t, q, "postroom_messages_finished_total", "report", "cancelled"); got != 3 {
		t.Errorf("%v are counted as cancelled, want 3", got)
	}
}

func TestCancelOfAMessageLeavesItsBatch(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	b := enqueueBatch(t, q, batch(mail.Report, 3))
	if err := q.CancelMessage(t.Context(), b.IDs[1]); err != nil {
		t.Fatal(err)
	}
	turn, sent := d.turn(), []string{}
	for a := turn.Next(nil); a != nil; a = turn.Next(delivered(a)) {
		sent = append(sent, a.MessageID)
	}
	if !slices.Equal(sent, []string{b.IDs[0], b.IDs[2]}) {
		t.Errorf("sent %v of %v", sent, b.IDs)
	}
	s, err := q.Batch(t.Context(), b.ID)
	if err != nil || s.Cancelled != 1 || s.Delivered != 2 || s.Open != 0 || s.Cancel {
		t.Errorf("batch: %+v, %v", s, err)
	}
	booksAreClean(t, q)
	noContentIsLeft(t, q)
}

func TestCancelBatchWhileItDrains(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, activate(t, q, 2), nil)
	b := enqueueBatch(t, q, batch(mail.Report, 500))
	turns := d.turns()
	sending, retried := turns[0].Next(nil), turns[1].Next(nil)
	again := outcomes(retried, Again, "t")
	again.Delay = time.Minute
	open := turns[1].Next(again)

	// The first step sets the flag, and whoever asked dies: the lane still has entries.
	if err := q.run(t.Context(), "cancel_batch", b.ID, 1000).Err(); err != nil {
		t.Fatal(err)
	}
	if a := turns[1].Next(delivered(open)); a != nil {
		t.Fatalf("%s began after the flag", a.MessageID)
	}
	if err := q.tidy(t.Context()); err != nil { // the sweep goes on
		t.Fatal(err)
	}
	s, err := q.Batch(t.Context(), b.ID)
	if err != nil || !s.Cancel || s.Open != 2 || s.Delivered != 1 || s.Cancelled != 497 {
		t.Errorf("while one is sent and one waits for its retry: %+v, %v", s, err)
	}
	back := outcomes(sending, Back, "h")
	if a := turns[0].Next(back); a != nil {
		t.Errorf("%s began after the flag", a.MessageID)
	}
	c.advance(time.Minute)
	for _, turn := range d.turns() {
		if a := turn.Next(nil); a != nil {
			t.Errorf("%s began after the flag", a.MessageID)
		}
	}
	if s, err = q.Batch(t.Context(), b.ID); err != nil || s.Open != 0 || s.Delivered != 1 || s.Cancelled != 499 {
		t.Errorf("in the end: %+v, %v", s, err)
	}
	if err := q.CancelBatch(t.Context(), b.ID); err != nil {
		t.Errorf("again: %v", err)
	}
	booksAreClean(t, q)
	noContentIsLeft(t, q)
	if got := metric(t, q, "postroom_messages_finished_total", "report", "cancelled"); got < 299 {
		t.Errorf("%v are counted as cancelled", got)
	}
}

func TestCancelOfAScheduledBatch(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, activate(t, q, 2), nil)
	many := batch(mail.Subscription, 250)
	many.Message.SendAt = c.now.Add(time.Hour)
	b := enqueueBatch(t, q, many)
	if err := q.CancelBatch(t.Context(), "01ARZ3NDEKTSV4RRFFQ69G5FAV"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a batch that never was: %v", err)
	}
	if err := q.CancelBatch(t.Context(), b.ID); err != nil {
		t.Fatal(err)
	}
	booksAreClean(t, q)
	noContentIsLeft(t, q)
	c.advance(time.Hour)
	if turns := d.turns(); len(turns) > 0 {
		t.Error("a cancelled batch makes work")
	}
	if s, err := q.Batch(t.Context(), b.ID); err != nil || s.Cancelled != 250 || s.Open != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}
