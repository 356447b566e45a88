package worker

import (
	"context"
	"fmt"
	"sync"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/queue"
)

// Active is what a version of the provider's settings sends with.
type Active struct {
	// Sender hands messages over; Provider is its kind, for metrics ("smtp").
	Sender   provider.Sender
	Provider string
	// From is the provider's own sender, for messages that name none.
	From mail.Address
	// End is called once no attempt uses it any more; default: the sender's Close.
	End func() error
}

// active is what attempts of one version use.
type active struct {
	Active
	version  string
	attempts sync.WaitGroup
}

// Load makes what the active settings ask for ready, with Options.Load: it is for queue.ConsumerOptions. What was used before is
// ended when its last attempt has.
func (w *Worker) Load(ctx context.Context, p *queue.Provider) (queue.Loaded, error) {
	if p.Version == "" {
		w.use(nil)
		return queue.Loaded{}, nil
	}
	a, err := w.options.Load(ctx, p)
	if err != nil {
		w.use(nil)
		return queue.Loaded{}, err
	}
	w.use(&active{Active: *a, version: p.Version})
	_, verifies := a.Sender.(provider.Verifier)
	return queue.Loaded{Verifies: verifies}, nil
}

func (w *Worker) use(a *active) {
	w.mu.Lock()
	former := w.now
	w.now = a
	w.mu.Unlock()
	if former == nil {
		return
	}
	w.ending.Go(func() {
		former.attempts.Wait()
		end := former.End
		if end == nil {
			end = former.Sender.Close
		}
		if err := end(); err != nil {
			w.log.Warn("closing the provider's connections", "version", former.version, "error", err)
		}
	})
}

// acquire gives what a version's attempts use, until release is called; nil if that is no longer in use.
func (w *Worker) acquire(version string) (a *active, release func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.now == nil || w.now.version != version {
		return nil, nil
	}
	w.now.attempts.Add(1)
	return w.now, w.now.attempts.Done
}

// Close ends what is in use. It waits for attempts under way, at most until ctx ends.
func (w *Worker) Close(ctx context.Context) error {
	w.use(nil)
	ended := make(chan struct{})
	go func() {
		w.ending.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("worker: close: attempts are under way: %w", ctx.Err())
	}
}
