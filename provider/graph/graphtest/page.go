package graphtest

import (
	"bytes"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/postroom/postroom/mail"
)

//go:embed page
var pages embed.FS

var templates = template.Must(template.New("").Funcs(template.FuncMap{"bytes": bytesText}).ParseFS(pages, "page/*.html"))

const (
	// pageLength is how many messages a page lists.
	pageLength = 50
	// policy lets a page load its own style sheet and nothing else. HTML mail is shown in a frame that inherits this.
	policy = "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	// maxShown bounds what of a text, and of one inline image, is put on a page; maxUses how often one image may stand in it.
	maxShown = 1 << 20
	maxUses  = 10
)

// Handler shows what was sent: a list, and a page for each message. All its links are relative, so it can be mounted anywhere
// with http.StripPrefix. It asks for no login; it is for looking at test mail on one's own machine.
func (t *Tenant) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", t.showList)
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, pages, "page/style.css") })
	mux.HandleFunc("GET /m/{id}", t.showMessage)
	mux.HandleFunc("GET /m/{id}/files/{index}", t.sendFile)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		mux.ServeHTTP(w, r)
	})
}

// listed is a line of the list.
type listed struct {
	ID                            uint64
	From, To, Subject, Form, Size string
	Time                          time.Time
}

func (t *Tenant) showList(w http.ResponseWriter, r *http.Request) {
	before, _ := strconv.ParseUint(r.URL.Query().Get("before"), 10, 64)
	kept := t.Messages()
	page := struct {
		Messages                 []listed
		Received, Kept, Requests int
		Older                    uint64 // for the next page; 0 for none
		Newest                   bool
	}{Received: t.Received(), Kept: len(kept), Requests: t.Usage("").Requests, Newest: before == 0}
	for i := len(kept) - 1; i >= 0; i-- {
		m := kept[i]
		if before > 0 && m.ID >= before {
			continue
		}
		if len(page.Messages) == pageLength {
			page.Older = page.Messages[pageLength-1].ID
			break
		}
		line := listed{ID: m.ID, From: person(m.From), Subject: m.Subject, Form: string(m.Form), Size: bytesText(m.kept()), Time: m.Time}
		if to := m.recipients(); len(to) > 0 {
			line.To = to[0].Address
			if n := len(to) - 1; n > 0 {
				line.To += fmt.Sprintf(" and %d more", n)
			}
		}
		page.Messages = append(page.Messages, line)
	}
	render(w, "list.html", page)
}

func (t *Tenant) showMessage(w http.ResponseWriter, r *http.Request) {
	m := t.requested(w, r)
	if m == nil {
		return
	}
	people := func(list []mail.Address) string {
		names := make([]string, len(list))
		for i, a := range list {
			names[i] = person(a)
		}
		return strings.Join(names, ", ")
	}
	render(w, "message.html", struct {
		*Message
		FromText, ToText, CcText, BccText, ReplyToText, Size string
		TextBody, Frame                                      string
	}{m, person(m.From), people(m.To), people(m.Cc), people(m.Bcc), people(m.ReplyTo), bytesText(m.kept()), shown(m.Text), m.framed()})
}

// framed is the HTML with its inline images in it: a sandboxed frame can fetch nothing.
func (m *Message) framed() string {
	html := shown(m.HTML)
	for _, f := range m.Files {
		ref := "cid:" + f.ContentID
		if f.ContentID == "" || f.Size > maxShown || !strings.HasPrefix(f.ContentType, "image/") || !strings.Contains(html, ref) {
			continue
		}
		html = strings.Replace(html, ref, "data:"+f.ContentType+";base64,"+base64.StdEncoding.EncodeToString(f.Content), maxUses)
	}
	return html
}

// sendFile sends an attachment for download only: a browser must not show what came by mail.
func (t *Tenant) sendFile(w http.ResponseWriter, r *http.Request) {
	m := t.requested(w, r)
	if m == nil {
		return
	}
	index, err := strconv.Atoi(r.PathValue("index"))
	if err != nil || index < 0 || index >= len(m.Files) {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": m.Files[index].Name}))
	_, _ = w.Write(m.Files[index].Content)
}

// requested finds the message of the path, or answers 404 and gives nil.
func (t *Tenant) requested(w http.ResponseWriter, r *http.Request) *Message {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	for _, m := range t.Messages() {
		if err == nil && m.ID == id {
			return m
		}
	}
	http.Error(w, "This message is not kept (any more).", http.StatusNotFound)
	return nil
}

func render(w http.ResponseWriter, name string, data any) {
	var page bytes.Buffer
	if err := templates.ExecuteTemplate(&page, name, data); err != nil {
		http.Error(w, "The page could not be made.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(page.Bytes())
}

func person(a mail.Address) string {
	if a.Name == "" {
		return a.Address
	}
	return a.Name + " <" + a.Address + ">"
}

// bytesText writes a size for people.
func bytesText(n int64) string {
	switch {
	case n < 1000:
		return strconv.FormatInt(n, 10) + " B"
	case n < 1000*1000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}

func shown(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), maxShown)], "\uFFFD")
}
