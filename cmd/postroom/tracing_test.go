package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/postroom/postroom/config"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/smtp/smtptest"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/queue/queuetest"
)

const collectorSecret = "a-header-that-nobody-may-see"

// receiver is a collector: it takes spans by OTLP over HTTP.
type receiver struct {
	*httptest.Server
	mu        sync.Mutex
	raw       bytes.Buffer // all that came, protobuf and headers
	spans     []*spans.Span
	resources map[string]string
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{resources: map[string]string{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, in *http.Request) {
		body := io.Reader(in.Body)
		if in.Header.Get("Content-Encoding") == "gzip" {
			unzipped, err := gzip.NewReader(body)
			if err != nil {
				t.Error(err)
				return
			}
			body = unzipped
		}
		raw, err := io.ReadAll(body)
		var request collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(raw, &request)
		}
		if err != nil || in.URL.Path != "/v1/traces" || in.Header.Get("Content-Type") != "application/x-protobuf" || in.Header.Get("X-Key") != collectorSecret {
			t.Errorf("%s %s: %v, %v", in.Method, in.URL, in.Header, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.raw.Write(raw)
		for _, rs := range request.ResourceSpans {
			for _, a := range rs.Resource.Attributes {
				r.resources[a.Key] = a.Value.GetStringValue()
			}
			for _, ss := range rs.ScopeSpans {
				r.spans = append(r.spans, ss.Spans...)
			}
		}
		answer, _ := proto.Marshal(&collector.ExportTraceServiceResponse{})
		w.Header().Set("Content-Type", "application/x-protobuf")
		_, _ = w.Write(answer)
	}))
	t.Cleanup(r.Close)
	return r
}

// attributes gives those of a span, as text.
func attributes(s *spans.Span) map[string]string {
	all := map[string]string{}
	for _, a := range s.Attributes {
		switch v := a.Value; {
		case v.GetStringValue() != "":
			all[a.Key] = v.GetStringValue()
		default:
			all[a.Key] = fmt.Sprint(v.GetIntValue())
		}
	}
	return all
}

// with gives the spans of a kind whose attribute has a value.
func (r *receiver) with(kind spans.Span_SpanKind, attribute, value string) []*spans.Span {
	var all []*spans.Span
	for _, s := range r.spans {
		if s.Kind == kind && attributes(s)[attribute] == value {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b *spans.Span) int { return int(int64(a.StartTimeUnixNano) - int64(b.StartTimeUnixNano)) })
	return all
}

// logged is a log that many may write to.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// hand hands something in by HTTP with a trace, and gives its id.
func hand(t *testing.T, s *server, path, traceparent, contentType, body string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.listener.Addr().String()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+testToken)
	r.Header.Set("Content-Type", contentType)
	if traceparent != "" {
		r.Header.Set("traceparent", traceparent)
		r.Header.Set("tracestate", "vendor=opaque")
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	var accepted struct{ ID string }
	if err := json.NewDecoder(answer.Body).Decode(&accepted); err != nil || answer.StatusCode != http.StatusAccepted {
		t.Fatalf("%s: %s, %v", path, answer.Status, err)
	}
	return accepted.ID
}

func TestAMailIsTracedFromItsProducerToEachAttempt(t *testing.T) {
	to := newReceiver(t)
	const reply = "try-later-said-the-server"
	var mu sync.Mutex
	refused := map[string]bool{}
	inbox, err := smtptest.NewInbox(smtptest.InboxOptions{Security: provider.SecurityNone, OnRcpt: func(rcpt string) error {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasPrefix(rcpt, "again") && !refused[rcpt] {
			refused[rcpt] = true
			return smtptest.Refuse(450, "4.2.0", reply+" about "+rcpt)
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = inbox.Close() })
	cfg := config.Default()
	settings := inbox.Settings(mail.Address{Address: "own@x.example"})
	cfg.Provider = &settings
	cfg.Tracing = config.Tracing{Endpoint: to.URL, Headers: map[string]provider.Secret{"X-Key": collectorSecret}, SampleRatio: 0}
	cfg.Kinds.Report.Delays = []time.Duration{time.Millisecond}
	real := queuetest.Start(t)
	log := &logged{}
	level := &slog.LevelVar{}
	level.Set(slog.LevelDebug)
	options := serverOptions{redis: real.Client, log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: level})), level: level, api: true, worker: true}
	s, stop := startOn(t, cfg, "operator", options)

	const (
		single, ofBatch = "0af7651916cd43dd8448eb211c80319c", "1af7651916cd43dd8448eb211c80319c"
		inGo, goBatch   = "2af7651916cd43dd8448eb211c80319c", "3af7651916cd43dd8448eb211c80319c"
		unsampled       = "4af7651916cd43dd8448eb211c80319c"
		parent          = "b7ad6b7169203331"
	)
	message := func(to string) string { // each of its own: a recipient is refused once
		return `{"kind": "report", "to": [{"address": "` + to + `@secret.example"}], "subject": "hidden-subject", "text": "hidden-text"}`
	}
	first := hand(t, s, "/v1/messages", "00-"+single+"-"+parent+"-01", "application/json", message("again1"))
	batch := hand(t, s, "/v1/batches", "00-"+ofBatch+"-"+parent+"-01", "application/x-ndjson",
		`{"kind": "report", "subject": "hidden-subject {{.name}}", "text": "hidden-text"}`+"\n"+
			`{"to": [{"address": "ada@secret.example"}], "variables": {"name": "hidden-name"}}`+"\n"+
			`{"to": [{"address": "again2@secret.example"}], "variables": {"name": "hidden-name"}}`+"\n")
	quiet := hand(t, s, "/v1/messages", "00-"+unsampled+"-"+parent+"-00", "application/json", message("again3"))
	untraced := hand(t, s, "/v1/messages", "", "application/json", message("again4"))

	// An application that hands mail straight to Redis, and has spans of its own.
	q, err := queue.Open(t.Context(), queue.Options{Client: real.Client})
	if err != nil {
		t.Fatal(err)
	}
	caller := func(id string) context.Context {
		traceID, _ := trace.TraceIDFromHex(id)
		spanID, _ := trace.SpanIDFromHex(parent)
		return trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: traceID, SpanID: spanID, TraceFlags: trace.FlagsSampled}))
	}
	m := mail.Message{Kind: mail.Alert, To: []mail.Address{{Address: "bob@secret.example"}}, Subject: "hidden-subject", Text: "hidden-text"}
	direct, err := q.Enqueue(caller(inGo), m)
	if err != nil {
		t.Fatal(err)
	}
	m.To = nil
	several, err := q.EnqueueBatch(caller(goBatch), mail.Batch{Message: m, Recipients: []mail.Recipient{{To: []mail.Address{{Address: "cid@secret.example"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := inbox.WaitFor(ctx, 7); err != nil {
		t.Fatalf("%v: %d arrived\n%s", err, inbox.Received(), log)
	}
	stop() // sends what is left

	link := func(sp *spans.Span, traceID string, spanID []byte) {
		t.Helper()
		if len(sp.Links) != 1 || hex.EncodeToString(sp.Links[0].TraceId) != traceID || !bytes.Equal(sp.Links[0].SpanId, spanID) {
			t.Errorf("links %v, want %s %x", sp.Links, traceID, spanID)
		}
		if len(sp.ParentSpanId) > 0 || hex.EncodeToString(sp.TraceId) == traceID {
			t.Errorf("an attempt is part of its producer's trace: %v", sp)
		}
	}
	const producer, consumer = spans.Span_SPAN_KIND_PRODUCER, spans.Span_SPAN_KIND_CONSUMER
	sent := func(attribute, id, traceID string) []byte {
		t.Helper()
		all := to.with(producer, attribute, id)
		if len(all) != 1 || hex.EncodeToString(all[0].TraceId) != traceID || hex.EncodeToString(all[0].ParentSpanId) != parent || all[0].Name != "send postroom" {
			t.Fatalf("spans of %s being accepted: %v", id, all)
		}
		return all[0].SpanId
	}
	attempts := func(id string, classes ...string) []*spans.Span {
		t.Helper()
		all := to.with(consumer, "messaging.message.id", id)
		if len(all) != len(classes) {
			t.Fatalf("%d attempts of %s, want %v", len(all), id, classes)
		}
		for i, sp := range all {
			a := attributes(sp)
			if a["postroom.class"] != classes[i] || a["postroom.attempt"] != fmt.Sprint(i+1) || a["postroom.provider"] != "smtp" || a["postroom.mailbox"] != "own@x.example" ||
				a["messaging.operation.type"] != "process" || a["messaging.system"] != "postroom" || a["messaging.destination.name"] != "postroom" || sp.Name != "process postroom" {
				t.Errorf("attempt %d of %s: %v", i+1, id, a)
			}
			if failed := sp.Status.GetCode() == spans.Status_STATUS_CODE_ERROR; failed != (classes[i] != "delivered") || failed != (a["error.type"] != "") || sp.Status.GetMessage() != "" {
				t.Errorf("attempt %d of %s: %v, %v", i+1, id, sp.Status, a)
			}
		}
		return all
	}
	by := sent("messaging.message.id", first, single)
	if state := to.with(producer, "messaging.message.id", first)[0].TraceState; state != "vendor=opaque" {
		t.Errorf("tracestate %q", state)
	}
	for _, sp := range attempts(first, "temporary", "delivered") {
		link(sp, single, by)
	}
	by = sent("postroom.batch", batch, ofBatch)
	if n := attributes(to.with(producer, "postroom.batch", batch)[0])["messaging.batch.message_count"]; n != "2" {
		t.Errorf("a batch of %s", n)
	}
	ofIt := to.with(consumer, "postroom.batch", batch)
	if len(ofIt) != 3 {
		t.Errorf("%d attempts of the batch, want 3", len(ofIt))
	}
	for _, sp := range ofIt {
		link(sp, ofBatch, by)
	}
	caller8, _ := hex.DecodeString(parent)
	link(attempts(direct.ID, "delivered")[0], inGo, caller8)
	link(attempts(several.IDs[0], "delivered")[0], goBatch, caller8)
	attempts(quiet)
	attempts(untraced)
	if len(to.spans) != 2+2+3+2 {
		t.Errorf("%d spans", len(to.spans))
	}
	for key, want := range map[string]string{"service.name": "postroom", "service.version": version(), "service.namespace": "postroom"} {
		if to.resources[key] != want {
			t.Errorf("%s is %q, want %q", key, to.resources[key], want)
		}
	}
	if to.resources["service.instance.id"] == "" {
		t.Error("the instance is not told")
	}

	// What goes to a collector, and to the log, has nothing that is not ours.
	for where, text := range map[string]string{"spans": to.raw.String(), "log": log.String()} {
		for _, secret := range []string{"secret.example", "hidden-subject", "hidden-text", "hidden-name", reply, testToken, collectorSecret} {
			if strings.Contains(text, secret) {
				t.Errorf("the %s have %s", where, secret)
			}
		}
		if !strings.Contains(text, first) {
			t.Errorf("the %s do not have %s: this proves nothing", where, first)
		}
	}
	// A message's life by its id.
	var life []string
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "message="+first) {
			life = append(life, line)
		}
	}
	if len(life) != 3 || !strings.Contains(life[0], "msg=accepted") || !strings.Contains(life[1], "attempt=1") || !strings.Contains(life[1], "class=temporary") ||
		!strings.Contains(life[1], "until=") || !strings.Contains(life[2], "attempt=2") || !strings.Contains(life[2], "class=delivered") {
		t.Errorf("the life of a message:\n%s", strings.Join(life, ""))
	}
	for _, line := range life {
		if !strings.Contains(line, "trace_id="+single) {
			t.Errorf("no trace in %s", line)
		}
	}
}

func TestACollectorThatIsAwayStopsNothing(t *testing.T) {
	hung, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hung.Close() }() // it accepts, and never answers
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "not with "+r.Header.Get("X-Key"), http.StatusForbidden)
	}))
	defer refusing.Close()
	for name, endpoint := range map[string]string{"hung": "http://" + hung.Addr().String(), "closed": "http://" + closed.Addr().String(), "refusing": refusing.URL} {
		t.Run(name, func(t *testing.T) {
			inbox, err := smtptest.NewInbox(smtptest.InboxOptions{Security: provider.SecurityNone})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = inbox.Close() })
			cfg := config.Default()
			settings := inbox.Settings(mail.Address{Address: "own@x.example"})
			cfg.Provider = &settings
			cfg.Tracing.Endpoint, cfg.Tracing.Headers = endpoint, map[string]provider.Secret{"X-Key": collectorSecret}
			log := &logged{}
			s, stop := startOn(t, cfg, "operator", serverOptions{redis: redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()}), log: slog.New(slog.NewTextHandler(log, nil)), api: true, worker: true})
			for range 3 {
				hand(t, s, "/v1/messages", "", "application/json", `{"kind": "alert", "to": [{"address": "ada@x.example"}], "subject": "s", "text": "t"}`)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := inbox.WaitFor(ctx, 3); err != nil {
				t.Fatalf("%v\n%s", err, log)
			}
			stopped := make(chan struct{})
			go func() {
				defer close(stopped)
				stop()
			}()
			select {
			case <-stopped:
			case <-ctx.Done():
				t.Fatalf("the end waits for the collector:\n%s", log)
			}
			if name == "refusing" && strings.Count(log.String(), "spans can't be sent") != 1 || strings.Contains(log.String(), collectorSecret) {
				t.Errorf("log: %s", log)
			}
		})
	}
}

// tracing.endpoint says where spans go and whether by TLS, whatever the environment of OpenTelemetry says; the collector's CA comes from there.
func TestTheEnvironmentOfOpenTelemetryChangesNoEndpoint(t *testing.T) {
	var came []string
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		scheme := "http"
		if r.TLS != nil {
			scheme = "https"
		}
		came = append(came, scheme+" "+r.URL.Path+" "+r.Header.Get("X-Key"))
	})
	clear, secure, other := httptest.NewServer(h), httptest.NewTLSServer(h), httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("spans go to the endpoint of the environment")
	}))
	defer clear.Close()
	defer secure.Close()
	defer other.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", other.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=of-the-environment")
	for _, insecure := range []string{"true", "false"} {
		t.Setenv("OTEL_EXPORTER_OTLP_INSECURE", insecure)
		for endpoint, want := range map[string]string{secure.URL: "https /v1/traces ", clear.URL + "/": "http /v1/traces ", secure.URL + "/own/path": "https /own/path "} {
			came = nil
			t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "")
			if strings.HasPrefix(want, "https") {
				t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", ca)
			}
			var log logged
			tr, err := newTracing(config.Tracing{Endpoint: endpoint, SampleRatio: 1}, "postroom", slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			_, span := tr.tracerProvider().Tracer("test").Start(t.Context(), "span")
			span.End()
			tr.stop(t.Context())
			if len(came) != 1 || came[0] != want {
				t.Errorf("with %s, %s: %q came, want %q\n%s", insecure, endpoint, came, want, &log)
			}
		}
	}
}
