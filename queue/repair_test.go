package queue

import (
	"context"
	"maps"
	"slices"
	"strings"

	"pgregory.net/rapid"
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
	names := m.leftover("l:", "r:", "s:", "due", "counts", "backlog", "failed", "cancelling", "keys", "units", "mailboxes", "contents",
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
