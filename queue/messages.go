package queue

import (
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postroom/postroom/mail"
)

// MessageFilter selects messages whatever became of them: those that fit everything that is set. The zero value selects all that are open.
type MessageFilter struct {
	// States are any of these; none stands for those that are open, queued and sending.
	States []State
	Kind   mail.Kind
	// Mailbox is the sender's address. Messages without a sender are found by the active provider's own, and by "-". Of a single message
	// that has ended well the sender is not known any more.
	Mailbox string
	BatchID string
	// Recipient is the address of somebody who does not have the message yet, or "@" and a domain. Case does not matter.
	Recipient string
	// IDs are the messages' own; at most 10,000.
	IDs []string
	// AcceptedAfter and AcceptedBefore bound when the message was handed in, by the clock of whoever took it: at AcceptedAfter or later,
	// before AcceptedBefore.
	AcceptedAfter, AcceptedBefore time.Time
}

// openStates are those of what has not ended.
var openStates = []State{Queued, Sending}

// check gives a *mail.Invalid that names every fault of the filter.
func (f *MessageFilter) check() error {
	problems := commonFaults(f.Kind, f.Recipient, f.IDs)
	for i, s := range f.States {
		if !slices.Contains(States(), s) {
			problems = append(problems, mail.Problem{Field: "/states/" + strconv.Itoa(i), Reason: "is none of " + stateNames(States())})
		}
	}
	return invalid(append(problems, acceptedFaults(f.AcceptedAfter, f.AcceptedBefore)...))
}

// acceptedFaults finds what is wrong with the times between which something was accepted.
func acceptedFaults(after, before time.Time) []mail.Problem {
	if after.IsZero() || before.IsZero() || after.Before(before) {
		return nil
	}
	return []mail.Problem{{Field: "/accepted_before", Reason: "is not after accepted_after, so that nothing is in between"}}
}

// checkCancel is check of a filter by which to cancel.
func (f *MessageFilter) checkCancel() error {
	for i, s := range f.States {
		if !slices.Contains(openStates, s) {
			return invalid([]mail.Problem{{Field: "/states/" + strconv.Itoa(i), Reason: "is none of " + stateNames(openStates) + ": nothing else can be cancelled"}})
		}
	}
	return nil
}

// States gives all states of messages, in the order of a message's life.
func States() []State { return []State{Queued, Sending, Delivered, Failed, Cancelled, Expired} }

func stateNames(states []State) string {
	names := make([]string, len(states))
	for i, s := range states {
		names[i] = string(s)
	}
	return strings.Join(names, ", ")
}

// ListedMessage is what a list tells of a message.
type ListedMessage struct {
	ID      string
	BatchID string // empty for a single message
	Kind    mail.Kind
	State   State
	// Mailbox is the sender in lower case; empty if the producer gave none, and of a single message that has ended well.
	Mailbox string
	// Accepted, Due and Finished are as in MessageStatus.
	Accepted, Due, Finished time.Time
	// Attempts is the number of attempts that counted.
	Attempts int
	// Recipients is how many it has in all.
	Recipients int
}

// MessagePage is a part of what a filter selects.
type MessagePage struct {
	Messages []ListedMessage
	// Next is the cursor of the page that follows; empty if this was the last. A page can be empty and not the last: the search
	// of each is bounded.
	Next string
	// Scanned is how many records this page looked at, and Left about how many are left to look at.
	Scanned, Left int
	// Unreadable is how many of them were written by a newer program: this one can't tell whether they fit.
	Unreadable int
}

// Messages gives a page of the messages that a filter selects; cursor is the Next of the page before, or empty. Limit is at most 1000; 0
// means 100.
//
// With BatchID only the batch's messages are looked at, in the order of its recipients, and with IDs only these, in their order: then pages
// neither miss nor repeat anything. Else all records are, those of ended mail too, in no order. A message that fits all the time
// is on a page then; it is on two if Redis's table of keys shrinks meanwhile. What comes, or changes its state, between the pages
// may be on one or not.
//
// A filter with faults is refused with a *mail.Invalid, a cursor with ErrCursor, and one that Redis's restart has made void with
// ErrCursorOver.
func (q *Queue) Messages(ctx context.Context, f MessageFilter, cursor string, limit int) (MessagePage, error) {
	limit = pageLimit(limit)
	s, err := q.scanMessages(ctx, f, cursor, false)
	if err != nil {
		return MessagePage{}, err
	}
	for s.more(len(s.selected) < limit, pageScan) {
		most := limit
		if s.crowded() {
			most = math.MaxInt
		}
		if err := s.step(ctx, most); err != nil {
			return MessagePage{}, err
		}
	}
	page := MessagePage{Scanned: s.scanned, Unreadable: s.unreadable}
	for _, m := range s.selected {
		page.Messages = append(page.Messages, m.list())
	}
	page.Left, page.Next, err = s.rest(ctx)
	return page, err
}

// list describes a message that was found.
func (m *found) list() ListedMessage {
	h := m.record.head
	l := ListedMessage{ID: m.id, BatchID: h[headBatch], Kind: kindOf[h[headKind]], State: stateOf[h[headState]], Mailbox: m.mailbox(),
		Accepted: acceptedAt(m.id), Attempts: m.record.attempts(), Recipients: max(1, len(m.recipients()))}
	l.Due, l.Finished = m.record.times(l.State, m.batch.sendAt)
	return l
}

// times gives when a message in a state goes at the earliest, and when it ended. sendAt is its batch's.
func (r *record) times(state State, sendAt string) (due, finished time.Time) {
	switch state {
	case Queued:
		// One that is due already waits for its turn.
		now := time.Now()
		if due = unixMilli(r.head[headWhen]); due.After(now) {
			return due, finished
		}
		if due = unixMilli(sendAt); due.After(now) {
			return due, finished
		}
	case Delivered, Failed, Cancelled, Expired:
		finished = unixMilli(r.head[headWhen])
	}
	return time.Time{}, finished
}

// messageScan walks through messages and selects what fits a filter.
type messageScan struct {
	finder
	browse
	filter MessageFilter
	states []State // nil: any
	// before is when a run began: what was accepted later is not meant. Zero: a list.
	before time.Time

	met        map[string]bool // what was selected
	selected   []*found
	unreadable int
}

// scanMessages begins a scan at a cursor, or at the start; a run of changes remembers when it began.
func (q *Queue) scanMessages(ctx context.Context, f MessageFilter, cursor string, changes bool) (*messageScan, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	s := &messageScan{filter: f, states: f.States, met: make(map[string]bool)}
	if len(s.states) == 0 {
		s.states = openStates
	}
	s.filter.Mailbox, s.filter.Recipient = strings.ToLower(f.Mailbox), strings.ToLower(f.Recipient)
	var err error
	if s.finder, err = q.newFinder(ctx, f.Mailbox); err != nil {
		return nil, err
	}
	if changes {
		if cursor, err = s.begun(ctx, cursor); err != nil {
			return nil, err
		}
		if f.AcceptedBefore.IsZero() || s.before.Before(f.AcceptedBefore) {
			s.filter.AcceptedBefore = s.before
		}
		s.before = unixMilli(strconv.FormatInt(ceilMilli(s.filter.AcceptedBefore), 10))
	}
	list := &listed{}
	switch {
	case len(f.IDs) > 0:
		ids := slices.Clone(f.IDs)
		slices.Sort(ids)
		ids = slices.Compact(ids)
		list = &listed{n: len(ids), name: func(i int) string { return ids[i] }}
	case f.BatchID != "":
		if list, err = q.itemsOf(ctx, f.BatchID); err != nil {
			return nil, err
		}
	default:
		s.names, err = q.walk(ctx, "m:", cursor)
		return s, err
	}
	s.names = list
	return s, list.seek(cursor)
}

// begun finds out when a run began, and gives the rest of its cursor.
func (s *messageScan) begun(ctx context.Context, cursor string) (rest string, err error) {
	if cursor == "" {
		s.before, err = s.queue.now(ctx)
		// Ids are of whole milliseconds, and what came in this one came before.
		s.before = s.before.Truncate(time.Millisecond).Add(time.Millisecond)
		return "", err
	}
	at, rest, ok := strings.Cut(cursor, "-")
	if s.before = unixMilli(at); !ok || s.before.IsZero() {
		return "", ErrCursor
	}
	return rest, nil
}

// cursor goes on from here.
func (s *messageScan) cursor() string {
	if s.before.IsZero() {
		return s.names.cursor()
	}
	return milli(s.before) + "-" + s.names.cursor()
}

// step looks at the next piece, until most are selected in all.
func (s *messageScan) step(ctx context.Context, most int) error {
	ids, err := s.piece(ctx, (most-len(s.selected))/2)
	if err != nil {
		return err
	}
	places := make([]place, 0, len(ids))
	for _, id := range ids {
		if acceptedWithin(id, s.filter.AcceptedAfter, s.filter.AcceptedBefore) {
			places = append(places, place{id: id})
		}
	}
	messages, err := s.read(ctx, places, func(state State) bool { return s.states == nil || slices.Contains(s.states, state) })
	if err != nil {
		return err
	}
	for _, id := range ids {
		if len(s.selected) >= most {
			break
		}
		s.did(1)
		if len(places) == 0 || places[0].id != id {
			continue
		}
		m := messages[0]
		places, messages = places[1:], messages[1:]
		switch {
		case m == nil || s.met[id]:
		case m.record == nil:
			s.unreadable++
		case s.belongs(m, s.filter.Kind, s.filter.BatchID, s.filter.Mailbox) && (s.filter.Recipient == "" || m.lacks(s.filter.Recipient)):
			s.met[id] = true
			s.selected = append(s.selected, m)
		}
	}
	return nil
}

// acceptedWithin reports whether what has this id was accepted within two times; zero ones do not matter.
func acceptedWithin(id string, after, before time.Time) bool {
	if after.IsZero() && before.IsZero() {
		return true
	}
	at := acceptedAt(id)
	return !at.Before(after) && (before.IsZero() || at.Before(before))
}

// rest is that of browse, with the cursor of a run.
func (s *messageScan) rest(ctx context.Context) (left int, next string, err error) {
	if left, next, err = s.browse.rest(ctx); next != "" {
		next = s.cursor()
	}
	return left, next, err
}
