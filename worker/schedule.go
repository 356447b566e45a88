package worker

import "time"

// Schedule says when a message is offered again after attempts that counted. It is data; Next does the arithmetic.
type Schedule struct {
	// Delays are the waits after the first, second, ... attempt; the last one repeats. At least one.
	Delays []time.Duration
	// GiveUp is how long after the first counted attempt the last one may be.
	GiveUp time.Duration
	// Jitter spreads each delay over ±Jitter of it (0.1: from 90 to 110 %), so that what failed together does not come
	// back together.
	Jitter float64
}

// DefaultSchedule waits 1, 5, 15 minutes, then an hour each, for a day: 28 attempts.
func DefaultSchedule() Schedule {
	return Schedule{Delays: []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour}, GiveUp: 24 * time.Hour, Jitter: 0.1}
}

// Next gives the wait after counted attempts (this one included), of which the first began at first, or says that it is
// time to give up. random is from [0, 1).
//
// The last wait is cut so that one more attempt takes place just when GiveUp is reached: with a delay of an hour and 24
// hours to give up, a message is still offered at 24:00 and not given up at 23:21 already.
func (s Schedule) Next(counted int, first, now time.Time, random float64) (wait time.Duration, again bool) {
	left := first.Add(s.GiveUp).Sub(now)
	if left <= 0 || len(s.Delays) == 0 {
		return 0, false
	}
	delay := s.Delays[min(max(counted, 1), len(s.Delays))-1]
	wait = time.Duration(float64(delay) * (1 + s.Jitter*(2*random-1)))
	return max(min(wait, left), time.Millisecond), true
}
