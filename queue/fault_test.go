package queue

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue/queuetest"
)

// errCut is what a process sees that has lost Redis.
var errCut = errors.New("cut off from Redis")

// line is a hook that stands between a process and Redis.
type line struct {
	cut   atomic.Bool  // nothing passes
	left  atomic.Int64 // commands until it is cut, if dies is set
	dies  atomic.Bool
	lost  bool // the command at which it is cut still arrives, but its answer is lost
	twice bool // every script of ours arrives twice
}

func (l *line) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (l *line) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if l.dies.Load() && l.left.Add(-1) < 0 && !l.cut.Swap(true) && l.lost {
			_ = next(ctx, cmd)
		}
		if l.cut.Load() {
			cmd.SetErr(errCut)
			return errCut
		}
		if args := cmd.Args(); l.twice && cmd.Name() == "evalsha" && args[3] == "{postroom}:" {
			if err := next(ctx, cmd); err != nil {
				return err
			}
		}
		return next(ctx, cmd)
	}
}

func (l *line) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// through opens a queue on r through l.
func through(t *testing.T, r *queuetest.Redis, l *line) *Queue {
	t.Helper()
	o := *r.Client.Options()
	o.MaxRetries = -1
	client := redis.NewClient(&o)
	t.Cleanup(func() { _ = client.Close() })
	q := open(t, client)
	client.AddHook(l)
	return q
}

// keysOf gives the names of all keys.
func keysOf(t *testing.T, q *Queue) []string {
	t.Helper()
	keys, err := q.redis.Keys(t.Context(), q.key("*")).Result()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestProducerDyingAtAnyStepLosesAndDoublesNothing(t *testing.T) {
	r := queuetest.Start(t)
	healthy := open(t, r.Client)
	big := message(mail.Report, "ada@example.net")
	big.Attachments = []mail.Attachment{{Name: "a.bin", Content: make([]byte, 2*chunkBytes)}}
	for name, enqueue := range map[string]func(q *Queue) (string, error){
		"message": func(q *Queue) (string, error) {
			return id(q.Enqueue(t.Context(), message(mail.Report, "ada@example.net"), Idempotency("", "k")))
		},
		"large message": func(q *Queue) (string, error) { return id(q.Enqueue(t.Context(), big, Idempotency("", "k"))) },
		"batch": func(q *Queue) (string, error) {
			receipt, err := q.EnqueueBatch(t.Context(), batch(mail.Report, 450), Idempotency("", "k"))
			return receipt.ID, err
		},
	} {
		for _, lost := range []bool{false, true} {
			for steps := int64(0); ; steps++ {
				if err := r.Client.FlushAll(t.Context()).Err(); err != nil {
					t.Fatal(err)
				}
				l := &line{lost: lost}
				dying := through(t, r, l)
				l.left.Store(steps)
				l.dies.Store(true)
				_, err := enqueue(dying)
				if err == nil {
					break // it needs no more steps than these
				}
				before, _ := healthy.Counts(t.Context())
				committed := before.Open[mail.Report]
				if n := len(waiting(t, healthy)); n != committed {
					t.Fatalf("%s cut at %d (answer lost: %v): %d may go, %d are counted as accepted", name, steps, lost, n, committed)
				}
				again, err := enqueue(healthy)
				if err != nil {
					t.Fatalf("%s cut at %d: repeated: %v", name, steps, err)
				}
				want := 1
				if name == "batch" {
					want = 450
				}
				after, _ := healthy.Counts(t.Context())
				if after.Open[mail.Report] != want || (committed != 0 && committed != want) {
					t.Fatalf("%s cut at %d: %d accepted, then %d after repeating; want 0 or %d, then %d", name, steps, committed, after.Open[mail.Report], want, want)
				}
				// What is left staged goes by the sweep, and only that.
				for _, staged := range r.Client.ZRange(t.Context(), healthy.key("staged"), 0, -1).Val() {
					r.Client.ZAdd(t.Context(), healthy.key("staged"), redis.Z{Score: 1, Member: staged})
				}
				if err := healthy.tidy(t.Context()); err != nil {
					t.Fatal(err)
				}
				left := 0
				for _, k := range keysOf(t, healthy) {
					if len(k) > len(healthy.prefix)+2 && k[len(healthy.prefix):len(healthy.prefix)+2] == "m:" {
						left++
					}
				}
				if left != want {
					t.Fatalf("%s cut at %d: %d records after the sweep, want %d", name, steps, left, want)
				}
				if name == "batch" {
					err = healthy.CancelBatch(t.Context(), again)
				} else {
					err = healthy.CancelMessage(t.Context(), again)
				}
				if err != nil {
					t.Fatal(err)
				}
				noContentIsLeft(t, healthy)
			}
		}
	}
}

func id(r Receipt, err error) (string, error) { return r.ID, err }

// waiting gives the entries of every lane that stands in a ring.
func waiting(t *testing.T, q *Queue) []string {
	t.Helper()
	var entries []string
	for _, kind := range []string{"a", "r", "s"} {
		for _, sender := range q.redis.LRange(t.Context(), q.key("s:", kind), 0, -1).Val() {
			for _, lane := range q.redis.LRange(t.Context(), q.key("r:", kind, ":", sender), 0, -1).Val() {
				for _, which := range []string{":n", ":d"} {
					entries = append(entries, q.redis.LRange(t.Context(), q.key("l:", kind, ":", sender, ":", lane, which), 0, -1).Val()...)
				}
			}
		}
	}
	return entries
}

func TestEveryScriptMayRunTwice(t *testing.T) {
	r := queuetest.Start(t)
	q := through(t, r, &line{twice: true})
	version := activate(t, q, 5)
	receipt, err := q.EnqueueBatch(t.Context(), batch(mail.Report, 300))
	if err != nil {
		t.Fatal(err)
	}
	single, err := q.Enqueue(t.Context(), message(mail.Alert, "ada@example.net"))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	tries := map[string]int{}
	consume(t, q, version, func(a *Attempt) *Settlement {
		mu.Lock()
		defer mu.Unlock()
		tries[a.MessageID]++
		if len(tries)%3 == 0 && tries[a.MessageID] == 1 {
			return &Settlement{Attempt: a, Verdict: Again, Class: mail.Temporary, Counted: true, Delay: 20 * time.Millisecond,
				Outcomes: []mail.Outcome{{Class: mail.Temporary, Code: 451, Reply: "451 later"}}}
		}
		if len(tries)%60 == 0 && tries[a.MessageID] == 1 { // few: what a lost answer told of a hold, others look after late
			return &Settlement{Attempt: a, Verdict: Back, Class: mail.Throttled, Hold: 20 * time.Millisecond, Reason: "throttled",
				Outcomes: []mail.Outcome{{Class: mail.Throttled, Code: 421, Reply: "421 too fast"}}}
		}
		return delivered(a)
	})
	eventually(t, "all is delivered", func() bool {
		b, err := q.Batch(t.Context(), receipt.ID)
		s, err2 := q.Message(t.Context(), single.ID)
		return err == nil && err2 == nil && b.Delivered == 300 && s.State == Delivered
	})
	counts, err := q.Counts(t.Context())
	if err != nil || counts.Open[mail.Report] != 0 || counts.Open[mail.Alert] != 0 || counts.Failed[mail.Report] != 0 {
		t.Errorf("counts %+v, %v", counts, err)
	}
	noContentIsLeft(t, q)
}

// worker is a process that takes part in sending, and can be cut off from Redis.
type process struct {
	*Consumer
	line  *line
	queue *Queue
}

// join starts a process with a lease of a fifth of a second.
func join(t *testing.T, r *queuetest.Redis, handle func(*Turn), change func(*ConsumerOptions)) *process {
	t.Helper()
	p := &process{line: &line{}}
	p.queue = through(t, r, p.line)
	o := ConsumerOptions{Load: loads(activate(t, open(t, r.Client), 2)), CheckInterval: 5 * time.Millisecond, Grace: time.Second,
		SweepInterval: 50 * time.Millisecond, Handle: func(_ context.Context, turn *Turn) { handle(turn) }}
	if change != nil {
		change(&o)
	}
	p.Consumer = p.queue.NewConsumer(o)
	p.leaseTime, p.faultDelay = 200*time.Millisecond, 10*time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = p.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return p
}

// deliverAll settles everything as delivered, and tells.
func deliverAll(sent chan<- string) func(*Turn) {
	return func(turn *Turn) {
		var last *Settlement
		for a := turn.Next(nil); a != nil; a = turn.Next(last) {
			last = delivered(a)
			sent <- a.MessageID
		}
	}
}

func TestMailOfACutOffWorkerIsSentByAnotherAndItsFenceHolds(t *testing.T) {
	r := queuetest.Start(t)
	q := open(t, r.Client)
	began, goOn := make(chan *Attempt), make(chan struct{})
	fence := make(chan error, 1)
	var once sync.Once
	first := join(t, r, func(turn *Turn) {
		a := turn.Next(nil)
		if a == nil {
			return
		}
		once.Do(func() { began <- a; <-goOn; fence <- a.Fence() })
		turn.Next(&Settlement{Attempt: a, Verdict: Back, Class: mail.Temporary})
	}, nil)
	receipt, err := q.Enqueue(t.Context(), message(mail.Report, "ada@example.net"))
	if err != nil {
		t.Fatal(err)
	}
	a := <-began
	if err := a.Fence(); err != nil {
		t.Fatalf("the fence of a live worker: %v", err)
	}
	first.line.cut.Store(true)
	sent := make(chan string, 10)
	join(t, r, deliverAll(sent), nil)
	if id := <-sent; id != receipt.ID {
		t.Fatalf("sent %s, want %s", id, receipt.ID)
	}
	// The first worker gets Redis, and another lease, before it reaches its fence: that must not help it.
	first.line.cut.Store(false)
	eventually(t, "the first worker has another lease", func() bool {
		l := first.lease.Load()
		return l != a.lease && l.live(time.Now())
	})
	close(goOn)
	if err := <-fence; !errors.Is(err, ErrLeaseLost) {
		t.Errorf("fence: %v, want ErrLeaseLost", err)
	}
	s, err := q.Message(t.Context(), receipt.ID)
	if err != nil || s.State != Delivered || s.Attempts != 2 {
		t.Errorf("status %+v, %v", s, err)
	}
}

func TestLateOutcomeReplacesUnknown(t *testing.T) {
	for _, policy := range []UnknownPolicy{Hold, Resend} {
		t.Run(string(policy), func(t *testing.T) {
			r := queuetest.Start(t)
			q := open(t, r.Client)
			began, goOn := make(chan *Attempt, 1), make(chan struct{})
			first := join(t, r, func(turn *Turn) {
				if a := turn.Next(nil); a != nil {
					began <- a
					<-goOn
					turn.Next(delivered(a))
				}
			}, nil)
			receipt, err := q.Enqueue(t.Context(), message(mail.Report, "ada@example.net"))
			if err != nil {
				t.Fatal(err)
			}
			<-began
			first.line.cut.Store(true)
			// Another process sweeps, but takes no turn: its handler only ends them.
			join(t, r, func(*Turn) {}, func(o *ConsumerOptions) {
				o.OnUnknown = map[mail.Kind]UnknownPolicy{mail.Report: policy}
			})
			want := Failed
			if policy == Resend {
				want = Queued
			}
			var s *MessageStatus
			eventually(t, "the sweep has ended the attempt", func() bool {
				s, err = q.Message(t.Context(), receipt.ID)
				return err == nil && s.State == want
			})
			if h := s.History; len(h) != 1 || h[0].Outcomes[0].Class != "unknown" || s.Attempts != 1 {
				t.Errorf("after the sweep: %+v", s)
			}
			first.line.cut.Store(false)
			close(goOn)
			eventually(t, "the late outcome is recorded", func() bool {
				s, err = q.Message(t.Context(), receipt.ID)
				return err == nil && s.State == Delivered
			})
			if s.Attempts != 1 {
				t.Errorf("%d attempts counted, want 1", s.Attempts)
			}
			counts, _ := q.Counts(t.Context())
			if counts.Open[mail.Report] != 0 || counts.Failed[mail.Report] != 0 || counts.FailedByClass[mail.Unknown] != 0 {
				t.Errorf("counts %+v", counts)
			}
			noContentIsLeft(t, q)
		})
	}
}

func TestOutcomesWaitForRedis(t *testing.T) {
	r := queuetest.Start(t)
	q := open(t, r.Client)
	if _, err := q.EnqueueBatch(t.Context(), batch(mail.Report, 100)); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	times := map[string]int{}
	half := make(chan struct{})
	p := join(t, r, func(turn *Turn) {
		var last *Settlement
		for a := turn.Next(nil); a != nil; a = turn.Next(last) {
			mu.Lock()
			times[a.MessageID]++
			if len(times) == 50 {
				close(half)
			}
			mu.Unlock()
			last = delivered(a)
		}
	}, nil)
	<-half
	r.Kill()
	r.Restart()
	eventually(t, "all is delivered", func() bool {
		counts, err := q.Counts(t.Context())
		return err == nil && counts.Open[mail.Report] == 0
	})
	_ = p
	mu.Lock()
	defer mu.Unlock()
	if len(times) != 100 {
		t.Errorf("%d messages were sent, want 100", len(times))
	}
	for m, n := range times {
		if n != 1 {
			t.Errorf("message %s was sent %d times", m, n)
		}
	}
}

func TestATurnRunTwiceByAsynqSendsOnce(t *testing.T) {
	r := queuetest.Start(t)
	q := open(t, r.Client)
	began, goOn := make(chan *Attempt), make(chan struct{})
	handle := func(turn *Turn) {
		var last *Settlement
		for a := turn.Next(nil); a != nil; a = turn.Next(last) {
			began <- a
			<-goOn
			last = delivered(a)
		}
	}
	p := join(t, r, handle, func(o *ConsumerOptions) { o.Concurrency = 1 })
	if _, err := q.EnqueueBatch(t.Context(), batch(mail.Report, 1)); err != nil {
		t.Fatal(err)
	}
	<-began
	// A second worker's asynq takes the running task for abandoned, as a clock that is ahead makes it: the same task again.
	units := q.redis.HGetAll(t.Context(), q.key("u:mail.example.com:587")).Val()
	for unit, value := range units {
		id, _, _ := strings.Cut(value, "\t")
		turn := &Turn{key: "mail.example.com:587", unit: unit, id: id}
		if err := p.handle(context.Background(), asynq.NewTask("turn", turn.payload())); err != nil {
			t.Errorf("the second run: %v", err)
		}
	}
	close(goOn)
	eventually(t, "it is delivered", func() bool {
		counts, err := q.Counts(t.Context())
		return err == nil && counts.Open[mail.Report] == 0
	})
	select {
	case a := <-began:
		t.Errorf("message %s was begun again", a.MessageID)
	default:
	}
}

func TestTurnWhoseTaskIsGoneIsReplaced(t *testing.T) {
	r := queuetest.Start(t)
	q := open(t, r.Client)
	activate(t, q, 2)
	receipt, err := q.Enqueue(t.Context(), message(mail.Report, "ada@example.net"))
	if err != nil {
		t.Fatal(err)
	}
	// A dispatcher that dies between giving out a unit and handing over its task.
	if err := q.run(t.Context(), "dispatch", token(10), "").Err(); err != nil {
		t.Fatal(err)
	}
	if n := q.redis.HLen(t.Context(), q.key("u:mail.example.com:587")).Val(); n != 1 {
		t.Fatalf("%d units are out, want 1", n)
	}
	for unit, value := range q.redis.HGetAll(t.Context(), q.key("u:mail.example.com:587")).Val() {
		turn, _, _ := strings.Cut(value, "\t")
		q.redis.HSet(t.Context(), q.key("u:mail.example.com:587"), unit, turn+"\t\t\t1000000000000") // given out long ago
	}
	sent := make(chan string, 1)
	join(t, r, deliverAll(sent), nil)
	if id := <-sent; id != receipt.ID {
		t.Errorf("sent %s, want %s", id, receipt.ID)
	}
}

func TestWorkerCutOffAtAnyStepLosesNothingAndDoublesOnlyWhatPassedItsFence(t *testing.T) {
	const messages = 6
	for _, lost := range []bool{false, true} {
		for steps := int64(0); steps < 36; steps += 4 {
			t.Run(fmt.Sprintf("answer lost %v, at command %d", lost, steps), func(t *testing.T) {
				t.Parallel()
				r := queuetest.Start(t)
				q := open(t, r.Client)
				receipt, err := q.EnqueueBatch(t.Context(), batch(mail.Report, messages))
				if err != nil {
					t.Fatal(err)
				}
				var mu sync.Mutex
				sent := map[string][]string{} // by whom, for each message
				send := func(who string) func(*Turn) {
					return func(turn *Turn) {
						var last *Settlement
						for a := turn.Next(nil); a != nil; a = turn.Next(last) {
							if a.Fence() != nil {
								last = &Settlement{Attempt: a, Verdict: Back, Class: mail.Temporary}
								continue
							}
							mu.Lock()
							sent[a.MessageID] = append(sent[a.MessageID], who)
							mu.Unlock()
							last = delivered(a)
						}
					}
				}
				first := join(t, r, send("first"), func(o *ConsumerOptions) { o.Grace = time.Millisecond })
				first.line.lost = lost
				first.line.left.Store(steps)
				first.line.dies.Store(true)
				eventually(t, "the first worker is cut off, or done", func() bool {
					b, err := q.Batch(t.Context(), receipt.ID)
					return first.line.cut.Load() || err == nil && b.Delivered == messages
				})
				join(t, r, send("second"), nil)
				eventually(t, "everything is delivered", func() bool {
					b, err := q.Batch(t.Context(), receipt.ID)
					return err == nil && b.Delivered == messages
				})
				mu.Lock()
				defer mu.Unlock()
				for _, id := range receipt.IDs {
					if by := sent[id]; len(by) == 0 || len(by) > 2 || len(by) == 2 && by[0] != "first" {
						t.Errorf("a message was sent by %v; want once, or a second time after the first worker was cut off", by)
					}
				}
				noContentIsLeft(t, q)
			})
		}
	}
}
