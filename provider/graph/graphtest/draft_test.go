package graphtest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestADraftIsMadeFilledAndSent(t *testing.T) {
	r := newRig(t, Options{})
	p := r.graph("POST", user("messages"), `{"subject":"a","body":{"contentType":"HTML","content":"<p>b</p>"},"toRecipients":[{"emailAddress":{"address":"ada@example.org"}}],`+headers(1)+`}`)
	r.want("create", p, 201, "")
	id := p.field("id")
	if got := p.field("internetMessageId"); !strings.HasPrefix(got, "<") || !strings.Contains(string(p.body), `"isDraft":true`) {
		t.Errorf("%s", p.body)
	}
	path := user("messages/" + id)
	r.want("change", r.graph("PATCH", path, `{"subject":"c","internetMessageId":"<1@example.com>","bccRecipients":[{"emailAddress":{"address":"bob@example.org"}}]}`), 200, "")
	file := `{"@odata.type":"#microsoft.graph.fileAttachment","name":"logo.png","isInline":true,"contentId":"logo","contentBytes":"aGVsbG8="}`
	p = r.graph("POST", path+"/attachments", file)
	r.want("attach", p, 201, "")
	if p.field("id") == "" || p.field("contentType") != "image/png" {
		t.Errorf("%s", p.body)
	}
	p = r.graph("GET", path+"/attachments?$select=name,size", nil)
	r.want("list the files", p, 200, "")
	if !strings.Contains(string(p.body), `"name":"logo.png","size":5`) || strings.Contains(string(p.body), "contentBytes") {
		t.Errorf("%s", p.body)
	}
	if r.Received() != 0 || r.Drafts(sender) != 1 {
		t.Errorf("%d sent, %d drafts", r.Received(), r.Drafts(sender))
	}

	p = r.graph("POST", path+"/send", nil)
	r.want("send", p, 202, "")
	if len(p.body) != 0 {
		t.Errorf("%q", p.body)
	}
	m := r.Messages()[0]
	if m.Form != FormDraft || !m.Saved || m.Subject != "c" || m.HTML != "<p>b</p>" || m.MessageID != "<1@example.com>" || len(m.Bcc) != 1 || len(m.Headers) != 1 ||
		len(m.Files) != 1 || string(m.Files[0].Content) != "hello" || m.Files[0].ContentID != "logo" || r.Drafts(sender) != 0 {
		t.Errorf("%+v", m)
	}
	p = r.graph("GET", user("messages"), nil)
	var sent struct{ Value []struct{ ID string } }
	if err := json.Unmarshal(p.body, &sent); err != nil || len(sent.Value) != 1 || sent.Value[0].ID == id {
		t.Fatalf("%v, %v", sent, err)
	}
	r.want("get by the id it has", r.graph("GET", user("messages/"+sent.Value[0].ID), nil), 200, "")
	for name, test := range map[string]struct{ method, path string }{
		"get": {"GET", path}, "send again": {"POST", path + "/send"}, "delete": {"DELETE", path}, "attach": {"GET", path + "/attachments"},
	} {
		r.want(name+" by the id it had", r.graph(test.method, test.path, nil), 404, "ErrorItemNotFound")
	}
	if r.Received() != 1 {
		t.Errorf("%d sent", r.Received())
	}
}

func TestDraftsAreChecked(t *testing.T) {
	r := newRig(t, Options{Limits: &Limits{MessageBytes: 42 * megabyte / 10, RequestBytes: 5 * megabyte}})
	file := func(n int) string {
		return `{"@odata.type":"#microsoft.graph.fileAttachment","name":"a","contentBytes":"` + base64.StdEncoding.EncodeToString(make([]byte, n)) + `"}`
	}
	empty := r.graph("POST", user("messages"), `{}`)
	r.want("an empty draft", empty, 201, "")
	unsure := r.graph("POST", user("messages"), `{"toRecipients":[{"emailAddress":{"address":"x"}}],"from":{"emailAddress":{"address":"boss@example.com"}}}`)
	r.want("a draft that can't be sent", unsure, 201, "")
	path := user("messages/" + r.draft())
	for _, test := range []struct {
		name, method, path, body string
		status                   int
		code                     string
	}{
		{"empty headers", "POST", user("messages"), `{` + headers(0) + `}`, 400, "InvalidInternetMessageHeaderCollection"},
		{"an unknown property", "POST", user("messages"), `{"x":1}`, 400, "RequestBodyRead"},
		{"no recipients", "POST", user("messages/" + empty.field("id") + "/send"), "", 400, "ErrorMissingRecipients"},
		{"unresolved recipients", "POST", user("messages/" + unsure.field("id") + "/send"), "", 400, "ErrorInvalidRecipients"},
		{"headers later", "PATCH", path, `{` + headers(1) + `}`, 400, "ErrorInvalidPropertySet"},
		{"files by PATCH", "PATCH", path, `{"attachments":[` + file(1) + `]}`, 400, "ErrorInvalidPropertySet"},
		{"a file of 3 MB", "POST", path + "/attachments", file(3 * megabyte), 413, "ErrorAttachmentSizeLimitExceeded"},
		{"a file without a type", "POST", path + "/attachments", `{"name":"a","contentBytes":""}`, 400, "RequestBodyRead"},
		{"just under 3 MB", "POST", path + "/attachments", file(3*megabyte - 1), 201, ""},
		{"more than the message may have", "POST", path + "/attachments", file(100_000), 400, "ErrorMessageSizeExceeded"},
	} {
		r.want(test.name, r.graph(test.method, test.path, test.body), test.status, test.code)
	}
	r.want("recipients now", r.graph("PATCH", user("messages/"+unsure.field("id")), `{"toRecipients":[{"emailAddress":{"address":"x@example.org"}}]}`), 200, "")
	r.want("still from somebody else", r.graph("POST", user("messages/"+unsure.field("id")+"/send"), nil), 403, "ErrorSendAsDenied")
	r.want("chunked, without a length", r.graph("POST", path+"/send", &chunked{bytes.NewReader([]byte("{}"))}), 411, "LengthRequired")
	r.want("delete", r.graph("DELETE", path, nil), 204, "")
	r.want("deleted", r.graph("POST", path+"/send", nil), 404, "ErrorItemNotFound")
	if r.Received() != 0 || r.Drafts(sender) != 2 {
		t.Errorf("%d sent, %d drafts", r.Received(), r.Drafts(sender))
	}
}

// chunked hides its length from net/http.
type chunked struct{ *bytes.Reader }

func TestADraftInMIMEForm(t *testing.T) {
	r := newRig(t, Options{})
	p := r.do("POST", r.GraphURL()+"/v1.0/"+user("messages"), wrapped(sampleMIME), "Authorization", "Bearer "+r.token, "Content-Type", "text/plain")
	r.want("create", p, 201, "")
	r.want("send", r.graph("POST", user("messages/"+p.field("id")+"/send"), nil), 202, "")
	if m := r.Messages()[0]; m.Form != FormDraft || string(m.Raw) != sampleMIME || len(m.Files) != 2 {
		t.Errorf("%+v", m)
	}
}

func TestAnImmutableIDOutlivesSending(t *testing.T) {
	for name, asDraft := range map[string]bool{"not found until then": false, "a draft until then": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Options{SentDelay: time.Minute, SentAsDraft: asDraft})
			id := r.draft("Prefer", immutable)
			path := user("messages/" + id)
			r.want("send without the header", r.graph("POST", path+"/send", nil), 400, "ErrorInvalidIdMalformed")
			if p := r.graph("GET", path, nil, "Prefer", immutable); p.field("id") != id || p.header.Get("Preference-Applied") != immutable {
				t.Errorf("%s %v", p.body, p.header)
			}
			r.want("send", r.graph("POST", path+"/send", nil, "Prefer", `outlook.timezone="UTC", `+immutable), 202, "")

			p := r.graph("GET", path, nil, "Prefer", immutable)
			if asDraft {
				r.want("on its way", p, 200, "")
			} else {
				r.want("on its way", p, 404, "ErrorItemNotFound")
			}
			if got := bytes.Contains(p.body, []byte(`"isDraft":true`)); got != asDraft {
				t.Errorf("%s", p.body)
			}
			r.want("again, on its way", r.graph("POST", path+"/send", nil, "Prefer", immutable), 404, "ErrorItemNotFound")
			r.want("take it back", r.graph("DELETE", path, nil, "Prefer", immutable), 404, "ErrorItemNotFound")
			if n := r.Drafts(sender); n == 1 != asDraft {
				t.Errorf("%d drafts", n)
			}

			r.clock.pass(time.Minute)
			p = r.graph("GET", path+"?$select=isDraft,subject", nil, "Prefer", immutable)
			r.want("sent", p, 200, "")
			var got map[string]any
			if err := json.Unmarshal(p.body, &got); err != nil || got["isDraft"] != false || got["id"] != id || got["subject"] != "draft" || got["body"] != nil {
				t.Errorf("%v %s", err, p.body)
			}
			r.want("its files", r.graph("GET", path+"/attachments", nil, "Prefer", immutable), 200, "")
			r.want("change it", r.graph("PATCH", path, `{"subject":"x"}`, "Prefer", immutable), 400, "ErrorInvalidPropertyUpdateSentMessage")
			r.want("send it again", r.graph("POST", path+"/send", nil, "Prefer", immutable), 400, "ErrorInvalidRequest")
			if r.Received() != 1 || r.Drafts(sender) != 0 {
				t.Errorf("%d sent, %d drafts", r.Received(), r.Drafts(sender))
			}
		})
	}
}

func TestFoldersShowWhatWasSent(t *testing.T) {
	r := newRig(t, Options{SentDelay: time.Minute})
	names := func(path string) string {
		t.Helper()
		p := r.graph("GET", user(path), nil)
		r.want(path, p, 200, "")
		var list struct {
			Value []struct{ Subject string }
		}
		if err := json.Unmarshal(p.body, &list); err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, m := range list.Value {
			all = append(all, m.Subject)
		}
		return strings.Join(all, " ")
	}
	r.want("unsaved", r.graph("POST", user("sendMail"), mailOf(message("unsaved"))), 202, "")
	r.want("saved", r.graph("POST", user("sendMail"), `{"message":{"subject":"saved","toRecipients":`+list(1)+`,"internetMessageId":"<it's@example.com>",
		"singleValueExtendedProperties":[{"id":"String {8ECCC264-6880-4EBE-992F-8888D2EEAA1D} Name Id","value":"7"}]}}`), 202, "")
	if got := names("messages"); got != "" {
		t.Errorf("too early: %q", got)
	}
	r.clock.pass(time.Minute)
	r.draft()
	for path, want := range map[string]string{
		"messages":                       "draft saved",
		"messages?$top=1":                "draft",
		"mailFolders/Drafts/messages":    "draft",
		"mailFolders/sentItems/messages": "saved",
		"messages?$filter=internetMessageId%20eq%20'%3Cit''s@example.com%3E'":                                                                                                  "saved",
		"messages?$filter=internetMessageId%20eq%20'%3C2@example.com%3E'":                                                                                                      "",
		"messages?$filter=singleValueExtendedProperties/any(ep:%20ep/id%20eq%20'String%20%7B8ECCC264-6880-4EBE-992F-8888D2EEAA1D%7D%20Name%20Id'%20and%20ep/value%20eq%20'7')": "saved",
		"messages?$filter=singleValueExtendedProperties/any(ep:%20ep/id%20eq%20'String%20%7B8ECCC264-6880-4EBE-992F-8888D2EEAA1D%7D%20Name%20Id'%20and%20ep/value%20eq%20'8')": "",
	} {
		if got := names(path); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
	var sent struct{ Value []struct{ ID string } }
	if err := json.Unmarshal(r.graph("GET", user("mailFolders/sentitems/messages"), nil).body, &sent); err != nil || len(sent.Value) != 1 {
		t.Fatalf("%v, %v", sent, err)
	}
	r.want("by the id in the folder", r.graph("GET", user("messages/"+sent.Value[0].ID), nil), 200, "")
	r.want("in that folder", r.graph("GET", user("mailFolders/sentitems/messages/"+sent.Value[0].ID), nil), 200, "")
	r.want("in another folder", r.graph("GET", user("mailFolders/drafts/messages/"+sent.Value[0].ID), nil), 404, "ErrorItemNotFound")
	p := r.graph("GET", user("mailFolders/sentitems"), nil)
	if r.want("folder", p, 200, ""); !strings.Contains(string(p.body), `"totalItemCount":1`) {
		t.Errorf("%s", p.body)
	}
	if some := r.graph("GET", user("mailFolders/sentitems?$select=id"), nil); some.field("id") != p.field("id") || some.field("displayName") != "" {
		t.Errorf("%d %s", some.status, some.body)
	}
	r.want("what is not simulated", r.graph("GET", user("mailFolders/sentitems?$expand=childFolders"), nil), 400, "BadRequest")
	r.want("by the folder's id", r.graph("GET", user("mailFolders/"+p.field("id")+"/messages"), nil), 200, "")
}
