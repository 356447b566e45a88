package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// race is mail that goes out while people requeue, cancel and delete it, and some of it expires.
type race struct {
	*installation
	t    testing.TB
	peer *peer
	calm atomic.Bool // the server takes everything now
	// lost counts, by copy, the attempts whose outcome nobody was told.
	lost ledger

	mu      sync.Mutex
	handed  map[string][]string // the recipients of each message
	ids     []string
	batches map[string][]string // the messages of each batch
	known   []string            // the batches
	// cancelled are the messages of which a client was told that they are.
	cancelled map[string]bool
	requeued  int
	deleted   int
	tooLate   int
}

// chance says yes in so many of a hundred cases.
func chance(percent int) bool { return rand.IntN(100) < percent }

// answer is what a moody server says.
func (r *race) answer(s *step) string {
	if r.calm.Load() {
		return ""
	}
	switch s.at {
	case "mail", "data":
		if chance(2) {
			return "451 4.3.0 Not now"
		}
	case "rcpt":
		switch {
		case chance(7):
			return "450 4.2.1 Not now"
		case chance(7):
			return "550 5.1.1 No such user here"
		}
	case "body":
		pass(r.t.Context(), time.Duration(20+rand.IntN(100))*time.Millisecond) // about as fast as mail comes
		switch {
		case chance(3):
			pass(r.t.Context(), 300*time.Millisecond)
		case chance(8):
			return "451 4.3.0 Not now"
		case chance(5):
			return "554 5.6.0 Never"
		case chance(4):
			for _, to := range s.to {
				r.lost.enter(copyFor(s.argument, to))
			}
			if chance(50) {
				s.take()
			}
			return hangUp
		}
	}
	return ""
}

// hand enters what was accepted.
func (r *race) hand(batch string, ids []string, recipients func(i int) []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, id := range ids {
		r.handed[id] = recipients(i)
	}
	r.ids = append(r.ids, ids...)
	if batch != "" {
		r.batches[batch] = ids
		r.known = append(r.known, batch)
	}
}

// produce hands in a batch and some single messages.
func (r *race) produce(ctx context.Context, n int) error {
	const copied = "archive@example.net"
	b := newsletter(n)
	b.Message.Kind = mail.Kinds()[rand.IntN(3)]
	if chance(30) {
		b.Message.Bcc = []mail.Address{{Address: copied}}
	}
	if chance(30) {
		b.Message.ExpiresAt = time.Now().Add(time.Duration(500+rand.IntN(2500)) * time.Millisecond)
	}
	accepted, err := r.api.SendBatch(ctx, b, "")
	if err != nil {
		return err
	}
	var ids []string
	for _, one := range accepted.Recipients {
		ids = append(ids, one.ID)
	}
	r.hand(accepted.ID, ids, func(i int) []string {
		to := []string{b.Recipients[i].To[0].Address}
		if len(b.Message.Bcc) > 0 {
			to = append(to, copied)
		}
		return to
	})
	for k := range n / 4 {
		m := mail.Message{Kind: mail.Kinds()[rand.IntN(3)], Subject: "Disk full", Text: "It is."}
		var to []string
		for j := range 1 + rand.IntN(3) {
			to = append(to, fmt.Sprintf("ops%02d-%d@example.net", k, j))
			m.To = append(m.To, mail.Address{Address: to[j]})
		}
		if chance(30) {
			m.ExpiresAt = time.Now().Add(time.Duration(500+rand.IntN(2500)) * time.Millisecond)
		}
		one, err := r.api.Send(ctx, m, "")
		if err != nil {
			return err
		}
		r.hand("", []string{one.ID}, func(int) []string { return to })
	}
	return nil
}

// any gives one of a list that others add to, mostly a late one, as that may be under way; "" if it is empty.
func (r *race) any(list *[]string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(*list)
	if n == 0 {
		return ""
	}
	if chance(70) {
		return (*list)[n-1-rand.IntN(min(n, 50))]
	}
	return (*list)[rand.IntN(n)]
}

// add counts.
func (r *race) add(what *int, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*what += n
}

func (r *race) cancelMessage(ctx context.Context) error {
	id := r.any(&r.ids)
	if id == "" {
		return nil
	}
	err := r.api.CancelMessage(ctx, id)
	var p *admin.Problem
	switch {
	case err == nil:
		r.mu.Lock()
		defer r.mu.Unlock()
		r.cancelled[id] = true
		return nil
	case errors.As(err, &p) && p.Status == http.StatusConflict:
		r.add(&r.tooLate, 1)
		return nil
	case errors.As(err, &p) && p.Status == http.StatusNotFound:
		return nil // it has been deleted
	}
	return err
}

func (r *race) cancelBatch(ctx context.Context) error {
	if batch := r.any(&r.known); batch != "" {
		return r.api.CancelBatch(ctx, batch)
	}
	return nil
}

// requeue takes a part of the failed store, or all of it, out again.
func (r *race) requeue(ctx context.Context) error {
	s := admin.Selection{All: true}
	if chance(50) {
		s = admin.Selection{Filter: admin.FailedFilter{Kind: mail.Kinds()[rand.IntN(3)]}}
	}
	for {
		done, err := r.api.Requeue(ctx, s)
		if err != nil {
			return err
		}
		r.add(&r.requeued, done.Done)
		if s.Cursor = done.Next; s.Cursor == "" {
			return nil
		}
	}
}

// remove deletes some of what has failed, which others may be about to requeue.
func (r *race) remove(ctx context.Context) error {
	page, err := r.api.Failed(ctx, admin.FailedFilter{}, "", 5)
	if err != nil || len(page.Messages) == 0 {
		return err
	}
	s := admin.Selection{}
	for _, m := range page.Messages {
		s.Filter.IDs = append(s.Filter.IDs, m.ID)
	}
	for {
		done, err := r.api.DeleteFailed(ctx, s)
		if err != nil {
			return err
		}
		r.add(&r.deleted, done.Done)
		if s.Cursor = done.Next; s.Cursor == "" {
			return nil
		}
	}
}

// TestRequeueCancelExpiryAndAnswersRace has two workers send to a server that answers by chance, while clients do by chance
// whatever can be done. In the end each message is in one final state, and everybody's books agree.
func TestRequeueCancelExpiryAndAnswersRace(t *testing.T) {
	t.Parallel()
	lasts := time.Duration(size(60, 4)) * time.Second
	total, each := size(6000, 400), 40
	r := &race{t: t, handed: map[string][]string{}, batches: map[string][]string{}, cancelled: map[string]bool{}}
	r.peer = listen(t, func(s *step) string { return r.answer(s) })
	r.installation = install(t, r.peer.provider(10))
	r.more = map[string]any{
		"retry": map[string]any{"delays": []string{"1s"}, "give_up": "3s"},
		"kinds": map[string]any{"report": map[string]any{"on_unknown": "hold"}},
	}
	workers := []*postroom{r.serve(), r.serve()}

	var clients sync.WaitGroup
	// often has a client do something again and again for a time; it finishes what it is at when that is over.
	often := func(lasts, pause time.Duration, what string, do func(context.Context) error) {
		clients.Go(func() {
			ctx, stop := context.WithTimeout(t.Context(), lasts)
			defer stop()
			for ctx.Err() == nil {
				if err := do(t.Context()); err != nil {
					t.Errorf("%s: %v", what, err)
					return
				}
				pass(ctx, pause/2+rand.N(pause))
			}
		})
	}
	parts := total / (each + each/4)
	often(lasts, lasts/time.Duration(parts), "produce", func(ctx context.Context) error {
		r.mu.Lock()
		n := len(r.ids)
		r.mu.Unlock()
		if n >= total {
			return nil
		}
		return r.produce(ctx, each)
	})
	often(lasts, 20*time.Millisecond, "cancel a message", r.cancelMessage)
	often(lasts, lasts/12, "cancel a batch", r.cancelBatch)
	// What fails in the end stays so.
	often(lasts*4/5, 200*time.Millisecond, "requeue", r.requeue)
	often(lasts*4/5, 300*time.Millisecond, "requeue", r.requeue)
	often(lasts*4/5, 500*time.Millisecond, "delete", r.remove)
	clients.Wait()
	r.calm.Store(true)
	ended := time.Now()
	await(t, time.Minute, "nothing to be open", func() bool { return r.unfinished() == 0 })
	t.Logf("nothing was open %v after the last client had gone", time.Since(ended).Round(10*time.Millisecond))
	r.settled(workers)
}

// unfinished is how many messages have not ended.
func (i *installation) unfinished() int {
	i.t.Helper()
	n := 0.0
	for _, k := range mail.Kinds() {
		n += i.front.metric(fmt.Sprintf(`postroom_messages{kind="%s",state="open"}`, k))
	}
	return int(n)
}

// settled checks that all books agree when nothing is open.
func (r *race) settled(workers []*postroom) {
	t := r.t
	t.Helper()
	states := map[string]queue.State{} // deleted: ""
	sums := map[queue.State]int{}
	copies, lost := r.peer.copies.read(), r.lost.read()
	for id, recipients := range r.handed {
		m, err := r.api.Message(t.Context(), id)
		var p *admin.Problem
		if errors.As(err, &p) && p.Status == http.StatusNotFound {
			states[id] = ""
			sums[""]++
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		states[id] = m.State
		sums[m.State]++
		r.agrees(m, recipients, copies, lost)
		if r.cancelled[id] && m.State != queue.Cancelled {
			t.Errorf("message %s is %s, and was cancelled", id, m.State)
		}
	}
	for id, recipients := range r.handed {
		for _, to := range recipients {
			its := copyFor(id, to)
			if copies[its] > 1+lost[its] {
				t.Errorf("message %s was accepted %d times for one recipient, and %d outcomes were lost", id, copies[its], lost[its])
			}
			delete(copies, its)
		}
	}
	if len(copies) > 0 {
		t.Errorf("the server took %d copies that nobody handed in", len(copies))
	}
	if sums[""] != r.deleted {
		t.Errorf("%d messages are gone, and %d were deleted", sums[""], r.deleted)
	}
	for batch, ids := range r.batches {
		var want admin.BatchCounts
		for _, id := range ids {
			switch states[id] {
			case queue.Delivered:
				want.Delivered++
			case queue.Failed, "": // a batch goes on counting what was deleted as failed
				want.Failed++
			case queue.Cancelled:
				want.Cancelled++
			case queue.Expired:
				want.Expired++
			}
		}
		if got := r.counts(batch); got == nil || *got != want {
			t.Errorf("batch %s has %+v, want %+v", batch, got, want)
		}
	}
	r.totals(states, sums, workers)
	t.Logf("%d messages: %d delivered, %d failed, %d cancelled, %d expired, %d deleted; %d times requeued, %d cancels too late, %d outcomes of copies lost",
		len(r.handed), sums[queue.Delivered], sums[queue.Failed], sums[queue.Cancelled], sums[queue.Expired], sums[""], r.requeued, r.tooLate, len(lost))
	if sums[queue.Delivered] == 0 || sums[queue.Failed] == 0 || sums[queue.Cancelled] == 0 || r.requeued == 0 || r.tooLate == 0 {
		t.Error("too little happened: this proves nothing")
	}
}

// agrees checks a message's record against what the server took.
func (r *race) agrees(m *admin.MessageStatus, recipients []string, copies, lost map[string]int) {
	t := r.t
	t.Helper()
	switch m.State {
	case queue.Delivered:
		if m.Counts.Delivered != len(recipients) {
			t.Errorf("message %s is delivered, to %d of %d", m.ID, m.Counts.Delivered, len(recipients))
		}
	case queue.Failed, queue.Cancelled, queue.Expired:
	default:
		t.Errorf("message %s is %s", m.ID, m.State)
	}
	for j, to := range recipients {
		state := "pending"
		if j < len(m.Recipients) {
			state = m.Recipients[j].State
		}
		its := copyFor(m.ID, to)
		switch n := copies[its]; {
		case state == "delivered" && n == 0:
			t.Errorf("message %s: recipient %d is %s, and the server has nothing for him", m.ID, j, state)
		case state != "delivered" && n > lost[its]:
			t.Errorf("message %s, %s: recipient %d is %s, and the server took it %d times; %d outcomes were lost", m.ID, m.State, j, state, n, lost[its])
		}
	}
}
