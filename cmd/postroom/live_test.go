package main

import (
	"net/http"
	"testing"
)

func TestLiveNeedsNoToken(t *testing.T) {
	startAPI(t, nil)
	t.Setenv("POSTROOM_TOKEN", "")
	postroom(t, "", "live").want(t, 0, "It runs.")
	postroom(t, "", "live", "--url", "ftp://x").want(t, exitUsage, "--url")
}

func TestLiveTellsWhatDoesNotRun(t *testing.T) {
	startFake(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/livez" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	postroom(t, "", "live").want(t, exitTryAgain, "answers 503")
	postroom(t, "", "live", "--url", "http://127.0.0.1:1").want(t, exitTryAgain, "Is the URL right")
}
