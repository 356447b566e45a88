package admin

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// left tells how many keys of content there are, of files or of mail.
func (a *api) left() int {
	n := 0
	for _, key := range a.redis.Keys() {
		if strings.Contains(key, "}:c:") || strings.Contains(key, "}:a:") {
			n++
		}
	}
	return n
}

func TestAFileIsStoredAndReferredTo(t *testing.T) {
	a := serve(t, nil)
	content := strings.Repeat("0123456789\xff\x00\r\n", 100_000) // several pieces
	sum := sha256.Sum256([]byte(content))
	asForm := append(formOf[:2:2], "Content-Type", formData+"; boundary=b")
	for name, test := range map[string]struct {
		path, body string
		header     []string
		want       Content
	}{
		"as it is": {"/v1/contents?name=a.pdf", content, []string{"Content-Type", "", "Content-Type", "Application/PDF"}, Content{Name: "a.pdf", ContentType: "application/pdf"}},
		"no type":  {"/v1/contents?name=a.csv", content, []string{"Content-Type", ""}, Content{Name: "a.csv", ContentType: "text/csv"}},
		"a form":   {"/v1/contents", formPart("b.png", content) + "--b--\r\n", asForm, Content{Name: "b.png", ContentType: "image/png"}},
		"renamed":  {"/v1/contents?name=c.txt", formPart("b.png", content) + "--b--\r\n", asForm, Content{Name: "c.txt", ContentType: "text/plain"}},
		"no length": {"/v1/contents?name=a.pdf", content, []string{"Content-Type", "", "X-Test-Chunked", "yes"},
			Content{Name: "a.pdf", ContentType: "application/pdf"}},
	} {
		var c, told Content
		r := a.call(t, "POST", test.path, producerToken, test.body, test.header...)
		r.decode(t, &c)
		test.want.ID, test.want.Bytes, test.want.SHA256, test.want.ExpiresAt = c.ID, int64(len(content)), hex.EncodeToString(sum[:]), c.ExpiresAt
		if r.status != 201 || c != test.want || len(c.ID) != 26 || time.Until(c.ExpiresAt) < 23*time.Hour {
			t.Errorf("%s: %d %s, want %+v", name, r.status, r.body, test.want)
		}
		a.call(t, "GET", "/v1/contents/"+c.ID, producerToken, "").decode(t, &told)
		if told != c {
			t.Errorf("%s: it is told as %+v", name, told)
		}
	}
}

func TestClientStoresAFileAndRefersToIt(t *testing.T) {
	a := serve(t, nil)
	client, err := NewClient(a.URL, producerToken, nil)
	if err != nil {
		t.Fatal(err)
	}
	content := bytes.Repeat([]byte("report "), 200_000)
	c, err := client.StoreContent(t.Context(), "a b&c.pdf", "", iotest.HalfReader(bytes.NewReader(content)))
	if err != nil || c.Name != "a b&c.pdf" || c.Bytes != int64(len(content)) {
		t.Fatalf("%+v, %v", c, err)
	}
	accepted, err := client.SendBatch(t.Context(), mail.Batch{
		Message: mail.Message{Kind: mail.Report, Subject: "s", Text: "t", Attachments: []mail.Attachment{{Ref: c.ID}}},
		Recipients: []mail.Recipient{{To: []mail.Address{{Address: "ada@example.net"}}, Attachments: []mail.Attachment{{Ref: c.ID, Name: "own.pdf"}}},
			{To: []mail.Address{{Address: "bob@example.net"}}, Attachments: []mail.Attachment{{Ref: oneID}}}},
	}, "")
	if err != nil || accepted.Accepted != 1 || accepted.Recipients[1].Problem.Errors[0].Location != "/recipients/1/attachments/0/ref" {
		t.Fatalf("%+v, %v", accepted, err)
	}
	m, err := a.queue.Outgoing(t.Context(), accepted.Recipients[0].ID)
	if err != nil || len(m.Files) != 2 || m.Files[1].Name != "own.pdf" || !bytes.Equal(m.Files[1].Bytes, content) {
		t.Errorf("%+v, %v", m, err)
	}
	if held, err := client.Content(t.Context(), c.ID); err != nil || held.Shares != 2 || !held.ExpiresAt.IsZero() {
		t.Errorf("%+v, %v", held, err)
	}
	// A stream of lines takes refs too.
	lines := fmt.Sprintf("{\"kind\":\"report\",\"subject\":\"s\",\"text\":\"t\"}\n{\"to\":[{\"address\":\"ada@example.net\"}],\"attachments\":[{\"ref\":%q}]}\n", c.ID)
	if r := a.call(t, "POST", "/v1/batches", producerToken, lines, "Content-Type", "", "Content-Type", ndjson); r.status != 202 {
		t.Errorf("%d %s", r.status, r.body)
	}
}

func TestAnUploadHasItsTimeAnewAsLongAsItGoesOn(t *testing.T) {
	renewed := 0
	p := &patient{r: bytes.NewReader(make([]byte, 3*patientBytes)), renew: func() { renewed++ }}
	n, err := io.Copy(io.Discard, struct{ io.Reader }{p})
	if n != 3*patientBytes || err != nil || renewed < 3 || renewed > 4 {
		t.Errorf("%d bytes, with time given %d times", n, renewed)
	}
	late := &patient{r: iotest.ErrReader(os.ErrDeadlineExceeded), renew: func() {}}
	var told *Problem
	if _, err = late.Read(make([]byte, 1)); !errors.As(err, &told) || told.Type != bodyTooSlow.uri() {
		t.Errorf("too late: %v", err)
	}
}

func TestAFileThatIsNotTakenLeavesNothing(t *testing.T) {
	server := miniredis.RunT(t)
	limited := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer limited.Close()
	q, err := queue.Open(t.Context(), queue.Options{Client: limited, Limits: mail.Limits{MaxBytes: 1 << 20}, ContentMaxBytes: 3 << 19})
	if err != nil {
		t.Fatal(err)
	}
	a := serve(t, func(o *Options) { o.Queue = q })
	a.redis = server
	large := strings.Repeat("x", 1<<20+1)
	store := func(body string) reply {
		return a.call(t, "POST", "/v1/contents?name=a.bin", producerToken, body, "Content-Type", "")
	}
	if p := store(large).problem(t); p.Type != bodyTooLarge.uri() || a.left() != 0 {
		t.Errorf("too large: %+v, and %d keys are left", p, a.left())
	}
	if r := store(large[1:]); r.status != 201 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	before := a.left()
	if p := store(large[1:]).problem(t); p.Type != full.uri() || a.left() != before {
		t.Errorf("no room: %+v, and %d keys instead of %d", p, a.left(), before)
	}

	// A client that ends half-way.
	conn, err := net.Dial("tcp", a.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/contents?name=a.bin HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 700000\r\n\r\n%s", producerToken, large[:10_000])
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(answer), incompleteBody.uri()) || a.left() != before {
		t.Errorf("cut off: %s, %v, and %d keys instead of %d", answer, err, a.left(), before)
	}
}
