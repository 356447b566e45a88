package admin

import (
	"context"
	"net/http"
	"reflect"
	"time"

	"github.com/postroom/postroom/queue"
)

// selectionTime is how long a request about a selection begins new steps. It is below the time-outs of clients, of what may
// stand between them and us, and of a shutdown.
const selectionTime = 3 * time.Second

type selectionInput struct{ original }

type selectionOutput struct{ Body Selected }

func (h *handler) requeueFailed(ctx context.Context, in *selectionInput) (*selectionOutput, error) {
	return h.onSelection(ctx, in.request, "requeued", h.queue.Requeue)
}

func (h *handler) deleteFailed(ctx context.Context, in *selectionInput) (*selectionOutput, error) {
	return h.onSelection(ctx, in.request, "deleted", h.queue.DeleteFailed)
}

// stepper is queue.Requeue or queue.DeleteFailed.
type stepper func(context.Context, queue.FailedFilter, queue.SelectionOptions) (queue.SelectionStep, error)

// onSelection answers a request that changes what a filter selects; done is what is done to it.
func (h *handler) onSelection(ctx context.Context, r *http.Request, done string, step stepper) (*selectionOutput, error) {
	var s Selection
	if err := read(r, h.limit, &s); err != nil {
		return nil, err
	}
	nothing := "Nothing was " + done + ". "
	f, faults := s.Filter.translate()
	p := badFilter(nothing, faults, inBody)
	switch empty := reflect.ValueOf(s.Filter).IsZero(); {
	case empty && !s.All:
		p.Errors = append(p.Errors, Fault{"/all", "has to be true if filter is empty: then all failed messages are meant"})
	case !empty && s.All:
		p.Errors = append(p.Errors, Fault{"/all", "can't be true beside a filter: leave out the one that is not meant"})
	}
	if p.Errors != nil {
		return nil, p
	}
	sum, err := h.steps(ctx, step, f, queue.SelectionOptions{Cursor: s.Cursor, DryRun: s.DryRun})
	if p := rejected(err, nothing, inBody); p != nil {
		return nil, p
	}
	who, _ := ctx.Value(callerKey{}).(caller)
	h.log.Info("failed messages "+done, "by", who.name, "done", sum.Done, "cancelled", sum.Cancelled, "unreadable", sum.Unreadable,
		"scanned", sum.Scanned, "left", sum.Left, "dry_run", s.DryRun, "all", s.All)
	if err != nil {
		// Logged in any case; what was done is worth more to whoever asked.
		if refusal := h.refused(ctx, err); sum.Done == 0 {
			return nil, refusal
		}
	}
	return &selectionOutput{sum}, nil
}

// steps does steps of a selection until all is done, its time is over or the client has gone, and gives their sum. With an
// error Next repeats the step that failed.
func (h *handler) steps(ctx context.Context, step stepper, f queue.FailedFilter, o queue.SelectionOptions) (sum Selected, err error) {
	// A step is done to its end also if nobody waits for it, so that what was done is known, and logged.
	whole := context.WithoutCancel(ctx)
	for begun := time.Now(); ; {
		one, err := step(whole, f, o)
		sum.Next = one.Next
		if err != nil {
			// What was done is not done again when the step is repeated; all else is counted again.
			if !o.DryRun {
				sum.Done += one.Done
			}
			return sum, err
		}
		sum.Done += one.Done
		sum.Cancelled += one.Cancelled
		sum.Unreadable += one.Unreadable
		sum.Scanned += one.Scanned
		sum.Left = one.Left
		if one.Next == "" || ctx.Err() != nil || time.Since(begun) >= h.patience {
			return sum, nil
		}
		o.Cursor = one.Next
	}
}
