package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/queue"
)

// advisable reports whether there is something that Postroom or people can still do about a message.
func advisable(s queue.State) bool {
	return s == queue.Queued || s == queue.Sending || s == queue.Failed
}

// writeAdvice says what an outcome means, unless one before it in the same attempt has said so.
func writeAdvice(b *strings.Builder, before []admin.Outcome, a *admin.Advice, width int) {
	if a == nil {
		return
	}
	if slices.ContainsFunc(before, func(o admin.Outcome) bool { return o.Advice != nil && *o.Advice == *a }) {
		b.WriteString("    the same as above\n")
		return
	}
	if a.Field != "" {
		fmt.Fprintf(b, "    %-10s%s\n", "field", plain(settingName(a.Field)))
	}
	for _, part := range []struct{ name, text string }{{"happened", a.Happened}, {"Postroom", a.Postroom}, {"you", a.Remedy}} {
		indent := fmt.Sprintf("    %-10s", part.name)
		for _, line := range wrapped(plain(part.text), width-len(indent)) {
			b.WriteString(indent + line + "\n")
			indent = strings.Repeat(" ", len(indent))
		}
	}
}

// writeRefusal says which refusal led to a hold, and what it means.
func writeRefusal(w io.Writer, hold *admin.Silence) error {
	if hold == nil || hold.Last == nil || hold.Last.Advice == nil {
		return nil
	}
	var b strings.Builder
	b.WriteString("\nThe refusal that led to the hold (" + plain(outcomeReply(*hold.Last)) + "):\n")
	writeAdvice(&b, nil, hold.Last.Advice, textWidth(w))
	_, err := io.WriteString(w, b.String())
	return err
}

// textWidth is how wide text for people is to be: easy to read, and no wider than a terminal.
func textWidth(w io.Writer) int {
	const most, least = 100, 60
	if width := widthOf(w); width > 0 {
		return max(least, min(width, most))
	}
	return most
}

// wrapped breaks text into lines of at most width characters. A word that is longer, or a command between backticks, keeps a
// line of its own rather than being broken.
func wrapped(text string, width int) []string {
	var lines []string
	length := 0
	for _, word := range unbroken(text) {
		n := utf8.RuneCountInString(word)
		if len(lines) == 0 || length+1+n > width {
			lines, length = append(lines, word), n
			continue
		}
		lines[len(lines)-1] += " " + word
		length += 1 + n
	}
	return lines
}

// unbroken gives the words of text, each command between backticks as one.
func unbroken(text string) []string {
	var words []string
	open := false
	for _, word := range strings.Fields(text) {
		if open {
			words[len(words)-1] += " " + word
		} else {
			words = append(words, word)
		}
		if strings.Count(word, "`")%2 == 1 {
			open = !open
		}
	}
	return words
}
