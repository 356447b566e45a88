package mail

// Cause names why an attempt ended as it did, where class, scope and code do not tell enough for people to act on. It is part
// of the API: a cause keeps its name. The zero value says that nothing more is known.
type Cause string

// The causes. What each means to people stands in package provider.
const (
	// What settings or the provider's administrator have to put right.
	HostNotFound       Cause = "host_not_found"
	TargetForbidden    Cause = "target_forbidden" // the configuration forbids to connect there
	CertificateInvalid Cause = "certificate_invalid"
	TLSRefused         Cause = "tls_refused"       // the two sides do not agree on TLS
	TLSNotSpoken       Cause = "tls_not_spoken"    // the port speaks no TLS from its first byte on
	StartTLSMissing    Cause = "starttls_missing"  // wanted, and not offered
	AuthMissing        Cause = "auth_missing"      // the server offers no login, or none that we speak
	CleartextLogin     Cause = "cleartext_login"   // a login without TLS, which the settings do not allow
	Credentials        Cause = "credentials"       // user name or password are refused
	LoginDisabled      Cause = "login_disabled"    // this way of logging in is switched off for the account or its tenant
	NotAuthenticated   Cause = "not_authenticated" // the server wants a login, or TLS, first
	SendAsDenied       Cause = "send_as_denied"    // the account may not use this sender
	SenderRefused      Cause = "sender_refused"    // the server does not take this sender
	SenderBlocked      Cause = "sender_blocked"    // blocked for what it has sent
	MailboxFull        Cause = "mailbox_full"      // the sending mailbox
	MailboxNotFound    Cause = "mailbox_not_found" // the sender has none, or none that this provider sends for
	// There is no access token (OAuth 2.0), or it does not help.
	ClientRefused     Cause = "client_refused"     // the app with its secret
	SecretExpired     Cause = "secret_expired"     // the app's secret
	AssertionRefused  Cause = "assertion_refused"  // the app's certificate, or its federated token
	FederatedToken    Cause = "federated_token"    // the file of it can't be read, or holds none
	AppNotFound       Cause = "app_not_found"      // in the tenant, or it is disabled there
	TenantNotFound    Cause = "tenant_not_found"   // in this cloud
	ScopeRefused      Cause = "scope_refused"      // what the token is to be for
	PermissionMissing Cause = "permission_missing" // the app may not do this
	TokenRefused      Cause = "token_refused"      // for another reason
	NoTokenEndpoint   Cause = "no_token_endpoint"  // what answers gives out no tokens
	TokenUnavailable  Cause = "token_unavailable"  // for now
	// We are too fast, or were.
	TooManyConnections Cause = "too_many_connections"
	RateExceeded       Cause = "rate_exceeded"
	QuotaExceeded      Cause = "quota_exceeded"        // of the mailbox, for up to a day
	TenantQuota        Cause = "tenant_quota_exceeded" // of the whole tenant, for up to a day
	TenantBlocked      Cause = "tenant_blocked"        // the whole tenant, for what it has sent
	SenderThrottled    Cause = "sender_throttled"      // locked out because of many failing messages
	// One recipient, or one message.
	RecipientThrottled Cause = "recipient_throttled" // others write to the same mailbox, too
	TooManyRecipients  Cause = "too_many_recipients" // at once
	AddressInvalid     Cause = "address_invalid"     // it can't be written in a command
	TooLarge           Cause = "too_large"
	NotASCII           Cause = "not_ascii" // the server takes ASCII only
	// Ours.
	LimitTooSmall Cause = "limit_too_small" // the message takes more of a limit than it allows in all
	Unreadable    Cause = "unreadable"      // our own record or content
	Fault         Cause = "fault"           // of Postroom; its log says more
	Stopped       Cause = "stopped"         // the worker had to stop, and nothing was handed over
	WorkerGone    Cause = "worker_gone"     // the worker died in the attempt
	NotSent       Cause = "not_sent"        // an earlier attempt, of which nobody had known
)
