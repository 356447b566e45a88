package bench

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// generatedSend sends a mail by a client that a generator has made of the document.
const generatedSend = `package main

import (
	"context"
	"fmt"
	"net/http"
	"os"

	"github.com/postroom/postroom/tools/api"
)

func main() {
	c, err := api.NewClientWithResponses(os.Getenv("POSTROOM_URL"), api.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+os.Getenv("POSTROOM_TOKEN"))
		return nil
	}))
	if err != nil {
		panic(err)
	}
	text, to := "It works.", []api.Address{{Address: "ada@example.com"}}
	r, err := c.SendMessageWithResponse(context.Background(), nil, api.Message{Kind: "alert", Subject: "Hello", Text: &text, To: &to})
	if err != nil || r.JSON202 == nil {
		panic(fmt.Sprint(err, " ", string(r.Body)))
	}
	m, err := c.GetMessageWithResponse(context.Background(), r.JSON202.Id)
	if err != nil || m.JSON200 == nil {
		panic(fmt.Sprint(err, " ", string(m.Body)))
	}
	fmt.Print(m.JSON200.State)
}
`

// TestAGeneratedClientSends has the document judged by another's validator, makes a client of it by a public generator, and sends a mail.
func TestAGeneratedClientSends(t *testing.T) {
	t.Parallel()
	if !*full {
		t.Skip("compiles a generator and a client: long form only")
	}
	tools, err := filepath.Abs("../tools")
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	call := func(folder string, environment []string, arguments ...string) string {
		t.Helper()
		c := exec.Command("go", arguments...)
		c.Dir, c.Env = folder, append(os.Environ(), environment...)
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(arguments, " "), err, out)
		}
		return string(out)
	}
	document := filepath.Join(tools, "../admin/openapi.json")
	call(tools, nil, "run", "./openapi", document)
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(tools, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(work, name), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(work, "api"), 0o700); err != nil {
		t.Fatal(err)
	}
	call(tools, nil, "tool", "oapi-codegen", "-generate", "types,client", "-package", "api", "-o", filepath.Join(work, "api", "api.go"), document)
	if err := os.WriteFile(filepath.Join(work, "main.go"), []byte(generatedSend), 0o600); err != nil {
		t.Fatal(err)
	}
	i := install(t, map[string]any{"kind": "none"})
	if state := call(work, []string{"POSTROOM_URL=" + i.front.url, "POSTROOM_TOKEN=" + token}, "run", "."); state != "queued" {
		t.Errorf("the mail is %q", state)
	}
}
