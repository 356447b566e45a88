package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/postroom/postroom/admin"
)

// stopping holds the flags of the commands that pause.
type stopping struct {
	connection
	reason, duration string
}

func (s *stopping) register(c *cobra.Command) {
	s.connection.register(c)
	c.Flags().StringVar(&s.reason, "reason", "", "why, in one line: others see it where mail waits (needed)")
	c.Flags().StringVar(&s.duration, "duration", "24h", "for how long, such as 90m, 2h or 7d; at most 30d")
}

// connect checks the flags and gives a client of the server.
func (s *stopping) connect() (*admin.Client, time.Duration, error) {
	if s.reason == "" {
		return nil, 0, usage("--reason is missing: say why, as others will wonder")
	}
	d, err := admin.ParsePause(s.duration)
	if err != nil {
		return nil, 0, usage("--duration: %q is not a time from 1s to 30d, such as 90m, 2h or 7d", s.duration)
	}
	client, err := s.connection.connect()
	return client, d, err
}

// aboutPauses is part of the help of the commands that pause.
const aboutPauses = `What is being sent is finished, and mail is accepted and waits. A pause always ends by itself; one that runs is replaced.
The token's role must be operator or admin.`

func newMailboxPauseCommand() *cobra.Command {
	var s stopping
	c := &cobra.Command{
		Use:   "pause ADDRESS --reason TEXT",
		Short: "Let nothing of a mailbox begin for a time",
		Long: `Let nothing of a mailbox begin for a time. ` + aboutPauses + `

` + aboutMailboxes,
		Example: `  postroom mailbox pause news@example.com --reason "wrong list of subscribers" --duration 2h
  postroom mailbox resume news@example.com`,
		Args: arguments("ADDRESS"),
		RunE: func(c *cobra.Command, args []string) error {
			client, d, err := s.connect()
			if err != nil {
				return err
			}
			paused, err := client.PauseMailbox(c.Context(), args[0], s.reason, d)
			if err != nil {
				return err
			}
			return showPaused(c, &s.connection, paused, "postroom mailbox resume "+paused.Address)
		},
	}
	s.register(c)
	return c
}

func newMailboxResumeCommand() *cobra.Command {
	var n connection
	c := &cobra.Command{
		Use:   "resume ADDRESS",
		Short: "End a mailbox's pause and its hold",
		Long: `End a mailbox's pause, and its hold too: it is tried at once, so put right first why the provider refused. Resuming twice is
fine. The token's role must be operator or admin.

While everything is paused, a mailbox that was resumed still waits: see "postroom resume --all".`,
		Example: `  postroom mailbox resume news@example.com`,
		Args:    arguments("ADDRESS"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := n.connect()
			if err != nil {
				return err
			}
			resumed, err := client.ResumeMailbox(c.Context(), args[0])
			if err != nil {
				return err
			}
			return showResumed(c, &n, resumed)
		},
	}
	n.register(c)
	return c
}

func newPauseCommand() *cobra.Command {
	var s stopping
	var all bool
	c := &cobra.Command{
		Use:   "pause --all --reason TEXT",
		Short: "Let nothing at all begin for a time",
		Long: `Let nothing at all begin for a time, from no mailbox. ` + aboutPauses + `

"postroom mailbox pause ADDRESS" pauses one mailbox.`,
		Example: `  postroom pause --all --reason "the mail server is moved" --duration 90m
  postroom resume --all`,
		Args: everything(&all),
		RunE: func(c *cobra.Command, _ []string) error {
			client, d, err := s.connect()
			if err != nil {
				return err
			}
			paused, err := client.PauseAll(c.Context(), s.reason, d)
			if err != nil {
				return err
			}
			return showPaused(c, &s.connection, paused, "postroom resume --all")
		},
	}
	s.register(c)
	c.Flags().BoolVar(&all, "all", false, "pause everything (needed, so that nobody does by mistake)")
	return c
}

func newResumeCommand() *cobra.Command {
	var n connection
	var all bool
	c := &cobra.Command{
		Use:   "resume --all",
		Short: "End the pause of everything",
		Long: `End what "postroom pause --all" began. Mailboxes that are held or paused by themselves stay so: "postroom mailbox list" tells
which, and "postroom mailbox resume ADDRESS" resumes one. Resuming twice is fine. The token's role must be operator or admin.`,
		Example: `  postroom resume --all`,
		Args:    everything(&all),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := n.connect()
			if err != nil {
				return err
			}
			resumed, err := client.ResumeAll(c.Context())
			if err != nil {
				return err
			}
			return showResumed(c, &n, resumed)
		},
	}
	n.register(c)
	c.Flags().BoolVar(&all, "all", false, "resume everything (needed)")
	return c
}

// everything demands --all and no address.
func everything(all *bool) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if !*all || len(args) > 0 {
			return usage("%s takes --all and no address; for one mailbox use postroom mailbox %s ADDRESS", c.CommandPath(), c.Name())
		}
		return nil
	}
}

func showPaused(c *cobra.Command, n *connection, p *admin.Paused, undo string) error {
	if n.json {
		return printJSON(c.OutOrStdout(), p)
	}
	if err := table(c.OutOrStdout(), []string{"PAUSED", "UNTIL"}, []string{addressText(p.Address), instantText(p.Until)}); err != nil {
		return err
	}
	fmt.Fprintf(c.ErrOrStderr(), "%s\nTo end it before: %s\n", plain(p.Note), plain(undo))
	return nil
}

func showResumed(c *cobra.Command, n *connection, r *admin.Resumed) error {
	if n.json {
		return printJSON(c.OutOrStdout(), r)
	}
	ended := "a pause or a hold"
	if !r.Ended {
		ended = "nothing: there was neither a pause nor a hold"
	}
	if err := table(c.OutOrStdout(), []string{"RESUMED", "ENDED"}, []string{addressText(r.Address), ended}); err != nil {
		return err
	}
	fmt.Fprintln(c.ErrOrStderr(), plain(r.Summary))
	return nil
}

// addressText gives the address of an answer; without one it is about everything.
func addressText(address string) string {
	if address == "" {
		return "everything"
	}
	return address
}
