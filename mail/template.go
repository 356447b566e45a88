package mail

import (
	"errors"
	htmltemplate "html/template"
	"io"
	"slices"
	"strconv"
	"strings"
	texttemplate "text/template"
	"text/template/parse"
)

// A template of a producer may name variables, compare them and choose. It may not loop, call methods, define templates or
// make longer values out of values, so that its run time and its output are bounded by its own length and that of the
// variables.

const (
	// maxActions bounds how deep the parser can recurse, and with it the stack.
	maxActions = 1000
	// maxGrowth is how much longer than its template a filled text can be, in bytes.
	maxGrowth = 1 << 20
)

// builtins are the functions that a template may call: none of them gives more than it gets.
var builtins = map[string]bool{
	"and": true, "or": true, "not": true, "len": true,
	"eq": true, "ne": true, "lt": true, "le": true, "gt": true, "ge": true,
}

// noFunction says that a template calls what is none of builtins.
const noFunction = "calls a function that there is not: there are and, or, not, len, eq, ne, lt, le, gt and ge, and a variable has a dot in front, such as {{.name}}"

// template is one of subject, text and html, parsed. It is safe for concurrent use.
type template struct {
	source string
	// run is nil if there is nothing to fill.
	run interface {
		Execute(io.Writer, any) error
	}
	// variables are the names that the template uses, each once.
	variables []string
}

// newText parses a template for plain text. The string says what is wrong with it.
func newText(source string) (*template, string) {
	t := &template{source: source}
	if !strings.Contains(source, "{{") {
		return t, ""
	}
	if reason := tooComplex(source); reason != "" {
		return nil, reason
	}
	parsed, err := texttemplate.New("").Option("missingkey=error").Parse(source)
	if err != nil {
		return nil, notTemplate(err)
	}
	var w walker
	w.tree(parsed.Tree, len(parsed.Templates()))
	t.run, t.variables = parsed, w.variables
	return t, w.reason
}

// newHTML parses a template for HTML, in which values are escaped for the place where they stand.
func newHTML(source string) (*template, string) {
	t := &template{source: source}
	if !strings.Contains(source, "{{") {
		return t, ""
	}
	if reason := tooComplex(source); reason != "" {
		return nil, reason
	}
	kept, comments, reason := keepConditionals(source)
	if reason != "" {
		return nil, reason
	}
	conditional := func(i int) htmltemplate.HTML { return comments[i] }
	parsed, err := htmltemplate.New("").Option("missingkey=error").
		Funcs(htmltemplate.FuncMap{conditionalFunc: conditional}).Parse(kept)
	if err != nil {
		return nil, notTemplate(err)
	}
	w := walker{conditionals: true}
	w.tree(parsed.Tree, len(parsed.Templates()))
	if w.reason != "" {
		return nil, w.reason
	}
	// Escaping happens at the first execution, and whatever it finds is not about variables.
	var unsafe *htmltemplate.Error
	if err := parsed.Execute(io.Discard, map[string]any{}); errors.As(err, &unsafe) {
		return nil, "has an action where a value cannot be escaped safely" + atLine(unsafe.Line)
	}
	t.run, t.variables = parsed, w.variables
	return t, ""
}

func tooComplex(source string) string {
	if strings.Count(source, "{{") > maxActions {
		return "has more than " + strconv.Itoa(maxActions) + " actions: make the text before you hand it in"
	}
	return ""
}

// templateFaults are what people get wrong, by how the parser's words begin. What is in none of them is told by its line alone.
var templateFaults = []struct{ words, reason string }{
	{"unclosed action", "has a {{ that is not closed: write }} behind it"},
	{"function ", noFunction},
	{"unexpected EOF", "has an if or with that is not closed: write {{end}} where it ends"},
	{"unexpected {{end}}", "has an {{end}} that closes nothing: remove it, or write {{if}} or {{with}} before it"},
	{"unexpected {{else}}", "has an {{else}} that is in no if or with: remove it, or write {{if}} or {{with}} before it"},
	{"expected end", "has two {{else}} in one if or with: remove one"},
	{"missing value", "has a {{ }} that lacks a value: name a variable, such as {{.name}} or {{if .name}}"},
	{"bad character", "has a character that can't stand in {{ }}: a name has letters, digits and _ only, and }} closes it"},
	{"unrecognized character", "has a character that can't stand in {{ }}: a name has letters, digits and _ only, and }} closes it"},
	{"unterminated", "has a quotation mark in {{ }} that is not closed"},
	{"unclosed left paren", "has a parenthesis in {{ }} that is not closed"},
	{"unexpected right paren", "has a closing parenthesis in {{ }} without one that opens"},
	{"unclosed comment", "has a comment that is not closed: write */}} behind it"},
	{"undefined variable", "names a variable by $ that it does not define: write {{.name}}"},
}

// notTemplate says why a template cannot be parsed, and in which line. The parser's own words would quote it.
func notTemplate(err error) string {
	// "template: name:line: words"
	parts := strings.SplitN(err.Error(), ":", 4)
	line := 0
	if len(parts) == 4 {
		line, _ = strconv.Atoi(parts[2])
	}
	words := strings.TrimSpace(parts[len(parts)-1])
	for _, f := range templateFaults {
		if strings.HasPrefix(words, f.words) {
			return f.reason + atLine(line)
		}
	}
	return "is not a template: see to what stands in {{ }}" + atLine(line)
}

func atLine(line int) string {
	if line <= 0 {
		return ""
	}
	return ", line " + strconv.Itoa(line)
}

// fill gives the template, which has something to fill, with the variables. The error's text may quote them. buf is space
// to work in; what has become of it is returned.
func (t *template) fill(variables map[string]any, buf []byte) (string, []byte, error) {
	w := bounded{buf: buf[:0], most: len(t.source) + maxGrowth}
	err := t.run.Execute(&w, variables)
	return string(w.buf), w.buf, err
}

// unsafeValue is what html/template writes instead of a value that would be dangerous in its place.
const unsafeValue = "ZgotmplZ"

var (
	errTooLong = errors.New("mail: the filled template is too long")
)

// bounded is a writer that refuses to hold more than most bytes.
type bounded struct {
	buf  []byte
	most int
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > b.most-len(b.buf) {
		return 0, errTooLong
	}
	b.buf = append(b.buf, p...)
	return len(p), nil
}

// walker checks the parse tree of a template against what is allowed.
type walker struct {
	// conditionals allows the calls that keepConditionals made.
	conditionals bool
	// scalar is set where the dot is a variable's value and no longer all of them.
	scalar    bool
	variables []string
	reason    string
}

func (w *walker) refuse(reason string) {
	if w.reason == "" {
		w.reason = reason
	}
}

func (w *walker) tree(t *parse.Tree, templates int) {
	if templates > 1 {
		w.refuse("defines templates: only variables, if and with are allowed")
	}
	// A source of comments and space alone has no tree.
	if t != nil {
		w.list(t.Root)
	}
}

func (w *walker) list(l *parse.ListNode) {
	if l == nil {
		return
	}
	for _, n := range l.Nodes {
		switch n := n.(type) {
		case *parse.TextNode:
		case *parse.ActionNode:
			w.pipe(n.Pipe)
		case *parse.IfNode:
			w.pipe(n.Pipe)
			w.list(n.List)
			w.list(n.ElseList)
		case *parse.WithNode:
			w.pipe(n.Pipe)
			outer := w.scalar
			w.scalar = true
			w.list(n.List)
			w.scalar = outer
			w.list(n.ElseList)
		default:
			w.refuse("has an action that is not allowed: only variables, if and with are")
		}
	}
}

func (w *walker) pipe(p *parse.PipeNode) {
	for _, c := range p.Cmds {
		for _, arg := range c.Args {
			w.argument(arg)
		}
	}
}

func (w *walker) argument(n parse.Node) {
	switch n := n.(type) {
	case *parse.PipeNode:
		w.pipe(n)
	case *parse.BoolNode, *parse.NumberNode, *parse.StringNode:
	case *parse.DotNode:
		if !w.scalar {
			w.refuse("uses all variables at once: name one, such as {{.name}}")
		}
	case *parse.FieldNode:
		if w.scalar {
			w.refuse("names a variable inside with: write {{$.name}} there")
		}
		w.variable(n.Ident)
	case *parse.VariableNode:
		switch {
		case n.Ident[0] == "$":
			w.variable(n.Ident[1:])
		case len(n.Ident) > 1:
			w.refuse(fieldOfScalar)
		}
	case *parse.IdentifierNode:
		if !builtins[n.Ident] && !(w.conditionals && n.Ident == conditionalFunc) {
			w.refuse(noFunction)
		}
	default:
		w.refuse("has an expression that is not allowed")
	}
}

const fieldOfScalar = "asks for a field of a variable: variables are strings, numbers and booleans"

// variable notes a use of a variable. A path of any other length than one is none, or would reach for methods.
func (w *walker) variable(path []string) {
	if len(path) != 1 {
		w.refuse(fieldOfScalar)
		return
	}
	if !slices.Contains(w.variables, path[0]) {
		w.variables = append(w.variables, path[0])
	}
}

// conditionalFunc gives a conditional comment back to the text it was taken from.
const conditionalFunc = "postroom_conditional"

// keepConditionals takes conditional comments (<!--[if mso]> ... <![endif]-->) out of html: html/template drops comments,
// and Outlook lays out by these.
func keepConditionals(html string) (string, []htmltemplate.HTML, string) {
	if strings.Contains(html, conditionalFunc) {
		return "", nil, "calls a function that is not allowed"
	}
	var (
		out      strings.Builder
		comments []htmltemplate.HTML
	)
	for {
		start := strings.Index(html, "<!--")
		if start < 0 {
			break
		}
		end := strings.Index(html[start+len("<!--"):], "-->")
		if end < 0 {
			break
		}
		end += start + len("<!--") + len("-->")
		comment := html[start:end]
		if !strings.HasPrefix(comment, "<!--[if") && !strings.HasPrefix(comment, "<!--<![endif]") {
			out.WriteString(html[:end])
			html = html[end:]
			continue
		}
		if strings.Contains(comment, "{{") {
			return "", nil, "has an action in a conditional comment, where values cannot be escaped"
		}
		if len(comments) == maxActions {
			return "", nil, "has more than " + strconv.Itoa(maxActions) + " conditional comments"
		}
		out.WriteString(html[:start])
		out.WriteString("{{" + conditionalFunc + " " + strconv.Itoa(len(comments)) + "}}")
		comments = append(comments, htmltemplate.HTML(comment))
		html = html[end:]
	}
	out.WriteString(html)
	return out.String(), comments, ""
}
