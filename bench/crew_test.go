package bench

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/config"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/queue/queuetest"
	"github.com/postroom/postroom/throttle"
	"github.com/postroom/postroom/worker"
)

// crew is some processes of workers that share a Redis and send to a strict server. Each mailbox has limits of its own, as
// with Microsoft 365, whose windows last minutes: so a process is this test binary, run as TestCrewMember, with a protocol that has none.
type crew struct {
	t      testing.TB
	redis  *queuetest.Redis // nil: another one, at url
	url    string
	queue  *queue.Queue
	server *strict
}

// Environment of a crew's process.
const (
	crewRedis   = "POSTROOM_CREW_REDIS"
	crewServer  = "POSTROOM_CREW_SERVER"
	crewMetrics = "POSTROOM_CREW_METRICS"
)

// assemble starts Redis, a strict server and a queue that is told the same terms; nobody works yet.
func assemble(t testing.TB, latency time.Duration, each, all terms) *crew {
	t.Helper()
	r := queuetest.Start(t)
	c := assembleAt(t, r.URL, latency, each, all)
	c.redis = r
	return c
}

// assembleAt is assemble with a Redis that runs.
func assembleAt(t testing.TB, url string, latency time.Duration, each, all terms) *crew {
	t.Helper()
	c := &crew{t: t, url: url, server: enforce(t, latency, each, all)}
	q, err := queue.Open(t.Context(), queue.Options{Client: client(t, url)})
	if err != nil {
		t.Fatal(err)
	}
	c.queue = q
	c.tell(each, all)
	return c
}

// client connects to a Redis as serve does.
func client(t testing.TB, url string) redis.UniversalClient {
	t.Helper()
	var r redis.UniversalClient
	if options, err := redis.ParseURL(url); err == nil { // also a socket's, which the configuration does not take
		options.Protocol = 2
		r = redis.NewClient(options)
	} else if r, err = (config.Redis{URL: provider.Secret(url)}).Client(64); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// tell makes terms those that the workers keep to.
func (c *crew) tell(each, all terms) {
	c.t.Helper()
	translate := func(limits []limit) []throttle.Limit {
		var translated []throttle.Limit
		for _, l := range limits {
			translated = append(translated, throttle.Limit{Name: throttle.Name(l.what), Max: int64(l.most), Window: l.window})
		}
		return translated
	}
	_, err := c.queue.DeclareProvider(c.t.Context(), &queue.ActiveProvider{Kind: "microsoft365", Keying: queue.ByMailbox, Sender: "postroom@example.com",
		Concurrency: each.concurrency, Limits: translate(each.limits), AllConcurrency: all.concurrency, AllLimits: translate(all.limits)}, "salt", "the same settings", "here")
	if err != nil {
		c.t.Fatal(err)
	}
}

// start adds a process, and returns when it takes part.
func (c *crew) start() *postroom {
	c.t.Helper()
	self, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	address := freeAddress(c.t)
	p := &postroom{t: c.t, command: exec.Command(self, "-test.run=^TestCrewMember$", "-test.timeout=0"), ended: make(chan struct{}), url: "http://" + address}
	p.command.Env = append(os.Environ(), "TMPDIR="+c.t.TempDir(),
		crewRedis+"="+c.url, crewServer+"="+c.server.address, crewMetrics+"="+address)
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.command.Stdout, p.command.Stderr = &p.stderr, &p.stderr
	if err := p.command.Start(); err != nil {
		c.t.Fatal(err)
	}
	go func() {
		_ = p.command.Wait()
		close(p.ended)
	}()
	c.t.Cleanup(func() {
		p.kill()
		if c.t.Failed() {
			c.t.Logf("a worker's last words:\n%s", p.stderr.tail(2000))
		}
	})
	await(c.t, time.Minute, "a worker to be ready", func() bool {
		response, err := http.Get(p.url + "/readyz")
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	return p
}

// crowd starts n processes at once.
func (c *crew) crowd(n int) []*postroom {
	c.t.Helper()
	all := make([]*postroom, n)
	for i := range all {
		all[i] = c.start()
	}
	return all
}

// accept hands in n messages of a mailbox as one batch.
func (c *crew) accept(mailbox string, kind mail.Kind, n int) (batch string, ids []string) {
	c.t.Helper()
	b := newsletter(n)
	b.Message.Kind, b.Message.From = kind, mail.Address{Address: mailbox}
	receipt, err := c.queue.EnqueueBatch(c.t.Context(), b)
	if err != nil {
		c.t.Fatal(err)
	}
	return receipt.ID, receipt.IDs
}

// one hands in a single message to so many recipients.
func (c *crew) one(mailbox string, kind mail.Kind, recipients int) (id string) {
	c.t.Helper()
	m := mail.Message{Kind: kind, From: mail.Address{Address: mailbox}, Subject: "Disk full", Text: "It is."}
	for i := range recipients {
		m.To = append(m.To, mail.Address{Address: fmt.Sprintf("ops%02d@example.net", i)})
	}
	receipt, err := c.queue.Enqueue(c.t.Context(), m)
	if err != nil {
		c.t.Fatal(err)
	}
	return receipt.ID
}

// open is how many of a batch have not ended.
func (c *crew) open(batch string) int {
	c.t.Helper()
	s, err := c.queue.Batch(c.t.Context(), batch)
	if err != nil {
		c.t.Fatal(err)
	}
	return s.Open
}

// mailbox names one of many.
func mailbox(i int) string { return fmt.Sprintf("reports%02d@example.com", i) }

// TestCrewMember is no test but what a process of a crew does, until it is asked to stop or killed.
func TestCrewMember(t *testing.T) {
	if os.Getenv(crewRedis) == "" {
		t.Skip("it is a worker of other tests, which run it as a process")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	registry := prometheus.NewRegistry()
	q, err := queue.Open(ctx, queue.Options{Client: client(t, os.Getenv(crewRedis)), Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	w := worker.New(worker.Options{Load: func(context.Context, *queue.Provider) (*worker.Active, error) {
		return &worker.Active{Sender: line(os.Getenv(crewServer)), Provider: "microsoft365", From: mail.Address{Address: "postroom@example.com"}}, nil
	}})
	c := q.NewConsumer(queue.ConsumerOptions{Load: w.Load, Handle: w.HandleTurn})
	pages := http.NewServeMux()
	pages.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	pages.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := c.Ready(r.Context()); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	server := &http.Server{Addr: os.Getenv(crewMetrics), Handler: pages, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.ListenAndServe() }()
	defer func() { _ = server.Close() }()
	if err := c.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// line is a sender to the strict server at this address.
type line string

func (l line) Send(_ context.Context, d *provider.Delivery) ([]mail.Outcome, error) {
	all := func(class mail.Class, scope mail.Scope, reply string) ([]mail.Outcome, error) {
		return provider.All(len(d.Recipients), mail.Outcome{Class: class, Scope: scope, Step: "line", Reply: reply}), nil
	}
	conn, err := net.Dial("unix", string(l))
	if err != nil {
		return all(mail.Temporary, mail.ScopeProvider, "No connection.")
	}
	defer func() { _ = conn.Close() }()
	if err := d.Fence(); err != nil {
		return nil, err
	}
	_, err = fmt.Fprintln(conn, d.Message.From.Address, d.Message.ID, d.Message.Kind, len(d.Recipients))
	if err != nil {
		return all(mail.Unknown, mail.ScopeMessage, "The request may have arrived.")
	}
	switch answer, err := bufio.NewReader(conn).ReadString('\n'); {
	case err != nil:
		return all(mail.Unknown, mail.ScopeMessage, "No answer.")
	case strings.HasPrefix(answer, retryAfter):
		silence, err := time.ParseDuration(strings.TrimSpace(strings.TrimPrefix(answer, retryAfter)))
		if err != nil {
			return nil, err
		}
		return provider.All(len(d.Recipients), mail.Outcome{Class: mail.Throttled, Scope: mail.ScopeMailbox, Step: "line", Reply: "Too fast.", RetryAfter: silence}), nil
	case answer != "\n":
		return all(mail.Throttled, mail.ScopeMailbox, "Too much: "+answer)
	}
	return all(mail.Delivered, mail.ScopeMessage, "Taken.")
}

func (line) Close() error { return nil }
