package queue

import (
	"context"
	"hash/maphash"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// hashes is a set of texts, of which it keeps 8 bytes each. That one is in it by mistake happens once in 10^12 with millions, and
// not again with the next repair.
type hashes struct {
	seed   maphash.Seed
	all    []uint64
	sorted bool
}

func newHashes() hashes { return hashes{seed: maphash.MakeSeed()} }

func (h *hashes) add(text string) {
	h.all, h.sorted = append(h.all, maphash.String(h.seed, text)), false
}

func (h *hashes) sort() {
	if !h.sorted {
		slices.Sort(h.all)
		h.sorted = true
	}
}

func (h *hashes) has(text string) bool {
	h.sort()
	_, found := slices.BinarySearch(h.all, maphash.String(h.seed, text))
	return found
}

// twice reports whether anything was added twice.
func (h *hashes) twice() bool {
	h.sort()
	for i := 1; i < len(h.all); i++ {
		if h.all[i] == h.all[i-1] {
			return true
		}
	}
	return false
}

// listPiece is how many entries of a list are read at once.
const listPiece = 1000

// list reads a list from its tail: what is taken from its head meanwhile, or put back there, moves nothing of the rest, and what is put to
// its tail has some of it read again. What stands in it all the time is not missed.
func (p *repairs) list(ctx context.Context, key string, each func(string)) error {
	key = p.queue.key(key)
	for from, more := int64(-listPiece), true; more; from -= listPiece {
		if err := p.step(ctx, func() error {
			entries, err := p.queue.redis.LRange(ctx, key, from, from+listPiece-1).Result()
			for _, e := range entries {
				each(e)
			}
			more = len(entries) == listPiece
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// standing learns which entries stand in "due" and in lanes. "due" comes first: what leaves it goes to the tail of a lane.
func (p *repairs) standing(ctx context.Context) error {
	if err := p.members(ctx, "due", true, func(names []string) error {
		for _, name := range names {
			if entry, ok := strings.CutPrefix(name, "m:"); ok {
				p.entries.add(entry)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	return p.scan(ctx, "l:", func(names []string) error { return p.heads(ctx, names) })
}

// heads reads lanes. Most are short: one look at the tails of many shows all of those.
func (p *repairs) heads(ctx context.Context, names []string) error {
	const short = 20
	var long []string
	if err := p.step(ctx, func() error {
		pipe := p.queue.redis.Pipeline()
		tails := make([]*redis.StringSliceCmd, len(names))
		for i, name := range names {
			tails[i] = pipe.LRange(ctx, p.queue.key("l:", name), -short, -1)
		}
		_, err := pipe.Exec(ctx)
		for i, tail := range tails {
			for _, e := range tail.Val() {
				p.entries.add(e)
			}
			if len(tail.Val()) == short {
				long = append(long, names[i])
			}
		}
		return err
	}); err != nil {
		return err
	}
	for _, name := range long {
		if err := p.list(ctx, "l:"+name, p.entries.add); err != nil {
			return err
		}
	}
	return nil
}

// mostSuspects bounds how many messages are held in memory whose entries were not found.
const mostSuspects = 50_000

// put looks once more for the entries of suspects and puts those in that are missing. Most suspects came, or were queued again, since
// the lanes were read.
//
// A message that waits has its entry in "due" or in its lane, and it never goes from its lane to "due". So one that waits and does not
// stand in "due" stands in its lane, which is read now, as long as it waits: who is not found there has none, or waits no more.
func (p *repairs) put(ctx context.Context) error {
	lanes := make(map[string]map[suspect]bool)
	for piece := range slices.Chunk(p.suspects, repairPiece) {
		values, err := p.run(ctx, "repair_entries", suspectArgs("look", piece)...)
		if err != nil {
			return err
		}
		for i, lane := range texts(values) {
			if lane == "" {
				continue
			}
			if lanes[lane] == nil {
				lanes[lane] = make(map[suspect]bool)
			}
			lanes[lane][piece[i]] = true
		}
	}
	p.suspects = p.suspects[:0]
	for lane, missing := range lanes {
		for _, which := range []string{":n", ":d"} {
			if err := p.list(ctx, "l:"+lane+which, func(entry string) {
				id, generation, _ := strings.Cut(entry, ":")
				delete(missing, suspect{id, generation})
			}); err != nil {
				return err
			}
		}
		// In their order: ids sort by when they were made, and by their place in a batch.
		var sorted []suspect
		for s := range missing {
			sorted = append(sorted, s)
		}
		slices.SortFunc(sorted, func(a, b suspect) int { return strings.Compare(a.id, b.id) })
		for piece := range slices.Chunk(sorted, repairPiece) {
			values, err := p.run(ctx, "repair_entries", suspectArgs("put", piece)...)
			if err != nil {
				return err
			}
			p.done.Entries += number(values[0])
		}
	}
	return nil
}

func suspectArgs(what string, piece []suspect) []any {
	all := []any{what}
	for _, s := range piece {
		all = append(all, s.id, s.generation)
	}
	return all
}

// lanes puts lanes into their rings, and counts what waits in those that may go: "backlog".
func (p *repairs) lanes(ctx context.Context) error {
	before, err := p.moves(ctx)
	if err != nil {
		return err
	}
	rings, met, waits := newHashes(), newHashes(), make(map[string]int64)
	if err := p.scan(ctx, "r:", func(names []string) error {
		for _, ring := range names {
			if err := p.list(ctx, "r:"+ring, func(batch string) { rings.add(ring + ":" + batch) }); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if err := p.scan(ctx, "l:", func(names []string) error {
		for len(names) > 0 {
			// Those that are searched for cost more, if their ring is long.
			var piece []any
			n, searched := 0, 0
			for ; n < len(names) && searched < repairPiece/10; n++ {
				met.add(names[n])
				search := ""
				if lane := names[n][:len(names[n])-2]; !rings.has(lane) {
					search = "1"
					searched++
				}
				piece = append(piece, names[n], search)
			}
			values, err := p.run(ctx, "repair_lanes", piece...)
			if err != nil {
				return err
			}
			p.done.Rings += number(values[0])
			p.done.Indexes += number(values[1])
			for i, name := range names[:n] {
				sender := name[:strings.LastIndexByte(name[:len(name)-2], ':')]
				if counted := number(values[i+2]); counted > 0 {
					waits[sender] += int64(counted)
				}
			}
			names = names[n:]
		}
		return nil
	}); err != nil {
		return err
	}
	if met.twice() {
		p.done.Uncounted = uncountedTwice
		return nil
	}
	return p.correct(ctx, "backlog", before, waits)
}
