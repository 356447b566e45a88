package config

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/postroom/postroom/provider"
)

// decoder writes YAML into values and goes on after a fault. (A yaml.Decoder stops at the first, reads 30 as a duration of
// 30 ns, and rewrites a password that looks like a number.)
type decoder struct {
	// source names what is read; lines says that the lines of its faults mean something.
	source string
	lines  bool
	faults []Fault
	// where remembers who set a path, for the faults that show later.
	where map[string]string
}

// document reads a whole YAML text into v.
func (d *decoder) document(path string, text []byte, v reflect.Value) {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		d.syntax(path, err)
		return
	}
	for i, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if i > 0 {
			d.fault(path, doc.Body, "a second document", "it would be ignored", "keep everything in one document: delete the line ---")
			return
		}
		d.value(path, doc.Body, v)
	}
}

func (d *decoder) syntax(path string, err error) {
	f := Fault{Path: path, Where: d.source, Problem: "not YAML", Danger: "nothing of it can be read",
		Remedy: "correct the syntax; check indentation, quotes and tabs"}
	if syntax, ok := errors.AsType[*yaml.SyntaxError](err); ok {
		// The message alone: the error's own text quotes the lines around, with the secrets in them.
		f.Problem += ": " + syntax.Message
		if d.lines && syntax.Token != nil {
			f.Where = fmt.Sprintf("%s:%d", d.source, syntax.Token.Position.Line)
		}
	}
	d.faults = append(d.faults, f)
}

// value decodes node into v. Null leaves v as it is: it is a key whose value was commented out.
func (d *decoder) value(path string, node ast.Node, v reflect.Value) {
	if node.Type() == ast.NullType {
		return
	}
	v = made(v)
	d.where[path] = d.at(node)
	if section := sectionType(v.Type()); section != nil {
		d.section(path, node, v)
		return
	}
	if v.Kind() == reflect.Slice {
		d.list(path, node, v)
		return
	}
	if v.Kind() == reflect.Map {
		d.mapping(path, node, v)
		return
	}
	text, ok := scalar(node)
	if !ok {
		d.fault(path, node, "want "+wanted(v.Type()), dangerUnread, "write one plain value, without a list, a map, an anchor or a tag")
		return
	}
	if problem := setText(v, text); problem != "" {
		d.fault(path, node, problem, dangerUnread, remedyValue)
	}
}

func (d *decoder) section(path string, node ast.Node, v reflect.Value) {
	mapping, ok := node.(*ast.MappingNode)
	if !ok {
		d.fault(path, node, "want a section with keys of its own", dangerUnread, "put its keys below it, indented")
		return
	}
	known := fields(v.Type())
	names := make([]string, len(known))
	for i, f := range known {
		names[i] = f.name
	}
	for _, entry := range mapping.Values {
		name := keyName(entry.Key)
		i := slices.Index(names, name)
		if i < 0 {
			d.unknownKey(path, name, entry.Key, names)
			continue
		}
		d.value(join(path, name), entry.Value, v.FieldByIndex(known[i].index))
	}
}

func (d *decoder) unknownKey(path, name string, node ast.Node, names []string) {
	remedy := "delete it; here belong: " + strings.Join(names, ", ")
	if near := nearest(name, names); near != "" {
		remedy = "write " + join(path, near)
	}
	d.fault(join(path, name), node, "no such key", dangerIgnored, remedy)
}

func (d *decoder) list(path string, node ast.Node, v reflect.Value) {
	sequence, ok := node.(*ast.SequenceNode)
	if !ok {
		d.fault(path, node, "want a list", dangerUnread, "write [a, b], or each entry on a line of its own after a dash")
		return
	}
	list := reflect.MakeSlice(v.Type(), 0, 0)
	for _, entry := range sequence.Values {
		element := reflect.New(v.Type().Elem()).Elem()
		d.value(fmt.Sprintf("%s[%d]", path, list.Len()), entry, element)
		list = reflect.Append(list, element)
	}
	v.Set(list)
}

// mapping reads names that are the operator's own, each with a plain value.
func (d *decoder) mapping(path string, node ast.Node, v reflect.Value) {
	mapping, ok := node.(*ast.MappingNode)
	if !ok {
		d.fault(path, node, "want names with values", dangerUnread, "write {name: value}, or each name on a line of its own, indented")
		return
	}
	all := reflect.MakeMap(v.Type())
	for _, entry := range mapping.Values {
		name, element := keyName(entry.Key), reflect.New(v.Type().Elem()).Elem()
		d.value(join(path, name), entry.Value, element)
		all.SetMapIndex(reflect.ValueOf(name), element)
	}
	v.Set(all)
}

func (d *decoder) fault(path string, node ast.Node, problem, danger, remedy string) {
	d.faults = append(d.faults, Fault{path, d.at(node), problem, danger, remedy})
}

func (d *decoder) at(node ast.Node) string {
	if token := node.GetToken(); d.lines && token != nil {
		return fmt.Sprintf("%s:%d", d.source, token.Position.Line)
	}
	return d.source
}

const (
	dangerUnread  = "it can't be read, and the default is not what was asked for"
	dangerIgnored = "what was meant by it would not be in force"
	remedyValue   = "correct the value"
)

// keyName gives a mapping's key as it is written.
func keyName(key ast.MapKeyNode) string {
	if text, ok := scalar(key); ok {
		return text
	}
	return key.GetToken().Value
}

// scalar gives the text of a plain or quoted value, as it stands in the file: 0123 stays 0123.
func scalar(node ast.Node) (string, bool) {
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

// setText reads text into a value, or says what is wrong with it. The environment and the file share it.
func setText(v reflect.Value, text string) (problem string) {
	v = made(v)
	bad := "want " + wanted(v.Type()) // and not what it is: somebody can have put a secret there
	switch {
	case v.Type() == durationType:
		d, err := time.ParseDuration(text)
		if err != nil {
			return bad
		}
		v.SetInt(int64(d))
	case v.Kind() == reflect.String:
		v.SetString(text)
	case v.CanInt():
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			return bad
		}
		v.SetInt(n)
	case v.Kind() == reflect.Float64:
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
			return bad
		}
		v.SetFloat(n)
	case v.Kind() == reflect.Bool:
		switch text {
		case "true", "false":
			v.SetBool(text == "true")
		default:
			return bad
		}
	default:
		panic("config: no way to read a " + v.Type().String())
	}
	return ""
}

// wanted names a type as an operator would.
func wanted(t reflect.Type) string {
	switch {
	case t == durationType:
		return `a duration such as 30s, 15m or 1h30m`
	case t == reflect.TypeFor[provider.Secret](), t.Kind() == reflect.String:
		return "a text"
	case t.Kind() == reflect.Float64:
		return "a number"
	case t.Kind() == reflect.Bool:
		return "true or false"
	}
	return "a whole number"
}
