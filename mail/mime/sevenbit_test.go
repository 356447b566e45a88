package mime

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// simply says what isSevenBit does, a byte at a time.
func simply(text string) bool {
	column := 0
	for i := range len(text) {
		c := text[i]
		if c == '\n' || c == '\r' {
			if column > 0 && isBlank(text[i-1]) {
				return false
			}
			column = 0
			continue
		}
		if column++; column > maxLine || c < ' ' && c != '\t' || c > '~' {
			return false
		}
	}
	return (column == 0 || !isBlank(text[len(text)-1])) && !strings.Contains(text, boundaryPrefix)
}

func TestSevenBitTextIsFoundOut(t *testing.T) {
	odd := []string{"\n", "\r", "\r\n", " ", "\t", "\x00", "\x1f", "\x7f", "\x80", "\x9f", "\xff", "é", "=", "_", "~", strings.Repeat("x", maxLine-3)}
	found := map[bool]int{}
	for range 100_000 {
		var b strings.Builder
		for range rand.IntN(5) {
			b.WriteString(strings.Repeat("a", rand.IntN(20)))
			if rand.IntN(2) == 0 {
				b.WriteString(odd[rand.IntN(len(odd))])
			}
		}
		want := simply(b.String())
		found[want]++
		if got := isSevenBit(b.String()); got != want {
			t.Fatalf("%q: %v", b.String(), got)
		}
	}
	if min(found[true], found[false]) < 1000 {
		t.Errorf("%v: this proves nothing", found)
	}
}
