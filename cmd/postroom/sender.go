package main

import (
	"context"
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

// parts are what a sender, or a check, is made of beside the settings.
type parts struct {
	tokens *oauth.Source // nil: none are needed
	smtp   smtp.Options
	graph  graph.Options
}

func newParts(cfg *config.Config, settings *provider.Settings, log *slog.Logger) (*parts, error) {
	guard, problems := provider.NewGuard(cfg.Network.Forbidden)
	if len(problems) > 0 {
		return nil, fmt.Errorf("network.forbidden: %w", &mail.Invalid{Problems: problems})
	}
	p := &parts{smtp: smtp.Options{Guard: guard, Logger: log}, graph: graph.Options{Guard: guard}}
	// The deadline of an attempt, seen from outside, comes after every time-out within it.
	if spare := p.smtp.Timeouts.Longest() - cfg.Worker.AttemptTimeout; spare >= 0 {
		p.smtp.Timeouts.Attempt = max(cfg.Worker.AttemptTimeout-finalTimeout-time.Minute, time.Minute)
	}
	var err error
	switch {
	case settings.Kind == provider.KindMicrosoft365:
		p.tokens, err = oauth.ForMicrosoft365(&settings.Microsoft365, oauth.Options{Guard: guard, Logger: log})
	case settings.SMTP.Auth.Method == provider.AuthOAuth2:
		p.tokens, err = oauth.ForSMTP(&settings.SMTP, oauth.Options{Guard: guard, Logger: log})
	}
	if err != nil {
		return nil, err
	}
	if p.tokens != nil { // a nil *oauth.Source is no nil provider.Tokens
		p.smtp.Tokens, p.graph.Tokens = p.tokens, p.tokens
	}
	return p, nil
}

func (p *parts) close() {
	if p.tokens != nil {
		p.tokens.Close()
	}
}

// newSender makes the sender that settings ask for, and what ends it.
func newSender(cfg *config.Config, settings *provider.Settings, log *slog.Logger) (provider.Sender, func() error, error) {
	p, err := newParts(cfg, settings, log)
	if err != nil {
		return nil, nil, err
	}
	var sender provider.Sender
	if settings.Kind == provider.KindMicrosoft365 {
		sender, err = graph.New(*settings, p.graph)
	} else {
		sender, err = smtp.New(*settings, p.smtp)
	}
	if err != nil {
		p.close()
		return nil, nil, err
	}
	return sender, func() error {
		err := sender.Close()
		p.close()
		return err
	}, nil
}

// check tries settings, in steps, and sends nothing.
func (p *providers) check(ctx context.Context, settings *provider.Settings) ([]provider.Step, error) {
	with, err := newParts(p.config, settings, p.log)
	if err != nil {
		return nil, err
	}
	defer with.close()
	if settings.Kind == provider.KindMicrosoft365 {
		return graph.Check(ctx, *settings, with.graph)
	}
	return smtp.Check(ctx, *settings, with.smtp)
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
		Senders: settings.AllowedSenders, Shown: shown, Place: settings.Place(),
		Kind: string(settings.Kind), Keying: queue.ByAccount, Account: settings.Account(),
		Sender: strings.ToLower(settings.Sender.Address), Concurrency: settings.Limits.Concurrency, Limits: windows(settings.Limits),
		AllConcurrency: settings.TenantLimits.Concurrency, AllLimits: windows(settings.TenantLimits.Limits()),
	}
	p.Message = queue.MessageBounds{Recipients: settings.Limits.RecipientsPerMessage, Bytes: settings.Limits.MessageBytes}
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
