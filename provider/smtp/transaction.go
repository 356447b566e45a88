package smtp

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// maxPipelined bounds the commands written before their replies are read, so that neither side waits for the other to
// empty its buffers (RFC 2920, section 3.1).
const maxPipelined = 100

// transaction is one message on its way to its recipients.
type transaction struct {
	fence      func() error
	from       string
	recipients []mail.Address
	message    rendered
	size       int64
	eightBit   bool
	utf8       bool // what is the same for all recipients needs SMTPUTF8
	limit      time.Time
	// takeAlong gives the commands of the next message to be sent behind the final dot; see Sender.takeAlong.
	takeAlong func(*conn) []byte
	// ahead says that the commands of the envelope have been sent, all of them, behind the final dot of the message before.
	ahead bool

	// outcomes line up with recipients; one without a step is still open.
	outcomes []mail.Outcome
	// wire are the indexes of the recipients that are offered, accepted those of them that the server took.
	wire, accepted []int
}

// run hands the message over on c. nil means that all outcomes are known; a *fault befell all that are open; any other
// error means that we stopped by ourselves with nothing handed over.
func (t *transaction) run(c *conn) error {
	if !t.ahead {
		c.used++
		if err := t.rset(c); err != nil {
			return err
		}
		if f := t.fits(&c.ext); f != nil {
			return f
		}
		if len(t.wire) == 0 {
			return nil
		}
	}
	if err := t.envelope(c); err != nil || len(t.accepted) == 0 {
		return err
	}
	return t.content(c)
}

// rset clears what a failed transaction left behind on the connection.
func (t *transaction) rset(c *conn) error {
	if !c.dirty {
		return nil
	}
	r, err := c.command(stepMail, c.t.Command, "RSET")
	if err != nil {
		return err
	}
	if r.class() != 2 {
		c.dead = true
		f := c.refusal(stepMail, r)
		f.hungUp = true // RSET never fails (RFC 5321, section 4.1.1.5): this connection is spoiled, not the message.
		return f
	}
	c.dirty = false
	return nil
}

// fits compares the message with what the server offers, and lists the recipients for the wire.
func (t *transaction) fits(ext *extensions) *fault {
	switch {
	case ext.maxSize > 0 && t.size > ext.maxSize:
		return ours(mail.Permanent, stepMail, fmt.Sprintf("the message has %d bytes and the server takes %d at most", t.size, ext.maxSize)).because(mail.TooLarge)
	case t.utf8 && !ext.utf8:
		return ours(mail.Permanent, stepMail, "an address is not ASCII, and the server does not offer SMTPUTF8").because(mail.NotASCII)
	case t.eightBit && !ext.eightBit:
		return ours(mail.Permanent, stepMail, "the message is not ASCII, and the server does not offer 8BITMIME").because(mail.NotASCII)
	}
	t.wire, t.accepted = t.wire[:0], t.accepted[:0]
	for i, a := range t.recipients {
		switch {
		case t.outcomes[i].Step != "":
		case !ascii(a.Address) && !ext.utf8:
			t.outcomes[i] = ours(mail.Permanent, stepRcpt, "the address is not ASCII, and the server does not offer SMTPUTF8").because(mail.NotASCII).Outcome
		default:
			t.wire = append(t.wire, i)
		}
	}
	return nil
}

// envelope has the dialog from MAIL to the reply to DATA: in one round trip where the server takes it, else one for each
// command. Without an error, no accepted recipient means that all were refused and have their outcomes.
func (t *transaction) envelope(c *conn) error {
	window := 1
	if c.ext.pipelining {
		window = maxPipelined
	}
	data := len(t.wire) + 1 // the commands are numbered: 0 is MAIL, then RCPT, and last DATA
	c.dirty = true
	for next := 0; next <= data; {
		if next == data && len(t.accepted) == 0 {
			return nil // DATA is not on its way yet, and is not needed.
		}
		end := min(next+window, data+1)
		if t.ahead {
			t.ahead = false
			if err := t.caughtUp(c, end); err != nil {
				return err
			}
			next++
		} else if err := t.send(c, next, end); err != nil {
			return err
		}
		for ; next < end; next++ {
			if err := t.answer(c, next, end); err != nil {
				return err
			}
		}
	}
	return nil
}

// caughtUp judges the reply to a MAIL that was sent ahead; end commands were. What is not a reply that a MAIL is given elsewhere, too,
// says nothing about the message.
func (t *transaction) caughtUp(c *conn, end int) error {
	r, err := c.reply(stepMail, min(c.t.Mail, followTimeout))
	switch {
	case errors.Is(err, provider.ErrInterrupted):
		return err
	case err == nil && r.class() == 2:
		return nil
	case err == nil && r.class() == 4:
		t.drain(c, 1, end)
		return c.refusal(stepMail, r)
	}
	c.dead = true
	f := ours(mail.Temporary, stepMail, "no good reply to what was sent ahead")
	f.hungUp = true
	var lost *fault
	if errors.As(err, &lost) {
		f.outOfStep = !lost.hungUp
	} else {
		f.outOfStep = r.class() != 5 || r.code == 503
	}
	return f
}

// send writes the commands from number first up to end.
func (t *transaction) send(c *conn, first, end int) error {
	c.out = t.commands(c.out[:0], &c.ext, first, end)
	return c.send(t.step(first), c.t.Block, c.out)
}

// commands appends those from number first up to end.
func (t *transaction) commands(b []byte, ext *extensions, first, end int) []byte {
	for n := first; n < end; n++ {
		switch {
		case n == 0:
			b = t.appendMail(b, ext)
		case n <= len(t.wire):
			b = append(b, "RCPT TO:<"...)
			b = append(b, t.recipients[t.wire[n-1]].Address...)
			b = append(b, ">\r\n"...)
		default:
			b = append(b, "DATA\r\n"...)
		}
	}
	return b
}

func (t *transaction) appendMail(b []byte, ext *extensions) []byte {
	b = append(b, "MAIL FROM:<"...)
	b = append(b, t.from...)
	b = append(b, '>')
	if ext.size && t.size > 0 {
		b = strconv.AppendInt(append(b, " SIZE="...), t.size, 10)
	}
	if t.eightBit {
		b = append(b, " BODY=8BITMIME"...)
	}
	if t.utf8 || t.anyUTF8() {
		b = append(b, " SMTPUTF8"...)
	}
	return append(b, "\r\n"...)
}

func (t *transaction) anyUTF8() bool {
	for _, i := range t.wire {
		if !ascii(t.recipients[i].Address) {
			return true
		}
	}
	return false
}

func (t *transaction) step(n int) string {
	switch {
	case n == 0:
		return stepMail
	case n <= len(t.wire):
		return stepRcpt
	}
	return stepData
}

// answer reads and judges the reply to command n; those before end were sent, too.
func (t *transaction) answer(c *conn, n, end int) error {
	step := t.step(n)
	r, err := c.reply(step, c.t.of(step))
	if err != nil {
		return err
	}
	switch step {
	case stepMail:
		if r.class() != 2 {
			t.drain(c, n+1, end)
			return c.refusal(step, r)
		}
	case stepRcpt:
		return t.rcpt(c, n, r)
	case stepData:
		return t.data(c, r)
	}
	return nil
}

// rcpt judges the reply for one recipient, the n-th command. After the last one, if any was accepted, the end of the
// attempt's context no longer cuts.
func (t *transaction) rcpt(c *conn, n int, r reply) error {
	i := t.wire[n-1]
	switch {
	case r.class() == 2:
		t.accepted = append(t.accepted, i)
	case r.code == 421 || r.class() == 3:
		return c.refusal(stepRcpt, r)
	default:
		t.outcomes[i] = c.refusal(stepRcpt, r).Outcome
	}
	if n == len(t.wire) && len(t.accepted) > 0 && !c.detach() {
		return provider.ErrInterrupted
	}
	return nil
}

// data judges the reply to DATA.
func (t *transaction) data(c *conn, r reply) error {
	if len(t.accepted) == 0 {
		// A pipelined DATA that was accepted although no recipient was (RFC 2920, section 3.1). A dot would end it, and
		// could deliver an empty mail; hanging up can't.
		if r.class() != 4 && r.class() != 5 {
			c.dead = true
		}
		return nil
	}
	if r.code != 354 {
		return c.refusal(stepData, r)
	}
	return nil
}

// drain reads the replies to commands first to end that no longer matter, to keep the connection in step.
func (t *transaction) drain(c *conn, first, end int) {
	for n := first; n < end && !c.dead; n++ {
		c.arm(lastWordsTimeout)
		r, err := readReply(c.r, nil)
		if err != nil || r.code == 421 || r.class() == 3 {
			c.dead = true // With 354 the server waits for a message now.
		}
	}
}

// content sends the message. The final dot, after which the server may take responsibility, goes out only after the
// fence; from then on no complete reply means that nobody knows (RFC 1047).
func (t *transaction) content(c *conn) error {
	c.dead = true // until the reply: what ends in the middle leaves a connection that takes RSET for text
	c.body.reset(func(p []byte) (int, error) {
		c.arm(c.t.Block)
		return c.nc.Write(p)
	})
	if n, err := t.message.WriteTo(&c.body); c.body.err == nil && (err != nil || n != t.size) {
		return ours(mail.Permanent, stepRender, "the message came out differently when it was rendered again")
	}
	var dotted bool
	err := c.body.err
	if err == nil {
		if t.fence != nil {
			if err := t.fence(); err != nil {
				return err
			}
		}
		dotted, err = c.body.finish(t.takeAlong(c))
	}
	return t.verdict(c, dotted, err)
}

// verdict reads the reply to the message, after which nothing changes its fate. sent is the error of sending it.
func (t *transaction) verdict(c *conn, dotted bool, sent error) error {
	var r reply
	err := sent
	if sent == nil {
		c.limit = time.Time{} // A shorter wait here makes duplicates (RFC 5321, section 4.5.3.2.6).
		c.arm(c.t.Final)
		dot := time.Now()
		r, err = readReply(c.r, nil)
		c.prompt = time.Since(dot) < prompt
	} else {
		r, err = c.lastWords(sent)
	}
	c.dead = sent != nil || err != nil || r.code == 421 || c.body.cut
	switch {
	case err == nil && (r.class() == 4 || r.class() == 5):
		return c.refusal(stepBody, r)
	case err == nil && r.class() == 2 && dotted:
		c.dirty = false
		t.delivered(r)
		return nil
	case dotted:
		words := "no reply to the final dot"
		if err != nil {
			words += ": " + plain(err)
		}
		c.dead = true
		return ours(mail.Unknown, stepBody, words)
	case err == nil:
		err = errMalformed
	}
	return c.broken(stepBody, "sending the message", err)
}

func (t *transaction) delivered(r reply) {
	for _, i := range t.accepted {
		t.outcomes[i] = mail.Outcome{Class: mail.Delivered, Step: stepBody, Code: r.code, Enhanced: r.enhanced, Reply: r.text}
	}
}

// settle gives every recipient that is still open the same outcome.
func (t *transaction) settle(o mail.Outcome) {
	for i := range t.outcomes {
		if t.outcomes[i].Step == "" {
			t.outcomes[i] = o
		}
	}
}

// ascii reports whether s is, so that SMTPUTF8 is not needed for it.
func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
