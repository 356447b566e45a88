package queue

import (
	"strings"
	"testing"
)

// TestEveryScriptCompiles runs each script with nothing to work on: a fault in its text shows at once, and not as a worker that tries
// again and again. The embedded Redis has less room for local variables than the real one.
func TestEveryScriptCompiles(t *testing.T) {
	onEachRedis(t, func(t *testing.T, q *Queue) {
		for name, script := range q.scripts {
			err := script.Eval(t.Context(), q.redis, q.keys()).Err()
			// That it fails is fine, as it was given nothing. The embedded Redis calls each failure one of compiling, and has
			// a trace of those that are none.
			if err != nil && strings.Contains(err.Error(), "rror compiling") && !strings.Contains(err.Error(), "in main chunk") {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
