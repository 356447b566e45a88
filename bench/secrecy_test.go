package bench

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/provider"
)

// recorder keeps all that a server answers: status, header and body.
type recorder struct {
	mu      sync.Mutex
	answers int
	text    bytes.Buffer
}

// RoundTrip implements http.RoundTripper.
func (r *recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers++
	fmt.Fprintln(&r.text, response.Status)
	_ = response.Header.Write(&r.text)
	r.text.Write(body)
	return response, nil
}

// secrecy is a Postroom that is watched.
type secrecy struct {
	*choice
	recorder recorder
	texts    map[string]string
	requests int // of administrators
}

// do makes a request as an administrator, and gives the answer's status and body.
func (c *secrecy) do(method, path, body string) (int, string) {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.front.url+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	response, err := c.recorder.RoundTrip(r)
	if err != nil {
		c.t.Fatal(err)
	}
	text, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(text)
}

// next is a client of the next administrator, as each has a ration.
func (c *secrecy) next() *admin.Client {
	c.t.Helper()
	c.requests++
	client, err := admin.NewClient(c.front.url, c.tokens[c.requests%len(c.tokens)], &http.Client{Transport: &c.recorder})
	if err != nil {
		c.t.Fatal(err)
	}
	return client
}

// keep has all that Redis holds now be searched in the end.
func (c *secrecy) keep(when string) { c.texts["Redis, "+when] = c.everything() }

// use does with one sort what can be done.
func (c *secrecy) use(s *login) {
	t := c.t
	t.Helper()
	ctx := t.Context()
	set := func(settings provider.Settings, result string) {
		t.Helper()
		changed, err := c.next().SetProvider(ctx, &settings, true)
		if err != nil || changed.Result != result {
			t.Fatalf("%s: %+v, %v; want %s", s.name, changed, err, result)
		}
	}
	verify := func(settings *provider.Settings, valid bool) {
		t.Helper()
		if v, err := c.next().VerifyProvider(ctx, settings); err != nil || v.Valid != valid {
			t.Fatalf("%s: %+v, %v; want valid: %v", s.name, v, err, valid)
		}
	}
	try := func(state string) {
		t.Helper()
		if r, err := c.next().TestProvider(ctx, "ada@example.net"); err != nil || r.State != state {
			t.Fatalf("%s: %+v, %v; want %s", s.name, r, err, state)
		}
	}
	set(s.wrong, "saved_not_valid")
	verify(nil, false)
	try("failed")
	c.keep("wrong settings, " + s.name)
	verify(&s.right, true)
	set(s.right, "saved")
	try("delivered")
	for _, provoke := range []func(){s.revoke, s.fail} {
		if provoke != nil {
			provoke()
		}
	}
	b := newsletter(5)
	b.Recipients[0].To[0].Address = "nobody@example.net"
	batch, _ := c.accept(b)
	await(t, time.Minute, "a batch to be through", func() bool { counts := c.counts(batch); return counts != nil && counts.Open == 0 })
	c.readAll(batch)
	if _, err := c.next().Requeue(ctx, admin.Selection{All: true}); err != nil {
		t.Fatal(err)
	}
	c.refuse(s)
	c.keep("right settings, " + s.name)
	c.check(s)
}

// readAll reads all that can be read, as the API's own description has it.
func (c *secrecy) readAll(batch string) {
	c.t.Helper()
	failed, err := c.api.Failed(c.t.Context(), admin.FailedFilter{}, "", 1)
	if err != nil || len(failed.Messages) == 0 {
		c.t.Fatalf("nothing has failed: %v", err)
	}
	boxes, err := c.api.Mailboxes(c.t.Context(), "", 1)
	if err != nil || len(boxes.Mailboxes) == 0 {
		c.t.Fatalf("there is no mailbox: %v", err)
	}
	stored, err := c.api.StoreContent(c.t.Context(), "a.txt", "text/plain", strings.NewReader("a file"))
	if err != nil {
		c.t.Fatal(err)
	}
	fill := strings.NewReplacer("batches/{id}", "batches/"+batch, "contents/{id}", "contents/"+stored.ID, "{id}", failed.Messages[0].ID, "{address}", boxes.Mailboxes[0].Address)
	_, document := c.do(http.MethodGet, "/openapi.json", "")
	var api struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal([]byte(document), &api); err != nil {
		c.t.Fatal(err)
	}
	read := 0
	for path, operations := range api.Paths {
		if operations["get"] == nil {
			continue
		}
		read++
		if status, _ := c.do(http.MethodGet, fill.Replace(path), ""); status != http.StatusOK {
			c.t.Errorf("GET %s: %d", path, status)
		}
	}
	if read < 8 {
		c.t.Errorf("only %d paths can be read", read)
	}
	if status, _ := c.do(http.MethodGet, "/metrics", ""); status != http.StatusOK {
		c.t.Errorf("GET /metrics: %d", status)
	}
}

// refuse makes requests that are refused, with secrets in them.
func (c *secrecy) refuse(s *login) {
	c.t.Helper()
	revealed, err := s.right.Revealed()
	if err != nil {
		c.t.Fatal(err)
	}
	settings := string(revealed)
	port := s.right
	port.SMTP.Port, port.Microsoft365.TenantID = 99999, "no tenant"
	invalid, _ := port.Revealed()
	for _, body := range []string{string(invalid), settings + settings, settings[:len(settings)-1], "[" + settings + "]",
		regexp.MustCompile(`("(password|client_secret|private_key_pem)": *)("(?:[^"\\]|\\.)+")`).ReplaceAllString(settings, "$1[$3]"),
		regexp.MustCompile(`("(password|client_secret|private_key_pem)": *)("(?:[^"\\]|\\.)+")`).ReplaceAllString(settings, "$1$3$3")} {
		for method, path := range map[string]string{http.MethodPut: "/v1/provider", http.MethodPost: "/v1/provider/verify"} {
			if method == http.MethodPost && !strings.HasPrefix(body, "[") {
				body = `{"settings":` + body + `}`
			}
			if status, answered := c.do(method, path, body); status < 400 || status == http.StatusTooManyRequests {
				c.t.Errorf("%s %s with a fault: %d %s", method, path, status, answered)
			}
		}
	}
}

// check has the settings in a configuration file be checked and printed.
func (c *secrecy) check(s *login) {
	c.t.Helper()
	revealed, err := s.right.Revealed()
	if err != nil {
		c.t.Fatal(err)
	}
	sections := maps.Clone(c.more)
	sections["provider"] = json.RawMessage(revealed)
	text, err := json.Marshal(sections)
	if err != nil {
		c.t.Fatal(err)
	}
	path := filepath.Join(c.t.TempDir(), "postroom.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		c.t.Fatal(err)
	}
	p := run(c.t, nil, "serve", "--config", path, "--check-config")
	if code := p.wait(time.Minute); code != 0 {
		c.t.Errorf("--check-config with %s ends with %d", s.name, code)
	}
	c.texts["--check-config, "+s.name] = p.stdout.String() + p.stderr.String()
}

// collector takes spans by OTLP and keeps what comes as it is; a string in protobuf is its bytes.
func collector(t testing.TB) (url string, spans *log) {
	spans = &log{}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		unzipped, err := gzip.NewReader(r.Body)
		if err == nil {
			_, err = io.Copy(spans, unzipped)
		}
		if err != nil {
			t.Errorf("what a collector gets can't be read: %v", err)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL, spans
}

// TestSecretsAreNowhereToBeFound does with each sort of settings what can be done, and searches everything for every secret.
func TestSecretsAreNowhereToBeFound(t *testing.T) {
	t.Parallel()
	endpoint, spans := collector(t)
	c := &secrecy{choice: choose(t, 3, map[string]any{"log": map[string]any{"level": "debug"}, "tracing": map[string]any{"endpoint": endpoint}}, "api,worker"),
		texts: map[string]string{}}
	other, strange := newKey(), "pr_"+rand.Text()
	secrets := map[string]string{"a token that nobody has": strange}
	for k, text := range c.tokens {
		secrets[fmt.Sprintf("token %d", k)] = text
	}
	granted := regexp.MustCompile(`"access_token":"([^"]+)"`)
	sorts := []func(testing.TB) (s login, told *log){byPassword, byToken, bySecret, byCertificate}
	for _, of := range sorts {
		s, told := of(t)
		c.use(&s)
		maps.Copy(secrets, s.secrets)
		if told == nil {
			continue
		}
		tokens := granted.FindAllStringSubmatch(told.String(), -1)
		for n, match := range tokens {
			secrets[fmt.Sprintf("%s, access token %d", s.name, n)] = match[1]
		}
		if len(tokens) == 0 {
			t.Errorf("%s: no access token was given out: this proves nothing", s.name)
		}
	}
	stranger, err := admin.NewClient(c.front.url, strange, &http.Client{Transport: &c.recorder})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.Provider(t.Context()); err == nil {
		t.Error("a token that nobody has lets in")
	}
	// Another process has a new key in front, and seals with it.
	first := c.front
	c.more["secrets"] = map[string]any{"keys": []string{other, c.keys[0]}}
	c.front = c.serve("--roles", "api")
	if r, err := c.next().ResealProvider(t.Context()); err != nil || !r.Changed {
		t.Errorf("sealing with another key: %+v, %v", r, err)
	}
	c.keep("sealed with another key")
	if _, err := c.next().ClearProvider(t.Context(), ""); err != nil {
		t.Error(err)
	}
	c.keep("nothing is active")
	// A configuration file's settings are told apart in Redis by a fingerprint.
	last, _ := byPassword(t)
	maps.Copy(secrets, map[string]string{"password in a file": last.secrets["password"]})
	revealed, err := last.right.Revealed()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(revealed, &c.provider); err != nil {
		t.Fatal(err)
	}
	third := c.serve()
	if p, err := c.api.Provider(t.Context()); err != nil || p.Source != "file" || p.Kind != string(provider.KindSMTP) {
		t.Errorf("the file's settings are not active: %+v, %v", p, err)
	}
	c.keep("the settings are in a file")

	for k, key := range append(c.keys, other) {
		raw, _ := base64.StdEncoding.DecodeString(key)
		secrets[fmt.Sprintf("key %d, in base64", k)], secrets[fmt.Sprintf("key %d", k)] = key, string(raw)
	}
	c.texts["the log"], c.texts["the log of the second process"] = first.stderr.String(), c.front.stderr.String()
	c.texts["the log of the third process"] = third.stderr.String()
	c.texts["what they print"] = c.recorder.text.String()
	await(t, time.Minute, "the spans of attempts", func() bool { return strings.Count(spans.String(), "process postroom") >= len(sorts) })
	c.texts["the spans"] = spans.String()
	for _, address := range []string{"nobody@example.net", "ada@example.net"} {
		if strings.Contains(c.texts["the spans"]+c.texts["the log"], address) {
			t.Errorf("the spans or the log have %s", address)
		}
	}
	if strings.Count(c.texts["the log"], "level=DEBUG") < 10 || c.recorder.answers < 50 {
		t.Errorf("the log has %d bytes, and %d answers were kept: this proves nothing", len(c.texts["the log"]), c.recorder.answers)
	}
	hidden := map[string][]string{}
	bytes := 0
	for what, secret := range secrets {
		hidden[what] = needles(secret)
	}
	for where, text := range c.texts {
		bytes += len(text)
		for at, what := range found(map[string]string{where: text}, hidden) {
			t.Errorf("%s: there is a secret: %s", at, what)
		}
	}
	c.findsWhatIsThere(secrets, hidden)
	t.Logf("%d secrets are not in %d texts of %d bytes: Redis at %d moments, logs, %d answers", len(secrets), len(c.texts), bytes, 2*len(sorts)+3, c.recorder.answers)
}
