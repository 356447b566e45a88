package smtp

import (
	"context"
	"crypto/tls"
	"errors"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// Check tries settings out: on a connection of its own it goes the way of a Sender, up to the sender's address, which it takes back.
// It names no recipient, so that nothing can be sent. It ends with the first step that fails, and that has the outcome which an
// attempt would have had. With STARTTLS there are two steps EHLO, before and after.
//
// The end of ctx ends the check, too: the step under way fails for the time being. A login by OAuth 2.0 asks for a token of its own
// if Options.Tokens is a provider.Granter, and does not try another if that is refused.
//
// The error says that the settings are no good, as New's does.
func Check(ctx context.Context, settings provider.Settings, o Options) ([]provider.Step, error) {
	s, err := New(settings, o)
	if err != nil {
		return nil, err
	}
	k := &check{Sender: s, ctx: ctx}
	if k.connect(settings.SMTP.Host) {
		k.session()
		// QUIT is bounded by ctx, too.
		k.conn.quit()
		k.conn.detach()
	}
	return k.steps, nil
}

// check is one on its way.
type check struct {
	*Sender
	ctx   context.Context
	conn  *conn
	steps []provider.Step
}

// connect takes the steps up to a connection. It reports whether there is one.
func (k *check) connect(host string) bool {
	trace := provider.NewTrace(host)
	c, err := k.dial(trace.Watch(k.ctx), time.Now().Add(k.timeouts.Attempt))
	k.conn = c
	k.steps = append(k.steps, trace.Dialed(k.outcome(stepDial, err))...)
	return err == nil
}

// session takes the steps on the connection.
func (k *check) session() {
	if k.security == provider.SecurityNone {
		k.skip(provider.StepTLS, provider.NotEncrypted)
	}
	for _, p := range k.phases() {
		if !k.step(p.step, p.step, func() (string, error) {
			err := p.pass(k.conn)
			return k.found(p.step), err
		}) {
			return
		}
	}
	if !k.authenticate() {
		return
	}
	k.step(provider.StepSender, stepMail, func() (string, error) {
		t := transaction{from: k.from, utf8: !ascii(k.from)}
		return "the server takes " + k.from + " as sender; some servers refuse it only at the recipients or the content", t.probe(k.conn)
	})
}

// found says what a phase has brought to light.
func (k *check) found(step string) string {
	switch step {
	case stepGreeting:
		return k.conn.greeting
	case stepEHLO:
		return k.conn.ext.String()
	}
	if over, ok := k.conn.nc.(*tls.Conn); ok {
		state := over.ConnectionState()
		return provider.DescribeTLS(&state, time.Now())
	}
	return ""
}

// authenticate takes the steps of AUTH. It reports whether the check goes on.
func (k *check) authenticate() bool {
	if k.account == nil {
		k.skip(provider.StepAuth, "the settings have no login")
		return true
	}
	token := ""
	if k.account.tokens != nil && !k.step(provider.StepToken, provider.StepToken, func() (string, error) {
		granted, err := provider.Grant(k.ctx, k.account.tokens)
		if o, ok := provider.NoToken(err); ok {
			err = &fault{Outcome: o}
		}
		token = granted.Token.Reveal()
		return granted.String(), err
	}) {
		return false
	}
	return k.step(provider.StepAuth, stepAuth, func() (string, error) {
		err := k.account.authenticate(k.conn, token)
		return k.conn.mechanism + " as " + k.account.username, err
	})
}

// step takes one step, which in an attempt has the name of in. It reports whether the check goes on.
func (k *check) step(name, in string, take func() (found string, err error)) bool {
	began := time.Now()
	found, err := take()
	s := provider.Step{Name: name, State: provider.StepPassed, Took: time.Since(began), Found: found}
	if err != nil {
		s.State, s.Found, s.Outcome = provider.StepFailed, "", k.outcome(in, err)
	}
	k.steps = append(k.steps, s)
	return err == nil
}

func (k *check) skip(name, why string) {
	k.steps = append(k.steps, provider.Step{Name: name, State: provider.StepSkipped, Found: why})
}

// outcome gives that of an error at a step of an attempt. A check that is interrupted has no later try: its time is over.
func (k *check) outcome(step string, err error) *mail.Outcome {
	var f *fault
	switch {
	case err == nil:
		return nil
	case errors.As(err, &f):
	case errors.Is(k.ctx.Err(), context.DeadlineExceeded):
		f = ours(mail.Temporary, step, "timed out")
	default:
		f = ours(mail.Temporary, step, "interrupted")
	}
	return &f.Outcome
}

// probe asks whether the sender is taken, and ends the transaction again before it has a recipient.
func (t *transaction) probe(c *conn) error {
	if f := t.fits(&c.ext); f != nil {
		return f
	}
	c.dirty = true
	if err := t.send(c, 0, 1); err != nil {
		return err
	}
	if err := t.answer(c, 0, 1); err != nil {
		return err
	}
	return t.rset(c)
}
