package throttle

import (
	"context"
	_ "embed" // for books.lua
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Books is Lua source to be put between the queue's prelude and its scripts. The file documents its functions.
//
//go:embed books.lua
var Books string

// Provider is the scope of the whole provider's limits; every other scope is a limit key.
const Provider = "*"

// Read reads the books of a scope as one moment had them, in one round trip, for people and for Forecast: a window for each
// limit, in their order. prefix is that of all our keys, such as "{postroom}:".
func Read(ctx context.Context, server redis.UniversalClient, prefix, scope string, limits []Limit) ([]Window, error) {
	if len(limits) == 0 {
		return nil, nil
	}
	key := prefix + "w:" + scope
	fields := make([]string, len(limits))
	older := make([]*redis.StringSliceCmd, len(limits))
	var newest *redis.SliceCmd
	_, err := server.TxPipelined(ctx, func(p redis.Pipeliner) error {
		for i, l := range limits {
			fields[i] = string(l.Name)
			older[i] = p.LRange(ctx, key+":"+string(l.Name), 0, -1)
		}
		newest = p.HMGet(ctx, key, fields...)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("throttle: read the books: %w", err)
	}
	windows := make([]Window, len(limits))
	for i, l := range limits {
		book, _ := newest.Val()[i].(string) // no book: ""
		w, err := window(book, older[i].Val())
		if err != nil {
			return nil, fmt.Errorf("throttle: read the books of %s: %w", l.Name, err)
		}
		w.Limit = l
		windows[i] = w
	}
	return windows, nil
}

// window reads a book, as it stands in the hash, and the list of its older buckets.
func window(book string, older []string) (Window, error) {
	list, err := integers(older)
	if err != nil || len(list)%2 != 0 {
		return Window{}, errors.New("no list of buckets")
	}
	var w Window
	for i := 0; i < len(list); i += 2 {
		w.Buckets = append(w.Buckets, Bucket{Last: list[i], Count: list[i+1]})
	}
	if book == "" {
		return w, nil
	}
	parts, err := integers(strings.Split(book, " "))
	if err != nil || len(parts) != 4 {
		return Window{}, errors.New("no book")
	}
	w.Open = parts[0]
	if last, count := parts[2], parts[3]; count > 0 {
		w.Buckets = append(w.Buckets, Bucket{Last: last, Count: count})
	}
	return w, nil
}

func integers(texts []string) ([]int64, error) {
	numbers := make([]int64, len(texts))
	for i, text := range texts {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return nil, errors.New("not a number")
		}
		numbers[i] = n
	}
	return numbers, nil
}
