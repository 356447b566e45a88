package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/postroom/postroom/admin"
	"github.com/postroom/postroom/mail"
)

// request is one batch as a server saw it.
type request struct {
	key   string
	batch mail.Batch
}

// recording keeps what is posted as batches on its way to next.
func recording(t *testing.T, into *[]request) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				body, err := io.ReadAll(r.Body)
				one := request{key: r.Header.Get("Idempotency-Key")}
				if err == nil {
					err = json.Unmarshal(body, &one.batch)
				}
				if err != nil {
					t.Error(err)
				}
				*into = append(*into, one)
				r.Body = io.NopCloser(strings.NewReader(string(body)))
			}
			next.ServeHTTP(w, r)
		})
	}
}

// people gives a list of n recipients.
func people(n int) string {
	var b strings.Builder
	b.WriteString("address,name\n")
	for i := range n {
		fmt.Fprintf(&b, "p%d@x.example,Person %d\n", i, i)
	}
	return b.String()
}

func sendList(t *testing.T, csv string, args ...string) ran {
	t.Helper()
	return postroom(t, "", append([]string{"send", "--kind", "subscription", "--subject", "For {{.name}}", "--text", "Hello {{.name}}",
		"--recipients", file(t, "list.csv", csv)}, args...)...)
}

func lines(t *testing.T, stdout string) []listLine {
	t.Helper()
	var all []listLine
	for line := range strings.Lines(stdout) {
		var one listLine
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, one)
	}
	return all
}

func TestListGoesOutInParts(t *testing.T) {
	var got []request
	q := startAPI(t, recording(t, &got))
	r := sendList(t, people(7), "--batch-size", "3", "--idempotency-key", "news")
	r.want(t, 0, "BATCH", "7 of 7 recipients accepted.")
	if n := strings.Count(r.stdout, "\n"); n != 4 {
		t.Errorf("stdout has %d lines, want a header and 3 batches:\n%s", n, r.stdout)
	}
	var sizes []int
	for i, one := range got {
		sizes = append(sizes, len(one.batch.Recipients))
		if want := fmt.Sprint("news/", i+1); one.key != want {
			t.Errorf("key %q, want %q", one.key, want)
		}
	}
	if want := []int{3, 3, 1}; !slices.Equal(sizes, want) {
		t.Errorf("parts of %v, want %v", sizes, want)
	}
	if last := got[2].batch.Recipients[0]; last.To[0].Address != "p6@x.example" || last.Variables["name"] != "Person 6" {
		t.Errorf("the last recipient is %+v", last)
	}
	again := sendList(t, people(7), "--batch-size", "3", "--idempotency-key", "news")
	if again.stdout != r.stdout {
		t.Errorf("repeated: got\n%s\nwant\n%s", again.stdout, r.stdout)
	}
	counts, err := q.Counts(t.Context())
	if err != nil || counts.Open[mail.Subscription] != 7 {
		t.Errorf("%d messages wait, want 7 (%v)", counts.Open[mail.Subscription], err)
	}
	if got[3].key != "news/1" {
		t.Errorf("repeated with the key %q", got[3].key)
	}
}

func TestPartsOfOneRunHaveKeysOfTheirOwn(t *testing.T) {
	var got []request
	startAPI(t, recording(t, &got))
	for range 2 {
		sendList(t, people(2), "--batch-size", "1").want(t, 0)
	}
	keys := make(map[string]bool)
	for _, one := range got {
		keys[one.key] = true
	}
	if len(keys) != 4 || keys[""] {
		t.Errorf("keys %v, want 4", keys)
	}
}

func TestLongVariablesMakeSmallerParts(t *testing.T) {
	var csv strings.Builder
	csv.WriteString("address,name,note\n")
	long := strings.Repeat("x", 60<<10)
	for i := range 300 {
		fmt.Fprintf(&csv, "p%d@x.example,A,%s\n", i, long)
	}
	s := &sending{list: file(t, "list.csv", csv.String()), batchSize: mostInBatch}
	var firsts []int
	total, err := s.readList(t.Context(), 0, func(p *part) error {
		firsts = append(firsts, p.first)
		if size := len(p.rows) * len(long); size > partBytes || p.number != len(firsts) {
			t.Errorf("part %d has %d bytes", p.number, size)
		}
		return nil
	})
	if err != nil || total != 300 || !slices.Equal(firsts, []int{0, 272}) {
		t.Errorf("%d recipients in parts from %v, %v", total, firsts, err)
	}
}

const mixed = "address,name\nada@x.example,Ada\n\nnobody,Bob\ncid@x.example,Cid\n"

func TestRefusedRecipientsAreToldByLine(t *testing.T) {
	startAPI(t, nil)
	r := sendList(t, mixed)
	r.want(t, exitRefused, "list.csv line 4: refused: /to/0/address is not an address", "2 of 3 recipients accepted.", "postroom: 1 of 3 recipients were refused")
	if strings.Contains(r.stderr, "nobody") {
		t.Error("stderr has an address")
	}
}

func TestJSONHasALineForEachRecipient(t *testing.T) {
	q := startAPI(t, nil)
	r := sendList(t, mixed+"dan@x.example,Dan\n", "--output", "json", "--batch-size", "2")
	r.want(t, exitRefused)
	got := lines(t, r.stdout)
	if len(got) != 4 {
		t.Fatalf("%d lines:\n%s", len(got), r.stdout)
	}
	for i, address := range []string{"ada@x.example", "nobody", "cid@x.example", "dan@x.example"} {
		one := got[i]
		if one.Index != i || one.Address != address || (one.Problem != nil) != (i == 1) || (one.ID == "") != (i == 1) {
			t.Errorf("line %d is %+v", i, one)
			continue
		}
		if i == 1 {
			if f := one.Problem.Errors; len(f) != 1 || f[0].Location != "/to/0/address" {
				t.Errorf("faults %+v", f)
			}
			continue
		}
		if m, err := q.Message(t.Context(), one.ID); err != nil || m.Recipients[0].Address != address {
			t.Errorf("message %d: %+v, %v", i, m, err)
		}
	}
}

func TestAllRefused(t *testing.T) {
	startAPI(t, nil)
	r := sendList(t, "address,name\nx,A\ny,B\n", "--wait")
	r.want(t, exitRefused, "line 2: refused: /to/0/address is not an address", "line 3: refused", "2 of 2 recipients were refused")
	if r.stdout != "" {
		t.Errorf("a table of no batch: %q", r.stdout)
	}
}

// A part of which nobody is taken does not keep the others back, and its own are told as in any other.
func TestAPartOfWhichEverybodyIsRefused(t *testing.T) {
	q := startAPI(t, nil)
	var csv strings.Builder
	csv.WriteString("address,name\n")
	for i := range 1005 { // the server names 1000 faults
		fmt.Fprintf(&csv, "nobody %d,A\n", i)
	}
	csv.WriteString("ada@x.example,Ada\n")
	r := sendList(t, csv.String(), "--batch-size", "1005")
	r.want(t, exitRefused, "line 1001: refused: /to/0/address", "up to line 1006: 5 more are refused", "1 of 1,006 recipients accepted.", "1,005 of 1,006 recipients were refused")
	if counts, err := q.Counts(t.Context()); err != nil || counts.Open[mail.Subscription] != 1 {
		t.Errorf("%+v, %v", counts, err)
	}
	r = sendList(t, csv.String(), "--batch-size", "1005", "--output", "json")
	got := lines(t, r.stdout)
	if len(got) != 1006 || got[0].Problem.Errors[0].Location != "/to/0/address" || got[1004].Problem == nil || got[1004].ID != "" || got[1005].ID == "" {
		t.Errorf("%d lines, the last %+v", len(got), got[len(got)-1])
	}
}

func TestWhatLacksAColumnIsNotSent(t *testing.T) {
	startFake(t, func(http.ResponseWriter, *http.Request) { t.Error("something was sent") })
	for name, test := range map[string]struct {
		csv, html string
		want      string
	}{
		"no column":             {"address\na@x.example\n", "", "list.csv: no column for what the message uses: {{.name}}:"},
		"several":               {"address,Name\na@x.example,A\n", "{{if .vip}}{{.title}}{{end}}", "{{.name}}, {{.vip}}, {{.title}}:"},
		"columns of an address": {"address,name,display_name,attach\na@x.example,A,B,\n", "{{.address}}{{.display_name}}{{.attach}}", "{{.address}}, {{.display_name}}, {{.attach}}:"},
		"no URI":                {people(1), "{{.list_unsubscribe}}", "{{.list_unsubscribe}}:"},
	} {
		t.Run(name, func(t *testing.T) { sendList(t, test.csv, "--html", test.html+"x").want(t, exitFault, test.want) })
	}
	t.Run("what is there", func(t *testing.T) {
		startAPI(t, nil)
		sendList(t, people(1), "--html", "{{.list_unsubscribe}}", "--list-unsubscribe", "https://x.example/u").want(t, 0, "1 of 1 recipients accepted.")
		sendList(t, "address,name,list_unsubscribe\na@x.example,A,https://x.example/u\n", "--html", "{{.list_unsubscribe}}").want(t, 0, "1 of 1 recipients accepted.")
	})
}

func TestListThatIsMalformedSendsNothing(t *testing.T) {
	startFake(t, func(http.ResponseWriter, *http.Request) { t.Error("something was sent") })
	for name, test := range map[string]struct {
		csv  string
		code int
		want string
	}{
		"at its end":       {people(20) + "a@x.example,b,c\n", exitFault, "list.csv: line 22: has 3 fields, and the header has 2"},
		"no address":       {"mail,name\na@x.example,b\n", exitFault, `no column is named "address"`},
		"header only":      {"address,name\n\n", exitFault, "has no recipient"},
		"nothing":          {"", exitFault, "is empty"},
		"a column twice":   {"address,a,a\n", exitFault, "has the name of column 2"},
		"other separators": {"address|name\na@x.example|A\n", exitFault, "use --separator"},
	} {
		t.Run(name, func(t *testing.T) { sendList(t, test.csv, "--batch-size", "5").want(t, test.code, test.want) })
	}
	postroom(t, "", "send", "--kind", "report", "--text", "x", "--recipients", t.TempDir()).want(t, exitUsage, "must be a file")
	postroom(t, "", "send", "--kind", "report", "--text", "x", "--recipients", "no such file").want(t, exitFault, "--recipients: open")
}

func TestMessageOfAListIsRefusedAsAWhole(t *testing.T) {
	startAPI(t, nil)
	sendList(t, people(2), "--html", "{{.name").want(t, exitFault, "/message/html", "Nothing was accepted")
}

func TestListDryRun(t *testing.T) {
	t.Setenv("POSTROOM_TOKEN", "")
	r := sendList(t, mixed+"eve@x.example,Eve\n", "--dry-run", "--url", "http://127.0.0.1:1")
	r.want(t, exitRefused, "subscription", "For {{.name}}", "line 4: refused: /to/0/address", "3 of 4 recipients would get a message, and nothing was sent.")
	r = sendList(t, mixed, "--dry-run", "--output", "json")
	if got := lines(t, r.stdout); len(got) != 3 || got[0].ID != "" || got[1].Problem == nil || got[2].Problem != nil {
		t.Errorf("lines %+v", got)
	}
	sendList(t, "address\na@x.example\n", "--dry-run").want(t, exitFault, "no column for what the message uses: {{.name}}")
	sendList(t, people(1), "--dry-run", "--html", "{{").want(t, exitFault, "/message/html")
}

// failing answers the n-th batch, from 1, with status, and lets the others pass.
func failing(n, status int, times int) func(http.Handler) http.Handler {
	seen := make(map[string]bool)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seen[r.Header.Get("Idempotency-Key")] = true
			if len(seen) == n && times > 0 {
				times--
				w.WriteHeader(status)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

func TestPartIsHandedInAgain(t *testing.T) {
	q := startAPI(t, failing(2, http.StatusServiceUnavailable, 1))
	sendList(t, people(4), "--batch-size", "2").want(t, 0, "4 of 4 recipients accepted.")
	if counts, err := q.Counts(t.Context()); err != nil || counts.Open[mail.Subscription] != 4 {
		t.Errorf("%+v, %v", counts, err)
	}
}

func TestFailureInTheMiddleTellsHowToGoOn(t *testing.T) {
	q := startAPI(t, failing(2, http.StatusForbidden, 1))
	csv := file(t, "list.csv", people(4))
	args := []string{"send", "--kind", "report", "--text", "x", "--recipients", csv, "--batch-size", "2"}
	r := postroom(t, "", args...)
	r.want(t, exitFault, "2 of 4 recipients were handed in", "Forbidden (403)", "repeat the command with --idempotency-key ")
	_, key, _ := strings.Cut(strings.TrimSpace(r.stderr), "--idempotency-key ")
	postroom(t, "", append(args, "--idempotency-key", key)...).want(t, 0, "4 of 4 recipients accepted.")
	if counts, err := q.Counts(t.Context()); err != nil || counts.Open[mail.Report] != 4 {
		t.Errorf("%+v, %v", counts, err)
	}
}

func TestFirstPartIsTriedOnce(t *testing.T) {
	requests := 0
	startFake(t, func(w http.ResponseWriter, _ *http.Request) {
		requests++
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	sendList(t, people(2), "--batch-size", "1").want(t, exitTryAgain, "Service Unavailable (503)", "--idempotency-key ")
	if requests != 1 {
		t.Errorf("%d requests, want 1", requests)
	}
}

func TestListWaitsForAllBatches(t *testing.T) {
	counts := map[string][]admin.BatchCounts{
		"1": {{Open: 1, Delivered: 1}, {Delivered: 2}},
		"2": {{Open: 1}, {Open: 1}, {Failed: 1}},
	}
	posted := 0
	startFake(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			var b mail.Batch
			_ = json.NewDecoder(r.Body).Decode(&b)
			posted++
			_ = printJSON(w, admin.BatchAccepted{ID: fmt.Sprint(posted), Accepted: len(b.Recipients)})
			return
		}
		id := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		if len(counts[id]) == 0 {
			t.Errorf("batch %s is looked at after its end", id)
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_ = printJSON(w, admin.BatchStatus{ID: id, Counts: counts[id][0]})
		counts[id] = counts[id][1:]
	})
	sendList(t, people(3), "--batch-size", "2", "--wait").want(t, exitUndelivered,
		"2 delivered (a bounce may still follow), 1 failed, 0 cancelled, 0 expired.", "1 of 3 messages were not delivered\nWho lacks it, and why: postroom failed list --batch 2\n")
}

func TestAnswerThatDoesNotAddUp(t *testing.T) {
	startFake(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"id":"1","accepted":1,"refused":1}`))
	})
	sendList(t, people(2)).want(t, exitFault, "refuses 1 recipients and lists 0")
}

func TestProgressIsNotDrawnOffATerminal(t *testing.T) {
	startAPI(t, nil)
	f, err := os.Create(file(t, "stderr", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	p := newProgress(f, 10, "x")
	p.show(5)
	p.clear()
	if info, err := f.Stat(); err != nil || info.Size() != 0 {
		t.Errorf("something was drawn: %v, %v", info.Size(), err)
	}
	if r := sendList(t, people(1)); strings.Contains(r.stderr, "\r") {
		t.Errorf("stderr %q", r.stderr)
	}
}

func TestBar(t *testing.T) {
	for _, test := range []struct {
		done, total, width int
		want               string
	}{
		{0, 2000, 30, "[            ] 0 of 2,000 sent"},
		{1000, 2000, 34, "[======      ] 1,000 of 2,000 sent"},
		{2000, 2000, 34, "[============] 2,000 of 2,000 sent"},
		{5, 10, 8, " 5 of 10"},
		{0, 0, 20, " 0 of 0 sent"},
		{5, 10, -1, ""},
	} {
		if got := bar(test.done, test.total, test.width, "sent"); got != test.want || len(got) > max(test.width, 0) {
			t.Errorf("%+v: got %q", test, got)
		}
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234", -123: "-123"} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) = %q", n, got)
		}
	}
}
