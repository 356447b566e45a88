package admin

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/throttle"
)

// office is an API that can change the provider, whose settings are tried by check.
type office struct {
	*api
	providers *Providers

	mu    sync.Mutex
	check func(*provider.Settings) []provider.Step
	tried int
}

// keyOf makes a key of a letter.
func keyOf(letter string) provider.Secret {
	return provider.Secret(base64.StdEncoding.EncodeToString([]byte(strings.Repeat(letter, 32))))
}

func works(*provider.Settings) []provider.Step {
	return []provider.Step{{Name: provider.StepConnect, State: provider.StepPassed, Took: time.Millisecond, Found: "It answers."}}
}

// refuses gives a check that ends with an outcome.
func refuses(o mail.Outcome) func(*provider.Settings) []provider.Step {
	return func(s *provider.Settings) []provider.Step {
		return append(works(s), provider.Step{Name: cmp.Or(o.Step, provider.StepConnect), State: provider.StepFailed, Outcome: &o})
	}
}

var wrongPassword = mail.Outcome{Class: mail.Configuration, Scope: mail.ScopeProvider, Cause: mail.Credentials, Step: "auth", Code: 535, Enhanced: "5.7.8", Reply: "535 5.7.8 Who are you?"}

// openOffice serves the API on an embedded Redis, with keys for credentials.
func openOffice(t *testing.T, keys ...provider.Secret) *office {
	t.Helper()
	o := &office{check: works}
	o.api = serve(t, func(options *Options) {
		options.Tokens = append(options.Tokens, Token{Name: "second", Role: "admin", SHA256: hashOf("second-admin")},
			Token{Name: "third", Role: "admin", SHA256: hashOf("third-admin")}, Token{Name: "fourth", Role: "admin", SHA256: hashOf("fourth-admin")})
		o.providers = o.withKeys(t, keys...)
		options.Providers = o.providers
	})
	return o
}

func (o *office) withKeys(t *testing.T, keys ...provider.Secret) *Providers {
	t.Helper()
	ring, err := provider.NewKeyring(keys)
	if err != nil {
		t.Fatal(err)
	}
	return &Providers{Keys: ring, Active: activeOf, Host: "post1.example.com",
		Settings: func(p *queue.Provider) (*provider.Settings, error) {
			if p.Source != queue.FromAPI {
				return nil, errors.New("they are in a file")
			}
			return ring.Open(p.Sealed, p.ID)
		},
		Check: func(_ context.Context, s *provider.Settings) ([]provider.Step, error) {
			o.mu.Lock()
			o.tried++
			check := o.check
			o.mu.Unlock()
			return check(s), nil
		}}
}

// meets changes what trying settings comes to.
func (o *office) meets(check func(*provider.Settings) []provider.Step) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.check = check
}

func (o *office) triedTimes() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tried
}

// beside serves the API from another process on the same Redis.
func (o *office) beside(t *testing.T, keys ...provider.Secret) *office {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: o.redis.Addr(), MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	q, err := queue.Open(t.Context(), queue.Options{Client: client})
	if err != nil {
		t.Fatal(err)
	}
	other := &office{api: &api{queue: q, redis: o.redis, log: &logbook{}}, check: works}
	other.providers = other.withKeys(t, keys...)
	other.Server = httptest.NewServer(NewHandler(Options{Queue: q, Tokens: append(testTokens(), Token{Name: "second", Role: "admin", SHA256: hashOf("second-admin")},
		Token{Name: "third", Role: "admin", SHA256: hashOf("third-admin")}, Token{Name: "fourth", Role: "admin", SHA256: hashOf("fourth-admin")}), Providers: other.providers, Logger: other.log.logger()}))
	t.Cleanup(other.Close)
	return other
}

// activeOf is what a queue has to know of settings; messages a minute are the one limit.
func activeOf(s *provider.Settings) (*queue.ActiveProvider, error) {
	shown, err := s.Show()
	if err != nil {
		return nil, err
	}
	p := &queue.ActiveProvider{Kind: string(s.Kind), Keying: queue.ByAccount, Account: fmt.Sprintf("%s:%d", s.SMTP.Host, s.SMTP.Port),
		Sender: s.Sender.Address, Concurrency: s.Limits.Concurrency, Senders: s.AllowedSenders, Shown: shown}
	if s.Kind == provider.KindMicrosoft365 {
		p.Keying, p.Account = queue.ByMailbox, ""
	}
	if n := s.Limits.MessagesPerMinute; n > 0 {
		p.Limits = []throttle.Limit{{Name: throttle.Messages, Max: int64(n), Window: time.Minute}}
	}
	return p, nil
}

const (
	byPassword = `{"kind": "smtp", "sender": {"address": "Reports <reports@example.com>"},
		"smtp": {"host": "mail.example.com", "auth": {"username": "postroom-account", "password": "open sesame"}}}`
	withoutPassword = `{"kind": "smtp", "sender": {"address": "reports@example.com", "name": "Reports"},
		"smtp": {"host": "mail.example.com", "auth": {"username": "postroom-account"}}}`
	byRelay = `{"kind": "smtp", "sender": {"address": "reports@example.com"}, "smtp": {"host": "relay.example.com", "port": 25, "security": "none"}}`
	byGraph = `{"kind": "microsoft365", "sender": {"address": "reports@example.com"}, "microsoft365":
		{"tenant_id": "11111111-2222-3333-4444-555555555555", "client_id": "66666666-7777-8888-9999-000000000000", "client_secret": "graph sesame"}}`
)

// put sets the provider, which has to be answered by 200.
func (o *office) put(t *testing.T, body string) *ProviderChanged {
	t.Helper()
	r := o.call(t, "PUT", "/v1/provider", adminToken, body)
	c := &ProviderChanged{}
	if r.decode(t, c); r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	return c
}

// show asks what is active.
func (o *office) show(t *testing.T) *Provider {
	t.Helper()
	r := o.call(t, "GET", "/v1/provider", operatorToken, "")
	p := &Provider{}
	if r.decode(t, p); r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	return p
}

// stored gives the active settings as they are kept.
func (o *office) stored(t *testing.T) (*queue.Provider, *provider.Settings) {
	t.Helper()
	p, err := o.queue.Provider(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p.Sealed == "" {
		return p, nil
	}
	s, err := o.providers.Keys.Open(p.Sealed, p.ID)
	if err != nil {
		t.Fatal(err)
	}
	return p, s
}

// everything gives what Redis holds: names of keys and all that is in them.
func everything(t *testing.T, a *api) string {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: a.redis.Addr()})
	defer client.Close()
	ctx := t.Context()
	var b strings.Builder
	for _, key := range a.redis.Keys() {
		fmt.Fprintln(&b, key)
		var held any
		switch kind := a.redis.Type(key); kind {
		case "string":
			held = client.Get(ctx, key).Val()
		case "hash":
			held = client.HGetAll(ctx, key).Val()
		case "list":
			held = client.LRange(ctx, key, 0, -1).Val()
		case "set":
			held = client.SMembers(ctx, key).Val()
		case "zset":
			held = client.ZRangeWithScores(ctx, key, 0, -1).Val()
		case "stream":
			held = client.XRange(ctx, key, "-", "+").Val()
		default:
			t.Fatalf("%s is a %s", key, kind)
		}
		fmt.Fprintf(&b, "%v\n", held)
	}
	return b.String()
}

// latest gives the newest entries of the audit, as "name address action target: detail".
func (a *api) latest(t *testing.T, n int) []string {
	t.Helper()
	entries, err := a.queue.Audit(t.Context(), "", n)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, e := range entries {
		lines = append(lines, strings.Join([]string{e.By, e.From, e.Action, e.Target}, " ")+": "+e.Detail)
	}
	return lines
}

func TestTheFirstProviderIsChosenAndShownWithoutItsSecret(t *testing.T) {
	o := openOffice(t, keyOf("a"))
	if p := o.show(t); p.Kind != "none" || p.Version != "" || p.Settings != nil || p.Source != "" || p.ReadOnly || p.Health.State != "ok" || p.Health.Workers == nil {
		t.Errorf("before: %+v", p)
	}
	begun := time.Now().Add(-time.Second)
	c := o.put(t, byPassword)
	if c.Result != "saved" || len(c.Steps) != 1 || c.Steps[0].State != "passed" || c.Underway != 0 || !strings.Contains(c.Summary, "work") {
		t.Errorf("%+v", c)
	}
	p := o.show(t)
	if p.Kind != "smtp" || !strings.HasPrefix(p.Version, "1-") || p.Version != c.Provider.Version || p.Source != "api" || p.By != "root" || p.ReadOnly ||
		p.Since.Before(begun) || p.Since.After(time.Now().Add(time.Second)) || !slices.Equal(p.Secrets, []string{"/smtp/auth/password"}) {
		t.Errorf("%+v", p)
	}
	s := p.Settings
	if s.Sender != (mail.Address{Address: "reports@example.com", Name: "Reports"}) || s.SMTP.Port != 587 || s.SMTP.Security != "starttls" || s.SMTP.MinTLS != "1.2" ||
		s.SMTP.Auth.Method != "basic" || s.SMTP.Auth.Username != "postroom-account" || s.SMTP.Auth.Password != "" || s.Limits.Concurrency != 10 {
		t.Errorf("settings without defaults, or with a secret: %+v", s)
	}
	if _, kept := o.stored(t); kept.SMTP.Auth.Password.Reveal() != "open sesame" {
		t.Error("the password is not kept")
	}
	if got := o.latest(t, 9); len(got) != 1 || got[0] != "root 127.0.0.1 provider.set smtp: mail.example.com port 587, security starttls" {
		t.Errorf("audit: %q", got)
	}
}

func TestAChangeOfLimitsAndSendersKeepsTheVersion(t *testing.T) {
	o := openOffice(t, keyOf("a"))
	first := o.put(t, byPassword).Provider.Version
	changed := strings.Replace(withoutPassword, `"kind"`, `"limits": {"concurrency": 7, "messages_per_minute": 70}, "allowed_senders": ["@Example.org"], "kind"`, 1)
	c := o.put(t, changed)
	if c.Provider.Version != first || c.Result != "saved" || c.Underway != 0 {
		t.Errorf("%+v", c)
	}
	p, kept := o.stored(t)
	if kept.SMTP.Auth.Password.Reveal() != "open sesame" || kept.Limits.MessagesPerMinute != 70 || p.Version != first {
		t.Errorf("stored: %+v, %+v", p, kept)
	}
	m, err := o.queue.Mailbox(t.Context(), "mail.example.com:587")
	if err != nil || m.Concurrency != 7 || len(m.Limits) != 1 || m.Limits[0].Max != 70 {
		t.Errorf("%+v, %v", m, err)
	}
	if shown := o.show(t).Settings; shown.Limits.Concurrency != 7 || !slices.Equal(shown.AllowedSenders, []string{"@example.org"}) {
		t.Errorf("shown: %+v", shown)
	}
	// All else ends attempts of the former: a new version.
	if c := o.put(t, strings.Replace(changed, `"name": "Reports"`, `"name": "Figures"`, 1)); c.Provider.Version == first || !strings.HasPrefix(c.Provider.Version, "2-") {
		t.Errorf("another name of the sender: version %s after %s", c.Provider.Version, first)
	}
}

func TestASecretIsKeptOnlyWhileItGoesToTheSameServer(t *testing.T) {
	o := openOffice(t, keyOf("a"))
	first := o.put(t, byPassword).Provider.Version
	back := strings.Replace(byPassword, "open sesame", provider.Redacted, 1) // as it was read
	c := o.put(t, strings.Replace(back, "Reports <", "Figures <", 1))
	if _, kept := o.stored(t); c.Provider.Version == first || kept.SMTP.Auth.Password.Reveal() != "open sesame" || kept.Sender.Name != "Figures" {
		t.Errorf("%+v", c)
	}
	for name, change := range map[string]string{
		"another host": strings.Replace(withoutPassword, "mail.example.com", "mail.example.net", 1),
		"another port": strings.Replace(withoutPassword, `"auth"`, `"port": 2525, "auth"`, 1),
		"another user": strings.Replace(withoutPassword, "postroom-account", "another", 1),
		"in the clear": strings.Replace(withoutPassword, `"auth": {`, `"security": "none", "port": 587, "auth": {"allow_cleartext": true, `, 1),
	} {
		tried := o.triedTimes()
		p := o.call(t, "PUT", "/v1/provider", adminToken, change).problem(t)
		if p.Type != invalidSettings.uri() || len(p.Errors) != 1 || p.Errors[0].Location != "/smtp/auth/password" || !strings.Contains(p.Errors[0].Reason, "given again") {
			t.Errorf("%s: %+v", name, p)
		}
		if o.triedTimes() != tried || o.show(t).Version != c.Provider.Version {
			t.Errorf("%s: tried, or saved", name)
		}
	}
}

func TestAnotherProviderLeavesNothingOfTheFormer(t *testing.T) {
	o := openOffice(t, keyOf("a"))
	o.put(t, strings.Replace(byPassword, `"kind"`, `"limits": {"messages_per_minute": 4711}, "allowed_senders": ["somebody@example.org"], "kind"`, 1))
	former, _ := o.stored(t)
	remains := []string{former.Sealed, former.Version, former.ID, "postroom-account", "4711", "somebody@example.org", "mail.example.com:587"}
	for _, r := range remains {
		if !strings.Contains(everything(t, o.api), r) {
			t.Fatalf("%q was never there", r)
		}
	}
	gone := func() {
		t.Helper()
		all := everything(t, o.api)
		for _, r := range remains {
			if strings.Contains(all, r) {
				t.Errorf("%q is left in Redis:\n%s", r, all)
			}
		}
	}
	c := o.put(t, byGraph)
	gone()
	p := o.show(t)
	if p.Kind != "microsoft365" || !strings.HasPrefix(p.Version, "2-") || p.Settings.SMTP.Host != "" || !slices.Equal(p.Secrets, []string{"/microsoft365/client_secret"}) ||
		p.Settings.Microsoft365.Cloud != "global" || p.Settings.Limits.MessagesPerMinute != 30 || c.Provider.Version != p.Version {
		t.Errorf("%+v %+v", p, p.Settings)
	}
	former, _ = o.stored(t)
	remains = []string{former.Sealed, former.Version, former.ID, "reports@example.com"}
	for name, clear := range map[string]func() reply{
		"DELETE": func() reply { return o.call(t, "DELETE", "/v1/provider", adminToken, "") },
		"none":   func() reply { return o.call(t, "PUT", "/v1/provider", adminToken, `{"kind": "none"}`) },
	} {
		t.Run(name, func(t *testing.T) {
			o.put(t, byGraph)
			former, _ = o.stored(t)
			remains = []string{former.Sealed, former.Version, former.ID, "reports@example.com"}
			var c ProviderChanged
			r := clear()
			r.decode(t, &c)
			if r.status != 200 || c.Result != "saved_not_tried" || c.Provider.Kind != "none" || c.Provider.Version != "" || c.Provider.Settings != nil ||
				c.Provider.Source != "api" || c.Provider.By != "root" {
				t.Errorf("%d %s", r.status, r.body)
			}
			gone()
			if got := o.latest(t, 1); !slices.Equal(got, []string{"root 127.0.0.1 provider.clear microsoft365: "}) {
				t.Errorf("audit: %q", got)
			}
		})
	}
	if tried := o.triedTimes(); tried != 4 {
		t.Errorf("settings were tried %d times, want 4: there is nothing to try in none", tried)
	}
}

func TestEveryFaultOfSettingsIsToldAtOnce(t *testing.T) {
	o := openOffice(t, keyOf("a"))
	for name, test := range map[string]struct {
		body string
		want refusal
		at   string
	}{
		"invalid": {`{"kind": "smtp", "sender": {"address": "nobody"}, "allowed_senders": ["a@example.com", "b c"], "smtp": {"host": "mail.example.com:25", "port": 70000, "security": "ssl",
			"min_tls": "2.0", "ca_pem": "no PEM", "auth": {"method": "basic", "username": "maybe"}}, "limits": {"concurrency": -1, "messages_per_minute": -2}, "tenant_limits": {"recipients_per_day": -3}}`,
			invalidSettings, "/allowed_senders/1,/limits/concurrency,/limits/messages_per_minute,/sender/address,/smtp/auth/password,/smtp/ca_pem,/smtp/host,/smtp/min_tls,/smtp/port,/smtp/security,/tenant_limits/recipients_per_day"},
		"graph, empty": {`{"kind": "microsoft365"}`, invalidSettings, "/microsoft365/client_id,/microsoft365/client_secret,/microsoft365/tenant_id,/sender/address"},
		"no such kind": {`{"kind": "pigeon"}`, invalidSettings, "/kind"},
		"unknown": {`{"kind": "smtp", "sendr": {}, "smtp": {"hosts": "x", "auth": {"passwd": "maybe"}}, "limits": {"per_minute": 1}}`, invalidRequest,
			"/limits/per_minute,/sendr,/smtp/auth/passwd,/smtp/hosts"},
		"wrong types": {`{"kind": 1, "sender": "reports@example.com", "allowed_senders": "x", "smtp": {"host": 1, "port": "587", "auth": {"password": 1, "allow_cleartext": "yes"}}, "limits": {"concurrency": 1.5, "upload_bytes_per_5m": 1e400}}`,
			invalidRequest, "/allowed_senders,/kind,/limits/concurrency,/limits/upload_bytes_per_5m,/sender,/smtp/auth/allow_cleartext,/smtp/auth/password,/smtp/host,/smtp/port"},
		"not JSON": {`{"kind": "smtp"`, malformedJSON, ""},
		"a list":   {`[]`, invalidRequest, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := o.call(t, "PUT", "/v1/provider", adminToken, test.body).problem(t)
			var at []string
			for _, f := range p.Errors {
				at = append(at, f.Location)
				if strings.Contains(f.Reason, "maybe") {
					t.Errorf("a value is repeated: %+v", f)
				}
			}
			slices.Sort(at)
			if p.Type != test.want.uri() || strings.Join(at, ",") != test.at {
				t.Errorf("%s\nat   %s\nwant %s", p.Type, strings.Join(at, ","), test.at)
			}
		})
	}
	if o.triedTimes() != 0 || o.show(t).Version != "" || len(o.latest(t, 1)) != 0 {
		t.Error("what is not valid was tried, saved or noted")
	}
	if o.redis.Exists("{postroom}:ration:provider:all") {
		t.Error("what is not valid counts as a try")
	}
}

func TestWithoutAKeyOnlySettingsWithoutSecretsAreTaken(t *testing.T) {
	o := openOffice(t)
	before := everything(t, o.api)
	p := o.call(t, "PUT", "/v1/provider", adminToken, byPassword).problem(t)
	if p.Type != noKey.uri() || !strings.Contains(p.Detail, "key new") || everything(t, o.api) != before || o.triedTimes() != 0 {
		t.Errorf("%+v\n%s", p, everything(t, o.api))
	}
	if c := o.put(t, byRelay); c.Result != "saved" || c.Provider.Kind != "smtp" || c.Provider.Secrets != nil {
		t.Errorf("%+v", c)
	}
	if p := o.call(t, "PUT", "/v1/provider", adminToken, byGraph).problem(t); p.Type != noKey.uri() || o.show(t).Settings.SMTP.Host != "relay.example.com" {
		t.Errorf("%+v", p)
	}
}

func TestSettingsThatDoNotWorkAreSavedAndHoldAllMail(t *testing.T) {
	o := openOffice(t, keyOf("a"))
	o.meets(refuses(wrongPassword))
	c := o.put(t, byPassword)
	if c.Result != "saved_not_valid" || len(c.Steps) != 2 || c.Steps[1].Fault == nil || c.Steps[1].Fault.Field != "/smtp/auth/password" || c.Steps[1].Fault.Answer != wrongPassword.Reply ||
		c.Steps[1].Fault.Remedy == "" || !strings.Contains(c.Summary, "not valid") {
		t.Errorf("%+v", c)
	}
	for _, p := range []*Provider{&c.Provider, o.show(t)} {
		h := p.Health
		if h.State != "faulty" || h.Fault == nil || h.Fault.Field != "/smtp/auth/password" || h.Fault.Cause != string(mail.Credentials) || h.Fault.Code != 535 || h.Mailbox != "mail.example.com:587" ||
			h.Since.IsZero() || h.Fault.Answer != "" || !strings.HasPrefix(h.Summary, "No mail goes.") {
			t.Errorf("%+v %+v", h, h.Fault)
		}
	}
	if strings.Contains(everything(t, o.api), "Who are you?") {
		t.Error("what the provider said is kept without need")
	}
	if got := o.latest(t, 1); !strings.HasSuffix(got[0], ", which did not work") {
		t.Errorf("audit: %q", got)
	}
	// Tried again and well, without a change: what is held goes.
	o.meets(works)
	if again := o.put(t, withoutPassword); again.Provider.Version != c.Provider.Version || again.Provider.Health.State != "ok" {
		t.Errorf("%+v", again)
	}
	// Of the same settings attempts know more than a check.
	o.meets(refuses(mail.Outcome{Class: mail.Temporary, Scope: mail.ScopeProvider, Step: "dial"}))
	if same := o.put(t, withoutPassword); same.Result != "saved_not_valid" || same.Provider.Health.State != "ok" {
		t.Errorf("%+v", same)
	}
	for _, test := range []struct {
		met    mail.Outcome
		want   string
		result string
	}{
		{mail.Outcome{Class: mail.Throttled, Scope: mail.ScopeProvider, Step: "greeting", Code: 421}, "degraded", "saved_undecided"},
		{mail.Outcome{Class: mail.Temporary, Scope: mail.ScopeProvider, Step: "dial"}, "faulty", "saved_not_valid"},
	} {
		o.meets(refuses(test.met))
		o.put(t, byGraph)
		if p := o.show(t); p.Health.State != test.want || p.Health.Mailbox != "" {
			t.Errorf("every mailbox, %s: %+v", test.met.Class, p.Health)
		}
		if c := o.put(t, strings.Replace(byRelay, "relay", test.want, 1)); c.Result != test.result || c.Provider.Health.State != test.want {
			t.Errorf("%s: %+v", test.met.Class, c)
		}
	}
}

// A refusal for now that other mail need not meet, as of MAIL, is none of the settings: mail is tried with them, as it was said.
func TestARefusalForNowTellsNothingOfTheSettings(t *testing.T) {
	o := openOffice(t, keyOf("a"))
	later := mail.Outcome{Class: mail.Temporary, Scope: mail.ScopeMessage, Step: "mail", Code: 450, Enhanced: "4.3.0", Reply: "450 4.3.0 Later"}
	o.meets(refuses(later))
	c := o.put(t, byPassword)
	if c.Result != "saved_undecided" || len(c.Steps) != 2 || c.Steps[1].Fault == nil || !strings.Contains(c.Summary, "not known yet") || strings.Contains(c.Summary, "waits") ||
		c.Provider.Health.State != "ok" || c.Provider.Health.Held != 0 {
		t.Errorf("%+v", c)
	}
	if got := o.latest(t, 1); !strings.HasSuffix(got[0], ", which could not be tried to the end") {
		t.Errorf("audit: %q", got)
	}
	if v := o.verify(t, `{}`); v.Valid || !v.Undecided || strings.Contains(v.Summary, "do not work") {
		t.Errorf("%+v", v)
	}
	later.Class = mail.Permanent
	o.meets(refuses(later))
	if v := o.verify(t, `{}`); v.Valid || v.Undecided || !strings.Contains(v.Summary, "do not work") {
		t.Errorf("for good: %+v", v)
	}
}

func TestWhatIsNotToBeTriedIsSavedUntried(t *testing.T) {
	o := openOffice(t, keyOf("a"))
	r := o.call(t, "PUT", "/v1/provider?verify=false", adminToken, byPassword)
	var c ProviderChanged
	r.decode(t, &c)
	if r.status != 200 || c.Result != "saved_not_tried" || c.Steps != nil || o.triedTimes() != 0 || c.Provider.Kind != "smtp" || c.Provider.Health.State != "ok" {
		t.Errorf("%d %s", r.status, r.body)
	}
}

func TestAForbiddenTargetIsNotSaved(t *testing.T) {
	o := openOffice(t, keyOf("a"))
	version := o.put(t, byPassword).Provider.Version
	o.meets(refuses(mail.Outcome{Class: mail.Configuration, Scope: mail.ScopeProvider, Cause: mail.TargetForbidden, Step: "dial"}))
	p := o.call(t, "PUT", "/v1/provider", adminToken, byRelay).problem(t)
	if p.Type != invalidSettings.uri() || len(p.Errors) != 1 || p.Errors[0].Location != "/smtp/host" || !strings.Contains(p.Errors[0].Reason, "network.forbidden") {
		t.Errorf("%+v", p)
	}
	if got := o.show(t); got.Version != version || got.Settings.SMTP.Host != "mail.example.com" || got.Health.State != "ok" {
		t.Errorf("%+v", got)
	}
}

func TestOfTwoChangesAtOnceOneWins(t *testing.T) {
	o := openOffice(t, keyOf("a"))
	other := o.beside(t, keyOf("a"))
	version := o.put(t, byPassword).Provider.Version
	// Both have seen the former settings when they are tried, and go on together.
	var both sync.WaitGroup
	both.Add(2)
	together := func(s *provider.Settings) []provider.Step {
		both.Done()
		both.Wait()
		return works(s)
	}
	o.meets(together)
	other.meets(together)
	replies := make(chan reply, 2)
	go func() { replies <- o.call(t, "PUT", "/v1/provider", adminToken, byGraph) }()
	go func() { replies <- other.call(t, "PUT", "/v1/provider", "second-admin", byRelay) }()
	won := ProviderChanged{}
	lost := 0
	for range 2 {
		if r := <-replies; r.status == 200 {
			r.decode(t, &won)
		} else if p := r.problem(t); p.Type == providerChanged.uri() {
			lost++
		} else {
			t.Errorf("%+v", p)
		}
	}
	p := o.show(t)
	if lost != 1 || p.Version != won.Provider.Version || p.Version == version || p.Kind != won.Provider.Kind {
		t.Fatalf("%d lost; %+v is active, %+v won", lost, p, won)
	}
	_, kept := o.stored(t)
	want := map[string]string{"smtp": "second", "microsoft365": "root"}[p.Kind]
	if p.By != want || string(kept.Kind) != p.Kind || string(p.Settings.Kind) != p.Kind || kept.SMTP.Auth.Password != "" || len(o.latest(t, 9)) != 3 { // the loser's were tried, too
		t.Errorf("a mixture: %+v by %s, kept %+v", p, p.By, kept)
	}
}

func TestWhileAFileHasTheSettingsTheyCanOnlyBeLookedAt(t *testing.T) {
	o := openOffice(t, keyOf("a"))
	settings := provider.Settings{Kind: provider.KindSMTP, Sender: mail.Address{Address: "file@example.com"}, SMTP: provider.SMTPSettings{Host: "file.example.com"}}
	settings.Defaults()
	active, err := activeOf(&settings)
	if err != nil {
		t.Fatal(err)
	}
	version, err := o.queue.DeclareProvider(t.Context(), active, "salt", "fingerprint", "post1")
	if err != nil {
		t.Fatal(err)
	}
	if p := o.show(t); p.Version != version || p.Source != "file" || !p.ReadOnly || p.By != "" || p.Settings.SMTP.Host != "file.example.com" {
		t.Errorf("%+v", p)
	}
	for _, r := range []reply{
		o.call(t, "PUT", "/v1/provider", adminToken, byRelay),
		o.call(t, "PUT", "/v1/provider", adminToken, `{"kind": "none"}`),
		o.call(t, "DELETE", "/v1/provider", adminToken, ""),
		o.call(t, "POST", "/v1/provider/reseal", adminToken, ""),
	} {
		if p := r.problem(t); p.Type != readOnlyProvider.uri() {
			t.Errorf("%+v", p)
		}
	}
	if got := o.latest(t, 9); o.show(t).Version != version || o.triedTimes() != 0 || !slices.Equal(got, []string{" post1 provider.set smtp: from the configuration file"}) {
		t.Errorf("something was changed, or tried: %q", got)
	}
	// A minute after the last process with such a file.
	o.redis.FastForward(45 * time.Second)
	if err := o.queue.KeepDeclared(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.redis.FastForward(59 * time.Second)
	if !o.show(t).ReadOnly {
		t.Error("the declaration has lapsed too early")
	}
	o.redis.FastForward(2 * time.Second)
	if p := o.show(t); p.ReadOnly || p.Source != "file" || p.Version != version {
		t.Errorf("after the declaration: %+v", p)
	}
	if c := o.put(t, byRelay); c.Provider.Source != "api" || c.Provider.ReadOnly || c.Provider.Settings.SMTP.Host != "relay.example.com" {
		t.Errorf("%+v", c)
	}
	if p, _ := o.stored(t); p.Fingerprint != "" || p.Salt != "" {
		t.Errorf("of the file's settings is left: %+v", p)
	}
}

func TestAProcessThatCannotChangeTheProviderSaysSo(t *testing.T) {
	a := serve(t, nil)
	for path, want := range map[string]refusal{"PUT /v1/provider": readOnlyProvider, "DELETE /v1/provider": readOnlyProvider, "POST /v1/provider/reseal": readOnlyProvider,
		"POST /v1/provider/verify": unreadableSettings, "POST /v1/provider/test": unreadableSettings} {
		method, path, _ := strings.Cut(path, " ")
		body := map[string]string{"PUT": byRelay, "POST": `{}`}[method]
		if strings.HasSuffix(path, "/test") {
			body = `{"to": "ada@example.net"}`
		}
		if p := a.call(t, method, path, adminToken, body).problem(t); p.Type != want.uri() {
			t.Errorf("%s %s: %+v", method, path, p)
		}
	}
}
