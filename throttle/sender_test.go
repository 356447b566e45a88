package throttle

import (
	"slices"
	"testing"
	"time"
)

// sender is greedy: it begins a message as soon as every window has room for it. Its clock is the test's.
type sender struct {
	windows     []Window
	cost        func() Cost          // of the next message
	took        func() time.Duration // of the next hand-over
	concurrency int                  // 0: any number
	now         int64
	began       []int64 // when each message began

	open []handing // by the time they end
	next *Cost     // drawn already, and waiting
}

type handing struct {
	ends int64
	cost Cost
}

// run begins so many messages, and says when the last of all was handed over.
func (s *sender) run(t *testing.T, messages int) int64 {
	t.Helper()
	for messages > 0 {
		s.settle()
		if s.next == nil {
			c := s.cost()
			s.next = &c
		}
		until := s.room(t)
		if until == Now {
			s.begin()
			messages--
			continue
		}
		if len(s.open) > 0 && (until == Unknown || s.open[0].ends < until) {
			until = s.open[0].ends
		}
		if until <= s.now {
			t.Fatalf("nothing is under way, and there is room from %d on, at %d", until, s.now)
		}
		s.now = until
	}
	last := s.now
	for _, h := range s.open {
		last = max(last, h.ends)
	}
	return last
}

func (s *sender) room(t *testing.T) int64 {
	t.Helper()
	if s.concurrency > 0 && len(s.open) >= s.concurrency {
		return Unknown
	}
	until := Now
	for i := range s.windows {
		e := s.windows[i].Wait(s.next.Of(s.windows[i].Limit.Name), s.now)
		switch {
		case e == Never:
			t.Fatalf("%v never fits %v", *s.next, s.windows[i].Limit)
		case e == Unknown || until == Unknown:
			until = Unknown
		default:
			until = max(until, e)
		}
	}
	return until
}

func (s *sender) begin() {
	for i := range s.windows {
		s.windows[i].Take(s.next.Of(s.windows[i].Limit.Name))
	}
	h := handing{s.now + s.took().Milliseconds(), *s.next}
	at, _ := slices.BinarySearchFunc(s.open, h.ends+1, func(o handing, ends int64) int { return int(o.ends - ends) })
	s.open = slices.Insert(s.open, at, h)
	s.began = append(s.began, s.now)
	s.next = nil
}

// settle stamps what has been handed over by now.
func (s *sender) settle() {
	for len(s.open) > 0 && s.open[0].ends <= s.now {
		for i := range s.windows {
			n := s.open[0].cost.Of(s.windows[i].Limit.Name)
			s.windows[i].Stamp(n, n, s.open[0].ends)
		}
		s.open = s.open[1:]
	}
}
