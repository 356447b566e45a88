package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// LogLevel is what every process of the installation logs, for a time, in the place of its own level.
type LogLevel struct {
	Level slog.Level
	// By is who asked for it; Until is when it ends by itself.
	By    string
	Until time.Time
}

// LogLevel gives the level that was asked for; nil if each process logs at its own.
func (q *Queue) LogLevel(ctx context.Context) (*LogLevel, error) {
	l, _, err := q.logLevel(ctx)
	return l, err
}

// logLevel gives the level, and how long it lasts.
func (q *Queue) logLevel(ctx context.Context) (*LogLevel, time.Duration, error) {
	pipe := q.redis.Pipeline()
	value, left := pipe.Get(ctx, q.key("log")), pipe.PTTL(ctx, q.key("log"))
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, 0, fmt.Errorf("queue: log level: %w", err)
	}
	f := strings.SplitN(value.Val(), "\t", 3)
	l := &LogLevel{}
	if len(f) < 3 || left.Val() <= 0 || l.Level.UnmarshalText([]byte(f[0])) != nil {
		return nil, 0, nil
	}
	l.Until, l.By = unixMilli(f[1]), f[2]
	return l, left.Val(), nil
}

// SetLogLevel has every process log at a level for a time. It ends by itself, or by ResetLogLevel.
func (q *Queue) SetLogLevel(ctx context.Context, level slog.Level, d time.Duration, by Author) (*LogLevel, error) {
	if d <= 0 {
		return nil, errors.New("queue: log level: say for how long")
	}
	now, err := q.now(ctx)
	if err != nil {
		return nil, fmt.Errorf("queue: log level: %w", err)
	}
	l := &LogLevel{Level: level, By: oneWord(by.Name), Until: now.Add(d).UTC().Truncate(time.Millisecond)}
	entry := by.entry("log.set", "", strings.ToLower(level.String())+" until "+l.Until.Format(time.RFC3339))
	return l, q.changeLogLevel(ctx, level.String(), l.Until.UnixMilli(), l.By, entry)
}

// ResetLogLevel lets each process log at its own level again.
func (q *Queue) ResetLogLevel(ctx context.Context, by Author) error {
	return q.changeLogLevel(ctx, "", 0, "", by.entry("log.reset", "", ""))
}

func (q *Queue) changeLogLevel(ctx context.Context, level string, until int64, by string, e *AuditEntry) error {
	entry, err := e.encode()
	if err != nil {
		return err
	}
	if err := q.run(ctx, "log", level, until, by, entry).Err(); err != nil {
		return fmt.Errorf("queue: log level: %w", err)
	}
	return nil
}

// logLook is how often the log level is looked at, should a message that it has changed be lost.
const logLook = 15 * time.Second

// FollowLogLevel calls set with the level that was asked for, and with nil when it has ended, each time that this changes, until ctx
// ends. A level ends also while Redis is away.
func (q *Queue) FollowLogLevel(ctx context.Context, set func(*LogLevel)) {
	changes := q.redis.Subscribe(ctx, q.key("log"))
	defer func() { _ = changes.Close() }()
	changed := changes.Channel()
	var now *LogLevel
	var ends time.Time
	for {
		if now != nil && !time.Now().Before(ends) {
			now = nil // before anybody is asked: Redis may be away
			set(nil)
		}
		l, left, err := q.logLevel(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil && now != nil {
			l, left = now, time.Until(ends)
		}
		if (l == nil) != (now == nil) || l != nil && *l != *now {
			set(l)
		}
		wait := logLook
		if now = l; l != nil {
			ends = time.Now().Add(left)
			wait = max(0, min(wait, left+time.Millisecond))
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}
