package graph

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// The steps of an attempt, as they stand in mail.Outcome.Step.
const (
	stepRender     = "render"
	stepSend       = "send"
	stepDraft      = "draft"
	stepAttachment = "attachment"
	stepUpload     = "upload"
	stepVerify     = "verify"
)

// maxAnswer bounds what is read of an answer.
const maxAnswer = 1 << 20

// request is one HTTP request of an attempt.
type request struct {
	step, method, url string
	body              []byte
	contentType       string // "application/json" if there is a body, and nothing else is said
	header            http.Header
	// anonymous leaves the token out: the URL of an upload session is its own credential.
	anonymous bool
	// final says that the message is on its way once the last byte has gone out.
	final bool
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// requestID is Microsoft's name for a request, which its support asks for.
func (a *answer) requestID() string { return a.header.Get("request-id") }

// fault is an outcome that befell the whole attempt.
type fault struct{ mail.Outcome }

func (f *fault) Error() string { return "graph: " + f.Step + ": " + f.Reply }

// attempt is one message on its way.
type attempt struct {
	sender   *Sender
	delivery *provider.Delivery
	mailbox  string
	kept     kept
	ctx      context.Context // ends when we are to stop; past the point of no return it does not matter

	token string // of the last request that showed one

	mu     sync.Mutex
	passed bool  // the point of no return
	why    error // why it must not be passed
}

// pass passes the point of no return, once. An error says that nothing may be handed over.
func (a *attempt) pass() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.passed:
		return nil
	case a.why != nil:
		return a.why
	case a.ctx.Err() != nil:
		a.why = provider.ErrInterrupted
	case a.delivery.Fence != nil:
		a.why = a.delivery.Fence()
	}
	a.passed = a.why == nil
	return a.why
}

func (a *attempt) hasPassed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.passed
}

// body is a request's. Before the last byte of a final one it passes the point of no return.
type body struct {
	attempt *attempt
	left    []byte
	final   bool

	mu     sync.Mutex
	closed bool // there is an answer already; the transport may still be writing
}

var errAnswered = errors.New("graph: the server answered before it had the request")

func (b *body) Read(p []byte) (int, error) {
	if len(b.left) == 0 {
		return 0, io.EOF
	}
	n := min(len(p), len(b.left))
	if n == len(b.left) && b.final {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.closed {
			return 0, errAnswered
		}
		if err := b.attempt.pass(); err != nil {
			return 0, err
		}
	}
	copy(p, b.left[:n])
	b.left = b.left[n:]
	return n, nil
}

func (b *body) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
}

// do makes a request and gives the answer, whatever its status: an expired token is renewed once. An error is a *fault, or says
// that we stopped by ourselves with nothing handed over.
func (a *attempt) do(r request) (*answer, error) {
	for try := 0; ; try++ {
		token := ""
		if !r.anonymous {
			var err error
			if token, err = a.sender.token(a.ctx); err != nil {
				return nil, err
			}
			a.token = token
		}
		answer, err := a.once(r, token)
		if err != nil || answer.status != http.StatusUnauthorized || r.anonymous || try > 0 {
			return answer, err
		}
		// What was refused for its token was not looked at any further.
		a.sender.tokens.Reject(token)
	}
}

// once makes a request.
func (a *attempt) once(r request, token string) (*answer, error) {
	if r.final && len(r.body) == 0 {
		if err := a.pass(); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), a.sender.timeout)
	defer cancel()
	// The end of our time cuts what has not passed the point of no return, and nothing else.
	defer context.AfterFunc(a.ctx, func() {
		if !a.hasPassed() {
			cancel()
		}
	})()
	b := &body{attempt: a, left: r.body, final: r.final}
	h, err := http.NewRequestWithContext(ctx, r.method, r.url, nil)
	if err != nil {
		return nil, ours(mail.Configuration, r.step, "the request's URL is not valid: look at graph_url")
	}
	if len(r.body) > 0 {
		// No GetBody: nothing is ever sent twice behind our back.
		h.Body, h.ContentLength = io.NopCloser(b), int64(len(r.body))
		h.Header.Set("Content-Type", "application/json")
	}
	if r.contentType != "" {
		h.Header.Set("Content-Type", r.contentType)
	}
	if token != "" {
		h.Header.Set("Authorization", "Bearer "+token)
	}
	for name, values := range r.header {
		h.Header[name] = values
	}
	a.count(len(r.body))
	response, err := a.sender.http.Do(h)
	b.close()
	if err != nil {
		return nil, a.broken(r, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil && response.StatusCode/100 == 2 && r.final && response.StatusCode != http.StatusAccepted {
		return nil, a.broken(r, err)
	}
	return &answer{response.StatusCode, response.Header, text}, nil
}

// count notes what a request uses of the mailbox's limits.
func (a *attempt) count(bytes int) {
	if u := a.delivery.Used; u != nil {
		u.Requests++
		u.UploadBytes += int64(bytes)
	}
}

// broken says what a request without an answer means: once the last byte was given to the network nobody knows.
func (a *attempt) broken(r request, err error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case r.final && a.passed:
		o := provider.Disconnected(r.step, err)
		return ours(mail.Unknown, r.step, "no answer to the message: "+o.Reply)
	case a.why != nil:
		return a.why
	case a.ctx.Err() != nil && !a.passed:
		return provider.ErrInterrupted
	}
	return &fault{provider.Disconnected(r.step, err)}
}

// ours is a fault that we found ourselves.
func ours(class mail.Class, step, words string) *fault {
	o := mail.Outcome{Class: class, Step: step, Reply: words}
	if class == mail.Configuration {
		o.Scope = mail.ScopeProvider
	}
	return &fault{o}
}

// post makes a request with v as its JSON.
func (a *attempt) post(r request, v any) (*answer, error) {
	var err error
	if r.body, err = encode(v); err != nil {
		return nil, ours(mail.Permanent, stepRender, "the message can't be written as JSON")
	}
	r.method = http.MethodPost
	return a.do(r)
}

// decode reads an answer's JSON into v.
func (a *answer) decode(v any) error {
	if err := json.NewDecoder(bytes.NewReader(a.body)).Decode(v); err != nil {
		return fmt.Errorf("graph: answer: %w", err)
	}
	return nil
}

// defaultTimeout bounds one request: long enough for the largest on a slow line.
const defaultTimeout = 3 * time.Minute
