package provider

import (
	"cmp"
	"slices"
	"strings"
)

// Cloud is one of Microsoft's clouds. A national cloud is apart from all others: its tenants, apps and tokens are good nowhere
// else. Addresses are given as https://host.
type Cloud struct {
	// Name is what Microsoft365Settings.Cloud calls it.
	Name string
	// Login gives out tokens.
	Login string
	// Graph is Microsoft Graph, and what tokens for it are for.
	Graph string
	// Exchange is what tokens for SMTP are for.
	Exchange string
	// SMTP is the host that takes mail by SMTP AUTH.
	SMTP string
}

// clouds has Microsoft's "National clouds and Microsoft Graph" and "Authenticate an IMAP, POP or SMTP connection using OAuth".
// The global cloud comes first: it is meant where none is named.
var clouds = []Cloud{
	{"global", "https://login.microsoftonline.com", "https://graph.microsoft.com", "https://outlook.office365.com", "smtp.office365.com"},
	{"gcc", "https://login.microsoftonline.com", "https://graph.microsoft.com", "https://outlook.office365.com", "smtp.office365.com"},
	{"gcch", "https://login.microsoftonline.us", "https://graph.microsoft.us", "https://outlook.office365.us", "smtp.office365.us"},
	{"dod", "https://login.microsoftonline.us", "https://dod-graph.microsoft.us", "https://outlook-dod.office365.us", "outlook-dod.office365.us"},
	{"china", "https://login.partner.microsoftonline.cn", "https://microsoftgraph.chinacloudapi.cn", "https://partner.outlook.cn",
		"smtp.partner.outlook.cn"},
}

// CloudNamed finds a cloud by its name; no name is the global one's.
func CloudNamed(name string) (Cloud, bool) {
	i := slices.IndexFunc(clouds, func(c Cloud) bool { return c.Name == cmp.Or(name, clouds[0].Name) })
	if i < 0 {
		return Cloud{}, false
	}
	return clouds[i], true
}

// CloudOfSMTP finds the cloud that a mail server belongs to; what is none of Microsoft's servers, a relay for one, is taken for
// the global one's.
func CloudOfSMTP(host string) Cloud {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	i := slices.IndexFunc(clouds, func(c Cloud) bool { return host == c.SMTP || "https://"+host == c.Exchange })
	return clouds[max(i, 0)]
}

// Login is where tokens come from: LoginURL, or else the cloud's. It ends without a slash.
func (s *Microsoft365Settings) Login() string {
	cloud, _ := CloudNamed(s.Cloud)
	return strings.TrimSuffix(cmp.Or(s.LoginURL, cloud.Login), "/")
}

// Graph is where Microsoft Graph is, and what tokens for it are for: GraphURL, or else the cloud's. It ends without a slash.
func (s *Microsoft365Settings) Graph() string {
	cloud, _ := CloudNamed(s.Cloud)
	return strings.TrimSuffix(cmp.Or(s.GraphURL, cloud.Graph), "/")
}
