package bench

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue/queuetest"
)

// TestLimitsAreUsedAndNeverExceeded has many processes send for many mailboxes to a server that counts by itself.
func TestLimitsAreUsedAndNeverExceeded(t *testing.T) {
	t.Parallel()
	for name, v := range map[string]struct {
		window, latency time.Duration
		periods, kills  int
		masters         int // of a Cluster; 0: one Redis
	}{
		// The mean time of a hand-over stays under a hundredth of the window.
		"undisturbed":               {time.Duration(size(6000, 1500)) * time.Millisecond, time.Duration(size(40, 12)) * time.Millisecond, size(10, 2), 0, 0},
		"undisturbed, on a Cluster": {time.Duration(size(6000, 1500)) * time.Millisecond, time.Duration(size(40, 12)) * time.Millisecond, size(10, 2), 0, 3},
		// What a killed worker has taken comes back after 20 to 35 s: there have to be some windows before and after.
		"workers killed and started": {time.Duration(size(20_000, 1500)) * time.Millisecond, time.Duration(size(180, 12)) * time.Millisecond, size(7, 3), size(24, 2), 0},
	} {
		t.Run(name, func(t *testing.T) {
			if !*full {
				t.Parallel()
			}
			const concurrency, most = 4, 30
			mailboxes, processes := size(40, 8), size(8, 3)
			binding := limit{"messages", most, v.window}
			start := assemble
			if v.masters > 0 {
				start = func(t testing.TB, latency time.Duration, each, all terms) *crew {
					return assembleAt(t, queuetest.StartCluster(t, v.masters).URL, latency, each, all)
				}
			}
			c := start(t, v.latency, terms{concurrency, []limit{binding}}, terms{})
			batches := make([]string, mailboxes)
			for i := range batches {
				batches[i], _ = c.accept(mailbox(i), mail.Subscription, (v.periods+4)*most)
			}
			workers := c.crowd(processes)
			begun := time.Now()

			length := time.Duration(v.periods) * (v.window + v.latency)
			for k := range v.kills {
				pass(t.Context(), length*time.Duration(k+1)/time.Duration(v.kills+1)-time.Since(begun))
				victim := rand.IntN(len(workers))
				workers[victim].kill()
				workers[victim] = c.start()
			}
			// Each has gone through all its periods, and more is waiting.
			ready := func() bool {
				for i := range mailboxes {
					if c.server.requested(mailbox(i)) <= v.periods*most {
						return false
					}
				}
				return true
			}
			if v.kills > 0 { // slots are missing; it is time that ends it
				ready = func() bool { return time.Since(begun) > length }
			}
			await(t, 2*length+time.Minute, "the periods to pass", ready)

			var shares []float64
			least := 0
			for i := range mailboxes {
				came := c.server.came(mailbox(i), time.Time{})
				share, periods := use(came, binding)
				if periods == 0 {
					t.Errorf("mailbox %d sent only %d messages", i, len(came))
				}
				shares = append(shares, share)
				least = max(least, c.server.most(mailbox(i)))
				if c.open(batches[i]) < concurrency {
					t.Errorf("mailbox %d has nothing left: this proves nothing", i)
				}
			}
			c.server.obeyed()
			if least < concurrency {
				t.Errorf("never more than %d at once, of %d allowed: this proves nothing", least, concurrency)
			}
			sum := 0.0
			for _, s := range shares {
				sum += s
			}
			mean := sum / float64(mailboxes)
			if *full && v.kills == 0 && mean < 0.98 {
				t.Errorf("%.2f %% of the best rate were used, want 98 %%", 100*mean)
			}
			came := c.server.came(everybody, time.Time{})
			if v.kills == 0 {
				seen := map[string]bool{}
				for _, r := range came {
					if seen[r.id] && r.refused == "" {
						t.Errorf("message %s came twice", r.id)
					}
					seen[r.id] = true
				}
			}
			t.Logf("%d mailboxes, %d processes, %d in %v, %d kills: %d requests of %.1f ms in %v, at most %d at once; use: mean %.2f %%, least %.2f %%",
				mailboxes, processes, most, v.window, v.kills, len(came), float64(handOver(came).Microseconds())/1000,
				time.Since(begun).Round(time.Second), least, 100*mean, 100*slices.Min(shares))
		})
	}
}
