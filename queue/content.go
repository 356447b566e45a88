package queue

import (
	"container/list"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
)

// chunkBytes is the largest piece of content in one key: with Redis's header it fits into an allocation of 512 KiB. It is part of the
// format, for the number of a stored file's pieces is told from its size.
const chunkBytes = 512<<10 - 64

// inlineBytes is the largest content of a single message that travels inside the scripts; what is larger is staged.
const inlineBytes = 64 << 10

// errNoContent says that content is missing or damaged: the message can't be sent.
var errNoContent = errors.New("queue: the content is missing or damaged")

// manifest is the head of stored content: the message without its files' bytes, which follow in the same order. A file that is referred to
// has its size here, and its bytes elsewhere.
type manifest struct {
	Message  mail.Message `json:"m"`
	Sizes    []int        `json:"s,omitempty"`
	Template bool         `json:"t,omitempty"`
}

// encodeContent writes what is shared: the length of the manifest (uvarint), the manifest (JSON), then the files.
func encodeContent(m mail.Message, template bool) ([]byte, error) {
	head := manifest{Message: m, Template: template}
	head.Message.Attachments = make([]mail.Attachment, len(m.Attachments))
	total := 0
	for i, a := range m.Attachments {
		size := len(a.Content)
		if a.Ref != "" {
			size = int(a.Size)
		}
		head.Sizes = append(head.Sizes, size)
		total += len(a.Content)
		a.Content = nil
		head.Message.Attachments[i] = a
	}
	js, err := json.Marshal(head)
	if err != nil {
		return nil, fmt.Errorf("queue: content: %w", err)
	}
	blob := make([]byte, 0, binary.MaxVarintLen64+len(js)+total)
	blob = binary.AppendUvarint(blob, uint64(len(js)))
	blob = append(blob, js...)
	for _, a := range m.Attachments {
		blob = append(blob, a.Content...)
	}
	return blob, nil
}

// body is what attempts need of stored content.
type body struct {
	content *mail.Content
	sendAt  time.Time
	refs    []reference
	filled  int // bytes of text and HTML, which each message has for itself
}

// reference is a file that content refers to, and its place among the content's files.
type reference struct {
	at   int
	file mail.Attachment
	size int
}

// decodeContent is the inverse of encodeContent; the files share blob's memory.
func decodeContent(blob []byte) (*body, error) {
	n, used := binary.Uvarint(blob)
	if used <= 0 || n > uint64(len(blob)-used) {
		return nil, errNoContent
	}
	var head manifest
	if err := json.Unmarshal(blob[used:used+int(n)], &head); err != nil {
		return nil, errNoContent // err may quote content
	}
	files := blob[used+int(n):]
	if len(head.Sizes) != len(head.Message.Attachments) {
		return nil, errNoContent
	}
	b := &body{sendAt: head.Message.SendAt, filled: len(head.Message.Text) + len(head.Message.HTML)}
	for i, size := range head.Sizes {
		if a := head.Message.Attachments[i]; a.Ref != "" {
			b.refs = append(b.refs, reference{i, a, size})
			continue
		}
		if size < 0 || size > len(files) {
			return nil, errNoContent
		}
		head.Message.Attachments[i].Content = files[:size:size]
		files = files[size:]
	}
	if len(files) != 0 {
		return nil, errNoContent
	}
	var err error
	if b.content, err = mail.NewContent(&head.Message, head.Template); err != nil {
		return nil, errors.Join(errNoContent, err)
	}
	return b, nil
}

func chunksOf(size int) int { return (size + chunkBytes - 1) / chunkBytes }

// writeChunks stores staged content. The keys belong to an id that nobody else uses, so writing twice does no harm.
func (q *Queue) writeChunks(ctx context.Context, id string, blob []byte) error {
	for i := range chunksOf(len(blob)) {
		part := blob[i*chunkBytes : min((i+1)*chunkBytes, len(blob))]
		if err := q.redis.Set(ctx, q.key("c:", id, ":", strconv.Itoa(i)), part, 0).Err(); err != nil {
			return refusal("store content", err)
		}
	}
	return nil
}

// collectEvery is after how many pieces what they took is collected: 16 MB.
const collectEvery = 32

// readChunks gives stored content: errNoContent if a piece is missing, another error if Redis did not answer.
func (q *Queue) readChunks(ctx context.Context, id string, chunks, size int) ([]byte, error) {
	blob := make([]byte, 0, size)
	for i := range chunks {
		if i%collectEvery == collectEvery-1 {
			runtime.GC() // else the pieces that were read take as much memory again as the content
		}
		part, err := q.redis.Get(ctx, q.key("c:", id, ":", strconv.Itoa(i))).Bytes()
		if errors.Is(err, redis.Nil) {
			return nil, errNoContent
		} else if err != nil {
			return nil, fmt.Errorf("queue: read content: %w", err)
		}
		blob = append(blob, part...)
	}
	if len(blob) != size {
		return nil, errNoContent
	}
	return slices.Clip(blob), nil
}

// contents keeps the content of batches (*body) and stored files (*mail.File) in a process, parsed and with files encoded, up to a number of
// bytes; the one used longest ago goes first. Each is read once, however many turns ask for it at the same time.
type contents struct {
	max int

	mu    sync.Mutex
	used  int
	byID  map[string]*list.Element
	order list.List // front: used last
}

type cached struct {
	id    string
	size  int
	ready chan struct{} // closed when content and err are set
	value any
	err   error
}

func newContents(maxBytes int) *contents {
	return &contents{max: maxBytes, byID: make(map[string]*list.Element)}
}

// cachedAs gives what c has under an id, of size bytes, calling read if it is not there. A failure is not kept.
func cachedAs[T any](c *contents, id string, size int, read func() (T, error)) (T, error) {
	value, err := c.get(id, size, func() (any, error) { return read() })
	if err != nil {
		var none T
		return none, err
	}
	return value.(T), nil
}

func (c *contents) get(id string, size int, read func() (any, error)) (any, error) {
	c.mu.Lock()
	if e, ok := c.byID[id]; ok {
		c.order.MoveToFront(e)
		c.mu.Unlock()
		entry := e.Value.(*cached)
		<-entry.ready
		return entry.value, entry.err
	}
	// A file is held as it is and as base64; the encoded form is made when the first message goes out.
	entry := &cached{id: id, size: size*12/5 + 4096, ready: make(chan struct{})}
	e := c.order.PushFront(entry)
	c.byID[id] = e
	c.used += entry.size
	for c.used > c.max && c.order.Len() > 1 {
		c.remove(c.order.Back())
	}
	c.mu.Unlock()

	entry.value, entry.err = read()
	close(entry.ready)
	if entry.err != nil {
		c.mu.Lock()
		if c.byID[id] == e {
			c.remove(e)
		}
		c.mu.Unlock()
	}
	return entry.value, entry.err
}

func (c *contents) remove(e *list.Element) {
	entry := c.order.Remove(e).(*cached)
	delete(c.byID, entry.id)
	c.used -= entry.size
}
