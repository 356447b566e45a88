package graphtest

import (
	"cmp"
	"crypto/rand"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/postroom/postroom/mail"
)

// The folders that are known, by their well-known names (https://learn.microsoft.com/graph/api/resources/mailfolder).
const (
	folderDrafts = "drafts"
	folderSent   = "sentitems"
)

// item is a message in a mailbox: a draft, or the copy of one that was sent.
type item struct {
	// immutable is the id that never changes. The other ids do when the item moves: draftID is valid in Drafts, sentID in
	// Sent Items (https://learn.microsoft.com/graph/outlook-immutable-id).
	immutable, draftID, sentID string
	message                    *Message
	attachments                []*attachment
	size                       int64
	created, modified          time.Time
	// sent is when a draft was sent, or zero; moved is from when on the copy is in Sent Items.
	sent, moved time.Time
}

// attachment is a file of an item.
type attachment struct {
	id   string
	file *File
}

// Ids end in "=", as Microsoft's do, and need to be escaped nowhere in a path.
const (
	regularID   = "AAMkAD"
	immutableID = "AAkALg"
)

func newID(kind string) string { return kind + rand.Text() + rand.Text() + "AAA=" }

// wellFormed reports whether id may be one of ours. Exchange parses an id before it looks for it.
func wellFormed(id string) bool {
	return (strings.HasPrefix(id, regularID) || strings.HasPrefix(id, immutableID)) && strings.HasSuffix(id, "AAA=") && len(id) == len(newID(regularID))
}

// shown is the folder where an item is found at now; empty for nowhere.
func (i *item) shown(now time.Time, sentAsDraft bool) string {
	switch {
	case i.sent.IsZero(), now.Before(i.moved) && sentAsDraft:
		return folderDrafts
	case now.Before(i.moved):
		return ""
	}
	return folderSent
}

// all gives a mailbox's items, the newest first.
func (box *mailbox) all() []*item {
	var all []*item
	for id, i := range box.items {
		if id == i.immutable {
			all = append(all, i)
		}
	}
	slices.SortFunc(all, func(a, b *item) int {
		return cmp.Or(b.created.Compare(a.created), strings.Compare(a.immutable, b.immutable))
	})
	return all
}

// store puts an item into a mailbox. mu is held.
func (box *mailbox) store(i *item) {
	for _, id := range []string{i.immutable, i.draftID, i.sentID} {
		if id != "" {
			box.items[id] = i
		}
	}
	box.taken += i.size
}

// remove takes an item out. mu is held.
func (box *mailbox) remove(i *item) {
	for _, id := range []string{i.immutable, i.draftID, i.sentID} {
		delete(box.items, id)
	}
	box.taken -= i.size
}

// resize notes that an item has grown or shrunk. mu is held.
func (box *mailbox) resize(i *item, size int64) {
	box.taken += size - i.size
	i.size = size
}

// room refuses what would fill a mailbox. "This step might fail for reasons such as the sender's mailbox is full"
// (https://learn.microsoft.com/graph/outlook-things-to-know-about-send-mail). The code is Exchange's; the status, which is not
// documented with it, is that of https://learn.microsoft.com/graph/errors for a storage quota. mu is held.
func (box *mailbox) room(size int64) *fault {
	if box.State == Full || box.Quota > 0 && box.taken+size > box.Quota {
		return refuse(http.StatusInsufficientStorage, "ErrorQuotaExceeded", "The mailbox has exceeded its maximum size.")
	}
	return nil
}

// find gives the item with the call's id. An immutable id is taken only with its header, which "you must include with every
// API request". mu is held.
func (c *call) find() (*item, *fault) {
	if !wellFormed(c.target) || strings.HasPrefix(c.target, immutableID) && !c.immutable() {
		return nil, refuse(http.StatusBadRequest, "ErrorInvalidIdMalformed", "Id is malformed.")
	}
	i := c.box.items[c.target]
	if i == nil {
		return nil, itemNotFound()
	}
	shown := i.shown(c.opts.Now(), c.opts.SentAsDraft)
	switch {
	case shown == "",
		c.target == i.draftID && shown != folderDrafts,
		c.target == i.sentID && shown != folderSent,
		c.folder != "" && !strings.EqualFold(c.folder, shown):
		return nil, itemNotFound()
	}
	return i, nil
}

// draft gives the item with the call's id if it can still be changed. mu is held.
func (c *call) draft() (*item, *fault) {
	i, fault := c.find()
	switch {
	case fault != nil:
		return nil, fault
	case i.shown(c.opts.Now(), c.opts.SentAsDraft) == folderSent:
		return nil, refuse(http.StatusBadRequest, "ErrorInvalidPropertyUpdateSentMessage", "Update operation is invalid for property of a sent message.")
	case !i.sent.IsZero():
		return nil, itemNotFound() // It is on its way: what is still seen of it can't be touched.
	}
	return i, nil
}

// immutable reports whether the client asked for immutable ids.
func (c *call) immutable() bool {
	for _, line := range c.request.Header.Values("Prefer") {
		for preference := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(preference), "=")
			if strings.EqualFold(strings.TrimSpace(name), "IdType") && strings.EqualFold(strings.Trim(strings.TrimSpace(value), `"`), "ImmutableId") {
				return true
			}
		}
	}
	return false
}

// show gives the item as JSON, with the id of the kind that was asked for.
func (c *call) show(i *item) map[string]any {
	now := c.opts.Now()
	folder := i.shown(now, c.opts.SentAsDraft)
	id := i.draftID
	if folder == folderSent {
		id = i.sentID
	}
	if c.immutable() {
		id = i.immutable
	}
	m := i.message
	body := map[string]any{"contentType": "text", "content": m.Text}
	if m.HTML != "" {
		body = map[string]any{"contentType": "html", "content": m.HTML}
	}
	shown := map[string]any{
		"@odata.etag":          `W/"` + i.immutable[len(immutableID):len(immutableID)+12] + i.modified.Format("150405.000000") + `"`,
		"id":                   id,
		"createdDateTime":      graphTime(i.created),
		"lastModifiedDateTime": graphTime(i.modified),
		"receivedDateTime":     graphTime(i.created),
		"sentDateTime":         graphTime(cmp.Or(i.sent, i.created)),
		"hasAttachments":       len(i.attachments) > 0,
		"internetMessageId":    m.MessageID,
		"subject":              m.Subject,
		"isDraft":              folder == folderDrafts,
		"isRead":               true,
		"importance":           "normal",
		"parentFolderId":       folderID(folder),
		"body":                 body,
		"bodyPreview":          preview(cmp.Or(m.Text, m.HTML)),
		"toRecipients":         showAddresses(m.To...),
		"ccRecipients":         showAddresses(m.Cc...),
		"bccRecipients":        showAddresses(m.Bcc...),
		"replyTo":              showAddresses(m.ReplyTo...),
		"categories":           []string{},
	}
	if m.From.Address != "" {
		shown["from"] = showAddresses(m.From)[0]
		shown["sender"] = shown["from"]
	}
	return shown
}

func showAddresses(list ...mail.Address) []map[string]any {
	shown := []map[string]any{}
	for _, a := range list {
		shown = append(shown, map[string]any{"emailAddress": map[string]any{"name": cmp.Or(a.Name, a.Address), "address": a.Address}})
	}
	return shown
}

func graphTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// preview is at most the first 255 characters.
func preview(text string) string {
	runes := []rune(text)
	return string(runes[:min(len(runes), 255)])
}

// folderID is a folder's id, which is the same in every mailbox here.
func folderID(folder string) string { return regularID + "folder-" + folder + "AAA=" }
