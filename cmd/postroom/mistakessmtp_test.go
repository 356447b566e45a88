package main

import (
	"crypto/tls"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/graph/graphtest"
	"github.com/postroom/postroom/provider/smtp/smtptest"
)

const (
	mistakenHost     = "mail.example.com"
	mistakenSender   = "reports@example.com"
	mistakenPassword = "hunter2-correct-horse"
)

// Lines of servers' scripts: see smtptest.Play.
const (
	greets   = "S: 220 mail.example.com ESMTP\nC: EHLO *\n"
	offersMS = greets + "S: 250-mail.example.com\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go ahead\n"
	encrypts = offersMS + "TLS\nC: EHLO *\n"
)

// onHost gives settings of mail.example.com with a login, by STARTTLS and with the authority of ca.
func onHost(ca string, changes ...func(*provider.Settings)) provider.Settings {
	s := provider.Settings{Kind: provider.KindSMTP, Sender: mail.Address{Address: mistakenSender}}
	s.SMTP = provider.SMTPSettings{Host: mistakenHost, Security: provider.SecurityStartTLS, CAPEM: ca}
	s.SMTP.Auth = provider.SMTPAuth{Method: provider.AuthBasic, Username: "reports", Password: mistakenPassword}
	for _, change := range changes {
		change(&s)
	}
	s.Defaults()
	return s
}

// played has a server play a script, with a certificate for mail.example.com.
func played(script string, changes ...func(*provider.Settings)) func(*testing.T) trial {
	return certified(script, time.Now().AddDate(1, 0, 0), nil, changes...)
}

// certified is played with a certificate of another time, and with other ways of the server to encrypt.
func certified(script string, until time.Time, server func(*tls.Config), changes ...func(*provider.Settings)) func(*testing.T) trial {
	return func(t *testing.T) trial {
		t.Helper()
		config, ca, err := smtptest.CertificateValid(time.Now().AddDate(0, 0, -1), until, mistakenHost)
		if err != nil {
			t.Fatal(err)
		}
		if server != nil {
			server(config)
		}
		return trial{settings: onHost(ca, changes...), world: &world{server: playServer(t, config, script)}}
	}
}

// submission has a real server that wants a login, and takes one sender. Its port is the usual one, wherever it really listens.
func submission(security provider.Security, changes ...func(*provider.Settings)) func(*testing.T) trial {
	return func(t *testing.T) trial {
		t.Helper()
		inbox, err := smtptest.NewInbox(smtptest.InboxOptions{Security: security, Username: "reports", Password: mistakenPassword,
			OnMail: func(from string) error {
				if from != mistakenSender {
					return smtptest.Refuse(553, "5.7.1", "Sender address rejected: not owned by user reports")
				}
				return nil
			}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = inbox.Close() })
		s := inbox.Settings(mail.Address{Address: mistakenSender})
		s.SMTP.Host, s.SMTP.Port = "localhost", 0
		for _, change := range changes {
			change(&s)
		}
		return trial{settings: s, world: &world{server: inbox.Addr()}, secrets: []string{mistakenPassword}}
	}
}

func smtpIs(change func(*provider.SMTPSettings)) func(*provider.Settings) {
	return func(s *provider.Settings) { change(&s.SMTP) }
}

func securityIs(security provider.Security, port int) func(*provider.Settings) {
	return smtpIs(func(s *provider.SMTPSettings) { s.Security, s.Port = security, port })
}

func hostIs(host string) func(*provider.Settings) {
	return smtpIs(func(s *provider.SMTPSettings) { s.Host = host })
}

func minTLSIs(version string) func(*provider.Settings) {
	return smtpIs(func(s *provider.SMTPSettings) { s.MinTLS = version })
}

func trusting(ca string) func(*provider.Settings) {
	return smtpIs(func(s *provider.SMTPSettings) { s.CAPEM = ca })
}

func loginIs(change func(*provider.SMTPAuth)) func(*provider.Settings) {
	return smtpIs(func(s *provider.SMTPSettings) { change(&s.Auth) })
}

var (
	noLogin   = loginIs(func(a *provider.SMTPAuth) { *a = provider.SMTPAuth{Method: provider.AuthNone} })
	cleartext = loginIs(func(a *provider.SMTPAuth) { a.AllowCleartext = true })
)

// oldest makes a server speak nothing newer than TLS 1.1.
func oldest(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }

// another is an authority that nobody's certificate is from.
func another(t *testing.T) string {
	t.Helper()
	_, ca, err := smtptest.Certificate("other.example.com")
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// loginRefused is a server that answers a login by PLAIN.
func loginRefused(reply string) string {
	return encrypts + "S: 250-mail.example.com\nS: 250 AUTH PLAIN LOGIN\nC: AUTH PLAIN *\nS: " + reply
}

// smtpMistakes are those with a mail server and its login by password.
func smtpMistakes() []mistake {
	const (
		host, port, security, minTLS, caPEM = "/smtp/host", "/smtp/port", "/smtp/security", "/smtp/min_tls", "/smtp/ca_pem"
		method, username, password          = "/smtp/auth/method", "/smtp/auth/username", "/smtp/auth/password"
		sender                              = "/sender/address"
	)
	resolve, connect, overTLS, greeting, auth, from := provider.StepResolve, provider.StepConnect, provider.StepTLS, provider.StepGreeting, provider.StepAuth, provider.StepSender
	nextYear := time.Now().AddDate(1, 0, 0)
	return []mistake{
		{"The host does not exist", []string{host}, "", resolve, func(t *testing.T) trial {
			return trial{settings: onHost("", hostIs("mial.example.com")), world: &world{resolver: nameless(t)}}
		}},
		{"The host is another machine, whose certificate does not fit", []string{host}, "", overTLS,
			played(offersMS+"NOTLS", hostIs("mail.example.org"))},
		{"The host is given as an address, and the certificate is for a name", []string{host}, "", overTLS,
			played(offersMS+"NOTLS", hostIs("192.0.2.25"))},
		{"Nothing listens at the host", []string{host}, "", connect, func(t *testing.T) trial {
			return trial{settings: onHost(""), world: &world{server: nobody(t)}}
		}},
		{"Nothing listens on the port", []string{port}, "", connect, func(t *testing.T) trial {
			return trial{settings: onHost("", securityIs(provider.SecurityStartTLS, 588)), world: &world{server: nobody(t)}}
		}},
		{"Port 25 is closed on the way", []string{port}, "", connect, func(t *testing.T) trial {
			return trial{settings: onHost("", noLogin, securityIs(provider.SecurityNone, 25)), world: &world{server: nobody(t)}}
		}},
		{"The address is forbidden, as that of a cloud's metadata is", []string{host}, "", connect, func(*testing.T) trial {
			return trial{settings: onHost("", hostIs("169.254.169.254"))}
		}},
		{"Security tls on a port for STARTTLS", []string{security, port}, "", overTLS,
			submission(provider.SecurityStartTLS, securityIs(provider.SecurityTLS, 587))},
		{"Security starttls on a port for TLS", []string{security, port}, "", greeting, func(t *testing.T) trial {
			tr := submission(provider.SecurityTLS, securityIs(provider.SecurityStartTLS, 465))(t)
			tr.patience = time.Second // the server waits for us, and we for the server
			return tr
		}},
		{"Security none where logins are taken only with TLS", []string{security}, "", auth,
			submission(provider.SecurityStartTLS, securityIs(provider.SecurityNone, 587), cleartext)},
		{"Security none, and no login, where TLS is wanted", []string{security}, "", from,
			played(greets+"S: 250-mail.example.com\nS: 250 STARTTLS\nC: MAIL FROM:*\nS: 530 5.7.0 Must issue a STARTTLS command first",
				noLogin, securityIs(provider.SecurityNone, 587))},
		{"STARTTLS is not offered", []string{security}, "", overTLS, played(greets + "S: 250-mail.example.com\nS: 250 SIZE 1000000")},
		{"STARTTLS is not offered on port 25", []string{port}, "", overTLS,
			played(greets+"S: 250-mail.example.com\nS: 250 SIZE 1000000", securityIs(provider.SecurityStartTLS, 25))},
		{"min_tls is higher than what the server has", []string{minTLS}, "", overTLS,
			certified(offersMS+"NOTLS", nextYear, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, minTLSIs("1.3"))},
		{"The server speaks nothing newer than TLS 1.1", []string{minTLS}, "", overTLS, certified(offersMS+"NOTLS", nextYear, oldest)},
		{"The certificate is from an authority of one's own, and ca_pem is empty", []string{caPEM}, "", overTLS,
			played(offersMS+"NOTLS", trusting(""))},
		{"ca_pem holds another authority", []string{caPEM}, "", overTLS, func(t *testing.T) trial {
			return played(offersMS+"NOTLS", trusting(another(t)))(t)
		}},
		{"The certificate has expired", nil, "it is the server's", overTLS, certified(offersMS+"NOTLS", time.Now().Add(-time.Hour), nil, trusting(""))},
		{"The certificate and its authority, in ca_pem, have expired", []string{caPEM}, "", overTLS,
			certified(offersMS+"NOTLS", time.Now().Add(-time.Hour), nil)},
		{"The server offers no login", []string{method}, "", auth, played(encrypts + "S: 250-mail.example.com\nS: 250 SIZE 1000000")},
		{"The server offers no login on port 25", []string{port}, "", auth,
			played(encrypts+"S: 250-mail.example.com\nS: 250 SIZE 1000000", securityIs(provider.SecurityStartTLS, 25))},
		{"Method basic where only OAuth 2.0 is offered", []string{method}, "", auth,
			played(encrypts + "S: 250-mail.example.com\nS: 250 AUTH XOAUTH2")},
		{"Method none where a login is wanted", []string{method}, "", from, submission(provider.SecurityStartTLS, noLogin)},
		{"A login without TLS, which the server refuses", []string{security}, "", auth,
			played(greets+"S: 250-mail.example.com\nS: 250 AUTH PLAIN\nC: AUTH PLAIN *\nS: 538 5.7.11 Encryption required for requested authentication mechanism",
				securityIs(provider.SecurityNone, 25), cleartext)},
		{"The password is wrong", []string{password}, "", auth,
			submission(provider.SecurityTLS, loginIs(func(a *provider.SMTPAuth) { a.Password = "another-guess-at-it" }))},
		{"The user name is wrong", []string{username}, "the server does not say which of the two it is", auth,
			submission(provider.SecurityStartTLS, loginIs(func(a *provider.SMTPAuth) { a.Username = "reprots" }))},
		{"The user name is left out, and is not the sender's address", []string{username}, "the server does not say which of the two it is", auth,
			submission(provider.SecurityStartTLS, loginIs(func(a *provider.SMTPAuth) { a.Username = "" }))},
		{"Microsoft 365: the password is wrong", []string{password}, "", auth,
			microsoftHosted(loginRefused("535 5.7.3 Authentication unsuccessful"))},
		{"Microsoft 365: SMTP AUTH is disabled for the tenant", []string{method}, "", auth,
			microsoftHosted(loginRefused("535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant."))},
		{"Microsoft 365: basic authentication is off", []string{method}, "", auth,
			microsoftHosted(loginRefused("550 5.7.30 Basic authentication is not supported for Client Submission."))},
		{"Google: the account's own password instead of an app password", []string{password}, "", auth,
			renamed("smtp.gmail.com", loginRefused("534 5.7.9 Application-specific password required."))},
		{"The account may not use the sender", []string{sender}, "", from,
			submission(provider.SecurityStartTLS, func(s *provider.Settings) { s.Sender.Address = "alerts@example.com" })},
		{"Microsoft 365: the account may not send as the sender", []string{sender}, "", from,
			microsoftHosted(encrypts+"S: 250-smtp.office365.com\nS: 250 AUTH LOGIN PLAIN\nC: AUTH PLAIN *\nS: 235 2.7.0 ok\nC: MAIL FROM:*\n"+
				"S: 550 5.7.60 SMTP; Client does not have permissions to send as this sender", func(s *provider.Settings) { s.SMTP.Auth.Username = "relay@example.com" })},
	}
}

// microsoftHosted is played by what the settings call Microsoft's server.
func microsoftHosted(script string, changes ...func(*provider.Settings)) func(*testing.T) trial {
	return renamed("smtp.office365.com", script, changes...)
}

// renamed is played by a server of another name.
func renamed(host, script string, changes ...func(*provider.Settings)) func(*testing.T) trial {
	return func(t *testing.T) trial {
		t.Helper()
		config, ca, err := smtptest.Certificate(host)
		if err != nil {
			t.Fatal(err)
		}
		changes := append([]func(*provider.Settings){hostIs(host), loginIs(func(a *provider.SMTPAuth) { a.Username = "" })}, changes...)
		return trial{settings: onHost(ca, changes...), world: &world{server: playServer(t, config, script)}}
	}
}

const aboutSMTPTokens = "The first rows are of `provider: microsoft`, the last of any other, by `token_url`.\n\n"

// waits is a server that offers XOAUTH2 and is not asked for it, as there is no token.
const waits = encrypts + "S: 250-mail.example.com\nS: 250 AUTH XOAUTH2"

// entra gives settings of an app in a simulated tenant, with provider microsoft.
func entra(script string, change func(*provider.OAuth2), mishaps ...graphtest.Mishap) func(*testing.T) trial {
	return func(t *testing.T) trial {
		t.Helper()
		expired := graphtest.DefaultApp()
		expired.ClientID = expiredApp
		expired.Secrets[0].Expires = time.Unix(1, 0)
		tenant := graphtest.Run(t, graphtest.Options{Apps: []graphtest.App{graphtest.DefaultApp(), expired}})
		for _, m := range mishaps {
			tenant.Provoke(m)
		}
		o := provider.OAuth2{Provider: provider.OAuthMicrosoft, TenantID: graphtest.DefaultTenantID,
			ClientID: graphtest.DefaultClientID, ClientSecret: graphtest.DefaultSecret}
		change(&o)
		tr := microsoftHosted(script, tokens(o))(t)
		tr.world.login = tenant.LoginURL()
		return tr
	}
}

// authority gives settings of a client of any other login service.
func authority(script string, change func(*provider.OAuth2)) func(*testing.T) trial {
	return func(t *testing.T) trial {
		t.Helper()
		server := httptest.NewServer(http.HandlerFunc(grantToken))
		t.Cleanup(server.Close)
		o := provider.OAuth2{ClientID: "postroom", ClientSecret: graphtest.DefaultSecret, TokenURL: server.URL + "/token", Scopes: []string{"smtp.send"}}
		change(&o)
		return renamed(mistakenHost, script, tokens(o))(t)
	}
}

func tokens(o provider.OAuth2) func(*provider.Settings) {
	return loginIs(func(a *provider.SMTPAuth) { *a = provider.SMTPAuth{Method: provider.AuthOAuth2, OAuth2: o} })
}

// grantToken is a token endpoint with one client (RFC 6749, section 4.4), whose secret may stand in the header or in the body.
func grantToken(w http.ResponseWriter, r *http.Request) {
	id, secret, ok := r.BasicAuth()
	if !ok {
		id, secret = r.FormValue("client_id"), url.QueryEscape(r.FormValue("client_secret"))
	}
	status, answer := http.StatusOK, `{"access_token":"`+strings.Repeat("c2VjcmV0", 60)+`","token_type":"Bearer","expires_in":3600}`
	switch {
	case r.URL.Path != "/token":
		status, answer = http.StatusNotFound, "There is no such page."
	case id != "postroom" || secret != url.QueryEscape(graphtest.DefaultSecret):
		status, answer = http.StatusUnauthorized, `{"error":"invalid_client","error_description":"The client is not known."}`
	case r.FormValue("scope") != "smtp.send":
		status, answer = http.StatusBadRequest, `{"error":"invalid_scope","error_description":"The scope is not known."}`
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, answer)
}

// What differs from a tenant's own.
const (
	expiredApp  = "1f0a3c52-4d7e-4b8f-9a60-1b2c3d4e5f60"
	strangerApp = "97e0a5b7-d745-40b6-94fe-5f77d35c6e05"
	secretID    = "b5c8a3de-2f41-4c0a-8f6d-7e9a1c3b5d70"
	wrongSecret = "another~client.secret"
)

// entraRefuses has the login service give an error of its own.
func entraRefuses(code, description string) graphtest.Mishap {
	return graphtest.Mishap{On: []graphtest.Operation{graphtest.GetToken},
		Answer: &graphtest.Answer{Status: http.StatusBadRequest, Body: `{"error":"` + code + `","error_description":"` + description + `"}`}}
}

// tokenMistakes are those with a login by OAuth 2.0.
func tokenMistakes() []mistake {
	const at = "/smtp/auth/oauth2/"
	token, auth := provider.StepToken, provider.StepAuth
	refuses := waits + "\nC: AUTH XOAUTH2\nS: 334\nC: dXNlcj*\nS: 334 " + base64.StdEncoding.EncodeToString([]byte(`{"status":"401"}`)) +
		"\nC:\nS: 535 5.7.3 Authentication unsuccessful"
	nothing := func(*provider.OAuth2) {}
	return []mistake{
		{"The tenant is wrong", []string{at + "tenant_id"}, "", token, entra(waits, func(o *provider.OAuth2) { o.TenantID = "other.example.com" })},
		{"The client id is wrong", []string{at + "client_id"}, "", token, entra(waits, func(o *provider.OAuth2) { o.ClientID = strangerApp })},
		{"The client secret is wrong", []string{at + "client_secret"}, "", token, entra(waits, func(o *provider.OAuth2) { o.ClientSecret = wrongSecret })},
		{"The secret's id was given instead of its value", []string{at + "client_secret"}, "", token,
			entra(waits, func(o *provider.OAuth2) { o.ClientSecret = secretID })},
		{"The client secret has expired", []string{at + "client_secret"}, "", token, entra(waits, func(o *provider.OAuth2) { o.ClientID = expiredApp })},
		{"The app has no permission of Exchange Online", []string{at + "client_id"}, "", token,
			entra(waits, nothing, entraRefuses("unauthorized_client", "AADSTS650056: Misconfigured application."))},
		{"The mail server does not accept the token: Exchange does not know the app, or the user name is wrong", []string{"/smtp/auth/username"}, "", auth,
			entra(refuses, nothing)},
		{"The server offers no login by OAuth 2.0", []string{"/smtp/auth/method"}, "", auth,
			entra(strings.Replace(waits, "XOAUTH2", "PLAIN LOGIN", 1), nothing)},
		{"Other provider: token_url is a page that does not exist", []string{at + "token_url"}, "", token,
			authority(waits, func(o *provider.OAuth2) { o.TokenURL = strings.Replace(o.TokenURL, "/token", "/oauth", 1) })},
		{"Other provider: nothing listens at token_url", []string{at + "token_url"}, "", token, func(t *testing.T) trial {
			return authority(waits, func(o *provider.OAuth2) { o.TokenURL = "http://" + nobody(t) + "/token" })(t)
		}},
		{"Other provider: token_url leads where network.forbidden forbids", []string{at + "token_url"}, "", token,
			authority(waits, func(o *provider.OAuth2) { o.TokenURL = "https://169.254.169.254/token" })},
		{"Other provider: the client secret is wrong", []string{at + "client_secret"}, "", token,
			authority(waits, func(o *provider.OAuth2) { o.ClientSecret = wrongSecret })},
		{"Other provider: the client id is wrong", []string{at + "client_id"}, "the login service does not say which of the two it is", token,
			authority(waits, func(o *provider.OAuth2) { o.ClientID = "postrom" })},
		{"Other provider: the scope is refused", []string{at + "scopes"}, "", token,
			authority(waits, func(o *provider.OAuth2) { o.Scopes = []string{"mail.send"} })},
		{"Other provider: the mail server does not accept the token", []string{"/smtp/auth/username", at + "scopes"}, "", auth, authority(refuses, nothing)},
	}
}
