package queue

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/queue/queuetest"
)

func TestTheAuditIsReadFromTheNewest(t *testing.T) {
	onEachRedis(t, func(t *testing.T, q *Queue) {
		if got, err := q.Audit(t.Context(), "", 9); err != nil || len(got) != 0 {
			t.Errorf("%v, %v", got, err)
		}
		begun := time.Now().Add(-time.Minute)
		for i := range 5 {
			e := AuditEntry{By: "root", From: "192.0.2.1", Action: "provider.verify", Target: "smtp", Detail: fmt.Sprint("the same"[:8-i%2])}
			if err := q.Note(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
		all, err := q.Audit(t.Context(), "", 9)
		if err != nil || len(all) != 5 {
			t.Fatalf("%v, %v", all, err)
		}
		for i, e := range all {
			if e.By != "root" || e.From != "192.0.2.1" || e.Action != "provider.verify" || e.Target != "smtp" || e.Detail != "the same"[:8-i%2] || e.Mark == "" ||
				e.At.Before(begun) || e.At.After(begun.Add(2*time.Minute)) || i > 0 && (e.ID >= all[i-1].ID && len(e.ID) >= len(all[i-1].ID) || e.Mark == all[i-1].Mark) {
				t.Errorf("%d: %+v", i, e)
			}
		}
		before := ""
		for i := range all {
			one, err := q.Audit(t.Context(), before, 1)
			if err != nil || len(one) != 1 || one[0] != all[i] {
				t.Fatalf("entry %d before %q: %+v, %v", i, before, one, err)
			}
			before = one[0].ID
		}
		if rest, err := q.Audit(t.Context(), before, 9); err != nil || len(rest) != 0 {
			t.Errorf("before the oldest: %+v, %v", rest, err)
		}
		for _, wrong := range []string{"x", "-", "+", "(1-0", "1", "1-", "1-0 ", "1-0\n", "12345678901234567-1", "1-1234567890"} {
			if _, err := q.Audit(t.Context(), wrong, 9); !errors.Is(err, ErrCursor) {
				t.Errorf("%q: %v", wrong, err)
			}
		}
	})
}

func TestTheAuditIsBounded(t *testing.T) {
	q := open(t, queuetest.Start(t).Client)
	pipe := q.redis.Pipeline()
	for i := range 12_000 {
		pipe.XAdd(t.Context(), &redis.XAddArgs{Stream: q.key("audit"), Values: []string{"entry", fmt.Sprintf(`{"action":"a","target":"%d","detail":"%s"}`, i, strings.Repeat("x", 60))}})
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := q.Note(t.Context(), AuditEntry{Action: "newest"}); err != nil {
		t.Fatal(err)
	}
	n, err := q.redis.XLen(t.Context(), q.key("audit")).Result()
	if err != nil || n < 10_000 || n > 10_200 {
		t.Errorf("%d are kept, %v; want some 10,000", n, err)
	}
	if newest, err := q.Audit(t.Context(), "", 2); err != nil || newest[0].Action != "newest" || newest[1].Target != "11999" {
		t.Errorf("%+v, %v", newest, err)
	}
}

func TestARationIsExactInATimeThatSlides(t *testing.T) {
	q, c := onClock(t)
	client := redis.NewClient(&redis.Options{Addr: c.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	processes := []*Queue{q, open(t, client)}
	ration := Ration{Name: "provider", Window: time.Minute, Each: 3, All: 5}
	c.now = c.now.Truncate(time.Millisecond)
	c.advance(0)
	random := rand.New(rand.NewPCG(1, 2))
	taken := map[string][]time.Time{} // by whom, and "" for all
	// due is when there is room again in what was taken of late.
	due := func(who string, most int) time.Duration {
		var recent []time.Time
		for _, at := range taken[who] {
			if c.now.Sub(at) < ration.Window {
				recent = append(recent, at)
			}
		}
		if len(recent) < most {
			return 0
		}
		return recent[len(recent)-most].Add(ration.Window).Sub(c.now)
	}
	went, waited := 0, 0
	for step := range 600 {
		by := string(rune('a' + random.IntN(3)))
		want := max(due(by, ration.Each), due("", ration.All))
		got, err := processes[random.IntN(2)].Take(t.Context(), ration, by)
		if err != nil || got != want {
			t.Fatalf("step %d, %s: waits %v, %v; want %v", step, by, got, err, want)
		}
		if want == 0 {
			went++
			taken[by], taken[""] = append(taken[by], c.now), append(taken[""], c.now)
			c.advance(time.Duration(random.IntN(9000)) * time.Millisecond)
			continue
		}
		waited++
		switch random.IntN(3) {
		case 0: // a moment too early, and then in time
			c.advance(want - time.Millisecond)
			if got, err := q.Take(t.Context(), ration, by); err != nil || got != time.Millisecond {
				t.Fatalf("step %d: a millisecond before, it waits %v, %v", step, got, err)
			}
			c.advance(time.Millisecond)
		case 1:
			c.advance(want)
		default: // asking again uses nothing up
		}
	}
	if went < 100 || waited < 100 {
		t.Errorf("%d went and %d waited: too few to prove anything", went, waited)
	}
	// Another ration is another.
	if wait, err := q.Take(t.Context(), Ration{Name: "other", Window: time.Minute, Each: 1, All: 1}, "a"); err != nil || wait != 0 {
		t.Errorf("another: %v, %v", wait, err)
	}
	if keys := c.Keys(); len(keys) > 6 {
		t.Errorf("keys are left: %v", keys)
	}
	c.FastForward(ration.Window)
	if keys := c.Keys(); len(keys) != 0 {
		t.Errorf("keys are left for good: %v", keys)
	}
}
