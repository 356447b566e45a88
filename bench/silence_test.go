package bench

import (
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
)

// TestRetryAfterSilencesTheMailboxForEveryWorker has a server ask one of some mailboxes to be silent for a time, and for as
// long again when that is over. What it knows of a mailbox it tells with each refusal, so only what is under way then comes.
func TestRetryAfterSilencesTheMailboxForEveryWorker(t *testing.T) {
	t.Parallel()
	const concurrency, most, mailboxes, silenced = 4, 30, 4, 0
	// A time is kept to the millisecond, and our clock is not Redis's.
	const slack = 5 * time.Millisecond
	window, latency := time.Duration(size(6000, 1000))*time.Millisecond, time.Duration(size(40, 10))*time.Millisecond
	silence := time.Duration(size(60, 3)) * time.Second
	binding := limit{"messages", most, window}
	c := assemble(t, latency, terms{concurrency, []limit{binding}}, terms{})
	each := most * int(3*silence/window+6)
	batches := make([]string, mailboxes)
	for i := range mailboxes {
		batches[i], _ = c.accept(mailbox(i), mail.Subscription, each)
	}
	c.crowd(4)
	await(t, time.Minute, "every mailbox to have used what it may, twice", func() bool {
		for i := range mailboxes {
			if c.server.requested(mailbox(i)) <= 2*most {
				return false
			}
		}
		return true
	})

	c.server.silence(mailbox(silenced), silence, 2)
	from := time.Now()
	var came []request
	after := 0 // which of these is the first that is taken
	await(t, 4*silence+time.Minute, "the mailbox to use what it may again", func() bool {
		came = c.server.came(mailbox(silenced), from)
		for after = 0; after < len(came) && came[after].silent > 0; after++ {
		}
		return len(came) > after+most && !came[after+most].replied.IsZero()
	})

	var last request // that was refused
	late := time.Duration(0)
	for _, r := range came[:after-1] {
		late = max(late, r.arrived.Sub(came[0].replied))
		if r.replied.After(last.replied) {
			last = r
		}
	}
	if after < 2 || after-1 > concurrency {
		t.Fatalf("%d requests were refused, want one probe, and before it what was under way, at most %d", after, concurrency)
	}
	for _, probe := range came[after-1 : after+1] {
		if early := silence - probe.arrived.Sub(last.replied); early > slack {
			t.Errorf("a request came %v before the time that was given was over", early)
		}
		t.Logf("a probe came %v after the time that was given was over", (probe.arrived.Sub(last.replied) - silence).Round(time.Millisecond))
		last = probe
	}
	for _, r := range came[after+1:] {
		if r.arrived.Before(came[after].replied) {
			t.Error("a request came while a probe was under way")
		}
	}
	t.Logf("%d requests were refused with an order to be silent for %v (%d were under way with the first, the last came %v after its answer), then a probe; with the next one taken, %d more were taken within %v",
		after-1, silence, after-2, late.Round(time.Millisecond), most-1, came[after+most-1].replied.Sub(came[after].replied).Round(time.Millisecond))

	for i := range mailboxes {
		if c.open(batches[i]) == 0 {
			t.Errorf("mailbox %d has nothing left: this proves nothing", i)
		}
		if i == silenced {
			continue
		}
		share, periods := use(c.server.came(mailbox(i), from), binding)
		t.Logf("mailbox %d meanwhile: %d periods, %.2f %% of the best rate", i, periods, 100*share)
		if *full && share < 0.98 {
			t.Errorf("mailbox %d used only %.2f %% of the best rate beside the silent one", i, 100*share)
		}
	}
	c.server.obeyed()
	// None of it counted: not the message that was the probe, nor those that were under way.
	for _, r := range came[:after] {
		status, err := c.queue.Message(t.Context(), r.id)
		if err != nil {
			t.Fatal(err)
		}
		if status.Attempts > 1 {
			t.Errorf("message %s, which was refused, has %d counted attempts", r.id, status.Attempts)
		}
	}
}
