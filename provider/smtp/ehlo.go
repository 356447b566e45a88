package smtp

import (
	"bytes"
	"strconv"
	"strings"
)

// extensions are those of a server's EHLO reply that we use.
type extensions struct {
	startTLS   bool // RFC 3207
	pipelining bool // RFC 2920
	eightBit   bool // RFC 6152
	utf8       bool // RFC 6531
	size       bool // RFC 1870
	// maxSize is the largest message in bytes, 0 if the server does not say.
	maxSize int64
	// auth are the SASL mechanisms in upper case (RFC 4954).
	auth []string
}

// maxMechanisms bounds what a server can make us keep; there are some 40 registered ones.
const maxMechanisms = 100

// add reads one line of the reply to EHLO. The first, the server's name and greeting, is not for it.
func (e *extensions) add(line []byte) {
	fields := bytes.Fields(line)
	if len(fields) == 0 {
		return
	}
	keyword, params := strings.ToUpper(string(fields[0])), fields[1:]
	switch keyword {
	case "STARTTLS":
		e.startTLS = true
	case "PIPELINING":
		e.pipelining = true
	case "8BITMIME":
		e.eightBit = true
	case "SMTPUTF8":
		e.utf8 = true
	case "SIZE":
		e.size = true
		if len(params) > 0 {
			// A figure that is none, or too large for us, says as little as a missing one.
			if n, err := strconv.ParseInt(string(params[0]), 10, 64); err == nil && n > 0 {
				e.maxSize = n
			}
		}
	case "AUTH":
		e.addMechanisms(params)
	default:
		// Servers older than RFC 4954 write AUTH=LOGIN, and some new ones do so besides.
		if rest, ok := strings.CutPrefix(keyword, "AUTH="); ok {
			e.addMechanisms(append([][]byte{[]byte(rest)}, params...))
		}
	}
}

func (e *extensions) addMechanisms(names [][]byte) {
	for _, name := range names {
		if len(name) > 0 && len(e.auth) < maxMechanisms {
			e.auth = append(e.auth, strings.ToUpper(string(name)))
		}
	}
}

func (e *extensions) offers(mechanism string) bool {
	for _, m := range e.auth {
		if m == mechanism {
			return true
		}
	}
	return false
}
