package main

import (
	"strings"
	"testing"

	"github.com/postroom/postroom/config"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

func TestKeyNewMakesWhatTheServerSealsWith(t *testing.T) {
	first := postroom(t, "", "key", "new")
	first.want(t, 0)
	key := strings.TrimSuffix(first.stdout, "\n")
	if len(key) != 44 || strings.Trim(key, "A=") == "" || strings.ContainsAny(key, " \n") {
		t.Errorf("stdout is %q, want a key alone", first.stdout)
	}
	cfg, err := config.Load("", []string{"POSTROOM_SECRETS_KEYS_FILE=" + file(t, "postroom.key", first.stdout)})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := provider.NewKeyring(cfg.Secrets.Keys)
	if err != nil {
		t.Fatal(err)
	}
	s := provider.Settings{Kind: provider.KindSMTP, Sender: mail.Address{Address: "reports@example.com"}}
	s.SMTP.Auth.Password = "hunter2"
	sealed, err := keys.Seal(&s, "here")
	if err != nil {
		t.Fatal(err)
	}
	if opened, err := keys.Open(sealed, "here"); err != nil || opened.SMTP.Auth.Password != "hunter2" {
		t.Errorf("got %+v, %v", opened, err)
	}
	if again := postroom(t, "", "key", "new"); again.stdout == first.stdout {
		t.Error("two keys are the same")
	}
}

func TestKeyNewSaysWhereTheKeyGoes(t *testing.T) {
	r := postroom(t, "", "key", "new")
	if strings.Contains(r.stderr, strings.TrimSpace(r.stdout)) {
		t.Error("stderr has the key too")
	}
	rest := r.stderr
	for _, word := range []string{"secrets.keys of every process", "POSTROOM_SECRETS_KEYS_FILE", "second", "front", "postroom provider reseal", "Take the old key out"} {
		_, after, found := strings.Cut(rest, word)
		if !found {
			t.Fatalf("%q is missing, or in the wrong place:\n%s", word, r.stderr)
		}
		rest = after
	}
}
