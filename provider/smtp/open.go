package smtp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// tlsVersions are the settings' names of TLS versions.
var tlsVersions = map[string]uint16{
	"1.0": tls.VersionTLS10,
	"1.1": tls.VersionTLS11,
	"1.2": tls.VersionTLS12,
	"1.3": tls.VersionTLS13,
}

// tlsConfig verifies the server's certificate and name, always.
func tlsConfig(s *provider.SMTPSettings) *tls.Config {
	config := &tls.Config{
		ServerName:         s.Host,
		MinVersion:         tlsVersions[s.MinTLS],
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}
	if s.CAPEM != "" {
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM([]byte(s.CAPEM))
	}
	return config
}

// open makes a connection that is ready for MAIL, and begins it for the attempt.
func (s *Sender) open(ctx context.Context, limit time.Time, token string) (*conn, error) {
	c, err := s.dial(ctx, limit)
	if err != nil {
		return nil, err
	}
	if err := s.greet(c, token); err != nil {
		c.detach()
		s.pool.dismiss(c)
		return nil, err
	}
	return c, nil
}

// dial makes a connection, and begins it for the attempt.
func (s *Sender) dial(ctx context.Context, limit time.Time) (*conn, error) {
	dialing, cancel := context.WithDeadline(ctx, earlier(limit, time.Now().Add(s.timeouts.Dial)))
	defer cancel()
	raw, err := s.dialer.DialContext(dialing, "tcp", s.address)
	if err != nil {
		if ctx.Err() != nil {
			return nil, provider.ErrInterrupted
		}
		return nil, dialFault(err)
	}
	c := newConn(raw, s.timeouts)
	c.begin(ctx, limit)
	return c, nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// greet takes a new connection through greeting, TLS, EHLO and AUTH.
func (s *Sender) greet(c *conn, token string) error {
	for _, p := range s.phases() {
		if err := p.pass(c); err != nil {
			return err
		}
	}
	if s.account == nil {
		return nil
	}
	return s.account.authenticate(c, token)
}

// phase is what a new connection has to pass at a step.
type phase struct {
	step string
	pass func(*conn) error
}

// phases are those before AUTH, in order. After STARTTLS the server is greeted again (RFC 3207, section 4.2).
func (s *Sender) phases() []phase {
	switch s.security {
	case provider.SecurityTLS:
		return []phase{{stepTLS, s.encrypt}, {stepGreeting, greeted}, {stepEHLO, s.hello}}
	case provider.SecurityStartTLS:
		return []phase{{stepGreeting, greeted}, {stepEHLO, s.hello}, {stepTLS, s.startTLS}, {stepEHLO, s.hello}}
	}
	return []phase{{stepGreeting, greeted}, {stepEHLO, s.hello}}
}

// greeted waits for the server to speak first.
func greeted(c *conn) error {
	r, err := c.reply(stepGreeting, c.t.Greeting)
	if err != nil {
		return err
	}
	if r.class() != 2 {
		return c.refusal(stepGreeting, r)
	}
	c.greeting = r.text
	return nil
}

// hello sends EHLO. Servers that know only HELO are not supported: they offer neither TLS nor AUTH.
func (s *Sender) hello(c *conn) error {
	c.out = append(append(append(c.out[:0], "EHLO "...), s.hostname...), "\r\n"...)
	if err := c.send(stepEHLO, c.t.Command, c.out); err != nil {
		return err
	}
	first := true
	c.arm(c.t.Command)
	r, err := readReply(c.r, func(line []byte) {
		if first {
			c.ext.named(line)
		} else {
			c.ext.add(line)
		}
		first = false
	})
	if err := c.answered(stepEHLO, r, err); err != nil {
		return err
	}
	if r.class() != 2 {
		return c.refusal(stepEHLO, r)
	}
	return nil
}

// startTLS upgrades the connection (RFC 3207). Without TLS nothing goes on: not offering STARTTLS is what an attacker in
// the middle would do.
func (s *Sender) startTLS(c *conn) error {
	if !c.ext.startTLS {
		return ours(mail.Configuration, stepTLS, "the server does not offer STARTTLS").because(mail.StartTLSMissing)
	}
	r, err := c.command(stepTLS, c.t.Command, "STARTTLS")
	if err != nil {
		return err
	}
	if r.class() != 2 {
		return c.refusal(stepTLS, r)
	}
	return s.encrypt(c)
}

func (s *Sender) encrypt(c *conn) error {
	c.arm(c.t.TLS)
	over := tls.Client(c.raw, s.tls)
	if err := over.Handshake(); err != nil {
		c.dead = true
		if c.interrupted() {
			return provider.ErrInterrupted
		}
		return tlsFault(err)
	}
	c.over(over)
	return nil
}

// dialFault says what it means that no connection came about. A resolver's answer that there is no such host is a fault
// of the settings, as is a forbidden address: people are told, and mail waits for them. Everything else may pass by itself.
func dialFault(err error) *fault {
	var (
		dns       *net.DNSError
		forbidden *provider.ForbiddenError
	)
	if errors.As(err, &forbidden) {
		return &fault{Outcome: forbidden.Outcome(stepDial)}
	}
	if errors.As(err, &dns) && dns.IsNotFound && !dns.IsTemporary {
		return ours(mail.Configuration, stepDial, "no such host: "+dns.Name).because(mail.HostNotFound)
	}
	if timedOut(err) || errors.Is(err, context.DeadlineExceeded) {
		return ours(mail.Temporary, stepDial, "timed out")
	}
	return ours(mail.Temporary, stepDial, err.Error())
}

// tlsFault says what a failed handshake means. Whatever TLS itself objects to, here or there, stays so until somebody
// changes a certificate or a setting; whatever the network does, may pass.
func tlsFault(err error) *fault {
	var (
		untrusted *tls.CertificateVerificationError
		notTLS    tls.RecordHeaderError
		op        *net.OpError
	)
	switch {
	case errors.As(err, &untrusted):
		return ours(mail.Configuration, stepTLS, "the server's certificate is not valid: "+untrusted.Err.Error()).because(mail.CertificateInvalid)
	case errors.As(err, &notTLS):
		return ours(mail.Configuration, stepTLS, "the server does not speak TLS on this port").because(mail.TLSNotSpoken)
	case errors.As(err, &op) && op.Op == "remote error":
		return ours(mail.Configuration, stepTLS, "the server refused the TLS handshake: "+op.Err.Error()).because(mail.TLSRefused)
	case errors.As(err, &op) && op.Op == "local error":
		return ours(mail.Configuration, stepTLS, "the TLS handshake failed: "+op.Err.Error()).because(mail.TLSRefused)
	case timedOut(err), errors.As(err, &op), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe):
		return ours(mail.Temporary, stepTLS, "during the TLS handshake: "+plain(err))
	}
	return ours(mail.Configuration, stepTLS, err.Error()).because(mail.TLSRefused)
}
