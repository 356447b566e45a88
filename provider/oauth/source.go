package oauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/postroom/postroom/provider"
)

// When a token is renewed, and until when it is used. Tokens of Microsoft's last 60 to 90 minutes.
const (
	// earliest is how long before its end a token is renewed, so that an outage of a few minutes goes unnoticed; of a token that
	// lasts less than 50 minutes it is a tenth of its life.
	earliest = 5 * time.Minute
	// margin is how long before its end a token is no longer given out, as it has a way to go; at most half of the former.
	margin = 10 * time.Second
	// shortLife is for tokens of which nobody said how long they last.
	shortLife = 5 * time.Minute
)

// fetchTimeout bounds one renewal.
const fetchTimeout = 30 * time.Second

var errClosed = errors.New("the source is closed")

// Source has the access token of one app, and renews it in time. It is safe for concurrent use.
//
// All that is secret is behind pointers and functions: printing what holds a Source shows none of it.
type Source struct {
	fetch fetch
	log   *slog.Logger
	life  context.Context // ends with Close
	end   context.CancelFunc

	mu       sync.Mutex
	held     *held
	renewal  *renewal // under way; nil if none is
	rejected *string  // the last one that Reject took away
	failed   failure
}

var (
	_ provider.Tokens  = (*Source)(nil)
	_ provider.Granter = (*Source)(nil)
)

// fetch gets a token. It gives up when ctx ends. It is safe for concurrent use.
type fetch func(ctx context.Context) (*grant, *Fault)

// grant is what a token endpoint gave us.
type grant struct {
	token   string
	from    string        // host
	asked   time.Time     // when the request went out, from which the life is counted
	expires time.Duration // 0: nobody said
}

// held is a token with its times.
type held struct {
	token string
	renew time.Time // from then on there should be another
	until time.Time // from then on it is not used
}

func (g *grant) hold() *held {
	life := g.expires
	if life == 0 {
		life = shortLife
	}
	lead := min(earliest, life/10)
	end := g.asked.Add(life)
	return &held{token: g.token, renew: end.Add(-lead), until: end.Add(-min(margin, lead/2))}
}

func (h *held) good(now time.Time) bool  { return h != nil && now.Before(h.until) }
func (h *held) fresh(now time.Time) bool { return h != nil && now.Before(h.renew) }

// renewal is one request that all who need a token wait for. Its result is set when done is closed.
type renewal struct {
	done  chan struct{}
	token string
	err   error
}

// newSource makes a source that gets its tokens from f.
func newSource(f fetch, log *slog.Logger) *Source {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Source{fetch: f, log: log}
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// Token gives a token that can be used now: a secret. It is the one in hand as long as that lasts, although another may be on its way
// already; else Token waits, with all others who need one, for the same request. The request goes on if ctx ends.
//
// The error is a *Fault if the login service is why there is none, or if it was a moment ago. Else it is a
// provider.ErrInterrupted: ctx ended, or the source is closed.
func (s *Source) Token(ctx context.Context) (string, error) {
	s.mu.Lock()
	now := time.Now()
	if s.life.Err() != nil {
		s.mu.Unlock()
		return "", interrupted(errClosed)
	}
	if !s.held.fresh(now) && s.renewal == nil && !s.failed.silent(now) {
		s.renewal = &renewal{done: make(chan struct{})}
		go s.renew(s.renewal)
	}
	held, r, failed := s.held, s.renewal, s.failed
	s.mu.Unlock()

	switch {
	case held.good(now):
		return held.token, nil
	case r == nil:
		return "", failed.fault(now)
	}
	select {
	case <-r.done:
		return r.token, r.err
	case <-ctx.Done():
		return "", interrupted(ctx.Err())
	}
}

// Grant implements provider.Granter. It asks at once, also within the silence after a failure, and logs nothing.
func (s *Source) Grant(ctx context.Context) (provider.Granted, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	got, fault := s.fetch(ctx)
	switch {
	case s.life.Err() != nil:
		return provider.Granted{}, interrupted(errClosed)
	case fault != nil:
		return provider.Granted{}, fault
	}
	g := provider.Granted{Token: provider.Secret(got.token), From: got.from}
	if got.expires > 0 {
		g.Expires = got.asked.Add(got.expires)
	}
	return g, nil
}

// Reject says that whoever the token is for refused it. The next Token gives another, once: if the login service gives out the same
// again, it is given out as long as it lasts.
func (s *Source) Reject(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil || s.held.token != token || s.rejected != nil && *s.rejected == token {
		return
	}
	s.held, s.rejected = nil, &token
}

// Close ends a request under way and waits for that. There are no tokens any more.
func (s *Source) Close() {
	s.end()
	s.mu.Lock()
	r := s.renewal
	s.mu.Unlock()
	if r != nil {
		<-r.done
	}
}

// Format shows that there is a source, whatever the verb: fmt would look behind the pointers for a wrong one.
func (s *Source) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "oauth.Source") }

// renew gets a token for r. It runs once at a time, and no longer than fetchTimeout; Close waits for it.
func (s *Source) renew(r *renewal) {
	got, fault := s.request()

	defer close(r.done)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renewal = nil
	now := time.Now()
	switch {
	case s.life.Err() != nil:
		r.err = interrupted(errClosed)
	case fault != nil:
		o := fault.outcome
		r.err = fault
		s.failed = s.failed.again(fault, now)
		s.log.Warn("oauth: no token", "class", o.Class.String(), "cause", o.Cause, "code", o.Code, "error", o.Enhanced,
			"in_a_row", s.failed.times, "usable_still", s.held.good(now))
	default:
		s.held, s.failed = got.hold(), failure{}
		r.token = got.token
	}
}

// request cuts what takes too long, or is not wanted any more.
func (s *Source) request() (*grant, *Fault) {
	ctx, cancel := context.WithTimeout(s.life, fetchTimeout)
	defer cancel()
	return s.fetch(ctx)
}

// interrupted is an error that is not about the login service.
func interrupted(why error) error {
	return fmt.Errorf("oauth: waiting for a token: %w: %w", provider.ErrInterrupted, why)
}

// Silence after a failure: half of how long worker/decide.go holds mail that nothing can be sent of, so that its next try is one;
// and in between fifty workers do not all ask.
const (
	firstSilence   = 500 * time.Millisecond
	longestSilence = 16 * time.Second
	// longestAsked bounds what the login service can ask for. The outcome has the whole of it, and holds mail for as long.
	longestAsked = 15 * time.Minute
)

// failure is what came of the last renewal, if it was none. The zero value says that it went well.
type failure struct {
	times int // in a row
	last  *Fault
	at    time.Time
	until time.Time // nobody is asked before
}

func (f failure) again(fault *Fault, now time.Time) failure {
	wait := firstSilence << min(f.times, 10)
	wait = max(min(wait, longestSilence), min(fault.outcome.RetryAfter, longestAsked))
	return failure{times: f.times + 1, last: fault, at: now, until: now.Add(wait)}
}

func (f failure) silent(now time.Time) bool { return now.Before(f.until) }

// fault gives the failure once more, with what is left of the time that was asked for.
func (f failure) fault(now time.Time) *Fault {
	o := f.last.outcome
	o.RetryAfter = max(0, o.RetryAfter-now.Sub(f.at))
	return &Fault{o}
}
