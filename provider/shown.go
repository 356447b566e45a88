package provider

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Shown is what may be shown of settings, and kept in the clear.
type Shown struct {
	// Settings are Public; Secrets points to the secrets that are set in them.
	Settings Settings `json:"settings"`
	Secrets  []string `json:"secrets,omitempty"`
}

// Show gives what may be shown of settings, as JSON.
func (s *Settings) Show() (string, error) {
	b, err := json.Marshal(Shown{s.Public(), s.Secrets()})
	if err != nil {
		return "", fmt.Errorf("provider: show: %w", err)
	}
	return string(b), nil
}

// ParseShown is the inverse of Show, also of what a newer program wrote, as far as it is known here.
func ParseShown(text string) (*Shown, error) {
	s := &Shown{}
	if err := json.Unmarshal([]byte(text), s); err != nil {
		return nil, fmt.Errorf("provider: what is shown of the settings can't be read: %w", err)
	}
	return s, nil
}

// Revealed gives settings as JSON with their secrets in it: for the request that sets them, and for nothing else.
func (s *Settings) Revealed() (json.RawMessage, error) {
	copied := *s
	revealed := make(map[string]string)
	for at, secret := range secrets(&copied) {
		if *secret != "" {
			revealed[at] = secret.Reveal()
			*secret = ""
		}
	}
	text, err := json.Marshal(copied)
	if err != nil {
		return nil, fmt.Errorf("provider: reveal: %w", err)
	}
	var all map[string]any
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("provider: reveal: %w", err)
	}
	for at, secret := range revealed {
		path := strings.Split(at[1:], "/")
		object := all
		for _, name := range path[:len(path)-1] {
			below, ok := object[name].(map[string]any)
			if !ok {
				below = map[string]any{}
				object[name] = below
			}
			object = below
		}
		object[path[len(path)-1]] = secret
	}
	return json.Marshal(all)
}
