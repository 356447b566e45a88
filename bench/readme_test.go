package bench

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postroom/postroom/queue"
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
	folder := t.TempDir()
	files := map[string]string{}
	for _, name := range []string{"report", "ada", "bob"} {
		files[name+".pdf"] = "%PDF-1.7 " + strings.Repeat(name, 100_000)
		if err := os.WriteFile(filepath.Join(folder, name+".pdf"), []byte(files[name+".pdf"]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var opened float64
	for _, test := range []struct {
		name string
		by   []string
		open float64 // messages
		with []string
	}{
		{"curl", []string{"sh", "-eu"}, 1, nil},
		{"python", []string{"python3", "-"}, 2, nil},
		{"curl with a file", []string{"sh", "-eu"}, 2, []string{"report.pdf"}},
		{"python with files", []string{"python3", "-"}, 2, []string{"report.pdf", "ada.pdf"}},
	} {
		var accepted struct{ ID string }
		for range 2 { // the key makes it safe to repeat
			c := exec.Command(test.by[0], test.by[1:]...)
			c.Dir, c.Env = folder, append(os.Environ(), "POSTROOM_URL="+i.front.url, "POSTROOM_TOKEN="+token)
			c.Stdin = strings.NewReader(example(t, test.name))
			var words bytes.Buffer
			c.Stderr = &words
			answer, err := c.Output()
			if err != nil {
				t.Fatalf("%s: %v\n%s\n%s", test.name, err, words.String(), answer)
			}
			// Python prints its own form.
			if err := json.Unmarshal([]byte(strings.ReplaceAll(string(answer), "'", `"`)), &accepted); err != nil || len(accepted.ID) != 26 {
				t.Errorf("%s: %v: %s", test.name, err, answer)
			}
		}
		if open := i.front.metric("postroom_messages"); open-opened != test.open {
			t.Errorf("%s: %v messages were accepted, want %v", test.name, open-opened, test.open)
		}
		opened = i.front.metric("postroom_messages")
		if test.with != nil {
			i.carries(accepted.ID, files, test.with)
		}
	}
}

// carries checks that Ada's message of a batch has these files, as they are on the disk.
func (i *installation) carries(batch string, files map[string]string, names []string) {
	i.t.Helper()
	q, err := queue.Open(i.t.Context(), queue.Options{Client: i.redis.Client, Namespace: i.namespace})
	if err != nil {
		i.t.Fatal(err)
	}
	for _, key := range i.keys("m:*") {
		m := i.message(key[len(i.key("m:")):])
		if m.BatchID != batch || m.Recipients[0].Address != "ada@example.com" {
			continue
		}
		out, err := q.Outgoing(i.t.Context(), m.ID)
		if err != nil || len(out.Files) != len(names) {
			i.t.Fatalf("message %s has not %v: %+v, %v", m.ID, names, out, err)
		}
		for k, f := range out.Files {
			if f.Name != names[k] || f.ContentType != "application/pdf" || string(f.Bytes) != files[f.Name] {
				i.t.Errorf("file %d is %q, %s, of %d bytes", k, f.Name, f.ContentType, len(f.Bytes))
			}
		}
		return
	}
	i.t.Errorf("batch %s has no message for Ada", batch)
}
