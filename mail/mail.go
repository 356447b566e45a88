// Package mail holds what every other part of Postroom talks about: a message as a producer hands it in, what a batch
// shares, what a recipient has of their own, and the words for how an attempt ended.
//
// Values of this package are plain data. None of them is safe for concurrent change; all are safe for concurrent reading.
package mail

import (
	"fmt"
	"time"
)

// Kind says what a message is for. It decides its place in the order (alerts go first) and how long it is tried.
type Kind string

// The kinds, closed: a kind is a metric label and part of the names of Redis keys.
const (
	Alert        Kind = "alert"
	Report       Kind = "report"
	Subscription Kind = "subscription"
)

// Kinds lists every kind in the order in which they go out.
func Kinds() []Kind { return []Kind{Alert, Report, Subscription} }

// Valid reports whether k is one of Kinds.
func (k Kind) Valid() bool { return k == Alert || k == Report || k == Subscription }

// Address is a mailbox of RFC 5322, section 3.4: an addr-spec and an optional display name.
type Address struct {
	// Address is the addr-spec, such as "ada@example.com". The local part keeps its case (RFC 5321, section 2.4).
	Address string `json:"address"`
	// Name is the display name, as people read it (not encoded).
	Name string `json:"name,omitempty"`
}

// Message is one mail as a producer hands it in; POST /v1/messages has the same shape.
type Message struct {
	Kind Kind `json:"kind"`
	// From is the sender; the zero value stands for the active provider's own sender.
	From    Address   `json:"from,omitzero"`
	To      []Address `json:"to,omitempty"`
	Cc      []Address `json:"cc,omitempty"`
	Bcc     []Address `json:"bcc,omitempty"`
	ReplyTo []Address `json:"reply_to,omitempty"`
	Subject string    `json:"subject"`
	// Text and HTML are alternatives of each other; at least one is needed.
	Text        string       `json:"text,omitempty"`
	HTML        string       `json:"html,omitempty"`
	Attachments []Attachment `json:"attachments,omitempty"`
	// Headers are additional header fields, all named X-...; the rest is Postroom's to write.
	Headers map[string]string `json:"headers,omitempty"`
	// ListUnsubscribe is an https URI for one-click unsubscription (RFC 8058).
	ListUnsubscribe string `json:"list_unsubscribe,omitempty"`
	// SendAt delays the message; the zero value and the past mean now.
	SendAt time.Time `json:"send_at,omitzero"`
	// ExpiresAt ends a message that was not delivered by then; the zero value means never.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	// Metadata comes back with the message's state and never goes out.
	Metadata map[string]string `json:"metadata,omitempty"`
}

// Attachment is a file of a message, or an inline image if ContentID is set.
type Attachment struct {
	// Name is the file's name; it may be left out beside Ref, as what was stored has one.
	Name string `json:"name,omitempty"`
	// ContentType is a media type such as "application/pdf"; empty means: told from the name, or, beside Ref, that of what was stored.
	ContentType string `json:"content_type,omitempty"`
	// ContentID makes the attachment inline: the html refers to it as cid:ContentID. No angle brackets.
	ContentID string `json:"content_id,omitempty"`
	// Content is the file itself (base64 in JSON).
	Content []byte `json:"content,omitempty"`
	// Ref stands in the place of Content: the id of a file that was stored before, by POST /v1/contents.
	Ref string `json:"ref,omitempty"`
	// Size is the number of bytes behind Ref, as far as it is known where the message is checked.
	Size int64 `json:"-"`
}

// Batch is one message for many recipients, stored once.
type Batch struct {
	// Message has no To. "{{.name}}" in its Subject, Text and HTML is filled from each recipient's variables.
	Message    Message     `json:"message"`
	Recipients []Recipient `json:"recipients"`
}

// Recipient is what one message of a batch has of its own.
type Recipient struct {
	To []Address `json:"to"`
	// Variables fill the templates: strings, numbers and booleans.
	Variables map[string]any `json:"variables,omitempty"`
	// ListUnsubscribe replaces the message's.
	ListUnsubscribe string `json:"list_unsubscribe,omitempty"`
	// Attachments are files of their own, each by Ref; they come after the message's.
	Attachments []Attachment `json:"attachments,omitempty"`
}

// Class says how an attempt ended for a recipient. The set is closed; the zero value is the safe one.
type Class uint8

// The classes. What each leads to stands in ARCHITECTURE.md.
const (
	// Temporary: try again later. Everything nobody classified is temporary.
	Temporary Class = iota
	// Delivered: the provider took responsibility; a bounce may still follow.
	Delivered
	// Throttled: we are too fast.
	Throttled
	// Configuration: credentials, permission, address or TLS of the provider are wrong, or its mailbox is full or locked.
	Configuration
	// Permanent: this recipient or message will never be accepted.
	Permanent
	// Unknown: it may have been accepted, and nobody told us.
	Unknown
)

var classNames = [...]string{"temporary", "delivered", "throttled", "configuration", "permanent", "unknown"}

// Classes lists every class, for metrics that need initial values.
func Classes() []Class {
	return []Class{Temporary, Delivered, Throttled, Configuration, Permanent, Unknown}
}

// String gives the class's name as it stands in the API, logs and metrics.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return classNames[Temporary]
}

// ParseClass is the inverse of Class.String; an unknown name is an error and Temporary.
func ParseClass(name string) (Class, error) {
	for i, n := range classNames {
		if n == name {
			return Class(i), nil
		}
	}
	return Temporary, fmt.Errorf("mail: no class is named %q", name)
}

// Scope says how far an outcome reaches: what else would meet the same answer now.
type Scope uint8

// The scopes. The zero value reaches no further than the message.
const (
	ScopeMessage Scope = iota
	ScopeRecipient
	ScopeMailbox
	ScopeProvider
)

var scopeNames = [...]string{"message", "recipient", "mailbox", "provider"}

// String gives the scope's name as it stands in the API and logs.
func (s Scope) String() string {
	if int(s) < len(scopeNames) {
		return scopeNames[s]
	}
	return scopeNames[ScopeMessage]
}

// ParseScope is the inverse of Scope.String; an unknown name is an error and ScopeMessage.
func ParseScope(name string) (Scope, error) {
	for i, n := range scopeNames {
		if n == name {
			return Scope(i), nil
		}
	}
	return ScopeMessage, fmt.Errorf("mail: no scope is named %q", name)
}

// Outcome is what one attempt came to for one recipient.
type Outcome struct {
	Class Class
	Scope Scope
	// Cause says why, where class, scope, step and code do not tell enough; may be empty.
	Cause Cause
	// Step is where it was decided: "dial", "tls", "greeting", "ehlo", "auth", "mail", "rcpt", "data", "body", "render"; "token",
	// "send", "draft", "attachment", "upload", "verify".
	Step string
	// Code is the SMTP reply code or the HTTP status; 0 if there was no reply.
	Code int
	// Enhanced is the enhanced status code of RFC 3463 ("5.1.1") or the provider's error code; may be empty.
	Enhanced string
	// Reply is the provider's own words on one line, at most 400 bytes, or ours if it said nothing. It can name
	// recipients: it belongs into the message's record, never into a log or a metric.
	Reply string
	// RetryAfter is how long the provider asked us to be silent (Throttled); 0 if it did not say.
	RetryAfter time.Duration
}

// Outgoing is one message ready to be handed over: a batch's content with one recipient's variables filled in.
type Outgoing struct {
	// ID is the message's id (a ULID); Message-ID and boundaries derive from it.
	ID      string
	Kind    Kind
	From    Address
	To      []Address
	Cc      []Address
	Bcc     []Address
	ReplyTo []Address
	Subject string
	Text    string
	HTML    string
	Files   []*File
	Headers map[string]string
	// ListUnsubscribe is an https URI, or empty.
	ListUnsubscribe string
	// Date is when the message was accepted: the same on every attempt.
	Date time.Time
}

// Recipients gives every address of the envelope, To then Cc then Bcc. Outcomes line up with it.
func (m *Outgoing) Recipients() []Address {
	all := make([]Address, 0, len(m.To)+len(m.Cc)+len(m.Bcc))
	return append(append(append(all, m.To...), m.Cc...), m.Bcc...)
}
