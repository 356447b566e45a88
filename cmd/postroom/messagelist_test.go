package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/config"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// holding starts an API without workers: what is accepted waits. It gives a queue on the same Redis.
func holding(t *testing.T) *queue.Queue {
	t.Helper()
	cfg := config.Default()
	client := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr(), PoolSize: connections(cfg)})
	t.Cleanup(func() { _ = client.Close() })
	s, _ := startOn(t, cfg, "operator", serverOptions{redis: client, log: slog.New(slog.DiscardHandler), api: true})
	return s.queue
}

// accept takes in a batch of n.
func accept(t *testing.T, q *queue.Queue, kind mail.Kind, from string, n int) queue.BatchReceipt {
	t.Helper()
	b := mail.Batch{Message: mail.Message{Kind: kind, From: mail.Address{Address: from}, Subject: "News", Text: "News"}}
	for i := range n {
		b.Recipients = append(b.Recipients, mail.Recipient{To: []mail.Address{{Address: fmt.Sprintf("ada%d@x.example", i)}}})
	}
	r, err := q.EnqueueBatch(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestOpenMailIsListedAndCancelled(t *testing.T) {
	q := holding(t)
	news := accept(t, q, mail.Subscription, "news@x.example", 25)
	report := accept(t, q, mail.Report, "own@x.example", 4)
	ids := func(args ...string) (all []string) {
		r := postroom(t, "", append([]string{"message", "list", "--output", "json", "--limit", "0"}, args...)...)
		r.want(t, 0)
		for line := range strings.Lines(r.stdout) {
			var m admin.ListedMessage
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			all = append(all, m.ID)
		}
		return all
	}
	if n := len(ids()); n != 29 {
		t.Errorf("%d are listed", n)
	}
	if got := strings.Join(ids("--batch", news.ID), " "); got != strings.Join(news.IDs, " ") {
		t.Errorf("of the batch: %s", got)
	}
	for line, want := range map[string]int{"--kind report": 4, "--mailbox NEWS@x.example": 25, "--recipient ada3@x.example": 2, "--state sending": 0,
		"--accepted-before 1h": 0, "--accepted-after 1h --state queued,sending": 29} {
		if got := ids(strings.Fields(line)...); len(got) != want {
			t.Errorf("%s: %d are listed, want %d", line, len(got), want)
		}
	}
	postroom(t, "", "message", "list", "--batch", report.ID, "--limit", "3").want(t, 0, "ACCEPTED", report.IDs[2], "queued", "own@x.example",
		"These are the first 3 that were met. About 1 more were not looked at: --limit 0")
	postroom(t, "", "message", "list", "--kind", "alert").want(t, 0, "No message fits. kind alert")
	r := postroom(t, "", "batch", "list")
	r.want(t, 0, "SEND AT")
	if at, before := strings.Index(r.stdout, report.ID), strings.Index(r.stdout, news.ID); at < 0 || before < at && report.ID > news.ID {
		t.Errorf("the newest is not first:\n%s", r.stdout)
	}

	// First counted; and nobody is there to ask.
	postroom(t, "", "message", "cancel", "--kind", "subscription", "--dry-run").want(t, 0, "25 messages to cancel (kind subscription).", "WOULD BE CANCELLED", "Dry run")
	postroom(t, "", "message", "cancel", "--kind", "subscription").want(t, exitUsage, "no terminal to ask on")
	postroom(t, "", "message", "cancel", "--kind", "subscription", "--accepted-before", "1h", "--yes").want(t, 0, "0 messages to cancel")
	if n := len(ids()); n != 29 {
		t.Errorf("%d are left", n)
	}
	r = postroom(t, "", "message", "cancel", "--kind", "subscription", "--yes")
	r.want(t, 0, "25 messages to cancel")
	if got, want := squeezed(r.stdout), "CANCELLED TOO LATE UNREADABLE\n25 0 0\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	postroom(t, "", "batch", "list", "--open").want(t, 0, report.ID)
	if r := postroom(t, "", "batch", "list", "--open", "--output", "json"); strings.Contains(r.stdout, news.ID) || strings.Count(r.stdout, "\n") != 1 {
		t.Errorf("open batches: %s", r.stdout)
	}

	// By ids.
	postroom(t, "", "message", "cancel", report.IDs[0]).want(t, 0, "MESSAGE", "cancelled")
	postroom(t, "", "message", "cancel", report.IDs[0], report.IDs[1]).want(t, 0, "1 message to cancel (ids: 2).", "Cancelled before: 1.")
	postroom(t, "", "message", "cancel", report.IDs[2], idOf(1)).want(t, exitFault, "1 message to cancel", "no such messages: 1 of the ids")
	r = postroom(t, "", "message", "cancel", "--all", "--yes", "--output", "json")
	r.want(t, 0, "1 message to cancel (all).")
	var sum admin.Selected
	if err := json.Unmarshal([]byte(r.stdout), &sum); err != nil || sum.Done != 1 || sum.Left != 0 {
		t.Errorf("%q, %v", r.stdout, err)
	}
	r = postroom(t, "", "message", "list")
	r.want(t, 0, "No message fits.")
}

func TestWhichMailIsMeantMustBeClear(t *testing.T) {
	environment(t, "http://127.0.0.1:1")
	for line, want := range map[string]string{
		"message cancel":                                            "which messages?",
		"message cancel --all --kind alert":                         "--all means every open message",
		"message cancel --state failed --yes":                       "--state: \"failed\" is not one of queued, sending",
		"message cancel --batch= --yes":                             "--batch: it is empty",
		"message cancel --batch x --yes":                            "is not an id",
		"message cancel ada":                                        "is not an id",
		"message list --state waiting":                              "is not one of queued, sending, delivered",
		"message list --kind news":                                  "is not one of alert",
		"message list --limit -1":                                   "--limit",
		"message list --accepted-after now":                         "neither a time",
		"message list --accepted-after 1h --accepted-before 2h":     "nothing is in between",
		"message list --recipient ada":                              "--recipient",
		"message list " + idOf(1):                                   "too many arguments",
		"batch list --accepted-before=":                             "it is empty",
		"batch list --accepted-after 2030-01-02 --kind subscriptio": "is not one of",
		"batch list --limit -2":                                     "--limit",
	} {
		postroom(t, "", strings.Fields(line)...).want(t, exitUsage, want)
	}
}

// counter is a server that answers the requests of message cancel, 2 messages at once.
type counter struct {
	selections []admin.MessageSelection
	done       int
	before     func(w http.ResponseWriter) bool
}

func (s *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var sel admin.MessageSelection
	_ = json.NewDecoder(r.Body).Decode(&sel)
	s.selections = append(s.selections, sel)
	if s.before != nil && s.before(w) {
		return
	}
	at := map[string]int{"": 0, "2": 2, "4": 4}[sel.Cursor]
	sum := admin.Selected{Done: min(2, 5-at), TooLate: 1, Scanned: 2, AcceptedBefore: begun}
	if at < 4 {
		sum.Next, sum.Left = fmt.Sprint(at+2), 3-at
	}
	if !sel.DryRun {
		s.done += sum.Done
	}
	_ = printJSON(w, sum)
}

func TestWhatIsAcceptedAfterTheCountIsNotCancelled(t *testing.T) {
	s := &counter{}
	startFake(t, s.ServeHTTP)
	r := postroom(t, "", "message", "cancel", "--all", "--yes")
	r.want(t, 0, "5 messages to cancel (all).", "Too late, because they were being sent: 3.")
	for i, sel := range s.selections {
		dry := i < 3
		if sel.DryRun != dry || sel.All != dry || sel.Filter.AcceptedBefore.Equal(begun) == dry {
			t.Errorf("request %d: %+v", i, sel)
		}
	}
	if len(s.selections) != 6 || s.done != 5 {
		t.Errorf("%d requests, %d done", len(s.selections), s.done)
	}
}

func TestACancelThatIsCutShortSaysHowToGoOn(t *testing.T) {
	s := &counter{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.before = func(http.ResponseWriter) bool {
		if len(s.selections) == 5 {
			cancel()
		}
		return false
	}
	startFake(t, s.ServeHTTP)
	r, questions := watched(ctx, t, newMessageCancelCommand, yes, "--kind", "report", "--accepted-after", "3d")
	r.want(t, exitInterrupted, "4 of 5 messages were cancelled before this ended.", "To go on, repeat the command with --accepted-after ",
		"--accepted-before 2030-01-02T03:04:05Z")
	if strings.Join(questions, "|") != "Cancel 5 messages?" {
		t.Errorf("asked %q", questions)
	}

	s = &counter{}
	startFake(t, s.ServeHTTP)
	if r, _ := watched(t.Context(), t, newMessageCancelCommand, no, "--all"); r.code != exitFault || s.done != 0 {
		t.Errorf("no: %+v, %d done", r, s.done)
	}
	s.before = func(w http.ResponseWriter) bool {
		w.WriteHeader(http.StatusForbidden)
		return true
	}
	postroom(t, "", "message", "cancel", "--all", "--yes").want(t, exitFault, "Forbidden (403)")
}

func TestAListGoesOnAfterAFault(t *testing.T) {
	tries := 0
	startFake(t, func(w http.ResponseWriter, r *http.Request) {
		page := admin.MessagePage{Messages: []admin.ListedMessage{{ID: idOf(tries), Accepted: begun}}}
		switch tries++; r.URL.Query().Get("cursor") {
		case "":
			page.Next = "b"
		case "b":
			if tries == 2 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			page.Next = "b" // for ever
		}
		_ = printJSON(w, page)
	})
	r := postroom(t, "", "message", "list")
	r.want(t, exitFault, errSameCursor.Error())
	if tries != 3 {
		t.Errorf("%d requests", tries)
	}
}
