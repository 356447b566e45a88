package queue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/redis/go-redis/v9"

	"github.com/postroom/postroom/mail"
)

// ErrTooLarge: the file is larger than a message may be. Nothing was stored.
var ErrTooLarge = errors.New("queue: the file is larger than a message may be")

// StoredContent is a file that is kept for messages to refer to (mail.Attachment.Ref).
type StoredContent struct {
	ID, Name, ContentType string
	Bytes                 int64
	SHA256                string // hexadecimal
	// Shares is how many messages, batches and recipients of batches hold it: all that are staged, open or failed.
	Shares int
	// Expires is when it is dropped unless somebody refers to it; zero while somebody holds it.
	Expires time.Time
}

// StoreContent keeps a file for messages to refer to, any number of them. It is read piece by piece, so that the memory it takes does not
// grow with its size. A contentType that is empty is told from the name. What nobody refers to is dropped after Options.ContentFor, which
// counts anew from when the last who held it has ended.
//
// The error is a *mail.Invalid for a name or type that can't be used, ErrTooLarge, ErrFull, or one of r or of the connection to Redis; then
// nothing is kept.
func (q *Queue) StoreContent(ctx context.Context, name, contentType string, r io.Reader) (*StoredContent, error) {
	contentType, err := mail.CheckFile(name, contentType)
	if err != nil {
		return nil, err
	}
	c := &StoredContent{ID: ulid.Make().String(), Name: name, ContentType: contentType}
	if err := q.store(ctx, c, r); err != nil {
		// What this can't drop the sweep will.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = q.run(ctx, "forget_contents", c.ID).Err()
		return nil, err
	}
	return c, nil
}

// store writes a file's pieces and fills in what is known of it when they are written.
func (q *Queue) store(ctx context.Context, c *StoredContent, r io.Reader) error {
	hash, piece := sha256.New(), make([]byte, chunkBytes)
	for pieces := 0; ; pieces++ {
		n, err := fill(r, piece)
		if err != nil && err != io.EOF {
			return fmt.Errorf("queue: store content: read: %w", err)
		}
		if c.Bytes += int64(n); c.Bytes > q.options.Limits.MaxBytes {
			return ErrTooLarge
		}
		hash.Write(piece[:n])
		if err == io.EOF {
			c.SHA256 = hex.EncodeToString(hash.Sum(nil))
		}
		answer, failed := q.run(ctx, "store", c.ID, pieces, q.options.ContentMaxBytes, stagingTime.Milliseconds(), piece[:n], c.SHA256,
			q.options.ContentFor.Milliseconds(), c.Name, c.ContentType).StringSlice()
		if failed != nil {
			return refusal("store content", failed)
		}
		switch answer[0] {
		case "full":
			return ErrFull
		case "gone":
			return ErrStagingExpired
		}
		if err == io.EOF {
			c.Expires = unixMilli(answer[1])
			return nil
		}
	}
}

// fill reads until piece is full or r has ended: then the error is r's own, so that an end that came too early stays one.
func fill(r io.Reader, piece []byte) (n int, err error) {
	for n < len(piece) && err == nil {
		var m int
		m, err = r.Read(piece[n:])
		n += m
	}
	return n, err
}

// Content tells what is known of a stored file; ErrNotFound if there is none, or it is not complete.
func (q *Queue) Content(ctx context.Context, id string) (*StoredContent, error) {
	var file *redis.SliceCmd
	var score *redis.FloatCmd
	// At the same moment, so that the two agree.
	_, err := q.redis.TxPipelined(ctx, func(p redis.Pipeliner) error {
		file = p.HMGet(ctx, q.key("a:", id), "state", "name", "type", "bytes", "sha256", "shares")
		score = p.ZScore(ctx, q.key("contents"), id)
		return nil
	})
	if err != nil && !isNil(err) {
		return nil, fmt.Errorf("queue: content: %w", err)
	}
	values := file.Val()
	if text(values[0]) != "ready" {
		return nil, ErrNotFound
	}
	c := &StoredContent{ID: id, Name: text(values[1]), ContentType: text(values[2]), Bytes: int64(atoi(text(values[3]))), SHA256: text(values[4]),
		Shares: atoi(text(values[5]))}
	if expires, err := score.Result(); err == nil {
		c.Expires = time.UnixMilli(int64(expires)).UTC()
	}
	return c, nil
}

// noSuchContent is what is wrong with a ref behind which there is nothing.
const noSuchContent = "is not the id of a file that is stored here: store it with POST /v1/contents, and refer to it within the time that the answer names"

// refs is what a message, a batch or a recipient refers to.
type refs struct {
	bytes int
	ids   []string
}

// encode writes it as records have it: bytes, number of files, ids.
func (r *refs) encode() string {
	if len(r.ids) == 0 {
		return ""
	}
	return strconv.Itoa(r.bytes) + " " + strconv.Itoa(len(r.ids)) + " " + strings.Join(r.ids, " ")
}

// referredBytes is how much a record refers to by itself.
func (r *record) referredBytes() int {
	bytes, _, _ := strings.Cut(r.head[headRefs], " ")
	return atoi(bytes)
}

func refsOf(list []mail.Attachment) refs {
	var r refs
	for _, a := range list {
		if a.Ref != "" {
			r.bytes += int(a.Size)
			r.ids = append(r.ids, a.Ref)
		}
	}
	return r
}

// resolver looks up what is referred to, each file once.
type resolver struct {
	queue *Queue
	known map[string]*StoredContent // nil: there is none
}

// mostKnown bounds what a resolver remembers: a batch can have a file for each of any number of recipients.
const mostKnown = 1000

// resolve completes the attachments below a field that refer to something, in a copy. The problems name those behind which there is
// nothing.
func (v *resolver) resolve(ctx context.Context, field string, list []mail.Attachment) ([]mail.Attachment, []mail.Problem, error) {
	if len(refsOf(list).ids) == 0 {
		return list, nil, nil
	}
	list = append([]mail.Attachment(nil), list...)
	var problems []mail.Problem
	for i := range list {
		a := &list[i]
		if a.Ref == "" || len(a.Content) > 0 {
			continue
		}
		c, err := v.find(ctx, a.Ref)
		if err != nil {
			return nil, nil, err
		}
		if c == nil {
			problems = append(problems, lost(field, i))
			continue
		}
		a.Size = c.Bytes
		if a.Name == "" {
			a.Name = c.Name
		}
		if a.ContentType == "" {
			a.ContentType = c.ContentType
		}
	}
	return list, problems, nil
}

func lost(field string, i int) mail.Problem {
	return mail.Problem{Field: field + "/" + strconv.Itoa(i) + "/ref", Reason: noSuchContent}
}

// find gives what is stored under an id; nil if nothing is.
func (v *resolver) find(ctx context.Context, id string) (*StoredContent, error) {
	if len(id) != ulid.EncodedSize {
		return nil, nil
	}
	if c, ok := v.known[id]; ok {
		return c, nil
	}
	values, err := v.queue.redis.HMGet(ctx, v.queue.key("a:", id), "state", "name", "type", "bytes", "sha256").Result()
	if err != nil {
		return nil, fmt.Errorf("queue: content: %w", err)
	}
	var c *StoredContent
	if text(values[0]) == "ready" {
		c = &StoredContent{ID: id, Name: text(values[1]), ContentType: text(values[2]), Bytes: int64(atoi(text(values[3]))), SHA256: text(values[4])}
	}
	if v.known == nil || len(v.known) >= mostKnown {
		v.known = make(map[string]*StoredContent)
	}
	v.known[id] = c
	return c, nil
}

// identified gives attachments as they tell one request from another: by what is in them, so that a file that was stored anew is the
// same file.
func (v *resolver) identified(ctx context.Context, list []mail.Attachment) ([]mail.Attachment, error) {
	list = slices.Clone(list)
	for i := range list {
		if list[i].Ref == "" {
			sum := sha256.Sum256(list[i].Content)
			list[i].Ref, list[i].Content = "sha256:"+hex.EncodeToString(sum[:]), nil
			continue
		}
		c, err := v.find(ctx, list[i].Ref)
		if err != nil {
			return nil, err
		}
		if c != nil {
			list[i].Ref = "sha256:" + c.SHA256
		}
	}
	return list, nil
}

// errLost is the id of a file that was dropped while what refers to it was accepted.
type errLost string

func (e errLost) Error() string { return "queue: a file that is referred to is not stored any more" }

// lostContent is the error of a request whose file was dropped while it was accepted.
func lostContent(field string, list []mail.Attachment, id string) error {
	invalid := &mail.Invalid{}
	for i, a := range list {
		if a.Ref == id {
			invalid.Problems = append(invalid.Problems, lost(field, i))
		}
	}
	return invalid
}

// readContent reads a stored file.
func (q *Queue) readContent(ctx context.Context, id string, size int) (*mail.File, error) {
	blob, err := q.readChunks(ctx, id, chunksOf(size), size)
	if err != nil {
		return nil, err
	}
	return &mail.File{Bytes: blob}, nil
}

// attach puts in the files that a message refers to: those of the content in their places, then the recipient's own.
func (b *body) attach(m *mail.Outgoing, it *item, read func(id string, size int) (*mail.File, error)) error {
	if len(b.refs) == 0 && len(it.Attachments) == 0 {
		return nil
	}
	if len(it.Sizes) != len(it.Attachments) {
		return errNoContent
	}
	files := append([]*mail.File(nil), m.Files...)
	put := func(at int, a *mail.Attachment, size int) error {
		f, err := read(a.Ref, size)
		if err != nil {
			return err
		}
		files[at] = f.As(a.Name, a.ContentType, a.ContentID)
		return nil
	}
	for i := range b.refs {
		if err := put(b.refs[i].at, &b.refs[i].file, b.refs[i].size); err != nil {
			return err
		}
	}
	for i := range it.Attachments {
		files = append(files, nil)
		if err := put(len(files)-1, &it.Attachments[i], it.Sizes[i]); err != nil {
			return err
		}
	}
	m.Files = files
	return nil
}
