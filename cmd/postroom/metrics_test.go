package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/postroom/postroom/config"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/queue/queuetest"
)

// labels describes those whose values are not a list.
var labels = map[string]string{
	"mailbox": "whose limits bind: a sender of ours, or the account that sends for all; `other`: all beyond `metrics.mailboxes`; `*`: the provider as a whole",
	"route":   "a path of the API, such as `/v1/messages/{id}`; `other`: none of them",
	"method":  "`GET`, `POST` and so on; `other`: none that the API has",
	"code":    "HTTP status; 499: the client had gone",
	"script":  "one of ours, by the name of its file in `queue/lua`",
	"version": "as `postroom version` says",
}

const metricsHead = `# Metrics

Made by ` + "`go test ./cmd/postroom -run TheMetricsAreOnRecord -update`" + ` from what a process exports; ` + "`/metrics`" + ` serves them, in the format of Prometheus.

Metrics **of the installation** are the same from every process: take the greatest (` + "`max by (...)`" + `), never the sum. While Redis does not answer a
process they are absent there, but for ` + "`postroom_redis_up`" + `. Counters and histograms **of a process** start at 0 with it: sum their rates. A list
of a label's values is complete: these series are there from the start. Go's and the process's own metrics (` + "`go_*`, `process_*`" + `) come too.
`

// exported is one metric as a process tells of it.
type exported struct {
	name, help string
	labels     []string
	kind       string
	values     map[string][]string
	alerts     []string
}

var descText = regexp.MustCompile(`^Desc\{fqName: "([^"]*)", help: "(.*?)", (?:unit: "[^"]*", )?constLabels: \{([^}]*)\}, variableLabels: \{([^}]*)\}\}$`)

// described lists the metrics of a registry by name, with the values that their labels have now.
func described(t *testing.T, registry *prometheus.Registry) map[string]*exported {
	t.Helper()
	all := make(map[string]*exported)
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		registry.Describe(descs)
	}()
	for d := range descs {
		parts := descText.FindStringSubmatch(d.String())
		if parts == nil {
			t.Fatalf("a description that is not understood: %s", d)
		}
		if !strings.HasPrefix(parts[1], "postroom_") {
			continue
		}
		m := &exported{name: parts[1], help: strings.ReplaceAll(parts[2], `\"`, `"`), values: make(map[string][]string)}
		m.labels = strings.FieldsFunc(parts[4], func(r rune) bool { return r == ',' || r == ' ' })
		if name, _, ok := strings.Cut(parts[3], "="); ok {
			m.labels = append(m.labels, name)
		}
		all[m.name] = m
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		m := all[f.GetName()]
		if m == nil {
			continue
		}
		kind := dto.MetricType_name[int32(f.GetType())]
		m.kind = kind[:1] + strings.ToLower(kind[1:])
		for _, one := range f.GetMetric() {
			for _, l := range one.GetLabel() {
				if values := m.values[l.GetName()]; !slices.Contains(values, l.GetValue()) {
					m.values[l.GetName()] = append(values, l.GetValue())
				}
			}
		}
	}
	return all
}

// alerted notes which alerts look at a metric, by rules of their own too.
func alerted(t *testing.T, all map[string]*exported) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "deploy", "prometheus", "postroom.rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Record, Expr string }
		}
	}
	if err := yaml.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	expr := make(map[string]string)
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			expr[r.Record] += "\n" + r.Expr // one record may have several rules
		}
	}
	names := regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*`)
	var looks func(text, alert string)
	looks = func(text, alert string) {
		for _, name := range names.FindAllString(text, -1) {
			if recorded := expr[name]; recorded != "" {
				looks(recorded, alert)
			}
			for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
				if m := all[strings.TrimSuffix(name, suffix)]; m != nil && !slices.Contains(m.alerts, alert) {
					m.alerts = append(m.alerts, alert)
				}
			}
		}
	}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if r.Alert != "" {
				looks(r.Expr, r.Alert)
			}
		}
	}
}

func (m *exported) write(t *testing.T, w *strings.Builder) {
	t.Helper()
	title := m.name
	if len(m.labels) > 0 {
		title += "{" + strings.Join(m.labels, ",") + "}"
	}
	fmt.Fprintf(w, "\n### %s\n\n%s. %s\n", title, m.kind, m.help)
	if len(m.labels)+len(m.alerts) > 0 {
		w.WriteByte('\n')
	}
	for _, name := range m.labels {
		meaning := labels[name]
		if meaning == "" {
			if len(m.values[name]) == 0 {
				t.Errorf("%s: the label %s has no values from the start, and no description here", m.name, name)
			}
			quoted := make([]string, len(m.values[name]))
			for i, v := range m.values[name] {
				quoted[i] = "`" + v + "`"
			}
			meaning = strings.Join(quoted, ", ")
		}
		fmt.Fprintf(w, "- `%s`: %s\n", name, meaning)
	}
	if m.kind == "" {
		t.Errorf("%s: nothing has this metric, so its type is not known: have the test make one", m.name)
	}
	if len(m.alerts) > 0 {
		links := make([]string, len(m.alerts))
		for i, alert := range m.alerts {
			links[i] = fmt.Sprintf("[%s](README.md#%s)", alert, strings.ToLower(alert))
		}
		fmt.Fprintf(w, "- Alerts: %s\n", strings.Join(links, ", "))
	}
}

func TestTheMetricsAreOnRecord(t *testing.T) {
	r := queuetest.Start(t)
	if err := r.Client.ConfigSet(t.Context(), "save", "3600 1").Err(); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.HTTP.Listen = "127.0.0.1:0"
	cfg.Provider = &provider.Settings{Kind: provider.KindSMTP, Sender: mail.Address{Address: "reports@example.com"},
		SMTP:   provider.SMTPSettings{Host: "mail.example.com"},
		Limits: provider.Limits{MessagesPerMinute: 30, RequestsPer10m: 100, RecipientsPerDay: 1000, UploadBytesPer5m: 1 << 30}}
	s, err := newServer(t.Context(), serverOptions{config: cfg, redis: r.Client, log: slog.New(slog.DiscardHandler), api: true, worker: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.listener.Close() }()
	s.http.Handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/livez", nil))
	// Some are there only while a worker can send.
	if err := r.Client.HSet(t.Context(), "{postroom}:workers", "one", time.Now().UnixMilli()).Err(); err != nil {
		t.Fatal(err)
	}
	all := described(t, s.registry)
	alerted(t, all)
	of := map[string][]*exported{}
	for _, m := range all {
		const same = " The same from every process."
		section := "Of a process"
		if strings.HasSuffix(m.help, same) {
			m.help, section = strings.TrimSuffix(m.help, same), "Of the installation"
		}
		of[section] = append(of[section], m)
	}
	var got strings.Builder
	got.WriteString(metricsHead)
	for _, section := range []string{"Of the installation", "Of a process"} {
		fmt.Fprintf(&got, "\n## %s\n", section)
		slices.SortFunc(of[section], func(a, b *exported) int { return strings.Compare(a.name, b.name) })
		for _, m := range of[section] {
			m.write(t, &got)
		}
	}
	path := filepath.Join("..", "..", "deploy", "METRICS.md")
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != got.String() {
		t.Errorf("%s is not what a process exports (%v): read the difference after go test ./cmd/postroom -run TheMetricsAreOnRecord -update", path, err)
	}
}
