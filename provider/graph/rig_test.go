package graph

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// call is a request that Graph has seen.
type call struct {
	what   string // method and path, without what is the same in all
	header http.Header
	body   []byte
}

// rig is a sender in front of a scripted Graph.
type rig struct {
	*Sender
	t      *testing.T
	tokens *tokens
	kept   []string // what was noted of the message, in order

	mu    sync.Mutex
	calls []call
}

// tokens gives one token, and another after each Reject.
type tokens struct {
	mu       sync.Mutex
	rejected int
}

func (s *tokens) Token(ctx context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "token" + strings.Repeat("I", s.rejected), nil
}

func (s *tokens) Reject(string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rejected++
}

// reply is what the scripted Graph answers.
type reply struct {
	status int
	body   string
	header http.Header
	cut    bool // hang up instead
}

const (
	box     = "/v1.0/users/reports@example.com"
	created = `{"id": "AAMk/1=", "isDraft": true}`
)

// newRig answers each request by answer, which gets its place, from 0, and what it is.
func newRig(t *testing.T, change func(*provider.Settings), answer func(n int, c call) reply) *rig {
	t.Helper()
	r := &rig{t: t, tokens: &tokens{}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return // the client gave up
		}
		c := call{q.Method + " " + strings.TrimPrefix(q.URL.RequestURI(), box), q.Header, body}
		r.mu.Lock()
		n := len(r.calls)
		r.calls = append(r.calls, c)
		r.mu.Unlock()
		a := answer(n, c)
		if a.cut {
			conn, _, _ := w.(http.Hijacker).Hijack()
			_ = conn.Close()
			return
		}
		for name, values := range a.header {
			w.Header()[name] = values
		}
		w.Header().Set("request-id", "req-1")
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, strings.ReplaceAll(a.body, "HERE", "http://"+q.Host))
	}))
	t.Cleanup(server.Close)
	settings := provider.Settings{Kind: provider.KindMicrosoft365, Sender: mail.Address{Address: "reports@example.com", Name: "Reports"},
		Microsoft365: provider.Microsoft365Settings{TenantID: "example.com", ClientID: "3f7e5c1a-1111-4222-8333-444455556666", ClientSecret: "s", GraphURL: server.URL}}
	if change != nil {
		change(&settings)
	}
	s, err := New(settings, Options{Tokens: r.tokens, Timeout: 5 * time.Second, Patience: 700 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	r.Sender = s
	return r
}

func letter(to ...string) *provider.Delivery {
	m := &mail.Outgoing{ID: "01JZ", From: mail.Address{Address: "reports@example.com", Name: "Reports"}, Subject: "Hello", Text: "Text"}
	for _, a := range to {
		m.To = append(m.To, mail.Address{Address: a})
	}
	return &provider.Delivery{Message: m, Recipients: m.Recipients(), Used: &provider.Usage{}}
}

// withFile adds a file of a size.
func withFile(d *provider.Delivery, name string, size int) *provider.Delivery {
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(i * 7)
	}
	d.Message.Files = append(d.Message.Files, &mail.File{Name: name, ContentType: "application/pdf", Bytes: content})
	return d
}

// deliver makes an attempt whose fence lets it pass, and gives its outcomes.
func (r *rig) deliver(d *provider.Delivery) []mail.Outcome {
	r.t.Helper()
	fenced := 0
	d.Fence = func() error { fenced++; return nil }
	d.Keep = func(kept string) error { r.kept = append(r.kept, kept); return nil }
	out, err := r.Send(r.t.Context(), d)
	if err != nil {
		r.t.Fatal(err)
	}
	if len(out) != len(d.Recipients) {
		r.t.Fatalf("%d outcomes for %d recipients", len(out), len(d.Recipients))
	}
	for _, o := range out {
		if (o.Class == mail.Delivered || o.Class == mail.Unknown) && fenced != 1 {
			r.t.Errorf("%s with the fence called %d times", o.Class, fenced)
		}
		if len(o.Reply) > 400 || strings.Contains(o.Reply, "token") {
			r.t.Errorf("reply %q", o.Reply)
		}
	}
	return out
}

// seen lists what Graph was asked for.
func (r *rig) seen() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, c := range r.calls {
		all = append(all, c.what)
	}
	return strings.Join(all, ", ")
}

func (c *call) json(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(c.body, &v); err != nil {
		t.Fatalf("%s: %v", c.what, err)
	}
	return v
}
