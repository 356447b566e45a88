package admin

import (
	"cmp"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postroom/postroom/mail"
)

const schemas = "#/components/schemas/"

// newConfig leaves out what huma would add: pages with assets from elsewhere, and $schema in every answer.
func newConfig(version string) huma.Config {
	registry := huma.NewMapRegistry(schemas, huma.DefaultSchemaNamer)
	// Every problem is a Problem, also those that huma makes: see ours.
	registry.RegisterTypeAlias(reflect.TypeFor[huma.ErrorModel](), reflect.TypeFor[Problem]())
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Postroom", Version: cmp.Or(version, "dev"),
				Description: "Hand mail in, and see what became of it. Every answer with a status from 400 on is a problem of RFC 9457, whose type is stable.",
			},
			Components: &huma.Components{
				Schemas: registry,
				SecuritySchemes: map[string]*huma.SecurityScheme{"bearer": {
					Type: "http", Scheme: "bearer",
					Description: "A token whose SHA-256 is configured. It has a role, and each may do what those before it may: " +
						"producer (hands mail in, and asks what became of it by the ids it was given), operator (reads everything, cancels, pauses, requeues), admin (everything). " +
						"The role that an operation needs is listed with it.",
				}},
			},
		},
		Formats: huma.DefaultFormats, DefaultFormat: "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{ours},
	}
}

// operation describes and guards what needs a token.
func (h *handler) operation(least Role, method, path, id, summary string, meets []refusal) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: method, Path: path, Summary: summary,
		Tags:        []string{strings.Split(path, "/")[2]},
		Security:    []map[string][]string{{"bearer": {least.String()}}},
		Middlewares: h.role(least),
		Responses:   refusals(meets...),
	}
}

// refusals describes answers, by status, with the types of problems that each can be.
func refusals(meets ...refusal) map[string]*huma.Response {
	byStatus := make(map[string]*huma.Response)
	for _, r := range meets {
		status := strconv.Itoa(r.status)
		line := r.title + " (" + r.uri() + ")."
		if response, ok := byStatus[status]; ok {
			response.Description += " " + line
			continue
		}
		response := &huma.Response{
			Description: line,
			Content:     map[string]*huma.MediaType{"application/problem+json": {Schema: &huma.Schema{Ref: schemas + "Problem"}}},
		}
		switch r.status {
		case http.StatusUnauthorized:
			response.Headers = header("WWW-Authenticate", "string", "Bearer.")
		case http.StatusServiceUnavailable:
			response.Headers = header("Retry-After", "integer", "Seconds after which to try again.")
		}
		byStatus[status] = response
	}
	return byStatus
}

func header(name, kind, description string) map[string]*huma.Param {
	return map[string]*huma.Param{name: {Description: description, Schema: &huma.Schema{Type: kind}}}
}

// idempotencyKey describes the header field that original.idempotency reads.
func idempotencyKey() *huma.Param {
	least, most := 1, maxIdempotencyKey
	return &huma.Param{
		Name: "Idempotency-Key", In: "header",
		Description: "Makes the request safe to repeat: the same key with the same body is accepted once and answered the same, " +
			"for 24 hours unless configured otherwise. Printable ASCII. Each token has keys of its own.",
		Schema: &huma.Schema{Type: huma.TypeString, MinLength: &least, MaxLength: &most},
	}
}

// takes describes the body of POST path. It comes after huma.Register, which else would read and check the body.
func (h *handler) takes(path string, t reflect.Type) { h.takesBy(path, http.MethodPost, t) }

func (h *handler) takesBy(path, method string, t reflect.Type) {
	oapi := h.api.OpenAPI()
	op := oapi.Paths[path].Post
	if method == http.MethodPut {
		op = oapi.Paths[path].Put
	}
	op.RequestBody = &huma.RequestBody{
		Required: true,
		Content:  map[string]*huma.MediaType{"application/json": {Schema: oapi.Components.Schemas.Schema(t, true, "")}},
	}
}

// document completes what huma finds out by itself.
func document(oapi *huma.OpenAPI) {
	oapi.AddOperation(&huma.Operation{
		OperationID: "metrics", Method: http.MethodGet, Path: "/metrics", Tags: []string{"health"}, Summary: "Metrics for Prometheus",
		Responses: map[string]*huma.Response{"200": {
			Description: "The text format of Prometheus.",
			Content:     map[string]*huma.MediaType{"text/plain": {Schema: &huma.Schema{Type: huma.TypeString}}},
		}},
	})
	ready := oapi.Paths["/readyz"].Get.Responses
	ready["503"] = &huma.Response{Description: "At least one check failed.", Content: ready["200"].Content}

	all := oapi.Components.Schemas.Map()
	for name, s := range all {
		if !slices.Contains(strict, name) {
			s.AdditionalProperties = nil // answers may have more one day
		}
		for field, property := range s.Properties {
			property.Description = cmp.Or(property.Description, descriptions[name+"."+field], settingsDescriptions[name+"."+field])
			property.Nullable = false // null is taken as absent, but nobody needs to send it
		}
	}
	documentSettings(all)
	for _, k := range mail.Kinds() {
		all["Message"].Properties["kind"].Enum = append(all["Message"].Properties["kind"].Enum, string(k))
	}
	all["Recipient"].Properties["variables"].AdditionalProperties = &huma.Schema{OneOf: []*huma.Schema{
		{Type: huma.TypeString}, {Type: huma.TypeNumber}, {Type: huma.TypeBoolean},
	}}
	for _, r := range slices.Concat(withMail, withID, withContent, withStored, withMailbox, withExport, withSettings, withTry, []refusal{tooLate, noSuchEndpoint, methodNotAllowed, invalidRecipient}) {
		if property := all["Problem"].Properties["type"]; !slices.Contains(property.Examples, any(r.uri())) {
			property.Examples = append(property.Examples, r.uri())
		}
	}
}

// strict are the shapes of requests, in which unknown fields are refused.
var strict = append([]string{"Message", "Address", "Attachment", "Batch", "Recipient", "PauseRequest", "Selection", "FailedFilter", "MessageSelection", "MessageFilter", "VerifyRequest",
	"TestRequest", "LogRequest"}, settingsShapes...)

// descriptions are of the fields that package mail declares, and of problems.
var descriptions = map[string]string{
	"Address.address": "The addr-spec, such as ada@example.com.",
	"Address.name":    "The display name, as people read it (not encoded).",

	"Message.kind":             "What it is for. It decides the place in the order (alerts go first) and how long it is tried.",
	"Message.from":             "The sender; left out: the active provider's own.",
	"Message.to":               "Recipients. To, cc and bcc together have at least one address. Not in a batch: see recipients there.",
	"Message.cc":               "Recipients of a copy; of every message of a batch.",
	"Message.bcc":              "Recipients of a copy whom the others do not see; of every message of a batch.",
	"Message.reply_to":         "Where answers go.",
	"Message.subject":          "The subject, on one line; in a batch a template.",
	"Message.text":             "The text; it and html are alternatives of each other, and one is needed. In a batch a template.",
	"Message.html":             "The HTML; in a batch a template.",
	"Message.attachments":      "Files, and images of the html.",
	"Message.headers":          "Additional header fields, all named X-....",
	"Message.list_unsubscribe": "An https URI for one-click unsubscription (RFC 8058).",
	"Message.send_at":          "When it goes at the earliest; left out, or past: now.",
	"Message.expires_at":       "When it ends if it was not delivered; left out: never.",
	"Message.metadata":         "Comes back with the state and never goes out.",

	"Attachment.name":         "The file's name, without folders.",
	"Attachment.content_type": "A media type such as application/pdf; left out: told from the name.",
	"Attachment.content_id":   "Makes it an inline image: the html refers to it as cid:CONTENT_ID. No angle brackets.",
	"Attachment.content":      "The file in base64.",
	"Attachment.ref":          "In the place of content: the id of a file that was stored by POST /v1/contents. Its name and type fill in what is left out here.",

	"Batch.message": "What all recipients share. It has no to. {{.name}} in subject, text and html is filled from each recipient's variables. " +
		"There are {{if .name}}, {{else}}, {{with .name}} and {{end}}, as in Go's templates, and the functions and, or, not, len, eq, ne, lt, le, gt and ge.",
	"Batch.recipients": "One message goes to each.",

	"Recipient.to":               "The recipient's address, or several who get one message together.",
	"Recipient.variables":        "What the templates are filled from: strings, numbers and booleans.",
	"Recipient.list_unsubscribe": "Replaces the message's. Templates have it, or the message's, as {{.list_unsubscribe}}, unless variables has one of that name.",
	"Recipient.attachments":      "Files of this recipient's own, each by ref; they come after the message's.",

	"Problem.type":   "A stable URI that tells problems apart.",
	"Problem.title":  "What the type means.",
	"Problem.status": "The HTTP status.",
	"Problem.detail": "What to do.",
	"Problem.errors": "Each fault of the request.",
	"Fault.location": "A JSON pointer (RFC 6901) into the body; \"\" is the whole body. What is not in the body is named query.NAME, path.NAME or header.NAME.",
	"Fault.reason":   "Completes the sentence \"this field ...\". It never repeats the value.",
}
