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
// others can read it. Limits are no part of it: they can change without anything else.
func (s *Settings) Fingerprint(salt string) (string, error) {
	told := *s
	told.Limits, told.TenantLimits = Limits{}, TenantLimits{}
	shown, err := json.Marshal(told)
	if err != nil {
		return "", fmt.Errorf("provider: fingerprint: %w", err)
	}
	all := []string{string(shown)}
	for _, secret := range []Secret{s.SMTP.Auth.Password, s.SMTP.Auth.OAuth2.ClientSecret, s.Microsoft365.ClientSecret, s.Microsoft365.PrivateKeyPEM} {
		all = append(all, secret.Reveal())
	}
	sum, err := pbkdf2.Key(sha256.New, strings.Join(all, "\x00"), []byte(salt), fingerprintRounds, 16)
	if err != nil {
		return "", fmt.Errorf("provider: fingerprint: %w", err)
	}
	return hex.EncodeToString(sum), nil
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
