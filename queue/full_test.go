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
		if err := enqueue(); !errors.Is(err, ErrRedisFull) || !errors.Is(err, ErrFull) {
			t.Errorf("%s: %v, want ErrRedisFull", name, err)
		}
	}
	consume(t, q, version, delivered)
	eventually(t, "what was there is delivered", func() bool {
		b, err := q.Batch(t.Context(), receipt.ID)
		return err == nil && b.Delivered == 300
	})
}

func TestABacklogThatIsFullRefusesMailAndTakesAlertsALittleLonger(t *testing.T) {
	r := queuetest.Start(t)
	q := open(t, r.Client)
	q.options.BacklogMax = 20
	version := activate(t, q, 2)
	enqueue := func(kind mail.Kind) error {
		_, err := q.Enqueue(t.Context(), message(kind, "ada@example.net"))
		return err
	}
	commit := func(recipients int) error {
		_, err := q.EnqueueBatch(t.Context(), batch(mail.Report, recipients))
		return err
	}
	if err := commit(21); !errors.Is(err, ErrBacklogFull) {
		t.Fatalf("a batch of 21 where 20 may wait: %v", err)
	}
	if err := commit(15); err != nil {
		t.Fatal(err)
	}
	// Both find room while they are staged, and only one has it.
	first, second := stagedBatch(t, q, 5), stagedBatch(t, q, 5)
	if _, err := first.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Commit(t.Context()); !errors.Is(err, ErrBacklogFull) {
		t.Errorf("the second of two batches: %v", err)
	}
	second.Discard(t.Context())
	large := message(mail.Report, "ada@example.net")
	large.Text = strings.Repeat("x", 2*inlineBytes)
	_, err := q.Enqueue(t.Context(), large)
	for name, err := range map[string]error{"batch": commit(1), "report": enqueue(mail.Report), "large report": err, "subscription": enqueue(mail.Subscription)} {
		if !errors.Is(err, ErrBacklogFull) {
			t.Errorf("%s beyond the bound: %v", name, err)
		}
	}
	for range 2 {
		if err := enqueue(mail.Alert); err != nil {
			t.Errorf("an alert in the tenth that is kept for alerts: %v", err)
		}
	}
	if err := enqueue(mail.Alert); !errors.Is(err, ErrBacklogFull) {
		t.Errorf("an alert beyond that: %v", err)
	}
	if staged := r.Client.ZCard(t.Context(), q.key("staged")).Val(); staged != 0 {
		t.Errorf("%d batches that were refused are still staged", staged)
	}
	consume(t, q, version, delivered)
	eventually(t, "there is room again", func() bool { return commit(20) == nil })
}

// stagedBatch gives a batch of n recipients that are all in Redis, and not committed.
func stagedBatch(t *testing.T, q *Queue, n int) *BatchStream {
	t.Helper()
	b := batch(mail.Report, n)
	s, err := q.OpenBatch(t.Context(), b.Message)
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range b.Recipients {
		if _, err := s.Add(t.Context(), to); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}
