package queue

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/throttle"
)

// limitsFor is how long accepting goes by limits read before. What exceeds a limit that is younger fails when its turn
// comes.
const limitsFor = 5 * time.Second

// known is what accepting has to know of the active provider, as it was last read. Its zero value has to be read first.
type known struct {
	mu   sync.Mutex
	read time.Time
	is   acceptable
}

// forget has the next who asks read anew.
func (k *known) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.read = time.Time{}
}

// acceptable is what a message has to fit into by itself: limits, each key's and the provider's, with how it is uploaded; and who may
// be its sender, beside the provider's own.
type acceptable struct {
	limits  []throttle.Limit
	upload  *Upload
	senders mail.Senders
	own     string
}

// sender says what is wrong with a message's sender (senderOf); nil if nothing is.
func (a *acceptable) sender(address string) *mail.Problem {
	if address == "-" || address == a.own || a.senders.Allow(address) {
		return nil
	}
	return &mail.Problem{Field: "/from/address", Reason: "is not among the senders that the provider's settings allow (allowed_senders): use one of them, leave it out for the provider's own, or have it added"}
}

func (q *Queue) acceptable(ctx context.Context) (acceptable, error) {
	k := &q.known
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.read.IsZero() && time.Since(k.read) < limitsFor {
		return k.is, nil
	}
	values, err := q.redis.HMGet(ctx, q.key("provider"), "limits", "all_limits", "upload", "senders", "sender").Result()
	if err != nil {
		return acceptable{}, fmt.Errorf("queue: limits: %w", err)
	}
	is := acceptable{upload: parseUpload(text(values[2])), senders: strings.Fields(text(values[3])), own: text(values[4])}
	for _, v := range values[:2] {
		limits, err := throttle.Decode(text(v))
		if err != nil {
			return acceptable{}, err
		}
		is.limits = append(is.limits, limits...)
	}
	k.is, k.read = is, time.Now()
	return is, nil
}

// unacceptable says what is wrong with a message that the provider could never be given: its sender, or that it takes more of a limit
// than the limit allows in all.
func (q *Queue) unacceptable(ctx context.Context, sender string, recipients, bytes, files int) ([]mail.Problem, error) {
	a, err := q.acceptable(ctx)
	if err != nil {
		return nil, err
	}
	var problems []mail.Problem
	for _, p := range []*mail.Problem{a.sender(sender), tooDear(a.limits, a.upload.costOf(recipients, bytes, files))} {
		if p != nil {
			problems = append(problems, *p)
		}
	}
	return problems, nil
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

// batch refuses a batch that the provider could never be given, for its sender or as its content exceeds a limit by itself.
func (a *acceptable) batch(m *mail.Message, bytes int) error {
	var problems []mail.Problem
	for _, p := range []*mail.Problem{a.sender(senderOf(m.From)), tooDear(a.limits, a.upload.costOf(1, bytes, len(m.Attachments)))} {
		if p != nil {
			p.Field = "/message" + p.Field
			problems = append(problems, *p)
		}
	}
	if problems != nil {
		return &mail.Invalid{Problems: problems}
	}
	return nil
}
