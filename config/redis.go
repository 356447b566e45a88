package config

import (
	"errors"
	"net/url"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Client makes a client for URL, whose pool may grow to the given number of connections, or more; it connects on first use,
// and the caller closes it. The forms are
//
//	redis://[user[:password]@]host:port/database       one server
//	rediss://...                                       the same over TLS
//	redis://host:port/database?master_name=NAME&addr=host:port    Sentinel: the hosts are sentinels
//
// Options of go-redis such as read_timeout may follow as parameters. Errors do not quote the URL: it can hold a password.
func (r Redis) Client(connections int) (*redis.Client, error) {
	parsed, err := url.Parse(r.URL.Reveal())
	if err != nil {
		return nil, errors.New("not a URL; special characters in a password are written as %40 and the like")
	}
	switch parsed.Scheme {
	case "redis", "rediss":
	case "redis+sentinel", "redis-sentinel", "sentinel":
		return nil, errors.New("for Sentinel write redis://sentinel:26379/0?master_name=NAME&addr=other:26379")
	default:
		return nil, errors.New("want a URL that begins with redis:// or rediss://")
	}
	if parsed.Host == "" {
		return nil, errors.New("a URL without a host")
	}
	if parsed.Query().Has("master_name") {
		options, err := redis.ParseFailoverURL(r.URL.Reveal())
		if err != nil {
			return nil, errNotUnderstood
		}
		options.PoolSize, options.Protocol = max(options.PoolSize, connections), protocol
		return redis.NewFailoverClient(options), nil
	}
	options, err := redis.ParseURL(r.URL.Reveal())
	if err != nil {
		return nil, errNotUnderstood
	}
	options.PoolSize, options.Protocol = max(options.PoolSize, connections), protocol
	// Notices of a hosted Redis's maintenance are of no use to us.
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return redis.NewClient(options), nil
}

// Sentinel reports whether URL leads to Sentinels.
func (r Redis) Sentinel() bool {
	parsed, err := url.Parse(r.URL.Reveal())
	return err == nil && parsed.Query().Has("master_name")
}

// protocol is RESP2: with 3, go-redis looks for pushed notices before and after each command, and we use none.
const protocol = 2

var errNotUnderstood = errors.New("a path that is no database number, or a parameter that go-redis does not know")
