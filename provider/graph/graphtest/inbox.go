package graphtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postroom/postroom/mail"
)

// Form says how a message was handed over.
type Form string

// The forms.
const (
	FormJSON  Form = "json"
	FormMIME  Form = "mime"
	FormDraft Form = "draft"
)

// Message is one that was accepted for sending. It must not be changed.
type Message struct {
	// ID counts the messages from 1.
	ID uint64
	// Mailbox, in lower case, is the one that sent it, and App the client id of who had it do so.
	Mailbox, App string
	Form         Form
	Time         time.Time

	// From is the mailbox if the message did not say; Sender may be empty.
	From, Sender         mail.Address
	To, Cc, Bcc, ReplyTo []mail.Address
	Subject              string
	Text, HTML           string
	Files                []*File
	// MessageID is the internetMessageId or Message-ID; made by the tenant if the message had none.
	MessageID string
	// Headers are internetMessageHeaders, or all header fields of a message in MIME form, by name.
	Headers []Header
	// Properties are singleValueExtendedProperties, by id.
	Properties []Header
	// Raw is the message in MIME form; nil for other forms.
	Raw []byte
	// Saved is set if a copy is, or will be, in Sent Items.
	Saved bool
}

// Header is a header field, or an extended property.
type Header struct{ Name, Value string }

// File is an attachment or inline image.
type File struct {
	Name, ContentType, ContentID string
	Inline                       bool
	Content                      []byte
	Size                         int64
	// SHA256 is in hexadecimal.
	SHA256 string
}

func newFile(name, contentType, contentID string, inline bool, content []byte) *File {
	sum := sha256.Sum256(content)
	return &File{Name: name, ContentType: contentType, ContentID: contentID, Inline: inline, Content: content,
		Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}
}

// Header gives the first header field or extended property of that name; empty if there is none.
func (m *Message) Header(name string) string {
	for _, h := range slices.Concat(m.Headers, m.Properties) {
		if strings.EqualFold(h.Name, name) {
			return h.Value
		}
	}
	return ""
}

// kept is how much of a message's size is kept in memory.
func (m *Message) kept() int64 {
	n := int64(len(m.Raw) + len(m.Text) + len(m.HTML))
	for _, f := range m.Files {
		n += int64(len(f.Content))
	}
	return n
}

// inbox keeps what was sent, the oldest first.
type inbox struct {
	maxMessages int
	maxBytes    int64

	messages []*Message
	bytes    int64
	received uint64
	changed  chan struct{} // closed at the next message; nil if nobody waits
}

func (b *inbox) keep(m *Message) {
	b.received++
	m.ID = b.received
	b.messages = append(b.messages, m)
	b.bytes += m.kept()
	for len(b.messages) > b.maxMessages || b.bytes > b.maxBytes && len(b.messages) > 1 {
		b.bytes -= b.messages[0].kept()
		b.messages[0] = nil
		b.messages = b.messages[1:]
	}
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

// Received is the number of messages accepted so far, those no longer kept included.
func (t *Tenant) Received() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return int(t.inbox.received)
}

// Messages gives what is kept, the oldest first.
func (t *Tenant) Messages() []*Message {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.inbox.messages)
}

// WaitFor returns when n messages have been accepted in all, or with ctx's error.
func (t *Tenant) WaitFor(ctx context.Context, n int) error {
	for {
		t.mu.Lock()
		if t.inbox.received >= uint64(max(n, 0)) {
			t.mu.Unlock()
			return nil
		}
		if t.inbox.changed == nil {
			t.inbox.changed = make(chan struct{})
		}
		changed, received := t.inbox.changed, t.inbox.received
		t.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("graphtest: %d of %d messages came: %w", received, n, ctx.Err())
		}
	}
}
