package main

import (
	"encoding/base64"
	"strconv"
	"strings"
	"testing"

	"github.com/postroom/postroom/config"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/smtp/smtptest"
)

// An administrator's day: nothing is set, the first password is wrong, then mail goes, and in the end the provider is cleared.
func TestTheProviderIsSetTriedAndClearedFromTheCommandLine(t *testing.T) {
	inbox, err := smtptest.NewInbox(smtptest.InboxOptions{Security: provider.SecurityStartTLS, Username: "reports", Password: testSecret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = inbox.Close() })
	cfg := config.Default()
	cfg.Secrets.Keys = []provider.Secret{provider.Secret(base64.StdEncoding.EncodeToString(random()))}
	startConfigured(t, cfg, "admin")
	postroom(t, "", "provider", "show").want(t, 0, "kind", "none", "0 messages have not ended", "No provider is active.")
	postroom(t, "", "provider", "verify").want(t, exitFault, "No provider is active (409)")

	s := inbox.Settings(mail.Address{Address: "own@x.example"})
	set := []string{"provider", "set", "--kind", "smtp", "--sender", "Own <own@x.example>", "--host", s.SMTP.Host, "--port", strconv.Itoa(s.SMTP.Port),
		"--ca-file", file(t, "ca.pem", s.SMTP.CAPEM), "--username", "reports", "--password-file", "-"}
	tells(t, "wrong\n", set...).want(t, exitNotValid, "auth      failed", "smtp.auth.password (--password-file)", "saved not valid",
		"postroom: the settings are saved, but they do not work")
	tells(t, "", "provider", "show").want(t, 0, "by test, ", "faulty", "\nThe last error", "smtp.auth.password  set\n")

	tells(t, testSecret+"\n", "provider", "set", "--password-file", "-").want(t, 0, "auth      passed", "Saved: the settings work")
	tells(t, "", "provider", "test", "ada@x.example").want(t, 0, "delivered")
	if n := inbox.Received(); n != 1 {
		t.Errorf("%d mails arrived, want the test mail", n)
	}
	tells(t, "", "provider", "show").want(t, 0, "health   ok\n", "held     0 of 1 mailbox\n", "SETTINGS\n", "  loaded\n")

	// Whoever was never told the password can't have it sent to a server of their own, nor read it.
	tells(t, "", "provider", "set", "--host", "mail.other.example").want(t, exitFault, "smtp.auth.password (--password-file)", "(422)")
	tells(t, "", "provider", "set", "--sender", "other@x.example", "--dry-run").want(t, 0, "Dry run: nothing was changed.")
	tells(t, "", "provider", "reseal").want(t, 0, "no\n", "with the first key already")
	tells(t, "", "provider", "set", "--sender", "other@x.example").want(t, 0, "auth      passed")
	tells(t, "", "provider", "show").want(t, 0, "sender.address      other@x.example")

	tries := 0
	for r := tells(t, "", "provider", "verify"); r.code == 0; r = tells(t, "", "provider", "verify") {
		if tries++; tries > 10 {
			t.Fatal("nothing bounds how often settings are tried")
		}
	}
	tells(t, "", "provider", "verify").want(t, exitTryAgain, "(429)", "Try again in ")

	tells(t, "", "provider", "clear", "--dry-run").want(t, 0, "Active is smtp by "+s.SMTP.Host, "Nothing was changed.")
	tells(t, "", "provider", "clear", "--yes").want(t, 0, "none", "No provider is active: its credentials are deleted")
	postroom(t, "", "provider", "show").want(t, 0, "kind    none")

	audit := tells(t, "", "audit")
	audit.want(t, 0, "provider.set", "provider.clear", "provider.test", "test", "127.0.0.1")
	if i := strings.Index(audit.stdout, "provider.clear"); i < 0 || i > strings.Index(audit.stdout, "provider.set") {
		t.Error("the newest does not come first")
	}
}
