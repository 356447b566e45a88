package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// typed finds our commands in prose, in fenced code, and in the files that start us; what stands behind a pipe or the like is not ours.
var typed = regexp.MustCompile("(^|[^-\\w/.{])(?:/usr/local/bin/|bin/|/)?postroom ([a-z]+\\b(?:[^`|#;>)&\"'\\\\]|\"[^\"]*\"|'[^']*')*)")

// TestTheRunbooksCommandsExist sees that what the runbook and the files beside it have people and machines type is there. Nothing is run.
func TestTheRunbooksCommandsExist(t *testing.T) {
	root, commands := newRootCommand(), 0
	for _, path := range []string{"README.md", "compose/compose.yaml", "compose/postroom.yaml", "compose/prepare.sh", "systemd/postroom.service",
		"helm/postroom/values.yaml", "helm/postroom/templates/NOTES.txt"} {
		raw, err := os.ReadFile("../../deploy/" + path)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(raw), "\\\n", " ")
		// Code that is not fenced may have the end of a line in it.
		text = regexp.MustCompile("[^`]`[^`\n]+\n[^`\n]+`").ReplaceAllStringFunc(text, func(code string) string { return strings.ReplaceAll(code, "\n", " ") })
		for line := range strings.Lines(text) {
			for _, match := range typed.FindAllStringSubmatch(line, -1) {
				command := strings.TrimSpace(match[2])
				if match[1] == `"` {
					command, _, _ = strings.Cut(command, `"`)
				}
				// Words that are no command: "systemctl restart postroom", prose.
				if c, _, err := root.Find(words(command)); match[1] != "`" && (err != nil || c == root) {
					continue
				}
				commands++
				if fault := mistyped(command); fault != "" {
					t.Errorf("%s: postroom %s: %s", path, command, fault)
				}
			}
		}
	}
	if commands < 60 {
		t.Errorf("only %d commands were found", commands)
	}
}

// mistyped tells what is wrong with a command line, or "".
func mistyped(line string) string {
	command, rest, err := newRootCommand().Find(words(line))
	switch {
	case err != nil:
		return err.Error()
	case !command.Runnable() || command.HasSubCommands():
		return "it does nothing by itself"
	}
	command.InitDefaultHelpFlag()
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.AddFlagSet(command.Flags())
	flags.AddFlagSet(command.InheritedFlags())
	if err := flags.Parse(rest); err != nil {
		return err.Error()
	}
	if err := command.ValidateArgs(flags.Args()); err != nil {
		return err.Error()
	}
	return ""
}

// words splits a line at its blanks, but for those within quotes.
func words(line string) []string {
	var all []string
	for _, w := range regexp.MustCompile(`"[^"]*"|\S+`).FindAllString(line, -1) {
		all = append(all, strings.Trim(w, `"`))
	}
	return all
}

func TestAMistypedCommandIsNoticed(t *testing.T) {
	for line, want := range map[string]string{
		"mailbox list":                          "",
		`failed requeue --reply "a b" --all`:    "",
		"mailbox":                               "nothing by itself",
		"mailbocks list":                        "nothing by itself",
		"mailbox explain":                       "ADDRESS is missing",
		"failed list --sinse 3h":                "unknown flag",
		"batch cancel ID --reason \"not mine\"": "unknown flag",
	} {
		if got := mistyped(line); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}
