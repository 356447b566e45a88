package queue

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/postroom/postroom/mail"
)

// linePatience is how long an attempt waits in its line before it is handed back: it must not wait behind a slow message
// while other units have their hands free.
const linePatience = 200 * time.Millisecond

// startedPatience is how long one waits of which something has been sent already, which would be lost.
const startedPatience = 5 * time.Second

// What Attempt.Await gives if the attempt is to be handed back.
var (
	// ErrLineBusy: the unit's other message takes its time.
	ErrLineBusy = errors.New("queue: the unit's line is busy")
	// ErrSettingsChanged: other settings of the provider have become active.
	ErrSettingsChanged = errors.New("queue: other settings of the provider have become active")
	// ErrLineRefused: the unit's other message met a refusal that this one would meet too.
	ErrLineRefused = errors.New("queue: the unit's other message was refused")
)

// handLine is where the hands of a unit stand one behind another: the first of them is with the provider.
type handLine struct {
	mu      sync.Mutex
	places  []*linePlace
	refused time.Time // when a refusal was last met that holds mail
}

// linePlace is where one attempt stands.
type linePlace struct {
	first   chan struct{} // closed when nobody is ahead any more
	offered any
	seen    bool // what it offered was given to the one ahead, which may have sent something of it
	alert   bool
}

// Await waits until no other attempt of the same unit is with the provider. Call it before anything is sent, and Leave when
// the outcome is known. started, if it is not nil, says whether the attempt ahead has sent something for this one: then it waits
// longer. On an error (ErrLineBusy, ErrLineRefused, ErrSettingsChanged, or that of ctx) nothing more may be sent: the attempt is to be
// handed back.
func (a *Attempt) Await(ctx context.Context, started func() bool) error {
	if a.turn == nil {
		return nil // the zero Attempt has the line to itself
	}
	p := a.stand()
	select {
	case <-p.first:
	default:
		if err := a.wait(ctx, p, started); err != nil {
			a.Leave(nil)
			return err
		}
	}
	if a.turn.line.refusedSince(a.begun) {
		a.Leave(nil)
		a.passed = true
		return ErrLineRefused
	}
	return nil
}

// wait returns when p is the first place.
func (a *Attempt) wait(ctx context.Context, p *linePlace, started func() bool) error {
	begun := time.Now()
	patience := time.NewTimer(linePatience)
	defer patience.Stop()
	for {
		select {
		case <-p.first:
			return nil
		case <-ctx.Done():
			if a.turn.consumer.stopping.Err() == nil && a.Context().Err() != nil {
				a.passed = true
				return ErrSettingsChanged
			}
			return ctx.Err()
		case <-patience.C:
			if started != nil && started() && time.Since(begun) < startedPatience {
				patience.Reset(linePatience)
				continue
			}
			a.turn.ends, a.passed = time.Time{}, true // the others go on without this hand
			return ErrLineBusy
		}
	}
}

// Offer leaves something for the attempt ahead in the line, which finds it by Behind, such as what it may send for this one before
// it is through itself.
func (a *Attempt) Offer(v any) {
	if a.turn == nil {
		return
	}
	p, l := a.stand(), a.turn.line
	l.mu.Lock()
	defer l.mu.Unlock()
	p.offered = v
}

// Behind gives what the next attempt in the line has left by Offer; nil if there is none, or nothing.
func (a *Attempt) Behind() any {
	if a.turn == nil {
		return nil
	}
	l := a.turn.line
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.places, a.place)
	if i < 0 || i+1 == len(l.places) {
		return nil
	}
	next := l.places[i+1]
	next.seen = next.offered != nil
	return next.offered
}

// Leave makes room for the next in the line, if the attempt stands there: after a Settlement whose Hold is set those behind it are
// not tried.
func (a *Attempt) Leave(s *Settlement) {
	if a.place == nil {
		return
	}
	l := a.turn.line
	l.mu.Lock()
	defer l.mu.Unlock()
	if s != nil && s.Hold > 0 {
		l.refused = time.Now()
	}
	i := slices.Index(l.places, a.place)
	l.places = slices.Delete(l.places, i, i+1)
	if i == 0 && len(l.places) > 0 {
		close(l.places[0].first)
	}
	a.place = nil
}

// stand gives the attempt's place in the line. If it had none it is the last; but alerts stand before all others of which nothing can have
// been sent.
func (a *Attempt) stand() *linePlace {
	if a.place != nil {
		return a.place
	}
	l := a.turn.line
	a.place = &linePlace{first: make(chan struct{}), alert: a.Kind == mail.Alert}
	l.mu.Lock()
	defer l.mu.Unlock()
	at := len(l.places)
	if a.place.alert {
		for at > 1 && !l.places[at-1].alert && !l.places[at-1].seen {
			at--
		}
	}
	l.places = slices.Insert(l.places, at, a.place)
	if len(l.places) == 1 {
		close(a.place.first)
	}
	return a.place
}

func (l *handLine) refusedSince(t time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused.After(t)
}
