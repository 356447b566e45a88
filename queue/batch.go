package queue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"runtime"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"

	"github.com/postroom/postroom/mail"
)

// BatchReceipt says what became of a batch that was handed in.
type BatchReceipt struct {
	// ID is the batch's id, for Batch and CancelBatch.
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

// EnqueueBatch accepts one message for many recipients. Recipients with faults get nothing and are reported; the others'
// messages will be sent, all or none of them, as with Enqueue. If the message itself has faults, or every recipient has, the error is
// a *mail.Invalid.
// OpenBatch takes the recipients one after the other.
func (q *Queue) EnqueueBatch(ctx context.Context, b mail.Batch, options ...Option) (BatchReceipt, error) {
	if n := len(b.Recipients); n == 0 || n > q.options.Limits.MaxBatch {
		_, err := b.Validate(q.options.Limits, time.Now())
		return BatchReceipt{}, err
	}
	s, err := q.openBatch(ctx, b.Message, "", options)
	if err != nil {
		return BatchReceipt{}, err
	}
	defer s.Discard(ctx)
	for _, r := range b.Recipients {
		if _, err := s.Add(ctx, r); err != nil {
			return BatchReceipt{}, err
		}
	}
	return s.Commit(ctx)
}

// MostRefused bounds how many of a batch's recipients are remembered with their faults.
const MostRefused = 1000

// BatchStream accepts a batch whose recipients come one after the other, so that it need not be in memory: Add each, then Commit.
// Nothing of it is visible or sent before Commit has returned; what is neither committed nor discarded is dropped after 15 minutes
// of silence. It is for one goroutine.
type BatchStream struct {
	queue  *Queue
	check  *mail.BatchCheck
	is     acceptable
	m      mail.Message // in canonical form
	size   measure      // of it without the files of recipients
	stored resolver
	refs   refs // of what all share
	id     ulid.ULID
	key    string // idempotency key; "": none
	mark   string // what the key is marked with; "": it is not
	marked time.Time
	strict bool
	by     Author
	hash   hash.Hash // of the request
	// before is the id of the batch that the key was used for, was its fingerprint; "" if the key is new.
	before, was string

	n, accepted int
	refused     map[int][]mail.Problem
	staged      bool
	chunks      int
	ended       bool
	args        []any // of the next run of items.lua
	stagedItems int
	own         refs              // of the messages in args
	ownAt       map[string]string // where in the request each of them was met first
	record      record
	sending     sending
}

// keyHeld is how long an idempotency key stays marked while its request is silent, and keyRenewed how often the mark is renewed.
const (
	keyHeld    = 20 * time.Second
	keyRenewed = 5 * time.Second
)

// OpenBatch begins a batch of one message for many recipients. A message with faults is a *mail.Invalid. ErrIdempotencyRunning says
// that a request with the same key is under way.
func (q *Queue) OpenBatch(ctx context.Context, m mail.Message, options ...Option) (*BatchStream, error) {
	return q.openBatch(ctx, m, token(12), options)
}

// openBatch begins a batch. Without a mark, which what is accepted in one go does not need, a request under way with the same key
// decides at its commit which of them is accepted.
func (q *Queue) openBatch(ctx context.Context, m mail.Message, mark string, options []Option) (*BatchStream, error) {
	ctx, sending := q.beginSending(ctx)
	s, err := q.beginBatch(ctx, m, mark, options)
	if err != nil {
		sending.end(err, nil)
		return nil, err
	}
	s.sending = sending
	return s, nil
}

func (q *Queue) beginBatch(ctx context.Context, m mail.Message, mark string, options []Option) (*BatchStream, error) {
	a := optionsOf(options)
	s := &BatchStream{queue: q, id: ulid.Make(), key: a.idempotency, strict: a.strict, by: a.by, mark: mark, hash: sha256.New(), stored: resolver{queue: q}}
	attachments, missing, err := s.stored.resolve(ctx, "/message/attachments", m.Attachments)
	if err != nil {
		return nil, err
	}
	if m.Attachments, err = s.stored.identified(ctx, attachments); err != nil {
		return nil, err
	}
	if err := s.fingerprint(m); err != nil {
		return nil, err
	}
	m.Attachments = attachments
	if err := s.holdKey(ctx); err != nil {
		return nil, err
	}
	now := time.Now()
	if s.before != "" {
		now, missing = acceptedAt(s.before), nil // it was valid then
	}
	if err := withProblems(s.prepare(ctx, m, now), missing); err != nil {
		s.Discard(ctx)
		return nil, err
	}
	return s, nil
}

func (s *BatchStream) prepare(ctx context.Context, m mail.Message, now time.Time) (err error) {
	if s.check, err = mail.NewBatchCheck(m, s.queue.options.Limits, now); err != nil {
		return err
	}
	s.m = s.check.Message()
	s.size = measureOf(&s.m, true)
	s.refs = refsOf(s.m.Attachments)
	if s.before != "" {
		return nil // what was accepted once stays accepted
	}
	if s.is, err = s.queue.acceptable(ctx); err != nil {
		return err
	}
	return s.is.batch(senderOf(s.m.From), s.size)
}

// fingerprint adds a part of the request to what tells it from another.
func (s *BatchStream) fingerprint(v any) error {
	if s.key == "" {
		return nil
	}
	if err := json.NewEncoder(s.hash).Encode(v); err != nil {
		return fmt.Errorf("queue: fingerprint: %w", err)
	}
	return nil
}

// holdKey marks the idempotency key, or finds the batch that it was used for.
func (s *BatchStream) holdKey(ctx context.Context) error {
	if s.key == "" || s.before != "" || time.Since(s.marked) < keyRenewed {
		return nil
	}
	if s.mark == "" {
		if !s.marked.IsZero() {
			return nil // from here on the commit decides
		}
		s.marked = time.Now()
		before, was, err := s.queue.usedFor(ctx, s.key)
		s.before, s.was = before, was
		return err
	}
	answer, err := s.queue.run(ctx, "hold_key", s.key, s.mark, keyHeld.Milliseconds()).StringSlice()
	if err != nil {
		return refusal("idempotency key", err)
	}
	switch answer[0] {
	case "running":
		return ErrIdempotencyRunning
	case "done":
		if s.marked.IsZero() {
			s.before, s.was = answer[1], answer[2]
		}
	}
	s.marked = time.Now()
	return nil
}

// Add hands in the next recipient. The problems say why there is no message for it; the others are not affected. After an error
// only Discard is left to do: the batch can't be accepted.
func (s *BatchStream) Add(ctx context.Context, r mail.Recipient) ([]mail.Problem, error) {
	if p := s.check.Room(s.n + 1); p != nil {
		return nil, &mail.Invalid{Problems: []mail.Problem{*p}}
	}
	index := s.n
	field := fmt.Sprintf("/recipients/%d", index)
	attachments, missing, err := s.stored.resolve(ctx, field+"/attachments", r.Attachments)
	if err != nil {
		return nil, err
	}
	if r.Attachments, err = s.stored.identified(ctx, attachments); err != nil {
		return nil, err
	}
	if err := s.fingerprint(r); err != nil {
		return nil, err
	}
	r.Attachments = attachments
	s.n++
	if s.before != "" {
		return nil, nil // the first answer knows
	}
	r, problems := s.check.Recipient(index, r)
	problems = append(problems, missing...)
	it, own := item{Recipient: r, Cc: s.m.Cc, Bcc: s.m.Bcc}, refsOf(r.Attachments)
	if len(problems) == 0 && (len(s.is.limits) > 0 || s.is.message.Bytes > 0) {
		size := s.size.with(len(own.ids), own.bytes)
		size.recipients = len(recipientStates(&it, ""))
		if p := s.is.tooDear(size); p != nil {
			p.Field = field + p.Field
			problems = []mail.Problem{*p}
		}
	}
	if len(problems) > 0 {
		if s.refused == nil {
			s.refused = map[int][]mail.Problem{}
		}
		s.refused[index] = problems
		return problems, nil
	}
	s.accepted++
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	if err := s.record.setItem(newItem(r), nil); err != nil {
		return nil, err
	}
	s.record.setMarks(it)
	s.record.head[headRefs] = own.encode()
	s.refer(field, r.Attachments)
	s.args = append(s.args, itemID(s.id, index), s.record.encode())
	if len(s.args) >= itemArgs+2*itemsPerScript || len(s.own.ids) >= refsPerScript {
		return nil, s.flush(ctx)
	}
	return nil, s.holdKey(ctx)
}

// refer notes what the next message to be staged refers to by itself.
func (s *BatchStream) refer(field string, list []mail.Attachment) {
	for i, a := range list {
		s.own.bytes += int(a.Size)
		s.own.ids = append(s.own.ids, a.Ref)
		if s.ownAt == nil {
			s.ownAt = make(map[string]string)
		}
		if _, met := s.ownAt[a.Ref]; !met {
			s.ownAt[a.Ref] = lost(field+"/attachments", i).Field
		}
	}
}

// begin stages what the messages share, once there is a recipient who gets one.
func (s *BatchStream) begin(ctx context.Context) error {
	if s.staged {
		return nil
	}
	m := &s.m
	body := shared(*m)
	body.Cc, body.Bcc = m.Cc, m.Bcc
	blob, err := encodeContent(body, true)
	if err != nil {
		return err
	}
	s.chunks = chunksOf(len(blob))
	fields := []any{"kind", letter(m.Kind), "sender", senderOf(m.From), "files", len(m.Attachments) - len(s.refs.ids)}
	if !m.ExpiresAt.IsZero() {
		fields = append(fields, "expires", milli(m.ExpiresAt))
	}
	if !m.SendAt.IsZero() {
		fields = append(fields, "send_at", milli(m.SendAt))
	}
	if producer := traceText(s.sending.context); producer != "" {
		fields = append(fields, "trace", producer)
	}
	for name, v := range map[string]any{"metadata": m.Metadata, "copies": [2][]mail.Address{m.Cc, m.Bcc}} {
		if (name == "metadata" && len(m.Metadata) == 0) || (name == "copies" && len(m.Cc)+len(m.Bcc) == 0) {
			continue
		}
		js, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("queue: batch: %w", err)
		}
		fields = append(fields, name, js)
	}
	s.staged = true // also if that fails half-way
	err = s.queue.stage(ctx, s.id.String(), blob, s.refs.encode(), fields...)
	if gone := errLost(""); errors.As(err, &gone) {
		return lostContent("/message/attachments", m.Attachments, string(gone))
	} else if err != nil {
		return err
	}
	// The files are in Redis, and a stream can last.
	s.check.Forget()
	s.m.Attachments = s.check.Message().Attachments
	if blob = nil; s.size.bytes-s.refs.bytes > 1<<20 {
		runtime.GC() // a process collects seldom, and has held them several times over by now
	}
	h := &s.record.head
	h[headVersion], h[headState], h[headKind], h[headBatch] = formatVersion, "q", letter(m.Kind), s.id.String()
	s.args = make([]any, itemArgs, itemArgs+2*itemsPerScript)
	return nil
}

// itemArgs is the number of arguments of items.lua before those of the items.
const itemArgs = 7

// flush stages the messages that were gathered.
func (s *BatchStream) flush(ctx context.Context) error {
	if len(s.args) <= itemArgs {
		return nil
	}
	for i, v := range []any{s.id.String(), letter(s.m.Kind), senderOf(s.m.From), s.stagedItems, stagingTime.Milliseconds(), s.own.encode(),
		s.queue.options.BacklogMax} {
		s.args[i] = v
	}
	answer, err := s.queue.run(ctx, "items", s.args...).StringSlice()
	if err != nil {
		return refusal("enqueue batch: stage", err)
	}
	switch answer[0] {
	case "gone":
		return ErrStagingExpired
	case "crowded":
		return ErrBacklogFull
	case "lost":
		return &mail.Invalid{Problems: []mail.Problem{{Field: s.ownAt[answer[1]], Reason: noSuchContent}}}
	}
	s.own = refs{}
	clear(s.ownAt)
	s.stagedItems += (len(s.args) - itemArgs) / 2
	clear(s.args)
	s.args = s.args[:itemArgs]
	return nil
}

// Count gives how many recipients were added, and how many of them are refused.
func (s *BatchStream) Count() (n, refused int) { return s.n, len(s.refused) }

// Commit accepts the batch: when it returns without an error its messages will be sent, whatever process dies; with an error it may
// only have been accepted if that error is ErrNotReplicated or came from the connection to Redis (use Idempotency to repeat safely).
// If nobody is left to send to the error is a *mail.Invalid with the faults of all who were refused.
func (s *BatchStream) Commit(ctx context.Context) (BatchReceipt, error) {
	receipt, err := s.commit(ctx)
	if s.sending.span != nil {
		s.sending.end(err, &s.m, attribute.String("postroom.batch", receipt.ID), semconv.MessagingBatchMessageCount(receipt.Accepted),
			attribute.Int("postroom.refused", len(receipt.Refused)), attribute.Bool("postroom.replayed", receipt.Replayed))
	}
	if (err == nil || errors.Is(err, ErrNotReplicated)) && receipt.ID != "" && !receipt.Replayed {
		s.queue.logAccepted(ctx, "batch", receipt.ID, &s.m, receipt.Accepted, s.by.Name, s.sending.context)
	}
	return receipt, err
}

func (s *BatchStream) commit(ctx context.Context) (BatchReceipt, error) {
	fingerprint := hex.EncodeToString(s.hash.Sum(nil)[:16])
	if s.before != "" {
		if s.was != fingerprint {
			return BatchReceipt{}, ErrIdempotencyConflict
		}
		s.ended = true
		return s.again(ctx, s.before)
	}
	if s.n == 0 {
		return BatchReceipt{}, &mail.Invalid{Problems: []mail.Problem{{Field: "/recipients", Reason: "is empty: name at least one"}}}
	}
	if len(s.refused) > 0 && (s.strict || s.accepted == 0) {
		invalid := &mail.Invalid{}
		for _, i := range sortedKeys(s.refused) {
			invalid.Problems = append(invalid.Problems, s.refused[i]...)
		}
		return BatchReceipt{}, invalid
	}
	if err := s.flush(ctx); err != nil {
		return BatchReceipt{}, err
	}
	remembered, err := encodeRefused(s.refused)
	if err != nil {
		return BatchReceipt{}, err
	}
	id := s.id.String()
	answer, err := s.queue.run(ctx, "commit", id, s.accepted, s.key, fingerprint, s.queue.options.IdempotencyFor.Milliseconds(),
		milliOrZero(s.m.SendAt), s.mark, remembered, s.queue.options.BacklogMax).StringSlice()
	if err != nil {
		s.ended = true // it may have been committed: only the sweep may drop it, and only if it was not
		return BatchReceipt{}, fmt.Errorf("queue: enqueue batch: commit: %w", err)
	}
	given, err := answerOf(answer)
	if err != nil {
		return BatchReceipt{}, err
	}
	if given != id {
		s.discard(ctx)
		return s.again(ctx, given)
	}
	s.ended = true
	s.queue.metrics.accepted.WithLabelValues(string(s.m.Kind)).Add(float64(s.accepted))
	receipt := BatchReceipt{ID: id, Accepted: s.accepted, Refused: s.refused, IDs: itemIDs(s.id, s.n, s.refused)}
	return receipt, s.queue.confirm(ctx, id, s.key)
}

// Discard drops what was staged and not committed. It does nothing after Commit has accepted the batch, and may be called always.
func (s *BatchStream) Discard(ctx context.Context) {
	s.sending.end(errDiscarded, nil)
	s.discard(ctx)
}

func (s *BatchStream) discard(ctx context.Context) {
	if s.ended {
		return
	}
	s.ended = true
	if s.staged {
		s.queue.discard(ctx, s.id.String(), s.chunks)
	}
	if s.mark != "" && s.key != "" && s.before == "" && !s.marked.IsZero() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = s.queue.run(ctx, "hold_key", s.key, s.mark, 0).Err() // else it ends by itself
	}
}

// encodeRefused writes who was refused, for whoever repeats the request; beyond MostRefused only who.
func encodeRefused(refused map[int][]mail.Problem) (string, error) {
	if len(refused) == 0 {
		return "", nil
	}
	told := make(map[int][]mail.Problem, len(refused))
	for n, i := range sortedKeys(refused) {
		if told[i] = nil; n < MostRefused {
			told[i] = refused[i]
		}
	}
	return compactJSON(told)
}

func sortedKeys(m map[int][]mail.Problem) []int {
	keys := make([]int, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// again answers a request that was accepted before, as a batch.
func (s *BatchStream) again(ctx context.Context, id string) (BatchReceipt, error) {
	receipt, err := s.queue.receiptAgain(ctx, id, s.n)
	if err != nil {
		return BatchReceipt{}, err
	}
	return receipt, s.queue.confirm(ctx, id, s.key)
}

// receiptAgain gives the first answer to a request that is repeated, of n recipients.
func (q *Queue) receiptAgain(ctx context.Context, id string, n int) (BatchReceipt, error) {
	parent, err := ulid.ParseStrict(id)
	if err != nil {
		return BatchReceipt{}, fmt.Errorf("queue: batch id: %w", err)
	}
	receipt := BatchReceipt{ID: id, Replayed: true}
	if receipt.Refused, err = q.refusedOf(ctx, id); err != nil {
		return BatchReceipt{}, err
	}
	receipt.Accepted = n - len(receipt.Refused)
	receipt.IDs = itemIDs(parent, n, receipt.Refused)
	return receipt, nil
}

// refusedOf gives the recipients of a batch who were refused, by index.
func (q *Queue) refusedOf(ctx context.Context, id string) (refused map[int][]mail.Problem, err error) {
	remembered, err := q.redis.HGet(ctx, q.key("b:", id), "refused").Result()
	if err != nil && !isNil(err) {
		return nil, fmt.Errorf("queue: batch: %w", err)
	}
	if remembered != "" {
		if err := json.Unmarshal([]byte(remembered), &refused); err != nil {
			return nil, fmt.Errorf("queue: batch: who was refused: %w", err)
		}
	}
	return refused, nil
}
