package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// ordeal is a run of mail, through two processes, to a server with which something is wrong for a time in the middle of it.
// Nobody touches anything: it is put right at the server's side.
type ordeal struct {
	t           testing.TB
	peer        *peer
	concurrency int
	mails       int
	lasts       time.Duration // the trouble
	// class and hold are what the refusals lead to: the first hold, and the longest.
	class         mail.Class
	hold, longest time.Duration

	phase  atomic.Int32
	back   time.Time     // when it was put right
	probed atomic.Bool   // the first message after that has come
	first  time.Duration // after what time
}

// phases of an ordeal.
const (
	allWell = iota
	inTrouble
	putRight
)

func (o *ordeal) trouble() bool { return o.phase.Load() == inTrouble }

// refuse is a reply that takes its time, so that who comes beside somebody else is seen.
func (o *ordeal) refuse(reply string) string {
	pass(o.t.Context(), 200*time.Millisecond)
	return reply
}

// probe holds the first message after the trouble, and sees that nothing else comes meanwhile.
func (o *ordeal) probe(s *step) {
	if s.at != "body" || o.phase.Load() != putRight || o.probed.Swap(true) {
		return
	}
	o.first = time.Since(o.back)
	s.visit.peer.alone(500 * time.Millisecond)
}

// run has it all happen. begin and end are what goes wrong besides phase.
func (o *ordeal) run(begin, end func()) {
	t := o.t
	t.Helper()
	i := install(t, o.peer.provider(o.concurrency))
	workers := []*postroom{i.serve(), i.serve()}
	batch, ids := i.accept(newsletter(o.mails))
	await(t, time.Minute, "the first part of the mails", func() bool { return o.peer.came.entered() >= o.mails*2/5 })

	o.phase.Store(inTrouble)
	begin()
	begun := time.Now()
	come := i.keepComing("")
	pass(t.Context(), o.lasts)
	waiting := i.counts(batch).Open
	box := i.account()
	o.back = time.Now()
	o.phase.Store(putRight)
	end()
	lasted := o.back.Sub(begun)

	i.awaitDelivered(batch, len(ids), patience())
	flowed := time.Since(o.back)
	ids = append(ids, come()...)
	await(t, time.Minute, "what came meanwhile to be through", func() bool { return i.unfinished() == 0 })
	o.peer.came.once(t, ids)
	i.countedOnce(ids)
	if waiting == 0 || !o.probed.Load() {
		t.Errorf("%d messages waited for the server: this proves nothing", waiting)
	}
	if box.Hold == nil {
		t.Error("the account was not held")
	}
	refused, others := o.attempts(workers)
	most := o.begunAtOnce() + o.probes(lasted)
	if refused == 0 || refused > most {
		t.Errorf("%d attempts were refused, want some and at most %d", refused, most)
	}
	if others > 0 {
		t.Errorf("%d attempts came to something else", others)
	}
	connections, logins := 0, 0
	for _, v := range o.peer.visited() {
		if v.opened.After(begun) && v.opened.Before(o.back) {
			connections++
			logins += v.logins
		}
	}
	t.Logf("%d mails, trouble for %v while %d waited: %d attempts met it (%d can have been under way when it began), the server saw %d connections and %d logins meanwhile",
		o.mails, lasted.Round(time.Second), waiting, refused, o.begunAtOnce(), connections, logins)
	t.Logf("put right: the first message came after %v, all were delivered after %v", o.first.Round(100*time.Millisecond), flowed.Round(100*time.Millisecond))
}

// attempts gives how many met the trouble, and how many came to anything else but a delivery.
func (o *ordeal) attempts(workers []*postroom) (refused, others int) {
	for _, class := range mail.Classes() {
		n := 0
		for _, w := range workers {
			n += int(w.metric(fmt.Sprintf(`postroom_attempts_total{class="%s",provider="smtp"}`, class)))
		}
		switch class {
		case o.class:
			refused = n
		case mail.Delivered:
		default:
			others += n
		}
	}
	return refused, others
}

// begunAtOnce is how many attempts can have begun when the first is refused.
func (o *ordeal) begunAtOnce() int { return hands * o.concurrency }

// probes is how many attempts a trouble of a length sees at most after the first refusals: one after each hold, each hold
// twice as long as the one before.
func (o *ordeal) probes(length time.Duration) int {
	n := 0
	for hold := o.hold; length > 0; hold = min(2*hold, o.longest) {
		length -= hold
		n++
	}
	return n
}

// oneByOne checks that no two connections were refused at the same time once the first hold was over: what had begun before the
// first refusal can come until then.
func (o *ordeal) oneByOne() {
	o.t.Helper()
	var first time.Time
	var last visit
	probes := 0
	for _, v := range o.peer.visited() {
		switch {
		case !v.refused:
		case first.IsZero():
			first = v.closed
		case v.opened.Sub(first) >= o.hold:
			probes++
			if v.opened.Before(last.closed) {
				o.t.Error("two probes came at once")
			}
			last = v
		}
	}
	o.t.Logf("%d probes were refused, one at a time", probes)
}

// troubleTime is how long a trouble lasts, patience how long mail may take after it: by then the hold is as long as the
// trouble was, and doubled once more.
func troubleTime() time.Duration { return time.Duration(size(120, 2)) * time.Second }

func patience() time.Duration { return time.Duration(size(600, 60)) * time.Second }

func TestAWrongPasswordInTheMiddleOfARunCostsNoMail(t *testing.T) {
	t.Parallel()
	o := &ordeal{t: t, concurrency: 10, mails: size(20_000, 600), lasts: troubleTime(),
		class: mail.Configuration, hold: 15 * time.Second, longest: 10 * time.Minute}
	o.peer = listen(t, func(s *step) string {
		switch {
		case s.at == "mail" && s.visit.messages() > 0 && o.trouble():
			return "421 4.7.0 Log in again"
		case s.at == "auth" && o.trouble():
			return o.refuse("535 5.7.8 Authentication credentials invalid")
		}
		o.probe(s)
		return ""
	})
	o.peer.wantsLogin = true
	o.run(func() {}, func() {})
	o.oneByOne()
}

func TestAServerAwayForMinutesCostsNoAttempts(t *testing.T) {
	t.Parallel()
	const goes = "421 4.3.2 Service not available, closing transmission channel"
	for name, greets := range map[string]bool{"it refuses connections": false, "it greets with 421": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := &ordeal{t: t, concurrency: 10, mails: size(20_000, 600), lasts: troubleTime(),
				class: mail.Temporary, hold: time.Second, longest: time.Minute}
			o.peer = listen(t, func(s *step) string {
				switch {
				case s.at == "mail" && s.visit.messages() > 0 && o.trouble():
					return goes // it ends the connections it has, one message after the other
				case s.at == "greeting" && o.trouble() && greets:
					return o.refuse(goes)
				}
				o.probe(s)
				return ""
			})
			begin, end := o.peer.goAway, o.peer.comeBack
			if greets {
				begin, end = func() {}, func() {}
			}
			o.run(begin, end)
			o.oneByOne()
		})
	}
}

// full554 is Exchange Online's, after the final dot.
const full554 = "554 5.2.2 mailbox full; STOREDRV.ClientSubmit; the sending mailbox is over its quota"

func TestAFullSendingMailboxHoldsAndLetsGo(t *testing.T) {
	t.Parallel()
	o := &ordeal{t: t, concurrency: 10, mails: size(5_000, 600), lasts: troubleTime(),
		class: mail.Configuration, hold: 15 * time.Second, longest: 10 * time.Minute}
	o.peer = listen(t, func(s *step) string {
		if s.at == "body" && o.trouble() {
			return o.refuse(full554)
		}
		o.probe(s)
		return ""
	})
	o.run(func() {}, func() {})
}

// TestAFullMailboxOfAnotherSenderHoldsItsMailAlone has one account send for two senders.
func TestAFullMailboxOfAnotherSenderHoldsItsMailAlone(t *testing.T) {
	t.Parallel()
	const concurrency, other = 10, "reports@example.com"
	n := size(2_000, 300)
	var full, probed atomic.Bool
	var refused, own atomic.Int64
	full.Store(true)
	o := &ordeal{concurrency: concurrency, hold: 15 * time.Second, longest: 10 * time.Minute}
	o.peer = listen(t, func(s *step) string {
		switch {
		case s.at != "body":
		case s.from == ownSender:
			own.Add(1)
		case full.Load():
			refused.Add(1)
			return full554
		case !probed.Swap(true):
			s.visit.peer.alone(500 * time.Millisecond)
		}
		return ""
	})
	i := install(t, o.peer.provider(concurrency))
	i.serve()
	i.serve()
	theirs := newsletter(n)
	theirs.Message.From = mail.Address{Address: other}
	held, heldIDs := i.accept(theirs)
	await(t, time.Minute, "the other sender's mail to be refused", func() bool { return refused.Load() > 0 })
	begun := time.Now()
	batch, ids := i.accept(newsletter(n))
	// Whoever is refused, the provider's own mail flows; and an account is not held for a sender's fault.
	i.awaitDelivered(batch, n, time.Minute)
	if box := i.account(); box.Hold != nil {
		t.Errorf("the whole account is held: %+v", box.Hold)
	}
	if box := i.mailbox(other); box.Hold == nil || box.Hold.Reason != mail.Configuration.String() {
		t.Errorf("the other sender's mail is not held: %+v", box)
	}
	waits := i.message(heldIDs[n-1])
	come := i.keepComing(other)
	pass(t.Context(), troubleTime()-time.Since(begun))
	most := o.begunAtOnce() + o.probes(time.Since(begun))
	full.Store(false)
	back := time.Now()
	if got := int(refused.Load()); got > most {
		t.Errorf("%d messages of the other sender were refused, want at most %d", got, most)
	}
	i.awaitDelivered(held, n, patience())
	heldIDs = append(heldIDs, come()...)
	await(t, time.Minute, "what came meanwhile to be through", func() bool { return i.unfinished() == 0 })
	o.peer.came.once(t, append(ids, heldIDs...))
	i.countedOnce(append(ids, heldIDs...))
	t.Logf("%d messages were refused in %v, while %d of the account's own sender went; a message that waited said %q; all delivered %v after it was put right",
		refused.Load(), back.Sub(begun).Round(time.Second), own.Load(), waits.WaitsFor, time.Since(back).Round(100*time.Millisecond))
}

// keepComing has single messages of a sender, "" for the provider's own, be handed in one after the other until come is called,
// which gives their ids. Whatever is held or probed meanwhile, there is always a reason to look.
func (i *installation) keepComing(sender string) (come func() []string) {
	ctx, stop := context.WithCancel(i.t.Context())
	var ids []string
	var producer sync.WaitGroup
	producer.Go(func() {
		for ctx.Err() == nil {
			m := mail.Message{Kind: mail.Kinds()[rand.IntN(3)], From: mail.Address{Address: sender},
				To: []mail.Address{{Address: "ops@example.net"}}, Subject: "Disk full", Text: "It is."}
			switch accepted, err := i.api.Send(context.WithoutCancel(ctx), m, ""); {
			case err == nil:
				ids = append(ids, accepted.ID)
			case ctx.Err() == nil:
				i.t.Errorf("what comes meanwhile: %v", err)
				return
			}
			pass(ctx, 50*time.Millisecond)
		}
	})
	i.t.Cleanup(func() {
		stop()
		producer.Wait()
	})
	return func() []string {
		stop()
		producer.Wait()
		return ids
	}
}

// account gives what is known of the account that sends for all.
func (i *installation) account() *admin.Mailbox {
	i.t.Helper()
	settings := i.provider["smtp"].(map[string]any)
	name := fmt.Sprintf("%s:%d", settings["host"], settings["port"])
	if auth, ok := settings["auth"].(map[string]any); ok {
		name = auth["username"].(string)
	}
	return i.mailbox(name)
}

// mailbox gives what is known of a mailbox.
func (i *installation) mailbox(address string) *admin.Mailbox {
	i.t.Helper()
	box, err := i.api.Mailbox(i.t.Context(), address)
	if err != nil {
		i.t.Fatalf("mailbox %s: %v", address, err)
	}
	return box
}

// countedOnce checks that each message was delivered in the first attempt that counted.
func (i *installation) countedOnce(ids []string) {
	i.t.Helper()
	wrong := 0
	for _, id := range ids {
		if m := i.message(id); m.State != queue.Delivered || m.Counted != 1 {
			if wrong++; wrong <= 5 {
				i.t.Errorf("message %s is %s after %d counted attempts", id, m.State, m.Counted)
			}
		}
	}
	if wrong > 5 {
		i.t.Errorf("so are %d messages in all", wrong)
	}
}
