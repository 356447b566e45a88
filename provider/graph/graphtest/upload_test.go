package graphtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"
)

// session is the client's side of an upload.
type session struct {
	*rig
	url  string
	size int
}

func (r *rig) upload(draft string, size int) *session {
	r.t.Helper()
	p := r.graph("POST", user("messages/"+draft+"/attachments/createUploadSession"),
		fmt.Sprintf(`{"AttachmentItem":{"attachmentType":"file","name":"big.pdf","contentType":"application/pdf","size":%d}}`, size))
	r.want("create the session", p, 201, "")
	if p.field("expirationDateTime") == "" || !strings.Contains(string(p.body), `"nextExpectedRanges":["0-"]`) {
		r.t.Errorf("%s", p.body)
	}
	return &session{r, p.field("uploadUrl"), size}
}

// put sends the bytes from first on.
func (s *session) put(first int, data []byte, header ...string) reply {
	s.t.Helper()
	position := fmt.Sprintf("bytes %d-%d/%d", first, first+len(data)-1, s.size)
	return s.do("PUT", s.url, data, append([]string{"Content-Type", "application/octet-stream", "Content-Range", position}, header...)...)
}

// next is where the session says to go on.
func (s *session) next() string {
	s.t.Helper()
	p := s.do("GET", s.url, nil)
	s.want("status", p, 200, "")
	var state struct{ NextExpectedRanges []string }
	if err := json.Unmarshal(p.body, &state); err != nil || len(state.NextExpectedRanges) != 1 {
		s.t.Errorf("%v %s", err, p.body)
		return ""
	}
	return state.NextExpectedRanges[0]
}

func random(n int) []byte {
	data := make([]byte, n)
	source := rand.NewChaCha8([32]byte{})
	_, _ = source.Read(data)
	return data
}

func TestALargeFileIsUploadedInRanges(t *testing.T) {
	r := newRig(t, Options{})
	id := r.draft()
	data := random(5*megabyte + 1)
	s := r.upload(id, len(data))
	if !strings.HasPrefix(s.url, "http://127.0.0.1:") || strings.HasPrefix(s.url, r.GraphURL()) {
		t.Errorf("the upload URL is %s", s.url)
	}
	const part = 2 * megabyte
	for first := 0; first < len(data); first += part {
		if got := s.next(); got != fmt.Sprint(first) {
			t.Errorf("next is %q, want %d", got, first)
		}
		last := min(first+part, len(data))
		p := s.put(first, data[first:last])
		if last < len(data) {
			r.want("a range", p, 200, "")
			continue
		}
		r.want("the last range", p, 201, "")
		if !strings.Contains(p.header.Get("Location"), "/Attachments('") || len(p.body) != 0 {
			t.Errorf("%v %q", p.header, p.body)
		}
	}
	r.want("after the end", s.do("GET", s.url, nil), 404, "ErrorItemNotFound")
	r.want("send", r.graph("POST", user("messages/"+id+"/send"), nil), 202, "")
	if f := r.Messages()[0].Files; len(f) != 1 || f[0].Name != "big.pdf" || f[0].ContentType != "application/pdf" || !bytes.Equal(f[0].Content, data) {
		t.Errorf("%d files", len(f))
	}
	if got, want := r.Usage(sender).UploadBytes, int64(len(data)); got < want || got > want+1000 {
		t.Errorf("%d bytes were counted, want about %d", got, want)
	}
}

func TestRangesAreChecked(t *testing.T) {
	r := newRig(t, Options{})
	s := r.upload(r.draft(), 9*megabyte)
	part := random(megabyte)
	kind := "application/octet-stream"
	r.want("the first", s.put(0, part), 200, "")
	for _, test := range []struct {
		name   string
		reply  reply
		status int
		code   string
	}{
		{"again", s.put(0, part), 416, "invalidRange"},
		{"overlapping", s.put(megabyte-1, part), 416, "invalidRange"},
		{"with a gap", s.put(megabyte+1, part), 416, "invalidRange"},
		{"of another file", (&session{r, s.url, 8 * megabyte}).put(megabyte, part), 416, "invalidRange"},
		{"beyond the end", s.put(9*megabyte, part), 416, "invalidRange"},
		{"too large", s.put(megabyte, random(4*megabyte+1)), 413, "BadRequest"},
		{"without a range", s.do("PUT", s.url, part, "Content-Type", kind), 400, "invalidRequest"},
		{"a range without a total", s.do("PUT", s.url, part, "Content-Type", kind, "Content-Range", "bytes 0-1/*"), 400, "invalidRequest"},
		{"a range of another length", s.do("PUT", s.url, part, "Content-Type", kind, "Content-Range", fmt.Sprintf("bytes %d-%d/%d", megabyte, 2*megabyte, 9*megabyte)), 400, "invalidRequest"},
		{"backwards", s.do("PUT", s.url, part, "Content-Type", kind, "Content-Range", "bytes 5-3/9437184"), 400, "invalidRequest"},
		{"chunked", s.do("PUT", s.url, &chunked{bytes.NewReader(part)}, "Content-Type", kind, "Content-Range", fmt.Sprintf("bytes %d-%d/%d", megabyte, 2*megabyte-1, 9*megabyte)), 411, "LengthRequired"},
		{"another type", s.put(megabyte, part, "Content-Type", "application/pdf"), 415, "UnsupportedMediaType"},
		{"with a token", s.put(megabyte, part, "Authorization", "Bearer "+r.token), 401, "InvalidAudienceForResource"},
		{"status with a token", s.do("GET", s.url, nil, "Authorization", "Bearer "+r.token), 401, "InvalidAudienceForResource"},
		{"another method", s.do("POST", s.url, part), 405, "ErrorInvalidRequest"},
		{"another secret", s.do("GET", s.url+"x", nil), 401, "InvalidAuthenticationToken"},
		{"another parameter", s.do("GET", s.url+"&a=b", nil), 401, "InvalidAuthenticationToken"},
		{"another path", s.do("GET", strings.Replace(s.url, "AttachmentSessions", "Sessions", 1), nil), 400, "BadRequest"},
	} {
		r.want(test.name, test.reply, test.status, test.code)
	}
	if p := s.put(0, part); !strings.Contains(string(p.body), `"code":"fragmentOverlap"`) {
		t.Errorf("%s", p.body)
	}
	if got := s.next(); got != fmt.Sprint(megabyte) {
		t.Errorf("next is %q", got)
	}
	r.want("what comes next", s.put(megabyte, part), 200, "")
	r.want("longer than the file", r.upload(r.draft(), 3*megabyte).put(0, random(3*megabyte+1)), 416, "invalidRange")
	r.want("cancel", s.do("DELETE", s.url, nil), 204, "")
	r.want("cancelled", s.put(2*megabyte, part), 404, "ErrorItemNotFound")
}

func TestUploadSessionsAreChecked(t *testing.T) {
	r := newRig(t, Options{Limits: &Limits{MessageBytes: 5 * megabyte, RequestBytes: 5 * megabyte}, UploadLife: time.Hour})
	id := r.draft()
	path := user("messages/" + id + "/attachments/createUploadSession")
	item := func(more string) string { return `{"AttachmentItem":{` + more + `}}` }
	for name, test := range map[string]struct {
		body   string
		status int
		code   string
	}{
		"no item":             {`{}`, 400, "BadRequest"},
		"an unknown one":      {`{"item":{}}`, 400, "BadRequest"},
		"an unknown part":     {item(`"attachmentType":"file","name":"a","size":4000000,"x":1`), 400, "RequestBodyRead"},
		"an item":             {item(`"attachmentType":"item","name":"a","size":4000000`), 400, "BadRequest"},
		"no name":             {item(`"attachmentType":"file","size":4000000`), 400, "BadRequest"},
		"no size":             {item(`"attachmentType":"file","name":"a"`), 400, "BadRequest"},
		"a size as text":      {item(`"attachmentType":"file","name":"a","size":"4000000"`), 400, "RequestBodyRead"},
		"less than 3 MB":      {item(fmt.Sprintf(`"attachmentType":"file","name":"a","size":%d`, 3*megabyte-1)), 400, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize"},
		"3 MB":                {item(fmt.Sprintf(`"attachmentType":"file","name":"a","size":%d`, 3*megabyte)), 201, ""},
		"an inline image":     {item(`"attachmentType":"file","name":"a","size":4000000,"isInline":true,"contentId":"logo"`), 201, ""},
		"more than 150 MB":    {item(fmt.Sprintf(`"attachmentType":"file","name":"a","size":%d`, 150*megabyte+1)), 400, "ErrorAttachmentSizeLimitExceeded"},
		"150 MB all the same": {item(fmt.Sprintf(`"attachmentType":"file","name":"a","size":%d`, 150*megabyte)), 201, ""},
	} {
		r.want(name, r.graph("POST", path, test.body), test.status, test.code)
	}

	big := r.upload(id, 6*megabyte)
	r.want("within the message's size", big.put(0, random(3*megabyte)), 200, "")
	r.want("beyond the message's size", big.put(3*megabyte, random(megabyte)), 400, "ErrorMessageSizeExceeded")

	late := r.upload(id, 3*megabyte)
	r.clock.pass(59 * time.Minute)
	r.token = r.newToken()
	r.want("in time", late.put(0, random(megabyte)), 200, "")
	r.clock.pass(time.Minute)
	r.want("too late", late.put(megabyte, random(megabyte)), 401, "InvalidAuthenticationToken")
	r.token = r.newToken()

	gone := r.upload(id, 3*megabyte)
	r.want("delete the draft", r.graph("DELETE", user("messages/"+id), nil), 204, "")
	r.want("its draft is gone", gone.put(0, random(megabyte)), 404, "ErrorItemNotFound")
	r.want("a session for it", r.graph("POST", path, item(`"attachmentType":"file","name":"a","size":4000000`)), 404, "ErrorItemNotFound")
}

func TestADraftIsSentWithoutWhatIsStillUnderWay(t *testing.T) {
	r := newRig(t, Options{})
	id := r.draft()
	s := r.upload(id, 3*megabyte)
	r.want("a part", s.put(0, random(megabyte)), 200, "")
	r.want("send", r.graph("POST", user("messages/"+id+"/send"), nil), 202, "")
	r.want("the rest", s.put(megabyte, random(2*megabyte)), 404, "ErrorItemNotFound")
	if m := r.Messages()[0]; len(m.Files) != 0 {
		t.Errorf("%d files", len(m.Files))
	}
}

func TestACutConnectionEndsAllThatIsOnIt(t *testing.T) {
	r := newRig(t, Options{TLS: true})
	r.Provoke(Mishap{At: Received, Delay: time.Hour})
	held := make(chan reply)
	go func() { held <- r.graph("POST", user("sendMail"), mailOf(message("held"))) }()
	wait(t, "it is held up", func() bool { return marked(r) == 1 })
	r.Provoke(Mishap{Cut: true})
	if p := r.graph("POST", user("sendMail"), mailOf(message("cut"))); p.err == nil {
		t.Errorf("got %d, want a cut connection", p.status)
	}
	if p := <-held; p.err == nil {
		t.Errorf("got %d beside a cut connection", p.status)
	}
}

func TestHostsSpeakWhatTheyShould(t *testing.T) {
	only := func(set func(*http.Protocols)) *http.Protocols {
		p := new(http.Protocols)
		set(p)
		return p
	}
	for name, test := range map[string]struct {
		options Options
		want    string
	}{
		"HTTP/1.1":           {Options{Protocols: only(func(p *http.Protocols) { p.SetHTTP1(true) })}, "HTTP/1.1"},
		"h2c":                {Options{Protocols: only(func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) })}, "HTTP/2.0"},
		"HTTP/1.1 by choice": {Options{}, "HTTP/1.1"},
		"TLS and HTTP/2":     {Options{TLS: true}, "HTTP/2.0"},
		"TLS and HTTP/1.1":   {Options{TLS: true, Protocols: only(func(p *http.Protocols) { p.SetHTTP1(true) })}, "HTTP/1.1"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, test.options)
			r.want("send", r.graph("POST", user("sendMail"), mailOf(message("x"))), 202, "")
			data := random(3 * megabyte)
			id := r.draft()
			r.want("upload", r.upload(id, len(data)).put(0, data), 201, "")
			r.want("send", r.graph("POST", user("messages/"+id+"/send"), nil), 202, "")
			r.Provoke(Mishap{At: Accepted, Cut: true})
			if p := r.graph("POST", user("sendMail"), mailOf(message("cut"))); p.err == nil {
				t.Errorf("got %d, want a cut connection", p.status)
			}
			if n := r.Received(); n != 3 {
				t.Errorf("%d messages", n)
			}
			for _, q := range r.Requests() {
				if q.Protocol != test.want {
					t.Errorf("%s by %s", q.Operation, q.Protocol)
				}
			}
			if tls := strings.HasPrefix(r.GraphURL(), "https:"); tls != test.options.TLS || (r.CAPEM() != "") != tls {
				t.Errorf("%s with CA %q", r.GraphURL(), r.CAPEM())
			}
		})
	}
}
