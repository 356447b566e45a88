package bench

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/queue/queuetest"
)

// What a reply leads to.
const (
	// again: that message is tried again, and the attempt counts.
	again = "again"
	// away, slower, mend: no mail goes for a second, or for 15; the attempt does not count.
	away   = "unreachable"
	slower = "throttled"
	mend   = "configuration"
	// quota: no mail goes for an hour; the attempt does not count.
	quota = "throttled for an hour"
	// fails: that message is in the failed store.
	fails = "failed"
)

// documented are replies as their authors document them, each at a step where it is given. Where Exchange Online, Google and
// Amazon say the same as RFC 5321 does, once is enough.
var documented = []struct{ who, at, says, leads string }{
	// Microsoft: "Exchange Online limits", "Email non-delivery reports in Exchange Online", "Fix issues with ... SMTP client submission".
	{"Exchange", "mail", "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending for more information.", slower},
	{"Exchange", "body", "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", slower},
	{"Exchange", "body", "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded", again},
	{"Exchange", "mail", "421 4.4.2 Message submission rate for this client has exceeded the configured limit", slower},
	{"Exchange", "body", "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message", quota},
	{"Exchange", "body", "550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients", quota},
	{"Exchange", "body", "554 5.2.2 mailbox full; STOREDRV.ClientSubmit", mend},
	{"Exchange", "rcpt", "554 5.2.2 mailbox full", fails}, // the recipient's
	{"Exchange", "body", "550 5.2.251 Sender throttled due to continuous mailbox full errors", quota},
	{"Exchange", "body", "550 5.2.252 Sender throttled due to continuous send as denied errors", quota},
	{"Exchange", "body", "550 5.2.253 Sender throttled due to continuous invalid license errors", quota},
	{"Exchange", "body", "550 5.2.254 Sender throttled due to continuous too many recipients errors", quota},
	{"Exchange", "body", "550 5.2.255 Sender throttled due to continuous invalid recipients errors", quota},
	{"Exchange", "body", "550 5.7.232 Your message can't be sent because your trial tenant has exceeded its daily limit for sending email to external recipients", quota},
	{"Exchange", "body", "550 5.7.233 Your message can't be sent because your tenant exceeded its daily limit for sending email to external recipients", quota},
	{"Exchange", "body", "550 5.7.236 Your message can't be sent because your tenant has exceeded its daily limit for messages from its onmicrosoft.com domain", quota},
	{"Exchange", "body", "550 5.7.705 Access denied, tenant has exceeded threshold", quota},
	{"Exchange", "auth", "535 5.7.3 Authentication unsuccessful", mend},
	{"Exchange", "auth", "535 5.7.139 Authentication unsuccessful, the user credentials were incorrect.", mend},
	{"Exchange", "auth", "550 5.7.30 Basic authentication is not supported for Client Submission.", mend},
	{"Exchange", "mail", "530 5.7.57 Client not authenticated to send mail.", mend},
	{"Exchange", "body", "550 5.7.60 SMTP; Client does not have permissions to send as this sender", mend},
	{"Exchange", "body", "554 5.2.252 SendAsDenied; news@example.com not allowed to send as news@example.com", mend},
	{"Exchange", "body", "550 5.1.8 Access denied, bad outbound sender", mend},
	// Google Workspace: "Gmail SMTP errors and codes".
	{"Google", "rcpt", "550 5.4.5 Daily user sending limit exceeded. For more information on Gmail sending limits go to https://support.google.com/a/answer/166852", quota},
	{"Google", "ehlo", "421 4.7.0 Try again later, closing connection.", away},
	{"Google", "body", "421 4.3.0 Temporary System Problem. Try again later", again},
	{"Google", "rcpt", "450 4.2.1 The user you are trying to contact is receiving mail too quickly.", again},
	{"Google", "rcpt", "452 4.2.2 The recipient's inbox is out of storage space.", again},
	{"Google", "rcpt", "452 4.5.3 Your message has too many recipients.", again},
	{"Google", "auth", "454 4.7.0 Too many login attempts, please try again later.", away},
	{"Google", "auth", "534 5.7.9 Application-specific password required.", mend},
	{"Google", "auth", "535 5.7.8 Username and Password not accepted.", mend},
	{"Google", "mail", "530 5.5.1 Authentication Required.", mend},
	{"Google", "rcpt", "550 5.1.1 The email account that you tried to reach does not exist.", fails},
	{"Google", "rcpt", "552 5.2.2 The email account that you tried to reach is over quota.", fails},
	{"Google", "body", "552 5.3.4 Your message exceeded Google's message size limits.", fails},
	{"Google", "body", "550 5.7.1 This message violates example.com email policy.", fails},
	// Amazon SES: "SMTP response codes returned by Amazon SES".
	{"Amazon", "greeting", "421 Too many concurrent SMTP connections", slower},
	{"Amazon", "body", "454 Throttling failure: Maximum sending rate exceeded.", slower},
	{"Amazon", "body", "454 Throttling failure: Daily message quota exceeded.", quota},
	{"Amazon", "auth", "454 Temporary authentication failure", away},
	{"Amazon", "body", "451 Temporary service failure", again},
	{"Amazon", "mail", "530 Authentication required", mend},
	{"Amazon", "auth", "535 Authentication Credentials Invalid", mend},
	{"Amazon", "body", "554 Message rejected: Email address is not verified.", fails},
	// RFC 5321, section 4.3.2, and RFC 4954, section 6: what each command can meet.
	{"RFC 5321", "greeting", "421 4.3.2 Service not available, closing transmission channel", away},
	{"RFC 5321", "greeting", "554 5.3.2 No SMTP service here", mend},
	{"RFC 5321", "ehlo", "421 4.3.2 Service not available, closing transmission channel", away},
	{"RFC 5321", "ehlo", "502 5.5.1 Command not implemented", mend},
	{"RFC 5321", "ehlo", "550 5.7.1 Go away", mend},
	{"RFC 4954", "auth", "432 4.7.12 A password transition is needed", away},
	{"RFC 4954", "auth", "454 4.7.0 Temporary authentication failure", away},
	{"RFC 4954", "auth", "504 5.5.4 Unrecognized authentication type", mend},
	{"RFC 4954", "auth", "534 5.7.9 Authentication mechanism is too weak", mend},
	{"RFC 4954", "auth", "535 5.7.8 Authentication credentials invalid", mend},
	{"RFC 4954", "auth", "538 5.7.11 Encryption required for requested authentication mechanism", mend},
	{"RFC 5321", "mail", "421 4.3.2 Service not available, closing transmission channel", again},
	{"RFC 5321", "mail", "451 4.3.0 Local error in processing", again},
	{"RFC 5321", "mail", "452 4.3.1 Insufficient system storage", again},
	{"RFC 5321", "mail", "550 Requested action not taken", fails},
	{"RFC 5321", "mail", "552 5.3.4 Message too big", fails},
	{"RFC 5321", "mail", "553 5.1.7 Sender address not allowed", mend},
	{"RFC 5321", "rcpt", "421 4.3.2 Service not available, closing transmission channel", again},
	{"RFC 5321", "rcpt", "450 4.2.0 Mailbox busy", again},
	{"RFC 5321", "rcpt", "451 4.3.0 Local error in processing", again},
	{"RFC 5321", "rcpt", "452 4.3.1 Insufficient system storage", again},
	{"RFC 5321", "rcpt", "550 5.1.1 No such user here", fails},
	{"RFC 5321", "rcpt", "551 5.1.6 User not local; please try <other@example.org>", fails},
	{"RFC 5321", "rcpt", "552 5.2.2 Exceeded storage allocation", fails},
	{"RFC 5321", "rcpt", "552 5.5.3 Too many recipients", again}, // section 4.5.3.1.10
	{"RFC 5321", "rcpt", "553 5.1.3 Mailbox name not allowed", fails},
	{"RFC 7504", "rcpt", "556 5.1.10 Domain does not accept mail", fails},
	{"RFC 5321", "data", "421 4.3.2 Service not available, closing transmission channel", again},
	{"RFC 5321", "data", "451 4.3.0 Local error in processing", again},
	{"RFC 5321", "data", "554 5.6.0 Transaction failed", fails},
	{"RFC 5321", "body", "421 4.3.2 Service not available, closing transmission channel", again},
	{"RFC 5321", "body", "450 4.7.1 Greylisted, come back later", again},
	{"RFC 5321", "body", "451 4.3.0 Local error in processing", again},
	{"RFC 5321", "body", "452 4.3.1 Insufficient system storage", again},
	{"RFC 5321", "body", "550 5.7.1 Rejected for policy reasons", fails},
	{"RFC 5321", "body", "552 5.3.4 Message too big", fails},
	{"RFC 5321", "body", "554 5.6.0 Transaction failed", fails},
}

// TestOneOfEachDocumentedReply has some messages go to a server that gives one reply once, and then takes everything: each row
// by a process and under keys of its own. Nobody touches anything, but for what is held for an hour: that is resumed by command.
// The short form tries one row of each kind, and resumes what is held for seconds, too.
func TestOneOfEachDocumentedReply(t *testing.T) {
	t.Parallel()
	redis := queuetest.StartTCP(t)
	seen := map[string]bool{}
	for n, row := range documented {
		if !*full && seen[row.leads] {
			continue
		}
		seen[row.leads] = true
		t.Run(fmt.Sprintf("%s, %s: %.40s", row.who, row.at, row.says), func(t *testing.T) {
			t.Parallel()
			var given atomic.Bool
			server := listen(t, func(s *step) string {
				if s.at == row.at && !given.Swap(true) {
					return row.says
				}
				return ""
			})
			server.wantsLogin = row.at == "auth"
			i := &installation{t: t, redis: redis, namespace: fmt.Sprintf("row-%02d", n), provider: server.provider(2),
				more: map[string]any{"retry": map[string]any{"delays": []string{"1s"}}}}
			i.open()
			const mails = 4
			batch, ids := i.accept(newsletter(mails))
			i.expectHold(row.leads)
			await(t, time.Minute, "all messages to end", func() bool {
				counts := i.counts(batch)
				return counts != nil && counts.Open == 0
			})

			var failed, twice int
			for _, id := range ids {
				m := i.message(id)
				switch {
				case m.State == queue.Failed && m.Counted == 1 && server.came.read()[id] == 0:
					failed++
				case m.State == queue.Delivered && m.Counted <= 2 && server.came.read()[id] == 1:
					twice += m.Counted - 1
				default:
					t.Errorf("message %s is %s after %d counted attempts, and came %d times", id, m.State, m.Counted, server.came.read()[id])
				}
			}
			wantFailed, wantTwice, class := 0, 0, mail.Temporary
			switch row.leads {
			case again:
				wantTwice = 1
			case slower, quota:
				class = mail.Throttled
			case mend:
				class = mail.Configuration
			case fails:
				wantFailed, class = 1, mail.Permanent
			}
			if failed != wantFailed || twice != wantTwice {
				t.Errorf("%d messages failed, want %d; %d attempts too many were counted, want %d", failed, wantFailed, twice, wantTwice)
			}
			for _, c := range mail.Classes() {
				want := 0.0
				switch c {
				case class:
					want = 1
				case mail.Delivered:
					want = float64(mails - wantFailed)
				}
				if got := i.front.metric(fmt.Sprintf(`postroom_attempts_total{class="%s",provider="smtp"}`, c)); got != want {
					t.Errorf("%v attempts were %s, want %v", got, c, want)
				}
			}
		})
	}
}

// expectHold waits for the hold that is to come of a reply, if any, and checks why and until when it is. What lasts too long
// to be waited for is resumed.
func (i *installation) expectHold(leads string) {
	i.t.Helper()
	var lasts time.Duration
	reason := leads
	switch leads {
	case slower, mend:
		lasts = 15 * time.Second
	case quota:
		lasts, reason = time.Hour, slower
	default:
		return // none, or one that may be over before it is seen
	}
	var box *admin.Mailbox
	await(i.t, time.Minute, "the account to be held", func() bool {
		box = i.account()
		return box.Hold != nil
	})
	h := box.Hold
	if d := h.Until.Sub(h.Since); h.Reason != reason || d < lasts || d > lasts+time.Second {
		i.t.Errorf("held as %s for %v, want %s for %v", h.Reason, d, reason, lasts)
	}
	if lasts == time.Hour || !*full {
		command := []string{"mailbox", "resume", box.Address}
		if h.Scope == "everything" {
			command = []string{"resume", "--all"}
		}
		p := run(i.t, []string{"POSTROOM_URL=" + i.front.url, "POSTROOM_TOKEN=" + token}, command...)
		if code := p.wait(time.Minute); code != 0 {
			i.t.Fatalf("%v ended with status %d:\n%s", command, code, p.stderr.String())
		}
	}
}
