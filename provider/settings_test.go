package provider

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
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

func TestASenderIsTakenApart(t *testing.T) {
	for written, want := range map[mail.Address]mail.Address{
		{Address: "reports@Example.com"}:                             {Address: "reports@example.com"},
		{Address: "Reports <reports@example.com>"}:                   {Address: "reports@example.com", Name: "Reports"},
		{Address: `"Reports, daily" <reports@example.com>`}:          {Address: "reports@example.com", Name: "Reports, daily"},
		{Address: `"The \"Daily\" \\ Report" <reports@example.com>`}: {Address: "reports@example.com", Name: `The "Daily" \ Report`},
		{Address: `"a@b.example" <reports@example.com>`}:             {Address: "reports@example.com", Name: "a@b.example"},
		{Address: "Büro <reports@bücher.example>"}:                   {Address: "reports@xn--bcher-kva.example", Name: "Büro"},
		{Address: "=?utf-8?q?B=C3=BCro?= <reports@example.com>"}:     {Address: "reports@example.com", Name: "Büro"},
		{Address: "<reports@example.com>", Name: `Named "apart"`}:    {Address: "reports@example.com", Name: `Named "apart"`},
		{Address: `Reports, daily <reports@example.com>`}:            {Address: `Reports, daily <reports@example.com>`},
		{Address: `"Reports <reports@example.com>`}:                  {Address: `"Reports <reports@example.com>`},
		{Address: "Reports <reports@example.com>", Name: "Other"}:    {Address: "Reports <reports@example.com>", Name: "Other"},
	} {
		s := Settings{Kind: KindSMTP, Sender: written, SMTP: SMTPSettings{Host: "mail.example.com"}}
		s.Defaults()
		if s.Sender != want {
			t.Errorf("%+v is taken for %+v, want %+v", written, s.Sender, want)
		}
		if faulty := len(s.Validate()) > 0; faulty != strings.Contains(want.Address, "<") {
			t.Errorf("%+v: %v", written, s.Validate())
		}
	}
}

func TestAllowedSendersBecomeCanonical(t *testing.T) {
	written := []string{"Reports@EXAMPLE.com", "@Bücher.example", "no sender"}
	s := Settings{AllowedSenders: written}
	s.Defaults()
	if want := []string{"Reports@example.com", "@xn--bcher-kva.example", "no sender"}; !slices.Equal(s.AllowedSenders, want) {
		t.Errorf("got %q, want %q", s.AllowedSenders, want)
	}
	if written[0] != "Reports@EXAMPLE.com" {
		t.Error("the list was written to")
	}
	if !mail.Senders(s.AllowedSenders).Allow("anyone@BÜCHER.example") {
		t.Error("mail.Senders does not know the form")
	}
	empty := Settings{AllowedSenders: []string{}}
	empty.Defaults()
	if empty.AllowedSenders != nil {
		t.Error("an empty list is not the same as none")
	}
}

func TestAnUnknownKindIsToldAllThereAre(t *testing.T) {
	s := Settings{Kind: "pigeon"}
	for _, kind := range []Kind{KindNone, KindSMTP, KindMicrosoft365} {
		if problems := s.Validate(); !strings.Contains(problems[0].Reason, string(kind)) {
			t.Errorf("%s is missing: %v", kind, problems)
		}
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
		{"microsoft365 with a bad limit", func(s *Settings) {
			s.Kind = KindMicrosoft365
			s.Microsoft365 = Microsoft365Settings{TenantID: aGUID, ClientID: aGUID, ClientSecret: "s"}
			s.Limits.UploadBytesPer5m = 1<<40 + 1
		}, "/limits/upload_bytes_per_5m"},
		{"oauth2 by a provider with CR", func(s *Settings) {
			s.SMTP.Auth = SMTPAuth{Method: AuthOAuth2, OAuth2: OAuth2{Provider: "a\rb", ClientID: "app", ClientSecret: "s", TokenURL: "https://id.example"}}
		}, "/smtp/auth/oauth2/provider"},
		{"client secret without its method", func(s *Settings) {
			s.SMTP.Auth = SMTPAuth{Method: AuthBasic, Password: "x", OAuth2: OAuth2{ClientSecret: "s"}}
		}, "/smtp/auth/oauth2/client_secret"},
		{"client secret without any method", func(s *Settings) { s.SMTP.Auth.OAuth2.ClientSecret = Redacted }, "/smtp/auth/oauth2/client_secret"},
		{"unknown kind", func(s *Settings) { s.Kind = "pigeon" }, "/kind"},
		{"host with port", func(s *Settings) { s.SMTP.Host = "mx.example:25" }, "/smtp/host"},
		{"host with path", func(s *Settings) { s.SMTP.Host = "mx.example/25" }, "/smtp/host"},
		{"IP address and port", func(s *Settings) { s.SMTP.Host = "[::1]:25" }, "/smtp/host"},
		{"many colons", func(s *Settings) { s.SMTP.Host = "a:b:c" }, "/smtp/host"},
		{"IP address with zone", func(s *Settings) { s.SMTP.Host = "fe80::1%eth0" }, ""},
		{"container", func(s *Settings) { s.SMTP.Host = "mail_relay-1" }, ""},
		{"host with a dot at its end", func(s *Settings) { s.SMTP.Host = "MX.example." }, ""},
		{"two dots", func(s *Settings) { s.SMTP.Host = "mx..example" }, "/smtp/host"},
		{"international host", func(s *Settings) { s.SMTP.Host = "mail.bücher.example" }, "/smtp/host"},
		{"host with a new line", func(s *Settings) { s.SMTP.Host = "mx.example\n" }, "/smtp/host"},
		{"long host", func(s *Settings) { s.SMTP.Host = strings.Repeat("abcdefg.", 32) + "example" }, "/smtp/host"},
		{"long label", func(s *Settings) { s.SMTP.Host = strings.Repeat("a", 64) + ".example" }, "/smtp/host"},
		{"port of tls with starttls", func(s *Settings) { s.SMTP.Port = 465 }, ""},
		{"port of starttls with tls", func(s *Settings) { s.SMTP.Security, s.SMTP.Port = SecurityTLS, 587 }, ""},
		{"port of starttls with none", func(s *Settings) { s.SMTP.Security, s.SMTP.Port = SecurityNone, 587 }, ""},
		{"no host", func(s *Settings) { s.SMTP.Host = "" }, "/smtp/host"},
		{"no sender", func(s *Settings) { s.Sender = mail.Address{} }, "/sender/address"},
		{"two names", func(s *Settings) { s.Sender = mail.Address{Address: "A <a@example.com>", Name: "B"} }, "/sender/address"},
		{"long name", func(s *Settings) { s.Sender.Name = strings.Repeat("a", 257) }, "/sender/name"},
		{"name that is not UTF-8", func(s *Settings) { s.Sender.Name = "a\xff" }, "/sender/name"},
		{"name with a control character of Latin-1", func(s *Settings) { s.Sender.Name = "a\u0085b" }, "/sender/name"},
		{"allowed senders", func(s *Settings) { s.AllowedSenders = []string{"a@example.com", "@example.com", "@Bücher.example"} }, ""},
		{"a sender that is none", func(s *Settings) { s.AllowedSenders = []string{"@example.com", "example.com"} }, "/allowed_senders/1"},
		{"a sender with a name", func(s *Settings) { s.AllowedSenders = []string{"A <a@example.com>"} }, "/allowed_senders/0"},
		{"an empty sender", func(s *Settings) { s.AllowedSenders = []string{""} }, "/allowed_senders/0"},
		{"most senders", func(s *Settings) { s.AllowedSenders = slices.Repeat([]string{"@example.com"}, 1000) }, ""},
		{"too many senders", func(s *Settings) { s.AllowedSenders = slices.Repeat([]string{"example.com"}, 1001) }, "/allowed_senders"},
		{"none with senders", func(s *Settings) { *s = Settings{AllowedSenders: []string{"@example.com"}} }, ""},
		{"none with a sender that is none", func(s *Settings) { *s = Settings{AllowedSenders: []string{"@"}} }, "/allowed_senders/0"},
		{"half a certificate", func(s *Settings) { s.SMTP.CAPEM = "-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n" }, "/smtp/ca_pem"},
		{"no limit", func(s *Settings) { s.Limits.MessagesPerMinute = NoLimit }, ""},
		{"too much at once", func(s *Settings) { s.Limits.Concurrency = 5000 }, "/limits/concurrency"},
		{"less than nothing at once", func(s *Settings) { s.Limits.Concurrency = -2 }, "/limits/concurrency"},
		{"too much at once for all", func(s *Settings) { s.TenantLimits.Concurrency = 100_001 }, "/tenant_limits/concurrency"},
		{"all at once", func(s *Settings) { s.TenantLimits.Concurrency = NoLimit }, ""},
		{"too many messages", func(s *Settings) { s.Limits.MessagesPerMinute = 1_000_001 }, "/limits/messages_per_minute"},
		{"too many requests", func(s *Settings) { s.TenantLimits.RequestsPer10m = 10_000_001 }, "/tenant_limits/requests_per_10m"},
		{"too many recipients", func(s *Settings) { s.Limits.RecipientsPerDay = 1_000_000_001 }, "/limits/recipients_per_day"},
		{"too many in one", func(s *Settings) { s.Limits.RecipientsPerMessage = 100_001 }, "/limits/recipients_per_message"},
		{"too large", func(s *Settings) { s.Limits.MessageBytes = 1<<30 + 1 }, "/limits/message_bytes"},
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
