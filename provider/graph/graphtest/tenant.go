package graphtest

import (
	"context"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// T is what Run needs of a *testing.T, so that programs that use a Tenant do not link package testing.
type T interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// Run starts a tenant that is closed at the end of the test.
func Run(t T, o Options) *Tenant {
	t.Helper()
	tenant, err := Start(o)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { _ = tenant.Close() })
	return tenant
}

// Tenant is a simulated Microsoft 365 tenant. It is safe for concurrent use.
type Tenant struct {
	opts    Options
	hosts   map[string]*host
	caPEM   string
	serving sync.WaitGroup // listeners
	calls   sync.WaitGroup // requests under way; none begins once closed is
	closed  chan struct{}
	close   sync.Once

	mu        sync.Mutex
	random    *rand.Rand
	apps      map[string]*App     // by client id, in lower case
	mailboxes map[string]*mailbox // by address, in lower case
	tokens    map[string]*token
	uploads   map[string]*upload // by session id
	mishaps   []*Mishap
	books     ledger
	log       requestLog
	inbox     inbox
}

// mailbox is what the tenant knows of a Mailbox.
type mailbox struct {
	Mailbox
	address string           // in lower case
	items   map[string]*item // by each of their ids
	taken   int64            // bytes of items
}

// host is one of Microsoft's hosts.
type host struct {
	url      string
	listener net.Listener
	server   *http.Server
}

// Start makes a tenant and serves it until Close.
func Start(o Options) (*Tenant, error) {
	o.defaults()
	t := &Tenant{
		opts:      o,
		hosts:     make(map[string]*host),
		closed:    make(chan struct{}),
		random:    rand.New(rand.NewPCG(o.Seed, 0)),
		apps:      make(map[string]*App),
		mailboxes: make(map[string]*mailbox),
		tokens:    make(map[string]*token),
		uploads:   make(map[string]*upload),
		books:     newLedger(*o.TenantLimits),
		log:       requestLog{most: o.MaxRequests},
		inbox:     inbox{maxMessages: o.MaxMessages, maxBytes: o.MaxBytes},
	}
	for _, a := range o.Apps {
		t.SetApp(a)
	}
	for _, m := range o.Mailboxes {
		t.SetMailbox(m)
	}
	if err := t.serve(); err != nil {
		_ = t.Close()
		return nil, err
	}
	return t, nil
}

// serve opens the hosts.
func (t *Tenant) serve() error {
	var config *tls.Config
	if t.opts.TLS {
		var err error
		if config, t.caPEM, err = hostCertificate(); err != nil {
			return err
		}
	}
	for name, door := range map[string]door{"login": login{}, "graph": graph{}, "outlook": outlook{}} {
		listener, err := t.opts.Listen(name)
		if err != nil {
			return fmt.Errorf("graphtest: listen: %w", err)
		}
		h := &host{url: "http://" + listener.Addr().String(), listener: listener, server: &http.Server{
			Handler:           t.open(door),
			Protocols:         t.opts.Protocols,
			ReadHeaderTimeout: time.Minute,
			ConnContext:       withConn,
			ErrorLog:          slog.NewLogLogger(t.opts.Logger.Handler(), slog.LevelDebug),
		}}
		if config != nil {
			h.url = "https://" + listener.Addr().String()
			h.server.TLSConfig = config.Clone()
		}
		t.hosts[name] = h
	}
	for name, h := range t.hosts {
		t.serving.Go(func() {
			if err := h.serve(); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				t.opts.Logger.Error("graphtest: serve", "host", name, "error", err)
			}
		})
	}
	return nil
}

func (h *host) serve() error {
	if h.server.TLSConfig != nil {
		return h.server.ServeTLS(h.listener, "", "")
	}
	return h.server.Serve(h.listener)
}

// Close ends the hosts and cuts all connections. What was received stays to be read.
func (t *Tenant) Close() error {
	t.close.Do(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		close(t.closed)
	})
	var failed error
	for _, h := range t.hosts {
		if err := h.server.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			failed = err
		}
		_ = h.listener.Close() // The server does not know it before it has begun to serve.
	}
	t.serving.Wait()
	t.calls.Wait()
	return failed
}

// connKey is the context key of a request's connection.
type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// LoginURL is the base of the token endpoint, without a path.
func (t *Tenant) LoginURL() string { return t.hosts["login"].url }

// GraphURL is the base of Microsoft Graph, without a path.
func (t *Tenant) GraphURL() string { return t.hosts["graph"].url }

// CAPEM is the CA to trust, in PEM; empty without TLS.
func (t *Tenant) CAPEM() string { return t.caPEM }

// Client gives an HTTP client that trusts the tenant's CA and keeps no connection beyond what http.DefaultTransport does.
func (t *Tenant) Client() *http.Client {
	transport := &http.Transport{Protocols: t.opts.Protocols}
	if t.caPEM != "" {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(t.caPEM))
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	return &http.Client{Transport: transport}
}

// Settings are those of a provider that sends through this tenant, as its first app and with that app's first secret.
func (t *Tenant) Settings(sender mail.Address) provider.Settings {
	s := provider.Settings{Kind: provider.KindMicrosoft365, Sender: sender}
	s.Microsoft365 = provider.Microsoft365Settings{
		TenantID:     t.opts.TenantID,
		ClientID:     t.opts.Apps[0].ClientID,
		ClientSecret: t.opts.Apps[0].Secret(),
		LoginURL:     t.LoginURL(),
		GraphURL:     t.GraphURL(),
	}
	s.Defaults()
	return s
}

// SetApp adds an app, or replaces the one with its client id. Tokens that were issued stay as they are.
func (t *Tenant) SetApp(a App) {
	if a.Permissions == nil {
		a.Permissions = []string{MailSend, MailReadWrite}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.apps[strings.ToLower(a.ClientID)] = &a
}

// SetMailbox adds a mailbox, or changes the one with its address; items and books stay.
func (t *Tenant) SetMailbox(m Mailbox) {
	t.mu.Lock()
	defer t.mu.Unlock()
	address := strings.ToLower(m.Address)
	box := t.mailboxes[address]
	if box == nil {
		box = &mailbox{address: address, items: make(map[string]*item)}
		t.mailboxes[address] = box
	}
	box.Mailbox = m
}

// RemoveMailbox has a mailbox not exist any more.
func (t *Tenant) RemoveMailbox(address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.mailboxes, strings.ToLower(address))
}

// RevokeTokens makes all tokens issued so far worthless.
func (t *Tenant) RevokeTokens() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.tokens)
}

// Drafts is how many drafts a mailbox has, those included that have been sent but not moved yet.
func (t *Tenant) Drafts(address string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	if box := t.mailboxes[strings.ToLower(address)]; box != nil {
		for _, i := range box.all() {
			if i.shown(t.opts.Now(), t.opts.SentAsDraft) == folderDrafts {
				n++
			}
		}
	}
	return n
}

// limits are those of a mailbox. mu is held.
func (t *Tenant) limits(box *mailbox) *Limits {
	if box.Limits != nil {
		return box.Limits
	}
	return t.opts.Limits
}

// newGUID makes a version 4 UUID (RFC 9562), as Microsoft's request ids are.
func newGUID() string {
	var b [16]byte
	_, _ = crand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	s := hex.EncodeToString(b[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}
