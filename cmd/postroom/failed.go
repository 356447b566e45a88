package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/queue"
)

func newFailedCommand() *cobra.Command {
	return group(&cobra.Command{Use: "failed", Short: "Find mail that failed, and requeue, delete or export it"},
		newFailedListCommand(), newFailedShowCommand(), newFailedRequeueCommand(onTerminal), newFailedDeleteCommand(onTerminal), newFailedExportCommand())
}

// defaultFailedList is how many messages are listed unless --limit says otherwise.
const defaultFailedList = 100

func newFailedListCommand() *cobra.Command {
	var n connection
	var f failedFilter
	var limit int
	c := &cobra.Command{
		Use:   "list [ID...]",
		Short: "List failed messages, newest first",
		Long: `List failed messages, newest first: who still lacks each of them, and what the provider said last. Without a filter all are
meant. The token's role must be operator or admin; with --batch a producer's is enough.

` + aboutFilters + `

With --output json there is a line for each message: an object as GET /v1/failed has it.`,
		Example: `  postroom failed list
  postroom failed list --class permanent,unknown --since 3d
  postroom failed list --recipient @example.com --reply 5.1.1 --limit 0
  postroom failed list --limit 0 --output json | jq -r .last.reply | sort | uniq -c | sort -rn`,
		RunE: func(c *cobra.Command, ids []string) error {
			filter, err := f.filter(c, ids)
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
			return listFailed(c, &failedPages{client: client, filter: filter}, limit, n.json)
		},
	}
	n.register(c)
	f.register(c)
	c.Flags().IntVar(&limit, "limit", defaultFailedList, "most messages to list; 0 lists all")
	return c
}

func listFailed(c *cobra.Command, pages *failedPages, limit int, json bool) error {
	out, words := c.OutOrStdout(), c.ErrOrStderr()
	var messages []admin.FailedMessage
	shown, left, unreadable := 0, 0, 0
	for !pages.over && (limit == 0 || shown < limit) {
		most := longestFailedPage
		if limit > 0 {
			most = min(most, limit-shown)
		}
		page, err := pages.next(c.Context(), most)
		if err != nil {
			return err
		}
		shown += len(page.Messages)
		left, unreadable = page.Left, unreadable+page.Unreadable
		if !json {
			messages = append(messages, page.Messages...)
			continue
		}
		for i := range page.Messages {
			if err := printJSON(out, &page.Messages[i]); err != nil {
				return err
			}
		}
	}
	if !json {
		if err := table(out, failedHeader, failedRows(messages, widthOf(out))...); err != nil {
			return err
		}
	}
	switch filtered := filterWords(pages.filter); {
	case shown > 0:
	case filtered == "":
		fmt.Fprintln(words, "The failed store is empty.")
	default:
		fmt.Fprintf(words, "Nothing in the failed store fits (%s).\n", plain(filtered))
	}
	if !pages.over {
		fmt.Fprintf(words, "These are the newest %s. About %s older ones were not looked at: --limit 0 lists all that fit.\n", thousands(shown), thousands(left))
	}
	tellUnreadable(words, unreadable)
	return nil
}

func tellUnreadable(words io.Writer, n int) {
	if n > 0 {
		fmt.Fprintf(words, "Left alone, because only a newer Postroom can read them: %s.\n", thousands(n))
	}
}

var failedHeader = []string{"FAILED AT", "ID", "KIND", "CLASS", "MAILBOX", "STILL WITHOUT IT", "REPLY"}

// narrowest is what a reply gets of the width of a terminal at least; longer lines wrap.
const narrowest = 24

// failedRows gives a row for each message. The reply is clipped so that the rows fit into width, unless that is 0.
func failedRows(messages []admin.FailedMessage, width int) [][]string {
	rows := make([][]string, len(messages))
	widths := make([]int, len(failedHeader)-1)
	for i := range widths {
		widths[i] = len(failedHeader[i])
	}
	for i := range messages {
		m := &messages[i]
		rows[i] = []string{instantText(m.Failed), m.ID, string(m.Kind), m.Class, orDash(m.Mailbox), orDash(namesOf(lacking(m.Recipients), 1)), outcomeReply(m.Last)}
		for j := range rows[i] {
			rows[i][j] = oneLine(rows[i][j])
			if j < len(widths) {
				widths[j] = max(widths[j], utf8.RuneCountInString(rows[i][j]))
			}
		}
	}
	if width == 0 {
		return rows
	}
	for _, w := range widths {
		width -= w + 2
	}
	for i := range rows {
		rows[i][len(widths)] = clipped(rows[i][len(widths)], max(width, narrowest))
	}
	return rows
}

// lacking gives the addresses of those who do not have the mail.
func lacking(recipients []admin.RecipientStatus) []string {
	var addresses []string
	for _, r := range recipients {
		if r.State != "delivered" {
			addresses = append(addresses, r.Address)
		}
	}
	return addresses
}

// namesOf names the first of them, and counts the others.
func namesOf(addresses []string, most int) string {
	if more := len(addresses) - most; more > 0 {
		return strings.Join(addresses[:most], ", ") + " +" + thousands(more)
	}
	return strings.Join(addresses, ", ")
}

// oneLine keeps what others wrote from breaking a table.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// clipped gives the first n characters of s.
func clipped(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// widthOf gives the width of a terminal, and 0 for what is none.
func widthOf(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !isTerminal(f) {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

func newFailedShowCommand() *cobra.Command {
	var n connection
	c := &cobra.Command{
		Use:   "show ID",
		Short: "Show a failed message, and what can be done about it",
		Long: `Show what became of a failed message, as "postroom message show" does, and what can be done about it. A message that is not in
the failed store is an error. The token's role must be operator or admin for what can be done.`,
		Example: `  postroom failed show 01JZ3Q8Y6M2V7T4K9RBC5XWDHE
  postroom failed show 01JZ3Q8Y6M2V7T4K9RBC5XWDHE --output json | jq .recipients`,
		Args: arguments("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := n.connect()
			if err != nil {
				return err
			}
			m, err := failedMessageOf(c.Context(), client, args[0])
			if err != nil {
				return err
			}
			if n.json {
				return printJSON(c.OutOrStdout(), m)
			}
			if err := showMessage(c.OutOrStdout(), m); err != nil {
				return err
			}
			id := plain(args[0])
			_, err = fmt.Fprintf(c.ErrOrStderr(), `
To send it again, once the cause is put right:  postroom failed requeue %s
To keep a copy:                                 postroom failed export %s --out FILE
To delete it:                                   postroom failed delete %s
`, id, id, id)
			return err
		},
	}
	n.register(c)
	return c
}

// failedMessageOf gives a message of the failed store; that it is elsewhere is an error.
func failedMessageOf(ctx context.Context, client *admin.Client, id string) (*admin.MessageStatus, error) {
	m, err := client.Message(ctx, id)
	if err != nil {
		return nil, err
	}
	if m.State != queue.Failed {
		return nil, &failure{code: exitFault, err: fmt.Errorf("the message is not in the failed store. It is %s", stateWords(m.State)),
			hint: "Its recipients and attempts: postroom message show " + plain(id)}
	}
	return m, nil
}
