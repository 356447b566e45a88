package queue

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
)

// BatchFilter selects batches: those that fit everything that is set. The zero value selects all that are known.
type BatchFilter struct {
	Kind mail.Kind
	// Mailbox is the sender's address. Batches without a sender are found by the active provider's own, and by "-".
	Mailbox string
	// AcceptedAfter and AcceptedBefore bound when the batch was handed in, as those of a MessageFilter.
	AcceptedAfter, AcceptedBefore time.Time
	// Open selects those that have messages which wait or are being sent.
	Open bool
}

// BatchPage is a part of what a filter selects.
type BatchPage struct {
	Batches []BatchStatus
	// Next is the cursor of the page that follows; empty if this was the last. A page can be empty and not the last: the search
	// of each is bounded.
	Next string
}

// Batches gives a page of the batches that a filter selects; cursor is the Next of the page before, or empty. Limit is at most 1000; 0
// means 100. They come in no order, for all names of keys are looked at; what a page promises is what Messages promises.
func (q *Queue) Batches(ctx context.Context, f BatchFilter, cursor string, limit int) (BatchPage, error) {
	limit = pageLimit(limit)
	if err := invalid(append(commonFaults(f.Kind, "", nil), acceptedFaults(f.AcceptedAfter, f.AcceptedBefore)...)); err != nil {
		return BatchPage{}, err
	}
	finder, err := q.newFinder(ctx, f.Mailbox)
	if err != nil {
		return BatchPage{}, err
	}
	w, err := q.walk(ctx, "b:", cursor)
	if err != nil {
		return BatchPage{}, err
	}
	f.Mailbox = strings.ToLower(f.Mailbox)
	fits := func(b *BatchStatus) bool {
		sender := b.Mailbox
		if sender == "" {
			sender = "-"
		}
		return (f.Kind == "" || b.Kind == f.Kind) && finder.sends(sender, f.Mailbox) && (!f.Open || b.Open > 0)
	}
	var page BatchPage
	met := make(map[string]bool)
	for l := (browse{names: w}); ; {
		if !l.more(len(page.Batches) < limit, pageScan) {
			_, page.Next, err = l.rest(ctx)
			return page, err
		}
		room := limit - len(page.Batches)
		ids, err := l.piece(ctx, room/2)
		if err != nil {
			return page, err
		}
		if !l.crowded() {
			ids = ids[:min(len(ids), room)]
		}
		batches, err := q.batches(ctx, ids, f.AcceptedAfter, f.AcceptedBefore)
		if err != nil {
			return page, err
		}
		l.did(len(ids))
		for _, b := range batches {
			if !met[b.ID] && fits(b) {
				met[b.ID] = true
				page.Batches = append(page.Batches, *b)
			}
		}
	}
}

// batches gives those of some ids that were accepted within two times.
func (q *Queue) batches(ctx context.Context, ids []string, after, before time.Time) ([]*BatchStatus, error) {
	pipe := q.redis.Pipeline()
	asked := make(map[string]*redis.SliceCmd)
	for _, id := range ids {
		if acceptedWithin(id, after, before) {
			asked[id] = pipe.HMGet(ctx, q.key("b:", id), batchFields...)
		}
	}
	if len(asked) == 0 {
		return nil, nil
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("queue: batches: %w", err)
	}
	var found []*BatchStatus
	for _, id := range ids {
		if asked[id] == nil {
			continue
		}
		if b := batchStatus(id, asked[id].Val()); b != nil {
			found = append(found, b)
		}
	}
	return found, nil
}
