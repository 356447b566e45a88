package admin

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
)

func TestClientHandsInShowsAndCancels(t *testing.T) {
	a := serve(t, nil)
	// Behind a proxy that gives the API a path of its own.
	proxied := httptest.NewServer(http.StripPrefix("/mail", a.Config.Handler))
	defer proxied.Close()
	c, err := NewClient(proxied.URL+"/mail/", operatorToken, proxied.Client())
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()

	m := mail.Message{Kind: mail.Alert, To: []mail.Address{{Address: "ada@example.net"}}, Subject: "Fire", Text: "Run",
		Attachments: []mail.Attachment{{Name: "map.png", Content: []byte{0, 255}}}, ExpiresAt: time.Now().Add(time.Hour)}
	sent, err := c.Send(ctx, m, "k1")
	if err != nil || sent.ID == "" || sent.State != "queued" || sent.Replayed {
		t.Fatalf("%+v, %v", sent, err)
	}
	if again, err := c.Send(ctx, m, "k1"); err != nil || again.ID != sent.ID || !again.Replayed {
		t.Errorf("repeated: %+v, %v", again, err)
	}
	if s, err := c.Message(ctx, sent.ID); err != nil || s.ID != sent.ID || s.Kind != mail.Alert || s.State != "queued" {
		t.Errorf("%+v, %v", s, err)
	}
	if err := c.CancelMessage(ctx, sent.ID); err != nil {
		t.Error(err)
	}

	b := mail.Batch{Message: mail.Message{Kind: mail.Report, Subject: "Hello {{.name}}", Text: "x"}, Recipients: []mail.Recipient{
		{To: []mail.Address{{Address: "ada@example.net"}}, Variables: map[string]any{"name": "Ada", "n": 7}},
		{To: []mail.Address{{Address: "bob@example.net"}}},
	}}
	batch, err := c.SendBatch(ctx, b, "k2")
	if err != nil || batch.Accepted != 1 || batch.Refused != 1 || batch.Recipients[1].Problem.Errors[0].Location != "/recipients/1/variables/name" {
		t.Fatalf("%+v, %v", batch, err)
	}
	if again, err := c.SendBatch(ctx, b, "k2"); err != nil || again.ID != batch.ID || !again.Replayed {
		t.Errorf("repeated: %+v, %v", again, err)
	}
	if err := c.CancelBatch(ctx, batch.ID); err != nil {
		t.Error(err)
	}
	if s, err := c.Batch(ctx, batch.ID); err != nil || s.Total != 1 || s.Counts.Cancelled != 1 || !s.Cancelled {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestClientGivesProblems(t *testing.T) {
	a := serve(t, nil)
	c, err := NewClient(a.URL, producerToken, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Send(t.Context(), mail.Message{Kind: "x", Subject: "a\nb", Text: "t", To: []mail.Address{{Address: "ada"}}}, "")
	var p *Problem
	if !errors.As(err, &p) || p.Status != 422 || p.Type != invalidMessage.uri() || len(p.Errors) != 3 {
		t.Fatalf("%v", err)
	}
	if text := err.Error(); !strings.Contains(text, "/to/0/address is not an address") || strings.Contains(text, "ada,") {
		t.Errorf("%q", text)
	}
	for id, want := range map[string]refusal{"01JZ3Q8Y6M2V7T4K9RBC5XWDHE": notFound, "a/b?c#d": notFound, "..": noSuchEndpoint} {
		if _, err := c.Message(t.Context(), id); !errors.As(err, &p) || p.Type != want.uri() {
			t.Errorf("%q: %v", id, err)
		}
	}
	if err := c.CancelBatch(t.Context(), "01JZ3Q8Y6M2V7T4K9RBC5XWDHE"); !errors.As(err, &p) || p.Status != 403 {
		t.Errorf("cancel as a producer: %v", err)
	}
	a.redis.Close()
	if _, err := c.Send(t.Context(), mail.Message{Kind: mail.Alert, Text: "t", To: []mail.Address{{Address: "ada@example.net"}}}, ""); !errors.As(err, &p) ||
		p.Status != 503 || p.RetryAfter != 5*time.Second {
		t.Errorf("without Redis: %v", err)
	}
}

func TestClientTellsWhatIsNotFromTheAPI(t *testing.T) {
	answers := map[string]http.HandlerFunc{
		"/v1/messages/html": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusBadGateway)
			_, _ = w.Write([]byte("<h1>Bad gateway"))
		},
		"/v1/messages/broken": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusConflict)
			_, _ = w.Write([]byte(`{"type": "urn:x", "status": 7`))
		},
		"/v1/messages/page": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<h1>Hello")) },
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answers[r.URL.Path](w, r) }))
	defer server.Close()
	c, err := NewClient(server.URL, "t", server.Client())
	if err != nil {
		t.Fatal(err)
	}
	var p *Problem
	if _, err := c.Message(t.Context(), "html"); !errors.As(err, &p) || p.Status != 502 || p.Title != "Bad Gateway" || p.Type != "about:blank" || p.RetryAfter != 7*time.Second {
		t.Errorf("html: %v", err)
	}
	if _, err := c.Message(t.Context(), "broken"); !errors.As(err, &p) || p.Status != 409 || p.Type != "about:blank" {
		t.Errorf("broken: %v", err)
	}
	if _, err := c.Message(t.Context(), "page"); err == nil || errors.As(err, &p) {
		t.Errorf("page: %v", err)
	}
	server.Close()
	if _, err := c.Message(t.Context(), "html"); err == nil || errors.As(err, &p) {
		t.Errorf("nobody there: %v", err)
	}
}

func TestNewClientRefusesURLsThatCannotBe(t *testing.T) {
	for _, u := range []string{"", "localhost:8080", "ftp://x", "https://", "https://user:secret@x", "https://x?y", "https://x#y", "http://[::1"} {
		if _, err := NewClient(u, "t", nil); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", u, err)
		}
	}
}
