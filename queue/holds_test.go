package queue

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/throttle"
)

// holding settles an attempt as refused in a way that holds for 10 s, up to a minute.
func holding(a *Attempt, letters string, scope mail.Scope) *Settlement {
	s := outcomes(a, Back, letters)
	s.Hold, s.HoldMax, s.Reason, s.Scope = 10*time.Second, time.Minute, s.Class.String(), scope
	for i := range s.Outcomes {
		s.Outcomes[i].Scope, s.Outcomes[i].Code, s.Outcomes[i].Cause = scope, 535, mail.Credentials
	}
	return s
}

// begun gives how many of the turns begin an attempt, and the attempts.
func begun(turns []*Turn) (open map[*Turn]*Attempt) {
	open = map[*Turn]*Attempt{}
	for _, turn := range turns {
		if a := turn.Next(nil); a != nil {
			open[turn] = a
		}
	}
	return open
}

// only gives the one attempt that began.
func only(t *testing.T, open map[*Turn]*Attempt) (*Turn, *Attempt) {
	t.Helper()
	if len(open) != 1 {
		t.Fatalf("%d attempts began, want 1", len(open))
	}
	for turn, a := range open {
		return turn, a
	}
	return nil, nil
}

func TestOneMessageIsTriedAfterAHold(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, activate(t, q, 4), nil)
	enqueueBatch(t, q, batch(mail.Report, 20))
	for turn, a := range begun(d.turns()) {
		turn.Next(holding(a, "h", mail.ScopeMailbox))
	}
	silent := func(why string) {
		t.Helper()
		if n := len(begun(append(d.turns(), d.look(), d.look()))); n != 0 {
			t.Fatalf("%d began %s", n, why)
		}
	}
	tried := func() (*Turn, *Attempt) {
		t.Helper()
		return only(t, begun(append(d.turns(), d.look(), d.look())))
	}
	silent("while it was held")
	c.advance(10 * time.Second)
	turn, a := tried()
	if m := mailbox(t, q, account); m.Hold == nil || !m.Hold.Trying || m.Hold.Last.Cause != string(mail.Credentials) || m.Hold.Last.Code != 535 {
		t.Errorf("while it is in doubt: %+v", m.Hold)
	}
	silent("beside the probe")

	// Refused again: silent for twice as long.
	turn.Next(holding(a, "h", mail.ScopeMailbox))
	c.advance(20*time.Second - time.Millisecond)
	silent("before the second hold was over")
	c.advance(time.Millisecond)

	// A probe that is handed back tells nothing, nor does one whose worker dies: another is made.
	turn, a = tried()
	turn.ends = time.Time{}
	turn.Next(&Settlement{Attempt: a, Verdict: Back, Class: mail.Temporary})
	tried()
	d.dies()
	d.renew()
	d.sweepAll()
	turn, a = tried()

	// It is accepted: full speed.
	if turn.Next(delivered(a)) == nil {
		t.Error("the probe's own turn is over")
	}
	if n := len(begun(d.turns())); n != 3 {
		t.Errorf("after the probe %d more began, want 3", n)
	}
	if m := mailbox(t, q, account); m.Hold != nil {
		t.Errorf("after the probe: %+v", m.Hold)
	}
}

func TestAnyAnswerToAMessageEndsAHold(t *testing.T) {
	for _, letter := range []string{"x", "t", "u"} {
		q, c := onClock(t)
		d := sitDown(t, q, activate(t, q, 2), nil)
		enqueueBatch(t, q, batch(mail.Report, 6))
		turns := d.turns()
		turns[0].Next(holding(turns[0].Next(nil), "c", mail.ScopeProvider))
		begun(turns[1:])
		c.advance(10 * time.Second)
		turn, a := only(t, begun(d.turns()))
		s := outcomes(a, Again, letter)
		s.Delay = time.Hour
		turn.Next(s)
		if n := len(begun(d.turns())); n != 1 || mailbox(t, q, account).Hold != nil {
			t.Errorf("%s: %d more began, want 1; %+v", letter, n, mailbox(t, q, account).Hold)
		}
	}
}

func TestAnotherReasonBeginsANewRowOfHolds(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	enqueueBatch(t, q, batch(mail.Report, 6))
	began := c.now
	for range 3 {
		turn, a := only(t, begun(d.turns()))
		turn.Next(holding(a, "c", mail.ScopeProvider))
		c.advance(time.Minute)
	}
	turn, a := only(t, begun(d.turns()))
	turn.Next(holding(a, "h", mail.ScopeMailbox))
	m := mailbox(t, q, account)
	if m.Hold.Refusals != 1 || m.Hold.Until.Sub(c.now.Truncate(time.Millisecond)) != 10*time.Second || !m.Hold.Since.Equal(began.UTC().Truncate(time.Millisecond)) {
		t.Errorf("%+v", m.Hold)
	}
}

func TestOtherSettingsEndAHoldUnlessTheMailboxWasTooFast(t *testing.T) {
	for reason, want := range map[string]int{"c": 2, "h": 0} {
		q, _ := onClock(t)
		d := sitDown(t, q, activate(t, q, 2), nil)
		enqueueBatch(t, q, batch(mail.Report, 6))
		turns := d.turns()
		turns[0].Next(holding(turns[0].Next(nil), reason, mail.ScopeProvider))
		begun(turns[1:])
		version, err := declare(t, q, ActiveProvider{Keying: ByAccount, Account: account, Concurrency: 2}, "salt", "another password")
		if err != nil {
			t.Fatal(err)
		}
		other := sitDown(t, q, version, nil)
		if n := len(begun(other.turns())); n != want {
			t.Errorf("%s: %d began, want %d", reason, n, want)
		}
		if held := mailbox(t, q, account).Hold != nil; held != (want == 0) {
			t.Errorf("%s: held: %v", reason, held)
		}
	}
}

func TestARefusedSenderHoldsItsOwnMailAlone(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, choose(t, q, ActiveProvider{Concurrency: 2}), nil)
	const refused = "news@example.com"
	own := enqueueBatch(t, q, batch(mail.Report, 5)).IDs // the provider's own sender
	var held []string
	for range 2 {
		b := batch(mail.Subscription, 3)
		b.Message.From.Address = refused
		held = append(held, enqueueBatch(t, q, b).IDs...)
	}
	one := message(mail.Alert, "ada@example.net")
	one.From.Address = refused
	held = append(held, enqueue(t, q, one))
	sendAll := func(turns ...*Turn) (sent []string) {
		t.Helper()
		for _, turn := range append(turns, d.turns()...) {
			for a := turn.Next(nil); a != nil; {
				sent = append(sent, a.MessageID)
				a = turn.Next(delivered(a))
			}
		}
		return sent
	}
	turns := d.turns()
	turn := turns[0]
	a := begin(t, turn, nil)
	if a.MessageID != held[len(held)-1] {
		t.Fatal("the alert does not come first")
	}
	end(turn, holding(a, "c", mail.ScopeMailbox))
	if sent := sendAll(turns[1:]...); !slices.Equal(sent, own) {
		t.Fatalf("%d were sent while a sender is held, want those of the others: %d", len(sent), len(own))
	}
	m := mailbox(t, q, refused)
	if m.Account != account || m.Waiting() != len(held) || m.Hold == nil || m.Hold.Reason != "configuration" || m.Hold.Last.Code != 535 {
		t.Errorf("the sender: %+v %+v", m, m.Hold)
	}
	if m := mailbox(t, q, account); m.Hold != nil || m.Waiting() != 0 {
		t.Errorf("the account: %+v", m)
	}
	if o, err := q.Outlook(t.Context(), status(t, q, held[0])); err != nil || o.Wait != WaitsForHold || o.Key != refused {
		t.Errorf("%+v, %v", o, err)
	}
	// New mail of the sender waits too, and costs no turn.
	held = append(held, enqueue(t, q, one))
	if turns := d.turns(); len(turns) != 0 {
		t.Errorf("%d turns were handed out", len(turns))
	}

	c.advance(10 * time.Second)
	turn, a = only(t, begun(d.turns()))
	if m := mailbox(t, q, refused); m.Hold == nil || !m.Hold.Trying {
		t.Errorf("while it is in doubt: %+v", m.Hold)
	}
	enqueueBatch(t, q, batch(mail.Report, 2))
	if n := len(sendAll()); n != 2 {
		t.Errorf("beside the probe %d of others were sent, want 2", n)
	}
	end(turn, holding(a, "c", mail.ScopeMailbox))
	c.advance(20*time.Second - time.Millisecond)
	if len(sendAll()) != 0 {
		t.Error("the second hold is not longer")
	}
	c.advance(time.Millisecond)
	turn, a = only(t, begun(d.turns()))
	end(turn, delivered(a))
	if sent := sendAll(); len(sent) != len(held)-1 {
		t.Errorf("%d were sent after the probe, want %d", len(sent), len(held)-1)
	}
	if _, err := q.Mailbox(t.Context(), refused); !errors.Is(err, ErrNotFound) {
		t.Errorf("the sender is still listed: %v", err)
	}
	booksAreClean(t, q)
}

func TestAHeldSenderIsLetGo(t *testing.T) {
	const refused = "news@example.com"
	for name, test := range map[string]func(q *Queue, c *clock) string{
		"by a resume": func(q *Queue, _ *clock) string {
			if was, err := q.Resume(t.Context(), "News@Example.com", Author{Name: "ops"}); err != nil || !was {
				t.Errorf("%v, %v", was, err)
			}
			return ""
		},
		"by other settings": func(q *Queue, _ *clock) string {
			version, err := declare(t, q, ActiveProvider{Keying: ByAccount, Account: account, Sender: "reports@example.com", Concurrency: 2}, "salt", "other")
			if err != nil {
				t.Error(err)
			}
			return version
		},
		"by a provider that sends for each mailbox": func(q *Queue, _ *clock) string {
			return choose(t, q, ActiveProvider{Keying: ByMailbox, Concurrency: 2})
		},
		"when its probe's worker died": func(q *Queue, c *clock) string {
			c.advance(10 * time.Second)
			d := sitDown(t, q, choose(t, q, ActiveProvider{Concurrency: 2}), nil)
			only(t, begun(d.turns()))
			d.dies()
			d.renew()
			d.sweepAll()
			turn, a := only(t, begun(d.turns()))
			end(turn, delivered(a))
			return ""
		},
		"when nobody remembers that it is due": func(q *Queue, c *clock) string {
			q.redis.ZRem(t.Context(), q.key("due"), "s:"+refused)
			c.advance(10 * time.Second)
			d := sitDown(t, q, choose(t, q, ActiveProvider{Concurrency: 2}), nil)
			d.sweepAll()
			turn, a := only(t, begun(d.turns()))
			end(turn, delivered(a))
			return ""
		},
	} {
		t.Run(name, func(t *testing.T) {
			q, c := onClock(t)
			version := choose(t, q, ActiveProvider{Concurrency: 2})
			d := sitDown(t, q, version, nil)
			b := batch(mail.Report, 4)
			b.Message.From.Address = refused
			ids := enqueueBatch(t, q, b).IDs
			turns := d.turns()
			end(turns[0], holding(begin(t, turns[0], nil), "c", mail.ScopeMailbox))
			if len(begun(append(turns[1:], d.turns()...))) != 0 {
				t.Fatal("the sender is not held")
			}
			if other := test(q, c); other != "" {
				version = other
			}
			d = sitDown(t, q, version, nil)
			for turns := d.flagged(); len(turns) > 0; turns = d.flagged() {
				for _, turn := range turns {
					for a := turn.Next(nil); a != nil; a = turn.Next(delivered(a)) {
					}
				}
			}
			for _, id := range ids {
				if s := status(t, q, id); s.State != Delivered {
					t.Errorf("%s", s.State)
				}
			}
			booksAreClean(t, q)
		})
	}
}

func TestAPausedSenderOfAnAccountStaysPausedWhenItsHoldIsOver(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, choose(t, q, ActiveProvider{Concurrency: 2}), nil)
	b := batch(mail.Report, 4)
	b.Message.From.Address = "news@example.com"
	enqueueBatch(t, q, b)
	turns := d.turns()
	end(turns[0], holding(begin(t, turns[0], nil), "c", mail.ScopeMailbox))
	begun(turns[1:])
	if _, err := q.Pause(t.Context(), "news@example.com", time.Hour, "asked", Author{Name: "ada"}); err != nil {
		t.Fatal(err)
	}
	c.advance(10 * time.Second)
	if len(begun(d.turns())) != 0 {
		t.Error("something began in spite of the pause")
	}
	c.advance(time.Hour)
	only(t, begun(d.turns()))
}

func TestAProviderWideRefusalHoldsEveryMailbox(t *testing.T) {
	for name, p := range map[string]ActiveProvider{
		"no limits":           {Keying: ByMailbox, Concurrency: 2},
		"limits of all of it": {Keying: ByMailbox, Concurrency: 2, AllConcurrency: 5},
	} {
		t.Run(name, func(t *testing.T) {
			q, c := onClock(t)
			d := sitDown(t, q, choose(t, q, p), nil)
			senders := []string{"a@example.com", "b@example.com", "c@example.com"}
			for _, sender := range senders {
				b := batch(mail.Report, 4)
				b.Message.From.Address = sender
				enqueueBatch(t, q, b)
			}
			ready := func() []*Turn { return append(d.lookAll(c), d.lookAll(c)...) }
			turns := ready()
			turn := turns[0]
			turn.Next(holding(begin(t, turn, nil), "c", mail.ScopeProvider))
			if n := len(begun(turns[1:])); n != 0 {
				t.Fatalf("%d of other mailboxes began", n)
			}
			for _, sender := range senders {
				if m := mailbox(t, q, sender); m.Hold == nil || !m.Hold.All {
					t.Errorf("%s: %+v", sender, m.Hold)
				}
			}
			c.advance(10*time.Second - time.Millisecond)
			if n := len(begun(ready())); n != 0 {
				t.Fatalf("%d began while everything is held", n)
			}
			c.advance(time.Millisecond)
			turn, a := only(t, begun(ready()))
			if n := len(begun(ready())); n != 0 {
				t.Fatalf("%d began beside the probe", n)
			}
			turn.Next(holding(a, "c", mail.ScopeProvider))
			c.advance(20 * time.Second)
			turn, a = only(t, begun(ready()))
			open := map[*Turn]*Attempt{}
			if more := turn.Next(delivered(a)); more != nil {
				open[turn] = more
			}
			for range 5 {
				for turn, a := range begun(ready()) {
					open[turn] = a
				}
			}
			want := len(senders) * p.Concurrency
			if p.AllConcurrency > 0 {
				want = p.AllConcurrency
			}
			if len(open) != want {
				t.Errorf("%d are under way after the probe, want %d", len(open), want)
			}
		})
	}
}

func TestARefusalOfAMailboxEndsTheHoldOfEverything(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, choose(t, q, ActiveProvider{Keying: ByMailbox, Concurrency: 1}), nil)
	for _, sender := range []string{"a@example.com", "b@example.com"} {
		b := batch(mail.Report, 2)
		b.Message.From.Address = sender
		enqueueBatch(t, q, b)
	}
	turns := d.flagged()
	turns[0].Next(holding(begin(t, turns[0], nil), "c", mail.ScopeProvider))
	begun(turns[1:])
	c.advance(10 * time.Second)
	turn, a := only(t, begun(d.lookAll(c)))
	turn.Next(holding(a, "c", mail.ScopeMailbox))
	if _, other := only(t, begun(d.lookAll(c))); other.MessageID == a.MessageID {
		t.Error("the refused mailbox goes on")
	}
}

func TestWhatIsNotMarkedTwiceWasNotSent(t *testing.T) {
	for name, test := range map[string]struct {
		policy UnknownPolicy
		fenced bool
		state  State
		class  string
	}{
		"held, before its point of no return": {Hold, false, Queued, "temporary"},
		"held, after it":                      {Hold, true, Failed, "unknown"},
		"sent again, before it":               {Resend, false, Queued, "unknown"},
		"sent again, after it":                {Resend, true, Queued, "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			q, _ := onClock(t)
			d := sitDown(t, q, activate(t, q, 1), func(o *ConsumerOptions) { o.OnUnknown = map[mail.Kind]UnknownPolicy{mail.Report: test.policy} })
			id := enqueue(t, q, message(mail.Report, "ada@example.net"))
			a := begin(t, d.turn(), nil)
			if test.fenced {
				if err := a.Fence(); err != nil {
					t.Fatal(err)
				}
			}
			d.dies()
			d.renew()
			d.sweepAll()
			s := status(t, q, id)
			if s.State != test.state || s.Attempts != 1 || len(s.History) != 1 || s.History[0].Outcomes[0].Class != test.class || s.History[0].Outcomes[0].Cause != string(mail.WorkerGone) {
				t.Fatalf("%+v", s)
			}
			// Whoever comes late to the fence no longer passes it.
			if err := a.Fence(); err == nil {
				t.Error("the fence lets pass what others have taken for lost")
			}
			if s.State == Queued {
				if again := begin(t, d.turn(), nil); again.Doubtful != (test.class == "unknown") {
					t.Errorf("doubtful: %v", again.Doubtful)
				}
			}
		})
	}
}

func TestTheFenceStopsWhatIsNoLongerItsOwn(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), func(o *ConsumerOptions) { o.OnUnknown = map[mail.Kind]UnknownPolicy{mail.Report: Hold} })
	id := enqueue(t, q, message(mail.Report, "ada@example.net"))
	a := begin(t, d.turn(), nil)
	if err := q.redis.Del(t.Context(), q.key("m:", id)).Err(); err != nil {
		t.Fatal(err)
	}
	if err := a.Fence(); !errors.Is(err, ErrTaken) {
		t.Errorf("%v, want ErrTaken", err)
	}
}

func TestDoubtfulMailIsOfferedAgainIfTheProviderCanTell(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), func(o *ConsumerOptions) { o.OnUnknown = map[mail.Kind]UnknownPolicy{mail.Report: Hold} })
	d.settings.current().loaded.Verifies = true
	id := enqueue(t, q, message(mail.Report, "ada@example.net"))
	if err := begin(t, d.turn(), nil).Fence(); err != nil {
		t.Fatal(err)
	}
	d.dies()
	d.renew()
	d.sweepAll()
	if a := begin(t, d.turn(), nil); a.MessageID != id || !a.Doubtful || a.Released {
		t.Errorf("%+v", a)
	}
}

func TestARefusalOfFormerSettingsHoldsNothing(t *testing.T) {
	for reason, want := range map[string]int{"c": 1, "h": 0} {
		q, _ := onClock(t)
		d := sitDown(t, q, activate(t, q, 1), nil)
		enqueueBatch(t, q, batch(mail.Report, 2))
		former := d.turn()
		a := begin(t, former, nil)
		version, err := declare(t, q, ActiveProvider{Keying: ByAccount, Account: account, Concurrency: 1}, "salt", "another password")
		if err != nil {
			t.Fatal(err)
		}
		former.Next(holding(a, reason, mail.ScopeProvider))
		n := len(begun(sitDown(t, q, version, nil).turns()))
		if m := mailbox(t, q, account); n != want || (m.Hold != nil) != (want == 0) {
			t.Errorf("%s: %d began, want %d; %+v", reason, n, want, m.Hold)
		}
	}
}

func TestTheHoldOfAMailboxIsNotThatOfASender(t *testing.T) {
	q, c := onClock(t)
	enqueueBatch(t, q, from("news@example.com", mail.Report, 4))
	former := sitDown(t, q, choose(t, q, ActiveProvider{Keying: ByMailbox, Concurrency: 1}), nil).flagged()[0]
	a := begin(t, former, nil)
	d := sitDown(t, q, choose(t, q, ActiveProvider{Concurrency: 2}), nil)
	former.Next(holding(a, "h", mail.ScopeMailbox)) // too fast, as a mailbox of the former provider's
	enqueueBatch(t, q, from("other@example.com", mail.Report, 1))
	for turn, a := range begun(d.turns()) {
		if a.Message.From.Address == "other@example.com" {
			end(turn, holding(a, "c", mail.ScopeMailbox))
		} else {
			end(turn, delivered(a))
		}
	}
	c.advance(10*time.Second - time.Millisecond)
	if aside := q.redis.SMembers(t.Context(), q.key("aside")).Val(); !slices.Equal(aside, []string{"other@example.com"}) {
		t.Errorf("%v are set aside", aside)
	}
	c.advance(time.Millisecond)
	if n := len(begun(d.turns())); n != 2 {
		t.Errorf("%d began, want 2", n)
	}
}

func TestAPausedSenderStaysPausedWhenItsProbeHasEnded(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, choose(t, q, ActiveProvider{Concurrency: 1}), nil)
	enqueueBatch(t, q, from("news@example.com", mail.Report, 4))
	turn := d.turn()
	end(turn, holding(begin(t, turn, nil), "c", mail.ScopeMailbox))
	c.advance(10 * time.Second)
	turn, a := only(t, begun(d.turns()))
	if _, err := q.Pause(t.Context(), "news@example.com", time.Hour, "asked", Author{Name: "ada"}); err != nil {
		t.Fatal(err)
	}
	end(turn, delivered(a))
	if n := len(begun(d.turns())); n != 0 {
		t.Errorf("%d began in spite of the pause", n)
	}
	c.advance(time.Hour)
	only(t, begun(d.turns()))
}

func TestAMessageThatTakesMuchKeepsNobodyBusyAfterAHold(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, choose(t, q, ActiveProvider{Concurrency: 1, AllLimits: limit(throttle.Recipients, 3)}), nil)
	for range 2 {
		enqueue(t, q, to(mail.Report, "ada@example.net", "bob@example.net"))
	}
	turn, a := only(t, begun(d.turns()))
	turn.Next(holding(a, "hh", mail.ScopeMailbox))
	c.advance(10 * time.Second)
	runs := 0
	for turns := d.lookAll(c); len(turns) > 0 && runs < 10; turns = d.lookAll(c) {
		runs += len(turns)
		if len(begun(turns)) > 0 {
			t.Fatal("it began without room")
		}
	}
	if runs > 2 {
		t.Errorf("%d turns were given out in vain, and more", runs)
	}
	c.advance(time.Minute)
	only(t, begun(d.lookAll(c)))
}

func TestASenderInDoubtKeepsItsPlace(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, choose(t, q, ActiveProvider{Concurrency: 1}), nil)
	enqueueBatch(t, q, from("news@example.com", mail.Report, 1))
	turn := d.turn()
	end(turn, holding(begin(t, turn, nil), "c", mail.ScopeMailbox))
	for _, sender := range []string{"a@example.com", "b@example.com", "c@example.com"} {
		enqueueBatch(t, q, from(sender, mail.Report, 9))
	}
	c.advance(10 * time.Second)
	turn = d.turn()
	var sent []string
	for a := turn.Next(nil); len(sent) < 9; a = turn.Next(delivered(a)) {
		sent = append(sent, a.Message.From.Address)
		d.sweepAll()
	}
	if !slices.Contains(sent, "news@example.com") {
		t.Errorf("its turn never comes: %v", sent)
	}
}

func TestAHeldSenderWhoSendsNoMoreIsForgotten(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, choose(t, q, ActiveProvider{Concurrency: 1}), nil)
	id := enqueueBatch(t, q, from("news@example.com", mail.Report, 1)).IDs[0]
	turn := d.turn()
	end(turn, holding(begin(t, turn, nil), "c", mail.ScopeMailbox))
	c.advance(31 * 24 * time.Hour)
	if err := errors.Join(q.CancelMessage(t.Context(), id), q.tidy(t.Context())); err != nil {
		t.Fatal(err)
	}
	d.flagged()
	if err := q.tidy(t.Context()); err != nil || q.redis.Exists(t.Context(), q.key("aside"), q.key("k:", "news@example.com")).Val() != 0 {
		t.Errorf("it is still known, %v", err)
	}
}
