package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postroom/postroom/mail"
)

// mostInBatch is the most recipients that are handed in at once: an answer comes soon, and little is to be repeated.
const mostInBatch = 5000

// longestKey leaves room for the number of a part in what the API takes.
const longestKey = 240

const sendHelp = `Hand in mail: one message, or one for each recipient of a list. It is accepted at once and delivered by the server's
workers; "postroom message show" and "postroom batch show" tell what became of it.

One message is made from flags, or starts from an .eml file, of which each flag replaces its part (files are added).

A list of recipients is a CSV file whose first line names its columns:

  address           where the mail goes (needed)
  display_name      the name beside the address
  list_unsubscribe  this recipient's URI for one-click unsubscription; also a variable
  attach            path of a file for this recipient alone, from the folder of the list; empty: none
  each other        a variable: the column name fills {{.name}} in subject, text and HTML. Values are text.

Files of more than 256 KiB, and those of the column attach, are stored first and referred to; each path is stored once.

Columns are separated by comma, semicolon or tab, told from the first line unless --separator says it. The file is UTF-8.
It is read twice: first to check it as a whole, so that nothing is sent of a list that is malformed anywhere, or lacks a
column that the message uses. Recipients whom the server refuses, such as one with a wrong address, are reported by their
line; the others get their mail.

Subject, text and HTML can choose, too, as templates of Go: {{if .name}}, {{else}}, {{with .name}} and {{end}}, with the
functions and, or, not, len, eq, ne, lt, le, gt and ge.

Each request has an idempotency key, so that repeating it does not send twice. It is random unless --idempotency-key gives
it: then the same command can be repeated as a whole, for a day. A list goes out in parts whose keys are KEY/1, KEY/2 and
so on: repeat it with the same file and --batch-size.

With --output json the answer is the API's; for a list, a line for each recipient: {"index", "address", "id"} or {"index",
"address", "problem"}.`

const sendExamples = `  postroom send --kind alert --to oncall@example.com --subject "Disk full" --text "db-1 has 2 % left."
  df -h | postroom send --kind alert --to oncall@example.com --subject "Disks of $(hostname)" --text - --expires-at 4h
  postroom send --kind report --to "Ada <ada@example.com>" --cc bob@example.com --subject Figures --text @cover.txt \
    --html @cover.html --inline logo=logo.png --attach "figures.xlsx;name=Figures 2030.xlsx" --wait
  postroom send --kind report --eml report.eml --bcc archive@example.com
  postroom send --kind subscription --recipients readers.csv --subject "News for {{.name}}" --html @news.html --dry-run
  postroom send --kind subscription --recipients readers.csv --subject "News for {{.name}}" --html @news.html \
    --idempotency-key news-2030-01 --output json > news.jsonl`

// sending is one run of the command.
type sending struct {
	connection
	content     contentFlags
	list        string
	separator   string
	batchSize   int
	key         string
	wait        bool
	waitTimeout time.Duration
	dryRun      bool
	// columns are those of the list that are variables, once it was read.
	columns []string

	out, words io.Writer
}

func newSendCommand() *cobra.Command {
	s := &sending{}
	c := &cobra.Command{
		Use:     "send",
		Short:   "Hand in a message, or one for each recipient of a list",
		Long:    sendHelp,
		Example: sendExamples,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("postroom send takes no arguments: a recipient goes with --to, a message file with --eml, a list with --recipients (see postroom send --help)")
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error {
			s.out, s.words = c.OutOrStdout(), c.ErrOrStderr()
			if err := s.check(c); err != nil {
				return err
			}
			m, err := s.content.message(c.InOrStdin(), time.Now())
			if err != nil {
				return err
			}
			switch {
			case s.list != "":
				return s.sendList(c.Context(), m)
			case s.dryRun:
				return s.tryMessage(m)
			}
			return s.sendMessage(c.Context(), m)
		},
	}
	s.connection.register(c)
	s.content.register(c)
	f := c.Flags()
	f.StringVar(&s.list, "recipients", "", "CSV file of recipients, each of whom gets a message of their own")
	f.StringVar(&s.separator, "separator", "", "what separates the columns of --recipients: a character, or tab")
	f.IntVar(&s.batchSize, "batch-size", mostInBatch, "most recipients of --recipients to hand in at once")
	f.StringVar(&s.key, "idempotency-key", "", "makes the command repeatable: what has this key is sent once")
	f.BoolVar(&s.wait, "wait", false, "wait until everything is delivered or has failed")
	f.DurationVar(&s.waitTimeout, "wait-timeout", 0, "with --wait: wait no longer, and end with code 5; 0 is no limit")
	f.BoolVar(&s.dryRun, "dry-run", false, "check everything here, tell what would be sent, and send nothing")
	return c
}

// check looks for flags that do not go together.
func (s *sending) check(c *cobra.Command) error {
	if err := s.connection.check(); err != nil {
		return err
	}
	if s.list == "" {
		for _, name := range []string{"separator", "batch-size"} {
			if c.Flags().Changed(name) {
				return usage("--%s goes with --recipients only", name)
			}
		}
	} else if len(s.content.to) > 0 {
		return usage("--to and --recipients: give one of them")
	}
	switch {
	case s.list == "-":
		return usage("--recipients: it must be a file, for it is read twice")
	case s.batchSize < 1 || s.batchSize > mail.DefaultLimits().MaxBatch:
		return usage("--batch-size: give 1 to %s", thousands(mail.DefaultLimits().MaxBatch))
	case s.waitTimeout < 0 || s.waitTimeout > 0 && !s.wait:
		return usage("--wait-timeout: it goes with --wait, and is not negative")
	case s.wait && s.dryRun:
		return usage("--wait and --dry-run: there is nothing to wait for")
	case len(s.key) > longestKey || strings.ContainsFunc(s.key, func(r rune) bool { return r <= ' ' || r > '~' }):
		return usage("--idempotency-key: use at most %d letters, digits and marks of ASCII", longestKey)
	case s.key != "" && s.content.relativeTime():
		return usage("--idempotency-key: repeating the command would be another request, for --send-at or --expires-at counts from now: give a time such as 2030-01-31T08:00:00Z")
	}
	return nil
}

// runKey gives the key of this run, and what to say when it is not known how far it came.
func (s *sending) runKey() (key, hint string) {
	if s.key != "" {
		return s.key, "To go on without sending twice, repeat the command."
	}
	key = rand.Text()
	if s.content.relativeTime() {
		return key, ""
	}
	return key, "To go on without sending twice, repeat the command with --idempotency-key " + key
}

func (s *sending) sendMessage(ctx context.Context, m mail.Message) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	if err := (&storing{client: client}).message(ctx, &m); err != nil {
		return err // nothing was sent yet: there is nothing to go on with
	}
	key, hint := s.runKey()
	accepted, err := client.Send(ctx, m, key)
	if err != nil {
		return unsure(err, hint)
	}
	if s.json {
		err = printJSON(s.out, accepted)
	} else {
		err = table(s.out, []string{"MESSAGE", "STATE"}, []string{accepted.ID, string(accepted.State)})
	}
	if err != nil || !s.wait {
		return err
	}
	return s.waitForMessage(ctx, client, accepted.ID)
}

// unsure adds the hint to an error after which the request may have been accepted.
func unsure(err error, hint string) error {
	if hint == "" || !temporary(err) && !errors.Is(err, context.Canceled) {
		return err
	}
	return &failure{code: exitCode(err), err: err, hint: hint}
}

// tryMessage tells what would be sent.
func (s *sending) tryMessage(m mail.Message) error {
	if err := m.Validate(mail.Limits{}, time.Now()); err != nil {
		return err
	}
	if s.json {
		return printJSON(s.out, m)
	}
	if err := describe(s.out, &m); err != nil {
		return err
	}
	_, err := fmt.Fprintln(s.words, "Dry run: the message is fine, and nothing was sent.")
	return err
}

// describe writes what the message is, without its text.
func describe(w io.Writer, m *mail.Message) error {
	t := newFacts(w)
	from := "the provider's sender"
	if m.From.Address != "" {
		from = full(m.From)
	}
	t.line("kind", string(m.Kind))
	t.line("from", from)
	for _, list := range []struct {
		name string
		of   []mail.Address
	}{{"to", m.To}, {"cc", m.Cc}, {"bcc", m.Bcc}, {"reply to", m.ReplyTo}} {
		for _, a := range list.of {
			t.line(list.name, full(a))
		}
	}
	t.line("subject", m.Subject)
	if m.Text != "" {
		t.line("text", thousands(len(m.Text))+" bytes")
	}
	if m.HTML != "" {
		t.line("html", thousands(len(m.HTML))+" bytes")
	}
	for _, a := range m.Attachments {
		how := "attached"
		if a.ContentID != "" {
			how = "shown as cid:" + a.ContentID
		}
		t.line("file", fmt.Sprintf("%s (%s, %s bytes, %s)", a.Name, a.ContentType, thousands(len(a.Content)), how))
	}
	t.line("send at", instantText(m.SendAt))
	t.line("expires at", instantText(m.ExpiresAt))
	return t.Flush()
}
