package bench

import (
	"testing"

	"github.com/postroom/postroom/queue/queuetest"
)

// TestAClusterDrains has the shard of a Cluster that has our keys work a batch off, beside one Redis alone.
func TestAClusterDrains(t *testing.T) {
	if !*full {
		t.Parallel()
	}
	n, concurrency := size(20_000, 1_000), 50
	address := sink(t)
	alone := drain(t, queuetest.Start(t), smtpTo(t, address, concurrency), n, concurrency)
	took, scripts := drainFrom(t, client(t, queuetest.StartCluster(t, 3).URL), smtpTo(t, address, concurrency), n, concurrency, func() {})
	t.Logf("%d mails from a Cluster of three masters: %.0f/s with %.3f scripts a mail; from one Redis %.0f/s with %.3f",
		n, float64(n)/took.Seconds(), scripts/float64(n), alone.perSecond, alone.scriptsPerMail)
	if each, most := scripts/float64(n), 1.1; *full && each > most {
		t.Errorf("%.3f scripts for each mail, at most %.1f", each, most)
	}
}
