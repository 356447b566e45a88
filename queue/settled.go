package queue

import (
	"context"
	"slices"
	"sync"
	"time"
)

// remembered is how many settlements a process keeps at hand after Redis has taken them.
const remembered = 8192

// settledOnce is a settlement that Redis has taken: what next.lua was called with.
type settledOnce struct {
	attempt string
	args    []any
	using   *using
}

// underway knows what a process has begun and not settled, and what it has settled of late. A fail-over of Redis can lose a settlement that the
// old master had taken: for the new one the attempt is still under way, and its unit out, until the attempt's deadline.
type underway struct {
	mu     sync.Mutex
	open   map[string]bool
	recent []settledOnce // a ring
	next   int
}

// begin notes an attempt before anybody else can know of it.
func (w *underway) begin(attempt string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open == nil {
		w.open = make(map[string]bool)
	}
	w.open[attempt] = true
}

// drop forgets an attempt that did not begin.
func (w *underway) drop(attempt string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, attempt)
}

// settled notes that Redis has taken what an attempt came to.
func (w *underway) settled(s settledOnce) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, s.attempt)
	if len(w.recent) < remembered {
		w.recent = append(w.recent, s)
		return
	}
	w.recent[w.next] = s
	w.next = (w.next + 1) % remembered
}

// find tells whether an attempt is open here, and else how it was settled, if that is still known.
func (w *underway) find(attempt string) (open bool, s *settledOnce) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open[attempt] {
		return true, nil
	}
	for i := range w.recent {
		if w.recent[i].attempt == attempt {
			found := w.recent[i]
			return false, &found
		}
	}
	return false, nil
}

// settleLost settles again what Redis takes for under way here and is not. It looks three times in each SweepInterval, and five times as
// often for a while after Redis was away, as then all units may be out for nothing.
func (c *Consumer) settleLost(ctx context.Context) {
	often := c.options.SweepInterval / 15
	for n := 1; pause(ctx, often) == nil; n++ {
		age := 5 * often
		if lost := c.lostRedis.Load(); lost != 0 && time.Since(c.began)-time.Duration(lost) < 2*c.options.SweepInterval {
			age = often
		} else if n%5 != 0 {
			continue
		}
		if err := c.settleLostOnce(ctx, age); err != nil && ctx.Err() == nil {
			c.log.Warn("what is under way could not be compared with Redis; trying again", "error", err)
		}
	}
}

// settleLostOnce looks at attempts that began as long ago as age, or longer.
func (c *Consumer) settleLostOnce(ctx context.Context, age time.Duration) error {
	l := c.lease.Load()
	again, gone := 0, 0
	for cursor := "0"; ; {
		values, err := c.queue.run(ctx, "own", l.worker, age.Milliseconds(), 100, cursor).StringSlice()
		if err != nil {
			return err
		}
		for v := values[1:]; len(v) >= 3; v = v[3:] {
			open, s := c.underway.find(v[0])
			switch {
			case open:
			case s != nil:
				args := slices.Clone(s.args)
				args[nextAttempt] = "" // it begins nothing
				answer, err := c.next(args, s.using)
				if err != nil {
					return err
				}
				if answer.settled != "known" && answer.settled != "late" {
					again++
				}
			default:
				n, err := c.queue.run(ctx, "abandon", v[0], v[1], v[2]).Int()
				if err != nil {
					return err
				}
				gone += n
			}
		}
		if cursor = values[0]; cursor == "0" {
			break
		}
	}
	c.queue.metrics.repairs.WithLabelValues("settlement").Add(float64(again + gone))
	if again+gone > 0 {
		c.log.Warn("Redis had lost what attempts came to, as by a fail-over", "settled_again", again, "unknown", gone)
	}
	return nil
}
