package queue

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/oklog/ulid/v2"
)

// ErrCursorOver: since a cursor was given Redis was started again, or another server took its place, to which it means nothing. Whoever
// has it begins anew.
var ErrCursorOver = errors.New("queue: Redis was started again since the cursor was given, or another took its place: begin anew")

// names are what a scan looks at, in an order that a cursor can be given of.
type names interface {
	// ahead gives the next ones, at most scanPiece; about n of them are wanted. There can be none before the end: see over.
	ahead(ctx context.Context, n int) ([]string, error)
	// took says how many of those that ahead gave last are done with, and ready how many it can give without asking Redis.
	took(n int)
	ready() int
	over() bool
	// cursor goes on from here; left is about how many there are yet.
	cursor() string
	left(ctx context.Context) (int, error)
	// sound gives an error if what was given so far may not have been all there was.
	sound(ctx context.Context) error
}

// browse goes through names, in bounded pages or steps.
type browse struct {
	names
	scanned, pieces int
}

// mostPieces bounds how often one page or step asks for names, where few keys of Redis are of the wanted sort.
const mostPieces = 100

// more reports whether to go on. What Redis has named already is looked at beyond the bound, as it need not stand in a cursor then; if it
// can't stand in one, even if there is no room for what is found.
func (l *browse) more(room bool, bound int) bool {
	switch {
	case l.over():
		return false
	case !room:
		return l.crowded()
	}
	return l.ready() > 0 || l.scanned < bound && l.pieces < mostPieces
}

// crowded reports whether more names are ready than a cursor can have in it.
func (l *browse) crowded() bool { return l.ready() > mostFound }

// piece gives the next names, of which about n are wanted.
func (l *browse) piece(ctx context.Context, n int) ([]string, error) {
	l.pieces++
	return l.ahead(ctx, n)
}

// did says how many of them were looked at.
func (l *browse) did(n int) {
	l.took(n)
	l.scanned += n
}

// rest gives about how many names are left to look at, and the cursor to go on with ("": there is nothing left).
func (l *browse) rest(ctx context.Context) (left int, next string, err error) {
	if err := l.sound(ctx); err != nil || l.over() {
		return 0, "", err
	}
	left, err = l.left(ctx)
	return left, l.cursor(), err
}

// listed are names that are known, or can be made, by their number.
type listed struct {
	at, n int
	name  func(i int) string
}

func (l *listed) ahead(context.Context, int) ([]string, error) {
	var list []string
	for i := l.at; i < min(l.n, l.at+scanPiece); i++ {
		list = append(list, l.name(i))
	}
	return list, nil
}

func (l *listed) took(n int)                        { l.at += n }
func (l *listed) ready() int                        { return 0 }
func (l *listed) over() bool                        { return l.at >= l.n }
func (l *listed) cursor() string                    { return "n" + strconv.Itoa(l.at) }
func (l *listed) left(context.Context) (int, error) { return max(l.n-l.at, 0), nil }
func (l *listed) sound(context.Context) error       { return nil }

func (l *listed) seek(cursor string) error {
	if cursor == "" {
		return nil
	}
	digits, ok := strings.CutPrefix(cursor, "n")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil || n < 0 {
		return ErrCursor
	}
	l.at = n
	return nil
}

// itemsOf lists the ids of a batch's messages, which derive from its own; none if there is no such batch.
func (q *Queue) itemsOf(ctx context.Context, id string) (*listed, error) {
	batch, err := ulid.ParseStrict(id)
	if err != nil {
		return &listed{}, nil
	}
	items, err := q.redis.HGet(ctx, q.key("b:", id), "items").Int()
	if isNil(err) {
		return &listed{}, nil
	} else if err != nil {
		return nil, fmt.Errorf("queue: batch: %w", err)
	}
	refused, err := q.refusedOf(ctx, id)
	if err != nil {
		return nil, err
	}
	return &listed{n: items + len(refused), name: func(i int) string { return itemID(batch, i) }}, nil
}

// walk finds the names of all keys of ours that begin so, by Redis's SCAN, which has them in no order. What is there all the time is
// found at least once; it can be found twice if Redis's table of keys shrinks meanwhile.
type walk struct {
	queue     *Queue
	beginning string
	server    string   // which run of which Redis at is of
	at        string   // Redis's cursor
	through   bool     // Redis has no more
	found     []string // what it gave, and nobody took yet
}

const (
	// mostFound is how many names a cursor can have in it. Redis gives a few more than it is asked for; the one of the demo gives
	// all at once.
	mostFound = 200
	// leastFound is how many names Redis is asked for at least, so that it need not be asked too often.
	leastFound = 20
	// serverLetters of a server's id tell it from others.
	serverLetters = 12
)

// walk begins at a cursor, or at the start.
func (q *Queue) walk(ctx context.Context, beginning, cursor string) (*walk, error) {
	w := &walk{queue: q, beginning: beginning, at: "0"}
	server, err := q.running(ctx)
	if err != nil {
		return nil, fmt.Errorf("queue: scan: %w", err)
	}
	w.server = server[:min(len(server), serverLetters)]
	if cursor == "" {
		return w, nil
	}
	parts := strings.Split(cursor, ".")
	if !strings.HasPrefix(cursor, "s") || len(parts) < 2 || len(parts) > 2+mostFound {
		return nil, ErrCursor
	}
	if _, err := strconv.ParseUint(parts[1], 10, 64); err != nil && parts[1] != "" {
		return nil, ErrCursor
	}
	w.at, w.through, w.found = parts[1], parts[1] == "", parts[2:]
	if slices.ContainsFunc(w.found, func(id string) bool { return len(id) != ulid.EncodedSize }) {
		return nil, ErrCursor
	}
	if parts[0][1:] != w.server {
		return nil, ErrCursorOver
	}
	return w, nil
}

func (w *walk) ahead(ctx context.Context, n int) ([]string, error) {
	if len(w.found) == 0 && !w.through {
		values, err := w.queue.run(ctx, "scan", w.beginning, w.at, min(max(n, leastFound), scanPiece)).Slice()
		if err != nil {
			return nil, fmt.Errorf("queue: scan: %w", err)
		}
		w.at, w.found = text(values[0]), texts(values[1:])
		w.through = w.at == "0"
	}
	return w.found[:min(len(w.found), scanPiece)], nil
}

func (w *walk) took(n int) { w.found = w.found[n:] }

func (w *walk) ready() int { return len(w.found) }

func (w *walk) over() bool { return w.through && len(w.found) == 0 }

func (w *walk) cursor() string {
	at := w.at
	if w.through {
		at = ""
	}
	return strings.Join(append([]string{"s" + w.server, at}, w.found...), ".")
}

// left goes by what there is in all, and by Redis's cursor, which counts from the highest bit down.
func (w *walk) left(ctx context.Context) (int, error) {
	if w.through {
		return len(w.found), nil
	}
	all, err := w.queue.records(ctx)
	at, _ := strconv.ParseUint(w.at, 10, 64)
	part := 1 - float64(bits.Reverse64(at))/(1<<64)
	return max(1, int(part*float64(all))) + len(w.found), err
}

// sound gives ErrCursorOver if Redis was another one at the beginning.
func (w *walk) sound(ctx context.Context) error {
	server, err := w.queue.running(ctx)
	if err != nil {
		return fmt.Errorf("queue: scan: %w", err)
	}
	if !strings.HasPrefix(server, w.server) {
		return ErrCursorOver
	}
	return nil
}

// records is about how many records there are.
func (q *Queue) records(ctx context.Context) (int, error) {
	pipe := q.redis.Pipeline()
	ended := pipe.LLen(ctx, q.key("finished"))
	counts := pipe.HMGet(ctx, q.key("counts"), "open:a", "open:r", "open:s", "failed:a", "failed:r", "failed:s")
	if _, err := pipe.Exec(ctx); err != nil {
		return 0, fmt.Errorf("queue: counts: %w", err)
	}
	all := int(ended.Val())
	for _, n := range counts.Val() {
		all += atoi(text(n))
	}
	return all, nil
}

// running tells one run of one Redis from all others: a cursor of its scan means nothing to another. It is "" if Redis does not tell.
func (q *Queue) running(ctx context.Context) (string, error) {
	told, err := q.run(ctx, "server", "server").Text()
	_, id, _ := strings.Cut(told, "run_id:")
	id, _, _ = strings.Cut(id, "\r")
	return id, err
}
