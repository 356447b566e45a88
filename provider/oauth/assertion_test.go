package oauth

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// testKey is dear to make, and is only read.
var testKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// certified gives a certificate for key, in DER.
func certified(t *testing.T, key *rsa.PrivateKey, notAfter time.Time) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "postroom"}, NotBefore: notAfter.AddDate(-1, 0, 0), NotAfter: notAfter,
	}, &x509.Certificate{SerialNumber: big.NewInt(1)}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func inPEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// withCertificate is an app registration that logs in by a certificate.
func withCertificate(t *testing.T, url string, notAfter time.Time) *provider.Microsoft365Settings {
	t.Helper()
	s := app(url)
	s.ClientSecret = ""
	s.CertificatePEM = inPEM("CERTIFICATE", certified(t, testKey(), notAfter))
	s.PrivateKeyPEM = provider.Secret(inPEM("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(testKey())))
	return s
}

// decode reads one part of an assertion.
func decode(t *testing.T, part string) map[string]any {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAnAssertionIsWhatMicrosoftWantsAndSigned(t *testing.T) {
	l := newLogin(t, nil)
	// That its time is over is for the login service to say.
	settings := withCertificate(t, l.URL, time.Now().AddDate(0, 0, -1))
	s := microsoft365(t, settings, Options{})
	before := time.Now().Unix()
	wantToken(t, s, "token-1")
	form := l.last(t).form
	if form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" || form.Get("client_id") != clientID ||
		form.Has("client_secret") || form.Get("grant_type") != "client_credentials" {
		t.Errorf("%v", form)
	}
	parts := strings.Split(form.Get("client_assertion"), ".")
	if len(parts) != 3 {
		t.Fatal(form.Get("client_assertion"))
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPSS(&testKey().PublicKey, crypto.SHA256, sum[:], signature, &rsa.PSSOptions{SaltLength: sha256.Size}); err != nil {
		t.Error(err)
	}
	block, _ := pem.Decode([]byte(settings.CertificatePEM))
	thumbprint := sha256.Sum256(block.Bytes)
	header := decode(t, parts[0])
	if fmt.Sprint(header) != fmt.Sprint(map[string]any{"alg": "PS256", "typ": "JWT", "x5t#S256": base64.RawURLEncoding.EncodeToString(thumbprint[:])}) {
		t.Errorf("header %v", header)
	}
	claims := decode(t, parts[1])
	issued := int64(claims["iat"].(float64))
	jti := claims["jti"].(string)
	if issued < before || issued > time.Now().Unix() || claims["nbf"] != claims["iat"] || claims["exp"].(float64) != float64(issued+600) || len(jti) < 16 {
		t.Errorf("claims %v", claims)
	}
	for _, name := range []string{"iat", "nbf", "exp", "jti"} {
		delete(claims, name)
	}
	want := map[string]any{"aud": l.URL + "/" + tenant + "/oauth2/v2.0/token", "iss": clientID, "sub": clientID}
	if fmt.Sprint(claims) != fmt.Sprint(want) {
		t.Errorf("claims %v", claims)
	}

	s.Reject("token-1")
	wantToken(t, s, "token-2")
	again := strings.Split(l.last(t).form.Get("client_assertion"), ".")
	if decode(t, again[1])["jti"] == jti {
		t.Error("an assertion is used twice")
	}
}

func TestAnAssertionIsMadeWhenItIsNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner(&x509.Certificate{}, testKey(), clientID, "https://login.example")
		for range 2 {
			time.Sleep(time.Hour)
			p, _ := s.prove()
			if got := decode(t, strings.Split(p.assertion, ".")[1])["iat"].(float64); int64(got) != time.Now().Unix() {
				t.Errorf("issued at %v, and it is %v", got, time.Now().Unix())
			}
		}
	})
}

func TestAnAssertionThatIsRefusedIsNoWrongSecret(t *testing.T) {
	l := newLogin(t, say(401, `{"error":"invalid_client"}`))
	if o := wantFault(t, microsoft365(t, withCertificate(t, l.URL, time.Now().AddDate(0, 0, 1)), Options{})); o.Cause != mail.AssertionRefused {
		t.Errorf("%+v", o)
	}
}

// federated is an app registration that logs in by the token in a file.
func federated(url, file string) *provider.Microsoft365Settings {
	s := app(url)
	s.ClientSecret, s.FederatedTokenFile = "", file
	return s
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAFederatedTokenIsReadAnewEachTime(t *testing.T) {
	l := newLogin(t, nil)
	file := filepath.Join(t.TempDir(), "token")
	s := microsoft365(t, federated(l.URL, file), Options{})
	for i, text := range []string{"eyJhbGciOiJSUzI1NiJ9.eyJhIjoxfQ.c2ln\n", "eyJhbGciOiJSUzI1NiJ9.eyJhIjoyfQ.c2ln"} {
		write(t, file, text)
		token := fmt.Sprintf("token-%d", i+1)
		wantToken(t, s, token)
		form := l.last(t).form
		if form.Get("client_assertion") != strings.TrimSpace(text) || form.Has("client_secret") ||
			form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
			t.Errorf("%v", form)
		}
		s.Reject(token)
	}
}

func TestAFileThatHoldsNoTokenIsNotSent(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"empty": "", "a password": "root:x:0:0::/root:/bin/sh\n", "two lines": "a.b.c\nd.e.f", "two parts": "aaa.bbb", "four parts": "a.b.c.d",
		"a space": "a.b c.d", "too long": strings.Repeat("a", maxFederated) + ".b.c",
	} {
		write(t, filepath.Join(dir, name), text)
	}
	l := newLogin(t, nil)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := []string{filepath.Join(dir, "missing"), dir, os.DevNull}
	for _, e := range entries {
		files = append(files, filepath.Join(dir, e.Name()))
	}
	for _, file := range files {
		o := wantFault(t, microsoft365(t, federated(l.URL, file), Options{}))
		if o.Class != mail.Configuration || o.Cause != mail.FederatedToken || o.Scope != mail.ScopeProvider || o.Step != "token" || o.Code != 0 ||
			strings.Contains(o.Reply, "root") || strings.Contains(o.Reply, dir) {
			t.Errorf("%s: %+v", file, o)
		}
		if file == os.DevNull && !strings.Contains(o.Reply, "not a regular file") {
			t.Errorf("it was opened, and a pipe can keep whoever opens it waiting: %s", o.Reply)
		}
	}
	if l.count() != 0 {
		t.Error("it was sent")
	}
}
