package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/admin"
)

func TestWithRetries(t *testing.T) {
	busy, asks := &admin.Problem{Status: 503}, &admin.Problem{Status: 429, RetryAfter: 10 * time.Second}
	greedy, fatal := &admin.Problem{Status: 503, RetryAfter: time.Hour}, &admin.Problem{Status: 422}
	delays := []time.Duration{time.Second, 3 * time.Second}
	for name, test := range map[string]struct {
		answers []error
		want    error
		tries   int
		waited  time.Duration
	}{
		"at once":             {[]error{nil}, nil, 1, 0},
		"the second time":     {[]error{busy, nil}, nil, 2, time.Second},
		"never":               {[]error{busy, busy, busy}, busy, 3, 4 * time.Second},
		"for good":            {[]error{fatal}, fatal, 1, 0},
		"as long as asked":    {[]error{asks, nil}, nil, 2, 10 * time.Second},
		"not longer than ...": {[]error{greedy, nil}, nil, 2, longestWait},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun, tries := time.Now(), 0
				err := withRetries(t.Context(), delays, func() error {
					tries++
					return test.answers[tries-1]
				})
				if !errors.Is(err, test.want) || tries != test.tries || time.Since(begun) != test.waited {
					t.Errorf("got %v after %d tries and %s", err, tries, time.Since(begun))
				}
			})
		})
	}
}

func TestInterruptEndsThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		err := withRetries(ctx, patience(), func() error { return &admin.Problem{Status: 503, RetryAfter: longestWait} })
		if exitCode(err) != exitInterrupted {
			t.Errorf("got %v", err)
		}
	})
}
