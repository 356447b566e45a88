package mail_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// valid gives a message that uses every field.
func valid() mail.Message {
	return mail.Message{
		Kind:    mail.Report,
		From:    mail.Address{Address: "reports@example.com", Name: "Reports"},
		To:      []mail.Address{{Address: "ada@example.com", Name: "Ada"}},
		Cc:      []mail.Address{{Address: "bob@example.com"}},
		Bcc:     []mail.Address{{Address: "cid@example.com"}},
		ReplyTo: []mail.Address{{Address: "help@example.com"}},
		Subject: "Figures",
		Text:    "See the file.",
		HTML:    `<p>See the file.</p><img src="cid:logo">`,
		Attachments: []mail.Attachment{
			{Name: "figures.pdf", ContentType: "application/pdf", Content: []byte("%PDF")},
			{Name: "logo.png", ContentType: "image/png", ContentID: "logo", Content: []byte("PNG")},
		},
		Headers:         map[string]string{"X-Report": "figures"},
		ListUnsubscribe: "https://example.com/u?id=1",
		SendAt:          now.Add(time.Hour),
		ExpiresAt:       now.Add(2 * time.Hour),
		Metadata:        map[string]string{"run": "17"},
	}
}

func fields(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	var invalid *mail.Invalid
	if !errors.As(err, &invalid) {
		t.Fatalf("the error is a %T, want *mail.Invalid: %v", err, err)
	}
	var out []string
	for _, p := range invalid.Problems {
		out = append(out, p.Field)
		if p.Reason == "" {
			t.Errorf("%s has no reason", p.Field)
		}
	}
	return out
}

func TestValidMessageStaysAsItIs(t *testing.T) {
	m := valid()
	if err := m.Validate(mail.Limits{}, now); err != nil {
		t.Fatal(err)
	}
	if want := valid(); !reflect.DeepEqual(m, want) {
		t.Errorf("got %+v, want %+v", m, want)
	}
}

func TestValidateFindsTheFault(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, test := range []struct {
		name   string
		change func(*mail.Message)
		want   string
	}{
		{"no kind", func(m *mail.Message) { m.Kind = "" }, "/kind"},
		{"unknown kind", func(m *mail.Message) { m.Kind = "spam" }, "/kind"},
		{"sender with a name only", func(m *mail.Message) { m.From.Address = "" }, "/from/address"},
		{"sender's name breaks out", func(m *mail.Message) { m.From.Name = "a\r\nb" }, "/from/name"},
		{"no recipient", func(m *mail.Message) { m.To, m.Cc, m.Bcc = nil, nil, nil }, "/to"},
		{"bad recipient", func(m *mail.Message) { m.Cc[0].Address = "bob" }, "/cc/0/address"},
		{"two names", func(m *mail.Message) { m.To[0].Address = "A <ada@example.com>" }, "/to/0/address"},
		{"recipient's name too long", func(m *mail.Message) { m.To[0].Name = long(257) }, "/to/0/name"},
		{"bad reply_to", func(m *mail.Message) { m.ReplyTo[0].Address = "x y" }, "/reply_to/0/address"},
		{"too many reply_to", func(m *mail.Message) { m.ReplyTo = slices.Repeat(m.ReplyTo, 21) }, "/reply_to"},
		{"subject breaks out", func(m *mail.Message) { m.Subject = "a\nBcc: x@example.com" }, "/subject"},
		{"subject with NUL", func(m *mail.Message) { m.Subject = "a\x00" }, "/subject"},
		{"subject too long", func(m *mail.Message) { m.Subject = long(999) }, "/subject"},
		{"subject not UTF-8", func(m *mail.Message) { m.Subject = "\xff" }, "/subject"},
		{"no text", func(m *mail.Message) { m.Text, m.HTML = "", "" }, "/text"},
		{"text not UTF-8", func(m *mail.Message) { m.Text = "\xff" }, "/text"},
		{"html with NUL", func(m *mail.Message) { m.HTML = "\x00" }, "/html"},
		{"file without a name", func(m *mail.Message) { m.Attachments[0].Name = " " }, "/attachments/0/name"},
		{"file with a path", func(m *mail.Message) { m.Attachments[0].Name = "../x" }, "/attachments/0/name"},
		{"file's name breaks out", func(m *mail.Message) { m.Attachments[1].Name = "a\r\n" }, "/attachments/1/name"},
		{"bad media type", func(m *mail.Message) { m.Attachments[0].ContentType = "pdf" }, "/attachments/0/content_type"},
		{"media type breaks out", func(m *mail.Message) { m.Attachments[0].ContentType = "a/b\r\nX: y" }, "/attachments/0/content_type"},
		{"multipart", func(m *mail.Message) { m.Attachments[0].ContentType = "multipart/mixed" }, "/attachments/0/content_type"},
		{"message", func(m *mail.Message) { m.Attachments[0].ContentType = "Message/rfc822" }, "/attachments/0/content_type"},
		{"bad content id", func(m *mail.Message) { m.Attachments[1].ContentID = "<logo>" }, "/attachments/1/content_id"},
		{"content id twice", func(m *mail.Message) { m.Attachments[0].ContentID = "logo" }, "/attachments/1/content_id"},
		{"too many files", func(m *mail.Message) { m.Attachments = slices.Repeat(m.Attachments[:1], 101) }, "/attachments"},
		{"files too large", func(m *mail.Message) { m.Attachments[0].Content = make([]byte, 80_000) }, ""},
		{"text too large", func(m *mail.Message) { m.Text = strings.Repeat("ü", 30_000) }, ""},
		{"our header", func(m *mail.Message) { m.Headers = map[string]string{"Bcc": "x@example.com"} }, "/headers/Bcc"},
		{"reserved header", func(m *mail.Message) { m.Headers = map[string]string{"X-Postroom-Id": ""} }, "/headers/X-Postroom-Id"},
		{"header's name breaks out", func(m *mail.Message) { m.Headers = map[string]string{"X-A\r\nTo": ""} }, "/headers"},
		{"header's value breaks out", func(m *mail.Message) { m.Headers["X-Report"] = "a\rb" }, "/headers/X-Report"},
		{"header's value too long", func(m *mail.Message) { m.Headers["X-Report"] = long(999) }, "/headers/X-Report"},
		{"header twice", func(m *mail.Message) { m.Headers["x-report"] = "" }, "/headers/x-report"},
		{"too many headers", func(m *mail.Message) {
			for i := range 20 {
				m.Headers[fmt.Sprint("X-", i)] = ""
			}
		}, "/headers"},
		{"unsubscribe by http", func(m *mail.Message) { m.ListUnsubscribe = "http://example.com" }, "/list_unsubscribe"},
		{"unsubscribe without host", func(m *mail.Message) { m.ListUnsubscribe = "https:///u" }, "/list_unsubscribe"},
		{"unsubscribe with a password", func(m *mail.Message) { m.ListUnsubscribe = "https://u:p@example.com/" }, "/list_unsubscribe"},
		{"unsubscribe with brackets", func(m *mail.Message) { m.ListUnsubscribe = "https://example.com/>,<mailto:x" }, "/list_unsubscribe"},
		{"unsubscribe breaks out", func(m *mail.Message) { m.ListUnsubscribe = "https://example.com/\r\nX: y" }, "/list_unsubscribe"},
		{"unsubscribe not ASCII", func(m *mail.Message) { m.ListUnsubscribe = "https://example.com/ü" }, "/list_unsubscribe"},
		{"unsubscribe too long", func(m *mail.Message) { m.ListUnsubscribe = "https://example.com/" + long(900) }, "/list_unsubscribe"},
		{"expired", func(m *mail.Message) { m.SendAt, m.ExpiresAt = time.Time{}, now }, "/expires_at"},
		{"expires before it is sent", func(m *mail.Message) { m.ExpiresAt = m.SendAt }, "/expires_at"},
		{"metadata without key", func(m *mail.Message) { m.Metadata[""] = "" }, "/metadata"},
		{"metadata's key too long", func(m *mail.Message) { m.Metadata[long(65)] = "" }, "/metadata"},
		{"metadata's value too long", func(m *mail.Message) { m.Metadata["run"] = long(1025) }, "/metadata/run"},
		{"metadata's value breaks out", func(m *mail.Message) { m.Metadata["run"] = "\n" }, "/metadata/run"},
		{"too much metadata", func(m *mail.Message) {
			for i := range 50 {
				m.Metadata[fmt.Sprint(i)] = ""
			}
		}, "/metadata"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := valid()
			test.change(&m)
			before := m
			err := m.Validate(mail.Limits{MaxBytes: 100_000}, now)
			if got := fields(t, err); !slices.Equal(got, []string{test.want}) {
				t.Errorf("got problems at %q, want %q (%v)", got, test.want, err)
			}
			if !reflect.DeepEqual(m, before) {
				t.Error("the refused message was changed")
			}
		})
	}
}

func TestValidateReportsAllFaultsAndNoValue(t *testing.T) {
	m := mail.Message{
		To:       []mail.Address{{Address: "secret"}, {Address: "ada@example.com", Name: "secret\n"}},
		Subject:  "secret\r",
		Headers:  map[string]string{"secret": "", "X-Key": "secret\x00"},
		Metadata: map[string]string{"a secret\n": ""},
	}
	err := m.Validate(mail.Limits{}, now)
	want := []string{"/kind", "/to/0/address", "/to/1/name", "/text", "/subject", "/headers/X-Key", "/headers/secret", "/metadata"}
	if got := fields(t, err); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if text := err.Error(); !strings.HasPrefix(text, "mail: 8 problems: /kind is not") || strings.Count(text, "secret") != 1 {
		t.Errorf("unexpected text, or one that quotes a value: %s", text)
	}
}

func TestErrorTextIsBounded(t *testing.T) {
	m := valid()
	m.To = slices.Repeat([]mail.Address{{Address: "?"}}, 100)
	err := m.Validate(mail.Limits{}, now)
	if n := len(fields(t, err)); n != 100 {
		t.Errorf("%d problems, want 100", n)
	}
	if text := err.Error(); !strings.HasSuffix(text, "; and 80 more") {
		t.Errorf("unexpected text: %s", text)
	}
}

func TestValidateMakesCanonicalForm(t *testing.T) {
	m := valid()
	m.To = []mail.Address{
		{Address: "Ada <ada@EXAMPLE.com>"},
		{Address: "ada@example.com", Name: "again"},
		{Address: "Ada@example.com"},
	}
	m.Cc = []mail.Address{{Address: "ada@Example.com"}, {Address: "bob@bücher.example", Name: " Bob "}}
	m.Bcc = []mail.Address{{Address: "bob@xn--bcher-kva.example"}}
	m.Attachments[0].ContentType = ""
	m.Attachments[0].Name = "Figures.XLSX"
	m.Attachments[1].ContentType = `Image/PNG; name="x.png"`
	original := m.Attachments
	if err := m.Validate(mail.Limits{MaxRecipients: 3}, now); err != nil {
		t.Fatal(err)
	}
	if want := []mail.Address{{Address: "ada@example.com", Name: "Ada"}, {Address: "Ada@example.com"}}; !slices.Equal(m.To, want) {
		t.Errorf("To is %v, want %v", m.To, want)
	}
	if want := []mail.Address{{Address: "bob@xn--bcher-kva.example", Name: "Bob"}}; !slices.Equal(m.Cc, want) || len(m.Bcc) != 0 {
		t.Errorf("Cc is %v, want %v; Bcc is %v, want none", m.Cc, want, m.Bcc)
	}
	if got := m.Attachments[0].ContentType; got != "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet" {
		t.Errorf("the first file is a %s", got)
	}
	if got := m.Attachments[1].ContentType; got != "image/png" {
		t.Errorf("the second file is a %s", got)
	}
	if original[0].ContentType != "" {
		t.Error("the caller's list was written to")
	}
}

func TestMaxRecipients(t *testing.T) {
	m := valid()
	if err := m.Validate(mail.Limits{MaxRecipients: 3}, now); err != nil {
		t.Errorf("three recipients of three: %v", err)
	}
	if got := fields(t, m.Validate(mail.Limits{MaxRecipients: 2}, now)); !slices.Equal(got, []string{"/to"}) {
		t.Errorf("three recipients of two: problems at %q", got)
	}
}
