package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/config"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// checkRecords names the finding of a repair.
const checkRecords = "records"

// repairFinding makes indexes and counters in Redis again from the records, and tells what was wrong.
func repairFinding(ctx context.Context, cfg *config.Config, client redis.UniversalClient) queue.Finding {
	f := queue.Finding{Check: checkRecords, Level: queue.LevelOK}
	done, err := repair(ctx, cfg, client)
	if err != nil {
		f.Level, f.Found = queue.LevelFault, "the repair stopped half-way: "+err.Error()
		f.Remedy = "what was repaired stays so; repeat it when Redis answers"
		return f
	}
	var parts []string
	for _, part := range []struct {
		n    int
		what string
	}{{done.Entries, "messages that nothing would have taken up"}, {done.Rings, "places in turn"}, {done.Indexes, "entries of lists"},
		{done.Counters, "counters"}, {done.Records, "records"}} {
		if part.n > 0 {
			parts = append(parts, thousands(part.n)+" "+part.what)
		}
	}
	f.Found = "indexes and counters are as the records say"
	if len(parts) > 0 {
		f.Level, f.Found = queue.LevelWarning, "put right: "+strings.Join(parts, ", ")
		f.Remedy = "find out who or what changes keys in Redis, or evicts them"
	}
	if done.Uncounted != "" {
		f.Level, f.Found = queue.LevelWarning, f.Found+"; counters were not compared"
		f.Remedy = strings.TrimPrefix(f.Remedy+"; "+done.Uncounted, "; ")
	}
	return f
}

func repair(ctx context.Context, cfg *config.Config, client redis.UniversalClient) (*queue.Repaired, error) {
	q, err := queue.Open(ctx, queue.Options{Client: client, Namespace: cfg.Redis.Namespace, DeliveredMax: cfg.Records.DeliveredMax,
		DeliveredFor: cfg.Records.DeliveredFor, FailedFor: cfg.Records.FailedFor})
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	defer func() { _ = q.Close() }()
	unknown := make(map[mail.Kind]queue.UnknownPolicy)
	for _, k := range mail.Kinds() {
		unknown[k] = queue.UnknownPolicy(cfg.Kinds.Of(k).OnUnknown)
	}
	return q.Repair(ctx, queue.RepairOptions{AttemptTimeout: cfg.Worker.AttemptTimeout, OnUnknown: unknown})
}
