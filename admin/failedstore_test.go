package admin

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/http/httptest"
	netmail "net/mail"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/queue/queuetest"
)

// part is a leaf of a message: its type, its file name if it has one, and what it holds.
type part struct{ mediaType, name, content string }

// parsed is a message as the standard library reads it.
type parsed struct {
	header netmail.Header
	parts  []part
}

func parseMail(t *testing.T, raw []byte) parsed {
	t.Helper()
	m, err := netmail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return parsed{m.Header, leaves(t, m.Header.Get, m.Body)}
}

func leaves(t *testing.T, header func(string) string, body io.Reader) []part {
	t.Helper()
	mediaType, params, err := mime.ParseMediaType(header("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(mediaType, "multipart/") {
		var all []part
		for r := multipart.NewReader(body, params["boundary"]); ; {
			p, err := r.NextRawPart()
			if errors.Is(err, io.EOF) {
				return all
			} else if err != nil {
				t.Fatal(err)
			}
			all = append(all, leaves(t, p.Header.Get, p)...)
		}
	}
	switch header("Content-Transfer-Encoding") {
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	}
	content, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	_, disposition, _ := mime.ParseMediaType(header("Content-Disposition"))
	return []part{{mediaType, disposition["filename"], string(content)}}
}

// store is an API on a real Redis, with a worker that settles as it is told.
type store struct {
	*api
	client *Client
}

func openStore(t *testing.T, settle func(*queue.Attempt) *queue.Settlement) *store {
	t.Helper()
	log := &logbook{}
	q, err := queue.Open(t.Context(), queue.Options{Client: queuetest.Start(t).Client, Logger: log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	s := &store{api: &api{queue: q, log: log}}
	s.Server = httptest.NewServer(NewHandler(Options{Queue: q, Tokens: testTokens(), Logger: log.logger()}))
	t.Cleanup(s.Close)
	if s.client, err = NewClient(s.URL, operatorToken, nil); err != nil {
		t.Fatal(err)
	}
	_, err = q.DeclareProvider(t.Context(), &queue.ActiveProvider{Kind: "smtp", Keying: queue.ByAccount, Account: "mail.example.com:587",
		Sender: "own@example.com", Concurrency: 2, Shown: `{"settings": {"kind": "smtp", "sender": {"address": "own@example.com", "name": "Own"}}}`}, "salt", "fingerprint", "here")
	if err != nil {
		t.Fatal(err)
	}
	c := q.NewConsumer(queue.ConsumerOptions{CheckInterval: 5 * time.Millisecond, Grace: time.Second,
		Handle: func(_ context.Context, turn *queue.Turn) {
			for a := turn.Next(nil); a != nil; {
				a = turn.Next(settle(a))
			}
		}})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("consumer: %v", err)
		}
	})
	return s
}

// until asks until a message is in a state.
func (s *store) until(t *testing.T, state queue.State, ids ...string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for _, id := range ids {
		for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
			m, err := s.client.Message(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if m.State == state {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s is %s, and not %s", id, m.State, state)
			}
		}
	}
}

// find gives the ids that a filter selects, over pages of 2.
func (s *store) find(t *testing.T, f FailedFilter) []string {
	t.Helper()
	var ids []string
	for cursor, pages := "", 0; ; pages++ {
		page, err := s.client.Failed(t.Context(), f, cursor, 2)
		if err != nil || pages > 10 {
			t.Fatalf("page %d: %v", pages, err)
		}
		for _, m := range page.Messages {
			ids = append(ids, m.ID)
		}
		if cursor = page.Next; cursor == "" {
			return ids
		}
	}
}

func TestFailedMailIsFoundRequeuedExportedAndDeleted(t *testing.T) {
	// How attempts end, by subject: what is not here is delivered.
	fates := make(chan map[string]mail.Outcome, 1)
	s := openStore(t, func(a *queue.Attempt) *queue.Settlement {
		all := <-fates
		fates <- all
		o, fails := all[a.Message.Subject]
		settled := &queue.Settlement{Attempt: a, Verdict: queue.Done, Class: o.Class, Counted: true, Outcomes: make([]mail.Outcome, len(a.Offered))}
		if !fails {
			o, settled.Class = mail.Outcome{Class: mail.Delivered}, mail.Delivered
		} else {
			settled.Verdict = queue.GiveUp
		}
		for i := range settled.Outcomes {
			settled.Outcomes[i] = o
		}
		return settled
	})
	fates <- map[string]mail.Outcome{
		"Fire":      {Class: mail.Permanent, Scope: mail.ScopeRecipient, Step: "rcpt", Code: 550, Enhanced: "5.1.1", Reply: "550 No such USER"},
		"Numbers":   {Class: mail.Unknown, Step: "body", Reply: "The connection was lost."},
		"Dear Ada":  {Class: mail.Temporary, Step: "data", Code: 451, Reply: "451 Greylisted"},
		"Dear Carl": {Class: mail.Temporary, Step: "data", Code: 451, Reply: "451 Greylisted"},
	}
	begun := time.Now().Add(-time.Minute)
	ctx := t.Context()
	send := func(m mail.Message) string {
		t.Helper()
		accepted, err := s.client.Send(ctx, m, "")
		if err != nil {
			t.Fatal(err)
		}
		return accepted.ID
	}
	logo := []byte{0x89, 'P', 'N', 'G', 0, 255}
	numbers := mail.Message{Kind: mail.Report, From: mail.Address{Address: "Billing@example.com", Name: "Billing"}, Subject: "Numbers",
		To: []mail.Address{{Address: "bob@example.net", Name: "Bób"}}, Cc: []mail.Address{{Address: "carl@bücher.example"}},
		Bcc: []mail.Address{{Address: "eve@example.net"}}, Text: "Grüße\n", HTML: "<p>Grüße <img src=\"cid:logo\"></p>", Headers: map[string]string{"X-Run": "7"},
		Attachments: []mail.Attachment{{Name: "a.csv", Content: []byte("a;b\r\n1;2\r\n")}, {Name: "logo.png", ContentID: "logo", Content: logo}}}
	fire := send(mail.Message{Kind: mail.Alert, Subject: "Fire", Text: "Run", To: []mail.Address{{Address: "Ada@example.net"}}})
	s.until(t, queue.Failed, fire)
	report := send(numbers)
	s.until(t, queue.Failed, report)
	well := send(mail.Message{Kind: mail.Alert, Subject: "Well", Text: "All is well", To: []mail.Address{{Address: "ada@example.net"}}})
	b, err := s.queue.EnqueueBatch(ctx, mail.Batch{Message: mail.Message{Kind: mail.Subscription, From: mail.Address{Address: "news@example.com"}, Subject: "Dear {{.name}}", Text: "News",
		Attachments: []mail.Attachment{{Name: "news.pdf", Content: []byte("%PDF")}}},
		Recipients: []mail.Recipient{
			{To: []mail.Address{{Address: "ada@example.org"}}, Variables: map[string]any{"name": "Ada"}},
			{To: []mail.Address{{Address: "bob@example.org"}}, Variables: map[string]any{"name": "Bob"}},
			{To: []mail.Address{{Address: "carl@example.org"}}, Variables: map[string]any{"name": "Carl"}},
		}})
	if err != nil {
		t.Fatal(err)
	}
	dear, carl := b.IDs[0], b.IDs[2]
	s.until(t, queue.Failed, dear, carl)
	s.until(t, queue.Delivered, well, b.IDs[1])
	all := []string{fire, report, dear, carl}

	// A producer is told about its batch by the batch's id, and about nothing else.
	producer, err := NewClient(s.URL, producerToken, nil)
	if err != nil {
		t.Fatal(err)
	}
	if page, err := producer.Failed(ctx, FailedFilter{BatchID: b.ID}, "", 0); err != nil || len(page.Messages) != 2 || page.Messages[0].BatchID != b.ID || page.Messages[0].Recipients[0].Address == "" {
		t.Errorf("its own: %+v, %v", page, err)
	}
	for _, f := range []FailedFilter{{}, {IDs: all}, {Recipient: "@example.org"}} {
		if page, err := producer.Failed(ctx, f, "", 0); !isProblem(err, forbidden) || !strings.Contains(err.Error(), "batch_id") {
			t.Errorf("%+v: %+v, %v", f, page, err)
		}
	}

	var failed time.Time // when the report did
	for name, test := range map[string]struct {
		filter FailedFilter
		want   []string
	}{
		"nothing":         {FailedFilter{}, all},
		"kind":            {FailedFilter{Kind: mail.Subscription}, []string{dear, carl}},
		"class":           {FailedFilter{Classes: []string{"permanent"}}, []string{fire}},
		"classes":         {FailedFilter{Classes: []string{"permanent", "unknown"}}, []string{fire, report}},
		"mailbox":         {FailedFilter{Mailbox: "BILLING@example.com"}, []string{report}},
		"mailbox, own":    {FailedFilter{Mailbox: "own@example.com"}, []string{fire}},
		"mailbox, none":   {FailedFilter{Mailbox: "-"}, []string{fire}},
		"batch":           {FailedFilter{BatchID: b.ID}, []string{dear, carl}},
		"recipient":       {FailedFilter{Recipient: "ada@EXAMPLE.net"}, []string{fire}},
		"recipient, bcc":  {FailedFilter{Recipient: "eve@example.net"}, []string{report}},
		"domain":          {FailedFilter{Recipient: "@example.org"}, []string{dear, carl}},
		"domain, written": {FailedFilter{Recipient: "@Bücher.example"}, []string{report}},
		"reply":           {FailedFilter{Reply: "no such user"}, []string{fire}},
		"reply, code":     {FailedFilter{Reply: "5.1.1"}, []string{fire}},
		"ids":             {FailedFilter{IDs: []string{dear, fire, well}}, []string{fire, dear}},
		"from":            {FailedFilter{From: begun}, all},
		"until":           {FailedFilter{Until: begun}, nil},
		"several":         {FailedFilter{Kind: mail.Subscription, Recipient: "carl@example.org", Classes: []string{"temporary"}, Reply: "greylisted", From: begun, Until: time.Now().Add(time.Minute)}, []string{carl}},
		"several, none":   {FailedFilter{Kind: mail.Report, Recipient: "carl@example.org"}, nil},
	} {
		got := s.find(t, test.filter)
		slices.Sort(got)
		want := slices.Sorted(slices.Values(test.want))
		if !slices.Equal(got, want) {
			t.Errorf("by %s: %v, want %v", name, got, want)
		}
	}
	page, err := s.client.Failed(ctx, FailedFilter{IDs: []string{report}}, "", 0)
	if err != nil || len(page.Messages) != 1 || page.Next != "" {
		t.Fatalf("%+v, %v", page, err)
	}
	m := page.Messages[0]
	failed = m.Failed
	if m.Kind != mail.Report || m.Class != "unknown" || m.Mailbox != "billing@example.com" || m.Counted != 1 || !m.Requeued.IsZero() || len(m.Recipients) != 3 ||
		m.Recipients[0] != (RecipientStatus{"bob@example.net", "pending"}) || m.Last.Step != "body" || m.Last.Reply != "The connection was lost." ||
		m.Accepted.Before(begun) || failed.Before(m.Accepted) {
		t.Errorf("%+v", m)
	}
	if got := s.find(t, FailedFilter{From: failed, Until: failed.Add(time.Millisecond)}); !slices.Equal(got, []string{report}) {
		t.Errorf("of the millisecond of the report: %v", got)
	}
	if got := s.find(t, FailedFilter{From: failed.Add(time.Millisecond)}); slices.Contains(got, report) || len(got) != 2 {
		t.Errorf("after the report: %v", got)
	}

	// The export is what is sent again.
	var eml bytes.Buffer
	n, err := s.client.Export(ctx, report, &eml)
	if err != nil || int(n) != eml.Len() {
		t.Fatalf("%d bytes of %d, %v", n, eml.Len(), err)
	}
	got := parseMail(t, eml.Bytes())
	want := []part{{"text/plain", "", "Grüße\r\n"}, {"text/html", "", "<p>Grüße <img src=\"cid:logo\"></p>\r\n"},
		{"image/png", "logo.png", string(logo)}, {"text/csv", "a.csv", "a;b\r\n1;2\r\n"}}
	if !slices.Equal(got.parts, want) {
		t.Errorf("parts %q", got.parts)
	}
	if to, err := got.header.AddressList("To"); err != nil || len(to) != 1 || *to[0] != (netmail.Address{Name: "Bób", Address: "bob@example.net"}) {
		t.Errorf("To: %v, %v", to, err)
	}
	for name, value := range map[string]string{"Subject": "Numbers", "From": "Billing <Billing@example.com>", "Cc": "carl@xn--bcher-kva.example", "X-Run": "7",
		"Bcc": "", "Message-Id": "<" + strings.ToLower(report) + "@example.com>"} {
		if got.header.Get(name) != value {
			t.Errorf("%s: %q, want %q", name, got.header.Get(name), value)
		}
	}
	if strings.Contains(eml.String(), "eve@example.net") {
		t.Error("it names who is in bcc")
	}
	for id, from := range map[string]string{fire: "Own <own@example.com>", carl: "news@example.com"} {
		r := s.call(t, "GET", "/v1/failed/"+id+"/eml", operatorToken, "")
		if r.status != 200 || r.header.Get("Content-Type") != "message/rfc822" || r.header.Get("Content-Disposition") != `attachment; filename="`+id+`.eml"` ||
			parseMail(t, r.body).header.Get("From") != from && parseMail(t, r.body).header.Get("From") != "<"+from+">" {
			t.Errorf("%d %v %s", r.status, r.header, r.body)
		}
	}
	eml.Reset()
	if _, err := s.client.Export(ctx, carl, &eml); err != nil || !strings.Contains(eml.String(), "Subject: Dear Carl\r\n") || !strings.Contains(eml.String(), "news.pdf") {
		t.Errorf("of a batch: %s, %v", eml.String(), err)
	}
	if _, err := s.client.Export(ctx, well, &eml); !isProblem(err, notFailed) {
		t.Errorf("export of what was delivered: %v", err)
	}

	// Requeued: first counted, then done. What fails for the same reason fails again.
	sum, err := s.client.Requeue(ctx, Selection{Filter: FailedFilter{Reply: "greylisted"}, DryRun: true})
	if err != nil || *sum != (Selected{Done: 2, Scanned: 4}) || len(s.find(t, FailedFilter{})) != 4 {
		t.Errorf("dry run: %+v, %v", sum, err)
	}
	changed := <-fates
	delete(changed, "Dear Carl")
	fates <- changed
	if sum, err = s.client.Requeue(ctx, Selection{Filter: FailedFilter{Reply: "greylisted"}}); err != nil || *sum != (Selected{Done: 2, Scanned: 4}) {
		t.Errorf("requeue: %+v, %v", sum, err)
	}
	s.until(t, queue.Delivered, carl)
	s.until(t, queue.Failed, dear)
	if page, err = s.client.Failed(ctx, FailedFilter{IDs: []string{dear}}, "", 0); err != nil || len(page.Messages) != 1 || page.Messages[0].Requeued.IsZero() ||
		page.Messages[0].Counted != 1 || page.Messages[0].BatchID != b.ID {
		t.Errorf("failed again: %+v, %v", page, err)
	}
	for id, requeued := range map[string]bool{dear: true, report: false} {
		if m, err := s.client.Message(ctx, id); err != nil || m.Requeued.IsZero() == requeued || requeued && m.Requeued.Before(failed) {
			t.Errorf("requeued %v: %+v, %v", requeued, m, err)
		}
	}

	// Deleted: by id, then all.
	if sum, err = s.client.DeleteFailed(ctx, Selection{Filter: FailedFilter{IDs: []string{fire, carl}}}); err != nil || sum.Done != 1 {
		t.Errorf("delete: %+v, %v", sum, err)
	}
	if _, err := s.client.Message(ctx, fire); !isProblem(err, notFound) {
		t.Errorf("what was deleted: %v", err)
	}
	if sum, err = s.client.DeleteFailed(ctx, Selection{All: true, DryRun: true}); err != nil || sum.Done != 2 {
		t.Errorf("dry run of all: %+v, %v", sum, err)
	}
	if sum, err = s.client.DeleteFailed(ctx, Selection{All: true}); err != nil || sum.Done != 2 || len(s.find(t, FailedFilter{})) != 0 {
		t.Errorf("delete of all: %+v, %v", sum, err)
	}
	if status, err := s.client.Batch(ctx, b.ID); err != nil || status.Counts != (BatchCounts{Delivered: 2, Failed: 1}) {
		t.Errorf("its batch: %+v, %v", status, err)
	}
	for _, private := range []string{"@example.net", "@example.org", "xample.net", "reylisted", "Grüße", "Numbers", "Dear"} {
		if strings.Contains(s.log.String(), private) {
			t.Errorf("the log has %q", private)
		}
	}
	if !strings.Contains(s.log.String(), `"route":"/v1/failed"`) {
		t.Errorf("the log is too short to prove anything: %s", s.log)
	}
}

func isProblem(err error, want refusal) bool {
	var p *Problem
	return errors.As(err, &p) && p.Type == want.uri()
}
