package worker

import (
	"slices"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/queue"
)

// Holds: how long a limit key is silent after a refusal that does not say how long. Each refusal in a row doubles the
// hold, up to the longest.
var holds = map[string]struct{ first, longest time.Duration }{
	"throttled":     {15 * time.Second, 15 * time.Minute},
	"configuration": {15 * time.Second, 10 * time.Minute},
	"unreachable":   {time.Second, time.Minute},
}

// longestRetryAfter bounds what a provider can ask for: the longest of their quotas are daily.
const longestRetryAfter = 24 * time.Hour

// policy is what decide has to know besides the attempt.
type policy struct {
	schedule  Schedule
	onUnknown queue.UnknownPolicy
	now       time.Time
	random    float64
}

// decide says what is to be done after an attempt: one verdict, from one outcome for each recipient that was offered.
//
// What silences the mailbox comes first, because it is true of every pending recipient and does not count; then what
// nobody knows, then what can be tried again; what was refused for good decides only when nothing else is left. Where the policy is to hold,
// those of whom nobody knows are set apart while others can still get it, and what becomes of these is decided without them.
func decide(a *queue.Attempt, outcomes []mail.Outcome, p policy) *queue.Settlement {
	outcomes = entire(outcomes)
	s := &queue.Settlement{Attempt: a, Outcomes: outcomes, Verdict: queue.Done, Class: mail.Delivered, Counted: true}
	hold := p.onUnknown == queue.Hold && slices.ContainsFunc(outcomes, unknown)
	// A provider that was asked goes by what it kept of one attempt, and can only be asked again as long as nothing else of the message goes.
	asked := slices.ContainsFunc(outcomes, func(o mail.Outcome) bool { return o.Cause == mail.NotSent })
	s.Held = hold && !asked && slices.ContainsFunc(outcomes, goesOn)
	rest := outcomes
	if s.Held {
		rest = slices.DeleteFunc(slices.Clone(outcomes), unknown)
	}
	worst := &mail.Outcome{Class: mail.Delivered}
	for i := range rest {
		o := &rest[i]
		if rank(o) > rank(worst) || rank(o) == rank(worst) && o.RetryAfter > worst.RetryAfter {
			worst = o
		}
	}
	s.Class = worst.Class
	s.Unused = !slices.ContainsFunc(outcomes, func(o mail.Outcome) bool { return o.Step != "render" && o.Step != provider.StepLimit })
	switch {
	case hold && !s.Held:
		s.Verdict, s.Class = queue.GiveUp, mail.Unknown
	case worst.Class == mail.Delivered || worst.Class == mail.Permanent:
		if worst.Class == mail.Permanent || a.Refused() {
			s.Verdict, s.Class = queue.GiveUp, mail.Permanent
		}
		if a.Held() {
			s.Verdict = queue.GiveUp
		}
	case reason(worst) != "":
		h := holds[reason(worst)]
		s.Verdict, s.Counted, s.Reason, s.Scope, s.Hold, s.HoldMax = queue.Back, false, reason(worst), worst.Scope, h.first, h.longest
		s.Unused = s.Reason == "unreachable" && !s.Held
		if worst.RetryAfter > 0 {
			s.Hold, s.HoldMax = min(worst.RetryAfter, longestRetryAfter), 0
		}
	case crowded(rest, s.Held):
		// The others can have it at once. If the server has put off somebody itself the attempt counts, so that the next one begins
		// further on, and he is not asked again and again meanwhile.
		if slices.ContainsFunc(rest, deferred) {
			s.Verdict = queue.Again
		} else {
			s.Verdict, s.Counted = queue.Back, false
		}
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
	if s.Held || s.Verdict == queue.GiveUp && a.Held() {
		s.Class, s.Counted = mail.Unknown, true
	}
	return s
}

// entire gives those who were put off for want of room the outcome that is true of the message whoever it is for: it could not be rendered,
// or was refused for good before the provider knew of a recipient, as too large for SIZE or at MAIL. To offer it to them would be to repeat
// the very command that was refused, which RFC 5321, section 4.2.1, asks not to do. From RCPT on the recipients are part of what was
// asked: a refusal at DATA or after the final dot (section 4.2.5) speaks of the whole transaction and can be due to one of them, as can that of
// Graph, which has them in the same request. So the others are tried.
func entire(outcomes []mail.Outcome) []mail.Outcome {
	at := slices.IndexFunc(outcomes, func(o mail.Outcome) bool {
		return o.Class == mail.Permanent && o.Scope == mail.ScopeMessage && (o.Step == "render" || o.Step == "mail")
	})
	if at < 0 {
		return outcomes
	}
	all := slices.Clone(outcomes)
	for i := range all {
		if noRoom(&all[i]) {
			all[i] = outcomes[at]
		}
	}
	return all
}

// doubted gives the outcome of a recipient who, if in doubt, may have the message by an earlier attempt: only what is known not to be sent
// fails for its size, when limits have shrunk.
func doubted(o mail.Outcome, inDoubt bool) mail.Outcome {
	if inDoubt && o.Step == provider.StepLimit {
		o.Class, o.Cause = mail.Unknown, ""
		o.Reply = "an earlier attempt may have sent it, and it is not sent again: " + o.Reply
	}
	return o
}

// crowded reports whether some recipients are put off only because no more are taken at once, by the server (RFC 5321, section
// 4.5.3.1.10) or by recipients_per_message, and somebody else was decided about. They can have it now, and as each attempt leaves fewer
// pending, this ends.
func crowded(outcomes []mail.Outcome, decided bool) bool {
	left := false
	for i := range outcomes {
		switch o := &outcomes[i]; {
		case o.Class == mail.Delivered, o.Class == mail.Permanent:
			decided = true
		case noRoom(o):
			left = true
		case !deferred(*o):
			return false
		}
	}
	return decided && left
}

// noRoom reports whether a recipient is put off because there are too many.
func noRoom(o *mail.Outcome) bool {
	return o.Class == mail.Temporary && (o.Cause == mail.TooManyRecipients || o.Step == "rcpt" && o.Code == 452 && o.Enhanced == "")
}

// deferred reports whether the server wants this one recipient to be offered later.
func deferred(o mail.Outcome) bool {
	return o.Class == mail.Temporary && o.Scope == mail.ScopeRecipient && !noRoom(&o)
}

// unknown reports whether nobody knows whether a recipient has it.
func unknown(o mail.Outcome) bool { return o.Class == mail.Unknown }

// goesOn reports whether a recipient is known not to have it, and can still get it.
func goesOn(o mail.Outcome) bool {
	return o.Class != mail.Delivered && o.Class != mail.Permanent && o.Class != mail.Unknown
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
