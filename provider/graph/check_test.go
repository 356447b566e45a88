package graph_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/graph"
	"github.com/postroom/postroom/provider/graph/graphtest"
	"github.com/postroom/postroom/provider/oauth"
)

// trial is a check of a simulated tenant.
type trial struct {
	tenant   *graphtest.Tenant
	settings provider.Settings
	client   *http.Client // nil: those of production
	guard    *provider.Guard
	watch    *watched
}

// watched are tokens whose texts are kept, to see that they are not shown.
type watched struct {
	*oauth.Source
	tokens []string
}

func (w *watched) Grant(ctx context.Context) (provider.Granted, error) {
	g, err := w.Source.Grant(ctx)
	w.tokens = append(w.tokens, g.Token.Reveal())
	return g, err
}

func try(t *testing.T, o graphtest.Options) *trial {
	t.Helper()
	if o.Mailboxes == nil {
		o.Mailboxes = []graphtest.Mailbox{{Address: reports}}
	}
	tenant := graphtest.Run(t, o)
	return &trial{tenant: tenant, settings: tenant.Settings(mail.Address{Address: reports}), client: tenant.Client()}
}

func (tr *trial) check(ctx context.Context, t *testing.T) []provider.Step {
	t.Helper()
	source, err := oauth.ForMicrosoft365(&tr.settings.Microsoft365, oauth.Options{HTTP: tr.client, Guard: tr.guard})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	tr.watch = &watched{Source: source}
	steps, err := graph.Check(ctx, tr.settings, graph.Options{Tokens: tr.watch, HTTP: tr.client, Guard: tr.guard})
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{tr.settings.Microsoft365.ClientSecret.Reveal(), tr.settings.Microsoft365.PrivateKeyPEM.Reveal()}
	for _, token := range tr.watch.tokens {
		secrets = append(secrets, strings.Split(token, ".")...)
	}
	for _, s := range steps {
		told := fmt.Sprintf("%+v %+v", s, s.Outcome)
		for _, secret := range secrets {
			if secret != "" && strings.Contains(told, secret[:min(len(secret), 12)]) {
				t.Errorf("a step shows a secret: %s", told)
			}
		}
		if (s.Outcome != nil) != (s.State == provider.StepFailed) || s.Took < 0 || s.State != provider.StepFailed && s.Found == "" {
			t.Errorf("%s", told)
		}
	}
	if tr.tenant.Received() != 0 || tr.tenant.Drafts(reports) != 0 {
		t.Error("something was sent or made")
	}
	return steps
}

// states writes steps as "resolve- connect+ tls!": skipped, passed, failed.
func states(steps []provider.Step) string {
	signs := map[provider.StepState]string{provider.StepSkipped: "-", provider.StepPassed: "+", provider.StepFailed: "!"}
	var words []string
	for _, s := range steps {
		words = append(words, s.Name+signs[s.State])
	}
	return strings.Join(words, " ")
}

func went(t *testing.T, steps []provider.Step, want string) {
	t.Helper()
	if got := states(steps); got != want {
		t.Errorf("got %s\nwant %s", got, want)
		for _, s := range steps {
			t.Logf("%s: %s %+v", s.Name, s.Found, s.Outcome)
		}
	}
}

func finds(t *testing.T, steps []provider.Step, n int, words ...string) {
	t.Helper()
	for _, w := range words {
		if n >= len(steps) || !strings.Contains(steps[n].Found, w) {
			t.Errorf("step %d of %+v does not say %q", n, steps, w)
		}
	}
}

const (
	overTLS = "resolve- connect+ tls+ "
	plainly = "resolve- connect+ tls- "
	token   = "token+ permissions+ "
)

func TestCheckPassesEveryStepAndSendsNothing(t *testing.T) {
	tr := try(t, graphtest.Options{TLS: true})
	began := time.Now()
	steps := tr.check(t.Context(), t)
	whole := time.Since(began)
	went(t, steps, overTLS+token+overTLS+"sender+")
	login, graphHost := strings.TrimPrefix(tr.tenant.LoginURL(), "https://"), strings.TrimPrefix(tr.tenant.GraphURL(), "https://")
	finds(t, steps, 0, "127.0.0.1 is an address already")
	finds(t, steps, 1, login)
	finds(t, steps, 2, login, "TLS 1.3", "CN=graphtest,", "CN=graphtest CA", "localhost, 127.0.0.1", "good until")
	finds(t, steps, 3, "from "+login, "good until "+time.Now().UTC().Add(time.Hour).Format(time.DateOnly))
	finds(t, steps, 4, "Mail.Send, Mail.ReadWrite")
	finds(t, steps, 6, graphHost)
	finds(t, steps, 7, graphHost, "CN=graphtest CA")
	finds(t, steps, 8, reports)
	for _, s := range steps {
		whole -= s.Took
	}
	if whole < 0 {
		t.Errorf("the steps took longer than the check: %+v", steps)
	}
	var operations []graphtest.Operation
	for _, r := range tr.tenant.Requests() {
		operations = append(operations, r.Operation)
	}
	if !slices.Equal(operations, []graphtest.Operation{graphtest.GetToken, graphtest.GetFolder}) || tr.tenant.Usage(reports).Requests != 1 {
		t.Errorf("%v, %+v", operations, tr.tenant.Usage(reports))
	}
}

// app is the tenant's app with other permissions, or another life of its secret.
func app(change func(*graphtest.App)) graphtest.Options {
	a := graphtest.DefaultApp()
	change(&a)
	return graphtest.Options{Apps: []graphtest.App{a}}
}

func TestCheckEndsWhereAnAttemptWould(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + closed.Addr().String()
	_ = closed.Close()
	only := func(permissions ...string) graphtest.Options {
		return app(func(a *graphtest.App) { a.Permissions = append([]string{}, permissions...) })
	}
	mailboxIs := func(s graphtest.State) graphtest.Options {
		return graphtest.Options{Mailboxes: []graphtest.Mailbox{{Address: reports, State: s}}}
	}
	says := func(on graphtest.Operation, status int, after string) func(*trial) {
		return func(tr *trial) {
			tr.tenant.Provoke(graphtest.Mishap{On: []graphtest.Operation{on}, Answer: &graphtest.Answer{Status: status, RetryAfter: after}})
		}
	}
	cuts := func(on graphtest.Operation) func(*trial) {
		return func(tr *trial) { tr.tenant.Provoke(graphtest.Mishap{On: []graphtest.Operation{on}, Cut: true}) }
	}
	m365 := func(change func(*provider.Microsoft365Settings)) func(*trial) {
		return func(tr *trial) { change(&tr.settings.Microsoft365) }
	}
	for name, v := range map[string]struct {
		options graphtest.Options
		change  func(*trial)
		want    string
		class   mail.Class
		cause   mail.Cause
	}{
		"wrong tenant":   {graphtest.Options{}, m365(func(s *provider.Microsoft365Settings) { s.TenantID = "other.example.com" }), plainly + "token!", mail.Configuration, mail.TenantNotFound},
		"wrong app":      {graphtest.Options{}, m365(func(s *provider.Microsoft365Settings) { s.ClientID = "97e0a5b7-d745-40b6-94fe-5f77d35c6e05" }), plainly + "token!", mail.Configuration, mail.AppNotFound},
		"wrong secret":   {graphtest.Options{}, m365(func(s *provider.Microsoft365Settings) { s.ClientSecret = "another~client.secret" }), plainly + "token!", mail.Configuration, mail.ClientRefused},
		"expired secret": {app(func(a *graphtest.App) { a.Secrets[0].Expires = time.Unix(1, 0) }), nil, plainly + "token!", mail.Configuration, mail.SecretExpired},
		"no such file":   {graphtest.Options{}, m365(func(s *provider.Microsoft365Settings) { s.ClientSecret, s.FederatedTokenFile = "", "/nowhere/token" }), "token!", mail.Configuration, mail.FederatedToken},
		"login down":     {graphtest.Options{}, m365(func(s *provider.Microsoft365Settings) { s.LoginURL = nobody }), "resolve- connect!", mail.Temporary, mail.TokenUnavailable},
		"login busy":     {graphtest.Options{}, says(graphtest.GetToken, 503, "7"), plainly + "token!", mail.Temporary, mail.TokenUnavailable},
		"login cut":      {graphtest.Options{}, cuts(graphtest.GetToken), plainly + "token!", mail.Temporary, mail.TokenUnavailable},
		"no TLS at login": {graphtest.Options{}, m365(func(s *provider.Microsoft365Settings) { s.LoginURL = strings.Replace(s.LoginURL, "http:", "https:", 1) }),
			"resolve- connect+ tls!", mail.Configuration, mail.TLSNotSpoken},
		"unknown CA":         {graphtest.Options{TLS: true}, func(tr *trial) { tr.client = nil }, "resolve- connect+ tls!", mail.Configuration, mail.CertificateInvalid},
		"forbidden":          {graphtest.Options{}, forbid, "resolve- connect!", mail.Configuration, mail.TargetForbidden},
		"no permission":      {only(), nil, plainly + "token+ permissions!", mail.Configuration, mail.PermissionMissing},
		"another permission": {only(graphtest.MailReadWrite), nil, plainly + "token+ permissions!", mail.Configuration, mail.PermissionMissing},
		"verify_sends without its permission": {only(graphtest.MailSend), m365(func(s *provider.Microsoft365Settings) { s.VerifySends = true }),
			plainly + "token+ permissions!", mail.Configuration, mail.PermissionMissing},
		"Graph down": {graphtest.Options{}, func(tr *trial) {
			tr.client = &http.Client{Transport: except{tr.client.Transport, tr.tenant.GraphURL()}}
		},
			plainly + token + "resolve- connect!", mail.Temporary, ""},
		"no mailbox":         {graphtest.Options{Mailboxes: []graphtest.Mailbox{{Address: "x@example.com"}}}, nil, plainly + token + plainly + "sender!", mail.Configuration, mail.MailboxNotFound},
		"no licence":         {mailboxIs(graphtest.Unlicensed), nil, plainly + token + plainly + "sender!", mail.Configuration, mail.MailboxNotFound},
		"denied by a policy": {mailboxIs(graphtest.Denied), nil, plainly + token + plainly + "sender!", mail.Configuration, mail.PermissionMissing},
		"throttled":          {graphtest.Options{}, says(graphtest.GetFolder, 429, "7"), plainly + token + plainly + "sender!", mail.Throttled, mail.RateExceeded},
		"token refused":      {graphtest.Options{}, says(graphtest.GetFolder, 401, ""), plainly + token + plainly + "sender!", mail.Configuration, mail.Credentials},
		"in trouble":         {graphtest.Options{}, says(graphtest.GetFolder, 504, ""), plainly + token + plainly + "sender!", mail.Temporary, ""},
		"Graph cut":          {graphtest.Options{}, cuts(graphtest.GetFolder), plainly + token + plainly + "sender!", mail.Temporary, ""},
	} {
		t.Run(name, func(t *testing.T) {
			tr := try(t, v.options)
			if v.change != nil {
				v.change(tr)
			}
			steps := tr.check(t.Context(), t)
			went(t, steps, v.want)
			f := provider.Failed(steps)
			if f == nil || f.Outcome.Class != v.class || f.Outcome.Cause != v.cause || f.Outcome.Reply == "" {
				t.Fatalf("%+v", f)
			}
			if v.class == mail.Throttled && f.Outcome.RetryAfter != 7*time.Second {
				t.Errorf("%+v", f.Outcome)
			}
		})
	}
}

// forbid has the guard forbid what the tenant is at.
func forbid(tr *trial) {
	tr.guard, _ = provider.NewGuard([]string{"127.0.0.1"})
	tr.client = nil
}

// except fails to connect to one host.
type except struct {
	http.RoundTripper
	base string
}

func (e except) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasPrefix(r.URL.String(), e.base) {
		down := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
		}}
		return down.RoundTrip(r)
	}
	return e.RoundTripper.RoundTrip(r)
}

func TestCheckWithoutReadingTouchesNoMailbox(t *testing.T) {
	tr := try(t, app(func(a *graphtest.App) { a.Permissions = []string{graphtest.MailSend} }))
	steps := tr.check(t.Context(), t)
	went(t, steps, plainly+token+plainly+"sender-")
	finds(t, steps, 4, "Mail.Send; without Mail.ReadWrite")
	finds(t, steps, 8, "send a test mail")
	if u := tr.tenant.Usage(reports); u.Requests != 0 {
		t.Errorf("%+v", u)
	}
}

// opaque gives one token that nobody can look into, and has it in hand.
type opaque struct{}

func (opaque) Token(context.Context) (string, error) { return "EwBoA8l6BAAU", nil }
func (opaque) Reject(string)                         {}

func TestCheckOfATokenThatCannotBeLookedInto(t *testing.T) {
	tr := try(t, graphtest.Options{})
	steps, err := graph.Check(t.Context(), tr.settings, graph.Options{Tokens: opaque{}, HTTP: tr.client})
	if err != nil {
		t.Fatal(err)
	}
	went(t, steps, "token+ permissions- "+plainly+"sender-")
}

func TestCheckIsBounded(t *testing.T) {
	for on, want := range map[graphtest.Operation]string{graphtest.GetToken: plainly + "token!", graphtest.GetFolder: plainly + token + plainly + "sender!"} {
		tr := try(t, graphtest.Options{})
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		tr.tenant.Provoke(graphtest.Mishap{On: []graphtest.Operation{on}, Delay: time.Hour})
		steps := tr.check(ctx, t)
		went(t, steps, want)
		if f := provider.Failed(steps); f == nil || f.Outcome.Class != mail.Temporary || f.Outcome.Reply != "timed out" {
			t.Errorf("%+v", f)
		}
	}
	tr := try(t, graphtest.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts, so that TLS gets no answer
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	tr.settings.Microsoft365.LoginURL = "https://" + silent.Addr().String()
	steps := tr.check(ctx, t)
	went(t, steps, "resolve- connect+ tls!")
}

func TestCheckTellsWhenTheAppsCertificateEnds(t *testing.T) {
	for days, words := range map[int]string{20: "(warning: it ends in 19 days)", 90: "the app's certificate is good until"} {
		made, err := graphtest.NewAppCertificate(time.Now().AddDate(0, 0, days))
		if err != nil {
			t.Fatal(err)
		}
		tr := try(t, app(func(a *graphtest.App) { a.Certificates = append(a.Certificates, made.Certificate) }))
		s := &tr.settings.Microsoft365
		s.ClientSecret, s.CertificatePEM, s.PrivateKeyPEM = "", made.CertificatePEM, provider.Secret(made.KeyPEM)
		steps := tr.check(t.Context(), t)
		went(t, steps, plainly+token+plainly+"sender+")
		finds(t, steps, 3, words)
		if days == 90 && strings.Contains(steps[3].Found, "warning") {
			t.Errorf("%s", steps[3].Found)
		}
	}
}

func TestCheckRefusesSettingsThatAreNoGood(t *testing.T) {
	var invalid *mail.Invalid
	if steps, err := graph.Check(t.Context(), provider.Settings{Kind: provider.KindMicrosoft365}, graph.Options{}); !errors.As(err, &invalid) || steps != nil {
		t.Errorf("%v, %v", steps, err)
	}
}
