package bench

import (
	"context"
	"flag"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/queue/queuetest"
	"github.com/postroom/postroom/worker"
)

// full asks for the long form of a measurement or proof; without it, a short one shows that it still works.
var full = flag.Bool("full", false, "run the long form of measurements and proofs")

// size gives the number for the form that was asked for.
func size(long, short int) int {
	if *full {
		return long
	}
	return short
}

// cpu gives the processor time that this process and a Redis have used.
func cpu(t *testing.T, r *queuetest.Redis) (own, server time.Duration) {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	info, err := r.Client.InfoMap(t.Context(), "cpu").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"used_cpu_user", "used_cpu_sys"} {
		seconds, err := strconv.ParseFloat(info["CPU"][name], 64)
		if err != nil {
			t.Fatal(err)
		}
		server += time.Duration(seconds * float64(time.Second))
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), server
}

// bareAsynq drains n tasks with an empty handler.
func bareAsynq(t *testing.T, r *queuetest.Redis, n, concurrency int, weights map[string]int) drained {
	t.Helper()
	var names []string
	for name := range weights {
		names = append(names, name)
	}
	client := asynq.NewClientFromRedisClient(r.Client)
	for i := range n {
		if _, err := client.Enqueue(asynq.NewTask("mail", []byte("12345678901234567890123456")), asynq.Queue(names[i%len(names)])); err != nil {
			t.Fatal(err)
		}
	}
	var done atomic.Int64
	finished := make(chan struct{})
	server := asynq.NewServerFromRedisClient(r.Client, asynq.Config{Concurrency: concurrency, Queues: weights, LogLevel: asynq.FatalLevel})
	own, redis := cpu(t, r)
	begun := time.Now()
	err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error {
		if done.Add(1) == int64(n) {
			close(finished)
		}
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown()
	select {
	case <-finished:
	case <-time.After(5 * time.Minute):
		t.Fatal("bare asynq did not finish")
	}
	took := time.Since(begun)
	return since(t, r, n, took, own, redis)
}

// null is a sender that accepts everything at once.
type null struct{}

func (null) Send(_ context.Context, d *provider.Delivery) ([]mail.Outcome, error) {
	if err := d.Fence(); err != nil {
		return nil, err
	}
	return provider.All(len(d.Recipients), mail.Outcome{Class: mail.Delivered, Code: 250, Reply: "250 2.0.0 Ok: queued as 4XyzAbcDef"}), nil
}

func (null) Close() error { return nil }

// drained is what a drain came to.
type drained struct {
	perSecond float64
	// own and redis are processor time for each mail, of this process and of Redis.
	own, redis     time.Duration
	scriptsPerMail float64
}

// better keeps the faster of two runs.
func (d *drained) better(other drained) {
	if other.perSecond > d.perSecond {
		*d = other
	}
}

func since(t *testing.T, r *queuetest.Redis, n int, took, own, redis time.Duration) drained {
	t.Helper()
	ownNow, redisNow := cpu(t, r)
	return drained{perSecond: float64(n) / took.Seconds(), own: (ownNow - own) / time.Duration(n), redis: (redisNow - redis) / time.Duration(n)}
}

// drain sends n mails of 2 KB, accepted beforehand as one batch, by sender at a concurrency.
func drain(t *testing.T, r *queuetest.Redis, sender provider.Sender, n, concurrency int) drained {
	t.Helper()
	options := *r.Client.Options()
	options.Protocol, options.PushNotificationProcessor = 2, nil // as serve does
	client := redis.NewClient(&options)
	defer func() { _ = client.Close() }()
	var own, redis time.Duration
	took, scripts := drainFrom(t, client, sender, n, concurrency, func() { own, redis = cpu(t, r) })
	d := since(t, r, n, took, own, redis)
	d.scriptsPerMail = scripts / float64(n)
	return d
}

// drainFrom is drain with whatever Redis; begin is called when it begins.
func drainFrom(t *testing.T, client redis.UniversalClient, sender provider.Sender, n, concurrency int, begin func()) (took time.Duration, called float64) {
	t.Helper()
	registry := prometheus.NewRegistry()
	q, err := queue.Open(t.Context(), queue.Options{Client: client, Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	_, err = q.DeclareProvider(t.Context(), &queue.ActiveProvider{Kind: "smtp", Keying: queue.ByAccount, Account: "sink", Concurrency: concurrency}, "s", fmt.Sprint(concurrency), "here")
	if err != nil {
		t.Fatal(err)
	}
	b := mail.Batch{Message: mail.Message{Kind: mail.Subscription, From: mail.Address{Address: "news@example.com", Name: "News"},
		Subject: "News for {{.name}}", Text: "Dear {{.name}},\n\n" + strings.Repeat("This line is as long as lines in mails use to be, more or less.\n", 28)}}
	for i := range n {
		b.Recipients = append(b.Recipients, mail.Recipient{To: []mail.Address{{Address: fmt.Sprintf("reader%06d@example.net", i)}}, Variables: map[string]any{"name": fmt.Sprint("Reader ", i)}})
	}
	receipt, err := q.EnqueueBatch(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	before := scripts(t, registry)

	defer debug.SetGCPercent(debug.SetGCPercent(400)) // as serve does
	w := worker.New(worker.Options{Load: func(context.Context, *queue.Provider) (*worker.Active, error) {
		return &worker.Active{Sender: sender, Provider: "smtp", End: func() error { return nil }}, nil // whoever made it ends it
	}})
	c := q.NewConsumer(queue.ConsumerOptions{Load: w.Load, Handle: w.HandleTurn, Concurrency: 50})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	begin()
	begun := time.Now()
	go func() { ended <- c.Run(ctx) }()
	for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
		s, err := q.Batch(t.Context(), receipt.ID)
		if err != nil {
			t.Fatal(err)
		}
		if took = time.Since(begun); s.Delivered == n {
			break
		}
		if s.Failed > 0 || took > 10*time.Minute {
			t.Fatalf("the drain does not finish: %+v", s)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	return took, scripts(t, registry) - before
}

// scripts gives how many of our scripts were called.
func scripts(t *testing.T, g prometheus.Gatherer) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() == "postroom_redis_scripts_total" {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// measured starts a Redis that syncs its file each second, as those for real do.
func measured(t *testing.T) *queuetest.Redis {
	t.Helper()
	r := queuetest.Start(t)
	if err := r.Client.ConfigSet(t.Context(), "appendfsync", "everysec").Err(); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestDrain measures what a mail costs, beside what it stands on: all in one run, so that only the ratios count. Everything is
// measured several times, in turns, and the best of each counts: what else runs on a machine only ever makes a run slower.
func TestDrain(t *testing.T) {
	n := size(20_000, 1_000)
	address := sink(t)
	for _, concurrency := range []int{10, 50} {
		var one, three, source, nothing, smtp drained
		for range size(5, 1) {
			one.better(bareAsynq(t, measured(t), n, concurrency, map[string]int{"mail": 1}))
			three.better(bareAsynq(t, measured(t), n, concurrency, map[string]int{"alert": 6, "report": 3, "subscription": 1}))
			source.better(drained{perSecond: smtpSource(t, address, n, concurrency)})
			nothing.better(drain(t, measured(t), null{}, n, concurrency))
			smtp.better(drain(t, measured(t), smtpTo(t, address, concurrency), n, concurrency))
		}
		t.Logf("%d mails, %d connections:", n, concurrency)
		t.Logf("  %-46s %9s  %5s  %5s  %5s  %7s %7s", "", "", "/three", "/one", "/source", "CPU own", "Redis")
		row := func(what string, d drained) {
			t.Logf("  %-46s %7.0f/s  %5.2f  %5.2f  %5.2f  %4d us %4d us  %.3f scripts a mail", what, d.perSecond, d.perSecond/three.perSecond,
				d.perSecond/one.perSecond, d.perSecond/source.perSecond, d.own.Microseconds(), d.redis.Microseconds(), d.scriptsPerMail)
		}
		row("bare asynq, three weighted queues, empty handler", three)
		row("bare asynq, one queue, empty handler", one)
		row("smtp-source straight into the sink", source)
		row("postroom, a sender that does nothing", nothing)
		row("postroom, SMTP into the sink", smtp)
		if most := 1.1; *full && smtp.scriptsPerMail > most {
			t.Errorf("%.3f scripts for each mail, at most %.1f", smtp.scriptsPerMail, most)
		}
	}
}
