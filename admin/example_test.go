package admin_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log"
	"net/http/httptest"

	"github.com/alicebob/miniredis/v2"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// An application hands in a batch over HTTP, line by line, and asks what became of it.
func ExampleClient_StreamBatch() {
	ctx := context.Background()
	server := serveAPI(ctx) // in an application: the address of postroom serve
	defer server.Close()
	client, err := admin.NewClient(server.URL, "the token", server.Client())
	if err != nil {
		log.Fatal(err)
	}
	readers := func(yield func(mail.Recipient, error) bool) {
		for _, name := range []string{"ada", "bob", "not an address"} {
			r := mail.Recipient{To: []mail.Address{{Address: name + "@example.com"}}, Variables: map[string]any{"name": name}}
			if !yield(r, nil) {
				return
			}
		}
	}
	accepted, err := client.StreamBatch(ctx, mail.Message{Kind: mail.Subscription, Subject: "News for {{.name}}", Text: "Dear {{.name}}"},
		readers, admin.StreamOptions{IdempotencyKey: "news-47"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("accepted:", accepted.Accepted)
	for _, r := range accepted.Recipients {
		fmt.Println(r.Problem.Errors[0].Location, r.Problem.Errors[0].Reason)
	}
	status, err := client.Batch(ctx, accepted.ID)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("open:", status.Counts.Open)
	// Output:
	// accepted: 2
	// /recipients/2/to/0/address is not an address such as ada@example.com
	// open: 2
}

func serveAPI(ctx context.Context) *httptest.Server {
	store, err := miniredis.Run()
	if err != nil {
		log.Fatal(err)
	}
	q, err := queue.Open(ctx, queue.Options{URL: "redis://" + store.Addr()})
	if err != nil {
		log.Fatal(err)
	}
	sum := sha256.Sum256([]byte("the token"))
	return httptest.NewServer(admin.NewHandler(admin.Options{Queue: q,
		Tokens: []admin.Token{{Name: "app", Role: "producer", SHA256: hex.EncodeToString(sum[:])}}}))
}
