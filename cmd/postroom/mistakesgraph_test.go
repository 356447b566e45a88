package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/graph/graphtest"
)

const aboutMicrosoft365 = "Where the app may not read (it has `Mail.Send` alone) nothing is asked of the mailbox: `verify` skips the step `sender`, and only a\n" +
	"test mail shows what is wrong with it.\n\n"

// certificates are made once, as keys take their time.
var certificates = sync.OnceValues(func() (known, expired *graphtest.AppCertificate) {
	known, _ = graphtest.NewAppCertificate(time.Now().AddDate(1, 0, 0))
	expired, _ = graphtest.NewAppCertificate(time.Now().Add(-time.Hour))
	return known, expired
})

// tenancy has a simulated tenant, whose app knows a certificate that has expired. What is said is that of settings without login_url
// and graph_url, which stand for Microsoft's hosts.
func tenancy(o graphtest.Options, change func(*provider.Settings), mishaps ...graphtest.Mishap) func(*testing.T) trial {
	return func(t *testing.T) trial {
		t.Helper()
		if o.Mailboxes == nil {
			o.Mailboxes = []graphtest.Mailbox{{Address: mistakenSender}}
		}
		if o.Apps == nil {
			_, expired := certificates()
			a := graphtest.DefaultApp()
			a.Certificates = append(a.Certificates, expired.Certificate)
			o.Apps = append(o.Apps, a)
		}
		tenant := graphtest.Run(t, o)
		for _, m := range mishaps {
			tenant.Provoke(m)
		}
		tr := trial{settings: tenant.Settings(mail.Address{Address: mistakenSender}), secrets: []string{graphtest.DefaultSecret}}
		if change != nil {
			change(&tr.settings)
		}
		shown := tr.settings
		shown.Microsoft365.LoginURL, shown.Microsoft365.GraphURL = "", ""
		tr.shown = &shown
		return tr
	}
}

// as gives the tenant's app with a change.
func as(change func(*graphtest.App)) graphtest.Options {
	a := graphtest.DefaultApp()
	change(&a)
	return graphtest.Options{Apps: []graphtest.App{a}}
}

// itself says that own hosts are shown as they are: they are what is wrong.
func itself(make func(*testing.T) trial) func(*testing.T) trial {
	return func(t *testing.T) trial {
		t.Helper()
		tr := make(t)
		tr.shown = nil
		return tr
	}
}

func appIs(change func(*provider.Microsoft365Settings)) func(*provider.Settings) {
	return func(s *provider.Settings) { change(&s.Microsoft365) }
}

func loginAt(url string) func(*provider.Settings) {
	return appIs(func(m *provider.Microsoft365Settings) { m.LoginURL = url })
}

// strangerToken has a file with a token of a subject that the app does not trust.
func strangerToken(t *testing.T) trial {
	t.Helper()
	trusted, err := graphtest.NewFederation("https://cluster.example.com", "system:serviceaccount:postroom:worker")
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := graphtest.NewFederation("https://cluster.example.com", "system:serviceaccount:default:default")
	if err != nil {
		t.Fatal(err)
	}
	text, err := stranger.Token(time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	path := file(t, "token", text)
	tr := tenancy(as(func(a *graphtest.App) { a.Federations = append(a.Federations, trusted) }), appIs(func(m *provider.Microsoft365Settings) {
		m.ClientSecret, m.FederatedTokenFile = "", path
	}))(t)
	tr.secrets = append(tr.secrets, strings.Split(text, ".")...)
	return tr
}

// proving gives settings that have a certificate instead of a secret.
func proving(with func() *graphtest.AppCertificate) func(*provider.Settings) {
	return appIs(func(m *provider.Microsoft365Settings) {
		c := with()
		m.ClientSecret, m.CertificatePEM, m.PrivateKeyPEM = "", c.CertificatePEM, provider.Secret(c.KeyPEM)
	})
}

// microsoft365Mistakes are those with Microsoft Graph, its tenant and its app.
func microsoft365Mistakes() []mistake {
	const (
		tenantID, clientID, secret  = "/microsoft365/tenant_id", "/microsoft365/client_id", "/microsoft365/client_secret"
		certificate, federated      = "/microsoft365/certificate_pem", "/microsoft365/federated_token_file"
		cloud, loginURL, verifySend = "/microsoft365/cloud", "/microsoft365/login_url", "/microsoft365/verify_sends"
		sender                      = "/sender/address"
	)
	connect, overTLS, token, permissions, mailbox := provider.StepConnect, provider.StepTLS, provider.StepToken, provider.StepPermissions, provider.StepSender
	plain := graphtest.Options{}
	only := func(p ...string) graphtest.Options {
		return as(func(a *graphtest.App) { a.Permissions = append([]string{}, p...) })
	}
	state := func(s graphtest.State) graphtest.Options {
		return graphtest.Options{Mailboxes: []graphtest.Mailbox{{Address: mistakenSender, State: s}}}
	}
	fileIs := func(path string) func(*provider.Settings) {
		return appIs(func(m *provider.Microsoft365Settings) { m.ClientSecret, m.FederatedTokenFile = "", path })
	}
	elsewhere := "AADSTS90038: The specified tenant belongs to the National Cloud. Current cloud instance does not federate with it."
	return []mistake{
		{"The tenant is not found", []string{tenantID}, "", token,
			tenancy(plain, appIs(func(m *provider.Microsoft365Settings) { m.TenantID = "other.example.com" }))},
		{"The cloud is wrong: it knows no such tenant", []string{cloud}, "the login service says the same of a wrong tenant", token,
			tenancy(plain, appIs(func(m *provider.Microsoft365Settings) { m.TenantID, m.Cloud = "other.example.com", "gcch" }))},
		{"The cloud is wrong: the tenant is in another", []string{cloud}, "", token, tenancy(plain, nil, entraRefuses("invalid_request", elsewhere))},
		{"The app is not in the tenant", []string{clientID}, "", token, tenancy(plain, appIs(func(m *provider.Microsoft365Settings) { m.ClientID = strangerApp }))},
		{"The client secret is wrong", []string{secret}, "", token, tenancy(plain, appIs(func(m *provider.Microsoft365Settings) { m.ClientSecret = wrongSecret }))},
		{"The secret's id was given instead of its value", []string{secret}, "", token,
			tenancy(plain, appIs(func(m *provider.Microsoft365Settings) { m.ClientSecret = secretID }))},
		{"The client secret has expired", []string{secret}, "", token, tenancy(as(func(a *graphtest.App) { a.Secrets[0].Expires = time.Unix(1, 0) }), nil)},
		{"The app does not know the certificate", []string{certificate}, "", token,
			tenancy(plain, proving(func() *graphtest.AppCertificate { known, _ := certificates(); return known }))},
		{"The certificate has expired", []string{certificate}, "", token,
			tenancy(plain, proving(func() *graphtest.AppCertificate { _, expired := certificates(); return expired }))},
		{"The file with the federated token is missing", []string{federated}, "", token, tenancy(plain, fileIs("/nowhere/token"))},
		{"The federated token is of another subject", []string{federated}, "", token, strangerToken},
		{"The app's tokens are for nothing that the tenant has", []string{cloud}, "", token,
			tenancy(plain, nil, entraRefuses("invalid_resource", "AADSTS500011: The resource principal was not found in the tenant."))},
		{"The permission Mail.Send is missing", []string{clientID}, "", permissions, tenancy(only(graphtest.MailReadWrite), nil)},
		{"The app has no application permission", []string{clientID}, "", permissions, tenancy(only(), nil)},
		{"verify_sends without the permission Mail.ReadWrite", []string{verifySend}, "to give the permission is the other way", permissions,
			tenancy(only(graphtest.MailSend), appIs(func(m *provider.Microsoft365Settings) { m.VerifySends = true }))},
		{"The sender has no mailbox", []string{sender}, "", mailbox, tenancy(graphtest.Options{Mailboxes: []graphtest.Mailbox{{Address: "other@example.com"}}}, nil)},
		{"The sender's mailbox has no licence, or is on premises", []string{sender}, "", mailbox, tenancy(state(graphtest.Unlicensed), nil)},
		{"The app is not allowed to use the mailbox", nil, "Exchange keeps the app out; the settings may be right", mailbox, tenancy(state(graphtest.Denied), nil)},
		{"The login service can't be reached", nil, "it is the network, or the service", connect,
			func(t *testing.T) trial { return tenancy(plain, loginAt("http://"+nobody(t)))(t) }},
		{"A proxy looks into encrypted traffic", nil, "it is this machine that does not trust the proxy", overTLS, tenancy(graphtest.Options{TLS: true}, nil)},
		{"Own login_url: nothing listens there", []string{loginURL}, "", connect,
			func(t *testing.T) trial { return itself(tenancy(plain, loginAt("http://"+nobody(t))))(t) }},
		{"Own login_url: what answers there is no login service", []string{loginURL}, "", token,
			func(t *testing.T) trial {
				s := httptest.NewServer(http.NotFoundHandler())
				t.Cleanup(s.Close)
				return itself(tenancy(plain, loginAt(s.URL)))(t)
			}},
		{"Own login_url: it is forbidden", []string{loginURL}, "", connect,
			itself(tenancy(plain, loginAt("https://169.254.169.254")))},
		{"Own graph_url: it is of another cloud than the tokens", []string{"/microsoft365/graph_url"}, "", mailbox,
			itself(tenancy(plain, nil, graphtest.Mishap{On: []graphtest.Operation{graphtest.GetFolder}, Answer: &graphtest.Answer{Status: http.StatusUnauthorized}}))},
	}
}

const aboutValidation = "Settings with one of these faults are not tried and not saved: every fault is told at once, with its field.\n\n"

// unsound gives settings of a mail server, or of Microsoft 365, that nothing is tried with.
func unsound(kind provider.Kind, change func(*provider.Settings)) func(*testing.T) trial {
	return func(*testing.T) trial {
		s := onHost("")
		if kind == provider.KindMicrosoft365 {
			s = provider.Settings{Kind: kind, Sender: s.Sender}
			s.Microsoft365 = provider.Microsoft365Settings{TenantID: graphtest.DefaultTenantID, ClientID: graphtest.DefaultClientID, ClientSecret: graphtest.DefaultSecret}
		}
		change(&s)
		return trial{settings: s}
	}
}

// validationMistakes are a sample of those that need no provider to be found.
func validationMistakes() []mistake {
	const graphApp, app = "/microsoft365/", "/smtp/auth/oauth2/"
	bySMTP := func(change func(*provider.Settings)) func(*testing.T) trial {
		return unsound(provider.KindSMTP, change)
	}
	byGraph := func(change func(*provider.Microsoft365Settings)) func(*testing.T) trial {
		return unsound(provider.KindMicrosoft365, appIs(change))
	}
	byToken := func(change func(*provider.OAuth2)) func(*testing.T) trial {
		return bySMTP(loginIs(func(a *provider.SMTPAuth) {
			*a = provider.SMTPAuth{Method: provider.AuthOAuth2, OAuth2: provider.OAuth2{ClientID: "postroom", ClientSecret: wrongSecret,
				TokenURL: "https://login.example.com/token"}}
			change(&a.OAuth2)
		}))
	}
	sender := func(address string) func(*testing.T) trial {
		return bySMTP(func(s *provider.Settings) { s.Sender.Address = address })
	}
	return []mistake{
		{"host with a scheme", []string{"/smtp/host"}, "", "", bySMTP(hostIs("smtp://mail.example.com"))},
		{"host with a port", []string{"/smtp/host"}, "", "", bySMTP(hostIs("mail.example.com:587"))},
		{"port that is none", []string{"/smtp/port"}, "", "", bySMTP(securityIs(provider.SecurityStartTLS, 99999))},
		{"security that is none", []string{"/smtp/security"}, "", "", bySMTP(securityIs("ssl", 465))},
		{"min_tls that is none", []string{"/smtp/min_tls"}, "", "", bySMTP(minTLSIs("TLSv1.2"))},
		{"ca_pem that holds the name of a file", []string{"/smtp/ca_pem"}, "", "", bySMTP(trusting("/etc/ssl/ca.pem"))},
		{"password that is a placeholder", []string{"/smtp/auth/password"}, "", "", bySMTP(loginIs(func(a *provider.SMTPAuth) { a.Password = provider.Redacted }))},
		{"password left out", []string{"/smtp/auth/password"}, "", "", bySMTP(loginIs(func(a *provider.SMTPAuth) { a.Password = "" }))},
		{"password left out, after host was changed", []string{"/smtp/auth/password"}, "", "", func(t *testing.T) trial {
			before := onHost("")
			tr := bySMTP(func(s *provider.Settings) { s.SMTP.Host, s.SMTP.Auth.Password = "mail.example.net", "" })(t)
			tr.before, tr.secrets = &before, []string{mistakenPassword}
			return tr
		}},
		{"login without TLS", []string{"/smtp/auth/allow_cleartext"}, "", "", bySMTP(securityIs(provider.SecurityNone, 25))},
		{"account with method none", []string{"/smtp/auth/method"}, "", "", bySMTP(loginIs(func(a *provider.SMTPAuth) { a.Method, a.Password = provider.AuthNone, "" }))},
		{"sender left out", []string{"/sender/address"}, "", "", sender("")},
		{"sender with two addresses", []string{"/sender/address"}, "", "", sender("reports@example.com, alerts@example.com")},
		{"sender that is no address", []string{"/sender/address"}, "", "", sender("reports")},
		{"allowed sender that is no address", []string{"/allowed_senders/0"}, "", "", bySMTP(func(s *provider.Settings) { s.AllowedSenders = []string{"*.example.com"} })},
		{"token_url with http", []string{app + "token_url"}, "", "", byToken(func(o *provider.OAuth2) { o.TokenURL = "http://login.example.com/token" })},
		{"two scopes in one", []string{app + "scopes/0"}, "", "", byToken(func(o *provider.OAuth2) { o.Scopes = []string{"mail.send offline"} })},
		{"tenant_id that stands for many tenants", []string{graphApp + "tenant_id"}, "", "",
			byGraph(func(m *provider.Microsoft365Settings) { m.TenantID = "common" })},
		{"client_id that is a name", []string{graphApp + "client_id"}, "", "", byGraph(func(m *provider.Microsoft365Settings) { m.ClientID = "Postroom" })},
		{"client_secret with a space from copying", []string{graphApp + "client_secret"}, "", "",
			byGraph(func(m *provider.Microsoft365Settings) { m.ClientSecret += " " })},
		{"no way to prove who we are", []string{graphApp + "client_secret"}, "", "", byGraph(func(m *provider.Microsoft365Settings) { m.ClientSecret = "" })},
		{"key that does not fit the certificate", []string{graphApp + "private_key_pem"}, "", "", byGraph(func(m *provider.Microsoft365Settings) {
			known, expired := certificates()
			m.ClientSecret, m.CertificatePEM, m.PrivateKeyPEM = "", known.CertificatePEM, provider.Secret(expired.KeyPEM)
		})},
		{"key in the certificate's place", []string{graphApp + "certificate_pem"}, "", "", byGraph(func(m *provider.Microsoft365Settings) {
			known, _ := certificates()
			m.ClientSecret, m.CertificatePEM, m.PrivateKeyPEM = "", known.KeyPEM, provider.Secret(known.KeyPEM)
		})},
		{"federated_token_file that is no full path", []string{graphApp + "federated_token_file"}, "", "",
			byGraph(func(m *provider.Microsoft365Settings) { m.ClientSecret, m.FederatedTokenFile = "", "token" })},
		{"cloud that is none", []string{graphApp + "cloud"}, "", "", byGraph(func(m *provider.Microsoft365Settings) { m.Cloud = "germany" })},
		{"login_url with http", []string{graphApp + "login_url"}, "", "", byGraph(func(m *provider.Microsoft365Settings) { m.LoginURL = "http://login.example.com" })},
		{"graph_url with a path", []string{graphApp + "graph_url"}, "", "", byGraph(func(m *provider.Microsoft365Settings) { m.GraphURL = "https://graph.microsoft.com/v1.0" })},
		{"limit that no provider has", []string{"/limits/messages_per_minute"}, "", "", bySMTP(func(s *provider.Settings) { s.Limits.MessagesPerMinute = 30_000_000 })},
	}
}
