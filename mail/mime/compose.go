package mime

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/postroom/postroom/mail"
)

// Compose renders m. It depends on nothing but m: two renderings of a message are the same byte for byte.
//
// Bcc is never written. Texts get CRLF at the end of each line, the last included; files stay as they are. Whatever could
// end a header field early is an error, also if m never passed Validate.
func Compose(m *mail.Outgoing) (*Message, error) {
	if err := check(m); err != nil {
		return nil, err
	}
	// Room for the header and for texts that need little encoding, so that the buffer seldom grows.
	const header = 1024
	c := composer{id: m.ID}
	c.buf = make([]byte, 0, header+len(m.Text)+len(m.Text)/16+len(m.HTML)+len(m.HTML)/16+len(m.Files)*header/2)
	c.header(m)
	c.body(m)
	return c.message(), nil
}

// composer is a message in the making.
type composer struct {
	fields
	id    string
	files []cut
	// levels counts the multiparts, for their boundaries.
	levels byte
}

// cut is a place in the buffer where a file belongs.
type cut struct {
	at    int
	bytes []byte
}

func (c *composer) message() *Message {
	m := &Message{utf8: c.utf8, segments: make([][]byte, 0, 1+2*len(c.files))}
	at := 0
	for _, f := range c.files {
		m.segments = append(m.segments, c.buf[at:f.at], f.bytes)
		at = f.at
	}
	m.segments = append(m.segments, c.buf[at:])
	for _, s := range m.segments {
		m.size += int64(len(s))
	}
	return m
}

// dateLayout is RFC 5322, section 3.3.
const dateLayout = "Mon, 02 Jan 2006 15:04:05 -0700"

func (c *composer) header(m *mail.Outgoing) {
	c.addresses("From", []mail.Address{m.From})
	if len(m.To) > 0 {
		c.addresses("To", m.To)
	} else {
		c.line("To", "undisclosed-recipients:;")
	}
	c.addresses("Cc", m.Cc)
	c.addresses("Reply-To", m.ReplyTo)
	c.text("Subject", m.Subject)
	c.begin("Date")
	c.buf = m.Date.UTC().AppendFormat(append(c.buf, ' '), dateLayout)
	c.end()
	c.line("Message-ID", "<"+strings.ToLower(m.ID)+"@"+m.From.Domain()+">")
	// RFC 3834, section 5.1: all that we send was made by a program and answers nobody, subscriptions too.
	c.line("Auto-Submitted", "auto-generated")
	if m.ListUnsubscribe != "" {
		// RFC 8058, section 3.1.
		c.line("List-Unsubscribe", "<"+m.ListUnsubscribe+">")
		c.line("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")
	}
	if len(m.Headers) > 0 {
		for _, name := range slices.Sorted(maps.Keys(m.Headers)) {
			c.text(name, m.Headers[name])
		}
	}
	c.line("MIME-Version", "1.0")
}

// body writes multipart/mixed around the texts if there are attachments. An inline image is one if there is no html to
// show it.
func (c *composer) body(m *mail.Outgoing) {
	attached := func(f *mail.File) bool { return f.ContentID == "" || m.HTML == "" }
	if !slices.ContainsFunc(m.Files, attached) {
		c.texts(m)
		return
	}
	mixed := c.open("mixed", "")
	c.next(mixed)
	c.texts(m)
	for _, f := range m.Files {
		if attached(f) {
			c.next(mixed)
			c.file(f, "attachment")
		}
	}
	c.close(mixed)
}

// texts writes text and html as alternatives of each other, the better one last (RFC 2046, section 5.1.4).
func (c *composer) texts(m *mail.Outgoing) {
	switch {
	case m.HTML == "":
		c.part("text/plain", m.Text)
	case m.Text == "":
		c.html(m)
	default:
		alternative := c.open("alternative", "")
		c.next(alternative)
		c.part("text/plain", m.Text)
		c.next(alternative)
		c.html(m)
		c.close(alternative)
	}
}

// html writes the html together with the images it shows (RFC 2387).
func (c *composer) html(m *mail.Outgoing) {
	inline := func(f *mail.File) bool { return f.ContentID != "" }
	if !slices.ContainsFunc(m.Files, inline) {
		c.part("text/html", m.HTML)
		return
	}
	related := c.open("related", "text/html")
	c.next(related)
	c.part("text/html", m.HTML)
	for _, f := range m.Files {
		if inline(f) {
			c.next(related)
			c.file(f, "inline")
		}
	}
	c.close(related)
}

// open begins a multipart and gives its number. Root is the type of the first part, if it must be said.
func (c *composer) open(subtype, root string) byte {
	c.levels++
	c.begin("Content-Type")
	c.word("multipart/" + subtype)
	if root != "" {
		c.param("type", root)
	}
	c.param("boundary", boundaryPrefix+c.id+"-"+string('0'+rune(c.levels)))
	// The line break before the first boundary is the empty line after the header.
	c.end()
	return c.levels
}

// next begins a part.
func (c *composer) next(multipart byte) {
	c.delimit(multipart)
	c.end()
}

func (c *composer) close(multipart byte) {
	c.delimit(multipart)
	c.buf = append(c.buf, "--\r\n"...)
}

// delimit writes a boundary. The line break before it belongs to it and not to the part that it ends.
func (c *composer) delimit(multipart byte) {
	c.buf = append(c.buf, "\r\n--"+boundaryPrefix...)
	c.buf = append(c.buf, c.id...)
	c.buf = append(c.buf, '-', '0'+multipart)
}

// part writes a text.
func (c *composer) part(mediaType, text string) {
	c.line("Content-Type", mediaType+"; charset=utf-8")
	if isSevenBit(text) {
		c.line("Content-Transfer-Encoding", "7bit")
		c.end()
		c.buf = appendLines(c.buf, text)
		return
	}
	c.line("Content-Transfer-Encoding", "quoted-printable")
	c.end()
	c.buf = appendQuoted(c.buf, text)
}

func (c *composer) file(f *mail.File, disposition string) {
	c.begin("Content-Type")
	c.words(f.ContentType)
	c.end()
	c.line("Content-Transfer-Encoding", "base64")
	c.begin("Content-Disposition")
	c.word(disposition)
	c.param("filename", f.Name)
	c.end()
	if f.ContentID != "" {
		c.line("Content-ID", "<"+f.ContentID+">")
	}
	c.end()
	c.files = append(c.files, cut{len(c.buf), f.Base64()})
}

// check refuses what would break the message. It is the last line of defence: what passed Validate passes here.
func check(m *mail.Outgoing) error {
	if !isID(m.ID) {
		return errors.New("mime: the id is not 1 to 64 letters and digits")
	}
	if m.From.Domain() == "" {
		return errors.New("mime: the sender's address has no domain")
	}
	safe := func(what string, most int, values ...string) error {
		for _, v := range values {
			if len(v) > most || strings.ContainsFunc(v, isControl) {
				return fmt.Errorf("mime: %s is too long or has a control character", what)
			}
		}
		return nil
	}
	if err := safe("the sender", longWord, m.From.Address, m.From.Name); err != nil {
		return err
	}
	for _, list := range [][]mail.Address{m.To, m.Cc, m.ReplyTo} {
		for _, a := range list {
			if err := safe("an address", longWord, a.Address, a.Name); err != nil {
				return err
			}
		}
	}
	if err := safe("the subject", maxValue, m.Subject); err != nil {
		return err
	}
	if err := safe("list_unsubscribe", longWord, m.ListUnsubscribe); err != nil {
		return err
	}
	for name, value := range m.Headers {
		if !isFieldName(name) {
			return errors.New("mime: a header's name is not X- and letters, digits and signs")
		}
		if err := safe("a header", maxValue, value); err != nil {
			return err
		}
	}
	for _, f := range m.Files {
		if err := safe("a file's name, type or content id", longWord, f.Name, f.ContentType, f.ContentID); err != nil {
			return err
		}
	}
	return nil
}

// maxValue is the longest subject or header value, which are folded; the others must fit in one line of 998 octets, see
// longWord.
const maxValue = 998

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

func isID(s string) bool {
	for i := range len(s) {
		if !isAlphanumeric(s[i]) {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

func isFieldName(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' || s[i] == ':' {
			return false
		}
	}
	return len(s) > 2 && len(s) <= 64 && (s[0] == 'X' || s[0] == 'x') && s[1] == '-'
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}
