package bench

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/provider/smtp/smtptest"
)

// interruption stands between a client and the server, and has the client killed at one of its requests: before the server
// gets it, in the middle of it, or when the server has answered.
type interruption struct {
	proxy  *httputil.ReverseProxy
	counts func(*http.Request) bool

	mu      sync.Mutex
	at      int // the request at which it happens, from 1; 0: none
	when    string
	seen    int
	kill    func()
	answers int // requests that the server answered
}

// interrupt stands before a server, at the address that it gives. counts says which requests do; nil: all.
func interrupt(t testing.TB, server string, counts func(*http.Request) bool) (*interruption, string) {
	t.Helper()
	target, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	i := &interruption{counts: counts}
	i.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(response *http.Response) error {
			i.mu.Lock()
			defer i.mu.Unlock()
			i.answers++
			if i.now("after") {
				i.kill()
				return errors.New("the client is gone")
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	s := httptest.NewServer(i)
	t.Cleanup(s.Close)
	return i, s.URL
}

// arm prepares a run of the client, which kill ends.
func (i *interruption) arm(at int, when string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.at, i.when, i.seen, i.kill = at, when, 0, nil
}

// now reports whether it is to happen now; mu is held.
func (i *interruption) now(when string) bool { return i.at != 0 && i.seen == i.at && i.when == when }

// ServeHTTP implements http.Handler.
func (i *interruption) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if i.counts != nil && !i.counts(r) {
		i.proxy.ServeHTTP(w, r)
		return
	}
	i.mu.Lock()
	i.seen++
	before, within, kill := i.now("before"), i.now("within"), i.kill
	i.mu.Unlock()
	if before {
		kill()
		return
	}
	if within {
		r.Body = &cutBody{ReadCloser: r.Body, left: r.ContentLength / 2, kill: kill}
	}
	i.proxy.ServeHTTP(w, r)
}

// cutBody is a request's body whose client is killed before all of it has been passed on.
type cutBody struct {
	io.ReadCloser
	left int64
	kill func()
}

// Read implements io.Reader.
func (b *cutBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		b.kill()
		return 0, io.ErrUnexpectedEOF
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

func TestInterruptedSendRepeatedSendsEachMessageOnce(t *testing.T) {
	t.Parallel()
	n, part := size(20_000, 300), size(500, 20)
	var came ledger
	server := inbox(t, smtptest.InboxOptions{OnData: func(m *smtptest.Message) error {
		came.enter(strings.Join(m.To, ","))
		return nil
	}})
	i := install(t, providerTo(server, 10))
	i.serve()
	between, address := interrupt(t, i.front.url, nil)

	list := filepath.Join(t.TempDir(), "readers.csv")
	var recipients []string
	var csv strings.Builder
	csv.WriteString("address,name\n")
	for _, r := range newsletter(n).Recipients {
		recipients = append(recipients, r.To[0].Address)
		fmt.Fprintf(&csv, "%s,%s\n", r.To[0].Address, r.Variables["name"])
	}
	if err := os.WriteFile(list, []byte(csv.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	send := func() *postroom {
		between.mu.Lock()
		defer between.mu.Unlock()
		p := run(t, []string{"POSTROOM_URL=" + address, "POSTROOM_TOKEN=" + token}, "send", "--kind", "subscription", "--recipients", list,
			"--batch-size", fmt.Sprint(part), "--subject", "News for {{.name}}", "--text", "Dear {{.name}}", "--idempotency-key", "news-1")
		between.kill = p.kill
		return p
	}
	parts := n / part
	for k, when := range []string{"before", "within", "after", "before", "within", "after"} {
		between.arm((k+1)*parts/8, when)
		if code := send().wait(time.Minute); code != -1 {
			t.Fatalf("the client was to be killed, and ended with status %d", code)
		}
	}
	accepted := i.front.metric("postroom_messages_accepted_total")
	if accepted == 0 || accepted >= float64(n) {
		t.Errorf("%v messages were accepted before the last run: this proves nothing", accepted)
	}
	between.arm(0, "")
	last := send()
	if code := last.wait(2 * time.Minute); code != 0 {
		t.Fatalf("the last run ended with status %d:\n%s", code, last.stderr.tail(2000))
	}
	if accepted := i.front.metric("postroom_messages_accepted_total"); accepted != float64(n) {
		t.Errorf("%v messages were accepted, want %d", accepted, n)
	}
	await(t, 5*time.Minute, "everything to be delivered", func() bool { return i.front.metric(`postroom_messages`) == 0 })
	came.once(t, recipients)
	if t.Failed() {
		return
	}
	t.Logf("a client handing in %d recipients in %d parts was killed 6 times, %d requests were answered: %d messages came, one for each recipient",
		n, parts, between.answers, came.entered())
}
