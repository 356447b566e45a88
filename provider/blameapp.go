package provider

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"github.com/postroom/postroom/mail"
)

// app is what the two kinds of client credentials have in common for Blame.
type app struct {
	at        string // what the names of fields follow
	microsoft bool   // it is in Microsoft Entra
	login     string // the field of the login service's address; empty if the settings do not name it
	proof     string // the field of what proves who we are
	scope     string // the field that says what tokens are for
	cloud     string // the setting that says which of Microsoft's clouds it is, as remedies name it
	secret    Secret
	// permission is what the app needs in Microsoft Entra.
	permission string
}

func (o *OAuth2) app() app {
	a := app{at: "/smtp/auth/oauth2/", microsoft: o.Provider == OAuthMicrosoft, login: "token_url", proof: "client_secret", scope: "scopes", cloud: "host",
		secret: o.ClientSecret, permission: "SMTP.SendAsApp of Office 365 Exchange Online"}
	if a.microsoft {
		a.login, a.scope = "", "client_id"
	}
	return a
}

func (s *Microsoft365Settings) app() app {
	a := app{at: "/microsoft365/", microsoft: true, proof: "client_secret", scope: "cloud", cloud: "cloud", secret: s.ClientSecret,
		permission: "Mail.Send of Microsoft Graph, and Mail.ReadWrite for verify_sends and for attachments of over 3 MB"}
	if s.LoginURL != "" {
		a.login = "login_url"
	}
	if s.GraphURL != "" {
		a.scope = "graph_url"
	}
	switch {
	case s.FederatedTokenFile != "":
		a.proof = "federated_token_file"
	case s.CertificatePEM != "":
		a.proof = "certificate_pem"
	}
	return a
}

// otherCloud are Microsoft Entra's codes that a tenant is in another cloud, as its answers begin: the cause is that of any tenant that is
// not found.
var otherCloud = []string{"AADSTS90038:", "AADSTS900382:", "AADSTS900432:"}

// blame judges why there is no token, or why it does not help.
func (a app) blame(o mail.Outcome) Blame {
	switch o.Cause {
	case mail.ClientRefused:
		return Blame{a.at + a.proof, a.refused()}
	case mail.SecretExpired:
		return Blame{a.at + a.proof, a.within("Make a new secret under Certificates & secrets, and put its value into client_secret.",
			"Make a new secret at the provider, and put it into client_secret.")}
	case mail.AssertionRefused:
		remedy := ""
		switch a.proof {
		case "certificate_pem":
			remedy = a.within("See under Certificates & secrets that the certificate in certificate_pem is there and has not expired. This "+
				"machine's clock has to be right.", "")
		case "federated_token_file":
			remedy = a.within("See under Certificates & secrets, Federated credentials, that issuer, subject and audience are those of the token "+
				"in the file, and that whatever writes the file keeps it new. This machine's clock has to be right.", "")
		}
		return Blame{a.at + a.proof, remedy}
	case mail.FederatedToken:
		return Blame{a.at + a.proof, "See that federated_token_file names a file that Postroom may read on every machine, and that whatever " +
			"writes it is running."}
	case mail.AppNotFound:
		return Blame{a.at + "client_id", a.within("Copy the application (client) id to client_id and the directory (tenant) id to tenant_id, and see "+
			"that the app is among the enterprise applications of that tenant and enabled for sign-in.", "Check client_id against what the "+
			"provider shows for the app.")}
	case mail.TenantNotFound:
		if a.cloud == "cloud" && slices.ContainsFunc(otherCloud, func(code string) bool { return strings.HasPrefix(o.Reply, code) }) {
			return Blame{a.at + a.cloud, "Set cloud to the one that the tenant is in: it is known in that cloud alone."}
		}
		return Blame{a.at + cmp.Or(a.tenant(), a.login), a.within("Copy the directory (tenant) id to tenant_id, and see that "+a.cloud+" is that of "+
			"the tenant, which is known in its own cloud alone.", "Check the tenant in token_url.")}
	case mail.ScopeRefused:
		return Blame{a.at + a.scope, a.within("See under API permissions that the app has "+a.permission+", with admin consent, and that tenant and "+
			"cloud belong together.", "Write scopes as the provider names them for sending mail by SMTP.")}
	case mail.PermissionMissing:
		return Blame{a.at + "client_id", a.within("Give it, under API permissions, the application permission "+a.permission+", and grant admin "+
			"consent: delegated permissions will not do. It can take over an hour to work. An application access policy of Exchange, or "+
			"conditional access, can keep the app out, too.", "Have the app allowed to get tokens by client credentials, and to send mail.")}
	case mail.TokenRefused:
		return Blame{Field: a.at + a.proof}
	case mail.TargetForbidden:
		if a.login != "" {
			return Blame{a.at + a.login, forbiddenThere(a.login)}
		}
	case mail.HostNotFound, mail.CertificateInvalid, mail.TLSRefused, mail.TLSNotSpoken, mail.NoTokenEndpoint, mail.TokenUnavailable:
		if a.login != "" {
			return Blame{a.at + a.login, a.lost(o)}
		}
	}
	return Blame{}
}

// lost is what to do when a login service whose address the settings name is not found there.
func (a app) lost(o mail.Outcome) string {
	switch {
	case o.Cause == mail.HostNotFound:
		return "Correct " + a.login + ", or have its host's name put into the DNS that this machine asks."
	case o.Cause == mail.NoTokenEndpoint:
		return "Correct " + a.login + ": it has to lead to where the provider gives out tokens. Or see whether a proxy answers in its place."
	case o.Cause == mail.TokenUnavailable && o.Code == 0:
		return "See that " + a.login + " is right, and that this machine can reach what it names, directly or through the proxy of its environment."
	}
	return ""
}

// tenant is the field of the tenant; empty where there is none.
func (a app) tenant() string {
	if a.microsoft {
		return "tenant_id"
	}
	return ""
}

// within gives the words for Microsoft Entra, with where to find the app there, or those for any other provider.
func (a app) within(entra, other string) string {
	if a.microsoft {
		return "In the Microsoft Entra admin center open App registrations and the app. " + entra
	}
	return other
}

// refused is what to do when the app's id does not go together with its proof.
func (a app) refused() string {
	switch {
	case a.microsoft && guid.MatchString(a.secret.Reveal()):
		return "What client_secret holds looks like the id of a secret. Put the secret's value there; Microsoft Entra shows it only when " +
			"the secret is made, so make a new one."
	case a.proof == "client_secret":
		return a.within("See that client_id is the application (client) id, and that client_secret is the value of a secret of this app, not its "+
			"id; the value is shown only when the secret is made.", "Check client_id and client_secret against what the provider shows for the app.")
	}
	return ""
}

// blameMicrosoft365 judges what Microsoft Graph or Microsoft Entra did.
func (s *Settings) blameMicrosoft365(o mail.Outcome) Blame {
	m := &s.Microsoft365
	a := m.app()
	if o.Step == StepToken {
		return a.blame(o)
	}
	graph := ""
	if m.GraphURL != "" {
		graph = "/microsoft365/graph_url"
	}
	switch o.Cause {
	case mail.TargetForbidden:
		if graph != "" {
			return Blame{graph, forbiddenThere("graph_url")}
		}
	case mail.HostNotFound, mail.CertificateInvalid, mail.TLSRefused, mail.TLSNotSpoken:
		return Blame{Field: graph}
	case "":
		if o.Class == mail.Configuration {
			return Blame{Field: graph}
		}
	case mail.Credentials:
		return Blame{cmp.Or(graph, "/microsoft365/cloud"), "See that cloud, login_url and graph_url belong together: Microsoft Graph does not " +
			"accept what the login service gives out."}
	case mail.SendAsDenied:
		return Blame{"/sender/address", "Use as sender the mailbox's own address, not another one of its names; or have the app allowed to send " +
			"from this mailbox, if an application access policy of Exchange keeps it to others."}
	case mail.MailboxNotFound:
		return Blame{"/sender/address", "Give the user principal name of a mailbox with a licence in Exchange Online, in the tenant of " +
			"tenant_id: an alias or a group has no mailbox of its own. The same is true of from in the application."}
	case mail.PermissionMissing:
		if m.VerifySends && slices.Contains(draftSteps, o.Step) {
			return Blame{"/microsoft365/verify_sends", a.within("Give it, under API permissions, the application permission Mail.ReadWrite of "+
				"Microsoft Graph beside Mail.Send, and grant admin consent; or switch verify_sends off.", "")}
		}
		if o.Step == "send" && o.Code == http.StatusForbidden {
			return Blame{"/microsoft365/client_id", "If the app may send from other mailboxes, Exchange keeps it from this one: have the mailbox added " +
				"to what its application access policy, or RBAC for Applications, lets the app use. Else give the app, in the Microsoft Entra admin " +
				"center, the application permission Mail.Send of Microsoft Graph with admin consent. Either can take over an hour to work."}
		}
		return a.blame(o)
	}
	return Blame{}
}

// draftSteps are those that need Mail.ReadWrite.
var draftSteps = []string{"draft", "attachment", "upload", "verify"}
