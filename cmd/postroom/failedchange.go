package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postroom/postroom/admin"
)

// changing is a run of failed requeue or failed delete.
type changing struct {
	selection
	dryRun, yes bool

	verb, done string // requeue, requeued
	// step does one part of it.
	step func(*admin.Client, context.Context, admin.Selection) (*admin.Selected, error)
	// unasked is how many messages it does without asking, if there is somebody to ask.
	unasked int
	// final: it can't be undone, so it is never done unless somebody was asked, or said --yes.
	final bool

	client *admin.Client
	patient
	out, words io.Writer
	ask        asker
}

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
	g := &changing{verb: "requeue", done: "requeued", step: (*admin.Client).Requeue, unasked: mostUnasked}
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
	g := &changing{verb: "delete", done: "deleted", step: (*admin.Client).DeleteFailed, final: true}
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

func (g *changing) complete(c *cobra.Command, ask func(*cobra.Command) asker) *cobra.Command {
	g.register(c)
	c.Flags().BoolVar(&g.dryRun, "dry-run", false, "count what would be "+g.done+", and change nothing")
	c.Flags().BoolVar(&g.yes, "yes", false, "do not ask")
	c.RunE = func(c *cobra.Command, ids []string) error {
		sel, err := g.choose(c, ids)
		if err != nil {
			return err
		}
		g.out, g.words, g.ask = c.OutOrStdout(), c.ErrOrStderr(), ask(c)
		if g.final && !g.dryRun && !g.yes && g.ask == nil {
			return usage("%s: there is no terminal to ask on: look with --dry-run what it would do, then add --yes", c.CommandPath())
		}
		if g.client, err = g.connect(); err != nil {
			return err
		}
		return g.run(c.Context(), sel)
	}
	return c
}

// run counts, asks and does.
func (g *changing) run(ctx context.Context, sel admin.Selection) error {
	what, named := meant(sel.Filter), onlyIDs(sel.Filter)
	var bound time.Time
	if !g.dryRun && !named {
		var err error
		if bound, err = g.bind(ctx, &sel); err != nil {
			return unchanged(err)
		}
	}
	sel.DryRun = true
	count, err := g.steps(ctx, sel)
	if err != nil {
		return unchanged(err)
	}
	missing := 0
	if named {
		missing = len(sel.Filter.IDs) - count.Done - count.Cancelled - count.Unreadable
	}
	fmt.Fprintf(g.words, "%s to %s (%s).\n", failedText(count.Done), g.verb, what)
	if g.dryRun || count.Done == 0 {
		return g.end(count, missing)
	}
	if err := g.agree(ctx, count.Done); err != nil {
		return unchanged(err)
	}
	sel.DryRun, g.failures = false, 0
	sum, err := g.steps(ctx, sel)
	if g.failures > 0 {
		fmt.Fprintln(g.words, "The server could not answer at times: what it did then may be missing from the numbers.")
	}
	if err != nil {
		return g.stopped(sum, count.Done, err, g.again(&sel, bound))
	}
	return g.end(sum, missing)
}

// stopped tells how far a run came that did not come to its end.
func (g *changing) stopped(sum admin.Selected, total int, err error, hint string) error {
	fmt.Fprintf(g.words, "%s of %s were %s before this ended.\n", thousands(sum.Done), failedText(total), g.done)
	if g.json {
		if err := printJSON(g.out, sum); err != nil {
			return err
		}
	}
	return &failure{code: exitCode(err), err: err, hint: hint}
}

// failedText counts failed messages.
func failedText(n int) string {
	if n == 1 {
		return "1 failed message"
	}
	return thousands(n) + " failed messages"
}

// unchanged says so, if somebody interrupted the command.
func unchanged(err error) error {
	if !errors.Is(err, context.Canceled) {
		return err
	}
	return &failure{code: exitInterrupted, err: err, hint: "Nothing was changed."}
}

// bind puts the end of the selection behind what failed last: what fails from now on is neither counted nor touched, and a
// run that is repeated with the same end does not take up what has failed again. It gives that end, by the server's clock;
// zero if the selection ends before, or has to find nothing.
func (g *changing) bind(ctx context.Context, sel *admin.Selection) (time.Time, error) {
	var page *admin.FailedPage
	err := g.try(ctx, func() (err error) {
		page, err = g.client.Failed(ctx, admin.FailedFilter{}, "", 1)
		return err
	})
	if err != nil || len(page.Messages) == 0 {
		return time.Time{}, err
	}
	end := page.Messages[0].Failed.Add(time.Millisecond) // the store's unit of time
	f := &sel.Filter
	if !f.Until.IsZero() && !f.Until.After(end) || !f.From.IsZero() && !f.From.Before(end) {
		return time.Time{}, nil
	}
	f.Until, sel.All = end, false
	return end, nil
}

// steps does a selection part by part and sums up, also if it goes wrong. A request that changes something is not cut short.
func (g *changing) steps(ctx context.Context, sel admin.Selection) (admin.Selected, error) {
	within := ctx
	if !sel.DryRun {
		within = context.WithoutCancel(ctx) // a request ends by the client's time-out
	}
	bar := newProgress(g.words, 0, "looked at")
	defer bar.clear()
	var sum admin.Selected
	for {
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		var step *admin.Selected
		err := g.try(ctx, func() (err error) {
			step, err = g.step(g.client, within, sel)
			return err
		})
		if err != nil {
			return sum, err
		}
		sum.Done += step.Done
		sum.Cancelled += step.Cancelled
		sum.Unreadable += step.Unreadable
		sum.Scanned += step.Scanned
		sum.Left = step.Left
		if step.Next == "" {
			return sum, nil
		}
		sum.Left = max(sum.Left, 1)
		if step.Next == sel.Cursor && step.Done == 0 { // with something done, it went wrong after that
			return sum, errSameCursor
		}
		sel.Cursor = step.Next
		bar.total = sum.Scanned + sum.Left
		bar.show(sum.Scanned)
	}
}

// agree asks whether n messages are to be changed, where that is to be asked.
func (g *changing) agree(ctx context.Context, n int) error {
	if g.yes || n <= g.unasked || g.ask == nil {
		return nil
	}
	yes, err := g.ask(ctx, strings.ToUpper(g.verb[:1])+g.verb[1:]+" "+failedText(n)+"?")
	if err != nil {
		return err
	}
	if !yes {
		return fail(exitFault, "nothing was %s, for the answer was not yes", g.done)
	}
	return nil
}

// end tells what became of the selection. Missing is how many of its ids were not found.
func (g *changing) end(sum admin.Selected, missing int) error {
	if err := g.report(sum); err != nil {
		return err
	}
	if sum.Cancelled > 0 {
		fmt.Fprintf(g.words, "Not requeued, because their batch has been cancelled: %s. They stay in the failed store.\n", thousands(sum.Cancelled))
	}
	tellUnreadable(g.words, sum.Unreadable)
	if g.dryRun {
		fmt.Fprintln(g.words, "Dry run: nothing was changed.")
	}
	if missing > 0 {
		return notFailed(missing)
	}
	return nil
}

func (g *changing) report(sum admin.Selected) error {
	if g.json {
		return printJSON(g.out, sum)
	}
	did := strings.ToUpper(g.done)
	if g.dryRun {
		did = "WOULD BE " + did
	}
	header, row := []string{did}, []string{thousands(sum.Done)}
	if !g.final {
		header, row = append(header, "BATCH CANCELLED"), append(row, thousands(sum.Cancelled))
	}
	return table(g.out, append(header, "UNREADABLE"), append(row, thousands(sum.Unreadable)))
}

// asker asks a question and reports whether the answer is yes; nil where there is nobody to ask.
type asker func(ctx context.Context, question string) (bool, error)

// onTerminal gives an asker if somebody sits there.
func onTerminal(c *cobra.Command) asker {
	in, reads := c.InOrStdin().(*os.File)
	words, sees := c.ErrOrStderr().(*os.File)
	if !reads || !sees || !isTerminal(in) || !isTerminal(words) {
		return nil
	}
	return func(ctx context.Context, question string) (bool, error) { return ask(ctx, in, words, question) }
}

// ask waits for one line. If ctx ends first, somebody goes on reading until the process ends, for a read can't be interrupted.
func ask(ctx context.Context, in io.Reader, words io.Writer, question string) (bool, error) {
	fmt.Fprint(words, question+" [y/N] ")
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(in).ReadString('\n') // what ends early is no yes
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case line := <-answer:
		return line == "y" || line == "yes", nil
	case <-ctx.Done():
		fmt.Fprintln(words)
		return false, ctx.Err()
	}
}
