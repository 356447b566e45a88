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
)

// A turn is a step of a session: what the client says, and what the server answers when all is well.
type turn struct {
	step   string
	client string
	good   string
}

func sessionOf(pipelining bool) []turn {
	capabilities := "S: 250-mx.example\nS: 250-SIZE 1000000\nS: 250 AUTH PLAIN LOGIN"
	if pipelining {
		capabilities = "S: 250-mx.example\nS: 250-PIPELINING\nS: 250-SIZE 1000000\nS: 250 AUTH LOGIN PLAIN"
	}
	return []turn{
		{stepGreeting, "", "S: 220 mx.example ESMTP"},
		{stepEHLO, "C: EHLO client.example", "S: 250-mx.example\nS: 250 STARTTLS"},
		{stepTLS, "C: STARTTLS", "S: 220 go on\nTLS"},
		{stepEHLO, "C: EHLO client.example", capabilities},
		{stepAuth, "C: AUTH PLAIN " + authPlain, "S: 235 2.7.0 welcome"},
		{stepMail, fmt.Sprintf("C: MAIL FROM:<reports@example.com> SIZE=%d", len(body)), "S: 250 2.1.0 fine"},
		{stepRcpt, "C: RCPT TO:<ada@example.org>", "S: 250 2.1.5 fine"},
		{stepData, "C: DATA", "S: 354 go on"},
		{stepBody, "MESSAGE", "S: 250 2.0.0 queued as 17"},
	}
}

// script plays a session up to exchange n, which is answered with instead. With pipelining, MAIL, RCPT and DATA come
// together, and those after n are refused because n was.
func script(session []turn, pipelining bool, n int, instead string, refused bool) string {
	var b strings.Builder
	line := func(s string) { b.WriteString(s + "\n") }
	const first, last = 5, 7 // MAIL, DATA
	for i := 0; i <= n; i++ {
		if pipelining && i == first {
			for _, e := range session[first : last+1] {
				line(e.client)
			}
		}
		if !pipelining || i < first || i > last {
			line(session[i].client)
		}
		if i < n {
			line(session[i].good)
		}
	}
	line(instead)
	if pipelining && refused && n >= first {
		for i := n; i < last; i++ {
			line("S: 503 5.5.1 not now")
		}
	}
	return b.String()
}

func TestEveryStepOfASession(t *testing.T) {
	for _, pipelining := range []bool{false, true} {
		session := sessionOf(pipelining)
		for n, e := range session {
			final := n == len(session)-1
			lost := mail.Temporary
			if final {
				lost = mail.Unknown
			}
			refusal := mail.Permanent
			if n < 5 {
				refusal = mail.Configuration
			}
			type variation struct {
				name    string
				instead string
				refused bool
				class   mail.Class
				step    string
				code    int
			}
			variations := []variation{
				{"deferred", "S: 451 4.3.0 later", true, mail.Temporary, e.step, 451},
				{"refused", "S: 554 5.3.0 no", true, refusal, e.step, 554},
				{"refused in lines", "S: 554-5.3.0 no\nS: 554 5.3.0 no", true, refusal, e.step, 554},
				{"closing", "S: 421 4.3.2 shutting down\nEOF", false, mail.Temporary, e.step, 421},
				{"silent", "SILENCE", false, lost, e.step, 0},
				{"cut before the reply", "CLOSE", false, lost, e.step, 0},
				{"cut in the reply", "RAW: \"25\"\nCLOSE", false, lost, e.step, 0},
				{"cut between lines", "S: 250-2.0.0 queued\nCLOSE", false, lost, e.step, 0},
				{"silent in the reply", "RAW: \"250 \"\nSILENCE", false, lost, e.step, 0},
				{"malformed", "S: hello", false, lost, e.step, 0},
				{"malformed in lines", "S: 250-x\nS: 251 y", false, lost, e.step, 0},
			}
			switch {
			case final: // "other reply", below
			case e.step == stepData:
				variations = append(variations, variation{"answer to something else", "S: 250 fine\nEOF", false, mail.Temporary, e.step, 250})
			default:
				variations = append(variations, variation{"answer to something else", "S: 354 go on\nEOF", false, mail.Temporary, e.step, 354})
			}
			if final {
				variations = append(variations, variation{"cut after the reply", e.good + "\nCLOSE", false, mail.Delivered, stepBody, 250},
					variation{"other reply", "S: 354 more\nEOF", false, mail.Unknown, stepBody, 0})
			} else if n != 2 && e.step != stepData {
				// After STARTTLS the handshake stands for the next step; for a cut in the body see TestCutInTheBody.
				next := session[n+1].step
				variations = append(variations, variation{"cut after the reply", e.good + "\nCLOSE", false, mail.Temporary, next, 0})
			}
			for _, v := range variations {
				name := fmt.Sprintf("pipelining %v/%d %s/%s", pipelining, n, e.step, v.name)
				t.Run(name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						text := script(session, pipelining, n, v.instead, v.refused)
						r := newRig(t, []change{security(provider.SecurityStartTLS), basic}, text).secured(t, "mx.example")
						o := r.send(t, "ada@example.org")[0]
						is(t, o, v.class, v.step, v.code)
						if want := scopeOf(v.step); o.Scope != want {
							t.Errorf("scope is %s, want %s", o.Scope, want)
						}
					})
				})
			}
		}
	}
}

// A context that ends while a server is silent hands nothing over, up to the last recipient; then it no longer cuts.
func TestEndOfContextAtEveryStep(t *testing.T) {
	for _, pipelining := range []bool{false, true} {
		session := sessionOf(pipelining)
		for n, e := range session {
			t.Run(fmt.Sprintf("pipelining %v/%d %s", pipelining, n, e.step), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t, []change{security(provider.SecurityStartTLS), basic}, script(session, pipelining, n, "SILENCE", false)).secured(t, "mx.example")
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					out, err := r.Send(ctx, delivery("ada@example.org"))
					if e.step == stepData || e.step == stepBody {
						if err != nil || len(out) != 1 || out[0].Step != e.step {
							t.Errorf("got %v, %v: want an outcome, as the recipient was accepted", out, err)
						}
						return
					}
					if !errors.Is(err, provider.ErrInterrupted) || out != nil {
						t.Errorf("got %v, %v, want ErrInterrupted", out, err)
					}
				})
			})
		}
	}
}

func TestContextEndsBeforeAndWhileDialing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, []change{func(_ *provider.Settings, o *Options) { o.Dialer = stuck{} }})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for range 2 { // The second time it has ended before.
			if _, err := r.Send(ctx, delivery("ada@example.org")); !errors.Is(err, provider.ErrInterrupted) {
				t.Errorf("got %v, want ErrInterrupted", err)
			}
		}
		is(t, r.send(t, "ada@example.org")[0], mail.Temporary, stepDial, 0)
	})
}

// stuck is a dialer that gets nowhere.
type stuck struct{}

func (stuck) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
}

func TestEachRecipientHasItsOutcome(t *testing.T) {
	const commands = mailFrom + "C: RCPT TO:<ada@example.org>\nC: RCPT TO:<bob@example.org>\nC: RCPT TO:<cy@example.org>\nC: DATA\n"
	for name, text := range map[string]string{
		"pipelined": greeting + "S: 250-mx.example\nS: 250 PIPELINING\n" + commands + `
			S: 250 2.1.0 fine
			S: 550 5.1.1 no such user
			S: 250 2.1.5 fine
			S: 452 4.5.3 too many recipients
			S: 354 go on
			MESSAGE
			S: 250 2.0.0 queued`,
		"one by one": greeting + "S: 250 mx.example\n" + mailFrom + `
			S: 250 2.1.0 fine
			C: RCPT TO:<ada@example.org>
			S: 550 5.1.1 no such user
			C: RCPT TO:<bob@example.org>
			S: 250 2.1.5 fine
			C: RCPT TO:<cy@example.org>
			S: 452 4.5.3 too many recipients
			C: DATA
			S: 354 go on
			MESSAGE
			S: 250 2.0.0 queued`,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil, text)
			out := r.send(t, "ada@example.org", "bob@example.org", "cy@example.org")
			is(t, out[0], mail.Permanent, stepRcpt, 550)
			is(t, out[1], mail.Delivered, stepBody, 250)
			is(t, out[2], mail.Temporary, stepRcpt, 452)
			if out[0].Scope != mail.ScopeRecipient || out[0].Enhanced != "5.1.1" || out[0].Reply != "no such user" {
				t.Errorf("refused: %+v", out[0])
			}
		})
	}
}

// One transaction has as many recipients as one message may have; the others can have it at once.
func TestMoreRecipientsThanAMessageTakesAreLeftForTheNext(t *testing.T) {
	for name, v := range map[string]struct {
		counted int
		commands,
		want string
	}{
		"at first":              {0, "C: RCPT TO:<ada@example.org>\nS: 450 4.2.0 later\nC: RCPT TO:<bob@example.org>\nS: 250 fine\n", "450 250 - 0"},
		"after one that counts": {1, "C: RCPT TO:<ada@example.org>\nS: 450 4.2.0 later\nC: RCPT TO:<cy@example.org>\nS: 250 fine\n", "450 - 250 0"},
		"after two that do":     {2, "C: RCPT TO:<bob@example.org>\nS: 450 4.2.0 later\nC: RCPT TO:<cy@example.org>\nS: 250 fine\n", "- 450 250 0"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil, greeting+"S: 250 mx\n"+mailFrom+"S: 250 fine\n"+v.commands+"C: DATA\nS: 354 go on\nMESSAGE\nS: 250 queued")
			d := delivery("ada@example.org", "bob@example.org", "cy@example.org", "no address")
			d.Bounds.Recipients, d.Counted = 2, v.counted
			out, err := r.Send(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, o := range out {
				code := strconv.Itoa(o.Code)
				if o.Cause == mail.TooManyRecipients && o.Class == mail.Temporary && o.Scope == mail.ScopeRecipient && strings.Contains(o.Reply, "2 recipients") {
					code = "-"
				}
				got = append(got, code)
			}
			if strings.Join(got, " ") != v.want {
				t.Errorf("%v, want %s: %+v", got, v.want, out)
			}
		})
	}
}

func TestAMessageThatIsLargerThanItMayBeIsNotOffered(t *testing.T) {
	const size = int64(len(body))
	for _, most := range []int64{size - 1, size, 0, -1} {
		script := greeting + "S: 250-mx\nS: 250 PIPELINING\n" + mailFrom + "C: RCPT TO:<ada@example.org>\nC: RCPT TO:<bob@example.org>\nC: DATA\nS: 250 fine\nS: 250 fine\nS: 250 fine\nS: 354 go on\nMESSAGE\nS: 250 queued"
		if most == size-1 {
			script = ""
		}
		r := newRig(t, nil)
		if script != "" {
			r = newRig(t, nil, script)
		}
		d := delivery("ada@example.org", "bob@example.org")
		d.Bounds = provider.Bounds{Recipients: 2, Bytes: most}
		if most == size-1 {
			d.Bounds.Recipients = 1 // nobody is put off whose message can't go
		}
		out, err := r.Send(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range out {
			if most != size-1 {
				is(t, o, mail.Delivered, stepBody, 250)
				continue
			}
			is(t, o, mail.Permanent, provider.StepLimit, 0)
			because(t, o, mail.LimitTooSmall)
			if want := fmt.Sprintf("the message has %d bytes, encoded, and the limit \"message_bytes\" allows %d", size, most); o.Reply != want || o.Scope != mail.ScopeMessage {
				t.Errorf("%s: %q, want %q", o.Scope, o.Reply, want)
			}
		}
	}
}

// What befalls the message leaves refused recipients their own outcome.
func TestRefusedRecipientKeepsItsOutcome(t *testing.T) {
	for name, v := range map[string]struct {
		end   string
		class mail.Class
		step  string
		code  int
	}{
		"data refused":     {"S: 451 4.3.0 later", mail.Temporary, stepData, 451},
		"message refused":  {"S: 354 go on\nMESSAGE\nS: 554 5.6.0 spam", mail.Permanent, stepBody, 554},
		"message deferred": {"S: 354 go on\nMESSAGE\nS: 451 4.3.0 later", mail.Temporary, stepBody, 451},
		"reply lost":       {"S: 354 go on\nMESSAGE\nCLOSE", mail.Unknown, stepBody, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil, greeting+"S: 250-mx.example\nS: 250 PIPELINING\n"+mailFrom+`
				C: RCPT TO:<ada@example.org>
				C: RCPT TO:<bob@example.org>
				C: DATA
				S: 250 fine
				S: 250 fine
				S: 550 5.1.1 no such user
				`+v.end)
			out := r.send(t, "ada@example.org", "bob@example.org")
			is(t, out[0], v.class, v.step, v.code)
			is(t, out[1], mail.Permanent, stepRcpt, 550)
		})
	}
}

func TestAllRecipientsRefused(t *testing.T) {
	const begin = greeting + "S: 250-mx.example\nS: 250 PIPELINING\n" + mailFrom + "C: RCPT TO:<ada@example.org>\nC: DATA\nS: 250 fine\nS: 550 5.1.1 no\n"
	const again = mailFrom + "C: RCPT TO:<bob@example.org>\nC: DATA\nS: 250 fine\nS: 250 fine\nS: 354 go on\nMESSAGE\nS: 250 queued\n"
	t.Run("DATA refused too: RSET and go on", func(t *testing.T) {
		r := newRig(t, nil, begin+"S: 503 5.5.1 no recipients\nC: RSET\nS: 250 fine\n"+again)
		is(t, r.send(t, "ada@example.org")[0], mail.Permanent, stepRcpt, 550)
		is(t, r.send(t, "bob@example.org")[0], mail.Delivered, stepBody, 250)
	})
	t.Run("DATA accepted: no dot, a new connection", func(t *testing.T) {
		r := newRig(t, nil, begin+"S: 354 go on\nEOF", greeting+"S: 250-mx.example\nS: 250 PIPELINING\n"+again)
		is(t, r.send(t, "ada@example.org")[0], mail.Permanent, stepRcpt, 550)
		is(t, r.send(t, "bob@example.org")[0], mail.Delivered, stepBody, 250)
	})
	t.Run("one by one: no DATA", func(t *testing.T) {
		r := newRig(t, nil, greeting+"S: 250 mx.example\n"+mailFrom+"S: 250 fine\nC: RCPT TO:<ada@example.org>\nS: 550 5.1.1 no\n")
		is(t, r.send(t, "ada@example.org")[0], mail.Permanent, stepRcpt, 550)
	})
}

// A pipelining server that refuses MAIL but asks for the message must not get one.
func TestDataAcceptedAfterMailRefused(t *testing.T) {
	r := newRig(t, nil, greeting+"S: 250-mx.example\nS: 250 PIPELINING\n"+mailFrom+
		"C: RCPT TO:<ada@example.org>\nC: DATA\nS: 451 4.3.0 later\nS: 250 fine\nS: 354 go on\nEOF")
	is(t, r.send(t, "ada@example.org")[0], mail.Temporary, stepMail, 451)
}

func TestManyRecipientsInWindows(t *testing.T) {
	const n = 250
	var to []string
	var b strings.Builder
	b.WriteString(greeting + "S: 250-mx.example\nS: 250 PIPELINING\n" + mailFrom)
	pending := []string{"S: 250 fine"}
	for i := range n {
		if len(pending) == maxPipelined {
			b.WriteString("QUIET: 1s\n" + strings.Join(pending, "\n") + "\n")
			pending = nil
		}
		to = append(to, fmt.Sprintf("r%03d@example.org", i))
		b.WriteString("C: RCPT TO:<" + to[i] + ">\n")
		pending = append(pending, "S: 250 fine")
	}
	b.WriteString("C: DATA\n" + strings.Join(pending, "\n") + "\nS: 354 go on\nMESSAGE\nS: 250 queued")
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil, b.String())
		for _, o := range r.send(t, to...) {
			is(t, o, mail.Delivered, stepBody, 250)
		}
	})
}

// 421 is about the connection: it befalls the recipients taken before, too, but not those refused.
func TestClosingAmongRecipients(t *testing.T) {
	r := newRig(t, nil, greeting+"S: 250-mx.example\nS: 250 PIPELINING\n"+mailFrom+`
		C: RCPT TO:<ada@example.org>
		C: RCPT TO:<bob@example.org>
		C: RCPT TO:<cy@example.org>
		C: RCPT TO:<di@example.org>
		C: DATA
		S: 250 fine
		S: 250 fine
		S: 550 5.1.1 no such user
		S: 421 4.3.2 shutting down
		EOF`)
	out := r.send(t, "ada@example.org", "bob@example.org", "cy@example.org", "di@example.org")
	is(t, out[0], mail.Temporary, stepRcpt, 421)
	is(t, out[1], mail.Permanent, stepRcpt, 550)
	is(t, out[2], mail.Temporary, stepRcpt, 421)
	is(t, out[3], mail.Temporary, stepRcpt, 421)
}

func TestFenceRefuses(t *testing.T) {
	stop := errors.New("the lease is over")
	r := newRig(t, nil, greeting+"S: 250 mx.example\n"+mailFrom+"S: 250 fine\nC: RCPT TO:<ada@example.org>\nS: 250 fine\nC: DATA\nS: 354 go on\nCUT",
		greeting+"S: 250 mx.example\n"+one)
	d := delivery("ada@example.org")
	d.Fence = func() error { return stop }
	out, err := r.Send(t.Context(), d)
	if !errors.Is(err, stop) || out != nil {
		t.Errorf("got %v, %v, want the fence's error", out, err)
	}
	is(t, r.send(t, "ada@example.org")[0], mail.Delivered, stepBody, 250)
}

// The message is whole but for the dot when the fence is asked, and the dot comes right after it.
func TestFenceComesBeforeTheDot(t *testing.T) {
	r := newRig(t, nil, greeting+"S: 250 mx.example\n"+mailFrom+"S: 250 fine\nC: RCPT TO:<ada@example.org>\nS: 250 fine\nC: DATA\nS: 354 go on\nMESSAGE\nS: 250 queued")
	r.message.raw = strings.Repeat("0123456789012345678901234567890123456789\r\n", 5000)
	d := delivery("ada@example.org")
	fenced := 0
	d.Fence = func() error {
		fenced++
		if n := len(r.peer.Messages()); n != 0 {
			t.Errorf("%d messages had been received when the fence was asked", n)
		}
		return nil
	}
	out, err := r.Send(t.Context(), d)
	if err != nil || fenced != 1 {
		t.Fatalf("%v, with the fence asked %d times", err, fenced)
	}
	is(t, out[0], mail.Delivered, stepBody, 250)
	if got := r.peer.Messages(); len(got) != 1 || got[0] != r.message.raw {
		t.Error("the message did not arrive as it was")
	}
}

// Patience for the final reply does not end with the attempt's time.
func TestLateReplyToTheFinalDot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, []change{func(_ *provider.Settings, o *Options) { o.Timeouts.Attempt = time.Minute }},
			greeting+"S: 250 mx.example\n"+strings.Replace(one, "MESSAGE", "MESSAGE\nWAIT: 9m", 1))
		is(t, r.send(t, "ada@example.org")[0], mail.Delivered, stepBody, 250)
	})
}

// A server that answers each command at the last moment does not hold an attempt for ever.
func TestAttemptHasAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		r := newRig(t, []change{func(_ *provider.Settings, o *Options) { o.Timeouts.Attempt = 100 * time.Second }},
			"WAIT: 50s\n"+greeting+"WAIT: 40s\nS: 250 mx.example\n"+mailFrom+"SILENCE")
		is(t, r.send(t, "ada@example.org")[0], mail.Temporary, stepMail, 0)
		if took := time.Since(begin); took != 100*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// A deadline that is set just after an interruption must not undo it.
func TestInterruptionLasts(t *testing.T) {
	a, b := net.Pipe()
	defer func() { _ = b.Close() }()
	c := newConn(a, Timeouts{})
	defer func() { _ = c.raw.Close() }()
	c.interrupt()
	if _, err := c.reply(stepMail, time.Hour); !errors.Is(err, provider.ErrInterrupted) {
		t.Errorf("got %v", err)
	}
}

// A server that stops reading a large message, before the dot, has not got it.
func TestCutInTheBody(t *testing.T) {
	const begin = greeting + "S: 250 mx.example\n" + mailFrom + "S: 250 fine\nC: RCPT TO:<ada@example.org>\nS: 250 fine\nC: DATA\nS: 354 go on\n"
	large := strings.Repeat("0123456789012345678901234567890123456789\r\n", 5000)
	for name, v := range map[string]struct {
		end   string
		class mail.Class
		code  int
	}{
		"hangs up":             {"C: 0123456789012345678901234567890123456789\nCLOSE", mail.Temporary, 0},
		"reads no further":     {"STALL", mail.Temporary, 0},
		"says no and hangs up": {"C: 0123456789012345678901234567890123456789\nS: 552 5.3.4 too large\nCLOSE", mail.Permanent, 552},
		"says 250 too early":   {"C: 0123456789012345678901234567890123456789\nS: 250 queued\nCLOSE", mail.Temporary, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil, begin+v.end)
				r.message.raw = large
				d := delivery("ada@example.org")
				d.Fence = func() error { t.Error("the fence was asked"); return nil }
				out, err := r.Send(t.Context(), d)
				if err != nil {
					t.Fatal(err)
				}
				is(t, out[0], v.class, stepBody, v.code)
			})
		})
	}
}

func TestRenderingFailsTheSecondTime(t *testing.T) {
	r := newRig(t, nil, greeting+"S: 250 mx.example\n"+mailFrom+"S: 250 fine\nC: RCPT TO:<ada@example.org>\nS: 250 fine\nC: DATA\nS: 354 go on\nCUT")
	r.message.fail = errors.New("out of paper")
	is(t, r.send(t, "ada@example.org")[0], mail.Permanent, stepRender, 0)
}

func TestNotRenderedNotConnected(t *testing.T) {
	for name, raw := range map[string]string{
		"bare LF":        "Subject: x\n\r\n",
		"bare CR":        "Subject: x\r\r\n",
		"smuggled dot":   "Subject: x\r\n\r\n\n.\r\nMAIL FROM:<a@b>\r\n",
		"no end of line": "Subject: x\r\n\r\nbody",
		"CR at the end":  "Subject: x\r\n\r\nbody\r",
		"nothing":        "",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.message.raw = raw
			is(t, r.send(t, "ada@example.org")[0], mail.Permanent, stepRender, 0)
		})
	}
	r := newRig(t, nil)
	r.compose = func(*mail.Outgoing) (rendered, error) { return nil, errors.New("no body") }
	is(t, r.send(t, "ada@example.org")[0], mail.Permanent, stepRender, 0)
}

func TestAddressesThatWouldBreakOut(t *testing.T) {
	r := newRig(t, nil, greeting+"S: 250 mx.example\n"+mailFrom+`
		S: 250 fine
		C: RCPT TO:<"a b>c"@example.org>
		S: 250 fine
		C: DATA
		S: 354 go on
		MESSAGE
		S: 250 queued`)
	to := []string{"a\r\nRSET@example.org", `"a b>c"@example.org`, "a@b>\r\nDATA", "a>@b", "a b@c", "a\x00@b", `"a"b"@c`, `"a\"@c`,
		"nobody", "@b", "a@", "a@bücher.example", "a@" + strings.Repeat("b", 255), "\xff@b"}
	out := r.send(t, to...)
	for i, o := range out {
		if i == 1 {
			is(t, o, mail.Delivered, stepBody, 250)
		} else {
			is(t, o, mail.Permanent, stepRcpt, 0)
			because(t, o, mail.AddressInvalid)
		}
	}
	d := delivery("ada@example.org")
	d.Message.From.Address = "a>\r\nRSET@b"
	if out, err := r.Send(t.Context(), d); err != nil || out[0].Class != mail.Permanent || out[0].Step != stepMail || out[0].Cause != mail.AddressInvalid {
		t.Errorf("got %v, %v for a bad sender", out, err)
	}
}

func TestExtensions(t *testing.T) {
	const accept = "S: 250 fine\nC: DATA\nS: 354 go on\nMESSAGE\nS: 250 queued"
	latin := "Subject: x\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n"
	for _, v := range []struct {
		name   string
		script string
		text   text
		to     string
		class  mail.Class
		step   string
		cause  mail.Cause
	}{
		{"8BITMIME is declared", "S: 250-mx\nS: 250 8BITMIME\nC: MAIL FROM:<reports@example.com> BODY=8BITMIME\nS: 250 fine\nC: RCPT TO:<ada@example.org>\n" + accept,
			text{raw: latin}, "ada@example.org", mail.Delivered, stepBody, ""},
		{"8BITMIME is not declared for ASCII", "S: 250-mx\nS: 250 8BITMIME\nC: MAIL FROM:<reports@example.com>\nS: 250 fine\nC: RCPT TO:<ada@example.org>\n" + accept,
			text{raw: body}, "ada@example.org", mail.Delivered, stepBody, ""},
		{"8-bit is not offered", "S: 250 mx", text{raw: latin}, "ada@example.org", mail.Permanent, stepMail, mail.NotASCII},
		{"SMTPUTF8 for the header", "S: 250-mx\nS: 250 SMTPUTF8\nC: MAIL FROM:<reports@example.com> SMTPUTF8\nS: 250 fine\nC: RCPT TO:<ada@example.org>\n" + accept,
			text{raw: body, utf8: true}, "ada@example.org", mail.Delivered, stepBody, ""},
		{"SMTPUTF8 for a recipient", "S: 250-mx\nS: 250 SMTPUTF8\nC: MAIL FROM:<reports@example.com> SMTPUTF8\nS: 250 fine\nC: RCPT TO:<jürgen@example.org>\n" + accept,
			text{raw: body}, "jürgen@example.org", mail.Delivered, stepBody, ""},
		{"SMTPUTF8 is offered and not needed", "S: 250-mx\nS: 250 SMTPUTF8\nC: MAIL FROM:<reports@example.com>\nS: 250 fine\nC: RCPT TO:<ada@example.org>\n" + accept,
			text{raw: body}, "ada@example.org", mail.Delivered, stepBody, ""},
		{"SMTPUTF8 is needed and not offered", "S: 250 mx", text{raw: body, utf8: true}, "ada@example.org", mail.Permanent, stepMail, mail.NotASCII},
		{"SMTPUTF8 is needed by one recipient and not offered", "S: 250 mx", text{raw: body}, "jürgen@example.org", mail.Permanent, stepRcpt, mail.NotASCII},
		{"SIZE is told", fmt.Sprintf("S: 250-mx\nS: 250 SIZE\nC: MAIL FROM:<reports@example.com> SIZE=%d\nS: 250 fine\nC: RCPT TO:<ada@example.org>\n", len(body)) + accept,
			text{raw: body}, "ada@example.org", mail.Delivered, stepBody, ""},
		{"SIZE is exceeded", fmt.Sprintf("S: 250-mx\nS: 250 SIZE %d", len(body)-1), text{raw: body}, "ada@example.org", mail.Permanent, stepMail, mail.TooLarge},
		{"SIZE is just met", fmt.Sprintf("S: 250-mx\nS: 250 SIZE %d\nC: MAIL FROM:<reports@example.com> SIZE=%d\nS: 250 fine\nC: RCPT TO:<ada@example.org>\n", len(body), len(body)) + accept,
			text{raw: body}, "ada@example.org", mail.Delivered, stepBody, ""},
	} {
		t.Run(v.name, func(t *testing.T) {
			r := newRig(t, nil, greeting+v.script)
			r.message = &v.text
			code := 0
			if v.class == mail.Delivered {
				code = 250
			}
			o := r.send(t, v.to)[0]
			is(t, o, v.class, v.step, code)
			because(t, o, v.cause)
		})
	}
}

func TestDotStuffing(t *testing.T) {
	r := newRig(t, nil, greeting+"S: 250 mx\n"+mailFrom+"S: 250 fine\nC: RCPT TO:<ada@example.org>\nS: 250 fine\nC: DATA\nS: 354 go on\nMESSAGE\nS: 250 queued")
	r.message.raw = ".\r\n..\r\na.b\r\n.c\r\n"
	is(t, r.send(t, "ada@example.org")[0], mail.Delivered, stepBody, 250)
	if got, want := r.peer.Messages()[0], "..\r\n...\r\na.b\r\n..c\r\n"; got != want {
		t.Errorf("on the wire: %q, want %q", got, want)
	}
}

func TestReplyTextIsOneCleanLine(t *testing.T) {
	r := newRig(t, nil, greeting+"S: 250 mx\n"+mailFrom+`
		RAW: "550-5.6.0 first\tline\x1b[31m\r\n550-5.6.0 \xff second\r\n550 5.6.0 `+strings.Repeat("x", 500)+`\r\n"`)
	o := r.send(t, "ada@example.org")[0]
	is(t, o, mail.Permanent, stepMail, 550)
	if !strings.HasPrefix(o.Reply, "first line?[31m ? second xxx") || len(o.Reply) != 400 || o.Enhanced != "5.6.0" {
		t.Errorf("enhanced %q, reply %q", o.Enhanced, o.Reply)
	}
}
