// Package worker works off turns: it takes one message after the other from the queue, hands each to the provider once,
// and says what is to be done with it then.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/throttle"
)

// Options say what a worker sends with.
type Options struct {
	// Load makes what settings ask for; it is called when they have become the active ones.
	Load func(context.Context, *queue.Provider) (*Active, error)
	// Schedules are by kind; a kind without one has DefaultSchedule.
	Schedules map[mail.Kind]Schedule
	// OnUnknown is by kind; default queue.Resend.
	OnUnknown map[mail.Kind]queue.UnknownPolicy
	// Logger takes one line for each attempt; default: none.
	Logger *slog.Logger
	// Registerer takes the metrics; default: they are not exported.
	Registerer prometheus.Registerer
	// TracerProvider takes a span for each attempt at a message that came with a sampled trace; default: none.
	TracerProvider trace.TracerProvider
}

// Worker handles turns. Safe for concurrent use.
type Worker struct {
	options Options
	log     *slog.Logger
	metrics *metrics
	tracer  trace.Tracer // nil: no spans

	mu     sync.Mutex
	now    *active // nil: nothing can be sent
	ending sync.WaitGroup
}

// New makes a worker; its HandleTurn is for queue.ConsumerOptions.
func New(o Options) *Worker {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	w := &Worker{options: o, log: o.Logger, metrics: newMetrics(o.Registerer)}
	if o.TracerProvider != nil {
		w.tracer = o.TracerProvider.Tracer(instrumentation)
	}
	return w
}

// HandleTurn sends until the turn is over. When an attempt's context ends that has not reached its point of no return it is handed
// back, without counting.
func (w *Worker) HandleTurn(_ context.Context, t *queue.Turn) {
	var last *queue.Settlement
	for a := t.Next(nil); a != nil; a = t.Next(last) {
		last = w.attempt(a.Context(), a)
	}
}

// attempt hands one message over and decides.
func (w *Worker) attempt(ctx context.Context, a *queue.Attempt) *queue.Settlement {
	by, release := w.acquire(a.Version)
	if by == nil {
		return w.back(a, queue.ErrSettingsChanged)
	}
	defer release()
	if m := a.Message; m.From.Address == "" {
		name := m.From.Name
		if m.From = by.From; name != "" {
			m.From.Name = name
		}
	}
	given := time.Now()
	onUnknown := w.options.OnUnknown[a.Kind]
	var used provider.Usage
	p := &place{Attempt: a, begun: given}
	outcomes, err := w.guarded(a, func(fence func() error) ([]mail.Outcome, error) { return by.handOver(ctx, p, &onUnknown, &used, fence) })
	took := time.Since(p.begun)
	if err != nil {
		if errors.Is(err, queue.ErrLineBusy) || errors.Is(err, queue.ErrLineRefused) || errors.Is(err, queue.ErrSettingsChanged) {
			return w.back(a, err)
		}
		a.Leave(nil)
		w.handedBack(slog.LevelInfo, a, err)
		return &queue.Settlement{Attempt: a, Verdict: queue.Back, Class: mail.Temporary}
	}
	schedule, ok := w.options.Schedules[a.Kind]
	if !ok {
		schedule = DefaultSchedule()
	}
	s := decide(a, outcomes, policy{schedule: schedule, onUnknown: onUnknown,
		now: a.Now.Add(time.Since(given)), random: rand.Float64()})
	a.Leave(s)
	if used != (provider.Usage{}) {
		s.Unused = s.Unused && s.Reason != "" // a draft that was left has been removed
		s.Used = &throttle.Cost{Messages: int64(used.Messages), Requests: int64(used.Requests), Recipients: int64(used.Recipients), UploadBytes: used.UploadBytes}
	}
	w.report(by.Provider, a, s, p.begun, took, a.Now.Add(time.Since(given)))
	return s
}

// back hands an attempt back that has not begun in earnest.
func (w *Worker) back(a *queue.Attempt, why error) *queue.Settlement {
	a.Leave(nil)
	w.handedBack(slog.LevelDebug, a, why)
	return &queue.Settlement{Attempt: a, Verdict: queue.Back, Class: mail.Temporary}
}

// guarded does what hands the message over. A panic is an outcome of this message alone, and an error of ours.
func (w *Worker) guarded(a *queue.Attempt, do func(fence func() error) ([]mail.Outcome, error)) (outcomes []mail.Outcome, err error) {
	fenced := false
	defer func() {
		if p := recover(); p != nil {
			// The panic's text may hold content: only where it happened is told.
			w.log.LogAttrs(context.Background(), slog.LevelError, "panic in an attempt",
				append(a.Attrs(), slog.String("panic", fmt.Sprintf("%T", p)), slog.String("stack", string(debug.Stack())))...)
			class := mail.Temporary
			if fenced {
				class = mail.Unknown
			}
			outcomes, err = provider.All(len(a.Offered), mail.Outcome{Class: class, Cause: mail.Fault, Step: "panic", Reply: "A fault in Postroom stopped the attempt; its log says where."}), nil
		}
	}()
	return do(func() error {
		if err := a.Fence(); err != nil {
			return err
		}
		fenced = true
		return nil
	})
}

// place is an attempt's in its line.
type place struct {
	*queue.Attempt
	begun time.Time // when nobody was ahead any more
}

var _ provider.Place = (*place)(nil)

// Await implements provider.Place.
func (p *place) Await(ctx context.Context, started func() bool) error {
	err := p.Attempt.Await(ctx, started)
	p.begun = time.Now()
	return err
}

// handOver offers the message to the recipients who are pending. Of a doubtful one a provider that can tell is asked first who
// has it. What such a provider does not know of its own attempt it is asked about in the next one: so onUnknown decides only about
// what it can't tell when it is asked, and not about what an administrator has requeued since. Of an attempt for other settings it can only tell that it knows of it.
func (by *active) handOver(ctx context.Context, p *place, onUnknown *queue.UnknownPolicy, used *provider.Usage, fence func() error) ([]mail.Outcome, error) {
	a := p.Attempt
	all := a.Message.Recipients()
	d := &provider.Delivery{Message: a.Message, Bounds: provider.Bounds(a.Bounds), Counted: a.Counted, Fence: fence, Retried: a.Retried, Kept: a.Kept, Keep: a.Keep, Used: used}
	for _, index := range a.Offered {
		d.Recipients = append(d.Recipients, all[index])
	}
	verifier, verifies := by.Sender.(provider.Verifier)
	if !verifies {
		outcomes, err := by.send(ctx, d, p)
		for i := range outcomes {
			outcomes[i] = doubted(outcomes[i], a.Doubtful)
		}
		return outcomes, err
	}
	if !a.Doubtful {
		*onUnknown = queue.Resend
		return by.send(ctx, d, p)
	}
	if err := p.Await(ctx, nil); err != nil {
		return nil, err
	}
	outcomes, err := verifier.Verify(ctx, d)
	if err != nil {
		return nil, err
	}
	for i, o := range outcomes {
		if a.Former && o.Cause == mail.NotSent {
			outcomes[i] = mail.Outcome{Class: mail.Unknown, Step: o.Step, Reply: "It was handed to another provider, or to this one by other settings."}
		}
	}
	var left []int
	offered := d.Recipients
	d.Recipients = nil
	for i, o := range outcomes {
		switch {
		case o.Class == mail.Delivered:
		case o.Cause == mail.NotSent, o.Class == mail.Unknown && (*onUnknown != queue.Hold || a.Released):
			left = append(left, i)
			d.Recipients = append(d.Recipients, offered[i])
		default:
			return outcomes, nil
		}
	}
	if len(left) == 0 {
		return outcomes, nil
	}
	*onUnknown = queue.Resend
	sent, err := by.send(ctx, d, p)
	if err != nil {
		return nil, err
	}
	for n, i := range left {
		outcomes[i] = doubted(sent[n], outcomes[i].Class == mail.Unknown)
	}
	return outcomes, nil
}

// send hands the message over when it is the first in its line.
func (by *active) send(ctx context.Context, d *provider.Delivery, p *place) (outcomes []mail.Outcome, err error) {
	if sender, ok := by.Sender.(provider.Pipeliner); ok {
		outcomes, err = sender.SendInLine(ctx, d, p)
	} else if err = p.Await(ctx, nil); err == nil {
		outcomes, err = by.Sender.Send(ctx, d)
	}
	if err == nil && len(outcomes) != len(d.Recipients) {
		panic("the sender gave too few outcomes")
	}
	return outcomes, err
}
