package bench

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// totals checks metrics, the failed store and Redis's counters against the states of all messages.
func (r *race) totals(states map[string]queue.State, sums map[queue.State]int, workers []*postroom) {
	t := r.t
	t.Helper()
	// What ended well, or was ended, did so once.
	for _, state := range []queue.State{queue.Delivered, queue.Cancelled, queue.Expired} {
		n := 0.0
		for _, p := range append(slices.Clone(workers), r.front) {
			for _, k := range mail.Kinds() {
				n += p.metric(fmt.Sprintf(`postroom_messages_finished_total{kind="%s",result="%s"}`, k, state))
			}
		}
		if int(n) != sums[state] {
			t.Errorf("%v messages were counted as %s, and %d are", n, state, sums[state])
		}
	}
	var failed []string
	for id, state := range states {
		if state == queue.Failed {
			failed = append(failed, id)
		}
	}
	r.find("the failed store", admin.FailedFilter{}, 100, failed)
	r.tallies()
	// Entries of what has ended meanwhile are dropped when their turn or their time comes.
	begun := time.Now()
	await(t, 30*time.Second, "the backlog to be empty", func() bool {
		for _, pattern := range []string{"l:*", "r:*", "s:*", "u:*"} {
			if len(r.keys(pattern)) > 0 {
				return false
			}
		}
		n, err := r.redis.Client.ZCard(t.Context(), r.key("due")).Result()
		return err == nil && n == 0
	})
	t.Logf("the backlog was empty %v later", time.Since(begun).Round(10*time.Millisecond))
}

// key is that of one of our structures in Redis: see ARCHITECTURE.md.
func (i *installation) key(name string) string { return "{" + i.namespace + "}:" + name }

// keys lists those that fit a pattern.
func (i *installation) keys(pattern string) []string {
	i.t.Helper()
	var found []string
	all := i.redis.Client.Scan(i.t.Context(), 0, i.key(pattern), 10_000).Iterator()
	for all.Next(i.t.Context()) {
		found = append(found, all.Val())
	}
	if err := all.Err(); err != nil {
		i.t.Fatal(err)
	}
	slices.Sort(found)
	return slices.Compact(found) // a scan can give a key twice
}

// tallies checks that Redis's counters are what its records and pieces of content add up to, and that metrics say the same.
func (i *installation) tallies() {
	t := i.t
	t.Helper()
	want := map[string]int{}
	stored := 0
	for _, key := range i.keys("m:*") {
		raw, err := i.redis.Client.Get(t.Context(), key).Result()
		if err != nil {
			t.Fatal(err)
		}
		line, _, _ := strings.Cut(raw, "\n")
		head := strings.Split(line+strings.Repeat("\t", 10), "\t")
		switch state, kind, class := head[1], head[2], head[9]; state {
		case "q", "s":
			want["open:"+kind]++
		case "f":
			want["failed:"+kind]++
			want["class:"+class]++
			stored++
		}
	}
	for _, key := range i.keys("c:*") {
		n, err := i.redis.Client.StrLen(t.Context(), key).Result()
		if err != nil {
			t.Fatal(err)
		}
		want["content_bytes"] += int(n)
	}
	got, err := i.redis.Client.HGetAll(t.Context(), i.key("counts")).Result()
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range want {
		if got[name] != fmt.Sprint(n) {
			t.Errorf("Redis's counter %s is %s, and records add up to %d", name, got[name], n)
		}
	}
	for name, n := range got {
		if want[name] == 0 && n != "0" && name != "moves" && name != "moved_bytes" {
			t.Errorf("Redis's counter %s is %s, and records add up to 0", name, n)
		}
	}
	if n, err := i.redis.Client.ZCard(t.Context(), i.key("failed")).Result(); err != nil || int(n) != stored {
		t.Errorf("the failed store has %d messages, %v, and %d records have failed", n, err, stored)
	}
	for _, k := range mail.Kinds() {
		for _, state := range []string{"open", "failed"} {
			series := fmt.Sprintf(`postroom_messages{kind="%s",state="%s"}`, k, state)
			if n := i.front.metric(series); int(n) != want[state+":"+string(k[0])] {
				t.Errorf("%s is %v, and records add up to %d", series, n, want[state+":"+string(k[0])])
			}
		}
	}
	for _, class := range mail.Classes() {
		series := fmt.Sprintf(`postroom_failed_messages{class="%s"}`, class)
		if n := i.front.metric(series); int(n) != want["class:"+class.String()] {
			t.Errorf("%s is %v, and records add up to %d", series, n, want["class:"+class.String()])
		}
	}
}
