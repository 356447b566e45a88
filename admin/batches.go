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
		"A fault of the message itself, or of the body's form, refuses the whole batch."
	op.DefaultStatus = http.StatusAccepted
	op.Parameters = []*huma.Param{idempotencyKey()}
	huma.Register(h.api, op, h.sendBatch)
	h.takes(op.Path, reflect.TypeFor[mail.Batch]())

	op = h.operation(Producer, http.MethodGet, "/v1/batches/{id}", "getBatch", "What became of a batch", withID)
	op.Description = "Progress, counts by state, and a forecast of when its last message goes."
	huma.Register(h.api, op, h.getBatch)

	op = h.operation(Operator, http.MethodPost, "/v1/batches/{id}/cancel", "cancelBatch", "Cancel a batch", withID)
	op.Description = "Ends all messages of the batch that are not being sent. Cancelling twice is fine."
	huma.Register(h.api, op, h.cancelBatch)
}

type sendBatchInput struct {
	original
	List bool `query:"list" doc:"Whether the answer lists all recipients with their messages' ids; it does too if one was refused."`
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
	var b mail.Batch
	if err := read(in.request, h.limit, &b); err != nil {
		return nil, err
	}
	receipt, err := h.queue.EnqueueBatch(ctx, b, idempotency)
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	return &sendBatchOutput{Replayed: replayed(receipt.Replayed), Body: batchAccepted(receipt, in.List)}, nil
}

func batchAccepted(receipt queue.BatchReceipt, list bool) BatchAccepted {
	b := BatchAccepted{ID: receipt.ID, Accepted: receipt.Accepted, Refused: len(receipt.Refused)}
	if !list && b.Refused == 0 {
		return b
	}
	b.Recipients = make([]BatchRecipient, len(receipt.IDs))
	for i, id := range receipt.IDs {
		b.Recipients[i] = BatchRecipient{Index: i, ID: id}
		if problems, no := receipt.Refused[i]; no {
			b.Recipients[i].Problem = invalidRecipient.invalid("", problems, mostOfRecipient)
		}
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
