package worker

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// tracer remembers with which options its spans were begun.
type tracer struct {
	embedded.TracerProvider
	mu    sync.Mutex
	spans []trace.SpanConfig
}

func (r *tracer) Tracer(string, ...trace.TracerOption) trace.Tracer { return begins{remembers: r} }

// begins is a tracer's Tracer.
type begins struct {
	embedded.Tracer
	remembers *tracer
}

func (b begins) Start(ctx context.Context, _ string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	b.remembers.mu.Lock()
	defer b.remembers.mu.Unlock()
	b.remembers.spans = append(b.remembers.spans, trace.NewSpanStartConfig(options...))
	return ctx, noop.Span{}
}

// settled is an attempt at a message with a producer's trace, and what it came to.
func settled(sc trace.SpanContext, class mail.Class) (*queue.Attempt, *queue.Settlement) {
	a := &queue.Attempt{ID: "attempt", MessageID: "01M81XYBPYDPWG0SEC0FRP48XT", Batch: "01M81XYBPYDPWG0SEC0FRP48XS", Kind: mail.Report, Counted: 1,
		Message: &mail.Outgoing{From: own}, Trace: sc}
	return a, &queue.Settlement{Attempt: a, Class: class, Verdict: queue.Done, Counted: true, Outcomes: []mail.Outcome{{Class: class, Code: 250, Reply: "ada@example.net"}}}
}

func sampled() trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled, Remote: true})
}

func TestAnAttemptIsASpanLinkedToItsProducer(t *testing.T) {
	r := &tracer{}
	w := New(Options{TracerProvider: r})
	begun := time.Now().Add(-time.Minute)
	for class, failed := range map[mail.Class]bool{mail.Delivered: false, mail.Unknown: true} {
		r.spans = nil
		a, s := settled(sampled(), class)
		w.report("smtp", a, s, begun, time.Second, time.Now())
		if len(r.spans) != 1 {
			t.Fatalf("%d spans", len(r.spans))
		}
		sp := r.spans[0]
		if !sp.NewRoot() || sp.SpanKind() != trace.SpanKindConsumer || !sp.Timestamp().Equal(begun) || len(sp.Links()) != 1 || !sp.Links()[0].SpanContext.Equal(a.Trace) {
			t.Errorf("%+v", sp)
		}
		for _, want := range []attribute.KeyValue{attribute.Int("postroom.attempt", 2), attribute.String("postroom.batch", a.Batch), attribute.String("postroom.class", class.String())} {
			if !slices.Contains(sp.Attributes(), want) {
				t.Errorf("no %v in %v", want, sp.Attributes())
			}
		}
		if slices.ContainsFunc(sp.Attributes(), func(kv attribute.KeyValue) bool { return kv.Key == "error.type" }) != failed {
			t.Errorf("%s: %v", class, sp.Attributes())
		}
		if slices.ContainsFunc(sp.Attributes(), func(kv attribute.KeyValue) bool { return kv.Value.String() == "ada@example.net" }) {
			t.Errorf("a reply is an attribute: %v", sp.Attributes())
		}
	}
}

// Tracing that is off, or has nothing to link to, costs nothing for each mail.
func TestAnAttemptWithoutATraceCostsNothing(t *testing.T) {
	for name, test := range map[string]struct {
		o  Options
		sc trace.SpanContext
	}{"off": {Options{}, sampled()}, "no context": {Options{TracerProvider: &tracer{}}, trace.SpanContext{}}} {
		w := New(test.o)
		a, s := settled(test.sc, mail.Delivered)
		now := time.Now()
		if n := testing.AllocsPerRun(100, func() { w.trace("smtp", a, s, &s.Outcomes[0], now, time.Second) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// BenchmarkLine is what the line of an attempt costs: see ARCHITECTURE.md.
func BenchmarkLine(b *testing.B) {
	file, err := os.Create(filepath.Join(b.TempDir(), "log"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for name, h := range map[string]slog.Handler{"off": slog.DiscardHandler, "text, not written": slog.NewTextHandler(io.Discard, nil), "text to a file": slog.NewTextHandler(file, nil), "JSON to a file": slog.NewJSONHandler(file, nil)} {
		b.Run(name, func(b *testing.B) {
			w := New(Options{Logger: slog.New(h)})
			a, s := settled(trace.SpanContext{}, mail.Delivered)
			now := time.Now()
			b.ReportAllocs()
			for b.Loop() {
				w.line("smtp", a, s, &s.Outcomes[0], 0, now)
			}
		})
	}
}
