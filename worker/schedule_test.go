package worker

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

var first = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// attempts gives when a message that never succeeds is offered, since its first attempt, if each attempt takes no time.
func attempts(s Schedule, random float64) []time.Duration {
	times := []time.Duration{0}
	now := first
	for n := 1; n < 1000; n++ {
		wait, again := s.Next(n, first, now, random)
		if !again {
			break
		}
		now = now.Add(wait)
		times = append(times, now.Sub(first))
	}
	return times
}

func TestDefaultScheduleAsAWhole(t *testing.T) {
	var got []string
	for _, at := range attempts(DefaultSchedule(), 0.5) {
		got = append(got, fmt.Sprintf("%d:%02d", int(at.Hours()), int(at.Minutes())%60))
	}
	t.Log(strings.Join(got, " "))
	want := []string{"0:00", "0:01", "0:06", "0:21"}
	for h := 1; h < 24; h++ {
		want = append(want, fmt.Sprintf("%d:21", h))
	}
	want = append(want, "24:00")
	if !slices.Equal(got, want) {
		t.Errorf("attempts at\n%v, want\n%v", got, want)
	}
}

func TestSchedules(t *testing.T) {
	const m, h = time.Minute, time.Hour
	for _, test := range []struct {
		name string
		s    Schedule
		want []time.Duration
	}{
		{"the last delay repeats", Schedule{Delays: []time.Duration{m, 2 * m}, GiveUp: 7 * m}, []time.Duration{0, m, 3 * m, 5 * m, 7 * m}},
		{"the last wait is cut", Schedule{Delays: []time.Duration{h}, GiveUp: 90 * m}, []time.Duration{0, h, 90 * m}},
		{"a delay longer than all", Schedule{Delays: []time.Duration{h}, GiveUp: m}, []time.Duration{0, m}},
		{"one try", Schedule{Delays: []time.Duration{h}}, []time.Duration{0}},
		{"no delays", Schedule{GiveUp: h}, []time.Duration{0}},
		{"tiny delays do not spin", Schedule{Delays: []time.Duration{1}, GiveUp: 3 * time.Millisecond}, []time.Duration{0, time.Millisecond, 2 * time.Millisecond, 3 * time.Millisecond}},
		{"very long delays", Schedule{Delays: []time.Duration{50 * 365 * 24 * h}, GiveUp: 100 * 365 * 24 * h}, []time.Duration{0, 50 * 365 * 24 * h, 100 * 365 * 24 * h}},
	} {
		if got := attempts(test.s, 0.5); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestJitterStaysInItsBounds(t *testing.T) {
	s := DefaultSchedule()
	almost := math.Nextafter(1, 0)
	for n, delay := range map[int]time.Duration{0: time.Minute, 1: time.Minute, 2: 5 * time.Minute, 3: 15 * time.Minute, 4: time.Hour, 400: time.Hour} {
		low, _ := s.Next(n, first, first, 0)
		middle, _ := s.Next(n, first, first, 0.5)
		high, _ := s.Next(n, first, first, almost)
		if low != delay*9/10 || middle != delay || high <= delay*11/10-time.Microsecond || high > delay*11/10 {
			t.Errorf("after %d attempts: from %v by %v to %v, want %v ± 10 %%", n, low, middle, high, delay)
		}
	}
	// The jitter never moves the last attempt beyond the end.
	for _, random := range []float64{0, 0.3, almost} {
		times := attempts(s, random)
		if last := times[len(times)-1]; last != 24*time.Hour {
			t.Errorf("with %v the last attempt is at %v, want 24h", random, last)
		}
	}
}

func TestGivingUp(t *testing.T) {
	s := DefaultSchedule()
	for since, want := range map[time.Duration]bool{0: true, 24*time.Hour - 1: true, 24 * time.Hour: false, 25 * time.Hour: false, -time.Hour: true} {
		wait, again := s.Next(1, first, first.Add(since), 0.5)
		if again != want || (again && (wait <= 0 || wait > time.Minute)) || (!again && wait != 0) {
			t.Errorf("%v after the first attempt: %v, %v", since, wait, again)
		}
	}
}
