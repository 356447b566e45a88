package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue/queuetest"
)

// put stores a file and gives its id.
func put(t *testing.T, q *Queue, name string, content []byte) string {
	t.Helper()
	c, err := q.StoreContent(t.Context(), name, "", bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return c.ID
}

// shares tells how many hold a file; -1: there is none.
func shares(t *testing.T, q *Queue, id string) int {
	t.Helper()
	c, err := q.Content(t.Context(), id)
	if errors.Is(err, ErrNotFound) {
		return -1
	} else if err != nil {
		t.Fatal(err)
	}
	if c.Expires.IsZero() != (c.Shares > 0) {
		t.Errorf("%d hold the file, and it expires at %v", c.Shares, c.Expires)
	}
	return c.Shares
}

// pattern is content in which every piece is another.
func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7+i>>9) + seed
	}
	return b
}

func TestFilesThatAreReferredToArrive(t *testing.T) {
	onEachRedis(t, func(t *testing.T, q *Queue) {
		version := activate(t, q, 3)
		shared := pattern(2*chunkBytes+5, 1)
		ref := put(t, q, "shared.pdf", shared)
		b := batch(mail.Report, 3)
		b.Message.Attachments = []mail.Attachment{{Name: "a.txt", Content: []byte("inside")}, {Ref: ref}, {Name: "z.txt", Content: []byte("too")}}
		own := map[string][]byte{}
		for i := range b.Recipients {
			content := pattern(chunkBytes+i, byte(i+2)) // the last one in a piece of its own, the first in exactly one
			own[b.Recipients[i].To[0].Address] = content
			b.Recipients[i].Attachments = []mail.Attachment{{Name: fmt.Sprint("own", i, ".csv"), Ref: put(t, q, "x.bin", content)}}
		}
		one := message(mail.Alert, "ada@example.net")
		one.Attachments = []mail.Attachment{{Ref: ref, Name: "other.bin", ContentType: "image/png", ContentID: "c"}}
		single := enqueue(t, q, one)
		receipt := enqueueBatch(t, q, b)
		m, err := q.Outgoing(t.Context(), receipt.IDs[2])
		if err != nil || len(m.Files) != 4 || !bytes.Equal(m.Files[3].Bytes, own["r2@example.net"]) || !bytes.Equal(m.Files[1].Bytes, shared) {
			t.Fatalf("%v", err)
		}
		sent := make(chan *Attempt, 4)
		consume(t, q, version, func(a *Attempt) *Settlement {
			sent <- a
			return delivered(a)
		})
		var encoded []byte
		for range 4 {
			a := <-sent
			files := a.Message.Files
			if a.MessageID == single {
				if f := files[0]; len(files) != 1 || f.Name != "other.bin" || f.ContentType != "image/png" || f.ContentID != "c" || !bytes.Equal(f.Bytes, shared) {
					t.Errorf("%+v", files)
				}
				continue
			}
			to := a.Message.To[0].Address
			var names []string
			for _, f := range files {
				names = append(names, f.Name+" "+f.ContentType)
			}
			if want := []string{"a.txt text/plain", "shared.pdf application/pdf", "z.txt text/plain", "own" + to[1:2] + ".csv application/octet-stream"}; !slices.Equal(names, want) {
				t.Errorf("%s has %q, want %q", to, names, want)
				continue
			}
			if string(files[0].Bytes) != "inside" || !bytes.Equal(files[1].Bytes, shared) || string(files[2].Bytes) != "too" || !bytes.Equal(files[3].Bytes, own[to]) {
				t.Errorf("%s: a file is not what was stored", to)
			}
			if again := files[1].Base64(); encoded == nil {
				encoded = again
			} else if &encoded[0] != &again[0] {
				t.Error("the shared file is encoded anew for each message")
			}
		}
		eventually(t, "nobody holds the shared file", func() bool { return shares(t, q, ref) == 0 })
		forgotten(t, q)
	})
}

// forgotten checks that nothing is left of stored files when their time has passed.
func forgotten(t *testing.T, q *Queue) {
	t.Helper()
	for _, id := range q.redis.ZRange(t.Context(), q.key("contents"), 0, -1).Val() {
		q.redis.ZAdd(t.Context(), q.key("contents"), redis.Z{Score: 1, Member: id})
	}
	if err := q.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"a:*", "contents"} {
		if left := q.redis.Keys(t.Context(), q.key(pattern)).Val(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
	noContentIsLeft(t, q)
}

func TestWhatCannotBeReferredToIsRefused(t *testing.T) {
	q, _ := onClock(t)
	ref := put(t, q, "a.pdf", []byte("%PDF"))
	half, nothing := half(t, q), "01JZ3Q8Y6M2V7T4K9RBC5XWDHE"
	large := put(t, q, "large.bin", make([]byte, 20<<20))
	refers := func(ids ...string) (list []mail.Attachment) {
		for _, id := range ids {
			list = append(list, mail.Attachment{Ref: id})
		}
		return list
	}
	const unknown, size = "POST /v1/contents", "larger than"
	for name, test := range map[string]struct {
		message, own []mail.Attachment
		at, reason   string // in a single message, if there are no own ones
	}{
		"unknown":            {refers(ref, nothing), nil, "/attachments/1/ref", unknown},
		"not complete":       {refers(half), nil, "/attachments/0/ref", unknown},
		"no id":              {refers("../etc"), nil, "/attachments/0/ref", unknown},
		"beside content":     {[]mail.Attachment{{Ref: ref, Content: []byte("x")}}, nil, "/attachments/0/ref", "beside content"},
		"a bad name":         {[]mail.Attachment{{Ref: ref, Name: "a/b"}}, nil, "/attachments/0/name", "without folders"},
		"too large together": {refers(large, large), nil, "", size},
		"own, unknown":       {nil, refers(nothing), "/attachments/0/ref", unknown},
		"own, as content":    {nil, []mail.Attachment{{Name: "a.txt", Content: []byte("x")}}, "/attachments/0/ref", "give ref"},
		"own, too large":     {refers(large), refers(large), "/attachments", size},
		"own, too many":      {refers(slices.Repeat([]string{ref}, 60)...), refers(slices.Repeat([]string{ref}, 41)...), "/attachments", "more than 100"},
		"own, content id":    {[]mail.Attachment{{Ref: ref, ContentID: "c"}}, []mail.Attachment{{Ref: ref, ContentID: "c"}}, "/attachments/0/content_id", "another attachment"},
	} {
		t.Run(name, func(t *testing.T) {
			told := func(where string, p []mail.Problem) {
				t.Helper()
				if len(p) != 1 || p[0].Field != where+test.at || !strings.Contains(p[0].Reason, test.reason) {
					t.Errorf("%v, want a problem at %s with %q", p, where+test.at, test.reason)
				}
			}
			b := batch(mail.Report, 2)
			b.Message.Attachments, b.Recipients[1].Attachments = test.message, test.own
			receipt, err := q.EnqueueBatch(t.Context(), b)
			if test.own == nil {
				where := "/message"
				told(where, problems(t, err))
				m := message(mail.Report, "ada@example.net")
				m.Attachments = test.message
				_, err := q.Enqueue(t.Context(), m)
				told("", problems(t, err))
				return
			}
			if err != nil || receipt.Accepted != 1 {
				t.Fatalf("%+v, %v", receipt, err)
			}
			told("/recipients/1", receipt.Refused[1])
			if err := q.CancelBatch(t.Context(), receipt.ID); err != nil {
				t.Fatal(err)
			}
		})
	}
	if n := shares(t, q, ref) + shares(t, q, large); n != 0 {
		t.Errorf("%d shares are taken of what was refused", n)
	}
	for _, bad := range [][2]string{{"", "text/plain"}, {"a/b", ""}, {"a.txt", "text"}, {"a.txt", "multipart/mixed"}} {
		if _, err := q.StoreContent(t.Context(), bad[0], bad[1], strings.NewReader("x")); len(problems(t, err)) != 1 {
			t.Errorf("%q is stored: %v", bad, err)
		}
	}
	forgotten(t, q)
}

// half begins to store a file, and dies.
func half(t *testing.T, q *Queue) string {
	t.Helper()
	const id = "01JZ3Q8Y6M2V7T4K9RBC5XWDHF"
	if err := q.run(t.Context(), "store", id, 0, 1<<30, stagingTime.Milliseconds(), "piece", "", 1000, "a.txt", "text/plain").Err(); err != nil {
		t.Fatal(err)
	}
	return id
}

func TestSharesOfAFileAreGivenBackWhereItsMessagesEnd(t *testing.T) {
	type run struct {
		q      *Queue
		d      *desk
		c      *clock
		ref    string
		single string
		batch  BatchReceipt
	}
	fail := func(t *testing.T, r *run) {
		for _, turn := range r.d.turns() {
			for a := turn.Next(nil); a != nil; a = turn.Next(refuses(a)) {
			}
		}
	}
	for name, end := range map[string]func(t *testing.T, r *run){
		"delivered": func(t *testing.T, r *run) { drain(r.d) },
		"failed and deleted": func(t *testing.T, r *run) {
			fail(t, r)
			if n := shares(t, r.q, r.ref); n != 4 {
				t.Errorf("%d hold it when all have failed, want 4", n)
			}
			if step, err := r.q.DeleteFailed(t.Context(), FailedFilter{}, SelectionOptions{}); err != nil || step.Done != 3 {
				t.Fatalf("%+v, %v", step, err)
			}
		},
		"failed and forgotten": func(t *testing.T, r *run) {
			fail(t, r)
			r.c.advance(31 * 24 * time.Hour)
			if err := r.q.tidy(t.Context()); err != nil || shares(t, r.q, r.ref) != 0 {
				t.Fatal(err)
			}
		},
		"failed, requeued, delivered": func(t *testing.T, r *run) {
			fail(t, r)
			if step, err := r.q.Requeue(t.Context(), FailedFilter{}, SelectionOptions{}); err != nil || step.Done != 3 {
				t.Fatalf("%+v, %v", step, err)
			}
			if n := shares(t, r.q, r.ref); n != 4 {
				t.Errorf("%d hold it when all are requeued, want 4", n)
			}
			drain(r.d)
		},
		"cancelled": func(t *testing.T, r *run) {
			if err := errors.Join(r.q.CancelMessage(t.Context(), r.single), r.q.CancelMessage(t.Context(), r.batch.IDs[0]), r.q.CancelBatch(t.Context(), r.batch.ID)); err != nil {
				t.Fatal(err)
			}
		},
		"expired": func(t *testing.T, r *run) {
			r.c.advance(2 * time.Hour)
			if n := drain(r.d); n != 0 {
				t.Errorf("%d were sent", n)
			}
		},
	} {
		for _, size := range []int{10, inlineBytes} {
			t.Run(fmt.Sprint(name, size), func(t *testing.T) {
				r := &run{}
				r.q, r.c = onClock(t)
				r.d = sitDown(t, r.q, activate(t, r.q, 1), nil)
				r.ref = put(t, r.q, "a.bin", pattern(100, 1))
				file := mail.Attachment{Ref: r.ref}
				m := message(mail.Report, "ada@example.net")
				m.Attachments, m.Text = []mail.Attachment{file}, strings.Repeat("x", size)
				b := batch(mail.Report, 2)
				b.Message.Attachments, b.Recipients[1].Attachments = []mail.Attachment{file}, []mail.Attachment{file}
				m.ExpiresAt = r.c.now.Add(time.Hour)
				b.Message.ExpiresAt = m.ExpiresAt
				r.single, r.batch = enqueue(t, r.q, m), enqueueBatch(t, r.q, b)
				again := message(mail.Report, "bob@example.net") // holds it throughout
				again.Attachments, again.SendAt = []mail.Attachment{file}, r.c.now.Add(1000*time.Hour)
				last := enqueue(t, r.q, again)
				if n := shares(t, r.q, r.ref); n != 4 {
					t.Fatalf("%d hold it, want the message, the batch, its recipient, and the one that waits", n)
				}
				r.c.advance(25 * time.Minute)
				if err := r.q.tidy(t.Context()); err != nil {
					t.Fatal(err)
				}
				if name == "failed and forgotten" {
					if err := r.q.CancelMessage(t.Context(), last); err != nil { // it would be sent by then
						t.Fatal(err)
					}
					end(t, r)
				} else {
					end(t, r)
					if n := shares(t, r.q, r.ref); n != 1 {
						t.Errorf("%d hold it, want the one that waits", n)
					}
					if err := r.q.CancelMessage(t.Context(), last); err != nil {
						t.Fatal(err)
					}
				}
				if n := shares(t, r.q, r.ref); n != 0 {
					t.Errorf("%d hold it when all have ended", n)
				}
				r.c.advance(24*time.Hour - time.Millisecond)
				if err := r.q.tidy(t.Context()); err != nil || shares(t, r.q, r.ref) != 0 {
					t.Errorf("it is dropped before its time: %v", err)
				}
				r.c.advance(time.Millisecond)
				if err := r.q.tidy(t.Context()); err != nil || shares(t, r.q, r.ref) != -1 {
					t.Errorf("it is still there: %v", err)
				}
				noContentIsLeft(t, r.q)
			})
		}
	}
}

func TestAStagedBatchHoldsItsFilesUntilItIsDropped(t *testing.T) {
	for _, how := range []string{"discarded", "swept"} {
		q, c := onClock(t)
		ref, own := put(t, q, "a.bin", []byte("a")), put(t, q, "b.bin", []byte("b"))
		b := batch(mail.Report, 450)
		b.Message.Attachments = []mail.Attachment{{Ref: ref}}
		s, err := q.OpenBatch(t.Context(), b.Message)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range b.Recipients {
			r.Attachments = []mail.Attachment{{Ref: own}, {Ref: own, Name: "again.bin"}}
			if _, err := s.Add(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		if a, b := shares(t, q, ref), shares(t, q, own); a != 1 || b != 800 {
			t.Errorf("%d and %d shares while it is staged, want 1 and two for each of 400", a, b)
		}
		if how == "discarded" {
			s.Discard(t.Context())
		} else {
			c.advance(stagingTime + time.Second)
			if err := q.tidy(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if a, b := shares(t, q, ref), shares(t, q, own); a != 0 || b != 0 {
			t.Errorf("%s: %d and %d shares are left", how, a, b)
		}
		booksAreClean(t, q)
		forgotten(t, q)
	}
}

// before is a hook that does something before a script of ours runs.
type before struct {
	redis.Hook
	hash string
	do   func()
}

func (b *before) DialHook(next redis.DialHook) redis.DialHook { return next }
func (b *before) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
func (b *before) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if args := cmd.Args(); cmd.Name() == "evalsha" && args[1] == b.hash && b.do != nil {
			do := b.do
			b.do = nil
			do()
		}
		return next(ctx, cmd)
	}
}

func TestAFileThatGoesWhileMailIsAcceptedRefusesIt(t *testing.T) {
	for script, at := range map[string]string{"accept": "/attachments/1/ref", "stage": "/message/attachments/1/ref", "items": "/recipients/1/attachments/0/ref"} {
		for _, size := range []int{10, inlineBytes} {
			q, _ := onClock(t)
			stays, ref := put(t, q, "a.bin", []byte("a")), put(t, q, "b.bin", []byte("b"))
			q.redis.(*redis.Client).AddHook(&before{hash: q.scripts[script].Hash(), do: func() {
				q.redis.ZAdd(t.Context(), q.key("contents"), redis.Z{Score: 1, Member: ref})
				if err := q.tidy(t.Context()); err != nil {
					t.Error(err)
				}
			}})
			files := []mail.Attachment{{Ref: stays}, {Ref: ref}}
			var err error
			if script == "accept" {
				m := message(mail.Report, "ada@example.net")
				m.Attachments, m.Text = files, strings.Repeat("x", size)
				_, err = q.Enqueue(t.Context(), m, Idempotency("", "k"))
			} else {
				b := batch(mail.Report, 3)
				b.Message.Attachments = files
				if script == "items" {
					b.Message.Attachments, b.Recipients[1].Attachments = files[:1], files[1:]
				}
				_, err = q.EnqueueBatch(t.Context(), b, Idempotency("", "k"))
			}
			if p := problems(t, err); len(p) != 1 || p[0].Field != at {
				t.Errorf("%s: %v, want a problem at %s", script, p, at)
			}
			if n := shares(t, q, stays); n != 0 {
				t.Errorf("%s: %d shares are left of the other file", script, n)
			}
			booksAreClean(t, q)
			forgotten(t, q)
		}
	}
}

func TestAMessageWhoseFileIsGoneFails(t *testing.T) {
	for _, own := range []bool{false, true} {
		q, _ := onClock(t)
		d := sitDown(t, q, activate(t, q, 1), nil)
		ref := put(t, q, "a.bin", pattern(2*chunkBytes, 1))
		b := batch(mail.Report, 1)
		list := &b.Message.Attachments
		if own {
			list = &b.Recipients[0].Attachments
		}
		*list = []mail.Attachment{{Ref: ref}}
		receipt := enqueueBatch(t, q, b)
		q.redis.Del(t.Context(), q.key("c:", ref, ":1"))
		if n := drain(d); n != 0 {
			t.Errorf("%d were sent", n)
		}
		if s := status(t, q, receipt.IDs[0]); s.State != Failed || s.History[0].Outcomes[0].Cause != string(mail.Unreadable) {
			t.Errorf("%+v", s)
		}
		if _, err := q.Outgoing(t.Context(), receipt.IDs[0]); !errors.Is(err, errNoContent) {
			t.Errorf("%v", err)
		}
		// All of it gone, a share that is given back makes nothing up.
		q.redis.Del(t.Context(), q.key("a:", ref))
		if _, err := q.DeleteFailed(t.Context(), FailedFilter{}, SelectionOptions{}); err != nil || exists(q, "a:", ref) || exists(q, "contents") {
			t.Errorf("%v", err)
		}
	}
}

func TestAStoredFileAndItsMailSurviveThatEveryScriptRunsTwice(t *testing.T) {
	r := queuetest.Start(t)
	q := through(t, r, &line{twice: true})
	version := activate(t, q, 2)
	content := pattern(3*chunkBytes, 1)
	ref := put(t, q, "a.bin", content)
	if counts, err := q.Counts(t.Context()); err != nil || counts.ContentBytes != int64(len(content)) {
		t.Errorf("%+v, %v; want %d bytes", counts, err, len(content))
	}
	b := batch(mail.Report, 250)
	b.Message.Attachments = []mail.Attachment{{Ref: ref}}
	for i := range b.Recipients {
		b.Recipients[i].Attachments = []mail.Attachment{{Ref: ref}}
	}
	receipt := enqueueBatch(t, q, b)
	m := message(mail.Report, "ada@example.net")
	m.Attachments = b.Message.Attachments
	enqueue(t, q, m)
	if n := shares(t, q, ref); n != 252 {
		t.Errorf("%d hold it, want 252", n)
	}
	s, err := q.OpenBatch(t.Context(), b.Message)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(t.Context(), b.Recipients[0]); err != nil {
		t.Fatal(err)
	}
	s.Discard(t.Context())
	consume(t, q, version, func(a *Attempt) *Settlement {
		if !bytes.Equal(a.Message.Files[0].Bytes, content) {
			t.Error("a file is not what was stored")
		}
		return delivered(a)
	})
	eventually(t, "nobody holds it", func() bool { return shares(t, q, ref) == 0 })
	if b, err := q.Batch(t.Context(), receipt.ID); err != nil || b.Delivered != 250 {
		t.Errorf("%+v, %v", b, err)
	}
	forgotten(t, q)
}
