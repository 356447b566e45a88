package oauth

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/oauth2"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// step is where all outcomes of this package were decided (mail.Outcome.Step).
const step = "token"

// Fault is why there is no token, as the outcome of whatever needed one. Enhanced is the OAuth error (RFC 6749, section 5.2), Code
// the HTTP status. It holds neither a secret nor anything else of what we sent.
type Fault struct{ outcome mail.Outcome }

// Outcome gives it for one recipient; it is the same for all.
func (f *Fault) Outcome() mail.Outcome { return f.outcome }

// Error gives the words of the login service, or ours.
func (f *Fault) Error() string { return "oauth: token: " + f.outcome.Reply }

// ours is a fault that people have to put right, in our words.
func ours(cause mail.Cause, words string) *Fault {
	return &Fault{mail.Outcome{Class: mail.Configuration, Scope: mail.ScopeProvider, Cause: cause, Step: step, Reply: words}}
}

// unreachable says what it means that a request got no answer.
func unreachable(err error) *Fault {
	o := provider.Disconnected(step, err)
	if o.Class == mail.Temporary {
		o.Cause = mail.TokenUnavailable
	}
	o.Reply = firstLine(o.Reply)
	return &Fault{o}
}

// refusal says what an answer means that brought no token: by its status and its OAuth error. What is wrong with the server, or with
// how often we ask, passes; all else stays until somebody changes it.
func refusal(r *oauth2.RetrieveError, now time.Time) mail.Outcome {
	o := mail.Outcome{Class: mail.Configuration, Scope: mail.ScopeProvider, Step: step, Code: r.Response.StatusCode}
	if errorCode.MatchString(r.ErrorCode) {
		o.Enhanced = r.ErrorCode
	}
	o.Reply = firstLine(r.ErrorDescription)
	if o.Reply == "" {
		o.Reply = strings.TrimSpace("the login service answered HTTP status " + strconv.Itoa(o.Code) + " " + o.Enhanced)
	}
	if passes(o.Code, o.Enhanced) {
		o.Class, o.Cause = mail.Temporary, mail.TokenUnavailable
		o.RetryAfter = provider.RetryAfter(r.Response.Header, now)
		return o
	}
	o.Cause = causeOf(r, o.Enhanced)
	return o
}

// causeOf says why a token is refused that will not be granted by itself.
func causeOf(r *oauth2.RetrieveError, errorCode string) mail.Cause {
	for _, n := range entraCodes(r) {
		if c, ok := byEntraCode[n]; ok {
			return c
		}
	}
	if c, ok := byError[errorCode]; ok {
		return c
	}
	switch status := r.Response.StatusCode; {
	case errorCode != "", status == http.StatusBadRequest, status == http.StatusForbidden:
		return mail.TokenRefused
	case status == http.StatusUnauthorized:
		return mail.ClientRefused // RFC 6749, section 5.2: it is for nothing else
	}
	return mail.NoTokenEndpoint
}

// passes reports whether the same request may be granted later.
func passes(status int, errorCode string) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	}
	return status >= 500 || errorCode == "temporarily_unavailable" || errorCode == "server_error" || errorCode == "slow_down"
}

// errorCode is what can be shown of an OAuth error without looking at it twice.
var errorCode = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,64}$`)

// byError has the causes of OAuth errors (RFC 6749, sections 4.1.2.1 and 5.2; RFC 8707, section 2; "Microsoft Entra authentication and
// authorization error codes").
var byError = map[string]mail.Cause{
	"invalid_client":      mail.ClientRefused,
	"unauthorized_client": mail.PermissionMissing,
	"access_denied":       mail.PermissionMissing,
	"invalid_scope":       mail.ScopeRefused,
	"invalid_target":      mail.ScopeRefused,
	"invalid_resource":    mail.ScopeRefused,
}

// byEntraCode has the causes of Microsoft Entra's codes (AADSTS...), which tell more than its OAuth errors: "Microsoft Entra
// authentication and authorization error codes". They decide about no class, as Microsoft may change them.
var byEntraCode = map[int]mail.Cause{
	70002:   mail.ClientRefused, // wrong secret
	7000215: mail.ClientRefused, // the same
	7000222: mail.SecretExpired,

	// The assertion: signature, certificate, time, audience; no federated credential fits.
	50012:   mail.AssertionRefused,
	50013:   mail.AssertionRefused,
	50027:   mail.AssertionRefused,
	50048:   mail.AssertionRefused,
	500133:  mail.AssertionRefused,
	5002738: mail.AssertionRefused,
	70021:   mail.AssertionRefused,
	700021:  mail.AssertionRefused,
	700024:  mail.AssertionRefused,
	700027:  mail.AssertionRefused,
	700030:  mail.AssertionRefused,
	700211:  mail.AssertionRefused,
	700212:  mail.AssertionRefused,
	700213:  mail.AssertionRefused,
	900384:  mail.AssertionRefused,

	70001:   mail.AppNotFound, // disabled
	700011:  mail.AppNotFound,
	700016:  mail.AppNotFound,
	7000112: mail.AppNotFound, // disabled
	7000229: mail.AppNotFound, // no service principal in the tenant

	50034:  mail.TenantNotFound, // the account is not in this tenant: it is mostly the wrong one
	50059:  mail.TenantNotFound,
	50128:  mail.TenantNotFound,
	90002:  mail.TenantNotFound,
	90019:  mail.TenantNotFound,
	90038:  mail.TenantNotFound, // it is in another cloud
	900382: mail.TenantNotFound, // the same
	900432: mail.TenantNotFound, // the same

	28002:   mail.ScopeRefused,
	28003:   mail.ScopeRefused,
	50001:   mail.ScopeRefused,
	500011:  mail.ScopeRefused,
	650052:  mail.ScopeRefused,
	650057:  mail.ScopeRefused,
	70011:   mail.ScopeRefused,
	700022:  mail.ScopeRefused,
	700023:  mail.ScopeRefused,
	1002012: mail.ScopeRefused, // client credentials want .default

	53003:  mail.PermissionMissing, // conditional access
	65001:  mail.PermissionMissing,
	650056: mail.PermissionMissing,
	90094:  mail.PermissionMissing,
}

// entraCodes reads error_codes, or the number that a description begins with if there are none.
func entraCodes(r *oauth2.RetrieveError) []int {
	var body struct {
		Codes []int `json:"error_codes"`
	}
	if json.Unmarshal(r.Body, &body) == nil && len(body.Codes) > 0 {
		return body.Codes
	}
	if rest, ok := strings.CutPrefix(r.ErrorDescription, "AADSTS"); ok {
		digits, _, _ := strings.Cut(rest, ":")
		if n, err := strconv.Atoi(digits); err == nil {
			return []int{n}
		}
	}
	return nil
}

// maxWords is the length of mail.Outcome.Reply, in bytes.
const maxWords = 400

// firstLine makes the first line of a text safe to show. What follows it are, with Microsoft, ids for its support.
func firstLine(text string) string {
	text = strings.TrimSpace(text)
	if i := strings.IndexAny(text, "\r\n"); i >= 0 {
		text = text[:i]
	}
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r == utf8.RuneError || !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, text)
	if len(text) > maxWords {
		text = strings.ToValidUTF8(text[:maxWords], "")
	}
	return strings.TrimSpace(text)
}

// markLength is how much of a secret may not be seen.
const markLength = 6

// scrub ends a text before the first thing in it that looks like what we proved ourselves by, should a server repeat it.
func (e *endpoint) scrub(text string, p proof) string {
	end := len(text)
	escaped := url.QueryEscape(p.secret)
	header := base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(e.clientID) + ":" + escaped))
	for _, secret := range []string{p.secret, escaped, p.assertion, header} {
		if i := strings.Index(text, secret[:min(len(secret), markLength)]); i >= 0 && secret != "" {
			end = min(end, i)
		}
	}
	if end == len(text) {
		return text
	}
	return text[:end] + provider.Redacted
}
