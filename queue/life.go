package queue

import (
	"context"
	"log/slog"
	"strings"

	"go.opentelemetry.io/otel/trace"

	"github.com/postroom/postroom/mail"
)

// A message's life can be followed in the log by its id: each step is a line with the key message. Steps that a whole batch takes in
// one (accepted, cancelled) are a line with the key batch, which the lines of its messages have too. The keys are the same
// everywhere: message, batch, kind, attempt (its number), class, mailbox (our own sender), trace_id. Never a recipient, nor a reply, which can name one.

// told is what a script says of a message whose state it has changed: told in records.lua.
type told struct {
	state              State
	kind               mail.Kind
	id, batch          string
	attempts           int
	class, traceParent string
}

func parseTold(s string) told {
	f := append(strings.Split(s, ","), "", "", "", "", "", "", "")
	return told{state: stateOf[f[0]], kind: kindOf[f[1]], id: f[2], batch: f[3], attempts: atoi(f[4]), class: f[5], traceParent: f[6]}
}

// toldAll reads what a script says of several.
func toldAll(answer any) []told {
	values, _ := answer.([]any)
	var all []told
	for _, v := range values {
		all = append(all, parseTold(text(v)))
	}
	return all
}

// log writes a line; attempts are those that counted by then.
func (e *told) log(log *slog.Logger, level slog.Level, what string) {
	if !log.Enabled(context.Background(), level) {
		return
	}
	attrs := []slog.Attr{slog.String("message", e.id), slog.String("batch", e.batch), slog.String("kind", string(e.kind)),
		slog.String("state", string(e.state)), slog.Int("attempt", e.attempts), slog.String("class", e.class)}
	log.LogAttrs(context.Background(), level, what, withTraceID(attrs, parseTrace(e.traceParent))...)
}

// withTraceID adds the producer's trace, if there is one.
func withTraceID(attrs []slog.Attr, sc trace.SpanContext) []slog.Attr {
	if sc.IsValid() && sc.IsSampled() {
		attrs = append(attrs, slog.String("trace_id", sc.TraceID().String()))
	}
	return attrs
}

// logAccepted tells that a message (its id beside the key message) or a batch was accepted.
func (q *Queue) logAccepted(ctx context.Context, key, id string, m *mail.Message, n int, sc trace.SpanContext) {
	if !q.log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	attrs := make([]slog.Attr, 0, 8)
	attrs = append(attrs, slog.String(key, id), slog.String("kind", string(m.Kind)), slog.String("mailbox", m.From.Address), slog.Int("messages", n))
	if !m.SendAt.IsZero() {
		attrs = append(attrs, slog.Time("until", m.SendAt))
	}
	if !m.ExpiresAt.IsZero() {
		attrs = append(attrs, slog.Time("expires", m.ExpiresAt))
	}
	q.log.LogAttrs(ctx, slog.LevelInfo, "accepted", withTraceID(attrs, sc)...)
}

// logChanged tells of messages of the failed store that somebody has requeued or deleted; ids are those of them that a script has.
func (q *Queue) logChanged(ctx context.Context, what string, messages []*failedMessage, ids any) {
	if !q.log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	values, _ := ids.([]any)
	changed := make(map[string]bool, len(values))
	for _, v := range values {
		changed[text(v)] = true
	}
	for _, m := range messages {
		if !changed[m.id] || m.record == nil {
			continue
		}
		h := &m.record.head
		attrs := []slog.Attr{slog.String("message", m.id), slog.String("batch", h[headBatch]), slog.String("kind", string(kindOf[h[headKind]])),
			slog.Int("attempt", atoi(h[headAttempts])), slog.String("class", h[headClass])}
		q.log.LogAttrs(ctx, slog.LevelInfo, what, withTraceID(attrs, parseTrace(h[headTrace]))...)
	}
}

// Attrs are what each line about an attempt has: message, batch, kind, attempt (its number), attempt_id, mailbox, and trace_id if its
// producer's context is known.
func (a *Attempt) Attrs() []slog.Attr {
	mailbox := ""
	if a.Message != nil {
		mailbox = a.Message.From.Address
	}
	attrs := make([]slog.Attr, 0, 24)
	attrs = append(attrs, slog.String("message", a.MessageID), slog.String("batch", a.Batch), slog.String("kind", string(a.Kind)),
		slog.Int("attempt", a.Counted+1), slog.String("attempt_id", a.ID), slog.String("mailbox", mailbox))
	return withTraceID(attrs, a.Trace)
}

// Destination names where the message comes from, in the words of messaging: the installation's namespace.
func (a *Attempt) Destination() string {
	if a.turn == nil {
		return "" // the zero Attempt
	}
	return a.turn.consumer.queue.options.Namespace
}
