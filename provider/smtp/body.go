package smtp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

const (
	// bodyBuffer collects the small pieces of a message; a mail without attachments fits and goes out in one write.
	bodyBuffer = 32 << 10
	// bodyBlock is the largest write, the data block of RFC 5321, section 4.5.3.2.5, that has a time-out of its own.
	bodyBlock = 64 << 10
)

// bodyWriter sends a message as DATA wants it: a dot is put before each line that begins with one (RFC 5321, section
// 4.5.2). Every line ends with CRLF, the last one too: the checker has seen to it. Large pieces pass without being copied.
type bodyWriter struct {
	// write sends one block and gives how much of it went out.
	write func([]byte) (int, error)

	buf     []byte
	midLine bool
	err     error // of write; what fails once fails on
	cut     bool  // not all of what follows the dot went out
}

func (b *bodyWriter) reset(write func([]byte) (int, error)) {
	if b.buf == nil {
		b.buf = make([]byte, 0, bodyBuffer)
	}
	*b = bodyWriter{write: write, buf: b.buf[:0]}
}

var _ io.Writer = (*bodyWriter)(nil)

// Write implements io.Writer.
func (b *bodyWriter) Write(p []byte) (int, error) {
	n := len(p)
	if n == 0 {
		return 0, b.err
	}
	if !b.midLine && p[0] == '.' {
		b.put(dot)
	}
	b.midLine = p[n-1] != '\n'
	for {
		i := bytes.Index(p, lineDot)
		if i < 0 {
			b.put(p)
			return n, b.err
		}
		b.put(p[:i+1])
		b.put(dot)
		p = p[i+1:]
	}
}

var (
	dot     = []byte(".")
	lineDot = []byte("\n.")
)

func (b *bodyWriter) put(p []byte) {
	if len(b.buf)+len(p) > cap(b.buf) {
		b.flush(b.buf)
		b.buf = b.buf[:0]
		if len(p) >= cap(b.buf) {
			b.flush(p)
			return
		}
	}
	b.buf = append(b.buf, p...)
}

func (b *bodyWriter) flush(p []byte) {
	for len(p) > 0 && b.err == nil {
		var n int
		n, b.err = b.write(p[:min(len(p), bodyBlock)])
		p = p[n:]
	}
}

// finish sends what is left, the final dot and what follows it in one write. dotted reports whether any of the dot went out: then
// the server may have the message, whatever the error. That a server was too slow to take what follows a whole dot is none: it is
// noted as cut.
func (b *bodyWriter) finish(behind []byte) (dotted bool, err error) {
	if b.err != nil {
		return false, b.err
	}
	if len(b.buf)+len(finalDot) > cap(b.buf) {
		b.flush(b.buf)
		b.buf = b.buf[:0]
		if b.err != nil {
			return false, b.err
		}
	}
	rest := len(b.buf)
	n, err := b.write(append(append(b.buf, finalDot...), behind...))
	if n >= rest+len(finalDot) && err != nil && timedOut(err) {
		b.cut = true
		return true, nil
	}
	return err == nil || n > rest, err
}

const finalDot = ".\r\n"

// errLineEnd would let content end the message early, on servers that take a bare LF for the end of a line.
var errLineEnd = errors.New("rendered with a line that does not end with CRLF")

// checker reads a rendered message once before it is sent: its lines must end with CRLF, and it notes bytes beyond
// ASCII, which have to be declared (RFC 6152).
type checker struct {
	size     int64
	eightBit bool

	last byte
}

var _ io.Writer = (*checker)(nil)

// Write implements io.Writer.
func (c *checker) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	// Every LF comes after a CR, and there are as many of both: then no CR stands alone either.
	crs, lfs := bytes.Count(p, []byte("\r")), 0
	if c.last == '\r' {
		crs++
	}
	for rest := p; ; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			break
		}
		if i > 0 {
			c.last = rest[i-1]
		}
		if c.last != '\r' {
			return 0, errLineEnd
		}
		lfs++
		c.last = '\n'
		rest = rest[i+1:]
	}
	c.last = p[len(p)-1]
	if c.last == '\r' {
		crs--
	}
	if crs != lfs {
		return 0, errLineEnd
	}
	c.size += int64(len(p))
	c.eightBit = c.eightBit || eightBit(p)
	return len(p), nil
}

// eightBit reports whether p has a byte beyond ASCII.
func eightBit(p []byte) bool {
	const high = 0x8080808080808080
	for ; len(p) >= 8; p = p[8:] {
		if binary.LittleEndian.Uint64(p)&high != 0 {
			return true
		}
	}
	for _, b := range p {
		if b&0x80 != 0 {
			return true
		}
	}
	return false
}
