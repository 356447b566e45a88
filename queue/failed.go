package queue

import (
	"context"
	"strings"
	"time"

	"github.com/postroom/postroom/mail"
)

// FailedFilter selects messages of the failed store: those that fit everything that is set. The zero value selects all.
type FailedFilter struct {
	Kind mail.Kind
	// Classes are the classes of the last attempt; any of them.
	Classes []mail.Class
	// Mailbox is the sender's address. Messages without a sender are found by the active provider's own, and by "-".
	Mailbox string
	BatchID string
	// Recipient is the address of somebody who does not have the message yet, or "@" and a domain. Case does not matter.
	Recipient string
	// Reply is part of the provider's words, or of its status code such as "5.1.1", at any attempt since the message was last
	// requeued. Case does not matter.
	Reply string
	// IDs are the messages' own; at most 10,000.
	IDs []string
	// From and Until bound when the message failed: at From or later, before Until.
	From, Until time.Time
}

// maxFilterIDs is how many ids a filter can have.
const maxFilterIDs = 10_000

// check gives a *mail.Invalid that names every fault of the filter.
func (f *FailedFilter) check() error {
	problems := commonFaults(f.Kind, f.Recipient, f.IDs)
	if !f.From.IsZero() && !f.Until.IsZero() && !f.From.Before(f.Until) {
		problems = append(problems, mail.Problem{Field: "/until", Reason: "is not after from, so that nothing is in between"})
	}
	return invalid(problems)
}

// commonFaults finds what is wrong with fields that filters share.
func commonFaults(kind mail.Kind, recipient string, ids []string) (problems []mail.Problem) {
	fault := func(field, reason string) { problems = append(problems, mail.Problem{Field: field, Reason: reason}) }
	if kind != "" && !kind.Valid() {
		fault("/kind", "is none of alert, report, subscription")
	}
	if recipient != "" && (strings.HasSuffix(recipient, "@") || !strings.Contains(recipient, "@")) {
		fault("/recipient", "is neither an address nor @ and a domain")
	}
	if len(ids) > maxFilterIDs {
		fault("/ids", "has more than 10,000 entries: select in several steps")
	}
	return problems
}

// invalid gives an error that names problems; nil if there are none.
func invalid(problems []mail.Problem) error {
	if problems == nil {
		return nil
	}
	return &mail.Invalid{Problems: problems}
}

// FailedMessage is one message of the failed store.
type FailedMessage struct {
	ID      string
	BatchID string // empty for a single message
	Kind    mail.Kind
	// Class is that of the last attempt.
	Class mail.Class
	// Mailbox is the sender in lower case; empty if the producer gave none.
	Mailbox          string
	Accepted, Failed time.Time
	// Requeued is when it was last taken out of the failed store, if it ever was (else zero).
	Requeued time.Time
	// Attempts is the number of attempts that counted, since then.
	Attempts   int
	Recipients []RecipientStatus
	// Last is the last outcome other than delivered.
	Last OutcomeReport
}

// FailedPage is a part of what a filter selects, newest first.
type FailedPage struct {
	Messages []FailedMessage
	// Next is the cursor of the page that follows; empty if this was the last. A page can be empty and not the last: the search
	// of each is bounded.
	Next string
	// Scanned is how many messages this page looked at, and Left about how many are left to look at.
	Scanned, Left int
	// Unreadable is how many of them were written by a newer program: this one can't tell whether they fit.
	Unreadable int
}

// Bounds of one page.
const (
	defaultPage = 100
	maxPage     = 1000
	// pageScan is how many messages a page looks at.
	pageScan = 5000
)

// pageLimit is how many a page has at most for whom who asks for limit.
func pageLimit(limit int) int {
	if limit <= 0 {
		return defaultPage
	}
	return min(limit, maxPage)
}

// Failed gives a page of the failed store, newest first; cursor is the Next of the page before, or empty. Pages neither miss
// nor repeat a message that stays in the store while others come and go. Limit is at most 1000; 0 means 100.
//
// A filter with faults is refused with a *mail.Invalid, a cursor with ErrCursor.
func (q *Queue) Failed(ctx context.Context, f FailedFilter, cursor string, limit int) (FailedPage, error) {
	limit = pageLimit(limit)
	s, err := q.scanFailed(ctx, f, cursor)
	if err != nil {
		return FailedPage{}, err
	}
	for !s.over && s.scanned < pageScan && len(s.selected) < limit {
		if err := s.step(ctx, pageScan, limit); err != nil {
			return FailedPage{}, err
		}
	}
	page := FailedPage{Scanned: s.scanned, Unreadable: s.unreadable}
	for _, m := range s.selected {
		page.Messages = append(page.Messages, m.report())
	}
	page.Left, page.Next, err = s.rest(ctx)
	return page, err
}

// report describes a message that was found. Of a payload that can't be read the recipients stay unknown.
func (m *found) report() FailedMessage {
	h := m.record.head
	class, _ := mail.ParseClass(h[headClass])
	r := FailedMessage{
		ID: m.id, BatchID: h[headBatch], Kind: kindOf[h[headKind]], Class: class,
		Accepted: acceptedAt(m.id), Failed: unixMilli(h[headWhen]), Requeued: unixMilli(h[headRequeued]),
		Attempts: m.record.attempts(), Recipients: m.recipients(), Mailbox: m.mailbox(),
	}
	attempts := parseHistory(m.record.history, r.Failed)
	for i := len(attempts) - 1; i >= 0 && r.Last.Class == ""; i-- {
		for _, o := range attempts[i].Outcomes {
			if o.Class != mail.Delivered.String() {
				r.Last = o
			}
		}
	}
	return r
}
