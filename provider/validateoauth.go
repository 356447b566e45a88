package provider

import (
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/postroom/postroom/mail"
)

// OAuthMicrosoft is the OAuth2.Provider whose addresses and scopes are known.
const OAuthMicrosoft = "microsoft"

var (
	guid   = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	domain = regexp.MustCompile(`^([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)+[a-zA-Z][a-zA-Z0-9-]*[a-zA-Z0-9]$`)
)

// Validate gives every fault of an app registration; fields are named /microsoft365/... A certificate's time is judged by now,
// and not at all if that is zero.
func (s *Microsoft365Settings) Validate(now time.Time) []mail.Problem {
	var f faults
	f.tenant("/microsoft365/tenant_id", s.TenantID)
	f.appID("/microsoft365/client_id", s.ClientID)
	f.credential(s, now)
	if _, ok := CloudNamed(s.Cloud); !ok {
		f.add("/microsoft365/cloud", "is no cloud of Microsoft's; use global, gcc, gcch, dod or china")
	}
	f.hostURL("/microsoft365/login_url", s.LoginURL)
	f.hostURL("/microsoft365/graph_url", s.GraphURL)
	return f
}

// Validate gives every fault of client credentials for SMTP; fields are named /smtp/auth/oauth2/...
func (o *OAuth2) Validate() []mail.Problem {
	const at = "/smtp/auth/oauth2/"
	var f faults
	if o.Provider == OAuthMicrosoft {
		f.tenant(at+"tenant_id", o.TenantID)
		f.appID(at+"client_id", o.ClientID)
		f.secret(at+"client_secret", o.ClientSecret)
		if o.TokenURL != "" {
			f.add(at+"token_url", "is known for provider microsoft; leave it out, or leave the provider out")
		}
		if len(o.Scopes) > 0 {
			f.add(at+"scopes", "are known for provider microsoft; leave them out, or leave the provider out")
		}
		return f
	}
	if !visible(o.Provider) {
		f.add(at+"provider", "holds a character that no name has, such as a line break; write microsoft, or leave it out")
	}
	if o.TenantID != "" {
		f.add(at+"tenant_id", "is for provider microsoft alone; set the provider to that, or leave it out")
	}
	switch {
	case o.ClientID == "":
		f.add(at+"client_id", "is missing; give the id that the provider knows Postroom by")
	case !visible(o.ClientID):
		f.add(at+"client_id", "holds a character that no id has, such as a line break; take it out")
	}
	f.secret(at+"client_secret", o.ClientSecret)
	if o.TokenURL == "" {
		f.add(at+"token_url", "is missing; give the address that tokens come from, or set provider to microsoft")
	} else if u := f.webURL(at+"token_url", o.TokenURL); u != nil && u.Fragment != "" {
		f.add(at+"token_url", "holds a # and what follows; take that out")
	}
	for i, scope := range o.Scopes {
		if !isScope(scope) {
			f.add(at+"scopes/"+strconv.Itoa(i), "is not one scope; write each by itself, without spaces, quotes or backslashes")
		}
	}
	return f
}

// tenant wants one tenant: client credentials are good nowhere else.
func (f *faults) tenant(field, text string) {
	switch lower := strings.ToLower(text); {
	case text == "":
		f.add(field, "is missing; give the tenant's id, or one of its domains")
	case lower == "common" || lower == "organizations" || lower == "consumers":
		f.add(field, "stands for many tenants, and an app needs its own; give the tenant's id, or one of its domains")
	case !guid.MatchString(text) && (!domain.MatchString(text) || len(text) > 253):
		f.add(field, "is neither a tenant's id (a GUID) nor a domain; copy the directory (tenant) id of the app registration")
	}
}

func (f *faults) appID(field, text string) {
	switch {
	case text == "":
		f.add(field, "is missing; give the application (client) id of the app registration")
	case !guid.MatchString(text):
		f.add(field, "is not a GUID; copy the application (client) id of the app registration")
	}
}

// secret knows RFC 6749, appendix A.2. A space at an end comes from copying.
func (f *faults) secret(field string, s Secret) {
	text := s.Reveal()
	switch {
	case text == "":
		f.add(field, "is missing; give it")
	case text == Redacted:
		f.add(field, "is not the secret but its placeholder; give the secret again")
	case !visible(text) || strings.TrimSpace(text) != text:
		f.add(field, "begins or ends with a space, or holds a character that no secret has, such as a line break; give it again")
	}
}

// Ways to prove who we are to Microsoft Entra, by the field that they are named for.
const (
	bySecret      = "client_secret"
	byCertificate = "certificate_pem"
	byFederation  = "federated_token_file"
)

// ways gives those of which anything is set. One is right.
func (s *Microsoft365Settings) ways() []string {
	var ways []string
	if s.ClientSecret != "" {
		ways = append(ways, bySecret)
	}
	if s.CertificatePEM != "" || s.PrivateKeyPEM != "" {
		ways = append(ways, byCertificate)
	}
	if s.FederatedTokenFile != "" {
		ways = append(ways, byFederation)
	}
	return ways
}

// credential wants one way to prove who we are, and no second one.
func (f *faults) credential(s *Microsoft365Settings, now time.Time) {
	const at = "/microsoft365/"
	ways := s.ways()
	for _, way := range ways {
		switch way {
		case bySecret:
			f.secret(at+bySecret, s.ClientSecret)
		case byCertificate:
			f.pair(s, now)
		case byFederation:
			// Whether it is there is for those to find out who read it, perhaps on another machine.
			if !filepath.IsAbs(s.FederatedTokenFile) || strings.ContainsFunc(s.FederatedTokenFile, isControl) {
				f.add(at+byFederation, "is not the full path of a file; write it from the root on")
			}
		}
	}
	switch len(ways) {
	case 0:
		f.add(at+bySecret, "is missing; give it, or certificate_pem and private_key_pem, or federated_token_file")
	case 1:
	default:
		for _, way := range ways {
			f.add(at+way, "is one of several ways to log in; keep one, and clear the others")
		}
	}
}

func (f *faults) pair(s *Microsoft365Settings, now time.Time) {
	const at = "/microsoft365/"
	switch {
	case s.CertificatePEM == "":
		f.add(at+"certificate_pem", "is missing; give the certificate of the key")
		f.privateKey(at+"private_key_pem", s.PrivateKeyPEM)
	case s.PrivateKeyPEM == "":
		f.add(at+"private_key_pem", "is missing; give the key of the certificate")
		f.certificate(at+"certificate_pem", s.CertificatePEM)
	default:
		certificate, _, problems := s.ClientCertificate()
		*f = append(*f, problems...)
		if certificate != nil && !now.IsZero() {
			f.lifetime(at+"certificate_pem", certificate, now)
		}
	}
}

// hostURL wants a URL of a host alone, or nothing.
func (f *faults) hostURL(field, text string) {
	if text == "" {
		return
	}
	u := f.webURL(field, text)
	if u != nil && ((u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.ForceQuery || u.Fragment != "") {
		f.add(field, "holds more than the host; leave out what follows it")
	}
}

// webURL wants a URL to which secrets may go. It gives nil if it is none, and then it says why.
func (f *faults) webURL(field, text string) *url.URL {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || strings.HasSuffix(u.Host, ":"):
		f.add(field, "is not a URL; write it as https://login.example.com")
	case u.User != nil:
		f.add(field, "holds a user name or a password; take that out")
	case u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())):
		f.add(field, "does not begin with https://, and secrets go there; only on this machine itself http:// will do")
	default:
		return u
	}
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// visible reports whether s is all of the visible ASCII characters and the space (VSCHAR of RFC 6749, appendix A).
func visible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// isScope reports whether s is one scope-token of RFC 6749, section 3.3.
func isScope(s string) bool {
	return s != "" && visible(s) && !strings.ContainsAny(s, ` "\`)
}
