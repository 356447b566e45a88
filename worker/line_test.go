package worker

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/queue"
)

// inLine is a provider.Pipeliner that looks who stands behind.
type inLine struct {
	sender
	mu         sync.Mutex
	here, most int
	behind     any // the first that it saw there
}

var _ provider.Pipeliner = (*inLine)(nil)

func (s *inLine) SendInLine(ctx context.Context, d *provider.Delivery, p provider.Place) ([]mail.Outcome, error) {
	p.Offer(d)
	if err := p.Await(ctx, nil); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.here++
	s.most = max(s.most, s.here)
	seen := s.behind
	s.mu.Unlock()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(50 * time.Millisecond); seen == nil && time.Now().Before(deadline); <-tick.C {
		seen = p.Behind()
	}
	s.mu.Lock()
	s.here--
	s.behind = seen
	s.mu.Unlock()
	return accepts(ctx, d)
}

func TestMessagesOfAUnitStandInLineAtTheSender(t *testing.T) {
	q, _ := newQueue(t)
	var ids []string
	for range 20 {
		ids = append(ids, enqueue(t, q, letterTo("ada@example.org")))
	}
	s := &inLine{sender: func(context.Context, *provider.Delivery) ([]mail.Outcome, error) {
		t.Error("a message went past its line")
		return nil, provider.ErrInterrupted
	}}
	start(t, q, 1, New(Options{Load: func(context.Context, *queue.Provider) (*Active, error) {
		return &Active{Sender: s, Provider: "smtp", From: own}, nil
	}}))
	for _, id := range ids {
		if m := eventually(t, q, id, queue.Delivered, 1); len(m.History) != 1 {
			t.Errorf("%+v", m)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.most != 1 {
		t.Errorf("%d messages of one unit were first in line at once", s.most)
	}
	if _, ok := s.behind.(*provider.Delivery); !ok {
		t.Errorf("%T stood behind, want what another message offered", s.behind)
	}
}
