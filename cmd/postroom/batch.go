package main

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/postroom/postroom/admin"
)

func newBatchCommand() *cobra.Command {
	return group(&cobra.Command{Use: "batch", Short: "See what became of batches, or cancel one"},
		newBatchListCommand(), newBatchShowCommand(), newBatchCancelCommand())
}

func newBatchShowCommand() *cobra.Command {
	var n connection
	c := &cobra.Command{
		Use:   "show ID",
		Short: "Show how far a batch has come",
		Long: `Show how many messages of a batch are open, delivered, failed, cancelled and expired, why its last message waits, and when
that will roughly go.

Delivered means that the provider took responsibility; a bounce may still follow.`,
		Example: `  postroom batch show 01JZ3Q8Y6M2V7T4K9RBC5XWDHE
  postroom batch show 01JZ3Q8Y6M2V7T4K9RBC5XWDHE --output json | jq .counts.open`,
		Args: arguments("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := n.connect()
			if err != nil {
				return err
			}
			b, err := client.Batch(c.Context(), args[0])
			if err != nil {
				return err
			}
			if n.json {
				return printJSON(c.OutOrStdout(), b)
			}
			return showBatch(c.OutOrStdout(), b)
		},
	}
	n.register(c)
	return c
}

func newBatchCancelCommand() *cobra.Command {
	var n connection
	c := &cobra.Command{
		Use:   "cancel ID",
		Short: "Cancel what is still open of a batch",
		Long: `Cancel every message of a batch that nobody is sending. What is being sent at that moment may still be delivered. The token's
role must be operator or admin. Cancelling twice is fine.`,
		Example: `  postroom batch cancel 01JZ3Q8Y6M2V7T4K9RBC5XWDHE`,
		Args:    arguments("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := n.connect()
			if err != nil {
				return err
			}
			if err := client.CancelBatch(c.Context(), args[0]); err != nil {
				return err
			}
			return showCancelled(c, &n, "BATCH", args[0])
		},
	}
	n.register(c)
	return c
}

func showBatch(w io.Writer, b *admin.BatchStatus) error {
	t := newFacts(w)
	t.line("batch", b.ID)
	t.line("kind", string(b.Kind))
	t.line("mailbox", b.Mailbox)
	t.line("accepted", instantText(b.Accepted))
	t.line("send at", instantText(b.SendAt))
	t.line("expires", instantText(b.ExpiresAt))
	if b.Cancelled {
		cancelled := "yes"
		if b.Counts.Open > 0 {
			cancelled += ": what is still open, and not being sent, ends too"
		}
		t.line("cancelled", cancelled)
	}
	t.line("progress", progressText(b))
	t.line("why it waits", b.WaitsFor)
	t.line("through", aroundText(b.Through))
	for _, key := range slices.Sorted(maps.Keys(b.Metadata)) {
		t.line("metadata", key+"="+b.Metadata[key])
	}
	fmt.Fprintf(t, "\nSTATE\tMESSAGES\n")
	for _, count := range []struct {
		state string
		n     int
	}{{"open", b.Counts.Open}, {"delivered", b.Counts.Delivered}, {"failed", b.Counts.Failed},
		{"cancelled", b.Counts.Cancelled}, {"expired", b.Counts.Expired}} {
		fmt.Fprintf(t, "%s\t%s\n", count.state, thousands(count.n))
	}
	if b.Counts.Failed > 0 {
		fmt.Fprintf(t, "\n%s\n", whoFailed(b.ID))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return writeRefusal(w, b.Hold)
}

// progressText says how much of a batch has ended; of one message a share tells nothing.
func progressText(b *admin.BatchStatus) string {
	if b.Total == 1 {
		return fmt.Sprintf("%d of 1 message", 1-b.Counts.Open)
	}
	return fmt.Sprintf("%.1f %% of %s messages", 100*b.Progress, thousands(b.Total))
}

// whoFailed says how to find out which of a batch's messages failed.
func whoFailed(id string) string { return "Who lacks it, and why: postroom failed list --batch " + id }
