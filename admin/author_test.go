package admin

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/postroom/postroom/queue"
)

// logged gives the log's lines with this message, each by its keys.
func (a *api) logged(t *testing.T, message string) []map[string]any {
	t.Helper()
	var all []map[string]any
	for line := range strings.Lines(a.log.String()) {
		one := map[string]any{}
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if one["msg"] == message {
			all = append(all, one)
		}
	}
	return all
}

func TestWhoHandsMailInIsInTheLog(t *testing.T) {
	a := serve(t, nil)
	accepted(t, a.call(t, "POST", "/v1/messages", producerToken, oneMessage))
	accepted(t, a.call(t, "POST", "/v1/batches", adminToken, twoRecipients))
	accepted(t, a.stream(t, "/v1/batches", streamOf(2)))
	lines := a.logged(t, "accepted")
	if len(lines) != 3 || lines[0]["by"] != "app" || lines[1]["by"] != "root" || lines[2]["by"] != "app" {
		t.Errorf("%v", lines)
	}
	// Who only asks is in the lines for each request, those that are refused too.
	a.call(t, "GET", "/v1/messages/01JZ3Q8Y6M2V7T4K9RBC5XWDHE", operatorToken, "")
	a.call(t, "GET", "/v1/mailboxes", producerToken, "")
	a.call(t, "GET", "/v1/nothing", adminToken, "")
	a.call(t, "GET", "/v1/mailboxes", "who", "")
	lines = a.logged(t, "request")
	for i, by := range []string{"app", "root", "app", "ops", "app", "root", ""} {
		if lines[i]["by"] != by {
			t.Errorf("request %d is logged as %v, want by %q", i, lines[i], by)
		}
	}
}

func TestCancelsAreNotedWithWhoAskedForThem(t *testing.T) {
	a := serve(t, nil)
	var one Accepted
	var b BatchAccepted
	a.call(t, "POST", "/v1/messages", producerToken, oneMessage).decode(t, &one)
	a.call(t, "POST", "/v1/batches", producerToken, twoRecipients).decode(t, &b)
	for range 2 { // the second time there is nothing to do
		a.call(t, "POST", "/v1/messages/"+one.ID+"/cancel", operatorToken, "")
		a.call(t, "POST", "/v1/batches/"+b.ID+"/cancel", adminToken, "")
	}
	got, err := a.queue.Audit(t.Context(), "", 10)
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	for i, want := range []string{"root 127.0.0.1 batch.cancel " + b.ID + " 2 of its 2 messages were open", "ops 127.0.0.1 message.cancel " + one.ID + " "} {
		if e := got[i]; fmt.Sprintln(e.By, e.From, e.Action, e.Target, e.Detail) != want+"\n" {
			t.Errorf("noted: %+v, want %s", e, want)
		}
	}
	cancelled, whole := a.logged(t, "cancelled"), a.logged(t, "batch cancelled: none of its messages begins any more")
	if len(cancelled) != 1 || cancelled[0]["by"] != "ops" || cancelled[0]["message"] != one.ID || len(whole) != 1 || whole[0]["by"] != "root" || whole[0]["batch"] != b.ID {
		t.Errorf("logged: %v, %v", cancelled, whole)
	}
	if r := a.call(t, "POST", "/v1/batches/01JZ3Q8Y6M2V7T4K9RBC5XWDHE/cancel", adminToken, ""); r.status != 404 {
		t.Errorf("%d %s", r.status, r.body)
	}
}

func TestAnIDOfTheOtherSortIsSaidToBeOne(t *testing.T) {
	a := serve(t, nil)
	var one Accepted
	var b BatchAccepted
	a.call(t, "POST", "/v1/messages", producerToken, oneMessage).decode(t, &one)
	a.call(t, "POST", "/v1/batches", producerToken, twoRecipients).decode(t, &b)
	for request, want := range map[string]string{
		"GET /v1/messages/" + b.ID: "of a batch", "POST /v1/messages/" + b.ID + "/cancel": "of a batch",
		"GET /v1/batches/" + one.ID: "of a message", "POST /v1/batches/" + one.ID + "/cancel": "of a message",
		"GET /v1/batches/01JZ3Q8Y6M2V7T4K9RBC5XWDHE": "Check the id",
	} {
		method, path, _ := strings.Cut(request, " ")
		if p := a.call(t, method, path, operatorToken, "").problem(t); p.Type != notFound.uri() || !strings.Contains(p.Detail, want) {
			t.Errorf("%s: %v, want it to say %q", request, p, want)
		}
	}
	if n := a.open(t); n != 3 {
		t.Errorf("%d messages are open", n)
	}
}

func TestAFullRedisIsNotTheBoundOfContent(t *testing.T) {
	for err, want := range map[error][2]string{queue.ErrFull: {"content.max_bytes", "maxmemory"}, queue.ErrRedisFull: {"maxmemory", "content.max_bytes"}} {
		h := newHandler(Options{Tokens: testTokens()}, faulty{func() error { return err }})
		p, ok := h.refused(t.Context(), err).(*Problem)
		if !ok || p.Type != full.uri() || !strings.Contains(p.Detail, want[0]) || strings.Contains(p.Detail, want[1]) {
			t.Errorf("%v: %+v", err, p)
		}
	}
}
