package bench

import (
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/provider/graph/graphtest"
)

// TestSettingsThatDoNotWorkMakeMailWait saves settings with a wrong secret, and then the right ones.
func TestSettingsThatDoNotWorkMakeMailWait(t *testing.T) {
	t.Parallel()
	n := size(2000, 100)
	unlimited := graphtest.Limits{}
	tenant := graphtest.Run(t, graphtest.Options{Limits: &unlimited, MaxMessages: 4 * n, Mailboxes: []graphtest.Mailbox{{Address: ownSender}}})
	c := choose(t, 1, nil, "api")
	c.serve()
	c.serve("--roles", "worker")
	for _, s := range []*station{mailserver(t, func() {}, func() {}), newApp(tenant)} {
		wrong := s.settings
		wrong.SMTP.Auth.Password, wrong.Microsoft365.ClientSecret = "wrong one", "wrong one"
		changed := c.set(0, wrong, "saved_not_valid")
		batch, ids := c.accept(newsletter(n))
		if last := changed.Steps[len(changed.Steps)-1]; last.State != "failed" || last.Fault == nil || last.Fault.Remedy == "" {
			t.Errorf("the last step is %+v", last)
		}
		pass(t.Context(), time.Duration(size(60, 1))*time.Second)
		if counts := c.counts(batch); counts == nil || counts.Open != n {
			t.Errorf("with wrong settings a batch of %d has %+v", n, counts)
		}
		if p, err := c.api.Provider(t.Context()); err != nil || p.Health.State != "faulty" || p.Health.Fault == nil || p.Open != n {
			t.Errorf("the provider's health is told as %+v: %v", p, err)
		}
		right := time.Now()
		c.set(0, s.settings, "saved")
		c.awaitDelivered(batch, n, patience())
		t.Logf("%s: %d mails that had waited were delivered %v after right settings were saved", s.settings.Kind, n, time.Since(right).Round(10*time.Millisecond))
		c.countedOnce(ids)
		var came ledger
		var readers []string
		for _, a := range s.came() {
			came.enter(a.to)
		}
		for i := range n {
			readers = append(readers, reader(i))
		}
		came.once(t, readers)
	}
}

// TestAKilledWorkerDelaysASwitchByHalfAMinuteAtMost switches while one worker dies with attempts under way, and another's get no
// answer.
func TestAKilledWorkerDelaysASwitchByHalfAMinuteAtMost(t *testing.T) {
	t.Parallel()
	if !*full {
		t.Skip("takes a minute: long form only")
	}
	t.Run("to a mailbox of another name", func(t *testing.T) { killedInASwitch(t, "reports@example.com") })
	// What is under way at the former server is none of the new one's.
	t.Run("to a mailbox of the account's name", func(t *testing.T) { killedInASwitch(t, ownSender) })
}

func killedInASwitch(t *testing.T, sender string) {
	t.Parallel()
	const n, each, patience = 2000, 10, 30 * time.Second
	answers := make(gate)
	open := sync.OnceFunc(func() { close(answers) })
	defer open()
	former := mailserver(t, func() {}, func() { answers.hold(t) })
	next := newApp(graphtest.Run(t, graphtest.Options{Limits: &graphtest.Limits{}, MaxMessages: 2 * n, Mailboxes: []graphtest.Mailbox{{Address: sender}}}))
	next.settings.Sender.Address = sender
	former.settings.Limits.Concurrency = 2 * each
	c := choose(t, 1, map[string]any{"worker": map[string]any{"concurrency": each}}, "api")
	c.set(0, former.settings, "saved")
	batch, ids := c.accept(newsletter(n))
	victim := c.serve("--roles", "worker")
	await(t, time.Minute, "all of the first worker's to wait for an answer", func() bool { return len(former.came()) == each })
	c.serve("--roles", "worker")
	await(t, time.Minute, "as many of the second worker's to wait", func() bool { return len(former.came()) == 2*each })
	sealed := c.sealed()
	victim.kill()
	asked := time.Now()
	changed := c.set(0, next.settings, "saved")
	took, meanwhile := time.Since(asked), len(next.came())
	c.isGone(1, former.secret, sealed)
	// The killed worker's may have been ended in the last moment.
	if took > patience+2*time.Second || changed.Underway < each || changed.Underway > 2*each*hands {
		t.Errorf("the activation took %v, and said that %d attempts were under way", took, changed.Underway)
	}
	if meanwhile == 0 {
		t.Error("nothing went by the new provider while attempts of the former were under way")
	}
	open()
	c.awaitDelivered(batch, n, time.Minute)

	times := map[string]int{}
	for _, a := range append(former.came(), next.came()...) {
		times[a.to]++
	}
	doubled, unknown := 0, 0
	for i, id := range ids {
		m := c.message(id)
		unknown += m.Counted - 1
		switch taken := times[reader(i)]; {
		case taken == 0 || taken > m.Counted:
			t.Errorf("message %s was taken %d times in %d attempts", id, taken, m.Counted)
		case taken > 1:
			doubled++
		}
	}
	if sum := len(former.came()); sum != 2*each || doubled != each || unknown < doubled || unknown > each*hands {
		t.Errorf("the former server took %d messages, of which %d came twice, and %d attempts are unknown", sum, doubled, unknown)
	}
	t.Logf("activation returned after %v, with %d attempts under way; by then %d of %d mails had gone by the new provider; "+
		"of the killed worker's attempts %d are unknown and %d had been taken; nothing is lost", took.Round(10*time.Millisecond), changed.Underway, meanwhile, n, unknown, doubled)
}
