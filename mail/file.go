package mail

import (
	"encoding/base64"
	"sync"
)

// File is an attachment or inline image as senders need it: shared by every message of a batch and encoded once for all
// of them. Safe for concurrent use; its bytes must not change.
type File struct {
	Name        string
	ContentType string
	// ContentID is set for inline images, without angle brackets.
	ContentID string
	Bytes     []byte

	of      *File // has the bytes, under another name
	encode  sync.Once
	encoded []byte
}

// As gives the same file under another name, type and content id. It shares the bytes, and what Base64 makes of them.
func (f *File) As(name, contentType, contentID string) *File {
	return &File{Name: name, ContentType: contentType, ContentID: contentID, Bytes: f.Bytes, of: f}
}

// lineLength is the longest line of base64 that RFC 2045, section 6.8, allows.
const lineLength = 76

// Base64 gives the file in lines of 76 characters, each ended by CRLF (RFC 2045, section 6.8). The result is shared: it
// must not be changed.
func (f *File) Base64() []byte {
	if f.of != nil {
		return f.of.Base64()
	}
	f.encode.Do(func() {
		const raw = lineLength / 4 * 3
		lines := (len(f.Bytes) + raw - 1) / raw
		out := make([]byte, 0, base64.StdEncoding.EncodedLen(len(f.Bytes))+2*lines)
		for rest := f.Bytes; len(rest) > 0; {
			n := min(raw, len(rest))
			out = base64.StdEncoding.AppendEncode(out, rest[:n])
			out = append(out, '\r', '\n')
			rest = rest[n:]
		}
		f.encoded = out
	})
	return f.encoded
}
