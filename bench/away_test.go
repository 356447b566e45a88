package bench

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/postroom/postroom/provider/smtp/smtptest"
	"github.com/postroom/postroom/queue/queuetest"
)

func TestWhatIsAcceptedWhileRedisIsAwayIsDeliveredOnce(t *testing.T) {
	for name, outage := range map[string]struct{ begin, end func(*queuetest.Redis) }{
		"frozen":               {(*queuetest.Redis).Freeze, (*queuetest.Redis).Thaw},
		"killed and restarted": {(*queuetest.Redis).Kill, (*queuetest.Redis).Restart},
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
			i := install(t, providerTo(server, concurrency))
			i.serve()
			i.serve()
			batch, ids := i.accept(newsletter(n))
			await(t, time.Minute, "the mails in the middle to be under way", func() bool { return under.Load() == concurrency })
			before := accepted.Load()
			await(t, 10*time.Second, "Redis to have written what it was told", func() bool { return written(t, i.redis) })

			outage.begin(i.redis)
			begun := time.Now()
			close(open)
			pass(t.Context(), away)
			during := accepted.Load() - before
			outage.end(i.redis)
			t.Logf("Redis was %s for %v; meanwhile %d mails were accepted", name, time.Since(begun).Round(100*time.Millisecond), during)

			back := time.Now()
			i.awaitDelivered(batch, n, 2*time.Minute)
			t.Logf("everything delivered %v after it was back", time.Since(back).Round(100*time.Millisecond))
			if during != concurrency {
				t.Errorf("%d mails were accepted during the outage, want %d", during, concurrency)
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

// written reports whether Redis has handed everything to its AOF. It may lag behind its answers while the disk is slow.
func written(t testing.TB, r *queuetest.Redis) bool {
	t.Helper()
	info, err := r.Client.InfoMap(t.Context(), "persistence").Result()
	if err != nil {
		t.Fatal(err)
	}
	p := info["Persistence"]
	return p["aof_buffer_length"] == "0" && p["aof_pending_bio_fsync"] == "0"
}
