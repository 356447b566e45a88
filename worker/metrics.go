package worker

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postroom/postroom/mail"
)

// metrics of attempts, of this process.
type metrics struct {
	// attempts: postroom_attempts_total{provider,class}. Alert on configuration, and on unknown growing.
	attempts map[mail.Class]prometheus.Counter
	// duration: postroom_attempt_duration_seconds{provider}, from rendering to the last reply.
	duration prometheus.Observer
	// latency: postroom_delivery_latency_seconds{kind}, from acceptance (or send_at, if later) to the provider's yes.
	latency map[mail.Kind]prometheus.Observer
}

func newMetrics(r prometheus.Registerer, providerKind string) *metrics {
	attempts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "postroom_attempts_total", Help: "Attempts to hand a message over, by what they came to.",
	}, []string{"provider", "class"})
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "postroom_attempt_duration_seconds", Help: "Time of one attempt.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
	}, []string{"provider"})
	latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "postroom_delivery_latency_seconds", Help: "Time from acceptance, or send_at if later, to delivery.",
		Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600},
	}, []string{"kind"})
	m := &metrics{
		attempts: make(map[mail.Class]prometheus.Counter), duration: duration.WithLabelValues(providerKind),
		latency: make(map[mail.Kind]prometheus.Observer),
	}
	for _, c := range mail.Classes() {
		m.attempts[c] = attempts.WithLabelValues(providerKind, c.String())
	}
	for _, k := range mail.Kinds() {
		m.latency[k] = latency.WithLabelValues(string(k))
	}
	if r != nil {
		r.MustRegister(attempts, duration, latency)
	}
	return m
}
