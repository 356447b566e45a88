package queue

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
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
		m.otherTrouble(rt)
		m.accept(rt)
		m.acceptBatch(rt)
		rt.Repeat(m.actions())
		m.finish(rt)
	})
}

// actions are what befalls the queue. What carries mail on stands there several times, so that it happens more often than the rest;
// what comes first by name happens most often anyway.
func (m *model) actions() map[string]func(*rapid.T) {
	actions := map[string]func(*rapid.T){
		"":               m.check,
		"accept":         m.accept,
		"accept batch":   m.acceptBatch,
		"cancel":         m.cancel,
		"look":           m.look,
		"begin":          m.begin,
		"several":        m.several,
		"end":            m.endTurn,
		"fence":          m.fence,
		"die":            m.die,
		"late outcome":   m.late,
		"another late":   m.late,
		"a while passes": m.timeGoesBy,
		"other limits":   m.limits,
		"other account":  m.provider,
		"trouble":        m.otherTrouble,
		"operator":       m.operator,
		"administrator":  m.administrator,
		"upkeep":         m.upkeep,
		"spoil":          m.spoil,
	}
	for name, action := range map[string]func(*rapid.T){"go on": m.goOn, "settle": m.settle} {
		for i := range 6 {
			actions[fmt.Sprint(name, i)] = action
		}
	}
	return actions
}

// upkeep does what processes do by themselves, or somebody else to them.
func (m *model) upkeep(rt *rapid.T) {
	switch rapid.SampledFrom([]string{"dispatch", "sweep", "tidy", "repair", "restart", "twice or once", "ask"}).Draw(rt, "what") {
	case "dispatch":
		m.dispatchTurns(rt)
	case "sweep":
		m.sweepNow(rt)
	case "tidy":
		m.must(rt, m.queue.tidy(context.Background()))
		m.nothingExpired(rt)
	case "repair":
		m.repairNothing(rt)
	case "restart":
		m.restart()
	case "twice or once":
		m.wire.twice.Store(!m.wire.twice.Load())
	case "ask":
		m.ask(rt)
	}
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

// mostMessages keeps those few that are open at a time, so that more befalls each.
const mostMessages = 6

// senders are those of mail; the first is the provider's own.
var senders = []string{"a@example.com", "b@example.com", "c@example.com"}

// crowded says whether that many are open.
func (m *model) crowded() bool {
	open := 0
	for _, kind := range mail.Kinds() {
		open += atoi(m.server.HGet(m.queue.key("counts"), "open:"+letter(kind)))
	}
	return open > mostMessages
}

// model is a queue with one worker at a time, and what is known of it without looking into Redis.
type model struct {
	file string // that some mail refers to
	*desk
	server *clock
	wire   *wire
	client *redis.Client

	messages []string            // every message that was accepted
	people   map[string]int      // recipients of each
	senders  map[string]string   // of each message
	inBatch  map[string]string   // the batch of each message that has one
	batches  []string            // every batch that was accepted
	given    map[string][]bool   // recipients of each message that a settled attempt delivered to
	refused  map[string][]bool   // and those who refused it for good, or are held, since it was last requeued
	deleted  map[string]bool     // messages that somebody deleted
	turnsOut []*Turn             // handed out, without an attempt
	open     map[*Turn]*Attempt  // attempts under way
	lost     map[*Turn]*Attempt  // attempts that a sweep took for lost
	gone     map[string]bool     // the same by id, also if their outcomes have come since
	former   map[string]bool     // those of them, by id, whose message was requeued since
	underway map[string]*Attempt // the attempt of each message that is under way
	fenced   map[string]bool     // attempts that have passed their point of no return
	process  string              // version of the provider's settings with which the process was started
	versions map[*Turn]string    // the same of the process in which a turn's attempt began
	trouble  trouble             // of the provider
	rate     *rates
	hush     *hush
}

func newModel(t *testing.T, rt *rapid.T) *model {
	server := miniredis.NewMiniRedis()
	if err := server.Start(); err != nil {
		rt.Fatal(err)
	}
	m := &model{server: &clock{Miniredis: server, now: time.Now()}, wire: &wire{},
		people: map[string]int{}, senders: map[string]string{}, inBatch: map[string]string{},
		given: map[string][]bool{}, refused: map[string][]bool{}, deleted: map[string]bool{},
		open: map[*Turn]*Attempt{}, lost: map[*Turn]*Attempt{}, underway: map[string]*Attempt{}, gone: map[string]bool{}, former: map[string]bool{}, fenced: map[string]bool{},
		versions: map[*Turn]string{}, rate: newRates(), hush: newHush()}
	server.SetTime(m.server.now)
	m.client = redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1})
	m.client.AddHook(m.wire)
	q, err := Open(context.Background(), Options{Client: m.client})
	m.must(rt, err)
	c := q.NewConsumer(ConsumerOptions{AttemptTimeout: attemptTime, OnUnknown: map[mail.Kind]UnknownPolicy{mail.Alert: Hold}})
	c.hard, c.stop = context.WithCancel(context.Background())
	c.stopping, c.looks.closed = c.hard, true // the model looks by its own clock
	m.desk = &desk{Consumer: c, t: t}
	m.provider(rt)
	m.restart()
	go m.combine()
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
	shared.From.Address = rapid.SampledFrom(append([]string{""}, senders...)).Draw(rt, "sender")
	if rapid.IntRange(0, 5).Draw(rt, "scheduled") == 0 {
		shared.SendAt = m.server.now.Add(time.Minute)
	}
	if rapid.IntRange(0, 5).Draw(rt, "expires") == 0 {
		shared.ExpiresAt = m.server.now.Add(2 * time.Minute)
	}
	shared.Attachments = m.refer(rt)
}

// refer gives now and then a file that is stored; it is empty, so that it takes nothing of the limits.
func (m *model) refer(rt *rapid.T) []mail.Attachment {
	if rapid.IntRange(0, 2).Draw(rt, "refers") > 0 {
		return nil
	}
	if _, err := m.queue.Content(context.Background(), m.file); errors.Is(err, ErrNotFound) {
		c, err := m.queue.StoreContent(context.Background(), "a.txt", "", strings.NewReader(""))
		m.must(rt, err)
		m.file = c.ID
	}
	return []mail.Attachment{{Ref: m.file}}
}

func (m *model) accepted(id, sender, batch string, people int) {
	m.messages = append(m.messages, id)
	m.people[id], m.senders[id], m.inBatch[id] = people, sender, batch
	m.given[id], m.refused[id] = make([]bool, people), make([]bool, people)
}

func (m *model) accept(rt *rapid.T) {
	if m.crowded() {
		rt.Skip()
	}
	one := to(mail.Report, "0@example.net", "1@example.net", "2@example.net")
	one.To = one.To[:rapid.IntRange(1, 3).Draw(rt, "recipients")]
	m.draw(rt, &one)
	r, err := m.queue.Enqueue(context.Background(), one)
	if invalid := (*mail.Invalid)(nil); errors.As(err, &invalid) {
		return // it takes more than a limit has
	}
	m.must(rt, err)
	m.accepted(r.ID, one.From.Address, "", len(one.To))
}

func (m *model) acceptBatch(rt *rapid.T) {
	if m.crowded() {
		rt.Skip()
	}
	b := batch(mail.Report, rapid.IntRange(1, 4).Draw(rt, "size"))
	if rapid.Bool().Draw(rt, "copied") {
		b.Message.Cc = []mail.Address{{Address: "copy@example.net"}}
	}
	m.draw(rt, &b.Message)
	for i := range b.Recipients {
		b.Recipients[i].Attachments = m.refer(rt)
	}
	r, err := m.queue.EnqueueBatch(context.Background(), b)
	if invalid := (*mail.Invalid)(nil); errors.As(err, &invalid) {
		return // each takes more than a limit has
	}
	m.must(rt, err)
	m.batches = append(m.batches, r.ID)
	for _, id := range r.IDs {
		if id != "" {
			m.accepted(id, b.Message.From.Address, r.ID, 1+len(b.Message.Cc))
		}
	}
}

func (m *model) cancel(rt *rapid.T) {
	if len(m.messages) == 0 || rapid.IntRange(0, 2).Draw(rt, "seldom") > 0 {
		rt.Skip()
	}
	if len(m.batches) > 0 && rapid.Bool().Draw(rt, "a batch") {
		m.cancelBatch(rt)
		return
	}
	if rapid.Bool().Draw(rt, "a selection") {
		m.cancelSelection(rt)
		return
	}
	id := rapid.SampledFrom(m.messages).Draw(rt, "message")
	err := m.queue.CancelMessage(context.Background(), id)
	if err != nil && err != ErrTooLate && (err != ErrNotFound || !m.deleted[id]) {
		rt.Fatal(err)
	}
}

// cancelSelection cancels what a filter selects, all in one step.
func (m *model) cancelSelection(rt *rapid.T) {
	var f MessageFilter
	fits := func(string, *record) bool { return true }
	switch rapid.SampledFrom([]string{"", "kind", "mailbox", "batch"}).Draw(rt, "by") {
	case "kind":
		f.Kind = rapid.SampledFrom(mail.Kinds()).Draw(rt, "kind")
		fits = func(_ string, r *record) bool { return kindOf[r.head[headKind]] == f.Kind }
	case "mailbox":
		f.Mailbox = rapid.SampledFrom(senders).Draw(rt, "mailbox")
		fits = func(id string, _ *record) bool { return cmp.Or(m.senders[id], m.rate.active.Sender) == f.Mailbox }
	case "batch":
		if len(m.batches) == 0 {
			rt.Skip()
		}
		f.BatchID = rapid.SampledFrom(m.batches).Draw(rt, "batch")
		fits = func(id string, _ *record) bool { return m.inBatch[id] == f.BatchID }
	}
	done, late := 0, 0
	for _, id := range m.messages {
		r := m.record(rt, id)
		if r == nil || !fits(id, r) {
			continue
		}
		switch stateOf[r.head[headState]] {
		case Queued:
			done++
		case Sending:
			late++
		}
	}
	dry := rapid.IntRange(0, 3).Draw(rt, "dry") == 0
	// Its time is Redis's, and ids are made by the clock of this machine.
	cursor := milli(time.Now().AddDate(100, 0, 0)) + "-" + map[bool]string{true: "n0", false: "s.0"}[f.BatchID != ""]
	step, err := m.queue.CancelMessages(context.Background(), f, SelectionOptions{DryRun: dry, Cursor: cursor})
	m.must(rt, err)
	if step.Done != done || step.TooLate != late || step.Next != "" {
		rt.Fatalf("%+v of %+v, want %d and %d too late", step, f, done, late)
	}
}

func (m *model) cancelBatch(rt *rapid.T) {
	id := rapid.SampledFrom(m.batches).Draw(rt, "batch")
	if rapid.Bool().Draw(rt, "half") {
		m.must(rt, m.queue.run(context.Background(), "cancel_batch", id, 1000).Err())
	} else {
		m.must(rt, m.queue.CancelBatch(context.Background(), id))
	}
}

// began checks an attempt that has begun.
func (m *model) began(rt *rapid.T, turn *Turn, a *Attempt) {
	if other := m.underway[a.MessageID]; other != nil {
		rt.Fatalf("%s begins while another attempt of it is under way", a.MessageID)
	}
	if len(a.Offered) == 0 {
		rt.Fatalf("%s begins with nobody to offer it to", a.MessageID)
	}
	for i, given := range m.given[a.MessageID] {
		if refused := m.refused[a.MessageID][i]; slices.Contains(a.Offered, i) == (given || refused) {
			rt.Fatalf("%s is offered to %v, and recipient %d: delivered %v, refused %v", a.MessageID, a.Offered, i, given, refused)
		}
	}
	if m.people[a.MessageID] != len(a.Message.Recipients()) {
		rt.Fatalf("%s has %d recipients, want %d", a.MessageID, len(a.Message.Recipients()), m.people[a.MessageID])
	}
	m.open[turn], m.underway[a.MessageID], m.versions[turn] = a, a, m.settings.current().version
}

func (m *model) begin(rt *rapid.T) {
	m.next(rt, m.fetch(rt), nil)
}

// goOn hands turns out, and begins some.
func (m *model) goOn(rt *rapid.T) {
	m.dispatchTurns(rt)
	m.lookAll(rt)
	if len(m.turnsOut) == 0 {
		rt.Skip()
	}
	for len(m.turnsOut) > 0 && rapid.IntRange(0, 4).Draw(rt, "begin") > 0 {
		m.check(rt)
		m.begin(rt)
	}
}

// fetch takes the first turn that was handed out, as asynq would.
func (m *model) fetch(rt *rapid.T) *Turn {
	if len(m.turnsOut) == 0 {
		rt.Skip()
	}
	turn := m.turnsOut[0]
	m.turnsOut = m.turnsOut[1:]
	if turn.unit != "" && rapid.IntRange(0, 9).Draw(rt, "run twice by asynq") == 0 {
		m.turnsOut = append(m.turnsOut, m.run(turn))
	}
	return turn
}

// outcome draws what an attempt came to, and notes whom it delivered to.
func (m *model) outcome(rt *rapid.T, a *Attempt) *Settlement {
	verdict := rapid.SampledFrom([]Verdict{Done, Done, Done, GiveUp, Again, Again, Back}).Draw(rt, "verdict")
	refused := verdict != Back && m.trouble.meets(m.senders[a.MessageID]) && rapid.IntRange(0, 4).Draw(rt, "refused") > 0
	if refused {
		verdict = Back
	}
	letters := map[Verdict][]string{Done: {"d"}, GiveUp: {"d", "x"}, Again: {"d", "x", "t", "u"}, Back: {"h", "d", "x"}}[verdict]
	var all strings.Builder
	for range a.Offered {
		all.WriteString(rapid.SampledFrom(letters).Draw(rt, "outcome"))
	}
	s := outcomes(a, verdict, all.String())
	s.Held = strings.Contains(all.String(), "u")
	s.Class = map[Verdict]mail.Class{Done: mail.Delivered, GiveUp: mail.Permanent, Again: mail.Temporary, Back: mail.Throttled}[verdict]
	switch {
	case verdict == Again:
		s.Delay = rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute}).Draw(rt, "delay")
	case refused:
		m.trouble.refuse(rt, s)
	case verdict == Back && rapid.Bool().Draw(rt, "stopped"):
		s.Outcomes = nil
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
	m.next(rt, turn, m.ended(rt, turn))
}

// ended draws what the attempt of a turn came to.
func (m *model) ended(rt *rapid.T, turn *Turn) *Settlement {
	a := m.open[turn]
	delete(m.open, turn)
	delete(m.underway, a.MessageID)
	s := m.outcome(rt, a)
	m.rate.settled(a, m.server.now, s.Outcomes != nil && !s.Unused)
	return s
}

func (m *model) endTurn(rt *rapid.T) {
	turn := m.pick(rt, m.open)
	turn.ends = time.Time{}
	m.next(rt, turn, m.ended(rt, turn))
}

// die ends the worker with all it has under way; another takes its place, and sweeps.
func (m *model) die(rt *rapid.T) {
	if len(m.open) == 0 {
		rt.Skip()
	}
	m.dies()
	m.renew()
	m.sweepAll()
	m.swept(rt, func(*Attempt) bool { return true })
	m.turnsOut, m.rate.looks = nil, nil
	for _, key := range scopes[1:] {
		units := m.queue.redis.HGetAll(context.Background(), m.queue.key("u:", key)).Val()
		for _, unit := range slices.Sorted(maps.Keys(units)) {
			id, _, _ := strings.Cut(units[unit], "\t")
			m.turnsOut = append(m.turnsOut, m.run(&Turn{id: id, key: key, unit: unit}))
		}
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

// sweepNow ends attempts that have passed their deadline.
func (m *model) sweepNow(rt *rapid.T) {
	m.sweepAll()
	m.swept(rt, func(a *Attempt) bool { return a.Now.Add(attemptTime).Before(m.server.now.Truncate(time.Millisecond)) })
}

func (m *model) timeGoesBy(rt *rapid.T) {
	times := []time.Duration{m.rate.untilLook(m.server.now), time.Millisecond, time.Second, 10 * time.Second, 30 * time.Second, 2 * attemptTime}
	m.pass(rapid.SampledFrom(times).Draw(rt, "time"))
}

// pass lets time go by, for what expires too.
func (m *model) pass(d time.Duration) {
	m.server.advance(d)
	m.server.FastForward(d)
	m.renewNow()
}

// renewNow keeps the lease of the worker, which runs by Redis's time.
func (m *model) renewNow() {
	m.queue.redis.HSet(context.Background(), m.queue.key("workers"), m.lease.Load().worker, m.server.now.UnixMilli())
}

// finish delivers what is left, and looks whether everybody got everything.
func (m *model) finish(rt *rapid.T) {
	m.restart()
	for range 400 {
		if counts, err := m.queue.Counts(context.Background()); err != nil {
			rt.Fatal(err)
		} else if counts.Open[mail.Alert]+counts.Open[mail.Report]+counts.Open[mail.Subscription] == 0 {
			break
		}
		m.dispatchTurns(rt)
		m.lookAll(rt)
		if len(m.turnsOut)+len(m.open) == 0 {
			m.pass(m.rate.untilLook(m.server.now))
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
			m.rate.settled(a, m.server.now, true)
			m.next(rt, turn, s)
		}
	}
	m.compare(rt, true)
	for _, id := range m.messages {
		s, err := m.queue.Message(context.Background(), id)
		if m.deleted[id] && err == ErrNotFound {
			continue
		}
		m.must(rt, err)
		if s.State == Queued || s.State == Sending {
			rt.Fatalf("%s is %s for ever\n%s", id, s.State, m.dump())
		}
		if s.State == Delivered && slices.Contains(m.given[id], false) {
			rt.Fatalf("%s counts as delivered, but recipients got nothing: %v", id, m.given[id])
		}
	}
	m.nothingLeft(rt)
}
