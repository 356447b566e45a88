// Package graph hands messages over by Microsoft Graph (v1.0, sendMail and drafts). What Graph answers is judged here, once. No
// request is ever repeated by itself, but for a token that has run out.
package graph

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// Options are what does not depend on the settings. Tokens is needed; the zero value of the rest is good for production.
type Options struct {
	Tokens provider.Tokens
	// HTTP makes the requests; by default a client with connections of its own. It must not repeat requests by itself, nor follow
	// redirects.
	HTTP *http.Client
	// Guard says where requests may not go. It does not look at those of an HTTP that is given.
	Guard *provider.Guard
	// Timeout bounds each request; default 3 min.
	Timeout time.Duration
	// Patience is how long Verify waits for a message to appear among those that were sent; default 20 s.
	Patience time.Duration
}

// Sender hands messages over. It is safe for concurrent use.
type Sender struct {
	base     string // without a slash at its end
	from     mail.Address
	saves    bool
	verifies bool
	tokens   provider.Tokens
	http     *http.Client
	timeout  time.Duration
	patience time.Duration
}

var (
	_ provider.Sender   = (*Sender)(nil)
	_ provider.Verifier = (*Sender)(nil)
)

// New makes a Sender. It does not connect. Settings that are no good are a *mail.Invalid.
func New(settings provider.Settings, o Options) (*Sender, error) {
	settings.Defaults()
	if settings.Kind != provider.KindMicrosoft365 {
		return nil, fmt.Errorf("graph: settings are for a provider of kind %s", settings.Kind)
	}
	if problems := settings.Validate(); len(problems) > 0 {
		return nil, fmt.Errorf("graph: settings: %w", &mail.Invalid{Problems: problems})
	}
	s := &Sender{
		base: settings.Microsoft365.Graph(), from: settings.Sender, saves: settings.Microsoft365.SaveToSentItems,
		verifies: settings.Microsoft365.VerifySends,
		tokens:   o.Tokens, http: o.HTTP, timeout: o.Timeout, patience: o.Patience,
	}
	if s.http == nil {
		s.http = newClient(settings.Limits.Concurrency, o.Guard)
	}
	if s.timeout <= 0 {
		s.timeout = defaultTimeout
	}
	if s.patience <= 0 {
		s.patience = 20 * time.Second
	}
	return s, nil
}

// newClient keeps connections, speaks HTTP/2 where it is offered, and follows nobody elsewhere.
func newClient(concurrency int, guard *provider.Guard) *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = max(concurrency, 16)
	t.IdleConnTimeout = 30 * time.Second // before the server ends it: a request on a connection that is just ending is unknown
	t.ResponseHeaderTimeout = 0          // the request's own bounds it
	t.DialContext = (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second, Control: guard.Control}).DialContext
	return &http.Client{Transport: guard.Transport(t), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// Close implements provider.Sender.
func (s *Sender) Close() error {
	s.http.CloseIdleConnections()
	return nil
}

// token gives an access token, or a *fault.
func (s *Sender) token(ctx context.Context) (string, error) {
	token, err := s.tokens.Token(ctx)
	if err == nil {
		return token, nil
	}
	if o, ok := provider.NoToken(err); ok {
		return "", &fault{o}
	}
	return "", err
}

// Send implements provider.Sender. Of more recipients than a message may have the first go; the others are put off, and can have
// it at once.
func (s *Sender) Send(ctx context.Context, d *provider.Delivery) ([]mail.Outcome, error) {
	a := s.begin(ctx, d)
	if o, exceeded := d.Bounds.Exceeded(encodedSize(d.Message)); exceeded {
		// Limits have shrunk since. A draft that was ready may have been sent: only of what was not is its size to be judged.
		if a.kept.state == ready || a.kept.state == lost {
			if asked, err := s.Verify(ctx, d); err != nil || asked[0].Cause != mail.NotSent {
				return asked, err
			}
		}
		_ = a.abandon(a.kept.id, nil)
		return provider.All(len(d.Recipients), o), nil
	}
	outcomes := provider.All(len(d.Recipients), d.Bounds.PutOff(stepSend))
	offered := d.Recipients[:a.offers()]
	o, err := a.send(offered)
	var f *fault
	switch {
	case errors.As(err, &f):
		o = f.Outcome
	case err != nil:
		return nil, err
	}
	if u := d.Used; u != nil && a.hasPassed() {
		u.Messages, u.Recipients = u.Messages+1, u.Recipients+len(offered)
	}
	for i := range offered {
		outcomes[i] = o
	}
	return outcomes, nil
}

// offers is how many of the recipients are offered at once: the first ones. A draft has those that it was made for.
func (a *attempt) offers() int {
	if a.kept.state == ready || a.kept.state == lost {
		return a.kept.offered
	}
	return a.delivery.Bounds.Offers(len(a.delivery.Recipients))
}

func (s *Sender) begin(ctx context.Context, d *provider.Delivery) *attempt {
	mailbox := d.Message.From.Address
	if mailbox == "" {
		mailbox = s.from.Address
	}
	return &attempt{sender: s, delivery: d, mailbox: mailbox, ctx: ctx, kept: keptOf(d)}
}

// Bounds of requests. Graph takes about 4 MB: attachments of together 3 MB as base64, and the rest.
const (
	maxRequest = 4_000_000
	// minUpload is the smallest file that an upload session takes (Microsoft Graph, "Attach large files"). One that is smaller by
	// no more than what the rest of a request takes of its 4 MB fits neither way: Exchange says so.
	minUpload = 3 << 20
	// RangeBytes is how much of a larger one is uploaded at once: a multiple of 320 KiB, at most 4 MB.
	RangeBytes = 10 * 320 << 10
	// OneRequestBytes is the size of content, texts and files together, that goes in one request in any case.
	OneRequestBytes = 1_900_000
)

// send hands the message over to those who are offered, and gives the outcome they share.
func (a *attempt) send(offered []mail.Address) (mail.Outcome, error) {
	m, err := newMessage(a.delivery.Message, offered)
	if err != nil {
		return mail.Outcome{}, ours(mail.Permanent, stepRender, err.Error())
	}
	files := a.delivery.Message.Files
	text := len(m.Body.Content) + len(m.Subject)
	if text > maxRequest/2 {
		f := ours(mail.Permanent, stepRender, "the text of the message is larger than Microsoft Graph takes")
		f.Cause = mail.TooLarge
		return mail.Outcome{}, f
	}
	if a.sender.verifies || a.delivery.Kept != "" || encodedLen(files) > maxRequest-2*text-64<<10 {
		return a.byDraft(m, files)
	}
	for _, f := range files {
		m.Files = append(m.Files, fileOf(f))
	}
	r := request{step: stepSend, url: a.user("/sendMail"), final: true}
	got, err := a.post(r, sendMail{m, a.sender.saves})
	return a.accepted(r, got, err)
}

// user is the URL of something of the mailbox.
func (a *attempt) user(path string) string {
	return a.sender.base + "/v1.0/users/" + url.PathEscape(a.mailbox) + path
}

// accepted judges the answer to what sends: 202 alone is success, whatever headers it has.
func (a *attempt) accepted(r request, got *answer, err error) (mail.Outcome, error) {
	switch {
	case err != nil:
		return mail.Outcome{}, err
	case got.status == http.StatusAccepted:
		return mail.Outcome{Class: mail.Delivered, Step: r.step, Code: got.status, Reply: printable(got.requestID(), maxCode)}, nil
	}
	return mail.Outcome{}, a.refusal(r, got)
}
