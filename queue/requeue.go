package queue

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// SelectionOptions say how a step of Requeue, DeleteFailed or CancelMessages is to be done.
type SelectionOptions struct {
	// Cursor is the Next of the step before; empty for the first.
	Cursor string
	// DryRun counts what would be done, and changes nothing.
	DryRun bool
}

// SelectionStep is what a step of Requeue, DeleteFailed or CancelMessages did.
type SelectionStep struct {
	// Done is how many messages were requeued, deleted or cancelled; in a dry run, how many would be.
	Done int
	// Cancelled is how many were not requeued because their batch has been cancelled: they stay in the failed store. Of CancelMessages
	// it is how many of those named had been cancelled before.
	Cancelled int
	// TooLate is how many were not cancelled because they were being sent, or, of those named, had ended.
	TooLate int
	// Unreadable is how many were left alone because a newer program wrote them: this one can't tell whether the filter
	// selects them.
	Unreadable int
	// Scanned is how many messages were looked at; Left is about how many are left to look at in further steps.
	Scanned, Left int
	// Next is the cursor of the step that follows; empty when all is done. Beside an error it is the cursor to repeat the step
	// with: what it has done by then is not done again.
	Next string
	// Before bounds what CancelMessages means: nothing that was accepted at this time or later.
	Before time.Time
}

// stepScan is how many messages a step looks at.
const stepScan = 2000

// Requeue queues the failed messages that a filter selects, newest first, in steps of at most 2000 messages looked at: call it
// with the Next of each step until that is empty. What a run requeues and has failed again by the time it ends stays failed: a
// run selects only what failed before its first step. A run that was killed can go on, or begin anew; nothing is doubled, as
// each message leaves the failed store in the same moment in which it is queued.
//
// A requeued message goes to every recipient who does not have it, those that were refused too: whoever requeues has put the
// cause right. That includes one whose fate is unknown. Attempts count from now on; the history stays. An expires_at that has
// passed no longer counts; one that is yet to come does. Limits, holds and pauses bind as ever. Within a batch requeued
// messages come before what is new; single ones of a sender and kind take turns with that sender's new ones.
//
// With an error, Done may lack what the last script did.
func (q *Queue) Requeue(ctx context.Context, f FailedFilter, o SelectionOptions) (SelectionStep, error) {
	return q.eachFailed(ctx, f, o, func(ctx context.Context, step *SelectionStep, messages []*found) error {
		goes := slices.DeleteFunc(messages, func(m *found) bool { return m.batch.cancelled })
		step.Cancelled += len(messages) - len(goes)
		if o.DryRun || len(goes) == 0 {
			step.Done += len(goes)
			return nil
		}
		counts, err := q.run(ctx, "requeue", selected(token(6), goes)...).Slice()
		if err != nil {
			return fmt.Errorf("queue: requeue: %w", err)
		}
		step.Done += number(counts[0])
		step.Cancelled += number(counts[1])
		step.Unreadable += number(counts[2])
		q.logChanged(ctx, "requeued", goes, counts[3])
		return nil
	})
}

// DeleteFailed deletes the failed messages that a filter selects, with their content and all else that is known of them, in
// steps like those of Requeue. Their batches go on counting them as failed.
func (q *Queue) DeleteFailed(ctx context.Context, f FailedFilter, o SelectionOptions) (SelectionStep, error) {
	return q.eachFailed(ctx, f, o, func(ctx context.Context, step *SelectionStep, messages []*found) error {
		if o.DryRun {
			step.Done += len(messages)
			return nil
		}
		counts, err := q.run(ctx, "delete", selected(q.options.DeliveredMax, messages)...).Slice()
		if err != nil {
			return fmt.Errorf("queue: delete failed: %w", err)
		}
		step.Done += number(counts[0])
		step.Unreadable += number(counts[1])
		q.logChanged(ctx, "deleted", messages, counts[2])
		return nil
	})
}

// eachFailed does one step: it calls act for each piece of what the filter selects.
func (q *Queue) eachFailed(ctx context.Context, f FailedFilter, o SelectionOptions,
	act func(ctx context.Context, step *SelectionStep, messages []*found) error) (SelectionStep, error) {
	step := SelectionStep{Next: o.Cursor}
	if o.Cursor == "" {
		// The run begins now: what fails later is not meant.
		now, err := q.now(ctx)
		if err != nil {
			return step, fmt.Errorf("queue: failed: %w", err)
		}
		step.Next = place{now.UnixMilli(), lastID}.cursor()
	}
	s, err := q.scanFailed(ctx, f, step.Next)
	if err != nil {
		return step, err
	}
	for !s.over && s.scanned < stepScan {
		if err := s.step(ctx, stepScan, scanPiece); err != nil {
			return step, err
		}
		if len(s.selected) > 0 {
			if err := act(ctx, &step, s.selected); err != nil {
				return step, err
			}
		}
		s.selected = nil
		step.Scanned = s.scanned
	}
	step.Unreadable += s.unreadable
	left, next, err := s.rest(ctx)
	if err != nil {
		return step, err
	}
	step.Left, step.Next = left, next
	return step, nil
}

// selected are the arguments of a script that changes messages: each with the time at which it failed, so that one that has
// failed again since is left alone.
func selected(first any, messages []*found) []any {
	args := append(make([]any, 0, 1+2*len(messages)), first)
	for _, m := range messages {
		args = append(args, m.id, m.record.head[headWhen])
	}
	return args
}

// number reads an integer of a script's answer.
func number(v any) int {
	n, _ := v.(int64)
	return int(n)
}
