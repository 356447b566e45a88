package throttle

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Name says what a limit counts.
type Name string

// The names, closed: a name is a metric label and part of the names of Redis keys.
const (
	// Messages counts mails.
	Messages Name = "messages"
	// Requests counts calls to the provider; one mail may take several.
	Requests Name = "requests"
	// Recipients counts the envelope's recipients.
	Recipients Name = "recipients"
	// UploadBytes counts what is sent to the provider, in bytes.
	UploadBytes Name = "upload_bytes"
)

// Names lists every name in the canonical order: that of encoded limits and costs.
func Names() []Name { return []Name{Messages, Requests, Recipients, UploadBytes} }

// Limit allows at most Max of what Name counts in any interval of length Window.
type Limit struct {
	Name Name
	// Max is at least 1 and at most 1e15: the books are kept by Lua, whose numbers are exact so far.
	Max int64
	// Window counts in whole milliseconds, at least one; a part of one counts as a whole.
	Window time.Duration
}

// most is the largest Max, and the longest Window in ms would overflow a time.Duration beyond longest.
const (
	most    = 1_000_000_000_000_000
	longest = int64(1<<63-1) / int64(time.Millisecond)
)

// millis is the window's length.
func (l Limit) millis() int64 {
	return int64((l.Window-1)/time.Millisecond) + 1
}

// cells is the number of parts that a window is cut into, so that no more than buckets are ever needed: one more for what
// the cut leaves over, and one for the millisecond on the safe side.
const (
	cells   = buckets - 2
	buckets = 256
)

// cell is the length of the grid's cells in ms: what is stamped in one cell shares a bucket.
func (l Limit) cell() int64 { return (l.millis() + cells - 1) / cells }

// Encode writes limits as the scripts read them, such as "messages 30 60000;recipients 10000 86400000": name, Max and ms,
// in the order of Names. It gives "" for none. The limits have to be valid, and each name may stand there once.
func Encode(limits []Limit) string {
	parts := make([]string, 0, len(limits))
	for _, l := range canonical(limits) {
		parts = append(parts, fmt.Sprintf("%s %d %d", l.Name, l.Max, l.millis()))
	}
	return strings.Join(parts, ";")
}

// Decode reads what Encode wrote, in any order.
func Decode(s string) ([]Limit, error) {
	if s == "" {
		return nil, nil
	}
	var limits []Limit
	for part := range strings.SplitSeq(s, ";") {
		l, err := decode(part)
		if err != nil {
			return nil, fmt.Errorf("throttle: limit %q: %w", part, err)
		}
		if slices.ContainsFunc(limits, func(other Limit) bool { return other.Name == l.Name }) {
			return nil, fmt.Errorf("throttle: limit %q: a second one of this name", part)
		}
		limits = append(limits, l)
	}
	return canonical(limits), nil
}

func decode(s string) (Limit, error) {
	fields := strings.Split(s, " ")
	if len(fields) != 3 {
		return Limit{}, errors.New("want name, maximum and ms")
	}
	name := Name(fields[0])
	if !slices.Contains(Names(), name) {
		return Limit{}, errors.New("unknown name")
	}
	maximum, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil || maximum < 1 || maximum > most {
		return Limit{}, fmt.Errorf("maximum: want 1 to %d", int64(most))
	}
	window, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil || window < 1 || window > longest {
		return Limit{}, fmt.Errorf("window: want 1 to %d ms", longest)
	}
	return Limit{Name: name, Max: maximum, Window: time.Duration(window) * time.Millisecond}, nil
}

// canonical sorts a copy of limits by the order of Names.
func canonical(limits []Limit) []Limit {
	names := Names()
	return slices.SortedStableFunc(slices.Values(limits), func(a, b Limit) int {
		return slices.Index(names, a.Name) - slices.Index(names, b.Name)
	})
}

// Cost is what one message uses up of each limit, none of it negative.
type Cost struct {
	Messages, Requests, Recipients, UploadBytes int64
}

// Of gives the cost under one name; 0 for a name that is not one of Names.
func (c Cost) Of(name Name) int64 {
	switch name {
	case Messages:
		return c.Messages
	case Requests:
		return c.Requests
	case Recipients:
		return c.Recipients
	case UploadBytes:
		return c.UploadBytes
	}
	return 0
}

// Encode writes the cost as the scripts read it: four numbers in the order of Names, such as "1 1 3 0".
func (c Cost) Encode() string {
	return fmt.Sprintf("%d %d %d %d", c.Messages, c.Requests, c.Recipients, c.UploadBytes)
}

// Exceeded gives the first limit whose Max a message of this cost exceeds by itself, so that it can never go; false if
// there is none.
func Exceeded(limits []Limit, c Cost) (Limit, bool) {
	for _, l := range canonical(limits) {
		if c.Of(l.Name) > l.Max {
			return l, true
		}
	}
	return Limit{}, false
}
