package queue

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
)

// Whoever dies in the middle of a stream has accepted nothing: its key is free again soon, and the sweep drops what it had staged.
func TestAStreamWhoseServerDiesLeavesNothing(t *testing.T) {
	q, c := onClock(t)
	activate(t, q, 1)
	b := batch(mail.Report, 250)
	key := Idempotency("app", "report-7")
	begin := func() (*BatchStream, error) {
		s, err := q.OpenBatch(t.Context(), b.Message, key)
		for _, r := range b.Recipients {
			if err == nil {
				_, err = s.Add(t.Context(), r)
			}
		}
		return s, err
	}
	if _, err := begin(); err != nil { // and it is gone: neither Commit nor Discard
		t.Fatal(err)
	}
	if _, err := begin(); !errors.Is(err, ErrIdempotencyRunning) {
		t.Errorf("%v, want ErrIdempotencyRunning", err)
	}
	if _, err := q.EnqueueBatch(t.Context(), b, key); !errors.Is(err, ErrIdempotencyRunning) {
		t.Errorf("in one go: %v, want ErrIdempotencyRunning", err)
	}
	c.advance(keyHeld + time.Second)
	c.FastForward(keyHeld + time.Second)
	s, err := begin()
	if err != nil {
		t.Fatal(err)
	}
	receipt, err := s.Commit(t.Context())
	if err != nil || receipt.Accepted != 250 || receipt.Replayed {
		t.Fatalf("%+v, %v", receipt, err)
	}
	c.advance(stagingTime + time.Minute)
	if err := q.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	records := q.redis.Keys(t.Context(), q.key("m:*")).Val()
	batches := q.redis.Keys(t.Context(), q.key("b:*")).Val()
	if len(records) != 250 || len(batches) != 1 || !strings.HasSuffix(batches[0], receipt.ID) {
		t.Errorf("%d records and the batches %q are there, want 250 of %s", len(records), batches, receipt.ID)
	}
	if counts, err := q.Counts(t.Context()); err != nil || counts.Open[mail.Report] != 250 {
		t.Errorf("%+v, %v", counts, err)
	}
}
