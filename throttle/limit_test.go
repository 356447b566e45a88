package throttle

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestEncode(t *testing.T) {
	tests := map[string]struct {
		limits []Limit
		want   string
	}{
		"none": {nil, ""},
		"in the order of names": {[]Limit{{Recipients, 10000, 24 * time.Hour}, {Messages, 30, time.Minute}},
			"messages 30 60000;recipients 10000 86400000"},
		"parts of a ms": {[]Limit{{UploadBytes, 1, time.Microsecond}, {Requests, 1, time.Millisecond + 1}},
			"requests 1 2;upload_bytes 1 1"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Encode(test.limits); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"an unknown name":    {"mails 30 60000", "unknown name"},
		"no maximum":         {"messages 60000", "want name, maximum and ms"},
		"a maximum of 0":     {"messages 0 60000", "maximum"},
		"a huge maximum":     {"messages 1000000000000001 60000", "maximum"},
		"a window of 0":      {"messages 1 0", "window"},
		"a window for ever":  {"messages 1 9223372036855", "window"},
		"a number in words":  {"messages one 60000", "maximum"},
		"the same one twice": {"messages 1 1;messages 2 2", "a second one"},
		"an empty one":       {"messages 1 1;", "want name"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := Decode(test.text); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"", "messages 30 60000", "recipients 10000 86400000;messages 30 60000", "messages 1 9223372036854", "upload_bytes +1 01", ";", "messages 1 1;messages 1 1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		limits, err := Decode(s)
		if err != nil {
			return
		}
		for _, l := range limits {
			if l.Max < 1 || l.Window < time.Millisecond || l.cell() < 1 {
				t.Fatalf("%q became %v", s, l)
			}
		}
		again, err := Decode(Encode(limits))
		if err != nil || !slices.Equal(again, limits) {
			t.Fatalf("%q: %v, then %v, %v", s, limits, again, err)
		}
	})
}

func TestCost(t *testing.T) {
	c := Cost{Messages: 1, Requests: 2, Recipients: 3, UploadBytes: 4}
	if got := c.Encode(); got != "1 2 3 4" {
		t.Errorf("encoded as %q", got)
	}
	for i, name := range append(Names(), "other") {
		if got, want := c.Of(name), int64(i+1)%5; got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
}

func TestExceeded(t *testing.T) {
	limits := []Limit{{Recipients, 100, time.Hour}, {Messages, 1, time.Hour}}
	tests := map[string]struct {
		cost Cost
		want Name
	}{
		"it fits":        {Cost{Messages: 1, Recipients: 100, UploadBytes: 1 << 40}, ""},
		"one too many":   {Cost{Messages: 1, Recipients: 101}, Recipients},
		"two of them":    {Cost{Messages: 2, Recipients: 101}, Messages},
		"nothing at all": {Cost{}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, exceeded := Exceeded(limits, test.cost)
			if got.Name != test.want || exceeded != (test.want != "") {
				t.Errorf("got %v, %v", got, exceeded)
			}
		})
	}
}
