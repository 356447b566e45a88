package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAnAlertFiresWhenTheProviderBreaksAndClears has a real Prometheus scrape real processes, with the rules that operators have: the
// mail server goes away, the alert fires, it comes back, and nothing fires any more. At one of these moments each query of the dashboard
// shows something. In the short form alerts need not last before they fire; the long form has the rules as they are.
func TestAnAlertFiresWhenTheProviderBreaksAndClears(t *testing.T) {
	t.Parallel()
	server := freeAddress(t)
	stop := sinkAt(t, server)
	provider := providerAt(server, 5)
	provider["limits"] = map[string]any{"concurrency": 5, "messages_per_minute": 10000}
	provider["tenant_limits"] = map[string]any{"messages_per_minute": 10000}
	i := install(t, provider)
	if err := i.redis.Client.ConfigSet(t.Context(), "maxmemory", "1gb").Err(); err != nil {
		t.Fatal(err)
	}
	worker := i.serve("--roles", "worker")
	checkMetrics(t, worker.url)
	checkMetrics(t, i.front.url)
	batch, ids := i.accept(newsletter(20))
	i.awaitDelivered(batch, len(ids), time.Minute)

	p := watch(t, i.front.url, worker.url)
	await(t, time.Minute, "Prometheus to know both processes", func() bool { return p.value(`sum(up)`) == "2" })
	if delivered := p.value(`sum(postroom_messages_finished_total{result="delivered"})`); delivered != fmt.Sprint(len(ids)) {
		t.Errorf("Prometheus knows of %s delivered messages, want %d", delivered, len(ids))
	}
	blank := queries(t)
	p.show(blank)
	if firing := p.alerts("firing"); len(firing) > 0 {
		t.Errorf("%v fire while all is well", firing)
	}

	stop()
	broken := time.Now()
	batch, ids = i.accept(newsletter(3))
	const alert = "PostroomProviderFaulty"
	if *full { // at first nobody is told: such a thing may end by itself
		await(t, time.Minute, "the alert to be pending", func() bool { return slices.Contains(p.alerts("pending"), alert) })
	}
	await(t, 10*time.Minute, "the alert to fire", func() bool { return slices.Contains(p.alerts("firing"), alert) })
	fired := time.Since(broken)
	p.show(blank)
	for expr, panel := range blank {
		t.Errorf("the panel %q shows nothing: %s", panel, expr)
	}
	if *full && slices.Contains(p.alerts("firing"), "PostroomNoMailDelivered") {
		t.Error("held mail may go, says an alert")
	}

	sinkAt(t, server)
	mended := time.Now()
	// As the runbook says. It would be tried by itself, too, a minute later at most.
	if _, err := i.api.ResumeMailbox(t.Context(), i.account().Address); err != nil {
		t.Fatal(err)
	}
	i.awaitDelivered(batch, len(ids), time.Minute)
	await(t, time.Minute, "everything to be well", func() bool { return len(p.alerts("firing")) == 0 && len(p.alerts("pending")) == 0 })
	t.Logf("the alert fired %v after the server had gone, and was over %v after it was back",
		fired.Round(100*time.Millisecond), time.Since(mended).Round(100*time.Millisecond))
	p.healthy()
}

// checkMetrics has promtool judge what a server exports.
func checkMetrics(t *testing.T, server string) {
	t.Helper()
	response, err := http.Get(server + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	c := exec.Command(tool(t, "promtool"), "check", "metrics")
	c.Stdin = response.Body
	if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// monitor is a Prometheus.
type monitor struct {
	t   testing.TB
	url string
}

// lasting is how long an alert's condition has to last.
var lasting = regexp.MustCompile(`(?m)^(\s+for:) .*$`)

// watch starts a Prometheus with the alert rules, that scrapes servers often.
func watch(t *testing.T, servers ...string) *monitor {
	t.Helper()
	folder := t.TempDir()
	rules, err := os.ReadFile("../deploy/prometheus/postroom.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	interval := "5s"
	if !*full {
		interval = "1s"
		rules = lasting.ReplaceAll(rules, []byte("$1 2s"))
	}
	var targets []string
	for _, s := range servers {
		targets = append(targets, strings.TrimPrefix(s, "http://"))
	}
	settings, err := json.Marshal(map[string]any{ // JSON is YAML, too
		"global":         map[string]any{"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
		"rule_files":     []any{"rules.yaml"},
		"scrape_configs": []any{map[string]any{"job_name": "postroom", "static_configs": []any{map[string]any{"targets": targets}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"prometheus.yaml": settings, "rules.yaml": rules} {
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	address := freeAddress(t)
	var words log
	c := exec.Command(tool(t, "prometheus"), "--config.file", filepath.Join(folder, "prometheus.yaml"), "--storage.tsdb.path", filepath.Join(folder, "data"),
		"--web.listen-address", address, "--log.level", "warn")
	c.Dir = folder
	c.Stdout, c.Stderr = &words, &words
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
		if t.Failed() {
			t.Logf("Prometheus's last words:\n%s", words.tail(4000))
		}
	})
	p := &monitor{t: t, url: "http://" + address}
	await(t, time.Minute, "Prometheus to be ready", func() bool {
		response, err := http.Get(p.url + "/-/ready")
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	return p
}

// queries gives those of the dashboard, with its variables filled in, and the panel of each.
func queries(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../deploy/grafana/postroom.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$__rate_interval", "1m", "$job", "postroom", "$namespace", ".*", "$mailbox", ".*")
	all := map[string]string{}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			all[variables.Replace(target.Expr)] = panel.Title
		}
	}
	if len(all) == 0 {
		t.Fatal("the dashboard has no queries")
	}
	return all
}

// show forgets the queries that something comes of.
func (p *monitor) show(blank map[string]string) {
	p.t.Helper()
	for expr := range blank {
		if p.value(expr) != "" {
			delete(blank, expr)
		}
	}
}

// ask asks Prometheus's API.
func (p *monitor) ask(path string, into any) {
	p.t.Helper()
	response, err := http.Get(p.url + "/api/v1/" + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		p.t.Fatalf("%s: %s\n%s", path, response.Status, bytes.TrimSpace(body))
	}
	answer := struct{ Data any }{into}
	if err := json.Unmarshal(body, &answer); err != nil {
		p.t.Fatalf("%s: %v", path, err)
	}
}

// value gives what an expression comes to, "" if to nothing.
func (p *monitor) value(expr string) string {
	p.t.Helper()
	var answer struct{ Result []struct{ Value [2]any } }
	p.ask("query?query="+url.QueryEscape(expr), &answer)
	if len(answer.Result) == 0 {
		return ""
	}
	return fmt.Sprint(answer.Result[0].Value[1])
}

// alerts names those in a state, pending or firing.
func (p *monitor) alerts(state string) []string {
	p.t.Helper()
	var answer struct {
		Alerts []struct {
			Labels map[string]string
			State  string
		}
	}
	p.ask("alerts", &answer)
	var names []string
	for _, a := range answer.Alerts {
		if a.State == state {
			names = append(names, a.Labels["alertname"])
		}
	}
	return names
}

// healthy checks that every rule could be evaluated with what the servers export.
func (p *monitor) healthy() {
	p.t.Helper()
	var answer struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	p.ask("rules", &answer)
	rules := 0
	for _, g := range answer.Groups {
		for _, r := range g.Rules {
			rules++
			if r.Health != "ok" {
				p.t.Errorf("rule %s: %s %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	if rules == 0 {
		p.t.Error("Prometheus has no rules")
	}
}
