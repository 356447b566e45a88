package provider

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"maps"
	"net"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/postroom/postroom/mail"
)

const (
	blamedSecret = "hunter2-correct-horse"
	blamedSender = "reports@example.com"
)

// blamable gives settings of every kind and way to log in.
func blamable() map[string]*Settings {
	smtp := func(a SMTPAuth) *Settings {
		return &Settings{Kind: KindSMTP, Sender: mail.Address{Address: blamedSender}, SMTP: SMTPSettings{Host: "mail.example.com", Auth: a}}
	}
	graph := func(m Microsoft365Settings) *Settings {
		m.TenantID, m.ClientID = "example.com", "3f7e5c1a-1111-4222-8333-444455556666"
		return &Settings{Kind: KindMicrosoft365, Sender: mail.Address{Address: blamedSender}, Microsoft365: m}
	}
	return map[string]*Settings{
		"no kind":   {Kind: KindNone},
		"no login":  smtp(SMTPAuth{}),
		"password":  smtp(SMTPAuth{Password: blamedSecret}),
		"microsoft": smtp(SMTPAuth{Method: AuthOAuth2, OAuth2: OAuth2{Provider: OAuthMicrosoft, ClientSecret: blamedSecret}}),
		"oauth2":    smtp(SMTPAuth{Method: AuthOAuth2, OAuth2: OAuth2{TokenURL: "https://login.example.com/token", ClientSecret: blamedSecret}}),
		"secret":    graph(Microsoft365Settings{ClientSecret: blamedSecret}),
		"pair":      graph(Microsoft365Settings{CertificatePEM: "c", PrivateKeyPEM: blamedSecret}),
		"federated": graph(Microsoft365Settings{FederatedTokenFile: "/run/token"}),
		"own hosts": graph(Microsoft365Settings{ClientSecret: blamedSecret, LoginURL: "https://login.example.com", GraphURL: "https://graph.example.com"}),
	}
}

var (
	onSMTP  = []string{"no login", "password", "microsoft", "oauth2"}
	onGraph = []string{"secret", "pair", "federated", "own hosts"}
	onApps  = append([]string{"microsoft", "oauth2"}, onGraph...)
)

// blamedBy has, for each cause, what is blamed by what settings, where a mail server or Microsoft Graph is spoken to, and where the
// login service is. What is not there blames nothing.
func blamedBy() (serving, login map[mail.Cause]map[string]string) {
	all := func(field string, names ...string) map[string]string {
		m := map[string]string{}
		for _, name := range names {
			m[name] = field
		}
		return m
	}
	and := func(all ...map[string]string) map[string]string {
		m := map[string]string{}
		for _, one := range all {
			maps.Copy(m, one)
		}
		return m
	}
	always := func(field string) map[string]string { return all(field, append(onSMTP, onGraph...)...) }
	graphURL := all("/microsoft365/graph_url", "own hosts")
	credential := and(all("/smtp/auth/oauth2/client_secret", "microsoft", "oauth2"), all("/microsoft365/client_secret", "secret", "own hosts"),
		all("/microsoft365/certificate_pem", "pair"), all("/microsoft365/federated_token_file", "federated"))
	clientID := and(all("/smtp/auth/oauth2/client_id", "microsoft", "oauth2"), all("/microsoft365/client_id", onGraph...))
	loginURL := and(all("/smtp/auth/oauth2/token_url", "oauth2"), all("/microsoft365/login_url", "own hosts"))
	permission := all("/microsoft365/client_id", onGraph...)
	limits := map[mail.Cause]map[string]string{
		mail.SendAsDenied:       always("/sender/address"),
		mail.SenderRefused:      always("/sender/address"),
		mail.MailboxNotFound:    always("/sender/address"),
		mail.TooManyConnections: always("/limits/concurrency"),
		mail.RateExceeded:       always("/limits/messages_per_minute"),
		mail.QuotaExceeded:      always("/limits/recipients_per_day"),
		mail.TenantQuota:        always("/tenant_limits/recipients_per_day"),
		mail.LimitTooSmall:      always("/limits"),
	}
	serving = map[mail.Cause]map[string]string{
		mail.HostNotFound:       and(all("/smtp/host", onSMTP...), graphURL),
		mail.TargetForbidden:    and(all("/smtp/host", onSMTP...), graphURL),
		mail.CertificateInvalid: and(all("/smtp/ca_pem", onSMTP...), graphURL),
		mail.TLSRefused:         and(all("/smtp/min_tls", onSMTP...), graphURL),
		mail.TLSNotSpoken:       and(all("/smtp/security", onSMTP...), graphURL),
		mail.StartTLSMissing:    all("/smtp/security", onSMTP...),
		mail.CleartextLogin:     all("/smtp/security", onSMTP...),
		mail.AuthMissing:        all("/smtp/auth/method", onSMTP...),
		mail.NotAuthenticated:   all("/smtp/auth/method", onSMTP...),
		mail.LoginDisabled:      all("/smtp/auth/method", onSMTP...),
		mail.Credentials: and(all("/smtp/auth/method", "no login"), all("/smtp/auth/password", "password"),
			all("/smtp/auth/username", "microsoft", "oauth2"), all("/microsoft365/cloud", onGraph...), graphURL),
		mail.PermissionMissing: and(permission, all("/smtp/auth/username", "microsoft", "oauth2")),
	}
	login = map[mail.Cause]map[string]string{
		mail.HostNotFound: loginURL, mail.TargetForbidden: loginURL, mail.CertificateInvalid: loginURL, mail.TLSRefused: loginURL,
		mail.TLSNotSpoken: loginURL, mail.NoTokenEndpoint: loginURL, mail.TokenUnavailable: loginURL,
		mail.ClientRefused: credential, mail.SecretExpired: credential, mail.AssertionRefused: credential, mail.FederatedToken: credential,
		mail.TokenRefused: credential,
		mail.AppNotFound:  clientID, mail.PermissionMissing: clientID,
		mail.TenantNotFound: and(all("/smtp/auth/oauth2/tenant_id", "microsoft"), all("/smtp/auth/oauth2/token_url", "oauth2"),
			all("/microsoft365/tenant_id", onGraph...)),
		mail.ScopeRefused: and(all("/smtp/auth/oauth2/client_id", "microsoft"), all("/smtp/auth/oauth2/scopes", "oauth2"),
			all("/microsoft365/cloud", onGraph...), all("/microsoft365/graph_url", "own hosts")),
	}
	maps.Copy(serving, limits)
	maps.Copy(login, limits)
	return serving, login
}

// blameless are the causes that no settings can be to blame for.
var blameless = []mail.Cause{
	mail.SenderBlocked, mail.MailboxFull, mail.TenantBlocked, mail.SenderThrottled, mail.RecipientThrottled, mail.TooManyRecipients,
	mail.AddressInvalid, mail.TooLarge, mail.NotASCII, mail.Unreadable, mail.Fault, mail.Stopped, mail.WorkerGone, mail.NotSent,
}

func TestEveryCauseBlamesItsField(t *testing.T) {
	serving, login := blamedBy()
	for _, c := range allCauses(t) {
		if _, known := serving[c]; !known && login[c] == nil && !slices.Contains(blameless, c) {
			t.Errorf("%s: nobody has said what is to blame", c)
		}
		for name, s := range blamable() {
			step := "send"
			if slices.Contains(onSMTP, name) {
				step = "ehlo"
			}
			if got := s.Blame(mail.Outcome{Class: mail.Configuration, Cause: c, Step: step}); got.Field != serving[c][name] {
				t.Errorf("%s, %s: %q, want %q", c, name, got.Field, serving[c][name])
			}
			if !slices.Contains(onApps, name) {
				continue
			}
			if got := s.Blame(mail.Outcome{Class: mail.Configuration, Cause: c, Step: "token"}); got.Field != login[c][name] {
				t.Errorf("%s of the login service, %s: %q, want %q", c, name, got.Field, login[c][name])
			}
		}
	}
}

// Whatever is blamed can be set, by the kind that is.
func TestBlamedFieldsExist(t *testing.T) {
	named, met := map[string]bool{}, blamedOutcomes(t)
	for name, s := range manySettings() {
		before, _ := json.Marshal(s)
		for _, o := range met {
			b := s.Blame(o)
			if b.Field == "" || named[name+b.Field] {
				continue
			}
			named[name+b.Field] = true
			if !pointed(reflect.TypeFor[Settings](), strings.Split(b.Field, "/")[1:]) {
				t.Errorf("%s, %+v: there is no %s", name, o, b.Field)
			}
			for kind, section := range map[Kind]string{KindSMTP: "/smtp/", KindMicrosoft365: "/microsoft365/"} {
				if strings.HasPrefix(b.Field, section) && s.Kind != kind || s.Kind == KindNone {
					t.Errorf("%s, %+v: %s does not count", name, o, b.Field)
				}
			}
		}
		if after, _ := json.Marshal(s); string(after) != string(before) {
			t.Errorf("%s: Blame changed the settings", name)
		}
	}
	if len(named) < 40 {
		t.Errorf("found %d fields", len(named))
	}
}

// pointed reports whether path leads through the json tags of t.
func pointed(t reflect.Type, path []string) bool {
	if len(path) == 0 {
		return true
	}
	if t.Kind() != reflect.Struct {
		return false
	}
	return slices.ContainsFunc(reflect.VisibleFields(t), func(f reflect.StructField) bool {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		return name != "" && name == path[0] && pointed(f.Type, path[1:])
	})
}

// manySettings adds to blamable every security on the usual ports, and the servers that have advice of their own.
func manySettings() map[string]*Settings {
	all := map[string]*Settings{}
	for name, s := range blamable() {
		all[name] = s
		if s.Kind != KindSMTP {
			continue
		}
		for _, host := range []string{"smtp.office365.com", "smtp.gmail.com", "email-smtp.eu-west-1.amazonaws.com"} {
			other := *s
			other.SMTP.Host = host
			all[name+" "+host] = &other
		}
		for _, security := range []Security{SecurityNone, SecurityStartTLS, SecurityTLS} {
			for port, digits := range map[int]string{25: "25", 465: "465", 587: "587"} {
				other := *s
				other.SMTP.Security, other.SMTP.Port, other.SMTP.CAPEM, other.SMTP.MinTLS = security, port, "x", "1.3"
				other.SMTP.Auth.Username = "robot"
				all[name+" "+string(security)+" "+digits] = &other
			}
		}
	}
	drafts := *all["secret"]
	drafts.Microsoft365.VerifySends = true
	drafts.Microsoft365.ClientSecret = "3f7e5c1a-1111-4222-8333-444455556666"
	all["drafts"] = &drafts
	return all
}

// blamedOutcomes adds every cause at the steps of HTTP, and every fault of a certificate. The scope makes no difference.
func blamedOutcomes(t *testing.T) []mail.Outcome {
	all := slices.DeleteFunc(outcomes(t), func(o mail.Outcome) bool { return o.Scope != mail.ScopeMessage })
	for _, step := range []string{"token", "send", "draft"} {
		for _, c := range append(allCauses(t), "") {
			all = append(all, mail.Outcome{Class: mail.Configuration, Cause: c, Step: step}, mail.Outcome{Class: mail.Temporary, Cause: c, Step: step})
		}
	}
	for _, words := range append(otherName, outOfTime, untrusted) {
		all = append(all, mail.Outcome{Class: mail.Configuration, Cause: mail.CertificateInvalid, Step: "tls",
			Reply: "the server's certificate is not valid: " + words + " ada@example.org"})
	}
	return all
}

// permissions takes out names that have a full stop in the middle.
var permissions = strings.NewReplacer("Mail.Send", "it", "Mail.ReadWrite", "it")

func TestBlameIsInSentencesAndKeepsSecrets(t *testing.T) {
	read, met := map[string]bool{"": true}, blamedOutcomes(t)
	for name, s := range manySettings() {
		for _, o := range met {
			if o.Reply == "" {
				o.Reply = "no thanks, ada@example.org"
			}
			b := s.Blame(o)
			if o.Class == mail.Configuration && o.Cause == "" && b.Remedy == "" {
				t.Errorf("%s, %+v: nothing to do", name, o)
			}
			if read[b.Remedy] {
				continue
			}
			read[b.Remedy] = true
			if fault := badText(permissions.Replace(b.Remedy)); fault != "" {
				t.Errorf("%s, %+v: %q %s", name, o, b.Remedy, fault)
			}
			for _, private := range []string{blamedSecret, blamedSender, "ada", "robot", s.Microsoft365.ClientSecret.Reveal()} {
				if private != "" && strings.Contains(b.Remedy, private) {
					t.Errorf("%s, %+v: %q", name, o, b.Remedy)
				}
			}
			if general := Advise(o).Remedy; b.Remedy != general && strings.ContainsAny(b.Remedy, "`") {
				t.Errorf("%s: %q is for the command line alone", name, b.Remedy)
			}
		}
	}
}

func TestBlameFitsTheSettings(t *testing.T) {
	at := func(security Security, port int) *Settings {
		s := blamable()["password"]
		s.SMTP.Security, s.SMTP.Port = security, port
		return s
	}
	with := func(name string, change func(*Settings)) *Settings {
		s := blamable()[name]
		change(s)
		return s
	}
	on := func(name, host string) *Settings { return with(name, func(s *Settings) { s.SMTP.Host = host }) }
	because := func(c mail.Cause) mail.Outcome {
		return mail.Outcome{Class: mail.Configuration, Cause: c, Step: "auth"}
	}
	noAnswer := func(step string) mail.Outcome {
		return mail.Outcome{Class: mail.Temporary, Scope: mail.ScopeProvider, Step: step, Reply: "timed out"}
	}
	for name, v := range map[string]struct {
		settings      *Settings
		outcome       mail.Outcome
		field, remedy string
	}{
		"nobody listens on 25":             {at(SecurityStartTLS, 25), noAnswer("dial"), "/smtp/port", "with security starttls servers mostly listen on port 587"},
		"nobody listens on 25, none":       {at(SecurityNone, 0), noAnswer("dial"), "/smtp/port", "let nobody connect to it"},
		"nobody listens on 587 with tls":   {at(SecurityTLS, 587), noAnswer("dial"), "/smtp/port", "listen on port 465"},
		"nobody listens where they do":     {at(SecurityTLS, 0), noAnswer("dial"), "/smtp/host", "no firewall is in between"},
		"tls on 587":                       {at(SecurityTLS, 587), because(mail.TLSNotSpoken), "/smtp/security", "starttls with port 587, or port 465"},
		"tls on 465, which speaks none":    {at(SecurityTLS, 465), because(mail.TLSNotSpoken), "/smtp/security", "See that host is right"},
		"tls on 587, and silence":          {at(SecurityTLS, 587), noAnswer("tls"), "/smtp/security", "starttls with port 587, or port 465"},
		"tls on 465, and silence":          {at(SecurityTLS, 465), noAnswer("tls"), "", "If it lasts"},
		"starttls on 465":                  {at(SecurityStartTLS, 465), noAnswer("greeting"), "/smtp/security", "Use security tls"},
		"none on 465":                      {at(SecurityNone, 465), noAnswer("greeting"), "/smtp/security", "Use security tls"},
		"no greeting on 587":               {at(SecurityStartTLS, 587), noAnswer("greeting"), "", "If it lasts"},
		"busy on 465":                      {at(SecurityStartTLS, 465), mail.Outcome{Class: mail.Temporary, Step: "greeting", Code: 421}, "", ""},
		"no starttls on 25":                {at(SecurityStartTLS, 25), because(mail.StartTLSMissing), "/smtp/port", "Use port 587"},
		"no starttls":                      {at(SecurityStartTLS, 587), because(mail.StartTLSMissing), "/smtp/security", "tls with port 465. Only inside a network that you trust use security none"},
		"only TLS 1.3":                     {with("password", func(s *Settings) { s.SMTP.MinTLS = "1.3" }), because(mail.TLSRefused), "/smtp/min_tls", "Set min_tls to 1.2"},
		"no login without TLS":             {at(SecurityNone, 25), because(mail.AuthMissing), "/smtp/security", "over an encrypted connection"},
		"no login on 25":                   {at(SecurityStartTLS, 25), because(mail.AuthMissing), "/smtp/port", "Use port 587"},
		"no login by OAuth":                {blamable()["oauth2"], because(mail.AuthMissing), "/smtp/auth/method", "Use method basic"},
		"TLS comes first":                  {at(SecurityNone, 25), because(mail.NotAuthenticated), "/smtp/security", "encrypted"},
		"TLS comes before any login":       {with("no login", func(s *Settings) { s.SMTP.Security = SecurityNone }), mail.Outcome{Cause: mail.NotAuthenticated, Step: "mail", Reply: "5.7.0 Must issue a STARTTLS command first"}, "/smtp/security", "encrypted"},
		"a login is wanted":                {blamable()["no login"], because(mail.NotAuthenticated), "/smtp/auth/method", "Use method basic or oauth2"},
		"the sender as user":               {blamable()["password"], because(mail.Credentials), "/smtp/auth/password", "whether the sender's address is the user name"},
		"a user":                           {with("password", func(s *Settings) { s.SMTP.Auth.Username = "robot" }), because(mail.Credentials), "/smtp/auth/password", "Check username and password."},
		"Microsoft's password":             {on("password", "smtp.office365.com"), because(mail.Credentials), "/smtp/auth/password", "multi-factor"},
		"a token is refused":               {blamable()["oauth2"], because(mail.PermissionMissing), "/smtp/auth/username", "scopes"},
		"the tenant is in another cloud":   {blamable()["secret"], mail.Outcome{Cause: mail.TenantNotFound, Step: "token", Reply: "AADSTS900382: Confidential Client is not supported in Cross Cloud request."}, "/microsoft365/cloud", "Set cloud to"},
		"the mailbox is not the app's":     {blamable()["secret"], mail.Outcome{Cause: mail.PermissionMissing, Step: "send", Code: 403}, "/microsoft365/client_id", "RBAC for Applications"},
		"Microsoft's token":                {on("microsoft", "SMTP.office365.com."), because(mail.Credentials), "/smtp/auth/username", "New-ServicePrincipal"},
		"Google's password":                {on("password", "smtp.gmail.com"), because(mail.Credentials), "/smtp/auth/password", "app password"},
		"Amazon's password":                {on("password", "email-smtp.eu-west-1.amazonaws.com"), because(mail.Credentials), "/smtp/auth/password", "its SMTP credentials"},
		"SMTP AUTH is off":                 {on("password", "smtp.office365.com"), because(mail.LoginDisabled), "/smtp/auth/method", "disabled for the tenant or the mailbox"},
		"Google wants an app password":     {on("password", "smtp.gmail.com"), because(mail.LoginDisabled), "/smtp/auth/password", "2-step"},
		"another's address":                {with("password", func(s *Settings) { s.SMTP.Auth.Username = "robot" }), because(mail.SendAsDenied), "/sender/address", "Use the account's own address"},
		"its own address":                  {blamable()["password"], because(mail.SendAsDenied), "/sender/address", "a message with another sender"},
		"does not relay":                   {blamable()["no login"], mail.Outcome{Class: mail.Permanent, Scope: mail.ScopeRecipient, Step: "rcpt", Code: 554, Enhanced: "5.7.1"}, "/smtp/auth/method", "refuses all recipients outside"},
		"one recipient is refused":         {blamable()["password"], mail.Outcome{Class: mail.Permanent, Scope: mail.ScopeRecipient, Step: "rcpt", Code: 554, Enhanced: "5.7.1"}, "", ""},
		"forbidden":                        {blamable()["password"], because(mail.TargetForbidden), "/smtp/host", "network.forbidden"},
		"forbidden login":                  {blamable()["own hosts"], mail.Outcome{Cause: mail.TargetForbidden, Step: "token"}, "/microsoft365/login_url", "Correct login_url"},
		"forbidden Graph":                  {blamable()["own hosts"], mail.Outcome{Cause: mail.TargetForbidden, Step: "send"}, "/microsoft365/graph_url", "Correct graph_url"},
		"the secret's id":                  {with("secret", func(s *Settings) { s.Microsoft365.ClientSecret = "3f7e5c1a-1111-4222-8333-444455556666" }), mail.Outcome{Cause: mail.ClientRefused, Step: "token"}, "/microsoft365/client_secret", "looks like the id of a secret"},
		"a wrong secret":                   {blamable()["secret"], mail.Outcome{Cause: mail.ClientRefused, Step: "token"}, "/microsoft365/client_secret", "is the value of a secret"},
		"a wrong secret, elsewhere":        {blamable()["oauth2"], mail.Outcome{Cause: mail.ClientRefused, Step: "token"}, "/smtp/auth/oauth2/client_secret", "what the provider shows"},
		"the secret is too old":            {blamable()["microsoft"], mail.Outcome{Cause: mail.SecretExpired, Step: "token"}, "/smtp/auth/oauth2/client_secret", "Make a new secret under Certificates & secrets"},
		"the certificate is refused":       {blamable()["pair"], mail.Outcome{Cause: mail.AssertionRefused, Step: "token"}, "/microsoft365/certificate_pem", "has not expired"},
		"the token is refused":             {blamable()["federated"], mail.Outcome{Cause: mail.AssertionRefused, Step: "token"}, "/microsoft365/federated_token_file", "Federated credentials"},
		"the app is not in the tenant":     {blamable()["secret"], mail.Outcome{Cause: mail.AppNotFound, Step: "token"}, "/microsoft365/client_id", "enterprise applications"},
		"no such tenant":                   {blamable()["microsoft"], mail.Outcome{Cause: mail.TenantNotFound, Step: "token"}, "/smtp/auth/oauth2/tenant_id", "directory (tenant) id"},
		"may not send":                     {blamable()["secret"], mail.Outcome{Class: mail.Configuration, Scope: mail.ScopeMailbox, Cause: mail.PermissionMissing, Step: "send", Code: 403}, "/microsoft365/client_id", "Mail.Send of Microsoft Graph"},
		"may not send by SMTP":             {blamable()["microsoft"], mail.Outcome{Cause: mail.PermissionMissing, Step: "token"}, "/smtp/auth/oauth2/client_id", "SMTP.SendAsApp"},
		"may not make drafts":              {with("secret", func(s *Settings) { s.Microsoft365.VerifySends = true }), mail.Outcome{Cause: mail.PermissionMissing, Step: "draft"}, "/microsoft365/verify_sends", "Mail.ReadWrite"},
		"may not attach":                   {blamable()["secret"], mail.Outcome{Cause: mail.PermissionMissing, Step: "draft"}, "/microsoft365/client_id", "Mail.ReadWrite"},
		"no mailbox":                       {blamable()["secret"], mail.Outcome{Cause: mail.MailboxNotFound, Step: "send"}, "/sender/address", "user principal name"},
		"Graph is somewhere else":          {blamable()["own hosts"], mail.Outcome{Class: mail.Configuration, Step: "send", Code: 301}, "/microsoft365/graph_url", "settings of the provider"},
		"a full mailbox is nobody's":       {blamable()["password"], because(mail.MailboxFull), "", "Delete mail in it"},
		"without a provider, nothing is":   {blamable()["no kind"], because(mail.SendAsDenied), "", "Send with the account's own address"},
		"what went well blames nothing":    {blamable()["password"], mail.Outcome{Step: "body", Code: 250}, "", ""},
		"a cause that is not known blames": {blamable()["password"], because("of_a_newer_program"), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := v.settings.Blame(v.outcome)
			if b.Field != v.field || !strings.Contains(b.Remedy, v.remedy) {
				t.Errorf("%+v", b)
			}
		})
	}
}

// The words are those of package crypto/x509: if they change, this fails.
func TestEachFaultOfACertificateHasItsRemedy(t *testing.T) {
	named := &x509.Certificate{DNSNames: []string{"mx.example.org"}}
	addressed := &x509.Certificate{IPAddresses: []net.IP{{192, 0, 2, 1}}}
	for name, v := range map[string]struct {
		err           error
		own           bool
		field, remedy string
	}{
		"another name":       {x509.HostnameError{Certificate: named, Host: "mail.example.com"}, false, "/smtp/host", "a name that"},
		"an address":         {x509.HostnameError{Certificate: named, Host: "192.0.2.25"}, true, "/smtp/host", "a name that"},
		"another address":    {x509.HostnameError{Certificate: addressed, Host: "192.0.2.25"}, false, "/smtp/host", "a name that"},
		"no name":            {x509.HostnameError{Certificate: addressed, Host: "mail.example.com"}, false, "/smtp/host", "a name that"},
		"time":               {x509.CertificateInvalidError{Reason: x509.Expired}, false, "", "certificate renewed"},
		"time, own":          {x509.CertificateInvalidError{Reason: x509.Expired}, true, "/smtp/ca_pem", "out of date"},
		"authority":          {x509.UnknownAuthorityError{Cert: named}, false, "/smtp/ca_pem", "into ca_pem"},
		"authority, own":     {x509.UnknownAuthorityError{Cert: named}, true, "/smtp/ca_pem", "put the right one there"},
		"something else":     {x509.CertificateInvalidError{Reason: x509.IncompatibleUsage}, false, "/smtp/ca_pem", "provider.smtp.ca_pem"},
		"a name with a trap": {x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{"not valid: " + untrusted}}, Host: "a.example"}, false, "/smtp/host", "a name that"},
	} {
		o := Disconnected("tls", &url.Error{Op: "Get", Err: &tls.CertificateVerificationError{Err: v.err}})
		s := blamable()["password"]
		if v.own {
			s.SMTP.CAPEM = "x"
		}
		if b := s.Blame(o); b.Field != v.field || !strings.Contains(b.Remedy, v.remedy) {
			t.Errorf("%s: %q: %+v", name, o.Reply, b)
		}
	}
}
