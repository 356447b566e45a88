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

// exception is a reply that means something else than its first digit says, or whose cause is known. Empty fields match
// anything.
type exception struct {
	step     string // only at this step
	notStep  string // at any step but this
	code     int
	enhanced string // "5.7.*" matches every 5.7.x
	needle   string // part of the text, in lower case: only where the codes do not tell
	cause    mail.Cause
}

// exceptions is every documented exception to the rule of the first digit; the first that matches holds. No other place
// judges by a reply's text.
var exceptions = []exception{
	// Exchange Online: Microsoft's "Exchange Online limits" and "Email non-delivery reports in Exchange Online".
	{code: 432, enhanced: "4.3.2", needle: "recipient thread limit exceeded", cause: mail.RecipientThrottled},
	{code: 432, enhanced: "4.3.2", needle: "sender thread limit exceeded", cause: mail.TooManyConnections},
	{code: 432, enhanced: "4.3.2", needle: "concurrent connections limit exceeded", cause: mail.TooManyConnections},
	{code: 421, enhanced: "4.4.2", needle: "message submission rate", cause: mail.RateExceeded},
	{code: 554, enhanced: "5.2.0", needle: "submissionquotaexceeded", cause: mail.QuotaExceeded},
	{code: 550, enhanced: "5.1.90", cause: mail.QuotaExceeded},
	// At RCPT it is the recipient's mailbox that is full.
	{notStep: stepRcpt, code: 554, enhanced: "5.2.2", needle: "mailbox full", cause: mail.MailboxFull},
	// "Sender throttled due to continuous" errors: mailbox full, send as denied, invalid license, too many recipients,
	// invalid recipients.
	{code: 550, enhanced: "5.2.251", cause: mail.SenderThrottled},
	{code: 550, enhanced: "5.2.252", cause: mail.SenderThrottled},
	{code: 550, enhanced: "5.2.253", cause: mail.SenderThrottled},
	{code: 550, enhanced: "5.2.254", cause: mail.SenderThrottled},
	{code: 550, enhanced: "5.2.255", cause: mail.SenderThrottled},
	// The tenant is over its limit of outside recipients: that of a trial, of any tenant, of its onmicrosoft.com domain.
	{code: 550, enhanced: "5.7.232", cause: mail.TenantQuota},
	{code: 550, enhanced: "5.7.233", cause: mail.TenantQuota},
	{code: 550, enhanced: "5.7.236", cause: mail.TenantQuota},
	{code: 550, enhanced: "5.7.705", cause: mail.TenantBlocked},
	// One code for a wrong password and for a way of logging in that is switched off.
	{code: 535, enhanced: "5.7.139", needle: "is disabled", cause: mail.LoginDisabled},
	{code: 535, enhanced: "5.7.139", needle: "security defaults policy", cause: mail.LoginDisabled},
	{code: 535, enhanced: "5.7.139", needle: "did not meet the criteria", cause: mail.LoginDisabled},
	{code: 535, enhanced: "5.7.139", cause: mail.Credentials},
	{code: 535, enhanced: "5.7.3", cause: mail.Credentials},
	{code: 550, enhanced: "5.7.30", cause: mail.LoginDisabled}, // basic authentication is off
	{enhanced: "5.7.57", cause: mail.NotAuthenticated},
	{enhanced: "5.7.60", cause: mail.SendAsDenied},
	{code: 554, enhanced: "5.2.252", cause: mail.SendAsDenied},
	{code: 550, enhanced: "5.1.8", needle: "bad outbound sender", cause: mail.SenderBlocked},
	// Google: "SMTP error reference" of Google Workspace.
	{code: 550, enhanced: "5.4.5", needle: "sending limit exceeded", cause: mail.QuotaExceeded},
	// Amazon SES: "SMTP response codes". The figures of a rate are per second, those of a quota per 24 hours.
	{code: 454, needle: "throttling failure: daily", cause: mail.QuotaExceeded},
	{code: 454, needle: "throttling failure", cause: mail.RateExceeded},
	{code: 421, needle: "too many concurrent smtp connections", cause: mail.TooManyConnections},
	// RFC 4954, section 6, at MAIL and after: we are to authenticate, or to encrypt, first. It is the same for every
	// message.
	{code: 530, cause: mail.NotAuthenticated},
	{code: 538, cause: mail.NotAuthenticated},
	// RFC 4954, sections 4 and 6: the mechanism is too weak for the account, as where Google wants an app password; the
	// server does not know AUTH, or the mechanism.
	{step: stepAuth, code: 534, cause: mail.LoginDisabled},
	{step: stepAuth, code: 500, cause: mail.AuthMissing},
	{step: stepAuth, code: 502, cause: mail.AuthMissing},
	{step: stepAuth, code: 504, cause: mail.AuthMissing},
	// Postfix, smtpd_sender_login_maps: the account may not use this sender. By default it says so at RCPT only
	// (smtpd_delay_reject).
	{step: stepRcpt, code: 553, enhanced: "5.7.1", needle: "sender address rejected: not ", cause: mail.SendAsDenied},
	// RFC 5321, section 4.5.3.1.10: too many recipients; 552 is to be read as 452 then.
	{step: stepRcpt, code: 452, enhanced: "4.5.3", cause: mail.TooManyRecipients},
	{step: stepRcpt, code: 452, needle: "too many recipients", cause: mail.TooManyRecipients},
	{step: stepRcpt, code: 552, enhanced: "5.5.3", cause: mail.TooManyRecipients},
	{step: stepRcpt, code: 552, needle: "too many recipients", cause: mail.TooManyRecipients},
	// The server refuses this sender (RFC 5321, section 4.2.3; RFC 3463, sections 3.2 and 3.8): the next message of the
	// same sender would fare no better, and it is not the message's fault.
	{step: stepMail, code: 553, cause: mail.SenderRefused},
	{step: stepMail, code: 550, enhanced: "5.7.*", cause: mail.SenderRefused},
	{step: stepMail, enhanced: "5.1.7", cause: mail.SenderRefused},
	{step: stepMail, enhanced: "5.1.8", cause: mail.SenderRefused},
}

// verdict is what a cause comes to.
type verdict struct {
	class mail.Class
	scope mail.Scope
	pause time.Duration // mail.Outcome.RetryAfter
}

// verdicts has every cause of exceptions.
var verdicts = map[mail.Cause]verdict{
	mail.Credentials:        {mail.Configuration, mail.ScopeProvider, 0},
	mail.LoginDisabled:      {mail.Configuration, mail.ScopeProvider, 0},
	mail.AuthMissing:        {mail.Configuration, mail.ScopeProvider, 0},
	mail.NotAuthenticated:   {mail.Configuration, mail.ScopeProvider, 0},
	mail.SendAsDenied:       {mail.Configuration, mail.ScopeMailbox, 0},
	mail.SenderRefused:      {mail.Configuration, mail.ScopeMailbox, 0},
	mail.SenderBlocked:      {mail.Configuration, mail.ScopeMailbox, 0},
	mail.MailboxFull:        {mail.Configuration, mail.ScopeMailbox, 0},
	mail.TooManyConnections: {mail.Throttled, mail.ScopeMailbox, 0},
	mail.RateExceeded:       {mail.Throttled, mail.ScopeMailbox, 0},
	mail.QuotaExceeded:      {mail.Throttled, mail.ScopeMailbox, quotaPause},
	mail.SenderThrottled:    {mail.Throttled, mail.ScopeMailbox, quotaPause},
	mail.TenantQuota:        {mail.Throttled, mail.ScopeProvider, quotaPause},
	mail.TenantBlocked:      {mail.Throttled, mail.ScopeProvider, quotaPause},
	mail.RecipientThrottled: {mail.Temporary, mail.ScopeRecipient, 0},
	mail.TooManyRecipients:  {mail.Temporary, mail.ScopeRecipient, 0},
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
		v := verdicts[e.cause]
		o.Cause, o.Class, o.Scope, o.RetryAfter = e.cause, v.class, v.scope, v.pause
		return o
	}
	if r.class() == 5 {
		o.Class = mail.Permanent
		if session(step) {
			o.Class = mail.Configuration
		}
		if step == stepAuth {
			o.Cause = mail.Credentials // 535, and whatever else says no to a login
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
