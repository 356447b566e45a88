package queue

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"
	"pgregory.net/rapid"
)

// books is what is in Redis.
type books struct {
	server  *miniredis.Miniredis
	prefix  string
	records map[string]*record
	batches map[string]map[string]string
	lanes   map[string][]string // "kind:sender:batch" and its entries
	due     map[string]bool
	units   map[string][]string // what is out, by message
	open    map[string]bool     // attempts under way
	aside   map[string]bool
	files   map[string]int  // shares of stored files
	unheld  map[string]bool // stored files that nobody holds
}

func (m *model) read(rt *rapid.T) *books {
	b := &books{server: m.server.Miniredis, prefix: m.queue.prefix, records: map[string]*record{}, batches: map[string]map[string]string{},
		lanes: map[string][]string{}, due: map[string]bool{}, units: map[string][]string{},
		open: map[string]bool{}, aside: map[string]bool{}, files: map[string]int{}, unheld: map[string]bool{}}
	for _, key := range m.server.Keys() {
		name, _ := strings.CutPrefix(key, b.prefix)
		what, id, _ := strings.Cut(name, ":")
		switch what {
		case "m":
			raw, err := m.server.Get(key)
			m.must(rt, err)
			if b.records[id], err = parseRecord(raw); err != nil {
				rt.Fatal(err)
			}
		case "b":
			fields, _ := m.server.HKeys(key)
			b.batches[id] = map[string]string{}
			for _, f := range fields {
				b.batches[id][f] = m.server.HGet(key, f)
			}
		case "l":
			entries, _ := m.server.List(key)
			lane := id[:len(id)-2]
			b.lanes[lane] = append(b.lanes[lane], entries...)
		case "due":
			members, _ := m.server.SortedSet(key)
			for member := range members {
				b.due[member] = true
			}
		case "a":
			b.files[id] = atoi(m.server.HGet(key, "shares"))
		case "contents":
			members, _ := m.server.SortedSet(key)
			for id := range members {
				b.unheld[id] = true
			}
		case "aside":
			members, _ := m.server.Members(key)
			for _, sender := range members {
				b.aside[sender] = true
			}
		case "u":
			units, _ := m.server.HKeys(key)
			for _, unit := range units {
				for _, open := range strings.Split(m.server.HGet(key, unit), "\n")[1:] {
					f := strings.Split(open, "\t")
					b.units[f[1]] = append(b.units[f[1]], f[0])
					b.open[f[0]] = true
				}
			}
		}
	}
	return b
}

// list gives a list's members.
func (b *books) list(name string) []string {
	members, _ := b.server.List(b.prefix + name)
	return members
}

func (b *books) count(name string) int { return atoi(b.server.HGet(b.prefix+"counts", name)) }

// check compares all that Redis has.
func (m *model) check(rt *rapid.T) { m.compare(rt, false) }

// compare also compares it, if wanted, with what is told of batches.
func (m *model) compare(rt *rapid.T, told bool) {
	b := m.read(rt)
	places := map[string]int{}
	for _, entries := range b.lanes {
		for _, e := range entries {
			places[e]++
		}
	}
	for member := range b.due {
		if e, ok := strings.CutPrefix(member, "m:"); ok {
			places[e]++
		}
	}
	finished := map[string]int{}
	for _, e := range b.list("finished") {
		finished[e]++
	}
	failed, _ := b.server.ZMembers(b.prefix + "failed")
	want := map[string]int{}
	shares, batchStates, batchOpen := map[string]int{}, map[string]map[string]int{}, map[string]int{}
	for _, id := range m.messages {
		r := b.records[id]
		if (r == nil) != m.deleted[id] {
			rt.Fatalf("%s was deleted: %v; its record: %+v", id, m.deleted[id], r)
		}
		batch := m.inBatch[id]
		if batchStates[batch] == nil {
			batchStates[batch] = map[string]int{}
		}
		if r == nil {
			batchStates[batch]["f"]++ // it goes on being counted
			if b.server.Exists(b.prefix + "c:" + id + ":0") {
				rt.Fatalf("%s was deleted, and its content is there", id)
			}
			continue
		}
		state, h := stateOf[r.head[headState]], r.head
		entry := id
		if h[headGeneration] != "" {
			entry += ":" + h[headGeneration]
		}
		over := state == Delivered || state == Cancelled || state == Expired
		if (state == Queued) != (places[entry] == 1) || places[entry] > 1 && state == Queued {
			if state == Queued || (!over && places[entry] > 0 && h[headGeneration] != "" && state == Failed) {
				rt.Fatalf("%s is %s, and its entry %s stands in %d places", id, state, entry, places[entry])
			}
		}
		sending := 0
		for _, attempt := range b.units[id] {
			if attempt == h[headAttempt] {
				sending++
			}
		}
		if state == Sending && sending != 1 {
			rt.Fatalf("%s is sending by %d units", id, sending)
		}
		if a := m.underway[id]; a != nil && (h[headWhen] == "0") != (a.twice && !m.fenced[a.ID]) {
			rt.Fatalf("%s is to be marked again: %v, but its fence was passed: %v", id, h[headWhen], m.fenced[a.ID])
		}
		if over != (finished["m:"+id] == 1) || (state == Failed) != slices.Contains(failed, id) {
			rt.Fatalf("%s is %s; finished %d times, failed: %v", id, state, finished["m:"+id], slices.Contains(failed, id))
		}
		if !over {
			want["open:"+h[headKind]]++
			shares[batch]++
			if batch == "" {
				want["content_bytes"] += atoi(h[headBytes])
			}
		}
		if state == Failed {
			want["open:"+h[headKind]]--
			want["failed:"+h[headKind]]++
			want["class:"+h[headClass]]++
		} else if !over {
			batchOpen[batch]++
		}
		batchStates[batch][h[headState]]++
		if batch == "" && b.server.Exists(b.prefix+"c:"+id+":0") == over {
			rt.Fatalf("%s is %s, and its content there: %v", id, state, !over)
		}
		for i, was := range m.given[id] {
			if was && state != Sending && i < len(h[headMarks]) && h[headMarks][i] != markDelivered && m.lateFor(id) == 0 && !over {
				rt.Fatalf("%s is %s and forgot that recipient %d has it: %s", id, state, i, h[headMarks])
			}
		}
	}
	for _, id := range m.batches {
		f := b.batches[id]
		if f == nil {
			rt.Fatalf("batch %s is gone", id)
		}
		if atoi(f["shares"]) != shares[id] || b.server.Exists(b.prefix+"c:"+id+":0") != (shares[id] > 0) {
			rt.Fatalf("batch %s has %s shares, want %d; content there: %v", id, f["shares"], shares[id], b.server.Exists(b.prefix+"c:"+id+":0"))
		}
		if shares[id] > 0 {
			want["content_bytes"] += atoi(f["bytes"])
		}
		if (shares[id] == 0) != (finished["b:"+id] == 1) {
			rt.Fatalf("batch %s with %d shares is finished %d times", id, shares[id], finished["b:"+id])
		}
		for _, state := range []string{"f", "c", "e"} {
			if atoi(f[state]) != batchStates[id][state] {
				rt.Fatalf("batch %s counts %s as %s, want %d", id, f[state], state, batchStates[id][state])
			}
		}
		if !told {
			continue
		}
		s, err := m.queue.Batch(context.Background(), id)
		m.must(rt, err)
		if s.Open != batchOpen[id] || s.Delivered != batchStates[id]["d"] || s.Total != s.Open+s.Delivered+s.Failed+s.Cancelled+s.Expired {
			rt.Fatalf("batch %s: %+v, want %d open, %v", id, s, batchOpen[id], batchStates[id])
		}
	}
	fields, _ := b.server.HKeys(b.prefix + "counts")
	for _, name := range append(fields, slices.Collect(maps.Keys(want))...) {
		if name != "moves" && name != "moved_bytes" && b.count(name) != want[name] {
			rt.Fatalf("%s is counted as %d, want %d", name, b.count(name), want[name])
		}
	}
	m.checkFiles(rt, b)
	m.checkRings(rt, b)
	m.checkHolds(rt, b)
	m.checkLimits(rt)
}

// checkFiles checks that a stored file is held by all that refers to it and is open or failed, and by nothing else.
func (m *model) checkFiles(rt *rapid.T, b *books) {
	want := map[string]int{}
	hold := func(refs string) {
		for _, id := range strings.Fields(refs)[min(2, len(strings.Fields(refs))):] {
			want[id]++
		}
	}
	for _, r := range b.records {
		hold(r.head[headRefs])
	}
	for _, f := range b.batches {
		if atoi(f["shares"]) > 0 {
			hold(f["refs"])
		}
	}
	for id := range want {
		if _, ok := b.files[id]; !ok {
			rt.Fatalf("the file %s is gone, and %d hold it", id, want[id])
		}
	}
	for id, n := range b.files {
		if n != want[id] || b.unheld[id] != (n == 0) {
			rt.Fatalf("the file %s has %d shares, want %d; it is to be dropped: %v", id, n, want[id], b.unheld[id])
		}
	}
}

// lateFor gives how many outcomes of a message may still come late.
func (m *model) lateFor(id string) int {
	n := 0
	for _, a := range m.lost {
		if a.MessageID == id {
			n++
		}
	}
	return n
}

// checkRings checks that a lane stands in its ring exactly while it has entries and may go.
func (m *model) checkRings(rt *rapid.T, b *books) {
	rings, waiting := map[string][]string{}, map[string]int{}
	for lane := range b.lanes {
		kind, rest, _ := strings.Cut(lane, ":")
		sender, batch, _ := strings.Cut(rest, ":")
		if !b.due["b:"+batch] {
			rings[kind+":"+sender] = append(rings[kind+":"+sender], batch)
			waiting[kind+":"+sender] += len(b.lanes[lane])
		}
	}
	counted := map[string]int{}
	fields, _ := b.server.HKeys(b.prefix + "backlog")
	for _, f := range fields {
		counted[f] = atoi(b.server.HGet(b.prefix+"backlog", f))
	}
	if !maps.Equal(counted, waiting) {
		rt.Fatalf("the backlog is counted as %v, want %v", counted, waiting)
	}
	for _, kind := range []string{"a", "r", "s"} {
		senders := b.list("s:" + kind)
		for _, sender := range append([]string{"-"}, senders...) {
			ring := kind + ":" + sender
			got, want := slices.Sorted(slices.Values(b.list("r:"+ring))), slices.Sorted(slices.Values(rings[ring]))
			if !slices.Equal(got, want) {
				rt.Fatalf("ring %s has %v, want %v", ring, got, want)
			}
			n := 0
			for _, s := range senders {
				if s == sender {
					n++
				}
			}
			out := b.aside[sender] && b.due["s:"+sender]
			if (n == 1) != (len(want) > 0 && !out) || n > 1 {
				rt.Fatalf("%s stands %d times in the ring of %s, with %d lanes; set aside: %v\n%s", sender, n, kind, len(want), out, m.dump())
			}
		}
	}
}

// nothingLeft checks that nothing outlives its reason, once all mail has ended.
func (m *model) nothingLeft(rt *rapid.T) {
	for range 20 {
		m.dispatchTurns(rt)
		m.lookAll(rt)
		for _, turn := range m.turnsOut {
			m.next(rt, turn, nil)
		}
		m.turnsOut = nil
		if len(m.leftover("ready", "blocked", "looks", "u:", "due", "l:")) == 0 {
			break
		}
		m.pass(m.rate.untilLook(m.server.now))
	}
	m.pass(time.Hour)
	if left := m.leftover("backlog", "ready", "blocked", "units", "looks", "keys", "u:", "w:", "handed:", "due", "l:", "r:", "s:"); len(left) > 0 {
		rt.Fatalf("%v is left\n%s", left, m.dump())
	}
	for range 2 { // batches end with the last of their failed messages
		m.pass(31 * 24 * time.Hour)
		m.must(rt, m.queue.tidy(context.Background()))
	}
	m.sweepAll()
	m.dispatchTurns(rt)
	left := slices.DeleteFunc(m.leftover(""), func(key string) bool {
		if name := strings.TrimPrefix(key, m.queue.prefix); !strings.HasPrefix(name, "k:") {
			return slices.Contains([]string{"provider", "workers", "sends", "audit", "wake", "counts", "senior"}, name)
		}
		fields, _ := m.server.HKeys(key)
		return slices.Equal(fields, []string{"served"})
	})
	if len(left) > 0 {
		rt.Fatalf("a month later %v is left\n%s", left, m.dump())
	}
}

// nothingExpired checks that nothing waits whose time is over, but what somebody requeued after that.
func (m *model) nothingExpired(rt *rapid.T) {
	b := m.read(rt)
	for id, r := range b.records {
		at := r.head[headExpires]
		if batch := m.inBatch[id]; batch != "" {
			at = b.batches[batch]["expires"]
		}
		if stateOf[r.head[headState]] == Queued && at != "" && int64(atoi(at)) <= m.server.now.UnixMilli() && atoi(at) > atoi(r.head[headRequeued]) {
			rt.Fatalf("%s waits, and has expired\n%s", id, m.dump())
		}
	}
}

// leftover lists the keys in Redis of some beginnings.
func (m *model) leftover(beginnings ...string) []string {
	return slices.DeleteFunc(m.server.Keys(), func(key string) bool {
		return !slices.ContainsFunc(beginnings, func(b string) bool { return strings.HasPrefix(key, m.queue.prefix+b) })
	})
}

// dump is all there is in Redis but records and content.
func (m *model) dump() string {
	var b strings.Builder
	for _, key := range m.server.Keys() {
		name := strings.TrimPrefix(key, m.queue.prefix)
		if strings.HasPrefix(name, "c:") || strings.HasPrefix(name, "i:") {
			continue
		}
		fmt.Fprintf(&b, "%s ", name)
		switch m.server.Type(key) {
		case "string":
			v, _ := m.server.Get(key)
			fmt.Fprintf(&b, "%.120q", v)
		case "list":
			v, _ := m.server.List(key)
			fmt.Fprint(&b, v)
		case "set":
			v, _ := m.server.Members(key)
			fmt.Fprintf(&b, "%q", v)
		case "zset":
			v, _ := m.server.SortedSet(key)
			fmt.Fprint(&b, v)
		case "hash":
			fields, _ := m.server.HKeys(key)
			for _, f := range fields {
				fmt.Fprintf(&b, "%s=%q ", f, m.server.HGet(key, f))
			}
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "now %d looks %v turns %v\n", m.server.now.UnixMilli(), m.rate.looks, len(m.turnsOut))
	return b.String()
}
