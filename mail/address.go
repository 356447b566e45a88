package mail

import (
	"errors"
	"net/mail"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// The longest parts of an address, in bytes: RFC 5321, section 4.5.3.1, with erratum 1690, and ours for the name.
const (
	maxLocal   = 64
	maxLabel   = 63
	maxAddress = 254
	maxName    = 256
)

// ParseAddress reads "ada@example.com" or "Ada <ada@example.com>" by the rules of RFC 5322 and gives it in canonical form:
// the domain in lower case and as A-labels (RFC 5890), the local part as it stands, quoted only where it must be. The
// error does not repeat s.
func ParseAddress(s string) (Address, error) {
	a, fault := Address{Address: s}.canonical()
	if fault != nil {
		return Address{}, errors.New("mail: the address " + fault.Reason)
	}
	return a, nil
}

// Domain gives what follows the last "@", or "" if there is none.
func (a Address) Domain() string {
	at := strings.LastIndexByte(a.Address, '@')
	if at < 0 {
		return ""
	}
	return a.Address[at+1:]
}

// NeedsUTF8 reports whether the address can only be used with SMTPUTF8 (RFC 6531).
func (a Address) NeedsUTF8() bool { return !isASCII(a.Address) }

// canonical brings a into canonical form, or says which of its fields is wrong.
func (a Address) canonical() (Address, *Problem) {
	const field = "/address"
	if reason := lineFault(a.Name, maxName); reason != "" {
		return a, &Problem{"/name", reason}
	}
	if reason := lineFault(a.Address, maxAddress+4*maxName); reason != "" {
		return a, &Problem{field, reason}
	}
	parsed, err := mail.ParseAddress(a.Address)
	if err != nil {
		return a, &Problem{field, "is not an address such as ada@example.com"}
	}
	name := a.Name
	if parsed.Name != "" {
		if name != "" {
			return a, &Problem{field, "has a display name too: give it in name only"}
		}
		name = parsed.Name
		// An encoded word can hide what the first look did not see.
		if reason := lineFault(name, maxName); reason != "" {
			return a, &Problem{field, "has a display name that " + reason}
		}
	}
	at := strings.LastIndexByte(parsed.Address, '@')
	local, reason := canonicalLocal(parsed.Address[:at])
	if reason != "" {
		return a, &Problem{field, reason}
	}
	domain, reason := canonicalDomain(parsed.Address[at+1:])
	if reason != "" {
		return a, &Problem{field, reason}
	}
	spec := local + "@" + domain
	if len(spec) > maxAddress {
		return a, &Problem{field, "is longer than " + strconv.Itoa(maxAddress) + " bytes"}
	}
	return Address{Address: spec, Name: strings.TrimSpace(name)}, nil
}

// canonicalLocal quotes a local part if it is not a dot-atom.
func canonicalLocal(local string) (string, string) {
	for _, r := range local {
		if r >= utf8.RuneSelf && (!unicode.IsGraphic(r) || unicode.IsSpace(r)) {
			return "", "has an invisible character before the @: remove it"
		}
	}
	quoted := (&mail.Address{Address: local + "@"}).String()
	quoted = quoted[1 : len(quoted)-2]
	if len(quoted) > maxLocal {
		return "", "has more than " + strconv.Itoa(maxLocal) + " bytes before the @"
	}
	return quoted, ""
}

// canonicalDomain gives a domain as A-labels in lower case. Address literals such as [192.0.2.1] are refused: a provider
// that relays for others takes none.
func canonicalDomain(domain string) (string, string) {
	const reason = "has a domain that is not a host name"
	ascii, err := idna.Lookup.ToASCII(domain)
	if err != nil || !isASCII(ascii) {
		return "", reason
	}
	for label := range strings.SplitSeq(ascii, ".") {
		if label == "" || len(label) > maxLabel {
			return "", reason
		}
	}
	return ascii, ""
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// addresses gives list in canonical form without what is in seen already, which it extends.
func (p *problems) addresses(field string, list []Address, seen map[string]bool) []Address {
	if len(list) == 0 {
		return nil
	}
	out := make([]Address, 0, len(list))
	for i, a := range list {
		a, fault := a.canonical()
		if fault != nil {
			p.add(element(field, i)+fault.Field, fault.Reason)
			continue
		}
		if !seen[a.Address] {
			seen[a.Address] = true
			out = append(out, a)
		}
	}
	return out
}
