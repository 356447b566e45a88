package queue

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"
	"testing/iotest"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue/queuetest"
	"github.com/postroom/postroom/throttle"
)

func TestALargeFileIsStoredPieceByPiece(t *testing.T) {
	q := open(t, queuetest.Start(t).Client)
	content := pattern(20<<20, 1)
	put(t, q, "warm.bin", content[:chunkBytes+1]) // what the connection needs
	var first, last runtime.MemStats
	runtime.ReadMemStats(&first)
	// In portions like those of the network.
	c, err := q.StoreContent(t.Context(), "a.bin", "", io.LimitReader(bytes.NewReader(content), int64(len(content))))
	runtime.ReadMemStats(&last)
	if err != nil || c.Bytes != 20<<20 || time.Until(c.Expires) < 23*time.Hour {
		t.Fatalf("%+v, %v", c, err)
	}
	if allocated := last.TotalAlloc - first.TotalAlloc; allocated > 4<<20 {
		t.Errorf("20 MB take %d bytes of memory", allocated)
	}
	f, err := q.readContent(t.Context(), c.ID, int(c.Bytes))
	if err != nil || !bytes.Equal(f.Bytes, content) {
		t.Errorf("it is not what was stored: %v", err)
	}
	// Cut off, too large, no room: nothing is kept.
	cut := io.MultiReader(bytes.NewReader(content[:10<<20]), iotest.ErrReader(io.ErrUnexpectedEOF))
	if _, err := q.StoreContent(t.Context(), "a.bin", "", cut); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut off: %v", err)
	}
	q.options.Limits.MaxBytes = 10 << 20
	if _, err := q.StoreContent(t.Context(), "a.bin", "", bytes.NewReader(content)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	q.options.Limits.MaxBytes, q.options.ContentMaxBytes = 100<<20, 30<<20
	if _, err := q.StoreContent(t.Context(), "a.bin", "", bytes.NewReader(content)); !errors.Is(err, ErrFull) {
		t.Errorf("no room: %v", err)
	}
	if n := len(q.redis.Keys(t.Context(), q.key("a:*")).Val()); n != 2 {
		t.Errorf("%d files are there, want 2", n)
	}
	forgotten(t, q)
}

func TestTheSweepDropsAFileWhoseProducerDied(t *testing.T) {
	q, c := onClock(t)
	id := half(t, q)
	c.advance(stagingTime - time.Second)
	if err := q.tidy(t.Context()); err != nil || !exists(q, "a:", id) {
		t.Errorf("dropped before its time: %v", err)
	}
	c.advance(time.Second)
	if err := q.tidy(t.Context()); err != nil || exists(q, "a:", id) || exists(q, "contents") {
		t.Errorf("still there: %v", err)
	}
	noContentIsLeft(t, q)
	if got := metric(t, q, "postroom_repairs_total", "staged"); got != 1 {
		t.Errorf("%v are counted, want 1", got)
	}
	answer, err := q.run(t.Context(), "store", id, 1, 1<<30, 1000, "piece", "", 1000, "a.txt", "text/plain").StringSlice()
	if err != nil || answer[0] != "gone" || exists(q, "a:", id) {
		t.Errorf("%v, %v: the next piece makes it up again", answer, err)
	}
	// More than a step of it.
	for i := range 45 {
		put(t, q, fmt.Sprint(i), []byte("x"))
	}
	forgotten(t, q)
}

func TestARequestIsTheSameWhenItsFileWasStoredAnew(t *testing.T) {
	q, _ := onClock(t)
	send := func(content string) (Receipt, error) {
		m := message(mail.Report, "ada@example.net")
		m.Attachments = []mail.Attachment{{Ref: put(t, q, "a.txt", []byte(content))}}
		return q.Enqueue(t.Context(), m, Idempotency("", "one"))
	}
	sendBatch := func(content string) (BatchReceipt, error) {
		b := batch(mail.Report, 2)
		b.Recipients[1].Attachments = []mail.Attachment{{Ref: put(t, q, "a.txt", []byte(content))}}
		return q.EnqueueBatch(t.Context(), b, Idempotency("", "many"))
	}
	if first, err := send("x"); err != nil || first.Replayed {
		t.Fatalf("%+v, %v", first, err)
	}
	if again, err := send("x"); err != nil || !again.Replayed {
		t.Errorf("%+v, %v; want the first answer", again, err)
	}
	if _, err := send("y"); !errors.Is(err, ErrIdempotencyConflict) {
		t.Errorf("another file: %v", err)
	}
	if first, err := sendBatch("x"); err != nil || first.Replayed {
		t.Fatalf("%+v, %v", first, err)
	}
	if again, err := sendBatch("x"); err != nil || !again.Replayed {
		t.Errorf("%+v, %v; want the first answer", again, err)
	}
	if _, err := sendBatch("y"); !errors.Is(err, ErrIdempotencyConflict) {
		t.Errorf("another file: %v", err)
	}
}

func TestFilesThatAreReferredToTakeOfTheLimits(t *testing.T) {
	for name, place := range map[string]func(m *mail.Message, b *mail.Batch, file mail.Attachment){
		"single": func(m *mail.Message, _ *mail.Batch, file mail.Attachment) {
			m.Attachments = append(m.Attachments, file)
		},
		"shared": func(_ *mail.Message, b *mail.Batch, file mail.Attachment) {
			b.Message.Attachments = append(b.Message.Attachments, file)
		},
		"one's own": func(_ *mail.Message, b *mail.Batch, file mail.Attachment) {
			b.Recipients[0].Attachments = []mail.Attachment{file}
		},
	} {
		for _, room := range []int64{8, 9} {
			q, _ := onClock(t)
			d := sitDown(t, q, choose(t, q, ActiveProvider{Concurrency: 1, Upload: &Upload{RequestBytes: 250_000, PartBytes: 100_000}, Limits: []throttle.Limit{
				{Name: throttle.Requests, Max: room, Window: time.Minute}, {Name: throttle.UploadBytes, Max: 1 << 30, Window: time.Minute}}}), nil)
			inside := []mail.Attachment{{Name: "a.txt", Content: []byte("x")}}
			m, b := message(mail.Report, "ada@example.net"), batch(mail.Report, 1)
			m.Attachments, b.Message.Attachments = inside, inside
			place(&m, &b, mail.Attachment{Ref: put(t, q, "a.bin", make([]byte, 290_000))})
			var err error
			var receipt BatchReceipt
			if name == "single" {
				_, err = q.Enqueue(t.Context(), m)
			} else {
				receipt, err = q.EnqueueBatch(t.Context(), b)
			}
			// Two for the draft, two for each file, three parts.
			if refused := err != nil || len(receipt.Refused) > 0; refused != (room < 9) {
				t.Errorf("%s: with room for %d requests: %+v, %v", name, room, receipt, err)
			}
			if room < 9 {
				continue
			}
			begin(t, d.turn(), nil)
			for _, l := range mailbox(t, q, account).Limits {
				if l.Name == throttle.Requests && l.Used != 9 || l.Name == throttle.UploadBytes && (l.Used < 386_667 || l.Used > 388_000) {
					t.Errorf("%s: %d of %s are taken", name, l.Used, l.Name)
				}
			}
		}
	}
}
