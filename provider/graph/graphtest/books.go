package graphtest

import (
	"math"
	"net/http"
	"strconv"
	"time"
)

// ledger has the books of everybody. What Microsoft counts for an app and a mailbox
// (https://learn.microsoft.com/graph/throttling-limits#outlook-service-limits) stands by both, what Exchange counts for a mailbox by
// that, and everything also by the tenant.
type ledger struct {
	pairs     map[pair]*books
	mailboxes map[string]*books
	tenant    *books
	limits    Limits // of the tenant
}

type pair struct{ app, mailbox string }

// books keep every stamp that can still count. They know of nothing but times and numbers.
type books struct {
	open                                   int // requests under way
	requests, upload, messages, recipients window
	usage                                  Usage
}

// Usage is what came from a mailbox, or from all of a tenant.
type Usage struct {
	// Requests are all that came with a valid token; Refused are those of them that a limit refused.
	Requests, Refused int
	// Messages and Recipients were accepted.
	Messages, Recipients int
	// UploadBytes are those of the bodies of PATCH, POST and PUT.
	UploadBytes int64
	// MostConcurrent is the largest number of requests under way at once, of one app where it is a mailbox's.
	MostConcurrent int
}

func newLedger(tenant Limits) ledger {
	return ledger{pairs: make(map[pair]*books), mailboxes: make(map[string]*books), tenant: &books{}, limits: tenant}
}

func at[K comparable](m map[K]*books, key K) *books {
	if m[key] == nil {
		m[key] = &books{}
	}
	return m[key]
}

// window keeps the stamps of a limit, the oldest first.
type window struct {
	stamps []stamp
	sum    int64
}

type stamp struct {
	at time.Time
	n  int64
}

// add notes n at now, and forgets what no window of this width that ends now or later has in it.
func (w *window) add(now time.Time, n int64, width time.Duration) {
	w.stamps = append(w.stamps, stamp{now, n})
	w.sum += n
	w.forget(now, width)
}

// forget drops what is older than width. What is exactly as old still counts: both ends are in the window.
func (w *window) forget(now time.Time, width time.Duration) {
	n := 0
	for n < len(w.stamps) && now.Sub(w.stamps[n].at) > width {
		w.sum -= w.stamps[n].n
		n++
	}
	w.stamps = w.stamps[n:]
}

// fits reports whether n more are allowed at now. If not, it says how long to wait until they are, if nothing else comes.
func (w *window) fits(now time.Time, n int64, l Limit) (wait time.Duration, ok bool) {
	if l.Most <= 0 {
		return 0, true
	}
	w.forget(now, l.Window)
	left := w.sum + n
	if left <= l.Most {
		return 0, true
	}
	for _, s := range w.stamps {
		left -= s.n
		if left <= l.Most {
			return s.at.Add(l.Window).Sub(now) + 1, false // At the end of the window it still counts.
		}
	}
	return l.Window, false // It never fits.
}

// enter begins a call in the books, and notes if there are too many at once.
func (t *Tenant) enter(c *call) {
	if c.token == nil || c.box == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c.entered = true
	own, all := t.pair(c), t.books.tenant
	box := at(t.books.mailboxes, c.box.address)
	for _, b := range []*books{own, all} {
		b.open++
		b.usage.MostConcurrent = max(b.usage.MostConcurrent, b.open)
	}
	box.usage.MostConcurrent = max(box.usage.MostConcurrent, own.open)
	box.usage.Requests++
	all.usage.Requests++
	switch {
	case exceeds(own.open, t.limits(c.box).Concurrency):
		// https://github.com/magodo/terraform-provider-outlook/issues/21
		c.over = throttled("concurrency", "ApplicationThrottled", "Application is over its MailboxConcurrency limit.", time.Second)
	case exceeds(all.open, t.books.limits.Concurrency):
		c.over = throttled("tenant concurrency", "ApplicationThrottled", "Application is over its TenantConcurrency limit.", time.Second)
	}
}

func exceeds(n, most int) bool { return most > 0 && n > most }

// pair gives the books of a call's app and mailbox. mu is held.
func (t *Tenant) pair(c *call) *books {
	return at(t.books.pairs, pair{c.token.app, c.box.address})
}

// count stamps a call, and refuses it if it is beyond a limit. That it is refused does not take the stamp back: "all requests
// accrue against your usage limits" (https://learn.microsoft.com/graph/throttling).
func (t *Tenant) count(c *call) *fault {
	if !c.entered || c.counted {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c.counted = true
	now := t.opts.Now()
	c.entry.Counted = now
	var upload int64
	switch c.request.Method {
	case http.MethodPatch, http.MethodPost, http.MethodPut:
		upload = c.entry.Bytes
	}
	at(t.books.mailboxes, c.box.address).usage.UploadBytes += upload
	t.books.tenant.usage.UploadBytes += upload
	over := c.over
	for _, scope := range []struct {
		books  *books
		limits *Limits
		name   string
	}{{t.pair(c), t.limits(c.box), ""}, {t.books.tenant, &t.books.limits, "tenant "}} {
		scope.books.requests.add(now, 1, scope.limits.Requests.Window)
		scope.books.upload.add(now, upload, scope.limits.Upload.Window)
		if wait, ok := scope.books.requests.fits(now, 0, scope.limits.Requests); !ok && over == nil {
			// https://learn.microsoft.com/graph/throttling#sample-response
			over = throttled(scope.name+"requests", "TooManyRequests", "Please retry again later.", wait)
		}
		if wait, ok := scope.books.upload.fits(now, 0, scope.limits.Upload); !ok && over == nil {
			// https://github.com/O365/python-o365/issues/500
			over = throttled(scope.name+"upload", "ApplicationThrottled", "Application is over its IncomingBytes limit.", wait)
		}
	}
	return over
}

// submit takes a message with n recipients from a mailbox's limits and the tenant's, if both have room: all or nothing. mu
// is held.
func (t *Tenant) submit(c *call, n int) *fault {
	now := t.opts.Now()
	box, all := at(t.books.mailboxes, c.box.address), t.books.tenant
	scopes := []struct {
		books  *books
		limits *Limits
		name   string
	}{{box, t.limits(c.box), ""}, {all, &t.books.limits, "tenant "}}
	for _, s := range scopes {
		if wait, ok := s.books.messages.fits(now, 1, s.limits.Messages); !ok {
			return throttled(s.name+"messages", "TooManyRequests", "Please retry again later.", wait)
		}
		if _, ok := s.books.recipients.fits(now, int64(n), s.limits.Recipients); !ok {
			// The code is Exchange's. With which status Graph sends it, and that without a time, is not documented.
			f := refuse(http.StatusTooManyRequests, "ErrorSubmissionQuotaExceeded",
				"The message can't be submitted because the sender's submission quota was exceeded.")
			f.limit = s.name + "recipients"
			return f
		}
	}
	for _, s := range scopes {
		s.books.messages.add(now, 1, s.limits.Messages.Window)
		s.books.recipients.add(now, int64(n), s.limits.Recipients.Window)
		s.books.usage.Messages++
		s.books.usage.Recipients += n
	}
	c.entry.Messages, c.entry.Recipients = 1, n
	return nil
}

// throttled asks to come back after a time, in whole seconds. Outlook sends no other header about limits.
func throttled(limit, code, message string, wait time.Duration) *fault {
	f := refuse(http.StatusTooManyRequests, code, message)
	f.limit = limit
	f.retryAfter = strconv.Itoa(max(int(math.Ceil(wait.Seconds())), 1))
	return f
}
