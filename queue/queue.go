// Package queue keeps mail in Redis from the moment it is accepted until it is delivered or has failed, and hands it to
// workers in order.
//
// Applications use Open, Enqueue, EnqueueBatch, Message, Batch and the two cancels. Workers use Consumer: it brings turns
// to them, and a turn's Next settles one message and begins the next. What is in Redis, and what happens when a process
// dies at any step, stands in ARCHITECTURE.md.
//
// This is the only package that knows asynq, and nothing of asynq shows outside it.
package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"

	"github.com/postroom/postroom/mail"
)

// Options say where the queue is and what bounds it. The zero value of a field stands for its default.
type Options struct {
	// URL is a redis:// or rediss:// URL. Ignored if Client is set.
	URL string
	// Client is used instead of a connection made from URL; Close leaves it open.
	Client redis.UniversalClient
	// Namespace separates installations on one Redis; default "postroom".
	Namespace string
	// Limits bound what is accepted; default mail.DefaultLimits.
	Limits mail.Limits
	// ContentMaxBytes bounds the content (bodies, attachments) in Redis in all; default 1 GiB.
	ContentMaxBytes int64
	// BacklogMax bounds the messages that wait or are being sent, all together; alerts find a tenth more room. 0 is no bound.
	BacklogMax int
	// ContentFor says how long a stored file is kept that no mail refers to (any more); default 24 h. It should be no shorter than
	// IdempotencyFor, for a request that is repeated is known by its files.
	ContentFor time.Duration
	// DeliveredMax bounds the records of ended mail in number, oldest dropped first; default 1,000,000.
	DeliveredMax int
	// DeliveredFor and FailedFor say how long records of ended and of failed mail are kept; defaults 24 h and 30 days.
	DeliveredFor, FailedFor time.Duration
	// IdempotencyFor says how long an idempotency key is remembered; default 24 h.
	IdempotencyFor time.Duration
	// WaitReplicas is how many replicas of Redis must have what was accepted before Enqueue and Commit say that it was, so that a
	// fail-over does not lose it; default 0. WaitTimeout is how long they are awaited before the answer is ErrNotReplicated;
	// default 1 s.
	WaitReplicas int
	WaitTimeout  time.Duration
	// MailboxMetrics bounds for how many limit keys there are metrics of their own, those with the longest backlog; the rest
	// share the label "other". Default 100.
	MailboxMetrics int
	// Weights of reports and subscriptions against each other, the same in every process that works; default 3 and 1.
	Weights map[mail.Kind]int
	// Logger takes what an operator should know; default: nothing is logged.
	Logger *slog.Logger
	// Registerer takes the metrics; default: they are not exported.
	Registerer prometheus.Registerer
	// TracerProvider takes a span for each message or batch that is accepted; default: none. Without it, too, the span that the
	// caller's context carries goes with the mail if it is sampled, and attempts link to it.
	TracerProvider trace.TracerProvider
}

// Queue is a connection to the mail of one installation. Safe for concurrent use.
type Queue struct {
	redis   redis.UniversalClient
	own     bool // redis was made here
	prefix  string
	scripts map[string]*redis.Script
	options Options
	log     *slog.Logger
	metrics *metrics
	tracer  trace.Tracer // nil: no spans
	known   known
	// confirming has a place for each who waits for replicas.
	confirming chan struct{}
	recent     recent
	away       outage
}

var namespaces = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// Open connects to Redis. It fails if Redis does not answer; a Redis that goes away later makes calls fail until it is back.
func Open(ctx context.Context, o Options) (*Queue, error) {
	setDefault(&o.Namespace, "postroom")
	setDefault(&o.ContentMaxBytes, 1<<30)
	setDefault(&o.ContentFor, 24*time.Hour)
	setDefault(&o.DeliveredMax, 1_000_000)
	setDefault(&o.DeliveredFor, 24*time.Hour)
	setDefault(&o.FailedFor, 30*24*time.Hour)
	setDefault(&o.IdempotencyFor, 24*time.Hour)
	setDefault(&o.WaitTimeout, time.Second)
	if o.Limits == (mail.Limits{}) {
		o.Limits = mail.DefaultLimits()
	}
	setDefault(&o.Limits.MaxBatch, mail.DefaultLimits().MaxBatch)
	setDefault(&o.Limits.MaxBytes, mail.DefaultLimits().MaxBytes)
	setDefault(&o.MailboxMetrics, 100)
	weights := map[mail.Kind]int{mail.Report: 3, mail.Subscription: 1}
	for k, w := range o.Weights {
		if w > 0 {
			weights[k] = w
		}
	}
	o.Weights = weights
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if !namespaces.MatchString(o.Namespace) {
		return nil, fmt.Errorf("queue: namespace %q: use 1 to 32 of a-z, 0-9 and hyphen", o.Namespace)
	}
	q := &Queue{redis: o.Client, prefix: "{" + o.Namespace + "}:", options: o, log: o.Logger, metrics: newMetrics(),
		confirming: make(chan struct{}, mostConfirming), recent: recent{lasts: time.Second}}
	if o.TracerProvider != nil {
		q.tracer = o.TracerProvider.Tracer(instrumentation)
	}
	if q.redis == nil {
		parsed, err := redis.ParseURL(o.URL)
		if err != nil {
			return nil, errors.New("queue: the Redis URL is not of the form redis://[user:password@]host:port/db") // err may quote the password
		}
		q.redis, q.own = redis.NewClient(parsed), true
	}
	switch q.redis.(type) {
	case *redis.Client, *redis.ClusterClient:
	default:
		return nil, errors.New("queue: open: the client must be a *redis.Client (also for Sentinel) or a *redis.ClusterClient")
	}
	err := q.ping(ctx)
	if err == nil {
		q.scripts, err = loadScripts(ctx, q.redis)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("queue: open: %w", err), q.Close())
	}
	q.metrics.register(o.Registerer) // last: whoever tries again would register twice
	return q, nil
}

// Close ends the connection if Open made it.
func (q *Queue) Close() error {
	if !q.own {
		return nil
	}
	return q.redis.Close()
}

// Limits are what bounds mail that is accepted, for whoever wants to know what is wrong with it before.
func (q *Queue) Limits() mail.Limits { return q.options.Limits }

// Ping reports whether Redis answers.
func (q *Queue) Ping(ctx context.Context) error {
	if err := q.ping(ctx); err != nil {
		return fmt.Errorf("queue: ping: %w", err)
	}
	return nil
}

// ping asks for one of our keys: of a cluster it is the shard that has them which is to answer.
func (q *Queue) ping(ctx context.Context) error { return q.redis.Exists(ctx, q.key("provider")).Err() }

// now gives the time of the Redis that has our keys. TIME by itself, having no key, would be answered by any shard of a cluster,
// whose clock is another one.
func (q *Queue) now(ctx context.Context) (time.Time, error) {
	ms, err := q.run(ctx, "now").Int64()
	return time.UnixMilli(ms), err
}

func (q *Queue) key(parts ...string) string {
	k := q.prefix
	for _, p := range parts {
		k += p
	}
	return k
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Errors of accepting and of looking up. Match with errors.Is.
var (
	// ErrNotFound: there is no such message or batch, or its record has been dropped.
	ErrNotFound = errors.New("queue: not found")
	// ErrTooLate: the message is being sent or has ended, so it can't be cancelled.
	ErrTooLate = errors.New("queue: too late to cancel: the message is being sent or has ended")
	// ErrFull: the content that waits has reached content.max_bytes, or Redis its maxmemory. Nothing was accepted; come back
	// later.
	ErrFull = errors.New("queue: full: what waits has reached content.max_bytes, or Redis its maxmemory; try again when some has gone out")
	// ErrRedisFull is the ErrFull that Redis gives.
	ErrRedisFull = fmt.Errorf("%w: it is Redis's maxmemory", ErrFull)
	// ErrBacklogFull: as many messages wait as accept.backlog_max allows. Nothing was accepted; come back later.
	ErrBacklogFull = errors.New("queue: full: as many messages wait as accept.backlog_max allows; try again when some have gone out")
	// ErrIdempotencyConflict: the idempotency key was used for another request.
	ErrIdempotencyConflict = errors.New("queue: the idempotency key was used before, for a different request")
	// ErrIdempotencyRunning: a request with the same idempotency key is under way. Repeat it later for its answer.
	ErrIdempotencyRunning = errors.New("queue: a request with the same idempotency key is under way")
	// ErrStagingExpired: accepting took longer than its deadline and was dropped, or a fail-over of Redis has lost a part of it. Nothing
	// was accepted; repeat the request.
	ErrStagingExpired = errors.New("queue: accepting took too long or was cut by a fail-over of Redis, and nothing was accepted: repeat the request")
	// ErrNotReplicated: it was accepted, and will be sent unless a fail-over comes before as many replicas as Options.WaitReplicas
	// have it. Repeated with the same idempotency key the request is answered when they have it, and accepted once. Without
	// a key nobody can tell but by the receipt's id, which is given beside this error; a repetition would be another message.
	ErrNotReplicated = errors.New("queue: accepted, but too few replicas of Redis are known to have it: it may be sent, and a fail-over may lose it; " +
		"repeat the request with the same idempotency key")
)
