package provider

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/postroom/postroom/mail"
)

// guardAgainst forbids what it is given.
func guardAgainst(t *testing.T, forbidden ...string) *Guard {
	t.Helper()
	g, problems := NewGuard(forbidden)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return g
}

func TestNoSpellingGetsRoundTheGuard(t *testing.T) {
	g := guardAgainst(t, DefaultForbidden()...)
	for _, forbidden := range []string{
		"169.254.169.254", "::ffff:169.254.169.254", "::ffff:169.254.169.254%eth0", "fe80::1", "fe80::1%eth0", "febf::1",
		"64:ff9b::169.254.169.254", "64:ff9b:1::169.254.169.254",
		"64:ff9b:1:a9fe:a9:fe00::", "64:ff9b:1:12a9:fe:a9fe::", "64:ff9b:1:1234:a9:fea9:fe00:0",
		"2002:a9fe:a9fe::1", "2002:a9fe:a9fe:ffff::", "::169.254.169.254", "::ffff:0:169.254.169.254",
		"fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "168.63.129.16", "100.100.100.200", "64:ff9b::100.100.100.200", "fd00:100::100:200",
		"192.0.0.192", "fd00:c1::a9fe:a9fe", "fd00:a9fe:a9fe::1", "fd00:42::42",
		"0.0.0.0", "::", "::ffff:0.0.0.0", "224.0.0.1", "239.255.255.255", "255.255.255.255", "ff02::1%eth0",
	} {
		var f *ForbiddenError
		switch err := g.Check(netip.MustParseAddr(forbidden)); {
		case !errors.As(err, &f):
			t.Errorf("%s is allowed", forbidden)
		case f.Address != netip.MustParseAddr(forbidden).WithZone(""), !strings.Contains(err.Error(), f.Address.String()):
			t.Errorf("%s: %v", forbidden, err)
		}
	}
	for _, allowed := range []string{
		"127.0.0.1", "127.255.255.254", "::1", "10.1.2.3", "172.16.0.1", "192.168.1.25", "100.64.0.1", "fd12::25", "40.97.4.1", "2603:1026::1",
		"169.253.255.255", "169.255.0.0", "::ffff:10.1.2.3", "64:ff9b::8.8.8.8", "64:ff9b:2::169.254.169.254", "2002:808:808::a9fe:a9fe",
		"168.63.129.17", "fec0::1", "2001:db8::a9fe:a9fe",
	} {
		if err := g.Check(netip.MustParseAddr(allowed)); err != nil {
			t.Errorf("%s: %v", allowed, err)
		}
	}
}

func TestTheLoopbackIsForbiddenByEachOfItsNames(t *testing.T) {
	g := guardAgainst(t, "127.0.0.0/8", "::1")
	for _, a := range []string{"127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::"} {
		if g.Check(netip.MustParseAddr(a)) == nil {
			t.Errorf("%s is allowed", a)
		}
	}
}

func TestAGuardIsMadeOfAddressesAndNetworks(t *testing.T) {
	for text, v := range map[string]struct{ inside, outside string }{
		"192.0.2.1":               {"192.0.2.1", "192.0.2.2"},
		"192.0.2.0/24":            {"192.0.2.255", "192.0.3.0"},
		"::ffff:192.0.2.1":        {"192.0.2.1", "192.0.2.2"},
		"::ffff:192.0.2.0/120":    {"192.0.2.255", "192.0.3.0"},
		"::ffff:0:0/96":           {"8.8.8.8", "2001:db8::1"},
		"0.0.0.0/0":               {"::ffff:8.8.8.8", "2001:db8::1"},
		"::/0":                    {"::1", "8.8.8.8"},
		"2001:db8:0:0::/64":       {"2001:db8::ffff", "2001:db8:0:1::"},
		"2001:0DB8:0000:0000::25": {"2001:db8::25", "2001:db8::26"},
	} {
		g := guardAgainst(t, "198.51.100.7", text)
		if g.Check(netip.MustParseAddr(v.inside)) == nil || g.Check(netip.MustParseAddr("198.51.100.7")) == nil {
			t.Errorf("%s allows %s, or what stands beside it", text, v.inside)
		}
		if err := g.Check(netip.MustParseAddr(v.outside)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := guardAgainst(t, "0.0.0.0/8").Check(netip.IPv6Loopback()); err != nil {
		t.Errorf("::1 is taken for 0.0.0.1: %v", err)
	}
	for text, words := range map[string]string{
		"":                     "neither an IP address nor a network",
		"mail.example.com":     "neither",
		"192.0.2.1:25":         "neither",
		"192.0.2.0/33":         "neither",
		"192.0.2.0-192.0.2.9":  "neither",
		"192.0.02.1":           "neither",
		"[::1]":                "neither",
		" 192.0.2.1":           "neither",
		"fe80::%eth0/10":       "names an interface",
		"fe80::1%eth0":         "names an interface",
		"192.0.2.1/24":         "is an address within a network",
		"::ffff:192.0.2.1/120": "within a network",
		"::ffff:0:0/95":        "within a network",
		"::ffff:0.0.0.0/96":    "",
	} {
		g, problems := NewGuard([]string{"192.0.2.1", text})
		if words == "" {
			if len(problems) > 0 {
				t.Errorf("%q: %v", text, problems)
			}
			continue
		}
		if g != nil || len(problems) != 1 || problems[0].Field != "/1" || !strings.Contains(problems[0].Reason, words) ||
			!strings.Contains(problems[0].Reason, "; ") {
			t.Errorf("%q: %v", text, problems)
		}
	}
}

func TestNoGuardForbidsNothing(t *testing.T) {
	var none *Guard
	if err := errors.Join(none.Check(netip.IPv4Unspecified()), none.Control("tcp4", "169.254.169.254:80", nil)); err != nil {
		t.Error(err)
	}
	if got := none.Transport(http.DefaultTransport); got != http.DefaultTransport {
		t.Errorf("it wraps the transport: %T", got)
	}
	if err := guardAgainst(t).Check(netip.IPv4Unspecified()); err != nil {
		t.Error(err)
	}
}

// listen gives the port of a listener on the IPv4 loopback, and a check that nobody has connected to it.
func listen(t *testing.T) (port string, untouched func()) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port, func() {
		t.Helper()
		ours, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer ours.Close()
		first, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer first.Close()
		if first.RemoteAddr().String() != ours.LocalAddr().String() {
			t.Error("somebody had connected")
		}
	}
}

// forbids fails unless err is a *ForbiddenError.
func forbids(t *testing.T, err error) {
	t.Helper()
	if _, ok := errors.AsType[*ForbiddenError](err); !ok {
		t.Errorf("it was not forbidden: %v", err)
	}
}

func TestADialerAsksTheGuard(t *testing.T) {
	port, untouched := listen(t)
	d := net.Dialer{Control: guardAgainst(t, "127.0.0.0/8", "::1").Control}
	for _, host := range []string{"127.0.0.1", "localhost", "0.0.0.0", "::ffff:127.0.0.1", "::"} {
		c, err := d.Dial("tcp", net.JoinHostPort(host, port))
		if err == nil {
			c.Close()
		}
		if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "dial" {
			t.Errorf("%q: %v", host, err)
		}
		forbids(t, err)
	}
	untouched()

	d.Control = guardAgainst(t, DefaultForbidden()...).Control
	c, err := d.Dial("tcp", net.JoinHostPort("localhost", port))
	if err != nil {
		t.Fatalf("a relay on this machine is not reached: %v", err)
	}
	c.Close()
}

// An answer of the DNS that differs from the one before does not help.
func TestTheGuardJudgesWhatIsConnectedTo(t *testing.T) {
	port, untouched := listen(t)
	guard := guardAgainst(t, "127.0.0.1")
	resolver := resolverOf(t, "192.0.2.25", "127.0.0.1")

	before, err := resolver.LookupNetIP(t.Context(), "ip4", "mail.example.com.")
	if err != nil || len(before) != 1 || guard.Check(before[0]) != nil {
		t.Fatalf("the first answer: %v, %v", before, err)
	}
	d := net.Dialer{Control: guard.Control, Resolver: resolver}
	c, err := d.DialContext(t.Context(), "tcp4", "mail.example.com.:"+port)
	if err == nil {
		c.Close()
	}
	forbids(t, err)
	untouched()
}

// resolverOf asks a server that gives one answer after the other for the IPv4 address of any name, and the last for ever.
func resolverOf(t *testing.T, answers ...string) *net.Resolver {
	t.Helper()
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 1500)
		for {
			n, from, err := server.ReadFrom(buffer)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buffer[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Additionals = true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
					Body:   &dnsmessage.AResource{A: netip.MustParseAddr(answers[0]).As4()},
				}}
				answers = answers[min(1, len(answers)-1):]
			}
			if packed, err := m.Pack(); err == nil {
				_, _ = server.WriteTo(packed, from)
			}
		}
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp4", server.LocalAddr().String())
	}}
}

func TestAProxyIsNotAskedForWhatIsForbidden(t *testing.T) {
	asked := make(chan string, 1)
	proxy := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.Host }))
	defer proxy.Close()
	there, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	guard := guardAgainst(t, DefaultForbidden()...)
	transport := &http.Transport{Proxy: http.ProxyURL(there), DialContext: (&net.Dialer{Control: guard.Control}).DialContext}
	client := &http.Client{Transport: guard.Transport(transport)}
	defer client.CloseIdleConnections()

	for _, host := range []string{
		"169.254.169.254", "169.254.169.254.", "169.254.169.254:8080", "[::ffff:a9fe:a9fe]", "[fe80::1%25eth0]", "[fd00:ec2::254]",
		"2852039166", "0xa9fea9fe", "0xA9.0376.169.0xfe", "169.254.43518", "0", "0x0.0", "１６９.２５４.１６９.２５４",
	} {
		body := &closing{Reader: strings.NewReader("x")}
		r, err := http.NewRequest(http.MethodPost, "http://"+host+"/latest", body)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(r)
		if err == nil {
			answer.Body.Close()
		}
		forbids(t, err)
		select {
		case <-asked:
			t.Errorf("%s went to the proxy", host)
		default:
		}
		if !body.closed {
			t.Errorf("%s: the body was left open", host)
		}
	}
	for _, host := range []string{"mail.example.com", "8.8.8.8", "1.2.3.4.5", "169.254.example", "4294967296", "1.256.1", "256.1.1.1"} {
		answer, err := client.Get("http://" + host + "/")
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		answer.Body.Close()
		if got := <-asked; got != host {
			t.Errorf("the proxy was asked for %s, not %s", got, host)
		}
	}

	// The proxy itself is one of the addresses that can be forbidden.
	guard = guardAgainst(t, "127.0.0.1")
	transport = &http.Transport{Proxy: http.ProxyURL(there), DialContext: (&net.Dialer{Control: guard.Control}).DialContext}
	_, err = (&http.Client{Transport: guard.Transport(transport)}).Get("http://mail.example.com/")
	forbids(t, err)
}

type closing struct {
	*strings.Reader
	closed bool
}

func (c *closing) Close() error {
	c.closed = true
	return nil
}

func TestAForbiddenTargetIsAFaultOfTheSettings(t *testing.T) {
	err := guardAgainst(t, "169.254.0.0/16").Check(netip.MustParseAddr("169.254.169.254"))
	o := Disconnected("token", &url.Error{Op: "Post", URL: "https://metadata.example.com/secret", Err: &net.OpError{Op: "dial", Net: "tcp", Err: err}})
	want := mail.Outcome{Class: mail.Configuration, Scope: mail.ScopeProvider, Cause: mail.TargetForbidden, Step: "token",
		Reply: "the configuration forbids connections to 169.254.169.254 (network.forbidden)"}
	if o != want {
		t.Errorf("%+v", o)
	}
}

func FuzzNewGuard(f *testing.F) {
	for _, text := range append(DefaultForbidden(), "192.0.2.1", "192.0.2.1/24", "::ffff:192.0.2.0/120", "::ffff:0:0/80", "fe80::1%eth0", "1/1", "/", "%") {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		g, problems := NewGuard([]string{text})
		if (g == nil) != (len(problems) == 1) {
			t.Fatalf("%q: %v, %v", text, g, problems)
		}
		if g == nil {
			if p := problems[0]; p.Field != "/0" || p.Reason == "" {
				t.Errorf("%q: %+v", text, p)
			}
			return
		}
		first, _, _ := strings.Cut(text, "/")
		a := netip.MustParseAddr(first)
		mappedToo := netip.AddrFrom16(a.As16())
		if g.Check(a) == nil || g.Check(mappedToo) == nil {
			t.Errorf("%q allows %s", text, a)
		}
	})
}

func FuzzLiteral(f *testing.F) {
	for _, host := range []string{"169.254.169.254", "0xa9fea9fe", "0377.1", "1.2.3.4.5", "::1", "fe80::1%eth0", "mail.example.com", "1..2", ".", "１"} {
		f.Add(host)
	}
	f.Fuzz(func(t *testing.T, host string) {
		a, ok := literal(host)
		if ok != a.IsValid() {
			t.Errorf("%q: %v, %v", host, a, ok)
		}
		if want, err := netip.ParseAddr(host); err == nil && a != want {
			t.Errorf("%q is read as %v", host, a)
		}
	})
}
