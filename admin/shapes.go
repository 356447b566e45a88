package admin

import (
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// Accepted is the answer to POST /v1/messages.
type Accepted struct {
	ID    string      `json:"id" doc:"The id of the message."`
	State queue.State `json:"state" enum:"queued" doc:"What the message was when it was accepted."`
	// Replayed says that the idempotency key was known, and ID is of the message that was accepted then (the header
	// Idempotency-Replayed).
	Replayed bool `json:"-"`
}

// Cancelled is the answer to a cancel.
type Cancelled struct {
	ID    string      `json:"id" doc:"The id of what was cancelled."`
	State queue.State `json:"state" enum:"cancelled" doc:"Of a batch, what was being sent at that moment may still be delivered."`
}

// BatchAccepted is the answer to POST /v1/batches.
type BatchAccepted struct {
	ID       string `json:"id" doc:"The id of the batch."`
	Accepted int    `json:"accepted" doc:"The number of messages that will be sent."`
	Refused  int    `json:"refused" doc:"The number of recipients who get nothing: see recipients."`
	// Recipients has an entry for each recipient, in order; it is empty unless asked for or Refused is not 0.
	Recipients []BatchRecipient `json:"recipients,omitempty" nullable:"false" doc:"An entry for each recipient, in order; left out unless list=true or something was refused."`
	// Replayed says that the idempotency key was known, and this is the batch that was accepted then (the header
	// Idempotency-Replayed).
	Replayed bool `json:"-"`
}

// BatchProgress says how much of a batch that comes line by line was read. Nothing of it is accepted before its end.
type BatchProgress struct {
	Read    int `json:"read"`    // recipients so far
	Refused int `json:"refused"` // those of them who will get nothing
}

// BatchRecipient says what became of one recipient: there is an ID or a Problem.
type BatchRecipient struct {
	Index   int      `json:"index" doc:"The recipient's place in the request, from 0."`
	ID      string   `json:"id,omitempty" doc:"The id of the recipient's message."`
	Problem *Problem `json:"problem,omitempty" doc:"Why this recipient gets nothing. Locations are JSON pointers into the whole body."`
}

// MessageStatus is what is known of a message.
type MessageStatus struct {
	ID      string      `json:"id" doc:"The id of the message."`
	BatchID string      `json:"batch_id,omitempty" doc:"The batch it belongs to; left out for a single message."`
	Kind    mail.Kind   `json:"kind" enum:"alert,report,subscription" doc:"What it is for."`
	State   queue.State `json:"state" enum:"queued,sending,delivered,failed,cancelled,expired" doc:"Where it is in its life. Delivered: the provider took responsibility for every recipient; a bounce may still follow. Failed: at least one recipient will not get it unless somebody does something."`
	// WaitsFor is a sentence for people; empty unless the message is queued.
	WaitsFor string `json:"waits_for,omitempty" doc:"Why it waits, as a sentence for people; only if it is queued."`
	// Hold is nil if it waits for anything else.
	Hold *Silence `json:"hold,omitempty" doc:"The hold that it waits for: the refusal that led to it, which another message can have met, and what to do about it; left out if it waits for anything else."`
	// Expected is zero, and Ahead 0, if the message does not wait or nobody knows.
	Expected time.Time `json:"expected,omitzero" doc:"Roughly when it goes; left out if nobody knows, or if it expires before."`
	Ahead    int       `json:"ahead,omitempty" doc:"Roughly how many messages of the same mailbox go first; left out: none, or it does not wait for its turn."`
	// Note is a sentence for people about the state.
	Note     string    `json:"note,omitempty" doc:"What to know about this state, as a sentence for people."`
	Accepted time.Time `json:"accepted" doc:"When it was handed in."`
	Due      time.Time `json:"due,omitzero" doc:"When it goes at the earliest, if it waits for a time: send_at or the next attempt."`
	// ExpiresAt is zero if it never expires, and once it has ended well.
	ExpiresAt time.Time `json:"expires_at,omitzero" doc:"When it ends if it was not delivered. Kept as long as the message is open or failed; left out: never, or it had expired when it was requeued, which no longer counts."`
	Finished  time.Time `json:"finished,omitzero" doc:"When it was delivered or failed, was cancelled or expired."`
	// Requeued is zero if nobody has requeued it, and once it has ended well.
	Requeued time.Time `json:"requeued,omitzero" doc:"When it was last taken out of the failed store, to be tried again: attempts_counted is since then. Kept as long as the message is open or failed; left out if it never was."`
	// Counted is the number of attempts that count towards giving up. Attempts has the last ones, counted or not.
	Counted    int               `json:"attempts_counted" doc:"The number of attempts that count towards giving up: not those that were throttled or met a wrong configuration."`
	Attempts   []Attempt         `json:"attempts" nullable:"false" doc:"The last attempts, oldest first; of a message that ended well only the last."`
	Recipients []RecipientStatus `json:"recipients" nullable:"false" doc:"To, cc and bcc, in this order, with what became of each."`
	Counts     RecipientCounts   `json:"recipient_counts" doc:"The number of recipients in each state."`
	// Metadata is the producer's own; of a message of a batch it is with the batch.
	Metadata map[string]string `json:"metadata,omitempty" doc:"What the producer gave with a single message; that of a batch is with the batch."`
}

// RecipientStatus is what became of one recipient of a message.
type RecipientStatus struct {
	// Address is empty once the message has ended well.
	Address string `json:"address,omitempty" doc:"The address; kept as long as the message is open or failed."`
	State   string `json:"state" enum:"pending,delivered,refused" doc:"Delivered: the provider took responsibility; a bounce may still follow."`
}

// RecipientCounts are the numbers of a message's recipients.
type RecipientCounts struct {
	Pending   int `json:"pending" doc:"Not delivered, and not refused for good."`
	Delivered int `json:"delivered" doc:"The provider took responsibility."`
	Refused   int `json:"refused" doc:"Refused for good."`
}

// Attempt is one attempt to hand a message over.
type Attempt struct {
	Begun    time.Time `json:"begun" doc:"When it began."`
	Seconds  float64   `json:"duration_seconds" doc:"How long it took."`
	Worker   string    `json:"worker" doc:"The worker that made it."`
	Former   bool      `json:"former,omitempty" doc:"It was made with settings of the provider that have been replaced since."`
	Outcomes []Outcome `json:"outcomes" nullable:"false" doc:"What it came to, once for all recipients who share it."`
}

// Outcome is what an attempt came to for some recipients.
type Outcome struct {
	// Recipients are indexes into MessageStatus.Recipients; empty: everybody who was offered.
	Recipients []int  `json:"recipients,omitempty" nullable:"false" doc:"Indexes into the message's recipients; left out: everybody who was offered in this attempt."`
	Class      string `json:"class" enum:"temporary,delivered,throttled,configuration,permanent,unknown" doc:"How it ended."`
	Scope      string `json:"scope,omitempty" enum:"message,recipient,mailbox,provider" doc:"What else would have met the same answer."`
	Cause      string `json:"cause,omitempty" doc:"What the class alone does not tell, such as mailbox_full or credentials. More can be added."`
	Step       string `json:"step,omitempty" doc:"Where it was decided: dial, tls, greeting, ehlo, auth, mail, rcpt, data, body, render; token, send, draft, attachment, upload, verify."`
	Code       int    `json:"code,omitempty" doc:"The SMTP reply code or the HTTP status."`
	Enhanced   string `json:"enhanced,omitempty" doc:"The enhanced status code of RFC 3463, or the provider's error code."`
	Reply      string `json:"reply,omitempty" doc:"The provider's own words, or ours if it said nothing. They can name recipients."`
	// Advice is nil if it was delivered, or if a newer program wrote how it ended.
	Advice *Advice `json:"advice,omitempty" doc:"What it means, in sentences for people; left out if it was delivered."`
}

// Advice says what an outcome means, in plain sentences that name no recipient.
type Advice struct {
	Happened string `json:"happened" doc:"What happened."`
	Postroom string `json:"postroom" doc:"What Postroom does about it by itself."`
	// Remedy is empty if there is nothing to do.
	Remedy string `json:"remedy,omitempty" doc:"What people can do about it; left out if there is nothing to do."`
	// Field is empty if none is to blame, or the settings that it met are no longer the active ones.
	Field string `json:"field,omitempty" doc:"The field of the provider's settings that is most likely wrong, as a JSON pointer; left out if none is to blame, or they have been replaced since."`
}

// BatchStatus is what is known of a batch.
type BatchStatus struct {
	ID        string      `json:"id" doc:"The id of the batch."`
	Kind      mail.Kind   `json:"kind" enum:"alert,report,subscription" doc:"What it is for."`
	Mailbox   string      `json:"mailbox,omitempty" doc:"The sender; left out if the producer named none: then it is the provider's own."`
	Accepted  time.Time   `json:"accepted" doc:"When it was handed in."`
	SendAt    time.Time   `json:"send_at,omitzero" doc:"When it goes at the earliest; left out: at once."`
	ExpiresAt time.Time   `json:"expires_at,omitzero" doc:"When what was not delivered ends; left out: never."`
	Total     int         `json:"total" doc:"The number of its messages."`
	Counts    BatchCounts `json:"counts" doc:"The number of its messages in each state; their sum is total."`
	// Progress is the share of its messages that are no longer open, 0 to 1.
	Progress float64 `json:"progress" minimum:"0" maximum:"1" doc:"The share of its messages that are no longer open."`
	// Cancelled says that somebody cancelled it: what is still open, and not being sent, ends too.
	Cancelled bool `json:"cancelled" doc:"Whether it has been cancelled: what is still open, and not being sent, ends too."`
	// WaitsFor is a sentence for people; empty if none of its messages waits for its turn.
	WaitsFor string `json:"waits_for,omitempty" doc:"Why its last message waits, as a sentence for people; left out if none waits for its turn."`
	// Hold is nil if its last message waits for anything else.
	Hold *Silence `json:"hold,omitempty" doc:"The hold that its last message waits for, with the refusal that led to it and what to do about it; left out if it waits for anything else."`
	// Through is zero if nobody knows.
	Through  time.Time         `json:"through,omitzero" doc:"A forecast of when its last message goes; left out if nobody knows, or if it expires before."`
	Metadata map[string]string `json:"metadata,omitempty" doc:"What the producer gave with it."`
}

// BatchCounts are the numbers of a batch's messages.
type BatchCounts struct {
	Open      int `json:"open" doc:"Waiting or being sent."`
	Delivered int `json:"delivered" doc:"The provider took responsibility for every recipient; a bounce may still follow."`
	Failed    int `json:"failed" doc:"At least one recipient will not get it unless somebody does something. GET /v1/failed?batch_id=ID lists them."`
	Cancelled int `json:"cancelled" doc:"Ended by request."`
	Expired   int `json:"expired" doc:"Ended because expires_at passed."`
}

func messageStatus(s *queue.MessageStatus, o *queue.Outlook, with adviser) MessageStatus {
	with.message = s.ID
	m := MessageStatus{
		ID: s.ID, BatchID: s.BatchID, Kind: s.Kind, State: s.State, WaitsFor: waitsFor(s, o), Accepted: s.Accepted, Due: s.Due, ExpiresAt: s.ExpiresAt,
		Finished: s.Finished, Requeued: s.Requeued, Counted: s.Attempts, Metadata: s.Metadata,
		Attempts: make([]Attempt, len(s.History)), Recipients: make([]RecipientStatus, len(s.Recipients)),
	}
	if o != nil {
		m.Expected, m.Ahead, m.Hold = utc(o.Expected), o.Ahead, with.holdOf(o)
	}
	if s.State == queue.Delivered {
		m.Note = "The provider took responsibility for it; a bounce may still follow."
	}
	for i, a := range s.History {
		m.Attempts[i] = Attempt{Begun: a.Begun, Seconds: a.Duration.Seconds(), Worker: a.Worker, Former: with.former(a.Begun), Outcomes: make([]Outcome, len(a.Outcomes))}
		for j, o := range a.Outcomes {
			m.Attempts[i].Outcomes[j] = with.outcome(o, a.Begun)
		}
	}
	for i, r := range s.Recipients {
		m.Recipients[i] = RecipientStatus(r)
		switch r.State {
		case "delivered":
			m.Counts.Delivered++
		case "refused":
			m.Counts.Refused++
		default:
			m.Counts.Pending++
		}
	}
	return m
}

func batchStatus(s *queue.BatchStatus, o *queue.Outlook, with adviser) BatchStatus {
	b := BatchStatus{
		ID: s.ID, Kind: s.Kind, Mailbox: s.Mailbox, Accepted: s.Accepted, SendAt: s.SendAt, ExpiresAt: s.ExpiresAt, Total: s.Total, Cancelled: s.Cancel, Metadata: s.Metadata,
		Counts:   BatchCounts{Open: s.Open, Delivered: s.Delivered, Failed: s.Failed, Cancelled: s.Cancelled, Expired: s.Expired},
		WaitsFor: batchWaitsFor(o), Hold: with.holdOf(o),
	}
	if o != nil {
		b.Through = utc(o.Expected)
	}
	if s.Total > 0 {
		b.Progress = float64(s.Total-s.Open) / float64(s.Total)
	}
	return b
}
