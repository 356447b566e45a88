package main

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// testSecret is what files of secrets hold in these tests.
const testSecret = "a-secret-that-nobody-may-see"

// fakeProvider answers as /v1/provider does, and keeps what it was asked.
type fakeProvider struct {
	active   admin.Provider
	changed  admin.ProviderChanged
	verified admin.Verification
	tested   admin.TestResult
	// refuse answers instead, if it gives true.
	refuse func(http.ResponseWriter, *http.Request) bool

	requests []string // "PUT /v1/provider?verify=false"
	// settings are the last that came; nil if none did.
	settings *provider.Settings
	to       string
}

func startProvider(t *testing.T, active admin.Provider) *fakeProvider {
	t.Helper()
	t.Setenv("TZ", "UTC")
	f := &fakeProvider{active: active}
	startFake(t, func(w http.ResponseWriter, r *http.Request) {
		f.requests = append(f.requests, r.Method+" "+r.URL.RequestURI())
		if f.refuse != nil && f.refuse(w, r) {
			return
		}
		body, _ := io.ReadAll(r.Body)
		var err error
		switch f.requests[len(f.requests)-1] {
		case "GET /v1/provider":
			err = printJSON(w, f.active)
		case "PUT /v1/provider", "PUT /v1/provider?verify=false":
			f.settings = &provider.Settings{}
			if err = json.Unmarshal(body, f.settings); err == nil {
				err = printJSON(w, f.changed)
			}
		case "DELETE /v1/provider?version=4-ab":
			err = printJSON(w, f.changed)
		case "POST /v1/provider/verify":
			var in admin.VerifyRequest
			if err = json.Unmarshal(body, &in); err == nil {
				f.settings = in.Settings
				err = printJSON(w, f.verified)
			}
		case "POST /v1/provider/test":
			var in admin.TestRequest
			if err = json.Unmarshal(body, &in); err == nil {
				f.to = in.To
				err = printJSON(w, f.tested)
			}
		case "POST /v1/provider/reseal":
			err = printJSON(w, admin.Resealed{Changed: true, Summary: "They are sealed with the first key now."})
		default:
			w.WriteHeader(http.StatusNotFound)
		}
		if err != nil {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
	})
	return f
}

// tells runs a command that knows secrets, and sees to it that it tells none.
func tells(t *testing.T, stdin string, args ...string) ran {
	t.Helper()
	r := postroom(t, stdin, args...)
	if strings.Contains(r.stdout+r.stderr, testSecret) {
		t.Errorf("%q tells a secret:\n%s%s", args, r.stdout, r.stderr)
	}
	return r
}

// asked checks what the server was asked since it was last checked.
func (f *fakeProvider) asked(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(f.requests, want) {
		t.Errorf("asked %q, want %q", f.requests, want)
	}
	f.requests = nil
}

func activeSMTP() admin.Provider {
	s := &provider.Settings{Kind: provider.KindSMTP, Sender: mail.Address{Address: "reports@x.example", Name: "Reports"},
		AllowedSenders: []string{"@x.example", "news@y.example"},
		SMTP: provider.SMTPSettings{Host: "mail.x.example", CAPEM: "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n",
			Auth: provider.SMTPAuth{Method: provider.AuthBasic, Username: "reports"}},
		Limits: provider.Limits{MessagesPerMinute: 30, RecipientsPerDay: provider.NoLimit}}
	s.Defaults()
	return admin.Provider{Kind: "smtp", Version: "4-ab", Source: "api", By: "ops", Since: begun, Settings: s,
		Secrets: []string{"/smtp/auth/password"}, Open: 12345,
		Health: admin.ProviderHealth{State: "faulty", Summary: "No mail goes.", Since: begun.Add(time.Hour), Held: 1, Mailboxes: 2, Mailbox: "reports",
			Fault: &admin.ProviderFault{Field: "/smtp/auth/password", Cause: "credentials", Happened: "The login was refused.",
				Postroom: "It tries again.", Remedy: "Give the right password.", Code: 535, Enhanced: "5.7.8"},
			Workers: []admin.Worker{{ID: "i3yny7s3", Host: "w1", Ready: true}, {ID: "k4", Host: "w1", Fault: "the key is\nnot there"}, {ID: "m5", Host: "w3"}}}}
}

func activeMicrosoft365() admin.Provider {
	s := &provider.Settings{Kind: provider.KindMicrosoft365, Sender: mail.Address{Address: "reports@x.example"},
		Microsoft365: provider.Microsoft365Settings{TenantID: "t", ClientID: "c", CertificatePEM: "pem"}}
	s.Defaults()
	return admin.Provider{Kind: "microsoft365", Version: "5-cd", Source: "api", By: "ops", Since: begun, Settings: s,
		Secrets: []string{"/microsoft365/private_key_pem"}}
}

func TestProviderShow(t *testing.T) {
	f := startProvider(t, activeSMTP())
	r := postroom(t, "", "provider", "show")
	r.want(t, 0, "No mail goes.\n\n",
		"set      by ops, 2030-01-02 03:04:05 +00:00\n", "version  4-ab\n", "health   faulty, since 2030-01-02 04:04:05 +00:00\n",
		"held     1 of 2 mailboxes\n", "open     12,345 messages have not ended\n",
		"\nThe last error, of reports:\n    field     smtp.auth.password (--password-file)\n    answer    535 5.7.8\n"+
			"    happened  The login was refused.\n    Postroom  It tries again.\n    you       Give the right password.\n",
		"WORKER    HOST  SETTINGS\ni3yny7s3  w1    loaded\nk4        w1    can't be loaded: the key is not there\nm5        w3    not loaded yet\n")
	_, settings, _ := strings.Cut(r.stdout, "\nSETTING ")
	if got, want := squeezed(settings), `VALUE
kind smtp
sender.address reports@x.example
sender.name Reports
allowed_senders @x.example, news@y.example
smtp.host mail.x.example
smtp.port 587
smtp.security starttls
smtp.min_tls 1.2
smtp.ca_pem -----BEGIN CERTIFICATE----- … (3 lines)
smtp.auth.method basic
smtp.auth.username reports
smtp.auth.password set
limits.concurrency 10
limits.messages_per_minute 30
limits.recipients_per_day no limit
`; got != want {
		t.Errorf("the settings are\n%s\nwant\n%s", got, want)
	}

	r = postroom(t, "", "provider", "show", "--output", "json")
	var got, want strings.Builder
	var p admin.Provider
	if err := json.Unmarshal([]byte(r.stdout), &p); err != nil {
		t.Fatal(err)
	}
	_, _ = printJSON(&got, p), printJSON(&want, f.active)
	if got.String() != want.String() || r.stderr != "" {
		t.Errorf("got %s, want %s", got.String(), want.String())
	}
	f.asked(t, "GET /v1/provider", "GET /v1/provider")
}

func TestProviderShowTellsOfPauses(t *testing.T) {
	f := startProvider(t, activeSMTP())
	if r := postroom(t, "", "provider", "show"); strings.Contains(r.stdout, "paused") {
		t.Errorf("nothing is paused, and stdout has %q", r.stdout)
	}
	f.active.Health.Paused = 2
	postroom(t, "", "provider", "show").want(t, 0, "paused   2 mailboxes\n")
	f.active.Health.Pause = &admin.Silence{Reason: "new server", By: "ops", Until: begun, Scope: "everything"}
	postroom(t, "", "provider", "show").want(t, 0, "paused   everything, until 2030-01-02 03:04:05 +00:00, by ops: new server\n")
}

func TestProviderShowOfAFileAndOfNone(t *testing.T) {
	p := activeSMTP()
	p.Source, p.By, p.ReadOnly = "file", "", true
	f := startProvider(t, p)
	postroom(t, "", "provider", "show").want(t, 0, "by a configuration file, 2030-01-02 03:04:05 +00:00; read-only: change it in the configuration file")

	f.active = admin.Provider{Kind: "none", Open: 1, Health: admin.ProviderHealth{State: "ok", Summary: "No provider is active."}}
	r := postroom(t, "", "provider", "show")
	r.want(t, 0, "kind    none\n", "1 message has not ended", "No worker runs", "To set a provider: postroom provider set")
	if strings.Contains(r.stdout, "SETTING") || strings.Contains(r.stdout, "0001") {
		t.Errorf("stdout has %q", r.stdout)
	}
}

func TestProviderVerify(t *testing.T) {
	f := startProvider(t, activeSMTP())
	f.verified = admin.Verification{Valid: true, Summary: "The settings work.", Steps: []admin.Step{
		{Name: "resolve", State: "passed", TookMs: 12, Found: "192.0.2.1\nand more"}, {Name: "auth", State: "skipped", TookMs: 1500}}}
	r := postroom(t, "", "provider", "verify")
	r.want(t, 0, "The settings work.")
	if got, want := squeezed(r.stdout), "STEP STATE TIME FOUND\nresolve passed 12 ms 192.0.2.1 and more\nauth skipped 1,500 ms -\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if f.settings != nil {
		t.Errorf("settings came: %+v", f.settings)
	}
	f.asked(t, "POST /v1/provider/verify")

	f.verified = admin.Verification{Summary: "Step auth failed.", Steps: []admin.Step{{Name: "auth", State: "failed", TookMs: 7, Fault: &admin.ProviderFault{
		Field: "/smtp/host", Happened: "The login was refused.", Remedy: "Correct the host.", Code: 535, Enhanced: "5.7.8", Answer: "go\naway"}}}}
	r = tells(t, testSecret, "provider", "verify", "--host", "mail2.x.example", "--password-file", "-")
	r.want(t, exitFault, "\nauth failed:\n    field     smtp.host (--host)\n    answer    535 5.7.8 go away\n    happened  The login was refused.\n"+
		"    you       Correct the host.\n", "Step auth failed.", "postroom: the settings do not work")
	if f.settings == nil || f.settings.SMTP.Host != "mail2.x.example" || f.settings.SMTP.Auth.Password.Reveal() != testSecret {
		t.Errorf("got %+v", f.settings)
	}
	f.asked(t, "GET /v1/provider", "POST /v1/provider/verify")

	r = postroom(t, "", "provider", "verify", "--output", "json")
	var v admin.Verification
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil || v.Valid || len(v.Steps) != 1 || r.code != exitFault {
		t.Errorf("got %q, %v", r.stdout, err)
	}
}

func TestProviderTest(t *testing.T) {
	f := startProvider(t, activeSMTP())
	for state, code := range map[string]int{"delivered": 0, "failed": exitUndelivered, "waiting": exitUndelivered} {
		f.tested = admin.TestResult{ID: "ID1", State: state, TookMs: 1234, Summary: "In words."}
		if state == "failed" {
			f.tested.Fault = &admin.ProviderFault{Happened: "The sender was refused.", Remedy: "Allow it.", Field: "/sender/address"}
		}
		r := postroom(t, "", "provider", "test", "ada@x.example")
		r.want(t, code, "In words.")
		if out := squeezed(r.stdout); !strings.HasPrefix(out, "ID STATE TIME\nID1 "+state+" 1,234 ms\n") ||
			strings.Contains(out, "\nfield sender.address (--sender)\n") != (state == "failed") || strings.Contains(out, "\nyou Allow it.\n") != (state == "failed") {
			t.Errorf("%s: stdout has %q", state, out)
		}
		if strings.Contains(r.stderr, "postroom: the test mail was not delivered") != (code != 0) {
			t.Errorf("%s: stderr has %q", state, r.stderr)
		}
		r = postroom(t, "", "provider", "test", "ada@x.example", "--output", "json")
		var got admin.TestResult
		if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || got.State != state || r.code != code {
			t.Errorf("%s: %d, %q, %v", state, r.code, r.stdout, err)
		}
	}
	if f.to != "ada@x.example" {
		t.Errorf("it went to %q", f.to)
	}
}

func TestProviderReseal(t *testing.T) {
	f := startProvider(t, activeSMTP())
	postroom(t, "", "provider", "reseal").want(t, 0, "SEALED ANEW\nyes\n", "sealed with the first key now.")
	postroom(t, "", "provider", "reseal", "--output", "json").want(t, 0, `{"changed":true,"summary":`)
	f.asked(t, "POST /v1/provider/reseal", "POST /v1/provider/reseal")
}

func TestTooManyTriesSayWhenToComeBack(t *testing.T) {
	f := startProvider(t, activeSMTP())
	f.refuse = func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Retry-After", "42")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = w.Write([]byte(`{"title":"It was tried too often"}`))
		return true
	}
	for _, line := range []string{"verify", "test ada@x.example"} {
		r := postroom(t, "", append([]string{"provider"}, strings.Fields(line)...)...)
		r.want(t, exitTryAgain, "It was tried too often (429)\nTry again in 42s.")
		if len(f.requests) != 1 || r.stdout != "" {
			t.Errorf("%s: asked %q, stdout %q", line, f.requests, r.stdout)
		}
		f.requests = nil
	}
}
