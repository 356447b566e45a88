package admin

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postroom/postroom/mail"
)

// Problem is the answer to a request that was refused (RFC 9457); the Client returns it as an error.
type Problem struct {
	// Type is a stable URI, such as "urn:postroom:problem:invalid-message": what programs should tell problems apart by.
	Type string `json:"type"`
	// Title says what the type means.
	Title string `json:"title"`
	// Status is the HTTP status.
	Status int `json:"status"`
	// Detail says what to do.
	Detail string `json:"detail,omitempty"`
	// Errors has each fault of the request.
	Errors []Fault `json:"errors,omitempty"`
	// RetryAfter is when trying again is worth while (the header Retry-After); 0 if nobody said.
	RetryAfter time.Duration `json:"-"`
	// doubtful are the places of a body that could not be read as what they are: what validation says of them would tell nothing.
	doubtful []string
}

// Fault is one thing that is wrong with a request. It never quotes the value.
type Fault struct {
	// Location is a JSON pointer (RFC 6901) into the request's body, such as "/recipients/3/to/0/address"; "" is the whole
	// body. What is not in the body is named "query.NAME" or "header.NAME".
	Location string `json:"location"`
	// Reason completes the sentence "this field ...".
	Reason string `json:"reason"`
}

// What huma asks of an error.
var (
	_ huma.StatusError       = (*Problem)(nil)
	_ huma.HeadersError      = (*Problem)(nil)
	_ huma.ContentTypeFilter = (*Problem)(nil)
)

// mostTold bounds the text of a Problem; its Errors are complete.
const mostTold = 20

// Error gives the problem on one line, with locations and reasons.
func (p *Problem) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "admin: %d %s", p.Status, p.Title)
	if p.Detail != "" {
		b.WriteString(": " + p.Detail)
	}
	for i, f := range p.Errors {
		if i == mostTold {
			fmt.Fprintf(&b, "; and %d more", len(p.Errors)-i)
			break
		}
		b.WriteString("; ")
		if f.Location != "" {
			b.WriteString(f.Location + " ")
		}
		b.WriteString(f.Reason)
	}
	return b.String()
}

// GetStatus gives the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType gives the media type of RFC 9457.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// GetHeaders gives the header fields that belong to the answer.
func (p *Problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(p.RetryAfter.Seconds())))
	}
	switch p.Status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", "Bearer")
	case http.StatusRequestEntityTooLarge, http.StatusRequestTimeout:
		h.Set("Connection", "close") // the rest of the body may still be on its way
	}
	return h
}

// refusal is a sort of problem. The set is closed: types are part of the API.
type refusal struct {
	name   string
	status int
	title  string
}

func (r refusal) uri() string { return "urn:postroom:problem:" + r.name }

// problem gives a problem of this sort.
func (r refusal) problem(detail string) *Problem {
	return &Problem{Type: r.uri(), Title: r.title, Status: r.status, Detail: detail}
}

// The refusals.
var (
	malformedJSON       = refusal{"malformed-json", 400, "The body is not JSON"}
	incompleteBody      = refusal{"incomplete-body", 400, "The body ended too early"}
	badIdempotencyKey   = refusal{"bad-idempotency-key", 400, "The Idempotency-Key can't be used"}
	noTokens            = refusal{"no-tokens", 401, "Nobody may use the API yet"}
	unauthorized        = refusal{"unauthorized", 401, "A token is needed"}
	forbidden           = refusal{"forbidden", 403, "The token's role does not allow this"}
	notFound            = refusal{"not-found", 404, "There is no such message or batch"}
	noSuchContent       = refusal{"no-such-content", 404, "There is no such file"}
	noSuchMailbox       = refusal{"no-such-mailbox", 404, "There is no such mailbox"}
	noSuchEndpoint      = refusal{"no-such-endpoint", 404, "There is nothing at this path"}
	methodNotAllowed    = refusal{"method-not-allowed", 405, "The path does not know this method"}
	bodyTooSlow         = refusal{"body-too-slow", 408, "The body took too long"}
	tooLate             = refusal{"too-late", 409, "It is too late to cancel"}
	notFailed           = refusal{"not-failed", 409, "The message is not in the failed store"}
	readOnlyProvider    = refusal{"provider-read-only", 409, "The provider is set in a configuration file"}
	providerChanged     = refusal{"provider-changed", 409, "Somebody else has changed the provider meanwhile"}
	noProvider          = refusal{"no-provider", 409, "No provider is active"}
	noKey               = refusal{"no-key", 409, "There is no key to keep credentials with"}
	unreadableSettings  = refusal{"unreadable-settings", 409, "The settings can't be read here"}
	noSender            = refusal{"no-sender", 409, "There is no sender to put in"}
	bodyTooLarge        = refusal{"body-too-large", 413, "The body is too large"}
	wrongMediaType      = refusal{"unsupported-media-type", 415, "The body's type is not supported"}
	invalidRequest      = refusal{"invalid-request", 422, "The request does not have the right form"}
	invalidMessage      = refusal{"invalid-message", 422, "The message can't be accepted"}
	invalidContent      = refusal{"invalid-content", 422, "The file can't be stored"}
	invalidRecipient    = refusal{"invalid-recipient", 422, "The recipient can't be accepted"}
	invalidSettings     = refusal{"invalid-settings", 422, "The settings can't be used"}
	idempotencyRunning  = refusal{"idempotency-running", 409, "A request with the same Idempotency-Key is under way"}
	idempotencyConflict = refusal{"idempotency-conflict", 422, "The Idempotency-Key was used for another request"}
	notForToken         = refusal{"not-for-token", 403, "The token is not for this mail"}
	tooManyRequests     = refusal{"too-many-requests", 429, "The token makes too many requests"}
	tooManyTries        = refusal{"too-many-tries", 429, "The provider's settings were saved or tried too often"}
	internal            = refusal{"internal", 500, "Something is wrong here"}
	busy                = refusal{"busy", 503, "Too much is being handed in at once"}
	full                = refusal{"full", 503, "There is no room for more content"}
	backlogFull         = refusal{"backlog-full", 503, "Too many messages wait already"}
	notReplicated       = refusal{"not-replicated", 503, "Accepted, but not known to outlast a fail-over"}
	unavailable         = refusal{"unavailable", 503, "The queue can't be reached"}
	tookTooLong         = refusal{"took-too-long", 503, "Accepting took too long"}
)

// mostInvalid and mostOfRecipient bound the answer to a message in which everything is wrong, and what it says about each of
// a batch's recipients, of whom there can be many.
const (
	mostInvalid     = 1000
	mostOfRecipient = 3
)

// invalid gives a problem with the faults that validation found, the first of them if there are more than most.
func (r refusal) invalid(detail string, problems []mail.Problem, most int) *Problem {
	p := r.problem(detail)
	if more := len(problems) - most; more > 0 {
		p.Detail = strings.TrimSpace(fmt.Sprintf("%s There are %d more.", detail, more))
		problems = problems[:most]
	}
	for _, one := range problems {
		p.Errors = append(p.Errors, Fault{Location: one.Field, Reason: one.Reason})
	}
	return p
}

// ours turns what huma itself refuses, such as a query parameter that is no boolean, into a Problem, without the value
// that huma would repeat.
func ours(_ huma.Context, _ string, v any) (any, error) {
	model, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	k := invalidRequest
	if model.Status >= http.StatusInternalServerError {
		k = internal
	}
	p := k.problem("Correct what errors names.")
	p.Status = model.Status
	for _, e := range model.Errors {
		parameter, _, _ := strings.Cut(e.Location, "[") // which of a list's values it is, nobody counts in a URL
		p.Errors = append(p.Errors, Fault{Location: parameter, Reason: inOurWords(e.Message)})
	}
	return p, nil
}

// humaWords are what huma says of parameters, by how it begins, and what completes our sentence; %s is the rest.
var humaWords = []struct{ theirs, ours string }{
	{"expected value to be one of ", "is none of %s"},
	{"expected number >= ", "is less than %s"},
	{"expected number <= ", "is more than %s"},
	{"expected length <= ", "is longer than %s characters"},
	{"expected array length <= ", "is there more than %s times"},
	{"expected string to be RFC 3339 date-time", "is not a time of RFC 3339, such as 2026-01-31T08:00:00Z%s"},
	{"invalid integer", "is not a whole number%s"},
	{"invalid boolean", "is neither true nor false%s"},
	{"unknown query parameter", "is not known: remove it%s"},
}

func inOurWords(message string) string {
	for _, w := range humaWords {
		if rest, ok := strings.CutPrefix(message, w.theirs); ok {
			return fmt.Sprintf(w.ours, strings.Trim(rest, `"`))
		}
	}
	return message
}
