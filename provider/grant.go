package provider

import (
	"context"
	"time"
)

// Granted is an access token that was asked for just now.
type Granted struct {
	Token Secret
	// From is the host that gave it; empty if that is not known.
	From string
	// Expires is when it ends; zero if nobody said.
	Expires time.Time
}

// Granter are Tokens that can ask for a token whatever they have in hand: a check wants to know whether one is granted now.
type Granter interface {
	// Grant makes a request with ctx, so that a trace in it sees the request, and keeps nothing of the answer. The error is as that
	// of Tokens.Token.
	Grant(ctx context.Context) (Granted, error)
}

// Grant asks for a token: for a new one, if tokens can.
func Grant(ctx context.Context, tokens Tokens) (Granted, error) {
	if g, ok := tokens.(Granter); ok {
		return g.Grant(ctx)
	}
	token, err := tokens.Token(ctx)
	return Granted{Token: Secret(token)}, err
}

// String says where the token is from and how long it is good, and never shows it.
func (g Granted) String() string {
	words := "a token"
	if g.From != "" {
		words += " from " + g.From
	}
	if g.Expires.IsZero() {
		return words + ", of which nobody said how long it is good"
	}
	return words + ", good until " + g.Expires.UTC().Format("2006-01-02 15:04:05 UTC")
}
