package smtp

import (
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/smtp/smtptest"
)

const (
	password = "hunter2-correct-horse"
	// authPlain is base64 of NUL, the sender's address, NUL, password.
	authPlain = "AHJlcG9ydHNAZXhhbXBsZS5jb20AaHVudGVyMi1jb3JyZWN0LWhvcnNl"
	greeting  = "S: 220 mx.example ESMTP\nC: EHLO client.example\n"
	body      = "Subject: x\r\n\r\n.a line with a dot\r\n"
	mailFrom  = "C: MAIL FROM:<reports@example.com>\n"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// text is a rendered message.
type text struct {
	raw  string
	utf8 bool
	// fail is an error of the second rendering, after half of it.
	fail error
	runs int
}

func (m *text) Size() int64 { return int64(len(m.raw)) }
func (m *text) UTF8() bool  { return m.utf8 }
func (m *text) WriteTo(w io.Writer) (int64, error) {
	m.runs++
	if m.fail != nil && m.runs > 1 {
		n, _ := io.WriteString(w, m.raw[:len(m.raw)/2])
		return int64(n), m.fail
	}
	n, err := io.WriteString(w, m.raw)
	return int64(n), err
}

// rig is a sender in front of a scripted peer.
type rig struct {
	*Sender
	peer    *smtptest.Peer
	message *text
}

type change func(*provider.Settings, *Options)

// newRig makes a sender without security or login, unless a change says otherwise. Bubbles of synctest call it inside.
func newRig(t *testing.T, changes []change, scripts ...string) *rig {
	t.Helper()
	peer := smtptest.Play(t, scripts...)
	settings := provider.Settings{
		Kind:   provider.KindSMTP,
		Sender: mail.Address{Address: "reports@example.com"},
		SMTP:   provider.SMTPSettings{Host: "mx.example", Security: provider.SecurityNone},
	}
	opts := Options{Hostname: "client.example", Dialer: peer}
	for _, c := range changes {
		c(&settings, &opts)
	}
	s, err := New(settings, opts)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Sender: s, peer: peer, message: &text{raw: body}}
	s.compose = func(*mail.Outgoing) (rendered, error) { return r.message, nil }
	t.Cleanup(func() { _ = s.Close() })
	return r
}

// secured gives the peer a certificate and the sender its CA.
func (r *rig) secured(t *testing.T, hosts ...string) *rig {
	t.Helper()
	config, caPEM, err := smtptest.Certificate(hosts...)
	if err != nil {
		t.Fatal(err)
	}
	r.peer.TLS = config
	r.tls = tlsConfig(&provider.SMTPSettings{Host: "mx.example", MinTLS: "1.2", CAPEM: caPEM})
	return r
}

func security(s provider.Security) change {
	return func(settings *provider.Settings, _ *Options) { settings.SMTP.Security = s }
}

func basic(s *provider.Settings, _ *Options) {
	s.SMTP.Auth = provider.SMTPAuth{Method: provider.AuthBasic, Password: password, AllowCleartext: true}
}

func delivery(to ...string) *provider.Delivery {
	m := &mail.Outgoing{ID: "01", From: mail.Address{Address: "reports@example.com"}}
	for _, a := range to {
		m.To = append(m.To, mail.Address{Address: a})
	}
	return &provider.Delivery{Message: m, Recipients: m.Recipients()}
}

func (r *rig) send(t *testing.T, to ...string) []mail.Outcome {
	t.Helper()
	d := delivery(to...)
	fenced := 0
	d.Fence = func() error { fenced++; return nil }
	out, err := r.Send(t.Context(), d)
	if err != nil {
		t.Fatalf("Send: %v", err)
	}
	if len(out) != len(to) {
		t.Fatalf("%d outcomes for %d recipients", len(out), len(to))
	}
	for _, o := range out {
		if o.Class == mail.Delivered && fenced != 1 {
			t.Errorf("delivered with the fence called %d times", fenced)
		}
		if strings.Contains(fmt.Sprintf("%+v", o), password) || strings.Contains(o.Reply, authPlain[:8]) {
			t.Errorf("the outcome shows the password: %+v", o)
		}
	}
	return out
}

// because checks an outcome's cause.
func because(t *testing.T, o mail.Outcome, cause mail.Cause) {
	t.Helper()
	if o.Cause != cause {
		t.Errorf("the cause of %q is %q, want %q", o.Reply, o.Cause, cause)
	}
}

// is checks an outcome's class, step and code.
func is(t *testing.T, o mail.Outcome, class mail.Class, step string, code int) {
	t.Helper()
	if o.Class != class || o.Step != step || o.Code != code {
		t.Errorf("got %s at %s with %d (%q), want %s at %s with %d", o.Class, o.Step, o.Code, o.Reply, class, step, code)
	}
}
