package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/throttle"
)

const onePause = `{"reason": "the list is wrong", "duration": "2h"}`

// activate makes a provider the active one: by mailboxes, or by one account if that is not "".
func (a *api) activate(t *testing.T, account string) {
	t.Helper()
	p := queue.ActiveProvider{Kind: "microsoft365", Keying: queue.ByMailbox, Sender: "own@example.com", Concurrency: 2,
		Limits: []throttle.Limit{{Name: throttle.Messages, Max: 30, Window: time.Minute}}}
	if account != "" {
		p.Kind, p.Keying, p.Account = "smtp", queue.ByAccount, account
	}
	if _, err := a.queue.DeclareProvider(t.Context(), &p, "salt", "settings of "+account, "here"); err != nil {
		t.Fatal(err)
	}
}

// accept hands in one report of a sender and gives its id.
func (a *api) accept(t *testing.T, sender string) string {
	t.Helper()
	r, err := a.queue.Enqueue(t.Context(), mail.Message{Kind: mail.Report, From: mail.Address{Address: sender}, Subject: "s", Text: "t",
		To: []mail.Address{{Address: "ada@example.net"}}})
	if err != nil {
		t.Fatal(err)
	}
	return r.ID
}

func (a *api) mailbox(t *testing.T, address string) Mailbox {
	t.Helper()
	r := a.call(t, "GET", "/v1/mailboxes/"+url.PathEscape(address), operatorToken, "")
	if r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	var m Mailbox
	r.decode(t, &m)
	return m
}

func TestAMailboxIsShownPausedAndResumed(t *testing.T) {
	a := serve(t, nil)
	a.activate(t, "")
	id := a.accept(t, "News@example.com")
	m := a.mailbox(t, "NEWS@example.com")
	if m.Address != "news@example.com" || m.State != "no_worker" || m.Workers != 0 || m.Backlog.Report != 1 || m.Concurrency != 2 || m.Pause != nil ||
		len(m.Limits) != 1 || m.Limits[0] != (Limit{Name: "messages", Scope: "mailbox", Max: 30, Window: 60}) {
		t.Errorf("%+v", m)
	}

	r := a.call(t, "POST", "/v1/mailboxes/news@example.com/pause", operatorToken, onePause)
	var paused Paused
	r.decode(t, &paused)
	if in := time.Until(paused.Until); r.status != 200 || paused.Address != "news@example.com" || in > 2*time.Hour || in < 2*time.Hour-time.Minute ||
		!strings.Contains(paused.Note, "ends by itself") {
		t.Errorf("%d %s", r.status, r.body)
	}
	m = a.mailbox(t, "news@example.com")
	if m.State != "paused" || m.Pause == nil || m.Pause.Reason != "the list is wrong" || m.Pause.By != "ops" || m.Pause.Scope != "mailbox" ||
		!m.Pause.Until.Equal(paused.Until.Truncate(time.Millisecond)) || !strings.Contains(m.Summary, `by ops: "the list is wrong". No worker runs either. 1 message waits.`) {
		t.Errorf("%+v, %+v", m, m.Pause)
	}
	var s MessageStatus
	a.call(t, "GET", "/v1/messages/"+id, producerToken, "").decode(t, &s)
	if !strings.HasPrefix(s.WaitsFor, "Mail of news@example.com is paused until ") {
		t.Errorf("the message: %q", s.WaitsFor)
	}
	if log := a.log.String(); !strings.Contains(log, `"msg":"paused","mailbox":"news@example.com","by":"ops"`) || strings.Contains(log, "the list is wrong") {
		t.Errorf("log: %s", log)
	}

	for _, ended := range []bool{true, false} { // twice is fine
		r := a.call(t, "POST", "/v1/mailboxes/news@example.com/resume", adminToken, "")
		var resumed Resumed
		r.decode(t, &resumed)
		if r.status != 200 || resumed != (Resumed{"news@example.com", ended, "Mail of news@example.com does not go: no worker runs. 1 message waits."}) {
			t.Errorf("%d %s", r.status, r.body)
		}
	}
}

func TestEverythingIsPausedAndResumed(t *testing.T) {
	a := serve(t, nil)
	var paused Paused
	// Without a provider too: that is when somebody may want to look before anything goes.
	if r := a.call(t, "POST", "/v1/pause", operatorToken, `{"reason": "maintenance"}`); r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	} else if r.decode(t, &paused); paused.Address != "" || time.Until(paused.Until) < 24*time.Hour-time.Minute {
		t.Errorf("%s", r.body)
	}
	a.activate(t, "")
	id := a.accept(t, "news@example.com")
	if m := a.mailbox(t, "news@example.com"); m.Pause == nil || m.Pause.Scope != "everything" || m.Pause.Reason != "maintenance" {
		t.Errorf("%+v", m)
	}
	// A mailbox that is resumed stays paused with everything, and the answer says so.
	var resumed Resumed
	a.call(t, "POST", "/v1/mailboxes/news@example.com/resume", operatorToken, "").decode(t, &resumed)
	if resumed.Ended || !strings.HasPrefix(resumed.Summary, "All mail is paused until ") {
		t.Errorf("%+v", resumed)
	}
	var b BatchAccepted
	a.call(t, "POST", "/v1/batches", producerToken, strings.Replace(twoRecipients, `"subject"`, `"from": {"address": "news@example.com"}, "subject"`, 1)).decode(t, &b)
	var batch BatchStatus
	a.call(t, "GET", "/v1/batches/"+b.ID, producerToken, "").decode(t, &batch)
	if !strings.HasPrefix(batch.WaitsFor, "Its last message waits: all mail is paused until ") {
		t.Errorf("the batch: %q", batch.WaitsFor)
	}

	a.call(t, "POST", "/v1/mailboxes/other@example.com/pause", operatorToken, onePause)
	resumed = Resumed{}
	a.call(t, "POST", "/v1/resume", operatorToken, "").decode(t, &resumed)
	if want := (Resumed{"", true, "Nothing stops all mail. Mailboxes that are held or paused by themselves: 1."}); resumed != want {
		t.Errorf("%+v", resumed)
	}
	a.call(t, "POST", "/v1/mailboxes/other@example.com/resume", operatorToken, "")
	a.call(t, "POST", "/v1/resume", operatorToken, "").decode(t, &resumed)
	if want := (Resumed{"", false, "Nothing stops all mail."}); resumed != want {
		t.Errorf("again: %+v", resumed)
	}
	var s MessageStatus
	a.call(t, "GET", "/v1/messages/"+id, producerToken, "").decode(t, &s)
	if s.WaitsFor != "It waits until a worker runs: there is none." {
		t.Errorf("the message: %q", s.WaitsFor)
	}
}

func TestMailboxesComeInPages(t *testing.T) {
	a := serve(t, nil)
	var page MailboxPage
	r := a.call(t, "GET", "/v1/mailboxes", operatorToken, "")
	if r.decode(t, &page); r.status != 200 || page.Mailboxes == nil || len(page.Mailboxes) != 0 {
		t.Errorf("without a provider: %d %s", r.status, r.body)
	}
	a.activate(t, "")
	for _, name := range []string{"c", "a", "b"} {
		a.accept(t, name+"@example.com")
	}
	for _, test := range []struct{ query, want, after string }{
		{"", "a@example.com b@example.com c@example.com", ""},
		{"?limit=3", "a@example.com b@example.com c@example.com", ""},
		{"?limit=2", "a@example.com b@example.com", "b@example.com"},
		{"?limit=2&after=b%40example.com", "c@example.com", ""},
		{"?after=b", "b@example.com c@example.com", ""}, // it may have gone meanwhile
		{"?after=z", "", ""},
	} {
		var page MailboxPage
		a.call(t, "GET", "/v1/mailboxes"+test.query, operatorToken, "").decode(t, &page)
		var got []string
		for _, m := range page.Mailboxes {
			got = append(got, m.Address)
		}
		if strings.Join(got, " ") != test.want || page.After != test.after {
			t.Errorf("%s: %v, after %q", test.query, got, page.After)
		}
	}
	all := make([]*queue.Mailbox, 150)
	for i := range all {
		all[i] = &queue.Mailbox{Key: fmt.Sprintf("%03d@example.com", i)}
	}
	if page := mailboxPage(all, "", 100, adviser{}); len(page.Mailboxes) != 100 || page.After != "099@example.com" {
		t.Errorf("%d, after %q", len(page.Mailboxes), page.After)
	}
}

func TestAnAccountIsFoundByItsNameOnly(t *testing.T) {
	for _, account := range []string{"mail.example.com:587", `CORP\mailer`, "corp/mailer", "apikey"} {
		t.Run(account, func(t *testing.T) {
			a := serve(t, nil)
			a.activate(t, account)
			if m := a.mailbox(t, account); m.Address != strings.ToLower(account) {
				t.Errorf("%+v", m)
			}
			if r := a.call(t, "POST", "/v1/mailboxes/"+url.PathEscape(account)+"/pause", operatorToken, onePause); r.status != 200 {
				t.Errorf("%d %s", r.status, r.body)
			}
			// A sender that has no limits of its own: to pause it would stop nothing.
			p := a.call(t, "POST", "/v1/mailboxes/own@example.com/pause", operatorToken, onePause).problem(t)
			if p.Type != noSuchMailbox.uri() || !strings.Contains(p.Detail, "account "+strings.ToLower(account)) {
				t.Errorf("%+v", p)
			}
		})
	}
}

func TestAMailboxIsAnAddress(t *testing.T) {
	a := serve(t, nil)
	a.activate(t, "")
	a.accept(t, "news@example.com")
	for _, address := range []string{"*", "news", "mail.example.com:587", "a@b@c", "news@example.com "} {
		r := a.call(t, "POST", "/v1/mailboxes/"+url.PathEscape(address)+"/pause", operatorToken, onePause)
		if address == "news@example.com " { // spaces around it are none of it
			if r.status != 200 {
				t.Errorf("%q: %d %s", address, r.status, r.body)
			}
			continue
		}
		if p := r.problem(t); p.Type != noSuchMailbox.uri() || !strings.Contains(p.Detail, "GET /v1/mailboxes") {
			t.Errorf("%q: %+v", address, p)
		}
	}
	// As the sender is kept, and not as it is written.
	if m := a.mailbox(t, "News@Bücher.example"); m.Address != "news@xn--bcher-kva.example" {
		t.Errorf("%+v", m)
	}
}

func TestParsePause(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"2h": 2 * time.Hour, "90m": 90 * time.Minute, "1s": time.Second, "1h30m": 90 * time.Minute, "7d": 7 * day, "1.5d": 36 * time.Hour,
		"30d": 30 * day, "720h": 30 * day,
		"": 0, "0": 0, "2": 0, "999ms": 0, "-2h": 0, "-1d": 0, "30.1d": 0, "721h": 0, "d": 0, "nand": 0, "infd": 0, "1e300d": 0, "1d12h": 0, "tomorrow": 0,
	} {
		if got, err := ParsePause(s); got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}

func TestClientShowsPausesAndResumesMailboxes(t *testing.T) {
	a := serve(t, nil)
	a.activate(t, "")
	c, err := NewClient(a.URL, operatorToken, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	a.accept(t, "a@example.com")
	a.accept(t, "b/c@example.com")
	page, err := c.Mailboxes(ctx, "", 1)
	if err != nil || len(page.Mailboxes) != 1 || page.After != "a@example.com" {
		t.Fatalf("%+v, %v", page, err)
	}
	if page, err = c.Mailboxes(ctx, page.After, 0); err != nil || len(page.Mailboxes) != 1 || page.Mailboxes[0].Address != "b/c@example.com" || page.After != "" {
		t.Errorf("%+v, %v", page, err)
	}
	paused, err := c.PauseMailbox(ctx, "b/c@example.com", "the list is wrong", 90*time.Minute)
	if err != nil || paused.Address != "b/c@example.com" || time.Until(paused.Until) > 90*time.Minute {
		t.Errorf("%+v, %v", paused, err)
	}
	if paused, err = c.PauseAll(ctx, "maintenance", 0); err != nil || paused.Address != "" || time.Until(paused.Until) < 23*time.Hour {
		t.Errorf("%+v, %v", paused, err)
	}
	if m, err := c.Mailbox(ctx, "b/c@example.com"); err != nil || m.Pause == nil || m.Pause.Reason != "maintenance" || m.Pause.Scope != "everything" {
		t.Errorf("%+v, %v", m, err)
	}
	if r, err := c.ResumeAll(ctx); err != nil || !r.Ended || r.Address != "" {
		t.Errorf("%+v, %v", r, err)
	}
	if m, err := c.Mailbox(ctx, "b/c@example.com"); err != nil || m.Pause == nil || m.Pause.Reason != "the list is wrong" {
		t.Errorf("%+v, %v", m, err)
	}
	if r, err := c.ResumeMailbox(ctx, "b/c@example.com"); err != nil || !r.Ended || r.Address != "b/c@example.com" {
		t.Errorf("%+v, %v", r, err)
	}
	var p *Problem
	if _, err := c.PauseAll(ctx, "", time.Hour); !errors.As(err, &p) || p.Errors[0].Location != "/reason" {
		t.Errorf("no reason: %v", err)
	}
	if _, err := c.Mailbox(ctx, "*"); !errors.As(err, &p) || p.Type != noSuchMailbox.uri() {
		t.Errorf("everything as a mailbox: %v", err)
	}
}

func TestWhatIsNotKnownIsLeftOut(t *testing.T) {
	js, err := json.Marshal(mailboxOf(&queue.Mailbox{Key: "own@example.com"}, adviser{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"next", "through", "binding", "hold", "pause"} {
		if strings.Contains(string(js), `"`+field+`"`) {
			t.Errorf("%s is there: %s", field, js)
		}
	}
}

func TestWhatWaitsForAProviderIsNoMailboxsAndIsCounted(t *testing.T) {
	a := serve(t, nil)
	page := func() (p MailboxPage) {
		a.call(t, "GET", "/v1/mailboxes", operatorToken, "").decode(t, &p)
		return p
	}
	if p := page(); p.Waiting != 0 || len(p.Mailboxes) != 0 {
		t.Errorf("nothing waits: %+v", p)
	}
	a.accept(t, "news@example.com")
	a.accept(t, "other@example.com")
	if p := page(); p.Waiting != 2 || len(p.Mailboxes) != 0 {
		t.Errorf("two wait: %+v", p)
	}
	a.activate(t, "")
	if p := page(); p.Waiting != 0 || len(p.Mailboxes) == 0 {
		t.Errorf("a provider is active: %+v", p)
	}
}
