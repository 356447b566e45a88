package provider

import "testing"

func TestAddressesOfClouds(t *testing.T) {
	for name, want := range map[string][2]string{
		"":       {"https://login.microsoftonline.com", "https://graph.microsoft.com"},
		"global": {"https://login.microsoftonline.com", "https://graph.microsoft.com"},
		"gcc":    {"https://login.microsoftonline.com", "https://graph.microsoft.com"},
		"gcch":   {"https://login.microsoftonline.us", "https://graph.microsoft.us"},
		"dod":    {"https://login.microsoftonline.us", "https://dod-graph.microsoft.us"},
		"china":  {"https://login.partner.microsoftonline.cn", "https://microsoftgraph.chinacloudapi.cn"},
	} {
		s := &Microsoft365Settings{Cloud: name}
		if s.Login() != want[0] || s.Graph() != want[1] {
			t.Errorf("%q: %s, %s", name, s.Login(), s.Graph())
		}
		s.LoginURL, s.GraphURL = "https://login.example/", "http://127.0.0.1:8080"
		if s.Login() != "https://login.example" || s.Graph() != "http://127.0.0.1:8080" {
			t.Errorf("replaced: %s, %s", s.Login(), s.Graph())
		}
	}
	if _, ok := CloudNamed("Global"); ok {
		t.Error("there is no cloud of that name")
	}
}

func TestCloudOfSMTPServers(t *testing.T) {
	for host, want := range map[string]string{
		"smtp.office365.com": "global", "SMTP.Office365.US.": "gcch", "outlook-dod.office365.us": "dod", "smtp.partner.outlook.cn": "china",
		"partner.outlook.cn": "china", "relay.example.com": "global", "": "global",
	} {
		if got := CloudOfSMTP(host).Name; got != want {
			t.Errorf("%q: %s, want %s", host, got, want)
		}
	}
}

// Limits are those of Microsoft for all its servers.
func TestEveryCloudsServerIsMicrosofts(t *testing.T) {
	for _, c := range clouds {
		if c.Name != "dod" && !microsoftHost(c.SMTP) {
			t.Errorf("%s is not", c.SMTP)
		}
	}
}
