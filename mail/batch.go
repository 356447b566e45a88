package mail

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"
)

// Validate checks the batch as Message.Validate checks a message, and fills every template once for every recipient: what
// passes can be sent.
//
// The error is an *Invalid about the shared message or the batch as a whole: then nothing can be accepted. Refused has the
// problems of each recipient that cannot be accepted, by index; the others can. All fields are pointers into the batch.
// The message and each recipient that has no problem are brought into canonical form.
func (b *Batch) Validate(l Limits, now time.Time) (refused map[int][]Problem, err error) {
	check, p := newBatchCheck(b.Message, l, now)
	if len(b.Recipients) == 0 {
		p.add("/recipients", "is empty: name at least one")
	} else if many := check.Room(len(b.Recipients)); many != nil {
		p.add(many.Field, many.Reason)
		return nil, p.err()
	}
	for i := range b.Recipients {
		r, problems := check.Recipient(i, b.Recipients[i])
		if len(problems) == 0 {
			b.Recipients[i] = r
			continue
		}
		if refused == nil {
			refused = make(map[int][]Problem)
		}
		refused[i] = problems
	}
	if err := p.err(); err != nil {
		return refused, err
	}
	b.Message = *check.shared
	return refused, nil
}

// BatchCheck checks a batch piece by piece, as Batch.Validate does: first what all share, then one recipient after the other.
type BatchCheck struct {
	limits Limits
	shared *Message
	// content is nil if the templates cannot or need not be filled.
	content *Content
	// unsubscribes says that a template uses unsubscribeVariable.
	unsubscribes bool
	// others is the number of addresses in the message's Cc and Bcc.
	others int
	// room is what is left of MaxBytes for text and html.
	room int64
}

// NewBatchCheck checks what a batch's messages share. The error is an *Invalid with every fault, whose fields are pointers into the
// batch.
func NewBatchCheck(m Message, l Limits, now time.Time) (*BatchCheck, error) {
	c, p := newBatchCheck(m, l, now)
	if err := p.err(); err != nil {
		return nil, err
	}
	return c, nil
}

func newBatchCheck(m Message, l Limits, now time.Time) (*BatchCheck, *problems) {
	l = l.orDefault()
	p := &problems{at: "/message"}
	shared := p.message(m, l, now)
	if len(shared.To) > 0 {
		p.add("/to", "is not empty: name the recipients in recipients")
	}
	templates := shared
	templates.Attachments = nil // which would be encoded, for nothing
	content, err := NewContent(&templates, true)
	if invalid, ok := err.(*Invalid); ok {
		for _, one := range invalid.Problems {
			p.add(one.Field, one.Reason)
		}
	}
	p.at = ""
	c := &BatchCheck{limits: l, shared: &shared, content: content, others: len(shared.Cc) + len(shared.Bcc)}
	c.unsubscribes = content != nil && slices.Contains(content.Variables(), unsubscribeVariable)
	c.room = l.MaxBytes - shared.encodedSize() + quotedSize(shared.Text) + quotedSize(shared.HTML)
	if c.room < 0 {
		p.add("/message", tooLarge(l))
		c.content = nil
	}
	return c, p
}

// Message gives what is shared in canonical form.
func (c *BatchCheck) Message() Message { return *c.shared }

// Forget lets go of what is in the files: recipients are checked against their names alone.
func (c *BatchCheck) Forget() {
	c.shared.Attachments = slices.Clone(c.shared.Attachments)
	for i := range c.shared.Attachments {
		c.shared.Attachments[i].Content = nil
	}
}

// Recipient checks the recipient with an index, and gives it in canonical form; the problems say why it can't be accepted.
func (c *BatchCheck) Recipient(i int, r Recipient) (Recipient, []Problem) {
	own := problems{at: element("/recipients", i)}
	r = c.recipient(&own, r)
	return r, own.list
}

// Room says what is wrong with a batch of n recipients; nil if nothing is.
func (c *BatchCheck) Room(n int) *Problem {
	if n <= c.limits.MaxBatch {
		return nil
	}
	return &Problem{Field: "/recipients", Reason: "has more than " + strconv.Itoa(c.limits.MaxBatch) + " entries: split the batch"}
}

// recipient checks r and gives it in canonical form.
func (c *BatchCheck) recipient(p *problems, r Recipient) Recipient {
	if len(r.To) == 0 {
		p.add("/to", "is empty: name at least one address")
	}
	r.To = p.addresses("/to", r.To, make(map[string]bool, len(r.To)))
	if len(r.To)+c.others > c.limits.MaxRecipients {
		p.add("/to", tooManyRecipients(c.limits))
	}
	p.add("/list_unsubscribe", unsubscribeFault(r.ListUnsubscribe))
	if len(r.Variables) > maxVariables {
		p.add("/variables", "has more than "+strconv.Itoa(maxVariables)+" entries")
	}
	r.Attachments = p.attachments(r.Attachments, c.shared.Attachments)
	own := int64(0)
	for i := range r.Attachments {
		if r.Attachments[i].Ref == "" {
			p.add(element("/attachments", i)+"/ref", "is missing: store the file with POST /v1/contents and give ref, as a recipient's own file can't be in content")
		}
		own += perPart + base64Size(r.Attachments[i].size())
	}
	before := len(p.list)
	for _, name := range slices.Sorted(maps.Keys(r.Variables)) {
		if !isVariable(name) {
			p.add("/variables", "has a name that is empty, not valid UTF-8 or longer than "+strconv.Itoa(maxWord)+" bytes")
		}
		p.add(entry("/variables", name), variableFault(r.Variables[name]))
	}
	if c.content == nil || len(p.list) > before {
		return r
	}
	r.Variables = c.withUnsubscribe(r)
	_, text, html := c.content.fill(p, r.Variables)
	switch room := c.room - quotedSize(text) - quotedSize(html); {
	case room < 0:
		p.add("/variables", "makes a message that "+tooLarge(c.limits))
	case room < own:
		p.add("/attachments", "makes a message that "+tooLarge(c.limits))
	}
	return r
}

// unsubscribeVariable is the variable that a recipient has without giving it: the URI for unsubscribing, for a link in the text.
const unsubscribeVariable = "list_unsubscribe"

// withUnsubscribe gives the recipient's variables, with that one if a template uses it.
func (c *BatchCheck) withUnsubscribe(r Recipient) map[string]any {
	uri := cmp.Or(r.ListUnsubscribe, c.shared.ListUnsubscribe)
	if _, given := r.Variables[unsubscribeVariable]; given || uri == "" || !c.unsubscribes {
		return r.Variables
	}
	variables := make(map[string]any, len(r.Variables)+1)
	maps.Copy(variables, r.Variables)
	variables[unsubscribeVariable] = uri
	return variables
}
