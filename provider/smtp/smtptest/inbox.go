package smtptest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// InboxOptions say what an Inbox is like. The zero value takes everything, without TLS and login, on a free port of
// 127.0.0.1.
type InboxOptions struct {
	// Listen is a TCP address; by default 127.0.0.1 with a free port.
	Listen string
	// Security makes a certificate for the address, by a CA of its own: see Inbox.CAPEM.
	Security provider.Security
	// Username and Password, if set, are wanted by AUTH before any mail.
	Username, Password string
	// MaxMessages and MaxBytes bound what is kept, the oldest leave first; by default 1000 and 256 MB.
	MaxMessages int
	MaxBytes    int64
	// MaxMessageBytes is the largest message taken; by default 64 MB.
	MaxMessageBytes int64
	// OnMail, OnRcpt and OnData are asked about each sender, recipient and message; nil takes all. An error refuses: see
	// Refuse. They are called from many goroutines at once. OnData may keep the message; a message it refuses is not kept.
	OnMail func(from string) error
	OnRcpt func(to string) error
	OnData func(m *Message) error
	// Logger gets what goes wrong on connections; by default nothing is logged.
	Logger *slog.Logger
}

// Message is a message that was received. It must not be changed.
type Message struct {
	// ID counts the messages from 1.
	ID   uint64
	From string
	To   []string
	// Raw is the message without dot-stuffing.
	Raw  []byte
	Time time.Time
}

// Refuse is an error that answers with this code and text; enhanced is like "5.1.1" or empty.
func Refuse(code int, enhanced, text string) error {
	status := gosmtp.NoEnhancedCode
	if enhanced != "" {
		if _, err := fmt.Sscanf(enhanced, "%d.%d.%d", &status[0], &status[1], &status[2]); err != nil {
			status = gosmtp.NoEnhancedCode
		}
	}
	return &gosmtp.SMTPError{Code: code, EnhancedCode: status, Message: text}
}

// Inbox is an SMTP server that keeps what it receives in memory. It is safe for concurrent use.
type Inbox struct {
	opts        InboxOptions
	listener    *countingListener
	server      *gosmtp.Server
	caPEM       string
	serving     sync.WaitGroup
	connections atomic.Int64

	mu       sync.Mutex
	messages []*Message // the oldest first
	bytes    int64
	received uint64
	changed  chan struct{} // closed at the next message; nil if nobody waits
}

// NewInbox starts a server, which Close ends.
func NewInbox(opts InboxOptions) (*Inbox, error) {
	opts.defaults()
	b := &Inbox{opts: opts}
	listener, err := net.Listen("tcp", opts.Listen)
	if err != nil {
		return nil, fmt.Errorf("smtptest: listen: %w", err)
	}
	b.listener = &countingListener{Listener: listener, count: &b.connections}
	b.server = gosmtp.NewServer(gosmtp.BackendFunc(b.session))
	b.server.Domain = "inbox.example"
	b.server.ReadTimeout = 5 * time.Minute
	b.server.WriteTimeout = time.Minute
	b.server.MaxMessageBytes = opts.MaxMessageBytes
	b.server.EnableSMTPUTF8 = true
	b.server.ErrorLog = slog.NewLogLogger(opts.Logger.Handler(), slog.LevelDebug)
	b.server.AllowInsecureAuth = opts.Security == provider.SecurityNone
	if err := b.secure(); err != nil {
		_ = listener.Close()
		return nil, err
	}
	return b, nil
}

func (o *InboxOptions) defaults() {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.Security == "" {
		o.Security = provider.SecurityNone
	}
	if o.MaxMessages <= 0 {
		o.MaxMessages = 1000
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 256 << 20
	}
	if o.MaxMessageBytes <= 0 {
		o.MaxMessageBytes = 64 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// secure makes the certificate, if one is wanted, and begins to serve.
func (b *Inbox) secure() error {
	var over net.Listener = b.listener
	if b.opts.Security != provider.SecurityNone {
		config, caPEM, err := Certificate(b.Host(), "localhost")
		if err != nil {
			return err
		}
		b.caPEM = caPEM
		if b.opts.Security == provider.SecurityStartTLS {
			b.server.TLSConfig = config
		} else {
			over = tls.NewListener(over, config)
		}
	}
	b.serving.Go(func() {
		if err := b.server.Serve(over); err != nil && !errors.Is(err, net.ErrClosed) {
			b.opts.Logger.Error("smtptest: serve", "error", err)
		}
	})
	return nil
}

// Close ends the server and its connections. What was received stays to be read.
func (b *Inbox) Close() error {
	err := b.server.Close()
	// The server does not know its listener before it has begun to serve.
	_ = b.listener.Close()
	b.serving.Wait()
	if errors.Is(err, gosmtp.ErrServerClosed) {
		return nil
	}
	return err
}

// Host is the IP address that the server listens on.
func (b *Inbox) Host() string {
	host, _, _ := net.SplitHostPort(b.Addr())
	return host
}

// Addr is the address the server listens on, as host:port.
func (b *Inbox) Addr() string { return b.listener.Addr().String() }

// CAPEM is the CA to trust, in PEM; empty without TLS.
func (b *Inbox) CAPEM() string { return b.caPEM }

// Settings are those of a provider that sends to this Inbox.
func (b *Inbox) Settings(sender mail.Address) provider.Settings {
	_, port, _ := net.SplitHostPort(b.Addr())
	n, _ := strconv.Atoi(port)
	s := provider.Settings{Kind: provider.KindSMTP, Sender: sender}
	s.SMTP.Host, s.SMTP.Port = b.Host(), n
	s.SMTP.Security, s.SMTP.CAPEM = b.opts.Security, b.caPEM
	if b.opts.Username != "" {
		s.SMTP.Auth = provider.SMTPAuth{
			Method:         provider.AuthBasic,
			Username:       b.opts.Username,
			Password:       provider.Secret(b.opts.Password),
			AllowCleartext: b.opts.Security == provider.SecurityNone,
		}
	}
	s.Defaults()
	return s
}

// Connections is the number of connections that were made so far.
func (b *Inbox) Connections() int { return int(b.connections.Load()) }

// Received is the number of messages taken so far, those no longer kept included.
func (b *Inbox) Received() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return int(b.received)
}

// Messages gives what is kept, the oldest first.
func (b *Inbox) Messages() []*Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.messages)
}

// page gives up to n messages, the newest first, of those older than ID before (0: all), and how many are kept.
func (b *Inbox) page(before uint64, n int) (messages []*Message, kept int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	end := len(b.messages)
	if before > 0 {
		end, _ = slices.BinarySearchFunc(b.messages, before, compareID)
	}
	for i := end - 1; i >= 0 && len(messages) < n; i-- {
		messages = append(messages, b.messages[i])
	}
	return messages, len(b.messages)
}

// message finds a kept message, or nil.
func (b *Inbox) message(id uint64) *Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i, ok := slices.BinarySearchFunc(b.messages, id, compareID); ok {
		return b.messages[i]
	}
	return nil
}

func compareID(m *Message, id uint64) int {
	switch {
	case m.ID < id:
		return -1
	case m.ID > id:
		return 1
	}
	return 0
}

// WaitFor returns when n messages have been received in all, or with ctx's error.
func (b *Inbox) WaitFor(ctx context.Context, n int) error {
	for {
		b.mu.Lock()
		if b.received >= uint64(max(n, 0)) {
			b.mu.Unlock()
			return nil
		}
		if b.changed == nil {
			b.changed = make(chan struct{})
		}
		changed, received := b.changed, b.received
		b.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("smtptest: %d of %d messages came: %w", received, n, ctx.Err())
		}
	}
}

func (b *Inbox) keep(m *Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.received++
	m.ID = b.received
	b.messages = append(b.messages, m)
	b.bytes += int64(len(m.Raw))
	for len(b.messages) > b.opts.MaxMessages || b.bytes > b.opts.MaxBytes && len(b.messages) > 1 {
		b.bytes -= int64(len(b.messages[0].Raw))
		b.messages[0] = nil
		b.messages = b.messages[1:]
	}
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

// countingListener counts what it accepts.
type countingListener struct {
	net.Listener
	count *atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.count.Add(1)
	}
	return c, err
}
