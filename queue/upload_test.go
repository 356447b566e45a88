package queue

import (
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/throttle"
)

func TestWhatALargeMessageTakesOfTheLimits(t *testing.T) {
	for name, test := range map[string]struct {
		upload *Upload
		files  []int
		want   throttle.Cost // without the manifest
	}{
		"all in one request":           {nil, []int{300_000}, throttle.Cost{Messages: 1, Requests: 1, Recipients: 1, UploadBytes: 300_000}},
		"small enough":                 {&Upload{RequestBytes: 400_000, PartBytes: 100_000}, []int{300_000}, throttle.Cost{Messages: 1, Requests: 1, Recipients: 1, UploadBytes: 400_000}},
		"too large for one":            {&Upload{RequestBytes: 250_000, PartBytes: 100_000}, []int{290_000}, throttle.Cost{Messages: 1, Requests: 7, Recipients: 1, UploadBytes: 386_667}},
		"too large for one, two files": {&Upload{RequestBytes: 250_000, PartBytes: 100_000}, []int{190_000, 100_000}, throttle.Cost{Messages: 1, Requests: 9, Recipients: 1, UploadBytes: 386_667}},
		"always several":               {&Upload{RequestBytes: 250_000, PartBytes: 100_000, Always: true}, nil, throttle.Cost{Messages: 1, Requests: 3, Recipients: 1, UploadBytes: 0}},
	} {
		for _, inBatch := range []bool{false, true} {
			q, _ := onClock(t)
			d := sitDown(t, q, choose(t, q, ActiveProvider{Concurrency: 1, Upload: test.upload, Limits: []throttle.Limit{
				{Name: throttle.Requests, Max: 1000, Window: time.Minute}, {Name: throttle.UploadBytes, Max: 1 << 30, Window: time.Minute}}}), nil)
			b := batch(mail.Report, 1)
			m := message(mail.Report, "ada@example.net")
			for _, size := range test.files {
				file := mail.Attachment{Name: "a.bin", Content: []byte(strings.Repeat("x", size))}
				m.Attachments, b.Message.Attachments = append(m.Attachments, file), append(b.Message.Attachments, file)
			}
			if inBatch {
				enqueueBatch(t, q, b)
			} else {
				enqueue(t, q, m)
			}
			turn := d.turn()
			a := begin(t, turn, nil)
			used := func() (requests, bytes int64) {
				for _, l := range mailbox(t, q, account).Limits {
					switch l.Name {
					case throttle.Requests:
						requests = l.Used
					case throttle.UploadBytes:
						bytes = l.Used
					}
				}
				return requests, bytes
			}
			if requests, bytes := used(); requests != test.want.Requests || bytes < test.want.UploadBytes || bytes > test.want.UploadBytes+1000 {
				t.Errorf("%s, in a batch %v: %d requests and %d bytes are taken, want %d and %d", name, inBatch, requests, bytes, test.want.Requests, test.want.UploadBytes)
			}
			s := delivered(a)
			s.Used = &throttle.Cost{Messages: 1, Requests: 4, Recipients: 1, UploadBytes: 777}
			end(turn, s)
			if requests, bytes := used(); requests != 4 || bytes != 777 {
				t.Errorf("%s: %d requests and %d bytes are stamped, want what was used", name, requests, bytes)
			}
		}
	}
}

func TestWhatExceedsTheProvidersRequestsIsRefused(t *testing.T) {
	q, _ := onClock(t)
	choose(t, q, ActiveProvider{Concurrency: 1, Upload: &Upload{RequestBytes: 1000, PartBytes: 1000},
		Limits: []throttle.Limit{{Name: throttle.Requests, Max: 10, Window: time.Minute}}})
	m := message(mail.Report, "ada@example.net")
	m.Attachments = []mail.Attachment{{Name: "a.bin", Content: make([]byte, 10_000)}}
	_, err := q.Enqueue(t.Context(), m)
	if p := problems(t, err); len(p) != 1 || !strings.Contains(p[0].Reason, "requests") {
		t.Errorf("%v", p)
	}
}

func TestWhatIsKeptOfAMessageIsThereInTheNextAttempt(t *testing.T) {
	q, _ := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	id := enqueue(t, q, message(mail.Report, "ada@example.net"))
	a := begin(t, d.turn(), nil)
	if err := a.Keep("draft AAMk-1\n2"); err != nil || a.Kept != "" {
		t.Fatalf("%v, kept before: %q", err, a.Kept)
	}
	d.dies()
	d.renew()
	d.sweepAll()
	turn := d.turn()
	again := begin(t, turn, nil)
	if again.Kept != "draft AAMk-1 2" {
		t.Errorf("kept: %q", again.Kept)
	}
	if err := a.Keep("late"); err != ErrTaken {
		t.Errorf("an attempt that was taken away keeps: %v", err)
	}
	if err := again.Keep(""); err != nil {
		t.Fatal(err)
	}
	again = begin(t, turn, outcomes(again, Back, "t"))
	if again.Kept != "" {
		t.Errorf("still kept: %q", again.Kept)
	}
	end(turn, delivered(again))
	if s := status(t, q, id); s.State != Delivered {
		t.Error(s.State)
	}
	booksAreClean(t, q)
}
