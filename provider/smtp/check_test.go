package smtp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/smtp/smtptest"
)

// trial is a check of a server that is played.
type trial struct {
	settings provider.Settings
	opts     Options
	peer     *smtptest.Peer
}

// try prepares a check, with STARTTLS and a certificate for mx.example unless a change says otherwise.
func try(t *testing.T, changes []change, scripts ...string) *trial {
	t.Helper()
	tr := &trial{peer: smtptest.Play(t, scripts...)}
	tr.settings = provider.Settings{Kind: provider.KindSMTP, Sender: mail.Address{Address: "reports@example.com"},
		SMTP: provider.SMTPSettings{Host: "mx.example", Security: provider.SecurityStartTLS}}
	tr.opts = Options{Hostname: "client.example", Dialer: tr.peer}
	tr.certificate(t, time.Now().AddDate(1, 0, 0), "mx.example")
	for _, c := range changes {
		c(&tr.settings, &tr.opts)
	}
	return tr
}

// certificate gives the peer another one.
func (tr *trial) certificate(t *testing.T, until time.Time, hosts ...string) {
	t.Helper()
	config, caPEM, err := smtptest.CertificateValid(time.Now().AddDate(0, 0, -1), until, hosts...)
	if err != nil {
		t.Fatal(err)
	}
	tr.peer.TLS, tr.settings.SMTP.CAPEM = config, caPEM
}

func (tr *trial) check(ctx context.Context, t *testing.T) []provider.Step {
	t.Helper()
	steps, err := Check(ctx, tr.settings, tr.opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range steps {
		told := fmt.Sprintf("%+v %+v", s, s.Outcome)
		for _, secret := range []string{password, b64(password)[:10], authPlain[:10], oneToken[:6], b64("user=reports")[:8]} {
			if strings.Contains(told, secret) {
				t.Errorf("a step shows a secret: %s", told)
			}
		}
		if (s.Outcome != nil) != (s.State == provider.StepFailed) || s.Took < 0 || s.State != provider.StepFailed && s.Found == "" {
			t.Errorf("%s", told)
		}
	}
	return steps
}

// states writes steps as "resolve- connect+ tls!": skipped, passed, failed.
func states(steps []provider.Step) string {
	signs := map[provider.StepState]string{provider.StepSkipped: "-", provider.StepPassed: "+", provider.StepFailed: "!"}
	var words []string
	for _, s := range steps {
		words = append(words, s.Name+signs[s.State])
	}
	return strings.Join(words, " ")
}

// went checks how far a check came.
func went(t *testing.T, steps []provider.Step, want string) {
	t.Helper()
	if got := states(steps); got != want {
		t.Errorf("got %s\nwant %s", got, want)
		for _, s := range steps {
			t.Logf("%s: %s %v", s.Name, s.Found, s.Outcome)
		}
	}
}

// finds checks what the n-th step found.
func finds(t *testing.T, steps []provider.Step, n int, words ...string) {
	t.Helper()
	for _, w := range words {
		if n >= len(steps) || !strings.Contains(steps[n].Found, w) {
			t.Errorf("step %d of %+v does not say %q", n, steps, w)
		}
	}
}

const (
	begins     = "S: 220 mx.example ESMTP ready\nC: EHLO client.example\n"
	encrypts   = begins + "S: 250-mx.example hello\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go on\nTLS\nC: EHLO client.example\n"
	offersAuth = "S: 250-mx.example hello\nS: 250-SIZE 1000\nS: 250-8BITMIME\nS: 250-SMTPUTF8\nS: 250-PIPELINING\nS: 250 AUTH LOGIN PLAIN\n"
	logsIn     = "C: AUTH PLAIN " + authPlain + "\nS: 235 2.7.0 welcome\n"
	probes     = mailFrom + "S: 250 2.1.0 ok\nC: RSET\nS: 250 2.0.0 ok\n"
	quits      = "C: QUIT\nS: 221 bye\nEOF"
)

func TestCheckPassesEveryStepAndSendsNothing(t *testing.T) {
	tr := try(t, []change{basic}, encrypts+offersAuth+logsIn+probes+quits)
	steps := tr.check(t.Context(), t)
	went(t, steps, "resolve- connect+ greeting+ ehlo+ tls+ ehlo+ auth+ sender+")
	finds(t, steps, 2, "mx.example ESMTP ready")
	finds(t, steps, 3, "mx.example offers STARTTLS")
	finds(t, steps, 4, "TLS 1.3 with TLS_", "CN=smtptest,", "CN=smtptest CA", "for mx.example", "good until "+time.Now().UTC().AddDate(1, 0, 0).Format(time.DateOnly))
	finds(t, steps, 5, "AUTH LOGIN PLAIN", "SIZE 1000", "8BITMIME", "SMTPUTF8", "PIPELINING")
	finds(t, steps, 6, "PLAIN as reports@example.com")
	finds(t, steps, 7, "reports@example.com as sender")
	if strings.Contains(steps[4].Found, "warning") || strings.Contains(steps[5].Found, "STARTTLS") {
		t.Errorf("%+v", steps)
	}
}

func TestCheckOfEachSecurityAndLogin(t *testing.T) {
	bearer := []change{security(provider.SecurityNone), oauth(&tokens{list: []string{oneToken}})}
	for name, v := range map[string]struct {
		changes []change
		script  string
		want    string
		found   map[int]string
	}{
		"none":            {[]change{security(provider.SecurityNone)}, begins + "S: 250 mx\n" + probes + quits, "resolve- connect+ tls- greeting+ ehlo+ auth- sender+", map[int]string{2: "not encrypted", 4: "mx offers nothing", 5: "no login"}},
		"TLS":             {[]change{security(provider.SecurityTLS)}, "TLS\n" + begins + "S: 250-mx\nS: 250 SIZE\n" + probes + quits, "resolve- connect+ tls+ greeting+ ehlo+ auth- sender+", map[int]string{4: "mx offers SIZE"}},
		"OAuth":           {bearer, begins + "S: 250-mx\nS: 250 AUTH XOAUTH2\n" + xoauth(oneToken) + "S: 235 ok\n" + probes + quits, "resolve- connect+ tls- greeting+ ehlo+ token+ auth+ sender+", map[int]string{5: "nobody said how long", 6: "XOAUTH2 as reports@example.com"}},
		"a sender in UTF": {[]change{security(provider.SecurityNone), umlaut}, begins + "S: 250-mx\nS: 250 SMTPUTF8\nC: MAIL FROM:<grüße@example.com> SMTPUTF8\nS: 250 ok\nC: RSET\nS: 250 ok\n" + quits, "resolve- connect+ tls- greeting+ ehlo+ auth- sender+", nil},
	} {
		t.Run(name, func(t *testing.T) {
			steps := try(t, v.changes, v.script).check(t.Context(), t)
			went(t, steps, v.want)
			for n, words := range v.found {
				finds(t, steps, n, words)
			}
		})
	}
}

func umlaut(s *provider.Settings, _ *Options) { s.Sender.Address = "grüße@example.com" }

func TestCheckEndsWhereAnAttemptWould(t *testing.T) {
	plainly := security(provider.SecurityNone)
	noTokens := oauth(&tokens{fault: noToken{}})
	badToken := oauth(&tokens{list: []string{oneToken}})
	for name, v := range map[string]struct {
		changes []change
		prepare func(*testing.T, *trial)
		script  string
		want    string
		class   mail.Class
		in      string
		code    int
		cause   mail.Cause
	}{
		"refused at once":        {nil, nil, "S: 554 5.7.1 not you\n" + quits, "resolve- connect+ greeting!", mail.Configuration, stepGreeting, 554, ""},
		"EHLO refused":           {nil, nil, begins + "S: 502 5.5.1 no\n" + quits, "resolve- connect+ greeting+ ehlo!", mail.Configuration, stepEHLO, 502, ""},
		"STARTTLS missing":       {nil, nil, begins + "S: 250-mx\nS: 250 SIZE\n" + quits, "resolve- connect+ greeting+ ehlo+ tls!", mail.Configuration, stepTLS, 0, mail.StartTLSMissing},
		"STARTTLS refused":       {nil, nil, begins + "S: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\nS: 454 4.7.0 not now\n" + quits, "resolve- connect+ greeting+ ehlo+ tls!", mail.Temporary, stepTLS, 454, ""},
		"plain where TLS is due": {[]change{security(provider.SecurityTLS)}, nil, `RAW: "220 mx.example ESMTP ready\r\n"`, "resolve- connect+ tls!", mail.Configuration, stepTLS, 0, mail.TLSNotSpoken},
		"TLS where plain is due": {[]change{plainly}, nil, "SILENCE", "resolve- connect+ tls- greeting!", mail.Temporary, stepGreeting, 0, ""},
		"expired": {nil, func(t *testing.T, tr *trial) { tr.certificate(t, time.Now().Add(-time.Hour), "mx.example") },
			strings.Replace(encrypts, "TLS\nC: EHLO client.example\n", "", 1) + "NOTLS", "resolve- connect+ greeting+ ehlo+ tls!", mail.Configuration, stepTLS, 0, mail.CertificateInvalid},
		"untrusted": {[]change{security(provider.SecurityTLS)}, func(_ *testing.T, tr *trial) { tr.settings.SMTP.CAPEM = "" }, "NOTLS",
			"resolve- connect+ tls!", mail.Configuration, stepTLS, 0, mail.CertificateInvalid},
		"another name": {[]change{security(provider.SecurityTLS)}, func(t *testing.T, tr *trial) { tr.certificate(t, time.Now().AddDate(1, 0, 0), "other.example") }, "NOTLS",
			"resolve- connect+ tls!", mail.Configuration, stepTLS, 0, mail.CertificateInvalid},
		"AUTH missing":       {[]change{basic}, nil, encrypts + "S: 250 mx\n" + quits, "resolve- connect+ greeting+ ehlo+ tls+ ehlo+ auth!", mail.Configuration, stepAuth, 0, mail.AuthMissing},
		"wrong password":     {[]change{basic}, nil, encrypts + offersAuth + "C: AUTH PLAIN " + authPlain + "\nS: 535 5.7.8 wrong: " + authPlain + "\n" + quits, "resolve- connect+ greeting+ ehlo+ tls+ ehlo+ auth!", mail.Configuration, stepAuth, 535, mail.Credentials},
		"no token":           {[]change{plainly, noTokens}, nil, begins + "S: 250-mx\nS: 250 AUTH XOAUTH2\n" + quits, "resolve- connect+ tls- greeting+ ehlo+ token!", mail.Configuration, "token", 0, mail.SecretExpired},
		"the token refused":  {[]change{plainly, badToken}, nil, begins + "S: 250-mx\nS: 250 AUTH XOAUTH2\n" + xoauth(oneToken) + "S: 535 5.7.3 no: " + oneToken + "\n" + quits, "resolve- connect+ tls- greeting+ ehlo+ token+ auth!", mail.Configuration, stepAuth, 535, mail.PermissionMissing},
		"sender refused":     {[]change{plainly}, nil, begins + "S: 250 mx\n" + mailFrom + "S: 553 5.7.1 not yours\n" + quits, "resolve- connect+ tls- greeting+ ehlo+ auth- sender!", mail.Configuration, stepMail, 553, mail.SenderRefused},
		"sender needs login": {[]change{plainly}, nil, begins + "S: 250 mx\n" + mailFrom + "S: 530 5.7.0 log in\n" + quits, "resolve- connect+ tls- greeting+ ehlo+ auth- sender!", mail.Configuration, stepMail, 530, mail.NotAuthenticated},
		"sender not ASCII":   {[]change{plainly, umlaut}, nil, begins + "S: 250 mx\n" + quits, "resolve- connect+ tls- greeting+ ehlo+ auth- sender!", mail.Permanent, stepMail, 0, mail.NotASCII},
		"RSET refused":       {[]change{plainly}, nil, begins + "S: 250 mx\n" + mailFrom + "S: 250 ok\nC: RSET\nS: 451 4.3.0 no\nEOF", "resolve- connect+ tls- greeting+ ehlo+ auth- sender!", mail.Temporary, stepMail, 451, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := try(t, v.changes, v.script)
				if v.prepare != nil {
					v.prepare(t, tr)
				}
				steps := tr.check(t.Context(), t)
				went(t, steps, v.want)
				if f := provider.Failed(steps); f != nil {
					is(t, *f.Outcome, v.class, v.in, v.code)
					because(t, *f.Outcome, v.cause)
				}
			})
		})
	}
}

// checkSession are the server's lines of a whole check, with the steps that they decide.
var checkSession = []struct{ before, good, step, in string }{
	{"", "S: 220 mx.example ESMTP\n", "greeting", stepGreeting},
	{"C: EHLO client.example\n", "S: 250-mx\nS: 250 STARTTLS\n", "ehlo", stepEHLO},
	{"C: STARTTLS\n", "S: 220 go on\n", "tls", stepTLS},
	{"", "TLS\n", "tls", stepTLS},
	{"C: EHLO client.example\n", offersAuth, "ehlo", stepEHLO},
	{"C: AUTH PLAIN " + authPlain + "\n", "S: 235 welcome\n", "auth", stepAuth},
	{mailFrom, "S: 250 ok\n", "sender", stepMail},
	{"C: RSET\n", "S: 250 ok\n", "sender", stepMail},
}

func TestCheckOfAServerThatFallsSilentOrHangsUp(t *testing.T) {
	script := ""
	for n, e := range checkSession {
		script += e.before
		for _, instead := range []string{"SILENCE", "CLOSE"} {
			for _, bounded := range []bool{false, true} {
				t.Run(fmt.Sprintf("%d %s/%s/bounded %v", n, e.step, instead, bounded), func(t *testing.T) {
					text := script + instead
					synctest.Test(t, func(t *testing.T) {
						ctx, began := t.Context(), time.Now()
						if bounded {
							var cancel context.CancelFunc
							ctx, cancel = context.WithTimeout(ctx, 3*time.Second)
							defer cancel()
						}
						steps := try(t, []change{basic}, text).check(ctx, t)
						f := provider.Failed(steps)
						if f == nil || f != &steps[len(steps)-1] || f.Name != e.step {
							t.Fatalf("%s", states(steps))
						}
						is(t, *f.Outcome, mail.Temporary, e.in, 0)
						if silent := instead == "SILENCE"; silent != strings.Contains(f.Outcome.Reply, "timed out") || f.Outcome.Scope != scopeOf(e.in) {
							t.Errorf("%+v", f.Outcome)
						}
						if took := time.Since(began); bounded && took > 3*time.Second || instead == "SILENCE" && f.Took < time.Second {
							t.Errorf("it took %v, the step %v", took, f.Took)
						}
					})
				})
			}
		}
		script += e.good
	}
}

func TestCheckIsBoundedWhileConnectingAndWhenItQuits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		tr := try(t, nil)
		tr.opts.Dialer = stuck{}
		steps := tr.check(ctx, t)
		went(t, steps, "resolve- connect!")
		is(t, *steps[1].Outcome, mail.Temporary, stepDial, 0)
		if steps[1].Took != time.Second || steps[1].Outcome.Reply != "timed out" {
			t.Errorf("%v %+v", steps[1].Took, steps[1].Outcome)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		tr := try(t, []change{security(provider.SecurityNone)}, begins+"S: 250 mx\n"+probes+"C: QUIT\nSILENCE")
		went(t, tr.check(ctx, t), "resolve- connect+ tls- greeting+ ehlo+ auth- sender+")
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %v", took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		steps := try(t, nil, "SILENCE").check(ctx, t)
		went(t, steps, "resolve- connect+ greeting!")
		if o := steps[2].Outcome; o.Class != mail.Temporary || o.Reply != "interrupted" {
			t.Errorf("%+v", o)
		}
	})
}

func TestCheckWarnsOfACertificateThatEndsSoon(t *testing.T) {
	for left, words := range map[time.Duration]string{
		10*24*time.Hour + time.Hour: "(warning: it ends in 10 days)",
		time.Hour:                   "(warning: it ends within two days)",
	} {
		tr := try(t, []change{security(provider.SecurityTLS)}, "TLS\n"+begins+"S: 250 mx\n"+probes+quits)
		tr.certificate(t, time.Now().Add(left), "mx.example")
		finds(t, tr.check(t.Context(), t), 2, words)
	}
}

func TestCheckRefusesSettingsThatAreNoGood(t *testing.T) {
	var invalid *mail.Invalid
	if steps, err := Check(t.Context(), provider.Settings{Kind: provider.KindSMTP}, Options{}); !errors.As(err, &invalid) || steps != nil {
		t.Errorf("%v, %v", steps, err)
	}
	if steps, err := Check(t.Context(), provider.Settings{Kind: provider.KindMicrosoft365}, Options{}); err == nil || steps != nil {
		t.Errorf("%v, %v", steps, err)
	}
}

func TestCheckTellsOfNamesAndAddresses(t *testing.T) {
	inbox, err := smtptest.NewInbox(smtptest.InboxOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = inbox.Close() }()
	resolver := names(t, "mx.test", [4]byte{127, 0, 0, 1}, [4]byte{127, 0, 0, 2})
	with := func(change func(*provider.Settings)) []provider.Step {
		t.Helper()
		settings := inbox.Settings(sender)
		change(&settings)
		tr := &trial{settings: settings, opts: Options{Dialer: &net.Dialer{Resolver: resolver}}}
		return tr.check(t.Context(), t)
	}
	port := inbox.Settings(sender).SMTP.Port

	steps := with(func(s *provider.Settings) { s.SMTP.Host = "mx.test" })
	went(t, steps, "resolve+ connect+ tls- greeting+ ehlo+ auth- sender+")
	finds(t, steps, 0, "mx.test: 2 addresses: ", "127.0.0.1", "127.0.0.2")
	finds(t, steps, 1, "mx.test at 127.0.0.1:"+strconv.Itoa(port))

	steps = with(func(*provider.Settings) {})
	went(t, steps, "resolve- connect+ tls- greeting+ ehlo+ auth- sender+")
	finds(t, steps, 0, "127.0.0.1 is an address already")

	steps = with(func(s *provider.Settings) { s.SMTP.Host = "mx.invalid" })
	went(t, steps, "resolve!")
	is(t, *steps[0].Outcome, mail.Configuration, stepDial, 0)
	because(t, *steps[0].Outcome, mail.HostNotFound)

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	silent := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	tr := &trial{settings: inbox.Settings(sender), opts: Options{Dialer: &net.Dialer{Resolver: silent}}}
	tr.settings.SMTP.Host = "mx.test"
	steps = tr.check(ctx, t)
	went(t, steps, "resolve!")
	is(t, *steps[0].Outcome, mail.Temporary, stepDial, 0)

	guard, problems := provider.NewGuard([]string{"127.0.0.0/8"})
	if problems != nil {
		t.Fatal(problems)
	}
	steps, err = Check(t.Context(), inbox.Settings(sender), Options{Guard: guard})
	if err != nil {
		t.Fatal(err)
	}
	went(t, steps, "resolve- connect!")
	because(t, *steps[1].Outcome, mail.TargetForbidden)

	_ = inbox.Close()
	steps = with(func(s *provider.Settings) { s.SMTP.Host = "mx.test" })
	went(t, steps, "resolve+ connect!")
	is(t, *steps[1].Outcome, mail.Temporary, stepDial, 0)
	if inbox.Received() != 0 {
		t.Error("something was sent")
	}
}

func TestCheckOfARealServer(t *testing.T) {
	for _, s := range []provider.Security{provider.SecurityNone, provider.SecurityStartTLS, provider.SecurityTLS} {
		inbox, err := smtptest.NewInbox(smtptest.InboxOptions{Security: s, Username: "reports", Password: password,
			OnMail: func(from string) error {
				if from != sender.Address {
					return smtptest.Refuse(550, "5.7.1", "not yours")
				}
				return nil
			}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = inbox.Close() }()
		tr := &trial{settings: inbox.Settings(sender)}
		if f := provider.Failed(tr.check(t.Context(), t)); f != nil {
			t.Errorf("%s: %+v %+v", s, f, f.Outcome)
		}
		tr.settings.Sender.Address = "other@example.com"
		if f := provider.Failed(tr.check(t.Context(), t)); f == nil || f.Name != provider.StepSender || f.Outcome.Cause != mail.SenderRefused {
			t.Errorf("%s: %+v", s, f)
		}
		tr.settings.SMTP.Auth.Password = "guess"
		if f := provider.Failed(tr.check(t.Context(), t)); f == nil || f.Name != provider.StepAuth || f.Outcome.Cause != mail.Credentials {
			t.Errorf("%s: %+v", s, f)
		}
		if inbox.Received() != 0 {
			t.Errorf("%s: something was sent", s)
		}
	}
}
