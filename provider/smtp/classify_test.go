package smtp

import (
	"bufio"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// replyOf reads a line as a server sends it.
func replyOf(t *testing.T, line string) reply {
	t.Helper()
	r, err := readReply(bufio.NewReaderSize(strings.NewReader(line+"\r\n"), maxReplyLine), nil)
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return r
}

// Each documented reply, and the rule of the first digit. says is part of what people are told happened; without it there is
// nothing to say but the step.
func TestClassify(t *testing.T) {
	for _, v := range []struct {
		step, line string
		class      mail.Class
		scope      mail.Scope
		pause      time.Duration
		cause      mail.Cause
		says       string
	}{
		// The first digit, and the codes of RFC 5321 and RFC 3463.
		{stepRcpt, "450 4.2.0 greylisted", mail.Temporary, mail.ScopeRecipient, 0, "", "mailbox can't take mail at the moment"},
		{stepRcpt, "450 greylisted", mail.Temporary, mail.ScopeRecipient, 0, "", "greylisting"},
		{stepRcpt, "450 4.7.1 try again later", mail.Temporary, mail.ScopeRecipient, 0, "", "greylisting"},
		{stepRcpt, "451 4.7.26 no SPF, no DKIM", mail.Temporary, mail.ScopeRecipient, 0, "", "SPF"},
		{stepRcpt, "452 4.2.2 The email account that you tried to reach is over quota", mail.Temporary, mail.ScopeRecipient, 0, "", "recipient's mailbox is full"},
		{stepRcpt, "452 4.5.3 too many recipients", mail.Temporary, mail.ScopeRecipient, 0, mail.TooManyRecipients, "no more recipients"},
		{stepRcpt, "452 Too many recipients", mail.Temporary, mail.ScopeRecipient, 0, mail.TooManyRecipients, "no more recipients"},
		{stepRcpt, "452 insufficient storage", mail.Temporary, mail.ScopeRecipient, 0, "", "no more recipients at once, or"},
		{stepRcpt, "450 4.1.2 domain not found", mail.Temporary, mail.ScopeRecipient, 0, "", "find or reach the recipient's mail system"},
		{stepRcpt, "451 4.1.1 unverified address", mail.Temporary, mail.ScopeRecipient, 0, "", "can't check the recipient's address"},
		{stepRcpt, "450 4.1.8 sender's domain not found", mail.Temporary, mail.ScopeRecipient, 0, "", "sender's address"},
		{stepMail, "452 4.3.1 insufficient storage", mail.Temporary, mail.ScopeMessage, 0, "", "no space left"},
		{stepMail, "451 later", mail.Temporary, mail.ScopeMessage, 0, "", ""},
		{stepBody, "421 4.3.0 bye", mail.Temporary, mail.ScopeMessage, 0, "", "closed the connection"},
		{stepMail, "421 4.4.2 Connection timed out", mail.Temporary, mail.ScopeMessage, 0, "", "busy or about to stop"},
		{stepRcpt, "550 5.1.1 no such user", mail.Permanent, mail.ScopeRecipient, 0, "", "does not exist"},
		{stepRcpt, "550 no such user", mail.Permanent, mail.ScopeRecipient, 0, "", "does not exist, or does not take this mail"},
		{stepRcpt, "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", mail.Permanent, mail.ScopeRecipient, 0, "", "address does not exist"},
		{stepRcpt, "550 5.4.1 Recipient address rejected: Access denied", mail.Permanent, mail.ScopeRecipient, 0, "", "address does not exist"},
		{stepRcpt, "556 5.1.10 null MX", mail.Permanent, mail.ScopeRecipient, 0, "", "takes no mail"},
		{stepRcpt, "556 no mail here", mail.Permanent, mail.ScopeRecipient, 0, "", "domain"},
		{stepRcpt, "550 5.1.2 no such domain", mail.Permanent, mail.ScopeRecipient, 0, "", "domain"},
		{stepRcpt, "550 5.4.4 unable to route", mail.Permanent, mail.ScopeRecipient, 0, "", "domain"},
		{stepRcpt, "501 5.1.3 bad syntax", mail.Permanent, mail.ScopeRecipient, 0, "", "not written as"},
		{stepRcpt, "553 bad syntax", mail.Permanent, mail.ScopeRecipient, 0, "", "as it is written"},
		{stepRcpt, "551 not local", mail.Permanent, mail.ScopeRecipient, 0, "", "not on this mail server"},
		{stepRcpt, "552 5.2.2 mailbox full", mail.Permanent, mail.ScopeRecipient, 0, "", "recipient's mailbox is full"},
		{stepRcpt, "552 storage exceeded", mail.Permanent, mail.ScopeRecipient, 0, "", "recipient's mailbox is full"},
		{stepRcpt, "554 5.2.2 Mailbox full", mail.Permanent, mail.ScopeRecipient, 0, "", "recipient's mailbox is full"},
		{stepRcpt, "550 5.2.1 disabled", mail.Permanent, mail.ScopeRecipient, 0, "", "switched off"},
		{stepRcpt, "550 5.7.1 relaying denied", mail.Permanent, mail.ScopeRecipient, 0, "", "from this sender"},
		{stepRcpt, "552 5.5.3 too many recipients", mail.Temporary, mail.ScopeRecipient, 0, mail.TooManyRecipients, "no more recipients"},
		{stepRcpt, "552 too many recipients", mail.Temporary, mail.ScopeRecipient, 0, mail.TooManyRecipients, "no more recipients"},
		{stepMail, "552 5.3.4 too large", mail.Permanent, mail.ScopeMessage, 0, "", "larger than"},
		{stepBody, "552 message size exceeded", mail.Permanent, mail.ScopeMessage, 0, "", "larger than"},
		{stepMail, "555 unknown parameter", mail.Permanent, mail.ScopeMessage, 0, "", "did not understand"},
		{stepBody, "554 5.6.0 malformed", mail.Permanent, mail.ScopeMessage, 0, "", "how the message is built"},
		{stepBody, "550 5.7.1 spam", mail.Permanent, mail.ScopeMessage, 0, "", "its own rules"},
		{stepBody, "550 5.7.26 unauthenticated sender", mail.Permanent, mail.ScopeMessage, 0, "", "SPF"},
		{stepBody, "554 Message rejected: Email address is not verified.", mail.Permanent, mail.ScopeMessage, 0, "", "its own rules"},
		{stepBody, "550 5.2.256 other", mail.Permanent, mail.ScopeMessage, 0, "", "recipient's mailbox"},
		{stepGreeting, "554 no service", mail.Configuration, mail.ScopeProvider, 0, "", ""},
		{stepGreeting, "421 busy", mail.Temporary, mail.ScopeProvider, 0, "", ""},
		{stepEHLO, "502 what", mail.Configuration, mail.ScopeProvider, 0, "", ""},
		{stepTLS, "454 4.7.0 no TLS now", mail.Temporary, mail.ScopeProvider, 0, "", ""},
		// Logins: RFC 4954.
		{stepAuth, "535 5.7.8 wrong", mail.Configuration, mail.ScopeProvider, 0, mail.Credentials, "user name or the password"},
		{stepAuth, "525 5.7.13 account disabled", mail.Configuration, mail.ScopeProvider, 0, mail.Credentials, "user name or the password"},
		{stepAuth, "534 5.7.9 Application-specific password required", mail.Configuration, mail.ScopeProvider, 0, mail.LoginDisabled, "this way of logging in"},
		{stepAuth, "504 5.5.4 Unrecognized authentication type", mail.Configuration, mail.ScopeProvider, 0, mail.AuthMissing, "offers no login"},
		{stepAuth, "502 5.5.1 not implemented", mail.Configuration, mail.ScopeProvider, 0, mail.AuthMissing, "offers no login"},
		{stepAuth, "500 5.5.1 what", mail.Configuration, mail.ScopeProvider, 0, mail.AuthMissing, "offers no login"},
		{stepAuth, "538 5.7.11 encrypt first", mail.Configuration, mail.ScopeProvider, 0, mail.NotAuthenticated, "wants a login"},
		{stepAuth, "454 4.7.0 later", mail.Temporary, mail.ScopeProvider, 0, "", ""},
		{stepRcpt, "530 5.7.0 authentication required", mail.Configuration, mail.ScopeProvider, 0, mail.NotAuthenticated, "wants a login"},
		// Exchange Online.
		{stepMail, "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending", mail.Throttled, mail.ScopeMailbox, 0, mail.TooManyConnections, "at once"},
		{stepBody, "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", mail.Throttled, mail.ScopeMailbox, 0, mail.TooManyConnections, "at once"},
		{stepBody, "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded", mail.Temporary, mail.ScopeRecipient, 0, mail.RecipientThrottled, "recipient's mailbox is getting more"},
		{stepBody, "432 4.3.2 something else", mail.Temporary, mail.ScopeMessage, 0, "", "busy or about to stop"},
		{stepMail, "421 4.4.2 Message submission rate for this client has exceeded the configured limit", mail.Throttled, mail.ScopeMailbox, 0, mail.RateExceeded, "faster than"},
		{stepBody, "554 5.2.0 STOREDRV.Deliver.Exception:SubmissionQuotaExceededException.MapiExceptionShutoffQuotaExceeded", mail.Throttled, mail.ScopeMailbox, quotaPause, mail.QuotaExceeded, "in a day"},
		{stepBody, "554 5.2.0 STOREDRV.Deliver.Exception:Other", mail.Permanent, mail.ScopeMessage, 0, "", "does not take mail"},
		{stepBody, "550 5.1.90 Your message can't be sent because you've reached your daily limit", mail.Throttled, mail.ScopeMailbox, quotaPause, mail.QuotaExceeded, "in a day"},
		{stepBody, "554 5.2.2 mailbox full; STOREDRV.Submission", mail.Configuration, mail.ScopeMailbox, 0, mail.MailboxFull, "sending mailbox is full"},
		{stepBody, "550 5.2.251 Sender throttled due to continuous mailbox full errors.", mail.Throttled, mail.ScopeMailbox, quotaPause, mail.SenderThrottled, "locked the mailbox out"},
		{stepBody, "550 5.2.252 Sender throttled due to continuous send as denied errors.", mail.Throttled, mail.ScopeMailbox, quotaPause, mail.SenderThrottled, "locked the mailbox out"},
		{stepBody, "550 5.2.253 Sender throttled due to continuous invalid license errors.", mail.Throttled, mail.ScopeMailbox, quotaPause, mail.SenderThrottled, "locked the mailbox out"},
		{stepBody, "550 5.2.254 Sender throttled due to continuous too many recipients errors.", mail.Throttled, mail.ScopeMailbox, quotaPause, mail.SenderThrottled, "locked the mailbox out"},
		{stepBody, "550 5.2.255 Sender throttled due to continuous invalid recipients errors.", mail.Throttled, mail.ScopeMailbox, quotaPause, mail.SenderThrottled, "locked the mailbox out"},
		{stepBody, "550 5.7.232 trial tenant has exceeded its daily limit", mail.Throttled, mail.ScopeProvider, quotaPause, mail.TenantQuota, "organisation as a whole"},
		{stepBody, "550 5.7.233 your tenant exceeded its daily limit", mail.Throttled, mail.ScopeProvider, quotaPause, mail.TenantQuota, "organisation as a whole"},
		{stepRcpt, "550 5.7.236 tenant exceeded the limit of its onmicrosoft.com domain", mail.Throttled, mail.ScopeProvider, quotaPause, mail.TenantQuota, "organisation as a whole"},
		{stepRcpt, "550 5.7.705 Access denied, tenant has exceeded threshold", mail.Throttled, mail.ScopeProvider, quotaPause, mail.TenantBlocked, "whole organisation"},
		{stepAuth, "535 5.7.3 Authentication unsuccessful", mail.Configuration, mail.ScopeProvider, 0, mail.Credentials, "user name or the password"},
		{stepAuth, "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.", mail.Configuration, mail.ScopeProvider, 0, mail.LoginDisabled, "this way of logging in"},
		{stepAuth, "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox.", mail.Configuration, mail.ScopeProvider, 0, mail.LoginDisabled, "this way of logging in"},
		{stepAuth, "535 5.7.139 Authentication unsuccessful, basic authentication is disabled.", mail.Configuration, mail.ScopeProvider, 0, mail.LoginDisabled, "this way of logging in"},
		{stepAuth, "535 5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults policy.", mail.Configuration, mail.ScopeProvider, 0, mail.LoginDisabled, "this way of logging in"},
		{stepAuth, "535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to be authenticated successfully.", mail.Configuration, mail.ScopeProvider, 0, mail.LoginDisabled, "this way of logging in"},
		{stepAuth, "535 5.7.139 Authentication unsuccessful, the user credentials were incorrect.", mail.Configuration, mail.ScopeProvider, 0, mail.Credentials, "user name or the password"},
		{stepAuth, "550 5.7.30 Basic authentication is not supported for Client Submission.", mail.Configuration, mail.ScopeProvider, 0, mail.LoginDisabled, "this way of logging in"},
		{stepMail, "530 5.7.57 Client not authenticated to send mail", mail.Configuration, mail.ScopeProvider, 0, mail.NotAuthenticated, "wants a login"},
		{stepBody, "550 5.7.60 Client does not have permissions to send as this sender", mail.Configuration, mail.ScopeMailbox, 0, mail.SendAsDenied, "may not send with"},
		{stepBody, "554 5.2.252 SendAsDenied; not allowed to send as", mail.Configuration, mail.ScopeMailbox, 0, mail.SendAsDenied, "may not send with"},
		{stepBody, "550 5.1.8 Access denied, bad outbound sender", mail.Configuration, mail.ScopeMailbox, 0, mail.SenderBlocked, "blocked this sender"},
		{stepMail, "550 5.1.8 Access denied, bad outbound sender", mail.Configuration, mail.ScopeMailbox, 0, mail.SenderBlocked, "blocked this sender"},
		// Google, Amazon SES, Postfix.
		{stepMail, "550 5.4.5 Daily user sending limit exceeded. For more information", mail.Throttled, mail.ScopeMailbox, quotaPause, mail.QuotaExceeded, "in a day"},
		{stepAuth, "454 Throttling failure: Maximum sending rate exceeded.", mail.Throttled, mail.ScopeMailbox, 0, mail.RateExceeded, "faster than"},
		{stepBody, "454 Throttling failure: Daily message quota exceeded.", mail.Throttled, mail.ScopeMailbox, quotaPause, mail.QuotaExceeded, "in a day"},
		{stepGreeting, "421 Too many concurrent SMTP connections", mail.Throttled, mail.ScopeMailbox, 0, mail.TooManyConnections, "at once"},
		{stepRcpt, "553 5.7.1 <reports@example.com>: Sender address rejected: not owned by user", mail.Configuration, mail.ScopeMailbox, 0, mail.SendAsDenied, "may not send with"},
		// The sender.
		{stepMail, "550 5.7.1 not allowed", mail.Configuration, mail.ScopeMailbox, 0, mail.SenderRefused, "from this sender's address"},
		{stepMail, "553 sender refused", mail.Configuration, mail.ScopeMailbox, 0, mail.SenderRefused, "from this sender's address"},
		{stepMail, "501 5.1.7 bad sender", mail.Configuration, mail.ScopeMailbox, 0, mail.SenderRefused, "from this sender's address"},
		{stepMail, "550 5.1.8 no such domain", mail.Configuration, mail.ScopeMailbox, 0, mail.SenderRefused, "from this sender's address"},
	} {
		r := replyOf(t, v.line)
		o := classify(v.step, r)
		if o.Class != v.class || o.Scope != v.scope || o.RetryAfter != v.pause || o.Cause != v.cause {
			t.Errorf("%s: %s: got %s of %s for %v, cause %q", v.step, v.line, o.Class, o.Scope, o.RetryAfter, o.Cause)
		}
		if o.Step != v.step || o.Code != r.code || o.Enhanced != r.enhanced || o.Reply != r.text {
			t.Errorf("%s: the reply is lost: %+v", v.line, o)
		}
		plain := provider.Advise(mail.Outcome{Class: o.Class, Scope: o.Scope, Step: o.Step, Code: 599})
		switch got := provider.Advise(o).Happened; {
		case v.says == "" && got == "":
			t.Errorf("%s: %s: nothing is said", v.step, v.line)
		case v.says != "" && (!strings.Contains(got, v.says) || got == plain.Happened):
			t.Errorf("%s: %s: people are told %q", v.step, v.line, got)
		}
	}
}

// exampleOf gives a reply that e is for, and the step at which it comes.
func exampleOf(e *exception) (string, reply) {
	r := reply{code: e.code, enhanced: e.enhanced, text: e.needle}
	if r.code == 0 {
		r.code = 554
	}
	if n := len(r.enhanced); n > 0 && r.enhanced[n-1] == '*' {
		r.enhanced = r.enhanced[:n-1] + "0"
	}
	if e.step == "" {
		return stepBody, r
	}
	return e.step, r
}

// A row that an earlier one hides would never be used.
func TestEveryExceptionIsReached(t *testing.T) {
	for i := range exceptions {
		e := &exceptions[i]
		if got := exceptionFor(exampleOf(e)); got != e {
			t.Errorf("%+v is hidden by %+v", *e, got)
		}
	}
}

// What an exception comes to, and what people are told of it, hangs on its cause.
func TestEveryExceptionComesToSomething(t *testing.T) {
	used := map[mail.Cause]bool{}
	for i := range exceptions {
		e := &exceptions[i]
		used[e.cause] = true
		if _, ok := verdicts[e.cause]; !ok {
			t.Errorf("%+v: there is no verdict", *e)
		}
		o := classify(exampleOf(e))
		a := provider.Advise(o)
		if e.cause == "" || o.Cause != e.cause || a.Happened == "" || a.Postroom == "" {
			t.Errorf("%+v: %+v: %+v", *e, o, a)
		}
		if a.Remedy == "" && o.Class != mail.Temporary {
			t.Errorf("%+v: nothing to do about it", *e)
		}
		if strings.Contains(a.Remedy, "postroom failed") || strings.Contains(a.Remedy, "postroom mailbox") && o.Class != mail.Configuration {
			t.Errorf("%+v: the remedy does not suit %s: %q", *e, o.Class, a.Remedy)
		}
	}
	for cause := range verdicts {
		if !used[cause] {
			t.Errorf("no exception has the cause %s", cause)
		}
	}
}
