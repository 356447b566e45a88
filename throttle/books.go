package throttle

import (
	"context"
	_ "embed" // for books.lua
	"errors"
	"fmt"
	"slices"
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

// scopesAtOnce is of how many scopes the books are read in one round trip: at most some 16 KB for each.
const scopesAtOnce = 50

// Read reads the books of scopes, those of one scope as one moment had them, for people and for Forecast: a window for each limit, in
// their order. It takes a round trip for 50 scopes. prefix is that of all our keys, such as "{postroom}:".
func Read(ctx context.Context, server redis.UniversalClient, prefix string, scopes []string, limits []Limit) (map[string][]Window, error) {
	books := make(map[string][]Window, len(scopes))
	if len(limits) == 0 {
		return books, nil
	}
	fields := make([]string, len(limits))
	for i, l := range limits {
		fields[i] = string(l.Name)
	}
	for some := range slices.Chunk(scopes, scopesAtOnce) {
		older, newest := make([][]*redis.StringSliceCmd, len(some)), make([]*redis.SliceCmd, len(some))
		_, err := server.TxPipelined(ctx, func(p redis.Pipeliner) error {
			for i, scope := range some {
				key := prefix + "w:" + scope
				for _, field := range fields {
					older[i] = append(older[i], p.LRange(ctx, key+":"+field, 0, -1))
				}
				newest[i] = p.HMGet(ctx, key, fields...)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("throttle: read the books: %w", err)
		}
		for i, scope := range some {
			for n, l := range limits {
				book, _ := newest[i].Val()[n].(string) // no book: ""
				w, err := window(book, older[i][n].Val())
				if err != nil {
					return nil, fmt.Errorf("throttle: read the books of %s: %w", l.Name, err)
				}
				w.Limit = l
				books[scope] = append(books[scope], w)
			}
		}
	}
	return books, nil
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
