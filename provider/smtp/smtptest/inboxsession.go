package smtptest

import (
	"crypto/subtle"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/emersion/go-sasl"
	gosmtp "github.com/emersion/go-smtp"
)

// session is one connection's state. go-smtp calls it from one goroutine.
type session struct {
	inbox  *Inbox
	authed bool
	from   string
	to     []string
}

var _ gosmtp.AuthSession = (*session)(nil)

func (b *Inbox) session(*gosmtp.Conn) (gosmtp.Session, error) { return &session{inbox: b}, nil }

// AuthMechanisms implements gosmtp.AuthSession.
func (s *session) AuthMechanisms() []string {
	if s.inbox.opts.Username == "" {
		return nil
	}
	return []string{sasl.Plain, sasl.Login}
}

// Auth implements gosmtp.AuthSession.
func (s *session) Auth(mechanism string) (sasl.Server, error) {
	switch {
	case !slices.Contains(s.AuthMechanisms(), mechanism):
		return nil, gosmtp.ErrAuthUnknownMechanism
	case mechanism == sasl.Login:
		return &loginServer{check: s.check}, nil
	}
	return sasl.NewPlainServer(func(_, username, password string) error { return s.check(username, password) }), nil
}

func (s *session) check(username, password string) error {
	want := &s.inbox.opts
	if subtle.ConstantTimeCompare([]byte(username), []byte(want.Username)) != 1 ||
		subtle.ConstantTimeCompare([]byte(password), []byte(want.Password)) != 1 {
		return gosmtp.ErrAuthFailed
	}
	s.authed = true
	return nil
}

// Mail implements gosmtp.Session.
func (s *session) Mail(from string, _ *gosmtp.MailOptions) error {
	if s.inbox.opts.Username != "" && !s.authed {
		return Refuse(530, "5.7.0", "Authentication required")
	}
	if on := s.inbox.opts.OnMail; on != nil {
		if err := on(from); err != nil {
			return err
		}
	}
	s.from, s.to = from, nil
	return nil
}

// Rcpt implements gosmtp.Session.
func (s *session) Rcpt(to string, _ *gosmtp.RcptOptions) error {
	if on := s.inbox.opts.OnRcpt; on != nil {
		if err := on(to); err != nil {
			return err
		}
	}
	s.to = append(s.to, to)
	return nil
}

// Data implements gosmtp.Session.
func (s *session) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	m := &Message{From: s.from, To: s.to, Raw: raw, Time: time.Now()}
	if on := s.inbox.opts.OnData; on != nil {
		if err := on(m); err != nil {
			return err
		}
	}
	s.inbox.keep(m)
	return nil
}

// Reset implements gosmtp.Session.
func (s *session) Reset() { s.from, s.to = "", nil }

// Logout implements gosmtp.Session.
func (s *session) Logout() error { return nil }

// loginServer is the LOGIN mechanism, which go-sasl has for clients only.
type loginServer struct {
	check    func(username, password string) error
	username string
	asked    int
}

// Next implements sasl.Server.
func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case response == nil && l.asked == 0:
		l.asked = 1
		return []byte("Username:"), false, nil
	case l.asked <= 1:
		l.username, l.asked = string(response), 2
		return []byte("Password:"), false, nil
	case l.asked == 2:
		l.asked = 3
		return nil, true, l.check(l.username, string(response))
	}
	return nil, false, errors.New("smtptest: LOGIN is over")
}
