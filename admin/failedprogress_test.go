package admin

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/postroom/postroom/queue"
)

// lines decodes an answer of lines.
func linesOf[T any](t *testing.T, r reply) []T {
	t.Helper()
	if got := r.header.Get("Content-Type"); got != ndjson || r.status != 200 {
		t.Fatalf("%d %q: %s", r.status, got, r.body)
	}
	var all []T
	for s := bufio.NewScanner(bytes.NewReader(r.body)); s.Scan(); {
		var one T
		if err := json.Unmarshal(s.Bytes(), &one); err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
	return all
}

func TestAllOfASelectionIsDoneInOneRequestThatTellsHowFarItIs(t *testing.T) {
	for path, did := range map[string]string{"/v1/failed/requeue": "requeue", "/v1/failed/delete": "delete"} {
		s := &shelf{step: func(n int, o queue.SelectionOptions) (queue.SelectionStep, error) {
			step := queue.SelectionStep{Done: 500, Scanned: 1000, Left: 2000 - 1000*n, Cancelled: 1}
			if n < 2 {
				step.Next = fmt.Sprint("after-", n)
			}
			return step, nil
		}}
		a := s.serve(t, func(h *handler) { h.patience = 0 })
		got := linesOf[Selected](t, a.call(t, "POST", path, operatorToken, `{"filter": {"classes": ["permanent"], "recipient": "ada@example.net"}}`, "Accept", ndjson))
		if len(got) != 3 || got[0].Done != 500 || got[2].Done != 1500 || got[2].Scanned != 3000 || got[2].Cancelled != 3 || got[1].Next != "after-1" || got[2].Next != "" || s.did != did {
			t.Errorf("%s: %+v", path, got)
		}
		if len(s.noted) != 4 || s.noted[0].Detail != "began: class permanent; of one recipient or domain" || s.noted[3].By != "ops" {
			t.Errorf("%+v", s.noted)
		}
	}
}

func TestWhatStopsASelectionIsItsLastLine(t *testing.T) {
	s := &shelf{step: func(n int, o queue.SelectionOptions) (queue.SelectionStep, error) {
		if n == 1 {
			return queue.SelectionStep{Next: "after-0"}, fmt.Errorf("queue: requeue: %w", errors.ErrUnsupported)
		}
		return queue.SelectionStep{Done: 500, Next: "after-0"}, nil
	}}
	a := s.serve(t, func(h *handler) { h.patience = 0 })
	got := linesOf[struct {
		Done    int
		Next    string
		Problem *Problem
	}](t, a.call(t, "POST", "/v1/failed/requeue", operatorToken, `{"all": true}`, "Accept", ndjson))
	if len(got) != 2 || got[0].Done != 500 || got[1].Problem == nil || got[1].Problem.Type != internal.uri() || got[1].Next != "after-0" {
		t.Errorf("%+v", got)
	}
}
