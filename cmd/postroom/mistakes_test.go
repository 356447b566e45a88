package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/config"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/oauth"
	"github.com/postroom/postroom/provider/smtp"
	"github.com/postroom/postroom/provider/smtp/smtptest"
)

var update = flag.Bool("update", false, "write anew what the tests make of the code: provider/MISTAKES.md, deploy/METRICS.md")

// mistakesFile is the documentation that the mistakes of all tests here go into.
const mistakesFile = "../../provider/MISTAKES.md"

// mistake is one that an administrator makes.
type mistake struct {
	name string // as the documentation has it
	// wrong are JSON pointers to what was set wrongly; none if it is nothing of the settings.
	wrong []string
	// instead is why another field is named than one of wrong, or none. The remedy has to mention a wrong field then.
	instead string
	// does names the step that fails; it is empty where nothing is tried.
	does string
	// make gives the settings with the mistake in them, and where they are tried.
	make func(*testing.T) trial
}

// trial are settings to try, and the world that they are tried in.
type trial struct {
	settings provider.Settings
	// world takes the place of DNS and routes: nil leaves everything as it is.
	world *world
	// shown, if set, are the settings as an administrator has them; those tried have the addresses of peers.
	shown *provider.Settings
	// before are the active settings, for what is found before anything is tried.
	before *provider.Settings
	// secrets are more texts that nobody may see; those of the settings are known.
	secrets []string
	// patience bounds the check; 0: a minute.
	patience time.Duration
}

// world leads every name to one server on the loopback.
type world struct {
	server   string        // host:port
	resolver *net.Resolver // used if there is no server
	login    string        // where requests to https://login.microsoftonline.com go
}

// DialContext implements smtp.Dialer.
func (w *world) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Resolver: w.resolver}
	return d.DialContext(ctx, network, cmp.Or(w.server, address))
}

// RoundTrip implements http.RoundTripper.
func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	if path, ok := strings.CutPrefix(r.URL.String(), "https://login.microsoftonline.com"); ok && w.login != "" {
		moved, err := http.NewRequestWithContext(r.Context(), r.Method, w.login+path, r.Body)
		if err != nil {
			return nil, err
		}
		moved.Header, moved.ContentLength = r.Header, r.ContentLength
		r = moved
	}
	return http.DefaultTransport.RoundTrip(r)
}

// verify goes the way of `postroom provider verify`.
func (tr *trial) verify(t *testing.T) []provider.Step {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), cmp.Or(tr.patience, time.Minute))
	defer cancel()
	cfg, log := config.Default(), slog.New(slog.DiscardHandler)
	var steps []provider.Step
	var err error
	if tr.world == nil {
		steps, err = (&providers{config: cfg, log: log}).check(ctx, &tr.settings)
	} else {
		steps, err = tr.away(ctx, cfg, log)
	}
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

// away is providers.check with other ways to the same hosts.
func (tr *trial) away(ctx context.Context, cfg *config.Config, log *slog.Logger) ([]provider.Step, error) {
	with, err := newParts(cfg, &tr.settings, log)
	if err != nil {
		return nil, err
	}
	defer with.close()
	with.smtp.Dialer = tr.world
	if tr.settings.SMTP.Auth.Method == provider.AuthOAuth2 {
		source, err := oauth.ForSMTP(&tr.settings.SMTP, oauth.Options{HTTP: &http.Client{Transport: tr.world}, Guard: with.smtp.Guard})
		if err != nil {
			return nil, err
		}
		defer source.Close()
		with.smtp.Tokens = source
	}
	return smtp.Check(ctx, tr.settings, with.smtp)
}

// told is what a mistake comes to.
type told struct {
	name, step, field, happened, answer, remedy string
}

// tell makes a mistake and gives what is said about it.
func (m *mistake) tell(t *testing.T) told {
	t.Helper()
	tr := m.make(t)
	tr.settings.Defaults()
	got := told{name: m.name}
	if problems := provider.Check(&tr.settings, tr.before); m.does == "" {
		if len(problems) != 1 {
			t.Fatalf("found %v, want one fault", problems)
		}
		got.field = problems[0].Field
		fault, remedy, apart := strings.Cut(problems[0].Reason, "; ")
		got.happened, got.remedy = fault+".", capital(remedy)+"."
		if !apart { // what is wrong says what to do
			got.remedy = capital(got.happened)
		}
	} else {
		if len(problems) > 0 {
			t.Fatalf("nothing is tried: %v", problems)
		}
		steps := tr.verify(t)
		f := provider.Failed(steps)
		if f == nil {
			t.Fatalf("nothing fails: %+v", steps)
		}
		shown := &tr.settings
		if tr.shown != nil {
			shown = tr.shown
		}
		blame := shown.Blame(*f.Outcome)
		got.step, got.field, got.happened, got.remedy = f.Name, blame.Field, provider.Advise(*f.Outcome).Happened, blame.Remedy
		got.answer = outcomeAnswer(f.Outcome)
	}
	m.judge(t, got)
	tr.keeps(t, got)
	return got
}

// judge checks that what is said leads to what is wrong.
func (m *mistake) judge(t *testing.T, got told) {
	t.Helper()
	if got.step != m.does {
		t.Errorf("step %q failed, want %q: %+v", got.step, m.does, got)
	}
	if got.happened == "" || got.remedy == "" || got.remedy == "." {
		t.Errorf("something is not said: %+v", got)
	}
	if slices.Contains(m.wrong, got.field) {
		return
	}
	if m.instead == "" {
		t.Errorf("the field is %q, want one of %q: %+v", got.field, m.wrong, got)
	}
	if len(m.wrong) > 0 && !slices.ContainsFunc(m.wrong, func(at string) bool { return strings.Contains(got.remedy, lastKey(at)) }) {
		t.Errorf("the remedy does not mention any of %q: %q", m.wrong, got.remedy)
	}
}

// keeps checks that no part of a secret is told.
func (tr *trial) keeps(t *testing.T, got told) {
	t.Helper()
	s := &tr.settings
	secrets := append(tr.secrets, s.SMTP.Auth.Password.Reveal(), s.SMTP.Auth.OAuth2.ClientSecret.Reveal(),
		s.Microsoft365.ClientSecret.Reveal(), s.Microsoft365.PrivateKeyPEM.Reveal())
	for _, secret := range secrets {
		if secret == "" || secret == provider.Redacted || strings.HasPrefix(secret, "-----") {
			continue
		}
		if said := fmt.Sprintf("%+v", got); strings.Contains(said, secret[:min(len(secret), 8)]) {
			t.Errorf("%q is told: %s", secret, said)
		}
	}
	for _, word := range []string{"PRIVATE KEY-----\n", "eyJ", "c2VjcmV0"} {
		if said := fmt.Sprintf("%+v", got); strings.Contains(said, word) {
			t.Errorf("a key or a token is told: %s", said)
		}
	}
}

// lastKey is the setting's own name of a JSON pointer, as remedies have it.
func lastKey(pointer string) string {
	keys := strings.Split(pointer, "/")
	last := keys[len(keys)-1]
	if _, err := strconv.Atoi(last); err == nil && len(keys) > 1 {
		last = keys[len(keys)-2]
	}
	if pointer == "/sender/address" {
		return "sender"
	}
	return last
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// What differs from run to run.
var (
	somePort = regexp.MustCompile(`127\.0\.0\.1:\d+`)
	someTime = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
)

// outcomeAnswer is what the server said, with placeholders for what differs from run to run.
func outcomeAnswer(o *mail.Outcome) string {
	reply, _, _ := strings.Cut(o.Reply, " Trace ID: ")
	reply, _, _ = strings.Cut(reply, " (request-id ")
	reply = someTime.ReplaceAllString(somePort.ReplaceAllString(reply, "ADDRESS:PORT"), "TIME")
	return faultAnswer(&admin.ProviderFault{Code: o.Code, Enhanced: o.Enhanced, Answer: reply})
}

// playServer gives the address of a server on the loopback that plays one script.
func playServer(t *testing.T, config *tls.Config, script string) string {
	t.Helper()
	peer := smtptest.Play(t, script)
	peer.TLS = config
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		server, err := peer.DialContext(context.Background(), "", "")
		if err != nil {
			_ = client.Close()
			return
		}
		go func() {
			_, _ = io.Copy(server, client)
			_ = server.Close()
		}()
		_, _ = io.Copy(client, server)
		_ = client.Close()
	}()
	return listener.Addr().String()
}

// nobody is an address on the loopback at which nothing listens.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	return l.Addr().String()
}

// nameless is a resolver whose DNS server knows no name.
func nameless(t *testing.T) *net.Resolver {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	go func() {
		for query := make([]byte, 512); ; {
			n, from, err := server.ReadFrom(query)
			if err != nil {
				return
			}
			answer := slices.Clone(query[:n])
			answer[2], answer[3] = 0x81, 0x83 // an answer: no such name (RFC 1035, section 4.1.1)
			_, _ = server.WriteTo(answer, from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

// A mistake that is not told well, or told otherwise than the documentation has it, fails here.
func TestEachMistakeIsToldWithItsFieldAndRemedy(t *testing.T) {
	var b strings.Builder
	b.WriteString(mistakesHead)
	read := map[string]bool{}
	for _, section := range []struct {
		title, words string
		mistakes     []mistake
	}{
		{"Mail server (SMTP)", "", smtpMistakes()},
		{"OAuth 2.0 for SMTP", aboutSMTPTokens, tokenMistakes()},
		{"Microsoft 365", aboutMicrosoft365, microsoft365Mistakes()},
		{"Found before anything is tried", aboutValidation, validationMistakes()},
	} {
		fmt.Fprintf(&b, "\n## %s\n\n%s| mistake | what is said | remedy |\n| --- | --- | --- |\n", section.title, section.words)
		for _, m := range section.mistakes {
			name := section.title + ": " + m.name
			t.Run(name, func(t *testing.T) {
				if read[name] {
					t.Error("two mistakes have this name")
				}
				read[name] = true
				b.WriteString(m.tell(t).row())
			})
		}
	}
	if *update && !t.Failed() {
		if err := os.WriteFile(mistakesFile, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	recorded, err := os.ReadFile(mistakesFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if string(recorded) != b.String() {
		t.Errorf("%s is not what is told: read the difference after go test ./cmd/postroom -run EachMistake -update", mistakesFile)
	}
}

// row writes a line of the table.
func (d told) row() string {
	var said string
	switch {
	case d.step == "" && d.remedy == capital(d.happened):
		said = "field `" + keyed(d.field) + "`"
	case d.step == "":
		said = "field `" + keyed(d.field) + "` " + d.happened
	case d.field == "":
		said = "step `" + d.step + "`<br>" + d.happened
	default:
		said = "step `" + d.step + "`, field `" + keyed(d.field) + "`<br>" + d.happened
	}
	if d.answer != "" {
		said += "<br>answer: *" + cell(d.answer) + "*"
	}
	return "| " + d.name + " | " + said + " | " + d.remedy + " |\n"
}

// keyed writes a JSON pointer as postroom.yaml has it, below provider.
func keyed(pointer string) string { return strings.ReplaceAll(strings.Trim(pointer, "/"), "/", ".") }

// cell takes out of others' words what a table gives a meaning.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "*", `\*`, "<", "&lt;", "_", `\_`).Replace(text)
}

const mistakesHead = `# What is said about mistakes

Each mistake in the settings of a provider, and what ` + "`postroom provider verify`" + ` says about it: the step that fails, the field to
blame as it stands below ` + "`provider:`" + ` in postroom.yaml, what happened, the other side's own answer if it gave one, and what to do. The
tests make every one of these mistakes and write this file (` + "`go test ./cmd/postroom -run EachMistake -update`" + `); it is not written by hand.
`
