package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
)

// storedFrom is the size beyond which a file is stored by itself and referred to, and not sent in the message's JSON.
const storedFrom = 256 << 10

// storing hands files in before the mail that refers to them. A nil client stores nothing, as in a dry run.
type storing struct {
	client *admin.Client
	folder string                     // what the paths of a list are relative to
	paths  map[string]mail.Attachment // files that were stored, by path
}

// message stores what is large of a message, and refers to it.
func (s *storing) message(ctx context.Context, m *mail.Message) error {
	if s.client == nil {
		return nil
	}
	m.Attachments = slices.Clone(m.Attachments)
	for i := range m.Attachments {
		a := &m.Attachments[i]
		if len(a.Content) <= storedFrom {
			continue
		}
		c, err := s.client.StoreContent(ctx, a.Name, a.ContentType, bytes.NewReader(a.Content))
		if err != nil {
			return fmt.Errorf("store a file: %w", err)
		}
		a.Ref, a.Content = c.ID, nil
	}
	return nil
}

// path is where a file of the list is.
func (s *storing) path(of string) string {
	if filepath.IsAbs(of) {
		return of
	}
	return filepath.Join(s.folder, of)
}

// check looks whether a row's file is there, before anything is sent. Its errors do not repeat the path: see recipientList.
func (s *storing) check(row *recipientRow) error {
	if row.attach == "" {
		return nil
	}
	info, err := os.Stat(s.path(row.attach))
	var at *fs.PathError
	switch {
	case errors.As(err, &at):
		return fmt.Errorf("line %d: its file (column attach): %w", row.line, at.Err)
	case err != nil:
		return fmt.Errorf("line %d: its file (column attach): %w", row.line, err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("line %d: what column attach names is not a file", row.line)
	case info.Size() > maxInput:
		return fmt.Errorf("line %d: its file (column attach) is larger than %d MiB: too large for a mail", row.line, maxInput>>20)
	}
	return nil
}

// row gives a row's recipient, with the file stored that is the recipient's own. Each path is stored once.
func (s *storing) row(ctx context.Context, row *recipientRow) (mail.Recipient, error) {
	r := row.recipient
	if row.attach == "" {
		return r, nil
	}
	path := s.path(row.attach)
	a, known := s.paths[path]
	if !known {
		var err error
		if a, err = s.file(ctx, path); err != nil {
			return r, fmt.Errorf("line %d: store its file: %w", row.line, err)
		}
		if s.paths == nil {
			s.paths = make(map[string]mail.Attachment)
		}
		s.paths[path] = a
	}
	r.Attachments = []mail.Attachment{a}
	return r, nil
}

// file stores a file, as it is read.
func (s *storing) file(ctx context.Context, path string) (mail.Attachment, error) {
	a := mail.Attachment{Name: filepath.Base(path)}
	if s.client == nil {
		info, err := os.Stat(path)
		if err != nil {
			return a, err
		}
		a.Ref, a.Size = "stored-when-sent", info.Size()
		return a, nil
	}
	err := withRetries(ctx, s.delays(), func() error {
		// Opened for each try: of one that failed, something may still be read.
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		c, err := s.client.StoreContent(ctx, a.Name, "", f)
		if err == nil {
			a.Ref = c.ID
		}
		return err
	})
	return a, err
}

// delays: nobody waits for a server that was never there.
func (s *storing) delays() []time.Duration {
	if len(s.paths) == 0 {
		return nil
	}
	return patience()
}
