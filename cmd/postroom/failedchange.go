package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/postroom/postroom/admin"
)

// mostUnasked is how many messages are requeued without asking.
const mostUnasked = 1000

// aboutChanging is part of the help of the commands that change the failed store.
const aboutChanging = `First everything is counted and told; --dry-run ends there. Then it is done in many small requests, to what was counted: a
message that fails while the command runs is not touched. What the server can't do for a moment is tried again. A run that
was interrupted says how to go on; nothing is done twice. The token's role must be operator or admin.

With --output json the answer is the API's, with the sums of the run: {"done", "cancelled", "unreadable", "scanned", "left"}.
What is 0 can be left out; left is above 0 if the run ended early.

` + aboutFilters

func newFailedRequeueCommand(ask func(*cobra.Command) asker) *cobra.Command {
	g := &changing{verb: "requeue", done: "requeued", noun: "failed message", unasked: mostUnasked, of: &failedChoice{step: (*admin.Client).Requeue, requeues: true}}
	c := &cobra.Command{
		Use:   "requeue [ID...]",
		Short: "Queue failed messages again",
		Long: `Queue failed messages again, for everybody who does not have them, those who were refused too: put the cause right first.
Their attempts count anew, an expiry in the past is forgotten, and limits, holds and pauses bind as ever. What may have been
accepted (class unknown) can arrive twice. Messages of a cancelled batch stay where they are.

On a terminal more than 1,000 messages need a yes, or --yes.

` + aboutChanging,
		Example: `  postroom failed requeue 01JZ3Q8Y6M2V7T4K9RBC5XWDHE
  postroom failed requeue --class permanent --reply "mailbox full" --since 3d --dry-run
  postroom failed requeue --batch 01JZ3Q8Y6M2V7T4K9RBC5XWDHE --yes
  postroom failed requeue --all`,
	}
	return g.complete(c, ask)
}

func newFailedDeleteCommand(ask func(*cobra.Command) asker) *cobra.Command {
	g := &changing{verb: "delete", done: "deleted", noun: "failed message", final: true, of: &failedChoice{step: (*admin.Client).DeleteFailed}}
	c := &cobra.Command{
		Use:   "delete [ID...]",
		Short: "Delete failed messages for good",
		Long: `Delete failed messages for good, with all that is kept of them; "postroom failed export" keeps a copy. Their batches go on
counting them as failed.

It needs a yes on the terminal, or --yes.

` + aboutChanging,
		Example: `  postroom failed delete 01JZ3Q8Y6M2V7T4K9RBC5XWDHE
  postroom failed delete --recipient @old.example.com --dry-run
  postroom failed delete --kind alert --until 7d --yes`,
	}
	return g.complete(c, ask)
}

// failedChoice is which failed messages are changed.
type failedChoice struct {
	selection
	step     func(*admin.Client, context.Context, admin.Selection) (*admin.Selected, error)
	requeues bool

	sel admin.Selection
	// bound is what the run itself put as the end of the selection; zero: nothing.
	bound time.Time
}

var _ choice = (*failedChoice)(nil)

func (f *failedChoice) link() *connection { return &f.connection }

func (f *failedChoice) take(c *cobra.Command, ids []string) (err error) {
	f.sel, err = f.choose(c, ids)
	return err
}

func (f *failedChoice) words() string { return meant(f.sel.Filter) }

func (f *failedChoice) named() int {
	if !onlyIDs(f.sel.Filter) {
		return 0
	}
	return len(f.sel.Filter.IDs)
}

// bind puts the end of the selection behind what failed last: what fails from now on is neither counted nor touched, and a
// run that is repeated with the same end does not take up what has failed again. That end is by the server's clock;
// there is none if the selection ends before, or has to find nothing.
func (f *failedChoice) bind(ctx context.Context, g *changing) error {
	var page *admin.FailedPage
	err := g.try(ctx, func() (err error) {
		page, err = g.client.Failed(ctx, admin.FailedFilter{}, "", 1)
		return err
	})
	if err != nil || len(page.Messages) == 0 {
		return err
	}
	end := page.Messages[0].Failed.Add(time.Millisecond) // the store's unit of time
	filter := &f.sel.Filter
	if !filter.Until.IsZero() && !filter.Until.After(end) || !filter.From.IsZero() && !filter.From.Before(end) {
		return nil
	}
	f.bound, filter.Until, f.sel.All = end, end, false
	return nil
}

func (f *failedChoice) counted(*admin.Selected) {}

func (f *failedChoice) part(ctx context.Context, client *admin.Client, dryRun bool, cursor string) (*admin.Selected, error) {
	f.sel.DryRun, f.sel.Cursor = dryRun, cursor
	return f.step(client, ctx, f.sel)
}

func (f *failedChoice) again() string { return f.selection.again(&f.sel, f.bound) }

func (f *failedChoice) columns(sum *admin.Selected) (header, row []string) {
	if !f.requeues {
		return nil, nil
	}
	return []string{"BATCH CANCELLED"}, []string{thousands(sum.Cancelled)}
}

func (f *failedChoice) remarks(words io.Writer, sum *admin.Selected) {
	if sum.Cancelled > 0 {
		fmt.Fprintf(words, "Not requeued, because their batch has been cancelled: %s. They stay in the failed store.\n", thousands(sum.Cancelled))
	}
}

func (f *failedChoice) vain(sum *admin.Selected) error {
	if missing := f.named() - sum.Done - sum.Cancelled - sum.Unreadable; missing > 0 {
		return notFailed(missing)
	}
	return nil
}
