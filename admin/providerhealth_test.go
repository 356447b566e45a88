package admin

import (
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/queue"
)

func TestHealthIsToldInPlainWords(t *testing.T) {
	since := time.Date(2026, 1, 31, 8, 0, 0, 0, time.FixedZone("", 3600))
	hold := func(reason string, o queue.OutcomeReport) *queue.Silence {
		return &queue.Silence{Reason: reason, Since: since, Last: o}
	}
	refused := hold("configuration", queue.OutcomeReport{Class: "configuration", Scope: "provider", Cause: "credentials", Step: "auth", Code: 535, Enhanced: "5.7.8"})
	slow := hold("throttled", queue.OutcomeReport{Class: "throttled", Step: "mail", Code: 421})
	here := queue.WorkerStatus{ID: "1", Host: "post1", Version: "1-x"}
	unable := queue.WorkerStatus{ID: "2", Host: "post2", Fault: "the key is not there"}
	loading := queue.WorkerStatus{ID: "3", Host: "post3", Version: "0-x"}
	settings := &provider.Settings{Kind: provider.KindSMTP, SMTP: provider.SMTPSettings{Host: "mail.example.com", Auth: provider.SMTPAuth{Method: provider.AuthBasic}}}
	active := &queue.Provider{Kind: "smtp", Version: "1-x"}
	everything := &queue.Silence{Reason: "new server", By: "ops", Until: since.Add(time.Hour), All: true}
	account := &queue.Silence{Reason: "new server", Until: since.Add(time.Hour)}
	ready := []queue.WorkerStatus{here}
	for name, test := range map[string]struct {
		provider *queue.Provider
		health   queue.Health
		summary  string
		mailbox  string
		field    string
	}{
		"none":            {&queue.Provider{Kind: "none"}, queue.Health{State: queue.Healthy}, "No provider is active. Mail is accepted, and waits.", "", ""},
		"none, mail":      {&queue.Provider{Kind: "none"}, queue.Health{State: queue.Faulty, Open: 2}, "No provider is active, and 2 messages wait.", "", ""},
		"none, one":       {&queue.Provider{Kind: "none"}, queue.Health{State: queue.Faulty, Open: 1}, "No provider is active, and 1 message waits.", "", ""},
		"well":            {active, queue.Health{State: queue.Healthy, Workers: []queue.WorkerStatus{here}}, "Mail goes", "", ""},
		"no worker":       {active, queue.Health{State: queue.Healthy}, "No worker runs", "", ""},
		"loading":         {active, queue.Health{State: queue.Healthy, Workers: []queue.WorkerStatus{loading}}, "Mail goes", "", ""},
		"one can't load":  {active, queue.Health{State: queue.Degraded, Workers: []queue.WorkerStatus{here, unable}}, "1 worker can't load the settings; the others send.", "", ""},
		"none can load":   {active, queue.Health{State: queue.Faulty, Workers: []queue.WorkerStatus{unable}}, "No worker can load the settings: the key is not there.", "", ""},
		"everything":      {active, queue.Health{State: queue.Faulty, Hold: refused, Mailbox: queue.Everything, Held: 3, Mailboxes: 3}, "No mail goes. The provider refused", "", "/smtp/auth/password"},
		"the account":     {active, queue.Health{State: queue.Faulty, Hold: refused, Mailbox: "mail.example.com:587", Held: 1, Mailboxes: 1}, "No mail goes. The provider refused", "mail.example.com:587", "/smtp/auth/password"},
		"one mailbox":     {active, queue.Health{State: queue.Degraded, Hold: refused, Mailbox: "a@example.com", Held: 1, Mailboxes: 3}, "Mail of 1 mailbox is held; other mail goes. The provider", "a@example.com", "/smtp/auth/password"},
		"slow":            {active, queue.Health{State: queue.Degraded, Hold: slow, Mailbox: queue.Everything, Held: 1, Mailboxes: 1}, "The provider has asked to slow down", "", ""},
		"paused":          {active, queue.Health{State: queue.Healthy, Workers: ready, Pause: everything, Paused: 1, Mailboxes: 1}, `All mail is paused until 2026-01-31T08:00:00Z by ops: "new server".`, "", ""},
		"account paused":  {active, queue.Health{State: queue.Healthy, Workers: ready, Pause: account, Account: "mail.example.com:587", Paused: 1, Mailboxes: 1}, `Mail of mail.example.com:587 is paused until 2026-01-31T08:00:00Z: "new server".`, "", ""},
		"some paused":     {active, queue.Health{State: queue.Healthy, Workers: ready, Paused: 2, Mailboxes: 3}, "Mail of 2 mailboxes is paused; other mail goes", "", ""},
		"paused, refused": {active, queue.Health{State: queue.Faulty, Workers: ready, Hold: refused, Mailbox: queue.Everything, Pause: everything}, `All mail is paused until 2026-01-31T08:00:00Z by ops: "new server". No mail goes. The provider refused`, "", "/smtp/auth/password"},
		"paused, none":    {&queue.Provider{Kind: "none"}, queue.Health{State: queue.Healthy, Pause: everything}, "No provider is active. Mail is accepted", "", ""},
		"of no record":    {active, queue.Health{State: queue.Faulty, Hold: hold("unreachable", queue.OutcomeReport{}), Mailbox: queue.Everything}, "No mail goes. It was refused: unreachable.", "", ""},
	} {
		test.health.Since = since
		h := healthOf(test.provider, &test.health, adviser{settings: settings})
		if h.State != string(test.health.State) || !strings.HasPrefix(h.Summary, test.summary) || strings.Contains(h.Summary, "..") || h.Mailbox != test.mailbox || h.Held != test.health.Held || h.Mailboxes != test.health.Mailboxes ||
			h.Paused != test.health.Paused || (h.Pause != nil) != (test.health.Pause != nil) || h.Pause != nil && strings.Contains(strings.ToLower(h.Summary), "mail goes") && h.Fault == nil ||
			!h.Since.Equal(since) || h.Since.Location() != time.UTC || (h.Fault != nil) != (test.health.Hold != nil) || h.Workers == nil {
			t.Errorf("%s: %+v", name, h)
		}
		if h.Fault != nil && (h.Fault.Field != test.field || h.Fault.Happened == "") {
			t.Errorf("%s: %+v", name, h.Fault)
		}
		for i, w := range h.Workers {
			if q := test.health.Workers[i]; w.ID != q.ID || w.Host != q.Host || w.Fault != q.Fault || w.Ready != (q.Version == "1-x") {
				t.Errorf("%s: %+v", name, w)
			}
		}
	}
}

func TestMailThatWaitsForAProviderIsAFault(t *testing.T) {
	o := openOffice(t)
	o.put(t, byRelay)
	if r := o.call(t, "POST", "/v1/messages", producerToken, oneMessage); r.status != 202 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	if p := o.show(t); p.Health.State != "faulty" || p.Open != 1 || p.Health.Summary != "No worker runs: mail is accepted, and waits for one." {
		t.Errorf("%+v", p)
	}
	if r := o.call(t, "DELETE", "/v1/provider", adminToken, ""); r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	if p := o.show(t); p.Health.State != "faulty" || p.Open != 1 || p.Health.Since.IsZero() || p.Health.Summary != "No provider is active, and 1 message waits." {
		t.Errorf("%+v", p)
	}
}

func TestWorkersAreListedWithWhatTheySendWith(t *testing.T) {
	o := openOffice(t)
	o.put(t, byRelay)
	o.serveMail(t, func(a *queue.Attempt) *queue.Settlement {
		return settled(a, queue.Done, mail.Outcome{Class: mail.Delivered})
	})
	s := &store{api: o.api}
	var err error
	if s.client, err = NewClient(o.URL, operatorToken, nil); err != nil {
		t.Fatal(err)
	}
	accepted, err := s.client.Send(t.Context(), mail.Message{Kind: mail.Alert, Subject: "Fire", Text: "Run", To: []mail.Address{{Address: "ada@example.net"}}}, "")
	if err != nil {
		t.Fatal(err)
	}
	s.until(t, queue.Delivered, accepted.ID)
	h := o.show(t).Health
	if len(h.Workers) != 1 || h.Workers[0].ID == "" || h.Workers[0].Host == "" || !h.Workers[0].Ready || h.Workers[0].Fault != "" || h.State != "ok" {
		t.Errorf("%+v", h)
	}
}
