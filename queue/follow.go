package queue

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// using is a version of the provider's settings that this process has loaded. ctx ends when attempts that began for it are to be
// handed back, unless they have passed their point of no return: when other settings have become active, or the process stops.
type using struct {
	version string
	since   time.Time // when the version became active
	loaded  Loaded
	ctx     context.Context
	end     context.CancelFunc
}

// settings are those that a process sends with. While now is nil nothing begins.
type settings struct {
	look chan struct{} // filled when somebody is to see which are active
	told chan struct{} // filled when the others are to be told what state gives

	mu      sync.Mutex
	now     *using
	tried   *string       // the version that was loaded last, or could not be; nil: none yet
	faulty  string        // why the active settings can't be loaded; "" if they are, or are being loaded
	decided chan struct{} // closed when loading has come to an end; nil if nothing is being loaded
}

// current gives the version that attempts begin for; nil for none.
func (s *settings) current() *using {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// outdated says that a version is no longer the active one: no attempt begins until the active one is loaded. nil, that none was
// loaded, is no news.
func (s *settings) outdated(u *using) {
	if u == nil {
		return
	}
	s.mu.Lock()
	if s.now == u {
		s.now, s.decided = nil, make(chan struct{})
		u.end()
	}
	s.mu.Unlock()
	select {
	case s.look <- struct{}{}:
	default:
	}
}

// behind reports whether a version is another one than was loaded last, or could not be.
func (s *settings) behind(version string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tried != nil && *s.tried != version
}

// decide says what loading has come to; nil and a reason if nothing can begin.
func (s *settings) decide(u *using, faulty string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now != nil && s.now != u {
		s.now.end()
	}
	s.now, s.faulty = u, faulty
	select {
	case s.told <- struct{}{}:
	default:
	}
	if s.decided != nil {
		close(s.decided)
		s.decided = nil
	}
}

// fault gives why the active settings could not be loaded last; "" if they could.
func (s *settings) fault() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faulty
}

// await waits while settings are being loaded; false if nothing can begin.
func (s *settings) await(ctx context.Context) bool {
	s.mu.Lock()
	now, decided := s.now, s.decided
	s.mu.Unlock()
	if now == nil && decided != nil {
		select {
		case <-decided:
		case <-ctx.Done():
		}
		now = s.current()
	}
	return now != nil
}

// state is what the process tells others of what it sends with, as lease.lua keeps it.
func (s *settings) state() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	version := ""
	if s.now != nil {
		version = s.now.version
	}
	host, _ := os.Hostname()
	return strings.Join([]string{version, oneWord(host), oneWord(s.faulty)}, "\t")
}

func oneWord(s string) string { return strings.ReplaceAll(oneLine(s), "\t", " ") }

// followPause is how long after a failure the active settings are loaded again.
const followPause = 5 * time.Second

// follow loads the active settings whenever others have become so, until ctx ends. Turns are fetched only while they are loaded: a
// process that can't begin anything must not take turns from those that can.
func (c *Consumer) follow(ctx context.Context, f *fetchers) error {
	s := &c.settings
	// A message that is lost is made up for by the lease's next renewal.
	changes := c.queue.redis.Subscribe(ctx, c.queue.key("provider"))
	defer func() { _ = changes.Close() }()
	changed := changes.Channel()
	for {
		again := time.Duration(0)
		p, err := c.queue.Provider(ctx)
		switch u := s.current(); {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			c.queue.away.failed(c.log, "the active provider settings can't be read", err)
			again = time.Second
		case u != nil && u.version == p.Version:
		default:
			if again, err = c.load(ctx, p, f); err != nil {
				return err
			}
		}
		var timer <-chan time.Time
		if again > 0 {
			timer = time.After(again)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.look:
		case <-changed:
		case <-timer:
		}
	}
}

// load loads settings and says when to try again; 0 if that is not necessary. An error is one of asynq.
func (c *Consumer) load(ctx context.Context, p *Provider, f *fetchers) (again time.Duration, err error) {
	s := &c.settings
	if u := s.current(); u != nil {
		s.outdated(u)
	}
	s.mu.Lock()
	s.tried = &p.Version
	s.mu.Unlock()
	var loaded Loaded
	if c.options.Load != nil {
		loaded, err = c.options.Load(ctx, p)
	}
	switch {
	case ctx.Err() != nil:
		return 0, nil
	case err != nil:
		f.pause()
		level := slog.LevelError
		if s.fault() == err.Error() {
			level = slog.LevelDebug // it has been said
		}
		s.decide(nil, err.Error())
		c.log.Log(ctx, level, "the active provider settings can't be loaded: this process sends nothing until they can", "version", p.Version, "error", err)
		return followPause, nil
	case p.Version == "":
		f.pause()
		s.decide(nil, "")
		c.log.Info("no provider is active: mail is accepted and waits")
		return 0, nil
	}
	u := &using{version: p.Version, since: p.Since, loaded: loaded}
	u.ctx, u.end = context.WithCancel(c.stopping)
	s.decide(u, "")
	c.log.Info("sending with the active provider settings", "version", p.Version, "kind", p.Kind)
	if err := f.start(); err != nil {
		return 0, fmt.Errorf("queue: load: %w", err)
	}
	return 0, nil
}
