package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/mail/mime"
)

// maxInput is the largest file that is read into a message, in bytes: more than any provider takes.
const maxInput = 48 << 20

// contentFlags are the flags that make up a message.
type contentFlags struct {
	eml                                string
	kind, from, subject, text, html    string
	to, cc, bcc, replyTo               []string
	attach, inline, headers, metadata  []string
	listUnsubscribe, sendAt, expiresAt string
}

func (f *contentFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.kind, "kind", "", "what the mail is: alert, report or subscription (needed)")
	flags.StringArrayVar(&f.to, "to", nil, "recipient, such as ada@example.com or \"Ada <ada@example.com>\" (repeatable)")
	flags.StringArrayVar(&f.cc, "cc", nil, "recipient of a copy (repeatable)")
	flags.StringArrayVar(&f.bcc, "bcc", nil, "recipient of a blind copy (repeatable)")
	flags.StringVar(&f.from, "from", "", "sender; default: the provider's")
	flags.StringArrayVar(&f.replyTo, "reply-to", nil, "where answers go (repeatable)")
	flags.StringVar(&f.subject, "subject", "", "subject")
	flags.StringVar(&f.text, "text", "", "text: itself, @FILE, or - for standard input")
	flags.StringVar(&f.html, "html", "", "HTML: itself, @FILE, or - for standard input")
	flags.StringArrayVar(&f.attach, "attach", nil, "file to attach: FILE[;type=MEDIA/TYPE][;name=NAME] (repeatable)")
	flags.StringArrayVar(&f.inline, "inline", nil, "image that the HTML shows as cid:CID: CID=FILE (repeatable)")
	flags.StringArrayVar(&f.headers, "header", nil, "additional header field: \"X-Name: value\" (repeatable)")
	flags.StringVar(&f.listUnsubscribe, "list-unsubscribe", "", "https URI for one-click unsubscription")
	flags.StringVar(&f.sendAt, "send-at", "", "send no earlier: 2030-01-31T08:00:00Z, or 2h from now")
	flags.StringVar(&f.expiresAt, "expires-at", "", "send no later: 2030-01-31T08:00:00Z, or 2h from now")
	flags.StringArrayVar(&f.metadata, "metadata", nil, "KEY=VALUE that comes back with the state and never goes out (repeatable)")
	flags.StringVar(&f.eml, "eml", "", "message to start from: an .eml file, or - for standard input")
	completeWith(c, "kind", string(mail.Alert), string(mail.Report), string(mail.Subscription))
}

// message makes what the flags describe. Faults of a flag are usage errors; the message as a whole is not validated.
func (f *contentFlags) message(stdin io.Reader, now time.Time) (mail.Message, error) {
	var m mail.Message
	in := inputs{stdin: stdin}
	if f.eml != "" {
		parsed, err := in.eml(f.eml)
		if err != nil {
			return m, err
		}
		m = *parsed
	}
	m.Kind = mail.Kind(f.kind)
	switch {
	case f.kind == "":
		return m, usage("--kind is needed: alert, report or subscription")
	case !m.Kind.Valid():
		return m, usage("--kind: %q is not one of alert, report and subscription", f.kind)
	}
	if err := f.addresses(&m); err != nil {
		return m, err
	}
	if err := f.bodies(&m, &in); err != nil {
		return m, err
	}
	if f.subject != "" {
		m.Subject = f.subject
	}
	if f.listUnsubscribe != "" {
		m.ListUnsubscribe = f.listUnsubscribe
	}
	var err error
	if m.SendAt, err = instant("--send-at", f.sendAt, now); err != nil {
		return m, err
	}
	if m.ExpiresAt, err = instant("--expires-at", f.expiresAt, now); err != nil {
		return m, err
	}
	if m.Headers, err = pairs("--header", f.headers, ":", m.Headers); err != nil {
		return m, err
	}
	m.Metadata, err = pairs("--metadata", f.metadata, "=", nil)
	return m, err
}

func (f *contentFlags) addresses(m *mail.Message) error {
	for _, list := range []struct {
		flag  string
		given []string
		to    *[]mail.Address
	}{{"--to", f.to, &m.To}, {"--cc", f.cc, &m.Cc}, {"--bcc", f.bcc, &m.Bcc}, {"--reply-to", f.replyTo, &m.ReplyTo}} {
		if len(list.given) == 0 {
			continue
		}
		*list.to = nil
		for i, s := range list.given {
			a, err := mail.ParseAddress(s)
			if err != nil {
				return usage("%s, entry %d, %s (one address for each %s)", list.flag, i+1, addressFault(err), list.flag)
			}
			*list.to = append(*list.to, a)
		}
	}
	if f.from == "" {
		return nil
	}
	from, err := mail.ParseAddress(f.from)
	if err != nil {
		return usage("--from %s", addressFault(err))
	}
	m.From = from
	return nil
}

// addressFault is what mail.ParseAddress says of an address, to stand behind whose it is.
func addressFault(err error) string { return strings.TrimPrefix(err.Error(), "mail: the address ") }

func (f *contentFlags) bodies(m *mail.Message, in *inputs) error {
	for _, body := range []struct {
		flag, given string
		to          *string
	}{{"--text", f.text, &m.Text}, {"--html", f.html, &m.HTML}} {
		if body.given == "" {
			continue
		}
		text, err := in.text(body.flag, body.given)
		if err != nil {
			return err
		}
		*body.to = text
	}
	for _, spec := range f.attach {
		path, mediaType, name := attachmentSpec(spec)
		a, err := in.file("--attach", path)
		if err != nil {
			return err
		}
		a.ContentType = mediaType
		if name != "" {
			a.Name = name
		}
		m.Attachments = append(m.Attachments, a)
	}
	for _, spec := range f.inline {
		id, path, ok := strings.Cut(spec, "=")
		if !ok || id == "" || path == "" {
			return usage("--inline: write it as CID=FILE, such as logo=logo.png")
		}
		a, err := in.file("--inline", path)
		if err != nil {
			return err
		}
		a.ContentID = id
		m.Attachments = append(m.Attachments, a)
	}
	return nil
}

// relativeTime reports whether a time is counted from now, so that repeating the command makes another message.
func (f *contentFlags) relativeTime() bool {
	for _, s := range []string{f.sendAt, f.expiresAt} {
		if _, err := time.ParseDuration(s); err == nil {
			return true
		}
	}
	return false
}

// attachmentSpec takes FILE;type=...;name=... apart. A media type may have parameters of its own, and a file's name a
// semicolon.
func attachmentSpec(spec string) (path, mediaType, name string) {
	path = spec
	for {
		at := max(strings.LastIndex(path, ";type="), strings.LastIndex(path, ";name="))
		if at <= 0 {
			return path, mediaType, name
		}
		key, value, _ := strings.Cut(path[at+1:], "=")
		if key == "type" {
			mediaType = value
		} else {
			name = value
		}
		path = path[:at]
	}
}

// instant reads a time, or a duration from now; empty is the zero time.
func instant(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		if d < 0 {
			return time.Time{}, usage("%s: %q is in the past", flag, s)
		}
		return now.Add(d).UTC().Truncate(time.Second), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, usage("%s: %q is neither a time such as 2030-01-31T08:00:00Z nor a duration such as 2h", flag, s)
	}
	return t, nil
}

// pairs reads name-value pairs over those that are there.
func pairs(flag string, given []string, separator string, over map[string]string) (map[string]string, error) {
	if len(given) == 0 {
		return over, nil
	}
	all := maps.Clone(over)
	if all == nil {
		all = make(map[string]string, len(given))
	}
	seen := make(map[string]bool, len(given))
	for _, s := range given {
		name, value, ok := strings.Cut(s, separator)
		name = strings.TrimSpace(name)
		switch {
		case !ok || name == "":
			return nil, usage("%s: write it as NAME%sVALUE", flag, separator)
		case seen[strings.ToLower(name)]:
			return nil, usage("%s: %q is given twice", flag, name)
		}
		seen[strings.ToLower(name)] = true
		maps.DeleteFunc(all, func(k, _ string) bool { return strings.EqualFold(k, name) })
		all[name] = strings.TrimSpace(value)
	}
	return all, nil
}

// inputs reads what flags refer to. Standard input can be read once.
type inputs struct {
	stdin  io.Reader
	reader string // the flag that has read stdin
}

// text gives the text that value stands for.
func (in *inputs) text(flag, value string) (string, error) {
	if value != "-" && !strings.HasPrefix(value, "@") {
		return value, nil
	}
	r, err := in.open(flag, strings.TrimPrefix(value, "@"), value == "-")
	if err != nil {
		return "", err
	}
	defer func() { _ = r.Close() }()
	raw, err := readAll(r)
	if err != nil {
		return "", fmt.Errorf("%s: %w", flag, err)
	}
	return string(raw), nil
}

func (in *inputs) file(flag, path string) (mail.Attachment, error) {
	r, err := in.open(flag, path, false)
	if err != nil {
		return mail.Attachment{}, err
	}
	defer func() { _ = r.Close() }()
	raw, err := readAll(r)
	if err != nil {
		return mail.Attachment{}, fmt.Errorf("%s: %s: %w", flag, path, err)
	}
	return mail.Attachment{Name: filepath.Base(path), Content: raw}, nil
}

func (in *inputs) eml(path string) (*mail.Message, error) {
	r, err := in.open("--eml", path, path == "-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	m, err := mime.ParseEML(r)
	if err != nil {
		return nil, fmt.Errorf("--eml: %w", err)
	}
	return m, nil
}

func (in *inputs) open(flag, path string, stdin bool) (io.ReadCloser, error) {
	if !stdin {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", flag, err)
		}
		return f, nil
	}
	if in.reader != "" {
		return nil, usage("%s: standard input goes to %s already", flag, in.reader)
	}
	in.reader = flag
	return io.NopCloser(in.stdin), nil
}

func readAll(r io.Reader) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err == nil && len(raw) > maxInput {
		err = fmt.Errorf("is larger than %d MiB: too large for a mail", maxInput>>20)
	}
	return raw, err
}
