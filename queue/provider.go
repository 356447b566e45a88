package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/throttle"
)

// ProviderKey says whose limits bind a message: it is what turns are given out by.
type ProviderKey string

// The ways of an active provider.
const (
	// ByAccount: one account sends for every sender (SMTP).
	ByAccount ProviderKey = "account"
	// ByMailbox: each sender is a mailbox with limits of its own (Microsoft 365).
	ByMailbox ProviderKey = "mailbox"
)

// ActiveProvider is what the queue has to know of the provider.
type ActiveProvider struct {
	// Kind is "smtp" or "microsoft365", for people.
	Kind string
	// Keying says whose limits bind; Account is the key with ByAccount, and Sender the provider's own sender.
	Keying  ProviderKey
	Account string
	Sender  string
	// Concurrency is how many units a key has: how many messages of it may be with the provider at once; at least 1.
	Concurrency int
	// Limits are each key's; none: no limit but Concurrency.
	Limits []throttle.Limit
	// AllConcurrency and AllLimits bound all keys together; 0 and none: no limit.
	AllConcurrency int
	AllLimits      []throttle.Limit
}

// ProviderSalt gives the salt for fingerprints of provider settings; a new one if none are active.
func (q *Queue) ProviderSalt(ctx context.Context) (string, error) {
	salt, err := q.redis.HGet(ctx, q.key("provider"), "salt").Result()
	if err == nil && salt != "" {
		return salt, nil
	}
	if err != nil && !errors.Is(err, redis.Nil) {
		return "", fmt.Errorf("queue: provider: %w", err)
	}
	return token(20), nil
}

// SetProvider makes settings the active ones, unless they are (the fingerprint tells), and gives their version. From then
// on no attempt begins for any other version. The fingerprint must not give secrets away to somebody who reads Redis. Concurrency
// and limits are no part of what it tells apart: they change for everybody at once, and end no attempt.
func (q *Queue) SetProvider(ctx context.Context, p ActiveProvider, salt, fingerprint string) (version string, err error) {
	settings := []any{"salt", salt, "kind", p.Kind, "mode", string(p.Keying), "key", strings.ToLower(p.Account),
		"sender", strings.ToLower(p.Sender), "since", time.Now().UnixMilli()}
	all := ""
	if p.AllConcurrency > 0 {
		all = strconv.Itoa(p.AllConcurrency)
	}
	limits := []any{"concurrency", strconv.Itoa(max(1, p.Concurrency)), "limits", throttle.Encode(p.Limits),
		"all_concurrency", all, "all_limits", throttle.Encode(p.AllLimits)}
	args := append([]any{fingerprint, token(12), len(settings)}, settings...)
	version, err = q.run(ctx, "provider", append(args, limits...)...).Text()
	if err != nil {
		return "", fmt.Errorf("queue: provider: %w", err)
	}
	return version, nil
}

// ClearProvider leaves no provider active: mail is accepted and waits.
func (q *Queue) ClearProvider(ctx context.Context) error {
	if err := q.redis.Del(ctx, q.key("provider")).Err(); err != nil {
		return fmt.Errorf("queue: clear provider: %w", err)
	}
	return nil
}
