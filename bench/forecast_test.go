package bench

import (
	"math"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
)

// TestForecastsComeTrue compares what is forecast of a throttled mailbox, at its start and along its way, with what happens.
func TestForecastsComeTrue(t *testing.T) {
	t.Parallel()
	window := time.Duration(size(5, 1)) * time.Second
	each := terms{concurrency: 4, limits: []limit{{what: "messages", most: 30, window: window}}}
	c := assemble(t, window/150, each, terms{})
	c.start()
	c.start()
	from := "reports@example.com"
	// The first window shows how long a hand-over takes.
	first, _ := c.accept(from, mail.Report, 30)
	drained := func(batch string) {
		t.Helper()
		await(t, 5*time.Minute, "a batch to be through", func() bool { return c.open(batch) == 0 })
	}
	drained(first)

	n := size(450, 120)
	batch, _ := c.accept(from, mail.Report, n)
	type forecast struct{ made, through time.Time }
	var made []forecast
	look := time.NewTicker(window / 2)
	defer look.Stop()
	// Two windows before the end there is too little left of which a share could be told.
	for c.open(batch) > 60 {
		m, err := c.queue.Mailbox(t.Context(), from)
		if err != nil {
			t.Fatal(err)
		}
		if !m.Through.IsZero() {
			made = append(made, forecast{time.Now(), m.Through})
		}
		<-look.C
	}
	drained(batch)
	ended := time.Now()
	worst := 0.0
	for _, f := range made {
		off := f.through.Sub(ended).Seconds() / ended.Sub(f.made).Seconds()
		worst = max(worst, math.Abs(off))
	}
	t.Logf("%d messages, 30 in %v: of %d forecasts the one that was furthest off was so by %.1f %% of the time that was left", n, window, len(made), 100*worst)
	if len(made) < 3 {
		t.Fatal("nothing was forecast")
	}
	// What is left at the end is less than a window: only the long form has forecasts far enough ahead to be judged so.
	if *full && worst > 0.10 {
		t.Errorf("a forecast was off by %.1f %%, want 10 %% at most", 100*worst)
	}
}
