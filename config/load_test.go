package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/provider"
)

// said is what a test compares of a fault: where it is, and how its problem begins.
func said(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	all, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("want an *Error, got %T: %v", err, err)
	}
	var lines []string
	for _, f := range all.Faults {
		if f.Danger == "" || f.Remedy == "" {
			t.Errorf("a fault without danger or remedy: %+v", f)
		}
		where := strings.TrimPrefix(f.Where, "postroom.yaml")
		lines = append(lines, strings.TrimSpace(f.Path+" "+where)+" | "+f.Problem+" | "+f.Remedy)
	}
	return lines
}

// checkFaults wants exactly these faults in this order, each given by the beginning of what said makes of it.
func checkFaults(t *testing.T, err error, want []string) {
	t.Helper()
	got := said(t, err)
	matches := slices.EqualFunc(got, want, func(got, want string) bool {
		head, remedy, _ := strings.Cut(want, " => ")
		return strings.HasPrefix(got, head) && strings.Contains(got, " | "+remedy)
	})
	if !matches {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestEveryFaultOfAFileIsReported(t *testing.T) {
	const hash = "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"
	key := base64.StdEncoding.EncodeToString(make([]byte, 32))
	tests := map[string]struct {
		file string
		want []string // "path :line | problem => remedy"
	}{
		"unknown keys": {
			"redis:\n  uri: redis://x\nworkers: {}\nworker:\n  concurency: 3\nkinds:\n  alert: {weight: 2}\n  newsletter: {}\n",
			[]string{
				"redis.uri :2 | no such key => write redis.url",
				"workers :3 | no such key => write worker",
				"worker.concurency :5 | no such key => write worker.concurrency",
				"kinds.alert.weight :7 | no such key => delete it; here belong: delays, give_up, on_unknown",
				"kinds.newsletter :8 | no such key => delete it; here belong: alert, report, subscription",
			},
		},
		"values of the wrong form": {
			"worker:\n  concurrency: many\n  shutdown_timeout: 30\n  attempt_timeout: [15m]\n  content_cache_bytes: 1.5\n" +
				"retry:\n  delays: 1m\n  give_up: 1d\n  jitter: .nan\nrecords: 3\nhttp: [a]\nauth:\n  tokens: {name: ops}\n" +
				"provider:\n  smtp: {auth: {allow_cleartext: yes}}\n",
			[]string{
				`worker.concurrency :2 | want a whole number`,
				`worker.shutdown_timeout :3 | want a duration such as 30s, 15m or 1h30m`,
				"worker.attempt_timeout :4 | want a duration such as 30s",
				`worker.content_cache_bytes :5 | want a whole number`,
				"retry.delays :7 | want a list",
				`retry.give_up :8 | want a duration such as 30s, 15m or 1h30m`,
				`retry.jitter :9 | want a number`,
				"records :10 | want a section",
				"http :11 | want a section",
				"auth.tokens :13 | want a list",
				`provider.smtp.auth.allow_cleartext :15 | want true or false`,
			},
		},
		"values out of range": {
			"redis: {namespace: Post Room}\nhttp: {listen: localhost, max_body_bytes: 5, max_bodies_bytes: 4}\n" +
				"worker: {concurrency: 0, alert_concurrency: -1, shutdown_timeout: 0s, attempt_timeout: 10m, content_cache_bytes: -1}\n" +
				"retry: {delays: [1ms, 1m], give_up: 1ms, jitter: 1}\n" +
				"kinds: {alert: {give_up: 1ms, on_unknown: drop}, report: {delays: [], weight: 0}, subscription: {weight: 101}}\n" +
				"accept: {recipients_per_message: 0, recipients_per_batch: 0}\nrecords: {delivered_for: 0s, delivered_max: 0, failed_for: -1h}\n" +
				"content: {max_bytes: 1}\nlog: {level: loud, format: xml}\n",
			[]string{
				`redis.namespace :1 | "Post Room" can't begin`,
				`http.listen :2 | "localhost" is no address`,
				"http.max_body_bytes :2 | 5 is less than accept.message_bytes",
				"http.max_bodies_bytes :2 | 4 is less than http.max_body_bytes",
				"worker.concurrency :3 | 0 is out of range => choose between 1 and 10000",
				"worker.alert_concurrency :3 | -1 is out of range",
				"worker.shutdown_timeout :3 | 0s is no time",
				"worker.attempt_timeout :3 | 10m does not outlast the 10m",
				"worker.content_cache_bytes :3 | a size below zero",
				"retry.delays[0] :4 | 1ms is less than a second",
				"retry.give_up :4 | 1ms is not longer than the first delay, 1ms",
				"retry.jitter :4 | 1 is no share",
				`kinds.alert.on_unknown :5 | "drop" is not known => write one of resend, hold`,
				"kinds.report.delays :5 | no delays",
				"kinds.report.weight :5 | 0 is out of range",
				"kinds.subscription.weight :5 | 101 is out of range",
				"accept.recipients_per_message :6 | 0 is out of range",
				"accept.recipients_per_batch :6 | 0 is out of range",
				"records.delivered_for :7 | 0s is no time",
				"records.delivered_max :7 | less than one",
				"records.failed_for :7 | -1h is no time",
				"content.max_bytes :8 | 1 is less than accept.message_bytes",
				`log.level :9 | "loud" is not known`,
				`log.format :9 | "xml" is not known`,
			},
		},
		"a backlog below zero": {"accept: {backlog_max: -1}\n", []string{"accept.backlog_max :1 | a number below zero"}},
		"a backlog less than a batch": {"accept: {backlog_max: 10}\n",
			[]string{"accept.backlog_max :1 | 10 is less than accept.recipients_per_batch, 1000000 => raise it"}},
		"a port that changes": {"http: {listen: ':0'}\n", []string{"http.listen :1 | port 0 is a different port"}},
		"a kind's schedule against the inherited one": {
			"retry:\n  delays: [5h]\n",
			[]string{"kinds.alert.give_up | 4h is not longer than the first delay, 5h"},
		},
		"an attempt shorter than the server's time": {
			"worker:\n  attempt_timeout: 30s\n",
			[]string{"worker.attempt_timeout :2 | 30s does not outlast the 10m in which a mail server may answer => write 15m"},
		},
		"tokens": {
			"auth:\n  tokens:\n    - {name: ops, role: admin, sha256: " + hash + "}\n    - {name: ops, role: root, sha256: " + strings.ToUpper(hash) + "}\n" +
				"    - {role: producer, sha256: abc}\n    - name: empty\n      role: operator\n      sha256: " + emptyHash + "\n      expires: never\n",
			[]string{
				"auth.tokens[3].expires :9 | no such key",
				`auth.tokens[1].name :4 | "ops" is the name of auth.tokens[0] too`,
				`auth.tokens[1].role :4 | "root" is not known => write one of producer, operator, admin`,
				"auth.tokens[1].sha256 :4 | the same as of auth.tokens[0]",
				`auth.tokens[2].name :5 | "" is no name`,
				"auth.tokens[2].sha256 :5 | not 64 hexadecimal digits",
				"auth.tokens[3].sha256 :8 | the hash of an empty token",
			},
		},
		"keys": {
			"secrets:\n  keys:\n    - " + key + "\n    - " + key + "\n    - c2hvcnQ=\n    - [x]\n",
			[]string{
				"secrets.keys[3] :6 | want a text",
				"secrets.keys[1] :4 | the same as secrets.keys[0]",
				"secrets.keys[2] :5 | not 32 bytes in base64",
			},
		},
		"a provider": {
			"provider:\n  kind: smtp\n  smtp:\n    hots: mail.example.com\n    port: 70000\n    auth: {method: basic}\n",
			[]string{
				"provider.smtp.hots :4 | no such key => write provider.smtp.host",
				"provider.sender.address :2 | is missing => give the address",
				"provider.smtp.host :4 | is missing => give the name",
				"provider.smtp.port :5 | must be between 1 and 65535",
				"provider.smtp.auth.password :6 | is missing",
			},
		},
		"forbidden networks": {
			"network:\n  forbidden:\n    - 10.0.0.0/8\n    - 10.0.0.1/8\n    - metadata.example.com\n    - fe80::1%eth0\n",
			[]string{
				"network.forbidden[1] :4 | is an address within a network => write the network's first address",
				"network.forbidden[2] :5 | is neither an IP address nor a network => write it as 192.0.2.1",
				"network.forbidden[3] :6 | names an interface => leave out",
			},
		},
		"a provider's lists": {
			"provider:\n  kind: smtp\n  sender: {address: a@example.com}\n  smtp: {host: mail.example.com}\n" +
				"  allowed_senders:\n    - '@example.com'\n    - example.org\n",
			[]string{"provider.allowed_senders[1] :7 | is neither an address nor a domain => write reports@example.com"},
		},
		"a provider of no kind may have senders": {
			"provider:\n  allowed_senders: [reports]\n",
			[]string{"provider.allowed_senders[0] :2 | is neither an address nor a domain"},
		},
		"an unread section is not judged": {
			"provider:\n  kind: smtp\n  sender: {address: a@example.com}\n  smtp: mail.example.com\n",
			[]string{"provider.smtp :4 | want a section"},
		},
		"no YAML":            {"redis:\n\turl: x\n", []string{":2 | not YAML"}},
		"a key twice":        {"log:\n  level: info\n  level: debug\n", []string{`:3 | not YAML: mapping key "level" already defined`}},
		"two documents":      {"log: {level: debug}\n---\nlog: {level: info}\n", []string{":3 | a second document"}},
		"a list at the root": {"- redis\n", []string{":1 | want a section"}},
		"a merged key":       {"log: &a {level: info}\nhttp:\n  <<: *a\n", []string{"log :1 | want a section", "http.<< :3 | no such key"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Load(write(t, test.file), nil)
			checkFaults(t, err, test.want)
		})
	}
}

func TestRedisURLs(t *testing.T) {
	const secret = "hun%ter2"
	for url, want := range map[string]string{
		"redis://127.0.0.1:6379/0":                                     "",
		"rediss://user:hunter2@redis.example.com":                      "",
		"redis://:hunter2@s1:26379/0?master_name=mail&addr=s2:26379":   "",
		"redis://h:1/0?read_timeout=3s":                                "",
		"redis://:hunter2@n1:6379?cluster=true&addr=n2:6379":           "",
		"rediss://n1:6379/0?cluster=true&read_timeout=3s":              "",
		"redis://:" + secret + "@127.0.0.1:6379":                       "redis.url :1 | not a URL; special characters",
		"redis://user:hun/hunter2@127.0.0.1":                           "redis.url :1 | not a URL",
		"http://:hunter2@127.0.0.1":                                    "redis.url :1 | want a URL that begins with redis://",
		"127.0.0.1:6379":                                               "redis.url :1 | not a URL",
		"redis+sentinel://:hunter2@s1:26379/mail":                      "redis.url :1 | for Sentinel write redis://sentinel:26379/0?master_name=",
		"redis://:hunter2@127.0.0.1/hunter2":                           "redis.url :1 | a path that is no database number",
		"redis://127.0.0.1/0?pasword=hunter2":                          "redis.url :1 | a path that is no database number, or a parameter",
		"redis://s1:26379/0?master_name=mail&sentinel_pasword=hunter2": "redis.url :1 | a path that is no database number, or a parameter",
		"redis://s1:26379/0?master_name=mail&replica_only=true":        "redis.url :1 | a parameter that has replicas asked",
		"redis://:hunter2@n1:6379?cluster=yes":                         "redis.url :1 | for a Cluster write redis://host:6379?cluster=true",
		"redis://:hunter2@n1:6379/3?cluster=true":                      "redis.url :1 | a Cluster has no database but 0",
		"redis://:hunter2@n1:6379?cluster=true&master_name=mail":       "redis.url :1 | either Sentinel (master_name) or a Cluster",
		"redis://:hunter2@n1:6379?cluster=true&pasword=hunter2":        "redis.url :1 | a path that is no database number, or a parameter",
		"redis://:hunter2@n1:6379?cluster=true&read_only=true":         "redis.url :1 | a parameter that has replicas asked",
		"redis:///0": "redis.url :1 | a URL without a host",
		"[redacted]": "redis.url :1 | want a URL",
	} {
		t.Run(url, func(t *testing.T) {
			_, err := Load(write(t, "redis: {url: '"+url+"'}\n"), nil)
			if want == "" {
				checkFaults(t, err, nil)
				return
			}
			checkFaults(t, err, []string{want})
			if text := fmt.Sprintf("%v %+v", err, err); strings.Contains(text, "hun") {
				t.Errorf("the error shows the password: %s", text)
			}
		})
	}
}

func TestBrokenYAMLDoesNotShowWhatIsNearby(t *testing.T) {
	for _, text := range []string{
		"redis:\n  url: redis://:hunter2@h\n\tnamespace: x\n",
		"redis: {url: 'redis://:hunter2@h\n",
		"redis:\n  url: \"hunter2\" x\n",
		"secrets:\n  keys: [hunter2\nlog: {}\n",
		"secrets:\n  keys:\n    - hunter2\n   - x\n",
		"provider:\n  smtp:\n    auth:\n      password: |\n       hunter2\n     x: y\n",
		"secrets: &hunter2 [*hunter2]\n",
		"provider: {smtp: {auth: {password: !!binary hunter2}}}\n",
		"provider: {smtp: {auth: {password: @hunter2}}}\n",
		"provider: {smtp: {auth: {password: %hunter2}}}\n",
	} {
		_, err := Load(write(t, text), nil)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestAFileThatCanNotBeReadIsAFault(t *testing.T) {
	dir := t.TempDir()
	_, err := Load(dir+"/none.yaml", []string{"POSTROOM_LOG_LEVEL=loud"})
	checkFaults(t, err, []string{dir + "/none.yaml | no such file or directory", `log.level POSTROOM_LOG_LEVEL | "loud" is not known`})
	_, err = Load(dir, nil)
	checkFaults(t, err, []string{dir + " | is a directory"})
}

func TestTheEnvironmentGoesBeforeTheFile(t *testing.T) {
	file := write(t, "worker: {concurrency: 7}\nretry: {delays: [2m, 3m, 4m]}\nredis: {url: 'redis://file:6379/0'}\nlog: {level: warn}\n")
	got, err := Load(file, []string{
		"HOME=/root", "POSTROOMS=1", "POSTROOM_URL=http://127.0.0.1:8080", "POSTROOM_TOKEN=t", "POSTROOM_TOKEN_FILE=/t",
		"POSTROOM_WORKER_CONCURRENCY=9",
		"POSTROOM_RETRY_DELAYS=1m, 10m",
		"POSTROOM_REDIS_URL=redis://env:6379/0",
		"POSTROOM_LOG_LEVEL=",
		`POSTROOM_AUTH_TOKENS=[{"name": "ops", "role": "admin", "sha256": "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"}]`,
		"POSTROOM_KINDS_REPORT_WEIGHT=5",
		"POSTROOM_PROVIDER_KIND=smtp",
		"POSTROOM_PROVIDER_SENDER_ADDRESS=reports@example.com",
		"POSTROOM_PROVIDER_ALLOWED_SENDERS=News@example.com, @Example.ORG",
		"POSTROOM_PROVIDER_SMTP_HOST=mail.example.com",
		"POSTROOM_PROVIDER_SMTP_AUTH_PASSWORD=a,b=c",
		"POSTROOM_PROVIDER_LIMITS_MESSAGES_PER_MINUTE=30",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Worker.Concurrency = 9
	want.Retry.Delays = []time.Duration{time.Minute, 10 * time.Minute}
	for _, kind := range []*Kind{&want.Kinds.Alert, &want.Kinds.Report.Kind, &want.Kinds.Subscription.Kind} {
		kind.Delays = want.Retry.Delays
	}
	want.Redis.URL = "redis://env:6379/0"
	want.Log.Level = "warn"
	want.Auth.Tokens = []Token{{Name: "ops", Role: "admin", SHA256: "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"}}
	want.Kinds.Report.Weight = 5
	want.Provider = &provider.Settings{Kind: provider.KindSMTP}
	want.Provider.Sender.Address = "reports@example.com"
	want.Provider.AllowedSenders = []string{"News@example.com", "@example.org"}
	want.Provider.SMTP.Host = "mail.example.com"
	want.Provider.SMTP.Auth.Password = "a,b=c"
	want.Provider.Limits.MessagesPerMinute = 30
	want.Provider.Defaults()
	same(t, got, want)
}

func TestEveryFaultOfTheEnvironmentIsReported(t *testing.T) {
	file := write(t, "worker: {concurrency: 7}\nretry: {delays: [2m]}\n")
	_, err := Load(file, []string{
		"POSTROOM_WORKER_CONCURRENCY=many",
		"POSTROOM_WORKER_ATTEMPT_TIMEOUT=1m",
		"POSTROOM_RETRY_DELAYS=1ms,soon",
		`POSTROOM_AUTH_TOKENS=[{"name": "ops", "rule": "admin"}, 3]`,
		"POSTROOM_REDIS_URI=redis://x",
		"POSTROOM_NONSENSE_ALTOGETHER=1",
		"POSTROOM_AUTH_TOKENS_FILE=/x",
		"POSTROOM_PROVIDER_SMPT_PORT=587",
	})
	checkFaults(t, err, []string{
		`auth.tokens[0].rule POSTROOM_AUTH_TOKENS | no such key => write auth.tokens[0].role`,
		`auth.tokens[1] POSTROOM_AUTH_TOKENS | want a section`,
		`worker.concurrency POSTROOM_WORKER_CONCURRENCY | want a whole number`,
		`retry.delays[1] POSTROOM_RETRY_DELAYS | want a duration`,
		`POSTROOM_AUTH_TOKENS_FILE | no such variable => write POSTROOM_AUTH_TOKENS`,
		`POSTROOM_NONSENSE_ALTOGETHER | no such variable => unset it`,
		`POSTROOM_PROVIDER_SMPT_PORT | no such variable => write POSTROOM_PROVIDER_SMTP_PORT`,
		`POSTROOM_REDIS_URI | no such variable => write POSTROOM_REDIS_URL`,
		`auth.tokens[0].role POSTROOM_AUTH_TOKENS | "" is not known`,
		`auth.tokens[0].sha256 POSTROOM_AUTH_TOKENS | not 64 hexadecimal digits`,
		`worker.attempt_timeout POSTROOM_WORKER_ATTEMPT_TIMEOUT | 1m does not outlast`,
		`retry.delays[0] POSTROOM_RETRY_DELAYS | 1ms is less than a second`,
	})
}

func TestTokensInTheEnvironmentAreOneJSONList(t *testing.T) {
	for text, want := range map[string]string{
		"ops":  "auth.tokens POSTROOM_AUTH_TOKENS | want a list",
		"[{":   "auth.tokens POSTROOM_AUTH_TOKENS | not YAML",
		"null": "",
	} {
		_, err := Load("", []string{"POSTROOM_AUTH_TOKENS=" + text})
		if want == "" {
			checkFaults(t, err, nil)
		} else {
			checkFaults(t, err, []string{want})
		}
	}
}

func TestWhatKubernetesAddsIsNoFault(t *testing.T) {
	_, err := Load("", []string{
		"POSTROOM_SERVICE_HOST=10.0.0.1", "POSTROOM_SERVICE_PORT=8080", "POSTROOM_SERVICE_PORT_HTTP=8080", "POSTROOM_PORT=tcp://10.0.0.1:8080",
		"POSTROOM_PORT_8080_TCP=tcp://10.0.0.1:8080", "POSTROOM_PORT_8080_TCP_PROTO=tcp", "POSTROOM_PORT_8080_TCP_PORT=8080",
		"POSTROOM_PORT_8080_TCP_ADDR=10.0.0.1", "POSTROOM_REDIS_SERVICE_HOST=10.0.0.2", "POSTROOM_REDIS_PORT=tcp://10.0.0.2:6379",
	})
	checkFaults(t, err, nil)
	_, err = Load("", []string{"POSTROOM_REDIS_PORT=6379"})
	checkFaults(t, err, []string{"POSTROOM_REDIS_PORT | no such variable"})
}

func TestASecretCanComeFromAFile(t *testing.T) {
	dir := t.TempDir()
	put := func(name, content string) string {
		path := dir + "/" + name
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one, two := strings.Repeat("A", 43)+"=", strings.Repeat("B", 42)+"A="
	c, err := Load("", []string{
		"POSTROOM_REDIS_URL_FILE=" + put("url", "redis://:hunter2@h:1/0\n"),
		"POSTROOM_SECRETS_KEYS_FILE=" + put("keys", one+"\n"+two+"\n"),
		"POSTROOM_PROVIDER_KIND=none",
		"POSTROOM_PROVIDER_SMTP_AUTH_PASSWORD_FILE=" + put("password", " two newlines\n\n"),
		"POSTROOM_PROVIDER_MICROSOFT365_CLIENT_SECRET_FILE=" + put("windows", "secret\r\n"),
		"POSTROOM_PROVIDER_SMTP_AUTH_OAUTH2_CLIENT_SECRET_FILE=" + put("bare", "a,b"),
	})
	if err != nil {
		t.Fatal(err)
	}
	for what, got := range map[string][2]string{
		"redis.url":     {c.Redis.URL.Reveal(), "redis://:hunter2@h:1/0"},
		"password":      {c.Provider.SMTP.Auth.Password.Reveal(), " two newlines\n"},
		"client secret": {c.Provider.Microsoft365.ClientSecret.Reveal(), "secret"},
		"OAuth secret":  {c.Provider.SMTP.Auth.OAuth2.ClientSecret.Reveal(), "a,b"},
	} {
		if got[0] != got[1] {
			t.Errorf("%s is %q, want %q", what, got[0], got[1])
		}
	}
	if want := []provider.Secret{provider.Secret(one), provider.Secret(two)}; !reflect.DeepEqual(c.Secrets.Keys, want) {
		t.Errorf("%d keys were read, or not these", len(c.Secrets.Keys))
	}

	_, err = Load("", []string{
		"POSTROOM_REDIS_URL=redis://h:1/0", "POSTROOM_REDIS_URL_FILE=" + dir + "/url",
		"POSTROOM_SECRETS_KEYS_FILE=" + dir + "/none",
		"POSTROOM_LOG_LEVEL_FILE=" + dir + "/url",
	})
	checkFaults(t, err, []string{
		"redis.url POSTROOM_REDIS_URL_FILE | POSTROOM_REDIS_URL is set too => unset one",
		"secrets.keys POSTROOM_SECRETS_KEYS_FILE | secret file: no such file or directory",
		"POSTROOM_LOG_LEVEL_FILE | no such variable => write POSTROOM_LOG_LEVEL",
	})
}

func TestTheErrorNamesPathPlaceDangerAndRemedy(t *testing.T) {
	_, err := Load(write(t, "worker:\n  shutdown_timeout: 0s\n"), []string{"POSTROOM_LOGLEVEL=debug"})
	const want = `config: 2 faults
  POSTROOM_LOGLEVEL: no such variable
    danger: what was meant by it would not be in force
    to do:  write POSTROOM_LOG_LEVEL
  worker.shutdown_timeout (postroom.yaml:2): 0s is no time at all
    danger: attempts are cut after their point of no return, and may be sent twice
    to do:  write a duration such as 30s`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestNearest(t *testing.T) {
	for name, want := range map[string]string{"concurency": "concurrency", "concurrency": "concurrency", "listen": "", "": ""} {
		if got := nearest(name, []string{"concurrency", "shutdown_timeout"}); got != want {
			t.Errorf("nearest to %q is %q, want %q", name, got, want)
		}
	}
}
