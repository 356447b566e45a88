package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postroom/postroom/admin"
)

func newProviderCommand() *cobra.Command {
	return group(&cobra.Command{Use: "provider", Short: "See, set, try and clear the provider that mail goes by"},
		newProviderShowCommand(), newProviderSetCommand(), newProviderVerifyCommand(), newProviderTestCommand(),
		newProviderClearCommand(onTerminal), newProviderResealCommand())
}

func newProviderVerifyCommand() *cobra.Command {
	var n connection
	c := &cobra.Command{
		Use:   "verify [FILE]",
		Short: "Try the provider's settings: connect and log in, and send nothing",
		Long: `Try the provider's settings step by step: connect and log in, and send nothing. Without a file and flags these are the active
ones, else those that "postroom provider set" would save of the same command line; nothing is changed. The token's role must
be admin. The exit code is 0 only if no step failed, and 4 if the provider put the trial off: it tells nothing of the settings.

` + aboutSettings,
		Example: `  postroom provider verify
  postroom provider verify provider.yaml
  postroom provider verify --host mail2.example.com --password-file smtp.password
  postroom provider verify --output json | jq -r '.steps[] | select(.state == "failed") | .fault.remedy'`,
		Args: oneFile,
	}
	registerSettings(c)
	n.register(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		g := &givenSettings{command: c, inputs: inputs{stdin: c.InOrStdin()}}
		client, s, err := g.chosen(&n, args)
		if err != nil {
			return err
		}
		v, err := client.VerifyProvider(c.Context(), s)
		if err != nil {
			return namedSettings(err)
		}
		return showVerification(c, &n, v)
	}
	return c
}

// showVerification tells what trying settings came to; that they do not work is an error.
func showVerification(c *cobra.Command, n *connection, v *admin.Verification) error {
	if n.json {
		if err := printJSON(c.OutOrStdout(), v); err != nil {
			return err
		}
	} else {
		if err := showSteps(c.OutOrStdout(), v.Steps); err != nil {
			return err
		}
		fmt.Fprintln(c.ErrOrStderr(), plain(v.Summary))
	}
	switch {
	case v.Undecided:
		return fail(exitTryAgain, "whether the settings work is not known yet")
	case !v.Valid:
		return errors.New("the settings do not work")
	}
	return nil
}

// showSteps writes a table of steps, and below it what is to be known of those that failed.
func showSteps(w io.Writer, steps []admin.Step) error {
	rows := make([][]string, len(steps))
	for i, s := range steps {
		rows[i] = []string{s.Name, s.State, thousands(int(s.TookMs)) + " ms", orDash(oneLine(s.Found))}
	}
	if err := table(w, []string{"STEP", "STATE", "TIME", "FOUND"}, rows...); err != nil {
		return err
	}
	var b strings.Builder
	for _, s := range steps {
		if s.Fault != nil {
			fmt.Fprintf(&b, "\n%s %s:\n", plain(s.Name), plain(s.State))
			writeFault(&b, s.Fault, textWidth(w))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeFault says what went wrong with the provider, which setting is to blame, and what to do.
func writeFault(b *strings.Builder, f *admin.ProviderFault, width int) {
	if f.Field != "" {
		fmt.Fprintf(b, "    %-10s%s\n", "field", plain(settingName(f.Field)))
	}
	if answer := faultAnswer(f); answer != "" {
		fmt.Fprintf(b, "    %-10s%s\n", "answer", plain(answer))
	}
	writeAdvice(b, nil, &admin.Advice{Happened: f.Happened, Postroom: f.Postroom, Remedy: f.Remedy}, width)
}

// faultAnswer gives what the provider said; "" if it said nothing, or nobody knows.
func faultAnswer(f *admin.ProviderFault) string {
	said := outcomeReply(admin.Outcome{Code: f.Code, Enhanced: f.Enhanced, Reply: oneLine(f.Answer)})
	return strings.TrimPrefix(said, "reply: ")
}

func newProviderTestCommand() *cobra.Command {
	var n connection
	c := &cobra.Command{
		Use:   "test ADDRESS",
		Short: "Send a test mail, and say what became of it",
		Long: `Send a test mail to an address by the active provider, and wait for what becomes of it: at most half a minute, after which it
is cancelled. The mail says which Postroom it comes from. The token's role must be admin.

The exit code is 0 only if the provider took the mail. Whether it lies in the inbox then, only a look can tell.`,
		Example: `  postroom provider test ada@example.com
  postroom provider test ada@example.com --output json | jq -r .fault.remedy`,
		Args: arguments("ADDRESS"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := n.connect()
			if err != nil {
				return err
			}
			r, err := client.TestProvider(c.Context(), args[0])
			if err != nil {
				return err
			}
			return showTest(c, &n, r)
		},
	}
	n.register(c)
	return c
}

func showTest(c *cobra.Command, n *connection, r *admin.TestResult) error {
	out := c.OutOrStdout()
	if n.json {
		if err := printJSON(out, r); err != nil {
			return err
		}
	} else {
		if err := table(out, []string{"ID", "STATE", "TIME"}, []string{r.ID, r.State, thousands(int(r.TookMs)) + " ms"}); err != nil {
			return err
		}
		if r.Fault != nil {
			var b strings.Builder
			b.WriteString("\n")
			writeFault(&b, r.Fault, textWidth(out))
			if _, err := io.WriteString(out, b.String()); err != nil {
				return err
			}
		}
		fmt.Fprintln(c.ErrOrStderr(), plain(r.Summary))
	}
	if r.State != "delivered" {
		return fail(exitUndelivered, "the test mail was not delivered")
	}
	return nil
}

func newProviderResealCommand() *cobra.Command {
	var n connection
	c := &cobra.Command{
		Use:   "reseal",
		Short: "Seal the provider's credentials anew, with the first of the server's keys",
		Long: `Seal the provider's credentials anew, with the first of secrets.keys: the third step of changing the key, see
"postroom key new --help". To do it twice is fine. The token's role must be admin.`,
		Example: `  postroom provider reseal`,
		Args:    arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := n.connect()
			if err != nil {
				return err
			}
			r, err := client.ResealProvider(c.Context())
			if err != nil {
				return err
			}
			if n.json {
				return printJSON(c.OutOrStdout(), r)
			}
			changed := "no"
			if r.Changed {
				changed = "yes"
			}
			if err := table(c.OutOrStdout(), []string{"SEALED ANEW"}, []string{changed}); err != nil {
				return err
			}
			fmt.Fprintln(c.ErrOrStderr(), plain(r.Summary))
			return nil
		},
	}
	n.register(c)
	return c
}
