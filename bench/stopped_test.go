package bench

import (
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider/smtp/smtptest"
	"github.com/postroom/postroom/queue"
)

// stopTime is how long the worker is stopped: five of its leases. It stays below the two minutes after which its sender
// would give a command up, so that after the stop the fence alone stands between it and the second mail.
const stopTime = 100 * time.Second

func TestStoppedWorkerPassesNoPointOfNoReturnTwice(t *testing.T) {
	if !*full {
		t.Skip("takes two minutes: run it with -full")
	}
	t.Parallel()
	const half = 5
	var came ledger
	var atRcpt, atData atomic.Int64
	var stopped atomic.Bool
	resume, read := make(gate), make(gate)
	server := inbox(t, smtptest.InboxOptions{
		// The first half is held before the point of no return, ...
		OnRcpt: func(string) error {
			if !stopped.Load() && atRcpt.Add(1) <= half {
				resume.hold(t)
			}
			return nil
		},
		OnData: func(m *smtptest.Message) error {
			switch times := came.enter(idOf(m)); {
			case !stopped.Load(): // ... the second half after it.
				atData.Add(1)
				resume.hold(t)
			case times > 1:
				read.hold(t)
			}
			return nil
		},
	})
	i := install(t, providerTo(server, 2*half))
	worker := i.serve()
	batch, ids := i.accept(newsletter(2 * half))
	await(t, time.Minute, "all to be under way", func() bool { return atRcpt.Load() == 2*half && atData.Load() == half })
	fenced := came.read()

	worker.stop()
	begun := time.Now()
	stopped.Store(true)
	close(resume) // what the server answers now waits for the worker
	i.serve()
	await(t, time.Minute, "another worker to offer all of them", func() bool {
		times := came.read()
		for _, id := range ids {
			if times[id] != fenced[id]+1 {
				return false
			}
		}
		return true
	})
	t.Logf("another worker had taken over everything %v after the stop", time.Since(begun).Round(100*time.Millisecond))
	for id := range fenced {
		m := i.message(id)
		if len(m.Attempts) != 1 || m.Attempts[0].Outcomes[0].Class != mail.Unknown.String() {
			t.Errorf("message %s was stopped after its fence, and its record says %+v", id, m.Attempts)
		}
	}
	close(read)
	i.awaitDelivered(batch, 2*half, time.Minute)

	pass(t.Context(), stopTime-time.Since(begun))
	worker.signal(syscall.SIGCONT)
	await(t, time.Minute, "the fence to stop the first half", func() bool {
		return strings.Count(worker.stderr.String(), queue.ErrLeaseLost.Error()) == half
	})
	// What it still has in hand ends before it does.
	worker.signal(syscall.SIGTERM)
	if code := worker.wait(time.Minute); code != 0 {
		t.Errorf("the worker that was stopped ended with status %d", code)
	}
	times := came.read()
	for _, id := range ids {
		if times[id] != 1+fenced[id] {
			t.Errorf("message %s was accepted %d times; after its fence when the worker was stopped: %t", id, times[id], fenced[id] == 1)
		}
	}
	i.awaitDelivered(batch, 2*half, time.Minute)
	if t.Failed() {
		return
	}
	t.Logf("stopped for %v with %d attempts before and %d after their fence: %d accepted once, %d twice",
		stopTime, half, half, half, half)
}
