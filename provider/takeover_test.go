package provider

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/postroom/postroom/mail"
)

const stored = "stored-hunter2"

// Active settings of each sort, as they are after Defaults.
func activeBasic() *Settings {
	return complete(&Settings{Kind: KindSMTP, Sender: mail.Address{Address: "reports@example.com"}, SMTP: SMTPSettings{Host: "mail.example.com",
		Auth: SMTPAuth{Username: "account", Password: stored}}})
}

// activeSender logs in as the sender.
func activeSender() *Settings {
	s := activeBasic()
	s.SMTP.Auth.Username = ""
	return s
}

func activeOAuth2() *Settings {
	return complete(&Settings{Kind: KindSMTP, Sender: mail.Address{Address: "reports@example.com"}, SMTP: SMTPSettings{Host: "mail.example.com",
		Auth: SMTPAuth{Method: AuthOAuth2, OAuth2: OAuth2{ClientID: "app", ClientSecret: stored, TokenURL: "https://id.example/token", Scopes: []string{"a"}}}}})
}

func activeGraph() *Settings {
	return complete(&Settings{Kind: KindMicrosoft365, Sender: mail.Address{Address: "reports@example.com"},
		Microsoft365: Microsoft365Settings{TenantID: aGUID, ClientID: aGUID, ClientSecret: stored}})
}

func activeCertificate() *Settings {
	s := activeGraph()
	s.Microsoft365.ClientSecret = ""
	s.Microsoft365.CertificatePEM, s.Microsoft365.PrivateKeyPEM = rsaPair().certificate, Secret(rsaPair().key)
	return s
}

func activeFederated() *Settings {
	s := activeGraph()
	s.Microsoft365.ClientSecret, s.Microsoft365.FederatedTokenFile = "", "/run/token"
	return s
}

func complete(s *Settings) *Settings {
	s.Defaults()
	return s
}

// takeOverCase sends what is shown of active settings back, with a change.
type takeOverCase struct {
	active func() *Settings
	change func(*Settings)
	// fields of the problems, and what the first says; none if all is taken over.
	fields, says string
}

func smtp(change func(*SMTPSettings)) func(*Settings) {
	return func(s *Settings) { change(&s.SMTP) }
}

func oauth2(change func(*OAuth2)) func(*Settings) {
	return func(s *Settings) { change(&s.SMTP.Auth.OAuth2) }
}

func graph(change func(*Microsoft365Settings)) func(*Settings) {
	return func(s *Settings) { change(&s.Microsoft365) }
}

const (
	password      = "/smtp/auth/password"
	oauthSecret   = "/smtp/auth/oauth2/client_secret"
	graphSecret   = "/microsoft365/client_secret"
	privateKey    = "/microsoft365/private_key_pem"
	certificate   = "/microsoft365/certificate_pem"
	toAnother     = "must be given again, as "
	neverToServer = "has changed: a stored one is never sent to another server"
)

var takeOverCases = map[string]takeOverCase{
	"password: nothing":               {activeBasic, func(*Settings) {}, "", ""},
	"password: its placeholder":       {activeBasic, smtp(func(s *SMTPSettings) { s.Auth.Password = Redacted }), "", ""},
	"password: no method":             {activeBasic, smtp(func(s *SMTPSettings) { s.Auth.Method = "" }), "", ""},
	"password: another name":          {activeBasic, func(s *Settings) { s.Sender.Name = "Reports" }, "", ""},
	"password: another sender":        {activeBasic, func(s *Settings) { s.Sender.Address = "news@example.com" }, "", ""},
	"password: other limits":          {activeBasic, func(s *Settings) { s.Limits.MessagesPerMinute = 3 }, "", ""},
	"password: another host":          {activeBasic, smtp(func(s *SMTPSettings) { s.Host = "mail.example.org" }), password, toAnother + "host " + neverToServer},
	"password: another port":          {activeBasic, smtp(func(s *SMTPSettings) { s.Port = 2525 }), password, toAnother + "port " + neverToServer},
	"password: another user name":     {activeBasic, smtp(func(s *SMTPSettings) { s.Auth.Username = "other" }), password, toAnother + "username has changed"},
	"password: no account":            {activeBasic, smtp(func(s *SMTPSettings) { s.Auth = SMTPAuth{} }), "", ""},
	"password: the sender's":          {activeSender, func(*Settings) {}, "", ""},
	"password: the sender's, by name": {activeSender, smtp(func(s *SMTPSettings) { s.Auth.Username = "reports@example.com" }), "", ""},
	"password: another sender's": {activeSender, func(s *Settings) { s.Sender.Address = "news@example.com" }, password,
		"the sender's address, which is the user name, has changed"},
	"password: method, no name": {activeBasic, smtp(func(s *SMTPSettings) { s.Auth.Username, s.Auth.Method = "", AuthBasic }), password,
		"the sender's address, which is the user name, has changed"},
	"password: another CA":       {activeBasic, smtp(func(s *SMTPSettings) { s.CAPEM = rsaPair().certificate }), password, "ca_pem has changed"},
	"password: TLS at that port": {activeBasic, smtp(func(s *SMTPSettings) { s.Security = SecurityTLS }), "", ""},
	"password: in the clear": {activeBasic, smtp(func(s *SMTPSettings) { s.Security, s.Auth.AllowCleartext = SecurityNone, true }), password,
		"security is none now"},
	"password: everything, with the placeholder": {activeBasic, smtp(func(s *SMTPSettings) { s.Host, s.Port, s.Auth.Password = "other", 1, Redacted }),
		password, toAnother + "host"},

	"OAuth 2.0: nothing":         {activeOAuth2, func(*Settings) {}, "", ""},
	"OAuth 2.0: its placeholder": {activeOAuth2, oauth2(func(o *OAuth2) { o.ClientSecret = Redacted }), "", ""},
	"OAuth 2.0: other scopes":    {activeOAuth2, oauth2(func(o *OAuth2) { o.Scopes = []string{"b"} }), "", ""},
	"OAuth 2.0: another host":    {activeOAuth2, smtp(func(s *SMTPSettings) { s.Host = "mail.example.org" }), oauthSecret, toAnother + "host " + neverToServer},
	"OAuth 2.0: another port":    {activeOAuth2, smtp(func(s *SMTPSettings) { s.Port = 465 }), oauthSecret, toAnother + "port " + neverToServer},
	"OAuth 2.0: another CA":      {activeOAuth2, smtp(func(s *SMTPSettings) { s.CAPEM = rsaPair().certificate }), oauthSecret, "ca_pem has changed"},
	"OAuth 2.0: another address": {activeOAuth2, oauth2(func(o *OAuth2) { o.TokenURL = "https://id.example.org/token" }), oauthSecret, toAnother + "token_url " + neverToServer},
	"OAuth 2.0: another app":     {activeOAuth2, oauth2(func(o *OAuth2) { o.ClientID = "other" }), oauthSecret, "client_id has changed"},
	"OAuth 2.0: in the clear": {activeOAuth2, smtp(func(s *SMTPSettings) { s.Security, s.Auth.AllowCleartext = SecurityNone, true }), oauthSecret,
		"security is none now"},
	"OAuth 2.0: another provider": {activeOAuth2, oauth2(func(o *OAuth2) {
		*o = OAuth2{Provider: OAuthMicrosoft, TenantID: "contoso.com", ClientID: aGUID}
	}), oauthSecret, toAnother + "token_url"},
	"OAuth 2.0: by name":         {activeOAuth2, oauth2(func(o *OAuth2) { o.Provider = "other" }), oauthSecret, "provider " + neverToServer},
	"OAuth 2.0: a tenant":        {activeOAuth2, oauth2(func(o *OAuth2) { o.TenantID = "contoso.com" }), oauthSecret + " /smtp/auth/oauth2/tenant_id", "tenant_id has changed"},
	"from basic to OAuth 2.0":    {activeBasic, smtp(func(s *SMTPSettings) { s.Auth = activeOAuth2().SMTP.Auth; s.Auth.OAuth2.ClientSecret = "" }), oauthSecret, "is missing"},
	"from OAuth 2.0 to basic":    {activeOAuth2, smtp(func(s *SMTPSettings) { s.Auth = SMTPAuth{Method: AuthBasic} }), password, "is missing"},
	"from OAuth 2.0 to redacted": {activeOAuth2, smtp(func(s *SMTPSettings) { s.Auth = SMTPAuth{Password: Redacted} }), password, "is not the password but its placeholder"},

	"Graph: nothing":           {activeGraph, func(*Settings) {}, "", ""},
	"Graph: its placeholder":   {activeGraph, graph(func(s *Microsoft365Settings) { s.ClientSecret = Redacted }), "", ""},
	"Graph: what it saves":     {activeGraph, graph(func(s *Microsoft365Settings) { s.SaveToSentItems, s.VerifySends = true, true }), "", ""},
	"Graph: another sender":    {activeGraph, func(s *Settings) { s.Sender.Address = "news@example.com" }, "", ""},
	"Graph: another login":     {activeGraph, graph(func(s *Microsoft365Settings) { s.LoginURL = "https://login.example" }), graphSecret, toAnother + "login_url " + neverToServer},
	"Graph: another host":      {activeGraph, graph(func(s *Microsoft365Settings) { s.GraphURL = "https://graph.example" }), graphSecret, toAnother + "graph_url " + neverToServer},
	"Graph: another cloud":     {activeGraph, graph(func(s *Microsoft365Settings) { s.Cloud = "gcch" }), graphSecret, toAnother + "cloud " + neverToServer},
	"Graph: another tenant":    {activeGraph, graph(func(s *Microsoft365Settings) { s.TenantID = "contoso.com" }), graphSecret, "tenant_id has changed"},
	"Graph: another app":       {activeGraph, graph(func(s *Microsoft365Settings) { s.ClientID = strings.ToLower(aGUID) }), graphSecret, "client_id has changed"},
	"Graph: placeholder, app":  {activeGraph, graph(func(s *Microsoft365Settings) { s.ClientID, s.ClientSecret = "x", Redacted }), graphSecret + " /microsoft365/client_id", "client_id has changed"},
	"key: nothing":             {activeCertificate, func(*Settings) {}, "", ""},
	"key: neither":             {activeCertificate, graph(func(s *Microsoft365Settings) { s.CertificatePEM = "" }), "", ""},
	"key: its placeholder":     {activeCertificate, graph(func(s *Microsoft365Settings) { s.PrivateKeyPEM = Redacted }), "", ""},
	"key: other ends of lines": {activeCertificate, graph(func(s *Microsoft365Settings) { s.CertificatePEM = strings.ReplaceAll(s.CertificatePEM, "\n", "\r\n") }), "", ""},
	"key: another certificate": {activeCertificate, graph(func(s *Microsoft365Settings) { s.CertificatePEM = otherPair().certificate }), privateKey, "certificate_pem has changed"},
	"key: another tenant":      {activeCertificate, graph(func(s *Microsoft365Settings) { s.TenantID = "contoso.com" }), privateKey, "tenant_id has changed"},
	"key: neither, and another login": {activeCertificate, graph(func(s *Microsoft365Settings) { s.CertificatePEM, s.LoginURL = "", "https://login.example" }),
		privateKey, toAnother + "login_url"},
	"file: nothing":             {activeFederated, func(*Settings) {}, "", ""},
	"file: none":                {activeFederated, graph(func(s *Microsoft365Settings) { s.FederatedTokenFile = "" }), "", ""},
	"from a secret to a key":    {activeGraph, graph(func(s *Microsoft365Settings) { s.CertificatePEM = rsaPair().certificate }), privateKey, "is missing"},
	"from a key to a secret":    {activeCertificate, graph(func(s *Microsoft365Settings) { s.CertificatePEM, s.ClientSecret = "", Redacted }), graphSecret, "is not the secret but its placeholder"},
	"from a key to both":        {activeCertificate, graph(func(s *Microsoft365Settings) { s.ClientSecret = Redacted }), graphSecret + " " + privateKey + " " + certificate, "placeholder"},
	"from a file to a key":      {activeFederated, graph(func(s *Microsoft365Settings) { s.FederatedTokenFile, s.PrivateKeyPEM = "", Redacted }), certificate + " " + privateKey, "is missing"},
	"from SMTP to Graph":        {activeBasic, func(s *Settings) { *s = activeGraph().Public() }, graphSecret, "is missing"},
	"faults of all sorts":       {activeBasic, smtp(func(s *SMTPSettings) { s.Host, s.Port, s.MinTLS = "a b", 70000, "2" }), password + " /smtp/host /smtp/port /smtp/min_tls", "host"},
	"an account that is no use": {activeBasic, smtp(func(s *SMTPSettings) { s.Auth.Method, s.Auth.Password = AuthNone, Redacted }), "/smtp/auth/method", "is none, but an account is given"},
}

func TestTakeOver(t *testing.T) {
	for name, v := range takeOverCases {
		t.Run(name, func(t *testing.T) {
			before := v.active()
			sent := before.Public()
			v.change(&sent)
			sent.Defaults()
			problems := Check(&sent, before)
			if fields := fieldsOf(t, "", problems); fields != v.fields {
				t.Fatalf("problems at %q, want %q: %v", fields, v.fields, problems)
			}
			if !reflect.DeepEqual(before, v.active()) {
				t.Error("the active settings were changed")
			}
			if v.fields != "" {
				if !strings.Contains(problems[0].Reason, v.says) {
					t.Errorf("%q does not say %q", problems[0].Reason, v.says)
				}
				for at, secret := range secrets(&sent) {
					if !leftOut(*secret) {
						t.Errorf("%s was taken over", at)
					}
				}
				return
			}
			if sent.SMTP.Auth.Method == AuthNone {
				return
			}
			if !slices.Equal(sent.Secrets(), before.Secrets()) || reflect.DeepEqual(sent, before.Public()) && before.Secrets() != nil {
				t.Errorf("secrets %v, want %v", sent.Secrets(), before.Secrets())
			}
			if sent.SMTP.Auth.Password != before.SMTP.Auth.Password || sent.SMTP.Auth.OAuth2.ClientSecret != before.SMTP.Auth.OAuth2.ClientSecret ||
				sent.Microsoft365.ClientSecret != before.Microsoft365.ClientSecret || sent.Microsoft365.PrivateKeyPEM != before.Microsoft365.PrivateKeyPEM ||
				sent.Microsoft365.FederatedTokenFile != before.Microsoft365.FederatedTokenFile {
				t.Error("not what was stored")
			}
		})
	}
}

func TestWhatIsGivenIsNeverReplaced(t *testing.T) {
	for _, active := range []func() *Settings{activeBasic, activeOAuth2, activeGraph, activeCertificate} {
		before := active()
		for _, at := range before.Secrets() {
			sent := active()
			for other, secret := range secrets(sent) {
				if other == at {
					*secret = "given"
				}
			}
			sent.SMTP.Host, sent.Microsoft365.TenantID = "elsewhere.example", "contoso.com"
			if problems := sent.TakeOver(before); problems != nil {
				t.Errorf("%s: %v", at, problems)
			}
			for other, secret := range secrets(sent) {
				if other == at && *secret != "given" {
					t.Errorf("%s was replaced", at)
				}
			}
		}
	}
}

func TestThereIsNothingToTakeOver(t *testing.T) {
	for name, before := range map[string]*Settings{"nothing active": nil, "none": complete(&Settings{}), "another kind": activeGraph(),
		"no account": complete(&Settings{Kind: KindSMTP, SMTP: SMTPSettings{Host: "mail.example.com"}})} {
		for _, secret := range []Secret{"", Redacted} {
			sent := activeBasic()
			sent.SMTP.Auth.Password = secret
			want := *sent
			if problems := sent.TakeOver(before); problems != nil || !reflect.DeepEqual(*sent, want) {
				t.Errorf("%s, %q: %v", name, secret, problems)
			}
			if got := fieldsOf(t, "", Check(sent, before)); got != password {
				t.Errorf("%s, %q: problems at %s", name, secret, got)
			}
		}
	}
}

// Settings that were kept before Validate refused it, or Used took it out, may have more than they use.
func TestWhatWasNotInUseIsNotTakenOver(t *testing.T) {
	for name, v := range map[string]struct{ sent, before func(*Settings) }{
		"another method": {
			func(s *Settings) { s.SMTP.Auth.Method = AuthOAuth2 },
			func(s *Settings) { s.SMTP.Auth.Method = AuthBasic }},
		"another kind": {
			func(s *Settings) { s.SMTP.Auth.Method = AuthBasic },
			func(s *Settings) { s.SMTP.Auth.Method, s.Kind = AuthBasic, KindMicrosoft365 }},
		"nothing of the kind, and another host": {
			func(s *Settings) { s.SMTP.Auth.Method, s.SMTP.Host = AuthBasic, "elsewhere.example" },
			func(s *Settings) { s.SMTP.Auth.Method, s.SMTP.Auth.Password = AuthBasic, "" }},
		"a key beside a new one": {
			func(s *Settings) { s.Kind, s.Microsoft365.PrivateKeyPEM = KindMicrosoft365, "given" },
			func(s *Settings) {
				s.Kind, s.Microsoft365.CertificatePEM, s.Microsoft365.PrivateKeyPEM = KindMicrosoft365, "certificate", stored
			}},
		"one of two ways": {
			func(s *Settings) { s.Kind = KindMicrosoft365 },
			func(s *Settings) {
				s.Kind, s.Microsoft365.ClientSecret, s.Microsoft365.FederatedTokenFile = KindMicrosoft365, stored, "/run/token"
			}},
	} {
		sent, before := &Settings{Kind: KindSMTP}, &Settings{Kind: KindSMTP}
		before.SMTP.Auth.Password, before.SMTP.Auth.OAuth2.ClientSecret = stored, stored
		v.sent(sent)
		v.before(before)
		want := *sent
		if problems := sent.TakeOver(before); problems != nil || !reflect.DeepEqual(*sent, want) {
			t.Errorf("%s: %v, %v", name, problems, sent.Secrets())
		}
	}
}

func TestUsedPublicAndSecrets(t *testing.T) {
	for kind, want := range map[Kind]struct {
		parts   []string
		secrets []string
	}{
		KindNone:         {[]string{"kind", "allowed_senders"}, nil},
		"pigeon":         {[]string{"kind", "allowed_senders"}, nil},
		KindSMTP:         {[]string{"kind", "sender", "allowed_senders", "smtp", "limits", "tenant_limits"}, []string{password, oauthSecret}},
		KindMicrosoft365: {[]string{"kind", "sender", "allowed_senders", "microsoft365", "limits", "tenant_limits"}, []string{graphSecret, privateKey}},
	} {
		s, _ := filled(t)
		s.Kind = kind
		before, _ := filled(t)
		before.Kind = kind
		if got := s.Secrets(); !slices.Equal(got, want.secrets) {
			t.Errorf("%s: secrets %v, want %v", kind, got, want.secrets)
		}
		used, public := s.Used(), s.Public()
		if !reflect.DeepEqual(s, before) {
			t.Errorf("%s: the original was changed", kind)
		}
		for name, got := range map[string]Settings{"Used": used, "Public": public} {
			text, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			var parts map[string]any
			if err := json.Unmarshal(text, &parts); err != nil {
				t.Fatal(err)
			}
			for _, part := range want.parts {
				if parts[part] == nil {
					t.Errorf("%s of %s has no %s", name, kind, part)
				}
			}
			if len(parts) != len(want.parts) {
				t.Errorf("%s of %s: %s", name, kind, text)
			}
			if shows := strings.Contains(string(text), "redacted"); shows != (name == "Used" && want.secrets != nil) {
				t.Errorf("%s of %s: %s", name, kind, text)
			}
		}
		for at, secret := range secrets(&public) {
			if *secret != "" {
				t.Errorf("%s: Public has %s", kind, at)
			}
		}
		for _, list := range [][]string{public.AllowedSenders, used.AllowedSenders, public.SMTP.Auth.OAuth2.Scopes, used.SMTP.Auth.OAuth2.Scopes} {
			if len(list) > 0 {
				list[0] = "changed"
			}
		}
		if !reflect.DeepEqual(s, before) {
			t.Errorf("%s: the copy shares a list", kind)
		}
	}
}

func TestSame(t *testing.T) {
	for name, v := range map[string]struct {
		change func(*Settings)
		want   bool
	}{
		"nothing":                  {func(*Settings) {}, true},
		"limits":                   {func(s *Settings) { s.Limits.Concurrency, s.TenantLimits.Concurrency = 1, 2 }, true},
		"allowed senders":          {func(s *Settings) { s.AllowedSenders = []string{"@example.com"} }, true},
		"a list without entries":   {func(s *Settings) { s.SMTP.Auth.OAuth2.Scopes = []string{} }, true},
		"what is not used":         {func(s *Settings) { s.Microsoft365.ClientSecret = "x" }, true},
		"the sender's name":        {func(s *Settings) { s.Sender.Name = "x" }, false},
		"a secret":                 {func(s *Settings) { s.SMTP.Auth.Password = "x" }, false},
		"a secret taken out":       {func(s *Settings) { s.SMTP.Auth.Password = "" }, false},
		"a scope":                  {func(s *Settings) { s.SMTP.Auth.OAuth2.Scopes = []string{"x"} }, false},
		"the kind":                 {func(s *Settings) { s.Kind = KindNone }, false},
		"the port, by its default": {func(s *Settings) { s.SMTP.Port = 0 }, true},
		"the port":                 {func(s *Settings) { s.SMTP.Port = 25 }, false},
	} {
		a, b := activeBasic(), activeBasic()
		v.change(b)
		if a.Same(b) != v.want || b.Same(a) != v.want {
			t.Errorf("%s: %v, %v", name, a.Same(b), b.Same(a))
		}
	}
}
