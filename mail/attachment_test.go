package mail_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/postroom/postroom/mail"
)

func TestFilesByRefAreChecked(t *testing.T) {
	file := func(size int64) mail.Attachment { return mail.Attachment{Ref: "R", Size: size} }
	for name, test := range map[string]struct {
		message, own []mail.Attachment
		want         string // field; empty: fine
	}{
		"neither name nor type":    {[]mail.Attachment{file(1)}, []mail.Attachment{file(1)}, ""},
		"as large as may be":       {[]mail.Attachment{file(12 << 20)}, []mail.Attachment{file(12 << 20)}, ""},
		"too large for all":        {[]mail.Attachment{file(30 << 20)}, nil, "/message"},
		"too large for one":        {[]mail.Attachment{file(20 << 20)}, []mail.Attachment{file(20 << 20)}, "/recipients/0/attachments"},
		"own, in content":          {nil, []mail.Attachment{{Name: "a.txt", Content: []byte("x")}}, "/recipients/0/attachments/0/ref"},
		"both":                     {[]mail.Attachment{{Ref: "R", Content: []byte("x")}}, nil, "/message/attachments/0/ref"},
		"a name that is none":      {nil, []mail.Attachment{{Ref: "R", Name: "a/b"}}, "/recipients/0/attachments/0/name"},
		"a type that is none":      {nil, []mail.Attachment{{Ref: "R", ContentType: "pdf"}}, "/recipients/0/attachments/0/content_type"},
		"the content id of all's":  {[]mail.Attachment{{Ref: "R", ContentID: "c"}}, []mail.Attachment{{Ref: "R", ContentID: "c"}}, "/recipients/0/attachments/0/content_id"},
		"neither ref nor any name": {[]mail.Attachment{{}}, nil, "/message/attachments/0/name"},
	} {
		b := mail.Batch{Message: mail.Message{Kind: mail.Report, Subject: "s", Text: "t", Attachments: test.message},
			Recipients: []mail.Recipient{{To: []mail.Address{{Address: "ada@example.net"}}, Attachments: test.own}}}
		refused, err := b.Validate(mail.Limits{}, now)
		var fields []string
		var invalid *mail.Invalid
		if errors.As(err, &invalid) {
			for _, p := range invalid.Problems {
				fields = append(fields, p.Field)
			}
		}
		for _, p := range refused[0] {
			fields = append(fields, p.Field)
		}
		if got := strings.Join(fields, ","); got != test.want {
			t.Errorf("%s: faults at %q, want %q", name, got, test.want)
		}
	}
}

func TestAFileUnderAnotherNameIsEncodedOnce(t *testing.T) {
	f := &mail.File{Bytes: []byte("report")}
	a, b := f.As("a.pdf", "application/pdf", ""), f.As("b.pdf", "application/pdf", "logo")
	if a.Name != "a.pdf" || b.ContentID != "logo" || string(b.Bytes) != "report" || &a.Base64()[0] != &b.Base64()[0] {
		t.Errorf("%+v, %+v", a, b)
	}
}
