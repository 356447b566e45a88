package smtp

import (
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

func TestNoConnectionGoesWhereItIsForbidden(t *testing.T) {
	guard, problems := provider.NewGuard([]string{"127.0.0.1", "::1"})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, host := range []string{"127.0.0.1", "localhost", "0.0.0.0"} {
		s, err := New(provider.Settings{
			Kind:   provider.KindSMTP,
			Sender: mail.Address{Address: "reports@example.com"},
			SMTP:   provider.SMTPSettings{Host: host, Port: l.Addr().(*net.TCPAddr).Port, Security: provider.SecurityNone},
		}, Options{Guard: guard, Timeouts: Timeouts{Greeting: time.Second}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		out, err := s.Send(t.Context(), delivery("ada@example.org"))
		if err != nil || len(out) != 1 {
			t.Fatalf("%v, %v", out, err)
		}
		is(t, out[0], mail.Configuration, stepDial, 0)
		because(t, out[0], mail.TargetForbidden)
		if out[0].Scope != mail.ScopeProvider {
			t.Errorf("%s: %+v", host, out[0])
		}
	}

	// Whoever connects first is this test.
	ours, err := net.Dial("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(l.Addr().(*net.TCPAddr).Port)))
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if first.RemoteAddr().String() != ours.LocalAddr().String() {
		t.Error("a connection was made")
	}
}
