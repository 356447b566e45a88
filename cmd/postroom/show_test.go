package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/config"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/queue"
)

var begun = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func failedMessage() admin.MessageStatus {
	return admin.MessageStatus{
		ID: "ID1", BatchID: "B1", Kind: mail.Report, State: queue.Failed, Accepted: begun, Finished: begun.Add(time.Hour), Counted: 2,
		Recipients: []admin.RecipientStatus{{Address: "ada@x.example", State: "delivered"}, {Address: "bob@x.example", State: "refused"}},
		Metadata:   map[string]string{"run": "17"},
		Attempts: []admin.Attempt{
			{Begun: begun, Seconds: 1.25, Worker: "w1", Outcomes: []admin.Outcome{{Class: "temporary", Scope: "provider", Step: "dial", Reply: "no route",
				Advice: &admin.Advice{Happened: "An attempt that is over.", Postroom: "It tried again."}}}},
			{Begun: begun.Add(time.Minute), Seconds: 0.5, Worker: "w2", Outcomes: []admin.Outcome{
				{Recipients: []int{0}, Class: "delivered", Reply: "250 2.0.0 OK \u009b2J"},
				{Recipients: []int{1}, Class: "permanent", Step: "rcpt", Code: 550, Enhanced: "5.1.1", Reply: "no such user", Advice: &admin.Advice{
					Happened: "The mailbox does not exist.", Postroom: "The message is kept.",
					Remedy: "Correct the address where it is kept, and hand the message in again, or else use the command `postroom fix ADDRESS`."}},
			}},
		},
	}
}

func TestMessageShow(t *testing.T) {
	t.Setenv("TZ", "UTC")
	startFake(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/v1/messages/ID1" {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		_ = printJSON(w, failedMessage())
	})
	r := postroom(t, "", "message", "show", "ID1")
	r.want(t, 0,
		"state     failed: at least one recipient will not get it",
		"batch     B1", "metadata  run=17",
		"ada@x.example  delivered", "bob@x.example  refused",
		"2 counted towards giving up",
		"1.25s, worker w1\n  temporary: it can be tried again later\n    dial: no route\n",
		"500ms, worker w2\n  delivered: the provider took responsibility\n    for ada@x.example\n    reply: 250 2.0.0 OK  2J\n",
		"  permanent: it will never be accepted\n    for bob@x.example\n    rcpt: 550 5.1.1 no such user\n"+
			"    happened  The mailbox does not exist.\n"+
			"    Postroom  The message is kept.\n"+
			"    you       Correct the address where it is kept, and hand the message in again, or else use the\n"+
			"              command `postroom fix ADDRESS`.\n")
	if strings.Contains(r.stdout, "An attempt that is over") {
		t.Errorf("it gives advice on an attempt that another followed: %s", r.stdout)
	}
	if r.stderr != "" {
		t.Errorf("stderr has %q", r.stderr)
	}
	if strings.Contains(r.stdout, "expires") {
		t.Errorf("it never expires: %s", r.stdout)
	}
	r = postroom(t, "", "message", "show", "ID1", "--output", "json")
	var m admin.MessageStatus
	if err := json.Unmarshal([]byte(r.stdout), &m); err != nil || m.Attempts[1].Outcomes[1].Code != 550 {
		t.Errorf("got %q, %v", r.stdout, err)
	}
}

// Advice is said once, and only while something can be done.
func TestMessageShowAdvises(t *testing.T) {
	same := &admin.Advice{Happened: "The mailbox is full.", Postroom: "The message is kept."}
	m := failedMessage()
	m.Attempts[1].Outcomes = []admin.Outcome{{Recipients: []int{0}, Class: "permanent", Reply: "full", Advice: same},
		{Recipients: []int{1}, Class: "permanent", Reply: "also full", Advice: &admin.Advice{Happened: same.Happened, Postroom: same.Postroom}}}
	startFake(t, func(w http.ResponseWriter, _ *http.Request) { _ = printJSON(w, m) })
	r := postroom(t, "", "message", "show", "ID1")
	r.want(t, 0, "    reply: full\n    happened  The mailbox is full.\n    Postroom  The message is kept.\n  permanent",
		"    reply: also full\n    the same as above\n")
	if strings.Count(r.stdout, "happened") != 1 || strings.Contains(r.stdout, "    you ") {
		t.Errorf("got %s", r.stdout)
	}
	for state, want := range map[queue.State]bool{queue.Queued: true, queue.Sending: true, queue.Delivered: false, queue.Cancelled: false, queue.Expired: false} {
		m.State = state
		if r := postroom(t, "", "message", "show", "ID1"); strings.Contains(r.stdout, "happened") != want {
			t.Errorf("%s: got %s", state, r.stdout)
		}
	}
}

// What holds a message now is told first; what it met with other settings is told as that, and nobody is sent to mend those.
func TestMessageShowTellsWhatHoldsIt(t *testing.T) {
	now := admin.Outcome{Class: "configuration", Scope: "provider", Step: "auth", Code: 535, Enhanced: "5.7.8",
		Advice: &admin.Advice{Field: "/smtp/auth/password", Happened: "The login was refused.", Postroom: "All mail waits.", Remedy: "Check it."}}
	m := admin.MessageStatus{ID: "ID1", State: queue.Queued, WaitsFor: "All mail is held.", Hold: &admin.Silence{Reason: "configuration", Last: &now},
		Attempts: []admin.Attempt{{Begun: begun, Worker: "w1", Former: true, Outcomes: []admin.Outcome{{Class: "configuration", Scope: "provider", Step: "tls", Reply: "no STARTTLS",
			Advice: &admin.Advice{Happened: "It does not encrypt.", Postroom: "All mail waits.", Remedy: "Use tls."}}}}}}
	startFake(t, func(w http.ResponseWriter, _ *http.Request) { _ = printJSON(w, m) })
	const held = "\nThe refusal that led to the hold (auth: 535 5.7.8):\n    field     smtp.auth.password (--password-file)\n    happened  The login was refused.\n"
	r := postroom(t, "", "message", "show", "ID1")
	r.want(t, 0, held, "worker w1\n  with settings of the provider that have been replaced since\n", "    tls: no STARTTLS\n")
	if strings.Contains(r.stdout, "Use tls.") {
		t.Errorf("it sends people to settings that are gone: %s", r.stdout)
	}
	m.Attempts[0].Former, m.Attempts[0].Outcomes[0] = false, now
	if r := postroom(t, "", "message", "show", "ID1"); strings.Count(r.stdout, "The login was refused.") != 1 || !strings.Contains(r.stdout, "the same as above") || strings.Contains(r.stdout, "replaced since") {
		t.Errorf("got %s", r.stdout)
	}
	m.Attempts = nil
	postroom(t, "", "message", "show", "ID1").want(t, 0, held, "No attempt has ended yet.")
	m.State, m.Hold = queue.Expired, nil
	postroom(t, "", "message", "show", "ID1").want(t, 0, "It was never tried.")
}

func TestBatchShowTellsWhatHoldsIt(t *testing.T) {
	b := admin.BatchStatus{ID: "B1", Total: 1, Counts: admin.BatchCounts{Open: 1}, Cancelled: true, Hold: &admin.Silence{Last: &admin.Outcome{Step: "dial", Advice: &admin.Advice{Happened: "Nobody answers."}}}}
	startFake(t, func(w http.ResponseWriter, _ *http.Request) { _ = printJSON(w, b) })
	postroom(t, "", "batch", "show", "B1").want(t, 0, "progress   0 of 1 message\n", "ends too", "The refusal that led to the hold (dial):\n    happened  Nobody answers.\n")
}

func TestWrapped(t *testing.T) {
	for _, test := range []struct {
		in    string
		width int
		want  []string
	}{
		{"", 10, nil},
		{"one two three", 13, []string{"one two three"}},
		{"one two three", 12, []string{"one two", "three"}},
		{"grün grün", 9, []string{"grün grün"}},
		{"a longword b", 4, []string{"a", "longword", "b"}},
		{"run `a b c`. Then", 8, []string{"run", "`a b c`.", "Then"}},
		{"run `a` or `b c`", 7, []string{"run `a`", "or", "`b c`"}},
		{"a ` left open", 5, []string{"a", "` left open"}},
	} {
		if got := wrapped(test.in, test.width); !slices.Equal(got, test.want) {
			t.Errorf("%q in %d: got %q, want %q", test.in, test.width, got, test.want)
		}
	}
}

// What advice says to run or to set must be there. Package provider looks at the provider's own settings.
func TestAdviceNamesCommandsAndSettingsThatExist(t *testing.T) {
	var known func(t reflect.Type, path string) bool
	known = func(t reflect.Type, path string) bool {
		name, rest, _ := strings.Cut(path, ".")
		for _, f := range reflect.VisibleFields(t) {
			if tag, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); tag == name {
				return rest == "" || f.Type.Kind() == reflect.Struct && known(f.Type, rest)
			}
		}
		return false
	}
	command, setting := regexp.MustCompile("`[^`]*`"), regexp.MustCompile(`\b(retry|records|kinds)(\.[a-z_]+)+`)
	found := map[string]bool{}
	for _, class := range mail.Classes() {
		for _, scope := range []mail.Scope{mail.ScopeMessage, mail.ScopeMailbox, mail.ScopeProvider} {
			for _, cause := range []mail.Cause{"", mail.SendAsDenied, mail.TooLarge} {
				a := provider.Advise(mail.Outcome{Class: class, Scope: scope, Cause: cause})
				for _, text := range []string{a.Happened, a.Postroom, a.Remedy} {
					for _, c := range command.FindAllString(text, -1) {
						found[strings.Trim(c, "`")] = true
					}
					for _, s := range setting.FindAllString(text, -1) {
						if found[s] = true; !known(reflect.TypeFor[config.Config](), s) {
							t.Errorf("there is no setting %s", s)
						}
					}
				}
			}
		}
	}
	for line := range found {
		words := strings.Fields(line)
		if words[0] != "postroom" {
			continue
		}
		c, rest, err := newRootCommand().Find(words[1:])
		given := slices.IndexFunc(words, func(w string) bool { return w == strings.ToUpper(w) })
		if given < 0 {
			given = len(words)
		}
		if err != nil || !c.Runnable() || !slices.Equal(rest, words[given:]) {
			t.Errorf("%q: %v, %v, %v", line, c.CommandPath(), rest, err)
		}
	}
	for _, want := range []string{"postroom mailbox resume ADDRESS", "postroom mailbox explain ADDRESS", "postroom failed requeue ID",
		"retry.delays", "retry.give_up", "kinds.alert.give_up", "kinds.alert.on_unknown", "records.failed_for"} {
		if !found[want] {
			t.Errorf("no advice names %s", want)
		}
	}
}

func TestShowSaysWhenItGoes(t *testing.T) {
	t.Setenv("TZ", "UTC")
	startFake(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/batches/") {
			_ = printJSON(w, admin.BatchStatus{ID: "B1", WaitsFor: "Its last message waits.", Through: begun, ExpiresAt: begun.Add(time.Hour)})
			return
		}
		_ = printJSON(w, admin.MessageStatus{ID: "ID1", State: queue.Queued, WaitsFor: "It waits.", Ahead: 12345, Expected: begun, ExpiresAt: begun.Add(time.Hour)})
	})
	postroom(t, "", "message", "show", "ID1").want(t, 0, "why it waits  It waits.", "ahead         about 12,345", "expires       2030-01-02 04:04:05 +00:00", "expected      around 2030-01-02 03:04:05 +00:00")
	postroom(t, "", "batch", "show", "B1").want(t, 0, "why it waits  Its last message waits.", "expires       2030-01-02 04:04:05 +00:00", "through       around 2030-01-02 03:04:05 +00:00")
}

func TestMessageShowOfTheRealAPI(t *testing.T) {
	q := startAPI(t, nil)
	receipt, err := q.Enqueue(t.Context(), mail.Message{Kind: mail.Alert, To: []mail.Address{{Address: "ada@x.example"}}, Text: "x",
		SendAt: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	postroom(t, "", "message", "show", receipt.ID).want(t, 0, "queued: it waits", "why it waits", "ada@x.example  pending", "No attempt has ended yet.")
	postroom(t, "", "message", "cancel", receipt.ID).want(t, 0, receipt.ID, "cancelled")
	postroom(t, "", "message", "cancel", receipt.ID, "--output", "json").want(t, 0, `{"id":"`+receipt.ID+`","state":"cancelled"}`)
	postroom(t, "", "message", "show", receipt.ID).want(t, 0, "cancelled: ended by request")
	postroom(t, "", "message", "show", strings.Repeat("0", 26)).want(t, exitFault, "There is no such message or batch (404)")
}

func TestBatchShowAndCancel(t *testing.T) {
	q := startAPI(t, nil)
	receipt, err := q.EnqueueBatch(t.Context(), mail.Batch{Message: mail.Message{Kind: mail.Report, Text: "x", Metadata: map[string]string{"run": "17"}},
		Recipients: []mail.Recipient{{To: []mail.Address{{Address: "a@x.example"}}}, {To: []mail.Address{{Address: "b@x.example"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	postroom(t, "", "batch", "show", receipt.ID).want(t, 0, "0.0 % of 2 messages", "open       2", "delivered  0", "run=17")
	postroom(t, "", "batch", "cancel", receipt.ID).want(t, 0, "BATCH", receipt.ID, "cancelled")
	r := postroom(t, "", "batch", "show", receipt.ID, "--output", "json")
	var b admin.BatchStatus
	if err := json.Unmarshal([]byte(r.stdout), &b); err != nil || !b.Cancelled || b.Counts.Cancelled != 2 {
		t.Errorf("got %q, %v", r.stdout, err)
	}
	postroom(t, "", "batch", "show", receipt.ID).want(t, 0, "100.0 % of 2 messages", "cancelled  yes\n")
	postroom(t, "", "batch", "cancel", strings.Repeat("0", 26)).want(t, exitFault, "(404)")
}

func TestBatchShowSaysHowToFindWhoLacksIt(t *testing.T) {
	status := admin.BatchStatus{ID: "B1", Counts: admin.BatchCounts{Delivered: 3}}
	startFake(t, func(w http.ResponseWriter, _ *http.Request) { _ = printJSON(w, status) })
	const hint = "postroom failed list --batch B1"
	if r := postroom(t, "", "batch", "show", "B1"); strings.Contains(r.stdout, hint) {
		t.Errorf("nothing failed: %s", r.stdout)
	}
	status.Counts.Failed = 2
	postroom(t, "", "batch", "show", "B1").want(t, 0, "\nWho lacks it, and why: "+hint+"\n")
}

func TestForgottenRecipientsAreNumbered(t *testing.T) {
	m := failedMessage()
	for i := range m.Recipients {
		m.Recipients[i].Address = ""
	}
	startFake(t, func(w http.ResponseWriter, _ *http.Request) { _ = printJSON(w, m) })
	postroom(t, "", "message", "show", "ID1").want(t, 0, "recipient 1  delivered", "    for recipient 2\n")
}

func TestOutcomeReply(t *testing.T) {
	for _, test := range []struct {
		in   admin.Outcome
		want string
	}{
		{admin.Outcome{}, ""},
		{admin.Outcome{Step: "dial"}, "dial"},
		{admin.Outcome{Step: "data", Code: 451, Reply: "451 4.3.0 later", Enhanced: "4.3.0"}, "data: 451 4.3.0 later"},
		{admin.Outcome{Step: "data", Code: 451, Enhanced: "4.3.0", Reply: "later"}, "data: 451 4.3.0 later"},
		{admin.Outcome{Code: 250}, "reply: 250"},
	} {
		if got := outcomeReply(test.in); got != test.want {
			t.Errorf("%+v: got %q, want %q", test.in, got, test.want)
		}
	}
}

func TestMailExpiresWhereNoWorkerRuns(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})
	t.Cleanup(func() { _ = client.Close() })
	q, err := queue.Open(t.Context(), queue.Options{Client: client})
	if err != nil {
		t.Fatal(err)
	}
	m := mail.Message{Kind: mail.Alert, To: []mail.Address{{Address: "ada@x.example"}}, Text: "x", ExpiresAt: time.Now().Add(100 * time.Millisecond)}
	receipt, err := q.Enqueue(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(time.Until(m.ExpiresAt))
	startOn(t, config.Default(), "operator", serverOptions{redis: client, log: slog.New(slog.DiscardHandler), api: true})
	r := postroom(t, "", "message", "show", receipt.ID)
	for deadline := time.Now().Add(10 * time.Second); strings.Contains(r.stdout, "queued") && time.Now().Before(deadline); {
		r = postroom(t, "", "message", "show", receipt.ID)
	}
	r.want(t, 0, "expired: its time ran out before it was delivered")
}
