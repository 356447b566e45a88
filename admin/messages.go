package admin

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// What every request under /v1 can meet, and every request with mail in it.
var (
	always   = []refusal{noTokens, unauthorized, forbidden, invalidRequest, tooManyRequests, internal, unavailable}
	withID   = append(slices.Clip(always), notFound)
	withMail = append(slices.Clip(always), malformedJSON, incompleteBody, badIdempotencyKey, bodyTooSlow, bodyTooLarge, busy,
		wrongMediaType, notForToken, invalidMessage, idempotencyConflict, idempotencyRunning, full, tookTooLong, notReplicated)
)

func (h *handler) registerMessages() {
	op := h.operation(Producer, http.MethodPost, "/v1/messages", "sendMessage", "Accept one message", withMail)
	op.Description = "When the answer is 202 the message will be sent, whatever happens to any process. Templates are for batches: a single message goes out as it is."
	op.DefaultStatus = http.StatusAccepted
	op.Parameters = append(traceHeaders(), idempotencyKey())
	huma.Register(h.api, op, h.sendMessage)
	h.takes(op.Path, reflect.TypeFor[mail.Message]())

	op = h.operation(Producer, http.MethodGet, "/v1/messages/{id}", "getMessage", "What became of a message", withID)
	op.Description = "State, recipients, attempts with the provider's replies, why it waits, and roughly when it goes."
	huma.Register(h.api, op, h.getMessage)

	op = h.operation(Operator, http.MethodPost, "/v1/messages/{id}/cancel", "cancelMessage", "Cancel a message",
		append(slices.Clip(withID), tooLate))
	op.Description = "Ends a message that is not being sent. Cancelling twice is fine."
	huma.Register(h.api, op, h.cancelMessage)
}

type sendMessageInput struct{ original }

type sendMessageOutput struct {
	Replayed string `header:"Idempotency-Replayed" doc:"\"true\" if the Idempotency-Key was known, and this is the first answer."`
	Body     Accepted
}

func (h *handler) sendMessage(ctx context.Context, in *sendMessageInput) (*sendMessageOutput, error) {
	options, err := in.accepting(ctx)
	if err != nil {
		return nil, err
	}
	var m mail.Message
	if err := h.read(&in.original, &m); err != nil {
		return nil, beside(err, func() []mail.Problem { return problemsOf(m.Validate(h.queue.Limits(), time.Now())) })
	}
	if err := h.may(ctx, &m, ""); err != nil {
		return nil, err
	}
	receipt, err := h.queue.Enqueue(traced(ctx, in.request.Header), m, options...)
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	return &sendMessageOutput{
		Replayed: replayed(receipt.Replayed),
		Body:     Accepted{ID: receipt.ID, State: queue.Queued},
	}, nil
}

// replayed gives the value of Idempotency-Replayed; huma leaves out an empty one.
func replayed(yes bool) string {
	if yes {
		return "true"
	}
	return ""
}

type getMessageOutput struct{ Body MessageStatus }

func (h *handler) getMessage(ctx context.Context, in *named) (*getMessageOutput, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	s, err := h.queue.Message(ctx, in.ID)
	if err != nil {
		return nil, h.otherwise(ctx, err, in.ID)
	}
	o, err := h.queue.Outlook(ctx, s)
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	with, err := h.adviser(ctx)
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	return &getMessageOutput{messageStatus(s, o, with)}, nil
}

type cancelOutput struct{ Body Cancelled }

func (h *handler) cancelMessage(ctx context.Context, in *named) (*cancelOutput, error) {
	return h.cancel(ctx, in, h.queue.CancelMessage)
}

func (h *handler) cancel(ctx context.Context, in *named, cancel func(context.Context, string, ...queue.Option) error) (*cancelOutput, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	if err := cancel(ctx, in.ID, queue.By(authorOf(ctx))); err != nil {
		return nil, h.otherwise(ctx, err, in.ID)
	}
	return &cancelOutput{Cancelled{ID: in.ID, State: queue.Cancelled}}, nil
}

// otherwise is refused for what names a message or a batch: an id that was not found can be one of the other sort.
func (h *handler) otherwise(ctx context.Context, err error, id string) error {
	if errors.Is(err, queue.ErrNotFound) {
		if _, err := h.queue.Batch(ctx, id); err == nil {
			return notFound.problem("The id is that of a batch: use it as one (/v1/batches/{id}; postroom batch).")
		}
		if _, err := h.queue.Message(ctx, id); err == nil {
			return notFound.problem("The id is that of a message: use it as one (/v1/messages/{id}; postroom message).")
		}
	}
	return h.refused(ctx, err)
}
