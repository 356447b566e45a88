package smtptest

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"strings"
)

// content is a message taken apart for showing.
type content struct {
	Text, HTML string
	Files      []*file
	// Fault says why the message could not be read to its end; what came before is there.
	Fault string
}

// file is an attachment or inline image.
type file struct {
	Index                               int
	Name, Type, ContentID, SHA256, Size string
	data                                []byte
}

// Bounds of taking a message apart.
const (
	maxDepth = 10
	maxParts = 200
	// maxInline is the largest image that is put into the HTML that refers to it.
	maxInline = 2 << 20
	// maxUses is how often one image may stand in the HTML.
	maxUses = 10
)

var (
	errTooDeep      = errors.New("its parts are nested too deeply")
	errTooManyParts = errors.New("it has too many parts")
)

// readHeader gives the header of a message, empty if it has none that can be read.
func readHeader(raw []byte) mail.Header {
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return mail.Header{}
	}
	return m.Header
}

// decoded reads the encoded words of a header field (RFC 2047).
func decoded(field string) string {
	text, err := new(mime.WordDecoder).DecodeHeader(field)
	if err != nil {
		return field
	}
	return text
}

// readContent takes a message apart as far as it can.
func readContent(raw []byte) *content {
	c := &content{}
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		c.Fault = err.Error()
		return c
	}
	parts := 0
	if err := c.part(textproto.MIMEHeader(m.Header), m.Body, 0, &parts); err != nil {
		c.Fault = err.Error()
	}
	c.inline()
	return c
}

func (c *content) part(header textproto.MIMEHeader, body io.Reader, depth int, parts *int) error {
	if *parts++; *parts > maxParts {
		return errTooManyParts
	}
	mediaType, params, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		mediaType = "text/plain"
	}
	if strings.HasPrefix(mediaType, "multipart/") {
		if depth == maxDepth {
			return errTooDeep
		}
		for r := multipart.NewReader(body, params["boundary"]); ; {
			p, err := r.NextRawPart()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if err := c.part(p.Header, p, depth+1, parts); err != nil {
				return err
			}
		}
	}
	data, err := io.ReadAll(decoder(header.Get("Content-Transfer-Encoding"), body))
	c.add(header, mediaType, params["name"], data)
	return err
}

func decoder(encoding string, r io.Reader) io.Reader {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "base64":
		return base64.NewDecoder(base64.StdEncoding, r)
	case "quoted-printable":
		return quotedprintable.NewReader(r)
	}
	return r
}

// add keeps a leaf: the first text and the first HTML to show, all else as files.
func (c *content) add(header textproto.MIMEHeader, mediaType, name string, data []byte) {
	disposition, params, _ := mime.ParseMediaType(header.Get("Content-Disposition"))
	if params["filename"] != "" {
		name = params["filename"]
	}
	if disposition != "attachment" && name == "" {
		switch {
		case mediaType == "text/plain" && c.Text == "":
			c.Text = shown(data)
			return
		case mediaType == "text/html" && c.HTML == "":
			c.HTML = shown(data)
			return
		}
	}
	sum := sha256.Sum256(data)
	f := &file{
		Index:     len(c.Files),
		Name:      decoded(name),
		Type:      mediaType,
		ContentID: strings.Trim(header.Get("Content-Id"), "<> "),
		SHA256:    hex.EncodeToString(sum[:]),
		Size:      bytesText(len(data)),
		data:      data,
	}
	if f.Name == "" {
		f.Name = "unnamed"
	}
	c.Files = append(c.Files, f)
}

// inline puts inline images into the HTML: a sandboxed frame can fetch nothing.
func (c *content) inline() {
	for _, f := range c.Files {
		ref := "cid:" + f.ContentID
		if f.ContentID == "" || len(f.data) > maxInline || !strings.HasPrefix(f.Type, "image/") || !strings.Contains(c.HTML, ref) {
			continue
		}
		c.HTML = strings.Replace(c.HTML, ref, "data:"+f.Type+";base64,"+base64.StdEncoding.EncodeToString(f.data), maxUses)
	}
}
