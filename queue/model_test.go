package queue

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/postroom/postroom/mail"
)

// TestBooksStayRight lets random producers, operators and workers loose on a queue, some of whom die, and checks after each
// step that the books agree with each other and with what was done. Longer: go test -run BooksStayRight -rapid.checks=10000.
func TestBooksStayRight(t *testing.T) {
	few(t)
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(t, rt)
		defer m.close()
		rt.Repeat(map[string]func(*rapid.T){
			"":              m.check,
			"accept":        m.accept,
			"accept batch":  m.acceptBatch,
			"cancel":        m.cancel,
			"cancel batch":  m.cancelBatch,
			"dispatch":      m.dispatchTurns,
			"begin":         m.begin,
			"settle":        m.settle,
			"end":           m.endTurn,
			"die":           m.die,
			"late outcome":  m.late,
			"another late":  m.late,
			"time goes by":  m.timeGoesBy,
			"other limits":  m.provider,
			"sweep":         func(*rapid.T) { m.sweepAll() },
			"tidy":          func(rt *rapid.T) { m.must(rt, m.queue.tidy(context.Background())) },
			"twice or once": func(*rapid.T) { m.wire.twice.Store(!m.wire.twice.Load()) },
		})
		m.finish(rt)
	})
}

// few keeps the number of random runs small, unless one was asked for.
func few(t *testing.T) {
	const name = "rapid.checks"
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == name })
	if asked {
		return
	}
	usual := flag.Lookup(name).Value.String()
	if err := flag.Set(name, "25"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = flag.Set(name, usual) })
}

// mostMessages keeps the messages of a run few, so that more befalls each.
const mostMessages = 6

// model is a queue with one worker at a time, and what is known of it without looking into Redis.
type model struct {
	*desk
	server *clock
	wire   *wire
	client *redis.Client

	messages []string            // every message that was accepted
	people   map[string]int      // recipients of each
	batches  []string            // every batch that was accepted
	given    map[string][]bool   // recipients of each message that a settled attempt delivered to
	turnsOut []*Turn             // handed out, without an attempt
	open     map[*Turn]*Attempt  // attempts under way
	lost     map[*Turn]*Attempt  // attempts of workers that died
	underway map[string]*Attempt // the attempt of each message that is under way
}

func newModel(t *testing.T, rt *rapid.T) *model {
	server := miniredis.NewMiniRedis()
	if err := server.Start(); err != nil {
		rt.Fatal(err)
	}
	m := &model{server: &clock{Miniredis: server, now: time.Now()}, wire: &wire{}, people: map[string]int{}, given: map[string][]bool{},
		open: map[*Turn]*Attempt{}, lost: map[*Turn]*Attempt{}, underway: map[string]*Attempt{}}
	server.SetTime(m.server.now)
	m.client = redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1})
	m.client.AddHook(m.wire)
	q, err := Open(context.Background(), Options{Client: m.client})
	m.must(rt, err)
	version, err := q.SetProvider(context.Background(), ActiveProvider{Keying: ByAccount, Account: account, Concurrency: 2}, "s", "f")
	m.must(rt, err)
	c := q.NewConsumer(ConsumerOptions{ProviderVersion: version, OnUnknown: map[mail.Kind]UnknownPolicy{mail.Alert: Hold}})
	c.hard, c.stop = context.WithCancel(context.Background())
	c.stopping = c.hard
	go c.combine(c.hard)
	m.desk = &desk{Consumer: c, t: t}
	m.renew()
	return m
}

func (m *model) close() {
	m.stop()
	_ = m.client.Close()
	m.server.Close()
}

func (*model) must(rt *rapid.T, err error) {
	rt.Helper()
	if err != nil {
		rt.Fatal(err)
	}
}

func (m *model) draw(rt *rapid.T, shared *mail.Message) {
	shared.Kind = rapid.SampledFrom(mail.Kinds()).Draw(rt, "kind")
	shared.From.Address = rapid.SampledFrom([]string{"", "a@example.com", "b@example.com"}).Draw(rt, "sender")
	if rapid.IntRange(0, 3).Draw(rt, "scheduled") == 0 {
		shared.SendAt = m.server.now.Add(time.Minute)
	}
	if rapid.IntRange(0, 3).Draw(rt, "expires") == 0 {
		shared.ExpiresAt = m.server.now.Add(2 * time.Minute)
	}
}

func (m *model) accepted(id string, people int) {
	m.messages = append(m.messages, id)
	m.people[id], m.given[id] = people, make([]bool, people)
}

func (m *model) accept(rt *rapid.T) {
	if len(m.messages) > mostMessages {
		rt.Skip()
	}
	one := to(mail.Report, "0@example.net", "1@example.net", "2@example.net")
	one.To = one.To[:rapid.IntRange(1, 3).Draw(rt, "recipients")]
	m.draw(rt, &one)
	r, err := m.queue.Enqueue(context.Background(), one)
	m.must(rt, err)
	m.accepted(r.ID, len(one.To))
}

func (m *model) acceptBatch(rt *rapid.T) {
	if len(m.messages) > mostMessages {
		rt.Skip()
	}
	b := batch(mail.Report, rapid.IntRange(1, 4).Draw(rt, "size"))
	if rapid.Bool().Draw(rt, "copied") {
		b.Message.Cc = []mail.Address{{Address: "copy@example.net"}}
	}
	m.draw(rt, &b.Message)
	r, err := m.queue.EnqueueBatch(context.Background(), b)
	m.must(rt, err)
	m.batches = append(m.batches, r.ID)
	for _, id := range r.IDs {
		m.accepted(id, 1+len(b.Message.Cc))
	}
}

func (m *model) cancel(rt *rapid.T) {
	if len(m.messages) == 0 {
		rt.Skip()
	}
	err := m.queue.CancelMessage(context.Background(), rapid.SampledFrom(m.messages).Draw(rt, "message"))
	if err != nil && err != ErrTooLate {
		rt.Fatal(err)
	}
}

func (m *model) cancelBatch(rt *rapid.T) {
	if len(m.batches) == 0 || rapid.IntRange(0, 2).Draw(rt, "seldom") > 0 {
		rt.Skip()
	}
	id := rapid.SampledFrom(m.batches).Draw(rt, "batch")
	if rapid.Bool().Draw(rt, "half") {
		m.must(rt, m.queue.run(context.Background(), "cancel_batch", id, 1000).Err())
	} else {
		m.must(rt, m.queue.CancelBatch(context.Background(), id))
	}
}

func (m *model) dispatchTurns(*rapid.T) { m.turnsOut = append(m.turnsOut, m.turns()...) }

// next goes on with a turn, and checks what it begins.
func (m *model) next(rt *rapid.T, turn *Turn, last *Settlement) {
	a := turn.Next(last)
	if a == nil {
		return
	}
	if other := m.underway[a.MessageID]; other != nil {
		rt.Fatalf("%s begins while another attempt of it is under way", a.MessageID)
	}
	if len(a.Offered) == 0 {
		rt.Fatalf("%s begins with nobody to offer it to", a.MessageID)
	}
	for _, i := range a.Offered {
		if m.given[a.MessageID][i] {
			rt.Fatalf("recipient %d of %s is offered again, although it was delivered", i, a.MessageID)
		}
	}
	if m.people[a.MessageID] != len(a.Message.Recipients()) {
		rt.Fatalf("%s has %d recipients, want %d", a.MessageID, len(a.Message.Recipients()), m.people[a.MessageID])
	}
	m.open[turn], m.underway[a.MessageID] = a, a
}

func (m *model) begin(rt *rapid.T) {
	if len(m.turnsOut) == 0 {
		rt.Skip()
	}
	turn := m.turnsOut[0]
	m.turnsOut = m.turnsOut[1:]
	if rapid.IntRange(0, 9).Draw(rt, "run twice by asynq") == 0 {
		m.turnsOut = append(m.turnsOut, m.run(turn))
	}
	m.next(rt, turn, nil)
}

// outcome draws what an attempt came to, and notes whom it delivered to.
func (m *model) outcome(rt *rapid.T, a *Attempt) *Settlement {
	verdict := rapid.SampledFrom([]Verdict{Done, Done, Done, GiveUp, Again, Again, Back}).Draw(rt, "verdict")
	letters := map[Verdict][]string{Done: {"d"}, GiveUp: {"d", "x"}, Again: {"d", "x", "t"}, Back: {"d", "h"}}[verdict]
	var all strings.Builder
	for range a.Offered {
		all.WriteString(rapid.SampledFrom(letters).Draw(rt, "outcome"))
	}
	s := outcomes(a, verdict, all.String())
	s.Class = map[Verdict]mail.Class{Done: mail.Delivered, GiveUp: mail.Permanent, Again: mail.Temporary, Back: mail.Throttled}[verdict]
	switch verdict {
	case Again:
		s.Delay = rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute}).Draw(rt, "delay")
	case Back:
		if rapid.IntRange(0, 3).Draw(rt, "stopped") == 0 {
			s.Outcomes = nil
		}
		s.Hold, s.Reason = rapid.SampledFrom([]time.Duration{0, 10 * time.Second}).Draw(rt, "hold"), "throttled"
		s.HoldMax = rapid.SampledFrom([]time.Duration{0, time.Minute}).Draw(rt, "longest")
	}
	for i, o := range s.Outcomes {
		if o.Class == mail.Delivered {
			m.given[a.MessageID][a.Offered[i]] = true
		}
	}
	return s
}

// pick draws one of the attempts.
func (m *model) pick(rt *rapid.T, attempts map[*Turn]*Attempt) *Turn {
	if len(attempts) == 0 {
		rt.Skip()
	}
	turns := slices.SortedFunc(maps.Keys(attempts), func(a, b *Turn) int { return m.order(attempts[a]) - m.order(attempts[b]) })
	return turns[rapid.IntRange(0, len(turns)-1).Draw(rt, "attempt")]
}

// order is the same in each run of the same steps, as ids are not.
func (m *model) order(a *Attempt) int { return 100*slices.Index(m.messages, a.MessageID) + a.Counted }

func (m *model) settle(rt *rapid.T) {
	turn := m.pick(rt, m.open)
	a := m.open[turn]
	delete(m.open, turn)
	delete(m.underway, a.MessageID)
	m.next(rt, turn, m.outcome(rt, a))
}

func (m *model) endTurn(rt *rapid.T) {
	turn := m.pick(rt, m.open)
	turn.ends = time.Time{}
	m.settle(rt)
}

// die ends the worker with all it has under way; another takes its place, and sweeps.
func (m *model) die(rt *rapid.T) {
	if len(m.open) == 0 {
		rt.Skip()
	}
	m.dies()
	m.renew()
	m.sweepAll()
	for turn, a := range m.open {
		m.lost[turn] = a
		delete(m.underway, a.MessageID)
	}
	clear(m.open)
	m.turnsOut = nil
	for unit, value := range m.queue.redis.HGetAll(context.Background(), m.queue.key("u:", account)).Val() {
		id, _, _ := strings.Cut(value, "\t")
		m.turnsOut = append(m.turnsOut, m.run(&Turn{id: id, key: account, unit: unit}))
	}
	if rapid.Bool().Draw(rt, "others go on at once") {
		m.dispatchTurns(rt)
		for len(m.turnsOut) > 0 {
			m.begin(rt)
		}
	}
}

// late offers the outcome of an attempt whose worker was taken for dead.
func (m *model) late(rt *rapid.T) {
	turn := m.pick(rt, m.lost)
	a := m.lost[turn]
	delete(m.lost, turn)
	m.next(rt, turn, m.outcome(rt, a))
}

func (m *model) timeGoesBy(rt *rapid.T) {
	m.server.advance(rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, 30 * time.Second}).Draw(rt, "time"))
	m.renewNow()
}

// renewNow keeps the lease of the worker, which runs by Redis's time.
func (m *model) renewNow() {
	m.queue.redis.HSet(context.Background(), m.queue.key("workers"), m.lease.Load().worker, m.server.now.UnixMilli())
}

func (m *model) provider(rt *rapid.T) {
	n := rapid.IntRange(1, 4).Draw(rt, "concurrency")
	version, err := m.queue.SetProvider(context.Background(), ActiveProvider{Keying: ByAccount, Account: account, Concurrency: n}, "s", fmt.Sprint(n))
	m.must(rt, err)
	m.options.ProviderVersion = version // as a process that was started again
}

// finish delivers what is left, and looks whether everybody got everything.
func (m *model) finish(rt *rapid.T) {
	for range 100 {
		m.dispatchTurns(rt)
		if len(m.turnsOut)+len(m.open) == 0 {
			m.server.advance(time.Minute)
			m.renewNow()
		}
		for len(m.turnsOut) > 0 {
			turn := m.turnsOut[0]
			m.turnsOut = m.turnsOut[1:]
			m.next(rt, turn, nil)
		}
		for turn, a := range m.open {
			delete(m.open, turn)
			delete(m.underway, a.MessageID)
			s := delivered(a)
			if a.Refused() {
				s.Verdict, s.Class = GiveUp, mail.Permanent
			}
			for _, i := range a.Offered {
				m.given[a.MessageID][i] = true
			}
			m.next(rt, turn, s)
		}
		if counts, err := m.queue.Counts(context.Background()); err != nil {
			rt.Fatal(err)
		} else if counts.Open[mail.Alert]+counts.Open[mail.Report]+counts.Open[mail.Subscription] == 0 {
			break
		}
	}
	m.check(rt)
	for _, id := range m.messages {
		s, err := m.queue.Message(context.Background(), id)
		m.must(rt, err)
		if s.State == Queued || s.State == Sending {
			rt.Fatalf("%s is %s for ever", id, s.State)
		}
		if s.State == Delivered && slices.Contains(m.given[id], false) {
			rt.Fatalf("%s counts as delivered, but recipients got nothing: %v", id, m.given[id])
		}
	}
}

// books is what is in Redis.
type books struct {
	server  *miniredis.Miniredis
	prefix  string
	records map[string]*record
	batches map[string]map[string]string
	lanes   map[string][]string // "kind:sender:batch" and its entries
	due     map[string]bool
	units   map[string][]string // what is out, by message
}

func (m *model) read(rt *rapid.T) *books {
	b := &books{server: m.server.Miniredis, prefix: m.queue.prefix, records: map[string]*record{}, batches: map[string]map[string]string{},
		lanes: map[string][]string{}, due: map[string]bool{}, units: map[string][]string{}}
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
		case "u":
			units, _ := m.server.HKeys(key)
			for _, unit := range units {
				for _, open := range strings.Split(m.server.HGet(key, unit), "\n")[1:] {
					f := strings.Split(open, "\t")
					b.units[f[1]] = append(b.units[f[1]], f[0])
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
func (m *model) check(rt *rapid.T) {
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
		if r == nil {
			rt.Fatalf("%s has no record", id)
		}
		state, batch, h := stateOf[r.head[headState]], r.head[headBatch], r.head
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
		if batchStates[batch] == nil {
			batchStates[batch] = map[string]int{}
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
		s, err := m.queue.Batch(context.Background(), id)
		m.must(rt, err)
		if s.Open != batchOpen[id] || s.Delivered != batchStates[id]["d"] || s.Total != s.Open+s.Delivered+s.Failed+s.Cancelled+s.Expired {
			rt.Fatalf("batch %s: %+v, want %d open, %v", id, s, batchOpen[id], batchStates[id])
		}
	}
	fields, _ := b.server.HKeys(b.prefix + "counts")
	for _, name := range append(fields, slices.Collect(maps.Keys(want))...) {
		if b.count(name) != want[name] {
			rt.Fatalf("%s is counted as %d, want %d", name, b.count(name), want[name])
		}
	}
	m.checkRings(rt, b)
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
	rings := map[string][]string{}
	for lane := range b.lanes {
		kind, rest, _ := strings.Cut(lane, ":")
		sender, batch, _ := strings.Cut(rest, ":")
		if !b.due["b:"+batch] {
			rings[kind+":"+sender] = append(rings[kind+":"+sender], batch)
		}
	}
	for _, kind := range []string{"a", "r", "s"} {
		senders := b.list("s:" + kind)
		for _, sender := range []string{"-", "a@example.com", "b@example.com"} {
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
			if (n == 1) != (len(want) > 0) || n > 1 {
				rt.Fatalf("%s stands %d times in the ring of %s, with %d lanes", sender, n, kind, len(want))
			}
		}
	}
	out, _ := b.server.HKeys(b.prefix + "u:" + account)
	for _, unit := range out {
		if n, err := strconv.Atoi(unit); err != nil || n < 0 || n > 3 {
			rt.Fatalf("unit %q is out", unit)
		}
	}
	keys, _ := b.server.Members(b.prefix + "keys")
	if (len(keys) == 1) != (len(out) > 0) {
		rt.Fatalf("keys %v with %d units out", keys, len(out))
	}
}
