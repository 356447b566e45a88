package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
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
	if err := first.Await(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := second.Await(t.Context(), nil); !errors.Is(err, ErrLineBusy) {
		t.Fatalf("%v, want %v", err, ErrLineBusy)
	}
	if other.Next(&Settlement{Attempt: second, Verdict: Back, Class: mail.Temporary}) != nil {
		t.Error("a hand for which there is no place goes on")
	}
	if s := status(t, q, b.IDs[1]); s.State != Queued || s.Attempts != 0 || len(s.History) != 0 {
		t.Errorf("the message that was handed back: %+v", s)
	}
	first.Leave(nil)
	a := turn.Next(delivered(first))
	if a == nil || a.MessageID != b.IDs[1] {
		t.Fatalf("next is %+v, want the one that was handed back", a)
	}
	if err := a.Await(t.Context(), nil); err != nil {
		t.Errorf("nobody has the line: %v", err)
	}
	end(turn, delivered(a))
}

func TestWhoHasSentSomethingWaitsLonger(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	enqueueBatch(t, q, batch(mail.Report, 2))
	turn := d.turn()
	first, second := begin(t, turn, nil), begin(t, turn.hand(), nil)
	if err := first.Await(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	asked := 0
	err := second.Await(t.Context(), func() bool {
		if asked++; asked == 3 {
			first.Leave(nil)
		}
		return true
	})
	if err != nil || asked != 3 {
		t.Errorf("%v, after %d times its patience", err, asked)
	}
}

func TestALineIsInOrderAndGivesWhatIsOfferedToTheOneAhead(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	enqueueBatch(t, q, batch(mail.Report, 4))
	turn := d.turn()
	var all []*Attempt
	for _, hand := range []*Turn{turn, turn.hand(), turn.hand(), turn.hand()} {
		all = append(all, begin(t, hand, nil))
	}
	first, second, third, last := all[0], all[1], all[2], all[3]
	if err := first.Await(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	second.Offer("second")
	third.Offer("third")
	last.Offer("last")
	if first.Behind() != "second" || second.Behind() != "third" || last.Behind() != nil {
		t.Errorf("behind are %v, %v, %v", first.Behind(), second.Behind(), last.Behind())
	}
	second.Leave(nil)
	if first.Behind() != "third" {
		t.Errorf("behind the first is %v, want the third, as the second has left", first.Behind())
	}
	ahead, gone := make(chan error, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { gone <- third.Await(ctx, nil) }()
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that of the context", err)
	}
	go func() { ahead <- last.Await(t.Context(), nil) }()
	first.Leave(nil)
	if err := <-ahead; err != nil {
		t.Errorf("nobody is ahead of the last: %v", err)
	}
	if second.Offer("second"); last.Behind() != "second" {
		t.Error("who comes again does not stand last")
	}
	last.Leave(nil)
	if err := second.Await(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

func TestAlertsStandBeforeAllButWhatMayHaveBeenSentInPart(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	enqueueBatch(t, q, batch(mail.Report, 4))
	turn := d.turn()
	var all []*Attempt
	for _, hand := range []*Turn{turn, turn.hand(), turn.hand(), turn.hand()} {
		a := begin(t, hand, nil)
		a.Offer(a.MessageID)
		all = append(all, a)
	}
	var alerts []*Attempt
	for range 2 {
		enqueue(t, q, message(mail.Alert, "ops@example.net"))
		alerts = append(alerts, begin(t, turn.hand(), nil))
	}
	if all[0].Behind() != all[1].MessageID {
		t.Fatal("the second is not behind the first")
	}
	for _, a := range alerts {
		a.Offer(a.MessageID)
	}
	for i, want := range []*Attempt{all[0], all[1], alerts[0], alerts[1], all[2], all[3]} {
		if err := want.Await(t.Context(), nil); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		want.Leave(nil)
	}
}

// However urgent, nobody stands before the one that is with the provider.
func TestAnAlertStandsBehindTheFirst(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	enqueueBatch(t, q, batch(mail.Report, 2))
	turn := d.turn()
	first := begin(t, turn, nil)
	if err := first.Await(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	enqueue(t, q, message(mail.Alert, "ops@example.net"))
	alert := begin(t, turn.hand(), nil)
	if alert.Offer("alert"); first.Behind() != "alert" {
		t.Errorf("behind the first is %v", first.Behind())
	}
}

// Of what is large one message at a time is in memory for each unit.
func TestWhatIsLargeIsReadWhenItIsItsTurn(t *testing.T) {
	for _, text := range []int{aheadBytes, aheadBytes + 1024} {
		for name, hand := range map[string]func(q *Queue){
			"of their own": func(q *Queue) {
				for range 2 {
					m := message(mail.Report, "ada@example.net")
					m.Attachments = []mail.Attachment{{Name: "zeros.bin", Content: make([]byte, text-1024)}} // and what stands around it
					enqueue(t, q, m)
				}
			},
			"filled in": func(q *Queue) {
				b := batch(mail.Report, 2)
				b.Message.Text = strings.Repeat("x", text)
				enqueueBatch(t, q, b)
			},
		} {
			t.Run(fmt.Sprintf("%s, %d", name, text), func(t *testing.T) {
				q, _ := onClock(t)
				d := sitDown(t, q, activate(t, q, 1), nil)
				hand(q)
				turn := d.turn()
				begin(t, turn, nil)
				if second := turn.hand().Next(nil); (second == nil) != (text > aheadBytes) {
					t.Errorf("the next was begun: %v", second != nil)
				}
			})
		}
	}
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
	if err := first.Await(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	refused := holding(first, "c", mail.ScopeProvider)
	first.Leave(refused)
	if err := second.Await(t.Context(), nil); !errors.Is(err, ErrLineRefused) {
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
	if err := a.Await(t.Context(), nil); err != nil {
		t.Errorf("after the hold: %v", err)
	}
	a.Leave(delivered(a))
}
