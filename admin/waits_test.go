package admin

import (
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/throttle"
)

// one is a worker that sends.
var one = queue.Workforce{Running: 1}

// at is when what is waited for ends.
var at = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func TestWhatAMessageWaitsFor(t *testing.T) {
	due := &queue.Outlook{Wait: queue.WaitsForTime, Until: at}
	turn := &queue.Outlook{Wait: queue.WaitsForTurn, Key: "own@example.com"}
	hold := func(reason string, all bool) *queue.Outlook {
		return &queue.Outlook{Wait: queue.WaitsForHold, Key: "own@example.com", Silence: &queue.Silence{Reason: reason, All: all}, Until: at, Ahead: 1}
	}
	led := func(o *queue.Outlook, last queue.OutcomeReport) *queue.Outlook {
		o.Silence.Last = last
		return o
	}
	pause := func(by string, all bool) *queue.Outlook {
		return &queue.Outlook{Wait: queue.WaitsForPause, Key: "own@example.com", Silence: &queue.Silence{Reason: "new list", By: by, All: all}, Until: at}
	}
	limit := func(name throttle.Name, until time.Time) *queue.Outlook {
		return &queue.Outlook{Wait: queue.WaitsForLimit, Key: "own@example.com", Limit: name, Until: until, Ahead: 24}
	}
	expiring := func(o *queue.Outlook, tooLate bool) *queue.Outlook {
		o.ExpiresAt, o.TooLate = at.Add(-time.Hour), tooLate
		return o
	}
	tests := map[string]struct {
		state   queue.State
		history []queue.AttemptReport
		outlook *queue.Outlook
		want    string
	}{
		"its time":            {queue.Queued, nil, due, "It waits for its time, 2030-01-02T03:04:05Z (send_at)."},
		"a retry":             {queue.Queued, attempt("temporary"), due, "The last attempt came to temporary: it is tried again from 2030-01-02T03:04:05Z."},
		"some were delivered": {queue.Queued, attempt("delivered", "permanent", "temporary"), due, "The last attempt came to temporary: it is tried again from 2030-01-02T03:04:05Z."},

		"its turn":       {queue.Queued, nil, &queue.Outlook{Wait: queue.WaitsForTurn, Ahead: 7}, "It waits for its turn: about 7 messages go first."},
		"one before it":  {queue.Queued, nil, &queue.Outlook{Wait: queue.WaitsForTurn, Ahead: 1}, "It waits for its turn: about 1 message goes first."},
		"the next":       {queue.Queued, nil, turn, "It waits for its turn, which comes next."},
		"a retry's turn": {queue.Queued, attempt("unknown"), turn, "It waits for its turn to be tried again, which comes next."},
		"no provider":    {queue.Queued, nil, &queue.Outlook{Wait: queue.WaitsForProvider}, "It waits until a provider is active: there is none."},
		"a pause":        {queue.Queued, nil, pause("ops", false), `Mail of own@example.com is paused until 2030-01-02T03:04:05Z by ops: "new list".`},
		"pause of all":   {queue.Queued, attempt("unknown"), pause("", true), `All mail is paused until 2030-01-02T03:04:05Z: "new list".`},
		"slowing down":   {queue.Queued, attempt("throttled"), hold("throttled", false), "Mail of own@example.com is held until 2030-01-02T03:04:05Z, when one message is tried: the provider asked us to slow down. About 1 message goes first."},
		"being tried":    {queue.Queued, nil, &queue.Outlook{Wait: queue.WaitsForHold, Key: "own@example.com", Silence: &queue.Silence{Reason: "throttled", Trying: true}, Until: at}, "Mail of own@example.com is held while one message is being tried: the provider asked us to slow down."},
		"out of reach":   {queue.Queued, nil, hold("unreachable", true), "All mail is held until 2030-01-02T03:04:05Z, when one message is tried: the provider can't be reached. About 1 message goes first."},
		"settings":       {queue.Queued, nil, hold("configuration", false), "Mail of own@example.com is held until 2030-01-02T03:04:05Z, when one message is tried: the provider's settings, or its mailbox, have to be put right. About 1 message goes first."},
		"what led to it": {queue.Queued, attempt("configuration"), led(hold("configuration", true), queue.OutcomeReport{Class: "configuration", Scope: "provider", Cause: "credentials", Step: "auth", Code: 535, Enhanced: "5.7.8"}),
			"All mail is held until 2030-01-02T03:04:05Z, when one message is tried: the provider's settings, or its mailbox, have to be put right. The provider refused the user name or the password (535 5.7.8). About 1 message goes first."},
		"no connection": {queue.Queued, nil, led(hold("unreachable", true), queue.OutcomeReport{Class: "temporary", Scope: "provider", Step: "dial"}),
			"All mail is held until 2030-01-02T03:04:05Z, when one message is tried: the provider can't be reached. Postroom could not connect to the mail server. About 1 message goes first."},
		"slowing down, again": {queue.Queued, nil, led(hold("throttled", true), queue.OutcomeReport{Class: "throttled", Step: "mail", Code: 421}),
			"All mail is held until 2030-01-02T03:04:05Z, when one message is tried: the provider asked us to slow down. About 1 message goes first."},
		"another's fault": {queue.Queued, attempt("configuration"), hold("unreachable", false), "Mail of own@example.com is held until 2030-01-02T03:04:05Z, when one message is tried: the provider can't be reached. About 1 message goes first."},
		"a limit":         {queue.Queued, nil, limit(throttle.Messages, at), "The limit of messages is used up until 2030-01-02T03:04:05Z. About 24 messages go first."},
		"a limit, open":   {queue.Queued, nil, limit(throttle.UploadBytes, time.Time{}), "The limit of bytes uploaded is used up by what is being sent. About 24 messages go first."},

		"no worker":             {queue.Queued, nil, &queue.Outlook{Wait: queue.WaitsForWorker, Ahead: 3}, "It waits until a worker runs: there is none."},
		"no worker, unable":     {queue.Queued, nil, &queue.Outlook{Wait: queue.WaitsForWorker, Workers: queue.Workforce{Running: 2, Unable: 2}}, "It waits until a worker can load the provider's settings: none can."},
		"no worker, and paused": {queue.Queued, nil, pause("", true), `All mail is paused until 2030-01-02T03:04:05Z: "new list". No worker runs either.`},
		"no worker, and held": {queue.Queued, nil, &queue.Outlook{Wait: queue.WaitsForHold, Key: "own@example.com", Silence: &queue.Silence{Reason: "unreachable"}, Until: at, Workers: queue.Workforce{Running: 1, Unable: 1}},
			"Mail of own@example.com is held until 2030-01-02T03:04:05Z, when one message is tried: the provider can't be reached. No worker can load the provider's settings either."},

		"expires while paused":      {queue.Queued, nil, expiring(pause("", true), true), `All mail is paused until 2030-01-02T03:04:05Z: "new list". It expires at 2030-01-02T02:04:05Z, before it can go.`},
		"expires before a retry":    {queue.Queued, attempt("temporary"), expiring(&queue.Outlook{Wait: queue.WaitsForTime, Until: at}, true), "The last attempt came to temporary: it is tried again from 2030-01-02T03:04:05Z. It expires at 2030-01-02T02:04:05Z, before it can go."},
		"expires, nobody knows":     {queue.Queued, nil, expiring(&queue.Outlook{Wait: queue.WaitsForProvider}, false), "It waits until a provider is active: there is none. It expires at 2030-01-02T02:04:05Z if it has not gone by then."},
		"expires, but goes in time": {queue.Queued, nil, expiring(&queue.Outlook{Wait: queue.WaitsForTurn, Expected: at.Add(-2 * time.Hour)}, false), "It waits for its turn, which comes next."},

		"nothing: being sent": {queue.Sending, nil, nil, ""},
		"nothing: just begun": {queue.Sending, nil, turn, ""},
		"nothing: delivered":  {queue.Delivered, attempt("delivered"), nil, ""},
	}
	for name, test := range tests {
		if test.outlook != nil && test.outlook.Workers == (queue.Workforce{}) && !strings.HasPrefix(name, "no worker") {
			test.outlook.Workers = one
		}
		if got := messageStatus(&queue.MessageStatus{State: test.state, History: test.history}, test.outlook, adviser{}).WaitsFor; got != test.want {
			t.Errorf("%s:\ngot  %q\nwant %q", name, got, test.want)
		}
	}
}

func TestWhatABatchWaitsFor(t *testing.T) {
	for _, test := range []struct {
		outlook *queue.Outlook
		want    string
	}{
		{nil, ""},
		{&queue.Outlook{Wait: queue.WaitsForTime, Until: at}, "It waits for its time, 2030-01-02T03:04:05Z (send_at)."},
		{&queue.Outlook{Wait: queue.WaitsForTurn, Ahead: 24}, "Its last message waits for its turn: about 24 messages of others go first."},
		{&queue.Outlook{Wait: queue.WaitsForTurn, Own: 24}, "Its last message waits for its turn, behind the others of its batch."},
		{&queue.Outlook{Wait: queue.WaitsForTurn}, "Its last message waits for its turn, which comes next."},
		{&queue.Outlook{Wait: queue.WaitsForLimit, Limit: throttle.Messages, Until: at, Own: 24}, "Its last message waits: the limit of messages is used up until 2030-01-02T03:04:05Z."},
		{&queue.Outlook{Wait: queue.WaitsForPause, Key: "own@example.com", Silence: &queue.Silence{Reason: "new list"}, Until: at, Workers: one, Ahead: 1, ExpiresAt: at, TooLate: true},
			`Its last message waits: mail of own@example.com is paused until 2030-01-02T03:04:05Z: "new list". About 1 message of others goes first. It expires at 2030-01-02T03:04:05Z, before it can go.`},
		{&queue.Outlook{Wait: queue.WaitsForWorker, Own: 24}, "Its last message waits until a worker runs: there is none."},
		{&queue.Outlook{Wait: queue.WaitsForProvider}, "Its last message waits until a provider is active: there is none."},
	} {
		if got := batchStatus(&queue.BatchStatus{Open: 1}, test.outlook, adviser{}).WaitsFor; got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

func TestAStatusSaysRoughlyWhenItGoes(t *testing.T) {
	local := at.Add(999).In(time.FixedZone("east", 3600)) // a forecast is no more exact than other times
	o := &queue.Outlook{Wait: queue.WaitsForTurn, Ahead: 24, Expected: local}
	if m := messageStatus(&queue.MessageStatus{State: queue.Queued}, o, adviser{}); m.Expected != at || m.Ahead != 24 {
		t.Errorf("message: %v, %d", m.Expected, m.Ahead)
	}
	if b := batchStatus(&queue.BatchStatus{Open: 25}, o, adviser{}); b.Through != at {
		t.Errorf("batch: %v", b.Through)
	}
	if m := messageStatus(&queue.MessageStatus{State: queue.Queued, ExpiresAt: at}, o, adviser{}); m.ExpiresAt != at {
		t.Errorf("a message expires at %v", m.ExpiresAt)
	}
	if b := batchStatus(&queue.BatchStatus{Open: 25, ExpiresAt: at}, o, adviser{}); b.ExpiresAt != at {
		t.Errorf("a batch expires at %v", b.ExpiresAt)
	}
	if m := messageStatus(&queue.MessageStatus{State: queue.Queued}, &queue.Outlook{}, adviser{}); !m.Expected.IsZero() {
		t.Errorf("nobody knows, but %v", m.Expected)
	}
}

// used is a limit of which so much is used.
func used(name throttle.Name, n int64, all bool, until time.Time) queue.LimitUse {
	return queue.LimitUse{Use: throttle.Use{Limit: throttle.Limit{Name: name, Max: 30, Window: 90 * time.Second}, Used: n, Until: until}, All: all}
}

func TestWhetherMailOfAMailboxFlows(t *testing.T) {
	pause := &queue.Silence{Reason: "new list", By: "ops", Until: at}
	hold := &queue.Silence{Reason: "throttled", Until: at}
	later := func(s queue.Silence) *queue.Silence { s.Until, s.All = at.Add(time.Hour), true; return &s }
	for name, test := range map[string]struct {
		mailbox queue.Mailbox
		state   string
		want    string
	}{
		"no worker":       {queue.Mailbox{Limits: []queue.LimitUse{used("messages", 30, false, at)}}, "no_worker", "Mail of own@example.com does not go: no worker runs. Nothing waits."},
		"none is able":    {queue.Mailbox{Workers: queue.Workforce{Running: 2, Unable: 2}}, "no_worker", "Mail of own@example.com does not go: no worker can load the provider's settings. Nothing waits."},
		"idle":            {queue.Mailbox{}, "flows", "Mail of own@example.com flows. Nothing waits."},
		"one waits":       {queue.Mailbox{Backlog: map[mail.Kind]int{mail.Alert: 1}}, "flows", "Mail of own@example.com flows. 1 message waits."},
		"with room":       {queue.Mailbox{Limits: []queue.LimitUse{used("messages", 29, false, at)}}, "flows", "Mail of own@example.com flows. Nothing waits."},
		"paused":          {queue.Mailbox{Pause: pause, Backlog: map[mail.Kind]int{mail.Report: 2, mail.Subscription: 3}}, "paused", `Mail of own@example.com is paused until 2030-01-02T03:04:05Z by ops: "new list". 5 messages wait.`},
		"held":            {queue.Mailbox{Hold: hold}, "held", "Mail of own@example.com is held until 2030-01-02T03:04:05Z, when one message is tried: the provider asked us to slow down. Nothing waits."},
		"pause as long":   {queue.Mailbox{Hold: hold, Pause: pause}, "paused", `Mail of own@example.com is paused until 2030-01-02T03:04:05Z by ops: "new list". Nothing waits.`},
		"hold for longer": {queue.Mailbox{Hold: later(*hold), Pause: pause}, "held", "All mail is held until 2030-01-02T04:04:05Z, when one message is tried: the provider asked us to slow down. Nothing waits."},
		"used up":         {queue.Mailbox{Limits: []queue.LimitUse{used("messages", 30, false, at), used("recipients", 30, true, at.Add(-1))}}, "limited", "The limit of messages is used up until 2030-01-02T03:04:05Z. Nothing waits."},
		"the later of two": {queue.Mailbox{Limits: []queue.LimitUse{used("messages", 30, false, at), used("recipients", 31, true, at.Add(time.Hour))}}, "limited",
			"The limit of recipients is used up until 2030-01-02T04:04:05Z. Nothing waits."},
		"used up by what is open": {queue.Mailbox{Limits: []queue.LimitUse{used("messages", 30, false, time.Time{})}}, "limited", "The limit of messages is used up by what is being sent. Nothing waits."},
	} {
		test.mailbox.Key = "own@example.com"
		if test.mailbox.Workers == (queue.Workforce{}) && name != "no worker" {
			test.mailbox.Workers = one
		}
		if m := mailboxOf(&test.mailbox, adviser{}); m.State != test.state || m.Summary != test.want {
			t.Errorf("%s: %s\ngot  %q\nwant %q", name, m.State, m.Summary, test.want)
		}
	}
}

func TestAMailboxHasItsLimitsHoldAndPause(t *testing.T) {
	m := mailboxOf(&queue.Mailbox{Key: "own@example.com", Units: 1, Concurrency: 2, Workers: queue.Workforce{Running: 5, Unable: 2}, Next: at, Through: at.Add(time.Hour), Binding: throttle.Messages,
		Backlog: map[mail.Kind]int{mail.Alert: 1, mail.Report: 2, mail.Subscription: 3},
		Hold:    &queue.Silence{Reason: "unreachable", Since: at, Until: at.Add(time.Minute), Refusals: 4},
		Pause:   &queue.Silence{Reason: "new list", By: "ops", Since: at, Until: at.Add(time.Hour), All: true},
		Limits:  []queue.LimitUse{used("messages", 15, false, at), used("upload_bytes", 30, true, time.Time{})},
	}, adviser{})
	if m.Address != "own@example.com" || m.Units != 1 || m.Concurrency != 2 || m.Workers != 3 || m.Next != at || m.Through != at.Add(time.Hour) || m.Binding != "messages" {
		t.Errorf("%+v", m)
	}
	if m.Backlog != (Backlog{Total: 6, Alert: 1, Report: 2, Subscription: 3}) {
		t.Errorf("backlog %+v", m.Backlog)
	}
	if *m.Hold != (Silence{Reason: "unreachable", Since: at, Until: at.Add(time.Minute), Refusals: 4, Scope: "mailbox"}) {
		t.Errorf("hold %+v", m.Hold)
	}
	if *m.Pause != (Silence{Reason: "new list", By: "ops", Since: at, Until: at.Add(time.Hour), Scope: "everything"}) {
		t.Errorf("pause %+v", m.Pause)
	}
	if len(m.Limits) != 2 || m.Limits[0] != (Limit{"messages", "mailbox", 30, 90, 15, 0.5, at}) || m.Limits[1] != (Limit{"upload_bytes", "provider", 30, 90, 30, 1, time.Time{}}) {
		t.Errorf("limits %+v", m.Limits)
	}
	if m := mailboxOf(&queue.Mailbox{Through: at}, adviser{}); m.Binding != "concurrency" || m.Hold != nil || m.Pause != nil || m.Limits == nil {
		t.Errorf("%+v", m)
	}
	if m := mailboxOf(&queue.Mailbox{}, adviser{}); m.Binding != "" || !m.Through.IsZero() {
		t.Errorf("no forecast, but %+v", m)
	}
	if strings.Contains(summary(&queue.Mailbox{}), "0001") {
		t.Error("a time that is not there is told")
	}
}
