package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postroom/postroom/queue"
)

// selectionTime is how long a request about a selection begins new steps. It is below the time-outs of clients, of what may
// stand between them and us, and of a shutdown.
const selectionTime = 3 * time.Second

type selectionInput struct {
	original
	Accept string `header:"Accept" doc:"application/x-ndjson: all parts are done, one after the other, and each is a line of the answer."`
}

func (h *handler) requeueFailed(ctx context.Context, in *selectionInput) (*huma.StreamResponse, error) {
	return h.onSelection(ctx, in, "requeued", h.queue.Requeue)
}

func (h *handler) deleteFailed(ctx context.Context, in *selectionInput) (*huma.StreamResponse, error) {
	return h.onSelection(ctx, in, "deleted", h.queue.DeleteFailed)
}

// stepper is queue.Requeue or queue.DeleteFailed.
type stepper func(context.Context, queue.FailedFilter, queue.SelectionOptions) (queue.SelectionStep, error)

// onSelection answers a request that changes what a filter selects; done is what is done to it.
func (h *handler) onSelection(ctx context.Context, in *selectionInput, done string, step stepper) (*huma.StreamResponse, error) {
	var s Selection
	if err := h.read(&in.original, &s); err != nil {
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
	part := func(cursor string) (Selected, error) {
		s.Cursor = cursor
		return h.part(ctx, &s, f, done, step)
	}
	sum, err := part(s.Cursor)
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(out huma.Context) {
		if asksForLines(in.Accept) {
			tellParts(h.tellingTo(&in.original, out), sum, part)
			return
		}
		out.SetHeader("Content-Type", "application/json")
		_ = json.NewEncoder(out.BodyWriter()).Encode(sum)
	}}, nil
}

// tellParts goes on with a selection until all of it is done or the client has gone, and writes a line after each part: what was done
// so far, and the cursor that goes on from there. What stops it before the end is a problem in the last line.
func tellParts(t *telling, sum Selected, part func(cursor string) (Selected, error)) {
	for {
		if t.line(sum) != nil || sum.Next == "" {
			return
		}
		one, err := part(sum.Next)
		if err != nil {
			var p *Problem
			if errors.As(err, &p) {
				t.end(p, sum.Next)
			}
			return
		}
		one.Done += sum.Done
		one.Cancelled += sum.Cancelled
		one.Unreadable += sum.Unreadable
		one.Scanned += sum.Scanned
		sum = one
	}
}

// part does a part of a selection, and notes it.
func (h *handler) part(ctx context.Context, s *Selection, f queue.FailedFilter, done string, step stepper) (Selected, error) {
	action := map[string]string{"requeued": "failed.requeue", "deleted": "failed.delete"}[done]
	if !s.DryRun && s.Cursor == "" {
		if err := h.queue.Note(ctx, h.entry(ctx, action, "", "began: "+s.Filter.words())); err != nil {
			return Selected{}, h.refused(ctx, err)
		}
	}
	sum, err := h.steps(ctx, step, f, queue.SelectionOptions{Cursor: s.Cursor, DryRun: s.DryRun})
	if p := rejected(err, "Nothing was "+done+". ", inBody); p != nil {
		return Selected{}, p
	}
	who := authorOf(ctx)
	if !s.DryRun && sum.Done > 0 {
		noted := h.queue.Note(context.WithoutCancel(ctx), h.entry(ctx, action, "", fmt.Sprintf("%s %s", counted(sum.Done, "message", "messages"), done)))
		if noted != nil { // that it began is noted
			h.log.Error("the audit lacks an entry", "action", action, "error", noted)
		}
	}
	h.log.Info("failed messages "+done, "by", who.Name, "done", sum.Done, "cancelled", sum.Cancelled, "unreadable", sum.Unreadable,
		"scanned", sum.Scanned, "left", sum.Left, "dry_run", s.DryRun, "all", s.All)
	if err != nil {
		// Logged in any case; what was done is worth more to whoever asked.
		if refusal := h.refused(ctx, err); sum.Done == 0 {
			return Selected{}, refusal
		}
	}
	return sum, nil
}

// words says what a filter selects, without recipients and without what somebody looked for in replies, as that can name them.
func (f *FailedFilter) words() string {
	var words []string
	add := func(name, value string) {
		if value != "" {
			words = append(words, name+" "+value)
		}
	}
	add("kind", string(f.Kind))
	add("class", strings.Join(f.Classes, ", "))
	add("mailbox", f.Mailbox)
	add("batch", f.BatchID)
	if f.Recipient != "" {
		words = append(words, "of one recipient or domain")
	}
	if f.Reply != "" {
		words = append(words, "by words of the reply")
	}
	if len(f.IDs) == 1 {
		add("id", f.IDs[0])
	} else if len(f.IDs) > 1 {
		words = append(words, fmt.Sprintf("%d ids", len(f.IDs)))
	}
	for name, at := range map[string]time.Time{"from": f.From, "until": f.Until} {
		if !at.IsZero() {
			add(name, at.UTC().Format(time.RFC3339))
		}
	}
	if words == nil {
		return "all failed messages"
	}
	slices.Sort(words)
	return strings.Join(words, "; ")
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
