package main

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
)

// aboutFilters is part of the help of the commands that select failed messages.
const aboutFilters = `Messages are meant that fit every filter given; of several classes or ids, one is enough. --recipient finds who still lacks
the mail. --reply finds part of the provider's words, or of a status code such as 5.1.1, at any attempt since the last requeue.
--since and --until say when it failed: a time such as 2030-01-31T08:00:00Z, a date (its beginning, here), or how long ago it
was: 90m, 2h, 3d.`

// failedFilter holds the flags that say which failed messages are meant.
type failedFilter struct {
	kind                             string
	classes                          []string
	mailbox, batch, recipient, reply string
	since, until                     string
}

func (f *failedFilter) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.kind, "kind", "", "what it was for: alert, report or subscription")
	flags.StringSliceVar(&f.classes, "class", nil, "how the last attempt ended: temporary, permanent, unknown, ... (repeatable, or with commas)")
	flags.StringVar(&f.mailbox, "mailbox", "", "the sender's address; the provider's own finds mail that names no sender too, and - only that")
	flags.StringVar(&f.batch, "batch", "", "the batch it belongs to")
	flags.StringVar(&f.recipient, "recipient", "", "who still lacks it: an address, or @ and a domain")
	flags.StringVar(&f.reply, "reply", "", "part of what the provider said, or of its status code; case does not count")
	flags.StringVar(&f.since, "since", "", "it failed at this time or later: a time, a date, or how long ago")
	flags.StringVar(&f.until, "until", "", "it failed before this time: a time, a date, or how long ago")
	completeWith(c, "kind", string(mail.Alert), string(mail.Report), string(mail.Subscription))
	completeWith(c, "class", classNames()...)
}

func classNames() []string {
	var all []string
	for _, class := range mail.Classes() {
		all = append(all, class.String())
	}
	return all
}

const (
	// mostIDs is how many ids a selection can have.
	mostIDs = 10_000
	// idLength is the length of the ids of messages and batches.
	idLength = 26
)

// isID reports whether s can be the id of a message or a batch.
func isID(s string) bool {
	strange := func(r rune) bool { return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') }
	return len(s) == idLength && !strings.ContainsFunc(s, strange)
}

// filter gives what the flags and ids say. Faults are usage errors.
func (f *failedFilter) filter(c *cobra.Command, ids []string) (admin.FailedFilter, error) {
	got := admin.FailedFilter{Kind: mail.Kind(f.kind), Classes: f.classes, Mailbox: f.mailbox, BatchID: f.batch, Reply: f.reply}
	err := noneEmpty(c, "kind", "class", "mailbox", "batch", "recipient", "reply", "since", "until")
	if err != nil {
		return got, err
	}
	if got.IDs, err = idList(c, ids); err != nil {
		return got, err
	}
	if f.batch != "" && !isID(f.batch) {
		return got, usage("--batch: %q is not an id: that has %d letters and digits", f.batch, idLength)
	}
	if f.kind != "" && !got.Kind.Valid() {
		return got, usage("--kind: %q is not one of alert, report and subscription", f.kind)
	}
	for _, class := range f.classes {
		if _, err := mail.ParseClass(class); err != nil {
			return got, usage("--class: %q is not one of %s", class, strings.Join(classNames(), ", "))
		}
	}
	if got.Recipient, err = recipientFilter(f.recipient); err != nil {
		return got, err
	}
	now := time.Now()
	if got.From, err = past("--since", f.since, now); err != nil {
		return got, err
	}
	if got.Until, err = past("--until", f.until, now); err != nil {
		return got, err
	}
	if !got.From.IsZero() && !got.Until.IsZero() && !got.From.Before(got.Until) {
		return got, usage("--since and --until: nothing is in between")
	}
	return got, nil
}

// noneEmpty refuses flags that are given and empty: a shell script's variable that is not set must not widen what is meant.
func noneEmpty(c *cobra.Command, names ...string) error {
	for _, name := range names {
		flag := c.Flags().Lookup(name)
		if value := flag.Value.String(); flag.Changed && (value == "" || value == "[]") {
			return usage("--%s: it is empty: leave it out if it does not matter", name)
		}
	}
	return nil
}

// idList gives each id once; nil if there are none.
func idList(c *cobra.Command, ids []string) ([]string, error) {
	var list []string
	seen := make(map[string]bool, len(ids))
	for _, id := range ids {
		if !isID(id) {
			return nil, usage("%s: %q is not an id: that has %d letters and digits", c.CommandPath(), id, idLength)
		}
		if !seen[id] {
			seen[id] = true
			list = append(list, id)
		}
	}
	if len(list) > mostIDs {
		return nil, usage("%s: more than %s ids: give them in several steps", c.CommandPath(), thousands(mostIDs))
	}
	return list, nil
}

// recipientFilter reads an address, or @ and a domain, into the form in which recipients are kept.
func recipientFilter(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	domain := strings.HasPrefix(s, "@")
	if domain {
		s = "x" + s
	}
	a, err := mail.ParseAddress(s)
	if err != nil {
		return "", usage("--recipient: it is neither an address such as ada@example.com nor @ and a domain")
	}
	if domain {
		return "@" + a.Domain(), nil
	}
	return a.Address, nil
}

// past reads a time that is given as such, as a date or by how long ago it was.
func past(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, ok := ago(s); ok {
		return now.Add(-d).UTC().Truncate(time.Second), nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	t, err := time.ParseInLocation(time.DateOnly, s, time.Local)
	if err != nil {
		return t, usage("%s: %q is neither a time such as 2030-01-31T08:00:00Z, nor a date such as 2030-01-31, nor how long ago it was, such as 90m, 2h or 3d", flag, s)
	}
	return t, nil
}

// longestAgo bounds a number of days.
const longestAgo = 36_500

// ago reads how long ago something was: a duration of Go, or a number of days.
func ago(s string) (time.Duration, bool) {
	if number, ok := strings.CutSuffix(s, "d"); ok {
		days, err := strconv.ParseFloat(number, 64)
		if err != nil || !(days >= 0 && days <= longestAgo) { // not a number is in no range
			return 0, false
		}
		return time.Duration(days * 24 * float64(time.Hour)), true
	}
	d, err := time.ParseDuration(s)
	return d, err == nil && d >= 0
}

// filterWords say what a filter demands; "" if it demands nothing.
func filterWords(f admin.FailedFilter) string {
	var w demands
	w.say("kind", string(f.Kind))
	w.say("class", strings.Join(f.Classes, " or "))
	w.say("mailbox", f.Mailbox)
	w.say("batch", f.BatchID)
	w.say("recipient", f.Recipient)
	if f.Reply != "" {
		w.say("reply", strconv.Quote(f.Reply))
	}
	w.say("since", instantText(f.From))
	w.say("before", instantText(f.Until))
	if len(f.IDs) > 0 {
		w.say("ids:", thousands(len(f.IDs)))
	}
	return w.String()
}

// demands are what a filter demands, in words.
type demands []string

func (d *demands) say(name, value string) {
	if value != "" {
		*d = append(*d, name+" "+value)
	}
}

func (d demands) String() string { return strings.Join(d, ", ") }

// selection holds the flags of the commands that do something to failed messages.
type selection struct {
	connection
	failedFilter
	all bool
}

func (s *selection) register(c *cobra.Command) {
	s.connection.register(c)
	s.failedFilter.register(c)
	c.Flags().BoolVar(&s.all, "all", false, "all failed messages")
}

// choose gives what is selected. To select nothing at all, or everything and something, is a usage error.
func (s *selection) choose(c *cobra.Command, ids []string) (admin.Selection, error) {
	filter, err := s.filter(c, ids)
	if err != nil {
		return admin.Selection{}, err
	}
	some := filterWords(filter) != ""
	switch {
	case s.all && some:
		return admin.Selection{}, usage("--all means every failed message: leave it out, or the filters and ids")
	case !s.all && !some:
		return admin.Selection{}, usage("%s: which messages? Give ids, filters such as --class permanent, or --all (see %s --help)", c.CommandPath(), c.CommandPath())
	}
	return admin.Selection{Filter: filter, All: s.all}, nil
}

// again says how to go on with a selection after a run was cut short. What counted from now would move, so it is given as the
// time that it meant. Bound, unless it is zero, is what the run itself put as the end.
func (s *selection) again(sel *admin.Selection, bound time.Time) string {
	var flags []string
	if _, moves := ago(s.since); moves {
		flags = append(flags, "--since "+sel.Filter.From.UTC().Format(time.RFC3339Nano))
	}
	if _, moves := ago(s.until); moves || !bound.IsZero() {
		flags = append(flags, "--until "+sel.Filter.Until.UTC().Format(time.RFC3339Nano))
	}
	return goOn(flags, s.all)
}

// goOn says how to repeat a command that was cut short: with flags, which stand for --all if that was given.
func goOn(flags []string, all bool) string {
	text := "To go on, repeat the command"
	if len(flags) == 0 {
		return text + "."
	}
	text += " with " + strings.Join(flags, " ")
	if all {
		text += " instead of --all"
	}
	return text
}

// onlyIDs reports whether a filter names messages and nothing else.
func onlyIDs(f admin.FailedFilter) bool {
	named := len(f.IDs) > 0
	f.IDs = nil
	return named && filterWords(f) == ""
}

// meant names a selection.
func meant(f admin.FailedFilter) string { return cmp.Or(plain(filterWords(f)), "all") }
