package bench

import (
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/postroom/postroom/provider/smtp/smtptest"
	"github.com/postroom/postroom/queue"
)

// sluggish is how long the servers of these tests think about a message: so most attempts that a death cuts are past their
// point of no return, the worst place.
func sluggish(t testing.TB) { pass(t.Context(), 50*time.Millisecond+rand.N(200*time.Millisecond)) }

// endedAttempts finds in a worker's log how many attempts of dead workers it has ended.
var endedAttempts = regexp.MustCompile(`turns of dead workers were ended.* attempts=(\d+)`)

func TestKilledWorkersLoseNothingAndDoubleOnlyWhatIsUnknown(t *testing.T) {
	t.Parallel()
	concurrency := size(30, 10)
	n, kills, between := size(6000, 120), size(8, 1), time.Duration(size(6000, 500))*time.Millisecond
	var came ledger
	server := inbox(t, smtptest.InboxOptions{OnData: func(m *smtptest.Message) error {
		came.enter(idOf(m))
		sluggish(t)
		return nil
	}})
	i := install(t, providerTo(server, concurrency))
	workers := []*postroom{i.serve(), i.serve()}
	if *full {
		workers = append(workers, i.serve())
	}
	all := append([]*postroom(nil), workers...)
	begun := time.Now()
	batch, ids := i.accept(newsletter(n))

	await(t, time.Minute, "the first mails", func() bool { return came.entered() > concurrency })
	killed := 0
	for range kills {
		pass(t.Context(), between/2+rand.N(between))
		if c := i.counts(batch); c != nil && c.Open == 0 {
			break
		}
		victim := rand.IntN(len(workers))
		if kills == 1 {
			// The one that has sent most is sending: another may have no turn, and its death proves nothing.
			for w := range workers {
				if workers[w].metric("postroom_attempts_total") > workers[victim].metric("postroom_attempts_total") {
					victim = w
				}
			}
		}
		workers[victim].kill()
		killed++
		workers[victim] = i.serve()
		all = append(all, workers[victim])
	}
	i.awaitDelivered(batch, n, 5*time.Minute)
	took := time.Since(begun)

	var doubled, unknown, most int
	times := came.read()
	for _, id := range ids {
		m := i.message(id)
		if m.State != queue.Delivered {
			t.Errorf("message %s is %s", id, m.State)
		}
		// Nothing but a lost outcome makes a second attempt here, as is checked below: attempts but the last were unknown.
		unknown += m.Counted - 1
		switch c := times[id]; {
		case c == 0:
			t.Errorf("message %s is lost", id)
		case c > m.Counted:
			t.Errorf("message %s was accepted %d times in %d attempts", id, c, m.Counted)
		case c > 1:
			doubled++
			most = max(most, c)
		}
		delete(times, id)
	}
	if len(times) > 0 {
		t.Errorf("%d messages came that nobody handed in", len(times))
	}
	ended := 0
	for _, p := range all {
		words := p.stderr.String()
		for _, found := range endedAttempts.FindAllStringSubmatch(words, -1) {
			attempts, _ := strconv.Atoi(found[1])
			ended += attempts
		}
		for line := range strings.Lines(words) {
			if strings.Contains(line, "msg=attempt ") && !strings.Contains(line, "class=unknown") && !strings.Contains(line, "class=delivered") {
				t.Errorf("an attempt ended otherwise than it may here: %s", line)
			}
		}
	}
	if killed == 0 || unknown == 0 {
		t.Errorf("%d kills left %d attempts unknown: this proves nothing", killed, unknown)
	}
	// Of what a unit has begun one message is with the server. The others wait, and end as unknown all the same.
	if unknown > killed*concurrency*hands || doubled > killed*concurrency || doubled > unknown {
		t.Errorf("%d kills of at most %d units each: %d unknown, %d doubled", killed, concurrency, unknown, doubled)
	}
	if t.Failed() {
		return
	}
	t.Logf("%d messages, %d kills in %v: %d attempts unknown (%d in the sweeps' logs), %d messages doubled, none more than %d times, none lost",
		n, killed, took.Round(time.Second), unknown, ended, doubled, max(1, most))
}

func TestTerminatedWorkersLoseAndDoubleNothing(t *testing.T) {
	t.Parallel()
	n, rounds := size(1500, 150), size(6, 2)
	var came ledger
	server := inbox(t, smtptest.InboxOptions{
		OnRcpt: func(string) error { pass(t.Context(), rand.N(40*time.Millisecond)); return nil },
		OnData: func(m *smtptest.Message) error {
			came.enter(idOf(m))
			sluggish(t)
			return nil
		},
	})
	i := install(t, providerTo(server, 10))
	workers := []*postroom{i.serve(), i.serve()}
	batch, ids := i.accept(newsletter(n))

	var longest time.Duration
	for round := range rounds {
		goal := n * (round + 1) / (rounds + 2)
		await(t, 5*time.Minute, "the next part of the mails", func() bool { return came.entered() >= goal })
		leaving := workers[round%2]
		asked := time.Now()
		leaving.signal(syscall.SIGTERM)
		// The grace is 30 s, and the rest of stopping takes a few.
		if code := leaving.wait(40 * time.Second); code != 0 {
			t.Errorf("a worker that was asked to stop ended with status %d", code)
		}
		longest = max(longest, time.Since(asked))
		workers[round%2] = i.serve()
	}
	i.awaitDelivered(batch, n, 5*time.Minute)
	came.once(t, ids)
	for _, id := range ids {
		if m := i.message(id); m.Counted != 1 {
			t.Errorf("message %s took %d attempts", id, m.Counted)
		}
	}
	if t.Failed() {
		return
	}
	t.Logf("%d messages, %d workers asked to stop in the middle of them: each accepted once, the slowest stop took %v",
		n, rounds, longest.Round(time.Millisecond))
}

func TestMailOfAKilledWorkerMovesAgainWithinAMinute(t *testing.T) {
	if !*full {
		t.Skip("takes a minute: run it with -full")
	}
	t.Parallel()
	for name, survivor := range map[string]bool{"another worker goes on": true, "the only worker is started again": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 10
			var came ledger
			var again atomic.Int64 // how many have come a second time
			open := make(gate)
			server := inbox(t, smtptest.InboxOptions{OnData: func(m *smtptest.Message) error {
				if came.enter(idOf(m)) > 1 {
					again.Add(1)
					return nil
				}
				open.hold(t)
				return smtptest.Refuse(451, "4.0.0", "too late: the worker is gone")
			}})
			i := install(t, providerTo(server, n))
			worker := i.serve()
			batch, _ := i.accept(newsletter(n))
			await(t, time.Minute, "all to be under way", func() bool { return came.entered() == n })
			if survivor {
				i.serve()
			}
			worker.kill()
			killed := time.Now()
			close(open)
			if !survivor {
				i.serve()
			}
			await(t, time.Minute, "the first to move again", func() bool { return again.Load() > 0 })
			first := time.Since(killed)
			await(t, time.Minute-first, "all to move again", func() bool { return again.Load() == n })
			t.Logf("%s: mail of a killed worker moves again after %v, all %d after %v", name,
				first.Round(100*time.Millisecond), n, time.Since(killed).Round(100*time.Millisecond))
			i.awaitDelivered(batch, n, time.Minute)
		})
	}
}

// TestAKilledProbeIsReplacedWithinAMinute kills a worker that was to tell whether a hold is over.
func TestAKilledProbeIsReplacedWithinAMinute(t *testing.T) {
	if !*full {
		t.Skip("takes a minute: run it with -full")
	}
	t.Parallel()
	const n = 20
	var mu sync.Mutex
	var refused time.Time // the first
	var probed bool
	probing, over := make(gate), make(gate)
	server := listen(t, func(s *step) string {
		if s.at != "greeting" {
			return ""
		}
		mu.Lock()
		defer mu.Unlock()
		switch {
		case refused.IsZero():
			refused = time.Now()
		case time.Since(refused) < time.Second: // had begun before; a hold lasts a second
		case !probed:
			probed = true
			close(probing)
			over.hold(t)
			return hangUp
		default:
			return ""
		}
		return "421 4.3.2 Service not available, closing transmission channel"
	})
	i := install(t, server.provider(1))
	worker := i.serve()
	batch, ids := i.accept(newsletter(n))
	probing.hold(t)
	i.serve()
	worker.kill()
	killed := time.Now()
	close(over)
	i.awaitDelivered(batch, n, time.Minute)
	t.Logf("a probe's worker was killed: everything was delivered %v later", time.Since(killed).Round(100*time.Millisecond))
	server.came.once(t, ids)
}
