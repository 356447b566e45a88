package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/queue"
)

// inStore answers GET /v1/messages/{id} for a message of the failed store.
func inStore(w http.ResponseWriter, r *http.Request) bool {
	if !strings.HasPrefix(r.URL.Path, "/v1/messages/") {
		return false
	}
	recipients := []admin.RecipientStatus{{Address: "ada@x.example", State: "delivered"}}
	for _, name := range []string{"bob", "cid", "dan", "eve"} {
		recipients = append(recipients, admin.RecipientStatus{Address: name + "@x.example", State: "pending"})
	}
	_ = printJSON(w, admin.MessageStatus{ID: idOf(1), State: queue.Failed, Recipients: recipients})
	return true
}

// holds checks that the directory has these files and nothing else, each for its owner alone.
func holds(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(want) {
		t.Errorf("%s has %v, want %d files", dir, entries, len(want))
	}
	for name, content := range want {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(raw) != content {
			t.Errorf("%s has %q, %v, want %q", name, raw, err, content)
			continue
		}
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

func emlOf(n int) string { return "Subject: " + idOf(n) + "\r\n\r\n" }

func TestExportOfOneMessage(t *testing.T) {
	s := startFailed(t, 3)
	s.before = inStore
	r := postroom(t, "", "failed", "export", idOf(1))
	r.want(t, 0, "Still without it: bob@x.example, cid@x.example, dan@x.example +1. The file names no Bcc.")
	if r.stdout != emlOf(1) {
		t.Errorf("stdout has %q", r.stdout)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "a.eml")
	postroom(t, "", "failed", "export", idOf(1), "--out", path).want(t, 0, "MESSAGE", path, "Still without it")
	holds(t, dir, map[string]string{"a.eml": emlOf(1)})

	postroom(t, "", "failed", "export", idOf(2), "--out", path).want(t, exitFault, "is there already: --force replaces it")
	holds(t, dir, map[string]string{"a.eml": emlOf(1)})
	r = postroom(t, "", "failed", "export", idOf(2), "--out", path, "--force", "--output", "json")
	var line exportLine
	if err := json.Unmarshal([]byte(r.stdout), &line); err != nil || line != (exportLine{ID: idOf(2), File: path, Bytes: int64(len(emlOf(2)))}) {
		t.Errorf("got %q, %v", r.stdout, err)
	}
	holds(t, dir, map[string]string{"a.eml": emlOf(2)})
	postroom(t, "", "failed", "export", idOf(2), "--out", dir, "--force").want(t, exitFault, "not a file that can be replaced")
	postroom(t, "", "failed", "export", idOf(2), "--out", filepath.Join(dir, "no", "where.eml")).want(t, exitFault, "no such file or directory")

	s.before = func(w http.ResponseWriter, _ *http.Request) bool {
		_ = printJSON(w, admin.MessageStatus{ID: idOf(1), State: queue.Queued})
		return true
	}
	postroom(t, "", "failed", "export", idOf(1)).want(t, exitFault, "not in the failed store. It is queued")
}

func TestExportOfASelection(t *testing.T) {
	startFailed(t, 5)
	dir := filepath.Join(t.TempDir(), "new", "mail")
	r := postroom(t, "", "failed", "export", "--all", "--dir", dir)
	r.want(t, 0)
	if got, want := squeezed(r.stdout), "DIRECTORY EXPORTED THERE ALREADY NOT EXPORTED\n"+dir+" 5 0 0\n"; got != want || r.stderr != "" {
		t.Errorf("got %q and %q, want %q", got, r.stderr, want)
	}
	all := map[string]string{}
	for i := range 5 {
		all[idOf(i)+".eml"] = emlOf(i)
	}
	holds(t, dir, all)

	// What is there stays as it is, and a run can be repeated.
	own := filepath.Join(dir, idOf(3)+".eml")
	if err := os.WriteFile(own, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, idOf(0)+".eml")); err != nil {
		t.Fatal(err)
	}
	r = postroom(t, "", "failed", "export", "--dir", dir, "--output", "json", idOf(0), idOf(3))
	r.want(t, 0, `{"id":"`+idOf(0)+`","file":"`+filepath.Join(dir, idOf(0)+".eml")+`","bytes":`, `{"id":"`+idOf(3)+`","file":"`+own+`","already_there":true}`)
	all[idOf(3)+".eml"] = "mine"
	holds(t, dir, all)
	postroom(t, "", "failed", "export", "--dir", dir, "--force", idOf(3)).want(t, 0)
	all[idOf(3)+".eml"] = emlOf(3)
	holds(t, dir, all)
	postroom(t, "", "failed", "export", "--dir", dir, idOf(3), idOf(8)).want(t, exitFault, "not in the failed store: 1 of the ids")
	postroom(t, "", "failed", "export", "--all", "--dir", own).want(t, exitFault, "not a directory")
}

func TestExportNeverFollowsAHostileServer(t *testing.T) {
	s := startFailed(t, 3)
	for i, id := range []string{"../../../../../tmp/evil-1234", "/tmp/absolute-1234567890ab", ".."} {
		s.messages[i].ID = id
	}
	s.piece = 5
	dir := t.TempDir()
	r := postroom(t, "", "failed", "export", "--all", "--dir", dir)
	r.want(t, exitFault, "../../../../../tmp/evil-1234: not exported: The server gave it an id that is none", "3 failed messages could not be exported")
	holds(t, dir, nil)

	// A link under the name is neither followed nor, without --force, replaced.
	s.messages = s.messages[:1]
	s.messages[0].ID = idOf(0)
	outside := file(t, "outside", "untouched")
	if err := os.Symlink(outside, filepath.Join(dir, idOf(0)+".eml")); err != nil {
		t.Fatal(err)
	}
	postroom(t, "", "failed", "export", "--all", "--dir", dir).want(t, 0, "THERE ALREADY")
	postroom(t, "", "failed", "export", "--all", "--dir", dir, "--force").want(t, exitFault, "not a file that can be replaced")
	if raw, err := os.ReadFile(outside); err != nil || string(raw) != "untouched" {
		t.Errorf("outside has %q, %v", raw, err)
	}
}

func TestOneMessageThatCantBeExportedDoesNotStopTheOthers(t *testing.T) {
	s := startFailed(t, 4)
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.Contains(r.URL.Path, idOf(1)):
			w.WriteHeader(http.StatusConflict)
		case strings.Contains(r.URL.Path, idOf(2)):
			w.WriteHeader(http.StatusInternalServerError) // it can't be rendered
		default:
			return false
		}
		return true
	}
	dir := t.TempDir()
	r := postroom(t, "", "failed", "export", "--all", "--dir", dir)
	r.want(t, exitFault, idOf(1)+": not exported: Conflict\n", idOf(2)+": not exported: Internal Server Error\n", "2 failed messages could not be exported")
	holds(t, dir, map[string]string{idOf(0) + ".eml": emlOf(0), idOf(3) + ".eml": emlOf(3)})
	r = postroom(t, "", "failed", "export", "--dir", dir, "--output", "json", idOf(1), "--class", "permanent")
	r.want(t, exitFault, `{"id":"`+idOf(1)+`","problem":{`, `"status":409`)
}

func TestAFileThatIsCutIsNotLeft(t *testing.T) {
	s := startFailed(t, 3)
	cut := 0
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, idOf(1)+"/eml") || cut > 0 {
			return false
		}
		cut++
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte("Subject: half"))
		return true
	}
	dir := t.TempDir()
	postroom(t, "", "failed", "export", "--all", "--dir", dir).want(t, 0) // it is tried again
	holds(t, dir, map[string]string{idOf(0) + ".eml": emlOf(0), idOf(1) + ".eml": emlOf(1), idOf(2) + ".eml": emlOf(2)})

	cut, dir = 0, t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before := s.before
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		half := before(w, r)
		if half {
			cancel()
		}
		return half
	}
	c := newFailedExportCommand()
	var words strings.Builder
	c.SetArgs([]string{"--all", "--dir", dir})
	c.SetOut(new(strings.Builder))
	c.SetErr(&words)
	c.SilenceErrors, c.SilenceUsage = true, true
	err := c.ExecuteContext(ctx)
	if exitCode(err) != exitInterrupted || !strings.Contains(words.String(), "1 failed message in "+dir+" when this ended.") ||
		!strings.Contains(explain(err), "To go on, repeat the command.") {
		t.Errorf("%v: %s", err, words.String())
	}
	holds(t, dir, map[string]string{idOf(0) + ".eml": emlOf(0)})
}

func TestExportStopsAtWhatOthersWouldMeetToo(t *testing.T) {
	s := startFailed(t, 4)
	asked := 0
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/eml") {
			return false
		}
		asked++
		w.WriteHeader(http.StatusForbidden)
		return true
	}
	postroom(t, "", "failed", "export", "--all", "--dir", t.TempDir()).want(t, exitFault, "Forbidden (403)")
	if asked != 1 {
		t.Errorf("asked %d times, want 1", asked)
	}
}

func TestExportWaitsForAServerThatIsAwayForAMoment(t *testing.T) {
	s := startFailed(t, 1)
	away := 0
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/eml") || away > 0 {
			return false
		}
		away++
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	dir := t.TempDir()
	postroom(t, "", "failed", "export", "--all", "--dir", dir).want(t, 0, "1         0              0")
	holds(t, dir, map[string]string{idOf(0) + ".eml": emlOf(0)})
}

func TestExportReplacesNothingThatCameMeanwhile(t *testing.T) {
	s := startFailed(t, 1)
	path := filepath.Join(t.TempDir(), "a.eml")
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/eml") {
			if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
				t.Error(err)
			}
		}
		return inStore(w, r)
	}
	postroom(t, "", "failed", "export", idOf(0), "--out", path).want(t, exitFault, "is there already")
	holds(t, filepath.Dir(path), map[string]string{"a.eml": "mine"})
}
