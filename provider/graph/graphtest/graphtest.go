// Package graphtest simulates a Microsoft 365 tenant, as far as it takes to send mail: Microsoft Entra's token endpoint, the
// part of Microsoft Graph v1.0 that has to do with messages, and the host that large attachments are uploaded to. It keeps
// Microsoft's rules strictly, keeps books of its own about Microsoft's limits, misbehaves on demand, and keeps what was sent.
//
// It shares no code with package graph and was written from Microsoft's documentation alone, so that a misreading on one side
// is noticed by the other. Where the documentation is silent, comments say what was chosen and on what ground.
package graphtest

import (
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/postroom/postroom/provider"
)

// Options describe a tenant. The zero value has one app, DefaultApp, and no mailbox, and keeps Microsoft's limits.
type Options struct {
	// TenantID by default is DefaultTenantID.
	TenantID  string
	Apps      []App
	Mailboxes []Mailbox

	// Limits are those of each mailbox; nil stands for MicrosoftLimits.
	Limits *Limits
	// TenantLimits are those of all mailboxes and apps together; nil stands for none.
	TenantLimits *Limits

	// TLS has all hosts speak TLS, with certificates by a CA of the tenant's own: see Tenant.CAPEM.
	TLS bool
	// Protocols are what the hosts speak; nil stands for HTTP/1.1 and HTTP/2, the latter also without TLS (h2c).
	Protocols *http.Protocols
	// Listen makes the listener of a host, which is "login", "graph" or "outlook"; nil stands for 127.0.0.1 with a free port.
	Listen func(host string) (net.Listener, error)

	// Latency is how long a request takes on average: each takes from nothing to twice as long. At a moment in between, any one,
	// it is counted and has its effect.
	Latency time.Duration
	// Seed makes the choice of these moments repeatable.
	Seed uint64
	// TokenLife is how long a token is valid, and what expires_in says; by default an hour.
	TokenLife time.Duration
	// UploadLife is how long an upload session lasts; by default an hour.
	UploadLife time.Duration
	// SentDelay is how long it takes until the copy of a sent draft is found in Sent Items. Until then it is not found at all,
	// or, with SentAsDraft, still in Drafts as if it had not been sent: Exchange moves it only after transport has it
	// (https://learn.microsoft.com/graph/outlook-things-to-know-about-send-mail, step 4).
	SentDelay   time.Duration
	SentAsDraft bool

	// MaxMessages and MaxBytes bound the messages that are kept, the oldest leave first; by default 1000 and 256 MB.
	MaxMessages int
	MaxBytes    int64
	// MaxRequests bounds the log of requests, the oldest leave first; by default 100,000.
	MaxRequests int

	// Now is the clock; nil stands for time.Now. Latency and delays pass in real time.
	Now func() time.Time
	// Logger gets what goes wrong on connections; nil: nothing is logged.
	Logger *slog.Logger
}

// What a tenant has if nothing else is said.
const (
	DefaultTenantID = "72aa88bf-76f0-494f-91ab-2d7cd730db47"
	DefaultClientID = "535fb089-9ff3-47b6-9bfb-4f1264799865"
	DefaultSecret   = "sample~client.secret_1"
)

// App is an app registration with the application permissions that an administrator has consented to. What proves its identity
// is any one of its secrets, certificates and federated credentials.
type App struct {
	ClientID     string
	Secrets      []ClientSecret
	Certificates []*x509.Certificate
	Federations  []*Federation
	// Permissions are in a token from when it is issued. Nil stands for Mail.Send and Mail.ReadWrite.
	Permissions []string
}

// ClientSecret is one that Entra knows; the zero Expires means never.
type ClientSecret struct {
	Value   string
	Expires time.Time
}

// DefaultApp is what a tenant has if no apps are named.
func DefaultApp() App {
	return App{ClientID: DefaultClientID, Secrets: []ClientSecret{{Value: DefaultSecret}}}
}

// The application permissions that are known here (https://learn.microsoft.com/graph/permissions-reference).
const (
	MailSend      = "Mail.Send"
	MailRead      = "Mail.Read"
	MailReadWrite = "Mail.ReadWrite"
)

// Mailbox is a user's or shared mailbox.
type Mailbox struct {
	Address string
	State   State
	// SendAs are other addresses from which it may send.
	SendAs []string
	// Quota is how many bytes drafts and sent items may take together; 0: any. At most MaxBytes of content is kept all the same.
	Quota int64
	// Limits replace Options.Limits for this mailbox.
	Limits *Limits
}

// State says what is wrong with a mailbox, if anything.
type State string

// The states.
const (
	Available State = ""
	// Unlicensed has no Exchange licence, or lives on premises.
	Unlicensed State = "unlicensed"
	// Full has no room left, whatever its Quota.
	Full State = "full"
	// Blocked may not send any more, for what it has sent.
	Blocked State = "blocked"
	// Denied is outside of what an application access policy allows the tenant's apps.
	Denied State = "denied"
)

// Limits are what a mailbox, or all of a tenant, may do. A limit without a figure allows everything.
type Limits struct {
	// Concurrency is how many requests of an app to a mailbox may be under way at once.
	Concurrency int
	// Requests and Upload count for an app and a mailbox, refused requests too; Upload is bytes of PATCH, POST and PUT.
	Requests, Upload Limit
	// Messages and Recipients count for a mailbox, whatever the app, and only what was accepted.
	Messages, Recipients Limit
	// RecipientsPerMessage are To, Cc and Bcc together.
	RecipientsPerMessage int
	// MessageBytes bounds a message after encoding.
	MessageBytes int64
	// RequestBytes bounds the body of a request, and MIMEBytes that of a message in MIME form if that is less.
	RequestBytes, MIMEBytes int64
}

// Limit allows so many of something in any time as long as Window, both ends included.
type Limit struct {
	Most   int64
	Window time.Duration
}

// MicrosoftLimits are the published ones.
//
// Concurrency, requests and upload: https://learn.microsoft.com/graph/throttling-limits#outlook-service-limits. Messages,
// recipients and sizes: https://learn.microsoft.com/office365/servicedescriptions/exchange-online-service-description/exchange-online-limits;
// whether the 30 messages a minute, published for SMTP, bind Graph is not documented. A request: "The maximum request length
// supported is 4MB." (https://github.com/microsoftgraph/microsoft-graph-docs-contrib/issues/682).
func MicrosoftLimits() Limits {
	return Limits{
		Concurrency:          4,
		Requests:             Limit{10_000, 10 * time.Minute},
		Upload:               Limit{150_000_000, 5 * time.Minute},
		Messages:             Limit{30, time.Minute},
		Recipients:           Limit{10_000, 24 * time.Hour},
		RecipientsPerMessage: 500,
		MessageBytes:         35 * megabyte,
		RequestBytes:         4 * megabyte,
	}
}

// megabyte is Microsoft's of a message or a request; of the two readings of "150 megabytes (MB) upload" the books take the
// stricter one.
const megabyte = 1 << 20

func (o *Options) defaults() {
	setDefault(&o.TenantID, DefaultTenantID)
	if o.Apps == nil {
		o.Apps = []App{DefaultApp()}
	}
	if o.Limits == nil {
		l := MicrosoftLimits()
		o.Limits = &l
	}
	if o.TenantLimits == nil {
		o.TenantLimits = &Limits{}
	}
	if o.Protocols == nil {
		o.Protocols = new(http.Protocols)
		o.Protocols.SetHTTP1(true)
		o.Protocols.SetHTTP2(true)
		o.Protocols.SetUnencryptedHTTP2(true)
	}
	if o.Listen == nil {
		o.Listen = func(string) (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }
	}
	setDefault(&o.TokenLife, time.Hour)
	setDefault(&o.UploadLife, time.Hour)
	setDefault(&o.MaxMessages, 1000)
	setDefault(&o.MaxBytes, 256<<20)
	setDefault(&o.MaxRequests, 100_000)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// setDefault gives *v the value d if it has none.
func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Secret is the app's first secret, as settings take it; empty if it has none.
func (a *App) Secret() provider.Secret {
	if len(a.Secrets) == 0 {
		return ""
	}
	return provider.Secret(a.Secrets[0].Value)
}
