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
	return h.onFailed(ctx, in, selecting{done: "requeued", action: "failed.requeue"}, h.queue.Requeue)
}

func (h *handler) deleteFailed(ctx context.Context, in *selectionInput) (*huma.StreamResponse, error) {
	return h.onFailed(ctx, in, selecting{done: "deleted", action: "failed.delete"}, h.queue.DeleteFailed)
}

func (h *handler) onFailed(ctx context.Context, in *selectionInput, g selecting,
	step func(context.Context, queue.FailedFilter, queue.SelectionOptions) (queue.SelectionStep, error)) (*huma.StreamResponse, error) {
	var s Selection
	if err := h.read(&in.original, &s); err != nil {
		return nil, err
	}
	f, faults := s.Filter.translate()
	g.what, g.words, g.empty, g.faults = "failed messages", s.Filter.words(), reflect.ValueOf(s.Filter).IsZero(), faults
	g.all, g.dryRun, g.cursor = s.All, s.DryRun, s.Cursor
	g.step = func(ctx context.Context, o queue.SelectionOptions) (queue.SelectionStep, error) {
		return step(ctx, f, o)
	}
	return h.onSelection(ctx, in, &g)
}

// selecting is a request that changes what a filter selects.
type selecting struct {
	what, done, action string // failed messages, requeued; what the audit calls it
	words              string // what the filter selects
	empty              bool   // the filter says nothing
	faults             []Fault
	all, dryRun        bool
	cursor             string
	step               func(context.Context, queue.SelectionOptions) (queue.SelectionStep, error)
}

// nothing begins the detail of a refusal.
func (g *selecting) nothing() string { return "Nothing was " + g.done + ". " }

// onSelection answers a request that changes what a filter selects.
func (h *handler) onSelection(ctx context.Context, in *selectionInput, g *selecting) (*huma.StreamResponse, error) {
	p := badFilter(g.nothing(), g.faults, inBody)
	switch {
	case g.empty && !g.all:
		p.Errors = append(p.Errors, Fault{"/all", "has to be true if filter is empty: then all " + g.what + " are meant"})
	case !g.empty && g.all:
		p.Errors = append(p.Errors, Fault{"/all", "can't be true beside a filter: leave out the one that is not meant"})
	}
	if p.Errors != nil {
		return nil, p
	}
	part := func(cursor string) (Selected, error) {
		g.cursor = cursor
		return h.part(ctx, g)
	}
	sum, err := part(g.cursor)
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
		one.TooLate += sum.TooLate
		one.Cancelled += sum.Cancelled
		one.Unreadable += sum.Unreadable
		one.Scanned += sum.Scanned
		sum = one
	}
}

// part does a part of a selection, and notes it.
func (h *handler) part(ctx context.Context, g *selecting) (Selected, error) {
	if !g.dryRun && g.cursor == "" {
		if err := h.queue.Note(ctx, h.entry(ctx, g.action, "", "began: "+g.words)); err != nil {
			return Selected{}, h.refused(ctx, err)
		}
	}
	sum, err := h.steps(ctx, g)
	if p := rejected(err, g.nothing(), inBody); p != nil && sum.Done == 0 {
		return Selected{}, p
	}
	who := authorOf(ctx)
	if !g.dryRun && sum.Done > 0 {
		noted := h.queue.Note(context.WithoutCancel(ctx), h.entry(ctx, g.action, "", fmt.Sprintf("%s %s", counted(sum.Done, "message", "messages"), g.done)))
		if noted != nil { // that it began is noted
			h.log.Error("the audit lacks an entry", "action", g.action, "error", noted)
		}
	}
	h.log.Info(g.what+" "+g.done, "by", who.Name, "done", sum.Done, "cancelled", sum.Cancelled, "unreadable", sum.Unreadable,
		"scanned", sum.Scanned, "left", sum.Left, "dry_run", g.dryRun, "all", g.all, "too_late", sum.TooLate)
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
	var w filterWords
	w.add("kind", string(f.Kind))
	w.add("class", strings.Join(f.Classes, ", "))
	w.add("mailbox", f.Mailbox)
	w.add("batch", f.BatchID)
	w.person(f.Recipient)
	if f.Reply != "" {
		w = append(w, "by words of the reply")
	}
	w.ids(f.IDs)
	if w == nil {
		w = append(w, "all failed messages")
	}
	w.time("from", f.From)
	w.time("until", f.Until)
	return w.line()
}

// filterWords say what a filter selects.
type filterWords []string

func (w *filterWords) add(name, value string) {
	if value != "" {
		*w = append(*w, name+" "+value)
	}
}

func (w *filterWords) person(recipient string) {
	if recipient != "" {
		*w = append(*w, "of one recipient or domain")
	}
}

func (w *filterWords) ids(ids []string) {
	if len(ids) == 1 {
		w.add("id", ids[0])
	} else if len(ids) > 1 {
		*w = append(*w, fmt.Sprintf("%d ids", len(ids)))
	}
}

func (w *filterWords) time(name string, at time.Time) {
	if !at.IsZero() {
		w.add(name, at.UTC().Format(time.RFC3339))
	}
}

// line gives them in one line.
func (w filterWords) line() string {
	slices.Sort(w)
	return strings.Join(w, "; ")
}

// steps does steps of a selection until all is done, its time is over or the client has gone, and gives their sum. With an
// error Next repeats the step that failed.
func (h *handler) steps(ctx context.Context, g *selecting) (sum Selected, err error) {
	o := queue.SelectionOptions{Cursor: g.cursor, DryRun: g.dryRun}
	// A step is done to its end also if nobody waits for it, so that what was done is known, and logged.
	whole := context.WithoutCancel(ctx)
	for begun := time.Now(); ; {
		one, err := g.step(whole, o)
		sum.Next, sum.AcceptedBefore = one.Next, one.Before
		if err != nil {
			// What was done is not done again when the step is repeated; all else is counted again.
			if !o.DryRun {
				sum.Done += one.Done
			}
			return sum, err
		}
		sum.Done += one.Done
		sum.TooLate += one.TooLate
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
