package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postroom/postroom/queue"
)

func (h *handler) registerLog() {
	const path = "/v1/log"
	op := h.operation(Operator, http.MethodGet, path, "getLog", "How much all processes log", always)
	op.Description = "The level that was asked for, until when and by whom. None: each process logs at the level of its configuration."
	huma.Register(h.api, op, h.getLog)

	op = h.operation(Operator, http.MethodPut, path, "setLog", "Have all processes log more, or less, for a time", withPause)
	op.Description = "It takes effect within seconds, without a restart, and ends by itself; one that runs is replaced."
	huma.Register(h.api, op, h.setLog)
	h.takesBy(path, http.MethodPut, reflect.TypeFor[LogRequest]())

	op = h.operation(Operator, http.MethodDelete, path, "resetLog", "Let each process log at its own level again", always)
	op.Description = "Resetting twice is fine."
	huma.Register(h.api, op, h.resetLog)
}

// LogRequest is the body of PUT /v1/log.
type LogRequest struct {
	Level    string `json:"level" enum:"debug,info,warn,error" doc:"What is logged: this and what is worse."`
	Duration string `json:"duration,omitempty" doc:"For how long, such as 90s, 15m or 2h; from 1s to 24h; left out: 15m." example:"15m"`
}

// LogLevel is the answer to requests about /v1/log.
type LogLevel struct {
	Level   string    `json:"level,omitempty" enum:"debug,info,warn,error" doc:"What all processes log; left out: each logs at the level of its configuration."`
	By      string    `json:"by,omitempty" doc:"The name of the token that asked for it."`
	Until   time.Time `json:"until,omitzero" doc:"When it ends by itself."`
	Summary string    `json:"summary" doc:"The same as a sentence for people."`
}

type logOutput struct{ Body LogLevel }

func logOutputOf(l *queue.LogLevel) *logOutput {
	if l == nil {
		return &logOutput{LogLevel{Summary: "Each process logs at the level of its configuration (log.level)."}}
	}
	level := strings.ToLower(l.Level.String())
	return &logOutput{LogLevel{Level: level, By: l.By, Until: utc(l.Until),
		Summary: "All processes log at the level " + level + " until " + utc(l.Until).Format(time.RFC3339) + ", as " + l.By + " asked for."}}
}

func (h *handler) getLog(ctx context.Context, _ *struct{}) (*logOutput, error) {
	l, err := h.queue.LogLevel(ctx)
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	return logOutputOf(l), nil
}

type setLogInput struct{ original }

func (h *handler) setLog(ctx context.Context, in *setLogInput) (*logOutput, error) {
	given := LogRequest{}
	if err := h.read(&in.original, &given); err != nil {
		return nil, err
	}
	p := invalidRequest.problem("Nothing was changed. Correct what errors names.")
	level, known := logLevels[given.Level]
	if !known {
		p.Errors = append(p.Errors, Fault{"/level", "is none of debug, info, warn and error"})
	}
	d := defaultLog
	if given.Duration != "" {
		var err error
		if d, err = ParseLogDuration(given.Duration); err != nil {
			p.Errors = append(p.Errors, Fault{"/duration", logFault})
		}
	}
	if p.Errors != nil {
		return nil, p
	}
	l, err := h.queue.SetLogLevel(ctx, level, d, authorOf(ctx))
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	return logOutputOf(l), nil
}

func (h *handler) resetLog(ctx context.Context, _ *struct{}) (*logOutput, error) {
	if err := h.queue.ResetLogLevel(ctx, authorOf(ctx)); err != nil {
		return nil, h.refused(ctx, err)
	}
	return logOutputOf(nil), nil
}

var logLevels = map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}

const (
	defaultLog = 15 * time.Minute
	longLog    = day

	logFault = "is not a time from 1s to 24h, such as 90s, 15m or 2h"
)

// ParseLogDuration reads how long a log level is to last: a duration of Go, from 1s to 24h.
func ParseLogDuration(s string) (time.Duration, error) {
	d, err := parseTime(s, longLog)
	if err != nil {
		return 0, errors.New("admin: the duration of a log level " + logFault)
	}
	return d, nil
}

// LogLevel tells how much all processes log.
func (c *Client) LogLevel(ctx context.Context) (*LogLevel, error) {
	return c.logLevel(ctx, http.MethodGet, nil)
}

// SetLogLevel has all processes log at a level ("debug", "info", "warn", "error") for d, from a second to 24 hours; 0 stands for 15
// minutes.
func (c *Client) SetLogLevel(ctx context.Context, level string, d time.Duration) (*LogLevel, error) {
	in := LogRequest{Level: level}
	if d != 0 {
		in.Duration = d.String()
	}
	return c.logLevel(ctx, http.MethodPut, in)
}

// ResetLogLevel lets each process log at its own level again. Resetting twice is fine.
func (c *Client) ResetLogLevel(ctx context.Context) (*LogLevel, error) {
	return c.logLevel(ctx, http.MethodDelete, nil)
}

func (c *Client) logLevel(ctx context.Context, method string, in any) (*LogLevel, error) {
	l := &LogLevel{}
	if _, err := c.call(ctx, method, "", in, l, "log"); err != nil {
		return nil, err
	}
	return l, nil
}
