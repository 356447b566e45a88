package oauth

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/postroom/postroom/mail"
)

// assertionLife is how long an assertion can be used: Microsoft wants 5 to 10 minutes at most.
const assertionLife = 10 * time.Minute

// signer proves who we are by assertions that it signs with the key of a certificate. It writes what Microsoft's "Certificate
// credentials" has, and nothing else of JSON Web Tokens (RFC 7519): that is shorter than the use of a library for all of them.
type signer struct {
	key      *rsa.PrivateKey
	header   string // encoded
	clientID string
	audience string
}

func newSigner(certificate *x509.Certificate, key *rsa.PrivateKey, clientID, audience string) *signer {
	thumbprint := sha256.Sum256(certificate.Raw)
	return &signer{key: key, clientID: clientID, audience: audience, header: encode(map[string]string{
		"alg": "PS256", "typ": "JWT", "x5t#S256": base64.RawURLEncoding.EncodeToString(thumbprint[:]),
	})}
}

// prove makes an assertion.
func (s *signer) prove() (proof, *Fault) {
	now := time.Now()
	text := s.header + "." + encode(map[string]any{
		"aud": s.audience, "iss": s.clientID, "sub": s.clientID, "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(assertionLife).Unix(),
	})
	sum := sha256.Sum256([]byte(text))
	// RFC 7518, section 3.5: the salt is as long as the hash.
	signature, err := rsa.SignPSS(rand.Reader, s.key, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	if err != nil {
		return proof{}, ours(mail.AssertionRefused, "the private key can't sign")
	}
	return proof{assertion: text + "." + base64.RawURLEncoding.EncodeToString(signature)}, nil
}

// encode writes one part of an assertion.
func encode(v any) string {
	text, _ := json.Marshal(v) // strings and numbers
	return base64.RawURLEncoding.EncodeToString(text)
}

// maxFederated bounds a federated token; those of Kubernetes have some 1,500 bytes.
const maxFederated = 32 << 10

// compact is the form of a signed JSON Web Token (RFC 7515, section 7.1).
var compact = regexp.MustCompile(`^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)

// fromFile proves who we are by the federated token in a file, which is read anew each time: whoever writes it renews it within the
// hour. What does not look like such a token is not sent, as the file may be any file.
func fromFile(path string) func() (proof, *Fault) {
	return func() (proof, *Fault) {
		text, err := readToken(path)
		if err != nil {
			return proof{}, ours(mail.FederatedToken, "federated_token_file can't be read: "+err.Error())
		}
		if !compact.MatchString(text) {
			return proof{}, ours(mail.FederatedToken, "federated_token_file holds no token")
		}
		return proof{assertion: text}, nil
	}
}

var errNotRegular = errors.New("it is not a regular file")

// readToken does not wait for what a pipe may have to say.
func readToken(path string) (string, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = errNotRegular
	}
	var text []byte
	if err == nil {
		text, err = readUpTo(path, maxFederated)
	}
	var at *fs.PathError
	if errors.As(err, &at) {
		err = at.Err
	}
	return strings.TrimSpace(string(text)), err
}

func readUpTo(path string, most int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, most))
}
