package mail

import (
	"strings"
	"testing"
)

func TestSendersAllow(t *testing.T) {
	list := func(entries ...string) Senders {
		for i, entry := range entries {
			canonical, err := ParseSender(entry)
			if err != nil {
				t.Fatalf("%q: %v", entry, err)
			}
			entries[i] = canonical
		}
		return entries
	}
	for name, v := range map[string]struct {
		senders Senders
		address string
		want    bool
	}{
		"no list":                              {nil, "anyone@example.com", true},
		"an empty list":                        {Senders{}, "anyone@example.com", true},
		"an address":                           {list("a@example.com", "reports@example.com"), "reports@example.com", true},
		"another address":                      {list("a@example.com"), "b@example.com", false},
		"in other case":                        {list("Reports@Example.com"), "rEPORTS@eXAMPLE.COM", true},
		"with a name":                          {list("reports@example.com"), "Reports <reports@example.com>", true},
		"an address with more before it":       {list("reports@example.com"), "my-reports@example.com", false},
		"a domain":                             {list("@Example.com"), "anyone@example.COM", true},
		"another domain":                       {list("@example.com"), "anyone@example.org", false},
		"a domain below":                       {list("@example.com"), "anyone@mail.example.com", false},
		"a domain that ends like it":           {list("@example.com"), "anyone@badexample.com", false},
		"a domain in a quoted local part":      {list("@example.com"), `"x@example.com"@example.org`, false},
		"an international domain":              {list("@bücher.example"), "a@xn--bcher-kva.example", true},
		"an international domain as A-labels":  {list("@XN--bcher-kva.example"), "a@BÜCHER.example", true},
		"an address there":                     {list("a@bücher.example"), "a@xn--bcher-kva.example", true},
		"a quoted local part without need":     {list(`"a"@example.com`), "a@example.com", true},
		"an international local part":          {list("jürgen@example.com"), "JÜRGEN@example.com", true},
		"a letter that Unicode takes for a k":  {list("desk@example.com"), "des\u212a@example.com", false},
		"a letter that Unicode takes for an s": {list("desk@example.com"), "de\u017fk@example.com", false},
		"no address":                           {list("@example.com"), "@example.com", false},
		"nothing":                              {list("@example.com"), "", false},
	} {
		if got := v.senders.Allow(v.address); got != v.want {
			t.Errorf("%s: %v.Allow(%q) = %v", name, v.senders, v.address, got)
		}
	}
}

func TestParseSender(t *testing.T) {
	for entry, want := range map[string]string{
		"reports@example.com":            "reports@example.com",
		"Reports@EXAMPLE.com":            "Reports@example.com",
		" reports@example.com ":          "reports@example.com",
		"@EXAMPLE.com":                   "@example.com",
		"@bücher.example":                "@xn--bcher-kva.example",
		"":                               "",
		"@":                              "",
		"@@example.com":                  "",
		"@*.example.com":                 "",
		"*@example.com.":                 "",
		"@example.com.":                  "",
		"@[192.0.2.1]":                   "",
		"@exa mple.com":                  "",
		"@example.com, @example.org":     "",
		"example.com":                    "",
		"Reports <reports@example.com>":  "",
		"a@example.com, b@example.com":   "",
		"a@example.com\r\nBcc: b@c.d":    "",
		"@example.com\r\n":               "",
		"@" + strings.Repeat("a", 64):    "",
		"x@" + strings.Repeat("a.", 126): "",
		"@" + strings.Repeat("abc.", 70): "",
		"@" + strings.Repeat("a.", 150) + "example": "",
		"@" + strings.Repeat("a.", 125) + "bc":      "@" + strings.Repeat("a.", 125) + "bc", // as long as with one letter before it
		"@" + strings.Repeat("a.", 126) + "b":       "",
	} {
		got, err := ParseSender(entry)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("ParseSender(%q) = %q, %v, want %q", entry, got, err, want)
		}
	}
}

func FuzzSenders(f *testing.F) {
	f.Add("@example.com", "a@example.com")
	f.Add("a@bücher.example", "A@xn--bcher-kva.example")
	f.Add("@", "\x00")
	f.Add("@\xb9", "@\xb9")
	f.Add(`"@x"@example.com`, `"@x"@example.com`)
	f.Fuzz(func(t *testing.T, entry, address string) {
		canonical, err := ParseSender(entry)
		if err != nil {
			if strings.Contains(err.Error(), entry) && len(entry) > 20 {
				t.Errorf("the error repeats the entry: %v", err)
			}
			return
		}
		if again, err := ParseSender(canonical); again != canonical || err != nil {
			t.Errorf("%q becomes %q, and that %q: %v", entry, canonical, again, err)
		}
		list := Senders{canonical}
		if own := canonical; own[0] != '@' && !list.Allow(own) || own[0] == '@' && !list.Allow("a"+own) {
			t.Errorf("%q does not allow itself", canonical)
		}
		if _, err := ParseAddress(address); err != nil && list.Allow(address) {
			t.Errorf("%q allows %q, which is no address", canonical, address)
		}
	})
}
