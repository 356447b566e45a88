package queue

import (
	"context"
	"embed"
	"strings"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/*.lua
var sources embed.FS

// scripts are all our scripts, by the name of their file in lua/, each with the prelude in front. The files document what
// each takes and answers.
var scripts = readScripts()

func readScripts() map[string]*redis.Script {
	read := func(name string) string {
		b, err := sources.ReadFile("lua/" + name)
		if err != nil {
			panic(err) // the file is part of the binary
		}
		return string(b)
	}
	entries, err := sources.ReadDir("lua")
	if err != nil {
		panic(err)
	}
	prelude := read("prelude.lua")
	all := make(map[string]*redis.Script, len(entries))
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".lua"); ok && name != "prelude" {
			all[name] = redis.NewScript(prelude + read(e.Name()))
		}
	}
	return all
}

// run calls a script. Every script may run twice with the same arguments, so go-redis may repeat it by itself.
func (q *Queue) run(ctx context.Context, name string, args ...any) *redis.Cmd {
	q.metrics.scripts.WithLabelValues(name).Inc()
	return scripts[name].Run(ctx, q.redis, []string{q.prefix}, args...)
}
