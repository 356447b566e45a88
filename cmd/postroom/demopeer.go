package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"html"
	"net/http"
	"strings"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/graph/graphtest"
	"github.com/postroom/postroom/provider/smtp/smtptest"
)

var demoSender = mail.Address{Address: "reports@postroom.example", Name: "Postroom Demo"}

// demoPeer is what the demo delivers to, on this machine.
type demoPeer struct {
	what     string // for people
	settings provider.Settings
	page     http.Handler
	check    func(*sample) error // whether everything arrived intact
	close    func() error
}

// newDemoPeer starts what simulates a provider of a kind.
func newDemoPeer(kind provider.Kind, messages int) (*demoPeer, error) {
	switch kind {
	case provider.KindSMTP:
		inbox, err := smtptest.NewInbox(smtptest.InboxOptions{Security: provider.SecurityStartTLS, Username: "demo", Password: rand.Text(),
			MaxMessages: messages + 1000})
		if err != nil {
			return nil, fmt.Errorf("demo: mail server: %w", err)
		}
		return &demoPeer{what: "a mail server", settings: inbox.Settings(demoSender), page: inbox.Handler(), close: inbox.Close,
			check: func(s *sample) error { return s.check(inbox.Messages()) }}, nil
	case provider.KindMicrosoft365:
		tenant, err := graphtest.Start(graphtest.Options{Mailboxes: []graphtest.Mailbox{{Address: demoSender.Address}}, MaxMessages: messages + 1000})
		if err != nil {
			return nil, fmt.Errorf("demo: simulated Microsoft 365: %w", err)
		}
		return &demoPeer{what: "a simulated Microsoft 365 with Microsoft's limits", settings: tenant.Settings(demoSender), page: tenant.Handler(),
			close: tenant.Close, check: func(s *sample) error { return errors.Join(s.checkGraph(tenant.Messages()), tenant.Obeyed()) }}, nil
	}
	return nil, usage("--provider: %q is neither smtp nor microsoft365", kind)
}

// checkGraph reads what Microsoft Graph was given.
func (s *sample) checkGraph(received []*graphtest.Message) error {
	seen := make(map[string]int)
	for _, m := range received {
		if len(m.To) != 1 {
			return fmt.Errorf("message %d has %d recipients", m.ID, len(m.To))
		}
		to := m.To[0].Address
		seen[to]++
		name, isReport := s.names[to]
		if !isReport {
			if to == "reader@example.net" && m.Header("String 0x1045") == "" {
				return fmt.Errorf("message %d can't be unsubscribed from", m.ID)
			}
			continue
		}
		hashes := make(map[string]bool)
		for _, f := range m.Files {
			hashes[f.SHA256] = true
		}
		switch {
		case m.Subject != "Sales by region, for "+name:
			return fmt.Errorf("message %d: the name is not in the subject", m.ID)
		case !strings.Contains(html.UnescapeString(m.HTML), name):
			return fmt.Errorf("message %d: the name is not in the text", m.ID)
		case !hashes[hexDigest(salesPDF)] || !hashes[hexDigest(salesXLSX)]:
			return fmt.Errorf("message %d: an attachment is not what was sent", m.ID)
		}
	}
	return s.once(seen)
}
