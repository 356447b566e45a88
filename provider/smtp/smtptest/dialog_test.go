package smtptest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// recorder is a T that keeps what fails.
type recorder struct {
	cleanups []func()

	mu     sync.Mutex
	faults []string
}

func (r *recorder) Helper()          {}
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, fmt.Sprintf(format, args...))
}

// play has the client say its lines, read all replies and hang up, and gives what failed.
func play(t *testing.T, script, client string) string {
	t.Helper()
	r := &recorder{}
	p := Play(r, script)
	c, err := p.DialContext(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, client)
	done := make(chan struct{})
	go func() {
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
		close(done)
	}()
	<-done
	for _, f := range r.cleanups {
		f()
	}
	return strings.Join(r.faults, "; ")
}

// A script that can't fail proves nothing.
func TestEveryLineOfAScriptCanFail(t *testing.T) {
	for _, v := range []struct{ script, client, fault string }{
		{"S: 220 mx\nC: EHLO me\nS: 250 mx", "EHLO me\r\n", ""},
		{"S: 220 mx\nC: EHLO me\nS: 250 mx", "EHLO me\r\nQUIT\r\n", ""},
		{"S: 220 mx\nC: EHLO *\nS: 250 mx", "EHLO me\r\n", ""},
		{"C: EHLO me", "EHLO you\r\n", `line 1, "C: EHLO me": got "EHLO you"`},
		{"C: EHLO me", "EHLO me\n", "does not end with CRLF"},
		{"C: EHLO me", "", "EOF"},
		{"C: EHLO me", "EHLO me\r\nNOOP\r\n", `after the script: got "NOOP"`},
		{"C: EHLO me", "EHLO me\r\nQUIT\r\nNOOP\r\n", `got "NOOP" after QUIT`},
		{"MESSAGE", "a\r\n.\r\n", ""},
		{"MESSAGE", "a\r\n", "without a dot"},
		{"CUT", "a\r\n", ""},
		{"CUT", "a\r\n.\r\n", "the final dot came"},
		{"EOF", "", ""},
		{"EOF", "NOOP\r\n", `got "NOOP"`},
		{"QUIET: 1s\nC: NOOP", "NOOP\r\n", `line 1, "QUIET: 1s": got "N"`},
		{"TLS", "", "no certificate"},
		{"HELLO", "", "no such line"},
		{`RAW: "x`, "", "invalid syntax"},
		{"SILENCE\nC: more", "EHLO me\r\n", ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			fault := play(t, v.script, v.client)
			if v.fault == "" && fault != "" || v.fault != "" && !strings.Contains(fault, v.fault) {
				t.Errorf("%q against %q: %q, want %q", v.client, v.script, fault, v.fault)
			}
		})
	}
}

func TestScriptsThatAreNotPlayedFail(t *testing.T) {
	r := &recorder{}
	p := Play(r, "EOF")
	r.cleanups[0]()
	if len(r.faults) != 1 {
		t.Errorf("not dialed: %v", r.faults)
	}
	for range 2 {
		if c, err := p.DialContext(t.Context(), "", ""); err == nil {
			_ = c.Close()
		}
	}
	p.Wait()
	if len(r.faults) != 2 {
		t.Errorf("dialed too often: %v", r.faults)
	}
}

func TestPipeIsLikeASocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pipe()
		r := bufio.NewReader(b)
		if _, err := io.WriteString(a, "one\ntwo\n"); err != nil {
			t.Fatal(err)
		}
		_ = a.Close()
		for _, want := range []string{"one\n", "two\n"} {
			if got, err := r.ReadString('\n'); got != want || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
		}
		if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("after the end: %v", err)
		}
		if _, err := b.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("writing to nobody: %v", err)
		}
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("reading after Close: %v", err)
		}

		a, b = pipe()
		_ = a.SetDeadline(time.Now().Add(time.Minute))
		if n, err := a.Write(make([]byte, 2*pipeBuffer)); n != pipeBuffer || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("writing more than fits: %d, %v", n, err)
		}
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("reading what does not come: %v", err)
		}
		_ = b.Close()
		_ = a.Close()
	})
}
