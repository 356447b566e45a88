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
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/throttle"
)

// Options say what a worker sends with.
type Options struct {
	// Sender hands messages over; Provider is its kind, for metrics ("smtp").
	Sender   provider.Sender
	Provider string
	// From is the provider's own sender, for messages that name none.
	From mail.Address
	// Schedules are by kind; a kind without one has DefaultSchedule.
	Schedules map[mail.Kind]Schedule
	// OnUnknown is by kind; default queue.Resend.
	OnUnknown map[mail.Kind]queue.UnknownPolicy
	// Logger takes one line for each attempt; default: none.
	Logger *slog.Logger
	// Registerer takes the metrics; default: they are not exported.
	Registerer prometheus.Registerer
}

// Worker handles turns. Safe for concurrent use.
type Worker struct {
	options Options
	log     *slog.Logger
	metrics *metrics
}

// New makes a worker; its HandleTurn is for queue.ConsumerOptions.
func New(o Options) *Worker {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Worker{options: o, log: o.Logger, metrics: newMetrics(o.Registerer, o.Provider)}
}

// Verifies reports whether the sender can tell what became of doubtful messages: it is for queue.ConsumerOptions.
func (w *Worker) Verifies() bool {
	_, verifies := w.options.Sender.(provider.Verifier)
	return verifies
}

// HandleTurn sends until the turn is over. When ctx ends, an attempt that has not reached its point of no return is handed
// back, without counting.
func (w *Worker) HandleTurn(ctx context.Context, t *queue.Turn) {
	var last *queue.Settlement
	for a := t.Next(nil); a != nil; a = t.Next(last) {
		last = w.attempt(ctx, a)
	}
}

// attempt hands one message over and decides.
func (w *Worker) attempt(ctx context.Context, a *queue.Attempt) *queue.Settlement {
	if m := a.Message; m.From.Address == "" {
		name := m.From.Name
		if m.From = w.options.From; name != "" {
			m.From.Name = name
		}
	}
	given := time.Now()
	leave, err := a.Line(ctx)
	if errors.Is(err, queue.ErrLineBusy) || errors.Is(err, queue.ErrLineRefused) {
		w.log.Debug("attempt handed back", "message", a.MessageID, "attempt", a.ID, "kind", a.Kind, "reason", err)
		return &queue.Settlement{Attempt: a, Verdict: queue.Back, Class: mail.Temporary}
	}
	begun := time.Now()
	var outcomes []mail.Outcome
	onUnknown := w.options.OnUnknown[a.Kind]
	var used provider.Usage
	if err == nil {
		outcomes, err = w.guarded(a, func(fence func() error) ([]mail.Outcome, error) { return w.handOver(ctx, a, &onUnknown, &used, fence) })
	}
	took := time.Since(begun)
	if err != nil {
		if leave != nil {
			leave(nil)
		}
		w.log.Info("attempt handed back", "message", a.MessageID, "attempt", a.ID, "kind", a.Kind, "reason", err)
		return &queue.Settlement{Attempt: a, Verdict: queue.Back, Class: mail.Temporary}
	}
	schedule, ok := w.options.Schedules[a.Kind]
	if !ok {
		schedule = DefaultSchedule()
	}
	s := decide(a, outcomes, policy{schedule: schedule, onUnknown: onUnknown,
		now: a.Now.Add(time.Since(given)), random: rand.Float64()})
	leave(s)
	if used != (provider.Usage{}) {
		s.Used = &throttle.Cost{Messages: int64(used.Messages), Requests: int64(used.Requests), Recipients: int64(used.Recipients), UploadBytes: used.UploadBytes}
	}
	w.report(a, s, took, a.Now.Add(time.Since(given)))
	return s
}

// guarded does what hands the message over. A panic is an outcome of this message alone, and an error of ours.
func (w *Worker) guarded(a *queue.Attempt, do func(fence func() error) ([]mail.Outcome, error)) (outcomes []mail.Outcome, err error) {
	fenced := false
	defer func() {
		if p := recover(); p != nil {
			// The panic's text may hold content: only where it happened is told.
			w.log.Error("panic in an attempt", "message", a.MessageID, "attempt", a.ID, "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
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

// handOver offers the message to the recipients who are pending. Of a doubtful one a provider that can tell is asked first who
// has it. What such a provider does not know of its own attempt it is asked about in the next one: so onUnknown decides only about
// what it can't tell when it is asked.
func (w *Worker) handOver(ctx context.Context, a *queue.Attempt, onUnknown *queue.UnknownPolicy, used *provider.Usage, fence func() error) ([]mail.Outcome, error) {
	all := a.Message.Recipients()
	d := &provider.Delivery{Message: a.Message, Fence: fence, Retried: a.Retried, Kept: a.Kept, Keep: a.Keep, Used: used}
	for _, index := range a.Offered {
		d.Recipients = append(d.Recipients, all[index])
	}
	verifier, verifies := w.options.Sender.(provider.Verifier)
	if !verifies {
		return w.send(ctx, d)
	}
	if !a.Doubtful {
		*onUnknown = queue.Resend
		return w.send(ctx, d)
	}
	outcomes, err := verifier.Verify(ctx, d)
	if err != nil {
		return nil, err
	}
	var left []int
	offered := d.Recipients
	d.Recipients = nil
	for i, o := range outcomes {
		switch {
		case o.Class == mail.Delivered:
		case o.Cause == mail.NotSent, o.Class == mail.Unknown && *onUnknown != queue.Hold:
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
	sent, err := w.send(ctx, d)
	if err != nil {
		return nil, err
	}
	for n, i := range left {
		outcomes[i] = sent[n]
	}
	return outcomes, nil
}

func (w *Worker) send(ctx context.Context, d *provider.Delivery) ([]mail.Outcome, error) {
	outcomes, err := w.options.Sender.Send(ctx, d)
	if err == nil && len(outcomes) != len(d.Recipients) {
		panic("the sender gave too few outcomes")
	}
	return outcomes, err
}

// report logs one line with fixed keys and counts.
func (w *Worker) report(a *queue.Attempt, s *queue.Settlement, took time.Duration, ended time.Time) {
	w.metrics.attempts[s.Class].Inc()
	w.metrics.duration.Observe(took.Seconds())
	if s.Verdict == queue.Done {
		w.metrics.latency[a.Kind].Observe(max(0, ended.Sub(a.Since).Seconds()))
	}
	level := slog.LevelInfo
	switch s.Class {
	case mail.Delivered:
		level = slog.LevelDebug
	case mail.Configuration, mail.Unknown: // somebody has to look
		level = slog.LevelWarn
	}
	if !w.log.Enabled(context.Background(), level) {
		return
	}
	var worst mail.Outcome
	for i := range s.Outcomes {
		if s.Outcomes[i].Class == s.Class {
			worst = s.Outcomes[i]
		}
	}
	// Never the reply: it can name recipients. It is in the message's record.
	w.log.Log(context.Background(), level, "attempt", "message", a.MessageID, "attempt", a.ID, "kind", a.Kind, "class", s.Class.String(),
		"scope", worst.Scope.String(), "step", worst.Step, "code", worst.Code, "enhanced", worst.Enhanced,
		"recipients", len(s.Outcomes), "verdict", string(s.Verdict), "delay", s.Delay, "hold", s.Hold, "took", took)
}
