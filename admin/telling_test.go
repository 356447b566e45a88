package admin

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
)

// readers gives n recipients, one of them without a name, and then the error. Before each it calls.
func readers(n, nameless int, last error, before func()) func(func(mail.Recipient, error) bool) {
	return func(yield func(mail.Recipient, error) bool) {
		for i := range n {
			before()
			r := mail.Recipient{To: []mail.Address{{Address: fmt.Sprintf("r%d@example.net", i)}}, Variables: map[string]any{"name": "N"}}
			if i == nameless {
				r.Variables = nil
			}
			if !yield(r, nil) {
				return
			}
		}
		if last != nil {
			yield(mail.Recipient{}, last)
		}
	}
}

func TestAStreamTellsHowFarItIs(t *testing.T) {
	a := serve(t, nil)
	a.serveHandler(t, Options{}, nil).tellEvery = 0
	c, err := NewClient(a.URL, producerToken, a.Client())
	if err != nil {
		t.Fatal(err)
	}
	m := mail.Message{Kind: mail.Subscription, Subject: "Hello {{.name}}", Text: "Dear {{.name}}"}
	var told []BatchProgress
	began := make(chan struct{}, 1)
	o := StreamOptions{IdempotencyKey: "k", Progress: func(p BatchProgress) {
		if told = append(told, p); len(told) == 1 {
			began <- struct{}{}
		}
	}}
	// No recipient is made before the server has said that it takes the message.
	begun := func() {
		if began != nil {
			select {
			case <-began:
				began = nil
			case <-t.Context().Done():
			}
		}
	}
	first, err := c.StreamBatch(t.Context(), m, readers(450, 3, nil, begun), o)
	if err != nil || first.ID == "" || first.Accepted != 449 || first.Refused != 1 || len(first.Recipients) != 1 || first.Recipients[0].Index != 3 ||
		first.Recipients[0].Problem == nil || first.Replayed {
		t.Fatalf("%+v, %v", first, err)
	}
	for i, p := range told {
		if want := (BatchProgress{Read: i, Refused: min(1, i/4)}); p != want {
			t.Fatalf("line %d: %+v", i, p)
		}
	}
	if len(told) != 451 {
		t.Errorf("%d lines", len(told))
	}

	o.Progress = func(BatchProgress) {}
	none := func() {}
	again, err := c.StreamBatch(t.Context(), m, readers(450, 3, nil, none), o)
	if err != nil || !again.Replayed || again.ID != first.ID || again.Refused != 1 {
		t.Errorf("once more: %+v, %v", again, err)
	}
	var p *Problem
	if _, err := c.StreamBatch(t.Context(), m, readers(9, -1, nil, none), o); !errors.As(err, &p) || p.Type != idempotencyConflict.uri() || p.Status != 422 {
		t.Errorf("another batch with the key: %v", err)
	}
	o.IdempotencyKey, o.Strict = "", true
	if _, err := c.StreamBatch(t.Context(), m, readers(9, 3, nil, none), o); !errors.As(err, &p) || p.Type != invalidMessage.uri() || len(p.Errors) == 0 ||
		p.Errors[0].Location != "/recipients/3/variables/name" {
		t.Errorf("strict: %v", err)
	}
	failed := errors.New("the producer has failed")
	if _, err := c.StreamBatch(t.Context(), m, readers(20_000, -1, failed, none), o); !errors.Is(err, failed) {
		t.Errorf("a producer that fails: %v", err)
	}
	if _, err := c.StreamBatch(t.Context(), mail.Message{Kind: "newsletter", Text: "t"}, readers(9, -1, nil, none), o); !errors.As(err, &p) ||
		p.Type != invalidMessage.uri() || p.Errors[0].Location != "/message/kind" {
		t.Errorf("a message that is refused: %v", err)
	}
	await(t, "what was refused to be dropped", func() bool { return a.open(t) == 449 })
}

// What goes wrong later has to be said in the last line, with what a header would say.
func TestARedisThatGoesAwayInTheMiddleOfAStreamIsItsLastLine(t *testing.T) {
	a := serve(t, nil)
	c, err := NewClient(a.URL, producerToken, a.Client())
	if err != nil {
		t.Fatal(err)
	}
	began := make(chan struct{}, 1)
	gone := sync.OnceFunc(func() {
		<-began
		a.redis.Close()
	})
	var p *Problem
	_, err = c.StreamBatch(t.Context(), mail.Message{Kind: mail.Report, Subject: "s", Text: "t"}, readers(9, -1, nil, gone),
		StreamOptions{Progress: func(p BatchProgress) {
			if p.Read == 0 {
				began <- struct{}{}
			}
		}})
	if !errors.As(err, &p) || p.Type != unavailable.uri() || p.Status != 503 || p.RetryAfter != 5*time.Second {
		t.Errorf("%v", err)
	}
}

// A client of the simple sort writes all, and then reads: it still gets its answer, whose last line says what was wrong in the middle.
func TestWhoeverReadsWhenAllIsSentStillSeesTheLastLine(t *testing.T) {
	a := serve(t, nil)
	for name, test := range map[string]struct {
		spoil func(string) string
		want  string
	}{
		"accepted": {func(s string) string { return s }, `"accepted":9000,"refused":0`},
		"refused": {func(s string) string {
			return strings.Replace(s, `{"to": [{"address": "r5@`, `{"to": [{"address: "r5@`, 1)
		}, malformedJSON.uri()},
	} {
		t.Run(name, func(t *testing.T) {
			conn := connect(t, a.Server)
			if err := conn.SetWriteBuffer(16 << 10); err != nil {
				t.Fatal(err)
			}
			body := test.spoil(streamOf(9000))
			if _, err := io.WriteString(conn, half("/v1/batches", producerToken, ndjson, "Accept: "+ndjson)+announced(len(body))+body); err != nil {
				t.Fatalf("write: %v", err)
			}
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			answer, err := io.ReadAll(response.Body)
			if err != nil || response.StatusCode != 200 || !strings.Contains(string(answer), test.want) {
				t.Errorf("%d %s, %v", response.StatusCode, answer, err)
			}
		})
	}
}
