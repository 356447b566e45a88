package main

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postroom/postroom/queue"
)

// posts keeps the bodies of what is posted, by path.
func posts(t *testing.T, into map[string][]string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				into[r.URL.Path] = append(into[r.URL.Path], string(body))
				r.Body = io.NopCloser(bytes.NewReader(body))
			}
			next.ServeHTTP(w, r)
		})
	}
}

func TestLargeFilesAreStoredAndReferredTo(t *testing.T) {
	got := map[string][]string{}
	q := startAPI(t, posts(t, got))
	large := file(t, "large.pdf", strings.Repeat("x", storedFrom+1))
	args := []string{"send", "--kind", "report", "--to", "ada@x.example", "--subject", "s", "--text", "t", "--idempotency-key", "k",
		"--attach", large + ";name=Figures.pdf", "--attach", file(t, "small.txt", strings.Repeat("y", storedFrom)), "--output", "json"}
	first := postroom(t, "", args...)
	first.want(t, 0)
	if stored := got["/v1/contents"]; len(stored) != 1 || stored[0] != strings.Repeat("x", storedFrom+1) {
		t.Fatalf("%d files are stored", len(stored))
	}
	if m := got["/v1/messages"][0]; len(m) > 2*storedFrom || !strings.Contains(m, `"ref":"`) || !strings.Contains(m, "Figures.pdf") {
		t.Errorf("the message has %d bytes", len(m))
	}
	m, err := q.Outgoing(t.Context(), idIn(t, first.stdout))
	if err != nil || len(m.Files) != 2 || m.Files[0].Name != "Figures.pdf" || len(m.Files[0].Bytes) != storedFrom+1 || m.Files[0].ContentType != "application/pdf" {
		t.Errorf("%+v, %v", m, err)
	}
	// The same command is the same request, though its file is stored anew.
	if again := postroom(t, "", args...); again.code != 0 || again.stdout != first.stdout {
		t.Errorf("repeated: %d %s %s", again.code, again.stdout, again.stderr)
	}
	if dry := postroom(t, "", append(args, "--dry-run")...); dry.code != 0 || len(got["/v1/contents"]) != 2 {
		t.Errorf("a dry run stores a file: %d %s", dry.code, dry.stderr)
	}
}

func idIn(t *testing.T, stdout string) string {
	t.Helper()
	_, rest, found := strings.Cut(stdout, `"id"`)
	parts := strings.SplitN(rest, `"`, 3)
	if !found || len(parts) < 3 {
		t.Fatalf("no id in %q", stdout)
	}
	return parts[1]
}

func TestRecipientsOfAListHaveFilesOfTheirOwn(t *testing.T) {
	got := map[string][]string{}
	q := startAPI(t, posts(t, got))
	folder := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	elsewhere := file(t, "elsewhere.csv", "absolute")
	write("north.csv", "north")
	large := write("shared.pdf", strings.Repeat("x", storedFrom+1))
	list := write("list.csv", "address,name,attach\na@x.example,A,north.csv\nb@x.example,B,"+elsewhere+"\nc@x.example,C,\nd@x.example,D,./north.csv\n")
	args := []string{"send", "--kind", "report", "--recipients", list, "--subject", "For {{.name}}", "--text", "t", "--attach", large,
		"--batch-size", "2", "--idempotency-key", "k", "--output", "json"}
	postroom(t, "", append(args, "--dry-run")...).want(t, 0)
	if len(got) > 0 {
		t.Errorf("a dry run posts %v", got)
	}
	r := postroom(t, "", args...)
	r.want(t, 0)
	if n := len(got["/v1/contents"]); n != 3 {
		t.Errorf("%d files are stored, want each path once: 3", n)
	}
	for i, one := range lines(t, r.stdout) {
		m, err := q.Outgoing(t.Context(), one.ID)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, f := range m.Files {
			names = append(names, f.Name)
		}
		if want := []string{"shared.pdf north.csv", "shared.pdf elsewhere.csv", "shared.pdf", "shared.pdf north.csv"}[i]; strings.Join(names, " ") != want {
			t.Errorf("%s gets %v, want %s", one.Address, names, want)
		}
		if len(m.Files) == 2 && string(m.Files[1].Bytes) != []string{"north", "absolute", "", "north"}[i] {
			t.Errorf("%s gets %q", one.Address, m.Files[1].Bytes)
		}
	}
	if again := postroom(t, "", args...); again.code != 0 || again.stdout != r.stdout {
		t.Errorf("repeated: %d %s %s", again.code, again.stdout, again.stderr)
	}
	var contents []*queue.StoredContent
	for _, body := range got["/v1/batches"] {
		_, ref, _ := strings.Cut(body, `"ref":"`)
		c, err := q.Content(t.Context(), ref[:26])
		if err != nil {
			t.Fatal(err)
		}
		contents = append(contents, c)
	}
	if contents[0].ID != contents[1].ID || contents[0].Shares != 2 {
		t.Errorf("the shared file: %+v", contents[0])
	}

	write("list.csv", "address,attach\na@x.example,north.csv\nb@x.example,secret-name.csv\n")
	before := len(got["/v1/contents"])
	missing := postroom(t, "", args...)
	missing.want(t, 1, "line 3", "no such file")
	if strings.Contains(missing.stderr, "secret-name") || len(got["/v1/contents"]) != before {
		t.Errorf("%s; or something was stored", missing.stderr)
	}
}
