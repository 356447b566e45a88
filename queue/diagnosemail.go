package queue

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Names of the checks of what Redis holds.
const (
	checkFormat  = "format"
	checkWorkers = "workers"
	checkSending = "sending"
)

// Diagnose looks at what Redis holds, and changes nothing: whether this program can read it, whether anybody sends, and whether mail is
// held or paused. What it costs does not grow with what waits.
func (q *Queue) Diagnose(ctx context.Context) ([]Finding, error) {
	var all []Finding
	for _, check := range []func(context.Context) (Finding, error){q.diagnoseFormat, q.diagnoseWorkers, q.diagnoseSending} {
		f, err := check(ctx)
		if err != nil {
			return nil, fmt.Errorf("queue: diagnose: %w", err)
		}
		all = append(all, f)
	}
	return all, nil
}

// sampled is how many records of each sort are looked at.
const sampled = 200

// diagnoseFormat looks at the records that a newer program would have left where this one has to meet them: what waits for a time (where
// a worker puts what it can't read), what has failed, and what ended last.
func (q *Queue) diagnoseFormat(ctx context.Context) (Finding, error) {
	pipe := q.redis.Pipeline()
	due := pipe.ZRange(ctx, q.key("due"), 0, sampled-1)
	failed := pipe.ZRevRange(ctx, q.key("failed"), 0, sampled-1)
	finished := pipe.LRange(ctx, q.key("finished"), -sampled, -1)
	if _, err := pipe.Exec(ctx); err != nil {
		return Finding{}, err
	}
	ids := failed.Val()
	for _, entry := range slices.Concat(due.Val(), finished.Val()) {
		if message, ok := strings.CutPrefix(entry, "m:"); ok {
			id, _, _ := strings.Cut(message, ":")
			ids = append(ids, id)
		}
	}
	newer, read := 0, 0
	pipe = q.redis.Pipeline()
	heads := make([]*redis.StringCmd, len(ids))
	for i, id := range ids {
		heads[i] = pipe.GetRange(ctx, q.key("m:", id), 0, 15)
	}
	if len(ids) > 0 {
		if _, err := pipe.Exec(ctx); err != nil {
			return Finding{}, err
		}
	}
	for _, head := range heads {
		version, _, ok := strings.Cut(head.Val(), "\t")
		if !ok {
			continue // its record has been dropped
		}
		read++
		if version != formatVersion {
			newer++
		}
	}
	f := Finding{Check: checkFormat, Level: LevelOK, Found: fmt.Sprintf("this program can read the %d records that were looked at", read)}
	if newer > 0 {
		f.Level = LevelFault
		f.Found = fmt.Sprintf("of %d records that were looked at %d are of a newer format, and this program leaves them waiting", read, newer)
		f.Remedy = "run the newer version of Postroom everywhere"
	}
	return f, nil
}

// diagnoseWorkers looks at who takes part in sending.
func (q *Queue) diagnoseWorkers(ctx context.Context) (Finding, error) {
	f := Finding{Check: checkWorkers, Level: LevelOK}
	now, err := q.now(ctx)
	if err != nil {
		return f, err
	}
	leases, err := q.redis.HGetAll(ctx, q.key("workers")).Result()
	if err != nil {
		return f, err
	}
	told, err := q.Workers(ctx)
	if err != nil {
		return f, err
	}
	alive, unable, why := 0, 0, ""
	for worker, renewed := range leases {
		if now.Sub(unixMilli(renewed)) >= leaseTime {
			continue
		}
		alive++
		i := slices.IndexFunc(told, func(w WorkerStatus) bool { return w.ID == worker })
		if i >= 0 && told[i].Fault != "" {
			unable++
			why = told[i].Host + ": " + oneLine(told[i].Fault)
		}
	}
	f.Found = fmt.Sprintf("%d send", alive)
	switch {
	case alive == 0:
		f.Level, f.Found = LevelWarning, "none runs: mail is kept, and nobody sends it"
		f.Remedy = "start postroom serve, with the role worker"
	case unable > 0:
		f.Level = LevelWarning
		if unable == alive {
			f.Level = LevelFault
		}
		f.Found = fmt.Sprintf("%d of %d can't load the provider's settings, and send nothing: %s", unable, alive, why)
		f.Remedy = "give all processes the same section provider in their files, or none, and the same secrets.keys"
	}
	return f, nil
}

// diagnoseSending looks at what is held or paused.
func (q *Queue) diagnoseSending(ctx context.Context) (Finding, error) {
	f := Finding{Check: checkSending, Level: LevelOK, Found: "nothing is held or paused"}
	pause, err := q.PauseOfEverything(ctx)
	if err != nil {
		return f, err
	}
	s, err := q.state(ctx, "", 0)
	if err != nil {
		return f, err
	}
	hold := s.hold
	held, paused := 0, 0
	for _, m := range s.mailboxes {
		if m.Key == s.account && m.Hold != nil {
			hold = m.Hold // one account sends for all
		}
		if m.Hold != nil {
			held++
		}
		if m.Pause != nil {
			paused++
		}
	}
	switch {
	case pause != nil:
		f.Level, f.Found = LevelWarning, fmt.Sprintf("everything is paused by %s until %s: %s", pause.By, pause.Until.UTC().Format(time.RFC3339), pause.Reason)
		f.Remedy = "postroom resume --all, when it may go"
	case hold != nil:
		f.Level, f.Found = LevelWarning, fmt.Sprintf("everything is held since %s after refusals: %s", hold.Since.UTC().Format(time.RFC3339), hold.Reason)
		f.Remedy = "see postroom provider show"
	case held+paused > 0:
		f.Level, f.Found = LevelWarning, fmt.Sprintf("of %d mailboxes %d are held after refusals, and %d paused", len(s.mailboxes), held, paused)
		f.Remedy = "see postroom mailbox list, and postroom mailbox explain"
	}
	return f, nil
}
