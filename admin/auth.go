package admin

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// Role says what a token may do. Each role may do what those below it may; the zero value may do nothing.
type Role uint8

// The roles, in order.
const (
	// Producer hands mail in and asks what became of it, by the ids it was given.
	Producer Role = iota + 1
	// Operator reads everything, cancels, pauses and requeues.
	Operator
	// Admin may do everything.
	Admin
)

var roleNames = [...]string{"none", "producer", "operator", "admin"}

// String gives the role's name as it stands in the configuration.
func (r Role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r]
	}
	return roleNames[0]
}

// ParseRole is the inverse of Role.String; what is not a role is an error, and may do nothing.
func ParseRole(name string) (Role, error) {
	for r := Producer; r <= Admin; r++ {
		if r.String() == name {
			return r, nil
		}
	}
	return 0, fmt.Errorf("admin: role %q: use producer, operator or admin", name)
}

// Token lets in whoever presents the string that SHA256 is the hash of.
type Token struct {
	// Name tells tokens apart in logs. Idempotency keys of different names are different keys.
	Name string
	// Role is "producer", "operator" or "admin".
	Role string
	// SHA256 is 64 hexadecimal digits.
	SHA256 string
	// Senders and Kinds bind a producer: mail that it hands in has one of these senders (addresses, or @ and a domain) and kinds;
	// none: any.
	Senders mail.Senders
	Kinds   []mail.Kind
	// RequestsPerMinute is how many requests it may make in any minute, at all processes together; 0: no limit.
	RequestsPerMinute int
}

// caller is who presented a token, and from where.
type caller struct {
	name string
	role Role
	hash []byte
	from string
	// What Token says of them.
	senders  mail.Senders
	kinds    []mail.Kind
	requests int
}

// authorOf gives who a request came from, for the audit.
func authorOf(ctx context.Context) queue.Author {
	who, _ := ctx.Value(callerKey{}).(caller)
	return queue.Author{Name: who.name, From: who.from}
}

type keyring []caller

// newKeyring leaves out a token that has faults: it opens nothing, rather than too much.
func newKeyring(tokens []Token, log *slog.Logger) keyring {
	var keys keyring
	empty := sha256.Sum256(nil)
	for _, t := range tokens {
		role, err := ParseRole(t.Role)
		hash, malformed := hex.DecodeString(t.SHA256)
		if malformed != nil || len(hash) != sha256.Size || string(hash) == string(empty[:]) {
			err = cmp.Or(err, errors.New("admin: sha256 is not the SHA-256 of a token in 64 hexadecimal digits"))
		}
		if err != nil {
			log.Error("token ignored", "token", t.Name, "error", err)
			continue
		}
		keys = append(keys, caller{name: t.Name, role: role, hash: hash, senders: t.Senders, kinds: t.Kinds, requests: t.RequestsPerMinute})
	}
	return keys
}

// identify finds who sent the header field Authorization (RFC 6750, section 2.1). How long it takes tells nothing about
// the tokens.
func (k keyring) identify(authorization string) (caller, *Problem) {
	if len(k) == 0 {
		return caller{}, noTokens.problem("No token is configured, and without one the API is closed. " +
			"Make one with \"postroom token new\", add its hash to auth.tokens in postroom.yaml, and start again.")
	}
	scheme, secret, _ := strings.Cut(authorization, " ")
	sum := sha256.Sum256([]byte(strings.TrimSpace(secret)))
	var found caller
	for _, c := range k {
		if subtle.ConstantTimeCompare(c.hash, sum[:]) == 1 {
			found = c
		}
	}
	bearer := strings.EqualFold(scheme, "Bearer")
	if bearer && found.role == 0 && strings.TrimSpace(secret) != "" {
		return caller{}, unauthorized.problem("The token that was sent is not one of this server's: auth.tokens of its postroom.yaml has no such hash, or had none when it was started.")
	}
	if !bearer || found.role == 0 {
		return caller{}, unauthorized.problem("Send the header Authorization: Bearer TOKEN, with a token whose hash is in auth.tokens of postroom.yaml.")
	}
	return found, nil
}

// need refuses a caller of a lower role.
func (c caller) need(role Role) *Problem {
	if c.role >= role {
		return nil
	}
	return forbidden.problem(fmt.Sprintf("This needs the role %s, and the token has %s: use another token.", role, c.role))
}

// slow refuses a caller who has made as many requests as the token may.
func (h *handler) slow(ctx context.Context, c caller) *Problem {
	if c.requests <= 0 {
		return nil
	}
	wait, err := h.queue.Take(ctx, queue.Ration{Name: "requests", Window: time.Minute, Each: c.requests}, c.name)
	var p *Problem
	switch {
	case err != nil && errors.As(h.refused(ctx, err), &p):
		return p
	case wait > 0:
		return tooManyRequests.after(wait.Truncate(time.Second)+time.Second, fmt.Sprintf("This token may make %d a minute (requests_per_minute).", c.requests))
	}
	return nil
}

// may refuses mail that the caller's token is not for. at is where the message stands in the body.
func (h *handler) may(ctx context.Context, m *mail.Message, at string) error {
	c, _ := ctx.Value(callerKey{}).(caller)
	p := notForToken.problem("Nothing was accepted. Use another token, or have auth.tokens changed.")
	if len(c.kinds) > 0 && !slices.Contains(c.kinds, m.Kind) {
		p.Errors = append(p.Errors, Fault{at + "/kind", "is not among the kinds that this token is for"})
	}
	if len(c.senders) > 0 {
		sender := m.From.Address
		if parsed, err := mail.ParseAddress(sender); err == nil {
			sender = parsed.Address
		} else if sender == "" {
			active, err := h.queue.Provider(ctx)
			if err != nil {
				return h.refused(ctx, err)
			}
			sender = active.Sender
		}
		if !c.senders.Allow(sender) {
			p.Errors = append(p.Errors, Fault{at + "/from/address", "is not among the senders that this token is for (left out, it is the provider's own)"})
		}
	}
	if p.Errors == nil {
		return nil
	}
	return p
}
