package admin

import (
	"context"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/mail/mime"
	"github.com/postroom/postroom/queue"
)

// emlType is the media type of a message (RFC 2046, section 5.2.1).
const emlType = "message/rfc822"

func emlResponse() *huma.Response {
	return &huma.Response{
		Description: "The message.",
		Headers:     header("Content-Disposition", huma.TypeString, "attachment, with the id and .eml as the file's name."),
		Content:     map[string]*huma.MediaType{emlType: {Schema: &huma.Schema{Type: huma.TypeString}}},
	}
}

func (h *handler) exportFailed(ctx context.Context, in *named) (*huma.StreamResponse, error) {
	m, err := h.outgoing(ctx, in)
	if err != nil {
		return nil, err
	}
	// All of it is there before the first byte goes out: what can't be rendered is a problem, and no broken message.
	rendered, err := mime.Compose(m)
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	return &huma.StreamResponse{Body: func(out huma.Context) {
		out.SetHeader("Content-Type", emlType)
		out.SetHeader("Content-Disposition", `attachment; filename="`+m.ID+`.eml"`)
		out.SetHeader("Content-Length", strconv.FormatInt(rendered.Size(), 10))
		_, _ = rendered.WriteTo(out.BodyWriter()) // who has gone misses it
	}}, nil
}

// outgoing gives a message of the failed store as an attempt would hand it over.
func (h *handler) outgoing(ctx context.Context, in *named) (*mail.Outgoing, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	s, err := h.queue.Message(ctx, in.ID)
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	switch s.State {
	case queue.Failed:
	case queue.Delivered, queue.Cancelled, queue.Expired:
		return nil, h.refused(ctx, queue.ErrEnded)
	default:
		return nil, notFailed.problem("It waits or is being sent: see GET /v1/messages/{id}.")
	}
	m, err := h.queue.Outgoing(ctx, in.ID)
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	if m.From.Address == "" {
		// A name that the producer gave stays, as in an attempt.
		name := m.From.Name
		if m.From, err = h.ownSender(ctx); err != nil {
			return nil, h.refused(ctx, err)
		}
		if name != "" {
			m.From.Name = name
		}
	}
	if m.From.Address == "" {
		return nil, noSender.problem("The message names no sender, and here no provider is configured whose own could be put in: set provider.sender.")
	}
	return m, nil
}
