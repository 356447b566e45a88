package queue

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"
)

// CancelMessage ends a message that nobody is sending. It gives ErrTooLate if it is being sent or has ended otherwise, and
// nil if it was cancelled before.
func (q *Queue) CancelMessage(ctx context.Context, id string, options ...Option) error {
	by := optionsOf(options).by
	entry, err := q.noteOfCancel(ctx, id, by)
	if err != nil {
		return err
	}
	answers, err := q.cancel(ctx, []*found{{place: place{id: id}}}, by, entry)
	if err != nil {
		return err
	}
	switch answers[0] {
	case "none", "newer":
		return ErrNotFound
	case "too_late":
		return ErrTooLate
	}
	return nil
}

// cancel ends those messages that nobody is sending, with an entry for the audit ("": none) if there are such. It gives what
// lua/cancel.lua says of each.
func (q *Queue) cancel(ctx context.Context, messages []*found, by Author, entry string) ([]string, error) {
	args := append(make([]any, 0, 3+len(messages)), q.options.DeliveredMax, token(6), entry)
	for _, m := range messages {
		args = append(args, m.id)
	}
	answers, err := q.run(ctx, "cancel", args...).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("queue: cancel: %w", err)
	}
	for i, answer := range answers {
		if told, ended := strings.CutPrefix(answer, "ended:"); ended {
			e := parseTold(told)
			q.metrics.finished.WithLabelValues(string(e.kind), string(e.state)).Inc()
			e.log(q.log, slog.LevelInfo, "cancelled", "by", by.Name)
			answers[i] = "ended"
		}
	}
	return answers, nil
}

// CancelMessages cancels the messages that a filter selects, in steps: call it with the Next of each step until that is empty. For each it
// is what CancelMessage is: what is being sent is too late. What was accepted after a run began is not meant. A run that was
// killed can go on or begin anew, and its steps can be repeated: each message is cancelled, and counted as done, once.
//
// It takes the states queued and sending alone. Messages that a filter names, and that have ended, are too late, or were cancelled before;
// those that nobody knows are not counted.
//
// With an error, Done may lack what the last script did. ErrCursorOver says that the run has to begin anew.
func (q *Queue) CancelMessages(ctx context.Context, f MessageFilter, o SelectionOptions) (SelectionStep, error) {
	step := SelectionStep{Next: o.Cursor}
	if err := f.checkCancel(); err != nil {
		return step, err
	}
	s, err := q.scanMessages(ctx, f, o.Cursor, true)
	if err != nil {
		return step, err
	}
	if len(f.IDs) > 0 && len(f.States) == 0 {
		s.states = nil
	}
	step.Next, step.Before = s.cursor(), s.before
	for s.more(true, stepScan) {
		if err := s.step(ctx, math.MaxInt); err != nil {
			return step, err
		}
		if err := q.cancelSome(ctx, &step, s.selected, o.DryRun); err != nil {
			return step, err
		}
		s.selected = nil
		step.Scanned = s.scanned
	}
	step.Unreadable += s.unreadable
	if step.Left, step.Next, err = s.rest(ctx); err == nil && step.Next == "" && !o.DryRun {
		_ = q.prune(ctx) // what this leaves the sweep does
	}
	return step, err
}

// pruning is how long lanes are pruned in one go; the sweep goes on.
const pruning = 2 * time.Second

// prune drops entries of messages that have ended from lanes.
func (q *Queue) prune(ctx context.Context) error {
	for begun := time.Now(); time.Since(begun) < pruning; {
		more, err := q.run(ctx, "prune").Int()
		if err != nil {
			return fmt.Errorf("queue: prune: %w", err)
		}
		if more == 0 {
			return nil
		}
	}
	return nil
}

// cancelSome does, or counts, a piece of a selection.
func (q *Queue) cancelSome(ctx context.Context, step *SelectionStep, messages []*found, dry bool) error {
	var goes []*found
	for _, m := range messages {
		switch stateOf[m.record.head[headState]] {
		case Queued:
			goes = append(goes, m)
		case Cancelled:
			step.Cancelled++
		default:
			step.TooLate++
		}
	}
	if dry || len(goes) == 0 {
		step.Done += len(goes)
		return nil
	}
	answers, err := q.cancel(ctx, goes, Author{}, "")
	for _, answer := range answers {
		switch answer {
		case "ended":
			step.Done++
		case "cancelled":
			step.Cancelled++
		case "too_late":
			step.TooLate++
		case "newer":
			step.Unreadable++
		}
	}
	return err
}

// CancelBatch cancels every message of a batch that nobody is sending. From the first step on none of them begins, also if
// ctx ends before the last; the sweep finishes it then.
func (q *Queue) CancelBatch(ctx context.Context, id string, options ...Option) error {
	by, entry := optionsOf(options).by, ""
	if by != (Author{}) {
		s, err := q.Batch(ctx, id)
		if err == nil {
			entry, err = by.entry("batch.cancel", id, fmt.Sprintf("%d of its %d messages were open", s.Open, s.Total)).encode()
		}
		if err != nil {
			return err
		}
	}
	for all := 0; ; {
		answer, err := q.run(ctx, "cancel_batch", id, q.options.DeliveredMax, entry).Slice()
		if err != nil {
			return fmt.Errorf("queue: cancel batch: %w", err)
		}
		ended, _ := answer[1].(int64)
		if all += int(ended); ended > 0 {
			q.metrics.finished.WithLabelValues(string(kindOf[text(answer[2])]), string(Cancelled)).Add(float64(ended))
		}
		if answer[3] == int64(1) {
			q.log.LogAttrs(ctx, slog.LevelInfo, "batch cancelled: none of its messages begins any more",
				withText(nil, "batch", id, "kind", string(kindOf[text(answer[2])]), "by", by.Name)...)
		}
		for _, e := range toldAll(answer[4]) {
			e.log(q.log, slog.LevelInfo, "cancelled", "by", by.Name)
		}
		switch answer[0] {
		case int64(0):
			if all > 0 {
				q.log.Info("messages of a cancelled batch have ended", "batch", id, "kind", kindOf[text(answer[2])], "messages", all)
			}
			return nil
		case int64(-1):
			return ErrNotFound
		}
	}
}
