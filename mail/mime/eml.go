package mime

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	netmail "net/mail"
	"net/textproto"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/postroom/postroom/mail"
	"golang.org/x/text/encoding/htmlindex"
)

const (
	// maxEML is the largest file that ParseEML reads, in bytes.
	maxEML = 48 << 20
	// maxDepth and maxParts bound the multiparts of one.
	maxDepth = 10
	maxParts = 500
)

// ParseEML reads a message of RFC 5322, such as an .eml file: its addresses, subject, texts, files, X- headers and the
// https URI of List-Unsubscribe. Other headers are left out; Message-ID and Date are ours to write. Texts are converted to
// UTF-8, files are kept as they are, and an image is inline if the html refers to it. The caller gives the message its
// kind and validates it. Errors do not quote the file.
func ParseEML(r io.Reader) (*mail.Message, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxEML+1))
	if err != nil {
		return nil, fmt.Errorf("mime: read the message: %w", err)
	}
	if len(raw) > maxEML {
		return nil, fmt.Errorf("mime: the message is larger than %d bytes", maxEML)
	}
	parsed, err := netmail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return nil, errors.New("mime: the header of the message is malformed")
	}
	e := eml{words: &mime.WordDecoder{CharsetReader: charsetReader}}
	header := textproto.MIMEHeader(parsed.Header)
	if err := e.header(header); err != nil {
		return nil, err
	}
	if err := e.part(header, parsed.Body, 0); err != nil {
		return nil, err
	}
	e.inline()
	return &e.message, nil
}

// eml is a message being read.
type eml struct {
	message mail.Message
	words   *mime.WordDecoder
	parts   int
}

func (e *eml) header(h textproto.MIMEHeader) error {
	m := &e.message
	for _, f := range []struct {
		name string
		list *[]mail.Address
	}{{"To", &m.To}, {"Cc", &m.Cc}, {"Bcc", &m.Bcc}, {"Reply-To", &m.ReplyTo}} {
		list, err := e.addresses(h, f.name)
		if err != nil {
			return err
		}
		*f.list = list
	}
	from, err := e.addresses(h, "From")
	if err != nil {
		return err
	}
	if len(from) > 0 {
		m.From = from[0]
	}
	m.Subject = e.decode(h.Get("Subject"))
	m.ListUnsubscribe = httpsURI(h.Get("List-Unsubscribe"))
	for name, values := range h {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-") && !strings.HasPrefix(lower, "x-postroom-") {
			if m.Headers == nil {
				m.Headers = make(map[string]string)
			}
			m.Headers[name] = e.decode(values[0])
		}
	}
	return nil
}

// addresses gives the addresses of all fields with this name; groups are taken apart.
func (e *eml) addresses(h textproto.MIMEHeader, name string) ([]mail.Address, error) {
	parser := netmail.AddressParser{WordDecoder: e.words}
	var out []mail.Address
	for _, value := range h[name] {
		if strings.TrimSpace(value) == "" {
			continue
		}
		list, err := parser.ParseList(value)
		if err != nil {
			return nil, fmt.Errorf("mime: %s is not a list of addresses", name)
		}
		for _, a := range list {
			// The parser took the quotes off the local part; String puts them back where they are needed.
			spec, err := mail.ParseAddress((&netmail.Address{Address: a.Address}).String())
			if err != nil {
				return nil, fmt.Errorf("mime: %s: %w", name, err)
			}
			out = append(out, mail.Address{Address: spec.Address, Name: clean(a.Name)})
		}
	}
	return out, nil
}

// decode gives the text of an unstructured field.
func (e *eml) decode(value string) string {
	if decoded, err := e.words.DecodeHeader(value); err == nil {
		value = decoded
	}
	return clean(value)
}

// clean replaces what encoded words can smuggle in.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	return strings.TrimSpace(s)
}

// httpsURI gives the first https URI of a List-Unsubscribe field (RFC 2369, section 2).
func httpsURI(value string) string {
	for {
		_, rest, ok := strings.Cut(value, "<")
		if !ok {
			return ""
		}
		uri, after, ok := strings.Cut(rest, ">")
		if !ok {
			return ""
		}
		if uri = strings.TrimSpace(uri); strings.HasPrefix(strings.ToLower(uri), "https://") {
			return uri
		}
		value = after
	}
}

// part reads the message's body or a part of it.
func (e *eml) part(h textproto.MIMEHeader, body io.Reader, depth int) error {
	if e.parts++; e.parts > maxParts || depth > maxDepth {
		return errors.New("mime: the message has too many parts")
	}
	// What cannot be read is text (RFC 2045, section 5.2).
	mediaType, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil || !strings.Contains(mediaType, "/") {
		mediaType, params = "text/plain", nil
	}
	if strings.HasPrefix(mediaType, "multipart/") {
		return e.multipart(multipart.NewReader(body, params["boundary"]), depth)
	}
	data, err := transferDecoded(h.Get("Content-Transfer-Encoding"), body)
	if err != nil {
		return err
	}
	disposition, dispositionParams, err := mime.ParseMediaType(h.Get("Content-Disposition"))
	if err != nil {
		dispositionParams = nil
	}
	name := dispositionParams["filename"]
	if name == "" {
		name = params["name"]
	}
	var text *string
	if disposition != "attachment" && name == "" {
		switch mediaType {
		case "text/plain":
			text = &e.message.Text
		case "text/html":
			text = &e.message.HTML
		}
	}
	if text != nil && *text == "" {
		*text, err = toUTF8(params["charset"], data)
		return err
	}
	e.attach(mediaType, params, e.decode(name), h.Get("Content-Id"), data)
	return nil
}

func (e *eml) multipart(parts *multipart.Reader, depth int) error {
	for {
		// Raw, for the standard library would decode one of the encodings and not the others.
		p, err := parts.NextRawPart()
		// Not errors.Is: an end where none should be wraps io.EOF.
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return errors.New("mime: a multipart of the message is malformed or cut off")
		}
		if err := e.part(p.Header, p, depth+1); err != nil {
			return err
		}
	}
}

// attach adds a file.
func (e *eml) attach(mediaType string, params map[string]string, name, id string, data []byte) {
	delete(params, "name")
	contentType := mime.FormatMediaType(mediaType, params)
	if contentType == "" || strings.HasPrefix(mediaType, "message/") {
		contentType = "application/octet-stream"
	}
	e.message.Attachments = append(e.message.Attachments, mail.Attachment{
		Name:        e.fileName(name, mediaType),
		ContentType: contentType,
		ContentID:   strings.Trim(strings.TrimSpace(id), "<>"),
		Content:     data,
	})
}

// suffixes name parts that have no name.
var suffixes = map[string]string{
	"image/gif":      ".gif",
	"image/jpeg":     ".jpg",
	"image/png":      ".png",
	"message/rfc822": ".eml",
	"text/calendar":  ".ics",
	"text/html":      ".html",
	"text/plain":     ".txt",
}

// fileName makes a name that Validate takes.
func (e *eml) fileName(name, mediaType string) string {
	const longest = 255
	name = strings.NewReplacer("/", "_", `\`, "_").Replace(name)
	for len(name) > longest {
		_, size := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-size]
	}
	if name == "" {
		name = "part-" + strconv.Itoa(e.parts) + suffixes[mediaType]
	}
	return name
}

// inline takes the content id from every file that the html does not show, or that another has taken.
func (e *eml) inline() {
	seen := make(map[string]bool)
	for i := range e.message.Attachments {
		a := &e.message.Attachments[i]
		if a.ContentID == "" {
			continue
		}
		if seen[a.ContentID] || !strings.Contains(e.message.HTML, "cid:"+a.ContentID) {
			a.ContentID = ""
		}
		seen[a.ContentID] = true
	}
}

// transferDecoded undoes the transfer encoding of a part (RFC 2045, section 6).
func transferDecoded(encoding string, body io.Reader) ([]byte, error) {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "", "7bit", "8bit", "binary":
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, noBlanks{body})
	default:
		return nil, errors.New("mime: a part of the message has an unknown transfer encoding")
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, errors.New("mime: a part of the message is malformed or cut off")
	}
	return data, nil
}

// noBlanks drops the spaces and tabs that some programs write into base64.
type noBlanks struct{ r io.Reader }

func (n noBlanks) Read(p []byte) (int, error) {
	k, err := n.r.Read(p)
	kept := p[:0]
	for _, c := range p[:k] {
		if !isBlank(c) {
			kept = append(kept, c)
		}
	}
	return len(kept), err
}

// toUTF8 converts text from the charset it was labelled with.
func toUTF8(charset string, text []byte) (string, error) {
	switch strings.ToLower(charset) {
	case "", "us-ascii", "utf-8":
		if utf8.Valid(text) {
			return string(text), nil
		}
		if charset == "" {
			charset = "us-ascii"
		}
	}
	// The names of the WHATWG: us-ascii and iso-8859-1 mean windows-1252, as they do in practice.
	enc, err := htmlindex.Get(charset)
	if err != nil {
		return "", errors.New("mime: a text of the message has an unknown charset")
	}
	converted, err := enc.NewDecoder().Bytes(text)
	if err != nil {
		return "", errors.New("mime: a text of the message is not in the charset it names")
	}
	return strings.ToValidUTF8(string(converted), "\uFFFD"), nil
}

func charsetReader(charset string, r io.Reader) (io.Reader, error) {
	enc, err := htmlindex.Get(charset)
	if err != nil {
		return nil, err
	}
	return enc.NewDecoder().Reader(r), nil
}
