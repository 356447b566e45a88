package provider

import (
	"bytes"
	"cmp"
	"encoding/pem"
	"reflect"
	"slices"

	"github.com/postroom/postroom/mail"
)

// Used gives a copy with only the parts that the kind has a use for. This is what is kept: the credentials of a provider that is no
// longer active go with its part.
func (s *Settings) Used() Settings {
	u := Settings{Kind: s.Kind, AllowedSenders: slices.Clone(s.AllowedSenders)}
	switch s.Kind {
	case KindSMTP:
		u.SMTP = s.SMTP
		u.SMTP.Auth.OAuth2.Scopes = slices.Clone(u.SMTP.Auth.OAuth2.Scopes)
	case KindMicrosoft365:
		u.Microsoft365 = s.Microsoft365
	default:
		return u
	}
	u.Sender, u.Limits, u.TenantLimits = s.Sender, s.Limits, s.TenantLimits
	return u
}

// Public gives what may be shown to everybody: Used without any secret, not even the sign that there is one. See Secrets.
func (s *Settings) Public() Settings {
	p := s.Used()
	for _, secret := range secrets(&p) {
		*secret = ""
	}
	return p
}

// Secrets gives JSON pointers to the secrets that are set, such as "/smtp/auth/password", in the part that the kind uses.
func (s *Settings) Secrets() []string {
	var set []string
	u := s.Used()
	for at, secret := range secrets(&u) {
		if *secret != "" {
			set = append(set, at)
		}
	}
	return set
}

// Same reports whether nothing that the kind uses differs but limits and allowed senders: a Sender that was made of one will do for
// the other.
func (s *Settings) Same(o *Settings) bool {
	a, b := s.Used(), o.Used()
	for _, x := range []*Settings{&a, &b} {
		x.Defaults()
		x.withoutBounds()
	}
	return reflect.DeepEqual(a, b)
}

// withoutBounds takes out what can change without anything else.
func (s *Settings) withoutBounds() {
	s.Limits, s.TenantLimits, s.AllowedSenders = Limits{}, TenantLimits{}, nil
}

// Check is what comes before activating s, which somebody sent, in place of before (nil if there is none): TakeOver and Validate
// together, every fault at once and one for each field. Both went through Defaults. If it finds nothing, s is complete.
func Check(s, before *Settings) []mail.Problem {
	var told []mail.Problem
	for _, p := range append(s.TakeOver(before), s.Validate()...) {
		if !slices.ContainsFunc(told, func(q mail.Problem) bool { return q.Field == p.Field }) {
			told = append(told, p)
		}
	}
	return told
}

// TakeOver completes s, which somebody sent who can't know the secrets, by those of before, the active settings; nil stands for
// none. Both went through Defaults. A secret that was left out, or is Redacted, is taken over if it is the same credential and goes
// nowhere it did not go before: else whoever may change the host, but was never told the password, could have it sent to a server
// of their own. Each that is there and was not taken over is a problem. A secret that before does not have is left for Validate.
func (s *Settings) TakeOver(before *Settings) []mail.Problem {
	var f faults
	switch {
	case before == nil || before.Kind != s.Kind:
	case s.Kind == KindSMTP:
		f.takeSMTP(s, before)
	case s.Kind == KindMicrosoft365:
		f.takeMicrosoft365(&s.Microsoft365, &before.Microsoft365)
	}
	return f
}

// take takes one secret over, unless why says what is against that.
func (f *faults) take(field string, s *Secret, before Secret, why string) {
	switch {
	case !leftOut(*s) || before == "":
	case why != "":
		f.add(field, "must be given again, as %s", why)
	default:
		*s = before
	}
}

func leftOut(s Secret) bool { return s == "" || s == Redacted }

// Why a secret stays where it is.
const (
	otherServer  = " has changed: a stored one is never sent to another server"
	otherAccount = " has changed: a stored one belongs to one account alone"
	otherApp     = " has changed: a stored one belongs to one app alone"
)

func (f *faults) takeSMTP(s, before *Settings) {
	now, then := &s.SMTP, &before.SMTP
	if now.Auth.Method != then.Auth.Method {
		return
	}
	why := changed(
		obstacle{"host" + otherServer, now.Host != then.Host},
		obstacle{"port" + otherServer, now.Port != then.Port},
		obstacle{"ca_pem has changed: a stored one is never sent to a server that others vouch for", now.CAPEM != then.CAPEM},
		obstacle{"security is none now: a stored one is never sent in the clear when it was not before",
			now.Security == SecurityNone && then.Security != SecurityNone},
	)
	switch now.Auth.Method {
	case AuthBasic:
		other := s.username() != before.username()
		why = cmp.Or(why, changed(
			obstacle{"username" + otherAccount, other && now.Auth.Username != ""},
			obstacle{"the sender's address, which is the user name," + otherAccount, other},
		))
		f.take("/smtp/auth/password", &now.Auth.Password, then.Auth.Password, why)
	case AuthOAuth2:
		// The secret goes to whoever gives out tokens, and what it is good for, a token, to the mail server.
		a, b := &now.Auth.OAuth2, &then.Auth.OAuth2
		why = cmp.Or(why, changed(
			obstacle{"token_url" + otherServer, a.TokenURL != b.TokenURL},
			obstacle{"provider" + otherServer, a.Provider != b.Provider},
			obstacle{"tenant_id" + otherApp, a.TenantID != b.TenantID},
			obstacle{"client_id" + otherApp, a.ClientID != b.ClientID},
		))
		f.take("/smtp/auth/oauth2/client_secret", &a.ClientSecret, b.ClientSecret, why)
	}
}

// username is what an SMTP server is told.
func (s *Settings) username() string { return cmp.Or(s.SMTP.Auth.Username, s.Sender.Address) }

func (f *faults) takeMicrosoft365(s, before *Microsoft365Settings) {
	const at = "/microsoft365/"
	ways := before.ways()
	if named := s.ways(); len(ways) != 1 || len(named) > 0 && !slices.Equal(named, ways) {
		return
	}
	why := changed(
		obstacle{"login_url" + otherServer, s.LoginURL != before.LoginURL},
		obstacle{"graph_url" + otherServer, s.GraphURL != before.GraphURL},
		obstacle{"cloud" + otherServer, s.Cloud != before.Cloud},
		obstacle{"tenant_id" + otherApp, s.TenantID != before.TenantID},
		obstacle{"client_id" + otherApp, s.ClientID != before.ClientID},
	)
	switch ways[0] {
	case bySecret:
		f.take(at+"client_secret", &s.ClientSecret, before.ClientSecret, why)
	case byCertificate:
		if !leftOut(s.PrivateKeyPEM) {
			return
		}
		s.CertificatePEM = cmp.Or(s.CertificatePEM, before.CertificatePEM)
		why = cmp.Or(why, changed(obstacle{"certificate_pem has changed: a key is good for one certificate",
			!sameCertificate(s.CertificatePEM, before.CertificatePEM)}))
		f.take(at+"private_key_pem", &s.PrivateKeyPEM, before.PrivateKeyPEM, why)
	case byFederation:
		s.FederatedTokenFile = cmp.Or(s.FederatedTokenFile, before.FederatedTokenFile) // the path of a secret is none
	}
}

// sameCertificate compares the first of each, which is the one that counts; ends of lines and what stands around do not matter.
func sameCertificate(a, b string) bool {
	if a == b {
		return true
	}
	first, _ := pem.Decode([]byte(a))
	second, _ := pem.Decode([]byte(b))
	return first != nil && second != nil && bytes.Equal(first.Bytes, second.Bytes)
}

// obstacle is something that keeps a secret from being taken over, if it is so.
type obstacle struct {
	what string
	so   bool
}

// changed gives the first that is so; empty if none is.
func changed(all ...obstacle) string {
	for _, o := range all {
		if o.so {
			return o.what
		}
	}
	return ""
}
