package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/queue/queuetest"
)

// lines gives what is logged, a line each; none is lost as long as fewer than its length wait.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- strings.TrimSpace(string(b))
	return len(b), nil
}

// until reads lines until they are enough, and gives them.
func (l lines) until(t *testing.T, enough func(all []string) bool) []string {
	t.Helper()
	var all []string
	timeout := time.After(20 * time.Second)
	for !enough(all) {
		select {
		case line := <-l:
			all = append(all, line)
		case <-timeout:
			t.Fatalf("the log has\n%s", strings.Join(all, "\n"))
		}
	}
	return all
}

// with counts lines that have a text.
func with(all []string, text string) int {
	n := 0
	for _, line := range all {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

func TestAnOutageOfRedisIsALineAtEachEnd(t *testing.T) {
	r := queuetest.Start(t)
	o := *r.Client.Options()
	o.MaxRetries, o.DialerRetries = -1, 1
	client := redis.NewClient(&o)
	t.Cleanup(func() { _ = client.Close() })
	q := open(t, client)
	log := make(lines, 10_000)
	q.log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	version := activate(t, q, 2)
	c := q.NewConsumer(ConsumerOptions{Load: loads(version), CheckInterval: 5 * time.Millisecond, SweepInterval: 60 * time.Millisecond,
		Handle: func(_ context.Context, turn *Turn) { turn.Next(nil) }})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	defer func() {
		cancel()
		<-ended
	}()
	log.until(t, func(all []string) bool { return with(all, "sending with the active") > 0 })
	const lost, back = "Redis does not answer", "Redis answers again"
	r.Kill()
	// Several parts of the process meet it, each more than once.
	all := log.until(t, func(all []string) bool {
		return with(all, "could not be handed out") > 0 && with(all, "could not be compared") > 1
	})
	r.Restart()
	all = append(all, log.until(t, func(all []string) bool { return with(all, back) > 0 })...)
	told := 0
	for _, line := range all {
		if strings.Contains(line, "level=DEBUG") {
			continue
		}
		told++
		if !strings.Contains(line, lost) && !strings.Contains(line, back) {
			t.Errorf("beside the outage: %s", line)
		}
		if strings.Contains(line, lost) && (!strings.Contains(line, "level=WARN") || !strings.Contains(line, "error=")) {
			t.Errorf("it does not say why: %s", line)
		}
	}
	if told != 2 || with(all, lost) != 1 {
		t.Errorf("%d lines:\n%s", told, strings.Join(all, "\n"))
	}
}

func TestWhatRedisRefusesIsNoOutage(t *testing.T) {
	log := make(lines, 100)
	var o outage
	l := slog.New(slog.NewTextHandler(log, nil))
	for range 2 {
		o.failed(l, "a thing failed", errors.New("OOM command not allowed"), "key", "k")
	}
	o.over(l)
	for range 2 { // two outages: each has its lines
		o.failed(l, "a thing failed", io.EOF)
		o.failed(l, "another failed", io.EOF)
		o.over(l)
		o.over(l)
	}
	close(log)
	for range 2 {
		line := <-log
		if !strings.Contains(line, "a thing failed") || !strings.Contains(line, "OOM") || !strings.Contains(line, "key=k") {
			t.Errorf("it has %q", line)
		}
	}
	var rest []string
	for line := range log {
		rest = append(rest, line)
	}
	if len(rest) != 4 || with(rest, "does not answer") != 2 || with(rest, "answers again") != 2 || with(rest, "another") != 0 {
		t.Errorf("of outages it has %q", rest)
	}
	for _, err := range []error{io.EOF, context.DeadlineExceeded, redis.ErrPoolTimeout} {
		if !Away(fmt.Errorf("queue: sweep: %w", err)) {
			t.Errorf("%v is told as an answer", err)
		}
	}
	if Away(errors.New("queue: next: unexpected answer")) || Away(redis.Nil) {
		t.Error("an answer is told as none")
	}
}
