package graph

import (
	"strings"
	"testing"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

func TestNoRequestGoesWhereItIsForbidden(t *testing.T) {
	guard, problems := provider.NewGuard([]string{"127.0.0.0/8", "::1"})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, host := range []string{"127.0.0.1", "localhost"} {
		r := newRig(t, nil, func(int, call) reply { return reply{status: 202} })
		r.http = newClient(1, guard)
		r.base = strings.Replace(r.base, "127.0.0.1", host, 1)
		out := r.deliver(letter("ada@example.org"))
		if o := out[0]; o.Class != mail.Configuration || o.Scope != mail.ScopeProvider || o.Cause != mail.TargetForbidden || o.Step != stepSend {
			t.Errorf("%s: %+v", host, o)
		}
		if len(r.calls) > 0 {
			t.Errorf("%s: a request was made: %s", host, r.calls[0].what)
		}
	}
}

func TestAClientOfTheGuardKeepsItsConnections(t *testing.T) {
	guard, _ := provider.NewGuard(provider.DefaultForbidden())
	r := newRig(t, nil, func(int, call) reply { return reply{status: 202} })
	r.http = newClient(1, guard)
	if out := r.deliver(letter("ada@example.org")); out[0].Class != mail.Delivered {
		t.Errorf("%+v", out[0])
	}
	if _, ends := r.http.Transport.(interface{ CloseIdleConnections() }); !ends {
		t.Error("Close would leave connections behind")
	}
	r.http.CloseIdleConnections()
}
