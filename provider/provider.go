// Package provider says what it means to hand one message over to a mail provider once: what goes in, what comes out,
// and when an attempt can no longer be taken back.
package provider

import (
	"context"
	"errors"

	"github.com/postroom/postroom/mail"
)

// Delivery is one attempt.
type Delivery struct {
	Message *mail.Outgoing
	// Recipients are the envelope's addresses that are still pending, a subset of Message.Recipients in the same order.
	Recipients []mail.Address
	// Bounds are the active settings' when the attempt began. They can be others than those that the sender was made of.
	Bounds Bounds
	// Counted is how many attempts before this one counted.
	Counted int
	// Fence is called exactly once, directly before the step after which the provider may take responsibility (SMTP: the
	// final dot). If it returns an error the sender hands over nothing and returns that error from Send. May be nil.
	Fence func() error
	// Retried says that there was an earlier attempt, of which something may be left that Kept does not tell of.
	Retried bool
	// Kept is what the sender kept of the message at the provider in an earlier attempt, such as the id of a draft; empty for
	// nothing. Keep stores it for attempts that follow, also if this process dies; on an error nothing may be handed over. May be
	// nil: then nothing is stored.
	Kept string
	Keep func(kept string) error
	// Used counts what the attempt uses of the provider's limits, if the sender knows it better than one message in one request.
	// May be nil.
	Used *Usage
}

// Usage is what an attempt used of a provider's limits. The zero value says that nobody counted.
type Usage struct {
	Messages, Requests, Recipients int
	UploadBytes                    int64
}

// Sender hands messages over. It is used by many goroutines at once.
type Sender interface {
	// Send makes one attempt and gives one outcome for each of d.Recipients: same length, same order. It never retries.
	//
	// The error is not about the provider: it is non-nil, and the outcomes nil, only if we stopped by ourselves with
	// nothing handed over, because ctx ended before the point of no return (ErrInterrupted) or the fence said no. Once
	// the recipients are accepted, the end of ctx no longer cuts the attempt; time-outs of the sender do.
	Send(ctx context.Context, d *Delivery) ([]mail.Outcome, error)
	// Close ends kept connections. Attempts under way finish first.
	Close() error
}

// Place is where a message stands in a line of messages that go to the provider one behind another. It is for one goroutine.
type Place interface {
	// Await returns when no message is ahead any more. It may ask started, if that is not nil, whether something of this one has been
	// sent, and has more patience then. On an error nothing more may be sent.
	Await(ctx context.Context, started func() bool) error
	// Offer leaves something for the message ahead, and Behind gives what the one behind has left, nil for nothing.
	Offer(v any)
	Behind() any
}

// Pipeliner is a Sender that can send the beginning of a message while the one ahead of it waits for its last reply.
type Pipeliner interface {
	Sender
	// SendInLine is Send with a place: it calls p.Await by itself, and gives its error back. What is sent of the message before that
	// commits to nothing.
	SendInLine(ctx context.Context, d *Delivery, p Place) ([]mail.Outcome, error)
}

// Verifier is a Sender that can tell what became of an earlier attempt of which nobody knows whether it handed the message over.
type Verifier interface {
	// Verify gives one outcome for each of d.Recipients: Delivered if an earlier attempt reached the provider, one with the cause
	// mail.NotSent if it did not, Unknown if that can't be told; any other says why the provider could not be asked. It hands
	// nothing over, and does not call d.Fence. The error is as Send's.
	Verify(ctx context.Context, d *Delivery) ([]mail.Outcome, error)
}

// Tokens gives the access tokens of OAuth 2.0 that a sender logs in with. Safe for concurrent use; package oauth has one.
type Tokens interface {
	// Token gives one that can be used now: a secret. An error that is no ErrInterrupted has the outcome of whoever needed it, as
	// a method Outcome.
	Token(ctx context.Context) (string, error)
	// Reject says that whoever the token is for has refused it: the next is another one.
	Reject(token string)
}

// NoToken gives the outcome that an error of Tokens.Token is; false if it is an ErrInterrupted, or none of its.
func NoToken(err error) (mail.Outcome, bool) {
	var known interface{ Outcome() mail.Outcome }
	if errors.As(err, &known) {
		return known.Outcome(), true
	}
	return mail.Outcome{}, false
}

// ErrInterrupted is returned by Send if its context ended before the point of no return: nothing was handed over.
var ErrInterrupted = errors.New("provider: interrupted before anything was handed over")

// All gives n outcomes that are all the same, for what befell the message as a whole.
func All(n int, o mail.Outcome) []mail.Outcome {
	out := make([]mail.Outcome, n)
	for i := range out {
		out[i] = o
	}
	return out
}
