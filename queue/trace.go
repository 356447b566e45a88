package queue

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/postroom/postroom/mail"
)

// A producer's trace goes with the mail: the context of the span that accepted it, or that of whoever called, is kept in the message's
// record, or once in its batch, and each attempt links to it (see worker). It is no part of an asynq task, as a turn is for many
// messages.

// instrumentation names what makes the spans.
const instrumentation = "github.com/postroom/postroom/queue"

// MessagingSystem is the attribute messaging.system of each span.
const MessagingSystem = "postroom"

// traceBytes is how many bytes of ids a trace context has, traceLength how many letters they are in a record.
const (
	traceBytes  = 16 + 8
	traceLength = traceBytes / 3 * 4
)

// mostTraceState is how long a tracestate may be to be kept: a record is small. The ids are kept all the same.
const mostTraceState = 128

// traceText writes a trace context for a record: trace id and span id in base64, and after a space the tracestate, if there is one. Only
// of what is sampled: nobody would find anything else.
func traceText(sc trace.SpanContext) string {
	if !sc.IsValid() || !sc.IsSampled() {
		return ""
	}
	var ids [traceBytes]byte
	traceID, spanID := sc.TraceID(), sc.SpanID()
	copy(ids[:], traceID[:])
	copy(ids[len(traceID):], spanID[:])
	text := base64.RawStdEncoding.EncodeToString(ids[:])
	if state := sc.TraceState().String(); state != "" && len(state) <= mostTraceState {
		text += " " + state
	}
	return text
}

// parseTrace is the inverse of traceText; what is not of its form is no context.
func parseTrace(text string) trace.SpanContext {
	var ids [traceBytes]byte
	if len(text) < traceLength {
		return trace.SpanContext{}
	}
	if _, err := base64.RawStdEncoding.Decode(ids[:], []byte(text[:traceLength])); err != nil {
		return trace.SpanContext{}
	}
	c := trace.SpanContextConfig{TraceFlags: trace.FlagsSampled, Remote: true}
	copy(c.TraceID[:], ids[:])
	copy(c.SpanID[:], ids[len(c.TraceID):])
	c.TraceState, _ = trace.ParseTraceState(strings.TrimPrefix(text[traceLength:], " "))
	return trace.NewSpanContext(c)
}

// sending is the span of kind producer in which mail is accepted, if this process traces, and the context that goes with the mail.
type sending struct {
	span    trace.Span // nil: none, or ended
	context trace.SpanContext
}

// beginSending begins the span. Without a tracer whoever called is the mail's producer, and nothing else happens.
func (q *Queue) beginSending(ctx context.Context) (context.Context, sending) {
	if q.tracer == nil {
		return ctx, sending{context: trace.SpanContextFromContext(ctx)}
	}
	ctx, span := q.tracer.Start(ctx, "send "+q.options.Namespace, trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(
		semconv.MessagingSystemKey.String(MessagingSystem), semconv.MessagingOperationName("send"), semconv.MessagingOperationTypeSend,
		semconv.MessagingDestinationName(q.options.Namespace)))
	return ctx, sending{span: span, context: span.SpanContext()}
}

// end ends the span, once.
func (s *sending) end(err error, m *mail.Message, more ...attribute.KeyValue) {
	if s.span == nil {
		return
	}
	if err != nil {
		s.span.SetAttributes(semconv.ErrorTypeKey.String(errorType(err)))
		s.span.SetStatus(codes.Error, "") // no text: it can quote what was handed in
	} else {
		s.span.SetAttributes(attribute.String("postroom.kind", string(m.Kind)), attribute.String("postroom.mailbox", m.From.Address))
		s.span.SetAttributes(more...)
	}
	s.span.End()
	s.span = nil
}

// errDiscarded ends the span of a batch that was not committed.
var errDiscarded = errors.New("queue: discarded")

// errorType names why mail was not accepted, in a word of few.
func errorType(err error) string {
	for word, kind := range map[string]error{"full": ErrFull, "backlog_full": ErrBacklogFull, "not_replicated": ErrNotReplicated, "idempotency_conflict": ErrIdempotencyConflict,
		"idempotency_running": ErrIdempotencyRunning, "staging_expired": ErrStagingExpired, "discarded": errDiscarded,
		"cancelled": context.Canceled, "deadline_exceeded": context.DeadlineExceeded} {
		if errors.Is(err, kind) {
			return word
		}
	}
	if invalid := (*mail.Invalid)(nil); errors.As(err, &invalid) {
		return "invalid"
	}
	return "_OTHER"
}
