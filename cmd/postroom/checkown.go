package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/postroom/postroom/config"
	"github.com/postroom/postroom/queue"
)

// Names of the checks of a configuration by itself. What keeps postroom from reading it, such as one token with two roles, is no
// finding.
const (
	checkTokens = "tokens"
	checkListen = "listen"
)

// What postroom.example.yaml shows, and everybody knows.
const (
	exampleTokenHash = "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"
	exampleKey       = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
)

// ownFindings judge a configuration by itself.
func ownFindings(cfg *config.Config) []queue.Finding {
	return []queue.Finding{tokensFinding(cfg), listenFinding(cfg)}
}

// guessed are tokens that somebody would try.
var guessed = []string{"token", "secret", "password", "passwort", "test", "tests", "demo", "example", "admin", "administrator", "operator",
	"producer", "root", "app", "ops", "postroom", "changeme", "change-me", "default", "letmein", "123456", "12345678", "0123456789", "pr_",
	"<the token from step 1>", "pr_test", "pr_example"}

// tokensFinding judges who may use the API.
func tokensFinding(cfg *config.Config) queue.Finding {
	f := queue.Finding{Check: checkTokens, Level: queue.LevelOK}
	tokens := cfg.Auth.Tokens
	var weak []string
	roles := make(map[string]int)
	for _, t := range tokens {
		roles[t.Role]++
		if hash := strings.ToLower(t.SHA256); hash == exampleTokenHash || slices.ContainsFunc(append(guessed, t.Name, t.Role), func(guess string) bool {
			sum := sha256.Sum256([]byte(guess))
			return hex.EncodeToString(sum[:]) == hash
		}) {
			weak = append(weak, t.Name)
		}
	}
	f.Found = fmt.Sprintf("tokens: %d producer, %d operator, %d admin", roles["producer"], roles["operator"], roles["admin"])
	const another = "make one with postroom token new"
	switch {
	case len(tokens) == 0:
		f.Level, f.Found = queue.LevelWarning, "auth.tokens is empty: the API refuses everybody"
		f.Remedy = another
	case len(weak) > 0:
		f.Level, f.Found = queue.LevelFault, "anybody can guess the token of "+strings.Join(weak, ", ")+", or has read it in an example"
		f.Remedy = another + ", and put its hash in the place of the old one"
	case roles["admin"] == 0 && cfg.Provider == nil:
		f.Level, f.Found = queue.LevelWarning, f.Found+": nobody may set the provider, and the file has none"
		f.Remedy = another + " --role admin"
	case roles["admin"]+roles["operator"] == 0:
		f.Found += ": nobody may pause, requeue or look at failed mail (postroom token new --role operator)"
	}
	return f
}

// listenFinding notes that tokens and mail go in the clear.
func listenFinding(cfg *config.Config) queue.Finding {
	f := queue.Finding{Check: checkListen, Level: queue.LevelOK, Found: "http.listen " + cfg.HTTP.Listen + ", for this machine alone"}
	host, _, _ := net.SplitHostPort(cfg.HTTP.Listen)
	if ip := net.ParseIP(host); host != "localhost" && !ip.IsLoopback() {
		f.Found = "http.listen " + cfg.HTTP.Listen + " can be reached from other machines, and has no TLS: tokens and mail are read on the way unless a proxy with TLS, or a closed network, is before it"
	}
	return f
}
