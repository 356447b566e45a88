package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postroom/postroom/admin"
)

func newMailboxCommand() *cobra.Command {
	return group(&cobra.Command{Use: "mailbox", Short: "See whether mail flows and what binds it, pause it, or let it go again"},
		newMailboxListCommand(), newMailboxExplainCommand(), newMailboxPauseCommand(), newMailboxResumeCommand())
}

// aboutMailboxes is part of the help of several commands.
const aboutMailboxes = `A mailbox is what the provider's limits bind: with Microsoft 365 each sender, with SMTP the one account that sends for all,
named by its user name, or by host:port if it has none.`

func newMailboxListCommand() *cobra.Command {
	var n connection
	c := &cobra.Command{
		Use:   "list",
		Short: "List the mailboxes that send",
		Long: `List what has mail to send, or had some lately: what waits, how much of the limits is used, and when the backlog will be
through if nothing else comes. The token's role must be operator or admin.

` + aboutMailboxes,
		Example: `  postroom mailbox list
  postroom mailbox list --output json | jq '.mailboxes[] | select(.state != "flows") | .summary'`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := n.connect()
			if err != nil {
				return err
			}
			all, err := allMailboxes(c.Context(), client)
			if err != nil {
				return err
			}
			if n.json {
				return printJSON(c.OutOrStdout(), all)
			}
			switch {
			case all.Waiting > 0:
				fmt.Fprintf(c.ErrOrStderr(), "No provider is active, and so nothing is any mailbox's. Messages that wait for one: %s.\n", thousands(all.Waiting))
			case len(all.Mailboxes) == 0:
				fmt.Fprintln(c.ErrOrStderr(), "No mailbox has mail, or had some lately; or no provider is active.")
			}
			return listMailboxes(c.OutOrStdout(), all.Mailboxes)
		},
	}
	n.register(c)
	return c
}

// pageLength is how many mailboxes are asked for at once: as many as the server gives.
const pageLength = 1000

// allMailboxes gives all pages as one.
func allMailboxes(ctx context.Context, client *admin.Client) (admin.MailboxPage, error) {
	all := admin.MailboxPage{Mailboxes: []admin.Mailbox{}}
	for after := ""; ; {
		page, err := client.Mailboxes(ctx, after, pageLength)
		if err != nil {
			return all, err
		}
		all.Mailboxes, all.Waiting = append(all.Mailboxes, page.Mailboxes...), page.Waiting
		if page.After <= after { // also from a server that repeats itself
			return all, nil
		}
		after = page.After
	}
}

func listMailboxes(w io.Writer, all []admin.Mailbox) error {
	rows := make([][]string, len(all))
	for i, m := range all {
		rows[i] = []string{m.Address, m.State, thousands(m.Backlog.Total), fmt.Sprintf("%d of %d", m.Units, m.Concurrency), fullest(m.Limits),
			orDash(instantText(m.Next)), orDash(instantText(m.Through))}
	}
	return table(w, []string{"ADDRESS", "STATE", "WAITING", "UNITS", "FULLEST LIMIT", "NEXT AT", "THROUGH"}, rows...)
}

// fullest gives the limit of which most is used.
func fullest(limits []admin.Limit) string {
	if len(limits) == 0 {
		return "-"
	}
	l := slices.MaxFunc(limits, func(a, b admin.Limit) int { return cmp.Compare(a.Ratio, b.Ratio) })
	return fmt.Sprintf("%s %.0f %%", limitText(l.Name), 100*l.Ratio)
}

func orDash(s string) string { return cmp.Or(s, "-") }

func newMailboxExplainCommand() *cobra.Command {
	var n connection
	c := &cobra.Command{
		Use:   "explain ADDRESS",
		Short: "Say whether a mailbox's mail flows, and what binds it",
		Long: `Say whether a mailbox's mail flows, and if not why and until when; then each of its limits and how much is used, hold and
pause, what waits, and when it will be through if nothing else comes. The token's role must be operator or admin.

` + aboutMailboxes,
		Example: `  postroom mailbox explain reports@example.com
  postroom mailbox explain mail.example.com:587
  postroom mailbox explain reports@example.com --output json | jq -r .summary`,
		Args: arguments("ADDRESS"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := n.connect()
			if err != nil {
				return err
			}
			m, err := client.Mailbox(c.Context(), args[0])
			if err != nil {
				return err
			}
			if n.json {
				return printJSON(c.OutOrStdout(), m)
			}
			return showMailbox(c.OutOrStdout(), m, time.Now())
		},
	}
	n.register(c)
	return c
}

func showMailbox(w io.Writer, m *admin.Mailbox, now time.Time) error {
	t := newFacts(w)
	fmt.Fprintf(t, "%s\n\n", plain(m.Summary))
	t.line("mailbox", m.Address)
	t.line("account", m.Account)
	t.line("pause", silenceText(m.Pause))
	t.line("hold", silenceText(m.Hold))
	t.line("backlog", fmt.Sprintf("%s: alerts %s, reports %s, subscriptions %s", thousands(m.Backlog.Total),
		thousands(m.Backlog.Alert), thousands(m.Backlog.Report), thousands(m.Backlog.Subscription)))
	t.line("units", fmt.Sprintf("%d of %d in use", m.Units, m.Concurrency))
	t.line("next at", instantText(m.Next))
	t.line("through", throughText(m, now))
	if err := t.Flush(); err != nil {
		return err
	}
	if err := writeRefusal(w, m.Hold); err != nil {
		return err
	}
	switch {
	case m.Account != "":
		fmt.Fprintf(t, "\nThe limits are those of the account: postroom mailbox explain %s\n", plain(m.Account))
		return t.Flush()
	case len(m.Limits) == 0:
		fmt.Fprintf(t, "\nNo limits but the number of units.\n")
		return t.Flush()
	}
	fmt.Fprintf(t, "\nLIMIT\tOF\tUSED\tMAX\tIN ANY\tSHARE\tOLDEST USE ENDS\t\n")
	for _, l := range m.Limits {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%.0f %%\t%s\t%s\n", plain(limitText(l.Name)), plain(l.Scope), thousands(int(l.Used)), thousands(int(l.Max)),
			windowText(time.Duration(l.Window*float64(time.Second))), 100*l.Ratio, orDash(instantText(l.Until)), strings.Join(limitRemarks(m, l), ", "))
	}
	return t.Flush()
}

// silenceText gives a hold or a pause on one line; "" if there is none.
func silenceText(s *admin.Silence) string {
	if s == nil {
		return ""
	}
	text := "until " + instantText(s.Until)
	if s.Trying {
		text = "one message is being tried"
	}
	if s.Scope == "everything" {
		text = "everything, " + text
	}
	if s.By != "" {
		text += ", by " + s.By
	}
	if since := instantText(s.Since); since != "" {
		text += ", since " + since
	}
	switch s.Refusals {
	case 0:
	case 1:
		text += ", after 1 refusal"
	default:
		text += fmt.Sprintf(", after %s refusals in a row", thousands(s.Refusals))
	}
	return text + ": " + s.Reason
}

// throughText gives the forecast; "" if nothing waits.
func throughText(m *admin.Mailbox, now time.Time) string {
	switch {
	case m.Through.IsZero() && m.Backlog.Total > 0 && m.Workers == 0:
		return "not known: no worker can send"
	case m.Through.IsZero() && m.Backlog.Total > 0:
		return "not known yet: nothing has been sent of late"
	case m.Through.IsZero():
		return ""
	}
	text := "in " + aboutText(m.Through.Sub(now)) + " (" + instantText(m.Through) + ")"
	switch m.Binding {
	case "":
	case "concurrency":
		text += "; the number of units binds"
	default:
		text += "; the limit of " + limitText(m.Binding) + " binds"
	}
	return text
}

// limitRemarks say what is special about a limit.
func limitRemarks(m *admin.Mailbox, l admin.Limit) []string {
	var remarks []string
	if l.Used >= l.Max {
		remarks = append(remarks, "used up")
	}
	if l.Name == m.Binding {
		remarks = append(remarks, "binds")
	}
	return remarks
}

// limitText says what a limit counts.
func limitText(name string) string {
	if name == "upload_bytes" {
		return "bytes uploaded"
	}
	return name
}

// windowText writes the length of a window: 1 min, 24 h.
func windowText(d time.Duration) string {
	switch {
	case d >= time.Hour && d%time.Hour == 0:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d >= time.Minute && d%time.Minute == 0:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d >= time.Second && d%time.Second == 0:
		return fmt.Sprintf("%d s", d/time.Second)
	}
	return d.String()
}

// aboutText writes how long something takes, as roughly as it is known.
func aboutText(d time.Duration) string {
	const day = 24 * time.Hour
	switch minutes := d.Round(time.Minute); {
	case minutes < time.Minute:
		return "less than a minute"
	case minutes < time.Hour:
		return fmt.Sprintf("about %d min", minutes/time.Minute)
	case minutes < day:
		return fmt.Sprintf("about %d h %d min", minutes/time.Hour, minutes%time.Hour/time.Minute)
	}
	hours := d.Round(time.Hour)
	return fmt.Sprintf("about %d d %d h", hours/day, hours%day/time.Hour)
}
