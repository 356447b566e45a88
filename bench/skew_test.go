package bench

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider/smtp/smtptest"
	"github.com/postroom/postroom/queue/queuetest"
)

// skew is by how much the clock of one machine is ahead.
const skew = 5 * time.Minute

// ahead makes asynq's leases look as a machine sees them whose clock is ahead: run out long ago.
func ahead(ctx context.Context, r *queuetest.Redis) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, queue := range []string{"mail", "alert"} {
			key := "asynq:{postroom:" + queue + "}:lease"
			tasks, _ := r.Client.ZRange(ctx, key, 0, -1).Result()
			for _, task := range tasks {
				// asynq leases a task for 30 s, and renews that each 5 s.
				r.Client.ZAddXX(ctx, key, redis.Z{Score: float64(time.Now().Add(30*time.Second - skew).Unix()), Member: task})
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// asynq takes the tasks of a worker away, while it works on them, when a machine whose clock is ahead looks: as it starts,
// and each minute. Nobody but our records keeps their mail from being sent twice.
func TestClocksApartDoubleNothing(t *testing.T) {
	t.Parallel()
	const concurrency = 10
	n, slow := size(500, 60), time.Duration(size(2000, 1000))*time.Millisecond
	var came ledger
	server := inbox(t, smtptest.InboxOptions{OnData: func(m *smtptest.Message) error {
		came.enter(idOf(m))
		pass(t.Context(), slow/2+rand.N(slow))
		return nil
	}})
	i := install(t, providerTo(server, concurrency))
	workers := []*postroom{i.serve()}
	skewed, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		ahead(skewed, i.redis)
		close(ended)
	}()
	defer func() {
		stop()
		<-ended
	}()

	begun := time.Now()
	batch, ids := i.accept(newsletter(n))
	alert := newsletter(concurrency)
	alert.Message.Kind = mail.Alert
	alerts, alertIDs := i.accept(alert)
	await(t, time.Minute, "the first mails", func() bool { return came.entered() > 2*concurrency })
	workers = append(workers, i.serve())
	i.awaitDelivered(batch, n, 5*time.Minute)
	i.awaitDelivered(alerts, concurrency, time.Minute)
	took := time.Since(begun)

	ids = append(ids, alertIDs...)
	came.once(t, ids)
	for _, id := range ids {
		if m := i.message(id); m.Counted != 1 {
			t.Errorf("message %s took %d attempts", id, m.Counted)
		}
	}
	taken := 0.0
	for _, w := range workers {
		taken += w.metric(`postroom_turns_total{end="stale"}`)
	}
	if taken == 0 {
		t.Error("asynq gave no task to a second worker: this proves nothing")
	}
	if t.Failed() {
		return
	}
	t.Logf("%d messages in %v with clocks %v apart: asynq gave %.0f turns to a second worker, each message was accepted once",
		len(ids), took.Round(time.Second), skew, taken)
}
