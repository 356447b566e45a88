package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// mostConfirming is how many may wait for replicas at a time.
const mostConfirming = 16

// confirm waits until as many replicas as Options.WaitReplicas have what was accepted under an id, perhaps by an earlier request with
// this idempotency key.
func (q *Queue) confirm(ctx context.Context, id, key string) error {
	if q.options.WaitReplicas == 0 {
		return nil
	}
	// Each holds a connection while it waits; workers need theirs.
	patience := time.NewTimer(q.options.WaitTimeout)
	defer patience.Stop()
	select {
	case q.confirming <- struct{}{}:
		defer func() { <-q.confirming }()
	case <-patience.C:
		return ErrNotReplicated
	case <-ctx.Done():
		return fmt.Errorf("%w (%w)", ErrNotReplicated, ctx.Err())
	}
	var here, replicas int64
	q.metrics.scripts.WithLabelValues("confirm").Inc()
	// WAIT is about the writes of its own connection, so both go by one. Had a fail-over come since the mail was accepted, the write
	// would be the new master's, which may never have heard of the mail: so the script looks for it.
	err := q.redis.Watch(ctx, func(tx *redis.Tx) (err error) {
		if here, err = q.scripts["confirm"].Run(ctx, tx, q.keys(), id, key).Int64(); err != nil {
			return err
		}
		replicas, err = tx.Wait(ctx, q.options.WaitReplicas, q.options.WaitTimeout).Result()
		return err
	}, q.prefix)
	if err != nil {
		return fmt.Errorf("%w (%w)", ErrNotReplicated, err)
	}
	if here == 0 || replicas < int64(q.options.WaitReplicas) {
		return ErrNotReplicated
	}
	return nil
}
