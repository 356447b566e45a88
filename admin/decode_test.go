package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postroom/postroom/mail"
)

func TestDecodeReadsAllThatAMessageCanHave(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 600, time.UTC)
	want := mail.Message{
		Kind: mail.Alert, From: mail.Address{Address: "a@example.com", Name: "\"Ä\" \\ 😀\t"},
		To: []mail.Address{{Address: "b@example.com"}, {Address: "c@example.com", Name: "C"}}, Cc: []mail.Address{{Address: "d@example.com"}},
		Bcc: []mail.Address{{Address: "e@example.com"}}, ReplyTo: []mail.Address{{Address: "f@example.com"}},
		Subject: "s, [x]: {y}", Text: "line\nline", HTML: "<b>&amp;</b>\u2028", ListUnsubscribe: "https://example.com/u",
		Attachments: []mail.Attachment{{Name: "n", ContentType: "image/png", ContentID: "i", Content: []byte{0, 1, 254, 255}}},
		Headers:     map[string]string{"X-A": "1", "X-B": ""}, SendAt: at, ExpiresAt: at.Add(time.Hour), Metadata: map[string]string{"k": "v"},
	}
	for name, encode := range map[string]func(any) ([]byte, error){
		"short": json.Marshal,
		"long":  func(v any) ([]byte, error) { return json.MarshalIndent(v, "\r\n", "\t") },
	} {
		body, err := encode(want)
		if err != nil {
			t.Fatal(err)
		}
		var got mail.Message
		if err := decode(body, &got, mostValues); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v\nwant %+v", name, got, err, want)
		}
	}
}

func TestDecodeReadsVariablesAsWritten(t *testing.T) {
	var b mail.Batch
	err := decode([]byte(`{"recipients": [{"variables": {"s": "x", "n": 10000000000000000000001, "f": 1.50, "t": true, "b": false, "o": {"x": [1]}, "z": null}}]}`), &b, mostValues)
	want := map[string]any{"s": "x", "n": json.Number("10000000000000000000001"), "f": json.Number("1.50"), "t": true, "b": false,
		"o": json.RawMessage(`{"x": [1]}`), "z": json.RawMessage("null")}
	if err != nil || len(b.Recipients) != 1 || !reflect.DeepEqual(b.Recipients[0].Variables, want) {
		t.Errorf("%#v, %v", b.Recipients, err)
	}
}

func TestDecodeTakesNullAndAnEmptyTimeAsAbsent(t *testing.T) {
	var m mail.Message
	if err := decode([]byte(`{"from": null, "to": null, "subject": null, "headers": null, "attachments": null, "send_at": "", "expires_at": null}`), &m, mostValues); err != nil {
		t.Error(err)
	}
	if !reflect.DeepEqual(m, mail.Message{}) {
		t.Errorf("%+v", m)
	}
}

func TestDecodeStopsAtTooManyValues(t *testing.T) {
	body := []byte(`{"message": {"metadata": {"a": "b"}}, "recipients": [{"to": [{}]}, {"to": [{"address": "x"}]}]}`)
	const values = 12
	if err := decode(body, &mail.Batch{}, values); err != nil {
		t.Fatal(err)
	}
	for most := range values {
		var p *Problem
		if err := decode(body, &mail.Batch{}, most); !errors.As(err, &p) || p.Type != bodyTooLarge.uri() {
			t.Errorf("at most %d: %v", most, err)
		}
	}
}

func TestDecodeTellsABoundedNumberOfFaults(t *testing.T) {
	var p *Problem
	err := decode([]byte(`{"to": [`+strings.Repeat("1,", 5*mostFaults)+`1]}`), &mail.Message{}, mostValues)
	if !errors.As(err, &p) || len(p.Errors) != mostFaults || !strings.Contains(p.Detail, "401 more") {
		t.Errorf("%v", err)
	}
}

func TestNearestName(t *testing.T) {
	names := []string{"kind", "from", "to", "cc", "bcc", "reply_to", "subject", "text", "html", "list_unsubscribe", "send_at"}
	for name, want := range map[string]string{
		"replyTo": "reply_to", "Reply-To": "reply_to", "subjet": "subject", "htm": "html", "sendAt": "send_at", "TO": "to",
		"listUnsubscribeUrl": "list_unsubscribe", "priority": "", "xy": "", "": "", strings.Repeat("x", 1000): "",
	} {
		if got := nearest(name, names); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

// FuzzDecode holds the decoder against encoding/json: what the one takes, the other takes, and reads the same from it.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		oneMessage, twoRecipients, "", "{", "[]", "null", `{"message": {"send_at": "2030-01-02T03:04:05+02:00"}}`, `{"to": [1, {"x": "]"}, []]}`,
		`{"recipients": [{"to": [{"address": "\ud83d\ude00\u00e4\/\\\""}], "variables": {"a": 1e5, "b": [{}], "c": "\ud800"}}, null]}`,
		`{"filter": {"ids": ["a", null], "from": "2030-01-02T03:04:05Z"}, "all": true, "dry_run": false}`, `{"all": "true", "dry_run": 1}`,
		`{"attachments": [{"content": "aGVs\nbG8="}, {"content": ""}]}`, "{\"subject\" : \"\xff\"}", `{"a~b/c": {}, "kind": -0.5E+7}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		against(t, body, &mail.Message{}, &mail.Message{})
		against(t, body, &mail.Batch{}, &mail.Batch{})
		against(t, body, &Selection{}, &Selection{})
	})
}

func against(t *testing.T, body []byte, got, want any) {
	t.Helper()
	if err := decode(body, got, mostValues); err != nil {
		var p *Problem
		if !errors.As(err, &p) || p.Status < 400 || p.Status > 422 || (p.Type == invalidRequest.uri() && len(p.Errors) == 0) {
			t.Fatalf("%T: not a problem of the client: %v", got, err)
		}
		return
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	d.UseNumber()
	if err := d.Decode(want); err != nil {
		if slices.ContainsFunc([]string{"_at", "from", "until"}, func(name string) bool { return bytes.Contains(body, []byte(name)) }) {
			return // an empty time, which we take as absent
		}
		t.Fatalf("%T: encoding/json: %v", got, err)
	}
	if a, b := plainJSON(t, got), plainJSON(t, want); !reflect.DeepEqual(a, b) {
		t.Fatalf("got  %v\nwant %v", a, b)
	}
}

// plainJSON takes away what does not count: the order of names, and space.
func plainJSON(t *testing.T, v any) any {
	t.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var out any
	if err := d.Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}
