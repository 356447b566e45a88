package throttle

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Load is a backlog and how fast it could go if there were no limits.
type Load struct {
	// Messages is how many wait.
	Messages int
	// Average is what a message costs of each limit, on average; a name that is not there costs nothing.
	Average map[Name]float64
	// Took is the mean time of a hand-over.
	Took time.Duration
	// Concurrency is how many may be under way at once; 0 stands for any number.
	Concurrency int
	// NotBefore is when a hold ends; the zero value means there is none.
	NotBefore time.Time
}

// Forecast tells when the last message of a load will have been handed over, if all goes well and nothing else comes, and
// which limit is most to blame: "" if it is the concurrency, or if nothing has to wait. It takes the same time for any
// number of messages. Messages that exceed a limit by themselves are forecast as if one went at a time.
//
// Each limit lets messages go in a pattern that repeats. Say that K messages fill it. Then the first K go as the books have
// room, and message n goes one period after message n-K: when the window is over, counted from when that one was handed over.
// Concurrency is a limit too: K messages at once, and a period of one hand-over. If no more than one limit matters, that is
// all. If several do, each may spoil the other's pattern, and a message goes when the last of them lets it: see together.
func Forecast(windows []Window, load Load, now time.Time) (through time.Time, binding Name) {
	start := now
	if load.NotBefore.After(start) {
		start = load.NotBefore
	}
	if load.Messages <= 0 {
		return now, ""
	}
	n := float64(load.Messages)
	var patterns []pattern
	for i := range windows {
		p, ok := windows[i].pattern(load, now, start)
		if ok && p.begun(0) < n {
			patterns = append(patterns, p)
		}
	}
	if c := load.Concurrency; c > 0 && c < load.Messages && load.Took > 0 {
		patterns = append(patterns, pattern{full: float64(c), period: ms(load.Took), room: []step{{0, float64(c)}}})
	}
	if len(patterns) == 0 {
		return start.Add(load.Took), ""
	}
	slowest := slices.MaxFunc(patterns, func(a, b pattern) int { return cmp.Compare(a.begins(n), b.begins(n)) })
	wait := slowest.begins(n)
	if len(patterns) > 1 && wait > 0 {
		wait = together(patterns, n, wait)
	}
	// Beyond some centuries, a time.Duration ends.
	wait = min(wait, float64(longest)/2)
	return start.Add(time.Duration(wait * float64(time.Millisecond))).Add(load.Took), slowest.name
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// step says that from a time on, in ms after the start, some messages have room.
type step struct{ at, messages float64 }

// pattern is how one limit alone lets messages go.
type pattern struct {
	name   Name
	full   float64 // messages that fill the limit
	period float64 // ms from a message's begin until another may go in its place
	room   []step  // as the books have room for the first that fill the limit; the first step is at 0
}

// pattern gives the pattern of a window's limit; false if messages cost nothing of it.
func (w *Window) pattern(load Load, now, start time.Time) (pattern, bool) {
	cost, n := load.Average[w.Limit.Name], float64(load.Messages)
	if !(cost > 0) {
		return pattern{}, false
	}
	// What is stamped in a cell of the grid waits for the youngest there. What goes together stays together, but for how
	// much hand-overs differ: say, by as long as one takes.
	grid := min(float64(w.Limit.cell()), ms(load.Took))
	p := pattern{
		name:   w.Limit.Name,
		full:   messages(float64(w.Limit.Max), cost, n),
		period: float64(w.Limit.leaves(0)) + ms(load.Took) + grid/2,
	}
	free := float64(w.Limit.Max - w.Open)
	for _, b := range w.Buckets {
		free -= float64(b.Count)
	}
	began := ms(start.Sub(now))
	give := func(at, count float64) {
		free += count
		s := step{max(at-began, 0), min(messages(free, cost, n), p.full)}
		if last := len(p.room) - 1; p.room[last].at == s.at {
			p.room[last] = s
		} else {
			p.room = append(p.room, s)
		}
	}
	p.room = []step{{0, min(messages(free, cost, n), p.full)}}
	base := now.UnixMilli()
	for _, b := range w.Buckets {
		give(float64(w.Limit.leaves(b.Last)-base), float64(b.Count))
	}
	if w.Open > 0 {
		// What is under way is half through, on average.
		give(float64(w.Limit.leaves(0))+ms(load.Took)/2, float64(w.Open))
	}
	// One goes at a time, even if it is too dear, or if the limit was used beyond its Max.
	p.full = max(p.full, 1)
	p.room[len(p.room)-1].messages = p.full
	return p, true
}

// messages is how many of n, of an average cost, have room at once. The next one does not fit into what is left over: half a
// message on average, if costs differ.
func messages(room, cost, n float64) float64 {
	switch {
	case n*cost <= room:
		return n
	case room < cost:
		return 0
	case cost == math.Trunc(cost):
		return math.Floor(room / cost)
	}
	return max(room/cost-0.5+0.5/cost, 1)
}

// begins is when message n, counted from 1, goes: in ms after the start.
func (p *pattern) begins(n float64) float64 {
	periods := max(math.Ceil(n/p.full)-1, 0)
	n -= periods * p.full
	for _, s := range p.room {
		if s.messages >= n {
			return s.at + periods*p.period
		}
	}
	return (periods + 1) * p.period
}

// begun is how many of the first that fill the limit have room at a time.
func (p *pattern) begun(at float64) float64 {
	after, _ := slices.BinarySearchFunc(p.room, at, func(s step, at float64) int {
		if s.at <= at {
			return -1
		}
		return 1
	})
	return p.room[max(after-1, 0)].messages
}

// together is when message n goes, in ms, if several patterns bind and none alone does before wait. With X(t) the
// messages begun until t, a limit demands
//
//	X(t) <= room(t) + X(t-period)
//
// and X is the smallest of the right sides. It is worked out on a grid of time, straight between its points; what a limit
// lets go in less than one step of the grid is taken together.
func together(patterns []pattern, n, wait float64) float64 {
	const steps, most = 2000, 20 * 2000
	grid := wait / steps
	type lag struct {
		pattern
		extra float64 // of periods taken together
	}
	lags := make([]lag, len(patterns))
	for i, p := range patterns {
		several := max(math.Ceil(grid/p.period), 1)
		lags[i] = lag{p, (several - 1) * p.full}
		lags[i].period *= several
	}
	begun := make([]float64, 0, steps+1)
	before := func(t float64) float64 {
		at := t / grid
		i := int(math.Floor(at))
		if i < -1 {
			return 0
		}
		var left float64
		if i >= 0 {
			left = begun[i]
		}
		if i+1 >= len(begun) {
			return left
		}
		return left + (at-float64(i))*(begun[i+1]-left)
	}
	for i := range most {
		t := float64(i) * grid
		x := n
		for j := range lags {
			l := &lags[j]
			x = min(x, l.begun(t)+l.extra+before(t-l.period))
		}
		begun = append(begun, x)
		if x > n-0.5 {
			return max(t, wait)
		}
	}
	return most * grid
}
