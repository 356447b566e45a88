package queue

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
)

// ErrEnded: the message was delivered, cancelled or has expired, and its content is no longer kept.
var ErrEnded = errors.New("queue: the message has ended, and its content is no longer kept")

// Outgoing gives a message that is open or failed as an attempt would hand it over, with all its recipients: mime.Compose
// renders it. Its From is the zero value if the provider's own sender is to be put in.
//
// It gives ErrNotFound if there is no such message, and ErrEnded if its content is no longer kept.
func (q *Queue) Outgoing(ctx context.Context, id string) (*mail.Outgoing, error) {
	raw, err := q.redis.Get(ctx, q.key("m:", id)).Result()
	if errors.Is(err, redis.Nil) {
		return nil, ErrNotFound
	} else if err != nil {
		return nil, fmt.Errorf("queue: outgoing: %w", err)
	}
	r, err := parseRecord(raw)
	if err != nil {
		return nil, err
	}
	switch stateOf[r.head[headState]] {
	case Delivered, Cancelled, Expired:
		return nil, ErrEnded
	}
	it, err := r.item()
	if err != nil {
		return nil, errors.New("queue: outgoing: the record can't be read") // err may quote it
	}
	owner, chunks, bytes := id, r.head[headChunks], r.head[headBytes]
	if batch := r.head[headBatch]; batch != "" {
		b, err := q.redis.HMGet(ctx, q.key("b:", batch), "state", "chunks", "bytes").Result()
		if err != nil {
			return nil, fmt.Errorf("queue: outgoing: batch: %w", err)
		}
		if text(b[0]) != "committed" {
			return nil, ErrNotFound
		}
		owner, chunks, bytes = batch, text(b[1]), text(b[2])
	}
	blob, err := q.readChunks(ctx, owner, atoi(chunks), atoi(bytes))
	if err != nil {
		return nil, err
	}
	body, err := decodeContent(blob)
	if err != nil {
		return nil, errNoContent
	}
	m, err := body.content.Fill(id, acceptedAt(id), it.Recipient)
	if err != nil {
		return nil, errors.New("queue: outgoing: the variables do not fill the templates")
	}
	if r.head[headBatch] == "" {
		m.Cc, m.Bcc = it.Cc, it.Bcc
	}
	err = body.attach(m, it, func(id string, size int) (*mail.File, error) { return q.readContent(ctx, id, size) })
	if err != nil {
		return nil, err
	}
	return m, nil
}
