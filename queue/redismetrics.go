package queue

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics of Redis. What the server does not tell is absent: a managed one may keep its configuration to itself.
var (
	redisUpDesc = prometheus.NewDesc("postroom_redis_up",
		"1 if Redis answered this process in this scrape, 0 if not: then what belongs to the installation is absent.", nil, nil)
	redisTripDesc = prometheus.NewDesc("postroom_redis_round_trip_seconds",
		"How long Redis took to answer one small command of this process, in this scrape.", nil, nil)
	redisMemoryDesc = prometheus.NewDesc("postroom_redis_memory_bytes",
		"Memory that Redis uses. The same from every process.", nil, nil)
	redisMemoryMaxDesc = prometheus.NewDesc("postroom_redis_memory_max_bytes",
		"maxmemory of Redis, at which mail is refused; 0: no bound. The same from every process.", nil, nil)
	redisEvictsDesc = prometheus.NewDesc("postroom_redis_evicts",
		"1 if Redis deletes mail when its memory is full (there is a maxmemory, and maxmemory-policy is not noeviction). The same from every process.", nil, nil)
	redisPersistentDesc = prometheus.NewDesc("postroom_redis_persistent",
		"1 if Redis keeps what it has on disk, and its last write succeeded, by append-only file (aof) or by snapshots (rdb). The same from every process.",
		[]string{"mode"}, nil)
	redisReplicasDesc = prometheus.NewDesc("postroom_redis_replicas",
		"Replicas that are connected to Redis. The same from every process.", nil, nil)
	redisDescs = []*prometheus.Desc{redisUpDesc, redisTripDesc, redisMemoryDesc, redisMemoryMaxDesc, redisEvictsDesc, redisPersistentDesc, redisReplicasDesc}
)

// server is what Redis says of itself, by the names of INFO; and its save points, as "save", if it tells them.
type server map[string]string

func (q *Queue) server(ctx context.Context) (server, error) {
	told, err := q.run(ctx, "server", "memory", "persistence", "replication").Text()
	if err != nil {
		return nil, fmt.Errorf("queue: server: %w", err)
	}
	s := server{}
	for line := range strings.Lines(told) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			s[name] = value
		}
	}
	// Not all may ask, and no script.
	if points, err := q.redis.ConfigGet(ctx, "save").Result(); err == nil {
		if save, ok := points["save"]; ok {
			s["save"] = save
		}
	}
	return s, nil
}

func (s server) collect(g gauges, took time.Duration) {
	g.set(redisTripDesc, took.Seconds())
	for d, name := range map[*prometheus.Desc]string{redisMemoryDesc: "used_memory", redisMemoryMaxDesc: "maxmemory", redisReplicasDesc: "connected_slaves"} {
		if n, err := strconv.ParseFloat(s[name], 64); err == nil {
			g.set(d, n)
		}
	}
	if policy := s["maxmemory_policy"]; policy != "" {
		g.set(redisEvictsDesc, one(policy != "noeviction" && s["maxmemory"] != "0"))
	}
	if on := s["aof_enabled"]; on != "" {
		g.set(redisPersistentDesc, one(on == "1" && s["aof_last_write_status"] == "ok"), "aof")
	}
	if save, told := s["save"]; told {
		g.set(redisPersistentDesc, one(save != "" && s["rdb_last_bgsave_status"] == "ok"), "rdb")
	}
}
