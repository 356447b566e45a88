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
// It shares nothing with the books it is to judge. A request is one line; the answer is one, too: empty if the message was
// taken, else the limit that it exceeds, or "retry-after" and a time. In between, at any moment, the message is counted.
type strict struct {
	t       testing.TB
	address string
	latency time.Duration // of a request, on average

	mu        sync.Mutex
	each, all terms
	books     map[string]*books // of each mailbox, and of all together under everybody
	orders    map[string]*order // to be silent, by mailbox
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
	refused           string        // by this limit
	silent            time.Duration // it was asked to be silent for so long
}

// order has a mailbox be silent for a time, again and again.
type order struct {
	silence time.Duration
	times   int       // more to come
	until   time.Time // of the last one; zero before the first
}

// probing is how long a request takes that comes after a silence: who comes beside it is seen.
const probing = 500 * time.Millisecond

// enforce starts a strict server.
func enforce(t testing.TB, latency time.Duration, each, all terms) *strict {
	t.Helper()
	folder, err := os.MkdirTemp("", "strict") // t.TempDir's names can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	s := &strict{t: t, address: filepath.Join(folder, "s"), latency: latency, each: each, all: all, books: map[string]*books{}, orders: map[string]*order{}}
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
	latency := 1 + rand.N(2*s.latency)
	if s.begin(r) {
		latency += probing
	}
	counts := rand.N(latency)
	pass(s.t.Context(), counts)
	if r.silent == 0 {
		s.count(r)
	}
	pass(s.t.Context(), latency-counts)
	s.end(r)
	if r.silent > 0 {
		_, _ = fmt.Fprintln(conn, retryAfter, r.silent)
		return
	}
	_, _ = fmt.Fprintln(conn, r.refused)
}

// retryAfter comes before a time, in an answer.
const retryAfter = "retry-after"

// silence has everything of a mailbox refused, with an order to be silent for d. What comes when that is over is refused once
// more, until that has happened so many times.
func (s *strict) silence(mailbox string, d time.Duration, times int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders[mailbox] = &order{silence: d, times: times}
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

// begin notes a request, and reports whether it is the first one after a silence.
func (s *strict) begin(r *request) (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.arrived = time.Now()
	if o := s.orders[r.mailbox]; o != nil {
		first = !o.until.IsZero() && r.arrived.After(o.until)
		if o.until.IsZero() || first {
			o.times--
		}
		if o.times < 0 {
			delete(s.orders, r.mailbox)
		} else {
			r.silent, o.until = o.silence, r.arrived.Add(o.silence)
		}
	}
	s.requests = append(s.requests, r)
	s.scopes(r, func(b *books, allowed terms) {
		b.came++
		b.open++
		b.most = max(b.most, b.open)
		if allowed.concurrency > 0 && b.open > allowed.concurrency {
			b.over++
		}
	})
	return first
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
	if o := s.orders[r.mailbox]; o != nil && r.silent > 0 {
		o.until = r.replied.Add(o.silence)
	}
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
		if r.refused == "" && r.silent == 0 && !r.replied.IsZero() {
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
