package queue

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// dispatch hands out turns: when it is woken, when something falls due, when a hold ends. It waits at the list "wake",
// where a script leaves one entry when there is something to do; so exactly one of all processes wakes. What it would have
// done, had it died in between, the next wake or the sweep does.
func (c *Consumer) dispatch(ctx context.Context) {
	waiter := c.queue.dedicated(c.options.SweepInterval + 5*time.Second)
	// A call that waits does not see the end of ctx; losing its connection ends it.
	closed := context.AfterFunc(ctx, func() { _ = waiter.Close() })
	defer func() {
		if closed() {
			_ = waiter.Close()
		}
	}()
	wait := time.Duration(0)
	for ctx.Err() == nil {
		if wait > 0 {
			// go-redis's own BLPop knows whole seconds only; to Redis 0 means for ever.
			seconds := strconv.FormatFloat(max(wait, 10*time.Millisecond).Seconds(), 'f', 3, 64)
			err := waiter.Do(ctx, "BLPOP", c.queue.key("wake"), seconds).Err()
			if err != nil && !errors.Is(err, redis.Nil) {
				if ctx.Err() == nil {
					c.lostRedis.Store(int64(time.Since(c.began)))
					c.queue.away.failed(c.log, "the dispatcher has lost Redis", err)
				}
				if pause(ctx, time.Second) != nil {
					return
				}
			}
		}
		next, err := c.dispatchOnce(ctx, "")
		if err != nil && ctx.Err() == nil {
			c.queue.away.failed(c.log, "turns could not be handed out; trying again", err)
			next = time.Second
		} else if err == nil {
			c.queue.away.over(c.log)
		}
		wait = next
	}
}

// dedicated gives a client of its own to the same Redis, for a call that waits, to be closed without closing the other.
func (q *Queue) dedicated(readTimeout time.Duration) redis.UniversalClient {
	if c, ok := q.redis.(*redis.ClusterClient); ok {
		o := *c.Options()
		o.ReadTimeout, o.PushNotificationProcessor, o.ConnMaxLifetime = readTimeout, nil, time.Minute
		return redis.NewClusterClient(&o)
	}
	o := *q.redis.(*redis.Client).Options()
	o.PoolSize, o.MinIdleConns, o.ReadTimeout, o.PushNotificationProcessor = 1, 0, readTimeout, nil
	o.ConnMaxLifetime = time.Minute // after a fail-over it must not wait at the old server for long
	return redis.NewClient(&o)
}

// dispatchPause is how long a dispatcher waits at most: for what others left undone that died, and woke nobody.
const dispatchPause = 5 * time.Second

// handout is what one run of dispatch.lua answers.
type handout struct {
	wait  time.Duration // until something falls due
	looks []look
	turns []*Turn
	alert []bool // of each turn: it was given out for an alert
}

// look is a key that this process has undertaken to look at.
type look struct {
	key string
	in  time.Duration
}

// handOut runs dispatch.lua, with a key to look at besides those that were flagged, or "".
func (q *Queue) handOut(ctx context.Context, key string) (*handout, error) {
	values, err := q.run(ctx, "dispatch", token(10), key).Slice()
	if err != nil {
		return nil, err
	}
	h := &handout{wait: dispatchPause}
	if ms, _ := values[0].(int64); ms >= 0 {
		h.wait = min(h.wait, time.Duration(ms)*time.Millisecond)
	}
	n, _ := values[1].(int64)
	values = values[2:]
	for range n {
		ms, _ := values[1].(int64)
		h.looks = append(h.looks, look{text(values[0]), time.Duration(ms) * time.Millisecond})
		values = values[2:]
	}
	for ; len(values) >= 4; values = values[4:] {
		h.turns = append(h.turns, &Turn{id: text(values[0]), key: text(values[1]), unit: text(values[2])})
		h.alert = append(h.alert, text(values[3]) == "alert")
	}
	return h, nil
}

// handOutTime bounds a step of the dispatcher, which the end of the process does not cut: a unit that was given to a turn whose task
// nobody made would stand still until the sweep finds it.
const handOutTime = 5 * time.Second

// dispatchOnce runs one step and says how long nothing is known to fall due.
func (c *Consumer) dispatchOnce(ctx context.Context, key string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), handOutTime)
	defer cancel()
	h, err := c.queue.handOut(ctx, key)
	if err != nil {
		return 0, err
	}
	for _, l := range h.looks {
		c.lookLater(l.key, l.in)
	}
	var failed error
	for i, t := range h.turns {
		if h.alert[i] && c.runIn(c.here, t) {
			continue // nothing is faster than whoever is awake
		}
		if err := c.hand(ctx, t, h.alert[i]); err != nil {
			// As when Redis has reached its maxmemory: mail that goes out is what makes room again.
			if c.runIn(c.here, t) {
				continue
			}
			// The unit is given to a turn that nobody will ever run: take it back, or leave it to the sweep.
			_ = c.queue.run(ctx, "withdraw", t.id, t.key, t.unit).Err()
			failed = err
		}
	}
	if failed != nil {
		return 0, failed
	}
	return h.wait, nil
}

// runIn works off a turn in this process, without asynq. It reports whether one of hands is free for it; none is while the process
// can't send.
func (c *Consumer) runIn(hands chan struct{}, t *Turn) bool {
	if c.settings.current() == nil {
		return false
	}
	select {
	case hands <- struct{}{}:
	default:
		return false
	}
	if !c.begins() {
		<-hands
		return false
	}
	free := c.start(t)
	go func() {
		<-free
		<-hands
	}()
	return true
}

// pending reports whether asynq still has a turn's task where somebody will take it. One that somebody took, and who has not
// begun it by now, died in between: asynq itself would bring it back after a minute or two.
func (c *Consumer) pending(turn string) (bool, error) {
	for _, name := range []string{c.alerts, c.mail} {
		info, err := c.inspect.GetTaskInfo(name, turn)
		if errors.Is(err, asynq.ErrTaskNotFound) || errors.Is(err, asynq.ErrQueueNotFound) {
			continue
		}
		if err != nil {
			return false, err
		}
		return info.State == asynq.TaskStatePending, nil
	}
	return false, nil
}
