// Package smtp hands messages over to an SMTP server (RFC 5321). What a server answers is judged here, once, for each
// recipient; connections are kept and used again.
package smtp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// Options are what does not depend on the server. The zero value is good for production.
type Options struct {
	// Hostname introduces us in EHLO; by default it is the machine's name.
	Hostname string
	// Dialer makes connections; by default a net.Dialer that asks Guard. One that is given has to do so by itself.
	Dialer   Dialer
	Guard    *provider.Guard
	Timeouts Timeouts
	// MaxMessagesPerConn ends a connection after so many messages, so that load spreads over a server's addresses. By
	// default 100.
	MaxMessagesPerConn int
	// MaxIdle is how long a connection is kept without work; by default 10 s. Where a server limits connections, those
	// kept idle here are missing to other processes of the same account.
	MaxIdle time.Duration
	// MaxIdleConns is how many connections are kept; by default the settings' concurrency.
	MaxIdleConns int
	// Tokens gives the access tokens for a login by OAuth 2.0; needed for that, and else not used.
	Tokens provider.Tokens
	// Logger tells of connections, at level debug; by default nothing is logged.
	Logger *slog.Logger
}

// Dialer is what Options need of a net.Dialer.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// Timeouts bound each step; 0 stands for the default. RFC 5321, section 4.5.3.2, wants up to 5 minutes for some of them.
// Before the final dot ours are shorter, as giving up there costs a try and no more.
type Timeouts struct {
	Dial     time.Duration // 30 s, name resolution included
	TLS      time.Duration // 30 s, the handshake
	Greeting time.Duration // 1 min
	Command  time.Duration // 1 min: EHLO, STARTTLS, AUTH, RSET
	Mail     time.Duration // 2 min
	Rcpt     time.Duration // 2 min
	Data     time.Duration // 2 min
	Block    time.Duration // 3 min, one block of the message
	Final    time.Duration // 10 min, the reply to the final dot: a shorter wait makes duplicates
	Attempt  time.Duration // 15 min, everything up to the final dot
}

// Longest is how long Send takes at most.
func (t Timeouts) Longest() time.Duration {
	t.defaults()
	return t.Attempt + t.Final + lastWordsTimeout
}

func (t *Timeouts) defaults() {
	for _, d := range []struct {
		v *time.Duration
		d time.Duration
	}{
		{&t.Dial, 30 * time.Second},
		{&t.TLS, 30 * time.Second},
		{&t.Greeting, time.Minute},
		{&t.Command, time.Minute},
		{&t.Mail, 2 * time.Minute},
		{&t.Rcpt, 2 * time.Minute},
		{&t.Data, 2 * time.Minute},
		{&t.Block, 3 * time.Minute},
		{&t.Final, 10 * time.Minute},
		{&t.Attempt, 15 * time.Minute},
	} {
		if *d.v <= 0 {
			*d.v = d.d
		}
	}
}

// of is the time-out of the reply to an envelope's command.
func (t *Timeouts) of(step string) time.Duration {
	switch step {
	case stepMail:
		return t.Mail
	case stepRcpt:
		return t.Rcpt
	}
	return t.Data
}

// Sender hands messages over to one server with one account. It is safe for concurrent use.
type Sender struct {
	security provider.Security
	from     string   // where the message names no sender
	account  *account // nil for none
	address  string
	hostname string
	tls      *tls.Config
	dialer   Dialer
	timeouts Timeouts
	log      *slog.Logger
	pool     *pool
	compose  func(*mail.Outgoing) (rendered, error)
	// apart is until when nothing is sent behind a final dot, in ns since 1970, as the server did not answer it as if it had come later.
	apart atomic.Int64
}

var _ provider.Pipeliner = (*Sender)(nil)

// New makes a Sender. It does not connect. Settings that are no good are a *mail.Invalid.
func New(settings provider.Settings, opts Options) (*Sender, error) {
	settings.Defaults()
	if settings.Kind != provider.KindSMTP {
		return nil, fmt.Errorf("smtp: settings are for a provider of kind %s", settings.Kind)
	}
	if problems := settings.Validate(); len(problems) > 0 {
		return nil, fmt.Errorf("smtp: settings: %w", &mail.Invalid{Problems: problems})
	}
	host := &settings.SMTP
	if host.Auth.Method == provider.AuthOAuth2 && opts.Tokens == nil {
		return nil, errors.New("smtp: a login by OAuth 2.0 needs tokens")
	}
	s := &Sender{
		security: host.Security,
		from:     settings.Sender.Address,
		account:  newAccount(&settings, opts.Tokens),
		address:  net.JoinHostPort(host.Host, strconv.Itoa(host.Port)),
		hostname: hostname(opts.Hostname),
		tls:      tlsConfig(host),
		dialer:   opts.Dialer,
		timeouts: opts.Timeouts,
		log:      opts.Logger,
		compose:  compose,
		pool: &pool{
			maxIdle:     opts.MaxIdle,
			maxConns:    opts.MaxIdleConns,
			maxMessages: opts.MaxMessagesPerConn,
		},
	}
	s.timeouts.defaults()
	if s.dialer == nil {
		s.dialer = &net.Dialer{Control: opts.Guard.Control}
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.pool.maxIdle <= 0 {
		s.pool.maxIdle = 10 * time.Second
	}
	if s.pool.maxConns <= 0 {
		s.pool.maxConns = settings.Limits.Concurrency
	}
	if s.pool.maxMessages <= 0 {
		s.pool.maxMessages = 100
	}
	return s, nil
}

// hostname gives name, or the machine's, as long as it can stand in EHLO.
func hostname(name string) string {
	if name == "" {
		name, _ = os.Hostname()
	}
	odd := func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-.[]:", r))
	}
	if name == "" || len(name) > 255 || strings.ContainsFunc(name, odd) {
		return "localhost"
	}
	return name
}

// Send implements provider.Sender.
func (s *Sender) Send(ctx context.Context, d *provider.Delivery) ([]mail.Outcome, error) {
	return s.SendInLine(ctx, d, alone{})
}

// alone is a place in a line of one.
type alone struct{}

var _ provider.Place = alone{}

func (alone) Await(context.Context, func() bool) error { return nil }
func (alone) Offer(any)                                {}
func (alone) Behind() any                              { return nil }

// SendInLine implements provider.Pipeliner. The message is rendered before it is its turn, and before a connection is taken.
func (s *Sender) SendInLine(ctx context.Context, d *provider.Delivery, place provider.Place) ([]mail.Outcome, error) {
	if !s.pool.enter() {
		return nil, fmt.Errorf("smtp: the sender is closed: %w", provider.ErrInterrupted)
	}
	defer s.pool.leave()
	if ctx.Err() != nil {
		return nil, provider.ErrInterrupted
	}
	t := s.prepare(d)
	if t.done() {
		return t.outcomes, nil
	}
	t.takeAlong = func(c *conn) []byte { return s.takeAlong(c, place) }
	f := &follower{sender: s, t: t}
	place.Offer(f)
	err := place.Await(ctx, f.started)
	c := f.end()
	if err == nil {
		t.limit = time.Now().Add(s.timeouts.Attempt)
		err = s.attempt(ctx, t, c)
	} else if c != nil {
		s.drop(c)
	}
	var fault *fault
	switch {
	case errors.As(err, &fault):
		t.settle(fault.Outcome)
	case err != nil:
		return nil, err
	}
	return t.outcomes, nil
}

// attempt runs t on c, where its envelope has been sent ahead, else on a kept connection, or on a new one. One that turns out to be of
// no use before the server took anything, as it had been closed meanwhile, is no failure of the attempt.
func (s *Sender) attempt(ctx context.Context, t *transaction, c *conn) error {
	token, err := s.account.credential(ctx)
	if err != nil {
		if c != nil {
			s.drop(c)
		}
		return err
	}
	if c != nil && c.token != token {
		s.drop(c) // as it would be if it had been kept
		c = nil
	}
	if t.ahead = c != nil; !t.ahead {
		c = s.kept(token)
	}
	if c != nil {
		c.begin(ctx, t.limit)
		err := s.use(c, t)
		var f *fault
		if !errors.As(err, &f) || !f.hungUp || f.Step != stepMail {
			return err
		}
		if f.outOfStep {
			s.apart.Store(time.Now().Add(apartTime).UnixNano())
		}
		s.log.Debug("smtp: a kept connection is of no use; connecting again", "server", s.address, "out_of_step", f.outOfStep)
	}
	if c, err = s.login(ctx, t.limit, token); err != nil {
		return err
	}
	s.log.Debug("smtp: connected", "server", s.address, "tls", c.encrypted())
	return s.use(c, t)
}

// kept gives an idle connection that was logged in with token, or nil.
func (s *Sender) kept(token string) *conn {
	c := s.pool.take()
	if c != nil && c.token != token {
		// Its token has run out, or is about to.
		s.pool.dismiss(c)
		return nil
	}
	return c
}

// login opens a connection. A token that is refused although it should be good is replaced, once: it may have been revoked.
func (s *Sender) login(ctx context.Context, limit time.Time, token string) (*conn, error) {
	c, err := s.open(ctx, limit, token)
	var f *fault
	if token == "" || !errors.As(err, &f) || f.Step != stepAuth || f.Class != mail.Configuration || f.Code == 0 {
		return c, err
	}
	s.account.tokens.Reject(token)
	another, without := s.account.credential(ctx)
	if without != nil {
		return nil, without
	}
	if another == token {
		return nil, err
	}
	return s.open(ctx, limit, another)
}

// use runs t on c, and gives c on, or back, even if that panics.
func (s *Sender) use(c *conn, t *transaction) error {
	defer s.release(c)
	return t.run(c)
}

// release gives c to the message whose envelope is on it, else to the pool.
func (s *Sender) release(c *conn) {
	f := c.next
	if f == nil {
		s.pool.put(c)
		return
	}
	c.next = nil
	c.detach()
	if c.dead || !f.pass(c) {
		s.drop(c)
	}
}

// drop ends a connection in the middle of a dialog. Called within an attempt only.
func (s *Sender) drop(c *conn) {
	c.dead = true
	s.pool.dismiss(c)
}

// Close implements provider.Sender. It waits for attempts under way, which may take Timeouts.Longest; who can't wait
// ends their contexts first.
func (s *Sender) Close() error {
	s.pool.close()
	return nil
}

// rendered is a message as it goes over the wire. WriteTo may be called more than once.
type rendered interface {
	Size() int64
	// UTF8 reports whether the header needs SMTPUTF8.
	UTF8() bool
	io.WriterTo
}
