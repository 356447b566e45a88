package queue

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
)

// sweepInterval is how often one process sweeps unless options say otherwise.
const sweepInterval = 15 * time.Second

// doubtful is how long a turn may be out without having begun before the sweep asks whether its task still exists.
const doubtful = 10 * time.Second

// sweep puts right, each SweepInterval, what processes that died have left open: nothing may outlive its reason.
func (c *Consumer) sweep(ctx context.Context) {
	for pause(ctx, c.options.SweepInterval) == nil {
		if err := c.sweepOnce(ctx); err != nil && ctx.Err() == nil {
			c.queue.away.failed(c.log, "the sweep stopped half-way; the next one goes on", err)
		}
	}
}

func (c *Consumer) sweepOnce(ctx context.Context) error {
	if !c.steady() {
		return nil
	}
	// One process sweeps at a time. This saves work; it would be right without.
	l := c.lease.Load()
	claimed, err := c.queue.run(ctx, "claim", "sweep", l.worker, (c.options.SweepInterval * 9 / 10).Milliseconds()).Int()
	if err != nil || claimed == 0 {
		return err
	}
	if err := c.sweepTurns(ctx); err != nil {
		return err
	}
	return c.queue.tidyOnce(ctx, l.worker, c.options.SweepInterval)
}

// Tend does, until ctx ends, what of the sweep needs no worker: a process that only accepts mail does it, so that mail expires, and
// what nobody finishes is dropped, also while no worker runs.
func (q *Queue) Tend(ctx context.Context) {
	holder := token(8)
	for {
		if err := q.tidyOnce(ctx, holder, sweepInterval); err != nil && ctx.Err() == nil {
			q.log.Warn("tidying up stopped half-way; the next time it goes on", "error", err)
		}
		if pause(ctx, sweepInterval) != nil {
			return
		}
	}
}

// tidyOnce tidies up, unless another process has just done so.
func (q *Queue) tidyOnce(ctx context.Context, holder string, interval time.Duration) error {
	claimed, err := q.run(ctx, "claim", "tidy", holder, (interval * 9 / 10).Milliseconds()).Int()
	if err != nil || claimed == 0 {
		return err
	}
	return q.tidy(ctx)
}

// What is known of an attempt whose worker is gone: nothing, or that it had handed nothing over.
var (
	lostAttempt   = mail.Outcome{Class: mail.Unknown, Cause: mail.WorkerGone, Reply: "The worker was gone before the outcome was known."}
	unsentAttempt = mail.Outcome{Class: mail.Temporary, Cause: mail.WorkerGone, Reply: "The worker was gone before it handed anything over."}
)

// gone is such an outcome in a history, to stand behind the worker.
func gone(o mail.Outcome) string { return historyLine("", []int{0}, []mail.Outcome{o})[1:] }

// sweepTurns ends turns and attempts of dead workers and attempts past their deadline.
func (c *Consumer) sweepTurns(ctx context.Context) error {
	m := c.queue.metrics
	u := c.settings.current()
	policy := func(k mail.Kind) string {
		if p := c.options.OnUnknown[k]; p != "" && (u == nil || !u.loaded.Verifies) {
			return string(p)
		}
		return string(Resend)
	}
	for cursor := "0"; ; {
		values, err := c.queue.run(ctx, "sweep", c.leaseTime.Milliseconds(), token(6), doubtful.Milliseconds(),
			policy(mail.Alert), policy(mail.Report), policy(mail.Subscription), gone(lostAttempt), mail.Unknown.String(),
			gone(unsentAttempt), mail.Temporary.String(), 100, cursor,
			c.queue.options.DeliveredMax).Slice()
		if err != nil {
			return err
		}
		ended := toldAll(values[1])
		for _, e := range ended {
			e.log(c.log, slog.LevelWarn, "attempt ended by others: its worker is gone, or it was too long")
		}
		turns, _ := values[2].(int64)
		m.repairs.WithLabelValues("attempt").Add(float64(len(ended)))
		m.repairs.WithLabelValues("turn").Add(float64(turns))
		if turns > 0 {
			c.log.Warn("turns of dead workers were ended", "turns", turns, "attempts", len(ended))
		}
		for i := 3; i+2 < len(values); i += 3 {
			if err := c.checkTurn(ctx, text(values[i]), text(values[i+1]), text(values[i+2])); err != nil {
				return err
			}
		}
		if cursor = text(values[0]); cursor == "0" {
			return nil
		}
	}
}

// checkTurn takes a unit back from a turn that has not begun, if its task no longer waits for a worker.
func (c *Consumer) checkTurn(ctx context.Context, turn, key, unit string) error {
	waits, err := c.pending(turn)
	if err != nil || waits {
		return err
	}
	taken, err := c.queue.run(ctx, "withdraw", turn, key, unit).Int()
	if err == nil && taken == 1 {
		c.queue.metrics.repairs.WithLabelValues("task").Inc()
	}
	return err
}

// tidy ends what has expired, drops what has been kept long enough, what was staged and never committed, files that nobody refers to, and
// entries of messages that have ended, and finishes cancelled batches. Its steps
// are bounded, and nothing hangs on when they happen.
func (q *Queue) tidy(ctx context.Context) error {
	if err := q.expire(ctx); err != nil {
		return err
	}
	if err := q.forget(ctx); err != nil {
		return err
	}
	now, err := q.now(ctx)
	if err != nil {
		return err
	}
	overdue, err := q.redis.ZRangeByScore(ctx, q.key("staged"),
		&redis.ZRangeBy{Min: "-inf", Max: strconv.FormatInt(now.UnixMilli(), 10), Count: 100}).Result()
	if err != nil {
		return err
	}
	for _, id := range overdue {
		for more := 1; more == 1; {
			if more, err = q.run(ctx, "drop", id, "overdue").Int(); err != nil {
				return err
			}
		}
		q.metrics.repairs.WithLabelValues("staged").Inc()
	}
	for more := int64(1); more == 1; {
		values, err := q.run(ctx, "forget_contents", "").Int64Slice()
		if err != nil {
			return err
		}
		q.metrics.repairs.WithLabelValues("staged").Add(float64(values[2]))
		more = values[0]
	}
	if err := q.prune(ctx); err != nil {
		return err
	}
	cancelled, err := q.redis.SRandMemberN(ctx, q.key("cancelling"), 20).Result()
	if err != nil {
		return err
	}
	for _, id := range cancelled {
		if err := q.CancelBatch(ctx, id); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return nil
}

// expire ends mail that waits and whose expires_at has passed, whatever it waits for.
func (q *Queue) expire(ctx context.Context) error {
	for more := true; more; {
		values, err := q.run(ctx, "expire", q.options.DeliveredMax).Slice()
		if err != nil {
			return err
		}
		for _, e := range toldAll(values[1]) {
			q.metrics.finished.WithLabelValues(string(e.kind), string(e.state)).Inc()
			e.log(q.log, slog.LevelInfo, string(e.state))
		}
		for of := range slices.Chunk(values[2:], 3) {
			kind := kindOf[text(of[2])]
			q.metrics.finished.WithLabelValues(string(kind), string(Expired)).Add(float64(number(of[1])))
			q.log.Info("messages of a batch have expired", "batch", text(of[0]), "kind", kind, "messages", number(of[1]))
		}
		more = values[0] == int64(1)
	}
	return nil
}

// forget drops records that have been kept long enough.
func (q *Queue) forget(ctx context.Context) error {
	for more := int64(1); more == 1; {
		values, err := q.run(ctx, "forget", q.options.DeliveredFor.Milliseconds(), q.options.FailedFor.Milliseconds(),
			q.options.DeliveredMax).Int64Slice()
		if err != nil {
			return err
		}
		q.metrics.repairs.WithLabelValues("failed_dropped").Add(float64(values[1]))
		more = values[0]
	}
	return nil
}
