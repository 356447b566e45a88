package admin

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"go.opentelemetry.io/otel/propagation"
)

// traced gives a context with the trace that a request belongs to (W3C Trace Context), if it names one. A header that has faults is
// as none, as that document demands.
func traced(ctx context.Context, h http.Header) context.Context {
	if len(h["Traceparent"]) != 1 {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(h))
}

// traceHeaders describes the header fields that traced reads.
func traceHeaders() []*huma.Param {
	text := &huma.Schema{Type: huma.TypeString}
	return []*huma.Param{
		{Name: "traceparent", In: "header", Schema: text,
			Description: "The trace that the request belongs to (W3C Trace Context). If it is sampled, the attempts to deliver link to it."},
		{Name: "tracestate", In: "header", Schema: text, Description: "Goes with traceparent."},
	}
}
