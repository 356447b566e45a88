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
	// Upload says how the provider takes content; nil: all of a message in one request.
	Upload *Upload
}

// Upload is what a message costs at a provider that takes a large one in several requests: one to begin it and one to send it, two
// for each file, and one for each part of the content.
type Upload struct {
	// RequestBytes is the largest content that goes in one request; PartBytes is how much goes in one of several.
	RequestBytes, PartBytes int64
	// Always says that small content goes in several requests, too.
	Always bool
}

func (u *Upload) encode() string {
	if u == nil {
		return ""
	}
	always := 0
	if u.Always {
		always = 1
	}
	return fmt.Sprintf("%d %d %d", u.RequestBytes, u.PartBytes, always)
}

// parseUpload is the inverse of encode; nil for what it does not understand.
func parseUpload(s string) *Upload {
	u, always := Upload{}, 0
	if _, err := fmt.Sscanf(s, "%d %d %d", &u.RequestBytes, &u.PartBytes, &always); err != nil || u.PartBytes < 1 {
		return nil
	}
	u.Always = always == 1
	return &u
}

// costOf is what an attempt takes at most of each limit; the same as cost_of_message in next.lua.
func (u *Upload) costOf(recipients, bytes, files int) throttle.Cost {
	cost := throttle.Cost{Messages: 1, Requests: 1, Recipients: int64(recipients), UploadBytes: int64(bytes)}
	if u == nil {
		return cost
	}
	cost.UploadBytes = (int64(bytes)*4 + 2) / 3
	if u.Always || int64(bytes) > u.RequestBytes {
		cost.Requests = 2 + 2*int64(files) + (int64(bytes)+u.PartBytes-1)/u.PartBytes
	}
	return cost
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
		"all_concurrency", all, "all_limits", throttle.Encode(p.AllLimits), "upload", p.Upload.encode()}
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
