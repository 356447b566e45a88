package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postroom/postroom/mail"
)

// RepairOptions say how a repair goes by what it finds. Zero values stand for defaults, those of ConsumerOptions.
type RepairOptions struct {
	// AttemptTimeout is when an attempt is over for everybody else. It should be the processes' own.
	AttemptTimeout time.Duration
	// OnUnknown is what becomes of messages whose attempt nobody knows of any more.
	OnUnknown map[mail.Kind]UnknownPolicy
	// Slowly leaves Redis to others most of the time, as a process does that repairs beside its work: it ends with ErrRepairing if
	// another repair is under way, or begins. Without it the repair goes at once, and takes the place of one under way.
	Slowly bool
}

// Repaired is how much a repair has put right; all is zero if everything was as the records say.
type Repaired struct {
	// Entries are of messages that nothing would have taken up: they stood in no lane, and waited for no time.
	Entries int `json:"entries"`
	// Rings are lanes and senders that nobody would have looked at, and senders listed who have no mail.
	Rings int `json:"rings"`
	// Indexes are entries of lists of what failed, is staged, cancelled, out or kept: missing ones, and ones too many.
	Indexes int `json:"indexes"`
	// Counters are totals, and shares of content, that were wrong.
	Counters int `json:"counters"`
	// Records are of attempts that no process has under way, and records of ended mail that nothing would have dropped.
	Records int `json:"records"`
	// Uncounted says why counters were left as they are; "" if they were compared.
	Uncounted string `json:"uncounted,omitempty"`
}

// Total is how much was put right in all.
func (r *Repaired) Total() int { return r.Entries + r.Rings + r.Indexes + r.Counters + r.Records }

// Why counters were not compared.
const (
	uncountedTwice = "Redis's table of keys shrank meanwhile, so that some would have counted twice; repeat it"
	uncountedMoved = "Redis was started again meanwhile, or another server took its place; repeat it"
	uncountedNewer = "there are records that a newer version of postroom has written; repair with that one"
)

// ErrRepairing: another repair is under way.
var ErrRepairing = errors.New("queue: another repair is under way")

// Paces of a repair.
const (
	// repairPiece is how many records one script looks at.
	repairPiece = 200
	// repairShare is the part of Redis's time that a slow repair takes: one in so many.
	repairShare = 50
	// repairHeld is how long a process that repairs is taken for alive without a word.
	repairHeld = time.Minute
	// repairFirst is how long a process works before its first repair.
	repairFirst = 5 * time.Minute
)

// repair looks, each RepairInterval, whether indexes and counters are what the records say, and makes them so: slowly, by one
// process.
func (c *Consumer) repair(ctx context.Context) {
	for wait := min(repairFirst, c.options.RepairInterval); pause(ctx, wait) == nil; wait = c.options.RepairInterval {
		if err := c.repairOnce(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, ErrRepairing) {
			c.queue.away.failed(c.log, "the repair of indexes and counters stopped half-way; the next one begins anew", err)
		}
	}
}

func (c *Consumer) repairOnce(ctx context.Context) error {
	if !c.steady() {
		return nil
	}
	claimed, err := c.queue.run(ctx, "claim", "repaired", c.lease.Load().worker, (c.options.RepairInterval * 9 / 10).Milliseconds()).Int()
	if err != nil || claimed == 0 {
		return err
	}
	o := RepairOptions{AttemptTimeout: c.options.AttemptTimeout, OnUnknown: c.options.OnUnknown, Slowly: true}
	if u := c.settings.current(); u != nil && u.loaded.Verifies {
		o.OnUnknown = nil
	}
	_, err = c.queue.Repair(ctx, o)
	return err
}

// Repair makes indexes and counters again from the records, wherever they are not what the records say: whatever key of ours but
// records, batches, stored files and content may have been lost or spoilt. Mail is accepted and goes out meanwhile. It takes memory
// of some 16 bytes for each message that is open or failed, and some 100 for each batch and stored file they belong to.
//
// It can't know how many messages of a batch were cancelled or have expired, or were deleted after they failed: a batch whose hash lost
// those counts goes on without.
func (q *Queue) Repair(ctx context.Context, o RepairOptions) (*Repaired, error) {
	setDefault(&o.AttemptTimeout, attemptTimeout)
	p := &repairs{queue: q, options: o, holder: token(8), done: &Repaired{}}
	err := p.claim(ctx)
	if err == nil {
		err = p.all(ctx)
	}
	if err == nil && (p.done.Uncounted == uncountedTwice || p.done.Uncounted == uncountedMoved) && !o.Slowly {
		// What shrank has shrunk, and who took the place has it.
		p.done.Uncounted = ""
		err = p.all(ctx)
	}
	m := q.metrics.repairs
	for what, n := range map[string]int{"entry": p.done.Entries, "ring": p.done.Rings, "index": p.done.Indexes,
		"counter": p.done.Counters, "record": p.done.Records} {
		m.WithLabelValues(what).Add(float64(n))
	}
	if p.done.Total() > 0 {
		q.log.Warn("indexes or counters were not what the records say, and were made again: somebody or something has changed keys in Redis",
			"entries", p.done.Entries, "rings", p.done.Rings, "indexes", p.done.Indexes, "counters", p.done.Counters, "records", p.done.Records)
	}
	if err != nil {
		return p.done, fmt.Errorf("queue: repair: %w", err)
	}
	return p.done, nil
}

// repairs is one repair under way.
type repairs struct {
	queue   *Queue
	options RepairOptions
	holder  string
	claimed time.Time
	done    *Repaired

	// now is Redis's time at the beginning; what ended before over is to be gone.
	now, over int64
	entries   hashes          // what stands in lanes and in "due"
	seen      hashes          // records, batches and files that count, each to be met once
	newer     int             // records and batches that only a newer program can read
	open      map[string]bool // attempts that stand open in a unit
	lost      []string        // message and attempt of those that don't, one after the other
	suspects  []suspect
	server    string // which run of which Redis it is; "" if it does not tell
	batches   map[string]*counted
	files     map[string]*counted
	totals    map[string]int64 // counted for "counts", since before
	before    moved
}

// suspect is a message that waits, whose entry was not found.
type suspect struct{ id, generation string }

// all repairs in an order in which what comes later can rely on what came before: first who may be looked at, then what waits, then
// the totals, and last what changes records.
func (p *repairs) all(ctx context.Context) error {
	for _, step := range []func(context.Context) error{p.begin, p.failedStore, p.keys, p.senders, p.standing, p.records, p.counts,
		p.shares, p.lanes, p.attempts} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// claim makes this the repair under way: a slow one only if there is none.
func (p *repairs) claim(ctx context.Context) error {
	key, ms := "repair", repairHeld.Milliseconds()
	if !p.options.Slowly && p.claimed.IsZero() {
		if err := p.queue.redis.Set(ctx, p.queue.key(key), p.holder, repairHeld).Err(); err != nil {
			return err
		}
	} else if claimed, err := p.queue.run(ctx, "claim", key, p.holder, ms).Int(); err != nil {
		return err
	} else if claimed == 0 {
		return ErrRepairing
	}
	p.claimed = time.Now()
	return nil
}

// step takes one step, whose calls of Redis are bounded, and then leaves Redis to others.
func (p *repairs) step(ctx context.Context, do func() error) error {
	if time.Since(p.claimed) > repairHeld/3 {
		if err := p.renew(ctx); err != nil {
			return err
		}
	}
	began := time.Now()
	if err := do(); err != nil || !p.options.Slowly {
		return err
	}
	return pause(ctx, min((repairShare-1)*time.Since(began), 5*time.Second))
}

// renew goes on being the repair under way. Its own word counts for repairHeld, so that it is prolonged by taking it anew.
func (p *repairs) renew(ctx context.Context) error {
	if err := p.claim(ctx); err != nil {
		return err
	}
	return p.queue.redis.PExpire(ctx, p.queue.key("repair"), repairHeld).Err()
}

// run calls a script as one step.
func (p *repairs) run(ctx context.Context, script string, args ...any) (values []any, err error) {
	err = p.step(ctx, func() error {
		answer, err := p.queue.run(ctx, script, args...).Result()
		if list, ok := answer.([]any); ok {
			values = list
		} else {
			values = []any{answer}
		}
		return err
	})
	return values, err
}

// scan gives the names of keys that begin so, in pieces; each piece is looked at by one script at most.
func (p *repairs) scan(ctx context.Context, beginning string, look func(names []string) error) error {
	for cursor := "0"; ; {
		values, err := p.run(ctx, "scan", beginning, cursor, repairPiece)
		if err != nil {
			return err
		}
		names := texts(values[1:])
		for len(names) > 0 {
			n := min(len(names), repairPiece)
			if err := look(names[:n]); err != nil {
				return err
			}
			names = names[n:]
		}
		if cursor = text(values[0]); cursor == "0" {
			return nil
		}
	}
}

func texts(values []any) []string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = text(v)
	}
	return all
}

// args makes arguments of a script of some and a list.
func args(some []any, list []string) []any {
	for _, v := range list {
		some = append(some, v)
	}
	return some
}

// begin drops what the list of what is over says, so that whatever is older then is not on it.
func (p *repairs) begin(ctx context.Context) error {
	now, err := p.queue.now(ctx)
	if err != nil {
		return err
	}
	p.now = now.UnixMilli()
	p.over = p.now - p.queue.options.DeliveredFor.Milliseconds()
	if p.server, err = p.queue.running(ctx); err != nil {
		return err
	}
	p.entries, p.seen, p.newer, p.lost = newHashes(), newHashes(), 0, nil
	p.open, p.batches, p.files, p.totals = make(map[string]bool), make(map[string]*counted), make(map[string]*counted), make(map[string]int64)
	return p.queue.forget(ctx)
}

// failedStore strikes out what is listed as failed and is not. What failed and is not listed is found with the records.
func (p *repairs) failedStore(ctx context.Context) error {
	return p.members(ctx, "failed", true, func(names []string) error {
		values, err := p.run(ctx, "repair_failed", args(nil, names)...)
		if err == nil {
			p.done.Indexes += number(values[0])
		}
		return err
	})
}

// members gives the members of a set, or of a sorted one, in pieces.
func (p *repairs) members(ctx context.Context, key string, sorted bool, look func(names []string) error) error {
	for cursor := uint64(0); ; {
		var names []string
		err := p.step(ctx, func() (err error) {
			if !sorted {
				names, cursor, err = p.queue.redis.SScan(ctx, p.queue.key(key), cursor, "", repairPiece).Result()
				return err
			}
			var pairs []string
			pairs, cursor, err = p.queue.redis.ZScan(ctx, p.queue.key(key), cursor, "", repairPiece).Result()
			for i := 0; i+1 < len(pairs); i += 2 {
				names = append(names, pairs[i])
			}
			return err
		})
		if err != nil {
			return err
		}
		for len(names) > 0 {
			n := min(len(names), repairPiece)
			if err := look(names[:n]); err != nil {
				return err
			}
			names = names[n:]
		}
		if cursor == 0 {
			return nil
		}
	}
}

// keys lists limit keys again: with units out, and those of which something is kept; and learns which attempts stand open.
func (p *repairs) keys(ctx context.Context) error {
	listed := func(what string) func([]string) error {
		return func(names []string) error {
			values, err := p.run(ctx, "repair_keys", args([]any{what}, names)...)
			if err == nil {
				p.done.Indexes += number(values[0])
			}
			return err
		}
	}
	if err := p.scan(ctx, "u:", func(names []string) error {
		if err := p.step(ctx, func() error { return p.units(ctx, names) }); err != nil {
			return err
		}
		return listed("out")(names)
	}); err != nil {
		return err
	}
	if err := p.members(ctx, "keys", false, listed("out")); err != nil {
		return err
	}
	if err := p.members(ctx, "units", false, listed("units")); err != nil {
		return err
	}
	return p.scan(ctx, "k:", listed("kept"))
}

// senders puts those into the rings of their kinds who have lanes in theirs.
func (p *repairs) senders(ctx context.Context) error {
	standing := make(map[string]bool)
	for _, kind := range mail.Kinds() {
		if err := p.list(ctx, "s:"+letter(kind), func(sender string) { standing[letter(kind)+":"+sender] = true }); err != nil {
			return err
		}
	}
	look := func(rings []string) error {
		for len(rings) > 0 {
			n := min(len(rings), repairPiece/10) // each is searched for
			values, err := p.run(ctx, "repair_rings", args(nil, rings[:n])...)
			if err != nil {
				return err
			}
			p.done.Rings += number(values[0])
			rings = rings[n:]
		}
		return nil
	}
	if err := p.scan(ctx, "r:", func(rings []string) error {
		var missing []string
		for _, ring := range rings {
			if !standing[ring] {
				missing = append(missing, ring)
			}
			delete(standing, ring)
		}
		return look(missing)
	}); err != nil {
		return err
	}
	var idle []string
	for ring := range standing {
		idle = append(idle, ring)
	}
	return look(idle)
}
