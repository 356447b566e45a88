package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/postroom/postroom/admin"
)

// watched runs a command of which somebody sits at the terminal, and gives the questions they were asked.
func watched(ctx context.Context, t *testing.T, command func(func(*cobra.Command) asker) *cobra.Command, answer func() (bool, error), args ...string) (ran, []string) {
	t.Helper()
	var questions []string
	c := command(func(*cobra.Command) asker {
		return func(_ context.Context, question string) (bool, error) {
			questions = append(questions, question)
			return answer()
		}
	})
	var stdout, stderr bytes.Buffer
	c.SetArgs(args)
	c.SetOut(&stdout)
	c.SetErr(&stderr)
	c.SilenceErrors, c.SilenceUsage = true, true
	err := c.ExecuteContext(ctx)
	if err != nil {
		stderr.WriteString(explain(err) + "\n")
	}
	return ran{stdout.String(), stderr.String(), exitCode(err)}, questions
}

func yes() (bool, error) { return true, nil }
func no() (bool, error)  { return false, nil }

func TestRequeueGoesThroughTheWholeSelection(t *testing.T) {
	s := startFailed(t, 7)
	s.messages[3].Class = "unknown"
	s.messages[4].BatchID = "cancelled"
	r := postroom(t, "", "failed", "requeue", "--class", "permanent")
	r.want(t, 0, "5 failed messages to requeue (class permanent).", "Not requeued, because their batch has been cancelled: 1. They stay")
	if got, want := squeezed(r.stdout), "REQUEUED BATCH CANCELLED UNREADABLE\n5 1 0\n"; got != want {
		t.Errorf("stdout has %q, want %q", got, want)
	}
	if want := []string{idOf(0), idOf(1), idOf(2), idOf(5), idOf(6)}; !slices.Equal(s.changed, want) {
		t.Errorf("requeued %v, want %v", s.changed, want)
	}
	for i, sel := range s.selections {
		if dry, first := i < 4, i == 0 || i == 4; sel.DryRun != dry || (sel.Cursor == "") != first {
			t.Errorf("request %d: %+v", i, sel)
		}
	}
	postroom(t, "", "failed", "requeue", "--class", "permanent").want(t, 0, "0 failed messages to requeue")
}

func TestDryRunChangesNothing(t *testing.T) {
	for _, command := range []string{"requeue", "delete"} {
		s := startFailed(t, 5)
		r := postroom(t, "", "failed", command, "--all", "--dry-run")
		r.want(t, 0, "5 failed messages to "+command+" (all).", "WOULD BE "+strings.ToUpper(command), "Dry run: nothing was changed.")
		r = postroom(t, "", "failed", command, idOf(1), idOf(2), "--dry-run", "--output", "json")
		r.want(t, 0, "2 failed messages to "+command+" (ids: 2).")
		var sum admin.Selected
		if err := json.Unmarshal([]byte(r.stdout), &sum); err != nil || sum.Done != 2 || sum.Left != 0 {
			t.Errorf("got %q, %v", r.stdout, err)
		}
		for _, sel := range s.selections {
			if !sel.DryRun {
				t.Errorf("a request of %s changes something: %+v", command, sel)
			}
		}
		if len(s.selections) != 4 || len(s.messages) != 5 {
			t.Errorf("%d requests leave %d messages", len(s.selections), len(s.messages))
		}
	}
}

func TestWhatFailsMeanwhileIsNotTouched(t *testing.T) {
	s := startFailed(t, 3)
	late := s.messages[0]
	late.ID, late.Failed = "00000000000000000000000000", late.Failed.Add(1)
	s.before = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost && len(s.messages) == 3 && len(s.changed) == 0 { // before it is counted
			s.messages = append([]admin.FailedMessage{late}, s.messages...)
			s.messages[0].Failed = begun.Add(1e9)
		}
		return false
	}
	postroom(t, "", "failed", "delete", "--all", "--yes").want(t, 0, "3 failed messages to delete (all).")
	if len(s.changed) != 3 || len(s.messages) != 1 || s.messages[0].ID != late.ID {
		t.Errorf("deleted %v, left %v", s.changed, s.messages)
	}
}

func TestMessagesThatWereNamedInVainAreAnError(t *testing.T) {
	s := startFailed(t, 3)
	postroom(t, "", "failed", "requeue", idOf(1), idOf(8), idOf(9), idOf(8)).want(t, exitFault, "1 failed message to requeue (ids: 3).",
		"REQUEUED", "not in the failed store: 2 of the ids", "postroom message show ID")
	if !slices.Equal(s.changed, []string{idOf(1)}) {
		t.Errorf("requeued %v", s.changed)
	}
	postroom(t, "", "failed", "delete", idOf(9), "--yes").want(t, exitFault, "0 failed messages to delete", "1 of the ids")
	// With a filter beside them the ids may not fit.
	postroom(t, "", "failed", "delete", idOf(0), idOf(9), "--class", "permanent", "--yes").want(t, 0, "DELETED")
}

func TestWhoSitsAtATerminalIsAsked(t *testing.T) {
	for name, test := range map[string]struct {
		command  func(func(*cobra.Command) asker) *cobra.Command
		messages int
		args     string
		answer   func() (bool, error)
		question string // "": none
		changed  int
		code     int
	}{
		"delete":                 {newFailedDeleteCommand, 3, "--all", yes, "Delete 3 failed messages?", 3, 0},
		"delete one":             {newFailedDeleteCommand, 3, idOf(1), yes, "Delete 1 failed message?", 1, 0},
		"delete, no":             {newFailedDeleteCommand, 3, "--all", no, "Delete 3 failed messages?", 0, exitFault},
		"delete, surely":         {newFailedDeleteCommand, 3, "--all --yes", no, "", 3, 0},
		"delete nothing":         {newFailedDeleteCommand, 0, "--all", no, "", 0, 0},
		"requeue some":           {newFailedRequeueCommand, 1000, "--all", no, "", 1000, 0},
		"requeue many":           {newFailedRequeueCommand, 1001, "--all", yes, "Requeue 1,001 failed messages?", 1001, 0},
		"requeue many, no":       {newFailedRequeueCommand, 1001, "--all", no, "Requeue 1,001 failed messages?", 0, exitFault},
		"requeue many, surely":   {newFailedRequeueCommand, 1001, "--all --yes", no, "", 1001, 0},
		"requeue many, dry run":  {newFailedRequeueCommand, 1001, "--all --dry-run", no, "", 0, 0},
		"interrupted meanwhile":  {newFailedDeleteCommand, 3, "--all", func() (bool, error) { return false, context.Canceled }, "Delete 3 failed messages?", 0, exitInterrupted},
		"what they type is gone": {newFailedDeleteCommand, 3, "--all", func() (bool, error) { return false, io.ErrClosedPipe }, "Delete 3 failed messages?", 0, exitFault},
	} {
		t.Run(name, func(t *testing.T) {
			s := startFailed(t, test.messages)
			s.piece = 500
			r, questions := watched(t.Context(), t, test.command, test.answer, strings.Fields(test.args)...)
			r.want(t, test.code)
			if strings.Join(questions, "|") != test.question {
				t.Errorf("asked %q, want %q", questions, test.question)
			}
			if len(s.changed) != test.changed {
				t.Errorf("%d were changed, want %d", len(s.changed), test.changed)
			}
			if test.code != 0 && r.stdout != "" {
				t.Errorf("stdout has %q", r.stdout)
			}
		})
	}
	// Where nobody sits, requeue does what it was told.
	s := startFailed(t, 1001)
	s.piece = 500
	postroom(t, "no\n", "failed", "requeue", "--all").want(t, 0, "1,001")
}

func TestOnlyYesIsYes(t *testing.T) {
	for typed, want := range map[string]bool{"y\n": true, "Yes\r\n": true, " yes": true, "\n": false, "": false, "n\n": false, "yo\n": false, "no\nyes\n": false} {
		var words strings.Builder
		got, err := ask(t.Context(), strings.NewReader(typed), &words, "Really?")
		if err != nil || got != want || words.String() != "Really? [y/N] " {
			t.Errorf("%q: %v, %v after %q", typed, got, err, words.String())
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	nobody, end := io.Pipe()
	defer func() { _ = end.Close() }() // the reader ends too
	if got, err := ask(ctx, nobody, io.Discard, "Really?"); got || !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v, %v", got, err)
	}
}

func TestAServerThatIsAwayForAMomentIsWaitedFor(t *testing.T) {
	s := startFailed(t, 5)
	away := 0
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		if len(s.changed) == 2 && away == 0 {
			away++
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	}
	postroom(t, "", "failed", "requeue", "--all").want(t, 0, "REQUEUED", "what it did then may be missing from the numbers")
	if away != 1 || len(s.changed) != 5 {
		t.Errorf("away %d times; requeued %v", away, s.changed)
	}

	requests := 0
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		requests++
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	postroom(t, "", "failed", "requeue", "--all").want(t, exitTryAgain, "Service Unavailable (503)")
	if requests != 1 {
		t.Errorf("%d requests to a server that was never there, want 1", requests)
	}
}

// The server answers with what it did, and the cursor that it was given, when its store fails it after a part.
func TestAnAnswerInTheMiddleIsGoneOnFrom(t *testing.T) {
	s := startFailed(t, 5)
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		if len(s.changed) != 2 {
			return false
		}
		s.changed = append(s.changed, s.messages[0].ID)
		s.messages = s.messages[1:]
		_ = printJSON(w, admin.Selected{Done: 1, Next: idOf(1)})
		return true
	}
	postroom(t, "", "failed", "requeue", "--all").want(t, 0, "5         0")
	if len(s.changed) != 5 {
		t.Errorf("requeued %v", s.changed)
	}
}

func TestAnInterruptedRunSaysHowToGoOn(t *testing.T) {
	s := startFailed(t, 7)
	failedAgain := s.messages[0]
	failedAgain.Failed = begun.Add(time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.before = func(http.ResponseWriter, *http.Request) bool {
		if len(s.changed) == 2 {
			cancel() // this request is done to its end all the same
		}
		return false
	}
	r, _ := watched(ctx, t, newFailedRequeueCommand, yes, "--all", "--output", "json")
	r.want(t, exitInterrupted, "4 of 7 failed messages were requeued before this ended.\npostroom: interrupted\nTo go on, repeat the command with --until 2030-01-02T03:04:05.001Z instead of --all\n")
	var sum admin.Selected
	if err := json.Unmarshal([]byte(r.stdout), &sum); err != nil || sum.Done != 4 || sum.Left != 3 || len(s.changed) != 4 {
		t.Errorf("stdout has %q; requeued %v", r.stdout, s.changed)
	}

	s.before = nil
	s.messages = append([]admin.FailedMessage{failedAgain}, s.messages...)
	postroom(t, "", "failed", "requeue", "--until", "2030-01-02T03:04:05.001Z").want(t, 0, "3 failed messages to requeue")
	if len(s.changed) != 7 || len(s.messages) != 1 {
		t.Errorf("requeued %v, left %v", s.changed, s.messages)
	}
}

func TestHowToGoOnDoesNotMoveWithTheClock(t *testing.T) {
	for _, test := range []struct {
		since, until string
		all          bool
		bound        time.Time
		want         string
	}{
		{"", "", false, time.Time{}, "To go on, repeat the command."},
		{"2030-01-01", "2030-01-02T03:04:05Z", false, time.Time{}, "To go on, repeat the command."},
		{"2h", "", false, begun, "To go on, repeat the command with --since 2030-01-01T00:00:00Z --until 2030-01-02T03:04:05Z"},
		{"3d", "1d", false, time.Time{}, "To go on, repeat the command with --since 2030-01-01T00:00:00Z --until 2030-01-02T03:04:05Z"},
		{"", "", true, begun, "To go on, repeat the command with --until 2030-01-02T03:04:05Z instead of --all"},
	} {
		s := selection{failedFilter: failedFilter{since: test.since, until: test.until}, all: test.all}
		sel := admin.Selection{Filter: admin.FailedFilter{From: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), Until: begun}}
		if got := s.again(&sel, test.bound); got != test.want {
			t.Errorf("since %q until %q: %q, want %q", test.since, test.until, got, test.want)
		}
	}
}

func TestInterruptedBeforeAnythingWasChanged(t *testing.T) {
	s := startFailed(t, 5)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.before = func(http.ResponseWriter, *http.Request) bool {
		if len(s.selections) == 1 {
			cancel()
		}
		return false
	}
	r, _ := watched(ctx, t, newFailedDeleteCommand, yes, "--all")
	r.want(t, exitInterrupted, "postroom: interrupted\nNothing was changed.\n")
	if len(s.changed) != 0 || r.stdout != "" {
		t.Errorf("deleted %v, stdout %q", s.changed, r.stdout)
	}
}

func TestARefusalInTheMiddleTellsHowFarItCame(t *testing.T) {
	s := startFailed(t, 5)
	s.before = func(w http.ResponseWriter, _ *http.Request) bool {
		switch len(s.changed) {
		case 2:
			s.changed = append(s.changed, s.messages[0].ID)
			_ = printJSON(w, admin.Selected{Done: 1, Next: idOf(1)}) // it does not know how many are left
		case 3:
			w.WriteHeader(http.StatusForbidden)
		default:
			return false
		}
		return true
	}
	r := postroom(t, "", "failed", "delete", "--all", "--yes", "--output", "json")
	r.want(t, exitFault, "3 of 5 failed messages were deleted before this ended.", "Forbidden (403)", "To go on, repeat")
	var sum admin.Selected
	if err := json.Unmarshal([]byte(r.stdout), &sum); err != nil || sum.Done != 3 || sum.Left == 0 {
		t.Errorf("got %q, %v", r.stdout, err)
	}
}
