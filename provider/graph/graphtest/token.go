package graphtest

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// login is login.microsoftonline.com: the client credentials grant of
// https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow.
//
// The numbers of its errors are those of https://learn.microsoft.com/entra/identity-platform/reference-error-codes. With which
// HTTP status they come is not written there; here, as it is seen, invalid_client is 401 and everything else 400.
type login struct{}

var _ door = login{}

// smtpResource is what a token for SMTP AUTH is for. Graph does not take it.
const smtpResource = "https://outlook.office365.com"

// token is an access token that was issued.
type token struct {
	app         string // client id, in lower case
	resource    string
	permissions []string
	expires     time.Time
}

const maxTokenRequest = 1 << 20

func (login) most(*call) int64   { return maxTokenRequest }
func (login) admit(*call) *fault { return nil }

func (login) refusal(c *call, f *fault) *answer {
	return entraError(f, c.id, c.clientID(), c.opts.Now())
}

func (login) route(c *call) *fault {
	c.operation = UnknownOperation
	tenant, rest, _ := strings.Cut(strings.TrimPrefix(c.request.URL.Path, "/"), "/")
	if rest != "oauth2/v2.0/token" {
		return entraFault(http.StatusNotFound, "invalid_request", 900561, "The endpoint was not found.")
	}
	c.operation = GetToken
	c.handle = grant
	switch {
	case c.request.Method != http.MethodPost:
		return entraFault(http.StatusBadRequest, "invalid_request", 900561,
			"The endpoint only accepts POST requests. Received a "+c.request.Method+" request.")
	case !strings.EqualFold(tenant, c.opts.TenantID):
		return entraFault(http.StatusBadRequest, "invalid_request", 90002,
			"Tenant '"+tenant+"' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud.")
	}
	return nil
}

// grant issues a token.
func grant(c *call) (*answer, *fault) {
	form, fault := tokenForm(c)
	if fault != nil {
		return nil, fault
	}
	for _, name := range []string{"grant_type", "client_id"} {
		if form.Get(name) == "" {
			return nil, missing(name)
		}
	}
	if form.Get("grant_type") != "client_credentials" {
		return nil, entraFault(http.StatusBadRequest, "unsupported_grant_type", 70003,
			"The app requested an unsupported grant type '"+form.Get("grant_type")+"'.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	app := c.apps[strings.ToLower(form.Get("client_id"))]
	if app == nil {
		return nil, entraFault(http.StatusBadRequest, "unauthorized_client", 700016,
			"Application with identifier '"+form.Get("client_id")+"' was not found in the directory.")
	}
	c.entry.App = strings.ToLower(app.ClientID)
	if fault := c.authenticate(app, form); fault != nil {
		return nil, fault
	}
	resource, fault := c.resource(form)
	if fault != nil {
		return nil, fault
	}
	now := c.opts.Now()
	issued := &token{app: c.entry.App, resource: resource, permissions: slices.Clone(app.Permissions), expires: now.Add(c.opts.TokenLife)}
	text := c.jwt(issued, now)
	c.tokens[text] = issued
	life := int(c.opts.TokenLife / time.Second)
	a := jsonAnswer(http.StatusOK, map[string]any{"token_type": "Bearer", "expires_in": life, "ext_expires_in": life, "access_token": text})
	return a.set("Content-Type", "application/json; charset=utf-8"), nil
}

// tokenForm reads the body. Credentials may stand in the header instead (RFC 6749, section 2.3.1).
func tokenForm(c *call) (url.Values, *fault) {
	mediaType, _, _ := mime.ParseMediaType(c.request.Header.Get("Content-Type"))
	form, err := url.ParseQuery(string(c.body))
	if mediaType != "application/x-www-form-urlencoded" || err != nil {
		form = url.Values{} // Entra finds no parameter in it.
	}
	for name, values := range form {
		if len(values) > 1 {
			return nil, entraFault(http.StatusBadRequest, "invalid_request", 90100, "The parameter '"+name+"' is duplicated.")
		}
	}
	if id, secret, ok := c.request.BasicAuth(); ok {
		id, errID := url.QueryUnescape(id)
		secret, errSecret := url.QueryUnescape(secret)
		if errID == nil && errSecret == nil {
			form.Set("client_id", id)
			form.Set("client_secret", secret)
		}
	}
	return form, nil
}

// authenticate checks that it is the app that asks. mu is held.
func (c *call) authenticate(app *App, form url.Values) *fault {
	assertion, secret := form.Get("client_assertion"), form.Get("client_secret")
	switch {
	case assertion != "" && form.Get("client_assertion_type") != assertionType:
		return invalidClient(50027, "JWT token is invalid or malformed: the client_assertion_type is not '"+assertionType+"'.")
	case assertion != "":
		return c.checkAssertion(app, assertion)
	case secret == "":
		return invalidClient(7000218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")
	}
	expired := false
	for _, s := range app.Secrets {
		if subtle.ConstantTimeCompare([]byte(s.Value), []byte(secret)) != 1 {
			continue
		}
		if s.Expires.IsZero() || c.opts.Now().Before(s.Expires) {
			return nil
		}
		expired = true
	}
	if expired {
		return invalidClient(7000222, "The provided client secret keys for app '"+app.ClientID+"' are expired.")
	}
	return invalidClient(7000215, "Invalid client secret provided. Ensure the secret being sent in the request is the client secret "+
		"value, not the client secret ID, for a secret added to app '"+app.ClientID+"'.")
}

func missing(name string) *fault {
	return entraFault(http.StatusBadRequest, "invalid_request", 900144, "The request body must contain the following parameter: '"+name+"'.")
}

func invalidClient(number int, message string) *fault {
	return entraFault(http.StatusUnauthorized, "invalid_client", number, message)
}

// resource is what the token is to be for: "the resource identifier (application ID URI) of the resource you want, affixed
// with the .default suffix".
func (c *call) resource(form url.Values) (string, *fault) {
	scope := form.Get("scope")
	if scope == "" {
		return "", missing("scope")
	}
	resource, ok := strings.CutSuffix(scope, "/.default")
	if !ok || strings.ContainsAny(scope, " ") {
		return "", entraFault(http.StatusBadRequest, "invalid_scope", 1002012, "The provided value for scope "+scope+" is not valid. "+
			"Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI).")
	}
	if resource != c.GraphURL() && resource != smtpResource {
		return "", entraFault(http.StatusBadRequest, "invalid_resource", 500011,
			"The resource principal named "+resource+" was not found in the tenant named "+c.opts.TenantID+".")
	}
	return resource, nil
}

// jwt gives a token the form of Microsoft's: a JSON Web Token with the claims of
// https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference that tell of the app and of what it may do. The
// signature is nothing but a secret: Graph goes by what it knows of the token, and never by what stands in it. The permissions are
// Graph's, so that a token for SMTP has none.
func (t *Tenant) jwt(issued *token, now time.Time) string {
	claims := map[string]any{
		"aud": issued.resource, "iss": "https://sts.windows.net/" + t.opts.TenantID + "/", "tid": t.opts.TenantID, "appid": issued.app,
		"idtyp": "app", "ver": "1.0", "iat": now.Unix(), "nbf": now.Unix(), "exp": issued.expires.Unix(), "uti": rand.Text(),
	}
	if len(issued.permissions) > 0 && issued.resource != smtpResource {
		claims["roles"] = issued.permissions
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		panic("graphtest: " + err.Error()) // All that is given here is made of strings and numbers.
	}
	encode := base64.RawURLEncoding.EncodeToString
	return "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9." + encode(payload) + "." + encode([]byte(rand.Text()+rand.Text()))
}
