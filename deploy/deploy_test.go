package deploy_test

// What can be told of what is installed without Docker, helm and a cluster; make deploy-check does the rest.

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

func text(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func parsed[T any](t *testing.T, path string) T {
	t.Helper()
	var v T
	if err := yaml.Unmarshal([]byte(text(t, path)), &v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return v
}

// program is postroom, built for all tests.
var program string

func TestMain(m *testing.M) {
	folder, err := os.MkdirTemp("", "deploy")
	if err != nil {
		log.Fatal(err)
	}
	program = filepath.Join(folder, "postroom")
	if out, err := exec.Command("go", "build", "-o", program, "../cmd/postroom").CombinedOutput(); err != nil {
		log.Fatalf("%v\n%s", err, out)
	}
	code := m.Run()
	_ = os.RemoveAll(folder)
	os.Exit(code)
}

// variables are those that the configuration knows.
func variables(t *testing.T) []string {
	t.Helper()
	return strings.Fields(text(t, "../config/testdata/variables.txt"))
}

// shutdownTimeout is the default of worker.shutdown_timeout.
func shutdownTimeout(t *testing.T) time.Duration {
	t.Helper()
	c := parsed[struct {
		Worker struct {
			ShutdownTimeout string `yaml:"shutdown_timeout"`
		}
	}](t, "../config/postroom.example.yaml")
	d, err := time.ParseDuration(c.Worker.ShutdownTimeout)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// closing is what a process takes beyond the time-out, to close its listener.
const closing = 5 * time.Second

func TestTheImageIsBuiltByTheModulesGoOfAllThatItNeeds(t *testing.T) {
	dockerfile := text(t, "Dockerfile")
	version := regexp.MustCompile(`(?m)^go (\S+)$`).FindStringSubmatch(text(t, "../go.mod"))[1]
	if !strings.Contains(dockerfile, "FROM golang:"+version+"-") {
		t.Errorf("Dockerfile: not built by Go %s, which go.mod names", version)
	}
	_, last, found := strings.Cut(dockerfile, "\nFROM scratch AS final\n")
	if !found || !regexp.MustCompile(`(?m)^USER [1-9]\d*:[1-9]\d*$`).MatchString(last) {
		t.Error("Dockerfile: the image is not of scratch, or its user is no number")
	}
	if regexp.MustCompile(`(?m)^(RUN|FROM|CMD [^\[]|HEALTHCHECK .*CMD [^\[])`).MatchString(last) {
		t.Error("Dockerfile: what has no shell runs one")
	}

	passed := strings.Fields(text(t, "../.dockerignore"))
	out, err := exec.Command("go", "list", "-deps", "-f", `{{if .Module}}{{if .Module.Main}}{{.Dir}}{{end}}{{end}}`, "../cmd/postroom").Output()
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	folders := strings.Fields(string(out))
	if len(folders) < 10 {
		t.Fatalf("go list: %s", out)
	}
	for _, folder := range folders {
		top, _, _ := strings.Cut(strings.TrimPrefix(folder, root+"/"), "/")
		if !slices.Contains(passed, "!"+top) {
			t.Errorf(".dockerignore: the program is built of %s, which does not get there", top)
		}
	}
}

func TestTheComposeFileStartsAsItStands(t *testing.T) {
	compose := parsed[struct {
		Services map[string]struct {
			Volumes     []string
			Ports       []string
			Environment map[string]string
			Grace       string `yaml:"stop_grace_period"`
		}
		Volumes map[string]any
	}](t, "compose/compose.yaml")
	for name, s := range compose.Services {
		for _, port := range s.Ports {
			if !strings.HasPrefix(port, "127.0.0.1:") {
				t.Errorf("%s: %s is open to more than this machine", name, port)
			}
		}
		for _, volume := range s.Volumes {
			source, _, _ := strings.Cut(volume, ":")
			if !strings.HasPrefix(source, ".") {
				if _, ok := compose.Volumes[source]; !ok {
					t.Errorf("%s: there is no volume %s", name, source)
				}
			} else if info, err := os.Stat(filepath.Join("compose", source)); err != nil || !info.Mode().IsRegular() {
				t.Errorf("%s mounts %s, which is no file: %v", name, source, err)
			}
		}
	}
	postroom := compose.Services["postroom"]
	if grace, err := time.ParseDuration(postroom.Grace); err != nil || grace <= shutdownTimeout(t)+closing {
		t.Errorf("postroom is killed after %q: %v", postroom.Grace, err)
	}
	for name := range postroom.Environment {
		if name != "POSTROOM_TOKEN_FILE" && !slices.Contains(variables(t), name) {
			t.Errorf("postroom: no such variable: %s", name)
		}
	}
}

// What compose's first step makes is what the server takes, and is made once.
func TestPrepareMakesATokenAndAKeyOnce(t *testing.T) {
	folder := t.TempDir()
	script := strings.NewReplacer("/postroom token", program+" token", "/postroom key", program+" key", "cat /postroom.yaml", "cat compose/postroom.yaml",
		"chown 65532:65532", "ls").Replace(text(t, "compose/prepare.sh"))
	prepare := func() (token string) {
		if out, err := exec.Command("sh", "-c", "root=$PWD; "+strings.Replace(script, "cat compose", "cat $root/compose", 1), "prepare", folder).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return strings.TrimSpace(text(t, filepath.Join(folder, "token")))
	}
	token := prepare()
	sum := sha256.Sum256([]byte(token))
	check := exec.Command(program, "serve", "--config", filepath.Join(folder, "postroom.yaml"), "--check-config")
	check.Env = append(os.Environ(), "POSTROOM_SECRETS_KEYS_FILE="+filepath.Join(folder, "seal-keys"))
	out, err := check.CombinedOutput()
	if err != nil || !strings.Contains(string(out), hex.EncodeToString(sum[:])) || !strings.Contains(string(out), "mailpit") {
		t.Errorf("serve --check-config: %v\n%s", err, out)
	}
	key := text(t, filepath.Join(folder, "seal-keys"))
	if again := prepare(); again != token || text(t, filepath.Join(folder, "seal-keys")) != key {
		t.Error("the second start made another token or key")
	}
	for _, name := range []string{"token", "seal-keys"} {
		if info, err := os.Stat(filepath.Join(folder, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
}

func TestTheUnitIsSoundAndOutlastsTheShutdown(t *testing.T) {
	unit := text(t, "systemd/postroom.service")
	settings := make(map[string][]string)
	for _, line := range regexp.MustCompile(`(?m)^(\w+)=(.*)$`).FindAllStringSubmatch(unit, -1) {
		settings[line[1]] = append(settings[line[1]], line[2])
	}
	if stop, err := time.ParseDuration(settings["TimeoutStopSec"][0]); err != nil || stop <= shutdownTimeout(t)+closing {
		t.Errorf("TimeoutStopSec=%s: %v", stop, err)
	}
	for _, assignment := range strings.Fields(settings["Environment"][0]) {
		name, value, _ := strings.Cut(assignment, "=")
		if !slices.Contains(variables(t), name) {
			t.Errorf("Environment: no such variable: %s", name)
		}
		credential := strings.TrimPrefix(value, "%d/")
		if !slices.ContainsFunc(settings["LoadCredential"], func(c string) bool { return strings.HasPrefix(c, credential+":") }) {
			t.Errorf("%s: nothing loads the credential %s", name, credential)
		}
	}

	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	// verify wants to see the program.
	path := filepath.Join(t.TempDir(), "postroom.service")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(unit, "/usr/local/bin/postroom", "/bin/true")), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-analyze", "verify", "--man=no", path).CombinedOutput(); err != nil || strings.Contains(string(out), "postroom.service:") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	if out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=13", "--no-pager", path).CombinedOutput(); err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}

func TestRedisTakesItsSettings(t *testing.T) {
	folder, err := os.MkdirTemp("", "redis") // t.TempDir's names can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	socket := filepath.Join(folder, "s")
	server := exec.CommandContext(t.Context(), "redis-server", "redis.conf", "--port", "0", "--unixsocket", socket, "--dir", folder)
	words, err := server.StdoutPipe()
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	var said strings.Builder
	for lines := bufio.NewScanner(words); !strings.Contains(said.String(), "eady to accept connections"); {
		if !lines.Scan() {
			t.Fatalf("redis-server ended:\n%s", said.String())
		}
		said.WriteString(lines.Text() + "\n")
	}
	for key, want := range map[string]string{"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "maxmemory": "2147483648"} {
		out, err := exec.Command("redis-cli", "-s", socket, "config", "get", key).Output()
		if got := strings.Fields(string(out)); err != nil || len(got) != 2 || got[1] != want {
			t.Errorf("%s is %q, want %s: %v", key, got, want, err)
		}
	}
}

// schema is the part of a JSON schema that is looked at here.
type schema struct {
	Properties           map[string]json.RawMessage
	AdditionalProperties json.RawMessage
	PropertyNames        struct{ Enum []string }
}

func TestTheChartsSchemaAndValuesAgree(t *testing.T) {
	var root schema
	if err := json.Unmarshal([]byte(text(t, "helm/postroom/values.schema.json")), &root); err != nil {
		t.Fatal(err)
	}
	values := parsed[map[string]any](t, "helm/postroom/values.yaml")
	agree(t, "", root, values)

	var files schema
	if err := json.Unmarshal(root.Properties["secretFiles"], &files); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, name := range variables(t) {
		if strings.HasSuffix(name, "_FILE") {
			want = append(want, name)
		}
	}
	if !slices.Equal(files.PropertyNames.Enum, want) {
		t.Errorf("values.schema.json: secretFiles takes %q; the configuration knows %q", files.PropertyNames.Enum, want)
	}
}

// agree demands that a closed object of the schema has the keys of the values, and no others.
func agree(t *testing.T, path string, s schema, values map[string]any) {
	t.Helper()
	if string(s.AdditionalProperties) != "false" {
		return
	}
	for name, below := range s.Properties {
		value, ok := values[name]
		if !ok && name != "global" {
			t.Errorf("values.yaml: %s%s is in the schema alone", path, name)
		}
		var inner schema
		if object, ok := value.(map[string]any); ok && json.Unmarshal(below, &inner) == nil {
			agree(t, path+name+".", inner, object)
		}
	}
	for name := range values {
		if _, ok := s.Properties[name]; !ok {
			t.Errorf("values.yaml: the schema has no %s%s", path, name)
		}
	}
}
