package admin

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// advised gives what a message, its hold, its mailbox, its batch and the provider say about what the message has met.
func (o *office) advised(t *testing.T, batch, id string) (own *Advice, others map[string]*Advice) {
	t.Helper()
	var m MessageStatus
	var b BatchStatus
	var page MailboxPage
	for at, into := range map[string]any{"/v1/messages/" + id: &m, "/v1/batches/" + batch: &b, "/v1/mailboxes": &page} {
		if r := o.call(t, "GET", at, operatorToken, ""); r.status != 200 || json.Unmarshal(r.body, into) != nil {
			t.Fatalf("%s: %d %s", at, r.status, r.body)
		}
	}
	if m.Hold == nil || m.Hold.Last == nil || b.Hold == nil || b.Hold.Last == nil || len(page.Mailboxes) != 1 || page.Mailboxes[0].Hold == nil || len(m.Attempts) == 0 {
		t.Fatalf("%+v\n%+v\n%+v", m, b, page)
	}
	f := o.show(t).Health.Fault
	last := m.Attempts[len(m.Attempts)-1]
	return last.Outcomes[0].Advice, map[string]*Advice{"hold": m.Hold.Last.Advice, "batch": b.Hold.Last.Advice, "mailbox": page.Mailboxes[0].Hold.Last.Advice,
		"provider": {Field: f.Field, Happened: f.Happened, Postroom: f.Postroom, Remedy: f.Remedy}}
}

// meet has a message of a batch meet o, and gives the ids of both.
func (o *office) meet(t *testing.T, met mail.Outcome, reason string) (batch, id string) {
	t.Helper()
	done := make(chan string, 9)
	o.serveMail(t, func(a *queue.Attempt) *queue.Settlement {
		s := settled(a, queue.Back, met)
		s.Hold, s.HoldMax, s.Reason = time.Hour, 2*time.Hour, reason
		done <- a.MessageID
		return s
	})
	r, err := o.queue.EnqueueBatch(t.Context(), mail.Batch{Message: mail.Message{Kind: mail.Report, Subject: "s", Text: "t"},
		Recipients: []mail.Recipient{{To: []mail.Address{{Address: "ada@example.net"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	id = <-done
	s := &store{api: o.api}
	if s.client, err = NewClient(o.URL, operatorToken, nil); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		m, err := s.client.Message(t.Context(), id)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%+v, %v", m, err)
		}
		if m.State == queue.Queued && m.Hold != nil { // what was read before may be told for a second
			return r.ID, id
		}
	}
}

func TestTheSameFaultIsToldInTheSameWordsEverywhere(t *testing.T) {
	for name, test := range map[string]struct {
		met    mail.Outcome
		reason string
		field  string
	}{
		"no STARTTLS":    {mail.Outcome{Class: mail.Configuration, Scope: mail.ScopeProvider, Cause: mail.StartTLSMissing, Step: "tls", Reply: "the server does not offer STARTTLS"}, "configuration", "/smtp/security"},
		"no connection":  {mail.Outcome{Class: mail.Temporary, Scope: mail.ScopeProvider, Step: "dial", Reply: "connection refused"}, "unreachable", "/smtp/host"},
		"wrong password": {wrongPassword, "configuration", "/smtp/auth/password"},
		// Its words tell which login is wanted, and no hold keeps them.
		"no login": {mail.Outcome{Class: mail.Configuration, Scope: mail.ScopeProvider, Cause: mail.NotAuthenticated, Step: "mail", Code: 530, Reply: "530 Must issue a STARTTLS command first"}, "configuration", "/smtp/auth/method"},
		// What the settings have no part in.
		"mailbox full": {mail.Outcome{Class: mail.Configuration, Scope: mail.ScopeProvider, Cause: mail.MailboxFull, Step: "body", Code: 554}, "configuration", ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := openOffice(t, keyOf("a"))
			o.put(t, byPassword)
			batch, id := o.meet(t, test.met, test.reason)
			own, others := o.advised(t, batch, id)
			if own == nil || own.Field != test.field || own.Happened == "" || own.Postroom == "" || own.Remedy == "" {
				t.Fatalf("%+v", own)
			}
			for where, other := range others {
				if other == nil || *other != *own {
					t.Errorf("%s says\n%+v, the attempt\n%+v", where, other, own)
				}
			}
		})
	}
}

func TestAMessageIsToldWhatHoldsItNowAndNotWhatItMetBefore(t *testing.T) {
	o := openOffice(t, keyOf("a"))
	o.put(t, byRelay)
	batch, id := o.meet(t, mail.Outcome{Class: mail.Configuration, Scope: mail.ScopeProvider, Cause: mail.StartTLSMissing, Step: "tls"}, "configuration")
	fresh, err := o.queue.Enqueue(t.Context(), mail.Message{Kind: mail.Report, To: []mail.Address{{Address: "bob@example.net"}}, Subject: "s", Text: "t"})
	if err != nil {
		t.Fatal(err)
	}
	o.meets(refuses(wrongPassword))
	if c := o.put(t, byPassword); c.Result != "saved_not_valid" {
		t.Fatalf("%+v", c)
	}
	own, others := o.advised(t, batch, id)
	if own.Field != "" || !strings.Contains(own.Happened, "STARTTLS") {
		t.Errorf("of the former settings: %+v", own)
	}
	for where, a := range others {
		if a.Field != "/smtp/auth/password" || *a != *others["hold"] {
			t.Errorf("%s: %+v", where, a)
		}
	}
	for _, one := range []string{id, fresh.ID} {
		r := o.call(t, "GET", "/v1/messages/"+one, producerToken, "")
		var m MessageStatus
		r.decode(t, &m)
		if m.Hold == nil || m.Hold.Last.Cause != "credentials" || m.Hold.Last.Reply != "" || !strings.Contains(m.WaitsFor, "user name or the password (535 5.7.8).") ||
			one == id && !m.Attempts[len(m.Attempts)-1].Former {
			t.Errorf("%s", r.body)
		}
	}
}
