package main

import (
	"errors"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/config"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// readSettings gives the settings that text holds, or every fault of its form. Source names it. What they mean is for the server to
// judge.
func readSettings(source string, text []byte) (*provider.Settings, error) {
	s, err := config.ReadProvider(filepath.Base(source), text)
	var faulty *config.Error
	if errors.As(err, &faulty) {
		p := &admin.Problem{Title: source + " can't be used"}
		for _, f := range faulty.Faults {
			where := " (" + f.Where + ")"
			if f.Path == "" {
				where = f.Where
			}
			p.Errors = append(p.Errors, admin.Fault{Location: f.Path + where + ":", Reason: f.Problem + "; " + f.Remedy})
		}
		return nil, p
	}
	return s, err
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
