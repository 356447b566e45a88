package smtp

import (
	"encoding/base64"
	"errors"
	"strings"

	"github.com/emersion/go-sasl"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// account is who we are to the server. Senders hold it by a pointer: printing one prints no password.
type account struct {
	username, password string
	allowCleartext     bool
	// marks are the beginnings of all that AUTH sends with the password in it, in lower case.
	marks []string
}

// newAccount gives nil if the settings want no login.
func newAccount(s *provider.Settings) *account {
	auth := &s.SMTP.Auth
	if auth.Method != provider.AuthBasic {
		return nil
	}
	a := &account{username: auth.Username, password: auth.Password.Reveal(), allowCleartext: auth.AllowCleartext}
	if a.username == "" {
		a.username = s.Sender.Address
	}
	encode := base64.StdEncoding.EncodeToString
	for _, secret := range []string{a.password, encode([]byte(a.password)), encode([]byte("\x00" + a.username + "\x00" + a.password))} {
		a.marks = append(a.marks, lower(secret[:min(len(secret), markLength)]))
	}
	return a
}

// markLength is how much of a secret may not be seen: a server may repeat our line, cut anywhere.
const markLength = 6

// authenticate logs in (RFC 4954). Without TLS only if the settings allow it, on loopback too.
func (a *account) authenticate(c *conn) error {
	if !c.encrypted() && !a.allowCleartext {
		return ours(mail.Configuration, stepAuth, "no login without TLS unless allow_cleartext is set").because(mail.CleartextLogin)
	}
	var mechanism sasl.Client
	switch {
	case c.ext.offers(sasl.Plain):
		mechanism = sasl.NewPlainClient("", a.username, a.password)
	case c.ext.offers(sasl.Login):
		mechanism = &loginClient{username: a.username, password: a.password}
	case len(c.ext.auth) == 0:
		return ours(mail.Configuration, stepAuth, "the server does not offer AUTH").because(mail.AuthMissing)
	default:
		return ours(mail.Configuration, stepAuth, "the server offers neither PLAIN nor LOGIN: "+strings.Join(c.ext.auth, " ")).because(mail.AuthMissing)
	}
	r, err := exchange(c, mechanism)
	if err != nil {
		return err
	}
	if r.class() == 2 {
		return nil
	}
	f := c.refusal(stepAuth, r)
	f.Reply = a.scrub(f.Reply)
	return f
}

// exchange has the dialog of one mechanism and gives the reply that ends it.
func exchange(c *conn, mechanism sasl.Client) (reply, error) {
	name, initial, err := mechanism.Start()
	if err != nil {
		return reply{}, ours(mail.Configuration, stepAuth, err.Error())
	}
	line := "AUTH " + name
	if initial != nil {
		line += " " + base64.StdEncoding.EncodeToString(initial)
	}
	for {
		r, err := c.command(stepAuth, c.t.Command, line)
		if err != nil || r.code != 334 {
			return r, err
		}
		// What is no base64 is no challenge that either mechanism reads.
		challenge, _ := base64.StdEncoding.DecodeString(r.text)
		response, err := mechanism.Next(challenge)
		if err != nil {
			c.dead = true
			return reply{}, ours(mail.Configuration, stepAuth, "the server asked for more than "+name+" has to say").because(mail.AuthMissing)
		}
		line = base64.StdEncoding.EncodeToString(response)
	}
}

// loginClient speaks LOGIN by the order of the questions. go-sasl's goes by their wording, which differs from server to
// server, and sends the user name with AUTH, which not every server takes.
type loginClient struct {
	username, password string
	asked              int
}

var errTooManyChallenges = errors.New("smtp: one challenge too many")

func (l *loginClient) Start() (string, []byte, error) { return sasl.Login, nil, nil }

func (l *loginClient) Next([]byte) ([]byte, error) {
	l.asked++
	switch l.asked {
	case 1:
		return []byte(l.username), nil
	case 2:
		return []byte(l.password), nil
	}
	return nil, errTooManyChallenges
}

// scrub ends a reply's text before the first thing in it that looks like our password: some servers repeat the line they
// did not like.
func (a *account) scrub(text string) string {
	folded, end := lower(text), len(text)
	for _, mark := range a.marks {
		if i := strings.Index(folded, mark); i >= 0 {
			end = min(end, i)
		}
	}
	if end == len(text) {
		return text
	}
	return text[:end] + provider.Redacted
}

// lower folds ASCII only, so that it keeps every byte's place.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
