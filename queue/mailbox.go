package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/throttle"
)

// Everything, as a key, stands for all mail: to pause it, and for the limits of the provider as a whole.
const Everything = throttle.Provider

// Mailbox is what is known of a limit key: a mailbox, or with ByAccount the account that sends for all; or of one of its senders
// who is held or paused by himself.
type Mailbox struct {
	Key string
	// Account is that of a sender who is held or paused by himself: its limits bind him. Else it is empty.
	Account string
	// Backlog is what may go as soon as its turn comes, by kind: neither what waits for a time, nor what is being sent.
	Backlog map[mail.Kind]int
	// Units is how many turns are out, of at most Concurrency.
	Units, Concurrency int
	// Workers are those that can send, for any mailbox.
	Workers Workforce
	// Hold is there after a refusal, Pause if somebody asked for it; else nil.
	Hold, Pause *Silence
	// Limits are the key's own, then those of the provider as a whole.
	Limits []LimitUse
	// Next is when the next message may go at the earliest: zero if one may go now, or if that depends on attempts under way.
	Next time.Time
	// Through is a forecast of when the backlog will be through, if nothing else comes; zero if there is none, if no worker can send, or
	// if nothing is known yet of how fast mail goes. Binding is the limit that decides; "" if it is the concurrency.
	Through time.Time
	Binding throttle.Name

	flow flow
}

// Silence says why nothing of a key goes.
type Silence struct {
	// Reason is "throttled", "configuration" or "unreachable" of a hold; of a pause what its author wrote.
	Reason string
	// By is who asked for a pause; "" of a hold.
	By string
	// Since is when it began: a hold with the first refusal since which nothing has gone. Until is when it ends by itself.
	Since, Until time.Time
	// Trying says that a hold's time is over, and one message is tried to see whether the hold is.
	Trying bool
	// Refusals counts the refusals in a row that led to a hold.
	Refusals int
	// Last is the refusal that led to a hold, without its words.
	Last OutcomeReport
	// All says that everything is held, not this key alone.
	All bool
}

// LimitUse is a limit and how much of it is used.
type LimitUse struct {
	throttle.Use
	// All says that the limit is one of the provider as a whole.
	All bool
}

// Waiting is the number of messages in the backlog.
func (m *Mailbox) Waiting() int {
	n := 0
	for _, count := range m.Backlog {
		n += count
	}
	return n
}

// flow is how fast a key's mail went of late.
type flow struct {
	took              time.Duration // mean of a hand-over
	recipients, bytes float64       // means of a message
	rate              float64       // messages a second; 0: not known
}

func parseFlow(s string) flow {
	var f [7]float64
	for i, field := range strings.Fields(s) {
		if i < len(f) {
			f[i], _ = strconv.ParseFloat(field, 64)
		}
	}
	return flow{took: time.Duration(f[0] * float64(time.Millisecond)), recipients: f[1], bytes: f[2], rate: f[6]}
}

// state is what mailboxes.lua answers, and the books.
type state struct {
	now            time.Time
	account        string // "" with ByMailbox
	concurrency    int
	allConcurrency int
	limits, all    []throttle.Limit
	hold, pause    *Silence // of everything
	allBooks       []throttle.Window
	workers        []WorkerStatus
	mailboxes      []*Mailbox
	books          map[string][]throttle.Window
}

// Mailboxes lists the limit keys that have mail or had some lately, by name. It is empty while no provider is active.
func (q *Queue) Mailboxes(ctx context.Context) ([]*Mailbox, error) {
	s, err := q.state(ctx, "", everyone)
	if err != nil {
		return nil, err
	}
	return s.mailboxes, nil
}

// Mailbox tells of one limit key, also if it has never sent anything; ErrNotFound if no provider is active, or it sends for
// another account.
func (q *Queue) Mailbox(ctx context.Context, key string) (*Mailbox, error) {
	key = strings.ToLower(key)
	// All of them, since they share the provider's limits.
	s, err := q.state(ctx, "", everyone)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(s.mailboxes, func(m *Mailbox) bool { return m.Key == key }); i >= 0 {
		return s.mailboxes[i], nil
	}
	if s, err = q.state(ctx, key, everyone); err != nil {
		return nil, err
	}
	if len(s.mailboxes) == 0 {
		return nil, ErrNotFound
	}
	return s.mailboxes[0], nil
}

// mailboxFields is how many values mailboxes.lua answers for each key, and before the first.
const (
	mailboxFields = 15
	stateFields   = 17
)

// everyone, as a number of mailboxes, stands for all.
const everyone = math.MaxInt

// state reads the state of one key, or of all (""), with the books of at most so many, those with the longest backlog.
func (q *Queue) state(ctx context.Context, key string, books int) (*state, error) {
	values, err := q.run(ctx, "mailboxes", key).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("queue: mailboxes: %w", err)
	}
	s := &state{now: unixMilli(values[0])}
	if s.workers, err = q.Workers(ctx); err != nil {
		return nil, err
	}
	if len(values) < stateFields {
		return s, nil
	}
	if values[1] == string(ByAccount) {
		s.account = values[2]
	}
	s.concurrency, s.allConcurrency = atoi(values[3]), atoi(values[5])
	if s.limits, err = throttle.Decode(values[4]); err != nil {
		return nil, err
	}
	if s.all, err = throttle.Decode(values[6]); err != nil {
		return nil, err
	}
	s.hold, s.pause = holdOf(values[7:], s.now, true, true)
	all, err := throttle.Read(ctx, q.redis, q.prefix, []string{Everything}, s.all)
	if err != nil {
		return nil, err
	}
	s.allBooks = all[Everything]
	for rest := values[stateFields:]; len(rest) >= mailboxFields; rest = rest[mailboxFields:] {
		m := &Mailbox{Key: rest[0], Units: atoi(rest[4]), Concurrency: s.concurrency, Workers: workforce(s.workers), flow: parseFlow(rest[14]),
			Backlog: map[mail.Kind]int{mail.Alert: atoi(rest[1]), mail.Report: atoi(rest[2]), mail.Subscription: atoi(rest[3])}}
		if s.account != "" && m.Key != s.account {
			m.Account = s.account
		}
		m.Hold, m.Pause = holdOf(rest[5:], s.now, false, m.Key == s.account || m.Units+m.Waiting() > 0)
		if s.hold != nil && (m.Hold == nil || s.hold.Until.After(m.Hold.Until)) {
			m.Hold = s.hold
		}
		if s.pause != nil && (m.Pause == nil || s.pause.Until.After(m.Pause.Until)) {
			m.Pause = s.pause
		}
		s.mailboxes = append(s.mailboxes, m)
	}
	slices.SortStableFunc(s.mailboxes, func(a, b *Mailbox) int { return cmp.Compare(b.Waiting(), a.Waiting()) })
	var scopes []string
	for _, m := range s.mailboxes[:min(books, len(s.mailboxes))] {
		if m.Account == "" {
			scopes = append(scopes, m.Key)
		}
	}
	if s.books, err = throttle.Read(ctx, q.redis, q.prefix, scopes, s.limits); err != nil {
		return nil, err
	}
	slices.SortFunc(s.mailboxes, func(a, b *Mailbox) int { return cmp.Compare(a.Key, b.Key) })
	for _, m := range s.mailboxes {
		s.complete(m)
	}
	return s, nil
}

// holdOf reads the fields of a hold and a pause; nil if they are over. A hold in doubt is one as long as there is work that can
// show whether it is.
func holdOf(f []string, now time.Time, all, work bool) (hold, pause *Silence) {
	if until := unixMilli(f[0]); until.After(now) || work && !until.IsZero() {
		hold = &Silence{Reason: f[1], Since: unixMilli(f[2]), Until: until, Refusals: atoi(f[3]), Trying: !until.After(now), All: all}
		hold.Last, _ = parseGroup(f[8])
	}
	if until := unixMilli(f[4]); until.After(now) {
		pause = &Silence{Reason: f[5], By: f[6], Since: unixMilli(f[7]), Until: until, All: all}
	}
	return hold, pause
}

// silentUntil is when a key is neither held nor paused any more; zero if it is not.
func (m *Mailbox) silentUntil() time.Time {
	var until time.Time
	for _, h := range []*Silence{m.Hold, m.Pause} {
		if h != nil && h.Until.After(until) {
			until = h.Until
		}
	}
	return until
}

// complete adds limits and forecast.
func (s *state) complete(m *Mailbox) {
	m.Next = m.silentUntil()
	for _, windows := range [][]throttle.Window{s.books[m.Key], s.allBooks} {
		for _, w := range windows {
			cost := int64(1)
			if w.Limit.Name == throttle.UploadBytes {
				cost = 0
			}
			if at := w.Wait(cost, s.now.UnixMilli()); at > 0 && time.UnixMilli(at).After(m.Next) {
				m.Next = time.UnixMilli(at)
			}
		}
	}
	for i := range s.books[m.Key] {
		m.Limits = append(m.Limits, LimitUse{Use: s.books[m.Key][i].Use(s.now)})
	}
	for i := range s.allBooks {
		m.Limits = append(m.Limits, LimitUse{Use: s.allBooks[i].Use(s.now), All: true})
	}
	m.Through, m.Binding = s.forecast(m, m.Waiting())
}

// forecast tells when a number of a key's messages will be through; zero if nothing is known, or no worker can send.
func (s *state) forecast(m *Mailbox, messages int) (through time.Time, binding throttle.Name) {
	if messages <= 0 || !m.Workers.Able() {
		return time.Time{}, ""
	}
	start := s.now
	if until := m.silentUntil(); until.After(start) {
		start = until
	}
	load := throttle.Load{Messages: messages, Took: m.flow.took, Concurrency: m.Concurrency, NotBefore: start,
		Average: map[throttle.Name]float64{throttle.Messages: 1, throttle.Requests: 1,
			throttle.Recipients: max(m.flow.recipients, 1), throttle.UploadBytes: m.flow.bytes}}
	through, binding = throttle.Forecast(s.books[m.Key], load, s.now)
	if len(s.allBooks) > 0 {
		// All keys share these; while this one's messages go, as many of each other go, as far as it has them.
		load.Messages, load.Concurrency = 0, s.allConcurrency
		for _, other := range s.mailboxes {
			load.Messages += min(messages, other.Waiting())
		}
		load.Messages = max(load.Messages, messages)
		if all, by := throttle.Forecast(s.allBooks, load, s.now); all.After(through) {
			through, binding = all, by
		}
	}
	if binding == "" {
		// Nothing but our own speed binds: what was measured of it tells more than concurrency and the time of a hand-over.
		switch {
		case m.flow.rate > 0:
			through = start.Add(time.Duration(float64(messages) / m.flow.rate * float64(time.Second)))
		case m.flow.took == 0:
			return time.Time{}, ""
		}
	}
	return through, binding
}

// PauseOfEverything gives the pause of all mail; nil if there is none.
func (q *Queue) PauseOfEverything(ctx context.Context) (*Silence, error) {
	now, err := q.now(ctx)
	if err != nil {
		return nil, fmt.Errorf("queue: pause: %w", err)
	}
	values, err := q.redis.HMGet(ctx, q.key("k:", Everything), "until", "reason", "since", "refused",
		"pause", "pause_reason", "pause_by", "pause_since", "outcome").Result()
	if err != nil {
		return nil, fmt.Errorf("queue: pause: %w", err)
	}
	fields := make([]string, len(values))
	for i, v := range values {
		fields[i] = text(v)
	}
	_, pause := holdOf(fields, now, true, false)
	return pause, nil
}

// Pause lets nothing of a key begin for a time, nothing at all if the key is Everything; what is under way is finished. A pause
// that runs is replaced. It ends by itself, or by Resume. It needs a reason; by says who asked for it, also in the audit.
func (q *Queue) Pause(ctx context.Context, key string, d time.Duration, reason string, by Author) (until time.Time, err error) {
	if d <= 0 || reason == "" {
		return until, errors.New("queue: pause: say for how long, and why")
	}
	now, err := q.now(ctx)
	if err != nil {
		return until, fmt.Errorf("queue: pause: %w", err)
	}
	until = now.Add(d)
	entry, err := by.onMailbox("pause", key, "until "+until.UTC().Format(time.RFC3339)+": "+reason).encode()
	if err != nil {
		return until, err
	}
	if err := q.run(ctx, "pause", strings.ToLower(key), until.UnixMilli(), oneLine(reason), oneLine(by.Name), entry).Err(); err != nil {
		return until, fmt.Errorf("queue: pause: %w", err)
	}
	q.recent.forget()
	return until, nil
}

// Resume ends a key's pause, and its hold too, as whoever resumes has put right why it was held. Should it be held again before
// anything has gone, it is so since the hold that was resumed (but a sender of an account who is held by himself). It reports whether
// there was any; if there was none the audit says nothing.
func (q *Queue) Resume(ctx context.Context, key string, by Author) (bool, error) {
	entry, err := by.onMailbox("resume", key, "").encode()
	if err != nil {
		return false, err
	}
	changed, err := q.run(ctx, "pause", strings.ToLower(key), 0, "", "", entry).Int()
	if err != nil {
		return false, fmt.Errorf("queue: resume: %w", err)
	}
	q.recent.forget()
	return changed == 1, nil
}

// Release ends a key's hold, for whoever has seen that its reason is gone; with try one attempt is to tell whether it is, at once.
// What the provider asked to be silent for stays silent, and pauses stay.
func (q *Queue) Release(ctx context.Context, key string, try bool) error {
	how := "go"
	if try {
		how = "try"
	}
	over, err := q.run(ctx, "release", strings.ToLower(key), how).Text()
	if err != nil {
		return fmt.Errorf("queue: release: %w", err)
	}
	if over != "" {
		h := parseHold(over)
		h.log(q.log, nil, "")
	}
	q.recent.forget()
	return nil
}
