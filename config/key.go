package config

import (
	"reflect"
	"strings"
	"time"

	"github.com/postroom/postroom/provider"
)

// envPrefix begins the name of every variable of ours.
const envPrefix = "POSTROOM_"

// key is one setting that has a value of its own: a leaf of Config, or a list.
type key struct {
	path  string // such as "worker.concurrency"
	index []int  // of the field, from Config down; embedded structs and pointers included
	typ   reflect.Type
}

// keys lists every key of Config in the order of its fields.
func keys() []key { return keysBelow(reflect.TypeFor[Config](), key{}) }

func keysBelow(t reflect.Type, parent key) []key {
	var all []key
	for _, f := range fields(t) {
		k := key{path: join(parent.path, f.name), typ: f.typ}
		k.index = append(append(k.index, parent.index...), f.index...)
		if section := sectionType(f.typ); section != nil {
			all = append(all, keysBelow(section, k)...)
		} else {
			all = append(all, k)
		}
	}
	return all
}

// env gives the key's variable: "POSTROOM_WORKER_CONCURRENCY".
func (k key) env() string { return envPrefix + strings.ToUpper(strings.ReplaceAll(k.path, ".", "_")) }

// secret reports whether the value can also come from a file named by env()_FILE.
func (k key) secret() bool {
	t := k.typ
	if t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	return t == reflect.TypeFor[provider.Secret]()
}

// in gives the key's place in a configuration. Sections that are not there yet are made.
func (k key) in(c *Config) reflect.Value {
	v := reflect.ValueOf(c).Elem()
	for _, i := range k.index {
		v = made(v).Field(i)
	}
	return v
}

// made follows a pointer, to a new value if it is nil.
func made(v reflect.Value) reflect.Value {
	if v.Kind() != reflect.Pointer {
		return v
	}
	if v.IsNil() {
		v.Set(reflect.New(v.Type().Elem()))
	}
	return v.Elem()
}

// field is one named entry of a section.
type field struct {
	name  string
	index []int
	typ   reflect.Type
}

// fields lists the entries of a section; those of inlined structs are its own.
func fields(t reflect.Type) []field {
	var all []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, option, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if option == "inline" {
			for _, inner := range fields(f.Type) {
				inner.index = append([]int{i}, inner.index...)
				all = append(all, inner)
			}
			continue
		}
		if name == "" {
			name = strings.ToLower(f.Name) // What package yaml takes it for, too.
		}
		all = append(all, field{name, []int{i}, f.Type})
	}
	return all
}

// sectionType gives the struct that t is or points to if it has keys of its own, and nil if t is a value.
func sectionType(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	return t
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

var durationType = reflect.TypeFor[time.Duration]()
