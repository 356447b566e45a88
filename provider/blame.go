package provider

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/postroom/postroom/mail"
)

// Blame is what of the settings an outcome points to.
type Blame struct {
	// Field is a JSON pointer into Settings (RFC 6901), such as "/smtp/port": what most likely has to be changed. Empty if nothing
	// of them is to blame.
	Field string `json:"field,omitempty"`
	// Remedy says in plain sentences what people can do, and names settings as the fields beside Field; where the settings make no
	// difference it is Advice.Remedy. Empty if there is nothing to do.
	Remedy string `json:"remedy,omitempty"`
}

// Blame says what of s an outcome points to that was met with them, in an attempt or a check. It goes by what Advise goes by, and
// shows nothing of secrets or of the provider's words; it may be called before Defaults.
func (s *Settings) Blame(o mail.Outcome) Blame {
	met := *s
	met.Defaults()
	var b Blame
	switch {
	case met.Kind == KindMicrosoft365:
		b = met.blameMicrosoft365(o)
	case met.Kind == KindSMTP && o.Step == StepToken:
		b = met.SMTP.Auth.OAuth2.app().blame(o)
	case met.Kind == KindSMTP:
		b = met.blameSMTP(o)
	}
	if met.Kind != KindNone && b.Field == "" {
		b.Field = blamedAlways[o.Cause]
	}
	b.Remedy = cmp.Or(b.Remedy, Advise(o).Remedy)
	return b
}

// blamedAlways is where what causes point to does not depend on the settings.
var blamedAlways = map[mail.Cause]string{
	mail.SendAsDenied:       "/sender/address",
	mail.SenderRefused:      "/sender/address",
	mail.MailboxNotFound:    "/sender/address",
	mail.TooManyConnections: "/limits/concurrency",
	mail.RateExceeded:       "/limits/messages_per_minute",
	mail.QuotaExceeded:      "/limits/recipients_per_day",
	mail.TenantQuota:        "/tenant_limits/recipients_per_day",
	mail.LimitTooSmall:      "/limits",
}

// forbiddenThere is the remedy of mail.TargetForbidden for a field.
func forbiddenThere(field string) string {
	return "Correct " + field + " if it is not meant to lead there. If it is, have whoever runs Postroom take the address, or its network, " +
		"out of network.forbidden in its configuration."
}

// blameSMTP judges what a mail server, or the way to it, did.
func (s *Settings) blameSMTP(o mail.Outcome) Blame {
	switch o.Cause {
	case "":
		return s.blameStep(o)
	case mail.HostNotFound:
		return Blame{"/smtp/host", "Correct the host, or have its name put into the DNS that this machine asks."}
	case mail.TargetForbidden:
		return Blame{"/smtp/host", forbiddenThere("host")}
	case mail.CertificateInvalid:
		return s.blameCertificate(o)
	case mail.TLSRefused:
		if s.SMTP.MinTLS == "1.3" {
			return Blame{"/smtp/min_tls", "Set min_tls to 1.2, or have the server offer TLS 1.3."}
		}
		if s.SMTP.MinTLS == "1.2" {
			return Blame{"/smtp/min_tls", "Have the server offer TLS 1.2 or later. Only if that can't be done, lower min_tls: older versions can be " +
				"broken open."}
		}
		return Blame{Field: "/smtp/min_tls"}
	case mail.TLSNotSpoken:
		return Blame{"/smtp/security", s.notTLS()}
	case mail.StartTLSMissing:
		if s.SMTP.Port == 25 {
			return Blame{"/smtp/port", "Use port 587, where servers take mail to pass on, or port 465 with security tls. Only inside a network " +
				"that you trust use security none."}
		}
		return Blame{"/smtp/security", "Use security tls with port 465. Only inside a network that you trust use security none. If the server " +
			"used to offer STARTTLS, see who could be changing the connection on its way."}
	case mail.CleartextLogin:
		return Blame{"/smtp/security", "Use security starttls with port 587, or tls with port 465. Switch allow_cleartext on only if nobody " +
			"can read the traffic."}
	case mail.AuthMissing, mail.NotAuthenticated, mail.Credentials, mail.LoginDisabled:
		return s.blameLogin(o)
	case mail.PermissionMissing:
		if s.SMTP.Auth.Method == AuthOAuth2 {
			return s.blameCredentials()
		}
	case mail.SendAsDenied:
		return s.blameSendAs()
	case mail.SenderRefused:
		return Blame{"/sender/address", "Use a sender that the account may send as; the same is true of from in the application. Or have the server's " +
			"administrator allow this one: with Amazon SES and others a sender has to be verified first."}
	}
	return Blame{}
}

// blameStep judges an outcome without a cause by where it was met.
func (s *Settings) blameStep(o mail.Outcome) Blame {
	c := &s.SMTP
	silent := o.Class == mail.Temporary && o.Code == 0
	switch {
	case o.Step == "dial" && c.Port != c.usualPort():
		return Blame{"/smtp/port", fmt.Sprintf("No connection to port %d: with security %s servers mostly listen on port %d. Else see that "+
			"host is right, that the server runs, and that no firewall is in between.", c.Port, c.Security, c.usualPort())}
	case o.Step == "dial" && c.Port == 25:
		return Blame{"/smtp/port", "No connection to port 25. Many networks and clouds let nobody connect to it: use port 587 with security " +
			"starttls if the server has it. Else see that host is right, that the server runs, and that no firewall is in between."}
	case o.Step == "dial":
		return Blame{"/smtp/host", "See that host and port are right, that the server runs, and that no firewall is in between."}
	case o.Step == StepGreeting && o.Class == mail.Configuration:
		return Blame{Field: "/smtp/host"}
	case o.Step == StepTLS && silent && c.Security == SecurityTLS && c.Port != c.usualPort():
		return Blame{"/smtp/security", s.notTLS()}
	case o.Step == StepTLS && o.Class == mail.Configuration:
		return Blame{Field: "/smtp/security"}
	case o.Step == StepGreeting && silent && c.Security != SecurityTLS && c.Port == 465:
		return Blame{"/smtp/security", "Use security tls: on port 465 servers wait for encryption from the first byte on."}
	case o.Step == StepAuth && o.Class == mail.Configuration:
		return Blame{Field: "/smtp/auth/method"}
	case o.Step == "rcpt" && c.Auth.Method == AuthNone && strings.HasPrefix(o.Enhanced, "5.7."):
		return Blame{"/smtp/auth/method", "If the server refuses all recipients outside, it does not pass on mail for Postroom: use method " +
			"basic or oauth2 with an account, or have its administrator allow this machine's address."}
	}
	return Blame{}
}

// usualPort is the one that Defaults gives.
func (s *SMTPSettings) usualPort() int {
	usual := SMTPSettings{Security: s.Security}
	usual.defaults()
	return usual.Port
}

// notTLS is what to do with a port that does not speak TLS at once.
func (s *Settings) notTLS() string {
	if s.SMTP.Port == s.SMTP.usualPort() {
		return "See that host is right: port 465 is for security tls, and this server does not speak TLS there. Else use security starttls " +
			"with port 587."
	}
	return fmt.Sprintf("Use security starttls with port %d, or port 465 with security tls.", s.SMTP.Port)
}

// A certificate's faults, as package crypto/x509 words them: the outcome has no other sign of which one it is.
var (
	otherName = []string{"x509: certificate is valid for ", "x509: certificate is not valid for any names", "x509: cannot validate certificate for "}
	outOfTime = "x509: certificate has expired or is not yet valid"
	untrusted = "x509: certificate signed by unknown authority"
)

func (s *Settings) blameCertificate(o mail.Outcome) Blame {
	_, why, _ := strings.Cut(o.Reply, "not valid: ")
	for _, words := range otherName {
		if strings.HasPrefix(why, words) {
			return Blame{"/smtp/host", "Write host as a name that the server's certificate is for, or have a certificate made for this one."}
		}
	}
	own := s.SMTP.CAPEM != ""
	switch {
	case strings.HasPrefix(why, outOfTime) && own:
		return Blame{"/smtp/ca_pem", "See whether the certificate in ca_pem or that of the server is out of date, and have it renewed. This " +
			"machine's clock has to be right."}
	case strings.HasPrefix(why, outOfTime):
		return Blame{"", "Have the server's certificate renewed; nothing of the settings is to blame. This machine's clock has to be right."}
	case strings.HasPrefix(why, untrusted) && own:
		return Blame{"/smtp/ca_pem", "The server's certificate does not come from the authority in ca_pem: put the right one there, or leave " +
			"ca_pem empty for those that this machine trusts."}
	case strings.HasPrefix(why, untrusted):
		return Blame{"/smtp/ca_pem", "Put the certificate of the authority that the server's comes from into ca_pem, or have the server show " +
			"one from an authority that this machine trusts, with all certificates in between."}
	}
	return Blame{Field: "/smtp/ca_pem"}
}

// blameSendAs judges that the account may not use the sender.
func (s *Settings) blameSendAs() Blame {
	const allow = "with Microsoft 365 in the Exchange admin center, Recipients, Mailboxes, the sender's mailbox, Delegation, Send as; " +
		"elsewhere the server's administrator does it."
	if strings.EqualFold(s.username(), s.Sender.Address) {
		return Blame{"/sender/address", "The account logs in with the sender's own address, so it is most likely a message with another sender: " +
			"have the account allowed to send as that, " + allow}
	}
	return Blame{"/sender/address", "Use the account's own address as sender, or have the account allowed to send as this one: " + allow}
}
