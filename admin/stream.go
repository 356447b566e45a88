package admin

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

const (
	// ndjson is the media type of a batch that comes line by line: first the message, then a recipient a line.
	ndjson = "application/x-ndjson"
	// maxLine bounds one recipient's line.
	maxLine = 1 << 20
	// patienceLines is after how many lines it has that time anew.
	patienceLines = 50
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

func (h *handler) newLines(in *original) *lines {
	return &lines{r: bufio.NewReaderSize(in.request.Body, 64<<10), renew: h.pace(in).renew}
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
			return nil, bodyFault(err, "send at least a line a second on average.")
		}
	}
}

// decodeLine reads a line into v, or says where in the batch its faults are.
func decodeLine(line []byte, n int, at string, v any) error {
	err := decode(line, v, mostValues)
	var p *Problem
	if !errors.As(err, &p) {
		return err
	}
	if p.Errors == nil {
		p.Detail = "Line " + strconv.Itoa(n) + strings.TrimPrefix(p.Detail, "It")
	}
	for i := range p.Errors {
		p.Errors[i].Location = at + p.Errors[i].Location
	}
	for i := range p.doubtful {
		p.doubtful[i] = at + p.doubtful[i]
	}
	return p
}

// streaming is a batch that comes line by line, in bounded memory.
type streaming struct {
	*queue.BatchStream
	body  *lines
	whole *incoming
}

// openStream begins a batch with the message, which is the first line.
func (h *handler) openStream(ctx context.Context, in *sendBatchInput, options []queue.Option) (*streaming, error) {
	if p := encodingFault(in.request.Header); p != nil {
		return nil, p
	}
	s := &streaming{body: h.newLines(&in.original), whole: in.answer.body}
	s.whole.hold(h.room)
	line, err := s.body.next(h.limit)
	if errors.Is(err, io.EOF) {
		return nil, malformedJSON.problem("It is empty: the first line is the message, each other a recipient.")
	} else if err != nil {
		return nil, err
	}
	var m mail.Message
	if err := decodeLine(line, s.body.n, "/message", &m); err != nil {
		return nil, beside(err, func() []mail.Problem {
			_, err := mail.NewBatchCheck(m, h.queue.Limits(), time.Now())
			return problemsOf(err)
		})
	}
	if len(line) > maxLine {
		runtime.GC() // a process collects seldom; a large message was held several times over while it was decoded
	}
	if err := h.may(ctx, &m, "/message"); err != nil {
		return nil, err
	}
	s.BatchStream, err = h.queue.OpenBatch(ctx, m, options...)
	return s, err
}

// accept reads the recipients, and then accepts the batch. Before each it tells how far it is.
func (s *streaming) accept(ctx context.Context, tell func(BatchProgress) error) (queue.BatchReceipt, error) {
	defer s.Discard(ctx)
	for {
		n, refused := s.Count()
		if err := tell(BatchProgress{Read: n, Refused: refused}); err != nil {
			return queue.BatchReceipt{}, err
		}
		line, err := s.body.next(maxLine)
		if errors.Is(err, io.EOF) {
			return s.Commit(ctx)
		} else if err != nil {
			return queue.BatchReceipt{}, err
		}
		var r mail.Recipient
		if err := decodeLine(line, s.body.n, "/recipients/"+strconv.Itoa(n), &r); err != nil {
			return queue.BatchReceipt{}, err
		}
		if problems, err := s.Add(ctx, r); err != nil {
			return queue.BatchReceipt{}, err
		} else if problems == nil {
			s.whole.letGo() // the message is in Redis now
		}
	}
}
