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

// own is the provider's own sender, in lower case, as it was last read; "" if it was not, or there is none.
func (k *known) own() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.is.own
}

// acceptable is what a message has to fit into by itself: limits, each key's and the provider's, with how it is uploaded; and who may
// be its sender, beside the provider's own.
type acceptable struct {
	limits  []throttle.Limit
	upload  *Upload
	message MessageBounds
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
	values, err := q.redis.HMGet(ctx, q.key("provider"), "limits", "all_limits", "upload", "senders", "sender", "message").Result()
	if err != nil {
		return acceptable{}, fmt.Errorf("queue: limits: %w", err)
	}
	is := acceptable{upload: parseUpload(text(values[2])), senders: strings.Fields(text(values[3])), own: text(values[4]), message: parseMessageBounds(text(values[5]))}
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

// measure is what is known of a message when it is handed in.
type measure struct {
	recipients int
	bytes      int // of its content, texts and files as they are
	body       int // of these the text that goes out in any case, at least
	files      int
	fileBytes  int
}

// with adds files.
func (m measure) with(files, bytes int) measure {
	m.bytes, m.files, m.fileBytes = m.bytes+bytes, m.files+files, m.fileBytes+bytes
	return m
}

// measureOf measures a message with its files. Of text and html some providers take one; one that is a template can become shorter.
func measureOf(m *mail.Message, templated bool) measure {
	is := measure{recipients: 1, bytes: len(m.Text) + len(m.HTML)}
	body := m.HTML
	if body == "" {
		body = m.Text
	}
	if !templated || !strings.Contains(body, "{{") {
		is.body = len(body)
	}
	for _, a := range m.Attachments {
		bytes := len(a.Content)
		if a.Ref != "" {
			bytes = int(a.Size)
		}
		is = is.with(1, bytes)
	}
	return is
}

// unacceptable says what is wrong with a message that the provider could never be given: its sender, or that it takes more of a limit
// than the limit allows in all.
func (q *Queue) unacceptable(ctx context.Context, sender string, m measure) ([]mail.Problem, error) {
	a, err := q.acceptable(ctx)
	if err != nil {
		return nil, err
	}
	return a.problems(sender, m), nil
}

func (a *acceptable) problems(sender string, m measure) (problems []mail.Problem) {
	for _, p := range []*mail.Problem{a.sender(sender), a.tooDear(m)} {
		if p != nil {
			problems = append(problems, *p)
		}
	}
	return problems
}

// costOf is what an attempt takes at most of each limit; the same as cost_of_message in next.lua.
func (a *acceptable) costOf(m measure) throttle.Cost {
	if most := a.message.Recipients; most > 0 {
		m.recipients = min(m.recipients, most)
	}
	return a.upload.costOf(m.recipients, m.bytes, m.files)
}

// encoded is how large a message is at least when it is encoded: its exact size is known when it is rendered, and what would fit
// then must not be refused now. Base64 has line ends in MIME, but not in JSON.
func (a *acceptable) encoded(m measure) int64 {
	files := (int64(m.fileBytes) + 2) / 3 * 4
	if a.upload == nil {
		files += (files + 75) / 76 * 2
	}
	return int64(m.body) + files
}

// tooDear says what of a message is more than a limit allows; nil if nothing is.
func (a *acceptable) tooDear(m measure) *mail.Problem {
	if size, most := a.encoded(m), a.message.Bytes; most > 0 && size > most {
		return &mail.Problem{Field: "/attachments", Reason: fmt.Sprintf("makes a message of %d bytes at least when it is encoded, and the provider's limit %q allows %d: attach less, send a link instead, or have the limit raised",
			size, "message_bytes", most)}
	}
	cost := a.costOf(m)
	for _, limit := range a.limits {
		if cost.Of(limit.Name) <= limit.Max {
			continue
		}
		over := "/to"
		if limit.Name == throttle.UploadBytes {
			over = "/attachments"
		}
		return &mail.Problem{Field: over, Reason: fmt.Sprintf("takes %d of the provider's limit %q, which allows %d in %v: split the message, or have the limit raised",
			cost.Of(limit.Name), limit.Name, limit.Max, limit.Window)}
	}
	return nil
}

// batch refuses a batch that the provider could never be given, for its sender or as its content exceeds a limit by itself.
func (a *acceptable) batch(sender string, m measure) error {
	problems := a.problems(sender, m)
	for i := range problems {
		problems[i].Field = "/message" + problems[i].Field
	}
	if problems != nil {
		return &mail.Invalid{Problems: problems}
	}
	return nil
}
