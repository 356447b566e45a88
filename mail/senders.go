package mail

import (
	"errors"
	"strings"
)

// Senders is an allow-list of senders: addresses, and domains written as "@example.com". A domain stands for itself alone and not
// for those below it. Entries are in the form that ParseSender gives; another is met by nothing. An empty list allows all.
type Senders []string

// Allow reports whether mail may be sent from address, which may be in any form that ParseAddress reads. Upper and lower case are
// the same here, in the local part too: no provider tells mailboxes apart by it.
//
// That the provider's own sender is always allowed is for the caller to see to.
func (s Senders) Allow(address string) bool {
	if len(s) == 0 {
		return true
	}
	a, err := ParseAddress(address)
	if err != nil {
		return false
	}
	domain := "@" + a.Domain()
	for _, entry := range s {
		if sameFold(entry, a.Address) || sameFold(entry, domain) {
			return true
		}
	}
	return false
}

// sameFold is strings.EqualFold without what is the same letter for Unicode alone, such as k and the Kelvin sign: to a mail server
// those are different mailboxes.
func sameFold(a, b string) bool { return len(a) == len(b) && strings.EqualFold(a, b) }

// ParseSender reads an entry of Senders and gives it in canonical form: an address as ParseAddress does, a domain in lower case and
// as A-labels. The error does not repeat the entry.
func ParseSender(entry string) (string, error) {
	if reason := lineFault(entry, maxAddress); reason != "" {
		return "", errors.New("mail: the sender " + reason)
	}
	if domain, ok := strings.CutPrefix(entry, "@"); ok {
		ascii, reason := canonicalDomain(domain)
		if reason != "" {
			return "", errors.New("mail: the sender " + reason)
		}
		if len(ascii) > maxAddress-len("a@") {
			return "", errors.New("mail: the sender has a domain that is too long for any address")
		}
		return "@" + ascii, nil
	}
	a, err := ParseAddress(entry)
	if err != nil {
		return "", err
	}
	if a.Name != "" {
		return "", errors.New("mail: the sender has a display name: give the address alone")
	}
	return a.Address, nil
}
