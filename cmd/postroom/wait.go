package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/queue"
)

// The first and the longest time between two looks at what is waited for; each is half as long again as the one before.
const (
	firstLook   = 200 * time.Millisecond
	longestLook = 5 * time.Second
)

// poll looks until done, ctx ends, or s.waitTimeout is over. A server that goes away for a moment is waited for.
func (s *sending) poll(ctx context.Context, look func(context.Context) (done bool, err error)) error {
	within := ctx
	if s.waitTimeout > 0 {
		var cancel context.CancelFunc
		within, cancel = context.WithTimeout(ctx, s.waitTimeout)
		defer cancel()
	}
	for delay := firstLook; ; delay = min(delay+delay/2, longestLook) {
		var done bool
		err := withRetries(within, patience(), func() (err error) {
			done, err = look(within)
			return err
		})
		if err == nil && !done {
			err = pause(within, delay)
		}
		switch {
		case ctx.Err() != nil:
			return &failure{code: exitInterrupted, err: ctx.Err(), hint: "What was handed in stays accepted: it is delivered without this command."}
		case within.Err() != nil:
			return fail(exitUndelivered, "not everything was delivered within %s; it stays accepted", s.waitTimeout)
		case err != nil:
			return fmt.Errorf("waiting: %w", err)
		case done:
			return nil
		}
	}
}

func (s *sending) waitForMessage(ctx context.Context, client *admin.Client, id string) error {
	var m *admin.MessageStatus
	err := s.poll(ctx, func(ctx context.Context) (_ bool, err error) {
		m, err = client.Message(ctx, id)
		return err == nil && m.State != queue.Queued && m.State != queue.Sending, err
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(s.words, stateWords(m.State))
	if m.State == queue.Delivered {
		return nil
	}
	return fail(exitUndelivered, "the message was not delivered: postroom message show %s", id)
}

// waitForBatches waits for all messages of the batches.
func (s *sending) waitForBatches(ctx context.Context, client *admin.Client, ids []string, total int) error {
	bar := newProgress(s.words, total, "finished")
	ended := make(map[string]admin.BatchCounts, len(ids))
	var sum admin.BatchCounts
	err := s.poll(ctx, func(ctx context.Context) (bool, error) {
		sum = admin.BatchCounts{}
		for _, id := range ids {
			counts, done := ended[id]
			if !done {
				b, err := client.Batch(ctx, id)
				if err != nil {
					return false, err
				}
				if counts = b.Counts; counts.Open == 0 {
					ended[id] = counts
				}
			}
			sum.Open += counts.Open
			sum.Delivered += counts.Delivered
			sum.Failed += counts.Failed
			sum.Cancelled += counts.Cancelled
			sum.Expired += counts.Expired
		}
		bar.show(total - sum.Open)
		return sum.Open == 0, nil
	})
	bar.clear()
	if err != nil {
		return err
	}
	fmt.Fprintf(s.words, "%s delivered (a bounce may still follow), %s failed, %s cancelled, %s expired.\n",
		thousands(sum.Delivered), thousands(sum.Failed), thousands(sum.Cancelled), thousands(sum.Expired))
	if lost := sum.Failed + sum.Cancelled + sum.Expired; lost > 0 {
		f := &failure{code: exitUndelivered, err: errors.New(thousands(lost) + " of " + thousands(total) + " messages were not delivered")}
		for _, id := range ids {
			if ended[id].Failed > 0 {
				f.hint += whoFailed(id) + "\n"
			}
		}
		f.hint = strings.TrimSuffix(f.hint, "\n")
		return f
	}
	return nil
}
