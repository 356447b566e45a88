package queue

import (
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/throttle"
)

// Whether everything is silent any more is not left to a mailbox that waits for room in its own limits.
func TestWhoeverWaitsForRoomLeavesTheProbeToOthers(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, choose(t, q, ActiveProvider{Keying: ByMailbox, Concurrency: 1, Limits: limit(throttle.Recipients, 2)}), nil)
	from := func(sender string, kind mail.Kind, recipients ...string) string {
		m := to(kind, recipients...)
		m.From.Address = sender
		return enqueue(t, q, m)
	}
	ready := func() []*Turn { return append(d.lookAll(c), d.lookAll(c)...) }
	from("a@example.com", mail.Alert, "one@example.net")
	turn, a := only(t, begun(ready()))
	end(turn, delivered(a))
	from("b@example.com", mail.Report, "one@example.net")
	turn, a = only(t, begun(ready()))
	end(turn, holding(a, "c", mail.ScopeProvider))
	from("a@example.com", mail.Alert, "one@example.net", "two@example.net") // comes first, and has room for one
	d.flagged()                                                             // what was flagged is held
	c.advance(10 * time.Second)
	h, err := q.handOut(t.Context(), throttle.Provider) // the look at the end of the hold
	if err != nil || len(h.turns) != 1 {
		t.Fatalf("%+v, %v", h, err)
	}
	if n := len(begun([]*Turn{d.run(h.turns[0])})); n != 0 {
		t.Fatal("a message began that there is no room for")
	}
	turn, a = only(t, begun(d.flagged()))
	if a.Message.From.Address != "b@example.com" {
		t.Errorf("%s began", a.Message.From.Address)
	}
	end(turn, delivered(a))
}
