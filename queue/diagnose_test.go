package queue

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue/queuetest"
)

// finding gives the one of a check.
func finding(t *testing.T, all []Finding, check string) Finding {
	t.Helper()
	for _, f := range all {
		if f.Check == check {
			return f
		}
	}
	t.Fatalf("nothing was found of %s: %+v", check, all)
	return Finding{}
}

// wantFinding checks what was found: a level, and texts of what was found and of the remedy. What is not ok has a remedy.
func wantFinding(t *testing.T, f Finding, level Level, found, remedy string) {
	t.Helper()
	if f.Level != level || !strings.Contains(f.Found, found) || !strings.Contains(f.Remedy, remedy) || level != LevelOK && f.Remedy == "" {
		t.Errorf("%s %q (to do: %q), want %s %q (%q)", f.Level, f.Found, f.Remedy, level, found, remedy)
	}
}

func diagnose(t *testing.T, client redis.UniversalClient, change func(*ServerOptions)) []Finding {
	t.Helper()
	o := ServerOptions{Client: client, Namespace: "postroom", ContentMaxBytes: 1 << 30, Pings: 2}
	if change != nil {
		change(&o)
	}
	return DiagnoseServer(t.Context(), o)
}

// set changes settings of a server: name, value, ...
func set(t *testing.T, client *redis.Client, settings ...string) {
	t.Helper()
	for i := 0; i < len(settings); i += 2 {
		if err := client.ConfigSet(t.Context(), settings[i], settings[i+1]).Err(); err != nil {
			t.Fatalf("%s: %v", settings[i], err)
		}
	}
}

// good is how a Redis for mail is set.
var good = []string{"appendonly", "yes", "appendfsync", "everysec", "save", "", "maxmemory-policy", "noeviction", "maxmemory", "4gb"}

func TestEachBadSettingOfRedisIsFound(t *testing.T) {
	r := queuetest.Start(t)
	next := open(t, r.Client).scripts["next"].Hash()
	for name, test := range map[string]struct {
		settings      []string
		check         string
		level         Level
		found, remedy string
		loses         bool
	}{
		"good":                        {nil, "persistence", LevelOK, "the last second at most", "", false},
		"a good Redis":                {nil, "redis", LevelOK, "standalone, master, replicas: 0", "", false},
		"it keeps what it has":        {nil, "eviction", LevelOK, "noeviction", "", false},
		"there is room":               {nil, "memory", LevelOK, "of 4096.0 MiB used", "", false},
		"synced with each write":      {[]string{"appendfsync", "always"}, "persistence", LevelOK, "with each write", "", false},
		"synced by chance":            {[]string{"appendfsync", "no"}, "persistence", LevelWarning, "half minute", "everysec", false},
		"snapshots alone":             {[]string{"appendonly", "no", "save", "3600 1 60 10000"}, "persistence", LevelWarning, "every 3600 s with 1 or more changes, every 60 s with 10000", "appendonly yes", false},
		"nothing is kept":             {[]string{"appendonly", "no"}, "persistence", LevelFault, "all mail is lost", "redis.may_forget", true},
		"it deletes whatever is old":  {[]string{"maxmemory-policy", "allkeys-lru"}, "eviction", LevelFault, "allkeys-lru: when Redis is full it deletes mail", "noeviction", true},
		"even if nothing bounds it":   {[]string{"maxmemory-policy", "allkeys-random", "maxmemory", "0"}, "eviction", LevelFault, "deletes mail", "noeviction", true},
		"it deletes what expires":     {[]string{"maxmemory-policy", "volatile-ttl"}, "eviction", LevelFault, "the books of limits", "noeviction", false},
		"nothing bounds it":           {[]string{"maxmemory", "0"}, "memory", LevelWarning, "no maxmemory", "set maxmemory", false},
		"content has no room":         {[]string{"maxmemory", "1000mb"}, "memory", LevelWarning, "content.max_bytes is 1024.0 MiB", "lower content.max_bytes", false},
		"a rewrite of the AOF counts": {[]string{"save", "60 1"}, "persistence", LevelOK, "an AOF", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			set(t, r.Client, good...)
			set(t, r.Client, test.settings...)
			for _, mayForget := range []bool{false, true} {
				all := diagnose(t, r.Client, func(o *ServerOptions) { o.MayForget = mayForget })
				level, remedy, loses := test.level, test.remedy, test.loses
				if mayForget && loses {
					level, remedy, loses = LevelWarning, "set ", false
				}
				f := finding(t, all, test.check)
				wantFinding(t, f, level, test.found, remedy)
				if mayForget && strings.Contains(f.Remedy, "may_forget") {
					t.Errorf("to do: %s, which it is", f.Remedy)
				}
				if f.LosesMail != loses {
					t.Errorf("mail would be lost: %t, want %t", f.LosesMail, loses)
				}
			}
		})
	}

	t.Run("soon full, and full", func(t *testing.T) {
		set(t, r.Client, good...)
		used := float64(r.Memory())
		for share, level := range map[float64]Level{0.8: LevelWarning, 0.99: LevelFault} {
			set(t, r.Client, "maxmemory", fmt.Sprintf("%.0f", used/share))
			wantFinding(t, finding(t, diagnose(t, r.Client, func(o *ServerOptions) { o.ContentMaxBytes = 1 }), "memory"), level, "MiB used", "raise maxmemory")
		}
	})

	t.Run("a snapshot that can't be written", func(t *testing.T) {
		set(t, r.Client, good...)
		folder := r.Client.ConfigGet(t.Context(), "dir").Val()["dir"]
		if err := os.MkdirAll(filepath.Join(folder, "dump.rdb", "in the way"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := r.Client.Do(t.Context(), "BGSAVE", "SCHEDULE").Err(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the snapshot to fail", func() bool {
			return strings.Contains(r.Client.Info(t.Context(), "persistence").Val(), "rdb_last_bgsave_status:err")
		})
		wantFinding(t, finding(t, diagnose(t, r.Client, nil), "persistence"), LevelOK, "an AOF", "")
		set(t, r.Client, "save", "3600 1")
		wantFinding(t, finding(t, diagnose(t, r.Client, nil), "persistence"), LevelFault, "snapshot could not be written", "disk is full")
		set(t, r.Client, "appendonly", "no")
		f := finding(t, diagnose(t, r.Client, nil), "persistence")
		wantFinding(t, f, LevelFault, "no AOF, and the last snapshot could not be written", "disk is full")
		if f.LosesMail {
			t.Error("a disk that is full for now keeps Postroom from starting")
		}
	})

	t.Run("a replica", func(t *testing.T) {
		set(t, r.Client, good...)
		if err := r.Client.ReplicaOf(t.Context(), "127.0.0.1", "1").Err(); err != nil {
			t.Fatal(err)
		}
		f := finding(t, diagnose(t, r.Client, func(o *ServerOptions) { o.MayForget = true }), "redis")
		wantFinding(t, f, LevelFault, "a replica", "lead to the master")
		if !f.LosesMail {
			t.Error("Postroom would start with a replica")
		}
		if q := open(t, r.Client); q.scripts["next"].Hash() != next {
			t.Error("scripts go without flags, and would stop in a Redis that is full")
		}
	})
}

func TestWhatARedisDoesNotTellIsAWarningAtMost(t *testing.T) {
	renamed := queuetest.StartWith(t, "--rename-command", "CONFIG", "")
	limited := func(t *testing.T, may string) *redis.Client {
		t.Helper()
		name := "u" + fmt.Sprint(len(may))
		rules := append([]any{"ACL", "SETUSER", name, "on", ">secret", "~*", "&*"}, anys(strings.Fields(may))...)
		if err := renamed.Client.Do(t.Context(), rules...).Err(); err != nil {
			t.Fatal(err)
		}
		o := *renamed.Client.Options()
		o.Username, o.Password = name, "secret"
		client := redis.NewClient(&o)
		t.Cleanup(func() { _ = client.Close() })
		return client
	}
	embedded := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})
	t.Cleanup(func() { _ = embedded.Close() })
	for name, test := range map[string]struct {
		client *redis.Client
		want   map[string]string
	}{
		"no CONFIG":             {renamed.Client, map[string]string{"persistence": "how often it is synced is not told"}},
		"a user without CONFIG": {limited(t, "+@all -@admin"), map[string]string{"persistence": "how often it is synced is not told"}},
		"a user without INFO": {limited(t, "+@all -config -info"), map[string]string{"redis": "version and role are not told",
			"persistence": "does not tell whether it keeps", "eviction": "does not tell what it does", "memory": "does not tell how much"}},
		"a user without TIME": {limited(t, "+@all -time"), map[string]string{"clock": "does not tell its time"}},
		"the demo's": {embedded, map[string]string{"redis": "not told", "persistence": "does not tell", "eviction": "does not tell",
			"memory": "does not tell"}},
	} {
		t.Run(name, func(t *testing.T) {
			all := diagnose(t, test.client, nil)
			if len(all) != 6 {
				t.Fatalf("%+v", all)
			}
			for _, f := range all {
				if f.LosesMail || f.Level == LevelFault {
					t.Errorf("%+v", f)
				}
			}
			for check, found := range test.want {
				f := finding(t, all, check)
				wantFinding(t, f, f.Level, found, "")
			}
		})
	}
	t.Run("snapshots that are not told", func(t *testing.T) {
		s := &examined{node: embedded, info: map[string]string{"aof_enabled": "0"}}
		wantFinding(t, s.persistence(t.Context()), LevelWarning, "whether there are snapshots is not told", "AOF")
	})
	t.Run("a user that may not even PING", func(t *testing.T) {
		all := diagnose(t, limited(t, "-@all"), nil)
		if len(all) != 1 || all[0].LosesMail {
			t.Fatalf("%+v", all)
		}
		wantFinding(t, all[0], LevelFault, "Redis refuses: NOPERM", "redis.url")
	})
}

func anys(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}

// What a test can't bring about in a real Redis, told by what INFO says then.
func TestWhatInfoTells(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()}) // it tells no setting
	t.Cleanup(func() { _ = client.Close() })
	for name, test := range map[string]struct {
		info          string
		sentinel      bool
		check         func(*examined) Finding
		level         Level
		found, remedy string
	}{
		"too old":            {"redis_version:6.2.14 redis_mode:standalone role:master", false, identify, LevelFault, "Redis 6.2.14, standalone, master, replicas: 0: older than 7", "upgrade"},
		"newer":              {"redis_version:8.2.1 redis_mode:standalone role:master", false, identify, LevelOK, "Redis 8.2.1", ""},
		"Valkey":             {"redis_version:7.2.4 valkey_version:8.1.0 role:master", false, identify, LevelOK, "Valkey 8.1.0, compatible with Redis 7.2.4", ""},
		"a Sentinel":         {"redis_version:7.0.15 redis_mode:sentinel", false, identify, LevelFault, "leads to a Sentinel", "master_name=NAME"},
		"by Sentinels":       {"redis_version:7.0.15 redis_mode:standalone role:master connected_slaves:2", true, identify, LevelOK, "Sentinel, master, replicas: 2", ""},
		"no replica":         {"redis_version:7.0.15 redis_mode:standalone role:master connected_slaves:0", true, identify, LevelWarning, "nothing to fail over to", "start a replica"},
		"loading":            {"aof_enabled:1 loading:1", false, persist, LevelFault, "loading", "wait"},
		"an AOF that fails":  {"aof_enabled:1 aof_last_write_status:err", false, persist, LevelFault, "the AOF could not be written", "disk is full"},
		"an AOF that grows":  {"aof_enabled:1 aof_last_write_status:ok aof_last_bgrewrite_status:err", false, persist, LevelWarning, "could not be rewritten", "overcommit"},
		"without maxmemory":  {"used_memory:2097152 maxmemory:0 total_system_memory:104857600", false, (*examined).memory, LevelWarning, "2.0 MiB of 100.0 MiB used, no maxmemory", "set maxmemory"},
		"no machine's":       {"used_memory:2097152 maxmemory:0", false, (*examined).memory, LevelWarning, "2.0 MiB used, no maxmemory", "set maxmemory"},
		"a full machine":     {"used_memory:97 maxmemory:0 total_system_memory:100", false, (*examined).memory, LevelFault, "refused", "raise maxmemory"},
		"at three quarters":  {"used_memory:75 maxmemory:100", false, (*examined).memory, LevelWarning, "soon full", "raise maxmemory"},
		"a bit less":         {"used_memory:74 maxmemory:100", false, (*examined).memory, LevelOK, "used", ""},
		"not what it counts": {"used_memory:99 mem_not_counted_for_evict:50 maxmemory:100", false, (*examined).memory, LevelOK, "used", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := &examined{ServerOptions: ServerOptions{Sentinel: test.sentinel}, node: client, info: map[string]string{}}
			for field := range strings.FieldsSeq(test.info) {
				key, value, _ := strings.Cut(field, ":")
				s.info[key] = value
			}
			f := test.check(s)
			wantFinding(t, f, test.level, test.found, test.remedy)
			if f.LosesMail {
				t.Errorf("%+v: keeps Postroom from starting", f)
			}
		})
	}
}

func identify(s *examined) Finding { return s.identity(context.Background()) }
func persist(s *examined) Finding  { return s.persistence(context.Background()) }

func TestClocksThatAreApartAreFound(t *testing.T) {
	r := queuetest.Start(t)
	for name, test := range map[string]struct {
		by            time.Duration
		level         Level
		found, remedy string
	}{
		"together": {0, LevelOK, "within a second", ""},
		"ahead":    {90 * time.Second, LevelWarning, "1m30s ahead of that of Redis", "NTP"},
		"behind":   {-time.Hour, LevelWarning, "1h0m0s behind that of Redis", "NTP"},
	} {
		t.Run(name, func(t *testing.T) {
			all := diagnose(t, r.Client, func(o *ServerOptions) {
				o.Now = func() time.Time { return time.Now().Add(test.by) }
			})
			wantFinding(t, finding(t, all, "clock"), test.level, test.found, test.remedy)
		})
	}
}

func TestASlowRedisIsAWarning(t *testing.T) {
	const ms = time.Millisecond
	for name, test := range map[string]struct {
		took  []time.Duration
		level Level
		found string
	}{
		"fast":         {[]time.Duration{3 * ms, ms, 2 * ms}, LevelOK, "takes 2ms, at most 3ms"},
		"far away":     {[]time.Duration{30 * ms, 31 * ms, 5 * ms}, LevelWarning, "takes 30ms, at most 31ms"},
		"now and then": {[]time.Duration{ms, ms, 900 * ms}, LevelWarning, "takes 1ms, at most 900ms"},
	} {
		t.Run(name, func(t *testing.T) {
			wantFinding(t, latencyOf(test.took), test.level, test.found, "")
		})
	}
}

func TestAClusterIsFound(t *testing.T) {
	t.Parallel() // a Cluster takes two seconds to be up
	free := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		return port
	}
	port := free()
	r := queuetest.StartWith(t, "--port", port, "--cluster-enabled", "yes", "--cluster-port", free(), "--appendfsync", "everysec")
	wantFinding(t, finding(t, diagnose(t, r.Client, nil), "redis"), LevelFault, "the Cluster is down", "slot")
	if err := r.Client.ClusterAddSlotsRange(t.Context(), 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	cluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:" + port}})
	t.Cleanup(func() { _ = cluster.Close() })
	eventually(t, "the cluster to be up", func() bool {
		return strings.Contains(r.Client.ClusterInfo(t.Context()).Val(), "cluster_state:ok")
	})
	for _, client := range []redis.UniversalClient{r.Client, cluster} {
		all := diagnose(t, client, nil)
		wantFinding(t, finding(t, all, "redis"), LevelOK, "cluster, master", "")
		wantFinding(t, finding(t, all, "persistence"), LevelOK, "an AOF", "")
	}
}

func TestARedisThatIsGoneIsAFault(t *testing.T) {
	r := queuetest.Start(t)
	r.Kill()
	o := *r.Client.Options()
	o.MaxRetries, o.DialerRetries = -1, 1
	client := redis.NewClient(&o)
	t.Cleanup(func() { _ = client.Close() })
	all := diagnose(t, client, nil)
	if len(all) != 1 {
		t.Fatalf("%+v", all)
	}
	wantFinding(t, all[0], LevelFault, "does not answer", "see whether it runs")
}

func TestWhatRedisHoldsIsJudged(t *testing.T) {
	onEachRedis(t, func(t *testing.T, q *Queue) {
		check := func(check string, level Level, found, remedy string) {
			t.Helper()
			all, err := q.Diagnose(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			wantFinding(t, finding(t, all, check), level, found, remedy)
		}
		lease := func(worker, state string) {
			t.Helper()
			if err := q.run(t.Context(), "lease", worker, "new", state).Err(); err != nil {
				t.Fatal(err)
			}
		}
		check("format", LevelOK, "the 0 records", "")
		check("sending", LevelOK, "nothing is held", "")
		check("workers", LevelWarning, "none runs", "postroom serve")

		// A lease that nobody renewed tells of nobody.
		q.redis.HSet(t.Context(), q.key("workers"), "dead", time.Now().Add(-leaseTime-time.Second).UnixMilli())
		check("workers", LevelWarning, "none runs", "postroom serve")
		lease("one", "1-x\thost-1\tthe active settings are\n in the file of another process")
		check("workers", LevelFault, "1 of 1 can't load the provider's settings, and send nothing: host-1: the active settings are", "the same section provider")
		lease("two", "1-x\thost-2\t")
		check("workers", LevelWarning, "1 of 2 can't", "the same section provider")
		lease("one", "1-x\thost-1\t")
		check("workers", LevelOK, "2 send", "")

		activate(t, q, 1)
		later := message(mail.Alert, "a@example.net")
		later.SendAt = time.Now().Add(time.Hour)
		id := enqueue(t, q, later)
		check("format", LevelOK, "the 1 records", "")
		raw := q.redis.Get(t.Context(), q.key("m:", id)).Val()
		q.redis.Set(t.Context(), q.key("m:", id), "2"+raw[1:], 0)
		check("format", LevelFault, "of 1 records that were looked at 1 are of a newer format", "newer version")

		if _, err := q.Pause(t.Context(), account, time.Hour, "why", Author{Name: "ada"}); err != nil {
			t.Fatal(err)
		}
		check("sending", LevelWarning, "0 are held after refusals, and 1 paused", "postroom mailbox list")
		if _, err := q.Pause(t.Context(), Everything, time.Hour, "the move", Author{Name: "ada"}); err != nil {
			t.Fatal(err)
		}
		check("sending", LevelWarning, "everything is paused by ada until ", "resume --all")
		if _, err := q.Resume(t.Context(), Everything, Author{}); err != nil {
			t.Fatal(err)
		}
		held := settingsOf("mail.example.com")
		c := change("", "x")
		p, err := q.Provider(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		q.redis.Del(t.Context(), q.key("declared"))
		c.Expected, c.Provider, c.Reason, c.Hold, c.HoldMax = p.Version, held, "configuration", time.Minute, time.Hour
		c.Refused = &mail.Outcome{Class: mail.Configuration, Scope: mail.ScopeProvider, Cause: mail.Credentials, Code: 535}
		activateBy(t, q, c)
		check("sending", LevelWarning, "everything is held since ", "provider show")
	})
}
