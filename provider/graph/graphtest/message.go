package graphtest

import (
	"encoding/base64"
	"net/http"
	netmail "net/mail"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/postroom/postroom/mail"
)

// The shapes of what a client may send. Properties that only the service sets are there too.
var (
	emailAddressShape = shape{"microsoft.graph.emailAddress", map[string]rule{"name": isString, "address": isString}}
	recipientShape    = shape{"microsoft.graph.recipient", map[string]rule{"emailAddress": emailAddressShape.check}}
	itemBodyShape     = shape{"microsoft.graph.itemBody", map[string]rule{"contentType": isOneOf("text", "html"), "content": isString}}
	headerShape       = shape{"microsoft.graph.internetMessageHeader", map[string]rule{"name": isString, "value": isString}}
	propertyShape     = shape{"microsoft.graph.singleValueLegacyExtendedProperty", map[string]rule{"id": isString, "value": isString}}
	fileShape         = shape{"microsoft.graph.fileAttachment", map[string]rule{
		"name": isString, "contentType": isString, "contentBytes": isBinary, "contentId": isString, "isInline": isBool,
		"contentLocation": isReadOnly, "id": isReadOnly, "lastModifiedDateTime": isReadOnly, "size": isInteger,
	}}
	attachmentItemShape = shape{"microsoft.graph.attachmentItem", map[string]rule{
		"attachmentType": isOneOf("file", "item", "reference"), "name": isString, "size": isInteger, "contentType": isString,
		"isInline": isBool, "contentId": isString,
	}}
	// messageShape is https://learn.microsoft.com/graph/api/resources/message.
	messageShape = shape{"microsoft.graph.message", map[string]rule{
		"subject": isString, "body": itemBodyShape.check, "internetMessageId": isString,
		"from": recipientShape.check, "sender": recipientShape.check, "replyTo": isListOf(recipientShape.check),
		"toRecipients": isListOf(recipientShape.check), "ccRecipients": isListOf(recipientShape.check), "bccRecipients": isListOf(recipientShape.check),
		"internetMessageHeaders":        isListOf(headerShape.check),
		"singleValueExtendedProperties": isListOf(propertyShape.check),
		"attachments":                   isListOf(isAttachment),
		"importance":                    isOneOf("low", "normal", "high"),
		"inferenceClassification":       isOneOf("focused", "other"),
		"isDeliveryReceiptRequested":    isBool, "isReadReceiptRequested": isBool, "isRead": isBool,
		"categories": isListOf(isString), "flag": isAnything, "multiValueExtendedProperties": isAnything,
		"id": isReadOnly, "changeKey": isReadOnly, "createdDateTime": isReadOnly, "lastModifiedDateTime": isReadOnly,
		"receivedDateTime": isReadOnly, "sentDateTime": isReadOnly, "hasAttachments": isReadOnly, "bodyPreview": isReadOnly,
		"conversationId": isReadOnly, "conversationIndex": isReadOnly, "parentFolderId": isReadOnly, "uniqueBody": isReadOnly,
		"webLink": isReadOnly, "isDraft": isReadOnly,
	}}
)

// isAttachment takes files only: "When creating a file attachment, include "@odata.type": "#microsoft.graph.fileAttachment", and
// the required properties name and contentBytes" (https://learn.microsoft.com/graph/api/resources/fileattachment).
func isAttachment(v any) *fault {
	o, ok := v.(map[string]any)
	if !ok {
		return fileShape.check(v)
	}
	switch kind, _ := o["@odata.type"].(string); strings.TrimPrefix(kind, "#") {
	case fileShape.name:
	case "microsoft.graph.itemAttachment", "microsoft.graph.referenceAttachment":
		return refuse(http.StatusNotImplemented, "NotImplemented", "Attachments other than files are not simulated.")
	default:
		return unreadable("Cannot create an instance of the abstract type 'microsoft.graph.attachment'.")
	}
	if fault := fileShape.check(v); fault != nil {
		return fault
	}
	for _, name := range []string{"name", "contentBytes"} {
		if o[name] == nil {
			return refuse(http.StatusBadRequest, "ErrorRequiredPropertyMissing", "Required property is missing: "+name+".")
		}
	}
	return nil
}

// readMessage checks a message and gives its properties.
func readMessage(value any) (object, *fault) {
	if fault := messageShape.check(value); fault != nil {
		return nil, fault
	}
	o := object(value.(map[string]any))
	if fault := checkHeaders(o); fault != nil {
		return nil, fault
	}
	return o, checkProperties(o)
}

// maxHeaders is from the error that more of them meet.
const maxHeaders = 5

// checkHeaders keeps the rules of internetMessageHeaders: https://learn.microsoft.com/answers/questions/762243 for the number,
// https://github.com/microsoftgraph/msgraph-sdk-dotnet/issues/2208 for none at all, and
// https://github.com/microsoftgraph/msgraph-sdk-dotnet/issues/2105 for the names.
func checkHeaders(o object) *fault {
	list, given := o.list("internetMessageHeaders")
	if !given {
		return nil
	}
	if n := len(list); n == 0 || n > maxHeaders {
		return refuse(http.StatusBadRequest, "InvalidInternetMessageHeaderCollection",
			"Maximum number of headers in one message should be less than or equal to "+strconv.Itoa(maxHeaders)+".")
	}
	for _, h := range list {
		name, value := h.text("name"), h.text("value")
		switch {
		case !strings.HasPrefix(name, "x-") && !strings.HasPrefix(name, "X-"):
			return refuse(http.StatusBadRequest, "InvalidInternetMessageHeader",
				"The internet message header name '"+name+"' should start with 'x-' or 'X-'.")
		case !headerName.MatchString(name) || value == "" || strings.ContainsAny(value, "\r\n\x00"):
			return refuse(http.StatusBadRequest, "InvalidInternetMessageHeader", "The internet message header '"+name+"' is not valid.")
		}
	}
	return nil
}

var (
	// headerName is that of RFC 5322, section 3.6.8.
	headerName = regexp.MustCompile(`^[!-9;-~]+$`)
	// propertyID has the three forms of https://learn.microsoft.com/graph/api/resources/extended-properties-overview#id-formats.
	// Tags are written with and without the type in their last four digits.
	propertyID = regexp.MustCompile(`^(Boolean|Binary|Currency|Double|Float|Integer|Long|Short|String|SystemTime|CLSID) ` +
		`(0x[0-9A-Fa-f]{1,8}|\{[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\} (Name .+|Id 0x[0-9A-Fa-f]{1,4}))$`)
)

func checkProperties(o object) *fault {
	list, _ := o.list("singleValueExtendedProperties")
	for _, p := range list {
		if !propertyID.MatchString(p.text("id")) {
			return refuse(http.StatusBadRequest, "ErrorInvalidExtendedProperty", "The specified extended property attribute combination is invalid.")
		}
	}
	return nil
}

// apply writes what was sent over m.
func (m *Message) apply(o object) {
	for name, to := range map[string]*string{"subject": &m.Subject, "internetMessageId": &m.MessageID} {
		if text, given := o[name].(string); given {
			*to = text
		}
	}
	if body, given := o.object("body"); given {
		m.Text, m.HTML = "", body.text("content")
		if !strings.EqualFold(body.text("contentType"), "html") {
			m.Text, m.HTML = m.HTML, ""
		}
	}
	for name, to := range map[string]*mail.Address{"from": &m.From, "sender": &m.Sender} {
		if one, given := o.object(name); given {
			*to = one.address()
		}
	}
	for name, to := range map[string]*[]mail.Address{"toRecipients": &m.To, "ccRecipients": &m.Cc, "bccRecipients": &m.Bcc, "replyTo": &m.ReplyTo} {
		list, given := o.list(name)
		if !given {
			continue
		}
		*to = nil
		for _, one := range list {
			*to = append(*to, one.address())
		}
	}
	if list, given := o.list("internetMessageHeaders"); given {
		m.Headers = nil
		for _, h := range list {
			m.Headers = append(m.Headers, Header{h.text("name"), h.text("value")})
		}
	}
	list, _ := o.list("singleValueExtendedProperties")
	for _, p := range list {
		m.Properties = append(slices.Clone(m.Properties), Header{p.text("id"), p.text("value")})
	}
	list, _ = o.list("attachments")
	for _, f := range list {
		m.Files = append(m.Files, f.file())
	}
}

func (o object) address() mail.Address {
	e, _ := o.object("emailAddress")
	return mail.Address{Address: e.text("address"), Name: e.text("name")}
}

func (o object) file() *File {
	content, err := base64.StdEncoding.DecodeString(o.text("contentBytes"))
	if err != nil {
		panic("graphtest: isBinary lets through what can't be decoded")
	}
	inline, _ := o["isInline"].(bool)
	return newFile(o.text("name"), o.text("contentType"), o.text("contentId"), inline, content)
}

// recipients gives To, Cc and Bcc.
func (m *Message) recipients() []mail.Address {
	return append(append(append([]mail.Address(nil), m.To...), m.Cc...), m.Bcc...)
}

// resolvable reports whether a is an address that mail can be sent to, and nothing more than one.
func resolvable(a mail.Address) bool {
	parsed, err := netmail.ParseAddress(a.Address)
	return err == nil && parsed.Name == "" && !strings.ContainsAny(a.Address, "<>, ;\t\r\n") && strings.Contains(a.Address, "@")
}

// encodedSize is what a message takes on the wire, rather too little than too much: the limit is strict all the same.
func (m *Message) encodedSize() int64 {
	if m.Raw != nil {
		return int64(len(m.Raw))
	}
	n := int64(len(m.Subject) + len(m.Text) + len(m.HTML))
	for _, f := range m.Files {
		n += wireSize(f.Size)
	}
	for _, h := range m.Headers {
		n += int64(len(h.Name) + len(h.Value))
	}
	return n
}

// wireSize is that of base64 in lines of 76 characters.
func wireSize(n int64) int64 {
	text := int64(base64.StdEncoding.EncodedLen(int(n)))
	return text + (text+75)/76*2
}
