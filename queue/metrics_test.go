package queue

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue/queuetest"
)

// installation gathers what the collector exports, by name and values of labels in the order of their names, such as
// "postroom_messages report open".
func installation(t *testing.T, q *Queue) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(q.Collector())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := []string{strings.TrimPrefix(f.GetName(), "postroom_")}
			for _, l := range m.GetLabel() {
				name = append(name, l.GetValue())
			}
			all[strings.Join(name, " ")] = m.GetGauge().GetValue()
		}
	}
	return all
}

// tells fails the test where the metrics are not as wanted; -1 stands for one that is absent.
func tells(t *testing.T, when string, q *Queue, want map[string]float64) {
	t.Helper()
	got := installation(t, q)
	for name, value := range want {
		if is, there := got[name]; there != (value >= 0) || there && is != value {
			t.Errorf("%s: %s is %v (there: %v), want %v", when, name, is, there, value)
		}
	}
}

func TestMetricsTellOfTheInstallation(t *testing.T) {
	r := queuetest.Start(t)
	q := open(t, r.Client)
	q.options.BacklogMax, q.options.ContentMaxBytes = 5000, 1<<30
	tells(t, "an empty installation without a provider", q, map[string]float64{
		"messages report open": 0, "messages_max": 5000, "content_max_bytes": 1 << 30, "oldest_message_age_seconds alert": 0, "workers": 0, "workers_unable": 0,
		"paused": 0, "provider_healthy": 1, "provider_info none": 1, "provider_info smtp": 0, "redis_up": 1,
		"redis_persistent aof": 1, "redis_persistent rdb": 0, "redis_evicts": 0, "redis_memory_max_bytes": 0, "redis_replicas": 0,
	})
	if _, err := q.Pause(t.Context(), Everything, time.Hour, "a test", Author{Name: "ada"}); err != nil {
		t.Fatal(err)
	}
	tells(t, "paused without a provider", q, map[string]float64{"paused": 1})
	version := activate(t, q, 3)
	for worker, state := range map[string]string{"w1": version + "\tpost1\t", "w2": version + "\tpost2\tno such key"} {
		if err := q.run(t.Context(), "lease", worker, "new", state).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := q.EnqueueBatch(t.Context(), batch(mail.Report, 30)); err != nil {
		t.Fatal(err)
	}
	tells(t, "a batch", q, map[string]float64{"messages report open": 30, "messages report failed": 0, "mailbox_backlog mail.example.com:587": 30, "workers": 2, "workers_unable": 1,
		"paused": 1, "mailbox_held mail.example.com:587 paused": 1, "provider_healthy": 0.5, "provider_info smtp": 1, "mailbox_drain_seconds mail.example.com:587": -1})
	if wait := installation(t, q)["mailbox_wait_seconds mail.example.com:587"]; wait < 3500 || wait > 3600 {
		t.Errorf("a mailbox that is paused for an hour waits for %v s", wait)
	}
	// A worker that died, and nobody is left who sweeps: it does not count.
	if err := r.Client.HSet(t.Context(), q.key("workers"), "w1", time.Now().Add(-leaseTime-time.Second).UnixMilli()).Err(); err != nil {
		t.Fatal(err)
	}
	tells(t, "a dead worker", q, map[string]float64{"workers": 1, "workers_unable": 1, "provider_healthy": 0})
	for name, value := range map[string]string{"maxmemory": "200mb", "maxmemory-policy": "allkeys-lru", "save": "3600 1", "appendonly": "no"} {
		if err := r.Client.ConfigSet(t.Context(), name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	tells(t, "Redis is configured", q, map[string]float64{"redis_persistent aof": 0, "redis_evicts": 1, "redis_memory_max_bytes": 200 << 20, "redis_persistent rdb": 1})
	for _, name := range []string{"redis_memory_bytes", "redis_round_trip_seconds", "oldest_message_age_seconds report", "content_bytes"} {
		if installation(t, q)[name] <= 0 {
			t.Errorf("%s is not above 0", name)
		}
	}
	r.Kill()
	got := installation(t, q)
	if left := slices.Sorted(maps.Keys(got)); !slices.Equal(left, []string{"content_max_bytes", "messages_max", "redis_up"}) || got["redis_up"] != 0 {
		t.Errorf("without Redis: %v", got)
	}
}

func TestARedisThatTellsNothingIsUp(t *testing.T) {
	onEachRedis(t, func(t *testing.T, q *Queue) {
		tells(t, "any Redis", q, map[string]float64{"redis_up": 1, "workers": 0})
	})
}

func TestMailboxesBeyondTheBoundShareOneLabel(t *testing.T) {
	r := queuetest.Start(t)
	q := open(t, r.Client)
	q.options.MailboxMetrics = 2
	if _, err := declare(t, q, ActiveProvider{Kind: "microsoft365", Keying: ByMailbox, Account: "own@example.com", Concurrency: 1}, "salt", "print"); err != nil {
		t.Fatal(err)
	}
	sitDown(t, q, "", nil)
	for i, sender := range []string{"a@example.com", "b@example.com", "c@example.com", "d@example.com"} {
		b := batch(mail.Subscription, 10-i)
		b.Message.From.Address = sender
		if _, err := q.EnqueueBatch(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	tells(t, "four mailboxes", q, map[string]float64{"mailbox_backlog a@example.com": 10, "mailbox_backlog b@example.com": 9, "mailbox_backlog c@example.com": -1, "mailbox_wait_seconds a@example.com": 0,
		"mailbox_backlog other": 15, "mailbox_held other configuration": 0})
	if _, err := q.Pause(t.Context(), "d@example.com", time.Hour, "a test", Author{Name: "ada"}); err != nil {
		t.Fatal(err)
	}
	tells(t, "one of the others is paused", q, map[string]float64{"mailbox_held other paused": 1, "mailbox_held a@example.com paused": 0})
}
