package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// What requests about mailboxes can meet.
var (
	withMailbox = append(slices.Clip(always), noSuchMailbox)
	withPause   = append(slices.Clip(always), malformedJSON, incompleteBody, bodyTooSlow, bodyTooLarge, busy, wrongMediaType)
)

// pauseEnds is part of every description of a pause.
const pauseEnds = "What is being sent is finished. A pause always ends by itself; one that runs is replaced."

func (h *handler) registerMailboxes() {
	op := h.operation(Operator, http.MethodGet, "/v1/mailboxes", "listMailboxes", "The mailboxes that send", always)
	op.Description = "What has mail, or had some lately, by address: a mailbox, or the one account that sends for all. None while no provider is active: then waiting says how much waits for one."
	huma.Register(h.api, op, h.listMailboxes)

	op = h.operation(Operator, http.MethodGet, "/v1/mailboxes/{address}", "getMailbox", "Whether a mailbox's mail flows, and what binds it", withMailbox)
	op.Description = "Limits and how much of them is used, hold, pause, backlog and forecast."
	huma.Register(h.api, op, h.getMailbox)

	op = h.operation(Operator, http.MethodPost, "/v1/mailboxes/{address}/pause", "pauseMailbox", "Let nothing of a mailbox begin for a time",
		append(slices.Clip(withPause), noSuchMailbox))
	op.Description = pauseEnds
	huma.Register(h.api, op, h.pauseMailbox)
	h.takes(op.Path, reflect.TypeFor[PauseRequest]())

	op = h.operation(Operator, http.MethodPost, "/v1/mailboxes/{address}/resume", "resumeMailbox", "End a mailbox's pause and its hold", withMailbox)
	op.Description = "Whoever resumes has put right why it was held: it is tried at once. Resuming twice is fine."
	huma.Register(h.api, op, h.resumeMailbox)

	op = h.operation(Operator, http.MethodPost, "/v1/pause", "pauseAll", "Let nothing begin for a time", withPause)
	op.Description = "Mail is accepted and waits. " + pauseEnds
	huma.Register(h.api, op, h.pauseAll)
	h.takes(op.Path, reflect.TypeFor[PauseRequest]())

	op = h.operation(Operator, http.MethodPost, "/v1/resume", "resumeAll", "End the pause of everything", always)
	op.Description = "Mailboxes that are held or paused by themselves stay so. Resuming twice is fine."
	huma.Register(h.api, op, h.resumeAll)
}

type listMailboxesInput struct {
	After string `query:"after" maxLength:"1024" doc:"What the page before gave as after; left out: the first page."`
	Limit int    `query:"limit" default:"100" minimum:"1" maximum:"1000" doc:"How many a page has at most."`
}

type listMailboxesOutput struct{ Body MailboxPage }

func (h *handler) listMailboxes(ctx context.Context, in *listMailboxesInput) (*listMailboxesOutput, error) {
	all, err := h.queue.Mailboxes(ctx)
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	with, err := h.adviser(ctx)
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	page := mailboxPage(all, in.After, in.Limit, with)
	if len(all) == 0 {
		if page.Waiting, err = h.homeless(ctx); err != nil {
			return nil, h.refused(ctx, err)
		}
	}
	return &listMailboxesOutput{page}, nil
}

// homeless counts what waits while no provider is active: whose mailbox it is only a provider says.
func (h *handler) homeless(ctx context.Context) (int, error) {
	p, err := h.queue.Provider(ctx)
	if err != nil || p.Version != "" {
		return 0, err
	}
	health, err := h.queue.Health(ctx)
	if err != nil {
		return 0, err
	}
	return health.Open, nil
}

// mailboxPage gives at most limit of all, which is sorted: those that come after a key.
func mailboxPage(all []*queue.Mailbox, after string, limit int, with adviser) MailboxPage {
	page := MailboxPage{Mailboxes: []Mailbox{}}
	for _, m := range all {
		if m.Key <= after {
			continue
		}
		if len(page.Mailboxes) == limit {
			page.After = page.Mailboxes[limit-1].Address
			break
		}
		page.Mailboxes = append(page.Mailboxes, mailboxOf(m, with))
	}
	return page
}

// addressed is the input of what is about one mailbox.
type addressed struct {
	original
	Address string `path:"address" doc:"The address, or the account as it is listed, such as mail.example.com:587; URL-escaped. Case does not count." example:"reports@example.com"`
}

type getMailboxOutput struct{ Body Mailbox }

func (h *handler) getMailbox(ctx context.Context, in *addressed) (*getMailboxOutput, error) {
	m, err := h.mailbox(ctx, in.Address)
	if err != nil {
		return nil, err
	}
	with, err := h.adviser(ctx)
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	return &getMailboxOutput{mailboxOf(m, with)}, nil
}

// mailbox finds what is listed, and any address that could send. Everything is neither.
func (h *handler) mailbox(ctx context.Context, address string) (*queue.Mailbox, error) {
	all, err := h.queue.Mailboxes(ctx)
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	key := strings.ToLower(address)
	if i := slices.IndexFunc(all, func(m *queue.Mailbox) bool { return m.Key == key }); i >= 0 {
		return all[i], nil
	}
	parsed, invalid := mail.ParseAddress(address)
	if invalid == nil {
		m, err := h.queue.Mailbox(ctx, parsed.Address)
		if err == nil {
			return m, nil
		} else if !errors.Is(err, queue.ErrNotFound) {
			return nil, h.refused(ctx, err)
		}
	}
	switch {
	case len(all) == 0:
		return nil, noSuchMailbox.problem("Give a sender's address. While no provider is active there are no mailboxes: set one, or pause everything with POST /v1/pause.")
	case invalid == nil:
		return nil, noSuchMailbox.problem("The active provider sends everything by the account " + all[0].Key + ": give that.")
	}
	return nil, noSuchMailbox.problem("Give a sender's address, or one of those that GET /v1/mailboxes lists. POST /v1/pause pauses everything.")
}

type pauseInput struct{ original }

type pauseOutput struct{ Body Paused }

func (h *handler) pauseMailbox(ctx context.Context, in *addressed) (*pauseOutput, error) {
	p, err := h.readPause(&in.original)
	if err != nil {
		return nil, err
	}
	m, err := h.mailbox(ctx, in.Address)
	if err != nil {
		return nil, err
	}
	return h.pause(ctx, m.Key, p)
}

func (h *handler) pauseAll(ctx context.Context, in *pauseInput) (*pauseOutput, error) {
	p, err := h.readPause(&in.original)
	if err != nil {
		return nil, err
	}
	return h.pause(ctx, queue.Everything, p)
}

// wanted is a pause that was asked for.
type wanted struct {
	reason   string
	duration time.Duration
}

// maxReason is in characters.
const maxReason = 200

func (h *handler) readPause(r *original) (wanted, error) {
	in := PauseRequest{}
	if err := h.read(r, &in); err != nil {
		return wanted{}, err
	}
	p := invalidRequest.problem("Nothing was paused. Correct what errors names.")
	w := wanted{reason: strings.TrimSpace(in.Reason), duration: defaultPause}
	switch {
	case w.reason == "":
		p.Errors = append(p.Errors, Fault{"/reason", "is needed: say why, as others will wonder"})
	case utf8.RuneCountInString(w.reason) > maxReason:
		p.Errors = append(p.Errors, Fault{"/reason", "is longer than " + strconv.Itoa(maxReason) + " characters"})
	case strings.ContainsFunc(w.reason, func(r rune) bool { return !unicode.IsPrint(r) && !unicode.Is(unicode.Zs, r) }):
		p.Errors = append(p.Errors, Fault{"/reason", "is not one line of text"})
	}
	if in.Duration != "" {
		var err error
		if w.duration, err = ParsePause(in.Duration); err != nil {
			p.Errors = append(p.Errors, Fault{"/duration", pauseFault})
		}
	}
	if p.Errors != nil {
		return wanted{}, p
	}
	return w, nil
}

const (
	defaultPause = 24 * time.Hour
	shortPause   = time.Second
	longPause    = 30 * day
	day          = 24 * time.Hour

	pauseFault = "is not a time from 1s to 30d, such as 90m, 2h or 7d"
)

// ParsePause reads how long a pause is to last: a duration of Go, or a number of days such as "7d"; from 1s to 30d.
func ParsePause(s string) (time.Duration, error) {
	d, err := parseTime(s, longPause)
	if err != nil {
		return 0, errors.New("admin: the duration of a pause " + pauseFault)
	}
	return d, nil
}

// parseTime reads how long something is to last, from a second to longest.
func parseTime(s string, longest time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if number, ok := strings.CutSuffix(s, "d"); ok {
		var days float64
		if days, err = strconv.ParseFloat(number, 64); days >= 0 && days <= longest.Hours()/24 {
			d = time.Duration(days * float64(day))
		}
	}
	if err != nil || d < shortPause || d > longest {
		return 0, errors.New("admin: out of range")
	}
	return d, nil
}

func (h *handler) pause(ctx context.Context, key string, w wanted) (*pauseOutput, error) {
	who, _ := ctx.Value(callerKey{}).(caller)
	until, err := h.queue.Pause(ctx, key, w.duration, w.reason, authorOf(ctx))
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	h.log.Info("paused", "mailbox", key, "by", who.name, "until", until)
	return &pauseOutput{Paused{Address: addressOf(key), Until: until.UTC(),
		Note: "It ends by itself at that time, or by a resume. What is being sent is finished."}}, nil
}

// addressOf gives a key as answers have it: nothing stands for everything.
func addressOf(key string) string {
	if key == queue.Everything {
		return ""
	}
	return key
}

type resumeOutput struct{ Body Resumed }

func (h *handler) resumeMailbox(ctx context.Context, in *addressed) (*resumeOutput, error) {
	m, err := h.mailbox(ctx, in.Address)
	if err != nil {
		return nil, err
	}
	out, err := h.resume(ctx, m.Key)
	if err != nil {
		return nil, err
	}
	// Everything may be paused still.
	if m, err = h.mailbox(ctx, m.Key); err != nil {
		return nil, err
	}
	out.Body.Summary = summary(m)
	return out, nil
}

func (h *handler) resumeAll(ctx context.Context, _ *struct{}) (*resumeOutput, error) {
	out, err := h.resume(ctx, queue.Everything)
	if err != nil {
		return nil, err
	}
	all, err := h.queue.Mailboxes(ctx)
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	silent := 0
	for _, m := range all {
		if m.Hold != nil || m.Pause != nil {
			silent++
		}
	}
	out.Body.Summary = "Nothing stops all mail."
	if silent > 0 {
		out.Body.Summary += fmt.Sprintf(" Mailboxes that are held or paused by themselves: %d.", silent)
	}
	return out, nil
}

func (h *handler) resume(ctx context.Context, key string) (*resumeOutput, error) {
	ended, err := h.queue.Resume(ctx, key, authorOf(ctx))
	if err != nil {
		return nil, h.refused(ctx, err)
	}
	who, _ := ctx.Value(callerKey{}).(caller)
	h.log.Info("resumed", "mailbox", key, "by", who.name, "ended", ended)
	return &resumeOutput{Resumed{Address: addressOf(key), Ended: ended}}, nil
}
