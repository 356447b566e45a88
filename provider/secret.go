package provider

import (
	"fmt"
	"io"
	"log/slog"
)

// Redacted is what a Secret shows of itself. It is never a valid secret: settings that were read and are written back
// with it are refused by Validate instead of overwriting the real one.
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
