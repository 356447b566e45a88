package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/config"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/queue"
)

const testToken = "a-token-that-nobody-may-see"

// ran is what one run of the program came to.
type ran struct {
	stdout, stderr string
	code           int
}

// postroom runs the program in this process, as main does.
func postroom(t *testing.T, stdin string, args ...string) ran {
	t.Helper()
	var stdout, stderr bytes.Buffer
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	err := root.ExecuteContext(t.Context())
	if err != nil {
		stderr.WriteString(explain(err) + "\n")
	}
	r := ran{stdout.String(), stderr.String(), exitCode(err)}
	if strings.Contains(r.stdout+r.stderr, testToken) {
		t.Errorf("%q shows the token:\n%s%s", args, r.stdout, r.stderr)
	}
	return r
}

// want checks the code, and that each of the texts stands in what was written.
func (r ran) want(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
	for _, text := range texts {
		if !strings.Contains(r.stdout+r.stderr, text) {
			t.Errorf("nothing says %q", text)
		}
	}
	if t.Failed() {
		t.Logf("stdout:\n%s\nstderr:\n%s", r.stdout, r.stderr)
	}
}

// environment lets the commands find the server at url.
func environment(t *testing.T, url string) {
	t.Setenv("POSTROOM_URL", url)
	t.Setenv("POSTROOM_TOKEN", testToken)
	t.Setenv("POSTROOM_TOKEN_FILE", "")
}

// startAPI starts the real API over a queue that nobody works off.
func startAPI(t *testing.T, wrap func(http.Handler) http.Handler) *queue.Queue {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})
	t.Cleanup(func() { _ = client.Close() })
	q, err := queue.Open(t.Context(), queue.Options{Client: client})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(testToken))
	handler := admin.NewHandler(admin.Options{Queue: q, Tokens: []admin.Token{{Name: "test", Role: "operator", SHA256: hex.EncodeToString(sum[:])}}})
	if wrap != nil {
		handler = wrap(handler)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	environment(t, server.URL)
	return q
}

// startFake starts a server that answers as answer says.
func startFake(t *testing.T, answer http.HandlerFunc) {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	environment(t, server.URL)
}

// file writes a file of the test and gives its path.
func file(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMistypedCommandLinesAreUsageErrors(t *testing.T) {
	environment(t, "http://127.0.0.1:1")
	for _, test := range []struct{ line, want string }{
		{"sendd", "did you mean send?"},
		{"message shw 1", "did you mean show?"},
		{"message export", "see postroom message --help"},
		{"message show", "ID is missing"},
		{"batch cancel 1 2", "too many arguments"},
		{"version now", "it takes none"},
		{"send --knd alert", "unknown flag"},
		{"batch show --output xml 1", "neither table nor json"},
		{"token new --role root", "producer, operator and admin"},
		{"token new --name a:b", "--name"},
		{"mailbox lst", "did you mean list?"},
		{"mailbox explain", "ADDRESS is missing"},
		{"mailbox list news@x.example", "it takes none"},
		{"mailbox pause --reason x", "ADDRESS is missing"},
		{"mailbox pause news@x.example", "--reason is missing"},
		{"mailbox pause news@x.example --reason x --duration 31d", "--duration: \"31d\" is not a time from 1s to 30d"},
		{"mailbox pause news@x.example --reason x --duration 2", "--duration"},
		{"mailbox resume", "ADDRESS is missing"},
		{"pause", "for one mailbox use postroom mailbox pause ADDRESS"},
		{"pause --reason x", "postroom pause takes --all"},
		{"pause news@x.example --reason x", "postroom mailbox pause ADDRESS"},
		{"pause --all news@x.example --reason x", "postroom mailbox pause ADDRESS"},
		{"pause --all", "--reason is missing"},
		{"resume", "postroom mailbox resume ADDRESS"},
		{"resume news@x.example", "postroom mailbox resume ADDRESS"},
		{"batch show --url ftp://x 1", "--url: it is not a URL such as"},
		{"batch show --url http://user:secret@x 1", "--url: it is not a URL such as"},
	} {
		r := postroom(t, "", strings.Fields(test.line)...)
		r.want(t, exitUsage, test.want)
		if r.stdout != "" || strings.Contains(r.stderr, "secret") {
			t.Errorf("%s: stdout %q, stderr %q", test.line, r.stdout, r.stderr)
		}
	}
}

func TestEveryCommandExplainsItself(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Short == "" || c.RunE == nil && c.Run == nil {
			t.Errorf("%s has no short help, or does nothing", c.CommandPath())
		}
		for _, below := range c.Commands() {
			walk(below)
		}
	}
	walk(newRootCommand())
	postroom(t, "").want(t, 0, "Exit codes", "POSTROOM_TOKEN_FILE", "send", "serve", "demo", "token", "mailbox", "pause", "resume")
	postroom(t, "", "message").want(t, 0, "cancel", "show")
	postroom(t, "", "mailbox").want(t, 0, "explain", "list", "pause", "resume")
	postroom(t, "", "send", "--help").want(t, 0, "list_unsubscribe", "--idempotency-key", "df -h |")
	postroom(t, "", "__complete", "send", "--kind", "").want(t, 0, "alert\nreport\nsubscription\n")
}

func TestVersion(t *testing.T) {
	postroom(t, "", "version").want(t, 0, "postroom "+version())
	postroom(t, "", "--version").want(t, 0, "postroom "+version()+"\n")
}

func TestTokenNewMakesWhatTheServerTakes(t *testing.T) {
	first := postroom(t, "", "token", "new", "--role", "operator", "--name", "ops")
	first.want(t, 0)
	token := strings.TrimSuffix(first.stdout, "\n")
	if len(token) < 43 || strings.ContainsAny(token, " \n") {
		t.Errorf("stdout is %q, want a token alone", first.stdout)
	}
	if strings.Contains(first.stderr, token) {
		t.Error("stderr has the token too")
	}
	_, yaml, _ := strings.Cut(first.stderr, "\n\n")
	cfg, err := config.Load(file(t, "postroom.yaml", yaml), nil)
	if err != nil {
		t.Fatalf("the server does not take\n%s\n%v", yaml, err)
	}
	sum := sha256.Sum256([]byte(token))
	if got, want := cfg.Auth.Tokens[0], (config.Token{Name: "ops", Role: "operator", SHA256: hex.EncodeToString(sum[:])}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if again := postroom(t, "", "token", "new"); again.stdout == first.stdout {
		t.Error("two tokens are the same")
	}
}

func TestTokenNewBindsAProducer(t *testing.T) {
	r := postroom(t, "", "token", "new", "--name", "app", "--sender", "Reports@Example.com", "--sender", "@news.example.com", "--kind", "report,alert", "--requests-per-minute", "60")
	r.want(t, 0)
	_, yaml, _ := strings.Cut(r.stderr, "\n\n")
	cfg, err := config.Load(file(t, "postroom.yaml", yaml), nil)
	if err != nil {
		t.Fatalf("the server does not take\n%s\n%v", yaml, err)
	}
	got := cfg.Auth.Tokens[0]
	if !slices.Equal(got.Kinds, []string{"report", "alert"}) || len(got.Senders) != 2 || got.Senders[1] != "@news.example.com" || got.RequestsPerMinute != 60 {
		t.Errorf("%+v", got)
	}
	for words, arguments := range map[string][]string{
		"bind producers alone": {"--role", "admin", "--kind", "alert"},
		"is not one of alert":  {"--kind", "newsletter"},
		"neither an address":   {"--sender", "reports at home"},
		"0 for no limit":       {"--requests-per-minute", "-1"},
	} {
		postroom(t, "", append([]string{"token", "new"}, arguments...)...).want(t, exitUsage, words)
	}
}

func TestWhereTheTokenComesFrom(t *testing.T) {
	var got string
	startFake(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		_, _ = w.Write([]byte(`{"id":"1","state":"queued"}`))
	})
	other, two := file(t, "other", "from-file\r\n"), file(t, "two", "one two")
	for name, test := range map[string]struct {
		token, file string
		args        []string
		code        int
		want        string
	}{
		"environment":     {testToken, "", nil, 0, testToken},
		"file":            {"", other, nil, 0, "from-file"},
		"flag before all": {testToken, "x", []string{"--token-file", other}, 0, "from-file"},
		"none":            {"", "", nil, exitUsage, "there is no token"},
		"both":            {testToken, other, nil, exitUsage, "are both set"},
		"no such file":    {"", other + "x", nil, exitUsage, "POSTROOM_TOKEN_FILE: open"},
		"two words":       {"", "", []string{"--token-file", two}, exitUsage, "--token-file: it does not hold one token"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("POSTROOM_TOKEN", test.token)
			t.Setenv("POSTROOM_TOKEN_FILE", test.file)
			got = ""
			r := postroom(t, "", append([]string{"message", "show", "1"}, test.args...)...)
			if test.code != 0 {
				r.want(t, test.code, test.want)
				return
			}
			if r.want(t, 0); got != "Bearer "+test.want {
				t.Errorf("the server saw another token")
			}
		})
	}
}

func TestProblemsAreExplained(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		header string
		body   string
		code   int
		want   []string
	}{
		"a problem": {422, "", `{"type":"t","title":"The message can't be accepted","detail":"Correct it.","errors":[{"location":"/to/0","reason":"is wrong"},{"location":"","reason":"is too large"}]}`,
			exitFault, []string{"The message can't be accepted (422)\n  /to/0 is wrong\n  the message is too large\nCorrect it.\n"}},
		"no room":             {503, "30", `{"title":"There is no room"}`, exitTryAgain, []string{"There is no room (503)\nTry again in 30s."}},
		"too many requests":   {429, "", `{}`, exitTryAgain, []string{"Too Many Requests (429)"}},
		"not ours":            {502, "", `<html>`, exitTryAgain, []string{"Bad Gateway (502)"}},
		"a redirect":          {302, "", ``, exitFault, []string{"Found (302)"}},
		"no JSON":             {200, "", `<html>`, exitFault, []string{"answer"}},
		"commands a terminal": {404, "", `{"title":"\u001b[2Jgone"}`, exitFault, []string{" [2Jgone (404)"}},
	} {
		t.Run(name, func(t *testing.T) {
			startFake(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/problem+json")
				if test.header != "" {
					w.Header().Set("Retry-After", test.header)
				}
				if test.status == 302 {
					w.Header().Set("Location", "/elsewhere")
				}
				w.WriteHeader(test.status)
				_, _ = w.Write([]byte(test.body))
			})
			r := postroom(t, "", "message", "show", "1")
			r.want(t, test.code, test.want...)
			if r.stdout != "" {
				t.Errorf("stdout has %q", r.stdout)
			}
		})
	}
}

func TestServerThatIsNotTrusted(t *testing.T) {
	server := httptest.NewUnstartedServer(nil)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	environment(t, server.URL)
	postroom(t, "", "batch", "show", "1").want(t, exitFault, "certificate")
}

func TestUnreachableServer(t *testing.T) {
	server := httptest.NewServer(nil)
	server.Close()
	environment(t, server.URL)
	postroom(t, "", "batch", "show", "1").want(t, exitTryAgain, "postroom: Get ", "Is the URL right, and the server running?", "--url or POSTROOM_URL")
	postroom(t, "", "send", "--kind", "alert", "--to", "a@x.example", "--text", "x").want(t, exitTryAgain, "repeat the command with --idempotency-key ")
}

func TestATokenThatTheServerDoesNotHaveIsCalledSo(t *testing.T) {
	startAPI(t, nil)
	t.Setenv("POSTROOM_TOKEN", "of-another-server")
	postroom(t, "", "batch", "show", "1").want(t, exitFault, "is not one of this server's: auth.tokens")
}

// cuts is a writer that ends something when a text was written.
type cuts struct {
	bytes.Buffer
	at  string
	end context.CancelFunc
}

func (c *cuts) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(c.at)) {
		c.end()
	}
	return c.Buffer.Write(p)
}

func TestTheDemoInvitesWhoeverStays(t *testing.T) {
	for _, exit := range []bool{true, false} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		out := &cuts{at: "Ctrl-C ends the demo", end: cancel}
		d := demo{out: out, log: slog.New(slog.DiscardHandler), subscribers: 1, kind: provider.KindSMTP}
		if err := d.run(ctx, exit); err != nil || !strings.Contains(out.String(), "All 3 messages arrived intact") || strings.Contains(out.String(), "export POSTROOM_URL=") == exit {
			t.Errorf("exit %v: %v\n%s", exit, err, out.String())
		}
		cancel()
	}
}

func TestServeSaysWhatToDoWithoutRedis(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out := &cuts{at: "waiting for it", end: cancel}
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1})
	defer func() { _ = client.Close() }()
	_, err := newServer(ctx, serverOptions{config: config.Default(), redis: client, log: slog.New(slog.NewTextHandler(out, nil)), api: true})
	if err == nil || !strings.Contains(out.String(), "POSTROOM_REDIS_URL") {
		t.Errorf("%v\n%s", err, out.String())
	}
}
