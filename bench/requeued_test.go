package bench

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
)

// TestFiftyThousandFailedMessagesAreFoundAndRequeued has a server refuse everybody, and then take everything. What failed is
// found by the API, and requeued by the command, which is killed again and again: before a request arrives, in the middle of its
// body, in the middle of what the server does, and when the answer is on its way.
func TestFiftyThousandFailedMessagesAreFoundAndRequeued(t *testing.T) {
	t.Parallel()
	const batches = 5
	n, page := size(10_000, 100), size(1000, 50) // of each batch, of a list
	var takes atomic.Bool
	server := listen(t, func(s *step) string {
		if s.at == "rcpt" && !takes.Load() {
			return "550 5.1.1 No such user here"
		}
		return ""
	})
	i := install(t, server.provider(10))
	i.serve()
	i.serve()
	var all []string
	begun := time.Now()
	for range batches {
		_, ids := i.accept(newsletter(n))
		all = append(all, ids...)
	}
	await(t, 10*time.Minute, "everything to fail", func() bool { return i.failed() == len(all) })
	t.Logf("%d messages of %d batches failed in %v", len(all), batches, time.Since(begun).Round(100*time.Millisecond))

	i.find("every message by class and status", admin.FailedFilter{Classes: []string{mail.Permanent.String()}, Reply: "5.1.1"}, page, all)
	i.find("those of a batch", admin.FailedFilter{BatchID: i.message(all[0]).BatchID}, page, all[:n])
	one := newsletter(n).Recipients[n/2].To[0].Address
	var its []string
	for b := range batches {
		its = append(its, all[b*n+n/2])
	}
	i.find("those of a recipient", admin.FailedFilter{Recipient: strings.ToUpper(one)}, page, its)
	i.find("none of another class", admin.FailedFilter{Classes: []string{mail.Temporary.String()}}, page, nil)

	takes.Store(true)
	between, address := interrupt(t, i.front.url, requeues)
	requeue := func() *postroom {
		between.mu.Lock()
		defer between.mu.Unlock()
		p := run(t, []string{"POSTROOM_URL=" + address, "POSTROOM_TOKEN=" + token}, "failed", "requeue", "--all", "--yes")
		between.kill = p.kill
		return p
	}
	for _, when := range []string{"before", "within", "after"} {
		if when == "after" && *full {
			// A request does what it can in a few seconds, in steps: it is cut in the middle of them, too.
			for left := i.failed(); left > len(all)/2; left = i.failed() {
				between.arm(0, "")
				p, goal := requeue(), left-len(all)/5
				await(t, time.Minute, "a part to be requeued", func() bool {
					n, err := i.redis.Client.ZCard(t.Context(), i.key("failed")).Result()
					return err == nil && int(n) < goal
				})
				p.kill()
				t.Logf("killed in the middle of %d: %d left", left, i.failed())
			}
			if i.failed() == 0 {
				t.Error("nothing was left: this proves nothing")
			}
		}
		between.arm(1, when)
		if code := requeue().wait(time.Minute); code != -1 {
			t.Fatalf("the command was to be killed, and ended with status %d", code)
		}
		t.Logf("killed %s the first request: %d left", when, i.failed())
	}
	begun = time.Now()
	between.arm(0, "")
	last := requeue()
	if code := last.wait(5 * time.Minute); code != 0 {
		t.Fatalf("the last run ended with status %d:\n%s", code, last.stderr.tail(2000))
	}
	t.Logf("the last run took %v: %s", time.Since(begun).Round(10*time.Millisecond), strings.TrimSpace(last.stderr.String()))
	if left := i.failed(); left != 0 {
		t.Errorf("%d messages are left in the failed store", left)
	}
	await(t, 10*time.Minute, "everything to be delivered", func() bool { return i.front.metric("postroom_messages") == 0 })
	server.came.once(t, all)
	for b := range batches {
		if c := i.counts(i.message(all[b*n]).BatchID); c == nil || c.Delivered != n {
			t.Errorf("batch %d: %+v", b, c)
		}
	}
}

// failed is how many messages are in the failed store.
func (i *installation) failed() int {
	i.t.Helper()
	n := 0.0
	for _, k := range mail.Kinds() {
		n += i.front.metric(fmt.Sprintf(`postroom_messages{kind="%s",state="failed"}`, k))
	}
	return int(n)
}

// find checks that a filter finds these messages, page by page, each once, the newest first, and tells how long a page takes.
func (i *installation) find(what string, f admin.FailedFilter, page int, want []string) {
	i.t.Helper()
	var found []string
	var took []time.Duration
	last := time.Now()
	for cursor := ""; len(took) == 0 || cursor != ""; {
		begun := time.Now()
		p, err := i.api.Failed(i.t.Context(), f, cursor, page)
		if err != nil {
			i.t.Fatal(err)
		}
		took = append(took, time.Since(begun))
		for _, m := range p.Messages {
			if m.Failed.After(last) {
				i.t.Errorf("%s: message %s is newer than the one before it", what, m.ID)
			}
			found, last = append(found, m.ID), m.Failed
		}
		cursor = p.Next
	}
	slices.Sort(found)
	if want = slices.Sorted(slices.Values(want)); !slices.Equal(found, want) {
		i.t.Errorf("%s: %d messages were found, want %d", what, len(found), len(want))
	}
	sum := time.Duration(0)
	for _, d := range took {
		sum += d
	}
	i.t.Logf("%s: %d found on %d pages of at most %d; a page took %v, at most %v", what, len(found), len(took), page,
		(sum / time.Duration(len(took))).Round(100*time.Microsecond), slices.Max(took).Round(100*time.Microsecond))
}

// requeues reports whether a request takes messages out of the failed store.
func requeues(r *http.Request) bool {
	if !strings.HasSuffix(r.URL.Path, "/failed/requeue") {
		return false
	}
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	return err == nil && !bytes.Contains(body, []byte(`"dry_run":true`))
}
