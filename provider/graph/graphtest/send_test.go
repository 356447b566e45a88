package graphtest

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestSendMailAnswersWith202AndNothingElse(t *testing.T) {
	r := newRig(t, Options{})
	p := r.graph("POST", user("sendMail"), mailOf(message("x")))
	r.want("send", p, 202, "")
	if len(p.body) != 0 || p.header.Get("Content-Length") != "0" || p.header.Get("request-id") == "" || p.header.Get("Retry-After") != "" {
		t.Errorf("%q with %v", p.body, p.header)
	}
}

func TestErrorsHaveTheFormOfGraph(t *testing.T) {
	r := newRig(t, Options{})
	p := r.graph("POST", user("sendMail"), `{}`, "client-request-id", "mine")
	var b struct {
		Error struct {
			Code, Message string
			InnerError    map[string]string
		}
	}
	if err := json.Unmarshal(p.body, &b); err != nil {
		t.Fatal(err)
	}
	inner := b.Error.InnerError
	if _, err := time.Parse("2006-01-02T15:04:05", inner["date"]); err != nil || b.Error.Code != "BadRequest" || b.Error.Message == "" ||
		inner["request-id"] != p.header.Get("request-id") || inner["request-id"] == "" || inner["client-request-id"] != "mine" ||
		!strings.HasPrefix(p.header.Get("Content-Type"), "application/json") {
		t.Errorf("%v: %s with %v", err, p.body, p.header)
	}
}

// list gives n recipients.
func list(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(`{"emailAddress":{"address":"u%d@example.org"}}`, i))
	}
	return "[" + strings.Join(all, ",") + "]"
}

// headers gives n internet message headers.
func headers(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(`{"name":"X-H%d","value":"v"}`, i))
	}
	return `"internetMessageHeaders":[` + strings.Join(all, ",") + "]"
}

func TestSendMailChecksWhatIsSent(t *testing.T) {
	r := newRig(t, Options{Mailboxes: []Mailbox{{Address: sender, SendAs: []string{"Sales@example.com"}}},
		Limits: &Limits{RecipientsPerMessage: 500, MessageBytes: 100_000, RequestBytes: 200_000}})
	const to = `"toRecipients":[{"emailAddress":{"address":"ada@example.org"}}]`
	m := func(more string) string { return mailOf(`{` + to + `,` + more + `}`) }
	file := func(n int) string {
		return `"attachments":[{"@odata.type":"#microsoft.graph.fileAttachment","name":"a","contentBytes":"` + base64.StdEncoding.EncodeToString(make([]byte, n)) + `"}]`
	}
	for name, test := range map[string]struct {
		body   string
		status int
		code   string
	}{
		"the least":                    {mailOf(`{` + to + `}`), 202, ""},
		"parameters in any case":       {`{"Message":{` + to + `},"SaveToSentItems":false}`, 202, ""},
		"the flag as a string":         {`{"message":{` + to + `},"saveToSentItems":"false"}`, 202, ""},
		"null":                         {m(`"subject":null,"internetMessageHeaders":null`), 202, ""},
		"its own type":                 {m(`"@odata.type":"#microsoft.graph.message"`), 202, ""},
		"five headers":                 {m(headers(5)), 202, ""},
		"List-Unsubscribe":             {m(`"singleValueExtendedProperties":[{"id":"String 0x1045","value":"<https://example.com/u>"}]`), 202, ""},
		"a property of one's own":      {m(`"singleValueExtendedProperties":[{"id":"String {8ECCC264-6880-4EBE-992F-8888D2EEAA1D} Name Test","value":"1"}]`), 202, ""},
		"500 recipients":               {mailOf(`{"toRecipients":` + list(200) + `,"ccRecipients":` + list(200) + `,"bccRecipients":` + list(100) + `}`), 202, ""},
		"from itself":                  {m(`"from":{"emailAddress":{"address":"REPORTS@example.com"}}`), 202, ""},
		"from one it may send as":      {m(`"from":{"emailAddress":{"address":"sales@example.com"}}`), 202, ""},
		"a file":                       {m(file(70_000)), 202, ""},
		"not JSON":                     {`{"message":`, 400, "BadRequest"},
		"more than JSON":               {mailOf(message("x")) + "{}", 400, "BadRequest"},
		"not an object":                {`[]`, 400, "BadRequest"},
		"no message":                   {`{"saveToSentItems":false}`, 400, "BadRequest"},
		"the message itself":           {message("x"), 400, "BadRequest"},
		"a flag that is none":          {`{"message":{` + to + `},"saveToSentItems":0}`, 400, "RequestBodyRead"},
		"an unknown property":          {m(`"Subject":"x"`), 400, "RequestBodyRead"},
		"an unknown property below":    {mailOf(`{"toRecipients":[{"address":"ada@example.org"}]}`), 400, "RequestBodyRead"},
		"a wrong type":                 {m(`"subject":5`), 400, "RequestBodyRead"},
		"a wrong type of list":         {mailOf(`{"toRecipients":{"emailAddress":{"address":"ada@example.org"}}}`), 400, "RequestBodyRead"},
		"null in a list":               {mailOf(`{"toRecipients":[null]}`), 400, "RequestBodyRead"},
		"another @odata.type":          {m(`"@odata.type":"#microsoft.graph.event"`), 400, "RequestBodyRead"},
		"another content type":         {m(`"body":{"contentType":"markdown","content":"x"}`), 400, "RequestBodyRead"},
		"what only the service sets":   {m(`"id":"x"`), 400, "ErrorInvalidPropertySet"},
		"no recipients":                {mailOf(`{"subject":"x"}`), 400, "ErrorInvalidRecipients"},
		"no address":                   {mailOf(`{"toRecipients":[{"emailAddress":{"name":"Ada"}}]}`), 400, "ErrorInvalidRecipients"},
		"two addresses in one":         {mailOf(`{"toRecipients":[{"emailAddress":{"address":"a@example.org;b@example.org"}}]}`), 400, "ErrorInvalidRecipients"},
		"an address with a name":       {mailOf(`{"ccRecipients":[{"emailAddress":{"address":"Ada <a@example.org>"}}]}`), 400, "ErrorInvalidRecipients"},
		"501 recipients":               {mailOf(`{"toRecipients":` + list(200) + `,"ccRecipients":` + list(200) + `,"bccRecipients":` + list(101) + `}`), 400, "ErrorInvalidRecipients"},
		"an empty list of headers":     {m(headers(0)), 400, "InvalidInternetMessageHeaderCollection"},
		"six headers":                  {m(headers(6)), 400, "InvalidInternetMessageHeaderCollection"},
		"a standard header":            {m(`"internetMessageHeaders":[{"name":"Auto-Submitted","value":"auto-generated"}]`), 400, "InvalidInternetMessageHeader"},
		"a header with a space":        {m(`"internetMessageHeaders":[{"name":"X-A B","value":"v"}]`), 400, "InvalidInternetMessageHeader"},
		"a header of two lines":        {m(`"internetMessageHeaders":[{"name":"X-A","value":"v\r\nBcc: x@example.org"}]`), 400, "InvalidInternetMessageHeader"},
		"a header without a value":     {m(`"internetMessageHeaders":[{"name":"X-A"}]`), 400, "InvalidInternetMessageHeader"},
		"a property's id":              {m(`"singleValueExtendedProperties":[{"id":"0x1045","value":"x"}]`), 400, "ErrorInvalidExtendedProperty"},
		"an attachment without a type": {m(`"attachments":[{"name":"a","contentBytes":""}]`), 400, "RequestBodyRead"},
		"an attachment without bytes":  {m(`"attachments":[{"@odata.type":"#microsoft.graph.fileAttachment","name":"a"}]`), 400, "ErrorRequiredPropertyMissing"},
		"bytes that are not base64":    {m(`"attachments":[{"@odata.type":"#microsoft.graph.fileAttachment","name":"a","contentBytes":"!"}]`), 400, "RequestBodyRead"},
		"another attachment":           {m(`"attachments":[{"@odata.type":"#microsoft.graph.itemAttachment","name":"a"}]`), 501, "NotImplemented"},
		"from somebody else":           {m(`"from":{"emailAddress":{"address":"boss@example.com"}}`), 403, "ErrorSendAsDenied"},
		"sender is somebody else":      {m(`"sender":{"emailAddress":{"address":"boss@example.com"}}`), 403, "ErrorSendAsDenied"},
		"too large a message":          {m(file(75_000)), 400, "ErrorMessageSizeExceeded"},
		"too large a request":          {m(file(150_000)), 413, "BadRequest"},
	} {
		before := r.Received()
		r.want(name, r.graph("POST", user("sendMail"), test.body), test.status, test.code)
		if sent := r.Received() - before; sent == 1 != (test.status == 202) {
			t.Errorf("%s: %d messages were sent", name, sent)
		}
	}
}

func TestPathsMethodsAndTypesAreChecked(t *testing.T) {
	r := newRig(t, Options{})
	for name, test := range map[string]struct {
		method, path, body, kind string
		status                   int
		code                     string
	}{
		"in any case":         {"POST", "Users/" + sender + "/SendMail", mailOf(message("x")), "application/json; charset=utf-8", 202, ""},
		"an escaped address":  {"POST", "users/reports%40example.com/sendMail", mailOf(message("x")), "application/json", 202, ""},
		"no Content-Type":     {"POST", user("sendMail"), mailOf(message("x")), "", 400, "BadRequest"},
		"another type":        {"POST", user("sendMail"), mailOf(message("x")), "text/html", 415, "UnsupportedMediaType"},
		"another method":      {"GET", user("sendMail"), "", "", 405, "ErrorInvalidRequest"},
		"another path":        {"POST", user("sendEverything"), "{}", "application/json", 400, "BadRequest"},
		"me":                  {"POST", "me/sendMail", mailOf(message("x")), "application/json", 400, "BadRequest"},
		"no such user":        {"POST", "users/nobody@example.com/sendMail", mailOf(message("x")), "application/json", 404, "ErrorInvalidUser"},
		"an id that is none":  {"GET", user("messages/x"), "", "", 400, "ErrorInvalidIdMalformed"},
		"an id of nothing":    {"GET", user("messages/" + newID(regularID)), "", "", 404, "ErrorItemNotFound"},
		"an unknown folder":   {"GET", user("mailFolders/archive"), "", "", 404, "ErrorItemNotFound"},
		"an unknown option":   {"GET", user("messages?$search=x"), "", "", 400, "BadRequest"},
		"an unknown filter":   {"GET", user("messages?$filter=x"), "", "", 400, "BadRequest"},
		"a top that is none":  {"GET", user("messages?$top=0"), "", "", 400, "BadRequest"},
		"another folder's":    {"GET", user("mailFolders/archive/messages"), "", "", 404, "ErrorItemNotFound"},
		"the other version":   {"POST", "../beta/" + user("sendMail"), mailOf(message("x")), "application/json", 400, "BadRequest"},
		"an empty part of it": {"POST", "users//sendMail", mailOf(message("x")), "application/json", 400, "BadRequest"},
	} {
		p := r.do(test.method, r.GraphURL()+"/v1.0/"+test.path, test.body, "Authorization", "Bearer "+r.token, "Content-Type", test.kind)
		r.want(name, p, test.status, test.code)
	}
}

func TestMailboxesHaveStates(t *testing.T) {
	r := newRig(t, Options{})
	for _, test := range []struct {
		state  State
		status int
		code   string
	}{
		{Available, 202, ""},
		{Unlicensed, 404, "MailboxNotEnabledForRESTAPI"},
		{Denied, 403, "ErrorAccessDenied"},
		{Full, 507, "ErrorQuotaExceeded"},
		{Blocked, 403, "ErrorMessageSubmissionBlocked"},
		{Available, 202, ""},
	} {
		r.SetMailbox(Mailbox{Address: sender, State: test.state})
		r.want(string(test.state), r.graph("POST", user("sendMail"), mailOf(message("x"))), test.status, test.code)
	}
	id := r.draft()
	r.SetMailbox(Mailbox{Address: sender, State: Full})
	r.want("a draft in a full mailbox", r.graph("POST", user("messages"), message("x")), 507, "ErrorQuotaExceeded")
	r.want("sending it", r.graph("POST", user("messages/"+id+"/send"), nil), 507, "ErrorQuotaExceeded")
	r.RemoveMailbox(sender)
	r.want("removed", r.graph("POST", user("sendMail"), mailOf(message("x"))), 404, "ErrorInvalidUser")
}

func TestAMailboxFillsUpWithSentItems(t *testing.T) {
	r := newRig(t, Options{Mailboxes: []Mailbox{{Address: sender, Quota: 2500}}, Limits: &Limits{}})
	text := strings.Repeat("x", 1000)
	body := `{"message":{"body":{"contentType":"text","content":"` + text + `"},"toRecipients":[{"emailAddress":{"address":"ada@example.org"}}]}`
	for range 5 {
		r.want("without a copy", r.graph("POST", user("sendMail"), body+`,"saveToSentItems":false}`), 202, "")
	}
	for range 2 {
		r.want("with a copy, by default", r.graph("POST", user("sendMail"), body+`}`), 202, "")
	}
	r.want("full", r.graph("POST", user("sendMail"), body+`,"saveToSentItems":false}`), 507, "ErrorQuotaExceeded")
}

const sampleMIME = "From: =?utf-8?q?J=C3=BCrgen?= <reports@example.com>\r\nTo: Ada <ada@example.org>, bob@example.org\r\nBcc: carl@example.org\r\n" +
	"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <1@example.com>\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n" +
	"Content-Type: multipart/mixed; boundary=outer\r\n\r\n" +
	"--outer\r\nContent-Type: multipart/related; boundary=inner\r\n\r\n" +
	"--inner\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<p class=3D\"a\">Hi</p>\r\n" +
	"--inner\r\nContent-Type: image/png\r\nContent-ID: <logo>\r\nContent-Disposition: inline\r\nContent-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n--inner--\r\n" +
	"--outer\r\nContent-Type: text/plain\r\n\r\nHello\r\n" +
	"--outer\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=\"report.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\nJVBE\r\nRi0=\r\n" +
	"--outer--\r\n"

func TestMessagesAreKeptWithAllTheirParts(t *testing.T) {
	r := newRig(t, Options{})
	pdf := base64.StdEncoding.EncodeToString([]byte("%PDF-"))
	json := `{"message":{"subject":"Grüße","body":{"contentType":"HTML","content":"<p>Hi</p>"},"from":{"emailAddress":{"address":"reports@example.com","name":"Jürgen"}},
		"toRecipients":[{"emailAddress":{"address":"ada@example.org","name":"Ada"}},{"emailAddress":{"address":"bob@example.org"}}],
		"bccRecipients":[{"emailAddress":{"address":"carl@example.org"}}],"replyTo":[{"emailAddress":{"address":"help@example.com"}}],
		"internetMessageHeaders":[{"name":"x-report","value":"7"}],"internetMessageId":"<1@example.com>",
		"singleValueExtendedProperties":[{"id":"String 0x1045","value":"<https://example.com/u>"}],
		"attachments":[{"@odata.type":"#microsoft.graph.fileAttachment","name":"logo.png","contentType":"image/png","contentId":"logo","isInline":true,"contentBytes":"aGVsbG8="},
		{"@odata.type":"#microsoft.graph.fileAttachment","name":"report.pdf","contentType":"application/pdf","contentBytes":"` + pdf + `"}]}}`
	r.want("JSON", r.graph("POST", user("sendMail"), json), 202, "")
	r.want("MIME", r.do("POST", r.GraphURL()+"/v1.0/"+user("sendMail"), wrapped(sampleMIME), "Authorization", "Bearer "+r.token, "Content-Type", "text/plain"), 202, "")

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := r.WaitFor(ctx, 2); err != nil {
		t.Fatal(err)
	}
	for i, m := range r.Messages() {
		if m.ID != uint64(i+1) || m.Mailbox != sender || m.App != DefaultClientID || m.Subject != "Grüße" || m.From.Name != "Jürgen" ||
			m.From.Address != sender || m.MessageID != "<1@example.com>" || !m.Saved {
			t.Errorf("%+v", m)
		}
		if fmt.Sprint(m.To, m.Bcc) != "[{ada@example.org Ada} {bob@example.org }] [{carl@example.org }]" {
			t.Errorf("%s: to %v, bcc %v", m.Form, m.To, m.Bcc)
		}
		if len(m.Files) != 2 || m.Files[0].ContentID != "logo" || !m.Files[0].Inline || string(m.Files[0].Content) != "hello" || m.Files[1].Inline ||
			m.Files[1].Name != "report.pdf" || m.Files[1].SHA256 != fmt.Sprintf("%x", sha256.Sum256([]byte("%PDF-"))) {
			t.Errorf("%s: %+v", m.Form, m.Files)
		}
	}
	one, two := r.Messages()[0], r.Messages()[1]
	if one.Form != FormJSON || one.HTML != "<p>Hi</p>" || one.Text != "" || one.Header("X-Report") != "7" ||
		one.Header("String 0x1045") != "<https://example.com/u>" || one.ReplyTo[0].Address != "help@example.com" {
		t.Errorf("%+v", one)
	}
	if two.Form != FormMIME || two.HTML != "<p class=\"a\">Hi</p>" || two.Text != "Hello" || two.Header("auto-submitted") != "auto-generated" || string(two.Raw) != sampleMIME {
		t.Errorf("%+v", two)
	}
}

// wrapped gives base64 in lines, as Microsoft's example has it.
func wrapped(text string) string {
	b := base64.StdEncoding.EncodeToString([]byte(text))
	var lines strings.Builder
	for len(b) > 76 {
		lines.WriteString(b[:76] + "\n")
		b = b[76:]
	}
	return lines.String() + b + "\n"
}

func TestMIMEIsChecked(t *testing.T) {
	r := newRig(t, Options{Limits: &Limits{RequestBytes: 10_000, MIMEBytes: 5_000}})
	for name, test := range map[string]struct {
		body   string
		status int
		code   string
	}{
		"as it is":             {sampleMIME, 400, "ErrorMimeContentInvalidBase64String"},
		"nothing":              {"", 400, "ErrorMimeContentInvalidBase64String"},
		"no header":            {wrapped("hello"), 400, "ErrorMimeContentInvalid"},
		"a broken part":        {wrapped("To: a@example.org\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n\r\nhalf of it"), 400, "ErrorMimeContentInvalid"},
		"no part at all":       {wrapped("To: a@example.org\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\nhello"), 400, "ErrorMimeContentInvalid"},
		"two senders":          {wrapped("From: a@example.org, b@example.org\r\nTo: a@example.org\r\n\r\nx"), 400, "ErrorMimeContentInvalid"},
		"no recipients":        {wrapped("Subject: x\r\n\r\nx"), 400, "ErrorInvalidRecipients"},
		"from somebody else":   {wrapped("From: boss@example.com\r\nTo: a@example.org\r\n\r\nx"), 403, "ErrorSendAsDenied"},
		"too large":            {wrapped("To: a@example.org\r\n\r\n" + strings.Repeat("x", 5000)), 413, "BadRequest"},
		"as large as allowed":  {wrapped("To: a@example.org\r\n\r\n" + strings.Repeat("x", 3500)), 202, ""},
		"without a From field": {wrapped("To: a@example.org\r\n\r\nx"), 202, ""},
	} {
		r.want(name, r.do("POST", r.GraphURL()+"/v1.0/"+user("sendMail"), test.body, "Authorization", "Bearer "+r.token, "Content-Type", "text/plain"), test.status, test.code)
	}
}

func TestWaitForEndsWithItsContext(t *testing.T) {
	r := newRig(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.WaitFor(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := r.WaitFor(ctx, 0); err != nil {
		t.Errorf("nothing to wait for: %v", err)
	}
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	r := newRig(t, Options{MaxMessages: 3, MaxBytes: 25, MaxRequests: 4, Limits: &Limits{}})
	for i := range 6 {
		r.want("send", r.graph("POST", user("sendMail"), mailOf(message(fmt.Sprint(i)))), 202, "")
	}
	kept := r.Messages()
	if len(kept) != 3 || kept[2].Subject != "5" || r.Received() != 6 || len(r.Requests()) != 4 || r.Usage("").Requests != 6 {
		t.Errorf("%d messages and %d requests are kept", len(kept), len(r.Requests()))
	}
	long := strings.Replace(message("long"), "hello", strings.Repeat("x", 30), 1)
	r.want("send", r.graph("POST", user("sendMail"), mailOf(long)), 202, "")
	if kept := r.Messages(); len(kept) != 1 || kept[0].Subject != "long" {
		t.Errorf("%d messages are kept", len(kept))
	}
}

// Whatever comes in MIME form is taken apart, or refused.
func FuzzMIME(f *testing.F) {
	f.Add([]byte(sampleMIME))
	f.Add([]byte("no header"))
	f.Add([]byte("Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n"))
	f.Add([]byte("Content-Transfer-Encoding: base64\r\n\r\n!!!"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if m, err := parseMIME(raw); err == nil && len(m.Files) > maxParts {
			t.Fatalf("%d files", len(m.Files))
		}
	})
}

// What the shape of a message lets through can be decoded.
func FuzzMessage(f *testing.F) {
	f.Add([]byte(message("x")))
	f.Add([]byte(`{"attachments":[{"@odata.type":"#microsoft.graph.fileAttachment","name":"a","contentBytes":"aGk=","size":1}],"flag":[1]}`))
	f.Add([]byte(`{"body":null,"toRecipients":null,"isRead":true,"categories":["a"],` + headers(2) + `}`))
	f.Add([]byte(`{"from":{"emailAddress":null},"singleValueExtendedProperties":[{"id":"String 0x1045"}]}`))
	f.Add([]byte(`{"toRecipients":[{"emailAddress":{"address":"\ud800"}}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		value, fault := parse(body)
		if fault != nil {
			return
		}
		if o, fault := readMessage(value); fault == nil {
			m := &Message{}
			m.apply(o)
			m.encodedSize()
			for _, a := range m.recipients() {
				resolvable(a)
			}
		}
	})
}
