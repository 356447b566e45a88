package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// rack is a queue whose mail is listed and cancelled as it is told, and remembers what it was asked.
type rack struct {
	shelf
	filters []queue.MessageFilter
	batches []queue.BatchFilter
	found   queue.MessagePage
}

func (r *rack) Messages(_ context.Context, f queue.MessageFilter, cursor string, limit int) (queue.MessagePage, error) {
	r.filters, r.cursor, r.limit = append(r.filters, f), cursor, limit
	return r.found, r.err
}

func (r *rack) Batches(_ context.Context, f queue.BatchFilter, cursor string, limit int) (queue.BatchPage, error) {
	r.batches, r.cursor, r.limit = append(r.batches, f), cursor, limit
	return queue.BatchPage{Next: "b2", Batches: []queue.BatchStatus{{ID: oneID, Mailbox: "own@example.com", Total: 3, Open: 1, Delivered: 2}}}, r.err
}

func (r *rack) CancelMessages(ctx context.Context, f queue.MessageFilter, o queue.SelectionOptions) (queue.SelectionStep, error) {
	r.filters = append(r.filters, f)
	return r.next(ctx, "cancel", queue.FailedFilter{}, o)
}

// on puts the handler of a rack on a server.
func (r *rack) on(t *testing.T, change func(*handler)) *api {
	t.Helper()
	return r.serve(t, func(h *handler) {
		h.queue = r
		if change != nil {
			change(h)
		}
	})
}

func TestEveryFieldOfAMessageFilterReachesTheQueue(t *testing.T) {
	given := MessageFilter{States: []queue.State{queue.Queued, queue.Sending}, Kind: mail.Report, Mailbox: "News@Bücher.example", BatchID: oneID, Recipient: "@BÜCHER.example",
		IDs: []string{oneID}, AcceptedAfter: minute(1), AcceptedBefore: minute(2).Add(500 * time.Millisecond)}
	want := queue.MessageFilter{States: given.States, Kind: mail.Report, Mailbox: "News@xn--bcher-kva.example", BatchID: oneID, Recipient: "@xn--bcher-kva.example",
		IDs: []string{oneID}, AcceptedAfter: given.AcceptedAfter, AcceptedBefore: given.AcceptedBefore}
	for i := range reflect.TypeOf(given).NumField() {
		if reflect.ValueOf(given).Field(i).IsZero() {
			t.Fatalf("%s is not set", reflect.TypeOf(given).Field(i).Name)
		}
	}
	r := &rack{shelf: shelf{step: func(int, queue.SelectionOptions) (queue.SelectionStep, error) {
		return queue.SelectionStep{Done: 1, TooLate: 2, Cancelled: 3, Before: minute(3)}, nil
	}}}
	c, err := NewClient(r.on(t, nil).URL, operatorToken, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Messages(t.Context(), given, "cursor-1", 7); err != nil || r.cursor != "cursor-1" || r.limit != 7 {
		t.Errorf("list: cursor %q, limit %d, %v", r.cursor, r.limit, err)
	}
	sum, err := c.CancelMessages(t.Context(), MessageSelection{Filter: given, DryRun: true, Cursor: "cursor-2"})
	if err != nil || *sum != (Selected{Done: 1, TooLate: 2, Cancelled: 3, AcceptedBefore: minute(3)}) || !slices.Equal(r.options, []queue.SelectionOptions{{Cursor: "cursor-2", DryRun: true}}) {
		t.Errorf("cancel: %+v, %+v, %v", sum, r.options, err)
	}
	for _, got := range r.filters {
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
	if len(r.filters) != 2 {
		t.Errorf("asked %d times", len(r.filters))
	}
	page, err := c.Batches(t.Context(), BatchFilter{Kind: mail.Report, Mailbox: "News@example.com", AcceptedAfter: minute(1), AcceptedBefore: minute(2), Open: true}, "b1", 5)
	if err != nil || r.cursor != "b1" || r.limit != 5 ||
		!reflect.DeepEqual(r.batches, []queue.BatchFilter{{Kind: mail.Report, Mailbox: "News@example.com", AcceptedAfter: minute(1), AcceptedBefore: minute(2), Open: true}}) {
		t.Errorf("batches: %+v, %v", r.batches, err)
	}
	if b := page.Batches[0]; page.Next != "b2" || b.ID != oneID || b.Mailbox != "own@example.com" || b.Counts != (BatchCounts{Open: 1, Delivered: 2}) || b.Total != 3 {
		t.Errorf("%+v", page)
	}
}

func TestAMessageIsListedWithWhatIsKnownOfIt(t *testing.T) {
	r := &rack{found: queue.MessagePage{Next: "n", Scanned: 5000, Left: 3, Unreadable: 2, Messages: []queue.ListedMessage{
		{ID: "m1", BatchID: "b1", Kind: mail.Subscription, State: queue.Queued, Mailbox: "own@example.com", Accepted: minute(1), Due: minute(3), Attempts: 4, Recipients: 5},
		{ID: "m2", Kind: mail.Alert, State: queue.Failed, Accepted: minute(1), Finished: minute(2), Recipients: 1},
	}}}
	answer := r.on(t, nil).call(t, "GET", "/v1/messages", operatorToken, "")
	want := `{"messages":[{"id":"m1","batch_id":"b1","kind":"subscription","state":"queued","mailbox":"own@example.com","accepted":"2030-01-02T03:01:00Z",` +
		`"due":"2030-01-02T03:03:00Z","attempts_counted":4,"recipients":5},{"id":"m2","kind":"alert","state":"failed","accepted":"2030-01-02T03:01:00Z",` +
		`"finished":"2030-01-02T03:02:00Z","attempts_counted":0,"recipients":1}],"next":"n","scanned":5000,"left":3,"unreadable":2}` + "\n"
	if answer.status != 200 || string(answer.body) != want || r.limit != 100 || !reflect.DeepEqual(r.filters, []queue.MessageFilter{{}}) {
		t.Errorf("%d %swant %s%+v", answer.status, answer.body, want, r.filters)
	}
}

func TestACancelIsToldInLinesAndNoted(t *testing.T) {
	r := &rack{shelf: shelf{step: func(n int, o queue.SelectionOptions) (queue.SelectionStep, error) {
		step := queue.SelectionStep{Done: 500, TooLate: 2, Scanned: 1000, Left: 2000 - 1000*n}
		if n < 2 {
			step.Next = fmt.Sprint("after-", n)
		}
		return step, nil
	}}}
	a := r.on(t, func(h *handler) { h.patience = 0 })
	got := linesOf[Selected](t, a.call(t, "POST", "/v1/messages/cancel", operatorToken,
		`{"filter": {"kind": "subscription", "recipient": "ada@example.net", "accepted_before": "2030-01-02T10:00:00Z"}}`, "Accept", ndjson))
	if len(got) != 3 || got[0].Done != 500 || got[2].Done != 1500 || got[2].TooLate != 6 || got[2].Scanned != 3000 || got[1].Next != "after-1" || got[2].Next != "" {
		t.Errorf("%+v", got)
	}
	if len(r.noted) != 4 || r.noted[0].Action != "messages.cancel" || r.noted[3].Detail != "500 messages cancelled" || r.noted[3].By != "ops" ||
		r.noted[0].Detail != "began: accepted before 2030-01-02T10:00:00Z; kind subscription; of one recipient or domain" {
		t.Errorf("%+v", r.noted)
	}
}

func TestARunThatRedisOutlivesNotTellsWhatWasDoneFirst(t *testing.T) {
	r := &rack{shelf: shelf{step: func(n int, o queue.SelectionOptions) (queue.SelectionStep, error) {
		if n == 0 {
			return queue.SelectionStep{Done: 7, Next: "a"}, queue.ErrCursorOver
		}
		return queue.SelectionStep{Next: "a"}, queue.ErrCursorOver
	}}}
	a := r.on(t, nil)
	var sum Selected
	a.call(t, "POST", "/v1/messages/cancel", operatorToken, `{"all": true}`).decode(t, &sum)
	if sum != (Selected{Done: 7, Next: "a"}) || r.noted[len(r.noted)-1].Detail != "7 messages cancelled" {
		t.Errorf("%+v, %+v", sum, r.noted)
	}
	p := a.call(t, "POST", "/v1/messages/cancel", operatorToken, `{"all": true, "cursor": "a"}`).problem(t)
	if p.Type != invalidRequest.uri() || len(p.Errors) != 1 || p.Errors[0].Location != "/cursor" {
		t.Errorf("%+v", p)
	}
}

func TestOpenMailIsListedAndCancelled(t *testing.T) {
	a := serve(t, nil)
	c, err := NewClient(a.URL, operatorToken, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := mail.Batch{Message: mail.Message{Kind: mail.Subscription, From: mail.Address{Address: "news@example.com"}, Subject: "News", Text: "News"}}
	for i := range 25 {
		b.Recipients = append(b.Recipients, mail.Recipient{To: []mail.Address{{Address: fmt.Sprintf("ada%d@example.net", i)}}})
	}
	news, err := a.queue.EnqueueBatch(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	fire := a.call(t, "POST", "/v1/messages", producerToken, oneMessage)
	var accepted Accepted
	fire.decode(t, &accepted)
	var ids []string
	for cursor := ""; ; {
		page, err := c.Messages(t.Context(), MessageFilter{BatchID: news.ID}, cursor, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page.Messages {
			ids = append(ids, m.ID)
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	if !slices.Equal(ids, news.IDs) {
		t.Errorf("%v, want %v", ids, news.IDs)
	}
	if _, err := c.CancelMessages(t.Context(), MessageSelection{}); !isProblem(err, invalidRequest) {
		t.Errorf("without a filter: %v", err)
	}
	sum, err := c.CancelMessages(t.Context(), MessageSelection{Filter: MessageFilter{Kind: mail.Subscription}})
	if err != nil || sum.Done != 25 || sum.AcceptedBefore.IsZero() || a.open(t) != 1 {
		t.Errorf("%+v, %v, %d are open", sum, err, a.open(t))
	}
	batches, err := c.Batches(t.Context(), BatchFilter{}, "", 0)
	if err != nil || len(batches.Batches) != 1 || batches.Batches[0].Counts != (BatchCounts{Cancelled: 25}) || batches.Batches[0].Progress != 1 {
		t.Errorf("%+v, %v", batches, err)
	}
	page, err := c.Messages(t.Context(), MessageFilter{}, "", 0)
	if js, _ := json.Marshal(page); err != nil || len(page.Messages) != 1 || page.Messages[0].ID != accepted.ID {
		t.Errorf("%s, %v", js, err)
	}
}
