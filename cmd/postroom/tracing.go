package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/postroom/postroom/config"
)

// Bounds of tracing: spans beyond tracesKept wait for nobody and are dropped; a collector has exportTime for a request, and is asked
// again for retryTime; what is left at the end has flushTime.
const (
	tracesKept = 8192
	exportTime = 10 * time.Second
	retryTime  = 30 * time.Second
	flushTime  = 2 * time.Second
)

// tracing sends spans to a collector, from the side: nothing waits for it.
type tracing struct {
	provider *sdktrace.TracerProvider
	log      *slog.Logger
}

// newTracing makes what takes spans; nil if tracing is off. The collector need not be there.
func newTracing(c config.Tracing, namespace string, log *slog.Logger) (*tracing, error) {
	if c.Endpoint == "" {
		return nil, nil
	}
	to, err := url.Parse(c.Endpoint) // config has checked it
	if err != nil {
		return nil, fmt.Errorf("tracing.endpoint: %w", err)
	}
	headers := make(map[string]string, len(c.Headers))
	secrets := make([]string, 0, 2*len(c.Headers))
	for name, value := range c.Headers {
		headers[name] = value.Reveal()
		if value != "" {
			secrets = append(secrets, value.Reveal(), value.String())
		}
	}
	if strings.Trim(to.Path, "/") == "" {
		to.Path = "/v1/traces"
	}
	// By its URL, so that the scheme alone says whether TLS is used: OTEL_EXPORTER_OTLP_INSECURE would take it away from https.
	options := []otlptracehttp.Option{otlptracehttp.WithEndpointURL(to.String()), otlptracehttp.WithHeaders(headers),
		otlptracehttp.WithTimeout(exportTime), otlptracehttp.WithCompression(otlptracehttp.GzipCompression),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: time.Second, MaxInterval: 5 * time.Second, MaxElapsedTime: retryTime})}
	client, err := otlptracehttp.New(context.Background(), options...) // it does not connect
	if err != nil {
		return nil, fmt.Errorf("tracing: %w: see tracing.endpoint, and OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE and _CLIENT_KEY of the environment, which are for https", err)
	}
	host, _ := os.Hostname()
	t := &tracing{log: log}
	t.provider = sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sampler(c.SampleRatio)),
		sdktrace.WithBatcher(&toldExporter{SpanExporter: client, log: log, hide: strings.NewReplacer(secrets...)}, sdktrace.WithMaxQueueSize(tracesKept)),
		sdktrace.WithResource(resource.NewWithAttributes(semconv.SchemaURL, semconv.ServiceName("postroom"), semconv.ServiceVersion(version()),
			semconv.ServiceNamespace(namespace), semconv.ServiceInstanceID(rand.Text()), semconv.HostName(host))))
	return t, nil
}

// tracerProvider is for options whose default is no tracing.
func (t *tracing) tracerProvider() trace.TracerProvider {
	if t == nil {
		return nil
	}
	return t.provider
}

// stop sends what is left, for at most flushTime.
func (t *tracing) stop(ctx context.Context) {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		t.log.Warn("the last spans could not be sent to the collector", "endpoint", "tracing.endpoint")
	}
}

// linked samples what links to something sampled, for that is whole only with it; of all else root decides.
type linked struct{ root sdktrace.Sampler }

var _ sdktrace.Sampler = linked{}

// sampler decides about a message when it is accepted: as its producer has, else by a share. Attempts follow by their link.
func sampler(ratio float64) sdktrace.Sampler {
	return sdktrace.ParentBased(linked{sdktrace.TraceIDRatioBased(ratio)})
}

func (l linked) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	for _, link := range p.Links {
		if link.SpanContext.IsSampled() {
			return sdktrace.SamplingResult{Decision: sdktrace.RecordAndSample}
		}
	}
	return l.root.ShouldSample(p)
}

func (l linked) Description() string { return "Linked{" + l.root.Description() + "}" }

// complaints is how often it is said at most that spans can't be sent.
const complaints = 5 * time.Minute

// toldExporter tells in our log when spans can't be sent, once in a while. (Left to itself the SDK tells a handler that is global.)
type toldExporter struct {
	sdktrace.SpanExporter
	log  *slog.Logger
	hide *strings.Replacer // of secrets that a collector could repeat

	mu   sync.Mutex
	told time.Time
	lost int
}

// ExportSpans implements sdktrace.SpanExporter.
func (e *toldExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case err == nil && e.lost > 0:
		e.log.Info("the collector takes spans again", "lost", e.lost)
		e.lost, e.told = 0, time.Time{}
	case err != nil:
		if e.lost += len(spans); time.Since(e.told) >= complaints {
			e.told = time.Now()
			e.log.Warn("spans can't be sent to the collector, and are lost; mail is not affected", "lost", e.lost, "error", e.hide.Replace(err.Error()))
		}
	}
	return nil
}
