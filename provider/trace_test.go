package provider

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
)

func TestEnds(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for left, want := range map[time.Duration]string{
		-time.Second:        "which ended on 2026-11-01",
		0:                   "which ended on 2026-11-01",
		47 * time.Hour:      "good until 2026-11-03 (warning: it ends within two days)",
		48 * time.Hour:      "good until 2026-11-03 (warning: it ends in 2 days)",
		14 * 24 * time.Hour: "good until 2026-11-15 (warning: it ends in 14 days)",
		15 * 24 * time.Hour: "good until 2026-11-16",
	} {
		if got := Ends(now.Add(left), now, 14*24*time.Hour); got != want {
			t.Errorf("%v: %q, want %q", left, got, want)
		}
	}
}

func TestDescribeTLSIsBoundedAndClean(t *testing.T) {
	now := time.Now()
	c := &x509.Certificate{Subject: pkix.Name{CommonName: "mx\r\n\x1b[31m" + strings.Repeat("é", 1000)}, NotAfter: now.AddDate(1, 0, 0)}
	for i := range 100 {
		c.DNSNames = append(c.DNSNames, fmt.Sprintf("mx%d.example", i))
	}
	state := &tls.ConnectionState{Version: tls.VersionTLS12, CipherSuite: tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, PeerCertificates: []*x509.Certificate{c}}
	got := DescribeTLS(state, now)
	if !strings.HasPrefix(got, "TLS 1.2 with TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256; certificate of CN=mx") || !strings.Contains(got, ", good until ") ||
		strings.ContainsAny(got, "\r\n\x1b") || len(got) > maxShown+100 {
		t.Errorf("%q", got)
	}
	c.Subject.CommonName = "mx"
	if got := DescribeTLS(state, now); !strings.Contains(got, "mx7.example and 92 more") {
		t.Errorf("%q", got)
	}
	state.PeerCertificates = nil
	if got := DescribeTLS(state, now); got != "TLS 1.2 with TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" {
		t.Errorf("%q", got)
	}
}

func TestHostOnly(t *testing.T) {
	for in, want := range map[string]string{"mx.example": "mx.example", "mx.example:25": "mx.example", "192.0.2.1:25": "192.0.2.1", "192.0.2.1": "192.0.2.1",
		"::1": "::1", "[::1]": "::1", "[::1]:25": "::1", "": ""} {
		if got := hostOnly(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// get makes a request that a trace watches.
func get(t *testing.T, client *http.Client, address string) (steps []Step, reached bool) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	trace := NewTrace(u.Host)
	r, err := http.NewRequestWithContext(trace.Watch(t.Context()), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	var failed *mail.Outcome
	answer, err := client.Do(r)
	if err != nil {
		o := Disconnected("send", err)
		failed = &o
	} else {
		_, _ = io.Copy(io.Discard, answer.Body)
		_ = answer.Body.Close()
	}
	return trace.Requested(failed)
}

func TestTraceOfRequests(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	transport := &http.Transport{}
	client := &http.Client{Transport: transport}
	defer transport.CloseIdleConnections()
	for n, want := range []string{"resolve skipped, connect passed, tls skipped, true", "connect skipped, true"} {
		steps, reached := get(t, client, server.URL)
		var words []string
		for _, s := range steps {
			words = append(words, s.Name+" "+string(s.State))
		}
		if got := fmt.Sprint(strings.Join(words, ", "), ", ", reached); got != want {
			t.Errorf("request %d: %s, want %s", n, got, want)
		}
	}

	// A proxy that is there, and does not lead there.
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer proxy.Close()
	to, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	steps, reached := get(t, &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(to)}}, "https://graph.example")
	if reached || len(steps) != 2 || steps[1].State != StepFailed || !strings.Contains(steps[1].Found, "graph.example at "+to.Host) ||
		!strings.Contains(steps[0].Found, "graph.example was not looked up here") {
		t.Errorf("%v %+v", reached, steps)
	}
}

// counted are tokens that can be asked for anew.
type counted struct{ asked int }

func (c *counted) Token(context.Context) (string, error) { return "in hand", nil }
func (c *counted) Reject(string)                         {}
func (c *counted) Grant(context.Context) (Granted, error) {
	c.asked++
	return Granted{Token: "new", From: "login.example", Expires: time.Unix(1_800_000_000, 0)}, nil
}

func TestGrantAsksForANewTokenWhereItCan(t *testing.T) {
	c := &counted{}
	g, err := Grant(t.Context(), c)
	if err != nil || g.Token.Reveal() != "new" || c.asked != 1 {
		t.Errorf("%+v, %v", g, err)
	}
	if got := fmt.Sprint(g); got != "a token from login.example, good until 2027-01-15 08:00:00 UTC" {
		t.Errorf("%q", got)
	}
	g, err = Grant(t.Context(), struct{ Tokens }{c})
	if err != nil || g.Token.Reveal() != "in hand" || c.asked != 1 || strings.Contains(g.String(), "in hand") {
		t.Errorf("%+v, %v", g, err)
	}
}
