package admin

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Failed lists failed messages, newest first: the page that follows another's Next, "" for the first, and at most limit of
// them, 0 for as many as the server likes. It takes the role operator, as do the methods below.
func (c *Client) Failed(ctx context.Context, f FailedFilter, cursor string, limit int) (*FailedPage, error) {
	target := c.target("failed")
	target.RawQuery = f.query(cursor, limit).Encode()
	page := &FailedPage{}
	if _, err := c.do(ctx, http.MethodGet, target, "", nil, page); err != nil {
		return nil, err
	}
	return page, nil
}

// query writes a filter as GET /v1/failed takes it.
func (f *FailedFilter) query(cursor string, limit int) url.Values {
	q := pageQuery(cursor, limit, map[string]string{"kind": string(f.Kind), "mailbox": f.Mailbox, "batch_id": f.BatchID, "recipient": f.Recipient, "reply": f.Reply},
		map[string]time.Time{"from": f.From, "until": f.Until})
	q["class"], q["id"] = f.Classes, f.IDs
	return q
}

// pageQuery asks for a page of what a filter selects; what is empty is left out.
func pageQuery(cursor string, limit int, texts map[string]string, times map[string]time.Time) url.Values {
	q := url.Values{}
	for name, value := range texts {
		if value != "" {
			q.Set(name, value)
		}
	}
	for name, at := range times {
		if !at.IsZero() {
			q.Set(name, at.UTC().Format(time.RFC3339Nano))
		}
	}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	if limit != 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	return q
}

// Requeue queues failed messages again, for all recipients who do not have them. One request does a part: repeat it with Next
// as the selection's Cursor until that is empty. To repeat a request whose answer was lost is safe.
func (c *Client) Requeue(ctx context.Context, s Selection) (*Selected, error) {
	return c.selection(ctx, s, "requeue")
}

// DeleteFailed deletes failed messages with all that is kept of them, in parts like Requeue.
func (c *Client) DeleteFailed(ctx context.Context, s Selection) (*Selected, error) {
	return c.selection(ctx, s, "delete")
}

func (c *Client) selection(ctx context.Context, s Selection, what string) (*Selected, error) {
	done := &Selected{}
	if _, err := c.call(ctx, http.MethodPost, "", s, done, "failed", what); err != nil {
		return nil, err
	}
	return done, nil
}

// Export writes a failed message to w as it would be sent again: an RFC 5322 message, without Bcc. It gives the number of
// bytes; with an error w can have a part of the message.
func (c *Client) Export(ctx context.Context, id string, w io.Writer) (int64, error) {
	response, err := c.open(ctx, http.MethodGet, c.target("failed", id, "eml"), "", nil)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	n, err := io.Copy(w, response.Body)
	if err != nil {
		return n, fmt.Errorf("admin: export: %w", err)
	}
	return n, nil
}
