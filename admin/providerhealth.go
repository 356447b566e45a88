package admin

import (
	"fmt"

	"github.com/postroom/postroom/queue"
)

// healthOf puts health into words.
func healthOf(p *queue.Provider, q *queue.Health, with adviser) ProviderHealth {
	h := ProviderHealth{State: string(q.State), Since: utc(q.Since), Held: q.Held, Mailboxes: q.Mailboxes, Pause: with.silence(q.Pause), Paused: q.Paused, Workers: []Worker{}}
	unable := 0
	for i := range q.Workers {
		w := &q.Workers[i]
		h.Workers = append(h.Workers, Worker{ID: w.ID, Host: w.Host, Ready: w.CanSend(p.Version), Fault: w.Fault})
		if w.Fault != "" {
			unable++
		}
	}
	if q.Hold != nil {
		if q.Mailbox != queue.Everything {
			h.Mailbox = q.Mailbox
		}
		h.Fault = with.fault(q.Hold)
	}
	h.Summary = healthSummary(p, q, unable)
	if h.Fault != nil && q.State != queue.Healthy {
		h.Summary += " " + h.Fault.Happened
	}
	if q.Pause != nil && p.Version != "" {
		// It comes first, as it is why mail waits whatever the provider does; and it is what somebody has asked for.
		// What there is to say of workers the summary says.
		paused := obstacle(&queue.Outlook{Wait: queue.WaitsForPause, Key: q.Account, Silence: q.Pause, Until: q.Pause.Until, Workers: queue.Workforce{Running: 1}})
		if h.Summary == mailGoes {
			h.Summary = paused
		} else {
			h.Summary = paused + " " + h.Summary
		}
	}
	return h
}

// mailGoes is the summary of a provider of which nothing is known but good.
const mailGoes = "Mail goes, as far as anybody knows."

func healthSummary(p *queue.Provider, q *queue.Health, unable int) string {
	switch {
	case p.Version == "" && q.Open > 0:
		return fmt.Sprintf("No provider is active, and %s.", counted(q.Open, "message waits", "messages wait"))
	case p.Version == "":
		return "No provider is active. Mail is accepted, and waits."
	case unable > 0 && unable == len(q.Workers):
		return "No worker can load the settings: " + q.Workers[0].Fault + "."
	case q.Hold == nil && len(q.Workers) == 0:
		return "No worker runs: mail is accepted, and waits for one."
	case q.State == queue.Faulty:
		return "No mail goes."
	case q.Hold != nil && q.Hold.Reason == "throttled":
		return "The provider has asked to slow down, and some mail waits."
	case q.Hold != nil:
		return fmt.Sprintf("Mail of %s is held; other mail goes.", counted(q.Held, "mailbox", "mailboxes"))
	case unable > 0:
		return fmt.Sprintf("%s can't load the settings; the others send.", counted(unable, "worker", "workers"))
	}
	if q.Paused > 0 && q.Pause == nil {
		return fmt.Sprintf("Mail of %s is paused; other mail goes, as far as anybody knows.", counted(q.Paused, "mailbox", "mailboxes"))
	}
	return mailGoes
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// changedSummary says what a change came to.
func changedSummary(c *ProviderChanged) string {
	s := ""
	switch {
	case c.Provider.Kind == queue.NoProvider:
		s = "No provider is active: its credentials are deleted, and mail waits until one is chosen."
	case c.Result == "saved":
		s = "Saved: the settings work, and are active."
	case c.Result == "saved_not_valid":
		s = "Saved, but not valid: the settings are active and do not work. Mail waits until they do, or until they are changed."
	case c.Result == "saved_undecided":
		s = "Saved, and active. Whether the settings work is not known yet: when they were tried the provider put us off. Mail is tried with them."
	default:
		s = "Saved, and not tried: the settings are active."
	}
	if c.Underway < 0 {
		s += " Attempts of the former settings may be under way still; none begins any more."
	}
	if c.Underway > 0 {
		s += fmt.Sprintf(" After 30 seconds %s of the former settings still under way; none begins any more.", counted(c.Underway, "attempt is", "attempts are"))
	}
	return s
}
