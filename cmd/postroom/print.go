package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/postroom/postroom/mail"
)

// facts writes lines of a name and a value, the values below each other.
type facts struct{ *tabwriter.Writer }

func newFacts(w io.Writer) facts { return facts{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)} }

// line writes one fact; what has no value is left out.
func (f facts) line(name, value string) {
	if value != "" {
		fmt.Fprintf(f, "%s\t%s\n", name, plain(value))
	}
}

func full(a mail.Address) string {
	if a.Name == "" {
		return a.Address
	}
	return a.Name + " <" + a.Address + ">"
}

// instantText writes a time for people: theirs, to the second; "" for none.
func instantText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05 -07:00")
}

// aroundText writes a time that was estimated; "" for none.
func aroundText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return "around " + instantText(t)
}

// table writes rows below their header.
func table(w io.Writer, header []string, rows ...[]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, plain(cell))
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// printJSON writes v on one line, without the escapes that only web pages need.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// plain takes from text what could command a terminal: mail servers choose their own words.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}
