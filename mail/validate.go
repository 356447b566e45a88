package mail

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits bound what is accepted. A field that is zero stands for its value in DefaultLimits.
type Limits struct {
	// MaxRecipients is the most addresses of one message: To, Cc and Bcc together.
	MaxRecipients int
	// MaxBytes is the largest message on the wire, after encoding. It is checked against an estimate that is rather too
	// high; providers check the true size.
	MaxBytes int64
	// MaxBatch is the most recipients of a batch.
	MaxBatch int
}

// DefaultLimits are those of Microsoft 365 and, for a batch, of common sense.
func DefaultLimits() Limits {
	return Limits{MaxRecipients: 500, MaxBytes: 35 << 20, MaxBatch: 1_000_000}
}

func (l Limits) orDefault() Limits {
	d := DefaultLimits()
	return Limits{
		MaxRecipients: cmp.Or(l.MaxRecipients, d.MaxRecipients),
		MaxBytes:      cmp.Or(l.MaxBytes, d.MaxBytes),
		MaxBatch:      cmp.Or(l.MaxBatch, d.MaxBatch),
	}
}

// What no setting changes: lengths are bytes of UTF-8 before encoding.
const (
	// maxSubject is the longest line of RFC 5322, section 2.1.1, which also holds for a value before it is folded.
	maxSubject       = 998
	maxHeaders       = 20
	maxHeaderValue   = 998
	maxReplyTo       = 20
	maxUnsubscribe   = 900
	maxMetadata      = 50
	maxMetadataValue = 1024
)

// Validate checks m against l and the formats, and brings it into canonical form: addresses as ParseAddress gives them, a
// recipient that is named twice kept in its first place (To, then Cc, then Bcc), the media type of each attachment filled
// in. The error is an *Invalid with every fault, and then m is as it was. The original's lists are not written to, so that
// messages may share them.
func (m *Message) Validate(l Limits, now time.Time) error {
	l = l.orDefault()
	var p problems
	checked := p.message(*m, l, now)
	n := len(checked.To) + len(checked.Cc) + len(checked.Bcc)
	switch {
	case len(m.To)+len(m.Cc)+len(m.Bcc) == 0:
		p.add("/to", "is empty: name at least one recipient in to, cc or bcc")
	case n > l.MaxRecipients:
		p.add("/to", tooManyRecipients(l))
	}
	if checked.encodedSize() > l.MaxBytes {
		p.add("", tooLarge(l))
	}
	if err := p.err(); err != nil {
		return err
	}
	*m = checked
	return nil
}

func tooManyRecipients(l Limits) string {
	return fmt.Sprintf("has, together with cc and bcc, more than %d recipients: split the message", l.MaxRecipients)
}

func tooLarge(l Limits) string {
	return fmt.Sprintf("is larger than %d bytes after encoding: send a link instead of large files", l.MaxBytes)
}

// message checks everything that a single message and a batch's message have in common. It gives the canonical form.
func (p *problems) message(m Message, l Limits, now time.Time) Message {
	if !m.Kind.Valid() {
		p.add("/kind", "is not one of alert, report and subscription")
	}
	if m.From != (Address{}) {
		from, fault := m.From.canonical()
		if fault != nil {
			p.add("/from"+fault.Field, fault.Reason)
		}
		m.From = from
	}
	seen := make(map[string]bool, min(len(m.To)+len(m.Cc)+len(m.Bcc), l.MaxRecipients))
	m.To = p.addresses("/to", m.To, seen)
	m.Cc = p.addresses("/cc", m.Cc, seen)
	m.Bcc = p.addresses("/bcc", m.Bcc, seen)
	if len(m.ReplyTo) > maxReplyTo {
		p.add("/reply_to", "has more than "+strconv.Itoa(maxReplyTo)+" addresses")
	}
	m.ReplyTo = p.addresses("/reply_to", m.ReplyTo, make(map[string]bool))

	if m.Text == "" && m.HTML == "" {
		p.add("/text", "is empty, and so is html: give at least one")
	}
	p.add("/subject", lineFault(m.Subject, maxSubject))
	p.add("/text", bodyFault(m.Text))
	p.add("/html", bodyFault(m.HTML))
	m.Attachments = p.attachments(m.Attachments, nil)
	p.headers(m.Headers)
	p.add("/list_unsubscribe", unsubscribeFault(m.ListUnsubscribe))
	p.metadata(m.Metadata)

	if !m.ExpiresAt.IsZero() {
		switch {
		case !m.ExpiresAt.After(now):
			p.add("/expires_at", "is not in the future")
		case !m.ExpiresAt.After(m.SendAt):
			p.add("/expires_at", "is not after send_at")
		}
	}
	return m
}

func (p *problems) headers(headers map[string]string) {
	if len(headers) > maxHeaders {
		p.add("/headers", "has more than "+strconv.Itoa(maxHeaders)+" entries")
	}
	// By lower-case name: header fields that differ in case only are the same field.
	seen := make(map[string]bool, len(headers))
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		lower := strings.ToLower(name)
		switch {
		case !isWord(name) || !strings.HasPrefix(lower, "x-") || lower == "x-":
			p.add(entry("/headers", name), "has a name that is not X- and up to 62 letters, digits, '-', '_' or '.'")
			continue
		case strings.HasPrefix(lower, "x-postroom-"):
			p.add(entry("/headers", name), "has a name that is reserved: use another")
			continue
		case seen[lower]:
			p.add(entry("/headers", name), "is there twice, in different case: remove one")
		}
		seen[lower] = true
		p.add(entry("/headers", name), lineFault(headers[name], maxHeaderValue))
	}
}

func (p *problems) metadata(metadata map[string]string) {
	if len(metadata) > maxMetadata {
		p.add("/metadata", "has more than "+strconv.Itoa(maxMetadata)+" entries")
	}
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		if key == "" {
			p.add("/metadata", "has an empty key: name it")
		}
		if reason := lineFault(key, maxWord); reason != "" {
			p.add("/metadata", "has a key that "+reason)
		}
		p.add(entry("/metadata", key), lineFault(metadata[key], maxMetadataValue))
	}
}

// unsubscribeFault says why s cannot stand in List-Unsubscribe (RFC 8058, section 3.1). Empty is fine: there is none.
func unsubscribeFault(s string) string {
	if s == "" {
		return ""
	}
	if len(s) > maxUnsubscribe {
		return "is longer than " + strconv.Itoa(maxUnsubscribe) + " bytes"
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '<' || c == '>' || c == '"' || c == '\\' {
			return "has a character that a URI cannot have: percent-encode it"
		}
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return "is not an https URI with a host, such as https://example.com/unsubscribe?u=1"
	}
	return ""
}

// perPart is what a file's header fields and boundary take, rather too much.
const perPart = 512

// encodedSize estimates the message on the wire, rather too high than too low.
func (m *Message) encodedSize() int64 {
	const fields = 2048
	size := int64(fields)
	for _, list := range [][]Address{m.To, m.Cc, m.ReplyTo} {
		for _, a := range list {
			size += int64(len(a.Address) + 2*len(a.Name) + 32)
		}
	}
	for name, value := range m.Headers {
		size += int64(len(name) + 3*len(value))
	}
	for _, a := range m.Attachments {
		size += perPart + base64Size(a.size())
	}
	return size + quotedSize(m.Text) + quotedSize(m.HTML)
}

// base64Size is the length of n bytes in lines of 76 characters.
func base64Size(n int64) int64 {
	const raw = lineLength / 4 * 3
	lines := (n + raw - 1) / raw
	return lines * (lineLength + 2)
}

// quotedSize is about the length of s as quoted-printable.
func quotedSize(s string) int64 {
	n := len(s)
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\n':
			n++
		case c < ' ' && c != '\r', c > '~', c == '=':
			n += 2
		}
	}
	const line, softBreak = 72, 3
	return int64(n + n/line*softBreak)
}
