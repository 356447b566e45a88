package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"github.com/postroom/postroom/provider"
)

// Provider tells which provider is active, and how it does. It takes the role operator.
func (c *Client) Provider(ctx context.Context) (*Provider, error) {
	p := &Provider{}
	if _, err := c.call(ctx, http.MethodGet, "", nil, p, "provider"); err != nil {
		return nil, err
	}
	return p, nil
}

// SetProvider makes settings the active ones. A secret that they leave out is kept, if it goes to the same server as before. Unless
// try is false they are tried first; also if that fails they become active, and the answer says so. It takes the role admin, as do
// the methods below but Audit, and up to a minute.
func (c *Client) SetProvider(ctx context.Context, s *provider.Settings, try bool) (*ProviderChanged, error) {
	body, err := s.Revealed()
	if err != nil {
		return nil, err
	}
	target := c.target("provider")
	if !try {
		target.RawQuery = "verify=false"
	}
	changed := &ProviderChanged{}
	if _, err := c.do(ctx, http.MethodPut, target, "", body, changed); err != nil {
		return nil, err
	}
	return changed, nil
}

// ClearProvider leaves no provider active: credentials are deleted, and mail is accepted and waits. If version is not "", it has to
// be that of the active settings.
func (c *Client) ClearProvider(ctx context.Context, version string) (*ProviderChanged, error) {
	target := c.target("provider")
	if version != "" {
		target.RawQuery = url.Values{"version": {version}}.Encode()
	}
	changed := &ProviderChanged{}
	if _, err := c.do(ctx, http.MethodDelete, target, "", nil, changed); err != nil {
		return nil, err
	}
	return changed, nil
}

// VerifyProvider connects and logs in without sending anything: with the active settings if s is nil.
func (c *Client) VerifyProvider(ctx context.Context, s *provider.Settings) (*Verification, error) {
	body := struct {
		Settings json.RawMessage `json:"settings,omitempty"`
	}{}
	if s != nil {
		var err error
		if body.Settings, err = s.Revealed(); err != nil {
			return nil, err
		}
	}
	v := &Verification{}
	if _, err := c.call(ctx, http.MethodPost, "", body, v, "provider", "verify"); err != nil {
		return nil, err
	}
	return v, nil
}

// TestProvider sends a test mail by the active provider and waits for what becomes of it.
func (c *Client) TestProvider(ctx context.Context, to string) (*TestResult, error) {
	r := &TestResult{}
	if _, err := c.call(ctx, http.MethodPost, "", TestRequest{To: to}, r, "provider", "test"); err != nil {
		return nil, err
	}
	return r, nil
}

// ResealProvider seals the settings anew, with the first of the configured keys.
func (c *Client) ResealProvider(ctx context.Context) (*Resealed, error) {
	r := &Resealed{}
	if _, err := c.call(ctx, http.MethodPost, "", nil, r, "provider", "reseal"); err != nil {
		return nil, err
	}
	return r, nil
}

// Audit lists who changed what, newest first: the page that follows another's Next, "" for the first, and at most limit entries, 0
// for as many as the server likes. It takes the role operator.
func (c *Client) Audit(ctx context.Context, cursor string, limit int) (*AuditPage, error) {
	target := c.target("audit")
	q := target.Query()
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	if limit != 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	target.RawQuery = q.Encode()
	page := &AuditPage{}
	if _, err := c.do(ctx, http.MethodGet, target, "", nil, page); err != nil {
		return nil, err
	}
	return page, nil
}
