package smtp

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/smtp/smtptest"
)

const (
	pipelining = greeting + "S: 250-mx\nS: 250 PIPELINING\n"
	taken      = "S: 250 fine\nS: 250 fine\nS: 354 go on\nMESSAGE\n"
)

// to are the commands of a message.
func to(address string) string { return mailFrom + "C: RCPT TO:<" + address + ">\nC: DATA\n" }

// warm is a first message, whose last reply comes at once: others may follow it.
var warm = pipelining + to("ada@example.org") + taken + "S: 250 queued\n"

// spot is a place in a line that a test lets go on.
type spot struct {
	ahead   chan error // what Await returns
	started func() bool
	behind  *spot
	offered any
}

var _ provider.Place = (*spot)(nil)

func (p *spot) Await(_ context.Context, started func() bool) error {
	p.started = started
	return <-p.ahead
}
func (p *spot) Offer(v any) { p.offered = v }
func (p *spot) Behind() any {
	if p.behind == nil {
		return nil
	}
	return p.behind.offered
}

// spots makes the places of n messages; nobody is ahead of the first.
func spots(n int) []*spot {
	places := make([]*spot, n)
	for i := range places {
		places[i] = &spot{ahead: make(chan error, 1)}
		if i > 0 {
			places[i-1].behind = places[i]
		}
	}
	places[0].ahead <- nil
	return places
}

// sent is what a message came to.
type sent struct {
	outcomes []mail.Outcome
	err      error
}

// begin sends a message in line; what it came to comes on the channel.
func (r *rig) begin(t *testing.T, d *provider.Delivery, p provider.Place) <-chan sent {
	done := make(chan sent, 1)
	go func() {
		out, err := r.SendInLine(t.Context(), d, p)
		done <- sent{out, err}
	}()
	synctest.Wait()
	return done
}

// apart is the dialog of a message on a connection of its own.
func apart(address, end string) string {
	return pipelining + to(address) + end
}

func TestTheNextMessageFollowsTheFinalDot(t *testing.T) {
	ahead := to("bob@example.org") // comes before the reply to the message
	outOfStep := map[string]bool{"MAIL is out of sequence here alone": true, "what was sent ahead is forgotten": true, "one reply answers both": true}
	for name, v := range map[string]struct {
		first, rest string // of the first connection: the reply to the message and what follows
		second      string // script of a second connection
		a, b        [3]any // class, step, code
	}{
		"both are taken": {"S: 250 queued", taken + "S: 250 queued\nC: QUIT\nS: 221 bye\nEOF", "",
			[3]any{mail.Delivered, stepBody, 250}, [3]any{mail.Delivered, stepBody, 250}},
		"the one ahead is refused": {"S: 554 5.6.0 no", taken + "S: 250 queued\nC: QUIT\nS: 221 bye\nEOF", "",
			[3]any{mail.Permanent, stepBody, 554}, [3]any{mail.Delivered, stepBody, 250}},
		"the one ahead is deferred": {"S: 451 4.3.0 later", taken + "S: 250 queued\nC: QUIT\nS: 221 bye\nEOF", "",
			[3]any{mail.Temporary, stepBody, 451}, [3]any{mail.Delivered, stepBody, 250}},
		"the reply is lost": {"CLOSE", "", apart("bob@example.org", taken+"S: 250 queued"),
			[3]any{mail.Unknown, stepBody, 0}, [3]any{mail.Delivered, stepBody, 250}},
		"the reply is malformed": {"S: hello", "EOF", apart("bob@example.org", taken+"S: 250 queued"),
			[3]any{mail.Unknown, stepBody, 0}, [3]any{mail.Delivered, stepBody, 250}},
		"the server closes with the reply": {"S: 421 4.3.2 shutting down", "EOF", apart("bob@example.org", taken+"S: 250 queued"),
			[3]any{mail.Temporary, stepBody, 421}, [3]any{mail.Delivered, stepBody, 250}},
		"the server closes after the reply": {"S: 250 queued", "CLOSE", apart("bob@example.org", taken+"S: 250 queued"),
			[3]any{mail.Delivered, stepBody, 250}, [3]any{mail.Delivered, stepBody, 250}},
		"the server says that it closes": {"S: 250 queued", "S: 421 4.4.2 enough\nCLOSE", apart("bob@example.org", taken+"S: 250 queued"),
			[3]any{mail.Delivered, stepBody, 250}, [3]any{mail.Delivered, stepBody, 250}},
		"MAIL is deferred": {"S: 250 queued", "S: 451 4.3.0 later\nS: 503 no\nS: 503 no\nC: QUIT\nS: 221 bye\nEOF", "",
			[3]any{mail.Delivered, stepBody, 250}, [3]any{mail.Temporary, stepMail, 451}},
		"MAIL is too fast": {"S: 250 queued", "S: 421 4.4.2 Message submission rate for this client has exceeded the configured limit\nEOF", "",
			[3]any{mail.Delivered, stepBody, 250}, [3]any{mail.Throttled, stepMail, 421}},
		"MAIL is refused, elsewhere too": {"S: 250 queued", "S: 552 5.3.4 no\nS: 503 no\nS: 503 no\nEOF",
			apart("bob@example.org", "S: 552 5.3.4 no\nS: 503 no\nS: 503 no"),
			[3]any{mail.Delivered, stepBody, 250}, [3]any{mail.Permanent, stepMail, 552}},
		"MAIL is out of sequence here alone": {"S: 250 queued", "S: 503 5.5.1 not now\nEOF", apart("bob@example.org", taken+"S: 250 queued"),
			[3]any{mail.Delivered, stepBody, 250}, [3]any{mail.Delivered, stepBody, 250}},
		"what was sent ahead is forgotten": {"S: 250 queued", "SILENCE", apart("bob@example.org", taken+"S: 250 queued"),
			[3]any{mail.Delivered, stepBody, 250}, [3]any{mail.Delivered, stepBody, 250}},
		"one reply answers both": {"S: 250 queued", "S: 354 go on\nEOF", apart("bob@example.org", taken+"S: 250 queued"),
			[3]any{mail.Delivered, stepBody, 250}, [3]any{mail.Delivered, stepBody, 250}},
		"cut between the replies to MAIL and RCPT": {"S: 250 queued", "S: 250 fine\nCLOSE", "",
			[3]any{mail.Delivered, stepBody, 250}, [3]any{mail.Temporary, stepRcpt, 0}},
		"the recipient is refused": {"S: 250 queued", "S: 250 fine\nS: 550 5.1.1 nobody\nS: 503 no\nC: QUIT\nS: 221 bye\nEOF", "",
			[3]any{mail.Delivered, stepBody, 250}, [3]any{mail.Permanent, stepRcpt, 550}},
		"DATA is deferred": {"S: 250 queued", "S: 250 fine\nS: 250 fine\nS: 451 4.3.0 later\nC: QUIT\nS: 221 bye\nEOF", "",
			[3]any{mail.Delivered, stepBody, 250}, [3]any{mail.Temporary, stepData, 451}},
		"the second reply is lost": {"S: 250 queued", taken + "CLOSE", "",
			[3]any{mail.Delivered, stepBody, 250}, [3]any{mail.Unknown, stepBody, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				scripts := []string{warm + to("ada@example.org") + taken + ahead + v.first + "\n" + v.rest}
				if v.second != "" {
					scripts = append(scripts, v.second)
				}
				r := newRig(t, nil, scripts...)
				r.send(t, "ada@example.org")
				p := spots(2)
				second := r.begin(t, delivery("bob@example.org"), p[1])
				first := <-r.begin(t, delivery("ada@example.org"), p[0])
				p[1].ahead <- nil
				for i, got := range []sent{first, <-second} {
					want := [][3]any{v.a, v.b}[i]
					if got.err != nil || len(got.outcomes) != 1 {
						t.Fatalf("message %d: %v", i+1, got)
					}
					is(t, got.outcomes[0], want[0].(mail.Class), want[1].(string), want[2].(int))
				}
				if apart := r.apart.Load() != 0; apart != outOfStep[name] {
					t.Errorf("others are to wait for their turn: %v, want %v", apart, outOfStep[name])
				}
			})
		})
	}
}

// A server that loses what it did not expect is not sent anything ahead any more, for a while.
func TestWhoLosesWhatWasSentAheadIsSentNothingAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		single := to("ada@example.org") + taken + "QUIET: 50ms\nS: 250 queued\n"
		r := newRig(t, nil, warm+to("ada@example.org")+taken+to("bob@example.org")+"S: 250 queued\nSILENCE",
			apart("bob@example.org", taken+"S: 250 queued\n")+single+to("bob@example.org")+taken+"S: 250 queued\nC: QUIT\nS: 221 bye",
			warm+to("ada@example.org")+taken+to("bob@example.org")+"S: 250 queued\n"+taken+"S: 250 queued\n")
		r.send(t, "ada@example.org")
		pair := func() {
			t.Helper()
			p := spots(2)
			second := r.begin(t, delivery("bob@example.org"), p[1])
			first := <-r.begin(t, delivery("ada@example.org"), p[0])
			p[1].ahead <- nil
			is(t, first.outcomes[0], mail.Delivered, stepBody, 250)
			is(t, (<-second).outcomes[0], mail.Delivered, stepBody, 250)
		}
		begun := time.Now()
		pair()
		if took := time.Since(begun); took != followTimeout {
			t.Errorf("it took %v to find out, want %v", took, followTimeout)
		}
		pair()
		<-time.After(apartTime)
		r.send(t, "ada@example.org")
		pair()
	})
}

// Whoever waits no longer is not handed over; the message ahead has its reply before the connection ends.
func TestWhoGivesUpBehindHarmsNobody(t *testing.T) {
	gone := errors.New("gone")
	for name, v := range map[string]struct {
		script string
		when   string
	}{
		"before anything is sent ahead": {to("ada@example.org") + "S: 250 fine\nS: 250 fine\nS: 354 go on\nMESSAGE\nQUIET: 50ms\nS: 250 queued\nC: QUIT\nS: 221 bye\nEOF", "before"},
		"while the message ahead waits": {to("ada@example.org") + taken + to("bob@example.org") + "QUIET: 50ms\nS: 250 queued\nEOF", "while"},
		"when it would be its turn":     {to("ada@example.org") + taken + to("bob@example.org") + "S: 250 queued\n" + "S: 250 fine\nS: 250 fine\nS: 354 go on\nEOF", "after"},
		"at the fence":                  {to("ada@example.org") + taken + to("bob@example.org") + "S: 250 queued\n" + "S: 250 fine\nS: 250 fine\nS: 354 go on\nCUT", "fence"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil, warm+v.script)
				r.send(t, "ada@example.org")
				p := spots(2)
				b := delivery("bob@example.org")
				if v.when == "fence" {
					b.Fence = func() error { return gone }
				}
				second := r.begin(t, b, p[1])
				if v.when == "before" {
					p[1].ahead <- gone
					synctest.Wait()
				}
				a := r.begin(t, delivery("ada@example.org"), p[0])
				if started := p[1].started(); started != (v.when != "before") {
					t.Errorf("its envelope was sent: %v", started)
				}
				if v.when == "while" {
					p[1].ahead <- gone
				}
				first := <-a
				switch v.when {
				case "after":
					p[1].ahead <- gone
				case "fence":
					p[1].ahead <- nil
				}
				is(t, first.outcomes[0], mail.Delivered, stepBody, 250)
				if got := <-second; !errors.Is(got.err, gone) || got.outcomes != nil {
					t.Errorf("the one behind: %+v", got)
				}
				if n := len(r.peer.Messages()); n != 2 {
					t.Errorf("%d messages arrived, want 2", n)
				}
			})
		})
	}
}

// What may not be sent ahead comes when the message ahead has its reply.
func TestNobodyFollowsTheFinalDot(t *testing.T) {
	queued := "QUIET: 50ms\nS: 250 queued\n"
	ending := "C: QUIT\nS: 221 bye\nEOF"
	most := func(n int) change {
		return func(_ *provider.Settings, o *Options) { o.MaxMessagesPerConn = n }
	}
	slow := "S: 250-mx\nS: 250 PIPELINING\n" + to("ada@example.org") + taken + "WAIT: 150ms\nS: 250 queued\n"
	for name, v := range map[string]struct {
		change  change
		scripts []string
		second  *provider.Delivery
	}{
		"no PIPELINING": {scripts: []string{greeting + "S: 250 mx\n" + oneBy("ada@example.org", "S: 250 queued\n") +
			oneBy("ada@example.org", queued) + oneBy("bob@example.org", "S: 250 queued\n") + ending}},
		"the server was slow": {scripts: []string{greeting + slow + to("ada@example.org") + taken + queued + to("bob@example.org") + taken + "S: 250 queued\n" + ending}},
		"the connection ends": {change: most(2), scripts: []string{warm + to("ada@example.org") + taken + queued + ending, apart("bob@example.org", taken+"S: 250 queued\n"+ending)}},
		"more recipients than one write has room for": {second: crowd(maxPipelined - 1), scripts: []string{warm + to("ada@example.org") + taken + queued + mailFrom +
			strings.Repeat("C: RCPT TO:*\n", maxPipelined-1) + strings.Repeat("S: 250 fine\n", maxPipelined) + "C: DATA\nS: 354 go on\nMESSAGE\nS: 250 queued\n" + ending}},
		"an address that the server does not take": {second: delivery("jürgen@example.org"), scripts: []string{warm + to("ada@example.org") + taken + queued + ending}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var changes []change
				if v.change != nil {
					changes = append(changes, v.change)
				}
				r := newRig(t, changes, v.scripts...)
				r.send(t, "ada@example.org")
				p := spots(2)
				if v.second == nil {
					v.second = delivery("bob@example.org")
				}
				second := r.begin(t, v.second, p[1])
				first := <-r.begin(t, delivery("ada@example.org"), p[0])
				p[1].ahead <- nil
				is(t, first.outcomes[0], mail.Delivered, stepBody, 250)
				if got := <-second; got.err != nil || got.outcomes[0].Step == "" {
					t.Errorf("the one behind: %+v", got)
				}
			})
		})
	}
}

// slow is a server that reads nothing for a while after the message number 2, and has no buffer for what comes meanwhile.
type slow struct{ pause time.Duration }

func (s slow) DialContext(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	go s.serve(server)
	return client, nil
}

func (s slow) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	say := func(words string) { _, _ = io.WriteString(c, words) }
	say("220 mx.example\r\n")
	data, messages, replies := false, 0, ""
	for line := ""; ; {
		var b [1]byte // no more than that: what follows stays with the client
		if _, err := c.Read(b[:]); err != nil {
			return
		}
		if line += string(b[:]); b[0] != '\n' {
			continue
		}
		switch {
		case data && line == ".\r\n":
			data = false
			if messages++; messages == 2 {
				<-time.After(s.pause)
			}
			say("250 queued\r\n")
		case data:
		case strings.HasPrefix(line, "EHLO"):
			say("250-mx.example\r\n250 PIPELINING\r\n")
		case line == "DATA\r\n":
			data = true
			say(replies + "354 go on\r\n")
			replies = ""
		case line == "QUIT\r\n":
			say("221 bye\r\n")
			return
		default:
			replies += "250 fine\r\n"
		}
		line = ""
	}
}

// A shorter wait for the reply to the final dot makes duplicates, whatever is behind it.
func TestWhoCannotSendWhatFollowsTheDotStillWaitsForItsReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, []change{func(_ *provider.Settings, o *Options) { o.Dialer = slow{4 * time.Minute} }})
		r.send(t, "ada@example.org")
		p := spots(2)
		second := r.begin(t, delivery("bob@example.org"), p[1])
		first := <-r.begin(t, delivery("ada@example.org"), p[0])
		p[1].ahead <- nil
		is(t, first.outcomes[0], mail.Delivered, stepBody, 250)
		is(t, (<-second).outcomes[0], mail.Delivered, stepBody, 250)
		if r.apart.Load() != 0 {
			t.Error("it was waited for replies to what had not gone out")
		}
	})
}

// oneBy is the dialog of a message without PIPELINING.
func oneBy(address, end string) string {
	return mailFrom + "S: 250 fine\nC: RCPT TO:<" + address + ">\nS: 250 fine\nC: DATA\nS: 354 go on\nMESSAGE\n" + end
}

// crowd is a message for n.
func crowd(n int) *provider.Delivery {
	var all []string
	for i := range n {
		all = append(all, strings.Repeat("x", i+1)+"@example.org")
	}
	return delivery(all...)
}

// What is for another sender, as settings have changed meanwhile, is none of this one's business.
func TestTheNextMessageOfAnotherSenderFollowsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil, warm+to("ada@example.org")+taken+"QUIET: 50ms\nS: 250 queued\n")
		other := newRig(t, nil, apart("bob@example.org", taken+"S: 250 queued"))
		r.send(t, "ada@example.org")
		p := spots(2)
		second := other.begin(t, delivery("bob@example.org"), p[1])
		is(t, (<-r.begin(t, delivery("ada@example.org"), p[0])).outcomes[0], mail.Delivered, stepBody, 250)
		p[1].ahead <- nil
		is(t, (<-second).outcomes[0], mail.Delivered, stepBody, 250)
	})
}

// A line of four is one connection, and each message follows the one before it.
func TestALongLineIsOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 4
		script := warm + to("ada@example.org")
		for range n - 1 {
			script += taken + to("ada@example.org") + "S: 250 queued\n"
		}
		r := newRig(t, nil, script+taken+"S: 250 queued\nC: QUIT\nS: 221 bye\nEOF")
		r.send(t, "ada@example.org")
		p := spots(n)
		var done [n]<-chan sent
		for i := n - 1; i >= 0; i-- {
			done[i] = r.begin(t, delivery("ada@example.org"), p[i])
		}
		for i := range n {
			is(t, (<-done[i]).outcomes[0], mail.Delivered, stepBody, 250)
			if i < n-1 {
				p[i+1].ahead <- nil
			}
		}
	})
}

// line is a line for real: first come, first served.
type line struct {
	mu     sync.Mutex
	places []*waiter
}

type waiter struct {
	line    *line
	first   chan struct{}
	offered any
}

var _ provider.Place = (*waiter)(nil)

func (l *line) join() *waiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := &waiter{line: l, first: make(chan struct{})}
	if l.places = append(l.places, w); len(l.places) == 1 {
		close(w.first)
	}
	return w
}

// leave is for the first.
func (l *line) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.places = l.places[1:]; len(l.places) > 0 {
		close(l.places[0].first)
	}
}

func (w *waiter) Await(context.Context, func() bool) error { <-w.first; return nil }

func (w *waiter) Offer(v any) {
	w.line.mu.Lock()
	defer w.line.mu.Unlock()
	w.offered = v
}

func (w *waiter) Behind() any {
	w.line.mu.Lock()
	defer w.line.mu.Unlock()
	if len(w.line.places) < 2 {
		return nil
	}
	return w.line.places[1].offered
}

func TestManyMessagesInLinesToARealServer(t *testing.T) {
	for _, security := range []provider.Security{provider.SecurityNone, provider.SecurityTLS} {
		t.Run(string(security), func(t *testing.T) {
			inbox, err := smtptest.NewInbox(smtptest.InboxOptions{Security: security, Username: "reports", Password: password})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = inbox.Close() }()
			s, err := New(inbox.Settings(sender), Options{MaxMessagesPerConn: 50})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			const n, lines, hands = 600, 3, 4
			var wg sync.WaitGroup
			for l := range lines {
				line := new(line)
				for h := range hands {
					wg.Go(func() {
						for i := l*hands + h; i < n; i += lines * hands {
							place := line.join()
							out, err := s.SendInLine(t.Context(), report(i, strings.Repeat("r", i%7)+string(rune('a'+i%26))+"@example.org"), place)
							line.leave()
							if err != nil || out[0].Class != mail.Delivered {
								t.Errorf("message %d: %+v, %v", i, out, err)
							}
						}
					})
				}
			}
			wg.Wait()
			seen := map[string]bool{}
			for _, m := range inbox.Messages() {
				_, rest, _ := strings.Cut(string(m.Raw), "\nSubject: Report ")
				id, _, _ := strings.Cut(rest, "\r\n")
				seen[id] = true
			}
			if inbox.Received() != n || len(seen) != n {
				t.Errorf("%d received, %d of them different, want %d", inbox.Received(), len(seen), n)
			}
			if c := inbox.Connections(); c < n/50 || c > n/50+lines {
				t.Errorf("%d connections for %d messages of 50 each by %d lines", c, n, lines)
			}
		})
	}
}
