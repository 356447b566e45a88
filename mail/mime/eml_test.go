package mime_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/mail/mime"
)

// eml gives a file with the line ends of a mail.
func eml(lines string) io.Reader { return strings.NewReader(strings.ReplaceAll(lines, "\n", "\r\n")) }

func TestParseEML(t *testing.T) {
	for _, test := range []struct {
		name, in string
		want     mail.Message
	}{
		{
			"plain text",
			`From: Ada <ada@example.com>
To: bob@example.com, "Eve, E." <eve@Example.com>
To: friends: x@example.com, y@example.com;
Cc: undisclosed-recipients:;
Bcc: =?iso-8859-1?q?J=FCrgen?= <j@example.com>
Reply-To: help@example.com
Subject: =?utf-8?q?Gr=C3=B6=C3=9Fe?= and
 more
Message-ID: <1@example.com>
Received: from x
X-Report: =?utf-8?q?=C3=BC?=
X-Postroom-Id: 1
List-Unsubscribe: <mailto:u@example.com>, <https://example.com/u>
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

Gr=F6=DFe
`,
			mail.Message{
				From:            mail.Address{Address: "ada@example.com", Name: "Ada"},
				To:              []mail.Address{{Address: "bob@example.com"}, {Address: "eve@example.com", Name: "Eve, E."}, {Address: "x@example.com"}, {Address: "y@example.com"}},
				Bcc:             []mail.Address{{Address: "j@example.com", Name: "Jürgen"}},
				ReplyTo:         []mail.Address{{Address: "help@example.com"}},
				Subject:         "Größe and more",
				Headers:         map[string]string{"X-Report": "ü"},
				ListUnsubscribe: "https://example.com/u",
				Text:            "Größe\r\n",
			},
		},
		{
			"everything in everything",
			`Subject: x
Content-Type: multipart/mixed; boundary=a

--a
Content-Type: multipart/alternative; boundary=b

--b
Content-Type: text/plain

text
--b
Content-Type: multipart/related; boundary=c

--c
Content-Type: text/html; charset="windows-1252"
Content-Transfer-Encoding: base64

PGltZyBzcmM9ImNpZDpsb2dvQHgiPoA=
--c
Content-Type: image/png; name="logo.png"
Content-ID: <logo@x>
Content-Transfer-Encoding: base64

UE 5H
--c
Content-Type: image/png; name="again.png"
Content-ID: <logo@x>

again
--c
Content-Type: image/png
Content-ID: <unused@x>

raw
--c--
--b--
--a
Content-Type: text/csv; charset=iso-8859-1; name="=?utf-8?q?=C3=BC?="
Content-Disposition: attachment

` + "\xfc" + `
--a
Content-Type: message/rfc822

Subject: inner

inner
--a
Content-Type: text/plain
Content-Disposition: attachment; filename*=utf-8''..%2Fa%0Ab.txt

file
--a
Content-Type: text/plain

footer
--a--
`,
			mail.Message{
				Subject: "x",
				Text:    "text",
				HTML:    `<img src="cid:logo@x">€`,
				Attachments: []mail.Attachment{
					{Name: "logo.png", ContentType: "image/png", ContentID: "logo@x", Content: []byte("PNG")},
					{Name: "again.png", ContentType: "image/png", Content: []byte("again")},
					{Name: "part-8.png", ContentType: "image/png", Content: []byte("raw")},
					{Name: "ü", ContentType: "text/csv; charset=iso-8859-1", Content: []byte("\xfc")},
					{Name: "part-10.eml", ContentType: "application/octet-stream", Content: []byte("Subject: inner\r\n\r\ninner")},
					{Name: ".._a b.txt", ContentType: "text/plain", Content: []byte("file")},
					{Name: "part-12.txt", ContentType: "text/plain", Content: []byte("footer")},
				},
			},
		},
		{
			"attachment without a name is no text", "Content-Type: text/html\nContent-Disposition: attachment\n\n<p>\n",
			mail.Message{Attachments: []mail.Attachment{{Name: "part-1.html", ContentType: "text/html", Content: []byte("<p>\r\n")}}},
		},
		{"broken content type is text", "Content-Type: ???\n\ntext\n", mail.Message{Text: "text\r\n"}},
		{"8-bit text without a charset", "Subject: x\n\n\xfc\n", mail.Message{Subject: "x", Text: "ü\r\n"}},
		{"control characters in a subject", "Subject: =?utf-8?q?a=0D=0ABcc:_b?=\n\ntext", mail.Message{Subject: "a  Bcc: b", Text: "text"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := mime.ParseEML(eml(test.in))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(*got, test.want) {
				t.Errorf("got\n%+v, want\n%+v", *got, test.want)
			}
		})
	}
}

func TestParseEMLRefuses(t *testing.T) {
	deep := "Subject: x\n"
	for i := range 12 {
		deep += fmt.Sprintf("Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n", i, i)
	}
	for _, test := range []struct{ name, in, want string }{
		{"nothing", "", "header"},
		{"no header", "secret words\n\n", "header"},
		{"no address", "To: secret\n\n", "To is not a list"},
		{"bad domain", "To: secret@exam_ple.com\n\n", "To: mail: the address"},
		{"unknown charset", "Content-Type: text/plain; charset=secret\n\n\xff", "unknown charset"},
		{"unknown encoding", "Content-Transfer-Encoding: secret\n\n", "unknown transfer encoding"},
		{"bad base64", "Content-Transfer-Encoding: base64\n\nsecret!", "malformed"},
		{"cut off", "Content-Type: multipart/mixed; boundary=a\n\n--a\n\nsecret", "cut off"},
		{"no boundary", "Content-Type: multipart/mixed\n\nsecret", "multipart"},
		{"too deep", deep, "too many parts"},
		{"too many parts", "Content-Type: multipart/mixed; boundary=a\n\n" + strings.Repeat("--a\n\n\n", 600) + "--a--\n", "too many parts"},
		{"too large", "Subject: secret\n\n" + strings.Repeat("x", 48<<20), "larger"},
	} {
		_, err := mime.ParseEML(strings.NewReader(test.in))
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want an error with %q that quotes nothing", test.name, err, test.want)
		}
	}
	broken := errors.New("broken")
	if _, err := mime.ParseEML(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("a broken reader: %v", err)
	}
}

func TestParseEMLReadsWhatComposeWrites(t *testing.T) {
	m := outgoing()
	m.Subject = "Größe"
	m.HTML = `<img src="cid:logo">`
	m.Headers = map[string]string{"X-A": "ü"}
	m.ListUnsubscribe = "https://example.com/u"
	m.Files = []*mail.File{
		{Name: "logo.png", ContentType: "image/png", ContentID: "logo", Bytes: []byte("PNG")},
		{Name: "ü.csv", ContentType: "text/csv; charset=utf-8", Bytes: []byte("a\nb")},
	}
	got, err := mime.ParseEML(strings.NewReader(compose(t, m)))
	if err != nil {
		t.Fatal(err)
	}
	want := &mail.Message{
		From: m.From, To: m.To, Subject: m.Subject,
		Text: "See the file.\r\n", HTML: m.HTML + "\r\n",
		Headers: m.Headers, ListUnsubscribe: m.ListUnsubscribe,
		Attachments: []mail.Attachment{
			{Name: "logo.png", ContentType: "image/png", ContentID: "logo", Content: []byte("PNG")},
			{Name: "ü.csv", ContentType: "text/csv; charset=utf-8", Content: []byte("a\nb")},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v, want\n%+v", got, want)
	}
}

func FuzzParseEML(f *testing.F) {
	f.Add([]byte("From: a@b\r\nTo: c@d\r\nSubject: =?utf-8?q?a?=\r\n\r\ntext"))
	f.Add([]byte("To: a@b\nContent-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: text/html; charset=utf-16\n\n\xff\xfea\x00\n--a\nContent-ID: <x>\n\n--a--"))
	f.Add([]byte("To: \"a b\"@c\nX-A: b\nContent-Transfer-Encoding: base64\nContent-Disposition: attachment; filename=x\n\nYQ=="))
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := mime.ParseEML(bytes.NewReader(in))
		if err != nil {
			return
		}
		m.Kind = mail.Report
		if m.Validate(mail.Limits{}, accepted) != nil {
			return
		}
		c, err := mail.NewContent(m, false)
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.Fill("01JQZX", accepted, mail.Recipient{To: m.To})
		if err != nil {
			t.Fatal(err)
		}
		if out.From.Address == "" {
			out.From.Address = "reports@example.com"
		}
		checkRoundTrip(t, out)
	})
}
