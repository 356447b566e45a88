package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
)

// MessageStatus is what is known of a message.
type MessageStatus struct {
	ID      string
	BatchID string // empty for a single message
	Kind    mail.Kind
	State   State
	// Accepted is when it was handed in; Finished when it was delivered, cancelled, expired or failed (else zero).
	Accepted, Finished time.Time
	// Requeued is when it was last taken out of the failed store, if it ever was (else zero). It is kept as long as the message
	// is open or failed.
	Requeued time.Time
	// Due is when it goes at the earliest, if it waits for a time: send_at or a retry (else zero).
	Due time.Time
	// ExpiresAt is when it ends if it was not delivered; zero: never, or it had expired when it was requeued. It is kept as long as
	// the message is open or failed.
	ExpiresAt time.Time
	// Attempts is the number of attempts that counted.
	Attempts int
	// Recipients has To, Cc and Bcc with what became of each. Addresses are kept as long as the message is open or failed;
	// afterwards they are empty.
	Recipients []RecipientStatus
	// History has the last attempts, oldest first; of a message that ended well only the last.
	History []AttemptReport
	// Metadata is what the producer gave with a single message; that of a batch is the batch's.
	Metadata map[string]string
}

// RecipientStatus is what became of one recipient.
type RecipientStatus struct {
	Address string
	// State is "pending", "delivered" or "refused".
	State string
}

// BatchStatus is what is known of a batch.
type BatchStatus struct {
	ID   string
	Kind mail.Kind
	// Mailbox is the sender in lower case; empty if the producer gave none.
	Mailbox  string
	Accepted time.Time
	SendAt   time.Time // zero: at once
	// ExpiresAt is when what was not delivered ends; zero: never.
	ExpiresAt time.Time
	// Total is the number of its messages; it is the sum of the counts below.
	Total                                       int
	Open, Delivered, Failed, Cancelled, Expired int
	// Cancel says that the batch has been cancelled: what is still open and not being sent will be cancelled too.
	Cancel bool
	// Metadata is what the producer gave with it; a list leaves it out.
	Metadata map[string]string
}

// Message gives what is known of a message; ErrNotFound if there is none, it is not committed, or its record was dropped.
func (q *Queue) Message(ctx context.Context, id string) (*MessageStatus, error) {
	raw, err := q.redis.Get(ctx, q.key("m:", id)).Result()
	if errors.Is(err, redis.Nil) {
		return nil, ErrNotFound
	} else if err != nil {
		return nil, fmt.Errorf("queue: message: %w", err)
	}
	r, err := parseRecord(raw)
	if err != nil {
		return nil, err
	}
	s := &MessageStatus{
		ID: id, BatchID: r.head[headBatch], Kind: kindOf[r.head[headKind]], State: stateOf[r.head[headState]],
		Accepted: acceptedAt(id), Requeued: unixMilli(r.head[headRequeued]), Attempts: r.attempts(),
	}
	expires := r.head[headExpires]
	it, err := r.item()
	if err != nil {
		return nil, err
	}
	sendAt := ""
	if s.BatchID != "" {
		b, err := q.redis.HMGet(ctx, q.key("b:", s.BatchID), "state", "copies", "send_at", "expires").Result()
		if err != nil {
			return nil, fmt.Errorf("queue: message: batch: %w", err)
		}
		if state := text(b[0]); state == "staged" || state == "dropped" {
			return nil, ErrNotFound
		}
		expires = text(b[3])
		var copies [2][]mail.Address
		if js := text(b[1]); js != "" && r.payload != "" {
			if err := json.Unmarshal([]byte(js), &copies); err != nil {
				return nil, fmt.Errorf("queue: batch: copies: %w", err)
			}
		}
		it.Cc, it.Bcc, sendAt = copies[0], copies[1], text(b[2])
	}
	s.Due, s.Finished = r.times(s.State, sendAt)
	s.History = parseHistory(r.history, s.Finished)
	if r.meta != "" {
		if err := json.Unmarshal([]byte(r.meta), &s.Metadata); err != nil {
			return nil, fmt.Errorf("queue: message: metadata: %w", err)
		}
	}
	s.Recipients = recipientStates(it, r.head[headMarks])
	// As in the scripts: what had expired when it was requeued goes all the same.
	if at := unixMilli(expires); at.After(s.Requeued) && (s.Finished.IsZero() || s.State == Failed) {
		s.ExpiresAt = at
	}
	return s, nil
}

func recipientStates(it *item, marks string) []RecipientStatus {
	var all []mail.Address
	for _, list := range [][]mail.Address{it.To, it.Cc, it.Bcc} {
		for _, a := range list {
			// As in what goes out: who is in To already is not copied.
			if len(all) < len(it.To) || !slices.ContainsFunc(it.To, func(to mail.Address) bool { return to.Address == a.Address }) {
				all = append(all, a)
			}
		}
	}
	states := make([]RecipientStatus, max(len(all), len(marks)))
	for i := range states {
		if i < len(all) {
			states[i].Address = all[i].Address
		}
		states[i].State = "pending"
		if i < len(marks) {
			switch marks[i] {
			case markDelivered:
				states[i].State = "delivered"
			case markRefused:
				states[i].State = "refused"
			}
		}
	}
	return states
}

// Batch gives what is known of a batch; ErrNotFound if there is none, it is not committed, or its record was dropped.
func (q *Queue) Batch(ctx context.Context, id string) (*BatchStatus, error) {
	fields := append(slices.Clone(batchFields), "metadata")
	b, err := q.redis.HMGet(ctx, q.key("b:", id), fields...).Result()
	if err != nil {
		return nil, fmt.Errorf("queue: batch: %w", err)
	}
	s := batchStatus(id, b)
	if s == nil {
		return nil, ErrNotFound
	}
	if js := text(b[len(batchFields)]); js != "" {
		if err := json.Unmarshal([]byte(js), &s.Metadata); err != nil {
			return nil, fmt.Errorf("queue: batch: metadata: %w", err)
		}
	}
	return s, nil
}

// batchFields are what batchStatus goes by.
var batchFields = []string{"state", "kind", "sender", "send_at", "expires", "items", "shares", "f", "c", "e", "forgotten", "cancelled"}

// batchStatus gives what the fields of a batch say; nil if it is not committed.
func batchStatus(id string, fields []any) *BatchStatus {
	b := make(map[string]string)
	for i, name := range batchFields {
		b[name] = text(fields[i])
	}
	if b["state"] != "committed" {
		return nil
	}
	s := &BatchStatus{
		ID: id, Kind: kindOf[b["kind"]], Accepted: acceptedAt(id), SendAt: unixMilli(b["send_at"]), ExpiresAt: unixMilli(b["expires"]), Total: atoi(b["items"]),
		Failed: atoi(b["f"]), Cancelled: atoi(b["c"]), Expired: atoi(b["e"]), Cancel: b["cancelled"] != "",
	}
	if b["sender"] != "-" {
		s.Mailbox = b["sender"]
	}
	// What has a share of the content is open or failed; what has none and did not end otherwise was delivered.
	s.Open = atoi(b["shares"]) - (s.Failed - atoi(b["forgotten"]))
	s.Delivered = s.Total - s.Open - s.Failed - s.Cancelled - s.Expired
	return s
}

// Counts are totals of an installation.
type Counts struct {
	// Open is mail that was accepted and has not ended; Failed is in the failed store.
	Open, Failed map[mail.Kind]int
	// FailedByClass is what is in the failed store, by the class of its last attempt.
	FailedByClass map[mail.Class]int
	// ContentBytes is what the content that waits takes.
	ContentBytes int64
}

// Counts reads the totals, at a cost that does not grow with the backlog.
func (q *Queue) Counts(ctx context.Context) (*Counts, error) {
	all, err := q.redis.HGetAll(ctx, q.key("counts")).Result()
	if err != nil {
		return nil, fmt.Errorf("queue: counts: %w", err)
	}
	c := &Counts{Open: map[mail.Kind]int{}, Failed: map[mail.Kind]int{}, FailedByClass: map[mail.Class]int{}}
	for l, kind := range kindOf {
		c.Open[kind], c.Failed[kind] = atoi(all["open:"+l]), atoi(all["failed:"+l])
	}
	for _, class := range mail.Classes() {
		c.FailedByClass[class] = atoi(all["class:"+class.String()])
	}
	c.ContentBytes = int64(atoi(all["content_bytes"]))
	return c, nil
}

func text(v any) string {
	s, _ := v.(string)
	return s
}
