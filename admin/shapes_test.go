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

func TestAStatusHasTheAttemptsAndCountsRecipients(t *testing.T) {
	m := messageStatus(&queue.MessageStatus{
		State: queue.Delivered, Attempts: 2, History: attempt("temporary", "delivered"),
		Recipients: []queue.RecipientStatus{{State: "delivered"}, {State: "delivered"}, {State: "refused"}, {State: "pending"}},
	}, nil)
	if m.Counts != (RecipientCounts{Pending: 1, Delivered: 2, Refused: 1}) || m.Counted != 2 || !strings.Contains(m.Note, "bounce") {
		t.Errorf("%+v", m)
	}
	a := m.Attempts[1]
	if a.Seconds != 1.5 || a.Worker != "w1" || len(a.Outcomes) != 2 || a.Outcomes[0].Reply != "451 later" || a.Outcomes[0].Code != 451 || a.Outcomes[1].Recipients[0] != 1 {
		t.Errorf("%+v", a)
	}
}
