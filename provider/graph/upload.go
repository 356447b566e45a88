package graph

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/postroom/postroom/mail"
)

// attach adds a file to a draft.
func (a *attempt) attach(draft string, f *mail.File) error {
	if len(f.Bytes) >= minUpload {
		return a.upload(draft, f)
	}
	r := request{step: stepAttachment, url: a.draft(draft, "/attachments"), header: immutable}
	got, err := a.post(r, fileOf(f))
	if err != nil {
		return err
	}
	if got.status != http.StatusCreated {
		return a.refusal(r, got)
	}
	return nil
}

// attachmentItem describes a file of an upload session (Microsoft Graph, "attachmentItem resource type").
type attachmentItem struct {
	Type        string `json:"attachmentType"`
	Name        string `json:"name"`
	Size        int    `json:"size"`
	ContentType string `json:"contentType,omitempty"`
	ContentID   string `json:"contentId,omitempty"`
	Inline      bool   `json:"isInline,omitempty"`
}

// upload adds a large file by an upload session: ranges in order, without a token, as the URL is the credential. The bytes go
// out from where they lie; nothing is copied.
func (a *attempt) upload(draft string, f *mail.File) error {
	r := request{step: stepUpload, url: a.draft(draft, "/attachments/createUploadSession"), header: immutable}
	item := attachmentItem{"file", f.Name, len(f.Bytes), f.ContentType, f.ContentID, f.ContentID != ""}
	got, err := a.post(r, map[string]attachmentItem{"AttachmentItem": item})
	if err != nil {
		return err
	}
	if got.status != http.StatusCreated {
		return a.refusal(r, got)
	}
	var session struct {
		URL string `json:"uploadUrl"`
	}
	if err := got.decode(&session); err != nil || !isURL(session.URL) {
		return ours(mail.Temporary, stepUpload, "the answer has no URL to upload to")
	}
	for from := 0; from < len(f.Bytes); from += RangeBytes {
		part := f.Bytes[from:min(from+RangeBytes, len(f.Bytes))]
		to := from + len(part)
		put := request{step: stepUpload, method: http.MethodPut, url: session.URL, body: part, contentType: "application/octet-stream",
			anonymous: true, header: http.Header{"Content-Range": {fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(f.Bytes))}}}
		got, err := a.do(put)
		if err != nil {
			return err
		}
		want := http.StatusOK
		if to == len(f.Bytes) {
			want = http.StatusCreated
		}
		if got.status != want {
			return a.refusedRange(put, got)
		}
	}
	return nil
}

// refusedRange judges an upload that went wrong: a session that has ended, or lost count, is begun anew with the next attempt.
func (a *attempt) refusedRange(r request, got *answer) *fault {
	f := a.refusal(r, got)
	if f.Class == mail.Permanent || f.Class == mail.Configuration {
		f.Class, f.Scope, f.Cause = mail.Temporary, mail.ScopeMessage, ""
	}
	return f
}

func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != ""
}
