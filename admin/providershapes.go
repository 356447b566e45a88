package admin

import (
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// Provider is the answer to GET /v1/provider.
type Provider struct {
	Kind string `json:"kind" enum:"none,smtp,microsoft365" doc:"What mail goes by. With none it is accepted and waits."`
	// Version is "" while no provider is active.
	Version string `json:"version,omitempty" doc:"Of the settings: a number that grows, and a random part; left out while none are active."`
	// Source is "file" or "api"; "" if nobody ever set a provider.
	Source   string `json:"source,omitempty" enum:"file,api" doc:"Where the settings come from: a configuration file, or an administrator; left out if nobody has ever set any."`
	ReadOnly bool   `json:"read_only" doc:"The settings stand in the configuration file of a process that runs, and can only be changed there."`

	By    string    `json:"by,omitempty" doc:"The name of the token that set them; left out of a file's."`
	Since time.Time `json:"since,omitzero" doc:"When they became the active ones; other limits, and what is held or resumed, leave it as it is."`
	// Settings are nil while none are active. They never have a secret; Secrets points to those that are set.
	Settings *provider.Settings `json:"settings,omitempty" doc:"The settings, with every default filled in and without secrets. What is written back without a secret keeps the one that is set."`
	Secrets  []string           `json:"secrets,omitempty" doc:"JSON pointers into settings, of the secrets that are set."`
	Health   ProviderHealth     `json:"health" doc:"How the provider does, as attempts have found it."`
	Open     int                `json:"open" doc:"How many messages have not ended: they wait, or are being sent."`
}

// ProviderHealth is how a provider does.
type ProviderHealth struct {
	// State is "ok", "degraded" or "faulty".
	State   string    `json:"state" enum:"ok,degraded,faulty" doc:"ok: mail goes, as far as anybody knows. degraded: some does not. faulty: none does, and somebody has to see to it."`
	Summary string    `json:"summary" doc:"The same as a sentence for people."`
	Since   time.Time `json:"since,omitzero" doc:"When the fault began: the first refusal since which nothing has gone. To resume in vain does not begin it anew. Left out without one."`
	// Fault is the last error; nil if there is none.
	Fault     *ProviderFault `json:"fault,omitempty" doc:"The last error, and what to do about it; left out if there is none."`
	Mailbox   string         `json:"mailbox,omitempty" doc:"The mailbox, or the account, that the fault is about; left out if it is about all mail."`
	Held      int            `json:"held" doc:"How many mailboxes are held."`
	Mailboxes int            `json:"mailboxes" doc:"How many mailboxes have mail, or had some lately."`
	// Pause stops all mail; nil if nothing does. It has no part in State.
	Pause   *Silence `json:"pause,omitempty" doc:"A pause of everything, or of the account that sends for all; left out if there is none. It is no fault of the provider's, and state does not go by it."`
	Paused  int      `json:"paused" doc:"How many mailboxes are paused."`
	Workers []Worker `json:"workers" nullable:"false" doc:"The processes that take part in sending."`
}

// Worker is a process that takes part in sending.
type Worker struct {
	ID    string `json:"id" doc:"What its attempts name as worker; another after each start."`
	Host  string `json:"host" doc:"Where it runs."`
	Ready bool   `json:"ready" doc:"It has loaded the active settings."`
	Fault string `json:"fault,omitempty" doc:"Why it can't load them; left out if it can."`
}

// ProviderFault is an error in plain words.
type ProviderFault struct {
	// Field is a JSON pointer into the settings; "" if none is to blame.
	Field string `json:"field,omitempty" example:"/smtp/auth/password" doc:"The field of the settings that is most likely wrong, as a JSON pointer; left out if none is to blame."`
	Cause string `json:"cause,omitempty" doc:"Why, in a word that does not change; left out if there is none for it."`
	// Happened, Postroom and Remedy are sentences.
	Happened string `json:"happened" doc:"What happened."`
	Postroom string `json:"postroom,omitempty" doc:"What Postroom does about it by itself."`
	Remedy   string `json:"remedy,omitempty" doc:"What to do about it."`
	// Code, Enhanced and Answer are the provider's own.
	Code     int    `json:"code,omitempty" doc:"The provider's status code."`
	Enhanced string `json:"enhanced,omitempty" doc:"The provider's enhanced status code (RFC 3463)."`
	Answer   string `json:"answer,omitempty" doc:"The provider's own words. Only of what was tried just now: of mail, its attempts have them."`
}

// ProviderChanged is the answer to PUT and DELETE /v1/provider.
type ProviderChanged struct {
	Provider Provider `json:"provider" doc:"What is active now."`
	// Result is "saved", "saved_not_valid", "saved_undecided" or "saved_not_tried".
	Result string `json:"result" enum:"saved,saved_not_valid,saved_undecided,saved_not_tried" doc:"saved: they were tried, and work. saved_not_valid: they are active, and do not work: steps say why, and all mail waits until they do. saved_undecided: they are active, and the provider put us off when they were tried, so that nobody knows yet whether they work; mail is tried with them. saved_not_tried: it was asked not to try them, or there is nothing to try."`
	Steps  []Step `json:"steps,omitempty" doc:"What trying them came to, as of POST /v1/provider/verify."`
	// Underway is how many attempts of the former settings were still under way.
	Underway int    `json:"underway" doc:"How many attempts of the former settings were still under way after 30 seconds; -1 if that could not be told. None begins any more."`
	Summary  string `json:"summary" doc:"The same as a sentence for people."`
}

// Verification is the answer to POST /v1/provider/verify.
type Verification struct {
	Valid bool `json:"valid" doc:"No step failed."`
	// Undecided is only if not Valid.
	Undecided bool   `json:"undecided,omitempty" doc:"A step failed because the provider put us off: it tells neither that the settings work nor that they do not."`
	Summary   string `json:"summary" doc:"The same as a sentence for people."`
	Steps     []Step `json:"steps" nullable:"false" doc:"What was tried, in order, up to the step that failed."`
}

// Step is one step of trying settings.
type Step struct {
	Name   string         `json:"name" enum:"resolve,connect,tls,greeting,ehlo,token,auth,permissions,sender" doc:"What was tried."`
	State  string         `json:"state" enum:"passed,failed,skipped" doc:"What became of it."`
	TookMs int64          `json:"took_ms" doc:"How long it took, in milliseconds."`
	Found  string         `json:"found,omitempty" doc:"What was found, or why it was skipped, in words."`
	Fault  *ProviderFault `json:"fault,omitempty" doc:"Why it failed; left out if it did not."`
}

// VerifyRequest is the body of POST /v1/provider/verify.
type VerifyRequest struct {
	Settings *provider.Settings `json:"settings,omitempty" doc:"Settings to try that are not active. A secret that is left out is taken from those that are, if it would go to the same server. Left out: the active ones."`
}

// TestRequest is the body of POST /v1/provider/test.
type TestRequest struct {
	To string `json:"to" example:"ada@example.com" doc:"The address to send a test mail to."`
}

// TestResult is the answer to POST /v1/provider/test.
type TestResult struct {
	ID string `json:"id" doc:"The message's id, for GET /v1/messages/{id}; of one that was refused for good nothing is kept but this answer."`
	// State is "delivered", "failed" or "waiting".
	State   string         `json:"state" enum:"delivered,failed,waiting" doc:"delivered: the provider took it. failed: it did not, and the mail is not tried again. waiting: it had not been tried after 30 seconds, and is cancelled."`
	Summary string         `json:"summary" doc:"The same as a sentence for people."`
	TookMs  int64          `json:"took_ms" doc:"How long it took, in milliseconds."`
	Fault   *ProviderFault `json:"fault,omitempty" doc:"Why it failed; left out if it did not."`
}

// Resealed is the answer to POST /v1/provider/reseal.
type Resealed struct {
	Changed bool   `json:"changed" doc:"They were sealed with another key than the first."`
	Summary string `json:"summary" doc:"The same as a sentence for people."`
}

// AuditPage is the answer to GET /v1/audit.
type AuditPage struct {
	Entries []AuditEntry `json:"entries" nullable:"false" doc:"Newest first."`
	Next    string       `json:"next,omitempty" doc:"Give it as cursor to get the next page; left out on the last."`
}

// AuditEntry says that somebody changed something.
type AuditEntry struct {
	At     time.Time `json:"at" doc:"When."`
	By     string    `json:"by,omitempty" doc:"The name of the token; left out of a configuration file."`
	From   string    `json:"from,omitempty" doc:"Where it came from: an IP address, or the host of a configuration file."`
	Action string    `json:"action" enum:"provider.set,provider.clear,provider.reseal,provider.verify,provider.test,mailbox.pause,mailbox.resume,all.pause,all.resume,message.cancel,batch.cancel,failed.requeue,failed.delete,log.set,log.reset,unreadable" doc:"What was done, or asked for."`
	Target string    `json:"target,omitempty" doc:"What it was done to: a kind of provider, a mailbox (* for everything), an id."`
	Detail string    `json:"detail,omitempty" doc:"More, in words."`
}

// faultOf puts an outcome that settings met into plain words. The provider's own are told only if they are of what was tried just
// now, without a recipient who could stand in them.
func faultOf(s *provider.Settings, o mail.Outcome) *ProviderFault {
	a, b := provider.Advise(o), provider.Blame{}
	if s != nil {
		b = s.Blame(o)
	}
	f := &ProviderFault{Field: b.Field, Cause: string(o.Cause), Happened: a.Happened, Postroom: a.Postroom, Remedy: b.Remedy,
		Code: o.Code, Enhanced: o.Enhanced, Answer: o.Reply}
	if f.Remedy == "" {
		f.Remedy = a.Remedy
	}
	return f
}
