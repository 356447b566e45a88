package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/throttle"
)

// ProviderKey says whose limits bind a message: it is what turns are given out by.
type ProviderKey string

// The ways of an active provider.
const (
	// ByAccount: one account sends for every sender (SMTP).
	ByAccount ProviderKey = "account"
	// ByMailbox: each sender is a mailbox with limits of its own (Microsoft 365).
	ByMailbox ProviderKey = "mailbox"
)

// ActiveProvider is what the queue has to know of the provider.
type ActiveProvider struct {
	// Kind is "smtp" or "microsoft365", for people.
	Kind string
	// Place says where the provider counts: what is under way at another place takes nothing from Concurrency. "": not known.
	Place string
	// Keying says whose limits bind; Account is the key with ByAccount, and Sender the provider's own sender.
	Keying  ProviderKey
	Account string
	Sender  string
	// Concurrency is how many units a key has: how many messages of it may be with the provider at once; at least 1.
	Concurrency int
	// Limits are each key's; none: no limit but Concurrency.
	Limits []throttle.Limit
	// AllConcurrency and AllLimits bound all keys together; 0 and none: no limit.
	AllConcurrency int
	AllLimits      []throttle.Limit
	// Message is what bounds each message.
	Message MessageBounds
	// Upload says how the provider takes content; nil: all of a message in one request.
	Upload *Upload
	// Senders are who may be the sender of what is accepted, beside the provider's own; none: everybody.
	Senders mail.Senders
	// Shown is whatever describes the settings to people, without secrets: it is kept as it is, and given back as it is.
	Shown string
}

// fields are an active provider's fields in Redis: of the settings, and of what changes without ending an attempt.
func (p *ActiveProvider) fields() (settings, limits []any) {
	all := ""
	if p.AllConcurrency > 0 {
		all = strconv.Itoa(p.AllConcurrency)
	}
	return []any{"kind", p.Kind, "place", p.Place, "mode", string(p.Keying), "key", strings.ToLower(p.Account), "sender", strings.ToLower(p.Sender)},
		[]any{"concurrency", strconv.Itoa(max(1, p.Concurrency)), "limits", throttle.Encode(p.Limits),
			"all_concurrency", all, "all_limits", throttle.Encode(p.AllLimits), "upload", p.Upload.encode(), "message", p.Message.encode(),
			"senders", strings.Join(p.Senders, " "), "shown", p.Shown}
}

// Source says where the active settings come from.
type Source string

// The sources.
const (
	// FromFile: a process's configuration file. Nobody else may change them while it runs.
	FromFile Source = "file"
	// FromAPI: an administrator.
	FromAPI Source = "api"
)

// NoProvider is Provider.Kind if none is active.
const NoProvider = "none"

// Provider is what is known of the active settings.
type Provider struct {
	// Kind is "none", "smtp" or "microsoft365".
	Kind string
	// Version is what attempts begin for; "" if no provider is active. Number is the part of it that grows, ID the random one.
	Version, ID string
	Number      int
	// Source, By and Since say who made them the active ones, and when. By is "" of a file's.
	Source Source
	By     string
	Since  time.Time
	// Shown describes them to people; Sealed is what ActivateProvider was given, "" of a file's.
	Shown, Sealed string
	// Fingerprint and Salt tell a file's settings apart.
	Fingerprint, Salt string
	// Declared says that a process runs whose configuration file has settings.
	Declared bool
	// Sender is the provider's own; Account what limits bind if one account sends for all, else "".
	Sender, Account string
}

// Errors of changing the provider. Match with errors.Is.
var (
	// ErrProviderDeclared: a configuration file has the settings.
	ErrProviderDeclared = errors.New("queue: the provider is set in the configuration file of a process that runs: change it there")
	// ErrProviderChanged: other settings have become the active ones than were expected.
	ErrProviderChanged = errors.New("queue: other settings of the provider have become the active ones meanwhile")
)

// Provider tells of the active settings.
func (q *Queue) Provider(ctx context.Context) (*Provider, error) {
	pipe := q.redis.Pipeline()
	fields := pipe.HGetAll(ctx, q.key("provider"))
	declared := pipe.Exists(ctx, q.key("declared"))
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("queue: provider: %w", err)
	}
	f := fields.Val()
	p := &Provider{Kind: f["kind"], Version: f["version"], ID: f["id"], Number: atoi(f["number"]), Source: Source(f["source"]), By: f["by"],
		Since: unixMilli(f["since"]), Shown: f["shown"], Sealed: f["sealed"], Fingerprint: f["fingerprint"], Salt: f["salt"],
		Declared: declared.Val() == 1, Sender: f["sender"]}
	if f["mode"] == string(ByAccount) {
		p.Account = f["key"]
	}
	if p.Version == "" {
		p.Kind = NoProvider
	}
	return p, nil
}

// NewProviderID makes the random part of a version, for ProviderChange.
func NewProviderID() string { return token(12) }

// NewProviderSalt makes a salt for fingerprints of settings.
func NewProviderSalt() string { return token(20) }

// declaredFor is how long a declaration lasts that is not repeated: when the last process with settings in its file has gone, they
// can be changed again.
const declaredFor = time.Minute

// DeclareProvider makes a configuration file's settings the active ones, unless they are (the fingerprint tells), and gives their
// version. From then on no attempt begins for any other. The fingerprint must not give secrets away to somebody who reads Redis.
// Limits, senders and what is shown are no part of what it tells apart: they change for everybody at once, and end no attempt. A
// nil p declares that there is to be no provider; host is where the file is, for the audit. Call KeepDeclared every DeclareInterval.
func (q *Queue) DeclareProvider(ctx context.Context, p *ActiveProvider, salt, fingerprint, host string) (version string, err error) {
	settings, limits := []any{"kind", NoProvider}, []any(nil)
	if p != nil {
		settings, limits = p.fields()
	} else {
		salt, fingerprint = "", ""
	}
	settings = append(settings, "source", string(FromFile), "by", "", "salt", salt, "fingerprint", fingerprint)
	entry := AuditEntry{From: host, Action: "provider.set", Target: NoProvider, Detail: "from the configuration file"}
	if p != nil {
		entry.Target = p.Kind
	}
	return q.setProvider(ctx, "declare", NewProviderID(), fingerprint, settings, limits, nil, &entry, "")
}

// KeepDeclared says that this process's configuration file still has settings.
func (q *Queue) KeepDeclared(ctx context.Context) error {
	if err := q.redis.Set(ctx, q.key("declared"), "1", declaredFor).Err(); err != nil {
		return fmt.Errorf("queue: provider: %w", err)
	}
	return nil
}

// DeclareInterval is how often a process with settings in its file says so.
const DeclareInterval = declaredFor / 4

// ProviderChange replaces the active settings.
type ProviderChange struct {
	// ID is of NewProviderID, or that of the active settings if nothing changes but limits, senders and what is shown: then no
	// attempt ends.
	ID string
	// Expected is the version that is to be replaced, "" if none is active: if another one is, nothing changes.
	Expected string
	// Provider is the new one; nil for none.
	Provider *ActiveProvider
	// Sealed are the settings, for whoever can open them: see Provider.Sealed. Former is the text that is to be replaced, which tells
	// a change of limits, that keeps the version; "": whichever is there.
	Sealed, Former string
	// Refused, if it is not nil, is what the settings met when they were tried: everything is held for Hold from the start, and
	// one message is tried then, at intervals that grow up to HoldMax.
	Refused       *mail.Outcome
	Reason        string
	Hold, HoldMax time.Duration
	// Entry goes into the audit; its By is who changes the settings.
	Entry AuditEntry
}

// ActivateProvider makes settings the active ones and gives their version. What was kept of the former ones is gone when it
// returns, and no attempt begins with them; Underway tells of those that began before. ErrProviderDeclared, ErrProviderChanged.
func (q *Queue) ActivateProvider(ctx context.Context, c ProviderChange) (version string, err error) {
	what, settings, limits := "clear", []any{"kind", NoProvider}, []any(nil)
	if c.Provider != nil {
		what = "activate"
		settings, limits = c.Provider.fields()
		settings = append(settings, "sealed", c.Sealed)
	}
	settings = append(settings, "source", string(FromAPI), "by", oneLine(c.Entry.By))
	return q.setProvider(ctx, what, c.ID, c.Expected, settings, limits, &c, &c.Entry, c.Former)
}

// ResealProvider replaces the seal of the active settings and nothing else. ErrProviderDeclared, ErrProviderChanged.
func (q *Queue) ResealProvider(ctx context.Context, p *Provider, sealed string, entry AuditEntry) error {
	_, err := q.setProvider(ctx, "reseal", p.ID, p.Version, []any{"sealed", sealed}, nil, nil, &entry, p.Sealed)
	return err
}

// refusal is what provider.lua has to know of a hold from the start; "" for none.
func (c *ProviderChange) refusal() string {
	if c == nil || c.Refused == nil {
		return ""
	}
	led := *c.Refused
	led.Reply = "" // as of every hold
	return strings.Join([]string{strconv.FormatInt(c.Hold.Milliseconds(), 10), strconv.FormatInt(c.HoldMax.Milliseconds(), 10), c.Reason,
		historyLine("", []int{0}, []mail.Outcome{led})[1:]}, "\t")
}

// setProvider runs provider.lua; c is nil but when somebody sets it.
func (q *Queue) setProvider(ctx context.Context, what, id, expected string, settings, limits []any, c *ProviderChange, entry *AuditEntry, former string) (string, error) {
	noted, err := entry.encode()
	if err != nil {
		return "", err
	}
	args := []any{what, id, expected, declaredFor.Milliseconds(), c.refusal(), noted, former, len(settings)}
	answer, err := q.run(ctx, "provider", append(append(args, settings...), limits...)...).StringSlice()
	if err != nil {
		return "", fmt.Errorf("queue: provider: %w", err)
	}
	if len(answer) == 3 {
		h := parseHold(answer[2])
		h.log(q.log, c.Refused, "")
	}
	q.known.forget()
	q.recent.forget()
	switch {
	case answer[0] == "declared":
		return "", ErrProviderDeclared
	case answer[0] == "changed":
		return "", ErrProviderChanged
	}
	return answer[1], nil
}

// Underway waits until no attempt is left that began before the active settings became so, or ctx ends; it gives how many are left.
func (q *Queue) Underway(ctx context.Context) (int, error) {
	left := -1
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 250*time.Millisecond) {
		n, err := q.run(ctx, "older").Int()
		switch {
		case err == nil && n == 0:
			return 0, nil
		case err == nil:
			left = n
		case ctx.Err() == nil || left < 0:
			return 0, fmt.Errorf("queue: attempts of former settings: %w", err)
		}
		if pause(ctx, wait) != nil {
			return left, nil
		}
	}
}

// MessageBounds are the limits of one message; what is below 1 is no limit. Those of more recipients than a message may have go in
// several attempts. Bytes are counted as they are encoded.
type MessageBounds struct {
	Recipients int
	Bytes      int64
}

func (b MessageBounds) encode() string { return fmt.Sprintf("%d %d", b.Recipients, b.Bytes) }

// parseMessageBounds is the inverse of encode; no limits for what it does not understand.
func parseMessageBounds(s string) (b MessageBounds) {
	if _, err := fmt.Sscanf(s, "%d %d", &b.Recipients, &b.Bytes); err != nil {
		return MessageBounds{}
	}
	return b
}

// Upload is what a message costs at a provider that takes a large one in several requests: one to begin it and one to send it, two
// for each file, and one for each part of the content.
type Upload struct {
	// RequestBytes is the largest content that goes in one request; PartBytes is how much goes in one of several.
	RequestBytes, PartBytes int64
	// Always says that small content goes in several requests, too.
	Always bool
}

func (u *Upload) encode() string {
	if u == nil {
		return ""
	}
	always := 0
	if u.Always {
		always = 1
	}
	return fmt.Sprintf("%d %d %d", u.RequestBytes, u.PartBytes, always)
}

// parseUpload is the inverse of encode; nil for what it does not understand.
func parseUpload(s string) *Upload {
	u, always := Upload{}, 0
	if _, err := fmt.Sscanf(s, "%d %d %d", &u.RequestBytes, &u.PartBytes, &always); err != nil || u.PartBytes < 1 {
		return nil
	}
	u.Always = always == 1
	return &u
}

// costOf is what an attempt takes at most of each limit.
func (u *Upload) costOf(recipients, bytes, files int) throttle.Cost {
	cost := throttle.Cost{Messages: 1, Requests: 1, Recipients: int64(recipients), UploadBytes: int64(bytes)}
	if u == nil {
		return cost
	}
	cost.UploadBytes = (int64(bytes)*4 + 2) / 3
	if u.Always || int64(bytes) > u.RequestBytes {
		cost.Requests = 2 + 2*int64(files) + (int64(bytes)+u.PartBytes-1)/u.PartBytes
	}
	return cost
}
