package main

import (
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postroom/postroom/admin"
)

const (
	defaultURL = "http://127.0.0.1:8080"
	// requestTimeout bounds one request: long enough for the largest body on a slow line.
	requestTimeout = 5 * time.Minute
)

// connection holds the flags of every command that speaks to the server.
type connection struct {
	url       string
	tokenFile string
	output    string
	json      bool // what output says, after check
}

func (n *connection) register(c *cobra.Command) {
	c.Flags().StringVar(&n.url, "url", "", "where the server is; default: POSTROOM_URL, then "+defaultURL)
	c.Flags().StringVar(&n.tokenFile, "token-file", "", "file that holds the token; default: POSTROOM_TOKEN, or the file in POSTROOM_TOKEN_FILE")
	n.registerOutput(c)
}

// registerOutput is for commands that speak to no server.
func (n *connection) registerOutput(c *cobra.Command) {
	c.Flags().StringVar(&n.output, "output", "table", "table for people, json for programs")
	completeWith(c, "output", "table", "json")
}

func (n *connection) check() error {
	switch n.output {
	case "table":
	case "json":
		n.json = true
	default:
		return usage("--output: %q is neither table nor json", n.output)
	}
	return nil
}

// connect gives a client of the server; it does not speak to it yet.
func (n *connection) connect() (*admin.Client, error) {
	if err := n.check(); err != nil {
		return nil, err
	}
	base, err := n.server()
	if err != nil {
		return nil, err
	}
	token, err := n.token()
	if err != nil {
		return nil, err
	}
	hc := &http.Client{
		Timeout: requestTimeout,
		// A redirect is told, not followed: what is posted would arrive as a GET, or the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if n.json {
		hc.Transport = listing{http.DefaultTransport}
	}
	return admin.NewClient(base, token, hc)
}

// server gives the URL of the server.
func (n *connection) server() (string, error) {
	base, from := n.url, "--url"
	if base == "" {
		base, from = os.Getenv("POSTROOM_URL"), "POSTROOM_URL"
	}
	if base == "" {
		base = defaultURL
	}
	if u, err := url.Parse(base); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", usage("%s: it is not a URL such as http://127.0.0.1:8080 or https://postroom.example.com", from) // err would repeat a password
	}
	return base, nil
}

// listing asks for the id of every message of a batch, which the client by itself does not.
type listing struct{ next http.RoundTripper }

func (l listing) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/v1/batches") {
		r = r.Clone(r.Context())
		r.URL.RawQuery = "list=true"
	}
	return l.next.RoundTrip(r)
}

// token finds the token. No error repeats it.
func (n *connection) token() (string, error) {
	token, file := os.Getenv("POSTROOM_TOKEN"), os.Getenv("POSTROOM_TOKEN_FILE")
	from := "POSTROOM_TOKEN"
	switch {
	case n.tokenFile != "":
		file, from = n.tokenFile, "--token-file"
	case token != "" && file != "":
		return "", usage("POSTROOM_TOKEN and POSTROOM_TOKEN_FILE are both set: unset one of them")
	case token == "" && file == "":
		return "", usage(`there is no token: set POSTROOM_TOKEN or POSTROOM_TOKEN_FILE, or use --token-file ("postroom token new" makes one)`)
	case file != "":
		from = "POSTROOM_TOKEN_FILE"
	}
	if file != "" {
		raw, err := os.ReadFile(file)
		if err != nil {
			return "", usage("%s: %w", from, err)
		}
		token = string(raw)
	}
	token = strings.TrimSpace(token)
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", usage("%s: it does not hold one token and nothing else", from)
	}
	return token, nil
}
