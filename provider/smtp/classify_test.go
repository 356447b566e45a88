package smtp

import (
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
)

func TestClassify(t *testing.T) {
	for _, v := range []struct {
		step  string
		reply reply
		class mail.Class
		scope mail.Scope
		pause time.Duration
	}{
		// The first digit.
		{stepRcpt, reply{450, "4.2.0", "greylisted"}, mail.Temporary, mail.ScopeRecipient, 0},
		{stepRcpt, reply{452, "4.5.3", "too many recipients"}, mail.Temporary, mail.ScopeRecipient, 0},
		{stepRcpt, reply{550, "5.1.1", "no such user"}, mail.Permanent, mail.ScopeRecipient, 0},
		{stepMail, reply{451, "", "later"}, mail.Temporary, mail.ScopeMessage, 0},
		{stepMail, reply{552, "5.3.4", "too large"}, mail.Permanent, mail.ScopeMessage, 0},
		{stepBody, reply{554, "5.6.0", "spam"}, mail.Permanent, mail.ScopeMessage, 0},
		{stepBody, reply{421, "4.3.0", "bye"}, mail.Temporary, mail.ScopeMessage, 0},
		{stepGreeting, reply{554, "", "no service"}, mail.Configuration, mail.ScopeProvider, 0},
		{stepEHLO, reply{502, "", "what"}, mail.Configuration, mail.ScopeProvider, 0},
		{stepTLS, reply{454, "4.7.0", "no TLS now"}, mail.Temporary, mail.ScopeProvider, 0},
		{stepAuth, reply{535, "5.7.8", "wrong"}, mail.Configuration, mail.ScopeProvider, 0},
		{stepAuth, reply{454, "4.7.0", "later"}, mail.Temporary, mail.ScopeProvider, 0},
		// Exchange Online.
		{stepMail, reply{432, "4.3.2", "Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending"}, mail.Throttled, mail.ScopeMailbox, 0},
		{stepBody, reply{432, "4.3.2", "STOREDRV.ClientSubmit; sender thread limit exceeded"}, mail.Throttled, mail.ScopeMailbox, 0},
		{stepBody, reply{432, "4.3.2", "STOREDRV.Deliver; recipient thread limit exceeded"}, mail.Temporary, mail.ScopeRecipient, 0},
		{stepBody, reply{432, "4.3.2", "something else"}, mail.Temporary, mail.ScopeMessage, 0},
		{stepMail, reply{421, "4.4.2", "Message submission rate for this client has exceeded the configured limit"}, mail.Throttled, mail.ScopeMailbox, 0},
		{stepMail, reply{421, "4.4.2", "Connection timed out"}, mail.Temporary, mail.ScopeMessage, 0},
		{stepBody, reply{554, "5.2.0", "STOREDRV.Deliver.Exception:SubmissionQuotaExceededException.MapiExceptionShutoffQuotaExceeded"}, mail.Throttled, mail.ScopeMailbox, quotaPause},
		{stepBody, reply{554, "5.2.0", "STOREDRV.Deliver.Exception:Other"}, mail.Permanent, mail.ScopeMessage, 0},
		{stepBody, reply{550, "5.1.90", "Your message can't be sent because you've reached your daily limit"}, mail.Throttled, mail.ScopeMailbox, quotaPause},
		{stepBody, reply{554, "5.2.2", "mailbox full; STOREDRV.Submission"}, mail.Configuration, mail.ScopeMailbox, 0},
		{stepRcpt, reply{554, "5.2.2", "Mailbox full"}, mail.Permanent, mail.ScopeRecipient, 0},
		{stepBody, reply{550, "5.2.251", "Sender throttled due to continuous failures"}, mail.Throttled, mail.ScopeMailbox, quotaPause},
		{stepBody, reply{550, "5.2.255", "Sender throttled due to continuous failures"}, mail.Throttled, mail.ScopeMailbox, quotaPause},
		{stepBody, reply{550, "5.2.256", "other"}, mail.Permanent, mail.ScopeMessage, 0},
		{stepBody, reply{550, "5.7.232", "tenant"}, mail.Throttled, mail.ScopeProvider, quotaPause},
		{stepRcpt, reply{550, "5.7.705", "Access denied, tenant has exceeded threshold"}, mail.Throttled, mail.ScopeProvider, quotaPause},
		{stepAuth, reply{535, "5.7.139", "SmtpClientAuthentication is disabled for the Tenant"}, mail.Configuration, mail.ScopeProvider, 0},
		{stepAuth, reply{550, "5.7.30", "Basic authentication is not supported for Client Submission"}, mail.Configuration, mail.ScopeProvider, 0},
		{stepMail, reply{530, "5.7.57", "Client not authenticated to send mail"}, mail.Configuration, mail.ScopeProvider, 0},
		{stepBody, reply{550, "5.7.60", "Client does not have permissions to send as this sender"}, mail.Configuration, mail.ScopeMailbox, 0},
		{stepBody, reply{554, "5.2.252", "SendAsDenied; not allowed to send as"}, mail.Configuration, mail.ScopeMailbox, 0},
		{stepBody, reply{550, "5.1.8", "Access denied, bad outbound sender"}, mail.Configuration, mail.ScopeMailbox, 0},
		// Google, Amazon.
		{stepMail, reply{550, "5.4.5", "Daily user sending limit exceeded. For more information"}, mail.Throttled, mail.ScopeMailbox, quotaPause},
		{stepAuth, reply{454, "", "Throttling failure: Maximum sending rate exceeded."}, mail.Throttled, mail.ScopeMailbox, 0},
		{stepBody, reply{454, "", "Throttling failure: Daily message quota exceeded."}, mail.Throttled, mail.ScopeMailbox, quotaPause},
		// The RFCs.
		{stepRcpt, reply{530, "5.7.0", "authentication required"}, mail.Configuration, mail.ScopeProvider, 0},
		{stepRcpt, reply{552, "5.5.3", "too many recipients"}, mail.Temporary, mail.ScopeRecipient, 0},
		{stepRcpt, reply{552, "5.2.2", "mailbox full"}, mail.Permanent, mail.ScopeRecipient, 0},
		{stepMail, reply{550, "5.7.1", "not allowed"}, mail.Configuration, mail.ScopeMailbox, 0},
		{stepMail, reply{553, "", "sender refused"}, mail.Configuration, mail.ScopeMailbox, 0},
		{stepMail, reply{501, "5.1.7", "bad sender"}, mail.Configuration, mail.ScopeMailbox, 0},
		{stepRcpt, reply{550, "5.7.1", "relaying denied"}, mail.Permanent, mail.ScopeRecipient, 0},
	} {
		o := classify(v.step, v.reply)
		if o.Class != v.class || o.Scope != v.scope || o.RetryAfter != v.pause {
			t.Errorf("%s: %d %s %s: got %s of %s for %v, want %s of %s for %v",
				v.step, v.reply.code, v.reply.enhanced, v.reply.text, o.Class, o.Scope, o.RetryAfter, v.class, v.scope, v.pause)
		}
		if o.Step != v.step || o.Code != v.reply.code || o.Enhanced != v.reply.enhanced || o.Reply != v.reply.text {
			t.Errorf("the reply is lost: %+v", o)
		}
	}
}

// A row that an earlier one hides would never be used.
func TestEveryExceptionIsReached(t *testing.T) {
	for i := range exceptions {
		e := &exceptions[i]
		r := reply{code: e.code, enhanced: e.enhanced, text: e.needle}
		if r.code == 0 {
			r.code = 554
		}
		if n := len(r.enhanced); n > 0 && r.enhanced[n-1] == '*' {
			r.enhanced = r.enhanced[:n-1] + "0"
		}
		step := e.step
		if step == "" {
			step = stepBody
		}
		if got := exceptionFor(step, r); got != e {
			t.Errorf("%+v is hidden by %+v", *e, got)
		}
	}
}
