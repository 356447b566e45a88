package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// failedStore is a server's failed store. It knows the filters class, id and until, and looks at few messages at once.
type failedStore struct {
	t        *testing.T
	messages []admin.FailedMessage // newest first
	piece    int
	queries  []url.Values
	// selections are what requeue and delete got, changed what they took out.
	selections []admin.Selection
	changed    []string
	// before, unless nil, can answer a request itself.
	before func(w http.ResponseWriter, r *http.Request) (answered bool)
}

// idOf gives the n-th id.
func idOf(n int) string { return fmt.Sprintf("01JZ3Q8Y6M2V7T4K9RBC%06d", n) }

// startFailed starts a server with n failed messages, the last of which failed first.
func startFailed(t *testing.T, n int) *failedStore {
	t.Helper()
	s := &failedStore{t: t, piece: 2}
	for i := range n {
		s.messages = append(s.messages, admin.FailedMessage{
			ID: idOf(i), Kind: mail.Report, Class: "permanent", Mailbox: "news@x.example", Failed: begun.Add(-time.Duration(i) * time.Minute),
			Recipients: []admin.RecipientStatus{{Address: "ada@x.example", State: "delivered"}, {Address: fmt.Sprintf("bob%d@x.example", i), State: "refused"},
				{Address: "cid@x.example", State: "pending"}},
			Last: admin.Outcome{Class: "permanent", Step: "rcpt", Code: 550, Enhanced: "5.1.1", Reply: "no such\tuser\r\n\u009b2J"},
		})
	}
	startFake(t, s.ServeHTTP)
	return s
}

func (s *failedStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.before != nil && s.before(w, r) {
		return
	}
	switch path := strings.TrimPrefix(r.URL.Path, "/v1/failed"); {
	case r.Method == http.MethodGet && path == "":
		s.list(w, r.URL.Query())
	case r.Method == http.MethodGet && strings.HasSuffix(path, "/eml"):
		_, _ = fmt.Fprintf(w, "Subject: %s\r\n\r\n", strings.Split(path, "/")[1])
	case r.Method == http.MethodPost && (path == "/requeue" || path == "/delete"):
		s.change(w, r)
	default:
		s.t.Errorf("%s %s", r.Method, r.URL)
		w.WriteHeader(http.StatusNotFound)
	}
}

// scan gives those that fit, and how many are left behind them.
func (s *failedStore) scan(f admin.FailedFilter, cursor string, most int) (fit []admin.FailedMessage, next string, scanned, left int) {
	for _, m := range s.messages {
		switch {
		case m.ID <= cursor, len(f.IDs) > 0 && !slices.Contains(f.IDs, m.ID), !f.Until.IsZero() && !m.Failed.Before(f.Until):
			continue
		case scanned == s.piece || len(fit) == most:
			left++
			continue
		}
		scanned++
		next = m.ID
		if len(f.Classes) == 0 || slices.Contains(f.Classes, m.Class) {
			fit = append(fit, m)
		}
	}
	if left == 0 {
		next = ""
	}
	return fit, next, scanned, left
}

func (s *failedStore) list(w http.ResponseWriter, q url.Values) {
	s.queries = append(s.queries, q)
	limit, err := strconv.Atoi(q.Get("limit"))
	if err != nil || limit < 1 || limit > 1000 || len(q["id"]) > 100 {
		s.t.Errorf("limit %q, %d ids", q.Get("limit"), len(q["id"]))
	}
	until, _ := time.Parse(time.RFC3339, q.Get("until"))
	page := admin.FailedPage{}
	page.Messages, page.Next, page.Scanned, page.Left = s.scan(admin.FailedFilter{Classes: q["class"], IDs: q["id"], Until: until}, q.Get("cursor"), limit)
	_ = printJSON(w, page)
}

func (s *failedStore) change(w http.ResponseWriter, r *http.Request) {
	var sel admin.Selection
	if err := json.NewDecoder(r.Body).Decode(&sel); err != nil {
		s.t.Error(err)
	}
	s.selections = append(s.selections, sel)
	if sel.All == (filterWords(sel.Filter) != "") {
		s.t.Errorf("all and a filter, or neither: %+v", sel)
	}
	done := admin.Selected{}
	fit, next, scanned, left := s.scan(sel.Filter, sel.Cursor, len(s.messages))
	done.Next, done.Scanned, done.Left = next, scanned, left
	for _, m := range fit {
		if m.BatchID == "cancelled" && strings.HasSuffix(r.URL.Path, "/requeue") {
			done.Cancelled++
			continue
		}
		done.Done++
		if !sel.DryRun {
			s.changed = append(s.changed, m.ID)
			s.messages = slices.DeleteFunc(s.messages, func(one admin.FailedMessage) bool { return one.ID == m.ID })
		}
	}
	_ = printJSON(w, done)
}

func TestFailedList(t *testing.T) {
	t.Setenv("TZ", "UTC")
	s := startFailed(t, 3)
	s.messages[1].Mailbox, s.messages[1].Recipients = "", s.messages[1].Recipients[:2]
	r := postroom(t, "", "failed", "list")
	r.want(t, 0)
	want := `FAILED AT ID KIND CLASS MAILBOX STILL WITHOUT IT REPLY
2030-01-02 03:04:05 +00:00 01JZ3Q8Y6M2V7T4K9RBC000000 report permanent news@x.example bob0@x.example +1 rcpt: 550 5.1.1 no such user 2J
2030-01-02 03:03:05 +00:00 01JZ3Q8Y6M2V7T4K9RBC000001 report permanent - bob1@x.example rcpt: 550 5.1.1 no such user 2J
2030-01-02 03:02:05 +00:00 01JZ3Q8Y6M2V7T4K9RBC000002 report permanent news@x.example bob2@x.example +1 rcpt: 550 5.1.1 no such user 2J
`
	if got := squeezed(r.stdout); got != want || r.stderr != "" {
		t.Errorf("got\n%s\nand %q, want\n%s", got, r.stderr, want)
	}
	if len(s.queries) != 2 || s.queries[0].Get("limit") != "100" || s.queries[1].Get("limit") != "98" {
		t.Errorf("asked %v, want the two pages", s.queries)
	}

	r = postroom(t, "", "failed", "list", "--output", "json", "--limit", "0")
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	var m admin.FailedMessage
	if err := json.Unmarshal([]byte(lines[2]), &m); err != nil || len(lines) != 3 || m.ID != idOf(2) || m.Last.Code != 550 {
		t.Errorf("got %q, %v", r.stdout, err)
	}
}

func TestFailedListTellsThatThereIsMore(t *testing.T) {
	startFailed(t, 7)
	r := postroom(t, "", "failed", "list", "--limit", "3")
	r.want(t, 0, "These are the newest 3. About 4 older ones were not looked at: --limit 0 lists all that fit.")
	if n := strings.Count(r.stdout, "\n"); n != 4 {
		t.Errorf("%d lines, want the header and 3", n)
	}
	if r = postroom(t, "", "failed", "list", "--limit", "7"); r.stderr != "" {
		t.Errorf("stderr has %q, and there is no more", r.stderr)
	}
	postroom(t, "", "failed", "list", "--class", "unknown").want(t, 0, "Nothing in the failed store fits (class unknown).")
}

func TestFailedListGivesItsFiltersToTheServer(t *testing.T) {
	t.Setenv("TZ", "Europe/Berlin")
	s := startFailed(t, 1)
	postroom(t, "", "failed", "list", "--kind", "alert", "--class", "permanent,unknown", "--class", "temporary", "--mailbox", "-", "--batch", idOf(9),
		"--recipient", "@BÜCHER.example", "--reply", "5.1.1", "--since", "2030-01-01T00:00:00.5+01:00", "--until", "2030-02-01", idOf(0), idOf(3), idOf(0)).want(t, 0)
	got := s.queries[0]
	want := url.Values{"kind": {"alert"}, "class": {"permanent", "unknown", "temporary"}, "mailbox": {"-"}, "batch_id": {idOf(9)},
		"recipient": {"@xn--bcher-kva.example"}, "reply": {"5.1.1"}, "from": {"2029-12-31T23:00:00.5Z"}, "until": got["until"], "id": {idOf(0), idOf(3)}, "limit": {"100"}}
	if got.Encode() != want.Encode() {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if local, _ := time.ParseInLocation(time.DateOnly, "2030-02-01", time.Local); got.Get("until") != local.UTC().Format(time.RFC3339) {
		t.Errorf("until %v, want the beginning of the day here", got["until"])
	}

	before := time.Now()
	postroom(t, "", "failed", "list", "--since", "3d").want(t, 0)
	from, err := time.Parse(time.RFC3339, s.queries[1].Get("from"))
	if ago := before.Sub(from); err != nil || ago < 71*time.Hour || ago > 73*time.Hour {
		t.Errorf("from %v, %v: want three days ago", from, err)
	}
}

func TestManyIDsAreAskedForInPieces(t *testing.T) {
	s := startFailed(t, 205)
	s.piece = 60
	args := []string{"failed", "list", "--limit", "0", "--output", "json"}
	for i := range 205 {
		args = append(args, idOf(i))
	}
	r := postroom(t, "", args...)
	r.want(t, 0)
	if n := strings.Count(r.stdout, "\n"); n != 205 || len(s.queries) != 5 {
		t.Errorf("%d lines of %d pages, want 205 of 5", n, len(s.queries))
	}
	postroom(t, "", append(args, "--limit", "150")...).want(t, 0, "These are the newest 150. About 55 older ones")
}

func TestAServerThatRepeatsItselfIsLeft(t *testing.T) {
	s := startFailed(t, 3)
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet {
			_ = printJSON(w, admin.FailedPage{Next: "1-a", Left: 5})
		} else {
			_ = printJSON(w, admin.Selected{Next: "1-a", Left: 5})
		}
		return true
	}
	for _, line := range []string{"failed list --limit 0", "failed requeue --all", "failed export --all --dir " + t.TempDir()} {
		postroom(t, "", strings.Fields(line)...).want(t, exitFault, "the same cursor again and again")
	}
}

func TestRepliesAreClippedToTheTerminal(t *testing.T) {
	t.Setenv("TZ", "UTC")
	messages := []admin.FailedMessage{{ID: idOf(1), Kind: mail.Alert, Class: "unknown", Failed: begun, Last: admin.Outcome{Reply: strings.Repeat("ü", 300)}}}
	for width, want := range map[int]int{0: 307, 80: narrowest, 200: 200 - 28 - 28 - 7 - 9 - 9 - 18} {
		row := failedRows(messages, width)[0]
		reply := []rune(row[len(row)-1])
		if len(reply) != want || (reply[len(reply)-1] == '…') != (width > 0) {
			t.Errorf("width %d: the reply has %d characters, want %d: %s", width, len(reply), want, string(reply))
		}
	}
}

func TestFailedShow(t *testing.T) {
	state := queue.Failed
	startFake(t, func(w http.ResponseWriter, r *http.Request) {
		m := failedMessage()
		m.State = state
		_ = printJSON(w, m)
	})
	r := postroom(t, "", "failed", "show", "ID1")
	r.want(t, 0, "bob@x.example  refused", "postroom failed requeue ID1\n", "postroom failed export ID1 --out FILE\n", "postroom failed delete ID1\n")
	if strings.Contains(r.stdout, "requeue") {
		t.Errorf("stdout has words:\n%s", r.stdout)
	}
	if r = postroom(t, "", "failed", "show", "ID1", "--output", "json"); !strings.HasPrefix(r.stdout, `{"id":"ID1"`) || r.stderr != "" {
		t.Errorf("got %q, %q", r.stdout, r.stderr)
	}
	state = queue.Delivered
	r = postroom(t, "", "failed", "show", "ID1")
	r.want(t, exitFault, "the message is not in the failed store. It is delivered: ", "postroom message show ID1")
	if r.stdout != "" {
		t.Errorf("stdout has %q", r.stdout)
	}
}

func TestSelectionsThatAreNotClearAreRefused(t *testing.T) {
	environment(t, "http://127.0.0.1:1")
	for _, test := range []struct{ line, want string }{
		{"list --limit -1", "--limit"},
		{"list --kind spam", `--kind: "spam" is not one of alert`},
		{"list --class permanent,spam", `--class: "spam" is not one of temporary, delivered`},
		{"list --class permanent,,unknown", `--class: "" is not one of`},
		{"list --recipient example.com", "--recipient: it is neither"},
		{"list --recipient @", "--recipient: it is neither"},
		{"list --since tomorrow", `--since: "tomorrow" is neither a time such as`},
		{"list --since -2h", "--since"}, {"list --until -1d", "--until"}, {"list --until nand", "--until"}, {"list --until 1e9d", "--until"},
		{"list --since 2h --until 3h", "nothing is in between"},
		{"list --batch x", `--batch: "x" is not an id`},
		{"list ../../etc/passwd", `"../../etc/passwd" is not an id: that has 26 letters and digits`},
		{"list --all", "unknown flag"},
		{"show", "ID is missing"},
		{"lst", "did you mean list?"},
		{"requeue", "postroom failed requeue: which messages? Give ids, filters such as --class permanent, or --all"},
		{"delete --yes", "which messages?"},
		{"export --dir x", "which messages?"},
		{"requeue --all --kind alert", "--all means every failed message"},
		{"delete --yes --all " + idOf(1), "--all means every failed message"},
		{"export --all --since 2h --dir x", "--all means every failed message"},
		{"delete --all", "there is no terminal to ask on: look with --dry-run"},
		{"delete " + idOf(1), "there is no terminal to ask on"},
		{"export --all", "give --dir DIRECTORY"},
		{"export --all --out x", "--out takes one message"},
		{"export --out x --class unknown " + idOf(1), "--out takes one message"},
		{"export --out x --dir y " + idOf(1), "--out takes one message"},
		{"export " + idOf(1) + " " + idOf(2), "give --dir DIRECTORY"},
		{"export --output json " + idOf(1), "give --out FILE"},
	} {
		r := postroom(t, "", append([]string{"failed"}, strings.Fields(test.line)...)...)
		if r.want(t, exitUsage, test.want); t.Failed() {
			t.Fatalf("failed %s", test.line)
		}
	}
	for _, flag := range []string{"kind", "class", "mailbox", "batch", "recipient", "reply", "since", "until"} {
		postroom(t, "", "failed", "requeue", "--kind", "alert", "--"+flag, "").want(t, exitUsage, "--"+flag+": it is empty")
	}
	postroom(t, "", "failed", "delete", "--yes", "").want(t, exitUsage, `"" is not an id`)
	environment(t, "http://127.0.0.1:1")
	postroom(t, "", "failed", "requeue", "--all").want(t, exitTryAgain, "Is the URL right, and the server running?")
}

func TestFailedCommandsExplainThemselves(t *testing.T) {
	postroom(t, "", "failed").want(t, 0, "delete", "export", "list", "requeue", "show")
	postroom(t, "", "--help").want(t, 0, "failed ")
	for _, name := range []string{"list", "requeue", "delete", "export"} {
		postroom(t, "", "failed", name, "--help").want(t, 0, "--output json", "Examples:", "@ and a domain", "the provider's own finds", "3d")
		postroom(t, "", "__complete", "failed", name, "--kind", "").want(t, 0, "alert\nreport\nsubscription\n")
		postroom(t, "", "__complete", "failed", name, "--class", "p").want(t, 0, "permanent\n")
	}
}

func TestHowLongAgo(t *testing.T) {
	for s, want := range map[string]time.Duration{"2h": 2 * time.Hour, "90m": 90 * time.Minute, "3d": 72 * time.Hour, "1.5d": 36 * time.Hour, "0": 0} {
		if got, ok := ago(s); !ok || got != want {
			t.Errorf("%q: %v, %v", s, got, ok)
		}
	}
	for _, s := range []string{"", "2", "-2h", "-1d", "d", "nand", "infd", "1e300d", "1d12h", "2030-01-31"} {
		if got, ok := ago(s); ok {
			t.Errorf("%q is taken for %v", s, got)
		}
	}
}

func FuzzPast(f *testing.F) {
	for _, s := range []string{"2h", "3d", "2030-01-31", "2030-01-31T08:00:00Z", "36500d", "-1d", "nand", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, ok := ago(s); ok && (d < 0 || cmp.Compare(d, 200*365*24*time.Hour) > 0 && strings.HasSuffix(s, "d")) {
			t.Errorf("%q is %v ago", s, d)
		}
		if got, err := past("--since", s, begun); err != nil && exitCode(err) != exitUsage || err == nil && s != "" && got.IsZero() && !strings.HasPrefix(s, "0001") {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	})
}
