package provider

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"time"

	"github.com/postroom/postroom/mail"
)

// minKeyBits is the shortest RSA key that Microsoft Entra takes.
const minKeyBits = 2048

// ClientCertificate gives the certificate by which an app registration knows us, and its key, or else what is wrong with them.
// Of several certificates the first counts; those that issued it may follow. Whether its time has come or is over is left to
// Validate.
//
// Only RSA keys will do: Microsoft's "Certificate credentials" has PS256 and RS256, and what is signed with an elliptic curve is
// refused (AADSTS5002738).
func (s *Microsoft365Settings) ClientCertificate() (*x509.Certificate, *rsa.PrivateKey, []mail.Problem) {
	var f faults
	certificate := f.certificate("/microsoft365/certificate_pem", s.CertificatePEM)
	key := f.privateKey("/microsoft365/private_key_pem", s.PrivateKeyPEM)
	if len(f) == 0 && !key.PublicKey.Equal(certificate.PublicKey) {
		f.add("/microsoft365/private_key_pem", "is not the key of the certificate; give the one that it was made with")
	}
	if len(f) > 0 {
		return nil, nil, f
	}
	return certificate, key, nil
}

// certificate gives nil if there is none to be had, and then it says why.
func (f *faults) certificate(field, text string) *x509.Certificate {
	var first *x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		switch {
		case block == nil && first != nil && strings.TrimSpace(string(rest)) == "":
			if _, ok := first.PublicKey.(*rsa.PublicKey); !ok {
				f.add(field, "is for a key that is not RSA, and Microsoft Entra takes no other; have one made with an RSA key")
				return nil
			}
			return first
		case block != nil && strings.HasSuffix(block.Type, "PRIVATE KEY"):
			f.add(field, "holds a private key, and this field is shown; put the key into private_key_pem, and have another made if it was seen")
			return nil
		}
		var parsed *x509.Certificate
		var err error
		if block != nil {
			parsed, err = x509.ParseCertificate(block.Bytes)
		}
		if block == nil || block.Type != "CERTIFICATE" || err != nil {
			f.add(field, "must hold a certificate in PEM and nothing else (-----BEGIN CERTIFICATE-----)")
			return nil
		}
		if first == nil {
			first = parsed
		}
	}
}

// privateKey gives nil if there is none to be had, and then it says why. Certificates beside the key do not disturb.
func (f *faults) privateKey(field string, text Secret) *rsa.PrivateKey {
	if text == Redacted {
		f.add(field, "is not the key but its placeholder; give the key again")
		return nil
	}
	var block *pem.Block
	for rest := []byte(text.Reveal()); block == nil || !strings.HasSuffix(block.Type, "PRIVATE KEY"); {
		if block, rest = pem.Decode(rest); block == nil {
			f.add(field, "must hold a private key in PEM (-----BEGIN PRIVATE KEY-----)")
			return nil
		}
	}
	if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
		f.add(field, "is protected by a password; take that off (openssl pkey), as settings are sealed as a whole")
		return nil
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	if err != nil {
		f.add(field, "can't be read as a private key; give it in PEM as PKCS #8 or PKCS #1")
		return nil
	}
	own, ok := key.(*rsa.PrivateKey)
	switch {
	case !ok:
		f.add(field, "is not an RSA key, and Microsoft Entra takes no other; have a certificate made with an RSA key")
		return nil
	case own.N.BitLen() < minKeyBits:
		f.add(field, "is too short for Microsoft Entra; have a certificate made with a key of %d bits", minKeyBits)
		return nil
	}
	return own
}

// lifetime judges a certificate's time.
func (f *faults) lifetime(field string, c *x509.Certificate, now time.Time) {
	switch {
	case now.After(c.NotAfter):
		f.add(field, "has expired; have a new one made, and upload it to the app registration")
	case now.Before(c.NotBefore):
		f.add(field, "is not valid yet; give one that is, or see that this machine's clock is right")
	}
}
