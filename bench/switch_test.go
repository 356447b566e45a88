package bench

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/graph/graphtest"
	"github.com/postroom/postroom/provider/smtp/smtptest"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/queue/queuetest"
)

// choice is a Postroom whose provider is chosen by its API.
type choice struct {
	*installation
	keys   []string // secrets.keys
	tokens []string // of administrators: each has a ration of its own
}

// choose starts a Redis, and says what its processes are configured with: there is no provider. roles are of the process that
// serves the API.
func choose(t testing.TB, administrators int, more map[string]any, roles string) *choice {
	t.Helper()
	c := &choice{installation: &installation{t: t, redis: queuetest.StartTCP(t), namespace: "postroom", more: map[string]any{}},
		keys: []string{newKey()}, tokens: []string{token}}
	for range administrators - 1 {
		c.tokens = append(c.tokens, "pr_"+rand.Text())
	}
	var tokens []any
	for k, secret := range c.tokens {
		sum := sha256.Sum256([]byte(secret))
		tokens = append(tokens, map[string]any{"name": fmt.Sprintf("administrator-%d", k), "role": "admin", "sha256": hex.EncodeToString(sum[:])})
	}
	for name, section := range more {
		c.more[name] = section
	}
	c.more["auth"], c.more["secrets"] = map[string]any{"tokens": tokens}, map[string]any{"keys": c.keys}
	c.open("--roles", roles)
	return c
}

// newKey makes one for secrets.keys.
func newKey() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	return base64.StdEncoding.EncodeToString(key)
}

// administrator gives a client of one of them, of one process.
func (c *choice) administrator(k int, at *postroom) *admin.Client {
	c.t.Helper()
	client, err := admin.NewClient(at.url, c.tokens[k%len(c.tokens)], &http.Client{Timeout: 2 * time.Minute})
	if err != nil {
		c.t.Fatal(err)
	}
	return client
}

// set makes settings the active ones, and checks what that came to.
func (c *choice) set(k int, s provider.Settings, result string) *admin.ProviderChanged {
	c.t.Helper()
	changed, err := c.administrator(k, c.front).SetProvider(c.t.Context(), &s, true)
	if err != nil {
		c.t.Fatalf("setting the provider: %v", err)
	}
	if changed.Result != result {
		c.t.Fatalf("setting the provider: %s, want %s: %+v", changed.Result, result, changed.Steps)
	}
	return changed
}

// newSecret has what is written differently in a URL.
func newSecret() string { return "a/+%&= ~" + rand.Text() }

// station is a mail server that the provider is switched to, with settings that no other has.
type station struct {
	settings provider.Settings
	secret   string
	// came gives what it took, and touched what came at all: connections, or the times of requests.
	came    func() []arrival
	touched func() int
}

// arrival is a message that a server took: each goes to another recipient.
type arrival struct {
	to string
	at time.Time
}

// reader is the recipient of a newsletter's message.
func reader(i int) string { return fmt.Sprintf("reader%05d@example.net", i) }

// mailserver starts an SMTP server that wants a login over TLS. think is called at each recipient, and answer at each message
// that was taken.
func mailserver(t testing.TB, think, answer func()) *station {
	var mu sync.Mutex
	var all []arrival
	s := &station{secret: newSecret()}
	b := inbox(t, smtptest.InboxOptions{Security: provider.SecurityTLS, Username: "news@example.com", Password: s.secret,
		OnRcpt: func(string) error { think(); return nil },
		OnData: func(m *smtptest.Message) error {
			mu.Lock()
			all = append(all, arrival{m.To[0], time.Now()})
			mu.Unlock()
			answer()
			return nil
		}})
	s.settings = b.Settings(mail.Address{Address: ownSender})
	s.settings.Limits.Concurrency = 20
	s.came = func() []arrival {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
	s.touched = b.Connections
	return s
}

// newApp gives the tenant's app another secret, which makes another station of it: the one before is no longer known.
func newApp(tenant *graphtest.Tenant) *station {
	s := &station{secret: newSecret()}
	app := graphtest.DefaultApp()
	app.Secrets = []graphtest.ClientSecret{{Value: s.secret}}
	tenant.SetApp(app)
	s.settings = tenant.Settings(mail.Address{Address: ownSender})
	s.settings.Microsoft365.ClientSecret = provider.Secret(s.secret)
	s.settings.Limits = provider.Limits{Concurrency: 20, MessagesPerMinute: provider.NoLimit, RequestsPer10m: provider.NoLimit,
		RecipientsPerDay: provider.NoLimit, UploadBytesPer5m: provider.NoLimit}
	before := len(tenant.Messages())
	s.came = func() []arrival {
		var all []arrival
		for _, m := range tenant.Messages()[before:] {
			all = append(all, arrival{m.To[0].Address, m.Time})
		}
		return all
	}
	s.touched = func() int { return len(tenant.Requests()) }
	return s
}

// period is how long a station was the active one, as the client saw it and as Redis has it.
type period struct {
	*station
	asked, answered time.Time // of the request that made it the active one
	since           time.Time
	touched         int // when the next one had become active; -1: it is still active
}

// TestSwitchingTheProviderKeepsEachMessageOnce switches between SMTP servers and Microsoft 365 while mail flows.
func TestSwitchingTheProviderKeepsEachMessageOnce(t *testing.T) {
	t.Parallel()
	n, switches := size(20_000, 400), size(10, 4)
	latency := time.Duration(size(20, 10)) * time.Millisecond
	unlimited := graphtest.Limits{}
	tenant := graphtest.Run(t, graphtest.Options{Limits: &unlimited, Latency: latency, MaxMessages: 2 * n, MaxRequests: 10 * n,
		Mailboxes: []graphtest.Mailbox{{Address: ownSender}}})
	c := choose(t, 2, nil, "api")
	workers := []*postroom{c.serve(), c.serve("--roles", "worker")}
	if *full {
		workers = append(workers, c.serve("--roles", "worker"), c.serve("--roles", "worker"))
	}
	batch, ids := c.accept(newsletter(n)) // it waits: no provider is active
	var periods []*period
	taken := func() int {
		sum := tenant.Received()
		for _, p := range periods {
			if p.settings.Kind == provider.KindSMTP {
				sum += len(p.came())
			}
		}
		return sum
	}
	var slowest time.Duration
	begun := time.Now()
	for k := range switches + 1 {
		goal := n * k / (switches + 1)
		await(t, patience(), "the next part of the mails", func() bool { return taken() >= goal })
		p := &period{touched: -1}
		if k%2 == 0 {
			slow := func() { pass(t.Context(), mathrand.N(2*latency)) }
			p.station = mailserver(t, slow, slow)
		} else {
			p.station = newApp(tenant)
		}
		former := c.sealed()
		if k == 1 && !strings.Contains(c.everything(), former) {
			t.Error("the sealed settings are not found in Redis: this proves nothing")
		}
		hear := func() {}
		if k%3 == 1 {
			hear = c.deafen()
		}
		p.asked = time.Now()
		changed := c.set(k, p.settings, "saved")
		p.answered, p.since = time.Now(), changed.Provider.Since
		hear()
		if changed.Underway != 0 {
			t.Errorf("switch %d: %d attempts of the former provider were under way", k, changed.Underway)
		}
		if periods = append(periods, p); k == 0 {
			continue
		}
		last := periods[k-1]
		last.touched = last.station.touched()
		slowest = max(slowest, p.answered.Sub(p.asked))
		c.isGone(k, last.secret, former)
	}
	c.awaitDelivered(batch, n, patience())
	took := time.Since(begun)
	c.sortedOut(periods, ids)
	back := 0
	for _, w := range workers {
		back += strings.Count(w.stderr.String(), "attempt handed back")
	}
	if back == 0 && *full { // of few mails none may be under way
		t.Error("no attempt was cut: this proves nothing")
	}
	gap, around := pauses(periods)
	t.Logf("%d mails in %v, %.0f a second, %d switches: activation took %v at most; %d attempts cut and handed back; "+
		"longest pause around a switch %v (longest otherwise %v)", n, took.Round(100*time.Millisecond), float64(n)/took.Seconds(), switches,
		slowest.Round(time.Millisecond), back, around.Round(time.Millisecond), gap.Round(time.Millisecond))
	for k, p := range periods[1:] {
		t.Logf("switch %d, to %s: %v", k+1, p.settings.Kind, p.answered.Sub(p.asked).Round(time.Millisecond))
	}
}

// deafen cuts the connections by which processes are told of a change, until hear is called: then all that keeps a worker from
// using former settings is that nothing may begin with them.
func (c *choice) deafen() (hear func()) {
	ctx, stop := context.WithCancel(c.t.Context())
	var cutting sync.WaitGroup
	cut := func() {
		if err := c.redis.Client.ClientKillByFilter(c.t.Context(), "TYPE", "pubsub").Err(); err != nil {
			c.t.Errorf("cutting connections: %v", err)
		}
	}
	cut()
	cutting.Go(func() {
		for ctx.Err() == nil {
			cut()
			pass(ctx, time.Millisecond)
		}
	})
	return func() {
		stop()
		cutting.Wait()
	}
}

// sealed gives the active settings as Redis has them.
func (c *choice) sealed() string {
	c.t.Helper()
	fields, err := c.redis.Client.HGetAll(c.t.Context(), "{"+c.namespace+"}:provider").Result()
	if err != nil {
		c.t.Fatal(err)
	}
	return fields["sealed"]
}

// isGone checks that Redis has nothing any more of former settings.
func (c *choice) isGone(k int, secret, sealed string) {
	c.t.Helper()
	texts := map[string]string{"Redis": c.everything()}
	if sealed == "" {
		c.t.Fatal("nothing was sealed: this proves nothing")
	}
	_, ciphertext, _ := strings.Cut(strings.TrimPrefix(sealed, "v1:"), ":")
	for where, what := range found(texts, map[string][]string{"former secret": needles(secret), "former settings, sealed": pieces(ciphertext)}) {
		c.t.Errorf("switch %d: %s has the %s", k, where, what)
	}
}

// sortedOut checks that each message was delivered once, by the provider that was active when its attempt began, and that nothing
// came to a server that was not active.
func (c *choice) sortedOut(periods []*period, ids []string) {
	t := c.t
	t.Helper()
	by := map[string][]int{}
	for k, p := range periods {
		late := 0
		for _, a := range p.until(periods, k) {
			by[a.to] = append(by[a.to], k)
			if a.at.Before(p.asked) || k+1 < len(periods) && a.at.After(periods[k+1].answered) {
				late++
			}
		}
		if late > 0 {
			t.Errorf("the provider of switch %d took %d messages while it was not active", k, late)
		}
		if p.settings.Kind == provider.KindSMTP && p.touched >= 0 && p.station.touched() != p.touched {
			t.Errorf("%d connections came to the server of switch %d after another had become active", p.station.touched()-p.touched, k)
		}
	}
	wrong := 0
	for i, id := range ids {
		m := c.message(id)
		fault := ""
		switch times := by[reader(i)]; {
		case len(times) != 1:
			fault = fmt.Sprintf("was taken by the providers of switches %v", times)
		case m.State != queue.Delivered || m.Counted != 1:
			fault = fmt.Sprintf("is %s after %d counted attempts", m.State, m.Counted)
		default:
			k, at := times[0], m.Attempts[len(m.Attempts)-1].Begun
			if at.Before(periods[k].since) || k+1 < len(periods) && at.After(periods[k+1].since) {
				fault = fmt.Sprintf("went by the provider of switch %d, in an attempt that began at %v", k, at)
			}
		}
		delete(by, reader(i))
		if fault != "" {
			if wrong++; wrong <= 5 {
				t.Errorf("message %s %s", id, fault)
			}
		}
	}
	if wrong > 5 || len(by) > 0 {
		t.Errorf("%d messages in all are wrong; %d came that nobody handed in", wrong, len(by))
	}
}

// until gives what came to a station; of the tenant's, what came before the secret was changed the next time.
func (p *period) until(all []*period, k int) []arrival {
	came := p.came()
	if p.settings.Kind == provider.KindMicrosoft365 {
		for _, next := range all[k+1:] {
			if next.settings.Kind == provider.KindMicrosoft365 {
				return came[:len(came)-len(next.came())]
			}
		}
	}
	return came
}

// pauses gives the longest time without a delivery around a switch, and otherwise.
func pauses(periods []*period) (otherwise, around time.Duration) {
	var times []time.Time
	for k, p := range periods {
		for _, a := range p.until(periods, k) {
			times = append(times, a.at)
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	for i := 1; i < len(times); i++ {
		gap := times[i].Sub(times[i-1])
		near := slices.ContainsFunc(periods[1:], func(p *period) bool {
			return times[i].After(p.asked) && times[i-1].Before(p.answered.Add(2*time.Second))
		})
		if near {
			around = max(around, gap)
		} else {
			otherwise = max(otherwise, gap)
		}
	}
	return otherwise, around
}
