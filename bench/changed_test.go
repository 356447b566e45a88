package bench

import (
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// settled is how long after a change everything has ended that began before it.
const settled = 500 * time.Millisecond

// TestLimitsChangeWhileMailFlows lowers, raises, removes and sets limits, and goes by what the server says at each moment. It
// grants more before the workers know, and demands more when what had begun before has ended.
func TestLimitsChangeWhileMailFlows(t *testing.T) {
	t.Parallel()
	window, latency := time.Duration(size(4000, 1000))*time.Millisecond, time.Duration(size(25, 8))*time.Millisecond
	mailboxes, periods := size(4, 2), size(3, 1)
	with := func(concurrency, most int) terms {
		return terms{concurrency, []limit{{"messages", most, window}}}
	}
	now := with(4, 40)
	c := assemble(t, latency, now, terms{})
	for i := range mailboxes {
		c.accept(mailbox(i), mail.Report, size(6000, 3000))
	}
	c.crowd(size(4, 2))
	flows := func(what string, from time.Time) {
		t.Helper()
		before := make([]int, mailboxes)
		for i := range before {
			before[i] = len(c.server.came(mailbox(i), time.Time{}))
		}
		most := 400 // without a limit
		if len(now.limits) > 0 {
			most = periods*now.limits[0].most + 1
		}
		await(t, time.Minute, what, func() bool {
			for i := range before {
				if c.server.requested(mailbox(i))-before[i] < most {
					return false
				}
			}
			return true
		})
		for i := range mailboxes {
			came := c.server.came(mailbox(i), from)
			if len(now.limits) == 0 {
				t.Logf("%s: %d messages in %v", what, len(came), time.Since(from).Round(time.Millisecond))
				continue
			}
			share, n := use(came, now.limits[0])
			t.Logf("%s: %d periods, %.2f %% of the best rate", what, n, 100*share)
			if *full && share < 0.95 {
				t.Errorf("%s: only %.2f %% of the best rate were used", what, 100*share)
			}
		}
	}
	lower := func(to terms) {
		now = to
		c.tell(to, terms{})
		pass(t.Context(), settled)
		c.server.change(to, terms{})
	}
	raise := func(to terms) time.Time {
		now = to
		c.server.change(to, terms{})
		c.tell(to, terms{})
		return time.Now()
	}

	await(t, time.Minute, "the first messages", func() bool { return c.server.requested(mailbox(0)) > 0 })
	flows("40 in a window, 4 at once", time.Now())

	lower(with(2, 10))
	pass(t.Context(), window) // until so few count
	flows("lowered to 10, 2 at once", time.Now())

	raised := raise(with(4, 30))
	await(t, time.Minute, "more to go", func() bool { return len(c.server.came(mailbox(0), raised)) > 20 })
	if took := time.Since(raised); *full && took > window/2 {
		t.Errorf("what the raised limit allows took %v to begin", took)
	} else {
		t.Logf("raised: 20 more began within %v", took.Round(time.Millisecond))
	}
	pass(t.Context(), window) // the last of what the former limit let go
	flows("raised to 30, 4 at once", time.Now())

	flows("removed", raise(terms{concurrency: 4}))

	lower(with(3, 20))
	flows("20 in a window again, 3 at once", time.Now())
	c.server.obeyed()
}

func TestAMessageDearerThanALimitFailsAndStopsNobody(t *testing.T) {
	t.Parallel()
	with := func(most int) terms {
		return terms{2, []limit{{"messages", 100, time.Second}, {"recipients", most, time.Second}}}
	}
	c := assemble(t, 8*time.Millisecond, with(10), terms{})
	c.tell(with(20), terms{})
	before, _ := c.accept(mailbox(0), mail.Report, 15)
	dear := c.one(mailbox(0), mail.Report, 15)
	after := c.one(mailbox(0), mail.Report, 9)
	c.tell(with(10), terms{}) // since it was accepted
	c.crowd(2)
	var status *queue.MessageStatus
	await(t, time.Minute, "the others to go on", func() bool {
		s, err := c.queue.Message(t.Context(), after)
		if err != nil {
			t.Fatal(err)
		}
		return c.open(before) == 0 && s.State == queue.Delivered
	})
	status, err := c.queue.Message(t.Context(), dear)
	if err != nil {
		t.Fatal(err)
	}
	if status.State != queue.Failed || len(status.History) != 1 {
		t.Fatalf("the message that takes more than the limit is %s: %+v", status.State, status.History)
	}
	if o := status.History[0].Outcomes[0]; o.Class != mail.Permanent.String() || !strings.Contains(o.Reply, "recipients") {
		t.Errorf("it failed as %s: %s", o.Class, o.Reply)
	}
	for _, r := range c.server.came(mailbox(0), time.Time{}) {
		if r.id == dear {
			t.Error("it was sent all the same")
		}
	}
	c.server.obeyed()
}

// TestADearMessageIsNotOvertakenWithoutEnd has a message wait that takes all of a limit, so that nothing else may go for a
// whole window, among many that would always fit.
func TestADearMessageIsNotOvertakenWithoutEnd(t *testing.T) {
	t.Parallel()
	const most, concurrency = 10, 4
	some := terms{concurrency, []limit{{"recipients", most, time.Second}}}
	for name, v := range map[string]struct {
		each, all terms
		others    int // mailboxes besides
		between   int // messages that may go before it
	}{
		// It is chosen when its kind and its lane have their turn: among four of the mailbox, at the latest.
		"by a mailbox's limit": {some, terms{}, 0, 4 + concurrency},
		// Until then, others take turns with its mailbox.
		"by the provider's limit": {terms{concurrency: concurrency}, terms{limits: some.limits}, 4, 10 * most},
		"by both":                 {some, terms{limits: some.limits}, 4, 10 * most},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// So slow that room comes bit by bit, and is never all there by chance.
			c := assemble(t, 50*time.Millisecond, v.each, v.all)
			for i := range 1 + v.others {
				c.accept(mailbox(i), mail.Report, 1000)
				c.accept(mailbox(i), mail.Subscription, 1000)
			}
			c.crowd(2)
			await(t, time.Minute, "the first messages", func() bool { return c.server.requested(everybody) >= most })
			dear := c.one(mailbox(0), mail.Report, most)
			accepted := time.Now()
			position := func() int {
				for i, r := range c.server.came(everybody, accepted) {
					if r.id == dear {
						return i
					}
				}
				return -1
			}
			await(t, time.Duration(size(120, 30))*time.Second, "the dear message to go", func() bool {
				return position() >= 0 || len(c.server.came(everybody, accepted)) > v.between
			})
			if at := position(); at < 0 {
				t.Errorf("%d messages went before a dear one", len(c.server.came(everybody, accepted)))
			} else {
				t.Logf("%d messages went before the dear one", at)
			}
			c.server.obeyed()
		})
	}
}

// TestWaitingForALimitCostsNothing has a message wait that takes all of a limit, while nothing else is there: until there is
// room for it, nobody has a reason to look.
func TestWaitingForALimitCostsNothing(t *testing.T) {
	t.Parallel()
	const most = 10
	bound := terms{2, []limit{{"recipients", most, 8 * time.Second}}}
	for name, v := range map[string]struct{ each, all terms }{
		"a mailbox's":    {bound, terms{}},
		"the provider's": {terms{concurrency: 2}, terms{limits: bound.limits}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := assemble(t, 8*time.Millisecond, v.each, v.all)
			workers := c.crowd(1)
			idle := c.spend(workers, 2*time.Second)
			c.one(mailbox(0), mail.Report, 1)
			await(t, time.Minute, "the first message to go", func() bool { return c.server.taken() == 1 })
			c.one(mailbox(0), mail.Report, most)
			pass(t.Context(), settled)
			waits := c.spend(workers, 2*time.Second)
			if waits.delivered > 0 {
				t.Fatal("it does not wait: this proves nothing")
			}
			more := waits.less(idle)
			t.Logf("%v scripts of ours and %v commands more than without mail", more.ours, more.commands)
			if more.ours > 3 {
				t.Errorf("%v scripts of ours and %v commands while a message waits for a limit", more.ours, more.commands)
			}
			c.server.obeyed()
		})
	}
}
