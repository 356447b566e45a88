package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/provider/smtp/smtptest"
)

// startServer starts all of Postroom, in front of a mail server with an inbox.
func startServer(t *testing.T) *smtptest.Inbox { return startServerTo(t, smtptest.InboxOptions{}) }

func TestMailWaitsWhileItIsPausedAndGoesWhenItIsResumed(t *testing.T) {
	inbox := startServer(t)
	list := postroom(t, "", "mailbox", "list")
	for deadline := time.Now().Add(10 * time.Second); strings.Contains(list.stdout, "no_worker") && time.Now().Before(deadline); {
		list = postroom(t, "", "mailbox", "list") // its worker is about to run
	}
	list.want(t, 0, "flows")
	rows := strings.Split(list.stdout, "\n")
	if len(rows) != 3 {
		t.Fatalf("want one mailbox, the account: %q", list.stdout)
	}
	account, _, _ := strings.Cut(rows[1], " ")

	postroom(t, "", "mailbox", "pause", "own@x.example", "--reason", "x").want(t, exitFault, "by the account "+account)
	postroom(t, "", "mailbox", "pause", account, "--reason", "wrong list").want(t, 0, account)
	postroom(t, "", "pause", "--all", "--reason", "maintenance").want(t, 0, "everything")
	var sent admin.Accepted
	r := postroom(t, "", "send", "--kind", "alert", "--to", "ada@x.example", "--text", "x", "--output", "json")
	if err := json.Unmarshal([]byte(r.stdout), &sent); err != nil {
		t.Fatalf("%v: %q %q", err, r.stdout, r.stderr)
	}
	postroom(t, "", "message", "show", sent.ID).want(t, 0, `All mail is paused until `, `by test: "maintenance"`)

	postroom(t, "", "resume", "--all").want(t, 0, "held or paused by themselves: 1.")
	postroom(t, "", "message", "show", sent.ID).want(t, 0, "Mail of "+account+" is paused until ", `by test: "wrong list"`)
	if n := inbox.Received(); n != 0 {
		t.Errorf("%d arrived during the pause", n)
	}
	postroom(t, "", "mailbox", "resume", account).want(t, 0, "Mail of "+account+" flows.")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := inbox.WaitFor(ctx, 1); err != nil {
		t.Fatalf("it did not go when it was resumed: %v", err)
	}
	postroom(t, "", "mailbox", "explain", account).want(t, 0, "flows.")
}
