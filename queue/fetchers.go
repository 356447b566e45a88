package queue

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hibiken/asynq"
)

// fetchers are asynq's servers: one for turns given out for alerts, one for the others. They run while the process can work turns
// off. One that was stopped can't be started again, so each start makes new ones.
type fetchers struct {
	consumer *Consumer
	base     context.Context

	mu      sync.Mutex
	closed  bool
	running []*asynq.Server
	stopped []*asynq.Server
}

// start has turns fetched, if they are not.
func (f *fetchers) start() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.running != nil {
		return nil
	}
	f.shutDownStopped()
	c := f.consumer
	for _, s := range []struct {
		queue       string
		concurrency int
		interval    time.Duration
	}{
		{c.alerts, c.options.AlertConcurrency, 2 * c.options.CheckInterval}, // only what its dispatcher has no hand free for
		{c.mail, c.options.Concurrency, c.options.CheckInterval},
	} {
		server := asynq.NewServerFromRedisClient(c.queue.redis, asynq.Config{
			Concurrency:       s.concurrency,
			Queues:            map[string]int{s.queue: 1},
			BaseContext:       func() context.Context { return f.base },
			TaskCheckInterval: s.interval,
			RetryDelayFunc:    func(int, error, *asynq.Task) time.Duration { return time.Second },
			IsFailure:         func(error) bool { return false },
			ShutdownTimeout:   time.Second, // by then our own turns have ended, or been given up
			Logger:            asynqLog{c.log},
			LogLevel:          asynq.WarnLevel,
		})
		if err := server.Start(asynq.HandlerFunc(c.handle)); err != nil {
			for _, started := range f.running {
				started.Shutdown()
			}
			f.running = nil
			return fmt.Errorf("queue: start the fetcher of turns: %w", err)
		}
		f.running = append(f.running, server)
	}
	return nil
}

// pause has no turns fetched until the next start. Those that run go on.
func (f *fetchers) pause() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.running {
		s.Stop()
	}
	f.stopped, f.running = append(f.stopped, f.running...), nil
}

// stop has no turns fetched any more.
func (f *fetchers) stop() {
	f.mu.Lock()
	f.closed = true // first: a start that waits must find it
	f.mu.Unlock()
	f.pause()
}

// shutDown ends what was stopped. A turn that has not ended within a second goes on without asynq, which gives its task to
// somebody who finds that the turn is another's.
func (f *fetchers) shutDown() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shutDownStopped()
}

func (f *fetchers) shutDownStopped() {
	for _, s := range f.stopped {
		s.Shutdown()
	}
	f.stopped = nil
}
