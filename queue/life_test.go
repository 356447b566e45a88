package queue

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/postroom/postroom/mail"
)

// Each step of a message's life is a line with its id.
func TestAMessagesLifeIsInTheLog(t *testing.T) {
	q, c := onClock(t)
	var log bytes.Buffer
	q.log = slog.New(slog.NewTextHandler(&log, nil))
	d := sitDown(t, q, activate(t, q, 1), nil)
	d.log = q.log
	ctx := trace.ContextWithSpanContext(t.Context(), traceOf(t, trace.FlagsSampled, ""))
	accept := func(m mail.Message) string {
		t.Helper()
		r, err := q.Enqueue(ctx, m)
		if err != nil {
			t.Fatal(err)
		}
		return r.ID
	}
	soon := message(mail.Report, "ada@example.net")
	soon.ExpiresAt = c.now.Add(time.Second)
	lives := map[string][]string{}
	expired := accept(soon)
	lives[expired] = []string{"msg=accepted", "msg=expired"}
	cancelled := accept(message(mail.Report, "ada@example.net"))
	lives[cancelled] = []string{"msg=accepted", "msg=cancelled"}
	if err := q.CancelMessage(t.Context(), cancelled); err != nil {
		t.Fatal(err)
	}
	c.advance(2 * time.Second)
	failing(t, d, nil, nil)
	failed := accept(message(mail.Report, "ada@example.net"))
	deleted := accept(message(mail.Alert, "ada@example.net"))
	lives[failed] = []string{"msg=accepted", "msg=requeued"}
	lives[deleted] = []string{"msg=accepted", "msg=deleted"}
	failing(t, d, nil, nil)
	runAll(t, q.Requeue, FailedFilter{Kind: mail.Report}, SelectionOptions{})
	runAll(t, q.DeleteFailed, FailedFilter{}, SelectionOptions{})
	// One whose worker dies.
	a := d.turn().Next(nil)
	if a == nil || a.MessageID != failed {
		t.Fatalf("%+v is begun, want %s", a, failed)
	}
	lives[failed] = append(lives[failed], "msg=\"attempt ended by others: its worker is gone, or it was too long\"")
	d.dies()
	d.sweepAll()
	// One of a batch that was due again, and one that was not.
	b, err := q.EnqueueBatch(ctx, batch(mail.Alert, 2))
	if err != nil {
		t.Fatal(err)
	}
	lives[b.ID] = []string{"msg=accepted", "msg=\"batch cancelled", "msg=\"messages of a cancelled batch"}

	if err := q.CancelBatch(t.Context(), b.ID); err != nil {
		t.Fatal(err)
	}
	for id, want := range lives {
		var life []string
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, "message="+id) || strings.Contains(line, "batch="+id) && !strings.Contains(line, "message=") {
				life = append(life, line)
			}
		}
		if len(life) != len(want) {
			t.Errorf("%s has %d lines, want %q:\n%s", id, len(life), want, strings.Join(life, ""))
			continue
		}
		for i, line := range life {
			if !strings.Contains(line, want[i]) || !strings.Contains(line, "kind=") || id != b.ID && !strings.Contains(line, "trace_id=0af7651916cd43dd8448eb211c80319c") {
				t.Errorf("step %d of %s: %s", i, id, line)
			}
		}
	}
	if strings.Contains(log.String(), "example.net") {
		t.Errorf("the log has a recipient:\n%s", log.String())
	}
}

// holdLines takes the lines about holds out of a log, each without its time and its attempt, but for when in ms of c's time: since, until.
func holdLines(t *testing.T, log *bytes.Buffer, c *clock) (lines []string) {
	t.Helper()
	for line := range strings.Lines(log.String()) {
		_, line, _ = strings.Cut(line, " ")
		if !strings.Contains(line, "msg=\"mail ") {
			continue
		}
		var kept []string
		for field := range strings.FieldsSeq(line) {
			key, value, _ := strings.Cut(field, "=")
			switch at, err := time.Parse(time.RFC3339, value); {
			case key == "attempt_id":
				continue
			case key == "since" || key == "until":
				if err != nil {
					t.Error(err)
				}
				field = key + "=" + at.Sub(c.now.Truncate(time.Millisecond)).String()
			}
			kept = append(kept, field)
		}
		lines = append(lines, strings.Join(kept, " "))
	}
	log.Reset()
	return lines
}

// What a hold is to an operator: since when, until when, and when it is over, told once by all processes.
func TestAHoldIsInTheLog(t *testing.T) {
	q, c := onClock(t)
	var log bytes.Buffer
	q.log = slog.New(slog.NewTextHandler(&log, nil))
	version := activate(t, q, 3)
	d := sitDown(t, q, version, nil)
	d.log = q.log
	want := func(why string, lines ...string) {
		t.Helper()
		if got := holdLines(t, &log, c); !slices.Equal(got, lines) {
			t.Errorf("%s:\n%s\nwant\n%s", why, strings.Join(got, "\n"), strings.Join(lines, "\n"))
		}
	}
	away := func(turn *Turn, a *Attempt) {
		s := holding(a, "t", mail.ScopeProvider)
		s.Reason, s.Unused = "unreachable", true
		turn.Next(s)
	}
	const waits, goes = `level=WARN msg="mail waits: the provider can't be reached" mailbox=` + account + " reason=unreachable",
		`level=INFO msg="mail goes again" mailbox=` + account + " reason=unreachable"
	enqueueBatch(t, q, batch(mail.Report, 40))
	for turn, a := range begun(d.turns()) {
		away(turn, a)
	}
	want("three attempts are refused", waits+" since=0s until=10s refusals=1 code=535 cause=credentials")
	c.advance(10 * time.Second)
	turn, a := only(t, begun(d.turns()))
	away(turn, a)
	want("the probe is refused", waits+" since=-10s until=20s refusals=2 code=535 cause=credentials")
	c.advance(20 * time.Second)
	turn, a = only(t, begun(d.turns()))
	a = turn.Next(delivered(a))
	want("the probe is delivered", goes+" since=-30s")
	begun(d.turns())
	turn.Next(delivered(a))
	want("the next is delivered")

	// Resumed by hand, and refused again: nothing has gone meanwhile.
	d.dies()
	d.renew()
	d.sweepAll()
	log.Reset()
	turns := begun(d.turns())
	for turn, a := range turns {
		away(turn, a)
	}
	want("it is refused again", waits+" since=0s until=10s refusals=1 code=535 cause=credentials")
	c.advance(time.Second)
	chosen, err := q.Provider(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	resume := func() {
		t.Helper()
		if was, err := q.Resume(t.Context(), account, Author{Name: "ada"}); err != nil || !was {
			t.Errorf("%v, %v", was, err)
		}
		if was, err := q.Resume(t.Context(), account, Author{Name: "ada"}); err != nil || was {
			t.Errorf("resumed once more: %v, %v", was, err)
		}
		if h, err := q.Health(t.Context()); err != nil || h.State != Healthy || h.Hold != nil {
			t.Errorf("after the resume: %+v, %v", h, err)
		}
		if p, err := q.Provider(t.Context()); err != nil || !p.Since.Equal(chosen.Since) {
			t.Errorf("after the resume the settings are active since %v, not since %v: %v", p.Since, chosen.Since, err)
		}
	}
	resume()
	for turn, a := range begun(d.turns()) {
		away(turn, a)
	}
	want("after a resume", waits+" since=-1s until=10s refusals=1 code=535 cause=credentials")
	if h, err := q.Health(t.Context()); err != nil || c.now.Truncate(time.Millisecond).Sub(h.Since) != time.Second {
		t.Errorf("the fault is %v old, want 1s: %v", c.now.Sub(h.Since), err)
	}
	resume()
	for turn, a := range begun(d.turns()) {
		end(turn, delivered(a))
	}
	want("the resume helped", goes+" since=-1s")

	// Other settings end a hold; what they meet is one of their own.
	for turn, a := range begun(d.turns()) {
		away(turn, a)
	}
	log.Reset()
	c.advance(time.Second)
	if version, err := declare(t, q, ActiveProvider{Keying: ByAccount, Account: account, Concurrency: 3}, "salt", "other"); err != nil {
		t.Fatal(err)
	} else {
		d = sitDown(t, q, version, nil)
		d.log = q.log
	}
	for turn, a := range begun(d.turns()) {
		away(turn, a)
	}
	want("of other settings", waits+" since=0s until=10s refusals=1 code=535 cause=credentials")
	if err := q.Release(t.Context(), account, false); err != nil {
		t.Fatal(err)
	}
	want("they were tried, and work", goes+" since=0s")
}

// A hold of everything, of a sender alone, and of settings that did not work when they were saved, say so.
func TestTheLogSaysWhatAHoldReaches(t *testing.T) {
	var q *Queue
	var c *clock
	var log bytes.Buffer
	refuse := func(p ActiveProvider, from, letter string, scope mail.Scope, want string) {
		t.Helper()
		q, c = onClock(t)
		q.log = slog.New(slog.NewTextHandler(&log, nil))
		d := sitDown(t, q, choose(t, q, p), nil)
		d.log = q.log
		m := message(mail.Alert, "ada@example.net")
		m.From.Address = from
		enqueue(t, q, m)
		log.Reset()
		turn, a := only(t, begun(d.turns()))
		turn.Next(holding(a, letter, scope))
		if got := holdLines(t, &log, c); len(got) != 1 || !strings.HasPrefix(got[0], want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	refuse(ActiveProvider{Keying: ByMailbox, Concurrency: 1}, "a@example.com", "h", mail.ScopeMailbox,
		`level=WARN msg="mail waits: the provider asks to slow down" mailbox=a@example.com reason=throttled`)
	refuse(ActiveProvider{Keying: ByMailbox, Concurrency: 2}, "b@example.com", "c", mail.ScopeProvider,
		`level=WARN msg="mail waits: the provider refuses it, and somebody has to see to it" reason=configuration`)
	refuse(ActiveProvider{Concurrency: 2}, "news@example.com", "c", mail.ScopeMailbox,
		`level=WARN msg="mail waits: the provider refuses it, and somebody has to see to it" mailbox=news@example.com reason=configuration`)
	log.Reset()
	p, err := q.Provider(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := q.redis.Del(t.Context(), q.key("declared")).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := q.ActivateProvider(t.Context(), ProviderChange{ID: NewProviderID(), Expected: p.Version, Reason: "configuration", Hold: 15 * time.Second, HoldMax: time.Minute,
		Provider: &ActiveProvider{Keying: ByAccount, Account: account, Concurrency: 1}, Refused: &mail.Outcome{Class: mail.Configuration, Code: 535, Step: "auth"}}); err != nil {
		t.Fatal(err)
	}
	if got := holdLines(t, &log, c); len(got) != 1 || !strings.Contains(got[0], "mailbox="+account+" reason=configuration since=0s until=15s refusals=1 code=535 step=auth") {
		t.Errorf("%q", got)
	}
}

// A message that names no sender is the provider's own; where there is none the line has none.
func TestAcceptedNamesTheSenderThatItIsMeantFor(t *testing.T) {
	q, _ := onClock(t)
	var log bytes.Buffer
	q.log = slog.New(slog.NewTextHandler(&log, nil))
	accept := func(want string) {
		t.Helper()
		log.Reset()
		m, b := message(mail.Alert, "ada@example.net"), batch(mail.Report, 2)
		m.From, b.Message.From = mail.Address{}, mail.Address{}
		enqueue(t, q, m)
		enqueueBatch(t, q, b)
		if n := strings.Count(log.String(), want); n != 2 || strings.Contains(log.String(), `""`) {
			t.Errorf("%d lines have %q:\n%s", n, want, log.String())
		}
	}
	accept("msg=accepted")
	if strings.Contains(log.String(), "mailbox=") {
		t.Errorf("a sender, without a provider:\n%s", log.String())
	}
	choose(t, q, ActiveProvider{Concurrency: 1, Sender: "Reports@example.com"})
	accept(" mailbox=reports@example.com ")
}

// Thousands of cancels by one author are in the log, and leave room in the audit.
func TestCancelsOfOneAuthorDoNotFillTheAudit(t *testing.T) {
	q, _ := onClock(t)
	var log bytes.Buffer
	q.log = slog.New(slog.NewTextHandler(&log, nil))
	cancel := func(options ...Option) {
		t.Helper()
		r, err := q.Enqueue(t.Context(), message(mail.Report, "ada@example.net"))
		if err == nil {
			err = q.CancelMessage(t.Context(), r.ID, options...)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for range cancelsNoted + 5 {
		cancel(By(Author{Name: "script", From: "192.0.2.1"}))
	}
	cancel(By(Author{Name: "ops", From: "192.0.2.1"}))
	cancel()
	noted, err := q.Audit(t.Context(), "", 2*cancelsNoted)
	if err != nil || len(noted) != cancelsNoted+1 || noted[0].By != "ops" || noted[1].By != "script" || noted[1].Action != "message.cancel" {
		t.Errorf("%d entries, %+v, %v", len(noted), noted[:2], err)
	}
	if n := strings.Count(log.String(), "by=script"); n != cancelsNoted+5 {
		t.Errorf("%d lines name the author, want %d", n, cancelsNoted+5)
	}
	if strings.Contains(log.String(), `by=""`) {
		t.Error("a line names nobody")
	}
}
