package admin

import (
	"io"
	"net/http"
	"strings"
	"time"
)

// drainTime and drainBodies bound the rest of a refused body that is waited for: its time, and its length in bodies of the
// largest size that could have been accepted.
const (
	drainTime   = 5 * time.Second
	drainBodies = 4
)

// answer is a response that remembers its status, and that takes in the rest of the request's body before it refuses. A
// client that is still writing would see a broken connection instead of the answer.
type answer struct {
	http.ResponseWriter
	request *http.Request
	body    *incoming
	limit   int64
	status  int
	by      string // name of the token; "": none that is known
}

func newAnswer(w http.ResponseWriter, r *http.Request, limit int64) *answer {
	a := &answer{ResponseWriter: w, request: r, body: &incoming{ReadCloser: r.Body}, limit: limit}
	r.Body = a.body
	return a
}

// incoming is a request's body.
type incoming struct {
	io.ReadCloser
	begun, ended bool
	room         *room // nil: what is read is not held
	held, taken  int64
}

func (b *incoming) Read(p []byte) (int, error) {
	b.begun = true
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.ended = true
	}
	if b.room == nil {
		return n, err
	}
	b.held += int64(n)
	if more := b.held - unbound - b.taken; more > 0 {
		if !b.room.take(more) {
			b.letGo()
			return 0, busy.after(5*time.Second, "Large requests fill http.max_bodies_bytes. Nothing was accepted: repeat the request, and store large files first (POST /v1/contents).")
		}
		b.taken += more
	}
	return n, err
}

// hold says that what is read from now on is held in memory, until letGo.
func (b *incoming) hold(in *room) { b.room = in }

// letGo says that nothing is held any more. It may be called always.
func (b *incoming) letGo() {
	if b.room != nil {
		b.room.left.Add(b.taken)
		b.room, b.held, b.taken = nil, 0, 0
	}
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader sends the status, the first time.
func (a *answer) WriteHeader(status int) {
	if a.status != 0 {
		return
	}
	a.status = status
	if status >= http.StatusBadRequest {
		a.drain()
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	return a.ResponseWriter.Write(p)
}

// code is the status that the client sees.
func (a *answer) code() int {
	if a.status == 0 {
		return http.StatusOK
	}
	return a.status
}

// drain reads what is left of the body, or gives up and ends the connection after the answer.
func (a *answer) drain() {
	a.body.letGo() // what is thrown away is not held
	// Whoever waits for 100 Continue has sent nothing yet, and reading would ask for it.
	waiting := !a.body.begun && strings.EqualFold(a.request.Header.Get("Expect"), "100-continue")
	if !waiting && !a.body.ended && a.request.ContentLength != 0 {
		_ = http.NewResponseController(a.ResponseWriter).SetReadDeadline(time.Now().Add(drainTime))
		_, _ = io.CopyN(io.Discard, a.body, drainBodies*a.limit)
	}
	if a.request.ContentLength != 0 && !a.body.ended {
		a.Header().Set("Connection", "close")
	}
}

// discarded is a response that nobody sees.
type discarded struct {
	header http.Header
	status int
}

func (d *discarded) Header() http.Header {
	if d.header == nil {
		d.header = http.Header{}
	}
	return d.header
}

func (d *discarded) Write(p []byte) (int, error) { return len(p), nil }

func (d *discarded) WriteHeader(status int) { d.status = status }
