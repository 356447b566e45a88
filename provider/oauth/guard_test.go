package oauth

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

func TestNoTokenIsAskedForWhereItIsForbidden(t *testing.T) {
	l := newLogin(t, nil)
	guard, problems := provider.NewGuard([]string{"127.0.0.0/8", "::1"})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	there, err := url.Parse(l.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxied := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(there)}}
	local := strings.Replace(l.URL, "127.0.0.1", "localhost", 1)
	for name, s := range map[string]*Source{
		"by address":                microsoft365(t, app(l.URL), Options{Guard: guard}),
		"by name":                   microsoft365(t, app(local), Options{Guard: guard}),
		"of another provider":       smtp(t, anyServer(local), Options{Guard: guard}),
		"by a client that is given": smtp(t, anyServer(l.URL), Options{Guard: guard, HTTP: l.Client()}),
		"by a proxy":                smtp(t, anyServer("https://127.0.0.1/token"), Options{Guard: guard, HTTP: proxied}),
	} {
		_, err := s.Token(t.Context())
		o, ok := provider.NoToken(err)
		if !ok || o.Class != mail.Configuration || o.Scope != mail.ScopeProvider || o.Cause != mail.TargetForbidden || o.Step != step {
			t.Errorf("%s: %+v, %v", name, o, err)
		}
	}
	if n := l.count(); n > 0 {
		t.Errorf("%d requests were made", n)
	}
}
