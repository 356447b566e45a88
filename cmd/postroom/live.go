package main

import (
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"
)

// liveTimeout is less than what supervisors give a check of health before they end it themselves.
const liveTimeout = 5 * time.Second

func newLiveCommand() *cobra.Command {
	var n connection
	c := &cobra.Command{
		Use:   "live",
		Short: "Ask whether a server runs",
		Long: `Ask whether a server runs: GET /livez, with no token. It is for the health checks of containers that hold nothing else that
could ask. It tells nothing about Redis and the provider, as to start the process anew would mend neither.`,
		Example: `  postroom live
  postroom live --url http://127.0.0.1:8081`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			base, err := n.server()
			if err != nil {
				return err
			}
			target, err := url.JoinPath(base, "livez")
			if err != nil {
				return usage("%w", err)
			}
			request, err := http.NewRequestWithContext(c.Context(), http.MethodGet, target, nil)
			if err != nil {
				return usage("%w", err)
			}
			response, err := (&http.Client{Timeout: liveTimeout}).Do(request)
			if err != nil {
				return err
			}
			defer response.Body.Close()
			if response.StatusCode != http.StatusOK {
				return fail(exitTryAgain, "%s answers %s", target, response.Status)
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), "It runs.")
			return err
		},
	}
	c.Flags().StringVar(&n.url, "url", "", "where the server is; default: POSTROOM_URL, then "+defaultURL)
	return c
}
