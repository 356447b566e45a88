package smtp

import (
	"cmp"
	"context"
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
	tokens             provider.Tokens // nil: it has a password
	allowCleartext     bool
}

// newAccount gives nil if the settings want no login.
func newAccount(s *provider.Settings, tokens provider.Tokens) *account {
	auth := &s.SMTP.Auth
	a := &account{username: auth.Username, allowCleartext: auth.AllowCleartext}
	if a.username == "" {
		a.username = s.Sender.Address
	}
	switch auth.Method {
	case provider.AuthBasic:
		a.password = auth.Password.Reveal()
	case provider.AuthOAuth2:
		a.tokens = tokens
	default:
		return nil
	}
	return a
}

// credential gives what the next login proves itself by: the password, or an access token.
func (a *account) credential(ctx context.Context) (string, error) {
	if a == nil || a.tokens == nil {
		return "", nil
	}
	token, err := a.tokens.Token(ctx)
	if o, ok := provider.NoToken(err); ok {
		return "", &fault{Outcome: o}
	}
	return token, err
}

// authenticate logs in (RFC 4954), with a token if that is not empty. Without TLS only if the settings allow it, on loopback too.
func (a *account) authenticate(c *conn, token string) error {
	if !c.encrypted() && !a.allowCleartext {
		return ours(mail.Configuration, stepAuth, "no login without TLS unless allow_cleartext is set").because(mail.CleartextLogin)
	}
	mechanism, err := a.mechanism(&c.ext, token)
	if err != nil {
		return err
	}
	r, err := exchange(c, mechanism)
	if err != nil {
		return err
	}
	if r.class() == 2 {
		c.token = token
		return nil
	}
	f := c.refusal(stepAuth, r)
	f.Reply = scrub(f.Reply, a.username, cmp.Or(token, a.password))
	if token != "" && f.Cause == mail.Credentials {
		f.Cause = mail.PermissionMissing // whatever is wrong, it is no password
	}
	return f
}

// mechanism picks what the server offers: with a token the one that Microsoft and Google had first, where there are both.
func (a *account) mechanism(ext *extensions, token string) (sasl.Client, error) {
	names := "PLAIN nor LOGIN"
	switch {
	case token != "" && ext.offers(xoauth2):
		return &bearerClient{name: xoauth2, initial: "user=" + a.username + "\x01auth=Bearer " + token + "\x01\x01"}, nil
	case token != "" && ext.offers(sasl.OAuthBearer):
		return &bearerClient{name: sasl.OAuthBearer, initial: "n,a=" + saslName(a.username) + ",\x01auth=Bearer " + token + "\x01\x01", dummy: "\x01"}, nil
	case token != "":
		names = "XOAUTH2 nor OAUTHBEARER"
	case ext.offers(sasl.Plain):
		return sasl.NewPlainClient("", a.username, a.password), nil
	case ext.offers(sasl.Login):
		return &loginClient{username: a.username, password: a.password}, nil
	}
	if len(ext.auth) == 0 {
		return nil, ours(mail.Configuration, stepAuth, "the server does not offer AUTH").because(mail.AuthMissing)
	}
	return nil, ours(mail.Configuration, stepAuth, "the server offers neither "+names+": "+strings.Join(ext.auth, " ")).because(mail.AuthMissing)
}

// maxCommand is the longest command, line end included, that a server has to take (RFC 5321, section 4.5.3.1.4). AUTH is no
// exception, as answers to its challenges are (RFC 4954, section 4): what does not fit, as Microsoft's tokens don't, waits for an empty one.
const maxCommand = 512

// exchange has the dialog of one mechanism and gives the reply that ends it.
func exchange(c *conn, mechanism sasl.Client) (reply, error) {
	name, initial, err := mechanism.Start()
	if err != nil {
		return reply{}, ours(mail.Configuration, stepAuth, err.Error())
	}
	c.mechanism = name
	line := "AUTH " + name
	held := initial != nil
	if first := line + " " + base64.StdEncoding.EncodeToString(initial); held && len(first)+len("\r\n") <= maxCommand {
		line, held = first, false
	}
	for {
		r, err := c.command(stepAuth, c.t.Command, line)
		if err != nil || r.code != 334 {
			return r, err
		}
		response := initial
		if !held {
			// What is no base64 is no challenge that either mechanism reads.
			challenge, _ := base64.StdEncoding.DecodeString(r.text)
			if response, err = mechanism.Next(challenge); err != nil {
				c.dead = true
				return reply{}, ours(mail.Configuration, stepAuth, "the server asked for more than "+name+" has to say").because(mail.AuthMissing)
			}
		}
		held = false
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

// xoauth2 is the mechanism of Google and Microsoft that came before OAUTHBEARER (RFC 7628).
const xoauth2 = "XOAUTH2"

// bearerClient shows a token. A server that refuses it first sends a challenge with its reasons in JSON, which wants an answer
// that says nothing, and then the reply.
type bearerClient struct {
	name, initial, dummy string
	answered             bool
}

func (b *bearerClient) Start() (string, []byte, error) { return b.name, []byte(b.initial), nil }

func (b *bearerClient) Next([]byte) ([]byte, error) {
	if b.answered {
		return nil, errTooManyChallenges
	}
	b.answered = true
	return []byte(b.dummy), nil
}

// saslName writes a user name as OAUTHBEARER has it (RFC 5801, section 4).
func saslName(s string) string {
	return strings.NewReplacer("=", "=3D", ",", "=2C").Replace(s)
}

// markLength is how much of a secret may not be seen: a server may repeat our line, cut anywhere.
const markLength = 6

// scrub ends a reply's text before the first thing in it that looks like what we logged in with: some servers repeat the line
// they did not like.
func scrub(text, username, secret string) string {
	encode := base64.StdEncoding.EncodeToString
	folded, end := lower(text), len(text)
	for _, told := range []string{secret, encode([]byte(secret)), encode([]byte("\x00" + username + "\x00" + secret)),
		encode([]byte("user=" + username + "\x01")), encode([]byte("n,a=" + saslName(username)))} {
		if i := strings.Index(folded, lower(told[:min(len(told), markLength)])); i >= 0 && secret != "" {
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
