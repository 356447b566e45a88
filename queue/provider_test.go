package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue/queuetest"
)

// settingsOf are an account's settings; what is kept of them names the host.
func settingsOf(host string) *ActiveProvider {
	return &ActiveProvider{Kind: "smtp", Keying: ByAccount, Account: host + ":587", Sender: "reports@example.com", Concurrency: 2, Shown: "shown " + host}
}

// change replaces the active settings by an account's.
func change(expected, host string) ProviderChange {
	return ProviderChange{ID: NewProviderID(), Expected: expected, Provider: settingsOf(host), Sealed: "sealed " + host,
		Entry: AuditEntry{By: "root", From: "192.0.2.1", Action: "provider.set", Target: "smtp", Detail: host}}
}

// activateBy is ActivateProvider of what has to succeed.
func activateBy(t *testing.T, q *Queue, c ProviderChange) string {
	t.Helper()
	version, err := q.ActivateProvider(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return version
}

func activeProviderOf(t *testing.T, q *Queue) *Provider {
	t.Helper()
	p, err := q.Provider(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// noted gives the audit's entries, newest first: action, target and detail.
func noted(t *testing.T, q *Queue) []string {
	t.Helper()
	entries, err := q.Audit(t.Context(), "", 100)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, strings.TrimSpace(e.Action+" "+e.Target+" "+e.Detail))
	}
	return all
}

// fieldsOf gives the fields of the active settings in Redis.
func fieldsOf(t *testing.T, q *Queue) map[string]string {
	t.Helper()
	all, err := q.redis.HGetAll(t.Context(), q.key("provider")).Result()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestSettingsReplaceThoseThatWereExpected(t *testing.T) {
	onEachRedis(t, func(t *testing.T, q *Queue) {
		if p := activeProviderOf(t, q); p.Kind != NoProvider || p.Version != "" || p.Number != 0 || p.Source != "" || p.Declared {
			t.Errorf("%+v", p)
		}
		first := change("", "one.example.com")
		version := activateBy(t, q, first)
		p := activeProviderOf(t, q)
		if version != "1-"+first.ID || p.Version != version || p.ID != first.ID || p.Number != 1 || p.Kind != "smtp" || p.Source != FromAPI || p.By != "root" || p.Since.IsZero() ||
			p.Shown != "shown one.example.com" || p.Sealed != "sealed one.example.com" || p.Account != "one.example.com:587" || p.Sender != "reports@example.com" {
			t.Errorf("%s: %+v", version, p)
		}
		before := fieldsOf(t, q)
		for _, wrong := range []string{"", "2-x", "1-" + NewProviderID(), first.ID} {
			for what, c := range map[string]ProviderChange{"change": change(wrong, "two.example.com"), "clear": {ID: NewProviderID(), Expected: wrong}} {
				if v, err := q.ActivateProvider(t.Context(), c); !errors.Is(err, ErrProviderChanged) || v != "" {
					t.Errorf("%s in place of %q: %q, %v", what, wrong, v, err)
				}
			}
			if err := q.ResealProvider(t.Context(), &Provider{ID: NewProviderID(), Version: wrong}, "sealed anew", AuditEntry{}); !errors.Is(err, ErrProviderChanged) {
				t.Errorf("reseal of %q: %v", wrong, err)
			}
		}
		if !maps.Equal(before, fieldsOf(t, q)) || len(noted(t, q)) != 1 {
			t.Errorf("something has changed: %v, then %v; %v", before, fieldsOf(t, q), noted(t, q))
		}
		graph := change(version, "two.example.com")
		graph.Provider = &ActiveProvider{Kind: "microsoft365", Keying: ByMailbox, Sender: "Own@example.com", Concurrency: 3, Shown: "graph"}
		second := activateBy(t, q, graph)
		if p := activeProviderOf(t, q); !strings.HasPrefix(second, "2-") || p.Kind != "microsoft365" || p.Account != "" || p.Sender != "own@example.com" || p.Shown != "graph" {
			t.Errorf("%+v", p)
		}
		if v := activateBy(t, q, ProviderChange{ID: NewProviderID(), Expected: second, Entry: AuditEntry{By: "boss", Action: "provider.clear", Target: "microsoft365"}}); v != "" {
			t.Errorf("none has version %q", v)
		}
		p = activeProviderOf(t, q)
		if p.Kind != NoProvider || p.Version != "" || p.Number != 3 || p.By != "boss" || p.Sealed != "" || p.Shown != "" || p.Sender != "" {
			t.Errorf("none: %+v", p)
		}
		if fields := slices.Sorted(maps.Keys(fieldsOf(t, q))); !slices.Equal(fields, []string{"by", "id", "kind", "number", "place", "since", "source"}) {
			t.Errorf("of none is kept %v", fields)
		}
		if v := activateBy(t, q, change("", "three.example.com")); !strings.HasPrefix(v, "4-") {
			t.Errorf("version %s after 3", v)
		}
		want := []string{"provider.set smtp three.example.com", "provider.clear microsoft365", "provider.set smtp two.example.com", "provider.set smtp one.example.com"}
		if got := noted(t, q); !slices.Equal(got, want) {
			t.Errorf("audit %q", got)
		}
	})
}

func TestLimitsChangeWithoutAnotherVersion(t *testing.T) {
	q, c := onClock(t)
	first := change("", "one.example.com")
	version := activateBy(t, q, first)
	since := activeProviderOf(t, q).Since
	c.advance(time.Millisecond)
	d := sitDown(t, q, version, nil)
	id := enqueue(t, q, message(mail.Report, "ada@example.net"))
	h, err := q.handOut(t.Context(), "one.example.com:587")
	if err != nil || len(h.turns) != 1 {
		t.Fatalf("%d turns, %v", len(h.turns), err)
	}
	turn := d.run(h.turns[0])
	a := begin(t, turn, nil)
	c.advance(time.Second)
	limits := first
	limits.Expected = version
	limits.Provider = settingsOf("one.example.com")
	limits.Provider.Concurrency, limits.Provider.Limits, limits.Provider.Senders, limits.Sealed = 5, limit("messages", 9), mail.Senders{"reports@example.com"}, "sealed with limits"
	if v := activateBy(t, q, limits); v != version {
		t.Errorf("version %s, want %s", v, version)
	}
	p := activeProviderOf(t, q)
	if !p.Since.Equal(since) || p.Number != 1 || p.Sealed != "sealed with limits" {
		t.Errorf("%+v", p)
	}
	if n, err := q.run(t.Context(), "older").Int(); err != nil || n != 0 {
		t.Errorf("%d attempts are of former settings, %v", n, err)
	}
	if m := mailbox(t, q, "one.example.com:587"); m.Concurrency != 5 || len(m.Limits) != 1 || m.Limits[0].Max != 9 {
		t.Errorf("%+v", m)
	}
	end(turn, delivered(a))
	if s := status(t, q, id); s.State != Delivered {
		t.Errorf("the attempt under way came to %s", s.State)
	}
	if len(noted(t, q)) != 2 {
		t.Errorf("audit %q", noted(t, q))
	}
}

func TestASealOfFormerLimitsDoesNotReplaceANewerOne(t *testing.T) {
	q, _ := onClock(t)
	first := change("", "one.example.com")
	version := activateBy(t, q, first)
	read := activeProviderOf(t, q) // by whoever reseals
	limits := first
	limits.Expected, limits.Sealed = version, "sealed with limits"
	activateBy(t, q, limits)
	if err := q.ResealProvider(t.Context(), read, "former limits, sealed anew", AuditEntry{}); !errors.Is(err, ErrProviderChanged) {
		t.Errorf("%v, want ErrProviderChanged", err)
	}
	if p := activeProviderOf(t, q); p.Sealed != "sealed with limits" {
		t.Errorf("kept is %q", p.Sealed)
	}
}

func TestOfManyChangesAtOnceOneWins(t *testing.T) {
	r := queuetest.Start(t)
	q := open(t, r.Client)
	version := activateBy(t, q, change("", "one.example.com"))
	type result struct {
		host string
		err  error
	}
	results := make(chan result)
	const many = 8
	for i := range many {
		go func() {
			host := fmt.Sprintf("host%d.example.com", i)
			_, err := q.ActivateProvider(context.Background(), change(version, host))
			results <- result{host, err}
		}()
	}
	won := ""
	for range many {
		switch r := <-results; {
		case r.err == nil && won == "":
			won = r.host
		case !errors.Is(r.err, ErrProviderChanged):
			t.Errorf("%s: %v", r.host, r.err)
		}
	}
	if p := activeProviderOf(t, q); p.Sealed != "sealed "+won || p.Shown != "shown "+won || p.Account != won+":587" || p.Number != 2 || len(noted(t, q)) != 2 {
		t.Errorf("%s has won: %+v", won, p)
	}
}

func TestADeclarationReplacesWhatTheAPISet(t *testing.T) {
	r := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: r.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	one, two := open(t, client), open(t, client)
	byAPI := activateBy(t, one, change("", "api.example.com"))
	first, err := declare(t, one, *settingsOf("file.example.com"), "salt", "of one")
	if err != nil || !strings.HasPrefix(first, "2-") {
		t.Fatalf("version %q, %v", first, err)
	}
	p := activeProviderOf(t, one)
	if p.Source != FromFile || p.By != "" || p.Sealed != "" || p.Fingerprint != "of one" || p.Salt != "salt" || !p.Declared || p.Shown != "shown file.example.com" {
		t.Errorf("%+v", p)
	}
	for k, v := range fieldsOf(t, one) {
		if strings.Contains(v, "api.example.com") || strings.Contains(byAPI, v) && k == "id" {
			t.Errorf("%s is left of what the API set: %q", k, v)
		}
	}
	for what, c := range map[string]ProviderChange{"change": change(first, "api.example.com"), "clear": {ID: NewProviderID(), Expected: first}, "of another": change("1-x", "api.example.com")} {
		if _, err := two.ActivateProvider(t.Context(), c); !errors.Is(err, ErrProviderDeclared) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := two.ResealProvider(t.Context(), p, "sealed", AuditEntry{}); !errors.Is(err, ErrProviderDeclared) {
		t.Errorf("reseal: %v", err)
	}
	// The same again changes limits alone; two files that differ replace each other.
	faster := settingsOf("file.example.com")
	faster.Concurrency = 9
	if same, err := declare(t, two, *faster, "salt", "of one"); err != nil || same != first || mailbox(t, one, "file.example.com:587").Concurrency != 9 {
		t.Errorf("the same again: %q, %v", same, err)
	}
	other, err := declare(t, two, *settingsOf("other.example.com"), "salt", "of two")
	if err != nil || !strings.HasPrefix(other, "3-") {
		t.Errorf("another file: %q, %v", other, err)
	}
	again, err := declare(t, one, *settingsOf("file.example.com"), "salt", "of one")
	if err != nil || !strings.HasPrefix(again, "4-") || again == first {
		t.Errorf("the first again: %q, %v", again, err)
	}
	const entry = "provider.set smtp from the configuration file"
	if got := noted(t, one); !slices.Equal(got, []string{entry, entry, entry, "provider.set smtp api.example.com"}) {
		t.Errorf("audit %q", got)
	}
	// None can be declared, too.
	for range 2 {
		if err := clearProvider(t, one); err != nil {
			t.Fatal(err)
		}
		if p := activeProviderOf(t, two); p.Kind != NoProvider || p.Version != "" || p.Number != 5 || p.Shown != "" || !p.Declared || p.Source != FromFile {
			t.Errorf("%+v", p)
		}
	}
	if got := noted(t, one); len(got) != 5 || got[0] != "provider.set none from the configuration file" {
		t.Errorf("audit %q", got)
	}
	r.FastForward(declaredFor + time.Second)
	if v := activateBy(t, two, change("", "api.example.com")); !strings.HasPrefix(v, "6-") {
		t.Errorf("version %s", v)
	}
	if v, err := declare(t, one, *settingsOf("file.example.com"), "salt", "of one"); err != nil || !strings.HasPrefix(v, "7-") {
		t.Errorf("the file's again: %s, %v", v, err)
	}
}

func TestUnderwayCountsAttemptsOfFormerSettings(t *testing.T) {
	q, c := onClock(t)
	version := activateBy(t, q, change("", "one.example.com"))
	d := sitDown(t, q, version, nil)
	enqueueBatch(t, q, batch(mail.Report, 4))
	out := func(d *desk, key string) []*Turn {
		t.Helper()
		h, err := q.handOut(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		var turns []*Turn
		for _, turn := range h.turns {
			turns = append(turns, d.run(turn))
		}
		return turns
	}
	former := begun(out(d, "one.example.com:587"))
	if len(former) != 2 {
		t.Fatalf("%d began, want 2", len(former))
	}
	c.advance(time.Millisecond)
	other := sitDown(t, q, activateBy(t, q, change(version, "two.example.com")), nil)
	c.advance(time.Millisecond)
	newer := begun(out(other, "two.example.com:587"))
	if len(newer) != 2 {
		t.Fatalf("%d of the new settings began, want 2", len(newer))
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if n, err := q.Underway(short); err != nil || n != 2 {
		t.Errorf("%d are left, %v; want 2", n, err)
	}
	left := 2
	for turn, a := range former {
		end(turn, delivered(a))
		left--
		if n, err := q.run(t.Context(), "older").Int(); err != nil || n != left {
			t.Errorf("%d are left, %v; want %d", n, err, left)
		}
	}
	patient, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if n, err := q.Underway(patient); err != nil || n != 0 {
		t.Errorf("%d are left, %v", n, err)
	}
	// Without a provider all that is under way is of former settings.
	c.advance(time.Millisecond)
	activateBy(t, q, ProviderChange{ID: NewProviderID(), Expected: activeProviderOf(t, q).Version})
	if n, err := q.run(t.Context(), "older").Int(); err != nil || n != 2 {
		t.Errorf("%d are left of none, %v; want 2", n, err)
	}
}

func TestSettingsThatWereRefusedBeginWithAHold(t *testing.T) {
	for name, test := range map[string]struct {
		provider *ActiveProvider
		held     string
	}{
		"account":       {settingsOf("mail.example.com"), account},
		"every mailbox": {&ActiveProvider{Kind: "microsoft365", Keying: ByMailbox, Sender: "own@example.com", Concurrency: 1}, Everything},
	} {
		t.Run(name, func(t *testing.T) {
			q, clock := onClock(t)
			b := enqueueBatch(t, q, batch(mail.Report, 3))
			c := change("", "x")
			c.Provider = test.provider
			c.Refused = &mail.Outcome{Class: mail.Configuration, Scope: mail.ScopeProvider, Cause: mail.Credentials, Step: "auth", Code: 535, Reply: "535 ada@example.net is unknown"}
			c.Reason, c.Hold, c.HoldMax = "configuration", 15*time.Second, time.Minute
			d := sitDown(t, q, activateBy(t, q, c), nil)
			key := account
			if test.held == Everything {
				key = "reports@example.com"
			}
			out := func() map[*Turn]*Attempt {
				t.Helper()
				h, err := q.handOut(t.Context(), key)
				if err != nil {
					t.Fatal(err)
				}
				var turns []*Turn
				for _, turn := range h.turns {
					turns = append(turns, d.run(turn))
				}
				return begun(turns)
			}
			h, err := q.Health(t.Context())
			if err != nil || h.State != Faulty || h.Mailbox != test.held || h.Hold.Reason != "configuration" || h.Hold.Refusals != 1 || h.Hold.Last.Cause != string(mail.Credentials) ||
				h.Hold.Last.Code != 535 || h.Hold.Last.Step != "auth" || h.Hold.Last.Reply != "" || !h.Hold.Until.Equal(clock.now.Truncate(time.Millisecond).Add(15*time.Second)) {
				t.Fatalf("%+v %+v, %v", h, h.Hold, err)
			}
			clock.advance(15*time.Second - time.Millisecond)
			if n := len(out()); n != 0 {
				t.Fatalf("%d began too early", n)
			}
			clock.advance(time.Millisecond)
			turn, a := only(t, out())
			refused := holding(a, "c", mail.ScopeProvider)
			refused.Hold = 15 * time.Second
			end(turn, refused)
			if h, err := q.Health(t.Context()); err != nil || h.Hold.Refusals != 2 || !h.Hold.Until.Equal(clock.now.Truncate(time.Millisecond).Add(30*time.Second)) {
				t.Errorf("refused again: %+v, %v", h.Hold, err)
			}
			clock.advance(30 * time.Second)
			turn, a = only(t, out())
			for a != nil {
				a = turn.Next(delivered(a))
			}
			for range 3 {
				for turn, a := range out() {
					for a != nil {
						a = turn.Next(delivered(a))
					}
				}
			}
			s, err := q.Batch(t.Context(), b.ID)
			if h, err2 := q.Health(t.Context()); err != nil || err2 != nil || s.Delivered != 3 || h.State != Healthy {
				t.Errorf("after a mail has gone: %+v, %+v", s, h)
			}
		})
	}
}

func TestScriptsOfTheProviderMayRunTwice(t *testing.T) {
	r := queuetest.Start(t)
	q := through(t, r, &line{twice: true})
	entries := 0
	see := func(what, version string, number int) {
		t.Helper()
		entries++
		if p := activeProviderOf(t, q); p.Version != version || p.Number != number || len(noted(t, q)) != entries {
			t.Fatalf("%s: version %q; %+v; %q", what, version, p, noted(t, q))
		}
	}
	declared, err := declare(t, q, *settingsOf("file.example.com"), "salt", "fingerprint")
	if err != nil {
		t.Fatal(err)
	}
	see("declare", declared, 1)
	if err := clearProvider(t, q); err != nil {
		t.Fatal(err)
	}
	see("declare none", "", 2)
	r.Client.Del(t.Context(), q.key("declared"))
	first := change("", "one.example.com")
	first.Refused, first.Reason, first.Hold, first.HoldMax = &mail.Outcome{Class: mail.Configuration, Code: 535}, "configuration", time.Minute, time.Hour
	version := activateBy(t, q, first)
	see("activate", version, 3)
	m := mailbox(t, q, "one.example.com:587")
	if m.Hold == nil || m.Hold.Refusals != 1 {
		t.Errorf("hold: %+v", m.Hold)
	}
	limits := first
	limits.Expected, limits.Refused = version, nil
	if v := activateBy(t, q, limits); v != version {
		t.Errorf("limits: version %s", v)
	}
	see("limits", version, 3)
	if err := q.ResealProvider(t.Context(), activeProviderOf(t, q), "sealed anew", AuditEntry{Action: "provider.reseal"}); err != nil {
		t.Fatal(err)
	}
	see("reseal", version, 3)
	if p := activeProviderOf(t, q); p.Sealed != "sealed anew" || p.Shown != "shown one.example.com" {
		t.Errorf("reseal: %+v", p)
	}
	if _, err := q.Pause(t.Context(), Everything, time.Hour, "why", Author{"ops", "192.0.2.1"}); err != nil {
		t.Fatal(err)
	}
	see("pause", version, 3)
	if _, err := q.Resume(t.Context(), Everything, Author{"ops", "192.0.2.1"}); err != nil {
		t.Fatal(err)
	}
	see("resume", version, 3)
	if err := q.Release(t.Context(), "one.example.com:587", true); err != nil {
		t.Fatal(err)
	}
	enqueue(t, q, message(mail.Report, "ada@example.net"))
	if m := mailbox(t, q, "one.example.com:587"); m.Hold == nil || !m.Hold.Trying {
		t.Errorf("release to try: %+v", m.Hold)
	}
	if err := q.Release(t.Context(), "one.example.com:587", false); err != nil || mailbox(t, q, "one.example.com:587").Hold != nil {
		t.Errorf("release: %v", err)
	}
	if n, err := q.Underway(t.Context()); err != nil || n != 0 {
		t.Errorf("%d, %v", n, err)
	}
	for range 2 { // the same entry is another one when it is noted again
		if err := q.Note(t.Context(), AuditEntry{Action: "provider.verify"}); err != nil {
			t.Fatal(err)
		}
		see("note", version, 3)
	}
	if v := activateBy(t, q, ProviderChange{ID: NewProviderID(), Expected: version, Entry: AuditEntry{Action: "provider.clear"}}); v != "" {
		t.Errorf("clear: %q", v)
	}
	see("clear", "", 4)
	ration := Ration{Name: "x", Window: time.Minute, Each: 2, All: 3}
	for i, by := range []string{"a", "a", "b"} {
		if wait, err := q.Take(t.Context(), ration, by); err != nil || wait != 0 {
			t.Errorf("take %d: %v, %v", i, wait, err)
		}
	}
	if wait, err := q.Take(t.Context(), ration, "b"); err != nil || wait <= 0 {
		t.Errorf("a fourth: %v, %v", wait, err)
	}
}

func TestAllowedSendersAreSeenByOthersWithinTheirTime(t *testing.T) {
	q, c := onClock(t)
	client := redis.NewClient(&redis.Options{Addr: c.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	elsewhere := open(t, client)
	from := func(q *Queue, sender string) []string {
		t.Helper()
		m, b := message(mail.Report, "ada@example.net"), batch(mail.Report, 2)
		m.From.Address, b.Message.From.Address = sender, sender
		var at []string
		if _, err := q.Enqueue(t.Context(), m); err != nil {
			at = append(at, problems(t, err)[0].Field)
		}
		if _, err := q.EnqueueBatch(t.Context(), b); err != nil {
			at = append(at, problems(t, err)[0].Field)
		}
		return at
	}
	refused := []string{"/from/address", "/message/from/address"}
	first := change("", "one.example.com")
	version := activateBy(t, q, first)
	for _, q := range []*Queue{q, elsewhere} {
		if at := from(q, "any@example.net"); at != nil {
			t.Errorf("without a list %v is refused", at)
		}
	}
	first.Expected, first.Provider.Senders = version, mail.Senders{"news@example.org", "@alerts.example.com"}
	activateBy(t, q, first)
	for sender, want := range map[string][]string{"": nil, "reports@example.com": nil, "REPORTS@example.com": nil, "News@example.org": nil, "any@Alerts.example.com": nil,
		"any@example.net": refused, "other@example.org": refused, "any@x.alerts.example.com": refused} {
		if at := from(q, sender); !slices.Equal(at, want) {
			t.Errorf("%q: refused at %v, want %v", sender, at, want)
		}
	}
	if limitsFor > 5*time.Second {
		t.Errorf("others go by what they read %s before", limitsFor)
	}
	elsewhere.known.mu.Lock()
	elsewhere.known.read = elsewhere.known.read.Add(-limitsFor)
	elsewhere.known.mu.Unlock()
	if at := from(elsewhere, "any@example.net"); !slices.Equal(at, refused) {
		t.Errorf("elsewhere: refused at %v", at)
	}
	// Who waits already is sent; none allows all again.
	activateBy(t, q, ProviderChange{ID: NewProviderID(), Expected: version})
	if at := from(q, "any@example.net"); at != nil {
		t.Errorf("without a provider: refused at %v", at)
	}
}
