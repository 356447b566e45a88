package queue

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/oklog/ulid/v2"
	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
)

// counted is what was counted for a batch or a stored file, and what its hash said when the count began.
type counted struct {
	shares string
	// n counts the records that hold a share of a batch, or the references to a file.
	n int
	// taken is a file's: how many shares of it were ever taken.
	taken string
	// failed and forgotten are a batch's; nFailed counts its failed records.
	failed, forgotten string
	nFailed           int
}

// moved is how much totals had changed in all, at some time.
type moved struct{ totals, bytes int64 }

func (p *repairs) moves(ctx context.Context) (m moved, err error) {
	values, err := p.queue.redis.HMGet(ctx, p.queue.key("counts"), "moves", "moved_bytes").Result()
	if err == nil {
		m.totals, _ = strconv.ParseInt(text(values[0]), 10, 64)
		m.bytes, _ = strconv.ParseInt(text(values[1]), 10, 64)
	}
	return m, err
}

// records goes through stored files, batches and records: what has to be listed is listed again, messages without entries get them,
// and all is counted that totals and shares count.
func (p *repairs) records(ctx context.Context) (err error) {
	if p.before, err = p.moves(ctx); err != nil {
		return err
	}
	if err := p.scan(ctx, "a:", func(ids []string) error {
		values, err := p.run(ctx, "repair_files", args([]any{stagingTime.Milliseconds()}, ids)...)
		if err != nil {
			return err
		}
		p.done.Indexes += number(values[0])
		for f := range slices.Chunk(texts(values[1:]), 4) {
			p.seen.add("a:" + f[0])
			p.files[f[0]] = &counted{shares: f[1], taken: f[2]}
			p.totals["content_bytes"] += int64(atoi(f[3]))
		}
		return nil
	}); err != nil {
		return err
	}
	if err := p.scan(ctx, "b:", func(ids []string) error {
		values, err := p.run(ctx, "repair_batches", args([]any{p.over, stagingTime.Milliseconds()}, ids)...)
		if err != nil {
			return err
		}
		p.done.Records += number(values[0])
		p.done.Indexes += number(values[1])
		p.newer += number(values[2])
		for b := range slices.Chunk(texts(values[3:]), 7) {
			p.seen.add("b:" + b[0])
			if b[1] == "committed" {
				p.batches[b[0]] = &counted{shares: b[2], failed: b[3], forgotten: b[4]}
			}
			p.totals["content_bytes"] += int64(atoi(b[5]))
			p.refer(b[6])
		}
		return nil
	}); err != nil {
		return err
	}
	if err := p.scan(ctx, "m:", func(ids []string) error { return p.look(ctx, ids) }); err != nil {
		return err
	}
	return p.put(ctx)
}

// refer counts references to files.
func (p *repairs) refer(refs string) {
	if refs == "" {
		return
	}
	for _, id := range strings.Split(refs, " ")[2:] {
		if f := p.files[id]; f != nil {
			f.n++
		}
	}
}

// look looks at records.
func (p *repairs) look(ctx context.Context, ids []string) error {
	values, err := p.run(ctx, "repair_records", args([]any{p.over}, ids)...)
	if err != nil {
		return err
	}
	p.done.Records += number(values[0])
	p.done.Indexes += number(values[1])
	p.newer += number(values[2])
	for f := range slices.Chunk(texts(values[3:]), 3) {
		if r, err := parseRecord(f[2] + "\n"); err == nil {
			p.seen.add("m:" + f[0])
			p.count(f[0], f[1], &r.head)
		}
	}
	if len(p.suspects) >= mostSuspects {
		return p.put(ctx)
	}
	return nil
}

// count counts a record that is open or failed, whose batch is in a state, and sees whether anybody would take it up.
func (p *repairs) count(id, batch string, h *[headFields]string) {
	p.refer(h[headRefs])
	state := stateOf[h[headState]]
	// What is staged is no mail yet. A batch that is gone was committed, or its messages would be gone too.
	if batch != "staged" && batch != "dropped" {
		if state == Failed {
			p.totals["failed:"+h[headKind]]++
			p.totals["class:"+h[headClass]]++
		} else {
			p.totals["open:"+h[headKind]]++
		}
		if b := p.batches[h[headBatch]]; b != nil {
			b.n++
			if state == Failed {
				b.nFailed++
			}
		}
		if h[headBatch] == "" {
			p.totals["content_bytes"] += int64(atoi(h[headBytes]))
		}
	}
	switch state {
	case Queued:
		entry := id
		if g := h[headGeneration]; g != "" {
			entry += ":" + g
		}
		if !p.entries.has(entry) {
			p.suspects = append(p.suspects, suspect{id, strings.Clone(h[headGeneration])})
		}
	case Sending:
		// One that began before this repair stood in a unit when those were looked at, or has ended since.
		if begun := int64(atoi(h[headBegun])); begun+p.options.AttemptTimeout.Milliseconds() < p.now && !p.open[h[headAttempt]] {
			p.lost = append(p.lost, id, strings.Clone(h[headAttempt]))
		}
	}
}

// units learns which attempts stand open in the units of some keys.
func (p *repairs) units(ctx context.Context, keys []string) error {
	pipe := p.queue.redis.Pipeline()
	answers := make([]*redis.StringSliceCmd, len(keys))
	for i, key := range keys {
		answers[i] = pipe.HVals(ctx, p.queue.key("u:", key))
	}
	_, err := pipe.Exec(ctx)
	for _, answer := range answers {
		for _, unit := range answer.Val() {
			for _, open := range strings.Split(unit, "\n")[1:] {
				attempt, _, _ := strings.Cut(open, "\t")
				p.open[attempt] = true
			}
		}
	}
	return err
}

// uncounted says why what was counted can't be compared; "" if it can.
func (p *repairs) uncounted(ctx context.Context) string {
	switch server, err := p.queue.running(ctx); {
	case err != nil || server != p.server:
		return uncountedMoved
	case p.newer > 0:
		return uncountedNewer
	case p.seen.twice():
		return uncountedTwice
	}
	return ""
}

// counts corrects the totals of the installation.
func (p *repairs) counts(ctx context.Context) error {
	if why := p.uncounted(ctx); why != "" {
		p.done.Uncounted = why
		return nil
	}
	return p.correct(ctx, "counts", p.before, p.totals)
}

// correct sets totals that differ from what was counted by more than changed since the count began. Each message that begins or ceases
// to count is one change, whether the count has met it before or after or not at all; so what is right stays as it is, and what is wrong
// by less than the traffic is set by a repair in a quieter hour.
func (p *repairs) correct(ctx context.Context, key string, before moved, counted map[string]int64) error {
	fields, err := p.queue.redis.HKeys(ctx, p.queue.key(key)).Result()
	if err != nil {
		return err
	}
	for field := range counted {
		fields = append(fields, field)
	}
	slices.Sort(fields)
	fields = slices.DeleteFunc(slices.Compact(fields), func(f string) bool { return f == "moves" || f == "moved_bytes" })
	for piece := range slices.Chunk(fields, repairPiece) {
		list := []any{key, before.totals, before.bytes}
		for _, f := range piece {
			list = append(list, f, counted[f])
		}
		values, err := p.run(ctx, "repair_counts", list...)
		if err != nil {
			return err
		}
		p.done.Counters += number(values[0])
		before.totals += int64(number(values[1]))
		before.bytes += int64(number(values[2]))
	}
	return nil
}

// shares corrects the shares of batches and of stored files.
func (p *repairs) shares(ctx context.Context) error {
	if p.uncounted(ctx) == "" {
		var wrong []any
		for id, f := range p.files {
			if f.n != atoi(f.shares) {
				wrong = append(wrong, id, f.shares, f.taken, f.n)
			}
		}
		for piece := range slices.Chunk(wrong, 4*repairPiece/10) {
			if err := p.set(ctx, "files", piece...); err != nil {
				return err
			}
		}
	}
	for id, b := range p.batches {
		if b.n == atoi(b.shares) && b.nFailed == atoi(b.failed)-atoi(b.forgotten) {
			continue
		}
		var now []any
		if err := p.step(ctx, func() (err error) {
			now, err = p.queue.redis.HMGet(ctx, p.queue.key("b:", id), "shares", "f", "forgotten", "finished").Result()
			return err
		}); err != nil {
			return err
		}
		// Shares fall while messages end, and the count is between what they were and what they are.
		fits := b.n <= atoi(b.shares) && b.n >= atoi(text(now[0])) &&
			(text(now[1]) != b.failed || text(now[2]) != b.forgotten || b.nFailed == atoi(b.failed)-atoi(b.forgotten))
		if fits || text(now[3]) != "" {
			continue
		}
		if err := p.recount(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

func (p *repairs) set(ctx context.Context, what string, list ...any) error {
	values, err := p.run(ctx, "repair_shares", append([]any{p.queue.options.DeliveredMax, what}, list...)...)
	if err == nil {
		p.done.Counters += number(values[0])
	}
	return err
}

// recount counts the messages of one batch, by their ids, which derive from the batch's, and corrects its shares.
func (p *repairs) recount(ctx context.Context, id string) error {
	batch, err := ulid.ParseStrict(id)
	if err != nil {
		return nil // no batch of ours
	}
	before, err := p.moves(ctx)
	if err != nil {
		return err
	}
	b, err := p.queue.redis.HMGet(ctx, p.queue.key("b:", id), "shares", "items").Result()
	if err != nil {
		return err
	}
	refused, err := p.queue.refusedOf(ctx, id)
	if err != nil {
		return err
	}
	held, failed := 0, 0
	for from, n := 0, atoi(text(b[1]))+len(refused); from < n; from += repairPiece {
		list := []any{0}
		for i := from; i < min(n, from+repairPiece); i++ {
			list = append(list, itemID(batch, i))
		}
		values, err := p.run(ctx, "repair_records", list...)
		if err != nil {
			return err
		}
		if number(values[2]) > 0 {
			p.done.Uncounted = uncountedNewer
			return nil
		}
		p.done.Indexes += number(values[1])
		for f := range slices.Chunk(texts(values[3:]), 3) {
			r, err := parseRecord(f[2] + "\n")
			if err != nil {
				return err
			}
			held++
			if stateOf[r.head[headState]] == Failed {
				failed++
			}
		}
	}
	return p.set(ctx, "batch", id, atoi(text(b[0])), before.totals, held, failed)
}

// attempts ends those that no process has under way.
func (p *repairs) attempts(ctx context.Context) error {
	policy := func(k mail.Kind) string {
		if o := p.options.OnUnknown[k]; o != "" {
			return string(o)
		}
		return string(Resend)
	}
	for piece := range slices.Chunk(p.lost, repairPiece) {
		values, err := p.run(ctx, "repair_attempts", args([]any{p.options.AttemptTimeout.Milliseconds(), token(6),
			policy(mail.Alert), policy(mail.Report), policy(mail.Subscription), gone(lostAttempt), mail.Unknown.String(),
			gone(unsentAttempt), mail.Temporary.String(), p.queue.options.DeliveredMax}, piece)...)
		if err != nil {
			return err
		}
		ended := toldAll(values)
		for _, e := range ended {
			e.log(p.queue.log, slog.LevelWarn, "attempt ended by others: no process has it under way")
		}
		p.done.Records += len(ended)
	}
	return nil
}
