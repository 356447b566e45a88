package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postroom/postroom/admin"
)

// changing is a run of a command that does something to the messages that are chosen.
type changing struct {
	of          choice
	dryRun, yes bool

	verb, done, noun string // requeue, requeued, failed message
	// unasked is how many messages it does without asking, if there is somebody to ask.
	unasked int
	// final: it can't be undone, so it is never done unless somebody was asked, or said --yes.
	final bool

	client *admin.Client
	patient
	json       bool
	out, words io.Writer
	ask        asker
}

// choice is which messages are changed, and how.
type choice interface {
	// register adds its flags, and those of the connection, which link gives; take reads them.
	register(c *cobra.Command)
	link() *connection
	take(c *cobra.Command, ids []string) error
	// words name it, and named is how many ids it has if it has nothing else.
	words() string
	named() int
	// bind sets an end to it, so that what comes meanwhile is not meant; counted does if only the count can tell.
	bind(ctx context.Context, g *changing) error
	counted(sum *admin.Selected)
	part(ctx context.Context, client *admin.Client, dryRun bool, cursor string) (*admin.Selected, error)
	// again says how to go on after the run was cut short.
	again() string
	// columns and remarks tell what is its own of a sum; vain is what is wrong if messages were named.
	columns(sum *admin.Selected) (header, row []string)
	remarks(words io.Writer, sum *admin.Selected)
	vain(sum *admin.Selected) error
}

func (g *changing) complete(c *cobra.Command, ask func(*cobra.Command) asker) *cobra.Command {
	g.of.register(c)
	c.Flags().BoolVar(&g.dryRun, "dry-run", false, "count what would be "+g.done+", and change nothing")
	c.Flags().BoolVar(&g.yes, "yes", false, "do not ask")
	c.RunE = func(c *cobra.Command, ids []string) error {
		if err := g.of.take(c, ids); err != nil {
			return err
		}
		g.out, g.words, g.ask = c.OutOrStdout(), c.ErrOrStderr(), ask(c)
		if g.final && !g.dryRun && !g.yes && g.ask == nil {
			return usage("%s: there is no terminal to ask on: look with --dry-run what it would do, then add --yes", c.CommandPath())
		}
		var err error
		if g.client, err = g.of.link().connect(); err != nil {
			return err
		}
		g.json = g.of.link().json
		return g.run(c.Context())
	}
	return c
}

// run counts, asks and does.
func (g *changing) run(ctx context.Context) error {
	what := g.of.words()
	if !g.dryRun && g.of.named() == 0 {
		if err := g.of.bind(ctx, g); err != nil {
			return unchanged(err)
		}
	}
	count, err := g.steps(ctx, true)
	if err != nil {
		return unchanged(err)
	}
	fmt.Fprintf(g.words, "%s to %s (%s).\n", g.text(count.Done), g.verb, what)
	if g.dryRun || count.Done == 0 {
		return g.end(count)
	}
	if err := g.agree(ctx, count.Done); err != nil {
		return unchanged(err)
	}
	g.of.counted(&count)
	g.failures = 0
	sum, err := g.steps(ctx, false)
	if g.failures > 0 {
		fmt.Fprintln(g.words, "The server could not answer at times: what it did then may be missing from the numbers.")
	}
	if err != nil {
		return g.stopped(sum, count.Done, err)
	}
	return g.end(sum)
}

// stopped tells how far a run came that did not come to its end.
func (g *changing) stopped(sum admin.Selected, total int, err error) error {
	fmt.Fprintf(g.words, "%s of %s were %s before this ended.\n", thousands(sum.Done), g.text(total), g.done)
	if g.json {
		if err := printJSON(g.out, sum); err != nil {
			return err
		}
	}
	return &failure{code: exitCode(err), err: err, hint: g.of.again()}
}

// text counts messages.
func (g *changing) text(n int) string { return several(n, g.noun) }

func several(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return thousands(n) + " " + noun + "s"
}

// unchanged says so, if somebody interrupted the command.
func unchanged(err error) error {
	if !errors.Is(err, context.Canceled) {
		return err
	}
	return &failure{code: exitInterrupted, err: err, hint: "Nothing was changed."}
}

// steps does a selection part by part and sums up, also if it goes wrong. A request that changes something is not cut short.
func (g *changing) steps(ctx context.Context, dryRun bool) (admin.Selected, error) {
	within, cursor := ctx, ""
	if !dryRun {
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
			step, err = g.of.part(within, g.client, dryRun, cursor)
			return err
		})
		if err != nil {
			return sum, err
		}
		sum.Done += step.Done
		sum.TooLate += step.TooLate
		sum.Cancelled += step.Cancelled
		sum.Unreadable += step.Unreadable
		sum.Scanned += step.Scanned
		sum.Left, sum.AcceptedBefore = step.Left, step.AcceptedBefore
		if step.Next == "" {
			return sum, nil
		}
		sum.Left = max(sum.Left, 1)
		if step.Next == cursor && step.Done == 0 { // with something done, it went wrong after that
			return sum, errSameCursor
		}
		cursor = step.Next
		bar.total = sum.Scanned + sum.Left
		bar.show(sum.Scanned)
	}
}

// agree asks whether n messages are to be changed, where that is to be asked.
func (g *changing) agree(ctx context.Context, n int) error {
	if g.yes || n <= g.unasked || g.ask == nil {
		return nil
	}
	yes, err := g.ask(ctx, strings.ToUpper(g.verb[:1])+g.verb[1:]+" "+g.text(n)+"?")
	if err != nil {
		return err
	}
	if !yes {
		return fail(exitFault, "nothing was %s, for the answer was not yes", g.done)
	}
	return nil
}

// end tells what became of the selection. That messages were named in vain is an error.
func (g *changing) end(sum admin.Selected) error {
	if err := g.report(&sum); err != nil {
		return err
	}
	g.of.remarks(g.words, &sum)
	tellUnreadable(g.words, sum.Unreadable)
	if g.dryRun {
		fmt.Fprintln(g.words, "Dry run: nothing was changed.")
	}
	if g.of.named() > 0 {
		return g.of.vain(&sum)
	}
	return nil
}

func (g *changing) report(sum *admin.Selected) error {
	if g.json {
		return printJSON(g.out, sum)
	}
	did := strings.ToUpper(g.done)
	if g.dryRun {
		did = "WOULD BE " + did
	}
	header, row := g.of.columns(sum)
	return table(g.out, slices.Concat([]string{did}, header, []string{"UNREADABLE"}), slices.Concat([]string{thousands(sum.Done)}, row, []string{thousands(sum.Unreadable)}))
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
