package smtptest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"
)

// deliver sends raw by a client that is not ours.
func deliver(t *testing.T, b *Inbox, from string, to []string, raw string) error {
	t.Helper()
	c, err := gosmtp.Dial(b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	return c.SendMail(from, to, strings.NewReader(raw))
}

func newInbox(t *testing.T, opts InboxOptions) *Inbox {
	t.Helper()
	b, err := NewInbox(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func TestInboxKeepsWhatItReceives(t *testing.T) {
	b := newInbox(t, InboxOptions{MaxMessages: 3})
	for i := range 5 {
		if err := deliver(t, b, "reports@example.com", []string{"ada@example.org", "bob@example.org"}, fmt.Sprintf("Subject: %d\r\n\r\n.dot\r\n", i)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := b.WaitFor(ctx, 5); err != nil {
		t.Fatal(err)
	}
	messages := b.Messages()
	if len(messages) != 3 || b.Received() != 5 || b.Connections() != 5 {
		t.Fatalf("%d kept, %d received, %d connections", len(messages), b.Received(), b.Connections())
	}
	last := messages[2]
	if last.ID != 5 || last.From != "reports@example.com" || fmt.Sprint(last.To) != "[ada@example.org bob@example.org]" || string(last.Raw) != "Subject: 4\r\n\r\n.dot\r\n" {
		t.Errorf("%+v with %q", last, last.Raw)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

func TestInboxBoundsBytes(t *testing.T) {
	b := newInbox(t, InboxOptions{MaxBytes: 100})
	for range 3 {
		if err := deliver(t, b, "a@example.com", []string{"b@example.org"}, "Subject: x\r\n\r\n"+strings.Repeat("x", 50)+"\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(b.Messages()); n != 1 || b.Received() != 3 {
		t.Errorf("%d kept of %d", n, b.Received())
	}
}

func TestInboxRefuses(t *testing.T) {
	b := newInbox(t, InboxOptions{
		OnMail: func(from string) error {
			if from == "spam@example.com" {
				return Refuse(550, "5.7.1", "not you")
			}
			return nil
		},
		OnRcpt: func(to string) error {
			if to == "gone@example.org" {
				return Refuse(550, "5.1.1", "no such user")
			}
			return nil
		},
		OnData: func(m *Message) error {
			if strings.Contains(string(m.Raw), "virus") {
				return Refuse(554, "", "no")
			}
			return nil
		},
	})
	for _, v := range []struct {
		from, to, raw string
		code          int
	}{
		{"spam@example.com", "ada@example.org", "x\r\n", 550},
		{"a@example.com", "gone@example.org", "x\r\n", 550},
		{"a@example.com", "ada@example.org", "virus\r\n", 554},
		{"a@example.com", "ada@example.org", "fine\r\n", 0},
	} {
		err := deliver(t, b, v.from, []string{v.to}, v.raw)
		var refused *gosmtp.SMTPError
		if v.code == 0 && err != nil || v.code != 0 && (!errors.As(err, &refused) || refused.Code != v.code) {
			t.Errorf("%+v: %v", v, err)
		}
	}
	if b.Received() != 1 {
		t.Errorf("%d received, want 1", b.Received())
	}
}

func TestWaitForEndsWithItsContext(t *testing.T) {
	b := newInbox(t, InboxOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.WaitFor(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := b.WaitFor(ctx, 0); err != nil {
		t.Errorf("nothing to wait for: %v", err)
	}
}

const sample = "From: =?utf-8?q?J=C3=BCrgen?= <reports@example.com>\r\n" +
	"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= <script>alert(1)</script>\r\n" +
	"MIME-Version: 1.0\r\n" +
	"Content-Type: multipart/mixed; boundary=outer\r\n\r\n" +
	"--outer\r\nContent-Type: multipart/related; boundary=inner\r\n\r\n" +
	"--inner\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<p style=3D\"color:red\">Hi</p><img src=3D\"cid:logo\">\r\n" +
	"--inner\r\nContent-Type: image/png\r\nContent-ID: <logo>\r\nContent-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n--inner--\r\n" +
	"--outer\r\nContent-Type: text/plain\r\n\r\nHello <b>\r\n" +
	"--outer\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=\"report.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\nJVBE\r\nRi0=\r\n" +
	"--outer--\r\n"

func get(t *testing.T, b *Inbox, path string) (int, string, map[string][]string) {
	t.Helper()
	w := httptest.NewRecorder()
	b.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	text, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	if csp := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") {
		t.Errorf("%s: policy %q", path, csp)
	}
	return w.Code, string(text), w.Header()
}

func TestInboxPages(t *testing.T) {
	b := newInbox(t, InboxOptions{})
	if _, page, _ := get(t, b, "/"); !strings.Contains(page, "No mail yet") {
		t.Errorf("empty: %s", page)
	}
	if err := deliver(t, b, "bounce@example.com", []string{"ada@example.org", "bob@example.org"}, sample); err != nil {
		t.Fatal(err)
	}

	_, list, _ := get(t, b, "/")
	for _, want := range []string{"Jürgen", "Grüße", "ada@example.org and 1 more", `href="m/1"`, "&lt;script&gt;"} {
		if !strings.Contains(list, want) {
			t.Errorf("the list has no %q: %s", want, list)
		}
	}
	_, page, _ := get(t, b, "/m/1")
	for _, want := range []string{
		"bounce@example.com", "ada@example.org, bob@example.org", "Hello &lt;b&gt;", "report.pdf", `href="1/files/1"`, "<iframe sandbox ",
		`srcdoc="&lt;p style=&#34;color:red&#34;&gt;Hi&lt;/p&gt;&lt;img src=&#34;data:image/png;base64,aGVsbG8=&#34;&gt;`,
		fmt.Sprintf("%x", sha256.Sum256([]byte("%PDF-"))), "application/pdf, 5 B", "Content-Type: multipart/mixed",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q: %s", want, page)
		}
	}
	for _, text := range []string{list, page} {
		if strings.Contains(text, "<script") || strings.Contains(text, "<b>") {
			t.Errorf("content broke out: %s", text)
		}
	}
	_, file, header := get(t, b, "/m/1/files/1")
	if file != "%PDF-" || header["Content-Disposition"][0] != "attachment; filename=report.pdf" || header["Content-Type"][0] != "application/octet-stream" {
		t.Errorf("file %q with %v", file, header)
	}
	if _, raw, _ := get(t, b, "/m/1/raw"); raw != sample {
		t.Errorf("source: %q", raw)
	}
	if code, _, header := get(t, b, "/style.css"); code != 200 || !strings.HasPrefix(header["Content-Type"][0], "text/css") {
		t.Errorf("style sheet: %d %v", code, header)
	}
	for _, path := range []string{"/m/2", "/m/x", "/m/1/files/2", "/m/1/files/-1", "/m/1/files/x", "/other"} {
		if code, _, _ := get(t, b, path); code != 404 {
			t.Errorf("%s: %d, want 404", path, code)
		}
	}
}

func TestInboxListGoesByPages(t *testing.T) {
	b := newInbox(t, InboxOptions{})
	for i := range pageLength + 10 {
		b.keep(&Message{From: "a@example.com", To: []string{"b@example.org"}, Raw: fmt.Appendf(nil, "Subject: number %d.\r\n\r\n", i+1)})
	}
	_, first, _ := get(t, b, "/")
	if !strings.Contains(first, "number 60.") || !strings.Contains(first, "number 11.") || strings.Contains(first, "number 10.") || !strings.Contains(first, `href="?before=11"`) {
		t.Errorf("first page: %s", first)
	}
	_, second, _ := get(t, b, "/?before=11")
	if !strings.Contains(second, "number 10.") || !strings.Contains(second, "number 1.") || strings.Contains(second, "number 11.") || strings.Contains(second, "Older") {
		t.Errorf("second page: %s", second)
	}
}

// Whatever comes is shown as far as it can be read.
func FuzzContent(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("no header"))
	f.Add([]byte("Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n"))
	f.Add([]byte("Content-Transfer-Encoding: base64\r\n\r\n!!!"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := readContent(raw)
		if len(c.Files) > maxParts {
			t.Fatalf("%d files", len(c.Files))
		}
		b := &Inbox{opts: InboxOptions{MaxMessages: 1, MaxBytes: 1 << 20}}
		b.keep(&Message{Raw: raw})
		for _, path := range []string{"/", "/m/1"} {
			w := httptest.NewRecorder()
			b.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			if w.Code != 200 {
				t.Fatalf("%s: %d", path, w.Code)
			}
		}
	})
}
