package admin

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// bodyPatience is how long a client may take for the next part of a body, or of an answer, unless configured otherwise.
	bodyPatience = time.Minute
	// patientBytes is after how many bytes it has that time anew.
	patientBytes = 512 << 10
	// wholePatience is how many times as long it may take for a body that is held in memory.
	wholePatience = 5
	// answerTime is how long an answer may take from then on.
	answerTime = 5 * time.Minute
	// unbound is how much of a body does not count into the room for all: mail of a usual size has its way beside large bodies.
	unbound = 64 << 10
)

// room is how many bytes bodies may hold in memory, those of all requests together.
type room struct{ left atomic.Int64 }

func newRoom(bytes int64) *room {
	r := &room{}
	r.left.Store(bytes)
	return r
}

func (r *room) take(n int64) bool {
	if r.left.Add(-n) >= 0 {
		return true
	}
	r.left.Add(n)
	return false
}

// pace says how fast a client has to hand in its body.
type pace struct {
	body     *incoming
	control  *http.ResponseController
	patience time.Duration
	last     time.Time // when all of it has to be there; zero: it may take as long as it goes on coming
}

// renew gives the client its time anew. The time for the answer begins with its end.
func (p *pace) renew() {
	until := time.Now().Add(p.patience)
	if !p.last.IsZero() && p.last.Before(until) {
		until = p.last
	}
	if !p.body.ended { // else net/http waits for the end of the connection, which is not to be hurried
		_ = p.control.SetReadDeadline(until)
	}
	_ = p.control.SetWriteDeadline(until.Add(answerTime))
}

// patient reads a body of any length, as long as it goes on coming.
type patient struct {
	r     io.Reader
	renew func()
	left  int // bytes until then
}

func (p *patient) Read(b []byte) (int, error) {
	if p.left <= 0 {
		p.renew()
		p.left = patientBytes
	}
	n, err := p.r.Read(b)
	p.left -= n
	if err != nil {
		err = bodyFault(err, "send at least 9 kB a second on average.")
	}
	return n, err
}

// bodyFault says why a body has ended before its end, and how fast it has to be; io.EOF stays what it is.
func bodyFault(err error, speed string) error {
	var timeout net.Error
	switch {
	case errors.Is(err, io.EOF), errors.As(err, new(*Problem)):
		return err
	case errors.As(err, &timeout) && timeout.Timeout():
		return bodyTooSlow.problem("Nothing was accepted: repeat the request, and " + speed)
	}
	return incompleteBody.problem("Nothing was accepted: repeat the request.")
}

// read takes in the body of a request, which is JSON and no larger than it may be, and decodes it into v.
func (h *handler) read(in *original, v any) error {
	r := in.request
	if p := mediaTypeFault(r.Header); p != nil {
		return p
	}
	tooLarge := bodyTooLarge.problem(fmt.Sprintf("More than %d bytes are not taken: split the batch, or send links instead of large files.", h.limit))
	if r.ContentLength > h.limit {
		return tooLarge
	}
	in.answer.body.hold(h.room)
	p := h.pace(in)
	p.last = time.Now().Add(wholePatience * p.patience)
	// The buffer grows with what arrives, and not with what was announced.
	body, err := io.ReadAll(io.LimitReader(&patient{r: r.Body, renew: p.renew}, h.limit+1))
	if int64(len(body)) > h.limit {
		return tooLarge
	} else if err != nil {
		return err
	}
	return decode(body, v, mostValues)
}

// pace gives how fast the client has to be.
func (h *handler) pace(in *original) *pace {
	return &pace{body: in.answer.body, control: in.control, patience: h.bodyPatience}
}

func mediaTypeFault(h http.Header) *Problem {
	mediaType, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil || mediaType != "application/json" {
		return wrongMediaType.problem("Send the header Content-Type: application/json.")
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return wrongMediaType.problem("JSON is UTF-8 here: leave charset away.")
	}
	return encodingFault(h)
}

func encodingFault(h http.Header) *Problem {
	if encoding := h.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return wrongMediaType.problem("The body can't be compressed: send it as it is, without Content-Encoding.")
	}
	return nil
}
