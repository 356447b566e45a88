package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	netmail "net/mail"
	"strings"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider/smtp/smtptest"
)

// The sample: a real PDF and spreadsheet, and the text around them.
var (
	//go:embed sample/sales.pdf
	salesPDF []byte
	//go:embed sample/sales.xlsx
	salesXLSX []byte
	//go:embed sample/report.html
	reportHTML string
)

// sample is what the demo has handed in, and how it is to arrive.
type sample struct {
	messages []string // ids of single messages
	batch    string
	names    map[string]string // of the report's subscribers, by address
}

func (s *sample) total() int { return len(s.messages) + len(s.names) }

var (
	givenNames = []string{"Ada", "Björk", "Chinua", "Dolores", "Émile", "Fatima", "Grace", "Håkon", "Ines", "Jürgen", "Katharina", "Łukasz", "Mei", "Nuño", "Olga", "Praveen"}
	surnames   = []string{"Lovelace", "O'Neill", "Nakamura", "García", "Müller", "Okafor", "Ångström", "Dvořák", "Silva", "Haddad", "Kim", "Novák", "Rossi"}
	regions    = []string{"North", "South", "East", "West"}
)

// sendSample hands in an alert, a report with two attachments for many subscribers, and a subscription with one-click
// unsubscription, through the API as any application would.
func (d *demo) sendSample(ctx context.Context, c *admin.Client) (*sample, error) {
	s := &sample{names: make(map[string]string)}
	b := mail.Batch{Message: mail.Message{
		Kind: mail.Report, Subject: "Sales by region, for {{.name}}", HTML: reportHTML,
		Text: "Dear {{.name}},\n\nhere are this week's sales for {{.region}}. The whole report is attached.\n",
		Attachments: []mail.Attachment{
			{Name: "Sales by region.pdf", ContentType: "application/pdf", Content: salesPDF},
			{Name: "Umsätze.xlsx", ContentType: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", Content: salesXLSX},
		},
		Metadata: map[string]string{"report": "sales-by-region"},
	}}
	for i := range d.subscribers {
		name := givenNames[i%len(givenNames)] + " " + surnames[i%len(surnames)]
		address := fmt.Sprintf("subscriber%03d@example.net", i+1)
		s.names[address] = name
		b.Recipients = append(b.Recipients, mail.Recipient{To: []mail.Address{{Address: address, Name: name}},
			Variables: map[string]any{"name": name, "region": regions[i%len(regions)]}})
	}
	d.say("Enqueueing a report with a PDF and a spreadsheet for %d subscribers, a subscription, and an alert.", d.subscribers)
	batch, err := c.SendBatch(ctx, b, "")
	if err != nil {
		return nil, err
	}
	s.batch = batch.ID
	for _, m := range []mail.Message{
		{
			Kind: mail.Subscription, To: []mail.Address{{Address: "reader@example.net"}}, Subject: "This week in the warehouse",
			Text: "Nothing burned down.\n", HTML: "<p>Nothing burned down.</p>", ListUnsubscribe: "https://example.com/unsubscribe?id=42",
		},
		{
			Kind: mail.Alert, To: []mail.Address{{Address: "oncall@example.net"}}, Subject: "Disk of db-1 is 92 % full",
			Text: "It will be full in about 3 hours.\n",
		},
	} {
		accepted, err := c.Send(ctx, m, "")
		if err != nil {
			return nil, err
		}
		s.messages = append(s.messages, accepted.ID)
	}
	return s, nil
}

// delivered asks the API how far things are.
func (s *sample) delivered(ctx context.Context, c *admin.Client) (int, error) {
	b, err := c.Batch(ctx, s.batch)
	if err != nil {
		return 0, err
	}
	if b.Counts.Failed > 0 {
		return 0, errors.New("mail of the sample has failed")
	}
	n := b.Counts.Delivered
	for _, id := range s.messages {
		m, err := c.Message(ctx, id)
		if err != nil {
			return 0, err
		}
		if m.State == "failed" {
			return 0, errors.New("mail of the sample has failed")
		}
		if m.State == "delivered" {
			n++
		}
	}
	return n, nil
}

// check reads what the mail server received with another parser than wrote it.
func (s *sample) check(received []*smtptest.Message) error {
	seen := make(map[string]int)
	for _, m := range received {
		for _, to := range m.To {
			seen[to]++
		}
		if len(m.To) != 1 {
			return fmt.Errorf("message %d has %d recipients", m.ID, len(m.To))
		}
		parsed, err := netmail.ReadMessage(bytes.NewReader(m.Raw))
		if err != nil {
			return fmt.Errorf("message %d: %w", m.ID, err)
		}
		name, isReport := s.names[m.To[0]]
		if !isReport {
			if m.To[0] == "reader@example.net" && parsed.Header.Get("List-Unsubscribe-Post") != "List-Unsubscribe=One-Click" {
				return fmt.Errorf("message %d can't be unsubscribed from", m.ID)
			}
			continue
		}
		if err := checkReport(parsed, name); err != nil {
			return fmt.Errorf("message %d: %w", m.ID, err)
		}
	}
	return s.once(seen)
}

// once reports whether each recipient has one message; seen counts them.
func (s *sample) once(seen map[string]int) error {
	if len(seen) != s.total() {
		return fmt.Errorf("%d recipients have mail, want %d", len(seen), s.total())
	}
	for _, n := range seen {
		if n != 1 {
			return fmt.Errorf("a recipient has %d messages", n)
		}
	}
	return nil
}

func hexDigest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func checkReport(m *netmail.Message, name string) error {
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil || subject != "Sales by region, for "+name {
		return errors.New("the name is not in the subject")
	}
	var text bytes.Buffer
	hashes := make(map[[32]byte]bool)
	if err := leaves(m.Header.Get("Content-Type"), m.Header.Get("Content-Transfer-Encoding"), m.Body, func(kind string, content []byte) {
		hashes[sha256.Sum256(content)] = true
		if strings.HasPrefix(kind, "text/") {
			text.Write(content)
		}
	}); err != nil {
		return err
	}
	if !strings.Contains(text.String(), "Dear "+name+",") {
		return errors.New("the name is not in the text")
	}
	if !hashes[sha256.Sum256(salesPDF)] || !hashes[sha256.Sum256(salesXLSX)] {
		return errors.New("an attachment is not what was sent")
	}
	return nil
}

// leaves calls f for each part of a message that is no multipart, decoded.
func leaves(contentType, encoding string, body io.Reader, f func(kind string, content []byte)) error {
	kind, parameters, err := mime.ParseMediaType(contentType)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(kind, "multipart/") {
		switch strings.ToLower(encoding) {
		case "base64":
			body = base64.NewDecoder(base64.StdEncoding, body)
		case "quoted-printable":
			body = quotedprintable.NewReader(body)
		}
		content, err := io.ReadAll(body)
		if err != nil {
			return err
		}
		f(kind, content)
		return nil
	}
	parts := multipart.NewReader(body, parameters["boundary"])
	for {
		part, err := parts.NextRawPart()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := leaves(part.Header.Get("Content-Type"), part.Header.Get("Content-Transfer-Encoding"), part, f); err != nil {
			return err
		}
	}
}
