package queue

import (
	"context"
	"errors"
	"sync"
	"time"
)

// linePatience is how long an attempt waits for its line before it is handed back: it must not wait behind a slow message
// while other units have their hands free.
const linePatience = 200 * time.Millisecond

// What Attempt.Line gives if the attempt is to be handed back.
var (
	// ErrLineBusy: the unit's other message takes its time.
	ErrLineBusy = errors.New("queue: the unit's line is busy")
	// ErrSettingsChanged: other settings of the provider have become active.
	ErrSettingsChanged = errors.New("queue: other settings of the provider have become active")
	// ErrLineRefused: the unit's other message met a refusal that this one would meet too.
	ErrLineRefused = errors.New("queue: the unit's other message was refused")
)

// handLine is what the hands of a unit take turns on: one of them at a time is with the provider.
type handLine struct {
	busy chan struct{} // filled while one is

	mu      sync.Mutex
	refused time.Time // when a refusal was last met that holds mail
}

func newHandLine() *handLine { return &handLine{busy: make(chan struct{}, 1)} }

// Line waits until no other attempt of the same unit is with the provider. Call it before anything is sent, and leave when
// the outcome is known: with a Settlement whose Hold is set the attempts that wait behind it are not tried. On an error (ErrLineBusy,
// ErrLineRefused, ErrSettingsChanged, or that of ctx) nothing may be sent: the attempt is to be handed back.
func (a *Attempt) Line(ctx context.Context) (leave func(*Settlement), err error) {
	if a.turn == nil {
		return func(*Settlement) {}, nil // the zero Attempt has the line to itself
	}
	if a.onLine {
		return a.leaveLine, nil
	}
	patience := time.NewTimer(linePatience)
	defer patience.Stop()
	select {
	case a.turn.line.busy <- struct{}{}:
		a.onLine = true
		if a.turn.line.refusedSince(a.begun) {
			a.leaveLine(nil)
			a.passed = true
			return nil, ErrLineRefused
		}
		return a.leaveLine, nil
	case <-ctx.Done():
		if a.turn.consumer.stopping.Err() == nil && a.Context().Err() != nil {
			a.passed = true
			return nil, ErrSettingsChanged
		}
		return nil, ctx.Err()
	case <-patience.C:
		a.turn.ends, a.passed = time.Time{}, true // the others go on without this hand
		return nil, ErrLineBusy
	}
}

func (l *handLine) refusedSince(t time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused.After(t)
}

func (a *Attempt) leaveLine(s *Settlement) {
	if !a.onLine {
		return
	}
	a.onLine = false
	if l := a.turn.line; s != nil && s.Hold > 0 {
		l.mu.Lock()
		l.refused = time.Now()
		l.mu.Unlock()
	}
	<-a.turn.line.busy
}
