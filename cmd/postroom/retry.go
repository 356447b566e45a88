package main

import (
	"context"
	"errors"
	"time"

	"github.com/postroom/postroom/admin"
)

// patience gives the waits between tries once a server has answered: half a minute in all.
func patience() []time.Duration {
	const s = time.Second
	return []time.Duration{s / 2, s, 2 * s, 4 * s, 8 * s, 15 * s}
}

// longestWait bounds what a server can ask for between two tries.
const longestWait = time.Minute

// withRetries does f until it succeeds, it fails for good, or the delays are used up. A server that asks for more time
// gets it, up to longestWait.
func withRetries(ctx context.Context, delays []time.Duration, f func() error) error {
	for _, delay := range delays {
		err := f()
		if err == nil || !temporary(err) {
			return err
		}
		var p *admin.Problem
		if errors.As(err, &p) {
			delay = max(delay, min(p.RetryAfter, longestWait))
		}
		if err := pause(ctx, delay); err != nil {
			return err
		}
	}
	return f()
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
