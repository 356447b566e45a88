package queue

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue/queuetest"
)

func TestWhatTooFewReplicasHaveIsNotSaidToBeAccepted(t *testing.T) {
	t.Parallel()
	r := queuetest.StartReplicated(t, 2)
	q, err := Open(t.Context(), Options{Client: r.Nodes[0].Client, WaitReplicas: 1, WaitTimeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	large := message(mail.Report, "ada@example.net")
	large.Text = strings.Repeat("x", inlineBytes+1)
	// Each hands something in and gives the ids that it was given.
	ways := map[string]func(...Option) ([]string, bool, error){
		"message": func(o ...Option) ([]string, bool, error) {
			r, err := q.Enqueue(t.Context(), message(mail.Report, "ada@example.net"), o...)
			return []string{r.ID}, r.Replayed, err
		},
		"large message": func(o ...Option) ([]string, bool, error) {
			r, err := q.Enqueue(t.Context(), large, o...)
			return []string{r.ID}, r.Replayed, err
		},
		"batch": func(o ...Option) ([]string, bool, error) {
			r, err := q.EnqueueBatch(t.Context(), batch(mail.Report, 2), o...)
			return r.IDs, r.Replayed, err
		},
		"stream": func(o ...Option) ([]string, bool, error) {
			b := batch(mail.Report, 2)
			s, err := q.OpenBatch(t.Context(), b.Message, o...)
			if err != nil {
				return nil, false, err
			}
			defer s.Discard(t.Context())
			for _, r := range b.Recipients {
				if _, err := s.Add(t.Context(), r); err != nil {
					return nil, false, err
				}
			}
			r, err := s.Commit(t.Context())
			return r.IDs, r.Replayed, err
		},
	}
	frozen := func() {
		for _, n := range r.Nodes[1:] {
			n.Freeze()
		}
	}
	thawed := func() {
		for _, n := range r.Nodes[1:] {
			n.Thaw()
		}
	}
	for name, handIn := range ways {
		t.Run(name, func(t *testing.T) {
			before := len(waiting(t, q))
			eventually(t, "the replicas have one", func() bool { // on a busy machine they can take longer than that
				_, _, err := handIn(Idempotency("", name+" before"))
				if err != nil && !errors.Is(err, ErrNotReplicated) {
					t.Fatal(err)
				}
				return err == nil
			})
			frozen()
			defer thawed()
			first, replayed, err := handIn(Idempotency("", name))
			if !errors.Is(err, ErrNotReplicated) || replayed || first[0] == "" {
				t.Fatalf("without replicas: %v, replayed %v, %v", first, replayed, err)
			}
			// The repetition writes nothing that WAIT would wait for, unless it is made to.
			if again, _, err := handIn(Idempotency("", name)); !errors.Is(err, ErrNotReplicated) || again[0] != first[0] {
				t.Fatalf("repeated without replicas: %v, want %v, and %v", again, first, err)
			}
			thawed()
			eventually(t, "the replicas have it", func() bool {
				again, replayed, err := handIn(Idempotency("", name))
				if again[0] != first[0] || !replayed {
					t.Fatalf("repeated: %v, want %v", again, first)
				}
				return err == nil
			})
			if n := len(waiting(t, q)) - before; n != 2*len(first) {
				t.Errorf("%d messages wait, want %d", n, 2*len(first))
			}
		})
	}

	// A fail-over may have made another the master since, which has never heard of it.
	if err := q.confirm(t.Context(), "01K00000000000000000000000", ""); !errors.Is(err, ErrNotReplicated) {
		t.Errorf("what is not there: %v", err)
	}
	// Its record may have been dropped by the time it is asked for again.
	for _, k := range keysOf(t, q) {
		if strings.HasPrefix(k, q.key("m:")) {
			q.redis.Del(t.Context(), k)
		}
	}
	eventually(t, "it is answered when its record has gone", func() bool {
		_, _, err := ways["message"](Idempotency("", "message"))
		return err == nil
	})
}

func TestPiecesThatAFailOverLostAreNotAccepted(t *testing.T) {
	lose := func(t *testing.T, script string) *Queue {
		q, _ := onClock(t)
		q.redis.(*redis.Client).AddHook(&before{hash: q.scripts[script].Hash(), do: func() {
			for _, k := range keysOf(t, q) {
				if strings.HasPrefix(k, q.key("c:")) && strings.HasSuffix(k, ":0") {
					q.redis.Del(t.Context(), k)
				}
			}
		}})
		return q
	}
	text := strings.Repeat("x", 2*chunkBytes)

	q := lose(t, "accept")
	m := message(mail.Report, "ada@example.net")
	m.Text = text
	if _, err := q.Enqueue(t.Context(), m); !errors.Is(err, ErrStagingExpired) {
		t.Errorf("a message: %v", err)
	}
	noContentIsLeft(t, q)

	q = lose(t, "commit")
	b := batch(mail.Report, 2)
	b.Message.Text = text
	if _, err := q.EnqueueBatch(t.Context(), b); !errors.Is(err, ErrStagingExpired) {
		t.Errorf("a batch: %v", err)
	}
	noContentIsLeft(t, q)

	q, _ = onClock(t)
	forget := &forgetful{Reader: bytes.NewReader([]byte(text)), after: chunkBytes, forget: func() { q.redis.FlushDB(t.Context()) }}
	if _, err := q.StoreContent(t.Context(), "a.bin", "", forget); !errors.Is(err, ErrStagingExpired) {
		t.Errorf("a file: %v", err)
	}
}

// forgetful has something forgotten when so many bytes have been read.
type forgetful struct {
	io.Reader
	after  int
	forget func()
}

// Read implements io.Reader.
func (f *forgetful) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if f.after -= n; f.after < 0 && f.forget != nil {
		f.forget()
		f.forget = nil
	}
	return n, err
}

// TestWaitingForReplicasLeavesConnectionsToWorkers has as many wait as may: one more is told so, and takes no connection.
func TestWaitingForReplicasLeavesConnectionsToWorkers(t *testing.T) {
	q := open(t, queuetest.Start(t).Client)
	q.options.WaitReplicas, q.options.WaitTimeout = 1, 10*time.Millisecond
	for range mostConfirming {
		q.confirming <- struct{}{}
	}
	if _, err := q.Enqueue(t.Context(), message(mail.Report, "ada@example.net")); !errors.Is(err, ErrNotReplicated) {
		t.Errorf("with no place to wait: %v", err)
	}
	if n := metric(t, q, "postroom_redis_scripts_total", "confirm"); n != 0 {
		t.Errorf("%v connections were taken", n)
	}
	<-q.confirming
	if _, err := q.Enqueue(t.Context(), message(mail.Report, "ada@example.net")); !errors.Is(err, ErrNotReplicated) {
		t.Errorf("without replicas: %v", err)
	}
	if n := metric(t, q, "postroom_redis_scripts_total", "confirm"); n != 1 || len(q.confirming) != mostConfirming-1 {
		t.Errorf("%v waited, %d places are taken", n, len(q.confirming))
	}
}
