package bench

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue/queuetest"
)

// binary is where postroom is built, once for all tests of a run that need it.
var binary string

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	flag.Parse()
	if !*full {
		_ = flag.Set("test.parallel", "10") // the proofs mostly wait
	}
	folder, err := os.MkdirTemp("", "postroom")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(folder) }()
	binary = filepath.Join(folder, "postroom")
	return m.Run()
}

var build = sync.OnceValue(func() error {
	c := exec.Command("go", "build", "-o", binary, "./cmd/postroom")
	c.Dir = ".."
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
})

// postroom is one run of the program.
type postroom struct {
	t       testing.TB
	command *exec.Cmd
	stdout  bytes.Buffer // to be read after ended
	stderr  log
	ended   chan struct{} // closed when it has
	url     string        // of a server
}

// run starts the program with nothing in its environment but what is given. It ends with the test at the latest.
func run(t testing.TB, environment []string, arguments ...string) *postroom {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	p := &postroom{t: t, command: exec.Command(binary, arguments...), ended: make(chan struct{})}
	p.command.Env = append(environment, "HOME="+t.TempDir())
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.command.Stdout, p.command.Stderr = &p.stdout, &p.stderr
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.command.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("postroom %s: %v; its last words:\n%s", strings.Join(arguments, " "), p.command.ProcessState, p.stderr.tail(4000))
		}
	})
	return p
}

func (p *postroom) signal(s syscall.Signal) { _ = p.command.Process.Signal(s) }

// kill ends it as a crash does, and returns when it is gone.
func (p *postroom) kill() {
	p.signal(syscall.SIGKILL)
	<-p.ended
}

// stop halts it, and returns when none of its threads runs any more: on a busy machine that takes a moment.
func (p *postroom) stop() {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
	await(p.t, 10*time.Second, "a process to stop", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.command.Process.Pid))
		if err != nil || len(threads) == 0 {
			p.t.Fatalf("the process is not there: %v", err)
		}
		for _, thread := range threads {
			stat, _ := os.ReadFile(thread)
			// proc(5): the state comes after the name in parentheses.
			if _, rest, _ := strings.Cut(string(stat), ") "); !strings.HasPrefix(rest, "T") {
				return false
			}
		}
		return true
	})
}

// wait gives the exit code, -1 for the death by a signal.
func (p *postroom) wait(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.ended:
		return p.command.ProcessState.ExitCode()
	case <-time.After(within):
		p.t.Fatalf("postroom did not end within %v", within)
		return -1
	}
}

// metric sums a metric of a server, over all labels if the name has none.
func (p *postroom) metric(name string) float64 {
	p.t.Helper()
	response, err := http.Get(p.url + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer response.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(response.Body); err != nil {
		p.t.Fatal(err)
	}
	sum := 0.0
	for line := range strings.Lines(body.String()) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if base, _, _ := strings.Cut(series, "{"); series == name || base == name {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				p.t.Fatal(err)
			}
			sum += v
		}
	}
	return sum
}

// log is what a process writes, to be read meanwhile.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *log) tail(n int) string {
	s := l.String()
	return s[max(0, len(s)-n):]
}

// token lets the tests in.
const token = "pr_for-tests-only"

// installation is a Postroom of several processes that share a Redis.
type installation struct {
	t         testing.TB
	redis     *queuetest.Redis
	url       string // of another Redis than that
	wait      int    // how many replicas are waited for
	namespace string // of its keys
	provider  map[string]any
	more      map[string]any // sections of the configuration
	api       *admin.Client
	front     *postroom // serves the API; it is never killed
}

// install starts a Redis and a process that serves the API and does not send. provider is the configuration's section.
func install(t testing.TB, provider map[string]any) *installation {
	t.Helper()
	i := &installation{t: t, redis: queuetest.StartTCP(t), namespace: "postroom", provider: provider}
	i.open("--roles", "api")
	return i
}

// installAt is install with a Redis that runs.
func installAt(t testing.TB, url string, wait int, provider map[string]any) *installation {
	t.Helper()
	i := &installation{t: t, url: url, wait: wait, namespace: "postroom", provider: provider}
	i.open("--roles", "api")
	return i
}

// open starts the process that serves the API.
func (i *installation) open(arguments ...string) {
	i.t.Helper()
	i.front = i.serve(arguments...)
	var err error
	i.api, err = admin.NewClient(i.front.url, token, &http.Client{Timeout: time.Minute, Transport: listing{}})
	if err != nil {
		i.t.Fatal(err)
	}
}

// listing asks for the id of every message of a batch, which the client by itself does not.
type listing struct{}

// RoundTrip implements http.RoundTripper.
func (listing) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, "/v1/batches") {
		r = r.Clone(r.Context())
		r.URL.RawQuery = "list=true"
	}
	return http.DefaultTransport.RoundTrip(r)
}

// serve starts one more server, and returns when it is ready.
func (i *installation) serve(arguments ...string) *postroom {
	i.t.Helper()
	sum := sha256.Sum256([]byte(token))
	address := freeAddress(i.t)
	url := i.url
	if url == "" {
		url = i.redis.URL
	}
	sections := map[string]any{
		"redis":    map[string]any{"url": url, "namespace": i.namespace, "wait_replicas": i.wait},
		"http":     map[string]any{"listen": address},
		"auth":     map[string]any{"tokens": []any{map[string]any{"name": "tests", "role": "admin", "sha256": hex.EncodeToString(sum[:])}}},
		"provider": i.provider,
	}
	maps.Copy(sections, i.more)
	settings, err := json.Marshal(sections) // JSON is YAML, too
	if err != nil {
		i.t.Fatal(err)
	}
	path := filepath.Join(i.t.TempDir(), "postroom.yaml")
	if err := os.WriteFile(path, settings, 0o600); err != nil {
		i.t.Fatal(err)
	}
	p := run(i.t, nil, append([]string{"serve", "--config", path}, arguments...)...)
	p.url = "http://" + address
	await(i.t, time.Minute, "a server to be ready", func() bool {
		select {
		case <-p.ended:
			i.t.Fatal("the server ended at once")
		default:
		}
		response, err := http.Get(p.url + "/readyz")
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	return p
}

// accept hands in a batch and gives its id and those of its messages.
func (i *installation) accept(b mail.Batch) (batch string, ids []string) {
	i.t.Helper()
	accepted, err := i.api.SendBatch(i.t.Context(), b, "")
	if err != nil {
		i.t.Fatal(err)
	}
	for _, r := range accepted.Recipients {
		ids = append(ids, r.ID)
	}
	if len(ids) != len(b.Recipients) || accepted.Refused > 0 {
		i.t.Fatalf("%d of %d recipients accepted", accepted.Accepted, len(b.Recipients))
	}
	return accepted.ID, ids
}

// hands is how many messages a unit of concurrency has begun at most.
const hands = 4

// counts gives a batch's counts; nil if the server can't say at the moment.
func (i *installation) counts(batch string) *admin.BatchCounts {
	status, err := i.api.Batch(i.t.Context(), batch)
	if err != nil {
		return nil
	}
	return &status.Counts
}

// message gives what is known of a message.
func (i *installation) message(id string) *admin.MessageStatus {
	i.t.Helper()
	status, err := i.api.Message(i.t.Context(), id)
	if err != nil {
		i.t.Fatalf("message %s: %v", id, err)
	}
	return status
}

// awaitDelivered waits until nothing of a batch is open, and checks that all of it was delivered.
func (i *installation) awaitDelivered(batch string, n int, within time.Duration) {
	i.t.Helper()
	var counts *admin.BatchCounts
	await(i.t, within, "the whole batch to be delivered", func() bool {
		counts = i.counts(batch)
		return counts != nil && counts.Open == 0
	})
	if counts.Delivered != n {
		i.t.Errorf("%d of %d are delivered: %+v", counts.Delivered, n, *counts)
	}
}

// newsletter is a small batch.
func newsletter(n int) mail.Batch {
	b := mail.Batch{Message: mail.Message{Kind: mail.Subscription, Subject: "News for {{.name}}", Text: "Dear {{.name}},\n\nthere is news.\n"}}
	for i := range n {
		b.Recipients = append(b.Recipients, mail.Recipient{
			To:        []mail.Address{{Address: fmt.Sprintf("reader%05d@example.net", i)}},
			Variables: map[string]any{"name": fmt.Sprintf("Reader %d", i)},
		})
	}
	return b
}

// freeAddress gives an address of this machine on which nobody listens.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// await asks again and again until done says yes.
func await(t testing.TB, within time.Duration, what string, done func() bool) {
	t.Helper()
	late := time.NewTimer(within)
	defer late.Stop()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-late.C:
			t.Fatalf("%v were not enough for %s", within, what)
		case <-t.Context().Done():
			t.Fatalf("ended while waiting for %s", what)
		case <-tick.C:
		}
	}
}

// pass lets time pass: something goes wrong for so long.
func pass(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
