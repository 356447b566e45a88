package graphtest

import (
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

func (r *rig) page(path string) (int, string, map[string][]string) {
	r.t.Helper()
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	text, err := io.ReadAll(w.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	if csp := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") {
		r.t.Errorf("%s: policy %q", path, csp)
	}
	return w.Code, string(text), w.Header()
}

func TestThePageShowsWhatWasSent(t *testing.T) {
	r := newRig(t, Options{})
	if _, page, _ := r.page("/"); !strings.Contains(page, "No mail yet") {
		t.Errorf("empty: %s", page)
	}
	r.want("send", r.graph("POST", user("sendMail"), `{"message":{"subject":"<script>alert(1)</script>","body":{"contentType":"html","content":"<b>Hi</b><img src=\"cid:logo\">"},
		"toRecipients":`+list(2)+`,"ccRecipients":[{"emailAddress":{"address":"cc@example.org","name":"<b>"}}],"internetMessageHeaders":[{"name":"X-A","value":"<b>"}],
		"attachments":[{"@odata.type":"#microsoft.graph.fileAttachment","name":"logo.png","contentType":"image/png","contentId":"logo","isInline":true,"contentBytes":"aGVsbG8="}]}}`), 202, "")
	_, all, _ := r.page("/")
	for _, want := range []string{"1 messages accepted in 1 requests", "u0@example.org and 2 more", `href="m/1"`, "&lt;script&gt;", "json"} {
		if !strings.Contains(all, want) {
			t.Errorf("the list has no %q: %s", want, all)
		}
	}
	_, one, _ := r.page("/m/1")
	for _, want := range []string{"u0@example.org, u1@example.org", "&lt;b&gt; &lt;cc@example.org&gt;", `href="1/files/0"`, "<iframe sandbox ",
		"data:image/png;base64,aGVsbG8=", "image/png, 5 B, inline", "X-A: &lt;b&gt;"} {
		if !strings.Contains(one, want) {
			t.Errorf("the page has no %q: %s", want, one)
		}
	}
	for _, text := range []string{all, one} {
		if strings.Contains(text, "<script") || strings.Contains(text, "<b>") {
			t.Errorf("content broke out: %s", text)
		}
	}
	if _, file, header := r.page("/m/1/files/0"); file != "hello" || header["Content-Disposition"][0] != "attachment; filename=logo.png" || header["Content-Type"][0] != "application/octet-stream" {
		t.Errorf("%q with %v", file, header)
	}
	if code, _, header := r.page("/style.css"); code != 200 || !strings.HasPrefix(header["Content-Type"][0], "text/css") {
		t.Errorf("%d %v", code, header)
	}
	for _, path := range []string{"/m/2", "/m/x", "/m/1/files/1", "/m/1/files/-1", "/m/1/files/x", "/other"} {
		if code, _, _ := r.page(path); code != 404 {
			t.Errorf("%s: %d, want 404", path, code)
		}
	}
}

func TestTheListGoesByPages(t *testing.T) {
	r := newRig(t, Options{Limits: &Limits{}})
	for i := range pageLength + 10 {
		r.want("send", r.graph("POST", user("sendMail"), mailOf(message(fmt.Sprintf("number %d.", i+1)))), 202, "")
	}
	_, first, _ := r.page("/")
	if !strings.Contains(first, "number 60.") || !strings.Contains(first, "number 11.") || strings.Contains(first, "number 10.") || !strings.Contains(first, `href="?before=11"`) {
		t.Errorf("first page: %s", first)
	}
	_, second, _ := r.page("/?before=11")
	if !strings.Contains(second, "number 10.") || !strings.Contains(second, "number 1.") || strings.Contains(second, "number 11.") || strings.Contains(second, "Older") {
		t.Errorf("second page: %s", second)
	}
}

func TestSettingsLeadHere(t *testing.T) {
	r := newRig(t, Options{})
	s := r.Settings(mail.Address{Address: sender})
	m := s.Microsoft365
	if s.Kind != provider.KindMicrosoft365 || m.TenantID != DefaultTenantID || m.ClientID != DefaultClientID || m.ClientSecret.Reveal() != DefaultSecret ||
		m.LoginURL != r.LoginURL() || m.GraphURL != r.GraphURL() || m.LoginURL == m.GraphURL || s.Limits.MessagesPerMinute != 30 {
		t.Errorf("%+v", s)
	}
}
