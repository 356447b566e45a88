package provider

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/postroom/postroom/mail"
)

// A larger figure than these is a slip of the finger: no provider takes as much.
const (
	maxConcurrency          = 1000
	maxTenantConcurrency    = 100_000
	maxMessagesPerMinute    = 1_000_000
	maxRequestsPer10m       = 10_000_000
	maxRecipientsPerDay     = 1_000_000_000
	maxUploadBytesPer5m     = 1 << 40
	maxRecipientsPerMessage = 100_000
	maxMessageBytes         = 1 << 30
)

const (
	// maxAllowedSenders keeps what every message is held against short; a domain stands for any number of addresses.
	maxAllowedSenders = 1000
	// maxSenderName and maxHost are in bytes: what package mail takes for a name, and RFC 1035, section 2.3.4.
	maxSenderName = 256
	maxHost       = 253
)

// hostName allows the underscore that the names of containers have.
var hostName = regexp.MustCompile(`^([a-zA-Z0-9_]([a-zA-Z0-9_-]{0,62})\.)*[a-zA-Z0-9_][a-zA-Z0-9_-]{0,62}\.?$`)

// Validate gives every fault of settings that went through Defaults: its field as a path like /smtp/host, what is wrong,
// and what to do. None means that a sender can be made of them, not that the server takes it.
func (s *Settings) Validate() []mail.Problem {
	var f faults
	f.allowedSenders(s.AllowedSenders)
	switch s.Kind {
	case KindNone:
		return f
	case KindSMTP:
		f.sender(s.Sender)
		f.smtp(s)
	case KindMicrosoft365:
		f.sender(s.Sender)
		// A certificate that has expired is for the login service to refuse: mail is accepted and waits, and people are told.
		f = append(f, s.Microsoft365.Validate(time.Time{})...)
	default:
		f.add("/kind", "is no kind of provider; use none, smtp or microsoft365")
	}
	if s.Limits.Concurrency == NoLimit {
		f.add("/limits/concurrency", "must be between 1 and %d; leave it out for the default", maxConcurrency)
	}
	f.limits("/limits/", s.Limits, maxConcurrency)
	f.limits("/tenant_limits/", s.TenantLimits.Limits(), maxTenantConcurrency)
	return f
}

// faults collects problems, so that all are told at once.
type faults []mail.Problem

func (f *faults) add(field, reason string, args ...any) {
	*f = append(*f, mail.Problem{Field: field, Reason: fmt.Sprintf(reason, args...)})
}

func (f *faults) sender(a mail.Address) {
	if a.Address == "" {
		f.add("/sender/address", "is missing; give the address that mail is sent from")
		return
	}
	if parsed, err := mail.ParseAddress(a.Address); err != nil || parsed.Name != "" {
		f.add("/sender/address", "is not one mail address; write it as reports@example.com, and the name apart from it")
	}
	switch {
	case !utf8.ValidString(a.Name) || strings.ContainsFunc(a.Name, unicode.IsControl):
		f.add("/sender/name", "holds a control character, such as a line break; take it out")
	case len(a.Name) > maxSenderName:
		f.add("/sender/name", "is longer than %d bytes; shorten it", maxSenderName)
	}
}

func (f *faults) allowedSenders(list []string) {
	if len(list) > maxAllowedSenders {
		f.add("/allowed_senders", "has more than %d entries; write @example.com for all addresses of a domain", maxAllowedSenders)
		return
	}
	for i, entry := range list {
		if _, err := mail.ParseSender(entry); err != nil {
			f.add("/allowed_senders/"+strconv.Itoa(i), "is neither an address nor a domain; write reports@example.com, or @example.com for all of a domain")
		}
	}
}

func (f *faults) smtp(s *Settings) {
	o := &s.SMTP
	switch {
	case o.Host == "":
		f.add("/smtp/host", "is missing; give the name of the mail server")
	case hostName.MatchString(o.Host) && len(o.Host) <= maxHost || isIP(o.Host):
	case strings.Count(o.Host, ":") == 1 && !strings.Contains(o.Host, "/"):
		f.add("/smtp/host", "holds a port; write it as port instead")
	case strings.ContainsFunc(o.Host, func(r rune) bool { return r >= utf8.RuneSelf }):
		f.add("/smtp/host", "is not in ASCII; write an international name as DNS has it, with xn--")
	default:
		f.add("/smtp/host", "is not a host name; write it alone, as mail.example.com")
	}
	if o.Port < 1 || o.Port > 65535 {
		f.add("/smtp/port", "must be between 1 and 65535; leave it out for the usual port")
	}
	switch o.Security {
	case SecurityNone, SecurityStartTLS, SecurityTLS:
	default:
		f.add("/smtp/security", "is no kind of security; use starttls, tls or none")
	}
	switch o.MinTLS {
	case "1.0", "1.1", "1.2", "1.3":
	default:
		f.add("/smtp/min_tls", "is no TLS version; use 1.2 or 1.3 (1.0 and 1.1 only for a server that knows nothing better)")
	}
	if o.CAPEM != "" && !certificates(o.CAPEM) {
		f.add("/smtp/ca_pem", "must hold certificates in PEM and nothing else; leave it empty for the system's")
	}
	f.auth(s)
}

func (f *faults) auth(s *Settings) {
	a := &s.SMTP.Auth
	if a.OAuth2.ClientSecret != "" && (a.Method == AuthNone || a.Method == AuthBasic) {
		f.add("/smtp/auth/oauth2/client_secret", "is given, but the method is %s; use method oauth2, or take the secret out", a.Method)
	}
	switch a.Method {
	case AuthNone:
		if a.Username != "" || a.Password != "" {
			f.add("/smtp/auth/method", "is none, but an account is given; use basic, or take username and password out")
		}
	case AuthBasic:
		switch {
		case a.Password == "":
			f.add("/smtp/auth/password", "is missing; give it, or use method none")
		case a.Password == Redacted:
			f.add("/smtp/auth/password", "is not the password but its placeholder; type the password again")
		case strings.ContainsRune(a.Password.Reveal(), 0):
			f.add("/smtp/auth/password", "holds a NUL, which no server takes; type the password again")
		}
		if strings.ContainsFunc(a.Username, isControl) {
			f.add("/smtp/auth/username", "holds a control character; take it out")
		}
		if s.SMTP.Security == SecurityNone && !a.AllowCleartext {
			f.add("/smtp/auth/allow_cleartext",
				"is off, and without TLS anyone on the way can read the password; use security starttls or tls, or set it to true if you accept that")
		}
	case AuthOAuth2:
		if a.Password != "" {
			f.add("/smtp/auth/password", "is given, but the method is oauth2; use method basic, or take the password out")
		}
		if strings.ContainsFunc(a.Username, isControl) {
			f.add("/smtp/auth/username", "holds a control character; take it out")
		}
		if s.SMTP.Security == SecurityNone && !a.AllowCleartext {
			f.add("/smtp/auth/allow_cleartext",
				"is off, and without TLS anyone on the way can read the access token; use security starttls or tls, or set it to true if you accept that")
		}
		*f = append(*f, a.OAuth2.Validate()...)
	default:
		f.add("/smtp/auth/method", "is no method; use none, basic or oauth2")
	}
}

func (f *faults) limits(at string, l Limits, concurrency int64) {
	for _, v := range []struct {
		field      string
		value, max int64
	}{
		{"concurrency", int64(l.Concurrency), concurrency},
		{"messages_per_minute", int64(l.MessagesPerMinute), maxMessagesPerMinute},
		{"requests_per_10m", int64(l.RequestsPer10m), maxRequestsPer10m},
		{"recipients_per_day", int64(l.RecipientsPerDay), maxRecipientsPerDay},
		{"upload_bytes_per_5m", l.UploadBytesPer5m, maxUploadBytesPer5m},
		{"recipients_per_message", int64(l.RecipientsPerMessage), maxRecipientsPerMessage},
		{"message_bytes", l.MessageBytes, maxMessageBytes},
	} {
		switch {
		case v.value < NoLimit:
			f.add(at+v.field, "must not be negative; leave it out for the default, or write -1 for no limit")
		case v.value > v.max:
			f.add(at+v.field, "must be at most %d; leave it out for the default", v.max)
		}
	}
}

// certificates reports whether text is one or more certificates in PEM and nothing else.
func certificates(text string) bool {
	rest, n := []byte(text), 0
	for {
		block, after := pem.Decode(rest)
		if block == nil {
			return n > 0 && strings.TrimSpace(string(rest)) == ""
		}
		if _, err := x509.ParseCertificate(block.Bytes); block.Type != "CERTIFICATE" || err != nil {
			return false
		}
		rest = after
		n++
	}
}

func isIP(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
