package provider

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Settings at rest are one line of text, in one of two forms:
//
//	v1:plain:<JSON>           without any secret
//	v1:<key id>:<base64>      with secrets: the JSON, sealed by AES-256-GCM, its nonce in front
//
// Both hold an atRest. Whoever changes what it means raises the version.
const (
	sealVersion = "1"
	plainForm   = "plain"
	// sealPurpose goes into what is authenticated: a key may be used for other things, and nothing of theirs is taken for settings.
	sealPurpose = "postroom/provider-settings/v" + sealVersion
)

var sealForm = regexp.MustCompile(`(?s)^v([1-9][0-9]*):(.*)$`)

// Errors of a Keyring, beside UnknownKeyError.
var (
	ErrNoKey = errors.New("provider: there is no key to seal credentials with: make one with postroom key new, " +
		"and put it into secrets.keys of every process")
	ErrDamaged     = errors.New("provider: the stored settings are damaged, or were sealed for something else: give the settings anew")
	ErrNewerFormat = errors.New("provider: the stored settings were written by a newer postroom: run that version, or give the settings anew")
)

// UnknownKeyError says that settings were sealed with a key that is not configured.
type UnknownKeyError struct {
	// ID tells the key, and gives nothing of it away.
	ID string
}

// Error names the key by its id.
func (e *UnknownKeyError) Error() string {
	return "provider: the stored settings are sealed with the key " + e.ID +
		", which is not in secrets.keys: put it there, or give the settings anew"
}

// Keyring seals settings for keeping, and opens them again. It may be used by several goroutines. One without keys can keep
// settings that have no secret.
type Keyring struct {
	first string // id of the key that seals
	keys  map[string]cipher.AEAD
}

// keyBytes is the length of a key.
const keyBytes = 32

// NewKeyring takes keys of 32 bytes in base64: the first seals, all open. There may be none. Errors count the keys from 0, as
// the configuration does.
func NewKeyring(keys []Secret) (*Keyring, error) {
	k := &Keyring{keys: make(map[string]cipher.AEAD, len(keys))}
	for i, text := range keys {
		key, err := base64.StdEncoding.DecodeString(text.Reveal())
		if err != nil || len(key) != keyBytes { // the error would tell a byte of the key
			return nil, fmt.Errorf("provider: key %d is not %d bytes in base64: make one with postroom key new", i, keyBytes)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, fmt.Errorf("provider: key %d: %w", i, err)
		}
		sealer, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, fmt.Errorf("provider: key %d: %w", i, err)
		}
		id := keyID(key)
		if _, twice := k.keys[id]; twice {
			return nil, fmt.Errorf("provider: key %d is there twice: make another with postroom key new", i)
		}
		k.keys[id] = sealer
		if i == 0 {
			k.first = id
		}
	}
	return k, nil
}

// keyID tells keys apart: a few bytes of a hash, from which nothing can be found out about one of 256 random bits.
func keyID(key []byte) string {
	sum := sha256.Sum256(append([]byte("postroom/key-id\x00"), key...))
	return hex.EncodeToString(sum[:4])
}

// ID tells which key seals; empty if there is none.
func (k *Keyring) ID() string { return k.first }

// atRest is what is kept of settings. The secrets stand apart from the rest, because a Secret encodes as Redacted, and as bytes,
// because JSON would change those that are not valid UTF-8.
type atRest struct {
	Settings Settings          `json:"settings"`
	Secrets  map[string][]byte `json:"secrets,omitempty"`
}

// Seal gives settings as one line of text that only a process with the same key can read, and only for the same bind: text that
// says what the settings belong to, such as the place where they are kept. Settings without any secret stay readable, and
// need no key; without a key others give ErrNoKey. Everything is kept, also what the kind has no use for: see Used.
func (k *Keyring) Seal(s *Settings, bind string) (string, error) {
	kept := atRest{Settings: *s, Secrets: make(map[string][]byte)}
	for at, secret := range secrets(&kept.Settings) {
		if *secret != "" {
			kept.Secrets[at] = []byte(secret.Reveal())
			*secret = ""
		}
	}
	text, err := json.Marshal(kept)
	if err != nil {
		return "", fmt.Errorf("provider: seal: %w", err)
	}
	if len(kept.Secrets) == 0 {
		return "v" + sealVersion + ":" + plainForm + ":" + string(text), nil
	}
	sealer, ok := k.keys[k.first]
	if !ok {
		return "", ErrNoKey
	}
	sealed := sealer.Seal(nil, nil, text, authenticated(bind))
	return "v" + sealVersion + ":" + k.first + ":" + base64.StdEncoding.EncodeToString(sealed), nil
}

func authenticated(bind string) []byte { return []byte(sealPurpose + "\x00" + bind) }

// Open gives the settings that Seal was given. Its errors are ErrDamaged (which another bind looks like too), ErrNewerFormat and
// *UnknownKeyError. Settings without secrets are not bound to anything, and nothing shows whether they were changed.
func (k *Keyring) Open(sealed, bind string) (*Settings, error) {
	id, content, err := parseSealed(sealed)
	if err != nil {
		return nil, err
	}
	if id == plainForm {
		return decodeAtRest([]byte(content), false)
	}
	opener, ok := k.keys[id]
	if !ok {
		return nil, &UnknownKeyError{ID: id}
	}
	raw, err := base64.StdEncoding.DecodeString(content)
	if err != nil {
		return nil, ErrDamaged
	}
	text, err := opener.Open(nil, nil, raw, authenticated(bind))
	if err != nil {
		return nil, ErrDamaged
	}
	return decodeAtRest(text, true)
}

// Current reports whether settings would be sealed with the same key today, or need none. What is damaged or newer is not.
func (k *Keyring) Current(sealed string) bool {
	id, _, err := parseSealed(sealed)
	return err == nil && (id == plainForm || id == k.first)
}

var keyIDForm = regexp.MustCompile(`^[0-9a-f]{8}$`)

// parseSealed gives the key's id, or plainForm, and what follows it.
func parseSealed(sealed string) (id, content string, err error) {
	m := sealForm.FindStringSubmatch(sealed)
	if m == nil {
		return "", "", ErrDamaged
	}
	if m[1] != sealVersion {
		return "", "", ErrNewerFormat
	}
	id, content, _ = strings.Cut(m[2], ":")
	if id != plainForm && !keyIDForm.MatchString(id) {
		return "", "", ErrDamaged
	}
	return id, content, nil
}

// decodeAtRest reads what Seal wrote. A field that is not known here was written by a newer program: settings are never half read.
func decodeAtRest(text []byte, sealed bool) (*Settings, error) {
	if !json.Valid(text) {
		return nil, ErrDamaged
	}
	var kept atRest
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&kept); err != nil { // not told: it could quote a secret
		return nil, ErrNewerFormat
	}
	for at, secret := range secrets(&kept.Settings) {
		if *secret != "" {
			return nil, ErrDamaged // Seal puts none there
		}
		*secret = Secret(kept.Secrets[at])
		delete(kept.Secrets, at)
		if *secret != "" && !sealed {
			return nil, ErrDamaged
		}
	}
	if len(kept.Secrets) > 0 {
		return nil, ErrNewerFormat
	}
	return &kept.Settings, nil
}
