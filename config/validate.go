package config

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// finalReply is how long a sender waits for the reply to the final dot (RFC 5321, section 4.5.3.2.6). An attempt must
// outlast it: cut before, a mail that was accepted looks like one that was not.
const finalReply = 10 * time.Minute

// keyBytes is the length of a key of Secrets.
const keyBytes = 32

// emptyHash is the SHA-256 of nothing: the hash of a token that somebody forgot to fill in.
const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

var (
	namespaceForm = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)
	tokenNameForm = regexp.MustCompile(`^[A-Za-z0-9._@-]{1,64}$`)
)

// Validate gives everything that is wrong with the values, none for a configuration to start with. It does not know who
// set them: Load adds that.
func (c *Config) Validate() []Fault {
	var f faults
	f.redis(c)
	f.http(c)
	f.auth(c)
	f.secrets(c)
	f.worker(c)
	f.retry(c)
	f.kinds(c)
	f.bounds(c)
	between(&f, "metrics.mailboxes", c.Metrics.Mailboxes, 0, 10_000, "Prometheus would have to keep too many series")
	f.oneOf("log.level", c.Log.Level, "what matters would be missing from the log", "debug", "info", "warn", "error")
	f.oneOf("log.format", c.Log.Format, "whatever reads the log would not understand it", "text", "json")
	f.tracing(c)
	f.network(c)
	f.provider(c)
	return f
}

// faults collects what is wrong, so that all is told at once.
type faults []Fault

func (f *faults) add(path, problem, danger, remedy string) {
	*f = append(*f, Fault{Path: path, Problem: problem, Danger: danger, Remedy: remedy})
}

// between wants low <= value <= high.
func between[T cmp.Ordered](f *faults, path string, value, low, high T, danger string) {
	if value < low || value > high {
		f.add(path, fmt.Sprintf("%v is out of range", value), danger, fmt.Sprintf("choose between %v and %v", low, high))
	}
}

func (f *faults) oneOf(path, value, danger string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		f.add(path, fmt.Sprintf("%q is not known", value), danger, "write one of "+strings.Join(allowed, ", "))
	}
}

func (f *faults) redis(c *Config) {
	client, err := c.Redis.Client(0)
	if err != nil {
		f.add("redis.url", err.Error(), "nothing can be kept, so nothing is accepted or sent",
			"write redis://host:6379/0, or rediss:// for TLS")
	} else {
		_ = client.Close() // It never connected.
	}
	if !namespaceForm.MatchString(c.Redis.Namespace) {
		f.add("redis.namespace", fmt.Sprintf("%q can't begin the names of our keys", c.Redis.Namespace),
			"keys of two installations, or of another program, could be mixed up",
			"write 1 to 32 of a-z, 0-9 and -")
	}
	between(f, "redis.wait_replicas", c.Redis.WaitReplicas, 0, 10, "nothing would ever be accepted")
	between(f, "redis.wait_timeout", c.Redis.WaitTimeout, 10*time.Millisecond, time.Minute,
		"mail would be refused before a replica can answer, or a producer wait for ever")
}

func (f *faults) http(c *Config) {
	_, port, err := net.SplitHostPort(c.HTTP.Listen)
	if n, numErr := strconv.ParseUint(port, 10, 16); err != nil || numErr != nil {
		f.add("http.listen", fmt.Sprintf("%q is no address to listen on", c.HTTP.Listen), "neither API nor health checks can be reached",
			"write host:port, such as 127.0.0.1:8080, or :8080 for every interface")
	} else if n == 0 {
		f.add("http.listen", "port 0 is a different port at each start",
			"neither API nor health checks are found", "choose a port")
	}
	if c.HTTP.MaxBodyBytes < c.Accept.MessageBytes {
		f.add("http.max_body_bytes", fmt.Sprintf("%d is less than accept.message_bytes, %d", c.HTTP.MaxBodyBytes, c.Accept.MessageBytes),
			"a message that accept allows is refused for the size of its request", "raise it, or lower accept.message_bytes")
	}
	if c.HTTP.MaxBodiesBytes < c.HTTP.MaxBodyBytes {
		f.add("http.max_bodies_bytes", fmt.Sprintf("%d is less than http.max_body_bytes, %d", c.HTTP.MaxBodiesBytes, c.HTTP.MaxBodyBytes),
			"the largest requests are refused at all times", "raise it, or lower http.max_body_bytes")
	}
}

func (f *faults) tracing(c *Config) {
	if c.Tracing.Endpoint != "" {
		u, err := url.Parse(c.Tracing.Endpoint)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			f.add("tracing.endpoint", "it is not of the form http://host:port or https://host:port/path", "no span would arrive anywhere",
				"write the collector's address for OTLP over HTTP, such as http://127.0.0.1:4318; a password goes to tracing.headers")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Tracing.Headers)) {
		if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(c.Tracing.Headers[name].Reveal()) {
			f.add("tracing.headers", fmt.Sprintf("%q can't be a header with this value", name), "the collector would refuse every request",
				"write a name such as Authorization, and a value on one line")
		}
	}
	between(f, "tracing.sample_ratio", c.Tracing.SampleRatio, 0, 1, "it is not clear what would be traced")
}

func (f *faults) auth(c *Config) {
	names, hashes := make(map[string]int), make(map[string]int)
	for i, token := range c.Auth.Tokens {
		path := fmt.Sprintf("auth.tokens[%d]", i)
		if !tokenNameForm.MatchString(token.Name) {
			f.add(path+".name", fmt.Sprintf("%q is no name for a token", token.Name), "logs can't say who it was",
				"write 1 to 64 letters, digits, or . _ @ -")
		} else if first, twice := names[token.Name]; twice {
			f.add(path+".name", fmt.Sprintf("%q is the name of auth.tokens[%d] too", token.Name, first),
				"logs can't tell the two apart", "give each token a name of its own")
		} else {
			names[token.Name] = i
		}
		f.oneOf(path+".role", token.Role, "the token would open nothing, or too much", "producer", "operator", "admin")

		if bound := len(token.Senders) + len(token.Kinds); bound > 0 && token.Role != "producer" {
			f.add(path, "senders or kinds of a token that is no producer's", "an operator or an administrator is not bound by them",
				"give those who hand mail in a token of the role producer")
		}
		for j, sender := range token.Senders {
			if canonical, err := mail.ParseSender(sender); err != nil {
				f.add(fmt.Sprintf("%s.senders[%d]", path, j), "neither an address nor @ and a domain", "the token could not be used for it",
					"write reports@example.com, or @example.com")
			} else {
				token.Senders[j] = canonical
			}
		}
		for j, kind := range token.Kinds {
			if !mail.Kind(kind).Valid() {
				f.add(fmt.Sprintf("%s.kinds[%d]", path, j), fmt.Sprintf("%q is not known", kind), "the token could not be used for it",
					"write one of alert, report, subscription")
			}
		}
		between(f, path+".requests_per_minute", token.RequestsPerMinute, 0, 100_000, "every request is remembered for a minute")

		hash := strings.ToLower(token.SHA256)
		first, twice := hashes[hash]
		switch raw, err := hex.DecodeString(hash); {
		case err != nil || len(raw) != 32:
			f.add(path+".sha256",
				"not 64 hexadecimal digits", "no token can match it; if it is the token itself, it is not safe here",
				"make one with: postroom token new")
		case hash == emptyHash:
			f.add(path+".sha256", "the hash of an empty token",
				"whoever sends no token at all could be let in", "make one with: postroom token new")
		case twice:
			f.add(path+".sha256", fmt.Sprintf("the same as of auth.tokens[%d]", first), "one token would have two names and roles",
				"give each its own token")
		default:
			hashes[hash] = i
		}
	}
}

func (f *faults) secrets(c *Config) {
	seen := make(map[string]int)
	for i, key := range c.Secrets.Keys {
		path := fmt.Sprintf("secrets.keys[%d]", i)
		raw, err := base64.StdEncoding.DecodeString(key.Reveal())
		if err != nil || len(raw) != keyBytes {
			f.add(path, fmt.Sprintf("not %d bytes in base64", keyBytes), "the provider's credentials can be neither sealed nor opened",
				"make one with: postroom key new")
			continue
		}
		if first, twice := seen[string(raw)]; twice {
			f.add(path, fmt.Sprintf("the same as secrets.keys[%d]", first), "a rotation that changes nothing",
				"make a new key with: postroom key new")
			continue
		}
		seen[string(raw)] = i
	}
}

func (f *faults) worker(c *Config) {
	w := c.Worker
	between(f, "worker.concurrency", w.Concurrency, 1, 10_000, "no mail, or more at once than a process can hold")
	between(f, "worker.alert_concurrency", w.AlertConcurrency, 1, 1_000, "alerts would wait behind everything, or crowd out all else")
	if w.ShutdownTimeout <= 0 {
		f.add("worker.shutdown_timeout", short(w.ShutdownTimeout)+" is no time at all",
			"attempts are cut after their point of no return, and may be sent twice", "write a duration such as 30s")
	}
	if w.AttemptTimeout < finalReply+2*time.Minute {
		problem := fmt.Sprintf("%s does not outlast the %s in which a mail server may answer", short(w.AttemptTimeout), short(finalReply))
		f.add("worker.attempt_timeout", problem,
			"an attempt is cut while the server accepts the mail, and it may be sent twice",
			"write 15m, or more for slow servers and large mail")
	}
	if w.ContentCacheBytes < 0 {
		f.add("worker.content_cache_bytes", "a size below zero",
			"no content could be cached", "write a number of bytes, 0 for no cache")
	}
}

func (f *faults) retry(c *Config) {
	f.delays("retry.delays", c.Retry.Delays)
	f.giveUp("retry.give_up", c.Retry.GiveUp, c.Retry.Delays)
	if j := c.Retry.Jitter; j < 0 || j >= 1 {
		f.add("retry.jitter", fmt.Sprintf("%v is no share of a delay", j), "a delay could be nothing or less",
			"write 0 or more and less than 1, such as 0.1")
	}
}

func (f *faults) kinds(c *Config) {
	for _, kind := range []struct {
		path string
		Kind
	}{
		{"kinds.alert", c.Kinds.Alert},
		{"kinds.report", c.Kinds.Report.Kind},
		{"kinds.subscription", c.Kinds.Subscription.Kind},
	} {
		// What is inherited from retry was judged there.
		inherited := slices.Equal(kind.Delays, c.Retry.Delays)
		if !inherited {
			f.delays(kind.path+".delays", kind.Delays)
		}
		if !inherited || kind.GiveUp != c.Retry.GiveUp {
			f.giveUp(kind.path+".give_up", kind.GiveUp, kind.Delays)
		}
		f.oneOf(kind.path+".on_unknown", kind.OnUnknown, "mail that may have been sent is sent twice, or never", "resend", "hold")
	}
	const danger = "mail of this kind would never have its turn, or leave none to the other"
	between(f, "kinds.report.weight", c.Kinds.Report.Weight, 1, 100, danger)
	between(f, "kinds.subscription.weight", c.Kinds.Subscription.Weight, 1, 100, danger)
}

func (f *faults) delays(path string, delays []time.Duration) {
	if len(delays) == 0 {
		f.add(path, "no delays",
			"what failed for now would be tried without a pause, or never", "write at least one, such as [1m, 5m, 15m, 1h]")
	}
	for i, delay := range delays {
		if delay < time.Second {
			f.add(fmt.Sprintf("%s[%d]", path, i), short(delay)+" is less than a second",
				"the provider would take the retries for an attack, and lock the account", "write a second or more")
		}
	}
}

func (f *faults) giveUp(path string, after time.Duration, delays []time.Duration) {
	if len(delays) > 0 && after <= delays[0] {
		f.add(path, fmt.Sprintf("%s is not longer than the first delay, %s", short(after), short(delays[0])),
			"mail is given up after a single attempt", "write a longer time, such as 24h")
	}
}

func (f *faults) bounds(c *Config) {
	const none = "no mail would be accepted, or more than can be held"
	between(f, "accept.recipients_per_message", c.Accept.RecipientsPerMessage, 1, 100_000, none)
	between(f, "accept.message_bytes", c.Accept.MessageBytes, 1<<10, 1<<30, none)
	between(f, "accept.recipients_per_batch", c.Accept.RecipientsPerBatch, 1, 10_000_000, none)

	if c.Accept.BacklogMax < 0 {
		f.add("accept.backlog_max", "a number below zero", "no mail could be accepted", "write a number of messages, 0 for no bound")
	} else if c.Accept.BacklogMax > 0 && c.Accept.BacklogMax < c.Accept.RecipientsPerBatch {
		f.add("accept.backlog_max", fmt.Sprintf("%d is less than accept.recipients_per_batch, %d", c.Accept.BacklogMax, c.Accept.RecipientsPerBatch),
			"a batch that accept allows never finds room", "raise it, or lower accept.recipients_per_batch")
	}

	if c.Records.DeliveredFor <= 0 {
		f.add("records.delivered_for", short(c.Records.DeliveredFor)+" is no time at all",
			"nobody can ask what became of a mail", "write a duration such as 24h")
	}
	if c.Records.DeliveredMax < 1 {
		f.add("records.delivered_max", "less than one record",
			"nobody can ask what became of a mail", "write a number such as 1000000")
	}
	if c.Records.FailedFor <= 0 {
		f.add("records.failed_for", short(c.Records.FailedFor)+" is no time at all",
			"failed mail is gone before anyone can look at it", "write a duration such as 720h")
	}
	if c.Content.KeptFor < time.Minute {
		f.add("content.kept_for", short(c.Content.KeptFor)+" is less than a minute",
			"a stored file is gone before the mail that refers to it is handed in", "write a duration such as 24h")
	}
	if c.Content.MaxBytes < c.Accept.MessageBytes {
		f.add("content.max_bytes", fmt.Sprintf("%d is less than accept.message_bytes, %d", c.Content.MaxBytes, c.Accept.MessageBytes),
			"a message that accept allows never finds room", "raise it, or lower accept.message_bytes")
	}
}

func (f *faults) network(c *Config) {
	_, problems := provider.NewGuard(c.Network.Forbidden)
	for _, p := range problems {
		problem, remedy, _ := strings.Cut(p.Reason, "; ")
		f.add("network.forbidden["+p.Field[1:]+"]", problem,
			"whoever may set the provider could have it connect there, and find out what only this machine can reach", remedy)
	}
}

// pointerIndex is the last part of a JSON pointer into a list.
var pointerIndex = regexp.MustCompile(`/([0-9]+)$`)

// provider takes over what the provider's own settings say, whose paths look like /smtp/host.
func (f *faults) provider(c *Config) {
	if c.Provider == nil {
		return
	}
	for _, p := range c.Provider.Validate() {
		problem, remedy, _ := strings.Cut(p.Reason, "; ")
		path := "provider" + pointerIndex.ReplaceAllString(p.Field, "[$1]")
		f.add(strings.ReplaceAll(path, "/", "."), problem, "no mail would go out", cmp.Or(remedy, remedyValue))
	}
}
