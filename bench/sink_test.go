package bench

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/smtp"
)

// sink starts Postfix's smtp-sink on a free port; it accepts and forgets everything.
func sink(t *testing.T) (address string) {
	t.Helper()
	address = freeAddress(t)
	sinkAt(t, address)
	return address
}

// sinkAt starts a sink at an address, until the test or stop ends it.
func sinkAt(t *testing.T, address string) (stop func()) {
	t.Helper()
	c := exec.Command(tool(t, "smtp-sink"), "-u", "nobody", "-c", address, "1024")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	t.Cleanup(stop)
	await(t, 10*time.Second, "smtp-sink to listen", func() bool {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	})
	return stop
}

// tool finds one of Postfix's programs, which Debian keeps where only root looks.
func tool(t *testing.T, name string) string {
	t.Helper()
	for _, path := range []string{name, "/usr/sbin/" + name} {
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	t.Fatalf("%s is needed: run .ci/deps, or install Postfix", name)
	return ""
}

// smtpTo makes a sender to a sink.
func smtpTo(t *testing.T, address string, concurrency int) provider.Sender {
	t.Helper()
	host, port, _ := net.SplitHostPort(address)
	n, _ := strconv.Atoi(port)
	settings := provider.Settings{Kind: provider.KindSMTP, Sender: mail.Address{Address: "news@example.com"},
		SMTP:   provider.SMTPSettings{Host: host, Port: n, Security: provider.SecurityNone},
		Limits: provider.Limits{Concurrency: concurrency}}
	settings.Defaults()
	s, err := smtp.New(settings, smtp.Options{Hostname: "bench.example"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// smtpSource sends n mails of 2 KB with Postfix's smtp-source, which reads nothing from anywhere and keeps no books, and
// gives the mails per second.
func smtpSource(t *testing.T, address string, n, sessions int) float64 {
	t.Helper()
	path := tool(t, "smtp-source")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	begun := time.Now()
	out, err := exec.CommandContext(ctx, path, "-d", "-s", fmt.Sprint(sessions), "-l", "2048", "-m", fmt.Sprint(n), "-f", "news@example.com", "-t", "reader@example.net", address).CombinedOutput()
	if err != nil {
		t.Fatalf("smtp-source: %v\n%s", err, out)
	}
	return float64(n) / time.Since(begun).Seconds()
}
