package graph

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// Verify implements provider.Verifier. Only what went by a draft can be found again: by its immutable id, which stays the same
// when the draft is sent. It can take a while until that shows.
func (s *Sender) Verify(ctx context.Context, d *provider.Delivery) ([]mail.Outcome, error) {
	a := s.begin(ctx, d)
	o, err := a.verify()
	var f *fault
	switch {
	case errors.As(err, &f):
		if o = f.Outcome; o.Class == mail.Permanent || o.Class == mail.Delivered {
			o.Class = mail.Unknown
		}
	case err != nil:
		return nil, err
	}
	outcomes := provider.All(len(d.Recipients), o)
	for i := a.offers(); i < len(outcomes); i++ {
		if outcomes[i] = notSent("not offered yet"); o.Class == mail.Delivered {
			outcomes[i] = d.Bounds.PutOff(stepVerify) // until it is stored that the others have it
		}
	}
	return outcomes, nil
}

// firstLook is when a message is looked for again that did not show yet; then twice as late each time.
const firstLook = 500 * time.Millisecond

func (a *attempt) verify() (mail.Outcome, error) {
	switch {
	case a.kept.state == ready, a.kept.state == lost:
	case a.kept.state == building:
		return notSent("the draft was never ready"), nil
	case a.delivery.Kept != "":
		return notSent("not offered yet: the draft was for others"), nil
	default:
		return mail.Outcome{Class: mail.Unknown, Step: stepVerify, Reply: "sent without a draft, so that nobody can tell (verify_sends is off)"}, nil
	}
	r := request{step: stepVerify, method: http.MethodGet, url: a.draft(a.kept.id, "?$select=isDraft"), header: immutable}
	end := time.Now().Add(a.sender.patience)
	for wait := firstLook; ; wait *= 2 {
		got, err := a.do(r)
		if err != nil {
			return mail.Outcome{}, err
		}
		var found struct {
			Draft *bool `json:"isDraft"`
		}
		known := got.status == http.StatusOK && got.decode(&found) == nil && found.Draft != nil
		switch {
		case known && !*found.Draft:
			return mail.Outcome{Class: mail.Delivered, Step: stepVerify, Code: got.status, Reply: "found among what was sent"}, nil
		case got.status != http.StatusOK && got.status != http.StatusNotFound:
			return mail.Outcome{}, a.refusal(r, got)
		case time.Now().Add(wait).Before(end):
			if err := sleep(a.ctx, wait); err != nil {
				return mail.Outcome{}, provider.ErrInterrupted
			}
		case known && a.kept.state == lost:
			return mail.Outcome{Class: mail.Unknown, Step: stepVerify, Code: got.status, Reply: "still shown as a draft that can't be sent"}, nil
		case known:
			return notSent("the draft was never sent"), nil
		default:
			return mail.Outcome{Class: mail.Unknown, Step: stepVerify, Code: got.status, Reply: "neither a draft nor among what was sent"}, nil
		}
	}
}

func notSent(words string) mail.Outcome {
	return mail.Outcome{Cause: mail.NotSent, Step: stepVerify, Reply: words}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
