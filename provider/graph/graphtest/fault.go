package graphtest

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// fault refuses a request. How it is written depends on the host: Graph and Outlook have one form, Entra another.
type fault struct {
	status int
	// code is Graph's error code, or the error of OAuth 2.0.
	code    string
	message string
	// inner is a more specific code, for Graph's innerError; may be empty.
	inner string
	// number is that of Entra's error, as in AADSTS7000215.
	number int
	// retryAfter is the header's value; empty for none.
	retryAfter string
	// challenge asks for a token in the header.
	challenge bool
	// limit is which limit of the books refuses, if one does.
	limit string
}

func refuse(status int, code, message string) *fault {
	return &fault{status: status, code: code, message: message}
}

// answer is what goes back to the client.
type answer struct {
	status int
	header http.Header
	body   []byte
	code   string // of an error, for the log
}

func (a *answer) set(name, value string) *answer {
	if a.header == nil {
		a.header = make(http.Header)
	}
	a.header.Set(name, value)
	return a
}

// jsonAnswer gives v as JSON with the header that Graph sends.
func jsonAnswer(status int, v any) *answer {
	body, err := json.Marshal(v)
	if err != nil {
		panic("graphtest: " + err.Error()) // All that is given here is made of strings and numbers.
	}
	return (&answer{status: status, body: body}).
		set("Content-Type", "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8")
}

// graphError is the error body of https://learn.microsoft.com/graph/errors#error-resource-type. There are innerError, which
// mailboxes send, and innererror; codes are to be looked for in both, if one looks at all.
func graphError(f *fault, requestID, clientRequestID string, now time.Time) *answer {
	inner := map[string]any{"date": now.UTC().Format("2006-01-02T15:04:05"), "request-id": requestID, "client-request-id": clientRequestID}
	if f.inner != "" {
		inner["code"] = f.inner
	}
	a := jsonAnswer(f.status, map[string]any{"error": map[string]any{"code": f.code, "message": f.message, "innerError": inner}})
	a.code = f.code
	if f.retryAfter != "" {
		a.set("Retry-After", f.retryAfter)
	}
	return a
}

// entraError is the error body of https://learn.microsoft.com/entra/identity-platform/reference-error-codes.
func entraError(f *fault, traceID, correlationID string, now time.Time) *answer {
	at := now.UTC().Format("2006-01-02 15:04:05Z")
	number := strconv.Itoa(f.number)
	a := jsonAnswer(f.status, map[string]any{
		"error": f.code,
		"error_description": "AADSTS" + number + ": " + f.message + " Trace ID: " + traceID + " Correlation ID: " + correlationID +
			" Timestamp: " + at,
		"error_codes":    []int{f.number},
		"timestamp":      at,
		"trace_id":       traceID,
		"correlation_id": correlationID,
		"error_uri":      "https://login.microsoftonline.com/error?code=" + number,
	})
	a.code = f.code
	a.set("Content-Type", "application/json; charset=utf-8")
	if f.retryAfter != "" {
		a.set("Retry-After", f.retryAfter)
	}
	return a
}

// What many operations refuse with. Codes of mailboxes are those of Exchange:
// https://learn.microsoft.com/exchange/client-developer/web-service-reference/responsecode.
func badRequest(message string) *fault {
	return refuse(http.StatusBadRequest, "BadRequest", message)
}

func unreadable(message string) *fault {
	return refuse(http.StatusBadRequest, "RequestBodyRead", message)
}

// accessDenied is what a token without the permission gets.
func accessDenied() *fault {
	return refuse(http.StatusForbidden, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")
}

func itemNotFound() *fault {
	return refuse(http.StatusNotFound, "ErrorItemNotFound", "The specified object was not found in the store.")
}

func tooLarge() *fault {
	return refuse(http.StatusBadRequest, "ErrorMessageSizeExceeded", "The message exceeds the maximum supported size.")
}

// entraFault is one of Entra's.
func entraFault(status int, code string, number int, message string) *fault {
	return &fault{status: status, code: code, number: number, message: message}
}
