package queue

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
)

// stagingTime is how long a producer may be silent while it stages; then what it staged is dropped.
const stagingTime = 15 * time.Minute

// itemsPerScript bounds how long one script of staging takes.
const itemsPerScript = 200

// Receipt says what became of one message that was handed in.
type Receipt struct {
	// ID is the message's id, for Message and CancelMessage.
	ID string
	// Replayed says that the idempotency key was known: ID is of the message that was accepted then.
	Replayed bool
}

// BatchReceipt says what became of a batch that was handed in.
type BatchReceipt struct {
	// ID is the batch's id, for Batch and CancelBatch; empty if every recipient was refused, as there is no batch then.
	ID string
	// Replayed says that the idempotency key was known: ID is of the batch that was accepted then.
	Replayed bool
	// Accepted is the number of messages that will be sent.
	Accepted int
	// Refused has the faults of recipients who get nothing, by index.
	Refused map[int][]mail.Problem
	// IDs are the ids of the messages, in the order of the recipients; "" for one who was refused.
	IDs []string
}

// Option changes how something is accepted.
type Option func(*accepting)

type accepting struct{ idempotency string }

// Idempotency makes a request repeatable: the same request with the same key is accepted once, and answered the same, for
// as long as Options.IdempotencyFor. The same key with another request is ErrIdempotencyConflict. Keys of different scopes
// (such as a token's name) are different keys.
func Idempotency(scope, key string) Option {
	return func(a *accepting) {
		if key != "" {
			sum := sha256.Sum256([]byte(scope + "\x00" + key))
			a.idempotency = hex.EncodeToString(sum[:16])
		}
	}
}

// Enqueue accepts one message. When it returns without an error the message will be sent, whatever process dies; with an
// error it may only have been accepted if that error came from the connection to Redis (use Idempotency to repeat safely).
// A message with faults is refused with a *mail.Invalid that names them all.
func (q *Queue) Enqueue(ctx context.Context, m mail.Message, options ...Option) (Receipt, error) {
	var a accepting
	for _, o := range options {
		o(&a)
	}
	fingerprint, err := fingerprintOf(m)
	if err != nil {
		return Receipt{}, err
	}
	// What was accepted once stays accepted, also when it would be refused by now, as its expires_at has passed.
	if before, found, err := q.replayed(ctx, a.idempotency, fingerprint); err != nil || found {
		return Receipt{ID: before, Replayed: found}, err
	}
	now := time.Now()
	if err := m.Validate(q.options.Limits, now); err != nil {
		return Receipt{}, err
	}

	id := ulid.Make().String()
	it := item{Recipient: mail.Recipient{To: m.To}, Cc: m.Cc, Bcc: m.Bcc}
	blob, err := encodeContent(shared(m), false)
	if err != nil {
		return Receipt{}, err
	}
	sender := senderOf(m.From)
	r := record{}
	r.head[headVersion], r.head[headState], r.head[headKind] = formatVersion, "q", letter(m.Kind)
	r.head[headExpires], r.head[headSender] = milli(m.ExpiresAt), sender
	if m.SendAt.After(now) {
		r.head[headWhen] = milli(m.SendAt)
	}
	r.head[headChunks], r.head[headBytes] = strconv.Itoa(chunksOf(len(blob))), strconv.Itoa(len(blob))
	if len(blob) > filesCounted {
		r.head[headFiles] = strconv.Itoa(len(m.Attachments))
	}
	if err := r.setItem(it, m.Metadata); err != nil {
		return Receipt{}, err
	}
	recipients := r.setMarks(it)
	problems, err := q.unacceptable(ctx, sender, recipients, len(blob), len(m.Attachments))
	if err != nil {
		return Receipt{}, err
	}
	if problems != nil {
		return Receipt{}, &mail.Invalid{Problems: problems}
	}

	inline := blob
	if len(blob) > inlineBytes {
		if err := q.stage(ctx, id, blob); err != nil {
			return Receipt{}, err
		}
		inline = nil
	}
	answer, err := q.run(ctx, "accept", id, r.encode(), letter(m.Kind), sender, len(blob), q.options.ContentMaxBytes,
		a.idempotency, fingerprint, q.options.IdempotencyFor.Milliseconds(), milliOrZero(m.SendAt), inline).StringSlice()
	if err != nil {
		return Receipt{}, refusal("enqueue", err)
	}
	given, err := answerOf(answer)
	if inline == nil && (err != nil || given != id) {
		q.discard(ctx, id, chunksOf(len(blob)))
	}
	if err != nil {
		return Receipt{}, err
	}
	if given == id {
		q.metrics.accepted.WithLabelValues(string(m.Kind)).Inc()
	}
	return Receipt{ID: given, Replayed: given != id}, nil
}

// EnqueueBatch accepts one message for many recipients. Recipients with faults get nothing and are reported; the others'
// messages will be sent, all or none of them, as with Enqueue. If the message itself has faults the error is a *mail.Invalid.
func (q *Queue) EnqueueBatch(ctx context.Context, b mail.Batch, options ...Option) (BatchReceipt, error) {
	var a accepting
	for _, o := range options {
		o(&a)
	}
	fingerprint, err := fingerprintOf(b)
	if err != nil {
		return BatchReceipt{}, err
	}
	before, found, err := q.replayed(ctx, a.idempotency, fingerprint)
	if err != nil {
		return BatchReceipt{}, err
	}
	b.Recipients = slices.Clone(b.Recipients) // which Validate brings into canonical form
	now := time.Now()
	if found {
		now = acceptedAt(before) // it was valid then
	}
	refused, err := b.Validate(q.options.Limits, now)
	if err != nil {
		return BatchReceipt{}, err
	}
	if !found {
		if refused, err = q.refuseUnacceptable(ctx, &b, refused); err != nil {
			return BatchReceipt{}, err
		}
	}
	n := len(b.Recipients) - len(refused)
	if n == 0 {
		return BatchReceipt{Refused: refused, IDs: make([]string, len(b.Recipients))}, nil
	}
	id := ulid.Make()
	receipt := BatchReceipt{ID: id.String(), Accepted: n, Refused: refused}
	if found {
		receipt.ID, receipt.Replayed = before, true
		receipt.IDs, err = itemIDs(before, len(b.Recipients), refused)
		return receipt, err
	}
	if receipt.IDs, err = itemIDs(receipt.ID, len(b.Recipients), refused); err != nil {
		return BatchReceipt{}, err
	}

	chunks, err := q.stageBatch(ctx, &b, &receipt)
	if err != nil {
		q.discard(ctx, receipt.ID, chunks)
		return BatchReceipt{}, err
	}
	answer, err := q.run(ctx, "commit", receipt.ID, n, a.idempotency, fingerprint,
		q.options.IdempotencyFor.Milliseconds(), milliOrZero(b.Message.SendAt)).StringSlice()
	if err != nil {
		// It may have been committed: only the sweep may drop it, and only if it was not.
		return BatchReceipt{}, fmt.Errorf("queue: enqueue batch: commit: %w", err)
	}
	given, err := answerOf(answer)
	if err != nil {
		q.discard(ctx, receipt.ID, chunks)
		return BatchReceipt{}, err
	}
	if given != receipt.ID {
		q.discard(ctx, receipt.ID, chunks)
		receipt.ID, receipt.Replayed = given, true
		receipt.IDs, err = itemIDs(given, len(b.Recipients), refused)
		return receipt, err
	}
	q.metrics.accepted.WithLabelValues(string(b.Message.Kind)).Add(float64(n))
	return receipt, nil
}

// filesCounted is the size of content from which on a single message's record has the number of its files: only large ones can
// take several requests.
const filesCounted = 64 << 10

// stageBatch writes content and items; nothing of it is visible before commit. It gives the number of pieces of the content.
func (q *Queue) stageBatch(ctx context.Context, b *mail.Batch, receipt *BatchReceipt) (chunks int, err error) {
	m := b.Message
	metadata, cc, bcc := m.Metadata, m.Cc, m.Bcc
	body := shared(m)
	body.Cc, body.Bcc = cc, bcc
	blob, err := encodeContent(body, true)
	if err != nil {
		return 0, err
	}
	chunks = chunksOf(len(blob))
	sender := senderOf(m.From)
	fields := []any{"kind", letter(m.Kind), "sender", sender, "files", len(m.Attachments)}
	if !m.ExpiresAt.IsZero() {
		fields = append(fields, "expires", milli(m.ExpiresAt))
	}
	if !m.SendAt.IsZero() {
		fields = append(fields, "send_at", milli(m.SendAt))
	}
	for name, v := range map[string]any{"metadata": metadata, "copies": [2][]mail.Address{cc, bcc}} {
		if (name == "metadata" && len(metadata) == 0) || (name == "copies" && len(cc)+len(bcc) == 0) {
			continue
		}
		js, err := json.Marshal(v)
		if err != nil {
			return 0, fmt.Errorf("queue: batch: %w", err)
		}
		fields = append(fields, name, js)
	}
	if err := q.stage(ctx, receipt.ID, blob, fields...); err != nil {
		return chunks, err
	}

	done := 0
	args := make([]any, 0, 5+2*itemsPerScript)
	flush := func() error {
		if len(args) <= 5 {
			return nil
		}
		state, err := q.run(ctx, "items", args...).Text()
		if err != nil {
			return refusal("enqueue batch: stage", err)
		}
		if state != "staged" {
			return ErrStagingExpired
		}
		done += (len(args) - 5) / 2
		return nil
	}
	begin := func() {
		args = append(args[:0], receipt.ID, letter(m.Kind), sender, done, stagingTime.Milliseconds())
	}
	begin()
	var r record
	r.head[headVersion], r.head[headState], r.head[headKind], r.head[headBatch] = formatVersion, "q", letter(m.Kind), receipt.ID
	for i := range b.Recipients {
		if receipt.IDs[i] == "" {
			continue
		}
		it := item{Recipient: b.Recipients[i]}
		if err := r.setItem(it, nil); err != nil {
			return chunks, err
		}
		it.Cc, it.Bcc = cc, bcc
		r.setMarks(it)
		args = append(args, receipt.IDs[i], r.encode())
		if len(args) >= 5+2*itemsPerScript {
			if err := flush(); err != nil {
				return chunks, err
			}
			begin()
		}
	}
	return chunks, flush()
}

// stage reserves room for content and writes it.
func (q *Queue) stage(ctx context.Context, id string, blob []byte, fields ...any) error {
	args := append([]any{id, stagingTime.Milliseconds(), len(blob), q.options.ContentMaxBytes, chunksOf(len(blob)),
		"accepted", time.Now().UnixMilli()}, fields...)
	state, err := q.run(ctx, "stage", args...).Text()
	if err != nil {
		return refusal("stage", err)
	}
	if state == "full" {
		return ErrFull
	}
	if err := q.writeChunks(ctx, id, blob); err != nil {
		q.discard(ctx, id, chunksOf(len(blob)))
		return err
	}
	return nil
}

// discard drops what was staged and will not be committed. What it can't finish the sweep will.
func (q *Queue) discard(ctx context.Context, id string, chunks int) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	for more := 1; more == 1; {
		var err error
		if more, err = q.run(ctx, "drop", id, "").Int(); err != nil {
			return
		}
	}
	// Pieces that were written after the sweep had dropped the rest.
	for i := range chunks {
		_ = q.redis.Unlink(ctx, q.key("c:", id, ":", strconv.Itoa(i))).Err()
	}
}

// replayed looks an idempotency key up ("": none was given). It saves work for a request that is repeated; what decides is
// the script that accepts.
func (q *Queue) replayed(ctx context.Context, key, fingerprint string) (id string, found bool, err error) {
	if key == "" {
		return "", false, nil
	}
	before, err := q.redis.Get(ctx, q.key("i:", key)).Result()
	if errors.Is(err, redis.Nil) {
		return "", false, nil
	} else if err != nil {
		return "", false, fmt.Errorf("queue: idempotency key: %w", err)
	}
	id, was, _ := strings.Cut(before, "\t")
	if was != fingerprint {
		return "", false, ErrIdempotencyConflict
	}
	return id, true, nil
}

// refusal wraps an error of Redis; that it has no memory left is ErrFull.
func refusal(step string, err error) error {
	if redis.HasErrorPrefix(err, "OOM") {
		return ErrFull
	}
	return fmt.Errorf("queue: %s: %w", step, err)
}

func answerOf(answer []string) (id string, err error) {
	switch answer[0] {
	case "accepted", "replayed":
		return answer[1], nil
	case "conflict":
		return "", ErrIdempotencyConflict
	case "full":
		return "", ErrFull
	}
	return "", ErrStagingExpired
}

// shared is the part of a message that is content.
func shared(m mail.Message) mail.Message {
	m.To, m.Cc, m.Bcc, m.Metadata = nil, nil, nil, nil
	m.ExpiresAt = time.Time{}
	return m
}

// senderOf names the lanes of a sender; "-" if there is none.
func senderOf(from mail.Address) string {
	if from.Address == "" {
		return "-"
	}
	return strings.ToLower(from.Address)
}

func (r *record) setItem(it item, metadata map[string]string) error {
	var err error
	if r.payload, err = compactJSON(it); err != nil {
		return fmt.Errorf("queue: item: %w", err)
	}
	if r.meta = ""; len(metadata) > 0 {
		if r.meta, err = compactJSON(metadata); err != nil {
			return fmt.Errorf("queue: metadata: %w", err)
		}
	}
	return nil
}

// setMarks marks every recipient as pending, if there are several: the limits count them. It gives their number.
func (r *record) setMarks(it item) int {
	n := len(recipientStates(&it, ""))
	if r.head[headMarks] = ""; n > 1 {
		r.head[headMarks] = strings.Repeat(string(markPending), n)
	}
	return n
}

// compactJSON writes v on one line, without the escapes that only web pages need.
func compactJSON(v any) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// fingerprintOf tells one request from another.
func fingerprintOf(v any) (string, error) {
	h := sha256.New()
	if err := json.NewEncoder(h).Encode(v); err != nil {
		return "", fmt.Errorf("queue: fingerprint: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// itemIDs derives the ids of a batch's messages from the batch's, so that nobody has to keep the list: its time, 6 bytes of
// a hash of it, and the recipient's index. They sort in the order of the recipients.
func itemIDs(batch string, n int, refused map[int][]mail.Problem) ([]string, error) {
	parent, err := ulid.ParseStrict(batch)
	if err != nil {
		return nil, fmt.Errorf("queue: batch id: %w", err)
	}
	sum := sha256.Sum256(parent[:])
	id := parent
	copy(id[6:12], sum[:6])
	ids := make([]string, n)
	for i := range ids {
		if _, no := refused[i]; no {
			continue
		}
		binary.BigEndian.PutUint32(id[12:], uint32(i))
		ids[i] = id.String()
	}
	return ids, nil
}

// acceptedAt is when an id was made: the Date of its message.
func acceptedAt(id string) time.Time {
	parsed, err := ulid.ParseStrict(id)
	if err != nil {
		return time.Time{}
	}
	return ulid.Time(parsed.Time()).UTC()
}

// token gives n random letters and digits, for ids of turns, attempts, generations and workers.
func token(n int) string {
	text := rand.Text() // 26 letters of base32
	return strings.ToLower(text[:n])
}

func milli(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(t.UnixMilli(), 10)
}

func milliOrZero(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
