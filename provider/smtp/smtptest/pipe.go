package smtptest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipeBuffer is what one side can write that the other has not read, as with a socket. net.Pipe has no buffer: neither
// side could speak first there.
const pipeBuffer = 64 << 10

// pipe makes a connection in memory. It works in the bubbles of testing/synctest, which sockets do not.
func pipe() (a, b net.Conn) {
	l := &link{}
	l.changed.L = &l.mu
	up, down := &stream{}, &stream{}
	return &end{link: l, in: down, out: up}, &end{link: l, in: up, out: down}
}

// link is what both ends of a pipe share.
type link struct {
	mu      sync.Mutex
	changed sync.Cond
}

// stream is one direction.
type stream struct {
	data             []byte
	writerGone, gone bool // gone: the reader
}

// end is one end of a pipe.
type end struct {
	*link
	in, out         *stream
	closed          bool
	readBy, writeBy deadline
}

var _ net.Conn = (*end)(nil)

type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// Read implements net.Conn.
func (e *end) Read(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		switch {
		case e.closed:
			return 0, net.ErrClosed
		case e.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		case len(e.in.data) > 0:
			n := copy(p, e.in.data)
			e.in.data = e.in.data[n:]
			e.changed.Broadcast()
			return n, nil
		case e.in.writerGone:
			return 0, io.EOF
		}
		e.changed.Wait()
	}
}

// Write implements net.Conn.
func (e *end) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	written := 0
	for {
		switch {
		case e.closed:
			return written, net.ErrClosed
		case e.writeBy.passed():
			return written, os.ErrDeadlineExceeded
		case e.out.gone:
			return written, io.ErrClosedPipe
		}
		n := min(len(p)-written, pipeBuffer-len(e.out.data))
		e.out.data = append(e.out.data, p[written:written+n]...)
		written += n
		if n > 0 {
			e.changed.Broadcast()
		}
		if written == len(p) {
			return written, nil
		}
		e.changed.Wait()
	}
}

// Close implements net.Conn. What was written can still be read at the other end.
func (e *end) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed, e.out.writerGone, e.in.gone = true, true, true
	e.changed.Broadcast()
	return nil
}

func (e *end) set(t time.Time, deadlines ...*deadline) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, d := range deadlines {
		d.at = t
		if d.timer != nil {
			d.timer.Stop()
		}
		if !t.IsZero() {
			d.timer = time.AfterFunc(time.Until(t), func() {
				e.mu.Lock()
				defer e.mu.Unlock()
				e.changed.Broadcast()
			})
		}
	}
	e.changed.Broadcast()
	return nil
}

// SetDeadline implements net.Conn.
func (e *end) SetDeadline(t time.Time) error { return e.set(t, &e.readBy, &e.writeBy) }

// SetReadDeadline implements net.Conn.
func (e *end) SetReadDeadline(t time.Time) error { return e.set(t, &e.readBy) }

// SetWriteDeadline implements net.Conn.
func (e *end) SetWriteDeadline(t time.Time) error { return e.set(t, &e.writeBy) }

// LocalAddr implements net.Conn.
func (*end) LocalAddr() net.Addr { return pipeAddr{} }

// RemoteAddr implements net.Conn.
func (*end) RemoteAddr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }
