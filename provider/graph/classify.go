package graph

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// quotaPause is how long to be silent when a daily quota is used up and the answer does not say when it comes back.
const quotaPause = time.Hour

// verdict is what an answer comes to.
type verdict struct {
	class mail.Class
	scope mail.Scope
	cause mail.Cause
	pause time.Duration // if the answer has no Retry-After
}

// byCode are the error codes of Graph that tell more than the status (Microsoft Graph, "Error responses and resource types";
// Exchange Web Services, ResponseCode). A name that ends in "*" stands for every code that begins so.
var byCode = map[string]verdict{
	// The message.
	"ErrorInvalidRecipients":        {class: mail.Permanent, scope: mail.ScopeMessage, cause: mail.AddressInvalid},
	"ErrorMissingRecipients":        {class: mail.Permanent, scope: mail.ScopeMessage},
	"ErrorMessageSizeExceeded":      {class: mail.Permanent, scope: mail.ScopeMessage, cause: mail.TooLarge},
	"ErrorMimeContentInvalid*":      {class: mail.Permanent, scope: mail.ScopeMessage},
	"InvalidInternetMessageHeader*": {class: mail.Permanent, scope: mail.ScopeMessage},
	// The mailbox, or what the app may do with it.
	"ErrorAccessDenied":            {class: mail.Configuration, scope: mail.ScopeMailbox, cause: mail.PermissionMissing},
	"ErrorSendAsDenied":            {class: mail.Configuration, scope: mail.ScopeMailbox, cause: mail.SendAsDenied},
	"ErrorInvalidUser":             {class: mail.Configuration, scope: mail.ScopeMailbox, cause: mail.MailboxNotFound},
	"Request_ResourceNotFound":     {class: mail.Configuration, scope: mail.ScopeMailbox, cause: mail.MailboxNotFound},
	"ResourceNotFound":             {class: mail.Configuration, scope: mail.ScopeMailbox, cause: mail.MailboxNotFound},
	"MailboxNotEnabledForRESTAPI":  {class: mail.Configuration, scope: mail.ScopeMailbox, cause: mail.MailboxNotFound},
	"ErrorNonExistentMailbox":      {class: mail.Configuration, scope: mail.ScopeMailbox, cause: mail.MailboxNotFound},
	"ErrorQuotaExceeded":           {class: mail.Configuration, scope: mail.ScopeMailbox, cause: mail.MailboxFull},
	"ErrorAccountDisabled":         {class: mail.Configuration, scope: mail.ScopeMailbox, cause: mail.SenderBlocked},
	"ApplicationThrottled":         {class: mail.Throttled, scope: mail.ScopeMailbox, cause: mail.RateExceeded},
	"TooManyRequests":              {class: mail.Throttled, scope: mail.ScopeMailbox, cause: mail.RateExceeded},
	"ErrorServerBusy":              {class: mail.Throttled, scope: mail.ScopeMailbox, cause: mail.RateExceeded},
	"ErrorSubmissionQuotaExceeded": {class: mail.Throttled, scope: mail.ScopeMailbox, cause: mail.QuotaExceeded, pause: quotaPause},
	// It may pass.
	"ErrorMailboxStoreUnavailable":      {class: mail.Temporary},
	"ErrorMailboxMoveInProgress":        {class: mail.Temporary},
	"ErrorInternalServerTransientError": {class: mail.Temporary},
	itemNotFound:                        {class: mail.Temporary}, // somebody has removed the draft
	"UnknownError":                      {class: mail.Unknown},
}

// byStatus judges what has no code of the table.
func byStatus(status int, retryAfter bool) verdict {
	switch {
	case status == http.StatusUnauthorized:
		return verdict{class: mail.Configuration, scope: mail.ScopeProvider, cause: mail.Credentials}
	case status == http.StatusForbidden:
		return verdict{class: mail.Configuration, scope: mail.ScopeMailbox, cause: mail.PermissionMissing}
	case status == http.StatusNotFound:
		return verdict{class: mail.Configuration, scope: mail.ScopeMailbox, cause: mail.MailboxNotFound}
	case status == http.StatusTooManyRequests, status == 509, status == http.StatusServiceUnavailable && retryAfter:
		return verdict{class: mail.Throttled, scope: mail.ScopeMailbox, cause: mail.RateExceeded}
	case status == http.StatusServiceUnavailable, status == http.StatusRequestTimeout:
		return verdict{class: mail.Temporary}
	case status >= 500:
		return verdict{class: mail.Unknown}
	case status == http.StatusRequestEntityTooLarge:
		return verdict{class: mail.Permanent, scope: mail.ScopeMessage, cause: mail.TooLarge}
	case status >= 400:
		return verdict{class: mail.Permanent, scope: mail.ScopeMessage}
	case status >= 300:
		// A proxy, or a graph_url that is no Graph.
		return verdict{class: mail.Configuration, scope: mail.ScopeProvider}
	}
	return verdict{class: mail.Unknown}
}

// refusal judges an answer that is not the one that means success, by status and code, never by the message.
func (a *attempt) refusal(r request, got *answer) *fault {
	code, words := got.problem()
	o := mail.Outcome{Step: r.step, Code: got.status, Enhanced: code, Reply: words}
	o.RetryAfter = provider.RetryAfter(got.header, time.Now())
	v, known := byCode[code]
	for prefix, other := range byCode {
		if p, open := strings.CutSuffix(prefix, "*"); open && !known && strings.HasPrefix(code, p) {
			v, known = other, true
		}
	}
	if !known {
		v = byStatus(got.status, o.RetryAfter > 0)
	}
	o.Class, o.Scope, o.Cause = v.class, v.scope, v.cause
	if o.Cause == mail.PermissionMissing {
		// Permissions are inside the token: the next one may have what this one lacks.
		a.sender.tokens.Reject(a.token)
	}
	switch {
	case o.Class == mail.Unknown && !(r.final && a.hasPassed()):
		o.Class = mail.Temporary // whatever became of it, it was not the message that went out
	case o.Class != mail.Throttled:
		o.RetryAfter = 0
	case o.RetryAfter == 0:
		o.RetryAfter = v.pause
	}
	if o.Class == mail.Temporary {
		o.RetryAfter = 0
	}
	return &fault{o}
}

// problem reads the error of an answer (Microsoft Graph, "Error responses and resource types"): the code, and the message with
// the request's id. What is no JSON of that form has neither code nor words of its own.
func (got *answer) problem() (code, words string) {
	var body struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
			Inner   struct {
				RequestID string `json:"request-id"`
			} `json:"innerError"`
		} `json:"error"`
	}
	_ = json.Unmarshal(got.body, &body) // a proxy's page is none
	code = printable(body.Error.Code, maxCode)
	words = printable(cmp.Or(body.Error.Message, http.StatusText(got.status)), maxWords)
	if id := printable(cmp.Or(got.requestID(), body.Error.Inner.RequestID), maxCode); id != "" {
		words += " (request-id " + id + ")"
	}
	return code, words
}

// Bounds of what is kept of an answer, in bytes; together they are below those of mail.Outcome.Reply.
const (
	maxCode  = 64
	maxWords = 300
)

// printable makes one line of at most most bytes that is safe to show.
func printable(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if s = strings.TrimSpace(s); len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return s
}
