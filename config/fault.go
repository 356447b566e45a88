package config

import (
	"fmt"
	"strings"
)

// Fault is one thing that is wrong with a configuration. Its texts never hold the value of a secret.
type Fault struct {
	// Path is the key, such as "worker.concurrency" or "auth.tokens[1].role".
	Path string
	// Where says who set it: "postroom.yaml:12", or a variable of the environment. Empty for a default.
	Where string
	// Problem is what is wrong, Danger what would come of it, Remedy what to do.
	Problem, Danger, Remedy string
}

// String gives the fault on three lines.
func (f Fault) String() string {
	at := f.Path
	if at == "" {
		at = f.Where
	} else if f.Where != "" && f.Where != f.Path {
		at += " (" + f.Where + ")"
	}
	return fmt.Sprintf("%s: %s\n    danger: %s\n    to do:  %s", at, f.Problem, f.Danger, f.Remedy)
}

// Error is every fault of a configuration.
type Error struct {
	Faults []Fault
}

// Error lists the faults, file first, then the environment, then what only shows in the whole.
func (e *Error) Error() string {
	var b strings.Builder
	switch n := len(e.Faults); n {
	case 1:
		b.WriteString("config: 1 fault")
	default:
		fmt.Fprintf(&b, "config: %d faults", n)
	}
	for _, f := range e.Faults {
		b.WriteString("\n  ")
		b.WriteString(f.String())
	}
	return b.String()
}

// nearest gives the candidate that is most like name, or "" if none is much like it.
func nearest(name string, candidates []string) string {
	best, least := "", len(name)/3+2
	for _, candidate := range candidates {
		if d := distance(name, candidate); d < least {
			best, least = candidate, d
		}
	}
	return best
}

// distance is Levenshtein's: how many letters to insert, delete or replace.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
