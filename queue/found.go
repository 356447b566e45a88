package queue

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
)

// finder reads messages for whoever selects some of them, with what their batches know.
type finder struct {
	queue *Queue
	// own is the active provider's own sender, which messages without one have.
	own     string
	batches map[string]batchFacts
}

// batchFacts are what a batch knows of its messages.
type batchFacts struct {
	sender, state string
	sendAt        string
	copies        [2][]mail.Address
	cancelled     bool
}

// found is a message that a scan has come upon.
type found struct {
	place
	record *record // nil if a newer program wrote it
	sender string  // "-": none
	batch  batchFacts
}

// newFinder makes a finder that can tell whose mailbox is meant.
func (q *Queue) newFinder(ctx context.Context, mailbox string) (finder, error) {
	f := finder{queue: q, batches: make(map[string]batchFacts)}
	if mailbox == "" || mailbox == "-" {
		return f, nil
	}
	own, err := q.redis.HGet(ctx, q.key("provider"), "sender").Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return f, fmt.Errorf("queue: provider: %w", err)
	}
	f.own = own
	return f, nil
}

// read gives the messages at places; nil where there is none any more, none yet, or one in a state that is not wanted.
func (f *finder) read(ctx context.Context, places []place, wanted func(State) bool) ([]*found, error) {
	messages := make([]*found, len(places))
	if len(places) == 0 {
		return messages, nil
	}
	keys := make([]string, len(places))
	for i, p := range places {
		keys[i] = f.queue.key("m:", p.id)
	}
	values, err := f.queue.redis.MGet(ctx, keys...).Result()
	if err != nil {
		return nil, fmt.Errorf("queue: records: %w", err)
	}
	batches := make(map[string]bool)
	for i, v := range values {
		raw, ok := v.(string)
		if !ok {
			continue
		}
		r, err := parseRecord(raw)
		if err != nil {
			messages[i] = &found{place: places[i]}
			continue
		}
		if !wanted(stateOf[r.head[headState]]) {
			continue
		}
		messages[i] = &found{place: places[i], record: r, sender: r.head[headSender]}
		if b := r.head[headBatch]; b != "" {
			batches[b] = true
		}
	}
	if err := f.learn(ctx, batches); err != nil {
		return nil, err
	}
	for i, m := range messages {
		if m == nil || m.record == nil || m.record.head[headBatch] == "" {
			continue
		}
		m.batch = f.batches[m.record.head[headBatch]]
		m.sender = m.batch.sender
		if m.batch.state == "staged" || m.batch.state == "dropped" {
			messages[i] = nil // it is no mail yet
		}
	}
	return messages, nil
}

// learn reads the facts of batches that are not known yet.
func (f *finder) learn(ctx context.Context, batches map[string]bool) error {
	pipe := f.queue.redis.Pipeline()
	asked := make(map[string]*redis.SliceCmd)
	for id := range batches {
		if _, known := f.batches[id]; !known {
			asked[id] = pipe.HMGet(ctx, f.queue.key("b:", id), "sender", "copies", "cancelled", "state", "send_at")
		}
	}
	if len(asked) == 0 {
		return nil
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("queue: batches: %w", err)
	}
	for id, answer := range asked {
		v := answer.Val()
		facts := batchFacts{sender: cmp.Or(text(v[0]), "-"), cancelled: text(v[2]) != "", state: text(v[3]), sendAt: text(v[4])}
		if js := text(v[1]); js != "" {
			if err := json.Unmarshal([]byte(js), &facts.copies); err != nil {
				return errors.New("queue: the copies of a batch can't be read") // err may quote addresses
			}
		}
		f.batches[id] = facts
	}
	return nil
}

// belongs reports whether a message is of a kind, a batch and a mailbox; what is empty does not matter.
func (f *finder) belongs(m *found, kind mail.Kind, batch, mailbox string) bool {
	h := &m.record.head
	return (kind == "" || h[headKind] == letter(kind)) && (batch == "" || h[headBatch] == batch) && f.sends(m.sender, mailbox)
}

// sends reports whether mail of a sender ("-": none) is a mailbox's; "" is everybody's.
func (f *finder) sends(sender, mailbox string) bool {
	return mailbox == "" || sender == mailbox || sender == "-" && f.own == mailbox
}

// lacks reports whether somebody with this address, or in this domain ("@" in front), does not have the message.
func (m *found) lacks(address string) bool {
	return slices.ContainsFunc(m.recipients(), func(r RecipientStatus) bool {
		known := strings.ToLower(r.Address)
		return r.State != "delivered" && (known == address || address[0] == '@' && strings.HasSuffix(known, address))
	})
}

func (m *found) recipients() []RecipientStatus {
	it, err := m.record.item()
	if err != nil {
		it = &item{}
	}
	if m.record.head[headBatch] != "" && m.record.payload != "" {
		it.Cc, it.Bcc = m.batch.copies[0], m.batch.copies[1]
	}
	return recipientStates(it, m.record.head[headMarks])
}

// mailbox is the sender; "" if the producer gave none.
func (m *found) mailbox() string {
	if m.sender == "-" {
		return ""
	}
	return m.sender
}
