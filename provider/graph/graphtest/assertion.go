package graphtest

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha1" // The header x5t is defined by it (RFC 7515, section 4.1.7).
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

// assertionType is the one value that client_assertion_type may have (RFC 7523, section 2.2).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// federatedAudience is what a federated credential's tokens are for, if nothing else is registered
// (https://learn.microsoft.com/entra/workload-id/workload-identity-federation-create-trust).
const federatedAudience = "api://AzureADTokenExchange"

// jwt is a signed token (RFC 7519) taken apart.
type jwt struct {
	header struct {
		Alg     string `json:"alg"`
		Typ     string `json:"typ"`
		X5t     string `json:"x5t"`
		X5tS256 string `json:"x5t#S256"`
	}
	claims struct {
		Aud audience `json:"aud"`
		Iss string   `json:"iss"`
		Sub string   `json:"sub"`
		Jti string   `json:"jti"`
		Exp *float64 `json:"exp"`
		Nbf *float64 `json:"nbf"`
	}
	signed    string
	signature []byte
}

// audience is a string or a list of strings (RFC 7519, section 4.1.3).
type audience []string

// UnmarshalJSON implements json.Unmarshaler.
func (a *audience) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

// parseJWT takes text apart, and gives nil if it is not a signed token.
func parseJWT(text string) *jwt {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return nil
	}
	t := &jwt{signed: parts[0] + "." + parts[1]}
	for i, into := range []any{&t.header, &t.claims} {
		b, err := base64.RawURLEncoding.Strict().DecodeString(parts[i])
		if err != nil || json.Unmarshal(b, into) != nil {
			return nil
		}
	}
	var err error
	if t.signature, err = base64.RawURLEncoding.Strict().DecodeString(parts[2]); err != nil {
		return nil
	}
	return t
}

// verify checks the signature. Entra takes RSA only; it recommends PS256 and still takes RS256.
func (t *jwt) verify(key *rsa.PublicKey) bool {
	sum := sha256.Sum256([]byte(t.signed))
	switch t.header.Alg {
	case "PS256":
		return rsa.VerifyPSS(key, crypto.SHA256, sum[:], t.signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	case "RS256":
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], t.signature) == nil
	}
	return false
}

// fresh reports whether the token is valid now, give or take the five minutes that clocks may differ by.
func (t *jwt) fresh(now time.Time) bool {
	const skew = 300
	at := float64(now.Unix())
	return t.claims.Exp != nil && at < *t.claims.Exp+skew && (t.claims.Nbf == nil || at >= *t.claims.Nbf-skew)
}

// checkAssertion checks what an app presents instead of a secret: a token that it signed with its certificate
// (https://learn.microsoft.com/entra/identity-platform/certificate-credentials), or one of another issuer that it trusts
// (https://learn.microsoft.com/entra/workload-id/workload-identity-federation). mu is held.
func (c *call) checkAssertion(app *App, text string) *fault {
	t := parseJWT(text)
	if t == nil {
		return invalidClient(50027, "JWT token is invalid or malformed.")
	}
	if !t.fresh(c.opts.Now()) {
		return invalidClient(700024, "Client assertion is not within its valid time range.")
	}
	if t.claims.Iss == t.claims.Sub && strings.EqualFold(t.claims.Iss, app.ClientID) {
		return c.checkCertificate(app, t)
	}
	for _, f := range app.Federations {
		if f.issuer != t.claims.Iss || f.subject != t.claims.Sub {
			continue
		}
		switch {
		case len(t.claims.Aud) != 1 || t.claims.Aud[0] != federatedAudience:
			return invalidClient(700212, "No matching federated identity record found for presented assertion audience.")
		case !t.verify(&f.key.PublicKey):
			return invalidClient(50013, "Assertion failed signature validation.")
		}
		return nil
	}
	if len(app.Federations) > 0 {
		return invalidClient(70021, "No matching federated identity record found for presented assertion issuer and subject.")
	}
	return invalidClient(50048, "Subject mismatches Issuer claim in the client assertion, or is not the application.")
}

// checkCertificate checks a token that the app made. mu is held.
func (c *call) checkCertificate(app *App, t *jwt) *fault {
	switch {
	case len(t.claims.Aud) != 1 || t.claims.Aud[0] != c.LoginURL()+"/"+c.opts.TenantID+"/oauth2/v2.0/token":
		return invalidClient(50027, "JWT token is invalid or malformed: unexpected audience.")
	case t.claims.Jti == "" || t.claims.Nbf == nil:
		return invalidClient(50027, "JWT token is invalid or malformed: a claim is missing.")
	case t.header.Typ != "JWT":
		return invalidClient(50027, "JWT token is invalid or malformed: typ is not JWT.")
	}
	for _, certificate := range app.Certificates {
		if !t.names(certificate) {
			continue
		}
		key, ok := certificate.PublicKey.(*rsa.PublicKey)
		now := c.opts.Now()
		switch {
		case now.Before(certificate.NotBefore) || now.After(certificate.NotAfter):
			return invalidClient(1000502, "The provided certificate is not within its specified validity window.")
		case !ok || !t.verify(key):
			return invalidClient(700027, "Client assertion contains an invalid signature.")
		}
		return nil
	}
	return invalidClient(700027, "The certificate with identifier used to sign the client assertion is not registered on application.")
}

// names reports whether the header names a certificate by one of its thumbprints.
func (t *jwt) names(certificate *x509.Certificate) bool {
	long, short := sha256.Sum256(certificate.Raw), sha1.Sum(certificate.Raw)
	is := func(thumbprint string, sum []byte) bool {
		return thumbprint == base64.RawURLEncoding.EncodeToString(sum)
	}
	return is(t.header.X5tS256, long[:]) || is(t.header.X5t, short[:])
}
