package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/config"
	"github.com/postroom/postroom/provider"
)

func newDemoCommand() *cobra.Command {
	var exit, verbose bool
	var subscribers int
	var kind string
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show Postroom at work, with nothing installed",
		Long: `Show Postroom at work, with nothing installed: an embedded Redis, a local mail server with an inbox to look at, the API and
a worker in this one process. A sample of all three kinds of mail goes through them.

With --provider microsoft365 the mail server is a simulated Microsoft 365, which keeps Microsoft's limits strictly: 30 messages a
minute. That takes minutes; "postroom mailbox explain" shows meanwhile what binds, and when it will be through.

No mail leaves this machine, and nothing is kept: the embedded Redis forgets everything when the demo ends.`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			level := slog.LevelWarn
			if verbose {
				level = slog.LevelDebug
			}
			d := &demo{out: cmd.OutOrStdout(), subscribers: subscribers, kind: provider.Kind(kind),
				log: slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))}
			return d.run(cmd.Context(), exit)
		},
	}
	c.Flags().BoolVar(&exit, "exit", false, "end after delivery, with status 0 only if everything arrived intact")
	c.Flags().BoolVar(&verbose, "verbose", false, "log every attempt")
	c.Flags().StringVar(&kind, "provider", "smtp", "what to deliver to: smtp or microsoft365, both simulated on this machine")
	completeWith(c, "provider", "smtp", "microsoft365")
	c.Flags().IntVar(&subscribers, "subscribers", 200, "subscribers of the sample report")
	return c
}

type demo struct {
	out         io.Writer
	log         *slog.Logger
	subscribers int
	kind        provider.Kind
}

// invite says how to try the commands, for a demo that waits for whoever looks at it.
func (d *demo) invite(api, token string) {
	self := invocation()
	d.say("  To try the commands in another terminal, in this folder:")
	d.say("    export POSTROOM_URL=%s POSTROOM_TOKEN=%s", api, token)
	d.say("    %s send --to you@example.com --kind alert --subject Hello --text 'It works.'", self)
	d.say("    %s provider show; %s provider verify", self, self)
	if d.kind == provider.KindMicrosoft365 {
		d.say("    %s mailbox explain %s", self, demoSender.Address)
	}
	d.say("")
}

func (d *demo) run(ctx context.Context, exit bool) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	store := miniredis.NewMiniRedis()
	if err := store.Start(); err != nil {
		return fmt.Errorf("demo: embedded Redis: %w", err)
	}
	defer store.Close()
	go keepTime(ctx, store)

	peer, err := newDemoPeer(d.kind, d.subscribers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, peer.close()) }()
	page, err := serveInbox(peer.page)
	if err != nil {
		return err
	}
	defer func() { _ = page.Close() }()

	token := rand.Text()
	sum := sha256.Sum256([]byte(token))
	cfg := config.Default()
	cfg.Secrets.Keys = []provider.Secret{provider.Secret(base64.StdEncoding.EncodeToString(random()))}
	cfg.Auth.Tokens = []config.Token{{Name: "demo", Role: "admin", SHA256: hex.EncodeToString(sum[:])}}
	cfg.HTTP.Listen = "127.0.0.1:0"
	client := redis.NewClient(&redis.Options{Addr: store.Addr(), PoolSize: connections(cfg)})
	defer func() { _ = client.Close() }()
	s, err := newServer(ctx, serverOptions{config: cfg, redis: client, log: d.log, api: true, worker: true, embedded: true})
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- s.run(ctx) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-served)
	}()

	api := "http://" + s.listener.Addr().String()
	d.say("Postroom's demo: an embedded Redis, %s, the API and a worker, in this one process.", peer.what)
	d.say("This Redis forgets everything when the demo ends, and no mail leaves this machine.")
	d.say("")
	d.say("  Inbox    http://%s/", page.Addr)
	d.say("  API      %s   (openapi.json, metrics, readyz)", api)
	d.say("")
	if !exit {
		d.invite(api, token)
	}
	producer, err := admin.NewClient(api, token, http.DefaultClient)
	if err != nil {
		return err
	}
	if chosen, err := producer.SetProvider(ctx, &peer.settings, true); err != nil {
		return fmt.Errorf("demo: %w", err)
	} else if chosen.Result != "saved" {
		return fmt.Errorf("demo: the provider: %s", chosen.Summary)
	}
	sent, err := d.sendSample(ctx, producer)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if err := d.watch(ctx, producer, sent, served); err != nil {
		return err
	}
	if err := peer.check(sent); err != nil {
		return fmt.Errorf("demo: not everything arrived intact: %w", err)
	}
	d.say("All %d messages arrived intact: every attachment equal by hash, every name in its place.", sent.total())
	if exit {
		return nil
	}
	d.say("Look at the inbox; Ctrl-C ends the demo.")
	select {
	case <-ctx.Done():
		return nil
	case err := <-served:
		served <- nil
		return err
	}
}

func (d *demo) say(format string, args ...any) { _, _ = fmt.Fprintf(d.out, format+"\n", args...) }

// watch shows progress until everything that was sent is delivered.
func (d *demo) watch(ctx context.Context, c *admin.Client, sent *sample, served chan error) error {
	live := terminal(d.out)
	begun := time.Now()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for shown := -1; ; {
		done, err := sent.delivered(ctx, c)
		if err != nil {
			return fmt.Errorf("demo: %w", err)
		}
		if live && done != shown {
			_, _ = fmt.Fprintf(d.out, "\r  delivered %d of %d%s", done, sent.total(), d.forecast(ctx, c))
			shown = done
		}
		if done == sent.total() {
			if live {
				_, _ = fmt.Fprintln(d.out)
			}
			d.say("Delivered %d messages in %s.", done, time.Since(begun).Round(10*time.Millisecond))
			return nil
		}
		if limit := d.patience(sent.total()); time.Since(begun) > limit {
			return fmt.Errorf("demo: not everything was delivered within %s; try --verbose", limit)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		case err := <-served:
			served <- nil
			return err
		}
	}
}

// patience is how long so many messages may take.
func (d *demo) patience(messages int) time.Duration {
	const spare = 5 * time.Minute
	if d.kind == provider.KindMicrosoft365 {
		return spare + time.Duration(messages)*2*time.Second // 30 a minute
	}
	return spare
}

// forecast says when a throttled mailbox will be through; "" if nothing throttles it.
func (d *demo) forecast(ctx context.Context, c *admin.Client) string {
	if d.kind != provider.KindMicrosoft365 {
		return ""
	}
	m, err := c.Mailbox(ctx, demoSender.Address)
	if err != nil || m.Through.IsZero() {
		return strings.Repeat(" ", 40)
	}
	return fmt.Sprintf("; the rest in %-25s", aboutText(time.Until(m.Through)))
}

// keepTime lets keys of the embedded Redis expire, which it does not do by itself.
func keepTime(ctx context.Context, store *miniredis.Miniredis) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			store.FastForward(time.Second)
		}
	}
}

// serveInbox shows the inbox on a free port of this machine.
func serveInbox(page http.Handler) (*http.Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("demo: inbox page: %w", err)
	}
	server := &http.Server{Addr: listener.Addr().String(), Handler: page, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }()
	return server, nil
}

// terminal reports whether progress can be drawn over.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isTerminal(f)
}
