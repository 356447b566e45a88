package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/postroom/postroom/admin"
)

func TestWhoClearsTheProviderIsAsked(t *testing.T) {
	get, clear := "GET /v1/provider", "DELETE /v1/provider?version=4-ab"
	for name, test := range map[string]struct {
		args   string
		answer func() (bool, error)
		asked  bool
		done   bool
		code   int
		want   string
	}{
		"yes":         {"", yes, true, true, 0, "none  6-ef"},
		"no":          {"", no, true, false, exitFault, "nothing was changed, for the answer was not yes"},
		"surely":      {"--yes", no, false, true, 0, "none  6-ef"},
		"dry run":     {"--dry-run", yes, false, false, 0, "Nothing was changed."},
		"interrupted": {"", func() (bool, error) { return false, context.Canceled }, true, false, exitInterrupted, "interrupted\nNothing was changed."},
	} {
		t.Run(name, func(t *testing.T) {
			f := startProvider(t, activeSMTP())
			f.changed = admin.ProviderChanged{Provider: admin.Provider{Kind: "none", Version: "6-ef"}, Result: "saved_not_tried", Summary: "No provider is active."}
			r, questions := watched(t.Context(), t, newProviderClearCommand, test.answer, strings.Fields(test.args)...)
			r.want(t, test.code, test.want,
				"Active is smtp by mail.x.example:587 for Reports <reports@x.example>, set by ops, 2030-01-02 03:04:05 +00:00.\n12,345 messages have not ended.\n")
			if got := strings.Join(questions, "|"); (got == "Delete these settings, and their credentials?") != test.asked {
				t.Errorf("asked %q", got)
			}
			if test.done {
				f.asked(t, get, clear)
			} else {
				f.asked(t, get)
			}
		})
	}
}

func TestThereCanBeNothingToClear(t *testing.T) {
	f := startProvider(t, admin.Provider{Kind: "none", Open: 2})
	r := postroom(t, "", "provider", "clear", "--yes", "--output", "json")
	r.want(t, 0, "No provider is active: there is nothing to delete.\n2 messages have not ended.\nNothing was changed.\n")
	var p admin.Provider
	if err := json.Unmarshal([]byte(r.stdout), &p); err != nil || p.Kind != "none" || p.Open != 2 {
		t.Errorf("got %q, %v", r.stdout, err)
	}
	f.asked(t, "GET /v1/provider")

	f.active = activeSMTP()
	f.active.ReadOnly = true
	postroom(t, "", "provider", "clear", "--yes").want(t, exitFault, "is set by a configuration file, and can only be changed there")
	f.asked(t, "GET /v1/provider")

	f.active.ReadOnly = false
	f.changed = admin.ProviderChanged{Result: "saved_not_tried", Underway: 3}
	r = postroom(t, "", "provider", "clear", "--yes", "--output", "json")
	var changed admin.ProviderChanged
	if err := json.Unmarshal([]byte(r.stdout), &changed); err != nil || changed.Underway != 3 {
		t.Errorf("got %q, %v", r.stdout, err)
	}
}
