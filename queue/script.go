package queue

import (
	"context"
	"embed"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/throttle"
)

//go:embed lua/*.lua
var sources embed.FS

// growing are the scripts that take mail in. In a Redis that has reached its maxmemory they are refused; what is there goes
// out all the same, and makes room.
var growing = []string{"accept", "stage", "items", "store"}

// fronts stand in front of every script, in this order.
var fronts = []string{"prelude", "records", "holds"}

// ownFront is what stands in front of some scripts, too.
var ownFront = map[string]string{"next": "order", "accept": "whole", "commit": "whole", "sweep": "gone", "repair_attempts": "gone",
	"cancel": "strike", "cancel_batch": "strike", "expire": "strike", "prune": "strike"}

// scriptNames lists our scripts: the files in lua/ but the shared ones. The files document what each takes and answers.
func scriptNames() []string {
	entries, err := sources.ReadDir("lua")
	if err != nil {
		panic(err) // the folder is part of the binary
	}
	own := slices.Collect(maps.Values(ownFront))
	var names []string
	for _, e := range entries {
		if name := strings.TrimSuffix(e.Name(), ".lua"); !slices.Contains(fronts, name) && !slices.Contains(own, name) {
			names = append(names, name)
		}
	}
	return names
}

// loadScripts puts what they share, and the books of limits, in front of each script and, where the server knows them, the flags of Redis 7.
func loadScripts(ctx context.Context, server redis.UniversalClient) (map[string]*redis.Script, error) {
	const mayFill, mustNot = "#!lua\n", "#!lua flags=allow-oom\n"
	flags := func(name string) string {
		if slices.Contains(growing, name) {
			return mayFill
		}
		return mustNot
	}
	// A replica knows the flags, and takes no script with them before it is a master.
	if err := server.Eval(ctx, mustNot+"return 1", nil).Err(); err != nil && !redis.HasErrorPrefix(err, "READONLY") {
		// The demo's embedded Redis does not know flags; another that does not is too old, or not Redis.
		if err := server.Eval(ctx, "return 1", nil).Err(); err != nil {
			return nil, fmt.Errorf("queue: scripts: %w", err)
		}
		flags = func(string) string { return "" }
	}
	read := func(name string) string {
		b, err := sources.ReadFile("lua/" + name + ".lua")
		if err != nil {
			panic(err) // the file is part of the binary
		}
		return string(b)
	}
	front, all := "", make(map[string]*redis.Script)
	for _, name := range fronts {
		front += read(name)
	}
	for _, name := range scriptNames() {
		source := flags(name) + front + throttle.Books
		if own := ownFront[name]; own != "" {
			source += read(own)
		}
		all[name] = redis.NewScript(source + read(name))
	}
	return all, nil
}

// run calls a script. Every script may run twice with the same arguments, so go-redis may repeat it by itself.
func (q *Queue) run(ctx context.Context, name string, args ...any) *redis.Cmd {
	q.metrics.scripts.WithLabelValues(name).Inc()
	return q.scripts[name].Run(ctx, q.redis, q.keys(), args...)
}

// keys are those that a script names: the prefix, and another that there never is either. A cluster that moves our slot to another
// shard takes scripts at both, where they would miss the keys that are still, or already, at the other; but with two keys that
// it does not have it refuses them (TRYAGAIN) until the whole slot has moved.
func (q *Queue) keys() []string { return []string{q.prefix, q.prefix + "-"} }
