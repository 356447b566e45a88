package queue

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/throttle"
)

// limit gives a limit in a minute.
func limit(name throttle.Name, most int64) []throttle.Limit {
	return []throttle.Limit{{Name: name, Max: most, Window: time.Minute}}
}

// choose makes an account, or the mailboxes, the active provider.
func choose(t *testing.T, q *Queue, p ActiveProvider) string {
	t.Helper()
	p.Account, p.Sender = account, "reports@example.com"
	if p.Keying == "" {
		p.Keying = ByAccount
	}
	version, err := declare(t, q, p, "salt", "of "+string(p.Keying))
	if err != nil {
		t.Fatal(err)
	}
	return version
}

// flagged dispatches what was flagged, and nothing else.
func (d *desk) flagged() []*Turn {
	d.t.Helper()
	h, err := d.queue.handOut(d.t.Context(), "")
	if err != nil {
		d.t.Fatal(err)
	}
	var turns []*Turn
	for _, t := range h.turns {
		turns = append(turns, d.run(t))
	}
	return turns
}

// look gives the turn of a look at the account.
func (d *desk) look() *Turn { return d.run(&Turn{id: token(10), key: account}) }

// lookAll looks at each key whose time has come, and dispatches what was flagged.
func (d *desk) lookAll(c *clock) []*Turn {
	d.t.Helper()
	var turns []*Turn
	by := &redis.ZRangeBy{Min: "-inf", Max: fmt.Sprint(c.now.UnixMilli())}
	for _, key := range d.queue.redis.ZRangeByScore(d.t.Context(), d.queue.key("looks"), by).Val() {
		if key != throttle.Provider {
			turns = append(turns, d.run(&Turn{id: token(10), key: key}))
			continue
		}
		h, err := d.queue.handOut(d.t.Context(), key)
		if err != nil {
			d.t.Fatal(err)
		}
		for _, t := range h.turns {
			turns = append(turns, d.run(t))
		}
	}
	return append(turns, d.flagged()...)
}

// ask makes a turn's next call, and gives what next.lua says.
func (d *desk) ask(turn *Turn, last *Settlement) *nextAnswer {
	d.t.Helper()
	answer, err := turn.call(last, d.lease.Load(), d.settings.current(), token(12))
	if err != nil {
		d.t.Fatal(err)
	}
	return answer
}

// lists gives the backlog as it stands.
func lists(t *testing.T, q *Queue, prefixes ...string) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, prefix := range prefixes {
		for _, key := range q.redis.Keys(t.Context(), q.key(prefix)+"*").Val() {
			all[key] = q.redis.LRange(t.Context(), key, 0, -1).Val()
		}
	}
	return all
}

// begin begins a turn's next attempt.
func begin(t *testing.T, turn *Turn, last *Settlement) *Attempt {
	t.Helper()
	a := turn.Next(last)
	if a == nil {
		t.Fatal("nothing began")
	}
	return a
}

func TestALimitEndsATurnAndSaysWhen(t *testing.T) {
	for scope, p := range map[string]ActiveProvider{
		account:           {Concurrency: 2, Limits: limit(throttle.Messages, 2)},
		throttle.Provider: {Concurrency: 2, AllLimits: limit(throttle.Messages, 2)},
	} {
		q, c := onClock(t)
		d := sitDown(t, q, choose(t, q, p), nil)
		enqueueBatch(t, q, batch(mail.Report, 3))
		turn := d.turns()[0]
		a := begin(t, turn, nil)
		c.advance(5 * time.Second)
		a = begin(t, turn, delivered(a))
		c.advance(5 * time.Second)
		answer := d.ask(turn, delivered(a))
		// The first was stamped after 5 s, and counts in every interval of a minute that begins by then.
		if answer.what != "limited" || answer.limit != "messages" || answer.whose != scope || answer.look != 55*time.Second+time.Millisecond {
			t.Errorf("%s: %+v", scope, answer)
		}
	}
}

func TestALookBeginsWhenThereIsRoomAndNotBefore(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, choose(t, q, ActiveProvider{Concurrency: 2, Limits: limit(throttle.Messages, 1)}), nil)
	b := enqueueBatch(t, q, batch(mail.Report, 2))
	turn := d.turn()
	if turn.Next(delivered(begin(t, turn, nil))) != nil {
		t.Fatal("a second began at once")
	}
	c.advance(time.Minute)
	if d.look().Next(nil) != nil || len(d.flagged()) != 0 {
		t.Error("the second began in the first one's minute")
	}
	c.advance(time.Millisecond)
	if a := d.look().Next(nil); a == nil || a.MessageID != b.IDs[1] {
		t.Errorf("after the minute began %+v", a)
	}
}

func TestWhatWasNotUsedIsGivenBack(t *testing.T) {
	for name, unused := range map[string]func(*Attempt) *Settlement{
		"handed back":    func(a *Attempt) *Settlement { return &Settlement{Attempt: a, Verdict: Back, Class: mail.Temporary} },
		"never connects": func(a *Attempt) *Settlement { s := outcomes(a, Back, "tt"); s.Unused = true; return s },
	} {
		q, _ := onClock(t)
		p := ActiveProvider{Concurrency: 1, Limits: limit(throttle.Recipients, 2), AllLimits: limit(throttle.Messages, 1)}
		d := sitDown(t, q, choose(t, q, p), nil)
		id := enqueue(t, q, to(mail.Report, "ada@example.net", "bob@example.net"))
		turn := d.turn()
		if a := turn.Next(unused(begin(t, turn, nil))); a == nil || a.MessageID != id {
			t.Errorf("%s: it does not begin again", name)
		}
	}
}

func TestATakeOfAKilledWorkerCountsFromTheSweepOn(t *testing.T) {
	q, c := onClock(t)
	version := choose(t, q, ActiveProvider{Concurrency: 1, Limits: limit(throttle.Messages, 1), AllLimits: limit(throttle.Recipients, 1)})
	d := sitDown(t, q, version, nil)
	id := enqueue(t, q, message(mail.Report, "ada@example.net"))
	begin(t, d.turn(), nil)
	c.advance(30 * time.Second)
	d.dies()
	other := sitDown(t, q, version, nil)
	other.sweepAll()
	c.advance(time.Minute)
	if other.look().Next(nil) != nil {
		t.Error("a message began, although the killed worker may have sent one up to a minute ago")
	}
	c.advance(time.Millisecond)
	if a := other.look().Next(nil); a == nil || a.MessageID != id {
		t.Errorf("a minute after the sweep began %+v", a)
	}
}

func TestAlertsGoNextInAnExhaustedMailbox(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, choose(t, q, ActiveProvider{Concurrency: 3, Limits: limit(throttle.Messages, 1)}), nil)
	enqueueBatch(t, q, batch(mail.Subscription, 1000))
	turn := d.turn()
	turn.Next(delivered(begin(t, turn, nil)))
	alert := enqueue(t, q, message(mail.Alert, "ops@example.net"))
	if len(d.flagged()) != 0 {
		t.Error("a turn was given out for which there is no room")
	}
	c.advance(time.Minute + time.Millisecond)
	if a := d.look().Next(nil); a == nil || a.MessageID != alert {
		t.Errorf("next began %+v, not the alert", a)
	}
}

// spent makes an account with room for one more recipient, for whom nobody waits but messages to two.
func spent(t *testing.T, q *Queue, p ActiveProvider, waiting ...mail.Message) (*desk, *Turn, *Settlement) {
	t.Helper()
	d := sitDown(t, q, choose(t, q, p), nil)
	enqueue(t, q, to(mail.Report, "ada@example.net", "bob@example.net"))
	turn := d.turns()[0]
	a := begin(t, turn, nil)
	for _, m := range waiting {
		enqueue(t, q, m)
	}
	return d, turn, delivered(a)
}

func TestAnAlertForWhichThereIsRoomOvertakesWhatTakesMore(t *testing.T) {
	q, _ := onClock(t)
	d, turn, last := spent(t, q, ActiveProvider{Concurrency: 2, Limits: limit(throttle.Recipients, 3)}, to(mail.Report, "ada@example.net", "bob@example.net"))
	if answer := d.ask(turn, last); answer.what != "limited" || answer.look != time.Minute+time.Millisecond {
		t.Fatalf("%+v", answer)
	}
	d.flagged()
	alert := enqueue(t, q, message(mail.Alert, "ops@example.net"))
	turns := d.flagged()
	if len(turns) == 0 {
		t.Fatal("nobody looks at the alert")
	}
	if a := turns[0].Next(nil); a == nil || a.MessageID != alert {
		t.Errorf("%+v began, not the alert", a)
	}
}

// A message that has no room may be tried again only when it has.
func TestAMessageThatTakesMuchDoesNotKeepTheDispatcherBusy(t *testing.T) {
	for name, p := range map[string]ActiveProvider{
		"its own limit":                       {Concurrency: 3, Limits: limit(throttle.Recipients, 3)},
		"its own limit, few units of all":     {Concurrency: 3, Limits: limit(throttle.Recipients, 3), AllConcurrency: 1},
		"the provider's limit":                {Concurrency: 3, AllLimits: limit(throttle.Recipients, 3)},
		"the provider's limit, few units too": {Concurrency: 3, AllLimits: limit(throttle.Recipients, 3), AllConcurrency: 1},
	} {
		t.Run(name, func(t *testing.T) {
			q, c := onClock(t)
			dear := to(mail.Report, "ada@example.net", "bob@example.net")
			d, turn, last := spent(t, q, p, dear, dear, dear)
			if answer := d.ask(turn, last); answer.what != "limited" {
				t.Fatalf("%+v", answer)
			}
			runs := 0
			for turns := d.flagged(); len(turns) > 0 && runs < 10; turns = d.lookAll(c) {
				for _, turn := range turns {
					runs++
					if turn.Next(nil) != nil {
						t.Fatal("it began without room")
					}
				}
			}
			if runs > 2 {
				t.Errorf("%d turns were given out in vain, and more", runs)
			}
			c.advance(time.Minute + time.Millisecond)
			if turns := d.lookAll(c); len(turns) == 0 || turns[0].Next(nil) == nil {
				t.Error("nobody looks at it when there is room")
			}
		})
	}
}

func TestALimitLeavesTheOrderAsItWas(t *testing.T) {
	for _, kind := range mail.Kinds() {
		for _, keying := range []ProviderKey{ByAccount, ByMailbox} {
			q, _ := onClock(t)
			p := ActiveProvider{Keying: keying, Concurrency: 1, Limits: limit(throttle.Recipients, 3)}
			d := sitDown(t, q, choose(t, q, p), nil)
			senders := []string{"", "reports@example.com"}
			prefixes := []string{"l:", "r:"}
			if keying == ByAccount {
				senders, prefixes = append(senders, "b@example.com"), append(prefixes, "s:") // the order among senders counts
			}
			for range 2 {
				for _, sender := range senders {
					b := batch(kind, 2)
					b.Message.From.Address, b.Message.Cc = sender, []mail.Address{{Address: "copy@example.net"}}
					enqueueBatch(t, q, b)
					m := to(kind, "ada@example.net", "bob@example.net")
					m.From.Address = sender
					enqueue(t, q, m)
					if kind != mail.Alert {
						m.Kind = mail.Subscription
						enqueue(t, q, m)
					}
				}
			}
			turns := d.flagged()
			if len(turns) != 1 {
				t.Fatalf("%d turns", len(turns))
			}
			last, again := delivered(begin(t, turns[0], nil)), turns[0]
			before := lists(t, q, prefixes...)
			served := q.redis.HGet(t.Context(), q.key("k:", again.key), "served").Val()
			for range 3 {
				if answer := d.ask(again, last); answer.what != "limited" {
					t.Fatalf("%s by %s: %+v", kind, keying, answer)
				}
				if after := lists(t, q, prefixes...); !maps.EqualFunc(after, before, slices.Equal) {
					t.Fatalf("%s by %s: the order is\n%v, was\n%v", kind, keying, after, before)
				}
				if now := q.redis.HGet(t.Context(), q.key("k:", again.key), "served").Val(); now != served {
					t.Fatalf("%s by %s: %q were served, then %q", kind, keying, served, now)
				}
				last, again = nil, d.run(&Turn{id: token(10), key: again.key})
			}
		}
	}
}

func TestWhatExceedsALimitByItselfFailsAndTheRestGoesOn(t *testing.T) {
	for _, all := range []bool{false, true} {
		q, _ := onClock(t)
		dear := enqueue(t, q, to(mail.Report, "ada@example.net", "bob@example.net", "eve@example.net"))
		behind := enqueue(t, q, message(mail.Report, "ada@example.net"))
		p := ActiveProvider{Concurrency: 1}
		if all {
			p.AllLimits = limit(throttle.Recipients, 2)
		} else {
			p.Limits = limit(throttle.Recipients, 2)
		}
		d := sitDown(t, q, choose(t, q, p), nil)
		if a := d.turn().Next(nil); a == nil || a.MessageID != behind {
			t.Errorf("%+v began", a)
		}
		s := status(t, q, dear)
		if s.State != Failed || len(s.History) != 1 || s.History[0].Outcomes[0].Class != "permanent" || !strings.Contains(s.History[0].Outcomes[0].Reply, `"recipients"`) {
			t.Errorf("%+v", s)
		}
		if n := metric(t, q, "postroom_messages_finished_total", "report", "failed"); n != 1 {
			t.Errorf("%v are counted as failed", n)
		}
	}
}

func TestAProviderLimitIsSharedAndNobodyStarves(t *testing.T) {
	q, c := onClock(t)
	p := ActiveProvider{Keying: ByMailbox, Concurrency: 2, AllLimits: []throttle.Limit{{Name: throttle.Messages, Max: 2, Window: 10 * time.Second}}}
	d := sitDown(t, q, choose(t, q, p), nil)
	const each = 15
	senders := []string{"a@example.com", "b@example.com", "c@example.com"}
	of := map[string]string{}
	for _, sender := range senders {
		b := batch(mail.Report, each)
		b.Message.From.Address = sender
		for _, id := range enqueueBatch(t, q, b).IDs {
			of[id] = sender
		}
	}
	sent, windows := map[string]int{}, 0
	for total := 0; total < each*len(senders); windows++ {
		if windows > 200 {
			t.Fatalf("%v were sent; nobody looks at the rest", sent)
		}
		began := 0
		for turns := d.lookAll(c); len(turns) > 0; turns = d.lookAll(c) {
			for _, turn := range turns {
				for a := turn.Next(nil); a != nil; a = turn.Next(delivered(a)) {
					sent[of[a.MessageID]]++
					began++
				}
			}
		}
		if began > 2 {
			t.Fatalf("%d began in one window", began)
		}
		if total += began; total >= each && len(sent) < len(senders) {
			t.Fatalf("%d were sent, all by %v", total, sent)
		}
		c.advance(10*time.Second + time.Millisecond)
	}
	if windows > each*len(senders)/2+5 {
		t.Errorf("it took %d windows", windows)
	}
}

func TestASecondHandIsRefusedUnderLimits(t *testing.T) {
	for _, limits := range [][]throttle.Limit{nil, limit(throttle.Messages, 100)} {
		q, _ := onClock(t)
		d := sitDown(t, q, choose(t, q, ActiveProvider{Concurrency: 1, Limits: limits}), nil)
		enqueueBatch(t, q, batch(mail.Report, 5))
		turn, more := d.turn(), 0
		turn.more = func() { more++ }
		begin(t, turn, delivered(begin(t, turn, nil)))
		second := turn.hand().Next(nil)
		if limits == nil != (second != nil) || limits == nil != (more > 0) {
			t.Errorf("limits %v: a second hand began %+v, and %d more were asked for", limits, second, more)
		}
	}
}

func TestADispatchWhoseAnswerWasLostIsRepeated(t *testing.T) {
	q, _ := onClock(t)
	version := choose(t, q, ActiveProvider{Concurrency: 2, Limits: limit(throttle.Messages, 5)})
	sitDown(t, q, version, nil)
	enqueueBatch(t, q, batch(mail.Report, 9))
	first, err := q.run(t.Context(), "dispatch", "stem", "").Slice()
	if err != nil {
		t.Fatal(err)
	}
	again, err := q.run(t.Context(), "dispatch", "stem", "").Slice()
	if err != nil {
		t.Fatal(err)
	}
	if turns := first[2:]; len(turns) != 8 || fmt.Sprint(again[2:]) != fmt.Sprint(turns) {
		t.Errorf("handed out %v, then %v", first, again)
	}
}

func TestALimitThatIsNewCountsWhatIsUnderWay(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, choose(t, q, ActiveProvider{Concurrency: 1}), nil)
	enqueueBatch(t, q, batch(mail.Report, 3))
	turn := d.turn()
	a := begin(t, turn, nil)
	choose(t, q, ActiveProvider{Concurrency: 1, Limits: limit(throttle.Messages, 1)})
	if answer := d.ask(turn, delivered(a)); answer.what != "limited" {
		t.Errorf("%+v", answer)
	}
}

func TestALimitThatIsGoneGivesBackWhatIsUnderWay(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, choose(t, q, ActiveProvider{Concurrency: 1, Limits: limit(throttle.Messages, 1)}), nil)
	enqueueBatch(t, q, batch(mail.Report, 5))
	turn := d.turn()
	a := begin(t, turn, nil)
	choose(t, q, ActiveProvider{Concurrency: 1})
	a = begin(t, turn, delivered(a))
	choose(t, q, ActiveProvider{Concurrency: 1, Limits: limit(throttle.Messages, 2)})
	a = begin(t, turn, delivered(a))
	if answer := d.ask(turn, delivered(a)); answer.what != "limited" {
		t.Errorf("%+v", answer)
	}
	if open := q.redis.HGet(t.Context(), q.key("w:", account), "messages").Val(); !strings.HasPrefix(open, "0 ") {
		t.Errorf("the books are %q, with nothing under way", open)
	}
}

// A turn may be fetched by a process that has the settings of another provider than the one it was given out for.
func TestATurnOfAFormerProviderTakesNothing(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, choose(t, q, ActiveProvider{Keying: ByMailbox, Concurrency: 1}), nil)
	enqueueBatch(t, q, batch(mail.Report, 3))
	former := d.flagged()
	if len(former) != 1 {
		t.Fatalf("%d turns", len(former))
	}
	d.assume(choose(t, q, ActiveProvider{Concurrency: 1, Limits: limit(throttle.Messages, 1)}))
	if former[0].Next(nil) != nil {
		t.Error("a message began under another key's limits")
	}
	if turns := d.flagged(); len(turns) != 1 || turns[0].key != account {
		t.Errorf("handed out: %+v", turns)
	}
}

// mailboxes accepts a report in each of as many mailboxes, in as many turns as are given out for them.
func (d *desk) mailboxes(n int) (ids []string, turns []*Turn) {
	d.t.Helper()
	for i := range n {
		m := message(mail.Report, "ada@example.net")
		m.From.Address = fmt.Sprintf("box%d@example.com", i)
		ids = append(ids, enqueue(d.t, d.queue, m))
		turns = append(turns, d.flagged()...)
	}
	return ids, turns
}

func TestUnitsThatAreOutCountWhenTheirNumberBecomesLimited(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, choose(t, q, ActiveProvider{Keying: ByMailbox, Concurrency: 1}), nil)
	_, turns := d.mailboxes(2)
	if len(turns) != 2 {
		t.Fatalf("%d turns are out", len(turns))
	}
	choose(t, q, ActiveProvider{Keying: ByMailbox, Concurrency: 1, AllConcurrency: 2})
	if _, more := d.mailboxes(5); len(more) != 0 {
		t.Errorf("%d more turns were given out", len(more))
	}
}

func TestAUnitThatAKeyHasNoUseForGoesToAnother(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, choose(t, q, ActiveProvider{Keying: ByMailbox, Concurrency: 1, AllConcurrency: 1}), nil)
	ids, turns := d.mailboxes(6)
	if len(turns) != 1 {
		t.Fatalf("%d turns are out", len(turns))
	}
	a := begin(t, turns[0], nil)
	for _, id := range ids[1:5] {
		if err := q.CancelMessage(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"box1@example.com", "box2@example.com"} {
		// Held for long, as after a refusal.
		q.redis.HSet(t.Context(), q.key("k:", key), "until", c.now.Add(time.Hour).UnixMilli())
	}
	turns[0].Next(delivered(a))
	for range 10 {
		for _, turn := range d.flagged() {
			if a := turn.Next(nil); a != nil && a.MessageID == ids[5] {
				return
			}
		}
	}
	t.Error("nobody looks at the mailbox that waits for a unit")
}

// At the moment when a provider's limit has room, one mailbox takes it; the others are looked at when there is room again.
func TestALookAtTheProviderIsFollowedByAnother(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, choose(t, q, ActiveProvider{Keying: ByMailbox, Concurrency: 1, AllLimits: limit(throttle.Messages, 1)}), nil)
	_, turns := d.mailboxes(4)
	a := begin(t, turns[0], nil)
	for _, turn := range turns[1:] {
		if turn.Next(nil) != nil {
			t.Fatal("a second began")
		}
	}
	turns[0].Next(delivered(a))
	d.flagged()
	for i := range 3 {
		c.advance(time.Minute + time.Millisecond)
		h, err := q.handOut(t.Context(), throttle.Provider)
		if err != nil {
			t.Fatal(err)
		}
		if len(h.turns) != 1 {
			t.Fatalf("look %d: %d turns, looks %v", i, len(h.turns), h.looks)
		}
		turn := d.run(h.turns[0])
		turn.Next(delivered(begin(t, turn, nil)))
		d.flagged()
		if err := q.redis.ZScore(t.Context(), q.key("looks"), throttle.Provider).Err(); i < 2 && err != nil {
			t.Fatalf("after look %d nobody will look again: %v", i, err)
		}
	}
}

func TestALookWhoseAnswerWasLostKeepsItsUnit(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, choose(t, q, ActiveProvider{Concurrency: 2, Limits: limit(throttle.Messages, 9)}), nil)
	enqueueBatch(t, q, batch(mail.Report, 9))
	for _, turn := range d.turns() {
		begin(t, turn, nil)
	}
	choose(t, q, ActiveProvider{Concurrency: 3, Limits: limit(throttle.Messages, 9)})
	turn, attempt := d.look(), token(12)
	first, err := turn.call(nil, d.lease.Load(), d.settings.current(), attempt)
	if err != nil || first.what != "attempt" {
		t.Fatalf("%+v, %v", first, err)
	}
	choose(t, q, ActiveProvider{Concurrency: 1, Limits: limit(throttle.Messages, 9)})
	again, err := turn.call(nil, d.lease.Load(), d.settings.current(), attempt)
	if err != nil || again.what != "attempt" || again.message != first.message || again.unit != first.unit {
		t.Errorf("%+v, then %+v, %v", first, again, err)
	}
}

func TestUnderLimitsEachBeginHasAnotherUnitBegin(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, choose(t, q, ActiveProvider{Concurrency: 3, Limits: limit(throttle.Messages, 9)}), nil)
	enqueueBatch(t, q, batch(mail.Report, 9))
	for i := range 4 {
		answer := d.ask(d.look(), nil)
		if (answer.what == "attempt") != (i < 3) || (answer.look == 0) != (i < 2) {
			t.Errorf("look %d: %+v", i, answer)
		}
	}
}
