// Package admin is the API of Postroom for producers, operators and administrators: its HTTP handler, with OpenAPI 3.1 and
// problems of RFC 9457, and a client for Go programs.
package admin

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// Options say what a handler stands on. Queue is needed; the zero value of another field stands for its default.
type Options struct {
	Queue *queue.Queue
	// Tokens are who may use /v1. Without any nobody may. One that has faults is logged and lets nobody in.
	Tokens []Token
	// Providers is needed to change the provider's settings, and to try them; nil: they can only be looked at.
	Providers *Providers
	// MaxBodyBytes bounds a request's body; default 64 MiB. A request takes about twice that in memory.
	MaxBodyBytes int64
	// MaxBodiesBytes bounds what bodies take together while they are held; default four of the largest, or 256 MiB if that is more.
	// The first 64 KiB of each do not count.
	MaxBodiesBytes int64
	// BodyPatience is how long a client may take for the next part of its body; default a minute. Five times that is the most for a
	// body that is held in memory.
	BodyPatience time.Duration
	// Gatherer is what /metrics shows; default: nothing.
	Gatherer prometheus.Gatherer
	// Registerer takes the handler's own metrics; default: they are not exported.
	Registerer prometheus.Registerer
	// Ready is asked by /readyz, beside Redis. Its error is logged; the answer only says that it was not nil.
	Ready func(context.Context) error
	// Version stands in the OpenAPI document.
	Version string
	// Logger takes a line for each request at debug, and what went wrong here at error; default: nothing is logged.
	Logger *slog.Logger
}

// backend is what the API needs of the queue.
type backend interface {
	Enqueue(context.Context, mail.Message, ...queue.Option) (queue.Receipt, error)
	EnqueueBatch(context.Context, mail.Batch, ...queue.Option) (queue.BatchReceipt, error)
	OpenBatch(context.Context, mail.Message, ...queue.Option) (*queue.BatchStream, error)
	Message(ctx context.Context, id string) (*queue.MessageStatus, error)
	Batch(ctx context.Context, id string) (*queue.BatchStatus, error)
	CancelMessage(ctx context.Context, id string, options ...queue.Option) error
	CancelBatch(ctx context.Context, id string, options ...queue.Option) error
	Messages(ctx context.Context, f queue.MessageFilter, cursor string, limit int) (queue.MessagePage, error)
	Batches(ctx context.Context, f queue.BatchFilter, cursor string, limit int) (queue.BatchPage, error)
	CancelMessages(context.Context, queue.MessageFilter, queue.SelectionOptions) (queue.SelectionStep, error)
	Outlook(context.Context, *queue.MessageStatus) (*queue.Outlook, error)
	BatchOutlook(context.Context, *queue.BatchStatus) (*queue.Outlook, error)
	Mailboxes(context.Context) ([]*queue.Mailbox, error)
	Mailbox(ctx context.Context, key string) (*queue.Mailbox, error)
	Pause(ctx context.Context, key string, d time.Duration, reason string, by queue.Author) (until time.Time, err error)
	Resume(ctx context.Context, key string, by queue.Author) (bool, error)
	Failed(ctx context.Context, f queue.FailedFilter, cursor string, limit int) (queue.FailedPage, error)
	Requeue(context.Context, queue.FailedFilter, queue.SelectionOptions) (queue.SelectionStep, error)
	DeleteFailed(context.Context, queue.FailedFilter, queue.SelectionOptions) (queue.SelectionStep, error)
	Outgoing(ctx context.Context, id string) (*mail.Outgoing, error)
	StoreContent(ctx context.Context, name, contentType string, r io.Reader) (*queue.StoredContent, error)
	Content(ctx context.Context, id string) (*queue.StoredContent, error)
	LogLevel(context.Context) (*queue.LogLevel, error)
	SetLogLevel(ctx context.Context, level slog.Level, d time.Duration, by queue.Author) (*queue.LogLevel, error)
	ResetLogLevel(ctx context.Context, by queue.Author) error
	Limits() mail.Limits
	Ping(context.Context) error
	providerBackend
}

// providerBackend is what of it is about the provider.
type providerBackend interface {
	Provider(context.Context) (*queue.Provider, error)
	Health(context.Context) (*queue.Health, error)
	ActivateProvider(context.Context, queue.ProviderChange) (version string, err error)
	ResealProvider(ctx context.Context, p *queue.Provider, sealed string, entry queue.AuditEntry) error
	Underway(context.Context) (int, error)
	Release(ctx context.Context, key string, try bool) error
	Take(ctx context.Context, r queue.Ration, by string) (wait time.Duration, err error)
	Note(context.Context, queue.AuditEntry) error
	Audit(ctx context.Context, before string, limit int) ([]queue.AuditEntry, error)
}

var _ backend = (*queue.Queue)(nil)

// NewHandler makes the handler of /v1, /livez, /readyz, /metrics and /openapi.json. What a body may take is the handler's;
// set the server's ReadHeaderTimeout, and a ReadTimeout and a WriteTimeout for all else.
func NewHandler(o Options) http.Handler { return newHandler(o, o.Queue) }

func newHandler(o Options, q backend) *handler {
	if o.MaxBodyBytes == 0 {
		o.MaxBodyBytes = 64 << 20
	}
	if o.MaxBodiesBytes == 0 {
		o.MaxBodiesBytes = max(4*o.MaxBodyBytes, 256<<20)
	}
	if o.BodyPatience == 0 {
		o.BodyPatience = bodyPatience
	}
	if o.Gatherer == nil {
		o.Gatherer = prometheus.NewRegistry()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	h := &handler{
		queue: q, ready: o.Ready, log: o.Logger, keys: newKeyring(o.Tokens, o.Logger), limit: o.MaxBodyBytes,
		room: newRoom(o.MaxBodiesBytes), bodyPatience: o.BodyPatience,
		providers: o.Providers, patience: selectionTime, tellEvery: tellEvery, mux: http.NewServeMux(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postroom_http_requests_total", Help: "Requests answered, by route, method and status.",
		}, []string{"route", "method", "code"}),
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(h.requests)
	}

	h.api = humago.New(h.mux, newConfig(o.Version))
	h.registerMessages()
	h.registerBatches()
	h.registerListing()
	h.registerContents()
	h.registerMailboxes()
	h.registerFailed()
	h.registerProvider()
	h.registerAudit()
	h.registerLog()
	h.registerHealth()
	h.mux.Handle("GET /metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	document(h.api.OpenAPI())
	h.serveDocument()
	return h
}

type handler struct {
	queue     backend
	ready     func(context.Context) error
	log       *slog.Logger
	keys      keyring
	limit     int64
	room      *room
	providers *Providers
	// bodyPatience is how long a client may take for the next part of its body.
	bodyPatience time.Duration
	// patience is selectionTime, and tellEvery is tellEvery, but in tests.
	patience, tellEvery time.Duration
	mux                 *http.ServeMux
	api                 huma.API
	// requests: postroom_http_requests_total{route,method,code}; route is a pattern of ours or "other", never a path that
	// somebody sent; method is "other" unless route knows it. Alert on code 5xx.
	requests *prometheus.CounterVec
}

// serveDocument serves the OpenAPI document, written once: huma would write it when it is first asked for, without a lock.
func (h *handler) serveDocument() {
	document, err := json.MarshalIndent(h.api.OpenAPI(), "", "  ")
	if err != nil {
		panic(err) // a fault in the code, which every test meets
	}
	h.mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(document)
	})
}

// ServeHTTP answers, counts and logs a request.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begun := time.Now()
	a := newAnswer(w, r, h.limit)
	a.Header().Set("Cache-Control", "no-store")
	a.Header().Set("X-Content-Type-Options", "nosniff")
	defer a.body.letGo()
	defer func() {
		if cause := recover(); cause != nil {
			h.recovered(a, r, cause)
		}
		method, route, known := strings.Cut(r.Pattern, " ")
		if !known {
			method, route = "other", "other"
		}
		h.requests.WithLabelValues(route, method, strconv.Itoa(a.code())).Inc()
		h.log.Debug("request", "route", route, "method", method, "code", a.code(), "took", time.Since(begun), "by", a.by)
	}()

	if _, pattern := h.mux.Handler(r); pattern == "" {
		h.unrouted(a, r)
		return
	}
	h.mux.ServeHTTP(a, r)
}

// unrouted answers what no route is for. Below /v1 that takes a token too.
func (h *handler) unrouted(a *answer, r *http.Request) {
	if r.URL.Path == "/v1" || strings.HasPrefix(r.URL.Path, "/v1/") {
		who, p := h.keys.identify(r.Header.Get("Authorization"))
		if a.by = who.name; p != nil {
			writeProblem(a, p)
			return
		}
	}
	// The mux knows whether it is the path or the method, and which methods there are.
	var verdict discarded
	h.mux.ServeHTTP(&verdict, r)
	if verdict.status == http.StatusMethodNotAllowed {
		allow := verdict.Header().Get("Allow")
		a.Header().Set("Allow", allow)
		writeProblem(a, methodNotAllowed.problem("Use "+allow+"."))
		return
	}
	writeProblem(a, noSuchEndpoint.problem("What there is stands in /openapi.json."))
}

// recovered answers after a panic. What was thrown can hold content, so that only its type and the place are logged.
func (h *handler) recovered(a *answer, r *http.Request, cause any) {
	if cause == http.ErrAbortHandler {
		panic(cause)
	}
	if r.Context().Err() != nil && a.status != 0 {
		return // huma panics if it can't write to a client that has gone
	}
	text := "withheld"
	if err, ok := cause.(runtime.Error); ok {
		text = err.Error()
	}
	h.log.Error("panic", "route", r.Pattern, "cause", text, "stack", string(debug.Stack()))
	if a.status == 0 {
		writeProblem(a, internal.problem("It is logged. If it happens again, tell whoever runs Postroom."))
	}
}

// writeProblem answers with p, from outside of huma.
func writeProblem(w http.ResponseWriter, p *Problem) {
	for name, values := range p.GetHeaders() {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}
