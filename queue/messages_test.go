package queue

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue/queuetest"
)

// listAll gives how often a filter finds each message, page by page.
func listAll(t *testing.T, q *Queue, f MessageFilter, limit int) map[string]int {
	t.Helper()
	times := map[string]int{}
	for cursor, pages := "", 0; ; pages++ {
		page, err := q.Messages(t.Context(), f, cursor, limit)
		if err != nil || pages > 10_000 {
			t.Fatalf("page %d: %v", pages, err)
		}
		for _, m := range page.Messages {
			times[m.ID]++
		}
		// The embedded Redis gives all its names at once, and a cursor has room for some.
		if len(page.Messages) > limit && (tellsItsRun(t, q) || len(page.Messages) < mostFound) {
			t.Fatalf("a page has %d messages, at most %d were wanted", len(page.Messages), limit)
		}
		if cursor = page.Next; cursor == "" {
			if page.Left != 0 {
				t.Errorf("%d are left behind the last page", page.Left)
			}
			return times
		}
		if len(cursor) > 4000 {
			t.Fatalf("a cursor has %d letters", len(cursor))
		}
	}
}

// tellsItsRun reports whether Redis tells which run of it this is: the embedded one does not.
func tellsItsRun(t *testing.T, q *Queue) bool {
	t.Helper()
	id, err := q.running(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return id != ""
}

// once gives how listAll finds each of some once.
func once(lists ...[]string) map[string]int {
	times := map[string]int{}
	for _, id := range slices.Concat(lists...) {
		times[id] = 1
	}
	return times
}

func TestEveryOpenMessageIsListedByWhatItIs(t *testing.T) {
	onEachRedis(t, func(t *testing.T, q *Queue) {
		version, err := declare(t, q, ActiveProvider{Kind: "smtp", Keying: ByAccount, Account: account, Sender: "own@example.com", Concurrency: 5}, "salt", "fingerprint")
		if err != nil {
			t.Fatal(err)
		}
		d := sitDown(t, q, version, nil)
		begun := time.Now()
		ended := enqueue(t, q, message(mail.Report, "ada@example.net"))
		gone := enqueue(t, q, message(mail.Report, "bob@example.net"))
		failing(t, d, map[string]string{ended: "d", gone: "x"}, nil)
		alert := message(mail.Alert, "ada@example.net")
		alert.From = mail.Address{}
		fire := enqueue(t, q, alert)
		later := message(mail.Alert, "bob@example.net")
		later.From, later.SendAt = mail.Address{Address: "News@example.com"}, time.Now().Add(time.Hour).Truncate(time.Millisecond)
		scheduled := enqueue(t, q, later)
		many := batch(mail.Subscription, 450)
		many.Message.From, many.Message.Cc = mail.Address{Address: "news@example.com"}, []mail.Address{{Address: "eve@example.org"}}
		many.Recipients[7].To = []mail.Address{{Address: "not an address"}} // refused: a gap in the ids
		b := enqueueBatch(t, q, many)
		its := slices.DeleteFunc(slices.Clone(b.IDs), func(id string) bool { return id == "" })
		draft := message(mail.Report, "")
		draft.To = nil
		staged, err := q.OpenBatch(t.Context(), draft)
		if err != nil {
			t.Fatal(err)
		}
		for i := range itemsPerScript + 1 {
			if _, err := staged.Add(t.Context(), mail.Recipient{To: []mail.Address{{Address: fmt.Sprintf("r%d@example.net", i)}}}); err != nil {
				t.Fatal(err)
			}
		}
		a := d.turns()[0].Next(nil) // the alert
		if a == nil || a.MessageID != fire {
			t.Fatalf("%+v begins", a)
		}
		open := [][]string{{fire, scheduled}, its}
		for name, test := range map[string]struct {
			filter MessageFilter
			want   map[string]int
		}{
			"open":            {MessageFilter{}, once(open...)},
			"all":             {MessageFilter{States: States()}, once([]string{fire, scheduled, ended, gone}, its)},
			"sending":         {MessageFilter{States: []State{Sending}}, once([]string{fire})},
			"ended":           {MessageFilter{States: []State{Delivered, Failed}}, once([]string{ended, gone})},
			"kind":            {MessageFilter{Kind: mail.Alert}, once([]string{fire, scheduled})},
			"mailbox":         {MessageFilter{Mailbox: "NEWS@example.com"}, once([]string{scheduled}, its)},
			"mailbox, own":    {MessageFilter{Mailbox: "own@example.com"}, once([]string{fire})},
			"mailbox, none":   {MessageFilter{Mailbox: "-"}, once([]string{fire})},
			"batch":           {MessageFilter{BatchID: b.ID}, once(its)},
			"batch, kind":     {MessageFilter{BatchID: b.ID, Kind: mail.Alert}, once()},
			"batch, unknown":  {MessageFilter{BatchID: ulid.Make().String()}, once()},
			"batch, no id":    {MessageFilter{BatchID: "nonsense"}, once()},
			"recipient":       {MessageFilter{Recipient: "BOB@example.net"}, once([]string{scheduled})},
			"copy":            {MessageFilter{Recipient: "@example.org"}, once(its)},
			"ids":             {MessageFilter{IDs: []string{its[3], fire, ended, its[3], "nonsense"}}, once([]string{its[3], fire})},
			"ids and a batch": {MessageFilter{IDs: []string{its[3], fire}, BatchID: b.ID}, once([]string{its[3]})},
			"after":           {MessageFilter{AcceptedAfter: acceptedAt(scheduled), Kind: mail.Alert}, once([]string{scheduled})},
			"before":          {MessageFilter{AcceptedBefore: begun.Add(-time.Second)}, once()},
		} {
			if test.filter.AcceptedAfter.Equal(acceptedAt(fire)) {
				test.want[fire] = 1 // the same millisecond
			}
			for _, limit := range []int{10, 1000} {
				if got := listAll(t, q, test.filter, limit); !maps.Equal(got, test.want) {
					t.Errorf("%s, pages of %d: %d found, want %d", name, limit, len(got), len(test.want))
				}
			}
		}

		page, err := q.Messages(t.Context(), MessageFilter{IDs: []string{fire, scheduled, its[3], gone}, States: States()}, "", 10)
		if err != nil || len(page.Messages) != 4 || page.Scanned != 4 {
			t.Fatalf("%+v, %v", page, err)
		}
		for _, m := range page.Messages {
			s := status(t, q, m.ID)
			want := ListedMessage{ID: m.ID, Mailbox: map[string]string{scheduled: "news@example.com", its[3]: "news@example.com", gone: "reports@example.com"}[m.ID], BatchID: s.BatchID, Kind: s.Kind, State: s.State, Accepted: s.Accepted, Due: s.Due, Finished: s.Finished,
				Attempts: s.Attempts, Recipients: len(s.Recipients)}
			if m != want || m.ID == scheduled && !m.Due.Equal(later.SendAt) || m.ID == its[3] && m.Recipients != 2 || m.ID == gone && m.Finished.IsZero() {
				t.Errorf("got %+v, want %+v", m, want)
			}
		}
	})
}

func TestFaultsOfAFilterAndCursorsOfOthersAreRefused(t *testing.T) {
	r := queuetest.Start(t)
	q := open(t, r.Client)
	b := enqueueBatch(t, q, batch(mail.Report, 300))
	now := time.Now()
	for field, f := range map[string]MessageFilter{
		"/states/1": {States: []State{Queued, "waiting"}}, "/kind": {Kind: "news"}, "/recipient": {Recipient: "ada"}, "/ids": {IDs: make([]string, maxFilterIDs+1)},
		"/accepted_before": {AcceptedAfter: now, AcceptedBefore: now},
	} {
		var invalid *mail.Invalid
		if _, err := q.Messages(t.Context(), f, "", 0); !errors.As(err, &invalid) || invalid.Problems[0].Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	var invalid *mail.Invalid
	if _, err := q.CancelMessages(t.Context(), MessageFilter{States: []State{Failed}}, SelectionOptions{}); !errors.As(err, &invalid) || invalid.Problems[0].Field != "/states/0" {
		t.Errorf("cancel what failed: %v", err)
	}
	page, err := q.Messages(t.Context(), MessageFilter{}, "", 10)
	if err != nil || page.Next == "" || page.Left < 100 || page.Left > 900 {
		t.Fatalf("%d left, next %q, %v", page.Left, page.Next, err)
	}
	for _, cursor := range []string{"x", "n-1", "n1", "s", "s.x", page.Next + ".short", strings.Replace(page.Next, ".", ".-", 1)} {
		if _, err := q.Messages(t.Context(), MessageFilter{}, cursor, 10); !errors.Is(err, ErrCursor) {
			t.Errorf("cursor %q: %v", cursor, err)
		}
	}
	if _, err := q.Messages(t.Context(), MessageFilter{BatchID: b.ID}, page.Next, 10); !errors.Is(err, ErrCursor) {
		t.Errorf("a cursor of another sort: %v", err)
	}
	if _, err := q.CancelMessages(t.Context(), MessageFilter{}, SelectionOptions{Cursor: page.Next}); !errors.Is(err, ErrCursor) {
		t.Errorf("a cursor of a list: %v", err)
	}
	r.Kill()
	r.Restart()
	if _, err := q.Messages(t.Context(), MessageFilter{}, page.Next, 10); !errors.Is(err, ErrCursorOver) {
		t.Errorf("a cursor of another run of Redis: %v", err)
	}
}

// Redis's table of keys grows and shrinks while the pages are read, and mail ends.
func TestAMessageThatIsOpenThroughoutIsOnAPage(t *testing.T) {
	r := queuetest.StartWith(t, "--enable-debug-command", "yes", "--hz", "500")
	q := open(t, r.Client)
	b := enqueueBatch(t, q, batch(mail.Report, 700))
	others := make([]string, 40_000)
	values := make([]any, 0, 2*len(others))
	for i := range others {
		others[i] = fmt.Sprint("other:", i)
		values = append(values, others[i], "")
	}
	buckets := func(is string) {
		eventually(t, "Redis's table has "+is, func() bool {
			return strings.Contains(r.Client.Do(t.Context(), "DEBUG", "HTSTATS", "0").String(), "table size: "+is+"\n")
		})
	}
	for _, limit := range []int{7, 60, 333} {
		r.Client.MSet(t.Context(), values...)
		buckets("65536")
		times := map[string]int{}
		for cursor, pages := "", 0; ; pages++ {
			page, err := q.Messages(t.Context(), MessageFilter{Kind: mail.Report}, cursor, limit)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range page.Messages {
				times[m.ID]++
			}
			if cursor = page.Next; cursor == "" {
				break
			}
			switch pages {
			case 0:
				r.Client.Del(t.Context(), others...)
				buckets("1024")
			case 1:
				r.Client.MSet(t.Context(), values...)
			}
		}
		for _, id := range b.IDs {
			if times[id] == 0 || len(times) != len(b.IDs) {
				t.Fatalf("pages of %d: %s is on %d pages, %d of %d were found", limit, id, times[id], len(times), len(b.IDs))
			}
		}
	}
}

func TestBatchesAreListedWithWhatBecameOfThem(t *testing.T) {
	onEachRedis(t, func(t *testing.T, q *Queue) {
		version := activate(t, q, 5)
		d := sitDown(t, q, version, nil)
		through := enqueueBatch(t, q, batch(mail.Alert, 2))
		failing(t, d, map[string]string{through.IDs[0]: "d"}, nil)
		news := batch(mail.Subscription, 3)
		news.Message.From = mail.Address{Address: "News@example.com"}
		waits := enqueueBatch(t, q, news)
		later := batch(mail.Report, 4)
		later.Message.From, later.Message.SendAt = mail.Address{}, time.Now().Add(time.Hour).Truncate(time.Millisecond)
		scheduled := enqueueBatch(t, q, later)
		if err := q.CancelMessage(t.Context(), scheduled.IDs[1]); err != nil {
			t.Fatal(err)
		}
		var others []string
		for range 30 {
			others = append(others, enqueueBatch(t, q, batch(mail.Report, 1)).ID)
		}
		all := append(others, through.ID, waits.ID, scheduled.ID)
		for name, test := range map[string]struct {
			filter BatchFilter
			want   map[string]int
		}{
			"all":           {BatchFilter{}, once(all)},
			"kind":          {BatchFilter{Kind: mail.Alert}, once([]string{through.ID})},
			"mailbox":       {BatchFilter{Mailbox: "news@EXAMPLE.com"}, once([]string{waits.ID})},
			"mailbox, none": {BatchFilter{Mailbox: "-", Kind: mail.Report}, once([]string{scheduled.ID})},
			"open":          {BatchFilter{Open: true}, once(others, []string{waits.ID, scheduled.ID})},
			"before":        {BatchFilter{AcceptedBefore: acceptedAt(through.ID)}, once()},
			"after":         {BatchFilter{AcceptedAfter: acceptedAt(through.ID)}, once(all)},
		} {
			for _, limit := range []int{3, 1000} {
				times := map[string]int{}
				for cursor, pages := "", 0; ; pages++ {
					page, err := q.Batches(t.Context(), test.filter, cursor, limit)
					if err != nil || len(page.Batches) > limit || pages > 1000 {
						t.Fatalf("%s: page %d has %d, %v", name, pages, len(page.Batches), err)
					}
					for _, b := range page.Batches {
						times[b.ID]++
						want, err := q.Batch(t.Context(), b.ID)
						if err != nil || !reflect.DeepEqual(&b, want) {
							t.Errorf("got %+v, want %+v, %v", b, want, err)
						}
					}
					if cursor = page.Next; cursor == "" {
						break
					}
				}
				if !maps.Equal(times, test.want) {
					t.Errorf("%s, pages of %d: %v, want %v", name, limit, times, test.want)
				}
			}
		}
		if b, err := q.Batch(t.Context(), scheduled.ID); err != nil || b.Open != 3 || b.Cancelled != 1 || !b.SendAt.Equal(later.Message.SendAt) {
			t.Errorf("%+v, %v", b, err)
		}
	})
}
