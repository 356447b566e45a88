package main

import (
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/provider"
)

func newProviderShowCommand() *cobra.Command {
	var n connection
	c := &cobra.Command{
		Use:   "show",
		Short: "Show the active provider, its settings and how it does",
		Long: `Show the active provider: who set it and when, its settings, whether mail goes and if not why and what to do, which workers
can't load the settings, and how much mail has not ended. Of a secret only that it is set: nothing shows it again. The token's
role must be operator or admin.`,
		Example: `  postroom provider show
  postroom provider show --output json | jq -r .health.state
  postroom provider show --output json | jq '.settings | .limits.concurrency = 5' | postroom provider set -`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := n.connect()
			if err != nil {
				return err
			}
			p, err := client.Provider(c.Context())
			if err != nil {
				return err
			}
			if n.json {
				return printJSON(c.OutOrStdout(), p)
			}
			if err := showProvider(c.OutOrStdout(), p); err != nil {
				return err
			}
			if p.Settings == nil {
				fmt.Fprintln(c.ErrOrStderr(), "To set a provider: postroom provider set --help")
			}
			return nil
		},
	}
	n.register(c)
	return c
}

func showProvider(w io.Writer, p *admin.Provider) error {
	h := &p.Health
	t := newFacts(w)
	fmt.Fprintf(t, "%s\n\n", plain(h.Summary))
	t.line("kind", p.Kind)
	t.line("version", p.Version)
	t.line("set", originText(p))
	t.line("health", healthText(h))
	t.line("held", fmt.Sprintf("%s of %s", thousands(h.Held), counting(h.Mailboxes, "mailbox", "mailboxes")))
	t.line("paused", pausedText(h))
	t.line("open", counting(p.Open, "message has", "messages have")+" not ended")
	if err := t.Flush(); err != nil {
		return err
	}
	if h.Fault != nil {
		var b strings.Builder
		b.WriteString("\nThe last error")
		if h.Mailbox != "" {
			b.WriteString(", of " + plain(h.Mailbox))
		}
		b.WriteString(":\n")
		writeFault(&b, h.Fault, textWidth(w))
		if _, err := io.WriteString(w, b.String()); err != nil {
			return err
		}
	}
	if err := showWorkers(w, p); err != nil {
		return err
	}
	if p.Settings == nil {
		return nil
	}
	fmt.Fprintln(w)
	return table(w, []string{"SETTING", "VALUE"}, settingRows(reflect.ValueOf(p.Settings).Elem(), "", p.Secrets)...)
}

// originText says who set the provider and when; "" if nobody ever did.
func originText(p *admin.Provider) string {
	var text string
	switch {
	case p.Source == "":
		return ""
	case p.Source == "file":
		text = "by a configuration file"
	case p.By != "":
		text = "by " + p.By
	default:
		text = "by an administrator"
	}
	if since := instantText(p.Since); since != "" {
		text += ", " + since
	}
	if p.ReadOnly {
		text += "; read-only: change it in the configuration file"
	}
	return text
}

func healthText(h *admin.ProviderHealth) string {
	if since := instantText(h.Since); since != "" {
		return h.State + ", since " + since
	}
	return h.State
}

// pausedText says what is paused; "" if nothing is.
func pausedText(h *admin.ProviderHealth) string {
	switch {
	case h.Pause != nil:
		return silenceText(h.Pause)
	case h.Paused > 0:
		return counting(h.Paused, "mailbox", "mailboxes")
	}
	return ""
}

// counting gives a number with what it counts.
func counting(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return thousands(n) + " " + many
}

func showWorkers(w io.Writer, p *admin.Provider) error {
	workers := p.Health.Workers
	if len(workers) == 0 {
		_, err := fmt.Fprintln(w, "\nNo worker runs: nothing is sent.")
		return err
	}
	rows := make([][]string, len(workers))
	for i, one := range workers {
		state := "loaded"
		switch {
		case p.Settings == nil:
			state = "there are none"
		case one.Fault != "":
			state = "can't be loaded: " + oneLine(one.Fault)
		case !one.Ready:
			state = "not loaded yet"
		}
		rows[i] = []string{orDash(one.ID), one.Host, state}
	}
	fmt.Fprintln(w)
	return table(w, []string{"WORKER", "HOST", "SETTINGS"}, rows...)
}

// settingRows lists the settings below v, at a JSON pointer, that have a value, in the order of their documentation. Of a secret it
// says that it is set.
func settingRows(v reflect.Value, at string, secrets []string) [][]string {
	var rows [][]string
	for f, value := range v.Fields() {
		pointer := at + "/" + fieldName(f)
		key := strings.ReplaceAll(pointer[1:], "/", ".")
		_, secret := value.Interface().(provider.Secret)
		switch {
		case secret:
			if slices.Contains(secrets, pointer) {
				rows = append(rows, []string{key, "set"})
			}
		case value.Kind() == reflect.Struct:
			rows = append(rows, settingRows(value, pointer, secrets)...)
		case !value.IsZero():
			rows = append(rows, []string{key, settingText(value)})
		}
	}
	return rows
}

// settingText gives a value on one line.
func settingText(v reflect.Value) string {
	switch {
	case v.Kind() == reflect.Slice:
		list, _ := v.Interface().([]string)
		return strings.Join(list, ", ")
	case v.CanInt() && v.Int() == provider.NoLimit:
		return "no limit"
	case v.CanInt():
		return strconv.FormatInt(v.Int(), 10)
	case v.Kind() == reflect.Bool:
		return strconv.FormatBool(v.Bool())
	}
	text := strings.TrimSpace(v.String())
	if lines := strings.Count(text, "\n"); lines > 0 { // a certificate
		return fmt.Sprintf("%s … (%d lines)", strings.TrimSpace(text[:strings.Index(text, "\n")]), lines+1)
	}
	return text
}
