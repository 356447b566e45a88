// Package deploy_test checks what operators run beside Postroom: alert rules, dashboard, and what to do when an alert fires.
package deploy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

const (
	rulesFile = "prometheus/postroom.rules.yaml"
	testsFile = "prometheus/postroom.rules.test.yaml"
	dashFile  = "grafana/postroom.json"
	runbook   = "https://github.com/postroom/postroom/blob/main/deploy/README.md#"
)

// rule is an alert, or what is recorded.
type rule struct {
	Alert, Record, Expr string
	For                 string
	Labels, Annotations map[string]string
}

// ruleTest is one of promtool's.
type ruleTest struct {
	Name   string
	Alerts []struct {
		At       string `yaml:"eval_time"`
		Alert    string `yaml:"alertname"`
		Expected []any  `yaml:"exp_alerts"`
	} `yaml:"alert_rule_test"`
}

func TestTheRulesDoWhatTheirTestsSay(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "config", "prometheus/prometheus.yaml")
	promtool(t, "check", "rules", rulesFile)
	promtool(t, "test", "rules", testsFile)
}

func TestEveryAlertIsTested(t *testing.T) {
	t.Parallel()
	var tests struct{ Tests []ruleTest }
	parse(t, testsFile, &tests)
	fires, clears, silent := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, test := range tests.Tests {
		begun := map[string]bool{}
		var last time.Duration
		for _, check := range test.Alerts {
			at, err := time.ParseDuration(check.At)
			if err != nil || at < last {
				t.Errorf("%s: %s of %s comes after %v", test.Name, check.At, check.Alert, last)
			}
			last = at
			switch {
			case len(check.Expected) > 0:
				fires[check.Alert], begun[check.Alert] = true, true
			case begun[check.Alert]:
				clears[check.Alert] = true
			default:
				silent[check.Alert] = true
			}
		}
	}
	for _, r := range rules(t) {
		if r.Alert != "" && !(fires[r.Alert] && clears[r.Alert] && silent[r.Alert]) {
			t.Errorf("%s: tested are firing: %v, clearing: %v, not firing: %v", r.Alert, fires[r.Alert], clears[r.Alert], silent[r.Alert])
		}
	}
}

func TestEveryRuleReadsWhatThereIs(t *testing.T) {
	t.Parallel()
	known := documented(t)
	for _, r := range rules(t) {
		if r.Record != "" {
			known[r.Record] = append(known[r.Record], known.recorded(r.Expr, r.Labels)...)
		}
	}
	for _, r := range rules(t) {
		for _, fault := range known.faults(r.Expr) {
			t.Errorf("%s%s: %s", r.Record, r.Alert, fault)
		}
	}
}

// TestEveryAlertIsExplained sees that alert and runbook have each other, and that an alert says what it has to.
func TestEveryAlertIsExplained(t *testing.T) {
	t.Parallel()
	sections := explained(t)
	alerts := map[string]bool{}
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		alerts[r.Alert] = true
		if s := r.Labels["severity"]; s != "page" && s != "ticket" {
			t.Errorf("%s: severity %q", r.Alert, s)
		}
		if want := runbook + strings.ToLower(r.Alert); r.Annotations["runbook_url"] != want {
			t.Errorf("%s: runbook_url is not %s", r.Alert, want)
		}
		for _, a := range []string{"summary", "description"} {
			if r.Annotations[a] == "" {
				t.Errorf("%s: no %s", r.Alert, a)
			}
		}
		if sections[r.Alert] == "" {
			t.Errorf("README.md has no section %s", r.Alert)
		}
	}
	for alert, text := range sections {
		if !alerts[alert] {
			t.Errorf("README.md has a section %s, and there is no such alert", alert)
		}
		for _, part := range []string{"- **In danger:**", "- **Look:**", "- **Do:**", "- **Causes, likeliest first:**", "- **Wait if**"} {
			if !strings.Contains(text, part) {
				t.Errorf("README.md, %s: no %s", alert, part)
			}
		}
	}
}

// explained gives the sections of the runbook, by alert.
func explained(t *testing.T) map[string]string {
	t.Helper()
	_, all, found := strings.Cut(file(t, "README.md"), "\n## When an alert fires\n")
	if !found {
		t.Fatal("README.md has no section about alerts")
	}
	all, _, _ = strings.Cut(all, "\n## ")
	sections := map[string]string{}
	for _, section := range strings.Split(all, "\n### ")[1:] {
		alert, text, _ := strings.Cut(section, "\n")
		sections[alert] = text
	}
	return sections
}

// heading is that of a metric in the documentation: ### postroom_x{label,label}. values are all that a label has; where the
// documentation describes them instead, any may come.
var (
	heading = regexp.MustCompile(`^(postroom_[a-z0-9_]+)(?:\{([a-z_,]+)\})?\n`)
	values  = regexp.MustCompile("(?m)^- `([a-z_]+)`: (`[a-z0-9_]+`(?:, `[a-z0-9_]+`)*)$")
)

// documented gives the metrics that there are.
func documented(t *testing.T) metrics {
	t.Helper()
	known := metrics{}
	for m, labels := range ofOthers {
		known[m] = labels
	}
	lists := 0
	for _, section := range strings.Split(file(t, "METRICS.md"), "\n### ")[1:] {
		found := heading.FindStringSubmatch(section)
		if found == nil {
			t.Fatalf("METRICS.md: a heading that is none of a metric: %.60s", section)
		}
		known[found[1]] = strings.FieldsFunc(found[2], func(r rune) bool { return r == ',' })
		for _, list := range values.FindAllStringSubmatch(section, -1) {
			known[found[1]+" "+list[1]] = strings.Split(strings.Trim(list[2], "`"), "`, `")
			lists++
		}
	}
	if len(known) < 50 || lists < 10 {
		t.Fatalf("METRICS.md has %d lists of values, and %d entries in all", lists, len(known))
	}
	return known
}

// panel is one of the dashboard's, or a row.
type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               *source
	GridPos                  struct{ X, Y, W, H int }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Targets                  []struct {
		Expr, LegendFormat string
		Datasource         *source
	}
	Panels []any
}

type source struct{ Type, UID string }

type dashboard struct {
	ID            any
	UID           string
	SchemaVersion int
	Panels        []panel
	Templating    struct {
		List []struct {
			Name, Type, Definition string
			Query                  any
			Datasource             *source
		}
	}
	Annotations struct {
		List []struct {
			Datasource *source
			Expr       string
		}
	}
}

// legend has the labels that name a line.
var (
	legend   = regexp.MustCompile(`{{([^}]*)}}`)
	variable = regexp.MustCompile(`\$\w+`)
)

func TestTheDashboardReadsWhatThereIs(t *testing.T) {
	t.Parallel()
	known := documented(t)
	d := board(t)
	var all []string
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			all = append(all, target.Expr)
			for _, fault := range known.faults(target.Expr) {
				t.Errorf("panel %q: %s", p.Title, fault)
			}
			for _, label := range legend.FindAllStringSubmatch(target.LegendFormat, -1) {
				if !slices.Contains(read(target.Expr).labels, label[1]) {
					t.Errorf("panel %q: the legend's %s is none of %s", p.Title, label[1], target.Expr)
				}
			}
		}
	}
	for _, a := range d.Annotations.List {
		all = append(all, a.Expr)
		for _, fault := range known.faults(a.Expr) {
			t.Errorf("annotations: %s", fault)
		}
	}
	// label_values(metric{...}, label)
	ofVariables := regexp.MustCompile(`^label_values\((.*), ([a-z_]+)\)$`)
	for _, v := range d.Templating.List {
		if v.Type != "query" {
			continue
		}
		parts := ofVariables.FindStringSubmatch(v.Definition)
		if query, _ := v.Query.(map[string]any); parts == nil || query["query"] != v.Definition {
			t.Errorf("variable %s: %s, %v", v.Name, v.Definition, v.Query)
			continue
		}
		expr := fmt.Sprintf("count by (%s) (%s)", parts[2], parts[1])
		all = append(all, expr)
		for _, fault := range known.faults(expr) {
			t.Errorf("variable %s: %s", v.Name, fault)
		}
	}
	var asRules bytes.Buffer
	asRules.WriteString("groups: [{name: dashboard, rules: [\n")
	variables := map[string]string{"$__rate_interval": "5m", "$job": "x", "$namespace": "x", "$mailbox": "x"}
	for i, expr := range all {
		expr = variable.ReplaceAllStringFunc(expr, func(v string) string {
			if variables[v] == "" {
				t.Errorf("%s: %s is none of the dashboard's variables", expr, v)
			}
			return variables[v]
		})
		quoted, _ := json.Marshal(expr)
		fmt.Fprintf(&asRules, "{record: 'a:b%d', expr: %s},\n", i, quoted)
	}
	asRules.WriteString("]}]\n")
	path := filepath.Join(t.TempDir(), "dashboard.yaml")
	if err := os.WriteFile(path, asRules.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", path)
}

func TestTheDashboardIsNobodysInParticular(t *testing.T) {
	t.Parallel()
	d := board(t)
	if d.ID != nil || d.UID == "" || d.SchemaVersion < 38 {
		t.Errorf("id %v, uid %q, schema %d: want none, one, Grafana 10's", d.ID, d.UID, d.SchemaVersion)
	}
	var variables []string
	for _, v := range d.Templating.List {
		variables = append(variables, v.Name)
		if v.Type != "datasource" {
			ofVariable(t, "variable "+v.Name, v.Datasource)
		}
	}
	if want := []string{"datasource", "job", "namespace", "mailbox"}; !slices.Equal(variables, want) {
		t.Errorf("variables %v, want %v", variables, want)
	}
	for _, a := range d.Annotations.List {
		ofVariable(t, "annotations", a.Datasource)
	}
	seen, taken := map[int]string{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if other := seen[p.ID]; p.ID <= 0 || other != "" {
			t.Errorf("panel %q has the id %d of %q", p.Title, p.ID, other)
		}
		seen[p.ID] = p.Title
		g := p.GridPos
		if p.Title == "" || g.X < 0 || g.Y < 0 || g.W < 1 || g.H < 1 || g.X+g.W > 24 || len(p.Panels) > 0 {
			t.Errorf("panel %q stands at %+v", p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("panels %q and %q overlap", other, p.Title)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if len(p.Description) < 20 || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
			t.Errorf("panel %q lacks a description, a unit or a query", p.Title)
		}
		ofVariable(t, p.Title, p.Datasource)
		for _, target := range p.Targets {
			ofVariable(t, p.Title, target.Datasource)
		}
	}
}

// ofVariable sees that a data source is the one that is chosen in the dashboard.
func ofVariable(t *testing.T, where string, s *source) {
	t.Helper()
	if s == nil || *s != (source{"prometheus", "${datasource}"}) {
		t.Errorf("%s: the data source is %+v, not the variable", where, s)
	}
}

func rules(t *testing.T) []rule {
	t.Helper()
	var all struct{ Groups []struct{ Rules []rule } }
	parse(t, rulesFile, &all)
	var flat []rule
	for _, g := range all.Groups {
		flat = append(flat, g.Rules...)
	}
	if len(flat) == 0 {
		t.Fatal("there are no rules")
	}
	return flat
}

func board(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	if err := json.Unmarshal([]byte(file(t, dashFile)), &d); err != nil {
		t.Fatalf("%s: %v", dashFile, err)
	}
	return d
}

func parse(t *testing.T, path string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(file(t, path)), into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func file(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// promtool runs Prometheus's own judge.
func promtool(t *testing.T, arguments ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("promtool is needed: run .ci/deps, or install Prometheus 2.42 or later")
	}
	if out, err := exec.CommandContext(t.Context(), path, arguments...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(arguments, " "), err, out)
	}
}
