package main

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/postroom/postroom/config"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/graph"
	"github.com/postroom/postroom/provider/oauth"
	"github.com/postroom/postroom/provider/smtp"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/throttle"
)

// newSender makes the sender that settings ask for, and what ends it.
func newSender(cfg *config.Config, settings *provider.Settings, log *slog.Logger) (provider.Sender, func() error, error) {
	guard, problems := provider.NewGuard(cfg.Network.Forbidden)
	if len(problems) > 0 {
		return nil, nil, fmt.Errorf("network.forbidden: %w", &mail.Invalid{Problems: problems})
	}
	if settings.Kind == provider.KindMicrosoft365 {
		tokens, err := oauth.ForMicrosoft365(&settings.Microsoft365, oauth.Options{Guard: guard, Logger: log})
		if err != nil {
			return nil, nil, err
		}
		return withTokens(tokens, func() (provider.Sender, error) {
			return graph.New(*settings, graph.Options{Tokens: tokens, Guard: guard})
		})
	}
	// The deadline of an attempt, seen from outside, comes after every time-out within it.
	o := smtp.Options{Guard: guard, Logger: log}
	if spare := o.Timeouts.Longest() - cfg.Worker.AttemptTimeout; spare >= 0 {
		o.Timeouts.Attempt = max(cfg.Worker.AttemptTimeout-finalTimeout-time.Minute, time.Minute)
	}
	if settings.SMTP.Auth.Method == provider.AuthOAuth2 {
		tokens, err := oauth.ForSMTP(&settings.SMTP, oauth.Options{Guard: guard, Logger: log})
		if err != nil {
			return nil, nil, err
		}
		o.Tokens = tokens
		return withTokens(tokens, func() (provider.Sender, error) { return smtp.New(*settings, o) })
	}
	sender, err := smtp.New(*settings, o)
	if err != nil {
		return nil, nil, err
	}
	return sender, sender.Close, nil
}

// withTokens makes a sender that ends together with its source of tokens.
func withTokens(tokens *oauth.Source, make func() (provider.Sender, error)) (provider.Sender, func() error, error) {
	sender, err := make()
	if err != nil {
		tokens.Close()
		return nil, nil, err
	}
	return sender, func() error {
		err := sender.Close()
		tokens.Close()
		return err
	}, nil
}

// finalTimeout is how long the reply to the final dot is awaited (RFC 5321, section 4.5.3.2.6).
const finalTimeout = 10 * time.Minute

// activeProvider is what the queue has to know of settings. Microsoft 365 binds each mailbox by itself; an SMTP account all that
// it sends for.
func activeProvider(settings *provider.Settings) (*queue.ActiveProvider, error) {
	shown, err := settings.Show()
	if err != nil {
		return nil, err
	}
	p := &queue.ActiveProvider{
		Senders: settings.AllowedSenders, Shown: shown,
		Kind: string(settings.Kind), Keying: queue.ByAccount, Account: settings.Account(),
		Sender: strings.ToLower(settings.Sender.Address), Concurrency: settings.Limits.Concurrency, Limits: windows(settings.Limits),
		AllConcurrency: settings.TenantLimits.Concurrency, AllLimits: windows(settings.TenantLimits.Limits()),
	}
	if settings.Kind == provider.KindMicrosoft365 {
		p.Keying, p.Account = queue.ByMailbox, ""
		p.Upload = &queue.Upload{RequestBytes: graph.OneRequestBytes, PartBytes: graph.RangeBytes, Always: settings.Microsoft365.VerifySends}
	}
	return p, nil
}

// windows gives the limits that count over a time, as the books are kept.
func windows(l provider.Limits) []throttle.Limit {
	var limits []throttle.Limit
	for _, w := range []throttle.Limit{
		{Name: throttle.Messages, Max: int64(l.MessagesPerMinute), Window: time.Minute},
		{Name: throttle.Requests, Max: int64(l.RequestsPer10m), Window: 10 * time.Minute},
		{Name: throttle.Recipients, Max: int64(l.RecipientsPerDay), Window: 24 * time.Hour},
		{Name: throttle.UploadBytes, Max: l.UploadBytesPer5m, Window: 5 * time.Minute},
	} {
		if w.Max > 0 {
			limits = append(limits, w)
		}
	}
	return limits
}
