package provider

import (
	"fmt"
	"io"
	"iter"
	"log/slog"
	"reflect"
	"strings"
)

// Redacted is what a Secret shows of itself. It is never a valid secret: in settings that were read and are written back it stands
// for the one that is stored, which Settings.TakeOver puts in its place; Validate refuses what is left of it.
const Redacted = "[redacted]"

// Secret is a password or key. However it is printed, logged or encoded it shows Redacted, or nothing if it is empty;
// decoding reads it like any string. Only Reveal gives it away.
type Secret string

// Reveal gives the secret itself: for the wire, and for sealing it at rest.
func (s Secret) Reveal() string { return string(s) }

// String gives Redacted, or nothing for an empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return Redacted
}

// Format covers every verb of fmt, the wrong ones too: fmt would print the plain string for those.
func (s Secret) Format(f fmt.State, verb rune) {
	if verb == 'q' || f.Flag('#') {
		_, _ = fmt.Fprintf(f, "%q", s.String())
		return
	}
	_, _ = io.WriteString(f, s.String())
}

// MarshalText is what JSON, YAML and slog's text handler use.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue is what slog's handlers ask first.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// secrets goes through every secret that settings can have, set or not, with its JSON pointer (RFC 6901). It finds them by their
// type, so that nobody has to list a new one.
func secrets(s *Settings) iter.Seq2[string, *Secret] {
	return func(yield func(string, *Secret) bool) { yieldSecrets("", reflect.ValueOf(s).Elem(), yield) }
}

// yieldSecrets looks at one struct and those below it; it gives false if it was told to stop. A secret in a list or behind a pointer
// would not be found: a test sees to it that there is none.
func yieldSecrets(at string, v reflect.Value, yield func(string, *Secret) bool) bool {
	for field, value := range v.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		below := at + "/" + name
		if secret, ok := value.Addr().Interface().(*Secret); ok {
			if !yield(below, secret) {
				return false
			}
		} else if value.Kind() == reflect.Struct && !yieldSecrets(below, value, yield) {
			return false
		}
	}
	return true
}
