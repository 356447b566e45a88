package admin

import (
	"context"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

func (h *handler) registerBatches() {
	op := h.operation(Producer, http.MethodPost, "/v1/batches", "sendBatch", "Accept one message for many recipients", withMail)
	op.Description = "The content is stored once. Subject, text and html are templates, filled from each recipient's variables. " +
		"A recipient with faults gets nothing and is reported; the others' messages are accepted, all or none of them. " +
		"A fault of the message itself, or of the body's form, refuses the whole batch. " +
		"As application/x-ndjson the body has the message in its first line and a recipient in each other, at most 1 MiB long, and may have " +
		"hundreds of thousands of them: it is read as it comes, and nothing is accepted before its end."
	op.DefaultStatus = http.StatusAccepted
	op.Parameters = []*huma.Param{idempotencyKey()}
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
	List bool   `query:"list" doc:"Whether the answer lists all recipients with their messages' ids; it does too if one was refused, but of a stream it lists the refused alone then, the first 1000 of them."`
	Mode string `query:"mode" enum:"permissive,strict" default:"permissive" doc:"permissive: a recipient with faults gets nothing and is reported. strict: one with faults refuses the whole batch."`
}

type sendBatchOutput struct {
	Replayed string `header:"Idempotency-Replayed" doc:"\"true\" if the Idempotency-Key was known, and this is the first answer."`
	Body     BatchAccepted
}

func (h *handler) sendBatch(ctx context.Context, in *sendBatchInput) (*sendBatchOutput, error) {
	idempotency, err := in.idempotency(ctx)
	if err != nil {
		return nil, err
	}
	options := []queue.Option{idempotency}
	if in.Mode == "strict" {
		options = append(options, queue.Strict())
	}
	var receipt queue.BatchReceipt
	if isStream(in.request) {
		receipt, err = h.streamBatch(ctx, in, options)
	} else {
		var b mail.Batch
		if err := read(in.request, h.limit, &b); err != nil {
			return nil, err
		}
		if err := h.may(ctx, &b.Message, "/message"); err != nil {
			return nil, err
		}
		receipt, err = h.queue.EnqueueBatch(ctx, b, options...)
	}
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	all := in.List || len(receipt.Refused) > 0 && !isStream(in.request)
	return &sendBatchOutput{Replayed: replayed(receipt.Replayed), Body: batchAccepted(receipt, all)}, nil
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
		return nil, h.refused(ctx, err)
	}
	o, err := h.queue.BatchOutlook(ctx, s)
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	return &getBatchOutput{batchStatus(s, o)}, nil
}

func (h *handler) cancelBatch(ctx context.Context, in *named) (*cancelOutput, error) {
	return h.cancel(ctx, in, h.queue.CancelBatch)
}
