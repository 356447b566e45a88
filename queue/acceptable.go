package queue

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/throttle"
)

// limitsFor is how long accepting goes by limits read before. What exceeds a limit that is younger fails when its turn
// comes.
const limitsFor = 5 * time.Second

// knownLimits are the active provider's limits as they were last read. Its zero value has to be read first.
type knownLimits struct {
	mu     sync.Mutex
	read   time.Time
	limits []throttle.Limit // each key's and the provider's
	upload *Upload
}

// currentLimits gives the limits that any message has to fit into by itself.
func (q *Queue) currentLimits(ctx context.Context) ([]throttle.Limit, *Upload, error) {
	k := &q.known
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.read.IsZero() && time.Since(k.read) < limitsFor {
		return k.limits, k.upload, nil
	}
	values, err := q.redis.HMGet(ctx, q.key("provider"), "limits", "all_limits", "upload").Result()
	if err != nil {
		return nil, nil, fmt.Errorf("queue: limits: %w", err)
	}
	var all []throttle.Limit
	for _, v := range values[:2] {
		limits, err := throttle.Decode(text(v))
		if err != nil {
			return nil, nil, err
		}
		all = append(all, limits...)
	}
	k.limits, k.upload, k.read = all, parseUpload(text(values[2])), time.Now()
	return k.limits, k.upload, nil
}

// exceeded says what is wrong with a message that takes more of a limit than it allows in all: it could never be sent. nil if
// nothing is.
func (q *Queue) exceeded(ctx context.Context, recipients, bytes, files int) (*mail.Problem, error) {
	limits, upload, err := q.currentLimits(ctx)
	if err != nil {
		return nil, err
	}
	return tooDear(limits, upload.costOf(recipients, bytes, files)), nil
}

func tooDear(limits []throttle.Limit, cost throttle.Cost) *mail.Problem {
	for i := range limits {
		if cost.Of(limits[i].Name) <= limits[i].Max {
			continue
		}
		limit, over := limits[i], "/to"
		if limit.Name == throttle.UploadBytes {
			over = "/attachments"
		}
		return &mail.Problem{Field: over, Reason: fmt.Sprintf("takes %d of the provider's limit %q, which allows %d in %v: split the message, or have the limit raised",
			cost.Of(limit.Name), limit.Name, limit.Max, limit.Window)}
	}
	return nil
}

// refuseExceeding refuses a batch whose content exceeds a limit by itself, and those of its recipients who do with theirs:
// they are added to those who are refused already.
func (q *Queue) refuseExceeding(ctx context.Context, b *mail.Batch, refused map[int][]mail.Problem) (map[int][]mail.Problem, error) {
	limits, upload, err := q.currentLimits(ctx)
	if err != nil || len(limits) == 0 {
		return refused, err
	}
	bytes := len(b.Message.Text) + len(b.Message.HTML)
	for _, a := range b.Message.Attachments {
		bytes += len(a.Content)
	}
	if p := tooDear(limits, upload.costOf(1, bytes, len(b.Message.Attachments))); p != nil {
		p.Field = "/message" + p.Field
		return nil, &mail.Invalid{Problems: []mail.Problem{*p}}
	}
	for i, r := range b.Recipients {
		if _, no := refused[i]; no {
			continue
		}
		it := item{Recipient: r, Cc: b.Message.Cc, Bcc: b.Message.Bcc}
		if p := tooDear(limits, upload.costOf(len(recipientStates(&it, "")), bytes, len(b.Message.Attachments))); p != nil {
			if refused == nil {
				refused = map[int][]mail.Problem{}
			}
			refused[i] = []mail.Problem{*p}
		}
	}
	return refused, nil
}
