package worker

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/queue"
)

var own = mail.Address{Address: "own@example.com", Name: "Reports"}

// sender is a provider.Sender made of a function.
type sender func(context.Context, *provider.Delivery) ([]mail.Outcome, error)

func (s sender) Send(ctx context.Context, d *provider.Delivery) ([]mail.Outcome, error) {
	return s(ctx, d)
}
func (sender) Close() error { return nil }

// with sends everything by s.
func with(s sender) func(context.Context, *queue.Provider) (*Active, error) {
	return func(context.Context, *queue.Provider) (*Active, error) {
		return &Active{Sender: s, Provider: "smtp", From: own}, nil
	}
}

// accepts hands everything over.
func accepts(_ context.Context, d *provider.Delivery) ([]mail.Outcome, error) {
	if err := d.Fence(); err != nil {
		return nil, err
	}
	return provider.All(len(d.Recipients), mail.Outcome{Class: mail.Delivered, Code: 250, Reply: "250 queued"}), nil
}

// letterTo is a message without sender.
func letterTo(addresses ...string) mail.Message {
	m := mail.Message{Kind: mail.Report, Subject: "Figures", Text: "Here they are"}
	for _, a := range addresses {
		m.To = append(m.To, mail.Address{Address: a})
	}
	return m
}

func newQueue(t *testing.T) (*queue.Queue, *miniredis.Miniredis) {
	t.Helper()
	r := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: r.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	q, err := queue.Open(t.Context(), queue.Options{Client: client})
	if err != nil {
		t.Fatal(err)
	}
	return q, r
}

func enqueue(t *testing.T, q *queue.Queue, m mail.Message) string {
	t.Helper()
	r, err := q.Enqueue(context.Background(), m)
	if err != nil {
		t.Fatal(err)
	}
	return r.ID
}

// start works off turns by a worker; stop asks it to end, and waits. It is stopped at the end of the test, too.
func start(t *testing.T, q *queue.Queue, concurrency int, w *Worker) (stop func()) {
	t.Helper()
	return consume(t, q, concurrency, queue.ConsumerOptions{Load: w.Load, Handle: w.HandleTurn})
}

// consume is start for any handler.
func consume(t *testing.T, q *queue.Queue, concurrency int, o queue.ConsumerOptions) (stop func()) {
	t.Helper()
	declare(t, q, "mail.example.com:587", concurrency)
	o.CheckInterval, o.Grace = 5*time.Millisecond, 5*time.Second
	c := q.NewConsumer(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("consumer: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// declare makes an account the active provider's.
func declare(t *testing.T, q *queue.Queue, account string, concurrency int) {
	t.Helper()
	if _, err := q.DeclareProvider(t.Context(), &queue.ActiveProvider{Kind: "smtp", Keying: queue.ByAccount, Account: account,
		Sender: own.Address, Concurrency: concurrency}, "salt", account, "here"); err != nil {
		t.Fatal(err)
	}
}

// turnOf gives what a turn's handler makes of the first turn.
func turnOf(t *testing.T, before func(context.Context, *queue.Queue) string, handle func(*queue.Queue, string, *queue.Turn) *queue.Settlement) *queue.Settlement {
	t.Helper()
	q, _ := newQueue(t)
	id := before(t.Context(), q)
	result := make(chan *queue.Settlement, 1)
	consume(t, q, 1, queue.ConsumerOptions{Handle: func(_ context.Context, turn *queue.Turn) {
		s := handle(q, id, turn)
		for turn.Next(s) != nil {
			s = nil
		}
		select {
		case result <- s:
		default:
		}
	}})
	return <-result
}

// eventually waits until a message is in a state.
func eventually(t *testing.T, q *queue.Queue, id string, state queue.State, attempts int) *queue.MessageStatus {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
		s, err := q.Message(context.Background(), id)
		if err == nil && s.State == state && len(s.History) >= attempts {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %+v, %v; want %s", id, s, err, state)
		}
	}
}

// lines takes log lines; safe for concurrent use.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestAPanicHarmsNoOtherMessage(t *testing.T) {
	q, _ := newQueue(t)
	early := enqueue(t, q, letterTo("early@example.net"))
	late := enqueue(t, q, letterTo("late@example.net"))
	short := enqueue(t, q, letterTo("short@example.net"))
	shortEarly := enqueue(t, q, letterTo("shortearly@example.net"))
	fine := enqueue(t, q, letterTo("fine@example.net"))
	var log lines
	w := New(Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Load: with(func(ctx context.Context, d *provider.Delivery) ([]mail.Outcome, error) {
			switch d.Recipients[0].Address {
			case "early@example.net":
				panic("secret of " + d.Message.Subject)
			case "shortearly@example.net":
				return nil, nil
			}
			if err := d.Fence(); err != nil {
				return nil, err
			}
			switch d.Recipients[0].Address {
			case "late@example.net":
				panic(fmt.Errorf("secret of %s", d.Recipients[0].Address))
			case "short@example.net":
				return nil, nil
			}
			return provider.All(1, mail.Outcome{Class: mail.Delivered}), nil
		})})
	start(t, q, 1, w)
	eventually(t, q, fine, queue.Delivered, 1)
	for id, class := range map[string]string{early: "temporary", shortEarly: "temporary", late: "unknown", short: "unknown"} {
		s := eventually(t, q, id, queue.Queued, 1)
		if o := s.History[0].Outcomes; len(s.History) != 1 || o[0].Class != class || o[0].Step != "panic" || s.Attempts != 1 || s.Due.IsZero() {
			t.Errorf("%+v; want one attempt that counts, %s", s, class)
		}
	}
	if got := log.String(); strings.Contains(got, "secret") || strings.Count(got, "panic in an attempt") != 4 {
		t.Errorf("log:\n%s", got)
	}
}

func TestInterruptedAttemptsAreHandedBackUncounted(t *testing.T) {
	q, _ := newQueue(t)
	ids := []string{enqueue(t, q, letterTo("ada@example.net")), enqueue(t, q, letterTo("bob@example.net"))}
	under := make(chan struct{}, 2)
	w := New(Options{Registerer: prometheus.NewRegistry(),
		Load: with(func(ctx context.Context, d *provider.Delivery) ([]mail.Outcome, error) {
			under <- struct{}{}
			<-ctx.Done()
			return nil, provider.ErrInterrupted
		})})
	stop := start(t, q, 2, w)
	<-under
	<-under
	stop()
	for _, id := range ids {
		s, err := q.Message(t.Context(), id)
		if err != nil || s.State != queue.Queued || s.Attempts != 0 || !s.Due.IsZero() || s.Recipients[0].State != "pending" {
			t.Errorf("%+v, %v; want it queued, as if never tried", s, err)
		}
	}
	sent := make(chan string, 2)
	again := New(Options{Load: with(func(ctx context.Context, d *provider.Delivery) ([]mail.Outcome, error) {
		sent <- d.Message.ID
		return accepts(ctx, d)
	})})
	start(t, q, 2, again)
	got := []string{<-sent, <-sent}
	slices.Sort(got)
	if !slices.Equal(got, ids) {
		t.Errorf("sent %v, want %v", got, ids)
	}
}

func TestShutdownAwaitsWhatIsPastItsFence(t *testing.T) {
	q, _ := newQueue(t)
	id := enqueue(t, q, letterTo("ada@example.net"))
	past, goOn := make(chan struct{}), make(chan struct{})
	w := New(Options{Load: with(func(ctx context.Context, d *provider.Delivery) ([]mail.Outcome, error) {
		if err := d.Fence(); err != nil {
			return nil, err
		}
		close(past)
		<-ctx.Done()
		<-goOn
		return provider.All(1, mail.Outcome{Class: mail.Delivered}), nil
	})})
	stop := start(t, q, 1, w)
	<-past
	go close(goOn)
	stop()
	eventually(t, q, id, queue.Delivered, 1)
}

func TestFromIsFilledIn(t *testing.T) {
	q, _ := newQueue(t)
	want := map[string]mail.Address{}
	for name, test := range map[string]struct{ given, want mail.Address }{
		"none":        {mail.Address{}, own},
		"other":       {mail.Address{Address: "ada@example.com"}, mail.Address{Address: "ada@example.com"}},
		"other named": {mail.Address{Address: "ada@example.com", Name: "Ada"}, mail.Address{Address: "ada@example.com", Name: "Ada"}},
	} {
		m := letterTo("bob@example.net")
		m.Subject, m.From = name, test.given
		want[name] = test.want
		enqueue(t, q, m)
	}
	type filled struct {
		subject string
		from    mail.Address
	}
	seen := make(chan filled, 10)
	w := New(Options{Load: with(func(ctx context.Context, d *provider.Delivery) ([]mail.Outcome, error) {
		seen <- filled{d.Message.Subject, d.Message.From}
		return accepts(ctx, d)
	})})
	start(t, q, 2, w)
	for range want {
		if f := <-seen; f.from != want[f.subject] {
			t.Errorf("%s: from %+v, want %+v", f.subject, f.from, want[f.subject])
		}
	}
}

func TestANameAloneTakesTheProvidersAddress(t *testing.T) {
	w := New(Options{})
	a := &queue.Attempt{Kind: mail.Report, Message: &mail.Outgoing{From: mail.Address{Name: "Alarms"}}}
	w.use(&active{Active: Active{From: own, Sender: sender(func(context.Context, *provider.Delivery) ([]mail.Outcome, error) {
		return nil, provider.ErrInterrupted
	})}})
	w.attempt(t.Context(), a)
	if want := (mail.Address{Address: own.Address, Name: "Alarms"}); a.Message.From != want {
		t.Errorf("from %+v, want %+v", a.Message.From, want)
	}
}

func TestOnlyPendingRecipientsAreOffered(t *testing.T) {
	q, _ := newQueue(t)
	id := enqueue(t, q, letterTo("ada@example.net", "bob@example.net", "eve@example.net"))
	offered := make(chan []mail.Address, 3)
	w := New(Options{Schedules: map[mail.Kind]Schedule{mail.Report: {Delays: []time.Duration{time.Millisecond}, GiveUp: time.Hour}},
		Load: with(func(_ context.Context, d *provider.Delivery) ([]mail.Outcome, error) {
			offered <- d.Recipients
			outcomes := provider.All(len(d.Recipients), mail.Outcome{Class: mail.Delivered, Scope: mail.ScopeRecipient})
			if len(outcomes) == 3 {
				outcomes[0].Class, outcomes[2].Class = mail.Permanent, mail.Temporary
			}
			return outcomes, d.Fence()
		})})
	start(t, q, 1, w)
	s := eventually(t, q, id, queue.Failed, 2)
	if first, second := <-offered, <-offered; len(first) != 3 || len(second) != 1 || second[0].Address != "eve@example.net" {
		t.Errorf("offered %v, then %v", first, second)
	}
	if r := s.Recipients; r[0].State != "refused" || r[1].State != "delivered" || r[2].State != "delivered" || s.Attempts != 2 {
		t.Errorf("end: %+v", s)
	}
}

// TestWhatIsHeldIsNotOfferedAgainAndTheOthersGetIt has four recipients, two at a time: of the first two nobody knows, then one of the others is
// put off by the server and comes alone.
func TestWhatIsHeldIsNotOfferedAgainAndTheOthersGetIt(t *testing.T) {
	q, _ := newQueue(t)
	addresses := []string{"ada@example.net", "bob@example.net", "cy@example.net", "dan@example.net", "eve@example.net"}
	id := enqueue(t, q, letterTo(addresses...))
	var mu sync.Mutex
	var offered []string
	registry := prometheus.NewRegistry()
	w := New(Options{Registerer: registry, Schedules: map[mail.Kind]Schedule{mail.Report: {Delays: []time.Duration{time.Millisecond}, GiveUp: time.Hour}},
		OnUnknown: map[mail.Kind]queue.UnknownPolicy{mail.Report: queue.Hold},
		Load: with(func(_ context.Context, d *provider.Delivery) ([]mail.Outcome, error) {
			mu.Lock()
			defer mu.Unlock()
			bounds := provider.Bounds{Recipients: 2}
			outcomes := provider.All(len(d.Recipients), bounds.PutOff("rcpt"))
			words := ""
			for i, r := range d.Recipients[:bounds.Offers(len(d.Recipients))] {
				words += r.Address[:1]
				outcomes[i] = mail.Outcome{Class: mail.Delivered, Step: "body"}
				switch {
				case len(d.Recipients) == 5:
					outcomes[i].Class = mail.Unknown
				case r.Address[0] == 'd' && len(offered) == 1:
					outcomes[i] = mail.Outcome{Class: mail.Temporary, Scope: mail.ScopeRecipient, Step: "rcpt", Code: 450}
				}
			}
			offered = append(offered, words)
			return outcomes, d.Fence()
		})})
	stop := start(t, q, 1, w)
	s := eventually(t, q, id, queue.Failed, 3)
	check := func(s *queue.MessageStatus, states string) {
		t.Helper()
		got := ""
		for _, r := range s.Recipients {
			got += r.State[:1]
		}
		if got != states {
			t.Errorf("%s, want %s", got, states)
		}
	}
	check(s, "ppddd")
	if got := strings.Join(offered, " "); got != "ab cd de" {
		t.Errorf("offered %s", got)
	}
	counts, err := q.Counts(t.Context())
	if err != nil || counts.Failed[mail.Report] != 1 || counts.FailedByClass[mail.Unknown] != 1 || counts.Open[mail.Report] != 0 {
		t.Errorf("%+v, %v", counts, err)
	}
	if n := gather(t, registry, "postroom_attempts_total", "smtp", "unknown").GetCounter().GetValue(); n != 2 {
		t.Errorf("%v attempts are counted as unknown, want the first and the last", n)
	}
	if step, err := q.Requeue(t.Context(), queue.FailedFilter{IDs: []string{id}}, queue.SelectionOptions{}); err != nil || step.Done != 1 {
		t.Fatalf("%+v, %v", step, err)
	}
	check(eventually(t, q, id, queue.Delivered, 0), "ddddd")
	stop()
	if got := strings.Join(offered, " "); got != "ab cd de ab" {
		t.Errorf("requeued, offered %s", got)
	}
}

// gather gives the metric of a family that has all these label values.
func gather(t *testing.T, r *prometheus.Registry, name string, values ...string) *dto.Metric {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var got []string
			for _, l := range m.GetLabel() {
				got = append(got, l.GetValue())
			}
			slices.Sort(got)
			slices.Sort(values)
			if f.GetName() == name && slices.Equal(got, values) {
				return m
			}
		}
	}
	t.Fatalf("no %s with %v", name, values)
	return nil
}

// each settles a message by the address it goes to: one address for each class.
func each(_ context.Context, d *provider.Delivery) ([]mail.Outcome, error) {
	if err := d.Fence(); err != nil {
		return nil, err
	}
	to := d.Recipients[0].Address
	class, err := mail.ParseClass(to[:strings.IndexByte(to, '@')])
	if err != nil {
		return nil, err
	}
	return provider.All(len(d.Recipients), mail.Outcome{Class: class, Scope: mail.ScopeMailbox, Step: "data", Code: 999, Enhanced: "9.9.9",
		Reply: "999 said of " + to}), nil
}

func TestMetricsAndLogs(t *testing.T) {
	q, _ := newQueue(t)
	var ids []string
	accept := func(classes ...mail.Class) {
		for _, class := range classes {
			m := letterTo(class.String() + "@example.net")
			m.Subject, m.Text = "A secret subject", "A secret text"
			m.From = mail.Address{Address: "own@example.com"}
			ids = append(ids, enqueue(t, q, m))
		}
	}
	accept(mail.Delivered, mail.Delivered, mail.Temporary, mail.Permanent, mail.Unknown)
	foreign := letterTo("configuration@example.net")
	foreign.From = mail.Address{Address: "other@example.com"}
	foreign.Kind = mail.Alert
	ids = append(ids, enqueue(t, q, foreign))

	registry := prometheus.NewRegistry()
	var log lines
	w := New(Options{Registerer: registry, Load: with(each),
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	for _, class := range mail.Classes() {
		if got := gather(t, registry, "postroom_attempts_total", "smtp", class.String()).GetCounter().GetValue(); got != 0 {
			t.Errorf("%s begins with %v", class, got)
		}
	}
	start(t, q, 1, w)
	for i, id := range ids {
		eventually(t, q, id, []queue.State{queue.Delivered, queue.Delivered, queue.Queued, queue.Failed, queue.Queued, queue.Queued}[i], 1)
	}
	accept(mail.Throttled) // last: it silences the others
	eventually(t, q, ids[len(ids)-1], queue.Queued, 1)
	for class, want := range map[mail.Class]float64{mail.Delivered: 2, mail.Temporary: 1, mail.Permanent: 1, mail.Unknown: 1, mail.Throttled: 1, mail.Configuration: 1} {
		if got := gather(t, registry, "postroom_attempts_total", "smtp", class.String()).GetCounter().GetValue(); got != want {
			t.Errorf("%v attempts are counted as %s, want %v", got, class, want)
		}
	}
	if got := gather(t, registry, "postroom_attempt_duration_seconds", "smtp").GetHistogram().GetSampleCount(); got != 7 {
		t.Errorf("the duration of %d attempts is counted, want 7", got)
	}
	for kind, want := range map[string]uint64{"report": 2, "alert": 0, "subscription": 0} {
		if got := gather(t, registry, "postroom_delivery_latency_seconds", kind).GetHistogram().GetSampleCount(); got != want {
			t.Errorf("the latency of %d %ss is counted, want %d", got, kind, want)
		}
	}

	got := log.String()
	for _, secret := range []string{"example.net", "secret", "said of"} {
		if strings.Contains(got, secret) {
			t.Errorf("the log tells %q:\n%s", secret, got)
		}
	}
	if n := strings.Count(got, "msg=attempt "); n != 7 {
		t.Errorf("%d lines for 7 attempts:\n%s", n, got)
	}
	for i, id := range ids {
		if strings.Count(got, "message="+id) != 1 {
			t.Errorf("message %d has not one line:\n%s", i, got)
		}
	}
	for _, key := range []string{"class=throttled", "code=999", "enhanced=9.9.9", "step=data", "verdict=back", "delay=", "scope=mailbox", "recipients=1"} {
		if !strings.Contains(got, key) {
			t.Errorf("the log lacks %q", key)
		}
	}
	// How long it is silent Redis decides: a hold has a line of its own.
	for _, key := range []string{"hold=", `batch=""`} {
		if strings.Contains(got, key) {
			t.Errorf("the log has %q", key)
		}
	}
}

func TestLatencyCountsFromSendAt(t *testing.T) {
	for name, scheduled := range map[string]bool{"scheduled": true, "at once": false} {
		q, r := newQueue(t)
		now := time.Now()
		r.SetTime(now)
		m := letterTo("ada@example.net")
		if scheduled {
			m.SendAt = now.Add(time.Hour)
		}
		id := enqueue(t, q, m)
		r.SetTime(now.Add(time.Hour + 7*time.Second))
		registry := prometheus.NewRegistry()
		w := New(Options{Registerer: registry, Load: with(accepts)})
		start(t, q, 1, w)
		eventually(t, q, id, queue.Delivered, 1)
		got := gather(t, registry, "postroom_delivery_latency_seconds", "report").GetHistogram().GetSampleSum()
		if fromSendAt := got < 1800; got < 6 || fromSendAt != scheduled {
			t.Errorf("%s: a latency of %v s", name, got)
		}
	}
}
