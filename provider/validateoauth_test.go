package provider

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
)

const aGUID = "aAaaaaaa-bbbb-cccc-dddd-012345678901"

// pair is a key and a certificate for it, in PEM.
type pair struct{ key, pkcs1, certificate string }

// The pairs are dear to make, and are only read. Certificates are valid in 2026.
var (
	rsaPair   = sync.OnceValue(func() pair { return newPair(newRSA(2048)) })
	otherPair = sync.OnceValue(func() pair { return newPair(newRSA(2048)) })
	shortPair = sync.OnceValue(func() pair { return newPair(newRSA(1024)) })
	ecPair    = sync.OnceValue(func() pair {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(err)
		return newPair(key, &key.PublicKey)
	})
)

func newRSA(bits int) (key, public any) {
	k, err := rsa.GenerateKey(rand.Reader, bits)
	must(err)
	return k, &k.PublicKey
}

func newPair(key, public any) pair {
	about := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: day(1), NotAfter: day(365)}
	certificate, err := x509.CreateCertificate(rand.Reader, about, about, public, key)
	must(err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	must(err)
	p := pair{certificate: inPEM("CERTIFICATE", certificate), key: inPEM("PRIVATE KEY", pkcs8)}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		p.pkcs1 = inPEM("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k))
	case *ecdsa.PrivateKey:
		der, err := x509.MarshalECPrivateKey(k)
		must(err)
		p.pkcs1 = inPEM("EC PRIVATE KEY", der)
	}
	return p
}

// day is the n-th of 2026.
func day(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }

func inPEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// fieldsOf gives the fields of problems after a prefix, and fails a test for what is not said well.
func fieldsOf(t *testing.T, prefix string, problems []mail.Problem) string {
	t.Helper()
	var fields []string
	for _, p := range problems {
		field, ok := strings.CutPrefix(p.Field, prefix)
		if !ok || p.Reason == "" || strings.ContainsAny(p.Reason, "\n%") || strings.HasSuffix(p.Reason, ".") {
			t.Errorf("%+v", p)
		}
		fields = append(fields, field)
	}
	return strings.Join(fields, " ")
}

func TestValidateMicrosoft365(t *testing.T) {
	certified := func(certificate, key string) func(*Microsoft365Settings) {
		return func(s *Microsoft365Settings) {
			s.ClientSecret, s.CertificatePEM, s.PrivateKeyPEM = "", certificate, Secret(key)
		}
	}
	file := func(path string) func(*Microsoft365Settings) {
		return func(s *Microsoft365Settings) { s.ClientSecret, s.FederatedTokenFile = "", path }
	}
	tenant := func(id string) func(*Microsoft365Settings) { return func(s *Microsoft365Settings) { s.TenantID = id } }
	login := func(url string) func(*Microsoft365Settings) {
		return func(s *Microsoft365Settings) { s.LoginURL = url }
	}
	key, other := rsaPair(), otherPair()
	for name, v := range map[string]struct {
		change func(*Microsoft365Settings)
		fields string
	}{
		"good":                      {func(*Microsoft365Settings) {}, ""},
		"a domain":                  {tenant("contoso.onmicrosoft.com"), ""},
		"a domain of its own":       {tenant("mail.xn--bcher-kva.example"), ""},
		"no tenant":                 {tenant(""), "tenant_id"},
		"common":                    {tenant("common"), "tenant_id"},
		"organizations":             {tenant("Organizations"), "tenant_id"},
		"consumers":                 {tenant("consumers"), "tenant_id"},
		"a name":                    {tenant("contoso"), "tenant_id"},
		"an address":                {tenant("10.0.0.1"), "tenant_id"},
		"a domain that is too long": {tenant(strings.Repeat("abcdefg.", 32) + "example"), "tenant_id"},
		"a path":                    {tenant("contoso.com/../x"), "tenant_id"},
		"a GUID and more":           {tenant(aGUID + "\n"), "tenant_id"},
		"a GUID in braces":          {tenant("{" + aGUID + "}"), "tenant_id"},
		"no app":                    {func(s *Microsoft365Settings) { s.ClientID = "" }, "client_id"},
		"an app's name":             {func(s *Microsoft365Settings) { s.ClientID = "postroom" }, "client_id"},

		"no credential":            {func(s *Microsoft365Settings) { s.ClientSecret = "" }, "client_secret"},
		"a placeholder":            {func(s *Microsoft365Settings) { s.ClientSecret = Redacted }, "client_secret"},
		"a secret with a new line": {func(s *Microsoft365Settings) { s.ClientSecret = "abc\n" }, "client_secret"},
		"a secret and a space":     {func(s *Microsoft365Settings) { s.ClientSecret = " abc" }, "client_secret"},
		"a secret of other signs":  {func(s *Microsoft365Settings) { s.ClientSecret = "geheimniß" }, "client_secret"},
		"two ways":                 {func(s *Microsoft365Settings) { s.FederatedTokenFile = "/run/token" }, "client_secret federated_token_file"},
		"all ways": {func(s *Microsoft365Settings) {
			s.FederatedTokenFile, s.CertificatePEM, s.PrivateKeyPEM = "/run/token", key.certificate, Secret(key.key)
		}, "client_secret certificate_pem federated_token_file"},

		"a certificate":                   {certified(key.certificate, key.key), ""},
		"PKCS #1":                         {certified(key.certificate, key.pkcs1), ""},
		"a chain":                         {certified(key.certificate+other.certificate, key.key), ""},
		"words before it":                 {certified("Bag Attributes\n"+key.certificate+"\n", "Bag Attributes\n"+key.key), ""},
		"both in the key's field":         {certified(key.certificate, key.certificate+key.key), ""},
		"no key":                          {certified(key.certificate, ""), "private_key_pem"},
		"no certificate":                  {certified("", key.key), "certificate_pem"},
		"no certificate, and no good key": {certified("", "x"), "certificate_pem private_key_pem"},
		"no good certificate, and no key": {certified("x", ""), "private_key_pem certificate_pem"},
		"neither is good":                 {certified("x", "y"), "certificate_pem private_key_pem"},
		"another's key":                   {certified(key.certificate, other.key), "private_key_pem"},
		"the chain the wrong way round":   {certified(other.certificate+key.certificate, key.key), "private_key_pem"},
		"a key in the certificate":        {certified(key.certificate+key.key, key.key), "certificate_pem"},
		"words after the certificate":     {certified(key.certificate+"x", key.key), "certificate_pem"},
		"half a certificate":              {certified(inPEM("CERTIFICATE", []byte{0x30, 1}), key.key), "certificate_pem"},
		"a request":                       {certified(inPEM("CERTIFICATE REQUEST", []byte{0x30, 1}), key.key), "certificate_pem"},
		"another label":                   {certified(strings.ReplaceAll(key.certificate, "CERTIFICATE", "X509 CRL"), key.key), "certificate_pem"},
		"half a key":                      {certified(key.certificate, inPEM("PRIVATE KEY", []byte{0x30, 1})), "private_key_pem"},
		"a key's placeholder":             {certified(key.certificate, Redacted), "private_key_pem"},
		"a key with a password":           {certified(key.certificate, inPEM("ENCRYPTED PRIVATE KEY", []byte{0x30, 1})), "private_key_pem"},
		"a key with an old password": {certified(key.certificate, strings.Replace(key.pkcs1, "-----\n", "-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n", 1)),
			"private_key_pem"},
		"an elliptic curve":           {certified(ecPair().certificate, ecPair().key), "certificate_pem private_key_pem"},
		"an elliptic curve, SEC 1":    {certified(key.certificate, ecPair().pkcs1), "private_key_pem"},
		"a short key":                 {certified(shortPair().certificate, shortPair().key), "private_key_pem"},
		"a file":                      {file("/var/run/secrets/azure/tokens/azure-identity-token"), ""},
		"a file from somewhere":       {file("token"), "federated_token_file"},
		"a file with a control":       {file("/run/a\x00b"), "federated_token_file"},
		"an unknown cloud":            {func(s *Microsoft365Settings) { s.Cloud = "germany" }, "cloud"},
		"a national cloud":            {func(s *Microsoft365Settings) { s.Cloud = "gcch" }, ""},
		"a login URL":                 {login("https://login.example:8443/"), ""},
		"on this machine":             {login("http://127.0.0.1:8080"), ""},
		"on this machine, by name":    {login("http://localhost:8080"), ""},
		"on this machine, IPv6":       {login("http://[::1]:8080"), ""},
		"in clear text":               {login("http://login.example"), "login_url"},
		"in clear text, nearly local": {login("http://127.0.0.1.example"), "login_url"},
		"another scheme":              {login("ftp://login.example"), "login_url"},
		"a host alone":                {login("login.example"), "login_url"},
		"a host and a port":           {login("login.example:443"), "login_url"},
		"no host":                     {login("https:///x"), "login_url"},
		"a port without a host":       {login("https://:443"), "login_url"},
		"a colon without a port":      {login("https://login.example:"), "login_url"},
		"spaces":                      {login("https://login example"), "login_url"},
		"a path in it":                {login("https://login.example/common"), "login_url"},
		"two slashes":                 {login("https://login.example//"), "login_url"},
		"a query":                     {login("https://login.example?x=y"), "login_url"},
		"an empty query":              {login("https://login.example?"), "login_url"},
		"a fragment":                  {login("https://login.example#x"), "login_url"},
		"a password in it":            {login("https://a:b@login.example"), "login_url"},
		"a graph URL with a version":  {func(s *Microsoft365Settings) { s.GraphURL = "https://graph.example/v1.0" }, "graph_url"},
		"all at once": {func(s *Microsoft365Settings) {
			*s = Microsoft365Settings{Cloud: "x", LoginURL: "x", GraphURL: "x"}
		}, "tenant_id client_id client_secret cloud login_url graph_url"},
	} {
		t.Run(name, func(t *testing.T) {
			s := Microsoft365Settings{TenantID: aGUID, ClientID: aGUID, ClientSecret: "Ab8Q~x.y z", Cloud: "global"}
			v.change(&s)
			if got := fieldsOf(t, "/microsoft365/", s.Validate(day(10))); got != v.fields {
				t.Errorf("got %q, want %q: %v", got, v.fields, s.Validate(day(10)))
			}
		})
	}
}

// Whoever puts the key where it is shown has to know that.
func TestAKeyInTheWrongFieldIsCalledByItsName(t *testing.T) {
	s := Microsoft365Settings{CertificatePEM: rsaPair().certificate + rsaPair().pkcs1, PrivateKeyPEM: Secret(rsaPair().key)}
	if _, _, problems := s.ClientCertificate(); len(problems) != 1 || !strings.Contains(problems[0].Reason, "this field is shown") {
		t.Errorf("%v", problems)
	}
}

func TestACertificatesTime(t *testing.T) {
	s := Microsoft365Settings{TenantID: aGUID, ClientID: aGUID, CertificatePEM: rsaPair().certificate, PrivateKeyPEM: Secret(rsaPair().key)}
	for _, v := range []struct {
		now time.Time
		why string
	}{
		{time.Time{}, ""}, {day(1), ""}, {day(365), ""}, {day(1).Add(-time.Second), "not valid yet"}, {day(365).Add(time.Second), "expired"},
	} {
		problems := s.Validate(v.now)
		switch {
		case v.why == "" && len(problems) > 0, v.why != "" && len(problems) != 1:
			t.Errorf("%v: %v", v.now, problems)
		case v.why != "" && (problems[0].Field != "/microsoft365/certificate_pem" || !strings.Contains(problems[0].Reason, v.why)):
			t.Errorf("%v: %v", v.now, problems)
		}
	}
	certificate, key, problems := s.ClientCertificate()
	if len(problems) > 0 || !key.PublicKey.Equal(certificate.PublicKey) {
		t.Error(problems)
	}
	s.PrivateKeyPEM = Secret(otherPair().key)
	if certificate, key, problems = s.ClientCertificate(); len(problems) != 1 || certificate != nil || key != nil {
		t.Errorf("%v", problems)
	}
}

func TestValidateOAuth2(t *testing.T) {
	microsoft := OAuth2{Provider: "microsoft", TenantID: aGUID, ClientID: aGUID, ClientSecret: "x"}
	other := OAuth2{ClientID: "post room", ClientSecret: "x", TokenURL: "https://id.example/token?v=2", Scopes: []string{"https://mail.example/.default", "a"}}
	for name, v := range map[string]struct {
		of     OAuth2
		change func(*OAuth2)
		fields string
	}{
		"microsoft":                  {microsoft, func(*OAuth2) {}, ""},
		"microsoft, nothing":         {microsoft, func(o *OAuth2) { *o = OAuth2{Provider: "microsoft"} }, "tenant_id client_id client_secret"},
		"microsoft, common":          {microsoft, func(o *OAuth2) { o.TenantID = "common" }, "tenant_id"},
		"microsoft, an app's name":   {microsoft, func(o *OAuth2) { o.ClientID = "postroom" }, "client_id"},
		"microsoft, a placeholder":   {microsoft, func(o *OAuth2) { o.ClientSecret = Redacted }, "client_secret"},
		"microsoft, another's":       {microsoft, func(o *OAuth2) { o.TokenURL, o.Scopes = "https://x.example", []string{"a"} }, "token_url scopes"},
		"microsoft in other letters": {microsoft, func(o *OAuth2) { o.Provider = "Microsoft" }, "tenant_id token_url"},
		"any":                        {other, func(*OAuth2) {}, ""},
		"any with a name":            {other, func(o *OAuth2) { o.Provider = "okta" }, ""},
		"any without scopes":         {other, func(o *OAuth2) { o.Scopes = nil }, ""},
		"any, nothing":               {other, func(o *OAuth2) { *o = OAuth2{} }, "client_id client_secret token_url"},
		"any, a tenant":              {other, func(o *OAuth2) { o.TenantID = aGUID }, "tenant_id"},
		"any, an id with a new line": {other, func(o *OAuth2) { o.ClientID = "a\n" }, "client_id"},
		"any, a secret with a NUL":   {other, func(o *OAuth2) { o.ClientSecret = "a\x00" }, "client_secret"},
		"any, in clear text":         {other, func(o *OAuth2) { o.TokenURL = "http://id.example/token" }, "token_url"},
		"any, on this machine":       {other, func(o *OAuth2) { o.TokenURL = "http://127.0.0.1:8080/token" }, ""},
		"any, a fragment":            {other, func(o *OAuth2) { o.TokenURL = "https://id.example/token#x" }, "token_url"},
		"any, a password":            {other, func(o *OAuth2) { o.TokenURL = "https://a:b@id.example/token" }, "token_url"},
		"any, no URL":                {other, func(o *OAuth2) { o.TokenURL = "id.example" }, "token_url"},
		"any, scopes in one":         {other, func(o *OAuth2) { o.Scopes = []string{"a b", "c", "", `d"`, "e\\", "ä"} }, "scopes/0 scopes/2 scopes/3 scopes/4 scopes/5"},
	} {
		t.Run(name, func(t *testing.T) {
			o := v.of
			o.Scopes = slices.Clone(o.Scopes)
			v.change(&o)
			if got := fieldsOf(t, "/smtp/auth/oauth2/", o.Validate()); got != v.fields {
				t.Errorf("got %q, want %q: %v", got, v.fields, o.Validate())
			}
		})
	}
}

func FuzzClientCertificate(f *testing.F) {
	p := rsaPair()
	f.Add(p.certificate, p.key)
	f.Add(p.certificate+p.certificate, p.pkcs1)
	f.Add("", "")
	f.Add("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "-----BEGIN PRIVATE KEY-----\nDEK-Info: x\n\n-----END PRIVATE KEY-----\n")
	f.Add(ecPair().certificate, ecPair().pkcs1)
	f.Fuzz(func(t *testing.T, certificate, key string) {
		s := Microsoft365Settings{CertificatePEM: certificate, PrivateKeyPEM: Secret(key)}
		c, k, problems := s.ClientCertificate()
		if len(problems) == 0 && (c == nil || k == nil || !k.PublicKey.Equal(c.PublicKey)) || len(problems) > 0 && (c != nil || k != nil) {
			t.Errorf("%v", problems)
		}
	})
}

func FuzzValidateOAuth2(f *testing.F) {
	f.Add("microsoft", aGUID, aGUID, "x", "", "")
	f.Add("", "", "id", "x", "https://id.example/token", "a")
	f.Add("", "common", "\x00", Redacted, "http://[::1", "a b")
	f.Fuzz(func(t *testing.T, provider, tenant, client, secret, url, scope string) {
		o := OAuth2{Provider: provider, TenantID: tenant, ClientID: client, ClientSecret: Secret(secret), TokenURL: url, Scopes: []string{scope}}
		for _, p := range o.Validate() {
			if p.Field == "" || p.Reason == "" {
				t.Errorf("%+v", p)
			}
		}
		s := Microsoft365Settings{TenantID: tenant, ClientID: client, ClientSecret: Secret(secret), LoginURL: url}
		if len(s.Validate(time.Time{})) == 0 && (!strings.HasPrefix(s.Login(), "http") || strings.HasSuffix(s.Login(), "/")) {
			t.Errorf("%q", s.Login())
		}
	})
}
