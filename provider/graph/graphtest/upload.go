package graphtest

import (
	"crypto/rand"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// outlook is outlook.office.com: where the ranges of large attachments go
// (https://learn.microsoft.com/graph/outlook-large-attachments, steps 2 and 3).
type outlook struct{}

var _ door = outlook{}

// upload is an upload session.
type upload struct {
	id, secret string
	path       string
	token      *token // of who began it: its books are used on
	box        *mailbox
	item       *item
	about      object // attachmentItem
	size       int64
	data       []byte
	expires    time.Time
}

// rangeLimit is the most that a PUT may bring: "iteratively upload ranges of bytes of the file (up to 4 MB each time)"
// (https://learn.microsoft.com/graph/api/attachment-createuploadsession).
const rangeLimit = 4 * megabyte

// createUpload is https://learn.microsoft.com/graph/api/attachment-createuploadsession.
func createUpload(c *call) (*answer, *fault) {
	value, fault := parse(c.body)
	if fault != nil {
		return nil, fault
	}
	given, fault := parameters("createUploadSession", value, map[string]rule{"attachmentitem": attachmentItemShape.check})
	if fault != nil {
		return nil, fault
	}
	o, _ := given.object("attachmentitem")
	number, _ := o["size"].(float64)
	size := int64(min(number, uploadLimit+1))
	switch {
	case !strings.EqualFold(o.text("attachmentType"), "file") || o.text("name") == "" || size <= 0:
		return nil, badRequest("At minimum, specify the attachment type (file), a name, and the size of the file.")
	case size < fileLimit:
		return nil, refuse(http.StatusBadRequest, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize",
			"Attachment size should not be less than the minimum size.")
	case size > uploadLimit:
		return nil, refuse(http.StatusBadRequest, "ErrorAttachmentSizeLimitExceeded", "The attachment size exceeds the limit.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i, fault := c.draft()
	if fault != nil {
		return nil, fault
	}
	now := c.opts.Now()
	maps.DeleteFunc(c.uploads, func(_ string, u *upload) bool { return !now.Before(u.expires) })
	u := &upload{id: newID(regularID), secret: "eyJ" + rand.Text() + rand.Text(), token: c.token, box: c.box, item: i, size: size,
		about: o, expires: now.Add(c.opts.UploadLife)}
	u.path = "/api/gv1.0/users('" + newGUID() + "@" + c.opts.TenantID + "')/messages('" + c.target + "')/AttachmentSessions('" + u.id + "')"
	c.uploads[u.id] = u
	return jsonAnswer(http.StatusCreated, map[string]any{
		"@odata.context":     c.GraphURL() + "/v1.0/$metadata#microsoft.graph.uploadSession",
		"uploadUrl":          c.hosts["outlook"].url + u.path + "?authtoken=" + u.secret,
		"expirationDateTime": u.expires.UTC().Format(time.RFC3339Nano),
		"nextExpectedRanges": []string{"0-"},
	}), nil
}

func (outlook) most(*call) int64 { return rangeLimit }

func (outlook) refusal(c *call, f *fault) *answer { return graph{}.refusal(c, f) }

var sessionPath = regexp.MustCompile(`/AttachmentSessions\('([^'/]+)'\)$`)

func (outlook) route(c *call) *fault {
	c.operation = UnknownOperation
	found := sessionPath.FindStringSubmatch(c.request.URL.Path)
	if found == nil {
		return badRequest("Resource not found for the segment '" + c.request.URL.Path + "'.")
	}
	c.target = found[1]
	switch c.request.Method {
	case http.MethodPut:
		c.operation, c.handle = PutRange, putRange
		if c.mediaType() != typeBinary {
			// "Content-Type | The MIME type. Specify application/octet-stream. Required."
			return unsupportedType()
		}
	case http.MethodGet:
		c.operation, c.handle = GetUpload, getUpload
	case http.MethodDelete:
		c.operation, c.handle = CancelUpload, cancelUpload
	default:
		return refuse(http.StatusMethodNotAllowed, "ErrorInvalidRequest", "The OData request is not supported.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if u := c.uploads[c.target]; u != nil {
		c.address = u.box.address // For mishaps of a mailbox.
	}
	return nil
}

func (outlook) admit(c *call) *fault {
	if c.operation == UnknownOperation {
		return nil
	}
	if c.request.Header.Get("Authorization") != "" {
		// https://github.com/microsoftgraph/msgraph-sdk-java/issues/409
		return refuse(http.StatusUnauthorized, "InvalidAudienceForResource", "The audience claim value is invalid for current resource. Audience claim is '"+
			c.GraphURL()+"', request url is '"+c.hosts["outlook"].url+c.request.URL.Path+"'.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.uploads[c.target]
	query, err := url.ParseQuery(c.request.URL.RawQuery)
	switch {
	case u == nil || err != nil:
		return sessionNotFound()
	case c.request.URL.Path != u.path || len(query) != 1 || query.Get("authtoken") != u.secret:
		// "Do not customize this URL for the PUT operations."
		return unauthenticated("The token in the URL is not valid for it.")
	case !c.opts.Now().Before(u.expires):
		// "That token expires by expirationDateTime."
		return unauthenticated("Lifetime validation failed, the token is expired.")
	}
	c.upload, c.token, c.box = u, u.token, u.box
	c.entry.App = u.token.app
	return nil
}

// sessionNotFound is for a session that was finished or cancelled, or whose draft is gone. The code is from
// https://learn.microsoft.com/graph/errors; whether Outlook uses it is not documented.
func sessionNotFound() *fault {
	f := itemNotFound()
	f.inner = "uploadSessionNotFound"
	return f
}

var contentRange = regexp.MustCompile(`^bytes (\d{1,18})-(\d{1,18})/(\d{1,18})$`)

// putRange takes a range: "You must upload bytes in a file in order."
func putRange(c *call) (*answer, *fault) {
	if c.request.ContentLength < 0 {
		return nil, refuse(http.StatusLengthRequired, "LengthRequired", "A Content-Length header is required on the request.")
	}
	found := contentRange.FindStringSubmatch(c.request.Header.Get("Content-Range"))
	if found == nil {
		return nil, refuse(http.StatusBadRequest, "invalidRequest", "The Content-Range header is missing or malformed.")
	}
	var numbers [3]int64
	for i := range numbers {
		numbers[i], _ = strconv.ParseInt(found[i+1], 10, 64) // The expression lets nothing through that does not fit.
	}
	first, last, total := numbers[0], numbers[1], numbers[2]
	if last < first || last-first+1 != int64(len(c.body)) {
		return nil, refuse(http.StatusBadRequest, "invalidRequest", "The Content-Range header length does not match the provided number of bytes.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.upload
	next := int64(len(u.data))
	switch {
	case c.uploads[u.id] != u:
		return nil, sessionNotFound() // It has ended while this range was under way.
	case total != u.size || last >= u.size:
		return nil, outOfRange("fragmentLengthMismatch", "Declared total size for this fragment is different from that of the upload session.")
	case first < next:
		return nil, outOfRange("fragmentOverlap", "Uploaded fragment overlaps with existing data.")
	case first > next:
		return nil, outOfRange("fragmentOutOfOrder", "Uploaded fragment is out of order.")
	}
	// A file that makes the message too large is noticed on the way
	// (https://github.com/microsoftgraph/microsoft-graph-docs-contrib/issues/2561).
	if most := c.limits(u.box).MessageBytes; most > 0 && u.item.size+wireSize(last+1) > most {
		return nil, tooLarge()
	}
	u.data = append(u.data, c.body...)
	if int64(len(u.data)) < u.size {
		return jsonAnswer(http.StatusOK, u.show()), nil
	}
	f := u.about.file()
	a, fault := c.attach(u.item, newFile(f.Name, f.ContentType, f.ContentID, f.Inline, u.data))
	if fault != nil {
		u.data = u.data[:next]
		return nil, fault
	}
	delete(c.uploads, u.id)
	location := c.hosts["outlook"].url + strings.Split(u.path, "/AttachmentSessions")[0] + "/Attachments('" + a.id + "')"
	return (&answer{status: http.StatusCreated}).set("Location", location), nil
}

func outOfRange(inner, message string) *fault {
	f := refuse(http.StatusRequestedRangeNotSatisfiable, "invalidRange", message)
	f.inner = inner
	return f
}

// show is the state of a session. Its expiry "remains the same as returned by the initial uploadSession"; another page says that
// each range extends it, so that is not to be relied on.
func (u *upload) show() map[string]any {
	return map[string]any{
		"expirationDateTime": u.expires.UTC().Format(time.RFC3339Nano),
		"nextExpectedRanges": []string{strconv.Itoa(len(u.data))},
	}
}

// getUpload tells where to go on. Documented for files of OneDrive, which have the same uploadSession; for Outlook not.
func getUpload(c *call) (*answer, *fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return jsonAnswer(http.StatusOK, c.upload.show()), nil
}

// endUploads ends the sessions of an item that is a draft no more. mu is held.
func (t *Tenant) endUploads(i *item) {
	maps.DeleteFunc(t.uploads, func(_ string, u *upload) bool { return u.item == i })
}

// cancelUpload is https://learn.microsoft.com/graph/outlook-large-attachments#alternative-cancel-the-upload-session.
func cancelUpload(c *call) (*answer, *fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.uploads, c.upload.id)
	return &answer{status: http.StatusNoContent}, nil
}
