package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postroom/postroom/mail"
)

// secretBytes is the length of what is made here: nobody can guess 256 bits, so that a plain hash of a token suffices.
const secretBytes = 32

func newTokenCommand() *cobra.Command {
	return group(&cobra.Command{Use: "token", Short: "Make tokens for the API"}, newTokenNewCommand())
}

// tokenNames are the names that the server's configuration takes.
var tokenNames = regexp.MustCompile(`^[A-Za-z0-9._@-]{1,64}$`)

func newTokenNewCommand() *cobra.Command {
	var name, role string
	var senders, kinds []string
	var requests int
	roles := []string{"producer", "operator", "admin"}
	c := &cobra.Command{
		Use:   "new",
		Short: "Make a token for the API",
		Long: `Make a token for the API.

The token goes to stdout, this once: the server keeps its hash only. What the server's configuration needs goes to stderr.
A producer hands mail in and asks what became of it; an operator also cancels and pauses; an admin may do everything.`,
		Example: `  postroom token new --role producer --name reports > reports.token
  postroom token new --name alarms --kind alert --sender alarms@example.com --requests-per-minute 600
  POSTROOM_TOKEN_FILE=reports.token postroom send --kind report --to ada@example.com --subject Figures --text @figures.txt`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			if !slices.Contains(roles, role) {
				return usage("--role: %q is not one of producer, operator and admin", role)
			}
			if !tokenNames.MatchString(name) {
				return usage("--name: write 1 to 64 letters, digits, or . _ @ -")
			}
			bounds, err := tokenBounds(role, senders, kinds, requests)
			if err != nil {
				return err
			}
			token := "pr_" + base64.RawURLEncoding.EncodeToString(random())
			sum := sha256.Sum256([]byte(token))
			if _, err := fmt.Fprintln(c.OutOrStdout(), token); err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "This is the only time that the token is shown; whoever uses it has it in POSTROOM_TOKEN. Add to the server's postroom.yaml, and start the server again:\n\n"+
				"auth:\n  tokens:\n    - name: %s\n      role: %s\n      sha256: %s\n%s", quotedName(name), role, hex.EncodeToString(sum[:]), bounds)
			return nil
		},
	}
	c.Flags().StringVar(&role, "role", "producer", "what the token allows: producer, operator or admin")
	c.Flags().StringVar(&name, "name", "producer-1", "what logs call its bearer")
	c.Flags().StringSliceVar(&senders, "sender", nil, "bind a producer to a sender: an address, or @ and a domain; may be repeated")
	c.Flags().StringSliceVar(&kinds, "kind", nil, "bind a producer to a kind: alert, report or subscription; may be repeated")
	c.Flags().IntVar(&requests, "requests-per-minute", 0, "how many requests it may make in any minute; 0 is no limit")
	completeWith(c, "role", roles...)
	completeWith(c, "kind", kindNames()...)
	return c
}

func kindNames() []string {
	var names []string
	for _, k := range mail.Kinds() {
		names = append(names, string(k))
	}
	return names
}

// tokenBounds writes what binds a token, as the server's configuration has it; nothing if nothing does.
func tokenBounds(role string, senders, kinds []string, requests int) (string, error) {
	if len(senders)+len(kinds) > 0 && role != "producer" {
		return "", usage("--sender and --kind bind producers alone: leave out --role %s", role)
	}
	if requests < 0 {
		return "", usage("--requests-per-minute: write how many, or 0 for no limit")
	}
	var b strings.Builder
	for i, sender := range senders {
		canonical, err := mail.ParseSender(sender)
		if err != nil {
			return "", usage("--sender: entry %d is neither an address nor @ and a domain", i+1)
		}
		senders[i] = strconv.Quote(canonical)
	}
	for _, kind := range kinds {
		if !mail.Kind(kind).Valid() {
			return "", usage("--kind: %q is not one of alert, report and subscription", kind)
		}
	}
	if len(senders) > 0 {
		fmt.Fprintf(&b, "      senders: [%s]\n", strings.Join(senders, ", "))
	}
	if len(kinds) > 0 {
		fmt.Fprintf(&b, "      kinds: [%s]\n", strings.Join(kinds, ", "))
	}
	if requests > 0 {
		fmt.Fprintf(&b, "      requests_per_minute: %d\n", requests)
	}
	return b.String(), nil
}

// quotedName keeps YAML from taking a name for a number, a boolean or worse.
func quotedName(name string) string { return `"` + name + `"` }

func random() []byte {
	secret := make([]byte, secretBytes)
	_, _ = rand.Read(secret) // it never fails: it would end the process
	return secret
}

// completeWith tells the shell what the flag can be.
func completeWith(c *cobra.Command, flag string, values ...string) {
	if err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // there is no such flag: the code above is wrong
	}
}
