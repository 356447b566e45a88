package provider

import (
	"slices"
	"strings"

	"github.com/postroom/postroom/mail"
)

// Kind says which provider is active.
type Kind string

// The kinds. With KindNone mail is accepted and waits.
const (
	KindNone         Kind = "none"
	KindSMTP         Kind = "smtp"
	KindMicrosoft365 Kind = "microsoft365"
)

// Security says how a connection to an SMTP server is protected.
type Security string

// The securities. SecurityStartTLS never falls back to clear text (RFC 3207); SecurityTLS speaks TLS from the first
// byte (RFC 8314).
const (
	SecurityNone     Security = "none"
	SecurityStartTLS Security = "starttls"
	SecurityTLS      Security = "tls"
)

// AuthMethod says how we identify ourselves to an SMTP server.
type AuthMethod string

// The methods. AuthBasic is SASL PLAIN or LOGIN, whichever the server offers.
const (
	AuthNone   AuthMethod = "none"
	AuthBasic  AuthMethod = "basic"
	AuthOAuth2 AuthMethod = "oauth2"
)

// Settings choose and describe the active provider: `provider:` in the configuration file, the body of PUT /v1/provider.
// Only the part of the kind chosen is looked at. They are plain data: change them only before they are handed on.
type Settings struct {
	Kind   Kind         `yaml:"kind" json:"kind"`
	Sender mail.Address `yaml:"sender,omitempty" json:"sender,omitzero"`
	// AllowedSenders are whom mail may be sent from: addresses, or "@example.com" for all of a domain; see mail.Senders. Empty allows
	// every sender. Sender itself is always allowed; the queue sees to that, and no entry is needed.
	AllowedSenders []string `yaml:"allowed_senders,omitempty" json:"allowed_senders,omitempty"`

	SMTP         SMTPSettings         `yaml:"smtp,omitempty" json:"smtp,omitzero"`
	Microsoft365 Microsoft365Settings `yaml:"microsoft365,omitempty" json:"microsoft365,omitzero"`
	Limits       Limits               `yaml:"limits,omitempty" json:"limits,omitzero"`
	// TenantLimits bound all mailboxes together.
	TenantLimits TenantLimits `yaml:"tenant_limits,omitempty" json:"tenant_limits,omitzero"`
}

// SMTPSettings describe an SMTP server and how to log in.
type SMTPSettings struct {
	// Host is a name or an IP address; with TLS its certificate must be valid for it.
	Host string `yaml:"host" json:"host"`
	// Port 0 stands for the port of the security: 25 (none), 587 (starttls), 465 (tls).
	Port     int      `yaml:"port" json:"port"`
	Security Security `yaml:"security" json:"security"`
	// MinTLS is the lowest TLS version, "1.0" to "1.3". Below "1.2", the default, a connection can be broken open.
	MinTLS string `yaml:"min_tls" json:"min_tls"`
	// CAPEM holds certificates in PEM that are trusted instead of the system's.
	CAPEM string   `yaml:"ca_pem" json:"ca_pem"`
	Auth  SMTPAuth `yaml:"auth" json:"auth"`
}

// SMTPAuth is the account on the SMTP server.
type SMTPAuth struct {
	Method AuthMethod `yaml:"method" json:"method"`
	// Username, if empty, is the sender's address.
	Username string `yaml:"username" json:"username"`
	Password Secret `yaml:"password" json:"password"`
	// AllowCleartext permits AuthBasic without TLS: whoever sees the traffic then has the password.
	AllowCleartext bool   `yaml:"allow_cleartext" json:"allow_cleartext"`
	OAuth2         OAuth2 `yaml:"oauth2,omitempty" json:"oauth2,omitzero"`
}

// OAuth2 are client credentials for SMTP. Provider "microsoft" needs TenantID, any other TokenURL and Scopes.
type OAuth2 struct {
	Provider     string   `yaml:"provider" json:"provider"`
	TenantID     string   `yaml:"tenant_id" json:"tenant_id"`
	ClientID     string   `yaml:"client_id" json:"client_id"`
	ClientSecret Secret   `yaml:"client_secret" json:"client_secret"`
	TokenURL     string   `yaml:"token_url" json:"token_url"`
	Scopes       []string `yaml:"scopes" json:"scopes"`
}

// Microsoft365Settings describe an app registration that sends by Microsoft Graph.
type Microsoft365Settings struct {
	TenantID           string `yaml:"tenant_id" json:"tenant_id"`
	ClientID           string `yaml:"client_id" json:"client_id"`
	ClientSecret       Secret `yaml:"client_secret" json:"client_secret"`
	CertificatePEM     string `yaml:"certificate_pem" json:"certificate_pem"`
	PrivateKeyPEM      Secret `yaml:"private_key_pem" json:"private_key_pem"`
	FederatedTokenFile string `yaml:"federated_token_file" json:"federated_token_file"`
	// Cloud is "global" or a national cloud; LoginURL and GraphURL replace its hosts and carry no path.
	Cloud           string `yaml:"cloud" json:"cloud"`
	LoginURL        string `yaml:"login_url" json:"login_url"`
	GraphURL        string `yaml:"graph_url" json:"graph_url"`
	SaveToSentItems bool   `yaml:"save_to_sent_items" json:"save_to_sent_items"`
	VerifySends     bool   `yaml:"verify_sends" json:"verify_sends"`
}

// NoLimit switches a limit off. The zero value asks for the default instead.
const NoLimit = -1

// Limits are what one mailbox (for SMTP: one account) may do. 0 stands for the default, which is Microsoft's figure for
// Microsoft 365 and its SMTP servers and no limit elsewhere; NoLimit for none. After Defaults whatever is below 1 is
// not limited.
type Limits struct {
	// Concurrency is the number of messages under way at once; it always has a limit.
	Concurrency          int   `yaml:"concurrency" json:"concurrency"`
	MessagesPerMinute    int   `yaml:"messages_per_minute" json:"messages_per_minute"`
	RequestsPer10m       int   `yaml:"requests_per_10m" json:"requests_per_10m"`
	RecipientsPerDay     int   `yaml:"recipients_per_day" json:"recipients_per_day"`
	UploadBytesPer5m     int64 `yaml:"upload_bytes_per_5m" json:"upload_bytes_per_5m"`
	RecipientsPerMessage int   `yaml:"recipients_per_message" json:"recipients_per_message"`
	MessageBytes         int64 `yaml:"message_bytes" json:"message_bytes"`
}

// TenantLimits are what all mailboxes together may do. What is below 1 is not limited.
type TenantLimits struct {
	Concurrency       int   `yaml:"concurrency" json:"concurrency"`
	MessagesPerMinute int   `yaml:"messages_per_minute" json:"messages_per_minute"`
	RequestsPer10m    int   `yaml:"requests_per_10m" json:"requests_per_10m"`
	RecipientsPerDay  int   `yaml:"recipients_per_day" json:"recipients_per_day"`
	UploadBytesPer5m  int64 `yaml:"upload_bytes_per_5m" json:"upload_bytes_per_5m"`
}

// Limits gives them in the form of a mailbox's.
func (t TenantLimits) Limits() Limits {
	return Limits{Concurrency: t.Concurrency, MessagesPerMinute: t.MessagesPerMinute, RequestsPer10m: t.RequestsPer10m,
		RecipientsPerDay: t.RecipientsPerDay, UploadBytesPer5m: t.UploadBytesPer5m}
}

// Microsoft's limits of one mailbox. Four requests at once are the documented figure, and senders with exactly four
// were still refused; SMTP AUTH has three connections.
const (
	microsoftConcurrency          = 3
	microsoftMessagesPerMinute    = 30
	microsoftRequestsPer10m       = 10_000
	microsoftRecipientsPerDay     = 10_000
	microsoftUploadBytesPer5m     = 150 << 20
	microsoftRecipientsPerMessage = 500
	microsoftMessageBytes         = 35 << 20
)

// defaultConcurrency is for SMTP servers of which nothing is known.
const defaultConcurrency = 10

// Defaults fills in what was left out, takes a sender written as "Name <address>" apart, and brings the allowed senders into
// canonical form. It may be called again. Lists are not written to, so that settings may share them.
func (s *Settings) Defaults() {
	if s.Kind == "" {
		s.Kind = KindNone
	}
	s.splitSender()
	s.AllowedSenders = canonicalSenders(s.AllowedSenders)
	switch s.Kind {
	case KindSMTP:
		s.SMTP.defaults()
		if microsoftHost(s.SMTP.Host) {
			s.Limits.microsoft()
		}
	case KindMicrosoft365:
		if s.Microsoft365.Cloud == "" {
			s.Microsoft365.Cloud = "global"
		}
		s.Limits.microsoft()
		setDefault(&s.Limits.RequestsPer10m, microsoftRequestsPer10m)
		setDefault(&s.Limits.UploadBytesPer5m, microsoftUploadBytesPer5m)
	}
	setDefault(&s.Limits.Concurrency, defaultConcurrency)
}

// splitSender leaves a sender alone that is no address, or has two names: Validate tells.
func (s *Settings) splitSender() {
	a, err := mail.ParseAddress(s.Sender.Address)
	switch {
	case err != nil, a.Name != "" && s.Sender.Name != "":
		return
	case a.Name == "":
		a.Name = s.Sender.Name
	}
	s.Sender = a
}

// canonicalSenders leaves an entry alone that is none: Validate tells.
func canonicalSenders(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	canonical := make([]string, len(list))
	for i, entry := range list {
		if sender, err := mail.ParseSender(entry); err == nil {
			entry = sender
		}
		canonical[i] = entry
	}
	return canonical
}

func (s *SMTPSettings) defaults() {
	setDefault(&s.Security, SecurityStartTLS)
	switch s.Security {
	case SecurityNone:
		setDefault(&s.Port, 25)
	case SecurityStartTLS:
		setDefault(&s.Port, 587)
	case SecurityTLS:
		setDefault(&s.Port, 465)
	}
	setDefault(&s.MinTLS, "1.2")
	if s.Auth.Username != "" || s.Auth.Password != "" {
		setDefault(&s.Auth.Method, AuthBasic)
	}
	setDefault(&s.Auth.Method, AuthNone)
	if len(s.Auth.OAuth2.Scopes) == 0 {
		s.Auth.OAuth2.Scopes = nil // no list and an empty one are the same
	}
}

func (l *Limits) microsoft() {
	setDefault(&l.Concurrency, microsoftConcurrency)
	setDefault(&l.MessagesPerMinute, microsoftMessagesPerMinute)
	setDefault(&l.RecipientsPerDay, microsoftRecipientsPerDay)
	setDefault(&l.RecipientsPerMessage, microsoftRecipientsPerMessage)
	setDefault(&l.MessageBytes, microsoftMessageBytes)
}

// microsoftHost reports whether host takes SMTP for Exchange Online, in the global cloud or a national one.
func microsoftHost(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return slices.ContainsFunc(clouds, func(c Cloud) bool { return c.SMTP == host })
}

// setDefault gives *v the value d if it has none.
func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}
