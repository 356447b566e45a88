package bench

import (
	"bufio"
	"cmp"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// strict is a provider that enforces its limits by books of its own: every stamp, in sliding windows whose ends count too.
// It shares nothing with the books it is to judge. A request is one line; the answer is one, too, and empty if the message
// was taken. In between, at any moment, the message is counted.
type strict struct {
	t       testing.TB
	address string
	latency time.Duration // of a request, on average

	mu        sync.Mutex
	each, all terms
	books     map[string]*books // of each mailbox, and of all together under everybody
	requests  []*request        // in the order in which they came
}

// everybody stands for all mailboxes together.
const everybody = ""

// terms are what a mailbox, or all of them, may do. The zero value allows everything.
type terms struct {
	concurrency int // 0: any number
	limits      []limit
}

// limit allows so many of what it counts ("messages", "recipients") in any time as long as window.
type limit struct {
	what   string
	most   int
	window time.Duration
}

// books are what a strict server knows of a mailbox.
type books struct {
	came       int // requests
	open, most int // those under way, and the most that ever were
	over       int // those that came beyond the concurrency
	counted    []stamp
}

type stamp struct {
	at         time.Time
	recipients int
}

// request is one message that was offered.
type request struct {
	mailbox, id, kind string
	recipients        int
	arrived, replied  time.Time
	refused           string // by this limit
}

// enforce starts a strict server.
func enforce(t testing.TB, latency time.Duration, each, all terms) *strict {
	t.Helper()
	folder, err := os.MkdirTemp("", "strict") // t.TempDir's names can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	s := &strict{t: t, address: filepath.Join(folder, "s"), latency: latency, each: each, all: all, books: map[string]*books{}}
	l, err := net.Listen("unix", s.address)
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { s.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		open.Wait()
		_ = os.RemoveAll(folder)
	})
	return s
}

// serve handles one request. That its client has died meanwhile does not change what it counts.
func (s *strict) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return
	}
	r := &request{}
	if _, err := fmt.Sscan(line, &r.mailbox, &r.id, &r.kind, &r.recipients); err != nil {
		s.t.Errorf("the server was told %q", line)
		return
	}
	s.begin(r)
	latency := 1 + rand.N(2*s.latency)
	counts := rand.N(latency)
	pass(s.t.Context(), counts)
	s.count(r)
	pass(s.t.Context(), latency-counts)
	s.end(r)
	_, _ = fmt.Fprintln(conn, r.refused)
}

// scopes visits the two that bind a request: its mailbox and everybody. mu is held.
func (s *strict) scopes(r *request, visit func(*books, terms)) {
	for _, scope := range []struct {
		name  string
		terms terms
	}{{r.mailbox, s.each}, {everybody, s.all}} {
		if s.books[scope.name] == nil {
			s.books[scope.name] = &books{}
		}
		visit(s.books[scope.name], scope.terms)
	}
}

func (s *strict) begin(r *request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.arrived = time.Now()
	s.requests = append(s.requests, r)
	s.scopes(r, func(b *books, allowed terms) {
		b.came++
		b.open++
		b.most = max(b.most, b.open)
		if allowed.concurrency > 0 && b.open > allowed.concurrency {
			b.over++
		}
	})
}

func (s *strict) count(r *request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.scopes(r, func(b *books, allowed terms) {
		for _, l := range allowed.limits {
			if b.used(l, now)+r.takes(l) > l.most {
				r.refused = l.what
			}
		}
	})
	if r.refused != "" {
		return
	}
	s.scopes(r, func(b *books, allowed terms) {
		b.counted = append(b.counted, stamp{now, r.recipients})
		if len(allowed.limits) == 0 {
			b.counted = nil // a limit that comes later does not look back
		}
	})
}

func (s *strict) end(r *request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.replied = time.Now()
	s.scopes(r, func(b *books, _ terms) { b.open-- })
}

// used is what counts of a limit.
func (b *books) used(l limit, now time.Time) int {
	used := 0
	for _, s := range slices.Backward(b.counted) {
		if now.Sub(s.at) > l.window {
			break
		}
		used += (&request{recipients: s.recipients}).takes(l)
	}
	return used
}

// takes is what a request costs of a limit.
func (r *request) takes(l limit) int {
	if l.what == "recipients" {
		return r.recipients
	}
	return 1
}

// change has other terms hold from now on.
func (s *strict) change(each, all terms) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.each, s.all = each, all
}

// idle reports whether nothing has been under way for a mailbox for some time.
func (s *strict) idle(mailbox string, since time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range slices.Backward(s.requests) {
		if mailbox == everybody || r.mailbox == mailbox {
			return !r.replied.IsZero() && time.Since(r.replied) > since
		}
	}
	return true
}

// requested is how many requests came of a mailbox.
func (s *strict) requested(mailbox string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.books[mailbox]; b != nil {
		return b.came
	}
	return 0
}

// came gives a mailbox's requests from a moment on, in the order in which they came.
func (s *strict) came(mailbox string, from time.Time) []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	var came []request
	for _, r := range s.requests {
		if (mailbox == everybody || r.mailbox == mailbox) && !r.arrived.Before(from) {
			came = append(came, *r)
		}
	}
	return came
}

// taken is how many messages were taken in all, and the answer has been given.
func (s *strict) taken() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.requests {
		if r.refused == "" && !r.replied.IsZero() {
			n++
		}
	}
	return n
}

// obeyed checks that nothing was refused and nobody came with more at once than allowed.
func (s *strict) obeyed() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	refused := map[string]int{}
	for _, r := range s.requests {
		if r.refused != "" {
			refused[r.refused]++
		}
	}
	if len(refused) > 0 {
		s.t.Errorf("of %d requests, so many were refused for a limit: %v", len(s.requests), refused)
	}
	if len(s.requests) == 0 {
		s.t.Error("nothing was sent: this proves nothing")
	}
	for name, b := range s.books {
		if b.over > 0 {
			s.t.Errorf("%d requests of mailbox %q came beyond its concurrency, %d at once", b.over, name, b.most)
		}
	}
}

// most is the largest number of requests under way at once, of a mailbox or of everybody.
func (s *strict) most(mailbox string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.books[mailbox].most
}

// use is how much of a limit of messages these requests used, which came one after the other while more were waiting: 1 if
// they could not come faster. A message goes a window after the one that is most places before it was answered, so the best
// rate is most in window and the mean time of a hand-over. That holds for whole periods only, so what is beyond the last one
// is left out. periods is how many there are; 0 says nothing.
func use(came []request, l limit) (share float64, periods int) {
	slices.SortFunc(came, func(a, b request) int { return cmp.Compare(a.arrived.UnixNano(), b.arrived.UnixNano()) })
	periods = (len(came) - 1) / l.most
	if periods < 1 {
		return 0, 0
	}
	took := came[periods*l.most].arrived.Sub(came[0].arrived)
	best := time.Duration(periods) * (l.window + handOver(came))
	return float64(best) / float64(took), periods
}

// handOver is the mean time from a request to its answer.
func handOver(came []request) time.Duration {
	var sum time.Duration
	n := 0
	for _, r := range came {
		if !r.replied.IsZero() {
			sum += r.replied.Sub(r.arrived)
			n++
		}
	}
	return sum / time.Duration(max(n, 1))
}
