package oauth

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

const (
	tenant   = "11111111-2222-3333-4444-555555555555"
	clientID = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
	secret   = "A+8Q~very%secret indeed"
)

// login is a token endpoint that says what the test tells it to say.
type login struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*request
}

// request is what it was asked.
type request struct {
	path string
	form url.Values
	user string
	pass string
}

// newLogin starts a token endpoint and stops it with the test. answer may be nil: then every request is granted.
func newLogin(t *testing.T, answer http.HandlerFunc) *login {
	t.Helper()
	l := &login{}
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil || r.Method != http.MethodPost {
			t.Errorf("%s: %v", r.Method, err)
		}
		q := &request{path: r.URL.Path, form: r.PostForm}
		q.user, q.pass, _ = r.BasicAuth()
		l.mu.Lock()
		l.requests = append(l.requests, q)
		n := len(l.requests)
		l.mu.Unlock()
		if answer != nil {
			answer(w, r)
			return
		}
		grantToken(w, fmt.Sprintf("token-%d", n))
	}))
	t.Cleanup(l.Close)
	return l
}

func grantToken(w http.ResponseWriter, token string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	fmt.Fprintf(w, `{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"access_token":%q}`, token)
}

// say answers with a status and a body as JSON.
func say(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func (l *login) last(t *testing.T) *request {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.requests) == 0 {
		t.Fatal("no request was made")
	}
	return l.requests[len(l.requests)-1]
}

func (l *login) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.requests)
}

// app is an app registration that logs in at url.
func app(url string) *provider.Microsoft365Settings {
	return &provider.Microsoft365Settings{TenantID: tenant, ClientID: clientID, ClientSecret: secret, LoginURL: url}
}

func microsoft365(t *testing.T, s *provider.Microsoft365Settings, opts Options) *Source {
	t.Helper()
	source, err := ForMicrosoft365(s, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(source.Close)
	return source
}

// anyServer is a server with a token endpoint that is none of Microsoft's.
func anyServer(url string) *provider.SMTPSettings {
	s := &provider.SMTPSettings{Host: "mail.example.com"}
	s.Auth.OAuth2 = provider.OAuth2{ClientID: "post room", ClientSecret: secret, TokenURL: url, Scopes: []string{"mail.send", "x"}}
	return s
}

func smtp(t *testing.T, s *provider.SMTPSettings, opts Options) *Source {
	t.Helper()
	source, err := ForSMTP(s, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(source.Close)
	return source
}

func TestASecretGoesInTheBodyToMicrosoft(t *testing.T) {
	l := newLogin(t, nil)
	settings := app(l.URL + "/")
	settings.Cloud = "china"
	s := microsoft365(t, settings, Options{})
	wantToken(t, s, "token-1")
	wantToken(t, s, "token-1")
	got, form := l.last(t), url.Values{
		"grant_type": {"client_credentials"}, "client_id": {clientID}, "client_secret": {secret},
		"scope": {"https://microsoftgraph.chinacloudapi.cn/.default"},
	}
	if got.path != "/"+tenant+"/oauth2/v2.0/token" || got.user != "" || got.form.Encode() != form.Encode() || l.count() != 1 {
		t.Errorf("%d requests, the last %+v", l.count(), got)
	}
}

func TestAnotherGraphHasTokensOfItsOwn(t *testing.T) {
	l := newLogin(t, nil)
	settings := app(l.URL)
	settings.GraphURL = "https://graph.example.com/"
	wantToken(t, microsoft365(t, settings, Options{}), "token-1")
	if got := l.last(t).form.Get("scope"); got != "https://graph.example.com/.default" {
		t.Error(got)
	}
}

// wire answers requests that would leave the machine.
type wire func(*http.Request) (*http.Response, error)

func (w wire) RoundTrip(r *http.Request) (*http.Response, error) { return w(r) }

func TestWhereSMTPTokensOfMicrosoftComeFrom(t *testing.T) {
	for host, want := range map[string][2]string{
		"smtp.office365.com":       {"https://login.microsoftonline.com/", "https://outlook.office365.com/.default"},
		"SMTP.office365.us.":       {"https://login.microsoftonline.us/", "https://outlook.office365.us/.default"},
		"outlook-dod.office365.us": {"https://login.microsoftonline.us/", "https://outlook-dod.office365.us/.default"},
		"smtp.partner.outlook.cn":  {"https://login.partner.microsoftonline.cn/", "https://partner.outlook.cn/.default"},
		"relay.example.com":        {"https://login.microsoftonline.com/", "https://outlook.office365.com/.default"},
	} {
		t.Run(host, func(t *testing.T) {
			settings := &provider.SMTPSettings{Host: host}
			settings.Auth.OAuth2 = provider.OAuth2{Provider: "microsoft", TenantID: "contoso.onmicrosoft.com", ClientID: clientID, ClientSecret: secret}
			var asked *http.Request
			s := smtp(t, settings, Options{HTTP: &http.Client{Transport: wire(func(r *http.Request) (*http.Response, error) {
				asked = r
				if err := r.ParseForm(); err != nil {
					t.Error(err)
				}
				w := httptest.NewRecorder()
				grantToken(w, "t")
				return w.Result(), nil
			})}})
			wantToken(t, s, "t")
			if asked.URL.String() != want[0]+"contoso.onmicrosoft.com/oauth2/v2.0/token" || asked.PostForm.Get("scope") != want[1] ||
				asked.PostForm.Get("client_secret") != secret || asked.Header.Get("Authorization") != "" {
				t.Errorf("%s %v %v", asked.URL, asked.PostForm, asked.Header)
			}
		})
	}
}

func TestASecretGoesInTheHeaderToOthers(t *testing.T) {
	l := newLogin(t, nil)
	wantToken(t, smtp(t, anyServer(l.URL+"/token?v=2"), Options{}), "token-1")
	got := l.last(t)
	// RFC 6749, section 2.3.1: encoded as in a form.
	if got.user != "post+room" || got.pass != url.QueryEscape(secret) || got.form.Get("scope") != "mail.send x" || got.form.Has("client_secret") {
		t.Errorf("%+v", got)
	}
}

func TestASecretGoesInTheBodyWhereTheHeaderIsNotRead(t *testing.T) {
	var l *login
	l = newLogin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.PostForm.Get("client_secret") != secret {
			say(http.StatusBadRequest, `{"error":"invalid_request","error_description":"client_id is missing"}`)(w, r)
			return
		}
		grantToken(w, fmt.Sprint(l.count()))
	})
	s := smtp(t, anyServer(l.URL), Options{})
	wantToken(t, s, "2")
	s.Reject("2")
	wantToken(t, s, "3") // what was found out is kept
}

func TestBothWaysToSendASecretAreTriedBeforeItIsCalledWrong(t *testing.T) {
	for name, v := range map[string]struct {
		header, body string
		status       int
		cause        mail.Cause
		enhanced     string
		requests     int
	}{
		"header only":        {`{"error":"invalid_client"}`, `{"error":"invalid_request"}`, 401, mail.ClientRefused, "invalid_client", 2},
		"body only":          {`{"error":"invalid_request"}`, `{"error":"invalid_client"}`, 400, mail.ClientRefused, "invalid_client", 2},
		"neither":            {`{"error":"invalid_scope"}`, `{"error":"invalid_scope"}`, 400, mail.ScopeRefused, "invalid_scope", 1},
		"too busy to":        {`{"error":"invalid_client"}`, `{"error":"invalid_client"}`, 503, mail.TokenUnavailable, "invalid_client", 1},
		"busy, and says 400": {`{"error":"temporarily_unavailable"}`, `{"error":"invalid_client"}`, 400, mail.TokenUnavailable, "temporarily_unavailable", 1},
		"another address":    {`{"error":"invalid_client"}`, `{"error":"invalid_client"}`, 404, mail.ClientRefused, "invalid_client", 1},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLogin(t, func(w http.ResponseWriter, r *http.Request) {
				if _, _, ok := r.BasicAuth(); ok {
					say(v.status, v.header)(w, r)
					return
				}
				say(v.status, v.body)(w, r)
			})
			o := wantFault(t, smtp(t, anyServer(l.URL), Options{}))
			if o.Cause != v.cause || o.Enhanced != v.enhanced || l.count() != v.requests {
				t.Errorf("%d requests: %+v", l.count(), o)
			}
		})
	}
}

func TestAWayToSendASecretThatWorkedIsKept(t *testing.T) {
	var l *login
	l = newLogin(t, func(w http.ResponseWriter, r *http.Request) {
		if l.count() > 1 {
			say(http.StatusUnauthorized, `{"error":"invalid_client"}`)(w, r)
			return
		}
		grantToken(w, "1")
	})
	s := smtp(t, anyServer(l.URL), Options{})
	wantToken(t, s, "1")
	s.Reject("1")
	wantFault(t, s)
	if l.count() != 2 {
		t.Errorf("%d requests, want 2", l.count())
	}
}

// entra writes an answer as Microsoft Entra does.
func entra(oauthError string, number int, text string) string {
	return fmt.Sprintf(`{"error":%q,"error_description":"AADSTS%d: %s\r\nTrace ID: 0000aaaa\r\nTimestamp: 2026-11-22 10:00:00Z","error_codes":[%d],`+
		`"timestamp":"2026-11-22 10:00:00Z","trace_id":"0000aaaa","error_uri":"https://login.example/error?code=%d"}`,
		oauthError, number, text, number, number)
}

func TestWhatAnAnswerMeans(t *testing.T) {
	const (
		conf = mail.Configuration
		temp = mail.Temporary
	)
	html := "<html><body><h1>502 Bad Gateway</h1></body></html>"
	for name, v := range map[string]struct {
		status     int
		body       string
		class      mail.Class
		cause      mail.Cause
		enhanced   string
		reply      string
		retryAfter string
		wait       time.Duration
	}{
		"wrong secret": {status: 401, body: entra("invalid_client", 7000215, "Invalid client secret provided."), class: conf, cause: mail.ClientRefused,
			enhanced: "invalid_client", reply: "AADSTS7000215: Invalid client secret provided."},
		"expired secret": {status: 401, body: entra("invalid_client", 7000222, "The provided client secret keys are expired."), class: conf,
			cause: mail.SecretExpired, enhanced: "invalid_client", reply: "AADSTS7000222: The provided client secret keys are expired."},
		"app not in tenant": {status: 400, body: entra("unauthorized_client", 700016, "x"), class: conf, cause: mail.AppNotFound,
			enhanced: "unauthorized_client", reply: "AADSTS700016: x"},
		"no service principal": {status: 401, body: entra("invalid_client", 7000229, "x"), class: conf, cause: mail.AppNotFound,
			enhanced: "invalid_client", reply: "AADSTS7000229: x"},
		"no such tenant": {status: 400, body: entra("invalid_request", 90002, "x"), class: conf, cause: mail.TenantNotFound, enhanced: "invalid_request",
			reply: "AADSTS90002: x"},
		"no such account": {status: 400, body: entra("invalid_grant", 50034, "x"), class: conf, cause: mail.TenantNotFound, enhanced: "invalid_grant",
			reply: "AADSTS50034: x"},
		"assertion": {status: 401, body: entra("invalid_client", 700027, "x"), class: conf, cause: mail.AssertionRefused, enhanced: "invalid_client",
			reply: "AADSTS700027: x"},
		"scope": {status: 400, body: entra("invalid_scope", 70011, "x"), class: conf, cause: mail.ScopeRefused, enhanced: "invalid_scope",
			reply: "AADSTS70011: x"},
		"conditional access": {status: 400, body: entra("access_denied", 53003, "x"), class: conf, cause: mail.PermissionMissing, enhanced: "access_denied",
			reply: "AADSTS53003: x"},
		"a number that nobody knows": {status: 401, body: entra("invalid_client", 1, "x"), class: conf, cause: mail.ClientRefused,
			enhanced: "invalid_client", reply: "AADSTS1: x"},
		"the number in the text alone": {status: 401, body: `{"error":"invalid_client","error_description":"AADSTS7000222: x"}`, class: conf,
			cause: mail.SecretExpired, enhanced: "invalid_client", reply: "AADSTS7000222: x"},
		"a number further on": {status: 401, body: `{"error":"invalid_client","error_description":"not AADSTS7000222: x"}`, class: conf,
			cause: mail.ClientRefused, enhanced: "invalid_client", reply: "not AADSTS7000222: x"},
		"numbers in no list": {status: 401, body: `{"error":"invalid_client","error_codes":"7000222"}`, class: conf, cause: mail.ClientRefused,
			enhanced: "invalid_client", reply: "the login service answered HTTP status 401 invalid_client"},
		"invalid_request": {status: 400, body: `{"error":"invalid_request"}`, class: conf, cause: mail.TokenRefused, enhanced: "invalid_request",
			reply: "the login service answered HTTP status 400 invalid_request"},
		"invalid_grant":          {status: 400, body: `{"error":"invalid_grant"}`, class: conf, cause: mail.TokenRefused, enhanced: "invalid_grant", reply: "*"},
		"unsupported_grant_type": {status: 400, body: `{"error":"unsupported_grant_type"}`, class: conf, cause: mail.TokenRefused, enhanced: "unsupported_grant_type", reply: "*"},
		"unauthorized_client":    {status: 400, body: `{"error":"unauthorized_client"}`, class: conf, cause: mail.PermissionMissing, enhanced: "unauthorized_client", reply: "*"},
		"invalid_target":         {status: 400, body: `{"error":"invalid_target"}`, class: conf, cause: mail.ScopeRefused, enhanced: "invalid_target", reply: "*"},
		"refused with 200":       {status: 200, body: `{"error":"invalid_client"}`, class: conf, cause: mail.ClientRefused, enhanced: "invalid_client", reply: "*"},
		"an error that is none":  {status: 400, body: `{"error":"<b>\u0007"}`, class: conf, cause: mail.TokenRefused, reply: "the login service answered HTTP status 400"},
		"an error as an object":  {status: 403, body: `{"error":{"code":"x"}}`, class: conf, cause: mail.TokenRefused, reply: "*"},
		"401 alone":              {status: 401, body: "", class: conf, cause: mail.ClientRefused, reply: "*"},
		"403 by a proxy":         {status: 403, body: html, class: conf, cause: mail.TokenRefused, reply: "the login service answered HTTP status 403"},
		"404":                    {status: 404, body: html, class: conf, cause: mail.NoTokenEndpoint, reply: "*"},
		"405":                    {status: 405, body: "", class: conf, cause: mail.NoTokenEndpoint, reply: "*"},
		"temporarily":            {status: 400, body: `{"error":"temporarily_unavailable"}`, class: temp, cause: mail.TokenUnavailable, enhanced: "temporarily_unavailable", reply: "*"},
		"temporarily, a number": {status: 400, body: entra("temporarily_unavailable", 7000222, "x"), class: temp, cause: mail.TokenUnavailable,
			enhanced: "temporarily_unavailable", reply: "AADSTS7000222: x"},
		"408":                      {status: 408, body: "", class: temp, cause: mail.TokenUnavailable, reply: "*"},
		"429":                      {status: 429, body: `{"error":"invalid_request"}`, class: temp, cause: mail.TokenUnavailable, enhanced: "invalid_request", reply: "*", retryAfter: "2.128", wait: 2128 * time.Millisecond},
		"500":                      {status: 500, body: "", class: temp, cause: mail.TokenUnavailable, reply: "*"},
		"502 with a page":          {status: 502, body: html, class: temp, cause: mail.TokenUnavailable, reply: "the login service answered HTTP status 502"},
		"503":                      {status: 503, body: `{"error":"invalid_client"}`, class: temp, cause: mail.TokenUnavailable, enhanced: "invalid_client", reply: "*", retryAfter: "30", wait: 30 * time.Second},
		"no waiting for a refusal": {status: 400, body: `{"error":"invalid_request"}`, class: conf, cause: mail.TokenRefused, enhanced: "invalid_request", reply: "*", retryAfter: "30"},
		"200 with a page":          {status: 200, body: html, class: conf, cause: mail.NoTokenEndpoint, reply: "the answer holds no token"},
		"200 with nothing":         {status: 200, body: "", class: conf, cause: mail.NoTokenEndpoint, reply: "the answer holds no token"},
		"200 without a token":      {status: 200, body: "{}", class: conf, cause: mail.NoTokenEndpoint, reply: "the answer holds no token"},
		"a token of no use":        {status: 200, body: `{"access_token":"t","token_type":"mac"}`, class: conf, cause: mail.NoTokenEndpoint, reply: "*"},
		"a token with a line break": {status: 200, body: `{"access_token":"t\r\nX: y","token_type":"bearer"}`, class: conf,
			cause: mail.NoTokenEndpoint, reply: "*"},
		"a token that is over": {status: 200, body: `{"access_token":"t","expires_in":-5}`, class: conf, cause: mail.NoTokenEndpoint, reply: "*"},
		"a life that is no number": {status: 200, body: `{"access_token":"t","expires_in":"soon"}`, class: conf, cause: mail.NoTokenEndpoint,
			reply: "the answer holds no token"},
		"control characters": {status: 400, body: `{"error":"invalid_request","error_description":"  a\tb\u0000c\u001b[2Jd\u2028e  \n\nf"}`, class: conf,
			cause: mail.TokenRefused, enhanced: "invalid_request", reply: "a b?c?[2Jd?e"},
		"long words": {status: 400, body: `{"error":"invalid_request","error_description":"` + strings.Repeat("ä", 300) + `"}`, class: conf,
			cause: mail.TokenRefused, enhanced: "invalid_request", reply: strings.Repeat("ä", 200)},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLogin(t, func(w http.ResponseWriter, r *http.Request) {
				if v.retryAfter != "" {
					w.Header().Set("Retry-After", v.retryAfter)
				}
				say(v.status, v.body)(w, r)
			})
			o := wantFault(t, microsoft365(t, app(l.URL), Options{}))
			want := mail.Outcome{Class: v.class, Scope: mail.ScopeProvider, Cause: v.cause, Step: "token", Code: v.status, Enhanced: v.enhanced,
				Reply: v.reply, RetryAfter: v.wait}
			if v.reply == "*" {
				want.Reply = o.Reply
			}
			if v.status == 200 && v.enhanced == "" {
				want.Code = 0
			}
			if o != want || o.Reply == "" {
				t.Errorf("got  %+v\nwant %+v", o, want)
			}
			if l.count() != 1 {
				t.Errorf("%d requests", l.count())
			}
		})
	}
}

func TestTokensInFormsThatOthersSend(t *testing.T) {
	for name, v := range map[string]struct{ contentType, body string }{
		"a life as text":       {"application/json", `{"access_token":"t","token_type":"Bearer","expires_in":"3599"}`},
		"no life":              {"application/json", `{"access_token":"t","token_type":"bearer"}`},
		"no type":              {"application/json", `{"access_token":"t","expires_in":60}`},
		"a type of its own":    {"application/json", `{"access_token":"t","token_type":"BearerToken","expires_in":60}`},
		"a form":               {"application/x-www-form-urlencoded", "access_token=t&token_type=bearer&expires_in=60"},
		"another content type": {"text/json", `{"access_token":"t"}`},
		"a life without end":   {"application/json", `{"access_token":"t","expires_in":99999999999}`},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLogin(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", v.contentType)
				_, _ = io.WriteString(w, v.body)
			})
			wantToken(t, microsoft365(t, app(l.URL), Options{}), "t")
		})
	}
}

func TestTheLifeCountsFromTheRequest(t *testing.T) {
	l := newLogin(t, nil)
	e := &endpoint{url: l.URL, clientID: clientID, prove: secretly(secret), style: oauth2.AuthStyleInParams, http: (&Options{}).client()}
	before := time.Now()
	g, fault := e.grant(t.Context())
	if fault != nil {
		t.Fatal(fault)
	}
	if g.asked.Before(before) || g.asked.After(time.Now()) || g.expires > 3599*time.Second || g.expires < 3500*time.Second {
		t.Errorf("%+v", g)
	}
}

// endless writes until the client has enough.
func endless(w io.Writer) {
	for chunk := bytes.Repeat([]byte("x"), 64<<10); ; {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

func TestAnEndlessAnswerIsNotReadToItsEnd(t *testing.T) {
	for status, class := range map[int]mail.Class{200: mail.Configuration, 400: mail.Configuration, 502: mail.Temporary} {
		l := newLogin(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"access_token":"`)
			endless(w)
		})
		if o := wantFault(t, microsoft365(t, app(l.URL), Options{})); o.Class != class {
			t.Errorf("%d: %+v", status, o)
		}
	}
}

func TestAnAnswerThatBreaksOffMayPass(t *testing.T) {
	l := newLogin(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `{"access_token":"t"`)
	})
	o := wantFault(t, microsoft365(t, app(l.URL), Options{}))
	if o.Class != mail.Temporary || o.Scope != mail.ScopeProvider || o.Cause != mail.TokenUnavailable || o.Code != 0 || o.Step != "token" {
		t.Errorf("%+v", o)
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	elsewhere := newLogin(t, nil)
	for _, status := range []int{302, 303, 307, 308} {
		l := newLogin(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, status) })
		for name, opts := range map[string]Options{"own client": {}, "a client that follows": {HTTP: &http.Client{}}} {
			o := wantFault(t, microsoft365(t, app(l.URL), opts))
			if o.Class != mail.Configuration || o.Cause != mail.NoTokenEndpoint || o.Code != status {
				t.Errorf("%d, %s: %+v", status, name, o)
			}
		}
	}
	if elsewhere.count() != 0 {
		t.Error("the secret went to where a redirect points")
	}
}

// serveTLS starts a server with a certificate that nobody trusts.
func serveTLS(t *testing.T, config *tls.Config) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = config
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func TestNoConnection(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + listener.Addr().String()
	listener.Close()
	overTLS := serveTLS(t, nil)
	failing := func(err error) Options {
		return Options{HTTP: &http.Client{Transport: wire(func(*http.Request) (*http.Response, error) { return nil, err })}}
	}
	for name, v := range map[string]struct {
		url   string
		opts  Options
		class mail.Class
		cause mail.Cause
		reply string
	}{
		"refused":                         {closed, Options{}, mail.Temporary, mail.TokenUnavailable, "refused"},
		"a certificate that nobody knows": {overTLS.URL, Options{}, mail.Configuration, mail.CertificateInvalid, "certificate"},
		"no such host": {"https://login.invalid", failing(&net.DNSError{Err: "no such host", Name: "login.invalid", IsNotFound: true}),
			mail.Configuration, mail.HostNotFound, "no such host: login.invalid"},
		"names can't be asked for": {"https://login.invalid", failing(&net.DNSError{Err: "server misbehaving", Name: "login.invalid", IsTemporary: true}),
			mail.Temporary, mail.TokenUnavailable, "misbehaving"},
		"too slow": {"https://login.invalid", failing(context.DeadlineExceeded), mail.Temporary, mail.TokenUnavailable, "timed out"},
	} {
		t.Run(name, func(t *testing.T) {
			o := wantFault(t, microsoft365(t, app(v.url), v.opts))
			if o.Class != v.class || o.Cause != v.cause || !strings.Contains(o.Reply, v.reply) || o.Scope != mail.ScopeProvider || o.Step != "token" ||
				strings.Contains(o.Reply, tenant) || o.Code != 0 {
				t.Errorf("%+v", o)
			}
		})
	}
}

func TestNothingOlderThanTLS12(t *testing.T) {
	old := serveTLS(t, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	if o := wantFault(t, microsoft365(t, app(old.URL), Options{})); o.Class != mail.Configuration || o.Cause != mail.TLSRefused {
		t.Errorf("%+v", o)
	}
}

func TestSettingsThatAreNoGoodAreRefused(t *testing.T) {
	var invalid *mail.Invalid
	if _, err := ForMicrosoft365(&provider.Microsoft365Settings{}, Options{}); !errors.As(err, &invalid) || len(invalid.Problems) != 3 {
		t.Error(err)
	}
	if _, err := ForSMTP(&provider.SMTPSettings{}, Options{}); !errors.As(err, &invalid) || len(invalid.Problems) != 3 {
		t.Error(err)
	}
}
