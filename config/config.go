// Package config reads what an operator sets: one YAML file, and the environment above it. Everything that is wrong is
// reported at once, and nothing starts with settings that are only half understood.
//
// Only cmd imports it, and translates it into the options of the other packages.
package config

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// Config is the effective configuration. Its keys are the yaml tags; postroom.example.yaml explains each of them.
type Config struct {
	Redis   Redis   `yaml:"redis"`
	HTTP    HTTP    `yaml:"http"`
	Auth    Auth    `yaml:"auth"`
	Secrets Secrets `yaml:"secrets"`
	Worker  Worker  `yaml:"worker"`
	Retry   Retry   `yaml:"retry"`
	Kinds   Kinds   `yaml:"kinds"`
	Accept  Accept  `yaml:"accept"`
	Records Records `yaml:"records"`
	Content Content `yaml:"content"`
	Metrics Metrics `yaml:"metrics"`
	Log     Log     `yaml:"log"`
	Tracing Tracing `yaml:"tracing"`
	Network Network `yaml:"network"`
	// Provider makes the provider declarative: API and console show it and do not change it. Nil if the provider is set
	// through them.
	Provider *provider.Settings `yaml:"provider,omitempty"`
}

// Redis is where everything is kept. See [Redis.Client] for the forms of URL.
type Redis struct {
	URL       provider.Secret `yaml:"url"`
	Namespace string          `yaml:"namespace"`
	// MayForget lets a process start with a Redis that is set to lose mail: one that writes nothing to a disk, or deletes keys
	// when it is full.
	MayForget bool `yaml:"may_forget"`
	// WaitReplicas is how many replicas must have what is accepted before the answer says so; 0: none. WaitTimeout is how long they
	// are awaited.
	WaitReplicas int           `yaml:"wait_replicas"`
	WaitTimeout  time.Duration `yaml:"wait_timeout"`
}

// HTTP is the listener for the API, the health checks and the metrics.
type HTTP struct {
	Listen       string `yaml:"listen"`
	MaxBodyBytes int64  `yaml:"max_body_bytes"`
	// MaxBodiesBytes bounds what the bodies of all requests under way hold in memory.
	MaxBodiesBytes int64 `yaml:"max_bodies_bytes"`
}

// Auth lists who may use the API. Without a token nobody may.
type Auth struct {
	Tokens []Token `yaml:"tokens"`
}

// Token lets in whoever presents the string that SHA256 is the hash of.
type Token struct {
	Name   string `yaml:"name"`
	Role   string `yaml:"role"`   // producer, operator or admin
	SHA256 string `yaml:"sha256"` // 64 hexadecimal digits
	// Senders and Kinds bind what a producer may hand in; empty: anything.
	Senders []string `yaml:"senders,omitempty"`
	Kinds   []string `yaml:"kinds,omitempty"`
	// RequestsPerMinute is for all processes together; 0: no limit.
	RequestsPerMinute int `yaml:"requests_per_minute,omitempty"`
}

// Secrets holds the keys that seal credentials at rest, each 32 bytes in base64: see provider.NewKeyring. The first seals, all
// open.
type Secrets struct {
	Keys []provider.Secret `yaml:"keys"`
}

// Worker bounds one process.
type Worker struct {
	Concurrency      int `yaml:"concurrency"`
	AlertConcurrency int `yaml:"alert_concurrency"`
	// ShutdownTimeout is how long attempts past their point of no return are awaited.
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout"`
	// AttemptTimeout is the deadline of one attempt as a whole, and so longer than every time-out within it.
	AttemptTimeout    time.Duration `yaml:"attempt_timeout"`
	ContentCacheBytes int64         `yaml:"content_cache_bytes"`
}

// Retry is the schedule of what failed for now.
type Retry struct {
	// Delays are the waits after the first, second, ... attempt; the last one repeats.
	Delays []time.Duration `yaml:"delays"`
	// GiveUp counts from the first attempt, without the time held, paused or waiting for a limit.
	GiveUp time.Duration `yaml:"give_up"`
	// Jitter is the share of a delay that chance adds or takes, 0 to less than 1.
	Jitter float64 `yaml:"jitter"`
}

// Kinds overrides Retry for a kind of mail, and shares out what is left beside alerts.
type Kinds struct {
	Alert        Kind         `yaml:"alert"`
	Report       WeightedKind `yaml:"report"`
	Subscription WeightedKind `yaml:"subscription"`
}

// Kind is how one kind of mail is retried. Load fills what is not set from Retry.
type Kind struct {
	Delays    []time.Duration `yaml:"delays"`
	GiveUp    time.Duration   `yaml:"give_up"`
	OnUnknown string          `yaml:"on_unknown"` // resend or hold
}

// WeightedKind is a kind that shares a limit with others by weight.
type WeightedKind struct {
	Kind   `yaml:",inline"`
	Weight int `yaml:"weight"`
}

// Of gives the settings of one kind; unknown kinds are treated as subscriptions.
func (k Kinds) Of(kind mail.Kind) Kind {
	switch kind {
	case mail.Alert:
		return k.Alert
	case mail.Report:
		return k.Report.Kind
	default:
		return k.Subscription.Kind
	}
}

// Accept bounds what a producer may hand in; more is refused at once.
type Accept struct {
	RecipientsPerMessage int   `yaml:"recipients_per_message"`
	MessageBytes         int64 `yaml:"message_bytes"`
	RecipientsPerBatch   int   `yaml:"recipients_per_batch"`
	// BacklogMax is how many messages may wait or be sent at a time; 0 is no bound.
	BacklogMax int `yaml:"backlog_max"`
}

// Records says how long finished mail can be asked for.
type Records struct {
	DeliveredFor time.Duration `yaml:"delivered_for"`
	DeliveredMax int           `yaml:"delivered_max"`
	FailedFor    time.Duration `yaml:"failed_for"`
}

// Content bounds the bodies and attachments kept in Redis, all together.
type Content struct {
	MaxBytes int64 `yaml:"max_bytes"`
	// KeptFor is how long a stored file stays that no mail refers to (any more).
	KeptFor time.Duration `yaml:"kept_for"`
}

// Metrics bounds what is exported.
type Metrics struct {
	// Mailboxes is for how many mailboxes there are metrics of their own; the rest share the label "other".
	Mailboxes int `yaml:"mailboxes"`
}

// Log is what goes to stderr.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn or error
	Format string `yaml:"format"` // text or json
}

// Tracing sends spans to a collector of OpenTelemetry, by OTLP over HTTP.
type Tracing struct {
	// Endpoint is a URL such as http://127.0.0.1:4318; without a path /v1/traces is meant. Empty: nothing is traced.
	Endpoint string `yaml:"endpoint"`
	// Headers go with each request.
	Headers map[string]provider.Secret `yaml:"headers"`
	// SampleRatio is the share of messages that is traced, of those whose producer has not decided it; 0 to 1.
	SampleRatio float64 `yaml:"sample_ratio"`
}

// Network says where providers can't be, whoever sets them.
type Network struct {
	// Forbidden lists the IP addresses and networks that no connection to a provider goes to; empty forbids none.
	Forbidden []string `yaml:"forbidden"`
}

// Default gives the configuration of an empty file and an empty environment.
func Default() *Config {
	c := base()
	c.inherit()
	return c
}

// base is Default with the kinds' own settings alone, for a file to be read over.
func base() *Config {
	const mebibyte = 1 << 20
	return &Config{
		Redis: Redis{URL: "redis://127.0.0.1:6379/0", Namespace: "postroom", WaitTimeout: time.Second},
		HTTP:  HTTP{Listen: "127.0.0.1:8080", MaxBodyBytes: 64 * mebibyte, MaxBodiesBytes: 256 * mebibyte},
		Worker: Worker{
			Concurrency:       50,
			AlertConcurrency:  5,
			ShutdownTimeout:   30 * time.Second,
			AttemptTimeout:    30 * time.Minute,
			ContentCacheBytes: 64 * mebibyte,
		},
		Retry: Retry{
			Delays: []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour},
			GiveUp: 24 * time.Hour,
			Jitter: 0.1,
		},
		Kinds: Kinds{
			Alert:        Kind{GiveUp: 4 * time.Hour, OnUnknown: "resend"},
			Report:       WeightedKind{Kind: Kind{OnUnknown: "resend"}, Weight: 3},
			Subscription: WeightedKind{Kind: Kind{OnUnknown: "resend"}, Weight: 1},
		},
		Accept:  Accept{RecipientsPerMessage: 500, MessageBytes: 35 * mebibyte, RecipientsPerBatch: 1_000_000, BacklogMax: 5_000_000},
		Records: Records{DeliveredFor: 24 * time.Hour, DeliveredMax: 1_000_000, FailedFor: 30 * 24 * time.Hour},
		Content: Content{MaxBytes: 1024 * mebibyte, KeptFor: 24 * time.Hour},
		Metrics: Metrics{Mailboxes: 100},
		Log:     Log{Level: "info", Format: "text"},
		Tracing: Tracing{Headers: map[string]provider.Secret{}, SampleRatio: 1},
		Network: Network{Forbidden: provider.DefaultForbidden()},
	}
}

// inherit fills what a kind leaves open from Retry.
func (c *Config) inherit() {
	for _, kind := range []*Kind{&c.Kinds.Alert, &c.Kinds.Report.Kind, &c.Kinds.Subscription.Kind} {
		if kind.Delays == nil {
			kind.Delays = c.Retry.Delays
		}
		if kind.GiveUp == 0 {
			kind.GiveUp = c.Retry.GiveUp
		}
	}
}

// Print writes the configuration as YAML, with every secret redacted.
func (c *Config) Print(w io.Writer) error {
	duration := func(d time.Duration) ([]byte, error) { return []byte(short(d)), nil }
	encoder := yaml.NewEncoder(w, yaml.CustomMarshaler(duration), yaml.IndentSequence(true))
	if err := encoder.Encode(c); err != nil {
		return fmt.Errorf("config: print: %w", err)
	}
	return nil
}

// Format prints the configuration as Print does, whatever the verb. Left to itself fmt would follow the pointer to the
// provider's settings past their redaction if the verb does not fit.
func (c Config) Format(f fmt.State, _ rune) { _ = c.Print(f) }

// short writes a duration as people do: 15m and not 15m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
