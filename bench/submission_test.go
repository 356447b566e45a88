package bench

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/smtp/smtptest"
)

// archive has a blind copy of everything.
const archive = "archive@example.org"

// subscribers are n people, and the report that goes to each of them: texts of their own, and a PDF that they share.
func subscribers(n, pdfBytes int) mail.Batch {
	pdf := make([]byte, pdfBytes)
	_, _ = rand.Read(pdf[copy(pdf, "%PDF-1.7\n"):])
	b := mail.Batch{Message: mail.Message{
		Kind: mail.Subscription, Subject: "Figures for {{.name}}", Text: "Dear {{.name}},\n\nthe figures of {{.region}} are attached.\n",
		HTML:        "<p>Dear {{.name}},</p>\n<p>the figures of <b>{{.region}}</b> are attached.</p>\n",
		Bcc:         []mail.Address{{Address: archive}},
		Attachments: []mail.Attachment{{Name: "figures.pdf", ContentType: "application/pdf", Content: pdf}},
	}}
	for i := range n {
		b.Recipients = append(b.Recipients, mail.Recipient{
			To:        []mail.Address{{Address: fmt.Sprintf("reader%05d@example.net", i), Name: fmt.Sprintf("Reader %d", i)}},
			Variables: map[string]any{"name": fmt.Sprintf("Reader %d", i), "region": fmt.Sprintf("Région %d", i%7)},
		})
	}
	return b
}

// expected gives the hash of each part that a recipient is to get, by media type.
func expected(m *mail.Message, r *mail.Recipient) map[string][32]byte {
	fill := strings.NewReplacer("{{.name}}", r.Variables["name"].(string), "{{.region}}", r.Variables["region"].(string))
	return map[string][32]byte{
		"text/plain":      sha256.Sum256([]byte(fill.Replace(m.Text))),
		"text/html":       sha256.Sum256([]byte(fill.Replace(m.HTML))),
		"application/pdf": sha256.Sum256(m.Attachments[0].Content),
	}
}

// hashes gives the hash of each part of a message, or part of a message, by media type. Text is hashed with plain line ends.
func hashes(header textproto.MIMEHeader, body io.Reader, into map[string][32]byte) error {
	kind, parameters, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		return err
	}
	if strings.HasPrefix(kind, "multipart/") {
		parts := multipart.NewReader(body, parameters["boundary"])
		for {
			part, err := parts.NextRawPart()
			if errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if err := hashes(part.Header, part, into); err != nil {
				return err
			}
		}
	}
	switch strings.ToLower(header.Get("Content-Transfer-Encoding")) {
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	}
	content, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	if strings.HasPrefix(kind, "text/") {
		content = bytes.ReplaceAll(content, []byte("\r\n"), []byte("\n"))
	}
	if _, twice := into[kind]; twice {
		return fmt.Errorf("two parts of type %s", kind)
	}
	into[kind] = sha256.Sum256(content)
	return nil
}

// audience checks each mail as it arrives, and keeps no more than what is to be compared.
type audience struct {
	mu         sync.Mutex
	came       map[string]int // by recipient
	copies     int            // to archive
	messageIDs map[string]bool
	faults     []string
}

func (a *audience) check(m *smtptest.Message, wanted map[string]map[string][32]byte) {
	parsed, err := netmail.ReadMessage(bytes.NewReader(m.Raw))
	got := make(map[string][32]byte)
	if err == nil {
		err = hashes(textproto.MIMEHeader(parsed.Header), parsed.Body, got)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	fault := func(format string, arguments ...any) { a.faults = append(a.faults, fmt.Sprintf(format, arguments...)) }
	if err != nil {
		fault("a mail can't be read: %v", err)
		return
	}
	for _, to := range m.To {
		if to == archive {
			a.copies++
			continue
		}
		a.came[to]++
		if !maps.Equal(got, wanted[to]) {
			fault("a part of a mail is not what was handed in")
		}
		if list, err := parsed.Header.AddressList("To"); err != nil || len(list) != 1 || list[0].Address != to {
			fault("To is not the recipient alone")
		}
	}
	if parsed.Header.Get("Bcc") != "" || bytes.Contains(m.Raw[:bytes.Index(m.Raw, []byte("\r\n\r\n"))], []byte(archive)) {
		fault("the blind copy can be seen")
	}
	id := parsed.Header.Get("Message-ID")
	if id == "" || a.messageIDs[id] && !slices.Equal(m.To, []string{archive}) {
		fault("the Message-ID %q came before", id)
	}
	a.messageIDs[id] = true
}

// memory watches what Redis needs, connections and all, while a batch goes through.
type memory struct {
	baseline, peak int64
	budget         func(waiting int) int64 // beyond the baseline
	// least is the smallest distance to the budget, and used and waiting what there was then.
	least, used int64
	waiting     int
	samples     int
}

func (m *memory) sample(used int64, waiting int) {
	m.samples++
	used -= m.baseline
	m.peak = max(m.peak, used)
	if left := m.budget(waiting) - used; m.samples == 1 || left < m.least {
		m.least, m.used, m.waiting = left, used, waiting
	}
}

func TestSubmissionBringsEachSubscriberEachPartOnce(t *testing.T) {
	t.Parallel()
	n, patience := size(2000, 50), time.Duration(size(20, 2))*time.Minute
	batch := subscribers(n, size(1<<20, 100<<10))
	// One small mail goes before the baseline is taken: scripts are loaded then, and connections made.
	first := subscribers(1, 1000)
	first.Recipients[0].To[0].Address = "first@example.net"
	wanted := make(map[string]map[string][32]byte)
	for _, b := range []*mail.Batch{&first, &batch} {
		for i := range b.Recipients {
			wanted[b.Recipients[i].To[0].Address] = expected(&b.Message, &b.Recipients[i])
		}
	}
	var own int64 // bytes of recipients and their variables
	for _, r := range batch.Recipients {
		js, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		own += int64(len(js))
	}
	var people audience
	people.came, people.messageIDs = make(map[string]int), make(map[string]bool)
	server := inbox(t, smtptest.InboxOptions{OnData: func(m *smtptest.Message) error {
		people.check(m, wanted)
		return nil
	}})
	relay := startPostfix(t, server.Addr())
	host, port, _ := net.SplitHostPort(relay.address)
	portNumber, _ := strconv.Atoi(port)
	i := install(t, map[string]any{
		"kind":   provider.KindSMTP,
		"sender": map[string]any{"address": "reports@example.com", "name": "Reports"},
		"smtp": map[string]any{"host": host, "port": portNumber, "security": provider.SecurityStartTLS, "ca_pem": relay.caPEM,
			"auth": map[string]any{"method": provider.AuthBasic, "username": relay.username, "password": relay.password}},
	})
	i.serve()
	before, _ := i.accept(first)
	i.awaitDelivered(before, 1, time.Minute)
	await(t, time.Minute, "the first mail", func() bool { return server.Received() > 0 })

	shared := int64(len(batch.Message.Text) + len(batch.Message.HTML) + len(batch.Message.Attachments[0].Content))
	const waitingBytes, deliveredBytes = 600, 300
	watch := &memory{baseline: i.redis.Memory(), budget: func(waiting int) int64 {
		return shared + own + waitingBytes*int64(waiting) + deliveredBytes*int64(n-waiting)
	}}
	type answer struct {
		batch *admin.BatchAccepted
		err   error
	}
	answers := make(chan answer, 1)
	begun := time.Now()
	go func() {
		accepted, err := i.api.SendBatch(t.Context(), batch, "")
		answers <- answer{accepted, err}
	}()
	id := ""
	await(t, patience, "the whole batch to be delivered", func() bool {
		select {
		case a := <-answers:
			if a.err != nil || a.batch.Accepted != n {
				t.Fatalf("the batch was not accepted: %+v, %v", a.batch, a.err)
			}
			id = a.batch.ID
		default:
		}
		waiting := n
		if id != "" {
			if c := i.counts(id); c != nil {
				waiting = c.Open
			}
		}
		watch.sample(i.redis.Memory(), waiting)
		return waiting == 0
	})
	submitted := time.Since(begun)
	i.awaitDelivered(id, n, time.Minute)
	everybody := func() bool {
		people.mu.Lock()
		defer people.mu.Unlock()
		return len(people.came) == n+1 && people.copies >= n+1
	}
	await(t, patience, "Postfix to relay everything", everybody)
	arrived := time.Since(begun)

	for to := range wanted {
		if c := people.came[to]; c != 1 {
			t.Errorf("a recipient got the mail %d times", c)
		}
	}
	if people.copies != n+1 {
		t.Errorf("%d blind copies came, want %d", people.copies, n+1)
	}
	for _, fault := range people.faults[:min(len(people.faults), 10)] {
		t.Error(fault)
	}
	all := relay.log(t)
	if c := relay.tookFrom(t, "PLAIN|LOGIN", relay.username); c != n+1 {
		t.Errorf("Postfix took %d mails after a login, want %d", c, n+1)
	}
	connections := strings.Count(all, "TLS connection established from")
	if connections == 0 || strings.Count(all, ": connect from ") > connections+1 { // one was to see whether it listens
		t.Errorf("%d connections used TLS, of %d", connections, strings.Count(all, ": connect from "))
	}
	t.Logf("%d mails with %d bytes of PDF: submitted in %v, relayed after %v, over %d connections with TLS and login", n,
		len(batch.Message.Attachments[0].Content), submitted.Round(100*time.Millisecond), arrived.Round(100*time.Millisecond), connections)
	if !*full {
		return // of so little mail one sees nothing beside the connections, which take 20 to 100 KB each
	}
	t.Logf("Redis: baseline %d bytes, at most %d more; content once %d, recipients and variables %d", watch.baseline, watch.peak, shared, own)
	t.Logf("nearest to the budget: %d bytes more with %d waiting, %d left (%d samples)", watch.used, watch.waiting, watch.least, watch.samples)
	if watch.least < 0 {
		t.Errorf("Redis needs %d bytes more than the budget", -watch.least)
	}
}
