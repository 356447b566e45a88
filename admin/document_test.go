package admin

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write openapi.json anew")

// openAPI is what the tests read of the document.
type openAPI struct {
	OpenAPI    string
	Info       struct{ Title, Version string }
	Paths      map[string]map[string]operation
	Components struct {
		Schemas         map[string]schema
		SecuritySchemes map[string]struct{ Type, Scheme, Description string }
	}
}

type operation struct {
	OperationID string
	Summary     string
	Security    []map[string][]string
	Parameters  []struct{ Name, In, Description string }
	RequestBody *struct {
		Required bool
		Content  map[string]struct{ Schema schema }
	}
	Responses map[string]struct {
		Description string
		Content     map[string]struct{ Schema schema }
	}
}

type schema struct {
	Ref         string `json:"$ref"`
	Type        string
	Description string
	Enum        []string
	Properties  map[string]schema
	Required    []string
}

// document gives the OpenAPI document as it is served.
func served(t *testing.T) ([]byte, openAPI) {
	t.Helper()
	r := serve(t, nil).call(t, "GET", "/openapi.json", "", "")
	if r.status != 200 || r.header.Get("Content-Type") != "application/openapi+json" {
		t.Fatalf("%d %v", r.status, r.header)
	}
	var doc openAPI
	r.decode(t, &doc)
	return r.body, doc
}

func TestTheDocumentIsTheOneOnRecord(t *testing.T) {
	body, _ := served(t)
	if *update {
		if err := os.WriteFile("openapi.json", append(body, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	recorded, err := os.ReadFile("openapi.json")
	if err != nil || !bytes.Equal(bytes.TrimSpace(recorded), body) {
		t.Errorf("openapi.json is not what is served (%v): read the difference after go test ./admin -run OnRecord -update", err)
	}
}

func TestTheDocumentHasEveryOperation(t *testing.T) {
	_, doc := served(t)
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") || doc.Info.Title != "Postroom" || doc.Info.Version != "dev" {
		t.Errorf("OpenAPI %s, %+v", doc.OpenAPI, doc.Info)
	}
	if s := doc.Components.SecuritySchemes["bearer"]; s.Type != "http" || s.Scheme != "bearer" || !strings.Contains(s.Description, "producer") {
		t.Errorf("security scheme: %+v", s)
	}
	always := []string{"401", "403", "422", "429", "500", "503"}
	withID := append([]string{"200", "404"}, always...)
	withMail := append([]string{"202", "400", "408", "409", "413", "415"}, always...)
	want := map[string]struct {
		role     string
		statuses []string
	}{
		"post /v1/messages":                   {"producer", withMail},
		"get /v1/messages":                    {"operator", append([]string{"200"}, always...)},
		"get /v1/batches":                     {"operator", append([]string{"200"}, always...)},
		"post /v1/messages/cancel":            {"operator", append([]string{"200", "400", "408", "413", "415"}, always...)},
		"get /v1/messages/{id}":               {"producer", withID},
		"post /v1/messages/{id}/cancel":       {"operator", append([]string{"409"}, withID...)},
		"post /v1/batches":                    {"producer", append([]string{"200"}, withMail...)},
		"post /v1/contents":                   {"producer", append([]string{"201", "400", "408", "413", "415"}, always...)},
		"get /v1/contents/{id}":               {"producer", withID},
		"get /v1/batches/{id}":                {"producer", withID},
		"post /v1/batches/{id}/cancel":        {"operator", withID},
		"get /v1/mailboxes":                   {"operator", append([]string{"200"}, always...)},
		"get /v1/mailboxes/{address}":         {"operator", withID},
		"post /v1/mailboxes/{address}/pause":  {"operator", append([]string{"200", "400", "404", "408", "413", "415"}, always...)},
		"post /v1/mailboxes/{address}/resume": {"operator", withID},
		"post /v1/pause":                      {"operator", append([]string{"200", "400", "408", "413", "415"}, always...)},
		"post /v1/resume":                     {"operator", append([]string{"200"}, always...)},
		"get /v1/failed":                      {"producer", append([]string{"200"}, always...)},
		"post /v1/failed/requeue":             {"operator", append([]string{"200", "400", "408", "413", "415"}, always...)},
		"post /v1/failed/delete":              {"operator", append([]string{"200", "400", "408", "413", "415"}, always...)},
		"get /v1/failed/{id}/eml":             {"operator", append([]string{"409"}, withID...)},
		"get /v1/provider":                    {"operator", append([]string{"200"}, always...)},
		"put /v1/provider":                    {"admin", append([]string{"200", "400", "408", "409", "413", "415"}, always...)},
		"delete /v1/provider":                 {"admin", append([]string{"200", "409"}, always...)},
		"post /v1/provider/verify":            {"admin", append([]string{"200", "400", "408", "409", "413", "415"}, always...)},
		"post /v1/provider/test":              {"admin", append([]string{"200", "400", "408", "409", "413", "415"}, always...)},
		"post /v1/provider/reseal":            {"admin", append([]string{"200", "409"}, always...)},
		"get /v1/audit":                       {"operator", append([]string{"200"}, always...)},
		"get /v1/log":                         {"operator", append([]string{"200"}, always...)},
		"put /v1/log":                         {"operator", append([]string{"200", "400", "408", "413", "415"}, always...)},
		"delete /v1/log":                      {"operator", append([]string{"200"}, always...)},
		"get /livez":                          {"", []string{"200", "500"}},
		"get /readyz":                         {"", []string{"200", "500", "503"}},
		"get /metrics":                        {"", []string{"200"}},
	}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			name := method + " " + path
			w, known := want[name]
			delete(want, name)
			if !known {
				t.Errorf("%s is not expected", name)
				continue
			}
			var statuses []string
			for status, response := range op.Responses {
				statuses = append(statuses, status)
				problem, isProblem := response.Content["application/problem+json"]
				if status >= "400" && strings.HasPrefix(path, "/v1/") && (!isProblem || problem.Schema.Ref != "#/components/schemas/Problem" ||
					!strings.Contains(response.Description, "urn:postroom:problem:")) {
					t.Errorf("%s: %s is not a problem with its types: %+v", name, status, response)
				}
			}
			slices.Sort(statuses)
			slices.Sort(w.statuses)
			if !slices.Equal(statuses, w.statuses) {
				t.Errorf("%s: answers %v, want %v", name, statuses, w.statuses)
			}
			role := ""
			if len(op.Security) == 1 && len(op.Security[0]["bearer"]) == 1 {
				role = op.Security[0]["bearer"][0]
			}
			if role != w.role || op.Summary == "" || op.OperationID == "" {
				t.Errorf("%s: role %q, want %q; %q, %q", name, role, w.role, op.Summary, op.OperationID)
			}
			for _, p := range op.Parameters {
				if p.Description == "" {
					t.Errorf("%s: parameter %s is not described", name, p.Name)
				}
			}
		}
	}
	for name := range want {
		t.Errorf("%s is missing", name)
	}
}

func TestTheDocumentHasTheShapesOfMail(t *testing.T) {
	_, doc := served(t)
	for path, ref := range map[string]string{"/v1/messages": "Message", "/v1/batches": "Batch"} {
		op := doc.Paths[path]["post"]
		if op.RequestBody == nil || !op.RequestBody.Required || op.RequestBody.Content["application/json"].Schema.Ref != "#/components/schemas/"+ref {
			t.Errorf("%s takes %+v", path, op.RequestBody)
		}
		if !slices.ContainsFunc(op.Parameters, func(p struct{ Name, In, Description string }) bool {
			return p.Name == "Idempotency-Key" && p.In == "header"
		}) {
			t.Errorf("%s: no Idempotency-Key: %+v", path, op.Parameters)
		}
	}
	for name, s := range doc.Components.Schemas {
		for field, property := range s.Properties {
			if property.Description == "" {
				t.Errorf("%s.%s is not described", name, field)
			}
		}
	}
	for field := range descriptions {
		name, property, _ := strings.Cut(field, ".")
		if _, ok := doc.Components.Schemas[name].Properties[property]; !ok {
			t.Errorf("%s is described, but there is no such field", field)
		}
	}
	message := doc.Components.Schemas["Message"]
	if got := message.Properties["kind"].Enum; !slices.Equal(got, []string{"alert", "report", "subscription"}) {
		t.Errorf("kinds %v", got)
	}
	if !slices.Equal(message.Required, []string{"kind", "subject"}) {
		t.Errorf("a message needs %v", message.Required)
	}
	// What the document shows as a message is one for the decoder too.
	example := map[string]any{}
	for field := range message.Properties {
		example[field] = nil
	}
	body, _ := json.Marshal(example)
	if r := serve(t, nil).call(t, "POST", "/v1/messages", producerToken, string(body)); r.problem(t).Type != invalidMessage.uri() {
		t.Errorf("%s", r.body)
	}
}
