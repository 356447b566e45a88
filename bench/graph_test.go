package bench

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/graph/graphtest"
	"github.com/postroom/postroom/queue"
	"github.com/postroom/postroom/queue/queuetest"
)

// tenancy is a Postroom of several processes that sends by a simulated tenant of Microsoft 365, which is in this process.
type tenancy struct {
	*installation
	tenant *graphtest.Tenant
}

// occupy starts a tenant with so many mailboxes, and a process that serves the API and does not send. settings are added to the
// configuration's section of Microsoft 365; more are other sections.
func occupy(t testing.TB, mailboxes int, o graphtest.Options, settings, limits, more map[string]any) *tenancy {
	t.Helper()
	for i := range mailboxes {
		o.Mailboxes = append(o.Mailboxes, graphtest.Mailbox{Address: mailbox(i)})
	}
	tenant := graphtest.Run(t, o)
	access := tenant.Settings(mail.Address{}).Microsoft365
	section := map[string]any{"tenant_id": access.TenantID, "client_id": access.ClientID, "client_secret": string(access.ClientSecret),
		"login_url": access.LoginURL, "graph_url": access.GraphURL}
	maps.Copy(section, settings)
	i := &installation{t: t, redis: queuetest.StartTCP(t), namespace: "postroom", more: more, provider: map[string]any{"kind": provider.KindMicrosoft365, "sender": map[string]any{"address": mailbox(0), "name": "Reports"},
		"microsoft365": section, "limits": limits}}
	i.open("--roles", "api")
	return &tenancy{i, tenant}
}

// unlimited are limits of nothing but what is under way at once.
func unlimited(concurrency int) map[string]any {
	return map[string]any{"concurrency": concurrency, "messages_per_minute": provider.NoLimit, "requests_per_10m": provider.NoLimit,
		"recipients_per_day": provider.NoLimit, "upload_bytes_per_5m": provider.NoLimit}
}

// soon has what failed be tried again at once, or nearly.
func soon(policy queue.UnknownPolicy) map[string]any {
	return map[string]any{"retry": map[string]any{"delays": []string{"1s"}},
		"kinds": map[string]any{"subscription": map[string]any{"on_unknown": policy}, "report": map[string]any{"on_unknown": policy}}}
}

// came counts the messages by who sent them and whom they went to.
func (y *tenancy) came() map[string]int {
	times := map[string]int{}
	for _, m := range y.tenant.Messages() {
		for _, to := range m.To {
			times[m.Mailbox+" "+to.Address]++
		}
	}
	return times
}

// random is a file that can't be mistaken for another.
func random(name string, bytes int) mail.Attachment {
	content := make([]byte, bytes)
	_, _ = rand.NewChaCha8([32]byte{byte(bytes)}).Read(content)
	return mail.Attachment{Name: name, ContentType: "application/pdf", Content: content}
}

// whole reports whether a message has just these files.
func whole(m *graphtest.Message, files []mail.Attachment) bool {
	want := map[string]string{}
	for _, f := range files {
		sum := sha256.Sum256(f.Content)
		want[f.Name] = hex.EncodeToString(sum[:])
	}
	got := map[string]string{}
	for _, f := range m.Files {
		got[f.Name] = f.SHA256
	}
	return len(m.Files) == len(files) && maps.Equal(got, want)
}

// TestGraphStaysInsideMicrosoftsLimits sends at Microsoft's own limits, in real time, to a tenant that enforces them strictly. Their
// windows last minutes: the short form goes as far as the limit, and the long one through three minutes.
func TestGraphStaysInsideMicrosoftsLimits(t *testing.T) {
	t.Parallel()
	for name, v := range map[string]struct {
		verify bool
		bytes  int // of a file
		most   int // messages before a limit binds
	}{
		"messages, each in one request": {false, 0, 30},
		"messages, each by a draft":     {true, 0, 30},
		// 150 MB in 5 minutes. While it is under way a file counts as it would in base64, and afterwards as what went out.
		"bytes that are uploaded": {false, 8 << 20, 17},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const periods = 3
			binding := limit{"messages", v.most, time.Minute}
			mailboxes, processes := size(5, 2), size(8, 2)
			latency := time.Duration(size(200, 20)) * time.Millisecond
			if v.bytes > 0 {
				mailboxes, processes = 1, size(8, 2)
			}
			limits := graphtest.MicrosoftLimits()
			y := occupy(t, mailboxes, graphtest.Options{Limits: &limits, Latency: latency}, map[string]any{"verify_sends": v.verify},
				map[string]any{"concurrency": limits.Concurrency, "upload_bytes_per_5m": limits.Upload.Most}, nil)
			var batches []string
			for i := range mailboxes {
				b := newsletter(size(periods+2, 2) * v.most)
				b.Message.From = mail.Address{Address: mailbox(i)}
				if v.bytes > 0 {
					b.Message.Attachments = []mail.Attachment{random("figures.pdf", v.bytes)}
				}
				batch, _ := y.accept(b)
				batches = append(batches, batch)
			}
			for range processes {
				y.serve("--roles", "worker")
			}
			goal := v.most
			if *full && v.bytes == 0 {
				goal = periods*v.most + 1
			}
			await(t, (periods+1)*time.Minute, "the limit to be used", func() bool {
				for i := range mailboxes {
					if y.tenant.Usage(mailbox(i)).Messages < goal {
						return false
					}
				}
				return true
			})
			if goal == v.most {
				pass(t.Context(), time.Second) // what is too fast comes now
			}

			if err := y.tenant.Obeyed(); err != nil {
				t.Error(err)
			}
			var shares []float64
			most, uploaded := 0, int64(0)
			for i := range mailboxes {
				u := y.tenant.Usage(mailbox(i))
				most, uploaded = max(most, u.MostConcurrent), max(uploaded, u.UploadBytes)
				if goal == v.most && u.Messages != goal {
					t.Errorf("mailbox %d sent %d messages, want %d", i, u.Messages, goal)
				}
				if c := y.counts(batches[i]); c == nil || c.Open == 0 || c.Failed > 0 {
					t.Errorf("mailbox %d: %+v; something is to be waiting, else this proves nothing", i, c)
				}
				share, _ := use(y.attempts(mailbox(i)), binding)
				shares = append(shares, share)
			}
			for who, n := range y.came() {
				if n > 1 {
					t.Errorf("%s came %d times", who, n)
				}
			}
			if most != limits.Concurrency {
				t.Errorf("at most %d requests at once, want %d: this proves nothing", most, limits.Concurrency)
			}
			u := y.tenant.Usage("")
			t.Logf("%d mailboxes, %d processes: %d requests, %d messages, none refused; of a mailbox at most %d at once and %d bytes uploaded",
				mailboxes, processes, u.Requests, u.Messages, most, uploaded)
			if goal == v.most {
				return
			}
			mean := 0.0
			for _, s := range shares {
				mean += s / float64(len(shares))
			}
			if mean < 0.98 {
				t.Errorf("%.2f %% of the best rate were used, want 98 %%", 100*mean)
			}
			t.Logf("use in %d minutes: mean %.2f %%, least %.2f %%", periods, 100*mean, 100*slices.Min(shares))
		})
	}
}

// attempts gives the requests that sent a mailbox's messages, each as long as what came before it for the same message.
func (y *tenancy) attempts(mailbox string) []request {
	var made time.Duration
	var sent []request
	for _, r := range y.tenant.Requests() {
		switch {
		case r.Mailbox != mailbox || r.Replied.IsZero():
		case r.Operation == graphtest.CreateDraft:
			made += r.Replied.Sub(r.Arrived)
		case r.Operation == graphtest.SendMail || r.Operation == graphtest.SendDraft:
			sent = append(sent, request{arrived: r.Arrived, replied: r.Replied})
		}
	}
	for i := range sent {
		sent[i].arrived = sent[i].arrived.Add(-made / time.Duration(len(sent)))
	}
	return sent
}

// TestAnAmbiguousGraphSendIsNotRepeatedIfItCanBeLookedUp has every 20th send be taken and answered with a time-out.
func TestAnAmbiguousGraphSendIsNotRepeatedIfItCanBeLookedUp(t *testing.T) {
	t.Parallel()
	for name, v := range map[string]struct {
		verify  bool
		policy  queue.UnknownPolicy
		mails   int
		moved   time.Duration // when a sent draft is in Sent Items
		asDraft bool          // until then it looks as if it had not been sent, else it is nowhere
	}{
		"verify_sends":                   {true, queue.Resend, size(5000, 160), time.Duration(size(3000, 500)) * time.Millisecond, false},
		"verify_sends, on_unknown: hold": {true, queue.Hold, size(5000, 160), time.Duration(size(3000, 500)) * time.Millisecond, true},
		"verify_sends, moved after 25 s": {true, queue.Hold, 200, 25 * time.Second, true},
		"on_unknown: resend":             {false, queue.Resend, size(5000, 160), 0, false},
		"on_unknown: hold":               {false, queue.Hold, size(5000, 160), 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			if v.moved > 20*time.Second && !*full {
				t.Skip("it is longer than anybody looks, and run with -full")
			}
			t.Parallel()
			const every = 20
			n := v.mails
			y := occupy(t, 1, graphtest.Options{Limits: &graphtest.Limits{}, MaxMessages: 3 * n, Latency: 5 * time.Millisecond,
				SentDelay: v.moved, SentAsDraft: v.asDraft}, map[string]any{"verify_sends": v.verify}, unlimited(10), soon(v.policy))
			for range n / every {
				y.tenant.Provoke(graphtest.Mishap{On: []graphtest.Operation{graphtest.SendMail, graphtest.SendDraft}, At: graphtest.Accepted,
					Skip: every - 1, Answer: &graphtest.Answer{Status: http.StatusGatewayTimeout}})
			}
			for range 2 {
				y.serve("--roles", "worker")
			}
			begun := time.Now()
			batch, ids := y.accept(newsletter(n))
			var counts *admin.BatchCounts
			await(t, 10*time.Minute, "nothing to be open", func() bool {
				counts = y.counts(batch)
				return counts != nil && counts.Open == 0
			})
			took := time.Since(begun)

			ambiguous, looks := 0, 0
			for _, r := range y.tenant.Requests() {
				if r.Mishap && r.Accepted {
					ambiguous++
				}
				if r.Operation == graphtest.GetMessage {
					looks++
				}
			}
			if ambiguous != n/every {
				t.Fatalf("%d sends were ambiguous, want %d: this proves nothing", ambiguous, n/every)
			}
			failed, again := 0, 0
			switch {
			case v.verify:
			case v.policy == queue.Hold:
				failed = ambiguous
			default:
				again = ambiguous
			}
			if counts.Delivered != n-failed || counts.Failed != failed {
				t.Errorf("want %d failed, and the others delivered: %+v", failed, *counts)
			}
			times := y.came()
			copies, twice := 0, 0
			for _, c := range times {
				copies += c
				if c > 1 {
					twice++
				}
			}
			if len(times) != n || copies-n != again {
				t.Errorf("%d of %d recipients got it, %d copies too many, want %d", len(times), n, copies-n, again)
			}
			if failed > 0 {
				y.find("what nobody knows", admin.FailedFilter{Classes: []string{mail.Unknown.String()}}, 100, y.undelivered(ids))
			}
			await(t, time.Minute, "the last sent draft to be moved", func() bool { return y.tenant.Drafts(mailbox(0)) == 0 })
			t.Logf("%d messages in %v, %d sends taken and answered with 504: %d looks, %d recipients got more than one copy, %d copies too many, %d failed as unknown",
				n, took.Round(100*time.Millisecond), ambiguous, looks, twice, copies-n, counts.Failed)
		})
	}
}

// undelivered gives the messages that have failed.
func (i *installation) undelivered(ids []string) []string {
	var failed []string
	for _, id := range ids {
		if i.message(id).State == queue.Failed {
			failed = append(failed, id)
		}
	}
	return failed
}

// TestALargeAttachmentGoesByGraph has one message with a large file go through processes of their own.
func TestALargeAttachmentGoesByGraph(t *testing.T) {
	t.Parallel()
	const mega = 1 << 20
	files := []mail.Attachment{random("figures.pdf", size(40, 12)*mega), random("small.pdf", 1000)}
	limits := graphtest.MicrosoftLimits()
	limits.MessageBytes = 150 * mega
	allowed := unlimited(limits.Concurrency)
	allowed["message_bytes"] = limits.MessageBytes
	y := occupy(t, 1, graphtest.Options{Limits: &limits}, nil, allowed,
		map[string]any{"accept": map[string]any{"message_bytes": 60 * mega}})
	w := y.serve("--roles", "worker")
	idle := w.peak()
	begun := time.Now()
	accepted, err := y.api.Send(t.Context(), mail.Message{Kind: mail.Report, To: []mail.Address{{Address: "ada@example.net"}},
		Subject: "Figures", Text: "They are attached.", Attachments: files}, "")
	if err != nil {
		t.Fatal(err)
	}
	handedIn := time.Since(begun)
	await(t, time.Minute, "the message to be delivered", func() bool { return y.message(accepted.ID).State == queue.Delivered })
	if got := y.tenant.Messages(); len(got) != 1 || !whole(got[0], files) {
		t.Errorf("%d messages came, want one with the files that were handed in", len(got))
	}
	if n := y.tenant.Drafts(mailbox(0)); n > 0 {
		t.Errorf("%d drafts are left", n)
	}
	if err := y.tenant.Obeyed(); err != nil {
		t.Error(err)
	}
	// The file is there once, and again in the pieces it was read in until they are collected.
	if took := w.peak() - idle; *full && took > len(files[0].Content)*5/2 {
		t.Errorf("the worker took %d MB for a file of %d MB", took/mega, len(files[0].Content)/mega)
	}
	t.Logf("a file of %d MB: handed in within %v, delivered after %v; the worker took at most %d MB of memory, %d MB before",
		len(files[0].Content)/mega, handedIn.Round(10*time.Millisecond), time.Since(begun).Round(10*time.Millisecond), w.peak()/mega, idle/mega)
}

// peak is the most memory that a process has had so far, in bytes (proc(5): VmHWM).
func (p *postroom) peak() int { return p.memory("VmHWM:") }

func (p *postroom) memory(which string) int {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), which)
	fields := strings.Fields(rest)
	if len(fields) < 2 || fields[1] != "kB" {
		p.t.Fatal("the process has no " + which)
	}
	n, err := strconv.Atoi(fields[0])
	if err != nil {
		p.t.Fatal(err)
	}
	return n << 10
}
