package graphtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

// AppCertificate is a certificate for an app, with its key, as an administrator would make them.
type AppCertificate struct {
	// Certificate goes into App.Certificates.
	Certificate *x509.Certificate
	// CertificatePEM and KeyPEM (PKCS #8) go into the app's settings.
	CertificatePEM, KeyPEM string
}

// NewAppCertificate makes an RSA key and a certificate for it that signs itself, valid from yesterday until then.
func NewAppCertificate(until time.Time) (*AppCertificate, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("graphtest: key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "graphtest app"},
		NotBefore:    time.Now().AddDate(0, 0, -1),
		NotAfter:     until,
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("graphtest: certificate: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("graphtest: certificate: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("graphtest: key: %w", err)
	}
	return &AppCertificate{
		Certificate:    certificate,
		CertificatePEM: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		KeyPEM:         string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})),
	}, nil
}

// Federation is another issuer of tokens, such as a Kubernetes cluster, and the one subject of its that an app trusts.
type Federation struct {
	issuer, subject string
	key             *rsa.PrivateKey
}

// NewFederation makes an issuer with a key of its own.
func NewFederation(issuer, subject string) (*Federation, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("graphtest: key: %w", err)
	}
	return &Federation{issuer: issuer, subject: subject, key: key}, nil
}

// Token issues a token for the subject, as the file has it that a workload reads.
func (f *Federation) Token(expires time.Time) (string, error) {
	return signJWT(f.key, map[string]any{"alg": "RS256", "typ": "JWT"}, map[string]any{
		"iss": f.issuer, "sub": f.subject, "aud": []string{federatedAudience},
		"iat": time.Now().Unix(), "nbf": time.Now().Unix(), "exp": expires.Unix(),
	})
}

// signJWT makes a token with RS256.
func signJWT(key *rsa.PrivateKey, header, claims map[string]any) (string, error) {
	var text string
	for _, part := range []map[string]any{header, claims} {
		b, err := json.Marshal(part)
		if err != nil {
			return "", fmt.Errorf("graphtest: token: %w", err)
		}
		if text != "" {
			text += "."
		}
		text += base64.RawURLEncoding.EncodeToString(b)
	}
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		return "", fmt.Errorf("graphtest: token: %w", err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// hostCertificate makes a certificate for 127.0.0.1 and localhost, by a CA of its own, which is given as PEM.
func hostCertificate() (*tls.Config, string, error) {
	now := time.Now()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "graphtest CA"}, NotBefore: now.AddDate(0, 0, -1),
		NotAfter: now.AddDate(1, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "graphtest"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, "", fmt.Errorf("graphtest: key: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, "", fmt.Errorf("graphtest: key: %w", err)
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return nil, "", fmt.Errorf("graphtest: certificate: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return nil, "", fmt.Errorf("graphtest: certificate: %w", err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return config, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})), nil
}
