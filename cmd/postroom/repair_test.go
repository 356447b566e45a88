package main

import (
	"testing"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/queue/queuetest"
)

func TestCheckRepairs(t *testing.T) {
	r := queuetest.StartTCP(t)
	q, err := queue.Open(t.Context(), queue.Options{Client: r.Client})
	if err != nil {
		t.Fatal(err)
	}
	m := mail.Message{Kind: mail.Report, From: mail.Address{Address: "reports@x.example"}, To: []mail.Address{{Address: "ada@x.example"}}, Text: "x"}
	for range 1200 {
		if _, err := q.Enqueue(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	config := file(t, "postroom.yaml", `redis: {url: "`+r.URL+`"}`)
	check := func() ran { return tells(t, "", "check", "--no-verify", "--repair", "--config", config) }
	check().want(t, 0, "\nrecords ", "indexes and counters are as the records say")
	const lane = "{postroom}:l:r:reports@x.example:-:n"
	before := r.Client.LRange(t.Context(), lane, 0, -1).Val()
	r.Client.Del(t.Context(), lane, "{postroom}:r:r:reports@x.example")
	r.Client.HIncrBy(t.Context(), "{postroom}:counts", "open:r", 7)
	check().want(t, 0, "\nrecords ", "put right: 1,200 messages that nothing would have taken up, 2 places in turn, 1 counters. To do: find out who")
	if after := r.Client.LRange(t.Context(), lane, 0, -1).Val(); len(after) != 1200 || after[0] != before[0] || after[1199] != before[1199] {
		t.Errorf("%d messages wait, in another order", len(after))
	}
	check().want(t, 0, "indexes and counters are as the records say")
	r.Client.Set(t.Context(), "{postroom}:l:r:reports@x.example:+:n", "no list", 0)
	check().want(t, exitFault, "the repair stopped half-way: ", "repeat it")
}
