package queue

import (
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
)

// What is stuck at a former server is none of the new one's concurrency, also if the account has the same name; after a change of
// the password alone it is.
func TestWhatIsUnderWayElsewhereTakesNoUnits(t *testing.T) {
	for place, free := range map[string]bool{"smtp mail.example.com:587": false, "smtp mail.example.com:465": true, "microsoft365 tenant": true} {
		t.Run(place, func(t *testing.T) {
			q, c := onClock(t)
			p := ActiveProvider{Kind: "smtp", Keying: ByAccount, Account: "reports@example.com", Sender: "reports@example.com", Concurrency: 1,
				Place: "smtp mail.example.com:587", AllConcurrency: 1}
			version, err := declare(t, q, p, "salt", "former")
			if err != nil {
				t.Fatal(err)
			}
			ids := enqueueBatch(t, q, batch(mail.Report, 3)).IDs
			d := sitDown(t, q, version, nil)
			stuck := d.turn()
			former := begin(t, stuck, nil)

			p.Place = place
			if strings.HasPrefix(place, "microsoft365") {
				p.Kind, p.Keying, p.Account = "microsoft365", ByMailbox, ""
			}
			c.advance(time.Second)
			if version, err = declare(t, q, p, "salt", "now"); err != nil {
				t.Fatal(err)
			}
			if n, err := q.run(t.Context(), "older").Int(); err != nil || n != 1 {
				t.Errorf("%d attempts of the former settings, %v", n, err)
			}
			now := sitDown(t, q, version, nil)
			turns := now.turns()
			if (len(turns) == 1) != free {
				t.Fatalf("%d turns are handed out", len(turns))
			}
			if free {
				a := begin(t, turns[0], nil)
				if a.MessageID == former.MessageID {
					t.Error("the same message is sent twice")
				}
				end(turns[0], delivered(a))
			}
			end(stuck, delivered(former))
			if s := status(t, q, ids[0]); s.State != Delivered {
				t.Errorf("the former attempt's outcome is not stored: %+v", s)
			}
			if n, err := q.run(t.Context(), "older").Int(); err != nil || n != 0 {
				t.Errorf("%d attempts of the former settings are left, %v", n, err)
			}
			for _, turn := range now.turns() {
				for a := turn.Next(nil); a != nil; a = turn.Next(delivered(a)) {
				}
			}
			for i, id := range ids {
				if s := status(t, q, id); s.State != Delivered {
					t.Errorf("%d is %s", i, s.State)
				}
			}
			if left := q.redis.Keys(t.Context(), q.key("u:*")).Val(); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
			if left := q.redis.SMembers(t.Context(), q.key("keys")).Val(); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// The sweep ends what a dead worker has left of it.
func TestTheSweepEndsWhatIsSetApart(t *testing.T) {
	q, _ := onClock(t)
	p := ActiveProvider{Kind: "smtp", Keying: ByAccount, Account: "reports@example.com", Concurrency: 1, Place: "smtp a:25"}
	version, err := declare(t, q, p, "salt", "former")
	if err != nil {
		t.Fatal(err)
	}
	id := enqueue(t, q, message(mail.Report, "ada@example.net"))
	d := sitDown(t, q, version, nil)
	begin(t, d.turn(), nil)
	p.Place = "smtp b:25"
	if version, err = declare(t, q, p, "salt", "now"); err != nil {
		t.Fatal(err)
	}
	d.dies()
	now := sitDown(t, q, version, nil)
	active, err := q.Provider(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	now.settings.current().since = active.Since
	now.sweepAll()
	if left := q.redis.SMembers(t.Context(), q.key("keys")).Val(); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if a := begin(t, now.turn(), nil); a.MessageID != id || !a.Doubtful || !a.Former {
		t.Errorf("%+v; want it again, in doubt, and from former settings", a)
	}
}
