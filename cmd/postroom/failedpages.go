package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postroom/postroom/admin"
)

// patient does what a server may be unable to do for a moment. Nobody waits for a server that was never there; one that has
// answered gets time.
type patient struct {
	answered bool
	failures int // that were followed by another try
}

func (p *patient) try(ctx context.Context, f func() error) error {
	var delays []time.Duration
	if p.answered {
		delays = patience()
	}
	tries := 0
	err := withRetries(ctx, delays, func() error {
		tries++
		return f()
	})
	p.failures += max(tries-1, 0)
	p.answered = p.answered || err == nil
	return err
}

const (
	// longestFailedPage is as many messages as the server gives at once.
	longestFailedPage = 1000
	// idsAtOnce keeps the URL of a request shorter than what stands between us and the server takes.
	idsAtOnce = 100
)

// failedPages reads what a filter selects, newest first; of more than idsAtOnce ids newest first among each so many.
type failedPages struct {
	client *admin.Client
	filter admin.FailedFilter
	patient

	cursor string
	asked  int // ids of the filter that are through
	over   bool
}

// next gives the next page, of at most most messages. It may be empty.
func (p *failedPages) next(ctx context.Context, most int) (*admin.FailedPage, error) {
	f := p.filter
	f.IDs = f.IDs[p.asked:min(p.asked+idsAtOnce, len(f.IDs))]
	var page *admin.FailedPage
	err := p.try(ctx, func() (err error) {
		page, err = p.client.Failed(ctx, f, p.cursor, most)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case page.Next != "" && page.Next == p.cursor:
		return nil, errSameCursor
	}
	page.Left += len(p.filter.IDs) - p.asked - len(f.IDs)
	p.cursor = page.Next
	if page.Next == "" {
		p.asked += len(f.IDs)
		p.over = p.asked == len(p.filter.IDs)
	}
	return page, nil
}

// errSameCursor: to go on would never end.
var errSameCursor = errors.New("the server gives the same cursor again and again")

// notFailed gives the error of a command that named n messages in vain.
func notFailed(n int) error {
	return &failure{code: exitFault, err: fmt.Errorf("not in the failed store: %s of the ids", thousands(n)),
		hint: "What became of a message: postroom message show ID"}
}
