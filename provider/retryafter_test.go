package provider

import (
	"net/http"
	"testing"
	"time"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"":                               0,
		"60":                             time.Minute,
		" 5 ":                            5 * time.Second,
		"2.128":                          2128 * time.Millisecond,
		"0":                              0,
		"-3":                             0,
		"NaN":                            0,
		"Inf":                            7 * 24 * time.Hour,
		"1e300":                          7 * 24 * time.Hour,
		"soon":                           0,
		"Sun, 22 Nov 2026 10:01:30 GMT":  90 * time.Second,
		"Sun, 22 Nov 2026 09:00:00 GMT":  0,
		"Sunday, 22-Nov-26 10:00:07 GMT": 7 * time.Second,
	} {
		h := http.Header{}
		if text != "" {
			h.Set("Retry-After", text)
		}
		if got := RetryAfter(h, now); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
