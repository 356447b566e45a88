package mail

import "testing"

func TestNamesOfClassesAndScopesAreReadBack(t *testing.T) {
	for _, c := range Classes() {
		if got, err := ParseClass(c.String()); got != c || err != nil {
			t.Errorf("%s: %s, %v", c, got, err)
		}
	}
	for _, s := range []Scope{ScopeMessage, ScopeRecipient, ScopeMailbox, ScopeProvider} {
		if got, err := ParseScope(s.String()); got != s || err != nil {
			t.Errorf("%s: %s, %v", s, got, err)
		}
	}
	for _, name := range []string{"", "Mailbox", "galaxy"} {
		if got, err := ParseScope(name); got != ScopeMessage || err == nil {
			t.Errorf("%q: %s, %v", name, got, err)
		}
		if got, err := ParseClass(name); got != Temporary || err == nil {
			t.Errorf("%q: %s, %v", name, got, err)
		}
	}
}
