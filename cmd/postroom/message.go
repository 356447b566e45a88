package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

func newMessageCommand() *cobra.Command {
	return group(&cobra.Command{Use: "message", Short: "See what became of messages, or cancel them"},
		newMessageListCommand(), newMessageShowCommand(), newMessageCancelCommand(onTerminal))
}

func newMessageShowCommand() *cobra.Command {
	var n connection
	c := &cobra.Command{
		Use:   "show ID",
		Short: "Show a message's state, recipients and attempts",
		Long: `Show what became of a message: its state, why it waits and roughly when it goes, each recipient, and the last attempts with
the provider's own words. Of the last one, and of the refusal that holds its mailbox, it says what happened, what Postroom does
about it, and what you can do.

Delivered means that the provider took responsibility; a bounce may still follow.`,
		Example: `  postroom message show 01JZ3Q8Y6M2V7T4K9RBC5XWDHE
  postroom message show 01JZ3Q8Y6M2V7T4K9RBC5XWDHE --output json | jq '.attempts[-1].outcomes[].advice'`,
		Args: arguments("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := n.connect()
			if err != nil {
				return err
			}
			m, err := client.Message(c.Context(), args[0])
			if err != nil {
				return err
			}
			if n.json {
				return printJSON(c.OutOrStdout(), m)
			}
			return showMessage(c.OutOrStdout(), m)
		},
	}
	n.register(c)
	return c
}

func newMessageCancelCommand(ask func(*cobra.Command) asker) *cobra.Command {
	choice := &messageChoice{}
	g := &changing{verb: "cancel", done: "cancelled", noun: "message", final: true, of: choice}
	c := &cobra.Command{
		Use:   "cancel [ID...]",
		Short: "Cancel messages that nobody is sending",
		Long: `Cancel messages. That works until an attempt begins, and again between attempts; then it is too late. The token's role must be operator
or admin. Cancelling twice is fine. Give ids, filters, or --all; "postroom batch cancel" cancels all of a batch.

Messages are meant that fit every filter given. ` + aboutAccepted + `
--recipient finds who still lacks the mail.

Unless one id is all that is given, everything is counted first and told; --dry-run ends there. Filters and --all need a yes on the terminal, or
--yes. Then it is done in many small requests, to what was accepted before the count began. What the server can't do for a moment is tried
again. A run that was interrupted says how to go on; each message is cancelled once. What is being sent is counted as too late; that one of
the ids is, or is not known, is a fault (exit code 1).

Without --batch or ids the server looks at all that it knows, twice: a million messages in some 10 s, and half a minute if all are cancelled.

With --output json the answer is {"id", "state"} for one id, and else the API's, with the sums of the run: {"done", "too_late",
"unreadable", "scanned", "left"}. What is 0 can be left out; left is above 0 if the run ended early.`,
		Example: `  postroom message cancel 01JZ3Q8Y6M2V7T4K9RBC5XWDHE
  postroom message cancel --kind subscription --accepted-before 2030-01-31T10:00:00Z --dry-run
  postroom message cancel --batch 01JZ3Q8Y6M2V7T4K9RBC5XWDHE --recipient @example.com --yes`,
	}
	g.complete(c, ask)
	many := c.RunE
	c.RunE = func(c *cobra.Command, ids []string) error {
		if err := choice.take(c, ids); err != nil {
			return err
		}
		if n := choice.named(); n != 1 || g.dryRun {
			if n > 0 { // whoever writes ids means them
				g.final, g.unasked = false, n
			}
			return many(c, ids)
		}
		client, err := choice.connect()
		if err != nil {
			return err
		}
		if err := client.CancelMessage(c.Context(), ids[0]); err != nil {
			return err
		}
		return showCancelled(c, &choice.connection, "MESSAGE", ids[0])
	}
	return c
}

func showCancelled(c *cobra.Command, n *connection, what, id string) error {
	cancelled := admin.Cancelled{ID: id, State: queue.Cancelled}
	if n.json {
		return printJSON(c.OutOrStdout(), cancelled)
	}
	return table(c.OutOrStdout(), []string{what, "STATE"}, []string{cancelled.ID, string(cancelled.State)})
}

// stateWords say what a state means to people.
func stateWords(s queue.State) string {
	switch s {
	case queue.Queued:
		return "queued: it waits"
	case queue.Sending:
		return "sending: an attempt is under way"
	case queue.Delivered:
		return "delivered: the provider took responsibility for it; a bounce may still follow"
	case queue.Failed:
		return "failed: at least one recipient will not get it unless somebody does something"
	case queue.Cancelled:
		return "cancelled: ended by request"
	case queue.Expired:
		return "expired: its time ran out before it was delivered"
	}
	return string(s)
}

// classWords say what a class means to people.
func classWords(class string) string {
	c, err := mail.ParseClass(class)
	if err != nil {
		return class
	}
	switch c {
	case mail.Delivered:
		return "delivered: the provider took responsibility"
	case mail.Throttled:
		return "throttled: the provider asked us to slow down"
	case mail.Configuration:
		return "configuration: the provider's settings are wrong, or its mailbox is full or locked"
	case mail.Permanent:
		return "permanent: it will never be accepted"
	case mail.Unknown:
		return "unknown: it may have been accepted, and nobody told us"
	}
	return "temporary: it can be tried again later"
}

func showMessage(w io.Writer, m *admin.MessageStatus) error {
	t := newFacts(w)
	t.line("message", m.ID)
	t.line("batch", m.BatchID)
	t.line("kind", string(m.Kind))
	t.line("state", stateWords(m.State))
	t.line("accepted", instantText(m.Accepted))
	t.line("due", instantText(m.Due))
	t.line("expires", instantText(m.ExpiresAt))
	t.line("finished", instantText(m.Finished))
	t.line("why it waits", m.WaitsFor)
	if m.Ahead > 0 {
		t.line("ahead", "about "+thousands(m.Ahead))
	}
	t.line("expected", aroundText(m.Expected))
	for _, key := range slices.Sorted(maps.Keys(m.Metadata)) {
		t.line("metadata", key+"="+m.Metadata[key])
	}
	if len(m.Recipients) > 0 {
		fmt.Fprintf(t, "\nRECIPIENT\tSTATE\n")
	}
	for i := range m.Recipients {
		fmt.Fprintf(t, "%s\t%s\n", plain(recipientName(m, i)), plain(m.Recipients[i].State))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if err := writeRefusal(w, m.Hold); err != nil {
		return err
	}
	return showAttempts(w, m)
}

func recipientName(m *admin.MessageStatus, i int) string {
	if i < 0 || i >= len(m.Recipients) || m.Recipients[i].Address == "" {
		return "recipient " + strconv.Itoa(i+1)
	}
	return m.Recipients[i].Address
}

func showAttempts(w io.Writer, m *admin.MessageStatus) error {
	if len(m.Attempts) == 0 {
		none := "No attempt has ended yet."
		if m.State == queue.Cancelled || m.State == queue.Expired {
			none = "It was never tried."
		}
		_, err := fmt.Fprintln(w, "\n"+none)
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nThe last attempts, oldest first; %d counted towards giving up in all:\n", m.Counted)
	for i, a := range m.Attempts {
		took := time.Duration(a.Seconds * float64(time.Second)).Round(time.Millisecond)
		fmt.Fprintf(&b, "\n%s, %s, worker %s\n", instantText(a.Begun), took, plain(a.Worker))
		if a.Former && advisable(m.State) {
			b.WriteString("  with settings of the provider that have been replaced since\n")
		}
		for j, o := range a.Outcomes {
			fmt.Fprintf(&b, "  %s\n", plain(classWords(o.Class)))
			if len(o.Recipients) > 0 {
				fmt.Fprintf(&b, "    for %s\n", plain(outcomeRecipients(m, o)))
			}
			if said := outcomeReply(o); said != "" {
				fmt.Fprintf(&b, "    %s\n", plain(said))
			}
			if i == len(m.Attempts)-1 && advisable(m.State) {
				before := a.Outcomes[:j]
				if m.Hold != nil && m.Hold.Last != nil {
					before = append([]admin.Outcome{*m.Hold.Last}, before...)
				}
				if !a.Former || o.Scope == "recipient" || o.Scope == "message" {
					writeAdvice(&b, before, o.Advice, textWidth(w))
				}
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func outcomeRecipients(m *admin.MessageStatus, o admin.Outcome) string {
	names := make([]string, len(o.Recipients))
	for i, at := range o.Recipients {
		names[i] = recipientName(m, at)
	}
	return strings.Join(names, ", ")
}

// outcomeReply gives what the provider said, and at which step.
func outcomeReply(o admin.Outcome) string {
	reply := o.Reply
	// Providers repeat their codes in the text, or do not.
	for _, code := range []string{o.Enhanced, strconv.Itoa(o.Code)} {
		if code != "" && code != "0" && !strings.HasPrefix(reply, code) && !strings.Contains(reply, " "+code+" ") {
			reply = strings.TrimSpace(code + " " + reply)
		}
	}
	if reply == "" {
		return o.Step
	}
	return cmp.Or(o.Step, "reply") + ": " + reply
}
