package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/throttle"
)

func pausedMailbox() admin.Mailbox {
	return admin.Mailbox{
		Address: "news@x.example", State: "paused", Summary: "Mail of news@x.example is paused.", Backlog: admin.Backlog{Total: 12345, Alert: 1, Report: 44, Subscription: 12300},
		Units: 1, Concurrency: 2, Next: begun, Through: begun.Add(3*time.Hour + 20*time.Minute), Binding: "messages",
		Pause: &admin.Silence{Reason: "new list \u009b2J", By: "ops", Since: begun.Add(-time.Hour), Until: begun, Scope: "mailbox"},
		Hold:  &admin.Silence{Reason: "throttled", Since: begun.Add(-time.Hour), Until: begun.Add(-time.Minute), Refusals: 3, Scope: "everything"},
		Limits: []admin.Limit{
			{Name: "messages", Scope: "mailbox", Max: 30, Window: 60, Used: 30, Ratio: 1, Until: begun},
			{Name: "upload_bytes", Scope: "provider", Max: 157286400, Window: 300, Used: 1572864, Ratio: 0.01},
		},
	}
}

// squeezed gives what was written without the spaces that only align it.
func squeezed(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString(strings.Join(strings.Fields(line), " ") + "\n")
	}
	return b.String()
}

func TestMailboxExplain(t *testing.T) {
	t.Setenv("TZ", "UTC")
	m := pausedMailbox()
	var b strings.Builder
	if err := showMailbox(&b, &m, begun); err != nil {
		t.Fatal(err)
	}
	want := `Mail of news@x.example is paused.

mailbox news@x.example
pause until 2030-01-02 03:04:05 +00:00, by ops, since 2030-01-02 02:04:05 +00:00: new list 2J
hold everything, until 2030-01-02 03:03:05 +00:00, since 2030-01-02 02:04:05 +00:00, after 3 refusals in a row: throttled
backlog 12,345: alerts 1, reports 44, subscriptions 12,300
units 1 of 2 in use
next at 2030-01-02 03:04:05 +00:00
through in about 3 h 20 min (2030-01-02 06:24:05 +00:00); the limit of messages binds

LIMIT OF USED MAX IN ANY SHARE OLDEST USE ENDS
messages mailbox 30 30 1 min 100 % 2030-01-02 03:04:05 +00:00 used up, binds
bytes uploaded provider 1,572,864 157,286,400 5 min 1 % -
`
	if got := squeezed(b.String()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	b.Reset()
	if err := showMailbox(&b, &admin.Mailbox{Address: "own@x.example", Summary: "It flows.", Concurrency: 10}, begun); err != nil {
		t.Fatal(err)
	}
	want = `It flows.

mailbox own@x.example
backlog 0: alerts 0, reports 0, subscriptions 0
units 0 of 10 in use

No limits but the number of units.
`
	if got := squeezed(b.String()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestWhenAMailboxIsThrough(t *testing.T) {
	t.Setenv("TZ", "UTC")
	waiting := admin.Backlog{Total: 1}
	for _, test := range []struct {
		mailbox admin.Mailbox
		want    string
	}{
		{admin.Mailbox{}, ""},
		{admin.Mailbox{Backlog: waiting, Workers: 1}, "not known yet: nothing has been sent of late"},
		{admin.Mailbox{Backlog: waiting}, "not known: no worker can send"},
		{admin.Mailbox{Backlog: waiting, Through: begun, Binding: "concurrency"}, "in less than a minute (2030-01-02 03:04:05 +00:00); the number of units binds"},
		{admin.Mailbox{Backlog: waiting, Through: begun.Add(time.Hour), Binding: "upload_bytes"}, "in about 1 h 0 min (2030-01-02 04:04:05 +00:00); the limit of bytes uploaded binds"},
	} {
		if got := throughText(&test.mailbox, begun); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

func TestSpansOfTime(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "less than a minute", 29 * time.Second: "less than a minute", 31 * time.Second: "about 1 min", 59*time.Minute + 40*time.Second: "about 1 h 0 min",
		200 * time.Minute: "about 3 h 20 min", 24*time.Hour - time.Second: "about 1 d 0 h", 52 * time.Hour: "about 2 d 4 h",
	} {
		if got := aboutText(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		time.Minute: "1 min", 10 * time.Minute: "10 min", 24 * time.Hour: "24 h", 90 * time.Second: "90 s", 1500 * time.Millisecond: "1.5s",
	} {
		if got := windowText(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func TestMailboxListReadsEveryPage(t *testing.T) {
	t.Setenv("TZ", "UTC")
	startFake(t, func(w http.ResponseWriter, r *http.Request) {
		page := admin.MailboxPage{Mailboxes: []admin.Mailbox{pausedMailbox()}, After: "news@x.example"}
		if r.URL.Query().Get("after") == page.After {
			page = admin.MailboxPage{Mailboxes: []admin.Mailbox{{Address: "own@x.example", State: "flows", Concurrency: 10}}}
		}
		_ = printJSON(w, page)
	})
	r := postroom(t, "", "mailbox", "list")
	r.want(t, 0)
	want := `ADDRESS STATE WAITING UNITS FULLEST LIMIT NEXT AT THROUGH
news@x.example paused 12,345 1 of 2 messages 100 % 2030-01-02 03:04:05 +00:00 2030-01-02 06:24:05 +00:00
own@x.example flows 0 0 of 10 - - -
`
	if got := squeezed(r.stdout); got != want || r.stderr != "" {
		t.Errorf("got\n%s%s\nwant\n%s", got, r.stderr, want)
	}
	var page admin.MailboxPage
	r = postroom(t, "", "mailbox", "list", "--output", "json")
	if err := json.Unmarshal([]byte(r.stdout), &page); err != nil || len(page.Mailboxes) != 2 || page.After != "" {
		t.Errorf("got %q, %v", r.stdout, err)
	}
}

func TestMailboxListFromAServerThatRepeatsItselfEnds(t *testing.T) {
	asked := 0
	startFake(t, func(w http.ResponseWriter, _ *http.Request) {
		asked++
		_ = printJSON(w, admin.MailboxPage{Mailboxes: []admin.Mailbox{pausedMailbox()}, After: "news@x.example"})
	})
	postroom(t, "", "mailbox", "list").want(t, 0, "news@x.example")
	if asked != 2 {
		t.Errorf("asked %d times, want 2", asked)
	}
}

func TestMailboxesOfTheRealAPI(t *testing.T) {
	q := startAPI(t, nil)
	r := postroom(t, "", "mailbox", "list")
	if r.want(t, 0, "or no provider is active"); r.stdout != "ADDRESS  STATE  WAITING  UNITS  FULLEST LIMIT  NEXT AT  THROUGH\n" {
		t.Errorf("stdout has %q", r.stdout)
	}
	postroom(t, "", "mailbox", "list", "--output", "json").want(t, 0, `{"mailboxes":[]}`)
	postroom(t, "", "mailbox", "explain", "news@x.example").want(t, exitFault, "There is no such mailbox (404)", "POST /v1/pause")

	if _, err := q.Enqueue(t.Context(), mail.Message{Kind: mail.Alert, Text: "x", To: []mail.Address{{Address: "ada@x.example"}}}); err != nil {
		t.Fatal(err)
	}
	postroom(t, "", "mailbox", "list").want(t, 0, "No provider is active, and so nothing is any mailbox's. Messages that wait for one: 1.")
	postroom(t, "", "mailbox", "list", "--output", "json").want(t, 0, `{"mailboxes":[],"waiting":1}`)

	if _, err := q.DeclareProvider(t.Context(), &queue.ActiveProvider{Kind: "microsoft365", Keying: queue.ByMailbox, Sender: "own@x.example", Concurrency: 2,
		Limits: []throttle.Limit{{Name: throttle.Messages, Max: 30, Window: time.Minute}}}, "salt", "settings", "here"); err != nil {
		t.Fatal(err)
	}
	receipt, err := q.Enqueue(t.Context(), mail.Message{Kind: mail.Report, From: mail.Address{Address: "news@x.example"}, Text: "x",
		To: []mail.Address{{Address: "ada@x.example"}}})
	if err != nil {
		t.Fatal(err)
	}
	postroom(t, "", "mailbox", "list").want(t, 0, "news@x.example  no_worker", "messages 0 %")
	postroom(t, "", "mailbox", "explain", "News@x.example").want(t, 0, "Mail of news@x.example does not go: no worker runs. 1 message waits.", "not known: no worker can send", "1: alerts 0, reports 1, subscriptions 0", "0 of 2 in use")

	r = postroom(t, "", "mailbox", "pause", "news@x.example", "--reason", "wrong list", "--duration", "2h")
	r.want(t, 0, "It ends by itself at that time", "To end it before: postroom mailbox resume news@x.example")
	if !strings.HasPrefix(r.stdout, "PAUSED") || strings.Contains(r.stdout, "ends by itself") {
		t.Errorf("stdout has %q", r.stdout)
	}
	postroom(t, "", "mailbox", "explain", "news@x.example").want(t, 0, "Mail of news@x.example is paused until ", `by test: "wrong list". No worker runs either. 1 message waits.`)
	postroom(t, "", "message", "show", receipt.ID).want(t, 0, "Mail of news@x.example is paused until ", "wrong list")
	postroom(t, "", "mailbox", "resume", "news@x.example").want(t, 0, "a pause or a hold", "Mail of news@x.example does not go: no worker runs. 1 message waits.")
	postroom(t, "", "mailbox", "resume", "news@x.example").want(t, 0, "there was neither a pause nor a hold")

	postroom(t, "", "pause", "--all", "--reason", "maintenance").want(t, 0, "everything", "To end it before: postroom resume --all")
	postroom(t, "", "mailbox", "resume", "news@x.example", "--output", "json").want(t, 0, `{"address":"news@x.example","ended":false,"summary":"All mail is paused until `)
	postroom(t, "", "mailbox", "list").want(t, 0, "news@x.example  paused")
	postroom(t, "", "resume", "--all").want(t, 0, "everything  a pause or a hold", "Nothing stops all mail.")
	r = postroom(t, "", "pause", "--all", "--reason", "again", "--duration", "7d", "--output", "json")
	var paused admin.Paused
	if err := json.Unmarshal([]byte(r.stdout), &paused); err != nil || r.stderr != "" || time.Until(paused.Until) < 6*24*time.Hour {
		t.Errorf("got %q, %q, %v", r.stdout, r.stderr, err)
	}
	postroom(t, "", "pause", "--all", "--reason", strings.Repeat("x", 201)).want(t, exitFault, "/reason is longer than 200 characters")
}
