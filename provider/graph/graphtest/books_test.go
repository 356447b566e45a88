package graphtest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestAWindowHasBothItsEnds(t *testing.T) {
	start := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	limit := Limit{3, time.Minute}
	var w window
	at := func(d time.Duration, n int64, wait time.Duration) {
		t.Helper()
		got, ok := w.fits(start.Add(d), n, limit)
		if ok != (wait == 0) || got != wait {
			t.Errorf("at %s: %s, %v, want %s", d, got, ok, wait)
		}
		if ok {
			w.add(start.Add(d), n, limit.Window)
		}
	}
	at(0, 1, 0)
	at(10*time.Second, 2, 0)
	at(10*time.Second, 1, 50*time.Second+1)
	at(time.Minute, 1, 1) // The first one still counts.
	at(time.Minute+1, 1, 0)
	at(time.Minute+1, 2, 10*time.Second)
	at(time.Minute+1, 4, time.Minute) // It never fits.
	at(3*time.Minute, 3, 0)
	if n := len(w.stamps); n != 1 {
		t.Errorf("%d stamps are kept", n)
	}
	if _, ok := w.fits(start, 1000, Limit{}); !ok {
		t.Error("no limit refuses")
	}
}

// Against every stamp there ever was, counted anew.
func TestAWindowCountsLikeAList(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	limit := Limit{20, time.Minute}
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	var w window
	var all []stamp
	refused := 0
	for range 1500 {
		now = now.Add(time.Duration(random.IntN(10)) * time.Second)
		n := int64(random.IntN(6))
		var used int64
		for _, s := range all {
			if now.Sub(s.at) <= limit.Window {
				used += s.n
			}
		}
		wait, ok := w.fits(now, n, limit)
		if ok != (used+n <= limit.Most) {
			t.Fatalf("%d and %d more: %v", used, n, ok)
		}
		if !ok {
			refused++
			if _, ok := (&window{stamps: append([]stamp(nil), w.stamps...), sum: w.sum}).fits(now.Add(wait), n, limit); !ok {
				t.Fatalf("%s is too short", wait)
			}
			continue
		}
		w.add(now, n, limit.Window)
		all = append(all, stamp{now, n})
	}
	if refused == 0 {
		t.Error("nothing was refused: this proves nothing")
	}
}

func TestLimitsRefuseAsMicrosoftDoes(t *testing.T) {
	const window = 10 * time.Minute
	two := `{"message":{"toRecipients":` + list(2) + `},"saveToSentItems":false}`
	for name, test := range map[string]struct {
		limits, tenant Limits
		fits           int // requests
		code, limit    string
		after          string
	}{
		"requests":          {Limits{Requests: Limit{3, window}}, Limits{}, 3, "TooManyRequests", "requests", "601"},
		"messages":          {Limits{Messages: Limit{3, window}}, Limits{}, 3, "TooManyRequests", "messages", "601"},
		"recipients":        {Limits{Recipients: Limit{7, window}}, Limits{}, 3, "ErrorSubmissionQuotaExceeded", "recipients", ""},
		"upload":            {Limits{Upload: Limit{int64(3*len(two)) + 1, window}}, Limits{}, 3, "ApplicationThrottled", "upload", "601"},
		"tenant requests":   {Limits{}, Limits{Requests: Limit{3, window}}, 3, "TooManyRequests", "tenant requests", "601"},
		"tenant messages":   {Limits{}, Limits{Messages: Limit{3, window}}, 3, "TooManyRequests", "tenant messages", "601"},
		"tenant recipients": {Limits{}, Limits{Recipients: Limit{6, window}}, 3, "ErrorSubmissionQuotaExceeded", "tenant recipients", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Options{Limits: &test.limits, TenantLimits: &test.tenant})
			for range test.fits {
				r.want("within", r.graph("POST", user("sendMail"), two), 202, "")
			}
			for range 2 {
				p := r.graph("POST", user("sendMail"), two)
				r.want("beyond", p, 429, test.code)
				if got := p.header.Get("Retry-After"); got != test.after {
					t.Errorf("Retry-After is %q, want %q", got, test.after)
				}
			}
			refused := r.Refusals()
			if u := r.Usage(sender); len(refused) != 2 || refused[0].Limit != test.limit || refused[0].Status != 429 || refused[0].Code != test.code ||
				u.Requests != 5 || u.Refused != 2 || u.Messages != 3 || u.Recipients != 6 || u.UploadBytes != int64(5*len(two)) || u != r.Usage("") {
				t.Errorf("%+v, %+v", refused, r.Usage(sender))
			}
			if err := r.Obeyed(); err == nil || !strings.Contains(err.Error(), "map["+test.limit+":2]") {
				t.Errorf("got %v", err)
			}
			r.clock.pass(window + 1)
			r.token = r.newToken()
			r.want("later", r.graph("POST", user("sendMail"), two), 202, "")
		})
	}
}

func TestWhatIsRefusedCountsAllTheSame(t *testing.T) {
	r := newRig(t, Options{Limits: &Limits{Requests: Limit{3, 10 * time.Minute}}})
	send := func() reply { return r.graph("POST", user("sendMail"), mailOf(message("x"))) }
	for range 3 {
		r.want("within", send(), 202, "")
	}
	r.clock.pass(5 * time.Minute)
	for range 3 {
		r.want("beyond", send(), 429, "TooManyRequests")
	}
	r.clock.pass(5*time.Minute + 1)
	r.want("the refused ones are still there", send(), 429, "TooManyRequests")
	r.clock.pass(5 * time.Minute)
	r.want("three are gone", send(), 202, "")
}

func TestLimitsAreThoseOfAnAppAndAMailboxOrOfAMailbox(t *testing.T) {
	other := App{ClientID: "97e0a5b7-d745-40b6-94fe-5f77d35c6e05", Secrets: []ClientSecret{{Value: "other"}}}
	r := newRig(t, Options{Apps: []App{DefaultApp(), other}, Mailboxes: []Mailbox{{Address: sender}, {Address: "b@example.com"}, {Address: "c@example.com", Limits: &Limits{}}},
		Limits: &Limits{Requests: Limit{2, time.Minute}, Messages: Limit{3, time.Minute}}})
	form := r.credentials()
	form.Set("client_id", other.ClientID)
	form.Set("client_secret", "other")
	first, second := r.token, r.ask(form).field("access_token")
	for i, test := range []struct {
		token, mailbox string
		status         int
		limit          string
	}{
		{first, sender, 202, ""}, {first, sender, 202, ""}, {first, sender, 429, "requests"},
		{second, sender, 202, ""}, {second, sender, 429, "messages"},
		{first, "b@example.com", 202, ""}, {first, "B@example.com", 202, ""}, {first, "b@example.com", 429, "requests"},
		{first, "c@example.com", 202, ""}, {first, "c@example.com", 202, ""}, {first, "c@example.com", 202, ""},
	} {
		r.token = test.token
		p := r.graph("POST", "users/"+test.mailbox+"/sendMail", mailOf(message("x")))
		all := r.Requests()
		if last := all[len(all)-1]; p.status != test.status || last.Limit != test.limit {
			t.Errorf("%d: got %d by %q, want %d by %q", i, p.status, last.Limit, test.status, test.limit)
		}
	}
}

func TestConcurrencyIsCountedFromArrivalToReply(t *testing.T) {
	r := newRig(t, Options{Limits: &Limits{Concurrency: 4}})
	// Four requests are held up while more come.
	r.Provoke(Mishap{Times: 4, At: Received, Delay: time.Hour})
	var held sync.WaitGroup
	for range 4 {
		held.Go(func() { r.graph("POST", user("sendMail"), mailOf(message("held"))) })
	}
	wait(t, "four requests are under way", func() bool { return r.Usage(sender).MostConcurrent == 4 && marked(r) == 4 })
	for range 2 {
		p := r.graph("POST", user("sendMail"), mailOf(message("more")))
		r.want("the fifth", p, 429, "ApplicationThrottled")
		if p.header.Get("Retry-After") != "1" {
			t.Errorf("%v", p.header)
		}
	}
	if u := r.Usage(sender); u.MostConcurrent != 5 || u.Refused != 2 {
		t.Errorf("%+v", u)
	}
	_ = r.Close()
	held.Wait()
}

// marked is how many requests have met a mishap.
func marked(r *rig) int {
	n := 0
	for _, q := range r.Requests() {
		if q.Mishap {
			n++
		}
	}
	return n
}

// wait polls until it is so.
func wait(t *testing.T, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(30 * time.Second)
	for !so() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

func TestAClientWithFourAtOnceIsNeverRefused(t *testing.T) {
	r := newRig(t, Options{Limits: &Limits{Concurrency: 4}, Latency: time.Millisecond, Seed: 1})
	var clients sync.WaitGroup
	for i := range 4 {
		clients.Go(func() {
			for j := range 25 {
				r.want("send", r.graph("POST", user("sendMail"), mailOf(message(fmt.Sprint(i, j)))), 202, "")
			}
		})
	}
	clients.Wait()
	if err := r.Obeyed(); err != nil || r.Usage(sender).MostConcurrent > 4 || r.Received() != 100 {
		t.Errorf("%v, %+v", err, r.Usage(sender))
	}
}

func TestARequestIsCountedBetweenArrivalAndReply(t *testing.T) {
	r := newRig(t, Options{Limits: &Limits{}, Latency: 3 * time.Millisecond, Seed: 7, Now: time.Now})
	var early, late bool
	for range 20 {
		r.want("send", r.graph("POST", user("sendMail"), mailOf(message("x"))), 202, "")
	}
	for _, q := range r.Requests() {
		if q.Operation == GetToken {
			continue
		}
		if q.Counted.Before(q.Arrived) || q.Counted.After(q.Replied) {
			t.Errorf("%+v", q)
		}
		before, after := q.Counted.Sub(q.Arrived), q.Replied.Sub(q.Counted)
		early, late = early || before < after, late || before > after
	}
	if !early || !late {
		t.Error("they are all counted early, or all late")
	}
	if err := newRig(t, Options{}).Obeyed(); err == nil {
		t.Error("nothing was sent, and that counts as a proof")
	}
}
