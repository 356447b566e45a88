package smtp

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// lastWordsTimeout bounds waiting for what a server may have said before it hung up on us, and for replies that no
// longer matter.
const lastWordsTimeout = 5 * time.Second

// fault is a failure as an outcome: of the session, or of all recipients that have no outcome of their own yet.
type fault struct {
	mail.Outcome
	// hungUp says that the server ended the connection, without a reason that would hold for the next one too.
	hungUp bool
	// outOfStep says that the server has no reply, or a wrong one, to what was sent behind a final dot.
	outOfStep bool
}

func (f *fault) Error() string { return fmt.Sprintf("smtp: %s: %s", f.Step, f.Reply) }

// ours is a fault in our words.
func ours(class mail.Class, step, words string) *fault {
	return &fault{Outcome: mail.Outcome{Class: class, Scope: scopeOf(step), Step: step, Reply: printable(words)}}
}

// because names the cause of a fault of ours.
func (f *fault) because(c mail.Cause) *fault {
	f.Cause = c
	return f
}

// conn is one connection to the server. One attempt at a time uses it; only interrupt comes from elsewhere.
type conn struct {
	raw  net.Conn // deadlines are set here
	nc   net.Conn // raw, or TLS over it
	r    *bufio.Reader
	ext  extensions
	t    Timeouts
	out  []byte     // commands being put together
	body bodyWriter // keeps its buffer from message to message

	greeting  string // what the server said first
	mechanism string // of the login; empty if there was none
	token     string // it was logged in with; empty if by a password, or not at all
	used      int    // transactions begun
	dirty     bool   // a transaction was left open: RSET comes first
	dead      bool   // of no more use, not even for QUIT
	prompt    bool   // the last message had its last reply soon

	next *follower // its envelope has been sent; nil if nobody's has

	limit   time.Time   // the end of the attempt; zero for none
	unwatch func() bool // stops watching the attempt's context; nil if nothing is watched

	mu  sync.Mutex
	cut bool // interrupted: no deadline may be set any more
}

func newConn(raw net.Conn, t Timeouts) *conn {
	c := &conn{raw: raw, t: t}
	c.over(raw)
	return c
}

// over makes nc what the session runs over. Whatever was read ahead from the former one is discarded (RFC 3207, section
// 4.2): it came unprotected.
func (c *conn) over(nc net.Conn) {
	c.nc = nc
	c.r = bufio.NewReaderSize(nc, 2*maxReplyLine)
	c.ext = extensions{}
}

// begin ties the connection to an attempt: the end of ctx interrupts what it waits for, until release or detach.
func (c *conn) begin(ctx context.Context, limit time.Time) {
	c.limit = limit
	c.unwatch = context.AfterFunc(ctx, c.interrupt)
}

// detach ends what begin began. It reports whether the attempt may go on: false if its context ended before.
func (c *conn) detach() bool {
	if c.unwatch == nil {
		return true
	}
	ok := c.unwatch()
	c.unwatch = nil
	if !ok {
		c.dead = true
	}
	return ok
}

func (c *conn) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	_ = c.raw.SetDeadline(time.Unix(1, 0))
}

func (c *conn) interrupted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut
}

// arm gives what comes next d to happen, and no longer than the attempt has.
func (c *conn) arm(d time.Duration) {
	deadline := time.Now().Add(d)
	if !c.limit.IsZero() && deadline.After(c.limit) {
		deadline = c.limit
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.cut {
		_ = c.raw.SetDeadline(deadline)
	}
}

// reply reads the answer to what was sent at a step.
func (c *conn) reply(step string, d time.Duration) (reply, error) {
	c.arm(d)
	r, err := readReply(c.r, nil)
	return r, c.answered(step, r, err)
}

// answered takes note of how reading a reply went.
func (c *conn) answered(step string, r reply, err error) error {
	if err != nil {
		return c.broken(step, "waiting for a reply", err)
	}
	if r.code == 421 {
		c.dead = true // The server closes the channel (RFC 5321, section 3.8).
	}
	return nil
}

// send writes commands. If the server hung up on us, what it said before counts: see reply.
func (c *conn) send(step string, d time.Duration, p []byte) error {
	c.arm(d)
	if _, err := c.nc.Write(p); err != nil && (timedOut(err) || c.interrupted()) {
		return c.broken(step, "sending a command", err)
	}
	return nil
}

// command sends one command and reads the reply.
func (c *conn) command(step string, d time.Duration, line string) (reply, error) {
	c.out = append(append(c.out[:0], line...), "\r\n"...)
	if err := c.send(step, d, c.out); err != nil {
		return reply{}, err
	}
	return c.reply(step, d)
}

// lastWords reads a reply that the server may have sent before it stopped taking the message.
func (c *conn) lastWords(cause error) (reply, error) {
	if timedOut(cause) {
		return reply{}, cause
	}
	c.arm(lastWordsTimeout)
	r, err := readReply(c.r, nil)
	if err != nil {
		return reply{}, cause
	}
	return r, nil
}

// broken says what an error of reading or writing means before the final dot: nothing was handed over.
func (c *conn) broken(step, doing string, err error) error {
	c.dead = true
	if c.interrupted() {
		return provider.ErrInterrupted
	}
	f := ours(mail.Temporary, step, doing+": "+plain(err))
	f.hungUp = !timedOut(err) && !errors.Is(err, errMalformed)
	return f
}

// refusal says what a reply other than the one hoped for means.
func (c *conn) refusal(step string, r reply) *fault {
	if r.class() != 4 && r.class() != 5 {
		c.dead = true // Not an answer to our question: we no longer know where we are.
	}
	f := &fault{Outcome: classify(step, r)}
	f.hungUp = r.code == 421 && exceptionFor(step, r) == nil
	return f
}

// quit ends the session politely, if it still can. Nobody waits long for it, and no error of it matters.
func (c *conn) quit() {
	if !c.dead {
		c.limit = time.Time{}
		c.arm(lastWordsTimeout)
		if _, err := c.nc.Write([]byte("QUIT\r\n")); err == nil {
			_, _ = readReply(c.r, nil)
		}
	}
	// Not nc.Close: for TLS it may block, to send an alert that QUIT makes needless.
	_ = c.raw.Close()
}

// encrypted reports whether TLS is on.
func (c *conn) encrypted() bool {
	_, ok := c.nc.(*tls.Conn)
	return ok
}

func timedOut(err error) bool {
	var ne net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

// plain words an error of the network for people.
func plain(err error) string {
	if timedOut(err) {
		return "timed out"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	if errors.Is(err, io.EOF) {
		return "the server closed the connection"
	}
	return err.Error()
}
