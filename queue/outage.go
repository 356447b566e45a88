package queue

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// outage is a time in which Redis does not answer a process. All of it that speaks to Redis meets the same: the log has one line
// when that begins, with the error, and one when it is over; what fails in between is told at level debug.
type outage struct {
	since atomic.Pointer[time.Time] // nil: Redis answers
}

// failed tells of a call that failed: what that means, and why. What Redis has answered is no outage, and told each time.
func (o *outage) failed(log *slog.Logger, what string, err error, about ...any) {
	now := time.Now()
	about = append(about, "error", err)
	switch {
	case !Away(err):
		log.Warn(what, about...)
	case o.since.CompareAndSwap(nil, &now):
		log.Warn("Redis does not answer: nothing is accepted or begun, and what attempts come to is kept until it does", "met", what, "error", err)
	default:
		log.Debug(what, about...)
	}
}

// over notes that Redis has answered.
func (o *outage) over(log *slog.Logger) {
	if since := o.since.Load(); since != nil && o.since.CompareAndSwap(since, nil) {
		log.Info("Redis answers again", "after", time.Since(*since).Round(time.Millisecond))
	}
}

// Away reports whether err says that Redis, or the way to it, can't serve us now.
func Away(err error) bool {
	var network net.Error // context.DeadlineExceeded too
	if errors.As(err, &network) {
		return true
	}
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, redis.ErrClosed, redis.ErrPoolTimeout, redis.ErrPoolExhausted} {
		if errors.Is(err, e) {
			return true
		}
	}
	for _, is := range []func(error) bool{redis.IsLoadingError, redis.IsReadOnlyError, redis.IsClusterDownError, redis.IsTryAgainError,
		redis.IsMasterDownError, redis.IsMaxClientsError, redis.IsNoReplicasError} {
		if is(err) {
			return true
		}
	}
	return false
}
