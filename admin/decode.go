package admin

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/postroom/postroom/mail"
)

const (
	// mostValues bounds the memory that a body can take when it is decoded: an empty object is two bytes on the wire, and
	// many more in here. It is 40 values for each recipient of the largest batch.
	mostValues = 4_000_000
	// mostFaults bounds the answer to a body in which everything is wrong.
	mostFaults = 100
)

// decode reads a body into v, a pointer to a struct. It is stricter than encoding/json: names count in their case and once,
// unknown ones are refused, and text that is not UTF-8 is not patched up. Every fault of shape is found at once. A field
// that is null is as good as absent. More than most values are refused.
func decode(body []byte, v any, most int) error {
	if !json.Valid(body) {
		return malformed(body)
	}
	if !utf8.Valid(body) {
		return malformedJSON.problem("It has bytes that are not UTF-8: write it in UTF-8 (RFC 8259, section 8.1).")
	}
	d := decoder{json: body, most: most, names: make(map[reflect.Type][]string)}
	d.value(reflect.ValueOf(v).Elem())
	if d.values > most {
		return bodyTooLarge.problem(fmt.Sprintf("It has more than %d values: split it.", most))
	}
	if d.found == 0 {
		return nil
	}
	p := invalidRequest.problem("Correct what errors names, and compare with /openapi.json.")
	if d.found > len(d.faults) {
		p.Detail += fmt.Sprintf(" There are %d more.", d.found-len(d.faults))
	}
	p.Errors, p.doubtful = d.faults, d.doubtful
	return p
}

// beside adds to what decode found wrong with the form of mail what validation finds wrong with the rest of it, so that all is
// told at once.
func beside(err error, validate func() []mail.Problem) error {
	var p *Problem
	if !errors.As(err, &p) || p.Type != invalidRequest.uri() || len(p.Errors) == mostFaults {
		return err
	}
	more := 0
	for _, one := range validate() {
		switch {
		case slices.ContainsFunc(p.doubtful, func(at string) bool { return follows(one.Field, at) }):
		case len(p.Errors) == mostFaults:
			more++
		default:
			p.Errors = append(p.Errors, Fault{Location: one.Field, Reason: one.Reason})
		}
	}
	if more > 0 {
		p.Detail += fmt.Sprintf(" There are %d more.", more)
	}
	return p
}

// follows reports whether a fault of a field may be there only because what stands at another place could not be read. That there
// is no text is one of html, too.
func follows(field, at string) bool {
	message, html := strings.CutSuffix(at, "/html")
	return field == at || strings.HasPrefix(field, at+"/") || html && field == message+"/text"
}

// problemsOf gives what validation found.
func problemsOf(err error) []mail.Problem {
	var invalid *mail.Invalid
	if errors.As(err, &invalid) {
		return invalid.Problems
	}
	return nil
}

// malformed says where a body stops being JSON. It does not quote it.
func malformed(body []byte) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return malformedJSON.problem("It is empty: send a JSON object.")
	}
	var syntax *json.SyntaxError
	if err := json.Unmarshal(body, new(json.RawMessage)); !errors.As(err, &syntax) {
		return malformedJSON.problem("Send a JSON object.")
	}
	// Offset counts the byte at fault, or the last if the body ends too early.
	before := body[:max(0, syntax.Offset-1)]
	line, column := 1+bytes.Count(before, []byte("\n")), len(before)-bytes.LastIndexByte(before, '\n')
	if !bytes.Contains(body, []byte("\n")) {
		return malformedJSON.problem(fmt.Sprintf("It stops being JSON at byte %d.", column))
	}
	return malformedJSON.problem(fmt.Sprintf("It stops being JSON at line %d, byte %d of the line.", line, column))
}

// decoder walks through valid JSON once, beside the value it fills.
type decoder struct {
	json []byte
	at   int
	// path leads to the value that comes next.
	path []step
	// values counts what was read, up to most.
	values, most int
	// found counts the faults; faults has the first of them.
	found  int
	faults []Fault
	// doubtful are the places of which validation could tell nothing.
	doubtful []string
	// names are the JSON names of a struct's fields, by index; "" for a field that has none.
	names map[reflect.Type][]string
}

// step is the name of a field, or an index if there is no name.
type step struct {
	name  string
	index int
}

func (d *decoder) pointer() string {
	var b strings.Builder
	for _, s := range d.path {
		b.WriteByte('/')
		if s.name != "" {
			b.WriteString(s.name)
		} else {
			b.WriteString(strconv.Itoa(s.index))
		}
	}
	return b.String()
}

func (d *decoder) fault(reason string) {
	d.note(reason)
	d.doubt()
}

// doubt has validation pass over the place.
func (d *decoder) doubt() {
	if len(d.doubtful) < 2*mostFaults {
		d.doubtful = append(d.doubtful, d.pointer())
	}
}

// note is fault for what leaves nothing out.
func (d *decoder) note(reason string) {
	if d.found++; len(d.faults) < mostFaults {
		d.faults = append(d.faults, Fault{Location: d.pointer(), Reason: reason})
	}
}

// within does what is to be done one step down.
func (d *decoder) within(s step, do func()) {
	d.path = append(d.path, s)
	do()
	d.path = d.path[:len(d.path)-1]
}

var (
	timeType  = reflect.TypeFor[time.Time]()
	bytesType = reflect.TypeFor[[]byte]()
)

// value reads the next value into v.
func (d *decoder) value(v reflect.Value) {
	if d.values++; d.values > d.most {
		return
	}
	first := d.peek()
	switch {
	case v.Kind() == reflect.Interface:
		v.Set(reflect.ValueOf(d.scalar(first)))
	case v.Type() == timeType:
		d.text(first, func(s string) { d.time(v, s) })
	case v.Type() == bytesType:
		d.base64(first, v)
	case v.Kind() == reflect.String:
		d.text(first, v.SetString)
	case v.Kind() == reflect.Bool:
		d.skip()
		if first != 't' && first != 'f' {
			d.fault("is neither true nor false")
			return
		}
		v.SetBool(first == 't')
	case v.CanInt():
		d.number(first, v)
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(v.Elem())
	case v.Kind() == reflect.Struct:
		d.nest(first, '{', "is not an object", func() { d.fields(v) })
	case v.Kind() == reflect.Map:
		d.nest(first, '{', "is not an object", func() { d.entries(v) })
	case v.Kind() == reflect.Slice:
		d.nest(first, '[', "is not a list", func() { d.elements(v) })
	default:
		panic("admin: no way to decode a " + v.Type().String())
	}
}

// scalar reads a value of any type: what may be a variable's value as it is, anything else as raw JSON, for validation to
// refuse.
func (d *decoder) scalar(first byte) any {
	start := d.at
	d.skip()
	raw := d.json[start:d.at]
	switch first {
	case '"':
		return d.unquote(raw)
	case 't', 'f':
		return first == 't'
	case '{', '[', 'n':
		return json.RawMessage(raw)
	}
	return json.Number(raw) // 10000000000 stays 10000000000
}

func (d *decoder) text(first byte, set func(string)) {
	start := d.at
	d.skip()
	if first != '"' {
		d.fault("is not a string")
		return
	}
	set(d.unquote(d.json[start:d.at]))
}

func (d *decoder) number(first byte, v reflect.Value) {
	start := d.at
	d.skip()
	n, err := strconv.ParseInt(string(d.json[start:d.at]), 10, v.Type().Bits())
	if err != nil || first != '-' && (first < '0' || first > '9') {
		d.fault("is not a whole number")
		return
	}
	v.SetInt(n)
}

func (d *decoder) time(v reflect.Value, s string) {
	if s == "" {
		return
	}
	var t time.Time
	if err := t.UnmarshalText([]byte(s)); err != nil {
		d.fault("is not a time of RFC 3339, such as 2026-01-31T08:00:00Z")
		return
	}
	v.Set(reflect.ValueOf(t))
}

// base64 reads a file. It can be as long as the body, so it is decoded from where it stands.
func (d *decoder) base64(first byte, v reflect.Value) {
	start := d.at
	d.skip()
	if first != '"' {
		d.fault("is not a string")
		return
	}
	encoded := d.json[start+1 : d.at-1]
	if bytes.IndexByte(encoded, '\\') >= 0 {
		encoded = []byte(d.unquote(d.json[start:d.at]))
	}
	content := make([]byte, base64.StdEncoding.DecodedLen(len(encoded)))
	n, err := base64.StdEncoding.Decode(content, encoded)
	if err != nil {
		d.fault("is not base64 (the standard alphabet, with padding)")
		return
	}
	v.SetBytes(content[:n])
}

// nest reads an object or a list by do, or says that it is none.
func (d *decoder) nest(first, opening byte, reason string, do func()) {
	if first != opening {
		d.skip()
		d.fault(reason)
		return
	}
	do()
}

func (d *decoder) fields(v reflect.Value) {
	names := d.fieldNames(v.Type())
	var seen uint64
	d.members(func(name string) {
		i := slices.Index(names, name)
		if i < 0 || name == "" {
			d.unknown(name, names)
			return
		}
		d.within(step{name: name}, func() {
			if seen&(1<<i) != 0 {
				d.skip()
				d.fault("is there twice: remove one")
				return
			}
			seen |= 1 << i
			if d.peek() == 'n' {
				d.skip()
				return
			}
			d.value(v.Field(i))
		})
	})
}

// unknown skips a field that is not known. Its name may be anything: only a plain one is repeated.
func (d *decoder) unknown(name string, names []string) {
	d.skip()
	if !isPlain(name) {
		d.note("has a field that is not known: remove it")
		return
	}
	reason := "is not known: remove it"
	if near := nearest(name, names); near != "" {
		reason = `is not known: write "` + near + `"`
		d.within(step{name: near}, d.doubt)
	}
	d.within(step{name: name}, func() { d.note(reason) })
}

func (d *decoder) entries(v reflect.Value) {
	v.Set(reflect.MakeMap(v.Type()))
	d.members(func(key string) {
		read := func() {
			element := reflect.New(v.Type().Elem()).Elem()
			d.value(element)
			if k := reflect.ValueOf(key); v.MapIndex(k).IsValid() {
				d.fault("is there twice: remove one")
			} else {
				v.SetMapIndex(k, element)
			}
		}
		if isPlain(key) {
			d.within(step{name: key}, read)
		} else {
			read()
		}
	})
}

func (d *decoder) elements(v reflect.Value) {
	d.at++ // [
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	for n := 0; d.values <= d.most && d.peek() != ']'; n++ {
		if d.json[d.at] == ',' {
			d.at++
		}
		v.Grow(1)
		v.SetLen(n + 1)
		d.within(step{index: n}, func() { d.value(v.Index(n)) })
	}
	d.at++
}

// members calls read with each name of an object, and the value next.
func (d *decoder) members(read func(name string)) {
	d.at++ // {
	for d.values <= d.most && d.peek() != '}' {
		if d.json[d.at] == ',' {
			d.at++
			d.peek()
		}
		start := d.at
		d.skip()
		name := d.unquote(d.json[start:d.at])
		d.peek()
		d.at++ // :
		read(name)
	}
	d.at++
}

// peek goes to the next character that is not space.
func (d *decoder) peek() byte {
	for {
		switch c := d.json[d.at]; c {
		case ' ', '\t', '\r', '\n':
			d.at++
		default:
			return c
		}
	}
}

// skip goes behind the next value.
func (d *decoder) skip() {
	d.peek()
	for depth := 0; ; {
		switch d.json[d.at] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			for d.at++; d.json[d.at] != '"'; d.at++ {
				if d.json[d.at] == '\\' {
					d.at++
				}
			}
		case ',', ':', ' ', '\t', '\r', '\n':
			d.at++
			continue
		default:
			for d.at+1 < len(d.json) && !strings.ContainsRune(",:]} \t\r\n", rune(d.json[d.at+1])) {
				d.at++
			}
		}
		d.at++
		if depth == 0 {
			return
		}
	}
}

// unquote gives the text of a string.
func (d *decoder) unquote(raw []byte) string {
	inner := string(raw[1 : len(raw)-1])
	if strings.IndexByte(inner, '\\') < 0 {
		return inner
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		d.fault("is not a string") // can't be: it is valid JSON
	}
	// encoding/json puts U+FFFD in the place of half a surrogate pair, which is no text.
	if n := strings.Count(s, "\ufffd"); n > 0 && n > strings.Count(inner, "\ufffd")+strings.Count(strings.ToLower(inner), `\ufffd`) {
		d.fault(`has half of a surrogate pair (\ud800 to \udfff)`)
	}
	return s
}

func (d *decoder) fieldNames(t reflect.Type) []string {
	if names, ok := d.names[t]; ok {
		return names
	}
	names := make([]string, t.NumField())
	for i := range names {
		names[i], _, _ = strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if names[i] == "-" {
			names[i] = ""
		}
	}
	d.names[t] = names
	return names
}

// isPlain reports whether s has 1 to 64 of the ASCII letters, digits, '-', '_' and '.'.
func isPlain(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return s != "" && len(s) <= 64
}
