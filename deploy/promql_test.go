package deploy_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// selector is a metric that an expression reads, and the labels that it asks of it.
type selector struct {
	metric  string
	matches []match
}

// match is one condition: values are all that would do, none if it asks for others than some.
type match struct {
	label  string
	values []string
}

// reading is what an expression reads: its metrics, and the labels that it groups and matches by.
type reading struct {
	selectors []selector
	labels    []string
}

// tokens of PromQL, as far as names matter. What promtool takes is well formed.
var tokens = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[$0-9][0-9a-zA-Z_.:]*|[a-zA-Z_:][a-zA-Z0-9_:]*|=~|!~|!=|[^\s]`)

// words of PromQL that are no metric though no parenthesis follows.
var words = []string{"and", "or", "unless", "bool", "offset", "inf", "nan"}

// lists are followed by labels in parentheses.
var lists = []string{"by", "without", "on", "ignoring", "group_left", "group_right"}

// read tells what an expression reads.
func read(expr string) reading {
	var r reading
	all := tokens.FindAllString(expr, -1)
	at := func(i int) string {
		if i < len(all) {
			return all[i]
		}
		return ""
	}
	for i := 0; i < len(all); i++ {
		word := all[i]
		switch {
		case !name.MatchString(word) || slices.Contains(words, strings.ToLower(word)):
		case slices.Contains(lists, word):
			if at(i+1) != "(" {
				continue
			}
			for i += 2; i < len(all) && all[i] != ")"; i++ {
				if all[i] != "," {
					r.labels = append(r.labels, all[i])
				}
			}
		case at(i+1) == "(" || slices.Contains(lists, at(i+1)): // a function, or sum by (...)
		default:
			s := selector{metric: word}
			if at(i+1) == "{" {
				for i += 2; i < len(all) && all[i] != "}"; i++ {
					if name.MatchString(all[i]) {
						s.matches = append(s.matches, matching(all[i], at(i+1), at(i+2)))
					}
				}
			}
			r.selectors = append(r.selectors, s)
		}
	}
	return r
}

// plain are the alternatives of a regular expression that has nothing else.
var plain = regexp.MustCompile(`^[a-z0-9_]+(\|[a-z0-9_]+)*$`)

func matching(label, operator, quoted string) match {
	m := match{label: label}
	if value := strings.Trim(quoted, `"'`); operator == "=" || operator == "=~" && plain.MatchString(value) {
		m.values = strings.Split(value, "|")
	}
	return m
}

var name = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)

// ofTargets are labels that Prometheus adds to what it scrapes; namespace on Kubernetes.
var ofTargets = []string{"job", "instance", "namespace"}

// metrics are names with their labels, without those that Prometheus adds. Under "name label" are the values of a label, if they are known.
type metrics map[string][]string

// ofOthers are metrics that are none of ours: of Prometheus itself, and of its client library for Go.
var ofOthers = metrics{
	"up":                            nil,
	"ALERTS":                        {"alertname", "alertstate"},
	"process_cpu_seconds_total":     nil,
	"process_resident_memory_bytes": nil,
	"go_goroutines":                 nil,
}

// labels gives those of a metric; a histogram is documented by its name alone.
func (m metrics) labels(metric string) (labels []string, known bool) {
	if labels, known = m[metric]; known {
		return labels, true
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		base, cut := strings.CutSuffix(metric, suffix)
		if labels, known = m[base]; cut && known && strings.HasSuffix(base, "_seconds") {
			if suffix == "_bucket" {
				labels = append(slices.Clone(labels), "le")
			}
			return labels, true
		}
	}
	return nil, false
}

// faults tells what an expression names that does not exist.
func (m metrics) faults(expr string) []string {
	var faults []string
	r := read(expr)
	union := map[string]bool{}
	for _, s := range r.selectors {
		labels, known := m.labels(s.metric)
		if !known {
			faults = append(faults, "no metric "+s.metric)
		}
		labels = slices.Concat(labels, ofTargets)
		for _, l := range labels {
			union[l] = true
		}
		for _, match := range s.matches {
			if known && !slices.Contains(labels, match.label) {
				faults = append(faults, fmt.Sprintf("no label %s of %s", match.label, s.metric))
			}
			values, listed := m[s.metric+" "+match.label]
			for _, v := range match.values {
				if listed && !slices.Contains(values, v) {
					faults = append(faults, fmt.Sprintf("no %s %s of %s", match.label, v, s.metric))
				}
			}
		}
	}
	for _, l := range r.labels {
		if !union[l] {
			faults = append(faults, fmt.Sprintf("no label %s of what it is about", l))
		}
	}
	if len(r.selectors) == 0 {
		faults = append(faults, "no metric at all")
	}
	return faults
}

// recorded gives the labels of what a rule records.
func (m metrics) recorded(expr string, added map[string]string) []string {
	labels := slices.Clone(read(expr).labels)
	labels = append(labels, slices.Collect(maps.Keys(added))...)
	slices.Sort(labels)
	return slices.Compact(labels)
}

func TestNamesThatDoNotExistAreNoticed(t *testing.T) {
	known := metrics{"a_total": {"kind"}, "a_total kind": {"x", "y"}, "a_seconds": {"kind"}, "b": nil, "job:a:sum": {"what"}}
	for expr, want := range map[string]string{
		`sum by (kind, job) (rate(a_total{kind=~"x|y"}[5m] offset 1h)) > bool 1e3 and on (job) b == 0`:    "",
		`histogram_quantile(0.9, sum by (kind, le) (rate(a_seconds_bucket{kind="x"}[$__rate_interval])))`: "",
		`job:a:sum{what="x",instance="y"} unless on (job) b`:                                              "",
		`max_over_time((max(b) > bool 180)[3m:30s])`:                                                      "",
		`sum(rate(c_total[5m]))`:                    "no metric c_total",
		`a_total{kind=~"x|z"}`:                      "no kind z of a_total",
		`a_total{kind="z"} or a_total{kind!="z"}`:   "no kind z of a_total",
		`a_total{kind=~"z.*",job="z"}`:              "",
		`a_total{result="x"}`:                       "no label result of a_total",
		`sum by (mailbox) (a_total)`:                "no label mailbox of what it is about",
		`sum(a_total) by (mailbox)`:                 "no label mailbox of what it is about",
		`a_total_count`:                             "no metric a_total_count",
		`sum by (le) (a_seconds_sum)`:               "no label le of what it is about",
		`a_total * on (job) group_left (version) b`: "no label version of what it is about",
		`vector(1)`:                                 "no metric at all",
		`label_values(b{job="$job"}, mailbox)`:      "no metric mailbox",
		`"a_total" == 'b' or c`:                     "no metric c",
	} {
		if got := strings.Join(known.faults(expr), "; "); got != want {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
}
