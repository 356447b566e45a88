package queue

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue/queuetest"
)

// waitingTurns counts turns that asynq keeps for whoever can take them.
func waitingTurns(c *Consumer) (n int) {
	for _, name := range []string{c.alerts, c.mail} {
		if info, err := c.inspect.GetQueueInfo(name); err == nil {
			n += info.Pending
		}
	}
	return n
}

// A worker that can't load the settings leaves turns to others, and asks Redis nothing again and again; whoever can load them finds
// everything as it should be.
func TestAWorkerThatCanSendNothingLeavesItsTurnsToOthers(t *testing.T) {
	q := open(t, queuetest.Start(t).Client)
	version := activate(t, q, 1)
	var tries atomic.Int64
	var words bytes.Buffer
	c := q.NewConsumer(ConsumerOptions{CheckInterval: 5 * time.Millisecond, SweepInterval: time.Hour, Handle: func(_ context.Context, turn *Turn) {
		for a := turn.Next(nil); a != nil; a = turn.Next(nil) {
			t.Error("an attempt began")
		}
	}, Load: func(context.Context, *Provider) (Loaded, error) {
		tries.Add(1)
		return Loaded{}, errors.New("no key opens them")
	}})
	c.log = slog.New(slog.NewTextHandler(&words, nil)) // read when the consumer has ended
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	eventually(t, "the settings to be tried", func() bool { return tries.Load() > 0 && c.settings.fault() != "" })
	id := enqueue(t, q, message(mail.Alert, "ada@example.org"))
	eventually(t, "a turn to wait for others", func() bool { return waitingTurns(c) == 1 })
	second := enqueue(t, q, message(mail.Alert, "ada@example.org"))
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := tries.Load(); n > 2 {
		t.Errorf("the settings were tried %d times", n)
	}
	if n := strings.Count(words.String(), "can't be loaded"); n != 1 {
		t.Errorf("it was said %d times:\n%s", n, words.String())
	}
	able := q.NewConsumer(ConsumerOptions{Load: loads(version), CheckInterval: 5 * time.Millisecond, SweepInterval: time.Hour, // nothing is swept up
		Handle: func(_ context.Context, turn *Turn) {
			for a := turn.Next(nil); a != nil; a = turn.Next(delivered(a)) {
			}
		}})
	ctx, cancel = context.WithCancel(context.Background())
	go func() { done <- able.Run(ctx) }()
	for _, id := range []string{id, second} {
		eventually(t, "what waited to be delivered", func() bool { return status(t, q, id).State == Delivered })
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The end of the process does not cut what it has begun to hand out.
func TestWhatIsHandedOutAtTheEndHasATask(t *testing.T) {
	q := open(t, queuetest.Start(t).Client)
	d := sitDown(t, q, activate(t, q, 2), nil)
	d.settings.outdated(d.settings.current()) // so that it works off nothing by itself
	enqueueBatch(t, q, batch(mail.Report, 2))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.dispatchOnce(ended, ""); err != nil {
		t.Fatal(err)
	}
	if n := waitingTurns(d.Consumer); n != 2 {
		t.Errorf("%d turns wait, want 2", n)
	}
}

// A message that has been put off often is not given up for the death of one worker.
func TestOneDeathDoesNotEndAMessageThatWasOftenPutOff(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	id := enqueue(t, q, message(mail.Report, "ada@example.net"))
	for range 12 {
		turn := d.turn()
		s := outcomes(begin(t, turn, nil), Again, "t")
		s.Delay = time.Minute
		end(turn, s)
		c.advance(time.Minute)
	}
	begin(t, d.turn(), nil)
	d.dies()
	d.renew()
	d.sweepAll()
	if s := status(t, q, id); s.State != Queued {
		t.Errorf("it is %s after %d attempts", s.State, s.Attempts)
	}
}
