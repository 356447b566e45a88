package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue/queuetest"
)

// repairNothing repairs where nothing is wrong.
func (m *model) repairNothing(rt *rapid.T) {
	before := m.dump()
	done, err := m.queue.Repair(context.Background(), RepairOptions{AttemptTimeout: attemptTime})
	m.must(rt, err)
	if *done != (Repaired{}) {
		rt.Fatalf("nothing is wrong, and it repairs %+v\n%s\nis now\n%s", *done, before, m.dump())
	}
}

// spoil loses or spoils something of what can be made again, and repairs.
func (m *model) spoil(rt *rapid.T) {
	names := m.leftover("l:", "r:", "s:", "due", "expires", "counts", "backlog", "failed", "cancelling", "keys", "units", "mailboxes", "contents",
		"b:", "a:")
	if slices.ContainsFunc(slices.Collect(maps.Keys(m.hush.aside)), func(s string) bool { return m.hush.holds[s] != nil }) &&
		!slices.ContainsFunc(slices.Collect(maps.Keys(m.hush.aside)), func(s string) bool { return m.hush.holds[s] == nil && m.hush.pauses[s] > 0 }) {
		names = append(names, m.leftover("aside")...)
	}
	slices.Sort(names)
	if len(names) == 0 {
		rt.Skip()
	}
	spoilt := make(map[string]string)
	for range rapid.IntRange(1, 3).Draw(rt, "how many") {
		// Ids are not the same in each run of the same steps, but their order is.
		name := names[rapid.IntRange(0, len(names)-1).Draw(rt, "which")]
		what := strings.TrimPrefix(name, m.queue.prefix)
		switch {
		case strings.HasPrefix(what, "b:"):
			if m.server.HGet(name, "finished") == "" && m.server.HGet(name, "state") == "committed" {
				field := rapid.SampledFrom([]string{"shares", "f"}).Draw(rt, "field")
				spoilt[what] = field + "=" + m.server.HGet(name, field)
				m.server.HIncrBy(name, field, rapid.SampledFrom([]int{-2, -1, 1, 2}).Draw(rt, "by"))
			}
		case strings.HasPrefix(what, "a:"):
			m.server.HIncrBy(name, "shares", rapid.SampledFrom([]int{-2, -1, 1, 2}).Draw(rt, "by"))
			spoilt[what] = "shares"
		case strings.HasPrefix(what, "l:") && !m.waitsIn(rt, name):
			// What is stale is not put in again, and its ring drops the lane when its turn comes.
		default:
			m.server.Del(name)
			spoilt[what] = "lost"
		}
	}
	before := m.dump()
	done, err := m.queue.Repair(context.Background(), RepairOptions{AttemptTimeout: attemptTime})
	m.must(rt, err)
	if done.Uncounted != "" {
		rt.Fatal(done.Uncounted)
	}
	func() {
		defer func() {
			if p := recover(); p != nil || rt.Failed() {
				rt.Logf("spoilt: %v, repaired: %+v\n%s", spoilt, *done, before)
				if p != nil {
					panic(p)
				}
			}
		}()
		m.compare(rt, true)
		m.repairNothing(rt)
	}()
}

// waitsIn says whether a list of a lane has the entry of a message that waits.
func (m *model) waitsIn(rt *rapid.T, list string) bool {
	entries, _ := m.server.List(list)
	return slices.ContainsFunc(entries, func(e string) bool {
		id, generation, _ := strings.Cut(e, ":")
		r := m.record(rt, id)
		return r != nil && stateOf[r.head[headState]] == Queued && r.head[headGeneration] == generation
	})
}

// store is a queue that holds some of everything.
type store struct {
	*desk
	q    *Queue
	open map[*Turn]*Attempt // under way
	left []string           // messages that are to go out in the end
}

// stock fills a queue.
func stock(t *testing.T, q *Queue) *store {
	t.Helper()
	version, err := declare(t, q, ActiveProvider{Kind: "smtp", Keying: ByAccount, Account: account, Sender: "own@example.com", Concurrency: 3,
		AllConcurrency: 3}, "salt", "fingerprint")
	if err != nil {
		t.Fatal(err)
	}
	s := &store{desk: sitDown(t, q, version, nil), q: q, open: map[*Turn]*Attempt{}}
	one := func(m mail.Message, settle func(*Attempt) *Settlement) string {
		id := enqueue(t, q, m)
		turns := s.turns()
		end(turns[0], settle(turns[0].Next(nil)))
		for _, turn := range turns[1:] {
			end(turn, nil)
		}
		return id
	}
	one(message(mail.Report, "failed@example.net"), refuses)
	if err := q.CancelMessage(t.Context(), enqueue(t, q, message(mail.Subscription, "cancelled@example.net"))); err != nil {
		t.Fatal(err)
	}
	one(message(mail.Subscription, "sent@example.net"), delivered)
	s.left = append(s.left, one(message(mail.Report, "again@example.net"), func(a *Attempt) *Settlement {
		again := outcomes(a, Again, "t")
		again.Delay = time.Hour
		return again
	}))
	held := message(mail.Report, "held@example.net")
	held.From.Address = "held@example.com"
	s.left = append(s.left, one(held, func(a *Attempt) *Settlement {
		h := holding(a, "c", mail.ScopeMailbox)
		h.Hold, h.HoldMax = time.Hour, time.Hour
		return h
	}))
	shared, alone := put(t, q, "shared.txt", []byte("shared")), put(t, q, "own.txt", []byte("own"))
	put(t, q, "nobody.txt", []byte("nobody"))
	half(t, q)
	b := batch(mail.Report, 30)
	b.Message.Attachments = []mail.Attachment{{Ref: shared}}
	b.Recipients[7].Attachments = []mail.Attachment{{Ref: alone}}
	b.Recipients[8].Attachments = []mail.Attachment{{Ref: alone}, {Ref: shared}}
	r := enqueueBatch(t, q, b)
	turns := s.turns()
	end(turns[0], refuses(turns[0].Next(delivered(turns[0].Next(nil)))))
	for _, turn := range turns[1:] {
		end(turn, nil)
	}
	s.left = append(s.left, r.IDs[2:]...)
	later, laterBatch := message(mail.Alert, "later@example.net"), batch(mail.Subscription, 4)
	later.SendAt = time.Now().Add(time.Hour)
	later.ExpiresAt = later.SendAt.Add(time.Hour)
	laterBatch.Message.SendAt, laterBatch.Message.ExpiresAt = later.SendAt, later.ExpiresAt
	s.left = append(append(s.left, enqueue(t, q, later)), enqueueBatch(t, q, laterBatch).IDs...)
	stagedBatch(t, q, 3)
	if err := q.run(t.Context(), "cancel_batch", enqueueBatch(t, q, batch(mail.Subscription, 250)).ID, 1000).Err(); err != nil {
		t.Fatal(err)
	}
	s.left = append(s.left, enqueueBatch(t, q, from("news@example.com", mail.Subscription, 5)).IDs...)
	for i := range 5 {
		s.left = append(s.left, enqueue(t, q, message(mail.Kinds()[i%3], fmt.Sprint(i, "@example.net"))))
	}
	for i, turn := range s.turns() {
		if a := turn.Next(nil); i == 0 {
			end(turn, outcomes(a, Back, "t")) // it waits under another generation
		} else {
			s.open[turn] = a
		}
	}
	if len(s.open) != 2 {
		t.Fatalf("%d attempts are under way, want 2", len(s.open))
	}
	return s
}

// drain sends all there is, and looks whether everything went once.
func (s *store) drain(t *testing.T) {
	t.Helper()
	if _, err := s.q.Resume(t.Context(), "held@example.com", Author{}); err != nil {
		t.Fatal(err)
	}
	for _, member := range s.q.redis.ZRange(t.Context(), s.q.key("due"), 0, -1).Val() {
		s.q.redis.ZAdd(t.Context(), s.q.key("due"), redis.Z{Member: member, Score: 1})
	}
	sent := map[string]int{}
	for turn, a := range s.open {
		for ; a != nil; a = turn.Next(delivered(a)) {
			sent[a.MessageID]++
		}
	}
	for turns := s.turns(); len(turns) > 0; turns = s.turns() {
		for _, turn := range turns {
			for a := turn.Next(nil); a != nil; a = turn.Next(delivered(a)) {
				sent[a.MessageID]++
			}
		}
	}
	for _, id := range s.left {
		if sent[id] != 1 {
			t.Errorf("%s went %d times", id, sent[id])
		}
		delete(sent, id)
	}
	if len(sent) > 0 {
		t.Errorf("went too: %v", sent)
	}
	if err := s.q.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	repaired(t, s.q, false)
}

// repaired repairs, and looks whether anything was wrong.
func repaired(t *testing.T, q *Queue, wrong bool) *Repaired {
	t.Helper()
	done, err := q.Repair(t.Context(), RepairOptions{})
	if err != nil || done.Total() > 0 != wrong || done.Uncounted != "" {
		t.Errorf("repaired %+v, %v; something was wrong: %v", done, err, wrong)
	}
	return done
}

// indexes are the keys that can be made again; counters the fields of hashes.
var (
	indexes  = []string{"l:", "r:", "s:", "due", "expires", "aside", "counts", "backlog", "failed", "cancelling", "staged", "keys", "units", "mailboxes", "contents"}
	counters = map[string][]string{"b:": {"shares", "f"}, "a:": {"shares"}, "counts": {"open:r", "failed:r", "class:permanent", "content_bytes"},
		"backlog": {"r:reports@example.com", "s:news@example.com"}}
)

// picture is all there is in Redis, by key, but what passes and what order lists have; times are only in "due", "expires" and "failed".
func picture(t *testing.T, q *Queue) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, k := range keep(t, q.redis.(*redis.Client)) {
		name := strings.TrimPrefix(k.Key, q.prefix)
		switch {
		case slices.Contains([]string{"wake", "ready", "repair", "looks", "blocked", "senior"}, name) || strings.HasPrefix(name, "handed:"):
		case k.Hash != nil:
			for _, f := range slices.Sorted(maps.Keys(k.Hash)) {
				if v := k.Hash[f]; f != "moves" && f != "moved_bytes" && v != "0" {
					all[name] += f + "=" + v + "\n"
				}
			}
		case k.Sorted != nil:
			for _, m := range slices.Sorted(maps.Keys(k.Sorted)) {
				all[name] += m
				if name == "due" || name == "expires" || name == "failed" {
					all[name] += "=" + strconv.FormatFloat(k.Sorted[m], 'f', -1, 64)
				}
				all[name] += "\n"
			}
		default:
			all[name] = string(k.Text) + strings.Join(slices.Sorted(slices.Values(append(k.List, k.Set...))), "\n")
		}
	}
	return all
}

// asBefore compares two pictures.
func asBefore(t *testing.T, what string, before, after map[string]string) {
	t.Helper()
	for name := range maps.Keys(after) {
		if _, ok := before[name]; !ok {
			t.Errorf("%s: %s is new: %.300q", what, name, after[name])
		}
	}
	for name, was := range before {
		if is := after[name]; is != was {
			t.Errorf("%s: %s was\n%.300q, and is\n%.300q", what, name, was, is)
		}
	}
}

func TestEachIndexAndCounterIsMadeAgainFromTheRecords(t *testing.T) {
	onEachRedis(t, func(t *testing.T, q *Queue) {
		s := stock(t, q)
		repaired(t, q, false)
		before := picture(t, q)
		lost := map[string]int{}
		for name := range before {
			i := slices.IndexFunc(indexes, func(p string) bool { return strings.HasPrefix(name, p) && (strings.HasSuffix(p, ":") || name == p) })
			if i < 0 {
				continue
			}
			lost[indexes[i]]++
			q.redis.Del(t.Context(), q.key(name))
			repaired(t, q, true)
			asBefore(t, name+" lost", before, picture(t, q))
		}
		for _, name := range indexes {
			if lost[name] == 0 {
				t.Errorf("there was no %s to lose", name)
			}
		}
		spoilt := 0
		for name := range before {
			for key, fields := range counters {
				if !strings.HasPrefix(name, key) || strings.Contains(before[name], "finished=") || strings.Contains(before[name], "state=staged") {
					continue
				}
				for _, f := range fields {
					for _, by := range []int64{-1, 3} {
						spoilt++
						q.redis.HIncrBy(t.Context(), q.key(name), f, by)
						repaired(t, q, true)
						asBefore(t, fmt.Sprintf("%s %s by %d", name, f, by), before, picture(t, q))
					}
				}
			}
		}
		if spoilt < 2*(2*3+3+4+2) {
			t.Errorf("%d counters were spoilt", spoilt)
		}
		// All at once.
		for name := range before {
			if slices.ContainsFunc(indexes, func(p string) bool { return strings.HasPrefix(name, p) && (strings.HasSuffix(p, ":") || name == p) }) {
				q.redis.Del(t.Context(), q.key(name))
			}
		}
		done := repaired(t, q, true)
		asBefore(t, "all lost", before, picture(t, q))
		if got := metric(t, q, "postroom_repairs_total", "entry"); done.Entries == 0 || got < float64(done.Entries) {
			t.Errorf("%v entries are counted, and %d were put in at last", got, done.Entries)
		}
		// What is listed, and is not there.
		for key, member := range map[string]string{"failed": "nobody", "keys": "nobody", "units": "nobody\t0"} {
			if key == "failed" {
				q.redis.ZAdd(t.Context(), q.key(key), redis.Z{Member: member, Score: 1e15})
			} else {
				q.redis.SAdd(t.Context(), q.key(key), member)
			}
		}
		q.redis.RPush(t.Context(), q.key("s:a"), "nobody@example.com")
		repaired(t, q, true)
		asBefore(t, "too many", before, picture(t, q))
		s.drain(t)
	})
}

func TestAnAttemptThatStandsInNoUnitIsEndedAfterItsDeadline(t *testing.T) {
	for _, policy := range []UnknownPolicy{Resend, Hold} {
		q, c := onClock(t)
		d := sitDown(t, q, activate(t, q, 1), nil)
		id := enqueue(t, q, message(mail.Report, "ada@example.net"))
		if d.turn().Next(nil) == nil {
			t.Fatal("no attempt")
		}
		o := RepairOptions{AttemptTimeout: time.Minute, OnUnknown: map[mail.Kind]UnknownPolicy{mail.Report: policy}}
		repair := func(want int) {
			t.Helper()
			if done, err := q.Repair(t.Context(), o); err != nil || done.Records != want {
				t.Errorf("%+v, %v; want %d attempts ended", done, err, want)
			}
		}
		c.advance(2 * time.Minute)
		repair(0) // its unit has it
		q.redis.Del(t.Context(), q.key("u:", account))
		c.advance(-90 * time.Second)
		repair(0)
		c.advance(90 * time.Second)
		repair(1)
		want := map[UnknownPolicy]State{Resend: Queued, Hold: Failed}[policy]
		if s := status(t, q, id); s.State != want || s.Attempts != 1 || s.History[0].Outcomes[0].Class != "unknown" {
			t.Errorf("%s: %+v", policy, s)
		}
		repair(0)
		if n := d.sendAll(); (n == 1) != (policy == Resend) {
			t.Errorf("%s: it was sent %d times", policy, n)
		}
	}
}

func TestRecordsThatTheListOfWhatIsOverForgotGoAfterTheirTime(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	id := enqueue(t, q, message(mail.Report, "ada@example.net"))
	b := enqueueBatch(t, q, batch(mail.Report, 3))
	if n := d.sendAll(); n != 4 {
		t.Fatalf("%d were sent", n)
	}
	q.redis.Del(t.Context(), q.key("finished"))
	c.advance(24*time.Hour - time.Millisecond)
	repaired(t, q, false)
	if !exists(q, "m:", id) || !exists(q, "b:", b.ID) {
		t.Error("gone before their time")
	}
	c.advance(2 * time.Millisecond)
	if done := repaired(t, q, true); done.Records != 5 {
		t.Errorf("%+v; want 5 records dropped", done)
	}
	if left := q.redis.Keys(t.Context(), q.key("[mb]:*")).Val(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// Nothing is wrong, whatever goes on meanwhile: so nothing is repaired.
func TestARepairLeavesAloneWhatIsRight(t *testing.T) {
	q := open(t, queuetest.Start(t).Client)
	version := activate(t, q, 20)
	var n, sent atomic.Int64
	consume(t, q, version, func(a *Attempt) *Settlement {
		switch i := n.Add(1); {
		case i%7 == 0:
			again := outcomes(a, Again, "t")
			again.Delay = time.Duration(i%3) * 20 * time.Millisecond
			return again
		case i%11 == 0:
			return refuses(a)
		}
		sent.Add(1)
		return delivered(a)
	})
	ctx, cancel := context.WithCancel(t.Context())
	var producers sync.WaitGroup
	goOn := func(do func(i int) error) {
		producers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if err := do(i); err != nil && ctx.Err() == nil && !errors.Is(err, ErrTooLate) && !errors.Is(err, ErrNotFound) {
					t.Error(err)
					return
				}
			}
		})
	}
	goOn(func(i int) error {
		b := from(fmt.Sprint(i%5, "@example.com"), mail.Subscription, 30+i%40)
		b.Recipients[3].Attachments = []mail.Attachment{{Ref: put(t, q, "own.txt", []byte("own"))}}
		if i%4 == 0 {
			b.Message.SendAt = time.Now().Add(50 * time.Millisecond)
		}
		r, err := q.EnqueueBatch(ctx, b)
		if err == nil && i%3 == 0 {
			err = q.CancelBatch(ctx, r.ID)
		}
		return err
	})
	goOn(func(i int) error {
		m := message(mail.Kinds()[i%3], "ada@example.net")
		m.Text = strings.Repeat("x", 1+(i%2)*(inlineBytes+1)) // staged, or at once
		if i%5 == 0 {
			m.ExpiresAt = time.Now().Add(50 * time.Millisecond)
		}
		r, err := q.Enqueue(ctx, m)
		if err == nil && i%3 == 0 {
			err = q.CancelMessage(ctx, r.ID)
		}
		return err
	})
	goOn(func(i int) error {
		_, err := q.Requeue(ctx, FailedFilter{}, SelectionOptions{})
		if err == nil && i%10 == 0 {
			_, err = q.DeleteFailed(ctx, FailedFilter{}, SelectionOptions{})
		}
		return errors.Join(err, pause(ctx, 10*time.Millisecond))
	})
	passes := 0
	for began := time.Now(); time.Since(began) < time.Second || passes < 5; passes++ {
		if done, err := q.Repair(t.Context(), RepairOptions{}); err != nil || done.Total() > 0 {
			t.Errorf("it repairs %+v, %v", done, err)
			break
		}
	}
	cancel()
	producers.Wait()
	t.Logf("%d repairs, %d messages sent", passes, sent.Load())
	if sent.Load() == 0 {
		t.Error("nothing was sent")
	}
}

func TestTheProcessRepairsByItself(t *testing.T) {
	q := open(t, queuetest.Start(t).Client)
	version := activate(t, q, 1)
	d := sitDown(t, q, version, func(o *ConsumerOptions) { o.RepairInterval = 10 * time.Millisecond })
	d.steadySince.Store(1)
	d.began = time.Now().Add(-2 * time.Hour)
	id := enqueue(t, q, message(mail.Report, "ada@example.net"))
	q.redis.Del(t.Context(), q.key("l:r:reports@example.com:-:n"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.Consumer.repair(ctx)
	}()
	eventually(t, "the entry is there again", func() bool {
		return slices.Contains(q.redis.LRange(t.Context(), q.key("l:r:reports@example.com:-:n"), 0, -1).Val(), id)
	})
	cancel()
	<-done
	// At once takes the place of slowly, and not the other way round.
	q.redis.Set(t.Context(), q.key("repair"), "another", 0)
	if _, err := q.Repair(t.Context(), RepairOptions{Slowly: true}); !errors.Is(err, ErrRepairing) {
		t.Errorf("a second one: %v", err)
	}
	repaired(t, q, false)
}

// Most who were not met came, or were queued again, since the lanes were read.
func TestWhoWasNotMetIsLookedForOnceMore(t *testing.T) {
	q := open(t, queuetest.Start(t).Client)
	enqueueBatch(t, q, batch(mail.Report, 2500))
	later := message(mail.Alert, "later@example.net")
	later.SendAt = time.Now().Add(time.Hour)
	enqueue(t, q, later)
	p := &repairs{queue: q, options: RepairOptions{AttemptTimeout: time.Hour}, done: &Repaired{}, claimed: time.Now()}
	if err := errors.Join(p.begin(t.Context()), p.records(t.Context())); err != nil || *p.done != (Repaired{}) {
		t.Errorf("%+v, %v: entries that are there are put in again", p.done, err)
	}
}

// TestWhatAnotherRedisTookOverIsNotCounted has another server take the place of the one that a count began on.
func TestWhatAnotherRedisTookOverIsNotCounted(t *testing.T) {
	q := open(t, queuetest.Start(t).Client)
	if err := q.redis.HSet(t.Context(), q.key("counts"), "open:r", 7).Err(); err != nil {
		t.Fatal(err)
	}
	for _, server := range []string{"", "another"} {
		p := &repairs{queue: q, done: &Repaired{}}
		if err := p.begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		if p.server == "" || p.uncounted(t.Context()) != "" {
			t.Fatalf("on one server %q: %q", p.server, p.uncounted(t.Context()))
		}
		p.server = server
		if err := p.counts(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := q.redis.HGet(t.Context(), q.key("counts"), "open:r").Val(); p.done.Uncounted != uncountedMoved || n != "7" {
			t.Errorf("%q: %q, and the total is %s", server, p.done.Uncounted, n)
		}
	}
}
