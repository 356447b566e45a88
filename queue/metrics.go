package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/throttle"
)

// metrics of the queue; deploy/METRICS.md describes them. Each belongs to this process; sums over processes are right.
type metrics struct {
	accepted, finished, repairs, turns, scripts *prometheus.CounterVec
	stale                                       prometheus.Counter
	waits                                       *prometheus.HistogramVec
}

func newMetrics() *metrics {
	m := &metrics{
		accepted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postroom_messages_accepted_total", Help: "Messages accepted for delivery.",
		}, []string{"kind"}),
		finished: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postroom_messages_finished_total", Help: "Messages that ended, by how. One that is requeued ends again.",
		}, []string{"kind", "result"}),
		repairs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postroom_repairs_total", Help: "What was put right: attempt (ended for a worker that died, or past its deadline), turn (a unit of a dead worker), " +
				"task (a turn whose task was gone), staged (accepting that was not finished), failed_dropped (failed mail kept for its time), settlement (an outcome that Redis had taken, and lost in a fail-over); " +
				"and by the repair of keys in Redis that were lost or changed: entry (mail that nothing would have taken up), ring, index, counter, record.",
		}, []string{"what"}),
		stale: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "postroom_stale_entries_total", Help: "Entries of the backlog dropped as their message no longer waits, such as those of cancelled mail. They cost nothing.",
		}),
		turns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postroom_turns_total", Help: "Turns ended: idle (no mail left), over (their 10 s were up), held, limited (by a limit), version (other settings), " +
				"shrunk (less concurrency), stale (given away meanwhile), stopped (the process ends).",
		}, []string{"end"}),
		waits: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "postroom_limit_wait_seconds", Help: "Each time a limit was used up while mail waited: how long until it has room again.",
			Buckets: []float64{.1, 1, 5, 15, 60, 300, 1800, 7200, 43200},
		}, []string{"limit"}),
		scripts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postroom_redis_scripts_total", Help: "Calls of our Redis scripts.",
		}, []string{"script"}),
	}
	for _, k := range mail.Kinds() {
		m.accepted.WithLabelValues(string(k))
		for _, result := range []State{Delivered, Failed, Expired, Cancelled} {
			m.finished.WithLabelValues(string(k), string(result))
		}
	}
	for _, what := range []string{"attempt", "turn", "task", "staged", "failed_dropped", "settlement", "entry", "ring", "index", "counter", "record"} {
		m.repairs.WithLabelValues(what)
	}
	for _, end := range []string{"idle", "over", "held", "limited", "version", "shrunk", "stale", "stopped"} {
		m.turns.WithLabelValues(end)
	}
	for _, limit := range throttle.Names() {
		m.waits.WithLabelValues(string(limit))
	}
	for _, name := range scriptNames() {
		m.scripts.WithLabelValues(name)
	}
	return m
}

func (m *metrics) register(r prometheus.Registerer) {
	if r != nil {
		r.MustRegister(m.accepted, m.finished, m.repairs, m.stale, m.turns, m.waits, m.scripts)
	}
}

// Collector exports what belongs to the whole installation and is the same from every process: take the greatest of what processes say,
// never the sum. It reads Redis at each scrape, at a cost that does not grow with the backlog. While Redis is away there is
// postroom_redis_up alone.
func (q *Queue) Collector() prometheus.Collector { return collector{q} }

type collector struct{ q *Queue }

var (
	messagesDesc = prometheus.NewDesc("postroom_messages",
		"Messages of the installation: open (waiting or being sent) and failed. The same from every process.", []string{"kind", "state"}, nil)
	messagesMaxDesc = prometheus.NewDesc("postroom_messages_max",
		"Open messages beyond which new ones are refused (accept.backlog_max); 0: no bound.", nil, nil)
	failedDesc = prometheus.NewDesc("postroom_failed_messages",
		"Messages in the failed store, by the class of their last attempt. The same from every process.", []string{"class"}, nil)
	oldestDesc = prometheus.NewDesc("postroom_oldest_message_age_seconds",
		"Age of the longest waiting message that may go now, since it was accepted; 0 if there is none. The same from every process.",
		[]string{"kind"}, nil)
	contentDesc = prometheus.NewDesc("postroom_content_bytes",
		"Content (bodies and attachments) in Redis. The same from every process.", nil, nil)
	contentMaxDesc = prometheus.NewDesc("postroom_content_max_bytes",
		"Content beyond which new mail is refused (content.max_bytes).", nil, nil)
	workersDesc = prometheus.NewDesc("postroom_workers",
		"Processes that take part in sending. The same from every process.", nil, nil)
	unableDesc = prometheus.NewDesc("postroom_workers_unable",
		"Of these, the ones that can't load the settings of the active provider, and send nothing. The same from every process.", nil, nil)
	pausedDesc = prometheus.NewDesc("postroom_paused",
		"1 while somebody has paused everything. The same from every process.", nil, nil)
)

// Describe implements prometheus.Collector.
func (collector) Describe(out chan<- *prometheus.Desc) {
	for _, all := range [][]*prometheus.Desc{{messagesDesc, messagesMaxDesc, failedDesc, oldestDesc, contentDesc, contentMaxDesc,
		workersDesc, unableDesc, pausedDesc, healthyDesc, providerDesc}, mailboxDescs, redisDescs} {
		for _, d := range all {
			out <- d
		}
	}
}

// oldestLanes bounds what is looked at for postroom_oldest_message_age_seconds.
const oldestLanes = 100

// scrapeTime bounds how long a scrape waits for Redis.
const scrapeTime = 2 * time.Second

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	g := gauges{out}
	g.set(messagesMaxDesc, float64(c.q.options.BacklogMax))
	g.set(contentMaxDesc, float64(c.q.options.ContentMaxBytes))
	up := 1.0
	if err := c.collect(ctx, g); err != nil {
		up = 0
		c.q.away.failed(c.q.log, "metrics of the installation can't be read", err)
	} else {
		c.q.away.over(c.q.log)
	}
	g.set(redisUpDesc, up)
}

// gauges are where values of the installation go.
type gauges struct{ out chan<- prometheus.Metric }

func (g gauges) set(d *prometheus.Desc, v float64, labels ...string) {
	g.out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (c collector) collect(ctx context.Context, g gauges) error {
	began := time.Now()
	counts, err := c.q.Counts(ctx)
	if err != nil {
		return err
	}
	took := time.Since(began)
	heads, err := c.q.run(ctx, "oldest", oldestLanes).StringSlice()
	if err != nil {
		return fmt.Errorf("queue: oldest: %w", err)
	}
	s, err := c.q.state(ctx, "", c.q.options.MailboxMetrics)
	if err != nil {
		return err
	}
	p, err := c.q.Provider(ctx)
	if err != nil {
		return err
	}
	pause, err := c.q.PauseOfEverything(ctx) // also without a provider, when s is empty
	if err != nil {
		return err
	}
	server, err := c.q.server(ctx)
	if err != nil {
		return err
	}

	for i, k := range mail.Kinds() {
		g.set(messagesDesc, float64(counts.Open[k]), string(k), "open")
		g.set(messagesDesc, float64(counts.Failed[k]), string(k), "failed")
		age := 0.0
		if heads[i] != "" {
			age = max(0, s.now.Sub(acceptedAt(heads[i])).Seconds())
		}
		g.set(oldestDesc, age, string(k))
	}
	for _, class := range mail.Classes() {
		g.set(failedDesc, float64(counts.FailedByClass[class]), class.String())
	}
	g.set(contentDesc, float64(counts.ContentBytes))
	workers := workforce(s.workers)
	g.set(workersDesc, float64(workers.Running))
	g.set(unableDesc, float64(workers.Unable))
	g.set(pausedDesc, one(pause != nil))
	g.set(healthyDesc, map[HealthState]float64{Healthy: 1, Degraded: 0.5}[healthOf(p, counts, s).State])
	for _, kind := range providerKinds {
		g.set(providerDesc, one(kind == p.Kind), kind)
	}
	c.collectMailboxes(s, g)
	server.collect(g, took)
	return nil
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
