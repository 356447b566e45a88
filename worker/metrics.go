package worker

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// metrics of attempts, of this process.
type metrics struct {
	// attempts: postroom_attempts_total{provider,class}. Alert on configuration, and on unknown growing.
	attempts *prometheus.CounterVec
	// duration: postroom_attempt_duration_seconds{provider}, from rendering to the last reply.
	duration *prometheus.HistogramVec
	// latency: postroom_delivery_latency_seconds{kind}, from acceptance (or send_at, if later) to the provider's yes.
	latency map[mail.Kind]prometheus.Observer
}

func newMetrics(r prometheus.Registerer) *metrics {
	attempts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "postroom_attempts_total", Help: "Attempts to hand a message over, by what they came to (the class that decided, of all recipients).",
	}, []string{"provider", "class"})
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "postroom_attempt_duration_seconds", Help: "Time of one attempt, from rendering to the last reply.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
	}, []string{"provider"})
	latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "postroom_delivery_latency_seconds", Help: "Time from acceptance, or send_at if later, to delivery.",
		Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600},
	}, []string{"kind"})
	m := &metrics{attempts: attempts, duration: duration, latency: make(map[mail.Kind]prometheus.Observer)}
	for _, kind := range []provider.Kind{provider.KindSMTP, provider.KindMicrosoft365} {
		for _, c := range mail.Classes() {
			attempts.WithLabelValues(string(kind), c.String())
		}
		duration.WithLabelValues(string(kind))
	}
	for _, k := range mail.Kinds() {
		m.latency[k] = latency.WithLabelValues(string(k))
	}
	if r != nil {
		r.MustRegister(attempts, duration, latency)
	}
	return m
}
