package conformance

import (
	"fmt"
	"strings"
	"testing"

	"sealdisk/test/testbed"
)

// What a kernel does when a connection stalls: it gives up on the socket, sends the
// write again on another and goes on. The first copy, still unread at the
// server, must never land on what came later.
func TestLateWriteOfADeadConnection(t *testing.T) {
	d := testbed.Start(t)
	uri := d.Disk("vol", "64M")
	for round := range 20 {
		stalled, other := hello(t, uri), hello(t, uri)
		stalled.transmission("vol")
		other.transmission("vol")
		at := uint64(round) * 65536
		old, now := strings.Repeat("o", 4096), strings.Repeat("n", 4096)
		// Replies that nobody takes hold up what follows them.
		for i := range uint64(48) {
			stalled.request(0, cmdRead, i, 32<<20, 1<<20, "")
		}
		stalled.request(0, cmdWrite, 1000, at, 4096, old)
		if err := stalled.Close(); err != nil {
			t.Fatal(err)
		}
		for cookie, data := range []string{old, now} {
			other.request(0, cmdWrite, uint64(cookie), at, 4096, data)
			if e := other.simpleReply(uint64(cookie)); e != 0 {
				t.Fatalf("write: error %d", e)
			}
		}
		// The stalled connection is gone once the daemon counts one less.
		if !testbed.Poll(testbed.Deadline, func() bool { return connections(t, d) == 1 }) {
			t.Fatalf("%d connections", connections(t, d))
		}
		other.request(0, cmdRead, 7, at, 4096, "")
		if e := other.simpleReply(7); e != 0 {
			t.Fatalf("read: error %d", e)
		}
		if got := string(other.read(4096)); got != now {
			t.Fatalf("round %d: %q… is on the disk, the newer write was acknowledged", round, got[:8])
		}
		other.request(0, cmdDisconnect, 9, 0, 0, "")
		other.closed(testbed.Deadline)
	}
}

// connections is the daemon's count of NBD connections.
func connections(t *testing.T, d *testbed.Daemon) (n int) {
	t.Helper()
	for line := range strings.Lines(d.Must("status")) {
		if _, err := fmt.Sscanf(line, "nbd connections %d", &n); err == nil {
			return n
		}
	}
	t.Fatal("status tells no connections")
	return 0
}
