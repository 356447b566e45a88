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

	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
)

// ErrCursor: a cursor was not given by this program.
var ErrCursor = errors.New("queue: the cursor is not one that was given")

// scanPiece is how many records are read, or changed, at once.
const scanPiece = 200

// place in the failed store: it is ordered by time, and by id where times are the same.
type place struct {
	at int64 // ms
	id string
}

// lastID is behind every id.
const lastID = "~"

func (p place) compare(o place) int {
	return cmp.Or(cmp.Compare(p.at, o.at), strings.Compare(p.id, o.id))
}

func (p place) cursor() string { return strconv.FormatInt(p.at, 10) + "-" + p.id }

func parseCursor(s string) (place, error) {
	at, id, ok := strings.Cut(s, "-")
	n, err := strconv.ParseInt(at, 10, 64)
	if !ok || err != nil || n < 0 || id == "" || len(id) > 26 {
		return place{}, ErrCursor
	}
	return place{n, id}, nil
}

// failedScan walks through the failed store from the newest message to the oldest and selects what fits a filter. What is put
// into the store meanwhile lies behind it: it is newer.
type failedScan struct {
	finder
	filter FailedFilter
	// below is where the scan is: it goes on with the next older place, down to the time from.
	below place
	from  int64
	// With byID the filter names ids, and places are where those are that are left to look at, newest first.
	byID   bool
	places []place

	selected            []*found
	scanned, unreadable int
	over                bool
}

// scanFailed begins a scan at a cursor, or at the newest message.
func (q *Queue) scanFailed(ctx context.Context, f FailedFilter, cursor string) (*failedScan, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	s := &failedScan{filter: f, below: place{math.MaxInt64, lastID}}
	s.filter.Mailbox, s.filter.Recipient = strings.ToLower(f.Mailbox), strings.ToLower(f.Recipient)
	s.filter.Reply = strings.ToLower(f.Reply)
	if !f.From.IsZero() {
		s.from = ceilMilli(f.From)
	}
	if !f.Until.IsZero() {
		s.below.at = ceilMilli(f.Until) - 1
	}
	if cursor != "" {
		at, err := parseCursor(cursor)
		if err != nil {
			return nil, err
		}
		if at.compare(s.below) < 0 {
			s.below = at
		}
	}
	var err error
	if s.finder, err = q.newFinder(ctx, f.Mailbox); err != nil {
		return nil, err
	}
	if len(f.IDs) > 0 {
		return s, s.look(ctx)
	}
	return s, nil
}

// ceilMilli is the first millisecond that is not before t.
func ceilMilli(t time.Time) int64 { return t.Add(time.Millisecond - time.Nanosecond).UnixMilli() }

// look finds the places of the messages that the filter names.
func (s *failedScan) look(ctx context.Context) error {
	s.byID = true
	ids := slices.Clone(s.filter.IDs)
	slices.Sort(ids)
	for ids := range slices.Chunk(slices.Compact(ids), 1000) {
		scores, err := s.queue.redis.ZMScore(ctx, s.queue.key("failed"), ids...).Result()
		if err != nil {
			return fmt.Errorf("queue: failed: %w", err)
		}
		for i, score := range scores {
			// 0: it is not there.
			if p := (place{int64(score), ids[i]}); p.at > 0 && p.at >= s.from && p.compare(s.below) < 0 {
				s.places = append(s.places, p)
			}
		}
	}
	slices.SortFunc(s.places, func(a, b place) int { return b.compare(a) })
	return nil
}

// ahead gives the next places, at most n; none at the end.
func (s *failedScan) ahead(ctx context.Context, n int) ([]place, error) {
	if s.byID {
		for len(s.places) > 0 && s.places[0].compare(s.below) >= 0 {
			s.places = s.places[1:]
		}
		return s.places[:min(n, len(s.places))], nil
	}
	// Many can have failed in the same millisecond as the one at which the scan is.
	for count := int64(n); ; count *= 2 {
		found, err := s.queue.redis.ZRevRangeByScoreWithScores(ctx, s.queue.key("failed"), s.bounds(count)).Result()
		if err != nil {
			return nil, fmt.Errorf("queue: failed: %w", err)
		}
		var places []place
		for _, z := range found {
			id, _ := z.Member.(string)
			if p := (place{int64(z.Score), id}); p.compare(s.below) < 0 && len(places) < n {
				places = append(places, p)
			}
		}
		if len(places) > 0 || int64(len(found)) < count {
			return places, nil
		}
	}
}

func (s *failedScan) bounds(count int64) *redis.ZRangeBy {
	b := &redis.ZRangeBy{Min: strconv.FormatInt(s.from, 10), Max: "+inf", Count: count}
	if s.below.at != math.MaxInt64 {
		b.Max = strconv.FormatInt(s.below.at, 10)
	}
	return b
}

// step looks at the next piece, until bound messages were looked at or most are selected in all.
func (s *failedScan) step(ctx context.Context, bound, most int) error {
	places, err := s.ahead(ctx, min(scanPiece, bound-s.scanned))
	if err != nil {
		return err
	}
	if len(places) == 0 {
		s.over = true
		return nil
	}
	messages, err := s.read(ctx, places, func(state State) bool { return state == Failed })
	if err != nil {
		return err
	}
	for i, m := range messages {
		if len(s.selected) >= most {
			break
		}
		s.below = places[i]
		s.scanned++
		if m == nil {
			continue
		}
		if m.record == nil {
			s.unreadable++
		} else if s.fits(m) {
			s.selected = append(s.selected, m)
		}
	}
	return nil
}

// rest gives about how many messages are left to look at, and the cursor to go on with ("": there is nothing left).
func (s *failedScan) rest(ctx context.Context) (left int, next string, err error) {
	more, err := s.ahead(ctx, 1)
	if err != nil || len(more) == 0 {
		return 0, "", err
	}
	if s.byID {
		return len(s.places), s.below.cursor(), nil
	}
	b := s.bounds(0)
	n, err := s.queue.redis.ZCount(ctx, s.queue.key("failed"), b.Min, b.Max).Result()
	if err != nil {
		return 0, "", fmt.Errorf("queue: failed: %w", err)
	}
	return int(n), s.below.cursor(), nil
}

// fits reports whether the filter selects a message; what is cheap to tell comes first.
func (s *failedScan) fits(m *found) bool {
	f, class := &s.filter, m.record.head[headClass]
	return s.belongs(m, f.Kind, f.BatchID, f.Mailbox) &&
		(len(f.Classes) == 0 || slices.ContainsFunc(f.Classes, func(c mail.Class) bool { return c.String() == class })) &&
		(f.Reply == "" || m.said(f.Reply)) && (f.Recipient == "" || m.lacks(f.Recipient))
}

// said reports whether words are among what the provider replied since the message was last requeued.
func (m *found) said(words string) bool {
	if !strings.Contains(strings.ToLower(m.record.history), words) {
		return false
	}
	requeued := unixMilli(m.record.head[headRequeued])
	for _, a := range parseHistory(m.record.history, time.Time{}) {
		if a.Begun.Before(requeued) {
			continue
		}
		for _, o := range a.Outcomes {
			if o.Class != mail.Delivered.String() &&
				(strings.Contains(strings.ToLower(o.Reply), words) || strings.Contains(strings.ToLower(o.Enhanced), words)) {
				return true
			}
		}
	}
	return false
}
