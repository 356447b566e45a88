package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/queue"
)

type tryInput struct{ original }

type verifyOutput struct{ Body Verification }

func (h *handler) verifyProvider(ctx context.Context, in *tryInput) (*verifyOutput, error) {
	body := VerifyRequest{}
	if err := h.read(&in.original, &body); err != nil {
		return nil, err
	}
	active, err := h.tryable(ctx)
	if err != nil {
		return nil, err
	}
	settings, what := body.Settings, "settings that are not active: "
	if settings == nil {
		what = "the active settings: "
		if settings, err = h.activeSettings(ctx, active); err != nil {
			return nil, err
		}
	} else {
		settings.Defaults()
		if settings.Kind == provider.KindNone {
			return nil, noProvider.problem("With kind none there is nothing to try.")
		}
		if problems := provider.Check(settings, h.former(active)); len(problems) > 0 {
			return nil, invalidSettings.invalid("Nothing was tried. Correct what errors names.", problems, mostInvalid)
		}
	}
	if err := h.take(ctx); err != nil {
		return nil, err
	}
	if err := h.queue.Note(ctx, h.entry(ctx, "provider.verify", string(settings.Kind), what+describe(settings))); err != nil {
		return nil, h.refused(ctx, err)
	}
	steps, err := h.check(ctx, settings)
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	failed := provider.Failed(steps)
	if failed == nil && body.Settings == nil {
		// What was held for everybody has been seen to work.
		if err := h.release(ctx, active, false); err != nil {
			return nil, err
		}
	}
	v := Verification{Valid: failed == nil, Summary: "The settings work, as far as that can be known without sending.", Steps: stepsOf(settings, steps)}
	if failed != nil {
		v.Undecided = failed.Undecided()
		v.Summary = "The settings do not work: step " + failed.Name + " failed. "
		if v.Undecided {
			v.Summary = "Whether the settings work is not known yet: at step " + failed.Name + " the provider put us off. "
		}
		v.Summary += faultOf(settings, *failed.Outcome).Happened
	}
	return &verifyOutput{v}, nil
}

// tryable gives the active settings, if this process can try any.
func (h *handler) tryable(ctx context.Context) (*queue.Provider, error) {
	if h.providers == nil {
		return nil, unreadableSettings.problem("This process can't try any.")
	}
	active, err := h.queue.Provider(ctx)
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	return active, nil
}

func (h *handler) activeSettings(ctx context.Context, active *queue.Provider) (*provider.Settings, error) {
	if active.Version == "" {
		return nil, noProvider.problem("Choose one with PUT /v1/provider.")
	}
	settings, err := h.providers.Settings(active)
	if err == nil {
		return settings, nil
	}
	if active.Source == queue.FromFile {
		return nil, unreadableSettings.problem("They are in the configuration file of another process, and this one's has no section provider, or another: ask there, or give all the same file.")
	}
	return nil, h.refusedSettings(ctx, err)
}

func (h *handler) check(ctx context.Context, s *provider.Settings) ([]provider.Step, error) {
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	return h.providers.Check(ctx, s)
}

// release ends what holds all mail, or that of the provider's own sender, but for what the provider has asked for; with try one
// attempt is to tell whether that was right.
func (h *handler) release(ctx context.Context, active *queue.Provider, try bool) error {
	held := []string{queue.Everything}
	if active.Account != "" {
		held = append(held, active.Account)
	} else if try {
		held = append(held, active.Sender)
	}
	for _, key := range held {
		if err := h.queue.Release(ctx, key, try); err != nil {
			return h.refused(ctx, err)
		}
	}
	return nil
}

func stepsOf(s *provider.Settings, steps []provider.Step) []Step {
	out := make([]Step, len(steps))
	for i, step := range steps {
		out[i] = Step{Name: step.Name, State: string(step.State), TookMs: step.Took.Milliseconds(), Found: step.Found}
		if step.Outcome != nil {
			out[i].Fault = faultOf(s, *step.Outcome)
			out[i].Fault.Postroom = "" // that is about mail
		}
	}
	return out
}

const (
	// testPatience is how long a test mail may take, and testLook how often it is looked after.
	testPatience = 30 * time.Second
	testLook     = 100 * time.Millisecond
)

type testOutput struct{ Body TestResult }

func (h *handler) testProvider(ctx context.Context, in *tryInput) (*testOutput, error) {
	body := TestRequest{}
	if err := h.read(&in.original, &body); err != nil {
		return nil, err
	}
	to, err := mail.ParseAddress(body.To)
	if err != nil {
		return nil, invalidRequest.invalid("Nothing was sent. Correct what errors names.", []mail.Problem{{Field: "/to", Reason: "is not one mail address"}}, 1)
	}
	active, err := h.tryable(ctx)
	if err != nil {
		return nil, err
	}
	if active.Version == "" {
		return nil, noProvider.problem("Choose one with PUT /v1/provider.")
	}
	if err := h.take(ctx); err != nil {
		return nil, err
	}
	if err := h.queue.Note(ctx, h.entry(ctx, "provider.test", active.Kind, "a test mail")); err != nil {
		return nil, h.refused(ctx, err)
	}
	// If something is held, this mail is to tell whether it still has to be.
	if err := h.release(ctx, active, true); err != nil {
		return nil, err
	}
	begun := time.Now()
	receipt, err := h.queue.Enqueue(ctx, h.testMail(to, authorOf(ctx).Name, begun))
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	result, err := h.awaitTest(ctx, receipt.ID)
	if err != nil {
		_ = h.queue.CancelMessage(context.WithoutCancel(ctx), receipt.ID) // whoever asked has gone, or Redis has: it expires soon
		return nil, h.refused(ctx, err)
	}
	result.ID, result.TookMs = receipt.ID, time.Since(begun).Milliseconds()
	return &testOutput{*result}, nil
}

// testMail says what it is, to whoever receives it.
func (h *handler) testMail(to mail.Address, by string, now time.Time) mail.Message {
	return mail.Message{
		Kind: mail.Alert, To: []mail.Address{to}, Subject: "Test mail from Postroom on " + h.providers.Host,
		Text: fmt.Sprintf("This is a test mail from Postroom on %s.\n\nAn administrator (%s) sent it at %s, to see whether mail goes out.\n"+
			"That you can read it means that it does. Nobody expects an answer.\n", h.providers.Host, by, now.UTC().Format("15:04:05 MST on 2 January 2006")),
		ExpiresAt: now.Add(testPatience + 5*time.Second), // should nobody be left to cancel it
	}
}

// awaitTest waits for the first thing that becomes of a test mail. Unless it was delivered it is cancelled.
func (h *handler) awaitTest(ctx context.Context, id string) (*TestResult, error) {
	waiting, cancel := context.WithTimeout(ctx, testPatience)
	defer cancel()
	tick := time.NewTicker(testLook)
	defer tick.Stop()
	for {
		s, err := h.queue.Message(ctx, id)
		if err != nil {
			return nil, err
		}
		if s.State == queue.Delivered {
			return &TestResult{State: "delivered", Summary: "The provider took the mail. It can still come back, if the address does not exist."}, nil
		}
		last := lastRefusal(s)
		if last == nil && s.State == queue.Queued {
			if last, err = h.metByAnother(ctx, s); err != nil {
				return nil, err
			}
			if last != nil {
				// It can have been this one's own, which it has met since it was looked at.
				if s, err = h.queue.Message(ctx, id); err != nil {
					return nil, err
				}
				if s.State == queue.Delivered {
					continue
				}
				if own := lastRefusal(s); own != nil {
					last = own
				}
			}
		}
		ended := s.State != queue.Queued && s.State != queue.Sending
		if waiting.Err() != nil || ended || last != nil && s.State == queue.Queued {
			return h.endTest(context.WithoutCancel(ctx), s, last)
		}
		select {
		case <-waiting.Done():
		case <-tick.C:
		}
	}
}

// metByAnother gives the refusal that holds a test mail, which another message has met since it was released; nil if none does.
func (h *handler) metByAnother(ctx context.Context, s *queue.MessageStatus) (*queue.OutcomeReport, error) {
	o, err := h.queue.Outlook(ctx, s)
	if err != nil || o == nil || o.Wait != queue.WaitsForHold || o.Silence.Trying || o.Silence.Reason == mail.Throttled.String() {
		return nil, err
	}
	return &o.Silence.Last, nil
}

// lastRefusal gives what the last attempt met that the provider saw; nil if there was none.
func lastRefusal(s *queue.MessageStatus) *queue.OutcomeReport {
	for i := len(s.History) - 1; i >= 0; i-- {
		for j := range s.History[i].Outcomes {
			if o := &s.History[i].Outcomes[j]; o.Class != mail.Delivered.String() && o.Cause != string(mail.Stopped) {
				return o
			}
		}
	}
	return nil
}

// endTest cancels a test mail that was not delivered, or forgets it if it has failed, and says why it was not delivered.
func (h *handler) endTest(ctx context.Context, s *queue.MessageStatus, last *queue.OutcomeReport) (*TestResult, error) {
	out := &TestResult{State: "waiting"}
	why := ""
	if s.State == queue.Queued && last == nil {
		o, err := h.queue.Outlook(ctx, s)
		if err != nil {
			return nil, err
		}
		why = " " + waitsFor(s, o)
	}
	err := h.queue.CancelMessage(ctx, s.ID)
	switch {
	case err != nil && !errors.Is(err, queue.ErrTooLate):
		return nil, err
	case last != nil:
		with, err := h.adviser(ctx)
		if err != nil {
			return nil, err
		}
		out.State, out.Fault = "failed", faultOf(with.settings, reported(*last))
		out.Fault.Postroom = ""
		out.Summary = "The mail was not delivered, and is not tried again. " + out.Fault.Happened
		if s.State == queue.Failed {
			// Whoever asked has its outcome; among failed mail it would be taken for somebody's.
			if _, err := h.queue.DeleteFailed(ctx, queue.FailedFilter{IDs: []string{s.ID}}, queue.SelectionOptions{}); err != nil {
				h.log.Warn("a test mail stays in the failed store", "message", s.ID, "error", err)
			}
		}
	case err != nil:
		out.Summary = "The mail is being sent, and the provider has not answered yet: GET /v1/messages/{id} says what becomes of it."
	default:
		out.Summary = fmt.Sprintf("The mail was not tried within %s, and is cancelled.%s", testPatience, why)
	}
	return out, nil
}

// reported is the inverse of what a record keeps of an outcome.
func reported(o queue.OutcomeReport) mail.Outcome {
	class, _ := mail.ParseClass(o.Class)
	scope, _ := mail.ParseScope(o.Scope)
	return mail.Outcome{Class: class, Scope: scope, Cause: mail.Cause(o.Cause), Step: o.Step, Code: o.Code, Enhanced: o.Enhanced, Reply: o.Reply}
}

type resealOutput struct{ Body Resealed }

func (h *handler) resealProvider(ctx context.Context, _ *struct{}) (*resealOutput, error) {
	active, err := h.changeable(ctx)
	if err != nil {
		return nil, err
	}
	if active.Version == "" || active.Source != queue.FromAPI {
		return nil, noProvider.problem("No settings are stored.")
	}
	if h.providers.Keys.Current(active.Sealed) {
		return &resealOutput{Resealed{Summary: "They are sealed with the first key already, or have no secret to seal."}}, nil
	}
	settings, err := h.providers.Keys.Open(active.Sealed, active.ID)
	if err != nil {
		return nil, h.refusedSettings(ctx, err)
	}
	sealed, err := h.providers.Keys.Seal(settings, active.ID)
	if err != nil {
		return nil, h.refusedSettings(ctx, err)
	}
	if err := h.queue.ResealProvider(ctx, active, sealed, h.entry(ctx, "provider.reseal", active.Kind, "with the key "+h.providers.Keys.ID())); err != nil {
		return nil, h.refusedSettings(ctx, err)
	}
	return &resealOutput{Resealed{Changed: true, Summary: "They are sealed with the first key now. No other is needed any more."}}, nil
}
