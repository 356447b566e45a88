// Package smtptest has the SMTP servers that tests and the demo talk to: Play follows a script of which every line can
// fail the test, and Inbox takes mail and keeps it.
package smtptest

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// T is what this package needs of a *testing.T, so that programs that use Inbox do not link package testing.
type T interface {
	Helper()
	Cleanup(func())
	Errorf(format string, args ...any)
}

// Peer plays the server of one connection after the other, each by its own script, over an in-memory pipe. A script has
// a line for each step; empty ones are passed over.
//
//	S: 220 mx.example ESMTP     sends the line
//	C: EHLO client.example      wants exactly this line; a * at the end stands for any rest
//	MESSAGE                     wants a message up to its final dot, and keeps it
//	CUT                         wants lines and then the end of the connection, without a final dot
//	RAW: "250 o"                sends these bytes, quoted as in Go
//	TLS                         answers a TLS handshake
//	NOTLS                       answers a TLS handshake that must fail
//	WAIT: 9m                    lets time pass, in a bubble of testing/synctest
//	QUIET: 1s                   wants nothing to come for so long
//	SILENCE                     answers nothing until the client hangs up
//	STALL                       does not even read, while the client writes
//	CLOSE                       ends the connection
//	EOF                         wants the client to hang up
//
// After the last line the client may say QUIT or hang up, and nothing else. Whatever differs fails the test, as do
// scripts and lines that were not played to the end.
type Peer struct {
	// TLS is for the scripts' TLS lines.
	TLS *tls.Config

	t       T
	scripts []string
	running sync.WaitGroup

	mu       sync.Mutex
	dialed   int
	messages []string
}

// Play makes a Peer with a script for each connection. It checks at the end of the test that all were played.
func Play(t T, scripts ...string) *Peer {
	p := &Peer{t: t, scripts: scripts}
	t.Cleanup(func() {
		t.Helper()
		p.Wait()
		if n := p.Dialed(); n != len(scripts) {
			t.Errorf("%d connections were made, want %d", n, len(scripts))
		}
	})
	return p
}

// Wait returns when all connections made so far have ended.
func (p *Peer) Wait() { p.running.Wait() }

// Dialed is the number of connections made.
func (p *Peer) Dialed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dialed
}

// Messages gives what MESSAGE lines received, as it was on the wire, without the final dot.
func (p *Peer) Messages() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.messages...)
}

// DialContext begins the next script. It fails the test if there is none.
func (p *Peer) DialContext(context.Context, string, string) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dialed++
	if p.dialed > len(p.scripts) {
		p.t.Errorf("connection %d: there is no script for it", p.dialed)
		return nil, errors.New("smtptest: no script")
	}
	client, server := pipe()
	d := &dialog{peer: p, number: p.dialed, raw: server, nc: server, r: bufio.NewReader(server)}
	script := p.scripts[p.dialed-1]
	p.running.Go(func() { d.play(script) })
	return client, nil
}

// dialog is one connection being played.
type dialog struct {
	peer   *Peer
	number int
	raw    net.Conn
	nc     net.Conn
	r      *bufio.Reader
}

// errEnd ends a dialog that went as it should.
var errEnd = errors.New("end of dialog")

func (d *dialog) play(script string) {
	defer func() { _ = d.raw.Close() }()
	for i, line := range strings.Split(script, "\n") {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		err := d.step(line)
		if errors.Is(err, errEnd) {
			return
		}
		if err != nil {
			d.peer.t.Errorf("connection %d, line %d, %q: %v", d.number, i+1, line, err)
			return
		}
	}
	if err := d.end(); err != nil {
		d.peer.t.Errorf("connection %d, after the script: %v", d.number, err)
	}
}

func (d *dialog) step(line string) error {
	verb, rest, _ := strings.Cut(line, ":")
	rest = strings.TrimPrefix(rest, " ")
	switch verb {
	case "S":
		return d.write(rest + "\r\n")
	case "RAW":
		bytes, err := strconv.Unquote(rest)
		if err != nil {
			return err
		}
		return d.write(bytes)
	case "WAIT", "QUIET":
		wait, err := time.ParseDuration(rest)
		if err != nil {
			return err
		}
		return d.pause(verb, wait)
	case "C":
		return d.want(rest)
	case "MESSAGE":
		return d.message()
	case "CUT":
		return d.cut()
	case "TLS":
		return d.encrypt()
	case "NOTLS":
		if err := d.encrypt(); err == nil {
			return errors.New("the handshake succeeded")
		}
		return errEnd
	case "SILENCE":
		_, _ = io.Copy(io.Discard, d.r)
		return errEnd
	case "STALL":
		_, _ = d.raw.Write(make([]byte, 2*pipeBuffer)) // Nobody reads it: returns when the client hangs up.
		return errEnd
	case "CLOSE":
		return errEnd
	case "EOF":
		if line, err := d.line(); err == nil {
			return fmt.Errorf("got %q", line)
		}
		return errEnd
	}
	return errors.New("no such line in a script")
}

func (d *dialog) write(s string) error {
	_, err := io.WriteString(d.nc, s)
	return err
}

// line reads a line of the client, which must end with CRLF.
func (d *dialog) line() (string, error) {
	line, err := d.r.ReadString('\n')
	if err != nil {
		return line, err
	}
	text, ok := strings.CutSuffix(line, "\r\n")
	if !ok {
		return line, errors.New("a line does not end with CRLF")
	}
	return text, nil
}

// pause lets time pass, and for QUIET wants nothing to come in it.
func (d *dialog) pause(verb string, wait time.Duration) error {
	if verb == "WAIT" {
		<-time.After(wait)
		return nil
	}
	_ = d.raw.SetReadDeadline(time.Now().Add(wait))
	if p, err := d.r.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("got %q and %v", p, err)
	}
	return d.raw.SetReadDeadline(time.Time{})
}

func (d *dialog) want(want string) error {
	got, err := d.line()
	if err != nil {
		return fmt.Errorf("got %q and %w", got, err)
	}
	if prefix, ok := strings.CutSuffix(want, "*"); ok && strings.HasPrefix(got, prefix) || got == want {
		return nil
	}
	return fmt.Errorf("got %q", got)
}

func (d *dialog) message() error {
	var b strings.Builder
	for {
		line, err := d.line()
		if err != nil {
			return fmt.Errorf("the message ends without a dot: %w", err)
		}
		if line == "." {
			break
		}
		b.WriteString(line + "\r\n")
	}
	d.peer.mu.Lock()
	defer d.peer.mu.Unlock()
	d.peer.messages = append(d.peer.messages, b.String())
	return nil
}

func (d *dialog) cut() error {
	for {
		line, err := d.line()
		if err != nil {
			return errEnd
		}
		if line == "." {
			return errors.New("the final dot came")
		}
	}
}

func (d *dialog) encrypt() error {
	if d.peer.TLS == nil {
		return errors.New("the peer has no certificate")
	}
	over := tls.Server(d.raw, d.peer.TLS)
	if err := over.Handshake(); err != nil {
		return err
	}
	d.nc, d.r = over, bufio.NewReader(over)
	return nil
}

// end is what may follow a script: QUIT and the end of the connection.
func (d *dialog) end() error {
	line, err := d.line()
	if err != nil {
		return nil
	}
	if line != "QUIT" {
		return fmt.Errorf("got %q", line)
	}
	_ = d.write("221 2.0.0 bye\r\n")
	if line, err := d.line(); err == nil {
		return fmt.Errorf("got %q after QUIT", line)
	}
	return nil
}
