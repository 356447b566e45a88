package admin

import (
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// MessageFilter selects messages: those that fit everything that is set. The zero value fits all that are open. Lists that are empty
// but not nil are refused, as those of a FailedFilter are.
type MessageFilter struct {
	States []queue.State `json:"states,omitzero" nullable:"false" enum:"queued,sending,delivered,failed,cancelled,expired" doc:"Where they are in their life: any of these; left out: queued and sending. Only these two can be cancelled."`
	Kind   mail.Kind     `json:"kind,omitempty" enum:"alert,report,subscription" doc:"What they are for."`
	// Mailbox is a sender's address; the provider's own finds messages without a sender too, and "-" only these.
	Mailbox        string    `json:"mailbox,omitempty" doc:"The sender's address; the provider's own finds messages that name no sender, too, and - finds only these. Of a single message that has ended well it is not known any more."`
	BatchID        string    `json:"batch_id,omitempty" doc:"The batch they belong to."`
	Recipient      string    `json:"recipient,omitempty" example:"@example.com" doc:"The address of somebody who does not have the message, or @ and a domain."`
	IDs            []string  `json:"ids,omitzero" nullable:"false" maxItems:"10000" doc:"The messages themselves."`
	AcceptedAfter  time.Time `json:"accepted_after,omitzero" doc:"They were accepted at this time or later."`
	AcceptedBefore time.Time `json:"accepted_before,omitzero" doc:"They were accepted before this time."`
}

// MessagePage is the answer to GET /v1/messages.
type MessagePage struct {
	Messages []ListedMessage `json:"messages" nullable:"false" doc:"In no order; those of one batch, or named by ids, in theirs."`
	// Next asks for the next page; empty on the last.
	Next    string `json:"next,omitempty" doc:"Give it as cursor to get the next page; left out on the last. A page can be empty and not the last: the search of each is bounded."`
	Scanned int    `json:"scanned" doc:"How many records this page looked at."`
	Left    int    `json:"left" doc:"About how many are left to look at."`
	// Unreadable counts records that a newer program wrote.
	Unreadable int `json:"unreadable,omitempty" doc:"How many of them only a newer Postroom can read."`
}

// ListedMessage is what a list tells of a message; GET /v1/messages/{id} tells all.
type ListedMessage struct {
	ID       string      `json:"id" doc:"The id of the message."`
	BatchID  string      `json:"batch_id,omitempty" doc:"The batch it belongs to; left out for a single message."`
	Kind     mail.Kind   `json:"kind" enum:"alert,report,subscription" doc:"What it is for."`
	State    queue.State `json:"state" enum:"queued,sending,delivered,failed,cancelled,expired" doc:"Where it is in its life."`
	Mailbox  string      `json:"mailbox,omitempty" doc:"The sender; left out if the producer named none, and of a single message that has ended well."`
	Accepted time.Time   `json:"accepted" doc:"When it was handed in."`
	Due      time.Time   `json:"due,omitzero" doc:"When it goes at the earliest, if it waits for a time: send_at or the next attempt."`
	Finished time.Time   `json:"finished,omitzero" doc:"When it was delivered or failed, was cancelled or expired."`
	Counted  int         `json:"attempts_counted" doc:"The number of attempts that count towards giving up."`
	// Recipients is their number.
	Recipients int `json:"recipients" doc:"How many recipients it has: to, cc and bcc."`
}

// MessageSelection is the body of POST /v1/messages/cancel.
type MessageSelection struct {
	Filter MessageFilter `json:"filter,omitzero" doc:"Which messages."`
	// All has to be set if Filter is empty, so that nobody cancels everything by mistake.
	All    bool `json:"all,omitempty" doc:"Has to be true if filter is empty, and only then: all open messages are meant."`
	DryRun bool `json:"dry_run,omitempty" doc:"Count what would be done, and change nothing."`
	// Cursor is the Next of the answer before; empty for the first.
	Cursor string `json:"cursor,omitempty" doc:"What the answer before gave as next; left out: from the start."`
}

// BatchFilter selects batches: those that fit everything that is set. The zero value fits all that are known.
type BatchFilter struct {
	Kind mail.Kind
	// Mailbox is a sender's address; the provider's own finds batches without a sender too, and "-" only these.
	Mailbox string
	// They were accepted at AcceptedAfter or later, before AcceptedBefore.
	AcceptedAfter, AcceptedBefore time.Time
	// Open: only those with messages that are open.
	Open bool
}

// BatchPage is the answer to GET /v1/batches.
type BatchPage struct {
	Batches []BatchStatus `json:"batches" nullable:"false" doc:"In no order; without forecasts and metadata, which GET /v1/batches/{id} tells."`
	// Next asks for the next page; empty on the last.
	Next string `json:"next,omitempty" doc:"Give it as cursor to get the next page; left out on the last. A page can be empty and not the last: the search of each is bounded."`
}
