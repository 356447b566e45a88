package graphtest

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// door is what the hosts differ in.
type door interface {
	// route finds out what is asked for.
	route(*call) *fault
	// admit checks who asks.
	admit(*call) *fault
	// refusal gives a fault the form that the host's errors have.
	refusal(*call, *fault) *answer
	// most is the largest body taken.
	most(*call) int64
}

// call is one request while it is handled.
type call struct {
	*Tenant
	door      door
	request   *http.Request
	operation Operation
	// entry is the call's place in the log.
	entry *Request
	id    string // request-id

	address string // of the mailbox, as it was asked for
	target  string // the message's or upload session's id
	folder  string
	needs   []string // permissions, of which one is enough
	handle  func(*call) (*answer, *fault)

	token  *token
	box    *mailbox
	upload *upload
	body   []byte
	// over is a limit that was exceeded by coming at all.
	over    *fault
	entered bool // the books know that the call is under way
	counted bool
}

// open gives the handler of a host.
func (t *Tenant) open(d door) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !t.begin() {
			panic(http.ErrAbortHandler)
		}
		defer t.calls.Done()
		c := &call{Tenant: t, door: d, request: r, id: newGUID()}
		fault := d.route(c)
		t.arrive(c)
		a := t.exchange(c, fault)
		// The place is free before the client can know that it is.
		t.leave(c, a)
		if a == nil {
			c.cut()
		}
		t.write(w, c, a)
	})
}

// begin notes that a request is under way, for Close to wait for. It reports whether the tenant is still there.
func (t *Tenant) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-t.closed:
		return false
	default:
		t.calls.Add(1)
		return true
	}
}

// exchange goes through the moments of a call. It gives the answer, or nil if the connection is to be cut.
func (t *Tenant) exchange(c *call, fault *fault) *answer {
	latency := t.latency()
	if f := c.door.admit(c); f != nil {
		fault = f // Who may not ask is not told what is wrong with the question.
	}
	t.enter(c)
	if a, stop := t.strike(c, Arrived); stop {
		if a != nil {
			t.drain(c)
		}
		return a
	}
	if a, stop := t.read(c); stop {
		return a
	}
	if a, stop := t.strike(c, Received); stop {
		return a
	}
	if !t.pause(latency.before) {
		return nil
	}
	if f := t.count(c); fault == nil {
		fault = f
	}
	if fault == nil && int64(len(c.body)) > c.door.most(c) {
		// https://learn.microsoft.com/graph/errors#http-status-codes; the code is that of
		// https://github.com/microsoftgraph/microsoft-graph-docs-contrib/issues/682.
		fault = refuse(http.StatusRequestEntityTooLarge, "BadRequest", "The maximum request length supported is 4MB.")
	}
	var done *answer
	if fault == nil {
		if done, fault = c.handle(c); fault == nil {
			t.mark(c, func(r *Request) { r.Accepted = true })
		}
	}
	if !t.pause(latency.after) {
		return nil
	}
	if fault != nil {
		if fault.limit != "" {
			t.mark(c, func(r *Request) { r.Limit = fault.limit })
		}
		return c.door.refusal(c, fault)
	}
	if a, stop := t.strike(c, Accepted); stop {
		return a
	}
	return done
}

// moments are how long a call waits before and after it is counted and has its effect.
type moments struct{ before, after time.Duration }

func (t *Tenant) latency() moments {
	if t.opts.Latency <= 0 {
		return moments{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	all := time.Duration(t.random.Int64N(int64(2*t.opts.Latency) + 1))
	before := time.Duration(t.random.Int64N(int64(all) + 1))
	return moments{before, all - before}
}

// pause waits, whether or not the client still does: a server does not stop because its client has gone. It reports whether
// the tenant is still there afterwards.
func (t *Tenant) pause(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-t.closed:
		return false
	}
}

// read takes the body, with the mishap that may come in its middle.
func (t *Tenant) read(c *call) (a *answer, stop bool) {
	var body bytes.Buffer
	if t.struck(c, Halfway) {
		_, _ = io.CopyN(&body, c.request.Body, max(c.request.ContentLength/2, 1))
		t.received(c, body.Len())
		if a, stop := t.strike(c, Halfway); stop {
			if a != nil {
				t.drain(c)
			}
			return a, true
		}
	}
	_, err := io.CopyN(&body, c.request.Body, max(c.door.most(c)+1-int64(body.Len()), 0))
	t.received(c, body.Len())
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, true // The client has cut the connection.
	}
	c.body = body.Bytes()
	t.drain(c)
	return nil, false
}

func (t *Tenant) received(c *call, n int) {
	t.mark(c, func(r *Request) { r.Bytes = int64(n) })
}

// drain reads what the client still sends, so that it gets to see the answer and not a broken pipe.
func (t *Tenant) drain(c *call) {
	rest, _ := io.Copy(io.Discard, c.request.Body)
	t.mark(c, func(r *Request) { r.Bytes += rest })
}

// cut ends the connection as a broken line does: without an answer and, with TLS, without a word of farewell. With HTTP/2
// that ends everything else on the connection, too.
func (c *call) cut() {
	if conn, ok := c.request.Context().Value(connKey{}).(net.Conn); ok {
		if over, ok := conn.(*tls.Conn); ok {
			conn = over.NetConn()
		}
		_ = conn.Close()
	}
	panic(http.ErrAbortHandler)
}

func (t *Tenant) write(w http.ResponseWriter, c *call, a *answer) {
	h := w.Header()
	for name, values := range a.header {
		h[name] = values
	}
	h.Set("request-id", c.id)
	h.Set("client-request-id", c.clientID())
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(a.body)))
	if a.status == http.StatusNoContent {
		h.Del("Content-Length")
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
}

// clientID is the client-request-id: the client's own if it sent one.
func (c *call) clientID() string {
	if id := c.request.Header.Get("client-request-id"); id != "" {
		return id
	}
	return c.id
}
