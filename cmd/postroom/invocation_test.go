package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWhatIsTypedRunsTheSameProgram(t *testing.T) {
	folder := t.TempDir()
	self := filepath.Join(folder, "bin", "postroom")
	other := filepath.Join(folder, "postroom")
	for _, path := range []string{self, other} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(folder, "link")
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		self, found, here string
		source            bool
		want              string
	}{
		"by go run":                 {"/tmp/go-build123/b001/exe/postroom", "", "/src/postroom", true, "go run ./cmd/postroom"},
		"by go run, from its cache": {"/home/ada/.cache/go-build/6f/6fd0-d/postroom", other, "/src/postroom", true, "go run ./cmd/postroom"},
		"by go run, elsewhere":      {"/tmp/go-build123/b001/exe/postroom", "", "/src", false, "/tmp/go-build123/b001/exe/postroom"},
		"on the path":               {self, self, folder, true, "postroom"},
		"on the path, by a link":    {self, link, "/", false, "postroom"},
		"another is on the path":    {self, other, folder, true, "./bin/postroom"},
		"none is on the path":       {self, "", "/usr", false, self},
		"a path with a space":       {"/opt/mail room/postroom", "", "/usr", false, "'/opt/mail room/postroom'"},
	} {
		if got := typedAs(test.self, test.found, test.here, test.source); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}
