package queue

import (
	"cmp"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postroom/postroom/throttle"
)

// Metrics of mailboxes. The label mailbox is a limit key: a sender of ours, never a recipient, or the account that sends for
// all; "other" is everything beyond Options.MailboxMetrics. limit is a throttle.Name; the provider's own limits have the
// mailbox "*".
var (
	usedDesc = prometheus.NewDesc("postroom_mailbox_limit_used_ratio",
		"Share of a limit that is used, 0 to 1. The same from every process.", []string{"mailbox", "limit"}, nil)
	backlogDesc = prometheus.NewDesc("postroom_mailbox_backlog",
		"Messages of a mailbox that go as soon as their turn comes, not those that wait for a time. The same from every process.", []string{"mailbox"}, nil)
	drainDesc = prometheus.NewDesc("postroom_mailbox_drain_seconds",
		"Forecast of the time until a mailbox's backlog is through; absent while unknown, and while no worker can send. The same from every process.", []string{"mailbox"}, nil)
	waitDesc = prometheus.NewDesc("postroom_mailbox_wait_seconds",
		"How long until the next message of a mailbox may go: 0 if one may now; else it is held, paused, or a limit has no room. Absent while no worker can send. The same from every process.",
		[]string{"mailbox"}, nil)
	heldDesc = prometheus.NewDesc("postroom_mailbox_held",
		"1 while nothing of a mailbox goes: throttled (it was too fast), configuration (credentials, permission or mailbox are wrong), unreachable, paused. The same from every process.", []string{"mailbox", "reason"}, nil)
	mailboxDescs = []*prometheus.Desc{usedDesc, backlogDesc, drainDesc, waitDesc, heldDesc}
)

// holdReasons are the values of the label reason.
var holdReasons = []string{"throttled", "configuration", "unreachable", "paused"}

// collectMailboxes exports the metrics of mailboxes.
func (c collector) collectMailboxes(s *state, g gauges) {
	for _, w := range s.allBooks {
		g.set(usedDesc, ratio(w.Use(s.now)), Everything, string(w.Limit.Name))
	}
	shown := slices.Clone(s.mailboxes)
	slices.SortStableFunc(shown, func(a, b *Mailbox) int { return cmp.Compare(b.Waiting(), a.Waiting()) })
	rest := shown[min(len(shown), c.q.options.MailboxMetrics):]
	for _, m := range shown[:len(shown)-len(rest)] {
		g.set(backlogDesc, float64(m.Waiting()), m.Key)
		if m.Workers.Able() {
			g.set(waitDesc, max(0, m.Next.Sub(s.now).Seconds()), m.Key)
		}
		if through, known := m.drain(s.now); known {
			g.set(drainDesc, through, m.Key)
		}
		for _, l := range m.Limits {
			if !l.All {
				g.set(usedDesc, ratio(l.Use), m.Key, string(l.Name))
			}
		}
		for _, reason := range holdReasons {
			g.set(heldDesc, heldBy(m)[reason], m.Key, reason)
		}
	}
	if len(rest) == 0 {
		return
	}
	const other = "other"
	backlog, drain, known, held := 0, 0.0, false, map[string]float64{}
	for _, m := range rest {
		backlog += m.Waiting()
		through, is := m.drain(s.now)
		drain, known = max(drain, through), known || is
		for reason, is := range heldBy(m) {
			held[reason] = max(held[reason], is)
		}
	}
	g.set(backlogDesc, float64(backlog), other)
	if known {
		g.set(drainDesc, drain, other)
	}
	for _, reason := range holdReasons {
		g.set(heldDesc, held[reason], other, reason)
	}
}

// drain gives the seconds until a mailbox's backlog is through, and whether anything is known of that.
func (m *Mailbox) drain(now time.Time) (seconds float64, known bool) {
	if m.Through.IsZero() {
		return 0, m.Waiting() == 0
	}
	return max(0, m.Through.Sub(now).Seconds()), true
}

func ratio(u throttle.Use) float64 { return float64(u.Used) / float64(max(u.Max, 1)) }

// heldBy says by which reasons a mailbox is held.
func heldBy(m *Mailbox) map[string]float64 {
	held := map[string]float64{}
	if m.Hold != nil {
		held[m.Hold.Reason] = 1
	}
	if m.Pause != nil {
		held["paused"] = 1
	}
	return held
}
