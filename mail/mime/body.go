package mime

import "strings"

const (
	// maxLine is the longest line of text that goes out as it is, RFC 5322, section 2.1.1, and of quoted-printable,
	// RFC 2045, section 6.7.
	maxLine = 76
	// boundaryPrefix can be in no quoted-printable or base64 text (RFC 2045, section 6.7); isSevenBit sees to the others.
	boundaryPrefix = "=_"
)

// isSevenBit reports whether text can go out as it is: short lines of ASCII that keep their shape on any way.
func isSevenBit(text string) bool {
	for rest := text; rest != ""; {
		line := rest
		if i := strings.IndexByte(rest, '\n'); i >= 0 {
			line, rest = rest[:i], rest[i+1:]
		} else {
			rest = ""
		}
		for line != "" {
			piece, after, _ := strings.Cut(line, "\r") // which ends a line, too
			// Some relays drop white space at the end of a line.
			if len(piece) > maxLine || piece != "" && isBlank(piece[len(piece)-1]) || !visible(piece) {
				return false
			}
			line = after
		}
	}
	return !strings.Contains(text, boundaryPrefix)
}

// visible reports whether s is of printable ASCII and tabs. It looks at eight bytes at once, as every mail goes through it.
func visible(s string) bool {
	const each = 0x0101010101010101
	for len(s) >= 8 {
		v := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 | uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		// A top bit is set of bytes beyond ASCII, below a space, and of DEL.
		if ((v-each*' ')|(v+each))&(each*0x80) != 0 && !visibleSlowly(s[:8]) {
			return false
		}
		s = s[8:]
	}
	return visibleSlowly(s)
}

func visibleSlowly(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c > '~' {
			return false
		}
	}
	return true
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// appendLines appends text with CRLF at the end of each line, the last included, for whatever ended them: LF, CRLF or CR.
func appendLines(buf []byte, text string) []byte {
	for text != "" {
		var line string
		line, text = cutLine(text)
		buf = append(append(buf, line...), "\r\n"...)
	}
	return buf
}

// cutLine cuts text after its first line, and gives it without its end.
func cutLine(text string) (line, rest string) {
	i := strings.IndexAny(text, "\r\n")
	switch {
	case i < 0:
		return text, ""
	case strings.HasPrefix(text[i:], "\r\n"):
		return text[:i], text[i+2:]
	}
	return text[:i], text[i+1:]
}

const upperHex = "0123456789ABCDEF"

// appendQuoted appends text as quoted-printable (RFC 2045, section 6.7), with the line ends of appendLines.
func appendQuoted(buf []byte, text string) []byte {
	for text != "" {
		var line string
		line, text = cutLine(text)
		column := 0
		for i := range len(line) {
			c := line[i]
			literal := c >= ' ' && c <= '~' && c != '=' || c == '\t'
			if i == len(line)-1 && isBlank(c) {
				literal = false
			}
			width := 1
			if !literal {
				width = 3
			}
			// The last column belongs to the soft line break.
			if column+width > maxLine-1 {
				buf = append(buf, "=\r\n"...)
				column = 0
			}
			column += width
			if literal {
				buf = append(buf, c)
			} else {
				buf = append(buf, '=', upperHex[c>>4], upperHex[c&15])
			}
		}
		buf = append(buf, "\r\n"...)
	}
	return buf
}
