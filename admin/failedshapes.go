package admin

import (
	"time"

	"github.com/postroom/postroom/mail"
)

// FailedFilter selects messages of the failed store: those that fit everything that is set. The zero value fits all. Lists
// that are empty but not nil are refused: a program that has come to no ids does not mean every message.
type FailedFilter struct {
	Kind    mail.Kind `json:"kind,omitempty" enum:"alert,report,subscription" doc:"What they are for."`
	Classes []string  `json:"classes,omitzero" nullable:"false" enum:"temporary,delivered,throttled,configuration,permanent,unknown" doc:"The class of the last attempt: any of these."`
	// Mailbox is a sender's address; the provider's own finds messages without a sender too, and "-" only these.
	Mailbox   string    `json:"mailbox,omitempty" doc:"The sender's address; the provider's own finds messages that name no sender, too, and - finds only these."`
	BatchID   string    `json:"batch_id,omitempty" doc:"The batch they belong to."`
	Recipient string    `json:"recipient,omitempty" example:"@example.com" doc:"The address of somebody who does not have the message, or @ and a domain."`
	Reply     string    `json:"reply,omitempty" doc:"Part of the provider's words, or of its status code such as 5.1.1. Case does not count."`
	IDs       []string  `json:"ids,omitzero" nullable:"false" maxItems:"10000" doc:"The messages themselves."`
	From      time.Time `json:"from,omitzero" doc:"They failed at this time or later."`
	Until     time.Time `json:"until,omitzero" doc:"They failed before this time."`
}

// FailedPage is the answer to GET /v1/failed.
type FailedPage struct {
	Messages []FailedMessage `json:"messages" nullable:"false" doc:"Newest first."`
	// Next asks for the next page; empty on the last.
	Next    string `json:"next,omitempty" doc:"Give it as cursor to get the next page; left out on the last. A page can be empty and not the last: the search of each is bounded."`
	Scanned int    `json:"scanned" doc:"How many failed messages this page looked at."`
	Left    int    `json:"left" doc:"About how many are left to look at."`
	// Unreadable counts messages that a newer program wrote.
	Unreadable int `json:"unreadable,omitempty" doc:"How many of them only a newer Postroom can read."`
}

// FailedMessage is one message of the failed store.
type FailedMessage struct {
	ID       string    `json:"id" doc:"The id of the message."`
	BatchID  string    `json:"batch_id,omitempty" doc:"The batch it belongs to; left out for a single message."`
	Kind     mail.Kind `json:"kind" enum:"alert,report,subscription" doc:"What it is for."`
	Class    string    `json:"class" enum:"temporary,delivered,throttled,configuration,permanent,unknown" doc:"The class of the last attempt."`
	Mailbox  string    `json:"mailbox,omitempty" doc:"The sender; left out if the producer named none: then it is the provider's own."`
	Accepted time.Time `json:"accepted" doc:"When it was handed in."`
	Failed   time.Time `json:"failed" doc:"When it failed."`
	// Requeued is zero if nobody has requeued it.
	Requeued time.Time `json:"requeued,omitzero" doc:"When it was last requeued; left out if it never was."`
	Counted  int       `json:"attempts_counted" doc:"The number of attempts that counted, since then."`
	// Recipients has To, Cc and Bcc, those who have it too.
	Recipients []RecipientStatus `json:"recipients" nullable:"false" doc:"To, cc and bcc, in this order, with what became of each. A requeue offers it to all who do not have it."`
	Last       Outcome           `json:"last" doc:"The last outcome that kept it from being delivered."`
}

// Selection is the body of POST /v1/failed/requeue and POST /v1/failed/delete.
type Selection struct {
	Filter FailedFilter `json:"filter,omitzero" doc:"Which messages."`
	// All has to be set if Filter is empty, so that nobody requeues or deletes everything by mistake.
	All    bool `json:"all,omitempty" doc:"Has to be true if filter is empty, and only then: all failed messages are meant."`
	DryRun bool `json:"dry_run,omitempty" doc:"Count what would be done, and change nothing."`
	// Cursor is the Next of the answer before; empty for the first.
	Cursor string `json:"cursor,omitempty" doc:"What the answer before gave as next; left out: from the start."`
}

// Selected is the answer to a Selection or a MessageSelection: what was done so far.
type Selected struct {
	Done int `json:"done" doc:"How many messages were requeued, deleted or cancelled by this request; in a dry run, how many would be."`
	// TooLate is only of a cancel.
	TooLate int `json:"too_late,omitempty" doc:"How many were not cancelled because they were being sent, or, of those named by ids, had ended."`
	// Cancelled is of a requeue, and of a cancel by ids.
	Cancelled  int `json:"cancelled,omitempty" doc:"How many were not requeued because their batch has been cancelled: they stay where they are. Of a cancel, how many of those named by ids had been cancelled before."`
	Unreadable int `json:"unreadable,omitempty" doc:"How many were left alone because only a newer Postroom can read them."`
	Scanned    int `json:"scanned" doc:"How many messages this request looked at."`
	Left       int `json:"left" doc:"About how many are left to look at."`
	// AcceptedBefore is only of a cancel: its run means nothing that was accepted at this time or later.
	AcceptedBefore time.Time `json:"accepted_before,omitzero" doc:"Only of a cancel: what was accepted at this time or later is not meant. It is the filter's, or when the run began."`
	// Next is empty when all is done.
	Next string `json:"next,omitempty" doc:"There is more: repeat the request with this as cursor; left out when all is done. Repeating one whose answer was lost does nothing twice."`
}
