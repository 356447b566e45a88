package admin

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// strays finds what huma passes over: a parameter without a value, as that of a script whose variable is not set, and one
// that is there twice, unless it is one of many. The list would be another than was meant.
func (o *original) strays(many ...string) []Fault {
	var all []Fault
	query := o.request.URL.Query()
	for _, name := range slices.Sorted(maps.Keys(query)) {
		switch values := query[name]; {
		case slices.Contains(values, ""):
			all = append(all, Fault{"/" + name, "is empty: leave it out"})
		case len(values) > 1 && !slices.Contains(many, name):
			all = append(all, Fault{"/" + name, "is there twice: remove one"})
		}
	}
	return all
}

// faults are what is wrong with a filter, by JSON pointers into it.
type faults []Fault

func (f *faults) add(field, reason string) {
	if len(*f) < mostFaults {
		*f = append(*f, Fault{field, reason})
	}
}

// empty: a program that has come to an empty list means none, and not all.
const empty = "has nothing in it: name what is meant, or leave it out"

const notAnID = "is not an id: that has 26 letters and digits"

func (f *faults) kind(k mail.Kind) {
	if k != "" && !k.Valid() {
		f.add("/kind", "is none of alert, report, subscription")
	}
}

// mailbox gives a sender as the queue takes it.
func (f *faults) mailbox(s string) string {
	if s == "" {
		return ""
	}
	a, err := mail.ParseAddress(s)
	if err != nil && s != "-" {
		f.add("/mailbox", "is not a sender's address, such as reports@example.com: messages are not found by the account they went through")
	}
	return cmp.Or(a.Address, s)
}

func (f *faults) batch(id string) {
	if id != "" && len(id) != idLength {
		f.add("/batch_id", notAnID)
	}
}

// recipient gives an address, or "@" and a domain, as addresses are kept.
func (f *faults) recipient(s string) string {
	if s == "" {
		return ""
	}
	parsed, err := parseRecipient(s)
	if err != nil {
		f.add("/recipient", "is neither an address nor @ and a domain")
	}
	return parsed
}

func (f *faults) ids(ids []string) {
	if ids != nil && len(ids) == 0 {
		f.add("/ids", empty)
	}
	for i, id := range ids {
		if len(id) != idLength {
			f.add("/ids/"+strconv.Itoa(i), notAnID)
		}
	}
}

// parseRecipient reads an address, or "@" and a domain, and gives it as addresses are kept.
func parseRecipient(s string) (string, error) {
	domain, isDomain := strings.CutPrefix(strings.TrimSpace(s), "@")
	if !isDomain {
		a, err := mail.ParseAddress(s)
		return a.Address, err
	}
	a, err := mail.ParseAddress("x@" + domain)
	return "@" + a.Domain(), err
}

// inBody and inQuery say where the field of a filter, or the cursor, stands in a request.
func inBody(field string) string {
	if field == "/cursor" {
		return field
	}
	return "/filter" + field
}

func inQuery(field string) string {
	name := strings.Split(field, "/")[1]
	switch name {
	case "classes":
		name = "class"
	case "ids":
		name = "id"
	case "states":
		name = "state"
	}
	return "query." + name
}

// badFilter answers a filter with faults; begin is the beginning of its detail.
func badFilter(begin string, faults []Fault, where func(field string) string) *Problem {
	p := invalidRequest.problem(begin + "Correct what errors names.")
	for _, f := range faults {
		p.Errors = append(p.Errors, Fault{where(f.Location), f.Reason})
	}
	return p
}

// rejected gives the answer to what the queue finds wrong with a filter or a cursor; nil if err is about something else.
func rejected(err error, begin string, where func(field string) string) *Problem {
	var invalid *mail.Invalid
	switch {
	case errors.As(err, &invalid):
		var faults []Fault
		for _, p := range invalid.Problems {
			faults = append(faults, Fault{p.Field, p.Reason})
		}
		return badFilter(begin, faults, where)
	case errors.Is(err, queue.ErrCursor):
		return badFilter(begin, []Fault{{"/cursor", "is not what an answer gave as next"}}, where)
	case errors.Is(err, queue.ErrCursorOver):
		return badFilter(begin, []Fault{{"/cursor", "is of a Redis that was started again since, or whose place another took: begin anew, without it"}}, where)
	}
	return nil
}

// refusedFilter is refused for requests with a filter.
func (h *handler) refusedFilter(ctx context.Context, err error, begin string, where func(field string) string) error {
	if p := rejected(err, begin, where); p != nil {
		return p
	}
	return h.refused(ctx, err)
}
