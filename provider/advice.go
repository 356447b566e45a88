package provider

import (
	"slices"
	"strings"

	"github.com/postroom/postroom/mail"
)

// Advice says in plain sentences what an outcome means. It never repeats the provider's words, which can name recipients.
type Advice struct {
	// Happened is what the provider, or Postroom, ran into.
	Happened string `json:"happened"`
	// Postroom is what Postroom does about it by itself.
	Postroom string `json:"postroom"`
	// Remedy is what people can do; empty if there is nothing to do.
	Remedy string `json:"remedy"`
	// Field is that of Blame; empty without settings.
	Field string `json:"field,omitempty"`
}

// meaning is the part of an Advice that does not follow from the class.
type meaning struct{ happened, remedy string }

// Advise says what o means, what becomes of it, and what people can do: by its cause if it has one, else by class, step, code
// and enhanced code. It always has something to say, also about causes and steps that it does not know.
func Advise(o mail.Outcome) Advice {
	m, ok := causes[o.Cause]
	if web, other := webCauses[o.Cause]; other && !slices.Contains(smtpSteps, o.Step) {
		m = web
	}
	if !ok {
		m = meaningOf(o)
	}
	return Advice{Happened: m.happened, Postroom: does(o), Remedy: m.remedy}
}

// Advise says the same of what mail met with s, and names what of s is to blame; nil stands for settings that are not known. It goes by
// nothing that is kept of one place and not of another, such as the provider's words: what it says is the same wherever it is told.
func (s *Settings) Advise(o mail.Outcome) Advice {
	o.Reply = ""
	a := Advise(o)
	if s == nil {
		return a
	}
	b := s.Blame(o)
	a.Field = b.Field
	if b.Remedy != a.Remedy {
		a.Remedy = b.Remedy + afterwards(o.Class)
	}
	return a
}

// afterwards says how mail goes on that met a class, once settings, or something else, have been put right.
func afterwards(c mail.Class) string {
	switch c {
	case mail.Configuration:
		return howToChange + " Once anything else is put right, `postroom mailbox resume ADDRESS` goes on at once."
	case mail.Permanent:
		return requeue
	}
	return ""
}

// smtpSteps are those of a connection to a mail server; all others are of HTTP.
var smtpSteps = []string{"", "dial", "tls", "greeting", "ehlo", "auth", "mail", "rcpt", "data", "body"}

// sign is by what an outcome without a cause is told. Empty fields match anything.
type sign struct {
	class mail.Class // always
	step  string
	code  int
	// status are enhanced codes without their first number, which is the class's: "1.1", or "1.*" for every x.1.y.
	status []string
	// silent is for what the provider did not answer.
	silent bool
	meaning
}

func (s *sign) fits(o mail.Outcome) bool {
	if s.class != o.Class || s.step != "" && s.step != o.Step || s.code != 0 && s.code != o.Code || s.silent && o.Code != 0 {
		return false
	}
	if s.status == nil {
		return true
	}
	_, status, _ := strings.Cut(o.Enhanced, ".")
	for _, want := range s.status {
		prefix, open := strings.CutSuffix(want, "*")
		if status == want || open && strings.HasPrefix(status, prefix) {
			return true
		}
	}
	return false
}

func meaningOf(o mail.Outcome) meaning {
	for i := range signs {
		if signs[i].fits(o) {
			return signs[i].meaning
		}
	}
	return meaning{happened: "The attempt ended in a way that Postroom does not know."}
}

// does says what Postroom does about an outcome, as worker/decide.go has it.
func does(o mail.Outcome) string {
	switch {
	case o.Cause == mail.Stopped:
		return "Any worker that is free tries the message again, and this does not count as an attempt."
	case o.Cause == mail.WorkerGone && o.Class == mail.Temporary:
		return "Nothing had been handed over, and the message is tried again at once; after ten such attempts it goes to the failed store."
	case o.Cause == mail.WorkerGone && o.Class == mail.Unknown:
		return unknown("at once")
	case o.Class == mail.Temporary && crowded(o):
		return "The recipients that the server took have the message. The others are offered to it again at once, or after the delays of " +
			"retry.delays if it took none."
	}
	switch o.Class {
	case mail.Delivered:
		return "Nothing more is done for this recipient."
	case mail.Throttled:
		return mailOf(o) + " waits; `postroom mailbox explain ADDRESS` says until when. Then one message is tried, and when the provider " +
			"takes it, everything goes on at full speed. This counts as an attempt of no message, so none is given up for it."
	case mail.Configuration:
		if o.Scope == mail.ScopeMailbox {
			return "Mail of this sender waits, and none of it fails for this; if it is the provider's own sender, all mail of its account " +
				"waits. " + probing
		}
		return mailOf(o) + " waits, and none of it fails for this. " + probing
	case mail.Permanent:
		if o.Scope == mail.ScopeRecipient {
			return "The message is not offered to this recipient again; the others get it all the same. When nobody is left to try, it is " +
				"kept in the failed store, for 30 days unless records.failed_for says otherwise."
		}
		return "The message is not offered again, and is kept in the failed store, for 30 days unless records.failed_for says otherwise."
	case mail.Unknown:
		return unknown("after the delays of retry.delays")
	}
	if o.Scope == mail.ScopeProvider {
		return "All mail waits. One message is tried now and then, at intervals that grow up to 1 minute; when the provider answers again, " +
			"everything goes on. This counts as an attempt of no message, so none is given up for it."
	}
	return "The message is tried again after the delays of retry.delays, for the recipients who do not have it yet. If that has not helped " +
		"when the time of its kind is over (retry.give_up, or kinds.alert.give_up and the like), it goes to the failed store, from where " +
		"`postroom failed requeue ID` sends it again."
}

// crowded reports whether the server may only have had too many recipients at once.
func crowded(o mail.Outcome) bool {
	return o.Cause == mail.TooManyRecipients || o.Step == "rcpt" && o.Code == 452 && o.Enhanced == ""
}

// mailOf names the mail that an outcome holds.
func mailOf(o mail.Outcome) string {
	if o.Scope == mail.ScopeProvider {
		return "All mail"
	}
	return "All mail of the mailbox"
}

const probing = "One message is tried now and then, at intervals that grow up to 10 minutes; everything goes on by itself when the " +
	"provider takes it, or when the settings change."

// unknown says what becomes of a message of which nobody knows whether it was sent.
func unknown(again string) string {
	return "A provider that can look it up is asked first what became of the message. Else the setting on_unknown of its kind (kinds.alert.on_unknown and the like) decides. With resend, the default, the message is tried again " + again + ", with the same " +
		"Message-ID; a recipient may get it twice. With hold it is kept in the failed store."
}
