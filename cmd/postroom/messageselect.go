package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// aboutAccepted is part of the help of the commands that select what was accepted.
const aboutAccepted = `--accepted-after and --accepted-before say when it was accepted: at this time or later, and before this time. Each is a time such as
2030-01-31T08:00:00Z, a date (its beginning, here), or how long ago it was: 90m, 2h, 3d.`

// acceptedFilter holds the flags that messages and batches share.
type acceptedFilter struct{ kind, mailbox, after, before string }

func (f *acceptedFilter) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.kind, "kind", "", "what it is for: alert, report or subscription")
	flags.StringVar(&f.mailbox, "mailbox", "", "the sender's address; the provider's own finds mail that names no sender too, and - only that")
	flags.StringVar(&f.after, "accepted-after", "", "it was accepted at this time or later: a time, a date, or how long ago")
	flags.StringVar(&f.before, "accepted-before", "", "it was accepted before this time: a time, a date, or how long ago")
	completeWith(c, "kind", string(mail.Alert), string(mail.Report), string(mail.Subscription))
}

// times gives what the flags say of when it was accepted. Faults are usage errors, as is a kind that is none.
func (f *acceptedFilter) times(c *cobra.Command, more ...string) (after, before time.Time, err error) {
	if err := noneEmpty(c, append([]string{"kind", "mailbox", "accepted-after", "accepted-before"}, more...)...); err != nil {
		return after, before, err
	}
	if f.kind != "" && !mail.Kind(f.kind).Valid() {
		return after, before, usage("--kind: %q is not one of alert, report and subscription", f.kind)
	}
	now := time.Now()
	if after, err = past("--accepted-after", f.after, now); err != nil {
		return after, before, err
	}
	if before, err = past("--accepted-before", f.before, now); err != nil {
		return after, before, err
	}
	if !after.IsZero() && !before.IsZero() && !after.Before(before) {
		return after, before, usage("--accepted-after and --accepted-before: nothing is in between")
	}
	return after, before, nil
}

// messageFilter holds the flags that say which messages are meant.
type messageFilter struct {
	acceptedFilter
	states           []string
	batch, recipient string
}

func (f *messageFilter) register(c *cobra.Command, states []queue.State) {
	f.acceptedFilter.register(c)
	flags := c.Flags()
	flags.StringSliceVar(&f.states, "state", nil, "where it is in its life: "+stateList(states)+"; default: what is open, queued and sending (repeatable, or with commas)")
	flags.StringVar(&f.batch, "batch", "", "the batch it belongs to")
	flags.StringVar(&f.recipient, "recipient", "", "who still lacks it: an address, or @ and a domain")
	completeWith(c, "state", strings.Split(stateList(states), ", ")...)
}

func stateList(states []queue.State) string {
	names := make([]string, len(states))
	for i, s := range states {
		names[i] = string(s)
	}
	return strings.Join(names, ", ")
}

// filter gives what the flags and ids say. Faults are usage errors.
func (f *messageFilter) filter(c *cobra.Command, ids []string, states []queue.State) (got admin.MessageFilter, err error) {
	if got.AcceptedAfter, got.AcceptedBefore, err = f.times(c, "state", "batch", "recipient"); err != nil {
		return got, err
	}
	got.Kind, got.Mailbox, got.BatchID = mail.Kind(f.kind), f.mailbox, f.batch
	if got.IDs, err = idList(c, ids); err != nil {
		return got, err
	}
	if f.batch != "" && !isID(f.batch) {
		return got, usage("--batch: %q is not an id: that has %d letters and digits", f.batch, idLength)
	}
	for _, s := range f.states {
		if !strings.Contains(", "+stateList(states)+", ", ", "+s+", ") {
			return got, usage("--state: %q is not one of %s", s, stateList(states))
		}
		got.States = append(got.States, queue.State(s))
	}
	got.Recipient, err = recipientFilter(f.recipient)
	return got, err
}

// messageWords say what a filter demands; "" if it demands nothing.
func messageWords(f admin.MessageFilter) string {
	var w demands
	w.say("state", strings.ReplaceAll(stateList(f.States), ", ", " or "))
	w.say("kind", string(f.Kind))
	w.say("mailbox", f.Mailbox)
	w.say("batch", f.BatchID)
	w.say("recipient", f.Recipient)
	w.say("accepted after", instantText(f.AcceptedAfter))
	w.say("accepted before", instantText(f.AcceptedBefore))
	if len(f.IDs) > 0 {
		w.say("ids:", thousands(len(f.IDs)))
	}
	return w.String()
}

// messageChoice is which messages are cancelled.
type messageChoice struct {
	connection
	messageFilter
	all bool

	sel admin.MessageSelection
	// bound is when the run began, by the server's clock, unless a flag names an earlier time.
	bound time.Time
}

var _ choice = (*messageChoice)(nil)

var openStates = []queue.State{queue.Queued, queue.Sending}

func (m *messageChoice) register(c *cobra.Command) {
	m.connection.register(c)
	m.messageFilter.register(c, openStates)
	c.Flags().BoolVar(&m.all, "all", false, "all open messages")
}

func (m *messageChoice) link() *connection { return &m.connection }

// take gives what is selected. To select nothing at all, or everything and something, is a usage error.
func (m *messageChoice) take(c *cobra.Command, ids []string) error {
	filter, err := m.filter(c, ids, openStates)
	if err != nil {
		return err
	}
	some := messageWords(filter) != ""
	switch {
	case m.all && some:
		return usage("--all means every open message: leave it out, or the filters and ids")
	case !m.all && !some:
		return usage("%s: which messages? Give ids, filters such as --batch ID, or --all (see %s --help)", c.CommandPath(), c.CommandPath())
	}
	m.sel = admin.MessageSelection{Filter: filter, All: m.all}
	return nil
}

func (m *messageChoice) words() string { return cmp.Or(plain(messageWords(m.sel.Filter)), "all") }

func (m *messageChoice) named() int {
	f := m.sel.Filter
	f.IDs = nil
	if messageWords(f) != "" {
		return 0
	}
	return len(m.sel.Filter.IDs)
}

func (m *messageChoice) bind(context.Context, *changing) error { return nil }

// counted has the run mean what was counted, and nothing that was accepted since.
func (m *messageChoice) counted(sum *admin.Selected) {
	if m.named() > 0 || sum.AcceptedBefore.IsZero() {
		return
	}
	m.bound = sum.AcceptedBefore
	m.sel.Filter.AcceptedBefore, m.sel.All = m.bound, false
}

func (m *messageChoice) part(ctx context.Context, client *admin.Client, dryRun bool, cursor string) (*admin.Selected, error) {
	m.sel.DryRun, m.sel.Cursor = dryRun, cursor
	return client.CancelMessages(ctx, m.sel)
}

func (m *messageChoice) again() string {
	var flags []string
	if _, moves := ago(m.after); moves {
		flags = append(flags, "--accepted-after "+m.sel.Filter.AcceptedAfter.UTC().Format(time.RFC3339Nano))
	}
	if _, moves := ago(m.before); moves || !m.bound.IsZero() {
		flags = append(flags, "--accepted-before "+m.sel.Filter.AcceptedBefore.UTC().Format(time.RFC3339Nano))
	}
	return goOn(flags, m.all)
}

func (m *messageChoice) columns(sum *admin.Selected) (header, row []string) {
	return []string{"TOO LATE"}, []string{thousands(sum.TooLate)}
}

func (m *messageChoice) remarks(words io.Writer, sum *admin.Selected) {
	if sum.Cancelled > 0 {
		fmt.Fprintf(words, "Cancelled before: %s.\n", thousands(sum.Cancelled))
	}
	if sum.TooLate > 0 && m.named() == 0 {
		fmt.Fprintf(words, "Too late, because they were being sent: %s. Repeat the command for those of them that come back to wait.\n", thousands(sum.TooLate))
	}
}

func (m *messageChoice) vain(sum *admin.Selected) error {
	hint := "What became of a message: postroom message show ID"
	if sum.TooLate > 0 {
		return &failure{code: exitFault, err: fmt.Errorf("too late to cancel, as they are being sent or have ended: %s of the ids", thousands(sum.TooLate)), hint: hint}
	}
	if missing := m.named() - sum.Done - sum.Cancelled - sum.Unreadable; missing > 0 {
		return &failure{code: exitFault, err: fmt.Errorf("there are no such messages: %s of the ids", thousands(missing)), hint: hint}
	}
	return nil
}
