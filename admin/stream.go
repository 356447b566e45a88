package admin

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

const (
	// ndjson is the media type of a batch that comes line by line: first the message, then a recipient a line.
	ndjson = "application/x-ndjson"
	// maxLine bounds one recipient's line.
	maxLine = 1 << 20
	// linePatience is how long a client may take for the next part of a stream.
	linePatience = time.Minute
	// patienceLines is after how many lines it has that time anew.
	patienceLines = 100
)

// isStream reports whether a request's body is one of lines.
func isStream(r *http.Request) bool {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && mediaType == ndjson
}

// lines reads a body line by line, none of which is longer than it may be. What it gives is good until the next call.
type lines struct {
	r       *bufio.Reader
	renew   func() // gives the client its time anew
	n       int    // of lines so far
	pending []byte
}

func newLines(r *http.Request, control *http.ResponseController) *lines {
	return &lines{r: bufio.NewReaderSize(r.Body, 64<<10), renew: renewal(control)}
}

// renewal gives what gives the client its time anew.
func renewal(control *http.ResponseController) func() {
	return func() { _ = control.SetReadDeadline(time.Now().Add(linePatience)) }
}

// patientBytes is after how many bytes of a file a client has its time anew.
const patientBytes = 512 << 10

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
		err = streamFault(err, "send at least 9 kB a second on average.")
	}
	return n, err
}

// next gives the next line that is not blank; io.EOF after the last.
func (l *lines) next(limit int64) ([]byte, error) {
	for {
		if l.n%patienceLines == 0 {
			l.renew()
		}
		l.n++
		line, err := l.line(limit)
		if line = bytes.TrimSpace(line); len(line) > 0 || err != nil {
			return line, err
		}
	}
}

func (l *lines) line(limit int64) ([]byte, error) {
	if l.pending = l.pending[:0]; cap(l.pending) > maxLine {
		l.pending = nil // the first line can be as large as a body; all others are small
	}
	for {
		part, err := l.r.ReadSlice('\n')
		if int64(len(l.pending)+len(part)) > limit {
			return nil, bodyTooLarge.problem(fmt.Sprintf("Line %d has more than %d bytes.", l.n, limit))
		}
		switch {
		case err == nil && len(l.pending) == 0:
			return part, nil
		case errors.Is(err, bufio.ErrBufferFull), err == nil:
			l.pending = append(l.pending, part...)
			if err == nil {
				return l.pending, nil
			}
		case errors.Is(err, io.EOF) && len(l.pending)+len(part) > 0:
			return append(l.pending, part...), nil // the last line needs no end
		default:
			return nil, streamFault(err, "send at least a line a second on average.")
		}
	}
}

// streamFault says why a stream has ended before its end, and how fast it has to be; io.EOF stays what it is.
func streamFault(err error, speed string) error {
	var timeout net.Error
	switch {
	case errors.Is(err, io.EOF):
		return io.EOF
	case errors.As(err, &timeout) && timeout.Timeout():
		return bodyTooSlow.problem("Nothing was accepted: repeat the request, and " + speed)
	}
	return incompleteBody.problem("Nothing was accepted: repeat the request.")
}

// decodeLine reads a line into v, or says where in the batch its faults are.
func decodeLine(line []byte, n int, at string, v any) error {
	err := decode(line, v, mostValues)
	var p *Problem
	if !errors.As(err, &p) {
		return err
	}
	if p.Errors == nil {
		p.Detail = "Line " + strconv.Itoa(n) + ": " + p.Detail
	}
	for i := range p.Errors {
		p.Errors[i].Location = at + p.Errors[i].Location
	}
	return p
}

// streamBatch accepts a batch that comes line by line, in bounded memory.
func (h *handler) streamBatch(ctx context.Context, in *sendBatchInput, options []queue.Option) (queue.BatchReceipt, error) {
	if p := encodingFault(in.request.Header); p != nil {
		return queue.BatchReceipt{}, p
	}
	body := newLines(in.request, in.control)
	line, err := body.next(h.limit)
	if errors.Is(err, io.EOF) {
		return queue.BatchReceipt{}, malformedJSON.problem("It is empty: the first line is the message, each other a recipient.")
	} else if err != nil {
		return queue.BatchReceipt{}, err
	}
	var m mail.Message
	if err := decodeLine(line, body.n, "/message", &m); err != nil {
		return queue.BatchReceipt{}, err
	}
	if len(line) > maxLine {
		runtime.GC() // a process collects seldom; a large message was held several times over while it was decoded
	}
	if err := h.may(ctx, &m, "/message"); err != nil {
		return queue.BatchReceipt{}, err
	}
	b, err := h.queue.OpenBatch(ctx, m, options...)
	if err != nil {
		return queue.BatchReceipt{}, err
	}
	defer b.Discard(ctx)
	for i := 0; ; i++ {
		line, err := body.next(maxLine)
		if errors.Is(err, io.EOF) {
			return b.Commit(ctx)
		} else if err != nil {
			return queue.BatchReceipt{}, err
		}
		var r mail.Recipient
		if err := decodeLine(line, body.n, "/recipients/"+strconv.Itoa(i), &r); err != nil {
			return queue.BatchReceipt{}, err
		}
		if _, err := b.Add(ctx, r); err != nil {
			return queue.BatchReceipt{}, err
		}
	}
}
