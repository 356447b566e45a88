package bench

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// dovecot checks logins for a Postfix, and does nothing else: it serves no mailboxes.
type dovecot struct {
	socket string // of Dovecot's authentication protocol

	folder string
}

// The syntax is that of Dovecot 2.3.
const dovecotConf = `
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
auth_verbose = yes
protocols =
ssl = no
auth_mechanisms = %[2]s
passdb {
  driver = oauth2
  mechanisms = %[2]s
  args = %[1]s/oauth2.conf
}
service auth {
  unix_listener %[1]s/sasl {
    mode = 0666
  }
}
`

// Tokens are looked up at their issuer (RFC 7662).
const dovecotOAuth2Conf = `
introspection_url = %s
introspection_mode = post
username_attribute = username
active_attribute = active
active_value = true
`

// startDovecot starts a server that offers some mechanisms (auth_mechanisms) and has tokens checked at a URL. Everything it has is in
// a folder of its own. Root starts it, as startPostfix.
func startDovecot(t *testing.T, introspection, mechanisms string) *dovecot {
	t.Helper()
	program := tool(t, "dovecot")
	version, err := exec.Command(program, "--version").Output()
	if err != nil {
		t.Fatalf("dovecot: %v", err)
	}
	if !bytes.HasPrefix(version, []byte("2.3.")) {
		if os.Getenv("CI") != "" {
			t.Fatalf("Dovecot is %s, and its configuration is written for 2.3: CI is to prove this", bytes.TrimSpace(version))
		}
		t.Skipf("Dovecot is %s, and its configuration is written for 2.3", bytes.TrimSpace(version))
	}
	d := &dovecot{}
	d.folder, err = os.MkdirTemp("", "dovecot") // in t.TempDir Dovecot's own user finds nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(d.folder) })
	if err := os.Chmod(d.folder, 0o755); err != nil {
		t.Fatal(err)
	}
	d.socket = filepath.Join(d.folder, "sasl")
	for name, text := range map[string]string{
		"dovecot.conf": fmt.Sprintf(dovecotConf, d.folder, mechanisms),
		"oauth2.conf":  fmt.Sprintf(dovecotOAuth2Conf, introspection),
	} {
		if err := os.WriteFile(filepath.Join(d.folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	master := exec.Command(program, "-F", "-c", filepath.Join(d.folder, "dovecot.conf"))
	master.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // its services are in its group
	var words log
	master.Stdout, master.Stderr = &words, &words
	if err := master.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = master.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		// Its services would stay for as long as a Postfix is connected to them. There is nothing to lose: the whole group goes.
		_ = syscall.Kill(-master.Process.Pid, syscall.SIGKILL)
		<-ended
		if t.Failed() {
			all := d.log(t)
			t.Logf("Dovecot's last words:\n%s\n%s", words.tail(2000), all[max(0, len(all)-4000):])
		}
	})
	await(t, 30*time.Second, "Dovecot to listen", func() bool {
		c, err := net.Dial("unix", d.socket)
		if err != nil {
			return false
		}
		_ = c.Close()
		return true
	})
	return d
}

// log gives what the server has logged.
func (d *dovecot) log(t *testing.T) string {
	t.Helper()
	all, err := os.ReadFile(filepath.Join(d.folder, "log"))
	if err != nil && !os.IsNotExist(err) {
		t.Error(err)
	}
	return string(all)
}

// loginsBy has a Postfix ask d about logins, over the mechanisms of d, and nobody else; settings are more lines for its main.cf. It
// returns when this is so.
func (p *postfix) loginsBy(t *testing.T, d *dovecot, settings ...string) {
	t.Helper()
	arguments := append([]string{"-c", p.folder, "-e", "smtpd_sasl_type=dovecot", "smtpd_sasl_path=" + d.socket}, settings...)
	if out, err := exec.Command(tool(t, "postconf"), arguments...).CombinedOutput(); err != nil {
		t.Fatalf("postconf: %v\n%s", err, out)
	}
	if out, err := exec.Command(tool(t, "postfix"), "-c", p.folder, "reload").CombinedOutput(); err != nil {
		t.Fatalf("postfix reload: %v\n%s", err, out)
	}
	await(t, 30*time.Second, "Postfix to offer what Dovecot does", func() bool { return strings.Contains(p.offers(t), "OAUTHBEARER") })
}

// offers gives the mechanisms that a server offers under TLS.
func (p *postfix) offers(t *testing.T) string {
	t.Helper()
	c, err := smtp.Dial(p.address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(p.caPEM))
	host, _, _ := net.SplitHostPort(p.address)
	if err := c.StartTLS(&tls.Config{ServerName: host, RootCAs: roots}); err != nil {
		t.Fatal(err)
	}
	_, offered := c.Extension("AUTH")
	_ = c.Quit()
	return offered
}

// spoken is what a line of Postfix's log has of a dialog, and from which side.
var spoken = regexp.MustCompile(`smtpd\[\d+\]: ([<>]) \S+: (.*)`)

// dialogs gives all of them, if debug_peer_list is set: lines that begin with C: or S:.
func (p *postfix) dialogs(t *testing.T) string {
	t.Helper()
	side := map[string]string{"<": "C: ", ">": "S: "}
	var all strings.Builder
	for _, line := range spoken.FindAllStringSubmatch(p.log(t), -1) {
		all.WriteString(side[line[1]] + line[2] + "\n")
	}
	return all.String()
}
