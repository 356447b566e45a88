package oauth

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"github.com/postroom/postroom/mail"
)

func FuzzFirstLine(f *testing.F) {
	for _, s := range []string{"", "a", "a\r\nb", "\x00\x1b[2J", "ä\xff\u2028", strings.Repeat("ä", 201), "\n \t x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := firstLine(s)
		if len(got) > maxWords || strings.TrimSpace(got) != got || strings.ToValidUTF8(got, "") != got || strings.ContainsAny(got, "\r\n\t\x00\x1b") {
			t.Errorf("%q", got)
		}
	})
}

func FuzzRefusal(f *testing.F) {
	for _, s := range []string{"", "{}", `{"error":"invalid_client","error_codes":[7000222]}`, entra("invalid_scope", 70011, "x"), `{"error_codes":{}}`} {
		f.Add(400, "application/json", s)
	}
	f.Add(200, "text/plain", "error=x&error_description=AADSTS1%3A")
	f.Fuzz(func(t *testing.T, status int, contentType, body string) {
		if status < 200 || status > 599 {
			t.Skip()
		}
		e := &endpoint{url: "https://login.example", clientID: clientID, prove: secretly(secret), style: oauth2.AuthStyleInParams, http: &http.Client{
			Transport: wire(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(strings.NewReader(body))}, nil
			}),
		}}
		g, fault := e.grant(t.Context())
		switch {
		case fault == nil && g.token == "":
			t.Error("neither a token nor a fault")
		case fault != nil && (fault.outcome.Scope != mail.ScopeProvider || fault.outcome.Reply == "" || len(fault.outcome.Reply) > maxWords ||
			!slices.Contains([]mail.Class{mail.Configuration, mail.Temporary}, fault.outcome.Class)):
			t.Errorf("%+v", fault.outcome)
		}
	})
}
