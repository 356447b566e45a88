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
	// name is the server's own, for people.
	name string
}

// maxMechanisms bounds what a server can make us keep; there are some 40 registered ones.
const maxMechanisms = 100

// named reads the first line: the server's name, and maybe a greeting.
func (e *extensions) named(line []byte) {
	name, _, _ := bytes.Cut(line, []byte(" "))
	e.name = printable(string(name))
}

// add reads one line of the reply to EHLO. The first is for named.
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

// String says for people what the server offers.
func (e *extensions) String() string {
	var offered []string
	for _, x := range []struct {
		is   bool
		name string
	}{{e.startTLS, "STARTTLS"}, {len(e.auth) > 0, "AUTH " + strings.Join(e.auth, " ")}, {e.size, e.limit()}, {e.eightBit, "8BITMIME"},
		{e.utf8, "SMTPUTF8"}, {e.pipelining, "PIPELINING"}} {
		if x.is {
			offered = append(offered, x.name)
		}
	}
	if len(offered) == 0 {
		return e.name + " offers nothing of what is of use here"
	}
	return printable(e.name + " offers " + strings.Join(offered, ", "))
}

func (e *extensions) limit() string {
	if e.maxSize == 0 {
		return "SIZE"
	}
	return "SIZE " + strconv.FormatInt(e.maxSize, 10)
}

func (e *extensions) offers(mechanism string) bool {
	for _, m := range e.auth {
		if m == mechanism {
			return true
		}
	}
	return false
}
