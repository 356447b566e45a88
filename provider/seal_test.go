package provider

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/postroom/postroom/mail"
)

// testKey is one that is all of one byte.
func testKey(b byte) Secret {
	return Secret(base64.StdEncoding.EncodeToString(slices.Repeat([]byte{b}, keyBytes)))
}

func keyring(t *testing.T, keys ...Secret) *Keyring {
	t.Helper()
	k, err := NewKeyring(keys)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// filler gives every field a value of its own, and counts what it filled.
type filler struct {
	t       *testing.T
	n       int
	secrets map[string]string // by their fields' names in Go
}

func (f *filler) fill(path string, v reflect.Value) {
	f.n++
	if v.Type() == reflect.TypeFor[Secret]() {
		f.secrets[path] = fmt.Sprintf("secret-%d\xff", f.n)
		v.SetString(f.secrets[path])
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for field, value := range v.Fields() {
			if !field.IsExported() {
				f.t.Fatalf("%s.%s is not exported: JSON would lose it", path, field.Name)
			}
			f.fill(path+"."+field.Name, value)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		f.fill(path+"[0]", v.Index(0))
		f.fill(path+"[1]", v.Index(1))
	case reflect.String:
		v.SetString(fmt.Sprintf("text %d, ü \"\n<>", f.n))
	case reflect.Int, reflect.Int64:
		v.SetInt(1<<53 + int64(f.n))
	case reflect.Bool:
		v.SetBool(true)
	default:
		f.t.Fatalf("%s is a %s: make this test, and the walk through the secrets, know it", path, v.Type())
	}
}

// filled gives settings with every field set, and the secrets among them.
func filled(t *testing.T) (*Settings, map[string]string) {
	t.Helper()
	f := filler{t: t, secrets: make(map[string]string)}
	var s Settings
	f.fill("", reflect.ValueOf(&s).Elem())
	return &s, f.secrets
}

func TestEverySecretIsFound(t *testing.T) {
	s, want := filled(t)
	if len(want) < 4 {
		t.Fatalf("only %d secrets were filled", len(want))
	}
	found := make(map[string]bool)
	for at, secret := range secrets(s) {
		found[secret.Reveal()] = true
		if !strings.HasPrefix(at, "/smtp/auth/") && !strings.HasPrefix(at, "/microsoft365/") {
			t.Errorf("a secret at %s: tell Used which kind it belongs to", at)
		}
	}
	for path, text := range want {
		if !found[text] {
			t.Errorf("%s was not found", path)
		}
	}
	if len(found) != len(want) {
		t.Errorf("found %d secrets of %d", len(found), len(want))
	}
	for at := range secrets(s) {
		if at != "/smtp/auth/password" {
			t.Errorf("the first is %s", at)
		}
		break
	}
}

func TestSealKeepsEveryField(t *testing.T) {
	want, hidden := filled(t)
	k := keyring(t, testKey(1))
	sealed, err := k.Seal(want, "here")
	if err != nil {
		t.Fatal(err)
	}
	before, _ := filled(t)
	if !reflect.DeepEqual(want, before) {
		t.Fatal("Seal changed what it was given")
	}
	got, err := k.Open(sealed, "here")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %#v\nwant %#v", got, want)
	}
	for path, text := range hidden {
		if strings.Contains(sealed, text) {
			t.Errorf("%s can be read", path)
		}
	}
	if strings.ContainsFunc(sealed, func(r rune) bool { return r <= ' ' || r > '~' }) {
		t.Errorf("not one line of printable text: %q", sealed)
	}
	if again, err := k.Seal(want, "here"); err != nil || again == sealed {
		t.Errorf("sealed twice it is the same: %v", err)
	}
}

func TestSettingsWithoutSecretsNeedNoKey(t *testing.T) {
	want := &Settings{Kind: KindSMTP, Sender: mail.Address{Address: "reports@example.com"}, SMTP: SMTPSettings{Host: "mail.example.com"}}
	sealed, err := keyring(t).Seal(want, "here")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(sealed, "mail.example.com") {
		t.Errorf("it can't be read: %s", sealed)
	}
	for name, k := range map[string]*Keyring{"none": keyring(t), "one": keyring(t, testKey(1))} {
		got, err := k.Open(sealed, "elsewhere")
		if err != nil || !reflect.DeepEqual(got, want) || !k.Current(sealed) {
			t.Errorf("keys: %s: %v, %v, current %v", name, got, err, k.Current(sealed))
		}
	}
}

func TestASecretIsNotKeptWithoutAKey(t *testing.T) {
	for at := range secrets(new(Settings)) {
		s := &Settings{Kind: KindSMTP}
		for other, secret := range secrets(s) {
			if other == at {
				*secret = "hunter2"
			}
		}
		sealed, err := keyring(t).Seal(s, "here")
		if !errors.Is(err, ErrNoKey) || sealed != "" || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %q, %v", at, sealed, err)
		}
	}
}

func TestOldKeysOpenAndTheFirstSeals(t *testing.T) {
	s := &Settings{Kind: KindSMTP, SMTP: SMTPSettings{Auth: SMTPAuth{Password: "hunter2"}}}
	old := keyring(t, testKey(1))
	sealed, err := old.Seal(s, "here")
	if err != nil {
		t.Fatal(err)
	}
	if !old.Current(sealed) || keyring(t).Current(sealed) {
		t.Error("it is current for the key that sealed it, and for no other")
	}
	both := keyring(t, testKey(2), testKey(1))
	opened, err := both.Open(sealed, "here")
	if err != nil || both.Current(sealed) {
		t.Fatalf("with a new key in front: %v, current %v", err, both.Current(sealed))
	}
	resealed, err := both.Seal(opened, "here")
	if err != nil || !both.Current(resealed) {
		t.Fatalf("sealed again: %v, current %v", err, both.Current(resealed))
	}
	if got, err := keyring(t, testKey(2)).Open(resealed, "here"); err != nil || got.SMTP.Auth.Password != "hunter2" {
		t.Errorf("without the old key: %v", err)
	}
	for name, k := range map[string]*Keyring{"the new key alone": keyring(t, testKey(2)), "no key": keyring(t)} {
		_, err = k.Open(sealed, "here")
		unknown, ok := errors.AsType[*UnknownKeyError](err)
		if !ok || unknown.ID != old.ID() || !strings.Contains(err.Error(), old.ID()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if old.ID() == both.ID() || len(old.ID()) != 8 || keyring(t).ID() != "" {
		t.Errorf("ids %q, %q, %q", old.ID(), both.ID(), keyring(t).ID())
	}
}

func TestSealedSettingsThatAreNotWhatTheyWere(t *testing.T) {
	k := keyring(t, testKey(1))
	sealed, err := k.Seal(&Settings{Kind: KindSMTP, SMTP: SMTPSettings{Auth: SMTPAuth{Password: "hunter2"}}}, "here")
	if err != nil {
		t.Fatal(err)
	}
	head := "v1:" + k.ID() + ":"
	// by makes what a program would that has the key, and another idea of what to write.
	by := func(text string) string {
		return head + base64.StdEncoding.EncodeToString(k.keys[k.ID()].Seal(nil, nil, []byte(text), authenticated("here")))
	}
	turned := func(i int) string {
		raw, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(sealed, head))
		raw[(i+len(raw))%len(raw)] ^= 1
		return head + base64.StdEncoding.EncodeToString(raw)
	}
	for name, v := range map[string]struct {
		sealed, bind string
		want         error
	}{
		"as it was":                 {sealed, "here", nil},
		"another bind":              {sealed, "there", ErrDamaged},
		"no bind":                   {sealed, "", ErrDamaged},
		"nothing":                   {"", "here", ErrDamaged},
		"a bit of the nonce":        {turned(0), "here", ErrDamaged},
		"a bit of the text":         {turned(14), "here", ErrDamaged},
		"a bit of the tag":          {turned(-1), "here", ErrDamaged},
		"cut":                       {sealed[:len(sealed)-4], "here", ErrDamaged},
		"cut to nothing":            {head, "here", ErrDamaged},
		"no base64":                 {head + "!", "here", ErrDamaged},
		"no key id":                 {"v1:" + strings.TrimPrefix(sealed, head), "here", ErrDamaged},
		"a key id that is none":     {"v1:hunter22:AAAA", "here", ErrDamaged},
		"no version":                {strings.TrimPrefix(sealed, "v1:"), "here", ErrDamaged},
		"version 0":                 {"v0" + sealed[2:], "here", ErrDamaged},
		"version 2":                 {"v2" + sealed[2:], "here", ErrNewerFormat},
		"version 10":                {"v10:whatever", "here", ErrNewerFormat},
		"sealed, but no JSON":       {by("hunter2"), "here", ErrDamaged},
		"an unknown field":          {by(`{"settings": {"kind": "smtp", "pigeon": "hunter2"}}`), "here", ErrNewerFormat},
		"a field of another type":   {by(`{"settings": {"kind": "smtp", "smtp": {"port": "hunter2"}}}`), "here", ErrNewerFormat},
		"an unknown secret":         {by(`{"settings": {"kind": "smtp"}, "secrets": {"/hunter2": "eA=="}}`), "here", ErrNewerFormat},
		"a secret in its old place": {by(`{"settings": {"kind": "smtp", "smtp": {"auth": {"password": "hunter2"}}}}`), "here", ErrDamaged},
		"plain":                     {`v1:plain:{"settings": {"kind": "none"}}`, "here", nil},
		"plain, cut":                {`v1:plain:{"settings": {"kind": "no`, "here", ErrDamaged},
		"plain, an unknown field":   {`v1:plain:{"settings": {"kind": "none", "pigeon": 1}}`, "here", ErrNewerFormat},
		"plain, with a secret":      {`v1:plain:{"settings": {"kind": "smtp"}, "secrets": {"/smtp/auth/password": "aHVudGVyMg=="}}`, "here", ErrDamaged},
		"plain, a secret in place":  {`v1:plain:{"settings": {"kind": "smtp", "smtp": {"auth": {"password": "hunter2"}}}}`, "here", ErrDamaged},
	} {
		got, err := k.Open(v.sealed, v.bind)
		if !errors.Is(err, v.want) || (got == nil) == (v.want == nil) {
			t.Errorf("%s: got %v, %v, want %v", name, got, err, v.want)
		}
		if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.ContainsAny(err.Error(), "\n%")) {
			t.Errorf("%s: the error shows it: %v", name, err)
		}
	}
	for text, want := range map[string]bool{sealed: true, "": false, "v2" + sealed[2:]: false, "v1:00000000:AAAA": false, "v1::": false} {
		if got := k.Current(text); got != want {
			t.Errorf("Current(%q) = %v", text, got)
		}
	}
}

func TestKeysThatAreNone(t *testing.T) {
	short := Secret(base64.StdEncoding.EncodeToString([]byte("hunter2")))
	for name, keys := range map[string][]Secret{
		"short":     {testKey(1), short},
		"no base64": {testKey(1), "hunter2!"},
		"empty":     {testKey(1), ""},
		"redacted":  {testKey(1), Redacted},
		"twice":     {testKey(1), testKey(1)},
	} {
		k, err := NewKeyring(keys)
		if k != nil || err == nil || !strings.HasPrefix(err.Error(), "provider: key 1 ") || strings.Contains(err.Error(), "hunter2") ||
			strings.Contains(err.Error(), string(keys[0])) || strings.Contains(err.Error(), short.Reveal()) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFingerprintTellsEverythingButLimitsApart(t *testing.T) {
	first, _ := filled(t)
	print := func(s *Settings) string {
		t.Helper()
		told, err := s.distinct()
		if err != nil {
			t.Fatal(err)
		}
		return told
	}
	want := print(first)
	for at, secret := range secrets(first) {
		kept := *secret
		*secret += "x"
		if print(first) == want {
			t.Errorf("%s makes no difference", at)
		}
		*secret = kept
	}
	first.Limits, first.TenantLimits, first.AllowedSenders = Limits{}, TenantLimits{}, nil
	if print(first) != want {
		t.Error("limits or allowed senders make a difference")
	}
	first.SMTP.Port++
	if print(first) == want {
		t.Error("the port makes no difference")
	}
}

func TestFingerprintIsThatOfEarlierVersions(t *testing.T) {
	s := Settings{Kind: KindSMTP, Sender: mail.Address{Address: "reports@example.com"}, SMTP: SMTPSettings{Host: "mail.example.com",
		Auth: SMTPAuth{Password: "hunter2"}}}
	s.Defaults()
	const want = "625e1a0888980d314ceeed3e7b711d51"
	if got, err := s.Fingerprint("salt"); got != want || err != nil {
		t.Errorf("the fingerprint of the same settings has become %s, %v", got, err)
	}
}

func FuzzOpen(f *testing.F) {
	k, err := NewKeyring([]Secret{testKey(1)})
	must(err)
	sealed, err := k.Seal(&Settings{Kind: KindSMTP, SMTP: SMTPSettings{Auth: SMTPAuth{Password: "hunter2"}}}, "")
	must(err)
	plain, err := k.Seal(&Settings{Kind: KindNone, AllowedSenders: []string{"@example.com"}}, "")
	must(err)
	f.Add(sealed)
	f.Add(plain)
	f.Add("v1:plain:null")
	f.Add("v1:00000000:")
	f.Add("v999999999999999999999999:")
	f.Add("v1:plain:{\"settings\":{\"smtp\":null},\"secrets\":null}")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := k.Open(text, "")
		if err != nil {
			if s != nil {
				t.Error("settings and an error")
			}
			return
		}
		if s.Secrets() != nil && s.SMTP.Auth.Password != "hunter2" {
			t.Error("a secret from nowhere")
		}
		again, err := k.Seal(s, "")
		if err != nil {
			t.Fatal(err)
		}
		o, err := k.Open(again, "")
		if err != nil {
			t.Fatal(err)
		}
		a, _ := json.Marshal(s)
		if b, _ := json.Marshal(o); string(a) != string(b) {
			t.Errorf("%s has become %s", a, b)
		}
	})
}
