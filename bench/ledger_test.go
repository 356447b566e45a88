package bench

import (
	"bytes"
	"maps"
	"net/mail"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/smtp/smtptest"
)

// ledger counts at the server's side how often each message passed its point of no return: its final dot came, and the
// server took it.
type ledger struct {
	mu    sync.Mutex
	times map[string]int
}

// enter notes one more passage and gives their number.
func (l *ledger) enter(id string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.times == nil {
		l.times = make(map[string]int)
	}
	l.times[id]++
	return l.times[id]
}

// read gives the number of passages of each message.
func (l *ledger) read() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.times)
}

// entered is the number of messages that came at least once.
func (l *ledger) entered() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.times)
}

// once checks that each message came, and no more than once.
func (l *ledger) once(t testing.TB, ids []string) {
	t.Helper()
	times := l.read()
	for _, id := range ids {
		if times[id] != 1 {
			t.Errorf("message %s was accepted %d times", id, times[id])
		}
		delete(times, id)
	}
	if len(times) > 0 {
		t.Errorf("%d messages came that nobody handed in", len(times))
	}
}

// idOf gives the message's id, of which its Message-ID is made.
func idOf(m *smtptest.Message) string {
	parsed, err := mail.ReadMessage(bytes.NewReader(m.Raw))
	if err != nil {
		return "a message that can't be read: " + err.Error()
	}
	local, _, _ := strings.Cut(strings.TrimPrefix(parsed.Header.Get("Message-ID"), "<"), "@")
	return strings.ToUpper(local)
}

// inbox starts a server that takes what the hooks let pass.
func inbox(t testing.TB, o smtptest.InboxOptions) *smtptest.Inbox {
	t.Helper()
	o.MaxMessages = 1 // the ledger has what counts
	b, err := smtptest.NewInbox(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// providerTo is the configuration's section for an inbox without TLS and login.
func providerTo(b *smtptest.Inbox, concurrency int) map[string]any {
	return providerAt(b.Addr(), concurrency)
}

// providerAt is the configuration's section for a server without TLS and login.
func providerAt(address string, concurrency int) map[string]any {
	host, port, _ := strings.Cut(address, ":")
	n, _ := strconv.Atoi(port)
	return map[string]any{
		"kind":   provider.KindSMTP,
		"sender": map[string]any{"address": ownSender, "name": "News"},
		"smtp":   map[string]any{"host": host, "port": n, "security": provider.SecurityNone},
		"limits": map[string]any{"concurrency": concurrency},
	}
}

// ownSender is the provider's own.
const ownSender = "news@example.com"

// gate holds whoever comes to it until it opens. Close it once.
type gate chan struct{}

// hold waits until the gate opens, or the test ends.
func (g gate) hold(t testing.TB) {
	select {
	case <-g:
	case <-t.Context().Done():
	}
}
