package bench

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/postroom/postroom/provider/smtp/smtptest"
	"github.com/postroom/postroom/queue/queuetest"
)

// outage is a Redis that goes away. kept waits until all that it has outlasts that.
type outage struct {
	url              string
	kept, begin, end func()
	mends            bool // by itself, before its end
}

func TestWhatIsAcceptedWhileRedisIsAwayIsDeliveredOnce(t *testing.T) {
	for name, start := range map[string]func(t testing.TB) outage{
		"frozen": func(t testing.TB) outage {
			r := queuetest.StartTCP(t)
			return outage{r.URL, func() { awaitWritten(t, r) }, r.Freeze, r.Thaw, false}
		},
		"killed and restarted": func(t testing.TB) outage {
			r := queuetest.StartTCP(t)
			return outage{r.URL, func() { awaitWritten(t, r) }, r.Kill, r.Restart, false}
		},
		"killed, and replaced by a replica": func(t testing.TB) outage {
			r := queuetest.StartSentinel(t, 500*time.Millisecond)
			master := r.Master()
			return outage{r.URL, r.Sync, master.Kill, func() { r.AwaitMaster(master) }, true}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const concurrency = 20
			n, away := size(300, 60), time.Duration(size(60, 3))*time.Second
			var came ledger
			var under, accepted atomic.Int64
			open := make(gate)
			server := inbox(t, smtptest.InboxOptions{OnData: func(m *smtptest.Message) error {
				came.enter(idOf(m))
				if came.entered() <= n/2 {
					// The first half shows that everything works.
				} else if number := under.Add(1); number <= concurrency {
					open.hold(t)
					// The replies are spread over the first two thirds of the outage.
					pass(t.Context(), away*2/3*time.Duration(number)/concurrency)
				}
				accepted.Add(1)
				return nil
			}})
			redis := start(t)
			i := installAt(t, redis.url, 0, providerTo(server, concurrency))
			i.serve()
			i.serve()
			batch, ids := i.accept(newsletter(n))
			await(t, time.Minute, "the mails in the middle to be under way", func() bool { return under.Load() == concurrency })
			before := accepted.Load()
			redis.kept()

			redis.begin()
			begun := time.Now()
			close(open)
			pass(t.Context(), away)
			during := accepted.Load() - before
			redis.end()
			t.Logf("Redis was %s for %v; meanwhile %d mails were accepted", name, time.Since(begun).Round(100*time.Millisecond), during)

			back := time.Now()
			i.awaitDelivered(batch, n, 2*time.Minute)
			t.Logf("everything delivered %v after it was back", time.Since(back).Round(100*time.Millisecond))
			// Behind each of them one can go whose envelope was sent ahead, while the lease runs.
			if most := int64(2 * concurrency); during < concurrency || during > most && !redis.mends {
				t.Errorf("%d mails were accepted during the outage, want %d to %d", during, concurrency, most)
			}
			came.once(t, ids)
			for _, id := range ids {
				if m := i.message(id); m.Counted != 1 {
					t.Errorf("message %s took %d attempts", id, m.Counted)
				}
			}
		})
	}
}

// awaitWritten waits until Redis has handed everything to its AOF. It may lag behind its answers while the disk is slow.
func awaitWritten(t testing.TB, r *queuetest.Redis) {
	t.Helper()
	await(t, 10*time.Second, "Redis to have written what it was told", func() bool {
		info, err := r.Client.InfoMap(t.Context(), "persistence").Result()
		if err != nil {
			t.Fatal(err)
		}
		p := info["Persistence"]
		return p["aof_buffer_length"] == "0" && p["aof_pending_bio_fsync"] == "0"
	})
}
