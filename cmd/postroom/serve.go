package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/config"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/worker"
)

func newServeCommand() *cobra.Command {
	var path string
	var roles []string
	var checkOnly, held bool
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the API, the workers, or both",
		Long: `Run the API, the workers, or both, until SIGTERM or Ctrl-C.

It needs Redis 7 or later. Any number of processes, on any number of machines, may share one Redis: they share the work.
With --held mail is accepted and nothing is sent, by any process on this Redis, until "postroom resume --all", for 30 days at
most: start so after restoring Redis from a backup, when what it holds may have been sent already.

What "postroom check" finds is logged, but for the provider, which is not tried. It does not start with a Redis that would lose
mail: one that is a replica, or, unless redis.may_forget is true, that writes neither an AOF nor snapshots, or deletes mail when
it is full.

On SIGTERM, attempts that have not reached their point of no return are handed back; the others are awaited for
worker.shutdown_timeout.`,
		Example: `  postroom serve --config postroom.yaml
  postroom serve --config postroom.yaml --check-config
  postroom serve --config postroom.yaml --held
  POSTROOM_REDIS_URL=redis://redis:6379/0 postroom serve --roles api`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, role := range roles {
				if role != "api" && role != "worker" {
					return usage("--roles: %q is neither api nor worker", role)
				}
			}
			cfg, err := config.Load(path, os.Environ())
			if err != nil {
				return err
			}
			if checkOnly {
				return cfg.Print(cmd.OutOrStdout())
			}
			collectSeldom()
			log, level := newLogger(cfg.Log, os.Stderr)
			client, err := cfg.Redis.Client(connections(cfg))
			if err != nil {
				return fmt.Errorf("redis.url: %w", err)
			}
			defer func() { _ = client.Close() }()
			s, err := newServer(cmd.Context(), serverOptions{config: cfg, redis: client, log: log, level: level, held: held,
				api: slices.Contains(roles, "api"), worker: slices.Contains(roles, "worker")})
			if err != nil {
				return err
			}
			return s.run(cmd.Context())
		},
	}
	c.Flags().StringVar(&path, "config", "", "configuration file (YAML); without it, defaults and POSTROOM_... in the environment")
	c.Flags().StringSliceVar(&roles, "roles", []string{"api", "worker"}, "what this process does: api, worker, or both")
	c.Flags().BoolVar(&held, "held", false, "pause everything before anything is sent, as after a restore of Redis")
	c.Flags().BoolVar(&checkOnly, "check-config", false, "check the configuration, print it without its secrets, and exit")
	return c
}

// collectSeldom has the garbage collected when the heap has grown to five times what is in use, and not to twice: ours is
// small, and this saves a tenth of the time of a full drain. GOGC and GOMEMLIMIT go before it.
func collectSeldom() {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetGCPercent(400)
	}
}

// connections is how many a process needs: one for each turn, and some for all else.
func connections(cfg *config.Config) int {
	return cfg.Worker.Concurrency + cfg.Worker.AlertConcurrency + 16
}

// newLogger makes the log, and what changes its level while it runs.
func newLogger(c config.Log, out *os.File) (*slog.Logger, *slog.LevelVar) {
	level := &slog.LevelVar{}
	_ = level.UnmarshalText([]byte(c.Level)) // config has checked it
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(out, o)), level
	}
	return slog.New(slog.NewTextHandler(out, o)), level
}

// redisLog passes on what go-redis says on its own account.
type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, fmt.Sprintf(format, args...))
}

type serverOptions struct {
	config      *config.Config
	redis       redis.UniversalClient
	log         *slog.Logger
	level       *slog.LevelVar // of log; nil: it stays as it is
	api, worker bool
	held        bool // pause everything first
	embedded    bool // Redis is the demo's own, and there is nothing to check
}

// server is one process: the API, the workers, or both.
type server struct {
	serverOptions
	queue     *queue.Queue
	providers *providers
	worker    *worker.Worker // nil: the process sends nothing
	consumer  *queue.Consumer
	tracing   *tracing // nil: off
	registry  *prometheus.Registry
	listener  net.Listener
	http      *http.Server
}

// startPatience is how long a start waits for Redis.
const startPatience = 30 * time.Second

func newServer(ctx context.Context, o serverOptions) (*server, error) {
	redis.SetLogger(redisLog{o.log})
	s := &server{serverOptions: o, registry: prometheus.NewRegistry()}
	cfg := o.config
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	var err error
	if s.tracing, err = newTracing(cfg.Tracing, cfg.Redis.Namespace, o.log); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(startPatience); ; {
		s.queue, err = queue.Open(ctx, queue.Options{
			Client: o.redis, Namespace: cfg.Redis.Namespace, Logger: o.log, Registerer: s.registry,
			TracerProvider: s.tracing.tracerProvider(),
			Limits: mail.Limits{MaxRecipients: cfg.Accept.RecipientsPerMessage, MaxBytes: cfg.Accept.MessageBytes,
				MaxBatch: cfg.Accept.RecipientsPerBatch},
			BacklogMax: cfg.Accept.BacklogMax, ContentMaxBytes: cfg.Content.MaxBytes, ContentFor: cfg.Content.KeptFor, DeliveredMax: cfg.Records.DeliveredMax,
			WaitReplicas: cfg.Redis.WaitReplicas, WaitTimeout: cfg.Redis.WaitTimeout,
			DeliveredFor: cfg.Records.DeliveredFor, FailedFor: cfg.Records.FailedFor, MailboxMetrics: cfg.Metrics.Mailboxes,
			Weights: map[mail.Kind]int{mail.Report: cfg.Kinds.Report.Weight, mail.Subscription: cfg.Kinds.Subscription.Weight},
		})
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			break
		}
		o.log.Warn("Redis does not answer yet; waiting for it", "error", err, "remedy", "start it, or say by redis.url (POSTROOM_REDIS_URL) where it is")
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w (is redis.url right, and Redis running?)", err)
	}
	s.registry.MustRegister(s.queue.Collector())
	if !o.embedded {
		if err := s.guard(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.pause(ctx); err != nil {
		return nil, err
	}
	if s.providers, err = newProviders(cfg, s.queue, o.log); err != nil {
		return nil, err
	}
	if err := s.providers.declare(ctx); err != nil {
		return nil, err
	}
	if !o.embedded {
		s.warn(ctx)
	}
	if o.worker {
		s.prepareWorker()
	}
	if err := s.prepareHTTP(); err != nil {
		return nil, err
	}
	s.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "postroom_build_info",
		Help: "The version of this process; always 1.", ConstLabels: prometheus.Labels{"version": version()}}, func() float64 { return 1 }))
	return s, nil
}

// heldFor is how long --held lasts if nobody resumes.
const heldFor = 30 * 24 * time.Hour

// pause pauses everything before a worker of this process begins, if that was asked for, and says so if everything is paused.
func (s *server) pause(ctx context.Context) error {
	if s.held {
		until, err := s.queue.Pause(ctx, queue.Everything, heldFor, "started with --held", queue.Author{Name: "serve --held"})
		if err != nil {
			return err
		}
		s.log.Warn(`everything is paused: mail is accepted and nothing is sent; "postroom resume --all" lets it go`, "until", until)
		return nil
	}
	pause, err := s.queue.PauseOfEverything(ctx)
	if err != nil {
		return err
	}
	if pause != nil {
		s.log.Warn(`everything is paused: nothing is sent; "postroom resume --all" lets it go`,
			"by", pause.By, "reason", pause.Reason, "since", pause.Since, "until", pause.Until)
	}
	return nil
}

// prepareWorker makes what sends by whatever settings are active.
func (s *server) prepareWorker() {
	cfg := s.config
	schedules := make(map[mail.Kind]worker.Schedule)
	unknown := make(map[mail.Kind]queue.UnknownPolicy)
	for _, k := range mail.Kinds() {
		kind := cfg.Kinds.Of(k)
		schedules[k] = worker.Schedule{Delays: kind.Delays, GiveUp: kind.GiveUp, Jitter: cfg.Retry.Jitter}
		unknown[k] = queue.UnknownPolicy(kind.OnUnknown)
	}
	s.worker = worker.New(worker.Options{Load: s.providers.load, Schedules: schedules, OnUnknown: unknown, Logger: s.log,
		Registerer: s.registry, TracerProvider: s.tracing.tracerProvider()})
	s.consumer = s.queue.NewConsumer(queue.ConsumerOptions{
		Handle: s.worker.HandleTurn, Load: s.worker.Load, Concurrency: cfg.Worker.Concurrency,
		AlertConcurrency: cfg.Worker.AlertConcurrency, AttemptTimeout: cfg.Worker.AttemptTimeout,
		Grace: cfg.Worker.ShutdownTimeout, OnUnknown: unknown, CacheBytes: int(cfg.Worker.ContentCacheBytes),
	})
}

// prepareHTTP opens the listener: the whole API, or for a process that only works /livez, /readyz and /metrics.
func (s *server) prepareHTTP() error {
	cfg := s.config
	o := admin.Options{Queue: s.queue, MaxBodyBytes: cfg.HTTP.MaxBodyBytes, MaxBodiesBytes: cfg.HTTP.MaxBodiesBytes, Gatherer: s.registry, Registerer: s.registry,
		Version: version(), Logger: s.log}
	host, _ := os.Hostname()
	o.Providers = &admin.Providers{Keys: s.providers.keys, Settings: s.providers.settings, Active: activeProvider, Check: s.providers.check, Host: host}
	if s.consumer != nil {
		o.Ready = s.consumer.Ready
	}
	if s.api {
		for _, t := range cfg.Auth.Tokens {
			kinds := make([]mail.Kind, len(t.Kinds))
			for i, k := range t.Kinds {
				kinds[i] = mail.Kind(k)
			}
			o.Tokens = append(o.Tokens, admin.Token{Name: t.Name, Role: t.Role, SHA256: t.SHA256, Senders: t.Senders, Kinds: kinds,
				RequestsPerMinute: t.RequestsPerMinute})
		}
	}
	s.http = &http.Server{Handler: admin.NewHandler(o), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 5 * time.Minute,
		WriteTimeout: 5 * time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)}
	var err error
	s.listener, err = net.Listen("tcp", cfg.HTTP.Listen)
	if err != nil {
		return fmt.Errorf("http.listen: %w", err)
	}
	return nil
}

// run serves until ctx ends. The workers stop first, the API and the metrics last.
func (s *server) run(ctx context.Context) error {
	s.log.Info("postroom is running", "version", version(), "listen", s.listener.Addr().String(), "api", s.api, "worker", s.consumer != nil)
	failed := make(chan error, 2)
	go func() {
		if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("http: %w", err)
		}
	}()
	working, stopWork := context.WithCancel(ctx)
	defer stopWork()
	declaring := make(chan struct{})
	go func() {
		defer close(declaring)
		s.providers.keepDeclared(working)
	}()
	defer func() { <-declaring }()
	following := make(chan struct{})
	go func() {
		defer close(following)
		s.followLogLevel(working)
	}()
	defer func() { <-following }()
	worked := make(chan error, 1)
	go func() {
		if s.consumer == nil {
			s.queue.Tend(working)
			worked <- nil
			return
		}
		worked <- s.consumer.Run(working)
	}()
	var result error
	stopped := false
	select {
	case <-ctx.Done():
	case result = <-failed:
	case result = <-worked:
		stopped = true
	}
	s.log.Info("postroom is stopping")
	stopWork()
	if !stopped {
		result = errors.Join(result, <-worked)
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := s.http.Shutdown(last); err != nil {
		result = errors.Join(result, s.http.Close())
	}
	if s.worker != nil {
		_ = s.worker.Close(last) // what outlasted the grace still waits for its reply, and would for minutes; the process ends now
	}
	s.tracing.stop(context.WithoutCancel(ctx))
	return result
}
