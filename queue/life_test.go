package queue

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/postroom/postroom/mail"
)

// Each step of a message's life is a line with its id.
func TestAMessagesLifeIsInTheLog(t *testing.T) {
	q, c := onClock(t)
	var log bytes.Buffer
	q.log = slog.New(slog.NewTextHandler(&log, nil))
	d := sitDown(t, q, activate(t, q, 1), nil)
	d.log = q.log
	ctx := trace.ContextWithSpanContext(t.Context(), traceOf(t, trace.FlagsSampled, ""))
	accept := func(m mail.Message) string {
		t.Helper()
		r, err := q.Enqueue(ctx, m)
		if err != nil {
			t.Fatal(err)
		}
		return r.ID
	}
	soon := message(mail.Report, "ada@example.net")
	soon.ExpiresAt = c.now.Add(time.Second)
	lives := map[string][]string{}
	expired := accept(soon)
	lives[expired] = []string{"msg=accepted", "msg=expired"}
	cancelled := accept(message(mail.Report, "ada@example.net"))
	lives[cancelled] = []string{"msg=accepted", "msg=cancelled"}
	if err := q.CancelMessage(t.Context(), cancelled); err != nil {
		t.Fatal(err)
	}
	c.advance(2 * time.Second)
	failing(t, d, nil, nil)
	failed := accept(message(mail.Report, "ada@example.net"))
	deleted := accept(message(mail.Alert, "ada@example.net"))
	lives[failed] = []string{"msg=accepted", "msg=requeued"}
	lives[deleted] = []string{"msg=accepted", "msg=deleted"}
	failing(t, d, nil, nil)
	runAll(t, q.Requeue, FailedFilter{Kind: mail.Report}, SelectionOptions{})
	runAll(t, q.DeleteFailed, FailedFilter{}, SelectionOptions{})
	// One whose worker dies.
	a := d.turn().Next(nil)
	if a == nil || a.MessageID != failed {
		t.Fatalf("%+v is begun, want %s", a, failed)
	}
	lives[failed] = append(lives[failed], "msg=\"attempt ended by others: its worker is gone, or it was too long\"")
	d.dies()
	d.sweepAll()
	// One of a batch that was due again, and one that was not.
	b, err := q.EnqueueBatch(ctx, batch(mail.Alert, 2))
	if err != nil {
		t.Fatal(err)
	}
	lives[b.ID] = []string{"msg=accepted", "msg=\"batch cancelled", "msg=\"messages of a cancelled batch"}

	if err := q.CancelBatch(t.Context(), b.ID); err != nil {
		t.Fatal(err)
	}
	for id, want := range lives {
		var life []string
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, "message="+id) || strings.Contains(line, "batch="+id) && !strings.Contains(line, "message=") {
				life = append(life, line)
			}
		}
		if len(life) != len(want) {
			t.Errorf("%s has %d lines, want %q:\n%s", id, len(life), want, strings.Join(life, ""))
			continue
		}
		for i, line := range life {
			if !strings.Contains(line, want[i]) || !strings.Contains(line, "kind=") || id != b.ID && !strings.Contains(line, "trace_id=0af7651916cd43dd8448eb211c80319c") {
				t.Errorf("step %d of %s: %s", i, id, line)
			}
		}
	}
	if strings.Contains(log.String(), "example.net") {
		t.Errorf("the log has a recipient:\n%s", log.String())
	}
}
