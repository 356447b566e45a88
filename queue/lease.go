package queue

import (
	"context"
	"sync/atomic"
	"time"
)

// leaseTime is how long a worker's lease lasts: from the moment its renewal was sent, by this machine's monotonic clock,
// and at least as long by Redis's, which sees the renewal later. It is renewed four times in that time.
const leaseTime = 20 * time.Second

// lease is a worker's word that it is alive. A lease that has once run out is never renewed: the worker gets another,
// under another id, and attempts that began under the old one can no longer pass their fence. So whoever was silent for a
// whole lease (stopped, or cut off from Redis) can't come back and finish what has been given to somebody else.
type lease struct {
	worker string
	start  time.Time
	lasts  time.Duration
	// until is when it runs out, as time since start.
	until atomic.Int64
	over  atomic.Bool
}

func newLease(now time.Time, lasts time.Duration) *lease {
	return &lease{worker: token(8), start: now, lasts: lasts}
}

// live reports whether the lease runs at now.
func (l *lease) live(now time.Time) bool {
	return !l.over.Load() && now.Sub(l.start) < time.Duration(l.until.Load())
}

// renewed notes a renewal that was sent at sent; false if it came too late to count.
func (l *lease) renewed(sent, now time.Time) bool {
	if l.until.Load() != 0 && !l.live(now) {
		l.over.Store(true)
		return false
	}
	l.until.Store(int64(sent.Sub(l.start) + l.lasts))
	return true
}

// keepLease holds a lease for as long as ctx runs and sets it in current. ready is closed when the first one is held.
func (c *Consumer) keepLease(ctx context.Context, ready chan<- struct{}) {
	announced := false
	ticker := time.NewTicker(c.leaseTime / 4)
	defer ticker.Stop()
	current, mode := newLease(time.Now(), c.leaseTime), "new"
	for {
		sent := time.Now()
		call, cancel := context.WithTimeout(ctx, c.leaseTime/4)
		held, err := c.renewLease(call, current, mode)
		cancel()
		now := time.Now()
		switch {
		case err != nil && ctx.Err() == nil:
			c.queue.away.failed(c.log, "the worker's lease could not be renewed", err)
			c.steadySince.Store(0)
		case err == nil && held && current.renewed(sent, now):
			mode = "renew"
			c.lease.Store(current)
			if c.steadySince.Load() == 0 {
				c.steadySince.Store(int64(now.Sub(c.began)) + 1)
			}
			if !announced {
				announced = true
				close(ready)
			}
		case err == nil:
			// Declared dead, or silent for too long: go on as somebody else, at once.
			c.log.Warn("the worker's lease has run out; attempts begun under it hand over nothing more")
			current.over.Store(true)
			c.underway.lapsed(current.worker)
			c.steadySince.Store(0)
			current, mode = newLease(now, c.leaseTime), "new"
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-c.settings.told:
		}
	}
}

// renewLease tells the others what this process sends with, too, and sees whether that is still what is active.
func (c *Consumer) renewLease(ctx context.Context, l *lease, mode string) (held bool, err error) {
	answer, err := c.queue.run(ctx, "lease", l.worker, mode, c.settings.state()).Slice()
	if err != nil {
		return false, err
	}
	if c.settings.behind(text(answer[1])) {
		c.settings.outdated(nil) // whoever follows sees what is active by now
	}
	return answer[0] == int64(1), nil
}

// endLease gives the lease up, so that what is left open need not wait for it to run out.
func (c *Consumer) endLease(ctx context.Context) {
	if l := c.lease.Load(); l != nil {
		l.over.Store(true)
		if err := c.queue.run(ctx, "lease", l.worker, "end", "").Err(); err != nil {
			c.queue.away.failed(c.log, "the worker's lease could not be given up; it runs out by itself", err)
		}
	}
}

// steady reports whether this process has had Redis without a gap for a whole lease: only then may it declare another
// worker dead, because else it may have been Redis that was away, for everybody.
func (c *Consumer) steady() bool {
	since, l := c.steadySince.Load(), c.lease.Load()
	return since != 0 && l != nil && l.live(time.Now()) && time.Since(c.began) >= time.Duration(since)+c.leaseTime
}
