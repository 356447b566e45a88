package queue

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// HealthState says how a provider does.
type HealthState string

// The states.
const (
	// Healthy: mail goes, as far as anybody knows.
	Healthy HealthState = "ok"
	// Degraded: some mail does not go, or some workers send nothing.
	Degraded HealthState = "degraded"
	// Faulty: no mail goes, for a reason that somebody has to see to.
	Faulty HealthState = "faulty"
)

// Health is how the active provider does.
type Health struct {
	State HealthState
	// Since is when the oldest of its faults began; zero without one, or if nobody knows.
	Since time.Time
	// Hold is the refusal that silences most; nil if there is none. Mailbox is the limit key that it silences, Everything for all.
	Hold    *Silence
	Mailbox string
	// Held is how many mailboxes are held, of how many that have, or lately had, mail.
	Held, Mailboxes int
	// Pause is one that stops all mail: of everything, or of the account that sends for all; nil if there is none. It is not the
	// provider's, and no part of State. Paused is how many mailboxes are paused, all of them if everything is.
	Pause  *Silence
	Paused int
	// Account is the one that sends for all; "" if each mailbox sends for itself.
	Account string
	// Open is how many messages have not ended.
	Open int
	// Workers are the processes that take part in sending.
	Workers []WorkerStatus
}

// Workforce counts Workers.
func (h *Health) Workforce() Workforce { return workforce(h.Workers) }

// WorkerStatus is what a process sends with.
type WorkerStatus struct {
	// ID is that of its lease, which changes with each start. Host is where it runs.
	ID, Host string
	// Version is that of the settings it has loaded; "" for none. Fault is why it can't load the active ones; "" if it can.
	Version, Fault string
}

// CanSend reports whether the process sends with the settings of a version.
func (w *WorkerStatus) CanSend(version string) bool { return w.Version == version && w.Fault == "" }

// Workforce counts the processes that take part in sending.
type Workforce struct {
	// Running is how many there are; Unable how many of them can't load the active settings, and send nothing.
	Running, Unable int
}

// Able reports whether any of them can send.
func (w Workforce) Able() bool { return w.Running > w.Unable }

func workforce(workers []WorkerStatus) Workforce {
	w := Workforce{Running: len(workers)}
	for i := range workers {
		if workers[i].Fault != "" {
			w.Unable++
		}
	}
	return w
}

// Workers lists the processes that take part in sending, by id.
func (q *Queue) Workers(ctx context.Context) ([]WorkerStatus, error) {
	told, err := q.run(ctx, "workers", leaseTime.Milliseconds()).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("queue: workers: %w", err)
	}
	var all []WorkerStatus
	for worker := range slices.Chunk(told, 2) {
		f := append(strings.Split(worker[1], "\t"), "", "")
		all = append(all, WorkerStatus{ID: worker[0], Version: f[0], Host: f[1], Fault: f[2]})
	}
	slices.SortFunc(all, func(a, b WorkerStatus) int { return cmp.Compare(a.ID, b.ID) })
	return all, nil
}

// Health tells how the active provider does, as attempts have found it: a hold lasts in it until an attempt has shown that it is
// over. It is the same from every process. Pauses are told beside it: they are not the provider's.
func (q *Queue) Health(ctx context.Context) (*Health, error) {
	p, err := q.Provider(ctx)
	if err != nil {
		return nil, err
	}
	counts, err := q.Counts(ctx)
	if err != nil {
		return nil, err
	}
	s, err := q.state(ctx, "", 0)
	if err != nil {
		return nil, err
	}
	return healthOf(p, counts, s), nil
}

func healthOf(p *Provider, counts *Counts, s *state) *Health {
	h := &Health{State: Healthy, Workers: s.workers, Mailboxes: len(s.mailboxes), Pause: s.pause, Account: s.account}
	for _, n := range counts.Open {
		h.Open += n
	}
	if p.Version == "" {
		if h.Open > 0 {
			h.State, h.Since = Faulty, p.Since
		}
		return h
	}
	workers := workforce(s.workers)
	h.Hold = s.hold
	h.Mailbox = Everything
	faulty := 0 // mailboxes whose hold somebody has to see to
	for _, m := range s.mailboxes {
		if m.Pause != nil {
			h.Paused++
			if m.Key == s.account && (h.Pause == nil || m.Pause.Until.After(h.Pause.Until)) {
				h.Pause = m.Pause
			}
		}
		if m.Hold == nil {
			continue
		}
		h.Held++
		if m.Hold.Reason != "throttled" {
			faulty++
		}
		// Of an account and its senders the account's tells most.
		if s.hold == nil && (h.Hold == nil || m.Key == s.account || h.Mailbox != s.account && m.Hold.Since.Before(h.Hold.Since)) {
			h.Hold, h.Mailbox = m.Hold, m.Key
		}
	}
	if h.Hold == nil {
		h.Mailbox = ""
	} else {
		h.Since = h.Hold.Since
	}
	all := h.Hold != nil && (h.Mailbox == Everything || h.Mailbox == s.account)
	switch {
	case all && h.Hold.Reason != "throttled", faulty > 0 && faulty == len(s.mailboxes), !workers.Able() && (h.Open > 0 || workers.Unable > 0):
		h.State = Faulty
	case h.Hold != nil, workers.Unable > 0:
		h.State = Degraded
	}
	return h
}

// Metrics of the provider.
var (
	healthyDesc = prometheus.NewDesc("postroom_provider_healthy",
		"1 while the provider takes mail, 0.5 while some of it does not go, 0 while none does, also as no worker can send what waits. The same from every process.", nil, nil)
	providerDesc = prometheus.NewDesc("postroom_provider_info",
		"1 for the kind of the active provider, 0 for the others. The same from every process.", []string{"kind"}, nil)
)

// providerKinds are the values of the label kind.
var providerKinds = []string{NoProvider, "smtp", "microsoft365"}
