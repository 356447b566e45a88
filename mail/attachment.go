package mail

import (
	"mime"
	"path"
	"strconv"
	"strings"
)

const (
	maxAttachments = 100
	maxFileName    = 255
	maxMediaType   = 255
	maxContentID   = 128
)

// octetStream is what a file is when nobody knows better.
const octetStream = "application/octet-stream"

// mediaTypes tells a file's type from the end of its name. It is our own table, since that of package mime depends on the
// machine.
var mediaTypes = map[string]string{
	".csv":  "text/csv",
	".doc":  "application/msword",
	".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
	".gif":  "image/gif",
	".htm":  "text/html",
	".html": "text/html",
	".ics":  "text/calendar",
	".jpeg": "image/jpeg",
	".jpg":  "image/jpeg",
	".json": "application/json",
	".ods":  "application/vnd.oasis.opendocument.spreadsheet",
	".odt":  "application/vnd.oasis.opendocument.text",
	".pdf":  "application/pdf",
	".png":  "image/png",
	".ppt":  "application/vnd.ms-powerpoint",
	".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
	".svg":  "image/svg+xml",
	".txt":  "text/plain",
	".webp": "image/webp",
	".xls":  "application/vnd.ms-excel",
	".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
	".xml":  "application/xml",
	".zip":  "application/zip",
}

// attachments checks the files of a message, or those of a recipient who shares others, and gives them with their media types filled in.
func (p *problems) attachments(list, shared []Attachment) []Attachment {
	if len(list) == 0 {
		return nil
	}
	if len(list)+len(shared) > maxAttachments {
		p.add("/attachments", "has more than "+strconv.Itoa(maxAttachments)+" files")
		return list
	}
	out := make([]Attachment, len(list))
	ids := make(map[string]bool)
	for _, a := range shared {
		ids[a.ContentID] = true
	}
	for i, a := range list {
		field := element("/attachments", i)
		p.add(field+"/ref", refFault(&a))
		if a.Name != "" || a.Ref == "" {
			p.add(field+"/name", nameFault(a.Name))
		}
		if a.ContentType != "" || a.Ref == "" {
			mediaType, reason := canonicalMediaType(a.ContentType, a.Name)
			p.add(field+"/content_type", reason)
			a.ContentType = mediaType
		}
		if a.ContentID != "" {
			switch {
			case !isContentID(a.ContentID):
				p.add(field+"/content_id", "is not 1 to "+strconv.Itoa(maxContentID)+" letters, digits or characters of .-_+$=@ (no angle brackets)")
			case ids[a.ContentID]:
				p.add(field+"/content_id", "is that of another attachment too: name each once")
			}
			ids[a.ContentID] = true
		}
		out[i] = a
	}
	return out
}

// refFault says what is wrong with a ref, as far as can be told without what is stored.
func refFault(a *Attachment) string {
	if a.Ref != "" && len(a.Content) > 0 {
		return "stands beside content: give one of them"
	}
	return ""
}

// size is the number of bytes of the file.
func (a *Attachment) size() int64 {
	if a.Ref != "" {
		return a.Size
	}
	return int64(len(a.Content))
}

// CheckFile says what is wrong with a file that is to be stored by itself, and gives its media type in canonical form, told from the
// name if there is none. The error is an *Invalid.
func CheckFile(name, contentType string) (string, error) {
	var p problems
	p.add("/name", nameFault(name))
	mediaType, reason := canonicalMediaType(contentType, name)
	p.add("/content_type", reason)
	return mediaType, p.err()
}

func nameFault(name string) string {
	switch {
	case strings.TrimSpace(name) == "":
		return "is empty: name the file"
	case strings.ContainsAny(name, `/\`):
		return "has a / or \\: give the name without folders"
	}
	return lineFault(name, maxFileName)
}

// canonicalMediaType gives a media type as RFC 2045 writes it, told from the file's name if there is none. Types whose
// content may not be encoded as base64 (RFC 2045, section 6.4) are refused, message/rfc822 among them.
func canonicalMediaType(s, name string) (string, string) {
	if s == "" {
		if known, ok := mediaTypes[strings.ToLower(path.Ext(name))]; ok {
			return known, ""
		}
		return octetStream, ""
	}
	const reason = "is not a media type such as application/pdf"
	if fault := lineFault(s, maxMediaType); fault != "" {
		return "", fault
	}
	mediaType, params, err := mime.ParseMediaType(s)
	if err != nil || !strings.Contains(mediaType, "/") {
		return "", reason
	}
	if strings.HasPrefix(mediaType, "multipart/") || strings.HasPrefix(mediaType, "message/") {
		return "", "is a multipart or message type, which cannot be a file: use " + octetStream
	}
	// The file's name stands in its disposition, once.
	delete(params, "name")
	formatted := mime.FormatMediaType(mediaType, params)
	if formatted == "" || lineFault(formatted, maxMediaType) != "" {
		return "", reason
	}
	return formatted, ""
}

// isContentID reports whether s may stand in Content-ID and, as it is, after "cid:".
func isContentID(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && strings.IndexByte(".-_+$=@", c) < 0 {
			return false
		}
	}
	return s != "" && len(s) <= maxContentID
}
