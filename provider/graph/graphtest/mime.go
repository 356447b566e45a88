package graphtest

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/http"
	netmail "net/mail"
	"net/textproto"
	"slices"
	"strings"

	"github.com/postroom/postroom/mail"
)

// Bounds of taking a message apart.
const (
	maxDepth = 10
	maxParts = 500
)

var (
	errTooDeep      = errors.New("graphtest: parts are nested too deeply")
	errTooManyParts = errors.New("graphtest: too many parts")
)

// readMIME reads the body of a request in MIME form: "MIME content as a base64-encoded string"
// (https://learn.microsoft.com/graph/outlook-send-mime-message).
func readMIME(body []byte) (*Message, *fault) {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(body)))
	if err != nil || len(raw) == 0 {
		return nil, refuse(http.StatusBadRequest, "ErrorMimeContentInvalidBase64String", "Invalid base64 string for MIME content.")
	}
	m, err := parseMIME(raw)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "ErrorMimeContentInvalid", "The MIME content is invalid.")
	}
	return m, nil
}

// parseMIME takes a message apart.
func parseMIME(raw []byte) (*Message, error) {
	parsed, err := netmail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	h := parsed.Header
	m := &Message{Raw: raw, Subject: decoded(h.Get("Subject")), MessageID: h.Get("Message-Id")}
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[name] {
			m.Headers = append(m.Headers, Header{name, value})
		}
	}
	for _, list := range []struct {
		name string
		to   *[]mail.Address
	}{{"To", &m.To}, {"Cc", &m.Cc}, {"Bcc", &m.Bcc}, {"Reply-To", &m.ReplyTo}} {
		if *list.to, err = addresses(h, list.name); err != nil {
			return nil, err
		}
	}
	for _, one := range []struct {
		name string
		to   *mail.Address
	}{{"From", &m.From}, {"Sender", &m.Sender}} {
		list, err := addresses(h, one.name)
		if err != nil || len(list) > 1 {
			return nil, errors.Join(err, errors.New("graphtest: "+one.name))
		}
		if len(list) == 1 {
			*one.to = list[0]
		}
	}
	parts := 0
	return m, m.part(textproto.MIMEHeader(h), parsed.Body, 0, &parts)
}

// addresses reads a header field that need not be there.
func addresses(h netmail.Header, name string) ([]mail.Address, error) {
	list, err := h.AddressList(name)
	if errors.Is(err, netmail.ErrHeaderNotPresent) {
		return nil, nil
	}
	var all []mail.Address
	for _, a := range list {
		all = append(all, mail.Address{Address: a.Address, Name: a.Name})
	}
	return all, err
}

// decoded reads the encoded words of a header field (RFC 2047).
func decoded(field string) string {
	text, err := new(mime.WordDecoder).DecodeHeader(field)
	if err != nil {
		return field
	}
	return text
}

func (m *Message) part(header textproto.MIMEHeader, body io.Reader, depth int, parts *int) error {
	if *parts++; *parts > maxParts {
		return errTooManyParts
	}
	mediaType, params, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		mediaType = "text/plain"
	}
	if !strings.HasPrefix(mediaType, "multipart/") {
		return m.leaf(header, mediaType, params["name"], body)
	}
	if depth == maxDepth {
		return errTooDeep
	}
	for r := multipart.NewReader(body, params["boundary"]); ; {
		p, err := r.NextRawPart()
		if err == io.EOF { // Wrapped, it says that the last boundary is missing.
			return nil
		}
		if err != nil {
			return err
		}
		if err := m.part(p.Header, p, depth+1, parts); err != nil {
			return err
		}
	}
}

// leaf keeps a part: the first text and the first HTML as such, all else as files.
func (m *Message) leaf(header textproto.MIMEHeader, mediaType, name string, body io.Reader) error {
	switch strings.ToLower(strings.TrimSpace(header.Get("Content-Transfer-Encoding"))) {
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	disposition, params, _ := mime.ParseMediaType(header.Get("Content-Disposition"))
	if params["filename"] != "" {
		name = params["filename"]
	}
	if disposition != "attachment" && name == "" {
		switch {
		case mediaType == "text/plain" && m.Text == "":
			m.Text = string(data)
			return nil
		case mediaType == "text/html" && m.HTML == "":
			m.HTML = string(data)
			return nil
		}
	}
	id := strings.Trim(header.Get("Content-Id"), "<> ")
	m.Files = append(m.Files, newFile(decoded(name), mediaType, id, disposition == "inline" || disposition == "" && id != "", data))
	return nil
}
