package bench

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/provider"
	"github.com/postroom/postroom/provider/smtp/smtptest"
)

// The rations of trying settings: each administrator's, that of all, and the time that they are for.
const (
	rationOfOne = 10
	rationOfAll = 30
	rationTime  = time.Minute
)

// try is a request that tries settings, or would have.
type try struct {
	administrator int
	sent, over    time.Time
	status        int
	wait          time.Duration // Retry-After
}

func (y *try) let() bool { return y.status != http.StatusTooManyRequests }

// hammer has a request be sent again and again, at once by each of some administrators to each of some processes.
func (c *choice) hammer(administrators []int, at []*postroom, times int, request func(i int) *http.Request) []try {
	var mu sync.Mutex
	var all []try
	var senders sync.WaitGroup
	for _, administrator := range administrators {
		for p := range at {
			senders.Go(func() {
				for i := range times {
					r := request(i)
					r.URL.Host = at[p].url[len("http://"):]
					r.Header.Set("Authorization", "Bearer "+c.tokens[administrator])
					y := try{administrator: administrator, sent: time.Now()}
					response, err := http.DefaultClient.Do(r)
					if err != nil {
						c.t.Error(err)
						return
					}
					body, _ := io.ReadAll(response.Body)
					_ = response.Body.Close()
					y.over, y.status = time.Now(), response.StatusCode
					seconds, err := strconv.Atoi(response.Header.Get("Retry-After"))
					y.wait = time.Duration(seconds) * time.Second
					switch {
					case y.let() && y.status != http.StatusOK:
						c.t.Errorf("a request was answered with %d: %s", y.status, body)
					case !y.let() && (err != nil || y.wait <= 0 || y.wait > rationTime+time.Second):
						c.t.Errorf("Retry-After is %q", response.Header.Get("Retry-After"))
					}
					mu.Lock()
					all = append(all, y)
					mu.Unlock()
				}
			})
		}
	}
	senders.Wait()
	return all
}

// let counts the requests that were let through.
func let(tries []try) (sum int, of map[int]int) {
	of = map[int]int{}
	for _, y := range tries {
		if y.let() {
			sum++
			of[y.administrator]++
		}
	}
	return sum, of
}

// within checks that no more were let through in any time as long as the ration's than it allows: those that were let through
// between the moments when the first was sent and the last was answered.
func within(t testing.TB, tries []try, most int, whose string) {
	t.Helper()
	tries = slices.DeleteFunc(slices.Clone(tries), func(y try) bool { return !y.let() })
	slices.SortFunc(tries, func(a, b try) int { return a.sent.Compare(b.sent) })
	for i := range len(tries) - most {
		last := tries[i].over
		for _, y := range tries[i : i+most+1] {
			last = slices.MaxFunc([]time.Time{last, y.over}, time.Time.Compare)
		}
		if took := last.Sub(tries[i].sent); took < rationTime {
			t.Errorf("%s were let through %d times in %v", whose, most+1, took)
		}
	}
}

// trial is a Postroom of two processes, with four administrators, that sends to a server.
func trial(t testing.TB) (*choice, []*postroom, provider.Settings) {
	server := inbox(t, smtptest.InboxOptions{})
	c := choose(t, 4, nil, "api,worker")
	second := c.serve("--roles", "api")
	return c, []*postroom{c.front, second}, server.Settings(mail.Address{Address: ownSender})
}

// ask makes a request without a host.
func ask(t testing.TB, method, path string, body []byte) *http.Request {
	r, err := http.NewRequestWithContext(t.Context(), method, "http://nobody"+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	return r
}

// TestAnAdministratorsRationCoversEveryWayToTrySettings saves, verifies and sends test mail by turns.
func TestAnAdministratorsRationCoversEveryWayToTrySettings(t *testing.T) {
	t.Parallel()
	c, processes, settings := trial(t)
	revealed, err := settings.Revealed()
	if err != nil {
		t.Fatal(err)
	}
	c.set(0, settings, "saved")
	// One after the other: of two who save at once one has to look again what is active.
	var all []try
	for i := range 12 {
		all = append(all, c.hammer([]int{1}, processes[i%2:i%2+1], 1, func(int) *http.Request {
			switch i % 3 {
			case 0:
				return ask(t, http.MethodPut, "/v1/provider", revealed)
			case 1:
				return ask(t, http.MethodPost, "/v1/provider/test", []byte(`{"to":"ada@example.net"}`))
			}
			return ask(t, http.MethodPost, "/v1/provider/verify", []byte("{}"))
		})...)
	}
	if sum, _ := let(all); sum != rationOfOne {
		t.Errorf("%d requests of %d were let through, want %d", sum, len(all), rationOfOne)
	}
	for i, y := range all {
		if y.let() != (i < rationOfOne) {
			t.Errorf("request %d was answered with %d", i, y.status)
		}
	}
}

// TestTryingSettingsIsRationedOverAllProcesses has four administrators hammer two processes.
func TestTryingSettingsIsRationedOverAllProcesses(t *testing.T) {
	t.Parallel()
	c, processes, settings := trial(t)
	revealed, err := settings.Revealed()
	if err != nil {
		t.Fatal(err)
	}
	body := append(append([]byte(`{"settings":`), revealed...), '}')
	verify := func(int) *http.Request { return ask(t, http.MethodPost, "/v1/provider/verify", body) }

	everybody := []int{0, 1, 2, 3}
	var all []try
	for burst := range size(3, 1) {
		alone := c.hammer([]int{0}, processes, rationOfOne, verify)
		if sum, _ := let(alone); sum != rationOfOne {
			t.Errorf("burst %d: one administrator was let through %d times, want %d", burst, sum, rationOfOne)
		}
		together := c.hammer(everybody, processes, rationOfOne, verify)
		sum, of := let(together)
		if sum != rationOfAll-rationOfOne || of[0] != 0 {
			t.Errorf("burst %d: all were let through %d times more, the first %d times; want %d and 0", burst, sum, of[0], rationOfAll-rationOfOne)
		}
		all = append(append(all, alone...), together...)
		var wait time.Duration
		for _, y := range together {
			wait = max(wait, time.Until(y.over.Add(y.wait)))
		}
		if burst < size(3, 1)-1 {
			pass(t.Context(), wait)
		}
	}
	if *full { // without any regard for what is said, for some of their times
		for begun := time.Now(); time.Since(begun) < 3*rationTime; pass(t.Context(), 50*time.Millisecond) {
			all = append(all, c.hammer(everybody, processes, 1, verify)...)
		}
	}
	within(t, all, rationOfAll, "all")
	for _, administrator := range everybody {
		within(t, slices.DeleteFunc(slices.Clone(all), func(y try) bool { return y.administrator != administrator }), rationOfOne, "one administrator's requests")
	}
	sum, of := let(all)
	lasted := all[len(all)-1].over.Sub(all[0].sent)
	t.Logf("%d of %d requests were let through in %v, by administrator %v", sum, len(all), lasted.Round(time.Second), of)
	// Whoever comes back when he was told to comes a second late at most.
	if least := rationOfAll * (1 + int(lasted/(rationTime+2*time.Second))); sum < least {
		t.Errorf("want %d", least)
	}
}
