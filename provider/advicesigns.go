package provider

import "github.com/postroom/postroom/mail"

// Remedies that several outcomes share.
const (
	fixAddress = "Correct or remove the address where it is kept, and hand the message in again. If the address has come to exist " +
		"meanwhile, `postroom failed requeue ID` sends the message again."
	fixSender = "Check the sender (provider.sender.address, or from in the application): its domain has to exist and to " +
		"take mail." + requeue
	proveSender = "Have the sender's domain say in the DNS that the provider may send for it (SPF), have the provider sign its mail (DKIM), " +
		"and see that both fit the DMARC policy of the domain."
	reportReply = "Report the reply to the server's administrator, and to whoever maintains Postroom."
)

// signs says what outcomes mean that have no cause; the first that fits holds. The enhanced codes are those of RFC 3463, sections
// 3.2 to 3.8, and of the IANA registry that continues it; the codes alone those of RFC 5321, section 4.2.3.
var signs = []sign{
	{class: mail.Delivered, meaning: meaning{"The provider took responsibility for the message; a bounce may still follow.", ""}},
	{class: mail.Unknown, meaning: meaning{
		"The connection ended after the whole message was sent and before the provider confirmed it: it may have been accepted.",
		"If the message is in the failed store, ask a recipient whether it arrived; if not, `postroom failed requeue ID` sends it again."}},
	{class: mail.Throttled, meaning: meaning{
		"The provider asked Postroom to slow down.",
		"If this happens often, lower provider.limits, and see what else sends with the same account."}},

	// Configuration: what the provider says to every message.
	{class: mail.Configuration, step: "dial", meaning: meaning{
		"Postroom can't connect to the mail server with these settings.",
		"Check provider.smtp.host and provider.smtp.port." + howToChange}},
	{class: mail.Configuration, step: "tls", meaning: meaning{
		"The mail server refuses to encrypt the connection.",
		"Check that provider.smtp.port and provider.smtp.security fit together, and have the server's TLS put right." + resume}},
	{class: mail.Configuration, step: "greeting", meaning: meaning{
		"The mail server does not take connections from this machine.",
		"Check provider.smtp.host and provider.smtp.port, and have the server's administrator allow this machine's " +
			"address." + resume}},
	{class: mail.Configuration, step: "ehlo", meaning: meaning{
		"The mail server does not accept how this machine introduces itself.",
		"Give this machine a host name that the DNS knows, or have the server's administrator allow it." + resume}},
	{class: mail.Configuration, step: "auth", meaning: meaning{
		"The login at the provider does not work with these settings.",
		"Check provider.smtp.auth." + howToChange}},
	{class: mail.Configuration, meaning: meaning{
		"The provider does not work with these settings.",
		"Check the settings of the provider against what the provider's administrator says; the provider's own words say what it objects to." + howToChange}},

	// Temporary, before a message comes into play.
	{class: mail.Temporary, step: "dial", meaning: meaning{
		"Postroom could not connect to the mail server.",
		"If it lasts, check provider.smtp.host and provider.smtp.port, that the server runs, and that no firewall is in " +
			"between."}},
	{class: mail.Temporary, step: "tls", silent: true, meaning: meaning{
		"The connection to the mail server broke off while encryption was being set up.",
		"If it lasts, check that provider.smtp.port and provider.smtp.security fit together, and see whether a firewall " +
			"is in between."}},
	{class: mail.Temporary, step: "tls", meaning: meaning{
		"The mail server can't encrypt the connection at the moment.",
		"If it lasts, tell the server's administrator."}},
	{class: mail.Temporary, step: "greeting", silent: true, meaning: meaning{
		"The mail server took the connection and said nothing.",
		"If it lasts, check that provider.smtp.port and provider.smtp.security fit together (465 is for tls, 587 for " +
			"starttls), and that what answers there is a mail server."}},
	{class: mail.Temporary, step: "greeting", meaning: meaning{
		"The mail server is busy, or takes no connections from this machine at the moment.",
		"If it lasts, ask the server's administrator."}},
	{class: mail.Temporary, step: "ehlo", meaning: meaning{
		"The mail server broke off while Postroom introduced itself.",
		"If it lasts, ask the server's administrator."}},
	{class: mail.Temporary, step: "auth", silent: true, meaning: meaning{
		"The mail server broke off during the login.",
		"If it lasts, ask the server's administrator."}},
	{class: mail.Temporary, step: "auth", meaning: meaning{
		"The mail server can't check logins at the moment.",
		"If it lasts, ask the server's administrator, and check provider.smtp.auth."}},

	// Temporary, of a message.
	{class: mail.Temporary, step: "mail", silent: true, meaning: lost},
	{class: mail.Temporary, step: "rcpt", silent: true, meaning: lost},
	{class: mail.Temporary, step: "data", silent: true, meaning: lost},
	{class: mail.Temporary, step: "body", silent: true, meaning: lost},
	{class: mail.Temporary, status: []string{"1.7", "1.8"}, meaning: meaning{
		"The mail server could not check the sender's address at the moment.",
		"If it lasts, check the sender (provider.sender.address, or from in the application): its domain has to be in " +
			"the DNS."}},
	{class: mail.Temporary, status: []string{"1.2", "4.1", "4.3", "4.4"}, meaning: meaning{
		"The mail server can't find or reach the recipient's mail system at the moment.",
		"If it lasts, check the domain of the recipient's address."}},
	{class: mail.Temporary, status: []string{"1.*"}, meaning: meaning{
		"The mail server can't check the recipient's address at the moment.",
		"If it lasts, check the recipient's address."}},
	{class: mail.Temporary, status: []string{"2.2"}, meaning: meaning{
		"The recipient's mailbox is full.",
		"If it lasts, ask the recipient to make room."}},
	{class: mail.Temporary, status: []string{"2.*"}, meaning: meaning{
		"The recipient's mailbox can't take mail at the moment.",
		""}},
	{class: mail.Temporary, status: []string{"3.1"}, meaning: noSpace},
	{class: mail.Temporary, status: []string{"4.2", "4.5", "3.2"}, meaning: meaning{
		"The mail server is busy or about to stop.",
		"If it lasts, ask the server's administrator."}},
	{class: mail.Temporary, status: []string{"7.20", "7.21", "7.22", "7.23", "7.24", "7.26", "7.27"}, meaning: meaning{
		"The mail server can't tell by the DNS that the sender's domain sent this (SPF, DKIM, DMARC), and puts the message off.",
		proveSender}},
	{class: mail.Temporary, step: "rcpt", status: []string{"7.*"}, meaning: meaning{
		"The mail server puts off mail that it does not know yet, to see whether it comes again (greylisting), or has doubts about the sender.",
		""}},
	{class: mail.Temporary, status: []string{"7.*"}, meaning: meaning{
		"The mail server has doubts about the message or its sender and puts it off, as with mail that it does not know yet (greylisting).",
		"If it lasts, look at what the sender's domain says in the DNS about who may send for it (SPF, DKIM, DMARC)."}},
	{class: mail.Temporary, code: 421, meaning: meaning{
		"The mail server is busy or about to stop, and closed the connection.",
		"If it lasts, ask the server's administrator."}},
	{class: mail.Temporary, step: "rcpt", code: 450, meaning: meaning{
		"The recipient's mailbox can't take mail at the moment, or the mail server wants to see whether the mail comes again (greylisting).",
		""}},
	{class: mail.Temporary, step: "rcpt", code: 452, meaning: meaning{
		"The mail server takes no more recipients at once, or has no space left.",
		""}},
	{class: mail.Temporary, code: 452, meaning: noSpace},
	{class: mail.Temporary, step: "rcpt", meaning: meaning{
		"The mail server can't take mail for this recipient at the moment.",
		""}},
	{class: mail.Temporary, meaning: meaning{
		"The provider can't take the message at the moment.",
		"If it lasts, the provider's own words may say why."}},

	// Permanent.
	{class: mail.Permanent, step: "render", meaning: meaning{
		"Postroom could not put the message together.",
		"Look at the message as it was handed in, correct it, and hand it in again; if nothing is wrong with it, report that to whoever " +
			"maintains Postroom."}},
	{class: mail.Permanent, status: []string{"1.1", "1.6"}, meaning: meaning{
		"The recipient's mailbox does not exist.", fixAddress}},
	{class: mail.Permanent, status: []string{"1.2", "4.4"}, meaning: noDomain},
	{class: mail.Permanent, code: 521, meaning: noDomain},
	{class: mail.Permanent, code: 556, meaning: noDomain},
	{class: mail.Permanent, status: []string{"1.3", "1.4"}, meaning: meaning{
		"The recipient's address is not written as the mail server expects it.", fixAddress}},
	{class: mail.Permanent, status: []string{"1.10", "4.1"}, meaning: meaning{
		"The recipient's address does not exist, or its domain takes no mail.", fixAddress}},
	{class: mail.Permanent, status: []string{"1.7", "1.8", "7.27"}, meaning: meaning{
		"The mail server does not accept the sender's address.", fixSender}},
	{class: mail.Permanent, status: []string{"1.*"}, meaning: meaning{
		"The mail server does not accept an address of the message.", fixAddress}},
	{class: mail.Permanent, status: []string{"2.1"}, meaning: meaning{
		"The recipient's mailbox is switched off.", fixAddress}},
	{class: mail.Permanent, status: []string{"2.2"}, meaning: full},
	{class: mail.Permanent, status: []string{"2.3", "3.4"}, meaning: causes[mail.TooLarge]},
	{class: mail.Permanent, status: []string{"2.4", "7.2"}, meaning: meaning{
		"The recipient is a mailing list that does not take this mail.",
		"Ask whoever runs the list to accept mail from your sender." + requeue}},
	{class: mail.Permanent, status: []string{"2.*"}, meaning: meaning{
		"The recipient's mailbox does not take mail.", fixAddress}},
	{class: mail.Permanent, status: []string{"3.1"}, meaning: meaning{
		"The mail server has no space left.",
		"Ask the server's administrator to make room." + requeue}},
	{class: mail.Permanent, status: []string{"4.6"}, meaning: meaning{
		"Mail for this recipient goes round in a circle between mail servers.",
		"Ask the administrator of the recipient's domain to correct where its mail goes." + requeue}},
	{class: mail.Permanent, status: []string{"3.*", "4.*"}, meaning: meaning{
		"The mail server, or that of the recipient, can't handle the message.",
		"Ask the server's administrator." + requeue}},
	{class: mail.Permanent, status: []string{"5.3"}, meaning: meaning{
		"The message has more recipients than the mail server takes.",
		"Set provider.limits.recipients_per_message to what the server takes: then more go in several attempts." + requeue}},
	{class: mail.Permanent, status: []string{"5.*"}, meaning: notUnderstood},
	{class: mail.Permanent, status: []string{"6.7"}, meaning: causes[mail.NotASCII]},
	{class: mail.Permanent, status: []string{"6.*"}, meaning: meaning{
		"The mail server does not accept how the message is built, or what is in it.",
		"Look at the content and the attachments, change what it objects to, and hand the message in again."}},
	{class: mail.Permanent, status: []string{"7.20", "7.21", "7.22", "7.23", "7.24", "7.26", "7.29"}, meaning: meaning{
		"The mail server could not tell by the DNS that the sender's domain sent this (SPF, DKIM, DMARC).",
		proveSender + requeue}},
	{class: mail.Permanent, status: []string{"7.25"}, meaning: meaning{
		"The address that the mail comes from has no name in the DNS.",
		"Have whoever gives the machine its address put a name for it into the DNS (a PTR record), and the address for that name." + requeue}},
	{class: mail.Permanent, step: "rcpt", status: []string{"7.*"}, meaning: meaning{
		"The mail server does not take mail for this recipient from this sender.",
		"If it refuses all recipients outside, it does not relay for Postroom: set provider.smtp.auth, or have its " +
			"administrator allow this machine. Else ask the recipient's administrator to accept your sender." + requeue}},
	{class: mail.Permanent, status: []string{"7.*"}, meaning: refusedByPolicy},
	{class: mail.Permanent, step: "rcpt", code: 552, meaning: full},
	{class: mail.Permanent, code: 552, meaning: causes[mail.TooLarge]},
	{class: mail.Permanent, step: "rcpt", code: 501, meaning: badlyWritten},
	{class: mail.Permanent, step: "rcpt", code: 553, meaning: badlyWritten},
	{class: mail.Permanent, code: 500, meaning: notUnderstood},
	{class: mail.Permanent, code: 501, meaning: notUnderstood},
	{class: mail.Permanent, code: 502, meaning: notUnderstood},
	{class: mail.Permanent, code: 503, meaning: notUnderstood},
	{class: mail.Permanent, code: 504, meaning: notUnderstood},
	{class: mail.Permanent, code: 555, meaning: notUnderstood},
	{class: mail.Permanent, step: "rcpt", code: 550, meaning: meaning{
		"The recipient's mailbox does not exist, or does not take this mail.", fixAddress}},
	{class: mail.Permanent, step: "rcpt", code: 551, meaning: meaning{
		"The recipient's mailbox is not on this mail server.", fixAddress}},
	{class: mail.Permanent, step: "rcpt", meaning: meaning{
		"The mail server refuses this recipient for good.",
		"The provider's own words may say why. When that is put right, `postroom failed requeue ID` sends the message again."}},
	{class: mail.Permanent, step: "data", code: 550, meaning: refusedByPolicy},
	{class: mail.Permanent, step: "data", code: 554, meaning: refusedByPolicy},
	{class: mail.Permanent, step: "body", code: 550, meaning: refusedByPolicy},
	{class: mail.Permanent, step: "body", code: 554, meaning: refusedByPolicy},
	{class: mail.Permanent, meaning: meaning{
		"The provider refuses the message for good.",
		"The provider's own words may say why. When that is put right, `postroom failed requeue ID` sends the message again."}},
}

// Meanings that several signs share.
var (
	lost = meaning{
		"The connection to the mail server was lost before the message was handed over.",
		"If it lasts, see whether a firewall between this machine and the server breaks connections off.",
	}
	noSpace = meaning{
		"The mail server has no space left at the moment.",
		"If it lasts, tell the server's administrator.",
	}
	noDomain = meaning{
		"The domain of the recipient's address does not exist, or takes no mail.",
		fixAddress,
	}
	full = meaning{
		"The recipient's mailbox is full.",
		"Ask the recipient to make room." + requeue,
	}
	badlyWritten = meaning{
		"The mail server does not accept the recipient's address as it is written.",
		fixAddress,
	}
	notUnderstood = meaning{
		"The mail server did not understand what Postroom asked of it.",
		reportReply,
	}
	refusedByPolicy = meaning{
		"The mail server refuses the message by its own rules, mostly because content or sender look like spam, or the sender is not verified.",
		"Ask the server's administrator which rule it was; with Amazon SES see that the sender is verified. Change the content or the " +
			"sender and hand the message in again, or have the rule changed." + requeue,
	}
)
