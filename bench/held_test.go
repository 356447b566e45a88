package bench

import (
	"testing"
	"time"

	"github.com/postroom/postroom/provider/smtp/smtptest"
)

// TestHeldServersSendNothingUntilResumed shows what somebody does who restores Redis from a backup: no process that is started
// with --held sends anything, nor does one that is started without it later, until somebody resumes.
func TestHeldServersSendNothingUntilResumed(t *testing.T) {
	t.Parallel()
	var came ledger
	server := inbox(t, smtptest.InboxOptions{OnData: func(m *smtptest.Message) error {
		came.enter(idOf(m))
		return nil
	}})
	i := install(t, providerTo(server, 5))
	i.serve("--held")
	i.serve()
	batch, ids := i.accept(newsletter(50))
	pass(t.Context(), time.Second) // in which everything would be through
	if n := came.entered(); n != 0 {
		t.Fatalf("%d mails were sent by held servers", n)
	}
	boxes, err := i.api.Mailboxes(t.Context(), "", 0)
	if err != nil || len(boxes.Mailboxes) != 1 || boxes.Mailboxes[0].Pause == nil {
		t.Fatalf("%+v, %v", boxes, err)
	}
	if _, err := i.api.ResumeAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	i.awaitDelivered(batch, len(ids), time.Minute)
	came.once(t, ids)
}
