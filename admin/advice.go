package admin

import (
	"context"
	"strings"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/queue"
)

// adviser puts what mail has met into words: the same ones wherever it is told. The zero value knows no settings.
type adviser struct {
	// settings are the active ones, as they may be shown; nil if there are none. since is when they became so.
	settings *provider.Settings
	since    time.Time
	// message is the id of the one that it is about; "" if it is about more.
	message string
}

func (h *handler) adviser(ctx context.Context) (adviser, error) {
	active, err := h.queue.Provider(ctx)
	if err != nil {
		return adviser{}, err
	}
	a := adviser{since: active.Since}
	// Settings that this program can't read cost some words, and no answer.
	if shown, err := provider.ParseShown(active.Shown); err == nil {
		a.settings = &shown.Settings
	}
	return a, nil
}

// former reports whether what began at a time was met with settings that have been replaced since.
func (a adviser) former(begun time.Time) bool { return begun.Before(a.since) }

// on says what an outcome means that was met at a time; nil if it was delivered. Of a class that this program does not know nothing
// is true for sure.
func (a adviser) on(o queue.OutcomeReport, begun time.Time) *Advice {
	class, err := mail.ParseClass(o.Class)
	if err != nil || class == mail.Delivered {
		return nil
	}
	scope, _ := mail.ParseScope(o.Scope) // of none: it reached no further than the message
	met := a.settings
	if a.former(begun) {
		met = nil
	}
	advice := Advice(met.Advise(mail.Outcome{Class: class, Scope: scope, Cause: mail.Cause(o.Cause), Step: o.Step, Code: o.Code, Enhanced: o.Enhanced}))
	if a.message != "" {
		advice.Postroom = strings.ReplaceAll(advice.Postroom, "requeue ID`", "requeue "+a.message+"`")
		advice.Remedy = strings.ReplaceAll(advice.Remedy, "requeue ID`", "requeue "+a.message+"`")
	}
	return &advice
}

// outcome is what the API shows of an outcome.
func (a adviser) outcome(o queue.OutcomeReport, begun time.Time) Outcome {
	return Outcome{
		Recipients: o.Recipients, Class: o.Class, Scope: o.Scope, Cause: o.Cause, Step: o.Step, Code: o.Code, Enhanced: o.Enhanced, Reply: o.Reply,
		Advice: a.on(o, begun),
	}
}

// silence is what the API shows of a hold or a pause; nil for nil.
func (a adviser) silence(s *queue.Silence) *Silence {
	if s == nil {
		return nil
	}
	out := &Silence{Reason: s.Reason, By: s.By, Since: utc(s.Since), Until: utc(s.Until), Refusals: s.Refusals, Trying: s.Trying, Scope: "mailbox"}
	if s.Last.Class != "" {
		last := a.outcome(s.Last, s.Since)
		out.Last = &last
	}
	if s.All {
		out.Scope = "everything"
	}
	return out
}

// holdOf is the hold that an outlook waits for; nil if it waits for anything else.
func (a adviser) holdOf(o *queue.Outlook) *Silence {
	if o == nil || o.Wait != queue.WaitsForHold {
		return nil
	}
	return a.silence(o.Silence)
}

// fault is what a hold is told as where it is about the provider.
func (a adviser) fault(s *queue.Silence) *ProviderFault {
	advice := a.on(s.Last, s.Since)
	if advice == nil {
		return &ProviderFault{Happened: "It was refused: " + s.Reason + "."}
	}
	return &ProviderFault{Field: advice.Field, Cause: s.Last.Cause, Happened: advice.Happened, Postroom: advice.Postroom, Remedy: advice.Remedy,
		Code: s.Last.Code, Enhanced: s.Last.Enhanced}
}
