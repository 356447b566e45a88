package provider

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/net/idna"

	"github.com/postroom/postroom/mail"
)

// Guard keeps providers from being connected to addresses that the configuration forbids: whoever may change the settings must not
// reach, or find out, what this machine alone can reach. Nil forbids nothing. It is safe for concurrent use.
//
// Direct connections are judged by the address that is connected to, after its name was resolved (Control). Requests through a
// proxy are judged by their host where that is written as an address (Transport), as is the proxy's own address; names are
// resolved by the proxy, and what they may lead to is for the proxy to forbid.
type Guard struct{ forbidden []netip.Prefix }

// DefaultForbidden are addresses at which no mail provider is, and of which some give out credentials of the machine. The loopback
// and private networks are not among them: many relay through a server there.
func DefaultForbidden() []string {
	return []string{
		"0.0.0.0/32", "::/128", // this machine by another name than its loopback's
		"169.254.0.0/16", "fe80::/10", // link-local; the metadata of nearly every cloud is at 169.254.169.254
		"224.0.0.0/4", "255.255.255.255/32", "ff00::/8", // multicast and broadcast
		// Metadata that is not at a link-local address.
		"fd00:ec2::/32",          // Amazon: ::254 the instance's, ::23 the credentials of a pod
		"fd20:ce::254/128",       // Google
		"168.63.129.16/32",       // Azure: the host, which gives out the machine's certificates
		"100.100.100.200/32",     // Alibaba
		"fd00:100::100:200/128",  // Alibaba
		"192.0.0.192/32",         // Oracle, classic
		"fd00:c1::a9fe:a9fe/128", // Oracle
		"fd00:a9fe:a9fe::1/128",  // Akamai (Linode)
		"fd00:42::42/128",        // Scaleway
	}
}

// NewGuard makes a Guard that forbids IP addresses and networks, such as "169.254.169.254" and "169.254.0.0/16". The fields of its
// problems count the entries: "/0". What is forbidden as IPv4 is so, too, where an IPv6 address carries it.
func NewGuard(forbidden []string) (*Guard, []mail.Problem) {
	var f faults
	g := &Guard{forbidden: make([]netip.Prefix, 0, len(forbidden))}
	for i, text := range forbidden {
		if p, reason := network(text); reason != "" {
			f.add("/"+strconv.Itoa(i), "%s", reason)
		} else {
			g.forbidden = append(g.forbidden, p)
		}
	}
	if len(f) > 0 {
		return nil, f
	}
	return g, nil
}

// network reads an address or a network, or says what is wrong with it.
func network(text string) (p netip.Prefix, reason string) {
	if a, err := netip.ParseAddr(text); err == nil {
		if a.Zone() != "" {
			return p, "names an interface; leave out the % and what follows"
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), ""
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return p, "is neither an IP address nor a network; write it as 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32"
	case p != p.Masked():
		return p, "is an address within a network; write the network's first address, or the address without its length"
	case !p.Addr().Is4In6():
		return p, ""
	case p.Bits() < mapped:
		return p, "mixes IPv4 with IPv6; write a network of each"
	}
	return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped), ""
}

// mapped is how many bits of an IPv6 address say that the rest is an IPv4 address (RFC 4291, section 2.5.5.2).
const mapped = 96

// ForbiddenError says that a connection, or a request, would have gone where Guard forbids it.
type ForbiddenError struct{ Address netip.Addr }

func (e *ForbiddenError) Error() string {
	return "the configuration forbids connections to " + e.Address.String() + " (network.forbidden)"
}

// Outcome is that of an attempt that met it.
func (e *ForbiddenError) Outcome(step string) mail.Outcome {
	return mail.Outcome{Class: mail.Configuration, Scope: mail.ScopeProvider, Cause: mail.TargetForbidden, Step: step, Reply: e.Error()}
}

// Check gives a *ForbiddenError if nothing may be connected to a.
func (g *Guard) Check(a netip.Addr) error {
	if g == nil {
		return nil
	}
	for _, alias := range aliases(a) {
		if slices.ContainsFunc(g.forbidden, func(p netip.Prefix) bool { return p.Contains(alias) }) {
			return &ForbiddenError{a.WithZone("")}
		}
	}
	return nil
}

// Control is for a net.Dialer: it is called with the address that is about to be connected to, so that no second look at the
// DNS can change it.
func (g *Guard) Control(_, address string, _ syscall.RawConn) error {
	if g == nil {
		return nil
	}
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("provider: guard: %w", err)
	}
	return g.Check(a.Addr())
}

// Transport wraps next, whose own dials have Control, for requests through a proxy: what they ask the proxy for is checked here.
func (g *Guard) Transport(next http.RoundTripper) http.RoundTripper {
	if g == nil {
		return next
	}
	return &guarded{g, next}
}

type guarded struct {
	guard *Guard
	next  http.RoundTripper
}

func (t *guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	if a, ok := literal(r.URL.Hostname()); ok {
		if err := t.guard.Check(a); err != nil {
			if r.Body != nil {
				_ = r.Body.Close()
			}
			return nil, err
		}
	}
	return t.next.RoundTrip(r)
}

// CloseIdleConnections is what http.Client looks for.
func (t *guarded) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// literal reads a host that is an IP address: also in the forms that inet_aton(3) knows, 0xa9fea9fe and 169.254.43518, which a
// proxy may read so.
func literal(host string) (netip.Addr, bool) {
	if ascii, err := idna.Lookup.ToASCII(host); err == nil { // as net/http does: digits have other forms, too
		host = ascii
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return a, true
	}
	parts := strings.Split(strings.TrimSuffix(host, "."), ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var whole uint64
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 0, 32)
		most := uint64(1<<8 - 1)
		if i == len(parts)-1 { // it takes the bytes that are left
			most = 1<<(8*(4-i)) - 1
		}
		if err != nil || n > most {
			return netip.Addr{}, false
		}
		if i == len(parts)-1 {
			whole |= n
		} else {
			whole |= n << (8 * (3 - i))
		}
	}
	return netip.AddrFrom4([4]byte{byte(whole >> 24), byte(whole >> 16), byte(whole >> 8), byte(whole)}), true
}

// carriers are IPv6 networks whose addresses stand for an IPv4 address, with the places of its bytes.
var carriers = []struct {
	network netip.Prefix
	bytes   [4]int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), [4]int{12, 13, 14, 15}},   // NAT64 (RFC 6052, section 2.1)
	{netip.MustParsePrefix("64:ff9b:1::/48"), [4]int{12, 13, 14, 15}}, // NAT64 of a site (RFC 8215), which divides it as it likes,
	{netip.MustParsePrefix("64:ff9b:1::/48"), [4]int{9, 10, 11, 12}},  // in any way of RFC 6052, section 2.2
	{netip.MustParsePrefix("64:ff9b:1::/48"), [4]int{7, 9, 10, 11}},
	{netip.MustParsePrefix("64:ff9b:1::/48"), [4]int{6, 7, 9, 10}},
	{netip.MustParsePrefix("2002::/16"), [4]int{2, 3, 4, 5}},           // 6to4 (RFC 3056, section 2)
	{netip.MustParsePrefix("::ffff:0:0:0/96"), [4]int{12, 13, 14, 15}}, // translated (RFC 2765, section 2.1)
	{netip.MustParsePrefix("::/96"), [4]int{12, 13, 14, 15}},           // compatible (RFC 4291, section 2.5.5.1)
}

// aliases gives a as it is written without a zone and in IPv4 where it can be, and every other address that it stands for.
func aliases(a netip.Addr) []netip.Addr {
	a = a.Unmap().WithZone("")
	all := []netip.Addr{a}
	if a.IsUnspecified() { // systems connect it to the loopback
		return append(all, netip.IPv6Loopback(), netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	if !a.Is6() || a.IsLoopback() { // ::1 carries nothing
		return all
	}
	b := a.As16()
	for _, c := range carriers {
		if c.network.Contains(a) {
			all = append(all, netip.AddrFrom4([4]byte{b[c.bytes[0]], b[c.bytes[1]], b[c.bytes[2]], b[c.bytes[3]]}))
		}
	}
	return all
}
