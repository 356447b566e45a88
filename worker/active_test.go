package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/queue/queuetest"
)

func TestMailGoesByTheProviderThatIsActiveWhenItsAttemptBegins(t *testing.T) {
	q, err := queue.Open(t.Context(), queue.Options{Client: queuetest.Start(t).Client})
	if err != nil {
		t.Fatal(err)
	}
	// Each version has a sender, which knows when it was ended.
	type server struct {
		sent  atomic.Int64
		ended chan struct{}
	}
	servers := make(chan *server, 20)
	w := New(Options{Load: func(_ context.Context, p *queue.Provider) (*Active, error) {
		s := &server{ended: make(chan struct{})}
		servers <- s
		return &Active{Provider: "smtp", From: own, End: func() error { close(s.ended); return nil },
			Sender: sender(func(ctx context.Context, d *provider.Delivery) ([]mail.Outcome, error) {
				select {
				case <-s.ended:
					t.Error("an attempt uses what has been ended")
				default:
				}
				outcomes, err := accepts(ctx, d)
				s.sent.Add(int64(len(outcomes)))
				return outcomes, err
			})}, nil
	}})
	start(t, q, 3, w)
	b := mail.Batch{Message: mail.Message{Kind: mail.Report, Subject: "Figures", Text: "Here they are"}}
	const each, switches = 300, 5
	for i := range each {
		b.Recipients = append(b.Recipients, mail.Recipient{To: []mail.Address{{Address: fmt.Sprintf("r%d@example.net", i)}}})
	}
	var batches []string
	more := func() { // so that there is something for each of them
		t.Helper()
		receipt, err := q.EnqueueBatch(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		batches = append(batches, receipt.ID)
	}
	deadline := time.Now().Add(30 * time.Second)
	all := []*server{<-servers}
	for i := range switches {
		more()
		former := all[len(all)-1]
		for former.sent.Load() == 0 {
			if time.Now().After(deadline) {
				t.Fatal("nothing goes by the active provider")
			}
			runtime.Gosched()
		}
		declare(t, q, fmt.Sprintf("mail%d.example.com:587", i), 3)
		if left, err := q.Underway(t.Context()); err != nil || left != 0 {
			t.Fatalf("%d attempts are left, %v", left, err)
		}
		sent := former.sent.Load()
		all = append(all, <-servers)
		<-former.ended
		if now := former.sent.Load(); now != sent {
			t.Errorf("%d messages went by a provider that was no longer active", now-sent)
		}
	}
	for _, id := range batches {
		for {
			s, err := q.Batch(t.Context(), id)
			if err != nil || time.Now().After(deadline) {
				t.Fatalf("%+v, %v", s, err)
			}
			if s.Delivered == each {
				break
			}
		}
	}
	total := int64(0)
	for _, s := range all {
		total += s.sent.Load()
	}
	if total != each*switches {
		t.Errorf("%d were sent, want %d", total, each*switches)
	}
}

func TestAProcessThatCannotLoadTheSettingsLeavesTheWorkToOthers(t *testing.T) {
	r := queuetest.Start(t)
	q, err := queue.Open(t.Context(), queue.Options{Client: r.Client})
	if err != nil {
		t.Fatal(err)
	}
	noKey := errors.New("no key")
	tried := make(chan struct{}, 10_000)
	start(t, q, 3, New(Options{Load: func(context.Context, *queue.Provider) (*Active, error) {
		tried <- struct{}{}
		return nil, noKey
	}}))
	<-tried
	id := enqueue(t, q, letterTo("ada@example.net"))
	other, err := queue.Open(t.Context(), queue.Options{Client: r.Client})
	if err != nil {
		t.Fatal(err)
	}
	start(t, other, 3, New(Options{Load: with(accepts)}))
	eventually(t, q, id, queue.Delivered, 1)
	if n := len(tried); n > 10 {
		t.Errorf("it has tried %d times more: that is a busy loop", n)
	}
}
