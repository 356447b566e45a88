package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/config"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/smtp/smtptest"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/worker"
)

// A process whose file has other limits than the one that started last goes by those of the last, from its next attempt on.
func TestLimitsOfOneMessageBindEveryAttempt(t *testing.T) {
	inbox, err := smtptest.NewInbox(smtptest.InboxOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = inbox.Close() })
	former := inbox.Settings(mail.Address{Address: "reports@example.com"})
	former.Defaults()
	latter := former
	latter.Limits.RecipientsPerMessage, latter.Limits.MessageBytes = 2, 10_000
	cfg := config.Default()
	cfg.Provider = &former
	p, _ := onQueue(t, cfg)
	if err := p.declare(t.Context()); err != nil {
		t.Fatal(err)
	}
	m := mail.Message{Kind: mail.Report, Subject: "Figures", Text: "Here they are"}
	for _, name := range []string{"ada", "bob", "cy", "dee", "eve"} {
		m.To = append(m.To, mail.Address{Address: name + "@example.net"})
	}
	large := m
	large.Attachments = []mail.Attachment{{Name: "a.bin", Content: make([]byte, 9000)}}
	var ids []string
	for _, m := range []mail.Message{m, large} {
		r, err := p.queue.Enqueue(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, r.ID)
	}
	another := config.Default()
	another.Provider = &latter
	if err := withConfig(t, another, p.queue).declare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.queue.Enqueue(t.Context(), large); err == nil || !strings.Contains(err.Error(), "message_bytes") {
		t.Errorf("handed in again: %v", err)
	}

	w := worker.New(worker.Options{Load: p.load})
	c := p.queue.NewConsumer(queue.ConsumerOptions{Load: w.Load, Handle: w.HandleTurn, CheckInterval: 5 * time.Millisecond, Grace: 5 * time.Second})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	states := func() (all []*queue.MessageStatus) {
		for _, id := range ids {
			s, err := p.queue.Message(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, s)
		}
		return all
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); slices.ContainsFunc(states(), func(s *queue.MessageStatus) bool { return s.Finished.IsZero() }); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", states())
		}
	}
	all := states()
	if s := all[0]; s.State != queue.Delivered || s.Attempts != 1 {
		t.Errorf("%d attempts count: %+v", s.Attempts, s)
	}
	var to []int
	for _, m := range inbox.Messages() {
		to = append(to, len(m.To))
	}
	slices.Sort(to)
	if fmt.Sprint(to) != "[1 2 2]" {
		t.Errorf("recipients of each transaction: %v", to)
	}
	s := all[1]
	if s.State != queue.Failed || len(s.History) != 1 {
		t.Fatalf("%+v", s)
	}
	o := s.History[0].Outcomes[0]
	if o.Class != "permanent" || o.Scope != "message" || o.Cause != string(mail.LimitTooSmall) || o.Step != provider.StepLimit ||
		!strings.Contains(o.Reply, `"message_bytes" allows 10000`) || len(o.Recipients) != 0 && len(o.Recipients) != 5 {
		t.Errorf("%+v", o)
	}
}
