package bench

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postroom/postroom/admin"
)

// TestAHundredThousandFailedAreRequeuedInOneRequest has a server refuse everybody, and then take everything. One request requeues what a
// filter selects, and tells how far it is; it is cut in the middle, and repeated as it was.
func TestAHundredThousandFailedAreRequeuedInOneRequest(t *testing.T) {
	t.Parallel()
	const batches = 10
	n := size(10_000, 80) // of each batch
	var takes atomic.Bool
	server := listen(t, func(s *step) string {
		if s.at == "rcpt" && !takes.Load() {
			return "550 5.1.1 No such user here"
		}
		return ""
	})
	i := install(t, server.provider(10))
	i.serve()
	var all []string
	for range batches {
		_, ids := i.accept(newsletter(n))
		all = append(all, ids...)
	}
	begun := time.Now()
	await(t, 20*time.Minute, "everything to fail", func() bool { return i.failed() == len(all) })
	t.Logf("%d messages failed in %v", len(all), time.Since(begun).Round(100*time.Millisecond))
	takes.Store(true)
	idle := i.front.peak()
	left := func() int {
		n, err := i.redis.Client.ZCard(t.Context(), i.key("failed")).Result()
		if err != nil {
			t.Error(err)
		}
		return int(n)
	}

	const body = `{"filter": {"classes": ["permanent"], "reply": "5.1.1"}}`
	// Its connection is cut when a third is done.
	cut, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for cut.Err() == nil && left() > len(all)-len(all)/3 {
			pass(cut, time.Millisecond)
		}
	}()
	before, err := i.told(cut, "/v1/failed/requeue", body)
	cancel()
	if !errors.Is(err, context.Canceled) && (err != nil || *full) { // the short form can be faster
		t.Fatalf("the request was to be cut: %+v, %v", before, err)
	}
	between := left()
	begun = time.Now()
	lines, err := i.told(t.Context(), "/v1/failed/requeue", body)
	took := time.Since(begun)
	if err != nil {
		t.Fatal(err)
	}
	if *full && (between == 0 || between == len(all) || len(lines) < 2) {
		t.Errorf("%d were left in the middle, and then %d lines came: this proves nothing", between, len(lines))
	}
	for k := range lines[1:] {
		if lines[k+1].Done < lines[k].Done || lines[k].Next == "" {
			t.Errorf("line %d: %+v, then %+v", k, lines[k], lines[k+1])
		}
	}
	last := lines[len(lines)-1]
	if last.Next != "" || last.Done > between || left() != 0 {
		t.Errorf("%+v of %d, and %d are left", last, between, left())
	}
	if again, err := i.told(t.Context(), "/v1/failed/requeue", body); err != nil || again[len(again)-1].Done != 0 {
		t.Errorf("once more: %+v, %v", again, err)
	}
	await(t, 20*time.Minute, "everything to be delivered", func() bool { return i.front.metric("postroom_messages") == 0 })
	server.came.once(t, all)
	const mega = 1_000_000
	t.Logf("requeued in one request that was cut after %d lines, with %d of %d left, and repeated: %d in %v (%.0f a second), told in %d lines; the server's peak %d MB, before %d MB",
		len(before), between, len(all), last.Done, took.Round(10*time.Millisecond), float64(last.Done)/took.Seconds(), len(lines), i.front.peak()/mega, idle/mega)
}

// told changes what a filter selects in one request, and gives the lines of its answer.
func (i *installation) told(ctx context.Context, path, body string) ([]admin.Selected, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, i.front.url+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	for name, value := range map[string]string{"Authorization": "Bearer " + token, "Content-Type": "application/json", "Accept": "application/x-ndjson"} {
		r.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	var lines []admin.Selected
	for d := json.NewDecoder(response.Body); ; {
		var line struct {
			admin.Selected
			Problem *admin.Problem
		}
		switch err := d.Decode(&line); {
		case errors.Is(err, io.EOF) && len(lines) > 0 && lines[len(lines)-1].Next == "":
			return lines, nil
		case err != nil:
			return lines, err
		case line.Problem != nil:
			return lines, line.Problem
		}
		lines = append(lines, line.Selected)
	}
}
