package graphtest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
)

// shape is a type of Graph's metadata, as far as mail needs it. What has a property more, or one of another type, is refused:
// "Make sure to only use property names that are defined by the type"
// (https://github.com/microsoftgraph/msgraph-sdk-dotnet/issues/270).
type shape struct {
	name       string
	properties map[string]rule
}

// rule checks a value that is not null.
type rule func(value any) *fault

// object is a value whose shape is right. What is null counts as not given.
type object map[string]any

func (o object) text(name string) string {
	text, _ := o[name].(string)
	return text
}

func (o object) object(name string) (child object, given bool) {
	child, given = o[name].(map[string]any)
	return child, given
}

func (o object) list(name string) (children []object, given bool) {
	list, given := o[name].([]any)
	for _, one := range list {
		children = append(children, one.(map[string]any))
	}
	return children, given
}

// parse reads a body as JSON.
func parse(body []byte) (any, *fault) {
	var v any
	if json.Unmarshal(body, &v) != nil {
		return nil, notJSON()
	}
	return v, nil
}

func notJSON() *fault {
	return badRequest("Unable to read JSON request payload. Please ensure Content-Type header is set and payload is of valid JSON format.")
}

// check tells what of value does not fit s.
func (s *shape) check(value any) *fault {
	o, ok := value.(map[string]any)
	if !ok {
		return unreadable("An unexpected node was found when reading '" + s.name + "'. A 'StartObject' node was expected.")
	}
	for _, name := range slices.Sorted(maps.Keys(o)) {
		v := o[name]
		if name == "@odata.type" {
			if text, _ := v.(string); strings.TrimPrefix(text, "#") != s.name {
				return unreadable(fmt.Sprintf("A type named '%v' could not be resolved by the model. "+
					"When a model is available, each type name must resolve to a valid type.", v))
			}
			continue
		}
		rule, ok := s.properties[name]
		if !ok {
			return unreadable("The property '" + name + "' does not exist on type '" + s.name + "'. " +
				"Make sure to only use property names that are defined by the type or mark the type as open type.")
		}
		if v == nil {
			continue
		}
		if fault := rule(v); fault != nil {
			return fault
		}
	}
	return nil
}

func mismatch(value any, kind string) *fault {
	literal := "..."
	switch value.(type) {
	case float64, bool:
		literal = fmt.Sprint(value)
	}
	return unreadable("Cannot convert the literal '" + literal + "' to the expected type '" + kind + "'.")
}

func isString(v any) *fault {
	if _, ok := v.(string); !ok {
		return mismatch(v, "Edm.String")
	}
	return nil
}

func isBool(v any) *fault {
	if _, ok := v.(bool); !ok {
		return mismatch(v, "Edm.Boolean")
	}
	return nil
}

func isInteger(v any) *fault {
	if n, ok := v.(float64); !ok || n != math.Trunc(n) {
		return mismatch(v, "Edm.Int64")
	}
	return nil
}

func isBinary(v any) *fault {
	if text, ok := v.(string); ok {
		if _, err := base64.StdEncoding.DecodeString(text); err == nil {
			return nil
		}
	}
	return mismatch(v, "Edm.Binary")
}

// isOneOf is for enumerations, whose names go in any case.
func isOneOf(names ...string) rule {
	return func(v any) *fault {
		text, ok := v.(string)
		if !ok {
			return mismatch(v, "Edm.String")
		}
		if !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, text) }) {
			return unreadable("Requested value '" + text + "' was not found.")
		}
		return nil
	}
}

func isListOf(r rule) rule {
	return func(v any) *fault {
		list, ok := v.([]any)
		if !ok {
			return unreadable("An unexpected node was found when reading a collection. A 'StartArray' node was expected.")
		}
		for _, element := range list {
			if element == nil {
				return unreadable("A null value was found in a collection of a type that does not allow null values.")
			}
			if fault := r(element); fault != nil {
				return fault
			}
		}
		return nil
	}
}

func isAnything(any) *fault { return nil }

// isReadOnly is for properties that exist and that only the service sets.
func isReadOnly(any) *fault { return readOnly() }

func readOnly() *fault {
	return refuse(http.StatusBadRequest, "ErrorInvalidPropertySet", "Set action is invalid for property.")
}

// parameters checks the arguments of an action, whose names go in any case, and gives them by lower-case name.
func parameters(action string, value any, rules map[string]rule) (object, *fault) {
	o, ok := value.(map[string]any)
	if !ok {
		return nil, notJSON()
	}
	given := make(object, len(o))
	for _, name := range slices.Sorted(maps.Keys(o)) {
		lower := strings.ToLower(name)
		rule, ok := rules[lower]
		if !ok {
			return nil, badRequest("The parameter '" + name + "' in the request payload is not " +
				"a valid parameter for the operation '" + action + "'.")
		}
		if o[name] == nil {
			continue
		}
		if fault := rule(o[name]); fault != nil {
			return nil, fault
		}
		given[lower] = o[name]
	}
	return given, nil
}
