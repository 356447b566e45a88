package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/postroom/postroom/config"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/worker"
)

// providers makes senders of the active settings, be they a configuration file's or an administrator's.
type providers struct {
	config *config.Config
	queue  *queue.Queue
	keys   *provider.Keyring
	log    *slog.Logger
}

func newProviders(cfg *config.Config, q *queue.Queue, log *slog.Logger) (*providers, error) {
	keys, err := provider.NewKeyring(cfg.Secrets.Keys)
	if err != nil {
		return nil, fmt.Errorf("secrets.keys: %w", err)
	}
	return &providers{config: cfg, queue: q, keys: keys, log: log}, nil
}

// declare makes the file's settings the active ones, if the file has any.
func (p *providers) declare(ctx context.Context) error {
	settings := p.config.Provider
	if settings == nil {
		return nil
	}
	host, _ := os.Hostname()
	if settings.Kind == provider.KindNone {
		_, err := p.queue.DeclareProvider(ctx, nil, "", "", host)
		return err
	}
	now, err := p.queue.Provider(ctx)
	if err != nil {
		return err
	}
	salt := now.Salt
	if salt == "" {
		salt = queue.NewProviderSalt()
	}
	fingerprint, err := settings.Fingerprint(salt)
	if err != nil {
		return err
	}
	active, err := activeProvider(settings)
	if err != nil {
		return err
	}
	_, err = p.queue.DeclareProvider(ctx, active, salt, fingerprint, host)
	return err
}

// keepDeclared says, until ctx ends, that the file has settings; should somebody have set others while no such process ran, the
// file's become the active ones again.
func (p *providers) keepDeclared(ctx context.Context) {
	if p.config.Provider == nil {
		return
	}
	tick := time.NewTicker(queue.DeclareInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, err := p.queue.Provider(ctx)
		switch {
		case err != nil:
		case now.Source == queue.FromFile:
			err = p.queue.KeepDeclared(ctx)
		default:
			err = p.declare(ctx)
		}
		if err != nil && ctx.Err() == nil {
			p.log.Warn("the settings of the configuration file could not be declared; trying again", "error", err)
		}
	}
}

// What keeps a process from sending with a file's settings.
var (
	errNotInFile   = errors.New("the active settings are in the configuration file of another process, and this one's has no section provider: give it the same file, or take the section out of all and use postroom provider set")
	errOtherInFile = errors.New("the configuration file of another process has other settings of the provider, which are the active ones: give all processes the same file, and restart those that have another")
)

// settings gives the active settings.
func (p *providers) settings(active *queue.Provider) (*provider.Settings, error) {
	if active.Source != queue.FromFile {
		return p.keys.Open(active.Sealed, active.ID)
	}
	settings := p.config.Provider
	if settings == nil {
		return nil, errNotInFile
	}
	fingerprint, err := settings.Fingerprint(active.Salt)
	if err != nil {
		return nil, err
	}
	if fingerprint != active.Fingerprint {
		return nil, errOtherInFile
	}
	return settings, nil
}

// load is a worker's Options.Load.
func (p *providers) load(_ context.Context, active *queue.Provider) (*worker.Active, error) {
	settings, err := p.settings(active)
	if err != nil {
		return nil, err
	}
	sender, end, err := newSender(p.config, settings, p.log)
	if err != nil {
		return nil, fmt.Errorf("provider: %w", err)
	}
	return &worker.Active{Sender: sender, Provider: string(settings.Kind), From: settings.Sender, End: end}, nil
}
