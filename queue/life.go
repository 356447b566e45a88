package queue

import (
	"cmp"
	"context"
	"log/slog"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/postroom/postroom/mail"
)

// A message's life can be followed in the log by its id: each step is a line with the key message. Steps that a whole batch takes in
// one (accepted, cancelled) are a line with the key batch, which the lines of its messages have too. The keys are the same
// everywhere: message, batch, kind, attempt (its number), class, mailbox (our own sender), trace_id; what there is none of is left out. Never a
// recipient, nor a reply, which can name one.

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

// toldAll reads what a script says of several, beside holds.
func toldAll(answer any) []told {
	values, _ := answer.([]any)
	var all []told
	for _, v := range values {
		if s := text(v); !strings.HasPrefix(s, aHold) {
			all = append(all, parseTold(s))
		}
	}
	return all
}

// toldHold is what a script says of a hold that began or became longer, or, without until, is over: hold in holds.lua.
type toldHold struct {
	since, until time.Time
	refusals     int
	reason, key  string
}

// toldHolds reads what a script says of holds, beside messages.
func toldHolds(answer any) []toldHold {
	values, _ := answer.([]any)
	var all []toldHold
	for _, v := range values {
		if s := text(v); strings.HasPrefix(s, aHold) {
			all = append(all, parseHold(s))
		}
	}
	return all
}

// aHold is how what a script says of a hold begins.
const aHold = "hold\t"

func parseHold(s string) toldHold {
	f := append(strings.SplitN(s, "\t", 6), "", "", "", "", "")
	h := toldHold{since: unixMilli(f[2]), refusals: atoi(f[3]), reason: f[4], key: f[5]}
	if f[1] != "0" {
		h.until = unixMilli(f[1])
	}
	return h
}

// waits says why mail waits, by the reason of a hold.
var waits = map[string]string{
	"unreachable":   "mail waits: the provider can't be reached",
	"throttled":     "mail waits: the provider asks to slow down",
	"configuration": "mail waits: the provider refuses it, and somebody has to see to it",
}

// log writes the line of a hold: the one of all processes does whose call has changed it. led is the outcome that led to it, of an
// attempt; "" for none. A line is lost if the answer of the script that changed the hold is.
func (h *toldHold) log(log *slog.Logger, led *mail.Outcome, attempt string) {
	level, what := slog.LevelWarn, cmp.Or(waits[h.reason], "mail waits")
	if h.until.IsZero() {
		level, what = slog.LevelInfo, "mail goes again"
	}
	if !log.Enabled(context.Background(), level) {
		return
	}
	attrs := make([]slog.Attr, 0, 12)
	if h.key != Everything {
		attrs = append(attrs, slog.String("mailbox", h.key))
	}
	attrs = append(attrs, slog.String("reason", h.reason), slog.Time("since", h.since))
	if !h.until.IsZero() {
		attrs = append(attrs, slog.Time("until", h.until), slog.Int("refusals", h.refusals))
		if led.Code != 0 {
			attrs = append(attrs, slog.Int("code", led.Code))
		}
		attrs = withText(attrs, "enhanced", led.Enhanced, "step", led.Step, "cause", string(led.Cause), "attempt_id", attempt)
	}
	log.LogAttrs(context.Background(), level, what, attrs...)
}

// withText adds keys and their values, those that have one.
func withText(attrs []slog.Attr, pairs ...string) []slog.Attr {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			attrs = append(attrs, slog.String(pairs[i], pairs[i+1]))
		}
	}
	return attrs
}

// log writes a line, with more keys and values if they have one; attempts are those that counted by then.
func (e *told) log(log *slog.Logger, level slog.Level, what string, more ...string) {
	if !log.Enabled(context.Background(), level) {
		return
	}
	attrs := append(withText(make([]slog.Attr, 0, 9), "message", e.id, "batch", e.batch, "kind", string(e.kind), "state", string(e.state), "class", e.class),
		slog.Int("attempt", e.attempts))
	attrs = withText(attrs, more...)
	log.LogAttrs(context.Background(), level, what, withTraceID(attrs, parseTrace(e.traceParent))...)
}

// withTraceID adds the producer's trace, if there is one.
func withTraceID(attrs []slog.Attr, sc trace.SpanContext) []slog.Attr {
	if sc.IsValid() && sc.IsSampled() {
		attrs = append(attrs, slog.String("trace_id", sc.TraceID().String()))
	}
	return attrs
}

// logAccepted tells that a message (its id beside the key message) or a batch was accepted. If it names no sender it is the provider's own,
// if there is one: as far as accepting knew. by is the name of who handed it in.
func (q *Queue) logAccepted(ctx context.Context, key, id string, m *mail.Message, n int, by string, sc trace.SpanContext) {
	if !q.log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	attrs := make([]slog.Attr, 0, 9)
	attrs = withText(attrs, key, id, "kind", string(m.Kind), "mailbox", cmp.Or(m.From.Address, q.known.own()), "by", by)
	attrs = append(attrs, slog.Int("messages", n))
	if !m.SendAt.IsZero() {
		attrs = append(attrs, slog.Time("until", m.SendAt))
	}
	if !m.ExpiresAt.IsZero() {
		attrs = append(attrs, slog.Time("expires", m.ExpiresAt))
	}
	q.log.LogAttrs(ctx, slog.LevelInfo, "accepted", withTraceID(attrs, sc)...)
}

// logChanged tells of messages of the failed store that somebody has requeued or deleted; ids are those of them that a script has.
func (q *Queue) logChanged(ctx context.Context, what string, messages []*found, ids any) {
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
		attrs := withText(make([]slog.Attr, 0, 8), "message", m.id, "batch", h[headBatch], "kind", string(kindOf[h[headKind]]), "class", h[headClass])
		attrs = append(attrs, slog.Int("attempt", atoi(h[headAttempts])))
		q.log.LogAttrs(ctx, slog.LevelInfo, what, withTraceID(attrs, parseTrace(h[headTrace]))...)
	}
}

// Attrs are what each line about an attempt has: message, batch, kind, attempt (its number), attempt_id, mailbox, and trace_id; those of them
// that there are.
func (a *Attempt) Attrs() []slog.Attr {
	mailbox := ""
	if a.Message != nil {
		mailbox = a.Message.From.Address
	}
	attrs := make([]slog.Attr, 0, 24)
	attrs = withText(attrs, "message", a.MessageID, "batch", a.Batch, "kind", string(a.Kind), "attempt_id", a.ID, "mailbox", mailbox)
	attrs = append(attrs, slog.Int("attempt", a.Counted+1))
	return withTraceID(attrs, a.Trace)
}

// Destination names where the message comes from, in the words of messaging: the installation's namespace.
func (a *Attempt) Destination() string {
	if a.turn == nil {
		return "" // the zero Attempt
	}
	return a.turn.consumer.queue.options.Namespace
}
