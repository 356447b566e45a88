package bench

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider/smtp/smtptest"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/queue/queuetest"
)

// lapse is the time in which a master wrote what died with it: from a moment of which all before is on the new one, until that takes
// writes. at is when the master was killed.
type lapse struct{ from, at, to time.Time }

// lapsed reports whether a moment falls into one of them, or can have been in one up to since before.
func lapsed(all []lapse, at time.Time, since time.Duration) bool {
	return slices.ContainsFunc(all, func(l lapse) bool { return !at.Before(l.from) && !at.Add(-since).After(l.to) })
}

// attempted says when workers began to hand a message over for the first time, by their logs.
func attempted(t testing.TB, workers []*postroom, id string) time.Time {
	t.Helper()
	var first time.Time
	attempt := regexp.MustCompile(`(?m)^time=(\S+) .*msg=attempt message=` + id + ` .*took=(\S+)`)
	for _, w := range workers {
		for _, m := range attempt.FindAllStringSubmatch(w.stderr.String(), -1) {
			ended, err := time.Parse(time.RFC3339Nano, m[1])
			took, err2 := time.ParseDuration(m[2])
			if err != nil || err2 != nil {
				t.Fatalf("%q: %v %v", m[0], err, err2)
			}
			if begun := ended.Add(-took); first.IsZero() || begun.Before(first) {
				first = begun
			}
		}
	}
	return first
}

// inLine is how long a message that has begun may wait for the one before it, or for its content, which comes from Redis, too.
const inLine = 5 * time.Second

// marks has a master write numbers until it dies, and then says until when everything it wrote is on another.
func marks(t testing.TB, master *queuetest.Node) (enough <-chan struct{}, kept func(other *queuetest.Node) time.Time) {
	begun, done := make(chan struct{}), make(chan struct{})
	var sent []time.Time
	key := fmt.Sprint("mark-", time.Now().UnixNano()) // earlier ones are there, too
	go func() {
		defer close(done)
		for {
			at := time.Now()
			if master.Client.Set(t.Context(), key, len(sent), 0).Err() != nil {
				return
			}
			if sent = append(sent, at); len(sent) == 10 {
				close(begun)
			}
			pass(t.Context(), time.Millisecond)
		}
	}()
	return begun, func(other *queuetest.Node) time.Time {
		<-done
		text, err := other.Client.Get(t.Context(), key).Result()
		if err != nil {
			t.Fatal(err)
		}
		n, _ := strconv.Atoi(text)
		return sent[n]
	}
}

// TestAMasterKilledAtFullSpeed kills the master of a Sentinel trio while a batch goes out and messages come in at full speed. Every
// second time it is parted from its replicas first, so that there is something that dies with it.
func TestAMasterKilledAtFullSpeed(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string]int{"one replica is waited for": 1, "none is waited for": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const concurrency = 20
			n, kills := size(8_000, 800), size(4, 1)
			if wait == 0 && !*full {
				t.Skip("run it with -full")
			}
			var came ledger
			var mu sync.Mutex
			var arrivals []time.Time
			server := inbox(t, smtptest.InboxOptions{OnData: func(m *smtptest.Message) error {
				now, id := time.Now(), idOf(m)
				mu.Lock()
				arrivals = append(arrivals, now)
				came.enter(id)
				mu.Unlock()
				pass(t.Context(), 10*time.Millisecond)
				return nil
			}})
			// Long enough that a busy machine is not taken for a dead master.
			r := queuetest.StartSentinel(t, time.Duration(size(2000, 500))*time.Millisecond)
			i := installAt(t, r.URL, wait, providerTo(server, concurrency))
			workers := []*postroom{i.serve(), i.serve()}
			var batches, ids []string

			// Producers note what was answered as accepted, and when.
			answered, refused := map[string]time.Time{}, 0
			var producers sync.WaitGroup
			stop := make(chan struct{})
			for p := range 4 {
				producers.Go(func() {
					for k := 0; ; k++ {
						m := mail.Message{Kind: mail.Report, To: []mail.Address{{Address: fmt.Sprintf("ops%d@example.net", p)}}, Subject: "One", Text: "One."}
						for {
							select {
							case <-stop:
								return
							default:
							}
							a, err := i.api.Send(t.Context(), m, fmt.Sprintf("%d-%d", p, k))
							mu.Lock()
							if err == nil {
								answered[a.ID] = time.Now()
							} else {
								refused++
							}
							mu.Unlock()
							pass(t.Context(), 10*time.Millisecond)
							if err == nil || wait == 0 { // what was not answered may be lost
								break
							}
						}
					}
				})
			}
			count := func() (told, arrived int) {
				mu.Lock()
				defer mu.Unlock()
				return len(answered), len(arrivals)
			}

			var lapses []lapse
			failovers := r.Failovers()
			for k := range kills {
				// There is always enough to go out while the master dies.
				batch, more := i.accept(newsletter(n / kills))
				batches, ids = append(batches, batch), append(ids, more...)
				r.Sync()
				_, before := count()
				await(t, time.Minute, "mail to move", func() bool { _, arrived := count(); return arrived > before+n/(4*kills) })
				master := r.Master()
				enough, kept := marks(t, master)
				<-enough
				r.Sync()
				if k%2 == 0 {
					r.Cut()
					told, arrived := count()
					await(t, time.Minute, "something that dies with the master", func() bool {
						t, a := count()
						return a > arrived+2*concurrency && (wait > 0 || t > told+5)
					})
				}
				killed := time.Now()
				master.Kill()
				r.Join()
				other := r.AwaitMaster(master)
				lapses = append(lapses, lapse{kept(other), killed, time.Now()})
				if k+1 < kills {
					r.Rejoin(master)
				}
				// What another one loses nobody here knows of.
				if happened := r.Failovers() - failovers; happened != k+1 {
					t.Fatalf("%d fail-overs after %d kills: the machine was too slow, and its servers were taken for dead", happened, k+1)
				}
			}
			close(stop)
			producers.Wait()
			for _, batch := range batches {
				i.awaitDelivered(batch, n/kills, 3*time.Minute)
			}

			lost, doubled, unknown := 0, 0, 0
			times := came.read()
			judge := func(id string, at time.Time) {
				if times[id] == 1 {
					return
				}
				var m *admin.MessageStatus
				await(t, 2*time.Minute, "a message to have ended", func() bool {
					var err error
					m, err = i.api.Message(t.Context(), id)
					var p *admin.Problem
					if errors.As(err, &p) && p.Status == 404 {
						m = nil
						return true
					}
					return err == nil && m.State == queue.Delivered
				})
				attempts := 1 // that of which nothing is known died with the master
				if m != nil {
					attempts = max(1, m.Counted)
				}
				switch c := came.read()[id]; {
				case c == 0 && m != nil:
					t.Errorf("message %s is said to be delivered, and never came", id)
				case c == 0 && (wait > 0 || !lapsed(lapses, at, 0)):
					t.Errorf("message %s is lost, which was accepted and replicated", id)
				case c == 0:
					lost++
				case c > 1:
					doubled++
					// What began in the lapse the new master has not heard of.
					if begun := attempted(t, workers, id); c > attempts && !lapsed(lapses, begun, inLine) {
						t.Errorf("message %s came %d times in %d attempts, and the first, which began at %v, was replicated", id, c, attempts, begun)
					}
				}
				unknown += attempts - 1
			}
			for _, id := range ids {
				judge(id, time.Time{})
			}
			for id, at := range answered {
				judge(id, at)
			}
			for _, l := range lapses {
				// The longest silence after the kill.
				var silence time.Duration
				last, moved := l.at, l.at
				for _, at := range arrivals {
					if at.After(l.at) && at.Before(l.to.Add(10*time.Second)) {
						if at.Sub(last) > silence {
							silence, moved = at.Sub(last), at
						}
						last = at
					}
				}
				t.Logf("the master was killed, %v after what the other had; another took writes %v after that, mail moved %v after it",
					l.at.Sub(l.from).Round(time.Millisecond), l.to.Sub(l.at).Round(time.Millisecond), moved.Sub(l.at).Round(time.Millisecond))
			}
			t.Logf("%d messages of a batch and %d answered single ones, %d more not answered, %d kills, waiting for %d replicas: %d lost, %d doubled, %d attempts unknown",
				n, len(answered), refused, kills, wait, lost, doubled, unknown)
			if refused == 0 {
				t.Error("no producer has noticed: this proves nothing")
			}
		})
	}
}
