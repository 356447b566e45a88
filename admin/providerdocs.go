package admin

import (
	"github.com/danielgtaylor/huma/v2"

	"github.com/postroom/postroom/provider"
)

// settingsShapes are those of package provider. All of their fields may be left out.
var settingsShapes = []string{"Settings", "SMTPSettings", "SMTPAuth", "OAuth2", "Microsoft365Settings", "Limits", "TenantLimits"}

// documentSettings completes the shapes of package provider.
func documentSettings(all map[string]*huma.Schema) {
	for _, name := range settingsShapes {
		all[name].Required = nil
	}
	choices := func(name, field string, values ...any) { all[name].Properties[field].Enum = values }
	choices("Settings", "kind", string(provider.KindNone), string(provider.KindSMTP), string(provider.KindMicrosoft365))
	choices("SMTPSettings", "security", string(provider.SecurityStartTLS), string(provider.SecurityTLS), string(provider.SecurityNone))
	choices("SMTPSettings", "min_tls", "1.0", "1.1", "1.2", "1.3")
	choices("SMTPAuth", "method", string(provider.AuthNone), string(provider.AuthBasic), string(provider.AuthOAuth2))
	choices("Microsoft365Settings", "cloud", "global", "gcc", "gcch", "dod", "china")
	for name, field := range map[string]string{"SMTPAuth": "password", "OAuth2": "client_secret", "Microsoft365Settings": "client_secret"} {
		all[name].Properties[field].WriteOnly = true
	}
	all["Microsoft365Settings"].Properties["private_key_pem"].WriteOnly = true
	for field, s := range all["Limits"].Properties {
		s.Description = settingsDescriptions["Limits."+field] + " 0 or left out: the default, which is Microsoft's figure for Microsoft 365 and its SMTP servers; -1: no limit."
	}
}

const neverShown = " Never shown; left out, the one that is set is kept if it goes to the same server as before."

// settingsDescriptions are of the fields that package provider declares.
var settingsDescriptions = map[string]string{
	"Settings.kind":            "What mail goes by. With none it is accepted and waits. Only the part of the kind chosen counts.",
	"Settings.sender":          "The sender of mail that names none. The address is also understood as Name <address>.",
	"Settings.smtp":            "A mail server.",
	"Settings.microsoft365":    "Microsoft 365, by Microsoft Graph.",
	"Settings.limits":          "What one mailbox may do; with smtp the account.",
	"Settings.tenant_limits":   "What all mailboxes together may do.",
	"Settings.allowed_senders": "Who may be the sender of what is accepted, beside the provider's own: addresses, or @ and a domain. Left out: everybody.",

	"SMTPSettings.host":     "The name of the mail server, or its IP address. With TLS its certificate has to be valid for it.",
	"SMTPSettings.port":     "Left out: 587 with starttls, 465 with tls, 25 with none.",
	"SMTPSettings.security": "starttls (never falls back to clear text), tls (from the first byte on) or none. Left out: starttls.",
	"SMTPSettings.min_tls":  "The lowest TLS version. Left out: 1.2.",
	"SMTPSettings.ca_pem":   "Certificates in PEM that are trusted instead of the system's.",
	"SMTPSettings.auth":     "How to log in.",

	"SMTPAuth.method":          "none, basic (PLAIN or LOGIN, whichever the server offers) or oauth2 (XOAUTH2 or OAUTHBEARER). Left out: basic if there is a user name or a password, else none.",
	"SMTPAuth.username":        "Left out: the sender's address.",
	"SMTPAuth.password":        "For basic." + neverShown,
	"SMTPAuth.allow_cleartext": "Permits a login without TLS: whoever sees the traffic has the password then.",
	"SMTPAuth.oauth2":          "Client credentials, for oauth2.",

	"OAuth2.provider":      "microsoft (with tenant_id), or any other (with token_url).",
	"OAuth2.tenant_id":     "The tenant's id or domain.",
	"OAuth2.client_id":     "The app's id.",
	"OAuth2.client_secret": "The app's secret." + neverShown,
	"OAuth2.token_url":     "Where tokens are given out.",
	"OAuth2.scopes":        "What the token is to be for.",

	"Microsoft365Settings.tenant_id":            "The tenant's id or domain.",
	"Microsoft365Settings.client_id":            "The app's id.",
	"Microsoft365Settings.client_secret":        "The app's secret; or give a certificate, or a federated token." + neverShown,
	"Microsoft365Settings.certificate_pem":      "The app's certificate in PEM.",
	"Microsoft365Settings.private_key_pem":      "The key of the certificate in PEM, without a password." + neverShown,
	"Microsoft365Settings.federated_token_file": "A file with a token of another identity provider, on every worker.",
	"Microsoft365Settings.cloud":                "global, or a national cloud. Left out: global.",
	"Microsoft365Settings.login_url":            "Replaces the cloud's login service; without a path.",
	"Microsoft365Settings.graph_url":            "Replaces the cloud's Microsoft Graph; without a path.",
	"Microsoft365Settings.save_to_sent_items":   "Whether the mailbox keeps what it has sent. A mailbox that is full sends no more.",
	"Microsoft365Settings.verify_sends":         "Send by drafts, so that a send whose answer was lost is looked up before it is repeated: three requests for each mail, and the permission Mail.ReadWrite.",

	"Limits.concurrency":            "Messages under way at once.",
	"Limits.messages_per_minute":    "Messages in any minute.",
	"Limits.requests_per_10m":       "Requests in any 10 minutes.",
	"Limits.recipients_per_day":     "Recipients in any 24 hours.",
	"Limits.upload_bytes_per_5m":    "Bytes uploaded in any 5 minutes.",
	"Limits.recipients_per_message": "Recipients of one message; more go in several attempts.",
	"Limits.message_bytes":          "The size of one message, encoded: files grow by a third. A larger one is refused when it is handed in.",

	"TenantLimits.concurrency":         "Messages under way at once. 0 or left out: no limit.",
	"TenantLimits.messages_per_minute": "Messages in any minute. 0 or left out: no limit.",
	"TenantLimits.requests_per_10m":    "Requests in any 10 minutes. 0 or left out: no limit.",
	"TenantLimits.recipients_per_day":  "Recipients in any 24 hours. 0 or left out: no limit.",
	"TenantLimits.upload_bytes_per_5m": "Bytes uploaded in any 5 minutes. 0 or left out: no limit.",
}
