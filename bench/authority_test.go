package bench

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// authority gives out access tokens for client credentials (RFC 6749, section 4.4), and tells a mail server whether one is good
// (RFC 7662).
type authority struct {
	*httptest.Server
	username string // whose mailbox the tokens are for
	clientID string
	scope    string
	life     time.Duration

	mu      sync.Mutex
	secret  string // what it wants
	refused int    // requests for a token
	tokens  []*accessToken
}

// accessToken is one that was given out.
type accessToken struct {
	text    string
	ends    time.Time
	revoked bool
	// accepted and refused are the logins by it.
	accepted, refused int
}

// startAuthority starts one that wants a secret.
func startAuthority(t *testing.T, secret string, life time.Duration) *authority {
	a := &authority{username: "reports@submission.example", clientID: "postroom app", scope: "smtp.send", life: life, secret: secret}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", a.grant)
	mux.HandleFunc("POST /introspect", a.introspect)
	a.Server = httptest.NewServer(mux)
	t.Cleanup(a.Close)
	return a
}

func (a *authority) grant(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.knows(r) {
		a.refused++
		answer(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client", "error_description": "The client is not known here."})
		return
	}
	if r.FormValue("grant_type") != "client_credentials" || r.FormValue("scope") != a.scope {
		answer(w, http.StatusBadRequest, map[string]any{"error": "invalid_scope"})
		return
	}
	// Those of Microsoft are about as long.
	text := "eyJ0eXAiOiJKV1Qi." + strings.Repeat(rand.Text(), 70)
	a.tokens = append(a.tokens, &accessToken{text: text, ends: time.Now().Add(a.life)})
	answer(w, http.StatusOK, map[string]any{"access_token": text, "token_type": "Bearer", "expires_in": int(a.life.Seconds())})
}

// knows reports whether a request has the secret, in the header alone: every server has to take it there (RFC 6749, section 2.3.1).
func (a *authority) knows(r *http.Request) bool {
	id, secret, _ := r.BasicAuth()
	id, err := url.QueryUnescape(id)
	secret, other := url.QueryUnescape(secret)
	return err == nil && other == nil && id == a.clientID && secret == a.secret
}

func (a *authority) introspect(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	shown := r.FormValue("token")
	i := slices.IndexFunc(a.tokens, func(k *accessToken) bool { return k.text == shown })
	switch {
	case i < 0:
		answer(w, http.StatusOK, map[string]any{"active": false})
	case a.tokens[i].revoked || time.Now().After(a.tokens[i].ends):
		a.tokens[i].refused++
		answer(w, http.StatusOK, map[string]any{"active": false})
	default:
		a.tokens[i].accepted++
		answer(w, http.StatusOK, map[string]any{"active": true, "username": a.username, "scope": a.scope})
	}
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// wants changes the secret.
func (a *authority) wants(secret string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.secret = secret
}

// revoke ends every token that was given out.
func (a *authority) revoke() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range a.tokens {
		k.revoked = true
	}
}

// books are what was given out, and the requests refused.
func (a *authority) books() (tokens []accessToken, refused int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range a.tokens {
		tokens = append(tokens, *k)
	}
	return tokens, a.refused
}
