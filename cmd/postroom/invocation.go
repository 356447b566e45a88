package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// invocation is what to type in a shell to run this program again.
func invocation() string {
	self, err := os.Executable()
	if err != nil {
		return "postroom"
	}
	found, _ := exec.LookPath("postroom")
	here, _ := os.Getwd()
	_, err = os.Stat(filepath.Join("cmd", "postroom", "main.go"))
	return typedAs(self, found, here, err == nil)
}

// typedAs is the invocation of an executable. found is the one that a shell finds by the name postroom, here the current folder, and source says
// that it is that of the project.
func typedAs(self, found, here string, source bool) string {
	switch below, err := filepath.Rel(here, self); {
	// Where "go run" puts what it builds: a temporary folder, or since Go 1.24 the build cache.
	case strings.Contains(filepath.ToSlash(self), "/go-build") && source:
		return "go run ./cmd/postroom"
	case same(self, found):
		return "postroom"
	case err == nil && filepath.IsLocal(below):
		return quoted("." + string(filepath.Separator) + below)
	}
	return quoted(self)
}

// same reports whether two paths lead to one file.
func same(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}

// quoted writes a path for a shell.
func quoted(path string) string {
	if strings.ContainsFunc(path, func(r rune) bool { return strings.ContainsRune(" '\"\\$&|;<>()*?[]#~`!", r) }) {
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return path
}
