package queue

import (
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
)

func healthNow(t *testing.T, q *Queue) *Health {
	t.Helper()
	h, err := q.Health(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// meet has the next message of a sender meet what a letter says (see outcomes), as far as scope.
func (d *desk) meet(key, sender, letter string, scope mail.Scope) {
	d.t.Helper()
	enqueueBatch(d.t, d.queue, from(sender, mail.Report, 1))
	h, err := d.queue.handOut(d.t.Context(), key)
	if err != nil {
		d.t.Fatal(err)
	}
	var turns []*Turn
	for _, t := range h.turns {
		if t.key == key {
			turns = append(turns, d.run(t))
		}
	}
	turn, a := only(d.t, begun(turns))
	end(turn, holding(a, letter, scope))
}

func TestHealthIsThatOfWhatSilencesMost(t *testing.T) {
	const graph, smtp = ByMailbox, ByAccount
	type met struct {
		sender, letter string
		scope          mail.Scope
	}
	for name, test := range map[string]struct {
		keying  ProviderKey
		met     []met
		state   HealthState
		mailbox string
		held    int
		of      int
	}{
		"nothing":                 {graph, nil, Healthy, "", 0, 2},
		"a mailbox":               {graph, []met{{"a@example.com", "c", mail.ScopeMailbox}}, Degraded, "a@example.com", 1, 2},
		"two, the first counts":   {graph, []met{{"b@example.com", "c", mail.ScopeMailbox}, {"a@example.com", "c", mail.ScopeMailbox}}, Faulty, "b@example.com", 2, 2},
		"a mailbox, slow":         {graph, []met{{"a@example.com", "h", mail.ScopeMailbox}}, Degraded, "a@example.com", 1, 2},
		"every mailbox":           {graph, []met{{"a@example.com", "c", mail.ScopeProvider}}, Faulty, Everything, 2, 2},
		"every mailbox, slow":     {graph, []met{{"a@example.com", "h", mail.ScopeProvider}}, Degraded, Everything, 2, 2},
		"a mailbox, then all":     {graph, []met{{"b@example.com", "c", mail.ScopeMailbox}, {"a@example.com", "c", mail.ScopeProvider}}, Faulty, Everything, 2, 2},
		"the account":             {smtp, []met{{"own@example.com", "c", mail.ScopeMailbox}}, Faulty, account, 1, 1},
		"the account, slow":       {smtp, []met{{"a@example.com", "h", mail.ScopeMailbox}}, Degraded, account, 1, 1},
		"a sender of the account": {smtp, []met{{"a@example.com", "c", mail.ScopeMailbox}}, Degraded, "a@example.com", 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			q, c := onClock(t)
			p := ActiveProvider{Kind: "x", Keying: test.keying, Sender: "own@example.com", Concurrency: 1}
			if test.keying == smtp {
				p.Account = account
			}
			version, err := declare(t, q, p, "salt", "fingerprint")
			if err != nil {
				t.Fatal(err)
			}
			d := sitDown(t, q, version, nil)
			if test.keying == graph {
				enqueueBatch(t, q, from("b@example.com", mail.Subscription, 1)) // somebody else has mail
				if len(test.met) == 0 {
					enqueueBatch(t, q, from("a@example.com", mail.Subscription, 1))
				}
			}
			since := c.now.Truncate(time.Millisecond)
			for _, m := range test.met {
				key := account
				if test.keying == graph {
					key = m.sender
				}
				d.meet(key, m.sender, m.letter, m.scope)
				if test.mailbox == Everything {
					since = c.now.Truncate(time.Millisecond)
				}
				c.advance(time.Second)
			}
			h := healthNow(t, q)
			if h.State != test.state || h.Mailbox != test.mailbox || h.Held != test.held || h.Mailboxes != test.of || (h.Hold != nil) != (test.mailbox != "") || h.Open == 0 {
				t.Errorf("%+v", h)
			}
			if h.Hold != nil && (!h.Since.Equal(since) || h.Hold.Last.Code != 535 || h.Hold.Last.Reply != "") {
				t.Errorf("since %s, want %s; %+v", h.Since, since, h.Hold)
			}
		})
	}
}

func TestAHeldAccountIsAFaultBesideAHeldSender(t *testing.T) {
	q, c := onClock(t)
	version, err := declare(t, q, ActiveProvider{Kind: "smtp", Keying: ByAccount, Account: account, Sender: "own@example.com", Concurrency: 1}, "salt", "fingerprint")
	if err != nil {
		t.Fatal(err)
	}
	d := sitDown(t, q, version, nil)
	d.meet(account, "a@example.com", "c", mail.ScopeMailbox)
	c.advance(time.Second)
	d.meet(account, "own@example.com", "c", mail.ScopeMailbox)
	if h := healthNow(t, q); h.State != Faulty || h.Mailbox != account {
		t.Errorf("%+v", h)
	}
}

func TestARefusalLastsUntilAnAttemptHasShownThatItIsOver(t *testing.T) {
	for name, p := range map[string]*ActiveProvider{"account": settingsOf("mail.example.com"), "every mailbox": {Kind: "microsoft365", Keying: ByMailbox, Sender: "own@example.com", Concurrency: 1}} {
		q, clock := onClock(t)
		c := change("", "x")
		c.Provider, c.Reason, c.Hold, c.HoldMax = p, "configuration", 15*time.Second, time.Minute
		c.Refused = &mail.Outcome{Class: mail.Configuration, Scope: mail.ScopeProvider, Cause: mail.Credentials, Code: 535}
		activateBy(t, q, c)
		for range 3 {
			if h := healthNow(t, q); h.State != Faulty || h.Hold == nil {
				t.Errorf("%s: nothing was sent, and it is %+v", name, h)
			}
			clock.advance(10 * time.Second)
		}
	}
}

func TestPausesAreNoFault(t *testing.T) {
	q, _ := onClock(t)
	sitDown(t, q, activate(t, q, 1), nil)
	enqueueBatch(t, q, batch(mail.Report, 2))
	if h := healthNow(t, q); h.Pause != nil || h.Paused != 0 {
		t.Errorf("%+v", h)
	}
	for _, key := range []string{account, Everything} {
		if _, err := q.Pause(t.Context(), key, time.Hour, "why", Author{}); err != nil {
			t.Fatal(err)
		}
		h := healthNow(t, q)
		if h.State != Healthy || h.Held != 0 || h.Hold != nil || h.Open != 2 {
			t.Errorf("%+v", h)
		}
		if h.Pause == nil || h.Paused != 1 || h.Account != account {
			t.Errorf("%s is paused, and nothing says so: %+v", key, h)
		}
	}
}

func TestMailWithoutAProviderIsAFault(t *testing.T) {
	q, c := onClock(t)
	if h := healthNow(t, q); h.State != Healthy || h.Open != 0 || !h.Since.IsZero() {
		t.Errorf("%+v", h)
	}
	activate(t, q, 1)
	c.advance(time.Second)
	if err := clearProvider(t, q); err != nil {
		t.Fatal(err)
	}
	since := c.now.Truncate(time.Millisecond)
	c.advance(time.Second)
	enqueue(t, q, message(mail.Alert, "ada@example.net"))
	if h := healthNow(t, q); h.State != Faulty || h.Open != 1 || !h.Since.Equal(since) {
		t.Errorf("%+v, want since %s", h, since)
	}
}

func TestWorkersThatCannotLoadTheSettingsAreAFault(t *testing.T) {
	q, _ := onClock(t)
	version := activate(t, q, 1)
	tells := func(worker, mode, state string) {
		t.Helper()
		if err := q.run(t.Context(), "lease", worker, mode, state).Err(); err != nil {
			t.Fatal(err)
		}
	}
	tells("w1", "new", version+"\tpost1\t")
	tells("w2", "new", "\tpost2\t")
	if h := healthNow(t, q); h.State != Healthy || len(h.Workers) != 2 || h.Workers[0] != (WorkerStatus{ID: "w1", Host: "post1", Version: version}) ||
		!h.Workers[0].CanSend(version) || h.Workers[0].CanSend("2-x") || h.Workers[1].CanSend(version) {
		t.Errorf("one loads: %+v", h)
	}
	tells("w2", "renew", "\tpost2\tno such key")
	if h := healthNow(t, q); h.State != Degraded || h.Workers[1].Fault != "no such key" || h.Workers[1].CanSend("") {
		t.Errorf("one can't: %+v", h)
	}
	tells("w1", "renew", "\tpost1\tno such key")
	if h := healthNow(t, q); h.State != Faulty {
		t.Errorf("none can: %+v", h)
	}
	tells("w1", "end", "")
	tells("w2", "end", "")
	if h := healthNow(t, q); h.State != Healthy || len(h.Workers) != 0 {
		t.Errorf("none runs, and nothing waits: %+v", h)
	}
	enqueue(t, q, message(mail.Alert, "ada@example.net"))
	if h := healthNow(t, q); h.State != Faulty {
		t.Errorf("none runs, and mail waits: %+v", h)
	}
	// What a dead worker told is forgotten with it: it does not come back by itself.
	tells("w2", "renew", "\tpost2\tno such key")
	if h := healthNow(t, q); len(h.Workers) != 0 {
		t.Errorf("a dead worker: %+v", h)
	}
}
