package bench

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/postroom/postroom/mail"
)

// example gives a block of the README by the comment above it.
func example(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "<!-- example: "+name+" -->\n\n")
	if !found {
		t.Fatalf("the README has no example %q", name)
	}
	var block strings.Builder
	for line := range strings.Lines(rest) {
		code, indented := strings.CutPrefix(line, "    ")
		if !indented && strings.TrimSpace(line) != "" {
			break
		}
		block.WriteString(code)
	}
	return block.String()
}

// TestTheReadmesProducersInOtherLanguagesSend runs what the README shows, as it stands there.
func TestTheReadmesProducersInOtherLanguagesSend(t *testing.T) {
	t.Parallel()
	i := install(t, map[string]any{"kind": "none"})
	for _, test := range []struct {
		name string
		by   *exec.Cmd
		kind mail.Kind
		open int
	}{
		{"curl", exec.Command("sh", "-eu"), mail.Alert, 1},
		{"python", exec.Command("python3", "-"), mail.Report, 2},
	} {
		for range 2 { // the key makes it safe to repeat
			c := exec.Command(test.by.Path, test.by.Args[1:]...)
			c.Env = append(os.Environ(), "POSTROOM_URL="+i.front.url, "POSTROOM_TOKEN="+token)
			c.Stdin = strings.NewReader(example(t, test.name))
			var words bytes.Buffer
			c.Stderr = &words
			answer, err := c.Output()
			if err != nil {
				t.Fatalf("%s: %v\n%s\n%s", test.name, err, words.String(), answer)
			}
			var accepted struct{ ID string }
			// Python prints its own form.
			if err := json.Unmarshal([]byte(strings.ReplaceAll(string(answer), "'", `"`)), &accepted); err != nil || len(accepted.ID) != 26 {
				t.Errorf("%s: %v: %s", test.name, err, answer)
			}
		}
		if open := i.front.metric(`postroom_messages{kind="` + string(test.kind) + `",state="open"}`); open != float64(test.open) {
			t.Errorf("%s: %v messages are open, want %d", test.name, open, test.open)
		}
	}
}
