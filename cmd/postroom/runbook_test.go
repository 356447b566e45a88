package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// TestTheRunbooksCommandsExist sees that what the runbook tells people to type is there. Nothing is run.
func TestTheRunbooksCommandsExist(t *testing.T) {
	commands := 0
	text, err := os.ReadFile("../../deploy/README.md")
	if err != nil {
		t.Fatal(err)
	}
	// Code that is not fenced; a line may end within it.
	for _, code := range regexp.MustCompile("`([^`]+)`").FindAllSubmatch(text, -1) {
		line := strings.Join(strings.Fields(string(code[1])), " ")
		if rest, ok := strings.CutPrefix(line, "postroom "); ok {
			commands++
			if fault := mistyped(rest); fault != "" {
				t.Errorf("postroom %s: %s", rest, fault)
			}
		}
	}
	if commands < 20 {
		t.Errorf("only %d commands were found", commands)
	}
}

// mistyped tells what is wrong with a command line, or "". What goes through a pipe behind it is not looked at.
func mistyped(line string) string {
	line, _, _ = strings.Cut(line, " | ")
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
		"failed list --output json | jq .":      "",
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
