package graph

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

func accepts(int, call) reply { return reply{status: 202} }

func TestSendMailSaysAllThatGraphTakes(t *testing.T) {
	r := newRig(t, nil, accepts)
	d := withFile(letter("ada@example.net", "bob@example.net"), "report.pdf", 1000)
	m := d.Message
	m.HTML, m.ReplyTo, m.ListUnsubscribe = "<b>é</b>", []mail.Address{{Address: "re@example.com"}}, "https://example.com/u?a=1&b=2"
	m.Cc, m.Bcc = []mail.Address{{Address: "carl@example.net", Name: "Carl"}}, []mail.Address{{Address: "dora@example.net"}}
	m.Headers = map[string]string{"X-Two": "2", "X-One": "1"}
	m.Files = append(m.Files, &mail.File{Name: "logo.png", ContentType: "image/png", ContentID: "logo", Bytes: []byte{1}})
	d.Recipients = append(m.Recipients()[1:], []mail.Address{}...) // Ada has it already
	out := r.deliver(d)
	for _, o := range out {
		if o.Class != mail.Delivered || o.Code != 202 || o.Reply != "req-1" {
			t.Errorf("%+v", o)
		}
	}
	c := r.calls[0]
	want := `{"message":{"subject":"Hello","body":{"contentType":"html","content":"<b>é</b>"},` +
		`"from":{"emailAddress":{"name":"Reports","address":"reports@example.com"}},"toRecipients":[{"emailAddress":{"address":"bob@example.net"}}],` +
		`"ccRecipients":[{"emailAddress":{"name":"Carl","address":"carl@example.net"}}],"bccRecipients":[{"emailAddress":{"address":"dora@example.net"}}],` +
		`"replyTo":[{"emailAddress":{"address":"re@example.com"}}],"internetMessageHeaders":[{"name":"X-One","value":"1"},{"name":"X-Two","value":"2"}],` +
		`"singleValueExtendedProperties":[{"id":"String 0x1045","value":"<https://example.com/u?a=1&b=2>"}],"attachments":[`
	if r.seen() != "POST /sendMail" || !strings.HasPrefix(string(c.body), want) || !strings.HasSuffix(string(c.body), `]},"saveToSentItems":false}`) {
		t.Errorf("%s\n%s", r.seen(), c.body)
	}
	if c.header.Get("Authorization") != "Bearer token" || c.header.Get("Content-Type") != "application/json" {
		t.Errorf("%v", c.header)
	}
	if u := *d.Used; u != (provider.Usage{Messages: 1, Requests: 1, Recipients: 3, UploadBytes: int64(len(c.body))}) {
		t.Errorf("%+v", u)
	}
	files := c.json(t)["message"].(map[string]any)["attachments"].([]any)
	if len(files) != 2 || fmt.Sprint(files[1]) != "map[@odata.type:#microsoft.graph.fileAttachment contentBytes:AQ== contentId:logo contentType:image/png isInline:true name:logo.png]" {
		t.Errorf("%v", files[1])
	}
}

func TestWhatGraphDoesNotTakeIsNotSent(t *testing.T) {
	r := newRig(t, nil, accepts)
	six := map[string]string{}
	for i := range 6 {
		six[fmt.Sprint("X-", i)] = "v"
	}
	for name, change := range map[string]func(*mail.Outgoing){
		"six headers":   func(m *mail.Outgoing) { m.Headers = six },
		"another name":  func(m *mail.Outgoing) { m.Headers = map[string]string{"Precedence": "bulk"} },
		"too much text": func(m *mail.Outgoing) { m.HTML = strings.Repeat("x", 3_000_000) },
	} {
		d := letter("ada@example.net")
		change(d.Message)
		d.Fence = func() error { t.Error("fenced"); return nil }
		out, err := r.Send(t.Context(), d)
		if err != nil || out[0].Class != mail.Permanent || out[0].Scope != mail.ScopeMessage || out[0].Step != stepRender || r.seen() != "" {
			t.Errorf("%s: %+v, %v, %s", name, out, err, r.seen())
		}
	}
}

// problem is an error of Graph.
func problem(status int, code string) reply {
	return reply{status: status, body: `{"error":{"code":"` + code + `","message":"Said in many words.","innerError":{"date":"2026-11-22T10:00:00","request-id":"req-1"}}}`}
}

func TestEachAnswer(t *testing.T) {
	const own, prv, msg = mail.ScopeMailbox, mail.ScopeProvider, mail.ScopeMessage
	after := func(text string, r reply) reply { r.header = http.Header{"Retry-After": {text}}; return r }
	for name, test := range map[string]struct {
		reply reply
		class mail.Class
		scope mail.Scope
		cause mail.Cause
		pause time.Duration
	}{
		"accepted, and asked for time":     {after("30", reply{status: 202}), mail.Delivered, msg, "", 0},
		"another success":                  {reply{status: 200}, mail.Unknown, msg, "", 0},
		"a redirect":                       {reply{status: 302, header: http.Header{"Location": {"/elsewhere"}}}, mail.Configuration, prv, "", 0},
		"wrong recipients":                 {problem(400, "ErrorInvalidRecipients"), mail.Permanent, msg, mail.AddressInvalid, 0},
		"no recipients":                    {problem(400, "ErrorMissingRecipients"), mail.Permanent, msg, "", 0},
		"too large":                        {problem(413, "ErrorMessageSizeExceeded"), mail.Permanent, msg, mail.TooLarge, 0},
		"too large for a request":          {reply{status: 413, body: "<html>"}, mail.Permanent, msg, mail.TooLarge, 0},
		"wrong MIME":                       {problem(400, "ErrorMimeContentInvalidBase64String"), mail.Permanent, msg, "", 0},
		"a wrong header":                   {problem(400, "InvalidInternetMessageHeader"), mail.Permanent, msg, "", 0},
		"another 400":                      {problem(400, "BadRequest"), mail.Permanent, msg, "", 0},
		"unprocessable":                    {problem(422, "x"), mail.Permanent, msg, "", 0},
		"no permission":                    {problem(403, "ErrorAccessDenied"), mail.Configuration, own, mail.PermissionMissing, 0},
		"not this sender":                  {problem(403, "ErrorSendAsDenied"), mail.Configuration, own, mail.SendAsDenied, 0},
		"no such user":                     {problem(404, "ErrorInvalidUser"), mail.Configuration, own, mail.MailboxNotFound, 0},
		"no mailbox":                       {problem(404, "MailboxNotEnabledForRESTAPI"), mail.Configuration, own, mail.MailboxNotFound, 0},
		"mailbox full":                     {problem(507, "ErrorQuotaExceeded"), mail.Configuration, own, mail.MailboxFull, 0},
		"throttled":                        {after("2.128", problem(429, "ApplicationThrottled")), mail.Throttled, own, mail.RateExceeded, 2128 * time.Millisecond},
		"throttled without a time":         {problem(429, "TooManyRequests"), mail.Throttled, own, mail.RateExceeded, 0},
		"throttled without a code":         {after("60", reply{status: 429}), mail.Throttled, own, mail.RateExceeded, time.Minute},
		"unavailable for a time":           {after("7", reply{status: 503}), mail.Throttled, own, mail.RateExceeded, 7 * time.Second},
		"bandwidth":                        {reply{status: 509}, mail.Throttled, own, mail.RateExceeded, 0},
		"busy":                             {problem(503, "ErrorServerBusy"), mail.Throttled, own, mail.RateExceeded, 0},
		"submission quota":                 {problem(429, "ErrorSubmissionQuotaExceeded"), mail.Throttled, own, mail.QuotaExceeded, time.Hour},
		"unavailable":                      {reply{status: 503}, mail.Temporary, msg, "", 0},
		"store away":                       {problem(503, "ErrorMailboxStoreUnavailable"), mail.Temporary, msg, "", 0},
		"mailbox moves":                    {problem(500, "ErrorMailboxMoveInProgress"), mail.Temporary, msg, "", 0},
		"transient":                        {problem(500, "ErrorInternalServerTransientError"), mail.Temporary, msg, "", 0},
		"a fault there":                    {reply{status: 500}, mail.Unknown, msg, "", 0},
		"a bad gateway":                    {reply{status: 502, body: "<html>"}, mail.Unknown, msg, "", 0},
		"a gateway that waited in vain":    {problem(504, "UnknownError"), mail.Unknown, msg, "", 0},
		"unknown, by its code":             {problem(400, "UnknownError"), mail.Unknown, msg, "", 0},
		"hung up":                          {reply{cut: true}, mail.Unknown, msg, "", 0},
		"a token that is refused for good": {problem(401, "InvalidAuthenticationToken"), mail.Configuration, prv, mail.Credentials, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil, func(int, call) reply { return test.reply })
			o := r.deliver(letter("ada@example.net"))[0]
			if o.Class != test.class || o.Scope != test.scope || o.Cause != test.cause || o.RetryAfter != test.pause || o.Step != stepSend {
				t.Errorf("%+v", o)
			}
			if !test.reply.cut && (o.Code != test.reply.status || !strings.Contains(o.Reply, "req-1")) {
				t.Errorf("%+v lacks status or request-id", o)
			}
			if seen := strings.Count(r.seen(), "POST"); (test.reply.status == 401) != (seen == 2) {
				t.Errorf("%d requests", seen)
			}
		})
	}
}

func TestAnExpiredTokenIsRenewedOnce(t *testing.T) {
	r := newRig(t, nil, func(n int, _ call) reply {
		if n == 0 {
			return problem(401, "InvalidAuthenticationToken")
		}
		return reply{status: 202}
	})
	if o := r.deliver(letter("ada@example.net"))[0]; o.Class != mail.Delivered || r.calls[1].header.Get("Authorization") != "Bearer tokenI" {
		t.Errorf("%+v", o)
	}
}

func TestNothingIsSentIfTheFenceSaysNo(t *testing.T) {
	no := errors.New("no")
	for name, verify := range map[string]bool{"in one request": false, "by a draft": true} {
		r := newRig(t, func(s *provider.Settings) { s.Microsoft365.VerifySends = verify }, func(_ int, c call) reply {
			switch {
			case strings.HasSuffix(c.what, "/sendMail"), strings.HasSuffix(c.what, "/send"):
				t.Errorf("%s: the request arrived whole", name)
			case strings.HasPrefix(c.what, "DELETE"):
				return reply{status: 204}
			}
			return reply{status: 201, body: created}
		})
		d := letter("ada@example.net")
		d.Message.Text = strings.Repeat("long ", 20_000) // more than what the transport sends at once
		d.Fence = func() error { return no }
		if out, err := r.Send(t.Context(), d); !errors.Is(err, no) || out != nil {
			t.Errorf("%s: %v, %v", name, out, err)
		}
		if verify && !strings.Contains(r.seen(), "DELETE /messages/AAMk%2F1=") {
			t.Errorf("the draft is left: %s", r.seen())
		}
	}
}

func TestAnAttemptIsCutBeforeItsPointOfNoReturnAndNotAfter(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := newRig(t, nil, func(int, call) reply { cancel(); return reply{status: 202} })
	out, err := r.Send(ctx, letter("ada@example.net"))
	if err != nil || out[0].Class != mail.Delivered {
		t.Errorf("past it: %+v, %v", out, err)
	}
	if out, err := r.Send(ctx, letter("ada@example.net")); !errors.Is(err, provider.ErrInterrupted) || out != nil {
		t.Errorf("before it: %+v, %v", out, err)
	}
}

func TestAServerThatCannotBeReachedHoldsEverything(t *testing.T) {
	r := newRig(t, func(s *provider.Settings) { s.Microsoft365.GraphURL = "http://127.0.0.1:1" }, accepts)
	d := letter("ada@example.net")
	d.Fence = func() error { t.Error("fenced"); return nil }
	if out, err := r.Send(t.Context(), d); err != nil || out[0].Class != mail.Temporary || out[0].Scope != mail.ScopeProvider || strings.Contains(out[0].Reply, "/users/") {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestMoreRecipientsThanAMessageTakesAreLeftForTheNext(t *testing.T) {
	r := newRig(t, nil, accepts)
	d := letter("a@example.net", "b@example.net", "c@example.net")
	d.Bounds.Recipients = 2
	out := r.deliver(d)
	if out[0].Class != mail.Delivered || out[1].Class != mail.Delivered || out[2].Class != mail.Temporary || out[2].Cause != mail.TooManyRecipients {
		t.Errorf("%+v", out)
	}
	if to := r.calls[0].json(t)["message"].(map[string]any)["toRecipients"].([]any); len(to) != 2 {
		t.Errorf("%v", to)
	}
}

// 3,000 bytes are 4,000 in base64; the text has 4.
func TestAMessageThatIsLargerThanItMayBeIsNotOffered(t *testing.T) {
	for name, v := range map[string]struct {
		most       int64
		kept, want string
		class      mail.Class
	}{
		"just right":                       {4004, "", "POST /sendMail", mail.Delivered},
		"no limit":                         {-1, "", "POST /sendMail", mail.Delivered},
		"too large":                        {4003, "", "", mail.Permanent},
		"too large by now":                 {4003, "ready AAMk/1= 1 2", "GET /messages/AAMk%2F1=?$select=isDraft, DELETE /messages/AAMk%2F1=", mail.Permanent},
		"too large by now, and half-built": {4003, "building AAMk/1= 1 2", "DELETE /messages/AAMk%2F1=", mail.Permanent},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil, func(n int, c call) reply {
				switch {
				case c.what == "POST /sendMail":
					return accepts(n, c)
				case strings.HasPrefix(c.what, "GET /messages/"):
					return reply{status: http.StatusOK, body: created}
				}
				return drafts(n, c)
			})
			d := withFile(letter("a@example.net", "b@example.net"), "a.pdf", 3000)
			d.Bounds, d.Kept = provider.Bounds{Bytes: v.most}, v.kept
			if v.class == mail.Permanent {
				d.Bounds.Recipients = 1 // nobody is put off whose message can't go
			}
			out := r.deliver(d)
			seen := strings.Join(slices.Compact(strings.Split(r.seen(), ", ")), ", ") // it is asked more than once
			if seen != v.want || d.Kept != "" {
				t.Errorf("%s, want %s; kept %q", seen, v.want, d.Kept)
			}
			for _, o := range out {
				if o.Class != v.class || v.class == mail.Permanent && (o.Cause != mail.LimitTooSmall || o.Scope != mail.ScopeMessage || o.Step != provider.StepLimit ||
					o.Reply != `the message has 4004 bytes, encoded, and the limit "message_bytes" allows 4003`) {
					t.Errorf("%+v", o)
				}
			}
		})
	}
}

// drafts answers what belongs to a draft.
func drafts(n int, c call) reply {
	switch {
	case strings.HasSuffix(c.what, "/send"):
		return reply{status: 202}
	case strings.HasPrefix(c.what, "DELETE"):
		return reply{status: 204}
	case strings.HasSuffix(c.what, "createUploadSession"):
		return reply{status: 201, body: `{"uploadUrl": "HERE/upload?authtoken=x", "nextExpectedRanges": ["0-"]}`}
	case strings.HasPrefix(c.what, "PUT"):
		if r := c.header.Get("Content-Range"); strings.HasSuffix(r, "-6999999/7000000") {
			return reply{status: 201}
		}
		return reply{status: 200, body: `{"nextExpectedRanges": ["1-"]}`}
	}
	return reply{status: 201, body: created}
}

func TestALargeMessageGoesByADraft(t *testing.T) {
	r := newRig(t, nil, drafts)
	d := withFile(withFile(letter("ada@example.net"), "large.pdf", 7_000_000), "small.pdf", 1000)
	if o := r.deliver(d)[0]; o.Class != mail.Delivered {
		t.Fatalf("%+v", o)
	}
	const draft = "/messages/AAMk%2F1="
	want := "POST /messages, POST " + draft + "/attachments/createUploadSession, PUT /upload?authtoken=x, PUT /upload?authtoken=x, PUT /upload?authtoken=x, POST " +
		draft + "/attachments, POST " + draft + "/send"
	if r.seen() != want {
		t.Errorf("%s\nwant %s", r.seen(), want)
	}
	var uploaded []byte
	next := 0
	for _, c := range r.calls {
		put := strings.HasPrefix(c.what, "PUT")
		if got := c.header.Get("Prefer"); !put && got != `IdType="ImmutableId"` {
			t.Errorf("%s: Prefer %q", c.what, got)
		}
		if got := c.header.Get("Authorization"); (got == "") != put {
			t.Errorf("%s: Authorization %q", c.what, got)
		}
		if put {
			if got := c.header.Get("Content-Range"); got != fmt.Sprintf("bytes %d-%d/7000000", next, next+len(c.body)-1) || len(c.body) > 4<<20 || len(c.body)%(320<<10) != 0 && len(uploaded)+len(c.body) != 7_000_000 {
				t.Errorf("%s with %d bytes", got, len(c.body))
			}
			next += len(c.body)
			uploaded = append(uploaded, c.body...)
		}
	}
	if !bytes.Equal(uploaded, d.Message.Files[0].Bytes) {
		t.Error("the upload is another file")
	}
	if got := strings.Join(r.kept, ", "); got != "building AAMk/1= 1 1, ready AAMk/1= 1 1" {
		t.Errorf("kept: %s", got)
	}
	if first := r.calls[0].json(t); first["attachments"] != nil || !strings.Contains(fmt.Sprint(first["singleValueExtendedProperties"]), "01JZ") {
		t.Errorf("%v", first)
	}
	if u := *d.Used; u.Requests != 7 || u.Messages != 1 || u.UploadBytes < 7_000_000 {
		t.Errorf("%+v", u)
	}
}

func TestADraftThatGoesWrongIsRemoved(t *testing.T) {
	for name, test := range map[string]struct {
		at    string
		reply reply
		class mail.Class
		left  bool // for the next attempt to find
	}{
		"the draft is refused":       {"POST /messages", problem(403, "ErrorAccessDenied"), mail.Configuration, false},
		"a file is refused":          {"/attachments", problem(413, "ErrorMessageSizeExceeded"), mail.Permanent, false},
		"a fault while it is built":  {"/attachments", reply{status: 500}, mail.Temporary, false},
		"no answer while it is made": {"/createUploadSession", reply{cut: true}, mail.Temporary, false},
		"the session has ended":      {"PUT", reply{status: 404}, mail.Temporary, false},
		"throttled while uploading":  {"PUT", reply{status: 429}, mail.Throttled, true},
		"the message is refused":     {"/send", problem(400, "ErrorInvalidRecipients"), mail.Permanent, false},
		"nobody knows":               {"/send", reply{status: 504}, mail.Unknown, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil, func(n int, c call) reply {
				if strings.HasPrefix(c.what, test.at) && test.at == "POST /messages" && c.what == test.at || test.at == "PUT" && strings.HasPrefix(c.what, "PUT") ||
					strings.HasPrefix(test.at, "/") && strings.HasSuffix(c.what, test.at) {
					return test.reply
				}
				return drafts(n, c)
			})
			o := r.deliver(withFile(withFile(letter("ada@example.net"), "large.pdf", 7_000_000), "small.pdf", 1000))[0]
			if o.Class != test.class {
				t.Errorf("%+v", o)
			}
			made := test.at != "POST /messages"
			removed := strings.HasSuffix(r.seen(), "DELETE /messages/AAMk%2F1=")
			if removed != (made && !test.left) {
				t.Errorf("removed: %v, %s", removed, r.seen())
			}
			if n := len(r.kept); made && (n == 0 || (r.kept[n-1] == "") != removed) {
				t.Errorf("kept: %q", r.kept)
			}
		})
	}
}

func TestTheNextAttemptGoesOnWithWhatWasKept(t *testing.T) {
	for name, test := range map[string]struct {
		kept, want string
		class      mail.Class
		after      string // what is kept in the end
	}{
		"a draft that was ready":     {"ready AAMk/1= 1 1", "POST /messages/AAMk%2F1=/send", mail.Delivered, "ready AAMk/1= 1 1"},
		"one that was not":           {"building AAMk/0= 1 1", "DELETE /messages/AAMk%2F0=, POST /messages, POST /messages/AAMk%2F1=/send", mail.Delivered, "ready AAMk/1= 1 1"},
		"one that is gone":           {"ready AAMk/0= 1 1", "POST /messages/AAMk%2F0=/send", mail.Unknown, "lost AAMk/0= 1 1"},
		"one that was gone by then":  {"lost AAMk/0= 1 1", "POST /messages, POST /messages/AAMk%2F1=/send", mail.Delivered, "ready AAMk/1= 1 1"},
		"one not ready that is gone": {"building AAMk/2= 1 1", "DELETE /messages/AAMk%2F2=, POST /messages, POST /messages/AAMk%2F1=/send", mail.Delivered, "ready AAMk/1= 1 1"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil, func(n int, c call) reply {
				if strings.HasSuffix(c.what, "%2F0=/send") || strings.HasSuffix(c.what, "%2F2=") {
					return problem(404, "ErrorItemNotFound")
				}
				return drafts(n, c)
			})
			d := letter("ada@example.net")
			d.Kept = test.kept
			if o := r.deliver(d)[0]; o.Class != test.class || r.seen() != test.want || d.Kept != test.after {
				t.Errorf("%+v\n%s\n%s", o, r.seen(), d.Kept)
			}
		})
	}
}

func TestVerify(t *testing.T) {
	for name, test := range map[string]struct {
		kept    string
		answers []reply
		class   mail.Class
		cause   mail.Cause
	}{
		"sent":                      {"ready 1 1 1", []reply{{status: 200, body: `{"isDraft": false}`}}, mail.Delivered, ""},
		"sent, and shows late":      {"ready 1 1 1", []reply{{status: 404}, {status: 200, body: `{"isDraft": false}`}}, mail.Delivered, ""},
		"still a draft":             {"ready 1 1 1", []reply{{status: 200, body: `{"isDraft": true}`}}, mail.Temporary, mail.NotSent},
		"gone":                      {"ready 1 1 1", []reply{{status: 404}}, mail.Unknown, ""},
		"lost, and was sent":        {"lost 1 1 1", []reply{{status: 404}, {status: 200, body: `{"isDraft": false}`}}, mail.Delivered, ""},
		"lost, and shown as before": {"lost 1 1 1", []reply{{status: 200, body: `{"isDraft": true}`}}, mail.Unknown, ""},
		"lost, and gone":            {"lost 1 1 1", []reply{{status: 404}}, mail.Unknown, ""},
		"never ready":               {"building 1 1 1", nil, mail.Temporary, mail.NotSent},
		"without a draft":           {"", nil, mail.Unknown, ""},
		"throttled":                 {"ready 1 1 1", []reply{{status: 429}}, mail.Throttled, mail.RateExceeded},
		"a fault there":             {"ready 1 1 1", []reply{{status: 500}}, mail.Temporary, ""},
		"what makes no sense":       {"ready 1 1 1", []reply{{status: 400}}, mail.Unknown, ""},
		"neither one nor the other": {"ready 1 1 1", []reply{{status: 200, body: `{}`}}, mail.Unknown, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil, func(n int, c call) reply {
				if c.what != "GET /messages/1?$select=isDraft" {
					t.Errorf("%s", c.what)
				}
				return test.answers[min(n, len(test.answers)-1)]
			})
			d := letter("ada@example.net")
			d.Kept = test.kept
			out, err := r.Verify(t.Context(), d)
			if err != nil || out[0].Class != test.class || out[0].Cause != test.cause || out[0].Step != stepVerify {
				t.Errorf("%+v, %v", out, err)
			}
		})
	}
}
