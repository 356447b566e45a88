package bench

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/smtp/smtptest"
)

// peer is an SMTP server that answers each command as a test tells it to, and keeps books of who came and what it took. The
// commands are those of RFC 5321 that a sender uses, and AUTH PLAIN; it offers PIPELINING.
type peer struct {
	t testing.TB
	// address is not the 127.0.0.1 that everybody else is given ports of: it is free still when the peer comes back.
	address string
	// wantsLogin has it offer AUTH, and want it.
	wantsLogin bool
	// tell gives the reply to a command, such as "451 4.3.0 Try later"; "" stands for what is said if all is well. A reply 421
	// ends the connection, as hangUp does without a word. Called by many goroutines at once.
	tell func(*step) string
	// came counts the messages that were taken, copies what each of their recipients got: see copyFor.
	came, copies ledger

	serving sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener // nil: it is away
	open     map[net.Conn]bool
	visits   []*visit
}

// step is one command, or the connection itself.
type step struct {
	at       string   // "greeting", "ehlo", "auth", "mail", "rcpt", "data", or "body": the message has come to its final dot
	argument string   // the password, the sender, the recipient, or the message's id
	from     string   // the sender accepted
	to       []string // the recipients accepted so far
	visit    *visit
}

// hangUp is the reply of a peer that ends the connection instead.
const hangUp = "hang up"

// visit is one connection. What changes is to be read with the peer's lock, or when nobody comes any more.
type visit struct {
	peer           *peer
	opened, closed time.Time
	logins         int  // tried
	refused        bool // a greeting or a login
	taken          int  // messages
	busy           bool // connecting, or with a message under way
}

// listen starts a peer.
func listen(t testing.TB, tell func(*step) string) *peer {
	t.Helper()
	p := &peer{t: t, tell: tell, address: "127.0.0.2:0", open: map[net.Conn]bool{}}
	p.comeBack()
	t.Cleanup(func() {
		p.goAway()
		p.mu.Lock()
		for conn := range p.open {
			_ = conn.Close()
		}
		p.mu.Unlock()
		p.serving.Wait()
	})
	return p
}

// comeBack has it listen, at the same address as before.
func (p *peer) comeBack() {
	p.t.Helper()
	l, err := net.Listen("tcp", p.address)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	p.listener, p.address = l, l.Addr().String()
	p.mu.Unlock()
	p.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.serving.Go(func() { p.serve(conn) })
		}
	})
}

// goAway closes the listener: connections are refused. Those that are open stay.
func (p *peer) goAway() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
}

// provider is the configuration's section for this peer.
func (p *peer) provider(concurrency int) map[string]any {
	settings := providerAt(p.address, concurrency)
	if p.wantsLogin {
		settings["smtp"].(map[string]any)["auth"] = map[string]any{"method": provider.AuthBasic, "username": "news", "password": rightPassword, "allow_cleartext": true}
	}
	return settings
}

// rightPassword is what senders are configured with.
const rightPassword = "open sesame"

// visited gives the visits so far, in the order in which they came.
func (p *peer) visited() []visit {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []visit
	for _, v := range p.visits {
		all = append(all, *v)
	}
	return all
}

// alone holds whoever calls it, at the body of a message, for d, and checks that nothing else goes on meanwhile.
func (p *peer) alone(d time.Duration) {
	before := p.came.entered()
	pass(p.t.Context(), d)
	p.mu.Lock()
	busy := 0
	for _, v := range p.visits {
		if v.busy {
			busy++
		}
	}
	p.mu.Unlock()
	if came := p.came.entered() - before; busy != 1 || came > 0 {
		p.t.Errorf("while a probe was under way %d messages came, and %d connections were busy, with it", came, busy)
	}
}

// change makes a change to a visit.
func (v *visit) change(f func(*visit)) {
	v.peer.mu.Lock()
	defer v.peer.mu.Unlock()
	f(v)
}

// messages is how many the visit has brought.
func (v *visit) messages() int {
	v.peer.mu.Lock()
	defer v.peer.mu.Unlock()
	return v.taken
}

// dialog is the server's side of a connection.
type dialog struct {
	*visit
	conn    net.Conn
	r       *bufio.Reader
	greeted bool
	in      bool // logged in
	from    string
	to      []string
}

func (p *peer) serve(conn net.Conn) {
	v := &visit{peer: p, opened: time.Now(), busy: true}
	p.mu.Lock()
	p.visits = append(p.visits, v)
	p.open[conn] = true
	p.mu.Unlock()
	defer func() {
		_ = conn.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.open, conn)
		v.closed, v.busy = time.Now(), false
	}()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Minute))
	d := &dialog{visit: v, conn: conn, r: bufio.NewReader(conn)}
	if ok, alive := d.answer("greeting", "", "220 peer.example ESMTP"); !ok || !alive {
		v.change(func(v *visit) { v.refused = true })
		return
	}
	for {
		line, err := d.r.ReadString('\n')
		if err != nil || !d.command(strings.TrimRight(line, "\r\n")) {
			return
		}
	}
}

// say writes a reply, and reports whether the connection goes on.
func (d *dialog) say(reply string) bool {
	if reply == hangUp {
		return false
	}
	_, err := d.conn.Write([]byte(reply + "\r\n"))
	return err == nil && !strings.HasPrefix(reply, "421")
}

// answer says what the test tells it to at a step, or what is said if all is well, and whether the command succeeded.
func (d *dialog) answer(at, argument, well string) (ok, alive bool) {
	s := &step{at: at, argument: argument, from: d.from, to: slices.Clone(d.to), visit: d.visit}
	reply := d.peer.tell(s)
	if reply == "" {
		if at == "body" {
			s.take() // before anybody is told
		}
		return true, d.say(well)
	}
	return reply[0] == '2', d.say(reply)
}

// command handles one, and reports whether the connection goes on.
func (d *dialog) command(line string) (alive bool) {
	verb, rest, _ := strings.Cut(line, " ")
	var ok bool
	switch strings.ToUpper(verb) {
	case "EHLO":
		offers := []string{"250-peer.example", "250-PIPELINING", "250-8BITMIME", "250-ENHANCEDSTATUSCODES", "250 SIZE 50000000"}
		if d.peer.wantsLogin {
			offers = slices.Insert(offers, 1, "250-AUTH PLAIN")
		}
		d.greeted, alive = d.answer("ehlo", rest, strings.Join(offers, "\r\n"))
		return alive
	case "AUTH":
		return d.login(rest)
	case "MAIL":
		d.change(func(v *visit) { v.busy = true })
		switch {
		case !d.greeted:
			return d.say("503 5.5.1 EHLO first")
		case d.peer.wantsLogin && !d.in:
			return d.say("530 5.7.0 Authentication required")
		}
		from := path(rest)
		d.to = nil
		if ok, alive = d.answer("mail", from, "250 2.1.0 Ok"); ok {
			d.from = from
		} else {
			d.over()
		}
		return alive
	case "RCPT":
		to := path(rest)
		if d.from == "" {
			return d.say("503 5.5.1 MAIL first")
		}
		if ok, alive = d.answer("rcpt", to, "250 2.1.5 Ok"); ok {
			d.to = append(d.to, to)
		}
		return alive
	case "DATA":
		return d.data()
	case "RSET":
		d.over()
		return d.say("250 2.0.0 Ok")
	case "QUIT":
		d.say("221 2.0.0 Bye")
		return false
	}
	return d.say("502 5.5.2 Not known here")
}

// path is the address of MAIL FROM:<...> or RCPT TO:<...>.
func path(argument string) string {
	_, rest, _ := strings.Cut(argument, "<")
	address, _, _ := strings.Cut(rest, ">")
	return address
}

// over ends a transaction.
func (d *dialog) over() {
	d.from, d.to = "", nil
	d.change(func(v *visit) { v.busy = false })
}

func (d *dialog) login(argument string) (alive bool) {
	_, initial, _ := strings.Cut(argument, " ")
	decoded, _ := base64.StdEncoding.DecodeString(initial)
	parts := bytes.Split(decoded, []byte{0})
	d.change(func(v *visit) { v.logins++ })
	d.in, alive = d.answer("auth", string(parts[len(parts)-1]), "235 2.7.0 Welcome")
	if !d.in {
		d.change(func(v *visit) { v.refused = true })
	}
	return alive
}

// data takes a message.
func (d *dialog) data() (alive bool) {
	if len(d.to) == 0 {
		d.over()
		return d.say("554 5.5.1 No valid recipients")
	}
	if ok, alive := d.answer("data", "", "354 Go ahead"); !ok {
		d.over()
		return alive
	}
	var raw bytes.Buffer
	for {
		line, err := d.r.ReadBytes('\n')
		if err != nil {
			return false
		}
		if string(line) == ".\r\n" {
			break
		}
		raw.Write(line)
	}
	_, alive = d.answer("body", idOf(&smtptest.Message{Raw: raw.Bytes()}), "250 2.0.0 Taken")
	d.over()
	return alive
}

// take enters the message of a body's step into the books.
func (s *step) take() {
	s.visit.peer.came.enter(s.argument)
	for _, to := range s.to {
		s.visit.peer.copies.enter(copyFor(s.argument, to))
	}
	s.visit.change(func(v *visit) { v.taken++ })
}

// copyFor names what one recipient gets of a message.
func copyFor(id, recipient string) string { return id + " " + recipient }
