package queue

import (
	"errors"
	"strings"
	"testing"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue/queuetest"
)

func TestAFullRedisRefusesMailAndStillSendsWhatItHas(t *testing.T) {
	r := queuetest.Start(t)
	q := open(t, r.Client)
	version := activate(t, q, 12) // more than the process has hands for without asynq
	receipt, err := q.EnqueueBatch(t.Context(), batch(mail.Report, 300))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Client.ConfigSet(t.Context(), "maxmemory", "1mb").Err(); err != nil {
		t.Fatal(err)
	}
	large := message(mail.Report, "ada@example.net")
	large.Text = strings.Repeat("x", 2*inlineBytes)
	for name, enqueue := range map[string]func() error{
		"message":       func() error { _, err := q.Enqueue(t.Context(), message(mail.Alert, "ada@example.net")); return err },
		"large message": func() error { _, err := q.Enqueue(t.Context(), large); return err },
		"batch":         func() error { _, err := q.EnqueueBatch(t.Context(), batch(mail.Report, 2)); return err },
	} {
		if err := enqueue(); !errors.Is(err, ErrFull) {
			t.Errorf("%s: %v, want ErrFull", name, err)
		}
	}
	consume(t, q, version, delivered)
	eventually(t, "what was there is delivered", func() bool {
		b, err := q.Batch(t.Context(), receipt.ID)
		return err == nil && b.Delivered == 300
	})
}
