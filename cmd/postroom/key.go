package main

import (
	"encoding/base64"
	"fmt"

	"github.com/spf13/cobra"
)

func newKeyCommand() *cobra.Command {
	return group(&cobra.Command{Use: "key", Short: "Make keys that seal credentials"}, newKeyNewCommand())
}

// keyUse says where a key goes. Each step of a change is for all processes before the next: one that seals with a key that another
// does not have yet would leave that one without a provider.
const keyUse = `The key goes into secrets.keys of every process that has this Redis: into postroom.yaml, or into a file that
POSTROOM_SECRETS_KEYS_FILE names, one key a line. Keep a copy where the backups of Redis are not: without it the provider's
credentials are lost, and have to be given again.

To change it while mail flows:

  1. Add the new key as the second of secrets.keys, in every process.
  2. Move it to the front, in every process: from then on it seals.
  3. Run postroom provider reseal.
  4. Take the old key out, in every process.
`

func newKeyNewCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "new",
		Short: "Make a key that seals the provider's credentials",
		Long: `Make a key that seals the provider's credentials in Redis: 32 random bytes in base64. It goes to stdout, this once.

` + keyUse,
		Example: `  (umask 077; postroom key new > postroom.key)
  POSTROOM_SECRETS_KEYS_FILE=postroom.key postroom serve --config postroom.yaml`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			if _, err := fmt.Fprintln(c.OutOrStdout(), base64.StdEncoding.EncodeToString(random())); err != nil {
				return err
			}
			fmt.Fprint(c.ErrOrStderr(), "This is the only time that the key is shown.\n\n", keyUse)
			return nil
		},
	}
}
