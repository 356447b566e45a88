package bench

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
)

// errCut is what a client dies of.
var errCut = errors.New("the client was cut")

// readership gives n recipients, and an error instead of the one with the index cut; below 0: none.
func readership(n, cut int) iter.Seq2[mail.Recipient, error] {
	return func(yield func(mail.Recipient, error) bool) {
		for i := range n {
			r := mail.Recipient{To: []mail.Address{{Address: fmt.Sprintf("subscriber%06d@example.net", i)}},
				Variables: map[string]any{"name": "Subscriber " + strconv.Itoa(i)}}
			var err error
			if i == cut {
				err = errCut
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// TestAStreamIsAcceptedInBoundedMemory hands in a report for hundreds of thousands, line by line: cut in the middle, then whole, then
// once more with the same key.
func TestAStreamIsAcceptedInBoundedMemory(t *testing.T) {
	t.Parallel()
	n, pdf := size(200_000, 3000), size(5_000_000, 50_000)
	i := install(t, map[string]any{"kind": "none"})
	client, err := admin.NewClient(i.front.url, token, &http.Client{})
	if err != nil {
		t.Fatal(err)
	}
	used := func() int64 {
		_, rest, _ := strings.Cut(i.redis.Client.Info(t.Context(), "memory").Val(), "used_memory:")
		bytes, err := strconv.ParseInt(rest[:strings.IndexByte(rest, '\r')], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return bytes
	}
	m := mail.Message{Kind: mail.Report, From: mail.Address{Address: "reports@example.com"}, Subject: "Sales for {{.name}}",
		Text: "Dear {{.name}}, the report is attached.", Attachments: []mail.Attachment{{Name: "report.pdf", Content: make([]byte, pdf)}}}
	for j := range m.Attachments[0].Content {
		m.Attachments[0].Content[j] = byte(j * 7 >> 3)
	}
	var told []admin.BatchProgress
	o := admin.StreamOptions{IdempotencyKey: "report-7", Progress: func(p admin.BatchProgress) { told = append(told, p) }}
	idle, before := i.front.peak(), used()

	begun := time.Now()
	if _, err := client.StreamBatch(t.Context(), m, readership(n, n/2), o); !errors.Is(err, errCut) {
		t.Fatalf("the first request: %v", err)
	}
	cut := time.Since(begun)
	var accepted *admin.BatchAccepted
	begun = time.Now()
	await(t, time.Minute, "the key to be free again", func() bool {
		told = nil
		accepted, err = client.StreamBatch(t.Context(), m, readership(n, -1), o)
		var p *admin.Problem
		if errors.As(err, &p) && p.Status == http.StatusConflict {
			return false
		} else if err != nil {
			t.Fatal(err)
		}
		return true
	})
	took := time.Since(begun)
	if accepted.Accepted != n || accepted.Refused != 0 || accepted.Replayed {
		t.Fatalf("%+v", accepted)
	}
	if len(told) == 0 || told[0] != (admin.BatchProgress{}) || *full && len(told) < 3 {
		t.Errorf("what was told of it is %v", told)
	}
	lines, peak := len(told), i.front.peak()
	again, err := client.StreamBatch(context.WithoutCancel(t.Context()), m, readership(n, -1), o)
	if err != nil || again.ID != accepted.ID || !again.Replayed || again.Accepted != n {
		t.Errorf("once more: %+v, %v", again, err)
	}
	counts := i.counts(accepted.ID)
	if counts == nil || counts.Open != n {
		t.Errorf("the batch has %+v", counts)
	}
	if sum := i.front.metric(`postroom_messages{kind="report",state="open"}`); sum != float64(n) {
		t.Errorf("%v messages are open in all, want %d", sum, n)
	}
	// 600 bytes for each, its own recipient and variables once, and the content once.
	own := int64(n) * int64(len(`{"to":[{"address":"subscriber000000@example.net"}],"variables":{"name":"Subscriber 000000"}}`))
	grown, allowed := used()-before, 600*int64(n)+own+int64(pdf)+8<<20
	if *full && (grown > allowed || peak > 150_000_000) {
		t.Errorf("Redis has grown by %d bytes, of which %d are allowed; the server took %d at most", grown, allowed, peak)
	}
	const mega = 1_000_000
	t.Logf("%d recipients and a file of %.1f MB: cut in the middle after %v, then accepted in %v (%.0f a second), told in %d lines; the server's peak %d MB (idle %d MB), "+
		"after the repetition %d MB; Redis grew by %d MB, allowed %d MB", n, float64(pdf)/mega, cut.Round(time.Millisecond), took.Round(time.Millisecond),
		float64(n)/took.Seconds(), lines, peak/mega, idle/mega, i.front.peak()/mega, grown/mega, allowed/mega)
}
