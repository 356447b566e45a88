package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Level says how bad a finding is.
type Level string

// The levels.
const (
	// LevelOK: nothing is wrong; what was found may still be worth knowing.
	LevelOK Level = "ok"
	// LevelWarning: something may go wrong, or nobody can tell.
	LevelWarning Level = "warning"
	// LevelFault: mail can be lost or sent twice, limits are not kept, or no mail goes.
	LevelFault Level = "fault"
)

// Finding is what one check came to.
type Finding struct {
	// Check names what was looked at, such as "persistence".
	Check string `json:"check"`
	Level Level  `json:"level"`
	// Found is what is the case, and what comes of it; Remedy what to do, "" if there is nothing.
	Found  string `json:"found"`
	Remedy string `json:"remedy"`
	// LosesMail says that what is accepted from here on can be lost, by the way that Redis is set: nobody should accept any.
	LosesMail bool `json:"-"`
}

// ServerOptions say which Redis DiagnoseServer looks at, and what to compare it with.
type ServerOptions struct {
	Client    redis.UniversalClient
	Namespace string
	// Sentinel says that Client asks Sentinels for the master.
	Sentinel bool
	// MayForget says that Redis may lose mail: what makes it so is a warning, and LosesMail is not set for it.
	MayForget bool
	// ContentMaxBytes is Options.ContentMaxBytes.
	ContentMaxBytes int64
	// Pings is how many are measured; at least 1.
	Pings int
	// Now is this machine's clock; nil for time.Now.
	Now func() time.Time
}

// DiagnoseServer looks at a Redis server, and changes nothing: whether it answers and how fast, what it is, whether it keeps what
// it is given, and whether its clock is that of this machine. What a server does not tell, as hosted ones do not, is a warning at
// most.
func DiagnoseServer(ctx context.Context, o ServerOptions) []Finding {
	if o.Now == nil {
		o.Now = time.Now
	}
	node, err := o.node(ctx)
	if err == nil {
		err = ping(ctx, node)
	}
	if err != nil {
		return []Finding{unanswered(err)}
	}
	s := &examined{ServerOptions: o, node: node, info: infoOf(ctx, node)}
	all := []Finding{s.identity(ctx), s.persistence(ctx), s.eviction(), s.memory(), s.latency(ctx), s.clock(ctx)}
	if o.MayForget {
		for i, f := range all {
			if f.LosesMail && f.Check != checkRedis {
				all[i].Level, all[i].LosesMail = LevelWarning, false
				all[i].Found += " (redis.may_forget allows it)"
				all[i].Remedy, _, _ = strings.Cut(f.Remedy, orForget)
			}
		}
	}
	return all
}

// Names of the checks of a server.
const (
	checkRedis       = "redis"
	checkPersistence = "persistence"
	checkEviction    = "eviction"
	checkMemory      = "memory"
	checkLatency     = "latency"
	checkClock       = "clock"
)

// examined is a Redis server that is looked at.
type examined struct {
	ServerOptions
	node *redis.Client
	info map[string]string // of INFO, all its sections together; empty if it is not told
}

// node gives the server that holds our keys.
func (o *ServerOptions) node(ctx context.Context) (*redis.Client, error) {
	switch c := o.Client.(type) {
	case *redis.Client:
		return c, nil
	case *redis.ClusterClient:
		return c.MasterForKey(ctx, "{"+o.Namespace+"}:")
	}
	return nil, fmt.Errorf("a client of an unknown kind")
}

// ping has the server answer. One that can't write to its disk says so instead, which persistence tells, too.
func ping(ctx context.Context, node *redis.Client) error {
	err := node.Ping(ctx).Err()
	if redis.HasErrorPrefix(err, "MISCONF") {
		return nil
	}
	return err
}

func unanswered(err error) Finding {
	f := Finding{Check: checkRedis, Level: LevelFault, Found: "Redis does not answer: " + oneLine(err.Error()),
		Remedy: "see whether it runs, and whether redis.url names it with the right user and password"}
	var refusal redis.Error
	switch {
	case redis.HasErrorPrefix(err, "LOADING"):
		f.Found, f.Remedy = "Redis is still loading its data", "wait until it is through"
	case errors.As(err, &refusal):
		f.Found, f.Remedy = "Redis refuses: "+oneLine(err.Error()), "see whether redis.url has the right user and password"
	}
	return f
}

func infoOf(ctx context.Context, node *redis.Client) map[string]string {
	info := map[string]string{}
	text, err := node.Info(ctx).Result()
	if err != nil {
		return info
	}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	return info
}

// identity tells what the server is.
func (s *examined) identity(ctx context.Context) Finding {
	f := Finding{Check: checkRedis, Level: LevelOK}
	version, mode, role := s.info["redis_version"], s.info["redis_mode"], s.info["role"]
	if version == "" {
		f.Level, f.Found = LevelWarning, "it answers; its version and role are not told"
		f.Remedy = "make sure that it is Redis 7 or later, and no replica; allow its user INFO to have that checked"
		return f
	}
	f.Found = "Redis " + version
	if name, own, ok := s.product(); ok {
		f.Found = name + " " + own + ", compatible with Redis " + version
	}
	if s.Sentinel {
		mode = "Sentinel"
	}
	if mode != "" {
		f.Found += ", " + mode
	}
	replicas := atoi(s.info["connected_slaves"])
	if role == "master" {
		f.Found += fmt.Sprintf(", master, replicas: %d", replicas)
	}
	major, _, _ := strings.Cut(version, ".")
	switch {
	case mode == "sentinel":
		f.Level, f.Found = LevelFault, "redis.url leads to a Sentinel, which keeps no mail"
		f.Remedy = "write redis://sentinel:26379/0?master_name=NAME&addr=other:26379"
	case role == "slave":
		f.Level, f.LosesMail = LevelFault, true
		f.Found += ", a replica: it takes no mail, or loses what it takes at the next synchronisation"
		f.Remedy = "have redis.url lead to the master, or to the Sentinels with ?master_name=NAME"
	case atoi(major) < 7:
		f.Level, f.Found = LevelFault, f.Found+": older than 7, and our scripts can't take mail out of a Redis that is full"
		f.Remedy = "upgrade Redis to 7 or later"
	case s.info["cluster_enabled"] == "1":
		s.cluster(ctx, &f)
	case s.Sentinel && replicas == 0:
		f.Level, f.Found = LevelWarning, f.Found+": there is nothing to fail over to"
		f.Remedy = "start a replica, or see why it does not follow the master"
	}
	return f
}

// product gives the name and version of what is compatible with Redis and something else.
func (s *examined) product() (name, version string, ok bool) {
	for _, p := range [][2]string{{"Valkey", "valkey_version"}, {"Dragonfly", "dragonfly_version"}} {
		if v := s.info[p[1]]; v != "" {
			return p[0], v, true
		}
	}
	return "", "", false
}

// cluster adds what is to be known of a Cluster.
func (s *examined) cluster(ctx context.Context, f *Finding) {
	text, err := s.node.ClusterInfo(ctx).Result()
	if err != nil {
		return
	}
	_, alone := s.Client.(*redis.Client)
	switch {
	case !strings.Contains(text, "cluster_state:ok"):
		f.Level, f.Found = LevelFault, f.Found+": the Cluster is down"
		f.Remedy = "see redis-cli cluster info, and have every slot served"
	case alone && !strings.Contains(text, "cluster_size:1\r"):
		f.Level, f.Found = LevelFault, f.Found+": redis.url leads to one of its nodes alone, and keys on others are not reached"
		f.Remedy = "give redis.url in the form for a Cluster, if the example configuration has one, or use a Redis that is none"
	}
}

// setting gives a setting of the server; false if it does not tell.
func (s *examined) setting(ctx context.Context, name string) (string, bool) {
	m, err := s.node.ConfigGet(ctx, name).Result()
	value, ok := m[name]
	return value, err == nil && ok
}

// orForget is the other remedy of what loses mail.
const orForget = "; or, to try Postroom out, redis.may_forget: true in its configuration"

// persistence tells what a crash of the server would cost.
func (s *examined) persistence(ctx context.Context) Finding {
	f := Finding{Check: checkPersistence, Level: LevelOK}
	aof, told := s.info["aof_enabled"]
	save, saveTold := s.setting(ctx, "save")
	const useAOF = "set appendonly yes and appendfsync everysec in redis.conf, or by CONFIG SET and CONFIG REWRITE"
	switch {
	case s.info["loading"] == "1":
		f.Level, f.Found, f.Remedy = LevelFault, "Redis is still loading its data", "wait until it is through"
	case !told:
		f.Level, f.Found = LevelWarning, "Redis does not tell whether it keeps what it is given"
		f.Remedy = "make sure that it writes an AOF (appendonly yes); allow its user INFO to have that checked"
	case aof == "1":
		s.appendOnly(ctx, &f, save)
	case saveTold && save == "":
		f.Level, f.LosesMail = LevelFault, true
		f.Found = "neither an AOF nor snapshots: if Redis dies, all mail is lost"
		f.Remedy = useAOF + orForget
	case s.info["rdb_last_bgsave_status"] == "err":
		f.Level, f.Found = LevelFault, "no AOF, and the last snapshot could not be written: as long as that is so Redis takes no mail, or loses it when it dies"
		f.Remedy = "see Redis's log, and whether its disk is full; then " + useAOF
	case !saveTold:
		f.Level, f.Found = LevelWarning, "no AOF; whether there are snapshots is not told: if Redis dies, all mail since the last one is lost, or all there is"
		f.Remedy = "have Redis write an AOF"
	default:
		f.Level, f.Remedy = LevelWarning, useAOF
		f.Found = fmt.Sprintf("no AOF, but snapshots %s: if Redis dies, all mail since the last one is lost, and what was sent since then is sent again (now: %s changes)",
			savePoints(save), orUnknown(s.info["rdb_changes_since_last_save"]))
	}
	return f
}

// appendOnly judges a server that writes an AOF. A write that failed is a fault and loses nothing: Redis takes no others then.
func (s *examined) appendOnly(ctx context.Context, f *Finding, save string) {
	sync, told := s.setting(ctx, "appendfsync")
	const disk = "see Redis's log, and whether its disk is full"
	switch {
	case s.info["aof_last_write_status"] == "err":
		f.Level, f.Found, f.Remedy = LevelFault, "the AOF could not be written: as long as that is so Redis takes no mail", disk
	case save != "" && s.info["rdb_last_bgsave_status"] == "err":
		f.Level, f.Found, f.Remedy = LevelFault, "the last snapshot could not be written: as long as that is so Redis takes no mail, unless it is told to go on (stop-writes-on-bgsave-error no)", disk
	case s.info["aof_last_bgrewrite_status"] == "err":
		f.Level, f.Found, f.Remedy = LevelWarning, "the AOF could not be rewritten, and grows", disk+", and memory overcommitted (vm.overcommit_memory)"
	case !told:
		f.Found = "an AOF; how often it is synced is not told"
	case sync == "always":
		f.Found = "an AOF, synced with each write"
	case sync == "no":
		f.Level, f.Found = LevelWarning, "an AOF that is synced when the system likes: a power cut loses about the last half minute"
		f.Remedy = "set appendfsync everysec"
	default:
		f.Found = "an AOF, synced each second: a power cut loses the last second at most"
	}
}

// savePoints says in words what "3600 1 300 100" means.
func savePoints(save string) string {
	var points []string
	for p := range slices.Chunk(strings.Fields(save), 2) {
		if len(p) == 2 {
			points = append(points, fmt.Sprintf("every %s s with %s or more changes", p[0], p[1]))
		}
	}
	return strings.Join(points, ", ")
}

// eviction tells whether Redis deletes what it was given to make room. Without maxmemory it deletes nothing yet, but that can be set
// at any moment. Keys of ours that expire, and go first with volatile-*, are none that hold mail: the idempotency keys, the books
// of limits, and marks of who does something at the moment.
func (s *examined) eviction() Finding {
	f := Finding{Check: checkEviction, Level: LevelOK}
	policy := s.info["maxmemory_policy"]
	const remedy = "set maxmemory-policy noeviction; a Redis that is shared with a cache needs one of its own for mail"
	switch {
	case policy == "":
		f.Level, f.Found = LevelWarning, "Redis does not tell what it does when it is full"
		f.Remedy = "make sure that its maxmemory-policy is noeviction; allow its user INFO to have that checked"
	case strings.HasPrefix(policy, "volatile-"):
		f.Level, f.Remedy = LevelFault, remedy
		f.Found = "maxmemory-policy " + policy + ": when Redis is full it deletes keys that expire: no mail, but the books of limits and the idempotency keys, so that limits are exceeded and repeated requests accepted twice"
	case policy != "noeviction":
		f.Level, f.LosesMail, f.Remedy = LevelFault, true, remedy
		f.Found = "maxmemory-policy " + policy + ": when Redis is full it deletes mail"
	default:
		f.Found = "noeviction: a full Redis refuses new mail, and deletes none"
	}
	return f
}

// From these shares of the memory on there is a warning, and a fault.
const (
	memoryTight = 0.75
	memoryFull  = 0.95
)

func (s *examined) memory() Finding {
	f := Finding{Check: checkMemory, Level: LevelOK}
	number := func(name string) int64 {
		n, _ := strconv.ParseInt(s.info[name], 10, 64)
		return n
	}
	// As Redis counts it: its buffers for replicas and the AOF make nothing full.
	used := number("used_memory") - number("mem_not_counted_for_evict")
	most, machine := number("maxmemory"), number("total_system_memory")
	if used <= 0 {
		f.Level, f.Found = LevelWarning, "Redis does not tell how much memory it uses"
		f.Remedy = "make sure that it has enough, and a maxmemory; allow its user INFO to have that checked"
		return f
	}
	bound := most
	if bound == 0 {
		bound = machine
	}
	if bound == 0 {
		f.Found = mebibytes(used) + " used"
	} else {
		f.Found = fmt.Sprintf("%s of %s used", mebibytes(used), mebibytes(bound))
	}
	share := 0.0
	if bound > 0 {
		share = float64(used) / float64(bound)
	}
	const room = "let mail go out, raise maxmemory, or lower content.max_bytes and records.delivered_max"
	switch {
	case share >= memoryFull:
		f.Level, f.Found, f.Remedy = LevelFault, f.Found+": new mail is refused, or soon will be", room
	case most == 0:
		f.Level, f.Found = LevelWarning, f.Found+", no maxmemory: when the machine's memory is used up, the system kills Redis, and no producer was told to wait"
		f.Remedy = "set maxmemory to some 70 % of the machine's memory (with maxmemory-policy noeviction)"
	case share >= memoryTight:
		f.Level, f.Found, f.Remedy = LevelWarning, f.Found+": Redis is soon full", room
	case float64(s.ContentMaxBytes) > memoryFull*float64(most):
		f.Level = LevelWarning
		f.Found += fmt.Sprintf(", and content.max_bytes is %s: Redis is full before that is reached, and then takes nothing at all", mebibytes(s.ContentMaxBytes))
		f.Remedy = "raise maxmemory, or lower content.max_bytes to some half of it: each message takes up to 600 bytes beside its content"
	}
	return f
}

// A Redis that takes longer bounds how many mails a second go: each costs a script or two.
const (
	slowMedian = 10 * time.Millisecond
	slowMost   = 250 * time.Millisecond
	// pingPatience bounds the measurement in all.
	pingPatience = 2 * time.Second
)

func (s *examined) latency(ctx context.Context) Finding {
	var took []time.Duration
	begun := time.Now()
	for len(took) < max(s.Pings, 1) && time.Since(begun) < pingPatience {
		sent := time.Now()
		if err := ping(ctx, s.node); err != nil {
			return unanswered(err)
		}
		took = append(took, time.Since(sent))
	}
	return latencyOf(took)
}

// latencyOf judges round trips.
func latencyOf(took []time.Duration) Finding {
	slices.Sort(took)
	median, most := took[len(took)/2], took[len(took)-1]
	f := Finding{Check: checkLatency, Level: LevelOK, Found: fmt.Sprintf("a round trip takes %s, at most %s", brief(median), brief(most))}
	if median > slowMedian || most > slowMost {
		f.Level, f.Found = LevelWarning, f.Found+": each mail costs one or two"
		f.Remedy = "put Postroom and Redis near each other; see redis-cli --latency and SLOWLOG GET, and whether the machine swaps"
	}
	return f
}

// clockApart is how far this machine's clock may be from that of Redis.
const clockApart = time.Second

// clock compares the clocks. Limits, holds and leases go by that of Redis alone.
func (s *examined) clock(ctx context.Context) Finding {
	f := Finding{Check: checkClock, Level: LevelOK}
	sent, before := time.Now(), s.Now()
	there, err := s.node.Time(ctx).Result()
	trip := time.Since(sent)
	if err != nil {
		f.Level, f.Found, f.Remedy = LevelWarning, "Redis does not tell its time", "allow its user TIME, without which nothing can be sent"
		return f
	}
	// Redis looked at its clock at some moment of the round trip: only what is beyond it is known.
	apart := before.Add(trip / 2).Sub(there)
	if apart.Abs()-trip/2 <= clockApart {
		f.Found = "this machine's clock is that of Redis, within a second"
		return f
	}
	way := "ahead of"
	if apart < 0 {
		way = "behind"
	}
	f.Level, f.Found = LevelWarning, fmt.Sprintf("this machine's clock is %s %s that of Redis: Date headers, send_at, expires_at and what is foretold are off by that much; limits are not", brief(apart.Abs()), way)
	f.Remedy = "have both machines' clocks kept by NTP"
	return f
}

// brief rounds a time for people.
func brief(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}
