package provider

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"

	"github.com/postroom/postroom/mail"
)

// Disconnected says what it means that an HTTP request got no answer, although nothing can have come of it. What the settings, a
// name or a certificate are to blame for stays so until somebody changes it; whatever the network does may pass. Nothing of the
// URL but the host is told.
func Disconnected(step string, err error) mail.Outcome {
	var in *url.Error
	if errors.As(err, &in) {
		err = in.Err // the text before it has the whole URL
	}
	o := mail.Outcome{Class: mail.Configuration, Scope: mail.ScopeProvider, Step: step}
	var (
		dns       *net.DNSError
		untrusted *tls.CertificateVerificationError
		notTLS    tls.RecordHeaderError
		op        *net.OpError
		timeout   net.Error
		forbidden *ForbiddenError
	)
	switch {
	case errors.As(err, &forbidden):
		return forbidden.Outcome(step)
	case errors.As(err, &dns) && dns.IsNotFound && !dns.IsTemporary:
		o.Cause, o.Reply = mail.HostNotFound, "no such host: "+dns.Name
	case errors.As(err, &untrusted):
		o.Cause, o.Reply = mail.CertificateInvalid, "the server's certificate is not valid: "+untrusted.Err.Error()
	case errors.As(err, &notTLS), errors.Is(err, http.ErrSchemeMismatch):
		o.Cause, o.Reply = mail.TLSNotSpoken, "the server does not speak TLS on this port"
	case errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error"):
		o.Cause, o.Reply = mail.TLSRefused, "the TLS handshake failed: "+op.Err.Error()
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		o.Class, o.Reply = mail.Temporary, "timed out"
	case errors.Is(err, io.EOF):
		o.Class, o.Reply = mail.Temporary, "the server closed the connection"
	case errors.As(err, &dns):
		o.Class, o.Reply = mail.Temporary, "the name can't be resolved now: "+dns.Name+": "+dns.Err
	case errors.As(err, &op):
		o.Class, o.Reply = mail.Temporary, op.Error()
	default: // err may repeat what is secret, such as a proxy's password
		o.Class, o.Reply = mail.Temporary, "no connection, or it broke"
	}
	return o
}
