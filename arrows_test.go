// Package postroom_test holds the rules of the source tree as a whole: which package may import which, and two habits.
package postroom_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const module = "github.com/postroom/postroom"

// anything, as an arrow, allows every package of ours, those for tests too.
const anything = "*"

// arrows lists for each package, by its folder, which packages of ours it may import. A package that is not here may not
// exist: think where it belongs, then add it.
//
// Packages named *test are peers and suites for tests. They are not listed: each may import its parent and what its
// parent may, and is imported by test files, by cmd (demo simulates a provider) and by bench.
var arrows = map[string][]string{
	"":               {},
	"mail":           {},
	"mail/mime":      {"mail"},
	"throttle":       {"mail"},
	"provider":       {"mail"},
	"provider/oauth": {"mail", "provider"},
	"provider/smtp":  {"mail", "mail/mime", "provider", "provider/oauth"},
	"provider/graph": {"mail", "mail/mime", "provider", "provider/oauth"},
	"queue":          {"mail", "throttle"},
	"worker":         {"mail", "provider", "queue", "throttle"},
	"admin":          {"mail", "mail/mime", "provider", "queue", "throttle"},
	"config":         {"mail", "provider"},
	"deploy":         {},
	"cmd/postroom":   {anything},
	"bench":          {anything},
}

// reserved lists libraries that only the named packages, and those below them, may import.
var reserved = map[string][]string{
	"github.com/hibiken/asynq": {"queue", "bench"},
	"golang.org/x/oauth2":      {"provider/oauth"},
	// Only the process as a whole decides where spans go.
	"go.opentelemetry.io":                {"queue", "worker", "admin", "cmd/postroom", "bench"},
	"go.opentelemetry.io/otel/sdk":       {"cmd/postroom", "bench"},
	"go.opentelemetry.io/otel/exporters": {"cmd/postroom", "bench"},
	"go.opentelemetry.io/proto":          {"cmd/postroom", "bench"},
}

// standardOnly lists packages that import the standard library and nothing else.
var standardOnly = []string{"mail"}

// exempt lists libraries that packages of standardOnly may import all the same: internationalised domains have to be
// understood where addresses are checked.
var exempt = []string{"golang.org/x/net/idna"}

// maxLines is the length at which a file has to be split; tests may be longer.
const maxLines = 600

func TestTheTreeKeepsItsRules(t *testing.T) {
	for _, breach := range breaches(t, os.DirFS(".")) {
		t.Error(breach)
	}
}

func TestABrokenRuleIsNoticed(t *testing.T) {
	const ours = `"` + module + `/`
	tests := map[string]struct {
		file, source string
		want         string // part of the one breach; empty: none
	}{
		"an arrow": {"worker/a.go", `package worker; import ` + ours + `queue"`, ""},
		"against an arrow": {"mail/a.go", `package mail; import ` + ours + `queue"`,
			"mail/a.go:1: mail must not import queue"},
		"against an arrow in a test": {"throttle/a_test.go", `package throttle; import ` + ours + `queue"`,
			"throttle/a_test.go:1: throttle must not import queue"},
		"config outside cmd":     {"admin/a.go", `package admin; import ` + ours + `config"`, "admin must not import config"},
		"config in cmd":          {"cmd/postroom/a.go", `package main; import ` + ours + `config"`, ""},
		"an external test":       {"queue/a_test.go", `package queue_test; import ` + ours + `queue"`, ""},
		"a sender in the worker": {"worker/a.go", `package worker; import ` + ours + `provider/smtp"`, "worker must not import provider/smtp"},
		"an unknown package":     {"util/a.go", `package util`, "util is not in the table"},
		"a test package in code": {"worker/a.go", `package worker; import ` + ours + `provider/smtp/smtptest"`,
			"smtptest, which is for tests"},
		"a test package in a test": {"worker/a_test.go", `package worker; import ` + ours + `provider/smtp/smtptest"`, ""},
		"a test package in demo":   {"cmd/postroom/a.go", `package main; import ` + ours + `provider/smtp/smtptest"`, ""},
		"a test package's parent":  {"provider/smtp/smtptest/a.go", `package smtptest; import ` + ours + `provider/smtp"`, ""},
		"a test package's reach":   {"provider/smtp/smtptest/a.go", `package smtptest; import ` + ours + `queue"`, "must not import queue"},
		"under a build tag": {"mail/a.go", "//go:build chaos\n\npackage mail; import " + ours + `queue"`,
			"mail/a.go:3: mail must not import queue"},
		"asynq in queue":         {"queue/a.go", `package queue; import "github.com/hibiken/asynq"`, ""},
		"asynq elsewhere":        {"worker/a.go", `package worker; import "github.com/hibiken/asynq"`, "only queue, bench may import"},
		"asynq below":            {"cmd/postroom/a.go", `package main; import "github.com/hibiken/asynq/x"`, "only queue, bench may import"},
		"spans in queue":         {"queue/a.go", `package queue; import "go.opentelemetry.io/otel/trace"`, ""},
		"spans in a sender":      {"provider/smtp/a.go", `package smtp; import "go.opentelemetry.io/otel/trace"`, "only queue, worker, admin"},
		"an exporter in worker":  {"worker/a.go", `package worker; import "go.opentelemetry.io/otel/exporters/otlp/otlptrace"`, "only cmd/postroom, bench may import"},
		"the SDK in a test":      {"queue/a_test.go", `package queue; import "go.opentelemetry.io/otel/sdk/trace"`, "only cmd/postroom, bench may import"},
		"a name like asynq":      {"worker/a.go", `package worker; import "github.com/hibiken/asynqmon"`, ""},
		"a library in mail":      {"mail/a.go", `package mail; import "github.com/oklog/ulid/v2"`, "standard library only"},
		"a library in mail/mime": {"mail/mime/a.go", `package mime; import "github.com/emersion/go-message"`, ""},
		"a long file":            {"mail/a.go", "package mail\n" + strings.Repeat("\n", maxLines), "601 lines"},
		"a long test":            {"mail/a_test.go", "package mail\n" + strings.Repeat("\n", maxLines), ""},
		"sleep in a test":        {"mail/a_test.go", `package mail; import "time"; func f() { time.Sleep(1) }`, "time.Sleep"},
		"sleep in a bubble": {"mail/a_test.go",
			`package mail; import ("time"; "testing/synctest"); func f() { synctest.Test(nil, func() { time.Sleep(1) }) }`, ""},
		"sleep in a string": {"mail/a_test.go", `package mail; const s = "time.Sleep(1)"`, ""},
		"fixtures":          {"queue/testdata/a.go", `package anything; import ` + ours + `admin"`, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := breaches(t, fstest.MapFS{test.file: {Data: []byte(test.source)}})
			if test.want == "" && len(got) == 0 {
				return
			}
			if test.want == "" || len(got) != 1 || !strings.Contains(got[0], test.want) {
				t.Errorf("got %q, want one breach with %q", got, test.want)
			}
		})
	}
}

// breaches reads every Go file of the tree, whatever its build tags, and tells what is against the rules.
func breaches(t *testing.T, tree fs.FS) []string {
	t.Helper()
	var all []string
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); base != "." && (base == "testdata" || base[0] == '.' || base[0] == '_' || hasModule(tree, name)) {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		source, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, source, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		all = append(all, wrongImports(fset, file)...)
		if strings.HasSuffix(name, "_test.go") {
			all = append(all, sleeps(fset, file)...)
		} else if n := bytes.Count(source, []byte("\n")); n > maxLines {
			all = append(all, fmt.Sprintf("%s: %d lines; split it at %d", name, n, maxLines))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// hasModule reports whether dir is a module of its own, such as the one that pins the tools.
func hasModule(tree fs.FS, dir string) bool {
	_, err := fs.Stat(tree, path.Join(dir, "go.mod"))
	return err == nil
}

func wrongImports(fset *token.FileSet, file *ast.File) []string {
	name := fset.File(file.Package).Name()
	from := strings.TrimPrefix(path.Dir(name), ".")
	allowed, known := arrowsFrom(from)
	if !known {
		return []string{fmt.Sprintf("%s: package %s is not in the table of arrows_test.go", name, from)}
	}
	isTest := strings.HasSuffix(name, "_test.go")

	var wrong []string
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			imported = spec.Path.Value
		}
		if why := against(from, imported, allowed, isTest); why != "" {
			wrong = append(wrong, fmt.Sprintf("%s:%d: %s must not import %s", name, fset.Position(spec.Pos()).Line, from, why))
		}
	}
	return wrong
}

// arrowsFrom gives what the package in folder from may import, and whether such a package may exist.
func arrowsFrom(from string) (allowed []string, known bool) {
	if parent := path.Dir(from); forTests(from) {
		allowed, known = arrows[parent]
		return append([]string{parent}, allowed...), known
	}
	if from == "bench" || strings.HasPrefix(from, "bench/") {
		return arrows["bench"], true
	}
	allowed, known = arrows[from]
	return allowed, known
}

// against tells what is wrong with an import, beginning with the name of what is imported, or gives "".
func against(from, imported string, allowed []string, isTest bool) string {
	if ours, ok := strings.CutPrefix(imported, module+"/"); ok {
		switch {
		case ours == from || slices.Contains(allowed, anything):
			return "" // A test in a package of its own imports what it tests.
		case forTests(ours) && (isTest || forTests(from)):
			return ""
		case forTests(ours):
			return ours + ", which is for tests"
		case !slices.Contains(allowed, ours):
			return fmt.Sprintf("%s (its arrows: %s)", ours, strings.Join(allowed, ", "))
		}
		return ""
	}
	for library, owners := range reserved {
		if within(imported, library) && !slices.ContainsFunc(owners, func(owner string) bool { return within(from, owner) }) {
			return fmt.Sprintf("%s: only %s may import it", imported, strings.Join(owners, ", "))
		}
	}
	if host, _, _ := strings.Cut(imported, "/"); strings.Contains(host, ".") && slices.Contains(standardOnly, from) && !slices.Contains(exempt, imported) && !isTest {
		return imported + ": standard library only"
	}
	return ""
}

// within reports whether name is root or below it.
func within(name, root string) bool { return name == root || strings.HasPrefix(name, root+"/") }

func forTests(folder string) bool { return strings.HasSuffix(folder, "test") }

// sleeps finds time.Sleep in tests: a test that waits for a time is slow, or flaky, or both. Inside of synctest.Test it
// is fine, since the clock of a bubble does not take time.
func sleeps(fset *token.FileSet, file *ast.File) []string {
	var found []string
	ast.Inspect(file, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && selects(call.Fun, "synctest", "Test") {
			return false
		}
		if expr, ok := n.(ast.Expr); ok && selects(expr, "time", "Sleep") {
			found = append(found, fmt.Sprintf("%s: time.Sleep in a test; wait for what happens, or use testing/synctest", fset.Position(n.Pos())))
		}
		return true
	})
	return found
}

// selects reports whether e is pkg.name.
func selects(e ast.Expr, pkg, name string) bool {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != name {
		return false
	}
	id, ok := sel.X.(*ast.Ident)
	return ok && id.Name == pkg
}
