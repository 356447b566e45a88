package smtp

import (
	"context"
	"encoding/binary"
	"net"
	"strings"
	"testing"
)

// names is a DNS server that knows one name.
func names(t *testing.T, known string, addresses ...[4]byte) *net.Resolver {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	go func() {
		for query := make([]byte, 512); ; {
			n, from, err := server.ReadFrom(query)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(answerTo(query[:n], known, addresses), from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

// answerTo answers a question for one name (RFC 1035, section 4.1).
func answerTo(query []byte, known string, addresses [][4]byte) []byte {
	var name []string
	at := 12
	for query[at] != 0 {
		name = append(name, string(query[at+1:at+1+int(query[at])]))
		at += 1 + int(query[at])
	}
	kind := binary.BigEndian.Uint16(query[at+1:])
	answer := append([]byte(nil), query[:at+5]...)
	answer[2], answer[3] = 0x81, 0x80
	clear(answer[6:12])
	switch {
	case strings.Join(name, ".") != known:
		answer[3] |= 3 // no such name
	case kind == 1:
		answer[7] = byte(len(addresses))
		for _, a := range addresses {
			answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, a[0], a[1], a[2], a[3])
		}
	}
	return answer
}
