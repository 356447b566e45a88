package provider

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/postroom/postroom/mail"
)

// Trace watches a connection come about, for a check, by what packages net and net/http tell of it: so the steps are those of the
// very attempt. It is safe for concurrent use, as addresses are tried side by side.
type Trace struct {
	host string

	mu    sync.Mutex
	asked bool // for a connection, by net/http
	kept  bool // one from before was there
	got   bool // there is one
	began time.Time

	resolve, connect, tls span
	name                  string   // that was looked up; a proxy's, if there is one
	addresses             []string // of the name
	address               string   // that was connected to
	state                 tls.ConnectionState
}

// span is when something took place. The zero value: it did not.
type span struct {
	from, to time.Time
	well     bool
}

func (s *span) begin() {
	if s.from.IsZero() {
		s.from = time.Now()
	}
}

func (s *span) end(well bool) {
	if s.to.IsZero() || well && !s.well {
		s.to, s.well = time.Now(), well
	}
}

// took is how long it took, or takes already.
func (s *span) took() time.Duration {
	switch {
	case s.from.IsZero():
		return 0
	case s.to.IsZero():
		return time.Since(s.from)
	}
	return s.to.Sub(s.from)
}

// NewTrace makes a trace of one connection to host, a name or an IP address, maybe with a port.
func NewTrace(host string) *Trace { return &Trace{host: host} }

// Watch gives the context to connect with.
func (t *Trace) Watch(ctx context.Context) context.Context {
	note := func(f func()) {
		t.mu.Lock()
		defer t.mu.Unlock()
		f()
	}
	note(func() { t.began = time.Now() })
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) {
			note(func() { // Of several requests the last one counts.
				t.asked, t.kept, t.got, t.began = true, false, false, time.Now()
				t.resolve, t.connect, t.tls = span{}, span{}, span{}
				t.name, t.addresses, t.address = "", nil, ""
			})
		},
		GotConn: func(i httptrace.GotConnInfo) { note(func() { t.got, t.kept = true, i.Reused }) },
		DNSStart: func(i httptrace.DNSStartInfo) {
			note(func() { t.resolve.begin(); t.name = i.Host })
		},
		DNSDone: func(i httptrace.DNSDoneInfo) {
			note(func() {
				t.resolve.end(i.Err == nil)
				for _, a := range i.Addrs {
					t.addresses = append(t.addresses, a.String())
				}
			})
		},
		ConnectStart: func(string, string) { note(t.connect.begin) },
		ConnectDone: func(_, address string, err error) {
			note(func() {
				if err == nil && !t.connect.well {
					t.address = address
				}
				t.connect.end(err == nil)
			})
		},
		TLSHandshakeStart: func() { note(t.tls.begin) },
		TLSHandshakeDone: func(state tls.ConnectionState, err error) {
			note(func() { t.tls.end(err == nil); t.state = state })
		},
	})
}

// Dialed gives the steps of connecting by package net. failed is why there is no connection; nil if there is one.
func (t *Trace) Dialed(failed *mail.Outcome) []Step {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dialed(failed)
}

// Requested gives the steps of connecting of an HTTP request, TLS included. failed is why the request got no good answer; nil if it
// did. It reports whether the server was reached: then the steps have passed, and what failed came after them.
func (t *Trace) Requested(failed *mail.Outcome) (steps []Step, reached bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !t.asked && failed != nil && failed.Cause == mail.TargetForbidden: // by the host's own look, before any connection
		return t.dialed(failed), false
	case !t.asked:
		return nil, true // It ended before a connection was wanted.
	case t.kept:
		return []Step{{Name: StepConnect, State: StepSkipped, Found: t.host + ": a connection was open already"}}, true
	case t.got, t.tls.well, failed == nil:
		return append(t.dialed(nil), t.encrypted(nil)), true
	case t.tls.from.IsZero():
		return t.dialed(failed), false
	}
	return append(t.dialed(nil), t.encrypted(failed)), false
}

// dialed puts a failure on the name if that was not found, else on the connection. mu is held.
func (t *Trace) dialed(failed *mail.Outcome) []Step {
	resolve := Step{Name: StepResolve, State: StepPassed, Took: t.resolve.took(), Found: t.found()}
	switch {
	case t.resolve.from.IsZero():
		resolve.State = StepSkipped
	case failed != nil && !t.resolve.well:
		resolve.State, resolve.Found, resolve.Outcome = StepFailed, t.name, failed
		return []Step{resolve}
	}
	connect := Step{Name: StepConnect, State: StepPassed, Took: t.connect.took(), Found: t.host}
	if t.connect.from.IsZero() {
		connect.Took = time.Since(t.began) - resolve.Took
	}
	if t.address != "" && t.address != t.host {
		connect.Found += " at " + t.address
	}
	if failed != nil {
		connect.State, connect.Outcome = StepFailed, failed
	}
	return []Step{resolve, connect}
}

// maxAddresses bounds what is told of a name's addresses, and of a certificate's names.
const maxAddresses = 8

// found says what became of the name. mu is held.
func (t *Trace) found() string {
	_, noName := netip.ParseAddr(hostOnly(t.host))
	switch {
	case t.resolve.from.IsZero() && noName == nil:
		return hostOnly(t.host) + " is an address already"
	case t.resolve.from.IsZero():
		return hostOnly(t.host) + " was not looked up here"
	case len(t.addresses) == 1:
		return t.name + ": " + t.addresses[0]
	}
	return fmt.Sprintf("%s: %d addresses: %s", t.name, len(t.addresses), listed(t.addresses))
}

// encrypted gives the step of TLS. mu is held.
func (t *Trace) encrypted(failed *mail.Outcome) Step {
	s := Step{Name: StepTLS, State: StepPassed, Took: t.tls.took(), Found: t.host}
	switch {
	case failed != nil:
		s.State, s.Outcome = StepFailed, failed
	case t.tls.from.IsZero():
		s.State, s.Found = StepSkipped, t.host+": "+NotEncrypted
	default:
		s.Found = t.host + ": " + DescribeTLS(&t.state, time.Now())
	}
	return s
}

// NotEncrypted says why TLS was skipped.
const NotEncrypted = "the connection is not encrypted"

// hostOnly takes a port off.
func hostOnly(host string) string {
	if a, err := netip.ParseAddrPort(host); err == nil {
		return a.Addr().String()
	}
	if name, _, ok := strings.Cut(host, ":"); ok && strings.Count(host, ":") == 1 {
		return name
	}
	return strings.Trim(host, "[]")
}

func listed(all []string) string {
	if more := len(all) - maxAddresses; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:maxAddresses], ", "), more)
	}
	return strings.Join(all, ", ")
}

// renewal is how long before its end a server's certificate is warned of.
const renewal = 14 * 24 * time.Hour

// DescribeTLS says in words how a connection is encrypted, and by whose certificate. It warns if that ends soon.
func DescribeTLS(state *tls.ConnectionState, now time.Time) string {
	words := tls.VersionName(state.Version) + " with " + tls.CipherSuiteName(state.CipherSuite)
	if len(state.PeerCertificates) == 0 {
		return words
	}
	c := state.PeerCertificates[0]
	names := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	return words + "; " + shown("certificate of "+c.Subject.String()+", issued by "+c.Issuer.String()+", for "+listed(names)) + ", " +
		Ends(c.NotAfter, now, renewal)
}

// Ends says on which day something ends, and warns if that is no longer off than warn.
func Ends(end, now time.Time, warn time.Duration) string {
	day, left := end.UTC().Format(time.DateOnly), end.Sub(now)
	switch {
	case left <= 0:
		return "which ended on " + day
	case left > warn:
		return "good until " + day
	case left < 48*time.Hour:
		return "good until " + day + " (warning: it ends within two days)"
	}
	return fmt.Sprintf("good until %s (warning: it ends in %d days)", day, left/(24*time.Hour))
}

// maxShown bounds what is shown of texts that others wrote, in bytes.
const maxShown = 600

// shown makes a text that others wrote safe to show.
func shown(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) > maxShown {
		s = strings.ToValidUTF8(s[:maxShown], "")
	}
	return s
}
