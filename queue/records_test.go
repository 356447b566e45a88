package queue

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue/queuetest"
)

// drain sends everything that may go, and says how many that was.
func drain(d *desk) int {
	n := 0
	for turns := d.turns(); len(turns) > 0; turns = d.turns() {
		for _, turn := range turns {
			for a := turn.Next(nil); a != nil; a = turn.Next(delivered(a)) {
				n++
			}
		}
	}
	return n
}

func exists(q *Queue, key ...string) bool {
	return q.redis.Exists(context.Background(), q.key(key...)).Val() == 1
}

func TestOldestRecordsGoFirstBeyondDeliveredMax(t *testing.T) {
	q, _ := onClock(t)
	q.options.DeliveredMax = 5
	d := sitDown(t, q, activate(t, q, 1), nil)
	var ids []string
	for range 12 {
		ids = append(ids, enqueue(t, q, message(mail.Report, "ada@example.net")))
	}
	if n := drain(d); n != 12 {
		t.Fatalf("%d were sent, want 12", n)
	}
	for i, id := range ids {
		if kept := exists(q, "m:", id); kept != (i >= 7) {
			t.Errorf("record %d of 12: kept %v; want the last 5", i, kept)
		}
	}
	if _, err := q.Message(t.Context(), ids[0]); err != ErrNotFound {
		t.Errorf("a dropped record: %v", err)
	}
	// A smaller maximum takes effect step by step.
	q.options.DeliveredMax = 1
	last := enqueue(t, q, message(mail.Report, "ada@example.net"))
	drain(d)
	if exists(q, "m:", ids[11]) || !exists(q, "m:", last) {
		t.Error("with a maximum of one it is not the last that is kept")
	}
}

func TestRecordsAreKeptForTheirTime(t *testing.T) {
	q, c := onClock(t)
	q.options.DeliveredFor, q.options.FailedFor = time.Hour, 3*time.Hour
	d := sitDown(t, q, activate(t, q, 1), nil)
	sent := enqueue(t, q, message(mail.Report, "ada@example.net"))
	gone := enqueue(t, q, message(mail.Report, "ada@example.net"))
	b := enqueueBatch(t, q, batch(mail.Subscription, 2))
	if err := q.CancelMessage(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	drain(d)
	failed := enqueue(t, q, message(mail.Alert, "nobody@example.net"))
	turn := d.turn()
	turn.Next(outcomes(turn.Next(nil), GiveUp, "x"))

	tidied := func(kept ...string) {
		t.Helper()
		if err := q.tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
		all := map[string]bool{"m:" + sent: false, "m:" + gone: false, "b:" + b.ID: false, "m:" + b.IDs[1]: false, "m:" + failed: false}
		for _, k := range kept {
			all[k] = true
		}
		for k, want := range all {
			if got := exists(q, k); got != want {
				t.Errorf("%s is there: %v, want %v", k, got, want)
			}
		}
	}
	c.advance(time.Hour - time.Millisecond)
	tidied("m:"+sent, "m:"+gone, "b:"+b.ID, "m:"+b.IDs[1], "m:"+failed)
	c.advance(time.Millisecond)
	tidied("m:" + failed)
	if s := status(t, q, failed); s.State != Failed || s.Recipients[0].Address != "nobody@example.net" || !exists(q, "c:", failed, ":0") {
		t.Errorf("a failed message is not whole: %+v", s)
	}
	c.advance(2 * time.Hour)
	tidied()
	noContentIsLeft(t, q)
	counts, err := q.Counts(t.Context())
	if err != nil || counts.Failed[mail.Alert] != 0 || counts.FailedByClass[mail.Permanent] != 0 {
		t.Errorf("counts: %+v, %v", counts, err)
	}
	if got := metric(t, q, "postroom_repairs_total", "failed_dropped"); got != 1 {
		t.Errorf("%v failed messages are counted as dropped, want 1", got)
	}
}

func TestFailedMailOfABatchKeepsItsShare(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	b := enqueueBatch(t, q, batch(mail.Report, 3))
	turn := d.turn()
	turn.Next(delivered(turn.Next(outcomes(turn.Next(delivered(turn.Next(nil))), GiveUp, "x"))))
	s, err := q.Batch(t.Context(), b.ID)
	if err != nil || s.Failed != 1 || s.Delivered != 2 || s.Open != 0 {
		t.Errorf("batch: %+v, %v", s, err)
	}
	if got := q.redis.HGet(t.Context(), q.key("b:", b.ID), "shares").Val(); got != "1" || !exists(q, "c:", b.ID, ":0") {
		t.Errorf("%s shares, content there: %v", got, exists(q, "c:", b.ID, ":0"))
	}
	if m := status(t, q, b.IDs[1]); m.State != Failed || m.Recipients[0].Address != "r1@example.net" {
		t.Errorf("failed: %+v", m)
	}
}

func TestNewerRecordsWait(t *testing.T) {
	for _, kind := range []string{"single", "batch", "scheduled"} {
		q, c := onClock(t)
		d := sitDown(t, q, activate(t, q, 1), nil)
		var id string
		switch kind {
		case "single":
			id = enqueue(t, q, message(mail.Report, "ada@example.net"))
		case "batch":
			id = enqueueBatch(t, q, batch(mail.Report, 1)).IDs[0]
		case "scheduled":
			m := message(mail.Report, "ada@example.net")
			m.SendAt = c.now.Add(time.Minute)
			id = enqueue(t, q, m)
			c.advance(time.Minute)
		}
		raw := q.redis.Get(t.Context(), q.key("m:", id)).Val()
		newer := "2" + raw[1:]
		q.redis.Set(t.Context(), q.key("m:", id), newer, 0)
		for range 3 {
			if n := drain(d); n != 0 {
				t.Fatalf("%s: a message of a newer format was sent", kind)
			}
			c.advance(2 * time.Minute)
		}
		if got := q.redis.Get(t.Context(), q.key("m:", id)).Val(); got != newer {
			t.Errorf("%s: a record of a newer format was changed", kind)
		}
		if _, err := q.Message(t.Context(), id); err == nil || err == ErrNotFound {
			t.Errorf("%s: its status: %v; want an error that says why", kind, err)
		}
		if got := metric(t, q, "postroom_messages_finished_total", "report", "delivered"); got != 0 {
			t.Errorf("%s: %v finished", kind, got)
		}
		q.redis.Set(t.Context(), q.key("m:", id), raw, 0)
		c.advance(2 * time.Minute)
		if n := drain(d); n != 1 {
			t.Errorf("%s: %d were sent once it could be read, want 1", kind, n)
		}
		booksAreClean(t, q)
	}
}

func TestMessageWithoutRecordIsPassedOver(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	b := enqueueBatch(t, q, batch(mail.Report, 120))
	for _, id := range b.IDs[:110] { // more than one script looks at
		q.redis.Del(t.Context(), q.key("m:", id))
	}
	if n := drain(d); n != 10 {
		t.Errorf("%d were sent, want the 10 that have records", n)
	}
	if got := metric(t, q, "postroom_stale_entries_total"); got != 110 {
		t.Errorf("%v entries are counted as stale, want 110", got)
	}
	for _, pattern := range []string{"l:*", "r:*", "s:*", "u:*"} {
		if keys := q.redis.Keys(t.Context(), q.key(pattern)).Val(); len(keys) > 0 {
			t.Errorf("left over: %v", keys)
		}
	}
}

func TestIndexesDeletedByHandBreakNoScript(t *testing.T) {
	for _, pattern := range []string{"l:*", "r:*", "s:*", "u:*", "keys", "due", "counts", "workers", "wake", "provider", "b:*", "c:*", "k:*", "finished", "failed"} {
		t.Run(pattern, func(t *testing.T) {
			q, c := onClock(t)
			version := activate(t, q, 2)
			d := sitDown(t, q, version, nil)
			b := enqueueBatch(t, q, batch(mail.Report, 6))
			enqueue(t, q, message(mail.Subscription, "ada@example.net"))
			later := message(mail.Alert, "ada@example.net")
			later.SendAt = c.now.Add(time.Minute)
			enqueue(t, q, later)
			turns := d.turns()
			again := outcomes(turns[0].Next(nil), Again, "t")
			again.Delay = time.Minute
			open := []*Attempt{turns[0].Next(again), turns[1].Next(nil)}
			if keys := q.redis.Keys(t.Context(), q.key(pattern)).Val(); len(keys) > 0 {
				q.redis.Del(t.Context(), keys...)
			}
			for i, turn := range turns {
				for a := open[i]; a != nil; a = turn.Next(delivered(a)) {
				}
			}
			c.advance(time.Minute)
			drain(d)
			d.dies()
			other := sitDown(t, q, activate(t, q, 2), nil)
			other.sweepAll()
			drain(other)
			if err := q.CancelBatch(t.Context(), b.ID); err != nil && err != ErrNotFound {
				t.Error(err)
			}
			if err := q.tidy(t.Context()); err != nil {
				t.Error(err)
			}
			// And what comes next goes out.
			if pattern == "s:*" || pattern == "r:*" {
				return // until the indexes are made again from the records
			}
			id := enqueue(t, q, message(mail.Alert, "ada@example.net"))
			drain(sitDown(t, q, activate(t, q, 2), nil))
			if s := status(t, q, id); s.State != Delivered {
				t.Errorf("new mail is %s", s.State)
			}
		})
	}
}

func TestNamespacesDoNotDisturbEachOther(t *testing.T) {
	r := queuetest.Start(t)
	client := asynq.NewClientFromRedisClient(r.Client)
	done := make(chan string, 100)
	server := asynq.NewServerFromRedisClient(r.Client, asynq.Config{Concurrency: 2, TaskCheckInterval: 5 * time.Millisecond, LogLevel: asynq.FatalLevel})
	if err := server.Start(asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error {
		done <- task.Type() + string(task.Payload())
		return nil
	})); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)

	type installation struct {
		q    *Queue
		sent chan string
		id   string
	}
	var all []installation
	for _, name := range []string{"postroom", "other"} {
		q, err := Open(t.Context(), Options{Client: r.Client, Namespace: name})
		if err != nil {
			t.Fatal(err)
		}
		one := installation{q: q, sent: make(chan string, 1000)}
		version := activate(t, q, 2)
		consume(t, q, version, func(a *Attempt) *Settlement {
			one.sent <- a.MessageID
			return delivered(a)
		})
		all = append(all, one)
	}
	for i := range all {
		all[i].id = enqueueBatch(t, all[i].q, batch(mail.Report, 50)).ID
	}
	for i := range 10 {
		if _, err := client.Enqueue(asynq.NewTask("theirs", fmt.Append(nil, i))); err != nil {
			t.Fatal(err)
		}
	}
	for i, one := range all {
		eventually(t, "the batch is delivered", func() bool {
			s, err := one.q.Batch(t.Context(), one.id)
			return err == nil && s.Delivered == 50
		})
		if _, err := all[1-i].q.Batch(t.Context(), one.id); err != ErrNotFound {
			t.Errorf("the other namespace knows the batch: %v", err)
		}
		if len(one.sent) != 50 {
			t.Errorf("namespace %d sent %d, want 50", i, len(one.sent))
		}
	}
	for range 10 {
		if name := <-done; !strings.HasPrefix(name, "theirs") {
			t.Errorf("the application's own asynq got %q", name)
		}
	}
	for _, key := range r.Client.Keys(t.Context(), "*").Val() {
		if !strings.HasPrefix(key, "{postroom}:") && !strings.HasPrefix(key, "{other}:") && !strings.HasPrefix(key, "asynq:") {
			t.Errorf("a key of nobody: %s", key)
		}
	}
}

// The budget: below 600 bytes for each queued message plus its own recipients and variables, content once; a delivered
// record at most 300 bytes.
func TestMemory(t *testing.T) {
	const n = 8_000
	r := queuetest.Start(t)
	q := open(t, r.Client)
	q.options.Limits.MaxBatch = n
	b := batch(mail.Subscription, n)
	b.Message.Attachments = []mail.Attachment{{Name: "report.bin", Content: make([]byte, 1_000_000)}}
	own := 0
	for _, one := range b.Recipients {
		own += len(one.To[0].Address) + len("name") + len(one.Variables["name"].(string))
	}
	version := activate(t, q, 1)
	d := sitDown(t, q, version, nil)
	// So that Redis has loaded our scripts, which are there once.
	enqueueBatch(t, q, batch(mail.Subscription, 1))
	drain(d)
	before := r.Memory()
	receipt := enqueueBatch(t, q, b)
	queued := float64(r.Memory()-before-1_000_000) / n
	perOwn := float64(own) / n
	t.Logf("queued: %.1f bytes each, of which %.1f are recipient and variables: %.1f beside them", queued, perOwn, queued-perOwn)
	if queued-perOwn >= 600 {
		t.Errorf("a queued message takes %.1f bytes beside its recipient and variables, want less than 600", queued-perOwn)
	}
	if keys := q.redis.Keys(t.Context(), q.key("c:*")).Val(); len(keys) != chunksOf(1_000_200) {
		t.Errorf("content is stored in %d pieces", len(keys))
	}
	if m := enqueueMemory(t, r, q); m > 1_000_000+700 {
		t.Errorf("a second batch of one takes %d bytes", m)
	}

	if sent := drain(d); sent != n+1 {
		t.Fatalf("%d were sent", sent)
	}
	after := r.Memory()
	delivered := float64(after-before) / n
	t.Logf("delivered: %.1f bytes each", delivered)
	if delivered > 300 {
		t.Errorf("a delivered record takes %.1f bytes, want 300 at most", delivered)
	}
	if s, err := q.Batch(t.Context(), receipt.ID); err != nil || s.Delivered != n {
		t.Errorf("batch: %+v, %v", s, err)
	}
}

// enqueueMemory gives what one more small batch takes.
func enqueueMemory(t *testing.T, r *queuetest.Redis, q *Queue) int64 {
	t.Helper()
	before := r.Memory()
	enqueueBatch(t, q, batch(mail.Report, 1))
	return r.Memory() - before
}

func TestContentInPiecesArrivesWhole(t *testing.T) {
	content := make([]byte, 2*chunkBytes+12345)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(content)
	want := sha256.Sum256(content)
	q := open(t, queuetest.Start(t).Client)
	d := sitDown(t, q, activate(t, q, 1), nil)
	single := message(mail.Report, "ada@example.net")
	single.Attachments = []mail.Attachment{{Name: "first.bin", Content: []byte("first")}, {Name: "report.bin", Content: content}}
	enqueue(t, q, single)
	many := batch(mail.Report, 2)
	many.Message.Attachments = single.Attachments
	b := enqueueBatch(t, q, many)
	if n := len(q.redis.Keys(t.Context(), q.key("c:", b.ID, ":*")).Val()); n != 3 {
		t.Errorf("the batch's content is in %d pieces, want 3", n)
	}
	turn, n := d.turn(), 0
	for a := turn.Next(nil); a != nil; a = turn.Next(delivered(a)) {
		n++
		if f := a.Message.Files; len(f) != 2 || string(f[0].Bytes) != "first" || sha256.Sum256(f[1].Bytes) != want {
			t.Errorf("message %d has other files", n)
		}
	}
	if n != 3 {
		t.Errorf("%d were sent, want 3", n)
	}
	noContentIsLeft(t, q)
}

func TestContentOfABatchIsLoadedOnce(t *testing.T) {
	r := queuetest.Start(t)
	q := open(t, r.Client)
	w := &wire{}
	o := *r.Client.Options()
	client := redis.NewClient(&o)
	t.Cleanup(func() { _ = client.Close() })
	counted := open(t, client)
	version := activate(t, q, 8)
	client.AddHook(w)
	consume(t, counted, version, delivered)
	many := batch(mail.Report, 200)
	many.Message.Attachments = []mail.Attachment{{Name: "report.bin", Content: make([]byte, chunkBytes+1)}}
	b := enqueueBatch(t, q, many)
	eventually(t, "the batch is delivered", func() bool {
		s, err := q.Batch(t.Context(), b.ID)
		return err == nil && s.Delivered == 200
	})
	if got := w.gets.Load(); got != 2 {
		t.Errorf("%d pieces of content were read, want each of the 2 once", got)
	}
}

func TestDamagedContentFailsTheMessageAlone(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	damaged := enqueue(t, q, message(mail.Report, "ada@example.net"))
	q.redis.Set(t.Context(), q.key("c:", damaged, ":0"), "no content", 0)
	fine := enqueue(t, q, message(mail.Report, "bob@example.net"))
	turn := d.turn()
	a := turn.Next(nil)
	if a == nil || a.MessageID != fine {
		t.Fatalf("began %+v, want the other message", a)
	}
	turn.Next(delivered(a))
	if s := status(t, q, damaged); s.State != Failed || s.History[0].Outcomes[0].Step != "open" {
		t.Errorf("damaged: %+v", s)
	}
}
