package queue

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
)

// account is the limit key that activate makes.
const account = "mail.example.com:587"

// desk works turns off by hand, without asynq: a test decides when something is dispatched, begun and settled.
type desk struct {
	*Consumer
	t *testing.T
}

// sitDown gives a desk whose lease runs for an hour.
func sitDown(t *testing.T, q *Queue, version string, change func(*ConsumerOptions)) *desk {
	t.Helper()
	o := ConsumerOptions{Load: loads(version), Handle: func(context.Context, *Turn) {}}
	if change != nil {
		change(&o)
	}
	c := q.NewConsumer(o)
	c.hard, c.stop = context.WithCancel(context.Background())
	c.stopping = c.hard
	c.assume(version)
	c.looks.closed = true // turns looks at the account by itself
	var parts sync.WaitGroup
	for range combiners {
		parts.Go(func() { c.combine(c.hard) })
	}
	t.Cleanup(func() {
		c.stop()
		parts.Wait()
	})
	d := &desk{Consumer: c, t: t}
	d.renew()
	return d
}

// assume has the consumer send with the settings of a version, as if it had loaded them.
func (c *Consumer) assume(version string) *using {
	u := &using{version: version}
	u.ctx, u.end = context.WithCancel(c.stopping)
	c.settings.mu.Lock()
	c.settings.now = u
	c.settings.mu.Unlock()
	return u
}

// renew makes the desk another worker.
func (d *desk) renew() {
	d.t.Helper()
	now := time.Now()
	l := newLease(now, time.Hour)
	l.renewed(now, now)
	if err := d.queue.run(context.Background(), "lease", l.worker, "new", "").Err(); err != nil {
		d.t.Fatal(err)
	}
	d.lease.Store(l)
}

// dies has the others take the desk's worker for dead: its lease ended long ago.
func (d *desk) dies() {
	d.t.Helper()
	l := d.lease.Load()
	l.over.Store(true)
	if err := d.queue.redis.HSet(context.Background(), d.queue.key("workers"), l.worker, 1).Err(); err != nil {
		d.t.Fatal(err)
	}
}

// turns dispatches once and gives what was handed out.
func (d *desk) turns() []*Turn {
	d.t.Helper()
	h, err := d.queue.handOut(context.Background(), account)
	if err != nil {
		d.t.Fatal(err)
	}
	var turns []*Turn
	for _, t := range h.turns {
		turns = append(turns, d.run(t))
	}
	return turns
}

// run gives a turn as handle would run it.
func (d *desk) run(t *Turn) *Turn {
	return &Turn{consumer: d.Consumer, id: t.id, key: t.key, unit: t.unit, run: token(8), ends: time.Now().Add(time.Hour), line: new(handLine)}
}

// turn gives the one turn that is handed out.
func (d *desk) turn() *Turn {
	d.t.Helper()
	turns := d.turns()
	if len(turns) != 1 {
		d.t.Fatalf("%d turns were handed out, want 1", len(turns))
	}
	return turns[0]
}

// end settles a turn's last attempt and ends the turn.
func end(turn *Turn, last *Settlement) {
	turn.ends = time.Time{}
	turn.Next(last)
}

// sweepAll ends what dead workers left.
func (d *desk) sweepAll() {
	d.t.Helper()
	if err := d.sweepTurns(context.Background()); err != nil {
		d.t.Fatal(err)
	}
}

// clock is a miniredis whose time a test moves.
type clock struct {
	*miniredis.Miniredis
	now time.Time
}

func (c *clock) advance(d time.Duration) {
	c.now = c.now.Add(d)
	c.SetTime(c.now)
}

// onClock gives a queue on a Redis whose time stands still until the test moves it.
func onClock(t *testing.T) (*Queue, *clock) {
	t.Helper()
	c := &clock{Miniredis: miniredis.RunT(t), now: time.Now()}
	c.SetTime(c.now)
	client := redis.NewClient(&redis.Options{Addr: c.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	return open(t, client), c
}

// outcomes makes a settlement from a letter for each recipient that was offered: d delivered, x refused, t temporary,
// h throttled, c configuration, u unknown.
func outcomes(a *Attempt, verdict Verdict, letters string) *Settlement {
	s := &Settlement{Attempt: a, Verdict: verdict, Counted: verdict != Back}
	classes := map[rune]mail.Class{'d': mail.Delivered, 'x': mail.Permanent, 't': mail.Temporary, 'h': mail.Throttled, 'c': mail.Configuration, 'u': mail.Unknown}
	for _, l := range letters {
		s.Class = classes[l]
		s.Outcomes = append(s.Outcomes, mail.Outcome{Class: classes[l], Reply: "999 " + classes[l].String()})
	}
	return s
}

// status gives what is known of a message.
func status(t *testing.T, q *Queue, id string) *MessageStatus {
	t.Helper()
	s, err := q.Message(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// states gives what became of each recipient, a letter each.
func states(s *MessageStatus) string {
	var b strings.Builder
	for _, r := range s.Recipients {
		b.WriteByte(map[string]byte{"pending": 'p', "delivered": 'd', "refused": 'x'}[r.State])
	}
	return b.String()
}

// to gives a message for several recipients.
func to(kind mail.Kind, addresses ...string) mail.Message {
	m := message(kind, addresses[0])
	for _, a := range addresses[1:] {
		m.To = append(m.To, mail.Address{Address: a})
	}
	return m
}

func enqueue(t *testing.T, q *Queue, m mail.Message) string {
	t.Helper()
	r, err := q.Enqueue(context.Background(), m)
	if err != nil {
		t.Fatal(err)
	}
	return r.ID
}

func enqueueBatch(t *testing.T, q *Queue, b mail.Batch) BatchReceipt {
	t.Helper()
	r, err := q.EnqueueBatch(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wire is a hook that sees every command, alone or in a pipeline.
type wire struct {
	// refuse makes a command fail without being sent.
	refuse func(redis.Cmder) bool
	// twice has every script of ours arrive twice.
	twice atomic.Bool
	gets  atomic.Int64
}

var errWire = errors.New("the wire is down")

func (w *wire) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (w *wire) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "get" {
			w.gets.Add(1)
		}
		if w.refuse != nil && w.refuse(cmd) {
			cmd.SetErr(errWire)
			return errWire
		}
		if w.twice.Load() && cmd.Name() == "evalsha" {
			if err := next(ctx, cmd); err != nil {
				return err
			}
		}
		return next(ctx, cmd)
	}
}

func (w *wire) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if w.twice.Load() {
			if err := next(ctx, cmds); err != nil {
				return err
			}
		}
		return next(ctx, cmds)
	}
}
