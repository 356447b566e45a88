package queue

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/throttle"
)

// metrics of the queue. Each belongs to this process; sums over processes are right.
type metrics struct {
	// accepted: postroom_messages_accepted_total{kind}.
	accepted *prometheus.CounterVec
	// finished: postroom_messages_finished_total{kind,result}; result: delivered, failed, expired, cancelled.
	finished *prometheus.CounterVec
	// repairs: postroom_repairs_total{what}: attempt (of a dead worker or past its deadline), turn (a unit taken back from a
	// dead worker), task (a turn whose task was gone), staged (a batch that was never committed), failed_dropped (a failed
	// message kept for as long as it is to be kept). Alert when attempt or task keep growing.
	repairs *prometheus.CounterVec
	// stale: postroom_stale_entries_total: entries of the backlog that their record no longer backs. They cost nothing.
	stale prometheus.Counter
	// turns: postroom_turns_total{end}: idle (no work), over (its time was up), held, limited, version, shrunk, stale, stopped.
	turns *prometheus.CounterVec
	// waits: postroom_limit_wait_seconds{limit}: each time a limit was used up while mail waited, how long until it has room
	// again. limit: messages, requests, recipients, upload_bytes.
	waits *prometheus.HistogramVec
	// scripts: postroom_redis_scripts_total{script}: calls of each of our scripts.
	scripts *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{
		accepted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postroom_messages_accepted_total", Help: "Messages accepted for delivery.",
		}, []string{"kind"}),
		finished: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postroom_messages_finished_total", Help: "Messages that ended, by how.",
		}, []string{"kind", "result"}),
		repairs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postroom_repairs_total", Help: "What the sweep put right after a process died or lost Redis.",
		}, []string{"what"}),
		stale: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "postroom_stale_entries_total", Help: "Backlog entries dropped because the message's record no longer backs them.",
		}),
		turns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postroom_turns_total", Help: "Turns ended, by why.",
		}, []string{"end"}),
		waits: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "postroom_limit_wait_seconds", Help: "Time until a limit that was used up while mail waited has room again.",
			Buckets: []float64{.1, 1, 5, 15, 60, 300, 1800, 7200, 43200},
		}, []string{"limit"}),
		scripts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postroom_redis_scripts_total", Help: "Redis scripts called, by name.",
		}, []string{"script"}),
	}
	for _, k := range mail.Kinds() {
		m.accepted.WithLabelValues(string(k))
		for _, result := range []State{Delivered, Failed, Expired, Cancelled} {
			m.finished.WithLabelValues(string(k), string(result))
		}
	}
	for _, what := range []string{"attempt", "turn", "task", "staged", "failed_dropped"} {
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

// Collector exports what belongs to the whole installation and is the same from every process:
// postroom_messages{kind,state} (state: open, failed), postroom_failed_messages{class}, postroom_content_bytes and
// postroom_oldest_message_age_seconds{kind} (of mail that may go now; 0 if there is none; alert when alerts are older than
// minutes); and for each mailbox what mailboxMetrics lists. It reads Redis at each scrape, at a cost that does not grow with
// the backlog; while Redis is away these are absent.
func (q *Queue) Collector() prometheus.Collector { return collector{q} }

type collector struct{ q *Queue }

var (
	messagesDesc = prometheus.NewDesc("postroom_messages",
		"Messages in the installation: open (waiting or being sent) and failed. The same from every process.", []string{"kind", "state"}, nil)
	failedDesc = prometheus.NewDesc("postroom_failed_messages",
		"Messages in the failed store, by the class of their last attempt. The same from every process.", []string{"class"}, nil)
	oldestDesc = prometheus.NewDesc("postroom_oldest_message_age_seconds",
		"Age of the longest waiting message that may go now, since it was accepted. The same from every process.", []string{"kind"}, nil)
	contentDesc = prometheus.NewDesc("postroom_content_bytes",
		"Content (bodies and attachments) in Redis. The same from every process.", nil, nil)
)

// Describe implements prometheus.Collector.
func (collector) Describe(out chan<- *prometheus.Desc) {
	out <- messagesDesc
	out <- failedDesc
	out <- contentDesc
	out <- oldestDesc
	for _, d := range mailboxDescs {
		out <- d
	}
}

// oldestLanes bounds what is looked at for postroom_oldest_message_age_seconds.
const oldestLanes = 100

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := contextForScrape()
	defer cancel()
	counts, err := c.q.Counts(ctx)
	if err != nil {
		c.q.log.Warn("metrics of the installation can't be read", "error", err)
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, k := range mail.Kinds() {
		gauge(messagesDesc, float64(counts.Open[k]), string(k), "open")
		gauge(messagesDesc, float64(counts.Failed[k]), string(k), "failed")
	}
	for _, class := range mail.Classes() {
		gauge(failedDesc, float64(counts.FailedByClass[class]), class.String())
	}
	gauge(contentDesc, float64(counts.ContentBytes))
	heads, err := c.q.run(ctx, "oldest", oldestLanes).StringSlice()
	if err != nil || len(heads) != len(mail.Kinds()) {
		c.q.log.Warn("the age of the oldest message can't be read", "error", err)
		return
	}
	for i, k := range mail.Kinds() {
		age := 0.0
		if heads[i] != "" {
			age = max(0, time.Since(acceptedAt(heads[i])).Seconds())
		}
		gauge(oldestDesc, age, string(k))
	}
	s, err := c.q.state(ctx, "")
	if err != nil {
		c.q.log.Warn("metrics of mailboxes can't be read", "error", err)
		return
	}
	c.collectMailboxes(s, gauge)
	c.collectProvider(ctx, counts, s, gauge)
}

func contextForScrape() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 2*time.Second)
}
