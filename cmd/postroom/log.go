package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/queue"
)

// followLogLevel has this process log at the level that was asked for of all, until ctx ends. In between it logs at its own.
func (s *server) followLogLevel(ctx context.Context) {
	if s.level == nil {
		<-ctx.Done()
		return
	}
	own := s.level.Level()
	s.queue.FollowLogLevel(ctx, func(l *queue.LogLevel) {
		if l == nil {
			s.level.Set(own)
			s.log.Warn("the log level is that of the configuration again", "level", own)
			return
		}
		// Told while the lower of the two is in force.
		s.level.Set(min(l.Level, s.level.Level()))
		s.log.Warn("the log level has been changed for all processes", "level", l.Level, "until", l.Until, "by", l.By)
		s.level.Set(l.Level)
	})
	s.level.Set(own)
}

const aboutLogs = `The level is for every process of the installation, takes effect within seconds, and ends by itself. The token's
role must be operator or admin.`

func newLogCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "log",
		Short: "Have all processes log more, or less, for a time",
		Long:  "Have all processes log more, or less, for a time, without a restart.\n\n" + aboutLogs,
	}, newLogShowCommand(), newLogSetCommand(), newLogResetCommand())
}

func newLogShowCommand() *cobra.Command {
	var n connection
	c := &cobra.Command{
		Use: "show", Short: "Show what all processes log, until when and who asked for it",
		Long:    "Show what all processes log, until when and who asked for it.\n\n" + aboutLogs,
		Example: "  postroom log show",
		Args:    arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := n.connect()
			if err != nil {
				return err
			}
			return showLog(c, &n)(client.LogLevel(c.Context()))
		},
	}
	n.register(c)
	return c
}

func newLogSetCommand() *cobra.Command {
	var n connection
	var duration string
	levels := []string{"debug", "info", "warn", "error"}
	c := &cobra.Command{
		Use: "set LEVEL", Short: "Have all processes log at a level for a time",
		Long:      "Have all processes log at a level for a time: debug, info, warn or error.\n\n" + aboutLogs,
		Example:   "  postroom log set debug --for 15m\n  postroom log reset",
		Args:      arguments("LEVEL"),
		ValidArgs: levels,
		RunE: func(c *cobra.Command, args []string) error {
			if !slices.Contains(levels, args[0]) {
				return usage("%q is none of debug, info, warn and error", args[0])
			}
			d, err := admin.ParseLogDuration(duration)
			if err != nil {
				return usage("--for: %q is not a time from 1s to 24h, such as 90s, 15m or 2h", duration)
			}
			client, err := n.connect()
			if err != nil {
				return err
			}
			return showLog(c, &n)(client.SetLogLevel(c.Context(), args[0], d))
		},
	}
	n.register(c)
	c.Flags().StringVar(&duration, "for", "15m", "for how long, such as 90s, 15m or 2h; at most 24h")
	return c
}

func newLogResetCommand() *cobra.Command {
	var n connection
	c := &cobra.Command{
		Use: "reset", Short: "Let each process log at its own level again",
		Long:    "Let each process log at the level of its configuration again.\n\n" + aboutLogs,
		Example: "  postroom log reset",
		Args:    arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := n.connect()
			if err != nil {
				return err
			}
			return showLog(c, &n)(client.ResetLogLevel(c.Context()))
		},
	}
	n.register(c)
	return c
}

// showLog gives what prints an answer about the log level.
func showLog(c *cobra.Command, n *connection) func(*admin.LogLevel, error) error {
	return func(l *admin.LogLevel, err error) error {
		if err != nil {
			return err
		}
		if n.json {
			return printJSON(c.OutOrStdout(), l)
		}
		level, until, by := "each its own", "", ""
		if l.Level != "" {
			level, until, by = l.Level, instantText(l.Until), l.By
		}
		if err := table(c.OutOrStdout(), []string{"LEVEL", "UNTIL", "BY"}, []string{level, until, by}); err != nil {
			return err
		}
		fmt.Fprintln(c.ErrOrStderr(), plain(l.Summary))
		return nil
	}
}
