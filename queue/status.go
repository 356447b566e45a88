package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
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
	ID       string
	Kind     mail.Kind
	Accepted time.Time
	SendAt   time.Time // zero: at once
	// Total is the number of its messages; it is the sum of the counts below.
	Total                                       int
	Open, Delivered, Failed, Cancelled, Expired int
	// Cancel says that the batch has been cancelled: what is still open and not being sent will be cancelled too.
	Cancel   bool
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
	switch s.State {
	case Queued:
		// One that is due already waits for its turn.
		if due := unixMilli(r.head[headWhen]); due.After(time.Now()) {
			s.Due = due
		}
	case Delivered, Failed, Cancelled, Expired:
		s.Finished = unixMilli(r.head[headWhen])
	}
	s.History = parseHistory(r.history, s.Finished)
	it, err := r.item()
	if err != nil {
		return nil, err
	}
	if s.BatchID != "" {
		b, err := q.redis.HMGet(ctx, q.key("b:", s.BatchID), "state", "copies", "send_at").Result()
		if err != nil {
			return nil, fmt.Errorf("queue: message: batch: %w", err)
		}
		if state := text(b[0]); state == "staged" || state == "dropped" {
			return nil, ErrNotFound
		}
		var copies [2][]mail.Address
		if js := text(b[1]); js != "" && r.payload != "" {
			if err := json.Unmarshal([]byte(js), &copies); err != nil {
				return nil, fmt.Errorf("queue: batch: copies: %w", err)
			}
		}
		it.Cc, it.Bcc = copies[0], copies[1]
		if at := unixMilli(text(b[2])); s.State == Queued && s.Due.IsZero() && at.After(time.Now()) {
			s.Due = at
		}
	}
	if r.meta != "" {
		if err := json.Unmarshal([]byte(r.meta), &s.Metadata); err != nil {
			return nil, fmt.Errorf("queue: message: metadata: %w", err)
		}
	}
	s.Recipients = recipientStates(it, r.head[headMarks])
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
	b, err := q.redis.HGetAll(ctx, q.key("b:", id)).Result()
	if err != nil {
		return nil, fmt.Errorf("queue: batch: %w", err)
	}
	if b["state"] != "committed" {
		return nil, ErrNotFound
	}
	s := &BatchStatus{
		ID: id, Kind: kindOf[b["kind"]], Accepted: acceptedAt(id), SendAt: unixMilli(b["send_at"]), Total: atoi(b["items"]),
		Failed: atoi(b["f"]), Cancelled: atoi(b["c"]), Expired: atoi(b["e"]), Cancel: b["cancelled"] != "",
	}
	// What has a share of the content is open or failed; what has none and did not end otherwise was delivered.
	s.Open = atoi(b["shares"]) - (s.Failed - atoi(b["forgotten"]))
	s.Delivered = s.Total - s.Open - s.Failed - s.Cancelled - s.Expired
	if js := b["metadata"]; js != "" {
		if err := json.Unmarshal([]byte(js), &s.Metadata); err != nil {
			return nil, fmt.Errorf("queue: batch: metadata: %w", err)
		}
	}
	return s, nil
}

// CancelMessage ends a message that nobody is sending. It gives ErrTooLate if it is being sent or has ended otherwise, and
// nil if it was cancelled before.
func (q *Queue) CancelMessage(ctx context.Context, id string) error {
	answer, err := q.run(ctx, "cancel", id, q.options.DeliveredMax).StringSlice()
	if err != nil {
		return fmt.Errorf("queue: cancel: %w", err)
	}
	switch answer[0] {
	case "cancelled":
		return nil
	case "none":
		return ErrNotFound
	case "too_late":
		return ErrTooLate
	}
	e := parseTold(answer[1])
	q.metrics.finished.WithLabelValues(string(e.kind), string(e.state)).Inc()
	e.log(q.log, slog.LevelInfo, "cancelled")
	return nil
}

// CancelBatch cancels every message of a batch that nobody is sending. From the first step on none of them begins, also if
// ctx ends before the last; the sweep finishes it then.
func (q *Queue) CancelBatch(ctx context.Context, id string) error {
	for all := 0; ; {
		answer, err := q.run(ctx, "cancel_batch", id, q.options.DeliveredMax).Slice()
		if err != nil {
			return fmt.Errorf("queue: cancel batch: %w", err)
		}
		ended, _ := answer[1].(int64)
		if all += int(ended); ended > 0 {
			q.metrics.finished.WithLabelValues(string(kindOf[text(answer[2])]), string(Cancelled)).Add(float64(ended))
		}
		if answer[3] == int64(1) {
			q.log.Info("batch cancelled: none of its messages begins any more", "batch", id, "kind", kindOf[text(answer[2])])
		}
		for _, e := range toldAll(answer[4]) {
			e.log(q.log, slog.LevelInfo, "cancelled")
		}
		switch answer[0] {
		case int64(0):
			if all > 0 {
				q.log.Info("messages of a cancelled batch have ended", "batch", id, "kind", kindOf[text(answer[2])], "messages", all)
			}
			return nil
		case int64(-1):
			return ErrNotFound
		}
	}
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
