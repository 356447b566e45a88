package provider

import (
	"time"

	"github.com/postroom/postroom/mail"
)

// StepState says what became of a step.
type StepState string

// The states of a step. One that was skipped could not be tried, or does not apply; Found says why.
const (
	StepPassed  StepState = "passed"
	StepFailed  StepState = "failed"
	StepSkipped StepState = "skipped"
)

// Names of steps, in the order in which a check takes them. A check leaves out those that its provider does not have.
const (
	StepResolve     = "resolve"     // the host's name
	StepConnect     = "connect"     // TCP
	StepTLS         = "tls"         // version and certificate
	StepGreeting    = "greeting"    // SMTP
	StepEHLO        = "ehlo"        // SMTP: what the server offers; with STARTTLS, what it offers once encrypted
	StepToken       = "token"       // OAuth 2.0
	StepAuth        = "auth"        // SMTP
	StepPermissions = "permissions" // Microsoft Graph: what the token allows
	StepSender      = "sender"      // whether the sender may be used, as far as that can be known without sending
)

// Step is one step of a check: settings are tried out, and nothing is sent.
type Step struct {
	Name  string
	State StepState
	Took  time.Duration
	// Found says in words what was found, or why the step was skipped. Never a secret.
	Found string
	// Outcome is that of an attempt that had met the same; nil unless the step failed.
	Outcome *mail.Outcome
}

// Undecided reports whether a step that failed leaves open whether the settings work: the other side answered, and put us off.
func (s *Step) Undecided() bool {
	o := s.Outcome
	return o != nil && o.Code != 0 && (o.Class == mail.Temporary || o.Class == mail.Throttled)
}

// Failed gives the step that failed; nil if none did. A check ends with the first.
func Failed(steps []Step) *Step {
	for i := range steps {
		if steps[i].State == StepFailed {
			return &steps[i]
		}
	}
	return nil
}
