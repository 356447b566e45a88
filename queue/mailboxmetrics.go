package queue

import (
	"cmp"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postroom/postroom/throttle"
)

// Metrics of mailboxes. The label mailbox is a limit key: a sender of ours, never a recipient, or the account that sends for
// all; "other" is everything beyond Options.MailboxMetrics. limit is a throttle.Name; the provider's own limits have the
// mailbox "*".
//
//	postroom_mailbox_limit_used_ratio{mailbox,limit}  how much of a limit is used, 0 to 1
//	postroom_mailbox_backlog{mailbox}                 messages that go as soon as their turn comes
//	postroom_mailbox_drain_seconds{mailbox}           forecast of when the backlog will be through; absent while unknown; alert on
//	                                                  more than your mail may take
//	postroom_mailbox_held{mailbox,reason}             1 while it is held; reason: throttled, configuration, unreachable, paused;
//	                                                  alert on configuration at once, on the others after a while
var (
	usedDesc = prometheus.NewDesc("postroom_mailbox_limit_used_ratio",
		"Share of a limit that is used. The same from every process.", []string{"mailbox", "limit"}, nil)
	backlogDesc = prometheus.NewDesc("postroom_mailbox_backlog",
		"Messages of a mailbox that go as soon as their turn comes. The same from every process.", []string{"mailbox"}, nil)
	drainDesc = prometheus.NewDesc("postroom_mailbox_drain_seconds",
		"Forecast of the time until a mailbox's backlog is through. The same from every process.", []string{"mailbox"}, nil)
	heldDesc = prometheus.NewDesc("postroom_mailbox_held",
		"1 while nothing of a mailbox goes, by why. The same from every process.", []string{"mailbox", "reason"}, nil)
	mailboxDescs = []*prometheus.Desc{usedDesc, backlogDesc, drainDesc, heldDesc, healthyDesc, providerDesc}
)

// holdReasons are the values of the label reason.
var holdReasons = []string{"throttled", "configuration", "unreachable", "paused"}

// others gathers the mailboxes beyond the bound.
type others struct {
	backlog int
	used    map[throttle.Name]float64
	drain   float64
	held    map[string]float64
}

// collectMailboxes exports the metrics of mailboxes.
func (c collector) collectMailboxes(s *state, gauge func(*prometheus.Desc, float64, ...string)) {
	for _, w := range s.allBooks {
		gauge(usedDesc, ratio(w.Use(s.now)), Everything, string(w.Limit.Name))
	}
	shown := slices.Clone(s.mailboxes)
	slices.SortStableFunc(shown, func(a, b *Mailbox) int { return cmp.Compare(b.Waiting(), a.Waiting()) })
	rest := others{used: map[throttle.Name]float64{}, held: map[string]float64{}}
	for i, m := range shown {
		drain := 0.0
		if !m.Through.IsZero() {
			drain = max(0, m.Through.Sub(s.now).Seconds())
		}
		known := m.Waiting() == 0 || !m.Through.IsZero()
		held := heldBy(m)
		if i >= c.q.options.MailboxMetrics {
			rest.backlog += m.Waiting()
			rest.drain = max(rest.drain, drain)
			for _, l := range m.Limits {
				if !l.All {
					rest.used[l.Name] = max(rest.used[l.Name], ratio(l.Use))
				}
			}
			for reason, is := range held {
				rest.held[reason] = max(rest.held[reason], is)
			}
			continue
		}
		gauge(backlogDesc, float64(m.Waiting()), m.Key)
		if known {
			gauge(drainDesc, drain, m.Key)
		}
		for _, l := range m.Limits {
			if !l.All {
				gauge(usedDesc, ratio(l.Use), m.Key, string(l.Name))
			}
		}
		for _, reason := range holdReasons {
			gauge(heldDesc, held[reason], m.Key, reason)
		}
	}
	if len(shown) <= c.q.options.MailboxMetrics {
		return
	}
	const other = "other"
	gauge(backlogDesc, float64(rest.backlog), other)
	gauge(drainDesc, rest.drain, other)
	for name, used := range rest.used {
		gauge(usedDesc, used, other, string(name))
	}
	for _, reason := range holdReasons {
		gauge(heldDesc, rest.held[reason], other, reason)
	}
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
