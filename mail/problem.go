package mail

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Problem is one fault in what a producer handed in.
type Problem struct {
	// Field is a JSON pointer (RFC 6901) into the document handed in, such as "/to/0/address".
	Field string `json:"field"`
	// Reason completes the sentence "this field ..." and says what to do. It never quotes the value, so that it may go into
	// logs.
	Reason string `json:"reason"`
}

// Invalid is the error of a message or batch that cannot be accepted. It holds every fault that was found.
type Invalid struct {
	Problems []Problem
}

// mostTold bounds the text of an Invalid; its Problems are complete.
const mostTold = 20

// Error names the fields and what is wrong with each, never their values.
func (e *Invalid) Error() string {
	var b strings.Builder
	noun := "problems"
	if len(e.Problems) == 1 {
		noun = "problem"
	}
	fmt.Fprintf(&b, "mail: %d %s", len(e.Problems), noun)
	for i, p := range e.Problems {
		if i == mostTold {
			fmt.Fprintf(&b, "; and %d more", len(e.Problems)-i)
			break
		}
		b.WriteString([]string{": ", "; "}[min(i, 1)])
		b.WriteString(cmp.Or(p.Field, "the message") + " " + p.Reason)
	}
	return b.String()
}

// problems collects what is wrong below one place of the document.
type problems struct {
	at   string
	list []Problem
}

// add notes a fault; an empty reason is none.
func (p *problems) add(field, reason string) {
	if reason != "" {
		p.list = append(p.list, Problem{p.at + field, reason})
	}
}

func (p *problems) err() error {
	if len(p.list) == 0 {
		return nil
	}
	return &Invalid{p.list}
}

// element points at an element of a list.
func element(field string, i int) string { return field + "/" + strconv.Itoa(i) }

// entry points at an entry of a map. A key that is not a plain word is not repeated: it could hold anything.
func entry(field, key string) string {
	if !isWord(key) {
		return field
	}
	return field + "/" + key
}

// maxWord is the longest name of a header field, a variable or an entry of the metadata, in bytes.
const maxWord = 64

// isWord reports whether s has 1 to 64 of the ASCII letters, digits, '-', '_' and '.'.
func isWord(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return s != "" && len(s) <= maxWord
}

const (
	notUTF8    = "is not valid UTF-8"
	hasControl = "has a control character, such as a line break: remove it"
)

// lineFault says what keeps s out of a header field: nothing that could end its line may come through. An empty answer
// means that s is fine.
func lineFault(s string, most int) string {
	switch {
	case len(s) > most:
		return "is longer than " + strconv.Itoa(most) + " bytes"
	case !utf8.ValidString(s):
		return notUTF8
	case strings.ContainsFunc(s, unicode.IsControl):
		return hasControl
	}
	return ""
}

// bodyFault says what keeps s out of a text or html part.
func bodyFault(s string) string {
	switch {
	case !utf8.ValidString(s):
		return notUTF8
	case strings.IndexByte(s, 0) >= 0:
		return "has a NUL byte: remove it"
	}
	return ""
}
