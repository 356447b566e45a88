package admin

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

const streamMessage = `{"kind": "subscription", "subject": "Hello {{.name}}", "text": "Dear {{.name}}"}`

func streamOf(n int) string {
	var b strings.Builder
	b.WriteString(streamMessage + "\n")
	for i := range n {
		fmt.Fprintf(&b, `{"to": [{"address": "r%d@example.net"}], "variables": {"name": "N%d"}}`+"\n", i, i)
	}
	return b.String()
}

// stream hands lines in.
func (a *api) stream(t *testing.T, path, body string, header ...string) reply {
	t.Helper()
	return a.call(t, "POST", path, producerToken, body, append([]string{"Content-Type", "", "Content-Type", ndjson}, header...)...)
}

func accepted(t *testing.T, r reply) BatchAccepted {
	t.Helper()
	var b BatchAccepted
	if err := json.Unmarshal(r.body, &b); err != nil || r.status != http.StatusAccepted {
		t.Fatalf("%d %s, %v", r.status, r.body, err)
	}
	return b
}

func TestABatchCanComeLineByLine(t *testing.T) {
	a := serve(t, nil)
	b := accepted(t, a.stream(t, "/v1/batches", streamOf(450)))
	if b.Accepted != 450 || b.Refused != 0 || b.Recipients != nil {
		t.Errorf("%+v", b)
	}
	s, err := a.queue.Batch(t.Context(), b.ID)
	if err != nil || s.Open != 450 {
		t.Errorf("%+v, %v", s, err)
	}
	listed := accepted(t, a.stream(t, "/v1/batches?list=true", strings.TrimSuffix(streamOf(3), "\n"))) // the last line needs no end
	if len(listed.Recipients) != 3 || listed.Recipients[2].Index != 2 {
		t.Fatalf("%+v", listed)
	}
	m, err := a.queue.Message(t.Context(), listed.Recipients[2].ID)
	if err != nil || m.Recipients[0].Address != "r2@example.net" || m.BatchID != listed.ID {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestAStreamRefusesAsABatchDoes(t *testing.T) {
	wrong := strings.Replace(strings.Replace(streamOf(5), "r1@example.net", "r1 at home", 1), `"name": "N3"`, `"nam": "N3"`, 1)
	for name, test := range map[string]struct {
		path, body string
		header     []string
		want       refusal
		at, detail string
		reason     string
	}{
		"strict":              {path: "/v1/batches?mode=strict", body: wrong, want: invalidMessage, at: "/recipients/1/to/0/address,/recipients/3/variables/name,/recipients/3/variables/name"},
		"all of them":         {body: strings.ReplaceAll(streamOf(2), "@example.net", " at home"), want: invalidMessage, at: "/recipients/0/to/0/address,/recipients/1/to/0/address"},
		"all of a message":    {body: strings.Replace(strings.Replace(streamOf(3), `"subject"`, `"subjekt"`, 1), "subscription", "newsletter", 1), want: invalidRequest, at: "/message/subjekt,/message/kind"},
		"empty":               {body: "\n\n", want: malformedJSON, detail: "the first line is the message"},
		"no recipient":        {body: streamMessage, want: invalidMessage, at: "/recipients"},
		"a broken line":       {body: strings.Replace(streamOf(3), `{"to": [{"address": "r1@`, `{"to": [{"address: "r1@`, 1), want: malformedJSON, detail: "Line 3 stops being JSON at byte 21."},
		"a wrong field":       {body: strings.Replace(streamOf(3), `"to": [{"address": "r1@`, `"too": [{"address": "r1@`, 1), want: invalidRequest, at: "/recipients/1/too"},
		"a wrong message":     {body: strings.Replace(streamOf(3), `"subject"`, `"subjekt"`, 1), want: invalidRequest, at: "/message/subjekt"},
		"an invalid message":  {body: strings.Replace(streamOf(3), "subscription", "newsletter", 1), want: invalidMessage, at: "/message/kind"},
		"a long line":         {body: streamOf(1) + `{"to": [{"address": "` + strings.Repeat("x", maxLine) + `"}]}`, want: bodyTooLarge, detail: "Line 3"},
		"compressed":          {body: streamOf(3), header: []string{"Content-Encoding", "gzip"}, want: wrongMediaType},
		"of no mode":          {path: "/v1/batches?mode=maybe", body: streamOf(3), want: invalidRequest, at: "query.mode", reason: "is none of permissive, strict"},
		"as another JSON one": {path: "/v1/batches", body: streamOf(3), header: []string{"Content-Type", "", "Content-Type", "application/json"}, want: malformedJSON},
	} {
		t.Run(name, func(t *testing.T) {
			a := serve(t, nil)
			path := test.path
			if path == "" {
				path = "/v1/batches"
			}
			p := a.stream(t, path, test.body, test.header...).problem(t)
			var at []string
			for _, f := range p.Errors {
				at = append(at, f.Location)
			}
			if p.Type != test.want.uri() || strings.Join(at, ",") != test.at || !strings.Contains(p.Detail, test.detail) ||
				test.reason != "" && p.Errors[0].Reason != test.reason {
				t.Errorf("%+v, want %s at %q", p, test.want.name, test.at)
			}
			if left := a.redis.Keys(); len(left) > 0 && strings.Contains(strings.Join(left, " "), ":m:") {
				t.Errorf("something is left: %v", left)
			}
		})
	}
}

func TestAPermissiveStreamReportsWhoIsRefused(t *testing.T) {
	a := serve(t, nil)
	b := accepted(t, a.stream(t, "/v1/batches", strings.Replace(streamOf(5), "r1@example.net", "r1 at home", 1)))
	if b.Accepted != 4 || b.Refused != 1 || len(b.Recipients) != 1 || b.Recipients[0].Index != 1 || b.Recipients[0].Problem.Errors[0].Location != "/recipients/1/to/0/address" {
		t.Errorf("%+v", b)
	}
}

func TestAStreamIsAcceptedOnceForItsKey(t *testing.T) {
	a := serve(t, nil)
	key := []string{"Idempotency-Key", "batch-7"}
	body := strings.Replace(streamOf(300), "r1@example.net", "r1 at home", 1)
	first := a.stream(t, "/v1/batches", body, key...)
	again := a.stream(t, "/v1/batches", body, key...)
	if string(first.body) != string(again.body) || again.header.Get("Idempotency-Replayed") != "true" || first.header.Get("Idempotency-Replayed") != "" {
		t.Errorf("%s\n%s", first.body, again.body)
	}
	if p := a.stream(t, "/v1/batches", streamOf(299), key...).problem(t); p.Type != idempotencyConflict.uri() {
		t.Errorf("another body: %+v", p)
	}
	if counts, err := a.queue.Counts(t.Context()); err != nil || counts.Open["subscription"] != 299 {
		t.Errorf("%+v, %v", counts, err)
	}
}

// A request that is still under way tells the same one to come back; one that was cut leaves nothing, and can be repeated.
func TestARequestUnderWayHoldsItsKey(t *testing.T) {
	a := serve(t, nil)
	read, write := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, a.URL+"/v1/batches", read)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+producerToken)
	r.Header.Set("Content-Type", ndjson)
	r.Header.Set("Idempotency-Key", "batch-8")
	ended := make(chan error, 1)
	go func() {
		response, err := http.DefaultClient.Do(r)
		if err == nil {
			_ = response.Body.Close()
		}
		ended <- err
	}()
	half := streamOf(250)
	if _, err := io.WriteString(write, half[:len(half)/2]); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(write, half[len(half)/2:]); err != nil {
		t.Fatal(err)
	}
	key := []string{"Idempotency-Key", "batch-8"}
	deadline := time.Now().Add(20 * time.Second)
	for !slices.ContainsFunc(a.redis.Keys(), func(name string) bool { return strings.Contains(name, ":i:") }) {
		if time.Now().After(deadline) {
			t.Fatal("the key is not held")
		}
		runtime.Gosched() // what was written is on its way still
	}
	running := a.stream(t, "/v1/batches", streamOf(1), key...)
	if p := running.problem(t); p.Type != idempotencyRunning.uri() || running.header.Get("Retry-After") == "" {
		t.Errorf("%+v", p)
	}
	_ = write.CloseWithError(io.ErrUnexpectedEOF)
	<-ended
	// The server drops what it has when it finds that its client has gone.
	for {
		r := a.stream(t, "/v1/batches", streamOf(250), key...)
		if r.status == http.StatusAccepted {
			if b := accepted(t, r); b.Accepted != 250 {
				t.Errorf("%+v", b)
			}
			break
		}
		if p := r.problem(t); p.Type != idempotencyRunning.uri() || time.Now().After(deadline) {
			t.Fatalf("%+v", p)
		}
	}
	if counts, err := a.queue.Counts(t.Context()); err != nil || counts.Open["subscription"] != 250 {
		t.Errorf("%+v, %v", counts, err)
	}
}

// Whatever a body is cut into, its lines are the same, none is longer than it may be, and nothing panics.
func FuzzLines(f *testing.F) {
	f.Add([]byte("{}\n{}\r\n\n x"), 3, int64(10))
	f.Add([]byte(strings.Repeat("x", 200)), 64, int64(100))
	f.Add([]byte("\n\n"), 1, int64(1))
	f.Fuzz(func(t *testing.T, body []byte, piece int, limit int64) {
		piece, limit = max(1, piece%100), max(1, limit%1000)
		l := &lines{r: bufio.NewReaderSize(iotest.OneByteReader(bytes.NewReader(body)), 16), renew: func() {}}
		if piece > 1 {
			l.r = bufio.NewReaderSize(bytes.NewReader(body), 16+piece)
		}
		var got []string
		for {
			line, err := l.next(limit)
			if errors.Is(err, io.EOF) {
				break
			}
			var p *Problem
			if errors.As(err, &p) {
				if p.Type != bodyTooLarge.uri() || !slices.ContainsFunc(bytes.Split(body, []byte("\n")), func(one []byte) bool { return int64(len(one)+1) > limit }) {
					t.Fatalf("%v of %q", err, body)
				}
				return
			}
			if int64(len(line)) > limit || err != nil {
				t.Fatalf("%q, %v", line, err)
			}
			got = append(got, string(line))
		}
		var want []string
		for one := range bytes.SplitSeq(body, []byte("\n")) {
			if one = bytes.TrimSpace(one); len(one) > 0 {
				want = append(want, string(one))
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q, want %q", got, want)
		}
	})
}
