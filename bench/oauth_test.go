package bench

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/smtp/smtptest"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/queue/queuetest"
)

// clientSecret has what is written differently in a header, and in a form.
const clientSecret = "correct horse+battery%2F=staple:~"

// estate is a submission server that wants access tokens, and a Postroom that sends through it.
type estate struct {
	*installation
	authority *authority
	dovecot   *dovecot
	postfix   *postfix
	inbox     *smtptest.Inbox // behind the Postfix
	came      *ledger
	worker    *postroom
}

// estateOptions are what the tests differ in.
type estateOptions struct {
	mechanisms  string        // offered, as in Dovecot's auth_mechanisms
	life        time.Duration // of a token
	secret      string        // that the authority wants at first
	concurrency int
	postfix     []string // more settings
}

func newEstate(t *testing.T, o estateOptions) *estate {
	t.Helper()
	e := &estate{came: &ledger{}}
	e.inbox = inbox(t, smtptest.InboxOptions{OnData: func(m *smtptest.Message) error {
		e.came.enter(idOf(m))
		return nil
	}})
	e.postfix = startPostfix(t, e.inbox.Addr()) // first: where it can't start, the test is skipped
	e.authority = startAuthority(t, o.secret, o.life)
	e.dovecot = startDovecot(t, e.authority.URL+"/introspect", o.mechanisms)
	e.postfix.loginsBy(t, e.dovecot, o.postfix...)

	host, port, _ := net.SplitHostPort(e.postfix.address)
	portNumber, _ := strconv.Atoi(port)
	e.installation = &installation{t: t, redis: queuetest.StartTCP(t), namespace: "postroom", more: map[string]any{"log": map[string]any{"level": "debug"}}}
	e.provider = map[string]any{
		"kind":   provider.KindSMTP,
		"sender": map[string]any{"address": "reports@example.com"},
		"smtp": map[string]any{"host": host, "port": portNumber, "security": provider.SecurityStartTLS, "ca_pem": e.postfix.caPEM,
			"auth": map[string]any{"method": provider.AuthOAuth2, "username": e.authority.username, "oauth2": map[string]any{
				"client_id": e.authority.clientID, "client_secret": clientSecret, "token_url": e.authority.URL + "/token",
				"scopes": []string{e.authority.scope}}}},
		"limits": map[string]any{"concurrency": o.concurrency},
	}
	e.installation.open("--roles", "api")
	e.worker = e.serve()
	return e
}

// arrives waits for a batch, and checks that each of its messages came once, in one attempt that counted.
func (e *estate) arrives(batch string, ids []string) {
	e.t.Helper()
	e.awaitDelivered(batch, len(ids), patience())
	await(e.t, patience(), "Postfix to relay everything", func() bool { return e.came.entered() >= len(ids) })
	e.came.once(e.t, ids)
	e.countedOnce(ids)
}

// keepsSecrets checks that logs and answers show neither the secret nor a token, whole or in part, as it is or as it is sent.
func (e *estate) keepsSecrets(batch string, ids []string) {
	t := e.t
	t.Helper()
	texts := map[string]string{"the log of the API": e.front.stderr.String(), "the log of the worker": e.worker.stderr.String()}
	if !strings.Contains(texts["the log of the worker"], "DEBUG") {
		t.Error("the worker does not log what is for debugging: this proves nothing")
	}
	paths := []string{"/v1/batches/" + batch, "/v1/mailboxes", "/v1/failed", "/metrics"}
	for _, id := range ids {
		paths = append(paths, "/v1/messages/"+id)
	}
	for _, path := range paths {
		texts[path] = e.read(path)
	}
	tokens, _ := e.authority.books()
	encode := base64.StdEncoding.EncodeToString
	secrets := []string{clientSecret, clientSecret[:8], url.QueryEscape(clientSecret),
		encode([]byte(url.QueryEscape(e.authority.clientID) + ":" + url.QueryEscape(clientSecret)))[:16],
		encode([]byte("user=" + e.authority.username))[:16], encode([]byte("n,a=" + e.authority.username))[:16], "eyJ0eXAi"}
	for _, k := range tokens {
		secrets = append(secrets, k.text[len(k.text)-12:])
	}
	for where, text := range texts {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s has a secret, or a part of one", where)
			}
		}
	}
}

// read gives an answer of the API as it comes.
func (e *estate) read(path string) string {
	e.t.Helper()
	r, err := http.NewRequestWithContext(e.t.Context(), http.MethodGet, e.front.url+path, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		e.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		e.t.Fatalf("%s: %d, %v", path, response.StatusCode, err)
	}
	return string(body)
}

// logins sums up what was tried with all tokens; used are those that a login succeeded with.
func (e *estate) logins() (used, accepted, refused int) {
	tokens, _ := e.authority.books()
	for _, k := range tokens {
		accepted += k.accepted
		refused += k.refused
		if k.accepted > 0 {
			used++
		}
	}
	return used, accepted, refused
}

// loggedInBy counts the mails that Postfix took after a login by a mechanism.
func (e *estate) loggedInBy(t *testing.T, mechanism string) int {
	return e.postfix.tookFrom(t, mechanism, e.authority.username)
}

func TestOAuthReplacesRevokedTokens(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ mechanism, offered, silence string }{
		{"XOAUTH2", "xoauth2 oauthbearer", ""},
		{"OAUTHBEARER", "oauthbearer", "AQ=="},
	} {
		t.Run(test.mechanism, func(t *testing.T) {
			t.Parallel()
			n := size(1000, 120)
			e := newEstate(t, estateOptions{mechanisms: test.offered, life: time.Hour, secret: clientSecret, concurrency: 1,
				postfix: []string{"debug_peer_list=127.0.0.1", "debug_peer_level=1"}}) // the log has the dialogs
			// A connection is used for 100 messages: the token is of no use for the next one.
			batch, ids := e.accept(newsletter(n))
			for revoked := 1; revoked < n; revoked += 200 {
				await(t, patience(), "mail to come by a good token", func() bool { return e.came.entered() >= revoked })
				e.authority.revoke()
			}
			e.arrives(batch, ids)
			e.keepsSecrets(batch, ids)

			used, accepted, refused := e.logins()
			if used < 2 || refused == 0 {
				t.Errorf("%d tokens were used, and %d logins refused: this proves nothing", used, refused)
			}
			if by := e.loggedInBy(t, test.mechanism); by != n {
				t.Errorf("Postfix took %d mails after a login by %s, want %d", by, test.mechanism, n)
			}
			// The reasons come first, in JSON; we say nothing to that, and then comes the refusal.
			refusals := regexp.MustCompile(`S: 334 (\S+)\nC: `+test.silence+`\nS: 535 5\.7\.8 `).FindAllStringSubmatch(e.postfix.dialogs(t), -1)
			if len(refusals) != refused {
				t.Errorf("%d refusals went as they should, want %d", len(refusals), refused)
			}
			for _, r := range refusals {
				if reasons, err := base64.StdEncoding.DecodeString(r[1]); err != nil || !json.Valid(reasons) {
					t.Errorf("the reasons are %s: %v", reasons, err)
				}
			}
			t.Logf("%d mails by %s: %d tokens, %d logins, %d more refused", n, test.mechanism, used, accepted, refused)
		})
	}
}

func TestOAuthWaitsForTheRightSecret(t *testing.T) {
	t.Parallel()
	n := size(300, 20)
	e := newEstate(t, estateOptions{mechanisms: "xoauth2 oauthbearer", life: time.Hour, secret: "another one", concurrency: 3})
	batch, ids := e.accept(newsletter(n))
	await(t, patience(), "the account to be held", func() bool { return e.account().Hold != nil })
	met := 0
	for _, id := range ids {
		m := e.message(id)
		if m.State != queue.Queued && m.State != queue.Sending || m.Counted != 0 {
			t.Errorf("message %s is %s after %d counted attempts", id, m.State, m.Counted)
		}
		for _, a := range m.Attempts {
			met++
			if o := a.Outcomes[0]; o.Class != mail.Configuration.String() || o.Cause != string(mail.ClientRefused) || o.Step != "token" || o.Code != http.StatusUnauthorized {
				t.Errorf("an attempt came to %+v", o)
			}
		}
	}
	if met == 0 {
		t.Error("no attempt is known")
	}
	e.keepsSecrets(batch, ids)
	_, refused := e.authority.books()
	if _, accepted, others := e.logins(); accepted+others > 0 || e.came.entered() > 0 {
		t.Errorf("%d logins without a token", accepted+others)
	}

	e.authority.wants(clientSecret)
	right := time.Now()
	e.arrives(batch, ids)
	e.keepsSecrets(batch, ids)
	t.Logf("%d attempts and %d requests met a wrong secret; %d mails were delivered %v after it was right", met, refused, n, time.Since(right).Round(100*time.Millisecond))
}

func TestOAuthOutlivesItsTokens(t *testing.T) {
	t.Parallel()
	n, life, concurrency := size(300, 60), time.Duration(size(5, 2))*time.Second, 10
	e := newEstate(t, estateOptions{mechanisms: "xoauth2 oauthbearer", life: life, secret: clientSecret, concurrency: concurrency,
		postfix: []string{"smtpd_data_restrictions=sleep 1"}}) // so that there is a middle
	batch, ids := e.accept(newsletter(n))
	e.arrives(batch, ids)
	e.keepsSecrets(batch, ids)

	used, accepted, refused := e.logins()
	if used < 3 || accepted < used+concurrency {
		t.Errorf("%d tokens were used for %d logins: this proves nothing", used, accepted)
	}
	if by := e.loggedInBy(t, "XOAUTH2"); by != n {
		t.Errorf("Postfix took %d mails after a login, want %d", by, n)
	}
	t.Logf("%d mails with tokens of %v: %d tokens, %d logins, %d more refused", n, life, used, accepted, refused)
}
