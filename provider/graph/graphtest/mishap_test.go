package graphtest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestMishapsHappenAsProvoked(t *testing.T) {
	for name, test := range map[string]struct {
		mishap Mishap
		status int    // 0: the connection is cut
		code   string // of the error
		after  string // Retry-After
		sent   int
	}{
		"429 with seconds":        {Mishap{Answer: &Answer{Status: 429, RetryAfter: "120"}}, 429, "TooManyRequests", "120", 0},
		"429 with a fraction":     {Mishap{Answer: &Answer{Status: 429, RetryAfter: "2.128", Code: "ApplicationThrottled"}}, 429, "ApplicationThrottled", "2.128", 0},
		"429 with a date":         {Mishap{Answer: &Answer{Status: 429, RetryAfter: "Sun, 22 Nov 2026 12:00:00 GMT"}}, 429, "TooManyRequests", "Sun, 22 Nov 2026 12:00:00 GMT", 0},
		"429 without":             {Mishap{Answer: &Answer{Status: 429}}, 429, "TooManyRequests", "", 0},
		"503":                     {Mishap{Answer: &Answer{Status: 503, RetryAfter: "10"}}, 503, "ServiceUnavailable", "10", 0},
		"503 of the store":        {Mishap{At: Received, Answer: &Answer{Status: 503, Code: "ErrorMailboxStoreUnavailable"}}, 503, "ErrorMailboxStoreUnavailable", "", 0},
		"509":                     {Mishap{Answer: &Answer{Status: 509}}, 509, "BandwidthLimitExceeded", "", 0},
		"401":                     {Mishap{Answer: &Answer{Status: 401}}, 401, "InvalidAuthenticationToken", "", 0},
		"500 before":              {Mishap{At: Received, Answer: &Answer{Status: 500}}, 500, "ErrorInternalServerError", "", 0},
		"500 after":               {Mishap{At: Accepted, Answer: &Answer{Status: 500}}, 500, "ErrorInternalServerError", "", 1},
		"502 after":               {Mishap{At: Accepted, Answer: &Answer{Status: 502}}, 502, "UnknownError", "", 1},
		"504 after":               {Mishap{At: Accepted, Answer: &Answer{Status: 504}}, 504, "UnknownError", "", 1},
		"504 before":              {Mishap{Answer: &Answer{Status: 504}}, 504, "UnknownError", "", 0},
		"garbage":                 {Mishap{Answer: &Answer{Status: 502, Body: "<html>Bad gateway</html>"}}, 502, "", "", 0},
		"202 that asks for time":  {Mishap{At: Accepted, Answer: &Answer{Status: 202, RetryAfter: "30"}}, 202, "", "30", 1},
		"cut at once":             {Mishap{Cut: true}, 0, "", "", 0},
		"cut in the body":         {Mishap{At: Halfway, Cut: true}, 0, "", "", 0},
		"an answer in the body":   {Mishap{At: Halfway, Answer: &Answer{Status: 503}}, 503, "ServiceUnavailable", "", 0},
		"cut after the body":      {Mishap{At: Received, Cut: true}, 0, "", "", 0},
		"cut after it was taken":  {Mishap{At: Accepted, Cut: true}, 0, "", "", 1},
		"slow":                    {Mishap{Delay: time.Millisecond}, 202, "", "", 1},
		"slow after it was taken": {Mishap{At: Accepted, Delay: time.Millisecond}, 202, "", "", 1},
		"slow in the body":        {Mishap{At: Halfway, Delay: time.Millisecond}, 202, "", "", 1},
		"slow, and then an error": {Mishap{Delay: time.Millisecond, Answer: &Answer{Status: 504}}, 504, "UnknownError", "", 0},
		"with another operation":  {Mishap{On: []Operation{SendDraft}, Answer: &Answer{Status: 500}}, 202, "", "", 1},
		"with this operation":     {Mishap{On: []Operation{SendDraft, SendMail}, Answer: &Answer{Status: 500}}, 500, "ErrorInternalServerError", "", 0},
		"with another mailbox":    {Mishap{Mailbox: "b@example.com", Answer: &Answer{Status: 500}}, 202, "", "", 1},
		"with this mailbox":       {Mishap{Mailbox: "REPORTS@example.com", Answer: &Answer{Status: 500}}, 500, "ErrorInternalServerError", "", 0},
		"later":                   {Mishap{Skip: 1, Answer: &Answer{Status: 500}}, 202, "", "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Options{})
			r.Provoke(test.mishap)
			// A large body, so that a cut in its middle is one.
			body := mailOf(strings.Replace(message("x"), "hello", strings.Repeat("x", 200_000), 1))
			p := r.graph("POST", user("sendMail"), body)
			if test.status == 0 {
				if p.err == nil {
					t.Errorf("got %d, want a cut connection", p.status)
				}
			} else if r.want("send", p, test.status, test.code); p.header.Get("Retry-After") != test.after {
				t.Errorf("Retry-After is %q, want %q", p.header.Get("Retry-After"), test.after)
			}
			wait(t, "the request is over", func() bool { all := r.Requests(); return !all[len(all)-1].Replied.IsZero() })
			all := r.Requests()
			last := all[len(all)-1]
			if r.Received() != test.sent || last.Status != test.status || last.Accepted != (test.sent == 1) || last.Limit != "" || r.Usage(sender).Requests != 1 || r.Usage("").Refused != 0 {
				t.Errorf("%d were sent; %+v", r.Received(), last)
			}
			r.Calm()
			r.want("afterwards", r.graph("POST", user("sendMail"), mailOf(message("x"))), 202, "")
		})
	}
}

func TestMishapsEnd(t *testing.T) {
	r := newRig(t, Options{Limits: &Limits{}})
	statuses := func(n int) string {
		var all []int
		for range n {
			all = append(all, r.graph("POST", user("sendMail"), mailOf(message("x"))).status)
		}
		return fmt.Sprint(all)
	}
	r.Provoke(Mishap{Skip: 1, Times: 2, Answer: &Answer{Status: 500}})
	r.Provoke(Mishap{Answer: &Answer{Status: 503}})
	if got := statuses(5); got != "[202 500 500 503 202]" {
		t.Errorf("one after the other: %s", got)
	}
	r.Provoke(Mishap{For: time.Minute, Answer: &Answer{Status: 429}})
	if got := statuses(3); got != "[429 429 429]" {
		t.Errorf("for a minute: %s", got)
	}
	r.clock.pass(time.Minute + 1)
	if got := statuses(1); got != "[202]" {
		t.Errorf("after it: %s", got)
	}
	// Nothing is told of what was not taken.
	r.Provoke(Mishap{At: Accepted, Answer: &Answer{Status: 504}})
	r.want("refused", r.graph("POST", user("sendMail"), mailOf(`{}`)), 400, "ErrorInvalidRecipients")
	r.want("taken", r.graph("POST", user("sendMail"), mailOf(message("x"))), 504, "UnknownError")
}

func TestMishapsOfTheTokenEndpoint(t *testing.T) {
	r := newRig(t, Options{})
	r.Provoke(Mishap{Answer: &Answer{Status: 500}})
	r.newToken() // It is only meant if it is named.
	r.Calm()
	for name, test := range map[string]struct {
		answer Answer
		error  string
		after  string
	}{
		"429":     {Answer{Status: 429, RetryAfter: "5"}, "temporarily_unavailable", "5"},
		"503":     {Answer{Status: 503}, "temporarily_unavailable", ""},
		"named":   {Answer{Status: 400, Code: "invalid_grant"}, "invalid_grant", ""},
		"garbage": {Answer{Status: 200, Body: "<html>"}, "", ""},
	} {
		r.Provoke(Mishap{On: []Operation{GetToken}, Answer: &test.answer})
		p := r.ask(r.credentials())
		if p.status != test.answer.Status || p.field("error") != test.error || p.header.Get("Retry-After") != test.after || p.field("access_token") != "" {
			t.Errorf("%s: %d %s", name, p.status, p.body)
		}
	}
	r.Provoke(Mishap{On: []Operation{GetToken}, Cut: true})
	if p := r.ask(r.credentials()); p.err == nil {
		t.Errorf("got %d, want a cut connection", p.status)
	}
	if got := r.TokenRequests(); got != 7 {
		t.Errorf("%d token requests", got)
	}
}

func TestMishapsOfAnUpload(t *testing.T) {
	r := newRig(t, Options{})
	s := r.upload(r.draft(), 3*megabyte)
	part := random(megabyte)
	r.Provoke(Mishap{On: []Operation{PutRange}, Mailbox: sender, At: Halfway, Cut: true})
	if p := s.put(0, part); p.err == nil || s.next() != "0" {
		t.Errorf("%d, and it goes on at %s", p.status, s.next())
	}
	r.Provoke(Mishap{On: []Operation{PutRange}, At: Accepted, Answer: &Answer{Status: 504}})
	r.want("lost", s.put(0, part), 504, "UnknownError")
	r.want("again", s.put(0, part), 416, "invalidRange")
	if got := s.next(); got != fmt.Sprint(megabyte) {
		t.Errorf("next is %s", got)
	}
}

func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	r := newRig(t, Options{})
	r.Provoke(Mishap{At: Received, Delay: time.Hour})
	done := make(chan reply)
	go func() { done <- r.graph("POST", user("sendMail"), mailOf(message("x"))) }()
	wait(t, "it hangs", func() bool { return marked(r) == 1 })
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if p := <-done; p.err == nil && p.status == 202 {
		t.Errorf("got %d", p.status)
	}
	if err := r.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}
