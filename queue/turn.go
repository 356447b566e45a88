package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/throttle"
)

// Turn is the right to send, one after the other, mail that one limit key binds, on one unit of its concurrency.
//
// A turn that meets more than one message gets more hands: other Turns of the same unit, which a handler works off at the
// same time. While one hands its message over, the others settle their last and begin their next; Attempt.Await sees to it
// that only one of them is with the provider. The methods of each are for one goroutine.
type Turn struct {
	consumer *Consumer
	id       string
	key      string
	unit     string
	run      string
	ends     time.Time
	over     bool
	open     *Attempt  // begun and not settled
	begun    int       // attempts of this hand
	line     *handLine // of all hands
	more     func()    // starts the other hands; nil if it has been called, or if this is one of them
}

// hands is how many messages a unit has begun at most, of which one is handed over. The others hide how long Redis takes; they
// are none where limits of rate bind, as they would be taken too early.
const hands = 8

// Attempt is one message to be handed over now, once.
type Attempt struct {
	// ID is the attempt's, random; MessageID the message's.
	ID, MessageID string
	// Batch is the id of its batch; empty for a single message.
	Batch string
	Kind  mail.Kind
	// Message is ready to be rendered; its From may be the zero value (the provider's own sender).
	Message *mail.Outgoing
	// Offered are the indexes into Message.Recipients of those who are still pending.
	Offered []int
	// Bounds are those of the active settings when the attempt began.
	Bounds MessageBounds
	// Counted is the number of attempts before this one that counted; First is when the first of them began (else zero).
	Counted int
	First   time.Time
	// Kept is what an earlier attempt noted by Keep, for the sender alone to understand.
	Kept string
	// Retried says that there was an earlier attempt.
	Retried bool
	// Doubtful says that nobody knows whether an earlier attempt handed the message over to one of Offered. A provider that can tell is to be asked
	// before it is sent again.
	Doubtful bool
	// Former says that a doubtful attempt was for other settings than the active ones: that their provider knows nothing of it tells
	// nothing.
	Former bool
	// Released says that somebody has requeued a doubtful message since: whoever is not known to have it is to get it, whatever the policy.
	Released bool
	// Trace is the context in which its producer handed it in; not valid if that is not known, or was not sampled.
	Trace trace.SpanContext
	// Version is that of the settings that the attempt began for.
	Version string
	// Now is Redis's time when the attempt began; Since when the message could have gone: accepted, or send_at or
	// the last requeue if later.
	Now, Since time.Time

	marks    string
	began    string // when, by Redis's clock, and of which generation of its record; "" if that could not be read
	turn     *Turn
	using    *using
	place    *linePlace // in the line; nil if it has none
	passed   bool       // it waited too long for the line: as if it had never begun
	lease    *lease
	begun    time.Time // when it was asked for, by this machine's clock
	deadline time.Time // when others take it for lost
	twice    bool      // its record is marked a second time, before the point of no return
	fenced   bool      // its point of no return may have been passed
}

// Context ends when the attempt is to be handed back unless it has passed its point of no return: when the process stops, or other
// settings have become active.
func (a *Attempt) Context() context.Context {
	if a.using == nil {
		return context.Background() // the zero Attempt
	}
	return a.using.ctx
}

// Refused reports whether an earlier attempt was refused for good by a recipient.
func (a *Attempt) Refused() bool { return strings.IndexByte(a.marks, markRefused) >= 0 }

// Held reports whether there are recipients to whom it is not offered again, as they may have it (Settlement.Held).
func (a *Attempt) Held() bool { return strings.IndexByte(a.marks, markHeld) >= 0 }

// Verdict is what is to be done with a message after an attempt.
type Verdict string

// The verdicts.
const (
	// Done: every recipient has it.
	Done Verdict = "delivered"
	// Again: offer the pending recipients again after Settlement.Delay.
	Again Verdict = "retry"
	// Back: offer it again at once, or when the hold is over, before new mail of its batch.
	Back Verdict = "back"
	// GiveUp: it goes to the failed store.
	GiveUp Verdict = "failed"
)

// Settlement is what an attempt came to.
type Settlement struct {
	Attempt *Attempt
	Verdict Verdict
	// Outcomes line up with Attempt.Offered; nil if nothing was handed over because we stopped by ourselves.
	Outcomes []mail.Outcome
	// Class is the attempt's: that of the outcome which decided the verdict.
	Class mail.Class
	// Held says that those whose outcome is unknown are not offered the message again by itself, also if others are. When nobody else is
	// pending it goes to the failed store, where they are pending: whoever requeues it offers it to them.
	Held bool
	// Counted says that the attempt counts towards giving up.
	Counted bool
	// Delay is how long until it is due again (Again).
	Delay time.Duration
	// Hold, if it is not 0, silences for every worker what the refusal reaches; Reason says why, in a word: "throttled",
	// "configuration" or "unreachable". If HoldMax is longer, each hold that follows another for the same reason without a
	// success in between is twice as long, up to HoldMax. When the time is over, one attempt tells whether the hold is.
	Hold, HoldMax time.Duration
	Reason        string
	// Scope is how far the refusal reaches. ScopeProvider: everything. ScopeMailbox: the mailbox; where one account sends for
	// all that is the account, but for a sender other than its own that the provider's configuration does not let it use, whose
	// mail alone is held. Any other counts as ScopeMailbox.
	Scope mail.Scope
	// Unused says that the provider saw nothing of the attempt, as it could not be reached: what was taken of its limits is
	// given back. It is always so if Outcomes is nil.
	Unused bool
	// Used is what the provider saw of the attempt, if that is known better than what was taken of its limits.
	Used *throttle.Cost
}

// Next settles what the last attempt came to (nil at the start of a turn) and begins the next. It gives nil when the turn
// is over. While Redis is away it keeps offering the settlement, until it is taken or the grace of a shutdown has passed.
func (t *Turn) Next(last *Settlement) *Attempt {
	c := t.consumer
	for {
		if t.over {
			if last != nil {
				t.settleOnly(last)
			}
			return nil
		}
		stopping := c.stopping.Err() != nil || time.Now().After(t.ends)
		l := c.lease.Load()
		attempt := ""
		if !stopping && l.live(time.Now()) {
			attempt = token(12)
		}
		asked, u := time.Now(), c.settings.current()
		if last != nil {
			u = last.Attempt.using // it may tell something of those settings alone
		}
		answer, err := t.call(last, l, u, attempt)
		if err != nil {
			return nil // the process ends; what is open stays marked in its record
		}
		answer.count(last, c.queue.metrics)
		answer.log(last, c.log)
		if answer.look >= 0 {
			c.lookLater(answer.whose, answer.look)
			if answer.limit != "" {
				c.queue.metrics.waits.WithLabelValues(answer.limit).Observe(answer.look.Seconds())
			}
		}
		last, t.open = nil, nil
		switch answer.what {
		case "attempt":
			// Open from here on: a panic while it is prepared, or settled, must not leave its record without a unit.
			t.open = &Attempt{ID: attempt, MessageID: answer.message, turn: t, lease: l, using: u, begun: asked, deadline: asked.Add(c.options.AttemptTimeout)}
			t.unit = answer.unit
			t.begun++
			a, fault := t.prepare(answer, t.open)
			if fault == nil {
				if t.begun > 1 && answer.ahead && t.more != nil {
					a.stand() // before what the others begin
					t.more()
				}
				return a
			}
			t.open.Leave(nil)
			last = fault
		case "again":
		default:
			t.over = true
			if end := answer.what; end != "ended" {
				c.queue.metrics.turns.WithLabelValues(end).Inc()
			} else if c.stopping.Err() != nil {
				c.queue.metrics.turns.WithLabelValues("stopped").Inc()
			} else {
				c.queue.metrics.turns.WithLabelValues("over").Inc()
			}
			if answer.what == "version" {
				c.settings.outdated(u)
			}
		}
	}
}

// nextAnswer is what next.lua says.
type nextAnswer struct {
	settled, what string
	message       string
	record        string
	now           time.Time
	owner         string
	chunks, bytes int
	content       string
	unit          string // of the attempt
	ahead         bool   // other hands may begin the next messages meanwhile
	bounds        MessageBounds
	limit         string        // that is used up
	look          time.Duration // when somebody has to look again; below 0: nobody, or somebody else
	whose         string        // the key to look at
	stale         int
	ended         []told
	holds         []toldHold
	trace         string // of its batch
}

// count takes what the script ended into the metrics.
func (a *nextAnswer) count(last *Settlement, m *metrics) {
	if last != nil && (a.settled == "delivered" || a.settled == "failed") {
		m.finished.WithLabelValues(string(last.Attempt.Kind), a.settled).Inc()
	}
	m.stale.Add(float64(a.stale))
	for _, e := range a.ended {
		m.finished.WithLabelValues(string(e.kind), string(e.state)).Inc()
	}
}

// log tells of messages that the script has ended, of holds, and of an outcome that did not decide.
func (a *nextAnswer) log(last *Settlement, log *slog.Logger) {
	for _, e := range a.ended {
		e.log(log, slog.LevelInfo, string(e.state))
	}
	for i := range a.holds {
		if last != nil {
			led := last.led(last.Scope)
			a.holds[i].log(log, &led, last.Attempt.ID)
		}
	}
	if last != nil && a.settled == "late" {
		log.LogAttrs(context.Background(), slog.LevelWarn, "an outcome came late: others had ended the attempt; what it delivered is recorded",
			append(last.Attempt.Attrs(), slog.String("class", last.Class.String()))...)
	}
}

// call runs next.lua until Redis answers. The arguments stay the same, so it does not matter which of the calls arrived.
func (t *Turn) call(last *Settlement, l *lease, u *using, attempt string) (*nextAnswer, error) {
	c := t.consumer
	args := append(make([]any, 0, nextFields), t.key, t.unit, t.id, t.run, l.worker, attempt)
	if last != nil {
		args = append(args, last.args(l.worker)...)
	} else {
		args = append(args, "", "", "", "", "", "", "", "", "", "", "", "", "", "", "")
	}
	if attempt != "" {
		c.underway.begin(attempt)
	}
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		answer, err := c.next(args, u)
		if err == nil {
			if attempt != "" && answer.what != "attempt" {
				c.underway.drop(attempt)
			}
			if last != nil {
				c.underway.settled(settledOnce{attempt: last.Attempt.ID, args: args, using: u})
			}
			c.queue.away.over(c.log)
			if c.refusing.Swap(false) {
				c.log.Info("Redis takes what attempts come to again")
			}
			return answer, nil
		}
		if c.hard.Err() != nil {
			return nil, c.hard.Err()
		}
		const kept = "what attempts come to could not be stored; it is kept and offered until Redis takes it"
		if Away(err) || !c.refusing.Swap(true) {
			c.queue.away.failed(c.log, kept, err)
		}
		if pause(c.hard, wait) != nil {
			return nil, c.hard.Err()
		}
	}
}

// settleOnly stores an outcome although the turn is over, as happens when a message could not be opened at its end.
func (t *Turn) settleOnly(last *Settlement) {
	_, _ = t.call(last, t.consumer.lease.Load(), last.Attempt.using, "")
}

// hand gives another hand of the same turn.
func (t *Turn) hand() *Turn {
	return &Turn{consumer: t.consumer, id: t.id, key: t.key, unit: t.unit, run: t.run, ends: t.ends, line: t.line}
}

func (s *Settlement) args(worker string) []any {
	a := s.Attempt
	marks := []byte(a.marks)
	for i, o := range s.Outcomes {
		switch o.Class {
		case mail.Delivered:
			marks[a.Offered[i]] = markDelivered
		case mail.Permanent:
			marks[a.Offered[i]] = markRefused
		case mail.Unknown:
			if s.Held {
				marks[a.Offered[i]] = markHeld
			}
		}
	}
	if a.lease != nil {
		worker = a.lease.worker
	}
	outcomes, offered := s.Outcomes, a.Offered
	if len(outcomes) == 0 {
		outcomes, offered = []mail.Outcome{{Class: s.Class, Cause: mail.Stopped, Step: "stopped", Reply: "Stopped before anything was handed over."}}, []int{0}
	}
	used := ""
	if s.Outcomes == nil || s.Unused {
		used = throttle.Cost{}.Encode()
	} else if s.Used != nil {
		used = s.Used.Encode()
	}
	counted := "0"
	if s.Counted {
		counted = "1"
	}
	line := historyLine(worker, offered, outcomes)
	if a.passed {
		line = ""
	}
	return []any{a.MessageID, a.ID, string(s.Verdict), string(marks), s.Class.String(), line,
		counted, s.Delay.Milliseconds(), token(6), s.Hold.Milliseconds(), s.Reason, s.HoldMax.Milliseconds(), used, s.refusal(), a.began}
}

// refusal is how far a hold reaches, and what led to it, as next.lua takes them.
func (s *Settlement) refusal() string {
	if s.Hold == 0 {
		return ""
	}
	scope := mail.ScopeMailbox
	if s.Scope == mail.ScopeProvider {
		scope = mail.ScopeProvider
	}
	led := s.led(scope)
	led.Reply = "" // it can name recipients
	return scopeLetters[scope:scope+1] + historyLine("", []int{0}, []mail.Outcome{led})
}

// led is the outcome that decided; of that scope if there is none.
func (s *Settlement) led(scope mail.Scope) mail.Outcome {
	led := mail.Outcome{Class: s.Class, Scope: scope}
	for _, o := range s.Outcomes {
		if o.Class == s.Class {
			led = o
		}
	}
	return led
}

func parseNext(answer any) (*nextAnswer, error) {
	values, _ := answer.([]any)
	n := len(values)
	if n < 6 {
		return nil, errors.New("queue: next: unexpected answer")
	}
	a := &nextAnswer{settled: text(values[0]), what: text(values[1]), whose: text(values[n-3]), ended: toldAll(values[n-1]), holds: toldHolds(values[n-1])}
	look, _ := values[n-4].(int64)
	stale, _ := values[n-2].(int64)
	a.look, a.stale = time.Duration(look)*time.Millisecond, int(stale)
	switch {
	case a.what == "error":
		return nil, fmt.Errorf("queue: next: %s", text(values[2]))
	case a.what == "limited" && n == 7:
		a.limit = text(values[2])
	case a.what == "attempt" && n == 17:
		a.message, a.record, a.now, a.owner = text(values[2]), text(values[3]), unixMilli(text(values[4])), text(values[5])
		a.chunks, a.bytes, a.content = atoi(text(values[6])), atoi(text(values[7])), text(values[8])
		a.unit, a.ahead = text(values[9]), text(values[10]) == "1"
		a.trace, a.bounds = text(values[11]), parseMessageBounds(text(values[12]))
	case n != 6:
		return nil, errors.New("queue: next: unexpected answer")
	}
	return a, nil
}

// faultDelay is when a message is offered again in whose attempt we had a fault ourselves.
const faultDelay = time.Minute

// end settles what a handler has left open, and ends the turn, so that nobody has to wait for it. A handler that returned
// in the middle of an attempt has had a fault; whether the message went out depends on the fence alone.
func (t *Turn) end() {
	var last *Settlement
	if a := t.open; a != nil {
		a.Leave(nil)
		// It counts, and comes back later: a message that always meets the fault must not stop the others.
		last = &Settlement{Attempt: a, Verdict: Again, Class: mail.Temporary, Counted: true, Delay: t.consumer.faultDelay}
		if a.fenced {
			last.Class = mail.Unknown
			if t.consumer.options.OnUnknown[a.Kind] == Hold {
				last.Verdict = GiveUp
			}
		}
		a.Offered = pending(a.marks)
		for range a.Offered {
			last.Outcomes = append(last.Outcomes, mail.Outcome{Class: last.Class, Cause: mail.Fault, Step: "fault", Reply: "A fault in Postroom stopped the attempt; its log says where."})
		}
		t.consumer.log.LogAttrs(context.Background(), slog.LevelError, "attempt", append(a.Attrs(), slog.String("class", last.Class.String()),
			slog.String("cause", string(mail.Fault)), slog.String("verdict", string(last.Verdict)))...)
	}
	if last != nil || !t.over {
		t.ends = time.Time{}
		t.Next(last)
	}
}

// aheadBytes is how much a message may have of its own to be read and rendered before it is its turn. With all hands of 50 turns that is
// some 100 MB; of what is larger one message at a time is in memory for each unit.
const aheadBytes = 128 << 10

// prepare completes an attempt from what next.lua gave. What can't be opened is settled at once: the settlement is returned.
func (t *Turn) prepare(answer *nextAnswer, a *Attempt) (*Attempt, *Settlement) {
	a.MessageID, a.Now = answer.message, answer.now
	addresses := 1 // at least; what is known before the message is complete
	broken := func(err error) *Settlement {
		o := mail.Outcome{Class: mail.Permanent, Scope: mail.ScopeMessage, Cause: mail.Unreadable, Step: "open", Reply: err.Error()}
		if a.marks == "" {
			a.marks = strings.Repeat(string(markPending), addresses)
		}
		a.Offered = pending(a.marks)
		t.consumer.log.LogAttrs(context.Background(), slog.LevelError, "a message can't be opened and goes to the failed store",
			append(a.Attrs(), slog.Any("error", err))...)
		outcomes := make([]mail.Outcome, len(a.Offered))
		for i := range outcomes {
			outcomes[i] = o
		}
		return &Settlement{Attempt: a, Verdict: GiveUp, Class: mail.Permanent, Counted: true, Outcomes: outcomes, Unused: true}
	}
	r, err := parseRecord(answer.record)
	if err != nil {
		return nil, broken(err)
	}
	a.marks, a.began = r.head[headMarks], strconv.FormatInt(a.Now.UnixMilli(), 10)+" "+r.head[headGeneration]
	a.Kind, a.Counted, a.First = kindOf[r.head[headKind]], r.attempts(), unixMilli(r.head[headFirst])
	a.Kept, a.Batch, a.Bounds = r.head[headKept], r.head[headBatch], answer.bounds
	if producer := cmp.Or(answer.trace, r.head[headTrace]); producer != "" {
		a.Trace = parseTrace(producer)
	}
	a.twice = t.consumer.options.OnUnknown[a.Kind] == Hold
	a.Version = a.using.version
	a.Retried = r.history != ""
	it, err := r.item()
	if err != nil {
		return nil, broken(err)
	}
	addresses = len(it.To) + len(it.Cc) + len(it.Bcc)
	own := r.referredBytes()
	if answer.owner == answer.message {
		own += answer.bytes
	}
	late := &Settlement{Attempt: a, Verdict: Back, Class: mail.Temporary}
	if own > aheadBytes {
		if err := a.Await(a.Context(), nil); err != nil {
			return nil, late
		}
	}
	unread := func(err error) (*Attempt, *Settlement) {
		if errors.Is(err, errNoContent) {
			return nil, broken(err)
		}
		return nil, late // Redis did not answer: nobody's fault, and nothing has begun
	}
	body, err := t.consumer.content(answer)
	if err != nil {
		return unread(err)
	}
	if body.filled > aheadBytes {
		if err := a.Await(a.Context(), nil); err != nil {
			return nil, late
		}
	}
	a.Since = acceptedAt(a.MessageID)
	if body.sendAt.After(a.Since) {
		a.Since = body.sendAt
	}
	if requeued := unixMilli(r.head[headRequeued]); requeued.After(a.Since) {
		a.Since = requeued
	}
	a.Message, err = body.content.Fill(a.MessageID, acceptedAt(a.MessageID), it.Recipient)
	if err != nil {
		return nil, broken(errors.New("the variables do not fill the templates"))
	}
	if r.head[headBatch] == "" {
		a.Message.Cc, a.Message.Bcc = it.Cc, it.Bcc
	}
	if err := body.attach(a.Message, it, t.consumer.storedFile); err != nil {
		return unread(err)
	}
	if n := len(a.Message.To) + len(a.Message.Cc) + len(a.Message.Bcc); len(a.marks) != n {
		a.marks = strings.Repeat(string(markPending), n)
	}
	a.Offered = pending(a.marks)
	if begun, last := r.doubtful(a.Offered); !begun.IsZero() {
		a.Doubtful, a.Former = true, !begun.After(a.using.since)
		a.Released = unixMilli(r.head[headRequeued]).After(last)
	}
	return a, nil
}

// pending gives the indexes of the recipients who are pending.
func pending(marks string) []int {
	var indexes []int
	for i := range len(marks) {
		if marks[i] == markPending {
			indexes = append(indexes, i)
		}
	}
	return indexes
}

// content gives an attempt's content: a batch's from the cache.
func (c *Consumer) content(answer *nextAnswer) (*body, error) {
	if answer.content != "" {
		return decodeContent([]byte(answer.content))
	}
	read := func() (*body, error) {
		blob, err := c.queue.readChunks(c.hard, answer.owner, answer.chunks, answer.bytes)
		if err != nil {
			return nil, err
		}
		return decodeContent(blob)
	}
	if answer.owner == answer.message {
		return read()
	}
	return cachedAs(c.contents, answer.owner, answer.bytes, read)
}

// storedFile gives a file that messages refer to, from the cache.
func (c *Consumer) storedFile(id string, size int) (*mail.File, error) {
	return cachedAs(c.contents, id, size, func() (*mail.File, error) { return c.queue.readContent(c.hard, id, size) })
}

// payload is that of a turn's asynq task: format, key, unit, turn.
func (t *Turn) payload() []byte {
	return []byte(strings.Join([]string{formatVersion, t.key, t.unit, t.id}, "\t"))
}

func parseTurn(payload []byte) (*Turn, error) {
	parts := strings.Split(string(payload), "\t")
	if len(parts) != 4 {
		return nil, fmt.Errorf("queue: turn: %d fields", len(parts))
	}
	if parts[0] != formatVersion {
		return nil, fmt.Errorf("queue: turn: format %q is newer than this program", parts[0])
	}
	return &Turn{key: parts[1], unit: parts[2], id: parts[3]}, nil
}

// LogValue gives what identifies a turn.
func (t *Turn) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", t.id), slog.String("key", t.key), slog.String("unit", t.unit))
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
