package queue

import (
	"sync"
	"time"

	"github.com/postroom/postroom/throttle"
)

// looks are the limit keys that this process has undertaken to look at: when a limit has room again, or a hold ends. A
// turn that a limit ends is over, so nobody waits for one; the process in which it ended takes up the key again at the moment
// that next.lua told it. Should it die before, others find its keys overdue in "looks".
type looks struct {
	mu     sync.Mutex
	timers map[string]*time.Timer
	closed bool
}

// lookLater has this process look at a key; the time that was asked for last counts, as it is the one in "looks".
func (c *Consumer) lookLater(key string, in time.Duration) {
	l := &c.looks
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if l.timers == nil {
		l.timers = map[string]*time.Timer{}
	}
	if t := l.timers[key]; t != nil {
		t.Stop()
	}
	var timer *time.Timer
	timer = time.AfterFunc(in, func() {
		l.mu.Lock()
		if l.timers[key] == timer {
			delete(l.timers, key)
		}
		closed := l.closed
		l.mu.Unlock()
		if !closed {
			c.look(key)
		}
	})
	l.timers[key] = timer
}

// stopLooks forgets them; others find them overdue.
func (c *Consumer) stopLooks() {
	c.looks.mu.Lock()
	defer c.looks.mu.Unlock()
	c.looks.closed = true
	for _, t := range c.looks.timers {
		t.Stop()
	}
	clear(c.looks.timers)
}

// look begins a turn of the key in this process, on whichever unit is not out. It needs neither dispatcher nor asynq; only
// if this process has no hand free, somebody else is asked.
func (c *Consumer) look(key string) {
	if key != throttle.Provider && c.runIn(c.looking, &Turn{id: token(10), key: key}) {
		return
	}
	if _, err := c.dispatchOnce(c.stopping, key); err != nil && c.stopping.Err() == nil {
		c.queue.away.failed(c.log, "a limit key could not be looked at; the dispatcher will", err, "key", key)
	}
}
