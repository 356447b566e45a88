package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// What Attempt.Fence gives when others may take the attempt for lost.
var (
	// ErrLeaseLost: others may take this worker for dead.
	ErrLeaseLost = errors.New("queue: the worker's lease has run out")
	// ErrOverdue: the attempt has taken longer than ConsumerOptions.AttemptTimeout.
	ErrOverdue = errors.New("queue: the attempt has passed its deadline")
	// ErrTaken: somebody has taken the attempt for lost, and the message is no longer its own.
	ErrTaken = errors.New("queue: the attempt was taken for lost")
)

// Fence says whether the attempt may pass its point of no return. Call it directly before. Of kinds that are held when nobody
// knows whether they were sent it marks the record first, in one call of Redis: of what is not marked it is known that it was not.
func (a *Attempt) Fence() error {
	if a.twice {
		if err := a.mark(); err != nil {
			return err
		}
	}
	now := time.Now()
	if !a.lease.live(now) {
		return ErrLeaseLost
	}
	if now.After(a.deadline) {
		return ErrOverdue
	}
	a.fenced = true
	return nil
}

// markTime bounds how long Fence and Keep wait for Redis: the provider waits meanwhile.
const markTime = 5 * time.Second

// Keep notes in the record what is left of the message at the provider while it is not sent, such as a draft: attempts that
// follow have it in Kept. On an error it may be noted or not.
func (a *Attempt) Keep(kept string) error {
	c := a.turn.consumer
	ctx, cancel := context.WithTimeout(c.hard, markTime)
	defer cancel()
	noted, err := c.queue.run(ctx, "keep", a.MessageID, a.ID, strings.ReplaceAll(oneLine(kept), "\t", " ")).Int()
	switch {
	case err != nil:
		return fmt.Errorf("queue: keep: %w", err)
	case noted == 0:
		return ErrTaken
	}
	return nil
}

// mark notes in the record that the attempt is about to pass its point of no return.
func (a *Attempt) mark() error {
	c := a.turn.consumer
	ctx, cancel := context.WithTimeout(c.hard, markTime)
	defer cancel()
	marked, err := c.queue.run(ctx, "mark", a.MessageID, a.ID).Int()
	switch {
	case err != nil:
		return fmt.Errorf("queue: mark: %w", err)
	case marked == 0:
		return ErrTaken
	}
	c.underway.marked(a.ID, a.MessageID)
	return nil
}
