// Package mime renders messages as RFC 5322 and MIME, and reads .eml files.
package mime

import "io"

// Message is a rendered message. It is held in segments, so that the encoded bytes of a file are those of every message
// that has it, and is safe for concurrent use.
type Message struct {
	segments [][]byte
	size     int64
	utf8     bool
}

// Size is the number of bytes on the wire, without dot-stuffing and the final dot.
func (m *Message) Size() int64 { return m.size }

// UTF8 reports whether the header has an address that is not ASCII, so that the message can only be handed over with
// SMTPUTF8 (RFC 6531). Otherwise all of it is 7-bit.
func (m *Message) UTF8() bool { return m.utf8 }

// WriteTo writes the message, whose lines all end in CRLF.
func (m *Message) WriteTo(w io.Writer) (int64, error) {
	var written int64
	for _, s := range m.segments {
		n, err := w.Write(s)
		written += int64(n)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}
