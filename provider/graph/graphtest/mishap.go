package graphtest

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Operation is something that can be asked of a tenant.
type Operation string

// The operations. UnknownOperation is whatever is none of the others.
const (
	UnknownOperation Operation = "unknown"
	GetToken         Operation = "token"

	SendMail        Operation = "sendMail"
	CreateDraft     Operation = "createDraft"
	GetMessage      Operation = "getMessage"
	UpdateMessage   Operation = "updateMessage"
	DeleteMessage   Operation = "deleteMessage"
	SendDraft       Operation = "sendDraft"
	ListMessages    Operation = "listMessages"
	GetFolder       Operation = "getFolder"
	ListAttachments Operation = "listAttachments"
	AddAttachment   Operation = "addAttachment"

	CreateUpload Operation = "createUploadSession"
	PutRange     Operation = "putRange"
	GetUpload    Operation = "getUploadSession"
	CancelUpload Operation = "cancelUploadSession"
)

// Moment is when in a request something goes wrong.
type Moment int

// The moments.
const (
	// Arrived: the header has been read, nothing of the body.
	Arrived Moment = iota
	// Halfway: half of the body has been read, if its length is known, else one byte.
	Halfway
	// Received: the whole body has been read, and has had no effect.
	Received
	// Accepted: the request has had its effect, and the client does not know. It comes only if the request succeeds.
	Accepted
)

// Mishap is something that goes wrong on demand. A request that meets one counts in the books like any other, but what a
// mishap answers is not a refusal by the books.
type Mishap struct {
	// On are the operations; none stands for all but GetToken.
	On []Operation
	// Mailbox is an address; empty stands for any.
	Mailbox string
	// Skip lets so many requests pass first.
	Skip int
	// Times is to how many requests it happens; 0 stands for one or, with For, for any number.
	Times int
	// For ends it after a time; 0: never.
	For time.Duration

	At Moment
	// Delay holds the request up first.
	Delay time.Duration
	// Answer is given instead of what would come. Without one, and without Cut, the request goes on after Delay.
	Answer *Answer
	// Cut ends the connection, with HTTP/2 for everything else on it, too.
	Cut bool

	until time.Time
}

// Answer is what a mishap has the tenant say.
type Answer struct {
	Status int
	// RetryAfter is the header as it is to be sent: "120", "2.128" or an HTTP date.
	RetryAfter string
	// Code is the error code; by default one that goes with Status.
	Code string
	// Body replaces the error body, whatever it is.
	Body string
}

// Provoke has m happen from now on, after what was provoked before.
func (t *Tenant) Provoke(m Mishap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m.On = slices.Clone(m.On)
	switch {
	case m.For > 0:
		m.until = t.opts.Now().Add(m.For)
	case m.Times == 0:
		m.Times = 1
	}
	t.mishaps = append(t.mishaps, &m)
}

// Calm ends all mishaps that have not happened yet.
func (t *Tenant) Calm() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mishaps = nil
}

// fits reports whether m is about a request of this kind.
func (m *Mishap) fits(c *call, at Moment) bool {
	if m.At != at || m.Mailbox != "" && !strings.EqualFold(m.Mailbox, c.address) {
		return false
	}
	if len(m.On) == 0 {
		return c.operation != GetToken
	}
	return slices.Contains(m.On, c.operation)
}

// find gives the next mishap of a call. mu is held.
func (t *Tenant) find(c *call, at Moment) *Mishap {
	now := t.opts.Now()
	t.mishaps = slices.DeleteFunc(t.mishaps, func(m *Mishap) bool { return !m.until.IsZero() && now.After(m.until) })
	for _, m := range t.mishaps {
		if m.fits(c, at) {
			return m
		}
	}
	return nil
}

// struck reports whether something may happen to a call at a moment.
func (t *Tenant) struck(c *call, at Moment) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.find(c, at) != nil
}

// strike has happen to a call what is to happen at a moment. With stop the call is over: with an answer, or without one if
// the connection is to be cut.
func (t *Tenant) strike(c *call, at Moment) (a *answer, stop bool) {
	m := t.take(c, at)
	if m == nil {
		return nil, false
	}
	t.mark(c, func(r *Request) { r.Mishap = true })
	switch {
	case !t.pause(m.Delay), m.Cut:
		return nil, true
	case m.Answer == nil:
		return nil, false
	}
	return m.Answer.to(c), true
}

// take uses up one time of the mishap that comes next.
func (t *Tenant) take(c *call, at Moment) *Mishap {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.find(c, at)
	if m == nil {
		return nil
	}
	if m.Skip > 0 {
		m.Skip--
		return nil
	}
	if m.Times > 0 {
		if m.Times--; m.Times == 0 {
			t.mishaps = slices.DeleteFunc(t.mishaps, func(other *Mishap) bool { return other == m })
		}
	}
	return m
}

// codes are those that Graph, or the mailbox behind it, sends with a status if it has nothing more to say.
var codes = map[int]string{
	http.StatusUnauthorized:        "InvalidAuthenticationToken",
	http.StatusForbidden:           "ErrorAccessDenied",
	http.StatusTooManyRequests:     "TooManyRequests",
	http.StatusInternalServerError: "ErrorInternalServerError",
	http.StatusBadGateway:          "UnknownError",
	http.StatusServiceUnavailable:  "ServiceUnavailable",
	http.StatusGatewayTimeout:      "UnknownError",
	509:                            "BandwidthLimitExceeded",
}

// to gives the answer to a call, in the form of its host.
func (w *Answer) to(c *call) *answer {
	a := &answer{status: w.Status, code: w.Code}
	switch {
	case w.Body != "":
		a.body = []byte(w.Body)
		a.set("Content-Type", "text/html; charset=utf-8")
	case w.Status >= 400:
		f := &fault{status: w.Status, code: w.Code, message: cmp.Or(http.StatusText(w.Status), "Bandwidth Limit Exceeded"), number: 90033}
		if f.code == "" && c.operation == GetToken {
			f.code = "temporarily_unavailable"
		}
		if f.code == "" {
			f.code = codes[w.Status]
		}
		f.challenge = w.Status == http.StatusUnauthorized
		a = c.door.refusal(c, f)
	}
	if w.RetryAfter != "" {
		a.set("Retry-After", w.RetryAfter)
	}
	return a
}
