package admin

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// shortPatience is what a client of these tests has for the next part of its body.
const shortPatience = 200 * time.Millisecond

// What a client does after it has sent what it sends of a body.
const (
	closes   = "closes the connection"
	ends     = "ends its side of the connection"
	silent   = "says nothing more"
	dribbles = "sends a byte now and then"
	waits    = "has sent all"
)

// half is a request's head, with what stands between it and the body.
func half(path, token, contentType string, header ...string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: %s\r\n", path, token, contentType) +
		strings.Join(append(header, ""), "\r\n")
}

func announced(n int) string { return fmt.Sprintf("Content-Length: %d\r\n\r\n", n) }

func chunk(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

// TestHalfAndSlowBodies sends bodies that never come to their end, each over a connection of its own.
func TestHalfAndSlowBodies(t *testing.T) {
	patient, short := serve(t, nil), serve(t, func(o *Options) { o.BodyPatience = shortPatience })
	const chunked = "Transfer-Encoding: chunked\r\n\r\n"
	message := half("/v1/messages", producerToken, "application/json")
	batch := half("/v1/batches", producerToken, "application/json")
	lines := half("/v1/batches", producerToken, ndjson) + chunked
	told := half("/v1/batches", producerToken, ndjson, "Accept: "+ndjson) + chunked
	file := half("/v1/contents?name=a.bin", producerToken, "application/octet-stream")
	form := half("/v1/contents", producerToken, formData+"; boundary=b")
	staged, large := streamOf(250), strings.Repeat("x", 700_000)
	part := formPart("a.bin", large)
	tests := map[string]struct {
		sent, then string
		want       refusal // of nothing: there is no answer
		told       bool    // as the last line of an answer of lines
	}{
		"half of a message, closed":       {sent: message + announced(len(oneMessage)) + oneMessage[:99], then: closes},
		"half of a message, ended":        {sent: message + announced(len(oneMessage)) + oneMessage[:99], then: ends, want: incompleteBody},
		"half of a message, silent":       {sent: message + announced(len(oneMessage)) + oneMessage[:99], then: silent, want: bodyTooSlow},
		"a message, byte by byte":         {sent: message + announced(1<<20) + oneMessage[:99], then: dribbles, want: bodyTooSlow},
		"a message that is only told of":  {sent: message + announced(len(oneMessage)), then: silent, want: bodyTooSlow},
		"a message, longer was announced": {sent: message + announced(len(oneMessage)+1) + oneMessage, then: ends, want: incompleteBody},
		"the same, silent":                {sent: message + announced(len(oneMessage)+1) + oneMessage, then: silent, want: bodyTooSlow},
		"a chunk of no size":              {sent: message + chunked + "maybe\r\n" + oneMessage, then: waits, want: incompleteBody},
		"a chunk of too great a size":     {sent: message + chunked + "fffffffffffffffff\r\n" + oneMessage, then: waits, want: incompleteBody},
		"a chunk that is too long":        {sent: message + chunked + "9\r\n" + oneMessage + "\r\n0\r\n\r\n", then: waits, want: incompleteBody},
		"a chunk cut off":                 {sent: message + chunked + chunk(oneMessage)[:99], then: ends, want: incompleteBody},
		"chunks without an end":           {sent: message + chunked + chunk(oneMessage), then: ends, want: incompleteBody},
		"the same, silent on":             {sent: message + chunked + chunk(oneMessage), then: silent, want: bodyTooSlow},
		"half of a batch, closed":         {sent: batch + announced(len(twoRecipients)) + twoRecipients[:99], then: closes},
		"half of a batch, silent":         {sent: batch + announced(len(twoRecipients)) + twoRecipients[:99], then: silent, want: bodyTooSlow},
		"half of a line, and an end":      {sent: lines + chunk(staged[:len(staged)-9]) + "0\r\n\r\n", then: waits, want: malformedJSON},
		"half of a line, ended":           {sent: lines + chunk(staged[:len(staged)-9]), then: ends, want: incompleteBody},
		"half of a line, silent":          {sent: lines + chunk(staged[:len(staged)-9]), then: silent, want: bodyTooSlow},
		"lines, closed":                   {sent: lines + chunk(staged), then: closes},
		"lines, silent":                   {sent: lines + chunk(staged), then: silent, want: bodyTooSlow},
		"lines, broken in a chunk":        {sent: lines + chunk(staged) + "maybe\r\n", then: waits, want: incompleteBody},
		"half of the first line, silent":  {sent: lines + chunk(staged[:9]), then: silent, want: bodyTooSlow},
		"lines, byte by byte":             {sent: lines + chunk(staged) + "100000\r\n", then: dribbles, want: bodyTooSlow},
		"lines that are told, closed":     {sent: told + chunk(staged), then: closes},
		"lines that are told, ended":      {sent: told + chunk(staged), then: ends, want: incompleteBody, told: true},
		"lines that are told, silent":     {sent: told + chunk(staged), then: silent, want: bodyTooSlow, told: true},
		"lines that are told, half":       {sent: told + chunk(staged[:len(staged)-9]) + "0\r\n\r\n", then: waits, want: malformedJSON, told: true},
		"half of a file, closed":          {sent: file + announced(1<<20) + large, then: closes},
		"half of a file, ended":           {sent: file + announced(1<<20) + large, then: ends, want: incompleteBody},
		"half of a file, silent":          {sent: file + announced(1<<20) + large, then: silent, want: bodyTooSlow},
		"a file, byte by byte":            {sent: file + announced(1<<20) + large, then: dribbles, want: bodyTooSlow},
		"half of a form, closed":          {sent: form + announced(1<<20) + part, then: closes},
		"half of a form, ended":           {sent: form + announced(1<<20) + part, then: ends, want: incompleteBody},
		"half of a form, silent":          {sent: form + announced(1<<20) + part, then: silent, want: bodyTooSlow},
		"a form's file cut off, silent":   {sent: form + announced(1<<20) + part[:600_000], then: silent, want: bodyTooSlow},
		"half of a requeue, silent": {sent: half("/v1/failed/requeue", operatorToken, "application/json") + announced(15) + `{"all":`,
			then: silent, want: bodyTooSlow},
		"half of a provider, silent": {sent: strings.Replace(half("/v1/provider", adminToken, "application/json"), "POST", "PUT", 1) + announced(150) + byRelay[:9],
			then: silent, want: bodyTooSlow},
		"too low a role, silent": {sent: half("/v1/failed/requeue", producerToken, "application/json", "Expect: 100-continue") + announced(15), then: silent, want: forbidden},
	}
	t.Run("all at once", func(t *testing.T) {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				a := patient
				if test.then == silent || test.then == dribbles {
					a = short
				}
				conn := connect(t, a.Server)
				if _, err := io.WriteString(conn, test.sent); err != nil {
					t.Fatal(err)
				}
				switch test.then {
				case closes:
					_ = conn.Close()
					return
				case ends:
					if err := conn.CloseWrite(); err != nil {
						t.Fatal(err)
					}
				case dribbles:
					go dribble(t, conn)
				}
				p := lastProblem(t, conn, test.told)
				if p.Type != test.want.uri() || p.Status != test.want.status {
					t.Errorf("%+v, want %s", p, test.want.name)
				}
			})
		}
	})
	for _, a := range []*api{patient, short} {
		await(t, "what was staged to be dropped", func() bool { return len(a.staged()) == 0 })
		if n := a.open(t); n != 0 {
			t.Errorf("%d messages were accepted", n)
		}
		if r := a.call(t, "POST", "/v1/messages", producerToken, oneMessage); r.status != 202 {
			t.Errorf("the next request: %d %s", r.status, r.body)
		}
		metrics := string(a.call(t, "GET", "/metrics", "", "").body)
		if strings.Contains(metrics, `code="500"`) || strings.Contains(metrics, `code="503"`) || strings.Contains(a.log.String(), `"level":"ERROR"`) {
			t.Errorf("a fault of ours:\n%s\n%s", metrics, a.log)
		}
	}
}

// connect opens a connection that gives up before the test does.
func connect(t *testing.T, s *httptest.Server) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// dribble sends a byte now and then until nobody takes it any more.
func dribble(t *testing.T, w io.Writer) {
	tick := time.NewTicker(shortPatience / 20)
	defer tick.Stop()
	for {
		select {
		case <-t.Context().Done():
			return
		case <-tick.C:
			if _, err := io.WriteString(w, " "); err != nil {
				return
			}
		}
	}
}

// lastProblem reads an answer to its end, and gives the problem that it is, or that its last line has.
func lastProblem(t *testing.T, conn net.Conn, told bool) *Problem {
	t.Helper()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("half an answer: %s, %v", body, err)
	}
	r := reply{response.StatusCode, response.Header, body}
	if !told {
		return r.problem(t)
	}
	all := linesOf[struct {
		Read    *int
		Problem *Problem
	}](t, r)
	if all[0].Read == nil || *all[0].Read != 0 || all[len(all)-1].Problem == nil {
		t.Fatalf("%s", body)
	}
	return all[len(all)-1].Problem
}

// staged are the keys of what was handed in.
func (a *api) staged() []string {
	return slices.DeleteFunc(a.redis.Keys(), func(key string) bool {
		return !strings.Contains(key, "}:c:") && !strings.Contains(key, "}:a:") && !strings.Contains(key, "}:m:") && !strings.Contains(key, "}:b:")
	})
}

// await asks again and again until done says yes.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	late, tick := time.After(20*time.Second), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-late:
			t.Fatalf("waiting for %s took too long", what)
		case <-tick.C:
		}
	}
}

// serveHandler serves a handler that a test can look into.
func (a *api) serveHandler(t *testing.T, o Options, change func(*httptest.Server)) *handler {
	t.Helper()
	o.Tokens, o.Logger = testTokens(), a.log.logger()
	h := newHandler(o, a.queue)
	a.Server = httptest.NewUnstartedServer(h)
	if change != nil {
		change(a.Server)
	}
	a.Start()
	t.Cleanup(a.Close)
	return h
}

func TestLargeBodiesHaveRoomTogether(t *testing.T) {
	a := serve(t, nil)
	const most = 1 << 20
	h := a.serveHandler(t, Options{MaxBodyBytes: most, MaxBodiesBytes: most}, nil)
	large := oneMessage + strings.Repeat(" ", most-len(oneMessage))
	for _, test := range []struct{ head, body, answer string }{
		{half("/v1/messages", producerToken, "application/json"), large, "202"},
		{half("/v1/batches", producerToken, ndjson), strings.Replace(streamOf(1), `"kind"`, strings.Repeat(" ", most-1000)+`"kind"`, 1), "202"},
	} {
		conn := connect(t, a.Server)
		if _, err := io.WriteString(conn, test.head+announced(len(test.body))+test.body[:most/2+unbound]); err != nil {
			t.Fatal(err)
		}
		await(t, "half of the room to be taken", func() bool { return h.room.left.Load() <= most/2 })
		for range 2 {
			r := a.call(t, "POST", "/v1/messages", producerToken, large)
			if p := r.problem(t); p.Type != busy.uri() || r.header.Get("Retry-After") != "5" {
				t.Errorf("another large one: %+v", p)
			}
		}
		if r := a.call(t, "POST", "/v1/messages", producerToken, oneMessage); r.status != 202 {
			t.Errorf("a small one beside it: %d %s", r.status, r.body)
		}
		if _, err := io.WriteString(conn, test.body[most/2+unbound:]); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || !strings.HasPrefix(response.Status, test.answer) {
			t.Fatalf("the one that had room: %v, %v", response, err)
		}
		await(t, "all room to be given back", func() bool { return h.room.left.Load() == most })
		if r := a.call(t, "POST", "/v1/messages", producerToken, large); r.status != 202 {
			t.Errorf("when there is room again: %d %s", r.status, r.body)
		}
	}
}

// A body that is taken in has its answer, however long it took: the server's time-outs are for all else.
func TestASlowBodyStillHasItsAnswer(t *testing.T) {
	a := serve(t, nil)
	a.serveHandler(t, Options{}, func(s *httptest.Server) { s.Config.WriteTimeout = time.Nanosecond })
	for path, sent := range map[string][2]string{
		"/v1/messages":            {"application/json", oneMessage},
		"/v1/batches":             {ndjson, streamOf(3)},
		"/v1/contents?name=a.txt": {"text/plain", "hello"},
		"/v1/batches?list=true":   {"application/json", twoRecipients},
	} {
		if r := a.call(t, "POST", path, producerToken, sent[1], "Content-Type", "", "Content-Type", sent[0]); r.status/100 != 2 {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
}

// narrow is a listener whose connections keep little of what nobody reads.
type narrow struct{ net.Listener }

func (n narrow) Accept() (net.Conn, error) {
	conn, err := n.Listener.Accept()
	if err == nil {
		err = conn.(*net.TCPConn).SetWriteBuffer(4096)
	}
	return conn, err
}

func TestAClientThatDoesNotReadStopsOnlyItself(t *testing.T) {
	a := serve(t, nil)
	h := a.serveHandler(t, Options{BodyPatience: shortPatience}, func(s *httptest.Server) { s.Listener = narrow{s.Listener} })
	h.tellEvery = 0
	conn := connect(t, a.Server)
	if err := conn.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	_, err := io.WriteString(conn, half("/v1/batches", producerToken, ndjson, "Accept: "+ndjson)+"Transfer-Encoding: chunked\r\n\r\n"+chunk(streamMessage+"\n"))
	more := chunk(strings.SplitAfterN(streamOf(100), "\n", 2)[1])
	for n := 0; err == nil; n++ {
		if n == 10_000 {
			t.Fatal("the server goes on reading from a client that reads nothing")
		}
		_, err = io.WriteString(conn, more)
	}
	if errors.Is(err, http.ErrHandlerTimeout) || strings.Contains(err.Error(), "timeout") {
		t.Fatalf("the server neither reads nor gives up: %v", err)
	}
	await(t, "what was staged to be dropped", func() bool { return len(a.staged()) == 0 })
	if r := a.call(t, "POST", "/v1/messages", producerToken, oneMessage); r.status != 202 || a.open(t) != 1 {
		t.Errorf("the next request: %d %s", r.status, r.body)
	}
	if strings.Contains(a.log.String(), `"level":"ERROR"`) {
		t.Errorf("the log has %s", a.log)
	}
}

// TestTheRestOfARefusedStreamIsNoRequest has more body follow the problem that ends a stream's answer than a refusal reads away, with a
// request in the middle of it.
func TestTheRestOfARefusedStreamIsNoRequest(t *testing.T) {
	a := serve(t, func(o *Options) { o.MaxBodyBytes = 1 << 20 })
	conn := connect(t, a.Server)
	first := streamOf(3) + "{not json\n"
	// As much as a refusal reads away; then more than net/http does, which is requests.
	rest := strings.Repeat(" ", drainBodies<<20) + strings.Repeat("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", 10_000)
	head := half("/v1/batches", producerToken, ndjson, "Accept: "+ndjson) + announced(len(first)+len(rest))
	if _, err := io.WriteString(conn, head+first); err != nil {
		t.Fatal(err)
	}
	answer := bufio.NewReader(conn)
	for line := ""; !strings.Contains(line, `"problem"`); {
		var err error
		if line, err = answer.ReadString('\n'); err != nil {
			t.Fatalf("no problem is told: %v", err)
		}
	}
	// The server may hang up at any time from here on.
	_, _ = io.WriteString(conn, rest)
	_ = conn.CloseWrite()
	if more, _ := io.ReadAll(answer); strings.Contains(string(more), "HTTP/1.1") {
		t.Errorf("a part of the body was answered as a request: %.300s", more)
	}
}
