package queue

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// pipelines is how many pipelines may be under way at once: while Redis works off one, the next fills.
const pipelines = 2

// mostPiped bounds how many calls share a pipeline, so that the first need not wait long for the last.
const mostPiped = 32

// piped is one call of a script that waits for its place in a pipeline.
type piped struct {
	name   string
	args   []any
	result *redis.Cmd
	done   chan struct{}
}

// pipe sends calls of scripts that many goroutines make at the same time in one write, and reads their answers together:
// alone, each of them costs both sides a system call or two. It adds no delay: a call goes at once if no pipeline is full.
func (q *Queue) pipe(ctx context.Context, calls <-chan *piped) {
	for {
		select {
		case <-ctx.Done():
			return
		case first := <-calls:
			batch := []*piped{first}
			for full := false; !full && len(batch) < mostPiped; {
				select {
				case c := <-calls:
					batch = append(batch, c)
				default:
					full = true
				}
			}
			q.runAll(ctx, batch)
		}
	}
}

func (q *Queue) runAll(ctx context.Context, batch []*piped) {
	p := q.redis.Pipeline()
	for _, c := range batch {
		q.metrics.scripts.WithLabelValues(c.name).Inc()
		c.result = scripts[c.name].EvalSha(ctx, p, []string{q.prefix}, c.args...)
	}
	_, _ = p.Exec(ctx) // each call has its own error
	for _, c := range batch {
		if redis.HasErrorPrefix(c.result.Err(), "NOSCRIPT") {
			c.result = scripts[c.name].Eval(ctx, q.redis, []string{q.prefix}, c.args...)
		}
		close(c.done)
	}
}
