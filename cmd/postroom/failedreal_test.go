package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	netmail "net/mail"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/config"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/smtp/smtptest"
)

// startServerTo starts all of Postroom, in front of an inbox of which the test says what it refuses.
func startServerTo(t *testing.T, o smtptest.InboxOptions) *smtptest.Inbox {
	t.Helper()
	o.Security = provider.SecurityNone
	inbox, err := smtptest.NewInbox(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = inbox.Close() })
	cfg := config.Default()
	settings := inbox.Settings(mail.Address{Address: "own@x.example"})
	cfg.Provider = &settings
	startConfigured(t, cfg, "operator")
	return inbox
}

// startConfigured starts all of Postroom, and lets the commands in with a role.
func startConfigured(t *testing.T, cfg *config.Config, role string) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr(), PoolSize: connections(cfg)})
	t.Cleanup(func() { _ = client.Close() })
	startOn(t, cfg, role, serverOptions{redis: client, log: slog.New(slog.DiscardHandler), api: true, worker: true})
}

// startOn is startConfigured with options of its own. stop ends the server, which the end of the test does too.
func startOn(t *testing.T, cfg *config.Config, role string, o serverOptions) (s *server, stop func()) {
	t.Helper()
	sum := sha256.Sum256([]byte(testToken))
	cfg.Auth.Tokens = []config.Token{{Name: "test", Role: role, SHA256: hex.EncodeToString(sum[:])}}
	cfg.HTTP.Listen = "127.0.0.1:0"
	o.config = cfg
	s, err := newServer(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- s.run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("the server ended: %v", err)
		}
	})
	t.Cleanup(stop)
	environment(t, "http://"+s.listener.Addr().String())
	return s, stop
}

// failedIDs gives the ids that failed list prints.
func failedIDs(t *testing.T, args ...string) []string {
	t.Helper()
	r := postroom(t, "", append([]string{"failed", "list", "--output", "json"}, args...)...)
	r.want(t, 0)
	var ids []string
	for line := range strings.Lines(r.stdout) {
		var m admin.FailedMessage
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		ids = append(ids, m.ID)
	}
	return ids
}

func TestFailedMailIsFoundExportedDeletedAndSentAgain(t *testing.T) {
	var cured atomic.Bool
	inbox := startServerTo(t, smtptest.InboxOptions{OnRcpt: func(to string) error {
		if strings.HasSuffix(to, "@gone.example") && !cured.Load() {
			return smtptest.Refuse(550, "5.1.1", "no such user")
		}
		return nil
	}})
	list := file(t, "list.csv", "address\nada@x.example\nbob@gone.example\ncid@gone.example\ndan@gone.example\n")
	postroom(t, "", "send", "--kind", "report", "--subject", "Figures", "--text", "Hello", "--recipients", list, "--wait", "--wait-timeout", "1m").
		want(t, exitUndelivered, "1 delivered (a bounce may still follow), 3 failed")

	all := failedIDs(t)
	if len(all) != 3 {
		t.Fatalf("%d are listed, want 3", len(all))
	}
	postroom(t, "", "failed", "list", "--class", "permanent", "--reply", "5.1.1", "--recipient", "bob@gone.example", "--kind", "report", "--since", "1h").
		want(t, 0, "bob@gone.example", "550 5.1.1 no such user")
	one := failedIDs(t, "--recipient", "BOB@gone.example")
	if len(one) != 1 {
		t.Fatalf("%v are bob's", one)
	}
	postroom(t, "", "failed", "list", "--recipient", "@x.example").want(t, 0, "Nothing in the failed store fits")
	postroom(t, "", "failed", "show", one[0]).want(t, 0, "bob@gone.example  refused", "postroom failed requeue "+one[0])

	r := postroom(t, "", "failed", "export", one[0])
	r.want(t, 0, "Still without it: bob@gone.example.")
	m, err := netmail.ReadMessage(strings.NewReader(r.stdout))
	if err != nil || m.Header.Get("Subject") != "Figures" || !strings.Contains(m.Header.Get("To"), "bob@gone.example") || !strings.Contains(m.Header.Get("From"), "own@x.example") {
		t.Errorf("%v:\n%s", err, r.stdout)
	}
	dir := t.TempDir()
	postroom(t, "", "failed", "export", "--all", "--dir", dir).want(t, 0)
	for _, id := range all {
		if _, err := os.Stat(filepath.Join(dir, id+".eml")); err != nil {
			t.Error(err)
		}
	}

	postroom(t, "", "failed", "delete", one[0], "--yes").want(t, 0, "1 failed message to delete", "DELETED")
	postroom(t, "", "failed", "delete", one[0], "--yes").want(t, exitFault, "0 failed messages to delete", "not in the failed store: 1 of the ids")
	postroom(t, "", "failed", "requeue", "--all", "--dry-run").want(t, 0, "2 failed messages to requeue (all).")
	if left := failedIDs(t); len(left) != 2 {
		t.Errorf("%d are left, want 2", len(left))
	}
	cured.Store(true)
	postroom(t, "", "failed", "requeue", "--all").want(t, 0, "2         0                0")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := inbox.WaitFor(ctx, 3); err != nil {
		t.Fatalf("%v: %d arrived", err, inbox.Received())
	}
	postroom(t, "", "failed", "list").want(t, 0, "The failed store is empty.")
	postroom(t, "", "failed", "requeue", "--all").want(t, 0, "0 failed messages to requeue")
}
