package smtp

import (
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/smtp/smtptest"
)

// one is the dialog of one message that is taken, without PIPELINING.
const one = mailFrom + "S: 250 fine\nC: RCPT TO:<ada@example.org>\nS: 250 fine\nC: DATA\nS: 354 go on\nMESSAGE\nS: 250 queued\n"

func TestConnectionIsUsedAgain(t *testing.T) {
	r := newRig(t, nil, greeting+"S: 250 mx\n"+one+one+one+"C: QUIT\nS: 221 bye\nEOF")
	for range 3 {
		is(t, r.send(t, "ada@example.org")[0], mail.Delivered, stepBody, 250)
	}
}

func TestConnectionEndsAfterItsMessages(t *testing.T) {
	two := func(_ *provider.Settings, o *Options) { o.MaxMessagesPerConn = 2 }
	r := newRig(t, []change{two}, greeting+"S: 250 mx\n"+one+one+"C: QUIT\nS: 221 bye\nEOF", greeting+"S: 250 mx\n"+one)
	for range 3 {
		is(t, r.send(t, "ada@example.org")[0], mail.Delivered, stepBody, 250)
	}
}

func TestIdleConnectionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil, greeting+"S: 250 mx\n"+one+one+"C: QUIT\nS: 221 bye\nEOF", greeting+"S: 250 mx\n"+one)
		is(t, r.send(t, "ada@example.org")[0], mail.Delivered, stepBody, 250)
		<-time.After(9 * time.Second)
		is(t, r.send(t, "ada@example.org")[0], mail.Delivered, stepBody, 250)
		<-time.After(11 * time.Second)
		is(t, r.send(t, "ada@example.org")[0], mail.Delivered, stepBody, 250)
	})
}

// A kept connection that the server closed costs no attempt: not before MAIL, not with 421, not at RSET.
func TestKeptConnectionDiedIdle(t *testing.T) {
	pipelined := "S: 250-mx\nS: 250 PIPELINING\n"
	batch := mailFrom + "C: RCPT TO:<ada@example.org>\nC: DATA\nS: 250 fine\nS: 250 fine\nS: 354 go on\nMESSAGE\nS: 250 queued\n"
	refused := mailFrom + "S: 250 fine\nC: RCPT TO:<ada@example.org>\nS: 450 busy\n"
	for name, first := range map[string]string{
		"closed":                  greeting + "S: 250 mx\n" + one + "CLOSE",
		"closed, pipelined":       greeting + pipelined + batch + "CLOSE",
		"closed at MAIL":          greeting + "S: 250 mx\n" + one + mailFrom + "CLOSE",
		"said 421":                greeting + "S: 250 mx\n" + one + mailFrom + "S: 421 4.4.2 too long idle\nCLOSE",
		"said 421 by itself":      greeting + "S: 250 mx\n" + one + "S: 421 4.4.2 too long idle\nCLOSE",
		"closed at RSET":          greeting + "S: 250 mx\n" + refused + "C: RSET\nCLOSE",
		"refused RSET":            greeting + "S: 250 mx\n" + refused + "C: RSET\nS: 500 what\nEOF",
		"said 421, and to others": greeting + pipelined + batch + mailFrom + "C: RCPT TO:<ada@example.org>\nC: DATA\nS: 421 4.4.2 bye\nCLOSE",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil, first, greeting+"S: 250 mx\n"+one)
			r.send(t, "ada@example.org")
			is(t, r.send(t, "ada@example.org")[0], mail.Delivered, stepBody, 250)
		})
	}
}

// What is not a connection that died idle is not tried again.
func TestKeptConnectionFailsOtherwise(t *testing.T) {
	for name, v := range map[string]struct {
		end   string
		class mail.Class
		step  string
		code  int
	}{
		"throttled with 421": {mailFrom + "S: 421 4.4.2 Message submission rate for this client has exceeded the configured limit\nCLOSE", mail.Throttled, stepMail, 421},
		"MAIL deferred":      {mailFrom + "S: 451 4.3.0 later", mail.Temporary, stepMail, 451},
		"silent":             {mailFrom + "SILENCE", mail.Temporary, stepMail, 0},
		"cut after MAIL":     {mailFrom + "S: 250 fine\nCLOSE", mail.Temporary, stepRcpt, 0},
		"cut after the dot":  {strings.TrimSuffix(one, "S: 250 queued\n") + "CLOSE", mail.Unknown, stepBody, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil, greeting+"S: 250 mx\n"+one+v.end)
				is(t, r.send(t, "ada@example.org")[0], mail.Delivered, stepBody, 250)
				is(t, r.send(t, "ada@example.org")[0], v.class, v.step, v.code)
			})
		})
	}
}

// A server that hangs up on each fresh connection is an outcome, not a loop.
func TestServerThatAlwaysHangsUp(t *testing.T) {
	r := newRig(t, nil, greeting+"S: 250 mx\n"+one+"CLOSE", greeting+"S: 250 mx\n"+mailFrom+"CLOSE")
	is(t, r.send(t, "ada@example.org")[0], mail.Delivered, stepBody, 250)
	is(t, r.send(t, "ada@example.org")[0], mail.Temporary, stepMail, 0)
}

// After the final 250 nothing turns success into failure.
func TestQuitFailingDoesNotMatter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		once := func(_ *provider.Settings, o *Options) { o.MaxMessagesPerConn = 1 }
		r := newRig(t, []change{once}, greeting+"S: 250 mx\n"+one+"C: QUIT\nS: 500 what\n", greeting+"S: 250 mx\n"+one+"C: QUIT\nSILENCE",
			greeting+"S: 250 mx\n"+one+"CLOSE")
		for range 3 {
			is(t, r.send(t, "ada@example.org")[0], mail.Delivered, stepBody, 250)
		}
	})
}

func TestClosedSenderSendsNothing(t *testing.T) {
	r := newRig(t, nil)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := r.Send(t.Context(), delivery("ada@example.org")); err == nil || out != nil {
		t.Errorf("got %v, %v", out, err)
	}
}

func TestCloseWaitsForAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil, greeting+"S: 250 mx\n"+one)
		asked, goOn := make(chan struct{}), make(chan struct{})
		d := delivery("ada@example.org")
		d.Fence = func() error { close(asked); <-goOn; return nil }
		done := make(chan mail.Outcome, 1)
		go func() {
			out, _ := r.Send(t.Context(), d)
			done <- out[0]
		}()
		<-asked
		closed := make(chan struct{})
		go func() { _ = r.Close(); close(closed) }()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close returned during an attempt")
		default:
		}
		close(goOn)
		<-closed
		is(t, <-done, mail.Delivered, stepBody, 250)
	})
}

func TestTLS(t *testing.T) {
	start := greeting + "S: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go on\n"
	for name, v := range map[string]struct {
		security provider.Security
		script   string
		prepare  func(t *testing.T, r *rig)
		class    mail.Class
		step     string
		code     int
		says     string
		cause    mail.Cause
	}{
		"from the first byte": {provider.SecurityTLS, "TLS\n" + greeting + "S: 250 mx\n" + one, nil, mail.Delivered, stepBody, 250, "", ""},
		"STARTTLS":            {provider.SecurityStartTLS, start + "TLS\nC: EHLO client.example\nS: 250 mx\n" + one, nil, mail.Delivered, stepBody, 250, "", ""},
		"STARTTLS is not offered": {provider.SecurityStartTLS, greeting + "S: 250-mx\nS: 250 SIZE", nil,
			mail.Configuration, stepTLS, 0, "does not offer STARTTLS", mail.StartTLSMissing},
		"what came before TLS is discarded": {provider.SecurityStartTLS,
			strings.Replace(start, "S: 220 go on", `RAW: "220 go on\r\n250-mx\r\n250 AUTH PLAIN\r\n"`, 1) + "TLS\nC: EHLO client.example\nS: 250 mx\n" + one,
			nil, mail.Delivered, stepBody, 250, "", ""},
		"what came before TLS is discarded, and the extensions too": {provider.SecurityStartTLS,
			strings.Replace(start, "S: 250-mx", "S: 250-mx\nS: 250-PIPELINING\nS: 250-SIZE 1", 1) + "TLS\nC: EHLO client.example\nS: 250 mx\n" + one,
			nil, mail.Delivered, stepBody, 250, "", ""},
		"unknown CA": {provider.SecurityTLS, "NOTLS", func(_ *testing.T, r *rig) {
			r.tls = tlsConfig(&provider.SMTPSettings{Host: "mx.example", MinTLS: "1.2"})
		}, mail.Configuration, stepTLS, 0, "certificate signed by unknown authority", mail.CertificateInvalid},
		"other name": {provider.SecurityStartTLS, start + "NOTLS", func(_ *testing.T, r *rig) {
			r.tls.ServerName = "other.example"
		}, mail.Configuration, stepTLS, 0, "not other.example", mail.CertificateInvalid},
		"expired": {provider.SecurityTLS, "NOTLS", func(t *testing.T, r *rig) {
			now := time.Now()
			config, caPEM, err := smtptest.CertificateValid(now.AddDate(-1, 0, 0), now.Add(-time.Hour), "mx.example")
			if err != nil {
				t.Fatal(err)
			}
			r.peer.TLS = config
			r.tls = tlsConfig(&provider.SMTPSettings{Host: "mx.example", MinTLS: "1.2", CAPEM: caPEM})
		}, mail.Configuration, stepTLS, 0, "expired", mail.CertificateInvalid},
		"TLS too old": {provider.SecurityTLS, "NOTLS", func(_ *testing.T, r *rig) {
			r.peer.TLS.MaxVersion = tls.VersionTLS11
		}, mail.Configuration, stepTLS, 0, "protocol version", mail.TLSRefused},
		"1.3 is wanted": {provider.SecurityTLS, "NOTLS", func(_ *testing.T, r *rig) {
			r.peer.TLS.MaxVersion = tls.VersionTLS12
			r.tls.MinVersion = tlsVersions["1.3"]
		}, mail.Configuration, stepTLS, 0, "protocol version", mail.TLSRefused},
		"1.0 is allowed": {provider.SecurityTLS, "TLS\n" + greeting + "S: 250 mx\n" + one, func(_ *testing.T, r *rig) {
			r.peer.TLS.MinVersion, r.peer.TLS.MaxVersion = tls.VersionTLS10, tls.VersionTLS10
			r.tls.MinVersion = tlsVersions["1.0"]
		}, mail.Delivered, stepBody, 250, "", ""},
		"no TLS on this port": {provider.SecurityTLS, `RAW: "220 mx.example ESMTP ready\r\n"`, nil, mail.Configuration, stepTLS, 0, "does not speak TLS", mail.TLSNotSpoken},
		"silent":              {provider.SecurityTLS, "SILENCE", nil, mail.Temporary, stepTLS, 0, "timed out", ""},
		"closed":              {provider.SecurityTLS, "CLOSE", nil, mail.Temporary, stepTLS, 0, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, []change{security(v.security)}, v.script).secured(t, "mx.example")
				if v.prepare != nil {
					v.prepare(t, r)
				}
				o := r.send(t, "ada@example.org")[0]
				is(t, o, v.class, v.step, v.code)
				because(t, o, v.cause)
				if !strings.Contains(o.Reply, v.says) {
					t.Errorf("reply %q does not say %q", o.Reply, v.says)
				}
				if v.class != mail.Delivered && o.Scope != mail.ScopeProvider {
					t.Errorf("scope is %s", o.Scope)
				}
			})
		})
	}
}

func TestAuth(t *testing.T) {
	login := "C: AUTH LOGIN\nS: 334 " + b64("Username:") + "\nC: " + b64("reports@example.com") + "\nS: 334 " + b64("Password:") + "\nC: " + b64(password) + "\n"
	for _, v := range []struct {
		name   string
		script string
		class  mail.Class
		step   string
		code   int
		cause  mail.Cause
	}{
		{"PLAIN", "S: 250-mx\nS: 250 AUTH LOGIN PLAIN\nC: AUTH PLAIN " + authPlain + "\nS: 235 welcome\n" + one, mail.Delivered, stepBody, 250, ""},
		{"LOGIN", "S: 250-mx\nS: 250 AUTH XOAUTH2 LOGIN\n" + login + "S: 235 welcome\n" + one, mail.Delivered, stepBody, 250, ""},
		{"LOGIN as old servers offer it", "S: 250-mx\nS: 250 AUTH=LOGIN\n" + login + "S: 235 welcome\n" + one, mail.Delivered, stepBody, 250, ""},
		{"LOGIN with other words", "S: 250-mx\nS: 250 AUTH LOGIN\n" + strings.NewReplacer(b64("Username:"), b64("User Name"), b64("Password:"), "!").Replace(login) +
			"S: 235 welcome\n" + one, mail.Delivered, stepBody, 250, ""},
		{"LOGIN asks a third time", "S: 250-mx\nS: 250 AUTH LOGIN\n" + login + "S: 334 more\nEOF", mail.Configuration, stepAuth, 0, mail.AuthMissing},
		{"PLAIN asks", "S: 250-mx\nS: 250 AUTH PLAIN\nC: AUTH PLAIN " + authPlain + "\nS: 334 more\nEOF", mail.Configuration, stepAuth, 0, mail.AuthMissing},
		{"wrong password", "S: 250-mx\nS: 250 AUTH PLAIN\nC: AUTH PLAIN " + authPlain + "\nS: 535 5.7.8 wrong", mail.Configuration, stepAuth, 535, mail.Credentials},
		{"wrong password with LOGIN", "S: 250-mx\nS: 250 AUTH LOGIN\n" + login + "S: 535 5.7.8 wrong", mail.Configuration, stepAuth, 535, mail.Credentials},
		{"too weak", "S: 250-mx\nS: 250 AUTH PLAIN\nC: AUTH PLAIN " + authPlain + "\nS: 534 5.7.9 too weak", mail.Configuration, stepAuth, 534, mail.LoginDisabled},
		{"later", "S: 250-mx\nS: 250 AUTH PLAIN\nC: AUTH PLAIN " + authPlain + "\nS: 454 4.7.0 later", mail.Temporary, stepAuth, 454, ""},
		{"throttled", "S: 250-mx\nS: 250 AUTH PLAIN\nC: AUTH PLAIN " + authPlain + "\nS: 454 Throttling failure: Maximum sending rate exceeded.", mail.Throttled, stepAuth, 454, mail.RateExceeded},
		{"other mechanisms only", "S: 250-mx\nS: 250 AUTH XOAUTH2 GSSAPI", mail.Configuration, stepAuth, 0, mail.AuthMissing},
		{"not offered", "S: 250 mx", mail.Configuration, stepAuth, 0, mail.AuthMissing},
		{"wanted, at MAIL", "S: 250-mx\nS: 250 AUTH PLAIN\nC: AUTH PLAIN " + authPlain + "\nS: 235 welcome\n" + mailFrom + "S: 530 5.7.0 log in", mail.Configuration, stepMail, 530, mail.NotAuthenticated},
		{"line repeated", "S: 250-mx\nS: 250 AUTH PLAIN\nC: AUTH PLAIN " + authPlain + "\nS: 500 5.5.1 what is AUTH PLAIN " + authPlain, mail.Configuration, stepAuth, 500, mail.AuthMissing},
		{"line repeated in part", "S: 250-mx\nS: 250 AUTH PLAIN\nC: AUTH PLAIN " + authPlain + "\nS: 500 5.5.1 what is AUTH PLAIN " + authPlain[:30], mail.Configuration, stepAuth, 500, mail.AuthMissing},
		{"line repeated in capitals", "S: 250-mx\nS: 250 AUTH PLAIN\nC: AUTH PLAIN " + authPlain + "\nS: 500 5.5.1 what is " + strings.ToUpper(authPlain), mail.Configuration, stepAuth, 500, mail.AuthMissing},
		{"password repeated", "S: 250-mx\nS: 250 AUTH LOGIN\n" + login + "S: 535 5.7.8 wrong: " + password, mail.Configuration, stepAuth, 535, mail.Credentials},
		{"password repeated as sent", "S: 250-mx\nS: 250 AUTH LOGIN\n" + login + "S: 535 5.7.8 wrong: " + b64(password), mail.Configuration, stepAuth, 535, mail.Credentials},
	} {
		t.Run(v.name, func(t *testing.T) {
			r := newRig(t, []change{basic}, greeting+v.script)
			o := r.send(t, "ada@example.org")[0]
			is(t, o, v.class, v.step, v.code)
			because(t, o, v.cause)
			for _, secret := range []string{password, authPlain[:10], b64(password)[:10]} {
				if strings.Contains(strings.ToLower(o.Reply), strings.ToLower(secret)) {
					t.Errorf("the reply shows a secret: %q", o.Reply)
				}
			}
		})
	}
}

func TestNoLoginInClearText(t *testing.T) {
	// Validate keeps such settings out; this is the client's own look.
	r := newRig(t, []change{basic}, greeting+"S: 250-mx\nS: 250 AUTH PLAIN\n")
	r.account.allowCleartext = false
	o := r.send(t, "ada@example.org")[0]
	is(t, o, mail.Configuration, stepAuth, 0)
	because(t, o, mail.CleartextLogin)
}

func TestPrintingASenderShowsNoPassword(t *testing.T) {
	r := newRig(t, []change{basic})
	for _, verb := range []string{"%v", "%+v", "%#v"} {
		if s := fmt.Sprintf(verb, r.Sender); strings.Contains(s, "hunter") {
			t.Errorf("%s: %s", verb, s)
		}
	}
}

func TestDialFaults(t *testing.T) {
	for _, v := range []struct {
		err   error
		class mail.Class
		cause mail.Cause
	}{
		{&net.DNSError{Err: "no such host", Name: "mx.example", IsNotFound: true}, mail.Configuration, mail.HostNotFound},
		{&net.DNSError{Err: "server misbehaving", Name: "mx.example", IsTemporary: true}, mail.Temporary, ""},
		{&net.DNSError{Err: "i/o timeout", Name: "mx.example", IsTimeout: true}, mail.Temporary, ""},
		{&net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("connection refused")}, mail.Temporary, ""},
	} {
		f := dialFault(&net.OpError{Op: "dial", Net: "tcp", Err: v.err})
		if f.Class != v.class || f.Scope != mail.ScopeProvider || f.Step != stepDial || f.Cause != v.cause {
			t.Errorf("%v: %+v", v.err, f.Outcome)
		}
	}
}

func TestNewRefusesBadSettings(t *testing.T) {
	for name, s := range map[string]provider.Settings{
		"none":       {},
		"no host":    {Kind: provider.KindSMTP, Sender: mail.Address{Address: "a@example.com"}},
		"other kind": {Kind: provider.KindMicrosoft365},
	} {
		if _, err := New(s, Options{}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestHostname(t *testing.T) {
	for in, want := range map[string]string{"mx1.example": "mx1.example", "[192.0.2.1]": "[192.0.2.1]", "a b": "localhost", "a\r\nMAIL": "localhost", "bücher": "localhost"} {
		if got := hostname(in); got != want {
			t.Errorf("hostname(%q) = %q, want %q", in, got, want)
		}
	}
	if hostname("") == "" {
		t.Error("no default")
	}
}

func TestLongestCoversEveryStep(t *testing.T) {
	if got, want := (Timeouts{}).Longest(), 25*time.Minute+lastWordsTimeout; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := (Timeouts{Attempt: time.Second, Final: time.Second}).Longest(); got != 2*time.Second+lastWordsTimeout {
		t.Errorf("got %v", got)
	}
}
