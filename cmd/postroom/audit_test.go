package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/admin"
)

// startAudit starts a server with n entries, which gives at most 1000 at once.
func startAudit(t *testing.T, n int) (asked *[]string) {
	t.Helper()
	t.Setenv("TZ", "UTC")
	asked = new([]string)
	startFake(t, func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.Method+" "+r.URL.RequestURI())
		first, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
		limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
		if limit < 1 || limit > 1000 {
			t.Errorf("the limit is %d", limit)
		}
		page := admin.AuditPage{Entries: []admin.AuditEntry{}}
		for i := first; i < min(first+limit, n); i++ {
			page.Entries = append(page.Entries, admin.AuditEntry{At: begun.Add(-time.Duration(i) * time.Second), By: "ops", From: "192.0.2.1",
				Action: "provider.set", Target: "smtp", Detail: fmt.Sprintf("entry\n%d", i)})
		}
		if first+limit <= n {
			page.Next = strconv.Itoa(first + limit)
		}
		_ = printJSON(w, page)
	})
	return asked
}

func TestAuditListsTheNewest(t *testing.T) {
	asked := startAudit(t, 3)
	r := postroom(t, "", "audit")
	r.want(t, 0)
	want := "TIME BY FROM ACTION TARGET DETAIL\n2030-01-02 03:04:05 +00:00 ops 192.0.2.1 provider.set smtp entry 0\n" +
		"2030-01-02 03:04:04 +00:00 ops 192.0.2.1 provider.set smtp entry 1\n2030-01-02 03:04:03 +00:00 ops 192.0.2.1 provider.set smtp entry 2\n"
	if got := squeezed(r.stdout); got != want || r.stderr != "" {
		t.Errorf("got %q, %q", got, r.stderr)
	}
	r = postroom(t, "", "audit", "--limit", "2")
	r.want(t, 0, "These are the newest 2; there can be older ones: --limit 0 lists all.")
	if got := strings.Count(r.stdout, "\n"); got != 3 {
		t.Errorf("%d lines, want 3", got)
	}
	if want := "GET /v1/audit?limit=100 GET /v1/audit?limit=2"; strings.Join(*asked, " ") != want {
		t.Errorf("asked %q, want %q", *asked, want)
	}
	postroom(t, "", "audit", "--limit", "-1").want(t, exitUsage, "--limit")
	startAudit(t, 0)
	postroom(t, "", "audit").want(t, 0, "TIME  BY", "Nobody has changed anything yet.")
}

func TestAuditGoesThroughEveryPage(t *testing.T) {
	for n, pages := range map[int]int{999: 1, 1000: 2, 2500: 3} {
		asked := startAudit(t, n)
		r := postroom(t, "", "audit", "--limit", "0", "--output", "json")
		r.want(t, 0)
		lines := strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n")
		var last admin.AuditEntry
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || len(lines) != n || last.Detail != fmt.Sprintf("entry\n%d", n-1) {
			t.Errorf("%d lines, the last is %+v, %v", len(lines), last, err)
		}
		if len(*asked) != pages || r.stderr != "" {
			t.Errorf("%d requests, want %d; %q", len(*asked), pages, r.stderr)
		}
	}
	startFake(t, func(w http.ResponseWriter, _ *http.Request) {
		_ = printJSON(w, admin.AuditPage{Entries: []admin.AuditEntry{{At: begun, Action: "unreadable"}}, Next: "7"})
	})
	postroom(t, "", "audit", "--limit", "0").want(t, exitFault, "the same cursor again and again")
}
