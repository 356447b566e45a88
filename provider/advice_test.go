package provider

import (
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
)

// steps are those of an SMTP attempt, of what Postroom runs into itself, none, and one that nobody knows.
var steps = []string{"dial", "tls", "greeting", "ehlo", "auth", "mail", "rcpt", "data", "body", "render", "open", "limit", "panic", "fault", "stopped", "", "other"}

var scopes = []mail.Scope{mail.ScopeMessage, mail.ScopeRecipient, mail.ScopeMailbox, mail.ScopeProvider}

// allCauses reads the causes where they are declared: a list of them beside could miss one.
func allCauses(t *testing.T) []mail.Cause {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../mail/cause.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var all []mail.Cause
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == 1 {
			name, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, mail.Cause(name))
		}
		return true
	})
	if len(all) < 25 {
		t.Fatalf("found %d causes", len(all))
	}
	return all
}

func TestEveryCauseHasAMeaning(t *testing.T) {
	all := allCauses(t)
	for _, c := range all {
		if _, ok := causes[c]; !ok {
			t.Errorf("%s has none", c)
		}
	}
	if len(causes) != len(all) {
		t.Errorf("%d causes have a meaning, and there are %d", len(causes), len(all))
	}
}

// outcomes gives every cause, every combination of what Advise looks at without one, and an example of each sign.
func outcomes(t *testing.T) []mail.Outcome {
	var all []mail.Outcome
	for _, class := range append(mail.Classes(), mail.Class(99)) {
		for _, scope := range scopes {
			for _, cause := range append(allCauses(t), "of_a_newer_program") {
				all = append(all, mail.Outcome{Cause: cause, Class: class, Scope: scope, Step: "rcpt", Code: 452})
			}
			for _, step := range steps {
				for _, code := range []int{0, 421, 452, 550, 599} {
					all = append(all, mail.Outcome{Class: class, Scope: scope, Step: step, Code: code})
				}
			}
		}
	}
	for i := range signs {
		all = append(all, examples(&signs[i])...)
	}
	return all
}

func TestAdviceIsInSentences(t *testing.T) {
	read := map[string]bool{"": true} // a remedy may be empty
	for _, o := range outcomes(t) {
		a := Advise(o)
		if a.Happened == "" || a.Postroom == "" {
			t.Fatalf("%+v: %+v", o, a)
		}
		for _, text := range []string{a.Happened, a.Postroom, a.Remedy} {
			if read[text] {
				continue
			}
			read[text] = true
			if fault := badText(text); fault != "" {
				t.Errorf("%+v: %q %s", o, text, fault)
			}
		}
	}
}

// runTogether finds sentences with no space, or no full stop, between them.
var runTogether = regexp.MustCompile(`[a-z0-9]\.[A-Z]|[,;:][a-zA-Z]|[a-z` + "`" + `] (Then|If|Or|One|With) `)

// badText says what is wrong with sentences; "" if nothing is.
func badText(text string) string {
	switch {
	case !strings.HasSuffix(text, "."):
		return "does not end with a full stop"
	case text[0] < 'A' || text[0] > 'Z':
		return "does not begin with a capital"
	case strings.TrimSpace(text) != text || strings.Contains(text, "  ") || strings.Contains(text, ".."):
		return "has a slip between its words"
	case runTogether.MatchString(text):
		return "runs sentences together"
	case strings.Count(text, "`")%2 != 0:
		return "opens a command and does not close it"
	case len(text) > 600:
		return "is too long to be read"
	case strings.ContainsAny(text, "@\n\t%"):
		return "has what is no word"
	}
	return ""
}

// Who has to act is told how; who has not is not sent to the wrong place.
func TestRemediesSuitTheClass(t *testing.T) {
	for _, step := range steps {
		for _, class := range []mail.Class{mail.Configuration, mail.Permanent} {
			if o := (mail.Outcome{Class: class, Step: step}); Advise(o).Remedy == "" {
				t.Errorf("%+v: nothing to do", o)
			}
		}
	}
	for i := range signs {
		s := &signs[i]
		if strings.Contains(s.remedy, "`postroom failed") && s.class != mail.Permanent && s.class != mail.Unknown {
			t.Errorf("%s %s %v: it is not in the failed store: %q", s.class, s.step, s.status, s.remedy)
		}
		if strings.Contains(s.remedy, "`postroom mailbox") && s.class != mail.Configuration {
			t.Errorf("%s %s %v: the mailbox is not held until somebody acts: %q", s.class, s.step, s.status, s.remedy)
		}
	}
}

func TestNoTwoMeaningsContradict(t *testing.T) {
	said := map[string]mail.Cause{}
	for c, m := range causes {
		if other, ok := said[m.happened]; ok {
			t.Errorf("%s and %s say the same", c, other)
		}
		said[m.happened] = c
	}
	remedies := map[mail.Class]map[string]string{}
	for _, class := range mail.Classes() {
		remedies[class] = map[string]string{}
	}
	for i := range signs {
		s := &signs[i]
		if other, ok := remedies[s.class][s.happened]; ok && other != s.remedy {
			t.Errorf("%q: %q and %q", s.happened, s.remedy, other)
		}
		if c, ok := said[s.happened]; ok && causes[c] != s.meaning {
			t.Errorf("%q: not the remedy of %s", s.happened, c)
		}
		remedies[s.class][s.happened] = s.remedy
	}
}

// examples gives an outcome for each way to fit a sign.
func examples(s *sign) []mail.Outcome {
	o := mail.Outcome{Class: s.class, Step: s.step, Code: s.code}
	if o.Step == "" {
		o.Step = "other"
	}
	if o.Code == 0 && !s.silent {
		o.Code = 599
	}
	if s.status == nil {
		return []mail.Outcome{o}
	}
	var all []mail.Outcome
	for _, status := range s.status {
		o.Enhanced = "5." + strings.Replace(status, "*", "999", 1)
		all = append(all, o)
	}
	return all
}

// A sign that an earlier one hides would never be seen.
func TestEverySignIsReached(t *testing.T) {
	for i := range signs {
		for _, o := range examples(&signs[i]) {
			for j := range signs[:i] {
				if signs[j].fits(o) {
					t.Errorf("%+v is hidden by %q", o, signs[j].happened)
				}
			}
			if !signs[i].fits(o) {
				t.Errorf("%+v does not fit its own sign", o)
			}
		}
	}
}

func TestAdviceDependsOnNoWords(t *testing.T) {
	o := mail.Outcome{Class: mail.Permanent, Step: "rcpt", Code: 550, Enhanced: "5.1.1"}
	worded := o
	worded.Reply, worded.RetryAfter = "mailbox full, ada@example.org", time.Hour
	if Advise(o) != Advise(worded) {
		t.Errorf("%+v and %+v", Advise(o), Advise(worded))
	}
}

// What is kept of a hold has no words of the provider's; attempts have them, and are told alike.
func TestAdviceBySettingsIsThatOfBlame(t *testing.T) {
	s := &Settings{Kind: KindSMTP, SMTP: SMTPSettings{Host: "mail.example.com", Auth: SMTPAuth{Method: AuthBasic}}}
	none := &Settings{Kind: KindSMTP, SMTP: SMTPSettings{Host: "mail.example.com", Security: SecurityNone}}
	own := 0
	for _, o := range outcomes(t) {
		for _, s := range []*Settings{s, none, nil} {
			got, plain := s.Advise(o), Advise(o)
			worded := o
			worded.Reply = "530 Must issue a STARTTLS command first"
			if got != s.Advise(worded) {
				t.Errorf("%+v: %+v, with words %+v", o, got, s.Advise(worded))
			}
			if s == nil {
				if got != plain {
					t.Errorf("%+v: without settings %+v", o, got)
				}
				continue
			}
			b := s.Blame(o)
			if got.Field != b.Field || got.Happened != plain.Happened || got.Postroom != plain.Postroom || !strings.HasPrefix(got.Remedy, b.Remedy) {
				t.Errorf("%+v: %+v, and the settings' blame is %+v", o, got, b)
			}
			if b.Remedy == plain.Remedy {
				if got.Remedy != plain.Remedy {
					t.Errorf("%+v: %q", o, got.Remedy)
				}
				continue
			}
			own++
			if o.Class == mail.Configuration && !strings.Contains(got.Remedy, "`postroom mailbox resume") || o.Class == mail.Permanent && !strings.Contains(got.Remedy, "`postroom failed requeue") {
				t.Errorf("%+v: it does not say how to go on: %q", o, got.Remedy)
			}
			if fault := badText(strings.TrimSuffix(got.Remedy, afterwards(o.Class))); fault != "" {
				t.Errorf("%+v: %q %s", o, got.Remedy, fault)
			}
		}
	}
	if own == 0 {
		t.Error("no settings were to blame")
	}
}

func TestAdvice(t *testing.T) {
	for name, v := range map[string]struct {
		outcome                    mail.Outcome
		happened, postroom, remedy string // parts; remedy "-": none
	}{
		"delivered": {mail.Outcome{Step: "body", Class: mail.Delivered, Code: 250}, "bounce may still follow", "Nothing more", "-"},
		"the cause comes first": {mail.Outcome{Class: mail.Configuration, Scope: mail.ScopeMailbox, Cause: mail.MailboxFull, Step: "body", Code: 554, Enhanced: "5.2.2"},
			"sending mailbox is full", "Mail of this sender waits", "Sent Items"},
		"no connection": {mail.Outcome{Class: mail.Temporary, Scope: mail.ScopeProvider, Step: "dial"},
			"could not connect", "up to 1 minute", "provider.smtp.host"},
		"the connection was lost in the message": {mail.Outcome{Class: mail.Temporary, Step: "body"}, "lost before the message", "retry.give_up", "firewall"},
		"greylisting":                            {mail.Outcome{Class: mail.Temporary, Scope: mail.ScopeRecipient, Step: "rcpt", Code: 451, Enhanced: "4.7.1"}, "greylisting", "tried again", "-"},
		"a full mailbox, for now":                {mail.Outcome{Class: mail.Temporary, Scope: mail.ScopeRecipient, Step: "rcpt", Code: 452, Enhanced: "4.2.2"}, "recipient's mailbox is full", "delays of retry.delays", "make room"},
		"too many recipients":                    {mail.Outcome{Class: mail.Temporary, Scope: mail.ScopeRecipient, Step: "rcpt", Code: 452, Cause: mail.TooManyRecipients}, "no more recipients", "again at once", "-"},
		"452 alone":                              {mail.Outcome{Class: mail.Temporary, Scope: mail.ScopeRecipient, Step: "rcpt", Code: 452}, "no more recipients at once, or", "again at once", "-"},
		"throttled":                              {mail.Outcome{Class: mail.Throttled, Scope: mail.ScopeMailbox, Step: "mail"}, "slow down", "All mail of the mailbox waits", "provider.limits"},
		"throttled, all":                         {mail.Outcome{Class: mail.Throttled, Scope: mail.ScopeProvider, Cause: mail.TenantQuota}, "organisation", "All mail waits", "tenant_limits"},
		"a recipient refused":                    {mail.Outcome{Class: mail.Permanent, Scope: mail.ScopeRecipient, Step: "rcpt", Code: 550, Enhanced: "5.1.1"}, "does not exist", "the others get it", "Correct or remove"},
		"a message refused":                      {mail.Outcome{Class: mail.Permanent, Step: "body", Code: 554}, "its own rules", "failed store", "postroom failed requeue"},
		"a status that begins alike":             {mail.Outcome{Class: mail.Permanent, Step: "rcpt", Code: 550, Enhanced: "5.1.10"}, "its domain takes no mail", "", ""},
		"unknown":                                {mail.Outcome{Class: mail.Unknown, Step: "body"}, "may have been accepted", "delays of retry.delays, with the same Message-ID", "arrived"},
		"the worker died after the fence":        {mail.Outcome{Class: mail.Unknown, Cause: mail.WorkerGone}, "ended in the middle", "at once, with the same Message-ID", "memory"},
		"the worker died before the fence":       {mail.Outcome{Class: mail.Temporary, Cause: mail.WorkerGone}, "ended in the middle", "Nothing had been handed over", "memory"},
		"stopped":                                {mail.Outcome{Class: mail.Temporary, Cause: mail.Stopped}, "had to stop", "does not count", "-"},
	} {
		t.Run(name, func(t *testing.T) {
			a := Advise(v.outcome)
			if !strings.Contains(a.Happened, v.happened) || !strings.Contains(a.Postroom, v.postroom) ||
				!strings.Contains(a.Remedy, v.remedy) && (v.remedy != "-" || a.Remedy != "") {
				t.Errorf("%+v", a)
			}
		})
	}
}

// What a remedy says to set must be there to be set.
func TestRemediesNameSettingsThatExist(t *testing.T) {
	named := regexp.MustCompile(`\bprovider(\.[a-z0-9_]+)+`)
	found := map[string]bool{}
	for _, o := range outcomes(t) {
		a := Advise(o)
		for _, text := range []string{a.Happened, a.Postroom, a.Remedy} {
			if found[text] {
				continue
			}
			found[text] = true
			for _, path := range named.FindAllString(text, -1) {
				if found[path] = true; !settable(reflect.TypeFor[Settings](), strings.Split(path, ".")[1:]) {
					t.Errorf("%q: there is no %s", text, path)
				}
			}
		}
	}
	if !found["provider.smtp.host"] {
		t.Error("no remedy names a setting")
	}
}

// settable reports whether path leads through the yaml tags of t.
func settable(t reflect.Type, path []string) bool {
	if len(path) == 0 {
		return true
	}
	if t.Kind() != reflect.Struct {
		return false
	}
	return slices.ContainsFunc(reflect.VisibleFields(t), func(f reflect.StructField) bool {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		return name == path[0] && settable(f.Type, path[1:])
	})
}
