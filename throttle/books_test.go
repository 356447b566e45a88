package throttle

import (
	"context"
	"flag"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/postroom/postroom/queue/queuetest"
)

// calls runs functions of the books one after the other in one script: op, scope, limits, cost, taken, now each.
const before, calls = `
local P = KEYS[1]
local function int(n) return string.format('%.0f', n) end
`, `
local answers = {}
for at = 0, #ARGV - 6, 6 do
  local op, scope, limits, cost, taken, now = unpack(ARGV, at + 1, at + 6)
  limits, cost, now = limits_of(limits), cost_of(cost), tonumber(now)
  if op == 'room' then
    local ends, name = books_room(scope, limits, cost, now)
    answers[#answers + 1] = (type(ends) == 'number' and int(ends) or ends or '') .. ' ' .. (name or '')
  elseif op == 'take' then
    answers[#answers + 1] = books_take(scope, limits, cost)
  else
    books_stamp(scope, limits, taken, cost, now)
    answers[#answers + 1] = ''
  end
end
return answers`

const prefix = "{test}:"

// ledger calls the books of one Redis.
type ledger struct {
	server redis.UniversalClient
	script *redis.Script
}

func newLedger(server redis.UniversalClient) *ledger {
	return &ledger{server, redis.NewScript(before + Books + calls)}
}

// call is one call of a function of the books.
type call struct {
	op, scope string
	limits    []Limit
	cost      Cost // or what was used
	taken     string
	now       int64
}

func (l *ledger) run(t require, cs ...call) []string {
	t.Helper()
	var args []any
	for _, c := range cs {
		args = append(args, c.op, c.scope, Encode(c.limits), c.cost.Encode(), c.taken, c.now)
	}
	answers, err := l.script.Run(context.Background(), l.server, []string{prefix}, args...).StringSlice()
	if err != nil {
		t.Fatalf("%v: %v", cs, err)
	}
	return answers
}

func (l *ledger) one(t require, c call) string {
	t.Helper()
	return l.run(t, c)[0]
}

func (l *ledger) read(t require, scope string, limits []Limit) []Window {
	t.Helper()
	books, err := Read(context.Background(), l.server, prefix, []string{scope}, limits)
	windows := books[scope]
	if err != nil {
		t.Fatal(err)
	}
	return windows
}

// require is what *testing.T and *rapid.T have in common.
type require interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Fatal(args ...any)
}

// TestLuaKeepsTheBooksAsGoDoes lets attempts of two scopes begin and end at random while limits change, in Redis and in Go,
// and compares every answer, and all of the books after every step.
func TestLuaKeepsTheBooksAsGoDoes(t *testing.T) {
	servers := map[string]struct {
		server redis.UniversalClient
		checks int
	}{
		"redis":     {queuetest.Start(t).Client, 40},
		"miniredis": {redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()}), 5},
	}
	for name, s := range servers {
		t.Run(name, func(t *testing.T) {
			few(t, s.checks)
			l := newLedger(s.server)
			rapid.Check(t, func(rt *rapid.T) {
				if err := s.server.FlushAll(context.Background()).Err(); err != nil {
					rt.Fatal(err)
				}
				compare(rt, l)
			})
		})
	}
}

// few sets the number of random runs, unless another was asked for.
func few(t *testing.T, checks int) {
	t.Helper()
	f := flag.Lookup("rapid.checks")
	if f.Value.String() != f.DefValue {
		return
	}
	if err := f.Value.Set(strconv.Itoa(checks)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Value.Set(f.DefValue) })
}

// attempt is one that is under way.
type attempt struct {
	scope, taken string
	cost         Cost
}

// model is the books of several scopes in Go, those of limits that are gone too.
type model struct {
	limits map[string][]Limit
	books  map[string]map[Name]*Window
}

func (m *model) window(scope string, l Limit) *Window {
	w := m.books[scope][l.Name]
	if w == nil {
		w = &Window{}
		m.books[scope][l.Name] = w
	}
	w.Limit = l
	return w
}

func (m *model) do(c call) string {
	switch c.op {
	case "room":
		for _, l := range c.limits {
			if c.cost.Of(l.Name) > l.Max {
				return fmt.Sprintf("never %s", l.Name)
			}
		}
		var ends int64
		var name Name
		for _, l := range c.limits {
			e := m.window(c.scope, l).Wait(c.cost.Of(l.Name), c.now)
			if e != Now && ends != Unknown && (e == Unknown || e > ends) {
				ends, name = e, l.Name
			}
		}
		if ends == Now {
			return " "
		}
		return fmt.Sprintf("%d %s", ends, name)
	case "take":
		if len(c.limits) == 0 {
			return ""
		}
		taken := []string{"-", "-", "-", "-"}
		for _, l := range c.limits {
			m.window(c.scope, l).Take(c.cost.Of(l.Name))
			taken[slices.Index(Names(), l.Name)] = strconv.FormatInt(c.cost.Of(l.Name), 10)
		}
		return strings.Join(taken, " ")
	default:
		for i, text := range strings.Fields(c.taken) {
			if n, err := strconv.ParseInt(text, 10, 64); err == nil {
				m.books[c.scope][Names()[i]].Stamp(n, 0, c.now)
			}
		}
		for _, l := range c.limits {
			m.window(c.scope, l).Stamp(0, c.cost.Of(l.Name), c.now)
		}
		return ""
	}
}

func drawLimits(rt *rapid.T) []Limit {
	var limits []Limit
	for _, name := range Names() {
		if rapid.IntRange(0, 2).Draw(rt, "limited") > 0 {
			limits = append(limits, Limit{
				Name:   name,
				Max:    rapid.SampledFrom([]int64{1, 2, 7, 100, 5000}).Draw(rt, "max"),
				Window: rapid.SampledFrom([]time.Duration{1, 30, 500, 600, 60_000, 86_400_000}).Draw(rt, "ms") * time.Millisecond,
			})
		}
	}
	return limits
}

func drawCost(rt *rapid.T, most int64) Cost {
	n := func(what string) int64 { return rapid.Int64Range(0, most).Draw(rt, what) }
	return Cost{Messages: n("messages"), Requests: n("requests"), Recipients: n("recipients"), UploadBytes: n("bytes")}
}

func compare(rt *rapid.T, l *ledger) {
	scopes := []string{"a@example.com", Provider}
	m := &model{limits: map[string][]Limit{}, books: map[string]map[Name]*Window{}}
	for _, scope := range scopes {
		m.limits[scope], m.books[scope] = drawLimits(rt), map[Name]*Window{}
	}
	now := int64(1_700_000_000_000)
	var open []attempt
	steps := rapid.SampledFrom([]int{10, 40, 200}).Draw(rt, "steps")
	for range steps {
		var cs []call
		var takes []attempt
		add := func(c call) {
			c.limits, c.now = m.limits[c.scope], now
			cs = append(cs, c)
		}
		// Several calls in one script, as a settled attempt and the next one are.
		for range rapid.IntRange(1, 3).Draw(rt, "calls") {
			scope := rapid.SampledFrom(scopes).Draw(rt, "scope")
			switch rapid.IntRange(0, 9).Draw(rt, "what") {
			case 0:
				m.limits[scope] = drawLimits(rt)
			case 1, 2:
				now += rapid.SampledFrom([]int64{1, 3, 40, 250, 700, 30_000, 90_000_000}).Draw(rt, "ms go by")
			case 3:
				now -= rapid.Int64Range(0, 50).Draw(rt, "ms back")
			case 4, 5:
				add(call{op: "room", scope: scope, cost: drawCost(rt, 8)})
			case 6, 7:
				cost := drawCost(rt, 8)
				add(call{op: "room", scope: scope, cost: cost})
				add(call{op: "take", scope: scope, cost: cost})
				takes = append(takes, attempt{scope: scope, cost: cost})
			case 8, 9:
				if len(open) == 0 {
					// What was taken before there was any limit.
					add(call{op: "stamp", scope: scope, cost: drawCost(rt, 3)})
					continue
				}
				i := rapid.IntRange(0, len(open)-1).Draw(rt, "which")
				a := open[i]
				open = slices.Delete(open, i, i+1)
				add(call{op: "stamp", scope: a.scope, cost: drawCost(rt, 10), taken: a.taken})
			}
		}
		if len(cs) == 0 {
			continue
		}
		answers := l.run(rt, cs...)
		for i, c := range cs {
			if want := m.do(c); answers[i] != want {
				rt.Fatalf("%+v: Redis answers %q, Go %q", c, answers[i], want)
			}
			if c.op == "take" {
				takes[0].taken = answers[i]
				open, takes = append(open, takes[0]), takes[1:]
			}
		}
		for _, scope := range scopes {
			for i, got := range l.read(rt, scope, m.limits[scope]) {
				want := m.window(scope, m.limits[scope][i])
				if got.Open != want.Open || !slices.Equal(got.Buckets, want.Buckets) || got.Used(now) != want.Used(now) {
					rt.Fatalf("after %+v: %s of %s:\nRedis %+v\nGo    %+v", cs, want.Limit.Name, scope, got, *want)
				}
				if len(got.Buckets) > buckets {
					rt.Fatalf("%s has %d buckets", want.Limit.Name, len(got.Buckets))
				}
			}
		}
	}
}

func TestBooksOfAWindowThatGrewAreThoseOfGo(t *testing.T) {
	l := newLedger(queuetest.Start(t).Client)
	var w Window
	var cs []call
	limit, now := grown(func(limit Limit, now int64) {
		w.Limit = limit
		w.Stamp(0, 1, now)
		cs = append(cs, call{op: "stamp", scope: "a", limits: []Limit{limit}, cost: Cost{Messages: 1}, now: now})
	})
	l.run(t, cs...)
	if got := l.read(t, "a", []Limit{limit})[0]; !slices.Equal(got.Buckets, w.Buckets) {
		t.Errorf("at %d Redis has\n%v, Go\n%v", now, got.Buckets, w.Buckets)
	}
}

var allLimits = []Limit{
	{Messages, 1e6, time.Minute},
	{Requests, 1e6, 10 * time.Minute},
	{Recipients, 1e6, 24 * time.Hour},
	{UploadBytes, 1e12, 5 * time.Minute},
}

func TestFullBooksAreSmall(t *testing.T) {
	server := queuetest.Start(t).Client
	l := newLedger(server)
	ctx := context.Background()
	start := int64(1_700_000_000_000)
	var cs []call
	for i, limit := range allLimits {
		for cell := range int64(buckets) {
			// One limit after the other, each in its own grid, with counts of a busy day.
			used := [...]Cost{{Messages: 20}, {Requests: 200}, {Recipients: 9000}, {UploadBytes: 150 << 20}}[i]
			now := start + cell*limit.cell()
			cs = append(cs, call{op: "stamp", scope: "a@example.com", limits: []Limit{limit}, cost: used, now: now})
		}
	}
	l.run(t, cs...)
	for _, w := range l.read(t, "a@example.com", allLimits) {
		if len(w.Buckets) != buckets {
			t.Errorf("%s has %d buckets, want %d", w.Limit.Name, len(w.Buckets), buckets)
		}
	}
	var sum int64
	for _, key := range server.Keys(ctx, "*").Val() {
		sum += server.MemoryUsage(ctx, key, 0).Val()
	}
	t.Logf("%d bytes", sum)
	if sum == 0 || sum > 20_000 {
		t.Errorf("full books take %d bytes, want at most 20,000", sum)
	}
}

func TestIdleBooksExpire(t *testing.T) {
	server := queuetest.Start(t).Client
	l := newLedger(server)
	ctx := context.Background()
	const scope, now = "a@example.com", 1_700_000_000_000
	limits := []Limit{{Messages, 10, time.Minute}, {Recipients, 10, time.Hour}}
	cost := Cost{Messages: 1, Recipients: 2}
	hash := prefix + "w:" + scope
	const forever = -1

	within := func(step string, key string, least, most time.Duration) {
		t.Helper()
		if got := server.PTTL(ctx, key).Val(); got < least || got > most {
			t.Errorf("%s: %s expires in %v, want %v to %v", step, key, got, least, most)
		}
	}
	taken := l.one(t, call{op: "take", scope: scope, limits: limits, cost: cost, now: now})
	other := l.one(t, call{op: "take", scope: scope, limits: limits, cost: cost, now: now})
	within("two under way", hash, forever, forever)
	l.run(t, call{op: "stamp", scope: scope, limits: limits, taken: taken, cost: cost, now: now})
	within("one under way", hash, forever, forever)
	l.run(t, call{op: "stamp", scope: scope, limits: limits, taken: other, cost: Cost{}, now: now})
	within("idle", hash, time.Hour+30*time.Second, 2*time.Hour)

	taken = l.one(t, call{op: "take", scope: scope, limits: limits, cost: cost, now: now})
	within("under way again", hash, forever, forever)
	// The longer window is gone, and still the books last until it would have been over.
	l.run(t, call{op: "stamp", scope: scope, limits: limits[:1], taken: taken, cost: cost, now: now + 1000})
	within("idle with a shorter limit", hash, time.Hour, 2*time.Hour)
	within("older buckets", hash+":messages", 90*time.Second, 2*time.Minute+time.Second)

	// What is taken and given back as a whole leaves nothing but an empty book.
	taken = l.one(t, call{op: "take", scope: "b", limits: limits, cost: cost, now: now})
	l.run(t, call{op: "stamp", scope: "b", limits: limits, taken: taken, cost: Cost{}, now: now})
	within("given back", prefix+"w:b", 30*time.Second, time.Minute)
	if keys := server.Keys(ctx, "*").Val(); len(keys) != 3 {
		t.Errorf("keys are %q", keys)
	}
}

func TestNoLimitsCostNothing(t *testing.T) {
	server := queuetest.Start(t).Client
	l := newLedger(server)
	l.run(t, call{op: "room", scope: "a"}) // the script is loaded
	before := commands(t, server)
	got := l.run(t,
		call{op: "room", scope: "a", cost: Cost{Messages: 1}},
		call{op: "take", scope: "a", cost: Cost{Messages: 1}},
		call{op: "stamp", scope: "a", cost: Cost{Messages: 1}})
	if want := []string{" ", "", ""}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if n := commands(t, server) - before - 2; n != 0 { // EVALSHA and INFO
		t.Errorf("%d commands without a limit", n)
	}
	// Nor does it leave anything if nothing of a limit was used.
	l.run(t, call{op: "stamp", scope: "a", limits: allLimits})
	if keys := server.Keys(context.Background(), "*").Val(); len(keys) != 0 {
		t.Errorf("keys are %q", keys)
	}
}

// TestAMessageCostsFewCommands settles an attempt and begins the next in one script, as a busy account does, with its
// windows full of buckets.
func TestAMessageCostsFewCommands(t *testing.T) {
	server := queuetest.Start(t).Client
	l := newLedger(server)
	limits := []Limit{{Messages, 1000, time.Minute}, {Requests, 1e6, 10 * time.Minute}}
	cost, now := Cost{Messages: 1, Requests: 1}, int64(1_700_000_000_000)
	taken := "1 1 - -"
	l.run(t, call{op: "take", scope: "a", limits: limits, cost: cost})
	const rounds, warm = 3000, 1500
	var before int
	for i := range rounds {
		if i == warm {
			before = commands(t, server)
		}
		now += 61 // about the limit's rate: sometimes it has to wait
		var cs []call
		for _, op := range []string{"stamp", "room", "take"} {
			cs = append(cs, call{op: op, scope: "a", limits: limits, cost: cost, taken: taken, now: now})
		}
		l.run(t, cs...)
	}
	// At 16 a second no more than four share a bucket: most of what this counts is new buckets, and old ones that go.
	each := float64(commands(t, server)-before) / (rounds - warm)
	t.Logf("%.2f commands for each message", each-1)
	if each-1 > 8 {
		t.Errorf("%.2f commands for each message", each-1)
	}
}

// commands counts what the server has run, those of scripts too.
func commands(t *testing.T, server redis.UniversalClient) int {
	t.Helper()
	info, err := server.(*redis.Client).InfoMap(context.Background(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for _, stat := range info["Commandstats"] {
		var n int
		if _, err := fmt.Sscanf(stat, "calls=%d,", &n); err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

func TestBooksThatSomebodyDeletedMend(t *testing.T) {
	server := queuetest.Start(t).Client
	l := newLedger(server)
	ctx := context.Background()
	const scope, now = "a", 1_700_000_000_000
	limits := []Limit{{Messages, 3, time.Minute}}
	hash := prefix + "w:" + scope
	room := call{op: "room", scope: scope, limits: limits, cost: Cost{Messages: 2}, now: now + 3000}
	fill := func() {
		server.FlushAll(ctx)
		for i := range int64(3) {
			l.run(t, call{op: "stamp", scope: scope, limits: limits, cost: Cost{Messages: 1}, now: now + i*1000})
		}
		if got, want := l.one(t, room), fmt.Sprintf("%d messages", now+1000+60_001); got != want {
			t.Fatalf("full books: %q, want %q", got, want)
		}
	}
	tests := map[string]struct{ key, want string }{
		"the list": {hash + ":messages", " "},
		"the hash": {hash, fmt.Sprintf("%d messages", now+60_001)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			fill()
			if server.Del(ctx, test.key).Val() != 1 {
				t.Fatal("nothing to delete")
			}
			if got := l.one(t, room); got != test.want {
				t.Errorf("answers %q, want %q", got, test.want)
			}
			var open, sum, count int64
			w := l.read(t, scope, limits)[0]
			for _, b := range w.Buckets {
				count += b.Count
			}
			// What the books say of themselves is right again as soon as something is written.
			l.run(t, call{op: "take", scope: scope, limits: limits, cost: Cost{Messages: 1}})
			if _, err := fmt.Sscan(server.HGet(ctx, hash, "messages").Val(), &open, &sum); err != nil || sum != count {
				t.Errorf("the sum is %d (%v), want %d", sum, err, count)
			}
			// Attempts that the books have forgotten are given back to nobody, and keep nothing from expiring.
			for range 2 {
				l.run(t, call{op: "stamp", scope: scope, limits: limits, taken: "5 - - -", now: now})
			}
			if w := l.read(t, scope, limits)[0]; w.Open != 0 {
				t.Errorf("open is %d", w.Open)
			}
			if ttl := server.PTTL(ctx, hash).Val(); ttl <= 0 {
				t.Errorf("the books expire in %v", ttl)
			}
			if got := server.HGet(ctx, hash, "open").Val(); !strings.HasPrefix(got, "0 ") {
				t.Errorf("under way: %q", got)
			}
		})
	}
}

func TestReadRefusesWhatIsNoBook(t *testing.T) {
	tests := map[string]struct {
		book  string
		older []string
		want  Window
		fails bool
	}{
		"nothing":           {},
		"only a hash":       {book: "2 3 10 3", want: Window{Open: 2, Buckets: []Bucket{{10, 3}}}},
		"no bucket":         {book: "2 0 0 0", want: Window{Open: 2}},
		"a list":            {book: "0 5 10 3", older: []string{"7", "2"}, want: Window{Buckets: []Bucket{{7, 2}, {10, 3}}}},
		"a list alone":      {older: []string{"7", "2"}, want: Window{Buckets: []Bucket{{7, 2}}}},
		"half a bucket":     {older: []string{"7"}, fails: true},
		"no number":         {older: []string{"7", "x"}, fails: true},
		"a book cut short":  {book: "2 3 10", fails: true},
		"a negative number": {book: "-2 3 10 3", fails: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := window(test.book, test.older)
			if (err != nil) != test.fails || !test.fails && !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}
