package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/queue"
)

// Names of the checks of the provider.
const (
	checkKey      = "key"
	checkProvider = "provider"
	checkLimits   = "limits"
)

// verifyPatience bounds how long the provider is tried.
const verifyPatience = 30 * time.Second

// How much is asked of the provider.
type effort int

const (
	declared effort = iota // nothing: the file's settings, if it has any, have just been made the active ones
	compared               // nothing; whether the file's settings are the active ones is found out, which takes a moment
	tried                  // the settings are tried
)

// findings judge the active settings, or those of the file that a start would make the active ones.
func (p *providers) findings(ctx context.Context, how effort) []queue.Finding {
	active, err := p.queue.Provider(ctx)
	if err != nil {
		return []queue.Finding{unusable(err)}
	}
	f, settings := p.judge(active, how)
	if settings == nil {
		return []queue.Finding{p.keyFinding(active), f}
	}
	if f.Level != queue.LevelFault && how == tried {
		p.try(ctx, settings, &f)
	}
	return []queue.Finding{p.keyFinding(active), f, p.limitsFinding(settings)}
}

// judge tells which settings mail goes by, and gives them if this process has them.
func (p *providers) judge(active *queue.Provider, how effort) (queue.Finding, *provider.Settings) {
	f := queue.Finding{Check: checkProvider, Level: queue.LevelOK}
	own := p.config.Provider
	switch {
	case own != nil && own.Kind == provider.KindNone || own == nil && active.Version == "":
		f.Level, f.Found = queue.LevelWarning, "none: mail is accepted, and waits"
		f.Remedy = "choose one: the section provider of the configuration, or postroom provider set"
		return f, nil
	case own != nil && how == declared:
		f.Found = providerText(own) + ", of the file"
		return f, own
	case own != nil && active.Source != queue.FromFile:
		f.Found = providerText(own) + ", of the file; it becomes the active one when postroom serve starts with it"
		if active.Version != "" {
			f.Level, f.Found = queue.LevelWarning, f.Found+", in the place of what an administrator has set"
			f.Remedy = "take the section provider out of the file, if that is not meant"
		}
		return f, own
	}
	settings, err := p.settings(active)
	switch {
	case errors.Is(err, errOtherInFile):
		f.Found = providerText(own) + ", of the file; it becomes the active one when postroom serve starts with it"
		if active.Declared {
			f.Level, f.Found = queue.LevelWarning, f.Found+", and another process, whose file has other settings, sends nothing any more"
			f.Remedy = "give all processes the same file, and restart those that have another"
		}
		return f, own
	case err != nil:
		f.Level, f.Found = queue.LevelFault, active.Kind+", whose settings can't be loaded: nothing is sent from here"
		f.Remedy = oneLine(err.Error())
		return f, nil
	}
	from := ", of the file"
	if active.Source == queue.FromAPI {
		from = ", set by " + cmp.Or(active.By, "an administrator")
	}
	f.Found = providerText(settings) + from
	return f, settings
}

// providerText names what mail goes by.
func providerText(s *provider.Settings) string {
	if s.Kind == provider.KindSMTP {
		return fmt.Sprintf("smtp by %s:%d", s.SMTP.Host, s.SMTP.Port)
	}
	return string(s.Kind)
}

// try has the settings tried as "postroom provider verify" does.
func (p *providers) try(ctx context.Context, settings *provider.Settings, f *queue.Finding) {
	ctx, cancel := context.WithTimeout(ctx, verifyPatience)
	defer cancel()
	steps, err := p.check(ctx, settings)
	if err != nil {
		f.Level, f.Found, f.Remedy = queue.LevelFault, f.Found+": "+oneLine(err.Error()), "correct the settings"
		return
	}
	var passed []string
	for _, s := range steps {
		if s.State == provider.StepPassed {
			passed = append(passed, s.Name)
		}
	}
	if len(passed) > 0 {
		f.Found += "; passed: " + strings.Join(passed, ", ")
	}
	failed := provider.Failed(steps)
	if failed == nil {
		return
	}
	f.Level = queue.LevelFault
	if failed.Undecided() {
		f.Level = queue.LevelWarning
	}
	f.Found += "; " + failed.Name + " failed"
	if failed.Found != "" {
		f.Found += " (" + oneLine(failed.Found) + ")"
	}
	if failed.Outcome == nil {
		f.Remedy = "see postroom provider verify"
		return
	}
	advice, blame := provider.Advise(*failed.Outcome), settings.Blame(*failed.Outcome)
	f.Found += ": " + strings.TrimSuffix(oneLine(advice.Happened), ".")
	f.Remedy = cmp.Or(blame.Remedy, advice.Remedy)
	if blame.Field != "" {
		f.Remedy = settingName(blame.Field) + ": " + f.Remedy
	}
}

// keyFinding judges the keys that credentials in Redis are sealed with.
func (p *providers) keyFinding(active *queue.Provider) queue.Finding {
	f := queue.Finding{Check: checkKey, Level: queue.LevelOK}
	n := len(p.config.Secrets.Keys)
	for _, key := range p.config.Secrets.Keys {
		if key.Reveal() == exampleKey {
			f.Level, f.Found = queue.LevelFault, "secrets.keys has the key of the example, which everybody knows: who reads Redis reads the provider's credentials"
			f.Remedy = "make another with postroom key new, put it first, run postroom provider reseal, and take the old one out; change the credentials"
			return f
		}
	}
	if active.Source != queue.FromAPI || active.Sealed == "" {
		f.Found = fmt.Sprintf("no credentials are in Redis; keys: %d", n)
		if n == 0 && p.config.Provider == nil {
			f.Found = "no credentials are in Redis, and there is no key: postroom provider set will refuse a password (postroom key new)"
		}
		return f
	}
	switch _, err := p.keys.Open(active.Sealed, active.ID); {
	case err != nil:
		f.Level, f.Found = queue.LevelFault, "the provider's settings in Redis can't be opened: nothing is sent from here"
		f.Remedy = oneLine(err.Error())
	case !p.keys.Current(active.Sealed):
		f.Level, f.Found = queue.LevelWarning, "the provider's settings in Redis open, with a key that is not the first of secrets.keys"
		f.Remedy = "run postroom provider reseal; then the old key can be taken out"
	default:
		f.Found = fmt.Sprintf("the provider's settings in Redis open, and need no other key; keys: %d", n)
	}
	return f
}

// limitsFinding compares the settings' limits with what their provider is known to allow, and with what this process can use.
func (p *providers) limitsFinding(settings *provider.Settings) queue.Finding {
	f := queue.Finding{Check: checkLimits, Level: queue.LevelOK, Found: "within what is known of the provider"}
	known := provider.Settings{Kind: settings.Kind, SMTP: provider.SMTPSettings{Host: settings.SMTP.Host}}
	known.Defaults()
	var looser []string
	for _, l := range []struct {
		name      string
		set, most int64
	}{
		{"messages_per_minute", int64(settings.Limits.MessagesPerMinute), int64(known.Limits.MessagesPerMinute)},
		{"requests_per_10m", int64(settings.Limits.RequestsPer10m), int64(known.Limits.RequestsPer10m)},
		{"recipients_per_day", int64(settings.Limits.RecipientsPerDay), int64(known.Limits.RecipientsPerDay)},
		{"upload_bytes_per_5m", settings.Limits.UploadBytesPer5m, known.Limits.UploadBytesPer5m},
		{"concurrency", int64(settings.Limits.Concurrency), int64(known.Limits.Concurrency)},
	} {
		// Of servers of which nothing is known the concurrency has a default, and nobody's limit.
		bound := l.most > 0 && (l.name != "concurrency" || known.Limits.MessagesPerMinute > 0)
		if bound && (l.set < 1 || l.set > l.most) {
			looser = append(looser, fmt.Sprintf("%s (%s, known: %d)", l.name, allowed(l.set), l.most))
		}
	}
	w := p.config.Worker
	switch size := settings.Limits.MessageBytes; {
	case len(looser) > 0:
		f.Level, f.Found = queue.LevelWarning, "looser than Microsoft documents: "+strings.Join(looser, ", ")+": the provider will refuse mail, and each refusal silences the mailbox"
		f.Remedy = "leave the limit out of provider.limits, unless Microsoft has given this tenant another"
	case settings.Limits.Concurrency > w.Concurrency:
		f.Level, f.Found = queue.LevelWarning, fmt.Sprintf("worker.concurrency %d is less than provider.limits.concurrency %d: one process can't use it", w.Concurrency, settings.Limits.Concurrency)
		f.Remedy = "raise worker.concurrency, or run more processes"
	case size > 0 && p.config.Accept.MessageBytes > size:
		f.Level, f.Found = queue.LevelWarning, fmt.Sprintf("accept.message_bytes %d is more than the provider's %d: what lies between is refused all the same, or fails if it is handed in while no provider is active", p.config.Accept.MessageBytes, size)
		f.Remedy = "lower accept.message_bytes"
	case known.Limits.MessagesPerMinute == 0 && len(windows(settings.Limits)) == 0:
		f.Found = fmt.Sprintf("none but %d messages at once; if the server has limits, set provider.limits", settings.Limits.Concurrency)
	}
	return f
}

// allowed gives a limit as it is set.
func allowed(n int64) string {
	if n < 1 {
		return "no limit"
	}
	return fmt.Sprint(n)
}
