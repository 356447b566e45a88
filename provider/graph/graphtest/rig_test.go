package graphtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

const sender = "reports@example.com"

// rig is a tenant, and a client without any knowledge of Graph.
type rig struct {
	*Tenant
	t      *testing.T
	client *http.Client
	clock  *clock
	token  string
}

// clock stands still until it is set.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// newRig starts a tenant with the mailbox sender, if no others are named, and gets a token.
func newRig(t *testing.T, o Options) *rig {
	t.Helper()
	c := &clock{at: time.Now()}
	if o.Now == nil {
		o.Now = c.now
	}
	if o.Mailboxes == nil {
		o.Mailboxes = []Mailbox{{Address: "Reports@Example.com"}}
	}
	r := &rig{Tenant: Run(t, o), t: t, clock: c}
	r.client = r.Client()
	r.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	t.Cleanup(r.client.CloseIdleConnections)
	r.token = r.newToken()
	return r
}

// reply is what came back.
type reply struct {
	status int
	header http.Header
	body   []byte
	code   string // of Graph's error
	err    error
}

func (p reply) field(name string) string {
	var all map[string]any
	_ = json.Unmarshal(p.body, &all)
	text, _ := all[name].(string)
	return text
}

// do makes one request. A header that is empty is not sent.
func (r *rig) do(method, url string, body any, header ...string) reply {
	r.t.Helper()
	var content io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		content = strings.NewReader(b)
	case []byte:
		content = bytes.NewReader(b)
	case io.Reader:
		content = b
	}
	q, err := http.NewRequestWithContext(r.t.Context(), method, url, content)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i+1] != "" {
			q.Header.Set(header[i], header[i+1])
		}
	}
	p, err := r.client.Do(q)
	if err != nil {
		return reply{err: err}
	}
	defer func() { _ = p.Body.Close() }()
	got := reply{status: p.StatusCode, header: p.Header}
	if got.body, got.err = io.ReadAll(p.Body); got.err != nil {
		return got
	}
	if got.status >= 400 {
		var e struct {
			Error struct{ Code string }
		}
		_ = json.Unmarshal(got.body, &e)
		got.code = e.Error.Code
	}
	return got
}

// graph makes a request to Graph as the app, in JSON.
func (r *rig) graph(method, path string, body any, header ...string) reply {
	r.t.Helper()
	kind := "application/json"
	if body == nil {
		kind = ""
	}
	return r.do(method, r.GraphURL()+"/v1.0/"+path, body, append([]string{"Authorization", "Bearer " + r.token, "Content-Type", kind}, header...)...)
}

// user gives a path below the sender's mailbox.
func user(path string) string { return "users/" + sender + "/" + path }

func (r *rig) tokenURL() string { return r.LoginURL() + "/" + DefaultTenantID + "/oauth2/v2.0/token" }

func (r *rig) credentials() url.Values {
	return url.Values{"grant_type": {"client_credentials"}, "client_id": {DefaultClientID}, "client_secret": {DefaultSecret}, "scope": {r.GraphURL() + "/.default"}}
}

func (r *rig) ask(form url.Values) reply {
	r.t.Helper()
	return r.do("POST", r.tokenURL(), form.Encode(), "Content-Type", "application/x-www-form-urlencoded")
}

func (r *rig) newToken() string {
	r.t.Helper()
	p := r.ask(r.credentials())
	if p.status != 200 {
		r.t.Fatalf("token: %d %s %v", p.status, p.body, p.err)
	}
	return p.field("access_token")
}

// want checks status and code of a reply.
func (r *rig) want(what string, p reply, status int, code string) {
	r.t.Helper()
	if p.err != nil || p.status != status || p.code != code {
		r.t.Errorf("%s: got %d %q %v, want %d %q; %.300s", what, p.status, p.code, p.err, status, code, p.body)
	}
}

// message is a minimal one, with a subject to know it by.
func message(subject string) string {
	return fmt.Sprintf(`{"subject":%q,"body":{"contentType":"Text","content":"hello"},"toRecipients":[{"emailAddress":{"address":"ada@example.org"}}]}`, subject)
}

// mail is the body of sendMail.
func mailOf(message string) string { return `{"message":` + message + `,"saveToSentItems":false}` }

// draft makes a draft and gives its id.
func (r *rig) draft(header ...string) string {
	r.t.Helper()
	p := r.graph("POST", user("messages"), message("draft"), header...)
	r.want("create a draft", p, 201, "")
	return p.field("id")
}

const immutable = `IdType="ImmutableId"`
