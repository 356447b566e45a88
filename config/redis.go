package config

import (
	"errors"
	"net/url"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Client makes a client for URL, whose pool may grow to the given number of connections, or more; it connects on first use,
// and the caller closes it. The forms are
//
//	redis://[user[:password]@]host:port/database       one server
//	rediss://...                                       the same over TLS
//	redis://host:port/database?master_name=NAME&addr=host:port    Sentinel: the hosts are sentinels
//	redis://host:port?cluster=true&addr=host:port      Cluster: the hosts are some of its nodes
//
// Options of go-redis such as read_timeout may follow as parameters. Errors do not quote the URL: it can hold a password.
func (r Redis) Client(connections int) (redis.UniversalClient, error) {
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
	query := parsed.Query()
	if query.Has("cluster") {
		return clusterClient(parsed, query, connections)
	}
	if query.Has("master_name") {
		options, err := redis.ParseFailoverURL(r.URL.Reveal())
		if err != nil {
			return nil, errNotUnderstood
		}
		if options.ReplicaOnly || options.RouteByLatency || options.RouteRandomly {
			return nil, errReplicas
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

// clusterClient is Client for a Cluster, all of whose nodes are found by the one or more that the URL names.
func clusterClient(parsed *url.URL, query url.Values, connections int) (redis.UniversalClient, error) {
	switch {
	case query.Get("cluster") != "true":
		return nil, errors.New("for a Cluster write redis://host:6379?cluster=true&addr=other:6379")
	case query.Has("master_name"):
		return nil, errors.New("either Sentinel (master_name) or a Cluster (cluster=true)")
	case strings.Trim(parsed.Path, "/0") != "":
		return nil, errors.New("a Cluster has no database but 0")
	}
	query.Del("cluster")
	parsed.RawQuery = query.Encode()
	options, err := redis.ParseClusterURL(parsed.String())
	if err != nil {
		return nil, errNotUnderstood
	}
	if options.ReadOnly || options.RouteByLatency || options.RouteRandomly {
		return nil, errReplicas
	}
	options.PoolSize, options.Protocol = max(options.PoolSize, connections), protocol
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return redis.NewClusterClient(options), nil
}

// protocol is RESP2: with 3, go-redis looks for pushed notices before and after each command, and we use none.
const protocol = 2

// errReplicas: a replica may be behind, and what decides is read.
var errReplicas = errors.New("a parameter that has replicas asked: only a master knows what is so")

var errNotUnderstood = errors.New("a path that is no database number, or a parameter that go-redis does not know")
