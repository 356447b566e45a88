package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/config"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/smtp/smtptest"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/queue/queuetest"
)

// A user's way from a fresh Redis to one where all is well: each step has what the check before it said.
func TestCheckLeadsFromAFreshRedisToAGoodOne(t *testing.T) {
	inbox, err := smtptest.NewInbox(smtptest.InboxOptions{Security: provider.SecurityStartTLS, Username: "reports", Password: testSecret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = inbox.Close() })
	s := inbox.Settings(mail.Address{Address: "own@x.example"})
	r := queuetest.StartTCP(t)
	sum := sha256.Sum256([]byte(testToken))
	settings := map[string]any{
		"redis": map[string]any{"url": r.URL},
		"auth":  map[string]any{"tokens": []any{map[string]any{"name": "ops", "role": "admin", "sha256": hex.EncodeToString(sum[:])}}},
	}
	check := func(arguments ...string) ran {
		t.Helper()
		text, err := json.Marshal(settings) // JSON is YAML, too
		if err != nil {
			t.Fatal(err)
		}
		return tells(t, "", append([]string{"check", "--config", file(t, "postroom.yaml", string(text))}, arguments...)...)
	}
	set := func(name, value string) {
		t.Helper()
		if err := r.Client.ConfigSet(t.Context(), name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	set("appendfsync", "everysec")
	set("appendonly", "no")
	set("maxmemory-policy", "allkeys-lru")
	check().want(t, exitFault, "\npersistence  fault    neither an AOF nor snapshots: if Redis dies, all mail is lost. To do: set appendonly yes",
		"\neviction     fault    maxmemory-policy allkeys-lru", "\nprovider     warning  none: mail is accepted, and waits. To do: choose one",
		"\nworkers      warning  none runs", "postroom: 2 faults, 3 warnings\n")
	set("appendonly", "yes")
	set("maxmemory-policy", "noeviction")
	set("maxmemory", "4gb")
	check().want(t, 0, "\npersistence  ok       an AOF, synced each second", "\nmemory       ok ", "0 faults, 2 warnings\n")

	smtp := map[string]any{"host": s.SMTP.Host, "port": s.SMTP.Port, "security": "starttls", "ca_pem": s.SMTP.CAPEM,
		"auth": map[string]any{"method": "basic", "username": "reports", "password": "wrong"}}
	settings["provider"] = map[string]any{"kind": "smtp", "sender": map[string]any{"address": "own@x.example"}, "smtp": smtp}
	check().want(t, exitFault, "\nprovider     fault    smtp by ", "of the file; it becomes the active one when postroom serve starts with it; passed: connect, greeting, ehlo, tls, ehlo; auth failed",
		"To do: smtp.auth.password")
	check("--no-verify").want(t, 0, "\nprovider     ok ")
	smtp["auth"].(map[string]any)["password"] = testSecret
	check().want(t, 0, "\nprovider     ok ", "ehlo, auth")
	if n := inbox.Received(); n != 0 {
		t.Errorf("%d mails were sent", n)
	}

	asJSON := check("--output", "json")
	asJSON.want(t, 0)
	var all []map[string]string
	if err := json.Unmarshal([]byte(asJSON.stdout), &all); err != nil {
		t.Fatalf("%v: %s", err, asJSON.stdout)
	}
	var names []string
	for _, f := range all {
		names = append(names, f["check"])
		if len(f) != 4 || f["found"] == "" || !slices.Contains([]string{"ok", "warning", "fault"}, f["level"]) || f["level"] != "ok" && f["remedy"] == "" {
			t.Errorf("%v", f)
		}
	}
	if want := "redis persistence eviction memory latency clock format workers sending key provider limits tokens listen"; strings.Join(names, " ") != want {
		t.Errorf("checks %v, want %s", names, want)
	}
	if keys := r.Client.Keys(t.Context(), "*").Val(); len(keys) > 0 {
		t.Errorf("something was changed: %v", keys)
	}
	check("--output", "xml").want(t, exitUsage, "neither table nor json")

	r.Kill()
	check().want(t, exitFault, "\nredis   fault  Redis does not answer: ", "To do: see whether it runs", "\ntokens  ok ", "postroom: 1 fault, 0 warnings")
	settings["redis"].(map[string]any)["namespce"] = "x"
	check().want(t, exitFault, "config: 1 fault", "write redis.namespace")
}

// startWith makes a server as serve does, and gives what it logs.
func startWith(t *testing.T, cfg *config.Config, client *redis.Client, with serverOptions) (string, error) {
	t.Helper()
	var log bytes.Buffer
	cfg.HTTP.Listen = "127.0.0.1:0"
	with.config, with.redis, with.log = cfg, client, slog.New(slog.NewTextHandler(&log, nil))
	s, err := newServer(t.Context(), with)
	if err == nil {
		_ = s.listener.Close()
	}
	return log.String(), err
}

func TestServeRefusesOnlyWhatWouldLoseMail(t *testing.T) {
	r := queuetest.StartTCP(t)
	do := func(words ...string) {
		t.Helper()
		arguments := make([]any, len(words))
		for i, w := range words {
			arguments[i] = w
		}
		if err := r.Client.Do(t.Context(), arguments...).Err(); err != nil {
			t.Fatalf("%q: %v", words, err)
		}
	}
	for _, test := range []struct {
		name      string
		settings  string
		mayForget bool
		refused   string // part of the error; "" for a start
		logged    []string
	}{
		{"all is well", "", false, "", nil},
		{"nothing is kept", "appendonly no", false, "persistence: neither an AOF nor snapshots: if Redis dies, all mail is lost. To do: set appendonly yes", []string{"level=ERROR", "check=persistence"}},
		{"nothing is kept, and may be", "appendonly no", true, "", []string{"level=WARN", "check=persistence", "redis.may_forget allows it"}},
		{"snapshots", "appendonly no save 60\\ 1", false, "", []string{"level=WARN", "check=persistence", "remedy=\"set appendonly yes"}},
		{"mail is evicted", "maxmemory-policy allkeys-lru", false, "eviction: maxmemory-policy allkeys-lru: when Redis is full it deletes mail", []string{"check=eviction"}},
		{"mail is evicted, and may be", "maxmemory-policy allkeys-lfu", true, "", []string{"level=WARN", "check=eviction"}},
		{"books are evicted", "maxmemory-policy volatile-lru", false, "", []string{"level=ERROR", "check=eviction"}},
		{"nearly full", "maxmemory 1", false, "", []string{"level=ERROR", "check=memory", "raise maxmemory"}},
		{"a replica", "replica", true, "redis: Redis 7", []string{"level=ERROR", "check=redis"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, setting := range []string{"appendonly yes", "appendfsync everysec", "maxmemory-policy noeviction", "maxmemory 4gb"} {
				name, value, _ := strings.Cut(setting, " ")
				do("CONFIG", "SET", name, value)
			}
			do("CONFIG", "SET", "save", "")
			if test.settings == "replica" {
				do("REPLICAOF", "127.0.0.1", "1")
			} else {
				fields := strings.Fields(strings.ReplaceAll(test.settings, `\ `, "_"))
				for i := 0; i < len(fields); i += 2 {
					do("CONFIG", "SET", fields[i], strings.ReplaceAll(fields[i+1], "_", " "))
				}
			}
			cfg := config.Default()
			cfg.Redis.MayForget = test.mayForget
			log, err := startWith(t, cfg, r.Client, serverOptions{worker: true})
			switch {
			case test.refused == "" && err != nil:
				t.Error(err)
			case test.refused != "":
				if err == nil || exitCode(err) != exitFault || !strings.Contains(explain(err), "postroom: not started, as mail would be lost:\n  "+test.refused) ||
					!strings.Contains(explain(err), `"postroom check" looks at everything.`) {
					t.Errorf("%v", err)
				}
			case len(test.logged) == 0 && (strings.Contains(log, "check=persistence") || strings.Contains(log, "check=eviction")):
				t.Errorf("all is well, and it logs\n%s", log)
			}
			for line := range strings.Lines(log) {
				if test.logged != nil && strings.Contains(line, test.logged[len(test.logged)-1]) {
					for _, text := range test.logged {
						if !strings.Contains(line, text) {
							t.Errorf("%q is not in %s", text, line)
						}
					}
				}
			}
			if test.logged != nil && !strings.Contains(log, test.logged[len(test.logged)-1]) {
				t.Errorf("nothing is logged of it:\n%s", log)
			}
		})
	}
}

func TestServeLogsWhatIsWrongWithItsConfiguration(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()}) // it tells nothing: that is no reason not to start
	t.Cleanup(func() { _ = client.Close() })
	for role, want := range map[string]bool{"api": true, "worker": false} {
		log, err := startWith(t, config.Default(), client, serverOptions{api: role == "api", worker: role == "worker"})
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(log, "auth.tokens is empty: the API refuses everybody") != want {
			t.Errorf("%s: tokens are its business: %t\n%s", role, want, log)
		}
		if !strings.Contains(log, "check=provider") || !strings.Contains(log, "check=persistence") || strings.Contains(log, "check=listen") {
			t.Errorf("%s", log)
		}
	}
}

// wantFinding checks what was found: a level, and texts of what was found and of the remedy. What is not ok has a remedy.
func wantFinding(t *testing.T, f queue.Finding, level queue.Level, found, remedy string) {
	t.Helper()
	if f.Level != level || !strings.Contains(f.Found, found) || !strings.Contains(f.Remedy, remedy) || level != queue.LevelOK && f.Remedy == "" {
		t.Errorf("%s %q (to do: %q), want %s %q (%q)", f.Level, f.Found, f.Remedy, level, found, remedy)
	}
}

func TestTokensAndListenerAreJudged(t *testing.T) {
	token := func(role, of string) config.Token {
		sum := sha256.Sum256([]byte(of))
		return config.Token{Name: "bi", Role: role, SHA256: hex.EncodeToString(sum[:])}
	}
	example := config.Token{Name: "ops", Role: "admin", SHA256: strings.ToUpper(exampleTokenHash)}
	inFile := &provider.Settings{Kind: provider.KindSMTP}
	for name, test := range map[string]struct {
		tokens        []config.Token
		provider      *provider.Settings
		level         queue.Level
		found, remedy string
	}{
		"none":                      {nil, nil, queue.LevelWarning, "refuses everybody", "token new"},
		"one of each":               {[]config.Token{token("admin", testToken), token("producer", testSecret)}, nil, queue.LevelOK, "1 producer, 0 operator, 1 admin", ""},
		"the example's":             {[]config.Token{example}, nil, queue.LevelFault, "the token of ops", "token new"},
		"a word":                    {[]config.Token{token("admin", "changeme")}, nil, queue.LevelFault, "the token of bi", "token new"},
		"its name":                  {[]config.Token{token("admin", "bi")}, nil, queue.LevelFault, "the token of bi", "token new"},
		"nobody sets a provider":    {[]config.Token{token("operator", testToken)}, nil, queue.LevelWarning, "nobody may set the provider", "--role admin"},
		"the file does":             {[]config.Token{token("operator", testToken)}, inFile, queue.LevelOK, "1 operator", ""},
		"nobody looks after it all": {[]config.Token{token("producer", testToken)}, inFile, queue.LevelOK, "nobody may pause", ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config.Default()
			cfg.Auth.Tokens, cfg.Provider = test.tokens, test.provider
			wantFinding(t, tokensFinding(cfg), test.level, test.found, test.remedy)
		})
	}
	for listen, found := range map[string]string{"127.0.0.1:8080": "this machine alone", "localhost:1": "this machine alone", "[::1]:1": "this machine alone",
		":8080": "has no TLS", "0.0.0.0:1": "has no TLS", "192.0.2.1:1": "has no TLS", "mail.example.com:1": "has no TLS"} {
		cfg := config.Default()
		cfg.HTTP.Listen = listen
		wantFinding(t, listenFinding(cfg), queue.LevelOK, found, "")
	}
}

// What the example shows is what the checks know.
func TestTheExamplesSecretsAreKnown(t *testing.T) {
	text, err := os.ReadFile("../../config/postroom.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"sha256: " + exampleTokenHash + "\n", "- " + exampleKey + "\n"} {
		if !bytes.Contains(text, []byte(secret)) {
			t.Errorf("the example no longer has %q", secret)
		}
	}
}

// onQueue gives what a process with a configuration knows of the provider, on a Redis of its own.
func onQueue(t *testing.T, cfg *config.Config) (*providers, *redis.Client) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})
	t.Cleanup(func() { _ = client.Close() })
	q, err := queue.Open(t.Context(), queue.Options{Client: client})
	if err != nil {
		t.Fatal(err)
	}
	return withConfig(t, cfg, q), client
}

func withConfig(t *testing.T, cfg *config.Config, q *queue.Queue) *providers {
	t.Helper()
	p, err := newProviders(cfg, q, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// setBy makes settings the active ones, sealed as a process with a configuration seals.
func setBy(t *testing.T, p *providers, s *provider.Settings) {
	t.Helper()
	active, err := activeProvider(s)
	if err != nil {
		t.Fatal(err)
	}
	id := queue.NewProviderID()
	sealed, err := p.keys.Seal(s, id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.queue.ActivateProvider(t.Context(), queue.ProviderChange{ID: id, Provider: active, Sealed: sealed,
		Entry: queue.AuditEntry{By: "ada", Action: "provider.set", Target: "smtp"}}); err != nil {
		t.Fatal(err)
	}
}

func relay(host, password string) *provider.Settings {
	s := &provider.Settings{Kind: provider.KindSMTP, Sender: mail.Address{Address: "own@x.example"},
		SMTP: provider.SMTPSettings{Host: host, Auth: provider.SMTPAuth{Username: "own", Password: provider.Secret(password)}}}
	s.Defaults()
	return s
}

func TestKeysAreJudged(t *testing.T) {
	first, second := provider.Secret(base64.StdEncoding.EncodeToString(random())), provider.Secret(base64.StdEncoding.EncodeToString(random()))
	cfg := config.Default()
	cfg.Secrets.Keys = []provider.Secret{first}
	p, _ := onQueue(t, cfg)
	check := func(level queue.Level, found, remedy string, keys ...provider.Secret) {
		t.Helper()
		cfg := config.Default()
		cfg.Secrets.Keys = keys
		all := withConfig(t, cfg, p.queue).findings(t.Context(), compared)
		for _, f := range all {
			if f.Check == checkKey {
				wantFinding(t, f, level, found, remedy)
				return
			}
		}
		t.Errorf("%+v", all)
	}
	check(queue.LevelOK, "there is no key: postroom provider set will refuse", "")
	check(queue.LevelOK, "no credentials are in Redis; keys: 1", "", first)
	check(queue.LevelFault, "the key of the example", "key new", first, exampleKey)
	setBy(t, p, relay("mail.x.example", testSecret))
	check(queue.LevelOK, "need no other key; keys: 2", "", first, second)
	check(queue.LevelWarning, "not the first", "postroom provider reseal", second, first)
	check(queue.LevelFault, "can't be opened", "not in secrets.keys", second)
	check(queue.LevelFault, "can't be opened", "not in secrets.keys")
}

func TestWhichProviderIsJudged(t *testing.T) {
	key := provider.Secret(base64.StdEncoding.EncodeToString(random()))
	file, api, other := relay("file.x.example", testSecret), relay("api.x.example", testSecret), relay("other.x.example", testSecret)
	with := func(s *provider.Settings) *config.Config {
		cfg := config.Default()
		cfg.Secrets.Keys, cfg.Provider = []provider.Secret{key}, s
		return cfg
	}
	none := &provider.Settings{Kind: provider.KindNone}
	for name, test := range map[string]struct {
		api, declared *provider.Settings // what is active
		runs          bool               // the process that declared it
		own           *provider.Settings // of the file at hand
		level         queue.Level
		found, remedy string
	}{
		"none":                         {nil, nil, false, nil, queue.LevelWarning, "none: mail is accepted, and waits", "postroom provider set"},
		"the file says none":           {api, nil, false, none, queue.LevelWarning, "none: mail is accepted", ""},
		"before the first start":       {nil, nil, false, file, queue.LevelOK, "smtp by file.x.example:587, of the file; it becomes the active one", ""},
		"of the file":                  {nil, file, true, file, queue.LevelOK, "smtp by file.x.example:587, of the file", ""},
		"by an administrator":          {api, nil, false, nil, queue.LevelOK, "smtp by api.x.example:587, set by ada", ""},
		"the file replaces it":         {api, nil, false, file, queue.LevelWarning, "in the place of what an administrator has set", "take the section"},
		"another file's":               {nil, other, true, file, queue.LevelWarning, "another process, whose file has other settings, sends nothing any more", "the same file"},
		"another file's of before":     {nil, other, false, file, queue.LevelOK, "it becomes the active one", ""},
		"a file's that is not at hand": {nil, other, true, nil, queue.LevelFault, "can't be loaded", "this one's has no section provider"},
	} {
		t.Run(name, func(t *testing.T) {
			p, client := onQueue(t, with(test.own))
			if test.api != nil {
				setBy(t, p, test.api)
			}
			if test.declared != nil {
				if err := withConfig(t, with(test.declared), p.queue).declare(t.Context()); err != nil {
					t.Fatal(err)
				}
				if !test.runs {
					client.Del(t.Context(), "{postroom}:declared")
				}
			}
			active, err := p.queue.Provider(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			f, _ := p.judge(active, compared)
			wantFinding(t, f, test.level, test.found, test.remedy)
		})
	}
}

func TestLimitsAreJudged(t *testing.T) {
	exchange := func(change func(*provider.Limits)) *provider.Settings {
		s := &provider.Settings{Kind: provider.KindMicrosoft365}
		change(&s.Limits)
		s.Defaults()
		return s
	}
	microsoft := relay("smtp.office365.com", "x")
	microsoft.Limits.RecipientsPerDay = 20_000
	many := relay("mail.x.example", "x")
	many.Limits.Concurrency = 51
	small := relay("mail.x.example", "x")
	small.Limits.MessageBytes = 10 << 20
	for name, test := range map[string]struct {
		settings      *provider.Settings
		level         queue.Level
		found, remedy string
	}{
		"Microsoft's":      {exchange(func(*provider.Limits) {}), queue.LevelOK, "within", ""},
		"narrower":         {exchange(func(l *provider.Limits) { l.MessagesPerMinute = 10 }), queue.LevelOK, "within", ""},
		"more a minute":    {exchange(func(l *provider.Limits) { l.MessagesPerMinute = 60 }), queue.LevelWarning, "messages_per_minute (60, known: 30)", "provider.limits"},
		"none at all":      {exchange(func(l *provider.Limits) { l.UploadBytesPer5m = provider.NoLimit }), queue.LevelWarning, "upload_bytes_per_5m (no limit, known: 157286400)", "provider.limits"},
		"more at once":     {exchange(func(l *provider.Limits) { l.Concurrency = 4 }), queue.LevelWarning, "concurrency (4, known: 3)", "provider.limits"},
		"Microsoft's SMTP": {microsoft, queue.LevelWarning, "recipients_per_day (20000, known: 10000)", "provider.limits"},
		"nothing is known": {relay("mail.x.example", "x"), queue.LevelOK, "none but 10 messages at once", ""},
		"more than we use": {many, queue.LevelWarning, "worker.concurrency 50 is less than provider.limits.concurrency 51", "raise worker.concurrency"},
		"large messages":   {small, queue.LevelWarning, "accept.message_bytes 36700160 is more than the provider's 10485760", "lower accept.message_bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &providers{config: config.Default()}
			wantFinding(t, p.limitsFinding(test.settings), test.level, test.found, test.remedy)
		})
	}
}

func TestARedisUserThatMayNotEvenRunScriptsIsAFault(t *testing.T) {
	r := queuetest.StartTCP(t)
	if err := r.Client.Do(t.Context(), "ACL", "SETUSER", "narrow", "on", ">"+testSecret, "~*", "&*", "+@all", "-@scripting").Err(); err != nil {
		t.Fatal(err)
	}
	url := strings.Replace(r.URL, "redis://", "redis://narrow:"+testSecret+"@", 1)
	config := file(t, "postroom.yaml", fmt.Sprintf("redis: {url: %q}\n", url))
	tells(t, "", "check", "--config", config).want(t, exitFault, "\naccess       fault    queue: open: queue: scripts: NOPERM", "ACL SETUSER")
}

func TestAnInterruptedCheckIsNoFault(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	root := newRootCommand()
	root.SetArgs([]string{"check", "--config", file(t, "postroom.yaml", "redis: {url: \"redis://127.0.0.1:1/0\"}\n")})
	root.SetOut(&bytes.Buffer{})
	if err := root.ExecuteContext(ctx); !errors.Is(err, context.Canceled) || exitCode(err) != exitInterrupted {
		t.Errorf("%v", err)
	}
}
