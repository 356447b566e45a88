package admin

import (
	"context"
	"net/http"
	"reflect"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// whatAPageHas is part of the descriptions of lists.
const whatAPageHas = "What fits all the time while the pages are read is on one of them; on two, if Redis's table of keys shrinks meanwhile. " +
	"A cursor ends with a restart of Redis."

func (h *handler) registerListing() {
	op := h.operation(Operator, http.MethodGet, "/v1/messages", "listMessages", "Messages, whatever became of them", always)
	op.Description = "Those that fit everything that is given; without state, those that are open. With batch_id or id only these are looked at, " +
		"in their order, and each is listed once. Else all records are looked at, those of ended mail too, in no order. " + whatAPageHas
	huma.Register(h.api, op, h.listMessages)

	op = h.operation(Operator, http.MethodGet, "/v1/batches", "listBatches", "Batches, and what became of them", always)
	op.Description = "Those that fit everything that is given, in no order, as long as anything is known of them. " + whatAPageHas
	huma.Register(h.api, op, h.listBatches)

	op = h.operation(Operator, http.MethodPost, "/v1/messages/cancel", "cancelMessages", "Cancel messages", withSelection)
	op.Description = "Each as by /v1/messages/{id}/cancel: what is being sent is too late, and is counted as such. To repeat a request, or to begin " +
		"anew, is safe: each message is cancelled once. What was accepted after the first request is not meant. " + inParts
	op.Responses["200"] = h.selectionResponse()
	huma.Register(h.api, op, h.cancelMessages)
	h.takes(op.Path, reflect.TypeFor[MessageSelection]())
}

type listMessagesInput struct {
	original
	State          []string `query:"state,explode" nullable:"false" enum:"queued,sending,delivered,failed,cancelled,expired" doc:"Where they are in their life; given several times: any of these; left out: queued and sending."`
	Kind           string   `query:"kind" enum:"alert,report,subscription" doc:"What they are for."`
	Mailbox        string   `query:"mailbox" doc:"The sender's address; the provider's own finds messages that name no sender, too, and - finds only these. Of a single message that has ended well it is not known any more."`
	BatchID        string   `query:"batch_id" doc:"The batch they belong to."`
	Recipient      string   `query:"recipient" example:"@example.com" doc:"The address of somebody who does not have the message, or @ and a domain."`
	ID             []string `query:"id,explode" nullable:"false" maxItems:"1000" doc:"The messages themselves; can be given several times."`
	AcceptedAfter  string   `query:"accepted_after" format:"date-time" doc:"They were accepted at this time or later."`
	AcceptedBefore string   `query:"accepted_before" format:"date-time" doc:"They were accepted before this time."`
	Cursor         string   `query:"cursor" doc:"What the page before gave as next; left out: the first page."`
	Limit          int      `query:"limit" default:"100" minimum:"1" maximum:"1000" doc:"How many a page has at most."`
}

type listMessagesOutput struct{ Body MessagePage }

func (h *handler) listMessages(ctx context.Context, in *listMessagesInput) (*listMessagesOutput, error) {
	f, faults := in.filter().translate()
	if faults = append(in.strays("state", "id"), faults...); faults != nil {
		return nil, badFilter("", faults, inQuery)
	}
	found, err := h.queue.Messages(ctx, f, in.Cursor, in.Limit)
	if err != nil {
		return nil, h.refusedFilter(ctx, err, "", inQuery)
	}
	page := MessagePage{Messages: make([]ListedMessage, len(found.Messages)),
		Next: found.Next, Scanned: found.Scanned, Left: found.Left, Unreadable: found.Unreadable}
	for i, m := range found.Messages {
		page.Messages[i] = ListedMessage{ID: m.ID, BatchID: m.BatchID, Kind: m.Kind, State: m.State, Mailbox: m.Mailbox, Accepted: m.Accepted,
			Due: m.Due, Finished: m.Finished, Counted: m.Attempts, Recipients: m.Recipients}
	}
	return &listMessagesOutput{page}, nil
}

// filter gives what was asked for. The times are right: huma has looked at them.
func (in *listMessagesInput) filter() *MessageFilter {
	f := &MessageFilter{Kind: mail.Kind(in.Kind), Mailbox: in.Mailbox, BatchID: in.BatchID, Recipient: in.Recipient, IDs: in.ID}
	for _, s := range in.State {
		f.States = append(f.States, queue.State(s))
	}
	f.AcceptedAfter, f.AcceptedBefore = timesOf(in.AcceptedAfter, in.AcceptedBefore)
	return f
}

func timesOf(after, before string) (a, b time.Time) {
	a, _ = time.Parse(time.RFC3339, after)
	b, _ = time.Parse(time.RFC3339, before)
	return a, b
}

// translate gives the filter as the queue takes it, or what is wrong with it, by JSON pointers into the filter.
func (f *MessageFilter) translate() (queue.MessageFilter, []Fault) {
	q := queue.MessageFilter{States: f.States, Kind: f.Kind, BatchID: f.BatchID, IDs: f.IDs, AcceptedAfter: f.AcceptedAfter, AcceptedBefore: f.AcceptedBefore}
	var faults faults
	if f.States != nil && len(f.States) == 0 {
		faults.add("/states", empty)
	}
	faults.kind(f.Kind)
	q.Mailbox = faults.mailbox(f.Mailbox)
	faults.batch(f.BatchID)
	q.Recipient = faults.recipient(f.Recipient)
	faults.ids(f.IDs)
	return q, faults
}

// words says what a filter selects, without recipients.
func (f *MessageFilter) words() string {
	var w filterWords
	for _, s := range f.States {
		w.add("state", string(s))
	}
	w.add("kind", string(f.Kind))
	w.add("mailbox", f.Mailbox)
	w.add("batch", f.BatchID)
	w.person(f.Recipient)
	w.ids(f.IDs)
	if w == nil {
		w = append(w, "all open messages")
	}
	w.time("accepted after", f.AcceptedAfter)
	w.time("accepted before", f.AcceptedBefore)
	return w.line()
}

func (h *handler) cancelMessages(ctx context.Context, in *selectionInput) (*huma.StreamResponse, error) {
	var s MessageSelection
	if err := h.read(&in.original, &s); err != nil {
		return nil, err
	}
	f, faults := s.Filter.translate()
	return h.onSelection(ctx, in, &selecting{
		what: "open messages", done: "cancelled", action: "messages.cancel", words: s.Filter.words(), empty: reflect.ValueOf(s.Filter).IsZero(), faults: faults,
		all: s.All, dryRun: s.DryRun, cursor: s.Cursor,
		step: func(ctx context.Context, o queue.SelectionOptions) (queue.SelectionStep, error) {
			return h.queue.CancelMessages(ctx, f, o)
		},
	})
}

type listBatchesInput struct {
	original
	Kind           string `query:"kind" enum:"alert,report,subscription" doc:"What they are for."`
	Mailbox        string `query:"mailbox" doc:"The sender's address; the provider's own finds batches that name no sender, too, and - finds only these."`
	AcceptedAfter  string `query:"accepted_after" format:"date-time" doc:"They were accepted at this time or later."`
	AcceptedBefore string `query:"accepted_before" format:"date-time" doc:"They were accepted before this time."`
	Open           bool   `query:"open" doc:"Only those with messages that are open."`
	Cursor         string `query:"cursor" doc:"What the page before gave as next; left out: the first page."`
	Limit          int    `query:"limit" default:"100" minimum:"1" maximum:"1000" doc:"How many a page has at most."`
}

type listBatchesOutput struct{ Body BatchPage }

func (h *handler) listBatches(ctx context.Context, in *listBatchesInput) (*listBatchesOutput, error) {
	f := queue.BatchFilter{Kind: mail.Kind(in.Kind), Open: in.Open}
	f.AcceptedAfter, f.AcceptedBefore = timesOf(in.AcceptedAfter, in.AcceptedBefore)
	faults := faults(in.strays())
	if f.Mailbox = faults.mailbox(in.Mailbox); faults != nil {
		return nil, badFilter("", faults, inQuery)
	}
	found, err := h.queue.Batches(ctx, f, in.Cursor, in.Limit)
	if err != nil {
		return nil, h.refusedFilter(ctx, err, "", inQuery)
	}
	page := BatchPage{Batches: make([]BatchStatus, len(found.Batches)), Next: found.Next}
	for i := range found.Batches {
		page.Batches[i] = batchStatus(&found.Batches[i], nil, adviser{})
	}
	return &listBatchesOutput{page}, nil
}

// Messages lists messages: the page that follows another's Next, "" for the first, and at most limit of them, 0 for as many as the server
// likes. It takes the role operator, as do the methods below.
func (c *Client) Messages(ctx context.Context, f MessageFilter, cursor string, limit int) (*MessagePage, error) {
	target := c.target("messages")
	q := pageQuery(cursor, limit, map[string]string{"kind": string(f.Kind), "mailbox": f.Mailbox, "batch_id": f.BatchID, "recipient": f.Recipient},
		map[string]time.Time{"accepted_after": f.AcceptedAfter, "accepted_before": f.AcceptedBefore})
	for _, s := range f.States {
		q.Add("state", string(s))
	}
	q["id"] = f.IDs
	target.RawQuery = q.Encode()
	page := &MessagePage{}
	if _, err := c.do(ctx, http.MethodGet, target, "", nil, page); err != nil {
		return nil, err
	}
	return page, nil
}

// Batches lists batches, page by page as Messages does.
func (c *Client) Batches(ctx context.Context, f BatchFilter, cursor string, limit int) (*BatchPage, error) {
	target := c.target("batches")
	q := pageQuery(cursor, limit, map[string]string{"kind": string(f.Kind), "mailbox": f.Mailbox},
		map[string]time.Time{"accepted_after": f.AcceptedAfter, "accepted_before": f.AcceptedBefore})
	if f.Open {
		q.Set("open", strconv.FormatBool(true))
	}
	target.RawQuery = q.Encode()
	page := &BatchPage{}
	if _, err := c.do(ctx, http.MethodGet, target, "", nil, page); err != nil {
		return nil, err
	}
	return page, nil
}

// CancelMessages cancels the messages that a filter selects. One request does a part: repeat it with Next as the selection's Cursor until
// that is empty. To repeat a request whose answer was lost, or to begin anew, is safe.
func (c *Client) CancelMessages(ctx context.Context, s MessageSelection) (*Selected, error) {
	done := &Selected{}
	if _, err := c.call(ctx, http.MethodPost, "", s, done, "messages", "cancel"); err != nil {
		return nil, err
	}
	return done, nil
}
