package graph_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/graph"
	"github.com/postroom/postroom/provider/graph/graphtest"
	"github.com/postroom/postroom/provider/oauth"
)

const reports = "reports@example.com"

// office is a sender with tokens of its own in front of a simulated tenant.
type office struct {
	*graph.Sender
	tenant *graphtest.Tenant
	kept   string
}

func open(t *testing.T, o graphtest.Options, change func(*provider.Settings)) *office {
	t.Helper()
	if o.Mailboxes == nil {
		o.Mailboxes = []graphtest.Mailbox{{Address: reports}}
	}
	tenant := graphtest.Run(t, o)
	settings := tenant.Settings(mail.Address{Address: reports, Name: "Reports"})
	if change != nil {
		change(&settings)
	}
	tokens, err := oauth.ForMicrosoft365(&settings.Microsoft365, oauth.Options{HTTP: tenant.Client()})
	if err != nil {
		t.Fatal(err)
	}
	s, err := graph.New(settings, graph.Options{Tokens: tokens, HTTP: tenant.Client(), Patience: 600 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(); tokens.Close() })
	return &office{Sender: s, tenant: tenant}
}

// message is one to two people with a text, as it would come from the queue.
func message(files ...*mail.File) *mail.Outgoing {
	return &mail.Outgoing{ID: "01JZ", Subject: "Grüße", Text: "text", HTML: `<p>Grüße <img src="cid:logo"></p>`, From: mail.Address{Address: reports, Name: "Reports"},
		To: []mail.Address{{Address: "ada@example.net", Name: "Ada"}}, Bcc: []mail.Address{{Address: "bob@example.net"}},
		Headers: map[string]string{"X-Run": "7"}, ListUnsubscribe: "https://example.com/u?a=1", Files: files}
}

func file(name string, size int) *mail.File {
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(i*31 + i>>8)
	}
	return &mail.File{Name: name, ContentType: "application/pdf", Bytes: content}
}

// send makes one attempt.
func (o *office) send(t *testing.T, m *mail.Outgoing) mail.Outcome {
	t.Helper()
	out, err := o.Send(t.Context(), o.delivery(m))
	if err != nil {
		t.Fatal(err)
	}
	return out[0]
}

func (o *office) delivery(m *mail.Outgoing) *provider.Delivery {
	return &provider.Delivery{Message: m, Recipients: m.Recipients(), Fence: func() error { return nil }, Used: &provider.Usage{},
		Kept: o.kept, Keep: func(kept string) error { o.kept = kept; return nil }}
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func TestEveryPartArrives(t *testing.T) {
	limits := graphtest.MicrosoftLimits()
	limits.MessageBytes = 150 << 20
	logo := &mail.File{Name: "logo.png", ContentType: "image/png", ContentID: "logo", Bytes: []byte{1, 2, 3}}
	for name, test := range map[string]struct {
		verify bool
		files  []*mail.File
		form   graphtest.Form
	}{
		"in one request":          {false, []*mail.File{logo, file("Übersicht.pdf", 100_000)}, graphtest.FormJSON},
		"as much as one can have": {false, []*mail.File{file("a.pdf", 2_900_000)}, graphtest.FormJSON},
		"by a draft":              {true, []*mail.File{logo, file("Übersicht.pdf", 100_000)}, graphtest.FormDraft},
		"several files":           {false, []*mail.File{logo, file("a.pdf", 2_900_000), file("b.pdf", 3<<20-1001), file("c.pdf", 3<<20), file("d.pdf", 3<<20-500)}, graphtest.FormDraft},
		"40 MB":                   {false, []*mail.File{file("a.pdf", 40<<20)}, graphtest.FormDraft},
		"to the byte of a range":  {false, []*mail.File{file("a.pdf", 2*graph.RangeBytes)}, graphtest.FormDraft},
	} {
		t.Run(name, func(t *testing.T) {
			o := open(t, graphtest.Options{Limits: &limits}, func(s *provider.Settings) { s.Microsoft365.VerifySends = test.verify })
			m := message(test.files...)
			if out := o.send(t, m); out.Class != mail.Delivered {
				t.Fatalf("%+v", out)
			}
			got := o.tenant.Messages()[0]
			if got.Form != test.form || got.Mailbox != reports || got.Subject != m.Subject || got.HTML != m.HTML || got.Header("X-Run") != "7" ||
				got.Header("String 0x1045") != "<https://example.com/u?a=1>" || fmt.Sprint(got.To, got.Bcc) != fmt.Sprint(m.To, m.Bcc) || got.From.Address != reports {
				t.Errorf("%+v", got)
			}
			if got.Saved != (test.form == graphtest.FormDraft) {
				t.Errorf("saved: %v", got.Saved)
			}
			if len(got.Files) != len(m.Files) {
				t.Fatalf("%d files, want %d", len(got.Files), len(m.Files))
			}
			for i, f := range m.Files {
				if g := got.Files[i]; g.Name != f.Name || g.SHA256 != digest(f.Bytes) || g.ContentType != f.ContentType || g.ContentID != f.ContentID || g.Inline != (f.ContentID != "") {
					t.Errorf("%s: %s, %s, %q, inline %v", f.Name, g.Name, g.ContentType, g.ContentID, g.Inline)
				}
			}
			if n := o.tenant.Drafts(reports); n != 0 {
				t.Errorf("%d drafts are left", n)
			}
			if err := o.tenant.Obeyed(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestWhateverGoesWrongNothingIsHalfSentOrSentTwice has one thing go wrong at each operation and moment, and then goes on until
// the message is delivered, as the worker does.
func TestWhateverGoesWrongNothingIsHalfSentOrSentTwice(t *testing.T) {
	large := []*mail.File{file("large.pdf", 3_400_000), file("small.pdf", 1000)}
	for _, on := range []graphtest.Operation{graphtest.CreateDraft, graphtest.CreateUpload, graphtest.PutRange, graphtest.AddAttachment, graphtest.SendDraft} {
		for _, at := range []graphtest.Moment{graphtest.Arrived, graphtest.Received, graphtest.Accepted} {
			for name, mishap := range map[string]graphtest.Mishap{
				"cut": {Cut: true},
				"500": {Answer: &graphtest.Answer{Status: http.StatusInternalServerError}},
				"504": {Answer: &graphtest.Answer{Status: http.StatusGatewayTimeout}},
				"503": {Answer: &graphtest.Answer{Status: http.StatusServiceUnavailable}},
				"429": {Answer: &graphtest.Answer{Status: http.StatusTooManyRequests, RetryAfter: "2.128"}},
				"401": {Answer: &graphtest.Answer{Status: http.StatusUnauthorized}},
			} {
				if at == graphtest.Accepted && name != "cut" && name != "500" && name != "504" {
					continue // nobody refuses what was accepted
				}
				t.Run(fmt.Sprintf("%s/%d/%s", on, at, name), func(t *testing.T) {
					t.Parallel()
					o := open(t, graphtest.Options{}, func(s *provider.Settings) { s.Microsoft365.VerifySends = true })
					mishap.On, mishap.At = []graphtest.Operation{on}, at
					o.tenant.Provoke(mishap)
					m := message(large...)
					var history []string
					doubtful := false
					for range 5 {
						d := o.delivery(m)
						d.Retried = history != nil
						if doubtful {
							out, err := o.Verify(t.Context(), d)
							if err != nil {
								t.Fatal(err)
							}
							history = append(history, "verified: "+out[0].Class.String()+" "+string(out[0].Cause))
							if out[0].Class == mail.Delivered {
								break
							}
							if out[0].Cause != mail.NotSent {
								t.Fatalf("%s: %+v", history, out[0])
							}
						}
						out, err := o.Send(t.Context(), d)
						if err != nil {
							t.Fatal(err)
						}
						history = append(history, out[0].Class.String())
						doubtful = doubtful || out[0].Class == mail.Unknown
						if out[0].Class == mail.Delivered {
							break
						}
						if out[0].Class == mail.Permanent || out[0].Class == mail.Configuration {
							t.Fatalf("%s: %+v", history, out[0])
						}
					}
					if n := o.tenant.Received(); n != 1 {
						t.Fatalf("sent %d times: %s", n, history)
					}
					got := o.tenant.Messages()[0]
					if len(got.Files) != 2 || got.Files[0].SHA256 != digest(large[0].Bytes) && got.Files[1].SHA256 != digest(large[0].Bytes) {
						t.Errorf("not whole: %d files", len(got.Files))
					}
					if n := o.tenant.Drafts(reports); n != 0 {
						t.Errorf("%d drafts are left: %s", n, history)
					}
				})
			}
		}
	}
}

func TestAWorkerThatDiesLeavesNoDraft(t *testing.T) {
	for _, on := range []graphtest.Operation{graphtest.CreateUpload, graphtest.PutRange, graphtest.AddAttachment, graphtest.SendDraft} {
		o := open(t, graphtest.Options{}, nil)
		ctx, die := context.WithCancel(t.Context())
		o.tenant.Provoke(graphtest.Mishap{On: []graphtest.Operation{on}, At: graphtest.Arrived, Delay: 50 * time.Millisecond, Cut: true})
		m := message(file("large.pdf", 7_000_000), file("small.pdf", 1000))
		d := o.delivery(m)
		keep := d.Keep
		d.Keep = func(kept string) error {
			if kept == "" {
				return context.Canceled // a dead worker stores nothing any more
			}
			return keep(kept)
		}
		// What cleans up is gone as well.
		o.tenant.Provoke(graphtest.Mishap{On: []graphtest.Operation{graphtest.DeleteMessage}, At: graphtest.Arrived, Cut: true})
		if _, err := o.Send(ctx, d); err != nil {
			t.Fatal(err)
		}
		die()
		if o.tenant.Drafts(reports) != 1 || o.kept == "" {
			t.Fatalf("%s: the draft is not left for the test: %d, kept %q", on, o.tenant.Drafts(reports), o.kept)
		}
		if out := o.send(t, m); out.Class != mail.Delivered || o.tenant.Received() != 1 || o.tenant.Drafts(reports) != 0 {
			t.Errorf("%s: %+v, received %d, drafts %d", on, out, o.tenant.Received(), o.tenant.Drafts(reports))
		}
	}
}

// TestADraftIsForThoseWhoWereOffered has three recipients, of whom a message takes two: whatever becomes of the first draft, and of the
// limit, everybody has the message once.
func TestADraftIsForThoseWhoWereOffered(t *testing.T) {
	busy := graphtest.Mishap{On: []graphtest.Operation{graphtest.SendDraft}, At: graphtest.Arrived, Answer: &graphtest.Answer{Status: http.StatusTooManyRequests}}
	silent := graphtest.Mishap{On: []graphtest.Operation{graphtest.SendDraft}, At: graphtest.Accepted, Answer: &graphtest.Answer{Status: http.StatusGatewayTimeout}}
	for name, v := range map[string]struct {
		mishap *graphtest.Mishap
		later  int // the limit from the second attempt on
	}{
		"nothing goes wrong":                {nil, 2},
		"throttled, the same limit":         {&busy, 2},
		"throttled, then a lower limit":     {&busy, 1},
		"throttled, then a higher limit":    {&busy, 3},
		"answer lost, the same limit":       {&silent, 2},
		"answer lost, then a lower limit":   {&silent, 1},
		"answer lost, then a higher limit":  {&silent, 3},
		"nothing goes wrong, a lower limit": {nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			o := open(t, graphtest.Options{}, func(s *provider.Settings) { s.Microsoft365.VerifySends = true })
			if v.mishap != nil {
				o.tenant.Provoke(*v.mishap)
			}
			m := message()
			m.To = append(m.To, mail.Address{Address: "cy@example.net"})
			pending, doubtful := m.Recipients(), false
			for n := range 6 { // as the worker does
				d := o.delivery(m)
				d.Recipients, d.Retried, d.Bounds.Recipients = pending, n > 0, 2
				if n > 0 {
					d.Bounds.Recipients = v.later
				}
				make := o.Send
				if doubtful {
					make = o.Verify
				}
				out, err := make(t.Context(), d)
				if err == nil && doubtful && out[0].Cause == mail.NotSent {
					out, err = o.Send(t.Context(), d)
				}
				if err != nil {
					t.Fatal(err)
				}
				var left []mail.Address
				for i, outcome := range out {
					doubtful = doubtful || outcome.Class == mail.Unknown
					if outcome.Class != mail.Delivered {
						left = append(left, pending[i])
					}
				}
				if pending = left; len(left) == 0 {
					break
				}
			}
			if len(pending) > 0 {
				t.Errorf("%v do not have it", pending)
			}
			got := map[string]int{}
			for _, sent := range o.tenant.Messages() {
				for _, a := range append(append(sent.To, sent.Cc...), sent.Bcc...) {
					got[a.Address]++
				}
			}
			if want := map[string]int{"ada@example.net": 1, "bob@example.net": 1, "cy@example.net": 1}; !maps.Equal(got, want) {
				t.Errorf("%v, want each once", got)
			}
			if n := o.tenant.Drafts(reports); n != 0 {
				t.Errorf("%d drafts are left", n)
			}
		})
	}
}

// TestWhatMayHaveBeenSentIsAskedAboutBeforeItFailsForItsSize has a limit shrink below the size of a message of which an earlier attempt
// kept a draft that was ready, for one of two recipients. As long as nobody knows about that one the other stays pending: what is
// kept goes by how many are.
func TestWhatMayHaveBeenSentIsAskedAboutBeforeItFailsForItsSize(t *testing.T) {
	on := []graphtest.Operation{graphtest.SendDraft}
	sent := graphtest.Mishap{On: on, At: graphtest.Accepted, Answer: &graphtest.Answer{Status: http.StatusGatewayTimeout}}
	refused := graphtest.Mishap{On: on, At: graphtest.Arrived, Answer: &graphtest.Answer{Status: http.StatusTooManyRequests}}
	notToTell := graphtest.Mishap{On: []graphtest.Operation{graphtest.GetMessage}, At: graphtest.Arrived, Answer: &graphtest.Answer{Status: http.StatusTooManyRequests}}
	for name, v := range map[string]struct {
		mishaps        []graphtest.Mishap
		delay          time.Duration // until what was sent shows
		want           string
		sent, keptThen bool
	}{
		"it was sent":                     {[]graphtest.Mishap{sent}, 0, "delivered temporary", true, true},
		"it was not sent":                 {[]graphtest.Mishap{refused}, 0, "permanent permanent", false, false},
		"it does not show yet":            {[]graphtest.Mishap{sent}, time.Hour, "unknown temporary", true, true},
		"the provider can't be asked":     {[]graphtest.Mishap{sent, notToTell}, 0, "throttled temporary", true, true},
		"not sent, and it can't be asked": {[]graphtest.Mishap{refused, notToTell}, 0, "throttled temporary", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := open(t, graphtest.Options{SentDelay: v.delay}, func(s *provider.Settings) { s.Microsoft365.VerifySends = true })
			for _, mishap := range v.mishaps {
				o.tenant.Provoke(mishap)
			}
			m := message()
			d := o.delivery(m)
			d.Bounds.Recipients = 1
			if _, err := o.Send(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			before := o.kept
			d = o.delivery(m)
			d.Bounds = provider.Bounds{Recipients: 1, Bytes: 10}
			out, err := o.Send(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			if got := out[0].Class.String() + " " + out[1].Class.String(); got != v.want || out[1].Class == mail.Permanent && out[1].Cause != mail.LimitTooSmall {
				t.Errorf("%+v, want %s", out, v.want)
			}
			if (o.kept == before) != v.keptThen || o.tenant.Received() != map[bool]int{true: 1}[v.sent] {
				t.Errorf("kept %q, before %q; sent %d times", o.kept, before, o.tenant.Received())
			}
			if n := o.tenant.Drafts(reports); n > 0 && v.want == "permanent permanent" {
				t.Errorf("%d drafts are left", n)
			}
		})
	}
}

// TestWhatShowsAsADraftForLongIsNotSentTwice has Exchange move what it has sent later than Verify waits.
func TestWhatShowsAsADraftForLongIsNotSentTwice(t *testing.T) {
	for name, asDraft := range map[string]bool{"shown as a draft": true, "not shown": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := open(t, graphtest.Options{SentDelay: 2 * time.Second, SentAsDraft: asDraft}, func(s *provider.Settings) { s.Microsoft365.VerifySends = true })
			o.tenant.Provoke(graphtest.Mishap{On: []graphtest.Operation{graphtest.SendDraft}, At: graphtest.Accepted, Answer: &graphtest.Answer{Status: http.StatusGatewayTimeout}})
			m := message()
			if out := o.send(t, m); out.Class != mail.Unknown {
				t.Fatalf("%+v", out)
			}
			var found mail.Outcome
			for range 10 { // as the worker does with on_unknown: hold, and somebody who requeues it
				out, err := o.Verify(t.Context(), o.delivery(m))
				if err != nil {
					t.Fatal(err)
				}
				if found = out[0]; found.Class == mail.Delivered {
					break
				}
				if found.Cause != mail.NotSent {
					continue
				}
				if again := o.send(t, m); again.Class != mail.Unknown {
					t.Errorf("sent again: %+v", again)
				}
			}
			if n := o.tenant.Received(); found.Class != mail.Delivered || n != 1 {
				t.Errorf("received %d times, and in the end %+v", n, found)
			}
		})
	}
}

func TestTheTenantsRefusals(t *testing.T) {
	for name, test := range map[string]struct {
		options graphtest.Options
		change  func(*mail.Outgoing)
		class   mail.Class
		cause   mail.Cause
	}{
		"mailbox full":        {graphtest.Options{Mailboxes: []graphtest.Mailbox{{Address: reports, State: graphtest.Full}}}, nil, mail.Configuration, mail.MailboxFull},
		"no licence":          {graphtest.Options{Mailboxes: []graphtest.Mailbox{{Address: reports, State: graphtest.Unlicensed}}}, nil, mail.Configuration, mail.MailboxNotFound},
		"denied by a policy":  {graphtest.Options{Mailboxes: []graphtest.Mailbox{{Address: reports, State: graphtest.Denied}}}, nil, mail.Configuration, mail.PermissionMissing},
		"no such mailbox":     {graphtest.Options{Mailboxes: []graphtest.Mailbox{{Address: "x@example.com"}}}, nil, mail.Configuration, mail.MailboxNotFound},
		"no permission":       {graphtest.Options{Apps: []graphtest.App{{ClientID: graphtest.DefaultClientID, Secrets: []graphtest.ClientSecret{{Value: graphtest.DefaultSecret}}, Permissions: []string{graphtest.MailRead}}}}, nil, mail.Configuration, mail.PermissionMissing},
		"an invalid address":  {graphtest.Options{}, func(m *mail.Outgoing) { m.To[0].Address = "nobody" }, mail.Permanent, mail.AddressInvalid},
		"a secret that ended": {graphtest.Options{Apps: []graphtest.App{{ClientID: graphtest.DefaultClientID, Secrets: []graphtest.ClientSecret{{Value: graphtest.DefaultSecret, Expires: time.Unix(1, 0)}}}}}, nil, mail.Configuration, mail.SecretExpired},
	} {
		t.Run(name, func(t *testing.T) {
			o := open(t, test.options, nil)
			m := message()
			if test.change != nil {
				test.change(m)
			}
			out := o.send(t, m)
			if out.Class != test.class || out.Cause != test.cause || o.tenant.Received() != 0 {
				t.Errorf("%+v", out)
			}
			if strings.Contains(out.Reply, graphtest.DefaultSecret) {
				t.Error("the reply shows the secret")
			}
		})
	}
}

func TestATokenThatIsRevokedCostsNoAttempt(t *testing.T) {
	o := open(t, graphtest.Options{}, nil)
	for range 3 {
		if out := o.send(t, message()); out.Class != mail.Delivered {
			t.Fatalf("%+v", out)
		}
		o.tenant.RevokeTokens()
	}
	if n := o.tenant.TokenRequests(); n != 3 {
		t.Errorf("%d tokens were asked for, want 3", n)
	}
}
