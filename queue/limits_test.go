package queue

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue/queuetest"
)

// gauge counts attempts that are open at the same time.
type gauge struct {
	mu        sync.Mutex
	open, max int
	done      int
}

func (g *gauge) begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open++
	g.max = max(g.max, g.open)
}

func (g *gauge) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open--
	g.done++
}

func TestConcurrencyOfAKeyIsNeverExceeded(t *testing.T) {
	const limit, n = 3, 300
	r := queuetest.Start(t)
	version := activate(t, open(t, r.Client), limit)
	var g gauge
	full := make(chan struct{})
	var once sync.Once
	settle := func(a *Attempt) *Settlement {
		g.begin()
		defer g.end()
		g.mu.Lock()
		if g.open == limit {
			once.Do(func() { close(full) })
		}
		g.mu.Unlock()
		<-full // nobody goes on before the limit is used
		return delivered(a)
	}
	for range 3 {
		consume(t, open(t, r.Client), version, settle)
	}
	q := open(t, r.Client)
	receipt := enqueueBatch(t, q, batch(mail.Report, n))
	eventually(t, "all is delivered", func() bool {
		s, err := q.Batch(t.Context(), receipt.ID)
		return err == nil && s.Delivered == n
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.max != limit || g.done != n {
		t.Errorf("%d attempts were open at once in %d, want %d in %d", g.max, g.done, limit, n)
	}
}

func TestLoweredConcurrencyTakesUnitsBack(t *testing.T) {
	q, _ := onClock(t)
	old := sitDown(t, q, activate(t, q, 5), nil)
	b := enqueueBatch(t, q, batch(mail.Report, 20))
	turns := old.turns()
	if len(turns) != 5 {
		t.Fatalf("%d turns, want 5", len(turns))
	}
	var open []*Attempt
	for _, turn := range turns {
		open = append(open, turn.Next(nil))
	}
	version, err := declare(t, q, ActiveProvider{Kind: "smtp", Keying: ByAccount, Account: account, Concurrency: 2}, "salt", "lowered")
	if err != nil {
		t.Fatal(err)
	}
	for i, turn := range turns {
		if turn.Next(delivered(open[i])) != nil {
			t.Error("an attempt began under old settings")
		}
	}
	d := sitDown(t, q, version, nil)
	turns = d.turns()
	if len(turns) != 2 || len(d.turns()) != 0 {
		t.Fatalf("%d turns are out, want 2", len(turns))
	}
	n := 0
	for a := turns[0].Next(nil); a != nil; a = turns[0].Next(delivered(a)) {
		n++
	}
	if s, err := q.Batch(t.Context(), b.ID); n != 15 || err != nil || s.Delivered != 20 {
		t.Errorf("%d more were sent, %+v, %v", n, s, err)
	}
}

func TestAUnitTooManyEnds(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, activate(t, q, 2), nil)
	enqueueBatch(t, q, batch(mail.Report, 5))
	turns := d.turns()
	q.redis.HSet(t.Context(), q.key("provider"), "concurrency", 1)
	began := 0
	for _, turn := range turns {
		if turn.Next(nil) != nil {
			began++
		}
	}
	if began != 1 {
		t.Errorf("%d attempts began with a concurrency of 1", began)
	}
	if got := metric(t, q, "postroom_turns_total", "shrunk"); got != 1 {
		t.Errorf("%v turns ended as shrunk, want 1", got)
	}
}

func TestAlertsOvertake(t *testing.T) {
	const many = 5000
	for _, concurrency := range []int{1, 3} {
		q, _ := onClock(t)
		version := activate(t, q, concurrency)
		d := sitDown(t, q, version, nil)
		b := batch(mail.Subscription, 1)
		for range many - 1 {
			b.Recipients = append(b.Recipients, b.Recipients[0])
		}
		enqueueBatch(t, q, b)
		turns := d.turns()
		if len(turns) != concurrency {
			t.Fatalf("%d turns, want %d", len(turns), concurrency)
		}
		open := make([]*Attempt, concurrency)
		for i, turn := range turns {
			open[i] = turn.Next(nil)
		}
		alert := enqueue(t, q, message(mail.Alert, "ops@example.net"))
		var began []string
		for i := range 2 {
			i %= concurrency
			if open[i] = turns[i].Next(delivered(open[i])); open[i] == nil {
				t.Fatal("a turn ended with work left")
			}
			began = append(began, open[i].MessageID)
		}
		if !slices.Contains(began, alert) {
			t.Errorf("concurrency %d: the next two are %v, without the alert %s", concurrency, began, alert)
		}
	}
}

func TestAlertsOvertakeInAThrottledMailbox(t *testing.T) {
	for _, concurrency := range []int{1, 3} {
		q := open(t, queuetest.Start(t).Client)
		slots, began := make(chan struct{}), make(chan string, 100)
		consume(t, q, activate(t, q, concurrency), func(a *Attempt) *Settlement {
			began <- a.MessageID
			<-slots
			return delivered(a)
		})
		t.Cleanup(func() { close(slots) })
		enqueueBatch(t, q, batch(mail.Subscription, 1000))
		for range concurrency {
			<-began
		}
		alert := enqueue(t, q, message(mail.Alert, "ops@example.net"))
		slots <- struct{}{}
		first := <-began
		slots <- struct{}{}
		if second := <-began; first != alert && second != alert {
			t.Errorf("concurrency %d: %s and %s began before the alert", concurrency, first, second)
		}
	}
}

func TestTurnsEndSoThatOthersGetTheirs(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	b := enqueueBatch(t, q, batch(mail.Report, 3))
	turn := d.turn()
	a := turn.Next(nil)
	turn.ends = time.Now().Add(-time.Second)
	if turn.Next(delivered(a)) != nil || turn.Next(nil) != nil {
		t.Error("a turn went on beyond its time")
	}
	again := d.turn()
	if a := again.Next(nil); a == nil || a.MessageID != b.IDs[1] {
		t.Errorf("the next turn began %+v", a)
	}
	if got := metric(t, q, "postroom_turns_total", "over"); got != 1 {
		t.Errorf("%v turns ended as over, want 1", got)
	}
}
