package queue

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
)

// failing has every message that may go settled by letters (see outcomes) for its id, or by "x" for each recipient.
func failing(t *testing.T, d *desk, letters map[string]string, replies map[string]mail.Outcome) {
	t.Helper()
	for turns := d.turns(); len(turns) > 0; turns = d.turns() {
		for _, turn := range turns {
			for a := turn.Next(nil); a != nil; {
				how := letters[a.MessageID]
				if how == "" {
					how = strings.Repeat("x", len(a.Offered))
				}
				s := outcomes(a, GiveUp, how)
				if reply, ok := replies[a.MessageID]; ok {
					for i := range s.Outcomes {
						if s.Outcomes[i].Class != mail.Delivered {
							s.Outcomes[i] = reply
							s.Class = reply.Class
						}
					}
				}
				a = turn.Next(s)
			}
		}
	}
}

// search gives the ids of all that a filter selects, in order, over pages of 2.
func search(t *testing.T, q *Queue, f FailedFilter) []string {
	t.Helper()
	var ids []string
	for cursor, pages := "", 0; ; pages++ {
		page, err := q.Failed(t.Context(), f, cursor, 2)
		if err != nil || pages > 100 {
			t.Fatalf("page %d: %v", pages, err)
		}
		for _, m := range page.Messages {
			ids = append(ids, m.ID)
		}
		if cursor = page.Next; cursor == "" {
			return ids
		}
	}
}

// runAll does all steps of a run and gives their sum.
func runAll(t *testing.T, do func(context.Context, FailedFilter, SelectionOptions) (SelectionStep, error), f FailedFilter, o SelectionOptions) SelectionStep {
	t.Helper()
	var sum SelectionStep
	for {
		step, err := do(t.Context(), f, o)
		if err != nil {
			t.Fatal(err)
		}
		sum.Done += step.Done
		sum.Cancelled += step.Cancelled
		sum.Unreadable += step.Unreadable
		sum.Scanned += step.Scanned
		if o.Cursor = step.Next; o.Cursor == "" {
			return sum
		}
	}
}

func failedCount(t *testing.T, q *Queue) int {
	t.Helper()
	counts, err := q.Counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n, byClass := 0, 0
	for _, f := range counts.Failed {
		n += f
	}
	for _, f := range counts.FailedByClass {
		byClass += f
	}
	if stored := int(q.redis.ZCard(t.Context(), q.key("failed")).Val()); n != stored || byClass != stored {
		t.Errorf("%d are counted as failed by kind, %d by class; there are %d", n, byClass, stored)
	}
	return n
}

func TestFailedMailIsFoundByEveryField(t *testing.T) {
	onEachRedis(t, func(t *testing.T, q *Queue) {
		version, err := declare(t, q, ActiveProvider{Kind: "smtp", Keying: ByAccount, Account: account, Sender: "Own@example.com", Concurrency: 1}, "salt", "fingerprint")
		if err != nil {
			t.Fatal(err)
		}
		d := sitDown(t, q, version, nil)
		alert := enqueue(t, q, message(mail.Alert, "ada@example.net"))
		billing := to(mail.Report, "bob@example.net")
		billing.From.Address = "Billing@Example.com"
		billing.Cc = []mail.Address{{Address: "Carl@example.org"}}
		copied := enqueue(t, q, billing)
		own := message(mail.Report, "jimbob@example.net")
		own.From = mail.Address{}
		senderless := enqueue(t, q, own)
		many := batch(mail.Subscription, 3)
		many.Message.Bcc = []mail.Address{{Address: "archive@example.org"}}
		b := enqueueBatch(t, q, many)
		failing(t, d, map[string]string{copied: "dx", b.IDs[1]: "dd"}, map[string]mail.Outcome{
			alert:      {Class: mail.Permanent, Code: 550, Enhanced: "5.1.1", Reply: "550 No such USER; ask your postmaster"},
			copied:     {Class: mail.Permanent, Code: 552, Enhanced: "5.2.2", Reply: "552 Mailbox full"},
			senderless: {Class: mail.Unknown, Step: "body", Reply: "The connection was lost."},
			b.IDs[0]:   {Class: mail.Temporary, Code: 451, Reply: "451 Über quota"},
		})
		if status(t, q, b.IDs[1]).State != Delivered {
			t.Fatal("one of the batch was to be delivered")
		}
		all := []string{alert, copied, senderless, b.IDs[0], b.IDs[2]}
		for name, test := range map[string]struct {
			filter FailedFilter
			want   []string
		}{
			"nothing set":                  {FailedFilter{}, all},
			"kind":                         {FailedFilter{Kind: mail.Report}, []string{copied, senderless}},
			"class":                        {FailedFilter{Classes: []mail.Class{mail.Unknown}}, []string{senderless}},
			"the zero class":               {FailedFilter{Classes: []mail.Class{mail.Temporary}}, []string{b.IDs[0]}},
			"classes":                      {FailedFilter{Classes: []mail.Class{mail.Unknown, mail.Temporary}}, []string{senderless, b.IDs[0]}},
			"mailbox":                      {FailedFilter{Mailbox: "BILLING@example.com"}, []string{copied}},
			"mailbox of a batch":           {FailedFilter{Mailbox: "reports@example.com", BatchID: b.ID}, []string{b.IDs[0], b.IDs[2]}},
			"the provider's own mailbox":   {FailedFilter{Mailbox: "own@example.com"}, []string{senderless}},
			"no sender":                    {FailedFilter{Mailbox: "-"}, []string{senderless}},
			"batch":                        {FailedFilter{BatchID: b.ID}, []string{b.IDs[0], b.IDs[2]}},
			"recipient":                    {FailedFilter{Recipient: "ADA@example.net"}, []string{alert}},
			"copied recipient":             {FailedFilter{Recipient: "carl@example.org"}, []string{copied}},
			"part of an address":           {FailedFilter{Recipient: "b@example.net"}, nil},
			"one who has it":               {FailedFilter{Recipient: "bob@example.net"}, nil},
			"domain":                       {FailedFilter{Recipient: "@example.org", Kind: mail.Report}, []string{copied}},
			"copied recipient of a batch":  {FailedFilter{Recipient: "archive@example.org"}, []string{b.IDs[0], b.IDs[2]}},
			"reply":                        {FailedFilter{Reply: "no such user; ask"}, []string{alert}},
			"reply in another script":      {FailedFilter{Reply: "ÜBER QUOTA"}, []string{b.IDs[0]}},
			"status code":                  {FailedFilter{Reply: "5.2.2"}, []string{copied}},
			"no reply has what a step has": {FailedFilter{Reply: "body"}, nil},
			"ids":                          {FailedFilter{IDs: []string{b.IDs[0], alert, "unknown", b.IDs[1], alert}}, []string{alert, b.IDs[0]}},
			"ids and kind":                 {FailedFilter{IDs: all, Kind: mail.Alert}, []string{alert}},
			"all together":                 {FailedFilter{Kind: mail.Alert, Classes: []mail.Class{mail.Permanent}, Mailbox: "reports@example.com", Recipient: "ada@example.net", Reply: "user", IDs: all, From: time.Unix(1, 0), Until: time.Now().Add(time.Hour)}, []string{alert}},
			"all but one":                  {FailedFilter{Kind: mail.Report, Mailbox: "reports@example.com"}, nil},
		} {
			got, want := search(t, q, test.filter), slices.Clone(test.want)
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("%s: %d found, want %d:\n%v\n%v", name, len(got), len(want), got, want)
			}
			if n := runAll(t, q.Requeue, test.filter, SelectionOptions{DryRun: true}).Done; n != len(want) {
				t.Errorf("%s: a dry run counts %d, want %d", name, n, len(want))
			}
		}
		page, err := q.Failed(t.Context(), FailedFilter{IDs: []string{copied}}, "", 0)
		if err != nil || len(page.Messages) != 1 {
			t.Fatalf("%+v, %v", page, err)
		}
		m := page.Messages[0]
		if m.Kind != mail.Report || m.Class != mail.Permanent || m.Mailbox != "billing@example.com" || m.Attempts != 1 || m.Failed.IsZero() ||
			len(m.Recipients) != 2 || m.Recipients[0].State != "delivered" || m.Recipients[1].State != "refused" ||
			m.Last.Code != 552 || m.Last.Enhanced != "5.2.2" || m.Last.Reply != "552 Mailbox full" || !slices.Equal(m.Last.Recipients, []int{1}) {
			t.Errorf("%+v", m)
		}
	})
}

func TestFailedMailIsFoundByTimeNewestFirst(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	start := time.UnixMilli(c.now.UnixMilli())
	var ids []string
	for range 5 {
		ids = append(ids, enqueue(t, q, message(mail.Report, "ada@example.net")))
		failing(t, d, nil, nil)
		c.advance(time.Second)
	}
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	for _, test := range []struct {
		from, until time.Time
		want        []string
	}{
		{want: []string{ids[4], ids[3], ids[2], ids[1], ids[0]}},
		{from: at(3), want: []string{ids[4], ids[3]}},
		{from: at(3).Add(1), want: []string{ids[4]}},
		{until: at(1), want: []string{ids[0]}},
		{until: at(1).Add(1), want: []string{ids[1], ids[0]}},
		{from: at(1), until: at(3), want: []string{ids[2], ids[1]}},
		{from: at(9)},
	} {
		f := FailedFilter{From: test.from, Until: test.until}
		if got := search(t, q, f); !slices.Equal(got, test.want) {
			t.Errorf("from %v until %v: %v, want %v", test.from, test.until, got, test.want)
		}
		f.IDs = ids
		if got := search(t, q, f); !slices.Equal(got, test.want) {
			t.Errorf("by id, from %v until %v: %v, want %v", test.from, test.until, got, test.want)
		}
	}
}

// All fail in the same millisecond, so that only ids tell the places apart.
func TestPagesOfFailedMailNeitherMissNorRepeatWhileTheStoreChanges(t *testing.T) {
	q, c := onClock(t)
	d := sitDown(t, q, activate(t, q, 1), nil)
	ids := enqueueBatch(t, q, batch(mail.Report, scanPiece+10)).IDs
	failing(t, d, nil, nil)
	var got []string
	for cursor, n := "", 0; n == 0 || cursor != ""; n++ {
		page, err := q.Failed(t.Context(), FailedFilter{}, cursor, 7)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page.Messages {
			got = append(got, m.ID)
		}
		// What has been shown goes, and something new fails.
		if _, err := q.DeleteFailed(t.Context(), FailedFilter{IDs: []string{page.Messages[0].ID}}, SelectionOptions{}); err != nil {
			t.Fatal(err)
		}
		c.advance(time.Millisecond)
		if n%10 == 0 {
			enqueue(t, q, message(mail.Report, "bob@example.net"))
			failing(t, d, nil, nil)
		}
		cursor = page.Next
	}
	slices.Reverse(got)
	if !slices.Equal(got, ids) {
		t.Errorf("%d messages were listed, want the %d that were there, newest first", len(got), len(ids))
	}
}

func TestAFaultySelectionIsRefusedWithoutQuotingIt(t *testing.T) {
	q, _ := onClock(t)
	for name, f := range map[string]FailedFilter{
		"/kind":      {Kind: "secret"},
		"/recipient": {Recipient: "secret"},
		"/ids":       {IDs: make([]string, maxFilterIDs+1)},
		"/until":     {From: time.Unix(2, 0), Until: time.Unix(1, 0)},
	} {
		for call, err := range map[string]error{
			"failed":  second(q.Failed(t.Context(), f, "", 1)),
			"requeue": second(q.Requeue(t.Context(), f, SelectionOptions{DryRun: true})),
			"delete":  second(q.DeleteFailed(t.Context(), f, SelectionOptions{DryRun: true})),
		} {
			var invalid *mail.Invalid
			if !errors.As(err, &invalid) || len(invalid.Problems) != 1 || invalid.Problems[0].Field != name || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s of a faulty %s: %v", call, name, err)
			}
		}
	}
	for _, cursor := range []string{"x", "1", "-1-a", "1-", "1-" + strings.Repeat("x", 27), "99999999999999999999-a"} {
		if _, err := q.Failed(t.Context(), FailedFilter{}, cursor, 1); !errors.Is(err, ErrCursor) {
			t.Errorf("cursor %q: %v", cursor, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func FuzzFailedCursor(f *testing.F) {
	f.Add("1763790000000-01KA0000000000000000000000")
	f.Add("0-~")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parseCursor(s)
		if err != nil {
			return
		}
		if again, err := parseCursor(p.cursor()); err != nil || again != p {
			t.Errorf("%q became %+v, then %+v, %v", s, p, again, err)
		}
	})
}
