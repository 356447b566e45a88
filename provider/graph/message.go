package graph

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/postroom/postroom/mail"
)

// Ids of extended properties (MAPI). List-Unsubscribe is a property, because internetMessageHeaders takes names that begin
// with "x-" only. A draft carries our message's id in a named property of our own.
const (
	listUnsubscribe = "String 0x1045" // PidTagListUnsubscribe
	ourID           = "String {6d3f24f5-6b0c-4a7e-9d2a-1f6f0f3a9b57} Name PostroomID"
)

// maxHeaders is how many internetMessageHeaders Graph takes.
const maxHeaders = 5

// The resource types of Graph v1.0 that we write.
type (
	message struct {
		Subject    string      `json:"subject"`
		Body       itemBody    `json:"body"`
		From       recipient   `json:"from"`
		To         []recipient `json:"toRecipients,omitempty"`
		Cc         []recipient `json:"ccRecipients,omitempty"`
		Bcc        []recipient `json:"bccRecipients,omitempty"`
		ReplyTo    []recipient `json:"replyTo,omitempty"`
		Headers    []header    `json:"internetMessageHeaders,omitempty"` // an empty array is refused
		Properties []property  `json:"singleValueExtendedProperties,omitempty"`
		Files      []file      `json:"attachments,omitempty"`
	}
	itemBody struct {
		ContentType string `json:"contentType"`
		Content     string `json:"content"`
	}
	recipient struct {
		EmailAddress emailAddress `json:"emailAddress"`
	}
	emailAddress struct {
		Name    string `json:"name,omitempty"`
		Address string `json:"address"`
	}
	header struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	property struct {
		ID    string `json:"id"`
		Value string `json:"value"`
	}
	file struct {
		Type        string `json:"@odata.type"`
		Name        string `json:"name"`
		ContentType string `json:"contentType,omitempty"`
		ContentID   string `json:"contentId,omitempty"`
		Inline      bool   `json:"isInline,omitempty"`
		Bytes       []byte `json:"contentBytes"`
	}
)

// sendMail is the body of POST /users/{mailbox}/sendMail.
type sendMail struct {
	Message message `json:"message"`
	// SaveToSentItems is always there: left out, Graph saves.
	SaveToSentItems bool `json:"saveToSentItems"`
}

// newMessage writes a message for those who are offered, without files. Graph has one body: with both, the html goes, and
// Exchange makes a text of it. What Graph does not take is an error that says so.
func newMessage(m *mail.Outgoing, offered []mail.Address) (message, error) {
	g := message{Subject: m.Subject, Body: itemBody{"text", m.Text}, From: recipientOf(m.From), ReplyTo: recipientsOf(m.ReplyTo)}
	if m.HTML != "" {
		g.Body = itemBody{"html", m.HTML}
	}
	// With Graph who is in the header gets it: a recipient who has it already must not be named again.
	left := offered
	take := func(list []mail.Address) (out []recipient) {
		for _, a := range list {
			if len(left) > 0 && left[0].Address == a.Address {
				left = left[1:]
				out = append(out, recipientOf(a))
			}
		}
		return out
	}
	g.To, g.Cc, g.Bcc = take(m.To), take(m.Cc), take(m.Bcc)
	if len(m.Headers) > maxHeaders {
		return message{}, fmt.Errorf("the message has %d headers of its own, and Microsoft Graph takes %d at most", len(m.Headers), maxHeaders)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Headers)) {
		if !strings.HasPrefix(strings.ToLower(name), "x-") {
			return message{}, fmt.Errorf("a header's name does not begin with X-, and Microsoft Graph takes no other")
		}
		g.Headers = append(g.Headers, header{name, m.Headers[name]})
	}
	if m.ListUnsubscribe != "" {
		g.Properties = append(g.Properties, property{listUnsubscribe, "<" + m.ListUnsubscribe + ">"})
	}
	return g, nil
}

func recipientOf(a mail.Address) recipient { return recipient{emailAddress{a.Name, a.Address}} }

func recipientsOf(list []mail.Address) []recipient {
	var out []recipient
	for _, a := range list {
		out = append(out, recipientOf(a))
	}
	return out
}

func fileOf(f *mail.File) file {
	return file{Type: "#microsoft.graph.fileAttachment", Name: f.Name, ContentType: f.ContentType, ContentID: f.ContentID,
		Inline: f.ContentID != "", Bytes: f.Bytes}
}

// encodedLen is about how long files are in JSON.
func encodedLen(files []*mail.File) int {
	n := 0
	for _, f := range files {
		n += (len(f.Bytes)+2)/3*4 + len(f.Name) + len(f.ContentType) + len(f.ContentID) + 200
	}
	return n
}

// encodedSize is how large a message is, encoded. What Exchange makes of it is somewhat larger: that it has the last word on.
func encodedSize(m *mail.Outgoing) int64 {
	n := len(m.HTML)
	if n == 0 {
		n = len(m.Text)
	}
	for _, f := range m.Files {
		n += (len(f.Bytes) + 2) / 3 * 4
	}
	return int64(n)
}

// encode writes v as JSON, without the escapes that only web pages need.
func encode(v any) ([]byte, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("graph: encode: %w", err)
	}
	return []byte(strings.TrimSuffix(b.String(), "\n")), nil
}
