package queue

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postroom/postroom/mail"
)

// formatVersion is the version of records, batches and turn tasks that this code writes. A worker leaves newer ones
// waiting. prelude.lua has the same constant.
const formatVersion = "1"

// State says where a message is in its life.
type State string

// The states of a message.
const (
	// Queued: it waits for its turn, for its time (send_at, a retry), or for a hold to end.
	Queued State = "queued"
	// Sending: an attempt is under way.
	Sending State = "sending"
	// Delivered: the provider took responsibility for every recipient; a bounce may still follow.
	Delivered State = "delivered"
	// Failed: at least one recipient will not get it unless somebody does something; it is in the failed store.
	Failed State = "failed"
	// Cancelled: ended by request before it was delivered.
	Cancelled State = "cancelled"
	// Expired: its expires_at passed before it was delivered.
	Expired State = "expired"
)

var stateOf = map[string]State{"q": Queued, "s": Sending, "d": Delivered, "f": Failed, "c": Cancelled, "e": Expired}

var kindOf = map[string]mail.Kind{"a": mail.Alert, "r": mail.Report, "s": mail.Subscription}

// letter is a kind in records and in the names of keys.
func letter(k mail.Kind) string { return string(k[0]) }

// Positions in a record's head; prelude.lua has the same.
const (
	headVersion = iota
	headState
	headKind
	headBatch
	headGeneration
	headAttempts
	headFirst
	headAttempt
	headBegun
	headClass
	headMarks
	headWhen
	headExpires
	headSender
	headChunks
	headBytes
	headRequeued // when it was last taken out of the failed store
	headKept     // what the sender keeps of it at the provider between attempts
	headFiles    // the number of its own files, if its content is large or it refers to others
	headRefs     // stored files that it refers to, beside those of its batch: see refs.encode
	headTrace    // trace context of a single message's producer: see traceText
	headFields
)

// Marks of recipients in a record, a letter each, in the order of To, Cc, Bcc.
const (
	markPending   = 'p'
	markDelivered = 'd'
	markRefused   = 'x'
	// markHeld: nobody knows whether the recipient has it, and it is not offered to him again by itself. In the failed store he is
	// pending.
	markHeld = 'u'
)

// item is what a message has of its own; a message of a batch has no Cc and Bcc of its own.
type item struct {
	mail.Recipient
	Cc  []mail.Address `json:"cc,omitempty"`
	Bcc []mail.Address `json:"bcc,omitempty"`
	// Sizes are those of the recipient's attachments, which are stored by themselves.
	Sizes []int `json:"sizes,omitempty"`
}

// newItem makes the item of a batch's message.
func newItem(r mail.Recipient) item {
	it := item{Recipient: r}
	for _, a := range r.Attachments {
		it.Sizes = append(it.Sizes, int(a.Size))
	}
	return it
}

// record is a message's record, as Redis has it.
type record struct {
	head    [headFields]string
	payload string // the item as JSON; empty once the message has ended
	meta    string // the metadata as JSON, or empty
	history string
}

func parseRecord(raw string) (*record, error) {
	head, rest, ok := strings.Cut(raw, "\n")
	if !ok {
		return nil, fmt.Errorf("queue: record: no payload line")
	}
	payload, history, _ := strings.Cut(rest, "\n")
	r := &record{history: history}
	r.payload, r.meta, _ = strings.Cut(payload, "\t")
	i := 0
	for field := range strings.SplitSeq(head, "\t") {
		if i < headFields {
			r.head[i] = field
		}
		i++
	}
	if r.head[headVersion] != formatVersion {
		return nil, fmt.Errorf("queue: record: format %q is newer than this program", r.head[headVersion])
	}
	return r, nil
}

// encode is the inverse of parseRecord.
func (r *record) encode() string {
	n := headFields
	for n > 1 && r.head[n-1] == "" {
		n--
	}
	var b strings.Builder
	for i, field := range r.head[:n] {
		if i > 0 {
			b.WriteByte('\t')
		}
		b.WriteString(field)
	}
	b.WriteByte('\n')
	b.WriteString(r.payload)
	if r.meta != "" {
		b.WriteByte('\t')
		b.WriteString(r.meta)
	}
	b.WriteByte('\n')
	b.WriteString(r.history)
	return b.String()
}

func (r *record) item() (*item, error) {
	it := &item{}
	if r.payload == "" {
		return it, nil
	}
	d := json.NewDecoder(strings.NewReader(r.payload))
	d.UseNumber() // 10000000000 stays 10000000000 in a template
	if err := d.Decode(it); err != nil {
		return nil, fmt.Errorf("queue: record: payload: %w", err)
	}
	return it, nil
}

// doubtful gives when the first and the last attempt began of which nobody knows what became for one of the recipients; zero if there is
// none.
func (r *record) doubtful(recipients []int) (first, last time.Time) {
	if !strings.Contains(r.history, ";u;") {
		return first, last
	}
	for _, a := range parseHistory(r.history, time.Time{}) {
		for _, o := range a.Outcomes {
			of := func(recipient int) bool { return slices.Contains(o.Recipients, recipient) }
			if o.Class == mail.Unknown.String() && (len(o.Recipients) == 0 || slices.ContainsFunc(recipients, of)) {
				if last = a.Begun; first.IsZero() {
					first = last
				}
			}
		}
	}
	return first, last
}

func (r *record) attempts() int { return atoi(r.head[headAttempts]) }

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

// unixMilli reads a time in milliseconds; an empty field is the zero time.
func unixMilli(s string) time.Time {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(n).UTC()
}

// letters of classes and scopes in the history.
const (
	classLetters = "tdhcpu"
	scopeLetters = "mrbp"
)

// deliveredReply is how much of the reply a delivered recipient keeps: the queue id of the next server is in it.
const deliveredReply = 40

// historyLine writes one attempt for a record's history: the worker, then a group for each distinct outcome:
// indexes;class;scope;cause;step;code;enhanced;retry-after in s;reply. The script puts begin and duration in front.
func historyLine(worker string, indexes []int, outcomes []mail.Outcome) string {
	type group struct {
		outcome mail.Outcome
		indexes []string
	}
	var groups []*group
	byOutcome := make(map[mail.Outcome]*group, 1)
	for i, o := range outcomes {
		g := byOutcome[o]
		if g == nil {
			g = &group{outcome: o}
			byOutcome[o] = g
			groups = append(groups, g)
		}
		g.indexes = append(g.indexes, strconv.Itoa(indexes[i]))
	}
	var b strings.Builder
	b.WriteString(worker)
	for _, g := range groups {
		o := g.outcome
		list := strings.Join(g.indexes, ",")
		if len(groups) == 1 {
			list = "" // everybody who was offered
		}
		reply := oneLine(o.Reply)
		if o.Class == mail.Delivered {
			reply = clip(reply, deliveredReply)
			fmt.Fprintf(&b, "\t%s;d;;;;;;;%s", list, reply)
			continue
		}
		code, after := "", ""
		if o.Code != 0 {
			code = strconv.Itoa(o.Code)
		}
		if o.RetryAfter > 0 {
			after = strconv.Itoa(int(o.RetryAfter.Seconds()))
		}
		fmt.Fprintf(&b, "\t%s;%c;%c;%s;%s;%s;%s;%s;%s", list, classLetters[o.Class], scopeLetters[o.Scope],
			field(string(o.Cause)), field(o.Step), code, field(o.Enhanced), after, reply)
	}
	return b.String()
}

// oneLine makes text safe for a line of a record.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

func field(s string) string { return strings.ReplaceAll(oneLine(s), ";", ",") }

// clip shortens s to at most n bytes without cutting a character in two.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// AttemptReport is one attempt as a message's history has it.
type AttemptReport struct {
	Begun    time.Time       `json:"begun"`
	Duration time.Duration   `json:"duration"`
	Worker   string          `json:"worker"`
	Outcomes []OutcomeReport `json:"outcomes"`
}

// OutcomeReport is what an attempt came to, for the recipients who share it.
type OutcomeReport struct {
	// Recipients are indexes into the message's recipients (To, Cc, Bcc); empty: everybody who was offered.
	Recipients []int  `json:"recipients,omitempty"`
	Class      string `json:"class"`
	Scope      string `json:"scope,omitempty"`
	// Cause is a mail.Cause.
	Cause    string `json:"cause,omitempty"`
	Step     string `json:"step,omitempty"`
	Code     int    `json:"code,omitempty"`
	Enhanced string `json:"enhanced,omitempty"`
	// Reply is the provider's own words. They can name recipients.
	Reply string `json:"reply,omitempty"`
}

func parseHistory(history string, finished time.Time) []AttemptReport {
	var reports []AttemptReport
	for line := range strings.SplitSeq(history, "\n") {
		fields := strings.Split(line, "\t")
		if len(fields) < 4 {
			continue
		}
		a := AttemptReport{
			Begun:    unixMilli(fields[0]),
			Duration: time.Duration(atoi(fields[1])) * time.Millisecond,
			Worker:   fields[2],
		}
		if a.Begun.IsZero() {
			a.Begun = finished.Add(-a.Duration) // the last one of a message that ended well
		}
		for _, g := range fields[3:] {
			if o, ok := parseGroup(g); ok {
				a.Outcomes = append(a.Outcomes, o)
			}
		}
		reports = append(reports, a)
	}
	return reports
}

// parseGroup reads what an attempt came to for those who share it.
func parseGroup(group string) (OutcomeReport, bool) {
	p := strings.SplitN(group, ";", 9)
	if len(p) < 9 {
		return OutcomeReport{}, false
	}
	o := OutcomeReport{
		Class: named(p[1], classLetters, func(i int) string { return mail.Class(i).String() }),
		Scope: named(p[2], scopeLetters, func(i int) string { return mail.Scope(i).String() }),
		Cause: p[3], Step: p[4], Code: atoi(p[5]), Enhanced: p[6], Reply: p[8],
	}
	if p[0] != "" {
		for index := range strings.SplitSeq(p[0], ",") {
			o.Recipients = append(o.Recipients, atoi(index))
		}
	}
	return o, true
}

func named(letter, letters string, name func(int) string) string {
	i := strings.Index(letters, letter)
	if letter == "" || i < 0 {
		return ""
	}
	return name(i)
}
