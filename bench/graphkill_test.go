package bench

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider/graph/graphtest"
	"github.com/postroom/postroom/queue"
)

// dossier is what the messages of these tests have attached: a file that is uploaded in two ranges, and one that goes in a request.
func dossier() []mail.Attachment {
	return []mail.Attachment{random("large.pdf", 4<<20), random("small.pdf", 1000)}
}

// TestKilledBetweenDraftUploadAndSend kills the worker that is just making a draft, adding its files and sending it.
func TestKilledBetweenDraftUploadAndSend(t *testing.T) {
	t.Parallel()
	t.Run("at each step", killedAtEachStep)
	t.Run("at random", killedAtRandom)
}

// death is where the worker of a message dies.
type death struct {
	on   graphtest.Operation
	at   graphtest.Moment
	skip int
	// late has the request go on after so long, which the client does not live to see; 0: it ends without an effect, or has had it.
	late time.Duration
	// orphan says that the draft is made after the next attempt has looked for it, so that it stays.
	orphan bool
}

// deaths are before and after each step has its effect. The long form has requests that come to their effect late, too: before, while
// and after another worker looks what became of the message.
func deaths() []death {
	all := []death{
		{on: graphtest.CreateDraft, at: graphtest.Received},
		{on: graphtest.CreateDraft, at: graphtest.Accepted},
		{on: graphtest.SendDraft, at: graphtest.Accepted},
	}
	steps := []death{{on: graphtest.CreateUpload}, {on: graphtest.PutRange}, {on: graphtest.PutRange, skip: 1}, {on: graphtest.AddAttachment}}
	for _, d := range steps {
		for _, at := range []graphtest.Moment{graphtest.Received, graphtest.Accepted} {
			d.at = at
			all = append(all, d)
		}
	}
	if !*full {
		return all
	}
	all = append(all, death{on: graphtest.SendDraft, at: graphtest.Received})
	for k := range 12 {
		all = append(all, death{on: graphtest.SendDraft, at: graphtest.Received, late: time.Duration(20+5*k) * time.Second})
	}
	for _, d := range steps {
		d.at, d.late = graphtest.Received, time.Minute
		all = append(all, d)
	}
	return append(all, death{on: graphtest.CreateDraft, at: graphtest.Received, late: time.Minute, orphan: true})
}

// killedAtEachStep has one worker be with the messages of many mailboxes, each at another step, and kills it.
func killedAtEachStep(t *testing.T) {
	t.Parallel()
	all, files := deaths(), dossier()
	y := occupy(t, len(all), graphtest.Options{Limits: &graphtest.Limits{}, MaxBytes: 1 << 30}, map[string]any{"verify_sends": true}, unlimited(1), soon(queue.Resend))
	for i, d := range all {
		m := graphtest.Mishap{Mailbox: mailbox(i), On: []graphtest.Operation{d.on}, At: d.at, Skip: d.skip, Delay: d.late}
		if d.late == 0 {
			m.Delay, m.Cut = time.Hour, true // the tenant's end ends it
		}
		y.tenant.Provoke(m)
	}
	first := y.serve("--roles", "worker")
	ids := make([]string, len(all))
	for i := range all {
		accepted, err := y.api.Send(t.Context(), mail.Message{Kind: mail.Report, From: mail.Address{Address: mailbox(i)},
			To: []mail.Address{{Address: "ada@example.net"}}, Subject: "Figures", Text: "They are attached.", Attachments: files}, "")
		if err != nil {
			t.Fatal(err)
		}
		ids[i] = accepted.ID
	}
	// reached counts the requests that were held up, and those of them that are over.
	reached := func() (n, over int) {
		for _, r := range y.tenant.Requests() {
			if r.Mishap {
				n++
				if !r.Replied.IsZero() {
					over++
				}
			}
		}
		return n, over
	}
	await(t, time.Minute, "each message to be where its worker dies", func() bool { n, _ := reached(); return n == len(all) })
	y.serve("--roles", "worker")
	first.kill()
	killed := time.Now()
	await(t, 3*time.Minute, "all messages to be delivered", func() bool {
		for _, id := range ids {
			if y.message(id).State != queue.Delivered {
				return false
			}
		}
		return true
	})
	took := time.Since(killed)
	late := 0
	for _, d := range all {
		if d.late > 0 {
			late++
		}
	}
	await(t, 3*time.Minute, "the late requests to be over", func() bool { _, over := reached(); return over == late })

	got := map[string][]*graphtest.Message{}
	for _, m := range y.tenant.Messages() {
		got[m.Mailbox] = append(got[m.Mailbox], m)
	}
	orphans := 0
	for i, d := range all {
		what := fmt.Sprintf("killed at %s, moment %d, after %d others, late by %v", d.on, d.at, d.skip, d.late)
		if its := got[mailbox(i)]; len(its) != 1 || !whole(its[0], files) {
			t.Errorf("%s: %d messages came, want one with both files", what, len(its))
		}
		want := 0
		if d.orphan {
			want = 1
		}
		drafts := y.tenant.Drafts(mailbox(i))
		if drafts != want {
			t.Errorf("%s: %d drafts are left, want %d", what, drafts, want)
		}
		orphans += drafts
	}
	if t.Failed() {
		return
	}
	t.Logf("a worker was killed with %d messages at a step each: all were delivered within %v, each once and whole; %d drafts are left, made after anybody looked for them",
		len(all), took.Round(100*time.Millisecond), orphans)
}

// killedAtRandom kills one of three workers after the other. It is for the long form: a short one would show little.
func killedAtRandom(t *testing.T) {
	if !*full {
		t.Skip("it is run with -full")
	}
	t.Parallel()
	const mailboxes, each, kills, concurrency = 3, 40, 8, 2
	files := dossier()
	y := occupy(t, mailboxes, graphtest.Options{Limits: &graphtest.Limits{}, Latency: 600 * time.Millisecond, MaxBytes: 1 << 30},
		map[string]any{"verify_sends": true}, unlimited(concurrency), soon(queue.Resend))
	var batches []string
	for i := range mailboxes {
		b := newsletter(each)
		b.Message.From, b.Message.Attachments = mail.Address{Address: mailbox(i)}, files
		batch, _ := y.accept(b)
		batches = append(batches, batch)
	}
	workers := []*postroom{y.serve("--roles", "worker"), y.serve("--roles", "worker"), y.serve("--roles", "worker")}
	open := func() int {
		n := 0
		for _, b := range batches {
			if c := y.counts(b); c != nil {
				n += c.Open
			}
		}
		return n
	}
	cut := 0
	for range kills {
		pass(t.Context(), 3*time.Second+rand.N(6*time.Second))
		if open() == 0 {
			break
		}
		victim := rand.IntN(len(workers))
		workers[victim].kill()
		cut++
		workers[victim] = y.serve("--roles", "worker")
	}
	for _, b := range batches {
		y.awaitDelivered(b, each, 5*time.Minute)
	}

	for who, n := range y.came() {
		if n != 1 {
			t.Errorf("%s came %d times", who, n)
		}
	}
	if n := y.tenant.Received(); n != mailboxes*each {
		t.Errorf("%d messages came, want %d", n, mailboxes*each)
	}
	for _, m := range y.tenant.Messages() {
		if !whole(m, files) {
			t.Errorf("message %d is not whole: %d files", m.ID, len(m.Files))
		}
	}
	made := map[graphtest.Operation]int{}
	for _, r := range y.tenant.Requests() {
		if r.Accepted {
			made[r.Operation]++
		}
	}
	left := 0
	for i := range mailboxes {
		left += y.tenant.Drafts(mailbox(i))
	}
	if left > 0 {
		t.Errorf("%d kills left %d drafts", cut, left)
	}
	if made[graphtest.CreateDraft] <= mailboxes*each {
		t.Errorf("%d drafts were made for %d messages: this proves nothing", made[graphtest.CreateDraft], mailboxes*each)
	}
	if t.Failed() {
		return
	}
	t.Logf("%d messages, %d kills, each came once and whole; no draft is left; requests that had an effect: %v", mailboxes*each, cut, made)
}
