package admin

import (
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/queue"
)

func attempt(classes ...string) []queue.AttemptReport {
	a := queue.AttemptReport{Begun: time.Unix(1e9, 0), Duration: 1500 * time.Millisecond, Worker: "w1"}
	for i, class := range classes {
		a.Outcomes = append(a.Outcomes, queue.OutcomeReport{Recipients: []int{i}, Class: class, Scope: "message", Step: "rcpt", Code: 451, Enhanced: "4.7.1", Reply: "451 later"})
	}
	return []queue.AttemptReport{{}, a}
}

func TestWhatAMessageWaitsFor(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	tests := map[string]struct {
		status queue.MessageStatus
		want   string
	}{
		"its turn":              {queue.MessageStatus{State: queue.Queued}, "its turn"},
		"its time":              {queue.MessageStatus{State: queue.Queued, Due: at}, "2030-01-02T03:04:05Z (send_at)"},
		"a retry":               {queue.MessageStatus{State: queue.Queued, Due: at, History: attempt("temporary")}, "came to temporary: it is tried again from 2030-01-02"},
		"some were delivered":   {queue.MessageStatus{State: queue.Queued, Due: at, History: attempt("delivered", "permanent", "temporary")}, "came to temporary"},
		"a retry's turn":        {queue.MessageStatus{State: queue.Queued, History: attempt("unknown")}, "its turn to be tried again"},
		"settings":              {queue.MessageStatus{State: queue.Queued, History: attempt("configuration")}, "put right"},
		"settings, with a time": {queue.MessageStatus{State: queue.Queued, Due: at, History: attempt("configuration")}, "put right, and is tried again from 2030"},
		"slowing down":          {queue.MessageStatus{State: queue.Queued, History: attempt("throttled")}, "slow down"},
		"slowing down until":    {queue.MessageStatus{State: queue.Queued, Due: at, History: attempt("throttled")}, "slow down: it is tried again from 2030"},
		"nothing: being sent":   {queue.MessageStatus{State: queue.Sending, Due: at}, ""},
		"nothing: delivered":    {queue.MessageStatus{State: queue.Delivered, History: attempt("delivered")}, ""},
	}
	for name, test := range tests {
		got := messageStatus(&test.status).WaitsFor
		if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func TestAStatusHasTheAttemptsAndCountsRecipients(t *testing.T) {
	m := messageStatus(&queue.MessageStatus{
		State: queue.Delivered, Attempts: 2, History: attempt("temporary", "delivered"),
		Recipients: []queue.RecipientStatus{{State: "delivered"}, {State: "delivered"}, {State: "refused"}, {State: "pending"}},
	})
	if m.Counts != (RecipientCounts{Pending: 1, Delivered: 2, Refused: 1}) || m.Counted != 2 || !strings.Contains(m.Note, "bounce") {
		t.Errorf("%+v", m)
	}
	a := m.Attempts[1]
	if a.Seconds != 1.5 || a.Worker != "w1" || len(a.Outcomes) != 2 || a.Outcomes[0].Reply != "451 later" || a.Outcomes[0].Code != 451 || a.Outcomes[1].Recipients[0] != 1 {
		t.Errorf("%+v", a)
	}
}
