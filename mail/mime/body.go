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
	column := 0
	for i := range len(text) {
		switch c := text[i]; {
		case c == '\n' || c == '\r':
			// Some relays drop white space at the end of a line.
			if column > 0 && isBlank(text[i-1]) {
				return false
			}
			column = 0
			continue
		case c < ' ' && c != '\t', c > '~':
			return false
		}
		if column++; column > maxLine {
			return false
		}
	}
	return (column == 0 || !isBlank(text[len(text)-1])) && !strings.Contains(text, boundaryPrefix)
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
