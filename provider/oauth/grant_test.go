package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/provider"
)

func TestGrantAsksWhateverIsInHandAndKeepsNothing(t *testing.T) {
	i := &issuer{life: time.Hour, takes: time.Second}
	synctest.Test(t, func(t *testing.T) {
		s := start(t, i)
		wantToken(t, s, "1")
		asked := time.Now()
		g, err := s.Grant(t.Context())
		if err != nil || g.Token.Reveal() != "2" || !g.Expires.Equal(asked.Add(time.Hour)) {
			t.Errorf("%v %v", g, err)
		}
		wantToken(t, s, "1")

		// What fails is told to whoever asked, and to nobody else.
		i.set(func(i *issuer) { i.fault = refused })
		var f *Fault
		for range 2 { // no silence
			if _, err := s.Grant(t.Context()); !errors.As(err, &f) || f.Outcome() != refused.Outcome() {
				t.Errorf("%v", err)
			}
		}
		wantToken(t, s, "1")
		if n := i.times(); n != 4 {
			t.Errorf("asked %d times, want 4", n)
		}
	})
}

func TestGrantEndsWithItsContextAndWithTheSource(t *testing.T) {
	i := &issuer{hanging: true}
	synctest.Test(t, func(t *testing.T) {
		s := start(t, i)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var f *Fault
		if _, err := s.Grant(ctx); !errors.As(err, &f) || f.Outcome().Reply != "timed out" || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if _, err := s.Grant(t.Context()); !errors.As(err, &f) || time.Since(began) != time.Second+fetchTimeout {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		time.AfterFunc(time.Second, s.Close)
		began = time.Now()
		if _, err := s.Grant(t.Context()); !errors.Is(err, provider.ErrInterrupted) || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestGrantIsSeenByATrace(t *testing.T) {
	l := newLogin(t, nil)
	s := microsoft365(t, app(l.URL), Options{})
	connected := ""
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{ConnectDone: func(_, address string, _ error) { connected = address }})
	g, err := s.Grant(ctx)
	host := strings.TrimPrefix(l.URL, "http://")
	if err != nil || connected != host || g.From != host {
		t.Errorf("%v %v, connected to %q, want %q", g, err, connected, host)
	}
	if told := fmt.Sprintf("%v %+v %#v", g, g, g); strings.Contains(told, g.Token.Reveal()) {
		t.Errorf("it shows the token: %s", told)
	}
}

// Several may find out at once how a server wants the secret.
func TestGrantBesideToken(t *testing.T) {
	l := newLogin(t, nil)
	s := smtp(t, anyServer(l.URL), Options{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, err := s.Grant(t.Context()); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			if _, err := s.Token(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}
