package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// AuditEntry says that somebody changed something, or tried to reach a provider. It never holds a secret, a recipient or content.
type AuditEntry struct {
	// ID is where the entry stands, for whoever asks for those before it. At is Redis's time. Both are given by Audit.
	ID string    `json:"-"`
	At time.Time `json:"-"`
	// By is who it was: the name of a token, or "" for a configuration file. From is where it came from: an IP address, or a host.
	By   string `json:"by,omitempty"`
	From string `json:"from,omitempty"`
	// Action is what was done, such as "provider.set"; Target what it was done to, such as a mailbox; Detail says more, in words.
	Action string `json:"action"`
	Target string `json:"target,omitempty"`
	Detail string `json:"detail,omitempty"`
	// Mark tells entries apart that are the same otherwise.
	Mark string `json:"mark"`
}

// Author is who does something: the name of a token, and where the request came from.
type Author struct{ Name, From string }

// entry makes an entry of what the author does.
func (a Author) entry(action, target, detail string) *AuditEntry {
	return &AuditEntry{By: a.Name, From: a.From, Action: action, Target: target, Detail: detail}
}

// onMailbox makes one of what the author does to a mailbox, or to all: "mailbox.pause" of one is "all.pause".
func (a Author) onMailbox(what, key, detail string) *AuditEntry {
	if key == Everything {
		return a.entry("all."+what, "", detail)
	}
	return a.entry("mailbox."+what, strings.ToLower(key), detail)
}

func (e *AuditEntry) encode() (string, error) {
	if e == nil {
		return "", nil
	}
	marked := *e
	marked.Mark = token(6)
	b, err := json.Marshal(&marked)
	if err != nil {
		return "", fmt.Errorf("queue: audit: %w", err)
	}
	return string(b), nil
}

// Note adds an entry to the audit. Call it before what it tells of, so that nothing is done that is not noted; what changes the
// provider or pauses takes its entry along, in one step.
func (q *Queue) Note(ctx context.Context, e AuditEntry) error {
	entry, err := e.encode()
	if err != nil {
		return err
	}
	if err := q.run(ctx, "audit", entry).Err(); err != nil {
		return fmt.Errorf("queue: audit: %w", err)
	}
	return nil
}

// cancelsNoted is how many cancels of single messages the audit takes of one author in an hour: thousands of them must not push out
// what else was noted.
const cancelsNoted = 100

// noteOfCancel gives the entry for the audit of who cancels a message; "" if there shall be none.
func (q *Queue) noteOfCancel(ctx context.Context, id string, by Author) (string, error) {
	if by == (Author{}) {
		return "", nil
	}
	wait, err := q.Take(ctx, Ration{Name: "cancels", Window: time.Hour, Each: cancelsNoted}, by.Name)
	if err != nil || wait > 0 {
		return "", err
	}
	return by.entry("message.cancel", id, "").encode()
}

var auditIDs = regexp.MustCompile(`^[0-9]{1,15}-[0-9]{1,9}$`)

// Audit lists what was noted, newest first: at most limit entries before the one with the id before ("": from the newest). It
// keeps some 10,000. An id of another form is ErrCursor.
func (q *Queue) Audit(ctx context.Context, before string, limit int) ([]AuditEntry, error) {
	newest := "+"
	if before != "" {
		if !auditIDs.MatchString(before) {
			return nil, ErrCursor
		}
		newest = "(" + before
	}
	noted, err := q.redis.XRevRangeN(ctx, q.key("audit"), newest, "-", int64(limit)).Result()
	if err != nil {
		return nil, fmt.Errorf("queue: audit: %w", err)
	}
	entries := make([]AuditEntry, 0, len(noted))
	for _, n := range noted {
		e := AuditEntry{}
		if err := json.Unmarshal([]byte(text(n.Values["entry"])), &e); err != nil {
			e = AuditEntry{Action: "unreadable"}
		}
		ms, _, _ := strings.Cut(n.ID, "-")
		at, _ := strconv.ParseInt(ms, 10, 64)
		e.ID, e.At = n.ID, time.UnixMilli(at)
		entries = append(entries, e)
	}
	return entries, nil
}

// Ration is how often something may be done in a time that slides.
type Ration struct {
	// Name says what, in a word.
	Name string
	// Window is the time; Each is how often one may, All how often all together (0: no limit).
	Window    time.Duration
	Each, All int
}

// Take asks whether somebody may do what is rationed now, which counts; else it says how long to wait. All processes share it.
func (q *Queue) Take(ctx context.Context, r Ration, by string) (wait time.Duration, err error) {
	ms, err := q.run(ctx, "ration", r.Name, by, token(8), r.Window.Milliseconds(), r.Each, r.All).Int64()
	if err != nil {
		return 0, fmt.Errorf("queue: ration: %w", err)
	}
	return time.Duration(ms) * time.Millisecond, nil
}
