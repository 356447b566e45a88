package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue/queuetest"
)

// onEachRedis runs a test against a real Redis and against the embedded one of the demo.
func onEachRedis(t *testing.T, test func(t *testing.T, q *Queue)) {
	t.Run("redis", func(t *testing.T) { test(t, open(t, queuetest.Start(t).Client)) })
	t.Run("miniredis", func(t *testing.T) {
		client := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})
		t.Cleanup(func() { _ = client.Close() })
		test(t, open(t, client))
	})
}

func open(t *testing.T, client redis.UniversalClient) *Queue {
	t.Helper()
	q, err := Open(t.Context(), Options{Client: client})
	if err != nil {
		t.Fatal(err)
	}
	q.recent.lasts = 0 // tests move the time by hand
	return q
}

// declare makes settings the active provider's.
func declare(t *testing.T, q *Queue, p ActiveProvider, salt, fingerprint string) (string, error) {
	t.Helper()
	return q.DeclareProvider(t.Context(), &p, salt, fingerprint, "here")
}

func clearProvider(t *testing.T, q *Queue) error {
	t.Helper()
	_, err := q.DeclareProvider(t.Context(), nil, "", "", "here")
	return err
}

// loads is the Load of a process that has the settings of one version.
func loads(version string) func(context.Context, *Provider) (Loaded, error) {
	return func(_ context.Context, p *Provider) (Loaded, error) {
		if p.Version != version && p.Version != "" {
			return Loaded{}, errors.New("other settings")
		}
		return Loaded{}, nil
	}
}

// activate makes an account of the given concurrency the active provider.
func activate(t *testing.T, q *Queue, concurrency int) string {
	t.Helper()
	version, err := declare(t, q, ActiveProvider{Kind: "smtp", Keying: ByAccount, Account: "mail.example.com:587", Concurrency: concurrency}, "salt", "fingerprint")
	if err != nil {
		t.Fatal(err)
	}
	return version
}

func message(kind mail.Kind, to string) mail.Message {
	return mail.Message{Kind: kind, From: mail.Address{Address: "reports@example.com"}, To: []mail.Address{{Address: to}}, Subject: "Hello", Text: "Text for " + to}
}

func batch(kind mail.Kind, n int) mail.Batch {
	b := mail.Batch{Message: mail.Message{Kind: kind, From: mail.Address{Address: "reports@example.com"}, Subject: "Hello {{.name}}", Text: "Dear {{.name}}"}}
	for i := range n {
		b.Recipients = append(b.Recipients, mail.Recipient{To: []mail.Address{{Address: fmt.Sprintf("r%d@example.net", i)}}, Variables: map[string]any{"name": fmt.Sprint("N", i)}})
	}
	return b
}

// delivered settles an attempt as delivered to everybody offered.
func delivered(a *Attempt) *Settlement {
	outcomes := make([]mail.Outcome, len(a.Offered))
	for i := range outcomes {
		outcomes[i] = mail.Outcome{Class: mail.Delivered, Code: 250, Reply: "250 2.0.0 Ok: queued as 4XyzLQ2hb9z1Kd7m"}
	}
	return &Settlement{Attempt: a, Verdict: Done, Class: mail.Delivered, Counted: true, Outcomes: outcomes}
}

// consume runs a consumer whose handler settles each attempt by settle, until the test ends.
func consume(t *testing.T, q *Queue, version string, settle func(*Attempt) *Settlement) *Consumer {
	t.Helper()
	c := q.NewConsumer(ConsumerOptions{Load: loads(version), CheckInterval: 5 * time.Millisecond, Grace: time.Second,
		Handle: func(ctx context.Context, turn *Turn) {
			var last *Settlement
			for a := turn.Next(nil); a != nil; a = turn.Next(last) {
				if err := a.Await(ctx, nil); err != nil {
					last = &Settlement{Attempt: a, Verdict: Back, Class: mail.Temporary}
					continue
				}
				last = settle(a)
				a.Leave(last)
			}
		}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("consumer: %v", err)
		}
	})
	return c
}

// eventually waits until what is asked for holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func TestMessageGoesFromEnqueueToDelivered(t *testing.T) {
	onEachRedis(t, func(t *testing.T, q *Queue) {
		version := activate(t, q, 3)
		m := message(mail.Report, "ada@example.net")
		m.Cc = []mail.Address{{Address: "bob@example.net"}}
		m.Metadata = map[string]string{"run": "7"}
		m.Attachments = []mail.Attachment{{Name: "a.bin", Content: []byte(strings.Repeat("x", 700_000))}}
		receipt, err := q.Enqueue(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		s, err := q.Message(t.Context(), receipt.ID)
		if err != nil || s.State != Queued || len(s.Recipients) != 2 || s.Recipients[1].Address != "bob@example.net" {
			t.Fatalf("queued: %+v, %v", s, err)
		}
		var seen *mail.Outgoing
		consume(t, q, version, func(a *Attempt) *Settlement {
			seen = a.Message
			return delivered(a)
		})
		eventually(t, "the message is delivered", func() bool {
			s, err = q.Message(t.Context(), receipt.ID)
			return err == nil && s.State == Delivered
		})
		if seen.ID != receipt.ID || len(seen.Cc) != 1 || len(seen.Files) != 1 || len(seen.Files[0].Bytes) != 700_000 || !seen.Date.Equal(s.Accepted) {
			t.Errorf("the attempt had %+v", seen)
		}
		if s.Attempts != 1 || s.Metadata["run"] != "7" || len(s.Recipients) != 2 || s.Recipients[0].State != "delivered" ||
			len(s.History) != 1 || s.History[0].Outcomes[0].Class != "delivered" || !strings.Contains(s.History[0].Outcomes[0].Reply, "4Xyz") {
			t.Errorf("status: %+v", s)
		}
		noContentIsLeft(t, q)
	})
}

func noContentIsLeft(t *testing.T, q *Queue) {
	t.Helper()
	counts, err := q.Counts(t.Context())
	if err != nil || counts.ContentBytes != 0 {
		t.Errorf("content of %d bytes is still counted, %v", counts.ContentBytes, err)
	}
	if keys, _ := q.redis.Keys(t.Context(), q.key("c:*")).Result(); len(keys) > 0 {
		t.Errorf("content is left: %d keys", len(keys))
	}
}

func TestBatchGoesOutOnceEach(t *testing.T) {
	onEachRedis(t, func(t *testing.T, q *Queue) {
		version := activate(t, q, 5)
		b := batch(mail.Subscription, 450)
		b.Recipients[7].To[0].Address = "nobody"
		receipt, err := q.EnqueueBatch(t.Context(), b)
		if err != nil || receipt.Accepted != 449 || len(receipt.Refused) != 1 || receipt.IDs[7] != "" {
			t.Fatalf("receipt %+v, %v", receipt, err)
		}
		var mu sync.Mutex
		subjects := map[string]int{}
		consume(t, q, version, func(a *Attempt) *Settlement {
			mu.Lock()
			subjects[a.Message.Subject]++
			mu.Unlock()
			return delivered(a)
		})
		eventually(t, "the batch is delivered", func() bool {
			s, err := q.Batch(t.Context(), receipt.ID)
			return err == nil && s.Delivered == 449 && s.Open == 0
		})
		mu.Lock()
		defer mu.Unlock()
		if len(subjects) != 449 {
			t.Errorf("%d different subjects, want 449", len(subjects))
		}
		for s, n := range subjects {
			if n != 1 {
				t.Errorf("%q was sent %d times", s, n)
			}
		}
		noContentIsLeft(t, q)
	})
}

func TestOrder(t *testing.T) {
	onEachRedis(t, func(t *testing.T, q *Queue) {
		version := activate(t, q, 1)
		enqueue := func(b mail.Batch) {
			if _, err := q.EnqueueBatch(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
		named := func(kind mail.Kind, subject string, n int) mail.Batch {
			b := batch(kind, n)
			b.Message.Subject = subject
			return b
		}
		enqueue(named(mail.Subscription, "S", 4))
		enqueue(named(mail.Report, "R1", 6))
		enqueue(named(mail.Report, "R2", 3))
		if _, err := q.Enqueue(t.Context(), message(mail.Alert, "ops@example.net")); err != nil {
			t.Fatal(err)
		}
		var order []string
		turn := sitDown(t, q, version, nil).turn()
		for a := turn.Next(nil); a != nil; a = turn.Next(delivered(a)) {
			order = append(order, a.Message.Subject)
		}
		// The alert first; reports and subscriptions 3 to 1; the two reports in turn until the shorter is through.
		want := strings.Fields("Hello R1 R2 S R1 R2 R1 S R2 R1 R1 S R1 S")
		if !slices.Equal(order, want) {
			t.Errorf("order\n%v, want\n%v", order, want)
		}
	})
}

func TestIdempotency(t *testing.T) {
	onEachRedis(t, func(t *testing.T, q *Queue) {
		m := message(mail.Alert, "ada@example.net")
		first, err := q.Enqueue(t.Context(), m, Idempotency("app", "k"))
		if err != nil {
			t.Fatal(err)
		}
		again, err := q.Enqueue(t.Context(), m, Idempotency("app", "k"))
		if err != nil || again.ID != first.ID || !again.Replayed {
			t.Errorf("repeated: %+v, %v; want %s", again, err, first.ID)
		}
		if other, err := q.Enqueue(t.Context(), m, Idempotency("another", "k")); err != nil || other.ID == first.ID {
			t.Errorf("another scope: %+v, %v", other, err)
		}
		m.Subject = "Something else"
		if _, err := q.Enqueue(t.Context(), m, Idempotency("app", "k")); !errors.Is(err, ErrIdempotencyConflict) {
			t.Errorf("another request: %v", err)
		}
		b := batch(mail.Report, 30)
		one, err := q.EnqueueBatch(t.Context(), b, Idempotency("app", "b"))
		if err != nil {
			t.Fatal(err)
		}
		two, err := q.EnqueueBatch(t.Context(), b, Idempotency("app", "b"))
		if err != nil || !two.Replayed || two.ID != one.ID || !slices.Equal(two.IDs, one.IDs) {
			t.Errorf("repeated batch: %+v, %v", two, err)
		}
		if counts, _ := q.Counts(t.Context()); counts.Open[mail.Report] != 30 || counts.Open[mail.Alert] != 2 {
			t.Errorf("open: %v", counts.Open)
		}
	})
}

func TestContentIsBounded(t *testing.T) {
	onEachRedis(t, func(t *testing.T, q *Queue) {
		q.options.ContentMaxBytes = 1000
		m := message(mail.Report, "ada@example.net")
		m.Text = strings.Repeat("x", 600)
		if _, err := q.Enqueue(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if _, err := q.Enqueue(t.Context(), m); !errors.Is(err, ErrFull) {
			t.Errorf("second message: %v, want ErrFull", err)
		}
		m.Kind = mail.Alert
		b := batch(mail.Report, 2)
		b.Message.Text = m.Text
		if _, err := q.EnqueueBatch(t.Context(), b); !errors.Is(err, ErrFull) {
			t.Errorf("batch: %v, want ErrFull", err)
		}
		if keys, _ := q.redis.Keys(t.Context(), q.key("m:*")).Result(); len(keys) != 1 {
			t.Errorf("%d records, want 1", len(keys))
		}
	})
}

func TestBatchOfWhichEverybodyIsRefusedLeavesNothing(t *testing.T) {
	onEachRedis(t, func(t *testing.T, q *Queue) {
		b := batch(mail.Report, 2)
		b.Recipients[0].To[0].Address, b.Recipients[1].Variables = "nobody", nil
		var invalid *mail.Invalid
		if receipt, err := q.EnqueueBatch(t.Context(), b, Idempotency("", "k")); !errors.As(err, &invalid) || receipt.ID != "" ||
			invalid.Problems[0].Field != "/recipients/0/to/0/address" || invalid.Problems[1].Field != "/recipients/1/variables/name" {
			t.Errorf("%+v, %v; want the faults of both and no batch", receipt, err)
		}
		if keys, err := q.redis.Keys(t.Context(), q.key("*")).Result(); err != nil || len(keys) != 0 {
			t.Errorf("left: %v, %v", keys, err)
		}
		// The key is free for who has put one of them right.
		b.Recipients[0].To[0].Address = "ada@example.net"
		if receipt, err := q.EnqueueBatch(t.Context(), b, Idempotency("", "k")); err != nil || receipt.Accepted != 1 || len(receipt.Refused) != 1 || receipt.Replayed {
			t.Errorf("%+v, %v", receipt, err)
		}
	})
}

func TestRepeatedRequestGetsItsAnswerEvenIfItWouldBeRefusedByNow(t *testing.T) {
	onEachRedis(t, func(t *testing.T, q *Queue) {
		m := message(mail.Alert, "ada@example.net")
		b := batch(mail.Report, 2)
		m.ExpiresAt = time.Now().Add(time.Second)
		b.Message.ExpiresAt = m.ExpiresAt
		first, err := q.Enqueue(t.Context(), m, Idempotency("", "m"))
		if err != nil {
			t.Fatal(err)
		}
		one, err := q.EnqueueBatch(t.Context(), b, Idempotency("", "b"))
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "it has expired", func() bool { return time.Now().After(m.ExpiresAt) })
		if again, err := q.Enqueue(t.Context(), m, Idempotency("", "m")); err != nil || again.ID != first.ID {
			t.Errorf("message: %+v, %v", again, err)
		}
		if two, err := q.EnqueueBatch(t.Context(), b, Idempotency("", "b")); err != nil || two.ID != one.ID || !slices.Equal(two.IDs, one.IDs) {
			t.Errorf("batch: %+v, %v", two, err)
		}
	})
}
