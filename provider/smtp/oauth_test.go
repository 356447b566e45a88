package smtp

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// tokens gives each of a list, the next one after a Reject; the last stays.
type tokens struct {
	list     []string
	rejected []string
	fault    error
}

func (s *tokens) Token(context.Context) (string, error) {
	if s.fault != nil {
		return "", s.fault
	}
	return s.list[0], nil
}

func (s *tokens) Reject(token string) {
	s.rejected = append(s.rejected, token)
	if len(s.list) > 1 {
		s.list = s.list[1:]
	}
}

// noToken is what a login service says that gives none.
type noToken struct{}

func (noToken) Error() string { return "no token" }
func (noToken) Outcome() mail.Outcome {
	return mail.Outcome{Class: mail.Configuration, Scope: mail.ScopeProvider, Cause: mail.SecretExpired, Step: "token", Reply: "AADSTS7000222"}
}

func oauth(s *tokens) change {
	return func(settings *provider.Settings, o *Options) {
		settings.SMTP.Auth = provider.SMTPAuth{Method: provider.AuthOAuth2, AllowCleartext: true, OAuth2: provider.OAuth2{
			ClientID: "app", ClientSecret: "s", TokenURL: "https://login.example.com/token"}}
		o.Tokens = s
	}
}

const (
	oneToken  = "eyJ0eXAiOiJKV1Qi.one"
	twoTokens = "eyJ0eXAiOiJKV1Qi.two"
)

func xoauth(token string) string {
	return "C: AUTH XOAUTH2 " + b64("user=reports@example.com\x01auth=Bearer "+token+"\x01\x01") + "\n"
}

func TestLoginByOAuth(t *testing.T) {
	const one = mailFrom + "S: 250 ok\nC: RCPT TO:<a@example.net>\nS: 250 ok\nC: DATA\nS: 354 go\nMESSAGE\nS: 250 2.0.0 taken\nC: QUIT\nS: 221 bye\n"
	refused := "S: 334 " + b64(`{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}`) + "\n"
	bearer := "C: AUTH OAUTHBEARER " + b64("n,a=reports@example.com,\x01auth=Bearer "+oneToken+"\x01\x01") + "\n"
	for name, test := range map[string]struct {
		tokens   *tokens
		scripts  []string
		class    mail.Class
		cause    mail.Cause
		rejected int
	}{
		"XOAUTH2":     {&tokens{list: []string{oneToken}}, []string{greeting + "S: 250-mx\nS: 250 AUTH LOGIN XOAUTH2 OAUTHBEARER\n" + xoauth(oneToken) + "S: 235 welcome\n" + one}, mail.Delivered, "", 0},
		"OAUTHBEARER": {&tokens{list: []string{oneToken}}, []string{greeting + "S: 250-mx\nS: 250 AUTH LOGIN OAUTHBEARER\n" + bearer + "S: 235 welcome\n" + one}, mail.Delivered, "", 0},
		"a revoked token is replaced": {&tokens{list: []string{oneToken, twoTokens}}, []string{
			greeting + "S: 250-mx\nS: 250 AUTH XOAUTH2\n" + xoauth(oneToken) + refused + "C: \nS: 535 5.7.3 Authentication unsuccessful\nC: QUIT\nS: 221 bye\n",
			greeting + "S: 250-mx\nS: 250 AUTH XOAUTH2\n" + xoauth(twoTokens) + "S: 235 welcome\n" + one}, mail.Delivered, "", 1},
		"two tokens are refused": {&tokens{list: []string{oneToken, twoTokens}}, []string{
			greeting + "S: 250-mx\nS: 250 AUTH XOAUTH2\n" + xoauth(oneToken) + "S: 535 5.7.3 Authentication unsuccessful\nC: QUIT\nS: 221 bye\n",
			greeting + "S: 250-mx\nS: 250 AUTH XOAUTH2\n" + xoauth(twoTokens) + "S: 535 5.7.3 Authentication unsuccessful\nC: QUIT\nS: 221 bye\n"},
			mail.Configuration, mail.PermissionMissing, 1},
		"the only token is refused": {&tokens{list: []string{oneToken}}, []string{
			greeting + "S: 250-mx\nS: 250 AUTH OAUTHBEARER\n" + bearer + refused + "C: " + b64("\x01") + "\nS: 535 5.7.8 no\nC: QUIT\nS: 221 bye\n"},
			mail.Configuration, mail.PermissionMissing, 1},
		"the token repeated": {&tokens{list: []string{oneToken}}, []string{
			greeting + "S: 250-mx\nS: 250 AUTH XOAUTH2\n" + xoauth(oneToken) + "S: 535 5.7.3 not good: " + oneToken + "\nC: QUIT\nS: 221 bye\n"},
			mail.Configuration, mail.PermissionMissing, 1},
		"the line repeated": {&tokens{list: []string{oneToken}}, []string{
			greeting + "S: 250-mx\nS: 250 AUTH XOAUTH2\n" + xoauth(oneToken) + "S: 535 5.7.3 not good: " + b64("user=reports@example.com\x01auth=Bearer "+oneToken+"\x01\x01") + "\nC: QUIT\nS: 221 bye\n"},
			mail.Configuration, mail.PermissionMissing, 1},
		"passwords only": {&tokens{list: []string{oneToken}}, []string{greeting + "S: 250-mx\nS: 250 AUTH LOGIN PLAIN\nC: QUIT\nS: 221 bye\n"}, mail.Configuration, mail.AuthMissing, 0},
		"no token":       {&tokens{fault: noToken{}}, nil, mail.Configuration, mail.SecretExpired, 0},
		"later": {&tokens{list: []string{oneToken, twoTokens}}, []string{greeting + "S: 250-mx\nS: 250 AUTH XOAUTH2\n" + xoauth(oneToken) + "S: 454 4.7.0 later\nC: QUIT\nS: 221 bye\n"},
			mail.Temporary, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, []change{oauth(test.tokens)}, test.scripts...)
			out := r.send(t, "a@example.net")
			if out[0].Class != test.class || out[0].Cause != test.cause || len(test.tokens.rejected) != test.rejected {
				t.Errorf("%+v, rejected %d times", out[0], len(test.tokens.rejected))
			}
			if told := fmt.Sprintf("%+v", out[0]); strings.Contains(told, oneToken[:6]) || strings.Contains(told, b64("user=r")[:6]) {
				t.Errorf("the outcome shows the token: %s", told)
			}
		})
	}
}

func TestATokenThatNoCommandHoldsWaitsForAnEmptyChallenge(t *testing.T) {
	const taken = mailFrom + "S: 250 ok\nC: RCPT TO:<a@example.net>\nS: 250 ok\nC: DATA\nS: 354 go\nMESSAGE\nS: 250 2.0.0 taken\nC: QUIT\nS: 221 bye\n"
	// With a token of 333 bytes the command has 511, and with one more 515; Microsoft's have some 2,000.
	long := func(n int) string { return oneToken + strings.Repeat("x", n-len(oneToken)) }
	waits := func(token string) string {
		return strings.Replace(xoauth(token), "AUTH XOAUTH2 ", "AUTH XOAUTH2\nS: 334 \nC: ", 1)
	}
	for name, script := range map[string]struct {
		token  string
		dialog string
		class  mail.Class
	}{
		"it just fits":       {long(333), xoauth(long(333)) + "S: 235 welcome\n" + taken, mail.Delivered},
		"it does not":        {long(334), waits(long(334)) + "S: 235 welcome\n" + taken, mail.Delivered},
		"it never would":     {long(2000), waits(long(2000)) + "S: 235 welcome\n" + taken, mail.Delivered},
		"it is refused":      {long(2000), waits(long(2000)) + "S: 334 " + b64("{}") + "\nC: \nS: 535 5.7.3 no\nC: QUIT\nS: 221 bye\n", mail.Configuration},
		"there is no asking": {long(2000), "C: AUTH XOAUTH2\nS: 504 5.5.4 no\nC: QUIT\nS: 221 bye\n", mail.Configuration},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, []change{oauth(&tokens{list: []string{script.token}})}, greeting+"S: 250-mx\nS: 250 AUTH XOAUTH2\n"+script.dialog)
			if out := r.send(t, "a@example.net"); out[0].Class != script.class {
				t.Errorf("%+v", out[0])
			}
		})
	}
}

func TestAConnectionWhoseTokenHasRunOutIsReplaced(t *testing.T) {
	const one = mailFrom + "S: 250 ok\nC: RCPT TO:<a@example.net>\nS: 250 ok\nC: DATA\nS: 354 go\nMESSAGE\nS: 250 2.0.0 taken\n"
	s := &tokens{list: []string{oneToken}}
	r := newRig(t, []change{oauth(s)},
		greeting+"S: 250-mx\nS: 250 AUTH XOAUTH2\n"+xoauth(oneToken)+"S: 235 welcome\n"+one+one+"C: QUIT\nS: 221 bye\n",
		greeting+"S: 250-mx\nS: 250 AUTH XOAUTH2\n"+xoauth(twoTokens)+"S: 235 welcome\n"+one+"C: QUIT\nS: 221 bye\n")
	for range 2 {
		r.send(t, "a@example.net")
	}
	s.list[0] = twoTokens
	if out := r.send(t, "a@example.net"); out[0].Class != mail.Delivered {
		t.Errorf("%+v", out[0])
	}
}
