package admin

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

func (h *handler) registerBatches() {
	op := h.operation(Producer, http.MethodPost, "/v1/batches", "sendBatch", "Accept one message for many recipients", withMail)
	op.Description = "The content is stored once. Subject, text and html are templates, filled from each recipient's variables. " +
		"A recipient with faults gets nothing and is reported; the others' messages are accepted, all or none of them. " +
		"A fault of the message itself, or of the body's form, refuses the whole batch, as it does if every recipient has faults. " +
		"As application/x-ndjson the body has the message in its first line and a recipient in each other, at most 1 MiB long, and may have " +
		"hundreds of thousands of them: it is read as it comes, and nothing is accepted before its end. " +
		"With Accept: application/x-ndjson the answer to such a body begins as soon as the message is taken, and tells about every second how many lines were " +
		"read: read it while you send. Its last line is what would be the answer without, or a problem, with its status."
	op.DefaultStatus = http.StatusAccepted
	op.Parameters = append(traceHeaders(), idempotencyKey())
	op.Responses["202"] = &huma.Response{Description: "The batch was accepted, but for the recipients who are refused.", Content: map[string]*huma.MediaType{
		"application/json": {Schema: h.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[BatchAccepted](), true, "")}}}
	op.Responses["200"] = &huma.Response{Description: "What happens, line by line, if that was asked for.", Content: map[string]*huma.MediaType{
		ndjson: {Schema: &huma.Schema{Type: huma.TypeString, Description: `Lines of {"read": 20000, "refused": 1}, the recipients so far. The last is a BatchAccepted, ` +
			`with "replayed": true if the Idempotency-Key was known; or {"problem": a Problem}, with "retry_after" in seconds if trying again is worth while, which says what it ` +
			`would say as the answer. Without a last line the connection was cut: repeat the request.`}}}}
	huma.Register(h.api, op, h.sendBatch)
	h.takes(op.Path, reflect.TypeFor[mail.Batch]())
	h.api.OpenAPI().Paths[op.Path].Post.RequestBody.Content[ndjson] = &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString,
		Description: "A Message without to, then a Recipient a line."}}

	op = h.operation(Producer, http.MethodGet, "/v1/batches/{id}", "getBatch", "What became of a batch", withID)
	op.Description = "Progress, counts by state, and a forecast of when its last message goes."
	huma.Register(h.api, op, h.getBatch)

	op = h.operation(Operator, http.MethodPost, "/v1/batches/{id}/cancel", "cancelBatch", "Cancel a batch", withID)
	op.Description = "Ends all messages of the batch that are not being sent. Cancelling twice is fine."
	huma.Register(h.api, op, h.cancelBatch)
}

type sendBatchInput struct {
	original
	Accept string `header:"Accept" doc:"application/x-ndjson: of a body of lines, the answer is lines too, and tells how far it is."`
	List   bool   `query:"list" doc:"Whether the answer lists all recipients with their messages' ids; it does too if one was refused, but of a stream it lists the refused alone then, the first 1000 of them."`
	Mode   string `query:"mode" enum:"permissive,strict" default:"permissive" doc:"permissive: a recipient with faults gets nothing and is reported, as long as another is left. strict: one with faults refuses the whole batch."`
}

type sendBatchOutput struct {
	Replayed string `header:"Idempotency-Replayed" doc:"\"true\" if the Idempotency-Key was known, and this is the first answer."`
	Body     func(huma.Context)
}

func (h *handler) sendBatch(ctx context.Context, in *sendBatchInput) (*sendBatchOutput, error) {
	options, err := in.accepting(ctx)
	if err != nil {
		return nil, err
	}
	if in.Mode == "strict" {
		options = append(options, queue.Strict())
	}
	ctx = traced(ctx, in.request.Header)
	var receipt queue.BatchReceipt
	var s *streaming
	if isStream(in.request) {
		if s, err = h.openStream(ctx, in, options); err != nil {
			return nil, h.refused(ctx, err)
		}
		if asksForLines(in.Accept) {
			return &sendBatchOutput{Body: func(out huma.Context) { h.tellBatch(ctx, in, s, h.tellingTo(&in.original, out)) }}, nil
		}
		receipt, err = s.accept(ctx, func(BatchProgress) error { return nil })
	} else {
		var b mail.Batch
		if err := h.read(&in.original, &b); err != nil {
			return nil, beside(err, func() []mail.Problem {
				refused, err := b.Validate(h.queue.Limits(), time.Now())
				problems := problemsOf(err)
				for _, i := range slices.Sorted(maps.Keys(refused)) {
					problems = append(problems, refused[i]...)
				}
				return problems
			})
		}
		if err := h.may(ctx, &b.Message, "/message"); err != nil {
			return nil, err
		}
		receipt, err = h.queue.EnqueueBatch(ctx, b, options...)
	}
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	accepted := batchAccepted(receipt, in.List || len(receipt.Refused) > 0 && !isStream(in.request))
	return &sendBatchOutput{Replayed: replayed(receipt.Replayed), Body: func(out huma.Context) {
		out.SetHeader("Content-Type", "application/json")
		out.SetStatus(http.StatusAccepted)
		_ = newLineEncoder(out.BodyWriter()).Encode(accepted)
	}}, nil
}

// tellBatch accepts a batch that comes line by line, and tells how far it is. The last line is what became of it.
func (h *handler) tellBatch(ctx context.Context, in *sendBatchInput, s *streaming, t *telling) {
	var told time.Time
	receipt, err := s.accept(ctx, func(p BatchProgress) error {
		if now := time.Now(); now.Sub(told) >= h.tellEvery {
			told = now
			if t.line(p) != nil {
				return clientGone()
			}
		}
		return nil
	})
	if err != nil {
		var p *Problem
		if errors.As(h.refused(ctx, err), &p) {
			t.end(p, "")
		}
		return
	}
	_ = t.line(lastOfBatch{batchAccepted(receipt, in.List), receipt.Replayed})
}

// lastOfBatch is the last line of an answer of lines to a batch: it has no header to be told in.
type lastOfBatch struct {
	BatchAccepted
	Replayed bool `json:"replayed,omitempty"`
}

func batchAccepted(receipt queue.BatchReceipt, all bool) BatchAccepted {
	b := BatchAccepted{ID: receipt.ID, Accepted: receipt.Accepted, Refused: len(receipt.Refused)}
	for i, id := range receipt.IDs {
		problems, no := receipt.Refused[i]
		if !all && (!no || len(b.Recipients) == queue.MostRefused) {
			continue
		}
		one := BatchRecipient{Index: i, ID: id}
		if no {
			one.Problem = invalidRecipient.invalid("", problems, mostOfRecipient)
		}
		b.Recipients = append(b.Recipients, one)
	}
	return b
}

type getBatchOutput struct{ Body BatchStatus }

func (h *handler) getBatch(ctx context.Context, in *named) (*getBatchOutput, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	s, err := h.queue.Batch(ctx, in.ID)
	if err != nil {
		return nil, h.otherwise(ctx, err, in.ID)
	}
	o, err := h.queue.BatchOutlook(ctx, s)
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	with, err := h.adviser(ctx)
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	return &getBatchOutput{batchStatus(s, o, with)}, nil
}

func (h *handler) cancelBatch(ctx context.Context, in *named) (*cancelOutput, error) {
	return h.cancel(ctx, in, h.queue.CancelBatch)
}
