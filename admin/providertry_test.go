package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/queue"
)

// verify tries settings, or the active ones if body is {}.
func (o *office) verify(t *testing.T, body string) *Verification {
	t.Helper()
	r := o.call(t, "POST", "/v1/provider/verify", adminToken, body)
	v := &Verification{}
	if r.decode(t, v); r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	return v
}

func TestActiveAndOtherSettingsAreTried(t *testing.T) {
	o := openOffice(t, keyOf("a"))
	version := o.put(t, byPassword).Provider.Version
	seen := make(chan provider.Settings, 9)
	o.meets(func(s *provider.Settings) []provider.Step {
		seen <- *s
		if noted := o.latest(t, 1); !strings.HasPrefix(noted[0], "root 127.0.0.1 provider.verify "+string(s.Kind)+": ") {
			t.Errorf("it is tried before it is noted: %q", noted)
		}
		return works(s)
	})
	v := o.verify(t, `{}`)
	if s := <-seen; !v.Valid || v.Summary == "" || len(v.Steps) != 1 || v.Steps[0].TookMs != 1 || v.Steps[0].Found == "" || s.SMTP.Auth.Password.Reveal() != "open sesame" {
		t.Errorf("%+v", v)
	}
	// A secret that is left out is that of the active settings.
	o.verify(t, `{"settings": `+strings.Replace(withoutPassword, "Reports", "Figures", 1)+`}`)
	if s := <-seen; s.SMTP.Auth.Password.Reveal() != "open sesame" || s.Sender.Name != "Figures" || s.SMTP.Port != 587 {
		t.Errorf("%+v", s)
	}
	o.verify(t, `{"settings": `+byGraph+`}`)
	if s := <-seen; s.Kind != "microsoft365" || s.Microsoft365.Cloud != "global" {
		t.Errorf("%+v", s)
	}
	o.meets(refuses(wrongPassword))
	v = o.verify(t, `{}`)
	if f := v.Steps[len(v.Steps)-1].Fault; v.Valid || f == nil || f.Field != "/smtp/auth/password" || f.Answer != wrongPassword.Reply || f.Postroom != "" || !strings.Contains(v.Summary, "step auth failed") {
		t.Errorf("%+v", v)
	}
	if p := o.show(t); p.Version != version || p.Health.State != "ok" {
		t.Errorf("trying has changed something: %+v", p)
	}
	want := []string{"root 127.0.0.1 provider.verify smtp: the active settings: mail.example.com port 587, security starttls",
		"root 127.0.0.1 provider.verify microsoft365: settings that are not active: tenant 11111111-2222-3333-4444-555555555555, app 66666666-7777-8888-9999-000000000000"}
	if got := o.latest(t, 2); !slices.Equal(got, want) {
		t.Errorf("audit: %q", got)
	}
}

func TestWhatCannotBeTriedIsNot(t *testing.T) {
	o := openOffice(t, keyOf("a"))
	tried := func(name, body string, want refusal, at string) {
		t.Helper()
		p := o.call(t, "POST", "/v1/provider/verify", adminToken, body).problem(t)
		got := ""
		for _, f := range p.Errors {
			got += f.Location
		}
		if p.Type != want.uri() || got != at {
			t.Errorf("%s: %+v", name, p)
		}
	}
	tried("nothing is active", `{}`, noProvider, "")
	tried("none", `{"settings": {"kind": "none"}}`, noProvider, "")
	tried("nothing named", `{"settings": {}}`, noProvider, "")
	tried("invalid", `{"settings": {"kind": "smtp", "sender": {"address": "reports@example.com"}}}`, invalidSettings, "/smtp/host")
	tried("unknown", `{"settings": {"kinds": "smtp"}}`, invalidRequest, "/settings/kinds")
	if p := o.call(t, "POST", "/v1/provider/test", adminToken, `{"to": "ada@example.net"}`).problem(t); p.Type != noProvider.uri() {
		t.Errorf("%+v", p)
	}
	o.put(t, byPassword)
	tried("a password for another server", `{"settings": `+strings.Replace(withoutPassword, "mail.", "evil.", 1)+`}`, invalidSettings, "/smtp/auth/password")
	for name, to := range map[string]string{"no address": "ada at home", "two": "ada@example.net, bob@example.net", "nothing": ""} {
		p := o.call(t, "POST", "/v1/provider/test", adminToken, `{"to": "`+to+`"}`).problem(t)
		if p.Type != invalidRequest.uri() || len(p.Errors) != 1 || p.Errors[0].Location != "/to" {
			t.Errorf("%s: %+v", name, p)
		}
	}
	other := o.beside(t, keyOf("b"))
	if p := other.call(t, "POST", "/v1/provider/verify", adminToken, `{}`).problem(t); p.Type != unreadableSettings.uri() || !strings.Contains(p.Detail, o.providers.Keys.ID()) {
		t.Errorf("without its key: %+v", p)
	}
	if o.triedTimes() != 1 || other.triedTimes() != 0 || o.open(t) != 0 || len(o.latest(t, 9)) != 1 {
		t.Errorf("tried %d and %d times, noted %q", o.triedTimes(), other.triedTimes(), o.latest(t, 9))
	}
}

func TestSettingsThatAreSeenToWorkEndWhatTheyHold(t *testing.T) {
	const configuration, throttled = mail.Configuration, mail.Throttled
	for name, test := range map[string]struct {
		settings string
		class    mail.Class
		want     string // health, when the active settings have been seen to work
	}{
		"account":              {byPassword, configuration, "ok"},
		"account, slow":        {byPassword, throttled, "degraded"},
		"account, silent":      {byPassword, mail.Temporary, "ok"},
		"every mailbox":        {byGraph, configuration, "ok"},
		"every mailbox, slow":  {byGraph, throttled, "degraded"},
		"every mailbox, quiet": {byGraph, mail.Temporary, "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			o := openOffice(t, keyOf("a"))
			o.meets(refuses(mail.Outcome{Class: test.class, Scope: mail.ScopeProvider, Step: "dial"}))
			before := o.put(t, test.settings).Provider.Health
			if before.State == "ok" {
				t.Fatalf("nothing is held: %+v", before)
			}
			o.verify(t, `{}`) // does not work still
			o.meets(works)
			o.verify(t, `{"settings": `+byRelay+`}`) // tells nothing of the active ones
			if h := o.show(t).Health; h.State != before.State {
				t.Errorf("before they work: %+v", h)
			}
			o.verify(t, `{}`)
			if h := o.show(t).Health; h.State != test.want {
				t.Errorf("%+v", h)
			}
		})
	}
}

func TestTriesAreRationedOverAllProcesses(t *testing.T) {
	o := openOffice(t, keyOf("a"))
	other := o.beside(t, keyOf("a"))
	o.put(t, byRelay)
	o.redis.FlushAll()
	begun := time.Now().Truncate(time.Millisecond)
	at := func(d time.Duration) { o.redis.SetTime(begun.Add(d)) }
	at(0)
	o.call(t, "PUT", "/v1/provider?verify=false", "fourth-admin", byRelay) // counts, for fourth and for all
	again := `{"settings": ` + byGraph + `}`
	try := func(i int, token string) reply {
		t.Helper()
		switch i % 4 {
		case 0:
			return o.call(t, "POST", "/v1/provider/verify", token, again)
		case 1:
			return other.call(t, "PUT", "/v1/provider", token, byRelay)
		case 2:
			return other.call(t, "POST", "/v1/provider/verify", token, `{}`)
		}
		return o.call(t, "PUT", "/v1/provider?verify=false", token, byRelay)
	}
	goes := func(i int, token string) {
		t.Helper()
		if r := try(i, token); r.status != 200 {
			t.Fatalf("try %d of %s: %d %s", i, token, r.status, r.body)
		}
	}
	waits := func(i int, token string, seconds int) {
		t.Helper()
		r := try(i, token)
		if p := r.problem(t); p.Type != tooManyTries.uri() || r.header.Get("Retry-After") != strconv.Itoa(seconds) {
			t.Fatalf("try %d of %s: %+v, Retry-After %s, want %d", i, token, p, r.header.Get("Retry-After"), seconds)
		}
	}
	for i := range 10 { // one at each second from 1 to 10
		at(time.Duration(i+1) * time.Second)
		goes(i, adminToken)
	}
	tried := o.triedTimes() + other.triedTimes()
	for i := range 40 { // no refused one uses up anything
		waits(i, adminToken, 52) // 51 s, and what is left of a second
	}
	if r := o.call(t, "POST", "/v1/provider/test", adminToken, `{"to": "ada@example.net"}`); r.problem(t).Type != tooManyTries.uri() || o.open(t) != 0 {
		t.Errorf("%s", r.body)
	}
	if o.triedTimes()+other.triedTimes() != tried {
		t.Error("what was refused was tried")
	}
	at(20 * time.Second)
	for i := range 10 {
		goes(i, "second-admin")
	}
	at(30 * time.Second)
	for i := range 9 { // with the one of fourth these are 30
		goes(i, "third-admin")
	}
	for i := range 4 {
		waits(i, "third-admin", 31) // for that of fourth at 0
		waits(i, "fourth-admin", 31)
	}
	at(time.Minute - time.Millisecond)
	waits(0, "fourth-admin", 1)
	at(time.Minute)
	goes(0, "fourth-admin")
	waits(1, "fourth-admin", 2)     // 30 in all, until that at 1 s has had its minute
	at(time.Minute + 2*time.Second) // two of root's have
	goes(0, adminToken)
	goes(0, "third-admin")
	waits(0, "third-admin", 29) // ten of third's, until the nine at 30 s have had their minute
}

// serveMail runs a worker that settles as it is told.
func (o *office) serveMail(t *testing.T, settle func(*queue.Attempt) *queue.Settlement) {
	t.Helper()
	c := o.queue.NewConsumer(queue.ConsumerOptions{CheckInterval: 5 * time.Millisecond, Grace: time.Second,
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
}

// settled gives a settlement for one recipient.
func settled(a *queue.Attempt, verdict queue.Verdict, o mail.Outcome) *queue.Settlement {
	return &queue.Settlement{Attempt: a, Verdict: verdict, Class: o.Class, Scope: o.Scope, Counted: verdict != queue.Back, Outcomes: []mail.Outcome{o}}
}

func TestATestMailTellsWhatBecomesOfIt(t *testing.T) {
	wrong := wrongPassword
	for name, test := range map[string]struct {
		settle func(*queue.Attempt) *queue.Settlement
		state  string
		fault  ProviderFault
		ends   queue.State
	}{
		"delivered": {func(a *queue.Attempt) *queue.Settlement {
			return settled(a, queue.Done, mail.Outcome{Class: mail.Delivered, Code: 250, Reply: "250 Ok"})
		},
			"delivered", ProviderFault{}, queue.Delivered},
		"no such recipient": {func(a *queue.Attempt) *queue.Settlement {
			return settled(a, queue.GiveUp, mail.Outcome{Class: mail.Permanent, Scope: mail.ScopeRecipient, Step: "rcpt", Code: 550, Enhanced: "5.1.1", Reply: "550 5.1.1 No such user"})
		}, "failed", ProviderFault{Code: 550, Enhanced: "5.1.1", Answer: "550 5.1.1 No such user"}, ""},
		"later": {func(a *queue.Attempt) *queue.Settlement {
			s := settled(a, queue.Again, mail.Outcome{Class: mail.Temporary, Step: "data", Code: 451, Enhanced: "4.3.0", Reply: "451 4.3.0 Later"})
			s.Delay = time.Minute
			return s
		}, "failed", ProviderFault{Code: 451, Enhanced: "4.3.0", Answer: "451 4.3.0 Later"}, queue.Cancelled},
		"wrong password": {func(a *queue.Attempt) *queue.Settlement {
			s := settled(a, queue.Back, wrong)
			s.Hold, s.HoldMax, s.Reason = time.Hour, 2*time.Hour, "configuration"
			return s
		}, "failed", ProviderFault{Field: "/smtp/auth/password", Cause: "credentials", Code: 535, Enhanced: "5.7.8", Answer: wrong.Reply}, queue.Cancelled},
		"too fast": {func(a *queue.Attempt) *queue.Settlement {
			s := settled(a, queue.Back, mail.Outcome{Class: mail.Throttled, Step: "mail", Code: 421, Reply: "421 Slowly"})
			s.Hold, s.Reason = time.Hour, "throttled"
			return s
		}, "failed", ProviderFault{Code: 421, Answer: "421 Slowly"}, queue.Cancelled},
	} {
		t.Run(name, func(t *testing.T) {
			o := openOffice(t, keyOf("a"))
			o.put(t, byPassword)
			seen := make(chan *mail.Outgoing, 99)
			o.serveMail(t, func(a *queue.Attempt) *queue.Settlement {
				seen <- a.Message
				return test.settle(a)
			})
			r := o.call(t, "POST", "/v1/provider/test", adminToken, `{"to": "Ada <ada@example.net>"}`)
			var got TestResult
			r.decode(t, &got)
			if r.status != 200 || got.State != test.state || got.Summary == "" || len(got.ID) != 26 {
				t.Fatalf("%d %s", r.status, r.body)
			}
			if got.Fault == nil {
				got.Fault = &ProviderFault{}
			}
			if test.state == "failed" && (got.Fault.Happened == "" || got.Fault.Postroom != "" || !strings.Contains(got.Summary, got.Fault.Happened)) {
				t.Errorf("%s", r.body)
			}
			if f := *got.Fault; f.Field != test.fault.Field || f.Cause != test.fault.Cause || f.Code != test.fault.Code || f.Enhanced != test.fault.Enhanced || f.Answer != test.fault.Answer {
				t.Errorf("%s", r.body)
			}
			m := <-seen
			if m.Kind != mail.Alert || len(m.To) != 1 || m.To[0].Address != "ada@example.net" || m.From.Address != "" ||
				!strings.Contains(m.Subject, "Postroom") || !strings.Contains(m.Subject, "post1.example.com") ||
				!strings.Contains(m.Text, "Postroom") || !strings.Contains(m.Text, "post1.example.com") || !strings.Contains(m.Text, "root") {
				t.Errorf("%+v", m)
			}
			s, err := o.queue.Message(t.Context(), got.ID)
			switch failed, _ := o.queue.Failed(t.Context(), queue.FailedFilter{}, "", 0); {
			case test.ends == "":
				if !errors.Is(err, queue.ErrNotFound) || len(failed.Messages) != 0 {
					t.Errorf("it is among failed mail: %+v, %v", failed, err)
				}
			case err != nil || s.State != test.ends:
				t.Errorf("it is %+v, want %s; %v", s, test.ends, err)
			}
			if test.ends == queue.Cancelled && o.open(t) != 0 {
				t.Error("it is sent later")
			}
			if got := o.latest(t, 1); !slices.Equal(got, []string{"root 127.0.0.1 provider.test smtp: a test mail"}) {
				t.Errorf("audit: %q", got)
			}
			if log := o.log.String(); strings.Contains(log, "ada@") {
				t.Errorf("the log names who it went to: %s", log)
			}
		})
	}
}

func TestATestMailTriesWhatIsHeld(t *testing.T) {
	for name, settings := range map[string]string{"account": byPassword, "every mailbox": byGraph} {
		t.Run(name, func(t *testing.T) {
			o := openOffice(t, keyOf("a"))
			o.meets(refuses(wrongPassword))
			o.put(t, settings)
			a, err := o.queue.Enqueue(t.Context(), mail.Message{Kind: mail.Report, From: mail.Address{Address: "other@example.com"}, To: []mail.Address{{Address: "bob@example.net"}}, Subject: "s", Text: "t"})
			if err != nil {
				t.Fatal(err)
			}
			o.serveMail(t, func(a *queue.Attempt) *queue.Settlement {
				return settled(a, queue.Done, mail.Outcome{Class: mail.Delivered, Code: 250})
			})
			if h := o.show(t).Health; h.State != "faulty" || h.Fault.Field == "" {
				t.Fatalf("%+v", h)
			}
			var got TestResult
			if r := o.call(t, "POST", "/v1/provider/test", adminToken, `{"to": "ada@example.net"}`); r.status != 200 || json.Unmarshal(r.body, &got) != nil || got.State != "delivered" {
				t.Fatalf("%d %s", r.status, r.body)
			}
			for deadline := time.Now().Add(20 * time.Second); o.show(t).Health.State != "ok"; { // what was seen before may be told for a second
				if time.Now().After(deadline) {
					t.Fatalf("after a mail has gone: %+v", o.show(t).Health)
				}
			}
			s := &store{api: o.api}
			if s.client, err = NewClient(o.URL, operatorToken, nil); err != nil {
				t.Fatal(err)
			}
			s.until(t, queue.Delivered, a.ID) // long before the hold's time is over
		})
	}
}

// waitingQueue is a queue in which one message waits until it is cancelled.
type waitingQueue struct {
	faulty
	outlook   *queue.Outlook
	tooLate   bool
	cancelled time.Time
	enqueued  []mail.Message
}

func (w *waitingQueue) Provider(context.Context) (*queue.Provider, error) {
	return &queue.Provider{Kind: "smtp", Version: "1-x", Source: queue.FromAPI, Account: "mail.example.com:587", Shown: `{"settings": {"kind": "smtp"}}`}, nil
}
func (w *waitingQueue) Take(context.Context, queue.Ration, string) (time.Duration, error) {
	return 0, nil
}
func (w *waitingQueue) Note(context.Context, queue.AuditEntry) error { return nil }
func (w *waitingQueue) Release(context.Context, string, bool) error  { return nil }
func (w *waitingQueue) Enqueue(_ context.Context, m mail.Message, _ ...queue.Option) (queue.Receipt, error) {
	w.enqueued = append(w.enqueued, m)
	return queue.Receipt{ID: "01JZ3Q8Y6M2V7T4K9RBC5XWDHE"}, nil
}
func (w *waitingQueue) Message(ctx context.Context, id string) (*queue.MessageStatus, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	state := queue.Queued
	if w.tooLate {
		state = queue.Sending
	}
	return &queue.MessageStatus{ID: id, Kind: mail.Alert, State: state}, nil
}
func (w *waitingQueue) Outlook(context.Context, *queue.MessageStatus) (*queue.Outlook, error) {
	return w.outlook, nil
}
func (w *waitingQueue) CancelMessage(ctx context.Context, _ string, _ ...queue.Option) error {
	if w.tooLate {
		return queue.ErrTooLate
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	w.cancelled = time.Now()
	return nil
}

func testMailRequest(ctx context.Context) *http.Request {
	r := httptest.NewRequestWithContext(ctx, "POST", "/v1/provider/test", strings.NewReader(`{"to": "ada@example.net"}`))
	r.Header.Set("Authorization", "Bearer "+adminToken)
	r.Header.Set("Content-Type", "application/json")
	return r
}

func TestATestMailThatWaitsIsCancelledAfter30Seconds(t *testing.T) {
	for name, test := range map[string]struct {
		q    waitingQueue
		want []string
	}{
		"paused": {waitingQueue{outlook: &queue.Outlook{Wait: queue.WaitsForPause, Key: "mail.example.com:587", Silence: &queue.Silence{Reason: "new server", By: "ops", Until: time.Now().Add(time.Hour)}}},
			[]string{"not tried within 30s", "cancelled", "new server"}},
		"too fast":      {waitingQueue{outlook: &queue.Outlook{Wait: queue.WaitsForHold, Key: "mail.example.com:587", Silence: &queue.Silence{Reason: "throttled", Until: time.Now().Add(time.Hour)}}}, []string{"not tried within 30s", "cancelled"}},
		"nobody's turn": {waitingQueue{outlook: &queue.Outlook{Wait: queue.WaitsForTurn}}, []string{"not tried within 30s", "its turn"}},
		"being sent":    {waitingQueue{tooLate: true}, []string{"is being sent", "/v1/messages/"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := test.q
				q.fail = func() error { return fmt.Errorf("not to be asked") }
				h := newHandler(Options{Tokens: testTokens(), Providers: &Providers{Host: "post1"}}, &q)
				w := httptest.NewRecorder()
				begun := time.Now()
				h.ServeHTTP(w, testMailRequest(t.Context()))
				var got TestResult
				if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 || got.State != "waiting" || got.Fault != nil {
					t.Fatalf("%d %s", w.Code, w.Body)
				}
				for _, text := range test.want {
					if !strings.Contains(got.Summary, text) {
						t.Errorf("%q does not say %q", got.Summary, text)
					}
				}
				if took := time.Since(begun); took < 30*time.Second || took > 31*time.Second || got.TookMs != took.Milliseconds() {
					t.Errorf("it took %s, and says %d ms", took, got.TookMs)
				}
				if q.cancelled.IsZero() != test.q.tooLate {
					t.Errorf("cancelled: %v", q.cancelled)
				}
				if m := q.enqueued; len(m) != 1 || !m[0].ExpiresAt.After(begun.Add(30*time.Second)) {
					t.Errorf("%+v", m)
				}
			})
		})
	}
}

func TestATestMailIsNotSentWhenNobodyLooks(t *testing.T) {
	for name, test := range map[string]struct {
		q       waitingQueue
		patient time.Duration
	}{
		"the client has gone":    {waitingQueue{outlook: &queue.Outlook{Wait: queue.WaitsForTurn}}, 10 * time.Second},
		"it is just being tried": {waitingQueue{tooLate: true}, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := test.q
				q.fail = func() error { return fmt.Errorf("not to be asked") }
				h := newHandler(Options{Tokens: testTokens(), Providers: &Providers{Host: "post1"}}, &q)
				ctx, leave := context.WithTimeout(t.Context(), test.patient)
				defer leave()
				begun := time.Now()
				h.ServeHTTP(httptest.NewRecorder(), testMailRequest(ctx))
				if len(q.enqueued) != 1 || q.cancelled.IsZero() && q.enqueued[0].ExpiresAt.After(begun.Add(time.Minute)) {
					t.Errorf("%d enqueued, cancelled %v: it can be sent long after", len(q.enqueued), q.cancelled)
				}
			})
		})
	}
}

func TestSettingsAreSealedWithTheFirstKey(t *testing.T) {
	o := openOffice(t, keyOf("a"))
	reseal := func(o *office) reply { return o.call(t, "POST", "/v1/provider/reseal", adminToken, "") }
	if p := reseal(o).problem(t); p.Type != noProvider.uri() {
		t.Errorf("%+v", p)
	}
	version := o.put(t, byPassword).Provider.Version
	before, _ := o.stored(t)
	var done Resealed
	if reseal(o).decode(t, &done); done.Changed || len(o.latest(t, 9)) != 1 {
		t.Errorf("%+v", done)
	}
	stranger := o.beside(t, keyOf("b"))
	if p := reseal(stranger).problem(t); p.Type != unreadableSettings.uri() || !strings.Contains(p.Detail, o.providers.Keys.ID()) {
		t.Errorf("%+v", p)
	}
	if p, _ := o.stored(t); p.Sealed != before.Sealed {
		t.Error("it was sealed anew all the same")
	}
	both := o.beside(t, keyOf("b"), keyOf("a"))
	if reseal(both).decode(t, &done); !done.Changed || done.Summary == "" {
		t.Errorf("%+v", done)
	}
	p, s := stranger.stored(t) // has the new key alone
	if s.SMTP.Auth.Password.Reveal() != "open sesame" || p.Version != version || p.By != "root" || !stranger.providers.Keys.Current(p.Sealed) || strings.Contains(everything(t, o.api), before.Sealed) {
		t.Errorf("%+v", p)
	}
	if got := o.latest(t, 1); !slices.Equal(got, []string{"root 127.0.0.1 provider.reseal smtp: with the key " + stranger.providers.Keys.ID()}) {
		t.Errorf("audit: %q", got)
	}
	// Without secrets there is nothing to seal.
	o.put(t, byRelay)
	if reseal(stranger).decode(t, &done); done.Changed {
		t.Errorf("%+v", done)
	}
	// Whoever has the key no more gives the secrets anew.
	o.put(t, byPassword)
	if p := stranger.call(t, "PUT", "/v1/provider", adminToken, withoutPassword).problem(t); p.Type != invalidSettings.uri() {
		t.Errorf("%+v", p)
	}
	if c := stranger.put(t, byPassword); c.Result != "saved" {
		t.Errorf("%+v", c)
	}
}
