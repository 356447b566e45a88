package queue

import (
	"fmt"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
)

// However many keys have work, Redis is never busy with one run of dispatch for long.
func TestADispatchLooksAtSomeKeysAtATime(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, choose(t, q, ActiveProvider{Keying: ByMailbox, Concurrency: 1}), nil)
	if _, err := q.Pause(t.Context(), Everything, time.Hour, "asked", Author{Name: "ada"}); err != nil {
		t.Fatal(err)
	}
	const mailboxes, most = 250, 100
	for i := range mailboxes {
		m := message(mail.Report, "ada@example.net")
		m.From.Address = fmt.Sprintf("box%d@example.com", i)
		enqueue(t, q, m)
	}
	for range mailboxes/most + 1 {
		if len(d.flagged()) > 0 {
			t.Fatal("turns were handed out in spite of the pause")
		}
	}
	if _, err := q.Resume(t.Context(), Everything, Author{Name: "ops"}); err != nil {
		t.Fatal(err)
	}
	given, more := 0, true
	for more {
		h, err := q.handOut(t.Context(), "")
		if err != nil || len(h.turns) == 0 || len(h.turns) > most {
			t.Fatalf("%d turns, %v", len(h.turns), err)
		}
		given, more = given+len(h.turns), h.wait == 0
	}
	if given != mailboxes {
		t.Errorf("%d turns were handed out, want %d", given, mailboxes)
	}
}
