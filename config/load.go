package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/postroom/postroom/provider"
)

// forClients are the variables of ours that belong to the commands that speak to the API.
var forClients = []string{"POSTROOM_URL", "POSTROOM_TOKEN", "POSTROOM_TOKEN_FILE"}

// Load gives the effective configuration: the defaults, over them the file, over that the environment. The path may be
// empty: then there is no file. environ has the form of os.Environ; an empty variable counts as not set.
//
// The error is an *Error with every fault, or nil.
func Load(path string, environ []string) (*Config, error) {
	c := base()
	d := &decoder{where: make(map[string]string)}
	if path != "" {
		d.file(path, c)
	}
	d.environment(environ, c)
	c.inherit()
	if c.Provider != nil {
		c.Provider.Defaults()
	}

	// A value that could not be read is not judged again: what stands in its place is not what was asked for.
	unread := make(map[string]bool)
	for _, f := range d.faults {
		unread[f.Path] = true
	}
	for _, f := range c.Validate() {
		if _, found := nearestAbove(unread, f.Path); !found {
			f.Where, _ = nearestAbove(d.where, f.Path)
			d.faults = append(d.faults, f)
		}
	}
	if len(d.faults) > 0 {
		return nil, &Error{Faults: d.faults}
	}
	return c, nil
}

// ReadProvider gives settings of a provider from YAML, of which JSON is a part, in the form of the section provider; source names it.
// What they mean is not judged. The error is an *Error with every fault of the form.
func ReadProvider(source string, text []byte) (*provider.Settings, error) {
	d := &decoder{where: make(map[string]string), source: source, lines: true}
	s := &provider.Settings{}
	d.document("", bytes.TrimPrefix(text, []byte("\ufeff")), reflect.ValueOf(s).Elem()) // editors on Windows put it there
	if len(d.faults) == 0 && len(d.where) == 0 {
		d.faults = append(d.faults, Fault{Where: source, Problem: "no settings", Danger: "there is nothing to choose",
			Remedy: "write them as below provider: in postroom.yaml"})
	}
	if len(d.faults) > 0 {
		return nil, &Error{Faults: d.faults}
	}
	return s, nil
}

func (d *decoder) file(path string, c *Config) {
	text, err := os.ReadFile(path)
	if err != nil {
		d.faults = append(d.faults, Fault{Where: path, Problem: reason(err), Danger: "the defaults would be in force",
			Remedy: "name a file that this process may read"})
		return
	}
	d.source, d.lines = filepath.Base(path), true
	d.document("", text, reflect.ValueOf(c).Elem())
}

func (d *decoder) environment(environ []string, c *Config) {
	d.lines = false
	set := make(map[string]string)
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, envPrefix) && value != "" && !slices.Contains(forClients, name) {
			set[name] = value
		}
	}

	var names []string
	for _, k := range keys() {
		name := k.env()
		names = append(names, name)
		text, given := set[name]
		delete(set, name)
		if k.secret() {
			file := name + "_FILE"
			names = append(names, file)
			if path, ok := set[file]; ok {
				delete(set, file)
				if given {
					d.faults = append(d.faults, Fault{k.path, file, name + " is set too",
						"one of two secrets would win by chance", "unset one of them"})
					continue
				}
				name, given = file, true
				var ok bool
				if text, ok = d.secretFile(k.path, file, path); !ok {
					continue
				}
			}
		}
		if given {
			d.source = name
			d.variable(k, text, k.in(c))
		}
	}
	d.unknownVariables(set, names)
}

// secretFile reads what a ..._FILE variable points to, without the newline that editors and echo put at its end.
func (d *decoder) secretFile(path, variable, file string) (text string, ok bool) {
	content, err := os.ReadFile(file)
	if err != nil {
		d.faults = append(d.faults, Fault{path, variable, "secret file: " + reason(err),
			"the secret would be missing", "name a file that this process may read"})
		return "", false
	}
	text = strings.TrimSuffix(string(content), "\n")
	return strings.TrimSuffix(text, "\r"), true
}

// variable reads a value of the environment: lists of plain values separated by commas or newlines, others, and names with values, as JSON.
func (d *decoder) variable(k key, text string, v reflect.Value) {
	d.where[k.path] = d.source
	switch {
	case v.Kind() == reflect.Map:
		d.document(k.path, []byte(text), v)
	case v.Kind() != reflect.Slice:
		if problem := setText(v, text); problem != "" {
			d.faults = append(d.faults, Fault{k.path, d.source, problem, dangerUnread, remedyValue})
		}
	case sectionType(k.typ.Elem()) != nil:
		d.document(k.path, []byte(text), v)
	default:
		list := reflect.MakeSlice(k.typ, 0, 0)
		for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '\n' }) {
			element := reflect.New(k.typ.Elem()).Elem()
			path := fmt.Sprintf("%s[%d]", k.path, list.Len())
			d.where[path] = d.source
			if problem := setText(element, strings.TrimSpace(part)); problem != "" {
				d.faults = append(d.faults, Fault{path, d.source, problem, dangerUnread, remedyValue})
			}
			list = reflect.Append(list, element)
		}
		v.Set(list)
	}
}

// kubernetes matches what Kubernetes puts into every pod beside a service whose name begins with postroom.
var kubernetes = regexp.MustCompile(`_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$`)

func (d *decoder) unknownVariables(set map[string]string, names []string) {
	var unknown []string
	for name, value := range set {
		link := strings.HasSuffix(name, "_PORT") && strings.Contains(value, "://")
		if !link && !kubernetes.MatchString(name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		remedy := "unset it"
		if near := nearest(name, names); near != "" {
			remedy = "write " + near
		}
		d.faults = append(d.faults, Fault{"", name, "no such variable", dangerIgnored, remedy})
	}
}

// nearestAbove looks up a path, or else the section or list that it belongs to.
func nearestAbove[V any](m map[string]V, path string) (V, bool) {
	for path != "" {
		if v, ok := m[path]; ok {
			return v, true
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	var none V
	return none, false
}

// reason is why a file could not be read, without its name.
func reason(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}
