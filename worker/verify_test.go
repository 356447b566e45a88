package worker

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/queue"
)

// verifier is a sender that can tell what became of earlier attempts: by a letter for each recipient, d delivered, t not sent,
// u nobody knows. Send comes to the letters of sent; l is too large by now.
type verifier struct {
	known, sent string
	asked       int
	offered     []string
}

func lettered(letters string) []mail.Outcome {
	var outcomes []mail.Outcome
	for _, l := range letters {
		if l == 'l' {
			o, _ := provider.Bounds{Bytes: 1}.Exceeded(2)
			outcomes = append(outcomes, o)
			continue
		}
		outcomes = append(outcomes, outcome(map[rune]mail.Class{'d': mail.Delivered, 't': mail.Temporary, 'h': mail.Throttled, 'u': mail.Unknown}[l], o1))
	}
	return outcomes
}

func (v *verifier) Verify(_ context.Context, d *provider.Delivery) ([]mail.Outcome, error) {
	v.asked++
	outcomes := lettered(v.known)
	for i := range outcomes {
		if v.known[i] == 't' {
			outcomes[i].Cause = mail.NotSent
		}
	}
	return outcomes, nil
}

func (v *verifier) Send(_ context.Context, d *provider.Delivery) ([]mail.Outcome, error) {
	for _, r := range d.Recipients {
		v.offered = append(v.offered, r.Address)
	}
	return lettered(v.sent[:len(d.Recipients)]), nil
}

func (*verifier) Close() error { return nil }

var _ provider.Verifier = (*verifier)(nil)

func TestDoubtfulMailIsVerifiedBeforeItIsSentAgain(t *testing.T) {
	const a, b = "ada@example.net", "bob@example.net"
	for name, test := range map[string]struct {
		doubtful    bool
		former      bool
		released    bool
		policy      queue.UnknownPolicy
		known, sent string
		offered     []string
		want        string
	}{
		"not doubtful":                        {false, false, false, queue.Hold, "dd", "dd", []string{a, b}, "delivered delivered dd"},
		"unknown at first, to be held":        {false, false, false, queue.Hold, "", "uu", []string{a, b}, "retry unknown uu"},
		"everybody has it":                    {true, false, false, queue.Hold, "dd", "", nil, "delivered delivered dd"},
		"nobody has it":                       {true, false, false, queue.Hold, "tt", "dd", []string{a, b}, "delivered delivered dd"},
		"one has it":                          {true, false, false, queue.Resend, "dt", "d", []string{b}, "delivered delivered dd"},
		"nobody knows, to be held":            {true, false, false, queue.Hold, "uu", "", nil, "failed unknown uu"},
		"nobody knows, and it was requeued":   {true, false, true, queue.Hold, "uu", "dd", []string{a, b}, "delivered delivered dd"},
		"one has it, and it was requeued":     {true, true, true, queue.Hold, "dt", "d", []string{b}, "delivered delivered dd"},
		"nobody knows, to be sent again":      {true, false, false, queue.Resend, "uu", "dd", []string{a, b}, "delivered delivered dd"},
		"nobody knows once more":              {true, false, false, queue.Resend, "uu", "uu", []string{a, b}, "retry unknown uu"},
		"of other settings, who has it":       {true, true, false, queue.Hold, "dd", "", nil, "delivered delivered dd"},
		"of other settings, to be held":       {true, true, false, queue.Hold, "tt", "", nil, "failed unknown uu"},
		"of other settings, to be sent again": {true, true, false, queue.Resend, "tt", "dd", []string{a, b}, "delivered delivered dd"},
		"it can't be asked now":               {true, false, false, queue.Resend, "hh", "", nil, "back throttled tt"},
		"nobody knows, and too large by now":  {true, false, false, queue.Resend, "uu", "ll", []string{a, b}, "retry unknown uu"},
		"not sent, and too large by now":      {true, false, false, queue.Hold, "tt", "ll", []string{a, b}, "failed permanent pp"},
		"one has it, and too large by now":    {true, false, false, queue.Resend, "du", "l", []string{b}, "retry unknown du"},
		"not doubtful, and too large by now":  {false, false, false, queue.Resend, "", "ll", []string{a, b}, "failed permanent pp"},
		"not sent, then unknown, to be held":  {true, false, false, queue.Hold, "tt", "uu", []string{a, b}, "retry unknown uu"},
	} {
		t.Run(name, func(t *testing.T) {
			v := &verifier{known: test.known, sent: test.sent}
			w := New(Options{OnUnknown: map[mail.Kind]queue.UnknownPolicy{mail.Report: test.policy}})
			w.use(&active{Active: Active{Sender: v, Provider: "microsoft365"}})
			m := &mail.Outgoing{From: mail.Address{Address: "own@example.com"}, To: []mail.Address{{Address: a}, {Address: b}}}
			s := w.attempt(t.Context(), &queue.Attempt{Kind: mail.Report, Message: m, Offered: []int{0, 1}, Doubtful: test.doubtful, Former: test.former, Released: test.released, Now: first, First: first})
			got := fmt.Sprintf("%s %s ", s.Verdict, s.Class)
			for _, o := range s.Outcomes {
				got += o.Class.String()[:1]
			}
			if got != test.want || !slices.Equal(v.offered, test.offered) || (v.asked > 0) != test.doubtful {
				t.Errorf("%s, offered to %v, asked %d times; want %s, offered to %v", got, v.offered, v.asked, test.want, test.offered)
			}
		})
	}
}

// TestWhatMayHaveBeenSentDoesNotFailForItsSize is about a provider that can't tell.
func TestWhatMayHaveBeenSentDoesNotFailForItsSize(t *testing.T) {
	for name, test := range map[string]struct {
		doubtful bool
		policy   queue.UnknownPolicy
		want     string
	}{
		"known not to be sent":        {false, queue.Resend, "failed permanent"},
		"doubtful":                    {true, queue.Resend, "retry unknown"},
		"doubtful, and out of a hold": {true, queue.Hold, "failed unknown"},
	} {
		w := New(Options{OnUnknown: map[mail.Kind]queue.UnknownPolicy{mail.Report: test.policy}})
		w.use(&active{Active: Active{Provider: "smtp", Sender: sender(func(context.Context, *provider.Delivery) ([]mail.Outcome, error) {
			return lettered("l"), nil
		})}})
		m := &mail.Outgoing{From: own, To: []mail.Address{{Address: "ada@example.net"}}}
		s := w.attempt(t.Context(), &queue.Attempt{Kind: mail.Report, Message: m, Offered: []int{0}, Doubtful: test.doubtful, Now: first, First: first})
		if got := fmt.Sprint(s.Verdict, " ", s.Class); got != test.want || !s.Unused {
			t.Errorf("%s: %s, unused: %v; want %s", name, got, s.Unused, test.want)
		}
	}
}
