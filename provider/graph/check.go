package graph

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
)

// Check tries settings out: it asks for a token, looks at what the token allows, and connects to Graph as a Sender would. Nothing is
// sent, nor made. It ends with the first step that fails, and that has the outcome which an attempt would have had. The steps of
// connecting come twice, for the login service and for Graph; Found names the host.
//
// If the token allows reading, the sender's mailbox is asked for its folder of drafts: one request, which counts against the
// mailbox's limits. Else nothing is asked of the mailbox.
//
// Tokens should be a provider.Granter, as a token in hand tells nothing of the secret's being good. The end of ctx ends the check,
// too: the step under way fails for the time being. The error says that the settings are no good, as New's does.
func Check(ctx context.Context, settings provider.Settings, o Options) ([]provider.Step, error) {
	s, err := New(settings, o)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close() }()
	k := &check{Sender: s, ctx: ctx, settings: &settings.Microsoft365}
	if token, ok := k.grant(); ok && k.permissions(token) {
		k.reach(token)
	}
	return k.steps, nil
}

// check is one on its way.
type check struct {
	*Sender
	ctx      context.Context
	settings *provider.Microsoft365Settings
	steps    []provider.Step
	roles    []string // of the token
}

// stepToken is where package oauth decides its outcomes.
const stepToken = "token"

// certificateRenewal is how long before its end an app's certificate is warned of: a new one has to be uploaded by somebody.
const certificateRenewal = 30 * 24 * time.Hour

// grant takes the steps up to a token. It reports whether there is one.
func (k *check) grant() (token string, ok bool) {
	s := &provider.Step{Name: provider.StepToken, State: provider.StepPassed}
	ok = k.request(k.settings.Login(), stepToken, s, func(ctx context.Context) error {
		granted, err := provider.Grant(ctx, k.tokens)
		if o, ok := provider.NoToken(err); ok {
			return &fault{o}
		}
		token, s.Found = granted.Token.Reveal(), granted.String()
		if c, _, problems := k.settings.ClientCertificate(); k.settings.CertificatePEM != "" && len(problems) == 0 {
			s.Found += "; the app's certificate is " + provider.Ends(c.NotAfter, time.Now(), certificateRenewal)
		}
		return err
	})
	return token, ok
}

// The application permissions (Microsoft Graph, "Permissions reference"): drafts need the second, and with them everything that is
// too large for one request.
const (
	mailSend      = "Mail.Send"
	mailReadWrite = "Mail.ReadWrite"
)

// permissions looks at what a token allows. It reports whether the check goes on.
func (k *check) permissions(token string) bool {
	s := provider.Step{Name: provider.StepPermissions, State: provider.StepPassed}
	began := time.Now()
	roles, readable := rolesOf(token)
	k.roles = roles
	listed := printable(strings.Join(roles, ", "), maxWords/2)
	missing, step := "", stepSend
	switch {
	case !slices.Contains(roles, mailSend):
		missing = mailSend
	case k.verifies && !slices.Contains(roles, mailReadWrite):
		missing, step = mailReadWrite+", which verify_sends needs", stepDraft
	}
	switch {
	case !readable:
		s.State, s.Found = provider.StepSkipped, "the token can't be looked into: send a test mail"
	case missing != "":
		if listed == "" {
			listed = "no permission"
		}
		v := byCode["ErrorAccessDenied"]
		s.State, s.Outcome = provider.StepFailed, &mail.Outcome{Class: v.class, Scope: v.scope, Cause: v.cause, Step: step,
			Reply: "the token lacks the application permission " + missing + "; it has " + listed +
				" (a role that Exchange itself gives, by RBAC for Applications, does not show in a token)"}
	case !slices.Contains(roles, mailReadWrite):
		s.Found = listed + "; without " + mailReadWrite + " messages that are too large for one request (3 MB of files) can't be sent"
	default:
		s.Found = listed
	}
	s.Took = time.Since(began)
	k.steps = append(k.steps, s)
	return s.State != provider.StepFailed
}

// reach takes the steps of connecting to Graph, and asks for the sender's mailbox if the token allows that.
func (k *check) reach(token string) {
	r := request{step: stepSend, method: http.MethodGet, url: k.base + "/v1.0/", anonymous: true}
	s := &provider.Step{Name: provider.StepSender, State: provider.StepSkipped, Found: "can't be known without sending: send a test mail"}
	a := &attempt{sender: k.Sender, delivery: &provider.Delivery{}, mailbox: k.from.Address}
	if slices.Contains(k.roles, mailReadWrite) {
		r.url, r.anonymous = a.user("/mailFolders/drafts?$select=id"), false
		s.State, s.Found = provider.StepPassed, "the mailbox "+k.from.Address+" is there, and the app may use it"
	} else {
		token = ""
	}
	k.request(k.base, r.step, s, func(ctx context.Context) error {
		a.ctx = ctx
		got, err := a.once(r, token)
		if err == nil && !r.anonymous && got.status != http.StatusOK {
			return a.refusal(r, got)
		}
		return err
	})
}

// request makes a request to a host, and adds the steps of connecting and, if it came that far, s. in is its name in an attempt. It
// reports whether the check goes on.
func (k *check) request(base, in string, s *provider.Step, do func(context.Context) error) bool {
	trace, began := provider.NewTrace(hostOf(base)), time.Now()
	err := do(trace.Watch(k.ctx))
	s.Took = time.Since(began)
	if err != nil {
		s.State, s.Found, s.Outcome = provider.StepFailed, "", k.outcome(in, err)
	}
	connecting, reached := trace.Requested(s.Outcome)
	k.steps = append(k.steps, connecting...)
	if !reached {
		return false
	}
	for _, c := range connecting {
		s.Took -= c.Took
	}
	k.steps = append(k.steps, *s)
	return err == nil
}

// hostOf is the host of a URL that was found to be good.
func hostOf(base string) string {
	u, err := url.Parse(base)
	if err != nil {
		return ""
	}
	return u.Host
}

// outcome gives that of an error at a step of an attempt. A check that is interrupted has no later try: its time is over.
func (k *check) outcome(step string, err error) *mail.Outcome {
	var f *fault
	switch {
	case errors.As(err, &f):
		return &f.Outcome
	case errors.Is(k.ctx.Err(), context.DeadlineExceeded):
		return &mail.Outcome{Class: mail.Temporary, Scope: mail.ScopeProvider, Step: step, Reply: "timed out"}
	}
	return &mail.Outcome{Class: mail.Temporary, Scope: mail.ScopeProvider, Step: step, Reply: "interrupted"}
}

// rolesOf reads the application permissions out of an access token, if that is a JSON Web Token (RFC 7519). Nothing is verified: the
// token is ours to present, and whether it is good is for Graph to say.
func rolesOf(token string) (roles []string, readable bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, false
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, false
	}
	var claims struct {
		Roles []string `json:"roles"`
	}
	if json.Unmarshal(text, &claims) != nil {
		return nil, false
	}
	return claims.Roles, true
}
