package provider

import (
	"fmt"

	"github.com/postroom/postroom/mail"
)

// Bounds are the limits of one message. What is below 1 is no limit.
type Bounds struct {
	// Recipients is how many are offered at once: the others go in the next attempts.
	Recipients int
	// Bytes is how large a message may be, encoded.
	Bytes int64
}

// StepLimit is the step at which a message fails that takes more of a limit than it allows in all, as in next.lua. The provider
// sees nothing of it.
const StepLimit = "limit"

// Offers is how many of n recipients are offered at once.
func (b Bounds) Offers(n int) int {
	if b.Recipients > 0 {
		return min(n, b.Recipients)
	}
	return n
}

// PutOff is the outcome, at a step, of a recipient who is not offered now, and can have the message at once.
func (b Bounds) PutOff(step string) mail.Outcome {
	return mail.Outcome{Scope: mail.ScopeRecipient, Cause: mail.TooManyRecipients, Step: step,
		Reply: fmt.Sprintf("a message takes %d recipients at most", b.Recipients)}
}

// Exceeded gives the outcome of a message of so many bytes, if that is more than it may have.
func (b Bounds) Exceeded(size int64) (o mail.Outcome, exceeded bool) {
	if b.Bytes < 1 || size <= b.Bytes {
		return mail.Outcome{}, false
	}
	return mail.Outcome{Class: mail.Permanent, Scope: mail.ScopeMessage, Cause: mail.LimitTooSmall, Step: StepLimit,
		Reply: fmt.Sprintf("the message has %d bytes, encoded, and the limit \"message_bytes\" allows %d", size, b.Bytes)}, true
}
