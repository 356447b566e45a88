package bench

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postroom/postroom/provider/smtp/smtptest"
)

// postfix is a submission server: STARTTLS and a login are wanted before any mail, and everything goes on to one relay.
type postfix struct {
	address, caPEM     string
	username, password string

	folder string
}

const mainCF = `
compatibility_level = 3.6
mail_owner = postfix
setgid_group = postdrop
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file = %[1]s/log
maillog_file_prefixes = %[1]s
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = submission.example
mydestination =
mynetworks =
local_recipient_maps =
alias_maps =
alias_database =
local_transport = error:nobody lives here
relayhost = [%[2]s]:%[3]s
message_drop_headers =
smtp_host_lookup = native
smtp_dns_support_level = disabled
smtp_tls_security_level = none
smtpd_peername_lookup = no
smtpd_tls_security_level = encrypt
smtpd_tls_chain_files = %[1]s/key.pem, %[1]s/cert.pem
smtpd_tls_loglevel = 1
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = cyrus
smtpd_sasl_path = smtpd
smtpd_sasl_local_domain = submission.example
smtpd_sasl_security_options = noanonymous
cyrus_sasl_config_path = %[1]s/sasl
smtpd_relay_restrictions = permit_sasl_authenticated, reject
`

// The services that a relay needs, none of them in a chroot.
const masterCF = `
%s        inet n - n - - smtpd
pickup    unix n - n 60 1 pickup
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
tlsmgr    unix - - n 1000? 1 tlsmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
verify    unix - - n - 1 verify
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - - proxymap
smtp      unix - - n - - smtp
relay     unix - - n - - smtp
showq     unix n - n - - showq
error     unix - - n - - error
retry     unix - - n - - error
anvil     unix - - n - 1 anvil
scache    unix - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
`

const saslConf = `
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: %s/sasl/users
mech_list: PLAIN LOGIN
`

// startPostfix starts a server that relays to an address. Everything it has is in a folder of its own.
func startPostfix(t *testing.T, relay string) *postfix {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("Postfix starts as root only, and CI is to prove this")
		}
		t.Skip("Postfix starts as root only: run this test as root")
	}
	program, passwords := tool(t, "postfix"), tool(t, "saslpasswd2")
	owner, err := user.Lookup("postfix")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(owner.Uid)
	gid, _ := strconv.Atoi(owner.Gid)

	p := &postfix{address: freeAddress(t), username: "reports@submission.example", password: "correct horse"}
	p.folder, err = os.MkdirTemp("", "postfix") // in t.TempDir Postfix's own user finds nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(p.folder) })
	for _, name := range []string{"", "queue", "data", "sasl"} {
		if err := os.MkdirAll(filepath.Join(p.folder, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, failed := range []error{os.Chmod(p.folder, 0o755), os.Chown(filepath.Join(p.folder, "data"), uid, gid)} {
		if failed != nil {
			t.Fatal(failed)
		}
	}
	host, port, _ := net.SplitHostPort(relay)
	p.write(t, "main.cf", fmt.Sprintf(mainCF, p.folder, host, port))
	p.write(t, "master.cf", fmt.Sprintf(masterCF, p.address))
	p.write(t, "sasl/smtpd.conf", fmt.Sprintf(saslConf, p.folder))
	p.certify(t)

	users := filepath.Join(p.folder, "sasl", "users")
	name, domain, _ := strings.Cut(p.username, "@")
	c := exec.Command(passwords, "-p", "-c", "-f", users, "-u", domain, name)
	c.Stdin = strings.NewReader(p.password)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("saslpasswd2: %v\n%s", err, out)
	}
	if err := os.Chown(users, uid, gid); err != nil {
		t.Fatal(err)
	}

	// What "postfix start-fg" does, but master(8) is our own child, which ends with us. Its services follow it.
	if out, err := exec.Command(program, "-c", p.folder, "check").CombinedOutput(); err != nil {
		t.Fatalf("postfix check: %v\n%s", err, out)
	}
	daemons, err := exec.Command(tool(t, "postconf"), "-c", p.folder, "-h", "daemon_directory").Output()
	if err != nil {
		t.Fatalf("postconf: %v", err)
	}
	master := exec.Command(filepath.Join(strings.TrimSpace(string(daemons)), "master"), "-c", p.folder, "-d")
	master.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // it ends its process group when it stops
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
		_ = master.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = master.Process.Kill()
			<-ended
		}
		if t.Failed() {
			all := p.log(t)
			t.Logf("Postfix's last words:\n%s\n%s", words.tail(2000), all[max(0, len(all)-4000):])
		}
	})
	await(t, 30*time.Second, "Postfix to listen", func() bool {
		c, err := net.Dial("tcp", p.address)
		if err != nil {
			return false
		}
		_ = c.Close()
		return true
	})
	return p
}

func (p *postfix) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.folder, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// certify makes the server's certificate.
func (p *postfix) certify(t *testing.T) {
	t.Helper()
	host, _, _ := net.SplitHostPort(p.address)
	var config *tls.Config
	var err error
	if config, p.caPEM, err = smtptest.Certificate(host); err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(config.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	p.write(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	p.write(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: config.Certificates[0].Certificate[0]})))
}

// tookFrom counts the messages that Postfix took after a login by a mechanism (a regular expression). An envelope without a message,
// which a worker can leave behind that has sent it ahead, is none.
func (p *postfix) tookFrom(t *testing.T, mechanism, username string) (n int) {
	t.Helper()
	all := p.log(t)
	login := regexp.MustCompile(`: ([0-9A-Za-z]+): client=.*, sasl_method=(?:` + mechanism + `), sasl_username=` + regexp.QuoteMeta(username) + `\n`)
	for _, m := range login.FindAllStringSubmatch(all, -1) {
		if strings.Contains(all, ": "+m[1]+": message-id=") {
			n++
		}
	}
	return n
}

// log gives what the server has logged.
func (p *postfix) log(t *testing.T) string {
	t.Helper()
	all, err := os.ReadFile(filepath.Join(p.folder, "log"))
	if err != nil && !os.IsNotExist(err) {
		t.Error(err)
	}
	return string(all)
}
