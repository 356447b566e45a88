package smtp

import (
	"bufio"
	"bytes"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of what a server may say in one reply. RFC 5321, section 4.5.3.1.5, gives a line 512 octets; we are lenient,
// not endless.
const (
	maxReplyLine  = 2048
	maxReplyLines = 100
	// maxReplyText is what of a reply is kept (mail.Outcome.Reply).
	maxReplyText = 400
)

// errMalformed is a reply that is no SMTP. What the server says after it can't be trusted to answer what we asked.
var errMalformed = errors.New("malformed reply")

// reply is a server's answer to one command (RFC 5321, section 4.2).
type reply struct {
	code int
	// enhanced is the status code of RFC 3463 on the first line, or empty.
	enhanced string
	// text is every line without the codes, joined by spaces, printable, at most maxReplyText bytes.
	text string
}

// class is the first digit, which decides (RFC 5321, section 4.2.1).
func (r reply) class() int { return r.code / 100 }

// readReply reads one reply of one or more lines. Each line's text, without the reply code and as the server sent it,
// goes to line too, if that is not nil; it is valid only during the call. r must hold maxReplyLine bytes.
func readReply(r *bufio.Reader, line func([]byte)) (reply, error) {
	var rep reply
	var text []byte
	for n := range maxReplyLines {
		raw, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) || len(raw) > maxReplyLine {
			return reply{}, errMalformed
		}
		if err != nil {
			return reply{}, err
		}
		code, more, rest, ok := parseReplyLine(bytes.TrimRight(raw, "\r\n"))
		if !ok || n > 0 && code != rep.code {
			return reply{}, errMalformed
		}
		if line != nil {
			line(rest)
		}
		enhanced, words := splitEnhanced(code, rest)
		if n == 0 {
			rep.code, rep.enhanced = code, enhanced
		}
		if len(text) > 0 && len(words) > 0 {
			text = append(text, ' ')
		}
		if len(text) <= maxReplyText {
			text = append(text, words...)
		}
		if !more {
			rep.text = printable(string(text))
			return rep, nil
		}
	}
	return reply{}, errMalformed
}

// parseReplyLine takes a line like "250-SIZE 1000" or "250" apart: the code, whether more lines follow, and the text.
func parseReplyLine(line []byte) (code int, more bool, text []byte, ok bool) {
	if len(line) < 3 {
		return 0, false, nil, false
	}
	for _, d := range line[:3] {
		if d < '0' || d > '9' {
			return 0, false, nil, false
		}
		code = 10*code + int(d-'0')
	}
	if code < 200 || code > 599 {
		return 0, false, nil, false
	}
	if len(line) == 3 {
		return code, false, nil, true
	}
	if line[3] != ' ' && line[3] != '-' {
		return 0, false, nil, false
	}
	return code, line[3] == '-', line[4:], true
}

// splitEnhanced takes an enhanced status code (RFC 2034, section 4) off the text. Its first number must be the reply
// code's first digit, else it is something else that looks like one.
func splitEnhanced(code int, text []byte) (enhanced string, rest []byte) {
	word, rest, _ := bytes.Cut(text, []byte(" "))
	parts := bytes.Split(word, []byte("."))
	if len(parts) != 3 || len(parts[0]) != 1 || int(parts[0][0]-'0') != code/100 {
		return "", text
	}
	for _, p := range parts {
		if len(p) < 1 || len(p) > 3 || bytes.ContainsFunc(p, func(r rune) bool { return r < '0' || r > '9' }) {
			return "", text
		}
	}
	return string(word), rest
}

// printable makes one line of at most maxReplyText bytes that is safe to show: whatever is not printable becomes "?".
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r == utf8.RuneError || !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, s)
	s = strings.TrimSpace(s)
	if len(s) <= maxReplyText {
		return s
	}
	cut := maxReplyText
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}
