package smtp

import (
	"sync"
	"time"

	"github.com/postroom/postroom/provider"
)

const (
	// prompt is how soon the last message on a connection had its last reply if the next one's envelope may follow before that: who
	// waits behind a slow message may have to be handed back, which costs the connection.
	prompt = 100 * time.Millisecond
	// followTimeout bounds the wait for the reply to a MAIL that was sent ahead, once the message before it has its own: some server
	// may drop what it did not expect, although it must not (RFC 2920, section 3.2).
	followTimeout = 10 * time.Second
	// apartTime is how long nothing is sent to such a server before its last reply is in.
	apartTime = 10 * time.Minute
)

// follower is a transaction that waits behind another one in its line. The one ahead may send its envelope along with the final dot
// of its own message (RFC 2920, section 3.1), which saves a round trip; then the connection is the follower's next. Nothing is
// handed over by an envelope: until its own final dot the follower can be given up, or begun anew on another connection.
type follower struct {
	sender *Sender
	t      *transaction

	mu   sync.Mutex
	gone bool  // it waits no longer
	conn *conn // with its envelope sent; nil if it was not, or the connection did not outlive the message ahead
}

// takeAlong gives the commands of whoever waits behind in line, to be sent on c after the final dot of the message ahead; nil if nobody
// does, or they are better sent when its reply is in.
func (s *Sender) takeAlong(c *conn, place provider.Place) []byte {
	if !c.ext.pipelining || !c.prompt || c.used >= s.pool.maxMessages || time.Now().UnixNano() < s.apart.Load() {
		return nil
	}
	f, ok := place.Behind().(*follower)
	if !ok || f.sender != s {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone || f.t.fits(&c.ext) != nil || len(f.t.wire) == 0 || len(f.t.wire)+2 > maxPipelined {
		return nil
	}
	c.next = f
	c.used++
	f.t.ahead = true
	c.out = f.t.commands(c.out[:0], &c.ext, 0, len(f.t.wire)+2)
	return c.out
}

// started reports whether its envelope has been sent.
func (f *follower) started() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.t.ahead
}

// pass gives c, with the envelope on it, to f when the message ahead has its reply. False: f waits no longer.
func (f *follower) pass(c *conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone {
		return false
	}
	f.conn = c
	return true
}

// end ends the waiting, and gives the connection that was passed on.
func (f *follower) end() *conn {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = true
	return f.conn
}
