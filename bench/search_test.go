package bench

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"strings"

	"github.com/redis/go-redis/v9"
)

// pieceBytes is how much of a long secret is looked for at a time. A line of a PEM file has 48 bytes: one piece is whole in each.
const pieceBytes = 24

// pieces cuts a secret. What is left at the end belongs to the last one.
func pieces(secret string) []string {
	var all []string
	for len(secret) >= 2*pieceBytes {
		all = append(all, secret[:pieceBytes])
		secret = secret[pieceBytes:]
	}
	return append(all, secret)
}

// needles are the texts that give a secret away, or a piece of it.
func needles(secret string) []string {
	var all []string
	for _, piece := range pieces(secret) {
		quoted, _ := json.Marshal(piece)
		escaped := url.QueryEscape(piece)
		all = append(all, strings.Trim(string(quoted), `"`), url.PathEscape(piece), strings.ToLower(escaped),
			hex.EncodeToString([]byte(piece)), strings.ToUpper(hex.EncodeToString([]byte(piece))))
		for _, text := range []string{piece, escaped} {
			all = append(append(all, text), inBase64(text)...)
		}
	}
	return all
}

// inBase64 gives what is sure to be seen of a text that stands somewhere in something encoded: it looks different by how many bytes
// come before it, and the characters at its ends belong to its neighbours, too.
func inBase64(text string) []string {
	var all []string
	for before := range 3 {
		padded := append(make([]byte, before), text...)
		for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			all = append(all, encoding.EncodeToString(padded[:len(padded)-len(padded)%3])[(before*8+5)/6:])
		}
	}
	return all
}

// found tells which texts have which of the secrets, named by what they are.
func found(texts map[string]string, secrets map[string][]string) map[string]string {
	all := map[string]string{}
	for where, text := range texts {
		for what, needles := range secrets {
			for _, needle := range needles {
				if strings.Contains(text, needle) {
					all[where] = what
				}
			}
		}
	}
	return all
}

// everything gives all that Redis has: the name, fields, members and values of every key.
func (i *installation) everything() string {
	i.t.Helper()
	ctx, client := i.t.Context(), i.redis.Client
	var out strings.Builder
	fail := func(err error) {
		if err != nil {
			i.t.Fatalf("reading all of Redis: %v", err)
		}
	}
	for cursor, first := uint64(0), true; first || cursor != 0; first = false {
		keys, next, err := client.Scan(ctx, cursor, "", 1000).Result()
		fail(err)
		cursor = next
		types := make([]*redis.StatusCmd, len(keys))
		_, err = client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for k, key := range keys {
				types[k] = p.Type(ctx, key)
			}
			return nil
		})
		fail(err)
		commands := make([]*redis.Cmd, 0, len(keys))
		// A key may have gone meanwhile, or be of another type: each command has an error of its own.
		_, _ = client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for k, key := range keys {
				out.WriteString(key + "\n")
				if read := reading[types[k].Val()]; read != nil {
					commands = append(commands, p.Do(ctx, read(key)...))
				} else if types[k].Val() != "none" {
					i.t.Errorf("key %s is of type %s, which can't be read here", key, types[k].Val())
				}
			}
			return nil
		})
		for _, c := range commands {
			write(&out, c.Val())
		}
	}
	return out.String()
}

// reading are the commands that read a key of each type.
var reading = map[string]func(key string) []any{
	"string": func(key string) []any { return []any{"GET", key} },
	"hash":   func(key string) []any { return []any{"HGETALL", key} },
	"list":   func(key string) []any { return []any{"LRANGE", key, 0, -1} },
	"set":    func(key string) []any { return []any{"SMEMBERS", key} },
	"zset":   func(key string) []any { return []any{"ZRANGE", key, 0, -1} },
	"stream": func(key string) []any { return []any{"XRANGE", key, "-", "+"} },
}

// write adds the texts of an answer.
func write(out *strings.Builder, answer any) {
	switch a := answer.(type) {
	case string:
		out.WriteString(a + "\n")
	case []any:
		for _, v := range a {
			write(out, v)
		}
	case map[any]any:
		for k, v := range a {
			write(out, k)
			write(out, v)
		}
	}
}

// disguises are ways in which a secret can come out.
var disguises = map[string]func(secret string) string{
	"as it is":             func(s string) string { return s },
	"in a login":           func(s string) string { return base64.StdEncoding.EncodeToString([]byte("\x00news\x00" + s)) },
	"in base64 for URLs":   func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte("a" + s + "b")) },
	"in a URL":             url.QueryEscape,
	"in hexadecimal":       func(s string) string { return hex.EncodeToString([]byte(s)) },
	"in large hexadecimal": func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) },
	"in a header":          func(s string) string { return base64.StdEncoding.EncodeToString([]byte("id:" + url.QueryEscape(s))) },
}

// findsWhatIsThere checks that the search would have found a secret, however it is disguised, and wherever Redis keeps it.
func (i *installation) findsWhatIsThere(secrets map[string]string, hidden map[string][]string) {
	i.t.Helper()
	for what, secret := range secrets {
		for how, disguise := range disguises {
			if len(found(map[string]string{"": "x" + disguise(secret) + "y"}, map[string][]string{what: hidden[what]})) == 0 {
				i.t.Errorf("%s is not found %s: this proves nothing", what, how)
			}
		}
	}
	ctx, r := i.t.Context(), i.redis.Client
	plant := newSecret()
	for name, how := range map[string]func(key string) error{
		"string": func(key string) error { return r.Set(ctx, key, plant, 0).Err() },
		"hash":   func(key string) error { return r.HSet(ctx, key, "field", plant).Err() },
		"field":  func(key string) error { return r.HSet(ctx, key, plant, "value").Err() },
		"list":   func(key string) error { return r.RPush(ctx, key, "a", plant).Err() },
		"set":    func(key string) error { return r.SAdd(ctx, key, plant).Err() },
		"zset":   func(key string) error { return r.ZAdd(ctx, key, redis.Z{Member: plant}).Err() },
		"stream": func(key string) error {
			return r.XAdd(ctx, &redis.XAddArgs{Stream: key, Values: []string{"field", plant}}).Err()
		},
		plant: func(key string) error { return r.Set(ctx, key, "value", 0).Err() },
	} {
		if err := how(name); err != nil {
			i.t.Fatal(err)
		}
		if !strings.Contains(i.everything(), plant) {
			i.t.Errorf("a secret in a %s of Redis is not found: this proves nothing", name)
		}
		if err := r.Del(ctx, name).Err(); err != nil {
			i.t.Fatal(err)
		}
	}
}
