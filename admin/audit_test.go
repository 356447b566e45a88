package admin

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

func TestTheAuditIsListedNewestFirst(t *testing.T) {
	a := serve(t, nil)
	for i := range 7 {
		if err := a.queue.Note(t.Context(), queue.AuditEntry{By: "ops", From: "192.0.2.1", Action: "mailbox.pause", Target: fmt.Sprint(i), Detail: "why"}); err != nil {
			t.Fatal(err)
		}
	}
	client, err := NewClient(a.URL, operatorToken, nil)
	if err != nil {
		t.Fatal(err)
	}
	all := ""
	var sizes []int
	for cursor := ""; len(sizes) < 9; {
		page, err := client.Audit(t.Context(), cursor, 3)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(page.Entries))
		for _, e := range page.Entries {
			all += e.Target
			if e.At.IsZero() || e.At.Location().String() != "UTC" || e.By != "ops" || e.From != "192.0.2.1" || e.Action != "mailbox.pause" || e.Detail != "why" {
				t.Errorf("%+v", e)
			}
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	if all != "6543210" || !slices.Equal(sizes, []int{3, 3, 1}) {
		t.Errorf("entries %s on pages of %v", all, sizes)
	}
	if page, err := client.Audit(t.Context(), "", 0); err != nil || len(page.Entries) != 7 || page.Next != "" {
		t.Errorf("%+v, %v", page, err)
	}
	// A page goes on where the one before ended, whatever was noted meanwhile.
	first, err := client.Audit(t.Context(), "", 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.queue.Note(t.Context(), queue.AuditEntry{Action: "provider.set", Target: "new"}); err != nil {
		t.Fatal(err)
	}
	if second, err := client.Audit(t.Context(), first.Next, 3); err != nil || second.Entries[0].Target != "3" {
		t.Errorf("%+v, %v", second, err)
	}
	if _, err := client.Audit(t.Context(), "newest", 0); !isProblem(err, invalidRequest) {
		t.Errorf("%v", err)
	}
	// What a newer program may have written does not take the list away.
	if _, err := a.redis.XAdd("{postroom}:audit", "*", []string{"entry", "<xml>"}); err != nil {
		t.Fatal(err)
	}
	if page, err := client.Audit(t.Context(), "", 2); err != nil || page.Entries[0].Action != "unreadable" || page.Entries[1].Target != "new" {
		t.Errorf("%+v, %v", page, err)
	}
}

func TestPausesAreNotedWithWhoAskedForThem(t *testing.T) {
	o := openOffice(t)
	o.put(t, byRelay)
	for _, request := range []string{"/v1/mailboxes/relay.example.com:25/pause", "/v1/pause", "/v1/resume", "/v1/mailboxes/relay.example.com:25/resume"} {
		body := ""
		if strings.HasSuffix(request, "pause") {
			body = `{"reason": "the server moves", "duration": "2h"}`
		}
		if r := o.call(t, "POST", request, operatorToken, body); r.status != 200 {
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	got := o.latest(t, 4)
	for i, want := range []string{"ops 127.0.0.1 mailbox.resume relay.example.com:25: ", "ops 127.0.0.1 all.resume : ", "ops 127.0.0.1 all.pause : until ", "ops 127.0.0.1 mailbox.pause relay.example.com:25: until "} {
		if !strings.HasPrefix(got[i], want) || strings.Contains(want, "until") != strings.HasSuffix(got[i], ": the server moves") {
			t.Errorf("%q, want %q", got[i], want)
		}
	}
	// What was refused is no change.
	o.call(t, "POST", "/v1/pause", operatorToken, `{"reason": ""}`)
	o.call(t, "POST", "/v1/mailboxes/other.example.com:25/resume", operatorToken, "")
	// Nor is a resume where nothing is held or paused.
	o.call(t, "POST", "/v1/mailboxes/relay.example.com:25/resume", operatorToken, "")
	o.call(t, "POST", "/v1/resume", operatorToken, "")
	o.call(t, "POST", "/v1/pause", producerToken, `{"reason": "mine"}`)
	if again := o.latest(t, 4); !slices.Equal(got, again) {
		t.Errorf("%q", again)
	}
}

func TestWhatIsDoneToFailedMailIsNotedWithoutRecipients(t *testing.T) {
	s := openStore(t, func(a *queue.Attempt) *queue.Settlement {
		return settled(a, queue.GiveUp, mail.Outcome{Class: mail.Permanent, Scope: mail.ScopeRecipient, Step: "rcpt", Code: 550, Reply: "550 No such user ada@example.net"})
	})
	var ids []string
	for range 3 {
		accepted, err := s.client.Send(t.Context(), mail.Message{Kind: mail.Alert, Subject: "Fire", Text: "Run", To: []mail.Address{{Address: "ada@example.net"}}}, "")
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, accepted.ID)
	}
	s.until(t, queue.Failed, ids...)
	for _, test := range []struct {
		path, body string
		want       []string // newest first
	}{
		{"requeue", `{"filter": {"recipient": "ada@example.net"}}`, []string{"3 messages requeued", "began: of one recipient or domain"}},
		{"requeue", `{"filter": {"reply": "such user ada", "kind": "alert", "classes": ["permanent", "unknown"]}}`, []string{"3 messages requeued", "began: by words of the reply; class permanent, unknown; kind alert"}},
		{"requeue", `{"filter": {"ids": ["` + ids[0] + `"]}}`, []string{"1 message requeued", "began: id " + ids[0]}},
		{"requeue", `{"filter": {"kind": "report", "mailbox": "own@example.com"}}`, []string{"began: kind report; mailbox own@example.com"}},
		{"requeue", `{"filter": {"until": "2020-01-02T03:04:05Z"}}`, []string{"began: all failed messages; until 2020-01-02T03:04:05Z"}},
		{"delete", `{"filter": {"ids": ["` + ids[0] + `", "` + ids[1] + `"], "from": "2020-01-02T03:04:05+01:00"}}`, []string{"2 messages deleted", "began: 2 ids; from 2020-01-02T02:04:05Z"}},
		{"delete", `{"all": true}`, []string{"1 message deleted", "began: all failed messages"}},
	} {
		before := s.latest(t, 50)
		if r := s.call(t, "POST", "/v1/failed/"+test.path, operatorToken, strings.Replace(test.body, "{", `{"dry_run": true, `, 1)); r.status != 200 || len(s.latest(t, 50)) != len(before) {
			t.Errorf("a dry run is noted: %d %s", r.status, r.body)
		}
		if r := s.call(t, "POST", "/v1/failed/"+test.path, operatorToken, test.body); r.status != 200 {
			t.Fatalf("%d %s", r.status, r.body)
		}
		got := s.latest(t, 50)
		got = got[:len(got)-len(before)]
		var want []string
		for _, detail := range test.want {
			want = append(want, "ops 127.0.0.1 failed."+test.path+" : "+detail)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s %s\n%q\nwant %q", test.path, test.body, got, want)
		}
		if test.path == "requeue" {
			s.until(t, queue.Failed, ids...)
		}
	}
	if r := s.call(t, "POST", "/v1/failed/delete", operatorToken, `{"filter": {"recipient": "nobody at home"}}`); r.status != 422 {
		t.Errorf("%d %s", r.status, r.body)
	}
	for _, e := range s.latest(t, 50) {
		if strings.Contains(e, "ada") || strings.Contains(e, "such user") || strings.Contains(e, "nobody") {
			t.Errorf("the audit names a recipient: %q", e)
		}
	}
}

func TestAnotherSenderThanAllowedIsRefused(t *testing.T) {
	o := openOffice(t)
	o.put(t, strings.Replace(byRelay, `"kind"`, `"allowed_senders": ["news@example.org", "@alerts.example.com"], "kind"`, 1))
	from := func(sender string) (message, batch reply) {
		field := `"from": {"address": "` + sender + `"}, "kind"`
		return o.call(t, "POST", "/v1/messages", producerToken, strings.Replace(oneMessage, `"kind"`, field, 1)),
			o.call(t, "POST", "/v1/batches", producerToken, strings.Replace(twoRecipients, `"kind"`, field, 1))
	}
	for _, sender := range []string{"", "reports@example.com", "Reports@Example.com", "NEWS@example.org", "any@alerts.example.com"} {
		if m, b := from(sender); m.status != 202 || b.status != 202 {
			t.Errorf("from %q: %d %s, %d %s", sender, m.status, m.body, b.status, b.body)
		}
	}
	open := o.open(t)
	for _, sender := range []string{"other@example.com", "news@example.com", "any@below.alerts.example.com"} {
		m, b := from(sender)
		for at, r := range map[string]reply{"/from/address": m, "/message/from/address": b} {
			p := r.problem(t)
			if p.Type != invalidMessage.uri() || len(p.Errors) != 1 || p.Errors[0].Location != at || !strings.Contains(p.Errors[0].Reason, "allowed_senders") || strings.Contains(string(r.body), sender) {
				t.Errorf("from %q: %+v", sender, p)
			}
		}
	}
	if o.open(t) != open {
		t.Error("something was accepted")
	}
	// A change counts at once here.
	o.put(t, byRelay)
	if m, b := from("other@example.com"); m.status != 202 || b.status != 202 {
		t.Errorf("%d %s, %d %s", m.status, m.body, b.status, b.body)
	}
}
