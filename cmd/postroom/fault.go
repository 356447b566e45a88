package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
)

// Exit codes; the help of the root command explains them.
const (
	exitFault       = 1
	exitUsage       = 2
	exitRefused     = 3
	exitTryAgain    = 4
	exitUndelivered = 5
	exitNotValid    = 6
	exitInterrupted = 130 // as shells say of what SIGINT ended
)

// failure is an error with an exit code of its own.
type failure struct {
	code int
	err  error
	hint string // what to do, on a line of its own; may be empty
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// fail gives an error with an exit code.
func fail(code int, format string, args ...any) error {
	return &failure{code: code, err: fmt.Errorf(format, args...)}
}

// usage gives the error of a command line that is wrong.
func usage(format string, args ...any) error { return fail(exitUsage, format, args...) }

// exitCode gives the code that a program of this result ends with.
func exitCode(err error) int {
	var f *failure
	switch {
	case err == nil:
		return 0
	case errors.As(err, &f):
		return f.code
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case temporary(err):
		return exitTryAgain
	}
	return exitFault
}

// temporary reports whether the same request may succeed later: the server was not reached, or says so itself.
func temporary(err error) bool {
	var p *admin.Problem
	if errors.As(err, &p) {
		return p.Status >= 500 || p.Status == http.StatusTooManyRequests || p.Status == http.StatusRequestTimeout
	}
	var untrusted *tls.CertificateVerificationError
	if errors.Is(err, context.Canceled) || errors.As(err, &untrusted) {
		return false
	}
	var request *url.Error
	var network *net.OpError // while the answer is read
	return errors.As(err, &request) || errors.As(err, &network) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.DeadlineExceeded)
}

// mostTold is how many faults are told one by one.
const mostTold = 20

// explain gives an error as people read it: what is wrong, each fault with its place, and what to do.
func explain(err error) string {
	text := explainCause(err)
	var f *failure
	if errors.As(err, &f) && f.hint != "" {
		text += "\n" + f.hint
	}
	return text
}

func explainCause(err error) string {
	var p *admin.Problem
	var invalid *mail.Invalid
	switch {
	case errors.As(err, &p):
		return explainProblem(before(err, p), p)
	case errors.As(err, &invalid):
		local := &admin.Problem{Title: "The message can't be accepted"}
		for _, one := range invalid.Problems {
			local.Errors = append(local.Errors, admin.Fault{Location: one.Field, Reason: one.Reason})
		}
		return explainProblem(before(err, invalid), local)
	case exitCode(err) == exitInterrupted && errors.Is(err, context.Canceled):
		return "postroom: interrupted"
	case temporary(err):
		return "postroom: " + plain(strings.TrimPrefix(err.Error(), "admin: ")) + "\nIs the URL right, and the server running? (--url or POSTROOM_URL says where it is.)"
	}
	return "postroom: " + plain(err.Error())
}

// before gives what err says ahead of its cause: the step that went wrong.
func before(err, cause error) string {
	step, _, _ := strings.Cut(err.Error(), cause.Error())
	return strings.TrimSuffix(step, ": ")
}

func explainProblem(step string, p *admin.Problem) string {
	var b strings.Builder
	b.WriteString("postroom: ")
	if step != "" {
		b.WriteString(plain(step) + ": ")
	}
	b.WriteString(plain(p.Title))
	if p.Status != 0 {
		fmt.Fprintf(&b, " (%d)", p.Status)
	}
	for i, f := range p.Errors {
		if i == mostTold {
			fmt.Fprintf(&b, "\n  and %d more", len(p.Errors)-i)
			break
		}
		fmt.Fprintf(&b, "\n  %s %s", plain(cmp.Or(f.Location, "the message")), plain(f.Reason))
	}
	if p.Detail != "" {
		b.WriteString("\n" + plain(p.Detail))
	}
	if p.RetryAfter > 0 {
		fmt.Fprintf(&b, "\nTry again in %s.", p.RetryAfter)
	}
	return b.String()
}
