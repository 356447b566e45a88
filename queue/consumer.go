package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"

	"github.com/postroom/postroom/mail"
)

// turnTime is how long a turn lasts, so that other keys' turns get theirs.
const turnTime = 10 * time.Second

// attemptTimeout is when an attempt is over unless options say otherwise.
const attemptTimeout = 30 * time.Minute

// UnknownPolicy says what becomes of a message of which nobody knows whether it was sent.
type UnknownPolicy string

// The policies.
const (
	// Resend sends it again with the same Message-ID: it may arrive twice.
	Resend UnknownPolicy = "resend"
	// Hold puts it into the failed store: it may not have arrived.
	Hold UnknownPolicy = "hold"
)

// ConsumerOptions say how a process takes part in sending. Zero values stand for defaults.
type ConsumerOptions struct {
	// Handle works off one turn: it calls Next until that gives nil. ctx ends when the process is asked to stop: attempts
	// that have not reached their point of no return end then, and are handed back.
	Handle func(ctx context.Context, t *Turn)
	// Load makes ready what Handle sends with, when settings have become active that the process does not have. It is called by one
	// goroutine at a time; attempts begin for p.Version when it has returned, and none for the former. p.Kind is NoProvider if
	// none is active. After an error the process begins nothing, and Load is called again every few seconds. Default: whatever
	// is active will do.
	Load func(ctx context.Context, p *Provider) (Loaded, error)
	// Concurrency is how many turns the process works off at the same time; default 50. AlertConcurrency are as many more
	// for turns that were given out for alerts, twice: for those it gave out itself, and for those of others; default 5.
	Concurrency, AlertConcurrency int
	// AttemptTimeout is when an attempt is over for everybody else, whatever its worker does; default 30 min. It must be
	// longer than the sender's own time-outs.
	AttemptTimeout time.Duration
	// Grace is how long Run waits, once stopped, for attempts that can't be taken back; default 30 s.
	Grace time.Duration
	// OnUnknown is by kind; default Resend.
	OnUnknown map[mail.Kind]UnknownPolicy
	// CacheBytes bounds the content kept in memory; default 64 MiB.
	CacheBytes int
	// CheckInterval is how often an idle fetcher asks for turns; default 100 ms. It costs an idle process half a percent of a
	// core, and a mail that finds all workers idle half of it on average. Alerts do not wait for it.
	CheckInterval time.Duration
	// SweepInterval is how often what dead workers left is looked for; default 15 s.
	SweepInterval time.Duration
	// RepairInterval is how often indexes and counters are compared with the records, first after 5 min; default 1 h.
	RepairInterval time.Duration
}

// Loaded says what the settings that Load has made ready can do.
type Loaded struct {
	// Verifies says that Handle asks the provider what became of doubtful messages (Attempt.Doubtful): then they are offered
	// again whatever OnUnknown says, and Handle goes by it if the provider does not know.
	Verifies bool
}

// Consumer brings turns to a process, and does its share of what keeps them going: it hands turns out, holds a lease, and
// sweeps up after processes that died.
type Consumer struct {
	queue    *Queue
	options  ConsumerOptions
	log      *slog.Logger
	contents *contents
	asynq    *asynq.Client
	inspect  *asynq.Inspector
	began    time.Time
	// leaseTime and faultDelay are the constants, but in tests.
	leaseTime, faultDelay time.Duration
	alerts                string // asynq's queue for turns given out for alerts
	mail                  string

	lease       atomic.Pointer[lease]
	steadySince atomic.Int64 // since when Redis has answered without a gap: time since began, 0 for not

	// stopping ends when no more attempts are to begin; hard when the grace is over.
	stopping context.Context
	hard     context.Context
	stop     context.CancelFunc
	here     chan struct{} // filled by turns that run without asynq, for alerts
	looking  chan struct{} // filled by those that begin when a limit has room again
	looks    looks
	calls    chan *nextCall // of next.lua
	settings settings       // that it sends with
	// lostRedis is when the dispatcher lost Redis last: time since began, 0 for never.
	lostRedis atomic.Int64
	underway  underway    // what is begun and not settled
	refusing  atomic.Bool // Redis answered the last call of a turn, and did not take it
	turns     sync.WaitGroup

	mu      sync.Mutex
	closing bool // turns is waited for: none may begin any more
}

// NewConsumer prepares a process to take part in sending.
func (q *Queue) NewConsumer(o ConsumerOptions) *Consumer {
	setDefault(&o.Concurrency, 50)
	setDefault(&o.AlertConcurrency, 5)
	setDefault(&o.AttemptTimeout, attemptTimeout)
	setDefault(&o.Grace, 30*time.Second)
	setDefault(&o.CacheBytes, 64<<20)
	setDefault(&o.CheckInterval, 100*time.Millisecond)
	setDefault(&o.SweepInterval, sweepInterval)
	setDefault(&o.RepairInterval, time.Hour)
	return &Consumer{
		queue: q, options: o, log: q.log, contents: newContents(o.CacheBytes), began: time.Now(), leaseTime: leaseTime, faultDelay: faultDelay,
		asynq: asynq.NewClientFromRedisClient(q.redis), inspect: asynq.NewInspectorFromRedisClient(q.redis),
		alerts: q.options.Namespace + ":alert", mail: q.options.Namespace + ":mail",
		calls: make(chan *nextCall), here: make(chan struct{}, o.AlertConcurrency),
		looking: make(chan struct{}, o.Concurrency), settings: settings{look: make(chan struct{}, 1), told: make(chan struct{}, 1)},
	}
}

// Run takes part in sending until ctx ends. It stops in order: no new turns, attempts that can be taken back are, the others are
// awaited for the grace, the lease is given up.
func (c *Consumer) Run(ctx context.Context) error {
	base := context.WithoutCancel(ctx)
	var cancelHard context.CancelFunc
	c.hard, cancelHard = context.WithCancel(base)
	defer cancelHard()
	c.stopping, c.stop = context.WithCancel(base)
	defer c.stop()

	var parts sync.WaitGroup
	leaseCtx, endLease := context.WithCancel(base)
	partsCtx, endParts := context.WithCancel(base)
	defer func() {
		endParts()
		endLease()
		cancelHard() // which the combiners wait for
		parts.Wait()
	}()
	held := make(chan struct{})
	parts.Go(func() { c.keepLease(leaseCtx, held) })
	select {
	case <-held:
	case <-ctx.Done():
		return nil
	}

	for range combiners {
		parts.Go(func() { c.combine(c.hard) })
	}
	fetchers := &fetchers{consumer: c, base: base}
	following := make(chan error, 1)
	parts.Go(func() { following <- c.follow(partsCtx, fetchers) })
	parts.Go(func() { c.dispatch(partsCtx) })
	parts.Go(func() { c.sweep(partsCtx) })
	parts.Go(func() { c.repair(partsCtx) })
	parts.Go(func() { c.settleLost(partsCtx) })

	var result error
	select {
	case <-ctx.Done():
	case result = <-following:
	}
	fetchers.stop()
	endParts()
	c.stop()
	c.stopLooks()
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	done := make(chan struct{})
	go func() {
		c.turns.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(c.options.Grace):
		c.log.Warn("attempts that can't be taken back are still open; their records say so, and others will end them")
	}
	cancelHard()
	fetchers.shutDown()
	endLease()
	last, cancel := context.WithTimeout(base, 2*time.Second)
	defer cancel()
	c.endLease(last)
	return result
}

// Ready gives an error while this process begins no attempts because it has no lease, as when it has lost Redis.
func (c *Consumer) Ready(context.Context) error {
	if l := c.lease.Load(); l == nil || !l.live(time.Now()) {
		return ErrLeaseLost
	}
	return nil
}

// handle works off the turn of an asynq task. It never fails: what a turn leaves open is in our books, and asynq has
// nothing to repeat. A turn that our books do not name ends at its first Next.
func (c *Consumer) handle(ctx context.Context, task *asynq.Task) error {
	t, err := parseTurn(task.Payload())
	if err != nil {
		c.log.Error("a turn can't be read; a newer worker has to take it", "error", err)
		return err // asynq keeps it, and offers it again
	}
	if !c.settings.await(c.stopping) || !c.begins() {
		return c.queue.run(ctx, "withdraw", t.id, t.key, t.unit).Err() // somebody else gets its unit at once
	}
	<-c.start(t)
	return nil
}

// start works a turn off. What it gives is closed when whoever waits for the turn has the hand free for another: when it has ended, or
// when it goes on for settings that are no longer active, as its last attempt waits for an answer that may take minutes.
func (c *Consumer) start(t *Turn) <-chan struct{} {
	free, done := make(chan struct{}), make(chan struct{})
	var former <-chan struct{}
	if u := c.settings.current(); u != nil {
		former = u.ctx.Done()
	}
	go func() {
		defer c.turns.Done()
		defer close(done)
		c.work(t)
	}()
	go func() {
		defer close(free)
		select {
		case <-done:
		case <-former:
		}
	}()
	return free
}

// begins notes that a turn begins, unless the process is waiting for its last ones already.
func (c *Consumer) begins() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closing {
		c.turns.Add(1)
	}
	return !c.closing
}

// work runs a turn to its end.
func (c *Consumer) work(t *Turn) {
	t.consumer, t.run, t.ends, t.line = c, token(8), time.Now().Add(turnTime), new(handLine)
	var others sync.WaitGroup
	t.more = func() {
		t.more = nil
		for range hands - 1 {
			h := t.hand()
			others.Go(func() { c.handTurn(h) })
		}
	}
	c.handTurn(t)
	others.Wait()
}

// handTurn has one hand of a turn handled.
func (c *Consumer) handTurn(t *Turn) {
	defer func() {
		if p := recover(); p != nil {
			// The panic's text may hold content: only its type and place are told.
			c.log.Error("a turn ended by a panic", "turn", t, "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
		}
		t.end()
	}()
	c.options.Handle(c.stopping, t)
}

// hand gives a turn to whoever fetches it first.
func (c *Consumer) hand(ctx context.Context, t *Turn, alert bool) error {
	name := c.mail
	if alert {
		name = c.alerts
	}
	_, err := c.asynq.EnqueueContext(ctx, asynq.NewTask("turn", t.payload()), asynq.Queue(name), asynq.TaskID(t.id),
		asynq.MaxRetry(math.MaxInt32), asynq.Timeout(c.options.AttemptTimeout+time.Hour))
	if errors.Is(err, asynq.ErrTaskIDConflict) {
		return nil // an earlier call whose answer was lost
	}
	return err
}

// asynqLog passes asynq's words on, at level debug: they are about Redis, come many times a second while it is away, and
// our own calls have said it by then.
type asynqLog struct{ log *slog.Logger }

func (l asynqLog) Debug(args ...any) { l.log.Debug(fmt.Sprint(args...)) }
func (l asynqLog) Info(args ...any)  { l.log.Debug(fmt.Sprint(args...)) }
func (l asynqLog) Warn(args ...any)  { l.log.Debug(fmt.Sprint(args...)) }
func (l asynqLog) Error(args ...any) { l.log.Debug(fmt.Sprint(args...)) }
func (l asynqLog) Fatal(args ...any) { l.log.Error(fmt.Sprint(args...)) }

// markedTwice gives the letters of the kinds whose records are marked again before the point of no return: those that go to the
// failed store if nobody knows whether they were sent.
func (c *Consumer) markedTwice() string {
	letters := ""
	for _, kind := range mail.Kinds() {
		if c.options.OnUnknown[kind] == Hold {
			letters += letter(kind)
		}
	}
	return letters
}
