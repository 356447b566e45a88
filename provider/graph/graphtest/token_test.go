package graphtest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTokenRequestsAreCheckedAsEntraDoes(t *testing.T) {
	r := newRig(t, Options{Apps: []App{{ClientID: DefaultClientID, Secrets: []ClientSecret{{Value: DefaultSecret}, {"old", time.Now().Add(-time.Hour)}}}}})
	with := func(name, value string) url.Values {
		form := r.credentials()
		form.Set(name, value)
		if value == "" {
			form.Del(name)
		}
		return form
	}
	for name, test := range map[string]struct {
		form   url.Values
		status int
		error  string
		number int
	}{
		"as it should be":      {r.credentials(), 200, "", 0},
		"for SMTP":             {with("scope", "https://outlook.office365.com/.default"), 200, "", 0},
		"no grant type":        {with("grant_type", ""), 400, "invalid_request", 900144},
		"another grant type":   {with("grant_type", "password"), 400, "unsupported_grant_type", 70003},
		"no client id":         {with("client_id", ""), 400, "invalid_request", 900144},
		"an unknown app":       {with("client_id", "97e0a5b7-d745-40b6-94fe-5f77d35c6e05"), 400, "unauthorized_client", 700016},
		"no secret":            {with("client_secret", ""), 401, "invalid_client", 7000218},
		"a wrong secret":       {with("client_secret", "x"), 401, "invalid_client", 7000215},
		"an expired secret":    {with("client_secret", "old"), 401, "invalid_client", 7000222},
		"no scope":             {with("scope", ""), 400, "invalid_request", 900144},
		"a delegated scope":    {with("scope", r.GraphURL()+"/Mail.Send"), 400, "invalid_scope", 1002012},
		"two scopes":           {with("scope", r.GraphURL()+"/.default "+r.GraphURL()+"/.default"), 400, "invalid_scope", 1002012},
		"an unknown resource":  {with("scope", "https://graph.example/.default"), 400, "invalid_resource", 500011},
		"another assertion":    {with("client_assertion", "x"), 401, "invalid_client", 50027},
		"a parameter twice":    {url.Values{"grant_type": {"client_credentials", "client_credentials"}}, 400, "invalid_request", 90100},
		"nothing":              {url.Values{}, 400, "invalid_request", 900144},
		"client id's own case": {with("client_id", strings.ToUpper(DefaultClientID)), 200, "", 0},
	} {
		wantToken(t, name, r.ask(test.form), test.status, test.error, test.number)
	}

	wantToken(t, "another tenant", r.do("POST", r.LoginURL()+"/other/oauth2/v2.0/token", r.credentials().Encode(), "Content-Type", "application/x-www-form-urlencoded"), 400, "invalid_request", 90002)
	wantToken(t, "not a form", r.do("POST", r.tokenURL(), r.credentials().Encode(), "Content-Type", "application/json"), 400, "invalid_request", 900144)
	wantToken(t, "GET", r.do("GET", r.tokenURL()+"?"+r.credentials().Encode(), nil), 400, "invalid_request", 900561)
	wantToken(t, "another path", r.do("POST", r.LoginURL()+"/"+DefaultTenantID+"/oauth2/token", ""), 404, "invalid_request", 900561)
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(DefaultClientID)+":"+url.QueryEscape(DefaultSecret)))
	form := with("client_secret", "")
	form.Del("client_id")
	wantToken(t, "credentials in the header", r.do("POST", r.tokenURL(), form.Encode(), "Content-Type", "application/x-www-form-urlencoded", "Authorization", basic), 200, "", 0)

	requests := slices.DeleteFunc(r.Requests(), func(q Request) bool { return q.Operation != GetToken })
	if n := r.TokenRequests(); n != len(requests) || n < 19 {
		t.Errorf("%d token requests, %d in the log", n, len(requests))
	}
}

// wantToken checks an answer of the token endpoint, and with it the form of Entra's errors.
func wantToken(t *testing.T, what string, p reply, status int, code string, number int) {
	t.Helper()
	var b struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		ExpiresIn   int    `json:"expires_in"`
		Error       string `json:"error"`
		Description string `json:"error_description"`
		Codes       []int  `json:"error_codes"`
		Timestamp   string `json:"timestamp"`
		Trace       string `json:"trace_id"`
		Correlation string `json:"correlation_id"`
	}
	if err := json.Unmarshal(p.body, &b); err != nil || p.status != status || b.Error != code {
		t.Errorf("%s: got %d %q (%v, %v), want %d %q; %s", what, p.status, b.Error, p.err, err, status, code, p.body)
		return
	}
	if code == "" {
		if b.AccessToken == "" || b.TokenType != "Bearer" || b.ExpiresIn != 3600 {
			t.Errorf("%s: %s", what, p.body)
		}
		return
	}
	if len(b.Codes) != 1 || b.Codes[0] != number || !strings.HasPrefix(b.Description, "AADSTS") || b.Timestamp == "" || b.Trace == "" || b.Correlation == "" {
		t.Errorf("%s: want number %d; %s", what, number, p.body)
	}
}

func TestTokensAreChecked(t *testing.T) {
	r := newRig(t, Options{TokenLife: 10 * time.Minute})
	path := r.GraphURL() + "/v1.0/" + user("sendMail")
	try := func(what, authorization string, status int, code string) {
		t.Helper()
		p := r.do("POST", path, mailOf(message("x")), "Content-Type", "application/json", "Authorization", authorization)
		r.want(what, p, status, code)
		if status == 401 && p.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: no challenge", what)
		}
	}
	try("a good token", "Bearer "+r.token, 202, "")
	try("none", "", 401, "InvalidAuthenticationToken")
	try("another", "Bearer x", 401, "InvalidAuthenticationToken")
	try("another scheme", "Basic "+r.token, 401, "InvalidAuthenticationToken")

	form := r.credentials()
	form.Set("scope", "https://outlook.office365.com/.default")
	try("one for SMTP", "Bearer "+r.ask(form).field("access_token"), 401, "InvalidAuthenticationToken")

	r.want("none, and a question that is wrong", r.do("POST", path, "x", "Content-Type", "text/html"), 401, "InvalidAuthenticationToken")

	r.clock.pass(10*time.Minute - time.Second)
	try("just before it expires", "Bearer "+r.token, 202, "")
	r.clock.pass(time.Second)
	try("expired", "Bearer "+r.token, 401, "InvalidAuthenticationToken")
	r.token = r.newToken()
	try("a new one", "Bearer "+r.token, 202, "")
	r.RevokeTokens()
	try("revoked", "Bearer "+r.token, 401, "InvalidAuthenticationToken")
	if n := r.Received(); n != 3 {
		t.Errorf("%d messages were accepted, want 3", n)
	}
}

func TestPermissionsAreInTheToken(t *testing.T) {
	app := DefaultApp()
	app.Permissions = []string{MailSend}
	r := newRig(t, Options{Apps: []App{app}})
	r.want("send", r.graph("POST", user("sendMail"), mailOf(message("x"))), 202, "")
	denied := func() {
		t.Helper()
		r.want("create a draft", r.graph("POST", user("messages"), message("x")), 403, "ErrorAccessDenied")
		r.want("list", r.graph("GET", user("messages"), nil), 403, "ErrorAccessDenied")
	}
	denied()
	app.Permissions = []string{MailRead}
	r.SetApp(app)
	denied() // The old token has the old permissions.
	r.token = r.newToken()
	r.want("list", r.graph("GET", user("messages"), nil), 200, "")
	r.want("send", r.graph("POST", user("sendMail"), mailOf(message("x"))), 403, "ErrorAccessDenied")
}

func TestTokensSayWhatTheyAreFor(t *testing.T) {
	app := DefaultApp()
	r := newRig(t, Options{Apps: []App{app}})
	for name, test := range map[string]struct {
		resource    string
		permissions []string
		roles       string
	}{
		"for Graph":          {r.GraphURL(), []string{MailSend, MailRead}, "[Mail.Send Mail.Read]"},
		"without permission": {r.GraphURL(), []string{}, "<nil>"},
		"for SMTP":           {smtpResource, []string{MailSend}, "<nil>"},
	} {
		app.Permissions = test.permissions
		r.SetApp(app)
		form := r.credentials()
		form.Set("scope", test.resource+"/.default")
		parts := strings.Split(r.ask(form).field("access_token"), ".")
		var claims map[string]any
		text, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err != nil || len(parts) != 3 || json.Unmarshal(text, &claims) != nil {
			t.Fatalf("%s: %q %v", name, parts, err)
		}
		end := r.clock.now().Add(time.Hour).Unix()
		if fmt.Sprint(claims["roles"]) != test.roles || claims["aud"] != test.resource || claims["appid"] != DefaultClientID || claims["exp"] != float64(end) {
			t.Errorf("%s: %s", name, text)
		}
	}
	// What it says is worth nothing by itself.
	forged := r.token[:strings.LastIndex(r.token, ".")] + ".c2lnbmVk"
	r.want("another signature", r.do("GET", r.GraphURL()+"/v1.0/"+user("messages"), nil, "Authorization", "Bearer "+forged), 401, "InvalidAuthenticationToken")
}

// signed makes a client assertion from scratch.
func signed(t *testing.T, key *rsa.PrivateKey, header, claims map[string]any) string {
	t.Helper()
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := part(header) + "." + part(claims)
	sum := sha256.Sum256([]byte(text))
	var signature []byte
	var err error
	if header["alg"] == "PS256" {
		signature, err = rsa.SignPSS(rand.Reader, key, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	} else {
		signature, err = rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	}
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func TestClientAssertionsAreVerified(t *testing.T) {
	certificate, err := NewAppCertificate(time.Now().AddDate(1, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(certificate.KeyPEM))
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	key := parsed.(*rsa.PrivateKey)
	other, err := NewFederation("https://issuer.example", "system:serviceaccount:mail:postroom")
	if err != nil {
		t.Fatal(err)
	}
	app := App{ClientID: DefaultClientID, Secrets: []ClientSecret{{Value: DefaultSecret}}, Certificates: []*x509.Certificate{certificate.Certificate}, Federations: []*Federation{other}}
	r := newRig(t, Options{Apps: []App{app}})

	long, short := sha256.Sum256(certificate.Certificate.Raw), sha1.Sum(certificate.Certificate.Raw)
	header := map[string]any{"alg": "PS256", "typ": "JWT", "x5t#S256": base64.RawURLEncoding.EncodeToString(long[:])}
	claims := map[string]any{"aud": r.tokenURL(), "iss": DefaultClientID, "sub": DefaultClientID, "jti": "1", "nbf": time.Now().Unix(), "exp": time.Now().Add(5 * time.Minute).Unix()}
	with := func(m map[string]any, name string, value any) map[string]any {
		m = maps.Clone(m)
		m[name] = value
		return m
	}
	hour := time.Now().Add(time.Hour).Unix()
	for name, test := range map[string]struct {
		key            *rsa.PrivateKey
		header, claims map[string]any
		number         int
	}{
		"PS256":                    {key, header, claims, 0},
		"RS256":                    {key, with(header, "alg", "RS256"), claims, 0},
		"the old thumbprint":       {key, map[string]any{"alg": "RS256", "typ": "JWT", "x5t": base64.RawURLEncoding.EncodeToString(short[:])}, claims, 0},
		"another algorithm":        {key, with(header, "alg", "none"), claims, 700027},
		"another key":              {other.key, header, claims, 700027},
		"another certificate":      {key, with(header, "x5t#S256", "x"), claims, 700027},
		"no type":                  {key, with(header, "typ", ""), claims, 50027},
		"another audience":         {key, header, with(claims, "aud", r.LoginURL()), 50027},
		"two audiences":            {key, header, with(claims, "aud", []string{r.tokenURL(), "x"}), 50027},
		"iss is not sub":           {key, header, with(claims, "sub", "x"), 70021},
		"not the app":              {key, header, with(with(claims, "sub", "x"), "iss", "x"), 70021},
		"too late":                 {key, header, with(claims, "exp", time.Now().Add(-time.Hour).Unix()), 700024},
		"too early":                {key, header, with(with(claims, "nbf", hour), "exp", hour+1), 700024},
		"no id":                    {key, header, with(claims, "jti", ""), 50027},
		"without an end":           {key, header, with(claims, "exp", nil), 700024},
		"the clocks differ a bit":  {key, header, with(claims, "nbf", time.Now().Add(time.Minute).Unix()), 0},
		"a federated credential's": {other.key, map[string]any{"alg": "RS256"}, map[string]any{"iss": other.issuer, "sub": other.subject, "aud": federatedAudience, "exp": hour}, 0},
		"federated, other key":     {key, map[string]any{"alg": "RS256"}, map[string]any{"iss": other.issuer, "sub": other.subject, "aud": federatedAudience, "exp": hour}, 50013},
		"federated, other subject": {other.key, map[string]any{"alg": "RS256"}, map[string]any{"iss": other.issuer, "sub": "x", "aud": federatedAudience, "exp": hour}, 70021},
		"federated, other use":     {other.key, map[string]any{"alg": "RS256"}, map[string]any{"iss": other.issuer, "sub": other.subject, "aud": r.tokenURL(), "exp": hour}, 700212},
	} {
		form := r.credentials()
		form.Del("client_secret")
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", signed(t, test.key, test.header, test.claims))
		status, code := 401, "invalid_client"
		if test.number == 0 {
			status, code = 200, ""
		}
		wantToken(t, name, r.ask(form), status, code, test.number)
	}

	text, err := other.Token(time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	form := r.credentials()
	form.Del("client_secret")
	form.Set("client_assertion_type", assertionType)
	form.Set("client_assertion", text)
	wantToken(t, "what the issuer makes", r.ask(form), 200, "", 0)

	app.Federations, app.Certificates = nil, nil
	r.SetApp(app)
	wantToken(t, "no credentials are registered", r.ask(form), 401, "invalid_client", 50048)
}

// Whatever comes is not a token, or can be asked about.
func FuzzJWT(f *testing.F) {
	f.Add("e30.e30.")
	f.Add("eyJhbGciOiJQUzI1NiJ9.eyJhdWQiOlsiYSJdLCJleHAiOjF9.AA")
	f.Add("a.b.c")
	f.Add("..")
	f.Fuzz(func(t *testing.T, text string) {
		if j := parseJWT(text); j != nil {
			j.fresh(time.Now())
			j.verify(&rsa.PublicKey{})
		}
	})
}
