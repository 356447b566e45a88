package admin

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postroom/postroom/mail"
)

func TestATokenIsForItsSendersAndKinds(t *testing.T) {
	const bound = "bound-producer"
	a := serve(t, func(o *Options) {
		o.Tokens = append(o.Tokens, Token{Name: "bound", Role: "producer", SHA256: hashOf(bound),
			Senders: mail.Senders{"reports@example.com", "@news.example.com"}, Kinds: []mail.Kind{mail.Report, mail.Subscription}})
	})
	a.activate(t, "") // its own sender is another
	message := func(kind, from string) string {
		return fmt.Sprintf(`{"kind": %q, "from": {"address": %q}, "to": [{"address": "ada@example.net"}], "subject": "s", "text": "t"}`, kind, from)
	}
	for name, test := range map[string]struct{ kind, from, at string }{
		"right":           {"report", "reports@example.com", ""},
		"in other case":   {"report", "Reports@Example.com", ""},
		"of its domain":   {"subscription", "weekly@news.example.com", ""},
		"another sender":  {"report", "boss@example.com", "/from/address"},
		"the own one":     {"report", "", "/from/address"},
		"another kind":    {"alert", "reports@example.com", "/kind"},
		"neither":         {"alert", "boss@example.com", "/kind,/from/address"},
		"not an address":  {"report", "boss at home", "/from/address"},
		"a domain inside": {"report", "x@evil.news.example.com", "/from/address"},
	} {
		t.Run(name, func(t *testing.T) {
			one := message(test.kind, test.from)
			shared := strings.Replace(one, `"to": [{"address": "ada@example.net"}], `, "", 1)
			for at, r := range map[string]reply{
				"":         a.call(t, "POST", "/v1/messages", bound, one),
				"/message": a.call(t, "POST", "/v1/batches", bound, `{"message": `+shared+`, "recipients": [{"to": [{"address": "ada@example.net"}]}]}`),
				"/message ": a.call(t, "POST", "/v1/batches", bound, shared+"\n"+`{"to": [{"address": "ada@example.net"}]}`,
					"Content-Type", "", "Content-Type", ndjson),
			} {
				if test.at == "" {
					if r.status != 202 {
						t.Errorf("%q: %d %s", at, r.status, r.body)
					}
					continue
				}
				p := r.problem(t)
				var found []string
				for _, f := range p.Errors {
					found = append(found, strings.TrimPrefix(f.Location, strings.TrimSpace(at)))
				}
				if p.Type != notForToken.uri() || strings.Join(found, ",") != test.at {
					t.Errorf("%q: %+v, want %s", at, p, test.at)
				}
			}
		})
	}
}

func TestATokenMakesNoMoreRequestsThanItMay(t *testing.T) {
	const slow = "slow-producer"
	a := serve(t, func(o *Options) {
		o.Tokens = append(o.Tokens, Token{Name: "slow", Role: "operator", SHA256: hashOf(slow), RequestsPerMinute: 3})
	})
	for range 3 {
		if r := a.call(t, "GET", "/v1/mailboxes", slow, ""); r.status != 200 {
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	r := a.call(t, "GET", "/v1/mailboxes", slow, "")
	if p := r.problem(t); p.Type != tooManyRequests.uri() || r.header.Get("Retry-After") == "" {
		t.Errorf("%+v, Retry-After %q", p, r.header.Get("Retry-After"))
	}
	if r := a.call(t, "GET", "/v1/mailboxes", operatorToken, ""); r.status != 200 {
		t.Errorf("another token: %d %s", r.status, r.body)
	}
}
