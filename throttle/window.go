package throttle

import "time"

// What Wait answers besides a time.
const (
	// Now: it fits.
	Now int64 = 0
	// Unknown: it fits when something that is open has been stamped, and nobody knows when that is.
	Unknown int64 = -1
	// Never: it costs more than the whole limit.
	Never int64 = -2
)

// Bucket holds uses that leave a window together.
type Bucket struct {
	// Last is the stamp of the youngest, in unix ms.
	Last int64
	// Count is how much they used.
	Count int64
}

// Window is the book of one limit: the pure form of what books.lua does, step by step the same. Times are unix ms. It is
// not safe for concurrent use.
//
// A slot is taken when an attempt begins and counts in full while the attempt is open, for the server counts it at some
// moment between our request and its reply. At the outcome it is stamped: what was really used moves from Open into the
// bucket of that moment.
type Window struct {
	Limit Limit
	// Open is what attempts under way have taken.
	Open int64
	// Buckets are in the order of time, at most 256. Some at the front may be out of the window: they are dropped when
	// room is needed.
	Buckets []Bucket
}

// leaves is the first millisecond at which a use stamped at last no longer counts. A stamp in ms may stand for a moment up
// to a millisecond later; with one more ms, two uses never lie in one interval of the window's length, its ends included.
func (l Limit) leaves(last int64) int64 { return last + l.millis() + 1 }

// Used is what counts at a moment: what is open, and what was stamped in the window before it.
func (w *Window) Used(now int64) int64 {
	used := w.Open
	for _, b := range w.Buckets {
		if w.Limit.leaves(b.Last) > now {
			used += b.Count
		}
	}
	return used
}

// Wait answers from when on n more fit, if nothing else happens: Now, Never, Unknown, or a time. Nothing always fits.
func (w *Window) Wait(n, now int64) int64 {
	if n > w.Limit.Max {
		return Never
	}
	if n <= 0 || w.over(n) <= 0 {
		return Now
	}
	w.drop(now)
	over := w.over(n)
	if over <= 0 {
		return Now
	}
	if w.Open+n > w.Limit.Max {
		return Unknown
	}
	var last int64
	for _, b := range w.Buckets {
		if over <= 0 {
			break
		}
		over -= b.Count
		last = b.Last
	}
	return w.Limit.leaves(last)
}

// over is how much has to leave before n more fit.
func (w *Window) over(n int64) int64 {
	over := w.Open + n - w.Limit.Max
	for _, b := range w.Buckets {
		over += b.Count
	}
	return over
}

// drop forgets what is out of the window.
func (w *Window) drop(now int64) {
	for len(w.Buckets) > 0 && w.Limit.leaves(w.Buckets[0].Last) <= now {
		w.Buckets = w.Buckets[1:]
	}
}

// Take opens n. Ask Wait of every window first, then take of all.
func (w *Window) Take(n int64) { w.Open += max(n, 0) }

// Stamp closes what Take opened, and counts what was used: less, more or nothing. An attempt that began before there was
// this limit has taken 0.
func (w *Window) Stamp(taken, used, now int64) {
	w.Open = max(w.Open-taken, 0)
	if used <= 0 {
		return
	}
	if n := len(w.Buckets); n > 0 {
		newest := &w.Buckets[n-1]
		// Time may have run back a little, by a fail-over: never out of order.
		now = max(now, newest.Last)
		if cell := w.Limit.cell(); now/cell == newest.Last/cell {
			newest.Last = now
			newest.Count += used
			return
		}
		if n == buckets {
			w.shorten(now)
		}
	}
	w.Buckets = append(w.Buckets, Bucket{Last: now, Count: used})
}

// shorten makes room for one more bucket. There always is, but for buckets that are out of the window, and for those of a
// finer grid, when the window was shorter: then the two oldest leave together.
func (w *Window) shorten(now int64) {
	w.drop(now)
	if len(w.Buckets) < buckets {
		return
	}
	w.Buckets[1].Count += w.Buckets[0].Count
	w.Buckets = w.Buckets[1:]
}

// Use is a window as people read it.
type Use struct {
	Limit
	// Used counts what is open too.
	Used int64
	// Until is when the oldest use leaves; zero if nothing but what is open counts.
	Until time.Time
}

// Use sums the window up as of now.
func (w *Window) Use(now time.Time) Use {
	at := now.UnixMilli()
	u := Use{Limit: w.Limit, Used: w.Used(at)}
	for _, b := range w.Buckets {
		if leaves := w.Limit.leaves(b.Last); leaves > at {
			u.Until = time.UnixMilli(leaves)
			break
		}
	}
	return u
}
