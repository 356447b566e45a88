package mail

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Content is what the messages of a batch share, or all of a single message, ready to be filled. It is safe for concurrent
// use, and what it was made from must not change any more.
type Content struct {
	message             Message
	subject, text, html *template
	files               []*File
	// buffers holds *[]byte for filling in.
	buffers sync.Pool
}

// NewContent prepares m, which has passed Validate. Only with templated set can "{{" mean anything in its subject, text and
// html: a single message is sent as it is. The error is an *Invalid: a template that cannot be used.
func NewContent(m *Message, templated bool) (*Content, error) {
	var p problems
	c := &Content{message: *m}
	c.buffers.New = func() any { return new([]byte) }
	part := func(field, source string, parse func(string) (*template, string)) *template {
		if !templated {
			return &template{source: source}
		}
		t, reason := parse(source)
		p.add(field, reason)
		return t
	}
	c.subject = part("/subject", m.Subject, newText)
	c.text = part("/text", m.Text, newText)
	c.html = part("/html", m.HTML, newHTML)
	if err := p.err(); err != nil {
		return nil, err
	}
	for _, a := range m.Attachments {
		// What stands behind a ref is put in by whoever has it.
		c.files = append(c.files, &File{Name: a.Name, ContentType: a.ContentType, ContentID: a.ContentID, Bytes: a.Content})
	}
	return c, nil
}

// Variables gives the names that the templates use, each once.
func (c *Content) Variables() []string {
	var names []string
	for _, t := range []*template{c.subject, c.text, c.html} {
		for _, name := range t.variables {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// Fill gives the message with this id for r, who has passed Validate; a single message is filled for all of its To, without
// variables. Files, headers and lists of addresses are shared with
// every other message of c. An address that is in r.To is left out of Cc and Bcc.
//
// The error is an *Invalid with the fields of the message and of the recipient that do not fit each other.
func (c *Content) Fill(id string, accepted time.Time, r Recipient) (*Outgoing, error) {
	var p problems
	subject, text, html := c.fill(&p, r.Variables)
	if err := p.err(); err != nil {
		return nil, err
	}
	m := &c.message
	unsubscribe := r.ListUnsubscribe
	if unsubscribe == "" {
		unsubscribe = m.ListUnsubscribe
	}
	return &Outgoing{
		ID:              id,
		Kind:            m.Kind,
		From:            m.From,
		To:              r.To,
		Cc:              without(m.Cc, r.To),
		Bcc:             without(m.Bcc, r.To),
		ReplyTo:         m.ReplyTo,
		Subject:         subject,
		Text:            text,
		HTML:            html,
		Files:           c.files,
		Headers:         m.Headers,
		ListUnsubscribe: unsubscribe,
		Date:            accepted,
	}, nil
}

// without gives list without what is in to. It copies only if it has to.
func without(list, to []Address) []Address {
	in := func(a Address) bool {
		return slices.ContainsFunc(to, func(t Address) bool { return t.Address == a.Address })
	}
	if !slices.ContainsFunc(list, in) {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), in)
}

// fill gives subject, text and html with variables, and notes in p, which stands at the recipient, what does not work out.
func (c *Content) fill(p *problems, variables map[string]any) (subject, text, html string) {
	buf := c.buffers.Get().(*[]byte)
	defer c.buffers.Put(buf)
	values := asWritten(variables)
	one := func(field string, t *template, fault func(string) string) (filled string) {
		if t.run == nil {
			return t.source
		}
		var err error
		filled, *buf, err = t.fill(values, *buf)
		switch {
		case err == nil:
			// A constant in the template can be anything, and a subject has no room for what is fine in a text.
			if reason := fault(filled); reason != "" {
				p.add("/variables", "makes a "+field+" that "+reason)
			}
		case errors.Is(err, errTooLong):
			p.add("/variables", "makes a "+field+" that is too long")
		default:
			missing(p, field, t, values)
		}
		return filled
	}
	subject = one("subject", c.subject, func(s string) string { return lineFault(s, maxSubject) })
	text = one("text", c.text, bodyFault)
	html = one("html", c.html, bodyFault)
	if c.html.run != nil && strings.Contains(html, unsafeValue) && !strings.Contains(c.html.source, unsafeValue) {
		p.add("/variables", "has a value that is unsafe in its place in html, such as a link that is not http, https or mailto")
	}
	return subject, text, html
}

// missing explains why a template could not be filled.
func missing(p *problems, field string, t *template, variables map[string]any) {
	found := false
	for _, name := range t.variables {
		if _, ok := variables[name]; !ok {
			found = true
			p.add(entry("/variables", name), "is missing: "+field+" uses it")
		}
	}
	if !found {
		p.add("/variables", "has a value that "+field+" compares with one of another kind")
	}
}

// asWritten gives numbers the form in which people write them: templates would print a million as 1e+06. Whole numbers
// become int64, so that a template can compare them; others become text. It copies only if it has to.
func asWritten(variables map[string]any) map[string]any {
	plain := true
	for _, v := range variables {
		switch v.(type) {
		case string, bool, int, int64:
		default:
			plain = false
		}
	}
	if plain {
		return variables
	}
	out := make(map[string]any, len(variables))
	for name, v := range variables {
		switch n := v.(type) {
		case json.Number:
			v = wholeOrText(string(n))
		case float64:
			v = wholeOrText(strconv.FormatFloat(n, 'f', -1, 64))
		}
		out[name] = v
	}
	return out
}

func wholeOrText(number string) any {
	if n, err := strconv.ParseInt(number, 10, 64); err == nil && strconv.FormatInt(n, 10) == number {
		return n
	}
	return number
}

const (
	maxVariables = 100
	// maxVariable is the longest value, in bytes.
	maxVariable = 64 << 10
)

// variableFault says why v cannot be the value of a variable.
func variableFault(v any) string {
	const maxNumber = 100
	switch v := v.(type) {
	case bool, int, int64:
		return ""
	case string:
		if len(v) > maxVariable {
			return "is longer than " + strconv.Itoa(maxVariable) + " bytes"
		}
		return bodyFault(v)
	case float64:
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			return ""
		}
	case json.Number:
		if len(v) > maxNumber {
			return "is a number of more than " + strconv.Itoa(maxNumber) + " characters: give it as a string"
		}
		if _, err := v.Float64(); err == nil || errors.Is(err, strconv.ErrRange) {
			return ""
		}
	}
	return "is not a string, a number or a boolean"
}

// isVariable reports whether a template can name s.
func isVariable(s string) bool {
	return s != "" && len(s) <= maxWord && utf8.ValidString(s)
}
