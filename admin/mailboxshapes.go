package admin

import (
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// MailboxPage is the answer to GET /v1/mailboxes.
type MailboxPage struct {
	Mailboxes []Mailbox `json:"mailboxes" nullable:"false" doc:"By address."`
	// After asks for the next page; empty on the last.
	After string `json:"after,omitempty" doc:"Give it as after to get the next page; left out on the last."`
	// Waiting is 0 while a provider is active.
	Waiting int `json:"waiting,omitempty" doc:"Only while no provider is active, and so nothing is any mailbox's: how many messages wait for one."`
}

// Mailbox is what is known of a mailbox that sends, or of the account that sends for all.
type Mailbox struct {
	Address string `json:"address" doc:"The address; of an account its user name, or host:port if it has none."`
	// Account is set of a sender who is held or paused by himself while one account sends for all.
	Account string `json:"account,omitempty" doc:"The account that sends for it, if it is one sender of many that is held or paused by itself; else left out."`
	// State is "flows", "paused", "held", "no_worker" or "limited"; Summary says the same as a sentence for people.
	State   string  `json:"state" enum:"flows,paused,held,no_worker,limited" doc:"What a message that waits here meets. Held: after a refusal by the provider. No worker: none runs, or none can load the provider's settings. Limited: a limit is used up."`
	Summary string  `json:"summary" doc:"Whether mail flows, and if not why and until when, as a sentence for people."`
	Backlog Backlog `json:"backlog" doc:"What may go as soon as its turn comes: neither what waits for a time, nor what is being sent."`
	// Units is how many workers are at it now, of at most Concurrency.
	Units       int `json:"units" doc:"How many send for it now, or are about to."`
	Concurrency int `json:"concurrency" doc:"How many may send for it at once."`
	Workers     int `json:"workers" doc:"How many processes can send, for any mailbox."`
	// Hold is there after a refusal, Pause if somebody asked for one; else nil.
	Hold   *Silence `json:"hold,omitempty" doc:"Why nothing begins after a refusal by the provider; left out if there is none."`
	Pause  *Silence `json:"pause,omitempty" doc:"Why nothing begins as somebody asked for it; left out if there is none."`
	Limits []Limit  `json:"limits" nullable:"false" doc:"Its own, then those of the provider as a whole."`
	// Next is zero if a message may go now, or when attempts under way decide.
	Next time.Time `json:"next,omitzero" doc:"When the next message may go at the earliest; left out: now, or when what is being sent has been."`
	// Through is zero if nothing waits, if no worker can send, or if nothing is known yet of how fast mail goes.
	Through time.Time `json:"through,omitzero" doc:"A forecast of when the backlog will be through if nothing else comes; left out if there is none, no worker can send, or nothing is known yet of how fast mail goes."`
	Binding string    `json:"binding,omitempty" enum:"messages,requests,recipients,upload_bytes,concurrency" doc:"What decides the forecast."`
}

// Backlog counts messages by kind.
type Backlog struct {
	Total        int `json:"total" doc:"The sum of the others."`
	Alert        int `json:"alert" doc:"Alerts: they go first."`
	Report       int `json:"report" doc:"Reports."`
	Subscription int `json:"subscription" doc:"Subscriptions."`
}

// Silence says why nothing begins.
type Silence struct {
	// Reason is "throttled", "configuration" or "unreachable" of a hold; of a pause it is its author's own words.
	Reason string `json:"reason" doc:"Of a hold: throttled (the provider asked to slow down), configuration (settings, or the mailbox itself, have to be put right), unreachable; of a pause its author's words."`
	By     string `json:"by,omitempty" doc:"The name of the token that asked for a pause."`

	Since    time.Time `json:"since,omitzero" doc:"When it began: of a hold the first refusal since which nothing has gone."`
	Until    time.Time `json:"until" doc:"When it ends by itself."`
	Refusals int       `json:"refusals,omitempty" doc:"How many refusals in a row led to a hold."`
	// Trying is only of a hold.
	Trying bool `json:"trying,omitempty" doc:"The time of the hold is over, and one message is tried now: if it is not refused all go on."`
	// Last is the refusal that led to a hold.
	Last *Outcome `json:"last,omitempty" doc:"The refusal that led to a hold, without the provider's words: the attempts of a message that waits have them."`
	// Scope is "mailbox" or "everything".
	Scope string `json:"scope" enum:"mailbox,everything" doc:"Whether it is about this mailbox, or about all mail."`
}

// Limit is a limit in a sliding window, and how much of it is used.
type Limit struct {
	Name   string  `json:"name" enum:"messages,requests,recipients,upload_bytes" doc:"What it counts."`
	Scope  string  `json:"scope" enum:"mailbox,provider" doc:"Whether it is the mailbox's own, or one of the provider as a whole."`
	Max    int64   `json:"max" doc:"How much goes in any interval of the window's length."`
	Window float64 `json:"window_seconds" doc:"The length of the window."`
	Used   int64   `json:"used" doc:"How much of max is used, counting what is being sent."`
	Ratio  float64 `json:"used_ratio" doc:"The share of max that is used; more than 1 if the limit was lowered."`
	// Until is zero if nothing counts but what is being sent.
	Until time.Time `json:"until,omitzero" doc:"When the oldest use leaves the window; left out if nothing counts but what is being sent."`
}

// PauseRequest is the body of POST /v1/pause and POST /v1/mailboxes/{address}/pause.
type PauseRequest struct {
	Reason   string `json:"reason" minLength:"1" maxLength:"200" doc:"Why, in one line: others see it where mail waits."`
	Duration string `json:"duration,omitempty" example:"2h" doc:"For how long, such as 90m, 2h or 7d: from 1s to 30d; left out: 24h."`
}

// Paused is the answer to a pause.
type Paused struct {
	// Address is empty if everything is paused.
	Address string    `json:"address,omitempty" doc:"The mailbox; left out: everything."`
	Until   time.Time `json:"until" doc:"When the pause ends by itself."`
	Note    string    `json:"note" doc:"What to know about it, as a sentence for people."`
}

// Resumed is the answer to a resume.
type Resumed struct {
	// Address is empty if everything was resumed.
	Address string `json:"address,omitempty" doc:"The mailbox; left out: everything."`
	Ended   bool   `json:"ended" doc:"Whether there was a pause or a hold to end."`
	Summary string `json:"summary" doc:"Whether mail flows now, and if not why and until when, as a sentence for people."`
}

func mailboxOf(m *queue.Mailbox, with adviser) Mailbox {
	b := Mailbox{
		Address: m.Key, Account: m.Account, State: stateOf(standing(m)), Summary: summary(m), Units: m.Units, Concurrency: m.Concurrency, Workers: m.Workers.Running - m.Workers.Unable,
		Backlog: Backlog{Total: m.Waiting(), Alert: m.Backlog[mail.Alert], Report: m.Backlog[mail.Report], Subscription: m.Backlog[mail.Subscription]},
		Hold:    with.silence(m.Hold), Pause: with.silence(m.Pause), Limits: make([]Limit, len(m.Limits)),
		Next: utc(m.Next), Through: utc(m.Through),
	}
	if !m.Through.IsZero() {
		b.Binding = string(m.Binding)
		if m.Binding == "" {
			b.Binding = "concurrency"
		}
	}
	for i, l := range m.Limits {
		b.Limits[i] = Limit{Name: string(l.Name), Scope: "mailbox", Max: l.Max, Window: l.Window.Seconds(), Used: l.Used,
			Ratio: float64(l.Used) / float64(l.Max), Until: utc(l.Until)}
		if l.All {
			b.Limits[i].Scope = "provider"
		}
	}
	return b
}

// utc gives a time as answers have it, in milliseconds; one that is not there stays what it is.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Millisecond)
}
