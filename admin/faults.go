package admin

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// statusClientGone is for our own counting: nobody is there any more to see it.
const statusClientGone = 499

// refused turns an error of the queue into the problem that answers the request, and logs it if it is about us.
func (h *handler) refused(ctx context.Context, err error) error {
	var invalid *mail.Invalid
	var told *Problem
	switch {
	case errors.As(err, &told):
		return told
	case errors.As(err, &invalid):
		return invalidMessage.invalid("Nothing was accepted. Correct what errors names.", invalid.Problems, mostInvalid)
	case errors.Is(err, queue.ErrNotFound):
		return notFound.problem("Check the id. What has ended is forgotten after a time.")
	case errors.Is(err, queue.ErrTooLate):
		return tooLate.problem("The message is being sent or has ended: ask for its state.")
	case errors.Is(err, queue.ErrEnded):
		return notFailed.problem("It was delivered, cancelled or has expired, and its content is no longer kept: see GET /v1/messages/{id}.")
	case errors.Is(err, queue.ErrIdempotencyConflict):
		return idempotencyConflict.problem("Nothing was accepted. Use a new key for each request, and the same only to repeat one as it was.")
	case errors.Is(err, queue.ErrIdempotencyRunning):
		return idempotencyRunning.after(5*time.Second, "Repeat the request for its answer. It goes on for a minute after its client has gone silent.")
	case errors.Is(err, queue.ErrRedisFull):
		return full.after(30*time.Second, "Nothing was accepted. Redis has reached its maxmemory: repeat the request when some mail has gone out, or have maxmemory raised.")
	case errors.Is(err, queue.ErrFull):
		return full.after(30*time.Second, "Nothing was accepted. Repeat the request when some mail has gone out; content.max_bytes is the bound.")
	case errors.Is(err, queue.ErrBacklogFull):
		return backlogFull.after(30*time.Second, "Nothing was accepted. Repeat the request when some mail has gone out; accept.backlog_max is the bound.")
	case errors.Is(err, queue.ErrStagingExpired):
		return tookTooLong.after(5*time.Second, "Nothing was accepted. Repeat the request.")
	case errors.Is(err, queue.ErrNotReplicated):
		h.log.Warn("mail was accepted that too few replicas of Redis are known to have", "error", err)
		return notReplicated.after(5*time.Second, "It may be sent, and a fail-over of Redis may lose it. Repeat the request with the same Idempotency-Key: "+
			"it is accepted once. Without a key a repetition may send the mail a second time.")
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return clientGone()
	case unreachable(err):
		h.log.Error("the queue can't be reached", "error", err)
		return unavailable.after(5*time.Second, "Redis does not answer. What was asked for may have been done: repeat the request, mail with the same Idempotency-Key.")
	}
	h.log.Error("request failed", "error", err)
	return internal.problem("It is logged. If it happens again, tell whoever runs Postroom.")
}

func clientGone() *Problem { return &Problem{Type: "about:blank", Status: statusClientGone} }

// after gives a problem that will have gone by itself.
func (r refusal) after(wait time.Duration, detail string) *Problem {
	p := r.problem(detail)
	p.RetryAfter = wait
	return p
}

// unreachable reports whether err says that Redis, or the way to it, can't serve us now; otherwise it is a fault of ours.
func unreachable(err error) bool {
	if queue.Away(err) {
		return true
	}
	for _, is := range []func(error) bool{redis.IsAuthError, redis.IsPermissionError, redis.IsOOMError} {
		if is(err) {
			return true
		}
	}
	return false
}
