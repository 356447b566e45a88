package smtptest

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

//go:embed page
var pages embed.FS

var templates = template.Must(template.ParseFS(pages, "page/*.html"))

// pageLength is how many messages a page lists.
const pageLength = 50

// policy lets a page load its own style sheet and nothing else. HTML mail, shown in a frame that inherits this, brings
// styles and images along in its text.
const policy = "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler shows what was received: a list, and a page for each message. All its links are relative, so it can be mounted
// anywhere with http.StripPrefix. It asks for no login; it is for looking at test mail on one's own machine.
func (b *Inbox) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", b.showList)
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, pages, "page/style.css")
	})
	mux.HandleFunc("GET /m/{id}", b.showMessage)
	mux.HandleFunc("GET /m/{id}/raw", b.showRaw)
	mux.HandleFunc("GET /m/{id}/files/{index}", b.sendFile)
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
	ID                      uint64
	From, To, Subject, Size string
	Time                    time.Time
}

func (b *Inbox) showList(w http.ResponseWriter, r *http.Request) {
	before, _ := strconv.ParseUint(r.URL.Query().Get("before"), 10, 64)
	messages, kept := b.page(before, pageLength+1)
	page := struct {
		Messages                    []listed
		Received, Kept, Connections int
		Older                       uint64 // for the next page; 0 for none
		Newest                      bool
	}{Received: b.Received(), Kept: kept, Connections: b.Connections(), Newest: before == 0}
	if len(messages) > pageLength {
		messages = messages[:pageLength]
		page.Older = messages[pageLength-1].ID
	}
	for _, m := range messages {
		header := readHeader(m.Raw)
		line := listed{ID: m.ID, From: decoded(header.Get("From")), Subject: decoded(header.Get("Subject")), Size: bytesText(len(m.Raw)), Time: m.Time}
		if line.From == "" {
			line.From = m.From
		}
		if len(m.To) > 0 {
			line.To = m.To[0]
		}
		if n := len(m.To) - 1; n > 0 {
			line.To += fmt.Sprintf(" and %d more", n)
		}
		page.Messages = append(page.Messages, line)
	}
	render(w, "list.html", page)
}

func (b *Inbox) showMessage(w http.ResponseWriter, r *http.Request) {
	m := b.requested(w, r)
	if m == nil {
		return
	}
	header, _, _ := bytes.Cut(m.Raw, []byte("\r\n\r\n"))
	render(w, "message.html", struct {
		ID                          uint64
		Time                        time.Time
		Subject, Size, EnvelopeFrom string
		EnvelopeTo                  []string
		Header                      string
		Content                     *content
	}{m.ID, m.Time, decoded(readHeader(m.Raw).Get("Subject")), bytesText(len(m.Raw)), m.From, m.To, shown(header), readContent(m.Raw)})
}

func (b *Inbox) showRaw(w http.ResponseWriter, r *http.Request) {
	if m := b.requested(w, r); m != nil {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(m.Raw)
	}
}

// sendFile sends an attachment for download only: a browser must not show what came by mail.
func (b *Inbox) sendFile(w http.ResponseWriter, r *http.Request) {
	m := b.requested(w, r)
	if m == nil {
		return
	}
	files := readContent(m.Raw).Files
	index, err := strconv.Atoi(r.PathValue("index"))
	if err != nil || index < 0 || index >= len(files) {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": files[index].Name}))
	_, _ = w.Write(files[index].data)
}

// requested finds the message of the path, or answers 404 and gives nil.
func (b *Inbox) requested(w http.ResponseWriter, r *http.Request) *Message {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err == nil {
		if m := b.message(id); m != nil {
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

// bytesText writes a size for people.
func bytesText(n int) string {
	switch {
	case n < 1000:
		return strconv.Itoa(n) + " B"
	case n < 1000*1000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}

// maxShown bounds what of a text is put on a page.
const maxShown = 1 << 20

func shown(text []byte) string {
	text = text[:min(len(text), maxShown)]
	return strings.ToValidUTF8(string(text), "\uFFFD")
}
