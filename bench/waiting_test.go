package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/queue/queuetest"
)

// waiting is what an installation costs in which so many messages wait.
type waiting struct {
	messages           int
	scrape, worst      time.Duration // one scrape: mean, and the slowest
	perScrape          float64       // commands of Redis, those of scripts too
	redisPerScrape     time.Duration // its processor time
	idleCommands       float64       // a second, while nobody asks
	idleOwn, idleRedis float64       // share of a core
	resident, answer   int           // bytes of the server, and of what it answers
}

// counters reads what Redis has done so far: commands, and its processor time.
func (i *installation) counters() (commands float64, busy time.Duration) {
	i.t.Helper()
	stats, err := i.redis.Client.InfoMap(i.t.Context(), "commandstats").Result()
	if err != nil {
		i.t.Fatal(err)
	}
	for name, told := range stats["Commandstats"] {
		// What only this test asks for.
		if name == "cmdstat_info" {
			continue
		}
		calls, _, _ := strings.Cut(strings.TrimPrefix(told, "calls="), ",")
		n, err := strconv.ParseFloat(calls, 64)
		if err != nil {
			i.t.Fatal(err)
		}
		commands += n
	}
	info, err := i.redis.Client.InfoMap(i.t.Context(), "cpu").Result()
	if err != nil {
		i.t.Fatal(err)
	}
	for _, name := range []string{"used_cpu_user", "used_cpu_sys"} {
		seconds, _ := strconv.ParseFloat(info["CPU"][name], 64)
		busy += time.Duration(seconds * float64(time.Second))
	}
	return commands, busy
}

// busy is the processor time that a process has used (proc(5): utime and stime, in hundredths of a second).
func (p *postroom) busy() time.Duration {
	p.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.command.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// fill has n messages wait: of each of a hundred mailboxes one large batch and as much mail in batches of at most ten.
func (i *installation) fill(n int) {
	i.t.Helper()
	q, err := queue.Open(i.t.Context(), queue.Options{Client: i.redis.Client, Namespace: i.namespace})
	if err != nil {
		i.t.Fatal(err)
	}
	const mailboxes, fillers = 100, 4
	var all sync.WaitGroup
	for filler := range fillers {
		all.Go(func() {
			for m := filler; m < mailboxes; m += fillers {
				for left, next := n/mailboxes, n/mailboxes/2; left > 0; left, next = left-next, min(10, left-next) {
					b := newsletter(next)
					b.Message.From = mail.Address{Address: mailbox(m)}
					b.Message.Kind = mail.Kinds()[1+m%2]
					if _, err := q.EnqueueBatch(context.WithoutCancel(i.t.Context()), b); err != nil {
						i.t.Error(err)
						return
					}
				}
			}
		})
	}
	all.Wait()
}

// measureWaiting fills an installation that sends nothing, and looks at it.
func measureWaiting(t *testing.T, n, scrapes int, idle time.Duration) waiting {
	i := &installation{t: t, redis: queuetest.StartTCP(t), namespace: "postroom"}
	i.provider = map[string]any{"kind": "microsoft365", "sender": map[string]any{"address": mailbox(0)}, "microsoft365": map[string]any{
		"tenant_id": "11111111-1111-1111-1111-111111111111", "client_id": "22222222-2222-2222-2222-222222222222", "client_secret": "s3cret",
		"login_url": "http://" + freeAddress(t), "graph_url": "http://" + freeAddress(t)}}
	begun := time.Now()
	i.fill(n)
	t.Logf("%d messages are accepted after %v", n, time.Since(begun).Round(100*time.Millisecond))
	worker := i.serve("--held")
	w := waiting{messages: n}
	scrape := func() int64 {
		response, err := http.Get(worker.url + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		size, err := io.Copy(io.Discard, response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return size
	}
	if open := worker.metric(`postroom_messages{kind="report",state="open"}`) + worker.metric(`postroom_messages{kind="subscription",state="open"}`); open != float64(n) {
		t.Fatalf("%v messages wait, want %d", open, n)
	}
	commands, busy := i.counters()
	begun = time.Now()
	for range scrapes {
		one := time.Now()
		w.answer = int(scrape())
		w.worst = max(w.worst, time.Since(one))
	}
	w.scrape = time.Since(begun) / time.Duration(scrapes)
	commands2, busy2 := i.counters()
	w.perScrape, w.redisPerScrape = (commands2-commands)/float64(scrapes), (busy2-busy)/time.Duration(scrapes)

	own := worker.busy()
	commands, busy = i.counters()
	pass(t.Context(), idle)
	commands2, busy2 = i.counters()
	w.idleCommands = (commands2 - commands) / idle.Seconds()
	w.idleOwn, w.idleRedis = (worker.busy()-own).Seconds()/idle.Seconds(), (busy2-busy).Seconds()/idle.Seconds()
	w.resident = worker.resident()
	return w
}

// resident is the memory that a process has now, in bytes (proc(5): VmRSS).
func (p *postroom) resident() int { return p.memory("VmRSS:") }

// TestWhatWaitsCostsNothing looks at an installation in which a thousand messages wait, and at one with a million.
func TestWhatWaitsCostsNothing(t *testing.T) {
	if !*full {
		t.Parallel()
	}
	few := measureWaiting(t, 1000, size(20, 5), time.Duration(size(30, 1))*time.Second)
	many := measureWaiting(t, size(1_000_000, 3000), size(20, 5), time.Duration(size(30, 1))*time.Second)
	for _, w := range []waiting{few, many} {
		t.Logf("%d wait: a scrape takes %v (the slowest %v, %d bytes), %.0f commands and %v of Redis; idle: %.1f commands a second, %.2f %% of a core, Redis %.2f %%, %d MB",
			w.messages, w.scrape.Round(10*time.Microsecond), w.worst.Round(10*time.Microsecond), w.answer, w.perScrape, w.redisPerScrape.Round(10*time.Microsecond),
			w.idleCommands, 100*w.idleOwn, 100*w.idleRedis, w.resident/1_000_000)
	}
	// Not times, but what takes them.
	if many.perScrape > 1.1*few.perScrape+20 {
		t.Errorf("a scrape makes Redis run %.0f commands with %d messages waiting, and %.0f with %d", many.perScrape, many.messages, few.perScrape, few.messages)
	}
	if *full && many.idleCommands > 1.5*few.idleCommands+5 {
		t.Errorf("an idle process makes Redis run %.1f commands a second with %d messages waiting, and %.1f with %d", many.idleCommands, many.messages, few.idleCommands, few.messages)
	}
}
