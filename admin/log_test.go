package admin

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/queue"
)

func TestTheLogLevelIsSetForATimeAndReset(t *testing.T) {
	a := serve(t, nil)
	levels := make(chan *queue.LogLevel, 10)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.queue.FollowLogLevel(ctx, func(l *queue.LogLevel) { levels <- l })
	}()
	defer func() { stop(); <-ended }()

	var l LogLevel
	a.call(t, "GET", "/v1/log", operatorToken, "").decode(t, &l)
	if l.Level != "" || !l.Until.IsZero() || !strings.Contains(l.Summary, "log.level") {
		t.Errorf("at first: %+v", l)
	}
	for _, level := range []struct {
		body, name string
		want       slog.Level
		lasts      time.Duration
	}{
		{`{"level": "debug"}`, "debug", slog.LevelDebug, 15 * time.Minute},
		{`{"level": "warn", "duration": "2h"}`, "warn", slog.LevelWarn, 2 * time.Hour},
	} {
		r := a.call(t, "PUT", "/v1/log", operatorToken, level.body)
		r.decode(t, &l)
		if r.status != 200 || l.Level != level.name || l.By != "ops" || time.Until(l.Until) > level.lasts || time.Until(l.Until) < level.lasts-time.Minute {
			t.Errorf("%s: %d %s", level.body, r.status, r.body)
		}
		if got := <-levels; got == nil || got.Level != level.want || got.By != "ops" || !got.Until.Equal(l.Until) {
			t.Errorf("a process is told %+v, want %s", got, level.name)
		}
		if left := a.redis.TTL("{postroom}:log"); left <= 0 || left > level.lasts {
			t.Errorf("the key ends by itself in %v", left)
		}
		shown := LogLevel{}
		if a.call(t, "GET", "/v1/log", operatorToken, "").decode(t, &shown); shown != l {
			t.Errorf("shown: %+v, want %+v", shown, l)
		}
	}
	for range 2 { // twice is fine
		r := a.call(t, "DELETE", "/v1/log", operatorToken, "")
		l = LogLevel{}
		if r.decode(t, &l); r.status != 200 || l.Level != "" {
			t.Errorf("%d %s", r.status, r.body)
		}
	}
	if got := <-levels; got != nil {
		t.Errorf("a process is told %+v after the reset", got)
	}
	entries, err := a.queue.Audit(t.Context(), "", 10)
	if err != nil || len(entries) != 4 || entries[3].Action != "log.set" || entries[3].By != "ops" || !strings.HasPrefix(entries[3].Detail, "debug until ") ||
		entries[0].Action != "log.reset" {
		t.Errorf("the audit: %+v, %v", entries, err)
	}
}

func TestALogLevelWithFaultsChangesNothing(t *testing.T) {
	a := serve(t, nil)
	for body, faults := range map[string]string{
		`{}`:                                         "/level",
		`{"level": "trace"}`:                         "/level",
		`{"level": "DEBUG"}`:                         "/level",
		`{"level": "debug", "duration": "25h"}`:      "/duration",
		`{"level": "debug", "duration": "0s"}`:       "/duration",
		`{"level": "debug", "duration": "for ever"}`: "/duration",
		`{"level": "loud", "duration": "x"}`:         "/level /duration",
		`{"level": "debug", "for": "1h"}`:            "/for",
	} {
		p := a.call(t, "PUT", "/v1/log", operatorToken, body).problem(t)
		var at []string
		for _, f := range p.Errors {
			at = append(at, f.Location)
		}
		if p.Status < 400 || p.Status > 422 || strings.Join(at, " ") != faults {
			t.Errorf("%s: %d, faults at %v", body, p.Status, at)
		}
	}
	if a.redis.Exists("{postroom}:log") {
		t.Error("a level was set")
	}
}

// A request's trace goes with its mail; one that is not sampled, or has faults, does not.
func TestAProducersTraceIsKept(t *testing.T) {
	a := serve(t, nil)
	const ids = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"
	for name, test := range map[string]struct {
		header []string
		kept   bool
	}{
		"sampled":            {[]string{"traceparent", "00-" + ids + "-01", "tracestate", "a=b"}, true},
		"a later version":    {[]string{"traceparent", "cc-" + ids + "-01-more"}, true},
		"not sampled":        {[]string{"traceparent", "00-" + ids + "-00"}, false},
		"too short":          {[]string{"traceparent", "00-" + ids[1:] + "-01"}, false},
		"upper case":         {[]string{"traceparent", strings.ToUpper("00-" + ids + "-01")}, false},
		"zero":               {[]string{"traceparent", "00-00000000000000000000000000000000-b7ad6b7169203331-01"}, false},
		"none":               {nil, false},
		"a tracestate alone": {[]string{"tracestate", "a=b"}, false},
	} {
		for path, body := range map[string]string{"/v1/messages": oneMessage, "/v1/batches": twoRecipients} {
			r := a.call(t, "POST", path, producerToken, body, test.header...)
			var got Accepted
			if r.decode(t, &got); r.status != 202 {
				t.Fatalf("%s: %d %s", name, r.status, r.body)
			}
			raw := a.redis.HGet("{postroom}:b:"+got.ID, "trace")
			if path == "/v1/messages" {
				raw, _ = a.redis.Get("{postroom}:m:" + got.ID)
			}
			if kept := strings.Contains(raw, "CvdlGRbNQ92ESOshHIAxnLeta3FpIDMx"); kept != test.kept {
				t.Errorf("%s: %s: kept is %v: %q", name, path, kept, raw)
			}
			if state := strings.Contains(raw, " a=b"); state != (name == "sampled") {
				t.Errorf("%s: %s: the tracestate: %q", name, path, raw)
			}
		}
	}
	if log := a.log.String(); strings.Count(log, `"msg":"accepted"`) != 16 || strings.Count(log, `"trace_id":"`+ids[:32]+`"`) != 4 {
		t.Errorf("log: %s", log)
	}
}
