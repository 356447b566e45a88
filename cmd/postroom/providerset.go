package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postroom/postroom/admin"
)

// aboutSettings is part of the help of the commands that take settings.
const aboutSettings = `FILE is YAML or JSON and has what stands below provider: in postroom.yaml, which is the body of PUT /v1/provider too; - is
standard input. Flags are laid over it. Flags alone are laid over what is active, unless they change the kind: then everything
is new but the allowed senders. What has no flag is for a file, limits for one.

Secrets come from files, or from standard input (-), and lose the newline at their end. One that is left out is kept, as long as
it goes to the same server and account as before; else it has to be given again.`

func newProviderSetCommand() *cobra.Command {
	var n connection
	var noVerify, dryRun bool
	c := &cobra.Command{
		Use:   "set [FILE]",
		Short: "Set the provider that mail goes by",
		Long: `Set the provider that mail goes by. It takes effect on every worker at once, without a restart; the settings of before are
deleted, and with them their credentials. They are tried first, as "postroom provider verify" does. If that fails they are
saved all the same, mail waits until they are put right, and the exit code is 6. If the provider only puts the trial off, that tells
nothing of the settings: mail is tried with them, and the exit code is 4. The token's role must be admin.

` + aboutSettings,
		Example: `  postroom provider set --kind smtp --host mail.example.com --sender "Reports <reports@example.com>" \
    --username reports --password-file smtp.password
  postroom provider set --kind microsoft365 --sender reports@example.com --tenant-id 6f1c... --client-id 9a0e... \
    --client-secret-file graph.secret --allow-sender @example.com
  pass show mail/smtp | head -1 | postroom provider set --password-file -
  postroom provider set provider.yaml --dry-run
  postroom provider set --security tls`,
		Args: oneFile,
	}
	registerSettings(c)
	n.register(c)
	c.Flags().BoolVar(&noVerify, "no-verify", false, "do not try the settings")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "try the settings, and change nothing")
	c.RunE = func(c *cobra.Command, args []string) error {
		g := &givenSettings{command: c, inputs: inputs{stdin: c.InOrStdin()}}
		switch {
		case noVerify && dryRun:
			return usage("--no-verify and --dry-run: nothing would be left to do")
		case len(args) == 0 && !g.any():
			return usage("%s: set what? Give a file, or flags such as --host (see %s --help)", c.CommandPath(), c.CommandPath())
		}
		client, s, err := g.chosen(&n, args)
		if err != nil {
			return err
		}
		if dryRun {
			v, err := client.VerifyProvider(c.Context(), s)
			if err != nil {
				return namedSettings(err)
			}
			defer fmt.Fprintln(c.ErrOrStderr(), "Dry run: nothing was changed.")
			return showVerification(c, &n, v)
		}
		changed, err := client.SetProvider(c.Context(), s, !noVerify)
		if err != nil {
			return perhapsChanged(namedSettings(err))
		}
		return showChanged(c, &n, changed)
	}
	return c
}

// perhapsChanged says where to look, if a request that changes the provider went without an answer.
func perhapsChanged(err error) error {
	_, answered := errors.AsType[*admin.Problem](err)
	network, ok := errors.AsType[*net.OpError](err)
	unsent := ok && network.Op == "dial"
	if answered || unsent || !temporary(err) && !errors.Is(err, context.Canceled) {
		return err
	}
	return &failure{code: exitCode(err), err: err, hint: "It may have been done all the same: postroom provider show tells."}
}

// showChanged tells what is active now. That the settings do not work is an error: they are saved, and no mail goes.
func showChanged(c *cobra.Command, n *connection, p *admin.ProviderChanged) error {
	out := c.OutOrStdout()
	if n.json {
		if err := printJSON(out, p); err != nil {
			return err
		}
	} else {
		if len(p.Steps) > 0 {
			if err := showSteps(out, p.Steps); err != nil {
				return err
			}
			fmt.Fprintln(out)
		}
		result := strings.ReplaceAll(p.Result, "_", " ")
		row := []string{p.Provider.Kind, orDash(p.Provider.Version), result, attemptsText(p.Underway)}
		if err := table(out, []string{"KIND", "VERSION", "RESULT", "STILL UNDER WAY"}, row); err != nil {
			return err
		}
		fmt.Fprintln(c.ErrOrStderr(), plain(p.Summary))
	}
	switch p.Result {
	case "saved_undecided":
		return &failure{code: exitTryAgain, err: errors.New("the settings are saved, and whether they work is not known yet"),
			hint: "To try them again: postroom provider verify"}
	case "saved_not_valid":
		return &failure{code: exitNotValid, err: errors.New("the settings are saved, but they do not work"),
			hint: "To try them again: postroom provider verify"}
	}
	return nil
}

func attemptsText(n int) string { return counting(n, "attempt", "attempts") }
