package main

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/config"
	"github.com/postroom/postroom/queue/queuetest"
)

// reaches waits until a level is what it is to be.
func reaches(t *testing.T, level *slog.LevelVar, want slog.Level) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); level.Level() != want; {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("the level is %v, want %v", level.Level(), want)
		}
	}
}

func TestTheLogLevelOfAllProcessesIsChangedAndEndsByItself(t *testing.T) {
	real := queuetest.Start(t)
	start := func(own slog.Level, api, worker bool) (*slog.LevelVar, *logged) {
		level, log := &slog.LevelVar{}, &logged{}
		level.Set(own)
		startOn(t, config.Default(), "operator", serverOptions{redis: real.Client, level: level, api: api, worker: worker,
			log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: level}))})
		return level, log
	}
	works, log := start(slog.LevelWarn, false, true)
	answers, _ := start(slog.LevelInfo, true, false)

	postroom(t, "", "log", "show").want(t, 0, "each its own")
	postroom(t, "", "log", "set", "debug", "--for", "1h").want(t, 0, "debug", "test", "until")
	reaches(t, works, slog.LevelDebug)
	reaches(t, answers, slog.LevelDebug)
	postroom(t, "", "log", "show", "--output", "json").want(t, 0, `"level":"debug"`, `"by":"test"`)
	postroom(t, "", "log", "reset").want(t, 0, "each its own")
	reaches(t, works, slog.LevelWarn)
	reaches(t, answers, slog.LevelInfo)
	if n := strings.Count(log.String(), "the log level"); n != 2 {
		t.Errorf("%d lines about it:\n%s", n, log)
	}

	// It ends by itself, also in a process that is cut off from Redis by then.
	postroom(t, "", "log", "set", "error", "--for", "1s").want(t, 0, "error")
	reaches(t, works, slog.LevelError)
	real.Freeze()
	reaches(t, works, slog.LevelWarn)
	real.Thaw()

}

func TestMistypedLogLevels(t *testing.T) {
	environment(t, "http://127.0.0.1:1")
	for line, want := range map[string]string{
		"log set":                 "LEVEL is missing",
		"log set loud":            `"loud" is none of debug, info, warn and error`,
		"log set debug --for 25h": `--for: "25h" is not a time from 1s to 24h`,
		"log set debug --for 0s":  "--for",
		"log show debug":          "it takes none",
		"log rest":                "did you mean set or reset?",
	} {
		postroom(t, "", strings.Fields(line)...).want(t, exitUsage, want)
	}
}
