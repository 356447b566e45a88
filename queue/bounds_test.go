package queue

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/throttle"
)

// refusedFor gives the fields at which something was refused for its size, and checks that it says what people need.
func refusedFor(t *testing.T, err error, size, most int) string {
	t.Helper()
	var invalid *mail.Invalid
	if !errors.As(err, &invalid) {
		return fmt.Sprint(err)
	}
	return sizeProblems(t, invalid.Problems, size, most)
}

func sizeProblems(t *testing.T, problems []mail.Problem, size, most int) string {
	t.Helper()
	var fields []string
	for _, p := range problems {
		fields = append(fields, p.Field)
		for _, part := range []string{`"message_bytes"`, fmt.Sprint(size), fmt.Sprint(most), "attach less"} {
			if !strings.Contains(p.Reason, part) {
				t.Errorf("%s: %q does not say %s", p.Field, p.Reason, part)
			}
		}
	}
	return strings.Join(fields, " ")
}

// 3,000 bytes are 4,000 in base64, in 53 lines.
func TestWhatIsLargerThanAMessageMayBeIsRefusedWhenItIsHandedIn(t *testing.T) {
	const bytes, lines = 3000, 106
	byRequest := &Upload{RequestBytes: 1 << 20, PartBytes: 1 << 20}
	for name, v := range map[string]struct {
		upload *Upload
		size   int
	}{"MIME": {nil, 4000 + lines}, "JSON": {byRequest, 4000}} {
		t.Run(name, func(t *testing.T) {
			q, _ := onClock(t)
			ref := put(t, q, "a.pdf", pattern(bytes, 1))
			half := put(t, q, "half.pdf", pattern(bytes/2, 2))
			inside := []mail.Attachment{{Name: "a.pdf", Content: pattern(bytes, 1)}}
			for more, want := range map[int]string{0: "<nil>", -1: "/attachments"} {
				most := v.size + more
				choose(t, q, ActiveProvider{Concurrency: 1, Upload: v.upload, Message: MessageBounds{Bytes: int64(most)}})
				for kind, attachments := range map[string][]mail.Attachment{"inside": inside, "stored": {{Ref: ref}}, "two": {{Ref: half}, {Name: "b.pdf", Content: pattern(bytes/2, 3)}}} {
					m := message(mail.Report, "ada@example.net")
					m.Text, m.Attachments = "", attachments
					m.HTML, most = "<p>", v.size+more+3
					choose(t, q, ActiveProvider{Concurrency: 1, Upload: v.upload, Message: MessageBounds{Bytes: int64(most)}})
					_, err := q.Enqueue(t.Context(), m)
					if got := refusedFor(t, err, v.size+3, most); got != want {
						t.Errorf("%s of %d: %s, want %s", kind, most, got, want)
					}
					b := batch(mail.Report, 2)
					b.Message.Text, b.Message.HTML, b.Message.Attachments = m.Text, m.HTML, attachments
					_, err = q.EnqueueBatch(t.Context(), b)
					if got := refusedFor(t, err, v.size+3, most); got != strings.Replace(want, "/att", "/message/att", 1) {
						t.Errorf("a batch with %s of %d: %s, want %s", kind, most, got, want)
					}
				}
			}
		})
	}
}

func TestARecipientsOwnFilesCountIntoTheSizeOfTheMessage(t *testing.T) {
	q, _ := onClock(t)
	ref := put(t, q, "own.pdf", pattern(1500, 1))
	choose(t, q, ActiveProvider{Concurrency: 1, Upload: &Upload{RequestBytes: 1 << 20, PartBytes: 1 << 20}, Message: MessageBounds{Bytes: 3999}})
	m := batch(mail.Report, 1).Message
	// What a template comes to nobody knows yet.
	m.Text, m.HTML, m.Attachments = "", "{{.name}} {{if .long}}"+strings.Repeat("long ", 1000)+"{{end}}", []mail.Attachment{{Name: "a.pdf", Content: pattern(1500, 2)}}
	s, err := q.OpenBatch(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	vars := map[string]any{"name": "Ada", "long": false}
	for i, r := range []mail.Recipient{
		{To: []mail.Address{{Address: "ada@example.net"}}, Variables: vars},
		{To: []mail.Address{{Address: "bob@example.net"}}, Variables: vars, Attachments: []mail.Attachment{{Ref: ref}}},
	} {
		problems, err := s.Add(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := sizeProblems(t, problems, 4000, 3999), []string{"", "/recipients/1/attachments"}[i]; got != want {
			t.Errorf("recipient %d: %q, want %q", i, got, want)
		}
	}
	if r, err := s.Commit(t.Context()); err != nil || r.Accepted != 1 || len(r.Refused) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestWhatIsBelowOneBoundsNoMessage(t *testing.T) {
	for _, most := range []int{0, -1} {
		q, _ := onClock(t)
		d := sitDown(t, q, choose(t, q, ActiveProvider{Concurrency: 1, Limits: limit(throttle.Recipients, 3), Message: MessageBounds{Recipients: most, Bytes: int64(most)}}), nil)
		m := to(mail.Report, "ada@example.net", "bob@example.net", "eve@example.net")
		m.Attachments = []mail.Attachment{{Name: "a.pdf", Content: pattern(100_000, 1)}}
		enqueue(t, q, m)
		if a := begin(t, d.turn(), nil); len(a.Offered) != 3 {
			t.Errorf("%v are offered", a.Offered)
		}
	}
}

func TestBoundsThatChangeBindTheNextAttempt(t *testing.T) {
	q, _ := onClock(t)
	bounds := MessageBounds{Recipients: 500, Bytes: 35 << 20}
	version := choose(t, q, ActiveProvider{Concurrency: 1, Message: bounds})
	d := sitDown(t, q, version, nil)
	enqueueBatch(t, q, batch(mail.Report, 2))
	turn := d.turn()
	a := begin(t, turn, nil)
	if a.Bounds != bounds {
		t.Errorf("%+v bind the first attempt, want %+v", a.Bounds, bounds)
	}
	bounds = MessageBounds{Recipients: 2, Bytes: -1}
	if v := choose(t, q, ActiveProvider{Concurrency: 1, Message: bounds}); v != version {
		t.Errorf("version %s, want %s", v, version)
	}
	if a = begin(t, turn, delivered(a)); a.Bounds != bounds {
		t.Errorf("%+v bind the second attempt, want %+v", a.Bounds, bounds)
	}
}

// Of a limit of recipients a message takes as many as one attempt offers it to, so that one with more recipients than the limit
// allows in all can go in several.
func TestAnAttemptTakesTheRecipientsThatItOffers(t *testing.T) {
	q, c := onClock(t)
	p := ActiveProvider{Concurrency: 1, Limits: limit(throttle.Recipients, 2), Message: MessageBounds{Recipients: 2}}
	d := sitDown(t, q, choose(t, q, p), nil)
	id := enqueue(t, q, to(mail.Report, "ada@example.net", "bob@example.net", "eve@example.net"))
	turn := d.turn()
	a := begin(t, turn, nil)
	s := &Settlement{Attempt: a, Verdict: Back, Class: mail.Temporary, Outcomes: []mail.Outcome{{Class: mail.Delivered, Step: "body"}, {Class: mail.Delivered, Step: "body"},
		{Scope: mail.ScopeRecipient, Cause: mail.TooManyRecipients, Step: "rcpt"}}}
	answer := d.ask(turn, s)
	if answer.what != "limited" || answer.limit != string(throttle.Recipients) || answer.look < time.Minute {
		t.Fatalf("%+v", answer)
	}
	c.advance(answer.look)
	turn = d.look()
	if a = begin(t, turn, nil); len(a.Offered) != 1 || a.Offered[0] != 2 || a.Counted != 0 {
		t.Fatalf("%+v", a)
	}
	end(turn, delivered(a))
	if s := status(t, q, id); s.State != Delivered {
		t.Errorf("%+v", s)
	}
}
