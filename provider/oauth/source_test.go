package oauth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// issuer is a login service in a bubble: it numbers its tokens.
type issuer struct {
	mu      sync.Mutex
	asked   []time.Time
	life    time.Duration
	fault   *Fault        // instead of a token
	same    string        // instead of a number
	takes   time.Duration // to answer
	cut     bool          // the last request's context ended before it was answered
	hanging bool          // never answers
}

func (i *issuer) fetch(ctx context.Context) (*grant, *Fault) {
	i.mu.Lock()
	i.asked = append(i.asked, time.Now())
	n, takes := len(i.asked), i.takes
	if i.hanging {
		takes = 1000 * time.Hour
	}
	g := &grant{token: strconv.Itoa(n), asked: time.Now(), expires: i.life}
	i.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		i.mu.Lock()
		i.cut = true
		i.mu.Unlock()
		return nil, unreachable(ctx.Err())
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.fault != nil {
		return nil, i.fault
	}
	if i.same != "" {
		g.token = i.same
	}
	return g, nil
}

func (i *issuer) set(change func(*issuer)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change(i)
}

func (i *issuer) times() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.asked)
}

// start makes a source of i's tokens. To be called in a bubble, where time costs nothing.
func start(t *testing.T, i *issuer) *Source {
	t.Helper()
	s := newSource(i.fetch, nil)
	t.Cleanup(s.Close)
	return s
}

func wantToken(t *testing.T, s *Source, want string) {
	t.Helper()
	got, err := s.Token(t.Context())
	if got != want || err != nil {
		t.Fatalf("got %q, %v; want %q", got, err, want)
	}
}

func wantFault(t *testing.T, s *Source) mail.Outcome {
	t.Helper()
	got, err := s.Token(t.Context())
	var f *Fault
	if !errors.As(err, &f) || got != "" {
		t.Fatalf("got %q, %v; want a fault", got, err)
	}
	return f.Outcome()
}

var (
	refused = &Fault{mail.Outcome{Class: mail.Configuration, Scope: mail.ScopeProvider, Step: step, Cause: mail.SecretExpired}}
	away    = &Fault{mail.Outcome{Class: mail.Temporary, Scope: mail.ScopeProvider, Step: step, Cause: mail.TokenUnavailable}}
)

func TestWhenATokenIsRenewedAndNoLongerUsed(t *testing.T) {
	asked := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for _, v := range []struct{ life, renew, until time.Duration }{
		{90 * time.Minute, 85 * time.Minute, 90*time.Minute - 10*time.Second},
		{time.Hour, 55 * time.Minute, time.Hour - 10*time.Second},
		{50 * time.Minute, 45 * time.Minute, 50*time.Minute - 10*time.Second},
		{10 * time.Minute, 9 * time.Minute, 10*time.Minute - 10*time.Second},
		{100 * time.Second, 90 * time.Second, 95 * time.Second},
		{time.Second, 900 * time.Millisecond, 950 * time.Millisecond},
		{0, 4*time.Minute + 30*time.Second, 5*time.Minute - 10*time.Second}, // nobody said
	} {
		h := (&grant{asked: asked, expires: v.life}).hold()
		if h.renew.Sub(asked) != v.renew || h.until.Sub(asked) != v.until {
			t.Errorf("%v: renewed after %v, used until %v; want %v and %v", v.life, h.renew.Sub(asked), h.until.Sub(asked), v.renew, v.until)
		}
	}
}

func TestATokenIsRenewedWhileTheOldOneIsUsed(t *testing.T) {
	i := &issuer{life: time.Hour, takes: time.Second}
	synctest.Test(t, func(t *testing.T) {
		s := start(t, i)
		wantToken(t, s, "1") // asked for at 0 s, here at 1 s
		time.Sleep(55*time.Minute - time.Second - 1)
		wantToken(t, s, "1")
		if i.times() != 1 {
			t.Fatal("renewed too early")
		}
		time.Sleep(time.Nanosecond)
		began := time.Now()
		wantToken(t, s, "1")
		if time.Since(began) != 0 {
			t.Error("somebody waited for the new token although the old one is good")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		wantToken(t, s, "2")
		if i.times() != 2 {
			t.Errorf("%d requests, want 2", i.times())
		}
	})
}

func TestATokenIsNotUsedWhenItsTimeIsOver(t *testing.T) {
	i := &issuer{life: time.Hour}
	synctest.Test(t, func(t *testing.T) {
		s := start(t, i)
		wantToken(t, s, "1")
		time.Sleep(time.Hour - 10*time.Second)
		wantToken(t, s, "2")
	})
}

func TestAHundredWaitForOneRequest(t *testing.T) {
	i := &issuer{life: time.Hour, takes: time.Second}
	synctest.Test(t, func(t *testing.T) {
		s := start(t, i)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if got, err := s.Token(t.Context()); got != "1" || err != nil {
					t.Errorf("got %q, %v", got, err)
				}
			})
		}
		wg.Wait()
		if i.times() != 1 {
			t.Errorf("%d requests", i.times())
		}
	})
}

func TestWhoeverCannotWaitLeavesAndTheRequestGoesOn(t *testing.T) {
	i := &issuer{life: time.Hour, takes: 10 * time.Second}
	synctest.Test(t, func(t *testing.T) {
		s := start(t, i)
		first, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := s.Token(first)
		if !errors.Is(err, provider.ErrInterrupted) || !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		wantToken(t, s, "1")
		if i.cut || time.Since(began) != 10*time.Second {
			t.Errorf("the first caller took the request along: %v", time.Since(began))
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if got, err := s.Token(gone); got != "1" || err != nil {
			t.Errorf("a token in hand needs no waiting: %q, %v", got, err)
		}
	})
}

func TestTheOldTokenServesWhileNoneCanBeHad(t *testing.T) {
	i := &issuer{life: time.Hour}
	synctest.Test(t, func(t *testing.T) {
		s := start(t, i)
		wantToken(t, s, "1")
		i.set(func(i *issuer) { i.fault = away })
		time.Sleep(55 * time.Minute)
		for range 5*60 - 10 {
			wantToken(t, s, "1")
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if n := i.times(); n < 15 || n > 30 {
			t.Errorf("%d requests in five minutes", n)
		}
		wantFault(t, s)
		i.set(func(i *issuer) { i.fault = nil })
		time.Sleep(longestSilence)
		if _, err := s.Token(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestFiftyWorkersDoNotHammerALoginServiceThatRefuses(t *testing.T) {
	i := &issuer{fault: refused}
	synctest.Test(t, func(t *testing.T) {
		s := start(t, i)
		began := time.Now()
		for time.Since(began) < 50*time.Second {
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					if _, err := s.Token(t.Context()); err == nil || err.Error() != refused.Error() {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			time.Sleep(100 * time.Millisecond)
		}
		var at []string
		for _, when := range i.asked {
			at = append(at, when.Sub(began).String())
		}
		if got, want := fmt.Sprint(at), "[0s 500ms 1.5s 3.5s 7.5s 15.5s 31.5s 47.5s]"; got != want {
			t.Errorf("requests at %s, want %s", got, want)
		}
		i.set(func(i *issuer) { i.fault = nil })
		time.Sleep(longestSilence)
		wantToken(t, s, "9")
		s.Reject("9")
		i.set(func(i *issuer) { i.fault = refused })
		wantFault(t, s)
		time.Sleep(firstSilence)
		wantFault(t, s)
		if i.times() != 11 {
			t.Errorf("%d requests: success does not end the row of failures", i.times())
		}
	})
}

func TestSilenceThatWasAskedForIsKept(t *testing.T) {
	for asked, kept := range map[time.Duration]time.Duration{
		time.Minute:            time.Minute,
		100 * time.Millisecond: firstSilence,
		24 * time.Hour:         longestAsked,
	} {
		t.Run(asked.String(), func(t *testing.T) {
			fault := &Fault{away.outcome}
			fault.outcome.RetryAfter = asked
			i := &issuer{fault: fault}
			synctest.Test(t, func(t *testing.T) {
				s := start(t, i)
				if o := wantFault(t, s); o.RetryAfter != asked {
					t.Errorf("the outcome says %v", o.RetryAfter)
				}
				time.Sleep(kept - 1)
				if o := wantFault(t, s); o.RetryAfter != max(0, asked-(kept-1)) {
					t.Errorf("what is left is %v", o.RetryAfter)
				}
				if i.times() != 1 {
					t.Error("asked again too early")
				}
				time.Sleep(time.Nanosecond)
				wantFault(t, s)
				if i.times() != 2 {
					t.Error("not asked again")
				}
			})
		})
	}
}

func TestARejectedTokenIsReplacedOnce(t *testing.T) {
	i := &issuer{life: time.Hour, takes: time.Second}
	synctest.Test(t, func(t *testing.T) {
		s := start(t, i)
		wantToken(t, s, "1")
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				s.Reject("1")
				if got, err := s.Token(t.Context()); got != "2" || err != nil {
					t.Errorf("got %q, %v", got, err)
				}
				s.Reject("1") // by whoever had the old one, and is late
			})
		}
		wg.Wait()
		wantToken(t, s, "2")
		if i.times() != 2 {
			t.Errorf("%d requests, want 2", i.times())
		}
		s.Reject("")
		s.Reject("of another source")
		wantToken(t, s, "2")
	})
}

func TestATokenThatIsGivenOutAgainAfterARejectionIsKept(t *testing.T) {
	i := &issuer{life: time.Hour, same: "same"}
	synctest.Test(t, func(t *testing.T) {
		s := start(t, i)
		for range 10 {
			wantToken(t, s, "same")
			s.Reject("same")
		}
		wantToken(t, s, "same")
		if i.times() != 2 {
			t.Errorf("%d requests, want 2", i.times())
		}
	})
}

func TestARequestWithoutAnAnswerEnds(t *testing.T) {
	i := &issuer{hanging: true}
	synctest.Test(t, func(t *testing.T) {
		s := start(t, i)
		began := time.Now()
		o := wantFault(t, s)
		if time.Since(began) != fetchTimeout || o.Class != mail.Temporary || o.Scope != mail.ScopeProvider || o.Reply != "timed out" {
			t.Errorf("after %v: %+v", time.Since(began), o)
		}
	})
}

func TestWhoRunsPostroomIsToldOfEachFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		i := &issuer{life: time.Hour}
		s := newSource(i.fetch, slog.New(slog.NewTextHandler(&log, nil)))
		t.Cleanup(s.Close)
		wantToken(t, s, "1")
		if log.Len() > 0 {
			t.Error(log.String())
		}
		i.set(func(i *issuer) { i.fault = refused })
		time.Sleep(55 * time.Minute)
		wantToken(t, s, "1")
		synctest.Wait()
		for _, part := range []string{"level=WARN", "class=configuration", "cause=secret_expired", "in_a_row=1", "usable_still=true"} {
			if !strings.Contains(log.String(), part) {
				t.Errorf("no %s in %s", part, log.String())
			}
		}
	})
}

func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	i := &issuer{hanging: true}
	synctest.Test(t, func(t *testing.T) {
		s := start(t, i)
		began := time.Now()
		waiting := make(chan error)
		go func() {
			_, err := s.Token(t.Context())
			waiting <- err
		}()
		synctest.Wait()
		s.Close()
		if err := <-waiting; !errors.Is(err, provider.ErrInterrupted) {
			t.Error(err)
		}
		if _, err := s.Token(t.Context()); !errors.Is(err, provider.ErrInterrupted) {
			t.Error(err)
		}
		s.Close()
		if time.Since(began) != 0 || i.times() != 1 {
			t.Errorf("after %v, %d requests", time.Since(began), i.times())
		}
	})
}
