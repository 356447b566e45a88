package worker

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/queue"
)

const (
	o1  = mail.ScopeMessage
	rcp = mail.ScopeRecipient
	box = mail.ScopeMailbox
	prv = mail.ScopeProvider
)

func outcome(c mail.Class, s mail.Scope) mail.Outcome { return mail.Outcome{Class: c, Scope: s} }

// one is a policy for a message whose first attempt has just ended.
func one() policy {
	return policy{schedule: Schedule{Delays: []time.Duration{time.Minute}, GiveUp: time.Hour}, onUnknown: queue.Resend, now: first, random: 0.5}
}

// summary is a settlement on one line.
func summary(s *queue.Settlement) string {
	return fmt.Sprintf("%s %s counted=%v delay=%v hold=%v..%v %s", s.Verdict, s.Class, s.Counted, s.Delay, s.Hold, s.HoldMax, s.Reason)
}

func TestEachClassInEachScope(t *testing.T) {
	const (
		done          = "delivered delivered counted=true delay=0s hold=0s..0s "
		giveUp        = "failed permanent counted=true delay=0s hold=0s..0s "
		temporary     = "retry temporary counted=true delay=1m0s hold=0s..0s "
		unknown       = "retry unknown counted=true delay=1m0s hold=0s..0s "
		throttled     = "back throttled counted=false delay=0s hold=15s..15m0s throttled"
		configuration = "back configuration counted=false delay=0s hold=15s..10m0s configuration"
		unreachable   = "back temporary counted=false delay=0s hold=1s..1m0s unreachable"
	)
	for class, want := range map[mail.Class]map[mail.Scope]string{
		mail.Delivered:     {o1: done, rcp: done, box: done, prv: done},
		mail.Permanent:     {o1: giveUp, rcp: giveUp, box: giveUp, prv: giveUp},
		mail.Temporary:     {o1: temporary, rcp: temporary, box: temporary, prv: unreachable},
		mail.Unknown:       {o1: unknown, rcp: unknown, box: unknown, prv: unknown},
		mail.Throttled:     {o1: throttled, rcp: throttled, box: throttled, prv: throttled},
		mail.Configuration: {o1: configuration, rcp: configuration, box: configuration, prv: configuration},
	} {
		for scope, want := range want {
			a := &queue.Attempt{Now: first}
			s := decide(a, []mail.Outcome{outcome(class, scope)}, one())
			if got := summary(s); got != want || s.Attempt != a || len(s.Outcomes) != 1 || s.Hold > 0 && s.Scope != scope {
				t.Errorf("%s, %s:\n%s, want\n%s", class, scope, got, want)
			}
		}
	}
}

func TestMixturesOfRecipients(t *testing.T) {
	d, x, tmp, u := outcome(mail.Delivered, rcp), outcome(mail.Permanent, rcp), outcome(mail.Temporary, rcp), outcome(mail.Unknown, o1)
	h, c, n := outcome(mail.Throttled, box), outcome(mail.Configuration, box), outcome(mail.Temporary, prv)
	crowd := mail.Outcome{Class: mail.Temporary, Scope: mail.ScopeRecipient, Cause: mail.TooManyRecipients, Step: "rcpt", Code: 452, Enhanced: "4.5.3"}
	asked := h
	asked.RetryAfter = 90 * time.Second
	unsent := mail.Outcome{Class: mail.Temporary, Cause: mail.NotSent, Step: "verify"}
	hold := func(p *policy) { p.onUnknown = queue.Hold }
	late := func(p *policy) { p.now = first.Add(time.Hour) }
	nearly := func(p *policy) { p.now = first.Add(59*time.Minute + 30*time.Second) }
	for _, test := range []struct {
		name     string
		outcomes []mail.Outcome
		change   func(*policy)
		want     string
	}{
		{"all delivered", []mail.Outcome{d, d}, nil, "delivered delivered counted=true delay=0s hold=0s..0s "},
		{"one refused", []mail.Outcome{d, x, d}, nil, "failed permanent counted=true delay=0s hold=0s..0s "},
		{"one deferred", []mail.Outcome{d, tmp}, nil, "retry temporary counted=true delay=1m0s hold=0s..0s "},
		{"deferred beside refused", []mail.Outcome{x, tmp, d}, nil, "retry temporary counted=true delay=1m0s hold=0s..0s "},
		{"unknown beside deferred", []mail.Outcome{tmp, u}, nil, "retry unknown counted=true delay=1m0s hold=0s..0s "},
		{"unknown is held", []mail.Outcome{u, u}, hold, "failed unknown counted=true delay=0s hold=0s..0s "},
		{"unknown is held beside those who are done", []mail.Outcome{d, u, x}, hold, "failed unknown counted=true delay=0s hold=0s..0s "},
		{"unknown is held, and one deferred", []mail.Outcome{tmp, u}, hold, "retry unknown counted=true delay=1m0s hold=0s..0s "},
		{"unknown is held, and one deferred too late", []mail.Outcome{tmp, u}, func(p *policy) { hold(p); late(p) }, "failed unknown counted=true delay=0s hold=0s..0s "},
		{"unknown is held, and there was no room for others", []mail.Outcome{u, x, u, crowd}, hold, "back unknown counted=true delay=0s hold=0s..0s "},
		{"unknown is held, one deferred, and no room for others", []mail.Outcome{u, tmp, crowd}, hold, "retry unknown counted=true delay=0s hold=0s..0s "},
		{"nobody can be asked about one draft for another", []mail.Outcome{u, unsent}, hold, "failed unknown counted=true delay=0s hold=0s..0s "},
		{"unknown to be sent again, and no room for others", []mail.Outcome{u, crowd}, nil, "retry unknown counted=true delay=1m0s hold=0s..0s "},
		{"holding concerns the unknown only", []mail.Outcome{tmp, d}, hold, "retry temporary counted=true delay=1m0s hold=0s..0s "},
		{"throttled beside unknown that would be held", []mail.Outcome{u, h}, hold, "back unknown counted=true delay=0s hold=15s..15m0s throttled"},
		{"more recipients than the server takes at once", []mail.Outcome{d, crowd, crowd}, nil, "back temporary counted=false delay=0s hold=0s..0s "},
		{"more than it takes, and one it refuses", []mail.Outcome{x, crowd}, nil, "back temporary counted=false delay=0s hold=0s..0s "},
		{"more than it takes, and one it wants later", []mail.Outcome{d, tmp, crowd}, nil, "retry temporary counted=true delay=0s hold=0s..0s "},
		{"more than it takes, and all it wants later", []mail.Outcome{tmp, tmp, crowd}, nil, "retry temporary counted=true delay=1m0s hold=0s..0s "},
		{"more than it takes, and the message later", []mail.Outcome{d, outcome(mail.Temporary, o1), crowd}, nil, "retry temporary counted=true delay=1m0s hold=0s..0s "},
		{"a server that takes nobody", []mail.Outcome{crowd, crowd}, nil, "retry temporary counted=true delay=1m0s hold=0s..0s "},
		{"throttled beside all others", []mail.Outcome{d, x, tmp, u, h}, nil, "back throttled counted=false delay=0s hold=15s..15m0s throttled"},
		{"throttled for a time", []mail.Outcome{d, asked}, nil, "back throttled counted=false delay=0s hold=1m30s..0s throttled"},
		{"nobody there", []mail.Outcome{n, n}, nil, "back temporary counted=false delay=0s hold=1s..1m0s unreachable"},
		{"time is up", []mail.Outcome{tmp}, late, "failed temporary counted=true delay=0s hold=0s..0s "},
		{"time is up for what nobody knows", []mail.Outcome{u}, late, "failed unknown counted=true delay=0s hold=0s..0s "},
		{"time is nearly up", []mail.Outcome{tmp}, nearly, "retry temporary counted=true delay=30s hold=0s..0s "},
		{"no mail is failed for a limit", []mail.Outcome{h}, late, "back throttled counted=false delay=0s hold=15s..15m0s throttled"},
		{"no mail is failed for a configuration", []mail.Outcome{c}, late, "back configuration counted=false delay=0s hold=15s..10m0s configuration"},
	} {
		p := one()
		if test.change != nil {
			test.change(&p)
		}
		s := decide(&queue.Attempt{Now: first, First: first, Counted: 1}, test.outcomes, p)
		if got := summary(s); got != test.want {
			t.Errorf("%s:\n%s, want\n%s", test.name, got, test.want)
		}
	}
}

// TestWhatIsTrueOfTheWholeMessageIsTrueOfThoseNotOfferedYet puts a third recipient off for want of room. What was refused without the server
// knowing the recipients it would refuse again; what it refused knowing them can have been because of them.
func TestWhatIsTrueOfTheWholeMessageIsTrueOfThoseNotOfferedYet(t *testing.T) {
	refusedAt := func(step string, cause mail.Cause) mail.Outcome {
		return mail.Outcome{Class: mail.Permanent, Scope: mail.ScopeMessage, Cause: cause, Step: step}
	}
	later := refusedAt("mail", "")
	later.Class = mail.Temporary
	for _, test := range []struct {
		name  string
		o     mail.Outcome
		whole bool
	}{
		{"larger than SIZE, or refused at MAIL", refusedAt("mail", mail.TooLarge), true},
		{"not to be rendered", refusedAt("render", ""), true},
		{"refused at DATA", refusedAt("data", ""), false},
		{"refused after the final dot", refusedAt("body", ""), false},
		{"too large, after the final dot", refusedAt("body", mail.TooLarge), false},
		{"refused by Graph", refusedAt("send", mail.TooLarge), false},
		{"the address of one", mail.Outcome{Class: mail.Permanent, Scope: mail.ScopeRecipient, Step: "rcpt"}, false},
		{"refused at MAIL for now", later, false},
	} {
		gone := mail.Outcome{Class: mail.Permanent, Scope: mail.ScopeRecipient, Step: "rcpt", Code: 550}
		deferred := mail.Outcome{Class: mail.Temporary, Scope: mail.ScopeRecipient, Step: "rcpt", Code: 450}
		putOff := provider.Bounds{Recipients: 2}.PutOff("rcpt")
		given := []mail.Outcome{gone, test.o, putOff, deferred}
		s := decide(&queue.Attempt{Now: first}, given, one())
		want := slices.Clone(given)
		if test.whole {
			want[2] = test.o
		}
		if !slices.Equal(s.Outcomes, want) {
			t.Errorf("%s: %s, %+v", test.name, s.Verdict, s.Outcomes)
		}
	}
}

func TestGivingUpCountsFromTheFirstCountedAttempt(t *testing.T) {
	p := one()
	p.now = first.Add(2 * time.Hour)
	tmp := []mail.Outcome{outcome(mail.Temporary, o1)}
	if s := decide(&queue.Attempt{Now: p.now}, tmp, p); s.Verdict != queue.Again {
		t.Errorf("a first attempt two hours after acceptance: %s", summary(s))
	}
	if s := decide(&queue.Attempt{Now: p.now, First: first, Counted: 1}, tmp, p); s.Verdict != queue.GiveUp {
		t.Errorf("a second attempt two hours after the first: %s", summary(s))
	}
}

func TestAMessageThatWasRefusedBeforeFailsInTheEnd(t *testing.T) {
	refused := turnOf(t, func(ctx context.Context, q *queue.Queue) string {
		return enqueue(t, q, letterTo("ada@example.net", "bob@example.net"))
	}, func(_ *queue.Queue, _ string, turn *queue.Turn) *queue.Settlement {
		a := turn.Next(nil)
		s := &queue.Settlement{Attempt: a, Verdict: queue.Back, Class: mail.Throttled, Outcomes: []mail.Outcome{outcome(mail.Permanent, rcp), outcome(mail.Throttled, box)}}
		if a = turn.Next(s); a == nil || !a.Refused() {
			t.Errorf("the second attempt: %+v", a)
			return nil
		}
		return decide(a, []mail.Outcome{outcome(mail.Delivered, rcp)}, one())
	})
	if got, want := summary(refused), "failed permanent counted=true delay=0s hold=0s..0s "; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
