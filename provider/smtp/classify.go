package smtp

import (
	"strings"
	"time"

	"github.com/postroom/postroom/mail"
)

// The steps of an attempt, as they stand in mail.Outcome.Step.
const (
	stepRender   = "render"
	stepDial     = "dial"
	stepTLS      = "tls"
	stepGreeting = "greeting"
	stepEHLO     = "ehlo"
	stepAuth     = "auth"
	stepMail     = "mail"
	stepRcpt     = "rcpt"
	stepData     = "data"
	stepBody     = "body"
)

// session reports whether step belongs to the connection and not yet to a message.
func session(step string) bool {
	switch step {
	case stepDial, stepTLS, stepGreeting, stepEHLO, stepAuth:
		return true
	}
	return false
}

// quotaPause is how long to be silent when a quota of up to 24 hours is used up and the server does not say when it
// comes back. Such windows slide, so it may be soon; and whoever asks often is locked out for longer.
const quotaPause = time.Hour

// exception is a reply that means something else than its first digit says. Empty fields match anything.
type exception struct {
	step     string // only at this step
	notStep  string // at any step but this
	code     int
	enhanced string // "5.7.*" matches every 5.7.x
	needle   string // part of the text, in lower case: only where the codes do not tell
	class    mail.Class
	scope    mail.Scope
	pause    time.Duration
}

// exceptions is every documented exception to the rule of the first digit; the first that matches holds. No other place
// judges by a reply's text.
var exceptions = []exception{
	// Exchange Online: Microsoft's "Exchange Online limits" and "Email non-delivery reports in Exchange Online".
	{code: 432, enhanced: "4.3.2", needle: "recipient thread limit exceeded", class: mail.Temporary, scope: mail.ScopeRecipient},
	{code: 432, enhanced: "4.3.2", needle: "sender thread limit exceeded", class: mail.Throttled, scope: mail.ScopeMailbox},
	{code: 432, enhanced: "4.3.2", needle: "concurrent connections limit exceeded", class: mail.Throttled, scope: mail.ScopeMailbox},
	{code: 421, enhanced: "4.4.2", needle: "message submission rate", class: mail.Throttled, scope: mail.ScopeMailbox},
	{code: 554, enhanced: "5.2.0", needle: "submissionquotaexceeded", class: mail.Throttled, scope: mail.ScopeMailbox, pause: quotaPause},
	{code: 550, enhanced: "5.1.90", class: mail.Throttled, scope: mail.ScopeMailbox, pause: quotaPause},
	// At RCPT it is the recipient's mailbox that is full.
	{notStep: stepRcpt, code: 554, enhanced: "5.2.2", needle: "mailbox full", class: mail.Configuration, scope: mail.ScopeMailbox},
	// Sender throttled due to continuous failing submissions.
	{code: 550, enhanced: "5.2.251", class: mail.Throttled, scope: mail.ScopeMailbox, pause: quotaPause},
	{code: 550, enhanced: "5.2.252", class: mail.Throttled, scope: mail.ScopeMailbox, pause: quotaPause},
	{code: 550, enhanced: "5.2.253", class: mail.Throttled, scope: mail.ScopeMailbox, pause: quotaPause},
	{code: 550, enhanced: "5.2.254", class: mail.Throttled, scope: mail.ScopeMailbox, pause: quotaPause},
	{code: 550, enhanced: "5.2.255", class: mail.Throttled, scope: mail.ScopeMailbox, pause: quotaPause},
	// The tenant is over its limit.
	{code: 550, enhanced: "5.7.232", class: mail.Throttled, scope: mail.ScopeProvider, pause: quotaPause},
	{code: 550, enhanced: "5.7.233", class: mail.Throttled, scope: mail.ScopeProvider, pause: quotaPause},
	{code: 550, enhanced: "5.7.236", class: mail.Throttled, scope: mail.ScopeProvider, pause: quotaPause},
	{code: 550, enhanced: "5.7.705", class: mail.Throttled, scope: mail.ScopeProvider, pause: quotaPause},
	{code: 535, enhanced: "5.7.3", class: mail.Configuration, scope: mail.ScopeProvider},
	{code: 535, enhanced: "5.7.139", class: mail.Configuration, scope: mail.ScopeProvider},
	{code: 550, enhanced: "5.7.30", class: mail.Configuration, scope: mail.ScopeProvider}, // basic authentication is off
	{enhanced: "5.7.57", class: mail.Configuration, scope: mail.ScopeProvider},            // not authenticated
	{enhanced: "5.7.60", class: mail.Configuration, scope: mail.ScopeMailbox},             // may not send as this sender
	{code: 554, enhanced: "5.2.252", class: mail.Configuration, scope: mail.ScopeMailbox}, // SendAsDenied
	{code: 550, enhanced: "5.1.8", needle: "bad outbound sender", class: mail.Configuration, scope: mail.ScopeMailbox},
	// Google: "SMTP error reference" of Google Workspace.
	{code: 550, enhanced: "5.4.5", needle: "sending limit exceeded", class: mail.Throttled, scope: mail.ScopeMailbox, pause: quotaPause},
	// Amazon SES: "SMTP response codes". The figures of a rate are per second, those of a quota per 24 hours.
	{code: 454, needle: "throttling failure: daily", class: mail.Throttled, scope: mail.ScopeMailbox, pause: quotaPause},
	{code: 454, needle: "throttling failure", class: mail.Throttled, scope: mail.ScopeMailbox},
	// RFC 4954, section 6, at MAIL and after: we are to authenticate, or to encrypt, first. It is the same for every
	// message.
	{code: 530, class: mail.Configuration, scope: mail.ScopeProvider},
	{code: 538, class: mail.Configuration, scope: mail.ScopeProvider},
	// Postfix, smtpd_sender_login_maps: the account may not use this sender. By default it says so at RCPT only
	// (smtpd_delay_reject).
	{step: stepRcpt, code: 553, enhanced: "5.7.1", needle: "sender address rejected: not ", class: mail.Configuration, scope: mail.ScopeMailbox},
	// RFC 5321, section 4.5.3.1.10: 552 for too many recipients is to be read as 452.
	{step: stepRcpt, code: 552, enhanced: "5.5.3", class: mail.Temporary, scope: mail.ScopeRecipient},
	{step: stepRcpt, code: 552, needle: "too many recipients", class: mail.Temporary, scope: mail.ScopeRecipient},
	// The server refuses this sender (RFC 5321, section 4.2.3; RFC 3463, sections 3.2 and 3.8): the next message of the
	// same sender would fare no better, and it is not the message's fault.
	{step: stepMail, code: 553, class: mail.Configuration, scope: mail.ScopeMailbox},
	{step: stepMail, code: 550, enhanced: "5.7.*", class: mail.Configuration, scope: mail.ScopeMailbox},
	{step: stepMail, enhanced: "5.1.7", class: mail.Configuration, scope: mail.ScopeMailbox},
	{step: stepMail, enhanced: "5.1.8", class: mail.Configuration, scope: mail.ScopeMailbox},
}

func (e *exception) matches(step string, r reply) bool {
	if e.step != "" && e.step != step || e.notStep != "" && e.notStep == step {
		return false
	}
	if e.code != 0 && e.code != r.code {
		return false
	}
	if prefix, ok := strings.CutSuffix(e.enhanced, "*"); ok {
		if !strings.HasPrefix(r.enhanced, prefix) {
			return false
		}
	} else if e.enhanced != "" && e.enhanced != r.enhanced {
		return false
	}
	return e.needle == "" || strings.Contains(strings.ToLower(r.text), e.needle)
}

// classify says what a refusal at a step means. The reply code's first digit decides (RFC 5321, section 4.2.1), except
// for the table above. A refusal before MAIL is no message's fault: 5yz there means that our settings do not suit the
// server. As there is one account for all senders, a refused login reaches the provider, not one mailbox.
func classify(step string, r reply) mail.Outcome {
	o := mail.Outcome{
		Class:    mail.Temporary,
		Scope:    scopeOf(step),
		Step:     step,
		Code:     r.code,
		Enhanced: r.enhanced,
		Reply:    r.text,
	}
	if e := exceptionFor(step, r); e != nil {
		o.Class, o.Scope, o.RetryAfter = e.class, e.scope, e.pause
		return o
	}
	if r.class() == 5 {
		o.Class = mail.Permanent
		if session(step) {
			o.Class = mail.Configuration
		}
	}
	return o
}

// scopeOf says how far a failure at a step reaches, if nothing more is known.
func scopeOf(step string) mail.Scope {
	switch {
	case session(step):
		return mail.ScopeProvider
	case step == stepRcpt:
		return mail.ScopeRecipient
	}
	return mail.ScopeMessage
}

// exceptionFor finds the exception a reply is, or nil.
func exceptionFor(step string, r reply) *exception {
	for i := range exceptions {
		if exceptions[i].matches(step, r) {
			return &exceptions[i]
		}
	}
	return nil
}
