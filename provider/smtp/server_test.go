package smtp

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/smtp/smtptest"
)

var sender = mail.Address{Address: "reports@example.com", Name: "Reports"}

// report is a message as workers hand it over.
func report(id int, to ...string) *provider.Delivery {
	m := &mail.Outgoing{
		ID: fmt.Sprintf("01JZZZZZZZZZZZZZZZZZZZ%04d", id), Kind: mail.Report, From: sender, Subject: fmt.Sprintf("Report %d", id),
		Text: ".a dot\r\nand more\r\n", Date: time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC),
	}
	for _, a := range to {
		m.To = append(m.To, mail.Address{Address: a})
	}
	return &provider.Delivery{Message: m, Recipients: m.Recipients()}
}

// sendAll sends n messages from several goroutines and fails on any that is not delivered.
func sendAll(t *testing.T, s *Sender, n, goroutines int) {
	t.Helper()
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := g; i < n; i += goroutines {
				out, err := s.Send(t.Context(), report(i, fmt.Sprintf("r%d@example.org", i)))
				if err != nil || out[0].Class != mail.Delivered {
					t.Errorf("message %d: %+v, %v", i, out, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestManyMessagesToARealServer(t *testing.T) {
	for _, security := range []provider.Security{provider.SecurityNone, provider.SecurityStartTLS, provider.SecurityTLS} {
		t.Run(string(security), func(t *testing.T) {
			inbox, err := smtptest.NewInbox(smtptest.InboxOptions{Security: security, Username: "reports", Password: password})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = inbox.Close() }()
			s, err := New(inbox.Settings(sender), Options{MaxMessagesPerConn: 50})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			const n, goroutines = 300, 4
			sendAll(t, s, n, goroutines)
			if inbox.Received() != n {
				t.Errorf("%d received, want %d", inbox.Received(), n)
			}
			if c := inbox.Connections(); c < n/50 || c > n/50+goroutines {
				t.Errorf("%d connections for %d messages of 50 each by %d goroutines", c, n, goroutines)
			}
			seen := make(map[string]bool)
			for _, m := range inbox.Messages() {
				if m.From != sender.Address || len(m.To) != 1 || seen[m.To[0]] || !strings.Contains(string(m.Raw), "\r\n.a dot\r\n") {
					t.Fatalf("%s for %v: %q", m.From, m.To, m.Raw)
				}
				seen[m.To[0]] = true
			}
		})
	}
}

func TestWrongPasswordOnARealServer(t *testing.T) {
	inbox, err := smtptest.NewInbox(smtptest.InboxOptions{Security: provider.SecurityTLS, Username: "reports", Password: password})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = inbox.Close() }()
	settings := inbox.Settings(sender)
	settings.SMTP.Auth.Password = "guess"
	s, err := New(settings, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	out, err := s.Send(t.Context(), report(1, "ada@example.org"))
	if err != nil {
		t.Fatal(err)
	}
	is(t, out[0], mail.Configuration, stepAuth, 535)
}

func TestRecipientsOfARealServer(t *testing.T) {
	inbox, err := smtptest.NewInbox(smtptest.InboxOptions{OnRcpt: func(to string) error {
		switch {
		case strings.HasPrefix(to, "gone"):
			return smtptest.Refuse(550, "5.1.1", "no such user")
		case strings.HasPrefix(to, "busy"):
			return smtptest.Refuse(450, "4.2.1", "later")
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = inbox.Close() }()
	s, err := New(inbox.Settings(sender), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	d := report(1, "gone@example.org", "jürgen@example.org", "busy@example.org", "ada@example.org")
	d.Recipients = d.Recipients[:3] // Ada has hers already.
	out, err := s.Send(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	is(t, out[0], mail.Permanent, stepRcpt, 550)
	is(t, out[1], mail.Delivered, stepBody, 250)
	is(t, out[2], mail.Temporary, stepRcpt, 450)
	if got := inbox.Messages(); len(got) != 1 || fmt.Sprint(got[0].To) != "[jürgen@example.org]" {
		t.Errorf("%+v", got)
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	s, err := New(provider.Settings{Kind: provider.KindSMTP, Sender: sender,
		SMTP: provider.SMTPSettings{Host: "127.0.0.1", Port: port, Security: provider.SecurityNone}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	out, err := s.Send(t.Context(), report(1, "ada@example.org"))
	if err != nil {
		t.Fatal(err)
	}
	is(t, out[0], mail.Temporary, stepDial, 0)
	if out[0].Scope != mail.ScopeProvider || !strings.Contains(out[0].Reply, "refused") {
		t.Errorf("%+v", out[0])
	}
}

// Postfix's smtp-sink is a server that nobody wrote for this client.
func TestManyMessagesToPostfix(t *testing.T) {
	sink, err := exec.LookPath("smtp-sink")
	if err != nil {
		sink = "/usr/sbin/smtp-sink"
		if _, err := os.Stat(sink); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal("smtp-sink is not installed: it comes with Postfix")
			}
			t.Skip("smtp-sink is not installed: it comes with Postfix")
		}
	}
	for name, flags := range map[string][]string{"pipelining": nil, "one by one": {"-p"}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			socket := filepath.Join(dir, "s")
			// -d writes each message to a file, with its envelope in front.
			args := append([]string{"-d", filepath.Join(dir, "mail."), "-h", "sink.example"}, flags...)
			if os.Geteuid() == 0 {
				args = append(args, "-u", "root")
			}
			ctx, stop := context.WithCancel(t.Context())
			command := exec.CommandContext(ctx, sink, append(args, "unix:"+socket, "50")...)
			command.Dir = dir
			var words strings.Builder
			command.Stderr = &words
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				stop()
				_ = command.Wait()
			}()
			dialer := unixDialer(socket)
			if err := dialer.await(t.Context()); err != nil {
				t.Fatalf("smtp-sink: %v %s", err, words.String())
			}
			settings := provider.Settings{Kind: provider.KindSMTP, Sender: sender,
				SMTP: provider.SMTPSettings{Host: "sink.example", Security: provider.SecurityNone}}
			steps, err := Check(t.Context(), settings, Options{Dialer: dialer}) // leaves no message behind
			if f := provider.Failed(steps); err != nil || f != nil {
				t.Errorf("%+v %v", f, err)
			}
			s, err := New(settings, Options{Dialer: dialer})
			if err != nil {
				t.Fatal(err)
			}
			const n = 300
			sendAll(t, s, n, 4)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			files, err := filepath.Glob(filepath.Join(dir, "mail.*"))
			if err != nil || len(files) != n {
				t.Fatalf("%d messages arrived, want %d (%v)", len(files), n, err)
			}
			for _, file := range files {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(string(text), "X-Mail-Args: <reports@example.com>") || !strings.Contains(string(text), "\n.a dot\n") {
					t.Fatalf("%s", text)
				}
			}
		})
	}
}

// unixDialer is the path of a socket.
type unixDialer string

func (u unixDialer) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", string(u))
}

// await returns when a server answers on the socket.
func (u unixDialer) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	retry := time.NewTicker(5 * time.Millisecond)
	defer retry.Stop()
	for {
		c, err := u.DialContext(ctx, "", "")
		if err == nil {
			defer func() { _ = c.Close() }()
			_, err = bufio.NewReader(c).ReadString('\n')
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-retry.C:
		}
	}
}

func BenchmarkSend(b *testing.B) {
	inbox, err := smtptest.NewInbox(smtptest.InboxOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = inbox.Close() }()
	s, err := New(inbox.Settings(sender), Options{MaxMessagesPerConn: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for name, size := range map[string]int{"2 KB": 0, "5 MB": 5 << 20} {
		b.Run(name, func(b *testing.B) {
			d := report(1, "ada@example.org")
			d.Message.Text = strings.Repeat("A line of some length in a mail.\r\n", 60)
			if size > 0 {
				d.Message.Files = []*mail.File{{Name: "r.pdf", ContentType: "application/pdf", Bytes: make([]byte, size)}}
				b.SetBytes(int64(size))
			}
			b.ReportAllocs()
			for b.Loop() {
				out, err := s.Send(b.Context(), d)
				if err != nil || out[0].Class != mail.Delivered {
					b.Fatal(out, err)
				}
			}
		})
	}
}
