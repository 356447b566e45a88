package admin

import (
	"context"

	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// What requests about the failed store can meet.
var (
	withSelection = append(slices.Clip(always), malformedJSON, incompleteBody, bodyTooSlow, bodyTooLarge, busy, wrongMediaType)
	withExport    = append(slices.Clip(withID), notFailed, noSender)
)

// inParts is part of every description of what works on a selection.
const inParts = "One request does a part, in a few seconds: while the answer has next, repeat it with that as cursor. " +
	"With Accept: application/x-ndjson it does all parts, and tells what was done so far in a line after each. " +
	"What fails meanwhile is not meant. A filter that is empty has to come with all, so that nobody means everything by mistake."

func (h *handler) registerFailed() {
	op := h.operation(Producer, http.MethodGet, "/v1/failed", "listFailed", "The messages that failed", always)
	op.Description = "Those that fit everything that is given, newest first, with the last answer that kept them from being delivered. " +
		"A producer sees those of a batch whose id it gives (batch_id); all else takes the role operator."
	huma.Register(h.api, op, h.listFailed)

	op = h.operation(Operator, http.MethodPost, "/v1/failed/requeue", "requeueFailed", "Queue failed messages again", withSelection)
	op.Description = "They go to all recipients who do not have them, those who were refused too: whoever requeues has put the cause right. " +
		"Attempts count from now on, and an expires_at that has passed no longer counts. " + inParts
	op.Responses["200"] = h.selectionResponse()
	huma.Register(h.api, op, h.requeueFailed)
	h.takes(op.Path, reflect.TypeFor[Selection]())

	op = h.operation(Operator, http.MethodPost, "/v1/failed/delete", "deleteFailed", "Delete failed messages", withSelection)
	op.Description = "With their content, and all else that is known of them. Their batches go on counting them as failed. " + inParts
	op.Responses["200"] = h.selectionResponse()
	huma.Register(h.api, op, h.deleteFailed)
	h.takes(op.Path, reflect.TypeFor[Selection]())

	op = h.operation(Operator, http.MethodGet, "/v1/failed/{id}/eml", "exportFailed", "A failed message as it would be sent", withExport)
	op.Description = "An RFC 5322 message to save or to look at: with all its recipients but those of bcc, whom it never names."
	op.Responses["200"] = emlResponse()
	huma.Register(h.api, op, h.exportFailed)
}

// selectionResponse describes what requeue and delete answer: huma does not know, as it can be lines.
func (h *handler) selectionResponse() *huma.Response {
	return &huma.Response{Description: "What was done.", Content: map[string]*huma.MediaType{
		"application/json": {Schema: h.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Selected](), true, "")},
		ndjson:             {Schema: &huma.Schema{Type: huma.TypeString, Description: "A Selected a line, each with all that was done so far; the last has no next, or a problem."}},
	}}
}

type listFailedInput struct {
	original
	Kind      string   `query:"kind" enum:"alert,report,subscription" doc:"What they are for."`
	Class     []string `query:"class,explode" nullable:"false" enum:"temporary,delivered,throttled,configuration,permanent,unknown" doc:"The class of the last attempt; given several times: any of these."`
	Mailbox   string   `query:"mailbox" doc:"The sender's address; the provider's own finds messages that name no sender, too, and - finds only these."`
	BatchID   string   `query:"batch_id" doc:"The batch they belong to."`
	Recipient string   `query:"recipient" example:"@example.com" doc:"The address of somebody who does not have the message, or @ and a domain."`
	Reply     string   `query:"reply" doc:"Part of the provider's words, or of its status code such as 5.1.1. Case does not count."`
	ID        []string `query:"id,explode" nullable:"false" maxItems:"1000" doc:"The messages themselves; can be given several times."`
	From      string   `query:"from" format:"date-time" doc:"They failed at this time or later."`
	Until     string   `query:"until" format:"date-time" doc:"They failed before this time."`
	Cursor    string   `query:"cursor" doc:"What the page before gave as next; left out: the first page."`
	Limit     int      `query:"limit" default:"100" minimum:"1" maximum:"1000" doc:"How many a page has at most."`
}

type listFailedOutput struct{ Body FailedPage }

func (h *handler) listFailed(ctx context.Context, in *listFailedInput) (*listFailedOutput, error) {
	if who, _ := ctx.Value(callerKey{}).(caller); in.BatchID == "" {
		if p := who.need(Operator); p != nil {
			p.Detail += " A producer can name a batch: batch_id."
			return nil, p
		}
	}
	f, faults := in.filter().translate()
	if faults = append(in.strays("class", "id"), faults...); faults != nil {
		return nil, badFilter("", faults, inQuery)
	}
	found, err := h.queue.Failed(ctx, f, in.Cursor, in.Limit)
	if err != nil {
		return nil, h.refusedFilter(ctx, err, "", inQuery)
	}
	with, err := h.adviser(ctx)
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	page := FailedPage{Messages: make([]FailedMessage, len(found.Messages)),
		Next: found.Next, Scanned: found.Scanned, Left: found.Left, Unreadable: found.Unreadable}
	for i := range found.Messages {
		page.Messages[i] = failedMessage(&found.Messages[i], with)
	}
	return &listFailedOutput{page}, nil
}

// filter gives what was asked for. The times are right: huma has looked at them.
func (in *listFailedInput) filter() *FailedFilter {
	f := &FailedFilter{Kind: mail.Kind(in.Kind), Classes: in.Class, Mailbox: in.Mailbox, BatchID: in.BatchID,
		Recipient: in.Recipient, Reply: in.Reply, IDs: in.ID}
	f.From, _ = time.Parse(time.RFC3339, in.From)
	f.Until, _ = time.Parse(time.RFC3339, in.Until)
	return f
}

// translate gives the filter as the queue takes it, or what is wrong with it, by JSON pointers into the filter.
func (f *FailedFilter) translate() (queue.FailedFilter, []Fault) {
	q := queue.FailedFilter{Kind: f.Kind, BatchID: f.BatchID, Reply: f.Reply, IDs: f.IDs, From: f.From, Until: f.Until}
	var faults faults
	faults.kind(f.Kind)
	if f.Classes != nil && len(f.Classes) == 0 {
		faults.add("/classes", empty)
	}
	for i, name := range f.Classes {
		class, err := mail.ParseClass(name)
		if err != nil {
			faults.add("/classes/"+strconv.Itoa(i), "is none of "+classNames())
		}
		q.Classes = append(q.Classes, class)
	}
	q.Mailbox = faults.mailbox(f.Mailbox)
	faults.batch(f.BatchID)
	q.Recipient = faults.recipient(f.Recipient)
	faults.ids(f.IDs)
	return q, faults
}

func classNames() string {
	var names []string
	for _, c := range mail.Classes() {
		names = append(names, c.String())
	}
	return strings.Join(names, ", ")
}

func failedMessage(m *queue.FailedMessage, with adviser) FailedMessage {
	with.message = m.ID
	f := FailedMessage{
		ID: m.ID, BatchID: m.BatchID, Kind: m.Kind, Class: m.Class.String(), Mailbox: m.Mailbox, Accepted: m.Accepted, Failed: m.Failed,
		Requeued: m.Requeued, Counted: m.Attempts, Recipients: make([]RecipientStatus, len(m.Recipients)), Last: with.outcome(m.Last, m.Failed),
	}
	for i, r := range m.Recipients {
		f.Recipients[i] = RecipientStatus(r)
	}
	return f
}
