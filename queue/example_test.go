package queue_test

import (
	"context"
	"fmt"
	"log"
	"strings"

	"github.com/alicebob/miniredis/v2"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// An application hands in an alert, and a report with the same attachment for many, each with their own name in it.
func Example() {
	server, err := miniredis.Run() // in an application: the Redis that Postroom's workers use
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()

	ctx := context.Background()
	q, err := queue.Open(ctx, queue.Options{URL: "redis://" + server.Addr()})
	if err != nil {
		log.Fatal(err)
	}
	defer q.Close()

	alert, err := q.Enqueue(ctx, mail.Message{
		Kind:    mail.Alert,
		To:      []mail.Address{{Address: "oncall@example.com"}},
		Subject: "Disk of db-1 is 92 % full",
		Text:    "It will be full in about 3 hours.",
	}, queue.Idempotency("monitor", "db-1-disk-92"))
	if err != nil {
		log.Fatal(err)
	}
	status, err := q.Message(ctx, alert.ID)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the alert is", status.State)

	report, err := q.EnqueueBatch(ctx, mail.Batch{
		Message: mail.Message{
			Kind:        mail.Report,
			Subject:     "Sales of week 47, for {{.name}}",
			Text:        "Dear {{.name}},\n\nthe report is attached.",
			Attachments: []mail.Attachment{{Name: "sales.pdf", Content: []byte("%PDF-1.4 ...")}},
		},
		Recipients: []mail.Recipient{
			{To: []mail.Address{{Address: "ada@example.com"}}, Variables: map[string]any{"name": "Ada"}},
			{To: []mail.Address{{Address: "not an address"}}, Variables: map[string]any{"name": "Bob"}},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("accepted:", report.Accepted)
	for index, problems := range report.Refused {
		fmt.Println("refused:", index, problems[0].Field)
	}
	progress, err := q.Batch(ctx, report.ID)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("delivered so far:", progress.Delivered, "of", progress.Total)
	// Output:
	// the alert is queued
	// accepted: 1
	// refused: 1 /recipients/1/to/0/address
	// delivered so far: 0 of 1
}

// A report for very many, whose recipients come from elsewhere one after the other: only a few of them are in memory at a time. The
// file is stored once, and can be shared with other batches.
func ExampleQueue_OpenBatch() {
	server, err := miniredis.Run()
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()

	ctx := context.Background()
	q, err := queue.Open(ctx, queue.Options{URL: "redis://" + server.Addr()})
	if err != nil {
		log.Fatal(err)
	}
	defer q.Close()

	file, err := q.StoreContent(ctx, "sales.pdf", "application/pdf", strings.NewReader("%PDF-1.4 ..."))
	if err != nil {
		log.Fatal(err)
	}
	batch, err := q.OpenBatch(ctx, mail.Message{
		Kind:        mail.Report,
		Subject:     "Sales of week 47, for {{.name}}",
		Text:        "Dear {{.name}},\n\nthe report is attached.",
		Attachments: []mail.Attachment{{Name: "sales.pdf", Ref: file.ID}},
	}, queue.Idempotency("reports", "sales-47"))
	if err != nil {
		log.Fatal(err)
	}
	defer batch.Discard(ctx) // unless it is committed
	for _, name := range []string{"ada", "bob", "eve"} {
		problems, err := batch.Add(ctx, mail.Recipient{
			To:        []mail.Address{{Address: name + "@example.com"}},
			Variables: map[string]any{"name": name},
		})
		if err != nil {
			log.Fatal(err)
		}
		for _, p := range problems {
			fmt.Println(p.Field, p.Reason)
		}
	}
	receipt, err := batch.Commit(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("accepted:", receipt.Accepted)
	// Output:
	// accepted: 3
}
