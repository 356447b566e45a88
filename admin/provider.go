package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/queue"
)

// Providers changes and tries the provider's settings. All fields are needed. They are used by many goroutines at once.
type Providers struct {
	// Keys seal the settings.
	Keys *provider.Keyring
	// Settings gives the active ones with their secrets.
	Settings func(*queue.Provider) (*provider.Settings, error)
	// Active is what the queue has to know of settings.
	Active func(*provider.Settings) (*queue.ActiveProvider, error)
	// Check tries settings, and sends nothing.
	Check func(context.Context, *provider.Settings) ([]provider.Step, error)
	// Host is this machine's name, for test mails.
	Host string
}

const (
	// checkPatience bounds a check, and activationPatience how long a change waits for attempts of the former settings.
	checkPatience      = 30 * time.Second
	activationPatience = 30 * time.Second
)

// tries bounds how often settings are saved or tried, by one administrator and by all of them, so that nobody finds out with them
// what answers on a network. A save that is not tried counts too: mail that waits tries it.
var tries = queue.Ration{Name: "provider", Window: time.Minute, Each: 10, All: 30}

// What requests about the provider can meet.
var (
	withProvider = append(slices.Clip(always), readOnlyProvider, providerChanged)
	withSettings = append(slices.Clip(withProvider), tooManyTries, malformedJSON, incompleteBody, bodyTooSlow, bodyTooLarge, busy, wrongMediaType, invalidSettings, noKey)
	withTry      = append(slices.Clip(always), malformedJSON, incompleteBody, bodyTooSlow, bodyTooLarge, busy, wrongMediaType, tooManyTries, noProvider, unreadableSettings)
)

func (h *handler) registerProvider() {
	const path = "/v1/provider"
	op := h.operation(Operator, http.MethodGet, path, "getProvider", "The provider: its settings without secrets, and how it does", always)
	huma.Register(h.api, op, h.getProvider)

	op = h.operation(Admin, http.MethodPut, path, "setProvider", "Choose or change the provider", withSettings)
	op.Description = "The settings become the active ones for every worker at once: no attempt begins with the former ones any more, whose " +
		"credentials are deleted. The answer comes when no attempt of theirs is left, or after 30 seconds. A secret that is left out is kept, " +
		"as long as it goes to the same server. They are tried first; if that fails they become active all the same, and mail waits until they work; but for a refusal for now, which tells nothing of them. " +
		"At most 10 times a minute, together with the other requests that try settings."
	huma.Register(h.api, op, h.setProvider)
	h.takesBy(path, http.MethodPut, reflect.TypeFor[provider.Settings]())

	op = h.operation(Admin, http.MethodDelete, path, "clearProvider", "Leave no provider active", withProvider)
	op.Description = "All settings are deleted, credentials with them. Mail is accepted, and waits until a provider is chosen."
	huma.Register(h.api, op, h.clearProvider)

	op = h.operation(Admin, http.MethodPost, path+"/verify", "verifyProvider", "Connect and log in, without sending anything", append(slices.Clip(withTry), invalidSettings))
	op.Description = "Shows each step with its time, up to the one that fails. At most 10 times a minute, together with the other requests that try settings."
	huma.Register(h.api, op, h.verifyProvider)
	h.takes(op.Path, reflect.TypeFor[VerifyRequest]())

	op = h.operation(Admin, http.MethodPost, path+"/test", "testProvider", "Send a test mail, and wait for what becomes of it", withTry)
	op.Description = "It goes first, within all limits. If it is not delivered within 30 seconds it is cancelled. At most 10 times a minute, together with the other requests that try settings."
	huma.Register(h.api, op, h.testProvider)
	h.takes(op.Path, reflect.TypeFor[TestRequest]())

	op = h.operation(Admin, http.MethodPost, path+"/reseal", "resealProvider", "Seal the settings with the first of the configured keys",
		append(slices.Clip(always), readOnlyProvider, providerChanged, noProvider, unreadableSettings, noKey))
	op.Description = "After a new key was put in front of secrets.keys of every process; then the former one can be taken out."
	huma.Register(h.api, op, h.resealProvider)
}

type providerOutput struct{ Body Provider }

func (h *handler) getProvider(ctx context.Context, _ *struct{}) (*providerOutput, error) {
	p, err := h.provider(ctx)
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	return &providerOutput{*p}, nil
}

// provider describes the active settings.
func (h *handler) provider(ctx context.Context) (*Provider, error) {
	active, err := h.queue.Provider(ctx)
	if err != nil {
		return nil, err
	}
	health, err := h.queue.Health(ctx)
	if err != nil {
		return nil, err
	}
	p := &Provider{Kind: active.Kind, Version: active.Version, Source: string(active.Source), ReadOnly: active.Declared, By: active.By,
		Since: utc(active.Since), Open: health.Open}
	with := adviser{since: active.Since}
	if active.Version != "" {
		shown, err := provider.ParseShown(active.Shown)
		if err != nil {
			return nil, err
		}
		with.settings, p.Settings, p.Secrets = &shown.Settings, &shown.Settings, shown.Secrets
	}
	p.Health = healthOf(active, health, with)
	return p, nil
}

// ownSender is the provider's own, for what names none; the zero Address if there is none.
func (h *handler) ownSender(ctx context.Context) (mail.Address, error) {
	active, err := h.queue.Provider(ctx)
	if err != nil || active.Version == "" {
		return mail.Address{}, err
	}
	shown, err := provider.ParseShown(active.Shown)
	if err != nil {
		return mail.Address{}, err
	}
	return shown.Settings.Sender, nil
}

type setProviderInput struct {
	original
	Verify bool `query:"verify" default:"true" doc:"Whether the settings are tried before they become active."`
}

type providerChangedOutput struct{ Body ProviderChanged }

func (h *handler) setProvider(ctx context.Context, in *setProviderInput) (*providerChangedOutput, error) {
	given := provider.Settings{}
	if err := h.read(&in.original, &given); err != nil {
		return nil, err
	}
	active, err := h.changeable(ctx)
	if err != nil {
		return nil, err
	}
	given.Defaults()
	former := h.former(active)
	if problems := provider.Check(&given, former); len(problems) > 0 {
		return nil, invalidSettings.invalid("Nothing was changed. Correct what errors names.", problems, mostInvalid)
	}
	settings := given.Used()
	if settings.Kind == provider.KindNone {
		return h.clear(ctx, active)
	}
	change := queue.ProviderChange{ID: queue.NewProviderID(), Expected: active.Version}
	same := former != nil && settings.Same(former)
	if same {
		change.ID = active.ID
	}
	if change.Sealed, err = h.providers.Keys.Seal(&settings, change.ID); err != nil {
		return nil, h.refusedSettings(ctx, err)
	}
	if err := h.take(ctx); err != nil {
		return nil, err
	}
	if change.Provider, err = h.providers.Active(&settings); err != nil {
		return nil, h.refused(ctx, err)
	}
	change.Entry = h.entry(ctx, "provider.set", string(settings.Kind), describe(&settings))
	if former != nil {
		change.Former = active.Sealed
	}
	out := ProviderChanged{Result: "saved_not_tried"}
	if in.Verify {
		steps, err := h.check(ctx, &settings)
		if err != nil {
			return nil, h.refused(ctx, err)
		}
		out.Result, out.Steps = "saved", stepsOf(&settings, steps)
		if failed := provider.Failed(steps); failed != nil {
			if failed.Outcome.Cause == mail.TargetForbidden {
				return nil, forbiddenTarget(&settings, *failed.Outcome)
			}
			out.Result = "saved_not_valid"
			change.Entry.Detail += ", which did not work"
			reaches := true // beyond the one message that would have met it
			if failed.Undecided() {
				out.Result = "saved_undecided"
				change.Entry.Detail = describe(&settings) + ", which could not be tried to the end"
				reaches = failed.Outcome.Scope == mail.ScopeMailbox || failed.Outcome.Scope == mail.ScopeProvider
			}
			if reaches && !same { // of the same settings attempts know more
				refused := *failed.Outcome
				refused.Scope = mail.ScopeProvider // all mail is held
				change.Refused = &refused
			}
		}
	}
	changed, err := h.activate(ctx, active, change, out)
	if err != nil && in.Verify {
		// They were tried all the same.
		_ = h.queue.Note(context.WithoutCancel(ctx), h.entry(ctx, "provider.verify", string(settings.Kind), "settings that were not saved: "+describe(&settings)))
	}
	return changed, err
}

// changeable gives the active settings, if they can be changed here.
func (h *handler) changeable(ctx context.Context) (*queue.Provider, error) {
	if h.providers == nil {
		return nil, readOnlyProvider.problem("This process can't change it.")
	}
	active, err := h.queue.Provider(ctx)
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	if active.Declared {
		return nil, readOnlyProvider.problem("Change the section provider there, and restart those processes. Without that section, a minute after the last of them has stopped, it can be changed here.")
	}
	return active, nil
}

// former gives the active settings with their secrets; nil if there are none, or if they can't be opened: then secrets have to be
// given anew.
func (h *handler) former(active *queue.Provider) *provider.Settings {
	if active.Version == "" || active.Source != queue.FromAPI {
		return nil
	}
	settings, err := h.providers.Settings(active)
	if err != nil {
		h.log.Warn("the active provider settings can't be opened: their secrets have to be given again", "error", err)
		return nil
	}
	settings.Defaults()
	return settings
}

// describe says where settings lead, for the audit.
func describe(s *provider.Settings) string {
	if s.Kind == provider.KindSMTP {
		return fmt.Sprintf("%s port %d, security %s", s.SMTP.Host, s.SMTP.Port, s.SMTP.Security)
	}
	return "tenant " + s.Microsoft365.TenantID + ", app " + s.Microsoft365.ClientID
}

func (h *handler) entry(ctx context.Context, action, target, detail string) queue.AuditEntry {
	who := authorOf(ctx)
	return queue.AuditEntry{By: who.Name, From: who.From, Action: action, Target: target, Detail: detail}
}

// take counts a try, or says when there may be another.
func (h *handler) take(ctx context.Context) error {
	wait, err := h.queue.Take(ctx, tries, authorOf(ctx).Name)
	if err != nil {
		return h.refused(ctx, err)
	}
	if wait > 0 {
		wait = wait.Truncate(time.Second) + time.Second
		return tooManyTries.after(wait, fmt.Sprintf("Nothing was changed. There may be %d a minute, and %d of all administrators together: come back in %s.",
			tries.Each, tries.All, wait))
	}
	return nil
}

func forbiddenTarget(s *provider.Settings, o mail.Outcome) *Problem {
	b := s.Blame(o)
	return invalidSettings.invalid("Nothing was changed.", []mail.Problem{{Field: b.Field, Reason: "leads where network.forbidden of the configuration allows no connection. " + b.Remedy}}, 1)
}

// refusedSettings is refused for settings that can't be sealed or opened.
func (h *handler) refusedSettings(ctx context.Context, err error) error {
	var unknown *provider.UnknownKeyError
	switch {
	case errors.Is(err, provider.ErrNoKey):
		return noKey.problem(`Nothing was changed. Make one with "postroom key new", put it into secrets.keys of every process (POSTROOM_SECRETS_KEYS), and start them again.`)
	case errors.As(err, &unknown):
		return unreadableSettings.problem("They are sealed with the key " + unknown.ID + ", which is not in secrets.keys of this process: put it there, or give the settings anew.")
	case errors.Is(err, provider.ErrDamaged), errors.Is(err, provider.ErrNewerFormat):
		return unreadableSettings.problem("Give the settings anew. What is stored is damaged, or was written by a newer version.")
	case errors.Is(err, queue.ErrProviderDeclared):
		return readOnlyProvider.problem("Nothing was changed. Change the section provider there.")
	case errors.Is(err, queue.ErrProviderChanged):
		return providerChanged.problem("Nothing was changed. Look at what is active now, and repeat the request if it still holds.")
	}
	return h.refused(ctx, err)
}

// refusedHold is how long everything is held at first, and at most, by settings that did not work when they were tried; the same as
// the worker's.
var refusedHold = map[string]struct{ first, longest time.Duration }{
	"configuration": {15 * time.Second, 10 * time.Minute},
	"throttled":     {15 * time.Second, 15 * time.Minute},
	"unreachable":   {time.Second, time.Minute},
}

// activate makes a change and waits until nothing of the former settings is left.
func (h *handler) activate(ctx context.Context, former *queue.Provider, change queue.ProviderChange, out ProviderChanged) (*providerChangedOutput, error) {
	if change.Refused != nil {
		change.Reason = "unreachable"
		switch change.Refused.Class {
		case mail.Configuration, mail.Throttled:
			change.Reason = change.Refused.Class.String()
		}
		change.Hold, change.HoldMax = refusedHold[change.Reason].first, refusedHold[change.Reason].longest
	}
	version, err := h.queue.ActivateProvider(ctx, change)
	if err != nil {
		return nil, h.refusedSettings(ctx, err)
	}
	// What follows is no part of the change, and is worth an answer even if it fails.
	if version != former.Version {
		patience, cancel := context.WithTimeout(ctx, activationPatience)
		defer cancel()
		if out.Underway, err = h.queue.Underway(patience); err != nil {
			h.log.Warn("it can't be told how many attempts of the former settings are under way", "error", err)
			out.Underway = -1
		}
	} else if out.Result == "saved" {
		if err := h.release(ctx, former, false); err != nil {
			h.log.Warn("what is held could not be let go: it lets go when an attempt succeeds", "error", err)
		}
	}
	h.log.Info("the provider's settings have changed", "kind", change.Entry.Target, "version", version, "by", change.Entry.By, "result", out.Result, "underway", out.Underway)
	out.Provider = Provider{Kind: cmp.Or(change.Entry.Target, queue.NoProvider), Version: version}
	if p, err := h.provider(ctx); err != nil {
		h.log.Warn("the provider can't be described", "error", err)
	} else {
		out.Provider = *p
	}
	out.Summary = changedSummary(&out)
	return &providerChangedOutput{out}, nil
}

type clearProviderInput struct {
	Version string `query:"version" maxLength:"64" doc:"The version that is to be cleared; if another is active nothing is. Left out: whichever is."`
}

func (h *handler) clearProvider(ctx context.Context, in *clearProviderInput) (*providerChangedOutput, error) {
	active, err := h.changeable(ctx)
	if err != nil {
		return nil, err
	}
	if in.Version != "" && in.Version != active.Version {
		return nil, h.refusedSettings(ctx, queue.ErrProviderChanged)
	}
	return h.clear(ctx, active)
}

func (h *handler) clear(ctx context.Context, active *queue.Provider) (*providerChangedOutput, error) {
	return h.activate(ctx, active, queue.ProviderChange{ID: queue.NewProviderID(), Expected: active.Version,
		Entry: h.entry(ctx, "provider.clear", active.Kind, "")}, ProviderChanged{Result: "saved_not_tried"})
}
