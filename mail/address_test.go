package mail_test

import (
	netmail "net/mail"
	"strings"
	"testing"

	"github.com/postroom/postroom/mail"
)

func TestParseAddressGivesCanonicalForm(t *testing.T) {
	local64 := strings.Repeat("a", 64)
	for in, want := range map[string]mail.Address{
		"ada@example.com":                      {Address: "ada@example.com"},
		"Ada.Lovelace@Example.COM":             {Address: "Ada.Lovelace@example.com"},
		"<ada@example.com>":                    {Address: "ada@example.com"},
		"Ada <ada@example.com>":                {Address: "ada@example.com", Name: "Ada"},
		`"Lovelace, Ada" <ada@example.com>`:    {Address: "ada@example.com", Name: "Lovelace, Ada"},
		"=?utf-8?q?Ad=C3=A4?= <a@example.com>": {Address: "a@example.com", Name: "Adä"},
		"ada@bücher.example":                   {Address: "ada@xn--bcher-kva.example"},
		"ada@BÜCHER.example":                   {Address: "ada@xn--bcher-kva.example"},
		"grüße@example.com":                    {Address: "grüße@example.com"},
		`"ada"@example.com`:                    {Address: "ada@example.com"},
		`"ada lovelace"@example.com`:           {Address: `"ada lovelace"@example.com`},
		`"a\"b@c"@example.com`:                 {Address: `"a\"b@c"@example.com`},
		"root@localhost":                       {Address: "root@localhost"},
		local64 + "@example.com":               {Address: local64 + "@example.com"},
	} {
		got, err := mail.ParseAddress(in)
		if err != nil || got != want {
			t.Errorf("ParseAddress(%q) = %+v, %v, want %+v", in, got, err, want)
		}
	}
}

func TestParseAddressRefuses(t *testing.T) {
	for _, in := range []string{
		"",
		"ada",
		"@example.com",
		"ada@",
		"ada@.",
		"ada@example..com",
		"ada@example.com, bob@example.com",
		"ada@example.com\r\nBcc: bob@example.com",
		"ada@exam_ple.com",
		"ada@-example.com",
		"ada@[192.0.2.1]",
		"ada@xn--a.example",
		"a\u00a0b@example.com",
		"a\u200bb@example.com",
		"a\u0085b@example.com",
		"a\xffb@example.com",
		"=?utf-8?q?A=0AB?= <ada@example.com>",
		strings.Repeat("a", 65) + "@example.com",
		"a@" + strings.Repeat("a", 64) + ".example",
		"a@" + strings.Repeat("abcdefg.", 32) + "example",
	} {
		got, err := mail.ParseAddress(in)
		if err == nil {
			t.Errorf("ParseAddress(%q) = %+v, want an error", in, got)
			continue
		}
		if in != "" && strings.Contains(err.Error(), "bob") {
			t.Errorf("the error quotes the address: %v", err)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{
		"ada@example.com", "Ada <ada@example.com>", `"a b"@example.com`, "grüße@bücher.example",
		"=?utf-8?b?QQo=?= <a@b>", "a@b (c)", "a@xn--bcher-kva.example", `"\""@x`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := mail.ParseAddress(s)
		if err != nil {
			return
		}
		again, err := mail.ParseAddress(a.Address)
		if err != nil || again.Address != a.Address || again.Name != "" {
			t.Errorf("%q became %q, which becomes %+v, %v", s, a.Address, again, err)
		}
		parsed, err := netmail.ParseAddress("<" + a.Address + ">")
		if err != nil {
			t.Fatalf("net/mail cannot read %q: %v", a.Address, err)
		}
		if len(a.Address) > 254 || a.Domain() != parsed.Address[strings.LastIndex(parsed.Address, "@")+1:] {
			t.Errorf("%q: domain %q, net/mail says %q", a.Address, a.Domain(), parsed.Address)
		}
		for _, r := range a.Address + a.Name {
			if r < ' ' || r == 0x7f {
				t.Errorf("%q has the control character %q", a, r)
			}
		}
		for _, r := range a.Domain() {
			if r >= 0x80 || r >= 'A' && r <= 'Z' {
				t.Errorf("the domain %q is not in canonical form", a.Domain())
			}
		}
	})
}
