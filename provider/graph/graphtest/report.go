package graphtest

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Request is one that came, as the tenant saw it.
type Request struct {
	Operation Operation
	// App and Mailbox are empty as long as they are not known. Mailbox is in lower case.
	App, Mailbox string
	// Protocol is like "HTTP/1.1".
	Protocol string
	// Counted and Replied are zero for what was not counted by the books and is not over yet.
	Arrived, Counted, Replied time.Time
	// Bytes are those of the body that came.
	Bytes int64
	// Messages and Recipients were accepted by it.
	Messages, Recipients int
	// Status and Code are those of the answer; Status 0 is a connection that was cut.
	Status int
	Code   string
	// Limit is the one that refused it, if one did: "requests", "upload", "concurrency", "messages", "recipients", or one of
	// these after "tenant ".
	Limit string
	// Mishap is set if something was made to go wrong.
	Mishap bool
	// Accepted is set if it had its effect, whatever the client was told.
	Accepted bool
}

// requestLog keeps requests in the order in which they came.
type requestLog struct {
	most    int
	entries []*Request
	came    int
	tokens  int
}

// arrive notes a call in the log.
func (t *Tenant) arrive(c *call) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.entry = &Request{Operation: c.operation, Mailbox: strings.ToLower(c.address), Protocol: c.request.Proto, Arrived: t.opts.Now()}
	l := &t.log
	l.came++
	if c.operation == GetToken {
		l.tokens++
	}
	l.entries = append(l.entries, c.entry)
	if len(l.entries) > l.most {
		l.entries[0] = nil
		l.entries = l.entries[1:]
	}
}

// mark changes a call's entry.
func (t *Tenant) mark(c *call, change func(*Request)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change(c.entry)
}

// leave ends a call in the books and in the log.
func (t *Tenant) leave(c *call, a *answer) {
	_ = t.count(c) // If it was not counted it has failed already.
	t.mu.Lock()
	defer t.mu.Unlock()
	e := c.entry
	e.Replied = t.opts.Now()
	if a != nil {
		e.Status, e.Code = a.status, a.code
	}
	if !c.entered {
		return
	}
	own, box, all := t.pair(c), at(t.books.mailboxes, c.box.address), t.books.tenant
	own.open--
	all.open--
	if e.Limit != "" {
		box.usage.Refused++
		all.usage.Refused++
	}
}

// Requests gives the requests that came, in their order; at most Options.MaxRequests, the last ones.
func (t *Tenant) Requests() []Request {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Request, len(t.log.entries))
	for i, e := range t.log.entries {
		all[i] = *e
	}
	return all
}

// Refusals gives those of Requests that a limit refused.
func (t *Tenant) Refusals() []Request {
	var refused []Request
	for _, r := range t.Requests() {
		if r.Limit != "" {
			refused = append(refused, r)
		}
	}
	return refused
}

// TokenRequests is how often the token endpoint was asked.
func (t *Tenant) TokenRequests() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.log.tokens
}

// Usage is what came from a mailbox, or, with an empty address, from all of them.
func (t *Tenant) Usage(address string) Usage {
	t.mu.Lock()
	defer t.mu.Unlock()
	if address == "" {
		return t.books.tenant.usage
	}
	if b := t.books.mailboxes[strings.ToLower(address)]; b != nil {
		return b.usage
	}
	return Usage{}
}

// Obeyed says what limits were not kept, or that nothing was sent, which would prove nothing.
func (t *Tenant) Obeyed() error {
	u := t.Usage("")
	if u.Messages == 0 {
		return errors.New("graphtest: no message was accepted: this proves nothing")
	}
	if u.Refused == 0 {
		return nil
	}
	refused := make(map[string]int)
	for _, r := range t.Refusals() {
		refused[r.Limit]++
	}
	return fmt.Errorf("graphtest: of %d requests, %d were refused for a limit: %v", u.Requests, u.Refused, refused)
}
