package graphtest

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
)

// createDraft is https://learn.microsoft.com/graph/api/user-post-messages.
func createDraft(c *call) (*answer, *fault) {
	m := &Message{Form: FormDraft, Saved: true}
	if c.mediaType() == typeMIME {
		var fault *fault
		if m, fault = readMIME(c.body); fault != nil {
			return nil, fault
		}
		m.Form, m.Saved = FormDraft, true
	} else {
		value, fault := parse(c.body)
		if fault != nil {
			return nil, fault
		}
		o, fault := readMessage(value)
		if fault != nil {
			return nil, fault
		}
		m.apply(o)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if fault := c.fits(m, 0); fault != nil {
		return nil, fault
	}
	m.MessageID = cmp.Or(m.MessageID, newMessageID())
	now := c.opts.Now()
	i := &item{immutable: newID(immutableID), draftID: newID(regularID), message: m, created: now, modified: now, size: m.encodedSize()}
	for _, f := range m.Files {
		i.attachments = append(i.attachments, &attachment{id: newID(regularID), file: f})
	}
	c.box.store(i)
	return c.answerItem(http.StatusCreated, i), nil
}

// fits refuses a message that has become too large for its mailbox. mu is held.
func (c *call) fits(m *Message, before int64) *fault {
	size := m.encodedSize()
	if most := c.limits(c.box).MessageBytes; most > 0 && size > most {
		return tooLarge()
	}
	return c.box.room(size - before)
}

// answerItem shows an item. mu is held.
func (c *call) answerItem(status int, i *item) *answer {
	shown := c.show(i)
	shown["@odata.context"] = c.GraphURL() + "/v1.0/$metadata#users('" + c.address + "')/messages/$entity"
	a := jsonAnswer(status, c.selected(shown))
	if c.immutable() {
		a.set("Preference-Applied", `IdType="ImmutableId"`)
	}
	return a
}

// getMessage is https://learn.microsoft.com/graph/api/message-get.
func getMessage(c *call) (*answer, *fault) {
	if fault := c.options("$select"); fault != nil {
		return nil, fault
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i, fault := c.find()
	if fault != nil {
		return nil, fault
	}
	return c.answerItem(http.StatusOK, i), nil
}

// updatable are the properties that https://learn.microsoft.com/graph/api/message-update lists, as far as they matter to sending.
var updatable = []string{"subject", "body", "from", "sender", "toRecipients", "ccRecipients", "bccRecipients", "replyTo", "importance",
	"internetMessageId", "isDeliveryReceiptRequested", "isReadReceiptRequested", "isRead", "categories", "flag",
	"inferenceClassification", "singleValueExtendedProperties", "multiValueExtendedProperties"}

// updateMessage is https://learn.microsoft.com/graph/api/message-update. Of what was sent nothing can be changed here.
func updateMessage(c *call) (*answer, *fault) {
	value, fault := parse(c.body)
	if fault != nil {
		return nil, fault
	}
	o, fault := readMessage(value)
	if fault != nil {
		return nil, fault
	}
	for name := range o {
		if !strings.HasPrefix(name, "@odata.") && !slices.Contains(updatable, name) {
			return nil, readOnly()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i, fault := c.draft()
	if fault != nil {
		return nil, fault
	}
	changed := *i.message
	changed.apply(o)
	if fault := c.fits(&changed, i.size); fault != nil {
		return nil, fault
	}
	i.message, i.modified = &changed, c.opts.Now()
	c.box.resize(i, changed.encodedSize())
	return c.answerItem(http.StatusOK, i), nil
}

// deleteMessage is https://learn.microsoft.com/graph/api/message-delete.
func deleteMessage(c *call) (*answer, *fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, fault := c.find()
	if fault != nil {
		return nil, fault
	}
	if now := c.opts.Now(); !i.sent.IsZero() && now.Before(i.moved) {
		return nil, itemNotFound() // It is on its way, and nothing takes it back.
	}
	c.box.remove(i)
	c.endUploads(i)
	return &answer{status: http.StatusNoContent}, nil
}

// sendDraft is https://learn.microsoft.com/graph/api/message-send. It always saves. What has been sent can't be sent again: the
// page says "an existing draft message"; with which code Graph refuses another is not documented.
func sendDraft(c *call) (*answer, *fault) {
	if c.request.ContentLength < 0 {
		// "Content-Length | number | 0. Required."
		return nil, refuse(http.StatusLengthRequired, "LengthRequired", "A Content-Length header is required on the request.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i, fault := c.find()
	switch {
	case fault != nil:
		return nil, fault
	case i.shown(c.opts.Now(), c.opts.SentAsDraft) == folderSent:
		return nil, refuse(http.StatusBadRequest, "ErrorInvalidRequest", "The message is not a draft.")
	case !i.sent.IsZero():
		return nil, itemNotFound()
	}
	if c.box.State == Full {
		return nil, c.box.room(0)
	}
	m := *i.message
	if fault := c.dispatch(&m, "ErrorMissingRecipients"); fault != nil {
		return nil, fault
	}
	now := c.opts.Now()
	i.message, i.sent, i.moved, i.modified = m.light(), now, now.Add(c.opts.SentDelay), now
	i.sentID = newID(regularID)
	c.box.items[i.sentID] = i
	c.endUploads(i) // What was not there yet does not go out.
	return accepted(), nil
}
