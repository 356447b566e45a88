package main

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// sent runs send with these arguments and gives the message that the server got.
func sent(t *testing.T, stdin string, args ...string) mail.Message {
	t.Helper()
	var m mail.Message
	startFake(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/v1/messages" || r.Header.Get("Idempotency-Key") == "" {
			t.Errorf("%s %s, key %q", r.Method, r.URL, r.Header.Get("Idempotency-Key"))
		}
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusAccepted)
		_, _ = w.Write([]byte(`{"id":"ID1","state":"queued"}`))
	})
	r := postroom(t, stdin, append([]string{"send"}, args...)...)
	r.want(t, 0, "ID1", "queued")
	return m
}

func TestSendMakesTheMessageOfItsFlags(t *testing.T) {
	pdf, logo, html := file(t, "figures;1.pdf", "%PDF"), file(t, "logo.png", "PNG"), file(t, "a.html", "<p>Hi</p>")
	got := sent(t, "Hello\n", "--kind", "report", "--from", "R <r@x.example>", "--to", "Ada <ada@x.example>", "--to", "bob@x.example",
		"--cc", "c@x.example", "--bcc", "d@x.example", "--reply-to", "e@x.example", "--subject", "Figures", "--text", "-", "--html", "@"+html,
		"--attach", pdf+";type=text/csv; charset=utf-8;name=Figures.csv", "--attach", pdf, "--inline", "logo="+logo, "--header", "X-A: b: c",
		"--list-unsubscribe", "https://x.example/u", "--send-at", "2030-01-01T00:00:00+01:00", "--expires-at", "2030-01-02T00:00:00Z",
		"--metadata", "run=1=2", "--idempotency-key", "k")
	want := mail.Message{
		Kind: mail.Report, From: mail.Address{Address: "r@x.example", Name: "R"},
		To: []mail.Address{{Address: "ada@x.example", Name: "Ada"}, {Address: "bob@x.example"}},
		Cc: []mail.Address{{Address: "c@x.example"}}, Bcc: []mail.Address{{Address: "d@x.example"}}, ReplyTo: []mail.Address{{Address: "e@x.example"}},
		Subject: "Figures", Text: "Hello\n", HTML: "<p>Hi</p>",
		Attachments: []mail.Attachment{
			{Name: "Figures.csv", ContentType: "text/csv; charset=utf-8", Content: []byte("%PDF")},
			{Name: "figures;1.pdf", Content: []byte("%PDF")},
			{Name: "logo.png", ContentID: "logo", Content: []byte("PNG")},
		},
		Headers: map[string]string{"X-A": "b: c"}, ListUnsubscribe: "https://x.example/u", Metadata: map[string]string{"run": "1=2"},
		SendAt: got.SendAt, ExpiresAt: time.Date(2030, 1, 2, 0, 0, 0, 0, time.UTC),
	}
	if !got.SendAt.Equal(time.Date(2029, 12, 31, 23, 0, 0, 0, time.UTC)) {
		t.Errorf("send_at is %s", got.SendAt)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

const sampleEML = "From: R <r@x.example>\r\nTo: ada@x.example\r\nCc: c@x.example\r\nSubject: From the file\r\nX-A: a\r\nX-B: b\r\n" +
	"Content-Type: multipart/mixed; boundary=q\r\n\r\n--q\r\n\r\nText of the file\r\n--q\r\nContent-Type: application/pdf; name=a.pdf\r\n\r\n%PDF\r\n--q--\r\n"

func TestSendStartsFromAnEML(t *testing.T) {
	got := sent(t, sampleEML, "--eml", "-", "--kind", "alert")
	if got.Kind != mail.Alert || got.Subject != "From the file" || got.From.Name != "R" || got.To[0].Address != "ada@x.example" ||
		!strings.HasPrefix(got.Text, "Text of the file") || len(got.Attachments) != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestFlagsReplaceWhatTheEMLSays(t *testing.T) {
	got := sent(t, "", "--eml", file(t, "a.eml", sampleEML), "--kind", "report", "--to", "bob@x.example", "--subject", "Mine", "--text", "Mine too",
		"--header", "x-a: other", "--attach", file(t, "b.txt", "b"))
	if len(got.To) != 1 || got.To[0].Address != "bob@x.example" || len(got.Cc) != 1 || got.Subject != "Mine" || got.Text != "Mine too" {
		t.Errorf("got %+v", got)
	}
	if want := map[string]string{"x-a": "other", "X-B": "b"}; !reflect.DeepEqual(got.Headers, want) {
		t.Errorf("headers %v, want %v", got.Headers, want)
	}
	if len(got.Attachments) != 2 || got.Attachments[1].Name != "b.txt" {
		t.Errorf("attachments %+v", got.Attachments)
	}
}

func TestSendRefusesFlagsThatDoNotFit(t *testing.T) {
	environment(t, "http://127.0.0.1:1")
	csv := file(t, "list.csv", "address\na@x.example\n")
	for _, test := range []struct{ args, want string }{
		{"", "--kind is needed"},
		{"--kind|spam", "--kind: "},
		{"--kind|alert|--to|a@x.example|--to|ada", "--to, entry 2, is not an address such as ada@example.com"},
		{"--kind|alert|--to|a@x.example, b@x.example", "one address for each --to"},
		{"--kind|alert|--from|x", "--from is not an address such as ada@example.com"},
		{"report.eml|--kind|alert", "a message file with --eml"},
		{"--kind|alert|--url|127.0.0.1:8080", "--url: it is not a URL such as http://127.0.0.1:8080"},
		{"--kind|alert|--text|-|--html|-", "--html: standard input goes to --text already"},
		{"--kind|alert|--eml|-|--text|-", "standard input goes to"},
		{"--kind|alert|--inline|logo.png", "--inline: write it as CID=FILE"},
		{"--kind|alert|--header|X-A", "--header: write it as"},
		{"--kind|alert|--header|X-A: 1|--header|x-a: 2", "is given twice"},
		{"--kind|alert|--metadata|=1", "--metadata: write it as"},
		{"--kind|alert|--send-at|tomorrow", "--send-at: "},
		{"--kind|alert|--expires-at|-2h", "is in the past"},
		{"--kind|alert|--expires-at|2h|--idempotency-key|k", "counts from now"},
		{"--kind|alert|--idempotency-key|a b", "--idempotency-key: "},
		{"--kind|alert|--batch-size|5", "--batch-size goes with --recipients only"},
		{"--kind|alert|--separator|;", "--separator goes with --recipients only"},
		{"--kind|alert|--wait-timeout|1s", "--wait-timeout: it goes with --wait"},
		{"--kind|alert|--wait|--dry-run", "nothing to wait for"},
		{"--kind|report|--recipients|-", "it must be a file"},
		{"--kind|report|--recipients|" + csv + "|--to|a@x.example", "--to and --recipients"},
		{"--kind|report|--recipients|" + csv + "|--batch-size|0", "--batch-size: give"},
		{"--kind|report|--recipients|" + csv + "|--separator|ab", "--separator: give one"},
		{"--kind|report|--recipients|" + csv + "|--eml|" + file(t, "a.eml", sampleEML), "recipients of its own"},
	} {
		args := []string{"send"}
		if test.args != "" {
			args = append(args, strings.Split(test.args, "|")...)
		}
		r := postroom(t, sampleEML, args...)
		if r.want(t, exitUsage, test.want); t.Failed() {
			t.Fatalf("send %s", test.args)
		}
	}
	postroom(t, "", "send", "--kind", "alert", "--text", "@"+csv+"x").want(t, exitFault, "--text: open")
	postroom(t, "nonsense", "send", "--kind", "alert", "--eml", "-").want(t, exitFault, "--eml: ")
}

func TestSendToTheRealAPI(t *testing.T) {
	q := startAPI(t, nil)
	args := []string{"send", "--kind", "alert", "--to", "ada@x.example", "--subject", "s", "--text", "t", "--output", "json", "--idempotency-key", "k1"}
	first := postroom(t, "", args...)
	first.want(t, 0)
	var accepted admin.Accepted
	if err := json.Unmarshal([]byte(first.stdout), &accepted); err != nil || accepted.State != queue.Queued {
		t.Fatalf("got %q, %v", first.stdout, err)
	}
	if again := postroom(t, "", args...); again.stdout != first.stdout {
		t.Errorf("repeated: got %q, want %q", again.stdout, first.stdout)
	}
	if m, err := q.Message(t.Context(), accepted.ID); err != nil || m.Recipients[0].Address != "ada@x.example" {
		t.Errorf("the queue has %+v, %v", m, err)
	}
	postroom(t, "", "send", "--kind", "alert", "--to", "bob@x.example", "--text", "t", "--idempotency-key", "k1").
		want(t, exitFault, "(422)", "Nothing was accepted")
	postroom(t, "", "send", "--kind", "alert", "--to", "ada@x.example").want(t, exitFault, "/text is empty", "Nothing was accepted")
}

func TestDryRunSendsNothing(t *testing.T) {
	t.Setenv("POSTROOM_TOKEN", "")
	t.Setenv("POSTROOM_TOKEN_FILE", "")
	startless := []string{"send", "--dry-run", "--url", "http://127.0.0.1:1", "--kind", "report", "--to", "Ada <ada@x.example>"}
	r := postroom(t, "", append(startless, "--subject", "s", "--text", "secret", "--attach", file(t, "a.pdf", "1234"), "--send-at", "2h")...)
	r.want(t, 0, "Ada <ada@x.example>", "6 bytes", "a.pdf (application/pdf, 4 bytes, attached)", "send at", "nothing was sent")
	if strings.Contains(r.stdout, "secret") {
		t.Error("the text is shown")
	}
	r = postroom(t, "", append(startless, "--text", "x", "--output", "json")...)
	r.want(t, 0)
	var m mail.Message
	if err := json.Unmarshal([]byte(r.stdout), &m); err != nil || m.To[0].Name != "Ada" {
		t.Errorf("got %q, %v", r.stdout, err)
	}
	postroom(t, "", append(startless, "--subject", "a\nb")...).want(t, exitFault, "/subject has a control character", "/text is empty")
}

// messageIn answers that a message is in each of the states, one after the other.
func messageIn(states ...queue.State) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_ = printJSON(w, admin.Accepted{ID: "ID1", State: queue.Queued})
			return
		}
		_ = printJSON(w, admin.MessageStatus{ID: "ID1", State: states[0]})
		if len(states) > 1 {
			states = states[1:]
		}
	}
}

func TestSendWaits(t *testing.T) {
	args := []string{"send", "--kind", "alert", "--to", "a@x.example", "--text", "x", "--wait"}
	startFake(t, messageIn(queue.Queued, queue.Sending, queue.Delivered))
	postroom(t, "", args...).want(t, 0, "ID1", "delivered", "a bounce may still follow")
	for _, state := range []queue.State{queue.Failed, queue.Cancelled, queue.Expired} {
		startFake(t, messageIn(state))
		postroom(t, "", args...).want(t, exitUndelivered, "ID1", string(state)+": ", "postroom message show ID1")
	}
	startFake(t, messageIn(queue.Queued))
	postroom(t, "", append(args, "--wait-timeout", "10ms")...).want(t, exitUndelivered, "within 10ms", "stays accepted")
}

func TestInterruptedWaiting(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	answer := messageIn(queue.Queued)
	startFake(t, func(w http.ResponseWriter, r *http.Request) {
		answer(w, r)
		if r.Method == http.MethodGet {
			cancel()
		}
	})
	root := newRootCommand()
	root.SetArgs([]string{"send", "--kind", "alert", "--to", "a@x.example", "--text", "x", "--wait"})
	root.SetOut(new(strings.Builder))
	err := root.ExecuteContext(ctx)
	if got := explain(err); exitCode(err) != exitInterrupted || !strings.HasPrefix(got, "postroom: interrupted\n") || !strings.Contains(got, "stays accepted") {
		t.Errorf("code %d: %s", exitCode(err), got)
	}
}
