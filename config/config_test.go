package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

const example = "postroom.example.yaml"

func TestAnEmptyConfigurationIsTheDefault(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "comments": "# nothing\n", "document": "---\n", "sections without keys": "redis:\nworker: {}\nretry:\n  delays:\n",
	} {
		t.Run(name, func(t *testing.T) {
			same(t, mustLoad(t, text), Default())
		})
	}
	c, err := Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	same(t, c, Default())
	if found := c.Validate(); found != nil {
		t.Errorf("the default has faults: %v", found)
	}
}

func TestTheExampleShowsTheDefaults(t *testing.T) {
	c, err := Load(example, nil)
	if err != nil {
		t.Fatal(err)
	}
	same(t, c, Default())
}

// commentedOut is a setting that the example shows without having it: # and a key or a dash, without a space before it at
// the beginning, or indented by the usual two.
var commentedOut = regexp.MustCompile(`(?m)^#((?:  )*(?:- )?[a-z0-9_]+:|(?:  )+- )`)

func TestTheExampleHasEveryKey(t *testing.T) {
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	whole := commentedOut.ReplaceAll(text, []byte("$1"))

	c := mustLoad(t, string(whole))
	if c.Provider == nil || c.Provider.SMTP.Host != "mail.example.com" || len(c.Auth.Tokens) != 1 || len(c.Secrets.Keys) != 1 {
		t.Fatalf("what is commented out was not read: %+v", c)
	}
	var tree map[string]any
	if err := yaml.Unmarshal(whole, &tree); err != nil {
		t.Fatal(err)
	}
	for _, k := range keys() {
		if !has(tree, strings.Split(k.path, ".")) {
			t.Errorf("%s is not in %s", k.path, example)
		}
	}
}

func has(tree map[string]any, path []string) bool {
	v, ok := tree[path[0]]
	if !ok || len(path) == 1 {
		return ok
	}
	below, ok := v.(map[string]any)
	return ok && has(below, path[1:])
}

func TestAFileChangesOnlyWhatItNames(t *testing.T) {
	got := mustLoad(t, `
redis: {url: "rediss://:p%40ss@redis.example.com:6380/2", namespace: mail-2}
worker:
  concurrency: 7
  shutdown_timeout: 1m30s
retry: {delays: [2m, 10m], give_up: 48h, jitter: 0}
kinds:
  subscription: {give_up: 1h, on_unknown: hold}
auth:
  tokens:
    - {name: ops, role: admin, sha256: 84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882}
`)
	want := Default()
	want.Redis = Redis{URL: "rediss://:p%40ss@redis.example.com:6380/2", Namespace: "mail-2", WaitTimeout: time.Second}
	want.Worker.Concurrency = 7
	want.Worker.ShutdownTimeout = 90 * time.Second
	want.Retry = Retry{Delays: []time.Duration{2 * time.Minute, 10 * time.Minute}, GiveUp: 48 * time.Hour}
	for _, kind := range []*Kind{&want.Kinds.Alert, &want.Kinds.Report.Kind, &want.Kinds.Subscription.Kind} {
		kind.Delays = want.Retry.Delays
	}
	want.Kinds.Report.GiveUp = 48 * time.Hour
	want.Kinds.Subscription.GiveUp = time.Hour
	want.Kinds.Subscription.OnUnknown = "hold"
	want.Auth.Tokens = []Token{{Name: "ops", Role: "admin", SHA256: "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"}}
	same(t, got, want)

	for kind, want := range map[mail.Kind]Kind{
		mail.Alert: want.Kinds.Alert, mail.Report: want.Kinds.Report.Kind, mail.Subscription: want.Kinds.Subscription.Kind,
	} {
		if got := got.Kinds.Of(kind); !reflect.DeepEqual(got, want) {
			t.Errorf("settings of kind %s: %+v, want %+v", kind, got, want)
		}
	}
}

func TestASecretKeepsItsSpelling(t *testing.T) {
	for _, written := range []string{"0123", "1e3", "true", "0x10", "1_000", `"0123"`, "~tilde", "|-\n        0123"} {
		c := mustLoad(t, "provider:\n  kind: none\n  smtp:\n    auth:\n      password: "+written+"\n")
		want := strings.TrimPrefix(strings.Trim(written, `"`), "|-\n        ")
		if got := c.Provider.SMTP.Auth.Password.Reveal(); got != want {
			t.Errorf("password: %s was read as %q", written, got)
		}
	}
}

func TestTheProviderGetsItsDefaults(t *testing.T) {
	if c := mustLoad(t, ""); c.Provider != nil {
		t.Errorf("without a section there is a provider: %+v", c.Provider)
	}
	c := mustLoad(t, "provider: {kind: smtp, sender: {address: 'Reports <reports@example.com>'}, smtp: {host: mail.example.com}}")
	if c.Provider.SMTP.Port != 587 || c.Provider.Sender.Name != "Reports" {
		t.Errorf("got %+v", c.Provider)
	}
}

func TestForbiddenNetworksReplaceTheDefault(t *testing.T) {
	for text, want := range map[string][]string{
		"":                         provider.DefaultForbidden(),
		"network: {forbidden: }":   provider.DefaultForbidden(),
		"network: {forbidden: []}": {},
		"network: {forbidden: [\"::1\", 10.0.0.0/8]}": {"::1", "10.0.0.0/8"},
	} {
		if got := mustLoad(t, text).Network.Forbidden; !slices.Equal(got, want) {
			t.Errorf("%q: %q", text, got)
		}
	}
	c, err := Load("", []string{"POSTROOM_NETWORK_FORBIDDEN=::1,10.0.0.0/8"})
	if err != nil || !slices.Equal(c.Network.Forbidden, []string{"::1", "10.0.0.0/8"}) {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestNothingShowsASecret(t *testing.T) {
	const secret = "hunter2"
	c := Default()
	c.Redis.URL = "redis://:" + secret + "@127.0.0.1:6379/0"
	c.Secrets.Keys = []provider.Secret{secret}
	c.Tracing.Headers = map[string]provider.Secret{"Authorization": secret}
	c.Provider = &provider.Settings{Kind: provider.KindSMTP}
	c.Provider.SMTP.Auth.Password = secret
	c.Provider.SMTP.Auth.OAuth2.ClientSecret = secret
	c.Provider.Microsoft365.ClientSecret = secret
	c.Provider.Microsoft365.PrivateKeyPEM = secret

	texts := map[string]string{
		"%#v of the provider": fmt.Sprintf("%#v", *c.Provider),
		"%v of the provider":  fmt.Sprintf("%v", *c.Provider),
		"its validation":      fmt.Sprint(c.Validate()),
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		texts[verb] = fmt.Sprintf(verb, c) + fmt.Sprintf(verb, *c)
	}
	var print, text, asJSON bytes.Buffer
	if err := c.Print(&print); err != nil {
		t.Fatal(err)
	}
	texts["Print"] = print.String()
	slog.New(slog.NewTextHandler(&text, nil)).Info("config", "config", c, "redis", c.Redis, "url", c.Redis.URL)
	slog.New(slog.NewJSONHandler(&asJSON, nil)).Info("config", "config", c, "redis", c.Redis, "url", c.Redis.URL)
	texts["slog text"], texts["slog JSON"] = text.String(), asJSON.String()
	encoded, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	texts["JSON"] = string(encoded)
	if encoded, err = yaml.Marshal(c); err != nil {
		t.Fatal(err)
	}
	texts["YAML"] = string(encoded)

	for name, text := range texts {
		if text == "" || strings.Contains(text, secret) || strings.Contains(text, fmt.Sprintf("%x", secret)) {
			t.Errorf("%s shows it: %s", name, text)
		}
	}
	if !strings.Contains(texts["Print"], provider.Redacted) || !strings.Contains(texts["Print"], "attempt_timeout: 30m\n") {
		t.Errorf("Print wrote\n%s", texts["Print"])
	}
}

func TestPrintIsReadBack(t *testing.T) {
	want := mustLoad(t, "retry: {give_up: 36h30m}\nkinds: {report: {delays: [90s]}}\nauth: {tokens: []}\nlog: {level: debug}\n")
	var printed bytes.Buffer
	if err := want.Print(&printed); err != nil {
		t.Fatal(err)
	}
	same(t, mustLoad(t, strings.Replace(printed.String(), `"`+provider.Redacted+`"`, want.Redis.URL.Reveal(), 1)), want)
}

func TestDurationsAreShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 10 * time.Second: "10s", 90 * time.Second: "1m30s", 10 * time.Minute: "10m", time.Hour: "1h", 24 * time.Hour: "24h",
		time.Hour + time.Second: "1h0m1s", 90 * time.Minute: "1h30m", -time.Minute: "-1m",
	} {
		if got := short(d); got != want {
			t.Errorf("short(%v) = %s, want %s", d, got, want)
		}
	}
}

func TestEveryKeyHasItsVariable(t *testing.T) {
	const list = "testdata/variables.txt"
	var got strings.Builder
	seen := make(map[string]string)
	for _, k := range keys() {
		names := []string{k.env()}
		if k.secret() {
			names = append(names, k.env()+"_FILE")
		}
		for _, name := range names {
			if other, twice := seen[name]; twice || slices.Contains(forClients, name) {
				t.Errorf("%s stands for %s and for %q", name, k.path, other)
			}
			seen[name] = k.path
			fmt.Fprintln(&got, name)
		}
	}
	want, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("%s is not what the keys make; if the change is meant, it breaks existing installations:\n%s", list, got.String())
	}
}

func TestEveryKeyCanBeRead(t *testing.T) {
	for _, k := range keys() {
		v := k.in(Default())
		if v.Kind() == reflect.Slice || v.Kind() == reflect.Map {
			v = reflect.New(v.Type().Elem()).Elem()
		}
		if sectionType(v.Type()) == nil {
			setText(v, "1") // It panics for a type without a way.
		}
	}
}

func TestHeadersOfTracing(t *testing.T) {
	want := map[string]provider.Secret{"Authorization": "Bearer 0123", "x-tenant": "1e3"}
	c := mustLoad(t, "tracing: {endpoint: 'http://127.0.0.1:4318', headers: {Authorization: Bearer 0123, x-tenant: 1e3}, sample_ratio: 0.1}")
	if !maps.Equal(c.Tracing.Headers, want) || c.Tracing.SampleRatio != 0.1 {
		t.Errorf("%#v", c.Tracing)
	}
	const js = `{"Authorization": "Bearer 0123", "x-tenant": "1e3"}`
	file := filepath.Join(t.TempDir(), "headers")
	if err := os.WriteFile(file, []byte(js+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, variable := range []string{"POSTROOM_TRACING_HEADERS=" + js, "POSTROOM_TRACING_HEADERS_FILE=" + file} {
		c, err := Load("", []string{variable})
		if err != nil || !maps.Equal(c.Tracing.Headers, want) {
			t.Errorf("%s: %v, %v", variable, c, err)
		}
	}
	for text, path := range map[string]string{
		"headers: [a]":                         "tracing.headers",
		"headers: {a: {b: c}}":                 "tracing.headers.a",
		"headers: {'a b': c}":                  "tracing.headers",
		`headers: {a: "hunter2\nX: y"}`:        "tracing.headers",
		"endpoint: 127.0.0.1:4318":             "tracing.endpoint",
		"endpoint: 'ftp://127.0.0.1'":          "tracing.endpoint",
		"endpoint: 'http://u:hunter2@x:4318'":  "tracing.endpoint",
		"endpoint: 'http://x:4318/?a=hunter2'": "tracing.endpoint",
		"sample_ratio: 1.5":                    "tracing.sample_ratio",
	} {
		f := filepath.Join(t.TempDir(), "postroom.yaml")
		if err := os.WriteFile(f, []byte("tracing: {"+text+"}"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(f, nil)
		faults := (*Error)(nil)
		if !errors.As(err, &faults) || len(faults.Faults) != 1 || faults.Faults[0].Path != path || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzLoad(f *testing.F) {
	text, err := os.ReadFile(example)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text, "1m,5m", `[{"name": "ops"}]`)
	f.Add([]byte("redis: {url: 3}\nnone: [*a, &a b, !!str c, {d: e}]\n<<: {}\n"), ",", "{")
	f.Add([]byte("a: |\n  b\n---\n? [c]\n: d\n"), "-1s", "- name: &a b\n- *a")
	f.Add([]byte("auth:\n  tokens:\n  - [\n"), "\x00", "[{}, [], null, 1]")
	f.Fuzz(func(t *testing.T, text []byte, delays, tokens string) {
		d := &decoder{source: "postroom.yaml", lines: true, where: make(map[string]string)}
		c := base()
		d.document("", text, reflect.ValueOf(c).Elem())
		d.environment([]string{"POSTROOM_RETRY_DELAYS=" + delays, "POSTROOM_AUTH_TOKENS=" + tokens}, c)
		c.inherit()
		for _, fault := range append(d.faults, c.Validate()...) {
			if fault.Problem == "" || fault.Danger == "" || fault.Remedy == "" || fault.Path+fault.Where == "" {
				t.Errorf("a fault that does not say all: %+v", fault)
			}
		}
	})
}

func mustLoad(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Load(write(t, text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// write makes postroom.yaml in a folder of its own.
func write(t *testing.T, text string) (path string) {
	t.Helper()
	path = t.TempDir() + "/postroom.yaml"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// same compares two configurations, lists without entries and no lists being the same.
func same(t *testing.T, got, want *Config) {
	t.Helper()
	for _, c := range []*Config{got, want} {
		if len(c.Auth.Tokens) == 0 {
			c.Auth.Tokens = nil
		}
		if len(c.Secrets.Keys) == 0 {
			c.Secrets.Keys = nil
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
