package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"time"

	"github.com/postroom/postroom/mail"
)

// StreamOptions say how StreamBatch hands a batch in. The zero value is permissive.
type StreamOptions struct {
	// IdempotencyKey makes it safe to repeat; may be empty.
	IdempotencyKey string
	// Strict refuses the whole batch if one recipient is refused.
	Strict bool
	// Progress is told how far the server is, while it reads, about every second; nil: nobody is told.
	Progress func(BatchProgress)
}

// StreamBatch hands a batch in whose recipients are made one after the other, so that it need not be in memory. m has no To. An error
// that recipients give ends the request: then nothing is accepted. Of the recipients who are refused the answer lists the first 1000.
// Use a client without a time-out: a stream takes as long as it takes.
func (c *Client) StreamBatch(ctx context.Context, m mail.Message, recipients iter.Seq2[mail.Recipient, error], o StreamOptions) (*BatchAccepted, error) {
	target := c.target("batches")
	if o.Strict {
		target.RawQuery = "mode=strict"
	}
	read, write := io.Pipe()
	defer func() { _ = read.Close() }() // who writes on then meets an error, and ends
	written := make(chan error, 1)
	go func() {
		err := writeLines(write, m, recipients)
		written <- err
		_ = write.CloseWithError(err)
	}()
	r, err := c.request(ctx, http.MethodPost, target, o.IdempotencyKey, ndjson, read)
	if err != nil {
		return nil, err
	}
	if o.Progress != nil {
		r.Header.Set("Accept", ndjson)
	}
	response, err := c.answer(r)
	if err != nil {
		return nil, err
	}
	if mediaType, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")); mediaType == ndjson {
		accepted, err := told(response.Body, o.Progress)
		if err == nil || errors.As(err, new(*Problem)) {
			return accepted, err
		}
		select {
		case cause := <-written: // a recipient's error ends the request, and the answer says nothing of it
			if cause != nil && !errors.Is(cause, io.ErrClosedPipe) {
				return nil, cause
			}
		default:
		}
		return nil, err
	}
	accepted := &BatchAccepted{}
	header, err := answered(response, accepted)
	if err != nil {
		return nil, err
	}
	accepted.Replayed = header.Get("Idempotency-Replayed") == "true"
	return accepted, nil
}

// told reads an answer of lines, whose last says what became of the batch.
func told(body io.ReadCloser, progress func(BatchProgress)) (*BatchAccepted, error) {
	defer func() { _ = body.Close() }()
	for lines := json.NewDecoder(io.LimitReader(body, answerBytes)); ; {
		var line json.RawMessage
		if err := lines.Decode(&line); err != nil {
			return nil, fmt.Errorf("admin: answer: it ended too early: %w", err)
		}
		var is struct {
			Read       *int
			Problem    *Problem
			RetryAfter int `json:"retry_after"`
		}
		var p BatchProgress
		var last lastOfBatch
		if err := errors.Join(json.Unmarshal(line, &is), json.Unmarshal(line, &p), json.Unmarshal(line, &last)); err != nil {
			return nil, fmt.Errorf("admin: answer: %w", err)
		}
		switch {
		case is.Read != nil:
			progress(p)
		case is.Problem != nil:
			is.Problem.RetryAfter = time.Duration(is.RetryAfter) * time.Second
			return nil, is.Problem
		default:
			last.BatchAccepted.Replayed = last.Replayed
			return &last.BatchAccepted, nil
		}
	}
}

// writeLines writes a batch as lines: the message at once, so that the server can refuse it, and recipients at the latest a second after
// they are made, so that slow ones are no silence.
func writeLines(w io.Writer, m mail.Message, recipients iter.Seq2[mail.Recipient, error]) error {
	buffered := bufio.NewWriterSize(w, 64<<10)
	lines := json.NewEncoder(buffered)
	lines.SetEscapeHTML(false)
	var flushed time.Time
	if err := errors.Join(lines.Encode(m), buffered.Flush()); err != nil {
		return fmt.Errorf("admin: message: %w", err)
	}
	for r, err := range recipients {
		if err == nil {
			err = lines.Encode(r)
		}
		if now := time.Now(); err == nil && now.Sub(flushed) >= time.Second {
			flushed, err = now, buffered.Flush()
		}
		if err != nil {
			return fmt.Errorf("admin: recipient: %w", err)
		}
	}
	return buffered.Flush()
}
