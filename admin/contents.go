package admin

import (
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// Content is what is known of a stored file: the answer to POST /v1/contents and GET /v1/contents/{id}.
type Content struct {
	ID          string `json:"id" doc:"What an attachment's ref names."`
	Name        string `json:"name" doc:"The file's name, for attachments that give none."`
	ContentType string `json:"content_type" doc:"The file's media type, for attachments that give none."`
	Bytes       int64  `json:"bytes" doc:"The file's size."`
	SHA256      string `json:"sha256" doc:"The SHA-256 of the file, in hexadecimal."`
	Shares      int    `json:"shares" doc:"How many messages, batches and recipients of batches hold it, as they are open or failed."`
	// ExpiresAt is zero while somebody holds the file.
	ExpiresAt time.Time `json:"expires_at,omitzero" doc:"When it is dropped unless somebody refers to it; left out while somebody holds it."`
}

const formData = "multipart/form-data"

var (
	withContent = append(slices.Clip(always), incompleteBody, bodyTooSlow, bodyTooLarge, wrongMediaType, invalidContent, full, tookTooLong)
	withStored  = append(slices.Clip(always), noSuchContent)
)

func (h *handler) registerContents() {
	op := h.operation(Producer, http.MethodPost, "/v1/contents", "storeContent", "Store a file for messages to refer to", withContent)
	op.Description = "Attachments then give its id as ref in the place of content: a large file is sent once and not in base64, is shared by any number of " +
		"messages and batches, and can be one recipient's own. The body is the file as it is, with its Content-Type, or a form (" + formData + ") with one file. " +
		"It is kept while a message or batch that is open or failed refers to it, and for content.kept_for (24 hours unless configured otherwise) " +
		"when none does. Storing a file twice is harmless."
	op.DefaultStatus = http.StatusCreated
	huma.Register(h.api, op, h.storeContent)
	binary := &huma.Schema{Type: huma.TypeString, Format: "binary"}
	h.api.OpenAPI().Paths[op.Path].Post.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"*/*":    {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary", Description: "The file."}},
		formData: {Schema: &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{"file": binary}, Required: []string{"file"}}},
	}}

	op = h.operation(Producer, http.MethodGet, "/v1/contents/{id}", "getContent", "What is known of a stored file", withStored)
	op.Description = "Its size and hash, how many hold it, and until when it is kept."
	huma.Register(h.api, op, h.getContent)
}

type storeContentInput struct {
	original
	Name string `query:"name" doc:"The file's name, without folders; of a form, that of its file if this is left out."`
}

type contentOutput struct{ Body Content }

func (h *handler) storeContent(ctx context.Context, in *storeContentInput) (*contentOutput, error) {
	if p := encodingFault(in.request.Header); p != nil {
		return nil, p
	}
	name, contentType := in.Name, in.request.Header.Get("Content-Type")
	var body io.Reader = &patient{r: in.request.Body, renew: h.pace(&in.original).renew}
	if mediaType, params, err := mime.ParseMediaType(contentType); err == nil && mediaType == formData {
		form := &formFile{parts: multipart.NewReader(body, params["boundary"])}
		if err := form.begin(); err != nil {
			return nil, err
		}
		body, contentType = form, form.part.Header.Get("Content-Type")
		if name == "" {
			name = form.part.FileName()
		}
	}
	c, err := h.queue.StoreContent(ctx, name, contentType, body)
	var invalid *mail.Invalid
	switch {
	case errors.As(err, &invalid):
		return nil, fileFaults(invalid)
	case errors.Is(err, queue.ErrTooLarge):
		return nil, bodyTooLarge.problem("It is larger than a message may be: send a link instead of a large file.")
	case err != nil:
		return nil, h.refused(ctx, err)
	}
	return &contentOutput{contentOf(c)}, nil
}

// fileFaults says what is wrong with a file's name or type, where they stand in the request.
func fileFaults(invalid *mail.Invalid) *Problem {
	at := map[string]string{"/name": "query.name", "/content_type": "header.Content-Type"}
	problems := slices.Clone(invalid.Problems)
	for i := range problems {
		problems[i].Field = at[problems[i].Field]
	}
	return invalidContent.invalid("Nothing was stored. Correct what errors names.", problems, mostInvalid)
}

// formFile reads the one file of a form, and sees to it that there is no other.
type formFile struct {
	parts *multipart.Reader
	part  *multipart.Part
}

func (f *formFile) begin() (err error) {
	f.part, err = f.parts.NextPart()
	switch {
	case err == io.EOF: // not one that is wrapped: that is of a form without its end
		return oneFile()
	case err != nil:
		return formFault(err)
	case f.part.FileName() == "":
		return oneFile()
	}
	return nil
}

// Read implements io.Reader; the end of the file is one if the form ends with it.
func (f *formFile) Read(b []byte) (int, error) {
	n, err := f.part.Read(b)
	if err == nil {
		return n, nil
	} else if err != io.EOF {
		return n, formFault(err)
	}
	switch _, err = f.parts.NextPart(); {
	case err == io.EOF:
		return n, io.EOF
	case err != nil:
		return n, formFault(err)
	}
	return n, oneFile()
}

func oneFile() *Problem {
	return invalidRequest.problem("A form has to have one part, which is the file, with a file name.")
}

// formFault says why a form could not be read.
func formFault(err error) error {
	var told *Problem
	if errors.As(err, &told) {
		return told
	}
	return incompleteBody.problem("The form ends too early, or is none. Nothing was stored: repeat the request.")
}

func (h *handler) getContent(ctx context.Context, in *named) (*contentOutput, error) {
	if len(in.ID) != idLength {
		return nil, noSuchContent.problem("An id has 26 letters and digits.")
	}
	c, err := h.queue.Content(ctx, in.ID)
	if errors.Is(err, queue.ErrNotFound) {
		return nil, noSuchContent.problem("Check the id. What nobody refers to is dropped after a time.")
	} else if err != nil {
		return nil, h.refused(ctx, err)
	}
	return &contentOutput{contentOf(c)}, nil
}

func contentOf(c *queue.StoredContent) Content {
	return Content{ID: c.ID, Name: c.Name, ContentType: c.ContentType, Bytes: c.Bytes, SHA256: c.SHA256, Shares: c.Shares, ExpiresAt: utc(c.Expires)}
}
