package smtp

import (
	"strings"
	"unicode/utf8"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/mail/mime"
	"github.com/postroom/postroom/provider"
)

func compose(m *mail.Outgoing) (rendered, error) { return mime.Compose(m) }

// prepare renders the message and looks at the envelope, before anything is sent. Recipients that can't stand in a
// command have their outcome then.
func (s *Sender) prepare(d *provider.Delivery) *transaction {
	t := &transaction{
		fence:      d.Fence,
		from:       d.Message.From.Address,
		recipients: d.Recipients,
		outcomes:   make([]mail.Outcome, len(d.Recipients)),
	}
	if t.from == "" {
		t.from = s.from
	}
	if fault := badPath(t.from); fault != "" {
		t.settle(ours(mail.Permanent, stepMail, "the sender's address "+fault).because(mail.AddressInvalid).Outcome)
		return t
	}
	for i, a := range d.Recipients {
		if fault := badPath(a.Address); fault != "" {
			t.outcomes[i] = ours(mail.Permanent, stepRcpt, "the address "+fault).because(mail.AddressInvalid).Outcome
		}
	}
	if err := t.render(s.compose, d.Message); err != nil {
		t.settle(ours(mail.Permanent, stepRender, err.Error()).Outcome)
	} else if o, exceeded := d.Bounds.Exceeded(t.size); exceeded {
		t.settle(o)
	}
	t.putOff(d)
	return t
}

// putOff leaves to the next attempts whom one transaction has no room for. Each attempt that counts begins further on, so that
// those who are put off by the server do not keep the others from their turn.
func (t *transaction) putOff(d *provider.Delivery) {
	var open []int
	for i := range t.outcomes {
		if t.outcomes[i].Step == "" {
			open = append(open, i)
		}
	}
	room := d.Bounds.Offers(len(open))
	for n := room; n < len(open); n++ {
		t.outcomes[open[(d.Counted*room+n)%len(open)]] = d.Bounds.PutOff(stepRcpt)
	}
}

func (t *transaction) render(compose func(*mail.Outgoing) (rendered, error), m *mail.Outgoing) error {
	message, err := compose(m)
	if err != nil {
		return err
	}
	var check checker
	if _, err := message.WriteTo(&check); err != nil {
		return err
	}
	if check.last != '\n' {
		return errLineEnd
	}
	t.message, t.size, t.eightBit = message, check.size, check.eightBit
	t.utf8 = message.UTF8() || !ascii(t.from)
	return nil
}

// done reports whether every recipient has an outcome.
func (t *transaction) done() bool {
	for i := range t.outcomes {
		if t.outcomes[i].Step == "" {
			return false
		}
	}
	return true
}

// maxPath is the longest address of a command (RFC 5321, section 4.5.3.1.3).
const maxPath = 254

// badPath says why an address can't stand between the angle brackets of MAIL or RCPT, or gives nothing. Addresses come
// here validated; this is the last place where one could break out of its command.
func badPath(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at < 1 || at == len(address)-1 {
		return "is not of the form local@domain"
	}
	if len(address) > maxPath || !utf8.ValidString(address) {
		return "is too long or not UTF-8"
	}
	for _, r := range address {
		if r < ' ' || r == 0x7f {
			return "holds a control character"
		}
	}
	local, domain := address[:at], address[at+1:]
	if strings.ContainsAny(domain, "<> \"\\@,;") || !ascii(domain) {
		return "has a domain that is not in ASCII form"
	}
	if !quoted(local) && strings.ContainsAny(local, "<> \"\\@,;:()[]") {
		return "has a local part that needs quotes"
	}
	return ""
}

// quoted reports whether a local part is one quoted string of RFC 5321, section 4.1.2.
func quoted(local string) bool {
	if len(local) < 2 || local[0] != '"' || local[len(local)-1] != '"' {
		return false
	}
	inner := local[1 : len(local)-1]
	for i := 0; i < len(inner); i++ {
		switch inner[i] {
		case '"':
			return false
		case '\\':
			i++
			if i == len(inner) {
				return false
			}
		}
	}
	return true
}
