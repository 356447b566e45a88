package main

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

func TestFlagsAreLaidOverWhatIsActive(t *testing.T) {
	secret := file(t, "secret", testSecret+"\n")
	pem := file(t, "pem", "-----BEGIN X-----\nabc\n-----END X-----\n")
	reports := mail.Address{Address: "reports@x.example", Name: "Reports"}
	senders := []string{"@x.example", "news@y.example"}
	// What was filled in does not count as set: it follows what the flags change.
	smtp := func(change func(*provider.Settings)) *provider.Settings {
		s := *activeSMTP().Settings
		s.SMTP.Port, s.Limits = 0, provider.Limits{MessagesPerMinute: 30, RecipientsPerDay: provider.NoLimit}
		change(&s)
		return &s
	}
	microsoft := func(change func(*provider.Microsoft365Settings)) *provider.Settings {
		s := *activeMicrosoft365().Settings
		s.Limits = provider.Limits{}
		change(&s.Microsoft365)
		return &s
	}
	for name, test := range map[string]struct {
		active admin.Provider
		args   string
		want   *provider.Settings
	}{
		"one":                           {activeSMTP(), "--host mail2.x.example", smtp(func(s *provider.Settings) { s.SMTP.Host = "mail2.x.example" })},
		"the port follows the security": {activeSMTP(), "--security tls", smtp(func(s *provider.Settings) { s.SMTP.Security = provider.SecurityTLS })},
		"a port of its own":             {activeSMTP(), "--port 2525", smtp(func(s *provider.Settings) { s.SMTP.Port = 2525 })},
		"password":                      {activeSMTP(), "--password-file " + secret, smtp(func(s *provider.Settings) { s.SMTP.Auth.Password = testSecret })},
		"sender and who else": {activeSMTP(), "--sender news@z.example --allow-sender @z.example --allow-sender @y.example", smtp(func(s *provider.Settings) {
			s.Sender, s.AllowedSenders = mail.Address{Address: "news@z.example"}, []string{"@z.example", "@y.example"}
		})},
		"certificates": {activeSMTP(), "--ca-file " + pem, smtp(func(s *provider.Settings) { s.SMTP.CAPEM = "-----BEGIN X-----\nabc\n-----END X-----" })},
		"a login in the clear": {activeSMTP(), "--security none --allow-cleartext", smtp(func(s *provider.Settings) {
			s.SMTP.Security, s.SMTP.Auth.AllowCleartext = provider.SecurityNone, true
		})},
		"no login any more": {activeSMTP(), "--auth none", smtp(func(s *provider.Settings) {
			s.SMTP.Auth = provider.SMTPAuth{Method: provider.AuthNone}
		})},
		"OAuth instead of a password": {activeSMTP(), "--auth oauth2 --tenant-id t --client-id c --client-secret-file " + secret, smtp(func(s *provider.Settings) {
			s.SMTP.Auth = provider.SMTPAuth{Method: provider.AuthOAuth2, Username: "reports",
				OAuth2: provider.OAuth2{Provider: "microsoft", TenantID: "t", ClientID: "c", ClientSecret: testSecret}}
		})},
		"another kind": {activeSMTP(), "--kind microsoft365 --sender reports@x.example --tenant-id t --client-id c --verify-sends --client-secret-file " + secret,
			&provider.Settings{Kind: provider.KindMicrosoft365, Sender: mail.Address{Address: "reports@x.example"}, AllowedSenders: senders,
				Microsoft365: provider.Microsoft365Settings{TenantID: "t", ClientID: "c", ClientSecret: testSecret, VerifySends: true}}},
		"the same kind": {activeSMTP(), "--kind smtp --username other", smtp(func(s *provider.Settings) { s.SMTP.Auth.Username = "other" })},
		"a secret instead of a certificate": {activeMicrosoft365(), "--client-secret-file " + secret, microsoft(func(s *provider.Microsoft365Settings) {
			s.CertificatePEM, s.ClientSecret = "", testSecret
		})},
		"a certificate": {activeMicrosoft365(), "--certificate-file " + pem + " --private-key-file " + secret + " --save-to-sent-items=true", microsoft(func(s *provider.Microsoft365Settings) {
			s.CertificatePEM, s.PrivateKeyPEM, s.SaveToSentItems = "-----BEGIN X-----\nabc\n-----END X-----", testSecret, true
		})},
		"from nothing": {admin.Provider{Kind: "none"}, "--kind smtp --host mail.x.example --username u --password-file " + secret,
			&provider.Settings{Kind: provider.KindSMTP, SMTP: provider.SMTPSettings{Host: "mail.x.example",
				Auth: provider.SMTPAuth{Method: provider.AuthBasic, Username: "u", Password: testSecret}}}},
		"OAuth from nothing": {admin.Provider{Kind: "none"}, "--kind smtp --host smtp.office365.com --tenant-id t --client-id c --client-secret-file " + secret,
			&provider.Settings{Kind: provider.KindSMTP, SMTP: provider.SMTPSettings{Host: "smtp.office365.com",
				Auth: provider.SMTPAuth{Method: provider.AuthOAuth2, OAuth2: provider.OAuth2{Provider: "microsoft", TenantID: "t", ClientID: "c", ClientSecret: testSecret}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			f := startProvider(t, test.active)
			f.changed = admin.ProviderChanged{Result: "saved"}
			tells(t, "", append([]string{"provider", "set"}, strings.Fields(test.args)...)...).want(t, 0)
			wantSettings(t, f.settings, test.want)
			f.asked(t, "GET /v1/provider", "PUT /v1/provider")
		})
	}

	f := startProvider(t, activeSMTP())
	f.changed = admin.ProviderChanged{Result: "saved"}
	tells(t, "", "provider", "set", "--sender", "Other Reports <REPORTS@X.example>").want(t, 0)
	if want := (mail.Address{Address: "REPORTS@x.example", Name: "Other Reports"}); f.settings.Sender != want {
		t.Errorf("the sender is %+v", f.settings.Sender)
	}
	tells(t, "", "provider", "set", "--kind", "microsoft365").want(t, 0, "Of the settings of smtp only allowed_senders is kept.")
	if f.settings.Sender.Address == reports.Address {
		t.Error("the sender was kept")
	}
}

// wantSettings compares also the secrets, which print as the same.
func wantSettings(t *testing.T, got, want *provider.Settings) {
	t.Helper()
	if got == nil {
		t.Fatal("no settings came")
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v\nsecrets %q %q", *got, *want, got.Secrets(), want.Secrets())
	}
}

func TestProviderSetFromAFile(t *testing.T) {
	want := &provider.Settings{Kind: provider.KindSMTP, Sender: mail.Address{Address: "reports@x.example", Name: "Reports"}, AllowedSenders: []string{"@x.example"},
		SMTP: provider.SMTPSettings{Host: "mail.x.example", Port: 465, Security: provider.SecurityTLS, CAPEM: "line 1\nline 2 \"ü\"\n",
			Auth: provider.SMTPAuth{Method: provider.AuthBasic, Username: "reports", Password: testSecret, AllowCleartext: true}},
		Limits: provider.Limits{Concurrency: 3, UploadBytesPer5m: -1}}
	yaml := `# What a comment says.
kind: smtp
sender: {address: reports@x.example, name: Reports}
allowed_senders: ["@x.example"]
smtp:
  host: mail.x.example
  port: 465
  security: tls
  min_tls:
  ca_pem: |
    line 1
    line 2 "ü"
  auth: {method: basic, username: reports, password: ` + testSecret + `, allow_cleartext: true}
limits: {concurrency: 3, upload_bytes_per_5m: -1}
`
	var asJSON strings.Builder
	_ = printJSON(&asJSON, map[string]any{"kind": "smtp", "sender": want.Sender, "allowed_senders": want.AllowedSenders, "limits": map[string]any{
		"concurrency": 3, "upload_bytes_per_5m": -1}, "smtp": map[string]any{"host": "mail.x.example", "port": 465, "security": "tls", "ca_pem": want.SMTP.CAPEM, "min_tls": nil,
		"auth": map[string]any{"method": "basic", "username": "reports", "password": testSecret, "allow_cleartext": true}}})
	f := startProvider(t, activeMicrosoft365())
	f.changed = admin.ProviderChanged{Result: "saved"}
	for name, text := range map[string]string{"YAML": yaml, "JSON": asJSON.String(), "of Windows": "\ufeff" + strings.ReplaceAll(yaml, "\n", "\r\n")} {
		tells(t, "", "provider", "set", file(t, "provider", text)).want(t, 0)
		wantSettings(t, f.settings, want)
		tells(t, text, "provider", "set", "-").want(t, 0)
		wantSettings(t, f.settings, want)
		f.asked(t, "PUT /v1/provider", "PUT /v1/provider")
		if t.Failed() {
			t.Fatalf("that was %s", name)
		}
	}
	tells(t, "", "provider", "set", file(t, "provider.yaml", yaml), "--host", "mail2.x.example", "--username", "other", "--no-verify").want(t, 0)
	want.SMTP.Host, want.SMTP.Auth.Username = "mail2.x.example", "other"
	wantSettings(t, f.settings, want)
	f.asked(t, "PUT /v1/provider?verify=false")

	// What the server shows can be written back.
	f.active = activeSMTP()
	shown, err := json.Marshal(f.active.Settings)
	if err != nil {
		t.Fatal(err)
	}
	tells(t, string(shown), "provider", "set", "-").want(t, 0)
	wantSettings(t, f.settings, f.active.Settings)
}

func TestEveryFaultOfASettingsFileIsToldAtOnce(t *testing.T) {
	f := startProvider(t, activeSMTP())
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"many": {"kind: smtp\nsmtp:\n  hots: " + testSecret + "\n  port: " + testSecret + "\n  auth:\n    password: [" + testSecret + "]\n    allow_cleartext: yes\nsender: x\nallowed_senders: x\n",
			[]string{"provider.yaml can't be used\n", "\n  smtp.hots (provider.yaml:3): no such key; write smtp.host\n",
				"smtp.port (provider.yaml:4): want a whole number", "smtp.auth.password (provider.yaml:6): want a text", "smtp.auth.allow_cleartext (provider.yaml:7): want true or false",
				"sender (provider.yaml:8): want a section", "allowed_senders (provider.yaml:9): want a list"}},
		"with the section":   {"provider:\n  kind: smtp\n", []string{"provider (provider.yaml:1): no such key; delete it; here belong: kind, sender,"}},
		"no YAML":            {"kind: smtp\nsmtp: {password: " + testSecret + "\n", []string{"not YAML: "}},
		"empty":              {"# nothing\n", []string{"no settings"}},
		"two documents":      {"kind: smtp\n---\nkind: none\n", []string{"a second document"}},
		"a list":             {"- kind: smtp\n", []string{"want a section"}},
		"kind none":          {"kind: none\n", []string{"use postroom provider clear"}},
		"a number too large": {"kind: smtp\nlimits: {concurrency: 99999999999999999999}\n", []string{"limits.concurrency (provider.yaml:2): want a whole number"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := tells(t, "", "provider", "set", file(t, "provider.yaml", test.text))
			code := exitFault
			if name == "kind none" {
				code = exitUsage
			}
			r.want(t, code, test.want...)
			f.asked(t)
		})
	}
}

func TestAPasswordLosesOnlyItsLastNewline(t *testing.T) {
	f := startProvider(t, activeSMTP())
	f.changed = admin.ProviderChanged{Result: "saved"}
	for content, want := range map[string]string{
		"a b": "a b", "a\n": "a", "a\r\n": "a", " a \n": " a ", "a\n\n": "a\n", "\na": "\na", "0123\n": "0123", "a\rb\t\n": "a\rb\t",
	} {
		for _, r := range []ran{
			tells(t, "", "provider", "set", "--password-file", file(t, "password", content)),
			tells(t, content, "provider", "set", "--password-file", "-"),
		} {
			r.want(t, 0)
			if got := f.settings.SMTP.Auth.Password.Reveal(); got != want {
				t.Errorf("%q became %q", content, got)
			}
		}
	}
	tells(t, "\n", "provider", "set", "--password-file", "-").want(t, exitFault, "--password-file: the file is empty")
	tells(t, strings.Repeat(testSecret, maxSettings), "provider", "set", "--password-file", "-").want(t, exitFault, "larger than 1 MiB")
	tells(t, "", "provider", "set", "--password-file", "/no/such/file").want(t, exitFault, "--password-file: open /no/such/file")
}

func TestProviderSetSaysWhatCameOfIt(t *testing.T) {
	f := startProvider(t, activeSMTP())
	steps := []admin.Step{{Name: "connect", State: "passed", TookMs: 3}, {Name: "auth", State: "failed", TookMs: 5,
		Fault: &admin.ProviderFault{Field: "/smtp/auth/password", Happened: "The login was refused."}}}
	for _, test := range []struct {
		changed admin.ProviderChanged
		code    int
		want    []string
	}{
		{admin.ProviderChanged{Result: "saved", Steps: steps[:1], Summary: "Saved: they work."}, 0,
			[]string{"connect  passed  3 ms", "smtp  5-cd     saved   0 attempts", "Saved: they work."}},
		{admin.ProviderChanged{Result: "saved_not_tried", Underway: 1, Summary: "Saved, and not tried."}, 0,
			[]string{"saved not tried  1 attempt\n", "Saved, and not tried."}},
		{admin.ProviderChanged{Result: "saved_not_valid", Steps: steps, Underway: 1234, Summary: "Saved, but not valid."}, exitNotValid,
			[]string{"auth     failed  5 ms", "field     smtp.auth.password (--password-file)", "saved not valid  1,234 attempts",
				"postroom: the settings are saved, but they do not work\nTo try them again: postroom provider verify"}},
		{admin.ProviderChanged{Result: "saved_undecided", Steps: steps, Summary: "Saved, and active."}, exitTryAgain,
			[]string{"saved undecided  0 attempts", "postroom: the settings are saved, and whether they work is not known yet\nTo try them again: postroom provider verify"}},
	} {
		f.changed = test.changed
		f.changed.Provider = admin.Provider{Kind: "smtp", Version: "5-cd"}
		tells(t, "", "provider", "set", "--host", "m.x.example").want(t, test.code, test.want...)
		r := tells(t, "", "provider", "set", "--host", "m.x.example", "--output", "json")
		var got admin.ProviderChanged
		if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || got.Result != f.changed.Result || got.Underway != f.changed.Underway || r.code != test.code {
			t.Errorf("%s: %d, %q, %v", f.changed.Result, r.code, r.stdout, err)
		}
	}
}

func TestProviderSetDryRunOnlyTries(t *testing.T) {
	f := startProvider(t, activeSMTP())
	f.verified = admin.Verification{Valid: true, Summary: "They work."}
	tells(t, "", "provider", "set", "--host", "m.x.example", "--dry-run").want(t, 0, "They work.", "Dry run: nothing was changed.")
	if f.settings == nil || f.settings.SMTP.Host != "m.x.example" {
		t.Errorf("tried %+v", f.settings)
	}
	f.asked(t, "GET /v1/provider", "POST /v1/provider/verify")
	f.verified.Valid = false
	tells(t, "", "provider", "set", "--host", "m.x.example", "--dry-run").want(t, exitFault, "Dry run: nothing was changed.", "the settings do not work")
	f.verified.Undecided = true
	r := tells(t, "", "provider", "set", "--host", "m.x.example", "--dry-run")
	r.want(t, exitTryAgain, "whether the settings work is not known yet")
	if strings.Contains(r.stderr, "Is the URL right") {
		t.Errorf("it answered, and stderr has %q", r.stderr)
	}
}

func TestRefusedSettingsAreNamedAsOnTheCommandLine(t *testing.T) {
	f := startProvider(t, activeSMTP())
	f.refuse = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet {
			return false
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusUnprocessableEntity)
		_ = printJSON(w, admin.Problem{Title: "The settings can't be used", Detail: "Nothing was changed.", Errors: []admin.Fault{
			{Location: "/smtp/auth/password", Reason: "is missing"}, {Location: "/settings/smtp/port", Reason: "is not a number"},
			{Location: "/allowed_senders/3", Reason: "is no domain"}, {Location: "/sender/name", Reason: "is too long"},
			{Location: "/smtp/auth/oauth2/scopes/0", Reason: "is no scope"}, {Location: "/settings", Reason: "is not an object"}}})
		return true
	}
	const want = `postroom: The settings can't be used (422)
  smtp.auth.password (--password-file) is missing
  smtp.port (--port) is not a number
  allowed_senders[3] (--allow-sender) is no domain
  sender.name (--sender) is too long
  smtp.auth.oauth2.scopes[0] is no scope
  the request is not an object
Nothing was changed.
`
	for _, args := range [][]string{{"set"}, {"set", "--dry-run"}, {"verify"}} {
		r := tells(t, "", append(append([]string{"provider"}, args...), "--host", "m.x.example")...)
		r.want(t, exitFault)
		if r.stderr != want || r.stdout != "" {
			t.Errorf("%q: stdout %q, stderr %q", args, r.stdout, r.stderr)
		}
	}
}

func TestAChangeWithoutAnAnswerSaysWhereToLook(t *testing.T) {
	f := startProvider(t, activeSMTP())
	f.refuse = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet {
			panic(http.ErrAbortHandler)
		}
		return false
	}
	tells(t, "", "provider", "set", "--host", "m.x.example").want(t, exitTryAgain, "It may have been done all the same: postroom provider show tells.")
	tells(t, "", "provider", "clear", "--yes").want(t, exitTryAgain, "It may have been done all the same: postroom provider show tells.")
}

func TestAChangeThatWasNeverSentSaysNoMore(t *testing.T) {
	environment(t, "http://127.0.0.1:1")
	r := tells(t, "kind: smtp", "provider", "set", "-")
	r.want(t, exitTryAgain, "Is the URL right, and the server running?")
	if strings.Contains(r.stderr, "all the same") {
		t.Errorf("stderr has %q", r.stderr)
	}
}

func TestMistypedSettingsAreUsageErrors(t *testing.T) {
	f := startProvider(t, activeSMTP())
	secret := file(t, "secret", testSecret)
	for _, test := range []struct{ line, want string }{
		{"set", "set what? Give a file, or flags"},
		{"set a b", "it takes one file"},
		{"verify a b", "it takes one file"},
		{"set --host m.x.example --no-verify --dry-run", "nothing would be left to do"},
		{"set --host=", "--host: it is empty"},
		{"set --allow-sender=", "--allow-sender: it is empty"},
		{"set --kind gmail", `--kind: "gmail" is neither smtp nor microsoft365`},
		{"set --kind none", "use postroom provider clear"},
		{"set --port x", "--port"},
		{"set --sender reports", "--sender: it is not an address"},
		{"set --tenant-id t --cloud gcc", "--cloud is a setting of kind microsoft365, and the kind is smtp"},
		{"set --kind microsoft365 --host x", "--host is a setting of kind smtp, and the kind is microsoft365"},
		{"set - --password-file -", "standard input goes to FILE already"},
		{"set --password-file - --ca-file -", "standard input goes to --ca-file already"},
		{"set --password " + secret, "unknown flag"},
		{"test", "ADDRESS is missing"},
		{"show x", "it takes none"},
		{"reseal x", "it takes none"},
		{"clear", "there is no terminal to ask on"},
		{"cleer", "did you mean clear?"},
	} {
		r := tells(t, "kind: smtp\n", append([]string{"provider"}, strings.Fields(test.line)...)...)
		r.want(t, exitUsage, test.want)
		if r.stdout != "" || f.settings != nil {
			t.Errorf("%s: stdout %q", test.line, r.stdout)
		}
	}
	f.active = admin.Provider{Kind: "none"}
	tells(t, "", "provider", "set", "--host", "x").want(t, exitUsage, "--kind is missing: no provider is active")
	tells(t, "smtp: {port: 25}", "provider", "set", "-", "--host", "x").want(t, exitUsage, "--host is a setting of kind smtp, and the kind is not given: see --kind")
}

func TestTheShellCompletesSettings(t *testing.T) {
	for flag, want := range map[string]string{"kind": "smtp\nmicrosoft365\n", "security": "starttls\ntls\nnone\n", "auth": "none\nbasic\noauth2\n",
		"cloud": "global\ngcc\ngcch\ndod\nchina\n", "output": "table\njson\n"} {
		postroom(t, "", "__complete", "provider", "set", "--"+flag, "").want(t, 0, want)
	}
}

// Each flag sets what it says, and every secret that settings can have has a flag that reads a file.
func TestFlagsOfSettingsFitTheirFields(t *testing.T) {
	for _, f := range settingFlags {
		for _, at := range f.at {
			v := fieldAt(&provider.Settings{}, at)
			if !v.IsValid() {
				t.Errorf("--%s: nothing is at %s", f.name, at)
				continue
			}
			if _, secret := v.Interface().(provider.Secret); secret && !f.fromFile() {
				t.Errorf("--%s takes a secret on the command line", f.name)
			}
			if v.Kind() != fieldAt(&provider.Settings{}, f.at[0]).Kind() {
				t.Errorf("--%s sets fields of two types", f.name)
			}
		}
	}
	all := provider.Settings{Kind: provider.KindSMTP, SMTP: provider.SMTPSettings{Auth: provider.SMTPAuth{Password: "x", OAuth2: provider.OAuth2{ClientSecret: "x"}}}}
	graph := provider.Settings{Kind: provider.KindMicrosoft365, Microsoft365: provider.Microsoft365Settings{ClientSecret: "x", PrivateKeyPEM: "x"}}
	for _, at := range append(all.Secrets(), graph.Secrets()...) {
		if !strings.HasSuffix(settingName(at), "-file)") {
			t.Errorf("no flag sets the secret %s", at)
		}
	}
}

func FuzzReadSettings(f *testing.F) {
	for _, seed := range []string{"kind: smtp\nsmtp: {host: x, port: 25}\n", `{"kind":"smtp","allowed_senders":["@x.example"]}`, "smtp: &a\n  auth: *a\n",
		"a: b: c", "- x", "? [x]\n: y\n", "<<: {kind: smtp}\n", "kind: !!binary aGk=\n", "---\n---\n", "\tkind", "limits: {concurrency: 0x10}", "kind: |\n  x\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := readSettings("x", []byte(text))
		if (s == nil) == (err == nil) {
			t.Errorf("settings %v, error %v", s, err)
		}
	})
}
