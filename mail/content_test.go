package mail_test

import (
	"encoding/json"
	"errors"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
)

func fill(t *testing.T, m mail.Message, r mail.Recipient) *mail.Outgoing {
	t.Helper()
	c, err := mail.NewContent(&m, true)
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.Fill("01J", now, r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestFillGivesTheWholeMessage(t *testing.T) {
	m := valid()
	m.To = nil
	m.Subject, m.Text, m.HTML = "For {{.name}}", "Dear {{.name}},", "<p>Dear {{.name}},</p>"
	r := mail.Recipient{To: []mail.Address{{Address: "ada@example.com"}}, Variables: map[string]any{"name": "A & B"}}
	want := &mail.Outgoing{
		ID: "01J", Kind: mail.Report, Date: now,
		From: m.From, To: r.To, Cc: m.Cc, Bcc: m.Bcc, ReplyTo: m.ReplyTo,
		Subject: "For A & B", Text: "Dear A & B,", HTML: "<p>Dear A &amp; B,</p>",
		Headers: m.Headers, ListUnsubscribe: m.ListUnsubscribe,
	}
	got := fill(t, m, r)
	if len(got.Files) != 2 || got.Files[0].Name != "figures.pdf" || got.Files[1].ContentID != "logo" || string(got.Files[1].Bytes) != "PNG" {
		t.Errorf("unexpected files: %+v", got.Files)
	}
	got.Files = nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestFillSharesFilesAndPrefersTheRecipientsOwn(t *testing.T) {
	m := valid()
	m.Bcc = append(m.Bcc, mail.Address{Address: "ada@example.com"})
	c, err := mail.NewContent(&m, true)
	if err != nil {
		t.Fatal(err)
	}
	one, err1 := c.Fill("1", now, mail.Recipient{To: []mail.Address{{Address: "ada@example.com"}}, ListUnsubscribe: "https://example.com/ada"})
	two, err2 := c.Fill("2", now, mail.Recipient{To: []mail.Address{{Address: "bob@example.com"}}})
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if one.Files[0] != two.Files[0] || one.Files[1] != two.Files[1] {
		t.Error("two messages of a batch have files of their own")
	}
	if one.ListUnsubscribe != "https://example.com/ada" || two.ListUnsubscribe != m.ListUnsubscribe {
		t.Errorf("unsubscribe by %q and %q", one.ListUnsubscribe, two.ListUnsubscribe)
	}
	if len(one.Recipients()) != 3 || len(two.Cc) != 0 || len(two.Bcc) != 2 {
		t.Errorf("a recipient gets the message twice: %v; %v", one.Recipients(), two.Recipients())
	}
}

func TestSingleMessageIsNoTemplate(t *testing.T) {
	m := valid()
	m.Subject, m.Text, m.HTML = "{{.name}}", "{{", "<!-- kept -->{{range}}"
	c, err := mail.NewContent(&m, false)
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.Fill("1", now, mail.Recipient{To: m.To})
	if err != nil || out.Subject != m.Subject || out.Text != m.Text || out.HTML != m.HTML {
		t.Errorf("got %+v, %v", out, err)
	}
}

func TestTemplates(t *testing.T) {
	variables := map[string]any{
		"name": "Ada", "empty": "", "yes": true, "n": 3, "million": 1e6, "half": 0.5, "tiny": 1e-7,
		"price": json.Number("12.50"), "count": json.Number("1000000"), "link": "https://example.com/?a=1&b=2", "tag": "<b>",
	}
	for _, test := range []struct{ text, want, html string }{
		{text: "no template", want: "no template"},
		{text: "{{.name}}!", want: "Ada!"},
		{text: "{{/* note */}}{{.name}}", want: "Ada"},
		{text: "{{if .yes}}a{{else}}b{{end}}", want: "a"},
		{text: "{{if and .yes (eq .n 3)}}three{{end}}", want: "three"},
		{text: "{{if gt .count 999}}many{{end}}", want: "many"},
		{text: "{{with .name}}Dear {{.}}{{else}}Hello{{end}}", want: "Dear Ada"},
		{text: "{{with .empty}}Dear {{.}}{{else}}Hello {{.name}}{{end}}", want: "Hello Ada"},
		{text: "{{with .name}}{{$.n}}{{end}}", want: "3"},
		{text: "{{$x := .name}}{{$x}}", want: "Ada"},
		{text: "{{or .empty .name}}", want: "Ada"},
		{text: "{{.million}} {{.count}} {{.price}} {{.half}} {{.tiny}}", want: "1000000 1000000 12.50 0.5 0.0000001"},
		{text: "{{.tag}}", want: "<b>", html: "&lt;b&gt;"},
		{text: `<a href="{{.link}}">`, want: `<a href="https://example.com/?a=1&b=2">`, html: `<a href="https://example.com/?a=1&amp;b=2">`},
		{text: "<!-- c -->{{.n}}<!--[if mso]><table><![endif]-->x<!--[if !mso]><!-->y<!--<![endif]-->", want: "<!-- c -->3<!--[if mso]><table><![endif]-->x<!--[if !mso]><!-->y<!--<![endif]-->",
			html: "3<!--[if mso]><table><![endif]-->x<!--[if !mso]><!-->y<!--<![endif]-->"},
	} {
		m := valid()
		m.Text, m.HTML = test.text, test.text
		out := fill(t, m, mail.Recipient{Variables: variables})
		if out.Text != test.want {
			t.Errorf("text %q became %q, want %q", test.text, out.Text, test.want)
		}
		html := test.html
		if html == "" {
			html = test.want
		}
		if out.HTML != html {
			t.Errorf("html %q became %q, want %q", test.text, out.HTML, html)
		}
	}
}

func TestTemplatesThatAreNotAllowed(t *testing.T) {
	for _, source := range []string{
		"{{", "{{.}}", "{{$}}", "{{.a.b}}", "{{(.a).b}}", "{{$.a.b}}", "{{$x := .a}}{{$x.b}}",
		"{{range .a}}x{{end}}", "{{range 1000000000}}x{{end}}", "{{break}}",
		`{{define "x"}}a{{end}}`, `{{define "x"}}{{template "x"}}{{end}}{{template "x"}}`, `{{block "x" .a}}{{end}}`,
		`{{printf "%999999999d" 1}}`, "{{print .a}}", "{{$x := print .a .a}}", "{{html .a}}", "{{.a | urlquery}}", `{{index . "a"}}`, "{{slice .a 1}}",
		"{{call .a}}", "{{nil}}", "{{with .a}}{{.b}}{{end}}", "{{unknown .a}}", "{{postroom_conditional 0}}",
		strings.Repeat("{{if .a}}", 1001) + strings.Repeat("{{end}}", 1001),
	} {
		for _, field := range []string{"/subject", "/text", "/html"} {
			m := valid()
			*map[string]*string{"/subject": &m.Subject, "/text": &m.Text, "/html": &m.HTML}[field] = source
			_, err := mail.NewContent(&m, true)
			if got := fields(t, err); !slices.Equal(got, []string{field}) {
				t.Errorf("%s %.40q: problems at %q, want it refused", field, source, got)
			}
		}
	}
	for _, source := range []string{
		"<script>{{if .a}}'{{end}}</script>",
		"<!--[if mso]>{{.a}}<![endif]-->",
	} {
		m := valid()
		m.HTML = source
		if _, err := mail.NewContent(&m, true); !slices.Equal(fields(t, err), []string{"/html"}) {
			t.Errorf("html %q: %v, want it refused", source, err)
		}
	}
}

func TestTemplateErrorNamesTheLine(t *testing.T) {
	m := valid()
	m.Text = "secret\n\n{{.x"
	_, err := mail.NewContent(&m, true)
	if err == nil || !strings.HasSuffix(err.Error(), ", line 3") || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v, want line 3 named and nothing quoted", err)
	}
}

func batch() mail.Batch {
	m := valid()
	m.To = nil
	m.Subject, m.Text, m.HTML = "For {{.name}}", "{{.n}}", `<a href="{{.link}}">{{.name}}</a>`
	one := func(to string) mail.Recipient {
		return mail.Recipient{
			To:        []mail.Address{{Address: to}},
			Variables: map[string]any{"name": "Ada", "n": json.Number("1"), "link": "https://example.com"},
		}
	}
	return mail.Batch{Message: m, Recipients: []mail.Recipient{one("ada@example.com"), one("eve@Example.com")}}
}

func TestBatchIsValidated(t *testing.T) {
	b := batch()
	refused, err := b.Validate(mail.Limits{}, now)
	if err != nil || len(refused) != 0 {
		t.Fatal(refused, err)
	}
	if got := b.Recipients[1].To[0].Address; got != "eve@example.com" {
		t.Errorf("the recipient is not in canonical form: %s", got)
	}
}

func TestBatchRefusesSingleRecipients(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*mail.Recipient)
		want   string
	}{
		{"no address", func(r *mail.Recipient) { r.To = nil }, "/to"},
		{"bad address", func(r *mail.Recipient) { r.To[0].Address = "eve" }, "/to/0/address"},
		{"too many addresses", func(r *mail.Recipient) { r.To = []mail.Address{{Address: "a@x"}, {Address: "b@x"}, {Address: "c@x"}} }, "/to"},
		{"bad unsubscribe", func(r *mail.Recipient) { r.ListUnsubscribe = "mailto:x@example.com" }, "/list_unsubscribe"},
		{"missing variable", func(r *mail.Recipient) { delete(r.Variables, "n") }, "/variables/n"},
		{"null", func(r *mail.Recipient) { r.Variables["n"] = nil }, "/variables/n"},
		{"list", func(r *mail.Recipient) { r.Variables["n"] = []any{1} }, "/variables/n"},
		{"no number", func(r *mail.Recipient) { r.Variables["n"] = math.NaN() }, "/variables/n"},
		{"not UTF-8", func(r *mail.Recipient) { r.Variables["n"] = "\xff" }, "/variables/n"},
		{"nameless variable", func(r *mail.Recipient) { r.Variables[""] = 1 }, "/variables"},
		{"variable too long", func(r *mail.Recipient) { r.Variables["n"] = strings.Repeat("x", 64<<10+1) }, "/variables/n"},
		{"subject breaks out", func(r *mail.Recipient) { r.Variables["name"] = "a\r\nBcc: x@example.com" }, "/variables"},
		{"subject too long", func(r *mail.Recipient) { r.Variables["name"] = strings.Repeat("x", 995) }, "/variables"},
		{"unsafe link", func(r *mail.Recipient) { r.Variables["link"] = "javascript:alert(1)" }, "/variables"},
		{"message too large", func(r *mail.Recipient) { r.Variables["n"] = strings.Repeat("x", 20000) }, "/variables"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := batch()
			test.change(&b.Recipients[1])
			refused, err := b.Validate(mail.Limits{MaxRecipients: 4, MaxBytes: 20000}, now)
			if err != nil {
				t.Fatal(err)
			}
			if len(refused) != 1 || len(refused[1]) != 1 || refused[1][0].Field != "/recipients/1"+test.want {
				t.Errorf("got %v, want one problem at /recipients/1%s", refused, test.want)
			}
		})
	}
}

func TestBatchComparesValuesOfOneKindOnly(t *testing.T) {
	b := batch()
	b.Message.Text = "{{if gt .n 0}}{{end}}"
	b.Recipients[0].Variables["n"] = "secret"
	refused, err := b.Validate(mail.Limits{}, now)
	if err != nil || len(refused) != 1 || len(refused[0]) != 1 || refused[0][0].Field != "/recipients/0/variables" {
		t.Fatal(refused, err)
	}
	if strings.Contains(refused[0][0].Reason, "secret") {
		t.Errorf("the reason quotes the value: %s", refused[0][0].Reason)
	}
}

func TestBatchIsRefusedAsAWhole(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*mail.Batch)
		want   string
	}{
		{"message with to", func(b *mail.Batch) { b.Message.To = []mail.Address{{Address: "x@example.com"}} }, "/message/to"},
		{"bad message", func(b *mail.Batch) { b.Message.Kind = "" }, "/message/kind"},
		{"bad template", func(b *mail.Batch) { b.Message.Text = "{{range .x}}{{end}}" }, "/message/text"},
		{"files too large", func(b *mail.Batch) { b.Message.Attachments[0].Content = make([]byte, 40<<20) }, "/message"},
		{"no recipients", func(b *mail.Batch) { b.Recipients = nil }, "/recipients"},
		{"too many recipients", func(b *mail.Batch) { b.Recipients = slices.Repeat(b.Recipients, 2) }, "/recipients"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := batch()
			test.change(&b)
			_, err := b.Validate(mail.Limits{MaxBatch: 3}, now)
			if got := fields(t, err); !slices.Equal(got, []string{test.want}) {
				t.Errorf("got problems at %q, want %s", got, test.want)
			}
		})
	}
}

func TestConstantsInTemplatesAreChecked(t *testing.T) {
	m := valid()
	m.Subject = `{{"\r\nBcc: x@example.com"}}`
	c, err := mail.NewContent(&m, true)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := c.Fill("1", now, mail.Recipient{}); err == nil {
		t.Errorf("the subject became %q", out.Subject)
	}
}

func TestFilledTextIsBounded(t *testing.T) {
	m := valid()
	m.Text = strings.Repeat("{{.a}}", 1000)
	c, err := mail.NewContent(&m, true)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Fill("1", now, mail.Recipient{Variables: map[string]any{"a": strings.Repeat("x", 60<<10)}})
	if got := fields(t, err); !slices.Equal(got, []string{"/variables"}) {
		t.Errorf("60 MB of text: %v", err)
	}
}

func FuzzFill(f *testing.F) {
	for _, s := range []string{
		"{{.name}}", "{{if .n}}a{{else with .name}}{{.}}{{end}}", `<a href="{{.name}}" title={{.n}}>`, "<script>{{.n}}</script>",
		"{{$x := .n}}{{$x}}", "<!--[if mso]>x<![endif]-->{{.n}}", `{{"\x00"}}`, "{{$ := .name}}{{$.n}}", "{{with $x := .n}}{{$x}}{{end}}",
	} {
		f.Add(s, "Ada")
	}
	f.Fuzz(func(t *testing.T, source, value string) {
		m := mail.Message{Kind: mail.Alert, Subject: source, Text: source, HTML: source}
		b := mail.Batch{Message: m, Recipients: []mail.Recipient{{
			To:        []mail.Address{{Address: "ada@example.com"}},
			Variables: map[string]any{"name": value, "n": 1.5},
		}}}
		refused, err := b.Validate(mail.Limits{}, now)
		if err != nil || len(refused) > 0 {
			return
		}
		c, err := mail.NewContent(&b.Message, true)
		if err != nil {
			t.Fatalf("accepted, and then: %v", err)
		}
		out, err := c.Fill("1", now, b.Recipients[0])
		if err != nil {
			t.Fatalf("accepted, and then: %v", err)
		}
		single := valid()
		single.Subject, single.Text, single.HTML = out.Subject, out.Text, out.HTML
		if out.Text == "" && out.HTML == "" {
			return
		}
		if err := single.Validate(mail.Limits{}, now); err != nil {
			t.Errorf("accepted, and filled it is not valid: %v", err)
		}
	})
}

func BenchmarkFill(b *testing.B) {
	m := valid()
	m.Subject = "Figures for {{.name}}"
	m.Text = "Dear {{.name}},\n" + strings.Repeat("these are the figures of the month.\n", 50) + "{{if .more}}More: {{.link}}{{end}}"
	m.HTML = ""
	c, err := mail.NewContent(&m, true)
	if err != nil {
		b.Fatal(err)
	}
	r := mail.Recipient{
		To:        []mail.Address{{Address: "ada@example.com"}},
		Variables: map[string]any{"name": "Ada", "more": true, "link": "https://example.com"},
	}
	accepted := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Fill("01J", accepted, r); err != nil {
			b.Fatal(err)
		}
	}
}

func TestWhatIsWrongWithATemplateIsNamedAndNotQuoted(t *testing.T) {
	for source, want := range map[string]string{
		"Hi {{.secret":                           "has a {{ that is not closed: write }} behind it, line 1",
		"\n{{.secret\n\n":                        "has a {{ that is not closed: write }} behind it, line 4",
		"\n{{secret .name}}":                     "calls a function that there is not: there are and, or, not, len, eq, ne, lt, le, gt and ge, and a variable has a dot in front, such as {{.name}}, line 2",
		"{{html .secret}}":                       "calls a function that there is not: there are and, or, not, len, eq, ne, lt, le, gt and ge, and a variable has a dot in front, such as {{.name}}",
		"{{if .secret}}x":                        "has an if or with that is not closed: write {{end}} where it ends, line 1",
		"{{end}}":                                "has an {{end}} that closes nothing: remove it, or write {{if}} or {{with}} before it, line 1",
		"{{else}}":                               "has an {{else}} that is in no if or with: remove it, or write {{if}} or {{with}} before it, line 1",
		"{{if .secret}}{{else}}{{else}}{{end}}":  "has two {{else}} in one if or with: remove one, line 1",
		"{{if}}{{end}}":                          "has a {{ }} that lacks a value: name a variable, such as {{.name}} or {{if .name}}, line 1",
		"{{.first-secret}}":                      "has a character that can't stand in {{ }}: a name has letters, digits and _ only, and }} closes it, line 1",
		"{{.secret}":                             "has a character that can't stand in {{ }}: a name has letters, digits and _ only, and }} closes it, line 1",
		`{{eq .secret "x}}`:                      "has a quotation mark in {{ }} that is not closed, line 1",
		"{{not (.secret }}":                      "has a parenthesis in {{ }} that is not closed, line 1",
		"{{.secret) }}":                          "has a closing parenthesis in {{ }} without one that opens, line 1",
		"{{/* secret":                            "has a comment that is not closed: write */}} behind it, line 1",
		"{{$secret}}":                            "names a variable by $ that it does not define: write {{.name}}, line 1",
		"{{.secret,b}}":                          "is not a template: see to what stands in {{ }}, line 1",
		`{{function "unclosed action" .secret}}`: "calls a function that there is not: there are and, or, not, len, eq, ne, lt, le, gt and ge, and a variable has a dot in front, such as {{.name}}, line 1",
	} {
		for _, field := range []string{"/text", "/html"} {
			m := valid()
			*map[string]*string{"/text": &m.Text, "/html": &m.HTML}[field] = source
			var invalid *mail.Invalid
			if _, err := mail.NewContent(&m, true); !errors.As(err, &invalid) || invalid.Problems[0] != (mail.Problem{Field: field, Reason: want}) {
				t.Errorf("%q: %v, want %q", source, err, want)
			}
		}
	}
}

func TestTheURIForUnsubscribingIsAVariable(t *testing.T) {
	const shared, own, given = "https://example.com/all", "https://example.com/ada", "https://example.com/given"
	for name, test := range map[string]struct {
		text, shared string
		r            mail.Recipient
		want         any
		fault        string
	}{
		"the recipient's":     {"{{.list_unsubscribe}}", shared, mail.Recipient{ListUnsubscribe: own}, own, ""},
		"the message's":       {"{{.list_unsubscribe}}", shared, mail.Recipient{Variables: map[string]any{"n": 1}}, shared, ""},
		"a variable":          {"{{.list_unsubscribe}}", shared, mail.Recipient{ListUnsubscribe: own, Variables: map[string]any{"list_unsubscribe": given}}, given, ""},
		"none":                {"{{.list_unsubscribe}}", "", mail.Recipient{}, nil, "/recipients/0/variables/list_unsubscribe"},
		"not used":            {"{{.n}}", shared, mail.Recipient{ListUnsubscribe: own, Variables: map[string]any{"n": 1}}, nil, ""},
		"none that is a URI":  {"{{.list_unsubscribe}}", "", mail.Recipient{ListUnsubscribe: "http://example.com"}, nil, "/recipients/0/list_unsubscribe"},
		"used in another way": {"{{if .list_unsubscribe}}x{{end}}", "", mail.Recipient{ListUnsubscribe: own}, own, ""},
	} {
		t.Run(name, func(t *testing.T) {
			test.r.To = []mail.Address{{Address: "ada@example.com"}}
			handed := maps.Clone(test.r.Variables)
			b := mail.Batch{Message: mail.Message{Kind: mail.Report, Text: test.text, ListUnsubscribe: test.shared}, Recipients: []mail.Recipient{test.r}}
			refused, err := b.Validate(mail.Limits{}, now)
			if err != nil || (len(refused) > 0) != (test.fault != "") || test.fault != "" && refused[0][0].Field != test.fault {
				t.Fatal(refused, err)
			}
			if got := b.Recipients[0].Variables["list_unsubscribe"]; got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
			if got := b.Recipients[0].Variables["n"]; got != handed["n"] {
				t.Errorf("another variable became %v", got)
			}
			if !maps.Equal(test.r.Variables, handed) {
				t.Errorf("what was handed in was changed: %v", test.r.Variables)
			}
		})
	}
}
