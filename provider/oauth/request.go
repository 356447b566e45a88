package oauth

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// endpoint is a token endpoint, and who we are to it. It is safe for concurrent use.
type endpoint struct {
	url      string
	clientID string
	scopes   []string
	prove    func() (proof, *Fault)
	// style is how a secret is sent; if it is unknown, found has what a request has found out.
	style oauth2.AuthStyle
	found atomic.Int64
	http  *http.Client
}

// proof shows that we are the client: by a secret, or by an assertion (RFC 7521, section 4.2).
type proof struct{ secret, assertion string }

// secretly proves by a secret.
func secretly(secret provider.Secret) func() (proof, *Fault) {
	return func() (proof, *Fault) { return proof{secret: secret.Reveal()}, nil }
}

// grant asks for a token. It is the fetch of a Source.
func (e *endpoint) grant(ctx context.Context) (*grant, *Fault) {
	p, fault := e.prove()
	if fault != nil {
		return nil, fault
	}
	if style := cmp.Or(e.style, oauth2.AuthStyle(e.found.Load())); style != oauth2.AuthStyleAutoDetect {
		return e.ask(ctx, p, style)
	}
	// Every server has to take a secret in the header, and may take it in the body (RFC 6749, section 2.3.1). Some take it in the
	// body alone, and then say in their own ways that it is missing.
	got, fault := e.ask(ctx, p, oauth2.AuthStyleInHeader)
	if fault == nil {
		e.found.Store(int64(oauth2.AuthStyleInHeader))
		return got, nil
	}
	first := fault.outcome
	if first.Class != mail.Configuration || first.Cause == mail.ScopeRefused || first.Code != http.StatusBadRequest && first.Code != http.StatusUnauthorized {
		return nil, fault
	}
	got, other := e.ask(ctx, p, oauth2.AuthStyleInParams)
	switch {
	case other == nil:
		e.found.Store(int64(oauth2.AuthStyleInParams))
		return got, nil
	case other.outcome.Cause == mail.ClientRefused || other.outcome.Class != mail.Configuration:
		return nil, other
	}
	return nil, fault
}

// ask makes one request.
func (e *endpoint) ask(ctx context.Context, p proof, style oauth2.AuthStyle) (*grant, *Fault) {
	c := clientcredentials.Config{ClientID: e.clientID, ClientSecret: p.secret, TokenURL: e.url, Scopes: e.scopes, AuthStyle: style}
	if p.assertion != "" {
		c.EndpointParams = url.Values{
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
			"client_assertion":      {p.assertion},
		}
	}
	asked := time.Now()
	got, err := c.Token(context.WithValue(ctx, oauth2.HTTPClient, e.http))
	var (
		refused *oauth2.RetrieveError
		network *url.Error
	)
	switch {
	case errors.As(err, &refused):
		return nil, e.refused(refusal(refused, time.Now()), p)
	case errors.As(err, &network):
		return nil, unreachable(network)
	case err != nil:
		return nil, ours(mail.NoTokenEndpoint, "the answer holds no token")
	}
	g := &grant{token: got.AccessToken, from: e.host(), asked: asked}
	if !got.Expiry.IsZero() {
		g.expires = time.Until(got.Expiry)
	}
	switch {
	case !strings.HasPrefix(strings.ToLower(got.Type()), "bearer"):
		return nil, ours(mail.NoTokenEndpoint, "the answer holds a token of a type that is not Bearer")
	case strings.ContainsFunc(got.AccessToken, func(r rune) bool { return r <= ' ' || r > '~' }):
		return nil, ours(mail.NoTokenEndpoint, "the answer holds a token with characters that none has")
	case !got.Expiry.IsZero() && g.expires <= 0:
		return nil, ours(mail.NoTokenEndpoint, "the answer holds a token whose time is over")
	}
	return g, nil
}

// host is whom we ask.
func (e *endpoint) host() string {
	u, err := url.Parse(e.url)
	if err != nil {
		return ""
	}
	return u.Host
}

// refused gives an outcome its last touches, which depend on what was sent.
func (e *endpoint) refused(o mail.Outcome, p proof) *Fault {
	if p.assertion != "" && o.Cause == mail.ClientRefused {
		o.Cause = mail.AssertionRefused
	}
	o.Reply = e.scrub(o.Reply, p)
	if e.scrub(o.Enhanced, p) != o.Enhanced {
		o.Enhanced = ""
	}
	return &Fault{o}
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 256 << 10

// bounded reads answers as a whole, so that a connection that breaks off in the middle is an error of the request, and as far as
// maxAnswer.
type bounded struct{ next http.RoundTripper }

func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	answer.Body = io.NopCloser(bytes.NewReader(body))
	return answer, nil
}
