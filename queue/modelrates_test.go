package queue

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"pgregory.net/rapid"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/throttle"
)

// otherAccount is the limit key of another account than activate's.
const otherAccount = "other.example.com:587"

// rates is what the model knows of limits: a naive ledger of all that was ever sent, and what has been undertaken.
type rates struct {
	active ActiveProvider
	since  map[string]int // how many uses there had been when a limit came to be, or its window became longer
	uses   []*use
	most   map[string]int // units that may be out of a key: more than its concurrency only if that was lowered
	looks  []dueLook

	mu       sync.Mutex
	together atomic.Int32 // calls of next.lua that the next run waits for
	late     []any        // attempts whose outcomes come late, and first in the next run: the model takes them for known
	answer   *nextAnswer  // of the last call
	met      []dueLook    // by calls of next.lua
	hands    []*Turn      // that turns have been given
	handled  []handled    // calls, in the order in which next.lua took them
}

// handled is a call that next.lua took: what it was to settle, if anything, and to begin.
type handled struct {
	key, settles, begins string
	repeated             bool
	answer               *nextAnswer
}

// use is an attempt as a provider may have counted it: at any one moment from its begin to its end.
type use struct {
	attempt *Attempt
	key     string
	cost    throttle.Cost
	ended   int64 // unix ms; 0: it is under way
}

// dueLook is a key that somebody has undertaken to look at.
type dueLook struct {
	key string
	at  time.Time
}

func newRates() *rates {
	r := &rates{since: map[string]int{}, most: map[string]int{}}
	r.together.Store(1)
	return r
}

// settled ends a use; it did not take place if the provider saw nothing.
func (r *rates) settled(a *Attempt, now time.Time, seen bool) {
	r.uses = slices.DeleteFunc(r.uses, func(u *use) bool { return u.attempt == a && !seen })
	for _, u := range r.uses {
		if u.attempt == a {
			u.ended = now.UnixMilli()
		}
	}
}

// began writes a use down, and says which limit was exceeded: in some interval of its window's length, its ends included.
func (r *rates) began(turn *Turn, a *Attempt, now time.Time) string {
	r.uses = append(r.uses, &use{attempt: a, key: turn.key, cost: throttle.Cost{Messages: 1, Requests: 1, Recipients: int64(len(a.Offered))}})
	for scope, limits := range map[string][]throttle.Limit{turn.key: r.active.Limits, throttle.Provider: r.active.AllLimits} {
		for _, l := range limits {
			used := int64(0)
			for _, u := range r.uses[min(r.since[limitID(scope, l)], len(r.uses)):] {
				if (scope == throttle.Provider || u.key == scope) && (u.ended == 0 || u.ended >= now.Add(-l.Window).UnixMilli()) {
					used += u.cost.Of(l.Name)
				}
			}
			if used > l.Max {
				return fmt.Sprintf("%d of %+v of %q", used, l, scope)
			}
		}
	}
	return ""
}

func limitID(scope string, l throttle.Limit) string {
	if scope != throttle.Provider {
		scope = "key"
	}
	return scope + " " + string(l.Name)
}

// untilLook is how long nothing falls due that is known; a minute at most.
func (r *rates) untilLook(now time.Time) time.Duration {
	wait := time.Minute
	for _, l := range r.looks {
		wait = min(wait, max(l.at.Sub(now), time.Millisecond))
	}
	return wait
}

// combine makes the calls of turns in the place of Consumer.combine: as many at once as the model wants.
func (m *model) combine() {
	var waiting []*nextCall
	for {
		select {
		case <-m.hard.Done():
			return
		case call := <-m.calls:
			waiting = append(waiting, call)
		}
		if len(waiting) < int(m.rate.together.Load()) {
			continue
		}
		slices.SortStableFunc(waiting, func(a, b *nextCall) int {
			if late := slices.Contains(m.rate.late, a.args[7]); late != slices.Contains(m.rate.late, b.args[7]) {
				return map[bool]int{true: -1, false: 1}[late]
			}
			return cmp.Compare(fmt.Sprint(a.args[:2]...), fmt.Sprint(b.args[:2]...)) // the same in each run of the same steps
		})
		runs := 1
		if m.wire.twice.Swap(false) {
			runs = 2
		}
		for run := range runs {
			var calls []*nextCall
			for _, w := range waiting {
				calls = append(calls, &nextCall{args: w.args, using: w.using, done: make(chan struct{})})
			}
			m.callAll(m.hard, calls)
			for i, w := range waiting {
				if w.answer, w.err = calls[i].answer, calls[i].err; w.err == nil {
					m.rate.handled = append(m.rate.handled, handled{fmt.Sprint(w.args[0]), fmt.Sprint(w.args[7]), fmt.Sprint(w.args[5]), run > 0, w.answer})
				}
			}
		}
		m.wire.twice.Store(runs == 2)
		m.rate.together.Store(1)
		for _, w := range waiting {
			if w.err == nil {
				m.met(w.answer)
			}
			close(w.done)
		}
		waiting = nil
	}
}

// met notes what a call was told.
func (m *model) met(a *nextAnswer) {
	m.rate.mu.Lock()
	defer m.rate.mu.Unlock()
	m.rate.answer = a
	if a.look >= 0 {
		m.rate.met = append(m.rate.met, dueLook{a.whose, m.server.now.Add(a.look)})
	}
}

// next goes on with a turn, and checks what it begins.
func (m *model) next(rt *rapid.T, turn *Turn, last *Settlement) {
	if last != nil {
		m.nextAll(rt, []*Turn{turn}, []*Settlement{last})
		return
	}
	before := m.waiting()
	want := before.first(m, turn.key)
	m.nextAll(rt, []*Turn{turn}, []*Settlement{nil})
	a, answer := m.open[turn], m.rate.answer
	if m.wire.twice.Load() || answer.stale > 0 || len(answer.ended) > 0 || m.hush.aside[m.senders[want]] {
		return // others stood before it, and are gone
	}
	if want != "" && turn.unit != "" && answer.what == "idle" {
		rt.Fatalf("%s could begin by a turn that is idle", want)
	}
	if a != nil && a.MessageID != want {
		rt.Fatalf("%s begins, but %q is the next of %+v", a.MessageID, want, before)
	}
	if a == nil && answer.what == "limited" {
		if after := m.waiting(); !maps.EqualFunc(after.Lists, before.Lists, slices.Equal) || !maps.Equal(after.served, before.served) {
			rt.Fatalf("a limit has changed the order: %+v, was %+v", *after, *before)
		}
	}
}

// nextAll goes on with several turns, whose calls share a run of next.lua.
func (m *model) nextAll(rt *rapid.T, turns []*Turn, last []*Settlement) {
	r := m.rate
	m.assume(cmp.Or(m.versions[turns[0]], m.process))
	settles := map[string]*Settlement{}
	for _, s := range last {
		if s == nil {
			continue
		}
		settles[s.Attempt.ID] = s
		if r := m.record(rt, s.Attempt.MessageID); r == nil || r.head[headAttempt] != s.Attempt.ID || r.head[headBegun] == "" {
			continue // somebody else decides, and whom it delivered to is all that counts
		}
		for i, o := range s.Outcomes {
			if o.Class == mail.Permanent || s.Held && o.Class == mail.Unknown {
				m.refused[s.Attempt.MessageID][s.Attempt.Offered[i]] = true
			}
		}
	}
	r.handled = nil
	r.together.Store(int32(len(turns)))
	attempts := make([]*Attempt, len(turns))
	var all sync.WaitGroup
	for i, turn := range turns {
		turn.more = func() {
			turn.more = nil
			r.mu.Lock()
			defer r.mu.Unlock()
			r.hands = append(r.hands, turn.hand(), turn.hand())
		}
		all.Go(func() { attempts[i] = turn.Next(last[i]) })
	}
	all.Wait()
	m.quiet(rt, settles)
	r.looks, r.met = append(r.looks, r.met...), nil
	m.turnsOut, r.hands = append(m.turnsOut, r.hands...), nil
	for i, a := range attempts {
		if a == nil {
			continue
		}
		m.began(rt, turns[i], a)
		if exceeded := r.began(turns[i], a, m.server.now); exceeded != "" {
			rt.Fatalf("%s begins, with which there are %s", a.MessageID, exceeded)
		}
		if want := r.keyOf(m.senders[a.MessageID]); turns[i].key != want {
			rt.Fatalf("%s begins in a turn of %s, want %s", a.MessageID, turns[i].key, want)
		}
	}
}

// quiet checks what calls have begun against holds and pauses, in the order in which they were handled. settles are what they had
// to settle.
func (m *model) quiet(rt *rapid.T, settles map[string]*Settlement) {
	now, active, begun := m.server.now.UnixMilli(), m.rate.active, map[string]bool{}
	for _, c := range m.rate.handled {
		if s := settles[c.settles]; s != nil && !c.repeated {
			if end := c.answer.settled; m.former[s.Attempt.ID] && (end == "queued" || end == "failed") {
				rt.Fatalf("%s is %s by an attempt from before it was requeued", s.Attempt.MessageID, end)
			}
			if c.answer.settled != "late" && c.answer.settled != "known" {
				m.hush.settled(s, active, c.key, m.senders[s.Attempt.MessageID], s.Attempt.Version, now)
			} else if !m.gone[s.Attempt.ID] {
				rt.Fatalf("the outcome of %s counts as %s", s.Attempt.MessageID, c.answer.settled)
			}
		}
		switch {
		case c.answer.what == "attempt" && !begun[c.begins]:
			begun[c.begins] = true
			if why := m.hush.began(c.begins, c.key, m.senders[c.answer.message], now); why != "" {
				rt.Fatalf("%s begins, though %s\n%s", c.answer.message, why, m.dump())
			}
		case c.answer.what != "attempt" && begun[c.begins]:
			rt.Fatalf("a call that is made again does not find what it has begun")
		case c.answer.what == "held":
			if !slices.ContainsFunc([]string{c.key, Everything}, func(scope string) bool { return m.hush.silent(scope, now) || m.hush.tried(scope, now) }) {
				rt.Fatalf("%q counts as held\n%s", c.key, m.dump())
			}
		}
	}
}

// keyOf says whose limits bind a sender.
func (r *rates) keyOf(sender string) string {
	if r.active.Keying == ByAccount {
		return r.active.Account
	}
	return cmp.Or(sender, r.active.Sender)
}

// several has calls of turns come at the same moment.
func (m *model) several(rt *rapid.T) {
	var turns []*Turn
	var last []*Settlement
	// They are of one process, and of one message no more than one outcome comes late.
	alike := func(attempts map[*Turn]*Attempt, late bool) map[*Turn]*Attempt {
		some := map[*Turn]*Attempt{}
		for turn, a := range attempts {
			same := len(turns) == 0 || cmp.Or(m.versions[turns[0]], m.process) == m.versions[turn]
			if same && !(late && slices.ContainsFunc(last, func(s *Settlement) bool { return s.Attempt.MessageID == a.MessageID })) {
				some[turn] = a
			}
		}
		return some
	}
	for open := m.open; len(open) > 0 && rapid.IntRange(0, 2).Draw(rt, "settle") > 0; open = alike(m.open, false) {
		turn := m.pick(rt, open)
		if rapid.IntRange(0, 4).Draw(rt, "end") == 0 {
			turn.ends = time.Time{}
		}
		turns, last = append(turns, turn), append(last, m.ended(rt, turn))
	}
	for lost := alike(m.lost, true); len(lost) > 0 && rapid.IntRange(0, 4).Draw(rt, "late") == 0; lost = alike(m.lost, true) {
		turn := m.pick(rt, lost)
		a := m.lost[turn]
		delete(m.lost, turn)
		m.rate.late = append(m.rate.late, a.ID)
		turns, last = append(turns, turn), append(last, m.outcome(rt, a))
	}
	for len(m.turnsOut) > 0 && (len(turns) == 0 || cmp.Or(m.versions[turns[0]], m.process) == m.process) && rapid.IntRange(0, 2).Draw(rt, "begin") > 0 {
		turns, last = append(turns, m.fetch(rt)), append(last, nil)
	}
	if len(turns) == 0 {
		rt.Skip()
	}
	m.nextAll(rt, turns, last)
	m.rate.late = nil
}

func (m *model) dispatchTurns(rt *rapid.T) { m.handOut(rt, "") }

func (m *model) handOut(rt *rapid.T, key string) {
	h, err := m.queue.handOut(context.Background(), key)
	m.must(rt, err)
	for _, t := range h.turns {
		m.turnsOut = append(m.turnsOut, m.run(t))
	}
	for _, l := range h.looks {
		m.rate.looks = append(m.rate.looks, dueLook{l.key, m.server.now.Add(l.in)})
	}
}

// look looks at a key whose time has come.
func (m *model) look(rt *rapid.T) {
	i := slices.IndexFunc(m.rate.looks, func(l dueLook) bool { return !l.at.After(m.server.now) })
	if i < 0 {
		rt.Skip()
	}
	key := m.rate.looks[i].key
	m.rate.looks = slices.Delete(m.rate.looks, i, i+1)
	if key == throttle.Provider || rapid.IntRange(0, 3).Draw(rt, "no hand is free") == 0 {
		m.handOut(rt, key)
		return
	}
	m.turnsOut = append(m.turnsOut, m.run(&Turn{id: token(10), key: key}))
}

// lookAll looks at all keys whose time has come.
func (m *model) lookAll(rt *rapid.T) {
	looks := m.rate.looks
	m.rate.looks = nil
	for i, l := range looks {
		switch {
		case l.at.After(m.server.now):
			m.rate.looks = append(m.rate.looks, l)
		case l.key == throttle.Provider || i%2 == 0:
			m.handOut(rt, l.key)
		default:
			m.turnsOut = append(m.turnsOut, m.run(&Turn{id: token(10), key: l.key}))
		}
	}
}

// provider makes another account, or the mailboxes, the active provider, with limits of its own.
func (m *model) provider(rt *rapid.T) {
	a := &m.rate.active
	a.Keying, a.Account, a.Sender = ByAccount, account, senders[0]
	switch rapid.IntRange(0, 3).Draw(rt, "keying") {
	case 0, 1:
		a.Keying = ByMailbox
	case 2:
		a.Account = otherAccount
	}
	m.limits(rt)
	if rapid.IntRange(0, 3).Draw(rt, "restarted later") > 0 {
		m.restart()
	}
}

// limits changes those of the active provider.
func (m *model) limits(rt *rapid.T) {
	r := m.rate
	before := map[string]throttle.Limit{}
	for scope, limits := range map[string][]throttle.Limit{"": r.active.Limits, throttle.Provider: r.active.AllLimits} {
		for _, l := range limits {
			before[limitID(scope, l)] = l
		}
	}
	r.active.Concurrency = rapid.IntRange(1, 4).Draw(rt, "concurrency")
	r.active.AllConcurrency = rapid.SampledFrom([]int{0, 0, 1, 2, 3}).Draw(rt, "concurrency of all")
	r.active.Limits, r.active.AllLimits = drawLimits(rt, "limits"), drawLimits(rt, "limits of all")
	for scope, limits := range map[string][]throttle.Limit{"": r.active.Limits, throttle.Provider: r.active.AllLimits} {
		for _, l := range limits {
			if b, ok := before[limitID(scope, l)]; !ok || b.Window < l.Window {
				r.since[limitID(scope, l)] = len(r.uses)
			}
		}
	}
	for scope, n := range m.unitsOut() {
		r.most[scope] = n
	}
	version, err := m.queue.DeclareProvider(context.Background(), &r.active, "s", string(r.active.Keying)+r.active.Account, "here")
	m.must(rt, err)
	m.hush.changed(version, r.active, m.server.now.UnixMilli())
}

// restart makes the process one of the active provider's.
func (m *model) restart() { m.process = m.hush.version }

func drawLimits(rt *rapid.T, label string) []throttle.Limit {
	var limits []throttle.Limit
	for _, name := range []throttle.Name{throttle.Messages, throttle.Recipients} {
		if rapid.IntRange(0, 2).Draw(rt, label) == 0 {
			limits = append(limits, throttle.Limit{Name: name, Max: int64(rapid.IntRange(1, 4).Draw(rt, "most")),
				Window: rapid.SampledFrom([]time.Duration{10 * time.Millisecond, 10 * time.Second, time.Minute}).Draw(rt, "window")})
		}
	}
	return limits
}

// unitsOut counts the units that are out of each key, and under "*" of all.
func (m *model) unitsOut() map[string]int {
	out := map[string]int{throttle.Provider: 0}
	for _, key := range m.server.Keys() {
		if name, ok := strings.CutPrefix(key, m.queue.prefix+"u:"); ok {
			units, _ := m.server.HKeys(key)
			out[name] = len(units)
			out[throttle.Provider] += len(units)
		}
	}
	return out
}

// checkLimits checks that no more units are out than may be, and that the books of limits agree with what they have taken.
func (m *model) checkLimits(rt *rapid.T) {
	r, keys := m.rate, []string{}
	for key, n := range m.unitsOut() {
		most := r.active.Concurrency
		if key == throttle.Provider {
			most = cmp.Or(r.active.AllConcurrency, 1000)
		} else {
			keys = append(keys, key)
		}
		if n > max(most, r.most[key]) {
			rt.Fatalf("%d units of %q are out, of %d", n, key, most)
		}
		r.most[key] = n
	}
	members, _ := m.server.Members(m.queue.prefix + "keys")
	if slices.Sort(keys); !slices.Equal(keys, members) {
		rt.Fatalf("units of %v are out, by keys of %v", keys, members)
	}
	taken := map[string][5]int{}
	for _, key := range keys {
		units, _ := m.server.HKeys(m.queue.prefix + "u:" + key)
		for _, unit := range units {
			for _, open := range strings.Split(m.server.HGet(m.queue.prefix+"u:"+key, unit), "\n")[1:] {
				for scope, took := range map[string]string{key: strings.Split(open, "\t")[4], throttle.Provider: strings.Split(open, "\t")[5]} {
					if took == "" {
						continue
					}
					t := taken[scope]
					t[4]++
					for i, n := range strings.Split(took, " ") {
						t[i] += atoi(n)
					}
					taken[scope] = t
				}
			}
		}
	}
	for _, scope := range scopes {
		books := m.queue.prefix + "w:" + scope
		var got [5]int
		for i, name := range append(throttle.Names(), "open") {
			open, _, _ := strings.Cut(m.server.HGet(books, string(name)), " ")
			got[i] = atoi(open)
		}
		if got != taken[scope] {
			rt.Fatalf("the books of %q have %v open, but units took %v", scope, got, taken[scope])
		}
	}
}

// backlog is what waits, as it stands in Redis.
type backlog struct {
	Lists  map[string][]string
	served map[string]int // by key: how often reports and subscriptions have shared
}

func (m *model) waiting() *backlog {
	b := &backlog{Lists: map[string][]string{}, served: map[string]int{}}
	for _, key := range m.server.Keys() {
		name := strings.TrimPrefix(key, m.queue.prefix)
		senders := strings.HasPrefix(name, "s:") && m.rate.active.Keying == ByAccount // else their order has no meaning
		if strings.HasPrefix(name, "l:") || strings.HasPrefix(name, "r:") || senders {
			list, _ := m.server.List(key)
			b.Lists[name] = slices.Clone(list) // it is the server's own
		}
		if of, ok := strings.CutPrefix(name, "k:"); ok {
			if n := atoi(m.server.HGet(key, "served")); n > 0 {
				b.served[of] = n
			}
		}
	}
	return b
}

// first gives the message that is next in order for a key: alerts first; reports and subscriptions by weight; senders in turn,
// batches in turn, what is due again before what is new.
func (b *backlog) first(m *model, key string) string {
	var senders []string
	if m.rate.active.Keying == ByMailbox {
		if senders = []string{key}; key == m.rate.active.Sender {
			senders = append(senders, "-")
		}
	}
	kinds := []string{"a", "r", "s"}
	w := m.queue.options.Weights
	if turn := b.served[key] + 1; turn%(w[mail.Report]+w[mail.Subscription]) >= w[mail.Report] {
		kinds = []string{"a", "s", "r"}
	}
	for _, kind := range kinds {
		order := senders
		if order == nil {
			order = b.Lists["s:"+kind]
		}
		for _, sender := range order {
			ring := b.Lists["r:"+kind+":"+sender]
			if len(ring) == 0 {
				continue
			}
			lane := "l:" + kind + ":" + sender + ":" + ring[0]
			entry := append(slices.Clone(b.Lists[lane+":d"]), b.Lists[lane+":n"]...)[0]
			id, _, _ := strings.Cut(entry, ":")
			return id
		}
	}
	return ""
}
