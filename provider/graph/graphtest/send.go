package graphtest

import (
	"cmp"
	"crypto/rand"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/postroom/postroom/mail"
)

// accepted is the answer to what is sent: "It doesn't return anything in the response body"
// (https://learn.microsoft.com/graph/api/user-sendmail#response).
func accepted() *answer { return &answer{status: http.StatusAccepted} }

// sendMail is https://learn.microsoft.com/graph/api/user-sendmail.
func sendMail(c *call) (*answer, *fault) {
	if c.mediaType() == typeMIME {
		m, fault := readMIME(c.body)
		if fault != nil {
			return nil, fault
		}
		return c.send(m, FormMIME, true)
	}
	value, fault := parse(c.body)
	if fault != nil {
		return nil, fault
	}
	given, fault := parameters("sendMail", value, map[string]rule{"message": isAnything, "savetosentitems": isFlag})
	if fault != nil {
		return nil, fault
	}
	if given["message"] == nil {
		return nil, badRequest("The parameter 'message' is missing in the request payload of the operation 'sendMail'.")
	}
	o, fault := readMessage(given["message"])
	if fault != nil {
		return nil, fault
	}
	m := &Message{}
	m.apply(o)
	return c.send(m, FormJSON, given["savetosentitems"] != false && given["savetosentitems"] != "false")
}

// isFlag takes a boolean also as a string: the page's own first example has "false" in quotes.
func isFlag(v any) *fault {
	if text, ok := v.(string); ok && (text == "true" || text == "false") {
		return nil
	}
	return isBool(v)
}

// send sends a message that is no draft.
func (c *call) send(m *Message, form Form, save bool) (*answer, *fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m.Form, m.Saved = form, save
	// Without a copy the message is in Drafts until transport has it (step 1): a full mailbox can't send at all.
	if fault := c.box.room(m.encodedSize()); fault != nil {
		return nil, fault
	}
	// "Note that if you call the CreateItem operation with a message disposition that causes the message to be sent" without
	// recipients, the code is this one and not ErrorMissingRecipients.
	if fault := c.dispatch(m, "ErrorInvalidRecipients"); fault != nil {
		return nil, fault
	}
	if save {
		now := c.opts.Now()
		i := &item{immutable: newID(immutableID), sentID: newID(regularID), message: m.light(), created: now, modified: now, sent: now,
			moved: now.Add(c.opts.SentDelay), size: m.encodedSize()}
		for _, f := range i.message.Files {
			i.attachments = append(i.attachments, &attachment{id: newID(regularID), file: f})
		}
		c.box.store(i)
	}
	return accepted(), nil
}

// dispatch checks a message and hands it to transport. mu is held.
func (c *call) dispatch(m *Message, noRecipients string) *fault {
	limits, to := c.limits(c.box), m.recipients()
	unresolved := slices.IndexFunc(to, func(a mail.Address) bool { return !resolvable(a) })
	switch {
	case c.box.State == Blocked:
		// Documented for consumers' mailboxes only; a business one may instead take the message and bounce it with 5.1.8.
		return refuse(http.StatusForbidden, "ErrorMessageSubmissionBlocked", "Your account has been blocked from sending mail.")
	case len(to) == 0:
		return refuse(http.StatusBadRequest, noRecipients, "At least one recipient is required.")
	case unresolved >= 0:
		return refuse(http.StatusBadRequest, "ErrorInvalidRecipients", "At least one recipient is not valid., Recipient '"+to[unresolved].Address+
			"' is not resolved. All recipients must be resolved before a message can be submitted.")
	case exceeds(len(to), limits.RecipientsPerMessage):
		// Which code Graph has for this is not documented.
		return refuse(http.StatusBadRequest, "ErrorInvalidRecipients", "The recipient limit of "+strconv.Itoa(limits.RecipientsPerMessage)+" is exceeded.")
	case limits.MessageBytes > 0 && m.encodedSize() > limits.MessageBytes:
		return tooLarge()
	}
	for _, from := range []mail.Address{m.From, m.Sender} {
		if from.Address != "" && !c.box.maySendAs(from.Address) {
			// https://learn.microsoft.com/graph/outlook-send-mail-from-other-user
			return refuse(http.StatusForbidden, "ErrorSendAsDenied", "The user account which was used to submit this request does not "+
				"have the right to send mail on behalf of the specified sending account. Cannot submit message.")
		}
	}
	if fault := c.submit(c, len(to)); fault != nil {
		return fault
	}
	m.Mailbox, m.App, m.Time = c.box.address, c.token.app, c.opts.Now()
	m.From.Address = cmp.Or(m.From.Address, c.box.Address)
	m.MessageID = cmp.Or(m.MessageID, newMessageID())
	c.inbox.keep(m)
	return nil
}

func (box *mailbox) maySendAs(address string) bool {
	return strings.EqualFold(address, box.address) || slices.ContainsFunc(box.SendAs, func(a string) bool { return strings.EqualFold(a, address) })
}

func newMessageID() string { return "<" + rand.Text() + "@" + rand.Text()[:12] + ".prod.example>" }

// light is a message without the content of its files, for the copy in a mailbox.
func (m *Message) light() *Message {
	l := *m
	l.Raw, l.Files = nil, nil
	for _, f := range m.Files {
		without := *f
		without.Content = nil
		l.Files = append(l.Files, &without)
	}
	return &l
}
