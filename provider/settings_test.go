package provider

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/postroom/postroom/mail"
)

func TestSecretShowsNothing(t *testing.T) {
	const secret = "hunter2"
	s := Settings{Kind: KindSMTP}
	s.SMTP.Auth.Password = secret
	s.SMTP.Auth.OAuth2.ClientSecret = secret
	s.Microsoft365.ClientSecret = secret
	s.Microsoft365.PrivateKeyPEM = secret
	check := func(how, text string) {
		t.Helper()
		if strings.Contains(text, secret) || strings.Contains(text, "68756e74657232") {
			t.Errorf("%s: %s", how, text)
		}
		if !strings.Contains(text, "redacted") {
			t.Errorf("%s does not say that something is there: %s", how, text)
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10s", "%t"} {
		check(verb, fmt.Sprintf(verb, Secret(secret)))
		check(verb+" of settings", fmt.Sprintf(verb, s))
		check(verb+" of a pointer", fmt.Sprintf(verb, &s))
	}
	check("print", fmt.Sprint(Secret(secret)))
	j, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	check("JSON", string(j))
	y, err := yaml.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	check("YAML", string(y))
	for name, handler := range map[string]func(*bytes.Buffer) slog.Handler{
		"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"json": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var b bytes.Buffer
		slog.New(handler(&b)).Info("x", "secret", Secret(secret), "settings", s)
		check("slog "+name, b.String())
	}
	if Secret(secret).Reveal() != secret {
		t.Error("Reveal does not give the secret")
	}
	if got := fmt.Sprintf("%v|%s", Secret(""), Secret("")); got != "|" {
		t.Errorf("an empty secret shows as %q", got)
	}
}

func TestSettingsAreReadByTheirNames(t *testing.T) {
	const text = `
kind: smtp
sender: {address: reports@example.com, name: Reports}
smtp: {host: mail.example.com, port: 587, security: starttls, min_tls: "1.2", ca_pem: "",
       auth: {method: oauth2, username: "u", password: "p", allow_cleartext: true,
              oauth2: {provider: microsoft, tenant_id: "t", client_id: "c", client_secret: "s", token_url: "x", scopes: [a]}}}
microsoft365: {tenant_id: "", client_id: "", client_secret: "", certificate_pem: "", private_key_pem: "", federated_token_file: "",
               cloud: global, login_url: "", graph_url: "", save_to_sent_items: false, verify_sends: false}
limits: {concurrency: 3, messages_per_minute: 30, requests_per_10m: 10000, recipients_per_day: 10000,
         upload_bytes_per_5m: 157286400, recipients_per_message: 500, message_bytes: 36700160}
`
	var fromYAML, fromJSON Settings
	if err := yaml.UnmarshalWithOptions([]byte(text), &fromYAML, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if fromYAML.SMTP.Auth.Password.Reveal() != "p" || fromYAML.SMTP.Auth.OAuth2.ClientSecret.Reveal() != "s" || fromYAML.Limits.MessageBytes != 36700160 ||
		fromYAML.Sender.Name != "Reports" || fromYAML.SMTP.Auth.OAuth2.Scopes[0] != "a" || !fromYAML.SMTP.Auth.AllowCleartext {
		t.Errorf("%+v", fromYAML)
	}
	j, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(j))
	d.DisallowUnknownFields()
	if err := d.Decode(&fromJSON); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprintf("%#v", fromJSON) != fmt.Sprintf("%#v", fromYAML) {
		t.Errorf("JSON gives %+v, YAML %+v", fromJSON, fromYAML)
	}
}

func TestDefaults(t *testing.T) {
	for _, v := range []struct {
		security Security
		port     int
	}{{SecurityNone, 25}, {SecurityStartTLS, 587}, {"", 587}, {SecurityTLS, 465}} {
		s := Settings{Kind: KindSMTP, SMTP: SMTPSettings{Security: v.security}}
		s.Defaults()
		if s.SMTP.Port != v.port || s.SMTP.MinTLS != "1.2" || s.SMTP.Auth.Method != AuthNone {
			t.Errorf("%q: %+v", v.security, s.SMTP)
		}
	}

	var none Settings
	none.Defaults()
	if none.Kind != KindNone || len(none.Validate()) != 0 {
		t.Errorf("%+v: %v", none, none.Validate())
	}

	s := Settings{Kind: KindSMTP, Sender: mail.Address{Address: "Reports <reports@example.com>"}, SMTP: SMTPSettings{Host: "mx.example", Port: 2525}}
	s.SMTP.Auth.Password = "x"
	s.Defaults()
	once := s
	s.Defaults()
	if fmt.Sprint(s) != fmt.Sprint(once) {
		t.Error("the second time changes something")
	}
	if s.Sender != (mail.Address{Address: "reports@example.com", Name: "Reports"}) || s.SMTP.Port != 2525 || s.SMTP.Auth.Method != AuthBasic {
		t.Errorf("%+v", s)
	}
	if s.Limits != (Limits{Concurrency: 10}) {
		t.Errorf("limits of a server of which nothing is known: %+v", s.Limits)
	}
}

func TestDefaultLimitsOfMicrosoft(t *testing.T) {
	s := Settings{Kind: KindSMTP, SMTP: SMTPSettings{Host: "SMTP.office365.com"}, Limits: Limits{RecipientsPerDay: NoLimit, MessagesPerMinute: 10}}
	s.Defaults()
	want := Limits{Concurrency: 3, MessagesPerMinute: 10, RecipientsPerDay: NoLimit, RecipientsPerMessage: 500, MessageBytes: 36700160}
	if s.Limits != want {
		t.Errorf("SMTP: %+v, want %+v", s.Limits, want)
	}
	s = Settings{Kind: KindMicrosoft365}
	s.Defaults()
	want = Limits{3, 30, 10000, 10000, 157286400, 500, 36700160}
	if s.Limits != want {
		t.Errorf("Graph: %+v, want %+v", s.Limits, want)
	}
}

func TestValidateTellsAllFaultsAtOnce(t *testing.T) {
	s := Settings{
		Kind:   KindSMTP,
		Sender: mail.Address{Address: "nobody", Name: "a\r\nb"},
		SMTP: SMTPSettings{Host: "https://mx.example", Port: 70000, Security: "ssl", MinTLS: "3", CAPEM: "no",
			Auth: SMTPAuth{Method: "magic"}},
		Limits: Limits{Concurrency: -1, MessagesPerMinute: -2, MessageBytes: -7},
	}
	s.Defaults()
	var fields []string
	for _, p := range s.Validate() {
		fields = append(fields, p.Field)
		if p.Reason == "" {
			t.Errorf("%s without a reason", p.Field)
		}
	}
	want := "/sender/address /sender/name /smtp/host /smtp/port /smtp/security /smtp/min_tls /smtp/ca_pem /smtp/auth/method " +
		"/limits/concurrency /limits/messages_per_minute /limits/message_bytes"
	if got := strings.Join(fields, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestValidate(t *testing.T) {
	for _, v := range []struct {
		name   string
		change func(*Settings)
		field  string // of the one fault; empty for none
	}{
		{"good", func(*Settings) {}, ""},
		{"IP address", func(s *Settings) { s.SMTP.Host = "::1" }, ""},
		{"basic over TLS", func(s *Settings) { s.SMTP.Auth = SMTPAuth{Method: AuthBasic, Password: "x"} }, ""},
		{"basic in clear text", func(s *Settings) {
			s.SMTP.Security = SecurityNone
			s.SMTP.Auth = SMTPAuth{Method: AuthBasic, Password: "x"}
		}, "/smtp/auth/allow_cleartext"},
		{"basic in clear text on loopback", func(s *Settings) {
			s.SMTP.Security, s.SMTP.Host = SecurityNone, "127.0.0.1"
			s.SMTP.Auth = SMTPAuth{Method: AuthBasic, Password: "x"}
		}, "/smtp/auth/allow_cleartext"},
		{"basic in clear text, allowed", func(s *Settings) {
			s.SMTP.Security = SecurityNone
			s.SMTP.Auth = SMTPAuth{Method: AuthBasic, Password: "x", AllowCleartext: true}
		}, ""},
		{"no password", func(s *Settings) { s.SMTP.Auth.Method = AuthBasic }, "/smtp/auth/password"},
		{"placeholder", func(s *Settings) { s.SMTP.Auth.Password = Redacted }, "/smtp/auth/password"},
		{"NUL", func(s *Settings) { s.SMTP.Auth.Password = "a\x00b" }, "/smtp/auth/password"},
		{"account without method", func(s *Settings) { s.SMTP.Auth = SMTPAuth{Method: AuthNone, Password: "x"} }, "/smtp/auth/method"},
		{"user name with CR", func(s *Settings) { s.SMTP.Auth = SMTPAuth{Username: "a\rb", Password: "x"} }, "/smtp/auth/username"},
		{"oauth2", func(s *Settings) {
			s.SMTP.Auth = SMTPAuth{Method: AuthOAuth2, OAuth2: OAuth2{ClientID: "app", ClientSecret: "s"}}
		}, "/smtp/auth/oauth2/token_url"},
		{"microsoft365", func(s *Settings) {
			s.Kind = KindMicrosoft365
			s.Microsoft365 = Microsoft365Settings{ClientID: "3f7e5c1a-1111-4222-8333-444455556666", ClientSecret: "s"}
		}, "/microsoft365/tenant_id"},
		{"unknown kind", func(s *Settings) { s.Kind = "pigeon" }, "/kind"},
		{"host with port", func(s *Settings) { s.SMTP.Host = "mx.example:25" }, "/smtp/host"},
		{"no host", func(s *Settings) { s.SMTP.Host = "" }, "/smtp/host"},
		{"no sender", func(s *Settings) { s.Sender = mail.Address{} }, "/sender/address"},
		{"two names", func(s *Settings) { s.Sender = mail.Address{Address: "A <a@example.com>", Name: "B"} }, "/sender/address"},
		{"half a certificate", func(s *Settings) { s.SMTP.CAPEM = "-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n" }, "/smtp/ca_pem"},
		{"no limit", func(s *Settings) { s.Limits.MessagesPerMinute = NoLimit }, ""},
		{"too much at once", func(s *Settings) { s.Limits.Concurrency = 5000 }, "/limits/concurrency"},
	} {
		s := Settings{Kind: KindSMTP, Sender: mail.Address{Address: "reports@example.com"}, SMTP: SMTPSettings{Host: "mx.example"}}
		v.change(&s)
		s.Defaults()
		problems := s.Validate()
		switch {
		case v.field == "" && len(problems) > 0:
			t.Errorf("%s: %v", v.name, problems)
		case v.field != "" && (len(problems) != 1 || problems[0].Field != v.field):
			t.Errorf("%s: got %v, want one at %s", v.name, problems, v.field)
		}
	}
}
