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
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/postroom/postroom/mail"
)

// stagingTime is how long a producer may be silent while it stages; then what it staged is dropped.
const stagingTime = 15 * time.Minute

// itemsPerScript bounds how long one script of staging takes.
const itemsPerScript = 200

// refsPerScript is after how many references of recipients their messages are staged at the latest.
const refsPerScript = 1000

// Receipt says what became of one message that was handed in.
type Receipt struct {
	// ID is the message's id, for Message and CancelMessage.
	ID string
	// Replayed says that the idempotency key was known: ID is of the message that was accepted then.
	Replayed bool
}

// Option changes how something is accepted or, as far as it is for that, cancelled.
type Option func(*accepting)

type accepting struct {
	idempotency string
	strict      bool
	by          Author
}

func optionsOf(options []Option) (a accepting) {
	for _, o := range options {
		o(&a)
	}
	return a
}

// By says who hands mail in or cancels it: the log names them, and the audit who cancels. Without it nobody is named, and what
// is cancelled is no matter for the audit.
func By(a Author) Option { return func(o *accepting) { o.by = a } }

// Strict makes a batch all or none: one recipient with faults refuses all, with a *mail.Invalid.
func Strict() Option { return func(a *accepting) { a.strict = true } }

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
// error it may only have been accepted if that error is ErrNotReplicated or came from the connection to Redis (use Idempotency to
// repeat safely). A message with faults is refused with a *mail.Invalid that names them all.
func (q *Queue) Enqueue(ctx context.Context, m mail.Message, options ...Option) (Receipt, error) {
	ctx, s := q.beginSending(ctx)
	a := optionsOf(options)
	receipt, err := q.enqueue(ctx, &m, s.context, a)
	if s.span != nil {
		s.end(err, &m, semconv.MessagingMessageID(receipt.ID), attribute.Bool("postroom.replayed", receipt.Replayed))
	}
	if (err == nil || errors.Is(err, ErrNotReplicated)) && !receipt.Replayed {
		q.logAccepted(ctx, "message", receipt.ID, &m, 1, a.by.Name, s.context)
	}
	return receipt, err
}

// enqueue accepts a message with its producer's trace context. It writes m in its canonical form.
func (q *Queue) enqueue(ctx context.Context, m *mail.Message, producer trace.SpanContext, a accepting) (Receipt, error) {
	stored := resolver{queue: q}
	attachments, missing, err := stored.resolve(ctx, "/attachments", m.Attachments)
	if err != nil {
		return Receipt{}, err
	}
	if m.Attachments, err = stored.identified(ctx, attachments); err != nil {
		return Receipt{}, err
	}
	fingerprint, err := fingerprintOf(*m)
	if err != nil {
		return Receipt{}, err
	}
	m.Attachments = attachments
	// What was accepted once stays accepted, also when it would be refused by now, as its expires_at has passed.
	if before, found, err := q.replayed(ctx, a.idempotency, fingerprint); err != nil {
		return Receipt{}, err
	} else if found {
		return Receipt{ID: before, Replayed: true}, q.confirm(ctx, before, a.idempotency)
	}
	now := time.Now()
	if err := withProblems(m.Validate(q.options.Limits, now), missing); err != nil {
		return Receipt{}, err
	}
	refs := refsOf(m.Attachments)
	inside := len(m.Attachments) - len(refs.ids)

	id := ulid.Make().String()
	it := item{Recipient: mail.Recipient{To: m.To}, Cc: m.Cc, Bcc: m.Bcc}
	blob, err := encodeContent(shared(*m), false)
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
	if len(blob) > filesCounted || len(refs.ids) > 0 {
		r.head[headFiles] = strconv.Itoa(inside)
	}
	r.head[headRefs], r.head[headTrace] = refs.encode(), traceText(producer)
	if err := r.setItem(it, m.Metadata); err != nil {
		return Receipt{}, err
	}
	recipients := r.setMarks(it)
	size := measureOf(m, false)
	size.recipients, size.bytes = recipients, len(blob)+refs.bytes
	problems, err := q.unacceptable(ctx, sender, size)
	if err != nil {
		return Receipt{}, err
	}
	if problems != nil {
		return Receipt{}, &mail.Invalid{Problems: problems}
	}

	inline := blob
	if len(blob) > inlineBytes {
		if err := q.stage(ctx, id, blob, ""); err != nil {
			return Receipt{}, err
		}
		inline = nil
	}
	answer, err := q.run(ctx, "accept", id, r.encode(), letter(m.Kind), sender, len(blob), q.options.ContentMaxBytes,
		a.idempotency, fingerprint, q.options.IdempotencyFor.Milliseconds(), milliOrZero(m.SendAt), inline, refs.encode(),
		q.options.BacklogMax, milliOrZero(m.ExpiresAt)).StringSlice()
	if err != nil {
		return Receipt{}, refusal("enqueue", err)
	}
	given, err := answerOf(answer)
	if answer[0] == "lost" {
		err = lostContent("/attachments", m.Attachments, answer[1])
	}
	if inline == nil && (err != nil || given != id) {
		q.discard(ctx, id, chunksOf(len(blob)))
	}
	if err != nil {
		return Receipt{}, err
	}
	if given == id {
		q.metrics.accepted.WithLabelValues(string(m.Kind)).Inc()
	}
	return Receipt{ID: given, Replayed: given != id}, q.confirm(ctx, given, a.idempotency)
}

// filesCounted is the size of content from which on a single message's record has the number of its files: only large ones can
// take several requests.
const filesCounted = 64 << 10

// withProblems adds problems to what validation found.
func withProblems(err error, more []mail.Problem) error {
	if len(more) == 0 {
		return err
	}
	all := &mail.Invalid{}
	if found := (*mail.Invalid)(nil); errors.As(err, &found) {
		all.Problems = slices.Clone(found.Problems)
	} else if err != nil {
		return err
	}
	all.Problems = append(all.Problems, more...)
	return all
}

// stage reserves room for content and writes it. A batch holds what it refers to from here on; errLost says that a file has gone.
func (q *Queue) stage(ctx context.Context, id string, blob []byte, refs string, fields ...any) error {
	args := append([]any{id, stagingTime.Milliseconds(), len(blob), q.options.ContentMaxBytes, chunksOf(len(blob)), refs,
		"accepted", time.Now().UnixMilli()}, fields...)
	answer, err := q.run(ctx, "stage", args...).StringSlice()
	if err != nil {
		return refusal("stage", err)
	}
	switch answer[0] {
	case "full":
		return ErrFull
	case "lost":
		return errLost(answer[1])
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
	id, was, err := q.usedFor(ctx, key)
	if err != nil || id == "" {
		return "", false, err
	}
	if was != fingerprint {
		return "", false, ErrIdempotencyConflict
	}
	return id, true, nil
}

// usedFor gives what an idempotency key was used for, and the fingerprint of that request; "" if it is new. ErrIdempotencyRunning.
func (q *Queue) usedFor(ctx context.Context, key string) (id, fingerprint string, err error) {
	before, err := q.redis.Get(ctx, q.key("i:", key)).Result()
	if isNil(err) {
		return "", "", nil
	} else if err != nil {
		return "", "", fmt.Errorf("queue: idempotency key: %w", err)
	}
	id, fingerprint, _ = strings.Cut(before, "\t")
	if id == "" {
		return "", "", ErrIdempotencyRunning
	}
	return id, fingerprint, nil
}

func isNil(err error) bool { return errors.Is(err, redis.Nil) }

// refusal wraps an error of Redis; that it has no memory left is ErrRedisFull.
func refusal(step string, err error) error {
	if redis.HasErrorPrefix(err, "OOM") {
		return ErrRedisFull
	}
	return fmt.Errorf("queue: %s: %w", step, err)
}

func answerOf(answer []string) (id string, err error) {
	switch answer[0] {
	case "accepted", "replayed":
		return answer[1], nil
	case "conflict":
		return "", ErrIdempotencyConflict
	case "running":
		return "", ErrIdempotencyRunning
	case "full":
		return "", ErrFull
	case "crowded":
		return "", ErrBacklogFull
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

// itemID derives the id of a batch's message from the batch's, so that nobody has to keep the list: its time, 6 bytes of a hash of it,
// and the recipient's index. They sort in the order of the recipients.
func itemID(batch ulid.ULID, index int) string {
	sum := sha256.Sum256(batch[:])
	id := batch
	copy(id[6:12], sum[:6])
	binary.BigEndian.PutUint32(id[12:], uint32(index))
	return id.String()
}

// itemIDs gives the ids of a batch's n messages; "" for a recipient who was refused.
func itemIDs(batch ulid.ULID, n int, refused map[int][]mail.Problem) []string {
	ids := make([]string, n)
	for i := range ids {
		if _, no := refused[i]; !no {
			ids[i] = itemID(batch, i)
		}
	}
	return ids
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
