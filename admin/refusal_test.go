package admin

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
	"github.com/postroom/postroom/queue"
)

// smallLimit is the largest body that the tests' API takes.
const smallLimit = 4096

// formOf and formPart make a form with files.
var formOf = []string{"Content-Type", "", "Content-Type", formData + "; boundary=b"}

func formPart(file, content string) string {
	name := ""
	if file != "" {
		name = `; filename="` + file + `"`
	}
	return "--b\r\nContent-Disposition: form-data; name=\"file\"" + name + "\r\n\r\n" + content + "\r\n"
}

func TestRefusals(t *testing.T) {
	a := serve(t, func(o *Options) { o.MaxBodyBytes = smallLimit })
	message := func(old, new string) string { return strings.Replace(oneMessage, old, new, 1) }
	batch := func(old, new string) string { return strings.Replace(twoRecipients, old, new, 1) }
	const id = "01JZ3Q8Y6M2V7T4K9RBC5XWDHE"

	tests := map[string]struct {
		method, path, token string // default: POST /v1/messages (or /v1/batches for a body with recipients), producer
		body                string
		header              []string
		want                refusal
		at                  string // locations, with commas
		reason              string // part of the first reason, or of the detail
	}{
		"no token":              {token: "-", body: oneMessage, want: unauthorized},
		"a wrong token":         {token: "wrong", body: oneMessage, want: unauthorized},
		"a token and more":      {token: producerToken + "x", body: oneMessage, want: unauthorized},
		"an empty token":        {token: "-", header: []string{"Authorization", "Bearer "}, body: oneMessage, want: unauthorized},
		"the hash of a token":   {token: hashOf(adminToken), body: oneMessage, want: unauthorized},
		"another scheme":        {token: "-", header: []string{"Authorization", "Basic " + producerToken}, body: oneMessage, want: unauthorized},
		"no scheme":             {token: "-", header: []string{"Authorization", producerToken}, body: oneMessage, want: unauthorized},
		"token in the query":    {token: "-", path: "/v1/messages?access_token=" + producerToken, body: oneMessage, want: unauthorized},
		"too low a role":        {path: "/v1/messages/" + id + "/cancel", want: forbidden, reason: "operator"},
		"too low for a batch":   {path: "/v1/batches/" + id + "/cancel", want: forbidden},
		"too low for mailboxes": {method: "GET", path: "/v1/mailboxes", want: forbidden, reason: "operator"},
		"too low for a mailbox": {method: "GET", path: "/v1/mailboxes/own@example.com", want: forbidden},
		"too low to pause one":  {path: "/v1/mailboxes/own@example.com/pause", body: onePause, want: forbidden},
		"too low to resume one": {path: "/v1/mailboxes/own@example.com/resume", want: forbidden},
		"too low to pause all":  {path: "/v1/pause", body: onePause, want: forbidden},
		"too low to resume all": {path: "/v1/resume", want: forbidden},
		"too low to list":       {method: "GET", path: "/v1/messages", want: forbidden, reason: "operator"},
		"too low for batches":   {method: "GET", path: "/v1/batches", want: forbidden},
		"too low to cancel all": {path: "/v1/messages/cancel", body: `{"all": true}`, want: forbidden},
		"too low for failed":    {method: "GET", path: "/v1/failed", want: forbidden, reason: "operator"},
		"too low to requeue":    {path: "/v1/failed/requeue", body: `{"all": true}`, want: forbidden},
		"too low to delete":     {path: "/v1/failed/delete", body: `{"all": true}`, want: forbidden},
		"too low to export":     {method: "GET", path: "/v1/failed/" + id + "/eml", want: forbidden},
		"no such path":          {path: "/v1/mesages", want: noSuchEndpoint},
		"no such path, no word": {token: "-", path: "/v1/mesages", want: unauthorized},
		"outside of the API":    {method: "GET", token: "-", path: "/docs", want: noSuchEndpoint},
		"wrong method":          {method: "DELETE", path: "/v1/messages/" + id, want: methodNotAllowed, reason: "GET, HEAD"},
		"no such message":       {method: "GET", path: "/v1/messages/" + id, want: notFound},
		"no such batch":         {method: "GET", path: "/v1/batches/" + id, want: notFound},
		"no id":                 {method: "GET", path: "/v1/messages/x", want: notFound},
		"a long id":             {method: "GET", path: "/v1/batches/" + strings.Repeat("x", 2000), want: notFound},
		"cancel of nothing":     {token: operatorToken, path: "/v1/batches/" + id + "/cancel", want: notFound},
		"unknown query":         {path: "/v1/batches?lisst=true", body: twoRecipients, want: invalidRequest, at: "query.lisst"},
		"list is no boolean":    {path: "/v1/batches?list=maybe", body: twoRecipients, want: invalidRequest, at: "query.list"},

		"idempotency key of non-ASCII": {header: []string{"Idempotency-Key", "schlüssel"}, body: oneMessage, want: badIdempotencyKey},
		"a long idempotency key":       {header: []string{"Idempotency-Key", strings.Repeat("k", 256)}, body: oneMessage, want: badIdempotencyKey},
		"two idempotency keys":         {header: []string{"Idempotency-Key", "a", "Idempotency-Key", "b"}, body: oneMessage, want: badIdempotencyKey},

		"no content type":      {header: []string{"Content-Type", ""}, body: oneMessage, want: wrongMediaType},
		"a form":               {header: []string{"Content-Type", "", "Content-Type", "application/x-www-form-urlencoded"}, body: "subject=x", want: wrongMediaType},
		"a broken type":        {header: []string{"Content-Type", "", "Content-Type", ";;"}, body: oneMessage, want: wrongMediaType},
		"UTF-16":               {header: []string{"Content-Type", "", "Content-Type", "application/json; charset=utf-16"}, body: oneMessage, want: wrongMediaType},
		"compressed":           {header: []string{"Content-Encoding", "gzip"}, body: oneMessage, want: wrongMediaType},
		"one byte too large":   {body: oneMessage + strings.Repeat(" ", smallLimit+1-len(oneMessage)), want: bodyTooLarge, reason: "4096"},
		"far too large":        {body: oneMessage + strings.Repeat(" ", 40*smallLimit), want: bodyTooLarge},
		"too large, no length": {body: oneMessage + strings.Repeat(" ", smallLimit), header: []string{"X-Test-Chunked", "yes"}, want: bodyTooLarge},
		"too large, no token":  {token: "-", body: strings.Repeat(" ", 2*smallLimit), want: unauthorized},

		"empty":            {header: []string{"Content-Type", "application/json"}, want: malformedJSON, reason: "empty"},
		"blank":            {body: " \n ", want: malformedJSON, reason: "empty"},
		"not JSON":         {body: "{\n\"kind\": 'report'}", want: malformedJSON, reason: "line 2, byte 9"},
		"cut off":          {body: oneMessage[:60], want: malformedJSON, reason: "stops being JSON at byte 60."},
		"trailing garbage": {body: "{}\n x", want: malformedJSON, reason: "line 2, byte 2"},
		"two objects":      {body: oneMessage + oneMessage, want: malformedJSON},
		"a byte order mark": {body: "\ufeff" + oneMessage, want: malformedJSON,
			reason: "line 1, byte 1"},
		"deep":                {body: strings.Repeat("[", 4000), want: malformedJSON},
		"not UTF-8":           {body: message("Numbers", "N\xfcmbers"), want: malformedJSON, reason: "UTF-8"},
		"half a surrogate":    {body: message("Numbers", `\ud83d`), want: invalidRequest, at: "/subject"},
		"a list":              {body: "[]", want: invalidRequest, at: ""},
		"null":                {body: "null", want: invalidRequest, at: ""},
		"unknown field":       {body: message(`"subject"`, `"subjekt"`), want: invalidRequest, at: "/subjekt", reason: `write "subject"`},
		"wrong case":          {body: message(`"subject"`, `"Subject"`), want: invalidRequest, at: "/Subject", reason: `write "subject"`},
		"camel case":          {body: message(`"subject"`, `"replyTo": [], "subject"`), want: invalidRequest, at: "/replyTo", reason: `write "reply_to"`},
		"unlike any field":    {body: message(`"subject"`, `"priority": 1, "subject"`), want: invalidRequest, at: "/priority", reason: "remove it"},
		"a name of anything":  {body: message(`"subject"`, `"a/b c": 1, "subject"`), want: invalidRequest, at: "", reason: "not known"},
		"unknown, deep":       {body: message(`"content":`, `"data":`), want: invalidRequest, at: "/attachments/0/data"},
		"unknown, recipient":  {body: batch(`"variables"`, `"variabels"`), want: invalidRequest, at: "/recipients/0/variabels", reason: `write "variables"`},
		"twice":               {body: message(`"subject"`, `"subject": "x", "subject"`), want: invalidRequest, at: "/subject", reason: "twice"},
		"metadata twice":      {body: message(`"run"`, `"run": "6", "run"`), want: invalidRequest, at: "/metadata/run", reason: "twice"},
		"to is no list":       {body: message(`[{"address": "ada@example.net", "name": "Ada"}]`, `"ada@example.net"`), want: invalidRequest, at: "/to", reason: "not a list"},
		"to has text":         {body: message(`[{"address": "ada@example.net", "name": "Ada"}]`, `["ada@example.net"]`), want: invalidRequest, at: "/to/0", reason: "not an object"},
		"a number as subject": {body: message(`"Numbers"`, "7"), want: invalidRequest, at: "/subject", reason: "not a string"},
		"metadata of numbers": {body: message(`"7"`, "7"), want: invalidRequest, at: "/metadata/run"},
		"a wrong time":        {body: message(`"subject"`, `"send_at": "tomorrow", "subject"`), want: invalidRequest, at: "/send_at", reason: "RFC 3339"},
		"wrong base64":        {body: message("aGVsbG8=", "aGVsbG8"), want: invalidRequest, at: "/attachments/0/content", reason: "base64"},
		"base64 of the web":   {body: message("aGVsbG8=", "_-__"), want: invalidRequest, at: "/attachments/0/content", reason: "base64"},
		"shape and all else": {body: `{"kind": "foo", "to": [{"address": "a example"}], "send_at": "x", "expires_at": "2001-02-03T04:05:06Z"}`, want: invalidRequest,
			at: "/send_at,/kind,/to/0/address,/text,/expires_at"},
		"what follows from shape is not told": {body: `{"kind": 7, "too": [], "html": 1, "subject": "a\nb"}`, want: invalidRequest, at: "/kind,/too,/html,/subject"},
		"no object, so nothing else":          {body: "7", want: invalidRequest, at: ""},
		"shape and all else, batch": {body: strings.NewReplacer("bob@example.net", "bob at home", `"name": "Ada"`, `"nam": "Ada"`, `"kind"`, `"kindd": 1, "kind"`).Replace(twoRecipients), want: invalidRequest,
			at: "/message/kindd,/recipients/0/variables/name,/recipients/0/variables/name,/recipients/1/to/0/address"},
		"everybody of a batch": {body: strings.ReplaceAll(twoRecipients, "@example.net", " at home"), want: invalidMessage, at: "/recipients/0/to/0/address,/recipients/1/to/0/address", reason: "is not an address"},
		"faults of shape, all at once": {body: `{"kind": 1, "to": [{"address": 2}, 3], "html": [], "x": {"y": [1, {"z": "}"}]}}`, want: invalidRequest,
			at: "/kind,/to/0/address,/to/1,/html,/x"},

		"nothing in it":     {body: "{}", want: invalidMessage, at: "/kind,/text,/to"},
		"an unknown kind":   {body: message("report", "newsletter"), want: invalidMessage, at: "/kind"},
		"a wrong address":   {body: message("ada@example.net", "ada at home"), want: invalidMessage, at: "/to/0/address"},
		"two addresses":     {body: message("ada@example.net", "ada@example.net, eve@example.net"), want: invalidMessage, at: "/to/0/address"},
		"header injection":  {body: message("Numbers", `Numbers\r\nBcc: eve@example.net`), want: invalidMessage, at: "/subject"},
		"injection by name": {body: message(`"Ada"`, `"Ada\r\nX: y"`), want: invalidMessage, at: "/to/0/name"},
		"injection by X-":   {body: message(`"subject"`, `"headers": {"X-Run": "1\nBcc: eve@example.net"}, "subject"`), want: invalidMessage, at: "/headers/X-Run"},
		"a header of ours":  {body: message(`"subject"`, `"headers": {"Sender": "eve@example.net"}, "subject"`), want: invalidMessage, at: "/headers/Sender"},
		"injection by file": {body: message("a.txt", `a.txt\"\r\nX: y`), want: invalidMessage, at: "/attachments/0/name"},
		"a path as file":    {body: message("a.txt", "../a.txt"), want: invalidMessage, at: "/attachments/0/name"},
		"expired":           {body: message(`"subject"`, `"expires_at": "2001-01-01T00:00:00Z", "subject"`), want: invalidMessage, at: "/expires_at"},
		"http unsubscribe":  {body: message(`"subject"`, `"list_unsubscribe": "http://example.com/u", "subject"`), want: invalidMessage, at: "/list_unsubscribe"},
		"faults, all at once": {body: message(`Numbers", "text": "42"`, `a\nb"`), want: invalidMessage,
			at: "/text,/subject"},

		"a page of nothing":       {method: "GET", token: operatorToken, path: "/v1/mailboxes?limit=0", want: invalidRequest, at: "query.limit"},
		"a page too long":         {method: "GET", token: operatorToken, path: "/v1/mailboxes?limit=1001", want: invalidRequest, at: "query.limit"},
		"a page of words":         {method: "GET", token: operatorToken, path: "/v1/mailboxes?limit=maybe", want: invalidRequest, at: "query.limit"},
		"a page by number":        {method: "GET", token: operatorToken, path: "/v1/mailboxes?page=2", want: invalidRequest, at: "query.page"},
		"no provider":             {method: "GET", token: operatorToken, path: "/v1/mailboxes/own@example.com", want: noSuchMailbox, reason: "POST /v1/pause"},
		"no provider to pause":    {token: operatorToken, path: "/v1/mailboxes/own@example.com/pause", body: onePause, want: noSuchMailbox, reason: "no provider is active"},
		"no provider to resume":   {token: operatorToken, path: "/v1/mailboxes/own@example.com/resume", want: noSuchMailbox},
		"everything as a mailbox": {token: operatorToken, path: "/v1/mailboxes/*/pause", body: onePause, want: noSuchMailbox, reason: "POST /v1/pause"},
		"a pause of nothing said": {token: operatorToken, path: "/v1/pause", header: []string{"Content-Type", "application/json"}, want: malformedJSON},
		"a pause as a form":       {token: operatorToken, path: "/v1/pause", header: []string{"Content-Type", ""}, body: onePause, want: wrongMediaType},
		"a pause too large":       {token: operatorToken, path: "/v1/pause", body: onePause + strings.Repeat(" ", smallLimit), want: bodyTooLarge},
		"a pause without reason":  {token: operatorToken, path: "/v1/pause", body: `{"duration": "2h"}`, want: invalidRequest, at: "/reason", reason: "say why"},
		"a pause for a blank":     {token: operatorToken, path: "/v1/pause", body: `{"reason": "  "}`, want: invalidRequest, at: "/reason", reason: "say why"},
		"a long reason":           {token: operatorToken, path: "/v1/pause", body: `{"reason": "` + strings.Repeat("é", 201) + `"}`, want: invalidRequest, at: "/reason", reason: "200"},
		"a reason of two lines":   {token: operatorToken, path: "/v1/pause", body: `{"reason": "one\ntwo"}`, want: invalidRequest, at: "/reason", reason: "one line"},
		"a reason that commands":  {token: operatorToken, path: "/v1/pause", body: `{"reason": "\u001b[2J"}`, want: invalidRequest, at: "/reason", reason: "one line"},
		"a pause for ever":        {token: operatorToken, path: "/v1/pause", body: `{"reason": "x", "duration": "31d"}`, want: invalidRequest, at: "/duration", reason: "30d"},
		"a pause, all wrong":      {token: operatorToken, path: "/v1/pause", body: `{"duration": "tomorrow"}`, want: invalidRequest, at: "/reason,/duration"},
		"a pause by number":       {token: operatorToken, path: "/v1/pause", body: `{"reason": "x", "duration": 7}`, want: invalidRequest, at: "/duration", reason: "not a string"},
		"a pause until":           {token: operatorToken, path: "/v1/pause", body: `{"reason": "x", "until": "2030"}`, want: invalidRequest, at: "/until"},
		"a pause by GET":          {method: "GET", token: operatorToken, path: "/v1/pause", want: methodNotAllowed, reason: "POST"},

		"listed, in no state":       {method: "GET", token: operatorToken, path: "/v1/messages?state=queued&state=open", want: invalidRequest, at: "query.state"},
		"listed, a page too long":   {method: "GET", token: operatorToken, path: "/v1/messages?limit=1001", want: invalidRequest, at: "query.limit"},
		"listed, times turned":      {method: "GET", token: operatorToken, path: "/v1/messages?accepted_after=2030-01-02T00:00:00Z&accepted_before=2030-01-01T23:59:59Z", want: invalidRequest, at: "query.accepted_before", reason: "not after accepted_after"},
		"listed, not a cursor":      {method: "GET", token: operatorToken, path: "/v1/messages?cursor=maybe", want: invalidRequest, at: "query.cursor", reason: "next"},
		"listed, empty":             {method: "GET", token: operatorToken, path: "/v1/messages?batch_id=&kind=alert&kind=report", want: invalidRequest, at: "query.batch_id,query.kind"},
		"listed, not an id":         {method: "GET", token: operatorToken, path: "/v1/messages?batch_id=x&id=maybe&recipient=ada", want: invalidRequest, at: "query.batch_id,query.recipient,query.id"},
		"batches, by an account":    {method: "GET", token: operatorToken, path: "/v1/batches?mailbox=mail.example.com:587", want: invalidRequest, at: "query.mailbox", reason: "account"},
		"batches, not a cursor":     {method: "GET", token: operatorToken, path: "/v1/batches?cursor=maybe", want: invalidRequest, at: "query.cursor", reason: "next"},
		"batches, times turned":     {method: "GET", token: operatorToken, path: "/v1/batches?accepted_after=2030-01-02T00:00:00Z&accepted_before=2030-01-01T00:00:00Z", want: invalidRequest, at: "query.accepted_before"},
		"a cancel of everything":    {token: operatorToken, path: "/v1/messages/cancel", body: `{"dry_run": true}`, want: invalidRequest, at: "/all", reason: "Nothing was cancelled"},
		"a cancel of all and some":  {token: operatorToken, path: "/v1/messages/cancel", body: `{"all": true, "filter": {"kind": "alert"}}`, want: invalidRequest, at: "/all", reason: "beside a filter"},
		"a cancel of no ids":        {token: operatorToken, path: "/v1/messages/cancel", body: `{"filter": {"ids": [], "states": []}}`, want: invalidRequest, at: "/filter/states,/filter/ids", reason: "nothing in it"},
		"a cancel of what failed":   {token: operatorToken, path: "/v1/messages/cancel", body: `{"filter": {"states": ["queued", "failed"]}}`, want: invalidRequest, at: "/filter/states/1", reason: "can be cancelled"},
		"a cancel mistyped":         {token: operatorToken, path: "/v1/messages/cancel", body: `{"filter": {"from": "2030-01-01T00:00:00Z"}}`, want: invalidRequest, at: "/filter/from"},
		"a cancel from elsewhere":   {token: operatorToken, path: "/v1/messages/cancel", body: `{"all": true, "cursor": "maybe"}`, want: invalidRequest, at: "/cursor"},
		"failed, of no kind":        {method: "GET", token: operatorToken, path: "/v1/failed?kind=newsletter", want: invalidRequest, at: "query.kind"},
		"failed, of no class":       {method: "GET", token: operatorToken, path: "/v1/failed?class=unknown&class=maybe", want: invalidRequest, at: "query.class"},
		"failed, classes by comma":  {method: "GET", token: operatorToken, path: "/v1/failed?class=unknown,permanent", want: invalidRequest, at: "query.class"},
		"failed, a page of nothing": {method: "GET", token: operatorToken, path: "/v1/failed?limit=0", want: invalidRequest, at: "query.limit"},
		"failed, a page too long":   {method: "GET", token: operatorToken, path: "/v1/failed?limit=1001", want: invalidRequest, at: "query.limit"},
		"failed, page 2":            {method: "GET", token: operatorToken, path: "/v1/failed?page=2", want: invalidRequest, at: "query.page"},
		"failed, tomorrow":          {method: "GET", token: operatorToken, path: "/v1/failed?from=tomorrow&until=2030-01-02", want: invalidRequest, at: "query.from,query.until", reason: "RFC 3339"},
		"failed, times turned":      {method: "GET", token: operatorToken, path: "/v1/failed?from=2030-01-02T00:00:00Z&until=2030-01-01T23:59:59.5Z", want: invalidRequest, at: "query.until", reason: "not after from"},
		"failed, not a cursor":      {method: "GET", token: operatorToken, path: "/v1/failed?cursor=maybe", want: invalidRequest, at: "query.cursor", reason: "next"},
		"failed, no recipient":      {method: "GET", token: operatorToken, path: "/v1/failed?recipient=ada+at+home", want: invalidRequest, at: "query.recipient", reason: "@ and a domain"},
		"failed, no domain":         {method: "GET", token: operatorToken, path: "/v1/failed?recipient=@a+b", want: invalidRequest, at: "query.recipient"},
		"failed, by an account":     {method: "GET", token: operatorToken, path: "/v1/failed?mailbox=mail.example.com:587", want: invalidRequest, at: "query.mailbox", reason: "account"},
		"failed, not an id":         {method: "GET", token: operatorToken, path: "/v1/failed?id=" + id + "&id=maybe&batch_id=x", want: invalidRequest, at: "query.batch_id,query.id", reason: "26"},
		"failed, empty variables":   {method: "GET", token: operatorToken, path: "/v1/failed?recipient=&id=&id=" + id, want: invalidRequest, at: "query.id,query.recipient", reason: "leave it out"},
		"failed, two kinds":         {method: "GET", token: operatorToken, path: "/v1/failed?kind=alert&kind=report", want: invalidRequest, at: "query.kind", reason: "twice"},
		"failed, more ids than fit": {method: "GET", token: operatorToken, path: "/v1/failed?" + strings.Repeat("id="+id+"&", 1000) + "id=" + id, want: invalidRequest, at: "query.id"},
		"export of nothing":         {method: "GET", token: operatorToken, path: "/v1/failed/" + id + "/eml", want: notFound},
		"export of no id":           {method: "GET", token: operatorToken, path: "/v1/failed/x/eml", want: notFound, reason: "26"},
		"no such view of failed":    {method: "GET", token: operatorToken, path: "/v1/failed/" + id, want: noSuchEndpoint},
		"a requeue by GET":          {method: "GET", token: operatorToken, path: "/v1/failed/requeue", want: methodNotAllowed, reason: "POST"},
		"a requeue of nothing said": {token: operatorToken, path: "/v1/failed/requeue", header: []string{"Content-Type", "application/json"}, want: malformedJSON},
		"a requeue as a form":       {token: operatorToken, path: "/v1/failed/requeue", header: []string{"Content-Type", ""}, body: `{"all": true}`, want: wrongMediaType},
		"a requeue too large":       {token: operatorToken, path: "/v1/failed/requeue", body: `{"all": true}` + strings.Repeat(" ", smallLimit), want: bodyTooLarge},
		"a requeue of everything":   {token: operatorToken, path: "/v1/failed/requeue", body: `{}`, want: invalidRequest, at: "/all", reason: "Nothing was requeued"},
		"a requeue of an empty one": {token: operatorToken, path: "/v1/failed/requeue", body: `{"filter": {"kind": "", "until": null}, "dry_run": true}`, want: invalidRequest, at: "/all", reason: "if filter is empty"},
		"a requeue of all and some": {token: operatorToken, path: "/v1/failed/requeue", body: `{"filter": {"kind": "report"}, "all": true}`, want: invalidRequest, at: "/all", reason: "beside a filter"},
		"a requeue of no ids":       {token: operatorToken, path: "/v1/failed/requeue", body: `{"filter": {"kind": "report", "ids": [], "classes": []}}`, want: invalidRequest, at: "/filter/classes,/filter/ids", reason: "nothing in it"},
		"all, and a list of none":   {token: operatorToken, path: "/v1/failed/requeue", body: `{"filter": {"ids": []}, "all": true}`, want: invalidRequest, at: "/filter/ids,/all"},
		"a requeue of unknown":      {token: operatorToken, path: "/v1/failed/requeue", body: `{"filter": {"kinds": "report"}, "dryrun": true}`, want: invalidRequest, at: "/filter/kinds,/dryrun", reason: `write "kind"`},
		"a requeue of all, as text": {token: operatorToken, path: "/v1/failed/requeue", body: `{"all": "maybe", "dry_run": 1}`, want: invalidRequest, at: "/all,/dry_run", reason: "true nor false"},
		"a requeue in query":        {token: operatorToken, path: "/v1/failed/requeue?all=true", body: `{"all": true}`, want: invalidRequest, at: "query.all"},
		"a requeue, all wrong":      {token: operatorToken, path: "/v1/failed/requeue", body: `{"filter": {"kind": "newsletter", "classes": ["permanent", "maybe"], "mailbox": "ada at home", "batch_id": "1", "recipient": "ada", "ids": ["` + id + `", "x"]}}`, want: invalidRequest, at: "/filter/kind,/filter/classes/1,/filter/mailbox,/filter/batch_id,/filter/recipient,/filter/ids/1"},
		"a requeue, times turned":   {token: operatorToken, path: "/v1/failed/requeue", body: `{"filter": {"from": "2030-01-02T00:00:00Z", "until": "2030-01-01T00:00:00Z"}}`, want: invalidRequest, at: "/filter/until", reason: "Nothing was requeued"},
		"a requeue, a wrong time":   {token: operatorToken, path: "/v1/failed/requeue", body: `{"filter": {"from": "tomorrow"}}`, want: invalidRequest, at: "/filter/from", reason: "RFC 3339"},
		"a requeue, not a cursor":   {token: operatorToken, path: "/v1/failed/requeue", body: `{"all": true, "cursor": "maybe"}`, want: invalidRequest, at: "/cursor", reason: "next"},
		"a delete of everything":    {token: operatorToken, path: "/v1/failed/delete", body: `{"dry_run": false}`, want: invalidRequest, at: "/all", reason: "Nothing was deleted"},
		"a delete, not a cursor":    {token: adminToken, path: "/v1/failed/delete", body: `{"filter": {"recipient": "@example.net"}, "cursor": "12"}`, want: invalidRequest, at: "/cursor", reason: "Nothing was deleted"},

		"too low for the provider": {method: "GET", path: "/v1/provider", want: forbidden, reason: "operator"},
		"too low for the audit":    {method: "GET", path: "/v1/audit", want: forbidden, reason: "operator"},
		"too low to set one":       {method: "PUT", token: operatorToken, path: "/v1/provider", body: byRelay, want: forbidden, reason: "admin"},
		"too low to clear it":      {method: "DELETE", token: operatorToken, path: "/v1/provider", want: forbidden},
		"too low to verify":        {token: operatorToken, path: "/v1/provider/verify", body: `{}`, want: forbidden},
		"too low to test":          {token: operatorToken, path: "/v1/provider/test", body: `{"to": "ada@example.net"}`, want: forbidden},
		"too low to reseal":        {token: operatorToken, path: "/v1/provider/reseal", want: forbidden},
		"a provider as a form":     {method: "PUT", token: adminToken, path: "/v1/provider", header: []string{"Content-Type", ""}, body: byRelay, want: wrongMediaType},
		"a provider of nothing":    {method: "PUT", token: adminToken, path: "/v1/provider", header: []string{"Content-Type", "application/json"}, want: malformedJSON, reason: "empty"},
		"a provider too large":     {method: "PUT", token: adminToken, path: "/v1/provider", body: byRelay + strings.Repeat(" ", smallLimit), want: bodyTooLarge},
		"a provider by text":       {method: "PUT", token: adminToken, path: "/v1/provider", body: `{"smtp": {"port": "587", "auth": "maybe"}}`, want: invalidRequest, at: "/smtp/port,/smtp/auth", reason: "not a whole number"},
		"a provider in query":      {method: "PUT", token: adminToken, path: "/v1/provider?kind=none", body: byRelay, want: invalidRequest, at: "query.kind"},
		"a provider, maybe tried":  {method: "PUT", token: adminToken, path: "/v1/provider?verify=maybe", body: byRelay, want: invalidRequest, at: "query.verify"},
		"a provider by POST":       {token: adminToken, path: "/v1/provider", body: byRelay, want: methodNotAllowed, reason: "PUT"},
		"a verify by GET":          {method: "GET", token: adminToken, path: "/v1/provider/verify", want: methodNotAllowed, reason: "POST"},
		"a verify of nothing said": {token: adminToken, path: "/v1/provider/verify", header: []string{"Content-Type", "application/json"}, want: malformedJSON},
		"a verify of the unknown":  {token: adminToken, path: "/v1/provider/verify", body: `{"settings": {"kind": "smtp", "smtp": {"hostname": "maybe"}}}`, want: invalidRequest, at: "/settings/smtp/hostname"},
		"a test to nobody":         {token: adminToken, path: "/v1/provider/test", body: `{}`, want: invalidRequest, at: "/to", reason: "Nothing was sent"},
		"a test to no address":     {token: adminToken, path: "/v1/provider/test", body: `{"to": "ada at home"}`, want: invalidRequest, at: "/to"},
		"a test to a list":         {token: adminToken, path: "/v1/provider/test", body: `{"to": ["ada@example.net"]}`, want: invalidRequest, at: "/to", reason: "not a string"},
		"audit, a page of nothing": {method: "GET", token: operatorToken, path: "/v1/audit?limit=0", want: invalidRequest, at: "query.limit"},
		"audit, a page too long":   {method: "GET", token: operatorToken, path: "/v1/audit?limit=1001", want: invalidRequest, at: "query.limit"},
		"audit, page 2":            {method: "GET", token: operatorToken, path: "/v1/audit?page=2", want: invalidRequest, at: "query.page"},
		"audit, not a cursor":      {method: "GET", token: operatorToken, path: "/v1/audit?cursor=maybe", want: invalidRequest, at: "query.cursor", reason: "next"},
		"audit, a cursor and more": {method: "GET", token: operatorToken, path: "/v1/audit?cursor=1-0,2-0", want: invalidRequest, at: "query.cursor"},
		"audit, a cursor too long": {method: "GET", token: operatorToken, path: "/v1/audit?cursor=" + strings.Repeat("1", 65), want: invalidRequest, at: "query.cursor"},
		"an entry of the audit":    {method: "DELETE", token: adminToken, path: "/v1/audit", want: methodNotAllowed, reason: "GET"},

		"a file of no type":     {path: "/v1/contents?name=a.pdf", header: []string{"Content-Type", "", "Content-Type", "maybe"}, body: "x", want: invalidContent, at: "header.Content-Type"},
		"a file of no name":     {path: "/v1/contents", header: []string{"Content-Type", "", "Content-Type", "text/plain"}, body: "x", want: invalidContent, at: "query.name"},
		"a file with folders":   {path: "/v1/contents?name=../maybe", header: []string{"Content-Type", "", "Content-Type", "text/plain"}, body: "x", want: invalidContent, at: "query.name"},
		"a compressed file":     {path: "/v1/contents?name=a.txt", header: []string{"Content-Encoding", "gzip"}, body: "x", want: wrongMediaType},
		"a form of two files":   {path: "/v1/contents", header: formOf, body: formPart("a.txt", "1") + formPart("b.txt", "2") + "--b--\r\n", want: invalidRequest, reason: "one part"},
		"a form of no file":     {path: "/v1/contents", header: formOf, body: formPart("", "1") + "--b--\r\n", want: invalidRequest, reason: "one part"},
		"an empty form":         {path: "/v1/contents", header: formOf, body: "--b--\r\n", want: invalidRequest, reason: "one part"},
		"a form cut off":        {path: "/v1/contents", header: formOf, body: formPart("a.txt", "1"), want: incompleteBody},
		"a form cut in a file":  {path: "/v1/contents", header: formOf, body: strings.TrimSuffix(formPart("a.txt", "1"), "\r\n"), want: incompleteBody},
		"a form without bounds": {path: "/v1/contents", header: []string{"Content-Type", "", "Content-Type", formData}, body: "x", want: incompleteBody},
		"no such file":          {method: "GET", path: "/v1/contents/" + id, want: noSuchContent},
		"a file of no id":       {method: "GET", path: "/v1/contents/x", want: noSuchContent, reason: "26"},
		"a file unknown":        {body: message(`"content": "aGVsbG8="`, `"ref": "`+id+`"`), want: invalidMessage, at: "/attachments/0/ref", reason: "POST /v1/contents"},
		"a file twice":          {body: message(`"content":`, `"ref": "`+id+`", "content":`), want: invalidMessage, at: "/attachments/0/ref", reason: "beside content"},
		"a size of one's own":   {body: message(`"content":`, `"-": 1, "content":`), want: invalidRequest, at: "/attachments/0/-"},
		"a batch's file":        {body: batch(`"subject"`, `"attachments": [{"ref": "`+id+`"}], "subject"`), want: invalidMessage, at: "/message/attachments/0/ref"},

		"a batch of nobody":        {body: `{"message": {"kind": "report", "subject": "s", "text": "t"}, "recipients": []}`, want: invalidMessage, at: "/recipients"},
		"a batch with to":          {body: batch(`"subject"`, `"to": [{"address": "ada@example.net"}], "subject"`), want: invalidMessage, at: "/message/to"},
		"a wrong template":         {body: batch("Hello {{.name}}", "Hello {{.name"), want: invalidMessage, at: "/message/subject"},
		"a template that loops":    {body: batch("Dear {{.name}}", "{{range .name}}x{{end}}"), want: invalidMessage, at: "/message/text"},
		"injection into a batch":   {body: batch("Hello {{.name}}", `Hello\r\nBcc: eve@example.net`), want: invalidMessage, at: "/message/subject"},
		"a batch's message is off": {body: batch(`"kind": "subscription"`, `"kind": true`), want: invalidRequest, at: "/message/kind"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := cmp.Or(test.path, "/v1/messages")
			if test.path == "" && strings.Contains(test.body, `"recipients"`) {
				path = "/v1/batches"
			}
			token := strings.TrimPrefix(cmp.Or(test.token, producerToken), "-")
			r := a.call(t, cmp.Or(test.method, "POST"), path, token, test.body, test.header...)
			p := r.problem(t)
			if p.Type != test.want.uri() || p.Status != test.want.status {
				t.Fatalf("got %d %s, want %d %s: %s", p.Status, p.Type, test.want.status, test.want.uri(), r.body)
			}
			var at []string
			text := p.Detail
			for _, f := range p.Errors {
				at = append(at, f.Location)
				text += "; " + f.Reason
			}
			if got := strings.Join(at, ","); got != test.at {
				t.Errorf("locations %s, want %s", got, test.at)
			}
			if !strings.Contains(text, test.reason) {
				t.Errorf("%q does not say %q", text, test.reason)
			}
			if got := r.header.Get("WWW-Authenticate"); (got == "Bearer") != (p.Status == 401) {
				t.Errorf("WWW-Authenticate: %q with %d", got, p.Status)
			}
			for _, value := range []string{"ada@example.net", "eve@example.net", "Numbers", "ada at home", "maybe", "newsletter", "tomorrow"} {
				if strings.Contains(string(r.body), value) {
					t.Errorf("the answer repeats %q: %s", value, r.body)
				}
			}
		})
	}
	if n := a.open(t); n != 0 {
		t.Errorf("%d messages were accepted from requests that were refused", n)
	}
	if keys := a.redis.Keys(); slices.ContainsFunc(keys, func(k string) bool { return strings.Contains(k, ":c:") || strings.Contains(k, ":m:") }) {
		t.Errorf("refused requests left keys: %v", keys)
	}
}

func TestTheAnswerToManyFaultsIsBounded(t *testing.T) {
	a := serve(t, nil)
	wrong := strings.Repeat(`{"address": "x"},`, mostInvalid+6) + `{"address": "x"}`
	p := a.call(t, "POST", "/v1/messages", producerToken, `{"kind": "alert", "subject": "s", "text": "t", "to": [`+wrong+`]}`).problem(t)
	if p.Type != invalidMessage.uri() || len(p.Errors) != mostInvalid || !strings.Contains(p.Detail, "7 more") {
		t.Errorf("%d errors, %s", len(p.Errors), p.Detail)
	}
}

func TestNobodyGetsInWithoutAToken(t *testing.T) {
	a := serve(t, nil)
	paths := 0
	for path, item := range newHandler(Options{}, a.queue).api.OpenAPI().Paths {
		for method, op := range map[string]bool{"GET": item.Get != nil, "POST": item.Post != nil, "PUT": item.Put != nil, "DELETE": item.Delete != nil} {
			if !op || !strings.HasPrefix(path, "/v1/") {
				continue
			}
			paths++
			if p := a.call(t, method, path, "", "").problem(t); p.Type != unauthorized.uri() {
				t.Errorf("%s %s: %+v", method, path, p)
			}
		}
	}
	if paths != 31 {
		t.Errorf("%d operations were tried, want 31", paths)
	}
}

func TestWithoutTokensConfiguredTheAPIIsClosed(t *testing.T) {
	for name, tokens := range map[string][]Token{
		"none":         nil,
		"no such role": {{Name: "app", Role: "root", SHA256: hashOf(producerToken)}},
		"the token itself where its hash belongs": {{Name: "app", Role: "admin", SHA256: producerToken}},
		"half a hash":                {{Name: "app", Role: "admin", SHA256: hashOf(producerToken)[:32]}},
		"an empty hash":              {{Name: "app", Role: "admin", SHA256: ""}},
		"the hash of an empty token": {{Name: "app", Role: "admin", SHA256: hashOf("")}},
	} {
		t.Run(name, func(t *testing.T) {
			a := serve(t, func(o *Options) { o.Tokens = tokens })
			for _, token := range []string{"", producerToken} {
				p := a.call(t, "POST", "/v1/messages", token, oneMessage).problem(t)
				if p.Type != noTokens.uri() || p.Status != 401 || !strings.Contains(p.Detail, "auth.tokens") {
					t.Errorf("%+v", p)
				}
			}
			if ignored := strings.Contains(a.log.String(), "token ignored"); ignored != (tokens != nil) {
				t.Errorf("log: %s", a.log)
			}
			if strings.Contains(a.log.String(), producerToken) {
				t.Error("a token is in the log")
			}
		})
	}
}

func TestEachRoleMayDoWhatThoseBelowMay(t *testing.T) {
	a := serve(t, nil)
	const id = "01JZ3Q8Y6M2V7T4K9RBC5XWDHE"
	for token, may := range map[string]int{producerToken: 403, operatorToken: 404, adminToken: 404} {
		if r := a.call(t, "POST", "/v1/messages", token, oneMessage); r.status != 202 {
			t.Errorf("%s: enqueue: %d", token, r.status)
		}
		if r := a.call(t, "POST", "/v1/messages/"+id+"/cancel", token, ""); r.status != may {
			t.Errorf("%s: cancel: %d, want %d", token, r.status, may)
		}
	}
}

func TestAClientSeesWhyItsLargeBodyIsRefused(t *testing.T) {
	a := serve(t, func(o *Options) { o.MaxBodyBytes = 1 << 20 })
	large := strings.Repeat(" ", 2<<20-100)
	dialog := func(head string) *http.Response {
		t.Helper()
		conn, err := net.Dial("tcp", a.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		// A client of the simple sort: it writes all, then reads. The kernel must not take the body off its hands.
		if err := conn.(*net.TCPConn).SetWriteBuffer(16 << 10); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, head); err != nil {
			t.Fatalf("write: %v", err)
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		t.Cleanup(func() { _ = response.Body.Close() })
		return response
	}
	head := "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer " + producerToken + "\r\n"
	length := fmt.Sprintf("Content-Length: %d\r\n", len(large))

	if r := dialog(head + length + "\r\n" + large); r.StatusCode != 413 || !r.Close {
		t.Errorf("too large: %d, close %v", r.StatusCode, r.Close)
	}
	chunked := fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(large), large)
	if r := dialog(head + chunked); r.StatusCode != 413 || !r.Close {
		t.Errorf("too large, chunked: %d, close %v", r.StatusCode, r.Close)
	}
	if r := dialog(strings.Replace(head, producerToken, "wrong", 1) + "Content-Length: 1000000\r\n\r\n" + large[:1_000_000]); r.StatusCode != 401 {
		t.Errorf("wrong token: %d", r.StatusCode)
	}
	// Who waits for 100 Continue gets the refusal at once, and sends nothing.
	if r := dialog(head + length + "Expect: 100-continue\r\n\r\n"); r.StatusCode != 413 || !r.Close {
		t.Errorf("with Expect: %d, close %v", r.StatusCode, r.Close)
	}
}

// faulty is a queue in which everything goes wrong in the same way.
type faulty struct{ fail func() error }

func (f faulty) Enqueue(context.Context, mail.Message, ...queue.Option) (queue.Receipt, error) {
	return queue.Receipt{}, f.fail()
}
func (f faulty) EnqueueBatch(context.Context, mail.Batch, ...queue.Option) (queue.BatchReceipt, error) {
	return queue.BatchReceipt{}, f.fail()
}
func (f faulty) OpenBatch(context.Context, mail.Message, ...queue.Option) (*queue.BatchStream, error) {
	return nil, f.fail()
}
func (f faulty) Message(context.Context, string) (*queue.MessageStatus, error) { return nil, f.fail() }
func (f faulty) Batch(context.Context, string) (*queue.BatchStatus, error)     { return nil, f.fail() }
func (f faulty) CancelMessage(context.Context, string, ...queue.Option) error  { return f.fail() }
func (f faulty) Messages(context.Context, queue.MessageFilter, string, int) (queue.MessagePage, error) {
	return queue.MessagePage{}, f.fail()
}
func (f faulty) Batches(context.Context, queue.BatchFilter, string, int) (queue.BatchPage, error) {
	return queue.BatchPage{}, f.fail()
}
func (f faulty) CancelMessages(context.Context, queue.MessageFilter, queue.SelectionOptions) (queue.SelectionStep, error) {
	return queue.SelectionStep{}, f.fail()
}
func (f faulty) CancelBatch(context.Context, string, ...queue.Option) error { return f.fail() }
func (f faulty) Outlook(context.Context, *queue.MessageStatus) (*queue.Outlook, error) {
	return nil, f.fail()
}
func (f faulty) BatchOutlook(context.Context, *queue.BatchStatus) (*queue.Outlook, error) {
	return nil, f.fail()
}
func (f faulty) Mailboxes(context.Context) ([]*queue.Mailbox, error)     { return nil, f.fail() }
func (f faulty) Mailbox(context.Context, string) (*queue.Mailbox, error) { return nil, f.fail() }
func (f faulty) Pause(context.Context, string, time.Duration, string, queue.Author) (time.Time, error) {
	return time.Time{}, f.fail()
}
func (f faulty) Resume(context.Context, string, queue.Author) (bool, error) { return false, f.fail() }
func (f faulty) Failed(context.Context, queue.FailedFilter, string, int) (queue.FailedPage, error) {
	return queue.FailedPage{}, f.fail()
}
func (f faulty) Requeue(context.Context, queue.FailedFilter, queue.SelectionOptions) (queue.SelectionStep, error) {
	return queue.SelectionStep{}, f.fail()
}
func (f faulty) DeleteFailed(context.Context, queue.FailedFilter, queue.SelectionOptions) (queue.SelectionStep, error) {
	return queue.SelectionStep{}, f.fail()
}
func (f faulty) Provider(context.Context) (*queue.Provider, error) { return nil, f.fail() }
func (f faulty) Health(context.Context) (*queue.Health, error)     { return nil, f.fail() }
func (f faulty) ActivateProvider(context.Context, queue.ProviderChange) (string, error) {
	return "", f.fail()
}
func (f faulty) ResealProvider(context.Context, *queue.Provider, string, queue.AuditEntry) error {
	return f.fail()
}
func (f faulty) Underway(context.Context) (int, error)       { return 0, f.fail() }
func (f faulty) Release(context.Context, string, bool) error { return f.fail() }
func (f faulty) Take(context.Context, queue.Ration, string) (time.Duration, error) {
	return 0, f.fail()
}
func (f faulty) Note(context.Context, queue.AuditEntry) error { return f.fail() }
func (f faulty) Audit(context.Context, string, int) ([]queue.AuditEntry, error) {
	return nil, f.fail()
}
func (f faulty) Outgoing(context.Context, string) (*mail.Outgoing, error) { return nil, f.fail() }
func (f faulty) StoreContent(context.Context, string, string, io.Reader) (*queue.StoredContent, error) {
	return nil, f.fail()
}
func (f faulty) Content(context.Context, string) (*queue.StoredContent, error) { return nil, f.fail() }
func (f faulty) Limits() mail.Limits                                           { return mail.Limits{} }
func (f faulty) Ping(context.Context) error                                    { return f.fail() }
func (f faulty) LogLevel(context.Context) (*queue.LogLevel, error)             { return nil, f.fail() }
func (f faulty) SetLogLevel(context.Context, slog.Level, time.Duration, queue.Author) (*queue.LogLevel, error) {
	return nil, f.fail()
}
func (f faulty) ResetLogLevel(context.Context, queue.Author) error { return f.fail() }

// late is a queue that knows of everything, and then fails.
type late struct {
	faulty
	mailboxes []*queue.Mailbox
}

func (l late) Message(context.Context, string) (*queue.MessageStatus, error) {
	return &queue.MessageStatus{State: queue.Queued}, nil
}
func (l late) Batch(context.Context, string) (*queue.BatchStatus, error) {
	return &queue.BatchStatus{Open: 1}, nil
}
func (l late) Mailboxes(context.Context) ([]*queue.Mailbox, error) { return l.mailboxes, nil }

func TestEachFaultOfTheQueueHasItsAnswer(t *testing.T) {
	tests := map[string]struct {
		fail       func() error
		want       refusal
		retryAfter string
	}{
		"full":           {func() error { return queue.ErrFull }, full, "30"},
		"backlog":        {func() error { return queue.ErrBacklogFull }, backlogFull, "30"},
		"staging":        {func() error { return queue.ErrStagingExpired }, tookTooLong, "5"},
		"not replicated": {func() error { return fmt.Errorf("%w (%w)", queue.ErrNotReplicated, io.EOF) }, notReplicated, "5"},
		"conflict":       {func() error { return queue.ErrIdempotencyConflict }, idempotencyConflict, ""},
		"not found":      {func() error { return queue.ErrNotFound }, notFound, ""},
		"too late":       {func() error { return queue.ErrTooLate }, tooLate, ""},
		"ended":          {func() error { return queue.ErrEnded }, notFailed, ""},
		"invalid":        {func() error { return &mail.Invalid{Problems: []mail.Problem{{Field: "/to", Reason: "is off"}}} }, invalidMessage, ""},
		"refused dial":   {func() error { return &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED} }, unavailable, "5"},
		"cut":            {func() error { return io.EOF }, unavailable, "5"},
		"deadline":       {func() error { return context.DeadlineExceeded }, unavailable, "5"},
		"pool":           {func() error { return redis.ErrPoolTimeout }, unavailable, "5"},
		"closed":         {func() error { return redis.ErrClosed }, unavailable, "5"},
		"another fault":  {func() error { return errors.New("queue: record: no payload line") }, internal, ""},
		"panic":          {func() error { panic("ada@example.net") }, internal, ""},
		"panic of Go":    {func() error { return []error{}[len(testTokens())] }, internal, ""},
		"panic of error": {func() error { panic(errors.New("ada@example.net")) }, internal, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			log := &logbook{}
			fail := func() error {
				if err := test.fail(); errors.As(err, new(*mail.Invalid)) {
					return err
				} else {
					return fmt.Errorf("queue: step: %w", err)
				}
			}
			server := httptest.NewServer(newHandler(Options{Tokens: testTokens(), Logger: log.logger(), Providers: &Providers{}}, faulty{fail}))
			defer server.Close()
			a := &api{Server: server}
			const id = "/01JZ3Q8Y6M2V7T4K9RBC5XWDHE"
			replies := []reply{
				a.call(t, "POST", "/v1/messages", adminToken, oneMessage),
				a.call(t, "POST", "/v1/batches", adminToken, twoRecipients),
				a.call(t, "GET", "/v1/messages"+id, adminToken, ""),
				a.call(t, "GET", "/v1/batches"+id, adminToken, ""),
				a.call(t, "POST", "/v1/messages"+id+"/cancel", adminToken, ""),
				a.call(t, "POST", "/v1/batches"+id+"/cancel", adminToken, ""),
				a.call(t, "GET", "/v1/mailboxes", adminToken, ""),
				a.call(t, "GET", "/v1/mailboxes/own@example.com", adminToken, ""),
				a.call(t, "POST", "/v1/mailboxes/own@example.com/pause", adminToken, onePause),
				a.call(t, "POST", "/v1/mailboxes/own@example.com/resume", adminToken, ""),
				a.call(t, "POST", "/v1/pause", adminToken, onePause),
				a.call(t, "POST", "/v1/resume", adminToken, ""),
				a.call(t, "GET", "/v1/failed"+id+"/eml", adminToken, ""),
				a.call(t, "GET", "/v1/provider", adminToken, ""),
				a.call(t, "PUT", "/v1/provider", adminToken, byRelay),
				a.call(t, "DELETE", "/v1/provider", adminToken, ""),
				a.call(t, "POST", "/v1/provider/verify", adminToken, `{}`),
				a.call(t, "POST", "/v1/provider/test", adminToken, `{"to": "ada@example.net"}`),
				a.call(t, "POST", "/v1/provider/reseal", adminToken, ""),
				a.call(t, "GET", "/v1/audit", adminToken, ""),
				a.call(t, "GET", "/v1/log", adminToken, ""),
				a.call(t, "PUT", "/v1/log", adminToken, `{"level": "debug"}`),
				a.call(t, "DELETE", "/v1/log", adminToken, ""),
			}
			if test.want != invalidMessage { // what it finds wrong with a filter is no fault of a message
				replies = append(replies,
					a.call(t, "GET", "/v1/failed", adminToken, ""),
					a.call(t, "POST", "/v1/failed/requeue", adminToken, `{"all": true}`),
					a.call(t, "POST", "/v1/failed/delete", adminToken, `{"all": true}`))
			}
			for _, r := range replies {
				if p := r.problem(t); p.Type != test.want.uri() || r.header.Get("Retry-After") != test.retryAfter {
					t.Errorf("%d %s, Retry-After %q", p.Status, p.Type, r.header.Get("Retry-After"))
				}
			}
			if logged := strings.Contains(log.String(), `"level":"ERROR"`); logged != (test.want == internal || test.want == unavailable) {
				t.Errorf("log: %s", log)
			}
			if strings.Contains(log.String(), "ada@example.net") {
				t.Errorf("the log has what was thrown: %s", log)
			}
		})
	}
}

func TestAFaultHalfWayHasItsAnswer(t *testing.T) {
	known := []*queue.Mailbox{{Key: "own@example.com"}}
	fail := func() error { return fmt.Errorf("queue: step: %w", io.EOF) }
	server := httptest.NewServer(newHandler(Options{Tokens: testTokens()}, late{faulty{fail}, known}))
	defer server.Close()
	a := &api{Server: server}
	const id = "/01JZ3Q8Y6M2V7T4K9RBC5XWDHE"
	for _, r := range []reply{
		a.call(t, "GET", "/v1/messages"+id, adminToken, ""),
		a.call(t, "GET", "/v1/batches"+id, adminToken, ""),
		a.call(t, "GET", "/v1/mailboxes/other@example.com", adminToken, ""),
		a.call(t, "POST", "/v1/mailboxes/own@example.com/pause", adminToken, onePause),
		a.call(t, "POST", "/v1/mailboxes/own@example.com/resume", adminToken, ""),
	} {
		if p := r.problem(t); p.Type != unavailable.uri() {
			t.Errorf("%d %s", p.Status, p.Type)
		}
	}
}

func TestARedisThatIsAwayIs503(t *testing.T) {
	a := serve(t, nil)
	a.redis.Close()
	p := a.call(t, "POST", "/v1/messages", producerToken, oneMessage)
	if got := p.problem(t); got.Type != unavailable.uri() || p.header.Get("Retry-After") != "5" {
		t.Errorf("%+v", got)
	}
	a2 := serve(t, nil)
	a2.redis.SetError("LOADING Redis is loading the dataset in memory")
	if got := a2.call(t, "GET", "/v1/messages/01JZ3Q8Y6M2V7T4K9RBC5XWDHE", producerToken, "").problem(t); got.Type != unavailable.uri() {
		t.Errorf("loading: %+v", got)
	}
}

func TestNothingPrivateIsLogged(t *testing.T) {
	a := serve(t, func(o *Options) { o.MaxBodyBytes = smallLimit })
	private := []string{"ada@", "bob@", "Numbers", "Dear", "a.txt", "aGVsbG8", "hello", "run\":\"7", "secret", "key-of-mine", hashOf(producerToken)}
	for _, token := range []string{producerToken, "wrong-secret"} {
		for _, body := range []string{oneMessage, twoRecipients, oneMessage[:80], oneMessage + strings.Repeat(" ", smallLimit),
			strings.ReplaceAll(oneMessage, "example.net", ""), strings.Replace(oneMessage, "subject", "Numbers", 1)} {
			for _, path := range []string{"/v1/messages", "/v1/batches", "/v1/batches?list=secret", "/v1/secret"} {
				a.call(t, "POST", path, token, body, "Idempotency-Key", "key-of-mine")
			}
		}
	}
	var accepted Accepted
	a.call(t, "POST", "/v1/messages", producerToken, oneMessage).decode(t, &accepted)
	a.call(t, "GET", "/v1/messages/"+accepted.ID, producerToken, "")
	a.redis.Close()
	a.call(t, "POST", "/v1/messages", producerToken, oneMessage)
	log := a.log.String()
	if !strings.Contains(log, `"code":202`) || !strings.Contains(log, "can't be reached") {
		t.Fatalf("the log is too short to prove anything: %s", log)
	}
	for _, p := range private {
		if strings.Contains(log, p) {
			t.Errorf("the log has %q", p)
		}
	}
}
