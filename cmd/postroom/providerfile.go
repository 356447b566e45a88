package main

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// settingsReader reads the provider's settings from YAML, of which JSON is a part, and goes on after a fault. What they mean is for
// the server to judge. No fault quotes a value: it could be a secret.
type settingsReader struct {
	faults []admin.Fault
}

// readSettings gives the settings that text holds, or every fault of its form. Source names it.
func readSettings(source string, text []byte) (*provider.Settings, error) {
	file, err := parser.ParseBytes(bytes.TrimPrefix(text, []byte("\ufeff")), 0) // editors on Windows put it there
	if err != nil {
		return nil, notYAML(source, err)
	}
	r, s := &settingsReader{}, &provider.Settings{}
	found := false
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil:
		case found:
			r.fault(doc.Body, "", "begins a second document: keep everything in one, and delete the line ---")
		default:
			found = true
			r.value("", doc.Body, reflect.ValueOf(s).Elem())
		}
	}
	switch {
	case !found:
		return nil, fail(exitFault, "%s has no settings: write them as below provider: in postroom.yaml", source)
	case len(r.faults) > 0:
		return nil, &admin.Problem{Title: source + " can't be used", Errors: r.faults}
	}
	return s, nil
}

// notYAML tells a fault of syntax by its message alone: the error's own text quotes the lines around it, with the secrets in them.
func notYAML(source string, err error) error {
	syntax, ok := errors.AsType[*yaml.SyntaxError](err)
	if !ok || syntax.Token == nil {
		return fail(exitFault, "%s is neither YAML nor JSON", source)
	}
	return fail(exitFault, "%s is neither YAML nor JSON: line %d: %s", source, syntax.Token.Position.Line, syntax.Message)
}

// value decodes a node into v. Null leaves v as it is: it is a key whose value was commented out.
func (r *settingsReader) value(key string, node ast.Node, v reflect.Value) {
	if node.Type() == ast.NullType {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		r.section(key, node, v)
	case reflect.Slice:
		r.list(key, node, v)
	default:
		text, ok := scalarText(node)
		if !ok {
			r.fault(node, key, "is not one plain value")
			return
		}
		if reason := setText(v, text); reason != "" {
			r.fault(node, key, reason)
		}
	}
}

func (r *settingsReader) section(key string, node ast.Node, v reflect.Value) {
	mapping, ok := node.(*ast.MappingNode)
	if !ok {
		r.fault(node, key, "has no keys of its own: write them below it")
		return
	}
	for _, entry := range mapping.Values {
		name, _ := scalarText(entry.Key)
		below := strings.TrimPrefix(key+"."+name, ".")
		field, ok := fieldNamed(v, name)
		switch {
		case ok:
			r.value(below, entry.Value, field)
		case below == "provider":
			r.fault(entry.Key, below, "is no key: leave it out, and write what stands below it alone")
		default:
			r.fault(entry.Key, below, "is no key: here belong "+strings.Join(fieldNames(v), ", "))
		}
	}
}

// list decodes a list of plain values, which is all that settings have.
func (r *settingsReader) list(key string, node ast.Node, v reflect.Value) {
	sequence, ok := node.(*ast.SequenceNode)
	if !ok {
		r.fault(node, key, "is not a list")
		return
	}
	list := reflect.MakeSlice(v.Type(), len(sequence.Values), len(sequence.Values))
	for i, entry := range sequence.Values {
		r.value(fmt.Sprintf("%s[%d]", key, i), entry, list.Index(i))
	}
	v.Set(list)
}

func (r *settingsReader) fault(node ast.Node, key, reason string) {
	location := key
	if token := node.GetToken(); token != nil {
		line := "line " + strconv.Itoa(token.Position.Line)
		if key != "" {
			line = " (" + line + ")"
		}
		location += line
	}
	r.faults = append(r.faults, admin.Fault{Location: location, Reason: reason})
}

// scalarText gives a plain or quoted value as it stands in the file: a password 0123 stays 0123, which package yaml would read as a
// number.
func scalarText(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// setText reads one value of the settings from text, a file's or a flag's, or says what is wrong with it.
func setText(v reflect.Value, text string) (reason string) {
	switch {
	case v.Type() == reflect.TypeFor[mail.Address]():
		a, err := mail.ParseAddress(text)
		if err != nil {
			return `is not an address such as reports@example.com or "Reports <reports@example.com>"`
		}
		v.Set(reflect.ValueOf(a))
	case v.Kind() == reflect.String:
		v.SetString(text)
	case v.CanInt():
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			return "is not a whole number"
		}
		v.SetInt(n)
	case v.Kind() == reflect.Bool:
		if text != "true" && text != "false" {
			return "is neither true nor false"
		}
		v.SetBool(text == "true")
	default:
		panic("no way to read a " + v.Type().String())
	}
	return ""
}

// fieldName gives the key of a field, in files as in the API.
func fieldName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

func fieldNames(v reflect.Value) []string {
	var names []string
	for f := range v.Fields() {
		names = append(names, fieldName(f))
	}
	return names
}

func fieldNamed(v reflect.Value, name string) (reflect.Value, bool) {
	for f, value := range v.Fields() {
		if name != "" && fieldName(f) == name {
			return value, true
		}
	}
	return reflect.Value{}, false
}

// fieldAt gives the field that a JSON pointer leads to, which has to be there.
func fieldAt(s *provider.Settings, pointer string) reflect.Value {
	v := reflect.ValueOf(s).Elem()
	for name := range strings.SplitSeq(pointer[1:], "/") {
		v, _ = fieldNamed(v, name)
	}
	return v
}
