package smtp

import (
	"sync"
	"time"
)

// pool keeps connections between attempts. The one used last is taken first, so that those not needed grow old and go.
type pool struct {
	maxIdle     time.Duration
	maxConns    int
	maxMessages int

	mu     sync.Mutex
	idle   []*idleConn
	closed bool
	// busy counts attempts under way and connections being ended.
	busy sync.WaitGroup
}

type idleConn struct {
	*conn
	timer *time.Timer
}

// enter begins an attempt, unless the pool is closed. Each is ended by leave.
func (p *pool) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.busy.Add(1)
	return true
}

func (p *pool) leave() { p.busy.Done() }

// take gives an idle connection, or nil. It may have died since.
func (p *pool) take() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == 0 {
		return nil
	}
	last := len(p.idle) - 1
	ic := p.idle[last]
	p.idle[last] = nil
	p.idle = p.idle[:last]
	ic.timer.Stop()
	return ic.conn
}

// put takes a connection back after an attempt, to keep it or to end it.
func (p *pool) put(c *conn) {
	c.detach()
	if !p.keep(c) {
		p.dismiss(c)
	}
}

func (p *pool) keep(c *conn) bool {
	if c.dead || c.used >= p.maxMessages {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) >= p.maxConns {
		return false
	}
	ic := &idleConn{conn: c}
	ic.timer = time.AfterFunc(p.maxIdle, func() { p.expire(ic) })
	p.idle = append(p.idle, ic)
	return true
}

// expire ends a connection that nobody took for too long.
func (p *pool) expire(ic *idleConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.idle {
		if other == ic {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			p.busy.Go(ic.quit)
			return
		}
	}
}

// dismiss ends a connection without making the attempt wait for it. Called within an attempt only, which keeps Close
// waiting.
func (p *pool) dismiss(c *conn) {
	if c.dead {
		c.quit()
		return
	}
	p.busy.Go(c.quit)
}

// close ends the idle connections and waits for those in use.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	for _, ic := range p.idle {
		ic.timer.Stop()
		p.busy.Go(ic.quit)
	}
	p.idle = nil
	p.mu.Unlock()
	p.busy.Wait()
}
