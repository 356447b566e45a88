package admin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/postroom/postroom/mail"
)

// Client speaks to the API of a Postroom. It retries nothing by itself, but for what net/http does on a kept connection
// that has gone. Safe for concurrent use.
//
// What the API refuses is a *Problem; other errors are about the way to it. After those, and after a Problem with a status
// from 500 on, a message may have been accepted: repeat it with the same idempotency key.
type Client struct {
	base  *url.URL
	token string
	http  *http.Client
}

// NewClient makes a client of the API at baseURL, such as "https://postroom.example.com"; it may have a path. A nil hc
// stands for one that gives up after a minute.
func NewClient(baseURL, token string, hc *http.Client) (*Client, error) {
	base, err := url.Parse(baseURL)
	switch {
	case err != nil || base.Host == "" || (base.Scheme != "http" && base.Scheme != "https"):
		return nil, errors.New("admin: the URL is not of the form https://host[:port][/path]")
	case base.User != nil || base.RawQuery != "" || base.Fragment != "":
		return nil, errors.New("admin: the URL has more than scheme, host and path: remove the rest")
	}
	if hc == nil {
		hc = &http.Client{Timeout: time.Minute}
	}
	return &Client{base, token, hc}, nil
}

// Send hands one message in. An idempotency key, which may be empty, makes it safe to repeat.
func (c *Client) Send(ctx context.Context, m mail.Message, idempotencyKey string) (*Accepted, error) {
	accepted := &Accepted{}
	header, err := c.call(ctx, http.MethodPost, idempotencyKey, m, accepted, "messages")
	if err != nil {
		return nil, err
	}
	accepted.Replayed = header.Get("Idempotency-Replayed") == "true"
	return accepted, nil
}

// SendBatch hands a batch in. Recipients of the answer are listed only if one was refused.
func (c *Client) SendBatch(ctx context.Context, b mail.Batch, idempotencyKey string) (*BatchAccepted, error) {
	accepted := &BatchAccepted{}
	header, err := c.call(ctx, http.MethodPost, idempotencyKey, b, accepted, "batches")
	if err != nil {
		return nil, err
	}
	accepted.Replayed = header.Get("Idempotency-Replayed") == "true"
	return accepted, nil
}

// StoreContent stores a file for messages to refer to: mail.Attachment.Ref is the ID of the answer. It is read as it is sent, and only
// once. An empty contentType is told from the name.
func (c *Client) StoreContent(ctx context.Context, name, contentType string, r io.Reader) (*Content, error) {
	target := c.target("contents")
	target.RawQuery = url.Values{"name": {name}}.Encode()
	response, err := c.send(ctx, http.MethodPost, target, "", contentType, r)
	if err != nil {
		return nil, err
	}
	content := &Content{}
	if _, err := answered(response, content); err != nil {
		return nil, err
	}
	return content, nil
}

// Content tells what is known of a stored file.
func (c *Client) Content(ctx context.Context, id string) (*Content, error) {
	content := &Content{}
	if _, err := c.call(ctx, http.MethodGet, "", nil, content, "contents", id); err != nil {
		return nil, err
	}
	return content, nil
}

// Message tells what is known of a message.
func (c *Client) Message(ctx context.Context, id string) (*MessageStatus, error) {
	status := &MessageStatus{}
	if _, err := c.call(ctx, http.MethodGet, "", nil, status, "messages", id); err != nil {
		return nil, err
	}
	return status, nil
}

// Batch tells what is known of a batch.
func (c *Client) Batch(ctx context.Context, id string) (*BatchStatus, error) {
	status := &BatchStatus{}
	if _, err := c.call(ctx, http.MethodGet, "", nil, status, "batches", id); err != nil {
		return nil, err
	}
	return status, nil
}

// CancelMessage ends a message that is not being sent.
func (c *Client) CancelMessage(ctx context.Context, id string) error {
	_, err := c.call(ctx, http.MethodPost, "", nil, &Cancelled{}, "messages", id, "cancel")
	return err
}

// CancelBatch ends every message of a batch that is not being sent.
func (c *Client) CancelBatch(ctx context.Context, id string) error {
	_, err := c.call(ctx, http.MethodPost, "", nil, &Cancelled{}, "batches", id, "cancel")
	return err
}

// Mailboxes lists the mailboxes that have mail or had some lately, by address: the page that follows another's After, ""
// for the first, and at most limit of them, 0 for as many as the server likes. It takes the role operator, as do the methods
// below.
func (c *Client) Mailboxes(ctx context.Context, after string, limit int) (*MailboxPage, error) {
	query := url.Values{}
	if after != "" {
		query.Set("after", after)
	}
	if limit != 0 {
		query.Set("limit", strconv.Itoa(limit))
	}
	target := c.target("mailboxes")
	target.RawQuery = query.Encode()
	page := &MailboxPage{}
	if _, err := c.do(ctx, http.MethodGet, target, "", nil, page); err != nil {
		return nil, err
	}
	return page, nil
}

// Mailbox tells what is known of one mailbox, or of an account as it is listed.
func (c *Client) Mailbox(ctx context.Context, address string) (*Mailbox, error) {
	m := &Mailbox{}
	if _, err := c.call(ctx, http.MethodGet, "", nil, m, "mailboxes", address); err != nil {
		return nil, err
	}
	return m, nil
}

// PauseMailbox lets nothing of a mailbox begin for d, from a second to 30 days; 0 stands for 24 hours. What is being sent is
// finished. It needs a reason, which others see; a pause that runs is replaced.
func (c *Client) PauseMailbox(ctx context.Context, address, reason string, d time.Duration) (*Paused, error) {
	return c.pause(ctx, reason, d, "mailboxes", address, "pause")
}

// ResumeMailbox ends a mailbox's pause, and its hold too: it is tried at once. Resuming twice is fine.
func (c *Client) ResumeMailbox(ctx context.Context, address string) (*Resumed, error) {
	return c.resume(ctx, "mailboxes", address, "resume")
}

// PauseAll lets nothing at all begin for a time: see PauseMailbox.
func (c *Client) PauseAll(ctx context.Context, reason string, d time.Duration) (*Paused, error) {
	return c.pause(ctx, reason, d, "pause")
}

// ResumeAll ends what PauseAll began. Mailboxes that are held or paused by themselves stay so.
func (c *Client) ResumeAll(ctx context.Context) (*Resumed, error) { return c.resume(ctx, "resume") }

func (c *Client) pause(ctx context.Context, reason string, d time.Duration, path ...string) (*Paused, error) {
	in := PauseRequest{Reason: reason}
	if d != 0 {
		in.Duration = d.String()
	}
	paused := &Paused{}
	if _, err := c.call(ctx, http.MethodPost, "", in, paused, path...); err != nil {
		return nil, err
	}
	return paused, nil
}

func (c *Client) resume(ctx context.Context, path ...string) (*Resumed, error) {
	resumed := &Resumed{}
	if _, err := c.call(ctx, http.MethodPost, "", nil, resumed, path...); err != nil {
		return nil, err
	}
	return resumed, nil
}

// answerBytes bounds what is read of an answer; the list of the largest batch, all refused, is smaller.
const answerBytes = 256 << 20

// call makes one request to the path below /v1.
func (c *Client) call(ctx context.Context, method, idempotencyKey string, in, out any, path ...string) (http.Header, error) {
	return c.do(ctx, method, c.target(path...), idempotencyKey, in, out)
}

// target is the URL of a path below /v1.
func (c *Client) target(path ...string) *url.URL {
	target := c.base.JoinPath("v1")
	for _, part := range path {
		target = target.JoinPath(url.PathEscape(part))
	}
	return target
}

// do makes one request, with in as its body unless that is nil, and decodes the answer into out.
func (c *Client) do(ctx context.Context, method string, target *url.URL, idempotencyKey string, in, out any) (http.Header, error) {
	response, err := c.open(ctx, method, target, idempotencyKey, in)
	if err != nil {
		return nil, err
	}
	return answered(response, out)
}

// answered decodes an answer into out.
func answered(response *http.Response, out any) (http.Header, error) {
	defer response.Body.Close()
	if err := json.NewDecoder(io.LimitReader(response.Body, answerBytes)).Decode(out); err != nil {
		return nil, fmt.Errorf("admin: answer: %w", err)
	}
	return response.Header, nil
}

// open makes one request and gives the answer, which is a success: its body is the caller's to close.
func (c *Client) open(ctx context.Context, method string, target *url.URL, idempotencyKey string, in any) (*http.Response, error) {
	if in == nil {
		return c.send(ctx, method, target, idempotencyKey, "", nil)
	}
	encoded, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("admin: encode: %w", err)
	}
	return c.send(ctx, method, target, idempotencyKey, "application/json", bytes.NewReader(encoded))
}

// send makes one request with a body as it is; nil: none.
func (c *Client) send(ctx context.Context, method string, target *url.URL, idempotencyKey, contentType string, body io.Reader) (*http.Response, error) {
	r, err := c.request(ctx, method, target, idempotencyKey, contentType, body)
	if err != nil {
		return nil, err
	}
	return c.answer(r)
}

// request makes one without sending it.
func (c *Client) request(ctx context.Context, method string, target *url.URL, idempotencyKey, contentType string, body io.Reader) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, target.String(), body)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	if idempotencyKey != "" {
		r.Header.Set("Idempotency-Key", idempotencyKey)
	}
	return r, nil
}

// answer sends a request and gives the answer, which is a success: its body is the caller's to close.
func (c *Client) answer(r *http.Request) (*http.Response, error) {
	response, err := c.http.Do(r)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	if response.StatusCode/100 != 2 {
		defer response.Body.Close()
		return nil, problemFrom(response, json.NewDecoder(io.LimitReader(response.Body, answerBytes)))
	}
	return response, nil
}

// problemFrom reads a refusal. What stands between us and the API may have written it, in any form.
func problemFrom(response *http.Response, body *json.Decoder) *Problem {
	p := &Problem{}
	mediaType, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if mediaType != p.ContentType("") || body.Decode(p) != nil {
		p = &Problem{}
	}
	p.Type = cmp.Or(p.Type, "about:blank")
	p.Title = cmp.Or(p.Title, http.StatusText(response.StatusCode))
	p.Status = response.StatusCode
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && seconds > 0 {
		p.RetryAfter = time.Duration(min(seconds, int(24*time.Hour/time.Second))) * time.Second
	}
	return p
}
