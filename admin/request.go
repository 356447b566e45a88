package admin

import (
	"context"
	"net"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/postroom/postroom/queue"
)

// callerKey is where a request's context has whose token it came with.
type callerKey struct{}

// role lets only callers of this role, or of one above it, pass.
func (h *handler) role(least Role) huma.Middlewares {
	return huma.Middlewares{func(ctx huma.Context, next func(huma.Context)) {
		who, p := h.keys.identify(ctx.Header("Authorization"))
		_, w := humago.Unwrap(ctx)
		if a, ok := w.(*answer); ok {
			a.by = who.name
		}
		if p == nil {
			p = who.need(least)
		}
		if p != nil {
			writeProblem(w, p)
			return
		}
		if p := h.slow(ctx.Context(), who); p != nil {
			writeProblem(w, p)
			return
		}
		who.from, _, _ = net.SplitHostPort(ctx.RemoteAddr())
		next(huma.WithValue(ctx, callerKey{}, who))
	}}
}

// original is what an input embeds to have the request itself. Bodies are not left to huma, which would hold them twice, as
// bytes and as values, and repeat parts of them in its answers.
type original struct {
	request *http.Request
	answer  *answer
	// control sets the time that the client has for the body.
	control *http.ResponseController
}

// Resolve implements huma.Resolver.
func (o *original) Resolve(ctx huma.Context) []error {
	var w http.ResponseWriter
	o.request, w = humago.Unwrap(ctx)
	o.answer = w.(*answer)
	o.control = http.NewResponseController(w)
	return nil
}

// maxIdempotencyKey is in bytes.
const maxIdempotencyKey = 255

// accepting makes the options under which the queue accepts the request: who hands it in, and its Idempotency-Key.
func (o *original) accepting(ctx context.Context) ([]queue.Option, error) {
	const detail = "Send it once, with 1 to 255 printable ASCII characters."
	key, all := "", o.request.Header.Values("Idempotency-Key")
	switch {
	case len(all) > 1:
		return nil, badIdempotencyKey.problem(detail)
	case len(all) == 1:
		key = all[0]
		if key == "" || len(key) > maxIdempotencyKey || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) {
			return nil, badIdempotencyKey.problem(detail)
		}
	}
	by := authorOf(ctx)
	return []queue.Option{queue.By(by), queue.Idempotency(by.Name, key)}, nil
}

// named is the input of what is about one message or batch.
type named struct {
	ID string `path:"id" doc:"The id that was given when it was accepted." example:"01JZ3Q8Y6M2V7T4K9RBC5XWDHE"`
}

// idLength is that of a ULID. What has another length is no id, and not worth asking Redis about.
const idLength = 26

func (n named) check() error {
	if len(n.ID) != idLength {
		return notFound.problem("An id has 26 letters and digits.")
	}
	return nil
}
