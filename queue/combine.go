package queue

import (
	"context"
	"errors"

	"github.com/postroom/postroom/mail"
)

// nextFields is the number of fields of one call in next.lua; nextWorker and nextAttempt are where among them the worker is, and the new
// attempt's id.
const (
	nextFields  = 21
	nextWorker  = 4
	nextAttempt = 5
)

// combiners is how many calls of next.lua may be under way at once: while Redis works off one, the next fills.
const combiners = 2

// mostCombined bounds how many turns share a call, so that Redis is never busy with one for long.
const mostCombined = 32

// nextCall is what one turn wants of next.lua.
type nextCall struct {
	args   []any
	using  *using // the settings that an attempt is to begin for; nil: none may begin
	answer *nextAnswer
	err    error
	done   chan struct{}
}

// next has a turn's call made, in company of those of other turns.
func (c *Consumer) next(args []any, u *using) (*nextAnswer, error) {
	call := &nextCall{args: args, using: u, done: make(chan struct{})}
	select {
	case c.calls <- call:
	case <-c.hard.Done():
		return nil, c.hard.Err()
	}
	<-call.done
	return call.answer, call.err
}

// combine makes the calls of turns that come at the same time together: what they have in common costs once. It adds no
// delay, as it waits for nobody.
func (c *Consumer) combine(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case first := <-c.calls:
			calls := []*nextCall{first}
			for full := false; !full && len(calls) < mostCombined; {
				select {
				case another := <-c.calls:
					calls = append(calls, another)
				default:
					full = true
				}
			}
			c.callAll(ctx, calls)
		}
	}
}

// callAll makes calls together that are for the same settings, which are all but in the moment in which others are loaded.
func (c *Consumer) callAll(ctx context.Context, calls []*nextCall) {
	for len(calls) > 0 {
		u, n := calls[0].using, 1
		for n < len(calls) && calls[n].using == u {
			n++
		}
		c.callNext(ctx, u, calls[:n])
		calls = calls[n:]
	}
}

func (c *Consumer) callNext(ctx context.Context, u *using, calls []*nextCall) {
	o, version := &c.options, ""
	if u != nil {
		version = u.version
	}
	args := make([]any, 0, 6+nextFields*len(calls))
	args = append(args, version, o.AttemptTimeout.Milliseconds(),
		c.queue.options.Weights[mail.Report], c.queue.options.Weights[mail.Subscription],
		c.queue.options.DeliveredMax, c.markedTwice())
	for _, call := range calls {
		args = append(args, call.args...)
	}
	answers, err := c.queue.run(ctx, "next", args...).Slice()
	if err == nil && len(answers) != len(calls) {
		err = errors.New("queue: next: unexpected number of answers")
	}
	for i, call := range calls {
		if call.err = err; err == nil {
			call.answer, call.err = parseNext(answers[i])
		}
		close(call.done)
	}
}
