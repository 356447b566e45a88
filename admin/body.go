package admin

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
)

// read takes in the body of r, at most limit bytes of JSON, and decodes it into v.
func read(r *http.Request, limit int64, v any) error {
	if p := mediaTypeFault(r.Header); p != nil {
		return p
	}
	tooLarge := bodyTooLarge.problem(fmt.Sprintf("More than %d bytes are not taken: split the batch, or send links instead of large files.", limit))
	if r.ContentLength > limit {
		return tooLarge
	}
	// The buffer grows with what arrives, and not with what was announced.
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	var timeout net.Error
	switch {
	case int64(len(body)) > limit:
		return tooLarge
	case errors.As(err, &timeout) && timeout.Timeout():
		return bodyTooSlow.problem("Nothing was accepted: repeat the request.")
	case err != nil:
		return incompleteBody.problem("Nothing was accepted: repeat the request.")
	}
	return decode(body, v, mostValues)
}

func mediaTypeFault(h http.Header) *Problem {
	mediaType, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil || mediaType != "application/json" {
		return wrongMediaType.problem("Send the header Content-Type: application/json.")
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return wrongMediaType.problem("JSON is UTF-8 here: leave charset away.")
	}
	return encodingFault(h)
}

func encodingFault(h http.Header) *Problem {
	if encoding := h.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return wrongMediaType.problem("The body can't be compressed: send it as it is, without Content-Encoding.")
	}
	return nil
}
