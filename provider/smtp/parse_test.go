package smtp

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func parse(s string) (reply, error) {
	return readReply(bufio.NewReaderSize(strings.NewReader(s), 2*maxReplyLine), nil)
}

func TestReadReply(t *testing.T) {
	for in, want := range map[string]reply{
		"250 2.1.0 fine\r\n":                          {250, "2.1.0", "fine"},
		"250\r\n":                                     {250, "", ""},
		"250 \r\n":                                    {250, "", ""},
		"250 fine\n":                                  {250, "", "fine"},
		"250-one\r\n250-\r\n250 three\r\n":            {250, "", "one three"},
		"550-5.7.1 one\r\n550 5.7.1 two\r\n":          {550, "5.7.1", "one two"},
		"550 5.7.1\r\n":                               {550, "5.7.1", ""},
		"550 4.7.1 the class differs\r\n":             {550, "", "4.7.1 the class differs"},
		"550 5.1000.1 too long\r\n":                   {550, "", "5.1000.1 too long"},
		"550 5..1 x\r\n":                              {550, "", "5..1 x"},
		"220 5 mx\r\n":                                {220, "", "5 mx"},
		"334 VXNlcm5hbWU6\r\n":                        {334, "", "VXNlcm5hbWU6"},
		"250 a\tb\x00c\x7f\u202e\r\n":                 {250, "", "a b?c??"},
		strings.Repeat("250-x\r\n", 99) + "250 x\r\n": {250, "", strings.TrimSpace(strings.Repeat("x ", 100))},
		"250 " + strings.Repeat("x", maxReplyLine-6) + "\r\n": {250, "", strings.Repeat("x", maxReplyText)},
		"250 " + strings.Repeat("ü", 300) + "\r\n":            {250, "", strings.Repeat("ü", maxReplyText/2)},
	} {
		got, err := parse(in)
		if err != nil || got != want {
			t.Errorf("%.40q: got %+v, %v, want %+v", in, got, err, want)
		}
	}
}

func TestReadReplyRefuses(t *testing.T) {
	for _, in := range []string{
		"hello\r\n", "25\r\n", "25O x\r\n", "250x\r\n", "150 x\r\n", "600 x\r\n", "\r\n", "250-x\r\n251 y\r\n", "250-x\r\ny\r\n",
		strings.Repeat("250-x\r\n", 100) + "250 x\r\n", "250 " + strings.Repeat("x", maxReplyLine) + "\r\n", strings.Repeat("2", 3*maxReplyLine),
	} {
		if got, err := parse(in); !errors.Is(err, errMalformed) {
			t.Errorf("%.40q: got %+v, %v, want errMalformed", in, got, err)
		}
	}
	for _, in := range []string{"", "25", "250 x", "250-x\r\n", "250-x\r\n250"} {
		if got, err := parse(in); !errors.Is(err, io.EOF) {
			t.Errorf("%q: got %+v, %v, want io.EOF", in, got, err)
		}
	}
}

func FuzzReadReply(f *testing.F) {
	for _, s := range []string{"250 2.1.0 fine\r\n", "250-a\r\n250 b\r\n", "550 5.1.1 \xff\x00\r\n", "250", "354 go\n250 next\r\n", "421-\r\n421\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		lines := 0
		r, err := readReply(bufio.NewReaderSize(bytes.NewReader(in), 2*maxReplyLine), func([]byte) { lines++ })
		if lines > maxReplyLines {
			t.Fatalf("%d lines", lines)
		}
		if err != nil {
			if r != (reply{}) {
				t.Fatalf("%+v beside %v", r, err)
			}
			return
		}
		if c := r.class(); c < 2 || c > 5 || len(r.text) > maxReplyText || !utf8.ValidString(r.text) {
			t.Fatalf("%+v", r)
		}
		if strings.ContainsFunc(r.text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("not printable: %q", r.text)
		}
		if r.enhanced != "" && int(r.enhanced[0]-'0') != r.class() {
			t.Fatalf("code %d with %s", r.code, r.enhanced)
		}
	})
}

func TestExtensionLines(t *testing.T) {
	var e extensions
	for _, line := range []string{"STARTTLS", "pipelining", "8BITMIME", "SMTPUTF8", "SIZE 1000", "AUTH PLAIN login", "AUTH=LOGIN XOAUTH2", "", " ", "HELP", "X-AUTH PLAIN"} {
		e.add([]byte(line))
	}
	want := extensions{true, true, true, true, true, 1000, []string{"PLAIN", "LOGIN", "LOGIN", "XOAUTH2"}, ""}
	if e.startTLS != want.startTLS || e.pipelining != want.pipelining || e.eightBit != want.eightBit || e.utf8 != want.utf8 ||
		e.size != want.size || e.maxSize != want.maxSize || !slices.Equal(e.auth, want.auth) {
		t.Errorf("got %+v, want %+v", e, want)
	}
	for _, line := range []string{"SIZE", "SIZE 0", "SIZE -1", "SIZE x", "SIZE 99999999999999999999"} {
		var e extensions
		e.add([]byte(line))
		if !e.size || e.maxSize != 0 {
			t.Errorf("%s: %+v", line, e)
		}
	}
}

func FuzzExtensions(f *testing.F) {
	for _, s := range []string{"SIZE 1000", "AUTH PLAIN LOGIN", "AUTH=", "auth=plain", "\x00", "STARTTLS x", strings.Repeat("AUTH a ", 200)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		var e extensions
		e.add(line)
		e.add(line)
		if e.maxSize < 0 || len(e.auth) > maxMechanisms || slices.Contains(e.auth, "") {
			t.Fatalf("%+v", e)
		}
	})
}

// The body on the wire is the message with a dot before each line that begins with one, however it is cut into writes.
func TestBodyWriterAnyPieces(t *testing.T) {
	large := strings.Repeat("0123456789abcdef\r\n.dot\r\n", 6000)
	for _, message := range []string{"a\r\n", ".\r\n", "..\r\n.\r\n\r\n.x\r\n", large} {
		want := strings.ReplaceAll("\n"+message, "\n.", "\n..")[1:] + ".\r\n"
		for _, size := range []int{1, 2, 3, 7, 100, bodyBuffer - 1, bodyBuffer, 1 << 20} {
			if len(message) > 1000 && size < 100 {
				continue
			}
			var got strings.Builder
			var b bodyWriter
			b.reset(func(p []byte) (int, error) {
				if len(p) > bodyBlock {
					t.Fatalf("a block of %d bytes", len(p))
				}
				return got.Write(p)
			})
			for rest := message; rest != ""; {
				n := min(size, len(rest))
				if _, err := b.Write([]byte(rest[:n])); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			if strings.HasSuffix(got.String(), "\r\n.\r\n") && len(message) < bodyBuffer {
				t.Errorf("the dot went out before finish")
			}
			if dotted, err := b.finish(nil); !dotted || err != nil {
				t.Errorf("finish: %v, %v", dotted, err)
			}
			if got.String() != want {
				t.Errorf("%.20q in pieces of %d: got %.40q, want %.40q", message, size, got.String(), want)
			}
		}
	}
}

// Only if some of the dot went out may the server have the message.
func TestFinishTellsWhetherTheDotWentOut(t *testing.T) {
	fail := errors.New("broken pipe")
	for n, want := range map[int]bool{0: false, 2: false, 3: false, 4: true, 5: true} {
		var b bodyWriter
		b.reset(func([]byte) (int, error) { return n, fail })
		_, _ = b.Write([]byte("a\r\n"))
		if dotted, err := b.finish(nil); dotted != want || !errors.Is(err, fail) {
			t.Errorf("%d bytes of 6 went out: dotted %v, %v", n, dotted, err)
		}
	}
}

func FuzzBodyWriter(f *testing.F) {
	f.Add([]byte(".\r\n"), 1)
	f.Add([]byte("a\r\n.b\r\n..\r\n"), 2)
	f.Add([]byte("\r\n.\r\n"), 3)
	f.Fuzz(func(t *testing.T, message []byte, size int) {
		var check checker
		if _, err := check.Write(message); err != nil || check.last != '\n' || size < 1 {
			return
		}
		if naive := bytes.Count(message, []byte("\r\n")); naive != bytes.Count(message, []byte("\n")) || naive != bytes.Count(message, []byte("\r")) {
			t.Fatalf("the checker let %q pass", message)
		}
		var got bytes.Buffer
		var b bodyWriter
		b.reset(got.Write)
		for rest := message; len(rest) > 0; rest = rest[min(size, len(rest)):] {
			_, _ = b.Write(rest[:min(size, len(rest))])
		}
		_, _ = b.finish(nil)
		if want := strings.ReplaceAll("\n"+string(message), "\n.", "\n..")[1:] + ".\r\n"; got.String() != want {
			t.Fatalf("got %q, want %q", got.String(), want)
		}
	})
}

func TestCheckerAnyPieces(t *testing.T) {
	for in, want := range map[string]bool{"a\r\nb\r\n": true, "a\nb\r\n": false, "a\rb\r\n": false, "\r\r\n": false, "\n": false, "\r\n\r\n": true, "a\r\n\n": false} {
		for size := 1; size <= len(in); size++ {
			var c checker
			var err error
			for rest := in; rest != "" && err == nil; rest = rest[min(size, len(rest)):] {
				_, err = c.Write([]byte(rest[:min(size, len(rest))]))
			}
			if (err == nil) != want {
				t.Errorf("%q in pieces of %d: %v", in, size, err)
			}
		}
	}
	for in, want := range map[string]bool{"0123456789abcdef\r\n": false, "0123456789abcde\xff\r\n": true, "012\xc3\xbc456789\r\n": true} {
		var c checker
		_, _ = c.Write([]byte(in))
		if c.eightBit != want || c.size != int64(len(in)) {
			t.Errorf("%q: %+v", in, c)
		}
	}
}
