package bench

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
)

// throttledTo is a mailbox with so many messages a second; the mean time of a hand-over stays under a hundredth of it.
func throttledTo(most int) (each terms, latency time.Duration) {
	return terms{4, []limit{{"messages", most, time.Second}}}, 8 * time.Millisecond
}

// expense is what was done, in all or in a span.
type expense struct {
	delivered float64
	tasks     float64 // of asynq
	ours      float64 // scripts of ours
	scripts   float64 // all that Redis ran, asynq's too
	commands  float64 // Redis's, those of scripts too
}

// spent is what was done so far.
func (c *crew) spent(workers []*postroom) expense {
	c.t.Helper()
	e := expense{delivered: float64(c.server.taken())}
	for _, w := range workers {
		e.ours += w.metric("postroom_redis_scripts_total")
	}
	for _, name := range []string{"mail", "alert"} {
		n, _ := c.redis.Client.Get(c.t.Context(), "asynq:{postroom:"+name+"}:processed").Float64() // none: 0
		e.tasks += n
	}
	info, err := c.redis.Client.InfoMap(c.t.Context(), "commandstats").Result()
	if err != nil {
		c.t.Fatal(err)
	}
	for name, stat := range info["Commandstats"] {
		calls, _, _ := strings.Cut(strings.TrimPrefix(stat, "calls="), ",")
		n, err := strconv.ParseFloat(calls, 64)
		if err != nil {
			c.t.Fatalf("%s: %s", name, stat)
		}
		e.commands += n
		if name == "cmdstat_evalsha" || name == "cmdstat_eval" {
			e.scripts += n
		}
	}
	return e
}

// spend is what is done in a span of time.
func (c *crew) spend(workers []*postroom, span time.Duration) expense {
	c.t.Helper()
	before := c.spent(workers)
	pass(c.t.Context(), span)
	return c.spent(workers).less(before)
}

func (e expense) less(o expense) expense {
	return expense{e.delivered - o.delivered, e.tasks - o.tasks, e.ours - o.ours, e.scripts - o.scripts, e.commands - o.commands}
}

// each is the expense for each message of n.
func (e expense) each(n float64) expense {
	return expense{e.delivered / n, e.tasks / n, e.ours / n, e.scripts / n, e.commands / n}
}

func (e expense) String() string {
	return fmt.Sprintf("%.2f tasks, %.2f of our scripts, %.2f of all, %.1f commands", e.tasks, e.ours, e.scripts, e.commands)
}

// TestAThrottledMessageCostsTheSameWhateverWaits counts what is done for each message while a mailbox uses all it may. What
// is done by the clock, whatever the mail, is taken off: it is what as many processes do in a span without mail.
func TestAThrottledMessageCostsTheSameWhateverWaits(t *testing.T) {
	t.Parallel()
	const most = 50
	// Long enough for each thing that the clock does, and too short for 1,000 messages.
	span := time.Duration(size(14_000, 1000)) * time.Millisecond
	numbers, patterns := []int{1, 8}, []string{"apart", "together"}
	if !*full {
		numbers, patterns = numbers[:1], patterns[:1]
	}
	for _, processes := range numbers {
		for _, pattern := range patterns {
			var few expense
			for _, waiting := range []int{size(1000, 300), size(100_000, 3000)} {
				name := fmt.Sprintf("%d waiting, %d processes, %s", waiting, processes, pattern)
				t.Run(name, func(t *testing.T) {
					each, latency := throttledTo(most)
					c := assemble(t, latency, each, terms{})
					if pattern == "apart" {
						// Room for one message at a time, as it comes with time, and the dearer way. Without, a window's messages go
						// together, and how many of them share a look is up to chance.
						pace := limit{"requests", 1, each.limits[0].window/most - latency}
						c.tell(terms{each.concurrency, append(each.limits, pace)}, terms{})
					}
					workers := c.crowd(processes)
					idle := c.spend(workers, span)
					batch, _ := c.accept(mailbox(0), mail.Subscription, waiting)
					await(t, time.Minute, "the mailbox to have used what it may", func() bool { return c.server.taken() >= most })
					c.tell(each, terms{})
					await(t, time.Minute, "the next messages", func() bool { return c.server.taken() >= 2*most })
					busy := c.spend(workers, span)
					if c.open(batch) == 0 {
						t.Error("nothing is left: this proves nothing")
					}
					c.server.obeyed()
					n := busy.delivered
					if n < most/2 {
						t.Fatalf("%v messages were delivered: this proves nothing", n)
					}
					raw, net := busy.each(n), busy.less(idle).each(n)
					t.Logf("%s: %v delivered; for each\n  in all:          %v\n  without clock's: %v", name, n, raw, net)
					if net.tasks > 1.1 || net.ours > 2.2 {
						t.Errorf("too much for each message: %v", net)
					}
					if few.commands == 0 {
						few = net
					} else if *full && pattern == "apart" && (net.commands > 1.1*few.commands || net.commands < 0.9*few.commands) {
						t.Errorf("%.1f commands for each message, and %.1f if few are waiting", net.commands, few.commands)
					}
				})
			}
		}
	}
}

func TestAnAlertIsAmongTheNextTwoOfAThrottledMailbox(t *testing.T) {
	t.Parallel()
	// One at once, so that they come in the order in which they begin, and so few that the mailbox is silent most of the time.
	each, latency := throttledTo(5)
	each.concurrency = 1
	c := assemble(t, latency, each, terms{})
	c.accept(mailbox(0), mail.Subscription, size(100_000, 3000))
	c.crowd(size(8, 2))
	await(t, time.Minute, "the first messages", func() bool { return c.server.requested(mailbox(0)) >= 5 })
	rounds, first := size(30, 3), 0
	for round := 0; round < rounds; {
		await(t, time.Minute, "the mailbox to have used what it may", func() bool { return c.server.idle(mailbox(0), 200*time.Millisecond) })
		handed := time.Now()
		id := c.one(mailbox(0), mail.Alert, 1)
		accepted := time.Now()
		var came []request
		await(t, time.Minute, "two more messages", func() bool {
			came = c.server.came(mailbox(0), handed)
			return len(came) >= 2
		})
		if came[0].arrived.Sub(accepted) < 20*time.Millisecond {
			continue // it may have begun before
		}
		round++
		switch slices.IndexFunc(came, func(r request) bool { return r.id == id }) {
		case 0:
			first++
		case 1:
		default:
			t.Errorf("an alert is not among the next two that began: %v", came)
		}
	}
	c.server.obeyed()
	t.Logf("of %d alerts, %d were the next message that began and %d the one after it", rounds, first, rounds-first)
}

func TestASmallReportGoesBesideALargeOne(t *testing.T) {
	t.Parallel()
	const small = 10
	each, latency := throttledTo(50)
	c := assemble(t, latency, each, terms{})
	c.accept(mailbox(0), mail.Report, size(50_000, 1500))
	c.accept(mailbox(0), mail.Subscription, size(50_000, 1500))
	c.crowd(size(8, 2))
	await(t, time.Minute, "the first messages", func() bool { return c.server.requested(mailbox(0)) >= 50 })
	batch, ids := c.accept(mailbox(0), mail.Report, small)
	accepted := time.Now()
	await(t, time.Minute, "the small report to be through", func() bool { return c.open(batch) == 0 })
	came := c.server.came(mailbox(0), accepted)
	last := 0
	for i, r := range came {
		if slices.Contains(ids, r.id) {
			last = i + 1
		}
	}
	// Reports are three of four messages, and of these every other one is the small one's. As many as may be under way can
	// have begun before.
	should := small * 2 * 4 / 3
	t.Logf("%d messages of a report were through with the message that was number %d to come; in turns that is number %d", small, last, should)
	if last < should-3-each.concurrency || last > should+1+each.concurrency {
		t.Errorf("the last of a report for %d was message %d after it was accepted, want about %d", small, last, should)
	}
	c.server.obeyed()
}

func TestABacklogSlowsNoOtherMailbox(t *testing.T) {
	t.Parallel()
	const most = 50
	periods := size(15, 2)
	each, latency := throttledTo(most)
	c := assemble(t, latency, each, terms{})
	other, _ := c.accept(mailbox(1), mail.Report, (2*periods+20)*most)
	c.crowd(size(8, 2))
	measure := func() float64 {
		from, before := time.Now(), c.server.requested(mailbox(1))
		await(t, 5*time.Minute, "the periods to pass", func() bool { return c.server.requested(mailbox(1))-before > (periods+1)*most })
		share, _ := use(c.server.came(mailbox(1), from), each.limits[0])
		return share
	}
	alone := measure()
	backlog, _ := c.accept(mailbox(0), mail.Subscription, size(100_000, 3000))
	beside := measure()
	c.server.obeyed()
	if c.open(other) == 0 || c.open(backlog) == 0 {
		t.Error("nothing is left: this proves nothing")
	}
	t.Logf("a mailbox uses %.2f %% of its best rate alone, %.2f %% beside another's backlog", 100*alone, 100*beside)
	if *full && beside < 0.98*alone {
		t.Error("another mailbox's backlog slows it")
	}
}
