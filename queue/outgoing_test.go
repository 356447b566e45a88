package queue

import (
	"errors"
	"strings"
	"testing"

	"github.com/postroom/postroom/mail"
)

func TestOutgoingIsWhatAnAttemptHandsOver(t *testing.T) {
	onEachRedis(t, func(t *testing.T, q *Queue) {
		d := sitDown(t, q, activate(t, q, 1), nil)
		m := message(mail.Alert, "ada@example.net")
		m.Cc, m.Bcc = []mail.Address{{Address: "bob@example.net", Name: "Bob"}}, []mail.Address{{Address: "eve@example.net"}}
		m.Attachments = []mail.Attachment{{Name: "a.bin", Content: []byte(strings.Repeat("x", chunkBytes+1))}}
		single := enqueue(t, q, m)
		many := batch(mail.Report, 2)
		many.Message.Cc = m.Cc
		b := enqueueBatch(t, q, many)
		seen := map[string]*mail.Outgoing{}
		turn := d.turn()
		for a := turn.Next(nil); a != nil; a = turn.Next(outcomes(a, GiveUp, "dxx"[:len(a.Offered)])) {
			seen[a.MessageID] = a.Message
		}
		for _, id := range []string{single, b.IDs[0], b.IDs[1]} {
			got, err := q.Outgoing(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			want := seen[id]
			if got.ID != want.ID || !got.Date.Equal(want.Date) || got.Subject != want.Subject || got.Text != want.Text || got.From != want.From ||
				len(got.To) != 1 || got.To[0] != want.To[0] || len(got.Cc) != 1 || got.Cc[0] != want.Cc[0] || len(got.Bcc) != len(want.Bcc) || len(got.Files) != len(want.Files) {
				t.Errorf("%+v, want %+v", got, want)
			}
			if len(got.Files) == 1 && string(got.Files[0].Bytes) != string(want.Files[0].Bytes) {
				t.Error("the file is another")
			}
		}
		waits := enqueue(t, q, message(mail.Report, "ada@example.net"))
		if got, err := q.Outgoing(t.Context(), waits); err != nil || got.Subject != "Hello" {
			t.Errorf("of a message that waits: %+v, %v", got, err)
		}
	})
}

func TestOutgoingOfWhatIsNotThereSaysWhy(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	ended := enqueue(t, q, message(mail.Report, "ada@example.net"))
	drain(d)
	if _, err := q.Outgoing(t.Context(), ended); !errors.Is(err, ErrEnded) {
		t.Errorf("delivered: %v", err)
	}
	if _, err := q.Outgoing(t.Context(), "unknown"); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
	id := enqueue(t, q, message(mail.Report, "secret@example.net"))
	raw := q.redis.Get(t.Context(), q.key("m:", id)).Val()
	for name, damage := range map[string]func(){
		"content": func() { q.redis.Set(t.Context(), q.key("c:", id, ":0"), strings.Repeat("secret", 40), 0) },
		"missing": func() { q.redis.Del(t.Context(), q.key("c:", id, ":0")) },
		"record": func() {
			q.redis.Set(t.Context(), q.key("m:", id), strings.Replace(raw, `"to":`, `"to":"secret",`, 1), 0)
		},
		"newer": func() { q.redis.Set(t.Context(), q.key("m:", id), "2"+raw[1:], 0) },
	} {
		damage()
		if _, err := q.Outgoing(t.Context(), id); err == nil || strings.Contains(err.Error(), "secret") || errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
