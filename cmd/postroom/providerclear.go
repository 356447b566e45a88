package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/provider"
)

func newProviderClearCommand(ask func(*cobra.Command) asker) *cobra.Command {
	var n connection
	var dryRun, yes bool
	c := &cobra.Command{
		Use:   "clear",
		Short: "Have no provider, and delete the credentials of the one there is",
		Long: `Have no provider: its settings and credentials are deleted, on every worker at once. Mail is accepted and waits until another
is set. The token's role must be admin.

First it is told what is active, and how much mail waits; --dry-run ends there. It needs a yes on the terminal, or --yes.

With --output json the answer is that of DELETE /v1/provider; where nothing was changed, that of GET /v1/provider.`,
		Example: `  postroom provider clear --dry-run
  postroom provider clear --yes`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			asked := ask(c)
			if !dryRun && !yes && asked == nil {
				return usage("%s: there is no terminal to ask on: look with --dry-run what it would do, then add --yes", c.CommandPath())
			}
			client, err := n.connect()
			if err != nil {
				return err
			}
			p, err := client.Provider(c.Context())
			if err != nil {
				return err
			}
			tellActive(c, p)
			if dryRun || p.Kind == string(provider.KindNone) {
				return unchangedProvider(c, &n, p)
			}
			if p.ReadOnly {
				return fail(exitFault, "the provider is set by a configuration file, and can only be changed there")
			}
			if !yes {
				sure, err := asked(c.Context(), "Delete these settings, and their credentials?")
				if err != nil {
					return unchanged(err)
				}
				if !sure {
					return fail(exitFault, "nothing was changed, for the answer was not yes")
				}
			}
			cleared, err := client.ClearProvider(c.Context(), p.Version)
			if err != nil {
				return perhapsChanged(err)
			}
			return showChanged(c, &n, cleared)
		},
	}
	n.register(c)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "tell what would be deleted, and change nothing")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

// tellActive says what stands to be deleted.
func tellActive(c *cobra.Command, p *admin.Provider) {
	words := c.ErrOrStderr()
	if p.Kind == string(provider.KindNone) {
		fmt.Fprintln(words, "No provider is active: there is nothing to delete.")
	} else {
		text := p.Kind
		if s := p.Settings; s != nil {
			if s.Kind == provider.KindSMTP {
				text += fmt.Sprintf(" by %s:%d", s.SMTP.Host, s.SMTP.Port)
			}
			text += " for " + full(s.Sender)
		}
		if origin := originText(p); origin != "" {
			text += ", set " + origin
		}
		fmt.Fprintln(words, "Active is "+plain(text)+".")
	}
	fmt.Fprintln(words, counting(p.Open, "message has", "messages have")+" not ended.")
}

func unchangedProvider(c *cobra.Command, n *connection, p *admin.Provider) error {
	if n.json {
		if err := printJSON(c.OutOrStdout(), p); err != nil {
			return err
		}
	} else if err := table(c.OutOrStdout(), []string{"KIND", "VERSION", "OPEN"},
		[]string{p.Kind, orDash(p.Version), thousands(p.Open)}); err != nil {
		return err
	}
	fmt.Fprintln(c.ErrOrStderr(), "Nothing was changed.")
	return nil
}
