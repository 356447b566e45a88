package admin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

const (
	producerToken = "producer-secret-1"
	operatorToken = "operator-secret-2"
	adminToken    = "admin-secret-3"
)

func hashOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

func testTokens() []Token {
	return []Token{
		{Name: "app", Role: "producer", SHA256: hashOf(producerToken)},
		{Name: "ops", Role: "operator", SHA256: strings.ToUpper(hashOf(operatorToken))},
		{Name: "root", Role: "admin", SHA256: hashOf(adminToken)},
	}
}

// logbook is a log that can be searched.
type logbook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logbook) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// api is a handler on a server of its own, with a queue in a Redis of its own.
type api struct {
	*httptest.Server
	queue   *queue.Queue
	redis   *miniredis.Miniredis
	metrics *prometheus.Registry
	log     *logbook
}

func serve(t *testing.T, change func(*Options)) *api {
	t.Helper()
	a := &api{redis: miniredis.RunT(t), metrics: prometheus.NewRegistry(), log: &logbook{}}
	client := redis.NewClient(&redis.Options{Addr: a.redis.Addr(), MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	var err error
	if a.queue, err = queue.Open(t.Context(), queue.Options{Client: client, Logger: a.log.logger()}); err != nil {
		t.Fatal(err)
	}
	o := Options{
		Queue: a.queue, Tokens: testTokens(), Gatherer: a.metrics, Registerer: a.metrics, Logger: a.log.logger(), Version: "dev",
	}
	if change != nil {
		change(&o)
	}
	a.Server = httptest.NewServer(NewHandler(o))
	t.Cleanup(a.Close)
	return a
}

// open is how much mail the queue has taken in.
func (a *api) open(t *testing.T) int {
	t.Helper()
	counts, err := a.queue.Counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, k := range counts.Open {
		n += k
	}
	return n
}

// reply is an answer, read to its end.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (r reply) decode(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal(r.body, v); err != nil {
		t.Fatalf("%s: %v", r.body, err)
	}
}

// problem decodes the answer, which has to be a problem with all that belongs to one.
func (r reply) problem(t *testing.T) *Problem {
	t.Helper()
	if got := r.header.Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("%d: Content-Type %q, want a problem: %s", r.status, got, r.body)
	}
	p := &Problem{}
	r.decode(t, p)
	if p.Status != r.status || !strings.HasPrefix(p.Type, "urn:postroom:problem:") || p.Title == "" || p.Detail == "" {
		t.Errorf("status %d with an incomplete problem: %s", r.status, r.body)
	}
	return p
}

// call is one request; header has names and values in turn.
func (a *api) call(t *testing.T, method, path, token, body string, header ...string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, a.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		switch {
		case header[i] == "X-Test-Chunked":
			r.ContentLength = -1
		case header[i+1] == "":
			r.Header.Del(header[i])
		default:
			r.Header.Add(header[i], header[i+1])
		}
	}
	response, err := a.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{response.StatusCode, response.Header, content}
}

const oneMessage = `{"kind": "report", "to": [{"address": "ada@example.net", "name": "Ada"}], "subject": "Numbers", "text": "42",
	"attachments": [{"name": "a.txt", "content": "aGVsbG8="}], "metadata": {"run": "7"}}`

const twoRecipients = `{"message": {"kind": "subscription", "subject": "Hello {{.name}}", "text": "Dear {{.name}}", "metadata": {"run": "8"}},
	"recipients": [{"to": [{"address": "ada@example.net"}], "variables": {"name": "Ada"}},
	               {"to": [{"address": "bob@example.net"}], "variables": {"name": "Bob"}}]}`

func TestAMessageIsAcceptedShownAndCancelled(t *testing.T) {
	a := serve(t, nil)
	r := a.call(t, "POST", "/v1/messages", producerToken, oneMessage)
	var accepted Accepted
	r.decode(t, &accepted)
	if r.status != 202 || accepted.State != "queued" || len(accepted.ID) != 26 || r.header.Get("Idempotency-Replayed") != "" {
		t.Fatalf("%d %s", r.status, r.body)
	}
	var s MessageStatus
	a.call(t, "GET", "/v1/messages/"+accepted.ID, producerToken, "").decode(t, &s)
	if s.ID != accepted.ID || s.Kind != mail.Report || s.State != "queued" || !strings.Contains(s.WaitsFor, "provider is active") || s.Metadata["run"] != "7" ||
		len(s.Recipients) != 1 || s.Recipients[0] != (RecipientStatus{"ada@example.net", "pending"}) || s.Counts.Pending != 1 || s.Attempts == nil {
		t.Errorf("%+v", s)
	}
	path := "/v1/messages/" + accepted.ID + "/cancel"
	for range 2 { // twice is fine
		if r := a.call(t, "POST", path, operatorToken, ""); r.status != 200 || !strings.Contains(string(r.body), `"cancelled"`) {
			t.Errorf("cancel: %d %s", r.status, r.body)
		}
	}
	a.call(t, "GET", "/v1/messages/"+accepted.ID, producerToken, "").decode(t, &s)
	if s.State != "cancelled" || s.Finished.IsZero() {
		t.Errorf("after the cancel: %+v", s)
	}
}

func TestABatchIsAcceptedShownAndCancelled(t *testing.T) {
	a := serve(t, nil)
	r := a.call(t, "POST", "/v1/batches", producerToken, twoRecipients)
	var accepted BatchAccepted
	r.decode(t, &accepted)
	if r.status != 202 || accepted.Accepted != 2 || accepted.Refused != 0 || bytes.Contains(r.body, []byte("recipients")) {
		t.Fatalf("%d %s", r.status, r.body)
	}
	var s BatchStatus
	a.call(t, "GET", "/v1/batches/"+accepted.ID, producerToken, "").decode(t, &s)
	if s.Total != 2 || s.Counts != (BatchCounts{Open: 2}) || s.Progress != 0 || s.Cancelled || s.Metadata["run"] != "8" {
		t.Errorf("%+v", s)
	}
	if r := a.call(t, "POST", "/v1/batches/"+accepted.ID+"/cancel", operatorToken, ""); r.status != 200 {
		t.Errorf("cancel: %d %s", r.status, r.body)
	}
	a.call(t, "GET", "/v1/batches/"+accepted.ID, producerToken, "").decode(t, &s)
	if !s.Cancelled || s.Counts.Cancelled != 2 || s.Progress != 1 {
		t.Errorf("after the cancel: %+v", s)
	}
}

func TestABatchListsItsRecipientsWhenAskedOrWhenOneIsRefused(t *testing.T) {
	a := serve(t, nil)
	var listed BatchAccepted
	a.call(t, "POST", "/v1/batches?list=true", producerToken, twoRecipients).decode(t, &listed)
	if len(listed.Recipients) != 2 || listed.Recipients[1].Index != 1 || len(listed.Recipients[1].ID) != 26 || listed.Recipients[1].Problem != nil {
		t.Errorf("%+v", listed)
	}
	if r := a.call(t, "GET", "/v1/messages/"+listed.Recipients[1].ID, producerToken, ""); r.status != 200 {
		t.Errorf("the second message: %d %s", r.status, r.body)
	}

	var refused BatchAccepted
	r := a.call(t, "POST", "/v1/batches", producerToken, strings.Replace(twoRecipients, "bob@example.net", "bob at home", 1))
	r.decode(t, &refused)
	if r.status != 202 || refused.Accepted != 1 || refused.Refused != 1 || len(refused.Recipients) != 2 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	p := refused.Recipients[1].Problem
	if refused.Recipients[0].ID == "" || refused.Recipients[1].ID != "" || p == nil || p.Type != invalidRecipient.uri() ||
		len(p.Errors) != 1 || p.Errors[0].Location != "/recipients/1/to/0/address" {
		t.Errorf("%s", r.body)
	}
}

func TestIdempotencyKeyGivesTheFirstAnswer(t *testing.T) {
	a := serve(t, nil)
	for path, body := range map[string]string{"/v1/messages": oneMessage, "/v1/batches?list=true": twoRecipients} {
		t.Run(path, func(t *testing.T) {
			first := a.call(t, "POST", path, producerToken, body, "Idempotency-Key", "k-"+path)
			again := a.call(t, "POST", path, producerToken, body, "Idempotency-Key", "k-"+path)
			if first.status != 202 || again.status != 202 || !bytes.Equal(first.body, again.body) ||
				first.header.Get("Idempotency-Replayed") != "" || again.header.Get("Idempotency-Replayed") != "true" {
				t.Errorf("first %d %s %v, then %d %s %v", first.status, first.body, first.header, again.status, again.body, again.header)
			}
			// The same key of another token is another key.
			other := a.call(t, "POST", path, adminToken, body, "Idempotency-Key", "k-"+path)
			if other.status != 202 || bytes.Equal(first.body, other.body) {
				t.Errorf("another token: %d %s", other.status, other.body)
			}
			open := a.open(t)
			conflict := a.call(t, "POST", path, producerToken, strings.Replace(body, `"run": "`, `"run": "9`, 1), "Idempotency-Key", "k-"+path)
			if p := conflict.problem(t); p.Status != 422 || p.Type != idempotencyConflict.uri() || a.open(t) != open {
				t.Errorf("another body: %+v", p)
			}
		})
	}
}

func TestHealthTellsWhatFails(t *testing.T) {
	failing := make(chan error, 1)
	a := serve(t, func(o *Options) {
		o.Ready = func(context.Context) error {
			select {
			case err := <-failing:
				return err
			default:
				return nil
			}
		}
	})
	want := func(path string, status int, body string) {
		t.Helper()
		if r := a.call(t, "GET", path, "", ""); r.status != status || strings.TrimSpace(string(r.body)) != body {
			t.Errorf("%s: %d %s, want %d %s", path, r.status, r.body, status, body)
		}
	}
	want("/livez", 200, `{"status":"ok"}`)
	want("/readyz", 200, `{"status":"ok","checks":{"process":"ok","provider":"ok","redis":"ok","workers":"none"}}`)
	failing <- io.ErrShortBuffer
	want("/readyz", 503, `{"status":"unavailable","checks":{"process":"failed","provider":"ok","redis":"ok","workers":"none"}}`)
	if !strings.Contains(a.log.String(), io.ErrShortBuffer.Error()) {
		t.Error("the log does not say why")
	}
	a.redis.Close()
	want("/readyz", 503, `{"status":"unavailable","checks":{"process":"ok","redis":"failed"}}`)
	want("/livez", 200, `{"status":"ok"}`)
}

func TestRequestsAreCountedByRouteAndNotByPath(t *testing.T) {
	a := serve(t, nil)
	a.call(t, "GET", "/v1/messages/01JZ3Q8Y6M2V7T4K9RBC5XWDHE", producerToken, "")
	a.call(t, "GET", "/secret-path", "", "")
	a.call(t, "BREW", "/livez", "", "")
	metrics := string(a.call(t, "GET", "/metrics", "", "").body)
	for _, line := range []string{
		`postroom_http_requests_total{code="404",method="GET",route="/v1/messages/{id}"} 1`,
		`postroom_http_requests_total{code="404",method="other",route="other"} 1`,
		`postroom_http_requests_total{code="405",method="other",route="other"} 1`,
	} {
		if !strings.Contains(metrics, line) {
			t.Errorf("no line %s in\n%s", line, metrics)
		}
	}
	if strings.Contains(metrics, "secret-path") || strings.Contains(metrics, "01JZ3Q8Y6M2V7T4K9RBC5XWDHE") || strings.Contains(metrics, "BREW") {
		t.Error("a label has what somebody sent")
	}
}
