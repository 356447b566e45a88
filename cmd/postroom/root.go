package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func newRootCommand() *cobra.Command {
	root := group(&cobra.Command{
		Use:   "postroom",
		Short: "Queue mail and deliver it as fast as the provider allows",
		Long: `Postroom takes report, subscription and alert mail from applications, keeps it in Redis, and delivers it through one
provider as fast as that provider's limits allow and no faster.

"postroom demo" shows it at work and needs nothing. "postroom serve" is the server, and "postroom check" looks at what it
needs. The other commands speak to a server over its HTTP API:

  POSTROOM_URL         where it is; default ` + defaultURL + ` (or --url)
  POSTROOM_TOKEN       the token that lets you in, or
  POSTROOM_TOKEN_FILE  the file that holds it (or --token-file)

Data goes to stdout, words to stderr. Exit codes:

  0    done
  1    a fault: the server refused the request, or something here is wrong; check found a fault
  2    the command line is wrong
  3    some recipients were refused, and nothing is sent to them; the others are accepted
  4    the server could not be reached, or cannot serve now: try again; provider set, verify: the provider put the trial off
  5    send --wait, provider test: something that was accepted was not delivered
  6    provider set: the settings are saved, but do not work: no mail goes
  130  interrupted`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	})
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage("%w (see %s --help)", err, c.CommandPath())
	})
	root.SetVersionTemplate("postroom {{.Version}}\n")
	root.AddCommand(newServeCommand(), newDemoCommand(), newSendCommand(), newMessageCommand(), newBatchCommand(),
		newFailedCommand(), newMailboxCommand(), newPauseCommand(), newResumeCommand(), newProviderCommand(), newAuditCommand(), newLogCommand(), newCheckCommand(),
		newTokenCommand(), newKeyCommand(), newLiveCommand(), newVersionCommand())
	return root
}

// group makes c a command that only has others below it. By itself it shows its help; cobra alone would take a mistyped
// name below it for success.
func group(c *cobra.Command, below ...*cobra.Command) *cobra.Command {
	c.AddCommand(below...)
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		hint := "see " + c.CommandPath() + " --help"
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			hint = "did you mean " + strings.Join(near, " or ") + "?"
		}
		return usage("%s has no command %q: %s", c.CommandPath(), args[0], hint)
	}
	c.SuggestionsMinimumDistance = 2
	return c
}

// arguments demands that the arguments are those that names lists.
func arguments(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usage("%s: %s is missing (see %s --help)", c.CommandPath(), names[len(args)], c.CommandPath())
		case len(args) > len(names):
			return usage("%s: too many arguments: it takes %s (see %s --help)", c.CommandPath(), counted(len(names)), c.CommandPath())
		}
		return nil
	}
}

func counted(n int) string {
	if n == 0 {
		return "none"
	}
	return fmt.Sprint(n)
}
