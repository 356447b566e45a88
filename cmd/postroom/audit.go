package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/postroom/postroom/admin"
)

const (
	// defaultAudit is how many entries are listed unless --limit says otherwise.
	defaultAudit = 100
	// auditPage is how many entries are asked for at once: as many as the server gives.
	auditPage = 1000
)

func newAuditCommand() *cobra.Command {
	var n connection
	var limit int
	c := &cobra.Command{
		Use:   "audit",
		Short: "List who changed what, newest first",
		Long: `List who changed what, newest first: the provider's settings, who tried them, pauses, what was cancelled, changes of
the log's level, and what was done to failed mail. BY is the name of a token. Of each token's cancels of single messages
100 an hour are listed; the log has all. The token's role must be operator or admin.

With --output json there is a line for each entry: an object as GET /v1/audit has it.`,
		Example: `  postroom audit
  postroom audit --limit 0 --output json | jq -c 'select(.action | startswith("provider."))'`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			if limit < 0 {
				return usage("--limit: give a number of entries, or 0 for all")
			}
			client, err := n.connect()
			if err != nil {
				return err
			}
			return listAudit(c, client, limit, n.json)
		},
	}
	n.register(c)
	c.Flags().IntVar(&limit, "limit", defaultAudit, "most entries to list; 0 lists all")
	return c
}

func listAudit(c *cobra.Command, client *admin.Client, limit int, json bool) error {
	out, words := c.OutOrStdout(), c.ErrOrStderr()
	var rows [][]string
	shown, cursor := 0, ""
	for {
		most := auditPage
		if limit > 0 {
			most = min(most, limit-shown)
		}
		page, err := client.Audit(c.Context(), cursor, most)
		if err != nil {
			return err
		}
		shown += len(page.Entries)
		for i := range page.Entries {
			e := &page.Entries[i]
			if json {
				if err := printJSON(out, e); err != nil {
					return err
				}
				continue
			}
			rows = append(rows, []string{instantText(e.At), orDash(oneLine(e.By)), orDash(oneLine(e.From)), oneLine(e.Action),
				orDash(oneLine(e.Target)), orDash(oneLine(e.Detail))})
		}
		if page.Next == "" || limit > 0 && shown >= limit {
			cursor = page.Next
			break
		}
		if page.Next == cursor {
			return errSameCursor
		}
		cursor = page.Next
	}
	if !json {
		if err := table(out, []string{"TIME", "BY", "FROM", "ACTION", "TARGET", "DETAIL"}, rows...); err != nil {
			return err
		}
	}
	switch {
	case shown == 0:
		fmt.Fprintln(words, "Nobody has changed anything yet.")
	case cursor != "":
		fmt.Fprintf(words, "These are the newest %s; there can be older ones: --limit 0 lists all.\n", thousands(shown))
	}
	return nil
}
