package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/queue"
)

const oneID = "01JZ3Q8Y6M2V7T4K9RBC5XWDHE"

// shelf is a failed store that answers as it is told, and remembers what it was asked.
type shelf struct {
	faulty
	page queue.FailedPage
	// step answers the n-th step of a requeue or a delete, from 0.
	step  func(n int, o queue.SelectionOptions) (queue.SelectionStep, error)
	state queue.State
	out   *mail.Outgoing
	err   error

	own     mail.Address // the provider's sender
	noted   []queue.AuditEntry
	did     string
	filters []queue.FailedFilter
	options []queue.SelectionOptions
	cursor  string
	limit   int
}

func (s *shelf) Failed(_ context.Context, f queue.FailedFilter, cursor string, limit int) (queue.FailedPage, error) {
	s.filters, s.cursor, s.limit = append(s.filters, f), cursor, limit
	return s.page, s.err
}

func (s *shelf) Requeue(ctx context.Context, f queue.FailedFilter, o queue.SelectionOptions) (queue.SelectionStep, error) {
	return s.next(ctx, "requeue", f, o)
}

func (s *shelf) DeleteFailed(ctx context.Context, f queue.FailedFilter, o queue.SelectionOptions) (queue.SelectionStep, error) {
	return s.next(ctx, "delete", f, o)
}

func (s *shelf) next(ctx context.Context, what string, f queue.FailedFilter, o queue.SelectionOptions) (queue.SelectionStep, error) {
	s.did, s.filters, s.options = what, append(s.filters, f), append(s.options, o)
	one, err := s.step(len(s.options)-1, o)
	if ctx.Err() != nil {
		err = errors.New("a step was cut")
	}
	return one, err
}

func (s *shelf) Provider(context.Context) (*queue.Provider, error) {
	settings := provider.Settings{Kind: provider.KindSMTP, Sender: s.own}
	shown, err := settings.Show()
	return &queue.Provider{Version: "1-x", Kind: "smtp", Shown: shown}, err
}

func (s *shelf) Note(_ context.Context, e queue.AuditEntry) error {
	s.noted = append(s.noted, e)
	return nil
}

func (s *shelf) Message(context.Context, string) (*queue.MessageStatus, error) {
	return &queue.MessageStatus{State: s.state}, nil
}

func (s *shelf) Outgoing(context.Context, string) (*mail.Outgoing, error) { return s.out, s.err }

// serve puts the handler of a shelf on a server.
func (s *shelf) serve(t *testing.T, change func(*handler)) *api {
	t.Helper()
	log := &logbook{}
	h := newHandler(Options{Tokens: testTokens(), Logger: log.logger()}, s)
	if change != nil {
		change(h)
	}
	a := &api{Server: httptest.NewServer(h), log: log}
	t.Cleanup(a.Close)
	return a
}

func minute(n int) time.Time { return time.Date(2030, 1, 2, 3, n, 0, 0, time.UTC) }

// everyField has a filter as the API takes it, in which each field is another, and as the queue should get it.
func everyField() (FailedFilter, queue.FailedFilter) {
	const other = "01JZ3Q8Y6M2V7T4K9RBC5XWDHF"
	return FailedFilter{Kind: mail.Report, Classes: []string{"permanent", "unknown"}, Mailbox: "News@Bücher.example", BatchID: other,
			Recipient: "@BÜCHER.example", Reply: "5.1.1 & +", IDs: []string{oneID, other}, From: minute(1), Until: minute(2).Add(500 * time.Millisecond)},
		queue.FailedFilter{Kind: mail.Report, Classes: []mail.Class{mail.Permanent, mail.Unknown}, Mailbox: "News@xn--bcher-kva.example", BatchID: other,
			Recipient: "@xn--bcher-kva.example", Reply: "5.1.1 & +", IDs: []string{oneID, other}, From: minute(1), Until: minute(2).Add(500 * time.Millisecond)}
}

func TestEveryFieldOfAFilterReachesTheQueue(t *testing.T) {
	given, want := everyField()
	for i := range reflect.TypeOf(given).NumField() {
		if reflect.ValueOf(given).Field(i).IsZero() {
			t.Fatalf("%s is not set", reflect.TypeOf(given).Field(i).Name)
		}
	}
	s := &shelf{step: func(int, queue.SelectionOptions) (queue.SelectionStep, error) { return queue.SelectionStep{}, nil }}
	c, err := NewClient(s.serve(t, nil).URL, operatorToken, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Failed(t.Context(), given, "cursor-1", 7); err != nil || s.cursor != "cursor-1" || s.limit != 7 {
		t.Errorf("list: cursor %q, limit %d, %v", s.cursor, s.limit, err)
	}
	selection := Selection{Filter: given, DryRun: true, Cursor: "cursor-2"}
	for what, do := range map[string]func(context.Context, Selection) (*Selected, error){"requeue": c.Requeue, "delete": c.DeleteFailed} {
		s.options = nil
		if _, err := do(t.Context(), selection); err != nil || s.did != what ||
			!reflect.DeepEqual(s.options, []queue.SelectionOptions{{Cursor: "cursor-2", DryRun: true}}) {
			t.Errorf("%s: %s, %+v, %v", what, s.did, s.options, err)
		}
	}
	for _, got := range s.filters {
		if !got.From.Equal(want.From) || !got.Until.Equal(want.Until) {
			t.Errorf("from %v until %v", got.From, got.Until)
		}
		got.From, got.Until = want.From, want.Until
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
	if len(s.filters) != 3 {
		t.Errorf("asked %d times", len(s.filters))
	}
}

func TestTheWholeStoreIsListedUnlessAFilterSaysOtherwise(t *testing.T) {
	s := &shelf{}
	a := s.serve(t, nil)
	r := a.call(t, "GET", "/v1/failed", operatorToken, "")
	if r.status != 200 || s.cursor != "" || s.limit != 100 || !reflect.DeepEqual(s.filters[0], queue.FailedFilter{}) {
		t.Errorf("%d %s: %+v, cursor %q, limit %d", r.status, r.body, s.filters, s.cursor, s.limit)
	}
	if got := strings.TrimSpace(string(r.body)); got != `{"messages":[],"scanned":0,"left":0}` {
		t.Errorf("an empty store: %s", got)
	}
	for filter, want := range map[string]string{"-": "-", "Own@Example.com": "Own@example.com", "News <news@example.com>": "news@example.com"} {
		s.filters = nil
		if a.call(t, "GET", "/v1/failed?mailbox="+url.QueryEscape(filter), operatorToken, ""); len(s.filters) != 1 || s.filters[0].Mailbox != want {
			t.Errorf("mailbox %q: %+v", filter, s.filters)
		}
	}
}

func TestAFailedMessageIsShownWithWhatKeptItBack(t *testing.T) {
	s := &shelf{page: queue.FailedPage{Next: "n", Scanned: 5000, Left: 3, Unreadable: 2, Messages: []queue.FailedMessage{
		{ID: "m1", BatchID: "b1", Kind: mail.Subscription, Class: mail.Permanent, Mailbox: "own@example.com", Accepted: minute(1), Failed: minute(3),
			Requeued: minute(2), Attempts: 4, Recipients: []queue.RecipientStatus{{Address: "ada@example.net", State: "refused"}, {State: "delivered"}},
			Last: queue.OutcomeReport{Recipients: []int{0}, Class: "permanent", Scope: "recipient", Step: "rcpt", Code: 550, Enhanced: "5.1.1", Reply: "no such user"}},
		{ID: "m2", Kind: mail.Alert, Class: mail.Unknown, Accepted: minute(1), Failed: minute(2)},
	}}}
	var page FailedPage
	r := s.serve(t, nil).call(t, "GET", "/v1/failed?limit=2", operatorToken, "")
	r.decode(t, &page)
	if page.Next != "n" || page.Scanned != 5000 || page.Left != 3 || page.Unreadable != 2 || len(page.Messages) != 2 {
		t.Fatalf("%s", r.body)
	}
	want := FailedMessage{ID: "m1", BatchID: "b1", Kind: mail.Subscription, Class: "permanent", Mailbox: "own@example.com", Accepted: minute(1), Failed: minute(3),
		Requeued: minute(2), Counted: 4, Recipients: []RecipientStatus{{"ada@example.net", "refused"}, {"", "delivered"}},
		Last: adviser{message: "m1"}.outcome(s.page.Messages[0].Last, minute(3))}
	if !reflect.DeepEqual(page.Messages[0], want) || !strings.Contains(want.Last.Advice.Remedy, "`postroom failed requeue m1`") || want.Last.Reply != "no such user" {
		t.Errorf("got  %+v\nwant %+v", page.Messages[0], want)
	}
	var raw struct{ Messages []map[string]json.RawMessage }
	r.decode(t, &raw)
	for _, field := range []string{"batch_id", "mailbox", "requeued"} {
		if _, there := raw.Messages[1][field]; there {
			t.Errorf("%s is there: %s", field, r.body)
		}
	}
	if string(raw.Messages[1]["recipients"]) != "[]" {
		t.Errorf("recipients: %s", raw.Messages[1]["recipients"])
	}
}

// steps of 2000 looked at, of which each does 10 more than the one before; the last is the fourth.
func fourSteps(n int, _ queue.SelectionOptions) (queue.SelectionStep, error) {
	one := queue.SelectionStep{Done: 10 * (n + 1), Cancelled: 1, Unreadable: 2, Scanned: 2000, Left: 2000 * (3 - n)}
	if n < 3 {
		one.Next = fmt.Sprintf("after-%d", n)
	}
	return one, nil
}

func TestARequestDoesStepAfterStepAndGivesTheirSum(t *testing.T) {
	s := &shelf{step: fourSteps}
	a := s.serve(t, nil)
	r := a.call(t, "POST", "/v1/failed/requeue", operatorToken, `{"all": true}`)
	var sum Selected
	r.decode(t, &sum)
	if want := (Selected{Done: 100, Cancelled: 4, Unreadable: 8, Scanned: 8000}); r.status != 200 || sum != want {
		t.Errorf("%d %s", r.status, r.body)
	}
	if want := []queue.SelectionOptions{{}, {Cursor: "after-0"}, {Cursor: "after-1"}, {Cursor: "after-2"}}; !reflect.DeepEqual(s.options, want) {
		t.Errorf("steps %+v", s.options)
	}
	if !reflect.DeepEqual(s.filters[3], queue.FailedFilter{}) {
		t.Errorf("filter %+v", s.filters[3])
	}
}

func TestEachRequestOfADryRunIsDry(t *testing.T) {
	s := &shelf{step: fourSteps}
	a := s.serve(t, func(h *handler) { h.patience = 0 })
	body := Selection{Filter: FailedFilter{Kind: mail.Report}, DryRun: true}
	done := 0
	for requests := 1; ; requests++ {
		js, _ := json.Marshal(body)
		var sum Selected
		a.call(t, "POST", "/v1/failed/delete", adminToken, string(js)).decode(t, &sum)
		done += sum.Done
		if body.Cursor = sum.Next; body.Cursor == "" || requests > 4 {
			break
		}
	}
	if done != 100 || len(s.options) != 4 {
		t.Errorf("%d done in %d steps", done, len(s.options))
	}
	for i, o := range s.options {
		if !o.DryRun || s.did != "delete" || s.filters[i].Kind != mail.Report {
			t.Errorf("step %d: %s %+v %+v", i, s.did, o, s.filters[i])
		}
	}
}

func TestARequestEndsWhenItsTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{step: func(n int, o queue.SelectionOptions) (queue.SelectionStep, error) {
			time.Sleep(selectionTime/2 + time.Millisecond)
			return fourSteps(n, o)
		}}
		h := newHandler(Options{Tokens: testTokens()}, s)
		var sum Selected
		requeueAll(t.Context(), h, &sum)
		if want := (Selected{Done: 30, Cancelled: 2, Unreadable: 4, Scanned: 4000, Left: 4000, Next: "after-1"}); sum != want || len(s.options) != 2 {
			t.Errorf("%+v after %d steps", sum, len(s.options))
		}
	})
}

func TestARequestEndsAfterTheStepInWhichItsClientGoes(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	s := &shelf{step: func(n int, o queue.SelectionOptions) (queue.SelectionStep, error) {
		if n == 1 {
			leave()
		}
		return fourSteps(n, o)
	}}
	log := &logbook{}
	h := newHandler(Options{Tokens: testTokens(), Logger: log.logger()}, s)
	var sum Selected
	requeueAll(ctx, h, &sum)
	if want := (Selected{Done: 30, Cancelled: 2, Unreadable: 4, Scanned: 4000, Left: 4000, Next: "after-1"}); sum != want || len(s.options) != 2 {
		t.Errorf("%+v after %d steps", sum, len(s.options))
	}
	if !strings.Contains(log.String(), `"msg":"failed messages requeued","by":"ops","done":30`) {
		t.Errorf("log: %s", log)
	}
}

// requeueAll asks h to requeue everything, without a network.
func requeueAll(ctx context.Context, h http.Handler, sum *Selected) {
	r := httptest.NewRequestWithContext(ctx, "POST", "/v1/failed/requeue", strings.NewReader(`{"all": true}`))
	r.Header.Set("Authorization", "Bearer "+operatorToken)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	_ = json.Unmarshal(w.Body.Bytes(), sum)
}

func TestWhatWasDoneBeforeAFaultIsTold(t *testing.T) {
	cut := fmt.Errorf("queue: requeue: %w", io.EOF)
	for name, test := range map[string]struct {
		steps  []queue.SelectionStep // the last one fails
		dry    bool
		want   Selected // the zero value: a problem
		logged string
	}{
		"nothing": {steps: []queue.SelectionStep{{Next: "start"}}, logged: `"done":0`},
		"nothing, after steps that found nothing": {steps: []queue.SelectionStep{{Scanned: 2000, Next: "a"}, {Next: "a"}}, logged: `"done":0`},
		"some of the first step": {steps: []queue.SelectionStep{{Done: 3, Cancelled: 1, Unreadable: 1, Scanned: 400, Next: "start"}},
			want: Selected{Done: 3, Next: "start"}, logged: `"done":3`},
		"steps, and some of another": {steps: []queue.SelectionStep{{Done: 5, Cancelled: 1, Scanned: 2000, Left: 4000, Next: "a"}, {Done: 3, Cancelled: 2, Scanned: 400, Next: "a"}},
			want: Selected{Done: 8, Cancelled: 1, Scanned: 2000, Left: 4000, Next: "a"}, logged: `"done":8`},
		// The step is counted again when it is repeated.
		"a dry run": {dry: true, steps: []queue.SelectionStep{{Done: 5, Scanned: 2000, Left: 4000, Next: "a"}, {Done: 3, Scanned: 400, Next: "a"}},
			want: Selected{Done: 5, Scanned: 2000, Left: 4000, Next: "a"}, logged: `"done":5`},
		"a dry run, at once": {dry: true, steps: []queue.SelectionStep{{Done: 3, Scanned: 400, Next: "start"}}, logged: `"done":0`},
	} {
		t.Run(name, func(t *testing.T) {
			s := &shelf{step: func(n int, _ queue.SelectionOptions) (queue.SelectionStep, error) {
				if n == len(test.steps)-1 {
					return test.steps[n], cut
				}
				return test.steps[n], nil
			}}
			a := s.serve(t, nil)
			r := a.call(t, "POST", "/v1/failed/requeue", operatorToken, fmt.Sprintf(`{"all": true, "dry_run": %v}`, test.dry))
			if test.want == (Selected{}) {
				if p := r.problem(t); p.Type != unavailable.uri() || !strings.Contains(p.Detail, "repeat") {
					t.Errorf("%d %s", r.status, r.body)
				}
			} else {
				var sum Selected
				if r.decode(t, &sum); r.status != 200 || sum != test.want {
					t.Errorf("%d %s, want %+v", r.status, r.body, test.want)
				}
			}
			if log := a.log.String(); !strings.Contains(log, test.logged) || !strings.Contains(log, `"level":"ERROR"`) || !strings.Contains(log, "EOF") {
				t.Errorf("log: %s", log)
			}
		})
	}
}

func TestWhatTheQueueFindsWrongIsNamedByItsPlace(t *testing.T) {
	invalid := &mail.Invalid{Problems: []mail.Problem{{Field: "/kind", Reason: "is off"}, {Field: "/recipient", Reason: "is off"},
		{Field: "/ids", Reason: "is off"}, {Field: "/until", Reason: "is off"}}}
	for _, test := range []struct {
		err           error
		body, inQuery string
	}{
		{invalid, "/filter/kind,/filter/recipient,/filter/ids,/filter/until", "query.kind,query.recipient,query.id,query.until"},
		{fmt.Errorf("queue: %w", queue.ErrCursor), "/cursor", "query.cursor"},
	} {
		s := &shelf{err: test.err, step: func(int, queue.SelectionOptions) (queue.SelectionStep, error) {
			return queue.SelectionStep{Next: "start"}, test.err
		}}
		a := s.serve(t, nil)
		for path, want := range map[string]string{"/v1/failed": test.inQuery, "/v1/failed/requeue": test.body, "/v1/failed/delete": test.body} {
			method, body := "GET", ""
			if path != "/v1/failed" {
				method, body = "POST", `{"all": true}`
			}
			p := a.call(t, method, path, operatorToken, body).problem(t)
			var at []string
			for _, f := range p.Errors {
				at = append(at, f.Location)
			}
			if got := strings.Join(at, ","); got != want || p.Type != invalidRequest.uri() {
				t.Errorf("%s: %+v, want %s", path, p, want)
			}
		}
		if log := a.log.String(); strings.Contains(log, "failed messages") || strings.Contains(log, "ERROR") {
			t.Errorf("nothing happened, but the log says: %s", log)
		}
	}
}

func TestEachRequeueAndDeleteIsLoggedWithoutWhomItIsAbout(t *testing.T) {
	s := &shelf{step: func(int, queue.SelectionOptions) (queue.SelectionStep, error) {
		return queue.SelectionStep{Done: 3, Cancelled: 2, Unreadable: 1, Scanned: 9}, nil
	}, page: queue.FailedPage{Messages: []queue.FailedMessage{{Recipients: []queue.RecipientStatus{{Address: "secret@example.net"}},
		Last: queue.OutcomeReport{Reply: "no secret here"}}}},
		state: queue.Failed, out: &mail.Outgoing{ID: oneID, From: mail.Address{Address: "own@example.com"}, To: []mail.Address{{Address: "secret@example.net"}}, Text: "secret"}}
	a := s.serve(t, nil)
	const filter = `{"filter": {"recipient": "secret@example.net", "reply": "secret", "mailbox": "own@example.com"}, "dry_run": `
	a.call(t, "POST", "/v1/failed/requeue", operatorToken, filter+"true}")
	a.call(t, "POST", "/v1/failed/delete", adminToken, filter+"false}")
	for _, line := range []string{
		`"msg":"failed messages requeued","by":"ops","done":3,"cancelled":2,"unreadable":1,"scanned":9,"left":0,"dry_run":true,"all":false`,
		`"msg":"failed messages deleted","by":"root","done":3,"cancelled":2,"unreadable":1,"scanned":9,"left":0,"dry_run":false,"all":false`,
	} {
		if strings.Count(a.log.String(), line) != 1 {
			t.Errorf("no line %s in %s", line, a.log)
		}
	}
	a.call(t, "GET", "/v1/failed?recipient=secret@example.net&reply=secret", operatorToken, "")
	a.call(t, "GET", "/v1/failed?recipient=secret&reply=secret", operatorToken, "")
	a.call(t, "GET", "/v1/failed/"+oneID+"/eml", operatorToken, "")
	a.call(t, "POST", "/v1/failed/delete", adminToken, strings.Replace(filter, "@", " ", 1)+"false}")
	if log := a.log.String(); strings.Contains(log, "secret") || strings.Count(log, `"msg":"request"`) != 6 || strings.Count(log, "failed messages") != 2 {
		t.Errorf("log: %s", log)
	}
}

func TestAnEmptyListIsSentAndRefused(t *testing.T) {
	s := &shelf{step: fourSteps}
	c, err := NewClient(s.serve(t, nil).URL, operatorToken, nil)
	if err != nil {
		t.Fatal(err)
	}
	var p *Problem
	_, err = c.DeleteFailed(t.Context(), Selection{Filter: FailedFilter{Kind: mail.Report, IDs: []string{}}})
	if !errors.As(err, &p) || len(p.Errors) != 1 || p.Errors[0].Location != "/filter/ids" || len(s.options) != 0 {
		t.Errorf("%v, %d steps", err, len(s.options))
	}
}

func TestAnExportIsRefusedWithItsReason(t *testing.T) {
	whole := mail.Outgoing{ID: oneID, From: mail.Address{Address: "own@example.com"}, To: []mail.Address{{Address: "ada@example.net"}}, Subject: "s", Text: "secret"}
	broken, senderless := whole, whole
	broken.Subject = "secret\r\nBcc: eve@example.net"
	senderless.From = mail.Address{Name: "Reports"}
	for name, test := range map[string]struct {
		state  queue.State
		out    *mail.Outgoing
		err    error
		want   refusal
		detail string
	}{
		"queued":              {state: queue.Queued, out: &whole, want: notFailed, detail: "waits or is being sent"},
		"sending":             {state: queue.Sending, out: &whole, want: notFailed, detail: "GET /v1/messages/{id}"},
		"delivered":           {state: queue.Delivered, want: notFailed, detail: "no longer kept"},
		"cancelled":           {state: queue.Cancelled, want: notFailed, detail: "no longer kept"},
		"expired":             {state: queue.Expired, want: notFailed, detail: "no longer kept"},
		"ended meanwhile":     {state: queue.Failed, err: queue.ErrEnded, want: notFailed, detail: "no longer kept"},
		"deleted meanwhile":   {state: queue.Failed, err: queue.ErrNotFound, want: notFound},
		"content is gone":     {state: queue.Failed, err: errors.New("queue: the content is missing or damaged"), want: internal},
		"can't be rendered":   {state: queue.Failed, out: &broken, want: internal},
		"nobody would be put": {state: queue.Failed, out: &senderless, want: noSender, detail: "provider.sender"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &shelf{state: test.state, out: test.out, err: test.err}
			a := s.serve(t, nil)
			r := a.call(t, "GET", "/v1/failed/"+oneID+"/eml", operatorToken, "")
			if p := r.problem(t); p.Type != test.want.uri() || !strings.Contains(p.Detail, test.detail) || r.header.Get("Content-Disposition") != "" {
				t.Errorf("%d %s", r.status, r.body)
			}
			if strings.Contains(a.log.String(), "secret") || bytes.Contains(r.body, []byte("secret")) {
				t.Errorf("%s; log: %s", r.body, a.log)
			}
		})
	}
}

func TestASenderIsPutIntoAnExportThatNamesNone(t *testing.T) {
	own := mail.Address{Address: "own@example.com", Name: "Own"}
	for _, test := range []struct{ from, want string }{{"", `"Own" <own@example.com>`}, {"Alarms", `"Alarms" <own@example.com>`}} {
		s := &shelf{own: own, state: queue.Failed, out: &mail.Outgoing{ID: oneID, From: mail.Address{Name: test.from}, Text: "t"}}
		a := s.serve(t, nil)
		r := a.call(t, "GET", "/v1/failed/"+oneID+"/eml", operatorToken, "")
		if from := parseMail(t, r.body).header.Get("From"); r.status != 200 || from != test.want && from != strings.ReplaceAll(test.want, `"`, "") {
			t.Errorf("%q: %s", test.from, r.body)
		}
	}
}
