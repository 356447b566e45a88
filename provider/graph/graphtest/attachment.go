package graphtest

import (
	"encoding/base64"
	"mime"
	"net/http"
	"path"
)

// fileLimit is where POST ends and the upload session begins: "under 3 MB" and "between 3 MB and 150 MB"
// (https://learn.microsoft.com/graph/outlook-large-attachments). That a megabyte is 2^20 bytes here is not documented.
const (
	fileLimit   = 3 * megabyte
	uploadLimit = 150 * megabyte
)

// addAttachment is https://learn.microsoft.com/graph/api/message-post-attachments.
func addAttachment(c *call) (*answer, *fault) {
	value, fault := parse(c.body)
	if fault != nil {
		return nil, fault
	}
	if fault := isAttachment(value); fault != nil {
		return nil, fault
	}
	f := object(value.(map[string]any)).file()
	if f.Size >= fileLimit {
		return nil, refuse(http.StatusRequestEntityTooLarge, "ErrorAttachmentSizeLimitExceeded", "The attachment is too large for this operation.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i, fault := c.draft()
	if fault != nil {
		return nil, fault
	}
	a, fault := c.attach(i, f)
	if fault != nil {
		return nil, fault
	}
	shown := a.show(true)
	shown["@odata.context"] = c.GraphURL() + "/v1.0/$metadata#users('" + c.address + "')/messages('" + c.target + "')/attachments/$entity"
	return jsonAnswer(http.StatusCreated, shown), nil
}

// attach adds a file to a draft. mu is held.
func (c *call) attach(i *item, f *File) (*attachment, *fault) {
	if f.ContentType == "" {
		if f.ContentType = mime.TypeByExtension(path.Ext(f.Name)); f.ContentType == "" {
			f.ContentType = typeBinary
		}
	}
	changed := *i.message
	changed.Files = append(changed.Files[:len(changed.Files):len(changed.Files)], f)
	if fault := c.fits(&changed, i.size); fault != nil {
		return nil, fault
	}
	a := &attachment{id: newID(regularID), file: f}
	i.message, i.modified = &changed, c.opts.Now()
	i.attachments = append(i.attachments, a)
	c.box.resize(i, changed.encodedSize())
	return a, nil
}

// listAttachments is https://learn.microsoft.com/graph/api/message-list-attachments.
func listAttachments(c *call) (*answer, *fault) {
	if fault := c.options("$select"); fault != nil {
		return nil, fault
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i, fault := c.find()
	if fault != nil {
		return nil, fault
	}
	list := []map[string]any{}
	for _, a := range i.attachments {
		list = append(list, c.selected(a.show(true)))
	}
	return jsonAnswer(http.StatusOK, map[string]any{"value": list}), nil
}

func (a *attachment) show(content bool) map[string]any {
	f := a.file
	shown := map[string]any{
		"@odata.type": "#microsoft.graph.fileAttachment", "@odata.mediaContentType": f.ContentType,
		"id": a.id, "name": f.Name, "contentType": f.ContentType, "size": f.Size, "isInline": f.Inline, "contentId": nil, "contentLocation": nil,
	}
	if f.ContentID != "" {
		shown["contentId"] = f.ContentID
	}
	if content && f.Content != nil {
		shown["contentBytes"] = base64.StdEncoding.EncodeToString(f.Content)
	}
	return shown
}
