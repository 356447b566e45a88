package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/provider"
)

// settingFlag is a setting of the provider that can be given on the command line.
type settingFlag struct {
	name string
	// at are JSON pointers to what it sets: one, or one for each kind of provider that has it.
	at     []string
	usage  string
	values []string // for the shell, if they are known
}

// settingFlags are what an administrator needs on one line; the rest is for files. What ends in -file is read from a file, so that no
// secret gets into the list of processes or the history of a shell.
var settingFlags = []settingFlag{
	{"kind", []string{"/kind"}, "the kind of provider: smtp or microsoft365", []string{"smtp", "microsoft365"}},
	{"sender", []string{"/sender"}, "who mail is from: reports@example.com, or \"Reports <reports@example.com>\"", nil},
	{"allow-sender", []string{"/allowed_senders"}, "who else mail may be from: an address, or @ and a domain (repeatable; replaces the list)", nil},
	{"host", []string{"/smtp/host"}, "smtp: the mail server", nil},
	{"port", []string{"/smtp/port"}, "smtp: its port; 0 is the usual one of the security: 25 (none), 587 (starttls) or 465 (tls)", nil},
	{"security", []string{"/smtp/security"}, "smtp: starttls, tls or none", []string{"starttls", "tls", "none"}},
	{"ca-file", []string{"/smtp/ca_pem"}, "smtp: file with the certificates, in PEM, to trust instead of the system's", nil},
	{"auth", []string{"/smtp/auth/method"}, "smtp: how to log in: none, basic or oauth2", []string{"none", "basic", "oauth2"}},
	{"username", []string{"/smtp/auth/username"}, "smtp: user name, if it is not the sender's address", nil},
	{"password-file", []string{"/smtp/auth/password"}, "smtp: file with the password, or - for standard input; at a terminal it is asked for and not shown", nil},
	{"allow-cleartext", []string{"/smtp/auth/allow_cleartext"}, "smtp: log in without TLS too (--security none): whoever sees the traffic has the password", nil},
	{"tenant-id", []string{"/microsoft365/tenant_id", "/smtp/auth/oauth2/tenant_id"}, "Microsoft: the directory (tenant) ID", nil},
	{"client-id", []string{"/microsoft365/client_id", "/smtp/auth/oauth2/client_id"}, "Microsoft, OAuth: the application (client) ID", nil},
	{"client-secret-file", []string{"/microsoft365/client_secret", "/smtp/auth/oauth2/client_secret"},
		"Microsoft, OAuth: file with the client secret, or - for standard input; at a terminal it is asked for and not shown", nil},
	{"certificate-file", []string{"/microsoft365/certificate_pem"}, "microsoft365: file with the app's certificate in PEM, instead of a secret", nil},
	{"private-key-file", []string{"/microsoft365/private_key_pem"}, "microsoft365: file with the certificate's key in PEM, or - for standard input", nil},
	{"cloud", []string{"/microsoft365/cloud"}, "microsoft365: global, gcc, gcch, dod or china", []string{"global", "gcc", "gcch", "dod", "china"}},
	{"verify-sends", []string{"/microsoft365/verify_sends"}, "microsoft365: find out whether mail went if its answer is lost; takes more requests", nil},
	{"save-to-sent-items", []string{"/microsoft365/save_to_sent_items"}, "microsoft365: keep a copy in the sender's sent items", nil},
}

// pointer gives where the flag sets something in settings of a kind; false if such settings have no use for it.
func (f *settingFlag) pointer(kind provider.Kind) (string, bool) {
	for _, at := range f.at {
		section, _, nested := strings.Cut(at[1:], "/")
		if !nested || section == string(kind) {
			return at, true
		}
	}
	return "", false
}

// kinds names the kinds of provider that have a use for the flag.
func (f *settingFlag) kinds() string {
	var names []string
	for _, at := range f.at {
		section, _, _ := strings.Cut(at[1:], "/")
		names = append(names, section)
	}
	return strings.Join(names, " and ")
}

// fromFile reports whether the flag names a file that holds the value.
func (f *settingFlag) fromFile() bool { return strings.HasSuffix(f.name, "-file") }

// givenSettings are settings as a command line has them: a file, and flags above it.
type givenSettings struct {
	command *cobra.Command
	inputs  inputs
}

// registerSettings makes the flags, each of the type of its setting.
func registerSettings(c *cobra.Command) {
	flags := c.Flags()
	for _, f := range settingFlags {
		switch fieldAt(&provider.Settings{}, f.at[0]).Kind() {
		case reflect.Bool:
			flags.Bool(f.name, false, f.usage)
		case reflect.Int:
			flags.Int(f.name, 0, f.usage)
		case reflect.Slice:
			flags.StringArray(f.name, nil, f.usage)
		default:
			flags.String(f.name, "", f.usage)
		}
		if f.values != nil {
			completeWith(c, f.name, f.values...)
		}
	}
}

// oneFile takes at most one argument, a file.
func oneFile(c *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usage("%s: too many arguments: it takes one file (see %s --help)", c.CommandPath(), c.CommandPath())
	}
	return nil
}

func (g *givenSettings) changed(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return g.command.Flags().Changed(name) })
}

// any reports whether there is a flag of the settings.
func (g *givenSettings) any() bool {
	return slices.ContainsFunc(settingFlags, func(f settingFlag) bool { return g.changed(f.name) })
}

// check finds what is wrong with the flags by themselves.
func (g *givenSettings) check() error {
	for _, f := range settingFlags {
		value := g.command.Flags().Lookup(f.name).Value.String()
		list, err := g.command.Flags().GetStringArray(f.name)
		empty := value == "" || err == nil && (len(list) == 0 || slices.Contains(list, ""))
		if g.changed(f.name) && empty { // a variable of a shell script that is not set
			return usage("--%s: it is empty: leave it out, or write the settings into a file", f.name)
		}
	}
	switch kind, _ := g.command.Flags().GetString("kind"); provider.Kind(kind) {
	case "", provider.KindSMTP, provider.KindMicrosoft365:
		return nil
	case provider.KindNone:
		return errNone
	default:
		return usage("--kind: %q is neither smtp nor microsoft365", kind)
	}
}

// errNone: who wants no provider is asked whether they do.
var errNone = usage("kind none: to have no provider, use postroom provider clear")

// chosen gives what the command line says, and the client to say it to.
func (g *givenSettings) chosen(n *connection, args []string) (*admin.Client, *provider.Settings, error) {
	if err := g.check(); err != nil {
		return nil, nil, err
	}
	client, err := n.connect()
	if err != nil {
		return nil, nil, err
	}
	s, err := g.settings(g.command.Context(), client, args)
	return client, s, err
}

// settings gives what the command line says; nil if it says nothing. Flags alone are laid over what is active.
func (g *givenSettings) settings(ctx context.Context, client *admin.Client, args []string) (*provider.Settings, error) {
	var s *provider.Settings
	var err error
	switch {
	case len(args) > 0:
		s, err = g.file(args[0])
	case g.any():
		s, err = g.active(ctx, client)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := g.layOver(s); err != nil {
		return nil, err
	}
	if s.Kind == provider.KindNone {
		return nil, errNone
	}
	return s, nil
}

func (g *givenSettings) file(path string) (*provider.Settings, error) {
	text, err := g.read("FILE", path)
	if err != nil {
		return nil, err
	}
	if path == "-" {
		path = "standard input"
	}
	return readSettings(path, text)
}

// active gives the settings that flags change. Of another kind only who may send is kept: that must not be forgotten by mistake.
func (g *givenSettings) active(ctx context.Context, client *admin.Client) (*provider.Settings, error) {
	p, err := client.Provider(ctx)
	if err != nil {
		return nil, err
	}
	text, _ := g.command.Flags().GetString("kind")
	kind := provider.Kind(text)
	switch s := p.Settings; {
	case s == nil && kind == "":
		return nil, usage("--kind is missing: no provider is active whose settings could be changed")
	case s == nil:
		return &provider.Settings{Kind: kind}, nil
	case kind != "" && kind != s.Kind:
		if len(s.AllowedSenders) > 0 && !g.changed("allow-sender") {
			fmt.Fprintf(g.command.ErrOrStderr(), "Of the settings of %s only allowed_senders is kept.\n", plain(string(s.Kind)))
		}
		return &provider.Settings{Kind: kind, AllowedSenders: s.AllowedSenders}, nil
	default:
		forgetDefaults(s)
		return s, nil
	}
}

// forgetDefaults takes out of active settings what was filled in, where it depends on what flags change: the port on the security,
// limits on the server.
func forgetDefaults(s *provider.Settings) {
	d := *s
	d.SMTP.Port, d.Limits = 0, provider.Limits{}
	d.Defaults()
	if s.SMTP.Port == d.SMTP.Port {
		s.SMTP.Port = 0
	}
	limits, defaults := reflect.ValueOf(&s.Limits).Elem(), reflect.ValueOf(d.Limits)
	for i := range limits.NumField() {
		if limits.Field(i).Equal(defaults.Field(i)) {
			limits.Field(i).SetZero()
		}
	}
}

// layOver writes the flags into s. What can't go together with them gives way.
func (g *givenSettings) layOver(s *provider.Settings) error {
	if kind, _ := g.command.Flags().GetString("kind"); kind != "" {
		s.Kind = provider.Kind(kind)
	}
	g.makeRoom(s)
	for _, f := range settingFlags {
		if !g.changed(f.name) {
			continue
		}
		at, ok := f.pointer(s.Kind)
		if !ok {
			return usage("--%s is a setting of kind %s, and the kind is %s", f.name, f.kinds(), cmp.Or(string(s.Kind), "not given: see --kind"))
		}
		v, flag := fieldAt(s, at), g.command.Flags().Lookup(f.name)
		if v.Kind() == reflect.Slice {
			list, _ := g.command.Flags().GetStringArray(f.name)
			v.Set(reflect.ValueOf(list))
			continue
		}
		text := flag.Value.String()
		if f.fromFile() {
			content, err := g.read("--"+f.name, text)
			if err != nil {
				return err
			}
			if text = withoutNewline(string(content)); text == "" {
				return fail(exitFault, "--%s: the file is empty", f.name)
			}
		}
		if reason := setText(v, text); reason != "" {
			return usage("--%s: it %s", f.name, reason)
		}
	}
	return nil
}

// makeRoom takes out of s another way to log in than that of the flags, which would be refused beside it, and names theirs.
func (g *givenSettings) makeRoom(s *provider.Settings) {
	const basic, oauth2 = "basic", "oauth2"
	if s.Kind == provider.KindMicrosoft365 {
		m := &s.Microsoft365
		switch {
		case g.changed("client-secret-file"):
			m.CertificatePEM, m.PrivateKeyPEM, m.FederatedTokenFile = "", "", ""
		case g.changed("certificate-file"):
			m.ClientSecret, m.FederatedTokenFile = "", ""
		}
		return
	}
	a := &s.SMTP.Auth
	method, _ := g.command.Flags().GetString("auth")
	if method == "" && (a.Method == "" || a.Method == provider.AuthNone) {
		switch {
		case g.changed("tenant-id", "client-id", "client-secret-file"):
			method = oauth2
		case g.changed("username", "password-file"):
			method = basic
		}
	}
	if method != "" && method != string(a.Method) {
		*a = provider.SMTPAuth{Method: provider.AuthMethod(method), Username: a.Username, AllowCleartext: a.AllowCleartext}
		if a.Method == provider.AuthNone {
			a.Username = ""
		}
	}
	if g.changed("tenant-id") {
		a.OAuth2.Provider = cmp.Or(a.OAuth2.Provider, "microsoft")
	}
}

// maxSettings is the largest file that settings are read from, in bytes.
const maxSettings = 1 << 20

// read gives what a file holds, or standard input if path is -.
func (g *givenSettings) read(flag, path string) ([]byte, error) {
	r, err := g.inputs.open(flag, path, path == "-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	if typed, ok := g.inputs.stdin.(*os.File); ok && path == "-" && hiddenFlag(flag) && isTerminal(typed) {
		return g.hidden(flag, typed)
	}
	text, err := io.ReadAll(io.LimitReader(r, maxSettings+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", flag, err)
	case len(text) > maxSettings:
		return nil, fail(exitFault, "%s: it is larger than %d MiB", flag, maxSettings>>20)
	}
	return text, nil
}

// hiddenFlag reports whether a flag's value is a secret of one line, which people can type.
func hiddenFlag(flag string) bool { return flag == "--password-file" || flag == "--client-secret-file" }

// hidden asks for a line at a terminal, and does not show what is typed. Whoever is interrupted gets the terminal back as it was.
func (g *givenSettings) hidden(flag string, terminal *os.File) ([]byte, error) {
	words, fd := g.command.ErrOrStderr(), int(terminal.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	fmt.Fprintf(words, "%s (it is not shown): ", strings.TrimSuffix(flag, "-file")[2:])
	type line struct {
		text []byte
		err  error
	}
	read := make(chan line, 1)
	go func() { // it ends with the process, if nobody types anything
		text, err := term.ReadPassword(fd)
		read <- line{text, err}
	}()
	select {
	case <-g.command.Context().Done():
		err = errors.Join(g.command.Context().Err(), term.Restore(fd, before))
		fmt.Fprintln(words)
		return nil, err
	case typed := <-read:
		fmt.Fprintln(words)
		if typed.err != nil {
			return nil, fmt.Errorf("%s: %w", flag, typed.err)
		}
		return typed.text, nil
	}
}

// withoutNewline takes away the one that editors and echo put at the end: all else can belong to a password.
func withoutNewline(s string) string { return strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r") }

// namedSettings names what a problem complains about as the command line does, instead of by JSON pointers.
func namedSettings(err error) error {
	p, ok := errors.AsType[*admin.Problem](err)
	if !ok || len(p.Errors) == 0 {
		return err
	}
	named := *p
	named.Errors = slices.Clone(p.Errors)
	for i := range named.Errors {
		named.Errors[i].Location = cmp.Or(settingName(named.Errors[i].Location), "the request")
	}
	return &named
}

// listIndex is a part of a JSON pointer that leads into a list.
var listIndex = regexp.MustCompile(`/([0-9]+)`)

// settingName gives the key that a JSON pointer into settings, or into a request that has some, leads to, and its flag: "smtp.host
// (--host)". What is no pointer stays as it is.
func settingName(pointer string) string {
	pointer = strings.TrimPrefix(pointer, "/settings")
	key := strings.ReplaceAll(strings.TrimPrefix(listIndex.ReplaceAllString(pointer, "[$1]"), "/"), "/", ".")
	for _, f := range settingFlags {
		for _, at := range f.at {
			if pointer == at || strings.HasPrefix(pointer, at+"/") {
				return key + " (--" + f.name + ")"
			}
		}
	}
	return key
}
