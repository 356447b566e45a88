package graphtest

import (
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// graph is graph.microsoft.com.
type graph struct{}

var _ door = graph{}

// route is one thing that can be asked of Graph. Parts of its path in braces stand for anything.
type route struct {
	method, path string
	operation    Operation
	// permissions are those of which the token needs one.
	permissions []string
	// types are the media types that the body may have; none if there is no body to look at.
	types  []string
	handle func(*call) (*answer, *fault)
}

var (
	toSend  = []string{MailSend}
	toWrite = []string{MailReadWrite}
	toRead  = []string{MailReadWrite, MailRead}
)

const (
	typeJSON   = "application/json"
	typeMIME   = "text/plain"
	typeBinary = "application/octet-stream"
)

// routes are the operations, with the permissions that their pages below https://learn.microsoft.com/graph/api name.
var routes = []route{
	{"POST", "users/{user}/sendMail", SendMail, toSend, []string{typeJSON, typeMIME}, sendMail},
	{"POST", "users/{user}/messages", CreateDraft, toWrite, []string{typeJSON, typeMIME}, createDraft},
	{"GET", "users/{user}/messages", ListMessages, toRead, nil, listMessages},
	{"GET", "users/{user}/messages/{id}", GetMessage, toRead, nil, getMessage},
	{"PATCH", "users/{user}/messages/{id}", UpdateMessage, toWrite, []string{typeJSON}, updateMessage},
	{"DELETE", "users/{user}/messages/{id}", DeleteMessage, toWrite, nil, deleteMessage},
	{"POST", "users/{user}/messages/{id}/send", SendDraft, toSend, nil, sendDraft},
	{"GET", "users/{user}/messages/{id}/attachments", ListAttachments, toRead, nil, listAttachments},
	{"POST", "users/{user}/messages/{id}/attachments", AddAttachment, toWrite, []string{typeJSON}, addAttachment},
	{"POST", "users/{user}/messages/{id}/attachments/createUploadSession", CreateUpload, toWrite, []string{typeJSON}, createUpload},
	{"GET", "users/{user}/mailFolders/{folder}", GetFolder, toRead, nil, getFolder},
	{"GET", "users/{user}/mailFolders/{folder}/messages", ListMessages, toRead, nil, listMessages},
	{"GET", "users/{user}/mailFolders/{folder}/messages/{id}", GetMessage, toRead, nil, getMessage},
}

func (graph) most(c *call) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.opts.Limits
	if c.box != nil {
		l = c.limits(c.box)
	}
	most := l.RequestBytes
	if l.MIMEBytes > 0 && l.MIMEBytes < most && c.mediaType() == typeMIME {
		most = l.MIMEBytes
	}
	if most <= 0 {
		return 1 << 40
	}
	return most
}

func (graph) refusal(c *call, f *fault) *answer {
	a := graphError(f, c.id, c.clientID(), c.opts.Now())
	if f.challenge {
		a.set("WWW-Authenticate", `Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", `+
			`client_id="00000003-0000-0000-c000-000000000000"`)
	}
	return a
}

func (graph) route(c *call) *fault {
	c.operation = UnknownOperation
	segments, ok := segments(c.request.URL)
	if !ok || len(segments) == 0 || segments[0] != "v1.0" {
		return badRequest("Invalid version: only v1.0 is simulated.")
	}
	found := false
	for i := range routes {
		r := &routes[i]
		if !r.match(c, segments[1:]) {
			continue
		}
		found = true
		if r.method != c.request.Method {
			continue
		}
		c.operation, c.needs, c.handle = r.operation, r.permissions, r.handle
		return c.typed(r.types)
	}
	if found {
		// https://github.com/microsoftgraph/msgraph-sdk-php/issues/246
		return refuse(http.StatusMethodNotAllowed, "ErrorInvalidRequest", "The OData request is not supported.")
	}
	// https://github.com/microsoftgraph/microsoft-graph-docs/issues/6305
	return badRequest("Resource not found for the segment '" + segments[len(segments)-1] + "'.")
}

// segments gives the parts of a path, decoded.
func segments(u *url.URL) ([]string, bool) {
	parts := strings.Split(strings.TrimPrefix(u.EscapedPath(), "/"), "/")
	for i, p := range parts {
		text, err := url.PathUnescape(p)
		if err != nil || text == "" {
			return nil, false
		}
		parts[i] = text
	}
	return parts, true
}

// match compares a path, and keeps what stands for the parts in braces. The names of segments go in any case.
func (r *route) match(c *call, segments []string) bool {
	pattern := strings.Split(r.path, "/")
	if len(pattern) != len(segments) {
		return false
	}
	for i, p := range pattern {
		if p[0] != '{' && !strings.EqualFold(p, segments[i]) {
			return false
		}
	}
	c.target, c.folder = "", ""
	for i, p := range pattern {
		switch p {
		case "{user}":
			c.address = segments[i]
		case "{id}":
			c.target = segments[i]
		case "{folder}":
			c.folder = segments[i]
		}
	}
	return true
}

// typed checks the Content-Type.
func (c *call) typed(types []string) *fault {
	if types == nil {
		return nil
	}
	if c.request.Header.Get("Content-Type") == "" {
		return badRequest("Write requests (excluding DELETE) must contain the Content-Type header declaration.")
	}
	if !slices.Contains(types, c.mediaType()) {
		return unsupportedType()
	}
	return nil
}

func unsupportedType() *fault {
	return refuse(http.StatusUnsupportedMediaType, "UnsupportedMediaType",
		"The content type of the request is a format that is not supported by the service.")
}

func (c *call) mediaType() string {
	mediaType, _, err := mime.ParseMediaType(c.request.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return mediaType
}

// unauthenticated is for a token that is missing, wrong or too old. The texts are those that are seen; only the code is
// to be relied on.
func unauthenticated(message string) *fault {
	f := refuse(http.StatusUnauthorized, "InvalidAuthenticationToken", message)
	f.challenge = true
	return f
}

func (graph) admit(c *call) *fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	scheme, text, _ := strings.Cut(c.request.Header.Get("Authorization"), " ")
	if scheme == "" {
		return unauthenticated("Access token is empty.")
	}
	token := c.tokens[text]
	switch {
	case !strings.EqualFold(scheme, "Bearer") || token == nil:
		return unauthenticated("CompactToken parsing failed with error code: 80049217")
	case !c.opts.Now().Before(token.expires):
		return unauthenticated("Lifetime validation failed, the token is expired.")
	case token.resource != c.GraphURL():
		return unauthenticated("Access token validation failure. Invalid audience.")
	}
	c.token = token
	c.entry.App = token.app
	if c.operation == UnknownOperation {
		return nil
	}
	// Only what has a mailbox has books.
	c.box = c.mailboxes[strings.ToLower(c.address)]
	if c.box == nil {
		return refuse(http.StatusNotFound, "ErrorInvalidUser", "The requested user '"+c.address+"' is invalid.")
	}
	if !slices.ContainsFunc(c.needs, func(p string) bool { return slices.Contains(token.permissions, p) }) {
		return accessDenied()
	}
	switch c.box.State {
	case Unlicensed:
		return refuse(http.StatusNotFound, "MailboxNotEnabledForRESTAPI",
			"The mailbox is either inactive, soft-deleted, or is hosted on-premise.")
	case Denied:
		// https://learn.microsoft.com/graph/auth-limit-mailbox-access
		return refuse(http.StatusForbidden, "ErrorAccessDenied",
			"Access to OData is disabled: [RAOP] : Blocked by tenant configured AppOnly AccessPolicy settings.")
	}
	return nil
}
