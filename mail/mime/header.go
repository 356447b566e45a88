package mime

import (
	"encoding/base64"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/postroom/postroom/mail"
)

const (
	// foldAt is the longest line that a header should have (RFC 5322, section 2.1.1).
	foldAt = 78
	// foldEncodedAt is the same for lines with encoded words (RFC 2047, section 2).
	foldEncodedAt = 76
	// longWord is how long a word may be before it is cut into encoded words, so that no line comes near 998 octets.
	longWord = 900
)

// fields appends header fields to a buffer and folds them. The values have no control characters.
type fields struct {
	buf []byte
	// start is where the current line begins.
	start int
	// fresh is set as long as the current line has nothing that could be left on it when it is folded.
	fresh bool
	utf8  bool
}

func (f *fields) begin(name string) {
	f.start, f.fresh = len(f.buf), true
	f.buf = append(append(f.buf, name...), ':')
}

func (f *fields) end() { f.buf = append(f.buf, "\r\n"...) }

// line writes a field that is never folded.
func (f *fields) line(name, value string) {
	f.begin(name)
	f.buf = append(append(f.buf, ' '), value...)
	f.end()
}

func (f *fields) fold() {
	f.end()
	f.start, f.fresh = len(f.buf), true
}

// word appends a space and word, on a new line if it does not fit on this one.
func (f *fields) word(word string) {
	if !f.fresh && len(f.buf)-f.start+1+len(word) > foldAt {
		f.fold()
	}
	f.buf = append(append(f.buf, ' '), word...)
	f.fresh = false
}

// words appends text that may be folded at its spaces, unless a reader who unfolds it would take some of them away.
func (f *fields) words(text string) {
	if strings.Contains(text, "  ") {
		f.word(text)
		return
	}
	for word := range strings.SplitSeq(text, " ") {
		f.word(word)
	}
}

// text writes an unstructured field.
func (f *fields) text(name, value string) {
	f.begin(name)
	if isPlain(value, longWord) {
		f.words(value)
	} else {
		f.encoded(value)
	}
	f.end()
}

// isPlain reports whether a reader gets text back if it is written as it is: printable ASCII, single spaces between words,
// and nothing that looks like an encoded word.
func isPlain(text string, longest int) bool {
	word := 0
	for i := range len(text) {
		switch c := text[i]; {
		case c == ' ':
			if word == 0 {
				return false
			}
			word = 0
			continue
		case c < ' ' || c > '~':
			return false
		}
		if word++; word > longest {
			return false
		}
	}
	return (word > 0 || text == "") && !strings.Contains(text, "=?")
}

// encoded appends text as encoded words (RFC 2047), cut between characters. Readers drop the white space between them.
func (f *fields) encoded(text string) {
	const (
		frame = len("=?utf-8?q?") + len("?=")
		// least is what the longest character takes: four bytes.
		least = 4 * 3
	)
	quoted := quotedLength(text) <= base64.StdEncoding.EncodedLen(len(text))
	for text != "" {
		room := foldEncodedAt - (len(f.buf) - f.start) - 1 - frame
		if room < least {
			f.fold()
			room = foldEncodedAt - 1 - frame
		}
		n, used := 0, 0
		for n < len(text) {
			_, size := utf8.DecodeRuneInString(text[n:])
			used = base64.StdEncoding.EncodedLen(n + size)
			if quoted {
				used = quotedLength(text[:n+size])
			}
			if used > room {
				break
			}
			n += size
		}
		f.buf = append(f.buf, " =?utf-8?"...)
		if quoted {
			f.buf = appendQ(append(f.buf, "q?"...), text[:n])
		} else {
			f.buf = base64.StdEncoding.AppendEncode(append(f.buf, "b?"...), []byte(text[:n]))
		}
		f.buf = append(f.buf, "?="...)
		f.fresh = false
		text = text[n:]
	}
}

// isQ reports whether c stands for itself in an encoded word wherever that is (RFC 2047, section 5, rule 3).
func isQ(c byte) bool {
	return isAlphanumeric(c) || c == '!' || c == '*' || c == '+' || c == '-' || c == '/'
}

func quotedLength(s string) int {
	n := len(s)
	for i := range len(s) {
		if !isQ(s[i]) && s[i] != ' ' {
			n += 2
		}
	}
	return n
}

func appendQ(buf []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; {
		case c == ' ':
			buf = append(buf, '_')
		case isQ(c):
			buf = append(buf, c)
		default:
			buf = append(buf, '=', upperHex[c>>4], upperHex[c&15])
		}
	}
	return buf
}

// addresses writes a list of addresses, if there are any.
func (f *fields) addresses(name string, list []mail.Address) {
	if len(list) == 0 {
		return
	}
	f.begin(name)
	for i, a := range list {
		f.phrase(a.Name)
		spec := a.Address
		if a.Name != "" {
			spec = "<" + spec + ">"
		}
		if i < len(list)-1 {
			spec += ","
		}
		f.word(spec)
		f.utf8 = f.utf8 || a.NeedsUTF8()
	}
	f.end()
}

// phrase appends a display name: as it is, as a quoted string, or as encoded words.
func (f *fields) phrase(name string) {
	const longest = 60
	switch {
	case name == "":
	case isPlain(name, longest) && !strings.ContainsFunc(name, isSpecial):
		f.words(name)
	case isPrintable(name) && len(name) <= longest && !strings.Contains(name, "=?"):
		f.word(quote(name))
	default:
		f.encoded(name)
	}
}

// isSpecial reports whether r cannot stand in an atom (RFC 5322, section 3.2.3).
func isSpecial(r rune) bool { return strings.ContainsRune(`()<>[]:;@\,."`, r) }

func isPrintable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// quote gives printable ASCII as a quoted string (RFC 5322, section 3.2.4).
func quote(s string) string {
	if strings.ContainsAny(s, `"\`) {
		s = strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(s)
	}
	return `"` + s + `"`
}

// param appends a parameter to a structured field: as a quoted string, or by RFC 2231 if it has to be. There is no second,
// ASCII form of a file name beside the encoded one: it would be another name.
func (f *fields) param(name, value string) {
	f.buf = append(f.buf, ';')
	if isPrintable(value) && !strings.Contains(value, "=?") {
		f.word(name + "=" + quote(value))
		return
	}
	const charset, room = "utf-8''", foldAt - 2
	if n := percentLength(value); len(name)+len("*=")+len(charset)+n <= room {
		f.word(string(appendPercent([]byte(name+"*="+charset), value)))
		return
	}
	prefix := charset
	for i := 0; value != ""; i++ {
		piece := append([]byte(name), '*')
		piece = strconv.AppendInt(piece, int64(i), 10)
		piece = append(piece, "*="+prefix...)
		n := 0
		for n < len(value) {
			_, size := utf8.DecodeRuneInString(value[n:])
			if len(piece)+percentLength(value[:n+size]) > room {
				break
			}
			n += size
		}
		if i > 0 {
			f.buf = append(f.buf, ';')
		}
		f.word(string(appendPercent(piece, value[:n])))
		value, prefix = value[n:], ""
	}
}

// isAttribute reports whether c stands for itself in an encoded parameter (RFC 2231, section 7).
func isAttribute(c byte) bool {
	return isAlphanumeric(c) || strings.IndexByte("!#$&+-.^_`{|}~", c) >= 0
}

func percentLength(s string) int {
	n := len(s)
	for i := range len(s) {
		if !isAttribute(s[i]) {
			n += 2
		}
	}
	return n
}

func appendPercent(buf []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; isAttribute(c) {
			buf = append(buf, c)
		} else {
			buf = append(buf, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return buf
}
