// Package oauth gets the access tokens that senders log in with: OAuth 2.0, client credentials (RFC 6749, section 4.4), from
// Microsoft Entra or any other token endpoint.
package oauth

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/oauth2"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// Options are what does not depend on the settings. The zero value is good for production.
type Options struct {
	// HTTP makes the requests. By default they go through the proxy of the environment, over TLS 1.2 or later, and each on a
	// connection of its own, as there is one in an hour. Redirects are never followed, whatever HTTP says about them.
	HTTP *http.Client
	// Guard says where requests may not go. Where HTTP is given, only hosts that are written as an address are checked.
	Guard *provider.Guard
	// Logger tells of tokens that could not be renewed; by default nothing is logged.
	Logger *slog.Logger
}

// ForMicrosoft365 makes a source of tokens for Microsoft Graph. It asks for none yet. Settings that are no good are a
// *mail.Invalid.
func ForMicrosoft365(s *provider.Microsoft365Settings, opts Options) (*Source, error) {
	// A certificate whose time is over is for the login service to refuse: people are told then, and mail waits.
	if problems := s.Validate(time.Time{}); len(problems) > 0 {
		return nil, invalid(problems)
	}
	e := &endpoint{
		url:      microsoftURL(s.Login(), s.TenantID),
		clientID: s.ClientID,
		scopes:   []string{s.Graph() + "/.default"},
		style:    oauth2.AuthStyleInParams,
		http:     opts.client(),
	}
	switch {
	case s.ClientSecret != "":
		e.prove = secretly(s.ClientSecret)
	case s.FederatedTokenFile != "":
		e.prove = fromFile(s.FederatedTokenFile)
	default:
		certificate, key, problems := s.ClientCertificate()
		if len(problems) > 0 {
			return nil, invalid(problems)
		}
		e.prove = newSigner(certificate, key, s.ClientID, e.url).prove
	}
	return newSource(e.grant, opts.Logger), nil
}

// ForSMTP makes a source of tokens for XOAUTH2 and OAUTHBEARER on the server of s. It asks for none yet. Settings that are no good
// are a *mail.Invalid.
func ForSMTP(s *provider.SMTPSettings, opts Options) (*Source, error) {
	o := &s.Auth.OAuth2
	if problems := o.Validate(); len(problems) > 0 {
		return nil, invalid(problems)
	}
	e := &endpoint{
		url:      o.TokenURL,
		clientID: o.ClientID,
		scopes:   o.Scopes,
		prove:    secretly(o.ClientSecret),
		http:     opts.client(),
	}
	if o.Provider == provider.OAuthMicrosoft {
		cloud := provider.CloudOfSMTP(s.Host)
		e.url = microsoftURL(cloud.Login, o.TenantID)
		e.scopes = []string{cloud.Exchange + "/.default"}
		e.style = oauth2.AuthStyleInParams
	}
	return newSource(e.grant, opts.Logger), nil
}

func invalid(problems []mail.Problem) error {
	return fmt.Errorf("oauth: settings: %w", &mail.Invalid{Problems: problems})
}

// microsoftURL is the token endpoint of a tenant.
func microsoftURL(login, tenant string) string { return login + "/" + tenant + "/oauth2/v2.0/token" }

// client gives the client for token requests.
func (o *Options) client() *http.Client {
	var c http.Client
	if o.HTTP != nil {
		c = *o.HTTP
	} else {
		c.Transport = &http.Transport{
			Proxy:               proxy,
			DialContext:         (&net.Dialer{Timeout: 10 * time.Second, Control: o.Guard.Control}).DialContext,
			TLSHandshakeTimeout: 10 * time.Second,
			TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:   true,
			DisableKeepAlives:   true,
		}
	}
	c.Transport = &bounded{o.Guard.Transport(cmp.Or(c.Transport, http.DefaultTransport))}
	// A redirect would take the secret to wherever it points.
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}

// proxy is http.ProxyFromEnvironment, whose error would repeat the proxy's password.
func proxy(r *http.Request) (*url.URL, error) {
	u, err := http.ProxyFromEnvironment(r)
	if err != nil {
		return nil, errors.New("the proxy of the environment is not a URL")
	}
	return u, nil
}
