package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/term"
)

// progress draws a bar on a terminal, and nothing elsewhere.
type progress struct {
	w     io.Writer // nil: not a terminal
	width int
	total int
	what  string
	drawn bool
}

// newProgress draws on w if that is a terminal.
func newProgress(w io.Writer, total int, what string) *progress {
	p := &progress{total: total, what: what}
	if f, ok := w.(*os.File); ok && isTerminal(f) {
		p.w, p.width = w, 80
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			p.width = width
		}
	}
	return p
}

// isTerminal reports whether somebody can watch f.
func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// show draws the bar for done of the total.
func (p *progress) show(done int) {
	if p.w == nil {
		return
	}
	p.drawn = true
	fmt.Fprint(p.w, "\r"+bar(done, p.total, p.width-1, p.what))
}

// clear takes the bar away, so that a line of words can stand in its place.
func (p *progress) clear() {
	if p.w == nil || !p.drawn {
		return
	}
	p.drawn = false
	fmt.Fprint(p.w, "\r"+strings.Repeat(" ", max(p.width-1, 0))+"\r")
}

// bar gives a line of exactly width characters, or just the words if there is no room for more.
func bar(done, total, width int, what string) string {
	words := fmt.Sprintf(" %s of %s %s", thousands(done), thousands(total), what)
	room := width - len(words) - 2
	if room < 5 || total <= 0 {
		return clip(words, width)
	}
	full := min(max(done, 0), total) * room / total
	return "[" + strings.Repeat("=", full) + strings.Repeat(" ", room-full) + "]" + words
}

func clip(s string, n int) string { return s[:min(len(s), max(n, 0))] }

// thousands writes 12345 as 12,345.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
