package throttle

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

const start = int64(1_700_000_000_000)

func TestForecast(t *testing.T) {
	now := time.UnixMilli(start)
	minute := Limit{Messages, 30, time.Minute}
	day := Limit{Recipients, 100, 24 * time.Hour}
	at := func(ago time.Duration, count int64) Bucket { return Bucket{start - ago.Milliseconds(), count} }
	one := map[Name]float64{Messages: 1}
	tests := map[string]struct {
		windows []Window
		load    Load
		want    time.Duration
		binding Name
	}{
		"nothing to send":        {nil, Load{Took: time.Second}, 0, ""},
		"nothing to send, held":  {nil, Load{Took: time.Second, NotBefore: now.Add(time.Hour)}, 0, ""},
		"no limits":              {nil, Load{Messages: 1000, Took: time.Second}, time.Second, ""},
		"concurrency":            {nil, Load{Messages: 1000, Took: time.Second, Concurrency: 10}, 100 * time.Second, ""},
		"concurrency, last part": {nil, Load{Messages: 1001, Took: time.Second, Concurrency: 10}, 101 * time.Second, ""},
		"a hold":                 {nil, Load{Messages: 10, Took: time.Second, NotBefore: now.Add(time.Hour)}, time.Hour + time.Second, ""},
		"a hold that is over":    {nil, Load{Messages: 10, Took: time.Second, NotBefore: now.Add(-time.Hour)}, time.Second, ""},
		"it fits":                {[]Window{{Limit: minute}}, Load{Messages: 30, Average: one}, 0, ""},
		"another limit's":        {[]Window{{Limit: minute}}, Load{Messages: 300, Average: map[Name]float64{Requests: 1}}, 0, ""},
		"one more":               {[]Window{{Limit: minute}}, Load{Messages: 31, Average: one}, time.Minute + time.Millisecond, Messages},
		"ten windows":            {[]Window{{Limit: minute}}, Load{Messages: 300, Average: one}, 9 * (time.Minute + time.Millisecond), Messages},
		"hand-over counts":       {[]Window{{Limit: minute}}, Load{Messages: 31, Average: one, Took: 100 * time.Millisecond}, time.Minute + 251*time.Millisecond, Messages},
		"a full window": {[]Window{{Limit: minute, Buckets: []Bucket{at(50*time.Second, 10), at(20*time.Second, 20)}}},
			Load{Messages: 11, Average: one}, 40*time.Second + time.Millisecond, Messages},
		"a full window, two rounds": {[]Window{{Limit: minute, Buckets: []Bucket{at(50*time.Second, 10), at(20*time.Second, 20)}}},
			Load{Messages: 40, Average: one}, 70*time.Second + 2*time.Millisecond, Messages},
		"buckets that are out": {[]Window{{Limit: minute, Buckets: []Bucket{at(time.Hour, 30)}}},
			Load{Messages: 30, Average: one}, 0, ""},
		"a window that a hold outlasts": {[]Window{{Limit: minute, Buckets: []Bucket{at(0, 30)}}},
			Load{Messages: 30, Average: one, NotBefore: now.Add(time.Hour)}, time.Hour, ""},
		"under way":    {[]Window{{Limit: minute, Open: 30}}, Load{Messages: 30, Average: one}, time.Minute + time.Millisecond, Messages},
		"dear ones":    {[]Window{{Limit: day}}, Load{Messages: 7, Average: map[Name]float64{Recipients: 30}}, 48*time.Hour + 2*time.Millisecond, Recipients},
		"too dear":     {[]Window{{Limit: day}}, Load{Messages: 2, Average: map[Name]float64{Recipients: 300}}, 24*time.Hour + time.Millisecond, Recipients},
		"used too far": {[]Window{{Limit: minute, Buckets: []Bucket{at(30*time.Second, 50)}}}, Load{Messages: 1, Average: one}, 30*time.Second + time.Millisecond, Messages},
		"the slower of two": {[]Window{{Limit: minute}, {Limit: day}},
			Load{Messages: 150, Average: map[Name]float64{Messages: 1, Recipients: 1}}, 24*time.Hour + time.Minute, Recipients},
		"centuries": {[]Window{{Limit: Limit{Messages, 1, 1000 * time.Hour}}}, Load{Messages: math.MaxInt32, Average: one}, time.Duration(longest/2) * time.Millisecond, Messages},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			through, binding := Forecast(test.windows, test.load, now)
			got := through.Sub(now)
			exact := time.Duration(0)
			if len(test.windows) > 1 {
				exact = test.want / 500
			}
			if (got-test.want).Abs() > exact+time.Microsecond || binding != test.binding {
				t.Errorf("got %v by %q, want %v by %q", got, binding, test.want, test.binding)
			}
		})
	}
}

// TestForecastFitsAGreedySender forecasts random backlogs, some of them midway, and sends them.
func TestForecastFitsAGreedySender(t *testing.T) {
	const seed, loads = 1, 150
	random := rand.New(rand.NewPCG(seed, seed))
	close := 0
	for range loads {
		s, load, spread := drawBacklog(random)
		if random.IntN(2) == 0 {
			s.run(t, 1+random.IntN(300))
			s.now += random.Int64N(30_000)
			s.settle()
		}
		books := make([]Window, len(s.windows))
		for i, w := range s.windows {
			books[i] = w
			books[i].Buckets = slices.Clone(w.Buckets)
		}
		now := time.UnixMilli(s.now)
		if random.IntN(5) == 0 {
			load.NotBefore = now.Add(time.Duration(1+random.IntN(1000)) * time.Second)
			s.now = load.NotBefore.UnixMilli()
		}
		through, binding := Forecast(books, load, now)
		got := through.Add(-load.Took).Sub(now)

		// Where the next window begins, one message more or less is all the difference. If costs differ, no mean tells
		// which it is: then what some more or fewer would take is as right.
		first := len(s.began)
		more := int(float64(load.Messages) * spread)
		s.run(t, load.Messages+more)
		began := func(n int) time.Duration {
			return time.UnixMilli(s.began[first+max(n, 1)-1]).Sub(now)
		}
		least, most := began(load.Messages-more), began(load.Messages+more)
		off := max(least-got, got-most, 0) - load.Took // by one hand-over anybody may be wrong
		switch {
		case off > most/10:
			t.Errorf("forecast %v by %q, taken %v to %v:\n%+v\n%+v", got, binding, least, most, load, books)
		case off <= most/50:
			close++
		}
	}
	t.Logf("%d of %d within 2 %%", close, loads)
	if close < loads*95/100 {
		t.Errorf("only %d of %d forecasts are within 2 %%", close, loads)
	}
}

// drawBacklog makes up limits, a load and its sender. spread is 0 if all messages cost the same.
func drawBacklog(random *rand.Rand) (s *sender, load Load, spread float64) {
	pick := func(of ...int64) int64 { return of[random.IntN(len(of))] }
	most := Cost{1, pick(1, 2, 3), pick(1, 2, 5, 30), pick(1, 50, 5000)}
	took := time.Duration(pick(20, 200, 900)) * time.Millisecond
	load = Load{Messages: int(pick(2, 20, 200, 2000)), Took: took, Concurrency: int(pick(0, 0, 1, 3, 20)), Average: map[Name]float64{}}
	s = &sender{now: start, concurrency: load.Concurrency}
	s.cost = func() Cost { return most }
	s.took = func() time.Duration { return took }
	if random.IntN(4) > 0 {
		s.took = func() time.Duration { return took*3/4 + time.Duration(random.Int64N(int64(took/2))) }
	}
	if random.IntN(3) == 0 {
		spread = 1.5 / math.Sqrt(float64(load.Messages))
		any := func(n int64) int64 { return 1 + random.Int64N(n) }
		s.cost = func() Cost { return Cost{1, any(most.Requests), any(most.Recipients), any(most.UploadBytes)} }
	}
	for _, name := range Names() {
		load.Average[name] = float64(most.Of(name))
		least := most.Of(name)
		if spread > 0 && name != Messages {
			load.Average[name] = float64(1+most.Of(name)) / 2
			least *= 10 // where few fit, the mean tells little
		}
		if random.IntN(3) == 0 {
			continue
		}
		s.windows = append(s.windows, Window{Limit: Limit{name, max(least, pick(1, 3, 30, 100, 1000, 3000)*pick(1, most.Of(name))),
			time.Duration(pick(5, 60, 300, 2000, 86400)) * time.Second}})
	}
	return s, load, spread
}
