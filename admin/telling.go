package admin

import (
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// tellEvery is how often a request whose body comes as lines tells how far it is.
const tellEvery = time.Second

// telling is an answer of lines that is written while the request is worked on.
type telling struct {
	answer   *answer
	control  *http.ResponseController
	patience time.Duration
	lines    *json.Encoder
}

// asksForLines reports whether a request's Accept asks for an answer of lines.
func asksForLines(accept string) bool {
	mediaType, _, _ := mime.ParseMediaType(accept)
	return mediaType == ndjson
}

// tellingTo begins an answer of lines. The request's body may still be on its way.
func (h *handler) tellingTo(in *original, out huma.Context) *telling {
	_ = in.control.EnableFullDuplex() // HTTP/2 needs no leave
	if !in.answer.body.ended {
		// What a refusal leaves of the body must never be read as another request. net/http sees to it in other answers.
		out.SetHeader("Connection", "close")
	}
	out.SetHeader("Content-Type", ndjson)
	out.SetStatus(http.StatusOK)
	return &telling{answer: in.answer, control: in.control, patience: h.bodyPatience, lines: newLineEncoder(out.BodyWriter())}
}

func newLineEncoder(w io.Writer) *json.Encoder {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e
}

// line writes a line. A client that does not read has a time for it, too: when that is over nothing can be written any more.
func (t *telling) line(v any) error {
	_ = t.control.SetWriteDeadline(time.Now().Add(t.patience))
	if err := t.lines.Encode(v); err != nil {
		return err
	}
	return t.control.Flush()
}

// end writes a problem as the last line, which can carry no header, and takes in what is left of the body, as a refusal does. next
// is the cursor to go on with, if there is one.
func (t *telling) end(p *Problem, next string) {
	_ = t.line(struct {
		Problem    *Problem `json:"problem"`
		RetryAfter int      `json:"retry_after,omitempty"`
		Next       string   `json:"next,omitempty"`
	}{p, int(p.RetryAfter.Seconds()), next})
	t.answer.status = p.Status // to be counted as what it is
	t.answer.drain()
}
