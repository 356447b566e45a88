package worker

import (
	"context"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// report tells what an attempt came to: in the metrics, in the log, and as a span if the message came with a trace.
func (w *Worker) report(by string, a *queue.Attempt, s *queue.Settlement, begun time.Time, took time.Duration, ended time.Time) {
	w.metrics.attempts.WithLabelValues(by, s.Class.String()).Inc()
	w.metrics.duration.WithLabelValues(by).Observe(took.Seconds())
	if s.Verdict == queue.Done {
		w.metrics.latency[a.Kind].Observe(max(0, ended.Sub(a.Since).Seconds()))
	}
	worst := worstOf(s)
	w.trace(by, a, s, worst, begun, took)
	w.line(by, a, s, worst, took, ended)
}

// worstOf gives the outcome that decided.
func worstOf(s *queue.Settlement) *mail.Outcome {
	var worst mail.Outcome
	for i := range s.Outcomes {
		if s.Outcomes[i].Class == s.Class {
			worst = s.Outcomes[i]
		}
	}
	return &worst
}

// line logs an attempt, always with the same keys; how long a refusal silences others is the line of its hold. Never the reply: it can name recipients. It is in the message's record.
func (w *Worker) line(by string, a *queue.Attempt, s *queue.Settlement, worst *mail.Outcome, took time.Duration, ended time.Time) {
	level := slog.LevelInfo
	switch s.Class {
	case mail.Configuration, mail.Unknown: // somebody has to look
		level = slog.LevelWarn
	}
	ctx := context.Background()
	if !w.log.Enabled(ctx, level) {
		return
	}
	attrs := append(a.Attrs(), slog.String("provider", by), slog.String("class", s.Class.String()), slog.Int("code", worst.Code),
		slog.String("verdict", string(s.Verdict)), slog.Int("recipients", len(s.Outcomes)), slog.Duration("took", took))
	if s.Class != mail.Delivered {
		attrs = append(attrs, slog.String("enhanced", worst.Enhanced), slog.String("scope", worst.Scope.String()),
			slog.String("step", worst.Step), slog.String("cause", string(worst.Cause)))
	}
	if s.Verdict == queue.Again {
		attrs = append(attrs, slog.Duration("delay", s.Delay), slog.Time("until", ended.Add(s.Delay)))
	}
	w.log.LogAttrs(ctx, level, "attempt", attrs...)
}

// handedBack logs an attempt that has come to nothing, through no fault of the message: it does not count.
func (w *Worker) handedBack(level slog.Level, a *queue.Attempt, why error) {
	if w.log.Enabled(context.Background(), level) {
		w.log.LogAttrs(context.Background(), level, "attempt handed back", append(a.Attrs(), slog.Any("reason", why))...)
	}
}

// instrumentation names what makes the spans.
const instrumentation = "github.com/postroom/postroom/worker"

// trace makes the span of an attempt: of kind consumer and the operation process, in a trace of its own, linked to the context that the
// message came with. It is no child of that: the attempt can come hours later, and a batch has many thousands. A message without a
// context has no span: whether it is traced was decided when it was accepted.
func (w *Worker) trace(by string, a *queue.Attempt, s *queue.Settlement, worst *mail.Outcome, begun time.Time, took time.Duration) {
	if w.tracer == nil || !a.Trace.IsValid() {
		return
	}
	attrs := make([]attribute.KeyValue, 0, 24)
	attrs = append(attrs, semconv.MessagingSystemKey.String(queue.MessagingSystem), semconv.MessagingOperationName("process"),
		semconv.MessagingOperationTypeProcess, semconv.MessagingDestinationName(a.Destination()), semconv.MessagingMessageID(a.MessageID),
		attribute.String("postroom.kind", string(a.Kind)), attribute.String("postroom.provider", by), attribute.String("postroom.class", s.Class.String()),
		attribute.Int("postroom.attempt", a.Counted+1), attribute.String("postroom.attempt_id", a.ID), attribute.String("postroom.verdict", string(s.Verdict)),
		attribute.String("postroom.mailbox", a.Message.From.Address), attribute.Int("postroom.recipients", len(s.Outcomes)))
	if a.Batch != "" {
		attrs = append(attrs, attribute.String("postroom.batch", a.Batch))
	}
	if s.Class != mail.Delivered {
		attrs = append(attrs, semconv.ErrorTypeKey.String(s.Class.String()), attribute.Int("postroom.code", worst.Code),
			attribute.String("postroom.enhanced", worst.Enhanced), attribute.String("postroom.step", worst.Step),
			attribute.String("postroom.cause", string(worst.Cause)))
	}
	_, span := w.tracer.Start(context.Background(), "process "+a.Destination(), trace.WithSpanKind(trace.SpanKindConsumer), trace.WithNewRoot(),
		trace.WithTimestamp(begun), trace.WithLinks(trace.Link{SpanContext: a.Trace}), trace.WithAttributes(attrs...))
	if s.Class != mail.Delivered {
		span.SetStatus(codes.Error, "") // no text: the provider's words can name recipients
	}
	span.End(trace.WithTimestamp(begun.Add(took)))
}
