package queue

import (
	"encoding/json"
	"flag"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue/queuetest"
)

// writeFixture is for a new format alone: what an earlier one wrote never changes.
var writeFixture = flag.String("write-format-fixture", "", "write what this version keeps in Redis to a file of testdata, for later versions to read")

// kept is one key of Redis, in a form that does not depend on its version.
type kept struct {
	Key    string             `json:"key"`
	Text   []byte             `json:"text,omitempty"`
	List   []string           `json:"list,omitempty"`
	Hash   map[string]string  `json:"hash,omitempty"`
	Set    []string           `json:"set,omitempty"`
	Sorted map[string]float64 `json:"sorted,omitempty"`
}

func keep(t *testing.T, c *redis.Client) []kept {
	t.Helper()
	names := c.Keys(t.Context(), "{postroom}:*").Val()
	slices.Sort(names)
	var all []kept
	for _, name := range names {
		k := kept{Key: name}
		switch kind := c.Type(t.Context(), name).Val(); kind {
		case "string":
			k.Text = []byte(c.Get(t.Context(), name).Val())
		case "list":
			k.List = c.LRange(t.Context(), name, 0, -1).Val()
		case "hash":
			k.Hash = c.HGetAll(t.Context(), name).Val()
		case "set":
			k.Set = c.SMembers(t.Context(), name).Val()
		case "zset":
			k.Sorted = map[string]float64{}
			for _, z := range c.ZRangeWithScores(t.Context(), name, 0, -1).Val() {
				k.Sorted[z.Member.(string)] = z.Score
			}
		case "stream": // the audit is not mail
			continue
		default:
			t.Fatalf("%s is a %s", name, kind)
		}
		all = append(all, k)
	}
	return all
}

func restore(t *testing.T, c *redis.Client, all []kept) {
	t.Helper()
	for _, k := range all {
		var err error
		switch {
		case k.List != nil:
			err = c.RPush(t.Context(), k.Key, anyOf(k.List)...).Err()
		case k.Hash != nil:
			err = c.HSet(t.Context(), k.Key, k.Hash).Err()
		case k.Set != nil:
			err = c.SAdd(t.Context(), k.Key, anyOf(k.Set)...).Err()
		case k.Sorted != nil:
			for member, score := range k.Sorted {
				err = c.ZAdd(t.Context(), k.Key, redis.Z{Member: member, Score: score}).Err()
			}
		default:
			err = c.Set(t.Context(), k.Key, k.Text, 0).Err()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func anyOf(texts []string) []any {
	all := make([]any, len(texts))
	for i, text := range texts {
		all[i] = text
	}
	return all
}

// TestWriteFormatFixture fills a queue with one of everything and writes down what is in Redis.
func TestWriteFormatFixture(t *testing.T) {
	if *writeFixture == "" {
		t.Skip("a fixture is written once for each format: -write-format-fixture format1.json")
	}
	q := open(t, queuetest.Start(t).Client)
	version := activate(t, q, 2)
	d := sitDown(t, q, version, nil)
	failed := enqueue(t, q, message(mail.Report, "failed@example.net"))
	turn := d.turn()
	turn.Next(refuses(begin(t, turn, nil)))
	if s := status(t, q, failed); s.State != Failed {
		t.Fatalf("%+v", s)
	}
	again := message(mail.Report, "again@example.net")
	again.Cc = []mail.Address{{Address: "copy@example.net", Name: "Copy"}}
	enqueue(t, q, again)
	a := begin(t, d.turn(), nil)
	a.turn.Next(&Settlement{Attempt: a, Verdict: Again, Class: mail.Temporary, Counted: true, Delay: time.Minute,
		Outcomes: []mail.Outcome{{Class: mail.Delivered, Code: 250}, {Class: mail.Temporary, Code: 451, Enhanced: "4.2.1", Reply: "451 4.2.1 later"}}})
	one := message(mail.Alert, "ada@example.net")
	one.Metadata, one.Headers = map[string]string{"run": "7"}, map[string]string{"X-Run": "7"}
	one.ExpiresAt = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	if _, err := q.Enqueue(t.Context(), one, Idempotency("app", "key")); err != nil {
		t.Fatal(err)
	}
	later := message(mail.Subscription, "later@example.net")
	later.SendAt = time.Now().Add(time.Hour)
	later.ListUnsubscribe = "https://example.com/u"
	enqueue(t, q, later)
	large := message(mail.Report, "large@example.net")
	large.Attachments = []mail.Attachment{{Name: "zeros.bin", Content: make([]byte, 70<<10)}}
	enqueue(t, q, large)
	b := batch(mail.Report, 3)
	b.Message.Attachments = []mail.Attachment{{Name: "report.pdf", Content: []byte("%PDF-1.7 not really")}}
	b.Message.HTML = "<p>Dear {{.name}}</p>"
	enqueueBatch(t, q, b)
	d.dies()
	written, err := json.MarshalIndent(keep(t, q.redis.(*redis.Client)), "", " ")
	if err == nil {
		err = os.WriteFile("testdata/"+*writeFixture, append(written, '\n'), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// refuses settles an attempt as refused for good.
func refuses(a *Attempt) *Settlement {
	s := delivered(a)
	s.Verdict, s.Class = GiveUp, mail.Permanent
	for i := range s.Outcomes {
		s.Outcomes[i] = mail.Outcome{Class: mail.Permanent, Scope: mail.ScopeRecipient, Code: 550, Enhanced: "5.1.1", Reply: "550 5.1.1 no such user"}
	}
	return s
}

// What a version has accepted a later one sends.
func TestMailThatAnEarlierVersionAcceptedIsSent(t *testing.T) {
	for _, file := range []string{"format1.json"} {
		text, err := os.ReadFile("testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		var all []kept
		if err := json.Unmarshal(text, &all); err != nil {
			t.Fatal(err)
		}
		r := queuetest.Start(t)
		restore(t, r.Client, all)
		q := open(t, r.Client)
		version := activate(t, q, 2)
		// What was to wait, and an hour, has done so by now.
		for _, member := range q.redis.ZRange(t.Context(), q.key("due"), 0, -1).Val() {
			q.redis.ZAdd(t.Context(), q.key("due"), redis.Z{Member: member, Score: 1})
		}
		counts, err := q.Counts(t.Context())
		if err != nil || counts.Open[mail.Report] != 5 || counts.Open[mail.Alert] != 1 || counts.Open[mail.Subscription] != 1 || counts.Failed[mail.Report] != 1 {
			t.Fatalf("%+v, %v", counts, err)
		}
		page, err := q.Failed(t.Context(), FailedFilter{}, "", 10)
		if err != nil || len(page.Messages) != 1 || page.Messages[0].Last.Enhanced != "5.1.1" {
			t.Fatalf("%+v, %v", page, err)
		}
		if step, err := q.Requeue(t.Context(), FailedFilter{}, SelectionOptions{}); err != nil || step.Done != 1 {
			t.Fatalf("%+v, %v", step, err)
		}
		sent := make(chan *Attempt, 20)
		consume(t, q, version, func(a *Attempt) *Settlement {
			sent <- a
			return delivered(a)
		})
		got := map[string]*Attempt{}
		for range 8 {
			a := <-sent
			got[a.Message.To[0].Address] = a
		}
		for _, to := range []string{"failed@example.net", "again@example.net", "ada@example.net", "later@example.net", "large@example.net", "r0@example.net", "r1@example.net", "r2@example.net"} {
			if got[to] == nil {
				t.Errorf("%s: no mail for %s", file, to)
			}
		}
		if t.Failed() {
			return
		}
		if a := got["again@example.net"]; a.Counted != 1 || !slices.Equal(a.Offered, []int{1}) || a.Message.Cc[0].Name != "Copy" {
			t.Errorf("%+v", a)
		}
		if a := got["ada@example.net"]; a.Message.Headers["X-Run"] != "7" || a.Kind != mail.Alert {
			t.Errorf("%+v", a.Message)
		}
		if a := got["later@example.net"]; a.Message.ListUnsubscribe != "https://example.com/u" {
			t.Errorf("%+v", a.Message)
		}
		if a := got["large@example.net"]; len(a.Message.Files) != 1 || a.Message.Files[0].Name != "zeros.bin" {
			t.Errorf("%+v", a.Message)
		}
		for i := range 3 {
			a := got["r"+strconv.Itoa(i)+"@example.net"]
			if a.Message.HTML != "<p>Dear N"+strconv.Itoa(i)+"</p>" || len(a.Message.Files) != 1 {
				t.Errorf("%+v", a.Message)
			}
		}
		one := message(mail.Alert, "ada@example.net")
		one.Metadata, one.Headers = map[string]string{"run": "7"}, map[string]string{"X-Run": "7"}
		one.ExpiresAt = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
		if receipt, err := q.Enqueue(t.Context(), one, Idempotency("app", "key")); err != nil || !receipt.Replayed || receipt.ID != got["ada@example.net"].MessageID {
			t.Errorf("%+v, %v; want the first answer", receipt, err)
		}
	}
}
