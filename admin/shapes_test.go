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
	}, nil, adviser{})
	if m.Counts != (RecipientCounts{Pending: 1, Delivered: 2, Refused: 1}) || m.Counted != 2 || !strings.Contains(m.Note, "bounce") {
		t.Errorf("%+v", m)
	}
	a := m.Attempts[1]
	if advice := a.Outcomes[0].Advice; advice == nil || advice.Happened == "" || advice.Postroom == "" || a.Outcomes[1].Advice != nil {
		t.Errorf("%+v", a.Outcomes)
	}
	if a.Seconds != 1.5 || a.Worker != "w1" || len(a.Outcomes) != 2 || a.Outcomes[0].Reply != "451 later" || a.Outcomes[0].Code != 451 || a.Outcomes[1].Recipients[0] != 1 {
		t.Errorf("%+v", a)
	}
}

func TestAdviceGoesByWhatTheHistoryHas(t *testing.T) {
	for name, v := range map[string]struct {
		outcome                    queue.OutcomeReport
		happened, postroom, remedy string // parts
	}{
		"by the cause": {queue.OutcomeReport{Class: "configuration", Scope: "provider", Cause: "credentials", Step: "auth", Code: 535, Enhanced: "5.7.8"},
			"user name or the password", "All mail waits", "provider.smtp.auth.password"},
		"by the scope": {queue.OutcomeReport{Class: "configuration", Scope: "mailbox", Cause: "send_as_denied", Step: "body"},
			"may not send with", "Mail of this sender waits", "Send as"},
		"by the step":          {queue.OutcomeReport{Class: "temporary", Scope: "provider", Step: "dial"}, "could not connect", "All mail waits", "firewall"},
		"by the code":          {queue.OutcomeReport{Class: "permanent", Scope: "recipient", Step: "rcpt", Code: 552}, "mailbox is full", "the others get it", "make room"},
		"by the enhanced code": {queue.OutcomeReport{Class: "permanent", Scope: "recipient", Step: "rcpt", Code: 550, Enhanced: "5.1.1"}, "does not exist", "the others get it", "Correct"},
		"by the class alone":   {queue.OutcomeReport{Class: "unknown", Cause: "of_a_newer_program", Scope: "galaxy"}, "may have been accepted", "on_unknown", "arrived"},
	} {
		t.Run(name, func(t *testing.T) {
			v.outcome.Reply = "550 ada@example.org"
			a := adviser{}.outcome(v.outcome, time.Time{}).Advice
			if a == nil || !strings.Contains(a.Happened, v.happened) || !strings.Contains(a.Postroom, v.postroom) || !strings.Contains(a.Remedy, v.remedy) {
				t.Fatalf("%+v", a)
			}
			if strings.Contains(a.Happened+a.Postroom+a.Remedy, "ada@") {
				t.Errorf("it repeats the reply: %+v", a)
			}
		})
	}
	for _, class := range []string{"delivered", "of_a_newer_program", ""} {
		if a := (adviser{}).outcome(queue.OutcomeReport{Class: class, Reply: "250 fine"}, time.Time{}).Advice; a != nil {
			t.Errorf("%q: %+v", class, a)
		}
	}
}
