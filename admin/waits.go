package admin

import (
	"fmt"
	"strings"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/queue"
)

// waitsFor says why a message is not on its way; "" if it does not wait.
func waitsFor(s *queue.MessageStatus, o *queue.Outlook) string {
	if s.State != queue.Queued || o == nil {
		return ""
	}
	return waitsBy(lastClass(s.History), o) + expiry(o)
}

// waitsBy says what a message waits for, by the class of its last attempt ("": none).
func waitsBy(class string, o *queue.Outlook) string {
	const waits = "It waits"
	in := obstacle(o)
	switch {
	case o.Wait == queue.WaitsForTime:
		return waitsForTime(class, o.Until)
	case in != "":
		return in + ahead(o.Ahead, "")
	case missing(o) != "":
		return waits + missing(o)
	case class != "":
		return turn(waits+" for its turn to be tried again", o.Ahead)
	}
	return turn(waits+" for its turn", o.Ahead)
}

// waitsForTime says what a time is for, by the class of the last attempt.
func waitsForTime(class string, until time.Time) string {
	at := instant(until)
	switch class {
	case "":
		return "It waits for its time, " + at + " (send_at)."
	}
	return "The last attempt came to " + class + ": it is tried again from " + at + "."
}

// batchWaitsFor says why the last message of a batch is not on its way; "" if none waits for its turn.
func batchWaitsFor(o *queue.Outlook) string {
	if o == nil {
		return ""
	}
	const waits, others = "Its last message waits", " of others"
	text := ""
	switch in := obstacle(o); {
	case o.Wait == queue.WaitsForTime:
		text = waitsForTime("", o.Until)
	case in != "":
		text = waits + ": " + strings.ToLower(in[:1]) + in[1:] + ahead(o.Ahead, others)
	case missing(o) != "":
		text = waits + missing(o)
	case o.Ahead > 0:
		text = waits + " for its turn:" + strings.ToLower(ahead(o.Ahead, others))
	case o.Own > 0:
		text = waits + " for its turn, behind the others of its batch."
	default:
		text = turn(waits+" for its turn", 0)
	}
	return text + expiry(o)
}

// missing completes "It waits": for what has to be there before any mail goes; "" if it is.
func missing(o *queue.Outlook) string {
	switch {
	case o.Wait == queue.WaitsForProvider:
		return " until a provider is active: there is none."
	case o.Wait == queue.WaitsForWorker && o.Workers.Running > 0:
		return " until a worker can load the provider's settings: none can."
	case o.Wait == queue.WaitsForWorker:
		return " until a worker runs: there is none."
	}
	return ""
}

// expiry is a sentence with a space before it; "" if what waits does not expire, or goes before that as far as anybody knows.
func expiry(o *queue.Outlook) string {
	switch {
	case o.TooLate:
		return " It expires at " + instant(o.ExpiresAt) + ", before it can go."
	case !o.ExpiresAt.IsZero() && o.Expected.IsZero():
		return " It expires at " + instant(o.ExpiresAt) + " if it has not gone by then."
	}
	return ""
}

func turn(waits string, n int) string {
	if n == 0 {
		return waits + ", which comes next."
	}
	return waits + ":" + strings.ToLower(ahead(n, ""))
}

// ahead is a sentence with a space before it; "" if nothing goes first. whose says of whom, if that is to be told.
func ahead(n int, whose string) string {
	switch n {
	case 0:
		return ""
	case 1:
		return " About 1 message" + whose + " goes first."
	}
	return fmt.Sprintf(" About %d messages%s go first.", n, whose)
}

// obstacle says what lets nothing of a mailbox begin, and until when; "" if nothing does.
func obstacle(o *queue.Outlook) string {
	switch o.Wait {
	case queue.WaitsForPause:
		by := ""
		if o.Silence.By != "" {
			by = " by " + o.Silence.By
		}
		return fmt.Sprintf("%s is paused until %s%s: %q.", mailOf(o), instant(o.Until), by, o.Silence.Reason) + idle(o)
	case queue.WaitsForHold:
		until := "until " + instant(o.Until) + ", when one message is tried"
		if o.Silence.Trying {
			until = "while one message is being tried"
		}
		return fmt.Sprintf("%s is held %s: %s.%s", mailOf(o), until, holdWords(o.Silence.Reason), ledTo(o.Silence)) + idle(o)
	case queue.WaitsForLimit:
		if o.Until.IsZero() {
			return fmt.Sprintf("The limit of %s is used up by what is being sent.", limitWords(string(o.Limit)))
		}
		return fmt.Sprintf("The limit of %s is used up until %s.", limitWords(string(o.Limit)), instant(o.Until))
	}
	return ""
}

// idle says beside another obstacle that no worker can send, with a space before it; "" if one can.
func idle(o *queue.Outlook) string {
	switch {
	case o.Workers.Able():
		return ""
	case o.Workers.Running > 0:
		return " No worker can load the provider's settings either."
	}
	return " No worker runs either."
}

func mailOf(o *queue.Outlook) string {
	if o.Silence.All {
		return "All mail"
	}
	return "Mail of " + o.Key
}

// holdWords say why a mailbox is held.
func holdWords(reason string) string {
	switch reason {
	case "throttled":
		return "the provider asked us to slow down"
	case "configuration":
		return "the provider's settings, or its mailbox, have to be put right"
	case "unreachable":
		return "the provider can't be reached"
	}
	return reason
}

// ledTo says what led to a hold, in a sentence with a space before it; "" if that says no more than its reason.
func ledTo(s *queue.Silence) string {
	o := &s.Last
	if o.Class == "" || o.Class == mail.Throttled.String() && o.Cause == "" {
		return ""
	}
	text := " " + strings.TrimSuffix(provider.Advise(reported(*o)).Happened, ".")
	if o.Code != 0 {
		text += " (" + strings.TrimSpace(fmt.Sprintf("%d %s", o.Code, o.Enhanced)) + ")"
	}
	return text + "."
}

// limitWords say what a limit counts.
func limitWords(name string) string {
	if name == "upload_bytes" {
		return "bytes uploaded"
	}
	return name
}

// standing is what the next message of a mailbox waits for, as the queue's outlook of a message has it.
func standing(m *queue.Mailbox) *queue.Outlook {
	o := &queue.Outlook{Wait: queue.WaitsForTurn, Key: m.Key, Workers: m.Workers}
	switch {
	case m.Pause != nil && (m.Hold == nil || !m.Hold.Until.After(m.Pause.Until)):
		o.Wait, o.Silence, o.Until = queue.WaitsForPause, m.Pause, m.Pause.Until
	case m.Hold != nil:
		o.Wait, o.Silence, o.Until = queue.WaitsForHold, m.Hold, m.Hold.Until
	case !m.Workers.Able():
		o.Wait = queue.WaitsForWorker
	default:
		for _, l := range m.Limits {
			if l.Used >= l.Max && (o.Limit == "" || l.Until.After(o.Until)) {
				o.Wait, o.Limit, o.Until = queue.WaitsForLimit, l.Name, l.Until
			}
		}
	}
	return o
}

// stateOf gives the state of a mailbox.
func stateOf(o *queue.Outlook) string {
	switch o.Wait {
	case queue.WaitsForPause:
		return "paused"
	case queue.WaitsForHold:
		return "held"
	case queue.WaitsForWorker:
		return string(queue.WaitsForWorker)
	case queue.WaitsForLimit:
		return "limited"
	}
	return "flows"
}

// summary says whether mail of a mailbox flows, and if not why and until when.
func summary(m *queue.Mailbox) string {
	waiting := "Nothing waits."
	switch n := m.Waiting(); n {
	case 0:
	case 1:
		waiting = "1 message waits."
	default:
		waiting = fmt.Sprintf("%d messages wait.", n)
	}
	o := standing(m)
	text := obstacle(o)
	switch {
	case o.Wait == queue.WaitsForWorker && o.Workers.Running > 0:
		text = "Mail of " + m.Key + " does not go: no worker can load the provider's settings."
	case o.Wait == queue.WaitsForWorker:
		text = "Mail of " + m.Key + " does not go: no worker runs."
	case text == "":
		text = "Mail of " + m.Key + " flows."
	}
	return text + " " + waiting
}

// instant writes a time in a sentence.
func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// lastClass gives the class of the last attempt that kept the message from ending; "" if there was no attempt.
func lastClass(history []queue.AttemptReport) string {
	if len(history) == 0 {
		return ""
	}
	class := ""
	for _, o := range history[len(history)-1].Outcomes {
		if class == "" || class == mail.Delivered.String() || class == mail.Permanent.String() {
			class = o.Class
		}
	}
	return class
}
