package queue

import (
	"context"
	"slices"
	"sync"
	"time"
)

// remembered is how many settlements a process keeps at hand after Redis has taken them, and rememberedBytes how many bytes of what they
// say: a server may have refused hundreds of recipients, each in its own words.
const (
	remembered      = 8192
	rememberedBytes = 16 << 20
)

// formerLeases is how many of its former leases a process remembers. What began under an older one has ended long ago.
const formerLeases = 32

// settledOnce is a settlement that Redis has taken: what next.lua was called with.
type settledOnce struct {
	attempt string
	args    []any
	using   *using
	bytes   int
}

// underway knows what a process has begun and not settled, and what it has settled of late. A fail-over of Redis can lose a settlement that the
// old master had taken: for the new one the attempt is still under way, and its unit out, until the attempt's deadline.
type underway struct {
	mu     sync.Mutex
	open   map[string]string // the message, if it is past its point of no return and its record was marked so
	recent map[string]settledOnce
	order  []string // of recent, oldest first
	bytes  int      // of recent
	former []string // workers of leases that ran out, oldest first
}

// lapsed notes that a lease has run out.
func (w *underway) lapsed(worker string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.former = append(w.former, worker); len(w.former) > formerLeases {
		w.former = slices.Delete(w.former, 0, 1)
	}
}

// begin notes an attempt before anybody else can know of it.
func (w *underway) begin(attempt string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open == nil {
		w.open = make(map[string]string)
	}
	w.open[attempt] = ""
}

// marked notes that an attempt's record has been marked a second time.
func (w *underway) marked(attempt, message string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open[attempt] = message
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
	if w.recent == nil {
		w.recent = make(map[string]settledOnce)
	}
	for _, arg := range s.args {
		if text, ok := arg.(string); ok {
			s.bytes += len(text)
		}
	}
	if _, again := w.recent[s.attempt]; again {
		return // it was settled anew: what it came to is the same
	}
	w.recent[s.attempt] = s
	w.order = append(w.order, s.attempt)
	for w.bytes += s.bytes; len(w.order) > remembered || w.bytes > rememberedBytes; {
		w.bytes -= w.recent[w.order[0]].bytes
		delete(w.recent, w.order[0])
		w.order = w.order[1:]
	}
}

// find tells whether an attempt is open here, and of which message if that was marked a second time; else how it was settled, if that is
// still known.
func (w *underway) find(attempt string) (open bool, marked string, s *settledOnce) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if marked, open = w.open[attempt]; open {
		return true, marked, nil
	}
	if found, ok := w.recent[attempt]; ok {
		return false, "", &found
	}
	return false, "", nil
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
			c.queue.away.failed(c.log, "what is under way could not be compared with Redis; trying again", err)
		}
	}
}

// settleLostOnce looks at attempts that began as long ago as age, or longer.
func (c *Consumer) settleLostOnce(ctx context.Context, age time.Duration) error {
	l := c.lease.Load()
	c.underway.mu.Lock()
	former := slices.Clone(c.underway.former)
	c.underway.mu.Unlock()
	again, gone := 0, 0
	for cursor := "0"; ; {
		args := []any{age.Milliseconds(), 100, cursor, l.worker}
		for _, worker := range former {
			args = append(args, worker)
		}
		values, err := c.queue.run(ctx, "own", args...).StringSlice()
		if err != nil {
			return err
		}
		for v := values[1:]; len(v) >= 4; v = v[4:] {
			open, marked, s := c.underway.find(v[0])
			switch {
			case marked != "":
				// A fail-over can have lost the mark, too.
				if err := c.queue.run(ctx, "mark", marked, v[0]).Err(); err != nil {
					return err
				}
			case open:
			case s != nil:
				args := slices.Clone(s.args)
				// It begins nothing, and what else is under way in the unit is not a dead worker's.
				args[nextWorker], args[nextAttempt] = l.worker, ""
				answer, err := c.next(args, s.using)
				if err != nil {
					return err
				}
				if answer.settled != "known" && answer.settled != "late" {
					again++
				}
			case v[3] == "":
				// The lease that it began under is over: the sweep ends it.
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
