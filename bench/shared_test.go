package bench

import (
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
)

// TestTheProvidersLimitsAreUsedNeverExceededAndShared has mailboxes send that could each use far more than their share of
// what the provider allows them together.
func TestTheProvidersLimitsAreUsedNeverExceededAndShared(t *testing.T) {
	t.Parallel()
	window, latency := time.Duration(size(6000, 1500))*time.Millisecond, time.Duration(size(40, 12))*time.Millisecond
	mailboxes, periods, most, concurrency := size(10, 4), size(10, 2), size(100, 40), 6
	each := terms{4, []limit{{"messages", 30, window}}}
	all := terms{concurrency, []limit{{"messages", most, window}}}
	c := assemble(t, latency, each, all)
	for i := range mailboxes {
		c.accept(mailbox(i), mail.Subscription, (periods+2)*30)
	}
	c.crowd(size(8, 3))
	await(t, 5*time.Minute, "the periods to pass", func() bool { return c.server.requested(everybody) > periods*most })
	c.server.obeyed()
	share, _ := use(c.server.came(everybody, time.Time{}), all.limits[0])
	least := periods * most
	for i := range mailboxes {
		least = min(least, c.server.requested(mailbox(i)))
	}
	t.Logf("%d mailboxes, %d in %v and %d at once for all: %.2f %% of the best rate used, at most %d at once; the least of a mailbox was %d messages, %d would be its share",
		mailboxes, most, window, concurrency, 100*share, c.server.most(everybody), least, periods*most/mailboxes)
	if least == 0 || *full && least < periods*most/mailboxes/3 {
		t.Error("a mailbox starves")
	}
	if *full && share < 0.98 {
		t.Errorf("%.2f %% of the best rate were used, want 98 %%", 100*share)
	}
	if c.server.most(everybody) < concurrency {
		t.Error("never as many at once as allowed: this proves nothing")
	}
}

// TestTheProvidersConcurrencyIsUsedNeverExceededAndShared: without a limit of rate, mailboxes take turns on what may be under
// way at once.
func TestTheProvidersConcurrencyIsUsedNeverExceededAndShared(t *testing.T) {
	t.Parallel()
	const concurrency = 5
	mailboxes, latency := size(12, 3), 100*time.Millisecond
	c := assemble(t, latency, terms{concurrency: 2}, terms{concurrency: concurrency})
	for i := range mailboxes {
		c.accept(mailbox(i), mail.Subscription, size(4000, 500))
	}
	c.crowd(size(8, 2))
	await(t, time.Minute, "the first messages", func() bool { return c.server.requested(everybody) > concurrency })
	begun := time.Now()
	pass(t.Context(), time.Duration(size(120, 2))*time.Second) // a turn takes 10 s
	came := c.server.came(everybody, begun)
	passed := time.Since(begun)
	c.server.obeyed()
	used := float64(handOver(came)) * float64(len(came)) / float64(concurrency*passed)
	if *full && used < 0.9 {
		t.Errorf("%.1f %% of the concurrency were used", 100*used)
	}
	counts, longest := map[string]int{}, time.Duration(0)
	last := map[string]time.Time{}
	for _, r := range came {
		counts[r.mailbox]++
		since := last[r.mailbox]
		if since.IsZero() {
			since = begun
		}
		longest = max(longest, r.arrived.Sub(since))
		last[r.mailbox] = r.arrived
	}
	least := len(came)
	for i := range mailboxes {
		least = min(least, counts[mailbox(i)])
		longest = max(longest, begun.Add(passed).Sub(last[mailbox(i)]))
	}
	t.Logf("%d mailboxes, %d at once for all: %.1f %% used in %v; the least of a mailbox was %d of %d messages, the longest it waited %v",
		mailboxes, concurrency, 100*used, passed.Round(time.Second), least, len(came), longest.Round(time.Millisecond))
	if *full && least == 0 {
		t.Error("a mailbox starves")
	}
}
