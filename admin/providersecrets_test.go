package admin

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

func TestNoSecretIsEverShown(t *testing.T) {
	o := openOffice(t, keyOf("a"))
	secrets := map[string]string{"password": `open/"Sésame+1 & more?`, "client": "client~4711/+0815?&x=1", "graph": "graph~4712/+0816?&x=2", "key": "-----BEGIN PRIVATE KEY-----\nTm90IGEga2V5LCBidXQgc2VjcmV0\n-----END PRIVATE KEY-----\n"}
	quoted := func(name string) string {
		b, err := json.Marshal(secrets[name])
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	settings := func(kind, auth, graph string) string {
		return `{"kind": "` + kind + `", "sender": {"address": "reports@example.com"}, "smtp": {"host": "mail.example.com", "auth": ` + auth + `}, "microsoft365": ` + graph + `}`
	}
	const ids = `"tenant_id": "11111111-2222-3333-4444-555555555555", "client_id": "66666666-7777-8888-9999-000000000000"`
	oauth := `"oauth2": {"provider": "microsoft", ` + ids + `, "client_secret": ` + quoted("client") + `}`
	graph := `{` + ids + `, "client_secret": ` + quoted("graph") + `}`
	bodies := []string{
		settings("smtp", `{"username": "u", "password": `+quoted("password")+`}`, graph),
		settings("smtp", `{"method": "oauth2", `+oauth+`}`, `{"private_key_pem": `+quoted("key")+`}`),
		settings("microsoft365", `{"password": `+quoted("password")+`, `+oauth+`}`, graph),
		// What is refused has them all.
		settings("smtp", `{"username": "u", "password": `+quoted("password")+`, `+oauth+`}`, graph),
		settings("microsoft365", `{}`, `{`+ids+`, "client_secret": `+quoted("graph")+`, "private_key_pem": `+quoted("key")+`}`),
		settings("smtp", `{"password": `+quoted("password")+`, "oauth2": {"clientSecret": `+quoted("client")+`}}`, `{"client_secret": [`+quoted("graph")+`]}`),
		settings("smtp", `{"password": `+quoted("password")+`}`, graph)[:200],
	}
	var answers strings.Builder
	saved := 0
	for _, body := range bodies {
		for i, check := range []func(*provider.Settings) []provider.Step{works, refuses(wrongPassword), refuses(mail.Outcome{Class: mail.Configuration, Cause: mail.TargetForbidden})} {
			o.redis.FastForward(time.Minute) // rations
			o.meets(check)
			r := o.call(t, "PUT", "/v1/provider", adminToken, body)
			if r.status == 200 {
				saved++
			}
			tried := o.call(t, "POST", "/v1/provider/verify", adminToken, `{"settings": `+body+`}`)
			_, _ = answers.Write(slices.Concat(r.body, tried.body, o.call(t, "GET", "/v1/provider", operatorToken, "").body, o.call(t, "GET", "/v1/audit", operatorToken, "").body,
				o.call(t, "POST", "/v1/provider/verify", adminToken, `{}`).body))
			fmt.Fprint(&answers, i)
		}
	}
	if saved != 6 {
		t.Errorf("%d were saved, want 6 of three that are right", saved)
	}
	o.redis.Close()
	_, _ = answers.Write(o.call(t, "PUT", "/v1/provider", adminToken, bodies[0]).body)
	o2 := openOffice(t) // without a key
	_, _ = answers.Write(o2.call(t, "PUT", "/v1/provider", adminToken, bodies[0]).body)
	_ = o.redis.Restart()
	for place, text := range map[string]string{"an answer": answers.String(), "the log": o.log.String() + o2.log.String(), "Redis": everything(t, o.api) + everything(t, o2.api)} {
		if len(text) < 200 {
			t.Errorf("%s is too short to prove anything: %s", place, text)
		}
		for name, secret := range secrets {
			for form, shown := range map[string]string{"clear": secret, "JSON": strings.Trim(quoted(name), `"`), "base64": base64.StdEncoding.EncodeToString([]byte(secret)), "URL": url.QueryEscape(secret),
				"path": url.PathEscape(secret), "base64url": base64.RawURLEncoding.EncodeToString([]byte(secret)), "the middle": secret[6 : len(secret)-6], "%q": strings.Trim(fmt.Sprintf("%q", secret), `"`)} {
				if strings.Contains(text, shown) {
					t.Errorf("%s has %s (%s)", place, name, form)
				}
			}
		}
	}
}

func TestOnlyAdministratorsChangeOrTryTheProvider(t *testing.T) {
	o := openOffice(t, keyOf("a"))
	for _, path := range []string{"GET /v1/provider", "GET /v1/audit", "PUT /v1/provider", "DELETE /v1/provider", "POST /v1/provider/verify", "POST /v1/provider/test", "POST /v1/provider/reseal"} {
		method, where, _ := strings.Cut(path, " ")
		body := map[string]string{"PUT": byRelay, "POST": `{}`}[method]
		if p := o.call(t, method, where, producerToken, body).problem(t); p.Type != forbidden.uri() {
			t.Errorf("%s by a producer: %+v", path, p)
		}
		r := o.call(t, method, where, operatorToken, body)
		if method == "GET" {
			if r.status != 200 {
				t.Errorf("%s by an operator: %d %s", path, r.status, r.body)
			}
		} else if p := r.problem(t); p.Type != forbidden.uri() || !strings.Contains(p.Detail, "admin") {
			t.Errorf("%s by an operator: %+v", path, p)
		}
	}
	if o.show(t).Version != "" || o.triedTimes() != 0 || len(o.latest(t, 1)) != 0 {
		t.Error("something was done")
	}
}
