package admin

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// checkTime bounds each check of /readyz, so that whoever asks gets an answer and not a time-out of their own.
const checkTime = 2 * time.Second

// health is the body of /livez and /readyz.
type health struct {
	Status string            `json:"status" enum:"ok,unavailable" doc:"ok if all checks are."`
	Checks map[string]string `json:"checks,omitempty" doc:"Each check with ok or failed. Why it failed stands in the log: whoever asks here has shown no token. provider is ok, degraded or faulty, and workers ok, none (none runs anywhere) or unable (none can load the provider's settings), as information: they do not make the process unavailable."`
}

type healthOutput struct {
	Status int
	Body   health
}

func (h *handler) registerHealth() {
	huma.Register(h.api, huma.Operation{
		OperationID: "livez", Method: http.MethodGet, Path: "/livez", Tags: []string{"health"},
		Summary: "Whether the process runs", Responses: refusals(internal),
	}, func(context.Context, *struct{}) (*healthOutput, error) {
		return &healthOutput{http.StatusOK, health{Status: "ok"}}, nil
	})
	huma.Register(h.api, huma.Operation{
		OperationID: "readyz", Method: http.MethodGet, Path: "/readyz", Tags: []string{"health"},
		Summary: "Whether the process can do its work", Responses: refusals(internal),
		Description: "503 with the same body if it can't.",
	}, h.readyz)
}

func (h *handler) readyz(ctx context.Context, _ *struct{}) (*healthOutput, error) {
	out := &healthOutput{http.StatusOK, health{Status: "ok", Checks: make(map[string]string)}}
	check := func(name string, ask func(context.Context) error) {
		ctx, cancel := context.WithTimeout(ctx, checkTime)
		defer cancel()
		out.Body.Checks[name] = "ok"
		if err := ask(ctx); err != nil {
			h.log.Warn("not ready", "check", name, "error", err)
			out.Status, out.Body.Status, out.Body.Checks[name] = http.StatusServiceUnavailable, "unavailable", "failed"
		}
	}
	check("redis", h.queue.Ping)
	if h.ready != nil {
		check("process", h.ready)
	}
	// A provider that is down, or other processes that are, are no reason to restart this process, or to send it no requests.
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	if health, err := h.queue.Health(ctx); err == nil {
		out.Body.Checks["provider"], out.Body.Checks["workers"] = string(health.State), "ok"
		switch w := health.Workforce(); {
		case w.Running == 0:
			out.Body.Checks["workers"] = "none"
		case !w.Able():
			out.Body.Checks["workers"] = "unable"
		}
	}
	return out, nil
}
