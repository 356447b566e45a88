package mime_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	stdmime "mime"
	"mime/multipart"
	"mime/quotedprintable"
	netmail "net/mail"
	"net/textproto"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/mail/mime"
)

var accepted = time.Date(2026, 3, 1, 13, 0, 0, 0, time.FixedZone("CET", 3600))

func outgoing() *mail.Outgoing {
	return &mail.Outgoing{
		ID:      "01JQZX7W3K8Y4T9V2B6N5M1C0D",
		Kind:    mail.Report,
		From:    mail.Address{Address: "reports@example.com", Name: "Reports"},
		To:      []mail.Address{{Address: "ada@example.com", Name: "Ada"}},
		Subject: "Figures",
		Text:    "See the file.\n",
		Date:    accepted,
	}
}

func compose(t testing.TB, m *mail.Outgoing) string {
	t.Helper()
	rendered, err := mime.Compose(m)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	n, err := rendered.WriteTo(&b)
	if err != nil || n != rendered.Size() || n != int64(b.Len()) {
		t.Fatalf("WriteTo gave %d, %v; Size is %d, %d bytes were written", n, err, rendered.Size(), b.Len())
	}
	return b.String()
}

// part is what the standard library's parsers read.
type part struct {
	mediaType   string
	disposition string
	name        string
	id          string
	content     string
	parts       []part
}

func readPart(t *testing.T, h textproto.MIMEHeader, body io.Reader) part {
	t.Helper()
	mediaType, params, err := stdmime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		t.Fatalf("Content-Type %q: %v", h.Get("Content-Type"), err)
	}
	p := part{mediaType: mediaType, id: h.Get("Content-Id")}
	for name := range h {
		if strings.HasPrefix(name, "Content-") && !slices.Contains(contentFields, name) {
			t.Errorf("a part has the field %s", name)
		}
	}
	if boundary, ok := params["boundary"]; ok && strings.HasPrefix(mediaType, "multipart/") {
		if root := params["type"]; root != "" {
			p.mediaType += " of " + root
		}
		r := multipart.NewReader(body, boundary)
		for {
			raw, err := r.NextRawPart()
			if err == io.EOF {
				return p
			}
			if err != nil {
				t.Fatalf("%s: %v", mediaType, err)
			}
			for name := range raw.Header {
				if !slices.Contains(contentFields, name) {
					t.Errorf("a part has the field %s", name)
				}
			}
			p.parts = append(p.parts, readPart(t, raw.Header, raw))
		}
	}
	if v := h.Get("Content-Disposition"); v != "" {
		disposition, params, err := stdmime.ParseMediaType(v)
		if err != nil {
			t.Fatalf("Content-Disposition %q: %v", v, err)
		}
		p.disposition, p.name = disposition, params["filename"]
	}
	switch encoding := h.Get("Content-Transfer-Encoding"); encoding {
	case "7bit":
	case "quoted-printable":
		raw, _ := io.ReadAll(body)
		for line := range strings.SplitSeq(string(raw), "\r\n") {
			if len(line) > 76 {
				t.Errorf("a quoted-printable line has %d characters: %q", len(line), line)
			}
		}
		body = quotedprintable.NewReader(bytes.NewReader(raw))
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	default:
		t.Fatalf("unexpected transfer encoding %q", encoding)
	}
	content, err := io.ReadAll(body)
	if err != nil {
		t.Fatalf("%s: %v", mediaType, err)
	}
	p.content = string(content)
	return p
}

var contentFields = []string{"Content-Type", "Content-Transfer-Encoding", "Content-Disposition", "Content-Id"}

// canonical is the form that texts have on the wire.
func canonical(text string) string {
	text = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text)
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return strings.ReplaceAll(text, "\n", "\r\n")
}

// checkRoundTrip reads the message back with other parsers and compares everything with m.
func checkRoundTrip(t *testing.T, m *mail.Outgoing) {
	t.Helper()
	raw := compose(t, m)
	rendered, _ := mime.Compose(m)
	for line := range strings.SplitSeq(strings.TrimSuffix(raw, "\r\n"), "\r\n") {
		if len(line) > 998 {
			t.Errorf("a line has %d octets: %.40q", len(line), line)
		}
		for i := range len(line) {
			if c := line[i]; c == '\r' || c == '\n' || c == 0 || c >= 0x80 && !rendered.UTF8() {
				t.Fatalf("the byte %#x in %.100q", c, line)
			}
		}
	}
	if !strings.HasSuffix(raw, "\r\n") {
		t.Error("the last line has no end")
	}

	parsed, err := netmail.ReadMessage(strings.NewReader(raw))
	if err != nil {
		t.Fatalf("the header cannot be read: %v\n%s", err, raw)
	}
	h := parsed.Header
	want := map[string]string{
		"Subject":        m.Subject,
		"Date":           m.Date.UTC().Format("Mon, 02 Jan 2006 15:04:05 +0000"),
		"Message-Id":     "<" + strings.ToLower(m.ID) + "@" + m.From.Domain() + ">",
		"Auto-Submitted": "auto-generated",
		"Mime-Version":   "1.0",
	}
	if m.ListUnsubscribe != "" {
		want["List-Unsubscribe"] = "<" + m.ListUnsubscribe + ">"
		want["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
	}
	for name, value := range m.Headers {
		want[textproto.CanonicalMIMEHeaderKey(name)] = value
	}
	for name, value := range want {
		decoded, err := new(stdmime.WordDecoder).DecodeHeader(h.Get(name))
		if err != nil || decoded != value || len(h[name]) != 1 {
			t.Errorf("%s is %q %v, want %q", name, h[name], err, value)
		}
	}
	lists := map[string][]mail.Address{"From": {m.From}, "To": m.To, "Cc": m.Cc, "Reply-To": m.ReplyTo}
	for name, list := range lists {
		if len(list) == 0 && name != "To" {
			continue
		}
		want[name] = ""
		if len(list) == 0 {
			if got := h.Get(name); got != "undisclosed-recipients:;" {
				t.Errorf("To is %q", got)
			}
			continue
		}
		got, err := h.AddressList(name)
		if err != nil || len(got) != len(list) || len(h[name]) != 1 {
			t.Errorf("%s is %q: %v, %v; want %v", name, h[name], got, err, list)
			continue
		}
		for i, a := range list {
			spec := strings.Trim((&netmail.Address{Address: got[i].Address}).String(), "<>")
			if spec != a.Address || got[i].Name != a.Name {
				t.Errorf("%s %d is %q, want %+v", name, i, got[i], a)
			}
		}
	}
	for name := range h {
		if _, ok := want[name]; !ok && name != "Content-Type" && name != "Content-Transfer-Encoding" {
			t.Errorf("a header that nobody wrote: %s", name)
		}
	}
	if got := readPart(t, textproto.MIMEHeader(h), parsed.Body); !reflect.DeepEqual(got, structure(m)) {
		t.Errorf("got the parts\n%+v, want\n%+v", got, structure(m))
	}
}

// structure gives the parts that m should have.
func structure(m *mail.Outgoing) part {
	var inline, attached []part
	for _, f := range m.Files {
		mediaType, _, _ := stdmime.ParseMediaType(f.ContentType)
		p := part{mediaType: mediaType, disposition: "attachment", name: f.Name, content: string(f.Bytes)}
		if f.ContentID != "" {
			p.id = "<" + f.ContentID + ">"
		}
		if f.ContentID != "" && m.HTML != "" {
			p.disposition = "inline"
			inline = append(inline, p)
		} else {
			attached = append(attached, p)
		}
	}
	text := part{mediaType: "text/plain", content: canonical(m.Text)}
	html := part{mediaType: "text/html", content: canonical(m.HTML)}
	if len(inline) > 0 {
		html = part{mediaType: "multipart/related of text/html", parts: append([]part{html}, inline...)}
	}
	root := text
	switch {
	case m.HTML == "":
	case m.Text == "":
		root = html
	default:
		root = part{mediaType: "multipart/alternative", parts: []part{text, html}}
	}
	if len(attached) > 0 {
		root = part{mediaType: "multipart/mixed", parts: append([]part{root}, attached...)}
	}
	return root
}

func TestTextMailOnTheWire(t *testing.T) {
	m := outgoing()
	m.Bcc = []mail.Address{{Address: "secret@example.com"}}
	want := strings.ReplaceAll(`From: Reports <reports@example.com>
To: Ada <ada@example.com>
Subject: Figures
Date: Sun, 01 Mar 2026 12:00:00 +0000
Message-ID: <01jqzx7w3k8y4t9v2b6n5m1c0d@example.com>
Auto-Submitted: auto-generated
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 7bit

See the file.
`, "\n", "\r\n")
	if got := compose(t, m); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestFullMailOnTheWire(t *testing.T) {
	m := outgoing()
	m.ID = "1A"
	m.From.Name = "Zahlen & Fakten, täglich"
	m.To = nil
	m.Cc = []mail.Address{{Address: "ada@example.com", Name: "Lovelace, Ada"}, {Address: "charles.babbage@analytical.example", Name: "Charles Babbage"}, {Address: "x@example.com"}}
	m.ReplyTo = []mail.Address{{Address: "help@example.com"}}
	m.Subject = "Die größten Zahlen des Monats und alles, was sonst noch auffiel"
	m.Text = "Größe = 1 \nEnd"
	m.HTML = `<img src="cid:logo">`
	m.ListUnsubscribe = "https://example.com/u"
	m.Headers = map[string]string{"X-B": "two", "X-A": "one"}
	m.Files = []*mail.File{
		{Name: "Größe.pdf", ContentType: "application/pdf", Bytes: []byte("%PDF")},
		{Name: "logo.png", ContentType: "image/png", ContentID: "logo", Bytes: []byte("PNG")},
	}
	want := strings.ReplaceAll(`From: =?utf-8?q?Zahlen_=26_Fakten=2C_t=C3=A4glich?= <reports@example.com>
To: undisclosed-recipients:;
Cc: "Lovelace, Ada" <ada@example.com>, Charles Babbage
 <charles.babbage@analytical.example>, x@example.com
Reply-To: help@example.com
Subject: =?utf-8?q?Die_gr=C3=B6=C3=9Ften_Zahlen_des_Monats_und_alles=2C_wa?=
 =?utf-8?q?s_sonst_noch_auffiel?=
Date: Sun, 01 Mar 2026 12:00:00 +0000
Message-ID: <1a@example.com>
Auto-Submitted: auto-generated
List-Unsubscribe: <https://example.com/u>
List-Unsubscribe-Post: List-Unsubscribe=One-Click
X-A: one
X-B: two
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="=_1A-1"

--=_1A-1
Content-Type: multipart/alternative; boundary="=_1A-2"

--=_1A-2
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

Gr=C3=B6=C3=9Fe =3D 1=20
End

--=_1A-2
Content-Type: multipart/related; type="text/html"; boundary="=_1A-3"

--=_1A-3
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: 7bit

<img src="cid:logo">

--=_1A-3
Content-Type: image/png
Content-Transfer-Encoding: base64
Content-Disposition: inline; filename="logo.png"
Content-ID: <logo>

UE5H

--=_1A-3--

--=_1A-2--

--=_1A-1
Content-Type: application/pdf
Content-Transfer-Encoding: base64
Content-Disposition: attachment; filename*=utf-8''Gr%C3%B6%C3%9Fe.pdf

JVBERg==

--=_1A-1--
`, "\n", "\r\n")
	if got := compose(t, m); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	checkRoundTrip(t, m)
}

func TestRoundTrip(t *testing.T) {
	long := strings.Repeat("x", 900)
	for name, change := range map[string]func(*mail.Outgoing){
		"empty subject":              func(m *mail.Outgoing) { m.Subject = "" },
		"spaces in the subject":      func(m *mail.Outgoing) { m.Subject = "  a  b " },
		"subject of one word":        func(m *mail.Outgoing) { m.Subject = strings.Repeat("x", 998) },
		"subject of long words":      func(m *mail.Outgoing) { m.Subject = long[:500] + " " + long[:400] },
		"subject that looks encoded": func(m *mail.Outgoing) { m.Subject = "=?utf-8?q?=0ABcc: x@example.com?=" },
		"subject of wide characters": func(m *mail.Outgoing) { m.Subject = strings.Repeat("😀 ", 100) },
		"subject in Greek":           func(m *mail.Outgoing) { m.Subject = strings.Repeat("Ελληνικά ", 40) },
		"long name":                  func(m *mail.Outgoing) { m.To[0].Name = strings.Repeat("Ada ", 60) + "Ada" },
		"name with specials":         func(m *mail.Outgoing) { m.To[0].Name = `Ada "the first" \ <ada@example.org>, (Lovelace); x:y` },
		"name with wide spaces":      func(m *mail.Outgoing) { m.To[0].Name = "Ada   Lovelace" },
		"name that looks encoded":    func(m *mail.Outgoing) { m.To[0].Name = "=?utf-8?q?x?=" },
		"name of one long word":      func(m *mail.Outgoing) { m.To[0].Name = long[:256] },
		"many recipients":            func(m *mail.Outgoing) { m.To = slices.Repeat(m.To, 500) },
		"quoted local part":          func(m *mail.Outgoing) { m.To[0].Address = `"a, b"@example.com` },
		"local part in UTF-8":        func(m *mail.Outgoing) { m.To[0].Address = "grüße@example.com" },
		"empty text":                 func(m *mail.Outgoing) { m.Text = "" },
		"dots":                       func(m *mail.Outgoing) { m.Text = ".\n..\n.a\nFrom x\n" },
		"every way to end a line":    func(m *mail.Outgoing) { m.Text = "a\nb\rc\r\nd\n\re\r\n\n\r\r\nf" },
		"white space at line ends":   func(m *mail.Outgoing) { m.Text = "a \nb\t\r\n \n\t" },
		"lines of 75 to 77":          func(m *mail.Outgoing) { m.Text = long[:75] + "\n" + long[:76] + "\n" + long[:77] + "\n" },
		"quoted lines of 75 to 77":   func(m *mail.Outgoing) { m.Text = long[:75] + "ü\n" + long[:73] + "ü\n=" + long[:77] + " \n" },
		"text with a boundary":       func(m *mail.Outgoing) { m.HTML, m.Text = "x", "--=_"+m.ID+"-1\r\n--=_"+m.ID+"-1--" },
		"control characters":         func(m *mail.Outgoing) { m.Text = "a\x01\x7f\u0085\u2028" },
		"html only":                  func(m *mail.Outgoing) { m.HTML, m.Text = "<p>ü</p>", "" },
		"empty file":                 func(m *mail.Outgoing) { m.Files = []*mail.File{{Name: "x", ContentType: "text/csv"}} },
		"image without html":         func(m *mail.Outgoing) { m.Files = []*mail.File{{Name: "x", ContentID: "x", ContentType: "image/png"}} },
		"file of every byte": func(m *mail.Outgoing) {
			all := make([]byte, 1024)
			for i := range all {
				all[i] = byte(i)
			}
			m.Files = []*mail.File{{Name: `a "b" c.bin`, ContentType: "application/octet-stream", Bytes: all}}
		},
		"long file names": func(m *mail.Outgoing) {
			m.Files = []*mail.File{
				{Name: long[:255], ContentType: "text/csv; charset=utf-8"},
				{Name: strings.Repeat("ü", 127), ContentType: "text/csv"},
				{Name: strings.Repeat("😀", 63), ContentType: "text/csv"},
				{Name: "=?utf-8?q?x?=", ContentType: "text/csv"},
				{Name: " 'x%20*.csv ", ContentType: "text/csv"},
			}
		},
		"headers": func(m *mail.Outgoing) {
			m.Headers = map[string]string{"X-Empty": "", "X-Long": strings.Repeat("word ", 150) + "end", "X-" + long[:62]: strings.Repeat("ü", 400)}
		},
		"long unsubscribe": func(m *mail.Outgoing) { m.ListUnsubscribe = "https://example.com/" + long[:880] },
	} {
		t.Run(name, func(t *testing.T) {
			m := outgoing()
			change(m)
			checkRoundTrip(t, m)
		})
	}
}

func TestWhatLooksEncodedIsEncoded(t *testing.T) {
	const word = "=?utf-8?q?x?="
	m := outgoing()
	m.From.Name, m.Subject, m.Headers = word, word, map[string]string{"X-A": word}
	m.Files = []*mail.File{{Name: word, ContentType: "text/csv"}}
	if raw := compose(t, m); strings.Contains(raw, word) {
		t.Errorf("a reader would decode what was never encoded:\n%s", raw)
	}
}

// Readers may take other characters than these for the end of the word (RFC 2047, section 5, rule 3).
func TestEncodedNamesHaveSafeCharactersOnly(t *testing.T) {
	m := outgoing()
	m.From.Name = "A long name in letters, so that the Q encoding is the shorter one of the two: Adä, \"b\" (c?) <d_e>"
	raw := compose(t, m)
	words := regexp.MustCompile(`=\?utf-8\?q\?[A-Za-z0-9!*+/=_-]*\?=`).ReplaceAllString(raw, "")
	if from, _, _ := strings.Cut(words, "<reports@"); strings.Trim(from, "From: \r\n") != "" {
		t.Errorf("the name has more than safe encoded words: %q", from)
	}
	checkRoundTrip(t, m)
}

func TestWhiteSpaceAtLineEndsIsProtected(t *testing.T) {
	for text, want := range map[string]string{
		"a\nb\n":   "7bit",
		"a \nb\n":  "quoted-printable",
		"a\t\r\nb": "quoted-printable",
		"a\nb ":    "quoted-printable",
	} {
		m := outgoing()
		m.Text = text
		if raw := compose(t, m); !strings.Contains(raw, "\r\nContent-Transfer-Encoding: "+want+"\r\n") {
			t.Errorf("%q is not %s", text, want)
		}
	}
}

func TestUTF8IsNeededForLocalPartsOnly(t *testing.T) {
	for name, change := range map[string]func(*mail.Outgoing) bool{
		"names": func(m *mail.Outgoing) bool { m.From.Name, m.To[0].Name = "Ü", "Ü"; return false },
		"to":    func(m *mail.Outgoing) bool { m.To[0].Address = "ü@example.com"; return true },
		"cc":    func(m *mail.Outgoing) bool { m.Cc = []mail.Address{{Address: "ü@example.com"}}; return true },
		"bcc":   func(m *mail.Outgoing) bool { m.Bcc = []mail.Address{{Address: "ü@example.com"}}; return false },
	} {
		m := outgoing()
		want := change(m)
		rendered, err := mime.Compose(m)
		if err != nil || rendered.UTF8() != want {
			t.Errorf("%s: UTF8 is %v, want %v (%v)", name, !want, want, err)
		}
	}
}

// countingWriter remembers where the segments it was given lie.
type countingWriter struct{ segments [][]byte }

func (w *countingWriter) Write(p []byte) (int, error) {
	w.segments = append(w.segments, p)
	return len(p), nil
}

func TestFilesAreNotCopied(t *testing.T) {
	m := outgoing()
	m.Files = []*mail.File{{Name: "x", ContentType: "text/csv", Bytes: make([]byte, 1000)}}
	rendered, err := mime.Compose(m)
	if err != nil {
		t.Fatal(err)
	}
	var w countingWriter
	if _, err := rendered.WriteTo(&w); err != nil {
		t.Fatal(err)
	}
	shared := m.Files[0].Base64()
	if !slices.ContainsFunc(w.segments, func(s []byte) bool { return len(s) > 0 && &s[0] == &shared[0] }) {
		t.Error("the file's encoded bytes were copied")
	}
}

func TestComposeRefusesWhatBreaksOut(t *testing.T) {
	const bad = "a\r\nBcc: x@example.com"
	for name, change := range map[string]func(*mail.Outgoing){
		"no id":          func(m *mail.Outgoing) { m.ID = "" },
		"id":             func(m *mail.Outgoing) { m.ID = bad },
		"no sender":      func(m *mail.Outgoing) { m.From = mail.Address{} },
		"no domain":      func(m *mail.Outgoing) { m.From.Address = "reports" },
		"sender":         func(m *mail.Outgoing) { m.From.Address = bad },
		"sender's name":  func(m *mail.Outgoing) { m.From.Name = bad },
		"to":             func(m *mail.Outgoing) { m.To[0].Address = bad },
		"cc's name":      func(m *mail.Outgoing) { m.Cc = []mail.Address{{Address: "a@b", Name: bad}} },
		"reply-to":       func(m *mail.Outgoing) { m.ReplyTo = []mail.Address{{Address: bad}} },
		"subject":        func(m *mail.Outgoing) { m.Subject = bad },
		"unsubscribe":    func(m *mail.Outgoing) { m.ListUnsubscribe = bad },
		"header's name":  func(m *mail.Outgoing) { m.Headers = map[string]string{"X-A: b\r\nBcc": ""} },
		"our header":     func(m *mail.Outgoing) { m.Headers = map[string]string{"Bcc": ""} },
		"header's value": func(m *mail.Outgoing) { m.Headers = map[string]string{"X-A": bad} },
		"file's name":    func(m *mail.Outgoing) { m.Files = []*mail.File{{Name: bad}} },
		"file's type":    func(m *mail.Outgoing) { m.Files = []*mail.File{{ContentType: bad}} },
		"content id":     func(m *mail.Outgoing) { m.Files = []*mail.File{{ContentID: bad}} },
	} {
		m := outgoing()
		change(m)
		_, err := mime.Compose(m)
		if err == nil {
			t.Errorf("%s: composed", name)
		} else if strings.Contains(err.Error(), "x@example.com") {
			t.Errorf("%s: the error quotes the value: %v", name, err)
		}
	}
}

func FuzzCompose(f *testing.F) {
	f.Add("Figures", "Ada", "ada@example.com", "text", "<p>html</p>", "a.pdf", "application/pdf", "logo", []byte("%PDF"), "value")
	f.Add("Größe", "Lovelace, \"Ada\"", "grüße@bücher.example", "a\rb\n", "", "ü.csv", "", "", []byte{}, "ü")
	f.Add("=?utf-8?q?a?=", "=?utf-8?b?Cg==?=", "A <a@b>", "--=_1-1", "=_", "=?x?=", `text/csv; x="a;b"`, "a@b", []byte{0, 255}, " a  b")
	f.Fuzz(func(t *testing.T, subject, name, address, text, html, fileName, fileType, id string, content []byte, value string) {
		in := mail.Message{
			Kind:    mail.Report,
			From:    mail.Address{Address: "reports@example.com", Name: name},
			To:      []mail.Address{{Address: address, Name: name}, {Address: "ada@example.com"}},
			Cc:      []mail.Address{{Address: address}},
			Bcc:     []mail.Address{{Address: "secret@example.com"}},
			Subject: subject, Text: text, HTML: html,
			Attachments: []mail.Attachment{
				{Name: fileName, ContentType: fileType, Content: content},
				{Name: fileName, ContentType: fileType, ContentID: id, Content: content},
			},
			Headers:         map[string]string{"X-Value": value},
			ListUnsubscribe: "https://example.com/u",
		}
		if in.Validate(mail.Limits{}, accepted) != nil {
			return
		}
		c, err := mail.NewContent(&in, false)
		if err != nil {
			t.Fatal(err)
		}
		m, err := c.Fill("01JQZX", accepted, mail.Recipient{To: in.To})
		if err != nil {
			t.Fatal(err)
		}
		checkRoundTrip(t, m)
	})
}

func BenchmarkCompose(b *testing.B) {
	text := strings.Repeat("These are the figures of the month, as every month.\n", 40)
	for _, bench := range []struct{ name, text, html string }{
		{"text", text, ""},
		{"quoted", strings.ReplaceAll(text, "the", "thé"), ""},
		{"alternative", text, "<p>" + strings.ReplaceAll(text, "\n", "<br>") + "</p>"},
	} {
		m := outgoing()
		m.Text, m.HTML = bench.text, bench.html
		b.Run(fmt.Sprintf("%s=%d", bench.name, len(m.Text)+len(m.HTML)), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := mime.Compose(m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
