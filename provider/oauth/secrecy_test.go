package oauth

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A server may repeat what it was sent.
func TestNoSecretIsRepeated(t *testing.T) {
	assertion := "eyJhbGciOiJSUzI1NiJ9.eyJhIjoxfQ.c2ln"
	file := filepath.Join(t.TempDir(), "token")
	write(t, file, assertion)
	basic := base64.StdEncoding.EncodeToString([]byte("post+room:" + url.QueryEscape(secret)))
	shown := []string{secret, url.QueryEscape(secret), secret[:8], assertion, assertion[:12], basic, basic[:12], "Basic p"}

	repeat := func(format string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			words := r.PostForm.Get("client_secret") + r.PostForm.Get("client_assertion")
			if h := r.Header.Get("Authorization"); h != "" {
				words = strings.TrimPrefix(h, "Basic ")
				if strings.Contains(format, "decoded") {
					_, words, _ = r.BasicAuth()
				}
			}
			quoted, _ := json.Marshal("your proof: " + words + " and " + r.PostForm.Encode())
			fmt.Fprintf(w, format, quoted)
		}
	}
	for name, format := range map[string]string{
		"in the description": `{"error":"invalid_client","error_description":%s}`,
		"decoded":            `{"error":"invalid_client","error_description":%s,"x":"decoded"}`,
		"in the error":       `{"error":%s}`,
		"in a page":          "<html>%s",
		"as a life":          `{"access_token":"t","expires_in":%s}`,
		"as a type":          `{"access_token":"t","token_type":%s}`,
	} {
		for _, status := range []int{200, 400, 500} {
			l := newLogin(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(status)
				repeat(format)(w, r)
			})
			var log bytes.Buffer
			opts := Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
			for kind, s := range map[string]*Source{
				"secret":    microsoft365(t, app(l.URL), opts),
				"header":    smtp(t, anyServer(l.URL), opts),
				"federated": microsoft365(t, federated(l.URL, file), opts),
			} {
				_, err := s.Token(t.Context())
				if err == nil {
					t.Fatalf("%s, %d, %s: no error", name, status, kind)
				}
				told := fmt.Sprintf("%v %+v %#v %s", err, err, wantFault(t, s), &log)
				for _, part := range shown {
					if strings.Contains(told, part) {
						t.Errorf("%s, %d, %s: %q in %s", name, status, kind, part, told)
					}
				}
			}
		}
	}
}

// What a server says is kept up to where it would show something.
func TestWordsBeforeASecretAreKept(t *testing.T) {
	e := &endpoint{clientID: clientID}
	for text, want := range map[string]string{
		"":                             "",
		"no such secret":               "no such secret",
		"wrong: " + secret + ", sorry": "wrong: [redacted]",
		"wrong: " + secret[:6]:         "wrong: [redacted]",
		"wrong: " + secret[:3] + "***": "wrong: " + secret[:3] + "***",
		"header.claims.":               "[redacted]",
	} {
		if got := e.scrub(text, proof{secret: secret, assertion: "header.claims.signature"}); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestASecretThatIsTheErrorIsNotShown(t *testing.T) {
	l := newLogin(t, func(w http.ResponseWriter, r *http.Request) {
		say(400, fmt.Sprintf(`{"error":%q}`, r.PostForm.Get("client_secret")))(w, r)
	})
	s := app(l.URL)
	s.ClientSecret = "plainletters"
	if o := wantFault(t, microsoft365(t, s, Options{})); strings.Contains(fmt.Sprint(o), "plain") {
		t.Errorf("%+v", o)
	}
}

func TestNothingSecretIsPrinted(t *testing.T) {
	l := newLogin(t, func(w http.ResponseWriter, _ *http.Request) { grantToken(w, "very-secret-token") })
	certified := withCertificate(t, l.URL, time.Now().AddDate(0, 0, 1))
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	for name, s := range map[string]*Source{
		"secret": microsoft365(t, app(l.URL), Options{}), "header": smtp(t, anyServer(l.URL), Options{}), "certificate": microsoft365(t, certified, Options{}),
	} {
		wantToken(t, s, "very-secret-token")
		s.Reject("very-secret-token")
		wantToken(t, s, "very-secret-token")
		holder := struct{ tokens *Source }{s}
		var all strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&all, verb+verb+verb, s, holder, &holder)
		}
		logger.Info(name, "source", s, "holder", holder)
		told := all.String() + log.String()
		d := testKey().D.String()
		for _, part := range []string{"very-secret", secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%x", "very-secret"), d, "PRIVATE"} {
			if strings.Contains(told, part) {
				t.Errorf("%s: %q in %s", name, part, told)
			}
		}
	}
}
