package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/postroom/postroom/config"
	"github.com/postroom/postroom/queue"
)

// Pings that are measured by the command, and at a start, which they must not delay.
const (
	checkPings = 50
	startPings = 3
)

func newCheckCommand() *cobra.Command {
	var path string
	var noVerify, mend bool
	var n connection
	c := &cobra.Command{
		Use:   "check",
		Short: "Check Redis, the provider and the configuration, and say what to do",
		Long: `Check Redis, the provider and the configuration that "postroom serve" would use, where it would run, and change nothing: one
line for each check, with ok, warning or fault, what was found, and what to do. It asks Redis and the provider, and no server.
The active provider is connected and logged in to, and nothing is sent; --no-verify leaves that out.

With --repair it also makes indexes and counters in Redis again from the records of messages, at once and while mail goes on; processes
that work do so by themselves, slowly, about once an hour. Use it after keys in Redis were lost or changed by hand.

The exit code is 0 without a fault, and 1 with one. A fault loses mail or sends it twice, breaks limits, or keeps all mail
from going. What a hosted Redis does not tell is a warning at most.`,
		Example: `  postroom check --config postroom.yaml
  postroom check --config postroom.yaml --no-verify
  postroom check --config postroom.yaml --no-verify --repair
  postroom check --config postroom.yaml --output json | jq -r '.[] | select(.level != "ok") | .remedy'`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := n.check(); err != nil {
				return err
			}
			cfg, err := config.Load(path, os.Environ())
			if err != nil {
				return err
			}
			how := tried
			if noVerify {
				how = compared
			}
			redis.SetLogger(redisLog{slog.New(slog.DiscardHandler)})
			client, err := cfg.Redis.Client(1)
			if err != nil {
				return fmt.Errorf("redis.url: %w", err)
			}
			defer func() { _ = client.Close() }()
			found := (&checker{config: cfg, client: client, how: how}).run(cmd.Context())
			if mend {
				found = append(found, repairFinding(cmd.Context(), cfg, client))
			}
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			return showFindings(cmd.OutOrStdout(), cmd.ErrOrStderr(), found, n.json)
		},
	}
	c.Flags().StringVar(&path, "config", "", "configuration file (YAML); without it, defaults and POSTROOM_... in the environment")
	c.Flags().BoolVar(&noVerify, "no-verify", false, "do not connect to the provider")
	c.Flags().BoolVar(&mend, "repair", false, "make indexes and counters in Redis again from the records")
	n.registerOutput(c)
	return c
}

// showFindings writes a line for each check; that there is a fault is an error.
func showFindings(out, words io.Writer, found []queue.Finding, asJSON bool) error {
	counts := make(map[queue.Level]int)
	rows := make([][]string, len(found))
	for i, f := range found {
		counts[f.Level]++
		rows[i] = []string{f.Check, string(f.Level), lineOf(f)}
	}
	if asJSON {
		if err := printJSON(out, found); err != nil {
			return err
		}
	} else if err := table(out, []string{"CHECK", "LEVEL", "FOUND"}, rows...); err != nil {
		return err
	}
	summary := counting(counts[queue.LevelFault], "fault", "faults") + ", " + counting(counts[queue.LevelWarning], "warning", "warnings")
	if counts[queue.LevelFault] > 0 {
		return fail(exitFault, "%s", summary)
	}
	fmt.Fprintln(words, summary)
	return nil
}

// lineOf gives a finding on one line.
func lineOf(f queue.Finding) string {
	if f.Remedy == "" {
		return oneLine(f.Found)
	}
	return oneLine(f.Found + ". To do: " + f.Remedy)
}

// checker looks at everything that serve would use.
type checker struct {
	config *config.Config
	client redis.UniversalClient
	how    effort
}

// checkRedisPatience bounds what is asked of Redis; the provider has its own time.
const checkRedisPatience = 20 * time.Second

func (c *checker) run(ctx context.Context) []queue.Finding {
	found := c.redis(ctx)
	own := ownFindings(c.config)
	if len(found) == 1 {
		return append(found, own...) // it does not answer
	}
	q, err := queue.Open(ctx, queue.Options{Client: c.client, Namespace: c.config.Redis.Namespace})
	if err != nil {
		return append(append(found, unusable(err)), own...)
	}
	providers, err := newProviders(c.config, q, slog.New(slog.DiscardHandler))
	if err != nil {
		return append(append(found, unusable(err)), own...)
	}
	stored, err := q.Diagnose(ctx)
	if err != nil {
		stored = []queue.Finding{unusable(err)}
	}
	return slices.Concat(found, stored, providers.findings(ctx, c.how), own)
}

func (c *checker) redis(ctx context.Context) []queue.Finding {
	ctx, cancel := context.WithTimeout(ctx, checkRedisPatience)
	defer cancel()
	return queue.DiagnoseServer(ctx, serverChecks(c.config, c.client, checkPings))
}

func serverChecks(cfg *config.Config, client redis.UniversalClient, pings int) queue.ServerOptions {
	return queue.ServerOptions{Client: client, Namespace: cfg.Redis.Namespace, Sentinel: cfg.Redis.Sentinel(), MayForget: cfg.Redis.MayForget,
		ContentMaxBytes: cfg.Content.MaxBytes, Pings: pings}
}

// unusable is that Redis answers and can't be used.
func unusable(err error) queue.Finding {
	if redis.HasErrorPrefix(err, "MISCONF") {
		return queue.Finding{Check: "access", Level: queue.LevelFault, Found: "Redis takes nothing, as it can't write to its disk", Remedy: "see persistence"}
	}
	return queue.Finding{Check: "access", Level: queue.LevelFault, Found: oneLine(err.Error()),
		Remedy: "allow the user of redis.url all commands but those of administration, on all keys and channels: ACL SETUSER NAME ~* &* +@all -@admin +config|get"}
}

// guard looks at Redis before anything is written to it, and refuses to start if what is accepted could be lost. All else that is
// wrong is logged.
func (s *server) guard(ctx context.Context) error {
	var losing []string
	for _, f := range queue.DiagnoseServer(ctx, serverChecks(s.config, s.redis, startPings)) {
		s.logFinding(f)
		if f.LosesMail {
			losing = append(losing, f.Check+": "+lineOf(f))
		}
	}
	if len(losing) > 0 {
		return &failure{code: exitFault, err: fmt.Errorf("not started, as mail would be lost:\n  %s", strings.Join(losing, "\n  ")),
			hint: `"postroom check" looks at everything.`}
	}
	return nil
}

// warn logs what is wrong with the configuration and the provider's settings. Nobody connects to the provider: its health tells.
func (s *server) warn(ctx context.Context) {
	for _, f := range s.providers.findings(ctx, declared) {
		s.logFinding(f)
	}
	for _, f := range ownFindings(s.config) {
		if f.Check != checkTokens || s.api {
			s.logFinding(f)
		}
	}
}

func (s *server) logFinding(f queue.Finding) {
	switch f.Level {
	case queue.LevelFault:
		s.log.Error("check: "+f.Found, "check", f.Check, "remedy", f.Remedy)
	case queue.LevelWarning:
		s.log.Warn("check: "+f.Found, "check", f.Check, "remedy", f.Remedy)
	}
}
