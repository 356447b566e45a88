package throttle

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestWindow(t *testing.T) {
	limit := Limit{Messages, 10, 254 * time.Second} // cells of one second
	type ask struct {
		n, now int64
		want   int64
	}
	tests := map[string]struct {
		window Window
		asks   []ask
		left   []Bucket // afterwards; nil: all
	}{
		"empty":     {asks: []ask{{10, start, Now}, {11, start, Never}, {0, start, Now}}},
		"under way": {window: Window{Open: 8}, asks: []ask{{2, start, Now}, {3, start, Unknown}, {11, start, Never}}},
		"a full bucket leaves one ms late": {
			window: Window{Buckets: []Bucket{{start, 10}}},
			asks:   []ask{{1, start, start + 254_001}, {1, start + 254_000, start + 254_001}, {1, start + 254_001, Now}},
			left:   []Bucket{},
		},
		"as many buckets as it needs": {
			window: Window{Buckets: []Bucket{{start, 2}, {start + 1000, 3}, {start + 2000, 5}}},
			asks:   []ask{{2, start, start + 254_001}, {3, start, start + 255_001}, {5, start, start + 255_001}, {6, start, start + 256_001}},
		},
		"what is under way outlasts the buckets": {
			window: Window{Open: 4, Buckets: []Bucket{{start, 6}}},
			asks:   []ask{{6, start, start + 254_001}, {7, start, Unknown}},
		},
		"nothing always fits": {window: Window{Open: 20}, asks: []ask{{0, start, Now}}},
		"what is out goes when room is needed": {
			window: Window{Buckets: []Bucket{{start, 4}, {start + 254_000, 1}}},
			asks:   []ask{{5, start + 260_000, Now}, {6, start + 260_000, Now}},
			left:   []Bucket{{start + 254_000, 1}},
		},
		"used beyond a maximum that shrank": {
			window: Window{Buckets: []Bucket{{start, 30}, {start + 1000, 2}}},
			asks:   []ask{{8, start + 2000, start + 254_001}, {9, start + 2000, start + 255_001}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := test.window
			w.Limit = limit
			before := slices.Clone(w.Buckets)
			for _, a := range test.asks {
				if got := w.Wait(a.n, a.now); got != a.want {
					t.Errorf("Wait(%d, %d) = %d, want %d", a.n, a.now-start, got, a.want)
				}
			}
			if test.left == nil {
				test.left = before
			}
			if !slices.Equal(w.Buckets, test.left) {
				t.Errorf("left %v, want %v", w.Buckets, test.left)
			}
		})
	}
}

func TestStamp(t *testing.T) {
	limit := Limit{Messages, 10, 254 * time.Second} // cells of one second, and start is at the beginning of one
	tests := map[string]struct {
		window           Window
		taken, used, now int64
		want             Window
	}{
		"all of it":           {Window{Open: 5}, 3, 3, start, Window{Open: 2, Buckets: []Bucket{{start, 3}}}},
		"less":                {Window{Open: 5}, 3, 1, start, Window{Open: 2, Buckets: []Bucket{{start, 1}}}},
		"nothing":             {Window{Open: 5}, 3, 0, start, Window{Open: 2}},
		"more":                {Window{Open: 5}, 3, 7, start, Window{Open: 2, Buckets: []Bucket{{start, 7}}}},
		"what was not taken":  {Window{Open: 5}, 0, 2, start, Window{Open: 5, Buckets: []Bucket{{start, 2}}}},
		"more than is open":   {Window{Open: 1}, 3, 2, start, Window{Buckets: []Bucket{{start, 2}}}},
		"less than nothing":   {Window{Open: 1}, 1, -2, start, Window{}},
		"the same cell":       {Window{Buckets: []Bucket{{start, 4}}}, 0, 1, start + 999, Window{Buckets: []Bucket{{start + 999, 5}}}},
		"the next cell":       {Window{Buckets: []Bucket{{start + 999, 4}}}, 0, 1, start + 1000, Window{Buckets: []Bucket{{start + 999, 4}, {start + 1000, 1}}}},
		"time that runs back": {Window{Buckets: []Bucket{{start + 5000, 4}}}, 0, 1, start + 10, Window{Buckets: []Bucket{{start + 5000, 5}}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := test.window
			w.Limit = limit
			w.Stamp(test.taken, test.used, test.now)
			if w.Open != test.want.Open || !slices.Equal(w.Buckets, test.want.Buckets) {
				t.Errorf("got %+v, want %+v", w, test.want)
			}
		})
	}
}

// TestABucketForEachCell fills windows of many lengths in every ms, or in every cell: no more buckets than there may be are
// ever within the window.
func TestABucketForEachCell(t *testing.T) {
	for _, length := range []int64{1, 2, 253, 254, 255, 256, 257, 508, 509, 1000, 60_000, 86_400_000} {
		limit := Limit{Messages, 1, time.Duration(length) * time.Millisecond}
		step := max(limit.cell()/3, 1)
		w := Window{Limit: limit}
		for now := start; now < start+2*length+10*step; now += step {
			w.Stamp(0, 1, now)
			w.drop(now)
			if len(w.Buckets) > buckets {
				t.Fatalf("%d ms: %d buckets", length, len(w.Buckets))
			}
			if want := min((now-start)/step+1, length/step+1); w.Used(now) < want {
				t.Fatalf("%d ms: %d used, want %d at least", length, w.Used(now), want)
			}
		}
	}
}

// grown is a history in which a window becomes longer, and its grid coarser, while it is full of buckets. It ends while many
// of those count.
func grown(stamp func(limit Limit, now int64)) (last Limit, now int64) {
	now = start
	for _, stage := range []struct {
		length time.Duration
		stamps int
	}{{time.Second, 300}, {time.Minute, 200}} {
		last = Limit{Messages, 5000, stage.length}
		for range stage.stamps {
			stamp(last, now)
			now += last.cell()
		}
	}
	return last, now
}

func TestAWindowThatGrewKeepsItsBucketsFew(t *testing.T) {
	w := Window{}
	stamps := int64(0)
	limit, now := grown(func(limit Limit, now int64) {
		w.Limit = limit
		w.Stamp(0, 1, now)
		stamps++
		if len(w.Buckets) > buckets {
			t.Fatalf("%d buckets after %d stamps", len(w.Buckets), stamps)
		}
	})
	// About 50 were out of the window while it was a second long; all else counts.
	if used := w.Used(now); used < 440 || used > 456 {
		t.Errorf("%d used of %d", used, stamps)
	}
	if leaves := limit.leaves(w.Buckets[0].Last); leaves <= now {
		t.Errorf("the oldest buckets left %d ms ago", now-leaves)
	}
}

// use is one that the naive model remembers exactly. It is stamped notYet while it is under way.
type use struct{ taken, stamped, count int64 }

const notYet = int64(1 << 62)

// TestNoIntervalEverHasMoreThanTheMaximum keeps every use exactly. The server counts each at any moment from its take to its
// stamp; so all that could have been counted in an interval of the window's length must fit.
func TestNoIntervalEverHasMoreThanTheMaximum(t *testing.T) {
	few(t, 2000)
	rapid.Check(t, func(rt *rapid.T) {
		limit := Limit{Messages, rapid.Int64Range(1, 50).Draw(rt, "max"), time.Duration(rapid.Int64Range(1, 3000).Draw(rt, "window")) * time.Millisecond}
		w := &Window{Limit: limit}
		window := limit.millis()
		var uses []*use
		var under []*use
		now, back := start, int64(0) // by the server's clock; Redis's may run back
		for range rapid.IntRange(1, 150).Draw(rt, "steps") {
			switch rapid.IntRange(0, 5).Draw(rt, "what") {
			case 0, 1:
				n := rapid.Int64Range(1, min(limit.Max, 10)).Draw(rt, "cost")
				until := w.Wait(n, now-back)
				if until == Unknown && len(under) > 0 {
					continue
				}
				if until != Now {
					if until <= now-back {
						rt.Fatalf("wait until %d at %d", until, now-back)
					}
					now = until + back
					if again := w.Wait(n, now-back); again != Now {
						rt.Fatalf("no room at the time that was told, but %d", again)
					}
				}
				w.Take(n)
				u := &use{now, notYet, n}
				uses, under = append(uses, u), append(under, u)
			case 2, 3:
				if len(under) == 0 {
					continue
				}
				i := rapid.IntRange(0, len(under)-1).Draw(rt, "which")
				u := under[i]
				under = slices.Delete(under, i, i+1)
				used := rapid.Int64Range(0, u.count).Draw(rt, "used")
				w.Stamp(u.count, used, now-back)
				u.stamped, u.count = now, used
			case 4:
				now += rapid.Int64Range(0, window/3+2).Draw(rt, "ms go by")
			case 5:
				if rapid.IntRange(0, 9).Draw(rt, "fail-over") == 0 {
					back += rapid.Int64Range(0, 50).Draw(rt, "ms back")
				}
			}
			if len(w.Buckets) > buckets || w.Open < 0 {
				rt.Fatalf("%+v", *w)
			}
		}
		// The fullest interval, its ends included, ends when something is taken.
		for _, last := range uses {
			var sum int64
			for _, u := range uses {
				if u.taken <= last.taken && u.stamped >= last.taken-window {
					sum += u.count
				}
			}
			if sum > limit.Max {
				rt.Fatalf("%d in the %d ms that end at %d, of at most %d", sum, window, last.taken, limit.Max)
			}
		}
		// And nothing leaks: an idle window is empty.
		for _, u := range under {
			w.Stamp(u.count, u.count, now-back)
		}
		if used := w.Used(now + window + 51); used != 0 {
			rt.Fatalf("%d used when all is over", used)
		}
	})
}

// TestAGreedySenderUsesWhatThereIs: 98 % of the rate that hand-overs leave.
func TestAGreedySenderUsesWhatThereIs(t *testing.T) {
	const window = 5 * time.Minute
	random := rand.New(rand.NewPCG(1, 1))
	differ := func(d time.Duration) time.Duration { return d/2 + time.Duration(random.Int64N(int64(d)+1)) }
	same := func(d time.Duration) time.Duration { return d }
	for _, most := range []int64{1, 30, 10_000} {
		for _, took := range []time.Duration{0, window / 1000, window / 100} {
			rounds := 20
			if most > 1000 {
				if took < window/100 {
					continue // slow to simulate, and no harder
				}
				rounds = 1
			}
			for name, vary := range map[string]func(time.Duration) time.Duration{"same": same, "differ": differ} {
				for _, spread := range []bool{false, true} {
					t.Run(fmt.Sprintf("%d, %v, %s, spread %v", most, took, name, spread), func(t *testing.T) {
						s := &sender{now: start, windows: []Window{{Limit: Limit{Messages, most, window}}},
							cost: func() Cost { return Cost{Messages: 1} },
							took: func() time.Duration { return vary(took) }}
						if spread { // what went before is all over the window
							for i := range most {
								s.windows[0].Stamp(0, 1, start+i*window.Milliseconds()/most)
							}
							s.now += window.Milliseconds()
						}
						s.run(t, int(most)*rounds+1)
						lasted := time.Duration(s.began[len(s.began)-1]-s.began[0]) * time.Millisecond
						if got := float64(rounds) * float64(window+took) / float64(lasted); got < 0.98 {
							t.Errorf("%.2f %% of the rate", got*100)
						}
					})
				}
			}
		}
	}
}

func TestUseSaysWhatPeopleAsk(t *testing.T) {
	limit := Limit{Messages, 30, time.Minute}
	now := time.UnixMilli(start)
	ago := func(d time.Duration, n int64) Bucket { return Bucket{start - d.Milliseconds(), n} }
	tests := map[string]struct {
		window Window
		used   int64
		until  time.Time
	}{
		"empty":     {Window{}, 0, time.Time{}},
		"under way": {Window{Open: 3}, 3, time.Time{}},
		"some are out": {Window{Open: 1, Buckets: []Bucket{ago(time.Hour, 5), ago(50*time.Second, 7), ago(0, 2)}},
			10, now.Add(10*time.Second + time.Millisecond)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.window.Limit = limit
			if got, want := test.window.Use(now), (Use{limit, test.used, test.until}); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}
