package queue

import (
	"errors"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/throttle"
)

// mailboxes makes a provider the active one whose senders are mailboxes with limits.
func mailboxes(t *testing.T, q *Queue, limits ...throttle.Limit) (version string) {
	t.Helper()
	version, err := declare(t, q, ActiveProvider{Kind: "microsoft365", Keying: ByMailbox, Sender: "own@example.com",
		Concurrency: 2, Limits: limits}, "salt", "mailboxes")
	if err != nil {
		t.Fatal(err)
	}
	return version
}

// from gives a batch of a sender.
func from(sender string, kind mail.Kind, n int) mail.Batch {
	b := batch(kind, n)
	b.Message.From.Address = sender
	return b
}

func perMinute(n int64) throttle.Limit {
	return throttle.Limit{Name: throttle.Messages, Max: n, Window: time.Minute}
}

// sendAll has every turn that there is send until it ends, and gives how many went.
func (d *desk) sendAll() int {
	d.t.Helper()
	n := 0
	for turns := d.turns(); len(turns) > 0; turns = d.turns() {
		for _, turn := range turns {
			for a := turn.Next(nil); a != nil; a = turn.Next(delivered(a)) {
				n++
			}
		}
	}
	return n
}

func mailbox(t *testing.T, q *Queue, key string) *Mailbox {
	t.Helper()
	m, err := q.Mailbox(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMailboxTellsBacklogUseAndForecast(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, mailboxes(t, q, perMinute(10)), nil)
	enqueueBatch(t, q, from("News@example.com", mail.Subscription, 35))
	m := message(mail.Alert, "ops@example.net")
	m.From.Address = "news@example.com"
	enqueue(t, q, m)
	if n := d.sendAll(); n != 10 {
		t.Fatalf("%d went, the limit is 10", n)
	}
	m1 := mailbox(t, q, "news@example.com")
	if m1.Backlog[mail.Subscription] != 26 || m1.Backlog[mail.Alert] != 0 || m1.Waiting() != 26 || m1.Units != 0 || m1.Concurrency != 2 {
		t.Errorf("%+v", m1)
	}
	if len(m1.Limits) != 1 || m1.Limits[0].Used != 10 || m1.Limits[0].Max != 10 || m1.Limits[0].All {
		t.Errorf("limits %+v", m1.Limits)
	}
	// Ten each minute: the 26 go after one, two and three minutes.
	if in := m1.Through.Sub(c.now).Round(time.Second); in != 3*time.Minute || m1.Binding != throttle.Messages {
		t.Errorf("through in %v by %q", in, m1.Binding)
	}
	if in := m1.Next.Sub(c.now).Round(time.Second); in != time.Minute {
		t.Errorf("next in %v", in)
	}
	all, err := q.Mailboxes(t.Context())
	if err != nil || len(all) != 1 || all[0].Key != "news@example.com" {
		t.Errorf("%v, %v", all, err)
	}
	if other := mailbox(t, q, "nobody@example.com"); other.Waiting() != 0 || !other.Through.IsZero() || other.Limits[0].Used != 0 {
		t.Errorf("a mailbox that never sent: %+v", other)
	}
}

func TestOutlook(t *testing.T) {
	q, c := onClock(t)
	version := mailboxes(t, q, perMinute(10))
	d := sitDown(t, q, version, nil)
	b := enqueueBatch(t, q, from("news@example.com", mail.Subscription, 35))
	look := func(id string) *Outlook {
		t.Helper()
		o, err := q.Outlook(t.Context(), status(t, q, id))
		if err != nil || o == nil {
			t.Fatalf("%+v, %v", o, err)
		}
		return o
	}
	if o := look(b.IDs[20]); o.Wait != WaitsForTurn || o.Ahead != 20 || o.Key != "news@example.com" {
		t.Errorf("before anything went: %+v", o)
	}
	d.sendAll()
	if o := look(b.IDs[34]); o.Wait != WaitsForLimit || o.Limit != throttle.Messages || o.Ahead != 24 || o.Expected.Sub(c.now).Round(time.Second) != 3*time.Minute {
		t.Errorf("the last: %+v, expected in %v", o, o.Expected.Sub(c.now))
	}
	s, err := q.Batch(t.Context(), b.ID)
	if err != nil {
		t.Fatal(err)
	}
	if o, err := q.BatchOutlook(t.Context(), s); err != nil || o == nil || o.Ahead != 0 || o.Own != 24 {
		t.Errorf("of the batch: %+v, %v", o, err)
	}
	if _, err := q.Pause(t.Context(), "news@example.com", time.Hour, "the list is wrong", Author{Name: "ops"}); err != nil {
		t.Fatal(err)
	}
	if o := look(b.IDs[34]); o.Wait != WaitsForPause || o.Silence.Reason != "the list is wrong" || o.Silence.By != "ops" ||
		o.Expected.Sub(c.now).Round(time.Second) != time.Hour+2*time.Minute {
		t.Errorf("paused: %+v, expected in %v", o, o.Expected.Sub(c.now))
	}
	if err := clearProvider(t, q); err != nil {
		t.Fatal(err)
	}
	if o := look(b.IDs[34]); o.Wait != WaitsForProvider {
		t.Errorf("without provider: %+v", o)
	}
}

func TestPauseAndResume(t *testing.T) {
	for _, key := range []string{"news@example.com", Everything} {
		t.Run(key, func(t *testing.T) {
			q, c := onClock(t)
			d := sitDown(t, q, mailboxes(t, q), nil)
			enqueueBatch(t, q, from("news@example.com", mail.Subscription, 5))
			enqueueBatch(t, q, from("other@example.com", mail.Report, 3))
			if _, err := q.Pause(t.Context(), key, 3*time.Hour, "maintenance", Author{Name: "ops"}); err != nil {
				t.Fatal(err)
			}
			want := 3
			if key == Everything {
				want = 0
			}
			if n := d.sendAll(); n != want {
				t.Errorf("%d went beside the pause, want %d", n, want)
			}
			if m := mailbox(t, q, "news@example.com"); m.Pause == nil || m.Pause.Reason != "maintenance" || m.Pause.All != (key == Everything) {
				t.Errorf("pause %+v", m.Pause)
			}
			c.advance(2 * time.Hour)
			if n := d.sendAll(); n != 0 {
				t.Errorf("%d went during the pause", n)
			}
			if was, err := q.Resume(t.Context(), key, Author{Name: "ops"}); err != nil || !was {
				t.Fatalf("%v, %v", was, err)
			}
			if n := d.sendAll(); n != 8-want {
				t.Errorf("%d went after it, want %d", n, 8-want)
			}
			if was, err := q.Resume(t.Context(), key, Author{Name: "ops"}); err != nil || was {
				t.Errorf("resumed twice: %v, %v", was, err)
			}
		})
	}
}

func TestPauseEndsByItself(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, mailboxes(t, q), nil)
	if _, err := q.Pause(t.Context(), Everything, time.Hour, "maintenance", Author{Name: "ops"}); err != nil {
		t.Fatal(err)
	}
	enqueueBatch(t, q, from("news@example.com", mail.Subscription, 5))
	if n := d.sendAll(); n != 0 {
		t.Errorf("%d went during the pause", n)
	}
	c.advance(time.Hour + 2*time.Second) // whoever was to look has died
	if n := d.sendAll(); n != 5 {
		t.Errorf("%d went after it, want 5", n)
	}
}

func TestResumeEndsAHold(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, mailboxes(t, q), nil)
	enqueueBatch(t, q, from("news@example.com", mail.Subscription, 5))
	turn := d.turns()[0]
	s := outcomes(turn.Next(nil), Back, "c")
	s.Hold, s.Reason = time.Hour, "configuration"
	turn.Next(s)
	if m := mailbox(t, q, "news@example.com"); m.Hold == nil || m.Hold.Reason != "configuration" || m.Hold.Refusals != 1 {
		t.Fatalf("hold %+v", m.Hold)
	}
	if was, err := q.Resume(t.Context(), "News@example.com", Author{Name: "ops"}); err != nil || !was {
		t.Fatalf("%v, %v", was, err)
	}
	if n := d.sendAll(); n != 5 {
		t.Errorf("%d went, want 5", n)
	}
}

// problems gives what a refusal names.
func problems(t *testing.T, err error) []mail.Problem {
	t.Helper()
	var invalid *mail.Invalid
	if !errors.As(err, &invalid) {
		t.Fatalf("%v, want a refusal", err)
	}
	return invalid.Problems
}

func TestWhatExceedsALimitByItselfIsRefused(t *testing.T) {
	q, _ := onClock(t)
	mailboxes(t, q, throttle.Limit{Name: throttle.Recipients, Max: 2, Window: time.Hour},
		throttle.Limit{Name: throttle.UploadBytes, Max: 10_000, Window: time.Hour})
	m := message(mail.Report, "ada@example.net")
	m.Cc = []mail.Address{{Address: "bob@example.net"}, {Address: "eve@example.net"}}
	_, err := q.Enqueue(t.Context(), m)
	if p := problems(t, err); len(p) != 1 || p[0].Field != "/to" {
		t.Errorf("problems %+v", p)
	}
	m = message(mail.Report, "ada@example.net")
	m.Attachments = []mail.Attachment{{Name: "a.bin", Content: make([]byte, 10_000)}}
	_, err = q.Enqueue(t.Context(), m)
	if p := problems(t, err); len(p) != 1 || p[0].Field != "/attachments" {
		t.Errorf("problems %+v", p)
	}
	b := batch(mail.Report, 2)
	b.Message.Cc = []mail.Address{{Address: "boss@example.net"}}
	b.Recipients[1].To = append(b.Recipients[1].To, mail.Address{Address: "more@example.net"})
	r, err := q.EnqueueBatch(t.Context(), b)
	if err != nil || r.Accepted != 1 || len(r.Refused[1]) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestABatchHasOnlyOthersAhead(t *testing.T) {
	q, _ := onClock(t)
	sitDown(t, q, activate(t, q, 1), nil)
	first := enqueueBatch(t, q, batch(mail.Report, 7))
	enqueue(t, q, message(mail.Alert, "ops@example.net"))
	second := enqueueBatch(t, q, batch(mail.Report, 3))
	for _, test := range []struct {
		id         string
		ahead, own int
	}{{first.ID, 1 + 3, 6}, {second.ID, 1 + 2, 2}} { // the alert, and each batch in turn
		if o, err := q.BatchOutlook(t.Context(), batchNow(t, q, test.id)); err != nil || o.Ahead != test.ahead || o.Own != test.own {
			t.Errorf("%+v, %v; want %d of others and %d of its own ahead", o, err, test.ahead, test.own)
		}
	}
	alerts := enqueueBatch(t, q, batch(mail.Alert, 3))
	if o, err := q.BatchOutlook(t.Context(), batchNow(t, q, alerts.ID)); err != nil || o.Ahead != 1 || o.Own != 2 {
		t.Errorf("%+v, %v; want one alert ahead, and 2 of its own", o, err)
	}
	if err := q.CancelBatch(t.Context(), alerts.ID); err != nil {
		t.Fatal(err)
	}
	// Of a single message all that goes first counts.
	if o, err := q.Outlook(t.Context(), status(t, q, first.IDs[6])); err != nil || o.Ahead != 10 {
		t.Errorf("%+v, %v; want 10 ahead", o, err)
	}
}

func TestWhatExpiresBeforeItCanGoIsNotExpected(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, mailboxes(t, q, perMinute(10)), nil)
	b := from("news@example.com", mail.Subscription, 35)
	b.Message.ExpiresAt = c.now.Add(150 * time.Second).Truncate(time.Millisecond)
	r := enqueueBatch(t, q, b)
	d.sendAll()
	// Ten go each minute: the 30th after two minutes, the last after three.
	look := func(what, id string, tooLate bool) *Outlook {
		t.Helper()
		s := status(t, q, id)
		o, err := q.Outlook(t.Context(), s)
		if err != nil || o.TooLate != tooLate || o.Expected.IsZero() != tooLate || !o.ExpiresAt.Equal(b.Message.ExpiresAt) || !s.ExpiresAt.Equal(b.Message.ExpiresAt) {
			t.Errorf("%s: %+v, %v; %v", what, o, err, s.ExpiresAt)
		}
		return o
	}
	look("the 30th", r.IDs[29], false)
	look("the last", r.IDs[34], true)
	s := batchNow(t, q, r.ID)
	if o, err := q.BatchOutlook(t.Context(), s); err != nil || !o.TooLate || !o.Expected.IsZero() || !s.ExpiresAt.Equal(b.Message.ExpiresAt) {
		t.Errorf("the batch: %+v, %v; %+v", o, err, s)
	}
	if _, err := q.Pause(t.Context(), Everything, time.Hour, "a test", Author{}); err != nil {
		t.Fatal(err)
	}
	if o := look("paused for longer", r.IDs[29], true); o.Wait != WaitsForPause {
		t.Errorf("paused: %+v", o)
	}
	later := message(mail.Report, "later@example.net")
	later.ExpiresAt = c.now.Add(24 * time.Hour)
	if o, err := q.Outlook(t.Context(), status(t, q, enqueue(t, q, later))); err != nil || o.TooLate {
		t.Errorf("paused for less: %+v, %v", o, err)
	}
	if s := status(t, q, r.IDs[0]); s.State != Delivered || !s.ExpiresAt.IsZero() {
		t.Errorf("what was delivered does not expire: %+v", s)
	}
}

func TestAPauseThatOutlastsAnExpiryIsToldWhereNothingIsForetold(t *testing.T) {
	q, c := onClock(t)
	sitDown(t, q, activate(t, q, 1), nil)
	if _, err := q.Pause(t.Context(), Everything, time.Hour, "a test", Author{}); err != nil {
		t.Fatal(err)
	}
	for after, tooLate := range map[time.Duration]bool{30 * time.Minute: true, 90 * time.Minute: false} {
		m := message(mail.Report, "ada@example.net")
		m.ExpiresAt = c.now.Add(after)
		if o, err := q.Outlook(t.Context(), status(t, q, enqueue(t, q, m))); err != nil || !o.Expected.IsZero() || o.TooLate != tooLate {
			t.Errorf("after %v: %+v, %v", after, o, err)
		}
	}
}

func TestWithoutAWorkerThatCanSendNothingIsForetold(t *testing.T) {
	q, _ := onClock(t)
	const key = "reports@example.com"
	d := sitDown(t, q, mailboxes(t, q, perMinute(1)), nil)
	enqueue(t, q, message(mail.Report, "ada@example.net"))
	if n := d.sendAll(); n != 1 {
		t.Fatalf("%d went", n)
	}
	id := enqueue(t, q, message(mail.Report, "bob@example.net"))
	look := func(what string, wait Wait, running int) {
		t.Helper()
		q.recent.forget()
		o, err := q.Outlook(t.Context(), status(t, q, id))
		if err != nil || o.Wait != wait || o.Workers.Running != running || o.Expected.IsZero() != (wait == WaitsForWorker) {
			t.Errorf("%s: %+v, %v", what, o, err)
		}
		m, got := mailbox(t, q, key), installation(t, q)
		_, drain := got["mailbox_drain_seconds "+key]
		_, wait1 := got["mailbox_wait_seconds "+key]
		if told := wait != WaitsForWorker; m.Through.IsZero() == told || drain != told || wait1 != told || got["mailbox_backlog "+key] != 1 {
			t.Errorf("%s: through %v, %v", what, m.Through, got)
		}
		if want := map[bool]float64{true: 0, false: 1}[wait == WaitsForWorker]; got["provider_healthy"] != want {
			t.Errorf("%s: provider_healthy is %v, want %v", what, got["provider_healthy"], want)
		}
	}
	worker := d.lease.Load().worker
	look("one runs", WaitsForLimit, 1)
	if err := q.run(t.Context(), "lease", worker, "renew", "\thost\tno such key").Err(); err != nil {
		t.Fatal(err)
	}
	look("it can't load the settings", WaitsForWorker, 1)
	if err := q.run(t.Context(), "lease", worker, "end", "").Err(); err != nil {
		t.Fatal(err)
	}
	look("none runs", WaitsForWorker, 0)
}
