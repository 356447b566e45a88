package queue

import (
	"context"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace"

	"github.com/postroom/postroom/mail"
)

// traceOf is a context that somebody calls with; state is its tracestate.
func traceOf(t *testing.T, flags trace.TraceFlags, state string) trace.SpanContext {
	t.Helper()
	c := trace.SpanContextConfig{TraceFlags: flags, Remote: true}
	var err error
	if c.TraceID, err = trace.TraceIDFromHex("0af7651916cd43dd8448eb211c80319c"); err != nil {
		t.Fatal(err)
	}
	if c.SpanID, err = trace.SpanIDFromHex("b7ad6b7169203331"); err != nil {
		t.Fatal(err)
	}
	if c.TraceState, err = trace.ParseTraceState(state); err != nil {
		t.Fatal(err)
	}
	return trace.NewSpanContext(c)
}

func TestATraceIsReadAsItWasWritten(t *testing.T) {
	for _, state := range []string{"", "a=b", "a=b,c@d=e f;g"} {
		sc := traceOf(t, trace.FlagsSampled, state)
		text := traceText(sc)
		if got := parseTrace(text); !got.Equal(sc) || strings.ContainsAny(text, "\t\n") {
			t.Errorf("%q: %v, want %v", text, got, sc)
		}
	}
	if long := traceText(traceOf(t, trace.FlagsSampled, "a="+strings.Repeat("b", mostTraceState))); len(long) != traceLength || !parseTrace(long).IsValid() {
		t.Errorf("a long tracestate: %q", long)
	}
	if text := traceText(traceOf(t, 0, "a=b")) + traceText(trace.SpanContext{}); text != "" {
		t.Errorf("what is not sampled is kept: %q", text)
	}
	for _, text := range []string{"", "x", strings.Repeat("!", traceLength), strings.Repeat("A", traceLength)} {
		if sc := parseTrace(text); sc.IsValid() {
			t.Errorf("%q is %v", text, sc)
		}
	}
}

// What nobody traces costs nothing: neither time when it is accepted, nor bytes in its record.
func TestNoTraceCostsNothing(t *testing.T) {
	q := &Queue{}
	ctx := context.Background()
	m := message(mail.Report, "ada@example.net")
	if n := testing.AllocsPerRun(100, func() {
		_, s := q.beginSending(ctx)
		if traceText(s.context) != "" {
			t.Error("a trace of nobody")
		}
		s.end(nil, &m)
	}); n != 0 {
		t.Errorf("%v allocations for each message", n)
	}
	r := record{}
	r.head[headVersion], r.head[headState] = formatVersion, "q"
	r.head[headBytes] = "1"
	without := r.encode()
	r.head[headTrace] = traceText(traceOf(t, trace.FlagsSampled, ""))
	if more := len(r.encode()) - len(without); strings.HasSuffix(strings.SplitN(without, "\n", 2)[0], "\t") || more > 40 {
		t.Errorf("%q; a trace adds %d bytes", without, more)
	}
}

// The trace comes with each attempt, of a single message by its record and of a batch's by its batch, and goes with the record's end.
func TestATraceComesWithEachAttempt(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	sc := traceOf(t, trace.FlagsSampled, "a=b")
	ctx := trace.ContextWithSpanContext(t.Context(), sc)
	single, err := q.Enqueue(ctx, message(mail.Report, "ada@example.net"))
	if err != nil {
		t.Fatal(err)
	}
	many, err := q.EnqueueBatch(ctx, batch(mail.Subscription, 2))
	if err != nil {
		t.Fatal(err)
	}
	untraced := enqueue(t, q, message(mail.Report, "ada@example.net"))
	tries := map[string]int{}
	turn := d.turn()
	var last *Settlement
	for a := turn.Next(nil); a != nil; a = turn.Next(last) {
		if want := a.MessageID != untraced; a.Trace.IsValid() != want || want && !a.Trace.Equal(sc) {
			t.Errorf("%s comes with %v", a.MessageID, a.Trace)
		}
		if want := map[bool]string{true: many.ID}[a.Kind == mail.Subscription]; a.Batch != want {
			t.Errorf("%s is of batch %q, want %q", a.MessageID, a.Batch, want)
		}
		if tries[a.MessageID]++; tries[a.MessageID] == 1 {
			last = &Settlement{Attempt: a, Verdict: Back, Class: mail.Temporary}
		} else {
			last = delivered(a)
		}
	}
	if len(tries) != 4 {
		t.Errorf("attempts: %v", tries)
	}
	for id, n := range tries {
		raw := q.redis.Get(t.Context(), q.key("m:", id)).Val()
		if n != 2 || strings.Contains(raw, traceText(sc)) {
			t.Errorf("%s after %d attempts: %q", id, n, raw)
		}
	}
	_ = single
}
