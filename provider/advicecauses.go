package provider

import "github.com/postroom/postroom/mail"

// Ends of remedies.
const (
	resume      = " Then `postroom mailbox resume ADDRESS` goes on at once."
	howToChange = " Settings are changed with `postroom provider set`, or, where postroom.yaml holds them, there and with a restart."
	requeue     = " Then `postroom failed requeue ID` sends the message again."
)

// causes says what each cause means to people.
var causes = map[mail.Cause]meaning{
	mail.HostNotFound: {
		"The mail server's name is not in the DNS.",
		"Correct provider.smtp.host, or have the name put into the DNS that this machine asks." + howToChange,
	},
	mail.TargetForbidden: {
		"Postroom's configuration forbids to connect to where the mail server is.",
		"Correct provider.smtp.host if it is not meant to lead there. If it is, take the address, or its network, out of network.forbidden " +
			"in postroom.yaml, and restart Postroom.",
	},
	mail.CertificateInvalid: {
		"The mail server's certificate has expired, is for another name, or comes from an authority that this machine does not trust.",
		"Have the certificate renewed; or set provider.smtp.host to a name that the certificate is for; or put your " +
			"own authority's certificate into provider.smtp.ca_pem." + howToChange,
	},
	mail.TLSRefused: {
		"Postroom and the mail server found no way to encrypt that both accept.",
		"Have the server offer TLS 1.2 or later. Only if that can't be done, lower provider.smtp.min_tls: older " +
			"versions can be broken open." + howToChange,
	},
	mail.TLSNotSpoken: {
		"The mail server does not encrypt from the start on this port.",
		"Set provider.smtp.security to starttls (mostly with port 587), or provider.smtp.port to a port with TLS " +
			"(mostly 465)." + howToChange,
	},
	mail.StartTLSMissing: {
		"The mail server does not offer to encrypt the connection (STARTTLS), and Postroom sends nothing without.",
		"Set provider.smtp.port to the server's port for submission, mostly 587; or provider.smtp.security to tls " +
			"for port 465. If the server used to offer it, see who could be changing the connection on its way." + howToChange,
	},
	mail.AuthMissing: {
		"The mail server offers no login on this port, or none that suits the settings.",
		"Check provider.smtp.port and provider.smtp.security: logins are mostly offered on port 587 with starttls and " +
			"on 465 with tls. If the server takes mail without a login, set provider.smtp.auth.method to none." + howToChange,
	},
	mail.CleartextLogin: {
		"The connection is not encrypted, and the settings do not allow a login over it.",
		"Set provider.smtp.security to starttls or tls. Set provider.smtp.auth.allow_cleartext only if nobody can " +
			"read the traffic." + howToChange,
	},
	mail.Credentials: {
		"The provider refused the user name or the password.",
		"Check provider.smtp.auth.username and provider.smtp.auth.password, and that the account is neither locked nor expired. Google " +
			"wants an app password, Amazon SES its SMTP credentials; with Microsoft 365 also check in the Microsoft 365 admin center, " +
			"Users, Active users, Mail, Manage email apps that the account may use Authenticated SMTP." + howToChange,
	},
	mail.LoginDisabled: {
		"The account exists, but this way of logging in is switched off for it or for its organisation.",
		"Microsoft 365: switch Authenticated SMTP on in the Microsoft 365 admin center (Users, Active users, the account, Mail, Manage " +
			"email apps); it must not be off in the Exchange admin center (Settings, Mail flow), nor by security defaults or an " +
			"authentication policy in Microsoft Entra. If the provider takes no passwords at all any more, use OAuth 2.0. " +
			"Google: put an app password into provider.smtp.auth.password." + resume,
	},
	mail.NotAuthenticated: {
		"The mail server wants a login, or an encrypted connection, before it takes mail.",
		"Set provider.smtp.auth to method basic with user name and password, and provider.smtp.security to starttls or " +
			"tls. If the server is to take mail without a login, its administrator has to allow this machine's address." + howToChange,
	},
	mail.SendAsDenied: {
		"The account that Postroom logs in with may not send with this sender's address.",
		"Send with the account's own address (provider.sender.address, or from in the application). Or allow it: " +
			"with Microsoft 365 in the Exchange admin center, Recipients, Mailboxes, the sender's mailbox, Delegation, Send as, which " +
			"can take over an hour to work; elsewhere the server's administrator does it." + resume,
	},
	mail.SenderRefused: {
		"The mail server does not take mail from this sender's address.",
		"Correct the sender (provider.sender.address, or from in the application). Or have the server's " +
			"administrator allow it; with Amazon SES and others a sender has to be verified first." + resume,
	},
	mail.SenderBlocked: {
		"The provider has blocked this sender, mostly because what it sent looked like spam.",
		"Find out what was sent with the account, and change its password if it was not you. Then have it unblocked: with Microsoft 365 " +
			"in the Microsoft Defender portal, Email & collaboration, Review, Restricted entities." + resume,
	},
	mail.MailboxFull: {
		"The sending mailbox is full, and as long as it is it can't send.",
		"Delete mail in it, above all in Sent Items and Deleted Items, or give it more room." + resume,
	},
	mail.MailboxNotFound: {
		"The provider knows no mailbox of this sender's address, or none that can send.",
		"Correct the sender (provider.sender.address, or from in the application); or give it a mailbox: with " +
			"Microsoft 365 one in Exchange Online with a licence." + resume,
	},
	mail.TooManyConnections: {
		"The provider saw more connections or messages at once from this mailbox than it allows.",
		"If this happens often, lower provider.limits.concurrency, and see what else sends with the same account.",
	},
	mail.RateExceeded: {
		"Messages went out faster than the provider allows.",
		"If this happens often, lower provider.limits.messages_per_minute, and see what else sends with the same account.",
	},
	mail.QuotaExceeded: {
		"The mailbox has sent as much as the provider allows in a day.",
		"It may send again within 24 hours. If this happens often, set provider.limits.recipients_per_day to what the " +
			"provider allows, ask it for more, and see what else sends with the same account.",
	},
	mail.TenantQuota: {
		"Your organisation as a whole has sent as much as the provider allows in a day.",
		"It may send again within 24 hours. Microsoft shows the figures in the Exchange admin center, Reports, Mail flow, Tenant Outbound " +
			"External Recipients; set provider.tenant_limits.recipients_per_day below them. With a sender of an " +
			"onmicrosoft.com domain only a few outside recipients a day are allowed: use your own domain.",
	},
	mail.TenantBlocked: {
		"The provider has blocked mail of your whole organisation, mostly because too much of it looked like spam.",
		"Find out which account or server sent it and put that right, then ask the provider's support (Microsoft's, for Microsoft 365) to " +
			"lift the block.",
	},
	mail.SenderThrottled: {
		"The provider has locked the mailbox out for a time, because too many of its messages failed for the same reason.",
		"Put that reason right first. Microsoft 365 tells it by the status code: 5.2.251 the sending mailbox is full, 5.2.252 the account " +
			"may not use the sender, 5.2.253 its licence is not valid, 5.2.254 too many recipients, 5.2.255 recipients that are " +
			"not valid. Do not resume the mailbox early: that can make it longer.",
	},
	mail.RecipientThrottled: {
		"The recipient's mailbox is getting more mail at the moment than it can take.",
		"",
	},
	mail.TooManyRecipients: {
		"The mail server, or provider.limits.recipients_per_message, takes no more recipients of one message at once.",
		"",
	},
	mail.AddressInvalid: {
		"An address is not one that a mail server can be told.",
		"Correct the address where it is kept, and hand the message in again.",
	},
	mail.TooLarge: {
		"The message is larger than the mail server takes.",
		"Hand it in again with smaller attachments, or with a link instead. Or have the server's limit raised." + requeue,
	},
	mail.NotASCII: {
		"The message, or an address of it, has letters beyond plain ASCII, and the mail server takes none.",
		"Use an address in plain ASCII, and hand the message in again. Or send through a mail server that takes such letters (8BITMIME " +
			"and SMTPUTF8)." + requeue,
	},
	mail.LimitTooSmall: {
		"The message takes more of one of the limits than that limit allows in all, so that it could never go. The reply names the limit.",
		"Raise the limit, under provider.limits or provider.tenant_limits, if the provider allows that; or hand the message in again in smaller " +
			"parts: with message_bytes, with smaller attachments or a link instead." + howToChange + requeue,
	},
	mail.Unreadable: {
		"Postroom could not read its own record of the message, or its content.",
		"Look for the message's id in the log of the worker, which says what is wrong, and hand the message in again.",
	},
	mail.Fault: {
		"A fault in Postroom stopped the attempt.",
		"Look for the message's id in the log of the worker, and report what stands there to whoever maintains Postroom.",
	},
	mail.Stopped: {
		"The worker had to stop before it handed anything over.",
		"",
	},
	mail.NotSent: {
		"An earlier attempt, whose outcome was unknown, turned out not to have sent the message.",
		"",
	},
	mail.WorkerGone: {
		"The worker ended in the middle of the attempt.",
		"See why the process ended: its log, or the machine's memory. If the message is in the failed store and did not arrive, " +
			"`postroom failed requeue ID` sends it again.",
	},
	mail.ClientRefused: {
		"The login service does not accept the app's id together with its secret.",
		"Check client_id and client_secret under provider.microsoft365 or provider.smtp.auth.oauth2. Microsoft Entra " +
			"shows two columns for a secret: its value is wanted, not its id." + howToChange,
	},
	mail.SecretExpired: {
		"The app's client secret has expired.",
		"In the Microsoft Entra admin center (App registrations, the app, Certificates & secrets) make a new secret, and put its value " +
			"into provider.microsoft365.client_secret or provider.smtp.auth.oauth2.client_secret." + howToChange,
	},
	mail.AssertionRefused: {
		"The login service does not accept the app's certificate, or its federated token.",
		"With a certificate: see in the Microsoft Entra admin center (App registrations, the app, Certificates & secrets) that the one in " +
			"provider.microsoft365.certificate_pem is there and has not expired. With a federated token: its issuer, subject and audience " +
			"have to be those of the app's federated credential. In both cases this machine's clock has to be right." + resume,
	},
	mail.FederatedToken: {
		"The file with the federated token can't be read, or holds no token.",
		"Check provider.microsoft365.federated_token_file, that Postroom may read the file, and that whatever writes it " +
			"is running." + resume,
	},
	mail.AppNotFound: {
		"The login service does not know the app in this tenant, or the app is disabled there.",
		"Check tenant_id and client_id under provider.microsoft365 or provider.smtp.auth.oauth2. In the Microsoft Entra " +
			"admin center the app has to be among the enterprise applications, and enabled for sign-in." + resume,
	},
	mail.TenantNotFound: {
		"The login service knows no such tenant.",
		"Check tenant_id under provider.microsoft365 or provider.smtp.auth.oauth2, and provider.microsoft365.cloud: " +
			"tenants of a national cloud are found in that cloud alone." + howToChange,
	},
	mail.ScopeRefused: {
		"The login service gives out no tokens for what Postroom asked for.",
		"Check provider.smtp.auth.oauth2.scopes or provider.microsoft365.cloud. With Microsoft Entra also see that the app " +
			"has a permission of Microsoft Graph, or for SMTP one of Office 365 Exchange Online." + howToChange,
	},
	mail.PermissionMissing: {
		"The mail server does not accept the app's access token for this user name.",
		"Check provider.smtp.auth.username, which is the mailbox to send from, and provider.smtp.auth.oauth2. With Microsoft 365 the app has " +
			"to be registered in Exchange Online (New-ServicePrincipal) and to have FullAccess to the mailbox (Add-MailboxPermission), and " +
			"needs SMTP.SendAsApp of Office 365 Exchange Online with admin consent." + howToChange,
	},
	mail.TokenRefused: {
		"The login service refuses to give out a token.",
		"The provider's own words say why. Check provider.microsoft365 or provider.smtp.auth.oauth2 against what the " +
			"login service says about the app." + howToChange,
	},
	mail.NoTokenEndpoint: {
		"What answers at the login service's address gives out no tokens.",
		"Check provider.smtp.auth.oauth2.token_url, or provider.microsoft365.login_url, and whether a proxy answers in " +
			"place of the login service." + howToChange,
	},
	mail.TokenUnavailable: {
		"The login service gives out no token at the moment, or can't be reached.",
		"If it lasts, see that this machine can reach the login service (login.microsoftonline.com for Microsoft 365), directly or through " +
			"the proxy of its environment, and whether the provider reports an outage.",
	},
}

// webCauses says what some causes mean where it is Microsoft Graph, or the login service, that is spoken to.
var webCauses = map[mail.Cause]meaning{
	mail.HostNotFound: {
		"The name of Microsoft Graph, or of the login service, is not in the DNS.",
		"Check provider.microsoft365.cloud, graph_url and login_url there, and provider.smtp.auth.oauth2.token_url; and the " +
			"DNS that this machine asks." + howToChange,
	},
	mail.TargetForbidden: {
		"Postroom's configuration forbids to connect to where Microsoft Graph, or the login service, is.",
		"Correct graph_url, login_url or token_url, or the proxy of the environment (HTTPS_PROXY), if it is not meant to lead there. If it " +
			"is, take the address, or its network, out of network.forbidden in postroom.yaml, and restart Postroom.",
	},
	mail.CertificateInvalid: {
		"The certificate of Microsoft Graph, or of the login service, is not one that this machine trusts.",
		"If a proxy looks into encrypted traffic here, have this machine trust the proxy's authority; else find out who answers in its place.",
	},
	mail.TLSRefused: {
		"Postroom and Microsoft Graph, or the login service, found no way to encrypt that both accept.",
		"See what stands between this machine and the internet: Postroom wants TLS 1.2 or later.",
	},
	mail.TLSNotSpoken: {
		"What answers for Microsoft Graph, or for the login service, does not encrypt.",
		"Check graph_url, login_url and token_url, and the proxy of the environment (HTTPS_PROXY)." + howToChange,
	},
	mail.PermissionMissing: {
		"The app lacks a permission, or is kept from using it by a policy of its organisation.",
		"In the Microsoft Entra admin center (App registrations, the app, API permissions) give it application permissions, and grant admin " +
			"consent: of Microsoft Graph \"Send mail as any user\", and \"Read and write mail in all mailboxes\" for attachments of over 3 MB " +
			"and for verify_sends; for SMTP SMTP.SendAsApp of Office 365 Exchange Online. It can take over an hour to work. See also that no " +
			"application access policy of Exchange and no conditional access keeps the app out." + resume,
	},
	mail.Credentials: {
		"Microsoft Graph does not accept the access token that the login service gave out.",
		"See that provider.microsoft365.cloud, login_url and graph_url there belong together." + howToChange,
	},
}
