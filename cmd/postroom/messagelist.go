package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

const (
	// defaultList is how many messages, or batches, are listed unless --limit says otherwise.
	defaultList = 100
	// longestPage is as many as the server gives at once.
	longestPage = 1000
)

func newMessageListCommand() *cobra.Command {
	var n connection
	var f messageFilter
	var limit int
	c := &cobra.Command{
		Use:   "list",
		Short: "List messages: those that are open, or in another state",
		Long: `List messages that fit every filter given; of several states, one is enough. Without --state those are meant that are open: queued and
sending. The token's role must be operator or admin.

With --batch only the batch's messages are looked at, and come in its order. Else the server looks at all that it knows, those of ended
mail too (a million in some 10 s), until --limit are found: they come in no order, and which are found first is chance.
A message that moves meanwhile may be missing, or there twice. "postroom batch list" is the shorter answer to what waits.

` + aboutAccepted + ` --recipient finds who still lacks the mail.

With --output json there is a line for each message: an object as GET /v1/messages has it.`,
		Example: `  postroom message list
  postroom message list --batch 01JZ3Q8Y6M2V7T4K9RBC5XWDHE --state failed,expired --limit 0
  postroom message list --kind subscription --accepted-before 2030-01-31T10:00:00Z --limit 0 --output json | jq -r .mailbox | sort | uniq -c`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			filter, err := f.filter(c, nil, queue.States())
			if err != nil {
				return err
			}
			if limit < 0 {
				return usage("--limit: give a number of messages, or 0 for all")
			}
			client, err := n.connect()
			if err != nil {
				return err
			}
			return listMessages(c, client, filter, limit, n.json)
		},
	}
	n.register(c)
	f.register(c, queue.States())
	c.Flags().IntVar(&limit, "limit", defaultList, "most messages to list; 0 lists all")
	return c
}

func listMessages(c *cobra.Command, client *admin.Client, filter admin.MessageFilter, limit int, json bool) error {
	out, words := c.OutOrStdout(), c.ErrOrStderr()
	var rows [][]string
	shown, left, unreadable := 0, 0, 0
	more, err := eachPage(c.Context(), func(ctx context.Context, cursor string) (next string, err error) {
		most := longestPage
		if limit > 0 {
			most = min(most, limit-shown)
		}
		page, err := client.Messages(ctx, filter, cursor, most)
		if err != nil {
			return "", err
		}
		left, unreadable = page.Left, unreadable+page.Unreadable
		for _, m := range page.Messages {
			shown++
			if json {
				if err := printJSON(out, m); err != nil {
					return "", err
				}
				continue
			}
			rows = append(rows, []string{instantText(m.Accepted), m.ID, string(m.Kind), string(m.State), orDash(m.Mailbox), orDash(m.BatchID),
				orDash(instantText(m.Due)), thousands(m.Counted), thousands(m.Recipients)})
		}
		return page.Next, nil
	}, func() bool { return limit > 0 && shown >= limit })
	if err != nil {
		return err
	}
	if !json {
		if err := table(out, []string{"ACCEPTED", "ID", "KIND", "STATE", "MAILBOX", "BATCH", "DUE", "ATTEMPTS", "RECIPIENTS"}, rows...); err != nil {
			return err
		}
	}
	if shown == 0 {
		fmt.Fprintln(words, strings.TrimSpace("No message fits. "+plain(messageWords(filter))))
	}
	if more {
		fmt.Fprintf(words, "These are the first %s that were met. About %s more were not looked at: --limit 0 lists all that fit.\n", thousands(shown), thousands(left))
	}
	tellUnreadable(words, unreadable)
	return nil
}

// eachPage asks for page after page until the last, or enough says so; more reports whether there are others. What the server can't do
// for a moment is tried again.
func eachPage(ctx context.Context, page func(ctx context.Context, cursor string) (next string, err error), enough func() bool) (more bool, err error) {
	var p patient
	for cursor := ""; ; {
		var next string
		if err := p.try(ctx, func() (err error) {
			next, err = page(ctx, cursor)
			return err
		}); err != nil {
			return false, err
		}
		switch {
		case next == "":
			return false, nil
		case next == cursor:
			return false, errSameCursor
		case enough():
			return true, nil
		}
		cursor = next
	}
}

func newBatchListCommand() *cobra.Command {
	var n connection
	var f acceptedFilter
	var open bool
	var limit int
	c := &cobra.Command{
		Use:   "list",
		Short: "List batches, newest first, with how far each has come",
		Long: `List batches that fit every filter given, newest first, with how many of their messages are in which state. The server knows batches
whose mail is open or failed, and for a while those that are through. The token's role must be operator or admin.

` + aboutAccepted + `

The server looks at the names of all that it has (a million in a few seconds), whatever --limit is.

With --output json there is a line for each batch: an object as GET /v1/batches has it.`,
		Example: `  postroom batch list --open
  postroom batch list --mailbox news@example.com --accepted-after 2030-01-31
  postroom batch list --open --limit 0 --output json | jq -r 'select(.counts.open > 1000) | .id'`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			after, before, err := f.times(c)
			if err != nil {
				return err
			}
			if limit < 0 {
				return usage("--limit: give a number of batches, or 0 for all")
			}
			client, err := n.connect()
			if err != nil {
				return err
			}
			return listBatches(c, client, admin.BatchFilter{Kind: mail.Kind(f.kind), Mailbox: f.mailbox, AcceptedAfter: after, AcceptedBefore: before, Open: open},
				limit, n.json)
		},
	}
	n.register(c)
	f.register(c)
	c.Flags().BoolVar(&open, "open", false, "only those with messages that wait or are being sent")
	c.Flags().IntVar(&limit, "limit", defaultList, "most batches to list; 0 lists all")
	return c
}

func listBatches(c *cobra.Command, client *admin.Client, filter admin.BatchFilter, limit int, json bool) error {
	out, words := c.OutOrStdout(), c.ErrOrStderr()
	newest := make(map[string]admin.BatchStatus)
	cut := 0
	_, err := eachPage(c.Context(), func(ctx context.Context, cursor string) (string, error) {
		page, err := client.Batches(ctx, filter, cursor, longestPage)
		if err != nil {
			return "", err
		}
		for _, b := range page.Batches {
			newest[b.ID] = b
		}
		// Ids sort by when they were made.
		if over := len(newest) - limit; limit > 0 && over > 0 {
			for _, id := range sortedIDs(newest)[:over] {
				delete(newest, id)
			}
			cut += over
		}
		return page.Next, nil
	}, func() bool { return false })
	if err != nil {
		return err
	}
	var rows [][]string
	ids := sortedIDs(newest)
	slices.Reverse(ids)
	for _, id := range ids {
		b := newest[id]
		if json {
			if err := printJSON(out, b); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, []string{instantText(b.Accepted), b.ID, string(b.Kind), orDash(b.Mailbox), orDash(instantText(b.SendAt)), thousands(b.Total),
			thousands(b.Counts.Open), thousands(b.Counts.Delivered), thousands(b.Counts.Failed), thousands(b.Counts.Cancelled), thousands(b.Counts.Expired)})
	}
	if !json {
		header := []string{"ACCEPTED", "ID", "KIND", "MAILBOX", "SEND AT", "MESSAGES", "OPEN", "DELIVERED", "FAILED", "CANCELLED", "EXPIRED"}
		if err := table(out, header, rows...); err != nil {
			return err
		}
	}
	switch {
	case len(ids) == 0:
		fmt.Fprintln(words, "No batch fits.")
	case cut > 0:
		fmt.Fprintf(words, "These are the newest %s. %s older ones fit: --limit 0 lists all.\n", thousands(len(ids)), thousands(cut))
	}
	return nil
}

func sortedIDs(batches map[string]admin.BatchStatus) []string {
	ids := make([]string, 0, len(batches))
	for id := range batches {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
