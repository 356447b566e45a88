package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/throttle"
)

// Wait says what a message waits for.
type Wait string

// The waits.
const (
	// WaitsForTime: for send_at, or for a retry to be due.
	WaitsForTime Wait = "time"
	// WaitsForProvider: no provider is active.
	WaitsForProvider Wait = "provider"
	// WaitsForPause: somebody paused its mailbox, or everything.
	WaitsForPause Wait = "pause"
	// WaitsForHold: the provider refused mail, or can't be reached.
	WaitsForHold Wait = "hold"
	// WaitsForWorker: no worker can send.
	WaitsForWorker Wait = "no_worker"
	// WaitsForLimit: a limit is used up.
	WaitsForLimit Wait = "limit"
	// WaitsForTurn: other mail goes first.
	WaitsForTurn Wait = "turn"
)

// Outlook is what a message waits for, and roughly when it goes.
type Outlook struct {
	Wait Wait
	// Key is the limit key that binds it; "" if no provider is active.
	Key string
	// Silence is the hold or the pause (WaitsForHold, WaitsForPause), Limit the name of the limit (WaitsForLimit).
	Silence *Silence
	Limit   throttle.Name
	// Until is when it stops waiting for that; zero if nobody knows.
	Until time.Time
	// Workers are those that can send.
	Workers Workforce
	// Ahead estimates how many messages of the same key go first; of the last message of a batch, how many of others, and Own how many of
	// its own batch. Expected is roughly when it goes; zero if nobody knows.
	Ahead, Own int
	Expected   time.Time
	// ExpiresAt is when it expires; zero: never. TooLate says that it can't go before that, as far as anybody knows: then Expected is
	// zero.
	ExpiresAt time.Time
	TooLate   bool
}

// expires says when what waits expires, and whether that is before it can go.
func (o *Outlook) expires(at time.Time) *Outlook {
	if o == nil || at.IsZero() {
		return o
	}
	o.ExpiresAt = at
	if o.Until.After(at) || o.Expected.After(at) {
		o.TooLate, o.Expected = true, time.Time{}
	}
	return o
}

// mostSearched bounds how far back a message is looked for in its lane; beyond, its place is estimated.
const mostSearched = 10_000

// Outlook tells what a message waits for; nil if it does not wait.
func (q *Queue) Outlook(ctx context.Context, s *MessageStatus) (*Outlook, error) {
	switch {
	case s.State != Queued:
		return nil, nil
	case !s.Due.IsZero():
		return (&Outlook{Wait: WaitsForTime, Until: s.Due, Expected: s.Due}).expires(s.ExpiresAt), nil
	}
	o, err := q.outlook(ctx, s.ID)
	return o.expires(s.ExpiresAt), err
}

// BatchOutlook tells what the last message of a batch waits for; nil if none waits for its turn.
func (q *Queue) BatchOutlook(ctx context.Context, s *BatchStatus) (*Outlook, error) {
	if s.Open == 0 {
		return nil, nil
	}
	if s.SendAt.After(time.Now()) {
		return (&Outlook{Wait: WaitsForTime, Until: s.SendAt}).expires(s.ExpiresAt), nil
	}
	sender, err := q.redis.HGet(ctx, q.key("b:", s.ID), "sender").Result()
	if err != nil {
		return nil, fmt.Errorf("queue: outlook: %w", err)
	}
	lane := q.key("l:", letter(s.Kind), ":", sender, ":", s.ID)
	for _, list := range []string{lane + ":n", lane + ":d"} {
		last, err := q.redis.LIndex(ctx, list, -1).Result()
		if err == nil {
			id, _, _ := strings.Cut(last, ":")
			return q.batchOutlook(ctx, s, id)
		} else if !errors.Is(err, redis.Nil) {
			return nil, fmt.Errorf("queue: outlook: %w", err)
		}
	}
	return nil, nil
}

// batchOutlook is that of a batch whose last message waits for its turn.
func (q *Queue) batchOutlook(ctx context.Context, s *BatchStatus, last string) (*Outlook, error) {
	o, err := q.outlook(ctx, last)
	if err != nil {
		return nil, err
	}
	o.Ahead -= o.Own
	if s.ExpiresAt.After(time.Now()) { // what waits after that has been requeued
		o.expires(s.ExpiresAt)
	}
	return o, nil
}

// outlook is that of a message that waits for its turn.
func (q *Queue) outlook(ctx context.Context, id string) (*Outlook, error) {
	weights := q.options.Weights
	values, err := q.run(ctx, "ahead", id, weights[mail.Report], weights[mail.Subscription], indexOf(id), mostSearched).Slice()
	if err != nil {
		return nil, fmt.Errorf("queue: outlook: %w", err)
	}
	o := &Outlook{Wait: WaitsForProvider, Key: text(values[0])}
	if o.Key == "" {
		if active, err := q.redis.HExists(ctx, q.key("provider"), "version").Result(); err != nil || active {
			// It is just being chosen, or put back.
			return &Outlook{Wait: WaitsForTurn}, err
		}
		return o, nil
	}
	o.Ahead, o.Own = atoi(text(values[1])), atoi(text(values[2]))
	all, err := q.recentState(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range all.mailboxes {
		if m.Key == o.Key {
			all.outlook(o, m)
			return o, nil
		}
	}
	o.Wait = WaitsForTurn
	return o, nil
}

// recent is the state of all mailboxes as it was read last: many who ask after their messages share one look.
type recent struct {
	mu    sync.Mutex
	state *state
	read  time.Time
	lasts time.Duration // 1 s, but in tests
}

// forget has the next who asks look anew.
func (r *recent) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state = nil
}

func (q *Queue) recentState(ctx context.Context) (*state, error) {
	r := &q.recent
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state != nil && time.Since(r.read) < r.lasts {
		return r.state, nil
	}
	s, err := q.state(ctx, "", everyone)
	if err != nil {
		return nil, err
	}
	r.state, r.read = s, time.Now()
	return s, nil
}

// outlook completes o, of a message whose limit key is m's.
func (s *state) outlook(o *Outlook, m *Mailbox) {
	o.Workers = m.Workers
	if through, _ := s.forecast(m, o.Ahead+1); !through.IsZero() {
		o.Expected = through.Add(-m.flow.took) // when it goes, not when it has gone
	}
	switch until := m.silentUntil(); {
	case m.Pause != nil && m.Pause.Until.Equal(until):
		o.Wait, o.Silence, o.Until = WaitsForPause, m.Pause, until
	case m.Hold != nil:
		o.Wait, o.Silence, o.Until = WaitsForHold, m.Hold, until
	case !m.Workers.Able():
		o.Wait = WaitsForWorker
	default:
		o.Wait = WaitsForTurn
		for _, l := range m.Limits {
			if l.Used >= l.Max && (o.Limit == "" || l.Until.After(o.Until)) {
				o.Wait, o.Limit, o.Until = WaitsForLimit, l.Name, l.Until
			}
		}
	}
}

// indexOf gives the index of a batch's message in its batch, which is the end of its id.
func indexOf(id string) int {
	parsed, err := ulid.ParseStrict(id)
	if err != nil {
		return 0
	}
	return int(binary.BigEndian.Uint32(parsed[12:]))
}
