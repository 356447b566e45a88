package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"

	"github.com/postroom/postroom/mail"
)

// StreamOptions say how StreamBatch hands a batch in. The zero value is permissive.
type StreamOptions struct {
	// IdempotencyKey makes it safe to repeat; may be empty.
	IdempotencyKey string
	// Strict refuses the whole batch if one recipient is refused.
	Strict bool
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
	go func() { _ = write.CloseWithError(writeLines(write, m, recipients)) }()
	response, err := c.send(ctx, http.MethodPost, target, o.IdempotencyKey, ndjson, read)
	if err != nil {
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

// writeLines writes a batch as lines.
func writeLines(w io.Writer, m mail.Message, recipients iter.Seq2[mail.Recipient, error]) error {
	buffered := bufio.NewWriterSize(w, 64<<10)
	lines := json.NewEncoder(buffered)
	lines.SetEscapeHTML(false)
	if err := lines.Encode(m); err != nil {
		return fmt.Errorf("admin: message: %w", err)
	}
	for r, err := range recipients {
		if err == nil {
			err = lines.Encode(r)
		}
		if err != nil {
			return fmt.Errorf("admin: recipient: %w", err)
		}
	}
	return buffered.Flush()
}
