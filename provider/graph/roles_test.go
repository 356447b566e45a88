package graph

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

func unsigned(payload string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
}

func TestRolesOfTokens(t *testing.T) {
	for token, want := range map[string]string{
		unsigned(`{"roles":["Mail.Send","Mail.ReadWrite"],"aud":"x"}`): "[Mail.Send Mail.ReadWrite] true",
		unsigned(`{"aud":"x"}`):           "[] true",
		unsigned(`{"roles":"Mail.Send"}`): "[] false",
		unsigned(`["Mail.Send"]`):         "[] false",
		unsigned(`{`):                     "[] false",
		"EwBoA8l6BAAU_opaque":             "[] false",
		"e30.!.c2ln":                      "[] false",
		strings.TrimSuffix(unsigned(`{"roles":["x"]}`), ".c2ln"): "[] false",
		unsigned(`{"roles":["x"]}`) + ".more":                    "[] false",
		"":                                                       "[] false",
	} {
		roles, readable := rolesOf(token)
		if got := fmt.Sprint(roles, readable); got != want {
			t.Errorf("%s: %s, want %s", token, got, want)
		}
	}
}

func FuzzRolesOf(f *testing.F) {
	for _, s := range []string{unsigned(`{"roles":["Mail.Send"]}`), unsigned(`{"roles":[null]}`), "..", "a.b.c", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if roles, readable := rolesOf(token); !readable && roles != nil {
			t.Errorf("%q", roles)
		}
	})
}
