package provider

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// fingerprintRounds makes guessing a password from a fingerprint as dear as from a password file (OWASP's figure for
// PBKDF2 with SHA-256). It costs a start a fraction of a second.
const fingerprintRounds = 600_000

// Fingerprint tells settings apart, secrets included, without giving the secrets away: it may be kept beside the salt where
// others can read it. Limits and allowed senders are no part of it: they can change without anything else.
func (s *Settings) Fingerprint(salt string) (string, error) {
	told, err := s.distinct()
	if err != nil {
		return "", fmt.Errorf("provider: fingerprint: %w", err)
	}
	sum, err := pbkdf2.Key(sha256.New, told, []byte(salt), fingerprintRounds, 16)
	if err != nil {
		return "", fmt.Errorf("provider: fingerprint: %w", err)
	}
	return hex.EncodeToString(sum), nil
}

// distinct gives a text, secrets included, that is another for all settings but those that Fingerprint takes for the same.
func (s *Settings) distinct() (string, error) {
	told := *s
	told.withoutBounds()
	shown, err := json.Marshal(told)
	if err != nil {
		return "", err
	}
	all := []string{string(shown)}
	for _, secret := range secrets(&told) {
		all = append(all, secret.Reveal())
	}
	return strings.Join(all, "\x00"), nil
}

// Place names where the provider counts what an account or a mailbox does: the server, or the tenant.
func (s *Settings) Place() string {
	if s.Kind == KindMicrosoft365 {
		return strings.ToLower(string(s.Kind) + " " + s.Microsoft365.Graph() + " " + s.Microsoft365.TenantID)
	}
	return strings.ToLower(string(s.Kind) + " " + net.JoinHostPort(s.SMTP.Host, strconv.Itoa(s.SMTP.Port)))
}

// Account names what the limits of an SMTP provider bind: the account, or the server if there is none.
func (s *Settings) Account() string {
	if s.SMTP.Auth.Method == AuthNone {
		return net.JoinHostPort(s.SMTP.Host, strconv.Itoa(s.SMTP.Port))
	}
	if s.SMTP.Auth.Username != "" {
		return strings.ToLower(s.SMTP.Auth.Username)
	}
	return strings.ToLower(s.Sender.Address)
}
