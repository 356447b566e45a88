package worker

import (
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// Holds: how long a limit key is silent after a refusal that does not say how long. Each refusal in a row doubles the
// hold, up to the longest.
var holds = map[string]struct{ first, longest time.Duration }{
	"throttled":     {15 * time.Second, 15 * time.Minute},
	"configuration": {15 * time.Second, 10 * time.Minute},
	"unreachable":   {time.Second, time.Minute},
}

// senderDelay is when mail of a sender that the provider does not let us use is offered again. It holds nobody else's.
const senderDelay = 10 * time.Minute

// policy is what decide has to know besides the attempt.
type policy struct {
	schedule  Schedule
	onUnknown queue.UnknownPolicy
	// foreign says that the message has a sender other than the provider's own.
	foreign bool
	now     time.Time
	random  float64
}

// decide says what is to be done after an attempt: one verdict, from one outcome for each recipient that was offered.
//
// What silences the mailbox comes first, because it is true of every pending recipient and does not count; then what
// nobody knows, then what can be tried again; what was refused for good decides only when nothing else is left.
func decide(a *queue.Attempt, outcomes []mail.Outcome, p policy) *queue.Settlement {
	s := &queue.Settlement{Attempt: a, Outcomes: outcomes, Verdict: queue.Done, Class: mail.Delivered, Counted: true}
	var worst *mail.Outcome
	for i := range outcomes {
		if o := &outcomes[i]; worst == nil || rank(o) > rank(worst) {
			worst = o
		}
	}
	s.Class = worst.Class
	switch {
	case worst.Class == mail.Delivered || worst.Class == mail.Permanent:
		if worst.Class == mail.Permanent || a.Refused() {
			s.Verdict, s.Class = queue.GiveUp, mail.Permanent
		}
	case reason(worst) != "":
		s.Counted = false
		if worst.Class == mail.Configuration && worst.Scope == mail.ScopeMailbox && p.foreign {
			s.Verdict, s.Delay = queue.Again, senderDelay
			break
		}
		h := holds[reason(worst)]
		s.Verdict, s.Reason, s.Hold, s.HoldMax = queue.Back, reason(worst), h.first, h.longest
		if worst.RetryAfter > 0 {
			s.Hold, s.HoldMax = worst.RetryAfter, 0
		}
	case worst.Class == mail.Unknown && p.onUnknown == queue.Hold:
		s.Verdict = queue.GiveUp
	default:
		first := a.First
		if first.IsZero() {
			first = a.Now
		}
		if wait, again := p.schedule.Next(a.Counted+1, first, p.now, p.random); again {
			s.Verdict, s.Delay = queue.Again, wait
		} else {
			s.Verdict = queue.GiveUp
		}
	}
	return s
}

// reason says why an outcome silences the limit key; "" if it does not.
func reason(o *mail.Outcome) string {
	switch {
	case o.Class == mail.Throttled:
		return "throttled"
	case o.Class == mail.Configuration:
		return "configuration"
	case o.Class == mail.Temporary && o.Scope == mail.ScopeProvider:
		return "unreachable"
	}
	return ""
}

// rank orders outcomes by how much they have to say about the pending recipients.
func rank(o *mail.Outcome) int {
	switch {
	case reason(o) != "":
		return 4
	case o.Class == mail.Unknown:
		return 3
	case o.Class == mail.Temporary:
		return 2
	case o.Class == mail.Permanent:
		return 1
	}
	return 0
}
