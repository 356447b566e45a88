package graphtest

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// options refuses query options that are not known to this place.
func (c *call) options(known ...string) *fault {
	for name := range c.request.URL.Query() {
		if strings.HasPrefix(name, "$") && !slices.Contains(known, name) {
			return badRequest("The query option '" + name + "' is not simulated.")
		}
	}
	return nil
}

// selected leaves of an object what $select names, its id, and what OData adds.
func (c *call) selected(object map[string]any) map[string]any {
	names := c.request.URL.Query().Get("$select")
	if names == "" {
		return object
	}
	chosen := make(map[string]any)
	for name, v := range object {
		if name == "id" || strings.HasPrefix(name, "@odata.") || slices.Contains(strings.Split(names, ","), name) {
			chosen[name] = v
		}
	}
	return chosen
}

// The two forms of $filter that find a message again: by its Message-ID, and by an extended property of one's own
// (https://learn.microsoft.com/graph/api/singlevaluelegacyextendedproperty-get).
var (
	byMessageID = regexp.MustCompile(`^internetMessageId eq '((?:[^']|'')*)'$`)
	byProperty  = regexp.MustCompile(`^singleValueExtendedProperties/[Aa]ny\((\w+): ?(\w+)/id eq '((?:[^']|'')*)' and (\w+)/value eq '((?:[^']|'')*)'\)$`)
)

// filter reads $filter.
func filter(query url.Values) (func(*Message) bool, *fault) {
	text := query.Get("$filter")
	unquote := func(s string) string { return strings.ReplaceAll(s, "''", "'") }
	if text == "" {
		return func(*Message) bool { return true }, nil
	}
	if m := byMessageID.FindStringSubmatch(text); m != nil {
		return func(one *Message) bool { return one.MessageID == unquote(m[1]) }, nil
	}
	if m := byProperty.FindStringSubmatch(text); m != nil && m[1] == m[2] && m[1] == m[4] {
		wanted := Header{unquote(m[3]), unquote(m[5])}
		return func(one *Message) bool { return slices.Contains(one.Properties, wanted) }, nil
	}
	return nil, badRequest("Invalid filter clause, or one that is not simulated.")
}

// listMessages is https://learn.microsoft.com/graph/api/user-list-messages, of one folder or of all. It gives the first page only.
func listMessages(c *call) (*answer, *fault) {
	if fault := c.options("$select", "$filter", "$top", "$orderby"); fault != nil {
		return nil, fault
	}
	query := c.request.URL.Query()
	fits, fault := filter(query)
	if fault != nil {
		return nil, fault
	}
	top := 10
	if text := query.Get("$top"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1000 {
			return nil, badRequest("Invalid value '" + text + "' for $top: it is from 1 to 1000.")
		}
		top = n
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.folder != "" && !knownFolder(c.folder) {
		return nil, itemNotFound()
	}
	list := []map[string]any{}
	for _, i := range c.in(c.folder) {
		if len(list) < top && fits(i.message) {
			list = append(list, c.selected(c.show(i)))
		}
	}
	return jsonAnswer(http.StatusOK, map[string]any{"value": list}), nil
}

// in gives the items that a folder shows, or that any does. mu is held.
func (c *call) in(folder string) []*item {
	return slices.DeleteFunc(c.box.all(), func(i *item) bool {
		shown := i.shown(c.opts.Now(), c.opts.SentAsDraft)
		return shown == "" || folder != "" && !strings.EqualFold(folder, shown) && folder != folderID(shown)
	})
}

func knownFolder(name string) bool {
	return slices.ContainsFunc([]string{folderDrafts, folderSent}, func(f string) bool { return strings.EqualFold(f, name) || name == folderID(f) })
}

// getFolder is https://learn.microsoft.com/graph/api/mailfolder-get.
func getFolder(c *call) (*answer, *fault) {
	if fault := c.options("$select"); fault != nil {
		return nil, fault
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range []struct{ name, display string }{{folderDrafts, "Drafts"}, {folderSent, "Sent Items"}} {
		if strings.EqualFold(c.folder, f.name) || c.folder == folderID(f.name) {
			folder := map[string]any{"id": folderID(f.name), "displayName": f.display, "totalItemCount": len(c.in(f.name))}
			return jsonAnswer(http.StatusOK, c.selected(folder)), nil
		}
	}
	return nil, itemNotFound()
}
