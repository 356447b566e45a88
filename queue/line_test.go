package queue

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
)

func TestWhoWaitsTooLongForTheLineIsHandedBackWithoutATrace(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	b := enqueueBatch(t, q, batch(mail.Report, 2))
	turn := d.turn()
	other := turn.hand()
	first, second := turn.Next(nil), other.Next(nil)
	if first == nil || second == nil {
		t.Fatal("two hands of a unit did not both begin")
	}
	leave, err := first.Line(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Line(t.Context()); !errors.Is(err, ErrLineBusy) {
		t.Fatalf("%v, want %v", err, ErrLineBusy)
	}
	if other.Next(&Settlement{Attempt: second, Verdict: Back, Class: mail.Temporary}) != nil {
		t.Error("a hand for which there is no place goes on")
	}
	if s := status(t, q, b.IDs[1]); s.State != Queued || s.Attempts != 0 || len(s.History) != 0 {
		t.Errorf("the message that was handed back: %+v", s)
	}
	leave(nil)
	a := turn.Next(delivered(first))
	if a == nil || a.MessageID != b.IDs[1] {
		t.Fatalf("next is %+v, want the one that was handed back", a)
	}
	if _, err := a.Line(t.Context()); err != nil {
		t.Errorf("nobody has the line: %v", err)
	}
	end(turn, delivered(a))
}

func TestACallThatFailsPutsBackWhatItTook(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	b := enqueueBatch(t, q, batch(mail.Report, 3))
	turn := d.turn()
	of, aside := q.key("b:", b.ID), q.key("aside")
	q.redis.Rename(t.Context(), of, aside)
	q.redis.Set(t.Context(), of, "no hash", 0)
	args := []any{turn.key, turn.unit, turn.id, turn.run, d.lease.Load().worker, token(12)}
	for len(args) < nextFields {
		args = append(args, "")
	}
	if answer, err := d.next(args, d.settings.current()); err == nil {
		t.Fatalf("%+v, want an error", answer)
	}
	q.redis.Rename(t.Context(), aside, of)
	var sent []string
	for a := turn.Next(nil); a != nil; a = turn.Next(delivered(a)) {
		sent = append(sent, a.MessageID)
	}
	if !slices.Equal(sent, b.IDs) {
		t.Errorf("%v were sent, want %v", sent, b.IDs)
	}
}

func TestWhoWaitsBehindARefusalIsHandedBackUntried(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	b := enqueueBatch(t, q, batch(mail.Report, 3))
	turn := d.turn()
	other := turn.hand()
	first, second := begin(t, turn, nil), begin(t, other, nil)
	leave, err := first.Line(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	refused := holding(first, "c", mail.ScopeProvider)
	leave(refused)
	if _, err := second.Line(t.Context()); !errors.Is(err, ErrLineRefused) {
		t.Fatalf("%v, want %v", err, ErrLineRefused)
	}
	turn.Next(refused)
	if other.Next(&Settlement{Attempt: second, Verdict: Back, Class: mail.Temporary}) != nil {
		t.Error("something began in spite of the hold")
	}
	if s := status(t, q, b.IDs[1]); s.State != Queued || s.Attempts != 0 || len(s.History) != 0 {
		t.Errorf("the message that was handed back: %+v", s)
	}
	c.advance(10 * time.Second)
	_, a := only(t, begun(d.turns()))
	if leave, err := a.Line(t.Context()); err != nil {
		t.Errorf("after the hold: %v", err)
	} else {
		leave(delivered(a))
	}
}
