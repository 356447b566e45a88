package graph

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// A message that is too large for one request, and each with verify_sends, goes by a draft. What is kept of it between attempts
// is one of these words and its immutable id; and for how many of the recipients it is, the first ones, of how many who were
// pending. Only one that was ready may have been sent. A lost one was not there any more when it was to be sent: an earlier
// request may have sent it without that being seen yet.
const (
	building = "building"
	ready    = "ready"
	lost     = "lost"
)

// kept is what an earlier attempt kept of a draft; the zero value: nothing.
type kept struct {
	state, id   string
	offered, of int
}

// keptOf gives what was kept for the recipients of d. When others were pending the draft was for those, and has been settled.
func keptOf(d *provider.Delivery) kept {
	var k kept
	if _, err := fmt.Sscan(d.Kept, &k.state, &k.id, &k.offered, &k.of); err != nil || k.of != len(d.Recipients) || k.offered > k.of {
		return kept{}
	}
	return k
}

func (k kept) String() string {
	if k.state == "" {
		return ""
	}
	return fmt.Sprintf("%s %s %d %d", k.state, k.id, k.offered, k.of)
}

// itemNotFound is Exchange's code for a message that is not there, or is on its way out.
const itemNotFound = "ErrorItemNotFound"

// immutable asks for an id that stays the same when the message is sent ("Obtain immutable identifiers for Outlook resources").
var immutable = http.Header{"Prefer": {`IdType="ImmutableId"`}}

// cleanTime bounds what is cleaned up when we are to stop.
const cleanTime = 10 * time.Second

// byDraft sends by a draft: the one of an earlier attempt if it was ready, else a new one. Of a lost one Verify has been asked.
func (a *attempt) byDraft(m message, files []*mail.File) (mail.Outcome, error) {
	if a.kept.state == ready {
		return a.sendDraft(a.kept.id)
	}
	if a.kept.state == building {
		if err := a.remove(a.ctx, a.kept.id); err != nil {
			return mail.Outcome{}, err
		}
	} else if a.delivery.Retried {
		if err := a.removeOrphans(); err != nil {
			return mail.Outcome{}, err
		}
	}
	id, err := a.build(m, files)
	if err != nil {
		return mail.Outcome{}, a.abandon(id, err)
	}
	return a.sendDraft(id)
}

// build makes a draft that is complete. The id is that of the draft, if there is one, also beside an error.
func (a *attempt) build(m message, files []*mail.File) (id string, err error) {
	m.Properties = append(m.Properties, property{ourID, a.delivery.Message.ID})
	r := request{step: stepDraft, url: a.user("/messages"), header: immutable}
	got, err := a.post(r, m)
	if err != nil {
		return "", err
	}
	if got.status != http.StatusCreated {
		return "", a.refusal(r, got)
	}
	var made struct {
		ID string `json:"id"`
	}
	if err := got.decode(&made); err != nil || made.ID == "" {
		return "", ours(mail.Temporary, stepDraft, "the answer has no id of the draft")
	}
	a.kept = kept{id: made.ID, offered: a.offers(), of: len(a.delivery.Recipients)}
	if err := a.keep(building); err != nil {
		return made.ID, err
	}
	for _, f := range files {
		if err := a.attach(made.ID, f); err != nil {
			return made.ID, err
		}
	}
	return made.ID, a.keep(ready)
}

// keep stores what is to be known of the draft should this worker die: its state, "" if there is none any more. Without it nothing
// goes on.
func (a *attempt) keep(state string) error {
	a.kept.state = state
	if a.delivery.Keep == nil {
		return nil
	}
	if err := a.delivery.Keep(a.kept.String()); err != nil {
		return fmt.Errorf("graph: keep: %w", err)
	}
	a.delivery.Kept = a.kept.String()
	return nil
}

// sendDraft sends a draft that is ready.
func (a *attempt) sendDraft(id string) (mail.Outcome, error) {
	r := request{step: stepSend, method: http.MethodPost, url: a.draft(id, "/send"), header: immutable, final: true}
	got, err := a.do(r)
	o, err := a.accepted(r, got, err)
	f, ok := err.(*fault)
	switch {
	case err == nil, ok && f.Class == mail.Unknown: // Verify finds it by its id
		return o, err
	case ok && f.Enhanced == itemNotFound:
		return o, a.lose()
	}
	return o, a.abandon(id, err)
}

// lose says of a draft that was ready that it is not there any more. It is not sent by another at once: a request that nobody
// heard the answer to may have sent it, and Sent Items not show it yet.
func (a *attempt) lose() error {
	if err := a.keep(lost); err != nil {
		return err
	}
	return ours(mail.Unknown, stepSend, "the draft is not there any more: it may have been sent")
}

func (a *attempt) draft(id, path string) string {
	return a.user("/messages/" + url.PathEscape(id) + path)
}

// abandon removes a draft that is not going to be sent by this attempt, and gives why. A mailbox that is throttled is left in
// peace: the next attempt finds what was kept.
func (a *attempt) abandon(id string, why error) error {
	if f, ok := why.(*fault); id == "" || ok && f.Class == mail.Throttled {
		return why
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), cleanTime)
	defer cancel()
	if a.remove(ctx, id) == nil {
		_ = a.keep("") // else the next attempt finds that it is gone
	}
	return why
}

// removeOrphans deletes drafts of the message whose ids nobody has noted, as the worker died, or the connection broke, when they were
// made. They are found by our message's id.
func (a *attempt) removeOrphans() error {
	query := url.Values{"$select": {"id"}, "$filter": {"singleValueExtendedProperties/any(ep: ep/id eq '" + ourID + "' and ep/value eq '" + a.delivery.Message.ID + "')"}}
	r := request{step: stepDraft, method: http.MethodGet, url: a.user("/mailFolders/drafts/messages?" + strings.ReplaceAll(query.Encode(), "+", "%20")), header: immutable}
	got, err := a.do(r)
	if err != nil {
		return err
	}
	if got.status != http.StatusOK {
		if f := a.refusal(r, got); f.Class != mail.Permanent {
			return f
		}
		return nil // a draft too many is better than a message that can't go
	}
	var found struct {
		Value []struct {
			ID string `json:"id"`
		} `json:"value"`
	}
	if err := got.decode(&found); err != nil {
		return ours(mail.Temporary, stepDraft, "the list of drafts can't be read")
	}
	for _, draft := range found.Value {
		if err := a.remove(a.ctx, draft.ID); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes a draft; one that is gone already is fine.
func (a *attempt) remove(ctx context.Context, id string) error {
	cleaning := &attempt{sender: a.sender, delivery: a.delivery, mailbox: a.mailbox, ctx: ctx}
	r := request{step: stepDraft, method: http.MethodDelete, url: a.draft(id, ""), header: immutable}
	got, err := cleaning.do(r)
	if err != nil {
		return err
	}
	if got.status != http.StatusNoContent && got.status != http.StatusNotFound {
		return cleaning.refusal(r, got)
	}
	return nil
}
