package bench

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/graph/graphtest"
)

// overheard keeps what a server writes on its connections.
type overheard struct {
	net.Listener
	into *log
}

// Accept implements net.Listener.
func (l overheard) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return overheardConn{conn, l.into}, err
}

type overheardConn struct {
	net.Conn
	into *log
}

func (c overheardConn) Write(p []byte) (int, error) {
	_, _ = c.into.Write(p)
	return c.Conn.Write(p)
}

// login is one way to log in.
type login struct {
	name         string
	wrong, right provider.Settings
	secrets      map[string]string
	// revoke has the tokens that we were given so far be refused, and fail the next message; nil: there is no need.
	revoke, fail func()
}

// repeating starts an SMTP server that logs in whom good likes, and repeats what it does not like, as some do. It refuses nobody@....
func repeating(t testing.TB, mechanisms string, good func(shown string) bool) provider.Settings {
	p := listen(t, func(s *step) string {
		switch {
		case s.at == "ehlo":
			return "250-peer.example\r\n250-ENHANCEDSTATUSCODES\r\n250 AUTH " + mechanisms
		case s.at == "auth" && !good(s.argument):
			encoded := base64.StdEncoding.EncodeToString
			return fmt.Sprintf("535 5.7.8 Not %s, nor %s or %s", encoded([]byte("\x00news\x00"+s.argument)), encoded([]byte(s.argument)), s.argument)
		case s.at == "rcpt" && strings.HasPrefix(s.argument, "nobody@"):
			return "550 5.1.1 No such user here"
		}
		return ""
	})
	p.wantsLogin = true
	host, port, _ := net.SplitHostPort(p.address)
	number, _ := strconv.Atoi(port)
	return provider.Settings{Kind: provider.KindSMTP, Sender: mail.Address{Address: ownSender}, SMTP: provider.SMTPSettings{Host: host, Port: number,
		Security: provider.SecurityNone, Auth: provider.SMTPAuth{Method: provider.AuthBasic, Username: "news", AllowCleartext: true}}}
}

// byPassword logs in by a password.
func byPassword(t testing.TB) (login, *log) {
	right, wrong := newSecret(), newSecret()
	s := login{name: "a password", right: repeating(t, "PLAIN", func(shown string) bool { return shown == right }),
		secrets: map[string]string{"password": right, "wrong password": wrong}}
	s.wrong = s.right
	s.right.SMTP.Auth.Password, s.wrong.SMTP.Auth.Password = provider.Secret(right), provider.Secret(wrong)
	return s, nil
}

// byToken logs in by access tokens of a server that repeats what it does not like, too.
func byToken(t testing.TB) (login, *log) {
	right, wrong, told := newSecret(), newSecret(), &log{}
	s := login{name: "access tokens", secrets: map[string]string{"client secret for SMTP": right, "wrong client secret for SMTP": wrong}}
	var mu sync.Mutex
	var token string
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, secret, _ := r.BasicAuth()
		if secret != url.QueryEscape(right) {
			answer(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client", "error_description": "not by " + secret + " or " + r.Header.Get("Authorization")})
			return
		}
		mu.Lock()
		defer mu.Unlock()
		token = "eyJ0eXAiOiJKV1Qi." + strings.Repeat(rand.Text(), 5)
		fmt.Fprintf(told, `"access_token":%q`, token)
		answer(w, http.StatusOK, map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": 3600})
	}))
	t.Cleanup(issuer.Close)
	s.revoke = func() {
		mu.Lock()
		defer mu.Unlock()
		token = ""
	}
	s.right = repeating(t, "XOAUTH2", func(shown string) bool {
		mu.Lock()
		defer mu.Unlock()
		return token != "" && strings.Contains(shown, "Bearer "+token+"\x01")
	})
	s.right.SMTP.Auth.Method = provider.AuthOAuth2
	s.right.SMTP.Auth.OAuth2 = provider.OAuth2{ClientID: "postroom", TokenURL: issuer.URL + "/token", Scopes: []string{"smtp.send"}}
	s.wrong = s.right
	s.right.SMTP.Auth.OAuth2.ClientSecret, s.wrong.SMTP.Auth.OAuth2.ClientSecret = provider.Secret(right), provider.Secret(wrong)
	return s, told
}

// newTenant starts one whose answers of the token endpoint are kept.
func newTenant(t testing.TB, app graphtest.App) (*graphtest.Tenant, *log) {
	told := &log{}
	http1 := &http.Protocols{}
	http1.SetHTTP1(true)
	return graphtest.Run(t, graphtest.Options{Apps: []graphtest.App{app}, Limits: &graphtest.Limits{}, Protocols: http1,
		Mailboxes: []graphtest.Mailbox{{Address: ownSender}}, Listen: func(host string) (net.Listener, error) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err == nil && host == "login" {
				l = overheard{l, told}
			}
			return l, err
		}}), told
}

// failing has the tenant refuse a message for good.
func failing(tenant *graphtest.Tenant) func() {
	return func() {
		tenant.Provoke(graphtest.Mishap{On: []graphtest.Operation{graphtest.SendMail}, At: graphtest.Received,
			Answer: &graphtest.Answer{Status: http.StatusBadRequest, Code: "ErrorInvalidRecipients"}})
	}
}

// bySecret is Microsoft 365, by a client secret, which the tenant repeats if it is wrong.
func bySecret(t testing.TB) (login, *log) {
	right, wrong := newSecret(), newSecret()
	app := graphtest.DefaultApp()
	app.Secrets = []graphtest.ClientSecret{{Value: right}}
	tenant, told := newTenant(t, app)
	body, _ := json.Marshal(map[string]any{"error": "invalid_client", "error_codes": []int{7000215},
		"error_description": "AADSTS7000215: Invalid client secret provided: " + wrong + " " + url.QueryEscape(wrong)})
	tenant.Provoke(graphtest.Mishap{On: []graphtest.Operation{graphtest.GetToken}, Times: 1, Answer: &graphtest.Answer{Status: http.StatusUnauthorized, Body: string(body)}})
	s := login{name: "a client secret", right: tenant.Settings(mail.Address{Address: ownSender}), revoke: tenant.RevokeTokens,
		fail: failing(tenant), secrets: map[string]string{"client secret": right, "wrong client secret": wrong}}
	s.wrong = s.right
	s.wrong.Microsoft365.ClientSecret = provider.Secret(wrong)
	return s, told
}

// byCertificate is Microsoft 365, by a certificate's key.
func byCertificate(t testing.TB) (login, *log) {
	s := login{name: "a certificate", secrets: map[string]string{}}
	var made []*graphtest.AppCertificate
	for _, name := range []string{"private key", "wrong private key"} {
		c, err := graphtest.NewAppCertificate(time.Now().AddDate(1, 0, 0))
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, c)
		s.secrets[name+", as PEM"] = c.KeyPEM
		block, _ := pem.Decode([]byte(c.KeyPEM))
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		private := key.(*rsa.PrivateKey) // the modulus is in the certificate, too
		s.secrets[name+", its exponent"], s.secrets[name+", its first prime"] = string(private.D.Bytes()), string(private.Primes[0].Bytes())
	}
	app := graphtest.DefaultApp()
	app.Secrets, app.Certificates = nil, []*x509.Certificate{made[0].Certificate}
	tenant, told := newTenant(t, app)
	s.revoke, s.fail = tenant.RevokeTokens, failing(tenant)
	s.right = tenant.Settings(mail.Address{Address: ownSender})
	s.right.Microsoft365.CertificatePEM, s.right.Microsoft365.PrivateKeyPEM = made[0].CertificatePEM, provider.Secret(made[0].KeyPEM)
	s.wrong = s.right
	s.wrong.Microsoft365.CertificatePEM, s.wrong.Microsoft365.PrivateKeyPEM = made[1].CertificatePEM, provider.Secret(made[1].KeyPEM)
	return s, told
}
