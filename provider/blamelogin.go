package provider

import (
	"strings"

	"github.com/postroom/postroom/mail"
)

// blameLogin judges what a mail server said about our login.
func (s *Settings) blameLogin(o mail.Outcome) Blame {
	auth, security := &s.SMTP.Auth, s.SMTP.Security
	switch o.Cause {
	case mail.AuthMissing:
		switch {
		case security == SecurityNone:
			return Blame{"/smtp/security", "Use security starttls with port 587, or tls with port 465: servers mostly offer logins only over an " +
				"encrypted connection. If this one takes mail without a login, use method none."}
		case s.SMTP.Port == 25:
			return Blame{"/smtp/port", "Use port 587, or 465 with security tls: port 25 is for mail between servers and often has no logins. If " +
				"the server takes mail without a login, use method none."}
		case auth.Method == AuthOAuth2:
			return Blame{"/smtp/auth/method", "Use method basic: the server offers no login by OAuth 2.0 here."}
		}
		return Blame{"/smtp/auth/method", "Use method oauth2 if the server offers that alone, or none if it takes mail without a login."}
	case mail.NotAuthenticated:
		// The code is the same for a login that is missing (RFC 4954, section 6) and for TLS (RFC 3207, section 4), whose text is given there.
		wantsTLS := strings.Contains(strings.ToUpper(o.Reply), "STARTTLS")
		switch {
		case security == SecurityNone && wantsTLS:
			return Blame{"/smtp/security", "Use security starttls with port 587, or tls with port 465: the server wants an encrypted connection."}
		case auth.Method == AuthNone && security == SecurityNone:
			return Blame{"/smtp/auth/method", "Use method basic or oauth2 with an account, and security starttls or tls. Or have the server's " +
				"administrator allow this machine's address."}
		case auth.Method == AuthNone:
			return Blame{"/smtp/auth/method", "Use method basic or oauth2 with an account. Or have the server's administrator allow this machine's " +
				"address."}
		case security == SecurityNone:
			return Blame{"/smtp/security", "Use security starttls with port 587, or tls with port 465: the server wants an encrypted connection."}
		}
		return Blame{"/smtp/auth/method", "Check with the server's administrator which login this account needs to send mail."}
	case mail.LoginDisabled:
		return s.blameDisabled(o)
	}
	return s.blameCredentials()
}

// blameDisabled judges that a way of logging in is switched off.
func (s *Settings) blameDisabled(o mail.Outcome) Blame {
	switch {
	case microsoftHost(s.SMTP.Host) && o.Enhanced == "5.7.30":
		return Blame{"/smtp/auth/method", "Microsoft 365 takes no passwords by SMTP here: use method oauth2, or kind microsoft365, which does without SMTP."}
	case microsoftHost(s.SMTP.Host):
		return Blame{"/smtp/auth/method", "SMTP AUTH is disabled for the tenant or the mailbox. Switch it on in the Microsoft 365 admin center " +
			"(Users, Active users, the account, Mail, Manage email apps) and in the Exchange admin center (Settings, Mail flow). Security " +
			"defaults and authentication policies of Microsoft Entra can forbid passwords, too: then use method oauth2. Or use kind " +
			"microsoft365, which does without SMTP."}
	case googleHost(s.SMTP.Host):
		return Blame{"/smtp/auth/password", appPassword}
	case s.SMTP.Auth.Method == AuthBasic:
		return Blame{"/smtp/auth/method", "Have the account's administrator allow logins by password over SMTP, or use method oauth2. Some " +
			"providers want an app password."}
	}
	return Blame{"/smtp/auth/method", "Have the account's administrator allow this way of logging in over SMTP, or use another method."}
}

// blameCredentials judges that the login was refused.
func (s *Settings) blameCredentials() Blame {
	account := "Check username and password."
	if s.SMTP.Auth.Username == "" {
		account = "Check password, and whether the sender's address is the user name, as no username is given."
	}
	host := strings.ToLower(s.SMTP.Host)
	switch {
	case s.SMTP.Auth.Method == AuthOAuth2 && microsoftHost(host):
		return Blame{"/smtp/auth/username", "The user name has to be the address of the mailbox to send from; without a username it is the " +
			"sender's. In Exchange Online the app has to be registered (New-ServicePrincipal, with the object id of the enterprise application) " +
			"and to have FullAccess to that mailbox (Add-MailboxPermission); in Microsoft Entra it needs SMTP.SendAsApp with admin consent. " +
			"SMTP AUTH must not be disabled for the mailbox."}
	case s.SMTP.Auth.Method == AuthOAuth2:
		return Blame{"/smtp/auth/username", "Check that username is the account that the access token is for, and that scopes have what the mail " +
			"server wants; without a username it is the sender's address."}
	case s.SMTP.Auth.Method == AuthNone:
		return Blame{Field: "/smtp/auth/method"}
	case microsoftHost(host):
		account += " See in the Microsoft 365 admin center (Users, Active users, the account, Mail, Manage email apps) that the account may use " +
			"Authenticated SMTP. With multi-factor authentication no password will do: use method oauth2, or kind microsoft365."
	case googleHost(host):
		account = appPassword
	case strings.HasPrefix(host, "email-smtp.") && strings.Contains(host, ".amazonaws.com"):
		account += " Amazon SES wants its SMTP credentials, which are made in its console for one region; an access key and its secret will not do."
	default:
		account += " See that the account is neither locked nor expired, and may log in by SMTP."
	}
	return Blame{"/smtp/auth/password", account}
}

const appPassword = "Put an app password into password: Google takes no other here. The account makes one once it has 2-step verification."

func googleHost(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return strings.HasSuffix(host, ".gmail.com") || strings.HasSuffix(host, ".google.com") || strings.HasSuffix(host, ".googlemail.com")
}
